//! Driver: testing the tester: brings back each known killer and counts the seeds until the simulator notices.
//!
//! Every mutant is hunted several times, each time over other seeds, with the workloads in turn. What is not noticed within the limit is told
//! as *not found*, and a killer without a mutant as *not covered*: neither is ever left out.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::episode::Options;
use crate::killers::KILLERS;
use crate::planted::{Aim, MUTANTS, Mutant, Planted};
use crate::sim::run_caught;
use crate::workload::Kind;
use crate::world::Level;

/// Between the first seeds of two hunts.
const APART: u64 = 1_000_000;
/// Workloads of hunts: those over keys, which are fast, and each seed's in turn.
const WORKLOADS: [Kind; 8] = [
    Kind::Bank,
    Kind::Register,
    Kind::Append,
    Kind::Txn,
    Kind::Skew,
    Kind::LongFork,
    Kind::Monotonic,
    Kind::Strict,
];

/// The same for mistakes in SQL.
const SQL_WORKLOADS: [Kind; 6] =
    [Kind::Shop, Kind::Cells, Kind::SqlBank, Kind::Shop, Kind::Session, Kind::Counter];

/// How to hunt.
#[derive(Clone, Debug)]
pub struct HuntOptions {
    /// Seeds per hunt until it is given up.
    pub seeds: u64,
    /// Hunts per mutant.
    pub hunts: u64,
    /// How many at once.
    pub threads: usize,
    /// Only the mutant of this name.
    pub only: Option<String>,
}

/// What came of one mutant.
#[derive(Clone, Debug)]
pub struct Quarry {
    /// Which.
    pub mutant: &'static Mutant,
    /// Of each hunt: seeds until it was found.
    pub found: Vec<Option<u64>>,
    /// What was noticed first.
    pub how: String,
}

impl Quarry {
    /// Seeds until found, in the middle of all hunts; `None`: most did not find it.
    pub fn median(&self) -> Option<u64> {
        let mut sorted: Vec<u64> = self.found.iter().map(|n| n.unwrap_or(u64::MAX)).collect();
        sorted.sort_unstable();
        let middle = *sorted.get(sorted.len().saturating_sub(1) / 2)?;
        (middle != u64::MAX).then_some(middle)
    }

    /// Whether it was not found because something else guards against what it breaks.
    pub fn is_masked(&self) -> bool {
        self.mutant.guard.is_some() && self.median().is_none()
    }

    /// The most; `None`: some hunt did not find it.
    pub fn most(&self) -> Option<u64> {
        self.found.iter().copied().collect::<Option<Vec<u64>>>()?.into_iter().max()
    }
}

/// What came of all.
#[derive(Clone, Debug)]
pub struct HuntReport {
    /// How it was hunted.
    pub options: HuntOptions,
    /// In the order of [`MUTANTS`].
    pub quarries: Vec<Quarry>,
}

/// Hunts all mutants; tells of each as it ends.
pub fn hunt(options: &HuntOptions, progress: &(dyn Fn(&Quarry) + Sync)) -> HuntReport {
    let wanted: Vec<&'static Mutant> = MUTANTS
        .iter()
        .filter(|mutant| options.only.as_ref().is_none_or(|name| name == mutant.name))
        .collect();
    let next = AtomicUsize::new(0);
    let quarries: Mutex<BTreeMap<usize, Quarry>> = Mutex::default();
    let work = || {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(mutant) = wanted.get(place) else { return };
            let quarry = hunt_one(options, mutant);
            progress(&quarry);
            quarries.lock().insert(place, quarry);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(work);
        }
    });
    HuntReport { options: options.clone(), quarries: quarries.into_inner().into_values().collect() }
}

fn hunt_one(options: &HuntOptions, mutant: &'static Mutant) -> Quarry {
    let mut quarry = Quarry { mutant, found: Vec::new(), how: String::new() };
    for number in 0..options.hunts {
        let first = number * APART + 1;
        let (workloads, level) = match (&mutant.workload, mutant.planted) {
            (Some(only), _) => (std::slice::from_ref(only), only.level()),
            (None, Planted::Sql(_)) => (&SQL_WORKLOADS[..], Level::Sql),
            (None, _) => (&WORKLOADS[..], Level::Keys),
        };
        let aimed = (first..first + APART).filter(|seed| mutant.aim.is_at(*seed, level));
        let limit = usize::try_from(options.seeds).unwrap_or(usize::MAX);
        let found = aimed.take(limit).zip(workloads.iter().cycle()).position(|(seed, workload)| {
            let one = Options { seed, workload: *workload, planted: Some(mutant.planted) };
            match run_caught(one).verdict {
                Ok(()) => false,
                // A seed that fails without the mistake as well says nothing of it.
                Err(_) if run_caught(Options { planted: None, ..one }).verdict.is_err() => false,
                Err(why) => {
                    if quarry.how.is_empty() {
                        quarry.how = why.lines().next().unwrap_or_default().to_string();
                    }
                    true
                }
            }
        });
        quarry.found.push(found.map(|place| place as u64 + 1));
        // What a whole hunt does not find, others rarely do: their time is better spent.
        if found.is_none() {
            break;
        }
    }
    quarry
}

impl HuntReport {
    /// Mutants that some hunt did not find.
    pub fn missed(&self) -> Vec<&'static str> {
        let missed = self.quarries.iter().filter(|quarry| quarry.most().is_none());
        missed.map(|quarry| quarry.mutant.name).collect()
    }
}

/// The table of docs/killers.md.
impl fmt::Display for HuntReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HuntOptions { seeds, hunts, .. } = self.options;
        writeln!(f, "# Known killers, and whether the simulator finds them\n")?;
        writeln!(
            f,
            "Generated by `meridian sim --mutants --seeds {seeds} --hunts {hunts}`; do not edit. Each planted bug is hunted {hunts} times over fresh seeds \
             of the whole simulated stack, up to {seeds} seeds each. *Not covered* says that no planted bug brings the killer back: either its code does \
             not exist yet or nobody has planted it. Where seeds *of those with* an ordeal or a raid are counted, only these were run: others hardly ever \
             come to what the killer needs. One seed in 40 has a given ordeal, one in 20 a given raid.\n"
        )?;
        let found = self.quarries.iter().filter(|quarry| quarry.most().is_some()).count();
        let masked = self.quarries.iter().filter(|quarry| quarry.is_masked()).count();
        writeln!(
            f,
            "{found} of {} planted bugs were found in every hunt; {masked} are masked: something else keeps them from doing harm.",
            self.quarries.len()
        )?;
        let mut section = "";
        for killer in KILLERS {
            if killer.section != section {
                section = killer.section;
                writeln!(f, "\n## {section}\n")?;
                writeln!(
                    f,
                    "| killer | what | planted bug | seeds until found: median, most | noticed as |"
                )?;
                writeln!(f, "|---|---|---|---|---|")?;
            }
            let mut covered = false;
            let mine =
                self.quarries.iter().filter(|quarry| quarry.mutant.killers.contains(&killer.id));
            for quarry in mine {
                covered = true;
                let number = |n: Option<u64>| n.map_or("not found".to_string(), |n| n.to_string());
                let counts = match (quarry.median(), quarry.most()) {
                    (None, None) if quarry.mutant.guard.is_some() => "masked".to_string(),
                    (None, None) => "**not found**".to_string(),
                    (median, most) => format!("{}, {}", number(median), number(most)),
                };
                let counts = match quarry.mutant.aim {
                    Aim::Any => counts,
                    aim => format!("{counts} of those with {aim}"),
                };
                let name = quarry.mutant.name;
                let how = match quarry.mutant.guard {
                    Some(guard) if quarry.how.is_empty() => guard.to_string(),
                    Some(_) | None => short(&quarry.how),
                };
                writeln!(f, "| {} | {} | `{name}` | {counts} | {how} |", killer.id, killer.what)?;
            }
            if !covered {
                writeln!(
                    f,
                    "| {} | {} | none | **not covered** | {} |",
                    killer.id, killer.what, killer.note
                )?;
            }
        }
        Ok(())
    }
}

/// The first words of what was noticed, fit for a table.
fn short(how: &str) -> String {
    const LENGTH_MAX: usize = 110;
    let clean: String = how.chars().map(|c| if c == '|' { '/' } else { c }).collect();
    match clean.char_indices().nth(LENGTH_MAX) {
        None => clean,
        Some((end, _)) => format!("{}..", &clean[..end]),
    }
}
