//! `meridian chaos run FILE`: a fault script.

use ::chaos::script::{parse, run_in_sim};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

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
        /// Where: only the simulated world so far.
        #[arg(long, default_value = "sim")]
        world: WorldKind,
    },
}

/// Where a script runs.
#[derive(Clone, Copy, ValueEnum)]
enum WorldKind {
    /// The simulated world.
    Sim,
}

/// Runs it; a script that cannot be read is refused before anything starts.
pub(crate) fn run(arguments: &ChaosArguments) -> Result<(), String> {
    let ChaosCommand::Run { file, world: WorldKind::Sim } = &arguments.command;
    let text =
        std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let script = parse(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let report = run_in_sim(&script);
    println!("{report}");
    if report.is_good() { Ok(()) } else { Err("the script's assertions do not hold".to_string()) }
}
