//! Driver: transaction blocks and savepoints.

use super::Session;
use super::ddl::{Announced, follow};
use super::rerun::Tape;
use crate::catalog::{Catalog, Draft, Entry, TableDescriptor};
use crate::error::{Recovery, SqlError, codes};
use crate::exec::Facts;
use crate::outcome::{Notice, Outcome};
use crate::parse::{AsOf, BeginOptions};
use crate::types::{Datum, SqlState};
use clock::{Monotonic, Timestamp};
use coverage::Mark;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use txn::client::{Access, Doing, Isolation, SavepointId, Txn, TxnOptions};

/// Whether BEGIN was said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Block {
    None,
    Open,
    /// A statement has failed: only its end is left.
    Failed,
}

/// A mode of the transaction under way, which a setting shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    Isolation,
    ReadOnly,
    Deferrable,
}

impl Mode {
    /// The mode that the setting shows.
    pub(super) fn of_setting(name: &str) -> Option<Mode> {
        match name.to_lowercase().as_str() {
            "transaction_isolation" => Some(Mode::Isolation),
            "transaction_read_only" => Some(Mode::ReadOnly),
            "transaction_deferrable" => Some(Mode::Deferrable),
            _ => None,
        }
    }
}

/// A transaction under way.
pub(super) struct Active {
    pub(super) txn: Txn,
    /// Statements that have been answered.
    pub(super) statement_count: u64,
    /// When it began, microseconds since 2000.
    pub(super) started_us: i64,
    /// The same, for `transaction_timeout`.
    pub(super) begun: Monotonic,
    /// The catalog with this transaction's own changes.
    pub(super) catalog: Option<Arc<Catalog>>,
    /// The catalog of the moment that a transaction in the past is at.
    pub(super) past: Option<Arc<Catalog>>,
    /// Innermost last.
    savepoints: Vec<Savepoint>,
    /// Only its beginning helps any more: with which error that was told.
    given_up: Option<SqlState>,
    /// For running it again.
    pub(super) tape: Tape,
    /// Tables that need not be told that they are referenced: those that it has made, which nobody else knows, and those that it has told.
    pub(super) told: BTreeSet<u32>,
    /// Tables that it has made: nobody else knows them.
    pub(super) made: BTreeSet<u32>,
    /// Tables whose data may go once this has committed.
    pub(super) dropped: Vec<Arc<crate::catalog::TableDescriptor>>,
    /// What the ranges of tables were told of changes of this transaction, also of those that were taken back since. What does not come
    /// to be, the tables have to follow all the same.
    pub(super) announced: Announced,
}

impl Active {
    pub(super) fn new(txn: Txn, facts: &Facts, past: Option<Arc<Catalog>>) -> Active {
        Active {
            txn,
            statement_count: 0,
            started_us: facts.clock_us(),
            begun: facts.runtime.time.monotonic(),
            catalog: None,
            past,
            savepoints: Vec::new(),
            given_up: None,
            tape: Tape::default(),
            told: BTreeSet::new(),
            made: BTreeSet::new(),
            dropped: Vec::new(),
            announced: Announced::new(),
        }
    }

    /// It cannot commit any more, nor go on from a savepoint: what it holds is let go at once.
    pub(super) fn give_up(&mut self, told: SqlState) {
        self.given_up = Some(told);
        self.txn.let_go();
    }

    /// Begins anew, without its savepoints.
    pub(super) fn restart(&mut self) {
        self.txn.restart();
        self.given_up = None;
        self.savepoints.clear();
        self.told.clear();
        self.made.clear();
        self.dropped.clear();
    }

    /// For those who cannot wait: a block that has failed and has no savepoint holds nothing any more.
    pub(super) fn let_go_if_over(&mut self) {
        if self.savepoints.is_empty() {
            self.txn.let_go();
        }
    }

    /// What a draft has announced is to come with this transaction.
    pub(super) fn note_announced(&mut self, draft: &Draft) {
        for (table, version) in draft.announced() {
            let known = self.announced.entry(table).or_default();
            *known = (*known).max(version);
        }
    }

    /// Begins anew, when nothing has been answered but BEGIN and SAVEPOINT.
    pub(super) fn restart_unseen(&mut self) -> Result<(), SqlError> {
        let savepoints = std::mem::take(&mut self.savepoints);
        self.restart();
        for savepoint in savepoints {
            self.open_savepoint(savepoint.name, savepoint.around)?;
        }
        Ok(())
    }

    fn open_savepoint(&mut self, name: String, around: Around) -> Result<(), SqlError> {
        let id = self.txn.savepoint()?;
        self.savepoints.push(Savepoint {
            name,
            id,
            catalog: self.catalog.clone(),
            told: self.told.clone(),
            made: self.made.clone(),
            dropped_count: self.dropped.len(),
            around,
        });
        Ok(())
    }

    /// Whether all that it does is in its transaction.
    pub(super) fn changes_nothing_else(&self) -> bool {
        self.catalog.is_none() && self.dropped.is_empty()
    }

    /// Whether its modes may still change so.
    fn may_change(&self, changes: &BeginOptions) -> Result<(), SqlError> {
        let (is_used, in_savepoint) = (self.statement_count > 0, !self.savepoints.is_empty());
        let why = match changes {
            BeginOptions { isolation: Some(_), .. } if is_used => {
                "SET TRANSACTION ISOLATION LEVEL must be called before any query"
            }
            BeginOptions { isolation: Some(_), .. } if in_savepoint => {
                "SET TRANSACTION ISOLATION LEVEL must not be called in a subtransaction"
            }
            BeginOptions { read_only: Some(false), .. } if is_used => {
                "transaction read-write mode must be set before any query"
            }
            BeginOptions { read_only: Some(false), .. } if in_savepoint => {
                "cannot set transaction read-write mode inside a read-only transaction"
            }
            BeginOptions { deferrable: Some(_), .. } if is_used => {
                "SET TRANSACTION [NOT] DEFERRABLE must be called before any query"
            }
            BeginOptions { deferrable: Some(_), .. } if in_savepoint => {
                "SET TRANSACTION [NOT] DEFERRABLE cannot be called within a subtransaction"
            }
            BeginOptions { .. } => return Ok(()),
        };
        Err(SqlError::new(codes::ACTIVE_TRANSACTION, why))
    }

    /// Whether nothing has happened in it.
    pub(super) fn is_fresh(&self) -> bool {
        self.statement_count == 0
            && self.catalog.is_none()
            && self.savepoints.is_empty()
            && !self.txn.has_writes()
            && !self.txn.has_reads()
    }
}

impl Session {
    /// The transaction, begun if there is none.
    pub(super) fn begin_if_none(&mut self) -> &mut Active {
        if self.active.is_none() {
            let on = |name: &str| self.settings.get(name) == Some("on");
            let isolation =
                isolation(self.settings.get("transaction_isolation").unwrap_or_default());
            let serializable = match isolation {
                Isolation::Serializable | Isolation::StrictSerializable => true,
                Isolation::ReadCommitted | Isolation::Snapshot => false,
            };
            let access = match (on("transaction_read_only"), on("transaction_deferrable")) {
                (false, _) => Access::ReadWrite,
                // As in PostgreSQL, where it means nothing to the other levels.
                (true, true) if serializable => Access::Deferrable,
                (true, _) => Access::ReadOnly,
            };
            let limits = self.txn_limits();
            let options = TxnOptions { isolation, access, limits, ..TxnOptions::labelled("sql") };
            self.active = Some(Active::new(self.engine.db.begin(options), &self.facts, None));
        }
        self.active.as_mut().expect("begun above")
    }

    /// A statement that reads or writes rows begins in the transaction, which is begun if there is none.
    /// Waits for no lock for longer than `lock_wait_max`.
    pub(super) async fn begin_in_transaction(
        &mut self,
        lock_wait_max: Duration,
    ) -> Result<(), SqlError> {
        let doing = Doing { statement: self.doing.clone(), user: self.user.clone() };
        self.begin_if_none().txn.set_doing(doing);
        self.limit_time(lock_wait_max);
        Ok(self.begin_if_none().txn.begin_statement().await?)
    }

    /// The limits of the statement under way are the transaction's until the next one.
    pub(super) fn limit_time(&mut self, lock_wait_max: Duration) {
        let deadline = self.deadline.map(|(deadline, _)| deadline);
        let lock_timeout = self.settings.milliseconds("lock_timeout").unwrap_or(Duration::MAX);
        let lock_timeout = Some(lock_timeout.min(lock_wait_max)).filter(|max| *max < Duration::MAX);
        if let Some(active) = &mut self.active {
            active.txn.set_deadline(deadline);
            active.txn.set_lock_timeout(lock_timeout);
        }
    }

    /// BEGIN.
    pub(super) async fn begin_block(
        &mut self,
        options: &BeginOptions,
        as_of: Option<&AsOf>,
        params: &[Datum],
    ) -> Result<Outcome, SqlError> {
        if self.block != Block::None {
            self.notice(Notice::warning(
                codes::ACTIVE_TRANSACTION,
                "there is already a transaction in progress",
            ));
            // As in PostgreSQL: the modes are the block's, as far as they can change.
            self.set_modes(options)?;
            if let Some(as_of) = as_of {
                self.move_to_past(as_of, params).await?;
            }
            return Ok(Outcome::Complete { tag: "BEGIN".into() });
        }
        self.set_modes(options)?;
        self.block = Block::Open;
        // An implicit transaction that has begun becomes the block's, as in PostgreSQL.
        self.begin_if_none();
        if let Some(as_of) = as_of {
            self.move_to_past(as_of, params).await?;
        }
        Ok(Outcome::Complete { tag: "BEGIN".into() })
    }

    /// Modes of this transaction: SET TRANSACTION, and SET of the settings that show them. What cannot change any more, as its
    /// queries have run under it, is refused as PostgreSQL refuses it; what is as asked for already may be asked for at any time.
    pub(super) fn set_modes(&mut self, options: &BeginOptions) -> Result<(), SqlError> {
        let changes = self.changes_of_modes(options);
        self.active.as_ref().map_or(Ok(()), |active| active.may_change(&changes))?;
        let truth = |on| if on { "on" } else { "off" };
        for (name, value) in [
            ("transaction_isolation", changes.isolation),
            ("transaction_read_only", changes.read_only.map(truth)),
            ("transaction_deferrable", changes.deferrable.map(truth)),
        ] {
            if let Some(value) = value {
                self.settings.set_local(name, value.to_string());
            }
        }
        match &mut self.active {
            // In the past nothing but the moment matters.
            Some(active) if active.is_fresh() && active.past.is_none() => {
                self.active = None;
                self.begin_if_none();
            }
            Some(active) if changes.read_only == Some(true) => active.txn.make_read_only(),
            Some(_) | None => {}
        }
        Ok(())
    }

    /// SET of a setting that shows a mode.
    pub(super) fn set_mode(&mut self, mode: Mode, value: &str) -> Result<(), SqlError> {
        let on = Some(value == "on");
        let options = BeginOptions::default();
        self.set_modes(&match mode {
            Mode::Isolation => {
                let level = ISOLATIONS.iter().find(|level| **level == value).copied();
                BeginOptions { isolation: level, ..options }
            }
            Mode::ReadOnly => BeginOptions { read_only: on, ..options },
            Mode::Deferrable => BeginOptions { deferrable: on, ..options },
        })
    }

    /// What is asked for and not so already.
    fn changes_of_modes(&self, options: &BeginOptions) -> BeginOptions {
        let is = |name: &str| self.settings.get(name).unwrap_or_default();
        let on = |name: &str| is(name) == "on";
        BeginOptions {
            isolation: options.isolation.filter(|level| *level != is("transaction_isolation")),
            read_only: options.read_only.filter(|value| *value != on("transaction_read_only")),
            deferrable: options.deferrable.filter(|value| *value != on("transaction_deferrable")),
        }
    }

    /// COMMIT, END.
    pub(super) async fn commit_block(&mut self) -> Result<Outcome, SqlError> {
        match self.block {
            Block::None => {
                self.notice(Notice::warning(
                    codes::NO_ACTIVE_TRANSACTION,
                    "there is no transaction in progress",
                ));
                self.commit_active().await?;
                Ok(Outcome::Complete { tag: "COMMIT".into() })
            }
            Block::Failed => {
                self.roll_back().await;
                Ok(Outcome::Complete { tag: "ROLLBACK".into() })
            }
            Block::Open => {
                self.block = Block::None;
                let result = self.commit_active().await;
                self.close_portals();
                result?;
                Ok(Outcome::Complete { tag: "COMMIT".into() })
            }
        }
    }

    /// The modes that the block after AND CHAIN takes over from the one that ends.
    pub(super) fn modes_to_chain(&self, what: &str) -> Result<BeginOptions, SqlError> {
        self.in_block(what)?;
        let on = |name: &str| Some(self.settings.get(name) == Some("on"));
        let isolation = self.settings.get("transaction_isolation").unwrap_or_default();
        Ok(BeginOptions {
            isolation: ISOLATIONS.iter().find(|known| **known == isolation).copied(),
            read_only: on("transaction_read_only"),
            deferrable: on("transaction_deferrable"),
        })
    }

    /// ROLLBACK.
    pub(super) async fn rollback_block(&mut self) -> Result<Outcome, SqlError> {
        if self.block == Block::None {
            self.notice(Notice::warning(
                codes::NO_ACTIVE_TRANSACTION,
                "there is no transaction in progress",
            ));
        }
        self.roll_back().await;
        Ok(Outcome::Complete { tag: "ROLLBACK".into() })
    }

    /// Gives the transaction up.
    pub(super) async fn roll_back(&mut self) {
        self.block = Block::None;
        self.close_portals();
        self.copy = None;
        self.settings.end_transaction(false);
        if let Some(mut active) = self.active.take() {
            active.txn.rollback().await;
            follow(&self.engine, active.announced).await;
        }
    }

    /// Commits what is under way, and makes it known.
    pub(super) async fn commit_active(&mut self) -> Result<(), SqlError> {
        let active = loop {
            self.limit_time(Duration::MAX);
            let Some(mut active) = self.active.take() else {
                self.settings.end_transaction(true);
                return Ok(());
            };
            let Err(error) = active.txn.commit().await else { break active };
            self.active = Some(active);
            if let Err(error) = self.rerun(error.into()).await {
                let announced = self.active.take().map(|active| active.announced);
                self.settings.end_transaction(false);
                follow(&self.engine, announced.unwrap_or_default()).await;
                return Err(self.explained(error));
            }
        };
        self.settings.end_transaction(true);
        self.keep_held_portals();
        if let Some(catalog) = active.catalog {
            let version = catalog.version();
            self.engine.publish(catalog);
            self.engine.cluster.broadcast_catalog(version).await;
        }
        // Looked at again, since nothing brings rows back: only what the catalog that was committed does not have.
        let catalog = self.engine.catalog();
        for table in active.dropped {
            if catalog.table(table.id).is_none() {
                super::ddl::clear_in_background(&self.engine, table);
            }
        }
        Ok(())
    }

    /// SAVEPOINT.
    pub(super) fn savepoint(&mut self, name: String) -> Result<Outcome, SqlError> {
        self.in_block("SAVEPOINT")?;
        let portals_opened = self.portals_opened;
        let around = Around { portals_opened, access: self.begin_if_none().txn.options().access };
        self.open_savepoint(name.clone(), around)?;
        self.settings.open_level();
        self.tape_savepoint(&name, around);
        Ok(Outcome::Complete { tag: "SAVEPOINT".into() })
    }

    /// In the transaction only, as the rest of what is played again.
    pub(super) fn open_savepoint(&mut self, name: String, around: Around) -> Result<(), SqlError> {
        self.begin_if_none().open_savepoint(name, around)
    }

    /// RELEASE SAVEPOINT.
    pub(super) fn release(&mut self, name: &str) -> Result<Outcome, SqlError> {
        self.in_block("RELEASE SAVEPOINT")?;
        let place = self.release_savepoint(name)?;
        self.settings.release_level(place);
        self.tape_release(name);
        Ok(Outcome::Complete { tag: "RELEASE".into() })
    }

    /// Where among the open ones it was.
    pub(super) fn release_savepoint(&mut self, name: &str) -> Result<usize, SqlError> {
        let active = self.begin_if_none();
        let place = find(&active.savepoints, name)?;
        let id = active.savepoints[place].id;
        active.savepoints.truncate(place);
        active.txn.release(id)?;
        Ok(place)
    }

    /// ROLLBACK TO SAVEPOINT: a failed block goes on.
    pub(super) async fn rollback_to(&mut self, name: &str) -> Result<Outcome, SqlError> {
        self.in_block("ROLLBACK TO SAVEPOINT")?;
        if let Some(told) = self.active.as_ref().and_then(|active| active.given_up) {
            return Err(SqlError::new(
                told,
                "the transaction must be begun again: no savepoint of it is left",
            )
            .with_hint("ROLLBACK, and run the transaction again from its beginning."));
        }
        let place = self.back_to_savepoint(name).await?;
        let since = self.begin_if_none().savepoints[place].around.portals_opened;
        self.close_portals_since(since);
        self.settings.back_to_level(place);
        self.tape_rollback_to(name);
        self.block = Block::Open;
        Ok(Outcome::Complete { tag: "ROLLBACK".into() })
    }

    /// Where among the open ones it is.
    pub(super) async fn back_to_savepoint(&mut self, name: &str) -> Result<usize, SqlError> {
        let active = self.begin_if_none();
        let place = find(&active.savepoints, name)?;
        active.savepoints.truncate(place + 1);
        let savepoint = &active.savepoints[place];
        active.txn.rollback_to(savepoint.id).await?;
        active.txn.restore_access(savepoint.around.access);
        active.catalog = savepoint.catalog.clone();
        active.told = savepoint.told.clone();
        active.made = savepoint.made.clone();
        active.dropped.truncate(savepoint.dropped_count);
        self.stand_by_announced().await?;
        Ok(place)
    }

    /// What ranges were told and was taken back since does not come to be, but they go on refusing what is below, from this transaction,
    /// too: it raises the tables' versions itself. Another one would change what this one has read.
    async fn stand_by_announced(&mut self) -> Result<(), SqlError> {
        let (known, numbers) = (self.catalog(), self.engine.numbers.clone());
        let Some(active) = &mut self.active else { return Ok(()) };
        let is_behind = |(table, version): &(&u32, &u64)| {
            known.table(**table).is_some_and(|table| table.version < **version)
        };
        if !active.announced.iter().any(|announced| is_behind(&announced)) {
            return Ok(());
        }
        let mut draft = Draft::begin(&mut active.txn, &numbers).await?;
        for (id, version) in &active.announced {
            let (id, version) = (*id, *version);
            let Some(table) = draft.catalog().table(id).cloned() else { continue };
            if table.version < version {
                active.txn.use_schema(id, version, Timestamp::MIN).await?;
                draft.put(Entry::Table(TableDescriptor { version, ..table.as_ref().clone() }));
                // Nobody else has planned with this version.
                active.told.insert(id);
            }
        }
        active.catalog = Some(draft.write(&mut active.txn)?);
        Ok(())
    }

    fn in_block(&self, what: &str) -> Result<(), SqlError> {
        if self.block == Block::None {
            return Err(SqlError::new(
                codes::NO_ACTIVE_TRANSACTION,
                format!("{what} can only be used in transaction blocks"),
            ));
        }
        Ok(())
    }

    /// What a failure does: a block fails, an implicit transaction is gone.
    pub(super) async fn noted<T>(&mut self, result: Result<T, SqlError>) -> Result<T, SqlError> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => {
                let error = self.explained(error);
                self.copy = None;
                match self.block {
                    Block::None => self.roll_back().await,
                    Block::Open => {
                        coverage::reached(Mark::BlockFailed);
                        self.block = Block::Failed;
                        self.retreat(&error).await;
                    }
                    // It cannot go on from any savepoint.
                    Block::Failed if error.recovery == Recovery::Restart => {
                        self.retreat(&error).await;
                    }
                    Block::Failed => {}
                }
                Err(self.attributed(error).await)
            }
        }
    }
}

impl Session {
    /// A block has failed: others need not wait until its client takes note. What can only be rolled back lets go of all that it holds;
    /// what can go on from a savepoint, of all since the last one.
    async fn retreat(&mut self, error: &SqlError) {
        let savepoints = self.active.as_ref().map(|active| &active.savepoints);
        let innermost = savepoints.and_then(|open| open.last()).map(|last| last.name.clone());
        let is_back = match innermost {
            Some(name) if error.recovery != Recovery::Restart => {
                self.back_to_savepoint(&name).await.is_ok()
            }
            _ => false,
        };
        if let Some(active) = self.active.as_mut().filter(|_| !is_back) {
            match (&error.recovery, active.savepoints.is_empty()) {
                (Recovery::Restart, _) => active.give_up(error.code),
                (_, true) => active.txn.let_go(),
                // The way back to its savepoint is not open, for a reason of its own.
                (_, false) => active.give_up(codes::SERIALIZATION_FAILURE),
            }
            let announced = std::mem::take(&mut active.announced);
            follow(&self.engine, announced).await;
        }
        // Otherwise it would be refused again, and again.
        if let Recovery::Refresh { table, version } = error.recovery {
            let _ = self.engine.refresh_catalog().await;
            let known = self.engine.catalog().table(table).map(|table| table.version);
            if known.is_some_and(|known| known < version) {
                follow(&self.engine, Announced::from([(table, version)])).await;
            }
        }
    }
}

/// Levels as they are shown.
const ISOLATIONS: &[&str] = &[
    "strict serializable",
    "serializable",
    "snapshot",
    "repeatable read",
    "read committed",
    "read uncommitted",
];

/// With what the transaction did beside rows until then.
struct Savepoint {
    name: String,
    id: SavepointId,
    catalog: Option<Arc<Catalog>>,
    told: BTreeSet<u32>,
    made: BTreeSet<u32>,
    dropped_count: usize,
    around: Around,
}

/// What was so when a savepoint was opened, and is not looked at again when it is opened anew, unseen.
#[derive(Clone, Copy)]
pub(super) struct Around {
    access: Access,
    /// Portals that the session had opened, ever.
    portals_opened: u64,
}

fn find(savepoints: &[Savepoint], name: &str) -> Result<usize, SqlError> {
    savepoints.iter().rposition(|savepoint| savepoint.name == name).ok_or_else(|| {
        SqlError::new(codes::INVALID_SAVEPOINT, format!("savepoint \"{name}\" does not exist"))
    })
}

fn isolation(name: &str) -> Isolation {
    match name {
        "strict serializable" => Isolation::StrictSerializable,
        "repeatable read" | "snapshot" => Isolation::Snapshot,
        "read committed" | "read uncommitted" => Isolation::ReadCommitted,
        _ => Isolation::Serializable,
    }
}
