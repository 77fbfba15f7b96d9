//! Driver: one seed: a cluster drawn from it, a workload, a plan of faults, a healing, a verdict.
//!
//! ```text
//!   boot, prepare ──► safety phase: clients and faults ──► heal ──► liveness phase: converge, serve everywhere ──► read all, judge
//! ```
//!
//! In four of five seeds every clock stays within its share of the bound, and every promise must hold. In the fifth one clock goes beyond:
//! then durability, serializability and convergence must hold, and real time is not asked for.

use bytes::Bytes;
use futures::FutureExt;
use replication::raft::RaftConfig;
use replication::range::{NodeId, RangeId};
use replication::store::StoreConfig;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use storage::Key;
use txn::client::{RouterSettings, Settings, TxnError, TxnOptions};
use txn::server::ServerConfig;

use crate::check::RealTime;
use crate::check::file::{Format, Operation, show};
use crate::hardship::Hardship;
use crate::healed_core::heal_core;
use crate::history::{Ended, Record};
use crate::ordeal::{Ordeal, draw_ordeal};
use crate::plan::{draw_collections, draw_plan, draw_topology};
use crate::planted::{Planted, WorldBug};
use crate::raid::{Raid, draw_raids};
use crate::shrink::Cut;
use crate::workload::{Kind, Workload};
use crate::world::access::SharedAccess;
use crate::world::chance::{Chance, Purpose};
use crate::world::fault::Fault;
use crate::world::network::CLOG_MAX;
use crate::world::tally::Tally;
use crate::world::{Damage, Layout, Level, SyncMode, Told, Violation, World};

/// How long faults last in all.
pub(crate) const SAFETY: Duration = Duration::from_secs(20);
/// Clients go on for so long after everything was healed.
const HEALED: Duration = Duration::from_secs(4);
/// A healed cluster must have converged by then.
pub(crate) const LIVENESS: Duration = Duration::from_secs(90);
/// A new cluster must have spread by then.
pub(crate) const BOOT: Duration = Duration::from_secs(60);
/// Clients per world.
pub const CLIENTS: u32 = 5;
/// A run with fewer operations that ended well proves nothing.
const OPERATIONS_MIN: usize = 20;
/// Wall clocks stay this near to true time while they are within their bound, microseconds.
pub(crate) const SKEW_MAX_US: i64 = 90_000;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides everything else.
    pub seed: u64,
    /// What clients do.
    pub workload: Kind,
    /// A mistake made on purpose.
    pub planted: Option<Planted>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which seed.
    pub seed: u64,
    /// What clients did.
    pub workload: Kind,
    /// What is wrong, if anything.
    pub verdict: Result<(), String>,
    /// Hash of everything that happened.
    pub trace: u64,
    /// What happened.
    pub tally: Tally,
    /// True time, from beginning to end.
    pub virtual_time: Duration,
    /// Events taken.
    pub events: u64,
    /// Operations that ended well, badly, and nobody knows how.
    pub operations: (usize, usize, usize),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ok, failed, unknown) = self.operations;
        let verdict = match &self.verdict {
            Ok(()) => "good".to_string(),
            Err(why) => why.clone(),
        };
        write!(
            f,
            "seed {} {}: {ok} ok, {failed} failed, {unknown} unknown in {:.1} s, {} events, trace {:016x}: {verdict}",
            self.seed,
            self.workload,
            self.virtual_time.as_secs_f64(),
            self.events,
            self.trace
        )
    }
}

/// Faults, each with its time.
pub(crate) type Plan = Vec<(Duration, Fault)>;

/// Runs one seed to its verdict.
pub fn run(options: Options) -> Report {
    run_cut(options, &Cut::default()).0
}

/// The same without what is cut, and with the history of its clients as a file tells it.
pub fn run_cut(options: Options, cut: &Cut) -> (Report, Vec<Operation>) {
    let (report, workload, _) = run_whole(options, cut, false);
    (report, workload.operations())
}

/// The same, and what happened in it: faults as they struck, elections, leases, members, splits, and what clients did and were told.
pub fn run_told(options: Options, cut: &Cut) -> (Report, Vec<Told>) {
    let (report, workload, mut told) = run_whole(options, cut, true);
    told.extend(told_of(&*workload));
    told.sort_by_key(|told| told.at);
    (report, told)
}

/// Each operation when its client heard of it, or, where it never did, when it asked.
fn told_of(workload: &dyn Workload) -> Vec<Told> {
    let known = workload.operations();
    let shown = known.into_iter().map(|Operation { record, .. }| {
        let (what, asked) = &record.op;
        let how = match &record.ended {
            Ended::Ok(answer) => format!("is told {}", show(answer, Format::Edn)),
            Ended::Fail => "failed".to_string(),
            Ended::Unknown => "has no answer".to_string(),
        };
        let bare = Record {
            client: record.client,
            asked: record.asked,
            heard: record.heard,
            op: (),
            ended: Ended::Ok(()),
        };
        (bare, format!("{what} {} {how}", show(asked, Format::Edn)))
    });
    let mut told: Vec<(Record<(), ()>, String)> = shown.collect();
    if told.is_empty() {
        // Judged by what is in the tables at the end: of those it is known how they ended.
        told.extend(workload.ledger().ends().into_iter().map(|record| {
            let how = match record.ended {
                Ended::Ok(()) => "an operation ended well",
                Ended::Fail => "an operation failed",
                Ended::Unknown => "an operation has no answer",
            };
            (record, how.to_string())
        }));
    }
    let tell = |(record, what): (Record<(), ()>, String)| {
        let asked = Duration::from_nanos(record.asked).as_secs_f64();
        let at = if record.heard == u64::MAX { record.asked } else { record.heard };
        Told { at, what: format!("client {}: {what} (asked at {asked:.6} s)", record.client) }
    };
    told.into_iter().map(tell).collect()
}

fn run_whole(options: Options, cut: &Cut, tell: bool) -> (Report, Arc<dyn Workload>, Vec<Told>) {
    let mut layout = drawn_layout(options);
    endure(&mut layout, cut);
    layout.nodes = layout.nodes.min(cut.nodes.unwrap_or(layout.nodes));
    // What a world before this one has left on the thread is not this one's.
    coverage::take();
    coverage::switch_off();
    let plan = plan_within(options, cut).into_iter().map(|(_, after, fault)| (after, fault));
    let (mut world, plan) = power_on(layout, plan.collect());
    if tell {
        world.keep_story();
    }
    let workload = options.workload.make();
    let verdict = play(&mut world, &workload, plan, cut);
    let told = world.take_story();
    (report(&mut world, &workload, options, verdict), workload, told)
}

/// What came of a world at its end.
pub(crate) fn report(
    world: &mut World,
    workload: &Arc<dyn Workload>,
    options: Options,
    verdict: Result<(), String>,
) -> Report {
    world.count_nodes();
    world.count_rare(coverage::switch_off());
    let mut tally = world.tally().clone();
    tally.take_marks();
    Report {
        seed: options.seed,
        workload: options.workload,
        verdict,
        trace: world.trace(),
        tally,
        virtual_time: Duration::from_nanos(world.now()),
        events: world.event_count(),
        operations: workload.ledger().counts(),
    }
}

/// A seed's cluster, with its hardships.
pub(crate) fn layout_of(options: Options) -> Layout {
    let mut layout = drawn_layout(options);
    endure(&mut layout, &Cut::default());
    layout
}

fn drawn_layout(options: Options) -> Layout {
    draw_layout(options, &mut Chance::new(options.seed, Purpose::Knobs))
}

/// What the seed's hardships make of its cluster, but those that are cut.
fn endure(layout: &mut Layout, cut: &Cut) {
    let hardships = Hardship::of(layout.seed);
    hardships.difference(&cut.without).for_each(|hardship| hardship.suit(layout));
}

/// How many nodes a seed has.
pub fn nodes_of(options: Options) -> u32 {
    layout_of(options).nodes
}

/// A seed's faults, each with its time after the preparation; a [`Cut`] names them by their places here.
pub fn plan_of(options: Options) -> Vec<(Duration, Fault)> {
    plan_for(&layout_of(options))
}

/// The same for a cluster.
pub(crate) fn plan_for(layout: &Layout) -> Vec<(Duration, Fault)> {
    labelled_plan(layout).into_iter().map(|(_, after, fault)| (after, fault)).collect()
}

/// The same, each fault with the hardship that it is of. Those come last: what was added later must not shift what was there before.
fn labelled_plan(layout: &Layout) -> Vec<(Option<Hardship>, Duration, Fault)> {
    let nodes: Vec<NodeId> = (1..=layout.nodes).map(NodeId).collect();
    let mut plan: Vec<(Option<Hardship>, Duration, Fault)> =
        plain_plan(layout).into_iter().map(|(after, fault)| (None, after, fault)).collect();
    for hardship in Hardship::of(layout.seed) {
        let own = hardship.plan(layout, &nodes).into_iter();
        plan.extend(own.map(|(after, fault)| (Some(hardship), after, fault)));
    }
    plan
}

fn plain_plan(layout: &Layout) -> Plan {
    let nodes: Vec<NodeId> = (1..=layout.nodes).map(NodeId).collect();
    let mut plan = draw_plan(layout.seed, &nodes, real_time_of(layout.seed));
    let ordeal = Ordeal::of(layout.seed, layout.level);
    // One disk at most is lost or rots.
    let spares = if ordeal == Some(Ordeal::Rot) { 0 } else { layout.spares };
    plan.extend(draw_topology(&Layout { spares, ..layout.clone() }, &nodes));
    match ordeal {
        Some(_) => plan.extend(draw_ordeal(layout, &nodes)),
        None => plan.extend(draw_raids(layout, &nodes)),
    }
    plan.extend(draw_collections(layout));
    plan
}

fn plan_within(options: Options, cut: &Cut) -> Vec<(usize, Duration, Fault)> {
    let (nodes, safety) = (cut.nodes.unwrap_or(u32::MAX), cut.safety.unwrap_or(SAFETY));
    let plan = labelled_plan(&layout_of(options)).into_iter().enumerate();
    plan.filter(|(place, (hardship, after, fault))| {
        let endured = hardship.is_none_or(|hardship| !cut.without.contains(&hardship));
        cut.keeps(*place) && endured && *after <= safety && fault.is_within(nodes)
    })
    .map(|(place, (_, after, fault))| (place, after, fault))
    .collect()
}

/// What a seed will be, for people: its cluster and its faults in order of time, each with its place in the plan.
pub fn explain(options: Options, cut: &Cut) -> String {
    let mut plan = plan_within(options, cut);
    plan.sort_by_key(|(_, after, _)| *after);
    let mut layout = drawn_layout(options);
    endure(&mut layout, cut);
    let aim = match Ordeal::of(layout.seed, layout.level) {
        Some(ordeal) => format!("ordeal: {ordeal:?}"),
        None => format!("raid: {:?}", Raid::of(options.seed)),
    };
    let hardships = Hardship::of(options.seed);
    let hardships: Vec<String> =
        hardships.difference(&cut.without).map(Hardship::to_string).collect();
    let mut text = format!("{layout:?}\n{aim}\nhardships: {}\n", hardships.join(" "));
    for (place, after, fault) in plan {
        let seconds = after.as_secs_f64();
        text.push_str(&format!(
            "{seconds:>9.3} s after the preparation: {fault} (fault {place})\n"
        ));
    }
    text
}

/// Whether a seed keeps every clock within its bound.
pub fn real_time_of(seed: u64) -> RealTime {
    if seed % 5 == 4 { RealTime::Waived } else { RealTime::Demanded }
}

/// A world whose clocks were never equal, and the plan without that.
pub(crate) fn power_on(layout: Layout, plan: Plan) -> (World, Plan) {
    let (clocks, plan): (Plan, Plan) =
        plan.into_iter().partition(|(after, fault)| after.is_zero() && is_of_clocks(fault));
    let clocks = clocks.into_iter().map(|(_, fault)| fault).collect();
    (World::with_clocks(layout, clocks), plan)
}

fn play(
    world: &mut World,
    workload: &Arc<dyn Workload>,
    plan: Plan,
    cut: &Cut,
) -> Result<(), String> {
    begin(world, workload)?;
    world.access().allow(cut.operations);
    let left = load(world, workload, plan, cut.clients.unwrap_or(CLIENTS));
    world.run(cut.safety.unwrap_or(SAFETY));
    let least = if cut.operations.is_some() { 0 } else { OPERATIONS_MIN };
    settle(world, workload, &left, least)
}

/// A cluster that has spread, with the workload's data.
pub(crate) fn begin(world: &mut World, workload: &Arc<dyn Workload>) -> Result<(), String> {
    let nodes = world.access().nodes();
    let voters = if nodes.len() >= 3 { 3 } else { 1 };
    if !world.run_until(BOOT, |world| world.voters_of(RangeId(1)) == voters) {
        return Err(format!(
            "the first range has not spread within {BOOT:?}\n{}",
            world.describe()
        ));
    }
    let access = world.access().clone();
    match world.block_on(BOOT, workload.prepare(access)) {
        Some(prepared) => {
            prepared.map_err(|why| format!("the workload could not be prepared: {why}"))
        }
        None => Err(format!("the workload was not prepared within {BOOT:?}\n{}", world.describe())),
    }
}

/// Clients begin, and with them the faults. Gives how many clients have not ended.
pub(crate) fn load(
    world: &mut World,
    workload: &Arc<dyn Workload>,
    plan: Plan,
    clients: u32,
) -> Arc<AtomicU32> {
    let left = if world.layout().planted == Some(Planted::World(WorldBug::IdleClients)) {
        Arc::default()
    } else {
        start_clients(workload, world.access(), world.layout().seed, clients)
    };
    for (after, fault) in plan {
        world.plan(after, fault);
    }
    coverage::switch_on(world.layout().seed, &world.layout().rare);
    left
}

/// Heals all, waits until so many operations have ended well and all is equal and served again, and judges.
pub(crate) fn settle(
    world: &mut World,
    workload: &Arc<dyn Workload>,
    left: &AtomicU32,
    least: usize,
) -> Result<(), String> {
    first(world.violations())?;
    let access = world.access().clone();
    if world.layout().core {
        heal_core(world)?;
    }
    world.apply(Fault::Heal);
    world.run(HEALED);
    if world.layout().damage == Damage::Beyond {
        return settle_what_is_left(world, workload, left);
    }
    // A seed whose faults left no time for work must show that a healed cluster works.
    world.run_until(LIVENESS, |_| workload.ledger().counts().0 >= least);
    access.stop();
    let ended = world.run_until(LIVENESS, |_| left.load(Ordering::Relaxed) == 0);
    first(world.violations())?;
    if !ended {
        let left = left.load(Ordering::Relaxed);
        return Err(format!(
            "{left} clients have not ended {LIVENESS:?} after the healing\n{}",
            world.describe()
        ));
    }
    converge(world)?;
    // From here on everything must go well.
    world.count_rare(coverage::switch_off());
    serve_everywhere(world)?;
    match world.block_on(LIVENESS, workload.finish(access)) {
        Some(read) => read?,
        None => {
            return Err(format!(
                "the data could not be read within {LIVENESS:?}\n{}",
                world.describe()
            ));
        }
    }
    first(world.violations())?;
    workload.check(real_time_of(world.layout().seed))?;
    let (ok, _, _) = workload.ledger().counts();
    if ok < least {
        return Err(format!("only {ok} operations ended well: such a run proves nothing"));
    }
    Ok(())
}

/// After more damage than is promised to be survived: ranges may be gone, and nobody needs to converge. But clients were answered in the
/// end, if only that nothing can be done, and no answer was wrong.
fn settle_what_is_left(
    world: &mut World,
    workload: &Arc<dyn Workload>,
    left: &AtomicU32,
) -> Result<(), String> {
    let access = world.access().clone();
    access.stop();
    if !world.run_until(LIVENESS, |_| left.load(Ordering::Relaxed) == 0) {
        let left = left.load(Ordering::Relaxed);
        return Err(format!("{left} clients were not answered within {LIVENESS:?}"));
    }
    let read = world.block_on(LIVENESS, workload.finish(access));
    world.count(if matches!(read, Some(Ok(()))) {
        "clusters whole after too much damage"
    } else {
        "clusters not whole after too much damage"
    });
    first(world.violations())?;
    workload.check(real_time_of(world.layout().seed))
}

fn is_of_clocks(fault: &Fault) -> bool {
    matches!(fault, Fault::Step(..) | Fault::Drift(..))
}

pub(crate) fn first(violations: &[Violation]) -> Result<(), String> {
    violations.first().map_or(Ok(()), |violation| Err(violation.to_string()))
}

fn start_clients(
    workload: &Arc<dyn Workload>,
    access: &SharedAccess,
    seed: u64,
    count: u32,
) -> Arc<AtomicU32> {
    let mut chance = Chance::new(seed, Purpose::Workload);
    let left = Arc::new(AtomicU32::new(count));
    for client in 0..count {
        let work = workload.client(client, access.clone(), chance.split());
        let left = left.clone();
        access.spawn(Box::pin(async move {
            work.await;
            left.fetch_sub(1, Ordering::Relaxed);
        }));
    }
    left
}

/// Every range led, every replica equal.
pub(crate) fn converge(world: &mut World) -> Result<(), String> {
    let mut why = String::new();
    let converged = world.run_until(LIVENESS, |world| match world.check_converged() {
        Ok(()) => true,
        Err(reason) => {
            why = reason;
            false
        }
    });
    first(world.violations())?;
    if converged {
        return Ok(());
    }
    Err(format!("not converged {LIVENESS:?} after the healing: {why}\n{}", world.describe()))
}

/// A write succeeds through every gateway.
fn serve_everywhere(world: &mut World) -> Result<(), String> {
    for node in world.access().nodes() {
        match serve(world, node) {
            Some(Ok(())) => {}
            Some(Err(why)) => {
                return Err(format!("{node} does not serve a write after the healing: {why}"));
            }
            None => {
                return Err(format!(
                    "{node} does not answer {LIVENESS:?} after the healing\n{}",
                    world.describe()
                ));
            }
        }
    }
    Ok(())
}

/// Writes through a gateway. `None`: there was no answer within [`LIVENESS`].
pub(crate) fn serve(world: &mut World, node: NodeId) -> Option<Result<(), String>> {
    let access = world.access().clone();
    let hasty = is_hasty(world.layout());
    let served = world.block_on(LIVENESS, async move {
        let work = move |gateway: crate::world::access::Gateway| {
            async move {
                loop {
                    let run = gateway.db.run(TxnOptions::labelled("liveness"), |txn| {
                        async move { txn.put(Key::table(99), Bytes::from_static(b"alive")) }.boxed()
                    });
                    match run.await {
                        Err(TxnError::Unavailable { .. }) if hasty => {
                            let time = &gateway.db.runtime().time;
                            let pause = Duration::from_millis(200);
                            time.sleep_until(time.monotonic().plus(pause)).await;
                        }
                        outcome => return outcome,
                    }
                }
            }
            .boxed()
        };
        access.on_node(node, work).await
    });
    served.map(|served| match served {
        Ok(Ok(())) => Ok(()),
        other => Err(format!("{other:?}")),
    })
}

/// Whether a client may be refused after the healing, too, while ranges clear up: they have room for few at once, or its gateway gives up soon.
fn is_hasty(layout: &Layout) -> bool {
    layout.server.parked_max < 100
        || layout.store.raft.uncommitted_bytes_max < 1 << 10
        || layout.router.unavailable_after < Duration::from_secs(4)
}

fn draw_layout(options: Options, knobs: &mut Chance) -> Layout {
    let regions: Vec<String> = ["us-east", "eu-west", "ap-south"].map(String::from).to_vec();
    let millis = Duration::from_millis;
    let mut round_trips = BTreeMap::new();
    for pair in [(0, 1), (0, 2), (1, 2)] {
        round_trips.insert(pair, knobs.duration(millis(1), millis(80)));
    }
    let promise_duration = knobs.pick(&[millis(1000), millis(2000)]);
    let raft = RaftConfig {
        election_timeout: knobs.pick(&[millis(600), millis(1500)]),
        heartbeat_interval: knobs.pick(&[millis(150), millis(500)]),
        append_bytes_max: knobs.pick(&[1 << 10, 256 << 10]),
        ..RaftConfig::default()
    };
    let store = StoreConfig {
        raft,
        promise_duration,
        promise_interval: promise_duration / 4,
        log_bytes_max: knobs.pick(&[8 << 10, 64 << 10, 16 << 20]),
        snapshot_chunk_bytes: knobs.pick(&[1 << 10, 512 << 10]),
        ..StoreConfig::default()
    };
    let slow_disk = knobs.permille(300);
    let mut layout = Layout {
        seed: options.seed,
        regions,
        nodes: if knobs.permille(200) { 5 } else { 3 },
        round_trips,
        one_way: BTreeMap::new(),
        store,
        segment_bytes: knobs.pick(&[64 << 10, 256 << 10]),
        sync: (Duration::from_micros(80), if slow_disk { millis(15) } else { millis(2) }),
        sync_mode: if knobs.permille(700) { SyncMode::InPlace } else { SyncMode::Overlapped },
        flush_interval: knobs.pick(&[millis(300), millis(2000), millis(8000)]),
        call_timeout: knobs.pick(&[millis(1500), millis(8000)]),
        measured_kept: millis(5000),
        level: options.workload.level(),
        lag: Duration::ZERO,
        clog_max: CLOG_MAX,
        log_cache_bytes: 32 << 20,
        spares: 0,
        damage: Damage::Promised,
        // Drawn last: what was added later must not shift what was there before.
        server: draw_server(knobs),
        client: draw_client(knobs),
        router: RouterSettings::default(),
        sql: sql::EngineSettings::default(),
        rare: BTreeMap::new(),
        core: false,
        planted: options.planted,
    };
    draw_habits(knobs, options.workload, &mut layout);
    layout
}

/// What was added later.
fn draw_habits(knobs: &mut Chance, workload: Kind, layout: &mut Layout) {
    let millis = Duration::from_millis;
    if layout.nodes == 3 && knobs.permille(250) {
        layout.nodes = 4;
    }
    let store = &mut layout.store;
    if knobs.permille(200) {
        // One entry per append: commits fall between any two.
        store.raft.append_bytes_max = 1;
    }
    store.read_bound_slack = knobs.pick(&[millis(20), millis(150), millis(500)]);
    store.dead_after = knobs.pick(&[millis(4000), Duration::from_secs(300)]);
    store.stall_max = knobs.pick(&[millis(400), millis(1000)]);
    layout.log_cache_bytes = knobs.pick(&[0, 4 << 10, 32 << 20]);
    // A copy of an available table in a region of one node is on one disk.
    if layout.level == Level::Keys && knobs.permille(160) {
        layout.spares = 1;
        layout.store.dead_after = millis(4000);
    }
    if knobs.permille(200) {
        layout.store.promise_duration = millis(4000);
        layout.store.promise_interval = millis(1000);
    }
    if layout.sync_mode == SyncMode::Overlapped && knobs.permille(300) {
        // A disk behind a network.
        layout.sync.1 = millis(200);
    }
    layout.lag = knobs.pick(&[millis(0), millis(0), millis(40), millis(400)]);
    layout.measured_kept = knobs.pick(&[millis(1500), millis(2500), millis(5000)]);
    if workload.is_judged_by_history() && knobs.permille(60) {
        (layout.damage, layout.spares) = (Damage::Beyond, 2);
        layout.store.dead_after = millis(4000);
    }
    // Both at once make every transaction move above everybody's reads, and ask whether all of its table still holds there. Where
    // messages are slow as well hardly any commits, and such a run shows nothing.
    if layout.client.read_spans_bytes_max == SMALL_READ_SPANS {
        layout.server.tscache_cells_max = layout.server.tscache_cells_max.max(128);
    }
    match Ordeal::of(layout.seed, layout.level) {
        Some(ordeal) => ordeal.suit(layout),
        None => Raid::of(layout.seed).suit(layout),
    }
}

/// A transaction remembers two or three keys, and of more than that the span that they lie in.
const SMALL_READ_SPANS: usize = 64;

/// Limits that are reached only when they are small.
fn draw_server(knobs: &mut Chance) -> ServerConfig {
    ServerConfig {
        tscache_cells_max: knobs.pick(&[4, 128, 32_768]),
        place_kept: Duration::from_millis(knobs.pick(&[50, 1000])),
        lock_sweep_interval: Duration::from_secs(knobs.pick(&[2, 60])),
        ..ServerConfig::new(NodeId(0))
    }
}

/// The same for gateways.
fn draw_client(knobs: &mut Chance) -> Settings {
    Settings {
        spill_bytes: knobs.pick(&[16, 1 << 20]),
        read_spans_bytes_max: knobs.pick(&[SMALL_READ_SPANS, 4 << 20]),
        lock_spans_bytes_max: knobs.pick(&[64, 4 << 20]),
        scan_piece_bytes: knobs.pick(&[32, 1024, 4 << 20]),
        heartbeat_interval: Duration::from_millis(knobs.pick(&[400, 1000])),
        ..Settings::default()
    }
}
