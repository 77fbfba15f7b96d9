//! Value: what came of a script, in whichever world it was played, for people.

use std::fmt;
use std::time::Duration;

use replication::range::NodeId;

use super::figures::{Act, Mode, Served, by_second, longest_silence};
use super::planned::{Action, Place, Planned, Script};
use crate::check::file::Operation;
use crate::workload::Kind;
use crate::world::fault::Fault;

/// Heights of a bar in a terminal.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// How a line of the script went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Where it is written.
    pub place: Place,
    /// When its turn came, in the script's time.
    pub began: Duration,
    /// When it was done.
    pub ended: Duration,
    /// As it was written.
    pub text: String,
    /// What is wrong, if anything.
    pub verdict: Result<(), String>,
}

/// What came of a workload.
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    /// Which.
    pub kind: Kind,
    /// Its judge's word: what holds, or what does not.
    pub verdict: Result<String, String>,
    /// What its clients were served.
    pub acts: Vec<Act>,
    /// Its history; none if a file could not hold it.
    pub operations: Vec<Operation>,
}

/// What came of a script.
#[derive(Clone, PartialEq, Debug)]
pub struct Played {
    /// Every line that does something, in order.
    pub outcomes: Vec<Outcome>,
    /// Its workloads.
    pub loads: Vec<Loaded>,
    /// Of what must hold always.
    pub verdict: Result<(), String>,
    /// How long it took, workloads and all.
    pub length: Duration,
}

/// A fault on the timeline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// As it was written.
    pub text: String,
    /// From when.
    pub from: Duration,
    /// Until when: the beginning, of what is over at once.
    pub to: Duration,
}

/// What one region's clients were served by the tables of one mode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Regional {
    /// The region's name.
    pub region: String,
    /// Which tables.
    pub mode: Mode,
    /// In all.
    pub served: Served,
    /// By second.
    pub seconds: Vec<Served>,
    /// The longest time without an acknowledgement.
    pub silence: Duration,
}

impl Played {
    /// Whether everything held.
    pub fn is_good(&self) -> bool {
        self.verdict.is_ok()
            && self.outcomes.iter().all(|outcome| outcome.verdict.is_ok())
            && self.loads.iter().all(|load| load.verdict.is_ok())
    }

    /// What each region was served, by mode of table.
    pub fn regional(&self, script: &Script) -> Vec<Regional> {
        let mut modes: Vec<Mode> = self.loads.iter().map(|load| Mode::of(load.kind)).collect();
        modes.sort();
        modes.dedup();
        let of = |mode: Mode, region: &String| {
            let loads = self.loads.iter().filter(|load| Mode::of(load.kind) == mode);
            let here = |act: &&Act| script.region_of(act.node) == region;
            let acts: Vec<Act> = loads.flat_map(|load| &load.acts).filter(here).copied().collect();
            Regional {
                region: region.clone(),
                mode,
                served: Served::of(&acts),
                seconds: by_second(&acts, self.length),
                silence: longest_silence(&acts, self.length),
            }
        };
        let pairs =
            modes.iter().flat_map(|mode| script.regions.iter().map(move |region| (*mode, region)));
        pairs.map(|(mode, region)| of(mode, region)).collect()
    }

    /// The faults, each from its line to the line that ended it.
    pub fn spans(&self, script: &Script) -> Vec<Span> {
        let lines: Vec<(&Planned, &Outcome)> = script.plan.iter().zip(&self.outcomes).collect();
        let end_of = |place: usize, first: &Fault| {
            let later = lines[place + 1..].iter().find(|(planned, _)| match &planned.action {
                Action::Do(faults) => faults.iter().any(|other| ends(first, other)),
                Action::Down(..) | Action::Assert(_) => false,
            });
            later.map_or(self.length, |(_, outcome)| outcome.began)
        };
        let span = |(place, (planned, outcome)): (usize, &(&Planned, &Outcome))| {
            let first = match &planned.action {
                Action::Do(faults) => faults.first()?.clone(),
                Action::Down(nodes, power) => Fault::Crash(*nodes.first()?, *power),
                Action::Assert(_) => return None,
            };
            let lasts = match (&planned.action, &first) {
                (Action::Down(..), _) => end_of(place, &first),
                (_, Fault::Stall(_, duration)) => outcome.began + *duration,
                (_, fault) if lasts(fault) => end_of(place, fault),
                (_, fault) if is_end(fault) => return None,
                _ => outcome.began,
            };
            let text = planned.text.clone();
            Some(Span { text, from: outcome.began, to: lasts.min(self.length) })
        };
        lines.iter().enumerate().filter_map(span).collect()
    }

    /// A table of what each region was served, with a bar for each second.
    pub fn table(&self, script: &Script) -> String {
        let mut text = String::new();
        let regional = self.regional(script);
        let most = regional.iter().flat_map(|one| &one.seconds).map(|second| second.ok).max();
        for one in regional {
            let bar = |second: &Served| {
                let height = second.ok * (BARS.len() - 1);
                BARS[height.div_ceil(most.unwrap_or(1).max(1)).min(BARS.len() - 1)]
            };
            let Served { ok, failed, unknown, p50, p99 } = one.served;
            let percent = one.served.percent().map_or("-".to_string(), |n| format!("{n:.1} %"));
            text += &format!(
                "  {:<10} {:<12} ok {ok} ({percent}), failed {failed}, unknown {unknown}; p50 {:.0} ms, p99 {:.0} ms; longest silence {:.1} s\n             |{}|\n",
                one.mode.to_string(),
                one.region,
                p50.as_secs_f64() * 1000.0,
                p99.as_secs_f64() * 1000.0,
                one.silence.as_secs_f64(),
                one.seconds.iter().map(bar).collect::<String>(),
            );
        }
        text
    }
}

/// Whether a fault lasts until something ends it.
fn lasts(fault: &Fault) -> bool {
    match fault {
        Fault::Cut(..)
        | Fault::CutRegion(_)
        | Fault::Clog(..)
        | Fault::Pause(_)
        | Fault::Full(_)
        | Fault::FullState(_)
        | Fault::Drain(_) => true,
        Fault::Throttle(_, _, bytes) => bytes.is_some(),
        Fault::Slow(_, times) => *times > 1,
        Fault::Step(_, offset) => *offset != 0,
        Fault::Drift(_, monotonic, wall) => (*monotonic, *wall) != (0, 0),
        Fault::Weather(weather) => *weather != Default::default(),
        Fault::WeatherLink(_, _, weather) => *weather != Default::default(),
        Fault::Straying(straying) => *straying != Default::default(),
        Fault::StrayingLink(_, _, straying) => *straying != Default::default(),
        Fault::Join(..)
        | Fault::JoinRegion(_)
        | Fault::Unclog(..)
        | Fault::Crash(..)
        | Fault::Fuse(..)
        | Fault::Start(_)
        | Fault::Blackout
        | Fault::Resume(_)
        | Fault::Stall(..)
        | Fault::SyncError(_)
        | Fault::WriteError(_)
        | Fault::Roomy(_)
        | Fault::Flush(_)
        | Fault::HandOver(..)
        | Fault::Collect(..)
        | Fault::Split(_)
        | Fault::ReadError(_)
        | Fault::CreateError(_)
        | Fault::StateError(..)
        | Fault::StallState(..)
        | Fault::RoomyState(_)
        | Fault::Rot(_)
        | Fault::RotState(_)
        | Fault::Replace(_)
        | Fault::Undrain(_)
        | Fault::Ambush(..)
        | Fault::HealCore(_)
        | Fault::Heal => false,
    }
}

/// Whether it does nothing but end others.
fn is_end(fault: &Fault) -> bool {
    match fault {
        Fault::Join(..)
        | Fault::JoinRegion(_)
        | Fault::Unclog(..)
        | Fault::Start(_)
        | Fault::Resume(_)
        | Fault::Roomy(_)
        | Fault::RoomyState(_)
        | Fault::Undrain(_)
        | Fault::Heal => true,
        Fault::Step(..)
        | Fault::Drift(..)
        | Fault::Weather(_)
        | Fault::WeatherLink(..)
        | Fault::Straying(_)
        | Fault::StrayingLink(..)
        | Fault::Throttle(..)
        | Fault::Slow(..) => !lasts(fault),
        Fault::Cut(..)
        | Fault::CutRegion(_)
        | Fault::Clog(..)
        | Fault::Pause(_)
        | Fault::Full(_)
        | Fault::FullState(_)
        | Fault::Crash(..)
        | Fault::Fuse(..)
        | Fault::Blackout
        | Fault::Stall(..)
        | Fault::SyncError(_)
        | Fault::WriteError(_)
        | Fault::Flush(_)
        | Fault::HandOver(..)
        | Fault::Collect(..)
        | Fault::ReadError(_)
        | Fault::CreateError(_)
        | Fault::StateError(..)
        | Fault::StallState(..)
        | Fault::Rot(_)
        | Fault::RotState(_)
        | Fault::Replace(_)
        | Fault::Drain(_)
        | Fault::Ambush(..)
        | Fault::HealCore(_)
        | Fault::Split(_) => false,
    }
}

/// Whether the second ends the first.
fn ends(first: &Fault, second: &Fault) -> bool {
    let same = |a: &NodeId, b: &NodeId| a == b;
    match (first, second) {
        (_, Fault::Heal) => true,
        (Fault::Crash(a, _), Fault::Start(b))
        | (Fault::Pause(a), Fault::Resume(b))
        | (Fault::Full(a), Fault::Roomy(b))
        | (Fault::FullState(a), Fault::RoomyState(b))
        | (Fault::Drain(a), Fault::Undrain(b))
        | (Fault::Slow(a, _), Fault::Slow(b, _))
        | (Fault::Step(a, _), Fault::Step(b, _))
        | (Fault::Drift(a, _, _), Fault::Drift(b, _, _)) => same(a, b),
        (Fault::Clog(a, b), Fault::Unclog(c, d))
        | (Fault::Throttle(a, b, _), Fault::Throttle(c, d, _))
        | (Fault::WeatherLink(a, b, _), Fault::WeatherLink(c, d, _))
        | (Fault::StrayingLink(a, b, _), Fault::StrayingLink(c, d, _)) => same(a, c) && same(b, d),
        (Fault::Cut(a, b), Fault::Join(c, d)) => a == c && b == d,
        (Fault::CutRegion(a), Fault::JoinRegion(b)) => a == b,
        (Fault::Weather(_), Fault::Weather(_)) | (Fault::Straying(_), Fault::Straying(_)) => true,
        _ => false,
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match &self.verdict {
            Ok(()) => "ok".to_string(),
            Err(why) => format!("FAILED: {why}"),
        };
        write!(f, "{:>8.1} s  {:<50} {verdict}", self.began.as_secs_f64(), self.text)
    }
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Served { ok, failed, unknown, .. } = Served::of(&self.acts);
        let counts = format!("{ok} ok, {failed} failed, {unknown} unknown");
        match &self.verdict {
            Ok(holds) => write!(f, "{}: {counts}; {holds}", self.kind),
            Err(why) => write!(f, "{}: {counts}; FAILED: {why}", self.kind),
        }
    }
}
