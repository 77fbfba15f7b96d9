//! Value: which replica here a batch belongs to, and the frame of its answer.

use clock::{Now, Timestamp};
use replication::range::{RangeDescriptor, RangeId};
use storage::Span;

use super::evaluate;
use super::leading::Leading;
use super::replicas::Replicas;
use crate::api::{Batch, KvError, Reply, Request, Response, Skipped};

/// The range that a batch will be evaluated in; `None`: in none here, it has its answer already.
pub(super) fn belongs(replicas: &dyn Replicas, batch: &Batch) -> Option<RangeId> {
    match split_answer(replicas, batch) {
        Some(_) => None,
        None => route(replicas, batch).ok(),
    }
}

/// The replica here that holds every key of the batch.
pub(super) fn route(replicas: &dyn Replicas, batch: &Batch) -> Result<RangeId, KvError> {
    let spans = evaluate::spans_of(batch);
    let range = match (&batch.range, spans.first()) {
        (Some((range, _)), _) => *range,
        (None, Some(span)) => match replicas.range_for(&span.start) {
            Some(descriptor) => descriptor.id,
            None => return Err(KvError::NotLeaseholder { range: RangeId::default(), hint: None }),
        },
        (None, None) => return Err(KvError::Invalid("the batch names no range".into())),
    };
    let ours: Option<&RangeDescriptor> = replicas.state(range).map(|state| &state.descriptor);
    let known = || {
        spans.iter().flat_map(|span| replicas.overlapping(span)).collect::<Vec<RangeDescriptor>>()
    };
    match ours {
        None if batch.range.is_some() && !known().is_empty() => {
            Err(KvError::RangeMismatch { range, known: known() })
        }
        None => Err(KvError::NotLeaseholder { range, hint: None }),
        Some(ours) if spans.iter().all(|span| ours.span.covers(span)) => Ok(range),
        Some(_) => Err(KvError::RangeMismatch { range, known: known() }),
    }
}

pub(super) fn reply(
    now: Now,
    replicas: &dyn Replicas,
    range: RangeId,
    batch: &Batch,
    leading: Option<&Leading>,
    (responses, skipped): (Vec<Response>, Vec<Skipped>),
) -> Reply {
    let known = batch.range.map_or(0, |(_, generation)| generation);
    let ours = replicas.state(range).map(|state| &state.descriptor);
    let newer = ours.filter(|ours| ours.generation > known);
    let leading = leading.filter(|_| batch.asks_era);
    Reply {
        responses,
        clock: now.clock,
        read_at: batch.read_at,
        range: newer.cloned(),
        eras: Vec::from_iter(leading.zip(ours).map(|(leading, ours)| leading.lock_era(ours))),
        read_high: leading.map_or(Timestamp::MIN, Leading::read_high),
        skipped,
    }
}

/// A split that has happened: the same request again finds `at` as a range's first key. What ended there may have moved away.
pub(super) fn split_answer(replicas: &dyn Replicas, batch: &Batch) -> Option<Response> {
    let [Request::Split { at, .. }] = batch.requests.as_slice() else { return None };
    let right = replicas.range_for(at).filter(|descriptor| descriptor.span.start == *at)?.clone();
    if right.span.start == Span::all().start {
        return None;
    }
    let all = replicas.overlapping(&Span::all());
    let left = all.into_iter().find(|descriptor| descriptor.span.end == *at);
    Some(Response::Split { left, right })
}
