//! A seeded simulation of one group: crashes, loss, duplication, reordering, partitions, slow disks, drifting clocks, transfers,
//! membership changes, snapshots. After every step the ledger and the leases are checked; at the end everything is healed and
//! the group must work.
//!
//! `RAFT_SIM_SEEDS=N` runs N seeds, `RAFT_SIM_FIRST=S` starts at seed S, `RAFT_SIM_TRACE=1` prints every delivery. A failure names
//! its seed.

mod nemesis;

use super::lab::{self, Effects, Ledger, Node, Packet, Parcel, Snapshot};
use bytes::Bytes;
use clock::{Monotonic, Timestamp};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use replication::raft::{LogIndex, Membership, PlantedBug, Raft, ReplicaId, SnapshotOutcome, Term};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

const MS: u64 = 1_000_000;
const FAULTY: u64 = 10_000 * MS;
const HEALED: u64 = 6_000 * MS;
const NODES_MAX: u64 = 7;
const STRAGGLER_MAX: u64 = 4_000 * MS;

#[derive(Debug)]
enum Event {
    Packet(Packet),
    Wake(ReplicaId),
    Sync(ReplicaId),
    Round(ReplicaId),
    Report {
        from: ReplicaId,
        term: Term,
        to: ReplicaId,
        index: LogIndex,
        outcome: SnapshotOutcome,
    },
    Client,
    Nemesis,
    Restart(ReplicaId),
    /// Leadership is to go there, whoever has it by then.
    Transfer(ReplicaId),
    /// The link is cut, one way.
    Cut(ReplicaId, ReplicaId),
}

/// How bad it is, drawn per seed.
#[derive(Debug)]
struct Knobs {
    loss: u64,
    duplication: u64,
    latency_max: u64,
    /// So many percent of the messages are overtaken by whole reigns.
    stragglers: u64,
    sync_max: u64,
    nemesis_every: u64,
    client_every: u64,
    membership: bool,
    /// Leadership is handed to and fro.
    restless: bool,
}

struct Lane {
    node: Node,
    /// Local nanoseconds per million true ones.
    rate: u64,
    wake: u64,
    sync_due: bool,
    /// The disk does not answer before then.
    stalled_until: u64,
    /// The longest lease given in this term, in true time.
    leased: Option<(Term, u64)>,
    reads: BTreeMap<u64, LogIndex>,
    committed: LogIndex,
}

struct Sim {
    rng: ChaCha8Rng,
    knobs: Knobs,
    now: u64,
    sequence: u64,
    events: BTreeMap<(u64, u64), Event>,
    lanes: BTreeMap<ReplicaId, Lane>,
    /// Cut links, one way.
    cuts: BTreeSet<(ReplicaId, ReplicaId)>,
    ledger: Ledger,
    planted: Option<PlantedBug>,
    seed: u64,
    healed: bool,
    next_read: u64,
    next_id: u64,
    steps: u64,
    counts: Counts,
    traced: bool,
}

/// What really happened, so that a green run is not an empty one.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    elections: usize,
    applied: usize,
    reads: usize,
    read_indexes: usize,
    crashes: usize,
    snapshots: usize,
    transfers: usize,
    memberships: usize,
    steps: u64,
}

impl Lane {
    fn local(&self, now: u64) -> Monotonic {
        Monotonic::from_nanos((u128::from(now) * u128::from(self.rate) / 1_000_000) as u64 + 1)
    }
    fn to_true(&self, local: Monotonic) -> u64 {
        (u128::from(local.nanos()) * 1_000_000 / u128::from(self.rate)) as u64
    }
}

fn wall(now: u64) -> Timestamp {
    Timestamp::new(1_000_000 + now / 1000, 0)
}

impl Sim {
    fn new(seed: u64, planted: Option<PlantedBug>) -> Sim {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut below = |limit: u64| rng.next_u64() % limit;
        let voters = 1 + below(10).min(4);
        let knobs = Knobs {
            loss: [0, 2, 10, 25][below(4) as usize],
            duplication: [0, 5, 20][below(3) as usize],
            latency_max: [5, 50, 300][below(3) as usize] * MS,
            sync_max: [1, 20, 400, 1500][below(4) as usize] * MS,
            nemesis_every: [300, 800, 2000][below(3) as usize] * MS,
            client_every: [50, 150, 400][below(3) as usize] * MS,
            membership: below(2) == 0,
            stragglers: [0, 3, 20][below(3) as usize],
            restless: below(4) == 0,
        };
        let membership = Membership::of_voters((1..=voters).map(ReplicaId));
        let mut sim = Sim {
            rng,
            knobs,
            now: 0,
            sequence: 0,
            events: BTreeMap::new(),
            lanes: BTreeMap::new(),
            cuts: BTreeSet::new(),
            ledger: Ledger::default(),
            planted,
            seed,
            healed: false,
            next_read: 0,
            next_id: voters + 1,
            steps: 0,
            counts: Counts::default(),
            traced: std::env::var_os("RAFT_SIM_TRACE").is_some(),
        };
        for id in 1..=voters {
            let snapshot = Snapshot { membership: membership.clone(), ..Snapshot::default() };
            sim.add(ReplicaId(id), snapshot);
        }
        sim.at(MS, Event::Client);
        sim.at(300 * MS, Event::Nemesis);
        sim
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.rng.next_u64() % limit.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick(&mut self, ids: &[ReplicaId]) -> Option<ReplicaId> {
        if ids.is_empty() {
            return None;
        }
        Some(ids[self.below(ids.len() as u64) as usize])
    }

    fn ids(&self) -> Vec<ReplicaId> {
        self.lanes.keys().copied().collect()
    }

    fn at(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((time, self.sequence), event);
    }

    fn add(&mut self, id: ReplicaId, initial: Snapshot) {
        let rate = 990_000 + self.below(20_000);
        let node = Node::new(id, lab::config(self.planted), initial, self.seed);
        let lane = Lane {
            node,
            rate,
            wake: u64::MAX,
            sync_due: false,
            stalled_until: 0,
            leased: None,
            reads: BTreeMap::new(),
            committed: LogIndex::ZERO,
        };
        self.lanes.insert(id, lane);
        self.start(id);
        self.at(self.now, Event::Round(id));
    }

    fn start(&mut self, id: ReplicaId) {
        let now = self.now;
        let lane = self.lanes.get_mut(&id).expect("known");
        let local = lane.local(now);
        lane.node.start(local);
        lane.committed = LogIndex::ZERO;
        self.touched(id);
    }

    fn run(&mut self, until: u64) {
        while let Some(((time, _), event)) = self.events.pop_first() {
            if time > until {
                self.at(time, event);
                break;
            }
            assert!(time >= self.now);
            self.now = time;
            self.steps += 1;
            self.handle(event);
        }
        self.now = until;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Packet(packet) => self.deliver(packet),
            Event::Wake(id) => {
                let lane = self.lanes.get_mut(&id).expect("known");
                if lane.wake > self.now {
                    return;
                }
                lane.wake = u64::MAX;
                let local = lane.local(self.now);
                lane.node.with(local, |raft, env| raft.tick(env));
                self.touched(id);
                let lane = &self.lanes[&id];
                let wake = lane.node.view(local, |raft, env| raft.wake_at(env));
                assert!(wake.is_none_or(|wake| wake > local), "{id} would tick for ever");
            }
            Event::Sync(id) => {
                let lane = self.lanes.get_mut(&id).expect("known");
                lane.sync_due = false;
                let count = lane.node.unsynced() as u64;
                let count = 1 + self.below(count) as usize;
                let lane = self.lanes.get_mut(&id).expect("known");
                let local = lane.local(self.now);
                let packets = lane.node.sync(local, count);
                self.send(packets);
                self.touched(id);
            }
            Event::Round(id) => {
                let ids = self.ids();
                let now = self.now;
                let lane = self.lanes.get_mut(&id).expect("known");
                let local = lane.local(now);
                let packets = lane.node.ask(local, wall(now), &ids);
                self.send(packets);
                self.at(now + lab::PROMISE_INTERVAL.as_nanos() as u64, Event::Round(id));
            }
            Event::Report { from, term, to, index, outcome } => {
                let lane = self.lanes.get_mut(&from).expect("known");
                let local = lane.local(self.now);
                lane.node.with(local, |raft, env| {
                    if raft.term() == term {
                        raft.snapshot_sent(env, to, index, outcome);
                    }
                });
                self.touched(from);
            }
            Event::Client => self.client(),
            Event::Nemesis => self.nemesis(),
            Event::Restart(id) => {
                if self.lanes[&id].node.raft.is_none() {
                    self.start(id);
                }
            }
            Event::Transfer(to) if !self.healed => self.transfer(to),
            Event::Cut(from, to) if !self.healed => {
                self.cuts.insert((from, to));
            }
            Event::Transfer(_) | Event::Cut(..) => {}
        }
    }

    fn deliver(&mut self, packet: Packet) {
        let to = packet.to;
        if self.traced {
            println!("{:>6} ms {}", self.now / MS, lab::show_packet(&packet));
        }
        let report = match &packet.parcel {
            Parcel::Snapshot { snapshot, leader_term } => {
                Some((packet.from, *leader_term, snapshot.index))
            }
            Parcel::Raft(_) | Parcel::Ask { .. } | Parcel::Promise { .. } => None,
        };
        let now = self.now;
        let Some(lane) = self.lanes.get_mut(&to) else { return };
        let local = lane.local(now);
        let answers = lane.node.receive(local, packet);
        self.send(answers);
        if let Some((from, term, index)) = report {
            self.counts.snapshots += 1;
            let outcome = SnapshotOutcome::Delivered;
            self.at(now + MS, Event::Report { from, term, to, index, outcome });
        }
        self.touched(to);
    }

    fn send(&mut self, packets: Vec<Packet>) {
        for packet in packets {
            let cut = self.cuts.contains(&(packet.from, packet.to));
            let lost = cut
                || (!self.healed && {
                    let loss = self.knobs.loss;
                    self.chance(loss)
                });
            if let (true, Parcel::Snapshot { snapshot, leader_term }) = (lost, &packet.parcel) {
                let (from, to, term, index) =
                    (packet.from, packet.to, *leader_term, snapshot.index);
                let outcome = SnapshotOutcome::Failed;
                self.at(self.now + 200 * MS, Event::Report { from, term, to, index, outcome });
            }
            if lost {
                continue;
            }
            if !self.healed && {
                let duplication = self.knobs.duplication;
                self.chance(duplication)
            } {
                let late = self.now + self.below(self.knobs.latency_max * 10);
                self.at(late, Event::Packet(packet.clone()));
            }
            let straggles = !self.healed && matches!(packet.parcel, Parcel::Raft(_)) && {
                let stragglers = self.knobs.stragglers;
                self.chance(stragglers)
            };
            let latency = match (self.healed, straggles) {
                (true, _) => 20 * MS,
                (false, false) => self.knobs.latency_max,
                (false, true) => STRAGGLER_MAX,
            };
            let arrives = self.now + 1 + self.below(latency);
            self.at(arrives, Event::Packet(packet));
        }
    }

    /// After anything happened at `id`: does what it wants, checks everything, plans what is next.
    fn touched(&mut self, id: ReplicaId) {
        let now = self.now;
        let lane = self.lanes.get_mut(&id).expect("known");
        let local = lane.local(now);
        let effects = lane.node.settle(local, &mut self.ledger);
        self.check(id);
        self.carry_out(id, effects);
        let lane = self.lanes.get_mut(&id).expect("known");
        if lane.node.unsynced() > 0 && !lane.sync_due {
            lane.sync_due = true;
            let sync = if self.healed { 2 * MS } else { self.knobs.sync_max };
            let after = 1 + self.below(sync);
            let stalled = if self.healed { 0 } else { self.lanes[&id].stalled_until };
            self.at(stalled.max(now + after), Event::Sync(id));
        }
        let lane = self.lanes.get_mut(&id).expect("known");
        let wake = lane.node.view(local, |raft, env| raft.wake_at(env)).unwrap_or(Monotonic::MAX);
        if wake < Monotonic::MAX {
            let wake = (lane.to_true(wake) + 2).max(now + 1);
            if wake < lane.wake {
                lane.wake = wake;
                self.at(wake, Event::Wake(id));
            }
        }
    }

    fn carry_out(&mut self, id: ReplicaId, effects: Effects) {
        self.send(effects.packets);
        for (context, index) in effects.read_indexes {
            self.counts.read_indexes += 1;
            if let Some(least) = self.lanes.get_mut(&id).expect("known").reads.remove(&context) {
                assert!(
                    index >= least,
                    "read index: {id} got {index}, {least} was committed when it asked"
                );
            }
        }
        for to in effects.snapshots_wanted {
            let node = &self.lanes[&id].node;
            let (snapshot, incarnation) = (node.applied.clone(), node.promises_incarnation());
            let leader_term = node.raft.as_ref().map(Raft::term).expect("it runs");
            let parcel = Parcel::Snapshot { snapshot, leader_term };
            self.send(vec![Packet { from: id, incarnation, to, parcel }]);
        }
    }

    fn check(&mut self, id: ReplicaId) {
        let elections = self.ledger.elections;
        let lane = &self.lanes[&id];
        let commit = lane.node.raft.as_ref().map_or(LogIndex::ZERO, Raft::commit_index);
        if commit > lane.committed {
            let lanes = &self.lanes;
            self.ledger.committed(&lane.node, |index, term| {
                let has = |lane: &Lane| {
                    let log = &lane.node.disk.log;
                    log.truncated.0 >= index
                        || replication::raft::GroupLog::term(log, index) == Some(term)
                };
                lanes.iter().filter(|(_, lane)| has(lane)).map(|(id, _)| *id).collect()
            });
        }
        if elections > self.counts.elections {
            self.counts.elections = elections;
            self.ledger.check_complete(&lane.node);
        }
        self.lanes.get_mut(&id).expect("known").committed = commit;
        self.check_matches(id);
        self.check_leases(id);
    }

    /// What a leader counts as acknowledged is on the follower's disk, the very entry. (Of a later term's leader it may have
    /// something else by now.)
    fn check_matches(&self, id: ReplicaId) {
        let Some(raft) = self.lanes[&id].node.raft.as_ref() else { return };
        let local = self.lanes[&id].local(self.now);
        for peer in raft.progress() {
            let Some(other) = self.lanes.get(&peer.id) else { continue };
            let disk = &other.node.disk;
            let follows = other.node.raft.as_ref().is_some_and(|other| other.term() == raft.term());
            let index = peer.match_index;
            if !follows || index <= disk.log.truncated.0 {
                continue;
            }
            let ours = self.lanes[&id].node.view(local, |raft, env| raft.term_at(env, index));
            let theirs = replication::raft::GroupLog::term(&disk.log, index);
            let ours = ours.flatten();
            assert!(
                ours.is_none() || ours == theirs,
                "{id} counts entry {index} of term {ours:?} for {}, whose disk has {theirs:?} there",
                peer.id
            );
        }
    }

    /// No two leases at once, in true time. A lease counts until its end or until its holder knows that it lost it.
    fn check_leases(&mut self, touched: ReplicaId) {
        let now = self.now;
        let mut serving = Vec::new();
        for (id, lane) in &mut self.lanes {
            let local = lane.local(now);
            let lease = lane.node.lease(local);
            let leads = lane.node.raft.as_ref().filter(|raft| {
                raft.leader() == Some(*id)
                    && raft.transferring_to().is_none()
                    && raft.membership().is_voter(*id)
            });
            let term = leads.map(Raft::term);
            if lane.leased.is_some_and(|(leased, until)| Some(leased) != term || until <= now) {
                lane.leased = None;
            }
            if let Some(lease) = lease {
                let until = lane.to_true(lease.until);
                let longest = lane.leased.map_or(until, |(_, old)| old.max(until));
                lane.leased = Some((lease.term, longest));
                if *id == touched {
                    self.ledger.serve(lease.term, lease.read_bound);
                }
            }
            if lane.leased.is_some() {
                serving.push((*id, lane.leased));
            }
        }
        assert!(serving.len() <= 1, "two leases at {now}: {serving:?}");
        self.check_promises(touched);
    }

    /// Whoever's promise a lease is made of knows that it is bound by it. One that has not heard yet that the leader is a voter is
    /// left out: it helps nobody but such as have not heard of it either, whom a quorum refuses for their logs.
    fn check_promises(&self, leader: ReplicaId) {
        let lane = &self.lanes[&leader];
        let local = lane.local(self.now);
        if lane.node.lease(local).is_none() {
            return;
        }
        let relied_on = lane.node.view(local, |raft, env| raft.relied_on(env)).unwrap_or_default();
        for id in relied_on {
            let voter = &self.lanes[&id];
            let knows = voter.node.raft.as_ref().is_some_and(|raft| {
                let membership = raft.newest_membership();
                membership.voters.is_empty() || membership.is_voter(leader)
            });
            let free = voter.node.view(voter.local(self.now), |raft, env| raft.is_free(env));
            assert!(!(knows && free == Some(true)), "{leader} relies on {id}, which is free");
        }
    }

    fn client(&mut self) {
        let ids = self.ids();
        for id in ids {
            let lane = self.lanes.get_mut(&id).expect("known");
            let local = lane.local(self.now);
            if lane.node.is_leader() {
                let command = Bytes::from(self.sequence.to_be_bytes().to_vec());
                let _refused = lane.node.with(local, |raft, env| raft.propose(env, command));
            }
            let context = self.next_read;
            self.next_read += 1;
            let least = self.ledger.commit_high();
            let asks = self.chance(10);
            let lane = self.lanes.get_mut(&id).expect("known");
            if asks && lane.node.raft.is_some() {
                lane.reads.insert(context, least);
                lane.node.with(local, |raft, env| raft.read_index(env, context));
            }
            self.touched(id);
        }
        let every = if self.healed { 300 * MS } else { self.knobs.client_every };
        let next = self.now + 1 + self.below(2 * every);
        self.at(next, Event::Client);
    }

    fn leaders(&self) -> Vec<ReplicaId> {
        self.lanes.iter().filter(|(_, lane)| lane.node.is_leader()).map(|(id, _)| *id).collect()
    }

    /// All faults end; then the group must elect, commit and agree.
    fn heal(&mut self) {
        self.healed = true;
        self.cuts.clear();
        for id in self.ids() {
            if self.lanes[&id].node.raft.is_none() {
                self.start(id);
            }
        }
    }

    fn check_alive(&self) {
        let high = self.ledger.commit_high();
        let leaders: Vec<ReplicaId> = self
            .leaders()
            .into_iter()
            .filter(|id| self.lanes[id].node.lease(self.lanes[id].local(self.now)).is_some())
            .collect();
        assert_eq!(
            leaders.len(),
            1,
            "one leader with a lease after healing, of {:?}: {}",
            self.leaders(),
            self.picture()
        );
        let raft = self.lanes[&leaders[0]].node.raft.as_ref().expect("it leads");
        let lag = high.get().saturating_sub(raft.applied_index().get());
        assert!(lag <= 200, "leader lags by {lag}");
        for member in raft.membership().members() {
            let applied = self.lanes[&member].node.applied.index;
            assert!(
                applied.get() + 200 >= high.get(),
                "{member} applied {applied} of {high} after healing: {}",
                self.picture()
            );
        }
    }

    fn picture(&self) -> String {
        let mut text = String::new();
        for (id, lane) in &self.lanes {
            if let Some(raft) = &lane.node.raft {
                text += &format!(
                    "\n  {id} t{} {:?} leader {:?} log {}..{} durable {} commit {} applied {} {:?} {:?}",
                    raft.term(),
                    raft.role(),
                    raft.leader(),
                    raft.truncated_index(),
                    raft.last_index(),
                    raft.durable_index(),
                    raft.commit_index(),
                    raft.applied_index(),
                    raft.membership(),
                    raft.progress(),
                );
            }
        }
        text
    }
}

fn run_seed(seed: u64, planted: Option<PlantedBug>) -> Counts {
    let mut sim = Sim::new(seed, planted);
    sim.run(FAULTY);
    sim.heal();
    sim.run(FAULTY + HEALED);
    if planted.is_none() {
        sim.check_alive();
    }
    sim.counts.elections = sim.ledger.elections;
    sim.counts.applied = sim.ledger.applied;
    sim.counts.reads = sim.ledger.reads;
    sim.counts.steps = sim.steps;
    sim.counts
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_seed_keeps_the_invariants_and_recovers() {
    let seeds = from_env("RAFT_SIM_SEEDS").unwrap_or(2000);
    let first = from_env("RAFT_SIM_FIRST").unwrap_or(0);
    let mut total = Counts::default();
    for seed in first..first + seeds {
        let counts = catch_unwind(|| run_seed(seed, None));
        let Ok(counts) = counts else {
            panic!("failed; replay with RAFT_SIM_FIRST={seed} RAFT_SIM_SEEDS=1")
        };
        total.elections += counts.elections;
        total.applied += counts.applied;
        total.reads += counts.reads;
        total.read_indexes += counts.read_indexes;
        total.crashes += counts.crashes;
        total.snapshots += counts.snapshots;
        total.transfers += counts.transfers;
        total.memberships += counts.memberships;
        total.steps += counts.steps;
    }
    println!("{seeds} seeds: {total:?}");
    if seeds >= 100 {
        let per_seed = |count: usize, least: usize| count >= least * seeds as usize / 10;
        assert!(per_seed(total.elections, 15), "too few elections: {total:?}");
        assert!(per_seed(total.applied, 200), "too few entries: {total:?}");
        assert!(per_seed(total.reads, 100), "too few reads: {total:?}");
        assert!(per_seed(total.read_indexes, 10), "too few read indexes: {total:?}");
        assert!(per_seed(total.crashes, 10), "too few crashes: {total:?}");
        assert!(per_seed(total.snapshots, 1), "too few snapshots: {total:?}");
        assert!(per_seed(total.transfers, 1), "too few transfers: {total:?}");
        assert!(per_seed(total.memberships, 1), "too few membership changes: {total:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| format!("{:?}", run_seed(seed, None));
    assert_eq!(run(7), run(7));
}

/// Seeds until `bug` is noticed.
fn seeds_until_noticed(bug: PlantedBug, limit: u64) -> Option<u64> {
    let first = from_env("RAFT_SIM_FIRST").unwrap_or(0);
    (0..limit).find(|n| catch_unwind(AssertUnwindSafe(|| run_seed(first + n, Some(bug)))).is_err())
}

macro_rules! planted {
    ($($name:ident: $bug:ident within $limit:expr;)*) => {$(
        #[test]
        fn $name() {
            let noticed = seeds_until_noticed(PlantedBug::$bug, $limit);
            assert!(noticed.is_some(), "{:?} not noticed within {} seeds", PlantedBug::$bug, $limit);
            println!("{:?} noticed after {} seeds", PlantedBug::$bug, noticed.unwrap_or(0) + 1);
        }
    )*};
}

planted! {
    r01_a_vote_sent_before_it_is_durable_is_noticed: VoteBeforeSync within 100;
    r02_an_append_acknowledged_before_it_is_durable_is_noticed: AckBeforeSync within 100;
    r05_an_own_copy_counted_before_it_is_durable_is_noticed: CountOwnUnsynced within 100;
    r06_a_change_before_an_own_commit_is_noticed: ChangeBeforeOwnCommit within 100;
    r07_a_membership_taken_at_apply_is_noticed: MembershipAtApply within 100;
    r09_committing_by_counting_is_noticed: CommitByCounting within 100;
    r10_a_lease_that_never_expires_is_noticed: LeaseNeverExpires within 100;
    // Rare, both: of five times 4000 seeds nine find it.
    r10_a_round_of_a_former_reign_that_counts_is_noticed: FormerRoundCounts within 4000;
    r10_a_reign_ended_by_what_its_leader_agreed_to_before_is_noticed: AgreedTermReleases within 4000;
    r12_an_unconfirmed_read_index_is_noticed: ReadIndexUnconfirmed within 100;
    // Rare: of 40 times 100 seeds 30 find it.
    r16_a_stale_completion_is_noticed: StaleCompletion within 1000;
}
