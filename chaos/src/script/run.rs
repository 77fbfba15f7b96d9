//! Driver: a script in the simulated world.

use bytes::Bytes;
use futures::FutureExt;
use replication::range::{NodeId, RangeId};
use replication::store::StoreConfig;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use storage::Key;
use txn::client::{Settings, TxnOptions};
use txn::server::ServerConfig;

use super::parse::{Action, Assertion, Place, Planned, Script};
use crate::check::file::Operation;
use crate::episode::converge;
use crate::workload::{Kind, Workload};
use crate::world::access::{Gateway, Lost, SharedAccess};
use crate::world::chance::{Chance, Purpose};
use crate::world::fault::Fault;
use crate::world::tally::Tally;
use crate::world::{Layout, Level, SyncMode, World};

/// Clients of a script's workload.
const CLIENTS: u32 = 5;
/// A new cluster must serve by then.
const BOOT: Duration = Duration::from_secs(60);
/// A healed one must have ended everything by then.
const PATIENCE: Duration = Duration::from_secs(90);

/// How a line of the script went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Where it is written.
    pub place: Place,
    /// When, in the script's time.
    pub at: Duration,
    /// As it was written.
    pub text: String,
    /// What is wrong, if anything.
    pub verdict: Result<(), String>,
}

/// What came of a script.
#[derive(Clone, Debug)]
pub struct ScriptReport {
    /// Every line that does something, in order.
    pub outcomes: Vec<Outcome>,
    /// The workload's, and of what must hold always.
    pub verdict: Result<(), String>,
    /// Operations that ended well, badly, nobody knows how.
    pub operations: (usize, usize, usize),
    /// What clients did, of each workload whose history a file can hold.
    pub histories: Vec<(Kind, Vec<Operation>)>,
    /// What happened.
    pub tally: Tally,
    /// Hash of everything that happened.
    pub trace: u64,
}

impl ScriptReport {
    /// Whether everything held.
    pub fn is_good(&self) -> bool {
        self.verdict.is_ok() && self.outcomes.iter().all(|outcome| outcome.verdict.is_ok())
    }
}

impl fmt::Display for ScriptReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for outcome in &self.outcomes {
            let verdict = match &outcome.verdict {
                Ok(()) => "ok".to_string(),
                Err(why) => format!("FAILED: {why}"),
            };
            writeln!(f, "{:>8.1} s  {:<50} {verdict}", outcome.at.as_secs_f64(), outcome.text)?;
        }
        let (ok, failed, unknown) = self.operations;
        writeln!(f, "operations: {ok} ok, {failed} failed, {unknown} unknown")?;
        writeln!(f, "what happened: {}", self.tally)?;
        match &self.verdict {
            Ok(()) if self.is_good() => write!(f, "all held"),
            Ok(()) => write!(f, "FAILED: see above"),
            Err(why) => write!(f, "FAILED: {why}"),
        }
    }
}

/// Runs a script in the simulated world.
pub fn run_in_sim(script: &Script) -> ScriptReport {
    let mut world = World::new(layout(script));
    let workloads: Vec<Arc<dyn Workload>> =
        script.workloads.iter().map(|kind| kind.make()).collect();
    let mut outcomes = Vec::new();
    let verdict = play(script, &mut world, &workloads, &mut outcomes);
    let add =
        |a: (usize, usize, usize), b: (usize, usize, usize)| (a.0 + b.0, a.1 + b.1, a.2 + b.2);
    ScriptReport {
        outcomes,
        verdict,
        operations: workloads.iter().map(|workload| workload.counts()).fold((0, 0, 0), add),
        histories: script
            .workloads
            .iter()
            .zip(&workloads)
            .filter(|(kind, _)| kind.model().is_some())
            .map(|(kind, workload)| (*kind, workload.operations()))
            .collect(),
        tally: world.tally().clone(),
        trace: world.trace(),
    }
}

fn layout(script: &Script) -> Layout {
    let needs_sql = script.workloads.iter().any(|kind| kind.level() == Level::Sql);
    Layout {
        seed: script.seed,
        regions: script.regions.clone(),
        nodes: script.nodes,
        round_trips: script.round_trips.clone(),
        store: StoreConfig::default(),
        segment_bytes: 256 << 10,
        sync: (Duration::from_micros(80), Duration::from_millis(2)),
        sync_mode: SyncMode::InPlace,
        flush_interval: Duration::from_secs(2),
        call_timeout: Duration::from_secs(8),
        level: if needs_sql { Level::Sql } else { Level::Keys },
        server: ServerConfig::new(NodeId(0)),
        client: Settings::default(),
        planted: None,
    }
}

fn play(
    script: &Script,
    world: &mut World,
    workloads: &[Arc<dyn Workload>],
    outcomes: &mut Vec<Outcome>,
) -> Result<(), String> {
    let voters = if script.nodes >= 3 { 3 } else { 1 };
    if !world.run_until(BOOT, |world| world.voters_of(RangeId(1)) == voters) {
        return Err(format!("the cluster was not up within {BOOT:?}\n{}", world.describe()));
    }
    let access = world.access().clone();
    let left = Arc::new(AtomicU32::new(0));
    for workload in workloads {
        let prepared = world.block_on(BOOT, workload.prepare(access.clone()));
        prepared
            .ok_or_else(|| format!("{} was not prepared within {BOOT:?}", workload.name()))??;
    }
    start_clients(script.seed, workloads, &access, &left);
    let begun = world.now();
    for planned in &script.plan {
        advance_to(world, begun, planned.at);
        let verdict = carry_out(world, planned);
        let (place, at, text) = (planned.place, planned.at, planned.text.clone());
        outcomes.push(Outcome { place, at, text, verdict });
    }
    advance_to(world, begun, script.end);
    world.apply(Fault::Heal);
    access.stop();
    if !world.run_until(PATIENCE, |_| left.load(Ordering::Relaxed) == 0) {
        return Err(format!(
            "clients have not ended {PATIENCE:?} after the healing\n{}",
            world.describe()
        ));
    }
    converge(world)?;
    for workload in workloads {
        let read = world.block_on(PATIENCE, workload.finish(access.clone()));
        read.ok_or_else(|| format!("the data could not be read within {PATIENCE:?}"))??;
        workload.check(script.real_time())?;
    }
    world.violations().first().map_or(Ok(()), |violation| Err(violation.to_string()))
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

fn carry_out(world: &mut World, planned: &Planned) -> Result<(), String> {
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
        Action::Assert(Assertion::Converged(within)) => {
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
        Action::Assert(Assertion::Available(nodes, within)) => {
            nodes.iter().try_for_each(|node| await_available(world, *node, *within))
        }
        Action::Assert(Assertion::Unavailable(nodes, within)) => {
            nodes.iter().try_for_each(|node| await_refusal(world, *node, *within))
        }
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
            access.sleep(Duration::from_millis(50)).await;
        }
    });
    served.ok_or_else(|| format!("{node} did not serve within {within:?}: {}", last.lock()))
}

fn await_refusal(world: &mut World, node: NodeId, within: Duration) -> Result<(), String> {
    let access = world.access().clone();
    match world.block_on(within, probe(access, node)) {
        Some(Err(_)) => Ok(()),
        Some(Ok(())) => Err(format!("{node} served a write")),
        None => Err(format!("{node} gave no answer within {within:?}")),
    }
}
