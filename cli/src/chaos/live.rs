//! Driver: a fault script against real nodes: processes that it starts itself, or a running cluster that allows chaos.
//!
//! Cuts and skews are `CHAOS` statements, so they are made in the product's own transport and clock; kills and pauses are signals to
//! processes of ours. What only a simulated machine can do is refused, with its line, before anything starts. At the end everything is
//! healed, and the workload's own check decides.

use ::chaos::script::{Action, Assertion, NodeId, Planned, Script};
use ::chaos::workload::Kind;
use ::chaos::world::fault::Fault;
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::time::Instant;

use crate::backend::{Answer, Backend};
use crate::processes::{Nodes, is_ready, pause};
use crate::url::Url;

/// Faults end by themselves so long after the script at the latest, should nobody be left to end them.
const FAULT_GRACE: Duration = Duration::from_secs(30);
/// Pause between two tries of something that must come to be.
const TRY_PAUSE: Duration = Duration::from_millis(100);
/// A healed cluster answers by then.
const HEALED_WITHIN: Duration = Duration::from_secs(60);
/// One statement.
const STATEMENT_MAX: Duration = Duration::from_secs(20);

/// Where a script is played.
pub(super) struct Live {
    /// SQL address of each node.
    pub(super) nodes: BTreeMap<NodeId, String>,
    /// URL of all of them, for the workload.
    pub(super) url: String,
    /// The processes, if they are ours.
    pub(super) processes: Option<Nodes>,
}

/// The first thing in the script that cannot be done to real nodes.
pub(super) fn refuse(script: &Script, ours: bool) -> Result<(), String> {
    if let Some(kind) = script.workload
        && workload_name(kind).is_none()
    {
        return Err(format!(
            "workload {} runs in the simulated world only; bank, sql-bank and register run here",
            kind.name()
        ));
    }
    for planned in &script.plan {
        let no = |why: &str| Err(format!("line {}: `{}`: {why}", planned.line, planned.text));
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
                | Fault::Split(_)
                | Fault::Throttle(..)
                | Fault::Slow(..)
                | Fault::ReadError(_)
                | Fault::Drain(_)
                | Fault::Rot(_)
                | Fault::Replace(_)
                | Fault::Undrain(_)
                | Fault::Ambush(..) => return no("only the simulated world can do that"),
            }
        }
    }
    Ok(())
}

/// Our load with the same invariant.
fn workload_name(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Bank | Kind::SqlBank => Some("bank"),
        Kind::Register => Some("kv"),
        Kind::Append
        | Kind::Txn
        | Kind::Skew
        | Kind::LongFork
        | Kind::Monotonic
        | Kind::Shop
        | Kind::Counter
        | Kind::Session => None,
    }
}

impl Live {
    /// Plays the script, telling each line as it ends. The error says how many lines did not hold.
    pub(super) async fn play(&self, script: &Script) -> Result<(), String> {
        self.anywhere("CREATE TABLE IF NOT EXISTS chaos_probe (id int PRIMARY KEY, n bigint)")
            .await?;
        let load = self.start_load(script)?;
        let mut failures = 0;
        let begun = Instant::now();
        for planned in &script.plan {
            #[allow(clippy::disallowed_methods)] // Scripts on real nodes live in real time.
            tokio::time::sleep_until(begun + planned.at).await;
            let verdict = match &planned.action {
                Action::Do(faults) => self.inject(script, planned, faults).await,
                Action::Down(nodes, _) => self.each(nodes, Nodes::kill),
                Action::Assert(assertion) => self.check(assertion).await,
            };
            let told = match &verdict {
                Ok(()) => "ok".to_string(),
                Err(why) => format!("FAILED: {why}"),
            };
            failures += u32::from(verdict.is_err());
            println!("{:>8.1} s  {:<50} {told}", begun.elapsed().as_secs_f64(), planned.text);
        }
        #[allow(clippy::disallowed_methods)]
        tokio::time::sleep_until(begun + script.end).await;
        self.heal().await?;
        if let Some(load) = load {
            let report = tokio::task::spawn_blocking(move || finish(load))
                .await
                .map_err(|error| error.to_string())?;
            match report {
                Ok(report) => println!("{report}"),
                Err(report) => {
                    println!("{report}");
                    failures += 1;
                }
            }
        }
        match failures {
            0 => {
                println!("all held");
                Ok(())
            }
            count => Err(format!("{count} of the script's lines do not hold")),
        }
    }

    fn start_load(&self, script: &Script) -> Result<Option<Child>, String> {
        let Some(name) = script.workload.and_then(workload_name) else { return Ok(None) };
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let seconds = script.end.as_secs().max(1).to_string();
        let seed = script.seed.to_string();
        Command::new(program)
            .args(["workload", name, "--url", &self.url, "--duration", &seconds, "--seed", &seed])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map(Some)
            .map_err(|error| format!("the workload cannot be started: {error}"))
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
                        self.each(&[*node], Nodes::kill)?;
                        self.each(&[*node], Nodes::revive)?;
                    }
                },
                Fault::Start(node) => self.each(&[*node], Nodes::revive)?,
                Fault::Pause(node) => self.each(&[*node], |nodes, at| nodes.signal(at, "STOP"))?,
                Fault::Resume(node) => self.each(&[*node], |nodes, at| nodes.signal(at, "CONT"))?,
                Fault::Blackout => {
                    let all: Vec<NodeId> = self.nodes.keys().copied().collect();
                    self.each(&all, Nodes::kill)?;
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
                pause(TRY_PAUSE);
            }
        }
        self.anywhere("CHAOS HEAL").await.map(|_| ())
    }

    fn each(
        &self,
        nodes: &[NodeId],
        act: impl Fn(&Nodes, usize) -> Result<(), String>,
    ) -> Result<(), String> {
        let processes = self.processes.as_ref().expect("refused before the start");
        for node in nodes {
            let place = usize::try_from(node.0 - 1).expect("a node's number is small");
            act(processes, place)?;
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
            pause(TRY_PAUSE);
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
            #[allow(clippy::disallowed_methods)]
            tokio::time::sleep(TRY_PAUSE).await;
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

/// Waits for the load's end; its report, or what it found wrong.
fn finish(load: Child) -> Result<String, String> {
    let output = load.wait_with_output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(said)
    } else {
        Err(said + &String::from_utf8_lossy(&output.stderr))
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
