//! Value: what a statement answers.

use crate::error::{SqlError, codes};
use crate::types::{Datum, SqlState, Type};
use bytes::Bytes;
use coverage::Mark;
use futures::future::{Either, select};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A row of a result.
pub type Row = Vec<Datum>;

/// A column of a result, as RowDescription tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    /// Its name, not necessarily unique.
    pub name: Arc<str>,
    /// Its type, by which values are encoded.
    pub ty: Type,
    /// The type's OID.
    pub type_oid: u32,
    /// `pg_type.typlen`.
    pub type_size: i16,
    /// Type modifier, or -1.
    pub typmod: i32,
    /// The table it is a plain column of, or 0.
    pub table_oid: u32,
    /// The column's number in that table, or 0.
    pub attnum: i16,
}

impl Column {
    /// A computed column.
    pub fn new(name: impl Into<Arc<str>>, ty: Type) -> Column {
        Column {
            name: name.into(),
            ty,
            type_oid: ty.oid(),
            type_size: ty.length(),
            typmod: -1,
            table_oid: 0,
            attnum: 0,
        }
    }
}

/// What a statement answered.
#[derive(Debug)]
pub enum Outcome {
    /// Rows: a query, or a statement with RETURNING.
    Rows {
        /// Their description.
        columns: Arc<[Column]>,
        /// The rows, at most as many as were asked for.
        rows: Vec<Row>,
        /// Result formats as bound (none: text; one: for all; else one per column).
        formats: Arc<[i16]>,
        /// CommandComplete's tag; `None` while more rows are to come.
        tag: Option<String>,
        /// More rows are to come (PortalSuspended).
        suspended: bool,
    },
    /// Done, without rows.
    Complete {
        /// CommandComplete's tag.
        tag: String,
    },
    /// There was no statement.
    Empty,
    /// Send the data: `copy_data`..., then `copy_done` or `copy_fail`.
    CopyIn {
        /// How many columns.
        columns: usize,
        /// 0: text or csv, 1: binary.
        format: i8,
    },
    /// The data.
    CopyOut {
        /// How many columns.
        columns: usize,
        /// 0: text or csv, 1: binary.
        format: i8,
        /// The data, each chunk whole lines.
        chunks: Vec<Bytes>,
        /// CommandComplete's tag.
        tag: String,
    },
}

/// ReadyForQuery's status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransactionStatus {
    /// No transaction block.
    Idle,
    /// In a transaction block.
    InTransaction,
    /// In a transaction block that has failed and can only be rolled back.
    Failed,
}

/// A NoticeResponse.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// `NOTICE`, `WARNING`, `INFO`.
    pub severity: &'static str,
    /// SQLSTATE.
    pub code: SqlState,
    /// The sentence.
    pub message: String,
    /// HINT.
    pub hint: Option<String>,
}

impl Notice {
    /// A NOTICE.
    pub(crate) fn note(message: impl Into<String>) -> Notice {
        Notice {
            severity: "NOTICE",
            code: SqlState::new("00000"),
            message: message.into(),
            hint: None,
        }
    }

    /// A WARNING.
    pub(crate) fn warning(code: SqlState, message: impl Into<String>) -> Notice {
        Notice { severity: "WARNING", code, message: message.into(), hint: None }
    }
}

/// Stops what a session is doing, from another task. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct CancelHandle {
    flag: Arc<AtomicBool>,
    gone: Arc<AtomicBool>,
    waker: Arc<futures::task::AtomicWaker>,
}

impl CancelHandle {
    /// The statement that runs now ends with 57014; without one, nothing happens.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    /// The client has gone: what runs ends with 57014, and whatever begins after it.
    pub fn client_gone(&self) {
        self.gone.store(true, Ordering::SeqCst);
        self.cancel();
    }

    /// Forgets a cancellation that came before a statement began.
    pub(crate) fn reset(&self) {
        self.flag.store(false, Ordering::SeqCst);
    }

    pub(crate) fn is_canceled(&self) -> bool {
        self.flag.load(Ordering::SeqCst) || self.gone.load(Ordering::SeqCst)
    }

    /// What `work` comes to, unless it is cancelled before: 57014, and `work` is dropped where it stands.
    pub(crate) async fn unless_canceled<T>(
        &self,
        work: impl Future<Output = Result<T, SqlError>>,
    ) -> Result<T, SqlError> {
        match select(pin!(work), pin!(self.canceled())).await {
            Either::Left((result, _)) => result,
            Either::Right(((), _)) => {
                coverage::reached(Mark::StatementCancelled);
                Err(SqlError::new(codes::QUERY_CANCELED, "canceling statement due to user request"))
            }
        }
    }

    /// Ready once [`CancelHandle::cancel`] was called.
    pub(crate) async fn canceled(&self) {
        std::future::poll_fn(|context| {
            self.waker.register(context.waker());
            if self.is_canceled() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
}
