//! Driver: what SQL may ask of the cluster, from this node's point of view ([`sql::Cluster`]).

use bytes::Bytes;
use clock::TimeSource;
use futures::future::{BoxFuture, Either, join_all, select};
use proto::internal::control_request::Order;
use proto::internal::{
    AddFault, CatalogChanged, ControlReply, ControlRequest, HealFaults, ListFaults, Question,
    RangeList,
};
use replication::range::{NodeId, RangeId, RegionId};
use sql::{ChaosCommand, ChaosSummary, ClockSummary, Cluster, NodeSummary, RangeSummary};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use storage::Key;
use txn::api::{Batch, KvError, Request, Response, WAIT_SLICE, Wait};
use txn::client::{Db, TxnOptions};
use txn::contention::Contention;

use crate::control::Control;
use crate::faults::FAULT_DURATION_MAX;
use crate::faults::Link;
use crate::join::{counter_key, text};
use crate::shared::{Chaos, Shared};
use crate::transport::connections::{Class, Connections};

/// A node unheard of for this long is suspect; ten times that, dead.
const SUSPECT_AFTER: Duration = Duration::from_secs(5);
const DEAD_AFTER: Duration = Duration::from_secs(50);
/// Orders to other nodes are not waited for longer.
const ORDER_TIMEOUT: Duration = Duration::from_secs(3);
/// A new table's copies may take so long until they are in their regions before its statement goes on without them.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
const SETTLE_PAUSE: Duration = Duration::from_millis(100);

/// Nobody waits for a message that is later than this.
const LATENCY_MAX: Duration = Duration::from_secs(60);
/// A crash takes no time; every fault lasts some.
const CRASH_DURATION: Duration = Duration::from_micros(1);

/// The cluster as one node sees it.
pub struct NodeCluster {
    shared: Arc<Shared>,
    connections: Arc<Connections>,
    control: Arc<Control>,
    db: Db,
}

/// Whether an order is subject to injected faults.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// It is: what the database itself does.
    Product,
    /// It is not: what the operator does from outside.
    Operator,
}

impl NodeCluster {
    /// With ways to the other nodes.
    pub fn new(
        shared: Arc<Shared>,
        connections: Arc<Connections>,
        control: Arc<Control>,
        db: Db,
    ) -> NodeCluster {
        NodeCluster { shared, connections, control, db }
    }

    /// Gives an order to every other node; who answered, and what.
    async fn order_others(
        &self,
        order: &Order,
        reach: Reach,
    ) -> Vec<(NodeId, Result<ControlReply, String>)> {
        let asked = self
            .others()
            .into_iter()
            .map(|node| async move { (node, self.order(node, order.clone(), reach).await) });
        join_all(asked).await
    }

    async fn order(
        &self,
        node: NodeId,
        order: Order,
        reach: Reach,
    ) -> Result<ControlReply, String> {
        let silent = || format!("{node} does not answer");
        let delay = match (reach, self.shared.link(self.shared.node, node)) {
            (Reach::Operator, _) => Duration::ZERO,
            (Reach::Product, Link::Cut) => return Err(silent()),
            (Reach::Product, Link::Delay(delay)) => delay,
        };
        let mut client = self.connections.client(node, Class::Control).ok_or_else(silent)?;
        let time = &self.shared.time;
        let limit = time.sleep_until(time.monotonic().plus(ORDER_TIMEOUT));
        let call = Box::pin(async move {
            time.sleep_until(time.monotonic().plus(delay)).await;
            let reply = client.control(ControlRequest { order: Some(order) }).await;
            time.sleep_until(time.monotonic().plus(delay)).await;
            reply
        });
        match select(call, limit).await {
            Either::Left((Ok(reply), _)) => Ok(reply.into_inner()),
            Either::Left((Err(_), _)) | Either::Right(_) => Err(silent()),
        }
    }

    fn known_name(&self, name: &str) -> Result<(), String> {
        let directory = self.shared.directory.read();
        let known = directory
            .entries()
            .any(|entry| entry.region == name || NodeId(entry.node).to_string() == name);
        if known { Ok(()) } else { Err(format!("there is no region or node \"{name}\"")) }
    }

    fn fault_of(&self, command: &ChaosCommand) -> Result<Option<AddFault>, String> {
        let micros = |duration: &Option<Duration>| {
            let duration = duration.unwrap_or(FAULT_DURATION_MAX);
            if duration > FAULT_DURATION_MAX {
                return Err(format!(
                    "a fault lasts up to {} seconds",
                    FAULT_DURATION_MAX.as_secs()
                ));
            }
            Ok(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
        };
        let mut fault = AddFault::default();
        let (kind, duration) = match command {
            ChaosCommand::Heal => return Ok(None),
            ChaosCommand::Partition { from, to, duration } => {
                (fault.from, fault.to) = (from.clone(), to.clone());
                ("partition", duration)
            }
            ChaosCommand::Cut { from, to, duration } => {
                (fault.from, fault.to) = (from.clone(), to.clone());
                ("cut", duration)
            }
            ChaosCommand::Latency { from, to, extra, jitter, duration } => {
                (fault.from, fault.to) = (from.clone(), to.clone());
                if *extra + *jitter > LATENCY_MAX {
                    return Err(format!("latencies go up to {} seconds", LATENCY_MAX.as_secs()));
                }
                fault.extra_micros = micros(&Some(*extra))?;
                fault.jitter_micros = micros(&Some(*jitter))?;
                ("latency", duration)
            }
            ChaosCommand::Loss { from, to, permille, duration } => {
                (fault.from, fault.to) = (from.clone(), to.clone());
                fault.loss_permille = *permille;
                ("loss", duration)
            }
            ChaosCommand::Clock { node, skew_us, duration } => {
                (fault.from, fault.skew_micros) = (vec![node.clone()], *skew_us);
                ("clock", duration)
            }
            ChaosCommand::Drift { node, ppm, duration } => {
                (fault.from, fault.drift_ppm) = (vec![node.clone()], *ppm);
                ("drift", duration)
            }
            ChaosCommand::Crash { node } => {
                fault.from = vec![node.clone()];
                ("crash", &Some(CRASH_DURATION))
            }
        };
        fault.from.iter().chain(&fault.to).try_for_each(|name| self.known_name(name))?;
        fault.duration_micros = micros(duration)?;
        fault.kind = kind.to_string();
        fault.id = fault_id(&fault);
        Ok(Some(fault))
    }

    async fn carry_out(&self, command: ChaosCommand) -> Result<String, String> {
        if self.shared.chaos == Chaos::Forbidden {
            return Err("this node was not started with chaos allowed (--allow-chaos)".to_string());
        }
        let fault = self.fault_of(&command)?;
        let order = match &fault {
            Some(fault) => Order::AddFault(fault.clone()),
            None => Order::Heal(HealFaults {}),
        };
        // The others first: the order may be to crash ourselves.
        let answers = self.order_others(&order, Reach::Operator).await;
        let reply = match &fault {
            Some(fault) => self.control.add_fault(fault),
            None => self.control.heal(),
        };
        if !reply.error.is_empty() {
            return Err(reply.error);
        }
        let silent: Vec<String> = answers
            .iter()
            .filter_map(|(node, answer)| match answer {
                Ok(reply) if reply.error.is_empty() => None,
                Ok(reply) => Some(format!("{node}: {}", reply.error)),
                Err(why) => Some(why.clone()),
            })
            .collect();
        let crashes = matches!(command, ChaosCommand::Crash { .. });
        Ok(if silent.is_empty() || crashes {
            "in force on all nodes".to_string()
        } else {
            format!("in force, but {}", silent.join("; "))
        })
    }

    async fn split_at(&self, at: Key, id: RangeId) -> Result<(), String> {
        let now = self.db.runtime().hlc.now().timestamp();
        let batch = Batch::bare(
            now,
            Wait::Queue(WAIT_SLICE),
            vec![Request::Split { at: at.clone(), right: id }],
        );
        match self.db.kv().send(batch).await {
            Ok(reply) => match reply.responses.first() {
                Some(Response::Split { .. }) => Ok(()),
                _ => Err(format!("{at} was not split")),
            },
            // A lost answer: asking again finds the split done, or does it with another id.
            Err(error @ KvError::Ambiguous { .. }) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The first of `count` ids that nobody else will get.
    async fn take_range_ids(&self, count: u64) -> Result<RangeId, String> {
        let taken = self.db.run(TxnOptions::labelled("range ids"), |txn| {
            Box::pin(async move {
                let key = counter_key("range");
                let found = txn.get(&key, Some(txn::api::Lock::Exclusive)).await?;
                let id =
                    found.and_then(|bytes| String::from_utf8_lossy(&bytes).parse::<u64>().ok());
                let id = id.ok_or_else(|| {
                    txn::client::TxnError::Invalid("the range id counter is gone".to_string())
                })?;
                txn.put(key, text(id + count))?;
                Ok(RangeId(id))
            })
        });
        taken.await.map_err(|error| error.to_string())
    }

    fn status_of(&self, node: NodeId, draining: bool) -> &'static str {
        let now = self.shared.time.monotonic();
        if draining {
            return "draining";
        }
        if node == self.shared.node {
            return if self.shared.clocks.is_fenced() { "fenced" } else { "live" };
        }
        match self.control.heard_of().get(&node) {
            Some(heard) if heard.fenced && now.since(heard.at) < SUSPECT_AFTER => "fenced",
            Some(heard) if now.since(heard.at) < SUSPECT_AFTER => "live",
            Some(heard) if now.since(heard.at) < DEAD_AFTER => "suspect",
            Some(_) => "dead",
            None => "suspect",
        }
    }
}

/// One for each kind and sides (FNV-1a), whichever node is asked: a fault replaces its like, and one that is over at once ends it.
fn fault_id(fault: &AddFault) -> u64 {
    let text = format!("{} {:?} {:?}", fault.kind, fault.from, fault.to);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl Cluster for NodeCluster {
    fn node(&self) -> NodeId {
        self.shared.node
    }

    fn region(&self) -> RegionId {
        self.shared.region
    }

    fn region_name(&self, region: RegionId) -> Option<String> {
        self.shared.directory.read().regions().remove(&region)
    }

    fn regions(&self) -> Vec<(RegionId, String)> {
        self.shared.directory.read().regions().into_iter().collect()
    }

    fn nodes(&self) -> Vec<NodeSummary> {
        let directory = self.shared.directory.read();
        let summary = |entry: &proto::internal::NodeEntry| NodeSummary {
            node: NodeId(entry.node),
            region: entry.region.clone(),
            zone: entry.zone.clone(),
            sql_addr: entry.sql_addr.clone(),
            rpc_addr: entry.rpc_addr.clone(),
            status: self.status_of(NodeId(entry.node), entry.draining).to_string(),
        };
        directory.entries().map(summary).collect()
    }

    fn clocks(&self) -> Vec<ClockSummary> {
        let report = self.shared.clocks.report(self.shared.time.monotonic());
        let heard = self.control.heard_of();
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let directory = self.shared.directory.read();
        let summary = |entry: &proto::internal::NodeEntry| {
            let node = NodeId(entry.node);
            let (region, own) = (entry.region.clone(), node == self.shared.node);
            if own {
                let state =
                    report.fenced.as_ref().map_or("ok".to_string(), |why| format!("fenced: {why}"));
                let bound_us = Some(micros(report.bound));
                return ClockSummary {
                    node,
                    region,
                    offset_us: Some(report.wall_ahead_us),
                    offset_error_us: Some(0),
                    round_trip_us: Some(0),
                    bound_us,
                    state,
                };
            }
            let estimate = report.peers.get(&node);
            let heard = heard.get(&node);
            ClockSummary {
                node,
                region,
                offset_us: estimate.map(clock::OffsetEstimate::ahead_us),
                offset_error_us: estimate.map(|estimate| micros(estimate.error())),
                round_trip_us: estimate.map(|estimate| micros(estimate.round_trip())),
                bound_us: heard.map(|heard| micros(heard.error_bound)),
                state: match heard {
                    None => "not heard of".to_string(),
                    Some(heard) if heard.fenced => "fenced".to_string(),
                    Some(_) => "ok".to_string(),
                },
            }
        };
        directory.entries().map(summary).collect()
    }

    fn ranges(&self) -> BoxFuture<'_, Vec<RangeSummary>> {
        Box::pin(async move {
            let mut lines = self.control.ranges().await.lines;
            for (_, answer) in self.order_others(&Order::Ranges(RangeList {}), Reach::Product).await
            {
                lines.extend(answer.map(|reply| reply.lines).unwrap_or_default());
            }
            crate::range_status::summaries(lines.iter().map(String::as_str))
        })
    }

    fn chaos(&self, command: ChaosCommand) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(self.carry_out(command))
    }

    fn chaos_active(&self) -> BoxFuture<'_, Vec<ChaosSummary>> {
        Box::pin(async move {
            let mut faults: BTreeMap<String, ChaosSummary> = BTreeMap::new();
            let mut lines = self.control.list_faults().lines;
            for (_, answer) in self.order_others(&Order::List(ListFaults {}), Reach::Operator).await
            {
                lines.extend(answer.map(|reply| reply.lines).unwrap_or_default());
            }
            for line in lines {
                let fields: Vec<&str> = line.split('|').collect();
                let [id, kind, what, seconds] = fields[..] else { continue };
                let remaining = seconds.parse().ok().map(Duration::from_secs);
                faults.insert(
                    id.to_string(),
                    ChaosSummary { fault: format!("{kind} {what}"), remaining },
                );
            }
            faults.into_values().collect()
        })
    }

    fn broadcast_catalog(&self, version: u64) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.order_others(&Order::Catalog(CatalogChanged { version }), Reach::Product).await;
        })
    }

    fn others(&self) -> Vec<NodeId> {
        let directory = self.shared.directory.read();
        let nodes = directory.entries().map(|entry| NodeId(entry.node));
        nodes.filter(|node| *node != self.shared.node).collect()
    }

    fn ask(&self, node: NodeId, question: Bytes) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(async move {
            // Not to be waited for by every error.
            if ["suspect", "dead"].contains(&self.status_of(node, false)) {
                return None;
            }
            let order = Order::Ask(Question { body: question });
            self.order(node, order, Reach::Product).await.ok()?.answer
        })
    }

    fn lock_waits(&self) -> BoxFuture<'_, Contention> {
        Box::pin(self.control.lock_waits())
    }

    fn split(&self, at: Vec<Key>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let first = self.take_range_ids(at.len() as u64).await?;
            for (id, key) in (first.0..).zip(at) {
                self.split_at(key, RangeId(id)).await?;
            }
            Ok(())
        })
    }

    fn settle(&self, copies: Vec<(RegionId, Key)>) -> BoxFuture<'_, Vec<(RegionId, Key)>> {
        Box::pin(async move {
            let time = &self.db.runtime().time;
            let give_up = time.monotonic().plus(SETTLE_TIMEOUT);
            loop {
                let ranges = self.ranges().await;
                let away: Vec<(RegionId, Key)> = {
                    let directory = self.shared.directory.read();
                    let is_home = |region: RegionId, start: &Key| {
                        let range = ranges.iter().find(|range| range.span.start == *start);
                        range.is_some_and(|range| {
                            let mut replicas = range.replicas.iter();
                            replicas.all(|node| directory.region(*node) == Some(region))
                        })
                    };
                    copies
                        .iter()
                        .filter(|(region, start)| !is_home(*region, start))
                        .cloned()
                        .collect()
                };
                if away.is_empty() || time.monotonic() >= give_up {
                    return away;
                }
                time.sleep_until(time.monotonic().plus(SETTLE_PAUSE)).await;
            }
        })
    }
}
