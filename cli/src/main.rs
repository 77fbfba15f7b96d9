//! The binary `meridian`. Parses arguments, and hands on: to `node` (a real node), `chaos` (simulator, scripts, checkers), and the
//! tools of this crate (demo, shell, workloads). Imports `node`, `client`, `chaos`.

#![allow(clippy::print_stdout, clippy::print_stderr)] // What this binary is for is talking to people.

mod backend;
mod chaos;
mod demo;
mod processes;
mod shell;
mod sim;
mod soak;
mod start;
mod url;
mod workload;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: jemallocator::Jemalloc = jemallocator::Jemalloc;

/// Meridian: a geo-distributed SQL database.
#[derive(Parser)]
#[command(name = "meridian", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Several regions on this machine, with latencies between them, and a SQL shell.
    Demo(demo::DemoArguments),
    /// One node.
    Start(start::StartArguments),
    /// The SQL shell.
    Sql(shell::SqlArguments),
    /// Fault scripts.
    Chaos(chaos::ChaosArguments),
    /// Many seeds of the simulated world: a whole cluster on virtual time, under faults, with its history checked.
    Sim(sim::SimArguments),
    /// Bounded load with an invariant and a report.
    Workload(workload::WorkloadArguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Start(arguments) => start::run(arguments),
        Command::Sql(arguments) => match shell::run(&arguments) {
            Ok(code) => return code,
            Err(why) => Err(why),
        },
        Command::Chaos(arguments) => match chaos::run(&arguments) {
            Ok(code) => return code,
            Err(why) => Err(why),
        },
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Workload(arguments) => workload::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("meridian: {why}");
            ExitCode::FAILURE
        }
    }
}
