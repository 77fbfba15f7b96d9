//! Value: a machine: its disks and clocks, which outlive processes, and the process on it.

use clock::{Course, Timestamp};
use futures::channel::oneshot;
use replication::range::{NodeId, RangeId, RegionId};
use replication::store::{Deferred, StoreMessage};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use storage::MemoryEngine;
use storage::log::{LogIndex, LogSequence, SegmentedLog, SimDir, Term};
use txn::api::{Batch, KvError, Reply};
use txn::server::{Event as ShardEvent, Shard};

use super::Event;
use super::clocks::ProcessClock;
use super::port::{Call, Port};
use super::time::MachineClock;
use super::watch::Asked;

/// See the module.
pub struct Machine {
    /// Its name.
    pub id: NodeId,
    /// Where it stands.
    pub region: RegionId,
    /// Its clocks since the last boot.
    pub time: MachineClock,
    /// Boots so far.
    pub boots: u128,
    /// The disk of the Raft log.
    pub dir: SimDir,
    /// The disk of the state.
    pub engine: Arc<MemoryEngine>,
    /// Durable: starts so far.
    pub incarnation: u64,
    /// Durable: no reading of any process here was at or above.
    pub clock_bound: Timestamp,
    /// Durable: where the clock was; `None` before its first start.
    pub clock_course: Option<Course>,
    /// Durable: no read bound above was recorded for another store. Never falls.
    pub recorded_bound: Timestamp,
    /// What runs.
    pub process: Option<Box<Process>>,
    /// Whether the process stands still; what happened to it meanwhile.
    pub paused: Option<Vec<Event>>,
    /// Syncs do not return before this true time.
    pub stalled_until: u64,
    /// Flushes of the state do not return before this true time.
    pub state_stalled_until: u64,
    /// Syncs take so many times as long as they should.
    pub slow: u32,
    /// Outputs until the next crash.
    pub fuse: Option<u32>,
    /// Whether the supervisor starts the process again after it has died.
    pub supervised: bool,
    /// Lost for good.
    pub retired: bool,
    /// Something on its disk is not what was written.
    pub rotten: bool,
    /// The log's disk holds no more than it does now.
    pub full: bool,
    /// The state's disk holds no more than it does now.
    pub state_full: bool,
    /// The log's disk as of the last flush, if such a fault or bug wants it.
    pub older: Option<SimDir>,
}

/// Where an answer goes.
pub enum Waiter {
    /// To our own gateway, which has that number for the call.
    Local(u64, oneshot::Sender<Result<Reply, KvError>>),
    /// To another machine's; `body` is empty.
    Remote(NodeId, Call),
}

/// What waits for the shard.
pub enum Input {
    /// A batch.
    Request(Batch, Waiter),
    /// Of a process of that node, which has given up a call.
    Withdrawal(NodeId, u64, u64),
    /// Messages of another store.
    Messages(NodeId, Vec<StoreMessage>),
    /// Anything else.
    Event(ShardEvent),
}

/// One start of a node.
pub struct Process {
    /// Which.
    pub incarnation: u64,
    /// The machine (as in state machine).
    pub shard: Shard,
    /// Its log.
    pub log: Arc<SegmentedLog>,
    /// Its clock.
    pub clock: Arc<ProcessClock>,
    /// Its calls.
    pub port: Arc<Port>,
    /// Its SQL, if there is any.
    pub engine: Option<Arc<sql::Engine>>,
    /// Who waits for which request.
    pub waiting: BTreeMap<u64, Waiter>,
    /// What they asked, as far as somebody checks it.
    pub(super) asked: BTreeMap<u64, Asked>,
    /// Number of the last request.
    pub last_request: u64,
    /// Not yet seen by the shard.
    pub inbox: VecDeque<Input>,
    /// What waits for a sync.
    pub deferred: Vec<Deferred>,
    /// Last batch appended.
    pub appended: LogSequence,
    /// Last batch that is durable.
    pub synced: LogSequence,
    /// Whether a sync is under way.
    pub syncing: bool,
    /// True time when it began.
    pub sync_began: u64,
    /// It has written already what it will prove: what is appended meanwhile needs another one.
    pub sync_covers: Option<LogSequence>,
    /// True time of the next tick that is scheduled.
    pub wake_at: u64,
    /// Last log index that is durable, with its term, by range. What takes the place of a log (a snapshot) is durable later, and the term
    /// of what is on disk until then is nowhere else.
    pub durable: BTreeMap<RangeId, (LogIndex, Term)>,
}

impl Process {
    /// Up to where a range's log is durable.
    pub(super) fn durable_index(&self, range: RangeId) -> LogIndex {
        self.durable.get(&range).map_or(LogIndex::ZERO, |(index, _)| *index)
    }
}
