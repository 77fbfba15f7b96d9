//! A world boots, spreads its first range, and commits.

use bytes::Bytes;
use chaos::world::network::CLOG_MAX;
use chaos::world::{Damage, Layout, Level, SyncMode, World};
use replication::range::{NodeId, RangeId};
use replication::store::StoreConfig;
use std::collections::BTreeMap;
use std::time::Duration;
use storage::Key;
use txn::client::{RouterSettings, Settings, TxnOptions};
use txn::server::ServerConfig;

pub(crate) fn layout(seed: u64) -> Layout {
    let mut round_trips = BTreeMap::new();
    round_trips.insert((0, 1), Duration::from_millis(20));
    round_trips.insert((0, 2), Duration::from_millis(30));
    round_trips.insert((1, 2), Duration::from_millis(40));
    Layout {
        seed,
        regions: vec!["us-east".into(), "eu-west".into(), "ap-south".into()],
        nodes: 3,
        round_trips,
        one_way: BTreeMap::new(),
        store: StoreConfig::default(),
        segment_bytes: 128 << 10,
        log_cache_bytes: 32 << 20,
        spares: 0,
        damage: Damage::Promised,
        sync: (Duration::from_micros(100), Duration::from_millis(2)),
        sync_mode: SyncMode::InPlace,
        flush_interval: Duration::from_secs(2),
        lag: Duration::ZERO,
        clog_max: CLOG_MAX,
        call_timeout: Duration::from_secs(8),
        measured_kept: Duration::from_secs(5),
        level: Level::Keys,
        server: ServerConfig::new(NodeId(0)),
        client: Settings::default(),
        router: RouterSettings::default(),
        sql: sql::EngineSettings::default(),
        rare: BTreeMap::new(),
        core: false,
        planted: None,
    }
}

fn run_once(seed: u64) -> (u64, u64) {
    let mut world = World::new(layout(seed));
    let spread = world.run_until(Duration::from_secs(60), |world| world.voters_of(RangeId(1)) == 3);
    assert!(spread, "{}", world.describe());
    let access = world.access().clone();
    for node in 1..=3 {
        let access = access.clone();
        let done = world.block_on(Duration::from_secs(20), async move {
            access
                .on_node(NodeId(node), |gateway| {
                    Box::pin(async move {
                        gateway
                            .db
                            .run(TxnOptions::default(), |txn| {
                                Box::pin(async move {
                                    let key = Key::table(100);
                                    let old = txn.get(&key, None).await?;
                                    let mut value =
                                        old.map(|bytes| bytes.to_vec()).unwrap_or_default();
                                    value.push(b'x');
                                    txn.put(key, Bytes::from(value.clone()))?;
                                    Ok(value.len())
                                })
                            })
                            .await
                    })
                })
                .await
        });
        assert_eq!(done, Some(Ok(Ok(node as usize))), "{}", world.describe());
    }
    assert_eq!(world.violations(), &[]);
    (world.trace(), world.event_count())
}

#[test]
fn a_world_boots_and_commits_from_every_node_the_same_way_twice() {
    let first = run_once(1);
    assert_eq!(first, run_once(1));
    assert_ne!(first, run_once(2));
}
