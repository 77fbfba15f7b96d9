//! Value: where things lie in the engine: raw keys, and the raw spans that belong to a span of the keyspace.
//!
//! A range owns a [`Span`]; snapshots and removal need the same as raw engine spans, one per space ([`raw_spans`]).
//! Three spaces sort by the user key first, so a span is one raw span. Changes sort by copy and time first: there a
//! raw span is a cover, and [`RawSpan::holds`] tells which of its entries belong.

use bytes::Bytes;
use clock::Timestamp;

use crate::encoding;
use crate::key::{COPY, Key, Span};
use crate::mvcc::TxnId;
use crate::{Space, StorageError};

/// Bytes of a copy's prefix: `\x11`, region (u16), table (u32).
pub const COPY_PREFIX_BYTES: usize = 7;
const TS_BYTES: usize = 8;
const TXN_BYTES: usize = 16;

/// Part of an engine: keys from `start` (in) to `end` (out) of one space.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawSpan {
    /// Which map.
    pub space: Space,
    /// Inclusive.
    pub start: Bytes,
    /// Exclusive.
    pub end: Bytes,
    /// What it was made from.
    pub of: Span,
}

impl RawSpan {
    /// Whether the entry at `raw`, which lies in this raw span, belongs to the span it was made from. Always true but
    /// in Changes.
    pub fn holds(&self, raw: &[u8]) -> Result<bool, StorageError> {
        match self.space {
            Space::Changes => Ok(self.of.contains(&parse_change(raw)?.1)),
            Space::Versions | Space::Locks | Space::Records | Space::Local => Ok(true),
        }
    }
}

/// Where the version of `key` at `ts` lies. A greater timestamp sorts first.
pub fn version_key(key: &Key, ts: Timestamp) -> Bytes {
    let mut raw = Vec::with_capacity(key.as_bytes().len() + 2 + TS_BYTES);
    encoding::encode_bytes(&mut raw, key.as_bytes());
    encoding::encode_u64(&mut raw, !ts.raw());
    raw.into()
}

/// The prefix of all versions of `key`, and of nothing else.
pub fn version_prefix(key: &Key) -> Bytes {
    let mut raw = Vec::with_capacity(key.as_bytes().len() + 2 + TS_BYTES);
    encoding::encode_bytes(&mut raw, key.as_bytes());
    raw.into()
}

/// Takes apart what [`version_key`] made.
pub fn parse_version_key(raw: &[u8]) -> Result<(Key, Timestamp), StorageError> {
    let mut input = raw;
    let key = encoding::decode_bytes(&mut input)?;
    let ts = Timestamp::from_raw(!encoding::decode_u64(&mut input)?);
    if !input.is_empty() {
        return Err(StorageError::Corrupt("bytes after the timestamp of a version".into()));
    }
    Ok((Key::new(key), ts))
}

/// Splits a raw version key into prefix and timestamp, without decoding the key.
pub(crate) fn split_version_key(raw: &Bytes) -> Result<(Bytes, Timestamp), StorageError> {
    let prefix_bytes = raw
        .len()
        .checked_sub(TS_BYTES)
        .ok_or_else(|| StorageError::Corrupt("version key shorter than a timestamp".into()))?;
    let ts = encoding::decode_u64(&mut &raw[prefix_bytes..])?;
    Ok((raw.slice(..prefix_bytes), Timestamp::from_raw(!ts)))
}

/// The least raw key that lies after every version under `prefix`.
pub(crate) fn after_versions(prefix: &[u8]) -> Bytes {
    // A prefix ends in the terminator 00 01, so the last byte can be raised.
    let mut raw = prefix.to_vec();
    let last = raw.last_mut().expect("a version prefix ends in a terminator");
    *last += 1;
    raw.into()
}

/// All versions of the keys in `span`.
pub fn versions_span(span: &Span) -> RawSpan {
    RawSpan {
        space: Space::Versions,
        start: version_prefix(&span.start),
        end: version_prefix(&span.end),
        of: span.clone(),
    }
}

/// All intents on keys in `span`.
pub fn locks_span(span: &Span) -> RawSpan {
    RawSpan {
        space: Space::Locks,
        start: span.start.bytes().clone(),
        end: span.end.bytes().clone(),
        of: span.clone(),
    }
}

/// Where the record of transaction `id` lies, which is anchored at `anchor`.
pub fn record_key(anchor: &Key, id: TxnId) -> Bytes {
    let mut raw = Vec::with_capacity(anchor.as_bytes().len() + 2 + TXN_BYTES);
    encoding::encode_bytes(&mut raw, anchor.as_bytes());
    raw.extend_from_slice(&id.get().to_be_bytes());
    raw.into()
}

/// Takes apart what [`record_key`] made.
pub fn parse_record_key(raw: &[u8]) -> Result<(Key, TxnId), StorageError> {
    let mut input = raw;
    let anchor = encoding::decode_bytes(&mut input)?;
    let id = u128::from_be_bytes(encoding::take_array(&mut input)?);
    if !input.is_empty() {
        return Err(StorageError::Corrupt("bytes after the id of a record".into()));
    }
    Ok((Key::new(anchor), TxnId::new(id)))
}

/// All transaction records anchored in `span`.
pub fn record_span(span: &Span) -> RawSpan {
    RawSpan { space: Space::Records, ..versions_span(span) }
}

/// Where the change of `key` at `ts` lies; `None` when the key is in no copy.
pub fn change_key(key: &Key, ts: Timestamp) -> Option<Bytes> {
    let prefix = copy_prefix(key)?;
    let mut raw = Vec::with_capacity(prefix.len() + TS_BYTES + key.as_bytes().len());
    raw.extend_from_slice(prefix);
    encoding::encode_u64(&mut raw, ts.raw());
    raw.extend_from_slice(key.as_bytes());
    Some(raw.into())
}

/// Takes apart what [`change_key`] made.
pub fn parse_change(raw: &[u8]) -> Result<(Timestamp, Key), StorageError> {
    let corrupt = || StorageError::Corrupt("change whose key is not in its copy".into());
    let (prefix, mut rest) = raw.split_at_checked(COPY_PREFIX_BYTES).ok_or_else(corrupt)?;
    let ts = Timestamp::from_raw(encoding::decode_u64(&mut rest)?);
    if !rest.starts_with(prefix) {
        return Err(corrupt());
    }
    Ok((ts, Key::new(Bytes::copy_from_slice(rest))))
}

/// The prefix of the copy that `key` is in.
pub fn copy_prefix(key: &Key) -> Option<&[u8]> {
    key.copy_region()?;
    key.as_bytes().get(..COPY_PREFIX_BYTES)
}

/// A cover of the changes of keys in `span`; empty when no key of it can be in a copy. See [`RawSpan::holds`].
pub fn changes_span(span: &Span) -> RawSpan {
    let copies = span.intersect(&Span::prefix(&Key::new(&[COPY][..])));
    let start = copies.start.as_bytes();
    let start = Bytes::copy_from_slice(&start[..start.len().min(COPY_PREFIX_BYTES)]);
    // A copy's prefix is in Changes as it is in the keyspace: short ends need no change, a long one cuts a copy in
    // two.
    let end = match copies.end.as_bytes().get(..COPY_PREFIX_BYTES) {
        Some(prefix) if prefix.len() < copies.end.as_bytes().len() => {
            Key::new(Bytes::copy_from_slice(prefix)).prefix_end().bytes().clone()
        }
        Some(_) | None => copies.end.bytes().clone(),
    };
    let end = if copies.is_empty() { start.clone() } else { end };
    RawSpan { space: Space::Changes, start, end, of: span.clone() }
}

/// Everything a range with this span has in the replicated spaces: what a snapshot of it must send.
pub fn raw_spans(span: &Span) -> [RawSpan; 4] {
    [versions_span(span), locks_span(span), record_span(span), changes_span(span)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_key() -> impl Strategy<Value = Key> {
        let byte = prop_oneof![Just(0u8), Just(1), Just(COPY), Just(0x12), Just(0xfe)];
        proptest::collection::vec(byte, 0..11).prop_map(Key::new)
    }

    proptest! {
        #[test]
        fn raw_spans_hold_exactly_their_span(a in any_key(), b in any_key(), key in any_key(), ts: u64, id: u128) {
            let span = Span::new(a, b);
            let ts = Timestamp::from_raw(ts);
            let within = |raw_span: &RawSpan, raw: &[u8]| raw >= &raw_span.start[..] && raw < &raw_span.end[..];
            let [versions, locks, records, changes] = raw_spans(&span);
            prop_assert_eq!(within(&versions, &version_key(&key, ts)), span.contains(&key));
            prop_assert_eq!(within(&locks, key.as_bytes()), span.contains(&key));
            prop_assert_eq!(within(&records, &record_key(&key, TxnId::new(id))), span.contains(&key));
            if let Some(raw) = change_key(&key, ts) {
                let holds = within(&changes, &raw) && changes.holds(&raw).expect("parses");
                prop_assert_eq!(holds, span.contains(&key));
                prop_assert_eq!(parse_change(&raw).expect("parses"), (ts, key.clone()));
            }
            prop_assert_eq!(parse_version_key(&version_key(&key, ts)).expect("parses"), (key.clone(), ts));
            prop_assert_eq!(parse_record_key(&record_key(&key, TxnId::new(id))).expect("parses"), (key, TxnId::new(id)));
        }

        #[test]
        fn versions_sort_by_key_then_newest_first(a in any_key(), b in any_key(), x: u64, y: u64) {
            let raw = version_key(&a, Timestamp::from_raw(x)).cmp(&version_key(&b, Timestamp::from_raw(y)));
            prop_assert_eq!(raw, a.cmp(&b).then(y.cmp(&x)));
        }

        #[test]
        fn after_versions_is_tight(a in any_key(), b in any_key(), ts: u64) {
            let after = after_versions(&version_prefix(&a));
            prop_assert_eq!(version_key(&b, Timestamp::from_raw(ts)) < after, b <= a);
        }
    }
}
