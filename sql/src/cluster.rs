//! Seam: what SQL asks of the node around it. Implemented by the node and by the simulator.
//!
//! Everything here is for showing, steering and announcing; no answer of it decides what a transaction may read or write.

use bytes::Bytes;
use futures::future::BoxFuture;
use replication::range::{NodeId, RegionId};
use std::time::Duration;
use storage::{Key, Span};
use txn::contention::Contention;

/// A node, as `SHOW NODES` tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeSummary {
    /// Which.
    pub node: NodeId,
    /// Its region's name.
    pub region: String,
    /// Its zone within the region.
    pub zone: String,
    /// Where it takes SQL clients.
    pub sql_addr: String,
    /// Where it takes RPCs.
    pub rpc_addr: String,
    /// `live`, `suspect`, `dead`, `fenced`, `draining`.
    pub status: String,
}

/// A peer's clock, as `SHOW CLOCKS` tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClockSummary {
    /// Whose.
    pub node: NodeId,
    /// Its region's name.
    pub region: String,
    /// Its clock minus ours, microseconds; `None` while not measured. Of our own: how far the operating system's wall clock is ahead of
    /// our clock, which follows it without steps.
    pub offset_us: Option<i64>,
    /// How far that can be wrong, microseconds.
    pub offset_error_us: Option<u64>,
    /// The shortest round trip to it of late, microseconds; `None` while not measured.
    pub round_trip_us: Option<u64>,
    /// The bound it advertises for itself, microseconds.
    pub bound_us: Option<u64>,
    /// `ok`, `fenced: ...`.
    pub state: String,
}

/// A range, as `SHOW RANGES` tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeSummary {
    /// Its number.
    pub range: u64,
    /// Its keys.
    pub span: Span,
    /// Who leads it, as far as is known here.
    pub leaseholder: Option<NodeId>,
    /// Its replicas.
    pub replicas: Vec<NodeId>,
}

/// A fault that is active, as `SHOW CHAOS` tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChaosSummary {
    /// The command that caused it.
    pub fault: String,
    /// How long it will last yet; `None`: until `CHAOS HEAL`.
    pub remaining: Option<Duration>,
}

/// A `CHAOS` statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChaosCommand {
    /// Cuts the regions (or nodes) apart, both ways.
    Partition {
        /// Region or node names.
        from: Vec<String>,
        /// Region or node names.
        to: Vec<String>,
        /// How long; `None`: until healed.
        duration: Option<Duration>,
    },
    /// Cuts one way: nothing passes from the ones to the others.
    Cut {
        /// Region or node names.
        from: Vec<String>,
        /// Region or node names.
        to: Vec<String>,
        /// How long; `None`: until healed.
        duration: Option<Duration>,
    },
    /// What goes from the ones to the others is later. A second one between the same replaces the first.
    Latency {
        /// Region or node names.
        from: Vec<String>,
        /// Region or node names.
        to: Vec<String>,
        /// By so much.
        extra: Duration,
        /// And up to so much more.
        jitter: Duration,
        /// How long; `None`: until healed.
        duration: Option<Duration>,
    },
    /// Some of what goes from the ones to the others is lost. A second one between the same replaces the first.
    Loss {
        /// Region or node names.
        from: Vec<String>,
        /// Region or node names.
        to: Vec<String>,
        /// Of 1000 messages, 0 to 1000.
        permille: u32,
        /// How long; `None`: until healed.
        duration: Option<Duration>,
    },
    /// A node's wall clock runs at another rate. A second one replaces the first.
    Drift {
        /// Which (`n3`).
        node: String,
        /// Parts per million, positive: too fast.
        ppm: i64,
        /// How long; `None`: until healed.
        duration: Option<Duration>,
    },
    /// Moves a node's wall clock. A second one replaces the first.
    Clock {
        /// Which (`n3`).
        node: String,
        /// By how many microseconds.
        skew_us: i64,
        /// How long; `None`: until healed.
        duration: Option<Duration>,
    },
    /// Kills a node as kill -9 does.
    Crash {
        /// Which (`n3`).
        node: String,
    },
    /// Ends every fault.
    Heal,
}

/// The node around the engine.
pub trait Cluster: Send + Sync + 'static {
    /// This node.
    fn node(&self) -> NodeId;
    /// Its region.
    fn region(&self) -> RegionId;
    /// A region's name.
    fn region_name(&self, region: RegionId) -> Option<String>;
    /// All regions, by number.
    fn regions(&self) -> Vec<(RegionId, String)>;
    /// All nodes.
    fn nodes(&self) -> Vec<NodeSummary>;
    /// All clocks.
    fn clocks(&self) -> Vec<ClockSummary>;
    /// All ranges.
    fn ranges(&self) -> BoxFuture<'_, Vec<RangeSummary>>;
    /// Carries out a `CHAOS` statement. The error says why not (chaos not allowed here, unknown name).
    fn chaos(&self, command: ChaosCommand) -> BoxFuture<'_, Result<String, String>>;
    /// Faults that are active.
    fn chaos_active(&self) -> BoxFuture<'_, Vec<ChaosSummary>>;
    /// Tells the other nodes that the catalog has a new version, so that they read it. Best effort: a node that misses it finds out
    /// by a refused batch or a relation it does not know.
    fn broadcast_catalog(&self, version: u64) -> BoxFuture<'_, ()>;
    /// Gateways other than this node.
    fn others(&self) -> Vec<NodeId> {
        Vec::new()
    }
    /// Puts a question to another node's engine, for [`crate::Engine::answer`]. `None`: no answer.
    fn ask(&self, _node: NodeId, _question: Bytes) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(std::future::ready(None))
    }
    /// What was waited for at the ranges that this node leads or led.
    fn lock_waits(&self) -> BoxFuture<'_, Contention> {
        Box::pin(std::future::ready(Contention::default()))
    }
    /// Makes each key the start of a range. Done already: no error.
    fn split(&self, at: Vec<Key>) -> BoxFuture<'_, Result<(), String>>;
    /// Waits until each range is in its region and nowhere else, but not for ever: the ones that are not yet there come back. Ranges
    /// are named by a region and their first key.
    fn settle(&self, copies: Vec<(RegionId, Key)>) -> BoxFuture<'_, Vec<(RegionId, Key)>>;
}
