//! Driver: what SQL asks of the node around it, answered by nobody. For tests, of this crate and above it.

use futures::FutureExt;
use futures::future::BoxFuture;
use replication::range::{NodeId, RegionId};
use storage::Key;

use crate::cluster::{
    ChaosCommand, ChaosSummary, ClockSummary, Cluster, NodeSummary, RangeSummary,
};

/// One node in one region: nothing is elsewhere, and nothing has to be told to anybody.
pub struct Alone;

impl Cluster for Alone {
    fn node(&self) -> NodeId {
        NodeId(1)
    }
    fn region(&self) -> RegionId {
        RegionId(1)
    }
    fn region_name(&self, _: RegionId) -> Option<String> {
        Some("eu".to_string())
    }
    fn regions(&self) -> Vec<(RegionId, String)> {
        Vec::new()
    }
    fn nodes(&self) -> Vec<NodeSummary> {
        Vec::new()
    }
    fn clocks(&self) -> Vec<ClockSummary> {
        Vec::new()
    }
    fn ranges(&self) -> BoxFuture<'_, Vec<RangeSummary>> {
        async { Vec::new() }.boxed()
    }
    fn chaos(&self, _: ChaosCommand) -> BoxFuture<'_, Result<String, String>> {
        async { Err("no chaos here".to_string()) }.boxed()
    }
    fn chaos_active(&self) -> BoxFuture<'_, Vec<ChaosSummary>> {
        async { Vec::new() }.boxed()
    }
    fn broadcast_catalog(&self, _: u64) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
    fn split(&self, _: Vec<Key>) -> BoxFuture<'_, Result<(), String>> {
        async { Ok(()) }.boxed()
    }
    fn settle(&self, _: Vec<(RegionId, Key)>) -> BoxFuture<'_, Vec<(RegionId, Key)>> {
        async { Vec::new() }.boxed()
    }
}
