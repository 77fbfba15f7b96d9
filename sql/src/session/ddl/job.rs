//! Driver: changes of tables that others may be using.
//!
//! ```text
//!   1. lock the catalog's version     other changes wait
//!   2. Fence(table, v+1)              its ranges refuse whoever planned under v; open intents are waited for
//!   3. check, rewrite                 nobody else can write: what is checked stays true
//!   4. write the descriptor v+1       with the same commit
//! ```
//!
//! Whoever was refused reads the catalog again, and waits in that for the change's commit. A change that fails between 2 and 4 leaves
//! the ranges ahead of the catalog: it raises the table's version itself ([`follow`]), and if it has died, the next one refused does. INVARIANT: no range
//! accepts a version above the catalog's for long, and never a write that does not know the table as it is.
//!
//! An index is filled in small transactions between two such changes: writers keep it up to date from the first one on, readers
//! use it from the second one on.
//!
//! A foreign key is a change of two tables: who deletes a row of the referenced one must know of it, too ([`announce`]).

use crate::catalog::{
    Catalog, Draft, Entry, ForeignKeyDescriptor, IndexDescriptor, IndexKind, IndexState,
    TableDescriptor, TableMode,
};
use crate::engine::{Engine, PlantedBug};
use crate::error::{SqlError, codes};
use crate::outcome::CancelHandle;
use crate::rows::{Place, decode, index_entry, index_span};
use crate::types::{FixedContext, text};
use clock::{Monotonic, Timestamp};
use coverage::Mark;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use storage::mvcc::TxnId;
use storage::{Key, Span};
use txn::api::{Batch, KvError, Lock, Request, WAIT_SLICE, Wait};
use txn::client::{ScanOptions, ScanPage, Txn, TxnError};

/// How long intents in the way of a fence are waited for.
const FENCE_PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two tries.
const FENCE_PAUSE: Duration = Duration::from_millis(50);
/// How long a client waits for the tables that its transaction had announced something to.
const FOLLOW_PATIENCE: Duration = Duration::from_secs(1);
/// Rows of one transaction of a backfill.
const BACKFILL_ROWS: u64 = 500;
/// Rows that go with one transaction of a clearing.
const CLEAR_ROWS: u64 = 2000;

/// By table, what version its ranges were told of.
pub(in crate::session) type Announced = BTreeMap<u32, u64>;

/// A change in transactions of its own: what it runs on, and what may end it early. Between two of its transactions it is given up
/// only where what it leaves is whole.
pub(super) struct Job {
    pub(super) engine: Arc<Engine>,
    pub(super) cancel: CancelHandle,
    pub(super) deadline: Option<Monotonic>,
    pub(super) lock_timeout: Option<Duration>,
}

impl Job {
    /// The same, to be brought to its end whatever becomes of its client.
    fn whole(&self) -> Job {
        let (engine, cancel) = (self.engine.clone(), CancelHandle::default());
        Job { engine, cancel, deadline: None, lock_timeout: None }
    }

    /// A transaction of the job waits no longer than its client does.
    fn limit(&self, txn: &mut Txn) {
        txn.set_deadline(self.deadline);
        txn.set_lock_timeout(self.lock_timeout);
    }
}

/// Whether a job was given up, rather than refused: its client is not to wait for what is left to do.
fn is_given_up(error: &SqlError) -> bool {
    [codes::QUERY_CANCELED, codes::LOCK_NOT_AVAILABLE].contains(&error.code)
}

/// What a change makes of a table, in its transaction.
pub(super) type Change<'c> = dyn for<'a> FnMut(
        &'a mut Txn,
        &'a mut Draft,
        TableDescriptor,
    ) -> BoxFuture<'a, Result<TableDescriptor, SqlError>>
    + Send
    + 'c;

/// Everything of a table, in all regions.
pub(super) fn spans(engine: &Engine, table: &TableDescriptor) -> Vec<Span> {
    match table.mode {
        TableMode::Strong => vec![table.span(0)],
        TableMode::Available => {
            engine.cluster.regions().iter().map(|(region, _)| table.span(region.0)).collect()
        }
    }
}

/// Regions whose copies have to be worked on.
pub(super) fn places(engine: &Engine, table: &TableDescriptor) -> Vec<Place> {
    match table.mode {
        TableMode::Strong => vec![Place { region: engine.cluster.region().0 }],
        TableMode::Available => {
            engine.cluster.regions().iter().map(|(region, _)| Place { region: region.0 }).collect()
        }
    }
}

/// From now on the table's ranges refuse versions below. `own`: who asks, and would wait for its own writes in vain.
async fn fence(
    engine: &Engine,
    table: &TableDescriptor,
    version: u64,
    own: Option<TxnId>,
) -> Result<(), SqlError> {
    if engine.has(PlantedBug::FenceSkipped) {
        return Ok(());
    }
    let time = &engine.db.runtime().time;
    let give_up = time.monotonic().plus(FENCE_PATIENCE);
    for span in spans(engine, table) {
        loop {
            let now = engine.db.runtime().hlc.now().timestamp();
            let batch = Batch::bare(
                now,
                Wait::Queue(WAIT_SLICE),
                vec![Request::Fence { span: span.clone(), table: table.id, version }],
            );
            match engine.db.kv().send(batch).await {
                Ok(_) => break,
                Err(KvError::Blocked { holder, .. }) if Some(holder.id) == own => {
                    return Err(changed_here(&table.name));
                }
                Err(KvError::Blocked { key, holder, active, .. }) if time.monotonic() < give_up => {
                    coverage::reached(Mark::SchemaChangeWaited);
                    // If its gateway has died, perhaps nobody else ever asks.
                    let over = engine.db.is_over(&key, holder, active).await;
                    if !matches!(over, Ok(true)) {
                        engine.pause(FENCE_PAUSE).await;
                    }
                }
                Err(KvError::Overloaded { .. }) if time.monotonic() < give_up => {
                    coverage::reached(Mark::SchemaChangeWaited);
                    engine.pause(FENCE_PAUSE).await;
                }
                Err(error) => {
                    return Err(SqlError::new(
                        codes::SYSTEM_ERROR,
                        format!("table \"{}\" cannot be changed now: {error}", table.name),
                    ));
                }
            }
        }
    }
    Ok(())
}

/// It is in its own way.
pub(super) fn changed_here(table: &str) -> SqlError {
    SqlError::unsupported(format!(
        "table \"{table}\" cannot be changed after other changes in the same transaction"
    ))
    .with_hint("Commit first.")
}

/// Changes a table in a transaction of its own.
pub(super) async fn change(
    job: &Job,
    id: u32,
    apply: &mut Change<'_>,
) -> Result<Arc<TableDescriptor>, SqlError> {
    let engine = &job.engine;
    // Of all attempts: this table, and others, that were told of the change.
    let announced = Arc::new(Mutex::new(Announced::new()));
    let catalog = {
        let apply = futures::lock::Mutex::new(apply);
        let (apply, announced) = (&apply, &announced);
        engine
            .run("schema change", |txn, _| {
                Box::pin(async move {
                    job.limit(txn);
                    job.cancel.unless_canceled(change_in(engine, txn, id, apply, announced)).await
                })
            })
            .await
    };
    match catalog {
        Ok(catalog) => {
            let version = catalog.version();
            let table = catalog
                .table(id)
                .cloned()
                .ok_or_else(|| SqlError::internal("a changed table is missing"))?;
            engine.publish(catalog);
            engine.cluster.broadcast_catalog(version).await;
            Ok(table)
        }
        Err(error) => {
            coverage::reached(Mark::SchemaChangeFailed);
            let ahead = std::mem::take(&mut *announced.lock());
            if !ahead.is_empty() {
                // The ranges may be ahead now: let the tables follow at once.
                let engine = engine.clone();
                let follow = async move {
                    for (table, version) in ahead {
                        let _ = raise_version(&engine, table, version).await;
                    }
                };
                finish(job, &error, follow).await;
            }
            Err(error)
        }
    }
}

/// The change, in its transaction; what ranges may have heard of it stands in `announced`, also when this is given up.
async fn change_in(
    engine: &Engine,
    txn: &mut Txn,
    id: u32,
    apply: &futures::lock::Mutex<&mut Change<'_>>,
    announced: &Arc<Mutex<Announced>>,
) -> Result<Arc<Catalog>, SqlError> {
    let mut draft = match engine.has(PlantedBug::CatalogFromMemory) {
        true => Draft::of(engine.catalog().as_ref().clone(), &engine.numbers),
        false => Draft::begin(txn, &engine.numbers).await?,
    };
    draft.announce_into(announced.clone());
    draft.provide().await?;
    let Some(table) = draft.catalog().table(id).cloned() else {
        return Err(SqlError::new(
            crate::types::SqlState::UNDEFINED_TABLE,
            "the table was dropped",
        ));
    };
    let version = table.version + 1;
    draft.note_announced(id, version);
    fence(engine, &table, version, None).await?;
    // What was written before the fence, after this transaction began, would escape its checks.
    txn.read_newest().await?;
    txn.use_schema(id, version, Timestamp::MIN).await?;
    let mut apply = apply.lock().await;
    let mut changed = (*apply)(txn, &mut draft, table.as_ref().clone()).await?;
    changed.version = version;
    draft.put(Entry::Table(changed));
    draft.write(txn)
}

/// What is left to do after an error: at once, or, of a job that was given up, behind its client's back.
async fn finish(job: &Job, error: &SqlError, rest: impl Future<Output = ()> + Send + 'static) {
    if is_given_up(error) {
        job.engine.db.runtime().spawn.spawn(Box::pin(rest));
    } else {
        rest.await;
    }
}

/// Raises a table's version to what its ranges ask for.
pub(in crate::session) async fn raise_version(
    engine: &Engine,
    id: u32,
    version: u64,
) -> Result<(), SqlError> {
    let work = engine.run("raise schema version", |txn, _| {
        Box::pin(async move {
            let mut draft = Draft::begin(txn, &engine.numbers).await?;
            let Some(table) = draft.catalog().table(id).cloned() else { return Ok(None) };
            if table.version >= version {
                return Ok(None);
            }
            let raised = TableDescriptor { version, ..table.as_ref().clone() };
            draft.put(Entry::Table(raised));
            draft.write(txn).map(Some)
        })
    });
    if let Some(catalog) = work.await? {
        let version = catalog.version();
        engine.publish(catalog);
        engine.cluster.broadcast_catalog(version).await;
    }
    Ok(())
}

/// What was announced has not come to be: the tables follow their ranges, in the background. Ready when they have, or when that takes
/// longer than [`FOLLOW_PATIENCE`]: then somebody else changes the catalog, and whoever is refused waits for him, too.
pub(in crate::session) async fn follow(engine: &Arc<Engine>, announced: Announced) {
    if announced.is_empty() {
        return;
    }
    let followed = follow_in_background(engine, announced);
    let patience = std::pin::pin!(engine.pause(FOLLOW_PATIENCE));
    futures::future::select(followed, patience).await;
}

/// The same, for those who cannot wait. Told when it is done.
pub(in crate::session) fn follow_in_background(
    engine: &Arc<Engine>,
    announced: Announced,
) -> oneshot::Receiver<()> {
    coverage::reached(Mark::SchemaChangeFailed);
    let (done, followed) = oneshot::channel();
    let engine_of_task = engine.clone();
    let task = async move {
        for (table, version) in announced {
            let _ = raise_version(&engine_of_task, table, version).await;
        }
        let _ = done.send(());
    };
    engine.db.runtime().spawn.spawn(Box::pin(task));
    followed
}

/// The tables that a table's keys reference beside itself, but for those that `known` ones do.
pub(super) fn newly_referenced(
    table: &TableDescriptor,
    known: &[ForeignKeyDescriptor],
) -> BTreeSet<u32> {
    let keys = table.foreign_keys.iter().filter(|key| !known.contains(key));
    keys.map(|key| key.table).filter(|id| *id != table.id).collect()
}

/// A table is about to be referenced: from now on its ranges refuse whoever planned without the key, for he would take a row away
/// and look for no rows that reference it (killer Q10). As [`renew`].
pub(super) async fn announce(
    engine: &Engine,
    txn: &mut Txn,
    draft: &mut Draft,
    referenced: u32,
) -> Result<(), SqlError> {
    if engine.has(PlantedBug::ParentNotTold) {
        return Ok(());
    }
    renew(engine, txn, draft, referenced).await?;
    coverage::reached(Mark::ReferencedTableTold);
    Ok(())
}

/// From now on a table's ranges refuse whoever planned without what `draft` says. Its version rises with the commit of `txn`; should that
/// not come, whoever gives `txn` up lets the table follow ([`follow`]), or the next one refused does. Not for tables that `txn` itself has
/// made: nobody else has planned with those. 0A000 if `txn` has used the table.
pub(super) async fn renew(
    engine: &Engine,
    txn: &mut Txn,
    draft: &mut Draft,
    id: u32,
) -> Result<(), SqlError> {
    let Some(table) = draft.catalog().table(id).cloned() else {
        return Err(SqlError::internal("a table that is to be told is missing"));
    };
    let version = table.version + 1;
    draft.note_announced(id, version);
    fence(engine, &table, version, Some(txn.id())).await?;
    // What was written before the fence, after this transaction began, would escape its checks. What this transaction has done with
    // the table it planned without the key: the new fence refuses that, too, and would at every further attempt.
    match txn.read_newest().await {
        Err(TxnError::SchemaChanged { table: refused, version: accepted })
            if (refused, accepted) == (id, version) =>
        {
            return Err(changed_here(&table.name));
        }
        newest => newest?,
    }
    txn.use_schema(id, version, Timestamp::MIN).await?;
    draft.put(Entry::Table(TableDescriptor { version, ..table.as_ref().clone() }));
    Ok(())
}

/// Fills an index that writers already keep up to date, and lets readers use it. 23505 if it is unique and the rows are not: then the
/// index goes again.
pub(super) async fn complete(
    job: &Job,
    table: &Arc<TableDescriptor>,
    index: u32,
) -> Result<(), SqlError> {
    let id = table.id;
    let done = match backfill(job, table, index).await {
        Ok(()) => settle_index(job, id, index, Some(IndexState::Public)).await,
        failed => failed,
    };
    if let Err(error) = &done {
        let stays = job.engine.has(PlantedBug::FailedIndexStays);
        let (whole, state) = (job.whole(), stays.then_some(IndexState::Public));
        let undo = async move {
            let _ = settle_index(&whole, id, index, state).await;
        };
        finish(job, error, undo).await;
    }
    done
}

/// An index that is whole, or goes (`None`).
async fn settle_index(
    job: &Job,
    table: u32,
    index: u32,
    state: Option<IndexState>,
) -> Result<(), SqlError> {
    change(job, table, &mut |_, _, mut table| {
        Box::pin(async move {
            match state {
                None => table.indexes.retain(|one| one.id != index),
                Some(state) => {
                    table
                        .indexes
                        .iter_mut()
                        .filter(|one| one.id == index)
                        .for_each(|one| one.state = state);
                }
            }
            Ok(table)
        })
    })
    .await?;
    Ok(())
}

async fn backfill(job: &Job, table: &Arc<TableDescriptor>, index_id: u32) -> Result<(), SqlError> {
    let engine = &job.engine;
    for place in places(engine, table) {
        let mut rest = Some(index_span(table, place, table.primary()));
        while let Some(span) = rest {
            let early = match engine.has(PlantedBug::EntriesDatedLater) {
                true => Some(read_apart(engine, &span).await?),
                false => None,
            };
            rest = engine
                .run("fill index", |txn, _| {
                    let (span, table, early) = (span.clone(), table.clone(), early.clone());
                    Box::pin(async move {
                        job.limit(txn);
                        let page = async {
                            txn.use_schema(table.id, table.version, table.since).await?;
                            let index = table
                                .index(index_id)
                                .ok_or_else(|| SqlError::internal("the index is missing"))?;
                            coverage::reached(Mark::IndexPageFilled);
                            fill_page(engine, txn, (&table, index), place, (span, early)).await
                        };
                        job.cancel.unless_canceled(page).await
                    })
                })
                .await?;
        }
    }
    Ok(())
}

/// Chaos only: the first rows of a span, in a transaction of their own that ends with it.
async fn read_apart(engine: &Engine, span: &Span) -> Result<ScanPage, SqlError> {
    let options = ScanOptions { limit: BACKFILL_ROWS, ..ScanOptions::default() };
    let page = engine.run("read apart", |txn, _| {
        let span = span.clone();
        Box::pin(async move { Ok(txn.scan(span, options).await?) })
    });
    let page = page.await?;
    engine.pause(FENCE_PAUSE).await;
    Ok(page)
}

async fn fill_page(
    engine: &Engine,
    txn: &mut Txn,
    (table, index): (&TableDescriptor, &IndexDescriptor),
    place: Place,
    (span, early): (Span, Option<ScanPage>),
) -> Result<Option<Span>, SqlError> {
    txn.read_newest().await?;
    let options = ScanOptions { limit: BACKFILL_ROWS, ..ScanOptions::default() };
    let page = match early {
        Some(early) => early,
        None => txn.scan(span, options).await?,
    };
    let mut entries = Vec::new();
    for (_, value) in &page.rows {
        if let Some(row) = decode(table, value)? {
            entries.push((index_entry(table, place, index, &row), row));
        }
    }
    if engine.has(PlantedBug::PageEndMissed) {
        entries.pop();
    }
    let checked = !engine.has(PlantedBug::DuplicatesIndexed);
    let keys: Vec<Key> = entries.iter().map(|((key, _, _), _)| key.clone()).collect();
    let existing = if keys.is_empty() {
        Vec::new()
    } else {
        txn.multi_get(&keys, Some(Lock::Exclusive)).await?
    };
    let mut seen = std::collections::BTreeMap::new();
    for (((key, pointer, unique), row), there) in entries.into_iter().zip(existing) {
        let other = there.or_else(|| seen.get(&key).cloned());
        if unique && checked && other.is_some_and(|other| other != pointer) {
            coverage::reached(Mark::BackfillFoundDuplicate);
            let values = index.columns.iter().map(|column| {
                text::to_string(
                    &row[column.column],
                    table.columns[column.column].ty,
                    &FixedContext::default(),
                )
            });
            let names =
                table.column_names(index.columns.iter().map(|column| column.column)).join(", ");
            return Err(SqlError::new(
                codes::UNIQUE_VIOLATION,
                format!("could not create unique index \"{}\"", index.name),
            )
            .with_detail(format!(
                "Key ({names})=({}) is duplicated.",
                values.collect::<Vec<_>>().join(", ")
            ))
            .on_table(&table.name)
            .on_constraint(&index.name));
        }
        seen.insert(key.clone(), pointer.clone());
        txn.put(key, pointer)?;
    }
    Ok(page.resume)
}

/// Every row of a table, a page at a time; of an available one the rows of a region's copy.
pub(super) async fn each_row(
    txn: &mut Txn,
    table: &TableDescriptor,
    place: Place,
    mut f: impl FnMut(Vec<crate::types::Datum>) -> Result<(), SqlError> + Send,
) -> Result<(), SqlError> {
    let mut rest = Some(index_span(table, place, table.primary()));
    while let Some(span) = rest {
        let page =
            txn.scan(span, ScanOptions { limit: CLEAR_ROWS, ..ScanOptions::default() }).await?;
        for (_, value) in &page.rows {
            if let Some(row) = decode(table, value)? {
                f(row)?;
            }
        }
        rest = page.resume;
    }
    Ok(())
}

/// Deletes what is left of a dropped table. Its id is never used again: what stays after a crash is only space.
pub(in crate::session) fn clear_in_background(engine: &Arc<Engine>, table: Arc<TableDescriptor>) {
    let engine_of_task = engine.clone();
    let task = async move {
        // Whoever still writes under the dropped table's schema is refused from here on.
        let _ = fence(&engine_of_task, &table, table.version + 1, None).await;
        for span in spans(&engine_of_task, &table) {
            let _ = clear(&engine_of_task, span, Some((table.id, table.version + 1))).await;
        }
    };
    engine.db.runtime().spawn.spawn(Box::pin(task));
}

/// Deletes everything in a span, in small transactions.
pub(super) async fn clear(
    engine: &Engine,
    span: Span,
    schema: Option<(u32, u64)>,
) -> Result<(), SqlError> {
    let mut rest = Some(span);
    while let Some(span) = rest {
        rest = engine
            .run("clear", |txn, _| {
                let span = span.clone();
                Box::pin(async move {
                    if let Some((table, version)) = schema {
                        txn.use_schema(table, version, Timestamp::MIN).await?;
                    }
                    let page = txn
                        .scan(span, ScanOptions { limit: CLEAR_ROWS, ..ScanOptions::default() })
                        .await?;
                    for (key, _) in page.rows {
                        txn.delete(key)?;
                    }
                    Ok(page.resume)
                })
            })
            .await?;
    }
    Ok(())
}

/// Moves a table without a primary key under one: every row gets its new key, every entry its new pointer.
pub(super) async fn rewrite(
    txn: &mut Txn,
    before: &TableDescriptor,
    after: &TableDescriptor,
    place: Place,
) -> Result<(), SqlError> {
    let primary = after.primary();
    let mut rest = Some(index_span(before, place, before.primary()));
    while let Some(span) = rest {
        let page =
            txn.scan(span, ScanOptions { limit: BACKFILL_ROWS, ..ScanOptions::default() }).await?;
        let mut moved = Vec::new();
        for (old, value) in page.rows {
            let Some(row) = decode(before, &value)? else { continue };
            for column in &primary.columns {
                if row[column.column].is_null() {
                    return Err(SqlError::new(
                        codes::NOT_NULL_VIOLATION,
                        format!(
                            "column \"{}\" of relation \"{}\" contains null values",
                            after.columns[column.column].name, after.name
                        ),
                    )
                    .on_table(&after.name));
                }
            }
            moved.push((old, crate::rows::primary_key(after, place, &row), row));
        }
        let keys: Vec<Key> = moved.iter().map(|(_, key, _)| key.clone()).collect();
        let existing =
            if keys.is_empty() { Vec::new() } else { txn.multi_get(&keys, None).await? };
        let mut seen = std::collections::BTreeSet::new();
        for ((old, new, row), there) in moved.into_iter().zip(existing) {
            if there.is_some() || !seen.insert(new.clone()) {
                let values = primary.columns.iter().map(|column| {
                    text::to_string(
                        &row[column.column],
                        after.columns[column.column].ty,
                        &FixedContext::default(),
                    )
                });
                let names = after
                    .column_names(primary.columns.iter().map(|column| column.column))
                    .join(", ");
                return Err(SqlError::new(
                    codes::UNIQUE_VIOLATION,
                    format!("could not create unique index \"{}\"", primary.name),
                )
                .with_detail(format!(
                    "Key ({names})=({}) is duplicated.",
                    values.collect::<Vec<_>>().join(", ")
                ))
                .on_table(&after.name)
                .on_constraint(&primary.name));
            }
            txn.put(new, crate::rows::encode(after, &row))?;
            txn.delete(old)?;
            for index in before.indexes.iter().filter(|index| index.kind != IndexKind::Primary) {
                txn.delete(index_entry(before, place, index, &row).0)?;
            }
            for index in &after.indexes[1..] {
                let (key, value, _) = index_entry(after, place, index, &row);
                txn.put(key, value)?;
            }
        }
        txn.spill_if_large().await?;
        rest = page.resume;
    }
    Ok(())
}
