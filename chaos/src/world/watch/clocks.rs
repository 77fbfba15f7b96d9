//! Value: what hybrid clocks promise, with all clocks at hand.
//!
//! - *No reading is given out twice*, over restarts.
//! - *A clock is never farther ahead of what its own wall clock has ever shown than the cap*: others cannot drag it along (H02).
//! - *Who has taken a message reads a later time than it carried* (H03).
//! - *A clock that everybody knows to be wrong serves nothing* (H13).
//! - *No clock is farther ahead of a reader's than the reader's uncertainty says*, while both are within their share of the cap: what was
//!   acknowledged before a read began is in its past, or in its uncertainty interval (H05, H13).

use clock::{CAP_DEFAULT, ClockTimestamp, TimeSource, Timestamp, share};
use replication::range::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use txn::runtime::HlcSource;

use crate::world::machine::Machine;
use crate::world::time::EPOCH_US;
use crate::world::{World, nanos};

/// Clocks are read in whole microseconds, and an uncertainty is up to one look old while it grows with what drift allows for.
const ROUNDING: Duration = Duration::from_micros(600);
/// Beyond this no estimate is so bad that it does not show, if the round trip was short.
const ASTRAY_US: i64 = 500_000;
/// A round trip so short shows it.
const TRIP_MAX: Duration = Duration::from_millis(200);
/// By then it must have been noticed.
const NOTICED: Duration = Duration::from_millis(1500);

/// What was seen of all clocks so far.
#[derive(Default)]
pub(super) struct ClockWatch {
    /// The latest that a wall clock has shown, or that a start began at.
    wall: BTreeMap<NodeId, Timestamp>,
    /// The last reading that was asked for, by whatever process of a node.
    readings: BTreeMap<NodeId, ClockTimestamp>,
    /// The last reading of a process that has died.
    last: BTreeMap<NodeId, Timestamp>,
    /// Since when a clock is wrong by more than [`ASTRAY_US`] against everybody, and who has told it so.
    astray: BTreeMap<NodeId, (u64, BTreeSet<NodeId>)>,
}

impl World {
    /// A process begins.
    pub(in crate::world) fn clock_began(&mut self, node: NodeId, floor: Timestamp) {
        let Some(process) = &self.machines[&node].process else { return };
        let first = process.clock.now().timestamp();
        self.watch
            .clocks
            .wall
            .entry(node)
            .and_modify(|wall| *wall = (*wall).max(floor))
            .or_insert(floor);
        if let Some(last) = self.watch.clocks.last.get(&node).copied()
            && first <= last
        {
            self.violate(format!(
                "the clock of {node} begins at {first}, its former life read {last}"
            ));
        }
    }

    /// A process ends.
    pub(super) fn clock_ended(&mut self, node: NodeId, last: Timestamp) {
        self.watch.clocks.astray.remove(&node);
        let known = self.watch.clocks.last.entry(node).or_insert(last);
        *known = last.max(*known);
    }

    /// The wall clock is about to change, or is looked at.
    pub(in crate::world) fn note_wall(&mut self, node: NodeId) {
        let machine = &self.machines[&node];
        let process = machine.process.as_ref();
        let wall = process.map_or_else(|| machine.time.wall(), |process| process.clock.wall());
        let wall = wall.timestamp();
        let known = self.watch.clocks.wall.entry(node).or_insert(wall);
        *known = wall.max(*known);
    }

    /// After a turn of a node.
    pub(super) fn check_reading(&mut self, node: NodeId) {
        let Some(process) = &self.machines[&node].process else { return };
        let reading = process.clock.now();
        let former = self.watch.clocks.readings.insert(node, reading);
        if let Some(former) = former.filter(|former| reading <= *former) {
            self.violate(format!("the clock of {node} reads {reading} after {former}"));
        }
    }

    /// A message was taken that carried this clock.
    pub(in crate::world) fn check_carried(&mut self, node: NodeId, carried: ClockTimestamp) {
        let Some(process) = &self.machines[&node].process else { return };
        let last = process.clock.last();
        if last < carried {
            self.violate(format!("{node} took a message of {carried} and reads {last} after it"));
        }
    }

    /// Compares all clocks with what this node's readers allow for. Left out is who is fenced, as no reader counts on it, and whose clock is
    /// beyond its share of the cap: nothing is promised of it.
    fn check_uncertainty(&mut self, node: NodeId) {
        let truth = EPOCH_US + self.truth.now() / 1000;
        let share_us = share(CAP_DEFAULT).as_micros() as u64;
        let clock_of = |machine: &Machine| {
            let clock = machine.process.as_ref()?.clock.clone();
            let reads = clock.wall();
            (clock.is_clear() && reads.micros().abs_diff(truth) <= share_us)
                .then_some((clock, reads))
        };
        let Some((own, reads)) = clock_of(&self.machines[&node]) else { return };
        let limit = reads.plus(own.uncertainty()).plus(ROUNDING);
        let others = self.machines.values().filter(|other| other.id != node);
        let ahead = others.filter_map(|other| Some((other.id, clock_of(other)?.1)));
        if let Some((other, there)) = ahead.max_by_key(|(_, there)| *there)
            && there > limit
        {
            let uncertainty = own.uncertainty();
            self.violate(format!(
                "readers on {node}, where it is {reads}, allow for {uncertainty:?}, but it is {there} on {other}"
            ));
        }
    }

    /// An answer to a question for the time has come.
    pub(in crate::world) fn note_trip(&mut self, node: NodeId, peer: NodeId, trip: Duration) {
        if trip <= TRIP_MAX
            && let Some((_, told)) = self.watch.clocks.astray.get_mut(&node)
        {
            told.insert(peer);
        }
    }

    /// A clock was looked at.
    pub(in crate::world) fn check_clock(&mut self, node: NodeId) {
        self.note_wall(node);
        let Some(process) = &self.machines[&node].process else { return };
        let last = process.clock.last().timestamp();
        let limit = self.watch.clocks.wall[&node].plus(CAP_DEFAULT).plus(Duration::from_millis(1));
        if last > limit {
            self.violate(format!("the clock of {node} was dragged to {last}, beyond {limit}"));
        }
        self.check_astray(node);
        self.check_uncertainty(node);
    }

    fn check_astray(&mut self, node: NodeId) {
        let own = self.machines[&node].time.wall_offset_us();
        let others = self.machines.iter().filter(|(other, machine)| {
            **other != node && machine.incarnation > 0 && !machine.retired
        });
        let alone = others.clone().count() >= 2
            && others
                .clone()
                .all(|(_, other)| (other.time.wall_offset_us() - own).abs() > ASTRAY_US);
        let peer_count = others.count();
        if !alone {
            self.watch.clocks.astray.remove(&node);
            return;
        }
        let now = self.truth.now();
        let blocked = self.waits_in_a_sync(node);
        let (since, told) =
            self.watch.clocks.astray.entry(node).or_insert_with(|| (now, BTreeSet::new()));
        if blocked {
            // It neither serves nor hears what its clocks say.
            *since = now;
        }
        if now - *since < nanos(NOTICED) || told.len() < peer_count {
            return;
        }
        let holds = self.leases_of(node);
        if let Some(range) = holds.first() {
            let far = Duration::from_micros(own.unsigned_abs());
            self.violate(format!("{node} serves {range} though its clock is wrong by {far:?} and all peers told it so"));
        }
    }
}
