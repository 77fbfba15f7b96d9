//! The simulated world of these tests: nodes with their disks and clocks, a network, and one seed. After every step of any node it
//! checks what must hold ([`checks`]).

mod checks;

use bytes::Bytes;
use clock::{ClockTimestamp, LOGICAL_BITS, Monotonic, Now, Timestamp};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use replication::raft::{Incarnation, LogIndex, RaftConfig, ReplicaId, Term};
use replication::range::{
    Command, Effect, NodeId, Peer, PeerRole, RangeDescriptor, RangeId, RegionId,
};
use replication::store::{
    Deferred, MessageBatch, NodeInfo, Outcome, Persisted, RangeEvent, Store, StoreConfig,
    StoreIdentity, StoreMessage,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use storage::log::{Log, LogSequence};
use storage::{Engine, Key, MemoryEngine, Space, Span, WriteBatch, mvcc};

use super::sim_log::SimLog;

pub(super) const CLUSTER: u128 = 7;
/// More means that somebody wakes again and again without anything to do.
const EVENTS_PER_MILLI_MAX: u64 = 300;
pub(super) const FIRST: RangeId = RangeId(1);

pub(super) fn millis(n: u64) -> u64 {
    n * 1_000_000
}

/// One node: its process (if it runs) and its disks.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) store: Option<Store>,
    pub(super) engine: Arc<MemoryEngine>,
    pub(super) log: Arc<SimLog>,
    pub(super) incarnation: u64,
    /// True time when the process began.
    started: u64,
    /// Its monotonic clock runs this fast, in parts per thousand.
    pub(super) rate: u64,
    /// Its wall clock is off by this, in microseconds.
    pub(super) skew: i64,
    hlc: u64,
    pub(super) clock_bound: Timestamp,
    held_back: Vec<Deferred>,
    synced: LogSequence,
    sync_pending: bool,
    /// The disk takes this much longer, in nanoseconds.
    pub(super) stall: u64,
    wake: u64,
    /// What a range server would keep: reads served since the lease began, by key.
    cache: BTreeMap<RangeId, BTreeMap<Key, Timestamp>>,
    /// Ranges whose cache was copied at a split and not used up by a `Led`.
    copied: BTreeSet<RangeId>,
    floors: BTreeMap<RangeId, Timestamp>,
}

enum Event {
    Deliver { to: NodeId, bytes: Bytes },
    Sync { node: NodeId, incarnation: u64 },
    Wake { node: NodeId, at: u64 },
}

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) store: StoreConfig,
    /// Percent of messages that vanish; that come twice.
    pub(super) loss: u32,
    pub(super) duplication: u32,
    /// Latest delivery and sync, in nanoseconds.
    pub(super) latency_max: u64,
    pub(super) sync_max: u64,
    /// How long every message between two nodes (the lower one first) takes at least, in nanoseconds.
    pub(super) distances: BTreeMap<(NodeId, NodeId), u64>,
    /// A mistake of the owner, made on purpose: the log is written without the flush that must go before.
    pub(super) skip_flushes: bool,
    /// Of a thousand times something is to be written: the process dies between flush and append, or after the append; the
    /// engine flushes by itself.
    pub(super) deaths: u32,
    pub(super) own_flushes: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        let raft = RaftConfig {
            election_timeout: Duration::from_millis(600),
            heartbeat_interval: Duration::from_millis(100),
            ..RaftConfig::default()
        };
        let store = StoreConfig {
            raft,
            promise_duration: Duration::from_millis(800),
            promise_interval: Duration::from_millis(200),
            read_bound_slack: Duration::from_millis(200),
            snapshot_chunk_bytes: 64,
            unavailable_after: Duration::from_secs(3),
            dead_after: Duration::from_secs(10),
            stall_max: Duration::from_millis(400),
            ..StoreConfig::default()
        };
        Settings {
            store,
            loss: 0,
            duplication: 0,
            latency_max: millis(5),
            sync_max: millis(2),
            distances: BTreeMap::new(),
            skip_flushes: false,
            deaths: 0,
            own_flushes: 0,
        }
    }
}

/// A write that somebody proposed.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) key: Key,
    pub(super) raw: Bytes,
    pub(super) outcome: Option<Outcome>,
}

pub(super) struct World {
    pub(super) settings: Settings,
    pub(super) rng: ChaCha8Rng,
    pub(super) time: u64,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) infos: Vec<NodeInfo>,
    pub(super) cuts: BTreeSet<(NodeId, NodeId)>,
    /// Messages of one range's group that are never sent from one node to another.
    pub(super) mutes: BTreeSet<(NodeId, NodeId, RangeId)>,
    /// Nobody is told that its replica was removed.
    pub(super) nobody_hears_gone: bool,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    /// Greatest read ever served, by key.
    served: BTreeMap<Key, (Timestamp, String)>,
    /// The latest term in which anybody has begun to lead.
    led: BTreeMap<RangeId, Term>,
    hashes: BTreeMap<(RangeId, LogIndex), (u64, NodeId)>,
    seen_applied: BTreeMap<(NodeId, RangeId), LogIndex>,
    pub(super) writes: Vec<Write>,
    pending: BTreeMap<(NodeId, u64, RangeId, LogIndex, Term), usize>,
    pub(super) events: Vec<(NodeId, RangeEvent)>,
    pub(super) next_range: u64,
    /// How often what happened.
    pub(super) coverage: BTreeMap<&'static str, u64>,
    /// What happened, for people.
    history: Vec<String>,
}

impl World {
    /// `nodes` in order, the first one has the first range.
    pub(super) fn new(seed: u64, settings: Settings, infos: Vec<NodeInfo>) -> World {
        let mut world = World {
            settings,
            rng: ChaCha8Rng::seed_from_u64(seed),
            time: millis(1_000),
            nodes: BTreeMap::new(),
            infos: infos.clone(),
            cuts: BTreeSet::new(),
            mutes: BTreeSet::new(),
            nobody_hears_gone: false,
            queue: BTreeMap::new(),
            queued: 0,
            served: BTreeMap::new(),
            led: BTreeMap::new(),
            hashes: BTreeMap::new(),
            seen_applied: BTreeMap::new(),
            writes: Vec::new(),
            pending: BTreeMap::new(),
            events: Vec::new(),
            next_range: 2,
            coverage: BTreeMap::new(),
            history: Vec::new(),
        };
        for (place, info) in infos.iter().enumerate() {
            let node = Node {
                id: info.node,
                store: None,
                engine: Arc::new(MemoryEngine::new()),
                log: Arc::new(SimLog::default()),
                incarnation: 0,
                started: 0,
                rate: 1000,
                skew: 0,
                hlc: 0,
                clock_bound: Timestamp::MIN,
                held_back: Vec::new(),
                synced: LogSequence(0),
                sync_pending: false,
                stall: 0,
                wake: u64::MAX,
                cache: BTreeMap::new(),
                copied: BTreeSet::new(),
                floors: BTreeMap::new(),
            };
            if place == 0 {
                let descriptor = RangeDescriptor {
                    id: FIRST,
                    span: Span::all(),
                    generation: 1,
                    peers: vec![Peer {
                        node: info.node,
                        replica: ReplicaId(1),
                        role: PeerRole::Voter,
                    }],
                    next_replica: 2,
                };
                Store::bootstrap(&*node.engine, &*node.log, &descriptor, WriteBatch::new())
                    .expect("bootstraps");
            }
            world.nodes.insert(info.node, node);
            world.start(info.node);
        }
        world
    }

    /// One region per three nodes, zones apart: n1 to n`count`.
    pub(super) fn infos(count: u32) -> Vec<NodeInfo> {
        (1..=count)
            .map(|node| NodeInfo {
                node: NodeId(node),
                region: RegionId((node % 3) as u16),
                zone: format!("z{node}"),
                draining: false,
            })
            .collect()
    }

    pub(super) fn now_of(&mut self, id: NodeId) -> Now {
        let time = self.time;
        let node = self.nodes.get_mut(&id).expect("node");
        let monotonic = (time - node.started) / 1000 * node.rate + millis(5_000);
        let wall = ((time / 1000) as i64 + node.skew).max(0) as u64;
        node.hlc = (node.hlc + 1).max(wall << LOGICAL_BITS);
        let now = Now {
            clock: ClockTimestamp::from_raw(node.hlc),
            monotonic: Monotonic::from_nanos(monotonic),
        };
        let timestamp = now.clock.timestamp();
        if node.clock_bound < timestamp.plus(Duration::from_secs(2)) {
            node.clock_bound = timestamp.plus(Duration::from_secs(6));
            if let Some(store) = &mut node.store {
                store.set_clock_bound(node.clock_bound);
            }
        }
        now
    }

    pub(super) fn start(&mut self, id: NodeId) {
        let seed: u64 = self.rng.random();
        let time = self.time;
        let node = self.nodes.get_mut(&id).expect("node");
        assert!(node.store.is_none(), "{id} runs already");
        node.started = time;
        node.incarnation += 1;
        let floor = node.clock_bound;
        node.hlc = node.hlc.max(floor.raw());
        node.clock_bound = Timestamp::MIN;
        let now = self.now_of(id);
        let node = self.nodes.get_mut(&id).expect("node");
        let identity = StoreIdentity {
            cluster: CLUSTER,
            node: id,
            incarnation: Incarnation(node.incarnation),
        };
        let mut store = Store::open(
            self.settings.store.clone(),
            identity,
            node.engine.clone(),
            node.log.clone(),
            now,
            seed,
            floor,
        )
        .expect("opens");
        store.set_clock_bound(node.clock_bound);
        store.set_nodes(now, self.infos.clone());
        node.store = Some(store);
        node.wake = time;
        self.push(time, Event::Wake { node: id, at: time });
        self.seen_applied.retain(|(node, _), _| *node != id);
    }

    /// The process dies: what was not flushed or synced is lost (of the log, perhaps less).
    pub(super) fn crash(&mut self, id: NodeId) {
        self.history.push(format!("{} {id} crashes", self.time / 1_000_000));
        let node = self.nodes.get_mut(&id).expect("node");
        node.store = None;
        node.engine = Arc::new(node.engine.crash());
        node.log = Arc::new(node.log.crash(&mut self.rng));
        node.held_back.clear();
        node.sync_pending = false;
        node.synced = node.log.sync().expect("syncs");
        node.cache.clear();
        node.copied.clear();
        node.floors.clear();
        self.pending.retain(|(node, ..), _| *node != id);
    }

    pub(super) fn restart(&mut self, id: NodeId) {
        self.crash(id);
        self.start(id);
    }

    pub(super) fn flush(&mut self, id: NodeId) {
        let now = self.now_of(id);
        let node = self.nodes.get_mut(&id).expect("node");
        let Some(store) = &mut node.store else { return };
        let mark = store.flush_mark();
        node.engine.flush().expect("flushes");
        store.flushed(now, mark);
        self.pump(id);
    }

    pub(super) fn store(&self, id: NodeId) -> &Store {
        self.nodes[&id].store.as_ref().expect("runs")
    }

    pub(super) fn with_store<R>(
        &mut self,
        id: NodeId,
        call: impl FnOnce(&mut Store, Now) -> R,
    ) -> R {
        let now = self.now_of(id);
        let node = self.nodes.get_mut(&id).expect("node");
        let result = call(node.store.as_mut().expect("runs"), now);
        self.pump(id);
        result
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, duration: u64) {
        let end = self.time + duration;
        let mut dispatched = 0;
        while let Some((&(at, number), _)) = self.queue.first_key_value() {
            if at > end {
                break;
            }
            dispatched += 1;
            let most = EVENTS_PER_MILLI_MAX * (duration / millis(1) + 10);
            assert!(dispatched < most, "busy: {dispatched} events: {}", self.timers());
            let event = self.queue.remove(&(at, number)).expect("it is first");
            self.time = self.time.max(at);
            self.dispatch(event);
        }
        self.time = end;
    }

    /// Lets time pass until `done`, at most `limit`; whether it was done.
    pub(super) fn run_until(
        &mut self,
        limit: u64,
        mut done: impl FnMut(&mut World) -> bool,
    ) -> bool {
        let end = self.time + limit;
        while self.time < end {
            if done(self) {
                return true;
            }
            self.run(millis(20));
        }
        done(self)
    }

    fn timers(&mut self) -> String {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        let mut text = String::new();
        for id in ids {
            let now = self.now_of(id);
            let Some(store) = &mut self.nodes.get_mut(&id).expect("node").store else { continue };
            let wake_at = store.ready(now).wake_at;
            text.push_str(&format!("\n{id} at {:?} wakes at {wake_at:?}", now.monotonic));
            for status in store.status(now) {
                text.push_str(&format!("\n   {status:?}"));
            }
        }
        text
    }

    fn push(&mut self, at: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((at, self.queued), event);
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Deliver { to, bytes } => self.deliver(to, bytes),
            Event::Sync { node, incarnation } => self.sync(node, incarnation),
            Event::Wake { node: id, at } => {
                let now = self.now_of(id);
                let node = self.nodes.get_mut(&id).expect("node");
                if node.wake != at {
                    return;
                }
                node.wake = u64::MAX;
                if let Some(store) = &mut node.store {
                    store.tick(now);
                    self.pump(id);
                }
            }
        }
    }

    fn deliver(&mut self, to: NodeId, bytes: Bytes) {
        let batch = MessageBatch::decode(bytes).expect("decodes");
        assert_eq!((batch.cluster, batch.to), (CLUSTER, to));
        if self.cuts.contains(&(batch.from, to)) {
            return;
        }
        let node = self.nodes.get_mut(&to).expect("node");
        if node.store.is_none() {
            return;
        }
        node.hlc = node.hlc.max(batch.clock.raw());
        let now = self.now_of(to);
        let store = self.nodes.get_mut(&to).and_then(|node| node.store.as_mut()).expect("runs");
        for message in batch.messages {
            store.message(now, batch.from, message);
        }
        self.pump(to);
    }

    fn sync(&mut self, id: NodeId, incarnation: u64) {
        let now = self.now_of(id);
        let node = self.nodes.get_mut(&id).expect("node");
        if node.store.is_none() || node.incarnation != incarnation {
            return;
        }
        node.sync_pending = false;
        node.synced = node.log.sync().expect("syncs");
        let proof = Persisted::after_sync(node.synced);
        node.store.as_mut().expect("runs").persisted(now, proof);
        let (released, kept) =
            node.held_back.drain(..).partition::<Vec<_>, _>(|held| held.needs() <= proof.upto());
        node.held_back = kept;
        for held in released {
            self.send(id, held.release(proof));
        }
        self.pump(id);
    }

    /// What the owner of a store does.
    fn pump(&mut self, id: NodeId) {
        loop {
            let now = self.now_of(id);
            let node = self.nodes.get_mut(&id).expect("node");
            let Some(store) = &mut node.store else { return };
            let fatal = store.fatal().cloned();
            assert!(fatal.is_none(), "{id} failed: {fatal:?}");
            let idle = !store.has_ready();
            let ready = store.ready(now);
            if ready.flush_before_write && !self.settings.skip_flushes {
                node.engine.flush().expect("flushes");
            }
            if self.rng.random_range(0..1000) < self.settings.own_flushes {
                node.engine.flush().expect("flushes");
            }
            let writes = !ready.write.is_empty() || ready.flush_before_write;
            let mut dies = || writes && self.rng.random_range(0..1000) < self.settings.deaths;
            if dies() {
                *self.coverage.entry("death before append").or_default() += 1;
                return self.crash(id);
            }
            let mut needs = store.last_appended();
            if !ready.write.is_empty() {
                needs = node.log.append(ready.write).expect("appends");
                store.appended(needs);
            }
            if dies() {
                *self.coverage.entry("death after append").or_default() += 1;
                return self.crash(id);
            }
            let schedule = needs > node.synced && !node.sync_pending;
            node.sync_pending |= schedule;
            let (incarnation, stall) = (node.incarnation, node.stall);
            let mut now_too = ready.messages_now;
            if needs <= node.synced {
                now_too.extend(ready.messages_after);
            } else if !ready.messages_after.is_empty() {
                node.held_back.push(Deferred::new(ready.messages_after, needs));
            }
            // The clock reads in thousandths: round up, or the node wakes too early for ever.
            let ahead = ready.wake_at.since(now.monotonic).as_nanos() as u64;
            let wake = self.time.saturating_add((ahead / node.rate + 1).saturating_mul(1000));
            let moved = wake < node.wake || node.wake <= self.time;
            if moved {
                node.wake = wake;
            }
            if schedule {
                let at = self.time + 1 + self.rng.random_range(0..=self.settings.sync_max) + stall;
                self.push(at, Event::Sync { node: id, incarnation });
            }
            if moved {
                self.push(wake, Event::Wake { node: id, at: wake });
            }
            self.send(id, now_too);
            for (range, to) in ready.transfers_wanted {
                let high = self.read_high(id, range);
                let now = self.now_of(id);
                let store =
                    self.nodes.get_mut(&id).and_then(|node| node.store.as_mut()).expect("runs");
                let _ = store.transfer(now, range, to, high);
            }
            for event in ready.events {
                self.observe(id, event);
            }
            if idle {
                break;
            }
        }
        self.check(id);
    }

    /// What a range server knows: the highest read it, or any leaseholder before it, may have served.
    pub(super) fn read_high(&self, id: NodeId, range: RangeId) -> Timestamp {
        let node = &self.nodes[&id];
        let served = node.cache.get(&range).and_then(|cache| cache.values().max().copied());
        let floor = node.floors.get(&range).copied();
        served.unwrap_or(Timestamp::MIN).max(floor.unwrap_or(Timestamp::MIN))
    }

    fn send(&mut self, from: NodeId, messages: Vec<(NodeId, StoreMessage)>) {
        let mut by_node: BTreeMap<NodeId, Vec<StoreMessage>> = BTreeMap::new();
        for (to, message) in messages {
            let muted = match &message {
                StoreMessage::Raft { range, .. } => self.mutes.contains(&(from, to, *range)),
                StoreMessage::Gone { .. } => self.nobody_hears_gone,
                _ => false,
            };
            if muted {
                continue;
            }
            by_node.entry(to).or_default().push(message);
        }
        let clock = self.now_of(from).clock;
        for (to, messages) in by_node {
            for message in &messages {
                *self.coverage.entry(kind(message)).or_default() += 1;
            }
            assert_ne!(to, from, "a message to ourselves: {messages:?}");
            let batch = MessageBatch { cluster: CLUSTER, from, to, clock, messages };
            let bytes = batch.encode();
            assert_eq!(MessageBatch::decode(bytes.clone()).expect("decodes"), batch);
            let copies = if self.rng.random_range(0..100) < self.settings.loss {
                0
            } else if self.rng.random_range(0..100) < self.settings.duplication {
                2
            } else {
                1
            };
            let pair = (from.min(to), from.max(to));
            let distance = self.settings.distances.get(&pair).copied().unwrap_or(0);
            for _ in 0..copies {
                let jitter = self.rng.random_range(0..=self.settings.latency_max);
                let at = self.time + 1000 + distance + jitter;
                if self.nodes.contains_key(&to) {
                    self.push(at, Event::Deliver { to, bytes: bytes.clone() });
                }
            }
        }
    }

    pub(super) fn any_key(&mut self) -> Key {
        let number: u8 = self.rng.random_range(0..16);
        Key::new(vec![0x10, 0, 0, 0, 1, number])
    }

    /// Who leads `range` with a lease right now.
    pub(super) fn leaseholder(&mut self, range: RangeId) -> Option<NodeId> {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        ids.into_iter().find(|id| {
            let now = self.now_of(*id);
            let store = self.nodes[id].store.as_ref();
            store
                .and_then(|store| store.lease(now, range))
                .is_some_and(|lease| lease.until > now.monotonic)
        })
    }

    /// Proposes a write of `key` where its range is leased. `None`: nobody serves it now.
    pub(super) fn write(&mut self, key: &Key) -> Option<usize> {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        let number = self.writes.len() as u64;
        for id in ids {
            let now = self.now_of(id);
            let Some(store) = &self.nodes[&id].store else { continue };
            let Some(range) = store.range_for(key).map(|descriptor| descriptor.id) else {
                continue;
            };
            if store.lease(now, range).is_none_or(|lease| lease.until <= now.monotonic) {
                continue;
            }
            let raw = mvcc::layout::version_key(key, Timestamp::from_raw(number + 1));
            let mut batch = WriteBatch::new();
            batch.put(Space::Versions, raw.clone(), number.to_be_bytes().to_vec());
            let command = Command { batch, effect: Effect::None };
            let incarnation = self.nodes[&id].incarnation;
            self.writes.push(Write { key: key.clone(), raw, outcome: None });
            let store = self.nodes.get_mut(&id).and_then(|node| node.store.as_mut()).expect("runs");
            let Ok((term, index)) = store.propose(now, range, command) else {
                self.writes[number as usize].outcome = Some(Outcome::Dropped);
                return None;
            };
            self.pending.insert((id, incarnation, range, index, term), number as usize);
            self.pump(id);
            return Some(number as usize);
        }
        None
    }

    /// Writes until a write is applied; whether that happened in time. Leadership may be on the move, so that one is dropped.
    pub(super) fn write_and_wait(&mut self, key: &Key) -> bool {
        for _ in 0..5 {
            let mut write = None;
            self.run_until(millis(10_000), |world| {
                write = world.write(key);
                write.is_some()
            });
            let Some(write) = write else { return false };
            self.run_until(millis(5_000), |world| world.writes[write].outcome.is_some());
            match self.writes[write].outcome {
                Some(Outcome::Applied) => return true,
                Some(Outcome::Dropped) => {}
                Some(Outcome::Unknown) | None => return false,
            }
        }
        false
    }

    pub(super) fn split(&mut self, at: &Key) -> Option<RangeId> {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let now = self.now_of(id);
            let right = RangeId(self.next_range);
            let Some(store) = &self.nodes[&id].store else { continue };
            let Some(range) = store.range_for(at).map(|descriptor| descriptor.id) else { continue };
            if store.lease(now, range).is_none() {
                continue;
            }
            let (left, right_side) = store.split_descriptors(range, at, right)?;
            self.next_range += 1;
            let effect = Effect::Split { left, right: right_side };
            let command = Command { batch: WriteBatch::new(), effect };
            let proposed = self.with_store(id, |store, now| store.propose(now, range, command));
            return proposed.ok().map(|_| right);
        }
        None
    }

    /// Nodes that hold a voter of the range, by what its leaseholder has applied.
    pub(super) fn voters(&mut self, range: RangeId) -> BTreeSet<NodeId> {
        let Some(leader) = self.leaseholder(range) else { return BTreeSet::new() };
        let descriptor = self.store(leader).descriptor(range).expect("leased").clone();
        if descriptor.is_joint() {
            return BTreeSet::new();
        }
        let voters = descriptor.peers.iter().filter(|peer| peer.role == PeerRole::Voter);
        voters.map(|peer| peer.node).collect()
    }

    /// Waits until the range has exactly these voters.
    pub(super) fn await_voters(
        &mut self,
        range: RangeId,
        count: usize,
        limit: u64,
    ) -> BTreeSet<NodeId> {
        let done = self.run_until(limit, |world| world.voters(range).len() == count);
        let voters = self.voters(range);
        assert!(done, "{range} has voters {voters:?}: {}", self.describe(range));
        voters
    }

    pub(super) fn describe(&mut self, range: RangeId) -> String {
        let mut text = String::new();
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let now = self.now_of(id);
            let Some(store) = &self.nodes[&id].store else { continue };
            for status in store.status(now).into_iter().filter(|status| status.range == range) {
                text.push_str(&format!("\n{id}: {status:?}"));
            }
        }
        text
    }
}

fn kind(message: &StoreMessage) -> &'static str {
    match message {
        StoreMessage::Raft { message, .. } => match &message.body {
            replication::raft::Body::TimeoutNow { .. } => "transfer",
            replication::raft::Body::SnapshotReply { accepted: true, .. } => "snapshot accepted",
            _ => "raft",
        },
        StoreMessage::SupportRequest { .. } => "support request",
        StoreMessage::SupportReply { .. } => "support reply",
        StoreMessage::SnapshotChunk { .. } => "snapshot chunk",
        StoreMessage::SnapshotAck { next: u32::MAX, .. } => "snapshot refused",
        StoreMessage::SnapshotAck { .. } => "snapshot ack",
        StoreMessage::Probe { .. } => "probe",
        StoreMessage::Gone { .. } => "gone",
        StoreMessage::Departed { .. } => "departed",
    }
}
