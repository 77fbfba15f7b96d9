//! Claims about the reign over the right side of a split: who begins it, and what may happen in between. How soon it begins is in
//! [`super::geography`].

use replication::raft::PlantedBug;
use replication::range::{NodeId, RangeId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use storage::Key;

use super::world::{FIRST, Settings, World, millis};

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);
const SEEDS: u64 = 30;

fn key(number: u8) -> Key {
    Key::new(vec![0x10, 0, 0, 0, 1, number])
}

fn three_replicas(seed: u64, planted: Option<PlantedBug>) -> World {
    let mut settings = Settings::default();
    settings.store.raft.planted = planted;
    let mut world = World::new(seed, settings, World::infos(3));
    world.await_voters(FIRST, 3, millis(30_000));
    world.run(millis(1_000));
    world
}

fn others(leader: NodeId) -> [NodeId; 2] {
    let others: Vec<NodeId> = [N1, N2, N3].into_iter().filter(|node| *node != leader).collect();
    others.try_into().expect("two")
}

/// Splits, and stops when `node` has applied it. The leaseholder and the right range.
fn split_applied_at(world: &mut World, node: impl Fn(NodeId) -> NodeId) -> (NodeId, RangeId) {
    let leader = world.leaseholder(FIRST).expect("leased");
    let right = world.split(&key(8)).expect("proposed");
    let node = node(leader);
    for _ in 0..20_000 {
        if world.store(node).descriptor(right).is_some() {
            return (leader, right);
        }
        world.run(millis(1) / 10);
    }
    panic!("{node} does not apply the split");
}

fn cut(world: &mut World, from: NodeId, to: &[NodeId]) {
    world.cuts.extend(to.iter().map(|to| (from, *to)));
}

fn heal_and_check(world: &mut World) {
    world.cuts.clear();
    world.mutes.clear();
    for node in [N1, N2, N3] {
        if world.nodes[&node].store.is_none() {
            world.start(node);
        }
    }
    assert!(world.write_and_wait(&key(1)) && world.write_and_wait(&key(12)));
    assert!(world.run_until(millis(10_000), World::is_quiet));
    world.check_converged();
}

/// The leader applies the split, leads the right range, and nobody ever hears of it.
fn a_leader_cut_off_as_it_applies(seed: u64, planted: Option<PlantedBug>) {
    let mut world = three_replicas(seed, planted);
    let (leader, right) = split_applied_at(&mut world, |leader| leader);
    cut(&mut world, leader, &others(leader));
    let moved = |world: &mut World| world.leaseholder(right).is_some_and(|node| node != leader);
    assert!(world.run_until(millis(4_000), moved), "{}", world.describe(right));
    heal_and_check(&mut world);
}

/// One follower has acknowledged the leader in the right range; the other knows of no split, and may lead the left range next.
fn a_leader_cut_off_when_one_has_heard(seed: u64, planted: Option<PlantedBug>) {
    let mut world = three_replicas(seed, planted);
    let (leader, right) = split_applied_at(&mut world, |leader| leader);
    let [one, two] = others(leader);
    cut(&mut world, leader, &[two]);
    let leased = |world: &mut World| world.leaseholder(right) == Some(leader);
    assert!(world.run_until(millis(100), leased), "{}", world.describe(right));
    cut(&mut world, leader, &[one]);
    let moved = |world: &mut World| world.leaseholder(right).is_some_and(|node| node != leader);
    assert!(world.run_until(millis(6_000), moved), "{}", world.describe(right));
    heal_and_check(&mut world);
}

/// A follower acknowledges the leader of the right range before the split is applied there. What it said then still binds it when
/// it is applied: until its store's promise has run out, it helps nobody else.
fn an_acknowledgement_before_birth(seed: u64, planted: Option<PlantedBug>) {
    let mut world = three_replicas(seed, planted);
    let leader = world.leaseholder(FIRST).expect("leased");
    let [one, late] = others(leader);
    world.mutes.insert((leader, late, FIRST));
    let (_, right) = split_applied_at(&mut world, |_| leader);
    world.run(millis(1_500));
    assert_eq!(world.leaseholder(right), Some(leader), "{}", world.describe(right));
    cut(&mut world, leader, &[one]);
    cut(&mut world, one, &[leader]);
    world.run(millis(1_500));
    assert_eq!(world.leaseholder(right), Some(leader), "the late one's promise is counted");
    world.mutes.clear();
    for _ in 0..20_000 {
        if world.store(late).descriptor(right).is_some() {
            break;
        }
        world.run(millis(1) / 10);
    }
    cut(&mut world, leader, &[late]);
    cut(&mut world, late, &[leader]);
    let moved = |world: &mut World| world.leaseholder(right) == Some(one);
    assert!(world.run_until(millis(6_000), moved), "{}", world.describe(right));
    heal_and_check(&mut world);
}

type Story = fn(u64, Option<PlantedBug>);

fn always(story: Story) {
    (0..SEEDS).for_each(|seed| story(seed, None));
}

#[test]
fn a_leader_that_is_cut_off_before_anybody_hears_of_the_right_range_is_replaced() {
    always(a_leader_cut_off_as_it_applies);
}

#[test]
fn a_leader_that_one_has_heard_of_is_replaced() {
    always(a_leader_cut_off_when_one_has_heard);
}

#[test]
fn what_was_acknowledged_before_birth_binds_after_it() {
    always(an_acknowledgement_before_birth);
}

/// The tester tested.
#[test]
fn planted_bugs_of_births_are_noticed() {
    let plants: [(PlantedBug, Story); 3] = [
        (PlantedBug::BirthLedByAnyLeader, a_leader_cut_off_when_one_has_heard),
        (PlantedBug::BirthFloorOfOthers, a_leader_cut_off_as_it_applies),
        (PlantedBug::BirthForgetsBinding, an_acknowledgement_before_birth),
    ];
    for (bug, story) in plants {
        let noticed = (0..SEEDS)
            .find(|seed| catch_unwind(AssertUnwindSafe(|| story(*seed, Some(bug)))).is_err());
        assert!(noticed.is_some(), "{bug:?} not noticed within {SEEDS} seeds");
    }
}

#[test]
fn a_leader_that_dies_as_it_applies_the_split_is_replaced() {
    for seed in 0..SEEDS {
        let mut world = three_replicas(seed, None);
        let applies_first = |leader: NodeId| if seed % 2 == 0 { leader } else { others(leader)[0] };
        let (leader, right) = split_applied_at(&mut world, applies_first);
        world.crash(leader);
        let leased = |world: &mut World| world.leaseholder(right).is_some();
        assert!(world.run_until(millis(5_000), leased), "{}", world.describe(right));
        heal_and_check(&mut world);
    }
}

#[test]
fn a_split_and_a_transfer_at_once_leave_both_halves_led() {
    for seed in 0..SEEDS {
        let mut world = three_replicas(seed, None);
        let leader = world.leaseholder(FIRST).expect("leased");
        let to = others(leader)[(seed % 2) as usize];
        let right = world.split(&key(8)).expect("proposed");
        world.run(millis(1) * (seed % 12));
        let high = world.read_high(leader, FIRST);
        world
            .with_store(leader, |store, now| store.transfer(now, FIRST, to, high))
            .expect("begins");
        let led = |world: &mut World| {
            world.leaseholder(FIRST) == Some(to) && world.leaseholder(right).is_some()
        };
        assert!(world.run_until(millis(2_000), led), "seed {seed} {}", world.describe(right));
        heal_and_check(&mut world);
    }
}

#[test]
fn a_leader_whose_disk_lags_finds_the_right_range_led_by_another_or_leads_it() {
    for seed in 0..SEEDS {
        let mut world = three_replicas(seed, None);
        let leader = world.leaseholder(FIRST).expect("leased");
        world.nodes.get_mut(&leader).expect("node").stall = millis(40 * seed);
        let right = world.split(&key(8)).expect("proposed");
        world.run(millis(3));
        world.nodes.get_mut(&leader).expect("node").stall = 0;
        let leased = |world: &mut World| world.leaseholder(right).is_some();
        assert!(world.run_until(millis(4_000), leased), "seed {seed} {}", world.describe(right));
        heal_and_check(&mut world);
    }
}
