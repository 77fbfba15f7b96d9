//! Driver: carries out what a shard says, in the order in which the node's shard thread does: append, what may leave at once, answers,
//! sync, what must follow it, proof. The sync is an event of its own, so that crashes fall before, between and after.
//!
//! Every output burns the fuse, if one is lit: the process then dies between exactly these two outputs.

use clock::{Now, TimeSource};
use replication::range::{NodeId, RangeId};
use replication::store::{Deferred, FlushMark, MessageBatch, Persisted, StoreMessage};
use std::collections::BTreeMap;
use std::time::Duration;
use storage::log::sim_file::{Crash, FileOperation};
use storage::log::{Log, LogBatch, LogOp, LogReader, LogSequence};
use storage::{Engine, StorageError};
use txn::api::{KvError, Reply, Response};
use txn::runtime::HlcSource;
use txn::server::{Event as ShardEvent, RequestId};
use txn::wire;

use super::fault::Power;
use super::machine::{Input, Process, Waiter};
use super::port::{Call, Packet};
use super::{CLUSTER, Event, SyncMode, World};
use crate::planted::WorldBug;

/// Why a process ended.
pub(super) enum Died {
    /// The fuse burned out.
    Fuse,
    /// Its disk failed.
    Disk(StorageError),
}

/// A flush of the state takes up to this.
const FLUSH_MAX: Duration = Duration::from_millis(50);

impl World {
    /// Lets a node's shard take what waits for it, and carries out what follows.
    pub(super) fn turn(&mut self, node: NodeId) {
        let Some(mut process) =
            self.machines.get_mut(&node).and_then(|machine| machine.process.take())
        else {
            return;
        };
        let ended = self.turn_of(node, &mut process);
        self.put_back(node, process, ended);
    }

    /// A sync has returned.
    pub(super) fn synced(&mut self, node: NodeId, incarnation: u64) {
        if self.process_of(node, incarnation).is_none() {
            return;
        }
        let machine = self.machines.get_mut(&node).expect("its process was found");
        if machine.stalled_until > self.truth.now() {
            let again = machine.stalled_until;
            self.push(again, Event::Synced(node, incarnation));
            return;
        }
        let mut process = machine.process.take().expect("it was found");
        let ended =
            self.synced_of(node, &mut process).and_then(|()| self.turn_of(node, &mut process));
        self.put_back(node, process, ended);
    }

    /// A flush of the state begins: its mark is taken now.
    pub(super) fn begin_flush(&mut self, node: NodeId, incarnation: u64) {
        let interval = self.layout.flush_interval;
        let took = self.chances.disk.duration(Duration::ZERO, FLUSH_MAX);
        let hangs = self.machines[&node].state_stalled_until.saturating_sub(self.truth.now());
        let took = took.max(Duration::from_nanos(hangs));
        let Some(process) = self.process_of(node, incarnation) else { return };
        let mark = process.shard.flush_mark();
        self.push_after(took, Event::Flushed(node, incarnation, mark));
        self.push_after(took + interval, Event::Flush(node, incarnation));
    }

    /// It has returned.
    pub(super) fn end_flush(&mut self, node: NodeId, incarnation: u64, mark: FlushMark) {
        if self.process_of(node, incarnation).is_none() {
            return;
        }
        let stalled_until = self.machines[&node].state_stalled_until;
        if stalled_until > self.truth.now() {
            return self.push(stalled_until, Event::Flushed(node, incarnation, mark));
        }
        if !self.layout.has(WorldBug::MarkWithoutFlush)
            && let Err(error) = self.machines[&node].engine.flush()
        {
            return self.flush_failed(node, &error);
        }
        if self.layout.has(WorldBug::OlderDisk) {
            let machine = self.machines.get_mut(&node).expect("its process was found");
            machine.older = Some(machine.dir.crash(Crash::Lose));
        }
        self.tally.count("state flushes");
        let process = self.process_of(node, incarnation).expect("it was found");
        process.inbox.push_back(Input::Event(ShardEvent::Flushed(mark)));
        self.turn(node);
    }

    /// As a node's flushing task does: it says so and tries again later. The log keeps what was not flushed.
    fn flush_failed(&mut self, node: NodeId, error: &StorageError) {
        tracing::debug!(%node, %error, "state could not be flushed");
        self.tell(|| format!("{node} cannot flush its state: {error}"));
        self.tally.count("state flushes failed");
    }

    fn put_back(&mut self, node: NodeId, process: Box<Process>, ended: Result<(), Died>) {
        let machine = self.machines.get_mut(&node).expect("machines stay");
        machine.process = Some(process);
        match ended {
            Ok(()) => self.observe(node),
            Err(Died::Fuse) => {
                self.tally.count("crashes between two outputs");
                self.crash(node, Power::Lost);
            }
            Err(Died::Disk(error)) => {
                tracing::debug!(%node, %error, "the disk failed");
                self.tell(|| format!("{node} is stopped by its disk: {error}"));
                self.tally.count("nodes stopped by their disk");
                self.crash(node, Power::Lost);
                // What was damaged on purpose is damaged after the next start, too.
                if matches!(error, StorageError::Corrupt(_)) && self.machines[&node].rotten {
                    self.replace(node);
                }
            }
        }
    }

    fn turn_of(&mut self, node: NodeId, process: &mut Process) -> Result<(), Died> {
        if process.syncing && self.waits_for_syncs() {
            // The thread is in the sync; what arrives becomes the next batch.
            return Ok(());
        }
        while let Some(input) = process.inbox.pop_front() {
            self.take_input(node, process, input);
        }
        let now = read(process);
        if process.wake_at <= self.truth.now() {
            process.wake_at = u64::MAX;
            process.shard.step(now, ShardEvent::Tick);
        }
        self.carry_out(node, process)
    }

    fn take_input(&mut self, node: NodeId, process: &mut Process, input: Input) {
        match input {
            Input::Request(batch, waiter) => {
                process.last_request += 1;
                let id = process.last_request;
                process.waiting.insert(id, waiter);
                process.asked.extend(self.note_asked(&batch).map(|asked| (id, asked)));
                process.shard.step(read(process), ShardEvent::Request { id: RequestId(id), batch });
            }
            Input::Withdrawal(of, incarnation, call) => {
                let is_it = |waiter: &Waiter| match waiter {
                    Waiter::Local(id, _) => of == node && *id == call,
                    Waiter::Remote(from, asked) => {
                        *from == of && (asked.incarnation, asked.id) == (incarnation, call)
                    }
                };
                let waiting = process.waiting.iter();
                let ids: Vec<u64> =
                    waiting.filter(|(_, waiter)| is_it(waiter)).map(|(id, _)| *id).collect();
                for id in ids {
                    self.tally.count("calls withdrawn");
                    process.waiting.remove(&id);
                    process.asked.remove(&id);
                    process.shard.step(read(process), ShardEvent::Cancel { id: RequestId(id) });
                }
            }
            Input::Messages(from, messages) => {
                for message in messages {
                    process.shard.step(read(process), ShardEvent::Message { from, message });
                }
            }
            Input::Event(event) => process.shard.step(read(process), event),
        }
    }

    /// Whether a node's thread is in a sync that has not returned.
    pub(super) fn waits_in_a_sync(&self, node: NodeId) -> bool {
        let syncs = self.machines[&node].process.as_ref().is_some_and(|process| process.syncing);
        syncs && self.waits_for_syncs()
    }

    fn waits_for_syncs(&self) -> bool {
        self.layout.sync_mode == SyncMode::InPlace && !self.layout.has(WorldBug::AckBeforeSync)
    }

    fn synced_of(&mut self, node: NodeId, process: &mut Process) -> Result<(), Died> {
        process.syncing = false;
        let synced = match process.sync_covers.take() {
            Some(covered) => covered,
            None => self.write_log(node, process)?,
        };
        self.tally.count("log syncs");
        process.synced = synced;
        self.burn(node)?;
        let proof = Persisted::after_sync(synced);
        let (released, kept): (Vec<Deferred>, Vec<Deferred>) =
            process.deferred.drain(..).partition(|held| held.needs() <= proof.upto());
        process.deferred = kept;
        for held in released {
            self.send_stores(node, process, held.release(proof))?;
        }
        process.shard.step(read(process), ShardEvent::Persisted(proof));
        self.carry_out(node, process)
    }

    /// What was appended so far becomes durable now.
    fn write_log(&mut self, node: NodeId, process: &mut Process) -> Result<LogSequence, Died> {
        let synced = match process.log.sync() {
            Ok(synced) => synced,
            // The lie: what does not fit is written.
            Err(StorageError::Full(_)) if self.layout.has(WorldBug::FullIgnored) => {
                process.appended
            }
            // The lie: the next one will do.
            Err(_) if self.layout.has(WorldBug::SyncErrorIgnored) => {
                self.machines[&node].dir.set_fault(FileOperation::Sync, None);
                process.appended
            }
            Err(error) => return Err(Died::Disk(error)),
        };
        process.note_durable();
        Ok(synced)
    }

    fn carry_out(&mut self, node: NodeId, process: &mut Process) -> Result<(), Died> {
        loop {
            let ready = process.shard.ready(read(process));
            if ready.flush_before_write && !self.layout.has(WorldBug::BirthsNotFlushed) {
                self.machines[&node].engine.flush().map_err(Died::Disk)?;
                self.burn(node)?;
            }
            if !ready.write.is_empty() {
                process.note_overwritten(&ready.write);
                let sequence = process.log.append(ready.write).map_err(Died::Disk)?;
                process.appended = sequence;
                process.shard.step(read(process), ShardEvent::Appended(sequence));
                self.burn(node)?;
            }
            self.send_stores(node, process, ready.messages_now)?;
            for (id, reply) in ready.replies {
                self.answer(node, process, id, reply)?;
            }
            self.defer(node, process, ready.messages_after)?;
            self.wake(node, process, ready.wake_at);
            if let Some(error) = process.shard.fatal() {
                return Err(Died::Disk(error));
            }
            let blocked = process.syncing && self.waits_for_syncs();
            if blocked || !process.shard.has_ready() {
                return Ok(());
            }
        }
    }

    /// What must follow the sync waits for it, and a sync begins if there is something to sync.
    fn defer(
        &mut self,
        node: NodeId,
        process: &mut Process,
        messages: Vec<(NodeId, StoreMessage)>,
    ) -> Result<(), Died> {
        if process.appended > process.synced && !process.syncing {
            process.syncing = true;
            process.sync_began = self.truth.now();
            let (low, high) = self.layout.sync;
            let took = self.chances.disk.duration(low, high) * self.machines[&node].slow;
            self.push_after(took, Event::Synced(node, process.incarnation));
            // A disk writes at some time between: what is appended after that is not covered. One that hangs may have written.
            let early =
                self.layout.sync_mode == SyncMode::Overlapped && self.chances.disk.permille(500);
            if early {
                process.sync_covers = Some(self.write_log(node, process)?);
            }
        }
        if self.layout.has(WorldBug::AckBeforeSync) {
            // The lie: the batch is only appended.
            self.send_stores(node, process, messages)?;
            if process.syncing {
                let lie = Persisted::after_sync(process.appended);
                process.shard.step(read(process), ShardEvent::Persisted(lie));
            }
            return Ok(());
        }
        if process.appended > process.synced {
            if !messages.is_empty() {
                process.deferred.push(Deferred::new(messages, process.appended));
            }
            return Ok(());
        }
        self.send_stores(node, process, messages)
    }

    fn wake(&mut self, node: NodeId, process: &mut Process, wake_at: clock::Monotonic) {
        let at = process.clock.time.true_time_of(wake_at).max(self.truth.now() + 1);
        if at < process.wake_at {
            process.wake_at = at;
            self.push(at, Event::Tick(node, process.incarnation));
        }
    }

    /// One output fewer until the fuse burns out.
    fn burn(&mut self, node: NodeId) -> Result<(), Died> {
        let machine = self.machines.get_mut(&node).expect("machines stay");
        match &mut machine.fuse {
            None => Ok(()),
            Some(0) => {
                machine.fuse = None;
                Err(Died::Fuse)
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn send_stores(
        &mut self,
        node: NodeId,
        process: &mut Process,
        messages: Vec<(NodeId, StoreMessage)>,
    ) -> Result<(), Died> {
        let mut by_node: BTreeMap<NodeId, Vec<StoreMessage>> = BTreeMap::new();
        for (to, message) in messages {
            self.note_message(node, &message);
            by_node.entry(to).or_default().push(message);
        }
        for (to, messages) in by_node {
            let clock = process.clock.now();
            let batch = MessageBatch { cluster: CLUSTER, from: node, to, clock, messages };
            if self.machines.contains_key(&to) {
                self.send(node, to, Packet::Store(batch.encode()));
            }
            self.burn(node)?;
        }
        Ok(())
    }

    fn answer(
        &mut self,
        node: NodeId,
        process: &mut Process,
        id: RequestId,
        reply: Result<Reply, KvError>,
    ) -> Result<(), Died> {
        let Some(waiter) = process.waiting.remove(&id.0) else { return Ok(()) };
        self.count_answer(&reply);
        if let Some(asked) = process.asked.remove(&id.0) {
            self.check_answered(node, process, &asked, &reply);
        }
        if reply.as_ref().is_ok_and(is_write) {
            self.check_durable(node, process, &reply);
        }
        match waiter {
            Waiter::Local(_, sender) => drop(sender.send(reply)),
            Waiter::Remote(to, call) => {
                let clock = process.clock.now().raw();
                let body = wire::encode(&reply);
                self.send(node, to, Packet::Answer(Call { clock, body, ..call }));
            }
        }
        self.burn(node)
    }

    fn count_answer(&mut self, reply: &Result<Reply, KvError>) {
        let what = match reply {
            Ok(_) => "batches served",
            Err(KvError::NotLeaseholder { .. }) => "batches re-routed",
            Err(KvError::RangeMismatch { .. }) => "batches for a range that had split",
            Err(KvError::Uncertain { .. }) => "uncertain reads",
            Err(KvError::NewerVersion { .. } | KvError::NeedsRefresh { .. }) => "timestamps moved",
            Err(KvError::RefreshFailed { .. }) => "refreshes failed",
            Err(KvError::Blocked { .. }) => "batches blocked by a lock",
            Err(KvError::Deadlock { .. }) => "deadlocks found in one shard",
            Err(KvError::TxnAborted { .. }) => "transactions aborted by others",
            Err(KvError::Ambiguous { .. } | KvError::Doubtful { .. }) => "ambiguous answers",
            Err(KvError::Unavailable { .. }) => "batches refused without a quorum",
            Err(
                KvError::Unreachable { .. }
                | KvError::Exists { .. }
                | KvError::SchemaChanged { .. }
                | KvError::BelowGc { .. }
                | KvError::TooManyLocks { .. }
                | KvError::Overloaded { .. }
                | KvError::DeadlinePassed
                | KvError::Invalid(_),
            ) => "batches refused",
        };
        self.tally.count(what);
    }
}

impl Process {
    /// Entries take the place of others, which were durable perhaps: these are not yet.
    fn note_overwritten(&mut self, batch: &LogBatch) {
        for op in &batch.ops {
            if let LogOp::Append { group, entries } = op
                && let Some(first) = entries.first()
                && let Some(durable) = self.durable.get_mut(&RangeId(group.0))
                && durable.0 > first.index.prev()
            {
                let before = first.index.prev();
                *durable = (before, self.log.term(*group, before).unwrap_or_default());
            }
        }
    }

    /// The log is durable as far as it goes.
    pub(super) fn note_durable(&mut self) {
        self.durable = self
            .log
            .groups()
            .into_iter()
            .map(|(group, state)| (RangeId(group.0), state.last))
            .collect();
    }
}

fn read(process: &Process) -> Now {
    Now { clock: process.clock.now(), monotonic: process.clock.time.monotonic() }
}

/// Whether an answer tells of something that must never be lost.
fn is_write(reply: &Reply) -> bool {
    reply
        .responses
        .iter()
        .any(|response| matches!(response, Response::Written(_) | Response::Committed(_)))
}
