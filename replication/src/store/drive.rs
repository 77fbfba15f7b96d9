//! Machine: one group's `Ready` after another, until it has none: writes collected, messages addressed, entries applied.

use clock::{Monotonic, Now};
use coverage::Mark;
use storage::StorageError;
use storage::log::{LogGroup, LogOp};

use super::core::{Store, Tracked};
use super::open::{announced, encode_hard_state};
use super::replica::{Reign, Replica};
use super::tail::TailView;
use super::{RangeEvent, StoreMessage};
use crate::raft::{Entry, GroupLog, HardState, Message, Term};
use crate::range::{INITIAL, NodeId, RangeId};

/// Whether the replica goes on living here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It does.
    Stays,
    /// Its group has removed it.
    Leaves,
}

impl Store {
    /// Looks at one group until it has nothing more to say.
    pub(super) fn drive(&mut self, now: Now, range: RangeId) {
        let Some(mut replica) = self.replicas.remove(&range) else { return };
        let mut fate = Fate::Stays;
        while fate == Fate::Stays && (replica.raft.has_ready() || replica.raft.failure().is_some())
        {
            match self.drive_once(now, &mut replica) {
                Ok(next) => fate = next,
                Err(error) => {
                    self.fail(error);
                    self.replicas.insert(range, replica);
                    return;
                }
            }
        }
        match fate {
            Fate::Stays => {
                self.set_timer(now, &mut replica);
                self.replicas.insert(range, replica);
            }
            Fate::Leaves => {
                coverage::reached(Mark::ReplicaLeft);
                let next = replica.descriptor().map(|descriptor| self.lowest_to_come(descriptor));
                let next = next.unwrap_or(replica.id.0 + 1);
                if let Err(error) = self.remove(*replica, next) {
                    self.fail(error);
                }
            }
        }
    }

    fn drive_once(&mut self, now: Now, replica: &mut Replica) -> Result<Fate, StorageError> {
        let ready = replica.with_raft(&mut self.context(now), |raft, env| raft.ready(env));
        if let Some(error) = replica.raft.failure() {
            return Err(error.clone());
        }
        if ready.hard_state.is_some() || !ready.entries.is_empty() {
            let (range, epoch) = (replica.range, replica.epoch);
            self.out.tracked.push(Tracked { range, epoch, number: ready.number });
        }
        if let Some(hard_state) = ready.hard_state {
            self.write_hard_state(replica, hard_state);
        }
        if !ready.entries.is_empty() {
            self.write_entries(replica, ready.entries)?;
        }
        // A leader whose disk hangs falls silent, or its heartbeats would keep the others from electing one that works (S05).
        let mute = replica.is_leader() && self.is_stalled(now);
        for message in ready.messages_now.into_iter().filter(|_| !mute) {
            if let Some(addressed) = self.address(replica, message) {
                self.out.now.push(addressed);
            }
        }
        for message in ready.messages_after {
            if let Some(addressed) = self.address(replica, message) {
                self.out.after.push(addressed);
            }
        }
        if ready.deposed {
            self.depose(replica);
        }
        if let Some((term, floor)) = ready.elected {
            self.elect(now, replica, term, floor);
        }
        replica.snapshots_wanted.extend(ready.snapshots_wanted);
        let fate = self.apply(now, replica, ready.committed)?;
        if fate == Fate::Stays {
            self.send_wanted_snapshots(now, replica);
        }
        Ok(fate)
    }

    pub(super) fn write_hard_state(&mut self, replica: &mut Replica, hard_state: HardState) {
        replica.hard_state = hard_state;
        let state = encode_hard_state(replica.id, hard_state);
        self.out.write.ops.push(LogOp::State { group: LogGroup(replica.range.0), state });
    }

    fn write_entries(
        &mut self,
        replica: &mut Replica,
        entries: Vec<Entry>,
    ) -> Result<(), StorageError> {
        for entry in &entries {
            // Routes are needed as soon as the membership is in force: when it is appended.
            if let Some(descriptor) = announced(entry)? {
                replica.learn_routes(&descriptor);
            }
        }
        replica.tail.append(&entries);
        self.out.unsettled.insert(replica.range);
        self.out.write.ops.push(LogOp::Append { group: LogGroup(replica.range.0), entries });
        Ok(())
    }

    /// Puts a group's message into its envelope. `None`: nobody knows where the receiver lives; the group will try again.
    fn address(&self, replica: &Replica, message: Message) -> Option<(NodeId, StoreMessage)> {
        let node = *replica.routes.get(&message.to)?;
        let envelope = StoreMessage::Raft {
            range: replica.range,
            message,
            incarnation: self.identity.incarnation,
            to_incarnation: self.promises.incarnation_of(node),
        };
        Some((node, envelope))
    }

    fn elect(&mut self, now: Now, replica: &mut Replica, term: Term, floor: clock::Timestamp) {
        if !replica.is_leader() || replica.raft.term() != term {
            return;
        }
        let floor = match replica.covered_floor {
            Some(covered) if self.is_first_reign(replica) => {
                coverage::reached(Mark::FloorFromLeftSide);
                covered
            }
            Some(_) | None => floor,
        };
        tracing::info!(range = %replica.range, %term, node = %self.identity.node, "leader elected");
        replica.reign = Reign::Elected { term, floor };
        replica.moved_at = now.monotonic;
        self.promises.hurry(now);
    }

    /// Whether nobody else has ever served this range: before our new entry our log has nothing, or only what we
    /// appended in the term of birth, which nobody else leads. Any other leader that served had an entry of a later term
    /// committed, and we could not have been elected without it.
    fn is_first_reign(&self, replica: &Replica) -> bool {
        let group = LogGroup(replica.range.0);
        let log = TailView { group, tail: &replica.tail, log: &*self.log };
        let before = replica.tail.last().prev();
        replica.tail.truncated() == INITIAL && log.term(before) == Some(INITIAL.1)
    }

    pub(super) fn depose(&mut self, replica: &mut Replica) {
        if replica.has_led() {
            coverage::reached(Mark::LeaseholderDeposed);
            self.out.events.push(RangeEvent::Deposed { range: replica.range });
        }
        replica.reign = Reign::None;
        replica.transfer_wanted_since = None;
        replica.joint_floor = None;
        replica.departed.clear();
        let range = replica.range;
        self.outgoing.retain(|(of, _), _| *of != range);
        replica.snapshots_wanted.clear();
    }

    pub(super) fn set_timer(&mut self, now: Now, replica: &mut Replica) {
        let at = replica.ask(now, &self.promises, &*self.log, |raft, env| raft.wake_at(env));
        if at != replica.timer {
            self.timers.remove(&(replica.timer, replica.range));
            if at != Monotonic::MAX {
                self.timers.insert((at, replica.range));
            }
            replica.timer = at;
        }
    }
}
