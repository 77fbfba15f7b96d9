//! How many round trips statements take over a wide area network, counted on virtual time.
//!
//! Links take their round trip and up to a tenth more; disks a few milliseconds. So a statement that takes one round trip too many is
//! far above its floor, and one that takes what it must is within a fifth of it.

use chaos::world::{Level, World, access::Gateway};
use replication::range::{NodeId, RangeId};
use sql::{Session, SessionParams};
use std::collections::BTreeMap;
use std::time::Duration;
use storage::{Key, Span};
use txn::client::{ScanOptions, TxnOptions};

use super::boot::layout;

/// Beside round trips: syncs, and what a tenth of jitter does not cover.
const SLACK: Duration = Duration::from_millis(12);

/// From this row on, table a is another range.
const FAR: u64 = 1_000_000;

async fn connect(gateway: &Gateway) -> Session {
    let engine = gateway.sql.as_ref().expect("the world has SQL");
    let params = SessionParams {
        user: "root".to_string(),
        database: "meridian".to_string(),
        application_name: "wan".to_string(),
        ..SessionParams::default()
    };
    engine.session(params).expect("root may connect")
}

async fn run(session: &mut Session, text: &str) {
    let mut script = session.simple(text).await;
    while let Some(outcome) = script.next(session).await {
        outcome.unwrap_or_else(|e| panic!("{text}: {e}"));
    }
}

/// How long it takes, the best of three: a message may meet a snapshot or an election on its way.
async fn time(gateway: &Gateway, session: &mut Session, text: impl Fn(u32) -> String) -> Duration {
    let mut best = Duration::MAX;
    for turn in 0..3 {
        let clock = &gateway.runtime.time;
        let begun = clock.monotonic();
        run(session, &text(turn)).await;
        best = best.min(clock.monotonic().since(begun));
        // What the statement leaves to be resolved is not the next one's.
        clock.sleep_until(clock.monotonic().plus(Duration::from_secs(2))).await;
    }
    best
}

/// Round trips between the regions of n1, n2 and n3.
fn round_trip(a: u32, b: u32) -> Duration {
    Duration::from_millis(match (a.min(b), a.max(b)) {
        (1, 2) => 100,
        (1, 3) => 260,
        (2, 3) => 180,
        _ => 0,
    })
}

/// From a leaseholder to the nearest other voter: with itself a majority of three.
fn quorum(of: u32) -> Duration {
    (1..=3).filter(|node| *node != of).map(|node| round_trip(of, node)).min().expect("two others")
}

struct Case {
    what: &'static str,
    /// Round trips from the gateway to the leaseholder, and rounds of consensus.
    rounds: (u32, u32),
    /// Where: by table, but for the second half of one.
    ranges: &'static [&'static str],
    text: fn(u32) -> String,
}

/// The key that a gateway writes in a turn.
const CASES: [Case; 10] = [
    Case {
        what: "plan",
        rounds: (0, 0),
        ranges: &[],
        text: |_| "EXPLAIN SELECT v FROM a WHERE k = 0".into(),
    },
    Case {
        what: "strong read",
        rounds: (1, 0),
        ranges: &["a"],
        text: |_| "SELECT v FROM a WHERE k = 0".into(),
    },
    Case {
        what: "strong read of two ranges",
        rounds: (1, 0),
        ranges: &["a", "far a"],
        text: |_| format!("SELECT v FROM a WHERE k IN (0, {FAR})"),
    },
    Case {
        what: "block that only reads",
        rounds: (1, 0),
        ranges: &["a"],
        text: |_| "BEGIN; SELECT v FROM a WHERE k = 0; COMMIT".into(),
    },
    Case {
        what: "strong write",
        rounds: (1, 1),
        ranges: &["a"],
        text: |key| format!("INSERT INTO a VALUES ({key}, 1)"),
    },
    Case {
        what: "strong write to two ranges",
        rounds: (1, 1),
        ranges: &["a", "far a"],
        text: |key| format!("INSERT INTO a VALUES ({key}, 1), ({}, 1)", FAR + u64::from(key)),
    },
    Case {
        what: "strong update",
        rounds: (2, 1),
        ranges: &["a"],
        text: |_| "UPDATE a SET v = v + 1 WHERE k = 0".into(),
    },
    Case {
        what: "block over three ranges",
        rounds: (4, 1),
        ranges: &["a", "b", "c"],
        text: |key| {
            format!(
                "BEGIN; INSERT INTO a VALUES ({key}, 1); INSERT INTO b VALUES ({key}, 1); INSERT INTO c VALUES ({key}, 1); COMMIT"
            )
        },
    },
    Case {
        what: "available read",
        rounds: (0, 0),
        ranges: &[],
        text: |_| "SELECT v FROM d WHERE k = 0".into(),
    },
    Case {
        what: "available write",
        rounds: (0, 0),
        ranges: &[],
        text: |key| format!("INSERT INTO d VALUES ({key}, 1)"),
    },
];

async fn measure(gateway: &Gateway) -> Vec<(&'static str, Duration)> {
    let mut session = connect(gateway).await;
    // Connections, caches and plans.
    run(&mut session, "SELECT v FROM a; SELECT v FROM b; SELECT v FROM c; SELECT v FROM d").await;
    let mut measured = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        let base = gateway.node.0 * 1000 + u32::try_from(number).expect("few") * 100;
        measured
            .push((case.what, time(gateway, &mut session, |turn| (case.text)(base + turn)).await));
    }
    measured
}

/// The tables' ids by name.
fn tables(gateway: &Gateway) -> BTreeMap<String, u32> {
    let catalog = gateway.sql.as_ref().expect("the world has SQL").catalog();
    catalog.tables().map(|table| (table.name.clone(), table.id)).collect()
}

#[test]
fn statements_take_the_round_trips_that_they_must_and_no_more() {
    let mut layout = layout(7);
    layout.level = Level::Sql;
    for ((a, b), trip) in &mut layout.round_trips {
        *trip = round_trip(*a as u32 + 1, *b as u32 + 1);
    }
    let mut world = World::new(layout);
    assert!(world.run_until(Duration::from_secs(60), |world| world.voters_of(RangeId(1)) == 3));
    let access = world.access().clone();
    let prepared = world.block_on(Duration::from_secs(120), async move {
        let work = |gateway: Gateway| async move {
            let mut session = connect(&gateway).await;
            for table in ["a", "b", "c", "d"] {
                let mode = if table == "d" { " WITH (consistency = 'available')" } else { "" };
                run(&mut session, &format!("CREATE TABLE {table} (k bigint PRIMARY KEY, v bigint){mode}; INSERT INTO {table} VALUES (0, 0)")).await;
            }
        };
        access.on_node(NodeId(1), |gateway| Box::pin(work(gateway.clone()))).await
    });
    assert_eq!(prepared, Some(Ok(())), "{}", world.describe());
    let access = world.access().clone();
    let split = world.block_on(Duration::from_secs(60), async move {
        let row = |gateway: Gateway| async move {
            let mut session = connect(&gateway).await;
            run(&mut session, &format!("INSERT INTO a VALUES ({FAR}, 0)")).await;
            let table = Span::prefix(&Key::table(tables(&gateway)["a"]));
            let mut txn = gateway.db.begin(TxnOptions::read_only("wan"));
            let rows = txn.scan(table, ScanOptions::default()).await.expect("nothing fails").rows;
            rows.last().expect("it was just inserted").0.clone()
        };
        let row = access.on_node(NodeId(1), |gateway| Box::pin(row(gateway.clone()))).await;
        let row = row.expect("nothing fails");
        access.split(row.clone()).await;
        row
    });
    let Some(far) = split else { panic!("{}", world.describe()) };
    // Ranges get their voters, leases come to rest.
    world.run(Duration::from_secs(30));
    for node in 1..=3u32 {
        let access = world.access().clone();
        let measured = world.block_on(Duration::from_secs(300), async move {
            let work =
                |gateway: Gateway| async move { (tables(&gateway), measure(&gateway).await) };
            access.on_node(NodeId(node), |gateway| Box::pin(work(gateway.clone()))).await
        });
        let Some(Ok((tables, measured))) = measured else { panic!("{}", world.describe()) };
        for (case, (what, took)) in CASES.iter().zip(measured) {
            let (trips, rounds) = case.rounds;
            let floor = |range: &&str| {
                let key = tables.get(*range).map_or(far.clone(), |table| Key::table(*table));
                let leader = world.leaseholder_of(&key).expect("somebody leads").0;
                round_trip(node, leader) * trips + quorum(leader) * rounds
            };
            let floor = case.ranges.iter().map(floor).max().unwrap_or_default();
            println!("{what:<24} n{node}: {took:?}, floor {floor:?}");
            assert!(
                took >= floor,
                "{what} at n{node} took {took:?}, below its floor {floor:?}: the floor is wrong"
            );
            let most = floor * 6 / 5 + SLACK;
            assert!(took <= most, "{what} at n{node} took {took:?}, its floor is {floor:?}");
        }
    }
}
