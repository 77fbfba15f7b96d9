//! Machine: receiving the state of a range.
//!
//! Chunks are collected in memory (at most [`INCOMING_MAX`] ranges at a time), then installed whole: one engine batch deletes
//! what was there and writes what came, with the `RangeState`; the engine is flushed; only then the log is begun anew.
//! A crash before the flush leaves the old replica, a crash after it a state ahead of its log, which [`Store::open`] repairs
//! (killer R22).
//!
//! Refused is a snapshot that would overlap another range here (killer R13: that range must split or go first), that is not newer
//! than what we have, that does not name us as a member, or whose term is old.

use bytes::Bytes;
use clock::{Monotonic, Now};
use coverage::{Mark, Rare, rare};
use storage::varint::Input;
use storage::{Space, StorageError, WriteBatch, mvcc};

use super::core::Store;
use super::open::{begin_log, raise_term};
use super::replica::Replica;
use super::snapshot_out::REFUSED;
use super::{Outcome, PlantedBug, RangeEvent, StoreMessage};
use crate::raft::{LogIndex, ReplicaId, Term};
use crate::range::{NodeId, RangeId, RangeState, range_state_key};

/// Snapshots received at once per store: each may be as large as a range.
const INCOMING_MAX: usize = 4;
/// A snapshot without a new chunk for so many promise intervals is forgotten: longer than a sender goes on trying.
const ABANDONED_AFTER_INTERVALS: u32 = 20;
/// Space, key length, value length.
const ITEM_BYTES_MIN: usize = 3;

/// A chunk as it came.
pub(super) struct Chunk {
    pub(super) sender: ReplicaId,
    pub(super) to: ReplicaId,
    pub(super) term: Term,
    pub(super) attempt: u64,
    pub(super) number: u32,
    pub(super) data: Bytes,
    pub(super) last: bool,
}

/// What has come so far.
pub(super) struct Incoming {
    node: NodeId,
    sender: ReplicaId,
    attempt: u64,
    /// Number of the chunk wanted next.
    next: u32,
    state: RangeState,
    batch: WriteBatch,
    /// When a chunk last came.
    touched: Monotonic,
}

/// What to answer.
enum Verdict {
    /// Send this chunk next (or: all is here).
    Next(u32),
    /// Give up.
    Refused(&'static str),
    /// Say nothing: it is not for us.
    Silent,
}

impl Store {
    pub(super) fn snapshot_chunk(
        &mut self,
        now: Now,
        from: NodeId,
        range: RangeId,
        chunk: Chunk,
    ) -> Result<(), StorageError> {
        if !self.replicas.contains_key(&range) {
            if chunk.number != 0 || chunk.to.0 < self.tombstone(range)? {
                return Ok(());
            }
            self.create_uninitialised(now, range, chunk.to, (chunk.sender, from));
        }
        let Some(mut replica) = self.replicas.remove(&range) else { return Ok(()) };
        let (sender, to, attempt) = (chunk.sender, chunk.to, chunk.attempt);
        // Not at each of its pieces: a long one would never get through.
        let may_refuse = chunk.number == 0 || chunk.last;
        let verdict = if replica.id != to {
            Ok(Verdict::Silent)
        } else if may_refuse && rare(Rare::SnapshotRefused) {
            Ok(Verdict::Refused("this time"))
        } else {
            self.take_chunk(now, from, &mut replica, chunk)
        };
        self.replicas.insert(range, replica);
        self.dirty.insert(range);
        let next = match verdict? {
            Verdict::Silent => return Ok(()),
            Verdict::Next(next) => next,
            Verdict::Refused(why) => {
                tracing::debug!(%range, %from, why, "snapshot refused");
                REFUSED
            }
        };
        let ack = StoreMessage::SnapshotAck { range, from: to, to: sender, attempt, next };
        // After: an acknowledgement of the last chunk says that the snapshot is durable.
        self.out.after.push((from, ack));
        Ok(())
    }

    fn take_chunk(
        &mut self,
        now: Now,
        from: NodeId,
        replica: &mut Replica,
        chunk: Chunk,
    ) -> Result<Verdict, StorageError> {
        if chunk.term < replica.raft.term() {
            coverage::reached(Mark::SnapshotOfFormerTerm);
            return Ok(Verdict::Refused("an old term's"));
        }
        replica.heard_at = now.monotonic;
        let mut input = Input::new(chunk.data, "snapshot chunk");
        if chunk.number == 0 {
            let Ok(state) = input.bytes().and_then(RangeState::decode) else {
                return Ok(Verdict::Refused("damaged"));
            };
            if let Some(why) = self.objection(replica, &state) {
                replica.incoming = None;
                return Ok(Verdict::Refused(why));
            }
            replica.incoming = Some(Incoming {
                node: from,
                sender: chunk.sender,
                attempt: chunk.attempt,
                next: 0,
                state,
                batch: WriteBatch::new(),
                touched: now.monotonic,
            });
        }
        let Some(incoming) = &mut replica.incoming else {
            coverage::reached(Mark::SnapshotWithoutBeginning);
            return Ok(Verdict::Refused("its beginning is missing"));
        };
        if incoming.attempt != chunk.attempt
            || incoming.node != from
            || incoming.sender != chunk.sender
        {
            coverage::reached(Mark::ChunkOfFormerAttempt);
            return Ok(Verdict::Silent);
        }
        if chunk.number < incoming.next {
            coverage::reached(Mark::ChunkCameTwice);
            return Ok(Verdict::Next(chunk.number + 1));
        }
        if chunk.number > incoming.next {
            coverage::reached(Mark::ChunkCameTooEarly);
            return Ok(Verdict::Silent);
        }
        if take_items(&mut input, incoming).is_err() {
            replica.incoming = None;
            return Ok(Verdict::Refused("damaged"));
        }
        incoming.next += 1;
        incoming.touched = now.monotonic;
        let next = incoming.next;
        if !chunk.last {
            return Ok(Verdict::Next(next));
        }
        let Some(incoming) = replica.incoming.take() else { return Ok(Verdict::Silent) };
        self.install(now, replica, incoming, chunk.term, next)
    }

    /// Forgets a snapshot whose sender has fallen silent: it holds memory and one of few places.
    pub(super) fn forget_abandoned(&self, now: Now, replica: &mut Replica) {
        let patience = self.config.promise_interval * ABANDONED_AFTER_INTERVALS;
        let abandoned =
            replica.incoming.take_if(|incoming| now.monotonic.since(incoming.touched) > patience);
        if abandoned.is_some() {
            coverage::reached(Mark::SnapshotAbandoned);
        }
    }

    /// Why the snapshot must not be installed.
    fn objection(&self, replica: &Replica, state: &RangeState) -> Option<&'static str> {
        let member = state.descriptor.peer(replica.id);
        let (applied, _) = state.applied;
        let others = self.replicas.values().filter(|other| other.incoming.is_some()).count();
        if state.descriptor.id != replica.range {
            Some("of another range")
        } else if member.is_none_or(|peer| peer.node != self.identity.node) {
            coverage::reached(Mark::SnapshotNamesOthers);
            Some("does not name us")
        } else if replica.state.as_ref().is_some_and(|ours| ours.applied.0 >= applied) {
            coverage::reached(Mark::SnapshotNotNewer);
            Some("not newer")
        } else if self.overlapping(&state.descriptor.span, replica.range).is_some()
            && self.config.planted != Some(PlantedBug::SnapshotOverlaps)
        {
            coverage::reached(Mark::SnapshotRacedSplit);
            Some("would overlap another range")
        } else if others >= INCOMING_MAX {
            coverage::reached(Mark::SnapshotsTooMany);
            Some("too many at once")
        } else {
            None
        }
    }

    fn install(
        &mut self,
        now: Now,
        replica: &mut Replica,
        incoming: Incoming,
        from_leader_term: Term,
        next: u32,
    ) -> Result<Verdict, StorageError> {
        let Incoming { state, batch: content, .. } = incoming;
        if let Some(why) = self.objection(replica, &state) {
            return Ok(Verdict::Refused(why));
        }
        let (index, term) = state.applied;
        let membership = state.descriptor.membership();
        // Routes first: the group answers the leader of this snapshot.
        replica.learn_routes(&state.descriptor);
        let wanted = replica.with_raft(&mut self.context(now), |raft, env| {
            raft.snapshot_received(env, index, term, from_leader_term, membership)
        });
        if !wanted {
            coverage::reached(Mark::SnapshotUnwanted);
            return Ok(Verdict::Refused("not wanted by the group"));
        }
        let mut batch = WriteBatch::new();
        if let Some(old) = replica.span() {
            coverage::reached(Mark::SnapshotReplacedState);
            mvcc::write::remove_span(&*self.engine, &mut batch, old)?;
            self.spans.remove(&old.start);
        }
        mvcc::write::remove_span(&*self.engine, &mut batch, &state.descriptor.span)?;
        batch.extend(content);
        batch.put(Space::Local, range_state_key(replica.range), state.encode());
        self.engine.write(&batch)?;
        self.spans.insert(state.descriptor.span.start.clone(), replica.range);
        raise_term(&mut replica.hard_state, term);
        replica.hard_state.commit = replica.hard_state.commit.max(index);
        begin_log(
            &mut self.out.write,
            replica.range,
            replica.id,
            replica.hard_state,
            state.applied,
        );
        self.out.flush = true;
        self.out.unsettled.insert(replica.range);
        replica.tail.reset(state.applied);
        tracing::info!(range = %replica.range, %index, "snapshot installed");
        coverage::reached(Mark::SnapshotInstalled);
        replica.state = Some(state);
        replica.descriptor_changed();
        replica.moved_at = now.monotonic;
        self.forget_proposals(replica, index, term);
        Ok(Verdict::Next(next))
    }

    /// What of ours lies under the snapshot is decided, but nobody tells us how; what lies above, of an older term, is dead.
    fn forget_proposals(&mut self, replica: &mut Replica, upto: LogIndex, term: Term) {
        let range = replica.range;
        let over: Vec<_> = replica
            .proposals
            .iter()
            .filter(|(index, of)| *index <= upto || *of < term)
            .copied()
            .collect();
        for (index, of) in over {
            replica.proposals.remove(&(index, of));
            coverage::reached(Mark::ProposalUnderSnapshot);
            let outcome = if index <= upto { Outcome::Unknown } else { Outcome::Dropped };
            self.out.events.push(RangeEvent::Proposal { range, term: of, index, outcome });
        }
    }
}

fn take_items(input: &mut Input, incoming: &mut Incoming) -> Result<(), StorageError> {
    let spans = mvcc::raw_spans(&incoming.state.descriptor.span);
    while input.left() > 0 {
        if input.left() < ITEM_BYTES_MIN {
            return Err(input.corrupt("ends too early"));
        }
        let space =
            Space::from_number(input.byte()?).ok_or_else(|| input.corrupt("unknown space"))?;
        let (key, value) = (input.bytes()?, input.bytes()?);
        let inside =
            spans.iter().any(|raw| raw.space == space && key >= raw.start && key < raw.end);
        if !inside {
            return Err(input.corrupt("a key outside the range"));
        }
        incoming.batch.put(space, key, value);
    }
    Ok(())
}
