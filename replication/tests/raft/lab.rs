//! A replica with a disk and promises, and the ledger of everything that happened: shared by scripts and simulation.
//!
//! One replica per store. A crash keeps what was synced and a prefix of what was not. The applied state is the list of applied
//! entries; the ledger compares it, so a replica keeps only how far it is.

use bytes::Bytes;
use clock::{Monotonic, Timestamp};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use replication::raft::{
    Body, Entry, Env, GroupLog, HardState, Incarnation, Lease, LogIndex, Membership, Message,
    Payload, PlantedBug, Promise, Raft, RaftConfig, Ready, ReplicaId, RoleKind, Support, Term,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use storage::StorageError;

pub(crate) const ELECTION_TIMEOUT: Duration = Duration::from_millis(1000);
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(300);
pub(crate) const PROMISE: Duration = Duration::from_millis(1200);
pub(crate) const PROMISE_INTERVAL: Duration = Duration::from_millis(400);
/// Promises are believed shorter by this many percent; clocks in the simulation drift apart by less.
const DRIFT_PERCENT: u32 = 3;
const READ_SLACK: Duration = Duration::from_millis(200);

pub(crate) fn config(planted: Option<PlantedBug>) -> RaftConfig {
    RaftConfig {
        election_timeout: ELECTION_TIMEOUT,
        heartbeat_interval: HEARTBEAT,
        append_bytes_max: 64,
        inflight_bytes_max: 200,
        uncommitted_bytes_max: 400,
        apply_bytes_max: 100,
        planted,
    }
}

/// A state machine's position: all of the state, since the ledger knows what was applied.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) index: LogIndex,
    pub(crate) term: Term,
    pub(crate) membership: Membership,
}

/// A log, volatile or durable.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogImage {
    pub(crate) truncated: (LogIndex, Term),
    pub(crate) entries: Vec<Entry>,
}

impl LogImage {
    fn position(&self, index: LogIndex) -> Option<usize> {
        usize::try_from(index.get().checked_sub(self.truncated.0.get() + 1)?).ok()
    }
    pub(crate) fn last(&self) -> (LogIndex, Term) {
        self.entries.last().map_or(self.truncated, |entry| (entry.index, entry.term))
    }
    fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let position = self.position(first.index).expect("appends start after the truncated part");
        assert!(position <= self.entries.len(), "append leaves a hole");
        self.entries.truncate(position);
        self.entries.extend_from_slice(entries);
    }
    fn truncate(&mut self, index: LogIndex, term: Term) {
        if index <= self.truncated.0 {
            return;
        }
        if index >= self.last().0 {
            self.entries.clear();
        } else {
            self.entries.retain(|entry| entry.index > index);
        }
        self.truncated = (index, term);
    }
    fn install(&mut self, index: LogIndex, term: Term) {
        self.entries.clear();
        self.truncated = (index, term);
    }
}

impl GroupLog for LogImage {
    fn entries(
        &self,
        first: LogIndex,
        last: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let mut bytes = 0;
        let mut found = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.index >= first && entry.index <= last)
        {
            bytes += entry.data.len();
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }
    fn term(&self, index: LogIndex) -> Option<Term> {
        if index == self.truncated.0 {
            return Some(self.truncated.1);
        }
        self.entries.get(self.position(index)?).map(|entry| entry.term)
    }
}

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) log: LogImage,
    /// The state machine as last flushed.
    pub(crate) flushed: Snapshot,
    /// At or above every read bound recorded (the persisted clock bound of a real store).
    recorded: Timestamp,
}

/// One write under way, and what waits for it.
#[derive(Clone, Debug, Default)]
struct Write {
    number: u64,
    hard_state: Option<HardState>,
    install: Option<Snapshot>,
    entries: Vec<Entry>,
    after: Vec<Message>,
}

#[derive(Clone, Copy, Debug)]
struct Given {
    incarnation: Incarnation,
    until: Monotonic,
    bound: Timestamp,
}

/// Promises of one store.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    id: u64,
    incarnation: Incarnation,
    given: BTreeMap<ReplicaId, Given>,
    received: BTreeMap<ReplicaId, Promise>,
    own_bound: Timestamp,
    no_vote_before: Monotonic,
    restart_floor: Timestamp,
}

impl Support for Promises {
    fn incarnation(&self) -> Incarnation {
        self.incarnation
    }
    fn given(&self, leader: ReplicaId, incarnation: Incarnation) -> Option<(Monotonic, Timestamp)> {
        let given = self.given.get(&leader)?;
        let until = if given.incarnation == incarnation { given.until } else { Monotonic::ZERO };
        Some((until, given.bound))
    }
    fn received(&self, peer: ReplicaId) -> Option<Promise> {
        if peer.0 == self.id {
            let until = Monotonic::ZERO;
            let (read_bound, by) = (self.own_bound, self.incarnation);
            return Some(Promise { until, read_bound, by, unbroken_since: Monotonic::ZERO });
        }
        self.received.get(&peer).copied()
    }
    fn no_vote_before(&self) -> Monotonic {
        self.no_vote_before
    }
    fn restart_floor(&self) -> Timestamp {
        self.restart_floor
    }
}

/// What travels between stores.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Parcel {
    Raft(Message),
    Ask { sent: Monotonic, bound: Timestamp },
    Promise { answers: Incarnation, sent: Monotonic, bound: Timestamp },
    Snapshot { snapshot: Snapshot, leader_term: Term },
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Packet {
    pub(crate) from: ReplicaId,
    pub(crate) incarnation: Incarnation,
    pub(crate) to: ReplicaId,
    pub(crate) parcel: Parcel,
}

/// What a replica did that the world must know.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) packets: Vec<Packet>,
    pub(crate) snapshots_wanted: Vec<ReplicaId>,
    pub(crate) read_indexes: Vec<(u64, LogIndex)>,
    /// For people.
    pub(crate) notes: Vec<String>,
}

/// A replica, its store and its disk.
pub(crate) struct Node {
    pub(crate) id: ReplicaId,
    config: RaftConfig,
    pub(crate) raft: Option<Raft>,
    pub(crate) promises: Promises,
    pub(crate) log: LogImage,
    pub(crate) disk: Disk,
    writes: VecDeque<Write>,
    installing: Option<Snapshot>,
    pub(crate) applied: Snapshot,
    rng: ChaCha8Rng,
    /// Election timeouts are drawn from here first: scripts decide who campaigns when.
    pub(crate) fixed_random: Option<u64>,
}

impl Node {
    pub(crate) fn new(id: ReplicaId, config: RaftConfig, initial: Snapshot, seed: u64) -> Node {
        let term = initial.term;
        let log = LogImage { truncated: (initial.index, term), entries: Vec::new() };
        let hard_state = HardState { term, vote: None, commit: initial.index };
        let disk = Disk { hard_state, log, flushed: initial, recorded: Timestamp::MIN };
        Node {
            id,
            config,
            raft: None,
            promises: Promises { id: id.0, ..Promises::default() },
            log: LogImage::default(),
            disk,
            writes: VecDeque::new(),
            installing: None,
            applied: Snapshot::default(),
            rng: ChaCha8Rng::seed_from_u64(seed ^ (id.0 << 32)),
            fixed_random: None,
        }
    }

    pub(crate) fn start(&mut self, now: Monotonic) {
        assert!(self.raft.is_none(), "{} runs already", self.id);
        let former = self.promises.incarnation;
        self.promises = Promises {
            id: self.id.0,
            incarnation: Incarnation(former.0 + 1),
            no_vote_before: if former.0 == 0 { Monotonic::ZERO } else { now.plus(PROMISE) },
            restart_floor: self.disk.recorded,
            ..Promises::default()
        };
        self.log = self.disk.log.clone();
        self.applied = self.disk.flushed.clone();
        let (config, id, hard_state) = (self.config.clone(), self.id, self.disk.hard_state);
        let (membership, applied) = (self.applied.membership.clone(), self.applied.index);
        let (truncated, last) = (self.log.truncated, self.log.last());
        let mut random = random_of(self.fixed_random, &mut self.rng);
        let mut env = Env { now, support: &self.promises, log: &self.log, random: &mut random };
        self.raft =
            Some(Raft::new(config, id, hard_state, membership, truncated, last, applied, &mut env));
    }

    /// Loses all that is volatile; of the unsynced writes the first `kept` happened to reach the disk.
    pub(crate) fn crash(&mut self, kept: usize) {
        for _ in 0..kept.min(self.writes.len()) {
            self.write_out();
        }
        self.writes.clear();
        self.installing = None;
        self.raft = None;
    }

    fn write_out(&mut self) -> Option<Write> {
        let write = self.writes.pop_front()?;
        if let Some(hard_state) = write.hard_state {
            self.disk.hard_state = hard_state;
        }
        if let Some(snapshot) = &write.install {
            self.disk.log.install(snapshot.index, snapshot.term);
            self.disk.flushed = snapshot.clone();
        }
        self.disk.log.append(&write.entries);
        Some(write)
    }

    pub(crate) fn promises_incarnation(&self) -> Incarnation {
        self.promises.incarnation
    }

    pub(crate) fn unsynced(&self) -> usize {
        self.writes.len()
    }

    /// Calls into Raft, if it runs.
    pub(crate) fn with<R>(
        &mut self,
        now: Monotonic,
        call: impl FnOnce(&mut Raft, &mut Env<'_>) -> R,
    ) -> Option<R> {
        let raft = self.raft.as_mut()?;
        let mut random = random_of(self.fixed_random, &mut self.rng);
        let mut env = Env { now, support: &self.promises, log: &self.log, random: &mut random };
        Some(call(raft, &mut env))
    }

    pub(crate) fn view<R>(
        &self,
        now: Monotonic,
        call: impl FnOnce(&Raft, &Env<'_>) -> R,
    ) -> Option<R> {
        let raft = self.raft.as_ref()?;
        let mut random = || 0;
        let env = Env { now, support: &self.promises, log: &self.log, random: &mut random };
        Some(call(raft, &env))
    }

    pub(crate) fn lease(&self, now: Monotonic) -> Option<Lease> {
        self.view(now, |raft, env| raft.lease(env)).flatten()
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.raft.as_ref().is_some_and(|raft| raft.role() == RoleKind::Leader)
    }

    /// Does what Raft wants done, until it wants nothing more.
    pub(crate) fn settle(&mut self, now: Monotonic, ledger: &mut Ledger) -> Effects {
        let mut effects = Effects::default();
        while self.raft.as_ref().is_some_and(Raft::has_ready) {
            let ready = self.with(now, |raft, env| raft.ready(env)).expect("it runs");
            self.carry_out(now, ready, ledger, &mut effects);
        }
        if let Some(failure) = self.raft.as_ref().and_then(Raft::failure) {
            panic!("{}: {failure}", self.id);
        }
        effects
    }

    fn carry_out(
        &mut self,
        now: Monotonic,
        ready: Ready,
        ledger: &mut Ledger,
        effects: &mut Effects,
    ) {
        if ready.deposed {
            effects.notes.push("leads no more".to_string());
        }
        if let Some((term, floor)) = ready.elected {
            effects.notes.push(format!("leads term {term}, floor {floor}"));
            let raft = self.raft.as_ref().expect("it runs");
            ledger.elected(self.id, term, floor, raft.membership());
        }
        let install = self.installing.take();
        let nothing = ready.hard_state.is_none() && ready.entries.is_empty() && install.is_none();
        self.log.append(&ready.entries);
        for entry in &ready.entries {
            ledger.appended(entry, self.log.term(entry.index.prev()));
        }
        if nothing {
            match self.writes.back_mut() {
                Some(write) => write.after.extend(ready.messages_after),
                None => effects
                    .packets
                    .extend(ready.messages_after.into_iter().map(|message| self.pack(message))),
            }
        } else {
            self.writes.push_back(Write {
                number: ready.number,
                hard_state: ready.hard_state,
                install,
                entries: ready.entries,
                after: ready.messages_after,
            });
        }
        effects.packets.extend(ready.messages_now.into_iter().map(|message| self.pack(message)));
        effects.snapshots_wanted.extend(ready.snapshots_wanted);
        effects.read_indexes.extend(ready.read_indexes);
        if let Some(last) = ready.committed.last() {
            for entry in &ready.committed {
                effects.notes.push(self.apply(entry, ledger));
            }
            self.with(now, |raft, env| raft.applied(env, last.index));
        }
    }

    fn apply(&mut self, entry: &Entry, ledger: &mut Ledger) -> String {
        assert_eq!(entry.index, self.applied.index.next(), "{}: applied out of order", self.id);
        assert!(
            self.disk.log.term(entry.index) == Some(entry.term),
            "{}: entry {} applied before it was durable",
            self.id,
            entry.index
        );
        ledger.applied(self.id, entry);
        self.applied.index = entry.index;
        self.applied.term = entry.term;
        let place = format!("{}/{}", entry.term, entry.index);
        match Payload::decode(&entry.data).unwrap() {
            Payload::Empty => format!("applied {place}"),
            Payload::Command(command) => {
                format!("applied {place} {}", String::from_utf8_lossy(&command))
            }
            Payload::Membership { membership, .. } => {
                self.applied.membership = membership;
                format!("applied {place} membership")
            }
        }
    }

    fn pack(&self, message: Message) -> Packet {
        if let Body::VoteReply { granted: true, .. } = &message.body {
            let HardState { term, vote, .. } = self.disk.hard_state;
            let durable = term > message.term || (term == message.term && vote == Some(message.to));
            assert!(
                durable,
                "{}: vote for {} in term {} left before it was durable",
                self.id, message.to, message.term
            );
        }
        Packet {
            from: self.id,
            incarnation: self.promises.incarnation,
            to: message.to,
            parcel: Parcel::Raft(message),
        }
    }

    /// The first `count` writes are synced. Returns what waited for them.
    pub(crate) fn sync(&mut self, now: Monotonic, count: usize) -> Vec<Packet> {
        let mut packets = Vec::new();
        for _ in 0..count {
            let Some(write) = self.write_out() else { break };
            self.with(now, |raft, env| raft.persisted(env, write.number));
            packets.extend(write.after.into_iter().map(|message| self.pack(message)));
        }
        packets
    }

    /// Flushes the state machine, so that the log may be truncated up to here.
    pub(crate) fn flush(&mut self) {
        if self.raft.is_some()
            && self.installing.is_none()
            && self.writes.iter().all(|write| write.install.is_none())
        {
            self.disk.flushed = self.applied.clone();
        }
    }

    /// Truncates the log to `keep` entries before what is flushed.
    pub(crate) fn truncate(&mut self, keep: u64) {
        let index = LogIndex::new(self.disk.flushed.index.get().saturating_sub(keep));
        let Some(raft) = self.raft.as_mut() else { return };
        if index <= self.disk.log.truncated.0 || index <= self.log.truncated.0 {
            return;
        }
        let Some(term) = self.log.term(index) else { return };
        self.log.truncate(index, term);
        self.disk.log.truncate(index, term);
        raft.truncated(index, term);
    }

    pub(crate) fn receive(&mut self, now: Monotonic, packet: Packet) -> Vec<Packet> {
        if self.raft.is_none() {
            return Vec::new();
        }
        match packet.parcel {
            Parcel::Raft(message) => {
                self.with(now, |raft, env| raft.step(env, packet.incarnation, message));
                Vec::new()
            }
            Parcel::Ask { sent, bound } => {
                vec![self.promise(now, packet.from, packet.incarnation, sent, bound)]
            }
            Parcel::Promise { answers, sent, bound } => {
                if answers == self.promises.incarnation {
                    self.promised(now, packet.from, packet.incarnation, sent, bound);
                }
                Vec::new()
            }
            Parcel::Snapshot { snapshot, leader_term } => {
                self.receive_snapshot(now, snapshot, leader_term);
                Vec::new()
            }
        }
    }

    fn receive_snapshot(&mut self, now: Monotonic, snapshot: Snapshot, leader_term: Term) {
        let Snapshot { index, term, membership } = snapshot.clone();
        let accepted = self.with(now, |raft, env| {
            raft.snapshot_received(env, index, term, leader_term, membership)
        });
        if accepted == Some(true) {
            self.log.install(snapshot.index, snapshot.term);
            self.applied = snapshot.clone();
            self.installing = Some(snapshot);
        }
    }

    fn promise(
        &mut self,
        now: Monotonic,
        to: ReplicaId,
        incarnation: Incarnation,
        sent: Monotonic,
        bound: Timestamp,
    ) -> Packet {
        let given = self.promises.given.entry(to).or_insert(Given {
            incarnation,
            until: Monotonic::ZERO,
            bound,
        });
        let mut granted = given.bound;
        if incarnation >= given.incarnation {
            let until = now.plus(PROMISE);
            let until =
                if incarnation == given.incarnation { given.until.max(until) } else { until };
            *given = Given { incarnation, until, bound: given.bound.max(bound) };
            granted = given.bound;
        }
        self.disk.recorded = self.disk.recorded.max(granted);
        Packet {
            from: self.id,
            incarnation: self.promises.incarnation,
            to,
            parcel: Parcel::Promise { answers: incarnation, sent, bound: granted },
        }
    }

    fn promised(
        &mut self,
        now: Monotonic,
        from: ReplicaId,
        by: Incarnation,
        sent: Monotonic,
        read_bound: Timestamp,
    ) {
        let until = sent.plus(PROMISE * (100 - DRIFT_PERCENT) / 100);
        let old = self.promises.received.get(&from).copied();
        if old.is_some_and(|old| old.by > by) {
            return;
        }
        let promise = match old.filter(|old| old.by == by) {
            Some(old) => Promise {
                until: old.until.max(until),
                read_bound: old.read_bound.max(read_bound),
                by,
                unbroken_since: if old.until > now { old.unbroken_since } else { now },
            },
            None => Promise { until, read_bound, by, unbroken_since: now },
        };
        self.promises.received.insert(from, promise);
    }

    /// Asks `peers` for promises.
    pub(crate) fn ask(
        &mut self,
        now: Monotonic,
        wall: Timestamp,
        peers: &[ReplicaId],
    ) -> Vec<Packet> {
        if self.raft.is_none() {
            return Vec::new();
        }
        let bound = wall.plus(PROMISE).plus(READ_SLACK);
        self.promises.own_bound = self.promises.own_bound.max(bound);
        self.disk.recorded = self.disk.recorded.max(bound);
        let incarnation = self.promises.incarnation;
        let others = peers.iter().filter(|peer| **peer != self.id);
        let parcel = Parcel::Ask { sent: now, bound };
        others
            .map(|peer| Packet { from: self.id, incarnation, to: *peer, parcel: parcel.clone() })
            .collect()
    }
}

fn random_of(fixed: Option<u64>, rng: &mut ChaCha8Rng) -> impl FnMut() -> u64 {
    move || fixed.unwrap_or_else(|| rng.next_u64())
}

/// A committed entry's term, and the term whose leader committed it.
#[derive(Clone, Copy, Debug)]
struct Committed {
    term: Term,
    under: Term,
}

/// Everything that happened anywhere, to be compared with. A contradiction panics.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    leaders: BTreeMap<Term, ReplicaId>,
    /// (index, term) to (term before, data): log matching by induction.
    entries: BTreeMap<(LogIndex, Term), (Term, Bytes)>,
    committed: BTreeMap<LogIndex, Committed>,
    applied_early: Vec<(ReplicaId, LogIndex, Term)>,
    /// Where each term's leader started.
    floors: BTreeMap<Term, Timestamp>,
    /// Highest read served per term.
    served: BTreeMap<Term, Timestamp>,
    pub(crate) elections: usize,
    pub(crate) applied: usize,
    pub(crate) reads: usize,
}

impl Ledger {
    fn elected(&mut self, id: ReplicaId, term: Term, floor: Timestamp, membership: &Membership) {
        let leader = *self.leaders.entry(term).or_insert(id);
        assert_eq!(
            leader, id,
            "election safety: {leader} and {id} lead term {term} ({membership:?})"
        );
        self.elections += 1;
        self.floors.insert(term, floor);
        for (earlier, read) in self.served.range(..term) {
            assert!(
                floor >= *read,
                "read floor: {id} starts term {term} at {floor}, term {earlier} served {read}"
            );
        }
    }

    fn appended(&mut self, entry: &Entry, prev: Option<Term>) {
        let prev = prev.expect("the entry before is in the log");
        let known = self
            .entries
            .entry((entry.index, entry.term))
            .or_insert_with(|| (prev, entry.data.clone()));
        assert_eq!(
            known,
            &(prev, entry.data.clone()),
            "log matching: entry {} of term {}",
            entry.index,
            entry.term
        );
    }

    fn applied(&mut self, id: ReplicaId, entry: &Entry) {
        self.applied += 1;
        match self.committed.get(&entry.index) {
            Some(committed) => {
                assert_eq!(
                    committed.term, entry.term,
                    "state machine safety: {id} applied another entry {}",
                    entry.index
                );
            }
            // Committed in this very step; `committed` is told of it next.
            None => self.applied_early.push((id, entry.index, entry.term)),
        }
    }

    /// Notes what `node` has committed; `durable_on` says who has an entry on disk.
    pub(crate) fn committed(
        &mut self,
        node: &Node,
        durable_on: impl Fn(LogIndex, Term) -> BTreeSet<ReplicaId>,
    ) {
        let Some(raft) = &node.raft else { return };
        let known = self.committed.last_key_value().map_or(LogIndex::ZERO, |(index, _)| *index);
        let mut index = raft.commit_index();
        let mut first_seen = index > known;
        while index > node.log.truncated.0 {
            let term = node.view(Monotonic::ZERO, |raft, env| raft.term_at(env, index)).flatten();
            let term = term.expect("what is committed is in the log");
            match self.committed.get(&index) {
                Some(other) => {
                    assert_eq!(
                        other.term, term,
                        "state machine safety: {} has another entry {index} committed",
                        node.id
                    );
                    break;
                }
                None => {
                    // Nobody knows of a commit before the leader that decided it.
                    self.committed.insert(index, Committed { term, under: raft.term() });
                }
            }
            if first_seen && node.is_leader() {
                assert_eq!(
                    term,
                    raft.term(),
                    "{}: leader committed up to entry {index} of a former term",
                    node.id
                );
                let copies = durable_on(index, term);
                let quorum = raft.membership().reached(|id| copies.contains(&id));
                assert_eq!(
                    quorum,
                    Some(true),
                    "{}: entry {index} committed, durable only on {copies:?}",
                    node.id
                );
            }
            first_seen = false;
            index = index.prev();
        }
        for (id, index, term) in std::mem::take(&mut self.applied_early) {
            let committed = self.committed.get(&index);
            assert_eq!(
                committed.map(|committed| committed.term),
                Some(term),
                "state machine safety: {id} applied another entry {index}"
            );
        }
    }

    /// A leader of `term` has appended a membership at `index`. INVARIANT: there is no other one that is not committed, unless it
    /// can never be; a committed entry of the term makes sure of that (Ongaro 2015).
    pub(crate) fn membership_proposed(&self, term: Term, index: LogIndex) {
        let own = self.committed.values().any(|committed| committed.term == term);
        assert!(own, "membership proposed at {index} before an entry of term {term} is committed");
    }

    /// A new leader must have all that was committed in former terms. (It may win, or be told that it leads from birth, so late
    /// that a later term has committed more.)
    pub(crate) fn check_complete(&self, node: &Node) {
        let Some(raft) = &node.raft else { return };
        for (index, Committed { term, under }) in
            self.committed.range(node.log.truncated.0.next()..)
        {
            let has = node.view(Monotonic::ZERO, |raft, env| raft.term_at(env, *index)).flatten();
            let leads_later = raft.leader() == Some(node.id) && raft.term() > *under;
            assert!(
                has == Some(*term) || !leads_later,
                "leader completeness: {} leads term {} without entry {index} of term {term}",
                node.id,
                raft.term()
            );
        }
    }

    pub(crate) fn serve(&mut self, term: Term, read: Timestamp) {
        self.reads += 1;
        let served = self.served.entry(term).or_default();
        *served = (*served).max(read);
        for (later, floor) in self.floors.range(term.next()..) {
            assert!(
                read <= *floor,
                "read floor: term {term} served {read}, term {later} had started at {floor}"
            );
        }
    }

    pub(crate) fn served_in(&self, term: Term) -> Timestamp {
        self.served.get(&term).copied().unwrap_or_default()
    }

    pub(crate) fn commit_high(&self) -> LogIndex {
        self.committed.last_key_value().map_or(LogIndex::ZERO, |(index, _)| *index)
    }
}

/// Short text of a message, for traces.
pub(crate) fn show(message: &Message) -> String {
    let Message { from, to, term, body } = message;
    let body = match body {
        Body::PreVote { last_index, last_term, .. } => {
            format!("pre-vote? log {last_term}/{last_index}")
        }
        Body::PreVoteReply { granted } => {
            format!("pre-vote {}", if *granted { "granted" } else { "refused" })
        }
        Body::Vote { last_index, last_term, blessed } => {
            format!("vote?{} log {last_term}/{last_index}", if *blessed { " blessed" } else { "" })
        }
        Body::VoteReply { granted, .. } => {
            format!("vote {}", if *granted { "granted" } else { "refused" })
        }
        Body::Append { prev_index, prev_term, entries, commit, .. } => {
            let entries: Vec<String> =
                entries.iter().map(|entry| format!("{}/{}", entry.term, entry.index)).collect();
            format!("append after {prev_term}/{prev_index} [{}] commit {commit}", entries.join(" "))
        }
        Body::AppendReply { match_index, commit, .. } => {
            format!("has {match_index} commit {commit}")
        }
        Body::AppendRefused { prev_index, hint_index, hint_term, .. } => {
            format!("refused {prev_index}, try {hint_term}/{hint_index}")
        }
        Body::SnapshotReply { index, accepted } => {
            format!("snapshot {index} {}", if *accepted { "accepted" } else { "refused" })
        }
        Body::TimeoutNow { .. } => "campaign now".to_string(),
        Body::ReadIndex { .. } => "read index?".to_string(),
        Body::ReadIndexReply { index, .. } => format!("read index {index}"),
    };
    format!("{from}->{to} t{term} {body}")
}

/// Short text of a packet, for traces.
pub(crate) fn show_packet(packet: &Packet) -> String {
    let Packet { from, to, parcel, .. } = packet;
    match parcel {
        Parcel::Raft(message) => show(message),
        Parcel::Ask { .. } => format!("{from}->{to} promise?"),
        Parcel::Promise { .. } => format!("{from}->{to} promise"),
        Parcel::Snapshot { snapshot, leader_term } => {
            format!("{from}->{to} t{leader_term} snapshot {}/{}", snapshot.term, snapshot.index)
        }
    }
}
