//! Value: evaluation of reads: `Get`, `Scan`, `Refresh`.
//!
//! ```text
//!        what is met at a key            plain read                         locking read
//!   own intent                           its newest sequence not ignored    the same
//!   other's intent at or below read_at   wait (push it above)               wait
//!     in (read_at, uncertainty limit]    wait (push it above): its owner    wait
//!                                        may have committed before we began
//!     above the limit                    look below it                      wait
//!   other's unreplicated lock            ignore                             wait
//!   version in (read_at, limit]          Uncertain, if written at or        NewerVersion
//!     that was written before            before the limit by clock
//!   version above                        ignore                             NewerVersion
//! ```
//!
//! A pushed transaction was undecided when the push was answered, hence not acknowledged before our
//! read began: its intent is neither at nor below `read_at` (it will commit above), nor uncertain.
//!
//! INVARIANT (killer T06): the read mark covers exactly the examined span, whichever way and
//! however limited the scan was.

use clock::Timestamp;
use coverage::{Mark, Rare, rare};
use storage::mvcc::{self, Intent, ScanItem, Version};
use storage::{Direction, Key, Span};

use super::PlantedBug;
use super::evaluate::{Conflict, ConflictKind, Effects, Moment, Stop, intent_conflict, owner};
use super::locks::Holder;
use super::record::is_ignored;
use crate::api::{KvError, Lock, Response, Row, Skipped, Wait};

/// Bytes of one scan's answer, whatever was asked for: the answer says where to go on.
pub(super) const SCAN_BYTES_MAX: u64 = 8 << 20;

/// The fields of a scan request.
pub(super) struct ScanRequest<'a> {
    pub(super) span: &'a Span,
    pub(super) direction: Direction,
    pub(super) limit: u64,
    pub(super) bytes_max: u64,
    pub(super) lock: Option<Lock>,
}

/// What a key looks like to the reader.
enum Seen {
    Row(Row),
    Nothing,
    /// Locked by another, and the reader asked to skip such keys.
    Skipped(Box<Skipped>),
}

/// Evaluates `Get`.
pub(super) fn get(
    moment: &Moment<'_>,
    effects: &mut Effects,
    key: &Key,
    lock: Option<Lock>,
) -> Result<Response, Stop> {
    check_reader(moment, lock)?;
    let span = Span::point(key);
    moment.wait_for_writes(&span, newest_of_interest(moment, lock))?;
    let at = moment.batch.read_at;
    let newer = mvcc::newest_in(moment.reader, key, at, newest_of_interest(moment, lock))?;
    let item = ScanItem {
        key: key.clone(),
        intent: mvcc::get_intent(moment.reader, key)?,
        visible: mvcc::get(moment.reader, key, at)?,
        newer,
    };
    let seen = see(moment, item, lock)?;
    effects.reads.push((span, at));
    match seen {
        Seen::Row(row) => {
            take_lock(moment, effects, key, lock)?;
            Ok(Response::Get(Some(row)))
        }
        Seen::Nothing => {
            take_lock(moment, effects, key, lock)?;
            Ok(Response::Get(None))
        }
        Seen::Skipped(skipped) => {
            effects.note_skipped(moment, *skipped);
            Ok(Response::Get(None))
        }
    }
}

/// Evaluates `Scan`.
pub(super) fn scan(
    moment: &Moment<'_>,
    effects: &mut Effects,
    scan: &ScanRequest<'_>,
) -> Result<Response, Stop> {
    check_reader(moment, scan.lock)?;
    moment.wait_for_writes(scan.span, newest_of_interest(moment, scan.lock))?;
    let at = moment.batch.read_at;
    let bytes_max =
        if scan.bytes_max == 0 { SCAN_BYTES_MAX } else { scan.bytes_max.min(SCAN_BYTES_MAX) };
    let mut rows = Vec::new();
    let mut bytes = 0;
    let mut stopped_at = None;
    for item in mvcc::scan(
        moment.reader,
        scan.span,
        at,
        newest_of_interest(moment, scan.lock),
        scan.direction,
    ) {
        let row = match see(moment, item?, scan.lock)? {
            Seen::Row(row) => row,
            Seen::Nothing => continue,
            Seen::Skipped(skipped) => {
                effects.note_skipped(moment, *skipped);
                continue;
            }
        };
        bytes += (row.key.as_bytes().len() + row.value.len()) as u64;
        take_lock(moment, effects, &row.key, scan.lock)?;
        let key = row.key.clone();
        rows.push(row);
        let full = (scan.limit != 0 && rows.len() as u64 >= scan.limit) || bytes >= bytes_max;
        if full || rare(Rare::OneRowPerPage) {
            stopped_at = Some(key);
            coverage::reached(Mark::ScanCutShort);
            break;
        }
    }
    let (examined, rest) = cut(scan.span, scan.direction, stopped_at);
    if moment.has(PlantedBug::ScanProtectsRowsOnly) {
        effects.reads.extend(rows.iter().map(|row| (Span::point(&row.key), at)));
    } else {
        effects.reads.push((examined, at));
    }
    Ok(Response::Scan { rows, resume: rest })
}

/// Evaluates `Refresh`.
pub(super) fn refresh(
    moment: &Moment<'_>,
    effects: &mut Effects,
    span: &Span,
    since: Timestamp,
) -> Result<Response, Stop> {
    let to = moment.batch.read_at;
    if let Some((key, intent)) = check_versions(moment, span, since, to)? {
        // Its owner may be dead: then it is asked, and this is no reason to begin again.
        coverage::reached(Mark::RefreshMetIntent);
        return Err(intent_conflict(&key, &intent, None));
    }
    coverage::reached(Mark::RefreshHeld);
    effects.reads.push((span.clone(), to));
    Ok(Response::Done)
}

/// Whether what was read in `span` at `since` reads the same at `to`, for a commit that cannot wait for intents.
pub(super) fn check_refresh(
    moment: &Moment<'_>,
    span: &Span,
    since: Timestamp,
    to: Timestamp,
) -> Result<(), Stop> {
    let Some((key, intent)) = check_versions(moment, span, since, to)? else { return Ok(()) };
    coverage::reached(Mark::RefreshFailedByIntent);
    Err(KvError::RefreshFailed { key, ts: intent.ts, by: Some(intent.txn) }.into())
}

/// Whether what was read in `span` at `since` reads the same at `to`, by what is committed; the first intent that may change that.
///
/// Every intent of another transaction at or below `to` fails it, also one at or below `since` (the
/// reader may have passed it because it was pushed above `since`; it may still commit at or below
/// `to`).
fn check_versions(
    moment: &Moment<'_>,
    span: &Span,
    since: Timestamp,
    to: Timestamp,
) -> Result<Option<(Key, Intent)>, Stop> {
    if since >= to {
        return Ok(None);
    }
    if rare(Rare::RefreshFailed) {
        return Err(KvError::RefreshFailed { key: span.start.clone(), ts: to, by: None }.into());
    }
    // A tombstone in the interval may be among what is gone.
    moment.check_history(since)?;
    moment.wait_for_writes(span, to)?;
    if let Some(key) = mvcc::changed_in(moment.reader, span, since, to)? {
        let newest = mvcc::newest_in(moment.reader, &key, since, to)?;
        let (ts, by) = newest.map_or((to, None), |(ts, version)| (ts, version.by));
        coverage::reached(Mark::RefreshFailedByVersion);
        return Err(KvError::RefreshFailed { key, ts, by }.into());
    }
    for item in mvcc::intents(moment.reader, span) {
        let (key, intent) = item?;
        let own = moment.txn_id() == Some(intent.txn);
        if !own && intent.ts <= to && !moment.is_pushed_above(&intent, to) {
            return Ok(Some((key, intent)));
        }
    }
    Ok(None)
}

fn check_reader(moment: &Moment<'_>, lock: Option<Lock>) -> Result<(), KvError> {
    if lock.is_some() {
        moment.txn()?;
    }
    moment.check_history(moment.batch.read_at)
}

/// Locks the key for the batch's transaction, if there is room for one more lock or it has it already.
fn take_lock(
    moment: &Moment<'_>,
    effects: &mut Effects,
    key: &Key,
    lock: Option<Lock>,
) -> Result<(), KvError> {
    let Some(lock) = lock else { return Ok(()) };
    let locks = &moment.leading.locks;
    let room = locks.has_room(effects.locks.len() + 1, moment.locks_max);
    if !room && !locks.holds(moment.txn()?.id, key) {
        coverage::reached(Mark::LockTableFull);
        let range = moment.state.descriptor.id;
        return Err(KvError::TooManyLocks { range, limit: moment.locks_max as u64 });
    }
    effects.locks.push((key.clone(), lock));
    Ok(())
}

/// Versions above it do not matter to the read.
fn newest_of_interest(moment: &Moment<'_>, lock: Option<Lock>) -> Timestamp {
    match lock {
        Some(_) => Timestamp::MAX,
        None => moment.batch.uncertainty_limit.max(moment.batch.read_at),
    }
}

fn see(moment: &Moment<'_>, item: ScanItem, lock: Option<Lock>) -> Result<Seen, Stop> {
    let ScanItem { key, intent, visible, newer } = item;
    if let Some(intent) = &intent {
        if moment.txn_id() == Some(intent.txn) {
            if let Some(seen) = own_write(moment, &key, intent) {
                coverage::reached(Mark::OwnIntentRead);
                return Ok(seen);
            }
        } else if let Some(seen) = others_intent(moment, &key, intent, lock)? {
            return Ok(seen);
        }
    }
    match lock {
        Some(strength) => {
            // A key that is not there to be returned is not locked by a scan, but it may have just
            // been written.
            if let Some(seen) = others_lock(moment, &key, strength)? {
                return Ok(seen);
            }
            if newer.is_some() {
                coverage::reached(Mark::LockMetNewerVersion);
                let newest = mvcc::newest(moment.reader, &key)?;
                let ts = newest.map_or(moment.batch.read_at, |(ts, _)| ts);
                return Err(KvError::NewerVersion { key, ts }.into());
            }
        }
        None if newer.is_some() => check_uncertain(moment, &key)?,
        None => {}
    }
    Ok(match visible {
        Some((ts, Version { value: Some(value), .. })) => Seen::Row(Row { key, value, ts }),
        Some(_) | None => Seen::Nothing,
    })
}

/// The transaction's own newest write that it has not taken back.
fn own_write(moment: &Moment<'_>, key: &Key, intent: &Intent) -> Option<Seen> {
    let kept = intent
        .history
        .iter()
        .rev()
        .find(|(sequence, _)| !is_ignored(&moment.batch.ignored, *sequence));
    kept.map(|(_, value)| match value {
        Some(value) => Seen::Row(Row { key: key.clone(), value: value.clone(), ts: intent.ts }),
        None => Seen::Nothing,
    })
}

fn others_intent(
    moment: &Moment<'_>,
    key: &Key,
    intent: &Intent,
    lock: Option<Lock>,
) -> Result<Option<Seen>, Stop> {
    match (lock, moment.batch.wait) {
        (Some(_), Wait::Skip) => {
            coverage::reached(Mark::LockedRowSkipped);
            let holder = owner(intent);
            let skipped = Skipped { key: key.clone(), holder, active: intent.ts };
            Ok(Some(Seen::Skipped(Box::new(skipped))))
        }
        (Some(strength), Wait::Queue(_) | Wait::Error) => {
            Err(intent_conflict(key, intent, Some(strength)))
        }
        (None, _) if !hides(moment, intent) => Ok(None),
        (None, _) => {
            coverage::reached(Mark::ReadMetIntent);
            Err(intent_conflict(key, intent, None))
        }
    }
}

/// Whether the intent may be, or become, something that a plain read has to see.
fn hides(moment: &Moment<'_>, intent: &Intent) -> bool {
    let Moment { batch, .. } = moment;
    if moment.is_pushed_above(intent, batch.read_at) {
        coverage::reached(Mark::PushedIntentPassed);
        return false;
    }
    let uncertain =
        intent.ts <= batch.uncertainty_limit && intent.started <= batch.uncertainty_limit;
    intent.ts <= batch.read_at || (uncertain && !moment.has(PlantedBug::UncertainIntentIgnored))
}

fn others_lock(moment: &Moment<'_>, key: &Key, strength: Lock) -> Result<Option<Seen>, Stop> {
    let txn = moment.txn()?;
    if moment.batch.wait == Wait::Skip {
        return Ok(moment.leading.locks.holder_against(key, txn.id, strength).map(
            |Holder { txn, active, .. }| {
                let (key, holder) = (key.clone(), txn.clone());
                Seen::Skipped(Box::new(Skipped { key, holder, active: *active }))
            },
        ));
    }
    match moment.leading.locks.in_the_way(key, txn, strength) {
        None => Ok(None),
        Some(way) => Err(Stop::Locked(Box::new(Conflict {
            key: key.clone(),
            holder: way.txn,
            active: way.active,
            kind: ConflictKind::Lock,
            wants: Some(strength),
        }))),
    }
}

/// Refuses when a version above `read_at` may have been acknowledged before the reader began: one
/// that was written, by the writer's clock, at or below the limit (killer H07: its commit timestamp
/// does not tell).
fn check_uncertain(moment: &Moment<'_>, key: &Key) -> Result<(), Stop> {
    let (at, limit) = (moment.batch.read_at, moment.batch.uncertainty_limit);
    let mut upto = limit;
    while let Some((ts, version)) = mvcc::newest_in(moment.reader, key, at, upto)? {
        if version.written_at.timestamp() <= limit {
            coverage::reached(Mark::UncertainVersionMet);
            return Err(KvError::Uncertain { key: key.clone(), ts }.into());
        }
        coverage::reached(Mark::UncertainVersionWasYoung);
        upto = ts.prev();
    }
    Ok(())
}

/// What a scan that stopped after `last` has examined, and what is left.
fn cut(span: &Span, direction: Direction, last: Option<Key>) -> (Span, Option<Span>) {
    let Some(last) = last else { return (span.clone(), None) };
    let (examined, rest) = match direction {
        Direction::Forward => {
            let next = last.next();
            (Span::new(span.start.clone(), next.clone()), Span::new(next, span.end.clone()))
        }
        Direction::Reverse => {
            (Span::new(last.clone(), span.end.clone()), Span::new(span.start.clone(), last))
        }
    };
    (examined, (!rest.is_empty()).then_some(rest))
}
