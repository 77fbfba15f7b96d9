//! Driver: moves changes of one region's copy of a table into another's.
//!
//! ```text
//!   origin's copy ── Changes(after frontier, at now) ──► groups of one commit timestamp ──► transactions here, in order, of whole groups
//!                                                        each also stores the frontier that it reaches
//! ```
//!
//! The frontier lies beside the copy it belongs to (`prefix | index 0 | origin`), so that reading and storing it needs no WAN. It is
//! stored by the transactions that apply: INVARIANT: everything of the origin at or below a stored frontier is in the copy.
//!
//! Where the origin's history after the frontier is gone (the table lies in a range that was collected before the table was made, or
//! this region has joined since), the copy is taken as it stands. Every row has its whole state in it, deleted ones too, so that merging it
//! does what merging its changes would have done; only that the rows of one transaction may be seen apart until the frontier is there.

use super::apply::apply_changes;
use crate::catalog::{TableDescriptor, TableMode};
use crate::engine::{Engine, PlantedBug};
use crate::error::{Recovery, SqlError, codes};
use bytes::Bytes;
use clock::Timestamp;
use coverage::Mark;
use replication::range::RegionId;
use std::time::Duration;
use storage::{Key, Span};
use txn::api::{Batch, Change, KvError, Request, Response, WAIT_SLICE, Wait};
use txn::client::ScanOptions;

/// Bytes of changes asked for at once.
const PULL_BYTES: u64 = 256 << 10;
/// Index id of frontiers.
const FRONTIER_INDEX: u32 = 0;
/// Changes that one transaction applies. One origin transaction after another would be bounded by the rounds that a commit takes; too many at
/// once would hold their rows for long.
const APPLY_CHANGES_MAX: usize = 32;
/// A stream that has nothing to apply stores its frontier this often: a mark costs a write in the destination's region.
const MARK_INTERVAL: Duration = Duration::from_millis(200);

/// How far a stream has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Everything of the origin at or below has been applied.
    pub frontier: Timestamp,
    /// Origin transactions applied by this call.
    pub applied: u64,
    /// Whether more is known to wait.
    pub more: bool,
}

fn frontier_key(table: &TableDescriptor, origin: RegionId, destination: RegionId) -> Key {
    let mut key = table.index_prefix(destination.0, FRONTIER_INDEX);
    key.extend_from_slice(&origin.0.to_be_bytes());
    Key::new(key)
}

/// One round of a stream: pulls what the origin has committed since the stored frontier, and applies it. To be called again and
/// again; two calls at once for the same stream do no harm.
///
/// # Errors
/// The origin cannot be reached, or the copy here cannot be written: nothing is lost, call again.
pub async fn pump(
    engine: &Engine,
    table: u32,
    origin: RegionId,
    destination: RegionId,
) -> Result<Progress, SqlError> {
    let Some(table) = engine.catalog().table(table).cloned() else {
        return Err(SqlError::new(
            crate::types::SqlState::UNDEFINED_TABLE,
            format!("table {table} does not exist"),
        ));
    };
    if table.mode != TableMode::Available || origin == destination {
        return Err(SqlError::internal("only available tables have streams, between two regions"));
    }
    let since = frontier(engine, &table, origin, destination).await?;
    let Some((mut changes, upto)) = pull(engine, &table, origin, since).await? else {
        return take_whole(engine, &table, origin, destination, since).await;
    };
    // One stream at a time writes into a copy: two would wait for each other's rows, and take turns as a deadlock's victim.
    let turn = engine.copy_turn(table.id, destination);
    let _turn = turn.lock().await;
    if !changes.is_empty() {
        // Another call may have applied them meanwhile.
        let reached = frontier(engine, &table, origin, destination).await?;
        changes.retain(|change| change.ts > reached);
    }
    let now = engine.db.runtime().hlc.now().timestamp();
    let applied = changes.chunk_by(|a, b| a.ts == b.ts).count() as u64;
    let mut rest = changes.as_slice();
    if engine.has(PlantedBug::StreamUnordered) {
        for change in changes.iter().rev() {
            let one = std::slice::from_ref(change);
            apply_group(engine, &table, origin, destination, one, since).await?;
        }
    }
    while !rest.is_empty() {
        let (piece, others) = rest.split_at(whole_transactions(rest));
        let done = if others.is_empty() { upto } else { piece[piece.len() - 1].ts };
        apply_group(engine, &table, origin, destination, piece, done).await?;
        rest = others;
    }
    if changes.is_empty() && upto.since(since) >= MARK_INTERVAL {
        apply_group(engine, &table, origin, destination, &[], upto).await?;
    }
    Ok(Progress { frontier: upto.max(since), applied, more: upto < now && !changes.is_empty() })
}

/// Brings the copy here to where the origin's is now, without its history.
async fn take_whole(
    engine: &Engine,
    table: &TableDescriptor,
    origin: RegionId,
    destination: RegionId,
    since: Timestamp,
) -> Result<Progress, SqlError> {
    coverage::reached(Mark::StreamTookWhole);
    tracing::info!(
        table = table.name,
        origin = origin.0,
        "a copy is taken as it stands: its history is gone"
    );
    let turn = engine.copy_turn(table.id, destination);
    let _turn = turn.lock().await;
    // Every page is read at this moment or later, so that all that was committed by then is in one of them.
    let at = engine.db.runtime().hlc.now().timestamp();
    let mut rest = Some(Span::prefix(&Key::new(table.index_prefix(origin.0, table.primary().id))));
    let mut applied = 0;
    while let Some(span) = rest.take() {
        let options = ScanOptions { bytes_max: PULL_BYTES, ..ScanOptions::default() };
        let page = engine.run("take a copy", |txn, _| {
            let span = span.clone();
            Box::pin(async move { Ok(txn.scan(span, options).await?) })
        });
        let page = page.await?;
        rest = page.resume;
        let rows = page.rows.into_iter();
        let states: Vec<Change> =
            rows.map(|(key, value)| Change { ts: at, key, value: Some(value) }).collect();
        applied += states.len() as u64;
        for piece in states.chunks(APPLY_CHANGES_MAX) {
            apply_group(engine, table, origin, destination, piece, since).await?;
        }
    }
    apply_group(engine, table, origin, destination, &[], at).await?;
    Ok(Progress { frontier: at, applied, more: false })
}

/// How many changes from the first on are applied at once: whole transactions, about [`APPLY_CHANGES_MAX`], one at least.
fn whole_transactions(changes: &[Change]) -> usize {
    let mut count = 0;
    for transaction in changes.chunk_by(|a, b| a.ts == b.ts) {
        if count > 0 && count + transaction.len() > APPLY_CHANGES_MAX {
            break;
        }
        count += transaction.len();
    }
    count
}

/// Every stream into `destination`: its table, its origin, and its stored frontier.
///
/// # Errors
/// The copies here cannot be read.
pub(crate) async fn frontiers(
    engine: &Engine,
    destination: RegionId,
) -> Result<Vec<(String, RegionId, Timestamp)>, SqlError> {
    let mut found = Vec::new();
    for table in engine.catalog().tables().filter(|table| table.mode == TableMode::Available) {
        for (origin, _) in engine.cluster.regions() {
            if origin != destination {
                let frontier = frontier(engine, table, origin, destination).await?;
                found.push((table.name.clone(), origin, frontier));
            }
        }
    }
    Ok(found)
}

/// Everything of a region's copy at or below has been delivered to every other copy.
///
/// # Errors
/// A copy cannot be read.
pub(crate) async fn delivered(
    engine: &Engine,
    table: &TableDescriptor,
    origin: RegionId,
) -> Result<Timestamp, SqlError> {
    let mut least = Timestamp::MAX;
    for (destination, _) in engine.cluster.regions() {
        if destination != origin {
            least = least.min(frontier(engine, table, origin, destination).await?);
        }
    }
    Ok(least)
}

/// The stored frontier.
async fn frontier(
    engine: &Engine,
    table: &TableDescriptor,
    origin: RegionId,
    destination: RegionId,
) -> Result<Timestamp, SqlError> {
    let key = frontier_key(table, origin, destination);
    let stored = engine.run("read frontier", |txn, _| {
        let key = key.clone();
        Box::pin(async move { Ok(txn.get(&key, None).await?) })
    });
    match stored.await? {
        None => Ok(Timestamp::MIN),
        Some(bytes) => {
            coverage::reached(Mark::StreamResumed);
            bytes
                .as_ref()
                .try_into()
                .map(|raw| Timestamp::from_raw(u64::from_be_bytes(raw)))
                .map_err(|_| {
                    SqlError::new(
                        crate::types::SqlState::DATA_CORRUPTED,
                        "a stored frontier cannot be read",
                    )
                })
        }
    }
}

/// What the origin's copy has committed after `since`, in commit order, and up to where that is complete. `None`: nobody knows any more.
async fn pull(
    engine: &Engine,
    table: &TableDescriptor,
    origin: RegionId,
    since: Timestamp,
) -> Result<Option<(Vec<Change>, Timestamp)>, SqlError> {
    let now = engine.db.runtime().hlc.now().timestamp();
    let span = Span::prefix(&Key::new(table.index_prefix(origin.0, table.primary().id)));
    let batch = Batch::bare(
        now,
        Wait::Queue(WAIT_SLICE),
        vec![Request::Changes { span, after: since, bytes_max: PULL_BYTES }],
    );
    match engine.db.kv().send(batch).await {
        Ok(reply) => match reply.responses.into_iter().next() {
            Some(Response::Changes { changes, upto }) => Ok(Some((changes, upto))),
            _ => Err(SqlError::internal("a range answered something else than its changes")),
        },
        // An open transaction is in the way. If its gateway has died, perhaps nobody else ever asks.
        Err(KvError::Blocked { key, holder, active, .. }) => {
            coverage::reached(Mark::StreamWaited);
            engine.db.is_over(&key, holder, active).await?;
            Ok(Some((Vec::new(), since)))
        }
        Err(KvError::Overloaded { .. }) => {
            coverage::reached(Mark::StreamWaited);
            Ok(Some((Vec::new(), since)))
        }
        Err(KvError::BelowGc { .. }) => Ok(None),
        Err(error) => Err(SqlError::new(
            codes::SYSTEM_ERROR,
            format!("changes of table \"{}\" cannot be read: {error}", table.name),
        )),
    }
}

async fn apply_group(
    engine: &Engine,
    table: &TableDescriptor,
    origin: RegionId,
    destination: RegionId,
    group: &[Change],
    done: Timestamp,
) -> Result<(), SqlError> {
    let key = frontier_key(table, origin, destination);
    let result = engine.run("apply changes", |txn, _| {
        let key = key.clone();
        Box::pin(async move {
            let planted = engine.settings.planted;
            apply_changes(txn, table, (origin.0, destination.0), group, planted).await?;
            // A frontier that another call has moved further stays.
            let stored = txn.get(&key, Some(txn::api::Lock::Exclusive)).await?;
            let further =
                stored.and_then(|bytes| bytes.as_ref().try_into().ok()).map(u64::from_be_bytes);
            if further.is_none_or(|raw| raw < done.raw()) {
                txn.put(key, Bytes::copy_from_slice(&done.raw().to_be_bytes()))?;
            } else {
                coverage::reached(Mark::FrontierFurther);
            }
            Ok(())
        })
    });
    match result.await {
        Err(error) if matches!(error.recovery, Recovery::Refresh { .. }) => {
            coverage::reached(Mark::StreamMetSchemaChange);
            engine.refresh_catalog().await?;
            Err(error)
        }
        other => other,
    }
}
