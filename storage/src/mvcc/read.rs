//! Value: reads of single keys, and the check that a read can be moved to a later time.

use bytes::Bytes;
use clock::Timestamp;
use coverage::Mark;

use crate::engine::{Direction, Items};
use crate::key::{Key, Span};
use crate::mvcc::layout::{
    after_versions, locks_span, parse_version_key, split_version_key, version_key, version_prefix,
    versions_span,
};
use crate::mvcc::{Intent, Version};
use crate::{Reader, Space, StorageError};

/// Steps to take before giving up and opening a new scan at the target: a step is cheap, a seek is not.
pub(crate) const STEPS_BEFORE_SEEK: usize = 8;

/// The newest version of `key` at or below `at`, with its commit timestamp. Tombstones are versions.
pub fn get(
    reader: &dyn Reader,
    key: &Key,
    at: Timestamp,
) -> Result<Option<(Timestamp, Version)>, StorageError> {
    let start = version_key(key, at);
    let end = after_versions(&version_prefix(key));
    first_version(reader.scan(Space::Versions, &start, &end, Direction::Forward))
}

/// The newest version of `key`.
pub fn newest(
    reader: &dyn Reader,
    key: &Key,
) -> Result<Option<(Timestamp, Version)>, StorageError> {
    get(reader, key, Timestamp::MAX)
}

/// The newest version of `key` after `after` (exclusive) and up to `upto` (inclusive): is a read at `after`
/// uncertain, can it be refreshed to `upto`?
pub fn newest_in(
    reader: &dyn Reader,
    key: &Key,
    after: Timestamp,
    upto: Timestamp,
) -> Result<Option<(Timestamp, Version)>, StorageError> {
    if after >= upto {
        return Ok(None);
    }
    let (start, end) = (version_key(key, upto), version_key(key, after));
    first_version(reader.scan(Space::Versions, &start, &end, Direction::Forward))
}

/// The oldest version of `key` after `after` (exclusive) and up to `upto` (inclusive).
pub fn oldest_in(
    reader: &dyn Reader,
    key: &Key,
    after: Timestamp,
    upto: Timestamp,
) -> Result<Option<(Timestamp, Version)>, StorageError> {
    if after >= upto {
        return Ok(None);
    }
    let (start, end) = (version_key(key, upto), version_key(key, after));
    first_version(reader.scan(Space::Versions, &start, &end, Direction::Reverse))
}

/// The intent on `key`.
pub fn get_intent(reader: &dyn Reader, key: &Key) -> Result<Option<Intent>, StorageError> {
    reader.get(Space::Locks, key.as_bytes())?.map(Intent::decode).transpose()
}

/// The intents on keys of `span`, ascending.
pub fn intents<'a>(
    reader: &'a dyn Reader,
    span: &Span,
) -> impl Iterator<Item = Result<(Key, Intent), StorageError>> + 'a {
    let raw = locks_span(span);
    reader.scan(Space::Locks, &raw.start, &raw.end, Direction::Forward).map(|item| {
        let (key, value) = item?;
        Ok((Key::new(key), Intent::decode(value)?))
    })
}

/// The first key of `span` with a version after `from` (exclusive) and up to `to` (inclusive), if there is one: then
/// a read of `span` at `from` cannot be moved to `to`. Intents are not looked at: the caller asks the lock table.
pub fn changed_in(
    reader: &dyn Reader,
    span: &Span,
    from: Timestamp,
    to: Timestamp,
) -> Result<Option<Key>, StorageError> {
    if from >= to {
        return Ok(None);
    }
    let mut cursor = Cursor::new(reader, span);
    while let Some((raw, prefix, ts)) = cursor.peek()? {
        if ts > to {
            cursor.seek(&version_at(&prefix, to))?;
        } else if ts > from {
            return Ok(Some(parse_version_key(&raw)?.0));
        } else {
            cursor.seek(&after_versions(&prefix))?;
        }
    }
    Ok(None)
}

/// A raw version key from a prefix.
pub(crate) fn version_at(prefix: &[u8], ts: Timestamp) -> Bytes {
    let mut raw = Vec::with_capacity(prefix.len() + 8);
    raw.extend_from_slice(prefix);
    raw.extend_from_slice(&(!ts.raw()).to_be_bytes());
    raw.into()
}

fn first_version(mut items: Items<'_>) -> Result<Option<(Timestamp, Version)>, StorageError> {
    let Some(item) = items.next() else { return Ok(None) };
    let (raw, value) = item?;
    let (_, ts) = split_version_key(&raw)?;
    Ok(Some((ts, Version::decode(value)?)))
}

/// Walks versions forward, one item ahead; [`Cursor::seek`] steps a little before it opens a new scan.
pub(crate) struct Cursor<'a> {
    reader: &'a dyn Reader,
    items: Items<'a>,
    head: Option<(Bytes, Bytes)>,
    started: bool,
    end: Bytes,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(reader: &'a dyn Reader, span: &Span) -> Cursor<'a> {
        let raw = versions_span(span);
        let items = reader.scan(Space::Versions, &raw.start, &raw.end, Direction::Forward);
        Cursor { reader, items, head: None, started: false, end: raw.end }
    }

    /// Raw key, key prefix and timestamp of the item under the cursor; `None` at the end.
    pub(crate) fn peek(&mut self) -> Result<Option<(Bytes, Bytes, Timestamp)>, StorageError> {
        if !self.started {
            self.step()?;
        }
        let Some((raw, _)) = &self.head else { return Ok(None) };
        let (prefix, ts) = split_version_key(raw)?;
        Ok(Some((raw.clone(), prefix, ts)))
    }

    /// The version under the cursor.
    pub(crate) fn version(&self) -> Result<Version, StorageError> {
        let (_, value) = self.head.as_ref().expect("the caller peeked");
        Version::decode(value.clone())
    }

    pub(crate) fn step(&mut self) -> Result<(), StorageError> {
        self.started = true;
        self.head = self.items.next().transpose()?;
        Ok(())
    }

    /// Goes to the first item at or after `raw`, which lies at or after the cursor.
    pub(crate) fn seek(&mut self, raw: &Bytes) -> Result<(), StorageError> {
        for _ in 0..STEPS_BEFORE_SEEK {
            match &self.head {
                Some((key, _)) if key < raw => self.step()?,
                Some(_) | None => return Ok(()),
            }
        }
        if self.head.as_ref().is_some_and(|(key, _)| key < raw) {
            coverage::reached(Mark::WalkSoughtAhead);
            self.items = self.reader.scan(Space::Versions, raw, &self.end, Direction::Forward);
            self.step()?;
        }
        Ok(())
    }
}
