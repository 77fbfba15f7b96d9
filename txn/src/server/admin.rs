//! Value: evaluation of what is done to a range rather than to its rows: `Fence`, `Split`,
//! `TransferLease`, `Gc`.

use clock::Timestamp;
use coverage::Mark;
use replication::raft::ReplicaId;
use replication::range::{Effect, NodeId, Peer, RangeDescriptor, RangeId};
use storage::mvcc;
use storage::{Direction, Key, Space, Span};

use super::evaluate::{Effects, Moment, Stop, intent_conflict};
use super::record::{RECORD_KEPT, Record};
use crate::api::{KvError, Response, TxnStatus};

/// Versions removed by one `Gc`.
pub(super) const GC_VERSIONS_MAX: usize = 2_000;
/// Records looked at by one `Gc`.
pub(super) const GC_RECORDS_MAX: usize = 2_000;

/// Evaluates `Fence`. Waits for every intent in the span: what was planned under an older version
/// is decided before.
pub(super) fn fence(
    moment: &Moment<'_>,
    effects: &mut Effects,
    span: &Span,
    table: u32,
    version: u64,
) -> Result<Response, Stop> {
    if let Some(item) = mvcc::intents(moment.reader, span).next() {
        let (key, intent) = item?;
        coverage::reached(Mark::FenceMetIntent);
        return Err(intent_conflict(&key, &intent, None));
    }
    if moment.state.fences.get(&table).is_none_or(|lowest| *lowest < version) {
        coverage::reached(Mark::SchemaFenced);
        set_effect(effects, Effect::Fence { table, version })?;
        effects.write_ts = Timestamp::MIN;
    }
    Ok(Response::Done)
}

/// Evaluates `Split`. The right side's replicas lie beside ours, with fresh replica ids.
pub(super) fn split(
    moment: &Moment<'_>,
    effects: &mut Effects,
    at: &Key,
    right: RangeId,
) -> Result<Response, Stop> {
    let ours = &moment.state.descriptor;
    if *at <= ours.span.start || *at >= ours.span.end {
        return Err(KvError::Invalid(format!("{at} is not inside {}", ours.span)).into());
    }
    if ours.is_joint() {
        coverage::reached(Mark::SplitRefusedWhileJoint);
        return Err(KvError::Overloaded { range: ours.id }.into());
    }
    let generation = ours.generation + 1;
    let left = RangeDescriptor {
        span: Span::new(ours.span.start.clone(), at.clone()),
        generation,
        ..ours.clone()
    };
    let peers: Vec<Peer> = (1..)
        .zip(&ours.peers)
        .map(|(replica, peer)| Peer { replica: ReplicaId(replica), ..*peer })
        .collect();
    let right = RangeDescriptor {
        id: right,
        span: Span::new(at.clone(), ours.span.end.clone()),
        generation,
        next_replica: peers.len() as u64 + 1,
        peers,
    };
    set_effect(effects, Effect::Split { left: left.clone(), right: right.clone() })?;
    effects.write_ts = Timestamp::MIN;
    Ok(Response::Split { left: Some(left), right })
}

/// Evaluates `TransferLease`.
pub(super) fn transfer(
    moment: &Moment<'_>,
    effects: &mut Effects,
    to: NodeId,
) -> Result<Response, Stop> {
    let descriptor = &moment.state.descriptor;
    if descriptor.peer_on(to).is_none() {
        return Err(KvError::Invalid(format!("{} has no replica on {to}", descriptor.id)).into());
    }
    coverage::reached(Mark::LeaseHandedOver);
    effects.transfer = Some(to);
    Ok(Response::Done)
}

/// Evaluates `Gc`: raises the threshold and removes a piece of what it hides, in one command. Also
/// removes old records.
pub(super) fn gc(
    moment: &Moment<'_>,
    effects: &mut Effects,
    span: &Span,
    threshold: Timestamp,
) -> Result<Response, Stop> {
    if threshold >= moment.now.clock.timestamp() {
        return Err(
            KvError::Invalid("a garbage collection threshold must lie in the past".into()).into()
        );
    }
    // A split in flight ends our span: what we remove must come before it in the log, or be ours after.
    moment.wait_for_writes(span, Timestamp::MIN)?;
    if threshold > moment.state.gc_threshold {
        set_effect(effects, Effect::GcThreshold(threshold))?;
    }
    let from = moment.leading.gc_resume(span, threshold).unwrap_or_else(|| span.start.clone());
    let rest = Span::new(from, span.end.clone());
    let collected = mvcc::gc(moment.reader, &rest, threshold, GC_VERSIONS_MAX)?;
    let more = collected.resume.is_some();
    effects.batch.extend(collected.batch);
    effects.gc_resume = Some((span.clone(), threshold, collected.resume));
    collect_records(moment, effects, span)?;
    // Nothing that a read above the threshold sees changes: nobody waits for this command.
    Ok(Response::Gc { more })
}

/// Undecided and aborted records of transactions that nobody may bring back (see `record`).
/// Committed and staged ones stay until their intents are resolved, however long that takes.
fn collect_records(moment: &Moment<'_>, effects: &mut Effects, span: &Span) -> Result<(), Stop> {
    let now = moment.now.clock.timestamp();
    let raw = mvcc::record_span(span);
    for item in
        moment.reader.scan(raw.space, &raw.start, &raw.end, Direction::Forward).take(GC_RECORDS_MAX)
    {
        let (key, value) = item?;
        let record = Record::decode(value)?;
        // A verdict in flight would come first, and we would remove it.
        let in_flight = moment.wait_for_record(&Span::point(&Key::new(key.clone()))).is_err();
        let old = !in_flight
            && record.started.plus(RECORD_KEPT) <= now
            && record.active.plus(RECORD_KEPT) <= now;
        match record.status {
            // The latter may mean the former.
            TxnStatus::Committed(_) if old && record.intents.is_empty() => {
                effects.batch.delete(Space::Records, key);
            }
            TxnStatus::Committed(_) | TxnStatus::Staging(_) => {}
            TxnStatus::Aborted | TxnStatus::Pending if old => {
                effects.batch.delete(Space::Records, key);
            }
            TxnStatus::Aborted | TxnStatus::Pending => {}
        }
    }
    Ok(())
}

fn set_effect(effects: &mut Effects, effect: Effect) -> Result<(), KvError> {
    if effects.effect != Effect::None {
        return Err(KvError::Invalid("a batch can do only one thing to its range".into()));
    }
    effects.effect = effect;
    Ok(())
}
