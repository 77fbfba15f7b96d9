//! Ordered keys, MVCC versions and intents, the state engines, and the Raft log.
//!
//! Entry points:
//! - [`Key`], [`Span`] ([`key`]): the one keyspace and its map; [`encoding`]: how columns become ordered bytes.
//! - [`WriteBatch`] ([`engine`], [`batch`]): changes that take effect together; what a Raft command carries.
//! - [`Engine`], [`Reader`] ([`engine`]): the state engine; [`memory::MemoryEngine`] in the simulator and in tests,
//!   `rocks::RocksEngine` in production (feature `rocksdb`).
//! - [`mvcc`]: versions, intents, scans, changes, garbage collection, as functions over a reader and a batch.
//! - [`log::Log`] ([`log`]): the Raft log, the only thing a node syncs before it answers.
//!
//! Invariants: a batch is applied whole or not at all; state survives a crash as a prefix of the batches written, the
//! log as a prefix of the batches appended that contains everything synced; bytes that contradict their checksum or
//! form are `Corrupt`, never "absent".
//!
//! - [`stamp`]: whose a data directory is.
//!
//! Imports `clock` only. Imported by everything above. No clock, no randomness, no thread is used here; files only
//! behind `log::file`, in `rocks` and in `stamp`.

pub mod batch;
pub mod encoding;
pub mod engine;
pub mod error;
pub mod key;
pub mod log;
pub mod memory;
pub mod mvcc;
pub mod persistent;
#[cfg(feature = "rocksdb")]
pub mod rocks;
pub mod stamp;
pub mod varint;

pub use engine::{Direction, Engine, Items, Op, Reader, Snapshot, Space, WriteBatch};
pub use error::StorageError;
pub use key::{Key, Span};
pub use memory::MemoryEngine;
#[cfg(feature = "rocksdb")]
pub use rocks::{RocksEngine, RocksOptions};
