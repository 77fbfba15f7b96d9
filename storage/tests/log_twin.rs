//! The dumb twin of the Raft log: all batches ever appended, in a vector. What a log must hold after a prefix of them
//! is found by doing what the ops say to plain vectors.

use bytes::Bytes;
use std::collections::BTreeMap;

use storage::log::{
    Entry, Log, LogBatch, LogGroup, LogIndex, LogOp, LogReader, LogSequence, SegmentedLog, Term,
};

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct TwinGroup {
    pub(crate) truncated: (LogIndex, Term),
    pub(crate) state: Option<Bytes>,
    pub(crate) entries: Vec<Entry>,
}

impl TwinGroup {
    pub(crate) fn last(&self) -> LogIndex {
        self.entries.last().map_or(self.truncated.0, |entry| entry.index)
    }
}

pub(crate) type Groups = BTreeMap<LogGroup, TwinGroup>;

/// The groups after these batches.
pub(crate) fn after(batches: &[LogBatch]) -> Groups {
    let mut groups = Groups::new();
    for op in batches.iter().flat_map(|batch| &batch.ops) {
        apply(&mut groups, op);
    }
    groups
}

pub(crate) fn apply(groups: &mut Groups, op: &LogOp) {
    match op {
        LogOp::Append { group, entries } => {
            let held = groups.entry(*group).or_default();
            held.entries.retain(|entry| entry.index < entries[0].index);
            held.entries.extend(entries.iter().cloned());
        }
        LogOp::State { group, state } => {
            groups.entry(*group).or_default().state = Some(state.clone());
        }
        LogOp::Truncate { group, index, term } => {
            if groups.get(group).map_or(LogIndex::ZERO, |held| held.truncated.0) >= *index {
                return;
            }
            let held = groups.entry(*group).or_default();
            let goes_on = held.entries.iter().any(|e| e.index == *index && e.term == *term);
            held.entries.retain(|entry| goes_on && entry.index > *index);
            held.truncated = (*index, *term);
        }
        LogOp::Remove { group } => {
            groups.remove(group);
        }
    }
}

/// The groups that a log holds, read through its public face.
pub(crate) fn held_by(log: &SegmentedLog) -> Groups {
    let mut groups = Groups::new();
    for (group, state) in log.groups() {
        let first = state.truncated.0.next();
        let entries =
            log.entries(group, first, state.last.0, usize::MAX).expect("entries are readable");
        assert_eq!(entries.last().map_or(state.truncated.0, |entry| entry.index), state.last.0);
        assert_eq!(log.term(group, state.last.0), Some(state.last.1));
        assert_eq!(log.term(group, state.last.0.next()), None);
        groups.insert(group, TwinGroup { truncated: state.truncated, state: state.state, entries });
    }
    groups
}

/// The log must hold exactly a prefix of the batches, and in it everything up to `acknowledged`.
pub(crate) fn check(log: &SegmentedLog, batches: &[LogBatch], acknowledged: LogSequence) -> usize {
    let (LogSequence(last), _) = log.sequences();
    assert!(last >= acknowledged.0, "lost: {} was acknowledged, {last} is there", acknowledged.0);
    let prefix = usize::try_from(last).expect("small");
    assert!(prefix <= batches.len(), "{last} batches, though {} were appended", batches.len());
    assert_eq!(held_by(log), after(&batches[..prefix]), "not the first {prefix} batches");
    prefix
}

/// Makes valid batches from random numbers.
pub(crate) struct Maker {
    pub(crate) batches: Vec<LogBatch>,
    pub(crate) groups: Groups,
    pub(crate) rng: u64,
}

impl Maker {
    pub(crate) fn new(seed: u64) -> Maker {
        Maker { batches: Vec::new(), groups: Groups::new(), rng: seed }
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.rng;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// Goes back to a prefix: the others were lost in a crash.
    pub(crate) fn cut(&mut self, prefix: usize) {
        self.batches.truncate(prefix);
        self.groups = after(&self.batches);
    }

    /// Another batch of up to three ops; entries have up to `bytes_max` bytes.
    pub(crate) fn batch(&mut self, bytes_max: u64) -> LogBatch {
        let mut batch = LogBatch::default();
        for _ in 0..=self.below(3) {
            let op = self.op(bytes_max);
            apply(&mut self.groups, &op);
            batch.ops.push(op);
        }
        self.batches.push(batch.clone());
        batch
    }

    fn op(&mut self, bytes_max: u64) -> LogOp {
        // Group 0 is idle most of the time: its entries must be carried on.
        let group = LogGroup(if self.below(20) == 0 { 0 } else { 1 + self.below(3) });
        let held = self.groups.get(&group).cloned().unwrap_or_default();
        let term = Term::new(1 + self.batches.len() as u64 / 7);
        let length = held.last().get() - held.truncated.0.get();
        match self.below(10) {
            0..=4 => {
                // Mostly at the end, sometimes over what is there.
                let over = if self.below(4) == 0 { self.below(length + 1) } else { 0 };
                let first = held.last().get() - over + 1;
                let count = 1 + self.below(3);
                let entries = (first..first + count)
                    .map(|index| Entry {
                        term,
                        index: LogIndex::new(index),
                        data: self.data(bytes_max),
                    })
                    .collect();
                LogOp::Append { group, entries }
            }
            5 | 6 => LogOp::State { group, state: self.data(20) },
            7 | 8 => {
                let back =
                    if group == LogGroup(0) { length } else { self.below(length + 1).min(2) };
                let index = LogIndex::new(held.last().get() - back);
                let term = held
                    .entries
                    .iter()
                    .find(|entry| entry.index == index)
                    .map_or(held.truncated.1, |entry| entry.term);
                match self.below(12) {
                    0 => LogOp::Truncate { group, index: held.last().after(3), term: term.next() },
                    1 => LogOp::Truncate { group, index, term: term.next() },
                    _ => LogOp::Truncate { group, index, term },
                }
            }
            _ if self.below(4) == 0 => LogOp::Remove { group },
            _ => LogOp::State { group, state: Bytes::new() },
        }
    }

    fn data(&mut self, bytes_max: u64) -> Bytes {
        let count = self.below(bytes_max + 1);
        let byte = self.below(256) as u8;
        (0..count).map(|place| byte.wrapping_add(place as u8)).collect::<Vec<_>>().into()
    }
}

/// Appends and, when told to, syncs; returns what is acknowledged now.
pub(crate) fn sync(log: &SegmentedLog, acknowledged: &mut LogSequence) -> bool {
    match log.sync() {
        Ok(upto) => {
            *acknowledged = upto;
            true
        }
        Err(_) => false,
    }
}
