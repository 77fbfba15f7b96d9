//! `meridian sim`: the simulated world, many seeds of it.

use ::chaos::episode::{self, Options};
use ::chaos::mutants::{HuntOptions, hunt};
use ::chaos::planted::Planted;
use ::chaos::sim::{SimOptions, run_with};
use ::chaos::workload::Kind;
use clap::Args;
use std::path::{Path, PathBuf};

use crate::workload::load;

/// Seeds of which each is told of as it ends.
const TOLD_SEEDS_MAX: u64 = 20;

/// Many seeds of the simulated world.
#[derive(Args)]
pub(crate) struct SimArguments {
    /// How many seeds.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Only this workload; each in turn if not given.
    #[arg(long)]
    workload: Option<Kind>,
    /// A mistake made on purpose, which must be found; one of those that `--mutants` tells.
    #[arg(long)]
    planted: Option<Planted>,
    /// Bring back every known killer, one by one, and print how many seeds it took to find it (docs/killers.md);
    /// `--seeds` is then the limit per hunt.
    #[arg(long)]
    mutants: bool,
    /// Hunts per known killer, with `--mutants`.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    hunts: u64,
    /// How many at once.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
    /// Print what the seed will do; only with one seed.
    #[arg(long)]
    trace: bool,
    /// Write the history of the one seed to this file (.edn or .json), for `meridian chaos check` and other judges.
    #[arg(long)]
    history: Option<PathBuf>,
}

/// Runs the seeds; the error names how many failed.
pub(crate) fn run(arguments: &SimArguments) -> Result<(), String> {
    let planted = arguments.planted;
    if arguments.mutants {
        return run_mutants(arguments);
    }
    if (arguments.trace || arguments.history.is_some()) && arguments.seeds != 1 {
        return Err("--trace and --history need --seeds 1".to_string());
    }
    let workload = arguments.workload.unwrap_or(Kind::in_turn(arguments.first_seed));
    let one = Options { seed: arguments.first_seed, workload, planted };
    if arguments.trace {
        println!("{}", episode::explain(one));
    }
    if let Some(path) = &arguments.history {
        return write_history(one, path);
    }
    let options = SimOptions {
        seeds: arguments.seeds,
        first_seed: arguments.first_seed,
        workload: arguments.workload,
        planted,
        threads: usize::from(arguments.threads),
    };
    let told = arguments.seeds <= TOLD_SEEDS_MAX;
    let report = run_with(options, &|seed| {
        if told {
            println!("{seed}");
        }
    });
    println!("{report}");
    if report.is_good() {
        Ok(())
    } else {
        Err(format!("{} of {} seeds failed", report.failures.len(), report.seeds))
    }
}

/// The table goes to the standard output, progress elsewhere.
fn run_mutants(arguments: &SimArguments) -> Result<(), String> {
    let options = HuntOptions {
        seeds: arguments.seeds,
        hunts: arguments.hunts,
        threads: usize::from(arguments.threads),
        only: arguments.planted.map(|planted| planted.to_string()),
    };
    let report = hunt(&options, &|quarry| {
        eprintln!("{:<30} {:?} {}", quarry.mutant.name, quarry.found, quarry.how);
    });
    println!("{report}");
    Ok(())
}

fn write_history(one: Options, path: &Path) -> Result<(), String> {
    load::format_of(path)?;
    let (report, operations) = episode::run_with_history(one);
    println!("{report}");
    match one.workload.model() {
        Some(model) => println!("the history is for --model {model}"),
        None => return Err(format!("{} leaves no history that a file could hold", one.workload)),
    }
    load::write_history(&operations, path)?;
    report.verdict
}
