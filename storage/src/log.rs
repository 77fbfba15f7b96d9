//! The Raft log: one append-only, synced stream for all ranges of a node.
//!
//! This file holds the vocabulary: what is written ([`LogBatch`]), and how it is read ([`LogReader`]). `log/` holds
//! the rest: [`file`] the seam, with [`disk`] and [`sim_file`]; `frame` and `record` the bytes; `index` what is
//! where; `segment` and `segmented` the log itself; `recover` opening it.
//!
//! INVARIANT: what [`Log::sync`] has covered survives every crash; a crash leaves a prefix of the batches appended.

pub mod disk;
pub mod file;
mod frame;
mod index;
mod record;
mod recover;
mod segment;
mod segmented;
pub mod sim_file;

pub use disk::DiskDir;
pub use file::{LogDir, LogFile};
pub use recover::Recovered;
pub use segmented::{LogOptions, PlantedBug, SegmentedLog};
pub use sim_file::SimDir;

use bytes::Bytes;
use std::fmt;

use crate::error::StorageError;

/// Whose entries: one Raft group, named by its range id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct LogGroup(pub u64);

/// Raft term. Zero is before the first election.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Term(u64);

impl Term {
    /// Before the first election.
    pub const ZERO: Term = Term(0);
    /// From its number.
    pub const fn new(term: u64) -> Term {
        Term(term)
    }
    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The term after this one.
    #[must_use]
    pub const fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Position in a group's log. The first entry has index 1; zero is "nothing".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct LogIndex(u64);

impl LogIndex {
    /// Before the first entry.
    pub const ZERO: LogIndex = LogIndex(0);
    /// From its number.
    pub const fn new(index: u64) -> LogIndex {
        LogIndex(index)
    }
    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }
    /// The index before this one; zero stays zero.
    #[must_use]
    pub const fn prev(self) -> LogIndex {
        LogIndex(self.0.saturating_sub(1))
    }
    /// The index `n` later.
    #[must_use]
    pub const fn after(self, n: u64) -> LogIndex {
        LogIndex(self.0 + n)
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One entry. What `data` means is replication's business.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Term of the leader that created it.
    pub term: Term,
    /// Its place.
    pub index: LogIndex,
    /// Payload.
    pub data: Bytes,
}

/// One change to the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogOp {
    /// Appends consecutive entries; whatever the group had at or after the first one's index is forgotten.
    Append {
        /// Whose.
        group: LogGroup,
        /// Not empty, consecutive.
        entries: Vec<Entry>,
    },
    /// Replaces the group's small state (Raft hard state and the like), opaque here.
    State {
        /// Whose.
        group: LogGroup,
        /// Replaces the former value.
        state: Bytes,
    },
    /// Entries at or before `index` are no longer needed; `term` is the term of the entry at `index`. When the log
    /// does not reach `index` (after a snapshot) all entries are forgotten, and the log goes on after `index`.
    Truncate {
        /// Whose.
        group: LogGroup,
        /// Last index that is forgotten.
        index: LogIndex,
        /// Its term.
        term: Term,
    },
    /// The group is gone: entries, state and all.
    Remove {
        /// Whose.
        group: LogGroup,
    },
}

/// Changes that become durable together, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogBatch {
    /// In order.
    pub ops: Vec<LogOp>,
}

impl LogBatch {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// Number of a batch in the order of appending; the first is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct LogSequence(pub u64);

/// What a group has in the log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GroupState {
    /// Last truncated index and its term; zero if nothing was truncated.
    pub truncated: (LogIndex, Term),
    /// Last index and its term; equals `truncated` when there are no entries.
    pub last: (LogIndex, Term),
    /// The group's small state, if it ever had one.
    pub state: Option<Bytes>,
}

/// Reads entries. Appended entries can be read at once, before they are durable.
pub trait LogReader: Send + Sync + 'static {
    /// The groups known, with what they have. Used at start.
    fn groups(&self) -> Vec<(LogGroup, GroupState)>;
    /// Entries from `first` (in) to `last` (in), up to about `bytes_max` payload but at least one.
    /// Errors: a truncated or missing index is `Ok` with fewer (or no) entries; damage is `Corrupt`.
    fn entries(
        &self,
        group: LogGroup,
        first: LogIndex,
        last: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError>;
    /// The term of the entry at `index`; also answers for the last truncated index. `None` outside.
    fn term(&self, group: LogGroup, index: LogIndex) -> Option<Term>;
}

/// The writing side. Any thread appends; one, the log syncer, syncs.
pub trait Log: LogReader {
    /// Appends; readable at once, volatile until the next sync. Returns the batch's number. Errors: `Full` when there
    /// is no room for another segment (nothing of the batch is in the log, and appending may be tried again); all
    /// others are final. Panics when entries are not consecutive or leave a gap behind the group's last one.
    fn append(&self, batch: LogBatch) -> Result<LogSequence, StorageError>;
    /// Makes everything appended before the call durable; returns the last batch covered. The first error is final:
    /// every later call fails too (fsync errors are not retried).
    fn sync(&self) -> Result<LogSequence, StorageError>;
    /// Bytes held by all segments.
    fn bytes(&self) -> u64;
}
