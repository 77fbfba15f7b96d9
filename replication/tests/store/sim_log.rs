//! A dumb twin of the node's log: everything in memory, what is not synced can be lost at a crash, from the end.

use parking_lot::Mutex;
use rand::Rng;
use std::collections::BTreeMap;
use storage::StorageError;
use storage::log::{
    Entry, GroupState, Log, LogBatch, LogGroup, LogIndex, LogOp, LogReader, LogSequence, Term,
};

#[derive(Clone, Default, Debug)]
struct Group {
    truncated: (LogIndex, Term),
    entries: Vec<Entry>,
    state: Option<bytes::Bytes>,
}

#[derive(Clone, Default, Debug)]
struct State {
    groups: BTreeMap<LogGroup, Group>,
}

#[derive(Default, Debug)]
struct Inner {
    current: State,
    synced: State,
    unsynced: Vec<LogBatch>,
    last: u64,
}

#[derive(Default, Debug)]
pub(super) struct SimLog {
    inner: Mutex<Inner>,
}

impl Group {
    fn last(&self) -> (LogIndex, Term) {
        self.entries.last().map_or(self.truncated, |entry| (entry.index, entry.term))
    }
}

impl State {
    fn apply(&mut self, batch: &LogBatch) {
        for op in &batch.ops {
            match op {
                LogOp::Append { group, entries } => {
                    let group = self.groups.entry(*group).or_default();
                    let first = entries[0].index;
                    group.entries.retain(|entry| entry.index < first);
                    assert_eq!(group.last().0.next(), first, "no gaps in a log");
                    group.entries.extend(entries.iter().cloned());
                }
                LogOp::State { group, state } => {
                    self.groups.entry(*group).or_default().state = Some(state.clone());
                }
                LogOp::Truncate { group, index, term } => {
                    let group = self.groups.entry(*group).or_default();
                    if group.last().0 < *index {
                        group.entries.clear();
                    }
                    group.entries.retain(|entry| entry.index > *index);
                    group.truncated = (*index, *term);
                }
                LogOp::Remove { group } => {
                    self.groups.remove(group);
                }
            }
        }
    }
}

impl SimLog {
    /// What a restart would find: everything synced, and some of what came after.
    pub(super) fn crash(&self, rng: &mut impl Rng) -> SimLog {
        let inner = self.inner.lock();
        let mut state = inner.synced.clone();
        let kept = rng.random_range(0..=inner.unsynced.len());
        for batch in &inner.unsynced[..kept] {
            state.apply(batch);
        }
        let inner =
            Inner { current: state.clone(), synced: state, unsynced: Vec::new(), last: inner.last };
        SimLog { inner: Mutex::new(inner) }
    }
}

impl LogReader for SimLog {
    fn groups(&self) -> Vec<(LogGroup, GroupState)> {
        let inner = self.inner.lock();
        let groups = inner.current.groups.iter();
        groups
            .map(|(group, found)| {
                let (truncated, state) = (found.truncated, found.state.clone());
                (*group, GroupState { truncated, last: found.last(), state })
            })
            .collect()
    }

    fn entries(
        &self,
        group: LogGroup,
        first: LogIndex,
        last: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let inner = self.inner.lock();
        let Some(found) = inner.current.groups.get(&group) else { return Ok(Vec::new()) };
        let mut bytes = 0;
        let mut result: Vec<Entry> = Vec::new();
        for entry in found.entries.iter().filter(|e| e.index >= first && e.index <= last) {
            if !result.is_empty() && bytes + entry.data.len() > bytes_max {
                break;
            }
            bytes += entry.data.len();
            result.push(entry.clone());
        }
        if result.first().is_some_and(|entry| entry.index != first) {
            result.clear();
        }
        Ok(result)
    }

    fn term(&self, group: LogGroup, index: LogIndex) -> Option<Term> {
        let inner = self.inner.lock();
        let found = inner.current.groups.get(&group)?;
        if index == found.truncated.0 {
            return Some(found.truncated.1);
        }
        found.entries.iter().find(|entry| entry.index == index).map(|entry| entry.term)
    }
}

impl Log for SimLog {
    fn append(&self, batch: LogBatch) -> Result<LogSequence, StorageError> {
        let mut inner = self.inner.lock();
        inner.current.apply(&batch);
        inner.unsynced.push(batch);
        inner.last += 1;
        Ok(LogSequence(inner.last))
    }

    fn sync(&self) -> Result<LogSequence, StorageError> {
        let mut inner = self.inner.lock();
        for batch in std::mem::take(&mut inner.unsynced) {
            inner.synced.apply(&batch);
        }
        Ok(LogSequence(inner.last))
    }

    fn bytes(&self) -> u64 {
        0
    }
}
