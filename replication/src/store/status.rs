//! Value: what a store knows about its ranges, for metrics, `SHOW RANGES` and people with questions. Costs a pass over all ranges.

use clock::{Monotonic, Now, Timestamp};
use std::collections::BTreeMap;

use super::core::Store;
use super::replica::{Reign, Replica};
use super::{Fencing, Unavailable};
use crate::raft::{
    Incarnation, Lease, LogIndex, Membership, PeerStatus, ReplicaId, RoleKind, Term,
};
use crate::range::{NodeId, RangeDescriptor, RangeId};

/// One replica of ours.
#[derive(Clone, Debug)]
pub struct RangeStatus {
    /// Which range.
    pub range: RangeId,
    /// Our replica.
    pub replica: ReplicaId,
    /// As of `applied`; `None` while uninitialised.
    pub descriptor: Option<RangeDescriptor>,
    /// Our role in the group.
    pub role: RoleKind,
    /// The group's term as we know it.
    pub term: Term,
    /// Who leads, as we know it.
    pub leader: Option<NodeId>,
    /// Committed up to here, as we know it.
    pub commit: LogIndex,
    /// Applied up to here.
    pub applied: LogIndex,
    /// Our log begins after this.
    pub truncated: LogIndex,
    /// Our log ends here.
    pub last: LogIndex,
    /// Payload bytes in our log.
    pub log_bytes: u64,
    /// Our lease, if we hold it.
    pub lease: Option<Lease>,
    /// The followers as we see them, if we lead.
    pub peers: Vec<PeerStatus>,
    /// Proposals of ours that are undecided.
    pub proposals_pending: usize,
    /// Set when it makes no progress.
    pub unavailable: Option<Unavailable>,
}

/// One replica of ours as its group sees it, at no cost: for whoever checks invariants after every event.
#[derive(Clone, Copy, Debug)]
pub struct GroupView<'a> {
    /// Which range.
    pub range: RangeId,
    /// Our replica.
    pub replica: ReplicaId,
    /// Our role in the group.
    pub role: RoleKind,
    /// The group's term as we know it.
    pub term: Term,
    /// Committed up to here, as we know it.
    pub commit: LogIndex,
    /// Applied up to here.
    pub applied: LogIndex,
    /// Our log begins after this.
    pub truncated: LogIndex,
    /// Our log ends here.
    pub last: LogIndex,
    /// Up to here our log is known to be durable.
    pub durable: LogIndex,
    /// Who counts, as far as we know: of the newest entry in our log.
    pub membership: &'a Membership,
    /// Where the others of its group live, as far as we know: their numbers alone do not tell, as changes of members that were lost
    /// may have given one to another node.
    pub routes: &'a BTreeMap<ReplicaId, NodeId>,
    /// The floor of our reign: everything at or below it counts as read. `None`: we do not lead.
    pub floor: Option<Timestamp>,
}

/// A promise of another store not to help anybody but us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldPromise {
    /// Who gave it.
    pub by: (NodeId, Incarnation),
    /// Until when we rely on it, on our monotonic clock.
    pub until: Monotonic,
}

impl Store {
    /// Every replica here, uninitialised ones too, by range.
    pub fn groups(&self) -> impl Iterator<Item = GroupView<'_>> {
        self.replicas.values().map(|replica| group_view(replica))
    }

    /// Our replica of `range`, if we have one.
    pub fn group(&self, range: RangeId) -> Option<GroupView<'_>> {
        self.replicas.get(&range).map(|replica| group_view(replica))
    }

    /// What other stores have promised us, expired or not.
    pub fn promises_held(&self) -> impl Iterator<Item = HeldPromise> + '_ {
        self.promises
            .held()
            .map(|(node, promise)| HeldPromise { by: (node, promise.by), until: promise.until })
    }

    /// Until when, on our monotonic clock, this store will not help to depose that incarnation of `node`'s: what it has promised,
    /// and what its former incarnations may have.
    pub fn bound_to_until(&self, node: NodeId, incarnation: Incarnation) -> Monotonic {
        self.promises.given_until(node, incarnation).max(self.promises.no_vote_before())
    }

    /// Whether our replica of `range` would help to elect somebody now; `None`: there is none.
    pub fn is_free(&self, now: Now, range: RangeId) -> Option<bool> {
        let replica = self.replicas.get(&range)?;
        Some(replica.ask(now, &self.promises, &*self.log, |raft, env| raft.is_free(env)))
    }

    /// Whose promises the lease of `range` may be made of now, if our replica leads it.
    pub fn relied_on(&self, now: Now, range: RangeId) -> Vec<ReplicaId> {
        let Some(replica) = self.replicas.get(&range) else { return Vec::new() };
        replica.ask(now, &self.promises, &*self.log, |raft, env| raft.relied_on(env))
    }

    /// Every replica here, by range.
    pub fn status(&self, now: Now) -> Vec<RangeStatus> {
        self.replicas.values().map(|replica| self.status_of(now, replica)).collect()
    }

    /// How far behind sync the log is: batches appended and not proven durable.
    pub fn unsynced_batches(&self) -> usize {
        self.unsynced.len()
    }

    /// As last set.
    pub fn fencing(&self) -> Fencing {
        self.fencing
    }

    fn status_of(&self, now: Now, replica: &Replica) -> RangeStatus {
        let leader = replica.raft.leader();
        RangeStatus {
            range: replica.range,
            replica: replica.id,
            descriptor: replica.descriptor().cloned(),
            role: replica.raft.role(),
            term: replica.raft.term(),
            leader: leader.and_then(|leader| replica.routes.get(&leader).copied()),
            commit: replica.raft.commit_index(),
            applied: replica.raft.applied_index(),
            truncated: replica.tail.truncated().0,
            last: replica.tail.last(),
            log_bytes: replica.tail.bytes(),
            lease: self.lease(now, replica.range),
            peers: replica.raft.progress(),
            proposals_pending: replica.proposals.len(),
            unavailable: self.unavailable(now, replica.range),
        }
    }
}

fn group_view(replica: &Replica) -> GroupView<'_> {
    GroupView {
        range: replica.range,
        replica: replica.id,
        role: replica.raft.role(),
        term: replica.raft.term(),
        commit: replica.raft.commit_index(),
        applied: replica.raft.applied_index(),
        truncated: replica.raft.truncated_index(),
        last: replica.raft.last_index(),
        durable: replica.raft.durable_index(),
        membership: replica.raft.newest_membership(),
        routes: &replica.routes,
        floor: match replica.reign {
            Reign::Led { floor, .. } => Some(floor),
            Reign::None | Reign::Elected { .. } => None,
        },
    }
}
