//! Value: what can be done to a world. Fault plans of the simulator and scripts both end in these.

use replication::range::{NodeId, RegionId};
use std::fmt;
use std::time::Duration;
use storage::Key;
use storage::memory::Operation;

use coverage::Mark;

use super::network::{Straying, Weather};

/// What a crash leaves of writes that were not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Power {
    /// The process dies, the machine does not: files keep everything.
    Kept,
    /// The process ends in good order: what its clock and its disk know is written down.
    Stopped,
    /// The machine loses power: any part of what was not synced is lost, or torn.
    Lost,
}

/// What an ambush waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// A node has become leader of a range.
    Elected,
    /// It has voted.
    Voted,
    /// It leads a range into or out of a joint membership.
    Reconfigured,
    /// It has come to this branch of the product, in one of its machines or in a task of its gateway.
    Reached(Mark),
}

/// What happens to that node then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strike {
    /// It loses power after so many more outputs.
    Fuse(u32),
    /// Nothing passes from or to it, for so long.
    Isolate(Duration),
    /// The same, from so much later on.
    Sever(Duration, Duration),
    /// Nothing passes to it, for so long.
    Deafen(Duration),
    /// Nothing passes from it to another one, by its place among the others, for so long.
    Snub(usize, Duration),
    /// What it sends to another one, by its place among the others, is very late, for so long.
    Clog(usize, Duration),
    /// It stands still for so long.
    Pause(Duration),
    /// Its disk hangs for so long, and then it loses power.
    Stall(Duration),
    /// Its disk hangs for so long, and nothing else happens to it.
    Hang(Duration),
    /// Nothing passes from or to it for so long; its disk hangs soon after that began, and for a little longer: what it has begun to
    /// write meanwhile others overwrite.
    Choke(Duration),
    /// Another one, by its place among the others, loses power so much later.
    Fell(usize, Duration),
    /// All others lose power.
    FellOthers,
}

/// A choked node's disk hangs for so much longer than it is cut off.
const CHOKE_MORE: Duration = Duration::from_millis(700);
/// Its disk hangs after this part of that time.
const CHOKE_DIVISOR: u32 = 8;

impl Strike {
    /// The faults that it is made of, and when, on `node`.
    pub fn faults(self, node: NodeId, others: &[NodeId]) -> Vec<(Duration, Fault)> {
        let (own, others) = (vec![node], others.to_vec());
        let (begins, inwards) = (Duration::ZERO, (others.clone(), own.clone()));
        match self {
            Strike::Fuse(outputs) => vec![(begins, Fault::Fuse(node, outputs))],
            Strike::Deafen(ends) => vec![
                (begins, Fault::Cut(inwards.0.clone(), inwards.1.clone())),
                (ends, Fault::Join(inwards.0, inwards.1)),
            ],
            Strike::Isolate(ends) => parted(&own, &others, begins, ends).to_vec(),
            Strike::Sever(after, ends) => parted(&own, &others, after, after + ends).to_vec(),
            Strike::Snub(place, ends) => match others.get(place % others.len().max(1)) {
                None => Vec::new(),
                Some(other) => vec![
                    (begins, Fault::Cut(own.clone(), vec![*other])),
                    (ends, Fault::Join(own, vec![*other])),
                ],
            },
            Strike::Clog(place, ends) => match others.get(place % others.len().max(1)) {
                None => Vec::new(),
                Some(other) => {
                    vec![(begins, Fault::Clog(node, *other)), (ends, Fault::Unclog(node, *other))]
                }
            },
            Strike::Choke(ends) => {
                let hangs = ends / CHOKE_DIVISOR;
                let mut faults = parted(&own, &others, begins, ends).to_vec();
                faults.push((hangs, Fault::Stall(node, ends - hangs + CHOKE_MORE)));
                faults
            }
            Strike::Fell(place, after) => {
                let other = others.get(place % others.len().max(1));
                other.map(|other| (after, Fault::Crash(*other, Power::Lost))).into_iter().collect()
            }
            Strike::FellOthers => {
                others.into_iter().map(|other| (begins, Fault::Crash(other, Power::Lost))).collect()
            }
            Strike::Hang(ends) => vec![(begins, Fault::Stall(node, ends))],
            Strike::Pause(ends) => vec![(begins, Fault::Pause(node)), (ends, Fault::Resume(node))],
            Strike::Stall(ends) => {
                vec![(begins, Fault::Stall(node, ends)), (ends, Fault::Crash(node, Power::Lost))]
            }
        }
    }
}

/// Nothing passes between some and the rest, from one time to another.
pub(crate) fn parted(
    some: &[NodeId],
    rest: &[NodeId],
    at: Duration,
    ends: Duration,
) -> [(Duration, Fault); 4] {
    let (some, rest) = (some.to_vec(), rest.to_vec());
    [
        (at, Fault::Cut(rest.clone(), some.clone())),
        (at, Fault::Cut(some.clone(), rest.clone())),
        (ends, Fault::Join(rest.clone(), some.clone())),
        (ends, Fault::Join(some, rest)),
    ]
}

/// One fault, or the end of one.
#[derive(Clone, PartialEq, Debug)]
pub enum Fault {
    /// Nothing passes from any of these to any of those.
    Cut(Vec<NodeId>, Vec<NodeId>),
    /// Takes that back.
    Join(Vec<NodeId>, Vec<NodeId>),
    /// Nothing passes between a region and the others.
    CutRegion(RegionId),
    /// Takes that back.
    JoinRegion(RegionId),
    /// Messages from the one to the other are very late.
    Clog(NodeId, NodeId),
    /// Takes that back.
    Unclog(NodeId, NodeId),
    /// The link carries so many bytes per second and no more; `None`: as many as it is given.
    Throttle(NodeId, NodeId, Option<u64>),
    /// Loss, duplication, reordering on all links.
    Weather(Weather),
    /// The same on one link, in one direction.
    WeatherLink(NodeId, NodeId, Weather),
    /// Gateways' calls are late or come again, on all links.
    Straying(Straying),
    /// The same on one link, in one direction.
    StrayingLink(NodeId, NodeId, Straying),
    /// The process dies at once.
    Crash(NodeId, Power),
    /// It dies after so many more outputs (messages, appends, answers, syncs).
    Fuse(NodeId, u32),
    /// It starts, if it does not run.
    Start(NodeId),
    /// Every machine loses power at once.
    Blackout,
    /// The process stands still, its clocks do not.
    Pause(NodeId),
    /// It goes on.
    Resume(NodeId),
    /// Syncs of the log hang for so long.
    Stall(NodeId, Duration),
    /// Syncs of the log take so many times as long; 1: as they should.
    Slow(NodeId, u32),
    /// The next sync fails.
    SyncError(NodeId),
    /// The next write of the log fails.
    WriteError(NodeId),
    /// The next read of the log fails.
    ReadError(NodeId),
    /// The log gets no new file.
    CreateError(NodeId),
    /// The state cannot be read, written or flushed by the process that runs.
    StateError(NodeId, Operation),
    /// Flushes of the state that are under way or begin hang for so long.
    StallState(NodeId, Duration),
    /// The state's disk is full.
    FullState(NodeId),
    /// It has room again.
    RoomyState(NodeId),
    /// A bit on the log's disk turns round.
    Rot(NodeId),
    /// A bit of the state turns round.
    RotState(NodeId),
    /// The node is lost for good, and a new one takes its place, if the world has a machine left.
    Replace(NodeId),
    /// The log's disk is full.
    Full(NodeId),
    /// It has room again.
    Roomy(NodeId),
    /// The wall clock is put this far from true time, microseconds.
    Step(NodeId, i64),
    /// Rates of monotonic and wall clock, parts per million away from true time.
    Drift(NodeId, i64, i64),
    /// The state engine is flushed.
    Flush(NodeId),
    /// Whoever leads a range hands its lease to this node; which range, by place among those that are led.
    HandOver(usize, NodeId),
    /// Replicas shall leave the node.
    Drain(NodeId),
    /// They may come back.
    Undrain(NodeId),
    /// This key becomes the start of a range.
    Split(Key),
    /// What was overwritten so long ago, or longer, is collected in a range, by place among those that are led. Who still reads there is
    /// refused.
    Collect(usize, Duration),
    /// The next node to which that happens is struck so.
    Ambush(Trigger, Strike),
    /// Everything is healed and started, but nothing passes from or to this node.
    HealCore(NodeId),
    /// Everything is healed and started; clocks are right again.
    Heal,
}

impl Fault {
    /// Whether a world of so many nodes has the one that it strikes. Cuts between sets of nodes are within any world.
    pub fn is_within(&self, nodes: u32) -> bool {
        match self {
            Fault::Clog(from, to)
            | Fault::Unclog(from, to)
            | Fault::Throttle(from, to, _)
            | Fault::WeatherLink(from, to, _)
            | Fault::StrayingLink(from, to, _) => from.0.max(to.0) <= nodes,
            Fault::Crash(node, _)
            | Fault::Fuse(node, _)
            | Fault::Start(node)
            | Fault::Pause(node)
            | Fault::Resume(node)
            | Fault::Stall(node, _)
            | Fault::Slow(node, _)
            | Fault::SyncError(node)
            | Fault::WriteError(node)
            | Fault::ReadError(node)
            | Fault::CreateError(node)
            | Fault::StateError(node, _)
            | Fault::StallState(node, _)
            | Fault::FullState(node)
            | Fault::RoomyState(node)
            | Fault::Rot(node)
            | Fault::RotState(node)
            | Fault::Replace(node)
            | Fault::Drain(node)
            | Fault::Undrain(node)
            | Fault::Full(node)
            | Fault::Roomy(node)
            | Fault::Step(node, _)
            | Fault::Drift(node, _, _)
            | Fault::Flush(node)
            | Fault::HandOver(_, node)
            | Fault::HealCore(node) => node.0 <= nodes,
            Fault::Cut(..)
            | Fault::Join(..)
            | Fault::CutRegion(_)
            | Fault::JoinRegion(_)
            | Fault::Weather(_)
            | Fault::Straying(_)
            | Fault::Blackout
            | Fault::Split(_)
            | Fault::Collect(..)
            | Fault::Ambush(..)
            | Fault::Heal => true,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            |nodes: &[NodeId]| nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(" ");
        match self {
            Fault::Cut(from, to) => write!(f, "cut {} -> {}", names(from), names(to)),
            Fault::Join(from, to) => write!(f, "join {} -> {}", names(from), names(to)),
            Fault::CutRegion(region) => write!(f, "cut region {} off", region.0),
            Fault::JoinRegion(region) => write!(f, "join region {}", region.0),
            Fault::Clog(from, to) => write!(f, "clog {from} -> {to}"),
            Fault::Unclog(from, to) => write!(f, "unclog {from} -> {to}"),
            Fault::Throttle(from, to, Some(rate)) => write!(f, "{from} -> {to} carries {rate} B/s"),
            Fault::Throttle(from, to, None) => write!(f, "{from} -> {to} carries everything"),
            Fault::Weather(weather) => write!(f, "weather: {weather}"),
            Fault::WeatherLink(from, to, weather) => {
                write!(f, "weather of {from} -> {to}: {weather}")
            }
            Fault::Straying(straying) => write!(f, "{straying}"),
            Fault::StrayingLink(from, to, straying) => write!(f, "{from} -> {to}: {straying}"),
            Fault::Crash(node, Power::Stopped) => write!(f, "stop {node}"),
            Fault::Crash(node, Power::Kept) => write!(f, "kill {node}"),
            Fault::Crash(node, Power::Lost) => write!(f, "power off {node}"),
            Fault::Fuse(node, outputs) => write!(f, "power off {node} after {outputs} outputs"),
            Fault::Start(node) => write!(f, "start {node}"),
            Fault::Blackout => write!(f, "power off everything"),
            Fault::Pause(node) => write!(f, "pause {node}"),
            Fault::Resume(node) => write!(f, "resume {node}"),
            Fault::Stall(node, duration) => write!(f, "stall the disk of {node} for {duration:?}"),
            Fault::Slow(node, times) => write!(f, "slow the disk of {node} down {times} times"),
            Fault::SyncError(node) => write!(f, "fail a sync of {node}"),
            Fault::WriteError(node) => write!(f, "fail a write of {node}"),
            Fault::ReadError(node) => write!(f, "fail a read of {node}"),
            Fault::CreateError(node) => write!(f, "deny {node} a new file of its log"),
            Fault::StateError(node, operation) => {
                let what = match operation {
                    Operation::Read => "reads",
                    Operation::Write => "writes",
                    Operation::Flush => "flushes",
                };
                write!(f, "fail {what} of the state of {node}")
            }
            Fault::StallState(node, duration) => {
                write!(f, "stall flushes of the state of {node} for {duration:?}")
            }
            Fault::FullState(node) => write!(f, "fill the disk of the state of {node}"),
            Fault::RoomyState(node) => write!(f, "free the disk of the state of {node}"),
            Fault::Rot(node) => write!(f, "rot a bit of {node}"),
            Fault::RotState(node) => write!(f, "rot a bit of the state of {node}"),
            Fault::Replace(node) => write!(f, "replace {node}"),
            Fault::Full(node) => write!(f, "fill the disk of {node}"),
            Fault::Roomy(node) => write!(f, "free the disk of {node}"),
            Fault::Step(node, offset) => write!(f, "wall clock of {node} at {offset} us"),
            Fault::Drift(node, monotonic, wall) => {
                write!(f, "clocks of {node} drift: monotonic {monotonic} ppm, wall {wall} ppm")
            }
            Fault::Flush(node) => write!(f, "flush {node}"),
            Fault::HandOver(place, to) => {
                write!(f, "hand the lease of range number {place} to {to}")
            }
            Fault::Drain(node) => write!(f, "drain {node}"),
            Fault::Undrain(node) => write!(f, "{node} takes replicas again"),
            Fault::Split(at) => write!(f, "split at {at}"),
            Fault::Collect(place, age) => {
                write!(f, "collect what is older than {age:?} in range number {place}")
            }
            Fault::Ambush(trigger, strike) => write!(f, "ambush on {trigger:?}: {strike:?}"),
            Fault::HealCore(node) => write!(f, "heal all but {node}"),
            Fault::Heal => write!(f, "heal"),
        }
    }
}
