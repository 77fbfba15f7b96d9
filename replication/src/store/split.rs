//! Machine: one range becomes two. The left one keeps its id and log; the right one is born beside every replica of it, each
//! from the same state, with a log that begins at [`INITIAL`].
//!
//! ```text
//!            left's log        ... 41 42 [split] 44 ...
//!                                          │
//!   engine, one batch:   left state at 43, right state at INITIAL; flushed before right's log is written
//! ```
//!
//! The flush makes two recovery cases go away: a split never applies again after right's log exists, and right's log never
//! exists without its state.
//!
//! A replica of the right range can be here before the split is applied, created by a message of a faster peer: it is
//! uninitialised, has voted perhaps, and keeps its hard state (killer R14). If our right replica was removed before we
//! applied the split that creates it, the tombstone (or a newer replica) says so, and its keys are deleted instead (R15).
//!
//! # Who leads the right range
//!
//! The store that leads the left one in the term in which the split was proposed: from birth, without an election (see
//! [`crate::raft::Raft::lead_from_birth`]). It serves when a quorum has acknowledged its first append, one round trip to the
//! nearest quorum after it has applied the split:
//!
//! ```text
//!   left's leader L                    a follower F, both ranges
//!     split committed ── notice(left), append(right, term of birth) ──►  applies the split, appends, syncs
//!     right: committed, leased, `Led`  ◄── acknowledged ──────────────
//! ```
//!
//! - *The append overtakes the split.* F's right replica is uninitialised then and has no log to append to. It keeps the
//!   append, unanswered, for at most an election timeout ([`Replica::hold_early`]); its successor judges it at birth. What
//!   else the uninitialised replica was about to say is said first.
//! - *The lease* needs no new round of promises. L's store's promises were there before the append was sent, so they bind
//!   whoever acknowledges it ([`crate::raft::Promise::unbroken_since`]). It is not inherited any further than that: a store that
//!   has not acknowledged L in the right range may still help to elect another there, whatever it promised for the left one.
//! - *The floor.* L knows every read on right's keys: former leaders' are below the floor of its own reign over left, its own
//!   are in its timestamp cache, of which right's reign begins with a copy. So right starts with left's floor, and no commit
//!   waits for promises that were never used. INVARIANT: only then ([`Store::elect`]); anybody else starts above what voters
//!   have recorded, and right's voters have recorded what left's had.
//! - *L dies, or is cut off, before the append is out.* Nobody else may lead the term of birth; right's replicas are bound to
//!   nobody, and stand after an election timeout. L, if it lives, serves nothing on right without their acknowledgement.
//! - *Another leads left by the time the split is applied there* (L was deposed, or died): it asks for pre-votes at once, in a
//!   later term. So does whoever is alone.
//! - *Two stand*, L in the term of birth and somebody in a later one: L's append is refused with the later term.
//! - *A transfer of left is under way*: L still leads left's term, and serves nothing on left any more; it leads right, and
//!   whatever made left go makes right go next.
//! - *L restarts and applies the split again*: it does not lead left then, or leads it in a later term.

use clock::{Now, Timestamp};
use coverage::Mark;
use storage::log::Term;
use storage::{Key, Space, StorageError, WriteBatch, mvcc};

use super::apply::{state_of, state_of_mut};
use super::core::Store;
use super::open::{begin_log, initial_hard_state};
use super::replica::{Birth, Early, Reign, Replica};
use super::tail::Tail;
use super::{Outcome, RangeEvent};
use crate::raft::{HardState, LogIndex, PlantedBug, ReplicaId};
use crate::range::{INITIAL, Peer, RangeDescriptor, RangeId, RangeState, range_state_key};

/// What happens to the right side on this store.
enum RightSide {
    /// It is born, with the hard state that an uninitialised replica has left for it.
    Born { id: ReplicaId, hard_state: HardState },
    /// It has been removed since.
    Gone,
}

impl Store {
    /// Descriptors for [`crate::range::Effect::Split`] of `range` before `at`, the right one to be called `right`; `None` if
    /// `at` is not inside the range. Right's replicas are numbered from 1.
    ///
    /// The proposer must not evaluate any other command of the range between proposing the split and its outcome.
    pub fn split_descriptors(
        &self,
        range: RangeId,
        at: &Key,
        right: RangeId,
    ) -> Option<(RangeDescriptor, RangeDescriptor)> {
        let descriptor = self.descriptor(range)?;
        if *at <= descriptor.span.start || *at >= descriptor.span.end {
            return None;
        }
        let generation = descriptor.generation + 1;
        let mut left = descriptor.clone();
        left.span.end = at.clone();
        left.generation = generation;
        let mut span = descriptor.span.clone();
        span.start = at.clone();
        let peers: Vec<Peer> = (1..)
            .zip(&descriptor.peers)
            .map(|(id, peer)| Peer { replica: ReplicaId(id), ..*peer })
            .collect();
        let next_replica = peers.len() as u64 + 1;
        Some((left, RangeDescriptor { id: right, span, generation, peers, next_replica }))
    }

    pub(super) fn apply_split(
        &mut self,
        now: Now,
        replica: &mut Replica,
        at: (LogIndex, Term),
        batch: &WriteBatch,
        left: &RangeDescriptor,
        right: &RangeDescriptor,
    ) -> Result<(), StorageError> {
        if !fits(&state_of(replica).descriptor, left, right)
            || !batch.ops.iter().all(|op| replica.owns(op))
        {
            tracing::warn!(range = %replica.range, right = %right.id, "split skipped");
            coverage::reached(Mark::SplitSkipped);
            let events = self.advance_alone(replica, at, Outcome::Dropped);
            return self.write_split(replica, WriteBatch::new(), events);
        }
        let events = self.advance_alone(replica, at, Outcome::Applied);
        if self.dirty.remove(&right.id) {
            coverage::reached(Mark::SplitMetSpeakingReplica);
            // What the uninitialised replica has to say is said (and written) before another takes its place.
            self.drive(now, right.id);
        }
        let side = self.right_side(right)?;
        let mut batch = batch.clone();
        let state = state_of_mut(replica);
        state.descriptor.span.end = left.span.end.clone();
        state.descriptor.generation = left.generation;
        let right_state = RangeState {
            applied: INITIAL,
            descriptor: right.clone(),
            fences: state.fences.clone(),
            gc_threshold: state.gc_threshold,
        };
        match side {
            RightSide::Gone => mvcc::write::remove_span(&*self.engine, &mut batch, &right.span)?,
            RightSide::Born { .. } => {
                batch.put(Space::Local, range_state_key(right.id), right_state.encode());
            }
        }
        self.write_split(replica, batch, events)?;
        replica.descriptor_changed();
        tracing::info!(left = %left.id, right = %right.id, at = %right.span.start, "range split");
        if let RightSide::Born { id, hard_state } = side {
            self.be_born(now, (replica, at.1), id, hard_state, right_state)?;
            self.out.events.push(RangeEvent::Split { left: left.id, right: right.id });
        }
        Ok(())
    }

    fn write_split(
        &mut self,
        replica: &Replica,
        mut batch: WriteBatch,
        events: Vec<RangeEvent>,
    ) -> Result<(), StorageError> {
        batch.put(Space::Local, range_state_key(replica.range), state_of(replica).encode());
        self.engine.write(&batch)?;
        self.out.events.extend(events);
        Ok(())
    }

    fn right_side(&self, right: &RangeDescriptor) -> Result<RightSide, StorageError> {
        let Some(peer) = right.peer_on(self.identity.node) else { return Ok(RightSide::Gone) };
        if peer.replica.0 < self.tombstone(right.id)? {
            coverage::reached(Mark::SplitAfterRemoval);
            return Ok(RightSide::Gone);
        }
        let mut hard_state = initial_hard_state();
        if let Some(present) = self.replicas.get(&right.id) {
            if present.state.is_some() {
                return Err(StorageError::Corrupt(format!(
                    "{} lives already where it is to be born",
                    right.id
                )));
            }
            if present.id > peer.replica {
                return Ok(RightSide::Gone);
            }
            if present.id == peer.replica && present.hard_state.term >= hard_state.term {
                coverage::reached(Mark::BornWithVote);
                hard_state.term = present.hard_state.term;
                hard_state.vote = present.hard_state.vote;
            }
        }
        Ok(RightSide::Born { id: peer.replica, hard_state })
    }

    /// `left`: with the term in which the split was proposed.
    fn be_born(
        &mut self,
        now: Now,
        left: (&Replica, Term),
        id: ReplicaId,
        hard_state: HardState,
        state: RangeState,
    ) -> Result<(), StorageError> {
        let (left, proposed_in) = left;
        let range = state.descriptor.id;
        let mut routes = std::collections::BTreeMap::new();
        // Its voters answer for the reads that left's leaders have served on its keys.
        let mut inherited_floor: Timestamp =
            left.ask(now, &self.promises, &*self.log, |raft, env| raft.read_floor(env));
        let mut former = self.replicas.remove(&range);
        if let Some(former) = &mut former {
            self.timers.remove(&(former.timer, range));
            routes = std::mem::take(&mut former.routes);
            inherited_floor = inherited_floor.max(former.inherited_floor);
        }
        begin_log(&mut self.out.write, range, id, hard_state, INITIAL);
        self.out.flush = true;
        self.out.unsettled.insert(range);
        let mut tail = Tail::default();
        tail.reset(INITIAL);
        let single = state.descriptor.peers.len() == 1;
        self.spans.insert(state.descriptor.span.start.clone(), range);
        let birth = Birth {
            range,
            id,
            epoch: self.next_epoch(),
            hard_state,
            state: Some(state),
            tail,
            last: INITIAL,
            routes,
            inherited_floor,
        };
        self.adopt(now, birth);
        let Some(mut right) = self.replicas.remove(&range) else { return Ok(()) };
        let early = former.and_then(|former| self.succeed(now, &mut right, *former));
        self.begin_reign(now, left, proposed_in, &mut right, single);
        self.replicas.insert(range, right);
        match early {
            Some(early) => self.early_message(now, range, early),
            None => Ok(()),
        }
    }

    /// `right` takes the place of `former`. Returns what that one has kept for it.
    fn succeed(&mut self, now: Now, right: &mut Replica, former: Replica) -> Option<Early> {
        let same = former.id == right.id;
        if same && self.config.raft.planted != Some(PlantedBug::BirthForgetsBinding) {
            right.with_raft(&mut self.context(now), |raft, env| raft.take_over(env, &former.raft));
        }
        former.early.filter(|_| same)
    }

    /// See the module: who leads the right range.
    fn begin_reign(
        &mut self,
        now: Now,
        left: &Replica,
        proposed_in: Term,
        right: &mut Replica,
        single: bool,
    ) {
        let planted = |bug| self.config.raft.planted == Some(bug);
        let reign = match left.reign {
            Reign::Led { term, floor } | Reign::Elected { term, floor } if left.is_leader() => {
                Some((term, floor))
            }
            Reign::Led { .. } | Reign::Elected { .. } | Reign::None => None,
        };
        let ours = reign
            .filter(|(term, _)| *term == proposed_in || planted(PlantedBug::BirthLedByAnyLeader));
        right.covered_floor = ours.map(|(_, floor)| floor);
        if planted(PlantedBug::BirthFloorOfOthers) && reign.is_some() {
            right.covered_floor = Some(Timestamp::MIN);
        }
        let leads = ours.is_some_and(|(_, floor)| {
            right.with_raft(&mut self.context(now), |raft, env| raft.lead_from_birth(env, floor))
        });
        if !leads && (reign.is_some() || single) {
            coverage::reached(Mark::BornStanding);
            right.with_raft(&mut self.context(now), |raft, env| raft.campaign(env));
        }
    }
}

/// Whether the split was planned on the descriptor that it meets.
fn fits(current: &RangeDescriptor, left: &RangeDescriptor, right: &RangeDescriptor) -> bool {
    left.id == current.id
        && right.id != current.id
        && left.generation == current.generation + 1
        && right.generation > current.generation
        && left.peers == current.peers
        && left.next_replica == current.next_replica
        && left.span.start == current.span.start
        && left.span.end == right.span.start
        && right.span.end == current.span.end
        && !left.span.is_empty()
        && !right.span.is_empty()
        && right.peers.len() == current.peers.len()
        && right.peers.iter().all(|peer| {
            peer.replica.0 < right.next_replica
                && current.peer_on(peer.node).is_some_and(|ours| ours.role == peer.role)
        })
}
