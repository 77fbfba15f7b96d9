//! Driver: what SQL may ask of the simulated cluster around it ([`sql::Cluster`]).

use futures::FutureExt;
use futures::future::BoxFuture;
use replication::range::{NodeId, RangeId, RegionId};
use replication::store::NodeInfo;
use sql::{ChaosCommand, ChaosSummary, ClockSummary, Cluster, NodeSummary, RangeSummary};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use storage::Key;
use txn::api::Request;
use txn::client::Db;

use super::access::admin;
use super::port::Port;

/// One process's view.
pub(super) struct SimCluster {
    pub(super) node: NodeId,
    pub(super) regions: Vec<String>,
    pub(super) infos: Vec<NodeInfo>,
    pub(super) db: Db,
    pub(super) port: Arc<Port>,
    pub(super) next_range: Arc<AtomicU64>,
}

impl SimCluster {
    fn region_of(&self, node: NodeId) -> RegionId {
        let info = self.infos.iter().find(|info| info.node == node);
        info.map_or(RegionId(0), |info| info.region)
    }

    async fn split_at(&self, at: Key) -> Result<(), String> {
        let right = RangeId(self.next_range.fetch_add(1, Ordering::Relaxed));
        let batch = admin(&self.db, Request::Split { at, right });
        self.db.kv().send(batch).await.map(|_| ()).map_err(|error| error.to_string())
    }
}

impl Cluster for SimCluster {
    fn node(&self) -> NodeId {
        self.node
    }

    fn region(&self) -> RegionId {
        self.region_of(self.node)
    }

    fn region_name(&self, region: RegionId) -> Option<String> {
        self.regions.get(usize::from(region.0).checked_sub(1)?).cloned()
    }

    fn regions(&self) -> Vec<(RegionId, String)> {
        self.regions
            .iter()
            .enumerate()
            .map(|(place, name)| (RegionId(place as u16 + 1), name.clone()))
            .collect()
    }

    fn nodes(&self) -> Vec<NodeSummary> {
        let summary = |info: &NodeInfo| NodeSummary {
            node: info.node,
            region: self.region_name(info.region).unwrap_or_default(),
            zone: info.zone.clone(),
            sql_addr: String::new(),
            rpc_addr: String::new(),
            status: "live".to_string(),
        };
        self.infos.iter().map(summary).collect()
    }

    fn clocks(&self) -> Vec<ClockSummary> {
        Vec::new()
    }

    fn ranges(&self) -> BoxFuture<'_, Vec<RangeSummary>> {
        async { Vec::new() }.boxed()
    }

    fn chaos(&self, _command: ChaosCommand) -> BoxFuture<'_, Result<String, String>> {
        async { Err("the simulated world has its faults from its seed or script".to_string()) }
            .boxed()
    }

    fn chaos_active(&self) -> BoxFuture<'_, Vec<ChaosSummary>> {
        async { Vec::new() }.boxed()
    }

    fn broadcast_catalog(&self, version: u64) -> BoxFuture<'_, ()> {
        self.port.tell_of_catalog(version);
        async {}.boxed()
    }

    fn split(&self, at: Vec<Key>) -> BoxFuture<'_, Result<(), String>> {
        async move {
            for key in at {
                self.split_at(key).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn settle(&self, _: Vec<(RegionId, Key)>) -> BoxFuture<'_, Vec<(RegionId, Key)>> {
        async { Vec::new() }.boxed()
    }
}
