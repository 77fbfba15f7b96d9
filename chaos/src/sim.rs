//! Driver: many seeds on a few threads, and a report. Every seed is a world of its own, so threads share nothing but the next seed's number.
//!
//! Every [`TWICE_EVERY`]th seed runs twice and must leave the same trace. A failure prints the one line that replays it.

use coverage::{Frequency, Mark, Rare};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::check::RealTime;
use crate::episode::{self, Options, Report};
use crate::shrink::Cut;
use crate::speed;
use crate::workload::Kind;
use crate::world::Told;
use crate::world::tally::{Reached, Tally};

pub use crate::planted::Planted;

/// A seed out of so many runs twice.
pub const TWICE_EVERY: u64 = 20;
/// Failures described in full; of the others only the replay line is told.
const FAILURES_TOLD: usize = 5;
/// A run stops after this many failures: more would tell nothing new.
const FAILURES_MAX: usize = 20;
/// Of so many seeds or more the report names the marks that none has come to; fewer cannot be asked to come everywhere.
const SEEDS_TO_NAME_MARKS: u64 = 20;

/// What to simulate.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// How many seeds.
    pub seeds: u64,
    /// The first of them.
    pub first_seed: u64,
    /// What clients do; `None`: each workload in turn.
    pub workload: Option<Kind>,
    /// A mistake made on purpose.
    pub planted: Option<Planted>,
    /// How many at once.
    pub threads: usize,
}

impl Default for SimOptions {
    fn default() -> SimOptions {
        SimOptions { seeds: 200, first_seed: 1, workload: None, planted: None, threads: 2 }
    }
}

/// A seed that did not pass.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// With which workload.
    pub workload: Kind,
    /// What is wrong.
    pub why: String,
    /// The line that runs it again.
    pub replay: String,
}

/// What came of all seeds.
#[derive(Clone, Debug, Default)]
pub struct SimReport {
    /// Seeds run.
    pub seeds: u64,
    /// Of them twice, with the same trace.
    pub repeated: u64,
    /// Of them with a clock beyond its bound.
    pub beyond_bound: u64,
    /// Seeds by workload.
    pub workloads: BTreeMap<Kind, u64>,
    /// Those that did not pass, by seed.
    pub failures: Vec<Failure>,
    /// Sum over seeds.
    pub virtual_time: Duration,
    /// Of the real world.
    pub elapsed: Duration,
    /// Events taken.
    pub events: u64,
    /// Operations that ended well, badly, nobody knows how.
    pub operations: (usize, usize, usize),
    /// What really happened.
    pub tally: Tally,
}

impl SimReport {
    /// Whether every seed passed.
    pub fn is_good(&self) -> bool {
        self.failures.is_empty()
    }

    /// Which of the product's rare turns were taken.
    fn tell_of_rare(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for turn in Rare::ALL {
            let Reached { worlds, times } = self.tally.taken(*turn);
            if worlds > 0 {
                writeln!(f, "  {times:>10}  in {worlds} seeds {}", turn.text())?;
            }
        }
        Ok(())
    }

    /// Which of the product's branches were taken.
    fn tell_of_marks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unreached, all) = (self.tally.unreached(), Mark::ALL.len());
        writeln!(f, "coverage marks reached: {} of {all}", all - unreached.len())?;
        for mark in unreached.iter().filter(|_| self.seeds >= SEEDS_TO_NAME_MARKS) {
            let rare = match mark.frequency() {
                Frequency::Often => "",
                Frequency::Rare => " (rare)",
            };
            writeln!(f, "  never reached{rare}: {mark:?} in {}: {}", mark.area(), mark.text())?;
        }
        Ok(())
    }

    fn take(&mut self, report: Report, way: &Way<'_>) {
        self.seeds += 1;
        *self.workloads.entry(report.workload).or_default() += 1;
        self.beyond_bound += u64::from(episode::real_time_of(report.seed) == RealTime::Waived);
        self.virtual_time += report.virtual_time;
        self.events += report.events;
        self.operations.0 += report.operations.0;
        self.operations.1 += report.operations.1;
        self.operations.2 += report.operations.2;
        self.tally.merge(&report.tally);
        if let Err(why) = &report.verdict {
            let (seed, workload, why) = (report.seed, report.workload, why.clone());
            let replay = (way.replay)(&report);
            self.failures.push(Failure { seed, workload, why, replay });
        }
    }
}

/// Runs a seed, and the line that runs it again.
struct Way<'a> {
    run: &'a (dyn Fn(Options) -> Report + Sync),
    replay: &'a (dyn Fn(&Report) -> String + Sync),
}

/// The line that runs a seed again.
pub fn replay_line(seed: u64, workload: Kind, planted: Option<Planted>) -> String {
    let planted = planted.map_or(String::new(), |planted| format!(" --planted {planted}"));
    format!("meridian sim --seeds 1 --first-seed {seed} --workload {workload}{planted}")
}

/// Runs all seeds.
pub fn run(options: SimOptions) -> SimReport {
    run_with(options, &|_| {})
}

/// Reports in the order of seeds, whichever thread ends first.
#[derive(Default)]
struct InOrder {
    next: u64,
    early: BTreeMap<u64, Report>,
    total: SimReport,
}

/// Runs all seeds and tells of each in their order, from any of the threads.
pub fn run_with(options: SimOptions, progress: &(dyn Fn(&Report) + Sync)) -> SimReport {
    let planted = options.planted;
    let replay = |report: &Report| replay_line(report.seed, report.workload, planted);
    run_way(&options, &Way { run: &run_caught, replay: &replay }, progress)
}

/// Runs seeds of the shape in which speed is measured ([`crate::speed`]).
pub fn run_speed(options: &SimOptions, progress: &(dyn Fn(&Report) + Sync)) -> SimReport {
    let run = |one: Options| caught(one, || speed::run(one));
    let replay =
        |report: &Report| format!("meridian sim --speed --seeds 1 --first-seed {}", report.seed);
    run_way(options, &Way { run: &run, replay: &replay }, progress)
}

#[allow(clippy::disallowed_methods)] // The one clock here times the run for people; no seed sees it.
fn run_way(options: &SimOptions, way: &Way<'_>, progress: &(dyn Fn(&Report) + Sync)) -> SimReport {
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let failed = AtomicUsize::new(0);
    let told = Mutex::new(InOrder::default());
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= options.seeds || failed.load(Ordering::Relaxed) >= FAILURES_MAX {
                return;
            }
            let seed = options.first_seed + number;
            let workload = options.workload.unwrap_or(Kind::in_turn(seed));
            let one = Options { seed, workload, planted: options.planted };
            let mut report = (way.run)(one);
            let twice = seed % TWICE_EVERY == 0 && report.verdict.is_ok();
            if twice {
                let again = (way.run)(one);
                if again.trace != report.trace {
                    let (first, second) = (report.trace, again.trace);
                    report.verdict = Err(format!(
                        "the same seed left two traces: {first:016x} and {second:016x}"
                    ));
                }
            }
            failed.fetch_add(usize::from(report.verdict.is_err()), Ordering::Relaxed);
            let mut told = told.lock();
            told.total.repeated += u64::from(twice && report.verdict.is_ok());
            told.early.insert(number, report);
            let InOrder { next, early, total } = &mut *told;
            while let Some(report) = early.remove(next) {
                *next += 1;
                progress(&report);
                total.take(report, way);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(work);
        }
    });
    let InOrder { early, total: mut report, .. } = told.into_inner();
    // Several threads that stop after too many failures may leave a gap.
    early.into_values().for_each(|one| report.take(one, way));
    report.elapsed = begun.elapsed();
    report
}

thread_local! {
    /// Where and why this thread panicked, while a seed runs on it.
    static PANIC: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
    static RUNNING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}
static HOOK: Once = Once::new();

/// Runs a whole seed.
pub(crate) fn run_caught(options: Options) -> Report {
    run_one(options, &Cut::default())
}

/// Runs a seed without what is cut; an assertion that fails in any of the machines is a verdict like another.
pub fn run_one(options: Options, cut: &Cut) -> Report {
    caught(options, || episode::run_cut(options, cut).0)
}

/// The same, and what happened in it, in words. Of a world that has panicked nothing is told but the verdict.
pub fn run_one_told(options: Options, cut: &Cut) -> (Report, Vec<Told>) {
    let mut told = Vec::new();
    let report = caught(options, || {
        let (report, all) = episode::run_told(options, cut);
        told = all;
        report
    });
    (report, told)
}

fn caught(options: Options, run: impl FnOnce() -> Report) -> Report {
    HOOK.call_once(|| {
        let former = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if RUNNING.get() {
                PANIC.set(Some(info.to_string()));
            } else {
                former(info);
            }
        }));
    });
    RUNNING.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    RUNNING.set(false);
    // A world that has panicked has left its own on the thread.
    coverage::switch_off();
    result.unwrap_or_else(|_| Report {
        seed: options.seed,
        workload: options.workload,
        verdict: Err(PANIC.take().unwrap_or_else(|| "a machine panicked".to_string())),
        trace: 0,
        tally: Tally::default(),
        virtual_time: Duration::ZERO,
        events: 0,
        operations: (0, 0, 0),
    })
}

impl fmt::Display for SimReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64().max(0.001);
        let (ok, failed, unknown) = self.operations;
        writeln!(
            f,
            "{} seeds in {seconds:.1} s ({:.0} seeds/min, {:.0} events/s), {:.2} virtual hours, {} repeated with the same trace, {} with a clock beyond its bound",
            self.seeds,
            self.seeds as f64 * 60.0 / seconds,
            self.events as f64 / seconds,
            self.virtual_time.as_secs_f64() / 3600.0,
            self.repeated,
            self.beyond_bound,
        )?;
        for (workload, seeds) in &self.workloads {
            writeln!(
                f,
                "  {:<10} {seeds} seeds: {}",
                workload.name(),
                workload.make().invariant()
            )?;
        }
        writeln!(f, "operations: {ok} ok, {failed} failed, {unknown} unknown")?;
        writeln!(f, "what happened:")?;
        for (what, count) in self.tally.iter() {
            writeln!(f, "  {count:>10}  {what}")?;
        }
        let missed = self.tally.missed();
        if !missed.is_empty() {
            writeln!(f, "never happened: {}", missed.join(", "))?;
        }
        writeln!(f, "rare turns taken:")?;
        self.tell_of_rare(f)?;
        self.tell_of_marks(f)?;
        for failure in self.failures.iter().take(FAILURES_TOLD) {
            writeln!(f, "FAILED seed {} ({}): {}", failure.seed, failure.workload, failure.why)?;
            writeln!(f, "  replay: {}", failure.replay)?;
        }
        for failure in self.failures.iter().skip(FAILURES_TOLD) {
            writeln!(f, "FAILED seed {}; replay: {}", failure.seed, failure.replay)?;
        }
        match self.failures.len() {
            0 => write!(f, "all good"),
            count => write!(f, "{count} of {} seeds failed", self.seeds),
        }
    }
}
