//! Value: a seed's raid: strikes that fall in the very event in which something happened: somebody was elected, or a branch of the product
//! was taken, which says so by its coverage mark.
//!
//! Faults that are drawn by time alone hardly ever fall into the few microseconds that matter. A raid aims at one kind of moment, again
//! and again, for as long as the seed's faults last; what is done there is drawn as freely as any other fault.

use coverage::Mark;
use replication::range::{NodeId, RegionId};
use std::time::Duration;

use crate::episode::{SAFETY, SKEW_MAX_US};
use crate::workload::item_key;
use crate::world::chance::{Chance, Purpose};
use crate::world::fault::{Fault, Power, Strike, Trigger};
use crate::world::network::{Straying, Weather};
use crate::world::{Layout, SyncMode};

/// Tables of workloads over keys.
const TABLES: [u32; 8] = [100, 101, 110, 120, 130, 150, 160, 170];

/// Moments of a transaction at its gateway, from its first intent to what comes after the answer: those in which nobody else knows the
/// outcome count more.
const COMMITS: [Mark; 10] = [
    Mark::WritesSpilled,
    Mark::OnePhaseSent,
    Mark::StagingSent,
    Mark::StagingSent,
    Mark::ParallelCommitted,
    Mark::ParallelCommitted,
    Mark::ParallelMadeTwo,
    Mark::RecordSent,
    Mark::RecordSent,
    Mark::TwoPhaseCommitted,
];

/// Moments of a range's birth.
const BIRTHS: [Mark; 4] = [
    Mark::LedFromBirth,
    Mark::FloorFromLeftSide,
    Mark::TookOverUninitialised,
    Mark::EarlyAppendHeld,
];

/// What a seed's raid aims at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Raid {
    /// One leader after another is cut off as it is elected: logs that end in different terms.
    Leaders,
    /// Members change, and one of those who count falls, or does not hear of it.
    Members,
    /// One branch of the product, again and again.
    Branch,
    /// A whole region.
    Regions,
    /// A node is cut off while its disk hangs: it has begun to write what others overwrite. Or its disk hangs, and all else goes on.
    Writes,
    /// Any branch.
    Branches,
    /// A gateway falls silent at this moment of a commit, often for so long that others take its transaction for dead.
    Gateways(Mark),
    /// Ranges are split, and one of those who were there does not see what follows.
    Births,
    /// Nodes miss so much that they need snapshots, and pieces of these are lost.
    Snapshots,
    /// A node hears the others late and is behind by its own clock, as far as it may be, while intents of what is committed are still there.
    Clocks,
    /// Calls are late, each on its own, so that what belongs together comes apart: a commit's writes and the record that names them, what was
    /// found of a commit and the word about it, a commit and the question what became of it.
    Strays,
    /// Calls come again when their transaction has long ended.
    Echoes,
    /// Nothing: some seeds are left as they are.
    None,
}

impl Raid {
    /// The seed's.
    pub(crate) fn of(seed: u64) -> Raid {
        Raid::draw(&mut Chance::new(seed, Purpose::Raids))
    }

    fn draw(chance: &mut Chance) -> Raid {
        let gateways = Raid::Gateways(COMMITS[0]);
        let raid = chance.pick(&[
            Raid::Leaders,
            Raid::Members,
            Raid::Writes,
            Raid::Branch,
            Raid::Regions,
            Raid::Branches,
            gateways,
            gateways,
            gateways,
            Raid::Births,
            Raid::Clocks,
            Raid::Strays,
            Raid::Strays,
            Raid::Echoes,
            Raid::Snapshots,
            Raid::None,
        ]);
        if raid == gateways { Raid::Gateways(chance.pick(&COMMITS)) } else { raid }
    }

    /// What it aims at must be there to be hit.
    pub(crate) fn suit(self, layout: &mut Layout) {
        match self {
            Raid::Leaders => {
                // A commit between any two entries of different terms, and terms that follow each other soon.
                layout.store.raft.append_bytes_max = 1;
                layout.store.raft.election_timeout = Duration::from_millis(600);
                layout.store.promise_duration = Duration::from_millis(1000);
                layout.store.promise_interval = Duration::from_millis(250);
            }
            // Members that can change, and voters that come back with what they had applied long ago.
            Raid::Members => {
                layout.nodes = layout.nodes.max(4);
                layout.flush_interval = Duration::from_secs(8);
            }
            // Work goes on while a disk hangs.
            Raid::Writes => layout.sync_mode = SyncMode::Overlapped,
            // Silence that others notice while there is time for more than one.
            Raid::Gateways(mark) => {
                // Some hold nothing: when they are silent, all else goes on.
                layout.nodes = 5;
                let early = [Mark::WritesSpilled, Mark::RecordSent, Mark::TwoPhaseCommitted];
                layout.client.spill_bytes = if early.contains(&mark) { 16 } else { 1 << 20 };
                layout.server.txn_expiry = EXPIRY;
                layout.client.heartbeat_interval = EXPIRY / 5;
                layout.server.staged_kept = EXPIRY / 10;
                // What is to be cleaned up after a commit waits.
                layout.lag = Duration::from_millis(400);
            }
            // Intents that stay for a while after their commit.
            Raid::Clocks => {
                layout.nodes = 5;
                layout.client.spill_bytes = 1 << 20;
                layout.client.stagings_again_max = STAGINGS_AGAIN;
                layout.lag = Duration::from_millis(1000);
                layout.clog_max = Duration::from_millis(300);
            }
            // Whoever meets a staged transaction looks for its writes at once, and what is not there it prevents.
            Raid::Strays => {
                layout.nodes = 5;
                layout.client.spill_bytes = 1 << 20;
                layout.client.stagings_again_max = STAGINGS_AGAIN;
                layout.client.commit_asked_after = Duration::from_millis(40);
                layout.server.staged_kept = Duration::ZERO;
                layout.lag = Duration::from_millis(1000);
            }
            // Intents that go soon, records that stay.
            Raid::Echoes => {
                layout.nodes = layout.nodes.max(4);
                layout.client.spill_bytes = 16;
                layout.client.forget_after = Duration::from_secs(4);
                layout.server.txn_expiry = EXPIRY;
                layout.client.heartbeat_interval = EXPIRY / 5;
                layout.lag = Duration::ZERO;
            }
            Raid::Snapshots => {
                layout.store.log_bytes_max = 8 << 10;
                layout.store.snapshot_chunk_bytes = 1 << 10;
            }
            Raid::Branch | Raid::Regions | Raid::Branches | Raid::Births | Raid::None => {}
        }
    }
}

/// Parallel commits that stage again where that is rehearsed.
const STAGINGS_AGAIN: u32 = 3;
/// A transaction is taken for dead after this where gateways fall silent.
const EXPIRY: Duration = Duration::from_secs(2);

/// The faults of the seed's raid.
pub(crate) fn draw_raids(layout: &Layout, nodes: &[NodeId]) -> Vec<(Duration, Fault)> {
    let millis = Duration::from_millis;
    let mut chance = Chance::new(layout.seed, Purpose::Raids);
    let mut plan = Vec::new();
    let raid = Raid::draw(&mut chance);
    if raid == Raid::None {
        return plan;
    }
    if chance.permille(400) {
        for _ in 0..chance.between(1, 5) {
            let at = chance.duration(millis(0), SAFETY - millis(2000));
            plan.push((at, draw_split(&mut chance)));
        }
    }
    let begins = chance.duration(millis(0), SAFETY / 3);
    match raid {
        Raid::None => {}
        Raid::Leaders => on_leaders(&mut chance, nodes, begins, &mut plan),
        Raid::Members => on_members(&mut chance, nodes, begins, &mut plan),
        Raid::Writes => on_writes(&mut chance, nodes, begins, &mut plan),
        Raid::Gateways(mark) => on_gateways(&mut chance, mark, begins / 2, &mut plan),
        Raid::Births => on_births(&mut chance, begins / 2, &mut plan),
        Raid::Clocks => on_clocks(&mut chance, nodes, begins / 2, &mut plan),
        Raid::Strays => on_strays(&mut chance, nodes, begins / 4, &mut plan),
        Raid::Echoes => on_echoes(&mut chance, nodes, begins / 4, &mut plan),
        Raid::Snapshots => on_snapshots(&mut chance, nodes, begins / 2, &mut plan),
        Raid::Branch => {
            let mark = draw_mark(&mut chance);
            for _ in 0..chance.between(2, 6) {
                let at = chance.duration(begins, SAFETY - millis(2000));
                plan.push((at, Fault::Ambush(Trigger::Reached(mark), draw_strike(&mut chance))));
            }
        }
        Raid::Regions => {
            let regions = layout.regions.len().min(nodes.len()) as u64;
            for _ in 0..chance.between(1, 4) {
                let region = RegionId(chance.between(1, regions) as u16);
                let at = chance.duration(begins, SAFETY - millis(2000));
                plan.push((at, Fault::CutRegion(region)));
                let ends = at + chance.duration(millis(200), millis(6000));
                plan.push((ends, Fault::JoinRegion(region)));
            }
        }
        Raid::Branches => {
            for _ in 0..chance.between(4, 12) {
                let at = chance.duration(begins / 2, SAFETY - millis(2000));
                let mark = draw_mark(&mut chance);
                plan.push((at, Fault::Ambush(Trigger::Reached(mark), draw_strike(&mut chance))));
            }
        }
    }
    plan
}

type Plan = Vec<(Duration, Fault)>;

fn on_leaders(chance: &mut Chance, nodes: &[NodeId], begins: Duration, plan: &mut Plan) {
    let millis = Duration::from_millis;
    plan.push((begins, Fault::Crash(chance.pick(nodes), Power::Kept)));
    for _ in 0..chance.between(2, 6) {
        let long = chance.duration(millis(800), millis(4000));
        // At once, nobody hears of its term; a little later, some have a part of its log.
        let strike = if chance.permille(500) {
            Strike::Isolate(long)
        } else {
            Strike::Sever(chance.duration(millis(1), millis(150)), long)
        };
        plan.push((begins, Fault::Ambush(Trigger::Elected, strike)));
    }
}

fn on_members(chance: &mut Chance, nodes: &[NodeId], begins: Duration, plan: &mut Plan) {
    let millis = Duration::from_millis;
    for _ in 0..chance.between(2, 8) {
        let at = chance.duration(begins, SAFETY - millis(2000));
        let strike = match chance.below(3) {
            0 => Strike::Fell(chance.index(4), chance.duration(millis(0), millis(400))),
            1 => Strike::FellOthers,
            _ => draw_strike(chance),
        };
        plan.push((at, Fault::Ambush(Trigger::Reconfigured, strike)));
        if nodes.len() > 3 {
            let node = chance.pick(nodes);
            plan.push((at, Fault::Drain(node)));
            let ends = at + chance.duration(millis(2000), millis(8000));
            plan.push((ends, Fault::Undrain(node)));
        }
    }
}

fn on_writes(chance: &mut Chance, nodes: &[NodeId], begins: Duration, plan: &mut Plan) {
    let millis = Duration::from_millis;
    for _ in 0..chance.between(2, 5) {
        let at = chance.duration(begins, SAFETY - millis(2000));
        let node = chance.pick(nodes);
        let others: Vec<NodeId> = nodes.iter().copied().filter(|other| *other != node).collect();
        let strike = if chance.permille(700) {
            Strike::Choke(chance.duration(millis(1500), millis(6000)))
        } else {
            Strike::Hang(chance.duration(millis(3000), millis(15_000)))
        };
        if chance.permille(400) {
            plan.push((at, Fault::Ambush(Trigger::Elected, strike)));
        } else {
            let faults = strike.faults(node, &others).into_iter();
            plan.extend(faults.map(|(after, fault)| (at + after, fault)));
        }
    }
}

fn on_gateways(chance: &mut Chance, mark: Mark, begins: Duration, plan: &mut Plan) {
    let millis = Duration::from_millis;
    if chance.permille(600) {
        // What a gateway has sent before it fell silent comes late, or twice.
        let weather = Weather {
            loss_permille: chance.below(10) as u32,
            duplicate_permille: chance.between(20, 300) as u32,
            reorder_permille: chance.between(20, 200) as u32,
        };
        plan.push((begins, Fault::Weather(weather)));
        plan.push((SAFETY - millis(2000), Fault::Weather(Weather::default())));
    }
    // One after another: who is silent must be missed by somebody.
    let mut at = begins;
    while at < SAFETY - millis(2000) {
        let long = EXPIRY + chance.duration(millis(500), millis(3000));
        let clog = Strike::Clog(chance.index(4), chance.duration(millis(500), millis(4000)));
        let strike = match chance.below(12) {
            // One of the ranges hears of it long before another.
            _ if mark == Mark::StagingSent && chance.permille(500) => clog,
            0..=3 => Strike::Pause(long),
            4..=6 => Strike::Isolate(long),
            7 | 8 => Strike::Deafen(long),
            9 | 10 => clog,
            _ => draw_strike(chance),
        };
        plan.push((at, Fault::Ambush(Trigger::Reached(mark), strike)));
        at += long + chance.duration(millis(0), millis(800));
    }
}

fn on_births(chance: &mut Chance, begins: Duration, plan: &mut Plan) {
    let millis = Duration::from_millis;
    for _ in 0..chance.between(3, 8) {
        let at = chance.duration(begins, SAFETY - millis(2000));
        let strike = match chance.below(3) {
            0 => draw_strike(chance),
            _ => Strike::Isolate(chance.duration(millis(1000), millis(6000))),
        };
        plan.push((at, Fault::Ambush(Trigger::Reached(chance.pick(&BIRTHS)), strike)));
        plan.push((at + chance.duration(millis(0), millis(300)), draw_split(chance)));
    }
}

fn on_clocks(chance: &mut Chance, nodes: &[NodeId], begins: Duration, plan: &mut Plan) {
    let millis = Duration::from_millis;
    let node = chance.pick(nodes);
    let others: Vec<NodeId> = nodes.iter().copied().filter(|other| *other != node).collect();
    // From the beginning: what a clock's step leads to before it is measured is another matter (docs/limits.md).
    plan.push((Duration::ZERO, Fault::Step(node, -SKEW_MAX_US)));
    plan.push((Duration::ZERO, Fault::Step(chance.pick(&others), SKEW_MAX_US)));
    spread_leases(chance, &others, begins, plan);
    let mut at = begins;
    while at < SAFETY - millis(2000) {
        let ends = at + chance.duration(millis(500), millis(4000));
        for other in &others {
            plan.push((at, Fault::Clog(*other, node)));
            plan.push((ends, Fault::Unclog(*other, node)));
        }
        at = ends + chance.duration(millis(0), millis(500));
    }
}

/// The ranges of a transaction have leaseholders of their own.
fn spread_leases(chance: &mut Chance, among: &[NodeId], begins: Duration, plan: &mut Plan) {
    for round in 0..3 {
        for place in 0..LED_RANGES {
            let at = begins + Duration::from_millis(5_000) * round;
            plan.push((at, Fault::HandOver(place, chance.pick(among))));
        }
    }
}

/// So many ranges there are about.
const LED_RANGES: usize = 8;

fn on_strays(chance: &mut Chance, nodes: &[NodeId], begins: Duration, plan: &mut Plan) {
    let millis = Duration::from_millis;
    spread_leases(chance, nodes, begins, plan);
    let straying = Straying {
        late_permille: chance.between(50, 250) as u32,
        again_permille: chance.pick(&[0, 100, 250]),
        longest: chance.pick(&[millis(100), millis(300), millis(800)]),
    };
    plan.push((begins, Fault::Straying(straying)));
    plan.push((SAFETY - millis(500), Fault::Straying(Straying::default())));
}

fn on_echoes(chance: &mut Chance, nodes: &[NodeId], begins: Duration, plan: &mut Plan) {
    let millis = Duration::from_millis;
    spread_leases(chance, nodes, begins, plan);
    let straying = Straying {
        late_permille: chance.below(50) as u32,
        again_permille: chance.between(200, 600) as u32,
        longest: chance.pick(&[millis(500), millis(2000), millis(4000)]),
    };
    plan.push((begins, Fault::Straying(straying)));
    plan.push((SAFETY - millis(500), Fault::Straying(Straying::default())));
}

fn on_snapshots(chance: &mut Chance, nodes: &[NodeId], begins: Duration, plan: &mut Plan) {
    let millis = Duration::from_millis;
    let loss_permille = chance.pick(&[0, 20, 80]);
    plan.push((begins, Fault::Weather(Weather { loss_permille, ..Weather::default() })));
    plan.push((SAFETY - millis(1000), Fault::Weather(Weather::default())));
    let mut at = begins;
    while at < SAFETY - millis(4000) {
        let node = chance.pick(nodes);
        let others: Vec<NodeId> = nodes.iter().copied().filter(|other| *other != node).collect();
        let away = chance.duration(millis(1500), millis(6000));
        let faults = Strike::Isolate(away).faults(node, &others).into_iter();
        plan.extend(faults.map(|(after, fault)| (at + after, fault)));
        let behind = Trigger::Reached(Mark::FollowerBehindLog);
        let strike = match chance.below(3) {
            0 => draw_strike(chance),
            _ => Strike::Isolate(chance.duration(millis(5), millis(400))),
        };
        plan.push((at + away / 2, Fault::Ambush(behind, strike)));
        at += away + chance.duration(millis(300), millis(2000));
    }
}

fn draw_split(chance: &mut Chance) -> Fault {
    let table = chance.pick(&TABLES);
    Fault::Split(item_key(table, chance.below(8)))
}

/// A branch that a node's machines take.
fn draw_mark(chance: &mut Chance) -> Mark {
    let of_machines = |mark: &Mark| matches!(mark.area(), "storage" | "replication" | "txn/server");
    let marks: Vec<Mark> = Mark::ALL.iter().copied().filter(of_machines).collect();
    chance.pick(&marks)
}

fn draw_strike(chance: &mut Chance) -> Strike {
    let millis = Duration::from_millis;
    let ends = chance.duration(millis(300), millis(5000));
    match chance.below(12) {
        0 | 1 => Strike::Fuse(chance.below(8) as u32),
        2 => Strike::Isolate(chance.duration(millis(30), millis(400))),
        3 => Strike::Isolate(ends),
        4 => Strike::Deafen(ends),
        5 => Strike::Pause(ends),
        6 => Strike::Stall(ends.min(millis(1500))),
        7 => Strike::Choke(ends),
        8 => Strike::Fell(chance.index(4), chance.duration(millis(0), millis(400))),
        9 => Strike::Snub(chance.index(4), ends),
        10 => Strike::Clog(chance.index(4), ends),
        _ => Strike::FellOthers,
    }
}
