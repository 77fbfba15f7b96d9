//! Value: a script that was read: the topology, what clients do, and what happens when.

use replication::range::NodeId;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::check::RealTime;
use crate::workload::Kind;
use crate::world::fault::{Fault, Power};

/// Clocks farther apart than this void promises of real time, microseconds.
const SKEW_MAX_US: i64 = 125_000;

/// A whole script.
#[derive(Clone, PartialEq, Debug)]
pub struct Script {
    /// Names of regions; nodes stand in them in turn.
    pub regions: Vec<String>,
    /// How many nodes.
    pub nodes: u32,
    /// Round trips between regions, by place.
    pub round_trips: BTreeMap<(usize, usize), Duration>,
    /// Of everything random.
    pub seed: u64,
    /// What clients do, in lists of which the first counts that a world has all of; an empty one: there are no clients.
    pub workloads: Vec<Vec<Kind>>,
    /// Where that was said; the beginning, if it was not.
    pub workloads_at: Place,
    /// In order of time.
    pub plan: Vec<Planned>,
    /// When it ends.
    pub end: Duration,
}

/// Something at its time.
#[derive(Clone, PartialEq, Debug)]
pub struct Planned {
    /// After the workload was prepared.
    pub at: Duration,
    /// Where it is written.
    pub place: Place,
    /// As it was written; of a random episode, as it was drawn.
    pub text: String,
    /// Waited for before it is done; if it does not come in time, it is not done.
    pub when: Option<Assertion>,
    /// What.
    pub action: Action,
}

/// Where something stands in a script.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

impl Script {
    /// The region in which a node stands.
    pub fn region_of(&self, node: NodeId) -> &String {
        &self.regions[(node.0 as usize + self.regions.len() - 1) % self.regions.len()]
    }

    /// What clients do, all of it at once, in a world that has these workloads; `None`: it can do none of what the script asks for.
    pub fn workloads_where(&self, has: impl Fn(Kind) -> bool) -> Option<&[Kind]> {
        self.workloads.iter().find(|kinds| kinds.iter().all(|kind| has(*kind))).map(Vec::as_slice)
    }

    /// Whether clocks stay within their bound, so that real time counts.
    pub fn real_time(&self) -> RealTime {
        let far =
            |fault: &Fault| matches!(fault, Fault::Step(_, offset) if offset.abs() > SKEW_MAX_US);
        let beyond = self.plan.iter().any(|planned| match &planned.action {
            Action::Do(faults) => faults.iter().any(far),
            Action::Down(..) | Action::Assert(_) => false,
        });
        if beyond { RealTime::Waived } else { RealTime::Demanded }
    }
}

/// What happens.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Faults, together.
    Do(Vec<Fault>),
    /// These processes are not started again by themselves from now on; then the faults.
    Down(Vec<NodeId>, Power),
    /// Something must hold.
    Assert(Assertion),
}

/// What must hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Assertion {
    /// A transaction through each of these nodes succeeds in time.
    Available(Vec<NodeId>, Duration),
    /// A transaction through each of these nodes fails, with an answer, in time.
    Unavailable(Vec<NodeId>, Duration),
    /// Every range is led, every replica equal, in time.
    Converged(Duration),
    /// So many operations of workloads are acknowledged from now on, in time.
    Progress(usize, Duration),
    /// Nothing that must hold always is violated: what the simulated world watches, and what a workload can tell while it runs.
    Invariant,
}
