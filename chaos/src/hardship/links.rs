//! Value: a network whose links are not all alike.

use replication::range::NodeId;
use std::time::Duration;

use crate::episode::{Plan, SAFETY};
use crate::world::chance::Chance;
use crate::world::fault::Fault;
use crate::world::network::{Straying, Weather};
use crate::world::{Layout, Level};

/// Round trips between the demo's regions (`meridian demo`), milliseconds.
const DEMO: [((usize, usize), u64); 3] = [((0, 1), 68), ((0, 2), 190), ((1, 2), 122)];

/// Bytes in which a transaction of SQL remembers what it has read: some six keys.
const SQL_READ_SPANS_MIN: usize = 1 << 10;

/// The demo's wide area network, or ways there and back that differ, or both.
pub(super) fn suit(chance: &mut Chance, layout: &mut Layout) {
    // The span in which a transaction of SQL remembers more than two keys may cover what streams between copies write. Over slow links it is
    // never done between two of their writes.
    if layout.level == Level::Sql {
        let spans = &mut layout.client.read_spans_bytes_max;
        *spans = (*spans).max(SQL_READ_SPANS_MIN);
    }
    let (demo, skewed) = chance.pick(&[(true, false), (false, true), (true, true), (false, false)]);
    if demo {
        for (regions, millis) in DEMO {
            layout.round_trips.insert(regions, Duration::from_millis(millis));
        }
    }
    if skewed {
        for ((a, b), round_trip) in &layout.round_trips {
            let there = *round_trip * chance.between(100, 900) as u32 / 1000;
            layout.one_way.insert((*a, *b), there);
            layout.one_way.insert((*b, *a), *round_trip - there);
        }
    }
}

/// Some links, each one way, behave worse than all others.
pub(super) fn plan(chance: &mut Chance, nodes: &[NodeId]) -> Plan {
    let millis = Duration::from_millis;
    let mut plan = Plan::new();
    if nodes.len() < 2 {
        return plan;
    }
    for _ in 0..chance.between(1, 4) {
        let from = chance.pick(nodes);
        let others: Vec<NodeId> = nodes.iter().copied().filter(|node| *node != from).collect();
        let to = chance.pick(&others);
        let at = chance.duration(millis(0), SAFETY - millis(3000));
        let ends = (at + chance.duration(millis(500), millis(10_000))).min(SAFETY);
        if chance.permille(250) {
            let straying = Straying {
                late_permille: chance.between(50, 400) as u32,
                again_permille: chance.between(0, 300) as u32,
                longest: chance.duration(millis(50), millis(3000)),
            };
            plan.push((at, Fault::StrayingLink(from, to, straying)));
            plan.push((ends, Fault::StrayingLink(from, to, Straying::default())));
        } else {
            let weather = Weather {
                loss_permille: chance.pick(&[0, 20, 150, 500]),
                duplicate_permille: chance.pick(&[0, 50, 300]),
                reorder_permille: chance.pick(&[0, 100, 500]),
            };
            plan.push((at, Fault::WeatherLink(from, to, weather)));
            plan.push((ends, Fault::WeatherLink(from, to, Weather::default())));
        }
    }
    plan
}
