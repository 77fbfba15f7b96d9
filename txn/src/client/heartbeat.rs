//! Driver: signs of life. A transaction that holds locks or intents tells its record about once an interval that its gateway is still
//! there; who meets a lock of a silent one takes it for dead. The answer is how a transaction learns that it was aborted.
//!
//! One task per gateway looks after all transactions, and runs only while there are any: most transactions are over before their
//! first beat, and cost a map entry.

use clock::{Monotonic, Timestamp};
use coverage::Mark;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::api::{Batch, Kv, KvError, Request, Response, TxnId, TxnMeta, TxnStatus, Wait};
use crate::runtime::Runtime;

/// No beat has been sent.
const QUIET: u8 = 0;
/// The record may exist.
const BEATEN: u8 = 1;
/// The record says that the transaction was aborted.
const STOPPED: u8 = 2;

/// All transactions of a gateway that must show signs of life.
pub(super) struct Heartbeats {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Runtime,
    kv: Arc<dyn Kv>,
    interval: Duration,
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    transactions: BTreeMap<TxnId, Entry>,
    running: bool,
}

struct Entry {
    meta: TxnMeta,
    due: Monotonic,
    /// A beat has not been answered yet.
    is_out: bool,
    state: Arc<AtomicU8>,
}

/// One transaction's sign of life; ends when dropped.
pub(super) struct Pulse {
    shared: Arc<Shared>,
    id: TxnId,
    state: Arc<AtomicU8>,
}

impl Pulse {
    /// Whether the transaction was found aborted.
    pub(super) fn is_stopped(&self) -> bool {
        self.state.load(Ordering::Acquire) == STOPPED
    }

    /// Whether a beat has been sent, so that a record may exist.
    pub(super) fn has_beaten(&self) -> bool {
        self.state.load(Ordering::Acquire) != QUIET
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.shared.live.lock().transactions.remove(&self.id);
    }
}

impl Heartbeats {
    pub(super) fn new(runtime: Runtime, kv: Arc<dyn Kv>, interval: Duration) -> Heartbeats {
        let live = Mutex::new(Live::default());
        Heartbeats { shared: Arc::new(Shared { runtime, kv, interval, live }) }
    }

    /// The first beat comes an interval from now; at once for one that writes at a timestamp `at` that is older than that: others would
    /// take the age of what it lays down for its silence.
    pub(super) fn register(&self, meta: TxnMeta, at: Timestamp) -> Pulse {
        let shared = &self.shared;
        let id = meta.id;
        let state = Arc::new(AtomicU8::new(QUIET));
        let is_old = at.plus(shared.interval) < shared.runtime.hlc.now().timestamp();
        let wait = if is_old { Duration::ZERO } else { shared.interval };
        let due = shared.runtime.time.monotonic().plus(wait);
        let mut live = shared.live.lock();
        live.transactions.insert(id, Entry { meta, due, is_out: false, state: state.clone() });
        if !live.running {
            live.running = true;
            shared.runtime.spawn.spawn(Box::pin(shared.clone().run()));
        }
        Pulse { shared: shared.clone(), id, state }
    }
}

impl Shared {
    /// Sleeps to the next beat that is due, until there is none.
    async fn run(self: Arc<Shared>) {
        while let Some(next) = self.next_due() {
            self.runtime.time.sleep_until(next).await;
            // Each by itself: where a range does not answer, the beats to others go on.
            for (meta, state) in self.take_due() {
                self.runtime.spawn.spawn(Box::pin(self.clone().beat(meta, state)));
            }
        }
    }

    fn next_due(&self) -> Option<Monotonic> {
        let mut live = self.live.lock();
        let next = live.transactions.values().map(|entry| entry.due).min();
        if next.is_none() {
            live.running = false;
        }
        next
    }

    fn take_due(&self) -> Vec<(TxnMeta, Arc<AtomicU8>)> {
        let now = self.runtime.time.monotonic();
        let mut live = self.live.lock();
        let mut due = Vec::new();
        for entry in live.transactions.values_mut().filter(|entry| entry.due <= now) {
            entry.due = now.plus(self.interval);
            if std::mem::replace(&mut entry.is_out, true) {
                continue;
            }
            // Said before it is sent: from now on a record may exist.
            entry.state.fetch_max(BEATEN, Ordering::AcqRel);
            due.push((entry.meta.clone(), entry.state.clone()));
        }
        due
    }

    async fn beat(self: Arc<Shared>, meta: TxnMeta, state: Arc<AtomicU8>) {
        let id = meta.id;
        let now = self.runtime.hlc.now().timestamp();
        let batch =
            Batch { txn: Some(meta), ..Batch::bare(now, Wait::Error, vec![Request::Heartbeat]) };
        let stopped = match self.kv.send(batch).await {
            Ok(reply) => {
                // A refused clock is reported where it matters: on the transaction's own way.
                let _ = self.runtime.hlc.observe(reply.clock);
                matches!(reply.responses.first(), Some(Response::Alive(TxnStatus::Aborted)))
            }
            Err(KvError::TxnAborted { .. }) => true,
            // Not heard: the next beat may be. Four of them can be lost before others take the transaction for dead.
            Err(error) => {
                tracing::debug!(txn = %id, %error, "heartbeat was lost");
                coverage::reached(Mark::HeartbeatLost);
                false
            }
        };
        let mut live = self.live.lock();
        if stopped {
            coverage::reached(Mark::HeartbeatFoundAbort);
            state.store(STOPPED, Ordering::Release);
            live.transactions.remove(&id);
        } else if let Some(entry) = live.transactions.get_mut(&id) {
            entry.is_out = false;
        }
    }
}
