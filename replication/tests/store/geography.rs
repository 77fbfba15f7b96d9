//! Claims about how long things take, with the distances of three regions and with those of a room, and with the durations that
//! production uses.

use replication::range::NodeId;
use replication::store::StoreConfig;
use storage::Key;

use super::world::{FIRST, Settings, World, millis};

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);

fn key(number: u8) -> Key {
    Key::new(vec![0x10, 0, 0, 0, 1, number])
}

/// Three regions with round trips of 68, 122 and 190 ms.
fn regions() -> Settings {
    Settings {
        store: StoreConfig::default(),
        distances: [((N1, N2), millis(34)), ((N2, N3), millis(61)), ((N1, N3), millis(95))].into(),
        latency_max: millis(1),
        sync_max: millis(2),
        ..Settings::default()
    }
}

/// Three machines in one room: a message takes half a millisecond at most.
fn room() -> Settings {
    Settings {
        store: StoreConfig::default(),
        latency_max: millis(1) / 2,
        sync_max: millis(1) / 2,
        ..Settings::default()
    }
}

fn three_replicas(seed: u64, settings: Settings) -> World {
    let mut world = World::new(seed, settings, World::infos(3));
    world.await_voters(FIRST, 3, millis(60_000));
    world.run(millis(3_000));
    world
}

/// Splits at `at`; nanoseconds from the moment the left range's leaseholder has applied it until the right range is leased, and
/// until the first write on it is applied.
fn time_to_serve(world: &mut World, at: &Key) -> (u64, u64) {
    let left = world.leaseholder(FIRST).expect("leased");
    let right = world.split(at).expect("proposed");
    let step = millis(1) / 10;
    while world.store(left).descriptor(right).is_none() {
        world.run(step);
    }
    let applied = world.time;
    while world.leaseholder(right).is_none() {
        world.run(step);
        assert!(world.time < applied + millis(10_000), "{}", world.describe(right));
    }
    let leased = world.time;
    let write = world.write(at).expect("leased");
    while world.writes[write].outcome.is_none() {
        world.run(step);
    }
    (leased - applied, world.time - applied)
}

/// The longest of many, with every node leading in turn.
fn longest_to_serve(settings: &Settings, leader: NodeId) -> u64 {
    let mut longest = 0;
    for seed in 0..6 {
        let mut world = three_replicas(seed, settings.clone());
        move_lease(&mut world, leader);
        let snapshots = world.coverage.get("snapshot chunk").copied();
        for number in (1..8).rev() {
            let (leased, written) = time_to_serve(&mut world, &key(number));
            assert!(written >= leased);
            longest = longest.max(leased);
            world.run(millis(1_000));
        }
        assert_eq!(world.coverage.get("snapshot chunk").copied(), snapshots, "none is needed");
    }
    longest
}

fn move_lease(world: &mut World, to: NodeId) {
    let from = world.leaseholder(FIRST).expect("leased");
    if from != to {
        let high = world.read_high(from, FIRST);
        world.with_store(from, |store, now| store.transfer(now, FIRST, to, high)).expect("begins");
        assert!(world.run_until(millis(3_000), |world| world.leaseholder(FIRST) == Some(to)));
        world.run(millis(1_000));
    }
}

#[test]
fn the_right_side_of_a_split_serves_after_one_round_trip_to_the_nearest_quorum() {
    let room = room();
    for leader in [N1, N2, N3] {
        let longest = longest_to_serve(&room, leader);
        assert!(longest <= millis(5), "led by {leader}: {} us", longest / 1000);
    }
    // Round trip to the nearest quorum, in milliseconds; the rest is jitter and syncs.
    let regions = regions();
    for (leader, round_trip) in [(N1, 68), (N2, 68), (N3, 122)] {
        let longest = longest_to_serve(&regions, leader);
        assert!(longest <= millis(round_trip + 8), "led by {leader}: {} us", longest / 1000);
    }
}

#[test]
fn an_append_that_overtakes_the_split_waits_for_it() {
    let mut settings = regions();
    // Messages overtake each other by up to so much; both must have come.
    settings.latency_max = millis(30);
    let longest = longest_to_serve(&settings, N1);
    assert!(longest <= millis(68 + 2 * 30 + 8), "{} us", longest / 1000);
}
