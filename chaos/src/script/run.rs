//! Driver: a script in the simulated world.

use bytes::Bytes;
use futures::FutureExt;
use replication::range::{NodeId, RangeId};
use replication::store::StoreConfig;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use storage::Key;
use txn::client::{RouterSettings, Settings, TxnOptions};
use txn::server::ServerConfig;

use super::figures::acts;
use super::planned::{Action, Assertion, Planned, Script};
use super::report::{Loaded, Outcome, Played};
use crate::episode::converge;
use crate::history::Record;
use crate::workload::{Kind, Workload};
use crate::world::access::{Gateway, Lost, SharedAccess};
use crate::world::chance::{Chance, Purpose};
use crate::world::fault::Fault;
use crate::world::network::CLOG_MAX;
use crate::world::tally::Tally;
use crate::world::{Damage, Layout, Level, SyncMode, World, nanos};

/// Clients of a script's workload.
const CLIENTS: u32 = 5;
/// A new cluster must serve by then.
const BOOT: Duration = Duration::from_secs(60);
/// Between two looks at what is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// A healed one must have ended everything by then.
const PATIENCE: Duration = Duration::from_secs(90);

/// What came of a script in the simulated world.
#[derive(Clone, Debug)]
pub struct ScriptReport {
    /// As in any world; its time is the world's.
    pub played: Played,
    /// What happened.
    pub tally: Tally,
    /// Hash of everything that happened.
    pub trace: u64,
}

impl ScriptReport {
    /// Whether everything held.
    pub fn is_good(&self) -> bool {
        self.played.is_good()
    }

    /// What workloads did and what happened, for those who were told of each line.
    pub fn summary(&self) -> String {
        let loads = self.played.loads.iter().map(|load| format!("{load}\n")).collect::<String>();
        format!("{loads}what happened: {}", self.tally)
    }
}

impl fmt::Display for ScriptReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.played.outcomes.iter().try_for_each(|outcome| writeln!(f, "{outcome}"))?;
        writeln!(f, "{}", self.summary())?;
        match &self.played.verdict {
            Ok(()) if self.is_good() => write!(f, "all held"),
            Ok(()) => write!(f, "FAILED: see above"),
            Err(why) => write!(f, "FAILED: {why}"),
        }
    }
}

/// Runs a script in the simulated world.
pub fn run_in_sim(script: &Script) -> ScriptReport {
    run_in_sim_telling(script, &mut |_| ControlFlow::Continue(()))
}

/// The same, telling of each line as soon as it is done. After a break the script ends there: the world is healed, its workloads are judged.
pub fn run_in_sim_telling(
    script: &Script,
    tell: &mut dyn FnMut(&Outcome) -> ControlFlow<()>,
) -> ScriptReport {
    // What a world before this one has left on the thread is not this one's.
    coverage::take();
    let mut world = World::new(layout(script));
    let kinds = kinds(script);
    let workloads: Vec<Arc<dyn Workload>> = kinds.iter().map(|kind| kind.make()).collect();
    let mut run = Run { workloads, begun: 0, outcomes: Vec::new(), ended: Duration::ZERO };
    let verdict = run.play(script, &mut world, tell);
    let access = world.access();
    let loaded = |(kind, workload): (&Kind, &Arc<dyn Workload>)| {
        let judged = match &verdict {
            Ok(()) if workload.ledger().counts().0 == 0 => {
                Err("nothing has ended well: such a run proves nothing".to_string())
            }
            Ok(()) => workload.check(script.real_time()),
            Err(_) => Err("not judged: the world itself is wrong".to_string()),
        };
        let node_of = |record: &Record<(), ()>| access.asked_on(record.asked);
        Loaded {
            kind: *kind,
            verdict: judged.map(|()| format!("invariant holds: {}", workload.invariant())),
            acts: acts(&workload.ledger().ends(), run.begun, node_of),
            operations: if kind.model().is_some() { workload.operations() } else { Vec::new() },
        }
    };
    let loads = kinds.iter().zip(&run.workloads).map(loaded).collect();
    let Run { outcomes, ended: length, .. } = run;
    let mut tally = world.tally().clone();
    tally.take_marks();
    ScriptReport {
        played: Played { outcomes, loads, verdict, length },
        tally,
        trace: world.trace(),
    }
}

/// This world has all workloads.
fn kinds(script: &Script) -> &[Kind] {
    script.workloads_where(|_| true).expect("a script has a list of workloads")
}

fn layout(script: &Script) -> Layout {
    let needs_sql = kinds(script).iter().any(|kind| kind.level() == Level::Sql);
    Layout {
        seed: script.seed,
        regions: script.regions.clone(),
        nodes: script.nodes,
        round_trips: script.round_trips.clone(),
        one_way: BTreeMap::new(),
        store: StoreConfig::default(),
        segment_bytes: 256 << 10,
        log_cache_bytes: 32 << 20,
        spares: 0,
        damage: Damage::Promised,
        sync: (Duration::from_micros(80), Duration::from_millis(2)),
        sync_mode: SyncMode::InPlace,
        flush_interval: Duration::from_secs(2),
        lag: Duration::ZERO,
        clog_max: CLOG_MAX,
        call_timeout: Duration::from_secs(8),
        measured_kept: Duration::from_secs(5),
        level: if needs_sql { Level::Sql } else { Level::Keys },
        server: ServerConfig::new(NodeId(0)),
        client: Settings::default(),
        router: RouterSettings::default(),
        sql: sql::EngineSettings::default(),
        rare: BTreeMap::new(),
        core: false,
        planted: None,
    }
}

/// A script under way.
struct Run {
    workloads: Vec<Arc<dyn Workload>>,
    /// True time at which its own begins.
    begun: u64,
    outcomes: Vec<Outcome>,
    /// When clients had ended, in its time.
    ended: Duration,
}

impl Run {
    /// Plays it and reads everything at its end; workloads are not judged yet.
    fn play(
        &mut self,
        script: &Script,
        world: &mut World,
        tell: &mut dyn FnMut(&Outcome) -> ControlFlow<()>,
    ) -> Result<(), String> {
        let voters = if script.nodes >= 3 { 3 } else { 1 };
        if !world.run_until(BOOT, |world| world.voters_of(RangeId(1)) == voters) {
            return Err(format!("the cluster was not up within {BOOT:?}\n{}", world.describe()));
        }
        let access = world.access().clone();
        let left = Arc::new(AtomicU32::new(0));
        for workload in &self.workloads {
            let prepared = world.block_on(BOOT, workload.prepare(access.clone()));
            prepared
                .ok_or_else(|| format!("{} was not prepared within {BOOT:?}", workload.name()))??;
        }
        start_clients(script.seed, &self.workloads, &access, &left);
        self.begun = world.now();
        let mut broken = ControlFlow::Continue(());
        for planned in &script.plan {
            advance_to(world, self.begun, planned.at);
            let began = self.passed(world);
            let verdict = self.carry_out(world, planned);
            let (place, text) = (planned.place, planned.text.clone());
            let outcome = Outcome { place, began, ended: self.passed(world), text, verdict };
            broken = tell(&outcome);
            self.outcomes.push(outcome);
            if broken.is_break() {
                break;
            }
        }
        if broken.is_continue() {
            advance_to(world, self.begun, script.end);
        }
        world.apply(Fault::Heal);
        access.stop();
        let ended = world.run_until(PATIENCE, |_| left.load(Ordering::Relaxed) == 0);
        self.ended = self.passed(world);
        if !ended {
            return Err(format!(
                "clients have not ended {PATIENCE:?} after the healing\n{}",
                world.describe()
            ));
        }
        converge(world)?;
        for workload in &self.workloads {
            let read = world.block_on(PATIENCE, workload.finish(access.clone()));
            read.ok_or_else(|| format!("the data could not be read within {PATIENCE:?}"))??;
        }
        world.violations().first().map_or(Ok(()), |violation| Err(violation.to_string()))
    }

    fn passed(&self, world: &World) -> Duration {
        Duration::from_nanos(world.now() - self.begun)
    }
}

/// An assertion that took long is followed by what comes next at once.
fn advance_to(world: &mut World, begun: u64, at: Duration) {
    let passed = Duration::from_nanos(world.now() - begun);
    if let Some(rest) = at.checked_sub(passed) {
        world.run(rest);
    }
}

fn start_clients(
    seed: u64,
    workloads: &[Arc<dyn Workload>],
    access: &SharedAccess,
    left: &Arc<AtomicU32>,
) {
    let mut chance = Chance::new(seed, Purpose::Workload);
    for (workload, client) in workloads.iter().flat_map(|one| (0..CLIENTS).map(move |n| (one, n))) {
        left.fetch_add(1, Ordering::Relaxed);
        let (work, left) = (workload.client(client, access.clone(), chance.split()), left.clone());
        access.spawn(Box::pin(async move {
            work.await;
            left.fetch_sub(1, Ordering::Relaxed);
        }));
    }
}

impl Run {
    fn carry_out(&self, world: &mut World, planned: &Planned) -> Result<(), String> {
        if let Some(condition) = &planned.when {
            self.await_condition(world, condition)
                .map_err(|why| format!("not done, what it waits for did not come: {why}"))?;
        }
        match &planned.action {
            Action::Do(faults) => {
                faults.iter().for_each(|fault| world.apply(fault.clone()));
                Ok(())
            }
            Action::Down(nodes, power) => {
                for node in nodes {
                    world.leave_down(*node);
                    world.apply(Fault::Crash(*node, *power));
                }
                Ok(())
            }
            Action::Assert(Assertion::Unavailable(nodes, within)) => {
                nodes.iter().try_for_each(|node| await_refusal(world, *node, *within))
            }
            Action::Assert(assertion) => self.await_condition(world, assertion),
        }
    }

    fn await_condition(&self, world: &mut World, condition: &Assertion) -> Result<(), String> {
        match condition {
            Assertion::Converged(within) => {
                let mut why = String::new();
                let converged = world.run_until(*within, |world| match world.check_converged() {
                    Ok(()) => true,
                    Err(reason) => {
                        why = reason;
                        false
                    }
                });
                if converged { Ok(()) } else { Err(format!("not within {within:?}: {why}")) }
            }
            Assertion::Available(nodes, within) => {
                nodes.iter().try_for_each(|node| await_available(world, *node, *within))
            }
            Assertion::Unavailable(nodes, within) => {
                nodes.iter().try_for_each(|node| await_unavailable(world, *node, *within))
            }
            Assertion::Progress(count, within) => {
                let (begun, end) = (self.acknowledged(), world.now() + nanos(*within));
                while self.acknowledged() < begun + count {
                    if world.now() >= end {
                        let made = self.acknowledged() - begun;
                        return Err(format!("{made} operations of {count} within {within:?}"));
                    }
                    world.run(LOOK_INTERVAL);
                }
                Ok(())
            }
            Assertion::Invariant => {
                world.violations().first().map_or(Ok(()), |violation| Err(violation.to_string()))
            }
        }
    }

    fn acknowledged(&self) -> usize {
        self.workloads.iter().map(|workload| workload.ledger().counts().0).sum()
    }
}

/// What a client of `node` is told when it writes.
async fn probe(access: SharedAccess, node: NodeId) -> Result<(), String> {
    let work = |gateway: Gateway| {
        async move {
            let run = gateway.db.run(TxnOptions::labelled("probe"), |txn| {
                async move { txn.put(Key::table(98), Bytes::from_static(b"probe")) }.boxed()
            });
            run.await
        }
        .boxed()
    };
    match access.on_node(node, work).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(Lost::NotRunning) => Err("nobody listens".to_string()),
        Err(Lost::Died) => Err("the connection was lost".to_string()),
    }
}

fn await_available(world: &mut World, node: NodeId, within: Duration) -> Result<(), String> {
    let access = world.access().clone();
    let last = Arc::new(parking_lot::Mutex::new("no answer".to_string()));
    let told = last.clone();
    let served = world.block_on(within, async move {
        while let Err(why) = probe(access.clone(), node).await {
            *told.lock() = why;
            access.sleep(LOOK_INTERVAL).await;
        }
    });
    served.ok_or_else(|| format!("{node} did not serve within {within:?}: {}", last.lock()))
}

/// Asks until it is refused.
fn await_unavailable(world: &mut World, node: NodeId, within: Duration) -> Result<(), String> {
    let access = world.access().clone();
    let refused = world.block_on(within, async move {
        while probe(access.clone(), node).await.is_ok() {
            access.sleep(LOOK_INTERVAL).await;
        }
    });
    refused.ok_or_else(|| format!("{node} still served after {within:?}"))
}

fn await_refusal(world: &mut World, node: NodeId, within: Duration) -> Result<(), String> {
    let access = world.access().clone();
    match world.block_on(within, probe(access, node)) {
        Some(Err(_)) => Ok(()),
        Some(Ok(())) => Err(format!("{node} served a write")),
        None => Err(format!("{node} gave no answer within {within:?}")),
    }
}
