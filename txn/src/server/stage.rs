//! Value: evaluation of parallel commits: `Stage` and `QueryWrites`.
//!
//! ```text
//!   coordinator ──Write──► range 1 ─┐                              pusher ──Push──► "staged at T, these writes"
//!               ──Write──► range 2 ─┤ all at or below T: committed        ──QueryWrites(prevent)──► each range: laid, or never will be
//!               ──Stage──► record ──┘ (one round of consensus)            ──Push with what was found──► the record's last word
//! ```
//!
//! A staged record is a question that anybody can answer for good, by looking at the writes it names. Who looks and misses one
//! marks its key as read at the staged timestamp: a write that comes later goes above it, and can no longer make the transaction
//! committed there. So of two that look, both find the same, or the later one finds the mark's effect (killer T14; recovery in
//! CockroachDB, SIGMOD 2020, section 3.4).
//!
//! # Why nothing late or doubled changes an answer (killers T01, T02)
//!
//! - `Stage` only moves forward: one at or below the record's timestamp changes nothing. A record that somebody has pushed above it
//!   refuses it, and a removed one does too (the mark that `ForgetTxn` leaves).
//! - What was found is about one timestamp. A record that has been staged anew takes no answer about the old one.
//! - The transaction names the same writes whenever it stages, and had no intents before: "an intent that holds the named
//!   sequence" is the named write.
//! - Intents go only by the record's last word: a write that was found stays where it is until then.
//!
//! HAZARD: an intent of the transaction that was laid before, at a key that is staged, would hold a place that no mark can take
//! away: own intents do not move (`write`). Such a transaction must commit in two phases; the coordinator sees to it.

use clock::Timestamp;
use coverage::{Mark, Rare, rare};
use storage::mvcc::{self, Intent, Sequence, TxnId};
use storage::{Key, Span};

use super::PlantedBug;
use super::commit::{self, aborted, too_old};
use super::evaluate::{Effects, Moment, Stop, record_point};
use super::record::{Record, may_create};
use crate::api::{KvError, Missing, Response, Staged, TxnStatus};

/// Evaluates `Stage`, at the batch's `read_at`.
pub(super) fn stage(
    moment: &Moment<'_>,
    effects: &mut Effects,
    intents: &[Span],
    writes: &[(Key, Sequence)],
    deadline: Timestamp,
) -> Result<Response, Stop> {
    let txn = moment.txn()?;
    let at = moment.batch.read_at;
    if writes.is_empty() {
        return Err(KvError::Invalid("a transaction that stages has writes".into()).into());
    }
    let now = moment.now.clock.timestamp();
    match Record::read(moment.reader, &txn.anchor, txn.id)?.map(|record| record.status) {
        Some(TxnStatus::Committed(ts)) => {
            coverage::reached(Mark::StageFoundCommitted);
            return Ok(Response::Committed(ts));
        }
        Some(TxnStatus::Aborted) => {
            coverage::reached(Mark::StageFoundAborted);
            return Err(aborted());
        }
        Some(TxnStatus::Staging(staged))
            if staged.at >= at && !moment.has(PlantedBug::StageGoesBack) =>
        {
            coverage::reached(Mark::StagedAlready);
            return Ok(Response::Staged(staged.at));
        }
        None if !may_create(txn, now) => return Err(too_old()),
        None | Some(TxnStatus::Pending | TxnStatus::Staging(_)) => {}
    }
    if at > deadline {
        return Err(KvError::DeadlinePassed.into());
    }
    let least = commit::least_commit(moment, txn);
    if at < least {
        coverage::reached(Mark::StageMovedByPush);
        return Err(KvError::NeedsRefresh { ts: least }.into());
    }
    if rare(Rare::StageMoved) {
        return Err(KvError::NeedsRefresh { ts: at.next() }.into());
    }
    let certain = writes.iter().all(|(key, _)| effects.laid.get(key).is_some_and(|ts| *ts <= at));
    let (status, response) = if certain {
        coverage::reached(Mark::StagedAndCommittedAtOnce);
        (TxnStatus::Committed(at), Response::Committed(at))
    } else {
        let staged = Staged { at, since: now, writes: writes.to_vec() };
        (TxnStatus::Staging(staged), Response::Staged(at))
    };
    effects.touch(&record_point(&txn.anchor, txn.id).start)?;
    let record = Record {
        status,
        active: now,
        started: txn.started,
        intents: intents.to_vec(),
        ignored: moment.batch.ignored.clone(),
    };
    record.put(&mut effects.batch, &txn.anchor, txn.id);
    Ok(response)
}

/// Evaluates `QueryWrites`.
pub(super) fn query(
    moment: &Moment<'_>,
    effects: &mut Effects,
    txn: TxnId,
    at: Timestamp,
    writes: &[(Key, Sequence)],
    missing: Missing,
) -> Result<Response, Stop> {
    let mut all = true;
    for (key, sequence) in writes {
        let span = Span::point(key);
        moment.wait_for_writes(&span, at)?;
        let laid = mvcc::get_intent(moment.reader, key)?
            .is_some_and(|intent| intent.txn == txn && holds(&intent, at, *sequence));
        if laid {
            continue;
        }
        all = false;
        if missing == Missing::Prevent && !moment.has(PlantedBug::MissingNotPrevented) {
            coverage::reached(Mark::MissingWritePrevented);
            effects.reads.push((span, at));
        }
    }
    Ok(Response::Writes { all })
}

/// Whether the intent is a staged write.
fn holds(intent: &Intent, at: Timestamp, sequence: Sequence) -> bool {
    intent.ts <= at && intent.history.iter().any(|(written, _)| *written == sequence)
}
