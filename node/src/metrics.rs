//! Value: what is measured, as Prometheus text. Gauges are read at the moment of the scrape; nothing is sampled in between.

use clock::TimeSource;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use replication::store::Placement;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use storage::Engine;
use storage::log::{Log, SegmentedLog};
use txn::runtime::HlcSource;

use crate::pg::listener::PgServer;
use crate::shard::{Input, ShardHandle};
use crate::shared::Shared;
use crate::transport::outbound::Outbound;

type Seconds = Gauge<f64, AtomicU64>;
type Labels = Vec<(String, String)>;

/// Everything that can be measured of a node.
pub struct Metrics {
    shared: Arc<Shared>,
    shard: ShardHandle,
    pg: Arc<PgServer>,
    engine: Arc<dyn Engine>,
    log: Arc<SegmentedLog>,
    outbound: Outbound,
}

impl Metrics {
    /// Of these parts.
    pub fn new(
        shared: Arc<Shared>,
        shard: ShardHandle,
        pg: Arc<PgServer>,
        engine: Arc<dyn Engine>,
        log: Arc<SegmentedLog>,
        outbound: Outbound,
    ) -> Metrics {
        Metrics { shared, shard, pg, engine, log, outbound }
    }

    /// Whether replicas are where they should be; `None`: the node is stopping.
    pub async fn placement(&self) -> Option<Placement> {
        self.shard.ask(Input::Placement).await
    }

    /// A few words for `/ready`.
    pub fn summary(&self, placement: Option<Placement>) -> serde_json::Value {
        json!({
            "id": self.shared.node.0,
            "nodes_known": placement.map(|placement| placement.nodes),
            "ranges_led": placement.map(|placement| placement.led),
            "ranges_unsettled": placement.map(|placement| placement.unsettled),
            "region": self.shared.region_name,
            "fenced": self.shared.clocks.is_fenced(),
            "sql_connections": self.pg.connection_count(),
        })
    }

    /// The page.
    pub async fn render(&self) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::default();
        self.register_node(&mut registry);
        self.register_clocks(&mut registry);
        self.register_transport(&mut registry);
        self.register_ranges(&mut registry).await;
        let mut page = String::new();
        encode(&mut page, &registry)?;
        Ok(page)
    }

    fn register_node(&self, registry: &mut Registry) {
        let info: Family<Labels, Gauge> = Family::default();
        let labels = vec![
            ("node".to_string(), self.shared.node.to_string()),
            ("region".to_string(), self.shared.region_name.clone()),
            ("version".to_string(), env!("CARGO_PKG_VERSION").to_string()),
        ];
        info.get_or_create(&labels).set(1);
        registry.register("node_build", "Which node this is", info);
        gauge(
            registry,
            "sql_connection_count",
            "Open PostgreSQL connections",
            self.pg.connection_count(),
        );
        gauge(registry, "chaos_fault_count", "Injected faults in force", self.faults());
        bytes(
            registry,
            "storage_unflushed",
            "State written since the last flush",
            self.engine.unflushed_bytes(),
        );
        bytes(registry, "storage_log", "Raft log on disk", self.log.bytes());
    }

    fn faults(&self) -> usize {
        self.shared.faults.active(self.shared.time.monotonic()).len()
    }

    fn register_clocks(&self, registry: &mut Registry) {
        let report = self.shared.clocks.report(self.shared.time.monotonic());
        seconds(
            registry,
            "clock_error_bound",
            "Our clock's error bound",
            report.bound.as_secs_f64(),
        );
        seconds(
            registry,
            "clock_uncertainty",
            "Added to readers' timestamps",
            self.shared.clocks.uncertainty().as_secs_f64(),
        );
        gauge(
            registry,
            "clock_fenced",
            "1 while the node has fenced itself",
            usize::from(report.fenced.is_some()),
        );
        let offsets: Family<Labels, Seconds> = Family::default();
        for (peer, estimate) in &report.peers {
            let labels = vec![("peer".to_string(), peer.to_string())];
            offsets.get_or_create(&labels).set(estimate.ahead_us() as f64 / 1e6);
        }
        registry.register_with_unit(
            "clock_offset",
            "Peers' clocks minus ours",
            Unit::Seconds,
            offsets,
        );
    }

    fn register_transport(&self, registry: &mut Registry) {
        let waiting: Family<Labels, Gauge> = Family::default();
        let dropped: Family<Labels, Counter> = Family::default();
        for (peer, backlog) in self.outbound.backlogs() {
            let labels = vec![("peer".to_string(), peer.to_string())];
            let bytes = i64::try_from(backlog.waiting_bytes).unwrap_or(i64::MAX);
            waiting.get_or_create(&labels).set(bytes);
            dropped.get_or_create(&labels).inc_by(backlog.dropped_count);
        }
        registry.register_with_unit(
            "transport_waiting",
            "Store messages that wait for a peer",
            Unit::Bytes,
            waiting,
        );
        registry.register(
            "transport_dropped_batch",
            "Batches of store messages that were dropped before they left: Raft repeats them",
            dropped,
        );
        let refused: Counter = Counter::default();
        refused.inc_by(self.shard.refused_count());
        registry.register(
            "shard_refused_input",
            "Calls and store messages that found the shard's inbox full",
            refused,
        );
    }

    async fn register_ranges(&self, registry: &mut Registry) {
        let Some(status) = self.shard.ask(Input::Status).await else { return };
        let led = status.iter().filter(|range| range.lease.is_some()).count();
        let stuck = status.iter().filter(|range| range.unavailable.is_some()).count();
        let pending: usize = status.iter().map(|range| range.proposals_pending).sum();
        let log: u64 = status.iter().map(|range| range.log_bytes).sum();
        gauge(registry, "replication_replica_count", "Replicas on this node", status.len());
        gauge(registry, "replication_lease_count", "Ranges this node holds the lease of", led);
        gauge(
            registry,
            "replication_unavailable_count",
            "Ranges that make no progress as seen here",
            stuck,
        );
        gauge(registry, "replication_proposal_count", "Proposals that are not decided", pending);
        let unsettled = self.placement().await.map_or(0, |placement| placement.unsettled);
        gauge(
            registry,
            "replication_unsettled_count",
            "Ranges led here that have a replica too few, too many, in the wrong place or without a vote",
            unsettled,
        );
        bytes(registry, "replication_live_log", "Log entries that are not truncated", log);
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: usize) {
    let metric: Gauge = Gauge::default();
    metric.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, metric);
}

fn bytes(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let metric: Gauge = Gauge::default();
    metric.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register_with_unit(name, help, Unit::Bytes, metric);
}

fn seconds(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let metric = Seconds::default();
    metric.set(value);
    registry.register_with_unit(name, help, Unit::Seconds, metric);
}
