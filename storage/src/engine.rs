//! Seam: the state engine. RocksDB in production ([`crate::rocks`]), an ordered map with volatile and durable parts
//! in the simulator ([`crate::memory`]). One script runs against both and must agree.
//!
//! State is written without a log of its own: after a crash the engine is back at its last [`Engine::flush`], and the
//! Raft log rebuilds the rest.
//!
//! INVARIANT: a [`WriteBatch`] is applied whole or not at all, over all spaces, and a flush is atomic over all
//! spaces: what survives a crash is the effect of a prefix of the batches written.

use bytes::Bytes;
use std::sync::Arc;

use crate::error::StorageError;

/// What lives apart from what. Each is its own ordered map of byte strings (a column family in RocksDB).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Space {
    /// MVCC versions: `encoded key | descending timestamp` to version. See [`crate::mvcc`].
    Versions,
    /// Intents: `key` to intent.
    Locks,
    /// Transaction records: `encoded anchor key | transaction id` to record. Belongs to the range that holds the
    /// anchor.
    Records,
    /// Changes of available tables' copies in commit order: `copy prefix | timestamp | key` to nothing.
    Changes,
    /// Node-local state, never replicated as such: applied indexes, range descriptors, the node's identity.
    Local,
}

impl Space {
    /// All of them.
    pub const ALL: [Space; 5] =
        [Space::Versions, Space::Locks, Space::Records, Space::Changes, Space::Local];
}

/// One change. `DeleteSpan` removes `[start, end)`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Set `key` to `value`.
    Put {
        /// Where.
        space: Space,
        /// Raw engine key.
        key: Bytes,
        /// Raw value.
        value: Bytes,
    },
    /// Remove `key` if it is there.
    Delete {
        /// Where.
        space: Space,
        /// Raw engine key.
        key: Bytes,
    },
    /// Remove every key from `start` (in) to `end` (out).
    DeleteSpan {
        /// Where.
        space: Space,
        /// Inclusive.
        start: Bytes,
        /// Exclusive.
        end: Bytes,
    },
}

/// Changes that take effect together, in order (a later op on the same key wins). It is what a Raft command carries:
/// `encode`/`decode` are its wire and log form (see [`crate::batch`]).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WriteBatch {
    /// In order of application.
    pub ops: Vec<Op>,
}

impl WriteBatch {
    /// An empty one.
    pub fn new() -> WriteBatch {
        WriteBatch::default()
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, space: Space, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.ops.push(Op::Put { space, key: key.into(), value: value.into() });
    }

    /// Removes `key`.
    pub fn delete(&mut self, space: Space, key: impl Into<Bytes>) {
        self.ops.push(Op::Delete { space, key: key.into() });
    }

    /// Removes `[start, end)`.
    pub fn delete_span(&mut self, space: Space, start: impl Into<Bytes>, end: impl Into<Bytes>) {
        self.ops.push(Op::DeleteSpan { space, start: start.into(), end: end.into() });
    }

    /// Appends the other's ops after this one's.
    pub fn extend(&mut self, other: WriteBatch) {
        self.ops.extend(other.ops);
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// Which way a scan goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the smallest key up.
    Forward,
    /// From the largest key down.
    Reverse,
}

/// A scan's items, in order. An error ends it.
pub type Items<'a> = Box<dyn Iterator<Item = Result<(Bytes, Bytes), StorageError>> + 'a>;

/// Reads. Implemented by engines (reading the newest state) and snapshots (reading one moment).
pub trait Reader: Send + Sync {
    /// The value of `key`. Never blocks for long. Errors: corruption, I/O; never "absent" instead of an error.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StorageError>;
    /// Keys from `start` (in) to `end` (out).
    fn scan(&self, space: Space, start: &[u8], end: &[u8], direction: Direction) -> Items<'_>;
}

/// A consistent view of one moment. Pins files: hold it briefly.
pub trait Snapshot: Reader {}

/// The state engine of a node, shared by its shards.
pub trait Engine: Reader + 'static {
    /// The state of this moment.
    fn snapshot(&self) -> Arc<dyn Snapshot>;
    /// Applies the batch: visible at once, volatile until the next flush.
    fn write(&self, batch: &WriteBatch) -> Result<(), StorageError>;
    /// Makes everything written before the call durable. May take long (a driver calls it from a thread of its own);
    /// writes go on meanwhile, and may or may not be included.
    fn flush(&self) -> Result<(), StorageError>;
    /// Bytes written since the last flush, roughly: the driver's cue to flush.
    fn unflushed_bytes(&self) -> u64;
}
