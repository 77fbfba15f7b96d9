//! Driver: one statement, from its plan (or its kind) to its outcome.
//!
//! A statement that could not see one consistent state is run again, as long as nothing of its transaction has been shown to the
//! client: it is the first of its transaction. Otherwise the whole transaction is (`rerun`), or the client is told with 40001. Under READ COMMITTED each statement sees a
//! state of its own, and is run again by itself. A statement that is a whole transaction is run again also if it is its commit that
//! fails.

use super::statement::Prepared;
use super::{Block, Session};
use crate::catalog::TableMode;
use crate::engine::PlantedBug;
use crate::error::{Recovery, SqlError, codes};
use crate::exec::{Exec, Uniqueness};
use crate::outcome::{Column, Notice, Outcome};
use crate::parse::{AsOf, Extension, Parsed, Statement};
use crate::plan::Planned;
use crate::types::{Datum, SqlState, Type};
use coverage::Mark;
use sqlparser::ast;
use std::sync::Arc;
use std::time::Duration;

/// Pause before a transaction is run again; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// How often a schema that is ahead of the catalog is waited for before it is taken for left behind by a change that died.
const SCHEMA_WAITS: u32 = 12;

impl Session {
    /// In a failed block only its end may be run.
    pub(super) fn refuse_in_failed(&self, parsed: Option<&Parsed>) -> Result<(), SqlError> {
        let (Block::Failed, Some(parsed)) = (self.block, parsed) else { return Ok(()) };
        let ends = match parsed.statement.as_ref() {
            Statement::Sql(statement) => {
                matches!(
                    statement.as_ref(),
                    ast::Statement::Commit { .. } | ast::Statement::Rollback { .. }
                )
            }
            _ => false,
        };
        if ends {
            return Ok(());
        }
        Err(SqlError::new(
            codes::IN_FAILED_TRANSACTION,
            "current transaction is aborted, commands ignored until end of transaction block",
        ))
    }

    /// Runs a statement.
    pub(super) async fn run(
        &mut self,
        prepared: &Arc<Prepared>,
        params: Vec<Datum>,
    ) -> Result<Outcome, SqlError> {
        self.begin_statement();
        self.attempt(prepared, params).await
    }

    /// `statement_timeout` counts from here, and a cancel is heard from here on, through all attempts.
    fn begin_statement(&mut self) {
        self.cancel.reset();
        let now = self.engine.db.runtime().time.monotonic();
        self.deadline = self.time_limit(now);
    }

    pub(super) fn check_time(&self) -> Result<(), SqlError> {
        let now = self.engine.db.runtime().time.monotonic();
        match self.deadline {
            Some((deadline, limit)) if now > deadline => Err(limit.error()),
            _ => Ok(()),
        }
    }

    async fn attempt(
        &mut self,
        prepared: &Arc<Prepared>,
        params: Vec<Datum>,
    ) -> Result<Outcome, SqlError> {
        let Some(parsed) = prepared.parsed.clone() else { return Ok(Outcome::Empty) };
        self.refuse_in_failed(Some(&parsed))?;
        if prepared.plannable().is_some() {
            self.doing = parsed.text.clone();
            return self.run_planned(prepared, params).await;
        }
        if tells_something(&parsed.statement) {
            self.doing = parsed.text.clone();
        }
        match parsed.statement.as_ref() {
            Statement::Sql(statement) => self.run_other(statement, &parsed, &params).await,
            Statement::Copy(copy) => self.run_copy(copy, &parsed).await,
            Statement::Show(show) => self.run_show(show).await,
            Statement::Begin(options) => {
                self.begin_block(options, parsed.as_of.as_ref(), &params).await
            }
            Statement::Extension(extension) => {
                self.run_extension(extension, parsed.as_of.as_ref(), &params).await
            }
        }
    }

    /// Whether a statement, if nothing but the end of its implicit transaction follows, is that whole transaction.
    pub(super) fn may_run_alone(&self, prepared: &Prepared) -> bool {
        self.active.is_none() && self.block == Block::None && prepared.plannable().is_some()
    }

    /// Runs a statement as a transaction of its own, commit included; again if that may help.
    pub(super) async fn run_alone(
        &mut self,
        prepared: &Arc<Prepared>,
        params: Vec<Datum>,
    ) -> Result<Outcome, SqlError> {
        let mut restarts = 0;
        let mut pause = PAUSE_MIN;
        self.begin_statement();
        loop {
            self.uniqueness = Uniqueness::AtCommit;
            let outcome = self.attempt(prepared, params.clone()).await;
            self.uniqueness = Uniqueness::AtOnce;
            let outcome = outcome?;
            let Err(error) = self.end_implicit().await else { return Ok(outcome) };
            coverage::reached(Mark::StatementFailedAtCommit);
            restarts += 1;
            if restarts > self.engine.settings.restarts_max {
                return Err(error);
            }
            match error.recovery {
                Recovery::Restart => {}
                Recovery::Refresh { table, version } => {
                    self.catch_up(table, version, restarts).await?;
                }
                _ => return Err(error),
            }
            self.engine.pause(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            self.check_time()?;
        }
    }

    /// Runs a statement that has a plan, again if that may help.
    pub(super) async fn run_planned(
        &mut self,
        prepared: &Arc<Prepared>,
        params: Vec<Datum>,
    ) -> Result<Outcome, SqlError> {
        if let Some(parsed) = &prepared.parsed {
            self.enter_past(parsed, &params).await?;
        }
        let planned = self.planned(prepared).await?;
        if self.engine.has(PlantedBug::ModesCommitApart) {
            self.commit_before(&planned).await?;
        }
        let notices_before = self.notices.len();
        let outcome = self.run_until_answered(prepared, &params).await;
        // An error is an answer, too: after a rollback to a savepoint the transaction goes on from it.
        self.begin_if_none().statement_count += 1;
        self.tape_statement(prepared, &params, &outcome, notices_before);
        outcome
    }

    /// Chaos only: what was written to strong tables is committed before a statement writes to an available one.
    async fn commit_before(&mut self, planned: &Planned) -> Result<(), SqlError> {
        let mode = planned.plan.writes_to().map(|table| table.mode);
        let wrote = self.active.as_ref().is_some_and(|active| active.txn.has_writes());
        match (mode, wrote) {
            (Some(TableMode::Available), true) => self.commit_active().await,
            _ => Ok(()),
        }
    }

    async fn run_until_answered(
        &mut self,
        prepared: &Arc<Prepared>,
        params: &[Datum],
    ) -> Result<Outcome, SqlError> {
        let mut restarts = 0;
        let mut waits = 0;
        let mut pause = PAUSE_MIN;
        loop {
            let planned = self.planned(prepared).await?;
            let error = match self.run_once(&planned, params, Duration::MAX).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            let of_statement = self.may_restart_statement();
            if !of_statement && !self.may_restart() {
                if let Err(error) = self.rerun(error).await {
                    coverage::reached(Mark::ErrorToldInBlock);
                    return Err(error);
                }
                continue;
            }
            match error.recovery {
                Recovery::Restart
                    if of_statement && restarts < self.engine.settings.restarts_max =>
                {
                    restarts += 1;
                    self.engine.pause(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                    self.check_time()?;
                    // Looked at again: during the pause the transaction may have been taken for dead.
                    match &mut self.active {
                        Some(active) if active.txn.can_restart_statement() => {
                            active.txn.restart_statement();
                        }
                        _ => self.rerun(error).await?,
                    }
                }
                _ if !self.may_restart() => self.rerun(error).await?,
                Recovery::Restart if restarts < self.engine.settings.restarts_max => {
                    coverage::reached(Mark::StatementRunAgain);
                    restarts += 1;
                    self.engine.pause(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                    self.check_time()?;
                    self.restart()?;
                }
                Recovery::Refresh { table, version } if waits < 2 * SCHEMA_WAITS => {
                    waits += 1;
                    self.catch_up(table, version, waits).await?;
                    self.restart()?;
                }
                _ => return Err(error),
            }
        }
    }

    /// Whether nothing of the transaction has been shown, or would be lost with it: what is not on its tape might be.
    pub(super) fn may_restart(&self) -> bool {
        self.active.as_ref().is_some_and(|active| {
            active.statement_count == 0
                && active.catalog.is_none()
                && !active.tape.is_torn()
                && active.txn.can_restart()
        })
    }

    /// Whether the statement that failed can be run again by itself.
    fn may_restart_statement(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.txn.can_restart_statement())
    }

    fn restart(&mut self) -> Result<(), SqlError> {
        self.active.as_mut().map_or(Ok(()), |active| active.restart_unseen())
    }

    /// Waits until the catalog knows a version that the ranges ask for. A change that died between its announcement and its
    /// commit leaves the ranges ahead for good: then the table's version is raised to theirs.
    pub(super) async fn catch_up(
        &mut self,
        table: u32,
        version: u64,
        waits: u32,
    ) -> Result<(), SqlError> {
        if waits > 1 {
            self.engine.pause(Duration::from_millis(20 * u64::from(waits))).await;
        }
        coverage::reached(Mark::PlannedUnderOldSchema);
        self.engine.refresh_catalog().await?;
        let known = self.engine.catalog().table(table).map(|table| table.version);
        if known.is_some_and(|known| known < version) && waits > SCHEMA_WAITS {
            coverage::reached(Mark::SchemaVersionRaised);
            super::ddl::raise_version(&self.engine, table, version).await?;
        }
        Ok(())
    }

    /// Once, waiting for no lock for longer than `lock_wait_max`.
    pub(super) async fn run_once(
        &mut self,
        planned: &Arc<Planned>,
        params: &[Datum],
        lock_wait_max: Duration,
    ) -> Result<Outcome, SqlError> {
        self.begin_in_transaction(lock_wait_max).await?;
        let facts = self.facts_now();
        // A statement that failed has asked for nothing.
        self.sequence_values.lock().setting_changes.clear();
        let memory = self.statement_memory_max();
        let active = self.active.as_mut().expect("begun above");
        let mut exec = Exec::new(
            &mut active.txn,
            &facts,
            params,
            &self.cancel,
            &self.engine.sequences,
            planned.deferred_count,
            memory,
        );
        exec.uniqueness = self.uniqueness;
        exec.enter(planned)?;
        let rows = self.cancel.unless_canceled(exec.rows(&planned.plan, None)).await?;
        let count = if planned.verb == crate::plan::Verb::Select {
            rows.len() as u64
        } else {
            exec.affected
        };
        self.check_time()?;
        self.apply_setting_changes()?;
        let tag = planned.verb.tag(count);
        Ok(match &planned.columns {
            None => Outcome::Complete { tag },
            Some(columns) => Outcome::Rows {
                columns: columns.clone(),
                rows,
                formats: Arc::from([]),
                tag: Some(tag),
                suspended: false,
            },
        })
    }

    /// What `set_config` asked for.
    fn apply_setting_changes(&mut self) -> Result<(), SqlError> {
        let changes = std::mem::take(&mut self.sequence_values.lock().setting_changes);
        for change in changes {
            match change.value {
                None => self.settings.reset(&change.name, change.local)?,
                Some(value) => self.change_setting(&change.name, &value, change.local)?,
            }
        }
        Ok(())
    }

    /// Statements that sqlparser reads and that have no plan.
    async fn run_other(
        &mut self,
        statement: &ast::Statement,
        parsed: &Parsed,
        params: &[Datum],
    ) -> Result<Outcome, SqlError> {
        use ast::Statement as S;
        let complete = |tag: &str| Ok(Outcome::Complete { tag: tag.to_string() });
        match statement {
            S::Commit { chain: false, .. } => self.commit_block().await,
            S::Commit { chain: true, .. } => {
                let modes = self.modes_to_chain("COMMIT AND CHAIN")?;
                let outcome = self.commit_block().await?;
                self.begin_block(&modes, None, &[]).await?;
                Ok(outcome)
            }
            S::Rollback { savepoint: Some(name), .. } => {
                self.rollback_to(&crate::parse::name(name)).await
            }
            S::Rollback { savepoint: None, chain: false } => self.rollback_block().await,
            S::Rollback { savepoint: None, chain: true } => {
                let modes = self.modes_to_chain("ROLLBACK AND CHAIN")?;
                let outcome = self.rollback_block().await?;
                self.begin_block(&modes, None, &[]).await?;
                Ok(outcome)
            }
            S::Savepoint { name } => self.savepoint(crate::parse::name(name)),
            S::ReleaseSavepoint { name } => self.release(&crate::parse::name(name)),
            S::Set(set) => self.run_set(set),
            S::Reset(reset) => self.run_reset(reset),
            S::Discard { object_type } => self.run_discard(object_type),
            S::Prepare { name, data_types, statement } => {
                self.run_prepare(name, data_types, statement, parsed).await
            }
            S::Execute { name: Some(name), parameters, .. } => {
                self.run_execute(name, parameters, parsed).await
            }
            S::Deallocate { name, .. } => {
                let name = crate::parse::name(name);
                if name == "all" {
                    self.statements.clear();
                    return complete("DEALLOCATE ALL");
                }
                self.prepared(&name)?;
                self.statements.remove(&name);
                complete("DEALLOCATE")
            }
            S::Explain { analyze, statement, .. } => {
                self.run_explain(*analyze, statement, parsed, params).await
            }
            S::Declare { stmts } => self.run_declare(stmts, parsed).await,
            S::Fetch { name, direction, .. } => self.run_fetch(name, direction),
            S::Close { cursor } => self.run_close(cursor),
            S::LISTEN { .. } | S::NOTIFY { .. } => {
                Err(SqlError::unsupported("LISTEN and NOTIFY are not supported"))
            }
            S::UNLISTEN { .. } => complete("UNLISTEN"),
            S::Lock(_) | S::LockTables { .. } => {
                Err(SqlError::unsupported("LOCK TABLE is not supported").with_hint(
                    "Transactions are serializable without it; SELECT ... FOR UPDATE locks rows.",
                ))
            }
            S::Grant(_) => {
                self.notice(Notice::warning(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "privileges are not enforced: GRANT has no effect",
                ));
                complete("GRANT")
            }
            S::Revoke(_) => {
                self.notice(Notice::warning(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "privileges are not enforced: REVOKE has no effect",
                ));
                complete("REVOKE")
            }
            other => {
                self.tear_tape();
                let outcome = self.run_ddl(other, parsed).await;
                self.tear_tape();
                outcome
            }
        }
    }

    /// Refuses what operators may do only.
    pub(super) fn superusers_only(&self, what: &str) -> Result<(), SqlError> {
        if self.catalog().role(&self.user).is_some_and(|role| role.superuser) {
            return Ok(());
        }
        Err(SqlError::new(
            codes::INSUFFICIENT_PRIVILEGE,
            format!("permission denied: {what} is for superusers"),
        ))
    }

    async fn run_extension(
        &mut self,
        extension: &Extension,
        as_of: Option<&AsOf>,
        params: &[Datum],
    ) -> Result<Outcome, SqlError> {
        let complete = |tag: &str| Ok(Outcome::Complete { tag: tag.to_string() });
        match extension {
            Extension::Chaos(command) => {
                self.superusers_only("CHAOS")?;
                let done = self.engine.cluster.chaos(command.clone()).await;
                let done = done.map_err(|why| SqlError::new(codes::OBJECT_NOT_IN_STATE, why))?;
                if !done.is_empty() {
                    self.notice(Notice::note(done));
                }
                complete("CHAOS")
            }
            Extension::Vacuum => complete("VACUUM"),
            Extension::Analyze => complete("ANALYZE"),
            Extension::Nothing { tag } => complete(tag),
            Extension::SetTransaction { options, session: false } => {
                if self.block == Block::None {
                    self.notice(Notice::warning(
                        codes::NO_ACTIVE_TRANSACTION,
                        "SET TRANSACTION can only be used in transaction blocks",
                    ));
                } else {
                    self.set_modes(options)?;
                    if let Some(as_of) = as_of {
                        self.move_to_past(as_of, params).await?;
                    }
                }
                complete("SET")
            }
            Extension::SetTransaction { options, session: true } => {
                if let Some(level) = options.isolation {
                    self.settings.set("default_transaction_isolation", level)?;
                }
                for (name, value) in [
                    ("default_transaction_read_only", options.read_only),
                    ("default_transaction_deferrable", options.deferrable),
                ] {
                    if let Some(value) = value {
                        self.settings.set(name, if value { "on" } else { "off" })?;
                    }
                }
                complete("SET")
            }
        }
    }

    /// DISCARD. There are no temporary tables, and plans are made anew when they are of no use any more.
    fn run_discard(&mut self, what: &ast::DiscardObject) -> Result<Outcome, SqlError> {
        if *what == ast::DiscardObject::ALL {
            if self.block != Block::None || self.active.is_some() {
                return Err(SqlError::new(
                    codes::ACTIVE_TRANSACTION,
                    "DISCARD ALL cannot run inside a transaction block",
                ));
            }
            self.statements.clear();
            self.portals.clear();
            self.settings.reset_all();
        }
        if matches!(what, ast::DiscardObject::ALL | ast::DiscardObject::SEQUENCES) {
            let mut drawn = self.sequence_values.lock();
            drawn.values.clear();
            drawn.last = None;
        }
        Ok(Outcome::Complete { tag: format!("DISCARD {what}") })
    }

    /// PREPARE.
    async fn run_prepare(
        &mut self,
        name: &ast::Ident,
        types: &[ast::DataType],
        statement: &ast::Statement,
        parsed: &Parsed,
    ) -> Result<Outcome, SqlError> {
        let name = crate::parse::name(name);
        if self.statements.contains_key(&name) {
            return Err(SqlError::new(
                codes::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        let mut oids = Vec::new();
        for ty in types {
            oids.push(crate::bind::data_type(ty)?.0.oid());
        }
        let inner = Parsed {
            statement: Arc::new(Statement::Sql(Box::new(statement.clone()))),
            ..parsed.clone()
        };
        let prepared = Arc::new(Prepared::new(Some(inner), &oids)?);
        if prepared.plannable().is_some() {
            self.planned(&prepared).await?;
            prepared.promise();
        }
        self.statements.insert(name, prepared);
        Ok(Outcome::Complete { tag: "PREPARE".into() })
    }

    /// EXECUTE.
    async fn run_execute(
        &mut self,
        name: &ast::ObjectName,
        args: &[ast::Expr],
        parsed: &Parsed,
    ) -> Result<Outcome, SqlError> {
        let parts = crate::bind::name_parts(name)?;
        let name = parts.last().expect("a name has a part").clone();
        let prepared = self.prepared(&name)?;
        let mut values = Vec::new();
        if prepared.plannable().is_some() {
            let planned = self.planned(&prepared).await?;
            if planned.params.len() != args.len() {
                return Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    format!("wrong number of parameters for prepared statement \"{name}\""),
                )
                .with_detail(format!(
                    "Expected {} parameters but got {}.",
                    planned.params.len(),
                    args.len()
                )));
            }
            for (arg, ty) in args.iter().zip(&planned.params) {
                values.push(self.constant(arg, *ty, parsed).await?);
            }
        }
        Box::pin(self.run(&prepared, values)).await
    }

    /// An expression without columns and subqueries, as a value of a type.
    async fn constant(
        &mut self,
        arg: &ast::Expr,
        ty: Type,
        parsed: &Parsed,
    ) -> Result<Datum, SqlError> {
        let facts = self.facts_now();
        let (expr, count) = crate::bind::constant(&facts, &parsed.positions, arg, ty)?;
        self.begin_if_none();
        let memory = self.statement_memory_max();
        let active = self.active.as_mut().expect("begun above");
        let mut exec = Exec::new(
            &mut active.txn,
            &facts,
            &[],
            &self.cancel,
            &self.engine.sequences,
            count,
            memory,
        );
        exec.value(&expr, &[]).await
    }

    /// EXPLAIN.
    async fn run_explain(
        &mut self,
        analyze: bool,
        statement: &ast::Statement,
        parsed: &Parsed,
        params: &[Datum],
    ) -> Result<Outcome, SqlError> {
        let inner = match statement {
            ast::Statement::Execute { name: Some(name), .. } => {
                let parts = crate::bind::name_parts(name)?;
                self.prepared(parts.last().expect("a name has a part"))?
            }
            other => {
                let inner = Parsed {
                    statement: Arc::new(Statement::Sql(Box::new(other.clone()))),
                    ..parsed.clone()
                };
                Arc::new(Prepared::new(Some(inner), &[])?)
            }
        };
        if inner.plannable().is_none() {
            return Err(SqlError::unsupported(
                "only SELECT, INSERT, UPDATE and DELETE can be explained",
            ));
        }
        if let Some(parsed) = &inner.parsed {
            self.enter_past(parsed, params).await?;
        }
        let planned = self.planned(&inner).await?;
        let mut lines = crate::plan::explain::explain(&planned.plan);
        if analyze {
            let before = self.facts.runtime.time.monotonic();
            self.begin_if_none();
            self.tear_tape();
            let outcome = self.run_once(&planned, params, Duration::MAX).await;
            // What it has done is the transaction's, as what any other statement has done: it does not begin again without it.
            self.begin_if_none().statement_count += 1;
            let outcome = outcome?;
            let took = self.facts.runtime.time.monotonic().since(before);
            let rows = match &outcome {
                Outcome::Rows { rows, .. } => rows.len(),
                _ => 0,
            };
            lines.push(format!("Rows: {rows}"));
            lines.push(format!("Execution Time: {:.3} ms", took.as_secs_f64() * 1000.0));
        }
        let rows: Vec<_> = lines.into_iter().map(|line| vec![Datum::text(line)]).collect();
        Ok(rows_outcome(&[("QUERY PLAN", Type::Text)], rows, "EXPLAIN"))
    }

    /// Columns of statements that have no plan.
    pub(super) fn columns_without_plan(
        &self,
        parsed: Option<&Parsed>,
    ) -> Result<Option<Arc<[Column]>>, SqlError> {
        let Some(parsed) = parsed else { return Ok(None) };
        Ok(match parsed.statement.as_ref() {
            Statement::Show(show) => Some(columns(&super::show::columns_of(show))),
            Statement::Sql(statement) => match statement.as_ref() {
                ast::Statement::Explain { .. } => Some(columns(&[("QUERY PLAN", Type::Text)])),
                ast::Statement::Execute { name: Some(name), .. } => {
                    let parts = crate::bind::name_parts(name)?;
                    let prepared = self.prepared(parts.last().expect("a name has a part"))?;
                    self.planned_columns(&prepared)
                }
                ast::Statement::Fetch { name, .. } => {
                    self.cursor_columns(&crate::parse::name(name))
                }
                _ => None,
            },
            Statement::Copy(_) | Statement::Begin(_) | Statement::Extension(_) => None,
        })
    }
}

/// Whether others should be told of a statement without a plan: it works on rows or tables.
fn tells_something(statement: &Statement) -> bool {
    use ast::Statement as S;
    match statement {
        Statement::Sql(statement) => !matches!(
            statement.as_ref(),
            S::Commit { .. }
                | S::Rollback { .. }
                | S::Savepoint { .. }
                | S::ReleaseSavepoint { .. }
                | S::Set(_)
                | S::Reset(_)
                | S::Discard { .. }
                | S::Prepare { .. }
                | S::Execute { .. }
                | S::Deallocate { .. }
                | S::Fetch { .. }
                | S::Close { .. }
        ),
        Statement::Copy(_) => true,
        Statement::Show(_) | Statement::Begin(_) | Statement::Extension(_) => false,
    }
}

/// Columns of a result made here.
pub(super) fn columns(names: &[(&str, Type)]) -> Arc<[Column]> {
    names.iter().map(|(name, ty)| Column::new(*name, *ty)).collect()
}

/// A result made here.
pub(super) fn rows_outcome(names: &[(&str, Type)], rows: Vec<Vec<Datum>>, tag: &str) -> Outcome {
    Outcome::Rows {
        columns: columns(names),
        rows,
        formats: Arc::from([]),
        tag: Some(tag.to_string()),
        suspended: false,
    }
}
