//! Value: the invariants that hold at every moment of a run, checked from outside with true time at hand.
//!
//! - *Leases are disjoint in true time*: after every event no two processes believe to hold the lease of overlapping spans.
//! - *Acknowledged means durable*: when a write is answered, a quorum of the range's voters has its log on disk up to there.
//! - *Equal index, equal state*: two replicas of a range that have applied the same entry hold the same bytes (sampled, for it costs a
//!   pass over the range).
//! - *Ranges of a store do not overlap, and those of all stores tile the keyspace.*
//! - *No version says that it was written after its commit was answered* (H07; looked at in the same pass).
//! - *A stalled disk costs its node the leases* (S05).
//!
//! Rooms: `log` what Raft promises, `tiles` where ranges begin and end, `promises` what leases rest on, `reads` what transactions rest on, `fates` what is told of
//! them, `clocks`.

mod clocks;
mod fates;
mod log;
mod promises;
mod reads;
mod tiles;

pub(super) use reads::Asked;

use clock::{Now, TimeSource, Timestamp};
use replication::raft::{Membership, ReplicaId, RoleKind, Term};
use replication::range::{NodeId, PeerRole, RangeId};
use replication::store::{GroupView, StoreMessage};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use storage::log::{LogGroup, LogIndex, LogReader};
use storage::{Direction, Key, Reader, Span, StorageError, mvcc};
use txn::api::{KvError, Reply};
use txn::runtime::HlcSource;

use super::fault::Trigger;
use super::machine::Process;
use super::tally::Trace;
use super::{Level, World};
use clocks::ClockWatch;
use fates::FateWatch;
use log::LogWatch;
use reads::ReadWatch;
use tiles::{News, Tiles};

/// States are compared at applied indexes divisible by this, and more rarely the more there is to read.
const STATE_EVERY: u64 = 16;
/// So many entries are read as often as [`STATE_EVERY`] says.
const STATE_ENTRIES: u64 = 128;
/// Leases are compared after every so many turns of a node.
const LEASES_EVERY: u64 = 4;
/// Whatever a store is told, it must notice a stall after this.
const STALL_MAX: Duration = Duration::from_secs(1);
/// Beyond what is computed.
const SLACK: Duration = Duration::from_millis(200);
/// Violations kept: the first ones tell, the rest is noise.
const VIOLATIONS_MAX: usize = 8;

/// Something that must never be was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// True time, nanoseconds since the beginning.
    pub at: u64,
    /// What.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "at {}.{:03} s: {}",
            self.at / 1_000_000_000,
            self.at / 1_000_000 % 1000,
            self.what
        )
    }
}

/// What was seen so far.
#[derive(Default)]
pub(super) struct Watch {
    violations: Vec<Violation>,
    hashes: BTreeMap<(RangeId, LogIndex), (u64, NodeId)>,
    /// Entries of a range when it was last read, on any node.
    sizes: BTreeMap<RangeId, u64>,
    seen: BTreeMap<(NodeId, RangeId), LogIndex>,
    holders: BTreeMap<RangeId, NodeId>,
    turns: u64,
    /// What each node's replicas were like when they were last looked at.
    glimpses: BTreeMap<NodeId, Vec<Glimpse>>,
    log: LogWatch,
    reads: ReadWatch,
    fates: FateWatch,
    clocks: ClockWatch,
    tiles: Tiles,
}

impl Watch {
    pub(super) fn new(level: Level) -> Watch {
        Watch { log: LogWatch::new(level), ..Watch::default() }
    }

    pub(super) fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// At which applied indexes a range's state is read: multiples of a number that doubles with its size. Replicas that differ in what
    /// they know of the size still meet at the multiples of the larger number.
    fn state_every(&self, range: RangeId) -> u64 {
        let entries = self.sizes.get(&range).copied().unwrap_or(0);
        STATE_EVERY * (entries / STATE_ENTRIES + 1).next_power_of_two()
    }

    /// A process is gone; its next life re-applies from its last flush.
    pub(super) fn died(&mut self, node: NodeId) {
        self.seen.retain(|(of, _), _| *of != node);
        self.glimpses.remove(&node);
        self.log.died(node);
    }

    /// Whether anything has changed in the node's replicas since this was last asked.
    fn has_changed(&mut self, node: NodeId, process: &Process) -> bool {
        let known = self.glimpses.entry(node).or_default();
        let (mut changed, mut replicas) = (false, 0);
        for view in process.shard.store().groups() {
            let glimpse = Glimpse::of(&view, process);
            match known.get_mut(replicas) {
                Some(known) if *known == glimpse => {}
                Some(known) => (*known, changed) = (glimpse, true),
                None => {
                    known.push(glimpse);
                    changed = true;
                }
            }
            replicas += 1;
        }
        changed |= replicas < known.len();
        known.truncate(replicas);
        changed
    }
}

/// Of a replica, what its checks depend on: after most turns it is what it was, and was looked at then.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Glimpse {
    replica: (RangeId, ReplicaId, RoleKind, Term),
    /// Committed, applied by the group and by the range; the log's beginning and end.
    reached: (LogIndex, LogIndex, Option<LogIndex>, LogIndex, LogIndex),
    /// As the replica knows, and as it is.
    durable: (LogIndex, LogIndex),
    floor: Option<Timestamp>,
}

impl Glimpse {
    fn of(view: &GroupView<'_>, process: &Process) -> Glimpse {
        let state = process.shard.store().state(view.range).map(|state| state.applied.0);
        Glimpse {
            replica: (view.range, view.replica, view.role, view.term),
            reached: (view.commit, view.applied, state, view.truncated, view.last),
            durable: (view.durable, process.durable_index(view.range)),
            floor: view.floor,
        }
    }
}

impl Process {
    /// For how long a sync has been under way.
    fn stalled(&self, now: u64) -> Option<Duration> {
        self.syncing.then(|| Duration::from_nanos(now.saturating_sub(self.sync_began)))
    }
}

impl World {
    /// Something is broken.
    pub(super) fn violate(&mut self, what: String) {
        self.tell(|| format!("BROKEN: {what}"));
        if self.watch.violations.len() < VIOLATIONS_MAX {
            self.watch.violations.push(Violation { at: self.truth.now(), what });
        }
    }

    /// After a turn of a node.
    pub(super) fn observe(&mut self, node: NodeId) {
        self.watch.turns += 1;
        if self.watch.turns.is_multiple_of(LEASES_EVERY) {
            self.check_leases();
            self.check_promises();
        }
        self.check_reading(node);
        let process = self.machines[&node].process.as_ref();
        if process.is_some_and(|process| self.watch.has_changed(node, process)) {
            self.check_logs(node);
            self.check_floors(node);
            self.check_states(node);
        }
        self.spring_reached(node);
    }

    /// A message leaves.
    pub(super) fn note_message(&mut self, node: NodeId, message: &StoreMessage) {
        if self.watch.log.leaves(node, message) {
            self.watch.glimpses.remove(&node);
            self.spring(Trigger::Voted, node);
        }
    }

    /// A process ends.
    pub(super) fn note_death(&mut self, node: NodeId, process: &Process) {
        self.watch.died(node);
        self.clock_ended(node, process.clock.last().timestamp());
    }

    /// The ranges that a node serves now.
    pub(super) fn leases_of(&self, node: NodeId) -> Vec<RangeId> {
        let Some(process) = &self.machines[&node].process else { return Vec::new() };
        let (now, store) = (read(process), process.shard.store());
        let ids = store.ranges().map(|descriptor| descriptor.id);
        ids.filter(|range| store.lease(now, *range).is_some()).collect()
    }

    fn check_leases(&mut self) {
        let mut held: Vec<(NodeId, RangeId, &Span)> = Vec::new();
        let mut broken = Vec::new();
        for (id, machine) in &self.machines {
            let Some(process) = &machine.process else { continue };
            let (now, store) = (read(process), process.shard.store());
            for descriptor in store.ranges() {
                if store.lease(now, descriptor.id).is_none() {
                    continue;
                }
                held.push((*id, descriptor.id, &descriptor.span));
                // Who is alone needs nobody's promise, and nobody can take its place.
                let Some(group) = store.group(descriptor.id).filter(|group| !is_alone(group))
                else {
                    continue;
                };
                broken.extend(self.unbound_voter(*id, process, &group));
                let stalled = process.stalled(self.truth.now());
                if let Some(stalled) = stalled.filter(|stalled| *stalled > self.stall_limit()) {
                    broken.push(format!(
                        "{id} serves {} though its disk has hung for {stalled:?}",
                        descriptor.id
                    ));
                }
            }
        }
        for (place, (node, range, span)) in held.iter().enumerate() {
            for (other, other_range, other_span) in &held[place + 1..] {
                if other != node && span.overlaps(other_span) {
                    broken.push(format!("{node} holds the lease of {range} while {other} holds that of {other_range}"));
                }
            }
            let former = self.watch.holders.insert(*range, *node);
            if former.is_some_and(|former| former != *node) {
                self.tally.count("leases moved");
            }
            if former != Some(*node) {
                let now = self.truth.now();
                self.story.tell(now, || format!("{node} holds the lease of {range}"));
            }
        }
        broken.into_iter().for_each(|what| self.violate(what));
    }

    /// A disk that hangs for so long has cost its node every lease.
    fn stall_limit(&self) -> Duration {
        let store = &self.layout.store;
        store.stall_max.min(STALL_MAX) + store.promise_duration + store.promise_interval + SLACK
    }

    fn check_states(&mut self, node: NodeId) {
        let Some(process) = &self.machines[&node].process else { return };
        let store = process.shard.store();
        let mut hashed = Vec::new();
        let mut broken = Vec::new();
        let mut told = Vec::new();
        let mut former: Option<&Span> = None;
        let mut descriptors: Vec<_> = store.ranges().collect();
        descriptors.sort_by(|a, b| a.span.cmp(&b.span));
        for descriptor in descriptors {
            if former.is_some_and(|former| former.end > descriptor.span.start) {
                broken.push(format!("{node}: two ranges overlap at {}", descriptor.span));
            }
            former = Some(&descriptor.span);
            match self.watch.tiles.note(node, descriptor) {
                Ok(News::None) => {}
                Ok(News::Span) => told.push(format!("{} holds {}", descriptor.id, descriptor.span)),
                Ok(News::Members) => {
                    let peers = descriptor
                        .peers
                        .iter()
                        .map(|peer| format!("{} {:?}", peer.node, peer.role));
                    let peers = peers.collect::<Vec<String>>().join(", ");
                    told.push(format!("the members of {} are {peers}", descriptor.id));
                }
                Err(why) => broken.push(why),
            }
            let Some(state) = store.state(descriptor.id) else { continue };
            let index = state.applied.0;
            let key = (node, descriptor.id);
            let known = self.watch.seen.insert(key, index);
            if known.is_some_and(|known| known > index) {
                broken.push(format!(
                    "{node}: {} went back from {known:?} to {index:?}",
                    descriptor.id
                ));
            }
            let every = self.watch.state_every(descriptor.id);
            if known == Some(index) || !index.get().is_multiple_of(every) {
                continue;
            }
            let engine = &*self.machines[&node].engine;
            let read = read_range(engine, &state.encode(), &descriptor.span, &self.watch.reads);
            let Some(read) = read else { continue };
            self.watch.sizes.insert(descriptor.id, read.entries);
            broken.extend(read.late);
            hashed.push(((descriptor.id, index), read.hash));
        }
        broken.extend(self.watch.tiles.check().err());
        told.into_iter().for_each(|what| self.tell(|| what));
        broken.into_iter().for_each(|what| self.violate(what));
        for ((range, index), hash) in hashed {
            self.tally.count("states compared");
            let (known, by) = *self.watch.hashes.entry((range, index)).or_insert((hash, node));
            if known != hash {
                self.violate(format!("{node} and {by} differ in {range} at applied index {index}"));
            }
        }
    }

    /// A write is about to be answered by its leaseholder: whether a quorum has it on disk.
    pub(super) fn check_durable(
        &mut self,
        node: NodeId,
        process: &Process,
        reply: &Result<Reply, KvError>,
    ) {
        let Ok(reply) = reply else { return };
        let store = process.shard.store();
        let broken: Vec<String> = store
            .ranges()
            .filter(|descriptor| store.leads(descriptor.id) && !descriptor.is_joint())
            .filter_map(|descriptor| {
                let index = store.state(descriptor.id)?.applied.0;
                let term = process.log.term(LogGroup(descriptor.id.0), index)?;
                let voters: Vec<NodeId> = descriptor
                    .peers
                    .iter()
                    .filter(|peer| peer.role == PeerRole::Voter)
                    .map(|peer| peer.node)
                    .collect();
                let has = |voter: &NodeId| {
                    let of = if *voter == node { Some(process) } else { self.machines.get(voter)?.process.as_deref() };
                    // Of a process that does not run, nobody knows here: it may have it.
                    let Some(of) = of else { return Some(true) };
                    let group = LogGroup(descriptor.id.0);
                    let durable = of.durable_index(descriptor.id);
                    Some(durable >= index && of.log.term(group, index).is_none_or(|found| found == term))
                };
                let holds = voters.iter().filter(|voter| has(voter).unwrap_or(true)).count();
                (2 * holds <= voters.len()).then(|| {
                    format!(
                        "{node} answered a write of {} (applied up to {index}) that is durable on {holds} of {} voters only",
                        descriptor.id,
                        voters.len()
                    )
                })
            })
            .collect();
        let _ = reply;
        broken.into_iter().for_each(|what| self.violate(what));
    }

    /// Whether every range has a leaseholder and all its replicas have applied as much and hold the same; why not.
    pub fn check_converged(&mut self) -> Result<(), String> {
        let mut leaders: BTreeMap<RangeId, (NodeId, LogIndex, Span, Vec<NodeId>)> = BTreeMap::new();
        for id in &self.access.nodes() {
            let machine = &self.machines[id];
            let process = machine.process.as_ref().ok_or_else(|| format!("{id} does not run"))?;
            let now = read(process);
            let store = process.shard.store();
            for descriptor in
                store.ranges().filter(|descriptor| store.lease(now, descriptor.id).is_some())
            {
                let index =
                    store.state(descriptor.id).map(|state| state.applied.0).unwrap_or_default();
                if descriptor.is_joint() {
                    return Err(format!("{} is between two memberships", descriptor.id));
                }
                let nodes = descriptor.peers.iter().map(|peer| peer.node).collect();
                leaders.insert(descriptor.id, (*id, index, descriptor.span.clone(), nodes));
            }
        }
        self.check_tiling(leaders.values().map(|(_, _, span, _)| span.clone()).collect())?;
        for (range, (leader, index, span, nodes)) in leaders {
            let mut first: Option<u64> = None;
            for node in nodes {
                let machine = &self.machines[&node];
                if machine.retired {
                    return Err(format!("{node} is lost, and has not been replaced in {range}"));
                }
                let process =
                    machine.process.as_ref().ok_or_else(|| format!("{node} does not run"))?;
                let state = process
                    .shard
                    .store()
                    .state(range)
                    .ok_or_else(|| format!("{node} has no {range}"))?;
                if state.applied.0 != index {
                    return Err(format!(
                        "{node} has applied {range} up to {}, {leader} up to {index}",
                        state.applied.0
                    ));
                }
                let engine = &*machine.engine;
                let read = read_range(engine, &state.encode(), &span, &self.watch.reads);
                let Some(read) = read else { continue };
                if *first.get_or_insert(read.hash) != read.hash {
                    return Err(format!("{node} differs from others in {range} at {index}"));
                }
                if let Some(late) = read.late {
                    self.violate(late);
                }
            }
        }
        Ok(())
    }

    /// Whether each range is led by one of these nodes; why not.
    pub(crate) fn check_led(&self, nodes: &[NodeId]) -> Result<(), String> {
        let led = self.led_on(nodes);
        self.check_tiling(led.into_iter().map(|(_, _, span)| span).collect())
    }

    /// Up to where each range is applied that one of these nodes leads.
    pub(crate) fn reached_of(&self, nodes: &[NodeId]) -> Vec<(RangeId, LogIndex)> {
        self.led_on(nodes).into_iter().map(|(range, index, _)| (range, index)).collect()
    }

    fn led_on(&self, nodes: &[NodeId]) -> Vec<(RangeId, LogIndex, Span)> {
        let mut led = Vec::new();
        for process in nodes.iter().filter_map(|node| self.machines[node].process.as_ref()) {
            let (now, store) = (read(process), process.shard.store());
            for descriptor in store.ranges() {
                if store.lease(now, descriptor.id).is_some() {
                    let state = store.state(descriptor.id);
                    let index = state.map(|state| state.applied.0).unwrap_or_default();
                    led.push((descriptor.id, index, descriptor.span.clone()));
                }
            }
        }
        led
    }

    /// Whether every replica that these nodes have of these ranges has applied as much; which has not.
    pub(crate) fn check_caught_up(
        &self,
        nodes: &[NodeId],
        reached: &[(RangeId, LogIndex)],
    ) -> Result<(), String> {
        for (range, index) in reached {
            for node in nodes {
                let machine = &self.machines[node];
                let process =
                    machine.process.as_ref().ok_or_else(|| format!("{node} does not run"))?;
                let state = process.shard.store().state(*range);
                if let Some(state) = state.filter(|state| state.applied.0 < *index) {
                    return Err(format!(
                        "{node} has applied {range} up to {} of {index}",
                        state.applied.0
                    ));
                }
            }
        }
        Ok(())
    }

    fn check_tiling(&self, mut spans: Vec<Span>) -> Result<(), String> {
        spans.sort();
        let all = replication::range::keyspace();
        let mut at = all.start;
        for span in spans {
            if span.start != at {
                return Err(format!("no range is led that begins at {at}"));
            }
            at = span.end;
        }
        if at == all.end { Ok(()) } else { Err(format!("no range is led that begins at {at}")) }
    }

    /// How every range is on every node, for people.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (id, machine) in &self.machines {
            let Some(process) = &machine.process else {
                text.push_str(&format!("{id}: not running\n"));
                continue;
            };
            for view in process.shard.store().groups() {
                let lease = process.shard.store().lease(read(process), view.range).is_some();
                let GroupView { range, role, term, applied, commit, last, durable, .. } = view;
                let (newest, routes) = (view.membership, view.routes);
                text.push_str(&format!(
                    "{id}: {range} {role:?} term {term} applied {applied} of {commit} last {last} durable {durable} lease {lease}, \
                     who counts {newest:?}, where {routes:?}\n"
                ));
            }
        }
        text
    }

    /// Who holds the lease of the range around a key.
    pub fn leaseholder_of(&self, key: &Key) -> Option<NodeId> {
        let leads = |process: &Process| {
            let store = process.shard.store();
            store.groups().any(|view| {
                let around = store.descriptor(view.range).is_some_and(|d| d.span.contains(key));
                around && store.lease(read(process), view.range).is_some()
            })
        };
        let mut machines = self.machines.iter();
        machines
            .find(|(_, machine)| machine.process.as_deref().is_some_and(leads))
            .map(|(node, _)| *node)
    }

    /// How many voters the range of the whole system has at its leaseholder; zero while nobody leads it.
    pub fn voters_of(&self, range: RangeId) -> usize {
        let count = |process: &Process| {
            let store = process.shard.store();
            store.lease(read(process), range)?;
            let descriptor = store.descriptor(range)?;
            let voters =
                descriptor.peers.iter().filter(|peer| peer.role == PeerRole::Voter).count();
            (!descriptor.is_joint()).then_some(voters)
        };
        self.machines
            .values()
            .filter_map(|machine| machine.process.as_deref().and_then(count))
            .max()
            .unwrap_or(0)
    }

    /// All ranges that are led somewhere now.
    pub fn led_ranges(&self) -> Vec<RangeId> {
        let mut ranges = Vec::new();
        for process in self.machines.values().filter_map(|machine| machine.process.as_ref()) {
            let now = read(process);
            let store = process.shard.store();
            ranges.extend(
                store
                    .ranges()
                    .map(|descriptor| descriptor.id)
                    .filter(|id| store.lease(now, *id).is_some()),
            );
        }
        ranges.sort();
        ranges.dedup();
        ranges
    }
}

fn read(process: &Process) -> Now {
    Now { clock: process.clock.now(), monotonic: process.clock.time.monotonic() }
}

/// Whether its range has no other voter.
fn is_alone(group: &GroupView<'_>) -> bool {
    let Membership { voters, outgoing, .. } = group.membership;
    voters.len() == 1 && outgoing.iter().all(|voter| voters.contains(voter))
}

fn is_quorum(membership: &Membership, counts: impl Fn(ReplicaId) -> bool) -> bool {
    membership.reached(counts).unwrap_or(false)
}

/// What a pass over a range's state has found.
struct RangeRead {
    hash: u64,
    entries: u64,
    /// See [`ReadWatch::is_dated_late`].
    late: Option<String>,
}

/// `None`: something has rotted there, or cannot be read, and whoever needs it will be told as we are.
fn read_range(
    engine: &dyn Reader,
    state: &[u8],
    span: &Span,
    reads: &ReadWatch,
) -> Option<RangeRead> {
    let mut trace = Trace::default();
    let (mut entries, mut late) = (0, None);
    trace.bytes(state);
    for raw in mvcc::raw_spans(span) {
        for item in engine.scan(raw.space, &raw.start, &raw.end, Direction::Forward) {
            let (key, value) = match item {
                Ok(entry) => entry,
                Err(StorageError::Corrupt(_) | StorageError::Io(_)) => return None,
                Err(error) => panic!("the simulated engine does not read: {error}"),
            };
            if raw.holds(&key).expect("keys of the engine parse") {
                trace.bytes(&key);
                trace.bytes(&value);
                entries += 1;
                late = late.or_else(|| reads.is_dated_late(raw.space, &key, &value));
            }
        }
    }
    Some(RangeRead { hash: trace.value(), entries, late })
}
