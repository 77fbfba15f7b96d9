//! Driver over a value: the whole keyspace in one process, as plainly as possible. Honest MVCC, locks, records, timestamp cache
//! and waiting; no replication, no failures, no fairness (waiters have no queue), every batch in one step.
//!
//! It is the dumb twin of the range servers: tests of the coordinator and of SQL run on it, and what they rely on is what the
//! API's comments promise. Several ranges can be pretended ([`LocalKv::split_at`]), so that both ways to commit are used.

use clock::{Monotonic, Timestamp};
use futures::future::{BoxFuture, Either, select};
use parking_lot::Mutex;
use replication::raft::Term;
use replication::range::RangeId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Poll, Waker};
use storage::{Key, Span};

use crate::api::{Batch, Footing, Kv, KvError, LockEra, Reply, Request, TxnId, Wait};
use crate::contention::{Contention, Stretch};
use crate::runtime::Runtime;
use crate::testing::keyspace::Keyspace;

/// An in-process keyspace. Clones are the same one.
#[derive(Clone)]
pub struct LocalKv {
    runtime: Runtime,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    keyspace: Keyspace,
    /// First keys of the pretended ranges but the first.
    splits: BTreeSet<Key>,
    /// Raised by everything that may let a waiter go on.
    changes: u64,
    waiters: Vec<Waker>,
    contention: Contention,
    lease: u64,
}

impl LocalKv {
    /// An empty keyspace of one range.
    pub fn new(runtime: Runtime) -> LocalKv {
        let shared = Shared {
            keyspace: Keyspace::default(),
            splits: BTreeSet::new(),
            changes: 0,
            waiters: Vec::new(),
            contention: Contention::default(),
            lease: 1,
        };
        LocalKv { runtime, shared: Arc::new(Mutex::new(shared)) }
    }

    /// From now on a range begins at `key`.
    pub fn split_at(&self, key: Key) {
        self.shared.lock().splits.insert(key);
    }

    /// The lease moves: every lock is lost.
    pub fn move_lease(&self) {
        let mut shared = self.shared.lock();
        shared.keyspace.lose_locks();
        shared.lease += 1;
        shared.changes += 1;
        shared.waiters.drain(..).for_each(Waker::wake);
    }

    /// Locks and intents that are there now: zero when every transaction has ended and cleaned up.
    pub fn lock_count(&self) -> usize {
        self.shared.lock().keyspace.lock_count()
    }

    /// Transaction records that are there now.
    pub fn record_count(&self) -> usize {
        self.shared.lock().keyspace.record_count()
    }

    /// Versions of rows that are there now, deletions among them.
    pub fn version_count(&self) -> usize {
        self.shared.lock().keyspace.version_count()
    }

    /// The pretended ranges, in key order.
    pub fn ranges(&self) -> Vec<Span> {
        let splits = self.shared.lock().splits.clone();
        let starts = std::iter::once(Key::MIN).chain(splits.iter().cloned());
        let ends = splits.iter().cloned().chain(std::iter::once(Key::MAX));
        starts.zip(ends).map(|(start, end)| Span::new(start, end)).collect()
    }

    /// The newest committed rows, in key order.
    pub fn rows(&self) -> Vec<(Key, bytes::Bytes)> {
        self.shared.lock().keyspace.rows()
    }

    /// What was waited for.
    pub fn contention(&self) -> Contention {
        self.shared.lock().contention.clone()
    }

    fn note_wait(&self, batch: &Batch, key: &Key, holder: TxnId, since: Monotonic) {
        let until = self.runtime.time.monotonic();
        let waiter = batch.txn.as_ref().map(|txn| txn.id);
        let at = self.runtime.hlc.now().timestamp();
        let stretch = Stretch { waiter, holder, since, until };
        self.shared.lock().contention.note_wait(key, stretch, at);
    }

    fn evaluate(&self, batch: &Batch) -> (Result<Reply, KvError>, u64) {
        let clock = self.runtime.hlc.now();
        let mut shared = self.shared.lock();
        if let Err(error) = check_whole(&shared.splits, batch) {
            return (Err(error), shared.changes);
        }
        if let [Request::Split { at, .. }] = batch.requests.as_slice() {
            shared.splits.insert(at.clone());
        }
        let mut batch = batch.clone();
        let mut outcome = shared.keyspace.evaluate(&batch, clock);
        while let (Err(error), Footing::Free) = (&outcome, batch.footing) {
            // As the range server does (`server::ranges`).
            batch.read_at = match error {
                KvError::Uncertain { ts, .. } => {
                    ts.forward(clock.timestamp().min(batch.uncertainty_limit))
                }
                KvError::NewerVersion { ts, .. } => ts.forward(clock.timestamp()),
                _ => break,
            };
            batch.uncertainty_limit = batch.uncertainty_limit.forward(batch.read_at);
            outcome = shared.keyspace.evaluate(&batch, clock);
        }
        // Not a refused one: two that wait would wake each other for ever.
        let frees = outcome.is_ok()
            && batch.requests.iter().any(|request| {
                matches!(
                    request,
                    Request::CommitOnePhase { .. }
                        | Request::Resolve { .. }
                        | Request::Unlock { .. }
                        | Request::EndTxn { .. }
                        | Request::Push { .. }
                )
            });
        if frees {
            shared.changes += 1;
            shared.waiters.drain(..).for_each(Waker::wake);
        }
        let reply = outcome.map(|(responses, skipped)| Reply {
            responses,
            clock: self.runtime.hlc.now(),
            read_at: batch.read_at,
            range: None,
            eras: Vec::from_iter(batch.asks_era.then_some(LockEra {
                range: RangeId(1),
                span: Span::all(),
                lease: Term::new(shared.lease),
                losses: 0,
            })),
            // There is one clock.
            read_high: Timestamp::MIN,
            skipped,
        });
        (reply, shared.changes)
    }

    /// Ready when something has changed since `seen`.
    async fn changed(&self, seen: u64) {
        std::future::poll_fn(|context| {
            let mut shared = self.shared.lock();
            if shared.changes != seen {
                return Poll::Ready(());
            }
            shared.waiters.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    async fn serve(&self, batch: Batch) -> Result<Reply, KvError> {
        // Every message takes time in which others may run.
        self.runtime.time.sleep_until(self.runtime.time.monotonic().plus(MESSAGE)).await;
        let begun = self.runtime.time.monotonic();
        loop {
            let (outcome, seen) = self.evaluate(&batch);
            let (Err(KvError::Blocked { key, holder, .. }), Wait::Queue(slice)) =
                (&outcome, batch.wait)
            else {
                return outcome;
            };
            let end = begun.plus(slice);
            if self.runtime.time.monotonic() >= end {
                return outcome;
            }
            let since = self.runtime.time.monotonic();
            let changed = Box::pin(self.changed(seen));
            match select(changed, self.runtime.time.sleep_until(end)).await {
                Either::Left(_) | Either::Right(_) => {}
            }
            self.note_wait(&batch, key, holder.id, since);
        }
    }
}

/// How long a request takes in virtual time.
const MESSAGE: std::time::Duration = std::time::Duration::from_micros(50);

fn range_of(splits: &BTreeSet<Key>, key: &Key) -> Option<Key> {
    splits.range(..=key.clone()).next_back().cloned()
}

fn check_whole(splits: &BTreeSet<Key>, batch: &Batch) -> Result<(), KvError> {
    for request in &batch.requests {
        let Request::CommitOnePhase { mutations, .. } = request else { continue };
        let mut ranges: Vec<Option<Key>> =
            mutations.iter().map(|mutation| range_of(splits, &mutation.key)).collect();
        ranges.dedup();
        if ranges.len() > 1 {
            return Err(KvError::Invalid("a one-phase commit must be in one range".into()));
        }
    }
    Ok(())
}

impl Kv for LocalKv {
    fn send(&self, batch: Batch) -> BoxFuture<'_, Result<Reply, KvError>> {
        Box::pin(self.serve(batch))
    }

    fn range_span(&self, key: &Key) -> BoxFuture<'_, Result<Span, KvError>> {
        let shared = self.shared.lock();
        let start = range_of(&shared.splits, key).unwrap_or(Key::MIN);
        let end = shared.splits.range(key.next()..).next().cloned().unwrap_or(Key::MAX);
        Box::pin(std::future::ready(Ok(Span::new(start, end))))
    }
}
