//! Claims about stores, one story each.

use replication::range::{NodeId, RangeId};
use replication::store::{Fencing, Outcome};
use std::collections::BTreeSet;
use storage::Key;
use storage::log::{LogGroup, LogReader};

use super::world::{FIRST, Settings, World, millis};

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);

fn key(number: u8) -> Key {
    Key::new(vec![0x10, 0, 0, 0, 1, number])
}

fn world(nodes: u32) -> World {
    World::new(1, Settings::default(), World::infos(nodes))
}

/// That node leads from now on, if it does not yet.
pub(super) fn hand_over(world: &mut World, to: NodeId) {
    let leader = world.leaseholder(FIRST).expect("leased");
    if leader != to {
        let high = world.read_high(leader, FIRST);
        world
            .with_store(leader, |store, now| store.transfer(now, FIRST, to, high))
            .expect("begins");
        assert!(world.run_until(millis(1_000), |world| world.leaseholder(FIRST) == Some(to)));
    }
}

fn three_replicas() -> World {
    let mut world = world(3);
    world.await_voters(FIRST, 3, millis(30_000));
    world
}

#[test]
fn one_node_leads_applies_and_replays_after_a_crash() {
    let mut world = world(1);
    assert!(world.write_and_wait(&key(1)));
    world.restart(N1);
    assert!(world.run_until(millis(10_000), |world| world.leaseholder(FIRST).is_some()));
    assert!(world.write_and_wait(&key(2)));
    world.check_converged();
}

#[test]
fn a_range_grows_from_one_replica_to_one_per_region() {
    let mut world = three_replicas();
    assert!(world.write_and_wait(&key(1)));
    assert!(world.run_until(millis(5_000), World::is_quiet));
    world.check_converged();
}

#[test]
fn a_dead_leader_is_followed_by_another_and_its_writes_stay() {
    let mut world = three_replicas();
    assert!(world.write_and_wait(&key(1)));
    let old = world.leaseholder(FIRST).expect("leased");
    world.crash(old);
    let moved = |world: &mut World| world.leaseholder(FIRST).is_some_and(|node| node != old);
    assert!(world.run_until(millis(8_000), moved));
    assert!(world.write_and_wait(&key(2)));
    world.start(old);
    assert!(world.run_until(millis(8_000), World::is_quiet));
    world.check_converged();
}

#[test]
fn all_crash_together_and_nothing_acknowledged_is_lost() {
    let mut world = three_replicas();
    for round in 0..4 {
        assert!(world.write_and_wait(&key(round)));
        for node in [N1, N2, N3] {
            world.restart(node);
        }
    }
    assert!(world.write_and_wait(&key(9)));
    assert!(world.run_until(millis(8_000), World::is_quiet));
    world.check_converged();
}

#[test]
fn leadership_moves_where_it_is_told_and_reads_stay_covered() {
    let mut world = three_replicas();
    for _ in 0..6 {
        let old = world.leaseholder(FIRST).expect("leased");
        let to = [N1, N2, N3].into_iter().find(|node| *node != old).expect("another");
        let high = world.read_high(old, FIRST);
        world.with_store(old, |store, now| store.transfer(now, FIRST, to, high)).expect("begins");
        assert_eq!(world.leaseholder(FIRST), None, "a leader that hands over serves no more");
        assert!(world.run_until(millis(1_000), |world| world.leaseholder(FIRST) == Some(to)));
    }
}

#[test]
fn a_fenced_node_has_no_lease_and_its_ranges_go_on_elsewhere() {
    let mut world = three_replicas();
    let old = world.leaseholder(FIRST).expect("leased");
    world.with_store(old, |store, now| store.set_fenced(now, Fencing::Fenced));
    assert_ne!(world.leaseholder(FIRST), Some(old));
    let moved = |world: &mut World| world.leaseholder(FIRST).is_some_and(|node| node != old);
    assert!(world.run_until(millis(2_000), moved), "sooner than promises run out");
    assert!(world.write_and_wait(&key(1)));
    world.with_store(old, |store, now| store.set_fenced(now, Fencing::Serving));
    assert!(world.run_until(millis(5_000), World::is_quiet));
    world.check_converged();
}

#[test]
fn a_stalled_disk_loses_its_leases() {
    let mut world = three_replicas();
    let old = world.leaseholder(FIRST).expect("leased");
    world.nodes.get_mut(&old).expect("node").stall = millis(60_000);
    world.write(&key(1)).expect("proposed");
    let moved = |world: &mut World| world.leaseholder(FIRST).is_some_and(|node| node != old);
    assert!(world.run_until(millis(6_000), moved));
    assert!(world.write_and_wait(&key(2)));
}

#[test]
fn a_follower_behind_the_log_gets_a_snapshot_and_a_crash_after_it_changes_nothing() {
    let mut settings = Settings::default();
    settings.store.log_bytes_max = 200;
    let mut world = World::new(3, settings, World::infos(3));
    world.await_voters(FIRST, 3, millis(30_000));
    let leader = world.leaseholder(FIRST).expect("leased");
    let behind = [N1, N2, N3].into_iter().find(|node| *node != leader).expect("another");
    world.crash(behind);
    for number in 0..16 {
        assert!(world.write_and_wait(&key(number)));
    }
    let ids = [N1, N2, N3];
    ids.into_iter().filter(|node| *node != behind).for_each(|node| world.flush(node));
    let before = world.coverage.get("snapshot accepted").copied().unwrap_or(0);
    world.start(behind);
    assert!(world.run_until(millis(10_000), World::is_quiet));
    assert!(world.coverage["snapshot accepted"] > before, "it came by snapshot");
    world.restart(behind);
    assert!(world.write_and_wait(&key(1)));
    assert!(world.run_until(millis(10_000), World::is_quiet));
    world.check_converged();
}

#[test]
fn both_halves_of_a_split_serve_at_once_from_the_same_node() {
    let mut world = three_replicas();
    for number in 0..16 {
        assert!(world.write_and_wait(&key(number)));
    }
    let left = world.leaseholder(FIRST).expect("leased");
    let right = world.split(&key(8)).expect("proposed");
    assert!(world.run_until(millis(500), |world| world.leaseholder(right) == Some(left)));
    assert_eq!(world.leaseholder(FIRST), Some(left));
    assert!(world.write_and_wait(&key(3)) && world.write_and_wait(&key(12)));
    assert!(world.run_until(millis(5_000), World::is_quiet));
    world.check_converged();
}

#[test]
fn a_lagging_replica_takes_part_in_the_split_it_has_missed() {
    let mut world = three_replicas();
    let leader = world.leaseholder(FIRST).expect("leased");
    let behind = [N1, N2, N3].into_iter().find(|node| *node != leader).expect("another");
    world.crash(behind);
    let right = world.split(&key(8)).expect("proposed");
    assert!(world.run_until(millis(3_000), |world| world.leaseholder(right).is_some()));
    assert!(world.write_and_wait(&key(12)));
    world.start(behind);
    assert!(world.run_until(millis(10_000), World::is_quiet));
    assert!(world.store(behind).descriptor(right).is_some());
    world.check_converged();
}

#[test]
fn all_crash_right_after_a_split_and_both_halves_come_back() {
    for seed in 0..20 {
        let mut world = World::new(seed, Settings::default(), World::infos(3));
        world.await_voters(FIRST, 3, millis(30_000));
        assert!(world.write_and_wait(&key(12)));
        let right = world.split(&key(8)).expect("proposed");
        world.run(millis(seed));
        for node in [N1, N2, N3] {
            world.restart(node);
        }
        assert!(world.write_and_wait(&key(1)) && world.write_and_wait(&key(13)));
        assert!(world.run_until(millis(10_000), World::is_quiet));
        world.check_converged();
        let born = world.store(N1).descriptor(right).is_some();
        assert!(born || seed < 20, "a split is all or nothing");
    }
}

#[test]
fn a_dead_node_is_replaced_and_hears_of_it_when_it_returns() {
    // Two nodes per region, so that its neighbour takes its place for good.
    let mut world = world(6);
    let voters = world.await_voters(FIRST, 3, millis(30_000));
    let leader = world.leaseholder(FIRST).expect("leased");
    let dead = *voters.iter().find(|node| **node != leader).expect("another");
    world.crash(dead);
    let replaced = |world: &mut World| {
        let now = world.voters(FIRST);
        now.len() == 3 && !now.contains(&dead)
    };
    assert!(!world.run_until(millis(8_000), replaced), "a short absence is no death");
    assert!(world.run_until(millis(20_000), replaced));
    assert!(world.write_and_wait(&key(1)));
    world.start(dead);
    let gone = |world: &mut World| world.store(dead).descriptor(FIRST).is_none();
    assert!(world.run_until(millis(30_000), gone), "{}", world.describe(FIRST));
    assert_eq!(world.nodes[&dead].log.groups().len(), 0, "nothing stays in the log");
    assert!(world.run_until(millis(10_000), World::is_quiet));
    world.check_converged();
}

#[test]
fn a_draining_node_hands_over_and_leaves_without_going_below_the_goal() {
    let mut world = world(4);
    world.await_voters(FIRST, 3, millis(30_000));
    let old = world.leaseholder(FIRST).expect("leased");
    drain(&mut world, Some(old));
    let left = |world: &mut World| {
        let voters = world.voters(FIRST);
        assert!(voters.is_empty() || voters.len() >= 3, "below the goal: {voters:?}");
        voters.len() == 3 && !voters.contains(&old)
    };
    assert!(world.run_until(millis(20_000), left), "{}", world.describe(FIRST));
    assert!(world.write_and_wait(&key(1)));
}

/// This node, and no other, drains from now on.
fn drain(world: &mut World, node: Option<NodeId>) {
    world.infos.iter_mut().for_each(|info| info.draining = Some(info.node) == node);
    tell_draining(world, &|_| true, node.as_slice());
}

/// Those of the nodes are told that these drain, and no others.
pub(super) fn tell_draining(world: &mut World, of: &dyn Fn(NodeId) -> bool, draining: &[NodeId]) {
    let mut infos = world.infos.clone();
    infos.iter_mut().for_each(|info| info.draining = draining.contains(&info.node));
    for id in world.nodes.keys().copied().filter(|id| of(*id)).collect::<Vec<_>>() {
        world.with_store(id, |store, now| store.set_nodes(now, infos.clone()));
    }
}

/// Found by seed 1005893 of the simulator's workload skew.
#[test]
fn a_voter_is_not_bound_for_ever_to_a_leader_whose_replica_was_removed() {
    // Nodes 1 and 4 are in region 1.
    let mut world = world(4);
    let voters = world.await_voters(FIRST, 3, millis(30_000));
    let neighbours = [N1, NodeId(4)];
    let gone = *neighbours.iter().find(|node| voters.contains(node)).expect("one of them");
    let other = *neighbours.iter().find(|node| **node != gone).expect("two");
    hand_over(&mut world, gone);
    assert!(world.write_and_wait(&key(1)));
    // Node 3 has acknowledged that leader, and hears nothing of what follows; its store keeps its promises.
    for node in [N1, N2, NodeId(4)] {
        world.mutes.extend([(node, N3, FIRST), (N3, node, FIRST)]);
    }
    drain(&mut world, Some(gone));
    let left = |world: &mut World| {
        world.voters(FIRST).contains(&other) && world.store(gone).descriptor(FIRST).is_none()
    };
    assert!(world.run_until(millis(20_000), left), "{}", world.describe(FIRST));
    hand_over(&mut world, N2);
    world.crash(N2);
    world.mutes.clear();
    let led = |world: &mut World| world.leaseholder(FIRST).is_some();
    assert!(world.run_until(millis(10_000), led), "{}", world.describe(FIRST));
    assert!(world.write_and_wait(&key(2)));
}

/// Found by seed 2015881 of the simulator's workload bank.
#[test]
fn a_removed_replica_that_knows_no_leader_soon_hears_of_it_and_accuses_nobody() {
    // Two nodes per region: whoever leaves is replaced by its neighbour.
    let mut world = world(6);
    let voters = world.await_voters(FIRST, 3, millis(30_000));
    let leader = world.leaseholder(FIRST).expect("leased");
    let gone = *voters.iter().find(|node| **node != leader).expect("another");
    // It lives, and is heard of; but neither the group's messages nor the word of its removal reach it.
    world.nobody_hears_gone = true;
    for from in world.nodes.keys().copied().collect::<Vec<_>>() {
        world.mutes.insert((from, gone, FIRST));
    }
    drain(&mut world, Some(gone));
    let replaced = |world: &mut World| {
        let now = world.voters(FIRST);
        now.len() == 3 && !now.contains(&gone)
    };
    assert!(world.run_until(millis(20_000), replaced), "{}", world.describe(FIRST));
    // Of those that it knows the leader dies: it sees a quorum, and nobody leads it. By and by nobody reminds it any more.
    world.crash(leader);
    world.run(millis(40_000));
    let unavailable = world.with_store(gone, |store, now| store.unavailable(now, FIRST));
    assert_eq!(unavailable.expect("it knows no leader").missing, vec![]);
    world.nobody_hears_gone = false;
    let heard = |world: &mut World| world.store(gone).descriptor(FIRST).is_none();
    assert!(world.run_until(millis(5_000), heard), "{}", world.describe(FIRST));
}

#[test]
fn a_node_that_hears_of_its_removal_after_its_return_was_decided_takes_part_again() {
    // Nodes 1 and 4 are in region 1.
    let mut world = world(4);
    let voters = world.await_voters(FIRST, 3, millis(30_000));
    let leader = world.leaseholder(FIRST).expect("leased");
    let neighbours = [N1, NodeId(4)];
    let gone = *neighbours.iter().find(|node| voters.contains(node)).expect("one of them");
    let other = *neighbours.iter().find(|node| **node != gone).expect("two");
    if leader == gone {
        hand_over(&mut world, N2);
    }
    drain(&mut world, Some(gone));
    // It lives, and is heard of; but what the group says to it is lost.
    world.nobody_hears_gone = true;
    for from in [N1, N2, N3, NodeId(4)] {
        world.mutes.insert((from, gone, FIRST));
    }
    let replaced = |world: &mut World| world.voters(FIRST).contains(&other);
    assert!(world.run_until(millis(20_000), replaced), "{}", world.describe(FIRST));
    assert!(world.store(gone).descriptor(FIRST).is_some(), "it does not know yet");
    drain(&mut world, Some(other));
    let named = |world: &mut World| {
        let holder = world.leaseholder(FIRST);
        let descriptor = holder.and_then(|node| world.store(node).descriptor(FIRST).cloned());
        descriptor.is_some_and(|descriptor| descriptor.peer_on(gone).is_some())
    };
    assert!(world.run_until(millis(20_000), named), "{}", world.describe(FIRST));
    // It asks, and hears of its removal from somebody who knows of its return.
    world.nobody_hears_gone = false;
    let heard = |world: &mut World| world.store(gone).descriptor(FIRST).is_none();
    assert!(world.run_until(millis(20_000), heard), "{}", world.describe(FIRST));
    world.mutes.clear();
    let back = |world: &mut World| world.voters(FIRST).contains(&gone);
    assert!(world.run_until(millis(30_000), back), "{}", world.describe(FIRST));
}

#[test]
fn a_copy_lives_in_its_own_region_only() {
    // Nodes 1 and 4, 7 are in region 1; 2, 5 and 8 in region 2; 3, 6 and 9 in region 0.
    let mut world = world(9);
    world.await_voters(FIRST, 3, millis(30_000));
    let copy = Key::copy(2, 1);
    let copies = world.split(&copy).expect("proposed");
    assert!(world.run_until(millis(3_000), |world| world.leaseholder(copies).is_some()));
    let rest = world.split(&copy.prefix_end()).expect("proposed");
    assert!(world.run_until(millis(3_000), |world| world.leaseholder(rest).is_some()));
    let local: BTreeSet<NodeId> = [N2, NodeId(5), NodeId(8)].into();
    let moved = |world: &mut World| world.voters(copies) == local;
    assert!(world.run_until(millis(60_000), moved), "{}", world.describe(copies));
    assert!(local.contains(&world.leaseholder(copies).expect("leased")));
    let spread: BTreeSet<u32> = world.voters(rest).iter().map(|node| node.0 % 3).collect();
    assert_eq!(spread.len(), 3, "strong ranges stay spread");
}

#[test]
fn a_minority_says_who_is_missing_and_a_majority_goes_on() {
    let mut world = three_replicas();
    let leader = world.leaseholder(FIRST).expect("leased");
    let others: Vec<NodeId> = [N1, N2, N3].into_iter().filter(|node| *node != leader).collect();
    for other in &others {
        world.cuts.extend([(leader, *other), (*other, leader)]);
    }
    world.run(millis(7_000));
    let now = world.now_of(leader);
    let unavailable = world.store(leader).unavailable(now, FIRST).expect("told in time");
    assert_eq!(unavailable.missing, others);
    assert!(world.leaseholder(FIRST).is_some_and(|node| node != leader));
    let now = world.now_of(others[0]);
    assert_eq!(world.store(others[0]).unavailable(now, FIRST), None);
    world.cuts.clear();
    assert!(world.run_until(millis(5_000), World::is_quiet));
    let now = world.now_of(leader);
    assert_eq!(world.store(leader).unavailable(now, FIRST), None);
}

/// A change of members that is lost, and not known to be, has given a number to another replica than the one that leads now.
#[test]
fn a_leader_is_heard_whose_number_a_lost_change_gave_to_another() {
    let mut world = world(9);
    let voters = world.await_voters(FIRST, 3, millis(30_000));
    let old = world.leaseholder(FIRST).expect("leased");
    let leaves = *voters.iter().find(|node| **node != old).expect("three");
    let neighbours: Vec<NodeId> =
        (1..=9).map(NodeId).filter(|node| *node != leaves && node.0 % 3 == leaves.0 % 3).collect();
    let (lost, real) = (neighbours[0], neighbours[1]);
    // Cut off, it appends that the node that leaves is to be replaced by one, and nobody hears of it.
    for other in (1..=9).map(NodeId).filter(|node| *node != old) {
        world.cuts.extend([(old, other), (other, old)]);
    }
    tell_draining(&mut world, &|id| id == old, &[leaves, real]);
    let appended = |world: &mut World| {
        let now = world.now_of(old);
        let last = world.store(old).group(FIRST).expect("it has a replica").last;
        let commit = world.store(old).group(FIRST).expect("it has a replica").commit;
        last > commit && world.store(old).status(now).len() == 1
    };
    assert!(world.run_until(millis(3_000), appended), "{}", world.describe(FIRST));
    // The others replace it by another one, which leads then.
    tell_draining(&mut world, &|id| id != old, &[leaves, lost]);
    let replaced = |world: &mut World| {
        let voters = world.voters(FIRST);
        voters.contains(&real) && !voters.contains(&leaves)
    };
    assert!(world.run_until(millis(30_000), replaced), "{}", world.describe(FIRST));
    hand_over(&mut world, real);
    tell_draining(&mut world, &|_| true, &[leaves, lost]);
    world.cuts.clear();
    let followed = |world: &mut World| world.store(old).leader_node(FIRST) == Some(real);
    assert!(world.run_until(millis(5_000), followed), "{}", world.describe(FIRST));
    assert!(world.run_until(millis(10_000), World::is_quiet));
    world.check_converged();
}

#[test]
fn a_leader_that_nobody_can_answer_is_replaced() {
    let mut world = three_replicas();
    let leader = world.leaseholder(FIRST).expect("leased");
    for other in [N1, N2, N3] {
        world.cuts.insert((other, leader));
    }
    let moved = |world: &mut World| world.leaseholder(FIRST).is_some_and(|node| node != leader);
    assert!(world.run_until(millis(8_000), moved), "{}", world.describe(FIRST));
}

#[test]
fn a_proposal_that_lost_its_index_is_dropped_even_if_nothing_comes_after() {
    let mut world = three_replicas();
    let leader = world.leaseholder(FIRST).expect("leased");
    for other in [N1, N2, N3].into_iter().filter(|node| *node != leader) {
        world.cuts.extend([(leader, other), (other, leader)]);
    }
    let writes: Vec<usize> = (0..4).filter_map(|number| world.write(&key(number))).collect();
    assert_eq!(writes.len(), 4);
    world.run(millis(6_000));
    world.cuts.clear();
    let decided = |world: &mut World| {
        writes.iter().all(|write| world.writes[*write].outcome == Some(Outcome::Dropped))
    };
    assert!(world.run_until(millis(6_000), decided));
    world.check_converged();
}

#[test]
fn an_idle_cluster_of_many_ranges_is_silent_but_for_promises() {
    let mut world = three_replicas();
    for number in 1..16 {
        let right = world.split(&key(number)).expect("proposed");
        assert!(world.run_until(millis(3_000), |world| world.leaseholder(right).is_some()));
    }
    assert!(world.run_until(millis(10_000), World::is_quiet));
    world.run(millis(3_000));
    let before = world.coverage["raft"];
    world.run(millis(10_000));
    assert_eq!(world.coverage["raft"], before, "no message per range");
    assert!((2..world.next_range).all(|range| world.leaseholder(RangeId(range)).is_some()));
}

#[test]
fn what_is_flushed_leaves_the_log() {
    let mut settings = Settings::default();
    settings.store.log_bytes_max = 1_000;
    let mut world = World::new(5, settings, World::infos(1));
    for number in 0..100 {
        assert!(world.write_and_wait(&key(number % 16)));
    }
    let group = |world: &World| world.nodes[&N1].log.groups()[0].1.truncated.0;
    let before = group(&world);
    world.flush(N1);
    assert!(group(&world) > before.after(90));
    world.restart(N1);
    assert!(world.write_and_wait(&key(1)));
    world.check_converged();
    assert!(world.nodes[&N1].log.term(LogGroup(1), group(&world)).is_some());
}

#[test]
fn a_proposal_under_a_snapshot_is_unknown() {
    let mut settings = Settings::default();
    settings.store.log_bytes_max = 200;
    let mut world = World::new(3, settings, World::infos(3));
    world.await_voters(FIRST, 3, millis(30_000));
    let leader = world.leaseholder(FIRST).expect("leased");
    let others: Vec<NodeId> = [N1, N2, N3].into_iter().filter(|node| *node != leader).collect();
    for other in &others {
        world.cuts.extend([(leader, *other), (*other, leader)]);
    }
    let write = world.write(&key(1)).expect("proposed");
    assert!(world.run_until(millis(9_000), |world| {
        world.leaseholder(FIRST).is_some_and(|node| node != leader)
    }));
    for number in 0..16 {
        assert!(world.write_and_wait(&key(number)));
    }
    others.iter().for_each(|node| world.flush(*node));
    world.cuts.clear();
    let decided = |world: &mut World| world.writes[write].outcome.is_some();
    assert!(world.run_until(millis(9_000), decided));
    assert_eq!(world.writes[write].outcome, Some(Outcome::Unknown));
}
