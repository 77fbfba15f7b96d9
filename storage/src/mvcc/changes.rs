//! Value: the feed of a copy: which keys changed, in commit order. A stream to another region reads it; the values
//! are read from the versions.

use clock::Timestamp;

use crate::key::{Key, Span};
use crate::mvcc::gc::Collected;
use crate::mvcc::layout::{COPY_PREFIX_BYTES, changes_span, parse_change};
use crate::{Direction, Reader, Space, StorageError, WriteBatch};

/// The changes of the copy with this prefix (see [`Key::copy`]) after `from` (exclusive) and up to `to` (inclusive),
/// by commit timestamp, then key; only keys of `within`, the span of the range that asks: a node may hold replicas of
/// the copy's other ranges that are behind. Panics when `copy` is not a copy's prefix.
pub fn changes<'a>(
    reader: &'a dyn Reader,
    copy: &Key,
    within: &Span,
    from: Timestamp,
    to: Timestamp,
) -> impl Iterator<Item = Result<(Timestamp, Key), StorageError>> + 'a {
    let prefix = copy.as_bytes();
    assert!(copy.copy_region().is_some() && prefix.len() == COPY_PREFIX_BYTES, "{copy} is a copy");
    let bound = |ts: Timestamp| [prefix, &ts.raw().to_be_bytes()[..]].concat();
    let start = bound(from.next());
    let end = match to {
        Timestamp::MAX => copy.prefix_end().as_bytes().to_vec(),
        _ => bound(to.next()),
    };
    // `MAX` has no next: nothing lies after it.
    let end = if from == Timestamp::MAX { start.clone() } else { end };
    let within = within.clone();
    let parsed = reader
        .scan(Space::Changes, &start, &end, Direction::Forward)
        .map(|item| parse_change(&item?.0));
    parsed.filter(move |item| item.as_ref().map_or(true, |(_, key)| within.contains(key)))
}

/// Forgets the changes of keys in `span` up to `upto` (inclusive), at most `limit` of them: every stream has
/// delivered them. The versions stay.
pub fn gc_changes(
    reader: &dyn Reader,
    span: &Span,
    upto: Timestamp,
    limit: usize,
) -> Result<Collected, StorageError> {
    let raw = changes_span(span);
    let mut batch = WriteBatch::new();
    let mut start = raw.start.clone();
    loop {
        // One copy at a time: behind `upto` the rest of a copy is skipped.
        let mut skip = None;
        for item in reader.scan(Space::Changes, &start, &raw.end, Direction::Forward) {
            let (key, _) = item?;
            let (ts, user_key) = parse_change(&key)?;
            if ts > upto {
                skip = Some(key.slice(..COPY_PREFIX_BYTES));
                break;
            }
            if !span.contains(&user_key) {
                continue;
            }
            if batch.ops.len() >= limit {
                return Ok(Collected { batch, resume: Some(user_key) });
            }
            batch.delete(Space::Changes, key);
        }
        match skip {
            Some(prefix) => start = Key::new(prefix).prefix_end().bytes().clone(),
            None => return Ok(Collected { batch, resume: None }),
        }
    }
}
