//! Runs seeds: `sim [SEEDS] [FIRST] [WORKLOAD] [planted]`.
#![allow(clippy::print_stdout)]

use chaos::sim::{PlantedBug, SimOptions, run_with};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize, default: u64| {
        args.get(place).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let options = SimOptions {
        seeds: number(0, 200),
        first_seed: number(1, 1),
        workload: args.get(2).and_then(|text| text.parse().ok()),
        planted: args.get(3).map(|_| PlantedBug::AckBeforeSync),
        threads: 2,
    };
    if options.seeds == 1 {
        let workload = options.workload.unwrap_or(chaos::workload::Kind::Bank);
        println!(
            "{}",
            chaos::episode::explain(chaos::episode::Options {
                seed: options.first_seed,
                workload,
                planted: None
            })
        );
    }
    let verbose = options.seeds <= 50;
    let report = run_with(options, &|one| {
        if verbose {
            println!("{one}");
        }
    });
    println!("{report}");
}
