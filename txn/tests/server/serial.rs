//! Random transactions over two ranges, through everything that can happen to a range server,
//! against a serial twin.
//!
//! Law: put every committed transaction at its commit timestamp; then each of its reads, as last
//! refreshed, is what the versions of the others at or below that timestamp say, and what is stored
//! in the end is what was committed, nothing more and nothing less (but what an ambiguous answer
//! left open). `coordinator` is who makes them, `judge` who judges; here is the world around them.

mod coordinator;
mod judge;

use bytes::Bytes;
use clock::Timestamp;
use coverage::Mark;
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use replication::range::RangeId;
use replication::store::{Outcome, RangeEvent};
use std::collections::BTreeMap;
use std::time::Duration;
use storage::mvcc::intents;
use storage::{Key, Span};
use txn::api::{
    Advice, Batch, Found, Missing, PushKind, Request, Response, Sought, TxnMeta, TxnStatus,
};
use txn::server::{PlantedBug, RequestId, ServerConfig};

use super::replicas::NODE;
use super::scripts::World;

use coordinator::{Client, Doing, search};
use judge::Committed;

const KEYS: u64 = 8;
const CLIENTS: usize = 4;
const STEPS: usize = 2_400;
/// Keys from here on lie in the second range.
const MIDDLE: u64 = 4;

type Rows = BTreeMap<Key, Bytes>;

fn key(number: u64) -> Key {
    Key::new(vec![b'a' + u8::try_from(number).expect("few keys")])
}

fn half(key: &Key) -> u64 {
    u64::from(*key >= self::key(MIDDLE))
}

struct Bank {
    world: World,
    random: ChaCha8Rng,
    clients: Vec<Client>,
    committed: Vec<Committed>,
    /// Writes that may or may not have been committed.
    open: Vec<BTreeMap<Key, Option<Bytes>>>,
    last_id: u128,
    bound: Timestamp,
    steps: u64,
    /// Copies of messages that have not arrived yet.
    late: Vec<Batch>,
}

impl Bank {
    fn new(seed: u64, planted: Option<PlantedBug>) -> Bank {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let config = ServerConfig {
            tscache_cells_max: if random.next_u64() % 2 == 0 { 6 } else { 1000 },
            txn_expiry: Duration::from_millis(5),
            staged_kept: Duration::from_micros(100),
            planted,
            ..ServerConfig::new(NODE)
        };
        let mut bank = Bank {
            world: World::new(config),
            random,
            clients: Vec::new(),
            committed: Vec::new(),
            open: Vec::new(),
            last_id: 0,
            bound: Timestamp::MIN,
            steps: 0,
            late: Vec::new(),
        };
        bank.move_clock();
        bank.world.lead(RangeId(1), Timestamp::MIN);
        for _ in 0..CLIENTS {
            let txn = bank.fresh_txn();
            bank.clients.push(Client { txn, doing: Doing::Think, waiting: false, trials: 0 });
        }
        bank
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random.next_u64() % n
    }

    fn move_clock(&mut self) {
        self.world.micros += 1 + self.random.next_u64() % 40;
        if self.below(40) == 0 {
            self.world.micros += 6_000;
        }
        self.bound =
            self.bound.max(self.world.now().clock.timestamp().plus(Duration::from_micros(200)));
        self.world.replicas.bound = self.bound;
        let now = self.world.now();
        self.world.ranges.tick(now, &mut self.world.replicas);
    }

    /// The range becomes two. Nothing but what is copied tells the right side what was read.
    fn split(&mut self) {
        while !self.world.replicas.undecided.is_empty() {
            self.world.decide(Outcome::Applied);
        }
        let mut batch = self.batch_of(vec![Request::Split { at: key(MIDDLE), right: RangeId(2) }]);
        batch.range = Some((RangeId(1), 1));
        let now = self.world.now();
        self.world.ranges.request(now, &mut self.world.replicas, RequestId(0), batch);
        while !self.world.replicas.undecided.is_empty() {
            self.world.decide(Outcome::Applied);
        }
        assert!(self.world.replicas.states.contains_key(&RangeId(2)), "the range was split");
        self.world.lead(RangeId(2), Timestamp::MIN);
    }

    /// A copy of an earlier message arrives.
    fn deliver_late(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let at = self.below(self.late.len() as u64) as usize;
        let batch = self.late.swap_remove(at);
        let now = self.world.now();
        self.world.ranges.request(now, &mut self.world.replicas, RequestId(500), batch);
    }

    /// The lease of a range moves: what is in flight is decided this way or that, and a new one
    /// begins above the old bound.
    fn move_lease(&mut self) {
        let range = RangeId(1 + self.below(self.world.replicas.states.len() as u64));
        let term = self.world.replicas.terms.remove(&range);
        self.world.replicas.leaders.remove(&range);
        let mut kept = true;
        let early = self.below(2) == 0;
        if early {
            self.world.event(RangeEvent::Deposed { range });
        }
        for _ in 0..self.world.replicas.undecided.len() {
            if self.world.replicas.undecided[0].range != range {
                self.world.replicas.undecided.rotate_left(1);
                continue;
            }
            // A prefix of the log survives.
            kept = kept && self.below(3) != 0;
            let events = match self.below(4) {
                0 => self.world.replicas.lose_sight(kept),
                _ if kept => self.world.replicas.decide(Outcome::Applied),
                _ => self.world.replicas.decide(Outcome::Dropped),
            };
            for event in events {
                self.world.event(event);
            }
        }
        if !early {
            self.world.event(RangeEvent::Deposed { range });
        }
        let floor = self.bound;
        assert!(term.is_some(), "it was led");
        self.world.lead(range, floor);
    }

    fn step(&mut self) {
        self.steps += 1;
        match self.below(20) {
            0 => self.move_clock(),
            1 if self.below(4) == 0 => self.move_lease(),
            // A coordinator dies: its next transaction knows nothing of the last.
            2 if self.below(4) == 0 => {
                let who = self.below(CLIENTS as u64) as usize;
                let client = &self.clients[who];
                let ends = matches!(client.doing, Doing::End) && !client.txn.acknowledged;
                if !client.waiting && !ends {
                    self.begin(who);
                }
            }
            2 => self.deliver_late(),
            3..=8 => self.decide_one(),
            _ => {
                let who = self.below(CLIENTS as u64) as usize;
                if !self.clients[who].waiting {
                    self.after_refresh(who);
                    self.after_search(who);
                    self.ask(who);
                }
            }
        }
        self.collect();
    }

    fn decide_one(&mut self) {
        // Ranges have logs of their own: the oldest of either may be first.
        if self.below(2) == 0
            && let Some(first) = self.world.replicas.undecided.front()
        {
            let range = first.range;
            let other =
                self.world.replicas.undecided.iter().position(|command| command.range != range);
            if let Some(at) = other {
                let command = self.world.replicas.undecided.remove(at).expect("it is there");
                self.world.replicas.undecided.push_front(command);
            }
        }
        self.world.decide(Outcome::Applied);
    }

    fn collect(&mut self) {
        let answers = self.world.ranges.answers(self.world.now(), &self.world.replicas);
        for (id, result) in answers {
            if id.0 > 0 && id.0 <= CLIENTS as u64 {
                self.answered(id.0 as usize - 1, result);
            }
        }
        assert!(self.world.ranges.fatal().is_none());
    }

    /// Everything in flight is applied, everybody dies, and their intents are resolved by what
    /// their records say.
    fn finish(&mut self) {
        for _ in 0..200 {
            while !self.world.replicas.undecided.is_empty() {
                self.world.decide(Outcome::Applied);
            }
            self.collect();
            self.move_clock();
        }
        for who in 0..CLIENTS {
            assert!(
                !self.clients[who].waiting,
                "client {who} was answered: {:?}",
                self.clients[who].doing
            );
            self.begin(who);
        }
        let mut number = 1000;
        loop {
            let first = intents(&self.world.replicas.engine, &Span::all()).next();
            let Some((at, intent)) = first.map(|item| item.expect("reads")) else { break };
            let pushee = TxnMeta {
                id: intent.txn,
                anchor: intent.anchor.clone(),
                started: intent.started,
                priority: 1,
                stage: 0,
            };
            let commit_ts = self.force(&mut number, &pushee, intent.ts);
            let spans = vec![Span::point(&at)];
            self.call(
                &mut number,
                Request::Resolve { txn: intent.txn, commit_ts, ignored: Vec::new(), spans },
            );
        }
    }

    /// What becomes of a dead transaction.
    fn force(
        &mut self,
        number: &mut u64,
        pushee: &TxnMeta,
        active: Timestamp,
    ) -> Option<Timestamp> {
        let mut sought = None;
        loop {
            let (pushee, dependents) = (pushee.clone(), Vec::new());
            let id = pushee.id;
            let kind = PushKind::Force;
            let push = Request::Push { pushee, active, kind, dependents, sought };
            let Response::Pushed { status, advice, .. } = self.call(number, push) else {
                panic!("pushed")
            };
            let staged = match status {
                TxnStatus::Committed(ts) => return Some(ts),
                TxnStatus::Aborted => return None,
                TxnStatus::Pending => panic!("forced"),
                TxnStatus::Staging(staged) => staged,
            };
            assert_eq!((advice, sought), (Advice::Recover, None), "{id} is recovered at once");
            let mut all = true;
            for side in 0..2 {
                let Some(query) = search(id, &staged, Missing::Prevent, side) else { continue };
                all &= self.call(number, query) == (Response::Writes { all: true });
            }
            let found = if all { Found::All } else { Found::Prevented };
            sought = Some(Sought { at: staged.at, found });
        }
    }

    fn call(&mut self, number: &mut u64, request: Request) -> Response {
        *number += 1;
        let batch = self.batch_of(vec![request]);
        let now = self.world.now();
        self.world.ranges.request(now, &mut self.world.replicas, RequestId(*number), batch);
        self.world.decide(Outcome::Applied);
        let answers = self.world.ranges.answers(self.world.now(), &self.world.replicas);
        let mut found = answers.into_iter().filter(|(id, _)| id.0 == *number);
        let (_, result) = found.next().expect("an answer");
        result.expect("success").responses.remove(0)
    }
}

fn run(seed: u64, steps: usize, planted: Option<PlantedBug>) -> usize {
    let mut bank = Bank::new(seed, planted);
    for step in 0..steps {
        if step == steps / 3 {
            bank.split();
        }
        bank.step();
    }
    bank.finish();
    bank.check()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn committed_transactions_are_serializable(seed: u64) {
        run(seed, STEPS, None);
    }
}

/// Killer C08: the law above is worth nothing when nothing happens.
#[test]
fn enough_transactions_commit() {
    let committed: usize = (0..20).map(|seed| run(seed, STEPS, None)).sum();
    assert!(committed > 20 * 20, "only {committed} transactions committed in 20 runs");
    // And of what orders contenders.
    for mark in [Mark::ReadLater, Mark::CircleBroken, Mark::QueuedBeforeYounger] {
        let times = coverage::count(mark);
        println!("{mark:?}: {times}");
        assert!(times >= 10, "{mark:?} happened {times} times in 20 runs");
    }
}

/// Bugs that break no order of what has committed, and what sees them.
const ELSEWHERE: [PlantedBug; 3] = [
    // Nothing is collected here; in the simulated world it is.
    PlantedBug::HistoryUnguarded,
    // Nobody commits wrongly, somebody waits for ever: the simulated world's clients do not end (docs/killers.md, T12).
    PlantedBug::DeadlockUnseen,
    // Who reads without its intents has an aborted record, and never commits (docs/killers.md, T09: masked).
    PlantedBug::AbortedReadsOn,
];

/// Testing the tester: each planted bug breaks the law within this many seeds.
#[test]
fn planted_bugs_are_found() {
    const SEEDS: u64 = 1000;
    std::panic::set_hook(Box::new(|_| {}));
    let mut found = String::new();
    let mut missed = Vec::new();
    for bug in PlantedBug::ALL.into_iter().filter(|bug| !ELSEWHERE.contains(bug)) {
        let breaks =
            |seed: &u64| std::panic::catch_unwind(|| run(*seed, STEPS, Some(bug))).is_err();
        match (0..SEEDS).find(breaks) {
            Some(seed) => found += &format!("{bug:?} at seed {seed}\n"),
            None => missed.push(bug),
        }
    }
    let _ = std::panic::take_hook();
    print!("{found}");
    assert!(missed.is_empty(), "not found in {SEEDS} seeds: {missed:?}");
}
