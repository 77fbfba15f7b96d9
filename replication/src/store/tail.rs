//! Value: one group's log as its Raft sees it: what the node's log has, plus what was handed out in a `Ready` and is about
//! to be appended by the owner.
//!
//! ```text
//!    truncated           in the node's log            pending
//!   ───────────┤ e e e e e e e e e e e e e e e e e ├─ e e e e ─┤ last
//!                                                  └ overrides whatever the log still has from here on
//! ```
//!
//! Also keeps the size of every entry, four bytes each, so that truncation knows what it would free.

use std::collections::VecDeque;
use storage::StorageError;
use storage::log::{LogGroup, LogReader};

use crate::raft::{Entry, GroupLog, LogIndex, Term};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tail {
    truncated: (LogIndex, Term),
    sizes: VecDeque<u32>,
    bytes: u64,
    pending: Vec<Entry>,
    /// Nothing of the node's log counts: it was reset, and the owner has not been told yet.
    reset: bool,
}

impl Tail {
    /// A log without entries that goes on after `truncated`.
    pub(super) fn starting_at(truncated: (LogIndex, Term)) -> Tail {
        Tail { truncated, ..Tail::default() }
    }

    /// As found in the node's log at start: `entries` from `truncated` on, without a gap.
    pub(super) fn found(truncated: (LogIndex, Term), entries: &[Entry]) -> Tail {
        let mut tail = Tail::starting_at(truncated);
        tail.count(entries);
        tail
    }

    /// Takes what is about to be appended; forgets what was at or after the first one.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.truncated.0 && first.index <= self.last().next(),
            "entries from {} after a log that ends at {}",
            first.index,
            self.last()
        );
        let keep = (first.index.get() - self.truncated.0.get() - 1) as usize;
        for size in self.sizes.drain(keep..) {
            self.bytes -= u64::from(size);
        }
        self.count(entries);
        self.pending.retain(|entry| entry.index < first.index);
        self.pending.extend_from_slice(entries);
    }

    /// Forgets everything; the log goes on after `truncated`.
    pub(super) fn reset(&mut self, truncated: (LogIndex, Term)) {
        *self = Tail { truncated, reset: true, ..Tail::default() };
    }

    /// Forgets entries up to `truncated`, which must be in the log.
    pub(super) fn truncate(&mut self, truncated: (LogIndex, Term)) {
        assert!(
            truncated.0 >= self.truncated.0 && truncated.0 <= self.last(),
            "truncated at {} a log from {} to {}",
            truncated.0,
            self.truncated.0,
            self.last()
        );
        let gone = (truncated.0.get() - self.truncated.0.get()) as usize;
        for size in self.sizes.drain(..gone) {
            self.bytes -= u64::from(size);
        }
        self.truncated = truncated;
        self.pending.retain(|entry| entry.index > truncated.0);
    }

    /// The owner has appended everything handed out.
    pub(super) fn settled(&mut self) {
        self.pending.clear();
        self.reset = false;
    }

    pub(super) fn truncated(&self) -> (LogIndex, Term) {
        self.truncated
    }

    pub(super) fn last(&self) -> LogIndex {
        self.truncated.0.after(self.sizes.len() as u64)
    }

    /// Payload bytes of all entries.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn count(&mut self, entries: &[Entry]) {
        for entry in entries {
            let size = u32::try_from(entry.data.len()).unwrap_or(u32::MAX);
            self.bytes += u64::from(size);
            self.sizes.push_back(size);
        }
    }
}

/// A [`Tail`] over the node's log.
pub(super) struct TailView<'a> {
    pub(super) group: LogGroup,
    pub(super) tail: &'a Tail,
    pub(super) log: &'a dyn LogReader,
}

impl TailView<'_> {
    /// First index that pending entries answer for.
    fn pending_from(&self) -> LogIndex {
        match self.tail.pending.first() {
            Some(entry) => entry.index,
            None if self.tail.reset => self.tail.truncated.0.next(),
            None => self.tail.last().next(),
        }
    }
}

impl GroupLog for TailView<'_> {
    fn entries(
        &self,
        first: LogIndex,
        last: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let last = last.min(self.tail.last());
        if first <= self.tail.truncated.0 || first > last {
            return Ok(Vec::new());
        }
        let pending_from = self.pending_from();
        let mut found = Vec::new();
        if first < pending_from {
            let upto = last.min(pending_from.prev());
            found = self.log.entries(self.group, first, upto, bytes_max)?;
            if found.last().map(|entry| entry.index) != Some(upto) {
                return Ok(found);
            }
        }
        let mut bytes: usize = found.iter().map(|entry| entry.data.len()).sum();
        let wanted = self.tail.pending.iter().filter(|e| e.index >= first && e.index <= last);
        for entry in wanted {
            if !found.is_empty() && bytes + entry.data.len() > bytes_max {
                break;
            }
            bytes += entry.data.len();
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: LogIndex) -> Option<Term> {
        if index == self.tail.truncated.0 {
            return Some(self.tail.truncated.1);
        }
        if index < self.tail.truncated.0 || index > self.tail.last() {
            return None;
        }
        let pending_from = self.pending_from();
        if index >= pending_from {
            let place = (index.get() - pending_from.get()) as usize;
            return self.tail.pending.get(place).map(|entry| entry.term);
        }
        self.log.term(self.group, index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use parking_lot::Mutex;
    use proptest::prelude::*;
    use storage::log::GroupState;

    /// The node's log, of one group, as it was when the owner last appended.
    #[derive(Default)]
    struct Behind(Mutex<Vec<Entry>>);

    impl LogReader for Behind {
        fn groups(&self) -> Vec<(LogGroup, GroupState)> {
            Vec::new()
        }
        fn entries(
            &self,
            _: LogGroup,
            first: LogIndex,
            last: LogIndex,
            _: usize,
        ) -> Result<Vec<Entry>, StorageError> {
            let entries = self.0.lock();
            Ok(entries.iter().filter(|e| e.index >= first && e.index <= last).cloned().collect())
        }
        fn term(&self, _: LogGroup, index: LogIndex) -> Option<Term> {
            self.0.lock().iter().find(|entry| entry.index == index).map(|entry| entry.term)
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Steps back and then appends.
        Append(u64, u64),
        Truncate(u64),
        Reset(u64),
        Settle,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..4, 1u64..5).prop_map(|(back, count)| Step::Append(back, count)),
            1 => (0u64..6).prop_map(Step::Truncate),
            1 => (1u64..20).prop_map(Step::Reset),
            3 => Just(Step::Settle),
        ]
    }

    proptest! {
        /// The twin is the plain list of entries the group has, whatever has reached the node's log.
        #[test]
        fn a_tail_reads_as_if_all_were_in_the_log(steps in proptest::collection::vec(any_step(), 1..40)) {
            let log = Behind::default();
            let mut tail = Tail::default();
            let mut twin: Vec<Entry> = Vec::new();
            let mut begin = (LogIndex::ZERO, Term::ZERO);
            for (number, step) in (1u64..).zip(steps) {
                let last = twin.last().map_or(begin.0, |entry| entry.index);
                match step {
                    Step::Append(back, count) => {
                        let first = last.get().saturating_sub(back).max(begin.0.get()) + 1;
                        let term = Term::new(number);
                        let data = Bytes::from(vec![0; number as usize]);
                        let entries: Vec<Entry> = (first..first + count)
                            .map(|index| Entry { term, index: LogIndex::new(index), data: data.clone() })
                            .collect();
                        twin.retain(|entry| entry.index.get() < first);
                        twin.extend(entries.iter().cloned());
                        tail.append(&entries);
                    }
                    Step::Truncate(count) => {
                        let Some(upto) = twin.get(count as usize).cloned() else { continue };
                        begin = (upto.index, upto.term);
                        twin.retain(|entry| entry.index > upto.index);
                        tail.truncate(begin);
                    }
                    Step::Reset(ahead) => {
                        begin = (LogIndex::new(last.get() + ahead), Term::new(number));
                        twin.clear();
                        tail.reset(begin);
                    }
                    Step::Settle => {
                        *log.0.lock() = twin.clone();
                        tail.settled();
                    }
                }
                let view = TailView { group: LogGroup(1), tail: &tail, log: &log };
                let last = twin.last().map_or(begin.0, |entry| entry.index);
                prop_assert_eq!(tail.last(), last);
                prop_assert_eq!(tail.bytes(), twin.iter().map(|e| e.data.len() as u64).sum::<u64>());
                prop_assert_eq!(view.entries(begin.0.next(), last, usize::MAX).expect("reads"), twin.clone());
                prop_assert_eq!(view.term(begin.0), Some(begin.1));
                prop_assert_eq!(view.term(last.next()), None);
                for entry in &twin {
                    prop_assert_eq!(view.term(entry.index), Some(entry.term));
                }
            }
        }
    }
}
