//! Value: the writes of a transaction that have not left the gateway, in key order, with savepoints.
//!
//! Each key has a short stack of steps, one per savepoint level at most: a later write of the same level replaces the earlier
//! one and keeps its condition. What a transaction reads is the range's answer with the top steps laid over it ([`WriteBuffer::overlay`]).
//!
//! INVARIANT: steps of a key have rising sequences; no sequence is ever used twice, also not after a rollback.

use bytes::Bytes;
use std::collections::BTreeMap;
use storage::{Direction, Key, Span};

use crate::api::{Expect, Mutation, Sequence};

/// Memory a step costs beside its bytes, roughly.
const STEP_OVERHEAD_BYTES: usize = 48;

/// Names a savepoint of one transaction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SavepointId(u64);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Step {
    sequence: Sequence,
    value: Option<Bytes>,
    expect: Expect,
}

/// Buffered writes.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteBuffer {
    steps: BTreeMap<Key, Vec<Step>>,
    bytes: usize,
    last: Sequence,
    /// Open savepoints, outermost first, each with the last sequence before it.
    savepoints: Vec<(SavepointId, Sequence)>,
    next_savepoint: u64,
}

fn cost(key: &Key, step: &Step) -> usize {
    key.as_bytes().len() + step.value.as_ref().map_or(0, Bytes::len) + STEP_OVERHEAD_BYTES
}

impl WriteBuffer {
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Memory it takes, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The buffered value of a key: `None` if there is no write, `Some(None)` if it is deleted.
    pub(crate) fn get(&self, key: &Key) -> Option<Option<&Bytes>> {
        self.get_before(key, None)
    }

    /// The same, of the writes before a savepoint only; `None` (or one that is gone): of all.
    pub(crate) fn get_before(
        &self,
        key: &Key,
        savepoint: Option<SavepointId>,
    ) -> Option<Option<&Bytes>> {
        let step = last_step(self.steps.get(key)?, self.last_before(savepoint))?;
        Some(step.value.as_ref())
    }

    /// Whether a key was written after a savepoint that is open.
    pub(crate) fn is_written_since(&self, key: &Key, savepoint: SavepointId) -> bool {
        let before = self.last_before(Some(savepoint));
        self.steps
            .get(key)
            .and_then(|steps| steps.last())
            .is_some_and(|step| before.is_some_and(|before| step.sequence > before))
    }

    /// The last sequence before a savepoint; `None`: there is no such savepoint.
    fn last_before(&self, savepoint: Option<SavepointId>) -> Option<Sequence> {
        let id = savepoint?;
        self.savepoints.iter().find(|(other, _)| *other == id).map(|(_, last)| *last)
    }

    /// Adds a write. A condition holds only for the key's first step: the later ones overwrite the transaction's own write.
    pub(crate) fn write(&mut self, key: Key, value: Option<Bytes>, expect: Expect) {
        self.last = self.last.next();
        let level = self.savepoints.last().map_or(Sequence::ZERO, |(_, sequence)| *sequence);
        let steps = self.steps.entry(key.clone()).or_default();
        let expect = steps.last().map_or(expect, |step| step.expect);
        if steps.last().is_some_and(|step| step.sequence > level) {
            let replaced = steps.pop().expect("it was just seen");
            self.bytes -= cost(&key, &replaced);
        }
        let step = Step { sequence: self.last, value, expect };
        self.bytes += cost(&key, &step);
        steps.push(step);
    }

    pub(crate) fn savepoint(&mut self) -> SavepointId {
        let id = SavepointId(self.next_savepoint);
        self.next_savepoint += 1;
        self.savepoints.push((id, self.last));
        id
    }

    /// Whether that savepoint is open.
    pub(crate) fn has_savepoint(&self, id: SavepointId) -> bool {
        self.savepoints.iter().any(|(other, _)| *other == id)
    }

    /// Whether that savepoint is open and within no other.
    pub(crate) fn is_outermost(&self, id: SavepointId) -> bool {
        self.savepoints.first().is_some_and(|(other, _)| *other == id)
    }

    /// Takes back every write since the savepoint, which stays open; inner ones are gone. `false`: there is no such savepoint.
    pub(crate) fn rollback_to(&mut self, id: SavepointId) -> bool {
        let Some(index) = self.savepoints.iter().position(|(other, _)| *other == id) else {
            return false;
        };
        self.savepoints.truncate(index + 1);
        let keep = self.savepoints[index].1;
        let mut bytes = 0;
        self.steps.retain(|key, steps| {
            steps.retain(|step| step.sequence <= keep);
            bytes += steps.iter().map(|step| cost(key, step)).sum::<usize>();
            !steps.is_empty()
        });
        self.bytes = bytes;
        true
    }

    /// Forgets the savepoint and inner ones, and keeps the writes. `false`: there is no such savepoint.
    pub(crate) fn release(&mut self, id: SavepointId) -> bool {
        let Some(index) = self.savepoints.iter().position(|(other, _)| *other == id) else {
            return false;
        };
        self.savepoints.truncate(index);
        true
    }

    /// What the transaction writes if it commits now, in key order.
    pub(crate) fn mutations(&self) -> Vec<Mutation> {
        self.steps
            .iter()
            .map(|(key, steps)| {
                mutation(key, steps.last().expect("a key without steps is not kept"))
            })
            .collect()
    }

    /// Whether [`WriteBuffer::take_settled`] would give anything.
    pub(crate) fn can_settle(&self) -> bool {
        match self.savepoints.first() {
            None => !self.is_empty(),
            Some((_, floor)) => self
                .steps
                .values()
                .any(|steps| steps.first().is_some_and(|step| step.sequence <= *floor)),
        }
    }

    /// Takes out the writes that no open savepoint can take back any more, one per key, in key order. The others stay: an intent
    /// whose steps had to be ignored later could not be resolved by others, who know only the record.
    pub(crate) fn take_settled(&mut self) -> Vec<Mutation> {
        let floor = self.savepoints.first().map_or(self.last, |(_, sequence)| *sequence);
        let mut settled = Vec::new();
        let mut bytes = 0;
        self.steps.retain(|key, steps| {
            let open = steps.partition_point(|step| step.sequence <= floor);
            if let Some(step) = steps[..open].last() {
                settled.push(mutation(key, step));
            }
            if steps.drain(..open).next().is_some() {
                // What is left overwrites the transaction's own intent: the condition was that intent's.
                steps.iter_mut().for_each(|step| step.expect = Expect::Anything);
            }
            bytes += steps.iter().map(|step| cost(key, step)).sum::<usize>();
            !steps.is_empty()
        });
        self.bytes = bytes;
        settled
    }

    pub(crate) fn clear(&mut self) {
        self.steps.clear();
        self.savepoints.clear();
        self.bytes = 0;
    }

    /// Lays the buffered writes of `span` over the rows that a range answered for all of `span`, in the scan's direction; those before
    /// a savepoint only, if one is given that is open.
    pub(crate) fn overlay(
        &self,
        span: &Span,
        direction: Direction,
        rows: Vec<(Key, Bytes)>,
        savepoint: Option<SavepointId>,
    ) -> Vec<(Key, Bytes)> {
        if span.is_empty()
            || self.steps.range(span.start.clone()..span.end.clone()).next().is_none()
        {
            return rows;
        }
        let before = self.last_before(savepoint);
        let mut merged: BTreeMap<Key, Bytes> = rows.into_iter().collect();
        for (key, steps) in self.steps.range(span.start.clone()..span.end.clone()) {
            let Some(step) = last_step(steps, before) else { continue };
            match &step.value {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        match direction {
            Direction::Forward => merged.into_iter().collect(),
            Direction::Reverse => merged.into_iter().rev().collect(),
        }
    }
}

/// The last of a key's steps; of those up to a sequence, if there is one.
fn last_step(steps: &[Step], up_to: Option<Sequence>) -> Option<&Step> {
    match up_to {
        None => steps.last(),
        Some(last) => steps[..steps.partition_point(|step| step.sequence <= last)].last(),
    }
}

fn mutation(key: &Key, step: &Step) -> Mutation {
    Mutation {
        key: key.clone(),
        value: step.value.clone(),
        expect: step.expect,
        sequence: step.sequence,
    }
}
