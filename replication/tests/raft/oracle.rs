//! The same scripts against raft-rs 0.7: elections, proposals, cut links. Terms, logs and commit indexes must agree.
//!
//! Only what both do the same way is compared. Disks sync at once; promises are off; no timers run: an election is asked for after
//! followers have forgotten their leader and while leaders are cut off, a heartbeat round stands for the passing of time.

use super::lab::{self, Ledger, Node, Packet, Parcel, Snapshot};
use ::raft::prelude::{ConfState, Config, RawNode};
use ::raft::storage::MemStorage;
use ::raft::{StateRole, eraftpb};
use bytes::Bytes;
use clock::Monotonic;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use replication::raft::{Membership, ReplicaId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

type Cuts = BTreeSet<(u64, u64)>;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Everybody forgets its leader, then this one campaigns.
    Campaign(u64),
    /// All who think they lead propose.
    Propose,
    /// All who think they lead make themselves known.
    Beat,
    Isolate(u64),
    Cut(u64, u64),
    Heal,
}

/// What is compared: leads, term, commit, terms of the log.
type View = BTreeMap<u64, (bool, u64, u64, Vec<u64>)>;

struct Ours {
    nodes: BTreeMap<u64, Node>,
    ledger: Ledger,
    now: Duration,
}

impl Ours {
    fn new(count: u64) -> Ours {
        let membership = Membership::of_voters((1..=count).map(ReplicaId));
        let mut nodes = BTreeMap::new();
        for id in 1..=count {
            let initial = Snapshot { membership: membership.clone(), ..Snapshot::default() };
            let mut node = Node::new(ReplicaId(id), lab::config(None), initial, 0);
            node.start(Monotonic::ZERO);
            nodes.insert(id, node);
        }
        Ours { nodes, ledger: Ledger::default(), now: Duration::ZERO }
    }

    fn step(&mut self, step: Step, cuts: &Cuts) {
        let now = Monotonic::ZERO.plus(self.now);
        let leaders: Vec<u64> =
            self.nodes.iter().filter(|(_, node)| node.is_leader()).map(|(id, _)| *id).collect();
        match step {
            Step::Campaign(id) => {
                self.now += Duration::from_secs(5);
                let now = Monotonic::ZERO.plus(self.now);
                self.nodes.get_mut(&id).unwrap().with(now, |raft, env| raft.campaign(env));
            }
            Step::Propose => {
                for id in leaders {
                    let node = self.nodes.get_mut(&id).unwrap();
                    node.with(now, |raft, env| raft.propose(env, Bytes::from_static(b"x")))
                        .unwrap()
                        .unwrap();
                }
            }
            Step::Beat => {
                for id in leaders {
                    self.nodes.get_mut(&id).unwrap().with(now, |raft, env| raft.read_index(env, 0));
                }
            }
            Step::Isolate(_) | Step::Cut(..) | Step::Heal => {}
        }
        self.deliver(cuts);
    }

    fn deliver(&mut self, cuts: &Cuts) {
        let now = Monotonic::ZERO.plus(self.now);
        let mut network: VecDeque<Packet> = VecDeque::new();
        loop {
            for node in self.nodes.values_mut() {
                loop {
                    network.extend(node.settle(now, &mut self.ledger).packets);
                    if node.unsynced() == 0 {
                        break;
                    }
                    network.extend(node.sync(now, usize::MAX));
                }
            }
            let Some(packet) = network.pop_front() else { return };
            assert!(matches!(packet.parcel, Parcel::Raft(_)));
            if !cuts.contains(&(packet.from.0, packet.to.0)) {
                network.extend(self.nodes.get_mut(&packet.to.0).unwrap().receive(now, packet));
            }
        }
    }

    fn view(&self) -> View {
        let of = |node: &Node| {
            let raft = node.raft.as_ref().unwrap();
            let terms = node.log.entries.iter().map(|entry| entry.term.get()).collect();
            (node.is_leader(), raft.term().get(), raft.commit_index().get(), terms)
        };
        self.nodes.iter().map(|(id, node)| (*id, of(node))).collect()
    }
}

struct Theirs {
    nodes: BTreeMap<u64, RawNode<MemStorage>>,
}

impl Theirs {
    fn new(count: u64) -> Theirs {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = |id| {
            let state = ConfState { voters: (1..=count).collect(), ..ConfState::default() };
            let storage = MemStorage::new_with_conf_state(state);
            let config = Config {
                id,
                election_tick: 10,
                heartbeat_tick: 3,
                pre_vote: true,
                check_quorum: true,
                max_inflight_msgs: 256,
                max_size_per_msg: 1 << 20,
                ..Config::default()
            };
            (id, RawNode::new(&config, storage, &logger).unwrap())
        };
        Theirs { nodes: (1..=count).map(node).collect() }
    }

    fn step(&mut self, step: Step, cuts: &Cuts) {
        match step {
            Step::Campaign(id) => {
                for node in self.nodes.values_mut() {
                    if node.raft.state != StateRole::Leader {
                        node.raft.election_elapsed = 10;
                    }
                }
                self.nodes.get_mut(&id).unwrap().campaign().unwrap();
            }
            Step::Propose => {
                for node in self.nodes.values_mut() {
                    if node.raft.state == StateRole::Leader {
                        node.propose(Vec::new(), b"x".to_vec()).unwrap();
                    }
                }
            }
            Step::Beat => {
                for node in self.nodes.values_mut() {
                    node.ping();
                }
            }
            Step::Isolate(_) | Step::Cut(..) | Step::Heal => {}
        }
        self.deliver(cuts);
    }

    fn deliver(&mut self, cuts: &Cuts) {
        let mut network: VecDeque<eraftpb::Message> = VecDeque::new();
        loop {
            for node in self.nodes.values_mut() {
                while node.has_ready() {
                    let mut ready = node.ready();
                    network.extend(ready.take_messages());
                    let storage = node.store().clone();
                    storage.wl().append(ready.entries()).unwrap();
                    if let Some(hard_state) = ready.hs() {
                        storage.wl().set_hardstate(hard_state.clone());
                    }
                    network.extend(ready.take_persisted_messages());
                    let mut light = node.advance(ready);
                    network.extend(light.take_messages());
                    node.advance_apply();
                }
            }
            let Some(message) = network.pop_front() else { return };
            if !cuts.contains(&(message.from, message.to)) {
                let _stale = self.nodes.get_mut(&message.to).unwrap().step(message);
            }
        }
    }

    fn view(&self) -> View {
        let of = |node: &RawNode<MemStorage>| {
            let log = &node.raft.raft_log;
            let terms = (1..=log.last_index()).map(|index| log.term(index).unwrap()).collect();
            (node.raft.state == StateRole::Leader, node.raft.term, log.committed, terms)
        };
        self.nodes.iter().map(|(id, node)| (*id, of(node))).collect()
    }
}

fn random_step(rng: &mut ChaCha8Rng, count: u64) -> Step {
    let mut id = || 1 + rng.next_u64() % count;
    let (a, b) = (id(), id());
    match rng.next_u64() % 12 {
        0..=2 => Step::Campaign(a),
        3..=6 => Step::Propose,
        7 | 8 => Step::Beat,
        9 => Step::Isolate(a),
        10 => Step::Cut(a, b),
        _ => Step::Heal,
    }
}

#[test]
fn terms_logs_and_commits_agree_with_raft_rs() {
    let mut elections = 0;
    for seed in 0..300 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let count = [1, 2, 3, 3, 5][(rng.next_u64() % 5) as usize];
        let (mut ours, mut theirs) = (Ours::new(count), Theirs::new(count));
        let mut cuts = Cuts::new();
        let mut story = Vec::new();
        for _ in 0..40 {
            let step = random_step(&mut rng, count);
            match step {
                Step::Isolate(id) => {
                    for other in 1..=count {
                        cuts.insert((id, other));
                        cuts.insert((other, id));
                    }
                }
                Step::Cut(a, b) => {
                    cuts.insert((a, b));
                    cuts.insert((b, a));
                }
                Step::Heal => cuts.clear(),
                Step::Campaign(_) | Step::Propose | Step::Beat => {}
            }
            story.push(step);
            // A leader of ours that is asked for a pre-vote makes itself known at once: keep it out of that.
            let mut cuts_now = cuts.clone();
            if let Step::Campaign(candidate) = step {
                for (leader, _) in
                    ours.view().into_iter().filter(|(id, view)| view.0 && *id != candidate)
                {
                    cuts_now
                        .extend((1..=count).flat_map(|other| [(leader, other), (other, leader)]));
                }
            }
            ours.step(step, &cuts_now);
            theirs.step(step, &cuts_now);
            // What was lost on a cut link is found by the next heartbeats, sooner or later: give both time.
            for _ in 0..4 {
                ours.step(Step::Beat, &cuts);
                theirs.step(Step::Beat, &cuts);
            }
            assert_eq!(ours.view(), theirs.view(), "seed {seed}, ours and theirs after {story:?}");
        }
        elections += ours.ledger.elections;
    }
    assert!(elections > 300, "only {elections} elections: nothing was compared");
}
