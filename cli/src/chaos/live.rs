//! Driver: a fault script against real nodes: processes that it starts itself, or a running cluster that allows chaos.
//!
//! Cuts, delays, losses and wrong clocks are `CHAOS` statements, so they are made in the product's own transport and clock; kills and pauses are signals to
//! processes of ours. What only a simulated machine can do is refused, with its line, before anything starts. At the end everything is
//! healed, and the workload's own check decides.

use ::chaos::check::Level;
use ::chaos::script::{Action, Assertion, Loaded, NodeId, Outcome, Planned, Played, Script, acts};
use ::chaos::workload::Kind as Workload;
use ::chaos::world::fault::Fault;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

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
const TRY_PAUSE: Duration = Duration::from_millis(100);
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
    /// Who is told what happens.
    pub(super) tell: fn(&str),
}

/// A workload under way.
struct Loading {
    kind: Workload,
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
        for fault in faults {
            match fault {
                Fault::Cut(..)
                | Fault::Join(..)
                | Fault::Clog(..)
                | Fault::Unclog(..)
                | Fault::Step(..)
                | Fault::Drift(_, 0, _)
                | Fault::Crash(..)
                | Fault::Heal => {}
                Fault::Weather(weather)
                    if weather.duplicate_permille == 0 && weather.reorder_permille == 0 => {}
                Fault::Weather(_) => {
                    return no(
                        "a real stream loses messages, and neither doubles nor reorders them",
                    );
                }
                Fault::Start(_) | Fault::Blackout | Fault::Pause(_) | Fault::Resume(_) if ours => {}
                Fault::Start(_) | Fault::Blackout | Fault::Pause(_) | Fault::Resume(_) => {
                    return no("this needs `--world processes`");
                }
                Fault::Fuse(..)
                | Fault::Stall(..)
                | Fault::SyncError(_)
                | Fault::WriteError(_)
                | Fault::Full(_)
                | Fault::Roomy(_)
                | Fault::Drift(..)
                | Fault::Flush(_)
                | Fault::HandOver(..)
                | Fault::Collect(..)
                | Fault::Split(_)
                | Fault::Throttle(..)
                | Fault::Slow(..)
                | Fault::ReadError(_)
                | Fault::Drain(_)
                | Fault::Rot(_)
                | Fault::RotState(_)
                | Fault::CutRegion(_)
                | Fault::JoinRegion(_)
                | Fault::Replace(_)
                | Fault::Undrain(_)
                | Fault::Straying(_)
                | Fault::Ambush(..) => return no("only the simulated world can do that"),
            }
        }
    }
    Ok(())
}

impl Live {
    /// Plays the script, telling each line as it ends. The error: it could not be played at all.
    pub(super) async fn play(&self, script: &Script) -> Result<Played, String> {
        self.anywhere("CREATE TABLE IF NOT EXISTS chaos_probe (id int PRIMARY KEY, n bigint)")
            .await?;
        let hosts = self.nodes.values().cloned().collect::<Vec<String>>().join(",");
        let url = Url::parse(&format!("postgresql://root@{hosts}/meridian"))?;
        let hosts = Hosts::new(url, Manner::Stays);
        let mut loads = Vec::new();
        for kind in &script.workloads {
            let load = AnyLoad::of_script(*kind).expect("refused before the start");
            load.prepare(&hosts).await?;
            loads.push((*kind, load));
        }
        self.settle().await?;
        let until = Arc::new(Until::new(None));
        let begun = Instant::now();
        let loadings: Vec<Loading> = loads
            .into_iter()
            .map(|(kind, load)| start(kind, load, script, &hosts, begun, &until))
            .collect();
        let mut outcomes = Vec::new();
        for planned in &script.plan {
            wait_until(begun + planned.at, begun, &loadings).await;
            let began = begun.elapsed();
            let verdict = self.carry_out(script, planned, &loadings).await;
            let (place, text, ended) = (planned.place, planned.text.clone(), begun.elapsed());
            let outcome = Outcome { place, began, ended, text, verdict };
            (self.tell)(&outcome.to_string());
            outcomes.push(outcome);
        }
        wait_until(begun + script.end, begun, &loadings).await;
        let verdict = self.heal().await;
        until.stop();
        let (mut loaded, length) = (Vec::new(), begun.elapsed());
        for Loading { kind, report, task, .. } in loadings {
            let judged = task.await.map_err(|error| error.to_string())?;
            let nothing = "nothing was acknowledged: nothing was tested";
            let verdict = match judged.verdict {
                Ok(_) if report.total(Kind::Ok) == 0 => Err(nothing.to_string()),
                verdict => verdict,
            };
            let clients = CLIENTS_PER_NODE * script.nodes;
            let acts =
                acts(judged.operations.iter().map(|operation| &operation.record), 0, |record| {
                    (record.client < clients).then(|| NodeId(record.client % script.nodes + 1))
                });
            let load = Loaded { kind, verdict, acts, operations: judged.operations };
            (self.tell)(&format!("\n{load}\n{}", report.text().trim_end()));
            loaded.push(load);
        }
        Ok(Played { outcomes, loads: loaded, verdict, length })
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
            Assertion::Converged(within) => {
                for node in self.nodes.keys() {
                    let left = within.saturating_sub(begun.elapsed());
                    self.until_it_writes(*node, left).await?;
                }
                self.all_led(within.saturating_sub(begun.elapsed())).await
            }
            Assertion::Progress(count, within) => {
                let total = || loadings.iter().map(|one| one.report.total(Kind::Ok)).sum::<u64>();
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
                for (sql, expected) in loadings.iter().filter_map(|one| one.load.look()) {
                    let answers = self.anywhere(&sql).await?;
                    let row = answers.first().and_then(|answer| answer.rows.first());
                    let seen: Vec<&str> = row
                        .into_iter()
                        .flatten()
                        .map(|text| text.as_deref().unwrap_or(""))
                        .collect();
                    if seen != expected.iter().map(String::as_str).collect::<Vec<_>>() {
                        return Err(format!("VIOLATED: {sql}: {seen:?} instead of {expected:?}"));
                    }
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
        let away = self.away().clone();
        for (_, address) in self.nodes.iter().filter(|(node, _)| !away.contains(node)) {
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
    Loading { kind, load, report, task }
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
pub(super) fn start_processes(nodes: Nodes) -> Result<Nodes, String> {
    let stop = AtomicBool::new(false);
    let started = nodes.start(&stop).and_then(|()| {
        let among = Some(nodes.members.len());
        let all_ready = || nodes.members.iter().all(|member| is_ready(member.http, among));
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
