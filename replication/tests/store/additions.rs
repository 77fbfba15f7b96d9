//! Claims about replicas that were added by an entry that was lost.

use std::collections::{BTreeMap, BTreeSet};

use replication::raft::{Body, Incarnation, LogIndex, Message, ReplicaId, Term};
use replication::range::{NodeId, RegionId};
use replication::store::StoreMessage;

use super::scenarios::{hand_over, tell_draining};
use super::world::{FIRST, Settings, World, millis};

const N1: NodeId = NodeId(1);
const N4: NodeId = NodeId(4);

/// Three voters, one per region; nodes 1 and 4 are in region 1, and 1 has a replica.
fn four_nodes() -> World {
    let mut world = World::new(1, Settings::default(), World::infos(4));
    world.await_voters(FIRST, 3, millis(30_000));
    if !world.voters(FIRST).contains(&N1) {
        tell_draining(&mut world, &|_| true, &[N4]);
        let back = |world: &mut World| world.voters(FIRST).contains(&N1);
        assert!(world.run_until(millis(20_000), back), "{}", world.describe(FIRST));
        tell_draining(&mut world, &|_| true, &[]);
    }
    world
}

/// Node 2 leads, cut off from all but those in `hears`, and appends that node 4 gets a replica. Then another leads, who does not know.
fn add_in_vain(world: &mut World, hears: &[NodeId]) {
    let leader = NodeId(2);
    hand_over(world, leader);
    for other in [N1, NodeId(3), N4].into_iter().filter(|node| !hears.contains(node)) {
        world.cuts.extend([(leader, other), (other, leader)]);
    }
    let before = world.store(leader).group(FIRST).expect("it has a replica").last;
    tell_draining(world, &|node| node == leader, &[N1]);
    let appended =
        |world: &mut World| world.store(leader).group(FIRST).expect("it has one").last > before;
    assert!(world.run_until(millis(3_000), appended), "{}", world.describe(FIRST));
    let other = |world: &mut World| world.leaseholder(FIRST).is_some_and(|node| node != leader);
    assert!(world.run_until(millis(9_000), other), "{}", world.describe(FIRST));
    tell_draining(world, &|node| node == leader, &[]);
}

/// Found by seed 3006868 of the simulator's workload shop.
#[test]
fn a_learner_is_added_where_a_lost_addition_left_a_replica_with_a_higher_number() {
    let mut world = four_nodes();
    // Of a first addition nobody hears; so the second one has a higher number than a third leader would give.
    add_in_vain(&mut world, &[]);
    world.cuts.clear();
    assert!(world.run_until(millis(9_000), World::is_quiet), "{}", world.describe(FIRST));
    add_in_vain(&mut world, &[N4]);
    tell_draining(&mut world, &|_| true, &[N1]);
    let moved = |world: &mut World| world.voters(FIRST).contains(&N4);
    assert!(world.run_until(millis(20_000), moved), "{}", world.describe(FIRST));
    world.cuts.clear();
    assert!(world.run_until(millis(20_000), World::is_quiet), "{}", world.describe(FIRST));
    world.check_converged();
}

#[test]
fn a_leader_of_a_former_term_takes_no_voter_away_by_an_addition_that_was_lost() {
    let mut world = four_nodes();
    let leader = world.leaseholder(FIRST).expect("leased");
    let voter = *world.voters(FIRST).iter().find(|node| **node != leader).expect("three");
    let append = |term: u64, to: u64| Message {
        from: ReplicaId(1),
        to: ReplicaId(to),
        term: Term::new(term),
        body: Body::Append {
            prev_index: LogIndex::ZERO,
            prev_term: Term::ZERO,
            entries: Vec::new(),
            commit: LogIndex::ZERO,
            durable: LogIndex::ZERO,
            context: 0,
        },
    };
    let term = world.store(voter).group(FIRST).expect("it has a replica").term;
    let incarnation = Incarnation(world.nodes[&leader].incarnation);
    let receive = |world: &mut World, message: Message| {
        let to_incarnation = Default::default();
        let message = StoreMessage::Raft { range: FIRST, message, incarnation, to_incarnation };
        world.with_store(voter, |store, now| store.message(now, leader, message));
        world.store(voter).descriptor(FIRST).is_some()
    };
    assert!(receive(&mut world, append(term.get() - 1, 90)), "its leader may lack our addition");
    assert!(!receive(&mut world, append(term.get(), 90)), "its leader has our removal");
}

#[test]
fn a_replica_with_a_higher_term_than_its_ranges_learns_of_its_removal_from_a_leader_it_does_not_know()
 {
    let mut world = World::new(1, Settings::default(), World::infos(6));
    world.await_voters(FIRST, 3, millis(30_000));
    let first: BTreeSet<NodeId> = world.voters(FIRST);
    let stranded = *first.iter().next_back().expect("three");
    let stays: Vec<NodeId> = first.iter().copied().filter(|node| *node != stranded).collect();
    hand_over(&mut world, stays[0]);
    let others: Vec<NodeId> = world.nodes.keys().copied().filter(|id| *id != stranded).collect();
    for other in others {
        world.cuts.extend([(stranded, other), (other, stranded)]);
    }
    world.run(millis(10_000));
    // Somebody stood for election in a term of which the others never hear.
    let peer_at = |world: &World, node: NodeId| {
        let descriptor = world.store(stranded).descriptor(FIRST).expect("it has a replica");
        descriptor.peer_on(node).expect("a member").replica
    };
    let term = Term::new(world.store(stranded).group(FIRST).expect("it has one").term.get() + 50);
    let vote = Message {
        from: peer_at(&world, stays[1]),
        to: peer_at(&world, stranded),
        term,
        body: Body::Vote { last_index: LogIndex::ZERO, last_term: Term::ZERO, blessed: false },
    };
    let incarnation = Incarnation(world.nodes[&stays[1]].incarnation);
    let vote = StoreMessage::Raft {
        range: FIRST,
        message: vote,
        incarnation,
        to_incarnation: Default::default(),
    };
    world.with_store(stranded, |store, now| store.message(now, stays[1], vote));
    assert_eq!(world.store(stranded).group(FIRST).expect("it has one").term, term);
    // The range moves to where it has never been.
    let draining: Vec<NodeId> = first.iter().copied().collect();
    tell_draining(&mut world, &|_| true, &draining);
    let moved = |world: &mut World| world.voters(FIRST).is_disjoint(&first);
    assert!(world.run_until(millis(60_000), moved), "{}", world.describe(FIRST));
    world.run(millis(10_000));
    let regions: BTreeMap<NodeId, RegionId> =
        world.infos.iter().map(|info| (info.node, info.region)).collect();
    let moved_to = world.voters(FIRST);
    let stand_in = moved_to.iter().find(|node| regions[node] == regions[&stranded]);
    let stand_in = *stand_in.expect("there is a voter in each region");
    world.cuts.clear();
    world.run(millis(10_000));
    assert!(
        world.store(stranded).group(FIRST).is_some(),
        "it was to be told by nobody but the new leader"
    );
    // And back to where the old replica is.
    tell_draining(&mut world, &|_| true, &[stays[0], stays[1], stand_in]);
    let back = |world: &mut World| world.voters(FIRST).contains(&stranded);
    assert!(world.run_until(millis(30_000), back), "{}", world.describe(FIRST));
    assert!(world.run_until(millis(30_000), World::is_quiet), "{}", world.describe(FIRST));
    world.check_converged();
}
