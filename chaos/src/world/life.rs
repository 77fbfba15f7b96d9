//! Driver: how processes begin and end, and how faults are carried out.

use bytes::Bytes;
use clock::{
    Birth, ClockTimestamp, Former, NodeClock, NodeClockConfig, Now, TimeSource, Timestamp,
};
use replication::raft::{Incarnation, ReplicaId};
use replication::range::{NodeId, Peer, PeerRole, RangeDescriptor, RangeId, RegionId, keyspace};
use replication::store::{NodeInfo, Store, StoreConfig, StoreIdentity};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use storage::log::sim_file::{Crash, FileOperation};
use storage::log::{LogOptions, LogReader, SegmentedLog};
use storage::memory::{Operation, Rot};
use storage::mvcc::{self, Version};
use storage::{Key, Space, Span, StorageError, WriteBatch};
use txn::api::{Batch, Request, WAIT_SLICE, Wait};
use txn::client::{Db, Router};
use txn::runtime::{HlcSource, Runtime, Spawn};
use txn::server::{Event as ShardEvent, ServerConfig, Shard};

use super::access::Gateway;
use super::clocks::{ProcessClock, reading};
use super::executor::Owner;
use super::fault::{Fault, Power};
use super::machine::{Input, Process, Waiter};
use super::port::{LateSpawn, NodeRandom, Port};
use super::sql_cluster::SimCluster;
use super::time::EPOCH_US;
use super::{CLUSTER, Event, Layout, Level, World, life_of};
use crate::planted::{Planted, WorldBug};

/// The first range, which holds the whole keyspace.
pub(super) const FIRST_RANGE: RangeId = RangeId(1);
/// A supervisor starts a dead process after between these.
const RESTART: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(3));
/// Between two pulls of streams, and two tries to read the catalog.
const STREAM_PAUSE: Duration = Duration::from_millis(200);
/// All of the log's disk.
const FILE_OPERATIONS: [FileOperation; 4] =
    [FileOperation::Create, FileOperation::Read, FileOperation::Write, FileOperation::Sync];
/// Between two tries to start on a disk that does not let us.
const START_RETRY: Duration = Duration::from_millis(500);

impl World {
    /// Writes the first range on the first machine, as the node's founding does.
    pub(super) fn found(&mut self) {
        let options = self.log_options();
        let machine = self.machines.get_mut(&NodeId(1)).expect("there is a first node");
        let log = SegmentedLog::open(Arc::new(machine.dir.clone()), options)
            .expect("an empty disk opens");
        let founder = Peer { node: NodeId(1), replica: ReplicaId(1), role: PeerRole::Voter };
        let descriptor = RangeDescriptor {
            id: FIRST_RANGE,
            span: keyspace(),
            generation: 1,
            peers: vec![founder],
            next_replica: 2,
        };
        let at = ClockTimestamp::from_raw(Timestamp::new(EPOCH_US - 1, 0).raw());
        let mut batch = WriteBatch::new();
        let mut put = |key: Key, value: String| {
            let version = Version { written_at: at, by: None, value: Some(Bytes::from(value)) };
            mvcc::put_version(&mut batch, &key, at.timestamp(), &version);
        };
        put(Key::system("ids", b"node"), (self.layout.nodes + 1).to_string());
        put(Key::system("ids", b"region"), (self.layout.regions.len() + 1).to_string());
        put(Key::system("ids", b"range"), (1_000_000).to_string());
        for (place, region) in self.layout.regions.iter().enumerate() {
            put(Key::system("regions", region.as_bytes()), (place + 1).to_string());
        }
        Store::bootstrap(&*machine.engine, &log, &descriptor, batch)
            .expect("an empty disk takes the first range");
    }

    fn log_options(&self) -> LogOptions {
        let planted = match self.layout.planted {
            Some(Planted::Log(bug)) => Some(bug),
            Some(_) | None => None,
        };
        let Layout { segment_bytes, log_cache_bytes, .. } = self.layout;
        let cache_bytes = log_cache_bytes;
        LogOptions { segment_bytes, cache_bytes, planted, ..LogOptions::default() }
    }

    /// Starts the process of a machine, if it does not run; later, if clock or disk do not let it.
    pub(super) fn start(&mut self, node: NodeId) {
        let machine = self.machines.get_mut(&node).expect("machines stay");
        if machine.process.is_some() || machine.retired {
            return;
        }
        let bound = match self.layout.planted {
            Some(Planted::World(WorldBug::ClockBoundForgotten)) => Timestamp::MIN,
            _ => machine.clock_bound,
        };
        let config = NodeClockConfig {
            age_max: self.layout.measured_kept,
            planted: match self.layout.planted {
                Some(Planted::Clock(bug)) => Some(bug),
                Some(_) | None => None,
            },
            ..NodeClockConfig::default()
        };
        let former = Former { bound, course: machine.clock_course };
        let newborn = match NodeClock::begin(config, former, machine.boots, reading(&machine.time))
        {
            Birth::Ready(newborn) => newborn,
            Birth::Wait(wait) => {
                self.tally.count("starts that waited for the clock");
                // By its own clock, which may drift: a little more.
                let wait = wait.retry_after() + Duration::from_millis(1);
                return self.push_after(wait, Event::Start(node));
            }
        };
        let recorded = match self.layout.planted {
            Some(Planted::World(WorldBug::ClockBoundForgotten)) => Timestamp::MIN,
            _ => machine.recorded_bound,
        };
        let ((bound, course), floor) = (newborn.due(), newborn.floor());
        (machine.clock_bound, machine.clock_course) = (bound, Some(course));
        machine.recorded_bound = machine.recorded_bound.max(machine.clock_bound);
        let clock = Arc::new(ProcessClock::new(machine.time.clone(), newborn.persisted()));
        machine.incarnation += 1;
        match self.open(node, clock, recorded) {
            Ok(process) => {
                self.begin(node, process, floor);
            }
            // Found out, and nothing was served: what it had its peers have.
            Err(StorageError::Corrupt(what)) if self.machines[&node].rotten => {
                tracing::debug!(%node, what, "the damage was found");
                self.tally.count("rotten disks found out");
                self.replace(node);
            }
            Err(StorageError::Corrupt(what)) => {
                self.violate(format!("{node} cannot open its disk after a crash: {what}"));
            }
            Err(error) => {
                tracing::debug!(%node, %error, "no start yet");
                self.push_after(START_RETRY, Event::Start(node));
            }
        }
    }

    fn open(
        &mut self,
        node: NodeId,
        clock: Arc<ProcessClock>,
        floor: Timestamp,
    ) -> Result<Process, StorageError> {
        let options = self.log_options();
        let nearest = self.network.nearest(node);
        let seed = self.chances.nodes.bits();
        let mut random = self.chances.nodes.split();
        let late = random.split();
        let machine = &self.machines[&node];
        let log = Arc::new(SegmentedLog::open(Arc::new(machine.dir.clone()), options)?);
        let incarnation = machine.incarnation;
        let identity =
            StoreIdentity { cluster: CLUSTER, node, incarnation: Incarnation(incarnation) };
        let now = Now { clock: clock.now(), monotonic: clock.time.monotonic() };
        let reader: Arc<dyn LogReader> = log.clone();
        let engine = machine.engine.clone();
        let (config, server) = self.configs(node);
        let store = Store::open(config, identity, engine, reader, now, seed, floor)?;
        let shard = Shard::new(server, store);
        let port = Arc::new(Port::new(
            node,
            incarnation,
            clock.clone(),
            nearest,
            self.layout.call_timeout,
            self.layout.has(WorldBug::LostReplyCountsAsUnsent),
        ));
        let owner = Owner::Process { node, incarnation };
        let runtime = Runtime {
            time: Arc::new(clock.time.clone()),
            hlc: clock.clone(),
            spawn: Arc::new(LateSpawn::new(
                self.executor.spawner(owner),
                clock.time.clone(),
                self.layout.lag,
                late,
            )),
            random: Arc::new(NodeRandom::new(random)),
        };
        let router =
            Arc::new(Router::new(runtime.clone(), port.clone(), self.layout.router.clone()));
        let planted = match self.layout.planted {
            Some(Planted::Gateway(bug)) => Some(bug),
            Some(_) | None => None,
        };
        let settings = txn::client::Settings { planted, ..self.layout.client.clone() };
        let db = Db::new(runtime.clone(), router, settings);
        let (appended, synced) = log.sequences();
        let engine = self.sql_of(node, &db, &port);
        let gateway = Gateway { node, incarnation, db, runtime, sql: engine.clone() };
        self.access.open(gateway, self.executor.spawner(owner));
        let mut process = Process {
            incarnation,
            shard,
            log,
            clock,
            port,
            engine,
            waiting: BTreeMap::new(),
            asked: BTreeMap::new(),
            last_request: 0,
            inbox: VecDeque::new(),
            deferred: Vec::new(),
            appended,
            synced,
            syncing: false,
            sync_began: 0,
            sync_covers: None,
            wake_at: u64::MAX,
            durable: BTreeMap::new(),
        };
        process.note_durable();
        Ok(process)
    }

    /// The layout's, with the planted mistake where it belongs.
    fn configs(&self, node: NodeId) -> (StoreConfig, ServerConfig) {
        let mut store = self.layout.store.clone();
        let mut server = ServerConfig { node, ..self.layout.server.clone() };
        match self.layout.planted {
            Some(Planted::Raft(bug)) => store.raft.planted = Some(bug),
            Some(Planted::Store(bug)) => store.planted = Some(bug),
            Some(Planted::Server(bug)) => server.planted = Some(bug),
            Some(Planted::World(WorldBug::StallUnnoticed)) => {
                store.stall_max = Duration::from_secs(3600);
            }
            Some(
                Planted::World(_)
                | Planted::Clock(_)
                | Planted::Log(_)
                | Planted::Sql(_)
                | Planted::Gateway(_),
            )
            | None => {}
        }
        (store, server)
    }

    fn sql_of(&self, node: NodeId, db: &Db, port: &Arc<Port>) -> Option<Arc<sql::Engine>> {
        if self.layout.level == Level::Keys {
            return None;
        }
        let cluster = SimCluster {
            node,
            regions: self.layout.regions.clone(),
            infos: self.infos.clone(),
            db: db.clone(),
            port: port.clone(),
            next_range: self.access.range_numbers(),
        };
        let planted = match self.layout.planted {
            Some(Planted::Sql(bug)) => Some(bug),
            Some(_) | None => None,
        };
        let settings = sql::EngineSettings { planted, ..self.layout.sql.clone() };
        Some(sql::Engine::new(db.clone(), Arc::new(cluster), settings))
    }

    /// As a node does: the catalog first, then the streams into its region, if it is the region's first.
    fn serve_sql(&self, node: NodeId, process: &Process) {
        let Some(engine) = process.engine.clone() else { return };
        let own = self.network.region(node);
        let first =
            self.infos.iter().find(|info| info.region == own).is_some_and(|info| info.node == node);
        let others: BTreeSet<RegionId> =
            self.infos.iter().map(|info| info.region).filter(|region| *region != own).collect();
        let time = process.clock.time.clone();
        let owner = Owner::Process { node, incarnation: process.incarnation };
        self.executor.spawner(owner).spawn(Box::pin(async move {
            while engine.bootstrap().await.is_err() {
                time.sleep_until(time.monotonic().plus(STREAM_PAUSE)).await;
            }
            while first {
                for origin in &others {
                    pump_all(&engine, *origin, own).await;
                }
                time.sleep_until(time.monotonic().plus(STREAM_PAUSE)).await;
            }
        }));
    }

    fn begin(&mut self, node: NodeId, mut process: Process, floor: Timestamp) {
        let peers = self.access.nodes().into_iter().filter(|peer| *peer != node);
        process.clock.set_peers(peers);
        process.inbox.push_back(Input::Event(ShardEvent::ClockBound(process.clock.bound())));
        process.inbox.push_back(Input::Event(ShardEvent::Nodes(self.infos.clone())));
        process.inbox.push_back(Input::Event(ShardEvent::Tick));
        let incarnation = process.incarnation;
        self.serve_sql(node, &process);
        self.machines.get_mut(&node).expect("machines stay").process = Some(Box::new(process));
        self.clock_began(node, floor);
        self.tally.count("process starts");
        self.tell(|| format!("{node} starts, for the {incarnation}. time"));
        let interval = self.layout.flush_interval;
        let first = self.chances.nodes.duration(Duration::from_millis(1), interval);
        self.push_after(Duration::from_millis(1), Event::Look(node, incarnation));
        self.push_after(Duration::from_millis(2), Event::Gossip(node, incarnation));
        self.push_after(first, Event::Flush(node, incarnation));
        self.turn(node);
    }

    /// The process dies. With the power, the machine boots again later.
    pub(super) fn crash(&mut self, node: NodeId, power: Power) {
        let machine = self.machines.get_mut(&node).expect("machines stay");
        let Some(process) = machine.process.take() else { return };
        machine.paused = None;
        machine.fuse = None;
        let torn = self.layout.has(WorldBug::FlushNotAtomic);
        machine.engine = Arc::new(if torn {
            machine.engine.crash_torn(Space::Local)
        } else {
            machine.engine.crash()
        });
        if power == Power::Stopped
            && let Some(bound) = process.clock.close()
        {
            machine.clock_bound = bound;
            machine.clock_course = Some(process.clock.course());
        }
        let unsynced = machine.dir.unsynced_bytes();
        let left = match power {
            Power::Kept | Power::Stopped => Crash::Keep,
            Power::Lost => Crash::Seeded(self.chances.disk.bits()),
        };
        machine.dir = machine.dir.crash(left);
        if power == Power::Lost
            && let Some(older) = machine.older.take()
        {
            machine.dir = older;
        }
        match power {
            Power::Kept => self.tally.count("processes killed"),
            Power::Stopped => self.tally.count("processes stopped in good order"),
            Power::Lost => {
                machine.time = machine.time.reboot(self.chances.nodes.between(1, 1_000_000_000));
                machine.boots += 1;
                self.tally.count("power losses");
                if unsynced > 0 {
                    self.tally.count("power losses with writes lost or torn");
                }
            }
        }
        machine.limit_disk();
        machine.limit_state();
        let supervised = machine.supervised;
        self.tell(|| match power {
            Power::Kept => format!("{node} dies, its machine does not"),
            Power::Stopped => format!("{node} ends in good order"),
            Power::Lost => format!("{node} loses power, and {unsynced} bytes may be lost or torn"),
        });
        self.access.close(node);
        self.note_death(node, &process);
        drop(process);
        let machines = &self.machines;
        self.executor.bury(&|owner| life_of(machines, owner));
        if supervised {
            let pause = self.chances.nodes.duration(RESTART.0, RESTART.1);
            self.push_after(pause, Event::Start(node));
        }
    }

    /// Nobody starts the process again until [`Fault::Start`] or [`Fault::Heal`].
    pub fn leave_down(&mut self, node: NodeId) {
        self.machines.get_mut(&node).expect("machines stay").supervised = false;
    }

    /// Carries out a fault.
    pub fn apply(&mut self, fault: Fault) {
        tracing::debug!(at = self.truth.now() / 1_000_000, %fault, "fault");
        self.trace.bytes(fault.to_string().as_bytes());
        self.tell(|| format!("fault: {fault}"));
        match fault {
            Fault::Cut(from, to) => {
                self.tally.count("links cut");
                each_pair(&from, &to, |a, b| self.network.cut(a, b));
            }
            Fault::Join(from, to) => each_pair(&from, &to, |a, b| self.network.join(a, b)),
            Fault::CutRegion(region) => {
                self.tally.count("regions cut off");
                self.network.cut_region(region);
            }
            Fault::JoinRegion(region) => self.network.join_region(region),
            Fault::Clog(from, to) => {
                self.tally.count("links clogged");
                self.network.clog(from, to);
            }
            Fault::Unclog(from, to) => self.network.unclog(from, to),
            Fault::Throttle(from, to, rate) => {
                if rate.is_some() {
                    self.tally.count("links throttled");
                }
                self.network.throttle(from, to, rate);
            }
            Fault::Weather(weather) => {
                self.tally.count("changes of weather");
                self.network.set_weather(weather);
            }
            Fault::WeatherLink(from, to, weather) => {
                self.tally.count("changes of one link's weather");
                self.network.set_weather_of(from, to, weather);
            }
            Fault::Straying(straying) => self.network.set_straying(straying),
            Fault::StrayingLink(from, to, straying) => {
                self.network.set_straying_of(from, to, straying);
            }
            Fault::Crash(node, power) => self.crash(node, power),
            Fault::Fuse(node, outputs) => {
                self.machines.get_mut(&node).expect("machines stay").fuse = Some(outputs)
            }
            Fault::Start(node) => {
                self.machines.get_mut(&node).expect("machines stay").supervised = true;
                self.start(node);
            }
            Fault::Blackout => {
                self.tally.count("blackouts");
                for node in self.access.nodes() {
                    self.crash(node, Power::Lost);
                }
            }
            Fault::Pause(node) => {
                let machine = self.machines.get_mut(&node).expect("machines stay");
                if machine.process.is_some() && machine.paused.is_none() {
                    machine.paused = Some(Vec::new());
                    self.tally.count("processes paused");
                }
            }
            Fault::Resume(node) => self.resume(node),
            Fault::Stall(node, duration) => {
                self.tally.count("disks stalled");
                let until = self.truth.now() + super::nanos(duration);
                let machine = self.machines.get_mut(&node).expect("machines stay");
                machine.stalled_until = machine.stalled_until.max(until);
            }
            Fault::Slow(node, times) => {
                if times > 1 {
                    self.tally.count("disks slowed down");
                }
                self.machines.get_mut(&node).expect("machines stay").slow = times;
            }
            Fault::SyncError(node) => {
                self.tally.count("syncs failed");
                let error = StorageError::Io("the simulated disk reports an error".into());
                self.machines[&node].dir.set_fault(FileOperation::Sync, Some(error));
            }
            Fault::WriteError(node) => {
                self.tally.count("writes failed");
                let error = StorageError::Io("the simulated disk cannot write".into());
                self.machines[&node].dir.set_fault(FileOperation::Write, Some(error));
            }
            Fault::ReadError(node) => {
                self.tally.count("reads failed");
                let error = StorageError::Io("the simulated disk cannot be read".into());
                self.machines[&node].dir.set_fault(FileOperation::Read, Some(error));
            }
            Fault::CreateError(node) => {
                self.tally.count("log files denied");
                let error = StorageError::Io("the simulated disk gives no file".into());
                self.machines[&node].dir.set_fault(FileOperation::Create, Some(error));
            }
            Fault::StateError(node, operation) => {
                self.tally.count(match operation {
                    Operation::Read => "reads of the state failed",
                    Operation::Write => "writes of the state failed",
                    Operation::Flush => "flushes of the state failed",
                });
                let error = StorageError::Io("the simulated disk of the state fails".into());
                self.machines[&node].engine.set_fault(operation, Some(error));
            }
            Fault::StallState(node, duration) => {
                self.tally.count("disks of the state stalled");
                let until = self.truth.now() + super::nanos(duration);
                let machine = self.machines.get_mut(&node).expect("machines stay");
                machine.state_stalled_until = machine.state_stalled_until.max(until);
            }
            Fault::FullState(node) => {
                self.tally.count("disks of the state full");
                let machine = self.machines.get_mut(&node).expect("machines stay");
                machine.state_full = true;
                machine.limit_state();
            }
            Fault::RoomyState(node) => {
                let machine = self.machines.get_mut(&node).expect("machines stay");
                machine.state_full = false;
                machine.limit_state();
            }
            Fault::Rot(node) => self.rot(node),
            Fault::RotState(node) => self.rot_state(node),
            Fault::Replace(node) => self.replace(node),
            Fault::Full(node) => {
                self.tally.count("disks full");
                let machine = self.machines.get_mut(&node).expect("machines stay");
                machine.full = true;
                machine.limit_disk();
            }
            Fault::Roomy(node) => {
                let machine = self.machines.get_mut(&node).expect("machines stay");
                machine.full = false;
                machine.limit_disk();
            }
            Fault::Step(node, offset_us) => {
                self.tally.count("clock steps");
                self.note_wall(node);
                let time = &self.machines[&node].time;
                if self.layout.has(WorldBug::LeaseOnWallClock) {
                    time.jump_monotonic_us(offset_us - time.wall_offset_us());
                }
                time.set_wall_offset_us(offset_us);
            }
            Fault::Drift(node, monotonic_ppm, wall_ppm) => {
                self.tally.count(if wall_ppm == -1_000_000 {
                    "clocks frozen"
                } else {
                    "clock drifts"
                });
                self.machines[&node].time.set_rates(monotonic_ppm, wall_ppm);
            }
            Fault::Flush(node) => {
                if let Some(incarnation) =
                    self.machines[&node].process.as_ref().map(|process| process.incarnation)
                {
                    self.begin_flush(node, incarnation);
                }
            }
            Fault::Ambush(trigger, strike) => self.lie_in_wait(trigger, strike),
            Fault::HandOver(place, to) => self.hand_over(place, to),
            Fault::Drain(node) => {
                self.tally.count("nodes drained");
                self.set_draining(&[node], true);
            }
            Fault::Undrain(node) => self.set_draining(&[node], false),
            Fault::Split(at) => self.split(at),
            Fault::Collect(place, age) => self.collect(place, age),
            Fault::HealCore(away) => {
                self.heal();
                self.network.send_away(away);
            }
            Fault::Heal => self.heal(),
        }
    }

    /// A node is lost for good, its disk with all it had; another one, new, takes its place in its region. Its number is never used again.
    pub(super) fn replace(&mut self, node: NodeId) {
        if self.machines[&node].retired || self.infos.len() >= self.machines.len() {
            return;
        }
        self.tally.count("nodes replaced");
        self.leave_down(node);
        self.crash(node, Power::Lost);
        self.machines.get_mut(&node).expect("machines stay").retired = true;
        let known: Vec<NodeId> = self.infos.iter().map(|info| info.node).collect();
        let spare = self.machines.keys().copied().find(|spare| !known.contains(spare));
        let spare = spare.expect("more machines than nodes");
        let region = self.machines[&node].region;
        let (zone, draining) = (format!("z{}", spare.0), false);
        self.infos.push(NodeInfo { node: spare, region, zone, draining });
        self.machines.get_mut(&spare).expect("it is there").region = region;
        self.network.place(spare, region);
        self.access.replace(node, spare);
        self.tell_of_nodes();
        self.push_after(START_RETRY, Event::Start(spare));
    }

    /// A bit of what is on a node's disk turns round; it is found when it is read, now or after the next start.
    fn rot(&mut self, node: NodeId) {
        let dir = self.machines[&node].dir.clone();
        let names = storage::log::LogDir::list(&dir).unwrap_or_default();
        if names.is_empty() {
            return;
        }
        let chance = &mut self.chances.disk;
        let name = &names[chance.index(names.len())];
        let written = dir.content(name).unwrap_or_default();
        // Damage to the very last frames cannot be told from a torn tail (docs/limits.md).
        let last = dir.written_last(name);
        let old = |place: &usize| !last.iter().any(|range| range.contains(place));
        let bytes: Vec<usize> =
            (0..written.len()).filter(|place| written[*place] != 0).filter(old).collect();
        if bytes.is_empty() {
            return;
        }
        let (place, bit) = (bytes[chance.index(bytes.len())], chance.below(8) as u8);
        dir.flip_bit(name, place, bit);
        self.machines.get_mut(&node).expect("machines stay").rotten = true;
        self.tally.count("bits rotten");
    }

    /// The same of what its ranges hold. Whoever reads it stops.
    fn rot_state(&mut self, node: NodeId) {
        let ignored = self.layout.has(WorldBug::StateChecksumsIgnored);
        let rot = if ignored { Rot::Unnoticed } else { Rot::Noticed };
        let chance = &mut self.chances.disk;
        let space = chance.pick(&[Space::Versions, Space::Versions, Space::Local]);
        let machine = self.machines.get_mut(&node).expect("machines stay");
        if machine.engine.rot(space, rot, |count| chance.index(count)) {
            machine.rotten = true;
            self.tally.count("bits of the state rotten");
        }
    }

    /// Every node is told whether replicas shall leave these.
    fn set_draining(&mut self, nodes: &[NodeId], draining: bool) {
        for info in self.infos.iter_mut().filter(|info| nodes.contains(&info.node)) {
            info.draining = draining;
        }
        self.tell_of_nodes();
    }

    fn tell_of_nodes(&mut self) {
        let all = self.access.nodes();
        for node in all.iter().copied() {
            let process = self.machines.get_mut(&node).and_then(|it| it.process.as_mut());
            let Some(process) = process else { continue };
            // Before the new one serves anything: how far its clock is off counts from now on.
            process.clock.set_peers(all.iter().copied().filter(|peer| *peer != node));
            process.inbox.push_back(Input::Event(ShardEvent::Nodes(self.infos.clone())));
            self.turn(node);
        }
    }

    fn hand_over(&mut self, place: usize, to: NodeId) {
        let ranges = self.led_ranges();
        if ranges.is_empty() {
            return;
        }
        let range = ranges[place % ranges.len()];
        if self.order(range, |_, _| Request::TransferLease { to }) {
            self.tally.count("leases asked to move");
        }
    }

    fn split(&mut self, at: Key) {
        let right = self.access.take_range();
        let found = self.led_ranges().into_iter().find(|range| self.holds(*range, &at));
        if let Some(range) = found
            && self.order(range, move |_, _| Request::Split { at, right })
        {
            self.tally.count("splits asked for");
        }
    }

    /// Without asking anybody who still reads: a range must know by itself whom to refuse.
    fn collect(&mut self, place: usize, age: Duration) {
        let ranges = self.led_ranges();
        if ranges.is_empty() {
            return;
        }
        let range = ranges[place % ranges.len()];
        let older = |span: &Span, now: Timestamp| Request::Gc {
            span: span.clone(),
            threshold: now.minus(age),
        };
        if self.order(range, older) {
            self.tally.count("histories asked to be collected");
        }
    }

    fn holds(&self, range: RangeId, key: &Key) -> bool {
        let processes = self.machines.values().filter_map(|machine| machine.process.as_ref());
        let descriptors = processes.filter_map(|process| process.shard.store().descriptor(range));
        descriptors
            .max_by_key(|descriptor| descriptor.generation)
            .is_some_and(|range| range.span.contains(key))
    }

    /// Gives whoever leads the range a request of nobody's, made of its span and its leader's clock. Whether somebody does.
    fn order(&mut self, range: RangeId, make: impl FnOnce(&Span, Timestamp) -> Request) -> bool {
        for (node, machine) in &mut self.machines {
            let Some(process) = &mut machine.process else { continue };
            let now = Now { clock: process.clock.now(), monotonic: process.clock.time.monotonic() };
            let store = process.shard.store();
            let Some(descriptor) =
                store.descriptor(range).filter(|_| store.lease(now, range).is_some())
            else {
                continue;
            };
            let at = now.clock.timestamp();
            let batch = Batch {
                range: Some((range, descriptor.generation)),
                ..Batch::bare(at, Wait::Queue(WAIT_SLICE), vec![make(&descriptor.span, at)])
            };
            let (nobody, _) = futures::channel::oneshot::channel();
            process.inbox.push_back(Input::Request(batch, Waiter::Local(0, nobody)));
            let node = *node;
            self.turn(node);
            return true;
        }
        false
    }

    fn resume(&mut self, node: NodeId) {
        let machine = self.machines.get_mut(&node).expect("machines stay");
        let Some(held) = machine.paused.take() else { return };
        let now = self.truth.now();
        for event in held {
            self.push(now, event);
        }
        self.executor.unhold();
    }

    fn heal(&mut self) {
        self.network.heal();
        self.ambushes.clear();
        self.set_draining(&self.access.nodes(), false);
        let now = self.truth.now();
        for node in self.access.nodes() {
            self.resume(node);
            let machine = self.machines.get_mut(&node).expect("machines stay");
            machine.stalled_until = now;
            machine.state_stalled_until = now;
            let hangs = machine.process.as_ref().filter(|process| process.syncing);
            let hangs = hangs.map(|process| Event::Synced(node, process.incarnation));
            machine.fuse = None;
            (machine.full, machine.state_full) = (false, false);
            machine.limit_disk();
            machine.limit_state();
            for operation in FILE_OPERATIONS {
                machine.dir.set_fault(operation, None);
            }
            machine.engine.set_fault(Operation::Read, None);
            machine.slow = 1;
            machine.time.set_rates(0, 0);
            machine.time.set_wall_offset_us(0);
            machine.supervised = !machine.retired;
            if machine.process.is_none() {
                self.push(now, Event::Start(node));
            }
            if let Some(hangs) = hangs {
                self.push(now, hangs);
            }
        }
    }
}

impl super::machine::Machine {
    /// Tells the disk whether it is full.
    fn limit_disk(&self) {
        self.dir.set_capacity(self.full.then_some(0));
    }

    /// The same of the state's. What is written there stays in memory until it is flushed, but an engine whose disk is full takes no more.
    /// With that, errors of writes and flushes that were there before are gone.
    fn limit_state(&self) {
        let error = || StorageError::Full("the simulated disk of the state".into());
        self.engine.set_fault(Operation::Write, self.state_full.then(error));
        self.engine.set_fault(Operation::Flush, self.state_full.then(error));
    }
}

/// One pull of every available table's stream.
async fn pump_all(engine: &Arc<sql::Engine>, origin: RegionId, own: RegionId) {
    let catalog = engine.catalog();
    let available = catalog.tables().filter(|table| table.mode == sql::TableMode::Available);
    for table in available.map(|table| table.id).collect::<Vec<u32>>() {
        if let Err(error) = sql::pump(engine, table, origin, own).await {
            tracing::debug!(table, error = error.message, "a stream made no progress");
        }
    }
}

fn each_pair(from: &[NodeId], to: &[NodeId], mut call: impl FnMut(NodeId, NodeId)) {
    for a in from {
        for b in to {
            if a != b {
                call(*a, *b);
            }
        }
    }
}
