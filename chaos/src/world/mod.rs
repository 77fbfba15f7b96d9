//! Driver: the simulated world: a whole cluster in one thread, on virtual time, from one seed.
//!
//! ```text
//!   events by true time ──► arrive · synced · tick · look · gossip · flushed · start · fault
//!            ▲                                  │
//!            │                                  ▼
//!   network, disks, clocks ◄── drive (as the node's shard thread does) ──► tasks (gateways, clients)
//! ```
//!
//! Rooms: [`chance`] streams of the seed; [`time`] true time and machines' clocks; [`executor`] tasks; [`network`]; [`machine`] what stands
//! there; `drive` the shard's driver; `carry` packets between nodes; `life` starts, crashes and faults; `ambush` faults that wait for their moment; [`port`] and [`access`] how gateways and clients reach
//! in; `watch` the invariants that are checked while it runs; [`tally`] what happened.
//!
//! INVARIANT: events are taken in order of true time, ties by the seed; nothing reads a clock, a random source or a hash order
//! of the real world. Same seed, same trace.

pub mod access;
mod ambush;
mod carry;
pub mod chance;
pub mod clocks;
mod drive;
pub mod executor;
pub mod fault;
mod life;
pub mod machine;
pub mod network;
pub mod port;
mod sql_cluster;
mod standstill;
mod story;
pub mod tally;
pub mod time;
mod watch;

use clock::{LOOK_INTERVAL, Looked, Timestamp};
use replication::range::{NodeId, RegionId};
use replication::store::{Fencing, FlushMark, NodeInfo};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use storage::MemoryEngine;
use storage::log::SimDir;
use txn::server::{Event as ShardEvent, ServerConfig};

use access::Access;
use ambush::{Ambush, Lookout};
use chance::{Chance, Purpose};
use executor::{Executor, Life, Owner};
use fault::Fault;
use machine::{Input, Machine};
use network::Network;
use port::{Answered, Packet};
use standstill::Standstill;
use story::Story;
use tally::{Tally, Trace};
use time::{MachineClock, Truth};
use watch::Watch;

use crate::planted::{Planted, WorldBug};

pub use story::Told;
pub use watch::Violation;

/// The cluster's name in messages.
const CLUSTER: u128 = 0x5eed;
/// Between two rounds of asking peers for the time.
const GOSSIP_INTERVAL: Duration = Duration::from_secs(1);

/// How a shard's driver waits for the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncMode {
    /// As the node does: nothing else happens meanwhile.
    InPlace,
    /// As a node with a syncing thread would: the shard goes on.
    Overlapped,
}

/// What gateways offer to clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// Transactions over keys.
    Keys,
    /// SQL text as well, with streams between the copies of available tables.
    Sql,
}

/// How many of a range's disks may be lost or rot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// One: every promise holds.
    Promised,
    /// Any: ranges may be gone for good. What is answered all the same must be right.
    Beyond,
}

/// What a cluster is made of. Everything may be drawn per seed.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The seed of all streams.
    pub seed: u64,
    /// Region names; nodes stand in them in turn.
    pub regions: Vec<String>,
    /// How many nodes.
    pub nodes: u32,
    /// Round trips between regions.
    pub round_trips: BTreeMap<(usize, usize), Duration>,
    /// Ways from one region to another that are not half of the round trip.
    pub one_way: BTreeMap<(usize, usize), Duration>,
    /// Of every store.
    pub store: replication::store::StoreConfig,
    /// Bytes of a log segment.
    pub segment_bytes: u64,
    /// Bytes of recent entries that a log keeps in memory.
    pub log_cache_bytes: usize,
    /// Machines beside the nodes: each may take the place of a node that is lost.
    pub spares: u32,
    /// How much is lost at once.
    pub damage: Damage,
    /// A sync takes between these.
    pub sync: (Duration, Duration),
    /// See there.
    pub sync_mode: SyncMode,
    /// The state engine is flushed about so often.
    pub flush_interval: Duration,
    /// What a process starts in the background begins up to so much later.
    pub lag: Duration,
    /// A clogged link delays messages by up to this.
    pub clog_max: Duration,
    /// A call to another node is given up after this.
    pub call_timeout: Duration,
    /// What was measured of a clock so long ago says nothing any more.
    pub measured_kept: Duration,
    /// What gateways offer.
    pub level: Level,
    /// Limits of every range server; its node is filled in.
    pub server: ServerConfig,
    /// Limits of every gateway's transactions.
    pub client: txn::client::Settings,
    /// Limits of every gateway's routing.
    pub router: txn::client::RouterSettings,
    /// Limits of every gateway's SQL.
    pub sql: sql::EngineSettings,
    /// What rarely happens in the product, and how often it does here while there is load.
    pub rare: BTreeMap<coverage::Rare, coverage::Permille>,
    /// Whether a part of the cluster that must suffice is healed before the rest.
    pub core: bool,
    /// The mistake, if one is planted.
    pub planted: Option<Planted>,
}

impl Layout {
    /// Whether that mistake is planted in the world.
    pub(super) fn has(&self, bug: WorldBug) -> bool {
        self.planted == Some(Planted::World(bug))
    }
}

/// What can happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// A packet reaches a machine.
    Arrive {
        /// Sender.
        from: NodeId,
        /// Receiver.
        to: NodeId,
        /// What.
        packet: Packet,
    },
    /// A call is known not to have arrived.
    Refused {
        /// Caller.
        node: NodeId,
        /// Its process.
        incarnation: u64,
        /// Its number.
        id: u64,
    },
    /// A sync returns.
    Synced(NodeId, u64),
    /// The shard wants to be woken.
    Tick(NodeId, u64),
    /// The clock is looked at.
    Look(NodeId, u64),
    /// Peers are asked for the time.
    Gossip(NodeId, u64),
    /// A flush begins.
    Flush(NodeId, u64),
    /// It has returned.
    Flushed(NodeId, u64, FlushMark),
    /// A process is started by its supervisor.
    Start(NodeId),
    /// A fault begins or ends.
    Fault(Fault),
}

/// The random streams.
pub(super) struct Chances {
    network: Chance,
    disk: Chance,
    nodes: Chance,
    schedule: Chance,
}

/// See the module.
pub struct World {
    layout: Layout,
    truth: Truth,
    queue: BTreeMap<(u64, u64, u64), Box<Event>>,
    queued: u64,
    executor: Executor,
    machines: BTreeMap<NodeId, Machine>,
    network: Network,
    chances: Chances,
    access: Arc<Access>,
    infos: Vec<NodeInfo>,
    watch: Watch,
    ambushes: Vec<Ambush>,
    /// When an ambush last struck a node.
    struck: BTreeMap<NodeId, u64>,
    tally: Tally,
    trace: Trace,
    events: u64,
    standstill: Standstill,
    story: Story,
}

impl World {
    /// All machines, powered on; the first one has founded the cluster. All clocks are right.
    pub fn new(layout: Layout) -> World {
        World::with_clocks(layout, Vec::new())
    }

    /// The same, with clocks that were as these faults say when the machines were powered on.
    pub fn with_clocks(layout: Layout, clocks: Vec<Fault>) -> World {
        let level = layout.level;
        let truth = Truth::default();
        let region_count = layout.regions.len() as u32;
        let infos: Vec<NodeInfo> = (1..=layout.nodes)
            .map(|node| NodeInfo {
                node: NodeId(node),
                region: RegionId(((node - 1) % region_count) as u16 + 1),
                zone: format!("z{node}"),
                draining: false,
            })
            .collect();
        let mut network = Network::new(
            infos.iter().map(|info| (info.node, info.region)).collect(),
            layout.clog_max,
        );
        for ((a, b), round_trip) in &layout.round_trips {
            network.set_round_trip(RegionId(*a as u16 + 1), RegionId(*b as u16 + 1), *round_trip);
        }
        for ((a, b), latency) in &layout.one_way {
            network.set_one_way(RegionId(*a as u16 + 1), RegionId(*b as u16 + 1), *latency);
        }
        let executor = Executor::default();
        let nodes: Vec<NodeId> = infos.iter().map(|info| info.node).collect();
        let outside = executor.spawner(Owner::World);
        let access = Arc::new(Access::new(truth.clone(), outside, nodes, 2));
        let stream = |purpose| Chance::new(layout.seed, purpose);
        let mut chances = Chances {
            network: stream(Purpose::Network),
            disk: stream(Purpose::Disk),
            nodes: stream(Purpose::Nodes),
            schedule: stream(Purpose::Schedule),
        };
        // A spare machine has no place yet.
        let spares = (layout.nodes + 1..=layout.nodes + layout.spares)
            .map(|node| (NodeId(node), RegionId(1)));
        let machines = infos
            .iter()
            .map(|info| (info.node, info.region))
            .chain(spares)
            .map(|(node, region)| {
                let boot_ns = chances.nodes.between(1, 1_000_000_000_000);
                let machine = Machine {
                    id: node,
                    region,
                    time: MachineClock::new(truth.clone(), boot_ns),
                    dir: SimDir::new(),
                    engine: Arc::new(MemoryEngine::new()),
                    incarnation: 0,
                    boots: 1,
                    clock_bound: Timestamp::MIN,
                    clock_course: None,
                    recorded_bound: Timestamp::MIN,
                    process: None,
                    paused: None,
                    stalled_until: 0,
                    state_stalled_until: 0,
                    slow: 1,
                    fuse: None,
                    supervised: true,
                    retired: false,
                    rotten: false,
                    full: false,
                    state_full: false,
                    older: None,
                };
                (node, machine)
            })
            .collect();
        let mut world = World {
            layout,
            truth,
            queue: BTreeMap::new(),
            queued: 0,
            executor,
            machines,
            network,
            chances,
            access,
            infos,
            watch: Watch::new(level),
            ambushes: Vec::new(),
            struck: BTreeMap::new(),
            tally: Tally::default(),
            trace: Trace::default(),
            events: 0,
            standstill: Standstill::default(),
            story: Story::default(),
        };
        world.found();
        clocks.into_iter().for_each(|fault| world.apply(fault));
        for node in world.access.nodes() {
            world.start(node);
        }
        world
    }

    /// How clients reach in.
    pub fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// What it was made of.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What happened so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Hash of everything that happened so far.
    pub fn trace(&self) -> u64 {
        self.trace.value()
    }

    /// Events taken so far.
    pub fn event_count(&self) -> u64 {
        self.events
    }

    /// True time, nanoseconds since the beginning.
    pub fn now(&self) -> u64 {
        self.truth.now()
    }

    /// Counts what whoever drives it has seen.
    pub(crate) fn count(&mut self, what: &'static str) {
        self.tally.count(what);
    }

    /// Counts the rare turns that were taken.
    pub(crate) fn count_rare(&mut self, taken: BTreeMap<coverage::Rare, u64>) {
        self.tally.add_rare(taken);
    }

    /// Adds what running processes have counted themselves.
    pub(crate) fn count_nodes(&mut self) {
        let tasks = self.executor.task_count() as u64;
        self.tally.add("tasks left at the end", tasks);
    }

    /// From now on what happens is kept in words.
    pub(crate) fn keep_story(&mut self) {
        self.story.keep();
    }

    /// What was kept.
    pub(crate) fn take_story(&mut self) -> Vec<Told> {
        self.story.take()
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        self.story.tell(self.truth.now(), what);
    }

    /// What was found broken while it ran.
    pub fn violations(&self) -> &[Violation] {
        self.watch.violations()
    }

    /// The network, to be read.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The nodes of a region, by its name.
    pub fn nodes_of(&self, region: &str) -> Vec<NodeId> {
        let Some(place) = self.layout.regions.iter().position(|name| name == region) else {
            return Vec::new();
        };
        let region = RegionId(place as u16 + 1);
        self.infos.iter().filter(|info| info.region == region).map(|info| info.node).collect()
    }

    /// Plans a fault.
    pub fn plan(&mut self, after: Duration, fault: Fault) {
        self.push_after(after, Event::Fault(fault));
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.truth.now() + nanos(duration);
        while self.step(end) {}
    }

    /// Runs until `work` has ended, at most `limit`; its result if it has.
    pub fn block_on<T: Send + 'static>(
        &mut self,
        limit: Duration,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let slot = Arc::new(parking_lot::Mutex::new(None));
        let filled = slot.clone();
        self.access.spawn(Box::pin(async move {
            let value = work.await;
            *filled.lock() = Some(value);
        }));
        let end = self.truth.now() + nanos(limit);
        while slot.lock().is_none() && self.step(end) {}
        slot.lock().take()
    }

    /// Runs until `done`, asked every few milliseconds of true time, at most `limit`; whether it was done.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut World) -> bool) -> bool {
        let end = self.truth.now() + nanos(limit);
        while self.truth.now() < end {
            if done(self) {
                return true;
            }
            self.run(Duration::from_millis(50));
        }
        done(self)
    }

    /// Everything that can happen now happens; then true time moves to the next event, unless that is after `end`.
    fn step(&mut self, end: u64) -> bool {
        if self.standstill.has_come() {
            self.truth.advance_to(end);
            return false;
        }
        self.settle();
        let event_at = self.queue.first_key_value().map(|((at, _, _), _)| *at);
        let timer_at = self.truth.next_timer();
        let next = match (event_at, timer_at) {
            (Some(event), Some(timer)) => event.min(timer),
            (Some(at), None) | (None, Some(at)) => at,
            (None, None) => end,
        };
        if next > end || (event_at.is_none() && timer_at.is_none()) {
            self.truth.advance_to(end);
            return false;
        }
        self.truth.advance_to(next);
        self.events += 1;
        if let Some(what) = self.standstill.note(next) {
            self.violate(what);
        }
        self.trace.number(next);
        if timer_at == Some(next) {
            self.truth.fire_first();
        } else if let Some((_, event)) = self.queue.pop_first() {
            self.take(*event);
        }
        true
    }

    /// Runs tasks and carries out what they left, until nothing is left.
    fn settle(&mut self) {
        loop {
            let machines = &self.machines;
            let life = |owner| life_of(machines, owner);
            let mut lookout = Lookout::new(&self.ambushes);
            let mut polled = |owner| lookout.polled(owner);
            let polls = self.executor.run(&mut self.chances.schedule, &life, &mut polled);
            self.spring_seen(lookout);
            let leaves = |machine: &&Machine| {
                let process = machine.process.as_ref().filter(|_| machine.paused.is_none());
                process.is_some_and(|process| process.port.has_outgoing())
            };
            let leaving: Vec<NodeId> =
                self.machines.values().filter(leaves).map(|machine| machine.id).collect();
            if leaving.is_empty() {
                self.trace.number(polls);
                return;
            }
            for node in leaving {
                let process = self.machines[&node].process.as_ref();
                let outgoing = process.map(|process| process.port.take_outgoing());
                for each in outgoing.unwrap_or_default() {
                    self.carry_out_call(node, each);
                }
                self.turn(node);
            }
        }
    }

    fn push_after(&mut self, after: Duration, event: Event) {
        self.push(self.truth.now().saturating_add(nanos(after)), event);
    }

    fn push(&mut self, at: u64, event: Event) {
        self.queued += 1;
        let tie = self.chances.schedule.bits() >> 32;
        self.queue.insert((at, tie, self.queued), Box::new(event));
    }

    fn take(&mut self, event: Event) {
        if let Some(node) = whose(&event)
            && let Some(held) =
                self.machines.get_mut(&node).and_then(|machine| machine.paused.as_mut())
        {
            held.push(event);
            return;
        }
        match event {
            Event::Arrive { from, to, packet } => self.arrive(from, to, packet),
            Event::Refused { node, incarnation, id } => {
                if let Some(process) = self.process_of(node, incarnation) {
                    process.port.answered(id, Answered::NotSent);
                }
            }
            Event::Synced(node, incarnation) => self.synced(node, incarnation),
            Event::Tick(node, incarnation) => {
                if self.process_of(node, incarnation).is_some() {
                    self.turn(node);
                }
            }
            Event::Look(node, incarnation) => self.look(node, incarnation),
            Event::Gossip(node, incarnation) => self.gossip(node, incarnation),
            Event::Flush(node, incarnation) => self.begin_flush(node, incarnation),
            Event::Flushed(node, incarnation, mark) => self.end_flush(node, incarnation, mark),
            Event::Start(node) if self.machines[&node].supervised => self.start(node),
            Event::Start(_) => {}
            Event::Fault(fault) => self.apply(fault),
        }
    }

    fn process_of(&mut self, node: NodeId, incarnation: u64) -> Option<&mut machine::Process> {
        let process = self.machines.get_mut(&node)?.process.as_mut()?;
        (process.incarnation == incarnation).then_some(process)
    }

    fn look(&mut self, node: NodeId, incarnation: u64) {
        let fenceless = self.layout.has(WorldBug::FenceIgnored);
        let bound_kept = !self.layout.has(WorldBug::ClockBoundForgotten);
        // A look may set the clock back.
        self.note_wall(node);
        let Some(process) = self.process_of(node, incarnation) else { return };
        let Looked { change, due, .. } = process.clock.look();
        match change {
            clock::Change::None => {}
            clock::Change::Fenced if fenceless => {}
            clock::Change::Fenced => {
                process.inbox.push_back(Input::Event(ShardEvent::Fencing(Fencing::Fenced)));
                self.tally.count("nodes fenced");
            }
            clock::Change::Returned => {
                process.inbox.push_back(Input::Event(ShardEvent::Fencing(Fencing::Serving)));
                self.tally.count("nodes returned from the fence");
            }
        }
        let machine = self.machines.get_mut(&node).expect("its process was found");
        let process = machine.process.as_mut().expect("its process was found");
        if let Some(course) = due.course {
            machine.clock_course = Some(course);
            process.clock.follow(course);
        }
        if let Some(extension) = due.extension {
            if bound_kept {
                machine.clock_bound = extension.value();
                machine.recorded_bound = machine.recorded_bound.max(extension.value());
            }
            machine.clock_course = Some(process.clock.course());
            process.clock.raise(extension);
            process.inbox.push_back(Input::Event(ShardEvent::ClockBound(process.clock.bound())));
        }
        self.push_after(LOOK_INTERVAL, Event::Look(node, incarnation));
        self.turn(node);
        self.check_clock(node);
    }

    fn gossip(&mut self, node: NodeId, incarnation: u64) {
        let Some(process) = self.process_of(node, incarnation) else { return };
        let sent = clock::TimeSource::monotonic(&process.clock.time).nanos();
        for peer in self.access.nodes() {
            if peer != node {
                self.send(node, peer, Packet::Ping { incarnation, sent });
            }
        }
        self.push_after(GOSSIP_INTERVAL, Event::Gossip(node, incarnation));
    }
}

impl Drop for World {
    /// Gateways, engines and tasks hold each other: let go of all.
    fn drop(&mut self) {
        for node in self.access.nodes() {
            self.access.close(node);
        }
        for machine in self.machines.values_mut() {
            machine.process = None;
        }
        self.executor.clear();
    }
}

/// Nanoseconds, saturating.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Which machine's process an event happens to, if it stands still while that is paused.
fn whose(event: &Event) -> Option<NodeId> {
    match event {
        Event::Arrive { to, .. } => Some(*to),
        Event::Refused { node, .. } => Some(*node),
        Event::Synced(node, _)
        | Event::Tick(node, _)
        | Event::Look(node, _)
        | Event::Gossip(node, _)
        | Event::Flush(node, _)
        | Event::Flushed(node, _, _) => Some(*node),
        Event::Start(_) | Event::Fault(_) => None,
    }
}

/// How a task's owner is.
fn life_of(machines: &BTreeMap<NodeId, Machine>, owner: Owner) -> Life {
    let (node, incarnation) = match owner {
        Owner::World => return Life::Running,
        Owner::Process { node, incarnation } => (node, incarnation),
    };
    let machine = &machines[&node];
    match &machine.process {
        Some(process) if process.incarnation == incarnation && machine.paused.is_some() => {
            Life::Paused
        }
        Some(process) if process.incarnation == incarnation => Life::Running,
        Some(_) | None => Life::Gone,
    }
}
