//! Value: the end of the log as Raft sees it. What is not handed over yet, what is being written, what is durable.
//!
//! ```text
//!   truncated          durable           handed over                last
//!  ----|------------------|------------------|-----------------------|
//!       in the owner's log, synced   being written       `pending`, goes out with the next Ready
//! ```
//!
//! Writes complete late. A completion speaks of the log as it was when the write was handed over; what has been overwritten
//! since must not count as durable (killer R16). So overwriting shortens what every write under way can still prove.
//!
//! INVARIANT: everything at or before `durable` is what the durable log has there.

use super::{Entry, GroupLog, HardState, LogIndex, Term};
use coverage::Mark;
use std::collections::VecDeque;
use storage::StorageError;

/// What happens to completions of writes that have been overwritten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Completions {
    /// They prove only what was not overwritten.
    Shorten,
    /// The planted bug.
    Believe,
}

/// A write under way.
#[derive(Clone, Debug)]
struct Write {
    number: u64,
    hard_state: Option<HardState>,
    /// The last index that its completion proves; zero if it had no entries.
    last: LogIndex,
}

#[derive(Debug)]
pub(super) struct Tail {
    pub(super) truncated: (LogIndex, Term),
    pub(super) last: (LogIndex, Term),
    /// Appended, not yet in a `Ready`. Consecutive, ends at `last`.
    pending: Vec<Entry>,
    /// A snapshot has replaced the log up to here, and no write proves it yet.
    installed: LogIndex,
    durable: LogIndex,
    writes: VecDeque<Write>,
    number: u64,
}

impl Tail {
    /// A log read at start: all of it is durable.
    pub(super) fn new(truncated: (LogIndex, Term), last: (LogIndex, Term)) -> Tail {
        Tail {
            truncated,
            last,
            pending: Vec::new(),
            installed: LogIndex::ZERO,
            durable: last.0,
            writes: VecDeque::new(),
            number: 0,
        }
    }

    pub(super) fn durable(&self) -> LogIndex {
        self.durable
    }

    /// Whether the next `Ready` has something to write beside the hard state.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty() || self.installed > LogIndex::ZERO
    }

    /// Term of the entry at `index`, also of the last truncated one.
    pub(super) fn term(&self, log: &dyn GroupLog, index: LogIndex) -> Option<Term> {
        if index == self.last.0 {
            return Some(self.last.1);
        }
        if index == self.truncated.0 {
            return Some(self.truncated.1);
        }
        if index < self.truncated.0 || index > self.last.0 {
            return None;
        }
        match self.pending.first() {
            Some(first) if index >= first.index => {
                Some(self.pending[position(first.index, index)].term)
            }
            Some(_) | None => log.term(index),
        }
    }

    /// Entries from `first` (in) to `last` (in), about `bytes_max` payload but at least one. Empty if `first` is gone.
    pub(super) fn entries(
        &self,
        log: &dyn GroupLog,
        first: LogIndex,
        last: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let last = last.min(self.last.0);
        if first <= self.truncated.0 || first > last {
            return Ok(Vec::new());
        }
        let pending_first = self.pending.first().map_or(self.last.0.next(), |entry| entry.index);
        let mut entries = Vec::new();
        if first < pending_first {
            let stored_last = last.min(pending_first.prev());
            entries = log.entries(first, stored_last, bytes_max)?;
            let complete = entries.last().is_some_and(|entry| entry.index == stored_last);
            if !complete || stored_last == last {
                return Ok(entries);
            }
        }
        let mut bytes: usize = entries.iter().map(|entry| entry.data.len()).sum();
        let from = first.max(pending_first);
        for entry in &self.pending[position(pending_first, from)..=position(pending_first, last)] {
            bytes += entry.data.len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    pub(super) fn append(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.last.0.next(), "entries are appended one after the other");
        assert!(
            entry.term >= self.last.1,
            "term {} appended after term {}",
            entry.term,
            self.last.1
        );
        self.last = (entry.index, entry.term);
        self.pending.push(entry);
    }

    /// Forgets everything at or after `index`, to append something else there at once.
    pub(super) fn cut(&mut self, log: &dyn GroupLog, index: LogIndex, completions: Completions) {
        assert!(index > self.truncated.0, "cut at {index}, truncated to {}", self.truncated.0);
        let keep = index.prev();
        let keep_term = self.term(log, keep).expect("the entry before a cut is in the log");
        self.pending.retain(|entry| entry.index < index);
        self.last = (keep, keep_term);
        self.durable = self.durable.min(keep);
        match completions {
            Completions::Shorten => {
                for write in &mut self.writes {
                    coverage::reached(Mark::CutWhileWriting);
                    write.last = write.last.min(keep);
                }
            }
            Completions::Believe => {}
        }
    }

    /// A snapshot takes the place of the whole log.
    pub(super) fn install(&mut self, index: LogIndex, term: Term) {
        self.pending.clear();
        self.truncated = (index, term);
        self.last = (index, term);
        self.installed = index;
        self.durable = LogIndex::ZERO;
        for write in &mut self.writes {
            coverage::reached(Mark::SnapshotWhileWriting);
            write.last = LogIndex::ZERO;
        }
    }

    /// The owner has forgotten entries at or before `index`.
    pub(super) fn truncate(&mut self, index: LogIndex, term: Term) {
        if index > self.truncated.0 {
            assert!(
                index <= self.last.0,
                "truncated to {index} beyond the last entry {}",
                self.last.0
            );
            self.truncated = (index, term);
        }
    }

    /// Hands over what is pending. Returns its number and the entries.
    pub(super) fn hand_over(&mut self, hard_state: Option<HardState>) -> (u64, Vec<Entry>) {
        let entries = std::mem::take(&mut self.pending);
        let installed = std::mem::replace(&mut self.installed, LogIndex::ZERO);
        if hard_state.is_none() && entries.is_empty() && installed == LogIndex::ZERO {
            return (self.number, entries);
        }
        self.number += 1;
        let last = entries.last().map_or(installed, |entry| entry.index);
        self.writes.push_back(Write { number: self.number, hard_state, last });
        (self.number, entries)
    }

    /// Everything up to write `number` is durable. Returns the newest hard state among it.
    pub(super) fn persisted(&mut self, number: u64) -> Option<HardState> {
        assert!(
            number <= self.number,
            "write {number} persisted, only {} handed over",
            self.number
        );
        let mut hard_state = None;
        while let Some(write) = self.writes.pop_front_if(|write| write.number <= number) {
            hard_state = write.hard_state.or(hard_state);
            self.durable = self.durable.max(write.last.min(self.last.0));
        }
        hard_state
    }
}

fn position(first: LogIndex, index: LogIndex) -> usize {
    usize::try_from(index.get() - first.get()).expect("pending entries fit into memory")
}
