//! Driver: faults that wait for their moment: the next node to which something happens is struck in the same event.

use coverage::Mark;
use replication::range::NodeId;

use super::fault::{Strike, Trigger};
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

    /// Something happened on a node that somebody may lie in wait for.
    pub(super) fn spring(&mut self, trigger: Trigger, node: NodeId) {
        let waits = |ambush: &Ambush| ambush.trigger == trigger;
        let Some(place) = self.ambushes.iter().position(waits) else { return };
        let now = self.truth.now();
        if self.struck.get(&node).is_some_and(|last| now - last < APART_NS) {
            return;
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
        for (after, fault) in strike.faults(node, &others) {
            self.push_after(after, Event::Fault(fault));
        }
    }

    /// After a turn of a node: the branches that it has come to.
    pub(super) fn spring_reached(&mut self, node: NodeId) {
        if self.ambushes.is_empty() {
            return;
        }
        let mut reached: Vec<Mark> = Vec::new();
        for ambush in &mut self.ambushes {
            let Trigger::Reached(mark) = ambush.trigger else { continue };
            let count = coverage::count(mark);
            if count > ambush.before && !reached.contains(&mark) {
                reached.push(mark);
            }
            ambush.before = count;
        }
        reached.into_iter().for_each(|mark| self.spring(Trigger::Reached(mark), node));
    }
}
