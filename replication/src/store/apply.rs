//! Machine: committed entries become state. Inline and in order; the effects of a run of entries and the applied index after it
//! are one atomic engine batch (killer R04).
//!
//! Applying depends on the entry and the range's state alone, so that every replica does the same (killer R20). What cannot be
//! carried out is skipped by every replica alike: a command that writes outside its range (it was evaluated before a
//! split and appended after it), or a split that does not fit the descriptor any more. Its proposer hears `Dropped`.
//! An engine error is no outcome: it stops the node.

use clock::Now;
use coverage::Mark;
use storage::{Space, StorageError, WriteBatch};

use super::core::Store;
use super::drive::Fate;
use super::replica::{Departed, Reign, Replica};
use super::{Outcome, PlantedBug, RangeEvent, StoreMessage};
use crate::raft::{Entry, LogIndex, Payload, Term};
use crate::range::{Command, Effect, RangeDescriptor, RangeState, range_state_key};

/// How often a removed replica is told that it was removed.
const DEPARTED_NOTICES: u32 = 5;

/// Entries on their way into the engine together.
#[derive(Default)]
struct Run {
    batch: WriteBatch,
    events: Vec<RangeEvent>,
}

impl Store {
    /// Applies `entries`, which follow the replica's applied index.
    pub(super) fn apply(
        &mut self,
        now: Now,
        replica: &mut Replica,
        entries: Vec<Entry>,
    ) -> Result<Fate, StorageError> {
        if entries.is_empty() {
            return Ok(Fate::Stays);
        }
        let mut run = Run::default();
        for entry in entries {
            let at = (entry.index, entry.term);
            match Payload::decode(&entry.data)? {
                Payload::Empty => {
                    self.advance(replica, &mut run, at, Outcome::Applied);
                    self.reign_begins(replica, &mut run, entry.term);
                }
                Payload::Membership { context, .. } => {
                    let descriptor = RangeDescriptor::decode(context)?;
                    self.advance(replica, &mut run, at, Outcome::Applied);
                    self.apply_membership(replica, descriptor);
                }
                Payload::Command(bytes) => {
                    let command = Command::decode(bytes)?;
                    if let Effect::Split { left, right } = &command.effect {
                        // A split reads and changes other ranges' state: it is a run of its own.
                        self.write_run(replica, &mut run)?;
                        self.apply_split(now, replica, at, &command.batch, left, right)?;
                    } else {
                        self.apply_command(replica, &mut run, at, command);
                    }
                }
            }
        }
        self.write_run(replica, &mut run)?;
        replica.moved_at = now.monotonic;
        let applied = state_of(replica).applied.0;
        replica.with_raft(&mut self.context(now), |raft, env| raft.applied(env, applied));
        let here = self.identity.node;
        let id = replica.id;
        let stays = replica
            .descriptor()
            .and_then(|descriptor| descriptor.peer(id))
            .is_some_and(|peer| peer.node == here);
        Ok(if stays { Fate::Stays } else { Fate::Leaves })
    }

    fn apply_command(
        &mut self,
        replica: &mut Replica,
        run: &mut Run,
        at: (LogIndex, Term),
        command: Command,
    ) {
        if !command.batch.ops.iter().all(|op| replica.owns(op)) {
            coverage::reached(Mark::CommandOutsideRangeSkipped);
            tracing::error!(range = %replica.range, index = %at.0, "command outside its range skipped");
            self.advance(replica, run, at, Outcome::Dropped);
            return;
        }
        let mut batch = command.batch;
        let differs = self.config.planted == Some(PlantedBug::ApplyDependsOnNode);
        if differs && self.identity.node.0 == 2 && at.0.get().is_multiple_of(61) {
            batch.ops.pop();
        }
        run.batch.extend(batch);
        let state = state_of_mut(replica);
        match command.effect {
            Effect::None | Effect::Split { .. } => {}
            Effect::Fence { table, version } => {
                let fence = state.fences.entry(table).or_default();
                *fence = (*fence).max(version);
            }
            Effect::GcThreshold(threshold) => {
                state.gc_threshold = state.gc_threshold.max(threshold);
            }
        }
        self.advance(replica, run, at, Outcome::Applied);
    }

    /// The entry's descriptor says who; where the range begins and ends is what splits applied since have made of it.
    fn apply_membership(&mut self, replica: &mut Replica, announced: RangeDescriptor) {
        let leads = replica.is_leader();
        let state = state_of_mut(replica);
        let current = &mut state.descriptor;
        let former = std::mem::replace(&mut current.peers, announced.peers);
        current.next_replica = current.next_replica.max(announced.next_replica);
        current.generation += 1;
        let descriptor = current.clone();
        tracing::info!(range = %descriptor.id, generation = descriptor.generation, peers = ?descriptor.peers, "membership changed");
        for peer in former {
            let gone = descriptor.peer(peer.replica).is_none();
            if gone && leads && peer.node != self.identity.node {
                coverage::reached(Mark::MemberLeft);
                replica.departed.push(Departed {
                    replica: peer.replica,
                    node: peer.node,
                    notices_left: DEPARTED_NOTICES,
                });
                self.out.after.push((
                    peer.node,
                    StoreMessage::Gone {
                        range: descriptor.id,
                        replica: peer.replica,
                        descriptor: descriptor.clone(),
                    },
                ));
            }
        }
        replica.descriptor_changed();
    }

    fn reign_begins(&mut self, replica: &mut Replica, run: &mut Run, entry_term: Term) {
        if let Reign::Elected { term, floor } = replica.reign
            && term == entry_term
        {
            replica.reign = Reign::Led { term, floor };
            // From now on reads are remembered for this reign only.
            replica.covered_floor = None;
            run.events.push(RangeEvent::Led { range: replica.range, term, floor });
        }
    }

    /// Moves the applied index and decides our proposals: the one at this very place by what became of it; those of older terms
    /// at or after it can never be committed any more, for every later leader has this entry.
    fn advance(
        &mut self,
        replica: &mut Replica,
        run: &mut Run,
        at: (LogIndex, Term),
        outcome: Outcome,
    ) {
        let (index, term) = at;
        let range = replica.range;
        let state = state_of_mut(replica);
        assert_eq!(index, state.applied.0.next(), "{range} applies in order");
        state.applied = at;
        if replica.proposals.is_empty() {
            return;
        }
        if replica.proposals.remove(&(index, term)) {
            run.events.push(RangeEvent::Proposal { range, term, index, outcome });
        }
        let dead: Vec<_> =
            replica.proposals.iter().filter(|(i, t)| *i <= index || *t < term).copied().collect();
        for (dead_index, dead_term) in dead {
            replica.proposals.remove(&(dead_index, dead_term));
            coverage::reached(Mark::ProposalOvertaken);
            run.events.push(RangeEvent::Proposal {
                range,
                term: dead_term,
                index: dead_index,
                outcome: Outcome::Dropped,
            });
        }
    }

    /// Writes what has come together, with the applied index; then lets it be known.
    fn write_run(&mut self, replica: &Replica, run: &mut Run) -> Result<(), StorageError> {
        let Run { mut batch, events } = std::mem::take(run);
        let state = state_of(replica);
        batch.put(Space::Local, range_state_key(replica.range), state.encode());
        self.engine.write(&batch)?;
        self.out.events.extend(events);
        Ok(())
    }

    /// As [`Store::advance`] for an entry that is a run of its own; the caller writes.
    pub(super) fn advance_alone(
        &mut self,
        replica: &mut Replica,
        at: (LogIndex, Term),
        outcome: Outcome,
    ) -> Vec<RangeEvent> {
        let mut run = Run::default();
        self.advance(replica, &mut run, at, outcome);
        run.events
    }
}

/// Entries are committed only in groups that have state.
pub(super) fn state_of(replica: &Replica) -> &RangeState {
    replica.state.as_ref().expect("an uninitialised replica's log is empty: it applies nothing")
}

pub(super) fn state_of_mut(replica: &mut Replica) -> &mut RangeState {
    replica.state.as_mut().expect("an uninitialised replica's log is empty: it applies nothing")
}
