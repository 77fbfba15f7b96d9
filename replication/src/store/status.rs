//! Value: what a store knows about its ranges, for metrics, `SHOW RANGES` and people with questions. Costs a pass over all ranges.

use clock::Now;

use super::core::Store;
use super::replica::Replica;
use super::{Fencing, Unavailable};
use crate::raft::{Lease, LogIndex, PeerStatus, ReplicaId, RoleKind, Term};
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

impl Store {
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
