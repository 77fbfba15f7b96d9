//! Value: why a statement failed, as PostgreSQL's clients understand it.
//!
//! Drivers act on the five-letter code: 40001 and 40P01 are retried, 23505 names its constraint, 42601 shows a position. The
//! transaction layer's errors are sorted by what the caller must do, and turned into codes here and nowhere else.
//! [`SqlError::position`] counts characters from 1, as the protocol's `P` field does.

use crate::types::{SqlState, TypeError};
use std::fmt;
use txn::client::{Question, RetryKind, TimeoutKind, TxnError};

/// Codes that values never raise.
pub(crate) mod codes {
    use crate::types::SqlState;
    macro_rules! codes {
        ($($name:ident $code:literal)*) => { $(pub(crate) const $name: SqlState = SqlState::new($code);)* };
    }
    codes! {
        CARDINALITY_VIOLATION "21000"
        SNAPSHOT_TOO_OLD "72000"
        NOT_NULL_VIOLATION "23502"
        FOREIGN_KEY_VIOLATION "23503"
        UNIQUE_VIOLATION "23505"
        CHECK_VIOLATION "23514"
        ACTIVE_TRANSACTION "25001"
        READ_ONLY_TRANSACTION "25006"
        IDLE_IN_TRANSACTION_TIMEOUT "25P03"
        TRANSACTION_TIMEOUT "25P04"
        IDLE_SESSION_TIMEOUT "57P05"
        NO_ACTIVE_TRANSACTION "25P01"
        IN_FAILED_TRANSACTION "25P02"
        INVALID_STATEMENT_NAME "26000"
        INVALID_AUTHORIZATION "28000"
        DEPENDENT_OBJECTS "2BP01"
        INVALID_CURSOR_NAME "34000"
        INVALID_CATALOG_NAME "3D000"
        INVALID_SAVEPOINT "3B001"
        SERIALIZATION_FAILURE "40001"
        COMPLETION_UNKNOWN "40003"
        DEADLOCK_DETECTED "40P01"
        INSUFFICIENT_PRIVILEGE "42501"
        DUPLICATE_COLUMN "42701"
        AMBIGUOUS_COLUMN "42702"
        UNDEFINED_COLUMN "42703"
        DUPLICATE_OBJECT "42710"
        DUPLICATE_ALIAS "42712"
        GROUPING_ERROR "42803"
        WRONG_OBJECT_TYPE "42809"
        INVALID_FOREIGN_KEY "42830"
        INDETERMINATE_DATATYPE "42P18"
        UNDEFINED_PARAMETER "42P02"
        DUPLICATE_CURSOR "42P03"
        DUPLICATE_DATABASE "42P04"
        DUPLICATE_PREPARED_STATEMENT "42P05"
        DUPLICATE_SCHEMA "42P06"
        DUPLICATE_TABLE "42P07"
        INVALID_COLUMN_REFERENCE "42P10"
        INVALID_TABLE_DEFINITION "42P16"
        OUT_OF_MEMORY "53200"
        CONFIGURATION_LIMIT "53400"
        TOO_MANY_COLUMNS "54011"
        OBJECT_NOT_IN_STATE "55000"
        CANT_CHANGE_RUNTIME_PARAM "55P02"
        LOCK_NOT_AVAILABLE "55P03"
        QUERY_CANCELED "57014"
        SYSTEM_ERROR "58000"
        BAD_COPY_FILE_FORMAT "22P04"
    }
}

/// A statement's error. Boxed inside: results stay small.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SqlError {
    /// SQLSTATE.
    pub code: SqlState,
    /// The sentence.
    pub message: String,
    /// DETAIL.
    pub detail: Option<String>,
    /// HINT.
    pub hint: Option<String>,
    /// Character of the statement, counted from 1.
    pub position: Option<usize>,
    /// Schema of the object concerned.
    pub schema: Option<String>,
    /// Table concerned.
    pub table: Option<String>,
    /// Column concerned.
    pub column: Option<String>,
    /// Constraint violated.
    pub constraint: Option<String>,
    /// What the session may do about it unseen by the client.
    pub(crate) recovery: Recovery,
    /// Where others were in the way: the detail names it until the catalog tells table and values.
    pub(crate) key: Option<storage::Key>,
    /// Who they were, while nobody has been asked.
    pub(crate) other: Option<Question>,
}

/// What may be done about an error while nothing has been shown to the client.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Recovery {
    /// Nothing: report it.
    #[default]
    Report,
    /// Run the transaction again.
    Restart,
    /// Read the catalog again, then run the transaction again.
    Refresh {
        /// Table whose schema has moved on, and the version asked for.
        table: u32,
        /// Lowest version that its ranges accept.
        version: u64,
    },
    /// Tell the client, with the regions of the nodes that do not answer.
    Missing {
        /// Voters that are not heard of.
        nodes: Vec<replication::range::NodeId>,
    },
    /// Tell the client, in calendar time.
    TooOld {
        /// History at or below is gone.
        threshold: clock::Timestamp,
    },
    /// Write conflict on a key: the table's descriptor says which constraint that is.
    Exists {
        /// The key.
        key: storage::Key,
    },
}

impl SqlError {
    /// An error without further fields.
    pub fn new(code: SqlState, message: impl Into<String>) -> SqlError {
        SqlError {
            code,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            schema: None,
            table: None,
            column: None,
            constraint: None,
            recovery: Recovery::Report,
            key: None,
            other: None,
        }
    }

    /// 25006, in PostgreSQL's words.
    pub(crate) fn read_only(what: &str) -> SqlError {
        let message = format!("cannot execute {what} in a read-only transaction");
        SqlError::new(codes::READ_ONLY_TRANSACTION, message)
    }

    /// 0A000.
    pub fn unsupported(what: impl Into<String>) -> SqlError {
        SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, what)
    }

    /// XX000: an inconsistency that is ours.
    pub(crate) fn internal(what: impl Into<String>) -> SqlError {
        SqlError::new(SqlState::INTERNAL_ERROR, what)
    }

    /// With a DETAIL line.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> SqlError {
        self.detail = Some(detail.into());
        self
    }

    /// With a HINT line.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> SqlError {
        self.hint = Some(hint.into());
        self
    }

    /// With a position, unless one is known already.
    #[must_use]
    pub(crate) fn at(mut self, position: Option<usize>) -> SqlError {
        self.position = self.position.or(position);
        self
    }

    /// With the table concerned.
    #[must_use]
    pub(crate) fn on_table(mut self, table: &str) -> SqlError {
        self.schema = Some("public".to_string());
        self.table = Some(table.to_string());
        self
    }

    /// With the column concerned.
    #[must_use]
    pub(crate) fn on_column(mut self, column: &str) -> SqlError {
        self.column = Some(column.to_string());
        self
    }

    /// With the constraint violated.
    #[must_use]
    pub(crate) fn on_constraint(mut self, constraint: &str) -> SqlError {
        self.constraint = Some(constraint.to_string());
        self
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        Ok(())
    }
}

impl std::error::Error for SqlError {}

impl From<TypeError> for SqlError {
    fn from(error: TypeError) -> SqlError {
        SqlError {
            detail: error.detail,
            hint: error.hint,
            ..SqlError::new(error.code, error.message)
        }
    }
}

/// Codes of the protocol, raised by whoever speaks it.
impl SqlState {
    /// 08P01
    pub const PROTOCOL_VIOLATION: SqlState = SqlState::new("08P01");
    /// 53300
    pub const TOO_MANY_CONNECTIONS: SqlState = SqlState::new("53300");
    /// 40001
    pub const SERIALIZATION_FAILURE: SqlState = SqlState::new("40001");
    /// 40003
    pub const STATEMENT_COMPLETION_UNKNOWN: SqlState = SqlState::new("40003");
    /// 57P01
    pub const ADMIN_SHUTDOWN: SqlState = SqlState::new("57P01");
}

/// By what the caller must do. Keys become tables and values where the catalog is known (`session::explain`).
impl From<TxnError> for SqlError {
    fn from(error: TxnError) -> SqlError {
        let message = error.to_string();
        let key = match &error {
            TxnError::Retry { key, .. } | TxnError::Timeout { key, .. } => key.clone(),
            TxnError::Deadlock { key, .. } | TxnError::Blocked { key, .. } => Some(key.clone()),
            _ => None,
        };
        let other = match &error {
            TxnError::Retry { other, .. } => other.clone(),
            TxnError::Deadlock { holder, .. } | TxnError::Blocked { holder, .. } => {
                Some(Question::Transaction(*holder))
            }
            TxnError::Timeout { holder, .. } => holder.map(Question::Transaction),
            _ => None,
        };
        SqlError { key, other, ..SqlError::by_kind(error, message) }
    }
}

impl SqlError {
    fn by_kind(error: TxnError, message: String) -> SqlError {
        let recoverable = |code: SqlState, message: String, recovery: Recovery| SqlError {
            recovery,
            ..SqlError::new(code, message)
        };
        match error {
            TxnError::Retry { kind, reason, .. } => recoverable(
                codes::SERIALIZATION_FAILURE,
                match kind {
                    RetryKind::Overwritten => "could not serialize access due to concurrent update",
                    RetryKind::Aborted => {
                        "could not serialize access: another transaction had to go first"
                    }
                    RetryKind::DeadlinePassed => {
                        "could not serialize access: the commit came too late"
                    }
                    RetryKind::LockLost => "could not serialize access: a lock was lost",
                }
                .to_string(),
                Recovery::Restart,
            )
            .with_detail(sentence(&reason))
            .with_hint(match kind {
                RetryKind::Overwritten => {
                    "The transaction might succeed if retried: nothing of it was committed. \
                     If this happens often, read the rows that it goes on to change FOR UPDATE."
                }
                RetryKind::Aborted | RetryKind::DeadlinePassed | RetryKind::LockLost => {
                    "The transaction might succeed if retried: nothing of it was committed."
                }
            }),
            TxnError::Deadlock { .. } => recoverable(
                codes::DEADLOCK_DETECTED,
                "deadlock detected".to_string(),
                Recovery::Restart,
            )
            .with_detail(sentence(&message))
            .with_hint(
                "The transaction might succeed if retried: nothing of it was committed. \
                 Transactions that lock the same rows in the same order do not deadlock.",
            ),
            TxnError::Exists { key, .. } => recoverable(
                codes::UNIQUE_VIOLATION,
                "duplicate key value violates a unique constraint".to_string(),
                Recovery::Exists { key },
            ),
            TxnError::Blocked { .. } => {
                SqlError::new(codes::LOCK_NOT_AVAILABLE, "could not obtain lock on row")
                    .with_detail(sentence(&message))
            }
            TxnError::SchemaChanged { table, version } => recoverable(
                codes::SERIALIZATION_FAILURE,
                "restart transaction: the schema of a table it uses was changed".to_string(),
                Recovery::Refresh { table, version },
            )
            .with_detail(message),
            TxnError::BelowGc { threshold } => recoverable(
                codes::SNAPSHOT_TOO_OLD,
                "snapshot too old".to_string(),
                Recovery::TooOld { threshold },
            )
            .with_detail(sentence(&message)),
            TxnError::ClockLags { .. } => SqlError::new(
                codes::SYSTEM_ERROR,
                "could not begin a strictly serializable transaction",
            )
            .with_detail(sentence(&message))
            .with_hint("Try again here or at another node. A clock goes on when its node can write to its disk."),
            TxnError::Unavailable { range, missing, reason } => {
                let nodes: Vec<String> = missing.iter().map(ToString::to_string).collect();
                let detail = if nodes.is_empty() {
                    reason.clone()
                } else {
                    format!("Not heard of: {}.", nodes.join(", "))
                };
                let message = format!("range {range} is unavailable: {reason}");
                recoverable(codes::SYSTEM_ERROR, message, Recovery::Missing { nodes: missing })
                    .with_detail(detail)
                    .with_hint("Nothing was committed. Try again when the regions can reach each other, or from the majority's side.")
            }
            TxnError::Ambiguous { ticket, .. } => SqlError::new(
                codes::COMPLETION_UNKNOWN,
                "it is unknown whether the transaction was committed",
            )
            .with_detail(sentence(&message))
            .with_hint(match ticket {
                Some(ticket) => format!(
                    "Ask any node before you repeat it: SHOW TRANSACTION STATUS '{ticket}' \
                     (if it was not committed by then, it never will be)."
                ),
                None => "Read what it would have written before you repeat it.".to_string(),
            }),
            TxnError::TooMany { what, .. } => {
                let setting = match what {
                    "bytes written by a transaction" => "transaction_write_limit",
                    "rows locked by a transaction" => "transaction_lock_limit",
                    _ => "transaction_savepoint_limit",
                };
                SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message)
                    .with_hint(format!("The limit is the setting {setting}."))
            }
            TxnError::TooLarge { .. } => SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message),
            TxnError::Timeout { kind: TimeoutKind::Lock, .. } => {
                SqlError::new(codes::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout")
                    .with_detail(sentence(&message))
            }
            TxnError::Timeout { kind: TimeoutKind::Statement, .. } => {
                SqlError::new(codes::QUERY_CANCELED, "canceling statement due to statement timeout")
            }
            TxnError::ReadOnly => SqlError::new(
                codes::READ_ONLY_TRANSACTION,
                "cannot write in a read-only transaction",
            ),
            TxnError::Invalid(_) => SqlError::internal(message),
        }
    }
}

/// As DETAIL wants it: a capital, a full stop.
fn sentence(clause: &str) -> String {
    capitalised(clause) + "."
}

pub(crate) fn capitalised(clause: &str) -> String {
    let mut rest = clause.chars();
    let first = rest.next().map(char::to_uppercase).into_iter().flatten();
    first.chain(rest).collect()
}
