//! Value: which scripts real nodes can play, and with which of the script's workloads.

use ::chaos::check::Level;
use ::chaos::script::{Action, Assertion, Script};
use ::chaos::workload::Kind as Workload;
use ::chaos::world::fault::Fault;

use crate::workload::AnyLoad;

/// The workloads that run here: the script's first list of which all do. The error: why none is.
pub(super) fn workloads(script: &Script) -> Result<&[Workload], String> {
    let runs = |kind: Workload| AnyLoad::of_script(kind).is_some();
    let no = |why: String| Err(format!("{}: {why}", script.workloads_at));
    let Some(kinds) = script.workloads_where(runs) else {
        let mut all = script.workloads.iter().flatten();
        let kind = all.find(|kind| !runs(**kind)).map_or("?", |kind| kind.name());
        return no(format!(
            "workload {kind} runs in the simulated world only; bank, sql-bank, register, append, counter and monotonic run here (`workload {kind} or append`: append where {kind} does not run)"
        ));
    };
    if kinds.contains(&Workload::Bank) && kinds.contains(&Workload::SqlBank) {
        return no("bank and sql-bank are one workload here".to_string());
    }
    Ok(kinds)
}

/// The first thing in the script that cannot be done to real nodes.
pub(super) fn refuse(script: &Script, ours: bool) -> Result<(), String> {
    let kinds = workloads(script)?;
    let level = Level::from(script.real_time());
    let told =
        |kind: &Workload| AnyLoad::of_script(*kind).is_some_and(|load| load.judges_early(level));
    let is_told = kinds.iter().any(told);
    for planned in &script.plan {
        let no = |why: &str| Err(format!("{}: `{}`: {why}", planned.place, planned.text));
        let faults: &[Fault] = match &planned.action {
            Action::Do(faults) => faults,
            Action::Down(..) if !ours => {
                return no("a running cluster's processes can be restarted only (`restart`)");
            }
            Action::Assert(Assertion::Invariant) if !is_told => {
                return no(
                    "no workload here can be judged before the end: bank, append and monotonic can, and register while clocks are right",
                );
            }
            Action::Down(..) | Action::Assert(_) => continue,
        };
        for fault in faults {
            match fault {
                Fault::Cut(..)
                | Fault::Join(..)
                | Fault::Clog(..)
                | Fault::Unclog(..)
                | Fault::Step(..)
                | Fault::Drift(_, 0, _)
                | Fault::Crash(..)
                | Fault::Heal => {}
                Fault::Weather(weather)
                    if weather.duplicate_permille == 0 && weather.reorder_permille == 0 => {}
                Fault::Weather(_) => {
                    return no(
                        "a real stream loses messages, and neither doubles nor reorders them",
                    );
                }
                Fault::Start(_) | Fault::Blackout | Fault::Pause(_) | Fault::Resume(_) if ours => {}
                Fault::Start(_) | Fault::Blackout | Fault::Pause(_) | Fault::Resume(_) => {
                    return no("this needs `--world processes`");
                }
                Fault::Fuse(..)
                | Fault::Stall(..)
                | Fault::SyncError(_)
                | Fault::WriteError(_)
                | Fault::Full(_)
                | Fault::Roomy(_)
                | Fault::Drift(..)
                | Fault::Flush(_)
                | Fault::HandOver(..)
                | Fault::Collect(..)
                | Fault::Split(_)
                | Fault::Throttle(..)
                | Fault::Slow(..)
                | Fault::ReadError(_)
                | Fault::Drain(_)
                | Fault::Rot(_)
                | Fault::RotState(_)
                | Fault::CutRegion(_)
                | Fault::JoinRegion(_)
                | Fault::Replace(_)
                | Fault::Undrain(_)
                | Fault::Straying(_)
                | Fault::WeatherLink(..)
                | Fault::StrayingLink(..)
                | Fault::CreateError(_)
                | Fault::StateError(..)
                | Fault::StallState(..)
                | Fault::FullState(_)
                | Fault::RoomyState(_)
                | Fault::HealCore(_)
                | Fault::Ambush(..) => return no("only the simulated world can do that"),
            }
        }
    }
    Ok(())
}
