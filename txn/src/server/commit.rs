//! Value: evaluation of commits: `CommitOnePhase` and `EndTxn`.
//!
//! # One phase
//!
//! All writes of the transaction are here: they become versions at once. When they cannot be at
//! `read_at`, the reads made here are refreshed to the new timestamp in the same step (with reads
//! elsewhere, the coordinator has to do it).
//!
//! One of its versions names the transaction, so that it can be asked later whether it has happened
//! (`settle`); who has been told that it has not left a record that it finds.
//!
//! Its verdict needs no record. If its locks elsewhere were force-aborted meanwhile, committing is
//! still serializable: locks only order contenders, what counts is that its reads hold at the
//! timestamp of its writes, which is what was just checked. When the anchor is here and its record
//! says "aborted", the commit is refused all the same, for somebody was told so.
//!
//! # The record's last word
//!
//! The coordinator sends `EndTxn` when every intent is durable and every read holds at `commit_ts`.
//! A pusher may have asked for a later timestamp (kept in the records' timestamp cache, whose
//! low-water mark covers pushes under former leases), or may have aborted the transaction. After a
//! parallel commit (`stage`) it only says in so many words what is true already: neither a push nor a
//! later lease's low-water mark can come before it then.
//!
//! Intents that lie in the record's own range are resolved by the same command: who waits for these
//! rows waits one round less.

use clock::Timestamp;
use coverage::{Mark, Rare, rare};
use storage::mvcc::{self, Version};
use storage::{Key, Span};

use super::PlantedBug;
use super::evaluate::{Effects, Moment, Stop, record_point};
use super::locks::Release;
use super::read::check_refresh;
use super::record::{Record, is_ignored, may_create};
use super::resolve::{self, Decision};
use super::settle;
use super::write;
use crate::api::{KvError, Mutation, Response, TxnMeta, TxnStatus};

/// Intents that are resolved together with their record.
const RESOLVED_AT_ONCE_MAX: usize = 128;
const _: () = assert!(RESOLVED_AT_ONCE_MAX <= resolve::RESOLVED_MAX, "one command resolves them");

/// The fields of a one-phase commit.
pub(super) struct OnePhase<'a> {
    pub(super) mutations: &'a [Mutation],
    pub(super) reads: &'a [Span],
    pub(super) reads_elsewhere: bool,
    pub(super) deadline: Timestamp,
}

/// Evaluates `CommitOnePhase`.
pub(super) fn one_phase(
    moment: &Moment<'_>,
    effects: &mut Effects,
    request: &OnePhase<'_>,
) -> Result<Response, Stop> {
    let txn = moment.txn()?;
    let has_record = check_own_record(moment, txn)?;
    check_settled(moment, txn, request.mutations)?;
    if !has_record && !may_create(txn, moment.now.clock.timestamp()) {
        // What was told of it may have been forgotten since.
        return Err(too_old());
    }
    let mut named = false;
    let (targets, ts) = write::prepare(moment, effects, request.mutations)?;
    if ts > request.deadline {
        return Err(KvError::DeadlinePassed.into());
    }
    if ts > moment.batch.read_at && !moment.has(PlantedBug::RefreshForgotten) {
        refresh_reads(moment, effects, request, ts)?;
        coverage::reached(Mark::OnePhaseRefreshed);
    }
    if rare(Rare::OnePhaseMoved) {
        return Err(KvError::NeedsRefresh { ts: ts.next() }.into());
    }
    for target in targets {
        if target.own.is_some() {
            return Err(KvError::Invalid(format!(
                "{} has an intent of the transaction already",
                target.key
            ))
            .into());
        }
        let kept = target
            .mutations
            .iter()
            .filter(|mutation| !is_ignored(&moment.batch.ignored, mutation.sequence));
        let Some(last) = kept.max_by_key(|mutation| mutation.sequence) else { continue };
        // One of them says whose it is: whoever lost the answer finds it there (`settle`).
        let by = (!named).then_some(txn.id);
        named = true;
        let version = Version { written_at: moment.now.clock, by, value: last.value.clone() };
        mvcc::put_version(&mut effects.batch, target.key, ts, &version);
    }
    if has_record {
        coverage::reached(Mark::OnePhaseRemovedRecord);
        Record::remove(&mut effects.batch, &txn.anchor, txn.id);
    }
    effects.releases.push(Release::all(txn.id, moment.state.descriptor.span.clone()));
    effects.write_ts = effects.write_ts.min(ts);
    coverage::reached(Mark::OnePhaseCommitted);
    Ok(Response::Committed(ts))
}

/// Whether there is a record here that the commit makes needless. Refuses when it says "aborted".
fn check_own_record(moment: &Moment<'_>, txn: &TxnMeta) -> Result<bool, Stop> {
    if !moment.state.descriptor.span.contains(&txn.anchor) {
        return Ok(false);
    }
    match Record::read(moment.reader, &txn.anchor, txn.id)?.map(|record| record.status) {
        None => Ok(false),
        Some(TxnStatus::Pending) => Ok(true),
        Some(TxnStatus::Staging(_)) => {
            Err(KvError::Invalid("the transaction has named its writes already".into()).into())
        }
        Some(TxnStatus::Aborted) => {
            coverage::reached(Mark::OnePhaseFoundAborted);
            Err(aborted())
        }
        Some(TxnStatus::Committed(_)) => {
            Err(KvError::Invalid("the transaction has committed already".into()).into())
        }
    }
}

/// Refuses when somebody was told that this commit will not happen.
fn check_settled(moment: &Moment<'_>, txn: &TxnMeta, mutations: &[Mutation]) -> Result<(), Stop> {
    let Some(key) = settle::witness(mutations) else { return Ok(()) };
    match Record::read(moment.reader, key, txn.id)?.map(|record| record.status) {
        Some(TxnStatus::Aborted) => Err(aborted()),
        Some(TxnStatus::Pending | TxnStatus::Staging(_) | TxnStatus::Committed(_)) | None => Ok(()),
    }
}

fn refresh_reads(
    moment: &Moment<'_>,
    effects: &mut Effects,
    request: &OnePhase<'_>,
    ts: Timestamp,
) -> Result<(), Stop> {
    if request.reads_elsewhere {
        coverage::reached(Mark::OnePhaseHadReadsElsewhere);
        return Err(KvError::NeedsRefresh { ts }.into());
    }
    for span in request.reads {
        check_refresh(moment, span, moment.batch.read_at, ts)?;
        effects.reads.push((span.clone(), ts));
    }
    Ok(())
}

/// Evaluates `EndTxn` that commits.
pub(super) fn commit(
    moment: &Moment<'_>,
    effects: &mut Effects,
    commit_ts: Timestamp,
    intents: &[Span],
    deadline: Timestamp,
) -> Result<Response, Stop> {
    let txn = moment.txn()?;
    let record = Record::read(moment.reader, &txn.anchor, txn.id)?;
    match record.as_ref().map(|record| &record.status) {
        Some(TxnStatus::Committed(ts)) => {
            coverage::reached(Mark::CommitAskedAgain);
            let ts = *ts;
            // All are resolved: what is left of the record only tells that it happened.
            if let Some(record) =
                record.filter(|record| intents.is_empty() && !record.intents.is_empty())
            {
                effects.touch(&record_point(&txn.anchor, txn.id).start)?;
                let told = Record { intents: Vec::new(), ..record };
                told.put(&mut effects.batch, &txn.anchor, txn.id);
                effects.write_ts = Timestamp::MIN;
            }
            return Ok(Response::Committed(ts));
        }
        Some(TxnStatus::Aborted) => {
            coverage::reached(Mark::CommitFoundAborted);
            return Err(aborted());
        }
        None if !may_create(txn, moment.now.clock.timestamp()) => return Err(too_old()),
        Some(TxnStatus::Staging(staged)) if staged.at == commit_ts => {
            coverage::reached(Mark::StagedMadeExplicit);
        }
        None | Some(TxnStatus::Pending | TxnStatus::Staging(_)) => {
            check_commit_ts(moment, txn, commit_ts, deadline)?;
        }
    }
    let record = Record {
        status: TxnStatus::Committed(commit_ts),
        active: moment.now.clock.timestamp(),
        started: txn.started,
        intents: intents.to_vec(),
        ignored: moment.batch.ignored.clone(),
    };
    effects.touch(&record_point(&txn.anchor, txn.id).start)?;
    record.put(&mut effects.batch, &txn.anchor, txn.id);
    effects.write_ts = Timestamp::MIN;
    let range = &moment.state.descriptor.span;
    let here: Vec<Span> = match rare(Rare::IntentsLeftBehind) {
        true => Vec::new(),
        false => resolved_at_once(intents, range).cloned().collect(),
    };
    let decision =
        Decision { txn: txn.id, commit_ts: Some(commit_ts), ignored: &moment.batch.ignored };
    resolve::resolve(moment, effects, &decision, &here)?;
    Ok(Response::Committed(commit_ts))
}

fn check_commit_ts(
    moment: &Moment<'_>,
    txn: &TxnMeta,
    commit_ts: Timestamp,
    deadline: Timestamp,
) -> Result<(), Stop> {
    if commit_ts > deadline {
        coverage::reached(Mark::CommitDeadlinePassed);
        return Err(KvError::DeadlinePassed.into());
    }
    let least = least_commit(moment, txn);
    if commit_ts < least {
        coverage::reached(Mark::CommitMovedByPush);
        return Err(KvError::NeedsRefresh { ts: least }.into());
    }
    Ok(())
}

/// Of a transaction's intents those that the commit of its record resolves: single keys in the record's range, a bounded number.
/// The others are resolved afterwards, as are these once more, for nothing.
pub(super) fn resolved_at_once<'a>(
    intents: &'a [Span],
    range: &'a Span,
) -> impl Iterator<Item = &'a Span> {
    intents
        .iter()
        .filter(|span| span.is_point() && range.contains(&span.start))
        .take(RESOLVED_AT_ONCE_MAX)
}

/// Above every timestamp that the transaction was pushed to.
pub(super) fn least_commit(moment: &Moment<'_>, txn: &TxnMeta) -> Timestamp {
    let record: Key = record_point(&txn.anchor, txn.id).start;
    moment.leading.records.read_at(&record).ts.next()
}

/// Evaluates `EndTxn` that aborts. Answers the truth when it is committed already.
pub(super) fn abort(moment: &Moment<'_>, effects: &mut Effects) -> Result<Response, Stop> {
    let txn = moment.txn()?;
    let record = Record::read(moment.reader, &txn.anchor, txn.id)?;
    match record.map(|record| record.status) {
        Some(TxnStatus::Committed(ts)) => {
            coverage::reached(Mark::AbortFoundCommitted);
            return Ok(Response::Committed(ts));
        }
        Some(TxnStatus::Aborted) => {}
        // Nobody else may have called it committed: who recovers it asks this record first.
        None | Some(TxnStatus::Pending | TxnStatus::Staging(_)) => {
            effects.touch(&record_point(&txn.anchor, txn.id).start)?;
            let record =
                Record::bare(TxnStatus::Aborted, moment.now.clock.timestamp(), txn.started);
            record.put(&mut effects.batch, &txn.anchor, txn.id);
            effects.write_ts = Timestamp::MIN;
        }
    }
    effects.releases.push(Release::all(txn.id, moment.state.descriptor.span.clone()));
    Ok(Response::Aborted)
}

pub(super) fn aborted() -> Stop {
    KvError::TxnAborted { reason: "another transaction aborted it".into() }.into()
}

pub(super) fn too_old() -> Stop {
    coverage::reached(Mark::TooOldForRecord);
    KvError::TxnAborted { reason: "it is too old to get a record".into() }.into()
}
