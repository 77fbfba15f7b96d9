//! Driver: INSERT, UPDATE, DELETE. Rows and their index entries, constraints, RETURNING.
//!
//! What could be there already is read under an exclusive lock before it is written, a batch of keys at a time: the error comes
//! with the statement, as PostgreSQL users expect, not with the commit. An INSERT that is a whole transaction leaves the check to
//! the ranges instead ([`Uniqueness::AtCommit`]).
//!
//! INVARIANT: after a statement every row has exactly its entries in every index, the ones being filled included.

use super::constraint::Change;
use super::{Exec, Uniqueness};
use crate::catalog::{ColumnDescriptor, IndexDescriptor, TableDescriptor, TableMode};
use crate::copies::RowState;
use crate::engine::PlantedBug;
use crate::error::{SqlError, codes};
use crate::outcome::Row;
use crate::plan::{Conflict, Delete, Expr, Insert, Target, Update};
use crate::rows::{decode, encode, index_entry, pointed_key, primary_key};
use crate::types::{Datum, SqlState, text};
use coverage::Mark;
use std::collections::BTreeSet;
use storage::Key;
use storage::key::KEY_BYTES_MAX;
use txn::api::Lock;
use txn::client::OwnWrites;

/// Rows whose keys are read together.
const ROWS_PER_BATCH: usize = 500;

/// What one INSERT .. ON CONFLICT has done so far.
#[derive(Default)]
struct Upserted {
    /// Keys of the rows that it has written.
    touched: BTreeSet<Key>,
    /// Rows that it has changed and others may reference.
    replaced: Vec<Change>,
}

impl Exec<'_> {
    /// INSERT.
    pub(super) async fn insert(&mut self, insert: &Insert) -> Result<Vec<Row>, SqlError> {
        let mut rows = self.rows(&insert.source, None).await?;
        let mut returned = Vec::new();
        let mut affected = 0;
        let mut upserted = Upserted::default();
        while !rows.is_empty() {
            let rest = rows.split_off(rows.len().min(ROWS_PER_BATCH));
            let batch = std::mem::replace(&mut rows, rest);
            let done = match &insert.conflict {
                None => self.insert_rows(&insert.target, batch).await?,
                Some(conflict) => {
                    let mut done = Vec::new();
                    for row in batch {
                        done.extend(
                            self.upsert(&insert.target, conflict, row, &mut upserted).await?,
                        );
                    }
                    done
                }
            };
            affected += done.len() as u64;
            if let Some(returning) = &insert.returning {
                returned.append(&mut self.projected(done, returning).await?);
            }
            self.txn.spill_if_large().await?;
        }
        if let Some(conflict) = &insert.conflict {
            self.check_children(&insert.target, &conflict.reach, upserted.replaced).await?;
        }
        self.affected = affected;
        Ok(returned)
    }

    /// Inserts rows none of which may be there.
    pub(crate) async fn insert_rows(
        &mut self,
        target: &Target,
        mut rows: Vec<Row>,
    ) -> Result<Vec<Row>, SqlError> {
        let table = &target.table;
        self.name_schema(table).await?;
        let mut keys: Vec<Key> = Vec::new();
        let mut owners: Vec<(usize, usize)> = Vec::new();
        for (at, row) in rows.iter_mut().enumerate() {
            self.complete(target, row).await?;
            for (key, index) in self.unique_keys(table, row) {
                keys.push(key);
                owners.push((at, index));
            }
        }
        // Rows of available tables are merged with what is there, so that has to be read.
        let at_commit = self.uniqueness == Uniqueness::AtCommit && table.mode == TableMode::Strong;
        let existing = if keys.is_empty() || at_commit {
            vec![None; keys.len()]
        } else {
            self.txn.multi_get(&keys, Some(Lock::Exclusive)).await?
        };
        let mut seen = BTreeSet::new();
        let mut dead: Vec<Option<RowState>> = vec![None; rows.len()];
        for ((key, value), (at, index)) in keys.into_iter().zip(existing).zip(owners) {
            let there = match value {
                Some(value) if index == 0 && table.mode == TableMode::Available => {
                    let state = RowState::decode(&value)?;
                    let alive = !state.deleted;
                    dead[at] = Some(state);
                    alive
                }
                Some(_) => true,
                None => false,
            };
            if there || !seen.insert(key) {
                coverage::reached(Mark::DuplicateFoundAtOnce);
                return Err(duplicate(table, &table.indexes[index], &rows[at], self));
            }
        }
        for (row, before) in rows.iter().zip(dead) {
            if at_commit && !table.has_hidden_key() {
                self.txn.insert(primary_key(table, self.place, row), encode(table, row))?;
            } else {
                self.put_row(table, row, before.as_ref())?;
            }
            for index in &table.indexes[1..] {
                let (key, value, unique) = index_entry(table, self.place, index, row);
                if at_commit && unique {
                    self.txn.insert(key, value)?;
                } else {
                    self.txn.put(key, value)?;
                }
            }
        }
        for row in &rows {
            self.check_parents(target, row, None).await?;
        }
        Ok(rows)
    }

    /// Fills in the row id, and checks NOT NULL, CHECK and the key's size.
    async fn complete(&mut self, target: &Target, row: &mut Row) -> Result<(), SqlError> {
        let table = &target.table;
        for (column, value) in table.columns.iter().zip(row.iter_mut()) {
            if column.hidden && value.is_null() && !column.dropped {
                *value = self.row_id();
            }
        }
        self.check_row(target, row).await
    }

    /// A row id: unique in the cluster, because a node's clock readings are.
    fn row_id(&self) -> Datum {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.facts.runtime.hlc.now().raw().to_be_bytes());
        id[8..12].copy_from_slice(&self.facts.cluster.node().0.to_be_bytes());
        Datum::Uuid(id)
    }

    async fn check_row(&mut self, target: &Target, row: &Row) -> Result<(), SqlError> {
        let table = &target.table;
        for (column, value) in table.columns.iter().zip(row) {
            if column.not_null && !column.dropped && value.is_null() {
                return Err(self.not_null(table, column, row));
            }
        }
        for (name, check) in &target.checks {
            if self.value(check, row).await? == Datum::Bool(false) {
                return Err(SqlError::new(
                    codes::CHECK_VIOLATION,
                    format!(
                        "new row for relation \"{}\" violates check constraint \"{name}\"",
                        table.name
                    ),
                )
                .with_detail(format!("Failing row contains ({}).", self.row_text(table, row)))
                .on_table(&table.name)
                .on_constraint(name));
            }
        }
        let key = primary_key(table, self.place, row);
        if key.as_bytes().len() > KEY_BYTES_MAX {
            return Err(SqlError::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!(
                    "a key of table \"{}\" has {} bytes, over the limit of {KEY_BYTES_MAX}",
                    table.name,
                    key.as_bytes().len()
                ),
            ));
        }
        Ok(())
    }

    fn not_null(&self, table: &TableDescriptor, column: &ColumnDescriptor, row: &Row) -> SqlError {
        SqlError::new(
            codes::NOT_NULL_VIOLATION,
            format!(
                "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                column.name, table.name
            ),
        )
        .with_detail(format!("Failing row contains ({}).", self.row_text(table, row)))
        .on_table(&table.name)
        .on_column(&column.name)
    }

    fn row_text(&self, table: &TableDescriptor, row: &Row) -> String {
        let show = |(place, column): (usize, &ColumnDescriptor)| match &row[place] {
            Datum::Null => "null".to_string(),
            value => text::to_string(value, column.ty, self.facts),
        };
        table.visible().map(show).collect::<Vec<_>>().join(", ")
    }

    /// Keys that must be new, with the index they are of. A row id is new by itself.
    fn unique_keys(&self, table: &TableDescriptor, row: &Row) -> Vec<(Key, usize)> {
        let mut keys = Vec::new();
        if !table.has_hidden_key() {
            keys.push((primary_key(table, self.place, row), 0));
        }
        for (place, index) in table.indexes.iter().enumerate().skip(1) {
            if let (key, _, true) = index_entry(table, self.place, index, row) {
                keys.push((key, place));
            }
        }
        keys
    }

    /// Writes a row. `before`: its state in an available table.
    pub(crate) fn put_row(
        &mut self,
        table: &TableDescriptor,
        row: &Row,
        before: Option<&RowState>,
    ) -> Result<(), SqlError> {
        let key = primary_key(table, self.place, row);
        let value = match table.mode {
            TableMode::Strong => encode(table, row),
            TableMode::Available => {
                let now = self.txn.read_timestamp().raw();
                let mut state = RowState::written(before, table, row, now, self.place.region);
                if self.has(PlantedBug::WritesDatedByClock) {
                    state.dot.time = self.sequences.wall_clock().raw();
                }
                state.encode()
            }
        };
        Ok(self.txn.put(key, value)?)
    }

    /// The stored state of a row of an available table.
    async fn state_of(
        &mut self,
        table: &TableDescriptor,
        row: &Row,
    ) -> Result<Option<RowState>, SqlError> {
        if table.mode == TableMode::Strong {
            return Ok(None);
        }
        let key = primary_key(table, self.place, row);
        self.txn
            .get(&key, Some(Lock::Exclusive))
            .await?
            .map(|value| RowState::decode(&value))
            .transpose()
    }

    /// INSERT ... ON CONFLICT of one row; the row as it then is, if it was written.
    async fn upsert(
        &mut self,
        target: &Target,
        conflict: &Conflict,
        mut row: Row,
        upserted: &mut Upserted,
    ) -> Result<Option<Row>, SqlError> {
        let table = &target.table;
        self.name_schema(table).await?;
        self.complete(target, &mut row).await?;
        let arbiter = |index: usize| conflict.index.is_none_or(|id| table.indexes[index].id == id);
        for (key, index) in self.unique_keys(table, &row) {
            if !arbiter(index) {
                continue;
            }
            let Some(value) = self.txn.get(&key, Some(Lock::Exclusive)).await? else { continue };
            let value = if index == 0 {
                value
            } else {
                let key = pointed_key(table, self.place, &value);
                let Some(value) = self.txn.get(&key, Some(Lock::Exclusive)).await? else {
                    continue;
                };
                value
            };
            let Some(existing) = decode(table, &value)? else { continue };
            coverage::reached(Mark::UpsertMetRow);
            let Some(assignments) = &conflict.update else { return Ok(None) };
            let key = primary_key(table, self.place, &existing);
            // Another part of the statement may have been there first.
            if self.txn.is_own_effect(&key) || upserted.touched.contains(&key) {
                return Err(SqlError::new(
                    codes::CARDINALITY_VIOLATION,
                    "ON CONFLICT DO UPDATE command cannot affect row a second time",
                )
                .with_hint("Ensure that no rows proposed for insertion within the same command have duplicate constrained values."));
            }
            let mut both = existing.clone();
            both.extend(row);
            if let Some(filter) = &conflict.filter
                && !self.value(filter, &both).await?.is_true()
            {
                return Ok(None);
            }
            let changed = self.assigned(&existing, &both, assignments).await?;
            self.change_row(target, &existing, &changed).await?;
            upserted.touched.extend([key, primary_key(table, self.place, &changed)]);
            if !target.children.is_empty() {
                let after = Some(changed.clone());
                upserted.replaced.push(Change { before: existing, after });
            }
            return Ok(Some(changed));
        }
        if conflict.update.is_some() {
            upserted.touched.insert(primary_key(table, self.place, &row));
        }
        let done = self.insert_rows(target, vec![row]).await?;
        Ok(done.into_iter().next())
    }

    async fn assigned(
        &mut self,
        row: &[Datum],
        source: &Row,
        assignments: &[(usize, Expr)],
    ) -> Result<Row, SqlError> {
        let exprs: Vec<&Expr> = assignments.iter().map(|(_, expr)| expr).collect();
        self.prepare(&exprs, source).await?;
        let mut changed = row.to_vec();
        for (place, expr) in assignments {
            changed[*place] = self.evaluate(expr, source)?;
        }
        Ok(changed)
    }

    /// Replaces a row by another.
    pub(crate) async fn change_row(
        &mut self,
        target: &Target,
        before: &Row,
        after: &Row,
    ) -> Result<(), SqlError> {
        let table = &target.table;
        self.check_row(target, after).await?;
        let (old_key, new_key) =
            (primary_key(table, self.place, before), primary_key(table, self.place, after));
        let state = self.state_of(table, before).await?;
        if old_key == new_key {
            self.put_row(table, after, state.as_ref())?;
        } else {
            let there = self.txn.get(&new_key, Some(Lock::Exclusive)).await?;
            let dead = match there {
                None => None,
                Some(value)
                    if table.mode == TableMode::Available && decode(table, &value)?.is_none() =>
                {
                    Some(RowState::decode(&value)?)
                }
                Some(_) => return Err(duplicate(table, table.primary(), after, self)),
            };
            self.remove_row(table, old_key, state)?;
            self.put_row(table, after, dead.as_ref())?;
        }
        for index in &table.indexes[1..] {
            let (old, _, _) = index_entry(table, self.place, index, before);
            let (new, value, unique) = index_entry(table, self.place, index, after);
            if old != new {
                if unique && self.txn.get(&new, Some(Lock::Exclusive)).await?.is_some() {
                    return Err(duplicate(table, index, after, self));
                }
                self.txn.delete(old)?;
            }
            self.txn.put(new, value)?;
        }
        self.check_parents(target, after, Some(before)).await
    }

    fn remove_row(
        &mut self,
        table: &TableDescriptor,
        key: Key,
        state: Option<RowState>,
    ) -> Result<(), SqlError> {
        match (table.mode, state) {
            (TableMode::Available, Some(state)) => {
                let now = self.txn.read_timestamp().raw();
                let value = state.removed(now, self.place.region).encode();
                Ok(self.txn.put(key, value)?)
            }
            (TableMode::Available, None) | (TableMode::Strong, _) => Ok(self.txn.delete(key)?),
        }
    }

    /// Deletes a row with its entries.
    pub(crate) async fn delete_row(
        &mut self,
        table: &TableDescriptor,
        row: &Row,
    ) -> Result<(), SqlError> {
        let state = self.state_of(table, row).await?;
        self.remove_row(table, primary_key(table, self.place, row), state)?;
        for index in &table.indexes[1..] {
            let (key, _, _) = index_entry(table, self.place, index, row);
            self.txn.delete(key)?;
        }
        Ok(())
    }

    /// UPDATE.
    pub(super) async fn update(&mut self, update: &Update) -> Result<Vec<Row>, SqlError> {
        let table = &update.target.table;
        let width = table.columns.len();
        let rows = self.rows(&update.source, None).await?;
        self.name_schema(table).await?;
        let mut seen = BTreeSet::new();
        let mut done = Vec::new();
        let mut replaced = Vec::new();
        for mut row in rows {
            if !self.is_first(table, &row, &mut seen) {
                continue;
            }
            let changed = self.assigned(&row[..width], &row, &update.assignments).await?;
            let before: Row = row[..width].to_vec();
            self.change_row(&update.target, &before, &changed).await?;
            row.splice(..width, changed.iter().cloned());
            if !update.target.children.is_empty() {
                replaced.push(Change { before, after: Some(changed) });
            }
            done.push(row);
            if done.len().is_multiple_of(ROWS_PER_BATCH) {
                self.txn.spill_if_large().await?;
            }
        }
        self.txn.spill_if_large().await?;
        self.check_children(&update.target, &update.reach, replaced).await?;
        self.affected = done.len() as u64;
        match &update.returning {
            Some(returning) => self.projected(done, returning).await,
            None => Ok(Vec::new()),
        }
    }

    /// Whether a statement has not changed a source row's table row yet: what FROM matches several times is changed once, and of two
    /// parts of a statement that would change one row the first one does, as in PostgreSQL (manual, 7.8.4).
    fn is_first(&self, table: &TableDescriptor, row: &Row, seen: &mut BTreeSet<Key>) -> bool {
        let width = table.columns.len();
        // Most statements change each row that they read: they pay nothing for being asked.
        if row.len() == width && self.own == OwnWrites::All {
            return true;
        }
        let key = primary_key(table, self.place, &row[..width]);
        !self.txn.is_own_effect(&key) && (row.len() == width || seen.insert(key))
    }

    /// DELETE.
    pub(super) async fn delete(&mut self, delete: &Delete) -> Result<Vec<Row>, SqlError> {
        let table = &delete.target.table;
        let width = table.columns.len();
        let rows = self.rows(&delete.source, None).await?;
        self.name_schema(table).await?;
        let mut seen = BTreeSet::new();
        let mut done = Vec::new();
        let mut removed = Vec::new();
        for row in rows {
            if !self.is_first(table, &row, &mut seen) {
                continue;
            }
            let before: Row = row[..width].to_vec();
            self.delete_row(table, &before).await?;
            if !delete.target.children.is_empty() {
                removed.push(Change { before, after: None });
            }
            done.push(row);
            if done.len().is_multiple_of(ROWS_PER_BATCH) {
                self.txn.spill_if_large().await?;
            }
        }
        self.txn.spill_if_large().await?;
        self.check_children(&delete.target, &delete.reach, removed).await?;
        self.affected = done.len() as u64;
        match &delete.returning {
            Some(returning) => self.projected(done, returning).await,
            None => Ok(Vec::new()),
        }
    }
}

/// 23505.
pub(crate) fn duplicate(
    table: &TableDescriptor,
    index: &IndexDescriptor,
    row: &Row,
    exec: &Exec<'_>,
) -> SqlError {
    let names = table.column_names(index.columns.iter().map(|column| column.column)).join(", ");
    let values = index.columns.iter().map(|column| {
        text::to_string(&row[column.column], table.columns[column.column].ty, exec.facts)
    });
    let values = values.collect::<Vec<_>>().join(", ");
    SqlError::new(
        codes::UNIQUE_VIOLATION,
        format!("duplicate key value violates unique constraint \"{}\"", index.name),
    )
    .with_detail(format!("Key ({names})=({values}) already exists."))
    .on_table(&table.name)
    .on_constraint(&index.name)
}
