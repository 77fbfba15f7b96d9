//! Runs seeds: `sim [SEEDS] [FIRST] [WORKLOAD] [PLANTED]`, tells how many of them came to each coverage mark: `sim marks [SEEDS] [FIRST]`,
//! tells what happens in one: `sim trace SEED WORKLOAD [CUT]`, hunts: `sim mutants [SEEDS] [HUNTS] [NAME]`, measures: `sim speed [SEEDS] [FIRST]`, or plays a fault script: `sim FILE.chaos`.
//! `RUST_LOG=debug` tells what the nodes log.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use chaos::mutants::{HuntOptions, hunt};
use chaos::sim::{SimOptions, run_one_told, run_speed, run_with};

fn main() {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_ansi(false).init();
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize, default: u64| {
        args.get(place).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    if let Some(path) = args.first().filter(|word| word.ends_with(".chaos")) {
        let text = std::fs::read_to_string(path).expect("the script is read");
        let script = chaos::script::parse(&text).expect("a script");
        println!("{}", chaos::script::run_in_sim(&script));
        return;
    }
    if args.first().is_some_and(|word| word == "mutants") {
        let (seeds, hunts) = (number(1, 200), number(2, 3));
        let options = HuntOptions { seeds, hunts, threads: 2, only: args.get(3).cloned() };
        let report = hunt(&options, &|quarry| {
            eprintln!("{:<30} {:?} {}", quarry.mutant.name, quarry.found, quarry.how);
        });
        println!("{report}");
        return;
    }
    if args.first().is_some_and(|word| word == "trace") {
        let workload = args.get(2).and_then(|text| text.parse().ok()).expect("a workload");
        let cut = args.get(3).map(|text| text.parse().expect("a cut")).unwrap_or_default();
        let one = chaos::episode::Options { seed: number(1, 1), workload, planted: None };
        println!("{}", chaos::episode::explain(one, &cut));
        let (report, told) = run_one_told(one, &cut);
        told.iter().for_each(|told| println!("{told}"));
        println!("{report}");
        return;
    }
    if args.first().is_some_and(|word| word == "speed") {
        let (seeds, first_seed) = (number(1, 400), number(2, 1));
        let options = SimOptions { seeds, first_seed, ..SimOptions::default() };
        println!("{}", run_speed(&options, &|_| {}));
        return;
    }
    if args.first().is_some_and(|word| word == "marks") {
        let (seeds, first_seed) = (number(1, 200), number(2, 1));
        let report = run_with(SimOptions { seeds, first_seed, ..SimOptions::default() }, &|_| {});
        for mark in coverage::Mark::ALL {
            let reached = report.tally.reached(*mark);
            println!(
                "{:>6} seeds {:>10} times  {:<12} {mark:?}: {}",
                reached.worlds,
                reached.times,
                mark.area(),
                mark.text()
            );
        }
        println!("{report}");
        return;
    }
    let options = SimOptions {
        seeds: number(0, 200),
        first_seed: number(1, 1),
        workload: args.get(2).and_then(|text| text.parse().ok()),
        planted: args.get(3).and_then(|text| text.parse().ok()),
        threads: 2,
    };
    if options.seeds == 1 {
        let workload = options.workload.unwrap_or(chaos::workload::Kind::Bank);
        let (seed, planted) = (options.first_seed, options.planted);
        println!(
            "{}",
            chaos::episode::explain(
                chaos::episode::Options { seed, workload, planted },
                &Default::default()
            )
        );
    }
    let (verbose, one) = (options.seeds <= 50, options.seeds == 1);
    let report = run_with(options, &|one| {
        if verbose {
            println!("{one}");
        }
    });
    println!("{report}");
    if one {
        for mark in coverage::Mark::ALL {
            let times = report.tally.reached(*mark).times;
            if times > 0 {
                println!("{times:>10} times {mark:?}: {}", mark.text());
            }
        }
    }
}
