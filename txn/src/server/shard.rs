//! Machine: one shard of a node: its replicas ([`Store`]) and the requests on them ([`Ranges`]).
//! What the node's shard thread and the simulator drive.
//!
//! ```text
//!   Event ──► step ──┬─► Store ──► events ──► Ranges       the owner, after each batch of steps:
//!                    └─► Ranges ──► commands ──► Store       ready() ──► flush? append, send, sync, send, reply
//! ```
//!
//! The owner drains [`Shard::ready`] until [`Shard::has_ready`] is false. Answers in a `Ready` may
//! leave at once: what they tell is committed, or was read under a lease that holds.

use clock::{Monotonic, Now, Timestamp};
use replication::raft::{Lease, LogIndex, ProposeError, Term};
use replication::range::{Command, NodeId, RangeDescriptor, RangeId, RangeState};
use replication::store::{
    Fencing, FlushMark, NodeInfo, Persisted, Placement, RangeStatus, Store, StoreMessage,
    Unavailable,
};
use storage::log::{LogBatch, LogSequence};
use storage::{Key, Reader, Span, StorageError};

use super::{LockInfo, Ranges, Replicas, RequestId, ServerConfig};
use crate::api::{Batch, KvError, Reply};
use crate::contention::Contention;

/// What happens to a shard.
#[derive(Debug)]
pub enum Event {
    /// A gateway (or another node) asks. Exactly one answer follows, unless cancelled.
    Request {
        /// Names the answer. Not used again while the request is here.
        id: RequestId,
        /// What.
        batch: Batch,
    },
    /// Nobody waits for the answer any more.
    Cancel {
        /// Which.
        id: RequestId,
    },
    /// From another store. The sender's clock has been observed before.
    Message {
        /// Sender.
        from: NodeId,
        /// What.
        message: StoreMessage,
    },
    /// Time has passed, see [`Ready::wake_at`].
    Tick,
    /// The last [`Ready::write`] is in the log, at this place.
    Appended(LogSequence),
    /// A sync has returned.
    Persisted(Persisted),
    /// An engine flush that began after the mark was taken has returned.
    Flushed(FlushMark),
    /// The nodes of the cluster, when they change.
    Nodes(Vec<NodeInfo>),
    /// The durable upper bound of this node's clock, when it changes.
    ClockBound(Timestamp),
    /// Whether this node's clock may be trusted for leases, when it changes.
    Fencing(Fencing),
}

/// What is to be done, in the order of the fields.
#[derive(Debug)]
pub struct Ready {
    /// `Engine::flush` must have returned before `write` is appended.
    pub flush_before_write: bool,
    /// For the log. When not empty, its place is reported with [`Event::Appended`] at once.
    pub write: LogBatch,
    /// May be sent at once.
    pub messages_now: Vec<(NodeId, StoreMessage)>,
    /// Only after a sync of `write` (if that is empty: of the last batch appended before).
    pub messages_after: Vec<(NodeId, StoreMessage)>,
    /// Answers.
    pub replies: Vec<(RequestId, Result<Reply, KvError>)>,
    /// Send [`Event::Tick`] at or after this.
    pub wake_at: Monotonic,
}

/// See the module.
pub struct Shard {
    store: Store,
    ranges: Ranges,
}

impl Shard {
    /// Over an opened store.
    pub fn new(config: ServerConfig, store: Store) -> Shard {
        Shard { store, ranges: Ranges::new(config) }
    }

    /// Takes an event in. Blocks only as long as reads of the state engine do.
    pub fn step(&mut self, now: Now, event: Event) {
        match event {
            Event::Request { id, batch } => self.ranges.request(now, &mut self.store, id, batch),
            Event::Cancel { id } => self.ranges.cancel(now, &mut self.store, id),
            Event::Message { from, message } => self.store.message(now, from, message),
            Event::Tick => {
                self.store.tick(now);
                self.ranges.tick(now, &mut self.store);
            }
            Event::Appended(sequence) => self.store.appended(sequence),
            Event::Persisted(proof) => self.store.persisted(now, proof),
            Event::Flushed(mark) => self.store.flushed(now, mark),
            Event::Nodes(nodes) => self.store.set_nodes(now, nodes),
            Event::ClockBound(bound) => self.store.set_clock_bound(bound),
            Event::Fencing(fencing) => self.store.set_fenced(now, fencing),
        }
    }

    /// What is to be done now.
    pub fn ready(&mut self, now: Now) -> Ready {
        let ready = self.store.ready(now);
        for event in ready.events {
            self.ranges.event(now, &mut self.store, event);
        }
        for (range, to) in ready.transfers_wanted {
            self.hand_away(now, range, to);
        }
        let replies = self.ranges.answers(now, &self.store);
        Ready {
            flush_before_write: ready.flush_before_write,
            write: ready.write,
            messages_now: ready.messages_now,
            messages_after: ready.messages_after,
            replies,
            wake_at: ready.wake_at.min(self.ranges.wake_at()),
        }
    }

    /// Whether [`Shard::ready`] has something to do before the next event.
    pub fn has_ready(&self) -> bool {
        self.store.has_ready() || self.ranges.has_answers()
    }

    /// Take it, flush the engine, then report [`Event::Flushed`].
    pub fn flush_mark(&self) -> FlushMark {
        self.store.flush_mark()
    }

    /// What this node knows of the ranges around `key`: its replica's descriptor and its neighbours
    /// here.
    pub fn lookup(&self, key: &Key) -> Vec<RangeDescriptor> {
        self.store.range_for(key).cloned().into_iter().collect()
    }

    /// Every replica here.
    pub fn status(&self, now: Now) -> Vec<RangeStatus> {
        self.store.status(now)
    }

    /// Whether the replicas of the ranges we lead are where they should be.
    pub fn placement(&self, now: Now) -> Placement {
        self.store.placement(now)
    }

    /// The first error of engine or log: the node must stop.
    pub fn fatal(&self) -> Option<StorageError> {
        self.store.fatal().or(self.ranges.fatal()).cloned()
    }

    /// Unreplicated locks held in ranges that are led here.
    pub fn locks(&self) -> Vec<LockInfo> {
        self.ranges.locks()
    }

    /// What was waited for in ranges that were led here.
    pub fn contention(&self) -> &Contention {
        self.ranges.contention()
    }

    /// The replicas.
    pub fn store(&self) -> &Store {
        &self.store
    }

    fn hand_away(&mut self, now: Now, range: RangeId, to: NodeId) {
        let Some(read_high) = self.ranges.read_high(range) else { return };
        if let Err(error) = self.store.transfer(now, range, to, read_high) {
            tracing::debug!(%range, %to, %error, "lease not handed away");
        }
    }
}

impl Replicas for Store {
    fn reader(&self) -> &dyn Reader {
        &**self.engine()
    }

    fn lease(&self, now: Now, range: RangeId) -> Option<Lease> {
        Store::lease(self, now, range)
    }

    fn state(&self, range: RangeId) -> Option<&RangeState> {
        Store::state(self, range)
    }

    fn range_for(&self, key: &Key) -> Option<&RangeDescriptor> {
        Store::range_for(self, key)
    }

    fn overlapping(&self, span: &Span) -> Vec<RangeDescriptor> {
        self.ranges().filter(|descriptor| descriptor.span.overlaps(span)).cloned().collect()
    }

    fn leader_node(&self, range: RangeId) -> Option<NodeId> {
        Store::leader_node(self, range)
    }

    fn unavailable(&self, now: Now, range: RangeId) -> Option<Unavailable> {
        Store::unavailable(self, now, range)
    }

    fn propose(
        &mut self,
        now: Now,
        range: RangeId,
        command: Command,
    ) -> Result<(Term, LogIndex), ProposeError> {
        Store::propose(self, now, range, command)
    }

    fn transfer(
        &mut self,
        now: Now,
        range: RangeId,
        to: NodeId,
        read_high: Timestamp,
    ) -> Result<(), ProposeError> {
        Store::transfer(self, now, range, to, read_high)
    }
}
