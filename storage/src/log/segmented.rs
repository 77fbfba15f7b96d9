//! Driver: the log itself. One stream of frames over recycled, pre-allocated segments; one write and one sync for all
//! batches that came together.
//!
//! ```text
//!   append (any thread)  ->  index + pending frames  (short lock: `inner`)
//!   sync   (log syncer)  ->  takes pending, writes, fdatasync  (long lock: `writer`; readers and appenders go on)
//!   reads                ->  index under `inner`; the file without a lock
//! ```
//!
//! Lock order: `writer` or `maker`, then `inner`. No I/O under `inner`, but for reading a bounded amount of old
//! entries that are rewritten.
//!
//! INVARIANT: a frame is in the index as soon as it is in pending, and its entries are cached until it has been
//! written. Frames reach the file in the order of their sequence; a segment's header is durable before its first
//! frame is written, and all frames of older segments before that header. The first failed write or sync is final:
//! what is on disk is unknown, and the node must stop.
//!
//! Space: when segments hold much more than is live, each append carries some of the oldest segment's live entries to
//! the end of the log, at most [`LogOptions::rewrite_bytes_per_append`]; a segment without live entries is recycled.

use bytes::Bytes;
use coverage::Mark;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::StorageError;
use crate::log::file::{LogDir, read_exact};
use crate::log::frame::{
    ALIGN, FRAME_HEADER_BYTES, FRAMES_AT, FrameHeader, PAYLOAD_BYTES_MAX, SegmentHeader, seal,
};
use crate::log::index::{Cached, FrameAt, Index, Place};
use crate::log::record::{OVERHEAD_BYTES, Placed, Record};
use crate::log::recover::{self, Recovered, create_file, write_header};
use crate::log::segment::{FreeFile, SegmentFile, Segments};
use crate::log::{
    Entry, GroupState, Log, LogBatch, LogGroup, LogIndex, LogOp, LogReader, LogSequence, Term,
};

/// How often a read looks again for an entry that moved while it was being read.
const READ_ATTEMPTS: usize = 8;
/// Segments below which nothing is rewritten.
const SEGMENTS_MIN: usize = 4;
/// Free files kept.
const POOL_FILES_MAX: usize = 2;

/// Sizes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogOptions {
    /// Bytes of a segment file. A batch that does not fit gets a larger one of its own.
    pub segment_bytes: u64,
    /// Bytes of recent entries kept in memory.
    pub cache_bytes: usize,
    /// Bytes of old entries that one append carries on, at most (but at least one entry).
    pub rewrite_bytes_per_append: usize,
    /// Bytes appended and not written that make the next append write (not sync) first.
    pub pending_bytes_max: usize,
    /// Chaos only: a known mistake made on purpose, so that a harness can show that it would notice.
    pub planted: Option<PlantedBug>,
}

/// A mistake that has broken real systems, brought back on purpose. Never set outside of chaos and tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlantedBug {
    /// S02: damage to what was durable counts as a torn tail.
    DamageIsTail,
    /// S06: what is read is not checked.
    ChecksumsIgnored,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment_bytes: 64 << 20,
            cache_bytes: 32 << 20,
            rewrite_bytes_per_append: 256 << 10,
            pending_bytes_max: 32 << 20,
            planted: None,
        }
    }
}

/// The segmented log.
pub struct SegmentedLog {
    dir: Arc<dyn LogDir>,
    options: LogOptions,
    recovered: Recovered,
    /// Held while a file is made, so that two threads do not make one each.
    maker: Mutex<()>,
    writer: Mutex<Writer>,
    inner: Mutex<Inner>,
}

/// What only the one who writes may touch.
struct Writer {
    /// The file written to last, while it has writes that are not synced.
    dirty: Option<SegmentFile>,
}

struct Inner {
    index: Index,
    segments: Segments,
    pending: Vec<Chunk>,
    pending_bytes: usize,
    appended: u64,
    written: u64,
    synced: u64,
    failed: Option<StorageError>,
    /// Groups whose old entries cannot be read: their segments stay until the group is removed.
    damaged: BTreeSet<LogGroup>,
}

/// Frames to be written at one place.
struct Chunk {
    file: SegmentFile,
    /// To be written first, when these are the first frames of their segment.
    header: Option<SegmentHeader>,
    offset: u64,
    bytes: Vec<u8>,
}

impl SegmentedLog {
    /// Opens the log in `dir`, or begins one. Errors: `Corrupt` when something that was durable is damaged (the
    /// node's replicas must be rebuilt), `Foreign` for another format, `Full`, `Io`.
    pub fn open(dir: Arc<dyn LogDir>, options: LogOptions) -> Result<SegmentedLog, StorageError> {
        let segment_bytes = options.segment_bytes.max(2 * FRAMES_AT).next_multiple_of(ALIGN);
        let options = LogOptions { segment_bytes, ..options };
        let opened = recover::open(&*dir, &options)?;
        let last = opened.recovered.last_sequence;
        let inner = Inner {
            index: opened.index,
            segments: opened.segments,
            pending: Vec::new(),
            pending_bytes: 0,
            appended: last,
            written: last,
            synced: last,
            failed: None,
            damaged: BTreeSet::new(),
        };
        Ok(SegmentedLog {
            dir,
            options,
            recovered: opened.recovered,
            maker: Mutex::new(()),
            writer: Mutex::new(Writer { dirty: None }),
            inner: Mutex::new(inner),
        })
    }

    /// What was found when the log was opened.
    pub fn recovered(&self) -> Recovered {
        self.recovered
    }

    /// Last batch appended, and last batch durable.
    pub fn sequences(&self) -> (LogSequence, LogSequence) {
        let inner = self.inner.lock();
        (LogSequence(inner.appended), LogSequence(inner.synced))
    }

    /// Makes the next segment's file ahead of need, when the current segment is half full and no file is free. Making
    /// one writes [`LogOptions::segment_bytes`] of zeros: a driver calls this now and then from a thread where that
    /// hurts nobody; without it an append does the same when it must. Appends, syncs and reads go on meanwhile.
    /// Errors: `Full`, `Io`; neither hurts the log.
    pub fn prepare(&self) -> Result<(), StorageError> {
        let is_prepared = {
            let inner = self.inner.lock();
            let half = inner.segments.current_file().bytes / 2;
            let usable = self.options.segment_bytes;
            inner.segments.pool.iter().any(|free| free.file.bytes >= usable)
                || inner.segments.tail < half
        };
        if is_prepared { Ok(()) } else { self.make_room(self.options.segment_bytes) }
    }

    /// Makes a free file of at least `segment_bytes`, unless there is one.
    fn make_room(&self, segment_bytes: u64) -> Result<(), StorageError> {
        let _maker = self.maker.lock();
        let number = {
            let mut inner = self.inner.lock();
            if inner.segments.pool.iter().any(|free| free.file.bytes >= segment_bytes) {
                return Ok(());
            }
            inner.segments.next_file += 1;
            inner.segments.next_file - 1
        };
        let file = create_file(&*self.dir, number, segment_bytes)?;
        let mut inner = self.inner.lock();
        // It never held a segment: nothing to wait for.
        inner.segments.pool.push(FreeFile { file, since: 0 });
        Ok(())
    }

    /// Writes what is pending, and syncs when told to.
    fn write_pending(&self, durability: Durability) -> Result<LogSequence, StorageError> {
        let mut writer = self.writer.lock();
        let (chunks, upto) = {
            let mut inner = self.inner.lock();
            inner.check_failed()?;
            if durability == Durability::Synced && inner.synced == inner.appended {
                return Ok(LogSequence(inner.synced));
            }
            inner.pending_bytes = 0;
            (std::mem::take(&mut inner.pending), inner.appended)
        };
        let result = writer.write(chunks).and_then(|()| match durability {
            Durability::Synced => writer.sync(),
            Durability::Written => Ok(()),
        });
        let mut inner = self.inner.lock();
        if let Err(error) = result {
            tracing::error!(%error, "log write failed");
            coverage::reached(Mark::LogWriteFailed);
            inner.failed = Some(error.clone());
            return Err(error);
        }
        inner.written = upto;
        if durability == Durability::Synced {
            inner.synced = upto;
            let appended = inner.appended;
            inner.segments.free_up_to(upto, appended);
        }
        inner.index.shrink_cache(self.options.cache_bytes, upto);
        let synced = inner.synced;
        let excess = inner.segments.take_excess(POOL_FILES_MAX, self.options.segment_bytes, synced);
        drop(inner);
        for file in excess {
            coverage::reached(Mark::ExcessSegmentRemoved);
            // Only space is at stake, and the next start finds the file again.
            let _ = self.dir.remove(&file.name);
        }
        Ok(LogSequence(upto))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Durability {
    Written,
    Synced,
}

impl Writer {
    fn write(&mut self, chunks: Vec<Chunk>) -> Result<(), StorageError> {
        for chunk in chunks {
            if let Some(header) = chunk.header {
                // Older segments first: the header claims that they are durable.
                self.sync()?;
                write_header(&chunk.file, &header)?;
            }
            chunk.file.file.write_at(chunk.offset, &chunk.bytes)?;
            self.dirty = Some(chunk.file);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        if let Some(file) = &self.dirty {
            file.file.sync()?;
            self.dirty = None;
        }
        Ok(())
    }
}

impl Inner {
    fn check_failed(&self) -> Result<(), StorageError> {
        match self.failed.clone() {
            None => Ok(()),
            Some(error) => {
                coverage::reached(Mark::LogRefusedAfterFailure);
                Err(error)
            }
        }
    }

    /// Puts a batch into the index and into pending; the caller made sure that it fits.
    fn push(&mut self, rewrites: Vec<Record>, batch: LogBatch) -> u64 {
        let sequence = self.appended + 1;
        let (segment, offset) = (self.segments.current, self.segments.tail);
        let at = FrameAt { segment, payload_offset: offset + FRAME_HEADER_BYTES as u64, sequence };
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        for mut record in rewrites {
            record.encode(&mut frame, FRAME_HEADER_BYTES);
            self.index.apply(record, at, Cached::Yes);
        }
        for op in batch.ops {
            if let LogOp::Remove { group } = &op {
                self.damaged.remove(group);
            }
            if let Some(mut record) = self.index.resolve(op) {
                record.encode(&mut frame, FRAME_HEADER_BYTES);
                self.index.apply(record, at, Cached::Yes);
            }
        }
        let oldest = self.segments.oldest();
        seal(&mut frame, &FrameHeader { segment, sequence, synced: self.synced, oldest });
        self.segments.tail += frame.len() as u64;
        self.pending_bytes += frame.len();
        self.appended = sequence;
        self.push_frame(offset, frame);
        self.retire();
        sequence
    }

    fn push_frame(&mut self, offset: u64, frame: Vec<u8>) {
        let file = self.segments.current_file().clone();
        match self.pending.last_mut() {
            Some(chunk)
                if chunk.file.name == file.name
                    && chunk.offset + chunk.bytes.len() as u64 == offset =>
            {
                chunk.bytes.extend_from_slice(&frame);
            }
            Some(_) | None => self.pending.push(Chunk { file, header: None, offset, bytes: frame }),
        }
    }

    fn roll(&mut self, file: SegmentFile) {
        coverage::reached(Mark::SegmentBegun);
        let header = self.segments.roll(file, self.appended + 1, FRAMES_AT);
        let file = self.segments.current_file().clone();
        self.pending.push(Chunk {
            file,
            header: Some(header),
            offset: FRAMES_AT,
            bytes: Vec::new(),
        });
    }

    fn retire(&mut self) {
        loop {
            let (oldest, _) = self.segments.live.first_key_value().expect("current is live");
            if *oldest == self.segments.current || self.index.is_needed(*oldest) {
                return;
            }
            self.segments.retire_oldest(self.appended);
        }
    }

    /// What the next append should carry on from the oldest segment: nothing while space is in order.
    fn plan_rewrites(&mut self, options: &LogOptions) -> Vec<Record> {
        let live_segments = self.index.live_bytes().div_ceil(options.segment_bytes);
        let enough = SEGMENTS_MIN.max(2 * usize::try_from(live_segments).unwrap_or(usize::MAX / 2));
        if self.segments.live.len() <= enough {
            return Vec::new();
        }
        let (oldest, file) = self.segments.live.first_key_value().expect("current is live");
        let (oldest, file) = (*oldest, file.clone());
        let mut left = options.rewrite_bytes_per_append;
        let mut records = Vec::new();
        for group in self.index.groups_in(oldest) {
            if self.damaged.contains(&group) {
                continue;
            }
            let (mut rewrite, places) = self.index.rewrite_of(group, oldest);
            for (index, place) in places {
                if place.bytes > left && !(records.is_empty() && rewrite.entries.is_empty()) {
                    left = 0;
                    break;
                }
                left = left.saturating_sub(place.bytes + OVERHEAD_BYTES);
                match read_place(&file, group, &place, options.planted) {
                    Ok(data) => rewrite
                        .entries
                        .push(Placed { entry: Entry { term: place.term, index, data }, at: 0 }),
                    Err(error) => {
                        tracing::error!(%error, group = group.0, "old log entry unreadable");
                        self.damaged.insert(group);
                        break;
                    }
                }
            }
            left =
                left.saturating_sub(rewrite.state.as_ref().map_or(0, Bytes::len) + OVERHEAD_BYTES);
            records.push(Record::Rewrite(rewrite));
            coverage::reached(Mark::EntriesCarriedOn);
            if left == 0 {
                break;
            }
        }
        records
    }
}

impl LogReader for SegmentedLog {
    fn groups(&self) -> Vec<(LogGroup, GroupState)> {
        self.inner.lock().index.groups()
    }

    fn entries(
        &self,
        group: LogGroup,
        first: LogIndex,
        last: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let places: Vec<(LogIndex, Place, Option<SegmentFile>)> = {
            let inner = self.inner.lock();
            let places = inner.index.places(group, first, last, bytes_max);
            let with_file = |(index, place): (LogIndex, Place)| {
                let file = inner.segments.live.get(&place.segment).cloned();
                (index, place, file)
            };
            places.into_iter().map(with_file).collect()
        };
        let mut entries = Vec::with_capacity(places.len());
        for (index, place, file) in places {
            match self.read_entry(group, index, place, file)? {
                Some(entry) => entries.push(entry),
                // Truncated meanwhile.
                None => break,
            }
        }
        Ok(entries)
    }

    fn term(&self, group: LogGroup, index: LogIndex) -> Option<Term> {
        self.inner.lock().index.term(group, index)
    }
}

impl SegmentedLog {
    /// Reads one entry. The segment may be recycled meanwhile, if the entry was moved or dropped: then what was read
    /// does not check, and the index says so.
    fn read_entry(
        &self,
        group: LogGroup,
        index: LogIndex,
        mut place: Place,
        mut file: Option<SegmentFile>,
    ) -> Result<Option<Entry>, StorageError> {
        for _ in 0..READ_ATTEMPTS {
            let read = match (&place.cached, &file) {
                (Some(data), _) => Ok(data.clone()),
                (None, Some(file)) => {
                    coverage::reached(Mark::EntryReadFromFile);
                    read_place(file, group, &place, self.options.planted)
                }
                (None, None) => Err(unreadable(group, "its segment is gone")),
            };
            let error = match read {
                Ok(data) => return Ok(Some(Entry { term: place.term, index, data })),
                Err(error) => error,
            };
            let inner = self.inner.lock();
            match inner.index.place(group, index) {
                None => {
                    coverage::reached(Mark::EntryGoneWhileRead);
                    return Ok(None);
                }
                Some(now) if (now.segment, now.offset) == (place.segment, place.offset) => {
                    return Err(error);
                }
                Some(now) => {
                    place = now.clone();
                    coverage::reached(Mark::EntryMovedWhileRead);
                    file = inner.segments.live.get(&place.segment).cloned();
                }
            }
        }
        Err(unreadable(group, "it keeps moving"))
    }
}

impl Log for SegmentedLog {
    fn append(&self, batch: LogBatch) -> Result<LogSequence, StorageError> {
        let batch_bytes = bytes_max(&batch);
        if batch_bytes > PAYLOAD_BYTES_MAX / 2 {
            return Err(StorageError::Full(format!("a log batch of {batch_bytes} bytes")));
        }
        loop {
            let mut inner = self.inner.lock();
            inner.check_failed()?;
            if inner.pending_bytes > self.options.pending_bytes_max {
                coverage::reached(Mark::PendingWrittenEarly);
                drop(inner);
                self.write_pending(Durability::Written)?;
                continue;
            }
            let rewrites = inner.plan_rewrites(&self.options);
            let frame_bytes = (batch_bytes + rewrite_bytes(&rewrites)) as u64 + 2 * ALIGN;
            if !inner.segments.fits(frame_bytes) {
                let segment_bytes = self.options.segment_bytes.max(FRAMES_AT + frame_bytes);
                let Some(file) = inner.segments.take_free(segment_bytes) else {
                    coverage::reached(Mark::SegmentMadeForAppend);
                    drop(inner);
                    self.make_room(segment_bytes)?;
                    continue;
                };
                inner.roll(file);
            }
            // An append that panics (a caller's error) leaves the index ahead of the file: nobody may go on then.
            inner.failed = Some(StorageError::Io("an append was not finished".into()));
            let sequence = inner.push(rewrites, batch);
            inner.failed = None;
            return Ok(LogSequence(sequence));
        }
    }

    fn sync(&self) -> Result<LogSequence, StorageError> {
        self.write_pending(Durability::Synced)
    }

    fn bytes(&self) -> u64 {
        self.inner.lock().segments.bytes()
    }
}

fn read_place(
    file: &SegmentFile,
    group: LogGroup,
    place: &Place,
    planted: Option<PlantedBug>,
) -> Result<Bytes, StorageError> {
    if let Some(data) = &place.cached {
        return Ok(data.clone());
    }
    let data = read_exact(&*file.file, place.offset, place.bytes)?;
    let checked = planted != Some(PlantedBug::ChecksumsIgnored);
    if checked && crc32c::crc32c(&data) != place.crc {
        return Err(unreadable(group, "its checksum differs"));
    }
    Ok(data.into())
}

fn unreadable(group: LogGroup, why: &str) -> StorageError {
    StorageError::Corrupt(format!("log entry of group {}: {why}", group.0))
}

/// Most bytes that the frame of `batch` takes, but for alignment.
fn bytes_max(batch: &LogBatch) -> usize {
    let op_bytes = |op: &LogOp| match op {
        LogOp::Append { entries, .. } => {
            entries.iter().map(|entry| entry.data.len() + OVERHEAD_BYTES).sum()
        }
        LogOp::State { state, .. } => state.len(),
        LogOp::Truncate { .. } | LogOp::Remove { .. } => 0,
    };
    let ops: usize = batch.ops.iter().map(|op| op_bytes(op) + OVERHEAD_BYTES).sum();
    FRAME_HEADER_BYTES + ops
}

fn rewrite_bytes(records: &[Record]) -> usize {
    let bytes = |record: &Record| match record {
        Record::Rewrite(rewrite) => {
            let entries: usize =
                rewrite.entries.iter().map(|p| p.entry.data.len() + OVERHEAD_BYTES).sum();
            entries + rewrite.state.as_ref().map_or(0, Bytes::len) + OVERHEAD_BYTES
        }
        Record::Append { .. }
        | Record::State { .. }
        | Record::Truncate { .. }
        | Record::Reset { .. }
        | Record::Remove { .. } => 0,
    };
    records.iter().map(bytes).sum()
}
