//! Machine: all ranges of one shard of a node. Drives the groups, applies commands to the state engine, keeps store-to-store promises,
//! sends and installs snapshots, splits, changes membership.
//!
//! ```text
//!              messages, ticks, proofs                    propose(range, command)
//!                        │                                        │   (from txn's range server, same thread)
//!                        ▼                                        ▼
//!   ┌──────────────────────────── Store ─────────────────────────────────┐
//!   │ promises (per pair of stores)      replica r1   replica r2   ...   │──► engine.write(effects + RangeState)   inline, volatile
//!   └────────────────────────────────────┬───────────────────────────────┘
//!                                        ▼
//!        Ready { write: one LogBatch for all ranges, messages_now, after_write, applied, .. }
//! ```
//!
//! The owner appends `Ready.write` to the log at once (entries are readable before they are durable), and calls
//! [`Store::persisted`] with proof when a sync has covered it.
//!
//! # Rooms
//!
//! | room | what |
//! |---|---|
//! | `core` | [`Store`]: what its owner calls |
//! | `open` | start, bootstrap, and every way disks can be found after a crash |
//! | `inbox` | messages of other stores |
//! | `promises` | who promised whom what, who was heard of |
//! | `replica`, `tail` | one group with its log's end |
//! | `drive`, `apply` | a group's `Ready`; committed entries become state |
//! | `lifecycle`, `split` | replicas come and go; one range becomes two |
//! | `snapshot_out`, `snapshot_in` | state for followers whose entries are gone |
//! | `health`, `relocate`, [`placement`] | the sweep: unavailable ranges, moving replicas and leadership |
//! | `truncate`, [`status`], [`wire`] | what the log need not keep; what people see; bytes |
//!
//! # Invariants
//!
//! - What must follow the sync (votes, append replies, own counting) is released only by a [`Persisted`] proof.
//! - Applied index and effects are one engine batch. The log is truncated only at or below an applied index that a finished
//!   [`storage::Engine::flush`] covered.
//! - A range's log never exists durably without its state: births and snapshots are flushed before their log is written
//!   ([`StoreReady::flush_before_write`]).
//! - A store asks for support only while its own log makes progress (killer S05) and while it hears the other's answers.
//! - Ranges of a store never overlap; a snapshot is refused if it would make them.
//! - Reads are covered: a new leader's floor is at or above every read served on its keys before, whoever served it, across
//!   restarts (the persisted clock bound), membership changes (the outgoing voters are kept until a quorum of the new ones has
//!   recorded enough) and splits (the right side inherits the left side's floor; the left serves nothing while it splits).
//!
//! # Honest limits
//!
//! One store per engine: it loads every range it finds. Ranges do not merge yet. An arriving snapshot is kept in memory until it is
//! whole. Moving a replica looks at regions, zones and liveness, not at load.

use bytes::Bytes;
use clock::{ClockTimestamp, Monotonic, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;
use storage::log::{LogBatch, LogSequence};

use crate::raft::{Incarnation, LogIndex, Message, RaftConfig, ReplicaId, Term};
use crate::range::{NodeId, RangeDescriptor, RangeId, RegionId};

mod apply;
mod core;
mod drive;
mod health;
mod inbox;
mod lifecycle;
mod open;
pub mod placement;
mod promises;
mod relocate;
mod replica;
mod snapshot_in;
mod snapshot_out;
mod split;
pub mod status;
mod tail;
mod truncate;
pub mod wire;

pub use core::Store;
pub use relocate::Placement;
pub use status::{GroupView, HeldPromise, RangeStatus};

/// Who we are. The incarnation is raised durably at every start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreIdentity {
    /// The cluster.
    pub cluster: u128,
    /// The node.
    pub node: NodeId,
    /// This start of it.
    pub incarnation: Incarnation,
}

/// Parameters, all shrinkable by the simulator.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Per group.
    pub raft: RaftConfig,
    /// How long a promise lasts (leader lease). At least four round trips. Default 2 s.
    pub promise_duration: Duration,
    /// How often promises are renewed. Default 500 ms.
    pub promise_interval: Duration,
    /// Promises are believed shorter by this fraction (1/n): drift of monotonic clocks. Default 100 (1 %).
    pub drift_divisor: u32,
    /// The read bound asked for: HLC now plus promise duration plus this. Default 500 ms.
    pub read_bound_slack: Duration,
    /// A store whose oldest unsynced write is older asks for no support. Default 1 s.
    pub stall_max: Duration,
    /// Log bytes kept for a lagging follower before it needs a snapshot. Default 16 MiB.
    pub log_bytes_max: u64,
    /// Snapshot chunk payload. Default 512 KiB.
    pub snapshot_chunk_bytes: usize,
    /// A range without progress for this long reports itself unavailable. Default 2 s: longer than a fail-over takes once the promises have run out.
    pub unavailable_after: Duration,
    /// Replicas wanted for strong ranges (odd). Default 3.
    pub replicas: usize,
    /// A node unheard of for this long is replaced. Default 5 min.
    pub dead_after: Duration,
    /// Chaos only: a known mistake made on purpose, so that a harness can show that it would notice.
    pub planted: Option<PlantedBug>,
}

/// A mistake in what a store does around its groups, brought back on purpose. Never set outside of chaos and tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlantedBug {
    /// R20: applying depends on the node.
    ApplyDependsOnNode,
    /// H14: a promise counts from when its answer came, not from when it was asked for.
    PromiseFromReceipt,
    /// R10: a restarted store votes at once, although its dead incarnation may have promised not to.
    VotesAfterRestart,
    /// H10: a restarted store does not know of the reads that it had promised to remember.
    RestartForgetsReads,
    /// R13: a snapshot is taken although it overlaps another range.
    SnapshotOverlaps,
    /// R15: a removed replica may come back.
    RemovedReturns,
    /// R23: a snapshot of which a message was lost is not sent again.
    SnapshotNotRepeated,
    /// C03: a restarted store waits for an hour before it votes.
    RestartedVotesLate,
    /// C07: while any node drains, ranges content themselves with one replica.
    DrainingShrinks,
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            raft: RaftConfig::default(),
            promise_duration: Duration::from_secs(2),
            promise_interval: Duration::from_millis(500),
            drift_divisor: 100,
            read_bound_slack: Duration::from_millis(500),
            stall_max: Duration::from_secs(1),
            log_bytes_max: 16 << 20,
            snapshot_chunk_bytes: 512 << 10,
            unavailable_after: Duration::from_secs(2),
            replicas: 3,
            dead_after: Duration::from_secs(300),
            planted: None,
        }
    }
}

/// One message between stores. Encoded by the transport; the simulator encodes and decodes every one as well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreMessage {
    /// Of one group. `to` may not exist yet at the receiver: it is then created, uninitialised.
    Raft {
        /// Which range.
        range: RangeId,
        /// What.
        message: Message,
        /// The sender's store incarnation.
        incarnation: Incarnation,
        /// The receiver's store incarnation that an acknowledgement answers to (zero if it does not matter).
        to_incarnation: Incarnation,
    },
    /// "Promise me." All times are the sender's.
    SupportRequest {
        /// Sender's incarnation.
        incarnation: Incarnation,
        /// Matches the answer to its send time.
        sequence: u64,
        /// Asked-for duration.
        duration: Duration,
        /// Read bound to record.
        read_bound: Timestamp,
    },
    /// "I promise your incarnation, from the moment I sent this."
    SupportReply {
        /// The incarnation that asked.
        incarnation: Incarnation,
        /// The incarnation that promises.
        by: Incarnation,
        /// As asked.
        sequence: u64,
        /// Granted duration (may be zero).
        duration: Duration,
        /// Recorded bound (may be lower than asked).
        read_bound: Timestamp,
    },
    /// Part of a snapshot. Chunks carry engine entries; the first carries the state, the last says so.
    SnapshotChunk {
        /// Which range.
        range: RangeId,
        /// Sender and receiver replica, sender's Raft term.
        from: ReplicaId,
        /// Receiver.
        to: ReplicaId,
        /// Leader's term.
        term: Term,
        /// Unique per attempt.
        attempt: u64,
        /// Chunk number from 0.
        number: u32,
        /// Encoded entries (and in chunk 0 the `RangeState`).
        data: Bytes,
        /// Whether it is the last one.
        last: bool,
    },
    /// Receiver wants the next chunk (or gives up).
    SnapshotAck {
        /// Which range.
        range: RangeId,
        /// Receiver's replica.
        from: ReplicaId,
        /// Sender's replica.
        to: ReplicaId,
        /// The attempt.
        attempt: u64,
        /// Next chunk wanted; `u32::MAX` refuses the snapshot.
        next: u32,
    },
    /// "I have not heard from my group for long: am I still a member?" Answered with `Gone` if not.
    Probe {
        /// Which range.
        range: RangeId,
        /// The asking replica.
        replica: ReplicaId,
    },
    /// "That replica was removed."
    Gone {
        /// Which range.
        range: RangeId,
        /// Which replica was removed.
        replica: ReplicaId,
        /// The newest descriptor known.
        descriptor: RangeDescriptor,
    },
    /// "No replica of the range with a lower number is here any more, nor will ever be."
    Departed {
        /// Which range.
        range: RangeId,
        /// Numbers below.
        below: ReplicaId,
        /// Sender's.
        incarnation: Incarnation,
    },
}

/// What travels between two stores at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MessageBatch {
    /// The cluster; others' messages are dropped.
    pub cluster: u128,
    /// Sender.
    pub from: NodeId,
    /// Receiver.
    pub to: NodeId,
    /// Sender's clock at sending: observed by the receiver's driver before the machine sees the batch.
    pub clock: ClockTimestamp,
    /// In order.
    pub messages: Vec<StoreMessage>,
}

/// Proof that a log sync has covered everything up to a batch. Made only from what [`storage::log::Log::sync`] returned.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Persisted(LogSequence);

impl Persisted {
    /// `synced` must be what `Log::sync` has returned.
    pub fn after_sync(synced: LogSequence) -> Persisted {
        Persisted(synced)
    }
    /// Up to and including this batch.
    pub fn upto(self) -> LogSequence {
        self.0
    }
}

/// Messages that may be sent only with proof.
#[derive(Debug)]
pub struct Deferred {
    messages: Vec<(NodeId, StoreMessage)>,
    needs: LogSequence,
}

impl Deferred {
    /// Holds `messages` back until `needs` is durable.
    pub fn new(messages: Vec<(NodeId, StoreMessage)>, needs: LogSequence) -> Deferred {
        Deferred { messages, needs }
    }
    /// The batch that must be durable.
    pub fn needs(&self) -> LogSequence {
        self.needs
    }
    /// Whether there is nothing to release.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
    /// The messages, for proof. Panics if the proof does not cover them: a programmer's error that would lose writes.
    pub fn release(self, proof: Persisted) -> Vec<(NodeId, StoreMessage)> {
        assert!(
            proof.0 >= self.needs,
            "proof up to {:?} does not cover batch {:?}",
            proof.0,
            self.needs
        );
        self.messages
    }
}

/// What became of a proposal. Identified by the (term, index) that `propose` returned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Committed and applied here.
    Applied,
    /// Another entry was committed at its index: it never took and never will take effect.
    Dropped,
    /// This replica is going away or has lost track (snapshot over it): nobody knows.
    Unknown,
}

/// What happened to ranges, in order, for the range server above.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RangeEvent {
    /// A proposal of ours is decided.
    Proposal {
        /// Which range.
        range: RangeId,
        /// As `propose` returned it.
        term: Term,
        /// As `propose` returned it.
        index: LogIndex,
        /// What became of it.
        outcome: Outcome,
    },
    /// We have become leader and applied everything before: the range server starts a lease with `floor` as its timestamp cache's low-water mark.
    Led {
        /// Which range.
        range: RangeId,
        /// The lease's sequence.
        term: Term,
        /// At or above everything former leaseholders served.
        floor: Timestamp,
    },
    /// We no longer lead: pending requests are re-routed, volatile locks forgotten.
    Deposed {
        /// Which range.
        range: RangeId,
    },
    /// The range ended at `right`'s start; `right` is here as well (the range server copies its timestamp cache).
    Split {
        /// Ours.
        left: RangeId,
        /// The new one.
        right: RangeId,
    },
    /// The replica is gone from this node.
    Removed {
        /// Which range.
        range: RangeId,
    },
}

/// What is to be done, in this order: flush the engine if asked to, append `write`, send `messages_now`, keep `messages_after`
/// until proof.
#[derive(Debug, Default)]
pub struct StoreReady {
    /// `Engine::flush` must have returned before `write` is appended: the write says that the log no longer has what rebuilds
    /// state written meanwhile (a snapshot was installed, a range was born or removed). Rare (killer R22).
    pub flush_before_write: bool,
    /// For the log: all ranges of the shard at once. The owner tells the sequence it got with [`Store::appended`].
    pub write: LogBatch,
    /// May be sent at once.
    pub messages_now: Vec<(NodeId, StoreMessage)>,
    /// Must follow the sync of `write`; if that is empty, of the last batch appended before ([`Store::last_appended`]).
    pub messages_after: Vec<(NodeId, StoreMessage)>,
    /// What happened, in order.
    pub events: Vec<RangeEvent>,
    /// Ranges whose leadership should go to another node (ours is draining or fenced): the owner answers with
    /// [`Store::transfer`] and the highest read it served. Unanswered for a second, the store does it by itself, with a
    /// higher floor for the next leader than needed.
    pub transfers_wanted: Vec<(RangeId, NodeId)>,
    /// Call `tick` at or after this.
    pub wake_at: Monotonic,
}

/// Whether this node's clock may be trusted for leases. See [`Store::set_fenced`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fencing {
    /// As usual.
    #[default]
    Serving,
    /// The clock disagrees with a majority: no lease, no support asked for, leadership is handed away.
    Fenced,
}

/// What an engine flush that begins after [`Store::flush_mark`] makes durable. Given back with [`Store::flushed`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FlushMark {
    applied: BTreeMap<RangeId, (ReplicaId, LogIndex, Term)>,
}

/// Why a range cannot make progress, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unavailable {
    /// Which range.
    pub range: RangeId,
    /// Nodes (voters) that are not heard of, if it is for want of them.
    pub missing: Vec<NodeId>,
    /// Since when, on our monotonic clock.
    pub since: Monotonic,
}

/// A node as placement sees it, told to the store by its owner whenever it changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeInfo {
    /// Which.
    pub node: NodeId,
    /// Where.
    pub region: RegionId,
    /// Where within the region.
    pub zone: String,
    /// Whether replicas should leave it.
    pub draining: bool,
}
