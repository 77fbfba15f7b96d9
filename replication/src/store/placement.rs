//! Value: where the replicas of a range should be, and the next step towards it. A pure function of what the leader knows.
//!
//! - A range whose keys are a region's copy of an available table lives in that region only; every other range wherever nodes are.
//! - As many voters as configured, as far as there are nodes, and an odd number.
//! - One per region first, then one per zone; what is there stays if it is as good as anything else.
//! - A replica is added (as a learner, with a snapshot) before another is removed; never fewer voters than the goal.
//! - The leader is never removed in place: leadership is handed over first.
//! - A voter is given up when its node is dead (unheard of for long), draining, in the wrong region, or worse placed than a
//!   learner that is ready.

use std::collections::{BTreeMap, BTreeSet};

use super::NodeInfo;
use crate::raft::ReplicaId;
use crate::range::{NodeId, Peer, PeerRole, RangeDescriptor, RegionId};

/// How a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Liveness {
    /// Heard of just now.
    Live,
    /// Silent, but not for long enough to be given up.
    Silent,
    /// Silent for so long that its replicas are rebuilt elsewhere.
    Dead,
}

/// One step. At most one is under way per range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Leave the joint configuration.
    LeaveJoint,
    /// Add a learner on a node.
    AddLearner(NodeId),
    /// Remove a learner.
    RemoveLearner(ReplicaId),
    /// Enter a joint configuration: learners become voters, voters leave.
    Exchange {
        /// Learners, all caught up.
        promote: Vec<ReplicaId>,
        /// Voters; never the leader.
        remove: Vec<ReplicaId>,
    },
    /// Hand leadership to a voter.
    Transfer(NodeId),
}

/// What the decision depends on.
pub struct View<'a> {
    /// As applied; no change is under way.
    pub descriptor: &'a RangeDescriptor,
    /// The replica that decides.
    pub leader: ReplicaId,
    /// All nodes of the cluster.
    pub nodes: &'a BTreeMap<NodeId, NodeInfo>,
    /// Of every node in `nodes` and of every peer's.
    pub liveness: &'a dyn Fn(NodeId) -> Liveness,
    /// Replicas that have (nearly) the whole log.
    pub caught_up: &'a BTreeSet<ReplicaId>,
    /// Replicas wanted, odd.
    pub replicas: usize,
}

/// The next step, if any is needed and possible.
pub fn next(view: &View<'_>) -> Option<Action> {
    let descriptor = view.descriptor;
    let leader = descriptor.peer(view.leader)?;
    if descriptor.is_joint() {
        return match leader.role {
            PeerRole::Outgoing => successor(view, &BTreeSet::new()).map(Action::Transfer),
            PeerRole::Voter | PeerRole::VoterBoth | PeerRole::Learner => Some(Action::LeaveJoint),
        };
    }
    let leader_node = leader.node;
    let scope = Scope::of(view);
    let goal = scope.goal(view);
    if goal == 0 {
        return None;
    }
    let target = scope.choose(view, leader_node, goal);
    let learners = || descriptor.peers.iter().filter(|peer| peer.role == PeerRole::Learner);
    let voters = || descriptor.peers.iter().filter(|peer| peer.role == PeerRole::Voter);
    // A learner nobody waits for.
    if let Some(stray) = learners().find(|peer| !target.contains(&peer.node)) {
        return Some(Action::RemoveLearner(stray.replica));
    }
    let missing = target.iter().find(|node| descriptor.peer_on(**node).is_none());
    if let Some(node) = missing {
        return Some(Action::AddLearner(*node));
    }
    if !learners().all(|peer| view.caught_up.contains(&peer.replica)) {
        return None;
    }
    let promote: Vec<ReplicaId> = learners().map(|peer| peer.replica).collect();
    let leaving: Vec<&Peer> = voters().filter(|peer| !target.contains(&peer.node)).collect();
    if promote.is_empty() && leaving.is_empty() {
        return None;
    }
    let remove: Vec<ReplicaId> =
        leaving.iter().map(|peer| peer.replica).filter(|replica| *replica != view.leader).collect();
    if promote.is_empty() && remove.is_empty() {
        return successor(view, &target).map(Action::Transfer);
    }
    let after = voters().count() + promote.len() - remove.len();
    if after < goal {
        return None;
    }
    // A leader that should leave stays for now: it goes under its successor.
    Some(Action::Exchange { promote, remove })
}

/// A live, caught-up voter other than the leader, best one that stays.
pub fn successor(view: &View<'_>, stays: &BTreeSet<NodeId>) -> Option<NodeId> {
    let fit = |peer: &&Peer| {
        peer.replica != view.leader
            && matches!(peer.role, PeerRole::Voter | PeerRole::VoterBoth)
            && (view.liveness)(peer.node) == Liveness::Live
            && view.caught_up.contains(&peer.replica)
            && view.nodes.get(&peer.node).is_none_or(|info| !info.draining)
    };
    let mut voters: Vec<&Peer> = view.descriptor.peers.iter().filter(fit).collect();
    voters.sort_by_key(|peer| (!stays.contains(&peer.node), peer.replica));
    voters.first().map(|peer| peer.node)
}

/// Where the range may live.
struct Scope {
    region: Option<RegionId>,
}

impl Scope {
    fn of(view: &View<'_>) -> Scope {
        let span = &view.descriptor.span;
        // A range that reaches over several copies is nobody's copy.
        let region = span.start.copy_region().filter(|region| {
            let mut copy = vec![storage::key::COPY];
            copy.extend_from_slice(&region.to_be_bytes());
            storage::Span::prefix(&storage::Key::new(copy)).covers(span)
        });
        Scope { region: region.map(RegionId) }
    }

    fn allows(&self, info: &NodeInfo) -> bool {
        self.region.is_none_or(|region| region == info.region)
    }

    /// How many voters. Nodes that are dead or draining count, and so do peers on nodes we were not told about: what they leave
    /// behind must be rebuilt, not written off.
    fn goal(&self, view: &View<'_>) -> usize {
        let known = view.nodes.values().filter(|info| self.allows(info)).count();
        let peers = &view.descriptor.peers;
        let unknown = peers.iter().filter(|peer| !view.nodes.contains_key(&peer.node)).count();
        odd_floor(view.replicas.min(known + unknown))
    }

    /// The nodes that should have a voter: as many as wanted, as far as there are fit ones. A voter on an unfit node (silent,
    /// dead, draining) keeps its place while nobody can take it; a silent one is not given up yet.
    fn choose(&self, view: &View<'_>, leader: NodeId, goal: usize) -> BTreeSet<NodeId> {
        let mut chosen: Vec<&NodeInfo> = Vec::new();
        while chosen.len() < goal {
            let candidates = view.nodes.values().filter(|info| {
                self.allows(info)
                    && !chosen.iter().any(|taken| taken.node == info.node)
                    && self.fit(view, info)
            });
            let best = candidates.min_by_key(|info| {
                let same_region = chosen.iter().filter(|taken| taken.region == info.region).count();
                let same_zone = chosen
                    .iter()
                    .filter(|taken| taken.region == info.region && taken.zone == info.zone)
                    .count();
                let held = match view.descriptor.peer_on(info.node).map(|peer| peer.role) {
                    Some(PeerRole::Voter | PeerRole::VoterBoth) => 0,
                    Some(PeerRole::Learner) => 1,
                    Some(PeerRole::Outgoing) | None => 2,
                };
                let first = info.node != leader;
                (chosen.is_empty() && first, same_region, same_zone, held, scatter(view, info.node))
            });
            match best {
                Some(info) => chosen.push(info),
                None => break,
            }
        }
        let mut target: BTreeSet<NodeId> = chosen.iter().map(|info| info.node).collect();
        let rest = view.descriptor.peers.iter().filter(|peer| peer.role == PeerRole::Voter);
        for peer in rest {
            if target.len() < goal {
                target.insert(peer.node);
            }
        }
        target
    }

    fn fit(&self, view: &View<'_>, info: &NodeInfo) -> bool {
        let holds = view.descriptor.peer_on(info.node).is_some();
        !info.draining
            && match (view.liveness)(info.node) {
                Liveness::Live => true,
                Liveness::Silent => holds,
                Liveness::Dead => false,
            }
    }
}

fn odd_floor(count: usize) -> usize {
    if count == 0 { 0 } else { count - (1 - count % 2) }
}

/// Spreads ranges over equally good nodes (highest random weight, Thaler and Ravishankar 1998).
fn scatter(view: &View<'_>, node: NodeId) -> u64 {
    let mut bits = view.descriptor.id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(node.0);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::range::RangeId;
    use proptest::prelude::*;
    use storage::{Key, Span};

    /// A cluster and one range, and what carrying out steps makes of it.
    struct Lab {
        nodes: BTreeMap<NodeId, NodeInfo>,
        dead: BTreeSet<NodeId>,
        descriptor: RangeDescriptor,
        leader: ReplicaId,
    }

    impl Lab {
        /// `nodes`: region by node id, from 1. The range begins on n1.
        fn new(regions: &[u16], span: Span) -> Lab {
            let nodes = (1..).zip(regions).map(|(node, region)| {
                let node = NodeId(node);
                let zone = format!("z{node}");
                (node, NodeInfo { node, region: RegionId(*region), zone, draining: false })
            });
            let peer = Peer { node: NodeId(1), replica: ReplicaId(1), role: PeerRole::Voter };
            let descriptor = RangeDescriptor {
                id: RangeId(1),
                span,
                generation: 1,
                peers: vec![peer],
                next_replica: 2,
            };
            let (nodes, leader) = (nodes.collect(), ReplicaId(1));
            Lab { nodes, dead: BTreeSet::new(), descriptor, leader }
        }

        fn next(&self) -> Option<Action> {
            let liveness = |node: NodeId| {
                if self.dead.contains(&node) { Liveness::Dead } else { Liveness::Live }
            };
            let caught_up = self.descriptor.peers.iter().map(|peer| peer.replica).collect();
            next(&View {
                descriptor: &self.descriptor,
                leader: self.leader,
                nodes: &self.nodes,
                liveness: &liveness,
                caught_up: &caught_up,
                replicas: 3,
            })
        }

        /// Takes steps until there is none; panics if there is no end or a step breaks a rule.
        fn settle(&mut self, goal: usize) -> BTreeSet<NodeId> {
            for _ in 0..40 {
                let Some(action) = self.next() else { return self.voters() };
                let before = self.voters().len();
                match &action {
                    Action::Transfer(to) => {
                        let target = *self.descriptor.peer_on(*to).expect("transfers to a peer");
                        assert!(!self.dead.contains(to) && target.replica != self.leader);
                        self.leader = target.replica;
                    }
                    Action::Exchange { remove, .. } => {
                        assert!(
                            !remove.contains(&self.leader),
                            "the leader is not removed in place"
                        );
                        super::super::relocate::take_step(&mut self.descriptor, &action, 0);
                    }
                    Action::LeaveJoint | Action::AddLearner(_) | Action::RemoveLearner(_) => {
                        super::super::relocate::take_step(&mut self.descriptor, &action, 0);
                    }
                }
                let after = self.voters().len();
                assert!(after >= goal.min(before), "{before} voters, then {after}: {action:?}");
            }
            panic!("no end: {:?}", self.descriptor);
        }

        fn voters(&self) -> BTreeSet<NodeId> {
            let counts = |peer: &&Peer| matches!(peer.role, PeerRole::Voter | PeerRole::VoterBoth);
            self.descriptor.peers.iter().filter(counts).map(|peer| peer.node).collect()
        }

        fn regions(&self) -> BTreeSet<RegionId> {
            self.voters().iter().map(|node| self.nodes[node].region).collect()
        }
    }

    #[test]
    fn a_strong_range_spreads_one_per_region_and_stays() {
        let mut lab = Lab::new(&[1, 1, 2, 2, 3, 3], Span::all());
        let voters = lab.settle(1);
        assert_eq!((voters.len(), lab.regions().len()), (3, 3));
        assert_eq!(lab.settle(3), voters);
    }

    #[test]
    fn a_copy_moves_into_its_region() {
        let copy = Span::prefix(&Key::copy(2, 9));
        let mut lab = Lab::new(&[1, 2, 2, 2, 2], copy);
        assert_eq!(lab.settle(1).len(), 3);
        assert_eq!(lab.regions(), BTreeSet::from([RegionId(2)]));
    }

    #[test]
    fn a_range_of_two_nodes_keeps_one_replica() {
        assert_eq!(Lab::new(&[1, 2], Span::all()).settle(1).len(), 1);
    }

    #[test]
    fn nobody_is_removed_without_a_successor() {
        let mut lab = Lab::new(&[1, 2, 3], Span::all());
        let voters = lab.settle(1);
        lab.dead.insert(NodeId(2));
        assert_eq!(lab.settle(3), voters);
        lab.dead.clear();
        lab.nodes.remove(&NodeId(2));
        assert_eq!(lab.settle(3), voters, "a node that is not listed is no reason to shrink");
    }

    proptest! {
        /// Whatever nodes there are, die, and drain: it ends, no rule is broken on the way, and voters that can be fit are.
        #[test]
        fn placement_settles_on_fit_nodes(
            regions in proptest::collection::vec(1u16..4, 1..8),
            dead in proptest::collection::btree_set(2u32..8, 0..2),
            draining in proptest::collection::btree_set(1u32..8, 0..2),
        ) {
            let mut lab = Lab::new(&regions, Span::all());
            let goal = odd_floor(regions.len().min(3));
            prop_assert_eq!(lab.settle(1).len(), goal);
            let leader_node = lab.descriptor.peer(lab.leader).expect("leads").node;
            lab.dead = dead.into_iter().map(NodeId).filter(|node| *node != leader_node).collect();
            for node in draining {
                if let Some(info) = lab.nodes.get_mut(&NodeId(node)) {
                    info.draining = true;
                }
            }
            let voters = lab.settle(goal);
            prop_assert_eq!(voters.len(), goal);
            let unfit = |node: &NodeId| lab.dead.contains(node) || lab.nodes[node].draining;
            let fit = lab.nodes.keys().filter(|node| !unfit(node)).count();
            if fit >= goal {
                prop_assert!(!voters.iter().any(unfit), "{:?}", voters);
            }
        }
    }
}
