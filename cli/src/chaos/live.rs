//! Driver: a fault script against real nodes: processes that it starts itself, or a running cluster that allows chaos.
//!
//! Cuts and skews are `CHAOS` statements, so they are made in the product's own transport and clock; kills and pauses are signals to
//! processes of ours. What only a simulated machine can do is refused, with its line, before anything starts. At the end everything is
//! healed, and the workload's own check decides.

use ::chaos::check::Level;
use ::chaos::check::file::Operation;
use ::chaos::script::{Action, Assertion, NodeId, Planned, Script};
use ::chaos::world::fault::Fault;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Played;
use crate::backend::{Answer, Backend};
use crate::processes::{Nodes, is_ready};
use crate::url::Url;
use crate::workload::load::{Hosts, Judged, Run, Until};
use crate::workload::report::{Kind, Report};
use crate::workload::{AnyLoad, Manner};

/// Faults end by themselves so long after the script at the latest, should nobody be left to end them.
const FAULT_GRACE: Duration = Duration::from_secs(30);
/// Pause between two tries of something that must come to be.
const TRY_PAUSE: Duration = Duration::from_millis(100);
/// A healed cluster answers by then.
const HEALED_WITHIN: Duration = Duration::from_secs(60);
/// One statement.
const STATEMENT_MAX: Duration = Duration::from_secs(20);
/// Between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Clients of each workload at each node. They stay there: what a region is served is seen by its own clients.
const CLIENTS_PER_NODE: u32 = 2;

/// Where a script is played.
pub(super) struct Live {
    /// SQL address of each node.
    pub(super) nodes: BTreeMap<NodeId, String>,
    /// The processes, if they are ours.
    pub(super) processes: Option<Nodes>,
}

/// A workload under way.
struct Loading {
    load: Arc<AnyLoad>,
    report: Arc<Report>,
    task: JoinHandle<Judged>,
}

/// The first thing in the script that cannot be done to real nodes.
pub(super) fn refuse(script: &Script, ours: bool) -> Result<(), String> {
    if let Some(kind) = script.workloads.iter().find(|kind| AnyLoad::of_script(**kind).is_none()) {
        return Err(format!(
            "{}: workload {} runs in the simulated world only; bank, sql-bank, register, append and counter run here",
            script.workloads_at,
            kind.name()
        ));
    }
    for planned in &script.plan {
        let no = |why: &str| Err(format!("{}: `{}`: {why}", planned.place, planned.text));
        let faults: &[Fault] = match &planned.action {
            Action::Do(faults) => faults,
            Action::Down(..) if !ours => {
                return no("a running cluster's processes can be restarted only (`restart`)");
            }
            Action::Down(..) | Action::Assert(_) => continue,
        };
        let one_way = matches!(faults, [Fault::Cut(..)]);
        if one_way {
            return no("real links are cut both ways only");
        }
        for fault in faults {
            match fault {
                Fault::Cut(..) | Fault::Step(..) | Fault::Crash(..) | Fault::Heal => {}
                Fault::Start(_) | Fault::Blackout | Fault::Pause(_) | Fault::Resume(_) if ours => {}
                Fault::Start(_) | Fault::Blackout | Fault::Pause(_) | Fault::Resume(_) => {
                    return no("this needs `--world processes`");
                }
                Fault::Join(..)
                | Fault::Clog(..)
                | Fault::Unclog(..)
                | Fault::Weather(_)
                | Fault::Fuse(..)
                | Fault::Stall(..)
                | Fault::SyncError(_)
                | Fault::WriteError(_)
                | Fault::Full(_)
                | Fault::Roomy(_)
                | Fault::Drift(..)
                | Fault::Flush(_)
                | Fault::HandOver(..)
                | Fault::Split(_) => return no("only the simulated world can do that"),
            }
        }
    }
    Ok(())
}

impl Live {
    /// Plays the script, telling each line as it ends. What the workloads recorded, and whether all held.
    pub(super) async fn play(&self, script: &Script) -> Played {
        let mut loaded = Vec::new();
        let done = self.try_play(script, &mut loaded).await;
        (loaded, done)
    }

    async fn try_play(
        &self,
        script: &Script,
        loaded: &mut Vec<(&'static str, Vec<Operation>)>,
    ) -> Result<(), String> {
        self.anywhere("CREATE TABLE IF NOT EXISTS chaos_probe (id int PRIMARY KEY, n bigint)")
            .await?;
        let hosts = self.nodes.values().cloned().collect::<Vec<String>>().join(",");
        let url = Url::parse(&format!("postgresql://root@{hosts}/meridian"))?;
        let hosts = Hosts::new(url, Manner::Stays);
        let mut loads = Vec::new();
        for kind in &script.workloads {
            let load = AnyLoad::of_script(*kind).expect("refused before the start");
            load.prepare(&hosts).await?;
            loads.push(load);
        }
        let until = Arc::new(Until::new(None));
        let begun = Instant::now();
        let loadings: Vec<Loading> =
            loads.into_iter().map(|load| start(load, script, &hosts, begun, &until)).collect();
        let mut failures = 0;
        for planned in &script.plan {
            wait_until(begun + planned.at, begun, &loadings).await;
            let verdict = match &planned.action {
                Action::Do(faults) => self.inject(script, planned, faults).await,
                Action::Down(nodes, _) => self.kill(nodes),
                Action::Assert(assertion) => self.check(assertion).await,
            };
            let told = match &verdict {
                Ok(()) => "ok".to_string(),
                Err(why) => format!("FAILED: {why}"),
            };
            failures += u32::from(verdict.is_err());
            println!("{:>8.1} s  {:<50} {told}", begun.elapsed().as_secs_f64(), planned.text);
        }
        wait_until(begun + script.end, begun, &loadings).await;
        let healed = self.heal().await;
        until.stop();
        for Loading { load, report, task } in loadings {
            let judged = task.await.map_err(|error| error.to_string())?;
            println!("\n{}\n{}", load.name(), report.text());
            match &judged.verdict {
                Ok(_) if report.total(Kind::Ok) == 0 => {
                    println!("FAILED: nothing was acknowledged: nothing was tested");
                    failures += 1;
                }
                Ok(holds) => println!("{holds}"),
                Err(why) => {
                    println!("FAILED: {why}");
                    failures += 1;
                }
            }
            loaded.push((load.name(), judged.operations));
        }
        healed?;
        match failures {
            0 => {
                println!("all held");
                Ok(())
            }
            count => Err(format!("{count} of the script's lines and workloads do not hold")),
        }
    }

    async fn inject(
        &self,
        script: &Script,
        planned: &Planned,
        faults: &[Fault],
    ) -> Result<(), String> {
        for (place, fault) in faults.iter().enumerate() {
            match fault {
                // The other half of a cut both ways.
                Fault::Cut(from, _)
                    if place > 0
                        && matches!(&faults[place - 1], Fault::Cut(_, to) if to == from) => {}
                Fault::Cut(from, to) => {
                    let left = script.end.saturating_sub(planned.at) + FAULT_GRACE;
                    let statement = format!(
                        "CHAOS PARTITION {} FROM {} FOR '{}ms'",
                        quoted(from),
                        quoted(to),
                        left.as_millis()
                    );
                    self.anywhere(&statement).await?;
                }
                Fault::Step(node, 0) => tracing::debug!(%node, "its skew has ended by itself"),
                Fault::Step(node, offset_us) => {
                    let lasts = until_next_step(script, planned, *node);
                    let statement = format!(
                        "CHAOS CLOCK '{node}' SKEW '{}ms' FOR '{}ms'",
                        offset_us / 1000,
                        lasts.as_millis().max(1)
                    );
                    self.anywhere(&statement).await?;
                }
                Fault::Crash(node, _) => match &self.processes {
                    None => drop(self.anywhere(&format!("CHAOS CRASH '{node}'")).await?),
                    Some(_) => {
                        self.kill(&[*node])?;
                        self.each(&[*node], Nodes::revive)?;
                    }
                },
                Fault::Start(node) => self.each(&[*node], Nodes::revive)?,
                Fault::Pause(node) => self.each(&[*node], |nodes, at| nodes.signal(at, "STOP"))?,
                Fault::Resume(node) => self.each(&[*node], |nodes, at| nodes.signal(at, "CONT"))?,
                Fault::Blackout => {
                    let all: Vec<NodeId> = self.nodes.keys().copied().collect();
                    self.kill(&all)?;
                    self.each(&all, Nodes::revive)?;
                }
                Fault::Heal => self.heal().await?,
                other => unreachable!("refused before the start: {other}"),
            }
        }
        Ok(())
    }

    /// Ends every fault, and waits until every node answers.
    async fn heal(&self) -> Result<(), String> {
        if let Some(processes) = &self.processes {
            for place in 0..processes.members.len() {
                processes.signal(place, "CONT")?;
                processes.revive(place)?;
            }
            let ready = || processes.members.iter().all(|member| is_ready(member.http));
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

    /// All at once.
    fn kill(&self, nodes: &[NodeId]) -> Result<(), String> {
        let places: Vec<usize> = nodes.iter().map(place_of).collect();
        self.processes.as_ref().expect("refused before the start").kill(&places)
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

    async fn check(&self, assertion: &Assertion) -> Result<(), String> {
        match assertion {
            Assertion::Available(nodes, within) => {
                for node in nodes {
                    self.until_it_writes(*node, *within).await?;
                }
                Ok(())
            }
            Assertion::Unavailable(nodes, within) => {
                for node in nodes {
                    match tokio::time::timeout(*within, self.probe(*node)).await {
                        Ok(Err(_)) => {}
                        Ok(Ok(())) => return Err(format!("a write through {node} succeeded")),
                        Err(_) => return Err(format!("{node} gave no answer within {within:?}")),
                    }
                }
                Ok(())
            }
            Assertion::Converged(within) => {
                let begun = Instant::now();
                for node in self.nodes.keys() {
                    let left = within.saturating_sub(begun.elapsed());
                    self.until_it_writes(*node, left).await?;
                }
                self.all_led(within.saturating_sub(begun.elapsed())).await
            }
        }
    }

    /// Every range has a leaseholder.
    async fn all_led(&self, within: Duration) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let ranges = self.anywhere("SHOW RANGES").await?;
            let place =
                |answer: &Answer| answer.columns.iter().position(|name| name == "leaseholder");
            let leaderless = ranges.iter().any(|answer| {
                place(answer).is_none_or(|place| {
                    answer.rows.iter().any(|row| row[place].as_deref().unwrap_or("").is_empty())
                })
            });
            if !leaderless {
                return Ok(());
            }
            if begun.elapsed() > within {
                return Err(format!("a range has no leaseholder after {within:?}"));
            }
            sleep(TRY_PAUSE).await;
        }
    }

    async fn until_it_writes(&self, node: NodeId, within: Duration) -> Result<(), String> {
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
        self.ask(&self.nodes[&node], &sql).await.map(|_| ())
    }

    /// Runs a statement at the first node that takes it.
    async fn anywhere(&self, sql: &str) -> Result<Vec<Answer>, String> {
        let mut last = "there is no node".to_string();
        for address in self.nodes.values() {
            match tokio::time::timeout(STATEMENT_MAX, self.ask(address, sql)).await {
                Ok(Ok(answers)) => return Ok(answers),
                Ok(Err(why)) => last = why,
                Err(_) => last = format!("{address} does not answer"),
            }
        }
        Err(format!("{sql}: {last}"))
    }

    async fn ask(&self, address: &str, sql: &str) -> Result<Vec<Answer>, String> {
        let url = Url::parse(&format!("postgresql://root@{address}/meridian"))?;
        let connected = Backend::connect(&url, "meridian chaos").await;
        let mut backend = connected.map_err(|error| error.to_string())?;
        backend.query(sql).await.map_err(|error| error.to_string())
    }
}

/// How long a skew lasts: until the script touches this clock again, heals, or ends.
fn until_next_step(script: &Script, planned: &Planned, node: NodeId) -> Duration {
    let touches = |fault: &Fault| matches!(fault, Fault::Step(other, _) if *other == node);
    let later = script.plan.iter().filter(|other| other.at > planned.at);
    let next = later
        .filter(|other| matches!(&other.action, Action::Do(faults) if faults.iter().any(touches)))
        .map(|other| other.at)
        .next();
    next.unwrap_or(script.end).saturating_sub(planned.at)
}

fn quoted(nodes: &[NodeId]) -> String {
    let distinct: BTreeSet<String> = nodes.iter().map(|node| format!("'{node}'")).collect();
    distinct.into_iter().collect::<Vec<String>>().join(", ")
}

fn start(
    load: AnyLoad,
    script: &Script,
    hosts: &Hosts,
    begun: Instant,
    until: &Arc<Until>,
) -> Loading {
    let (load, report) = (Arc::new(load), Report::new());
    let run = Run {
        hosts: hosts.clone(),
        clients: CLIENTS_PER_NODE * script.nodes,
        seed: script.seed,
        begun,
        until: until.clone(),
        level: Level::from(script.real_time()),
        report: report.clone(),
    };
    let playing = load.clone();
    #[allow(clippy::disallowed_methods)] // Beside the script, which may wait for a process.
    let task = tokio::spawn(async move { playing.play(&run).await });
    Loading { load, report, task }
}

/// Where a node of ours stands among the processes.
fn place_of(node: &NodeId) -> usize {
    usize::try_from(node.0 - 1).expect("a node's number is small")
}

async fn sleep(duration: Duration) {
    #[allow(clippy::disallowed_methods)] // Scripts on real nodes live in real time.
    tokio::time::sleep(duration).await;
}

/// Waits, telling every second what the workloads do.
async fn wait_until(end: Instant, begun: Instant, loadings: &[Loading]) {
    let totals = || loadings.iter().map(|loading| loading.report.total(Kind::Ok));
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
pub(super) fn start_processes(script: &Script, nodes: Nodes) -> Result<Nodes, String> {
    println!("Starting {} nodes in {} regions.", nodes.members.len(), script.regions.len());
    let stop = AtomicBool::new(false);
    let started = nodes.start(&stop).and_then(|()| {
        let all_ready = || nodes.members.iter().all(|member| is_ready(member.http));
        nodes.wait_until("a majority of the others", &stop, all_ready)
    });
    match started {
        Ok(()) => Ok(nodes),
        Err(why) => {
            nodes.stop();
            Err(why)
        }
    }
}
