//! Value: evaluation of `Changes`: the feed of a copy, complete up to a timestamp.
//!
//! Complete means: nothing will ever commit in the span at or below `upto` that was not delivered.
//! So the span counts as read at `read_at`, writes in flight at or below are waited for, and so is
//! every intent at or below, unless its owner was pushed above.

use clock::Timestamp;
use coverage::Mark;
use storage::mvcc::{self, layout::COPY_PREFIX_BYTES};
use storage::{Key, Span};

use super::evaluate::{Effects, Moment, Stop, intent_conflict};
use super::read::SCAN_BYTES_MAX;
use crate::api::{Change, KvError, Response};

/// Evaluates `Changes`.
pub(super) fn changes(
    moment: &Moment<'_>,
    effects: &mut Effects,
    span: &Span,
    after: Timestamp,
    bytes_max: u64,
) -> Result<Response, Stop> {
    let to = moment.batch.read_at;
    let copy = copy_of(span)?;
    if after < to {
        moment.check_history(after)?;
    }
    moment.wait_for_writes(span, to)?;
    for item in mvcc::intents(moment.reader, span) {
        let (key, intent) = item?;
        if intent.ts <= to && !moment.is_pushed_above(&intent, to) {
            coverage::reached(Mark::FeedMetIntent);
            return Err(intent_conflict(&key, &intent, None));
        }
    }
    let (changes, upto) = collect(moment, &copy, span, after, bytes_max)?;
    effects.reads.push((span.clone(), to));
    Ok(Response::Changes { changes, upto })
}

/// Whole commits only: a transaction's changes have one timestamp and are not torn.
fn collect(
    moment: &Moment<'_>,
    copy: &Key,
    span: &Span,
    after: Timestamp,
    bytes_max: u64,
) -> Result<(Vec<Change>, Timestamp), Stop> {
    let to = moment.batch.read_at;
    let bytes_max = if bytes_max == 0 { SCAN_BYTES_MAX } else { bytes_max.min(SCAN_BYTES_MAX) };
    let mut changes: Vec<Change> = Vec::new();
    let mut bytes = 0;
    for item in mvcc::changes(moment.reader, copy, span, after, to) {
        let (ts, key) = item?;
        if let Some(last) =
            changes.last().map(|change| change.ts).filter(|last| *last < ts && bytes >= bytes_max)
        {
            return Ok((changes, last));
        }
        let Some((_, version)) =
            mvcc::get(moment.reader, &key, ts)?.filter(|(found, _)| *found == ts)
        else {
            continue;
        };
        bytes +=
            (key.as_bytes().len() + version.value.as_ref().map_or(0, |value| value.len())) as u64;
        changes.push(Change { ts, key, value: version.value });
    }
    Ok((changes, to.max(after)))
}

fn copy_of(span: &Span) -> Result<Key, KvError> {
    let outside = || KvError::Invalid(format!("{span} is not in one table's copy"));
    let prefix = span.start.as_bytes().get(..COPY_PREFIX_BYTES).ok_or_else(outside)?;
    let copy = Key::new(prefix.to_vec());
    if copy.copy_region().is_none() || !Span::prefix(&copy).covers(span) {
        return Err(outside());
    }
    Ok(copy)
}
