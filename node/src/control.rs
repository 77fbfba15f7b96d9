//! Driver: gossip and orders. What this node tells the others about itself, what it hears, and what operators (through any node) tell
//! it to do.

use bytes::Bytes;
use clock::{Monotonic, TimeSource};
use parking_lot::Mutex;
use proto::internal::{AddFault, ControlReply, GossipMessage, NodeEntry};
use replication::range::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tracing::{error, info, warn};
use txn::contention::Contention;
use txn::runtime::HlcSource;

use crate::faults::{FAULT_DURATION_MAX, Fault, FaultKind};
use crate::shard::{Input, ShardHandle};
use crate::shared::{Chaos, Shared};
use crate::twin;

/// What a peer said of itself last.
#[derive(Clone, Debug)]
pub struct Heard {
    /// When, on our monotonic clock.
    pub at: Monotonic,
    /// Its own clock error bound.
    pub error_bound: Duration,
    /// Whether it has fenced itself.
    pub fenced: bool,
}

/// Called when another node has changed the catalog: brings ours up to date.
pub type CatalogRefresh = Box<dyn Fn() -> futures::future::BoxFuture<'static, u64> + Send + Sync>;

/// Called when another node's engine asks ours something.
pub type Answerer =
    Box<dyn Fn(Bytes) -> futures::future::BoxFuture<'static, Option<Bytes>> + Send + Sync>;

/// Gossip and orders of one node.
pub struct Control {
    shared: Arc<Shared>,
    shard: ShardHandle,
    own: NodeEntry,
    heard: Mutex<BTreeMap<NodeId, Heard>>,
    catalog_version: AtomicU64,
    refresh: Mutex<Option<Arc<CatalogRefresh>>>,
    answerer: Mutex<Option<Arc<Answerer>>>,
    ends: Ends,
}

/// Ways for a node to end itself.
pub struct Ends {
    /// Ends the process without any farewell.
    pub crash: Box<dyn Fn() + Send + Sync>,
    /// Stops the node in order, with a reason for people.
    pub fail: Box<dyn Fn(String) + Send + Sync>,
}

impl Control {
    /// `own` is our directory entry.
    pub fn new(shared: Arc<Shared>, shard: ShardHandle, own: NodeEntry, ends: Ends) -> Control {
        Control {
            shared,
            shard,
            own,
            heard: Mutex::default(),
            catalog_version: AtomicU64::new(0),
            refresh: Mutex::new(None),
            answerer: Mutex::new(None),
            ends,
        }
    }

    /// Sets what is done when the catalog has changed elsewhere.
    pub fn on_catalog_change(&self, refresh: CatalogRefresh) {
        *self.refresh.lock() = Some(Arc::new(refresh));
    }

    /// Sets who answers what other nodes' engines ask.
    pub fn on_question(&self, answerer: Answerer) {
        *self.answerer.lock() = Some(Arc::new(answerer));
    }

    /// Our engine's answer to another's question.
    pub async fn answer(&self, question: Bytes) -> ControlReply {
        let answerer = self.answerer.lock().clone();
        let answer = match answerer {
            Some(answerer) => answerer(question).await,
            None => None,
        };
        ControlReply { answer, ..ControlReply::default() }
    }

    /// What was waited for at our ranges.
    pub async fn lock_waits(&self) -> Contention {
        self.shard.ask(Input::Contention).await.unwrap_or_default()
    }

    /// What we tell others once a second.
    pub fn gossip(&self) -> GossipMessage {
        let wall = self.shared.clocks.wall();
        let error_bound = self.shared.clocks.own_bound();
        GossipMessage {
            cluster: Bytes::copy_from_slice(&self.shared.cluster.to_be_bytes()),
            from: self.shared.node.0,
            clock: self.shared.clocks.now().raw(),
            wall_micros: wall.micros(),
            error_bound_micros: u64::try_from(error_bound.as_micros()).unwrap_or(u64::MAX),
            fenced: self.shared.clocks.is_fenced(),
            nodes: self.shared.directory.read().entries().cloned().collect(),
            catalog_version: self.catalog_version.load(Ordering::Relaxed),
        }
    }

    /// Takes what a peer knows of the nodes. If it knows of another process with our id, this one stops.
    pub fn learn(&self, nodes: Vec<NodeEntry>) {
        if let Some(why) = nodes.iter().find_map(|entry| twin::is_another(&self.own, entry)) {
            error!(why, "stopping: this node's id is somebody else's");
            (self.ends.fail)(why);
        }
        self.shared.directory.write().merge(nodes);
    }

    /// A peer's gossip has arrived.
    pub fn heard(&self, from: NodeId, message: &GossipMessage) {
        let heard = Heard {
            at: self.shared.time.monotonic(),
            error_bound: Duration::from_micros(message.error_bound_micros),
            fenced: message.fenced,
        };
        self.heard.lock().insert(from, heard);
    }

    /// What was heard of whom.
    pub fn heard_of(&self) -> BTreeMap<NodeId, Heard> {
        self.heard.lock().clone()
    }

    /// Our directory entry.
    pub fn own_entry(&self) -> &NodeEntry {
        &self.own
    }

    /// Puts a fault in force here.
    pub fn add_fault(&self, fault: &AddFault) -> ControlReply {
        match self.try_add_fault(fault) {
            Ok(()) => ControlReply::default(),
            Err(error) => ControlReply { error, ..ControlReply::default() },
        }
    }

    fn try_add_fault(&self, fault: &AddFault) -> Result<(), String> {
        if self.shared.chaos == Chaos::Forbidden {
            return Err(format!("{} was not started with chaos allowed", self.shared.node));
        }
        let duration = Duration::from_micros(fault.duration_micros);
        if duration.is_zero() || duration > FAULT_DURATION_MAX {
            return Err(format!("a fault lasts up to {} seconds", FAULT_DURATION_MAX.as_secs()));
        }
        let kind = match fault.kind.as_str() {
            "partition" => FaultKind::Partition { from: fault.from.clone(), to: fault.to.clone() },
            "cut" => FaultKind::Cut { from: fault.from.clone(), to: fault.to.clone() },
            "latency" => FaultKind::Latency {
                from: fault.from.clone(),
                to: fault.to.clone(),
                extra: Duration::from_micros(fault.extra_micros),
                jitter: Duration::from_micros(fault.jitter_micros),
            },
            "loss" => FaultKind::Loss {
                from: fault.from.clone(),
                to: fault.to.clone(),
                permille: fault.loss_permille,
            },
            "drift" => FaultKind::Drift { node: parse_node(&fault.from)?, ppm: fault.drift_ppm },
            "clock" => {
                FaultKind::Clock { node: parse_node(&fault.from)?, skew_micros: fault.skew_micros }
            }
            "crash" => return self.crash_if_meant(parse_node(&fault.from)?),
            other => return Err(format!("unknown fault {other}")),
        };
        warn!(?kind, ?duration, "a fault was injected");
        let since = self.shared.time.monotonic();
        let until = since.plus(duration);
        self.shared.faults.add(fault.id, Fault { kind, since, until });
        Ok(())
    }

    fn crash_if_meant(&self, node: NodeId) -> Result<(), String> {
        if node == self.shared.node {
            warn!("crashing, as ordered");
            (self.ends.crash)();
        }
        Ok(())
    }

    /// Removes all faults.
    pub fn heal(&self) -> ControlReply {
        info!("all faults were healed");
        self.shared.faults.heal();
        ControlReply::default()
    }

    /// What is in force here, one line each: `id|kind|what|seconds left`.
    pub fn list_faults(&self) -> ControlReply {
        let now = self.shared.time.monotonic();
        let lines = self.shared.faults.active(now).into_iter().map(|(id, fault)| {
            let (kind, what) = match fault.kind {
                FaultKind::Partition { from, to } if to.is_empty() => {
                    ("partition", format!("{} from all", from.join(", ")))
                }
                FaultKind::Partition { from, to } => {
                    ("partition", format!("{} from {}", from.join(", "), to.join(", ")))
                }
                FaultKind::Cut { from, to } => {
                    ("cut", format!("{} to {}", from.join(", "), to.join(", ")))
                }
                FaultKind::Latency { from, to, extra, jitter } => (
                    "latency",
                    format!(
                        "{} to {}: {} to {} ms more",
                        from.join(", "),
                        to.join(", "),
                        extra.as_millis(),
                        (extra + jitter).as_millis()
                    ),
                ),
                FaultKind::Loss { from, to, permille } => (
                    "loss",
                    format!("{} to {}: {permille} of 1000", from.join(", "), to.join(", ")),
                ),
                FaultKind::Clock { node, skew_micros } => {
                    ("clock", format!("{node} by {} ms", skew_micros / 1000))
                }
                FaultKind::Drift { node, ppm } => ("drift", format!("{node} by {ppm} ppm")),
            };
            format!("{id}|{kind}|{what}|{}", fault.until.since(now).as_secs())
        });
        ControlReply { lines: lines.collect(), ..ControlReply::default() }
    }

    /// Brings our catalog up to date before answering, so that who changed it may rely on us.
    pub async fn catalog_changed(&self, version: u64) -> ControlReply {
        let refresh = self.refresh.lock().clone();
        let reached = match refresh {
            Some(refresh) => refresh().await,
            None => 0,
        };
        self.catalog_version.fetch_max(reached, Ordering::Relaxed);
        if reached >= version {
            ControlReply::default()
        } else {
            ControlReply {
                error: format!("catalog is at version {reached}"),
                ..ControlReply::default()
            }
        }
    }

    /// What our ranges are doing, encoded by `range_status`.
    pub async fn ranges(&self) -> ControlReply {
        match self.shard.ask(Input::Status).await {
            Some(status) => ControlReply {
                lines: status
                    .iter()
                    .map(|range| crate::range_status::to_line(self.shared.node, range))
                    .collect(),
                ..ControlReply::default()
            },
            None => ControlReply {
                error: "the node is stopping".to_string(),
                ..ControlReply::default()
            },
        }
    }
}

fn parse_node(names: &[String]) -> Result<NodeId, String> {
    match names {
        [name] => name
            .strip_prefix('n')
            .and_then(|number| number.parse().ok())
            .map(NodeId)
            .ok_or_else(|| format!("{name} is not a node's name (n1, n2, ...)")),
        _ => Err("one node is needed".to_string()),
    }
}
