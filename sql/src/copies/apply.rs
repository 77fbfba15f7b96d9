//! Driver: transactions of the origin become a transaction of the destination: each whole, several that follow each other at once.
//!
//! Every changed row is read, merged and, if the merge changed it, written with the local index entries that follow from it. A merge
//! that changes nothing writes nothing, so that changes that come again (by another way, or after a crash) cost a read.

use super::RowState;
use super::planted::merge_of;
use crate::catalog::TableDescriptor;
use crate::engine::{Engine, PlantedBug};
use crate::error::SqlError;
use crate::outcome::Row;
use crate::rows::{Place, index_entry};
use crate::types::{FixedContext, text};
use bytes::Bytes;
use coverage::Mark;
use std::collections::{BTreeMap, BTreeSet};
use storage::{Key, Span};
use txn::api::{Change, Lock};
use txn::client::{ScanOptions, Txn};

/// Index id under which a copy keeps its conflicts.
const CONFLICTS_INDEX: u32 = u32::MAX;
/// Conflicts shown at once.
const CONFLICTS_SHOWN_MAX: u64 = 10_000;

/// A write that a merge threw away, unseen by its winner.
pub(crate) struct Conflict {
    /// When it was found out, raw timestamp.
    pub at: u64,
    /// The row's key.
    pub key: String,
    /// The row that stayed.
    pub winner: String,
    /// Who wrote it.
    pub winner_region: u16,
    /// The row that went.
    pub loser: String,
    /// Who wrote it.
    pub loser_region: u16,
}

/// Applies changes of whole origin transactions, in their order, to the copy in `destination`. Whether anything was written.
pub(crate) async fn apply_changes(
    txn: &mut Txn,
    table: &TableDescriptor,
    (origin, destination): (u16, u16),
    changes: &[Change],
    planted: Option<PlantedBug>,
) -> Result<bool, SqlError> {
    let merge = merge_of(planted);
    let place = Place { region: destination };
    let prefix = table.index_prefix(origin, table.primary().id);
    let own_prefix = table.index_prefix(destination, table.primary().id);
    txn.use_schema(table.id, table.version, table.since).await?;
    let mut arriving = Vec::new();
    for change in changes {
        // A copy's rows are never removed but by collection of tombstones that everybody has.
        let (Some(value), Some(rest)) =
            (&change.value, change.key.as_bytes().strip_prefix(prefix.as_slice()))
        else {
            continue;
        };
        let mut key = own_prefix.clone();
        key.extend_from_slice(rest);
        arriving.push((Key::new(key), RowState::decode(value)?));
    }
    if arriving.is_empty() {
        return Ok(false);
    }
    let keys: BTreeSet<Key> = arriving.iter().map(|(key, _)| key.clone()).collect();
    let keys: Vec<Key> = keys.into_iter().collect();
    let rows = txn.multi_get(&keys, Some(Lock::Exclusive)).await?;
    // As they are after the changes so far.
    let mut states = BTreeMap::new();
    for (key, row) in keys.into_iter().zip(rows) {
        if let Some(row) = row {
            states.insert(key, RowState::decode(&row)?);
        }
    }
    let mut wrote = false;
    for (key, theirs) in arriving {
        let ours = states.get(&key);
        let merged = ours.map_or_else(|| theirs.clone(), |ours| merge(ours, &theirs));
        if ours == Some(&merged) {
            coverage::reached(Mark::ChangeCameAgain);
            continue;
        }
        wrote = true;
        if let Some(ours) = ours
            && theirs.dot.region == origin
            && ours.conflicts_with(&theirs)
        {
            coverage::reached(Mark::ConflictRecorded);
            record(txn, table, place, &key, ours, &theirs)?;
        }
        let before = ours.map(|ours| ours.row(table)).transpose()?.flatten();
        let after = merged.row(table)?;
        put_entries(txn, table, place, before.as_ref(), after.as_ref())?;
        if merged.deleted && planted == Some(PlantedBug::TombstonesForgotten) {
            txn.delete(key.clone())?;
            states.remove(&key);
            continue;
        }
        txn.put(key.clone(), merged.encode())?;
        states.insert(key, merged);
    }
    Ok(wrote)
}

fn put_entries(
    txn: &mut Txn,
    table: &TableDescriptor,
    place: Place,
    before: Option<&Row>,
    after: Option<&Row>,
) -> Result<(), SqlError> {
    for index in &table.indexes[1..] {
        let old = before.map(|row| index_entry(table, place, index, row).0);
        let new = after.map(|row| index_entry(table, place, index, row));
        if let Some(old) = old
            && new.as_ref().is_none_or(|(key, _, _)| *key != old)
        {
            txn.delete(old)?;
        }
        if let Some((key, value, _)) = new {
            txn.put(key, value)?;
        }
    }
    Ok(())
}

/// Keeps both sides of a conflict: key, then the two rows as text.
fn record(
    txn: &mut Txn,
    table: &TableDescriptor,
    place: Place,
    key: &Key,
    ours: &RowState,
    theirs: &RowState,
) -> Result<(), SqlError> {
    let (winner, loser) = if ours.dot > theirs.dot { (ours, theirs) } else { (theirs, ours) };
    let show = |state: &RowState| -> Result<String, SqlError> {
        Ok(match state.row(table)? {
            None => "deleted".to_string(),
            Some(row) => row_text(table, &row),
        })
    };
    let named = match winner.row(table)?.or(loser.row(table)?) {
        Some(row) => key_text(table, &row),
        None => key.to_string(),
    };
    let at = txn.read_timestamp().raw();
    let mut name = table.index_prefix(place.region, CONFLICTS_INDEX);
    name.extend_from_slice(&at.to_be_bytes());
    name.extend_from_slice(key.as_bytes());
    let value = serde_json::json!({
        "at": at,
        "key": named,
        "winner": show(winner)?,
        "winner_region": winner.dot.region,
        "loser": show(loser)?,
        "loser_region": loser.dot.region,
    });
    Ok(txn.put(Key::new(name), Bytes::from(value.to_string()))?)
}

fn row_text(table: &TableDescriptor, row: &Row) -> String {
    let context = FixedContext::default();
    let show = |(place, column): (usize, &crate::catalog::ColumnDescriptor)| match &row[place] {
        value if value.is_null() => "null".to_string(),
        value => text::to_string(value, column.ty, &context),
    };
    format!("({})", table.visible().map(show).collect::<Vec<_>>().join(", "))
}

fn key_text(table: &TableDescriptor, row: &Row) -> String {
    let context = FixedContext::default();
    let show = |column: &crate::catalog::IndexColumn| {
        text::to_string(&row[column.column], table.columns[column.column].ty, &context)
    };
    format!("({})", table.primary().columns.iter().map(show).collect::<Vec<_>>().join(", "))
}

impl Conflict {
    /// The conflicts of the copy in a region, oldest first.
    pub(crate) async fn list(
        engine: &Engine,
        table: &TableDescriptor,
        region: u16,
    ) -> Result<Vec<Conflict>, SqlError> {
        let span = Span::prefix(&Key::new(table.index_prefix(region, CONFLICTS_INDEX)));
        let rows = engine
            .run("list conflicts", |txn, _| {
                let span = span.clone();
                Box::pin(async move {
                    let page = txn
                        .scan(
                            span,
                            ScanOptions { limit: CONFLICTS_SHOWN_MAX, ..ScanOptions::default() },
                        )
                        .await?;
                    Ok(page.rows)
                })
            })
            .await?;
        let mut conflicts = Vec::new();
        for (_, value) in rows {
            let value: serde_json::Value = serde_json::from_slice(&value)
                .map_err(|error| SqlError::internal(error.to_string()))?;
            let string = |name: &str| value[name].as_str().unwrap_or_default().to_string();
            let number = |name: &str| value[name].as_u64().unwrap_or(0);
            conflicts.push(Conflict {
                at: number("at"),
                key: string("key"),
                winner: string("winner"),
                winner_region: u16::try_from(number("winner_region")).unwrap_or(0),
                loser: string("loser"),
                loser_region: u16::try_from(number("loser_region")).unwrap_or(0),
            });
        }
        Ok(conflicts)
    }
}
