//! Value: evaluation of `Resolve`: a decided transaction's intents become versions, or go.
//!
//! The caller knows the verdict (from the record). An intent above the commit timestamp cannot
//! belong to what was committed: the commit is at or above every intent, and intents do not move
//! (see `write`). It was laid by a copy of a `Write` that arrived after the transaction had ended
//! and its intent was resolved; what it carries has taken effect already. It is dropped.
//!
//! The version keeps the clock time of the intent (killer H07), not of the resolution: a reader
//! whose uncertainty reaches to the write must find it uncertain, however late it is resolved and
//! whatever timestamp it got.

use clock::{ClockTimestamp, Timestamp};
use coverage::Mark;
use std::collections::BTreeSet;
use storage::mvcc::{self, Intent, Sequence, TxnId, Version};
use storage::{Key, Span};

use super::PlantedBug;
use super::evaluate::{Effects, Moment, Stop};
use super::locks::Release;
use super::record::is_ignored;
use crate::api::Response;

/// Intents per command; a longer resolution takes several.
pub(super) const RESOLVED_MAX: usize = 2_000;

/// What was decided.
pub(super) struct Decision<'a> {
    pub(super) txn: TxnId,
    pub(super) commit_ts: Option<Timestamp>,
    pub(super) ignored: &'a [(Sequence, Sequence)],
}

/// Evaluates `Resolve`.
pub(super) fn resolve(
    moment: &Moment<'_>,
    effects: &mut Effects,
    decision: &Decision<'_>,
    spans: &[Span],
) -> Result<Response, Stop> {
    // Spans may overlap.
    let mut done = BTreeSet::new();
    for span in spans {
        effects.releases.push(Release::all(decision.txn, span.clone()));
        for item in mvcc::intents(moment.reader, span) {
            let (key, intent) = item?;
            if intent.txn != decision.txn {
                continue;
            }
            if effects.freed.len() >= RESOLVED_MAX {
                coverage::reached(Mark::ResolutionCut);
                effects.again = true;
                return Ok(Response::Done);
            }
            if !done.insert(key.clone()) {
                continue;
            }
            effects.touch(&key)?;
            apply(moment, effects, decision, &key, &intent);
        }
    }
    Ok(Response::Done)
}

fn apply(
    moment: &Moment<'_>,
    effects: &mut Effects,
    decision: &Decision<'_>,
    key: &Key,
    intent: &Intent,
) {
    effects.write_ts = Timestamp::MIN;
    mvcc::remove_intent(&mut effects.batch, key);
    effects.freed.push(key.clone());
    match decision.commit_ts {
        None => {
            coverage::reached(Mark::AbortedIntentRemoved);
            effects.aborted.push(decision.txn);
        }
        Some(commit_ts) if commit_ts < intent.ts && !moment.has(PlantedBug::LateWriteCommits) => {
            coverage::reached(Mark::LateIntentDropped);
            tracing::warn!(%key, txn = %decision.txn, %commit_ts, intent = %intent.ts, "dropped an intent laid after its transaction ended");
        }
        Some(commit_ts) => {
            let kept = intent
                .history
                .iter()
                .rev()
                .find(|(sequence, _)| !is_ignored(decision.ignored, *sequence));
            if let Some((_, value)) = kept {
                coverage::reached(Mark::CommittedIntentResolved);
                // The transaction's start is a reading of its gateway's clock, not after the write.
                let started = ClockTimestamp::from_raw(intent.started.raw());
                let late = moment.has(PlantedBug::ResolvedCountsAsNew);
                let written_at = if late { moment.now.clock } else { started };
                mvcc::put_version(
                    &mut effects.batch,
                    key,
                    commit_ts,
                    &Version { written_at, by: None, value: value.clone() },
                );
            }
        }
    }
}
