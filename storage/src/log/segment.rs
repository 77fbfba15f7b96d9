//! Value: the segments of a log and their files: which is current, which are live, which wait to be free, which are
//! free.
//!
//! ```text
//!   live:  [oldest .. current]      retired: nothing live is charged, but that is not durable yet      pool: free files
//! ```
//!
//! INVARIANT: segments retire oldest first, so that what is retained is always a suffix of the log's history. A
//! retired segment goes to the pool only when every frame up to the one that emptied it is durable.

use coverage::Mark;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::log::file::LogFile;
use crate::log::frame::{SegmentHeader, Slot};

/// A file that may hold a segment.
#[derive(Clone)]
pub(crate) struct SegmentFile {
    pub(crate) name: String,
    pub(crate) file: Arc<dyn LogFile>,
    pub(crate) bytes: u64,
    /// Where its newest header is; the next one goes to the other slot.
    pub(crate) slot: Slot,
}

/// A file that holds nothing needed.
pub(crate) struct FreeFile {
    pub(crate) file: SegmentFile,
    /// Frames after this one claim that the file's old segment is not needed. Until one of them is durable the file
    /// may be recycled (the new header claims it too), but not removed.
    pub(crate) since: u64,
}

pub(crate) struct Segments {
    pub(crate) live: BTreeMap<u64, SegmentFile>,
    /// Number, file, and the frame that must be durable first; ascending.
    pub(crate) retired: Vec<(u64, SegmentFile, u64)>,
    pub(crate) pool: Vec<FreeFile>,
    /// The one being appended to.
    pub(crate) current: u64,
    /// Where its next frame goes.
    pub(crate) tail: u64,
    /// Number of the next file.
    pub(crate) next_file: u64,
}

impl Segments {
    pub(crate) fn current_file(&self) -> &SegmentFile {
        self.live.get(&self.current).expect("the current segment is live")
    }

    /// Whether a frame of `bytes` fits the current segment.
    pub(crate) fn fits(&self, bytes: u64) -> bool {
        self.tail + bytes <= self.current_file().bytes
    }

    /// The oldest segment that is not known to be durably unneeded.
    pub(crate) fn oldest(&self) -> u64 {
        let retired = self.retired.first().map(|(number, ..)| *number);
        let live = self.live.first_key_value().map(|(number, _)| *number);
        retired.or(live).expect("the current segment is live")
    }

    /// Takes a free file that holds at least `bytes`.
    pub(crate) fn take_free(&mut self, bytes: u64) -> Option<SegmentFile> {
        let place = self.pool.iter().position(|free| free.file.bytes >= bytes)?;
        Some(self.pool.remove(place).file)
    }

    /// Makes `file` the current segment; returns its header, to be written before any of its frames.
    pub(crate) fn roll(&mut self, mut file: SegmentFile, first: u64, tail: u64) -> SegmentHeader {
        let number = self.current + 1;
        let header = SegmentHeader { number, previous: self.current, oldest: self.oldest(), first };
        file.slot = file.slot.other();
        self.live.insert(number, file);
        self.current = number;
        self.tail = tail;
        header
    }

    /// Retires the oldest live segment, which the frame `sequence` emptied.
    pub(crate) fn retire_oldest(&mut self, sequence: u64) {
        let (number, file) = self.live.pop_first().expect("the current segment is live");
        coverage::reached(Mark::SegmentRetired);
        assert!(number != self.current, "the current segment {number} does not retire");
        self.retired.push((number, file, sequence));
    }

    /// Moves to the pool what frames up to `synced` emptied; `appended` is the last frame made so far.
    pub(crate) fn free_up_to(&mut self, synced: u64, appended: u64) {
        let count = self.retired.iter().take_while(|(.., sequence)| *sequence <= synced).count();
        let free = |(_, file, _)| FreeFile { file, since: appended };
        self.pool.extend(self.retired.drain(..count).map(free));
    }

    /// Takes out of the pool what may be removed and is of no use: files below `usable_bytes`, and all over `keep`.
    pub(crate) fn take_excess(
        &mut self,
        keep: usize,
        usable_bytes: u64,
        synced: u64,
    ) -> Vec<SegmentFile> {
        let (mut excess, mut kept) = (Vec::new(), Vec::new());
        for free in self.pool.drain(..) {
            let is_wanted = kept.len() < keep && free.file.bytes >= usable_bytes;
            if is_wanted || free.since >= synced {
                kept.push(free);
            } else {
                excess.push(free.file);
            }
        }
        self.pool = kept;
        excess
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        let retired = self.retired.iter().map(|(_, file, _)| file);
        let pool = self.pool.iter().map(|free| &free.file);
        self.live.values().chain(retired).chain(pool).map(|file| file.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::file::LogDir;
    use crate::log::sim_file::SimDir;

    #[test]
    fn a_retired_segment_is_free_only_when_what_emptied_it_is_durable() {
        let dir = SimDir::new();
        let file = |name: &str| {
            let file = dir.create(name).expect("creates");
            SegmentFile { name: name.to_owned(), file, bytes: 100, slot: Slot::A }
        };
        let mut segments = Segments {
            live: BTreeMap::from([(1, file("1")), (2, file("2")), (3, file("3"))]),
            retired: Vec::new(),
            pool: Vec::new(),
            current: 3,
            tail: 0,
            next_file: 4,
        };
        segments.retire_oldest(7);
        segments.retire_oldest(9);
        segments.free_up_to(8, 9);
        assert_eq!((segments.pool.len(), segments.oldest()), (1, 2));
        assert!(segments.take_excess(0, 0, 9).is_empty(), "no frame behind 9 claims it yet");
        segments.free_up_to(9, 9);
        assert_eq!((segments.pool.len(), segments.oldest()), (2, 3));
        assert_eq!(segments.take_excess(1, 0, 10).len(), 1);
        assert_eq!(segments.take_excess(1, 200, 10).len(), 1, "too small to be of use");
    }
}
