//! `meridian sim`: the simulated world, many seeds of it.

use ::chaos::episode::{self, Options};
use ::chaos::mutants::{HuntOptions, hunt};
use ::chaos::planted::Planted;
use ::chaos::shrink::{Cut, shrink};
use ::chaos::sim::{SimOptions, run_one, run_one_told, run_speed, run_with};
use ::chaos::workload::Kind;
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::soak;
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
    /// Measure: seeds of one shape, five nodes, four ranges, 200 transactions over keys, 30 virtual seconds, faults and checks as ever.
    #[arg(long, conflicts_with_all = ["mutants", "minutes", "workload", "trace", "cut", "history"])]
    speed: bool,
    /// Hunts per known killer, with `--mutants`.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    hunts: u64,
    /// How many at once.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
    /// Print what the seed will do, and what happens in it; only with one seed.
    #[arg(long)]
    trace: bool,
    /// Leave out what this names, as a shrunk seed's replay line does; only with one seed.
    #[arg(long)]
    cut: Option<Cut>,
    /// Runs that may be spent on making the first failing seed small.
    #[arg(long, default_value_t = 200)]
    shrink: u32,
    /// Run fresh seeds for so many minutes, instead of `--seeds`; with `--state` from where it stopped.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: Option<u64>,
    /// Where `--minutes` keeps what it has done; failing seeds are listed there.
    #[arg(long, requires = "minutes")]
    state: Option<PathBuf>,
    /// Write the history of the one seed to this file (.edn or .json), for `meridian chaos check` and other judges.
    #[arg(long)]
    history: Option<PathBuf>,
}

impl SimArguments {
    fn options(&self) -> SimOptions {
        SimOptions {
            seeds: self.seeds,
            first_seed: self.first_seed,
            workload: self.workload,
            planted: self.planted,
            threads: usize::from(self.threads),
        }
    }
}

/// Runs the seeds; the error names how many failed.
pub(crate) fn run(arguments: &SimArguments) -> Result<(), String> {
    let planted = arguments.planted;
    if arguments.mutants {
        return run_mutants(arguments);
    }
    if let Some(minutes) = arguments.minutes {
        return soak::run(
            Duration::from_secs(minutes * 60),
            arguments.state.as_deref(),
            &arguments.options(),
        );
    }
    let cut = arguments.cut.clone().unwrap_or_default();
    let is_of_one = arguments.trace || arguments.history.is_some() || arguments.cut.is_some();
    if is_of_one && arguments.seeds != 1 {
        return Err("--trace, --history and --cut need --seeds 1".to_string());
    }
    let workload = arguments.workload.unwrap_or(Kind::in_turn(arguments.first_seed));
    let one = Options { seed: arguments.first_seed, workload, planted };
    if arguments.trace {
        println!("{}", episode::explain(one, &cut));
        let (report, told) = run_one_told(one, &cut);
        told.iter().for_each(|told| println!("{told}"));
        println!("{report}");
        if arguments.history.is_none() {
            return report.verdict;
        }
    }
    if let Some(path) = &arguments.history {
        return write_history(one, &cut, path);
    }
    if arguments.cut.is_some() {
        let report = run_one(one, &cut);
        println!("{report}");
        return report.verdict;
    }
    let options = arguments.options();
    let told = arguments.seeds <= TOLD_SEEDS_MAX;
    let tell = |seed: &episode::Report| {
        if told {
            println!("{seed}");
        }
    };
    let report = match arguments.speed {
        true => run_speed(&options, &tell),
        false => run_with(options, &tell),
    };
    println!("{report}");
    if let Some(failure) = report.failures.first().filter(|_| !arguments.speed) {
        let one = Options { seed: failure.seed, workload: failure.workload, planted };
        if let Some(small) = shrink(one, arguments.shrink) {
            println!("\nseed {}: {small}", failure.seed);
        }
    }
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

fn write_history(one: Options, cut: &Cut, path: &Path) -> Result<(), String> {
    load::format_of(path)?;
    let (report, operations) = episode::run_cut(one, cut);
    println!("{report}");
    match one.workload.model() {
        Some(model) => println!("the history is for --model {model}"),
        None => return Err(format!("{} leaves no history that a file could hold", one.workload)),
    }
    load::write_history(&operations, path)?;
    report.verdict
}
