//! Driver: collects history that nobody may ask for any more, in the ranges that this node leads.
//!
//! ```text
//!   threshold of a range = the least of   now - the longest gc_ttl of its tables
//!                                         what an open transaction somewhere still reads            (system/gc/protected)
//!                                         what a stream between copies has not delivered yet        (the copies' frontiers)
//!   Gc(range, threshold) ─► the range refuses reads at or below from then on, in the command that removes the first versions
//! ```
//!
//! INVARIANT: a read is complete or refused. That is the range's to keep (`txn::server`): its threshold is part of its replicated
//! state, raised no later than anything is removed. Everything here is about who is refused, not about what is read.
//!
//! Open transactions. A gateway says what the oldest of its transactions reads once that is half as old as history is kept, and says
//! so again every round; what it has said counts for [`PROTECTION_KEPT`]. So a gateway that dies protects nothing for long, and one that
//! is cut off is refused (72000) where it would have read too late. A transaction left open protects its snapshot for
//! [`PROTECTED_MAX`] beyond the usual time at most: then it is refused too.
//!
//! Streams. What a copy has not had from another must stay for as long as that takes: without it the copies could never be equal
//! again. While a frontier cannot be read, the range behind it is left alone.

use crate::catalog::{self, Catalog, TableDescriptor, TableMode};
use crate::copies::stream;
use crate::engine::Engine;
use crate::error::SqlError;
use bytes::Bytes;
use clock::Timestamp;
use coverage::Mark;
use replication::range::RegionId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use storage::{Key, Span};
use txn::api::{Batch, Request, Response, Wait};
use txn::client::ScanOptions;

/// A gateway's word counts for so long, by its own clock when it spoke.
pub const PROTECTION_KEPT: Duration = Duration::from_secs(300);
/// A transaction that is left open keeps history for so long beyond the table's `gc_ttl`.
pub const PROTECTED_MAX: Duration = Duration::from_secs(24 * 3600);
/// A range's threshold is raised when it can move by this part of the table's `gc_ttl`: each time the range is read once.
const STEPS_PER_TTL: u32 = 10;
/// Commands for one range in one round, of some thousand versions each.
const PIECES_MAX: u32 = 1_000;

/// What a round has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Collected {
    /// Ranges whose threshold was raised, and whose old versions are gone.
    pub ranges: u32,
    /// Ranges that could not be reached, or not be finished: the next round tries again.
    pub failed: u32,
}

/// One per node. See the module.
pub struct Collector {
    engine: Arc<Engine>,
    /// How far each range was collected from here.
    raised: BTreeMap<u64, Timestamp>,
    /// Whether this gateway has said that something is protected.
    protects: bool,
}

impl Collector {
    /// Knows nothing of what was collected before: its first round looks at every range.
    pub fn new(engine: Arc<Engine>) -> Collector {
        Collector { engine, raised: BTreeMap::new(), protects: false }
    }

    /// One round: says what this gateway's transactions still read, then collects what nobody does. To be called every half
    /// minute or so; two nodes that take themselves for the leaseholder of one range do no harm.
    ///
    /// # Errors
    /// What is protected, or the catalog, cannot be read or written: nothing was collected.
    pub async fn round(&mut self) -> Result<Collected, SqlError> {
        let now = self.engine.db.runtime().hlc.now().timestamp();
        self.learn_catalog().await?;
        self.protect(now).await?;
        let protected = protected(&self.engine, now).await?;
        let catalog = self.engine.catalog();
        let places = Places::of(&catalog, &self.engine.cluster.regions());
        let mut done = Collected::default();
        let own = self.engine.cluster.node();
        for range in self.engine.cluster.ranges().await {
            if range.leaseholder != Some(own) {
                self.raised.remove(&range.range);
                continue;
            }
            let ttl = places.longest_ttl(&range.span, self.engine.settings.gc_ttl);
            let last = self.raised.get(&range.range).copied().unwrap_or(Timestamp::MIN);
            // Looked at first: it costs nothing, the streams' frontiers do.
            if now.minus(ttl).since(last) < ttl / STEPS_PER_TTL {
                continue;
            }
            let of_open = protected.map_or(Timestamp::MAX, |at| {
                at.prev().forward(now.minus(ttl).minus(PROTECTED_MAX))
            });
            let threshold = match undelivered(&self.engine, &places, &range.span).await {
                Ok(streams) => now.minus(ttl).min(of_open).min(streams),
                Err(error) => {
                    tracing::info!(
                        range = range.range,
                        error = error.message,
                        "history is kept for a stream"
                    );
                    done.failed += 1;
                    continue;
                }
            };
            if threshold <= last {
                coverage::reached(Mark::HistoryProtected);
                continue;
            }
            if collect(&self.engine, &range.span, threshold).await {
                coverage::reached(Mark::HistoryCollected);
                self.raised.insert(range.range, threshold);
                done.ranges += 1;
            } else {
                done.failed += 1;
            }
        }
        Ok(done)
    }

    /// An old catalog may not know of a longer `gc_ttl`, or of a stream whose history has to stay. What is created later has written
    /// nothing yet at the moment from which thresholds are counted.
    async fn learn_catalog(&self) -> Result<(), SqlError> {
        let engine = &self.engine;
        let stored = engine
            .run("read the catalog's version", |txn, _| Box::pin(catalog::stored_version(txn)))
            .await?;
        if stored > engine.catalog().version() {
            engine.refresh_catalog().await?;
        }
        Ok(())
    }

    /// Says, or takes back, what this gateway's oldest transaction reads.
    async fn protect(&mut self, now: Timestamp) -> Result<(), SqlError> {
        let engine = self.engine.clone();
        let tables = engine.catalog();
        let ttls = tables.tables().map(|table| ttl(table, engine.settings.gc_ttl));
        let shortest = ttls.min().unwrap_or(engine.settings.gc_ttl).min(engine.settings.gc_ttl);
        let oldest = engine.db.oldest_open().filter(|at| now.since(*at) >= shortest / 2);
        let key = protected_key(engine.cluster.node().0);
        let Some(oldest) = oldest else {
            if std::mem::take(&mut self.protects) {
                engine
                    .run("unprotect history", move |txn, _| {
                        let key = key.clone();
                        Box::pin(async move { Ok(txn.delete(key)?) })
                    })
                    .await?;
            }
            return Ok(());
        };
        let value = encode(oldest, now.plus(PROTECTION_KEPT));
        engine
            .run("protect history", move |txn, _| {
                let (key, value) = (key.clone(), value.clone());
                Box::pin(async move { Ok(txn.put(key, value)?) })
            })
            .await?;
        self.protects = true;
        Ok(())
    }
}

fn prefix() -> Key {
    Key::system("gc", b"protected")
}

fn protected_key(node: u32) -> Key {
    let mut rest = b"protected".to_vec();
    rest.extend_from_slice(&node.to_be_bytes());
    Key::system("gc", &rest)
}

fn encode(at: Timestamp, until: Timestamp) -> Bytes {
    let mut value = at.raw().to_be_bytes().to_vec();
    value.extend_from_slice(&until.raw().to_be_bytes());
    value.into()
}

fn decode(value: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let (at, until) = value.split_first_chunk::<8>()?;
    let until: [u8; 8] = until.try_into().ok()?;
    let read = |raw: [u8; 8]| Timestamp::from_raw(u64::from_be_bytes(raw));
    Some((read(*at), read(until)))
}

/// The oldest snapshot that some gateway's word protects at `now`.
async fn protected(engine: &Engine, now: Timestamp) -> Result<Option<Timestamp>, SqlError> {
    let page = engine
        .run("read protected history", |txn, _| {
            Box::pin(
                async move { Ok(txn.scan(Span::prefix(&prefix()), ScanOptions::default()).await?) },
            )
        })
        .await?;
    let mut oldest: Option<Timestamp> = None;
    for (key, value) in page.rows {
        let Some((at, until)) = decode(&value) else {
            return Err(SqlError::new(
                crate::types::SqlState::DATA_CORRUPTED,
                format!("{key} cannot be read"),
            ));
        };
        if until >= now {
            oldest = Some(oldest.map_or(at, |oldest| oldest.min(at)));
        }
    }
    Ok(oldest)
}

/// How long a table's history is kept.
fn ttl(table: &TableDescriptor, default: Duration) -> Duration {
    table.gc_ttl_ms.map_or(default, Duration::from_millis)
}

/// Whose keys are where: tables by the start of their keys; an available one once per copy, with its region.
struct Places<'c> {
    by_start: BTreeMap<Key, (Key, &'c TableDescriptor, Option<RegionId>)>,
}

impl<'c> Places<'c> {
    fn of(catalog: &'c Catalog, regions: &[(RegionId, String)]) -> Places<'c> {
        let mut by_start = BTreeMap::new();
        for table in catalog.tables() {
            match table.mode {
                TableMode::Strong => {
                    let span = Span::prefix(&Key::table(table.id));
                    by_start.insert(span.start, (span.end, &**table, None));
                }
                TableMode::Available => {
                    for (region, _) in regions {
                        let span = Span::prefix(&Key::copy(region.0, table.id));
                        by_start.insert(span.start, (span.end, &**table, Some(*region)));
                    }
                }
            }
        }
        Places { by_start }
    }

    /// How long the history of a span is kept. That of the catalog as long as any: the past is read with the catalog of its moment.
    fn longest_ttl(&self, span: &Span, default: Duration) -> Duration {
        if Span::prefix(&Key::system("catalog", b"")).overlaps(span) {
            let all = self.by_start.values().map(|(_, table, _)| ttl(table, default));
            return all.max().unwrap_or(default).max(default);
        }
        self.within(span).map(|(table, _)| ttl(table, default)).max().unwrap_or(default)
    }

    /// Tables, or copies of them, that have keys in a span.
    fn within<'p>(
        &'p self,
        span: &'p Span,
    ) -> impl Iterator<Item = (&'c TableDescriptor, Option<RegionId>)> + 'p {
        let before = self.by_start.range(..span.end.clone()).rev();
        before
            .take_while(|(_, (end, _, _))| *end > span.start)
            .map(|(_, (_, table, region))| (*table, *region))
    }
}

/// What streams out of the copies in a range have not delivered everywhere yet begins above this.
async fn undelivered(
    engine: &Engine,
    places: &Places<'_>,
    span: &Span,
) -> Result<Timestamp, SqlError> {
    let mut least = Timestamp::MAX;
    for (table, region) in places.within(span) {
        if let Some(origin) = region {
            least = least.min(stream::delivered(engine, table, origin).await?.prev());
        }
    }
    Ok(least)
}

/// Raises a range's threshold and removes what lies below. `false`: it is not finished.
async fn collect(engine: &Engine, span: &Span, threshold: Timestamp) -> bool {
    for _ in 0..PIECES_MAX {
        let now = engine.db.runtime().hlc.now().timestamp();
        let batch =
            Batch::bare(now, Wait::Error, vec![Request::Gc { span: span.clone(), threshold }]);
        let answer = engine.db.kv().send(batch).await.map(|reply| reply.responses);
        match answer.as_deref() {
            Ok([Response::Gc { more: true }]) => {}
            Ok([Response::Gc { more: false }]) => return true,
            Ok(_) => {
                tracing::error!(%span, "a range answered something else than a collection");
                return false;
            }
            Err(error) => {
                tracing::debug!(%span, %error, "history was not collected");
                return false;
            }
        }
    }
    false
}
