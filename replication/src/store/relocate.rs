//! Machine: carries out what [`super::placement`] decides, on the ranges we lead: one membership change at a time, each described by
//! the descriptor it leads to.

use clock::{Monotonic, Now};
use coverage::Mark;
use std::collections::BTreeSet;
use std::time::Duration;

use super::core::Store;
use super::placement::{self, Action, Liveness, View};
use super::replica::{Reign, Replica};
use super::{Fencing, PlantedBug};
use crate::raft::{LogIndex, ReplicaId};
use crate::range::{NodeId, Peer, PeerRole, RangeDescriptor};

/// A replica at most this many entries behind may become a voter or leader.
const CAUGHT_UP_ENTRIES: u64 = 256;
/// How long the owner has to answer a wish for a transfer.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(1);

/// How far the replicas of the ranges that a store leads are where they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// Nodes of the cluster, as far as it was told.
    pub nodes: usize,
    /// Ranges led.
    pub led: usize,
    /// Of those, how many have a replica too few, too many or in the wrong place, or one that does not vote yet.
    pub unsettled: usize,
}

impl Store {
    pub(super) fn relocate(&mut self, now: Now, replica: &mut Replica) {
        if !replica.has_led() || !replica.is_leader() {
            return;
        }
        let Some(descriptor) = replica.descriptor().cloned() else { return };
        let caught_up = caught_up(replica);
        let liveness = |node: NodeId| self.liveness(now, node);
        let view = self.view(replica, &descriptor, &liveness, &caught_up);
        let draining = self.nodes.get(&self.identity.node).is_some_and(|info| info.draining);
        if (draining || self.fencing == Fencing::Fenced)
            && let Some(to) = placement::successor(&view, &BTreeSet::new())
        {
            coverage::reached(Mark::FencedLeaderHandedAway);
            self.want_transfer(now, replica, to);
            return;
        }
        if descriptor.membership() != *replica.raft.membership() {
            return;
        }
        if !self.may_leave_joint(now, replica, &descriptor) {
            coverage::reached(Mark::JointHeldForReads);
            return;
        }
        let stranded = stranded_learner(replica, &descriptor).map(Action::RemoveLearner);
        match stranded.or_else(|| placement::next(&view)) {
            None => replica.transfer_wanted_since = None,
            Some(Action::Transfer(to)) => {
                coverage::reached(Mark::PlacementMovedLeader);
                self.want_transfer(now, replica, to);
            }
            Some(action) => self.change_membership(now, replica, descriptor, action),
        }
    }

    fn view<'a>(
        &'a self,
        replica: &Replica,
        descriptor: &'a RangeDescriptor,
        liveness: &'a dyn Fn(NodeId) -> Liveness,
        caught_up: &'a BTreeSet<ReplicaId>,
    ) -> View<'a> {
        let shrinks = self.config.planted == Some(PlantedBug::DrainingShrinks)
            && self.nodes.values().any(|info| info.draining);
        let (leader, replicas) = (replica.id, if shrinks { 1 } else { self.config.replicas });
        View { descriptor, leader, nodes: &self.nodes, liveness, caught_up, replicas }
    }

    /// How many ranges we lead, and of how many the replicas are not where they should be, as far as we know.
    pub fn placement(&self, now: Now) -> Placement {
        let led = || self.replicas.values().filter(|replica| replica.is_leader());
        let unsettled = led().filter(|replica| !self.is_settled(now, replica)).count();
        Placement { nodes: self.nodes.len(), led: led().count(), unsettled }
    }

    fn is_settled(&self, now: Now, replica: &Replica) -> bool {
        let Some(descriptor) = replica.descriptor() else { return false };
        let full = |peer: &Peer| peer.role == PeerRole::Voter;
        let caught_up = caught_up(replica);
        let liveness = |node: NodeId| self.liveness(now, node);
        replica.has_led()
            && descriptor.membership() == *replica.raft.membership()
            && descriptor.peers.iter().all(full)
            && placement::next(&self.view(replica, descriptor, &liveness, &caught_up)).is_none()
    }

    /// Reads served before the newcomers counted are known to the old voters only. They may be let go when a quorum of the new ones,
    /// too, has recorded a bound at or above every read we or (by our floor) our predecessors can have served until then: the
    /// next leader's floor comes from them.
    fn may_leave_joint(
        &self,
        now: Now,
        replica: &mut Replica,
        descriptor: &RangeDescriptor,
    ) -> bool {
        if !descriptor.is_joint() {
            replica.joint_floor = None;
            return true;
        }
        let Reign::Led { floor, .. } = replica.reign else { return false };
        let needed = *replica.joint_floor.get_or_insert(floor.max(self.promises.asked_max()));
        let lease = replica.ask(now, &self.promises, &*self.log, |raft, env| raft.lease(env));
        lease.is_some_and(|lease| lease.read_bound >= needed)
    }

    fn liveness(&self, now: Now, node: NodeId) -> Liveness {
        if self.promises.is_live(now, node, self.config.promise_duration) {
            Liveness::Live
        } else if now.monotonic.since(self.promises.last_heard(node)) >= self.config.dead_after {
            Liveness::Dead
        } else {
            Liveness::Silent
        }
    }

    fn want_transfer(&mut self, now: Now, replica: &mut Replica, to: NodeId) {
        let since: Monotonic = *replica.transfer_wanted_since.get_or_insert(now.monotonic);
        if now.monotonic.since(since) < TRANSFER_PATIENCE {
            self.out.transfers.push((replica.range, to));
            return;
        }
        // Nobody told us the highest read. What a quorum has recorded by now does not bound it: reads were served under another
        // membership, too, whose quorum had recorded more. But never above what we asked for.
        coverage::reached(Mark::TransferUnheeded);
        let read_high = self.promises.asked_max();
        let target = replica.descriptor().and_then(|descriptor| descriptor.peer_on(to)).copied();
        if let Some(peer) = target {
            let result = replica.with_raft(&mut self.context(now), |raft, env| {
                raft.transfer(env, peer.replica, read_high)
            });
            tracing::info!(range = %replica.range, %to, ?result, "leadership handed away");
            self.dirty.insert(replica.range);
        }
        replica.transfer_wanted_since = Some(now.monotonic);
    }

    fn change_membership(
        &mut self,
        now: Now,
        replica: &mut Replica,
        mut descriptor: RangeDescriptor,
        action: Action,
    ) {
        let heard = replica.routes.last_key_value().map_or(0, |(id, _)| id.0);
        let buried = replica.departed_below.values().max().map_or(0, |below| below.0);
        let highest = heard.max(buried);
        take_step(&mut descriptor, &action, highest);
        let membership = descriptor.membership();
        let context = descriptor.encode();
        replica.learn_routes(&descriptor);
        let result = replica.with_raft(&mut self.context(now), |raft, env| {
            raft.propose_membership(env, membership, context)
        });
        match result {
            Ok(_) => tracing::info!(range = %replica.range, ?action, "membership change proposed"),
            Err(error) => {
                tracing::debug!(range = %replica.range, ?action, %error, "membership change refused");
                // Nobody has heard of the newcomer.
                replica.routes.split_off(&ReplicaId(highest + 1));
            }
        }
        self.dirty.insert(replica.range);
    }
}

/// The descriptor after the step.
pub(super) fn take_step(descriptor: &mut RangeDescriptor, action: &Action, highest_id: u64) {
    descriptor.generation += 1;
    match action {
        Action::LeaveJoint => {
            coverage::reached(Mark::JointLeft);
            descriptor.peers.retain(|peer| peer.role != PeerRole::Outgoing);
            for peer in &mut descriptor.peers {
                if peer.role == PeerRole::VoterBoth {
                    peer.role = PeerRole::Voter;
                }
            }
        }
        Action::AddLearner(node) => {
            coverage::reached(Mark::LearnerAdded);
            // Above every id ever seen here, also those of additions that came to nothing.
            let id = descriptor.next_replica.max(highest_id + 1);
            descriptor.peers.push(Peer {
                node: *node,
                replica: ReplicaId(id),
                role: PeerRole::Learner,
            });
            descriptor.next_replica = id + 1;
        }
        Action::RemoveLearner(replica) => {
            coverage::reached(Mark::LearnerRemoved);
            descriptor.peers.retain(|peer| peer.replica != *replica);
        }
        Action::Exchange { promote, remove } => {
            coverage::reached(Mark::JointEntered);
            for peer in &mut descriptor.peers {
                peer.role = match peer.role {
                    PeerRole::Learner if promote.contains(&peer.replica) => {
                        coverage::reached(Mark::LearnerPromoted);
                        PeerRole::Voter
                    }
                    PeerRole::Voter if remove.contains(&peer.replica) => {
                        coverage::reached(Mark::VoterLetGo);
                        PeerRole::Outgoing
                    }
                    PeerRole::Voter => PeerRole::VoterBoth,
                    role @ (PeerRole::Learner | PeerRole::VoterBoth | PeerRole::Outgoing) => role,
                };
            }
        }
        Action::Transfer(_) => {}
    }
}

/// A learner whose node has had a replica with a higher number: of an addition by a former leader, which was lost.
fn stranded_learner(replica: &Replica, descriptor: &RangeDescriptor) -> Option<ReplicaId> {
    if descriptor.is_joint() {
        return None;
    }
    let is_stranded = |peer: &&Peer| {
        let below = replica.departed_below.get(&peer.node);
        peer.role == PeerRole::Learner && below.is_some_and(|below| peer.replica < *below)
    };
    let stranded = descriptor.peers.iter().find(is_stranded)?;
    coverage::reached(Mark::StrandedLearnerRemoved);
    Some(stranded.replica)
}

/// Ourselves and the followers that have nearly everything.
fn caught_up(replica: &Replica) -> BTreeSet<ReplicaId> {
    let commit = replica.raft.commit_index();
    let near = |index: LogIndex| commit.get().saturating_sub(index.get()) <= CAUGHT_UP_ENTRIES;
    let mut caught_up: BTreeSet<ReplicaId> = replica
        .raft
        .progress()
        .iter()
        .filter(|follower| follower.match_index > LogIndex::ZERO && near(follower.match_index))
        .map(|follower| follower.id)
        .collect();
    caught_up.insert(replica.id);
    caught_up
}
