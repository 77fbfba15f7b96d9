//! Driver: a fault script against real nodes: processes that it starts itself, or a running cluster that allows chaos.
//!
//! Cuts, delays, losses and wrong clocks are `CHAOS` statements, so they are made in the product's own transport and clock; kills and pauses are signals to
//! processes of ours. What only a simulated machine can do is refused, with its line, before anything starts (`refusal`). At the end, or
//! when a signal ends it early, everything is healed, and the workload's own check decides.

use ::chaos::check::Level;
use ::chaos::script::{Action, Assertion, Loaded, NodeId, Outcome, Planned, Played, Script, acts};
use ::chaos::workload::Kind as Workload;
use ::chaos::world::fault::Fault;
use node::faults::FAULT_DURATION_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::interrupt::Interrupt;
use super::own::DATABASE;
use super::refusal::workloads;
use crate::backend::{Answer, Backend};
use crate::processes::{Nodes, is_ready};
use crate::url::Url;
use crate::workload::load::{Hosts, Judged, Run, Until};
use crate::workload::report::{Kind, Report};
use crate::workload::{AnyLoad, Manner};

/// Faults end by themselves so long after the script at the latest, should nobody be left to end them.
const FAULT_GRACE: Duration = Duration::from_secs(120);
/// On a clogged link messages are late by up to so much, as in the simulated world.
const CLOG_MAX: Duration = Duration::from_millis(1500);
/// Pause between two tries of something that must come to be.
pub(super) const TRY_PAUSE: Duration = Duration::from_millis(100);
/// A healed cluster answers by then.
const HEALED_WITHIN: Duration = Duration::from_secs(60);
/// Ranges whose replicas have not changed for so long stay where they are.
const SETTLED_FOR: Duration = Duration::from_secs(3);
/// They do by then.
const SETTLED_WITHIN: Duration = Duration::from_secs(90);
/// One statement.
const STATEMENT_MAX: Duration = Duration::from_secs(20);
/// Between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// The database that every cluster has.
const FIRST_DATABASE: &str = "meridian";
/// Clients of each workload at each node. They stay there: what a region is served is seen by its own clients.
const CLIENTS_PER_NODE: u32 = 2;

/// Where a script is played.
pub(super) struct Live {
    /// SQL address of each node.
    pub(super) nodes: BTreeMap<NodeId, String>,
    /// The processes, if they are ours.
    pub(super) processes: Option<Nodes>,
    /// Nodes that cannot answer, because of us.
    pub(super) away: Mutex<BTreeSet<NodeId>>,
    /// Who runs statements, those of chaos among them.
    pub(super) user: String,
    /// The next number to be written into copies that are compared.
    pub(super) marks: AtomicU64,
    /// Ends the script early.
    pub(super) interrupt: Interrupt,
    /// Who is told what happens.
    pub(super) tell: fn(&str),
}

/// A workload under way.
pub(super) struct Loading {
    kind: Workload,
    /// What its clients do.
    pub(super) load: Arc<AnyLoad>,
    /// Who they are.
    pub(super) run: Arc<Run>,
    task: JoinHandle<Judged>,
}

impl Live {
    /// Plays the script, telling each line as it ends. After a signal it ends where it is, and what was seen until then is judged. The
    /// error: it could not be played at all.
    pub(super) async fn play(&self, script: &Script) -> Result<Played, String> {
        self.make_own().await?;
        let mut played = self.play_in_own(script).await;
        // Processes of ours take it with them.
        if self.processes.is_none() {
            let removed = self.remove_own().await;
            match &mut played {
                Ok(played) => played.verdict = played.verdict.clone().and(removed),
                Err(_) => removed?,
            }
        }
        played
    }

    async fn play_in_own(&self, script: &Script) -> Result<Played, String> {
        let early = || "it was interrupted before it began".to_string();
        let hosts = self.nodes.values().cloned().collect::<Vec<String>>().join(",");
        let url = Url::parse(&format!("postgresql://{}@{hosts}/{DATABASE}", self.user))?;
        let hosts = Hosts::new(url, Manner::Stays);
        let loads =
            self.interrupt.unless(self.prepare(script, &hosts)).await.ok_or_else(early)??;
        let until = Arc::new(Until::new(None));
        let begun = Instant::now();
        let loadings: Vec<Loading> = loads
            .into_iter()
            .map(|(kind, load)| start(kind, load, script, &hosts, begun, &until))
            .collect();
        let mut outcomes = Vec::new();
        let lines = self.play_lines(script, begun, &loadings, &mut outcomes);
        if self.interrupt.unless(lines).await.is_none() {
            let at = begun.elapsed().as_secs_f64();
            (self.tell)(&format!("{at:>8.1} s  interrupted: healing, and judging what was seen"));
        }
        let healed = self.interrupt.unless_again(self.heal()).await;
        let verdict = healed.unwrap_or_else(|| Err("interrupted while healing".to_string()));
        until.stop();
        let length = begun.elapsed();
        let mut loaded = Vec::new();
        for loading in loadings {
            let report = loading.run.report.clone();
            let load = self.judged(script, loading).await?;
            (self.tell)(&format!("\n{load}\n{}", report.text().trim_end()));
            loaded.push(load);
        }
        Ok(Played { outcomes, loads: loaded, verdict, length })
    }

    /// Makes the workloads' tables, and waits until their ranges are where they stay.
    async fn prepare(
        &self,
        script: &Script,
        hosts: &Hosts,
    ) -> Result<Vec<(Workload, AnyLoad)>, String> {
        let kinds = workloads(script)?;
        if kinds != script.workloads[0] {
            let name = |kinds: &[Workload]| {
                kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
            };
            let (here, there) = (name(kinds), name(&script.workloads[0]));
            (self.tell)(&format!("workload {here}, as {there} is the simulated world's"));
        }
        let mut loads = Vec::new();
        for kind in kinds {
            let load = AnyLoad::of_script(*kind).expect("it runs here");
            load.prepare(hosts).await?;
            loads.push((*kind, load));
        }
        self.settle().await?;
        Ok(loads)
    }

    async fn play_lines(
        &self,
        script: &Script,
        begun: Instant,
        loadings: &[Loading],
        outcomes: &mut Vec<Outcome>,
    ) {
        for planned in &script.plan {
            wait_until(begun + planned.at, begun, loadings).await;
            let began = begun.elapsed();
            let verdict = self.carry_out(script, planned, loadings).await;
            let (place, text, ended) = (planned.place, planned.text.clone(), begun.elapsed());
            let outcome = Outcome { place, began, ended, text, verdict };
            (self.tell)(&outcome.to_string());
            outcomes.push(outcome);
        }
        wait_until(begun + script.end, begun, loadings).await;
    }

    /// Waits for a workload's end and its judge.
    async fn judged(&self, script: &Script, loading: Loading) -> Result<Loaded, String> {
        let Loading { kind, run, task, .. } = loading;
        let Some(ended) = self.interrupt.unless_again(task).await else {
            let verdict = Err("not judged: interrupted once more".to_string());
            return Ok(Loaded { kind, verdict, acts: Vec::new(), operations: Vec::new() });
        };
        let judged = ended.map_err(|error| error.to_string())?;
        let nothing = "nothing was acknowledged: nothing was tested";
        let verdict = match judged.verdict {
            Ok(_) if run.report.total(Kind::Ok) == 0 => Err(nothing.to_string()),
            verdict => verdict,
        };
        let acts = acts(judged.operations.iter().map(|operation| &operation.record), 0, |record| {
            (record.client < run.clients).then(|| NodeId(record.client % script.nodes + 1))
        });
        Ok(Loaded { kind, verdict, acts, operations: judged.operations })
    }

    /// Waits until no range gets or loses a replica any more: before, a young cluster survives less than a script may ask of it.
    async fn settle(&self) -> Result<(), String> {
        let (begun, mut changed, mut last) = (Instant::now(), Instant::now(), None);
        while changed.elapsed() < SETTLED_FOR {
            if begun.elapsed() > SETTLED_WITHIN {
                return Err(format!("ranges still move after {SETTLED_WITHIN:?}"));
            }
            let now = Some(self.anywhere("SHOW RANGES").await?);
            if now != last {
                (changed, last) = (Instant::now(), now);
            }
            sleep(TRY_PAUSE).await;
        }
        Ok(())
    }

    async fn carry_out(
        &self,
        script: &Script,
        planned: &Planned,
        loadings: &[Loading],
    ) -> Result<(), String> {
        if let Some(condition) = &planned.when {
            self.await_condition(condition, loadings)
                .await
                .map_err(|why| format!("not done, what it waits for did not come: {why}"))?;
        }
        match &planned.action {
            Action::Do(faults) => self.inject(script, planned, faults).await,
            Action::Down(nodes, _) => self.kill(nodes),
            Action::Assert(Assertion::Unavailable(nodes, within)) => {
                for node in nodes {
                    self.is_refused(*node, *within).await?;
                }
                Ok(())
            }
            Action::Assert(assertion) => self.await_condition(assertion, loadings).await,
        }
    }

    async fn inject(
        &self,
        script: &Script,
        planned: &Planned,
        faults: &[Fault],
    ) -> Result<(), String> {
        let left = script.end.saturating_sub(planned.at) + FAULT_GRACE;
        let left = left.min(FAULT_DURATION_MAX);
        for (place, fault) in faults.iter().enumerate() {
            let other_half = |half: &Fault| match (half, fault) {
                (Fault::Cut(a, b), Fault::Cut(c, d)) | (Fault::Join(a, b), Fault::Join(c, d)) => {
                    a == d && b == c
                }
                _ => false,
            };
            if place > 0 && other_half(&faults[place - 1]) {
                continue;
            }
            let both_ways = faults.get(place + 1).is_some_and(other_half);
            if let Some(statement) = self.statement(fault, both_ways, left) {
                self.anywhere(&statement).await?;
                continue;
            }
            match fault {
                Fault::Crash(node, _) => match &self.processes {
                    None => drop(self.anywhere(&format!("CHAOS CRASH '{node}'")).await?),
                    Some(_) => {
                        self.kill(&[*node])?;
                        self.revive(&[*node])?;
                    }
                },
                Fault::Start(node) => self.revive(&[*node])?,
                Fault::Pause(node) => {
                    self.away().insert(*node);
                    self.each(&[*node], |nodes, at| nodes.signal(at, "STOP"))?;
                }
                Fault::Resume(node) => {
                    self.away().remove(node);
                    self.each(&[*node], |nodes, at| nodes.signal(at, "CONT"))?;
                }
                Fault::Blackout => {
                    let all: Vec<NodeId> = self.nodes.keys().copied().collect();
                    self.kill(&all)?;
                    self.revive(&all)?;
                }
                Fault::Heal => self.heal().await?,
                other => unreachable!("refused before the start: {other}"),
            }
        }
        Ok(())
    }

    /// The statement that makes a fault, or ends one, in the product's own transport and clock. A fault replaces its like, so that one
    /// which is over at once ends it.
    fn statement(&self, fault: &Fault, both_ways: bool, left: Duration) -> Option<String> {
        let (what, lasts) = match fault {
            Fault::Cut(from, to) | Fault::Join(from, to) => {
                let (from, to) = (quoted(from), quoted(to));
                let what = if both_ways {
                    format!("PARTITION {from} FROM {to}")
                } else {
                    format!("CUT {from} TO {to}")
                };
                (what, matches!(fault, Fault::Cut(..)))
            }
            Fault::Clog(from, to) | Fault::Unclog(from, to) => {
                let jitter = CLOG_MAX.as_millis();
                let what = format!("LATENCY '{from}' TO '{to}' ADD '0ms' JITTER '{jitter}ms'");
                (what, matches!(fault, Fault::Clog(..)))
            }
            Fault::Weather(weather) => {
                let all: Vec<NodeId> = self.nodes.keys().copied().collect();
                let (all, loss) = (quoted(&all), weather.loss_permille);
                (format!("LOSS {all} TO {all} PERMILLE {loss}"), loss > 0)
            }
            Fault::Step(node, offset_us) => {
                (format!("CLOCK '{node}' SKEW '{offset_us}us'"), *offset_us != 0)
            }
            Fault::Drift(node, _, ppm) => (format!("CLOCK '{node}' DRIFT '{ppm}ppm'"), *ppm != 0),
            _ => return None,
        };
        let lasts_ms = if lasts { left.as_millis() } else { 1 };
        Some(format!("CHAOS {what} FOR '{lasts_ms}ms'"))
    }

    /// Ends every fault, and waits until every node answers.
    async fn heal(&self) -> Result<(), String> {
        if let Some(processes) = &self.processes {
            for place in 0..processes.members.len() {
                processes.signal(place, "CONT")?;
                processes.revive(place)?;
            }
            self.away().clear();
            let ready = || processes.members.iter().all(|member| is_ready(member.http, None));
            let begun = Instant::now();
            while !ready() {
                if begun.elapsed() > HEALED_WITHIN {
                    return Err(format!(
                        "not every node serves {HEALED_WITHIN:?} after the healing"
                    ));
                }
                sleep(TRY_PAUSE).await;
            }
        }
        self.anywhere("CHAOS HEAL").await.map(|_| ())
    }

    /// All at once; they stay down.
    fn kill(&self, nodes: &[NodeId]) -> Result<(), String> {
        self.away().extend(nodes);
        let places: Vec<usize> = nodes.iter().map(place_of).collect();
        self.processes.as_ref().expect("refused before the start").kill(&places)
    }

    fn revive(&self, nodes: &[NodeId]) -> Result<(), String> {
        self.away().retain(|node| !nodes.contains(node));
        self.each(nodes, Nodes::revive)
    }

    /// Nodes that cannot answer, because of us.
    fn away(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.away.lock().expect("nobody panics while holding the list")
    }

    fn each(
        &self,
        nodes: &[NodeId],
        act: impl Fn(&Nodes, usize) -> Result<(), String>,
    ) -> Result<(), String> {
        let processes = self.processes.as_ref().expect("refused before the start");
        for node in nodes {
            act(processes, place_of(node))?;
        }
        Ok(())
    }

    async fn await_condition(
        &self,
        condition: &Assertion,
        loadings: &[Loading],
    ) -> Result<(), String> {
        let begun = Instant::now();
        match condition {
            Assertion::Available(nodes, within) => {
                for node in nodes {
                    self.until_it_writes(*node, *within).await?;
                }
                Ok(())
            }
            Assertion::Unavailable(nodes, within) => {
                for node in nodes {
                    while self.is_refused(*node, *within).await.is_err() {
                        if begun.elapsed() > *within {
                            return Err(format!("{node} still served after {within:?}"));
                        }
                        sleep(TRY_PAUSE).await;
                    }
                }
                Ok(())
            }
            Assertion::Converged(within) => self.converges(*within, loadings).await,
            Assertion::Progress(count, within) => {
                let total =
                    || loadings.iter().map(|one| one.run.report.total(Kind::Ok)).sum::<u64>();
                let before = total();
                while total() < before + *count as u64 {
                    if begun.elapsed() > *within {
                        let made = total() - before;
                        return Err(format!("{made} operations of {count} within {within:?}"));
                    }
                    sleep(TRY_PAUSE).await;
                }
                Ok(())
            }
            Assertion::Invariant => {
                for Loading { load, run, .. } in loadings {
                    let judged = load.judge_early(run).await;
                    judged.map_err(|why| format!("VIOLATED: {}: {why}", load.name()))?;
                }
                Ok(())
            }
        }
    }

    /// A write through this node fails, with an answer, in time.
    async fn is_refused(&self, node: NodeId, within: Duration) -> Result<(), String> {
        match tokio::time::timeout(within, self.probe(node)).await {
            Ok(Err(_)) => Ok(()),
            Ok(Ok(())) => Err(format!("a write through {node} succeeded")),
            Err(_) => Err(format!("{node} gave no answer within {within:?}")),
        }
    }

    /// A write through this node succeeds in time.
    pub(super) async fn until_it_writes(
        &self,
        node: NodeId,
        within: Duration,
    ) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let left = within.saturating_sub(begun.elapsed()).max(TRY_PAUSE);
            let answer = tokio::time::timeout(left, self.probe(node))
                .await
                .unwrap_or_else(|_| Err("no answer".to_string()));
            let Err(why) = answer else { return Ok(()) };
            if begun.elapsed() >= within {
                return Err(format!("{node}: {why}"));
            }
            sleep(TRY_PAUSE).await;
        }
    }

    /// A write through this node.
    async fn probe(&self, node: NodeId) -> Result<(), String> {
        let sql = format!(
            "INSERT INTO chaos_probe VALUES ({}, 1) ON CONFLICT (id) DO UPDATE SET n = chaos_probe.n + 1",
            node.0
        );
        self.ask_own(node, &sql).await.map(|_| ())
    }

    /// Runs a statement at the first node that takes it.
    pub(super) async fn anywhere(&self, sql: &str) -> Result<Vec<Answer>, String> {
        let mut last = "there is no node".to_string();
        let away = self.away().clone();
        for (_, address) in self.nodes.iter().filter(|(node, _)| !away.contains(node)) {
            let asked = self.ask(address, FIRST_DATABASE, sql);
            match tokio::time::timeout(STATEMENT_MAX, asked).await {
                Ok(Ok(answers)) => return Ok(answers),
                Ok(Err(why)) => last = why,
                Err(_) => last = format!("{address} does not answer"),
            }
        }
        Err(format!("{sql}: {last}"))
    }

    /// Runs a statement in the script's own database, through this node.
    pub(super) async fn ask_own(&self, node: NodeId, sql: &str) -> Result<Vec<Answer>, String> {
        self.ask(&self.nodes[&node], DATABASE, sql).await
    }

    async fn ask(&self, address: &str, database: &str, sql: &str) -> Result<Vec<Answer>, String> {
        let url = Url::parse(&format!("postgresql://{}@{address}/{database}", self.user))?;
        let connected = Backend::connect(&url, "meridian chaos").await;
        let mut backend = connected.map_err(|error| error.to_string())?;
        backend.query(sql).await.map_err(|error| error.to_string())
    }
}

fn quoted(nodes: &[NodeId]) -> String {
    let distinct: BTreeSet<String> = nodes.iter().map(|node| format!("'{node}'")).collect();
    distinct.into_iter().collect::<Vec<String>>().join(", ")
}

fn start(
    kind: Workload,
    load: AnyLoad,
    script: &Script,
    hosts: &Hosts,
    begun: Instant,
    until: &Arc<Until>,
) -> Loading {
    let load = Arc::new(load);
    let run = Arc::new(Run {
        hosts: hosts.clone(),
        clients: CLIENTS_PER_NODE * script.nodes,
        seed: script.seed,
        begun,
        until: until.clone(),
        level: Level::from(script.real_time()),
        report: Report::new(),
        held: AtomicBool::new(false),
    });
    let (playing, their) = (load.clone(), run.clone());
    #[allow(clippy::disallowed_methods)] // Beside the script, which may wait for a process.
    let task = tokio::spawn(async move { playing.play(&their).await });
    Loading { kind, load, run, task }
}

/// Where a node of ours stands among the processes.
fn place_of(node: &NodeId) -> usize {
    usize::try_from(node.0 - 1).expect("a node's number is small")
}

pub(super) async fn sleep(duration: Duration) {
    #[allow(clippy::disallowed_methods)] // Scripts on real nodes live in real time.
    tokio::time::sleep(duration).await;
}

/// Waits, telling every second what the workloads do.
async fn wait_until(end: Instant, begun: Instant, loadings: &[Loading]) {
    let totals = || loadings.iter().map(|loading| loading.run.report.total(Kind::Ok));
    let mut before: Vec<u64> = totals().collect();
    while Instant::now() < end {
        sleep((end - Instant::now()).min(PROGRESS_INTERVAL)).await;
        let now: Vec<u64> = totals().collect();
        let rates = loadings.iter().zip(now.iter().zip(&before));
        let rates =
            rates.map(|(one, (now, before))| format!("{} +{}", one.load.name(), now - before));
        let told = rates.collect::<Vec<String>>().join("   ");
        eprintln!("{:>8.1} s  acknowledged: {told}", begun.elapsed().as_secs_f64());
        before = now;
    }
}

/// Processes for a script, started and serving.
pub(super) fn start_processes(nodes: Nodes, stop: &AtomicBool) -> Result<Nodes, String> {
    let started = nodes.start(stop).and_then(|()| {
        let among = Some(nodes.members.len());
        let all_ready = || nodes.members.iter().all(|member| is_ready(member.http, among));
        nodes.wait_until("a majority of the others", stop, all_ready)
    });
    match started {
        Ok(()) => Ok(nodes),
        Err(why) => {
            nodes.stop();
            Err(why)
        }
    }
}
