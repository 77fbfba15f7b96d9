//! `meridian chaos run FILE`: a fault script. `meridian chaos check FILE`: a history before its judge.

use ::chaos::check::Level;
use ::chaos::check::file::Model;
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
    /// Judges a history written as EDN or JSON, by us or by Jepsen.
    Check {
        /// The history.
        file: PathBuf,
        /// What clients did: list-append, rw-register, register, bank, long-fork, write-skew, session, monotonic or counter.
        #[arg(long)]
        model: Model,
        /// Which order beyond that of the data counts.
        #[arg(long, default_value = "key-real-time")]
        level: LevelKind,
    },
}

/// Which order counts.
#[derive(Clone, Copy, ValueEnum)]
enum LevelKind {
    /// None.
    Serializable,
    /// That in which each client asked.
    Session,
    /// Real time, per key: what SERIALIZABLE promises.
    KeyRealTime,
    /// Real time over everything, and sessions.
    Strict,
}

/// Where a script runs.
#[derive(Clone, Copy, ValueEnum)]
enum WorldKind {
    /// The simulated world.
    Sim,
}

/// Runs it; a script that cannot be read is refused before anything starts.
pub(crate) fn run(arguments: &ChaosArguments) -> Result<(), String> {
    let read = |file: &PathBuf| {
        std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
    };
    match &arguments.command {
        ChaosCommand::Run { file, world: WorldKind::Sim } => {
            let script =
                parse(&read(file)?).map_err(|error| format!("{}: {error}", file.display()))?;
            let report = run_in_sim(&script);
            println!("{report}");
            if report.is_good() {
                Ok(())
            } else {
                Err("the script's assertions do not hold".to_string())
            }
        }
        ChaosCommand::Check { file, model, level } => {
            let level = match level {
                LevelKind::Serializable => Level::Serializable,
                LevelKind::Session => Level::Session,
                LevelKind::KeyRealTime => Level::KeyRealTime,
                LevelKind::Strict => Level::Strict,
            };
            let verdict = model.judge(&read(file)?, level);
            println!("{verdict}");
            if verdict.is_good() { Ok(()) } else { Err("the history is not good".to_string()) }
        }
    }
}
