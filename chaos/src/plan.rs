//! Value: which faults strike a seed, and when: each with its end, within the safety phase.
//!
//! Plans of streams of their own, so that a change of one shifts none of the others: collected history ([`draw_collections`]), faults and clocks ([`draw_plan`]), what happens to ranges
//! and members, with faults that aim at it ([`draw_topology`]), and raids ([`crate::raid`]).

use replication::range::NodeId;
use std::time::Duration;

use crate::check::RealTime;
use crate::episode::{SAFETY, SKEW_MAX_US};
use crate::workload::item_key;
use crate::world::chance::{Chance, Purpose};
use crate::world::fault::{Fault, Power, Strike, Trigger, parted};
use crate::world::network::Weather;
use crate::world::{Damage, Layout, Level};

/// Faults, each with its end, over the safety phase.
pub(crate) fn draw_plan(
    seed: u64,
    nodes: &[NodeId],
    real_time: RealTime,
) -> Vec<(Duration, Fault)> {
    let mut chance = Chance::new(seed, Purpose::Nemesis);
    let mut clocks = Chance::new(seed, Purpose::Clock);
    let mut plan = Vec::new();
    // Where clocks agree their nodes allow for little, and a step shows.
    let skew_us = clocks.pick(&[SKEW_MAX_US, SKEW_MAX_US, 3_000]);
    for node in nodes {
        let (monotonic, wall) = (clocks.signed(-500, 500), clocks.signed(-200, 200));
        plan.push((Duration::ZERO, Fault::Drift(*node, monotonic, wall)));
        plan.push((Duration::ZERO, Fault::Step(*node, clocks.signed(-skew_us, skew_us))));
    }
    if real_time == RealTime::Waived {
        let node = clocks.pick(nodes);
        let far = clocks.signed(150_000, 1_500_000) * if clocks.permille(500) { 1 } else { -1 };
        let at = clocks.duration(Duration::from_secs(1), Duration::from_secs(12));
        plan.push((at, Fault::Step(node, far)));
        let back = at + clocks.duration(Duration::from_secs(1), Duration::from_secs(8));
        plan.push((back, Fault::Step(node, 0)));
    }
    for _ in 0..chance.below(6) {
        let at = chance.duration(Duration::ZERO, SAFETY);
        plan.push((at, Fault::HandOver(chance.index(8), chance.pick(nodes))));
    }
    for _ in 0..chance.below(4) {
        let at = chance.duration(Duration::ZERO, SAFETY);
        let table = chance.pick(&[100, 101, 110, 120]);
        plan.push((at, Fault::Split(item_key(table, chance.below(8)))));
    }
    // Some seeds are nearly quiet: there, a stop is not excused by a fault.
    let count = chance.pick(&[0, 2, 5, 8, 12]);
    for _ in 0..count {
        let at = chance.duration(Duration::from_millis(500), SAFETY - Duration::from_secs(2));
        draw_fault(&mut chance, &mut clocks, nodes, at, &mut plan);
    }
    // Drawn last: what was added later must not shift what was there before.
    if count > 0 {
        for _ in 0..chance.below(3) {
            let at = chance.duration(Duration::from_millis(500), SAFETY - Duration::from_secs(7));
            draw_pattern(&mut chance, nodes, at, &mut plan);
        }
    }
    plan
}

/// What happens to ranges and members all through the run, and faults that aim at such moments.
pub(crate) fn draw_topology(layout: &Layout, nodes: &[NodeId]) -> Vec<(Duration, Fault)> {
    let millis = Duration::from_millis;
    let mut chance = Chance::new(layout.seed, Purpose::Topology);
    let mut plan = Vec::new();
    if layout.spares > 0 {
        // One disk at most: two of three would be beyond every promise.
        let (node, at) = (chance.pick(nodes), chance.duration(millis(500), SAFETY / 2));
        draw_damage(&mut chance, nodes, (node, at), &mut plan);
        if layout.damage == Damage::Beyond {
            for other in nodes.iter().filter(|other| **other != node) {
                if chance.permille(700) {
                    let at = chance.duration(millis(500), SAFETY);
                    draw_damage(&mut chance, nodes, (*other, at), &mut plan);
                }
            }
        }
    }
    // A third of the seeds is left as it was: there, what one fault does is not hidden by the next.
    if chance.permille(330) {
        return plan;
    }
    if chance.permille(500) {
        let mut at = chance.duration(millis(0), millis(3000));
        while at < SAFETY {
            plan.push((at, Fault::HandOver(chance.index(8), chance.pick(nodes))));
            at += chance.duration(millis(150), millis(3000));
        }
    }
    if nodes.len() > 3 && chance.permille(700) {
        let mut at = chance.duration(millis(0), millis(3000));
        while at < SAFETY {
            let node = chance.pick(nodes);
            plan.push((at, Fault::Drain(node)));
            at += chance.duration(millis(500), millis(5000));
            plan.push((at, Fault::Undrain(node)));
        }
    }
    if chance.permille(250) {
        // A range is split just as its lease moves, or its leader falls.
        for _ in 0..chance.between(1, 5) {
            let at = chance.duration(millis(500), SAFETY - millis(1000));
            let table = chance.pick(&[100, 101, 110, 120, 130, 140]);
            plan.push((at, Fault::Split(item_key(table, chance.below(8)))));
            let soon = at + chance.duration(millis(0), millis(60));
            match chance.below(3) {
                0 => plan.push((soon, Fault::HandOver(chance.index(12), chance.pick(nodes)))),
                1 => plan.push((soon, Fault::Fuse(chance.pick(nodes), chance.below(8) as u32))),
                _ => {}
            }
        }
    }
    for _ in 0..chance.pick(&[0, 0, 2, 5]) {
        let at = chance.duration(millis(0), SAFETY - millis(3000));
        plan.push((at, draw_ambush(&mut chance)));
    }
    for _ in 0..chance.pick(&[0, 1, 1, 3]) {
        let at = chance.duration(millis(500), SAFETY - millis(8000));
        draw_misfortune(&mut chance, nodes, at, &mut plan);
    }
    plan
}

/// A disk is lost, or rots bit by bit from some time on.
fn draw_damage(
    chance: &mut Chance,
    nodes: &[NodeId],
    (node, at): (NodeId, Duration),
    plan: &mut Vec<(Duration, Fault)>,
) {
    let millis = Duration::from_millis;
    if chance.permille(500) {
        plan.push((at, Fault::Replace(node)));
        return;
    }
    let (most, long) = (chance.pick(&[12, 100]), chance.permille(500));
    for _ in 0..chance.between(1, most) {
        let when = at + chance.duration(millis(0), SAFETY / 3);
        let of_state = !long && chance.permille(400);
        let rot = if of_state { Fault::RotState(node) } else { Fault::Rot(node) };
        plan.push((when, rot));
    }
    // Who was away needs what was written long ago.
    let others: Vec<NodeId> = nodes.iter().copied().filter(|other| *other != node).collect();
    for _ in 0..chance.below(if long { 8 } else { 4 }) {
        let (away, begins) = (chance.pick(&others), at + chance.duration(millis(0), SAFETY / 4));
        let ends = begins + chance.duration(millis(500), millis(4000));
        plan.extend(parted(&[node], &[away], begins, ends));
    }
    // What has rotted is read again when the node starts.
    for _ in 0..2 {
        let late = if long { SAFETY / 3 } else { millis(500) };
        let dies = at + chance.duration(late, SAFETY / 2);
        plan.push((dies, Fault::Crash(node, Power::Lost)));
    }
}

/// History is collected under those who read it: anywhere, down to a few round trips ago. Not where copies of available tables are: what
/// a stream has not delivered must stay.
pub(crate) fn draw_collections(layout: &Layout) -> Vec<(Duration, Fault)> {
    let millis = Duration::from_millis;
    let mut chance = Chance::new(layout.seed, Purpose::History);
    let mut plan = Vec::new();
    if layout.level == Level::Sql || chance.permille(400) {
        return plan;
    }
    let longest = chance.pick(&[millis(100), millis(500), millis(3000)]);
    for _ in 0..chance.pick(&[5, 20, 60]) {
        let at = chance.duration(millis(500), SAFETY);
        plan.push((at, Fault::Collect(chance.index(12), chance.duration(millis(1), longest))));
    }
    plan
}

fn draw_ambush(chance: &mut Chance) -> Fault {
    let millis = Duration::from_millis;
    let trigger = chance.pick(&[Trigger::Elected, Trigger::Voted, Trigger::Reconfigured]);
    let ends = chance.duration(millis(300), millis(5000));
    let strike = match chance.below(6) {
        0 | 1 => Strike::Fuse(chance.below(8) as u32),
        2 => Strike::Isolate(ends),
        3 => Strike::Deafen(ends),
        4 => Strike::Pause(ends),
        _ => Strike::Stall(ends.min(millis(1500))),
    };
    Fault::Ambush(trigger, strike)
}

/// Two things at once, or one thing again and again: what single faults do not lead to.
fn draw_misfortune(
    chance: &mut Chance,
    nodes: &[NodeId],
    at: Duration,
    plan: &mut Vec<(Duration, Fault)>,
) {
    let millis = Duration::from_millis;
    let node = chance.pick(nodes);
    let others: Vec<NodeId> = nodes.iter().copied().filter(|other| *other != node).collect();
    let other = chance.pick(&others);
    let ends = at + chance.duration(millis(1000), millis(6000));
    match chance.below(10) {
        // Two nodes do not hear each other; then the one between them dies, and the first is alone.
        0 => {
            let falls = at + chance.duration(millis(300), millis(3500));
            let ends = ends.max(falls + millis(2000));
            plan.extend(parted(&[node], &others, falls, ends));
            plan.extend(parted(&[node], &[other], at, ends));
            let power = chance.pick(&[Power::Stopped, Power::Kept, Power::Lost]);
            for third in others.iter().filter(|third| **third != other) {
                plan.push((falls, Fault::Crash(*third, power)));
            }
        }
        // A node is cut off, and its clock is put back within its bound.
        1 => {
            plan.extend(parted(&[node], &others, at, ends));
            plan.push((at + millis(50), Fault::Step(node, -SKEW_MAX_US)));
            plan.push((ends, Fault::Step(node, 0)));
        }
        // It dies as often as it starts.
        2 => {
            let mut when = at;
            for _ in 0..chance.between(3, 8) {
                let power = chance.pick(&[Power::Stopped, Power::Kept, Power::Lost]);
                plan.push((when, Fault::Crash(node, power)));
                when += chance.duration(millis(50), millis(1200));
            }
        }
        // One after another, in any order: an upgrade.
        3 => {
            let mut when = at;
            let power = chance.pick(&[Power::Stopped, Power::Kept, Power::Lost]);
            for _ in nodes {
                plan.push((when, Fault::Crash(chance.pick(nodes), power)));
                when += chance.duration(millis(100), millis(2500));
            }
        }
        // Its disk hangs for long.
        4 => plan.push((at, Fault::Stall(node, chance.duration(millis(3000), millis(60_000))))),
        5 => {
            plan.push((at, Fault::Slow(node, chance.between(5, 100) as u32)));
            plan.push((ends, Fault::Slow(node, 1)));
        }
        // It boots with a clock that knows nothing, until somebody tells it.
        6 => {
            plan.push((at, Fault::Crash(node, Power::Lost)));
            plan.push((at, Fault::Step(node, -chance.signed(1_000_000, 3_600_000_000))));
            plan.push((ends, Fault::Step(node, 0)));
        }
        7 => {
            for other in others {
                let rate = Some(chance.between(4 << 10, 256 << 10));
                plan.push((at, Fault::Throttle(node, other, rate)));
                plan.push((ends, Fault::Throttle(node, other, None)));
            }
        }
        8 => {
            let weather = Weather {
                loss_permille: chance.below(20) as u32,
                duplicate_permille: chance.between(100, 400) as u32,
                reorder_permille: chance.below(200) as u32,
            };
            plan.push((at, Fault::Weather(weather)));
            plan.push((ends, Fault::Weather(Weather::default())));
        }
        // Everybody stands still.
        _ => {
            if chance.permille(500) {
                plan.push((at, Fault::ReadError(node)));
            }
            for node in nodes {
                let begins = at + chance.duration(millis(0), millis(300));
                plan.push((begins, Fault::Pause(*node)));
                let goes_on = begins + chance.duration(millis(100), millis(4000));
                plan.push((goes_on, Fault::Resume(*node)));
            }
        }
    }
}

/// Faults of several parts, each with its end.
fn draw_pattern(
    chance: &mut Chance,
    nodes: &[NodeId],
    at: Duration,
    plan: &mut Vec<(Duration, Fault)>,
) {
    let millis = Duration::from_millis;
    let node = chance.pick(nodes);
    match chance.below(5) {
        // Swizzle: nodes are clogged one after another, and freed in another order.
        0 => {
            for node in nodes {
                let begins = at + chance.duration(millis(0), millis(2000));
                let ends = at + chance.duration(millis(2500), millis(6000));
                for other in nodes.iter().filter(|other| *other != node) {
                    plan.push((begins, Fault::Clog(*other, *node)));
                    plan.push((ends, Fault::Unclog(*other, *node)));
                }
            }
        }
        // Bridge: two sides that only one node hears both of.
        1 => {
            let others: Vec<NodeId> =
                nodes.iter().copied().filter(|other| *other != node).collect();
            let (left, right) = others.split_at(others.len() / 2);
            let ends = at + chance.duration(millis(500), millis(6000));
            plan.extend(parted(left, right, at, ends));
        }
        // The wall clock jumps to and fro within its bound.
        2 => {
            let mut when = at;
            for number in 0..chance.between(4, 20) {
                let side = if number % 2 == 0 { 1 } else { -1 };
                plan.push((when, Fault::Step(node, side * chance.signed(40_000, SKEW_MAX_US))));
                when += chance.duration(millis(10), millis(200));
            }
            plan.push((when, Fault::Step(node, 0)));
        }
        // It stands still, from the one end of its bound to the other.
        3 => {
            plan.push((at, Fault::Step(node, 80_000)));
            plan.push((at, Fault::Drift(node, 0, -1_000_000)));
            plan.push((at + millis(160), Fault::Drift(node, 0, 0)));
        }
        _ => plan.push((at, Fault::WriteError(node))),
    }
}

fn draw_fault(
    chance: &mut Chance,
    clocks: &mut Chance,
    nodes: &[NodeId],
    at: Duration,
    plan: &mut Vec<(Duration, Fault)>,
) {
    let millis = Duration::from_millis;
    let node = chance.pick(nodes);
    let other = chance.pick(nodes);
    let ends = at + chance.duration(millis(100), millis(6000));
    match chance.below(16) {
        0 | 1 => {
            let (some, rest): (Vec<NodeId>, Vec<NodeId>) =
                nodes.iter().partition(|_| chance.permille(400));
            plan.extend(parted(&some, &rest, at, ends));
        }
        2 => {
            plan.push((at, Fault::Cut(vec![node], nodes.to_vec())));
            plan.push((ends, Fault::Join(vec![node], nodes.to_vec())));
        }
        3 => {
            plan.push((at, Fault::Cut(vec![other], vec![node])));
            plan.push((ends, Fault::Join(vec![other], vec![node])));
        }
        4 => plan.push((at, Fault::Crash(node, Power::Kept))),
        5 => plan.push((at, Fault::Crash(node, Power::Lost))),
        6 | 7 => plan.push((at, Fault::Fuse(node, chance.below(60) as u32))),
        8 => plan.push((at, Fault::Blackout)),
        9 => {
            plan.push((at, Fault::Pause(node)));
            plan.push((ends, Fault::Resume(node)));
        }
        10 => plan.push((at, Fault::Stall(node, ends - at))),
        11 => plan.push((at, Fault::SyncError(node))),
        12 => {
            plan.push((at, Fault::Full(node)));
            plan.push((ends, Fault::Roomy(node)));
        }
        13 => {
            plan.push((at, Fault::Step(node, clocks.signed(-SKEW_MAX_US, SKEW_MAX_US))));
            plan.push((at, Fault::Flush(other)));
        }
        14 => {
            plan.push((at, Fault::Clog(node, other)));
            plan.push((ends, Fault::Unclog(node, other)));
        }
        _ => {
            let weather = Weather {
                loss_permille: chance.below(60) as u32,
                duplicate_permille: chance.below(100) as u32,
                reorder_permille: chance.below(100) as u32,
            };
            plan.push((at, Fault::Weather(weather)));
            plan.push((ends, Fault::Weather(Weather::default())));
        }
    }
}
