//! `meridian demo`: a whole multi-region cluster on this machine, every node a real process of its own, with the latencies of a
//! wide area network between the regions, and a SQL shell on it.
//!
//! The demo supervises: a node that crashes (`CHAOS CRASH`) is started again after a pause; when the demo ends, however it ends, its nodes
//! end too, because each of them watches a pipe that only the demo holds open.

use clap::Args;
use node::faults::Latencies;
use std::fs;
use std::io::IsTerminal;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::processes::{LOOK_INTERVAL, Member, Nodes, is_ready, pause};

/// A crashed node stays down for this long.
const RESTART_PAUSE: Duration = Duration::from_secs(3);

/// Several regions on this machine.
#[derive(Args)]
pub(crate) struct DemoArguments {
    /// Region names, comma-separated.
    #[arg(long, value_delimiter = ',', default_value = "us-east,eu-west,ap-south")]
    regions: Vec<String>,
    /// Nodes in each region.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    nodes_per_region: u16,
    /// `realistic`, `none`, or a file with one `REGION REGION MILLISECONDS` (round trip) per line.
    #[arg(long, default_value = "realistic")]
    latency: String,
    /// Data directory; what an earlier demo left there is opened again.
    #[arg(long, default_value = "meridian-data")]
    data: PathBuf,
    /// No shell: run until Ctrl-C.
    #[arg(long)]
    no_shell: bool,
    /// SQL port of the first node; node i listens on this plus i, for RPC 2000 and for HTTP 3000 higher.
    #[arg(long, default_value_t = 15432)]
    sql_port: u16,
}

/// Runs the demo to its end.
pub(crate) fn run(arguments: &DemoArguments) -> Result<(), String> {
    let members = members(arguments)?;
    let latencies = latencies(arguments)?;
    for member in &members {
        for address in [member.sql, member.rpc, member.http] {
            TcpListener::bind(address).map_err(|error| {
                format!(
                    "port {} cannot be used: {error} (choose others with --sql-port)",
                    address.port()
                )
            })?;
        }
    }
    fs::create_dir_all(&arguments.data)
        .map_err(|error| format!("{}: {error}", arguments.data.display()))?;
    let latency_file = arguments.data.join("latency.txt");
    fs::write(&latency_file, latencies.to_text())
        .map_err(|error| format!("{}: {error}", latency_file.display()))?;
    let stop = Arc::new(AtomicBool::new(false));
    watch_signals(
        &stop,
        if arguments.no_shell { Interrupt::Stops } else { Interrupt::IsTheShells },
    )?;
    let nodes = Arc::new(Nodes::new(&members, &latency_file));
    eprintln!("Starting {} nodes.", members.len());
    let started = nodes.start(&stop).and_then(|()| {
        let all_ready = || members.iter().all(|member| is_ready(member.http, Some(members.len())));
        nodes.wait_until("a majority of the others", &stop, all_ready)
    });
    if let Err(why) = started {
        nodes.stop();
        return Err(why);
    }
    let supervisor = supervise(nodes.clone(), stop.clone());
    introduce(&members, &latencies);
    let ended = {
        if arguments.no_shell {
            println!("Ctrl-C stops the cluster.");
            wait_for_stop(&stop);
            Ok(())
        } else {
            shell(&members[0], &stop)
        }
    };
    stop.store(true, Ordering::SeqCst);
    supervisor.join().map_err(|_| "the supervisor failed".to_string())?;
    eprintln!("Stopping {} nodes.", members.len());
    nodes.stop();
    ended
}

fn members(arguments: &DemoArguments) -> Result<Vec<Member>, String> {
    let distinct: std::collections::BTreeSet<&String> = arguments.regions.iter().collect();
    if distinct.len() != arguments.regions.len()
        || arguments.regions.iter().any(|region| region.trim().is_empty())
    {
        return Err("region names must be different and not empty".to_string());
    }
    let mut members = Vec::new();
    for region in &arguments.regions {
        for place in 0..arguments.nodes_per_region {
            let number = u16::try_from(members.len()).map_err(|_| "too many nodes".to_string())?;
            let port = |base: u16| {
                let port =
                    arguments.sql_port.checked_add(base).and_then(|port| port.checked_add(number));
                let port = port
                    .ok_or_else(|| "ports beyond 65535: choose a lower --sql-port".to_string())?;
                Ok::<SocketAddr, String>(SocketAddr::from(([127, 0, 0, 1], port)))
            };
            members.push(Member {
                number,
                region: region.clone(),
                zone: format!("{}", char::from(b'a' + u8::try_from(place % 26).expect("below 26"))),
                sql: port(0)?,
                rpc: port(2000)?,
                http: port(3000)?,
                data: arguments.data.join(format!("n{}", number + 1)),
            });
        }
    }
    Ok(members)
}

fn latencies(arguments: &DemoArguments) -> Result<Latencies, String> {
    match arguments.latency.as_str() {
        "realistic" => Ok(Latencies::realistic()),
        "none" => Ok(Latencies::default()),
        file => {
            let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
            Latencies::parse(&text).map_err(|error| format!("{file}: {error}"))
        }
    }
}

#[allow(clippy::disallowed_methods)]
fn supervise(nodes: Arc<Nodes>, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        while !stop.load(Ordering::SeqCst) {
            if let Some((place, _)) = nodes.ended() {
                eprintln!(
                    "node n{} is down; it will be started again in {} s",
                    place + 1,
                    RESTART_PAUSE.as_secs()
                );
                let looks = RESTART_PAUSE.as_millis() / LOOK_INTERVAL.as_millis();
                for _ in 0..looks {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    pause(LOOK_INTERVAL);
                }
                nodes.restart(place);
            }
            pause(LOOK_INTERVAL);
        }
    })
}

/// What Ctrl-C means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Interrupt {
    /// The demo ends.
    Stops,
    /// The shell drops its line; leaving the shell ends the demo.
    IsTheShells,
}

fn watch_signals(stop: &Arc<AtomicBool>, interrupt: Interrupt) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let stop = stop.clone();
    #[allow(clippy::disallowed_methods)]
    std::thread::spawn(move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let mut terminate =
                signal(SignalKind::terminate()).expect("signals can be listened to");
            let terminated = Box::pin(terminate.recv());
            let interrupted = Box::pin(async {
                loop {
                    tokio::signal::ctrl_c().await.expect("signals can be listened to");
                    if interrupt == Interrupt::Stops {
                        return;
                    }
                }
            });
            futures::future::select(interrupted, terminated).await;
            stop.store(true, Ordering::SeqCst);
        });
    });
    Ok(())
}

fn wait_for_stop(stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        pause(LOOK_INTERVAL);
    }
}

fn introduce(members: &[Member], latencies: &Latencies) {
    println!("\n  node  region        sql port  rpc port  http port");
    for member in members {
        println!(
            "  {:<5} {:<13} {:<9} {:<9} {}",
            member.name(),
            member.region,
            member.sql.port(),
            member.rpc.port(),
            member.http.port()
        );
    }
    let mut regions: Vec<&String> = members.iter().map(|member| &member.region).collect();
    regions.dedup();
    println!("\n  round trips, ms");
    print!("  {:<13}", "");
    regions.iter().for_each(|region| print!("{region:>12}"));
    println!();
    for one in &regions {
        print!("  {one:<13}");
        for other in &regions {
            print!("{:>12}", latencies.round_trip(one, other).as_millis());
        }
        println!();
    }
    let (first, last) = (&members[0], members.last().expect("a demo has a node"));
    println!(
        "\n  Try:
    CREATE TABLE accounts (id int PRIMARY KEY, balance int);                                  -- strong: survives a region
    CREATE TABLE carts (id int PRIMARY KEY, qty COUNTER) WITH (consistency = 'available');    -- answers in every region, always
    CHAOS PARTITION '{}' FROM '{}' FOR '30s';   SHOW CHAOS;   CHAOS HEAL;
  From another terminal: psql -h 127.0.0.1 -p {} -U root meridian\n",
        last.region,
        first.region,
        last.sql.port()
    );
}

/// The shell as a process of its own, so that Ctrl-C in it is its own affair.
fn shell(member: &Member, stop: &AtomicBool) -> Result<(), String> {
    if !std::io::stdin().is_terminal() && std::env::var_os("MERIDIAN_DEMO_SCRIPT").is_none() {
        eprintln!("Standard input is not a terminal: reading statements from it.");
    }
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let url = format!("meridian://root@{}/meridian", member.rpc);
    let mut shell =
        Command::new(program).args(["sql", &url]).spawn().map_err(|error| error.to_string())?;
    loop {
        match shell.try_wait().map_err(|error| error.to_string())? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("the shell ended with {status}")),
            None if stop.load(Ordering::SeqCst) => {
                let _ = shell.kill();
                let _ = shell.wait();
                return Ok(());
            }
            None => pause(LOOK_INTERVAL),
        }
    }
}
