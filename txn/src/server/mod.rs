//! Machine: the range server. Serves the KV API for the ranges whose lease this shard holds.
//!
//! ```text
//!   Batch ──► ranges (`route`, park, propose, answer) ──► evaluate ──► read · write · commit · stage · settle · resolve · push · changes · admin
//!                 │                                        │
//!                 │                                        └─ Moment: state engine, tscache, locks, latches, clock
//!                 └──► Replicas (seam): commands, lease, outcomes
//! ```
//!
//! # Invariants
//!
//! - Nothing is written at or below a timestamp at which its key was read by another transaction
//!   ([`tscache`]), nor at or below an existing version.
//! - A read sees every write at or below its timestamp that was or can still be committed there: it
//!   waits for writes in flight ([`latch`]) and for intents, or has their owners pushed above.
//! - What a read saw is remembered before it is answered, and never above the lease's read bound,
//!   so that the next leaseholder's floor covers it.
//! - A write is answered when its command is applied.
//! - Locks ([`locks`]), queues and the wait-for graph order contenders. Nothing depends on them
//!   being there.
//!
//! Timestamps of writes may lie ahead of every clock (above a lease's floor, or above reads from a
//! node whose clock is ahead). Such versions are ordinary ones; but whoever commits there should
//! tell its client only when its clock has passed the commit timestamp, for until then a later
//! reader may not find it even within its uncertainty.

mod admin;
mod changes;
mod circle;
mod commit;
mod evaluate;
pub mod latch;
mod leading;
pub mod locks;
mod moved;
mod parked;
mod planted;
mod push;
mod ranges;
mod read;
pub mod record;
mod replicas;
mod resolve;
mod route;
pub mod settle;
mod shard;
mod stage;
pub mod tscache;
mod write;

pub use planted::PlantedBug;
pub use ranges::Ranges;
pub use replicas::Replicas;
pub use shard::{Event, Ready, Shard};

use clock::Timestamp;
use replication::range::{NodeId, RangeId};
use std::time::Duration;
use storage::Key;

use crate::api::{Lock, TxnMeta};

/// Names a request while it is here. The owner gives each its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// Parameters, all shrinkable by the simulator.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Who we are.
    pub node: NodeId,
    /// A transaction without a sign of life for so long may be aborted by anybody. Default 4 s, four of its beats: who waits for a dead
    /// gateway's locks goes on within 5.
    pub txn_expiry: Duration,
    /// For so long a reader waits for a staged transaction to be decided by its own coordinator, before it prevents what is
    /// missing. Default 1 s: several round trips, and no longer than a reader should wait for a writer that waits for another.
    pub staged_kept: Duration,
    /// A command that is not decided by then is answered as ambiguous; who waits for one is told.
    /// Default 4 s: clients are answered within 5.
    pub unavailable_after: Duration,
    /// How long a request waits for those before it in a range that makes progress. Default 60 s.
    pub latch_wait_max: Duration,
    /// How long a request waits here for a lease whose holder is unknown, before it is sent
    /// elsewhere. Default 1 s.
    pub leaderless_max: Duration,
    /// How long a place in a lock's queue is kept for a request that was answered "blocked", at
    /// least; three of its slices if that is longer. Default 1 s.
    pub place_kept: Duration,
    /// Locks taken so long ago that nobody has asked for since are forgotten; those of dead gateways, as a rule. Default 24 h.
    pub lock_kept: Duration,
    /// How often that is looked for. Default 1 min.
    pub lock_sweep_interval: Duration,
    /// Locked keys, and owners of locks, per range (300 bytes each). A locking read that would need more is refused. Default 1,000,000.
    pub locks_max: usize,
    /// Cells per timestamp cache (two per range). Default 32768.
    pub tscache_cells_max: usize,
    /// Requests that wait, over all ranges of the shard. Default 20000.
    pub parked_max: usize,
    /// A bug put back on purpose. Default none.
    pub planted: Option<PlantedBug>,
}

impl ServerConfig {
    /// The defaults.
    pub fn new(node: NodeId) -> ServerConfig {
        ServerConfig {
            node,
            txn_expiry: Duration::from_secs(4),
            staged_kept: Duration::from_secs(1),
            unavailable_after: Duration::from_secs(4),
            latch_wait_max: Duration::from_secs(60),
            leaderless_max: Duration::from_secs(1),
            place_kept: Duration::from_secs(1),
            lock_kept: Duration::from_secs(24 * 3600),
            lock_sweep_interval: Duration::from_secs(60),
            locks_max: 1_000_000,
            tscache_cells_max: 32_768,
            parked_max: 20_000,
            planted: None,
        }
    }
}

/// One unreplicated lock, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockInfo {
    /// In which range.
    pub range: RangeId,
    /// On which key.
    pub key: Key,
    /// Whose.
    pub holder: TxnMeta,
    /// How strong.
    pub strength: Lock,
    /// Clock when it was last taken.
    pub active: Timestamp,
    /// Transactions in the key's queue.
    pub waiters_count: usize,
}
