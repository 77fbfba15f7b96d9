//! Value: evaluation of writes: what one-phase commits and intents have in common, and `Write`.
//!
//! A write may go to a key when no other transaction has an intent or a lock there (or waits there
//! before it), and it goes to a timestamp that is
//!
//! - at or above the transaction's `read_at`,
//! - above the newest version of the key,
//! - above every read of the key by another transaction (the timestamp cache),
//! - above the range's garbage collection threshold.
//!
//! A transaction's own intent has guarded its key since it was laid: whoever read at or above it
//! had to wait, or to push the transaction. So it never moves. That makes a repeated `Write`
//! harmless, even when both copies' answers are used: the commit timestamp is at or above every
//! intent of the transaction, whichever answer arrived. (A copy that arrives after the transaction
//! has ended lays an orphan above the newest version, hence above the commit: see `resolve`.)
//!
//! Conditions are on the newest *committed* version: with the key free of others' intents, nobody
//! can commit in between.

use bytes::Bytes;
use clock::Timestamp;
use coverage::Mark;
use std::collections::BTreeMap;
use storage::mvcc::{self, Intent, Sequence};
use storage::{Key, Span};

use super::PlantedBug;
use super::evaluate::{Conflict, ConflictKind, Effects, Moment, Stop, intent_conflict};
use crate::api::{Expect, KvError, Lock, Mutation, Response};

/// A key that is free to be written.
pub(super) struct Target<'a> {
    pub(super) key: &'a Key,
    /// In the order given.
    pub(super) mutations: Vec<&'a Mutation>,
    /// The transaction's own, earlier intent.
    pub(super) own: Option<Intent>,
}

/// Checks every key, and answers the least timestamp at which all of them (but those with an intent
/// already) can be written.
pub(super) fn prepare<'a>(
    moment: &Moment<'_>,
    effects: &mut Effects,
    mutations: &'a [Mutation],
) -> Result<(Vec<Target<'a>>, Timestamp), Stop> {
    if mutations.is_empty() {
        return Err(KvError::Invalid("no mutations".into()).into());
    }
    let mut by_key: BTreeMap<&Key, Vec<&Mutation>> = BTreeMap::new();
    for mutation in mutations {
        by_key.entry(&mutation.key).or_default().push(mutation);
    }
    let mut ts = moment.batch.read_at.max(moment.state.gc_threshold.next());
    let mut targets = Vec::with_capacity(by_key.len());
    for (key, mutations) in by_key {
        effects.touch(key)?;
        let own = own_intent_or_conflict(moment, key)?;
        let least = check_key(moment, key, &mutations, ts)?;
        if own.is_none() {
            ts = least;
        }
        targets.push(Target { key, mutations, own });
    }
    Ok((targets, ts))
}

/// Evaluates `Write`: lays intents.
pub(super) fn write(
    moment: &Moment<'_>,
    effects: &mut Effects,
    mutations: &[Mutation],
) -> Result<Response, Stop> {
    let txn = moment.txn()?;
    let (targets, ts) = prepare(moment, effects, mutations)?;
    let mut laid = moment.batch.read_at;
    for target in targets {
        let fresh = || Intent {
            txn: txn.id,
            anchor: txn.anchor.clone(),
            ts,
            priority: txn.priority,
            started: txn.started,
            history: Vec::new(),
        };
        let before = target.own.clone();
        let mut intent = target.own.unwrap_or_else(fresh);
        for mutation in target.mutations {
            record_write(&mut intent.history, mutation.sequence, &mutation.value);
        }
        laid = laid.max(intent.ts);
        effects.laid.insert(target.key.clone(), intent.ts);
        if before.as_ref() != Some(&intent) {
            mvcc::put_intent(&mut effects.batch, target.key, &intent);
        }
    }
    effects.write_ts = effects.write_ts.min(laid.min(ts));
    Ok(Response::Written(laid))
}

/// Enters a write at its sequence. The same sequence again is the same write again.
fn record_write(
    history: &mut Vec<(Sequence, Option<Bytes>)>,
    sequence: Sequence,
    value: &Option<Bytes>,
) {
    match history.binary_search_by_key(&sequence, |(written, _)| *written) {
        Ok(at) => history[at].1.clone_from(value),
        Err(at) => history.insert(at, (sequence, value.clone())),
    }
}

fn own_intent_or_conflict(moment: &Moment<'_>, key: &Key) -> Result<Option<Intent>, Stop> {
    let txn = moment.txn()?;
    let own = match mvcc::get_intent(moment.reader, key)? {
        Some(intent) if intent.txn != txn.id => {
            coverage::reached(Mark::WriteMetIntent);
            return Err(intent_conflict(key, &intent, Some(Lock::Exclusive)));
        }
        own => own,
    };
    if own.is_some() {
        return Ok(own);
    }
    match moment.leading.locks.in_the_way(key, txn, Lock::Exclusive) {
        None => Ok(None),
        Some(way) => {
            coverage::reached(Mark::WriteMetLock);
            Err(Stop::Locked(Box::new(Conflict {
                key: key.clone(),
                holder: way.txn,
                active: way.active,
                kind: ConflictKind::Lock,
                wants: Some(Lock::Exclusive),
            })))
        }
    }
}

/// Checks conditions; answers the least timestamp, at or above `at`, at which the key can be
/// written.
fn check_key(
    moment: &Moment<'_>,
    key: &Key,
    mutations: &[&Mutation],
    at: Timestamp,
) -> Result<Timestamp, Stop> {
    let mut least = moment.leading.keys.read_at(key).least_write(at, moment.txn()?.id);
    if moment.has(PlantedBug::FastPathSkipsCache) {
        least = at;
    }
    let Some((newest, version)) = mvcc::newest(moment.reader, key)? else { return Ok(least) };
    let wants_absent = mutations.iter().any(|mutation| mutation.expect == Expect::Absent);
    if let (true, Some(value)) = (wants_absent, version.value) {
        // The refusal tells that the row is there: nobody may change that at or below what was
        // seen.
        let seen_at = newest.max(moment.batch.read_at);
        coverage::reached(Mark::InsertFoundRow);
        let exists = KvError::Exists { key: key.clone(), value };
        return Err(Stop::RefuseSeen(Box::new((exists, Span::point(key))), seen_at));
    }
    if newest >= least {
        coverage::reached(Mark::WriteMovedAboveVersion);
        least = newest.next();
    }
    Ok(least)
}
