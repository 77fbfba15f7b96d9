//! Driver: schema changes.
//!
//! What is new (tables, sequences, schemas, roles) is written by the session's own transaction. A table that others may be using is
//! changed by transactions of the change's own, at once, even inside of a block: `job`. DDL of a block that has failed leaves those
//! changes behind; a notice says so.

mod alter;
mod create;
mod drop;
mod job;
mod kept;
mod objects;
mod options;
mod stored;

pub(super) use job::{Announced, clear_in_background, follow, follow_in_background, raise_version};

use super::Session;
use super::transaction::Active;
use crate::catalog::{self, Catalog, Draft, Relation, TableDescriptor};
use crate::engine::PlantedBug;
use crate::error::{SqlError, codes};
use crate::exec::Facts;
use crate::outcome::Outcome;
use crate::parse::Parsed;
use crate::types::SqlState;
use job::Job;
use sqlparser::ast::{self, Statement as S};
use std::sync::Arc;
use std::time::Duration;
use txn::client::{Access, TxnError};

impl Session {
    /// A schema change.
    pub(super) async fn run_ddl(
        &mut self,
        statement: &ast::Statement,
        parsed: &Parsed,
    ) -> Result<Outcome, SqlError> {
        if let Some(active) = &self.active {
            // Jobs have transactions of their own, which would not notice.
            if active.txn.options().access != Access::ReadWrite {
                return Err(TxnError::ReadOnly.into());
            }
            self.begin_in_transaction(Duration::MAX).await?;
        } else if self.settings.get("transaction_read_only") == Some("on") {
            return Err(TxnError::ReadOnly.into());
        }
        let tag = match statement {
            S::CreateTable(create) => self.create_table(create).await?,
            S::CreateIndex(create) => self.create_index(create).await?,
            S::CreateView(create) => self.create_view(create, parsed).await?,
            S::CreateSequence { if_not_exists, name, sequence_options, .. } => {
                self.create_sequence(name, *if_not_exists, sequence_options).await?
            }
            S::CreateSchema { schema_name, if_not_exists, .. } => {
                self.create_schema(schema_name, *if_not_exists).await?
            }
            S::CreateDatabase { db_name, if_not_exists, .. } => {
                self.create_database(db_name, *if_not_exists).await?
            }
            S::CreateRole(create) => self.create_role(create).await?,
            S::AlterTable(alter) => self.alter_table(alter).await?,
            S::Drop { object_type, if_exists, names, cascade, .. } => {
                self.drop_objects(*object_type, *if_exists, names, *cascade).await?
            }
            S::Truncate(truncate) => self.truncate(truncate).await?,
            S::Comment { .. } => "COMMENT",
            other => {
                let words: Vec<String> =
                    other.to_string().split_whitespace().take(2).map(str::to_uppercase).collect();
                return Err(SqlError::unsupported(format!("{} is not supported", words.join(" "))));
            }
        };
        let active = self.begin_if_none();
        active.statement_count += 1;
        Ok(Outcome::Complete { tag: tag.to_string() })
    }

    /// The transaction, begun if there is none, within the limits of the statement under way.
    fn begin_ddl(&mut self) -> &mut Active {
        if self.active.is_none() {
            self.begin_if_none();
            self.limit_time(Duration::MAX);
        }
        self.begin_if_none()
    }

    /// The catalog, to be changed in this transaction. Locks its version until the transaction ends, changed or not.
    async fn draft(&mut self) -> Result<Draft, SqlError> {
        if self.engine.has(PlantedBug::CatalogFromMemory) {
            return Ok(Draft::of(self.catalog().as_ref().clone(), &self.engine.numbers));
        }
        let (cancel, numbers) = (self.cancel.clone(), self.engine.numbers.clone());
        let active = self.begin_ddl();
        let draft = cancel.unless_canceled(Draft::begin(&mut active.txn, &numbers)).await?;
        cancel.unless_canceled(draft.provide()).await?;
        Ok(draft)
    }

    /// Whether something holds of the catalog: as it is known here, and then as it is. Locks nothing: statements that turn out to have
    /// nothing to do ask this first, so that they are in the way of no schema change, above all of none that their own transaction makes
    /// next.
    async fn holds_now(
        &mut self,
        test: impl Fn(&Facts) -> bool + Send + Sync,
    ) -> Result<bool, SqlError> {
        if !test(&self.facts_now()) {
            return Ok(false);
        }
        if self.active.as_ref().is_none_or(|active| active.catalog.is_none()) {
            let (cancel, engine) = (self.cancel.clone(), self.engine.clone());
            cancel.unless_canceled(engine.refresh_catalog()).await?;
        }
        Ok(test(&self.facts_now()))
    }

    /// Whether what is to be created is there.
    async fn is_there(&mut self, name: &ast::ObjectName) -> Result<bool, SqlError> {
        let parts = crate::bind::name_parts(name)?;
        let found = |facts: &Facts| {
            let schema = match parts.as_slice() {
                [_] => facts.creation_schema(),
                [schema, _] | [_, schema, _] => {
                    facts.catalog.schema(facts.database, schema).map(|schema| schema.id)
                }
                _ => None,
            };
            let name = parts.last().expect("a name has a part");
            schema.is_some_and(|schema| facts.catalog.relation(schema, name).is_some())
        };
        self.holds_now(found).await
    }

    /// Whether none of these relations is there.
    async fn finds_none(&mut self, names: &[ast::ObjectName]) -> Result<bool, SqlError> {
        let names: Result<Vec<_>, _> = names.iter().map(crate::bind::name_parts).collect();
        let names = names?;
        self.holds_now(|facts| names.iter().all(|parts| facts.find_relation(parts).is_none())).await
    }

    /// For changes in transactions of their own: what they run on, and how long they may take.
    fn job(&self) -> Job {
        Job {
            engine: self.engine.clone(),
            cancel: self.cancel.clone(),
            deadline: self.deadline.map(|(deadline, _)| deadline),
            lock_timeout: self.settings.milliseconds("lock_timeout"),
        }
    }

    /// Writes a change into this transaction.
    fn write_draft(&mut self, draft: Draft) -> Result<Arc<Catalog>, SqlError> {
        let active = self.begin_if_none();
        active.note_announced(&draft);
        let catalog = draft.write(&mut active.txn)?;
        active.catalog = Some(catalog.clone());
        self.facts_now();
        Ok(catalog)
    }

    /// Schema and name of something to be created.
    fn creation_name(
        &mut self,
        name: &ast::ObjectName,
        catalog: &Catalog,
    ) -> Result<(u32, String), SqlError> {
        let parts = crate::bind::name_parts(name)?;
        let schema = match parts.as_slice() {
            [_] => self.facts_now().creation_schema(),
            [schema, _] | [_, schema, _] => {
                catalog.schema(self.database, schema).map(|schema| schema.id)
            }
            _ => None,
        };
        let Some(schema) = schema else {
            return Err(match parts.as_slice() {
                [_] => SqlError::new(
                    SqlState::INVALID_SCHEMA_NAME,
                    "no schema has been selected to create in",
                ),
                [.., schema, _] => SqlError::new(
                    SqlState::INVALID_SCHEMA_NAME,
                    format!("schema \"{schema}\" does not exist"),
                ),
                [] => SqlError::internal("a name without parts"),
            });
        };
        Ok((schema, parts.last().expect("a name has a part").clone()))
    }

    /// A table by name, as this session sees it; read again from the store if it is not known here.
    async fn table_named(
        &mut self,
        name: &ast::ObjectName,
    ) -> Result<Arc<TableDescriptor>, SqlError> {
        let parts = crate::bind::name_parts(name)?;
        let mut found = self.facts_now().find_relation(&parts);
        if found.is_none() && self.active.as_ref().is_none_or(|active| active.catalog.is_none()) {
            self.engine.refresh_catalog().await?;
            found = self.facts_now().find_relation(&parts);
        }
        match found {
            Some(Relation::Table(table)) => Ok(table),
            Some(_) => Err(SqlError::new(
                codes::WRONG_OBJECT_TYPE,
                format!("\"{}\" is not a table", parts.join(".")),
            )),
            None => Err(SqlError::new(
                SqlState::UNDEFINED_TABLE,
                format!("relation \"{}\" does not exist", parts.join(".")),
            )),
        }
    }

    /// Whether only this transaction knows the table. Not whether this node knows it: others may, whose news have not come here yet.
    fn is_own(&self, table: &TableDescriptor) -> bool {
        self.active.as_ref().is_some_and(|active| active.made.contains(&table.id))
    }

    /// Before a job: it could not see what this transaction has written, and would wait for ever for that and for what it has locked, in
    /// the table or in others that the job looks at.
    fn ready_for_job(
        &mut self,
        table: &Arc<TableDescriptor>,
        others: &[Arc<TableDescriptor>],
    ) -> Result<(), SqlError> {
        let busy = self.active.as_ref().is_some_and(|active| {
            active.catalog.is_some()
                || active.txn.has_writes()
                || active.txn.has_locks_in(&catalog::version_span())
        });
        if busy {
            return Err(job::changed_here(&table.name));
        }
        for used in std::iter::once(table).chain(others) {
            let locked = |active: &Active| {
                job::spans(&self.engine, used).iter().any(|span| active.txn.has_locks_in(span))
            };
            if self.active.as_ref().is_some_and(locked) {
                return Err(SqlError::unsupported(format!(
                    "table \"{}\" cannot be changed by a transaction that has locked rows of \"{}\"",
                    table.name, used.name
                ))
                .with_hint("Commit first."));
            }
        }
        if self.block != super::Block::None {
            self.notice(crate::outcome::Notice::note(format!(
                "the change of table \"{}\" takes effect at once and is not rolled back with the transaction",
                table.name
            )));
        }
        Ok(())
    }
}

/// A name that nothing in the schema has: with a number behind if it must be.
fn free_name(catalog: &Catalog, schema: u32, wanted: &str, taken: &[String]) -> String {
    let mut name = wanted.to_string();
    name.truncate(crate::parse::IDENTIFIER_BYTES_MAX);
    let mut number = 0;
    while catalog.relation(schema, &name).is_some() || taken.contains(&name) {
        number += 1;
        let suffix = number.to_string();
        let mut head = wanted.to_string();
        head.truncate(crate::parse::IDENTIFIER_BYTES_MAX - suffix.len());
        name = format!("{head}{suffix}");
    }
    name
}
