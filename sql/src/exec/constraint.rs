//! Driver: foreign keys. A row's parents are looked up, and locked shared, as it is written; the children of rows that have gone
//! are looked for once the statement has written everything.

use super::Exec;
use crate::catalog::{ForeignKeyAction, ForeignKeyDescriptor, IndexKind, TableDescriptor};
use crate::engine::PlantedBug;
use crate::error::{SqlError, codes};
use crate::outcome::Row;
use crate::plan::{Access, Comparison, Expr, Plan, Scan, Target, access};
use crate::rows::{index_entry, primary_key};
use crate::types::{Datum, text};
use futures::future::BoxFuture;
use storage::Key;
use txn::api::Lock;
use txn::client::{Hold, OnLock, OwnWrites};

impl<'a> Exec<'a> {
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

    /// What the change of referenced rows means for those that reference them.
    pub(crate) fn check_children<'b>(
        &'b mut self,
        target: &'b Target,
        changes: &'b [(Row, Option<Row>)],
    ) -> BoxFuture<'b, Result<(), SqlError>>
    where
        'a: 'b,
    {
        Box::pin(async move {
            for (key, child) in &target.children {
                for (before, after) in changes {
                    let same = after.as_ref().is_some_and(|after| {
                        key.referenced
                            .iter()
                            .all(|place| before[*place].compare(&after[*place]).is_eq())
                    });
                    if same || key.referenced.iter().any(|place| before[*place].is_null()) {
                        continue;
                    }
                    self.follow(target, key, child, before, after.as_ref()).await?;
                }
            }
            Ok(())
        })
    }

    async fn follow(
        &mut self,
        target: &Target,
        key: &ForeignKeyDescriptor,
        child: &Target,
        before: &Row,
        after: Option<&Row>,
    ) -> Result<(), SqlError> {
        let plan = referencing_rows(key, child, before);
        // That nobody else references the row has to hold when this commits, whatever the isolation level (killer Q10).
        let hold = std::mem::replace(&mut self.hold, Hold::ToCommit);
        // Constraints are about the rows as the statement leaves them, not as it found them.
        let own = std::mem::replace(&mut self.own, OwnWrites::All);
        let rows = self.rows(&plan, None).await;
        (self.hold, self.own) = (hold, own);
        let rows = rows?;
        if rows.is_empty() {
            return Ok(());
        }
        let action = if after.is_some() { key.on_update } else { key.on_delete };
        if action == ForeignKeyAction::Restrict {
            return Err(SqlError::new(
                codes::FOREIGN_KEY_VIOLATION,
                format!(
                    "update or delete on table \"{}\" violates foreign key constraint \"{}\" on table \"{}\"",
                    target.table.name, key.name, child.table.name
                ),
            )
            .with_detail(format!(
                "Key ({})=({}) is still referenced from table \"{}\".",
                target.table.column_names(key.referenced.iter().copied()).join(", "),
                self.values_text(&target.table, &key.referenced, before),
                child.table.name
            ))
            .on_table(&child.table.name)
            .on_constraint(&key.name));
        }
        let mut changes = Vec::new();
        for row in rows {
            if after.is_none() && action == ForeignKeyAction::Cascade {
                self.delete_row(&child.table, &row).await?;
                changes.push((row, None));
                continue;
            }
            let mut changed = row.clone();
            for (own, referenced) in key.columns.iter().zip(&key.referenced) {
                changed[*own] = match (action, after) {
                    (ForeignKeyAction::Cascade, Some(after)) => after[*referenced].clone(),
                    _ => Datum::Null,
                };
            }
            self.change_row(child, &row, &changed).await?;
            changes.push((row, Some(changed)));
        }
        self.check_children(child, &changes).await
    }
}

fn referencing_rows(key: &ForeignKeyDescriptor, child: &Target, parent_row: &Row) -> Plan {
    let mut conditions = Vec::new();
    for (own, referenced) in key.columns.iter().zip(&key.referenced) {
        let value = Expr::Const(parent_row[*referenced].clone());
        conditions.push(Expr::Compare(Comparison::Eq, Box::new(Expr::Slot(*own)), Box::new(value)));
    }
    let path: Access = access::choose(&child.table, &conditions, &[]);
    Plan::Scan(Box::new(Scan {
        table: child.table.clone(),
        access: path,
        filter: Some(Expr::and(conditions)),
        lock: Some(Lock::Exclusive),
        on_lock: OnLock::Wait,
        backward: false,
        limit: None,
    }))
}
