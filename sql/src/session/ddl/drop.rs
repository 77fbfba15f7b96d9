//! Driver: DROP and TRUNCATE.

use super::{Session, job};
use crate::catalog::{Draft, Entry, Relation, SequenceDescriptor, TableDescriptor, TableMode};
use crate::error::{SqlError, codes};
use crate::exec::Exec;
use crate::outcome::Notice;
use crate::rows::Place;
use crate::types::SqlState;
use futures::FutureExt;
use futures::future::{Either, select};
use sqlparser::ast::{self, ObjectType};
use std::pin::pin;
use std::sync::Arc;
use storage::{Key, Span};
use txn::api::Lock;
use txn::client::{Hold, ScanOptions};

impl Session {
    /// DROP.
    pub(super) async fn drop_objects(
        &mut self,
        object: ObjectType,
        if_exists: bool,
        names: &[ast::ObjectName],
        cascade: bool,
    ) -> Result<&'static str, SqlError> {
        match object {
            ObjectType::Table => {
                self.drop_relations(names, if_exists, cascade, "table").await?;
                Ok("DROP TABLE")
            }
            ObjectType::View => {
                self.drop_relations(names, if_exists, cascade, "view").await?;
                Ok("DROP VIEW")
            }
            ObjectType::Sequence => {
                self.drop_relations(names, if_exists, cascade, "sequence").await?;
                Ok("DROP SEQUENCE")
            }
            ObjectType::Index => {
                for name in names {
                    self.drop_index(name, if_exists).await?;
                }
                Ok("DROP INDEX")
            }
            ObjectType::Schema => {
                self.drop_schemas(names, if_exists, cascade).await?;
                Ok("DROP SCHEMA")
            }
            ObjectType::Database => {
                self.drop_databases(names, if_exists).await?;
                Ok("DROP DATABASE")
            }
            ObjectType::Role | ObjectType::User => {
                self.drop_roles(names, if_exists).await?;
                Ok("DROP ROLE")
            }
            other => Err(SqlError::unsupported(format!("DROP {other} is not supported"))),
        }
    }

    async fn drop_relations(
        &mut self,
        names: &[ast::ObjectName],
        if_exists: bool,
        cascade: bool,
        kind: &str,
    ) -> Result<(), SqlError> {
        if if_exists && self.finds_none(names).await? {
            for name in names {
                let name = crate::bind::name_parts(name)?.join(".");
                self.notice(Notice::note(format!("{kind} \"{name}\" does not exist, skipping")));
            }
            return Ok(());
        }
        let mut draft = self.draft().await?;
        let mut facts = self.facts_now().as_ref().clone();
        facts.catalog = Arc::new(draft.catalog().clone());
        let mut dropped: Vec<Arc<TableDescriptor>> = Vec::new();
        for name in names {
            let parts = crate::bind::name_parts(name)?;
            match (facts.find_relation(&parts), kind) {
                (Some(Relation::Table(table)), "table") => dropped.push(table),
                (Some(Relation::View(view)), "view") => draft.remove(view.id),
                (Some(Relation::Sequence(sequence)), "sequence") => {
                    if let Some((table, _)) = sequence.owned_by
                        && draft.catalog().table(table).is_some()
                    {
                        return Err(SqlError::new(
                            codes::DEPENDENT_OBJECTS,
                            format!(
                                "cannot drop sequence {} because other objects depend on it",
                                sequence.name
                            ),
                        ));
                    }
                    draft.remove(sequence.id);
                }
                (None, _) if if_exists => {
                    self.notice(Notice::note(format!(
                        "{kind} \"{}\" does not exist, skipping",
                        parts.join(".")
                    )));
                }
                (None, _) => {
                    return Err(SqlError::new(
                        SqlState::UNDEFINED_TABLE,
                        format!("{kind} \"{}\" does not exist", parts.join(".")),
                    ));
                }
                (Some(_), _) => {
                    return Err(SqlError::new(
                        codes::WRONG_OBJECT_TYPE,
                        format!("\"{}\" is not a {kind}", parts.join(".")),
                    ));
                }
            }
        }
        let ids: Vec<u32> = dropped.iter().map(|table| table.id).collect();
        for table in &dropped {
            drop_table(&mut draft, table, &ids, cascade)?;
        }
        self.write_draft(draft)?;
        let active = self.begin_if_none();
        active.dropped.extend(dropped);
        Ok(())
    }

    async fn drop_index(
        &mut self,
        name: &ast::ObjectName,
        if_exists: bool,
    ) -> Result<(), SqlError> {
        let parts = crate::bind::name_parts(name)?;
        let (table, id) = match self.facts_now().find_relation(&parts) {
            Some(Relation::Index(table, id)) => (table, id),
            None if if_exists => {
                self.notice(Notice::note(format!(
                    "index \"{}\" does not exist, skipping",
                    parts.join(".")
                )));
                return Ok(());
            }
            None => {
                return Err(SqlError::new(
                    SqlState::UNDEFINED_OBJECT,
                    format!("index \"{}\" does not exist", parts.join(".")),
                ));
            }
            Some(_) => {
                return Err(SqlError::new(
                    codes::WRONG_OBJECT_TYPE,
                    format!("\"{}\" is not an index", parts.join(".")),
                ));
            }
        };
        if table.index(id).is_some_and(|index| index.constraint.is_some()) {
            return Err(SqlError::new(
                codes::DEPENDENT_OBJECTS,
                format!(
                    "cannot drop index {0} because constraint {0} on table {1} requires it",
                    parts.join("."),
                    table.name
                ),
            )
            .with_hint(format!(
                "You can drop constraint {} on table {} instead.",
                parts.join("."),
                table.name
            )));
        }
        if self.is_own(&table) {
            let mut draft = self.draft().await?;
            let changed = without_index(&draft, table.as_ref().clone(), id)?;
            draft.put(Entry::Table(changed));
            self.write_draft(draft)?;
            return Ok(());
        }
        self.ready_for_job(&table, &[])?;
        let job = self.job();
        let changed = job::change(&job, table.id, &mut |_, draft, table| {
            Box::pin(async move { without_index(draft, table, id) })
        })
        .await?;
        // Nobody writes its entries any more: those that are left go, behind the client's back if he will not wait for it.
        let engine = job.engine.clone();
        let clearing = async move {
            for place in job::places(&engine, &changed) {
                let span = Span::prefix(&Key::new(table.index_prefix(place.region, id)));
                job::clear(&engine, span, Some((changed.id, changed.version))).await?;
            }
            Ok(())
        };
        match select(clearing.boxed(), pin!(job.cancel.canceled())).await {
            Either::Left((cleared, _)) => cleared,
            Either::Right(((), clearing)) => {
                let rest = clearing.map(|_: Result<(), SqlError>| ());
                job.engine.db.runtime().spawn.spawn(rest.boxed());
                Ok(())
            }
        }
    }

    /// TRUNCATE: deletes every row, in this transaction.
    pub(super) async fn truncate(
        &mut self,
        truncate: &ast::Truncate,
    ) -> Result<&'static str, SqlError> {
        if truncate.partitions.is_some() || truncate.on_cluster.is_some() {
            return Err(SqlError::unsupported("this form of TRUNCATE is not supported"));
        }
        let mut tables = Vec::new();
        for target in &truncate.table_names {
            tables.push(self.table_named(&target.name).await?);
        }
        let catalog = self.catalog();
        if truncate.cascade == Some(ast::CascadeOption::Cascade) {
            let mut reached = 0;
            while let Some(table) = tables.get(reached).map(|table| table.id) {
                for (child, _) in catalog.referencing(table) {
                    if tables.iter().all(|known| known.id != child.id) {
                        let name = &child.name;
                        self.notice(Notice::note(format!("truncate cascades to table \"{name}\"")));
                        tables.push(child.clone());
                    }
                }
                reached += 1;
            }
        }
        let ids: Vec<u32> = tables.iter().map(|table| table.id).collect();
        for table in &tables {
            if let Some((child, _)) =
                catalog.referencing(table.id).find(|(child, _)| !ids.contains(&child.id))
            {
                return Err(SqlError::unsupported(
                    "cannot truncate a table referenced in a foreign key constraint",
                )
                .with_detail(format!("Table \"{}\" references \"{}\".", child.name, table.name))
                .with_hint(format!(
                    "Truncate table \"{}\" at the same time, or use DELETE.",
                    child.name
                )));
            }
        }
        let place = Place { region: self.engine.cluster.region().0 };
        let cancel = self.cancel.clone();
        if matches!(truncate.identity, Some(ast::TruncateIdentityOption::Restart)) {
            self.restart_sequences_of(&mut tables).await?;
        }
        for table in &tables {
            cancel.unless_canceled(self.truncate_one(table, place)).await?;
        }
        Ok("TRUNCATE TABLE")
    }

    /// Starts the sequences of tables anew, in this transaction. From here on nobody inserts who has not heard of it: he would go on with
    /// former values, which the new beginning comes to later. The tables are then as this transaction leaves them.
    async fn restart_sequences_of(
        &mut self,
        tables: &mut [Arc<TableDescriptor>],
    ) -> Result<(), SqlError> {
        let catalog = self.catalog();
        let owns = |table: u32| {
            let mut sequences = catalog.sequences();
            sequences.any(|one| one.owned_by.is_some_and(|(owner, _)| owner == table))
        };
        if !tables.iter().any(|table| owns(table.id)) {
            return Ok(());
        }
        let mut draft = self.draft().await?;
        let (engine, cancel) = (self.engine.clone(), self.cancel.clone());
        let active = self.begin_ddl();
        for table in tables {
            let of_table = |sequence: &&Arc<SequenceDescriptor>| {
                sequence.owned_by.is_some_and(|(owner, _)| owner == table.id)
            };
            let owned: Vec<_> = draft.catalog().sequences().filter(of_table).cloned().collect();
            if owned.is_empty() {
                continue;
            }
            if !active.told.contains(&table.id) {
                let told = job::renew(&engine, &mut active.txn, &mut draft, table.id);
                let told = cancel.unless_canceled(told).await;
                active.note_announced(&draft);
                told?;
                active.told.insert(table.id);
            }
            for sequence in owned {
                let restarted_as = Some(draft.allocate()?);
                let anew = SequenceDescriptor { restarted_as, ..sequence.as_ref().clone() };
                draft.put(Entry::Sequence(anew));
            }
            if let Some(renewed) = draft.catalog().table(table.id) {
                *table = renewed.clone();
            }
        }
        self.write_draft(draft)?;
        Ok(())
    }

    /// Locks the rows, so that whoever would change one waits for the commit, and holds all that it has looked at until then, whatever the
    /// level: a row that comes meanwhile comes after the commit, or fails it. It could lose its entries otherwise, or what it references.
    async fn truncate_one(
        &mut self,
        table: &Arc<TableDescriptor>,
        place: Place,
    ) -> Result<(), SqlError> {
        let facts = self.facts_now();
        let (engine, cancel) = (self.engine.clone(), self.cancel.clone());
        let memory = self.statement_memory_max();
        let active = self.begin_ddl();
        active.txn.use_schema(table.id, table.version, table.since).await?;
        let hold = ScanOptions { limit: 1000, hold: Hold::ToCommit, ..ScanOptions::default() };
        let rows = crate::rows::index_span(table, place, table.primary());
        let mut passes = vec![(rows, ScanOptions { lock: Some(Lock::Exclusive), ..hold })];
        if table.mode == TableMode::Strong {
            // What is left by then: the entries, also those of indexes that are gone.
            passes.push((table.span(place.region), hold));
        }
        for (span, options) in passes {
            let mut rest = Some(span);
            while let Some(span) = rest {
                let page = active.txn.scan(span, options).await?;
                for (key, value) in page.rows {
                    if table.mode == TableMode::Strong {
                        active.txn.delete(key)?;
                        continue;
                    }
                    // An available table's rows stay as tombstones, so that other regions learn of it.
                    if let Some(row) = crate::rows::decode(table, &value)? {
                        let (txn, sequences) = (&mut active.txn, &engine.sequences);
                        let mut exec = Exec::new(txn, &facts, &[], &cancel, sequences, 0, memory);
                        exec.delete_row(table, &row).await?;
                    }
                }
                active.txn.spill_if_large().await?;
                rest = page.resume;
            }
        }
        Ok(())
    }
}

/// A table without an index, unless a foreign key looks for its rows there (2BP01).
fn without_index(
    draft: &Draft,
    mut table: TableDescriptor,
    id: u32,
) -> Result<TableDescriptor, SqlError> {
    let name = table.index(id).map(|index| index.name.clone()).unwrap_or_default();
    let needed = draft.catalog().referencing(table.id).find(|(_, key)| key.index == id);
    if let Some((child, key)) = needed {
        return Err(SqlError::new(
            codes::DEPENDENT_OBJECTS,
            format!("cannot drop index {name} because other objects depend on it"),
        )
        .with_detail(format!(
            "constraint {} on table {} depends on index {name}",
            key.name, child.name
        ))
        .with_hint(format!("Drop constraint {} of table {} first.", key.name, child.name)));
    }
    table.indexes.retain(|index| index.id != id);
    Ok(table)
}

/// Takes a table out of the catalog, with what belongs to it.
pub(super) fn drop_table(
    draft: &mut Draft,
    table: &TableDescriptor,
    together: &[u32],
    cascade: bool,
) -> Result<(), SqlError> {
    let children: Vec<Arc<TableDescriptor>> = draft
        .catalog()
        .referencing(table.id)
        .map(|(child, _)| child.clone())
        .filter(|child| !together.contains(&child.id))
        .collect();
    for child in children {
        if !cascade {
            return Err(SqlError::new(
                codes::DEPENDENT_OBJECTS,
                format!("cannot drop table {} because other objects depend on it", table.name),
            )
            .with_detail(format!(
                "A constraint on table {} depends on table {}",
                child.name, table.name
            ))
            .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
        }
        let mut changed = child.as_ref().clone();
        changed.foreign_keys.retain(|key| key.table != table.id);
        draft.put(Entry::Table(changed));
    }
    let owned: Vec<u32> = draft
        .catalog()
        .sequences()
        .filter(|sequence| sequence.owned_by.is_some_and(|(owner, _)| owner == table.id))
        .map(|sequence| sequence.id)
        .collect();
    owned.into_iter().for_each(|id| draft.remove(id));
    draft.remove(table.id);
    Ok(())
}
