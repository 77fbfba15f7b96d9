//! Driver: opening a log after whatever happened to it.
//!
//! Three kinds of damage look alike, bytes that do not check, and must be told apart:
//! - a *torn tail*: frames after the last sync, of which a crash left any part. They were never acknowledged:
//!   dropped, with all behind them.
//! - *leftovers* of a file's earlier life: frames of another segment number. Never looked at.
//! - *corruption*: damage to what was durable. Never dropped: the log does not open.
//!
//! Durable is what some surviving claim says (see [`crate::log::frame`]): a frame says up to where the log was synced
//! when it was written, a segment header that all before it was. So after the first bad frame the rest of the file is
//! searched for frames that survived, and their claims are heard, though they are dropped themselves. What no claim
//! covers (the frames of the last sync before a crash) cannot be told from a torn tail; that a copy on other nodes
//! exists is the replication's business.
//!
//! After recovery the log goes on in a new segment with a number never used before, so that survivors of the torn
//! tail can never be taken for frames of the new life. What was kept of the tail is written again and synced first:
//! the process that wrote it may have died before its sync, or after a sync that failed.

use coverage::Mark;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::StorageError;
use crate::log::file::{LogDir, read_exact};
use crate::log::frame::{
    ALIGN, FRAME_HEADER_BYTES, FRAMES_AT, FrameHeader, SegmentHeader, Slot, read_frame,
    read_header, segment_hinted,
};
use crate::log::index::{Cached, FrameAt, Index};
use crate::log::record;
use crate::log::segment::{FreeFile, SegmentFile, Segments};
use crate::log::segmented::{LogOptions, PlantedBug};

const NAME_SUFFIX: &str = ".seg";
/// How much of a file the search for survivors holds in memory.
const SEARCH_BYTES: usize = 1 << 20;

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// Last batch kept; zero for a new log.
    pub last_sequence: u64,
    /// Up to here batches are known to have been synced before.
    pub synced_sequence: u64,
    /// Whether a torn tail was dropped.
    pub torn: bool,
}

/// A log, read.
pub(crate) struct Opened {
    pub(crate) index: Index,
    pub(crate) segments: Segments,
    pub(crate) recovered: Recovered,
}

/// Name of the file with this number.
pub(crate) fn file_name(number: u64) -> String {
    format!("{number:010}{NAME_SUFFIX}")
}

/// A new file of `bytes`, durable, without a segment.
pub(crate) fn create_file(
    dir: &dyn LogDir,
    number: u64,
    bytes: u64,
) -> Result<SegmentFile, StorageError> {
    let name = file_name(number);
    let file = dir.create(&name)?;
    let made = file.allocate(bytes).and_then(|()| file.sync()).and_then(|()| dir.sync());
    if let Err(error) = made {
        // A full disk must not be kept full by half a file; if this fails too, the next start removes it.
        drop(file);
        let _ = dir.remove(&name);
        return Err(error);
    }
    Ok(SegmentFile { name, file, bytes, slot: Slot::B })
}

/// Writes a segment's header and makes it durable.
pub(crate) fn write_header(file: &SegmentFile, header: &SegmentHeader) -> Result<(), StorageError> {
    file.file.write_at(file.slot.offset(), &header.encode())?;
    file.file.sync()
}

/// Reads the directory, repairs the tail, and begins a new segment.
pub(crate) fn open(dir: &dyn LogDir, options: &LogOptions) -> Result<Opened, StorageError> {
    let segment_bytes = options.segment_bytes;
    let Found { named, mut free, half_made, mut next_file } = find_files(dir, segment_bytes)?;
    let newest = named.last_key_value().map_or(0, |(number, _)| *number);
    let mut scans = scan_all(&named)?;
    let claims = claims_of(&named, &scans);
    check_files(&named, free.iter().chain(&half_made), &claims)?;
    let mut live = chain(named, &mut free, claims.oldest)?;
    scans.retain(|number, _| live.contains_key(number));
    if options.planted != Some(PlantedBug::DamageIsTail) {
        check_frames(&live, &scans, &claims)?;
    }
    let index = replay(&live, &scans)?;
    make_durable(dir, &live, &scans, claims.synced)?;
    let recovered = Recovered {
        last_sequence: last_sequence(&live, &scans),
        synced_sequence: claims.synced,
        torn: scans.last_key_value().is_some_and(|(_, scan)| scan.survivors),
    };
    for file in half_made {
        coverage::reached(Mark::HalfMadeSegmentRemoved);
        dir.remove(&file.name)?;
    }
    // An empty last segment held nothing: its file is the first to be used again.
    if scans.last_key_value().is_some_and(|(_, scan)| scan.frames.is_empty()) {
        coverage::reached(Mark::EmptySegmentFreed);
        let (_, (file, _)) = live.pop_last().expect("as many files as scans");
        free.insert(0, file);
    }
    // All that is replayed is durable now, so what it no longer needs is free; the next header says so.
    while let Some(oldest) = live.first_entry().filter(|oldest| !index.is_needed(*oldest.key())) {
        coverage::reached(Mark::SegmentFreedAtOpen);
        free.push(oldest.remove().0);
    }
    let file = match free.iter().position(|free| free.bytes >= segment_bytes) {
        Some(place) => free.remove(place),
        None => {
            next_file += 1;
            create_file(dir, next_file - 1, segment_bytes)?
        }
    };
    let live = live.into_iter().map(|(number, (file, _))| (number, file)).collect();
    let pool = free.into_iter().map(|file| FreeFile { file, since: recovered.last_sequence });
    let mut segments = Segments {
        live,
        retired: Vec::new(),
        pool: pool.collect(),
        current: newest,
        tail: FRAMES_AT,
        next_file,
    };
    begin_segment(&mut segments, file, recovered.last_sequence + 1)?;
    Ok(Opened { index, segments, recovered })
}

/// Begins the first segment of this life, with a number that no other had.
fn begin_segment(
    segments: &mut Segments,
    mut file: SegmentFile,
    first: u64,
) -> Result<(), StorageError> {
    let number = segments.current + 1;
    let previous = segments.live.last_key_value().map_or(0, |(number, _)| *number);
    let oldest = segments.live.first_key_value().map_or(number, |(number, _)| *number);
    file.slot = file.slot.other();
    write_header(&file, &SegmentHeader { number, previous, oldest, first })?;
    segments.live.insert(number, file);
    segments.current = number;
    Ok(())
}

type Named = BTreeMap<u64, (SegmentFile, SegmentHeader)>;

struct Found {
    named: Named,
    free: Vec<SegmentFile>,
    /// Files that were being made when the process died.
    half_made: Vec<SegmentFile>,
    next_file: u64,
}

fn find_files(dir: &dyn LogDir, segment_bytes: u64) -> Result<Found, StorageError> {
    let mut found =
        Found { named: BTreeMap::new(), free: Vec::new(), half_made: Vec::new(), next_file: 1 };
    for name in dir.list()? {
        let number = name.strip_suffix(NAME_SUFFIX).and_then(|number| number.parse::<u64>().ok());
        let Some(number) = number else { continue };
        found.next_file = found.next_file.max(number + 1);
        let file = dir.open(&name)?;
        let bytes = file.bytes()?;
        match read_header(&*file)? {
            Some((slot, header)) => {
                let file = SegmentFile { name, file, bytes, slot };
                if let Some((other, _)) = found.named.insert(header.number, (file, header)) {
                    let text =
                        format!("{} and another file are segment {}", other.name, header.number);
                    return Err(StorageError::Corrupt(text));
                }
            }
            None => {
                let kind =
                    if bytes < segment_bytes { &mut found.half_made } else { &mut found.free };
                kind.push(SegmentFile { name, file, bytes, slot: Slot::B });
            }
        }
    }
    Ok(found)
}

/// What a segment's file holds.
struct Scan {
    /// Offset and sequence of each good frame.
    frames: Vec<(u64, u64)>,
    /// After the last good frame.
    end: u64,
    /// Whether frames of this segment were found behind it.
    survivors: bool,
    claims: Claims,
}

/// The strongest of what was claimed.
#[derive(Clone, Copy, Default, Debug)]
struct Claims {
    synced: u64,
    oldest: u64,
}

impl Claims {
    fn hear(&mut self, other: Claims) {
        self.synced = self.synced.max(other.synced);
        self.oldest = self.oldest.max(other.oldest);
    }
}

fn scan_all(named: &Named) -> Result<BTreeMap<u64, Scan>, StorageError> {
    let newest = named.last_key_value().map(|(number, _)| *number);
    let scan_one = |(number, (file, header)): (&u64, &(SegmentFile, SegmentHeader))| {
        // Older segments are complete by the claim of the next one's header; only the newest may end in a torn tail.
        let tail = if newest == Some(*number) { Tail::Searched } else { Tail::Ignored };
        Ok((*number, scan(file, header, tail)?))
    };
    named.iter().map(scan_one).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tail {
    Searched,
    Ignored,
}

fn scan(file: &SegmentFile, header: &SegmentHeader, tail: Tail) -> Result<Scan, StorageError> {
    let mut claims = Claims { synced: header.first - 1, oldest: header.oldest };
    let (mut frames, mut end, mut sequence) = (Vec::new(), FRAMES_AT, header.first);
    while let Some(frame) = read_frame(&*file.file, end, file.bytes)? {
        if frame.header.segment != header.number || frame.header.sequence != sequence {
            break;
        }
        claims.hear(Claims { synced: frame.header.synced, oldest: frame.header.oldest });
        frames.push((end, sequence));
        end += frame.bytes();
        sequence += 1;
    }
    let survivors = match tail {
        Tail::Searched => search(file, end, |segment| segment == header.number)?,
        Tail::Ignored => Vec::new(),
    };
    for survivor in &survivors {
        claims.hear(Claims { synced: survivor.synced, oldest: survivor.oldest });
    }
    if !survivors.is_empty() {
        coverage::reached(Mark::TornTailDropped);
    }
    Ok(Scan { frames, end, survivors: !survivors.is_empty(), claims })
}

/// Headers of the valid frames at or behind `from` of such segments.
fn search(
    file: &SegmentFile,
    from: u64,
    of: impl Fn(u64) -> bool,
) -> Result<Vec<FrameHeader>, StorageError> {
    let mut found = Vec::new();
    let mut at = from;
    while at < file.bytes {
        let count = (file.bytes - at).min(SEARCH_BYTES as u64) as usize;
        let window = read_exact(&*file.file, at, count)?;
        // The window's last places are looked at again, at the beginning of the next one.
        let whole =
            if at + (count as u64) < file.bytes { count - FRAME_HEADER_BYTES } else { count };
        for place in (0..whole).step_by(ALIGN as usize) {
            if !segment_hinted(&window[place..]).is_some_and(&of) {
                continue;
            }
            let frame = read_frame(&*file.file, at + place as u64, file.bytes)?;
            found.extend(frame.map(|frame| frame.header));
        }
        at += (whole as u64).next_multiple_of(ALIGN).max(ALIGN);
    }
    Ok(found)
}

fn claims_of(named: &Named, scans: &BTreeMap<u64, Scan>) -> Claims {
    let mut claims = Claims::default();
    for scan in scans.values() {
        claims.hear(scan.claims);
    }
    // Before the first claim everything is needed.
    if claims.oldest == 0 {
        claims.oldest = named.first_key_value().map_or(0, |(number, _)| *number);
    }
    claims
}

/// The segments from the newest back to `oldest`, as each header names the one before; the other files are free.
/// Errors: `Corrupt` when one is missing.
fn chain(
    mut named: Named,
    free: &mut Vec<SegmentFile>,
    oldest: u64,
) -> Result<Named, StorageError> {
    let mut live = Named::new();
    let mut next = named.last_key_value().map(|(number, _)| *number);
    while let Some(number) = next {
        let segment = named.remove(&number).ok_or_else(|| missing(number))?;
        let previous = segment.1.previous;
        live.insert(number, segment);
        if number != oldest && previous < oldest {
            return Err(missing(oldest));
        }
        next = (number != oldest).then_some(previous);
    }
    free.extend(named.into_values().map(|(file, _)| file));
    Ok(live)
}

/// A file that holds a frame of a greater number than its header's lost its header.
///
/// The first frame tells, being the first that a new life of the file overwrites. Where it cannot be read the whole file is
/// searched: what damages a header may damage its neighbour, too.
fn check_files<'a>(
    named: &'a Named,
    free: impl Iterator<Item = &'a SegmentFile>,
    claims: &Claims,
) -> Result<(), StorageError> {
    let named = named.iter().map(|(number, (file, _))| (file, *number));
    for (file, number) in named.chain(free.map(|file| (file, 0))) {
        let lost = |segment: u64| segment > number && segment >= claims.oldest;
        let found = match read_frame(&*file.file, FRAMES_AT, file.bytes)? {
            Some(frame) => lost(frame.header.segment).then_some(frame.header),
            None => search(file, FRAMES_AT, lost)?.pop(),
        };
        if let Some(frame) = found {
            let text = format!("{}: the header of segment {} is damaged", file.name, frame.segment);
            return Err(StorageError::Corrupt(text));
        }
    }
    Ok(())
}

/// Every durable frame must be there.
fn check_frames(
    live: &Named,
    scans: &BTreeMap<u64, Scan>,
    claims: &Claims,
) -> Result<(), StorageError> {
    let mut firsts = live.values().skip(1).map(|(_, header)| header.first);
    for ((file, header), scan) in live.values().zip(scans.values()) {
        let reached = header.first + scan.frames.len() as u64;
        let durable = firsts.next().unwrap_or(claims.synced + 1);
        if reached < durable {
            let text = format!(
                "{}: batch {reached} of the log is damaged at offset {}, though batches before {durable} were synced",
                file.name, scan.end
            );
            return Err(StorageError::Corrupt(text));
        }
    }
    Ok(())
}

fn missing(segment: u64) -> StorageError {
    StorageError::Corrupt(format!("segment {segment} of the log is missing"))
}

fn last_sequence(named: &Named, scans: &BTreeMap<u64, Scan>) -> u64 {
    let last = named.values().zip(scans.values()).next_back();
    last.map_or(0, |((_, header), scan)| header.first - 1 + scan.frames.len() as u64)
}

fn replay(named: &Named, scans: &BTreeMap<u64, Scan>) -> Result<Index, StorageError> {
    let mut index = Index::default();
    let mut firsts = named.iter().skip(1).map(|(_, (_, header))| header.first);
    for ((number, (file, _)), scan) in named.iter().zip(scans.values()) {
        // Behind the next segment's first sequence lies a tail that an earlier recovery dropped.
        let end = firsts.next().unwrap_or(u64::MAX);
        for (offset, sequence) in scan.frames.iter().filter(|(_, sequence)| *sequence < end) {
            let frame = read_frame(&*file.file, *offset, file.bytes)?
                .ok_or_else(|| StorageError::Corrupt(format!("{}: unsteady read", file.name)))?;
            let at = FrameAt {
                segment: *number,
                payload_offset: offset + FRAME_HEADER_BYTES as u64,
                sequence: *sequence,
            };
            for record in record::decode(Bytes::from(frame.payload))? {
                index.apply(record, at, Cached::No);
            }
        }
    }
    index.check()?;
    Ok(index)
}

/// Makes what was read durable: names, headers and frames may have been in the operating system's memory only, left
/// by a process that died before its sync. What was kept of the last segment behind the last known sync is written
/// again first, for a sync that failed may have marked it clean.
fn make_durable(
    dir: &dyn LogDir,
    live: &Named,
    scans: &BTreeMap<u64, Scan>,
    synced: u64,
) -> Result<(), StorageError> {
    if let Some(((file, _), scan)) = live.values().zip(scans.values()).next_back() {
        let from = scan.frames.iter().find(|(_, sequence)| *sequence > synced);
        let mut at = from.map_or(scan.end, |(offset, _)| *offset);
        while at < scan.end {
            let count = (scan.end - at).min(SEARCH_BYTES as u64) as usize;
            let kept = read_exact(&*file.file, at, count)?;
            coverage::reached(Mark::TailWrittenAgain);
            file.file.write_at(at, &kept)?;
            at += count as u64;
        }
    }
    for (file, _) in live.values() {
        file.file.sync()?;
    }
    dir.sync()
}
