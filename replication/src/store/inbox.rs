//! Machine: what another store says. Everything may be late, repeated, out of order, or from the dead.
//!
//! - Messages of an incarnation older than the newest we heard of are dropped, as are answers to a former incarnation of ours.
//! - A replica is created by a message only if it asks for something (append, vote), and only above its tombstone.
//! - A message to a newer replica than ours proves that ours was removed: the group adds a replica only after the former
//!   one's removal is committed. Not so the append of a leader of a former term than ours: that may lack ours, and what it
//!   added may be lost.
//! - Whoever asks after a leader whose replica was removed here hears `Departed`, and so does who asks something of a former
//!   replica: the newer one may be what is left of an addition that was lost, and a leader that does not know of it has to add another one.
//! - Whoever is no member any more, as far as we have applied, hears `Gone` instead of an answer.

use clock::{Monotonic, Now};
use coverage::{Mark, Rare, rare};
use storage::StorageError;

use super::core::Store;
use super::promises::{Asked, Granted, Heard};
use super::replica::{Context, Early, Replica};
use super::{Fencing, StoreMessage};
use crate::raft::{Body, Incarnation, Message, ReplicaId};
use crate::range::{NodeId, RangeId};

impl Store {
    /// A message has come in. `from` is who the transport says it is from; `now` has already observed the sender's clock.
    pub fn message(&mut self, now: Now, from: NodeId, message: StoreMessage) {
        if self.fatal.is_some() || from == self.identity.node {
            return;
        }
        if let Err(error) = self.receive(now, from, message) {
            self.fail(error);
        }
    }

    fn receive(
        &mut self,
        now: Now,
        from: NodeId,
        message: StoreMessage,
    ) -> Result<(), StorageError> {
        match message {
            StoreMessage::Raft { range, message, incarnation, to_incarnation } => {
                let ours = self.identity.incarnation;
                let live = self.hear(now, from, incarnation);
                if live && (to_incarnation == Incarnation::default() || to_incarnation == ours) {
                    self.raft_message(now, from, range, incarnation, message)?;
                }
            }
            StoreMessage::SupportRequest { incarnation, sequence, duration, read_bound } => {
                if self.hear(now, from, incarnation) {
                    let asked = Asked { incarnation, sequence, duration, read_bound };
                    let reply = self.promises.request(now, from, asked);
                    self.out.now.push((from, reply));
                }
            }
            StoreMessage::SupportReply { incarnation, by, sequence, duration, read_bound } => {
                if self.hear(now, from, by) {
                    let granted = Granted { incarnation, by, sequence, duration, read_bound };
                    self.promises.reply(now, from, granted);
                }
            }
            StoreMessage::SnapshotChunk {
                range,
                from: sender,
                to,
                term,
                attempt,
                number,
                data,
                last,
            } => {
                self.promises.heard_anonymous(now, from);
                let chunk =
                    super::snapshot_in::Chunk { sender, to, term, attempt, number, data, last };
                self.snapshot_chunk(now, from, range, chunk)?;
            }
            StoreMessage::SnapshotAck { range, from: receiver, to, attempt, next } => {
                self.promises.heard_anonymous(now, from);
                self.snapshot_ack(now, range, receiver, to, attempt, next)?;
            }
            StoreMessage::Probe { range, replica } => {
                self.promises.heard_anonymous(now, from);
                if !self.refuse_departed(from, range, replica) {
                    self.tell_departed(from, range)?;
                }
            }
            StoreMessage::Departed { range, below, incarnation } => {
                if self.hear(now, from, incarnation) {
                    self.hear_departed(now, from, range, (below, incarnation));
                }
            }
            StoreMessage::Gone { range, replica, descriptor } => {
                self.promises.heard_anonymous(now, from);
                self.hear_gone(range, replica, &descriptor)?;
            }
        }
        Ok(())
    }

    /// Notes the sender's incarnation; whether it is alive. A restart voids promises, so everybody's timers are looked at again.
    fn hear(&mut self, now: Now, from: NodeId, incarnation: Incarnation) -> bool {
        match self.promises.heard(now, from, incarnation) {
            Heard::Stale => {
                coverage::reached(Mark::DeadIncarnationIgnored);
                false
            }
            Heard::Known => true,
            Heard::Restarted => {
                tracing::info!(node = %from, "store restarted");
                coverage::reached(Mark::StoreRestartNoticed);
                self.dirty.extend(self.replicas.keys().copied());
                true
            }
        }
    }

    fn raft_message(
        &mut self,
        now: Now,
        from: NodeId,
        range: RangeId,
        incarnation: Incarnation,
        message: Message,
    ) -> Result<(), StorageError> {
        if !self.admit(now, from, range, &message)? {
            return Ok(());
        }
        let Some(mut replica) = self.replicas.remove(&range) else { return Ok(()) };
        if replica.id == message.to {
            replica.heard_at = now.monotonic;
            learn_route(&mut replica, from, &message);
            let patience = self.config.raft.election_timeout;
            let early = Early { from, incarnation, message };
            let due = replica.hold_early(now.monotonic, patience, early);
            if let Some(Early { message, .. }) = due
                && replica.routes.get(&message.from) == Some(&from)
            {
                if matches!(message.body, Body::PreVote { .. }) {
                    self.probe_leader(now, &mut replica);
                }
                let votes = matches!(message.body, Body::PreVote { .. } | Body::Vote { .. });
                let asking = votes.then_some(message.from);
                let mut context = Context { asking, ..self.context(now) };
                replica.with_raft(&mut context, |raft, env| {
                    raft.step(env, incarnation, message);
                });
            }
        }
        self.replicas.insert(range, replica);
        self.dirty.insert(range);
        Ok(())
    }

    /// Whether the message is for a replica that is here: after it has made one, or has taken the place of a former one.
    fn admit(
        &mut self,
        now: Now,
        from: NodeId,
        range: RangeId,
        message: &Message,
    ) -> Result<bool, StorageError> {
        let asks = asks(&message.body);
        if let Some(ours) = self.replicas.get(&range) {
            let id = ours.id;
            let removed = message.to > id && asks;
            let proven = removed && proves_removal(ours, message);
            if asks && self.refuse_departed(from, range, message.from) {
                return Ok(false);
            }
            if message.to < id {
                coverage::reached(Mark::MessageForFormerReplica);
                if asks {
                    self.tell_departed(from, range)?;
                }
                return Ok(false);
            }
            if removed && !proven {
                coverage::reached(Mark::FormerLeadersAdditionIgnored);
                // It may have our removal all the same, and be the only one we hear of that has; then it says so.
                self.out.now.push((from, StoreMessage::Probe { range, replica: id }));
                return Ok(false);
            }
            if proven && let Some(old) = self.replicas.remove(&range) {
                coverage::reached(Mark::ReplacedByNewerReplica);
                self.remove(*old, message.to.0)?;
            }
        }
        if self.replicas.contains_key(&range) {
            return Ok(true);
        }
        if !asks {
            coverage::reached(Mark::MessageForNobody);
            return Ok(false);
        }
        if message.to.0 < self.tombstone(range)? {
            coverage::reached(Mark::MessageForBuriedReplica);
            self.tell_departed(from, range)?;
            return Ok(false);
        }
        self.create_uninitialised(now, range, message.to, (message.from, from));
        Ok(true)
    }

    /// A range is born here; `early` has waited for that.
    pub(super) fn early_message(
        &mut self,
        now: Now,
        range: RangeId,
        early: Early,
    ) -> Result<(), StorageError> {
        let Early { from, incarnation, message } = early;
        // Its sender may have died meanwhile.
        if self.promises.incarnation_of(from) != incarnation {
            coverage::reached(Mark::EarlySenderDied);
            return Ok(());
        }
        self.raft_message(now, from, range, incarnation, message)
    }

    /// Answers `Gone` if `replica` on `from` was a member once, and is none as of what we have applied.
    fn refuse_departed(&mut self, from: NodeId, range: RangeId, replica: ReplicaId) -> bool {
        let Some(descriptor) = self.descriptor(range) else { return false };
        let member = descriptor.peer(replica).is_some_and(|peer| peer.node == from);
        if member || replica.0 >= descriptor.next_replica {
            return false;
        }
        let descriptor = descriptor.clone();
        coverage::reached(Mark::GoneAnswered);
        self.out.after.push((from, StoreMessage::Gone { range, replica, descriptor }));
        true
    }

    /// Somebody wants to lead, and a promise may bind us to a leader that says nothing. Its store keeps the promise up as long as it lives,
    /// for all of its ranges: also when its replica of this one was removed, and cannot say any more that it does not lead.
    fn probe_leader(&mut self, now: Now, replica: &mut Replica) {
        let Some(leader) = replica.raft.bound_to() else { return };
        let Some(node) = replica.routes.get(&leader).copied() else { return };
        let patience = self.config.raft.election_timeout;
        if node == self.identity.node || now.monotonic.since(replica.probed_at) < patience {
            return;
        }
        coverage::reached(Mark::BoundLeaderProbed);
        replica.probed_at = now.monotonic;
        self.out
            .now
            .push((node, StoreMessage::Probe { range: replica.range, replica: replica.id }));
    }

    /// Whoever asks may be bound to a replica that we had.
    fn tell_departed(&mut self, from: NodeId, range: RangeId) -> Result<(), StorageError> {
        let below = match self.replicas.get(&range) {
            Some(replica) => replica.id,
            None => ReplicaId(self.tombstone(range)?),
        };
        if below > ReplicaId(0) {
            let incarnation = self.identity.incarnation;
            self.out.after.push((from, StoreMessage::Departed { range, below, incarnation }));
        }
        Ok(())
    }

    /// A leader that is no more leads nothing: neither the term that we acknowledged nor, having lost its number, another one.
    /// A learner of ours that can never be there is to be removed, and another one added ([`super::relocate`]).
    fn hear_departed(
        &mut self,
        now: Now,
        from: NodeId,
        range: RangeId,
        (below, incarnation): (ReplicaId, Incarnation),
    ) {
        let Some(mut replica) = self.replicas.remove(&range) else { return };
        let known = replica.departed_below.entry(from).or_insert(below);
        *known = below.max(*known);
        let leader = replica.raft.bound_to();
        let is_there = |leader: &ReplicaId| replica.routes.get(leader) == Some(&from);
        if let Some(leader) = leader.filter(|leader| *leader < below).filter(is_there) {
            let mut context = self.context(now);
            replica.with_raft(&mut context, |raft, env| {
                raft.leader_departed(env, leader, incarnation);
            });
        }
        self.replicas.insert(range, replica);
        self.dirty.insert(range);
    }

    /// Asks every store we may share a range with for its promise, unless our clock or our disk should not be trusted with it
    /// (killer S05: a lease must not outlive a stalled disk).
    pub(super) fn ask_for_support(&mut self, now: Now) {
        if self.fencing == Fencing::Fenced || self.is_stalled(now) {
            coverage::reached(Mark::SupportNotAsked);
            self.promises.skip_round(now);
            return;
        }
        if rare(Rare::PromisesNotRenewed) {
            return self.promises.skip_round(now);
        }
        let here = self.identity.node;
        let mut nodes: std::collections::BTreeSet<NodeId> = self.nodes.keys().copied().collect();
        for replica in self.replicas.values() {
            nodes.extend(replica.routes.values().copied());
        }
        nodes.remove(&here);
        let messages = self.promises.round(now, nodes);
        self.out.now.extend(messages);
    }

    /// Whether the log has not been synced for too long.
    pub(super) fn is_stalled(&self, now: Now) -> bool {
        let handed_out = self.out.handed_out.as_ref().map(|(since, _)| *since);
        let oldest = self.unsynced.front().map(|batch| batch.since).or(handed_out);
        oldest.is_some_and(|since: Monotonic| now.monotonic.since(since) > self.config.stall_max)
    }
}

/// Notes on which node a replica is that a message names as its sender.
///
/// What our log says of it may be wrong: an entry that was lost, and that we do not know to be lost, may have given the number to a
/// replica elsewhere. Such a one asks and votes under its number as well, so it is our log that is believed. Only who leads is
/// what it says, for it is a member of what is committed; and if it were not believed we would never hear what was.
fn learn_route(replica: &mut Replica, from: NodeId, message: &Message) {
    let leads = matches!(message.body, Body::Append { .. }) && message.term >= replica.raft.term();
    let known = replica.routes.entry(message.from).or_insert(from);
    if leads && *known != from {
        coverage::reached(Mark::LeaderFoundElsewhere);
        *known = from;
    }
}

/// Whether `message`, to a newer replica than `ours`, proves that `ours` was removed.
///
/// A leader of our term or a later one has our addition in its log if that is committed: one that had it made us follow before we could
/// count. A vote is asked only of who is promoted in the asker's log, and promoted is only whose addition is committed.
fn proves_removal(ours: &Replica, message: &Message) -> bool {
    let leads = matches!(message.body, Body::Append { .. });
    !leads || message.term >= ours.raft.term()
}

/// Whether the body asks for something, so that it may wake a replica that does not exist yet.
fn asks(body: &Body) -> bool {
    match body {
        Body::PreVote { .. } | Body::Vote { .. } | Body::Append { .. } => true,
        Body::PreVoteReply { .. }
        | Body::VoteReply { .. }
        | Body::AppendReply { .. }
        | Body::AppendRefused { .. }
        | Body::SnapshotReply { .. }
        | Body::TimeoutNow { .. }
        | Body::ReadIndex { .. }
        | Body::ReadIndexReply { .. } => false,
    }
}
