//! Driver: one client's session, whatever protocol it speaks.
//!
//! Rooms: `statement` what is prepared and bound; `run` one statement, with its retries; `rerun` a whole transaction, unseen; `transaction` blocks, savepoints; `settings`, `limits`;
//! `history` the past; `ddl` and its jobs; `copy`; `show`; `cursor`; `explain` errors in SQL's terms, `culprit` who was in the way; `script` the simple protocol.
//!
//! INVARIANT: without an open block there is a transaction only between a statement's start and the next Sync (or the end of the
//! simple query); a statement that fails takes it along.

mod copy;
mod culprit;
mod cursor;
mod ddl;
mod explain;
mod history;
mod limits;
mod rerun;
mod run;
mod script;
mod settings;
mod show;
mod statement;
mod transaction;

pub(crate) use explain::key_in_words;
pub use script::SimpleScript;
pub use statement::Next;

use crate::catalog::Catalog;
use crate::engine::Engine;
use crate::error::{SqlError, codes};
use crate::exec::{Facts, Uniqueness};
use crate::outcome::{CancelHandle, Column, Notice, Outcome, TransactionStatus};
use crate::types::{Datum, binary, text};
use bytes::{Bytes, BytesMut};
use clock::Monotonic;
use limits::TimeLimit;
use settings::Settings;
use statement::{Portal, Prepared};
use std::collections::BTreeMap;
use std::sync::Arc;
use transaction::{Active, Block};

/// Prepared statements of one session.
const STATEMENTS_MAX: usize = 10_000;
/// Portals of one session.
const PORTALS_MAX: usize = 10_000;

/// How a client comes.
#[derive(Clone, Debug, Default)]
pub struct SessionParams {
    /// Who.
    pub user: String,
    /// Where to.
    pub database: String,
    /// Its program.
    pub application_name: String,
    /// What it wants text in; only UTF8 is spoken.
    pub client_encoding: String,
    /// Settings that it begins with.
    pub options: BTreeMap<String, String>,
    /// Number of its connection.
    pub process_id: i32,
    /// Secret of its connection, for cancelling.
    pub secret: i32,
}

impl SessionParams {
    /// From the parameters of PostgreSQL's startup message.
    pub fn from_startup(
        parameters: BTreeMap<String, String>,
        process_id: i32,
        secret: i32,
    ) -> SessionParams {
        let mut params = SessionParams { process_id, secret, ..SessionParams::default() };
        for (name, value) in parameters {
            match name.as_str() {
                "user" => params.user = value,
                "database" => params.database = value,
                "application_name" => params.application_name = value,
                "client_encoding" => params.client_encoding = value,
                "options" => params.options.extend(settings::command_line_options(&value)),
                "replication" => {}
                name if name.starts_with("_pq_.") => {}
                name => {
                    params.options.insert(name.to_string(), value);
                }
            }
        }
        if params.database.is_empty() {
            params.database = params.user.clone();
        }
        params
    }
}

/// One client's session.
pub struct Session {
    engine: Arc<Engine>,
    user: Arc<str>,
    database: u32,
    database_name: Arc<str>,
    process_id: i32,
    settings: Settings,
    statements: BTreeMap<String, Arc<Prepared>>,
    portals: BTreeMap<String, Portal>,
    /// Ever, for telling which came after a savepoint.
    portals_opened: u64,
    /// Several statements of one string are being run.
    in_script: bool,
    block: Block,
    active: Option<Active>,
    /// What INSERT may leave to the commit.
    uniqueness: Uniqueness,
    /// The statement that runs, or the last one, for others' errors.
    doing: Arc<str>,
    /// When the statement that runs is ended, and by which limit.
    deadline: Option<(Monotonic, TimeLimit)>,
    copy: Option<copy::CopyIn>,
    notices: Vec<Notice>,
    cancel: CancelHandle,
    sequence_values: Arc<parking_lot::Mutex<crate::exec::SequenceValues>>,
    /// For encoding results: as of the last statement.
    facts: Arc<Facts>,
}

impl Session {
    pub(crate) fn new(
        engine: Arc<Engine>,
        params: SessionParams,
        database: u32,
    ) -> Result<Session, SqlError> {
        let user: Arc<str> = Arc::from(params.user.as_str());
        let database_name: Arc<str> = Arc::from(params.database.as_str());
        let settings = Settings::new(&params, &engine.settings, engine.db.settings())?;
        let sequence_values = Arc::default();
        let facts = Facts {
            catalog: engine.catalog(),
            database,
            database_name: database_name.clone(),
            user: user.clone(),
            search_path: settings.search_path(),
            settings: settings.shared(),
            transaction_us: 0,
            statement_us: 0,
            zone: settings.zone(),
            bytea_output: settings.bytea_output(),
            extra_float_digits: settings.extra_float_digits(),
            process_id: params.process_id,
            runtime: engine.db.runtime().clone(),
            cluster: engine.cluster.clone(),
            gateways: engine.gateways.clone(),
            sequence_values: Arc::clone(&sequence_values),
        };
        Ok(Session {
            engine,
            user,
            database,
            database_name,
            process_id: params.process_id,
            settings,
            statements: BTreeMap::new(),
            portals: BTreeMap::new(),
            portals_opened: 0,
            in_script: false,
            block: Block::None,
            active: None,
            uniqueness: Uniqueness::AtOnce,
            doing: Arc::from(""),
            deadline: None,
            copy: None,
            notices: Vec::new(),
            cancel: CancelHandle::default(),
            sequence_values,
            facts: Arc::new(facts),
        })
    }

    /// Where the session stands.
    pub fn status(&self) -> TransactionStatus {
        match self.block {
            Block::None => TransactionStatus::Idle,
            Block::Open => TransactionStatus::InTransaction,
            Block::Failed => TransactionStatus::Failed,
        }
    }

    /// Settings that clients are told at their start, in PostgreSQL's order.
    pub fn startup_parameters(&self) -> Vec<(String, String)> {
        self.settings.reported()
    }

    /// Settings that clients are told of and that have changed since they were last asked for.
    pub fn parameter_changes(&mut self) -> Vec<(String, String)> {
        self.settings.take_changes()
    }

    /// Notices since they were last asked for.
    pub fn notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Cancels from elsewhere what this session is doing.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// Appends a result's value in a format (0: text, 1: binary); `false`: it is NULL and nothing was appended.
    pub fn encode_datum(
        &self,
        datum: &Datum,
        column: &Column,
        format: i16,
        out: &mut BytesMut,
    ) -> bool {
        if datum.is_null() {
            return false;
        }
        if format == 1 {
            let mut bytes = Vec::new();
            binary::write(&mut bytes, datum, column.ty, &*self.facts);
            out.extend_from_slice(&bytes);
        } else {
            let mut string = String::new();
            text::write(&mut string, datum, column.ty, &*self.facts);
            out.extend_from_slice(string.as_bytes());
        }
        true
    }

    /// The statement in hand has failed outside of the session (the client could not be answered, say): a block is failed, an
    /// implicit transaction gone.
    pub fn fail(&mut self) {
        self.copy = None;
        if self.block == Block::Open {
            self.block = Block::Failed;
            if let Some(active) = &mut self.active {
                active.let_go_if_over();
            }
        }
        if self.block == Block::None {
            // Dropped: its locks are released in the background.
            let announced = self.active.take().map(|active| active.announced);
            self.settings.end_transaction(false);
            if let Some(announced) = announced.filter(|announced| !announced.is_empty()) {
                drop(ddl::follow_in_background(&self.engine, announced));
            }
        }
        self.close_portals();
    }

    /// The client is gone.
    pub async fn terminate(&mut self) {
        self.copy = None;
        self.portals.clear();
        if let Some(mut active) = self.active.take() {
            active.txn.rollback().await;
            ddl::follow(&self.engine, active.announced).await;
        }
        self.block = Block::None;
    }

    /// More data of COPY FROM STDIN.
    ///
    /// # Errors
    /// The data is wrong, or cannot be written; the rest of it is to be ignored.
    pub async fn copy_data(&mut self, data: Bytes) -> Result<(), SqlError> {
        let result = self.copy_bytes(data).await;
        self.noted(result).await
    }

    /// The data of COPY FROM STDIN has ended.
    ///
    /// # Errors
    /// As [`Session::copy_data`].
    pub async fn copy_done(&mut self) -> Result<Outcome, SqlError> {
        let result = self.copy_end().await;
        self.noted(result).await
    }

    /// The client gives up its COPY FROM STDIN: the error that it is to be told.
    pub async fn copy_fail(&mut self, message: &str) -> SqlError {
        self.copy = None;
        let error =
            SqlError::new(codes::QUERY_CANCELED, format!("COPY from stdin failed: {message}"));
        let result: Result<(), SqlError> = self.noted(Err(error.clone())).await;
        result.err().unwrap_or(error)
    }

    /// Says what this session knows about its surroundings.
    fn catalog(&self) -> Arc<Catalog> {
        let own = self
            .active
            .as_ref()
            .and_then(|active| active.catalog.as_ref().or(active.past.as_ref()).cloned());
        own.unwrap_or_else(|| self.engine.catalog())
    }

    /// Surroundings of a statement that begins now.
    fn facts_now(&mut self) -> Arc<Facts> {
        let statement_us = self.facts.clock_us();
        let transaction_us = self.active.as_ref().map_or(statement_us, |active| active.started_us);
        let facts = Facts {
            catalog: self.catalog(),
            database: self.database,
            database_name: self.database_name.clone(),
            user: self.user.clone(),
            search_path: self.settings.search_path(),
            settings: self.settings.shared(),
            transaction_us,
            statement_us,
            zone: self.settings.zone(),
            bytea_output: self.settings.bytea_output(),
            extra_float_digits: self.settings.extra_float_digits(),
            process_id: self.process_id,
            runtime: self.engine.db.runtime().clone(),
            cluster: self.engine.cluster.clone(),
            gateways: self.engine.gateways.clone(),
            sequence_values: self.sequence_values.clone(),
        };
        self.facts = Arc::new(facts);
        self.facts.clone()
    }

    fn notice(&mut self, notice: Notice) {
        self.notices.push(notice);
    }
}
