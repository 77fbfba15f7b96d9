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

use super::parse::{Action, Assertion, Planned, Script};
use crate::check::RealTime;
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
/// Clocks farther apart than this void promises of real time, microseconds.
const SKEW_MAX_US: i64 = 125_000;

/// How a line of the script went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Which line.
    pub line: usize,
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
    let workload = script.workload.map(|kind| kind.make());
    let mut outcomes = Vec::new();
    let verdict = play(script, &mut world, workload.as_ref(), &mut outcomes);
    ScriptReport {
        outcomes,
        verdict,
        operations: workload.map_or((0, 0, 0), |workload| workload.counts()),
        tally: world.tally().clone(),
        trace: world.trace(),
    }
}

fn layout(script: &Script) -> Layout {
    Layout {
        seed: script.seed,
        regions: script.regions.clone(),
        nodes: script.nodes,
        round_trips: script.round_trips.clone(),
        store: StoreConfig::default(),
        segment_bytes: 256 << 10,
        log_cache_bytes: 32 << 20,
        spares: 0,
        sync: (Duration::from_micros(80), Duration::from_millis(2)),
        sync_mode: SyncMode::InPlace,
        flush_interval: Duration::from_secs(2),
        lag: Duration::ZERO,
        call_timeout: Duration::from_secs(8),
        level: script.workload.map_or(Level::Keys, Kind::level),
        server: ServerConfig::new(NodeId(0)),
        client: Settings::default(),
        planted: None,
    }
}

fn play(
    script: &Script,
    world: &mut World,
    workload: Option<&Arc<dyn Workload>>,
    outcomes: &mut Vec<Outcome>,
) -> Result<(), String> {
    let voters = if script.nodes >= 3 { 3 } else { 1 };
    if !world.run_until(BOOT, |world| world.voters_of(RangeId(1)) == voters) {
        return Err(format!("the cluster was not up within {BOOT:?}\n{}", world.describe()));
    }
    let access = world.access().clone();
    let left = Arc::new(AtomicU32::new(0));
    if let Some(workload) = workload {
        let prepared = world.block_on(BOOT, workload.prepare(access.clone()));
        prepared.ok_or_else(|| format!("the workload was not prepared within {BOOT:?}"))??;
        start_clients(script.seed, workload, &access, &left);
    }
    let begun = world.now();
    for planned in &script.plan {
        advance_to(world, begun, planned.at);
        let verdict = carry_out(world, planned);
        let (line, at, text) = (planned.line, planned.at, planned.text.clone());
        outcomes.push(Outcome { line, at, text, verdict });
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
    if let Some(workload) = workload {
        let read = world.block_on(PATIENCE, workload.finish(access));
        read.ok_or_else(|| format!("the data could not be read within {PATIENCE:?}"))??;
        workload.check(real_time_of(script))?;
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

fn real_time_of(script: &Script) -> RealTime {
    let far = |fault: &Fault| matches!(fault, Fault::Step(_, offset) if offset.abs() > SKEW_MAX_US);
    let beyond = script.plan.iter().any(|planned| match &planned.action {
        Action::Do(faults) => faults.iter().any(far),
        Action::Down(..) | Action::Assert(_) => false,
    });
    if beyond { RealTime::Waived } else { RealTime::Demanded }
}

fn start_clients(
    seed: u64,
    workload: &Arc<dyn Workload>,
    access: &SharedAccess,
    left: &Arc<AtomicU32>,
) {
    let mut chance = Chance::new(seed, Purpose::Workload);
    left.store(CLIENTS, Ordering::Relaxed);
    for client in 0..CLIENTS {
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
