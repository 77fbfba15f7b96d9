//! Value: one pass over a span that tells a range server everything about each key.
//!
//! ```text
//!      time  ^          newer = the OLDEST version here
//!   limit    +  ....|...o..........     (uncertain: may have been acknowledged before the reader began)
//!            |      o
//!   at       +  ....|..............
//!            |      o  <- visible
//!            |      o
//! ```
//!
//! The oldest version above `at` is the one to report: restarting above it is the least a restart must do, and if it
//! is not uncertain after all (by its `written_at`), younger ones have to be looked at by [`crate::mvcc::newest_in`];
//! the caller that has no uncertainty passes `limit = at` and gets none.
//!
//! Cost: proportional to the keys met, not to their versions: after a few steps over versions nobody asked for, the
//! walk seeks. A caller limits rows and bytes by not asking for the next item; [`Scan`] reads nothing ahead of what
//! it has to know.

use bytes::Bytes;
use clock::Timestamp;
use coverage::Mark;
use std::cmp::Ordering;

use crate::engine::{Direction, Items};
use crate::key::{Key, Span};
use crate::mvcc::layout::{
    after_versions, locks_span, parse_version_key, split_version_key, versions_span,
};
use crate::mvcc::read::{Cursor, STEPS_BEFORE_SEEK, get, oldest_in, version_at};
use crate::mvcc::{Intent, Version};
use crate::{Reader, Space, StorageError};

/// What a scan says about one key. At least one of the three is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScanItem {
    /// The key.
    pub key: Key,
    /// The intent on it, whatever its timestamp.
    pub intent: Option<Intent>,
    /// The newest version at or below `at`, with its commit timestamp; tombstones are versions.
    pub visible: Option<(Timestamp, Version)>,
    /// The oldest version above `at` and at or below `limit`.
    pub newer: Option<(Timestamp, Version)>,
}

/// An iterator over [`ScanItem`]s in key order, in the direction asked for. Ends after the first error.
pub struct Scan<'a> {
    reader: &'a dyn Reader,
    at: Timestamp,
    limit: Timestamp,
    direction: Direction,
    locks: Items<'a>,
    lock: Option<(Key, Intent)>,
    versions: Walk<'a>,
    version: Option<Found>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Walking,
    Done,
}

/// What the versions say about one key.
struct Found {
    key: Key,
    visible: Option<(Timestamp, Version)>,
    newer: Option<(Timestamp, Version)>,
}

enum Walk<'a> {
    Forward(Cursor<'a>),
    Reverse(ReverseCursor<'a>),
}

/// Scans `span` as of `at`, reporting versions up to `limit` (at least `at`) as newer.
pub fn scan<'a>(
    reader: &'a dyn Reader,
    span: &Span,
    at: Timestamp,
    limit: Timestamp,
    direction: Direction,
) -> Scan<'a> {
    let raw = locks_span(span);
    let versions = match direction {
        Direction::Forward => Walk::Forward(Cursor::new(reader, span)),
        Direction::Reverse => Walk::Reverse(ReverseCursor::new(reader, span)),
    };
    Scan {
        reader,
        at,
        limit: limit.max(at),
        direction,
        locks: reader.scan(Space::Locks, &raw.start, &raw.end, direction),
        lock: None,
        versions,
        version: None,
        state: State::Fresh,
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<ScanItem, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Done {
            return None;
        }
        let item = self.advance();
        if !matches!(item, Ok(Some(_))) {
            self.state = State::Done;
        }
        item.transpose()
    }
}

impl Scan<'_> {
    fn advance(&mut self) -> Result<Option<ScanItem>, StorageError> {
        if self.state == State::Fresh {
            self.state = State::Walking;
            self.next_lock()?;
        }
        if self.version.is_none() {
            self.version = self.next_found()?;
        }
        let first = match (&self.lock, &self.version) {
            (None, None) => return Ok(None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((lock, _)), Some(found)) => match self.direction {
                Direction::Forward => lock.cmp(&found.key),
                Direction::Reverse => found.key.cmp(lock),
            },
        };
        let lock = if first.is_le() { self.lock.take() } else { None };
        let found = if first.is_ge() { self.version.take() } else { None };
        if lock.is_some() {
            self.next_lock()?;
        }
        Ok(Some(joined(lock, found)))
    }

    fn next_lock(&mut self) -> Result<(), StorageError> {
        self.lock = match self.locks.next().transpose()? {
            Some((key, value)) => Some((Key::new(key), Intent::decode(value)?)),
            None => None,
        };
        Ok(())
    }

    /// The next key with something visible or newer.
    fn next_found(&mut self) -> Result<Option<Found>, StorageError> {
        match &mut self.versions {
            Walk::Forward(cursor) => next_forward(self.reader, cursor, self.at, self.limit),
            Walk::Reverse(cursor) => next_reverse(self.reader, cursor, self.at, self.limit),
        }
    }
}

fn joined(lock: Option<(Key, Intent)>, found: Option<Found>) -> ScanItem {
    match (lock, found) {
        (Some((key, intent)), Some(found)) => {
            ScanItem { key, intent: Some(intent), visible: found.visible, newer: found.newer }
        }
        (Some((key, intent)), None) => {
            ScanItem { key, intent: Some(intent), visible: None, newer: None }
        }
        (None, Some(found)) => {
            ScanItem { key: found.key, intent: None, visible: found.visible, newer: found.newer }
        }
        (None, None) => unreachable!("the caller has at least one"),
    }
}

fn next_forward(
    reader: &dyn Reader,
    cursor: &mut Cursor<'_>,
    at: Timestamp,
    limit: Timestamp,
) -> Result<Option<Found>, StorageError> {
    while let Some((raw, prefix, _)) = cursor.peek()? {
        let (key, _) = parse_version_key(&raw)?;
        let (mut visible, mut newer) = (None, None);
        let mut steps = 0;
        cursor.seek(&version_at(&prefix, limit))?;
        while let Some((_, here, ts)) = cursor.peek()? {
            if here != prefix {
                break;
            }
            if ts <= at {
                visible = Some((ts, cursor.version()?));
                cursor.seek(&after_versions(&prefix))?;
                break;
            }
            steps += 1;
            if steps > STEPS_BEFORE_SEEK {
                newer = oldest_in(reader, &key, at, limit)?;
                coverage::reached(Mark::ScanSkippedNewerVersions);
                cursor.seek(&version_at(&prefix, at))?;
            } else {
                newer = Some((ts, cursor.version()?));
                cursor.step()?;
            }
        }
        if visible.is_some() || newer.is_some() {
            return Ok(Some(Found { key, visible, newer }));
        }
    }
    Ok(None)
}

fn next_reverse(
    reader: &dyn Reader,
    cursor: &mut ReverseCursor<'_>,
    at: Timestamp,
    limit: Timestamp,
) -> Result<Option<Found>, StorageError> {
    while let Some((raw, prefix, _)) = cursor.peek()? {
        let (key, _) = parse_version_key(&raw)?;
        let (mut visible, mut newer) = (None, None);
        let mut steps = 0;
        // Oldest first: the last one at or below `at` is visible, the first one above is the newer one.
        while let Some((_, here, ts)) = cursor.peek()? {
            if here != prefix {
                break;
            }
            if ts > at {
                if ts <= limit {
                    newer = Some((ts, cursor.version()?));
                }
                break;
            }
            steps += 1;
            if steps > STEPS_BEFORE_SEEK {
                visible = get(reader, &key, at)?;
                newer = oldest_in(reader, &key, at, limit)?;
                break;
            }
            visible = Some((ts, cursor.version()?));
            cursor.step()?;
        }
        cursor.seek_before(&prefix)?;
        if visible.is_some() || newer.is_some() {
            return Ok(Some(Found { key, visible, newer }));
        }
    }
    Ok(None)
}

/// Walks versions backward, one item ahead.
struct ReverseCursor<'a> {
    reader: &'a dyn Reader,
    items: Items<'a>,
    head: Option<(Bytes, Bytes)>,
    started: bool,
    start: Bytes,
}

impl<'a> ReverseCursor<'a> {
    fn new(reader: &'a dyn Reader, span: &Span) -> ReverseCursor<'a> {
        let raw = versions_span(span);
        let items = reader.scan(Space::Versions, &raw.start, &raw.end, Direction::Reverse);
        ReverseCursor { reader, items, head: None, started: false, start: raw.start }
    }

    fn peek(&mut self) -> Result<Option<(Bytes, Bytes, Timestamp)>, StorageError> {
        if !self.started {
            self.step()?;
        }
        let Some((raw, _)) = &self.head else { return Ok(None) };
        let (prefix, ts) = split_version_key(raw)?;
        Ok(Some((raw.clone(), prefix, ts)))
    }

    fn version(&self) -> Result<Version, StorageError> {
        let (_, value) = self.head.as_ref().expect("the caller peeked");
        Version::decode(value.clone())
    }

    fn step(&mut self) -> Result<(), StorageError> {
        self.started = true;
        self.head = self.items.next().transpose()?;
        Ok(())
    }

    /// Goes to the last item before every version under `prefix`.
    fn seek_before(&mut self, prefix: &Bytes) -> Result<(), StorageError> {
        for _ in 0..STEPS_BEFORE_SEEK {
            match &self.head {
                Some((key, _)) if key >= prefix => self.step()?,
                Some(_) | None => return Ok(()),
            }
        }
        if self.head.as_ref().is_some_and(|(key, _)| key >= prefix) {
            self.items = self.reader.scan(Space::Versions, &self.start, prefix, Direction::Reverse);
            self.step()?;
        }
        Ok(())
    }
}
