//! Value: evaluation of what concerns records of undecided transactions: `Push`, `Heartbeat`,
//! `QueryTxn`, `ForgetTxn`; and the wait-for graph, kept at the waited-for transaction's anchor.
//!
//! ```text
//!                      pushee's record
//!   push               decided      silent for the expiry     alive
//!   Timestamp(t)       tell         abort                     must commit above t. Its commit was moved before (`moved`): a younger
//!                                                             reader waits for a while, unless it is waited for itself
//!   Abort              tell         abort                     lower priority: abort. In a cycle with the pusher: the younger of the
//!                                                             two goes. Otherwise: wait on
//!   Force              tell         abort                     abort
//! ```
//!
//! A staged transaction may be committed already. It is judged as one that is pending, but nothing is done to it before its writes
//! were looked for (`stage`): where the table says "abort", and where a reader has waited long enough for its own coordinator, the
//! pusher is advised to do that. It comes back with what it found about that staged timestamp:
//!
//! - all are laid: the record is made to say "committed".
//! - one is missing, and prevented: the record is no longer staged, and the table above holds. A reader thus delays a staged
//!   transaction as it delays a pending one, and aborts neither.
//!
//! A reader needs none of it when the staged timestamp is above its uncertainty interval.
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
use coverage::{Mark, Rare, rare};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use storage::Key;
use storage::mvcc::TxnId;

use super::PlantedBug;
use super::commit::{least_commit, too_old};
use super::evaluate::{Effects, Moment, Stop, record_point};
use super::record::{Record, may_create};
use crate::api::{Advice, Found, PushKind, Response, Sought, Staged, TxnMeta, TxnStatus};

/// A waiter that has not pushed again for so long is not waiting any more, unless it pushes less often.
const WAIT_KEPT_MIN: Duration = Duration::from_secs(1);
/// For whom it takes longer between two pushes (a slice of waiting and three round trips, on a bad day of seconds each) it is twice that, at
/// most this. Shorter, and the edges of a cycle are never known at once, so that it lasts for ever. Longer, and those who have given up are still
/// taken for links between others, who are run again and need not.
pub(super) const WAIT_KEPT_MAX: Duration = Duration::from_secs(10);
/// Transactions waited for that a range remembers.
pub(super) const WAITED_FOR_MAX: usize = 10_000;

/// The fields of a push.
pub(super) struct PushRequest<'a> {
    pub(super) pushee: &'a TxnMeta,
    pub(super) active: Timestamp,
    pub(super) kind: PushKind,
    pub(super) dependents: &'a [TxnId],
    pub(super) sought: Option<Sought>,
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
    let alive = || Record::bare(TxnStatus::Pending, request.active, pushee.started);
    let record = Record::read(moment.reader, &pushee.anchor, pushee.id)?.unwrap_or_else(alive);
    match &record.status {
        TxnStatus::Committed(_) | TxnStatus::Aborted => {
            coverage::reached(Mark::PushFoundDecided);
            Ok(pushed(&record, Advice::Wait))
        }
        TxnStatus::Pending => push_pending(moment, effects, request, &record),
        TxnStatus::Staging(_) if moment.has(PlantedBug::StagedCountsAsPending) => {
            push_pending(moment, effects, request, &record)
        }
        TxnStatus::Staging(staged) => match found(moment, request, staged) {
            Some(Found::All) => {
                coverage::reached(Mark::RecoveryCommitted);
                let status = TxnStatus::Committed(staged.at);
                let active = moment.now.clock.timestamp();
                write_record(effects, pushee, Record { status, active, ..record })
            }
            Some(Found::Prevented) => {
                coverage::reached(Mark::RecoveryPrevented);
                let pending = undecided(&record);
                let response = push_pending(moment, effects, request, &pending)?;
                if matches!(response, Response::Pushed { status: TxnStatus::Pending, .. }) {
                    write_record(effects, pushee, pending)?;
                }
                Ok(response)
            }
            None => Ok(push_staged(moment, effects, request, &record, staged)),
        },
    }
}

/// What the pusher knows of this very attempt.
fn found(moment: &Moment<'_>, request: &PushRequest<'_>, staged: &Staged) -> Option<Found> {
    let sought = request.sought?;
    if sought.at != staged.at && !moment.has(PlantedBug::OutdatedAttemptBelieved) {
        coverage::reached(Mark::RecoveryOutdated);
        return None;
    }
    Some(sought.found)
}

/// The record's word: for good, or until its coordinator goes on.
fn write_record(effects: &mut Effects, pushee: &TxnMeta, record: Record) -> Result<Response, Stop> {
    effects.touch(&record_point(&pushee.anchor, pushee.id).start)?;
    record.put(&mut effects.batch, &pushee.anchor, pushee.id);
    effects.write_ts = Timestamp::MIN;
    Ok(pushed(&record, Advice::Wait))
}

fn push_pending(
    moment: &Moment<'_>,
    effects: &mut Effects,
    request: &PushRequest<'_>,
    record: &Record,
) -> Result<Response, Stop> {
    let PushRequest { pushee, .. } = request;
    let verdict = match rare(Rare::PushPutOff) {
        true => Verdict::WaitOn,
        false => judge(moment, request, record),
    };
    match verdict {
        Verdict::Abort => {
            let now = moment.now.clock.timestamp();
            let aborted = Record::bare(TxnStatus::Aborted, now, pushee.started);
            if moment.has(PlantedBug::AbortNotRecorded) {
                return Ok(pushed(&aborted, Advice::Wait));
            }
            write_record(effects, pushee, aborted)
        }
        Verdict::MoveAbove(_) if moment.has(PlantedBug::PushForgotten) => {
            Ok(pushed(record, Advice::Pass))
        }
        Verdict::MoveAbove(ts) => {
            coverage::reached(Mark::TimestampPushed);
            effects.pushes.push((record_point(&pushee.anchor, pushee.id).start, ts));
            Ok(pushed(&undecided(record), Advice::Pass))
        }
        Verdict::WaitOn => {
            note_wait(moment, effects, request);
            Ok(pushed(&undecided(record), Advice::Wait))
        }
        Verdict::PusherIsVictim => {
            coverage::reached(Mark::DeadlockToldToPusher);
            Ok(pushed(record, Advice::GiveUp))
        }
    }
}

/// Nothing is done to it: it may be committed.
fn push_staged(
    moment: &Moment<'_>,
    effects: &mut Effects,
    request: &PushRequest<'_>,
    record: &Record,
    staged: &Staged,
) -> Response {
    let advice = match judge(moment, request, record) {
        Verdict::MoveAbove(ts) if passes(moment, ts, staged) => {
            coverage::reached(Mark::StagedAboveReader);
            let point = record_point(&request.pushee.anchor, request.pushee.id).start;
            effects.pushes.push((point, ts));
            return pushed(&undecided(record), Advice::Pass);
        }
        Verdict::MoveAbove(_) => {
            let patient = staged.since.plus(moment.staged_kept) > moment.now.clock.timestamp();
            if patient { Advice::Wait } else { Advice::Recover }
        }
        Verdict::Abort => Advice::Recover,
        Verdict::PusherIsVictim => Advice::GiveUp,
        Verdict::WaitOn => {
            note_wait(moment, effects, request);
            Advice::Wait
        }
    };
    coverage::reached(Mark::PushFoundStaged);
    pushed(record, advice)
}

/// Whether a reader at `ts` may read on as if the staged transaction came later. It does if it commits above the reader; but it may be
/// committed, and its client told, before the reader began: within the uncertainty interval the reader has to find out.
fn passes(moment: &Moment<'_>, ts: Timestamp, staged: &Staged) -> bool {
    let limit = match moment.has(PlantedBug::StagedNotUncertain) {
        true => ts,
        false => moment.batch.uncertainty_limit.forward(ts),
    };
    limit < staged.at
}

fn undecided(record: &Record) -> Record {
    Record::bare(TxnStatus::Pending, record.active, record.started)
}

fn note_wait(moment: &Moment<'_>, effects: &mut Effects, request: &PushRequest<'_>) {
    coverage::reached(Mark::PushHadToWait);
    effects.waits.extend(moment.batch.txn.as_ref().map(|pusher| Wait {
        waiter: pusher.id,
        on: request.pushee.id,
        dependents: request.dependents.to_vec(),
    }));
}

fn judge(moment: &Moment<'_>, request: &PushRequest<'_>, record: &Record) -> Verdict {
    let last_seen = record.active.max(request.active);
    if last_seen.plus(moment.expiry) <= moment.now.clock.timestamp() {
        coverage::reached(Mark::ExpiredTxnAborted);
        return Verdict::Abort;
    }
    match (request.kind, &moment.batch.txn) {
        (PushKind::Force, _) => Verdict::Abort,
        (PushKind::Timestamp(ts), Some(pusher)) if stands_back(moment, request, pusher, ts) => {
            coverage::reached(Mark::MovedCommitLetAlone);
            Verdict::WaitOn
        }
        (PushKind::Timestamp(ts), _) => Verdict::MoveAbove(ts),
        (PushKind::Abort, Some(pusher)) if pusher.priority > request.pushee.priority => {
            coverage::reached(Mark::AbortedByPriority);
            Verdict::Abort
        }
        (PushKind::Abort, Some(pusher)) if closes_cycle(moment, request, pusher) => {
            coverage::reached(Mark::DeadlockFound);
            if request.pushee.yields_to(pusher) { Verdict::Abort } else { Verdict::PusherIsVictim }
        }
        (PushKind::Abort, _) => Verdict::WaitOn,
    }
}

/// Whether a reader has to wait for a commit that readers have moved before. A commit that is above it already is not moved; and if
/// they wait for each other, neither needs to give way: the reader can pass.
fn stands_back(
    moment: &Moment<'_>,
    request: &PushRequest<'_>,
    reader: &TxnMeta,
    ts: Timestamp,
) -> bool {
    let PushRequest { pushee, .. } = request;
    moment.leading.moved.is_let_alone(pushee.id, moment.now.monotonic)
        && reader.yields_to(pushee)
        && ts >= least_commit(moment, pushee)
        && !closes_cycle(moment, request, reader)
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

fn pushed(record: &Record, advice: Advice) -> Response {
    Response::Pushed {
        status: record.status.clone(),
        intents: record.intents.clone(),
        ignored: record.ignored.clone(),
        advice,
    }
}

/// Evaluates `Heartbeat`.
pub(super) fn heartbeat(moment: &Moment<'_>, effects: &mut Effects) -> Result<Response, Stop> {
    let txn = moment.txn()?;
    let now = moment.now.clock.timestamp();
    let record = match Record::read(moment.reader, &txn.anchor, txn.id)? {
        Some(Record {
            status: status @ (TxnStatus::Committed(_) | TxnStatus::Aborted), ..
        }) => {
            coverage::reached(Mark::HeartbeatFoundDecided);
            return Ok(Response::Alive(status));
        }
        None if !may_create(txn, now) => return Err(too_old()),
        None => Record::bare(TxnStatus::Pending, now, txn.started),
        // Staged or not: only the sign of life is new.
        Some(record) => Record { active: now, ..record },
    };
    effects.touch(&record_point(&txn.anchor, txn.id).start)?;
    record.put(&mut effects.batch, &txn.anchor, txn.id);
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
        Some(TxnStatus::Aborted | TxnStatus::Pending | TxnStatus::Staging(_)) | None => None,
    };
    if let Some(ended) = ended {
        coverage::reached(Mark::RecordForgotten);
        let record = record_point(anchor, txn).start;
        effects.touch(&record)?;
        Record::remove(&mut effects.batch, anchor, txn);
        // A late copy of a `Stage` or `EndTxn` must not create it again, wherever that was to commit: the coordinator says (as
        // `read_at`) how far it ever got. Above the read bound the request waits.
        effects.pushes.push((record, ended.forward(moment.batch.read_at)));
        effects.write_ts = Timestamp::MIN;
    }
    Ok(Response::Done)
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Edge {
    dependents: Vec<TxnId>,
    seen: Monotonic,
    /// Counts for so long after.
    kept: Duration,
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
        if !self.edges.contains_key(&wait.on) {
            self.make_room(now);
        }
        let waiters = self.edges.entry(wait.on).or_default();
        let kept = waiters.get(&wait.waiter).map_or(WAIT_KEPT_MIN, |before| {
            (now.since(before.seen) * 2).clamp(WAIT_KEPT_MIN, WAIT_KEPT_MAX)
        });
        let edge = Edge { dependents: wait.dependents, seen: now, kept };
        waiters.insert(wait.waiter, edge);
    }

    /// Who waits for `txn`, directly or not, as far as is known here.
    pub(super) fn waiters(&self, txn: TxnId, now: Monotonic) -> BTreeSet<TxnId> {
        let (mut found, mut open) = (BTreeSet::new(), vec![txn]);
        while let Some(next) = open.pop() {
            let edges = self.edges.get(&next).into_iter().flatten();
            for (waiter, edge) in edges.filter(|(_, edge)| now.since(edge.seen) < edge.kept) {
                let all = edge.dependents.iter().chain([waiter]);
                open.extend(all.copied().filter(|waiter| found.insert(*waiter)));
            }
        }
        found
    }

    /// Forgets waiters that do not wait any more.
    pub(super) fn expire(&mut self, now: Monotonic) {
        self.forget_before(now, WAIT_KEPT_MAX);
    }

    fn forget_before(&mut self, now: Monotonic, kept: Duration) {
        for waiters in self.edges.values_mut() {
            waiters.retain(|_, edge| now.since(edge.seen) < kept);
        }
        self.edges.retain(|_, waiters| !waiters.is_empty());
    }

    /// Those that have not pushed for longest go first: who still waits comes again.
    fn make_room(&mut self, now: Monotonic) {
        let mut kept = WAIT_KEPT_MAX;
        while self.edges.len() >= WAITED_FOR_MAX {
            self.forget_before(now, kept);
            kept /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let later = Monotonic::ZERO.plus(WAIT_KEPT_MIN);
        assert_eq!(graph.waiters(id(1), later).len(), 0);
        let later = Monotonic::ZERO.plus(WAIT_KEPT_MAX);
        graph.add(
            Wait { waiter: id(4), on: id(3), dependents: vec![id(1)] },
            Monotonic::from_nanos(5),
        );
        graph.expire(later);
        assert_eq!(graph.edges.len(), 1);
    }

    /// Over slow links a waiter comes back after seconds, and counts until it can have come back.
    #[test]
    fn a_waiter_counts_for_twice_as_long_as_it_takes_to_come_back() {
        let mut graph = WaitGraph::default();
        let at = |millis: u64| Monotonic::from_nanos(millis * 1_000_000);
        let (id, wait) =
            (TxnId::new, Wait { waiter: TxnId::new(2), on: TxnId::new(1), dependents: Vec::new() });
        graph.add(wait.clone(), at(0));
        assert_eq!(graph.waiters(id(1), at(1_000)).len(), 0, "nothing is known of it yet");
        graph.expire(at(4_000));
        graph.add(wait.clone(), at(4_000));
        assert_eq!(graph.waiters(id(1), at(11_999)).len(), 1);
        assert_eq!(graph.waiters(id(1), at(12_000)).len(), 0);
        graph.add(wait.clone(), at(12_100));
        assert_eq!(graph.waiters(id(1), at(22_099)).len(), 1);
        assert_eq!(graph.waiters(id(1), at(22_100)).len(), 0, "ten seconds at most");
        graph.add(wait, at(12_200));
        assert_eq!(graph.waiters(id(1), at(13_200)).len(), 0, "it is fast again");
    }

    #[test]
    fn the_graph_is_bounded_and_the_newest_waits_stay() {
        let mut graph = WaitGraph::default();
        let id = TxnId::new;
        let wait = |n: u128| Wait { waiter: id(n), on: id(n + 1_000_000), dependents: Vec::new() };
        let at = |n: u128| Monotonic::from_nanos(u64::try_from(n).expect("small") * 1_000);
        let count = WAITED_FOR_MAX as u128 * 3;
        for n in 0..count {
            graph.add(wait(n), at(n));
            assert!(graph.edges.len() <= WAITED_FOR_MAX);
            assert!(graph.edges.contains_key(&id(n + 1_000_000)), "the newest is there");
        }
    }
}
