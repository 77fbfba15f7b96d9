//! `meridian sim`: the simulated world, many seeds of it.

use ::chaos::episode::{self, Options};
use ::chaos::sim::{PlantedBug, SimOptions, run_with};
use ::chaos::workload::Kind;
use clap::{Args, ValueEnum};

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
    /// A mistake made on purpose, which must be found.
    #[arg(long)]
    planted: Option<Planted>,
    /// How many at once.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
    /// Print the whole trace; only with one seed.
    #[arg(long)]
    trace: bool,
}

/// Mistakes that can be made on purpose.
#[derive(Clone, Copy, ValueEnum)]
enum Planted {
    /// Nodes acknowledge before their log is synced.
    AckBeforeSync,
}

/// Runs the seeds; the error names how many failed.
pub(crate) fn run(arguments: &SimArguments) -> Result<(), String> {
    let planted = arguments.planted.map(|planted| match planted {
        Planted::AckBeforeSync => PlantedBug::AckBeforeSync,
    });
    if arguments.trace {
        if arguments.seeds != 1 {
            return Err("--trace needs --seeds 1".to_string());
        }
        let workload = arguments.workload.unwrap_or(Kind::Bank);
        println!("{}", episode::explain(Options { seed: arguments.first_seed, workload, planted }));
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
