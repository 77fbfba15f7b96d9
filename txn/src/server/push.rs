//! Value: evaluation of what concerns records of undecided transactions: `Push`, `Heartbeat`,
//! `QueryTxn`, `ForgetTxn`; and the wait-for graph, kept at the waited-for transaction's anchor.
//!
//! ```text
//!                      pushee's record
//!   push               decided      silent for the expiry     alive
//!   Timestamp(t)       tell         abort                     must commit above t
//!   Abort              tell         abort                     lower priority: abort. In a cycle with the pusher: the younger of the
//!                                                             two goes. Otherwise: wait on
//!   Force              tell         abort                     abort
//! ```
//!
//! A transaction without a record is judged by the sign of life that the pusher found on its intent
//! or lock. An abort is a replicated record, also where there was none: it keeps the coordinator
//! from committing later. A pushed timestamp is only a mark in the records' timestamp cache; the
//! cache's low-water mark keeps it over lease moves (it is a "read" of the record, and obeys the
//! read bound).
//!
//! Deadlock: every waiter pushes whom it waits for, and says who waits for *it* (asked at its own
//! anchor). So each edge of a cycle learns the whole cycle after as many rounds as it has edges. At
//! least one transaction of the cycle then gives up or is aborted, and never the oldest of the
//! highest priority, so somebody always gets through. Clocks decide only how long it takes.

use clock::{Monotonic, Timestamp};
use coverage::Mark;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use storage::Key;
use storage::mvcc::TxnId;

use super::PlantedBug;
use super::commit::too_old;
use super::evaluate::{Effects, Moment, Stop, record_point};
use super::record::{Record, may_create};
use crate::api::{PushKind, Response, TxnMeta, TxnStatus};

/// A waiter that has not pushed again for so long is not waiting any more.
pub(super) const WAIT_KEPT: Duration = Duration::from_secs(1);
/// Transactions waited for that a range remembers.
pub(super) const WAITED_FOR_MAX: usize = 10_000;

/// The fields of a push.
pub(super) struct PushRequest<'a> {
    pub(super) pushee: &'a TxnMeta,
    pub(super) active: Timestamp,
    pub(super) kind: PushKind,
    pub(super) dependents: &'a [TxnId],
}

/// "`waiter` waits for `on`, and these wait for `waiter`."
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wait {
    pub(super) waiter: TxnId,
    pub(super) on: TxnId,
    pub(super) dependents: Vec<TxnId>,
}

/// What a push does.
enum Verdict {
    Abort,
    MoveAbove(Timestamp),
    WaitOn,
    PusherIsVictim,
}

/// Evaluates `Push`.
pub(super) fn push(
    moment: &Moment<'_>,
    effects: &mut Effects,
    request: &PushRequest<'_>,
) -> Result<Response, Stop> {
    let PushRequest { pushee, .. } = request;
    let record = Record::read(moment.reader, &pushee.anchor, pushee.id)?;
    if let Some(record) = &record
        && record.status != TxnStatus::Pending
    {
        coverage::reached(Mark::PushFoundDecided);
        return Ok(pushed(record, false));
    }
    let alive = Record::bare(TxnStatus::Pending, request.active, pushee.started);
    let record = record.unwrap_or(alive);
    match judge(moment, request, &record) {
        Verdict::Abort => {
            let aborted =
                Record::bare(TxnStatus::Aborted, moment.now.clock.timestamp(), pushee.started);
            effects.touch(&record_point(&pushee.anchor, pushee.id).start)?;
            if !moment.has(PlantedBug::AbortNotRecorded) {
                aborted.put(&mut effects.batch, &pushee.anchor, pushee.id);
            }
            effects.write_ts = Timestamp::MIN;
            Ok(pushed(&aborted, false))
        }
        Verdict::MoveAbove(_) if moment.has(PlantedBug::PushForgotten) => {
            Ok(pushed(&record, false))
        }
        Verdict::MoveAbove(ts) => {
            effects.pushes.push((record_point(&pushee.anchor, pushee.id).start, ts));
            Ok(pushed(&record, false))
        }
        Verdict::WaitOn => {
            coverage::reached(Mark::PushHadToWait);
            effects.waits.extend(moment.batch.txn.as_ref().map(|pusher| Wait {
                waiter: pusher.id,
                on: pushee.id,
                dependents: request.dependents.to_vec(),
            }));
            Ok(pushed(&record, false))
        }
        Verdict::PusherIsVictim => {
            coverage::reached(Mark::DeadlockToldToPusher);
            Ok(pushed(&record, true))
        }
    }
}

fn judge(moment: &Moment<'_>, request: &PushRequest<'_>, record: &Record) -> Verdict {
    let last_seen = record.active.max(request.active);
    if last_seen.plus(moment.expiry) <= moment.now.clock.timestamp() {
        coverage::reached(Mark::ExpiredTxnAborted);
        return Verdict::Abort;
    }
    match (request.kind, &moment.batch.txn) {
        (PushKind::Force, _) => Verdict::Abort,
        (PushKind::Timestamp(ts), _) => {
            coverage::reached(Mark::TimestampPushed);
            Verdict::MoveAbove(ts)
        }
        (PushKind::Abort, Some(pusher)) if pusher.priority > request.pushee.priority => {
            coverage::reached(Mark::AbortedByPriority);
            Verdict::Abort
        }
        (PushKind::Abort, Some(pusher)) if closes_cycle(moment, request, pusher) => {
            coverage::reached(Mark::DeadlockFound);
            if yields(request.pushee, pusher) { Verdict::Abort } else { Verdict::PusherIsVictim }
        }
        (PushKind::Abort, _) => Verdict::WaitOn,
    }
}

fn closes_cycle(moment: &Moment<'_>, request: &PushRequest<'_>, pusher: &TxnMeta) -> bool {
    if moment.has(PlantedBug::DeadlockUnseen) {
        return false;
    }
    request.dependents.contains(&request.pushee.id)
        || moment
            .leading
            .waits
            .waiters(pusher.id, moment.now.monotonic)
            .contains(&request.pushee.id)
}

/// Whether `a` is the one to go: lower priority, then younger, then the greater id.
fn yields(a: &TxnMeta, b: &TxnMeta) -> bool {
    let rank = |txn: &TxnMeta| (txn.priority, std::cmp::Reverse((txn.started, txn.id)));
    rank(a) < rank(b)
}

fn pushed(record: &Record, deadlock: bool) -> Response {
    Response::Pushed {
        status: record.status.clone(),
        intents: record.intents.clone(),
        ignored: record.ignored.clone(),
        deadlock,
    }
}

/// Evaluates `Heartbeat`.
pub(super) fn heartbeat(moment: &Moment<'_>, effects: &mut Effects) -> Result<Response, Stop> {
    let txn = moment.txn()?;
    let now = moment.now.clock.timestamp();
    match Record::read(moment.reader, &txn.anchor, txn.id)?.map(|record| record.status) {
        Some(status @ (TxnStatus::Committed(_) | TxnStatus::Aborted)) => {
            coverage::reached(Mark::HeartbeatFoundDecided);
            return Ok(Response::Alive(status));
        }
        None if !may_create(txn, now) => return Err(too_old()),
        None | Some(TxnStatus::Pending) => {}
    }
    effects.touch(&record_point(&txn.anchor, txn.id).start)?;
    Record::bare(TxnStatus::Pending, now, txn.started).put(&mut effects.batch, &txn.anchor, txn.id);
    effects.write_ts = Timestamp::MIN;
    Ok(Response::Alive(TxnStatus::Pending))
}

/// Evaluates `QueryTxn`.
pub(super) fn query(moment: &Moment<'_>, txn: TxnId, anchor: &Key) -> Result<Response, Stop> {
    moment.wait_for_record(&record_point(anchor, txn))?;
    let record = Record::read(moment.reader, anchor, txn)?;
    Ok(Response::Txn {
        status: record.map_or(TxnStatus::Pending, |record| record.status),
        waiters: moment.leading.waits.waiters(txn, moment.now.monotonic).into_iter().collect(),
    })
}

/// Evaluates `ForgetTxn`. A committed record goes on anybody's word that its intents are resolved;
/// an aborted one only on its own coordinator's: another cannot know that the coordinator will not
/// commit yet (killer T03). An undecided one stays.
pub(super) fn forget(
    moment: &Moment<'_>,
    effects: &mut Effects,
    txn: TxnId,
    anchor: &Key,
) -> Result<Response, Stop> {
    let own = moment.txn_id() == Some(txn);
    let ended = match Record::read(moment.reader, anchor, txn)?.map(|record| record.status) {
        Some(TxnStatus::Committed(ts)) => Some(ts),
        Some(TxnStatus::Aborted) if own => Some(moment.now.clock.timestamp()),
        Some(TxnStatus::Aborted | TxnStatus::Pending) | None => None,
    };
    if let Some(ended) = ended {
        coverage::reached(Mark::RecordForgotten);
        let record = record_point(anchor, txn).start;
        effects.touch(&record)?;
        Record::remove(&mut effects.batch, anchor, txn);
        // A late copy of its `EndTxn` must not create it again. Never above the clock, which the
        // read bound covers.
        effects.pushes.push((record, ended.min(moment.now.clock.timestamp())));
        effects.write_ts = Timestamp::MIN;
    }
    Ok(Response::Done)
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Edge {
    dependents: Vec<TxnId>,
    seen: Monotonic,
}

/// Who waits for transactions anchored here. In memory only: a new leaseholder learns it from the
/// next pushes.
#[derive(Clone, Default, Debug)]
pub(super) struct WaitGraph {
    edges: BTreeMap<TxnId, BTreeMap<TxnId, Edge>>,
}

impl WaitGraph {
    /// Enters an edge, or renews it.
    pub(super) fn add(&mut self, wait: Wait, now: Monotonic) {
        if self.edges.len() >= WAITED_FOR_MAX && !self.edges.contains_key(&wait.on) {
            return;
        }
        let edge = Edge { dependents: wait.dependents, seen: now };
        self.edges.entry(wait.on).or_default().insert(wait.waiter, edge);
    }

    /// Who waits for `txn`, directly or not, as far as is known here.
    pub(super) fn waiters(&self, txn: TxnId, now: Monotonic) -> BTreeSet<TxnId> {
        let (mut found, mut open) = (BTreeSet::new(), vec![txn]);
        while let Some(next) = open.pop() {
            let edges = self.edges.get(&next).into_iter().flatten();
            for (waiter, edge) in edges.filter(|(_, edge)| now.since(edge.seen) < WAIT_KEPT) {
                let all = edge.dependents.iter().chain([waiter]);
                open.extend(all.copied().filter(|waiter| found.insert(*waiter)));
            }
        }
        found
    }

    /// Forgets waiters that do not wait any more.
    pub(super) fn expire(&mut self, now: Monotonic) {
        for waiters in self.edges.values_mut() {
            waiters.retain(|_, edge| now.since(edge.seen) < WAIT_KEPT);
        }
        self.edges.retain(|_, waiters| !waiters.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txn(id: u128, started: u64, priority: u32) -> TxnMeta {
        TxnMeta {
            id: TxnId::new(id),
            anchor: Key::MIN,
            started: Timestamp::from_raw(started),
            priority,
        }
    }

    #[test]
    fn waiters_are_transitive_and_expire() {
        let mut graph = WaitGraph::default();
        let id = TxnId::new;
        graph.add(Wait { waiter: id(2), on: id(1), dependents: vec![id(3)] }, Monotonic::ZERO);
        graph.add(
            Wait { waiter: id(4), on: id(3), dependents: vec![id(1)] },
            Monotonic::from_nanos(5),
        );
        let all: Vec<u128> =
            graph.waiters(id(1), Monotonic::ZERO).into_iter().map(TxnId::get).collect();
        assert_eq!(all, [1, 2, 3, 4]);
        let later = Monotonic::ZERO.plus(WAIT_KEPT);
        assert_eq!(graph.waiters(id(1), later).len(), 0);
        graph.expire(later);
        assert_eq!(graph.edges.len(), 1);
        assert_eq!(graph.waiters(id(3), later).len(), 2);
    }

    #[test]
    fn of_two_the_lower_priority_then_the_younger_goes() {
        assert!(yields(&txn(1, 5, 1), &txn(2, 9, 2)));
        assert!(yields(&txn(1, 9, 1), &txn(2, 5, 1)));
        assert!(!yields(&txn(1, 5, 1), &txn(2, 9, 1)));
        assert!(yields(&txn(2, 5, 1), &txn(1, 5, 1)));
    }
}
