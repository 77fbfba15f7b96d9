//! `meridian chaos run FILE`: a fault script. `meridian chaos check FILE`: a history before its judge.

mod converged;
mod interrupt;
mod live;
mod own;
mod page;
mod refusal;
mod scenarios;

use ::chaos::check::Level;
use ::chaos::check::file::Model;
use ::chaos::script::{Loaded, NodeId, Played, Script, parse, run_in_sim_telling};
use clap::{Args, Subcommand, ValueEnum};
use node::faults::Latencies;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::backend::Backend;
use crate::processes::{Member, Nodes};
use crate::url::Url;
use crate::workload::load::{format_of, write_history};
use interrupt::{Interrupt, Signal};
use live::Live;
use page::{Heading, page};

/// Fault scripts.
#[derive(Args)]
pub(crate) struct ChaosArguments {
    #[command(subcommand)]
    command: ChaosCommand,
}

#[derive(Subcommand)]
enum ChaosCommand {
    /// Runs a fault script; its assertions decide.
    Run {
        /// The script.
        file: PathBuf,
        /// `sim`: the simulated world. `processes`: real nodes, started for it. A URL: a running cluster that allows chaos
        /// (postgresql://root@host:port/meridian).
        #[arg(long, default_value = "sim")]
        world: WorldKind,
        /// Where `--world processes` keeps the nodes' data and logs; a new directory, removed if all held, if not given.
        #[arg(long)]
        data: Option<PathBuf>,
        /// Write the history to this file (.edn or .json), for `meridian chaos check`; of several workloads, each to one with its
        /// name before the extension.
        #[arg(long)]
        history: Option<PathBuf>,
        /// Write a report to this file, one HTML page that needs nothing else.
        #[arg(long)]
        report: Option<PathBuf>,
    },
    /// Plays every shipped scenario, and prints a Markdown table.
    Scenarios(scenarios::ScenariosArguments),
    /// Judges a history written as EDN or JSON, by us or by Jepsen.
    Check {
        /// The history.
        file: PathBuf,
        /// What clients did: list-append, rw-register, register, bank, long-fork, write-skew, session, monotonic, counter, cells; or
        /// what is judged: mvcc (commit timestamps), index (looks at indexes), convergence (copies of anything).
        #[arg(long)]
        model: Model,
        /// Which order beyond that of the data counts.
        #[arg(long, default_value = "key-real-time")]
        level: LevelKind,
    },
}

/// Which order counts.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LevelKind {
    /// None.
    Serializable,
    /// That in which each client asked.
    Session,
    /// Real time, per key: what SERIALIZABLE promises.
    KeyRealTime,
    /// Real time over everything, and sessions.
    Strict,
}

impl From<LevelKind> for Level {
    fn from(kind: LevelKind) -> Level {
        match kind {
            LevelKind::Serializable => Level::Serializable,
            LevelKind::Session => Level::Session,
            LevelKind::KeyRealTime => Level::KeyRealTime,
            LevelKind::Strict => Level::Strict,
        }
    }
}

/// Where a script runs.
#[derive(Clone)]
enum WorldKind {
    /// The simulated world.
    Sim,
    /// Processes of our own.
    Processes,
    /// A running cluster.
    Cluster(Url),
}

impl FromStr for WorldKind {
    type Err = String;

    fn from_str(text: &str) -> Result<WorldKind, String> {
        match text {
            "sim" => Ok(WorldKind::Sim),
            "processes" => Ok(WorldKind::Processes),
            url => Url::parse(url)
                .map(WorldKind::Cluster)
                .map_err(|why| format!("expected sim, processes or a URL; {why}")),
        }
    }
}

/// Runs it; a script that cannot be read is refused before anything starts. The code is that of a signal which ended it early.
pub(crate) fn run(arguments: &ChaosArguments) -> Result<ExitCode, String> {
    match &arguments.command {
        ChaosCommand::Run { file, world, data, history, report } => {
            if let Some(path) = history {
                format_of(path)?;
            }
            let text = read(file)?;
            let named = |why: String| format!("{}: {why}", file.display());
            let script = parse(&text).map_err(|error| named(error.to_string()))?;
            world.refuse(&script).map_err(named)?;
            let interrupt = world.listen()?;
            let played =
                world.play(&script, data.as_deref(), &interrupt, |line| println!("{line}"));
            let played = match (interrupt.signal(), played) {
                (Some(signal), Err(why)) => {
                    eprintln!("meridian: {signal}: {why}");
                    return Ok(ExitCode::from(signal.exit_code()));
                }
                (_, played) => played?,
            };
            println!("\nserved, by second\n{}", played.table(&script));
            if let Some(path) = history {
                write_histories(&played, path)?;
            }
            if let Some(path) = report {
                let name = file.file_stem().unwrap_or_default().to_string_lossy();
                let heading = Heading { name: &name, text: &text, world: &world.to_string() };
                let page = page(&heading, &script, &played);
                std::fs::write(path, page)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                println!("the report is in {}", path.display());
            }
            let verdict = match &played.verdict {
                Ok(()) if played.is_good() => Ok(()),
                Ok(()) => Err("not all of the script's lines and workloads hold".to_string()),
                Err(why) => Err(why.clone()),
            };
            if let Some(signal) = interrupt.signal() {
                let seen = verdict.err().unwrap_or_else(|| "what was seen until then holds".into());
                eprintln!("meridian: ended by {signal} before the script's end; {seen}");
                return Ok(ExitCode::from(signal.exit_code()));
            }
            verdict?;
            println!("all held");
            Ok(ExitCode::SUCCESS)
        }
        ChaosCommand::Scenarios(arguments) => scenarios::run(arguments),
        ChaosCommand::Check { file, model, level } => {
            let verdict = model.judge(&read(file)?, (*level).into());
            println!("{verdict}");
            if verdict.is_good() {
                Ok(ExitCode::SUCCESS)
            } else {
                Err("the history is not good".to_string())
            }
        }
    }
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

/// The comment that a script begins with.
fn story(text: &str) -> String {
    let comments = text.lines().take_while(|line| line.starts_with('#'));
    comments.map(|line| line.trim_start_matches('#').trim()).collect::<Vec<_>>().join(" ")
}

fn write_histories(played: &Played, path: &Path) -> Result<(), String> {
    let kept: Vec<&Loaded> =
        played.loads.iter().filter(|load| load.kind.model().is_some()).collect();
    for load in &kept {
        let model = load.kind.model().expect("just filtered").name();
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        let own = path.with_extension(format!("{model}.{extension}"));
        let path = if kept.len() == 1 { path } else { own.as_path() };
        write_history(&load.operations, path)?;
        println!("the history of {} is in {}, for --model {model}", load.kind, path.display());
    }
    Ok(())
}

impl WorldKind {
    /// What in the script this world cannot do, with its place.
    fn refuse(&self, script: &Script) -> Result<(), String> {
        match self {
            WorldKind::Sim => Ok(()),
            WorldKind::Processes => refusal::refuse(script, true),
            WorldKind::Cluster(_) => refusal::refuse(script, false),
        }
    }

    /// Listens to signals. The simulated world looks for the first one between two lines, and has nothing to clean up at the second.
    fn listen(&self) -> Result<Interrupt, String> {
        Interrupt::listen(match self {
            WorldKind::Sim => |signal: Signal| std::process::exit(signal.exit_code().into()),
            WorldKind::Processes | WorldKind::Cluster(_) => |_| {},
        })
    }

    /// Plays a script that it does not refuse, telling what happens. The error: it could not be played at all.
    fn play(
        &self,
        script: &Script,
        data: Option<&Path>,
        interrupt: &Interrupt,
        tell: fn(&str),
    ) -> Result<Played, String> {
        match self {
            WorldKind::Sim => {
                let report = run_in_sim_telling(script, &mut |outcome| {
                    tell(&outcome.to_string());
                    interrupt.flow()
                });
                tell(&report.summary());
                Ok(report.played)
            }
            WorldKind::Processes => run_on_processes(script, data, interrupt, tell),
            WorldKind::Cluster(url) => run_on_cluster(script, url, interrupt, tell),
        }
    }
}

impl fmt::Display for WorldKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WorldKind::Sim => "the simulated world",
            WorldKind::Processes => "real processes",
            WorldKind::Cluster(_) => "a running cluster",
        })
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().map_err(|error| error.to_string())
}

fn run_on_processes(
    script: &Script,
    data: Option<&Path>,
    interrupt: &Interrupt,
    tell: fn(&str),
) -> Result<Played, String> {
    static RUNS: AtomicU32 = AtomicU32::new(1);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let own = std::env::temp_dir().join(format!("meridian-chaos-{}-{run}", std::process::id()));
    let dir = data.unwrap_or(&own);
    std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let latency_file = dir.join("latency.txt");
    std::fs::write(&latency_file, latencies(script).to_text())
        .map_err(|error| format!("{}: {error}", latency_file.display()))?;
    let nodes = Nodes::new(&members(script, dir)?, &latency_file);
    tell(&format!("starting {} nodes in {}", script.nodes, script.regions.join(", ")));
    let nodes = live::start_processes(nodes, interrupt.stop()).inspect_err(|_| {
        // Who did not want to wait does not want to know either.
        if data.is_none() && interrupt.signal().is_some() {
            drop(std::fs::remove_dir_all(&own));
        }
    })?;
    let addresses = nodes.members.iter().zip(1..);
    let addresses = addresses.map(|(member, id)| (NodeId(id), member.sql.to_string())).collect();
    let live = Live {
        nodes: addresses,
        processes: Some(nodes),
        away: Mutex::default(),
        user: "root".to_string(),
        marks: AtomicU64::new(0),
        interrupt: interrupt.clone(),
        tell,
    };
    let played = runtime()?.block_on(live.play(script));
    if let Some(nodes) = &live.processes {
        nodes.stop();
    }
    match (played.as_ref().is_ok_and(Played::is_good), data) {
        (true, None) => drop(std::fs::remove_dir_all(&own)),
        (true, Some(_)) => {}
        (false, _) => eprintln!("Data and logs are in {}.", dir.display()),
    }
    played
}

fn latencies(script: &Script) -> Latencies {
    let mut latencies = Latencies::default();
    for ((a, b), round_trip) in &script.round_trips {
        latencies.set(&script.regions[*a], &script.regions[*b], *round_trip);
    }
    latencies
}

/// Nodes of the script's regions in turn, on ports that are free now.
fn members(script: &Script, dir: &Path) -> Result<Vec<Member>, String> {
    let mut held = Vec::new();
    let mut free = || -> Result<SocketAddr, String> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        held.push(listener);
        Ok(address)
    };
    let count = u16::try_from(script.nodes).map_err(|_| "too many nodes".to_string())?;
    (0..count)
        .map(|number| {
            Ok(Member {
                number,
                region: script.regions[usize::from(number) % script.regions.len()].clone(),
                zone: "a".to_string(),
                sql: free()?,
                rpc: free()?,
                http: free()?,
                data: dir.join(format!("n{}", number + 1)),
            })
        })
        .collect()
}

fn run_on_cluster(
    script: &Script,
    url: &Url,
    interrupt: &Interrupt,
    tell: fn(&str),
) -> Result<Played, String> {
    runtime()?.block_on(async {
        let connected = Backend::connect(url, "meridian chaos").await;
        let mut backend = connected.map_err(|error| error.to_string())?;
        let answers = backend.query("SHOW NODES").await.map_err(|error| error.to_string())?;
        let mut nodes = BTreeMap::new();
        let mut regions = Vec::new();
        for row in answers.iter().flat_map(|answer| &answer.rows) {
            let text = |place: usize| row.get(place).cloned().flatten().unwrap_or_default();
            let number = text(0).strip_prefix('n').and_then(|digits| digits.parse().ok());
            nodes.insert(NodeId(number.ok_or("SHOW NODES names a node strangely")?), text(3));
            regions.push(text(1));
        }
        let expected: Vec<String> = (0..script.nodes as usize)
            .map(|node| script.regions[node % script.regions.len()].clone())
            .collect();
        if regions != expected {
            return Err(format!(
                "the script wants nodes in {}, the cluster has them in {}",
                expected.join(", "),
                regions.join(", ")
            ));
        }
        let live = Live {
            nodes,
            processes: None,
            away: Mutex::default(),
            user: url.user.clone(),
            marks: AtomicU64::new(0),
            interrupt: interrupt.clone(),
            tell,
        };
        live.play(script).await
    })
}
