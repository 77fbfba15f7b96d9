//! Driver: faults that wait for their moment: the next node to which something happens is struck in the same event.

use coverage::Mark;
use replication::range::NodeId;
use std::time::Duration;

use super::executor::Owner;
use super::fault::{Fault, Strike, Trigger};
use super::{Event, World};

/// One that waits.
pub(super) struct Ambush {
    trigger: Trigger,
    strike: Strike,
    /// How often its branch had been taken when it was laid.
    before: u64,
}

/// Of two strikes on one node that come sooner after each other only the first falls: an election is of many ranges at once.
const APART_NS: u64 = 200_000_000;

impl World {
    /// Lays an ambush.
    pub(super) fn lie_in_wait(&mut self, trigger: Trigger, strike: Strike) {
        let before = match trigger {
            Trigger::Reached(mark) => coverage::count(mark),
            Trigger::Elected | Trigger::Voted | Trigger::Reconfigured => 0,
        };
        self.ambushes.push(Ambush { trigger, strike, before });
    }

    /// Something happened in a machine of a node that somebody may lie in wait for.
    pub(super) fn spring(&mut self, trigger: Trigger, node: NodeId) {
        for (after, fault) in self.strike(trigger, node) {
            self.push_after(after, Event::Fault(fault));
        }
    }

    /// What strikes the node, and how soon.
    fn strike(&mut self, trigger: Trigger, node: NodeId) -> Vec<(Duration, Fault)> {
        let waits = |ambush: &Ambush| ambush.trigger == trigger;
        let Some(place) = self.ambushes.iter().position(waits) else { return Vec::new() };
        let now = self.truth.now();
        if self.struck.get(&node).is_some_and(|last| now - last < APART_NS) {
            return Vec::new();
        }
        self.struck.insert(node, now);
        let Ambush { strike, .. } = self.ambushes.remove(place);
        self.tally.count(match trigger {
            Trigger::Elected => "leaders struck as they were elected",
            Trigger::Voted => "voters struck as they voted",
            Trigger::Reconfigured => "leaders struck as they changed members",
            Trigger::Reached(_) => "nodes struck in a rare branch",
        });
        let others: Vec<NodeId> =
            self.access.nodes().into_iter().filter(|other| *other != node).collect();
        strike.faults(node, &others)
    }

    /// After a turn of a node: the branches that its machines have come to.
    pub(super) fn spring_reached(&mut self, node: NodeId) {
        if self.ambushes.is_empty() {
            return;
        }
        let mut reached: Vec<Mark> = Vec::new();
        for ambush in &mut self.ambushes {
            let Some(mark) = ambush.mark().filter(|mark| !is_of_gateways(*mark)) else { continue };
            let count = coverage::count(mark);
            if count > ambush.before && !reached.contains(&mark) {
                reached.push(mark);
            }
            ambush.before = count;
        }
        reached.into_iter().for_each(|mark| self.spring(Trigger::Reached(mark), node));
    }

    /// After tasks have run, and before anything that they say leaves: the branches that they have come to.
    pub(super) fn spring_seen(&mut self, lookout: Lookout) {
        if lookout.seen.is_empty() {
            return;
        }
        for ambush in &mut self.ambushes {
            if let Some(mark) = ambush.mark().filter(|mark| is_of_gateways(*mark)) {
                ambush.before = coverage::count(mark);
            }
        }
        for (node, mark) in lookout.seen {
            for (after, fault) in self.strike(Trigger::Reached(mark), node) {
                if after.is_zero() {
                    self.apply(fault);
                } else {
                    self.push_after(after, Event::Fault(fault));
                }
            }
        }
    }
}

impl Ambush {
    fn mark(&self) -> Option<Mark> {
        match self.trigger {
            Trigger::Reached(mark) => Some(mark),
            Trigger::Elected | Trigger::Voted | Trigger::Reconfigured => None,
        }
    }
}

/// Whether a task of a gateway comes to it, and no machine: such marks are looked at after each task, the others after each turn.
fn is_of_gateways(mark: Mark) -> bool {
    matches!(mark.area(), "txn/client" | "sql")
}

/// Sees whose task comes to a branch that somebody lies in wait for.
pub(super) struct Lookout {
    waited: Vec<(Mark, u64)>,
    seen: Vec<(NodeId, Mark)>,
}

impl Lookout {
    /// For these.
    pub(super) fn new(ambushes: &[Ambush]) -> Lookout {
        let mut waited: Vec<(Mark, u64)> = Vec::new();
        for ambush in ambushes {
            if let Some(mark) = ambush.mark().filter(|mark| is_of_gateways(*mark))
                && !waited.iter().any(|(known, _)| *known == mark)
            {
                waited.push((mark, ambush.before));
            }
        }
        Lookout { waited, seen: Vec::new() }
    }

    /// A task of this owner has just been polled.
    pub(super) fn polled(&mut self, owner: Owner) {
        for (mark, before) in &mut self.waited {
            let count = coverage::count(*mark);
            if count > *before
                && let Owner::Process { node, .. } = owner
            {
                self.seen.push((node, *mark));
            }
            *before = count;
        }
    }
}
