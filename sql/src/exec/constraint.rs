//! Driver: foreign keys. A row's parents are looked up, and locked shared, as it is written; the children of rows that have gone
//! are looked for once the statement has written everything.

use super::{Exec, Facts};
use crate::catalog::{ForeignKeyAction, ForeignKeyDescriptor, IndexKind, TableDescriptor};
use crate::engine::PlantedBug;
use crate::error::{SqlError, codes};
use crate::outcome::Row;
use crate::plan::{Access, Comparison, Expr, Plan, Reach, Scan, Target, access};
use crate::rows::{index_entry, primary_key};
use crate::types::{CastContext, Datum, cast, text};
use std::collections::VecDeque;
use std::sync::Arc;
use storage::Key;
use txn::api::Lock;
use txn::client::{Hold, OnLock, OwnWrites};

impl Exec<'_> {
    /// 23503 unless every parent of the row is there. Keys that have not changed are not looked up again.
    pub(crate) async fn check_parents(
        &mut self,
        target: &Target,
        row: &Row,
        before: Option<&Row>,
    ) -> Result<(), SqlError> {
        for (key, parent) in &target.parents {
            let values: Vec<&Datum> = key.columns.iter().map(|place| &row[*place]).collect();
            let same = before.is_some_and(|before| {
                key.columns.iter().all(|place| before[*place].compare(&row[*place]).is_eq())
            });
            if same || values.iter().any(|value| value.is_null()) {
                continue;
            }
            let lookup = self.parent_key(key, parent, &values);
            self.name_schema(parent).await?;
            let found = if self.has(PlantedBug::ParentsReadApart) {
                self.sequences.read_apart(&lookup).await?
            } else {
                self.txn.get(&lookup, Some(Lock::Shared)).await?
            };
            if found.is_none() {
                return Err(SqlError::new(
                    codes::FOREIGN_KEY_VIOLATION,
                    format!(
                        "insert or update on table \"{}\" violates foreign key constraint \"{}\"",
                        target.table.name, key.name
                    ),
                )
                .with_detail(format!(
                    "Key ({})=({}) is not present in table \"{}\".",
                    target.table.column_names(key.columns.iter().copied()).join(", "),
                    self.values_text(&target.table, &key.columns, row),
                    parent.name
                ))
                .on_table(&target.table.name)
                .on_constraint(&key.name));
            }
        }
        Ok(())
    }

    fn values_text(&self, table: &TableDescriptor, places: &[usize], row: &Row) -> String {
        places
            .iter()
            .map(|place| text::to_string(&row[*place], table.columns[*place].ty, self.facts))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn parent_key(
        &self,
        key: &ForeignKeyDescriptor,
        parent: &TableDescriptor,
        values: &[&Datum],
    ) -> Key {
        let mut row = vec![Datum::Null; parent.columns.len()];
        for (place, value) in key.referenced.iter().zip(values) {
            row[*place] = (*value).clone();
        }
        match parent.index(key.index) {
            Some(index) if index.kind != IndexKind::Primary => {
                index_entry(parent, self.place, index, &row).0
            }
            _ => primary_key(parent, self.place, &row),
        }
    }

    /// What the change of referenced rows means for those that reference them, and for those that reference these, until there are no
    /// more. Changes are followed in the order in which they come up, as PostgreSQL's triggers are, so that a restriction does not meet
    /// a row that an earlier cascade takes away. A chain of any length takes no stack, and of memory what a statement may have.
    ///
    /// # Errors
    /// 23503: a row is still referenced. 53200: the cascade holds more than `statement_memory_limit`.
    pub(crate) async fn check_children(
        &mut self,
        target: &Target,
        reach: &Reach,
        changes: Vec<Change>,
    ) -> Result<(), SqlError> {
        let mut rest = VecDeque::from([(target, changes)]);
        while let Some((target, changes)) = rest.pop_front() {
            for change in &changes {
                for (key, child) in &target.children {
                    if !change.concerns(key) {
                        continue;
                    }
                    let rows = self.rows_referencing(key, child, &change.before).await?;
                    if rows.is_empty() {
                        continue;
                    }
                    let action = match change.after {
                        Some(_) => key.on_update,
                        None => key.on_delete,
                    };
                    if action == ForeignKeyAction::Restrict {
                        return Err(self.still_referenced(target, key, child, &change.before));
                    }
                    let child = reach.get(&child.id).expect("what cascades is within reach");
                    let after = change
                        .after
                        .as_ref()
                        .map(|row| values_for(self.facts, target, key, child, row));
                    let more = self.follow(key, child, rows, action, after.transpose()?).await?;
                    rest.push_back((child, more));
                    self.txn.spill_if_large().await?;
                }
            }
        }
        Ok(())
    }

    /// The rows that reference a row as it was, locked.
    async fn rows_referencing(
        &mut self,
        key: &ForeignKeyDescriptor,
        child: &Arc<TableDescriptor>,
        before: &Row,
    ) -> Result<Vec<Row>, SqlError> {
        let plan = referencing_rows(key, child, before);
        // That nobody else references the row has to hold when this commits, whatever the isolation level (killer Q10).
        let hold = std::mem::replace(&mut self.hold, Hold::ToCommit);
        // Constraints are about the rows as the statement leaves them, not as it found them.
        let own = std::mem::replace(&mut self.own, OwnWrites::All);
        let rows = self.rows(&plan, None).await;
        (self.hold, self.own) = (hold, own);
        rows
    }

    /// 23503.
    fn still_referenced(
        &self,
        target: &Target,
        key: &ForeignKeyDescriptor,
        child: &TableDescriptor,
        before: &Row,
    ) -> SqlError {
        SqlError::new(
            codes::FOREIGN_KEY_VIOLATION,
            format!(
                "update or delete on table \"{}\" violates foreign key constraint \"{}\" on table \"{}\"",
                target.table.name, key.name, child.name
            ),
        )
        .with_detail(format!(
            "Key ({})=({}) is still referenced from table \"{}\".",
            target.table.column_names(key.referenced.iter().copied()).join(", "),
            self.values_text(&target.table, &key.referenced, before),
            child.name
        ))
        .on_table(&child.name)
        .on_constraint(&key.name)
    }

    /// Changes or deletes the rows that reference one; `after`: what their columns of the key are to be, if it is not gone. What became of
    /// each.
    async fn follow(
        &mut self,
        key: &ForeignKeyDescriptor,
        child: &Target,
        rows: Vec<Row>,
        action: ForeignKeyAction,
        after: Option<Vec<Datum>>,
    ) -> Result<Vec<Change>, SqlError> {
        let mut changes = Vec::with_capacity(rows.len());
        for before in rows {
            if after.is_none() && action == ForeignKeyAction::Cascade {
                self.delete_row(&child.table, &before).await?;
                changes.push(Change { before, after: None });
                continue;
            }
            let mut changed = before.clone();
            for (place, own) in key.columns.iter().enumerate() {
                changed[*own] = match (action, &after) {
                    (ForeignKeyAction::Cascade, Some(after)) => after[place].clone(),
                    _ => Datum::Null,
                };
            }
            self.change_row(child, &before, &changed).await?;
            changes.push(Change { before, after: Some(changed) });
        }
        Ok(changes)
    }
}

/// What became of a row that may be referenced.
pub(crate) struct Change {
    pub before: Row,
    /// `None`: it was deleted.
    pub after: Option<Row>,
}

impl Change {
    /// Whether it takes a key away that this foreign key may reference.
    fn concerns(&self, key: &ForeignKeyDescriptor) -> bool {
        let same = self.after.as_ref().is_some_and(|after| {
            key.referenced.iter().all(|place| self.before[*place].compare(&after[*place]).is_eq())
        });
        !same && key.referenced.iter().all(|place| !self.before[*place].is_null())
    }
}

/// A referenced key as the child's columns keep it.
///
/// # Errors
/// A column cannot: 22001, 22003 and so on, as of an assignment.
fn values_for(
    facts: &Facts,
    target: &Target,
    key: &ForeignKeyDescriptor,
    child: &Target,
    row: &Row,
) -> Result<Vec<Datum>, SqlError> {
    let pairs = key.columns.iter().zip(&key.referenced);
    let values = pairs.map(|(own, referenced)| {
        let from = target.table.columns[*referenced].ty;
        let column = &child.table.columns[*own];
        let to = (column.ty, column.typmod);
        cast(&row[*referenced], from, to.0, to.1, CastContext::Assignment, facts)
    });
    Ok(values.collect::<Result<_, _>>()?)
}

fn referencing_rows(
    key: &ForeignKeyDescriptor,
    child: &Arc<TableDescriptor>,
    parent_row: &Row,
) -> Plan {
    let mut conditions = Vec::new();
    for (own, referenced) in key.columns.iter().zip(&key.referenced) {
        let value = Expr::Const(parent_row[*referenced].clone());
        conditions.push(Expr::Compare(Comparison::Eq, Box::new(Expr::Slot(*own)), Box::new(value)));
    }
    let path: Access = access::choose(child, &conditions, &[]);
    Plan::Scan(Box::new(Scan {
        table: child.clone(),
        access: path,
        filter: Some(Expr::and(conditions)),
        lock: Some(Lock::Exclusive),
        on_lock: OnLock::Wait,
        backward: false,
        limit: None,
    }))
}
