//! Value: a seed's ordeal: a whole order of events that breaks what is wrong in one way, where single faults come to it in one of
//! hundreds of seeds.
//!
//! A raid ([`crate::raid`]) waits for a moment; an ordeal brings it about: leases are moved to whom it is about, and then that happens which
//! the killer needs, twice or three times. A seed has the one or the other. What else strikes the seed strikes it here, too.

use replication::range::NodeId;
use std::time::Duration;

use crate::episode::SAFETY;
use crate::world::chance::{Chance, Purpose};
use crate::world::fault::{Fault, Strike, Trigger, parted};
use crate::world::network::Weather;
use crate::world::{Damage, Layout, Level, SyncMode};

/// Of 1000 seeds so many have one.
const OFTEN_PERMILLE: u32 = 150;
/// Ranges whose leases are moved: more than most worlds have.
const PLACES: usize = 14;

type Plan = Vec<(Duration, Fault)>;

/// What a seed goes through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ordeal {
    /// The log of a leader rots while one of its followers is away, which then needs just that (S06).
    Rot,
    /// The disk of a leader hangs, and all else goes on (S05).
    Hang,
    /// A leader is cut off with a write under way, and comes back before that has ended: others have put other entries in its place (R16).
    Overwrite,
    /// Two nodes pass their leases to and fro, while a third hears both late, twice and out of order (R10).
    Swap,
    /// Leaders are cut off as they work, and several stand for their places at once, on a network that mixes up what they say (R10).
    Contest,
    /// A node that needs snapshots gets them through a network that loses every fourth piece, to the very end (R23).
    Pieces,
}

impl Ordeal {
    const ALL: [Ordeal; 6] = [
        Ordeal::Rot,
        Ordeal::Hang,
        Ordeal::Overwrite,
        Ordeal::Swap,
        Ordeal::Contest,
        Ordeal::Pieces,
    ];

    /// The seed's, if it has one.
    pub(crate) fn of(seed: u64, level: Level) -> Option<Ordeal> {
        Ordeal::draw(&mut Chance::new(seed, Purpose::Ordeals), level)
    }

    fn draw(chance: &mut Chance, level: Level) -> Option<Ordeal> {
        if !chance.permille(OFTEN_PERMILLE) {
            return None;
        }
        let ordeal = chance.pick(&Ordeal::ALL);
        // A copy of an available table in a region of one node is on one disk.
        (ordeal != Ordeal::Rot || level == Level::Keys).then_some(ordeal)
    }

    /// What it needs must be there.
    pub(crate) fn suit(self, layout: &mut Layout) {
        let millis = Duration::from_millis;
        match self {
            // What a follower lacks is still there, and is read from the disk; who is found out is replaced.
            Ordeal::Rot => {
                layout.log_cache_bytes = 0;
                layout.store.log_bytes_max = 16 << 20;
                layout.store.dead_after = millis(4000);
                (layout.damage, layout.spares) = (Damage::Promised, 1);
            }
            Ordeal::Hang => {
                layout.sync_mode = SyncMode::Overlapped;
                layout.store.promise_duration = millis(1000);
                layout.store.promise_interval = millis(250);
            }
            Ordeal::Overwrite => {
                layout.sync_mode = SyncMode::Overlapped;
                hasten(layout);
            }
            Ordeal::Swap | Ordeal::Contest => {
                hasten(layout);
                layout.round_trips.values_mut().for_each(|trip| *trip = (*trip).max(millis(60)));
            }
            Ordeal::Pieces => {
                layout.store.log_bytes_max = 8 << 10;
                layout.store.snapshot_chunk_bytes = 256;
            }
        }
    }
}

/// Leaders that are missed are soon replaced.
fn hasten(layout: &mut Layout) {
    layout.store.raft.election_timeout = Duration::from_millis(600);
    layout.store.raft.heartbeat_interval = Duration::from_millis(150);
    layout.store.promise_duration = Duration::from_millis(1000);
    layout.store.promise_interval = Duration::from_millis(250);
}

/// The faults of the seed's ordeal.
pub(crate) fn draw_ordeal(layout: &Layout, nodes: &[NodeId]) -> Plan {
    let mut chance = Chance::new(layout.seed, Purpose::Ordeals);
    let (mut plan, ordeal) = (Plan::new(), Ordeal::draw(&mut chance, layout.level));
    let (Some(ordeal), true) = (ordeal, nodes.len() >= 3) else { return plan };
    match ordeal {
        Ordeal::Rot => rot(&mut chance, nodes, &mut plan),
        Ordeal::Hang => hang(&mut chance, nodes, &mut plan),
        Ordeal::Overwrite => overwrite(&mut chance, nodes, &mut plan),
        Ordeal::Swap => swap(&mut chance, nodes, &mut plan),
        Ordeal::Contest => contest(&mut chance, nodes, &mut plan),
        Ordeal::Pieces => pieces(&mut chance, nodes, &mut plan),
    }
    plan
}

fn but(nodes: &[NodeId], without: &[NodeId]) -> Vec<NodeId> {
    nodes.iter().copied().filter(|node| !without.contains(node)).collect()
}

/// Every lease is handed to the node.
fn lead(node: NodeId, at: Duration, plan: &mut Plan) {
    plan.extend((0..PLACES).map(|place| (at, Fault::HandOver(place, node))));
}

fn rot(chance: &mut Chance, nodes: &[NodeId], plan: &mut Plan) {
    let millis = Duration::from_millis;
    let node = chance.pick(nodes);
    let mut at = chance.duration(millis(500), millis(2500));
    for _ in 0..2 {
        let away = chance.pick(&but(nodes, &[node]));
        lead(node, at, plan);
        let begins = at + millis(700);
        let ends = begins + chance.duration(millis(1500), millis(4000));
        plan.extend(parted(&[away], &but(nodes, &[away]), begins, ends));
        // Just before it is needed: what has rotted is found when the node starts.
        for _ in 0..chance.between(40, 120) {
            plan.push((ends - chance.duration(millis(1), millis(100)), Fault::Rot(node)));
        }
        at = ends + chance.duration(millis(1500), millis(3000));
    }
}

fn hang(chance: &mut Chance, nodes: &[NodeId], plan: &mut Plan) {
    let millis = Duration::from_millis;
    let mut at = chance.duration(millis(200), millis(2000));
    while at < SAFETY - millis(6000) {
        let node = chance.pick(nodes);
        lead(node, at, plan);
        let hangs = at + chance.duration(millis(500), millis(1200));
        let long = chance.duration(millis(3000), millis(6000));
        plan.push((hangs, Fault::Stall(node, long)));
        at = hangs + long + chance.duration(millis(300), millis(1500));
    }
}

fn overwrite(chance: &mut Chance, nodes: &[NodeId], plan: &mut Plan) {
    let millis = Duration::from_millis;
    let mut at = chance.duration(millis(200), millis(1500));
    while at < SAFETY - millis(6000) {
        let node = chance.pick(nodes);
        lead(node, at, plan);
        let begins = at + chance.duration(millis(400), millis(900));
        let ends = begins + chance.duration(millis(2000), millis(3000));
        plan.extend(parted(&[node], &but(nodes, &[node]), begins, ends));
        // Its own clients go on while its lease lasts.
        let hangs = begins + chance.duration(millis(1), millis(300));
        let returns = ends + chance.duration(millis(300), millis(1500));
        plan.push((hangs, Fault::Stall(node, returns - hangs)));
        at = returns + chance.duration(millis(500), millis(1500));
    }
}

fn swap(chance: &mut Chance, nodes: &[NodeId], plan: &mut Plan) {
    let millis = Duration::from_millis;
    let late = chance.pick(nodes);
    let rest = but(nodes, &[late]);
    let weather = Weather {
        loss_permille: chance.pick(&[30, 100, 200]),
        duplicate_permille: chance.between(100, 300) as u32,
        reorder_permille: chance.between(100, 400) as u32,
    };
    let begins = chance.duration(millis(500), millis(2000));
    plan.push((begins, Fault::Weather(weather)));
    plan.push((SAFETY - millis(500), Fault::Weather(Weather::default())));
    let (mut at, mut turn) = (begins, chance.index(rest.len()));
    while at < SAFETY - millis(1000) {
        turn = (turn + 1) % rest.len().min(2);
        lead(rest[turn], at, plan);
        at += chance.duration(millis(200), millis(900));
    }
}

fn contest(chance: &mut Chance, nodes: &[NodeId], plan: &mut Plan) {
    let millis = Duration::from_millis;
    let weather = Weather {
        loss_permille: chance.pick(&[10, 50, 120]),
        duplicate_permille: chance.between(100, 300) as u32,
        reorder_permille: chance.between(100, 400) as u32,
    };
    let mut at = chance.duration(millis(500), millis(2000));
    plan.push((at, Fault::Weather(weather)));
    plan.push((SAFETY - millis(500), Fault::Weather(Weather::default())));
    while at < SAFETY - millis(3000) {
        let node = chance.pick(nodes);
        lead(node, at, plan);
        let begins = at + chance.duration(millis(300), millis(800));
        // The others stand when its promises have run out, and are still at it when it is back.
        let ends = begins + chance.duration(millis(900), millis(2200));
        plan.extend(parted(&[node], &but(nodes, &[node]), begins, ends));
        // The first to stand is alone in its term, and asks for the next one while another wins the same term.
        let alone = Strike::Isolate(chance.duration(millis(50), millis(400)));
        plan.push((begins, Fault::Ambush(Trigger::Voted, alone)));
        at = ends + chance.duration(millis(100), millis(600));
    }
}

fn pieces(chance: &mut Chance, nodes: &[NodeId], plan: &mut Plan) {
    let millis = Duration::from_millis;
    let node = chance.pick(nodes);
    let begins = chance.duration(millis(500), millis(4000));
    let ends = SAFETY - chance.duration(millis(2500), millis(6000));
    plan.extend(parted(&[node], &but(nodes, &[node]), begins, ends));
    let weather = Weather { loss_permille: 250, ..Weather::default() };
    plan.push((ends, Fault::Weather(weather)));
    plan.push((SAFETY - millis(10), Fault::Weather(Weather::default())));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ordeal_comes_and_most_seeds_have_none() {
        let drawn: Vec<Option<Ordeal>> =
            (1..=2000).map(|seed| Ordeal::of(seed, Level::Keys)).collect();
        for ordeal in Ordeal::ALL {
            assert!(drawn.contains(&Some(ordeal)), "{ordeal:?}");
        }
        assert!(drawn.iter().flatten().count() < 2000 / 5);
        assert!((1..=2000).all(|seed| Ordeal::of(seed, Level::Sql) != Some(Ordeal::Rot)));
    }
}
