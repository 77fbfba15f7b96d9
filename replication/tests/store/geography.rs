//! Claims about how long things take, with the distances of three regions and with those of a room, and with the durations that
//! production uses.

use clock::Timestamp;
use replication::range::{NodeId, RangeId};
use replication::store::{RangeEvent, StoreConfig};
use std::collections::BTreeMap;
use storage::Key;

use super::world::{FIRST, Settings, World, millis};

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);
/// Deaths played per place and leader.
const FAIL_OVERS: u64 = 20;

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

/// Who asks whether the cluster bears the loss of a node is told so when every range has three voters, not before, and soon after.
#[test]
fn a_young_cluster_is_settled_when_its_range_has_three_voters() {
    for seed in 0..20 {
        let mut world = World::new(seed, room(), World::infos(3));
        let mut settled = false;
        while !settled {
            world.run(millis(1));
            assert!(world.time < millis(60_000), "{}", world.describe(FIRST));
            let Some(leader) = world.leaseholder(FIRST) else { continue };
            let now = world.now_of(leader);
            let placement = world.store(leader).placement(now);
            assert_eq!(placement.nodes, 3);
            settled = placement.led == 1 && placement.unsettled == 0;
            assert!(!settled || world.voters(FIRST).len() == 3, "{}", world.describe(FIRST));
        }
    }
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
    assert_eq!(world.leaseholder(right), Some(left));
    assert_eq!(floor_of(world, right, left), floor_of(world, FIRST, left), "no commit waits");
    let write = world.write(at).expect("leased");
    while world.writes[write].outcome.is_none() {
        world.run(step);
    }
    (leased - applied, world.time - applied)
}

/// What the reign of `leader` over `range` began with.
fn floor_of(world: &World, range: RangeId, leader: NodeId) -> Timestamp {
    let led = world.events.iter().rev().find_map(|(node, event)| match event {
        RangeEvent::Led { range: of, floor, .. } if (*node, *of) == (leader, range) => Some(*floor),
        _ => None,
    });
    led.expect("it leads")
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

/// Nanoseconds from the death of the node that leads everything until each range is leased by another, and until a clock has passed
/// what its new reign begins with, so that a commit is answered.
fn fail_over(seed: u64, settings: &Settings, leader: NodeId) -> BTreeMap<RangeId, (u64, u64)> {
    let mut world = three_replicas(seed, settings.clone());
    move_lease(&mut world, leader);
    let mut ranges = vec![FIRST];
    for number in (1..14).rev() {
        ranges.push(world.split(&key(number)).expect("proposed"));
        world.run(millis(300));
    }
    world.run(millis(3_000) + seed * 77_000_000 % millis(500));
    assert!(ranges.iter().all(|range| world.leaseholder(*range) == Some(leader)));
    if seed % 2 == 0 {
        // Some have reached one follower, some both, some none: logs differ.
        for number in (0..16).cycle().take(48) {
            world.write(&key(number));
            world.run(millis(1) / 10);
        }
    }
    world.crash(leader);
    let died = world.time;
    let mut leased: BTreeMap<RangeId, (u64, u64)> = BTreeMap::new();
    while leased.len() < ranges.len() {
        world.run(millis(1));
        assert!(world.time < died + millis(30_000));
        for range in &ranges {
            if leased.contains_key(range) {
                continue;
            }
            if let Some(node) = world.leaseholder(*range) {
                let floor = floor_of(&world, *range, node);
                let ahead = floor.since(world.now_of(node).clock.timestamp());
                let at = world.time - died;
                leased.insert(*range, (at, at + ahead.as_nanos() as u64));
            }
        }
    }
    leased
}

#[test]
fn all_ranges_of_a_dead_node_go_on_elsewhere_as_soon_as_its_promises_have_run_out() {
    // A promise lasts 2 s, candidates are spread over another 190 ms, and one whose log is too short costs as much again. Three
    // regions: the dead node's last request has travelled for up to 95 ms; pre-votes, votes and the first entry take a round trip
    // of up to 190 ms each, and so does finding out about the log.
    for (name, settings, limit) in [("room", room(), 2_400), ("regions", regions(), 3_200)] {
        for leader in [N1, N2, N3] {
            let (mut gaps, mut answers) = (Vec::new(), Vec::new());
            for seed in 0..FAIL_OVERS {
                let leased = fail_over(seed, &settings, leader);
                gaps.extend(leased.values().map(|(gap, _)| gap / millis(1)));
                answers.extend(leased.values().map(|(_, answer)| answer / millis(1)));
            }
            let (leased, answered) = (Spread::of(gaps), Spread::of(answers));
            println!(
                "{name}, {leader} dies: leased after {leased}, commits answered after {answered}"
            );
            assert!(leased.most <= limit, "{name}, {leader} dies: {leased}");
        }
    }
}

/// Of many durations, in milliseconds.
struct Spread {
    least: u64,
    median: u64,
    most: u64,
}

impl Spread {
    fn of(mut millis: Vec<u64>) -> Spread {
        millis.sort_unstable();
        let at = |place: usize| millis[place];
        Spread { least: at(0), median: at(millis.len() / 2), most: at(millis.len() - 1) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Spread { least, median, most } = self;
        write!(f, "{least} to {most} ms (median {median})")
    }
}
