//! Driver: the state engine on RocksDB.
//!
//! One column family per [`Space`]. Writes go to memtables only, without RocksDB's log: the Raft log is the only one,
//! and rebuilds what a crash takes. So flushes are *atomic over all column families*, those that RocksDB starts by
//! itself included; what a crash leaves is a prefix of the batches. A clean close flushes.
//!
//! Reads of one key's versions go through a prefix bloom filter: the prefix is the version key without its timestamp.
//! RocksDB answers wrongly when a scan over many prefixes uses such a filter, so every scan says which of the two it
//! is (see `read_options`).
//!
//! HAZARD: memtable, filter and compaction settings decide speed alone, but `set_atomic_flush` and the absence of a
//! log decide what survives; they are set in one place each.
//!
//! Honest limits: whole-range removal is RocksDB's DeleteRange, good for some hundreds of ranges between compactions,
//! not for many thousands; ingestion of snapshot files is not used yet.

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRawIteratorWithThreadMode, ErrorKind, FlushOptions, LogLevel, Options, ReadOptions,
    SliceTransform, SnapshotWithThreadMode, WriteBatch as RocksBatch, WriteOptions,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::StorageError;
use crate::engine::{Direction, Engine, Items, Op, Reader, Snapshot, Space, WriteBatch};
use crate::stamp::Stamp;

/// First line of the stamp: kind and format of what is in the directory.
const KIND: &str = "meridian-state 1";
const TS_BYTES: usize = 8;
/// Terminator and timestamp.
const VERSION_KEY_BYTES_MIN: usize = 2 + TS_BYTES;
const BLOOM_BITS: f64 = 10.0;
const BLOCK_BYTES: usize = 16 << 10;

/// Sizes. The defaults fit several nodes on one small machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RocksOptions {
    /// Cache of uncompressed blocks, indexes and filters, in bytes.
    pub cache_bytes: usize,
    /// All memtables together, in bytes; reaching it starts a flush.
    pub memtable_bytes: usize,
    /// Threads for flush and compaction.
    pub background_jobs: i32,
}

impl Default for RocksOptions {
    fn default() -> RocksOptions {
        RocksOptions { cache_bytes: 128 << 20, memtable_bytes: 64 << 20, background_jobs: 2 }
    }
}

/// The production state engine.
pub struct RocksEngine {
    db: Arc<DB>,
    unflushed_bytes: AtomicU64,
}

impl RocksEngine {
    /// Opens the engine in `dir`, or makes one, for the cluster with this id. Blocks while RocksDB reads its files.
    /// Errors: `Foreign` when the directory is in use, of another cluster or version, or not an engine's; `Corrupt`;
    /// `Full`; `Io`.
    pub fn open(
        dir: impl AsRef<Path>,
        cluster: u128,
        options: RocksOptions,
    ) -> Result<RocksEngine, StorageError> {
        Stamp::open(dir.as_ref(), KIND)?.claim(&format!("cluster {cluster:032x}"))?;
        let cache = Cache::new_lru_cache(options.cache_bytes);
        let families = Space::ALL.map(|space| {
            ColumnFamilyDescriptor::new(name(space), family_options(space, options, &cache))
        });
        // RocksDB's own files live beside the stamp in a directory of their own: theirs to list and to remove.
        let path = dir.as_ref().join("db");
        let db = DB::open_cf_descriptors(&database_options(options), path, families)
            .map_err(|error| engine_error(&error))?;
        Ok(RocksEngine { db: Arc::new(db), unflushed_bytes: AtomicU64::new(0) })
    }

    /// Bytes of all table files.
    pub fn disk_bytes(&self) -> u64 {
        let bytes = |space| {
            let family = family(&self.db, space);
            let property = rocksdb::properties::TOTAL_SST_FILES_SIZE;
            self.db.property_int_value_cf(&family, property).ok().flatten().unwrap_or(0)
        };
        Space::ALL.into_iter().map(bytes).sum()
    }

    /// Whether RocksDB holds writes back because compaction is behind: the caller's cue to admit less.
    pub fn is_stalled(&self) -> bool {
        let value = |property| self.db.property_int_value(property).ok().flatten().unwrap_or(0);
        value(rocksdb::properties::IS_WRITE_STOPPED) > 0
            || value(rocksdb::properties::ACTUAL_DELAYED_WRITE_RATE) > 0
    }
}

impl Reader for RocksEngine {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        get(&self.db, space, key, ReadOptions::default())
    }

    fn scan(&self, space: Space, start: &[u8], end: &[u8], direction: Direction) -> Items<'_> {
        let Some(options) = read_options(space, start, end, direction) else {
            return Box::new(std::iter::empty());
        };
        let raw = self.db.raw_iterator_cf_opt(&family(&self.db, space), options);
        Box::new(Walk { raw, start: Start::At(Bytes::copy_from_slice(start)), direction })
    }
}

impl Engine for RocksEngine {
    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(OwnedSnapshot::new(Arc::clone(&self.db)))
    }

    fn write(&self, batch: &WriteBatch) -> Result<(), StorageError> {
        let mut raw = RocksBatch::default();
        for op in &batch.ops {
            match op {
                Op::Put { space, key, value } => {
                    raw.put_cf(&family(&self.db, *space), key, value);
                }
                Op::Delete { space, key } => raw.delete_cf(&family(&self.db, *space), key),
                // RocksDB refuses a span that ends before it starts; here it is empty.
                Op::DeleteSpan { space, start, end } if start < end => {
                    raw.delete_range_cf(&family(&self.db, *space), start, end);
                }
                Op::DeleteSpan { .. } => {}
            }
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(raw, &options).map_err(|error| engine_error(&error))?;
        self.unflushed_bytes.fetch_add(batch.bytes() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn flush(&self) -> Result<(), StorageError> {
        let before = self.unflushed_bytes.load(Ordering::Relaxed);
        let families = Space::ALL.map(|space| family(&self.db, space));
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db
            .flush_cfs_opt(&families.each_ref(), &options)
            .map_err(|error| engine_error(&error))?;
        self.unflushed_bytes.fetch_sub(before, Ordering::Relaxed);
        Ok(())
    }

    fn unflushed_bytes(&self) -> u64 {
        self.unflushed_bytes.load(Ordering::Relaxed)
    }
}

/// A RocksDB snapshot together with the database it is of.
struct OwnedSnapshot {
    /// Released before `db`: fields drop in this order. Its lifetime is not really static, but that of `db`.
    snapshot: SnapshotWithThreadMode<'static, DB>,
    db: Arc<DB>,
}

impl OwnedSnapshot {
    #[allow(
        unsafe_code,
        reason = "a snapshot borrows its database; the engine hands out both as one"
    )]
    fn new(db: Arc<DB>) -> OwnedSnapshot {
        let borrowed = db.snapshot();
        // SAFETY: the snapshot holds a reference to the `DB` inside the `Arc`, whose address does not change while
        // `self.db` lives; `snapshot` is declared before `db`, so it is dropped first; it is never moved out of the
        // struct nor handed out with the static lifetime (all reads go through `&self`).
        let snapshot = unsafe {
            std::mem::transmute::<SnapshotWithThreadMode<'_, DB>, SnapshotWithThreadMode<'static, DB>>(
                borrowed,
            )
        };
        OwnedSnapshot { snapshot, db }
    }
}

impl Reader for OwnedSnapshot {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        get(&self.db, space, key, options)
    }

    fn scan(&self, space: Space, start: &[u8], end: &[u8], direction: Direction) -> Items<'_> {
        let Some(mut options) = read_options(space, start, end, direction) else {
            return Box::new(std::iter::empty());
        };
        options.set_snapshot(&self.snapshot);
        let raw = self.db.raw_iterator_cf_opt(&family(&self.db, space), options);
        Box::new(Walk { raw, start: Start::At(Bytes::copy_from_slice(start)), direction })
    }
}

impl Snapshot for OwnedSnapshot {}

/// An iterator that has not been placed yet, or has.
enum Start {
    At(Bytes),
    Placed,
    Ended,
}

struct Walk<'a> {
    raw: DBRawIteratorWithThreadMode<'a, DB>,
    start: Start,
    direction: Direction,
}

impl Iterator for Walk<'_> {
    type Item = Result<(Bytes, Bytes), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        match (&self.start, self.direction) {
            (Start::At(start), Direction::Forward) => self.raw.seek(start),
            // The upper bound is set: its last key is the last below the end.
            (Start::At(_), Direction::Reverse) => self.raw.seek_to_last(),
            (Start::Placed, Direction::Forward) => self.raw.next(),
            (Start::Placed, Direction::Reverse) => self.raw.prev(),
            (Start::Ended, _) => return None,
        }
        self.start = Start::Placed;
        if let Some((key, value)) = self.raw.item() {
            return Some(Ok((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))));
        }
        self.start = Start::Ended;
        self.raw.status().err().map(|error| Err(engine_error(&error)))
    }
}

fn get(
    db: &DB,
    space: Space,
    key: &[u8],
    options: ReadOptions,
) -> Result<Option<Bytes>, StorageError> {
    let found = db.get_pinned_cf_opt(&family(db, space), key, &options);
    let found = found.map_err(|error| engine_error(&error))?;
    Ok(found.map(|value| Bytes::copy_from_slice(&value)))
}

/// Bounds, and the kind of scan; `None` for an empty span.
fn read_options(
    space: Space,
    start: &[u8],
    end: &[u8],
    direction: Direction,
) -> Option<ReadOptions> {
    if start >= end {
        return None;
    }
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(start);
    options.set_iterate_upper_bound(end);
    if direction == Direction::Forward && space == Space::Versions && is_of_one_key(start, end) {
        options.set_prefix_same_as_start(true);
    } else {
        options.set_total_order_seek(true);
    }
    Some(options)
}

/// Whether a span of Versions holds versions of a single key: it starts at a version and ends at one of the same key,
/// or right after the last.
fn is_of_one_key(start: &[u8], end: &[u8]) -> bool {
    if !is_version_key(start) {
        return false;
    }
    let prefix = version_prefix(start);
    if is_version_key(end) && version_prefix(end) == prefix {
        return true;
    }
    // Right after the last: the prefix's terminator 00 01 raised to 00 02.
    let (last, rest) = prefix.split_last().expect("a version prefix ends in a terminator");
    end.split_last().is_some_and(|(end_last, end_rest)| end_rest == rest && *end_last == last + 1)
}

/// Whether there is room for a terminator and a timestamp, and the terminator is there. A prefix of a version key can
/// look so as well; then what is taken for its prefix is a cut inside it, equal for keys that share it, which is all
/// a filter needs.
fn is_version_key(raw: &[u8]) -> bool {
    raw.len() >= VERSION_KEY_BYTES_MIN && version_prefix(raw).ends_with(&[0, 1])
}

fn version_prefix(raw: &[u8]) -> &[u8] {
    &raw[..raw.len() - TS_BYTES]
}

fn name(space: Space) -> &'static str {
    match space {
        Space::Versions => "versions",
        Space::Locks => "locks",
        Space::Records => "records",
        Space::Changes => "changes",
        Space::Local => "local",
    }
}

fn family(db: &DB, space: Space) -> Arc<rocksdb::BoundColumnFamily<'_>> {
    db.cf_handle(name(space)).expect("all column families are opened with the database")
}

fn database_options(options: RocksOptions) -> Options {
    let mut database = Options::default();
    database.create_if_missing(true);
    database.create_missing_column_families(true);
    // What survives a crash: all families up to the same write.
    database.set_atomic_flush(true);
    database.set_db_write_buffer_size(options.memtable_bytes);
    database.set_max_background_jobs(options.background_jobs);
    database.set_max_subcompactions(1);
    // DeleteRange wants every table open.
    database.set_max_open_files(-1);
    database.set_bytes_per_sync(1 << 20);
    database.set_avoid_unnecessary_blocking_io(true);
    database.set_max_manifest_file_size(64 << 20);
    database.set_keep_log_file_num(4);
    database.set_log_level(LogLevel::Warn);
    database.set_stats_dump_period_sec(0);
    database
}

fn family_options(space: Space, options: RocksOptions, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(BLOCK_BYTES);
    table.set_format_version(5);
    table.set_bloom_filter(BLOOM_BITS, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut family = Options::default();
    family.set_level_compaction_dynamic_level_bytes(true);
    family.set_compression_type(DBCompressionType::Lz4);
    // The limit over all memtables starts flushes; one family's own must not come before it too often.
    family.set_write_buffer_size(options.memtable_bytes);
    family.set_max_write_buffer_number(4);
    match space {
        Space::Versions => {
            family.set_prefix_extractor(SliceTransform::create(
                "meridian.version.1",
                version_prefix,
                Some(is_version_key),
            ));
            table.set_whole_key_filtering(false);
            family.set_memtable_prefix_bloom_ratio(0.1);
        }
        // Locks come and go: compact early, so that scans do not wade through their tombstones.
        Space::Locks => {
            family.set_compression_type(DBCompressionType::None);
            family.set_level_zero_file_num_compaction_trigger(2);
        }
        Space::Records | Space::Changes | Space::Local => {}
    }
    family.set_block_based_table_factory(&table);
    family
}

fn engine_error(error: &rocksdb::Error) -> StorageError {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Corruption => StorageError::Corrupt(text),
        ErrorKind::IOError if text.contains("No space left") => StorageError::Full(text),
        ErrorKind::IOError if text.contains("lock") && text.contains("LOCK") => {
            StorageError::Foreign(format!("in use by another process: {text}"))
        }
        ErrorKind::InvalidArgument if text.contains("olumn families not opened") => {
            StorageError::Foreign(text)
        }
        ErrorKind::NotFound
        | ErrorKind::NotSupported
        | ErrorKind::InvalidArgument
        | ErrorKind::IOError
        | ErrorKind::MergeInProgress
        | ErrorKind::Incomplete
        | ErrorKind::ShutdownInProgress
        | ErrorKind::TimedOut
        | ErrorKind::Aborted
        | ErrorKind::Busy
        | ErrorKind::Expired
        | ErrorKind::TryAgain
        | ErrorKind::CompactionTooLarge
        | ErrorKind::ColumnFamilyDropped
        | ErrorKind::Unknown => StorageError::Io(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::mvcc::layout::{after_versions, version_key, version_prefix as prefix_of};
    use clock::Timestamp;

    #[test]
    fn only_spans_of_one_key_use_the_prefix_filter() {
        let key = Key::new(&b"k\0"[..]);
        let at = |ts| version_key(&key, Timestamp::from_raw(ts));
        assert!(is_of_one_key(&at(9), &at(3)));
        assert!(is_of_one_key(&at(9), &after_versions(&prefix_of(&key))));
        let other = version_key(&Key::new(&b"l"[..]), Timestamp::from_raw(3));
        assert!(!is_of_one_key(&at(9), &other));
        assert!(!is_of_one_key(&prefix_of(&key), &prefix_of(&Key::new(&b"z"[..]))));
        assert!(!is_of_one_key(b"", &other));
    }
}
