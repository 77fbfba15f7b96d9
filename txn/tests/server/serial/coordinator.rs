//! A plain coordinator: one request at a time. It refreshes, stages, pushes, recovers others, and dies now and then, also right after it has
//! called a staged transaction committed.

use bytes::Bytes;
use clock::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use storage::mvcc::{Sequence, TxnId};
use storage::{Direction, Key, Span};
use txn::api::{
    Advice, Batch, Expect, Footing, Found, KvError, Lock, Missing, Mutation, PushKind, Reply,
    Request, Response, Sought, Staged, TxnMeta, TxnStatus, Wait,
};
use txn::server::RequestId;

use super::judge::Committed;
use super::{Bank, KEYS, MIDDLE, Rows, half, key};

#[derive(Clone, Debug)]
pub(super) struct Txn {
    pub(super) meta: TxnMeta,
    pub(super) read_at: Timestamp,
    pub(super) limit: Timestamp,
    pub(super) reads: Vec<(Span, Rows)>,
    pub(super) reads_left: u64,
    pub(super) writes: BTreeMap<Key, Option<Bytes>>,
    pub(super) pushed: Vec<(TxnId, Timestamp)>,
    pub(super) laid: BTreeSet<u64>,
    pub(super) commit_ts: Timestamp,
    pub(super) began: u64,
    /// Commits in parallel: where its record is staged.
    pub(super) parallel: Option<Option<Timestamp>>,
    /// A record may be staged or committed.
    pub(super) commit_sent: bool,
    /// Its client knows that it is committed.
    pub(super) acknowledged: bool,
}

/// What a client is about to ask, or waits to be told.
#[derive(Clone, Debug)]
pub(super) enum Doing {
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

pub(super) struct Client {
    pub(super) txn: Txn,
    pub(super) doing: Doing,
    pub(super) waiting: bool,
    pub(super) trials: u32,
}

impl Bank {
    pub(super) fn fresh_txn(&mut self) -> Txn {
        self.last_id += 1;
        // Its gateway's clock is off by up to 30 us.
        let read_at = Timestamp::new(self.world.micros - 30 + self.below(60), 0);
        let (anchor, reads_left) = (key(self.below(KEYS)), self.below(4));
        let meta = TxnMeta {
            id: TxnId::new(self.last_id),
            anchor,
            started: read_at,
            priority: 1,
            stage: 0,
        };
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

    pub(super) fn committed(&mut self, who: usize, ts: Timestamp) {
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

    pub(super) fn batch_of(&self, requests: Vec<Request>) -> Batch {
        let at = self.world.now().clock.timestamp();
        Batch::bare(at, Wait::Queue(Duration::from_micros(50)), requests)
    }

    /// Sends what the client is about to ask.
    pub(super) fn ask(&mut self, who: usize) {
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
        let first = matches!(doing, Doing::Read(..)) && txn.reads.is_empty();
        if first && self.below(2) == 0 {
            batch.footing = Footing::Free;
        }
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

    pub(super) fn think(&mut self, who: usize) {
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
    pub(super) fn lost_answer(&mut self, who: usize) {
        if self.below(3) > 0 {
            self.clients[who].doing = Doing::Settle;
            return;
        }
        let writes = self.clients[who].txn.writes.clone();
        self.open.push(writes);
        self.begin(who);
    }

    pub(super) fn restart(&mut self, who: usize) {
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

    pub(super) fn begin(&mut self, who: usize) {
        let old = &self.clients[who].txn;
        let asks = matches!(self.clients[who].doing, Doing::Settle);
        if (old.commit_sent || asks) && !old.acknowledged {
            // Others may find all its writes, or it may come late.
            self.open.push(old.writes.clone());
        }
        let txn = self.fresh_txn();
        self.clients[who] = Client { txn, doing: Doing::Think, waiting: false, trials: 0 };
    }

    pub(super) fn answered(&mut self, who: usize, result: Result<Reply, KvError>) {
        let client = &mut self.clients[who];
        client.waiting = false;
        match result {
            Ok(reply) => {
                if matches!(client.doing, Doing::Read(..)) {
                    let at = client.txn.read_at.max(reply.read_at);
                    client.txn.read_at = at;
                    client.txn.commit_ts = client.txn.commit_ts.max(at);
                }
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
            Err(
                KvError::RefreshFailed { .. }
                | KvError::TxnAborted { .. }
                | KvError::Deadlock { .. },
            ) => self.restart(who),
            Err(error) => panic!("{error} to {:?}", client.doing),
        }
    }

    pub(super) fn told(&mut self, who: usize, response: Response) {
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
                    Advice::Wait | Advice::Pass | Advice::GiveUp => Missing::Tell,
                };
                Doing::Seek(Box::new(push), id, staged, missing, 0, true)
            }
            (Doing::Push(back, holder, at, ..), Response::Pushed { status, advice, .. }) => {
                match status {
                    TxnStatus::Staging(_) => unreachable!("it was matched"),
                    TxnStatus::Pending => {
                        if matches!(*back, Doing::Read(_, None)) && advice == Advice::Pass {
                            txn.pushed.push((holder.id, txn.read_at));
                        }
                        *back
                    }
                    TxnStatus::Committed(ts) => Doing::ResolveOther(back, holder.id, Some(ts), at),
                    TxnStatus::Aborted => Doing::ResolveOther(back, holder.id, None, at),
                }
            }
            (Doing::ResolveOther(back, ..), Response::Done) => *back,
            (doing, response) => panic!("{response:?} to {doing:?}"),
        };
        self.after_refresh(who);
    }

    /// Stage and both sides' writes, in any order; then it is committed, or must go higher.
    pub(super) fn go_on_in_parallel(&mut self, who: usize) {
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
    pub(super) fn after_search(&mut self, who: usize) {
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
    pub(super) fn after_refresh(&mut self, who: usize) {
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
}

/// Looks for a staged transaction's writes on one side; `None`: there are none.
pub(super) fn search(txn: TxnId, staged: &Staged, missing: Missing, side: u64) -> Option<Request> {
    let here = staged.writes.iter().filter(|(key, _)| half(key) == side);
    let writes: Vec<(Key, Sequence)> = here.cloned().collect();
    (!writes.is_empty()).then_some(Request::QueryWrites { txn, at: staged.at, writes, missing })
}

pub(super) fn request_of(txn: &Txn, doing: &Doing) -> Option<Request> {
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
