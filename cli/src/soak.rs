//! `meridian sim --minutes`: fresh seeds for as long as asked, batch by batch. What was done is kept in a file after each batch, so that
//! a soak that was stopped goes on where it was.
//!
//! The file is text, one fact a line: `next <seed>`, `good <seeds>`, and for each seed that failed `failed <seed> <workload>`.

use ::chaos::episode::Options;
use ::chaos::shrink::shrink;
use ::chaos::sim::{SimOptions, SimReport, replay_line, run_with};
use ::chaos::workload::Kind;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Seeds between two writes of the state.
const BATCH_SEEDS: u64 = 500;
/// Runs spent on making a failing seed small.
const SHRINK_RUNS_MAX: u32 = 200;
/// Seeds of a batch that are made small: the first ones.
const SHRUNK_PER_BATCH: usize = 3;

/// What a soak has done.
#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    next: u64,
    good: u64,
    failed: Vec<(u64, Kind)>,
}

impl State {
    fn parse(text: &str) -> Result<State, String> {
        let mut state = State { next: 1, good: 0, failed: Vec::new() };
        for (line, number) in text.lines().zip(1..) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let bad = || {
                format!("line {number}: \"{line}\" is not next, good or failed with its numbers")
            };
            let seed = |text: &str| text.parse::<u64>().map_err(|_| bad());
            match words.as_slice() {
                ["next", next] => state.next = seed(next)?,
                ["good", good] => state.good = seed(good)?,
                ["failed", failed, workload] => {
                    state.failed.push((seed(failed)?, workload.parse().map_err(|_| bad())?));
                }
                _ => return Err(bad()),
            }
        }
        Ok(state)
    }

    fn to_text(&self) -> String {
        let mut text = format!("next {}\ngood {}\n", self.next, self.good);
        for (seed, workload) in &self.failed {
            let _ = writeln!(text, "failed {seed} {workload}");
        }
        text
    }

    fn take(&mut self, report: &SimReport, planned: u64) {
        // After many failures a batch ends early: its other seeds are run by nobody, and not counted.
        self.next += planned;
        self.good += report.seeds - report.failures.len() as u64;
        self.failed.extend(report.failures.iter().map(|failure| (failure.seed, failure.workload)));
    }
}

/// Runs until the time is up. The error names how many seeds have failed, those of earlier runs included.
#[allow(clippy::disallowed_methods)] // Times the run for people; no seed sees it.
pub(crate) fn run(
    duration: Duration,
    state_file: Option<&Path>,
    options: &SimOptions,
) -> Result<(), String> {
    let begun = Instant::now();
    let mut state = match state_file {
        Some(path) if path.exists() => {
            let text =
                fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            State::parse(&text).map_err(|why| format!("{}: {why}", path.display()))?
        }
        _ => State { next: options.first_seed, good: 0, failed: Vec::new() },
    };
    let mut batch_took = Duration::ZERO;
    while begun.elapsed() + batch_took < duration {
        let from = begun.elapsed();
        let batch = SimOptions { seeds: BATCH_SEEDS, first_seed: state.next, ..options.clone() };
        let report = run_with(batch, &|_| {});
        state.take(&report, BATCH_SEEDS);
        for failure in &report.failures {
            println!("FAILED {}", replay_line(failure.seed, failure.workload, options.planted));
        }
        for failure in report.failures.iter().take(SHRUNK_PER_BATCH) {
            let (seed, workload) = (failure.seed, failure.workload);
            let one = Options { seed, workload, planted: options.planted };
            if let Some(small) = shrink(one, SHRINK_RUNS_MAX) {
                println!("seed {seed}: {small}");
            }
        }
        if let Some(path) = state_file {
            fs::write(path, state.to_text())
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
        batch_took = begun.elapsed() - from;
        println!(
            "{} seeds good, {} failed, up to seed {}; this batch at {:.0} seeds/min, {:.1} virtual hours",
            state.good,
            state.failed.len(),
            state.next - 1,
            BATCH_SEEDS as f64 * 60.0 / batch_took.as_secs_f64().max(0.001),
            report.virtual_time.as_secs_f64() / 3600.0,
        );
    }
    if state.failed.is_empty() {
        Ok(())
    } else {
        Err(format!("{} seeds have failed", state.failed.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_is_written() {
        let state = State { next: 501, good: 499, failed: vec![(77, Kind::Bank)] };
        assert_eq!(State::parse(&state.to_text()), Ok(state));
        let refused = State::parse("next 5\nfailed seven bank\n").unwrap_err();
        assert!(refused.starts_with("line 2:"), "{refused}");
    }
}
