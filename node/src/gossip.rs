//! Driver: once a second, with every known node: who is there, and what time it is.
//!
//! Whoever is not heard may be at another address by now, and so may we be, after a restart in which nobody could be asked: then the
//! addresses that we were told to join are asked as well, until everybody is heard.

use clock::{Change, LOOK_INTERVAL, RoundTrip, TimeSource, WallTime};
use futures::future::{Either, join_all, select};
use replication::range::NodeId;
use replication::store::{Fencing, NodeInfo};
use std::sync::Arc;
use std::time::Duration;
use storage::Engine;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use txn::server::Event;

use crate::control::Control;
use crate::directory::{self, Directory};
use crate::faults::Link;
use crate::identity::DataDir;
use crate::shard::{Input, ShardHandle};
use crate::shared::Shared;
use crate::transport::connections::{Class, Connections, client_for_address};

/// Time between two rounds.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);
/// A peer that has not answered by then is not waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Gossip of one node.
pub struct Gossip {
    /// The node.
    pub shared: Arc<Shared>,
    /// Ways to the others.
    pub connections: Arc<Connections>,
    /// What to say and who to tell what was heard.
    pub control: Arc<Control>,
    /// Who must know of nodes and clocks.
    pub shard: ShardHandle,
    /// Where the directory is kept for the next start.
    pub engine: Arc<dyn Engine>,
    /// RPC addresses that we were told to join.
    pub join: Vec<String>,
}

impl Gossip {
    /// Runs until `stop`.
    pub async fn run(self: Arc<Gossip>, stop: CancellationToken) {
        let (mut known, mut kept) = (Vec::new(), Vec::new());
        while !stop.is_cancelled() {
            let peers: Vec<NodeId> = {
                let directory = self.shared.directory.read();
                directory
                    .entries()
                    .map(|entry| NodeId(entry.node))
                    .filter(|node| *node != self.shared.node)
                    .collect()
            };
            self.shared.clocks.set_peers(peers.iter().copied());
            let heard = join_all(peers.iter().map(|peer| self.exchange(*peer))).await;
            if heard.is_empty() || heard.contains(&None) {
                self.ask_join_addresses().await;
            }
            let nodes = self.node_infos();
            let directory = self.shared.directory.read().clone();
            let versions: Vec<u64> = directory.entries().map(|entry| entry.version).collect();
            // Also when only an address has changed: the next start asks there.
            if versions != kept {
                kept = versions;
                if let Err(error) = self.keep(directory).await {
                    warn!(%error, "the directory of nodes could not be kept");
                }
            }
            if nodes != known {
                known = nodes.clone();
                self.shard.send(Input::Event(Event::Nodes(nodes)));
            }
            self.pause(ROUND_INTERVAL).await;
        }
    }

    async fn pause(&self, duration: Duration) {
        self.shared.time.sleep_until(self.shared.time.monotonic().plus(duration)).await;
    }

    fn node_infos(&self) -> Vec<NodeInfo> {
        let directory = self.shared.directory.read();
        directory
            .entries()
            .filter_map(|entry| {
                let node = NodeId(entry.node);
                let region = directory.region(node)?;
                Some(NodeInfo { node, region, zone: entry.zone.clone(), draining: entry.draining })
            })
            .collect()
    }

    /// Keeps the directory on disk, through crashes too: a region that restarts while it is cut off has nobody to ask.
    async fn keep(&self, directory: Directory) -> Result<(), String> {
        let engine = self.engine.clone();
        let kept = tokio::task::spawn_blocking(move || {
            directory::save(&*engine, &directory).and_then(|()| engine.flush())
        });
        kept.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// Asks the join addresses that are not a known node's; a cut holds for whoever answers there as well.
    async fn ask_join_addresses(&self) {
        let unknown: Vec<&String> = {
            let directory = self.shared.directory.read();
            let is_known =
                |address: &String| directory.entries().any(|entry| entry.rpc_addr == *address);
            self.join.iter().filter(|address| !is_known(address)).collect()
        };
        let asked = unknown.into_iter().filter_map(|address| client_for_address(address));
        join_all(asked.map(async |mut client| {
            let limit = self.shared.time.monotonic().plus(ANSWER_TIMEOUT);
            let limit = self.shared.time.sleep_until(limit);
            let call = Box::pin(client.gossip(self.control.gossip()));
            let Either::Left((Ok(reply), _)) = select(call, limit).await else { return };
            let message = reply.into_inner();
            let (us, them) = (self.shared.node, NodeId(message.from));
            let is_cut = |from, to| matches!(self.shared.link(from, to), Link::Cut);
            if !is_cut(us, them) && !is_cut(them, us) {
                self.control.learn(message.nodes);
            }
        }))
        .await;
    }

    /// One round trip: their news, and a measurement of their clock. Injected latency counts as it would on a real link.
    /// `None` if there was no answer.
    async fn exchange(&self, peer: NodeId) -> Option<()> {
        let Link::Delay(there) = self.shared.link(self.shared.node, peer) else { return None };
        let mut client = self.connections.client(peer, Class::Control)?;
        let sent = self.shared.time.monotonic();
        self.delay(there).await;
        let limit = self.shared.time.sleep_until(sent.plus(ANSWER_TIMEOUT));
        let call = Box::pin(client.gossip(self.control.gossip()));
        let Either::Left((Ok(reply), _)) = select(call, limit).await else { return None };
        let Link::Delay(back) = self.shared.link(peer, self.shared.node) else { return None };
        self.delay(back).await;
        let message = reply.into_inner();
        let trip = RoundTrip {
            sent,
            received: self.shared.time.monotonic(),
            remote: WallTime::from_micros(message.wall_micros),
            advertised: Duration::from_micros(message.error_bound_micros),
        };
        self.shared.clocks.measured(peer, trip);
        self.control.heard(peer, &message);
        self.control.learn(message.nodes);
        Some(())
    }

    async fn delay(&self, delay: Duration) {
        if !delay.is_zero() {
            self.pause(delay).await;
        }
    }
}

/// Keeps the clock's bound ahead, applies injected skew, and tells the shard of verdicts. Runs until `stop`.
/// An error means that the node must stop.
pub async fn watch_clock(
    shared: Arc<Shared>,
    dir: Arc<DataDir>,
    shard: ShardHandle,
    stop: CancellationToken,
) -> Result<(), String> {
    let mut told = None;
    while !stop.is_cancelled() {
        let now = shared.time.monotonic();
        shared.faults.expire(now);
        shared.time.set_skew_micros(shared.faults.skew_micros(shared.node, now));
        let (change, due) = shared.clocks.look(now);
        match change {
            Change::Fenced => drop(shard.send(Input::Event(Event::Fencing(Fencing::Fenced)))),
            Change::Returned => drop(shard.send(Input::Event(Event::Fencing(Fencing::Serving)))),
            Change::None => {}
        }
        if !due.is_empty() {
            let (clocks, data) = (shared.clocks.clone(), dir.clone());
            let written = tokio::task::spawn_blocking(move || clocks.persist(due, &data)).await;
            let written = written.map_err(|error| error.to_string())?;
            written
                .map_err(|error| format!("the clock's bound could not be persisted: {error}"))?;
        }
        let bound = shared.clocks.persisted_bound();
        if told != Some(bound) {
            told = Some(bound);
            shard.send(Input::Event(Event::ClockBound(bound)));
        }
        shared.time.sleep_until(shared.time.monotonic().plus(LOOK_INTERVAL)).await;
    }
    Ok(())
}
