//! Machine: replicas come (uninitialised, by a message) and go (removed by their group).
//!
//! INVARIANT: of a removed replica a tombstone stays, in the state engine, durable before the log forgets the group: no
//! replica with an id below it ever lives here again (killer R15).

use bytes::Bytes;
use clock::Now;
use coverage::Mark;
use std::collections::BTreeMap;
use storage::log::{LogGroup, LogOp};
use storage::{Space, Span, StorageError, WriteBatch, mvcc};

use super::core::Store;
use super::replica::{Birth, Replica};
use super::tail::Tail;
use super::{Outcome, RangeEvent};
use crate::raft::{HardState, LogIndex, ReplicaId, Term};
use crate::range::{NodeId, RangeDescriptor, RangeId, range_state_key, tombstone_key};

impl Store {
    /// A replica that knows nothing but who spoke to it.
    pub(super) fn create_uninitialised(
        &mut self,
        now: Now,
        range: RangeId,
        id: ReplicaId,
        from: (ReplicaId, NodeId),
    ) {
        tracing::debug!(%range, replica = %id, "uninitialised replica created");
        coverage::reached(Mark::UninitialisedCreated);
        let birth = Birth {
            range,
            id,
            epoch: self.next_epoch(),
            hard_state: HardState::default(),
            state: None,
            tail: Tail::default(),
            last: (LogIndex::ZERO, Term::ZERO),
            routes: BTreeMap::from([from, (id, self.identity.node)]),
            // If the range was split off from another one, our replica of that one may never apply the split (a snapshot takes it
            // past), and this one may vote before it is initialised: so it answers for all that this store recorded. Nobody
            // serves the right keys for the left range any more once the right one exists.
            inherited_floor: self.promises.recorded_max(),
        };
        self.adopt(now, birth);
    }

    /// Removes the replica and all it has, for good. `next_replica` is the lowest id that may come back. The replica is out
    /// of the map already.
    pub(super) fn remove(
        &mut self,
        mut replica: Replica,
        next_replica: u64,
    ) -> Result<(), StorageError> {
        let range = replica.range;
        tracing::info!(%range, replica = %replica.id, "replica removed");
        coverage::reached(Mark::ReplicaRemoved);
        for (index, term) in std::mem::take(&mut replica.proposals) {
            let outcome = Outcome::Unknown;
            coverage::reached(Mark::RemovedWithProposals);
            self.out.events.push(RangeEvent::Proposal { range, term, index, outcome });
        }
        self.depose(&mut replica);
        self.timers.remove(&(replica.timer, range));
        self.dirty.remove(&range);
        if let Some(span) = replica.span() {
            self.spans.remove(&span.start);
            self.out.events.push(RangeEvent::Removed { range });
        }
        self.erase(range, replica.span(), next_replica.max(replica.id.0 + 1))
    }

    /// Deletes state and log of a range, and leaves a tombstone.
    pub(super) fn erase(
        &mut self,
        range: RangeId,
        span: Option<&Span>,
        next_replica: u64,
    ) -> Result<(), StorageError> {
        let mut batch = WriteBatch::new();
        if let Some(span) = span {
            mvcc::write::remove_span(&*self.engine, &mut batch, span)?;
        }
        let next = next_replica.max(self.tombstone(range)?);
        batch.delete(Space::Local, range_state_key(range));
        batch.put(Space::Local, tombstone_key(range), Bytes::copy_from_slice(&next.to_be_bytes()));
        self.engine.write(&batch)?;
        self.out.flush = true;
        self.out.write.ops.push(LogOp::Remove { group: LogGroup(range.0) });
        Ok(())
    }

    /// Somebody who has applied `descriptor` says that `gone` was removed by it.
    pub(super) fn hear_gone(
        &mut self,
        range: RangeId,
        gone: ReplicaId,
        descriptor: &RangeDescriptor,
    ) -> Result<(), StorageError> {
        let Some(replica) = self.replicas.get(&range) else { return Ok(()) };
        let ours = replica.descriptor().map_or(0, |descriptor| descriptor.generation);
        let member = descriptor.peer(gone).is_some_and(|peer| peer.node == self.identity.node);
        if replica.id != gone
            || descriptor.id != range
            || member
            || descriptor.generation <= ours
            || gone.0 >= descriptor.next_replica
        {
            return Ok(());
        }
        coverage::reached(Mark::RemovalHeard);
        let Some(replica) = self.replicas.remove(&range) else { return Ok(()) };
        let next = self.lowest_to_come(descriptor);
        self.remove(*replica, next)
    }

    /// The lowest id of a replica that may still live here, by a descriptor that names our former one no more. It may name its
    /// successor already: that one must not be buried with it.
    pub(super) fn lowest_to_come(&self, descriptor: &RangeDescriptor) -> u64 {
        let successor = descriptor.peer_on(self.identity.node).map(|peer| peer.replica.0);
        successor.unwrap_or(descriptor.next_replica)
    }

    /// A range here, other than `but`, that has a key of `span`.
    pub(super) fn overlapping(&self, span: &Span, but: RangeId) -> Option<RangeId> {
        let overlaps = |range: &RangeId| {
            *range != but
                && self
                    .replicas
                    .get(range)
                    .and_then(|replica| replica.span())
                    .is_some_and(|other| other.overlaps(span))
        };
        let before = self.spans.range(..=span.start.clone()).next_back().map(|(_, range)| *range);
        let within =
            self.spans.range(span.start.clone()..).take_while(|(start, _)| **start < span.end);
        before.into_iter().chain(within.map(|(_, range)| *range)).find(overlaps)
    }
}
