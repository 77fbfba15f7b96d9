//! Random transactions over two ranges, through everything that can happen to a range server,
//! against a serial twin.
//!
//! Law: put every committed transaction at its commit timestamp; then each of its reads, as last
//! refreshed, is what the versions of the others at or below that timestamp say, and what is stored
//! in the end is what was committed, nothing more and nothing less (but what an ambiguous answer
//! left open). The coordinator here is a plain one: one request at a time, refreshes, stages, pushes,
//! recovers others, dies now and then, also right after it has called a staged transaction committed.

use bytes::Bytes;
use clock::{ClockTimestamp, Timestamp};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use replication::range::RangeId;
use replication::store::{Outcome, RangeEvent};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use storage::mvcc::{Sequence, TxnId, Version, intents, layout};
use storage::{Direction, Key, Reader, Space, Span};
use txn::api::{
    Advice, Batch, Expect, Found, KvError, Lock, Missing, Mutation, PushKind, Reply, Request,
    Response, Sought, Staged, TxnMeta, TxnStatus, Wait,
};
use txn::server::{PlantedBug, RequestId, ServerConfig};

use super::replicas::NODE;
use super::scripts::World;

const KEYS: u64 = 8;
const CLIENTS: usize = 4;
const STEPS: usize = 2_000;
/// Keys from here on lie in the second range.
const MIDDLE: u64 = 4;

type Rows = BTreeMap<Key, Bytes>;

fn key(number: u64) -> Key {
    Key::new(vec![b'a' + u8::try_from(number).expect("few keys")])
}

fn half(key: &Key) -> u64 {
    u64::from(*key >= self::key(MIDDLE))
}

#[derive(Clone, Debug)]
struct Txn {
    meta: TxnMeta,
    read_at: Timestamp,
    limit: Timestamp,
    reads: Vec<(Span, Rows)>,
    reads_left: u64,
    writes: BTreeMap<Key, Option<Bytes>>,
    pushed: Vec<(TxnId, Timestamp)>,
    laid: BTreeSet<u64>,
    commit_ts: Timestamp,
    began: u64,
    /// Commits in parallel: where its record is staged.
    parallel: Option<Option<Timestamp>>,
    /// A record may be staged or committed.
    commit_sent: bool,
    /// Its client knows that it is committed.
    acknowledged: bool,
}

/// What a client is about to ask, or waits to be told.
#[derive(Clone, Debug)]
enum Doing {
    Think,
    Read(Span, Option<Lock>),
    OnePhase,
    /// What became of it, when its answer was lost.
    Settle,
    /// Lay intents with values that will be overwritten by `Write`.
    Draft(u64),
    Write(u64),
    /// Refresh the reads from `.1` on to `.0`, then go on with the rest.
    Refresh(Timestamp, usize, Box<Doing>),
    Stage,
    End,
    Resolve(Option<Timestamp>, u64),
    Push(Box<Doing>, TxnMeta, Key, Timestamp, bool, Option<Sought>),
    /// Look for a staged transaction's writes on this side, then on the other; then push with what was found.
    Seek(Box<Doing>, TxnId, Staged, Missing, u64, bool),
    ResolveOther(Box<Doing>, TxnId, Option<Timestamp>, Key),
}

struct Client {
    txn: Txn,
    doing: Doing,
    waiting: bool,
    trials: u32,
}

struct Committed {
    ts: Timestamp,
    limit: Timestamp,
    /// Steps of the test: in real time.
    began: u64,
    acknowledged: u64,
    reads: Vec<(Span, Rows)>,
    writes: BTreeMap<Key, Option<Bytes>>,
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

    fn fresh_txn(&mut self) -> Txn {
        self.last_id += 1;
        // Its gateway's clock is off by up to 30 us.
        let read_at = Timestamp::new(self.world.micros - 30 + self.below(60), 0);
        let (anchor, reads_left) = (key(self.below(KEYS)), self.below(4));
        let meta = TxnMeta { id: TxnId::new(self.last_id), anchor, started: read_at, priority: 1 };
        let mut writes = BTreeMap::new();
        for number in 0..self.below(4) {
            let value = Bytes::from(format!("{}.{number}", self.last_id));
            let value = (self.below(5) != 0).then_some(value);
            writes.insert(key(self.below(KEYS)), value);
        }
        Txn {
            meta,
            read_at,
            limit: read_at.plus(Duration::from_micros(60)),
            reads: Vec::new(),
            reads_left,
            writes,
            pushed: Vec::new(),
            laid: BTreeSet::new(),
            commit_ts: read_at,
            began: self.steps,
            parallel: None,
            commit_sent: false,
            acknowledged: false,
        }
    }

    fn committed(&mut self, who: usize, ts: Timestamp) {
        let txn = &mut self.clients[who].txn;
        if std::mem::replace(&mut txn.acknowledged, true) {
            return;
        }
        let txn = &self.clients[who].txn;
        self.committed.push(Committed {
            ts,
            limit: txn.limit,
            began: txn.began,
            acknowledged: self.steps,
            reads: txn.reads.clone(),
            writes: txn.writes.clone(),
        });
    }

    fn batch_of(&self, requests: Vec<Request>) -> Batch {
        let at = self.world.now().clock.timestamp();
        Batch {
            range: None,
            read_at: at,
            uncertainty_limit: at,
            txn: None,
            schema: Vec::new(),
            pushed: Vec::new(),
            ignored: Vec::new(),
            wait: Wait::Queue(Duration::from_micros(50)),
            requests,
        }
    }

    /// Sends what the client is about to ask.
    fn ask(&mut self, who: usize) {
        if matches!(self.clients[who].doing, Doing::Think) {
            self.think(who);
        }
        let Client { txn, doing, .. } = &self.clients[who];
        let Some(request) = request_of(txn, doing) else { return };
        let mut batch = self.batch_of(vec![request]);
        batch.txn = Some(txn.meta.clone());
        batch.read_at = match doing {
            Doing::Refresh(to, ..) => *to,
            _ => txn.read_at,
        };
        batch.uncertainty_limit = txn.limit;
        batch.pushed = txn.pushed.clone();
        if matches!(self.clients[who].doing, Doing::OnePhase) && self.below(6) == 0 {
            // It is on its way, and its sender thinks that it is lost.
            self.late.push(batch);
            return self.lost_answer(who);
        }
        self.clients[who].waiting = true;
        let client = &mut self.clients[who];
        client.txn.commit_sent |= match client.doing {
            Doing::Stage => true,
            Doing::End => client.txn.commit_ts > Timestamp::MIN,
            _ => false,
        };
        let client = &self.clients[who];
        if matches!(client.doing, Doing::Write(_) | Doing::Draft(_) | Doing::Stage | Doing::End)
            && !(matches!(client.doing, Doing::End) && client.txn.commit_ts == Timestamp::MIN)
            && self.below(4) == 0
        {
            self.late.push(batch.clone());
        }
        let now = self.world.now();
        self.world.ranges.request(now, &mut self.world.replicas, RequestId(who as u64 + 1), batch);
    }

    fn think(&mut self, who: usize) {
        let lock = match self.below(4) {
            0 => Some(Lock::Exclusive),
            1 => Some(Lock::Shared),
            _ => None,
        };
        let (at, half_of) = (self.below(KEYS), self.below(2));
        let scan = self.below(3) == 0;
        let client = &mut self.clients[who];
        let txn = &mut client.txn;
        client.doing = if txn.reads_left > 0 {
            txn.reads_left -= 1;
            let start = half_of * MIDDLE;
            let span = if scan {
                Span::new(key(start), key(start + MIDDLE))
            } else {
                Span::point(&key(at))
            };
            Doing::Read(span, lock)
        } else if let Some(first) = txn.writes.keys().next() {
            let (first, two) = (half(first), txn.writes.keys().any(|k| half(k) != half(first)));
            if two && at % 2 == 0 {
                txn.parallel = Some(None);
                if scan { Doing::Stage } else { Doing::Write(first) }
            } else if two || at % 3 == 0 {
                Doing::Draft(first)
            } else {
                Doing::OnePhase
            }
        } else {
            let ts = txn.read_at;
            client.doing = Doing::Resolve(None, 0);
            return self.committed(who, ts);
        };
    }

    /// Some ask what became of a one-phase commit, some never know.
    fn lost_answer(&mut self, who: usize) {
        if self.below(3) > 0 {
            self.clients[who].doing = Doing::Settle;
            return;
        }
        let writes = self.clients[who].txn.writes.clone();
        self.open.push(writes);
        self.begin(who);
    }

    fn restart(&mut self, who: usize) {
        let txn = &self.clients[who].txn;
        assert!(!txn.acknowledged, "{} was called committed, and fails", txn.meta.id);
        let next = if txn.laid.is_empty() && !txn.commit_sent {
            Doing::Resolve(None, 0)
        } else {
            Doing::End
        };
        let client = &mut self.clients[who];
        client.txn.commit_ts = Timestamp::MIN;
        client.doing = next;
    }

    fn begin(&mut self, who: usize) {
        let old = &self.clients[who].txn;
        let asks = matches!(self.clients[who].doing, Doing::Settle);
        if (old.commit_sent || asks) && !old.acknowledged {
            // Others may find all its writes, or it may come late.
            self.open.push(old.writes.clone());
        }
        let txn = self.fresh_txn();
        self.clients[who] = Client { txn, doing: Doing::Think, waiting: false, trials: 0 };
    }

    fn answered(&mut self, who: usize, result: Result<Reply, KvError>) {
        let client = &mut self.clients[who];
        client.waiting = false;
        match result {
            Ok(reply) => {
                let response = reply.responses.into_iter().next().expect("one response");
                self.told(who, response);
            }
            Err(
                KvError::NotLeaseholder { .. }
                | KvError::Unavailable { .. }
                | KvError::Overloaded { .. },
            ) => {}
            Err(KvError::Blocked { key, holder, active, .. }) => {
                client.trials += 1;
                let plain = matches!(client.doing, Doing::Read(_, None));
                let doing = Box::new(client.doing.clone());
                client.doing = Doing::Push(doing, holder, key, active, plain, None);
            }
            Err(
                KvError::Uncertain { ts, .. }
                | KvError::NewerVersion { ts, .. }
                | KvError::NeedsRefresh { ts },
            ) => {
                let rest = Box::new(client.doing.clone());
                client.doing = Doing::Refresh(ts.max(client.txn.read_at), 0, rest);
            }
            Err(KvError::Ambiguous { .. }) => {
                if matches!(client.doing, Doing::OnePhase) {
                    self.lost_answer(who);
                }
            }
            Err(KvError::TxnAborted { .. }) if matches!(client.doing, Doing::End) => {
                assert!(!client.txn.acknowledged, "a commit that was acknowledged was aborted");
                client.txn.commit_sent = false;
                client.doing = Doing::Resolve(None, 0)
            }
            Err(KvError::RefreshFailed { .. } | KvError::TxnAborted { .. }) => self.restart(who),
            Err(error) => panic!("{error} to {:?}", client.doing),
        }
    }

    fn told(&mut self, who: usize, response: Response) {
        let client = &mut self.clients[who];
        let txn = &mut client.txn;
        client.doing = match (client.doing.clone(), response) {
            (Doing::Read(span, _), Response::Get(row)) => {
                txn.reads.push((span, row.into_iter().map(|row| (row.key, row.value)).collect()));
                Doing::Think
            }
            (Doing::Read(span, _), Response::Scan { rows, resume: None }) => {
                txn.reads.push((span, rows.into_iter().map(|row| (row.key, row.value)).collect()));
                Doing::Think
            }
            (Doing::OnePhase | Doing::Settle, Response::Committed(ts)) => {
                self.committed(who, ts);
                return self.begin(who);
            }
            (Doing::Settle, Response::Aborted) => {
                client.doing = Doing::Think;
                return self.begin(who);
            }
            (Doing::Draft(side), Response::Written(ts)) => {
                txn.laid.insert(side);
                txn.commit_ts = txn.commit_ts.max(ts);
                Doing::Write(side)
            }
            (Doing::Stage, Response::Staged(ts)) => {
                txn.parallel = Some(Some(ts));
                return self.go_on_in_parallel(who);
            }
            (Doing::Stage, Response::Committed(ts)) => {
                client.doing = Doing::Resolve(Some(ts), 0);
                return self.committed(who, ts);
            }
            (Doing::Write(side), Response::Written(ts)) if txn.parallel.is_some() => {
                txn.laid.insert(side);
                txn.commit_ts = txn.commit_ts.max(ts);
                return self.go_on_in_parallel(who);
            }
            (Doing::Write(side), Response::Written(ts)) => {
                txn.laid.insert(side);
                txn.commit_ts = txn.commit_ts.max(ts);
                let other = txn.writes.keys().map(half).find(|side| !txn.laid.contains(side));
                match other {
                    Some(side) => Doing::Draft(side),
                    None => Doing::Refresh(txn.commit_ts, 0, Box::new(Doing::End)),
                }
            }
            (Doing::Refresh(to, done, rest), Response::Done) => Doing::Refresh(to, done + 1, rest),
            (Doing::End, Response::Committed(ts)) => {
                client.doing = Doing::Resolve(Some(ts), 0);
                return self.committed(who, ts);
            }
            (Doing::End, Response::Aborted) => {
                txn.commit_sent = false;
                Doing::Resolve(None, 0)
            }
            (Doing::Seek(push, id, staged, missing, side, all), Response::Writes { all: here }) => {
                Doing::Seek(push, id, staged, missing, side + 1, all && here)
            }
            (Doing::Resolve(ts, 0), Response::Done) => Doing::Resolve(ts, 1),
            (Doing::Resolve(..), Response::Done) => return self.begin(who),
            (
                push @ Doing::Push(..),
                Response::Pushed { status: TxnStatus::Staging(staged), advice, .. },
            ) => {
                let Doing::Push(_, ref holder, ..) = push else { unreachable!("it was matched") };
                let id = holder.id;
                let missing = match advice {
                    Advice::Recover => Missing::Prevent,
                    Advice::Wait | Advice::GiveUp => Missing::Tell,
                };
                Doing::Seek(Box::new(push), id, staged, missing, 0, true)
            }
            (Doing::Push(back, holder, at, ..), Response::Pushed { status, .. }) => match status {
                TxnStatus::Staging(_) => unreachable!("it was matched"),
                TxnStatus::Pending => {
                    if matches!(*back, Doing::Read(_, None)) {
                        txn.pushed.push((holder.id, txn.read_at));
                    }
                    *back
                }
                TxnStatus::Committed(ts) => Doing::ResolveOther(back, holder.id, Some(ts), at),
                TxnStatus::Aborted => Doing::ResolveOther(back, holder.id, None, at),
            },
            (Doing::ResolveOther(back, ..), Response::Done) => *back,
            (doing, response) => panic!("{response:?} to {doing:?}"),
        };
        self.after_refresh(who);
    }

    /// Stage and both sides' writes, in any order; then it is committed, or must go higher.
    fn go_on_in_parallel(&mut self, who: usize) {
        let (stage_now, again, dies) = (self.below(2) == 0, self.below(2) == 0, self.below(3) == 0);
        let txn = &mut self.clients[who].txn;
        let staged = txn.parallel.expect("it commits in parallel");
        let open: Option<u64> = txn.writes.keys().map(half).find(|side| !txn.laid.contains(side));
        let next = match (staged, open) {
            (None, Some(side)) if !stage_now => Doing::Write(side),
            (Some(_), Some(side)) => Doing::Write(side),
            (None, _) => Doing::Stage,
            (Some(at), None) if txn.commit_ts <= at => {
                self.committed(who, at);
                if dies {
                    return self.begin(who);
                }
                self.clients[who].txn.commit_ts = at;
                Doing::End
            }
            (Some(_), None) => {
                let rest = if again { Doing::Stage } else { Doing::End };
                Doing::Refresh(txn.commit_ts, 0, Box::new(rest))
            }
        };
        self.clients[who].doing = next;
        self.after_refresh(who);
    }

    /// Both sides were searched: push with what was found, or wait on.
    fn after_search(&mut self, who: usize) {
        let Doing::Seek(push, _, staged, missing, 2, all) = &self.clients[who].doing else {
            return;
        };
        let Doing::Push(back, holder, key, active, plain, _) = (**push).clone() else { return };
        let found = match (all, missing) {
            (true, _) => Found::All,
            (false, Missing::Prevent) => Found::Prevented,
            (false, Missing::Tell) => {
                self.clients[who].doing = *back;
                return;
            }
        };
        let sought = Some(Sought { at: staged.at, found });
        self.clients[who].doing = Doing::Push(back, holder, key, active, plain, sought);
    }

    /// A refresh that has nothing left to check is over: everything read holds at the new
    /// timestamp.
    fn after_refresh(&mut self, who: usize) {
        let client = &mut self.clients[who];
        while let Doing::Refresh(to, done, rest) = &client.doing {
            if *done < client.txn.reads.len() && *to > client.txn.read_at {
                return;
            }
            client.txn.read_at = client.txn.read_at.max(*to);
            client.txn.commit_ts = client.txn.commit_ts.max(*to);
            client.doing = (**rest).clone();
        }
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

    fn versions(&self) -> BTreeMap<(Key, Timestamp), Option<Bytes>> {
        let items =
            self.world.replicas.engine.scan(Space::Versions, b"", b"\xff", Direction::Forward);
        let mut found = BTreeMap::new();
        for item in items {
            let (raw, value) = item.expect("reads");
            let (key, ts) = layout::parse_version_key(&raw).expect("parses");
            let Version { written_at, value, .. } = Version::decode(value).expect("decodes");
            assert!(written_at > ClockTimestamp::MIN);
            found.insert((key, ts), value);
        }
        found
    }

    fn check(&self) -> usize {
        let versions = self.versions();
        let mut unexplained = versions.clone();
        for txn in &self.committed {
            for (key, value) in &txn.writes {
                let stored = unexplained.remove(&(key.clone(), txn.ts));
                assert_eq!(
                    stored.as_ref(),
                    Some(value),
                    "{key} committed at {} is stored once",
                    txn.ts
                );
            }
            for (span, seen) in &txn.reads {
                let expected = read(&versions, span, txn);
                assert_eq!(
                    *seen, expected,
                    "what was read in {span} by the transaction at {}",
                    txn.ts
                );
            }
        }
        for ((key, ts), value) in unexplained {
            let explained = self.open.iter().any(|writes| writes.get(&key) == Some(&value));
            assert!(explained, "{key}={value:?} at {ts} was committed by nobody");
        }
        self.check_real_time();
        self.committed.iter().filter(|txn| !txn.writes.is_empty()).count()
    }

    /// Who began after a write was acknowledged, with a clock within the bound, reads it or
    /// something newer; unless the write went above every clock (then it should not have been
    /// acknowledged yet, which is the coordinator's to see to).
    fn check_real_time(&self) {
        for reader in &self.committed {
            for writer in self.committed.iter().filter(|writer| writer.acknowledged < reader.began)
            {
                let met = |key: &Key| reader.reads.iter().any(|(span, _)| span.contains(key));
                if writer.ts <= reader.limit && writer.writes.keys().any(met) {
                    assert!(
                        writer.ts <= reader.ts,
                        "{} was acknowledged before {} began",
                        writer.ts,
                        reader.ts
                    );
                }
            }
        }
    }
}

/// What the twin says that `txn` reads: the others' versions at or below its timestamp.
fn read(
    versions: &BTreeMap<(Key, Timestamp), Option<Bytes>>,
    span: &Span,
    txn: &Committed,
) -> Rows {
    let mut rows = Rows::new();
    for ((key, ts), value) in versions {
        let own = *ts == txn.ts && txn.writes.contains_key(key);
        if !span.contains(key) || *ts > txn.ts || own {
            continue;
        }
        match value {
            Some(value) => rows.insert(key.clone(), value.clone()),
            None => rows.remove(key),
        };
    }
    rows
}

/// Looks for a staged transaction's writes on one side; `None`: there are none.
fn search(txn: TxnId, staged: &Staged, missing: Missing, side: u64) -> Option<Request> {
    let here = staged.writes.iter().filter(|(key, _)| half(key) == side);
    let writes: Vec<(Key, Sequence)> = here.cloned().collect();
    (!writes.is_empty()).then_some(Request::QueryWrites { txn, at: staged.at, writes, missing })
}

fn request_of(txn: &Txn, doing: &Doing) -> Option<Request> {
    let mutations = |side: Option<u64>| -> Vec<Mutation> {
        let wanted = txn.writes.iter().filter(|(key, _)| side.is_none_or(|side| half(key) == side));
        let one = |(key, value): (&Key, &Option<Bytes>)| Mutation {
            key: key.clone(),
            value: value.clone(),
            expect: Expect::Anything,
            sequence: Sequence::new(2),
        };
        wanted.map(one).collect()
    };
    let side_span = |side: u64| Span::new(key(side * MIDDLE), key(side * MIDDLE + MIDDLE));
    Some(match doing {
        Doing::Think => return None,
        Doing::Read(span, lock) if span.is_point() => {
            Request::Get { key: span.start.clone(), lock: *lock }
        }
        Doing::Read(span, lock) => Request::Scan {
            span: span.clone(),
            direction: Direction::Forward,
            limit: 0,
            bytes_max: 0,
            lock: *lock,
        },
        Doing::OnePhase => {
            let side = txn.writes.keys().next().map(half)?;
            let here: Vec<Span> = txn
                .reads
                .iter()
                .map(|(span, _)| span.clone())
                .filter(|span| half(&span.start) == side)
                .collect();
            Request::CommitOnePhase {
                mutations: mutations(None),
                reads_elsewhere: here.len() < txn.reads.len(),
                reads: here,
                deadline: Timestamp::MAX,
            }
        }
        Doing::Settle => Request::Settle {
            txn: txn.meta.id,
            started: txn.meta.started,
            key: txn.writes.keys().next()?.clone(),
        },
        Doing::Draft(side) => {
            let draft = |mutation: Mutation| Mutation {
                value: Some(Bytes::from_static(b"draft")),
                sequence: Sequence::new(1),
                ..mutation
            };
            Request::Write { mutations: mutations(Some(*side)).into_iter().map(draft).collect() }
        }
        Doing::Write(side) => Request::Write { mutations: mutations(Some(*side)) },
        Doing::Refresh(_, done, _) => {
            Request::Refresh { span: txn.reads.get(*done)?.0.clone(), since: txn.read_at }
        }
        Doing::Stage => Request::Stage {
            intents: txn.writes.keys().map(Span::point).collect(),
            writes: txn.writes.keys().map(|key| (key.clone(), Sequence::new(2))).collect(),
            deadline: Timestamp::MAX,
        },
        Doing::Seek(_, id, staged, missing, side, _) => {
            // A side without writes is asked all the same: it finds all of nothing.
            search(*id, staged, *missing, *side).unwrap_or(Request::QueryWrites {
                txn: *id,
                at: staged.at,
                writes: vec![staged.writes[0].clone()],
                missing: Missing::Tell,
            })
        }
        Doing::End => Request::EndTxn {
            commit_ts: (txn.commit_ts > Timestamp::MIN).then_some(txn.commit_ts),
            intents: txn.writes.keys().map(Span::point).collect(),
            deadline: Timestamp::MAX,
        },
        Doing::Resolve(commit_ts, side) => {
            let spans = vec![side_span(*side)];
            Request::Resolve { txn: txn.meta.id, commit_ts: *commit_ts, ignored: Vec::new(), spans }
        }
        Doing::Push(_, pushee, _, active, plain, sought) => {
            let kind = if *plain { PushKind::Timestamp(txn.read_at) } else { PushKind::Abort };
            // Without asking around for deadlocks: after some trials the holder just has to go.
            let kind =
                if *plain || !txn.meta.id.get().is_multiple_of(3) { kind } else { PushKind::Force };
            let (pushee, active, sought) = (pushee.clone(), *active, *sought);
            Request::Push { pushee, active, kind, dependents: Vec::new(), sought }
        }
        Doing::ResolveOther(_, other, commit_ts, at) => {
            let spans = vec![Span::point(at)];
            Request::Resolve { txn: *other, commit_ts: *commit_ts, ignored: Vec::new(), spans }
        }
    })
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
