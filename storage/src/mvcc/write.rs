//! Value: changes, as ops in a [`WriteBatch`]. They are evaluated once, at the leaseholder; what is replicated is the
//! batch.

use bytes::Bytes;
use clock::Timestamp;

use crate::key::{Key, Span};
use crate::mvcc::layout::{
    RawSpan, change_key, changes_span, locks_span, record_span, version_key, versions_span,
};
use crate::mvcc::{Intent, Version};
use crate::{Direction, Reader, Space, StorageError, WriteBatch};

/// Puts a committed version. For a key in a copy it also enters the copy's Changes. A version that is already there
/// at `ts` is replaced: the caller makes sure that this is only ever the same one again.
pub fn put_version(batch: &mut WriteBatch, key: &Key, ts: Timestamp, version: &Version) {
    batch.put(Space::Versions, version_key(key, ts), version.encode());
    if let Some(change) = change_key(key, ts) {
        batch.put(Space::Changes, change, Bytes::new());
    }
}

/// Removes the version of `key` at exactly `ts`, and its change. Only for collection and repair.
pub fn remove_version(batch: &mut WriteBatch, key: &Key, ts: Timestamp) {
    batch.delete(Space::Versions, version_key(key, ts));
    if let Some(change) = change_key(key, ts) {
        batch.delete(Space::Changes, change);
    }
}

/// Sets the intent on `key`, replacing the one that is there: the caller checked whose that is.
pub fn put_intent(batch: &mut WriteBatch, key: &Key, intent: &Intent) {
    batch.put(Space::Locks, key.bytes().clone(), intent.encode());
}

/// Removes the intent on `key`, whose ever it is.
pub fn remove_intent(batch: &mut WriteBatch, key: &Key) {
    batch.delete(Space::Locks, key.bytes().clone());
}

/// Removes everything a range with this span has in the replicated spaces, as few ops as can be: a replica that
/// leaves, or that is about to receive a snapshot. Reads only the Changes of copies that `span` cuts in two.
pub fn remove_span(
    reader: &dyn Reader,
    batch: &mut WriteBatch,
    span: &Span,
) -> Result<(), StorageError> {
    if span.is_empty() {
        return Ok(());
    }
    for raw in [versions_span(span), locks_span(span), record_span(span)] {
        batch.delete_span(raw.space, raw.start, raw.end);
    }
    remove_changes(reader, batch, changes_span(span))
}

fn remove_changes(
    reader: &dyn Reader,
    batch: &mut WriteBatch,
    raw: RawSpan,
) -> Result<(), StorageError> {
    if raw.start >= raw.end {
        return Ok(());
    }
    if raw.of.covers(&Span::new(Key::new(raw.start.clone()), Key::new(raw.end.clone()))) {
        batch.delete_span(Space::Changes, raw.start, raw.end);
        return Ok(());
    }
    for item in reader.scan(Space::Changes, &raw.start, &raw.end, Direction::Forward) {
        let (key, _) = item?;
        if raw.holds(&key)? {
            batch.delete(Space::Changes, key);
        }
    }
    Ok(())
}
