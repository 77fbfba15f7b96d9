//! Machine: sending the state of a range to a follower whose entries we no longer have.
//!
//! A snapshot is one moment of the engine, cut into chunks; each is sent when the one before is acknowledged, and repeated when the
//! acknowledgement does not come. Chunk 0 begins with the `RangeState`. Whatever goes wrong, the group hears `Failed` and
//! asks again (killer R23).

use bytes::Bytes;
use clock::{Monotonic, Now};
use coverage::Mark;
use std::sync::Arc;
use storage::mvcc::RawSpan;
use storage::{Direction, Snapshot, StorageError, mvcc, varint};

use super::core::Store;
use super::replica::Replica;
use super::{PlantedBug, StoreMessage};
use crate::raft::{LogIndex, ReplicaId, SnapshotOutcome, Term};
use crate::range::{NodeId, RangeId, RangeState};

/// Snapshots sent at once per store; others wait.
const OUTGOING_MAX: usize = 4;
/// A chunk is sent at most so often before the attempt is given up.
const CHUNK_ATTEMPTS_MAX: u32 = 8;
/// `SnapshotAck::next` that refuses the snapshot.
pub(super) const REFUSED: u32 = u32::MAX;

/// One snapshot on its way.
pub(super) struct Outgoing {
    node: NodeId,
    from: ReplicaId,
    term: Term,
    attempt: u64,
    index: LogIndex,
    cursor: Cursor,
    /// Number and bytes of the chunk in flight.
    number: u32,
    data: Bytes,
    last: bool,
    sent_at: Monotonic,
    attempts: u32,
}

/// Where reading goes on.
struct Cursor {
    snapshot: Arc<dyn Snapshot>,
    spans: Vec<RawSpan>,
    /// Index into `spans`.
    place: usize,
    /// Next raw key in it.
    next: Bytes,
}

impl Store {
    /// Begins the snapshots that the group has asked for, as far as there is room.
    pub(super) fn send_wanted_snapshots(&mut self, now: Now, replica: &mut Replica) {
        if !replica.is_leader() || replica.state.is_none() {
            replica.snapshots_wanted.clear();
            return;
        }
        let wanted: Vec<ReplicaId> = replica.snapshots_wanted.iter().copied().collect();
        for to in wanted {
            let key = (replica.range, to);
            if self.outgoing.contains_key(&key) {
                replica.snapshots_wanted.remove(&to);
                continue;
            }
            if self.outgoing.len() >= OUTGOING_MAX {
                coverage::reached(Mark::SnapshotWaitedForRoom);
                return;
            }
            replica.snapshots_wanted.remove(&to);
            if let Err(error) = self.begin_snapshot(now, replica, to) {
                self.fail(error);
                return;
            }
        }
    }

    fn begin_snapshot(
        &mut self,
        now: Now,
        replica: &mut Replica,
        to: ReplicaId,
    ) -> Result<(), StorageError> {
        let (Some(state), Some(node)) = (replica.state.clone(), replica.routes.get(&to).copied())
        else {
            return Ok(());
        };
        let index = state.applied.0;
        // Applying is inline, so the engine is at exactly this state now.
        let mut cursor = Cursor::new(self.engine.snapshot(), &state);
        let mut data = Vec::new();
        varint::put_bytes(&mut data, &state.encode());
        let last = cursor.fill(&mut data, self.config.snapshot_chunk_bytes)?;
        self.last_attempt += 1;
        tracing::debug!(range = %replica.range, %to, %node, %index, "snapshot begun");
        let outgoing = Outgoing {
            node,
            from: replica.id,
            term: replica.raft.term(),
            attempt: self.last_attempt,
            index,
            cursor,
            number: 0,
            data: data.into(),
            last,
            sent_at: now.monotonic,
            attempts: 1,
        };
        self.out.now.push(outgoing.chunk(replica.range, to));
        self.outgoing.insert((replica.range, to), outgoing);
        Ok(())
    }

    pub(super) fn snapshot_ack(
        &mut self,
        now: Now,
        range: RangeId,
        receiver: ReplicaId,
        sender: ReplicaId,
        attempt: u64,
        next: u32,
    ) -> Result<(), StorageError> {
        let key = (range, receiver);
        let Some(outgoing) = self.outgoing.get_mut(&key) else { return Ok(()) };
        if outgoing.attempt != attempt || outgoing.from != sender {
            return Ok(());
        }
        if next == REFUSED {
            coverage::reached(Mark::SnapshotRefusedThere);
            self.finish_snapshot(now, range, receiver, SnapshotOutcome::Failed);
            return Ok(());
        }
        if next != outgoing.number + 1 {
            return Ok(());
        }
        if outgoing.last {
            coverage::reached(Mark::SnapshotDelivered);
            self.finish_snapshot(now, range, receiver, SnapshotOutcome::Delivered);
            return Ok(());
        }
        let mut data = Vec::new();
        outgoing.last = outgoing.cursor.fill(&mut data, self.config.snapshot_chunk_bytes)?;
        outgoing.data = data.into();
        outgoing.number = next;
        outgoing.sent_at = now.monotonic;
        outgoing.attempts = 1;
        let chunk = outgoing.chunk(range, receiver);
        self.out.now.push(chunk);
        Ok(())
    }

    /// Repeats overdue chunks, gives up hopeless attempts, begins what has waited for room.
    pub(super) fn retry_snapshots(&mut self, now: Now) {
        if self.config.planted == Some(PlantedBug::SnapshotNotRepeated) {
            return;
        }
        let patience = self.config.promise_interval * 2;
        let mut hopeless = Vec::new();
        for ((range, to), outgoing) in &mut self.outgoing {
            if now.monotonic.since(outgoing.sent_at) < patience {
                continue;
            }
            if outgoing.attempts >= CHUNK_ATTEMPTS_MAX {
                coverage::reached(Mark::SnapshotGivenUp);
                hopeless.push((*range, *to));
                continue;
            }
            outgoing.attempts += 1;
            coverage::reached(Mark::ChunkSentAgain);
            outgoing.sent_at = now.monotonic;
            self.out.now.push(outgoing.chunk(*range, *to));
        }
        for (range, to) in hopeless {
            self.finish_snapshot(now, range, to, SnapshotOutcome::Failed);
        }
        let waiting: Vec<RangeId> = self
            .replicas
            .values()
            .filter(|replica| !replica.snapshots_wanted.is_empty())
            .map(|replica| replica.range)
            .collect();
        for range in waiting {
            let Some(mut replica) = self.replicas.remove(&range) else { continue };
            self.send_wanted_snapshots(now, &mut replica);
            self.replicas.insert(range, replica);
        }
    }

    fn finish_snapshot(
        &mut self,
        now: Now,
        range: RangeId,
        to: ReplicaId,
        outcome: SnapshotOutcome,
    ) {
        let Some(outgoing) = self.outgoing.remove(&(range, to)) else { return };
        let Some(mut replica) = self.replicas.remove(&range) else { return };
        tracing::debug!(%range, %to, ?outcome, "snapshot ended");
        let index = outgoing.index;
        replica.with_raft(&mut self.context(now), |raft, env| {
            raft.snapshot_sent(env, to, index, outcome);
        });
        self.replicas.insert(range, replica);
        self.dirty.insert(range);
    }
}

impl Outgoing {
    fn chunk(&self, range: RangeId, to: ReplicaId) -> (NodeId, StoreMessage) {
        let message = StoreMessage::SnapshotChunk {
            range,
            from: self.from,
            to,
            term: self.term,
            attempt: self.attempt,
            number: self.number,
            data: self.data.clone(),
            last: self.last,
        };
        (self.node, message)
    }
}

impl Cursor {
    fn new(snapshot: Arc<dyn Snapshot>, state: &RangeState) -> Cursor {
        let spans: Vec<RawSpan> = mvcc::raw_spans(&state.descriptor.span).into();
        let next = spans[0].start.clone();
        Cursor { snapshot, spans, place: 0, next }
    }

    /// Appends entries (space, key, value) until about `bytes_max`; whether there are no more.
    fn fill(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> Result<bool, StorageError> {
        while let Some(raw) = self.spans.get(self.place) {
            let start = self.next.clone();
            for item in self.snapshot.scan(raw.space, &start, &raw.end, Direction::Forward) {
                let (key, value) = item?;
                if out.len() >= bytes_max {
                    self.next = key;
                    return Ok(false);
                }
                if raw.holds(&key)? {
                    out.push(raw.space.number());
                    varint::put_bytes(out, &key);
                    varint::put_bytes(out, &value);
                }
            }
            self.place += 1;
            if let Some(raw) = self.spans.get(self.place) {
                self.next = raw.start.clone();
            }
        }
        Ok(true)
    }
}
