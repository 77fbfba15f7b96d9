//! Value: collection of versions that no read at or above a threshold can see.
//!
//! ```text
//!      threshold  ---------------------------------
//!                    o value: stays       x tombstone: goes, with all below
//!                    o goes               o goes
//!                    o goes               o goes
//! ```
//!
//! Under each key the newest version at or below the threshold is what a read at the threshold sees: everything older
//! goes. If that one is a tombstone it goes too, for "absent" and "deleted" read the same.
//!
//! INVARIANT: no read at or above the threshold changes, after every prefix of the ops: a tombstone is removed after
//! everything it hides, and in the last batch that touches its key. Reads below the threshold are the caller's to
//! refuse.

use clock::Timestamp;

use crate::key::{Key, Span};
use crate::mvcc::layout::{after_versions, parse_version_key};
use crate::mvcc::read::{Cursor, version_at};
use crate::mvcc::remove_version;
use crate::{Reader, StorageError, WriteBatch};

/// What one pass removes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Collected {
    /// The removals.
    pub batch: WriteBatch,
    /// Where to go on when the limit was reached: a key of the span whose collection is not finished.
    pub resume: Option<Key>,
}

/// Removals of versions of keys in `span` that are hidden at `threshold`: at most about `limit` versions (at least
/// one). Reads every key of the span, and of each the versions it removes.
pub fn gc(
    reader: &dyn Reader,
    span: &Span,
    threshold: Timestamp,
    limit: usize,
) -> Result<Collected, StorageError> {
    let mut batch = WriteBatch::new();
    let mut removed = 0;
    let mut cursor = Cursor::new(reader, span);
    while let Some((raw, prefix, ts)) = cursor.peek()? {
        if ts > threshold {
            cursor.seek(&version_at(&prefix, threshold))?;
            continue;
        }
        let (key, _) = parse_version_key(&raw)?;
        let tombstone = cursor.version()?.value.is_none();
        cursor.step()?;
        while let Some((_, here, older)) = cursor.peek()? {
            if here != prefix {
                break;
            }
            if removed >= limit.max(1) {
                return Ok(Collected { batch, resume: Some(key) });
            }
            remove_version(&mut batch, &key, older);
            removed += 1;
            cursor.step()?;
        }
        if tombstone {
            remove_version(&mut batch, &key, ts);
            removed += 1;
        }
        cursor.seek(&after_versions(&prefix))?;
        if removed >= limit.max(1) {
            return Ok(Collected { batch, resume: Some(key.next()) });
        }
    }
    Ok(Collected { batch, resume: None })
}
