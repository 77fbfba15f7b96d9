//! Value: keys of the one ordered keyspace, and its map.
//!
//! ```text
//!   \x02 ..         addressing: range directory, one record per range, by end key          replicated, strong
//!   \x03 ..         system: catalog, id allocators, nodes, settings, jobs                    replicated, strong
//!   \x10 table ..   strong tables:    table id (u32) | index id (u32) | index columns        replicated over regions
//!   \x11 region table ..  copies of available tables: region id (u16) | table id (u32) | index id (u32) | columns
//!                                                                                            replicated inside a region
//!   \xff            end of the keyspace (never a key)
//! ```
//!
//! Node-local state is not in this keyspace at all: it lives in [`crate::engine::Space::Local`].
//!
//! A [`Key`] is any byte string; order is memcmp order. A [`Span`] is half-open: `start` in, `end` out.

use bytes::Bytes;
use std::fmt;

/// Prefix of the range directory.
pub const ADDRESSING: u8 = 0x02;
/// Prefix of system tables.
pub const SYSTEM: u8 = 0x03;
/// Prefix of strong tables.
pub const TABLE: u8 = 0x10;
/// Prefix of available tables' copies.
pub const COPY: u8 = 0x11;
/// Largest key a user may write, in bytes. Longer keys are an error before anything is proposed.
pub const KEY_BYTES_MAX: usize = 8 << 10;

/// A key. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Key(Bytes);

impl Key {
    /// The smallest key.
    pub const MIN: Key = Key(Bytes::new());
    /// Above every key; only ever an exclusive end.
    pub const MAX: Key = Key(Bytes::from_static(&[0xff]));

    /// From bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Key {
        Key(bytes.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, shared.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The smallest key after this one.
    #[must_use]
    pub fn next(&self) -> Key {
        let mut bytes = Vec::with_capacity(self.0.len() + 1);
        bytes.extend_from_slice(&self.0);
        bytes.push(0);
        Key(bytes.into())
    }

    /// The smallest key that does not have this one as a prefix; `Key::MAX` if there is none.
    #[must_use]
    pub fn prefix_end(&self) -> Key {
        let mut bytes = self.0.to_vec();
        while let Some(last) = bytes.pop() {
            if last < 0xff {
                bytes.push(last + 1);
                return Key(bytes.into());
            }
        }
        Key::MAX
    }

    /// Prefix of a strong table: all its indexes.
    pub fn table(table: u32) -> Key {
        let mut bytes = vec![TABLE];
        bytes.extend_from_slice(&table.to_be_bytes());
        Key(bytes.into())
    }

    /// Prefix of the copy of an available table in a region: all its indexes.
    pub fn copy(region: u16, table: u32) -> Key {
        let mut bytes = vec![COPY];
        bytes.extend_from_slice(&region.to_be_bytes());
        bytes.extend_from_slice(&table.to_be_bytes());
        Key(bytes.into())
    }

    /// The region whose copy this key belongs to; `None` for every key that is not in a copy.
    pub fn copy_region(&self) -> Option<u16> {
        match *self.0 {
            [COPY, a, b, ..] => Some(u16::from_be_bytes([a, b])),
            _ => None,
        }
    }

    /// The table this key belongs to, in either mode.
    pub fn table_id(&self) -> Option<u32> {
        match *self.0 {
            [TABLE, a, b, c, d, ..] | [COPY, _, _, a, b, c, d, ..] => {
                Some(u32::from_be_bytes([a, b, c, d]))
            }
            _ => None,
        }
    }

    /// The directory record of the range that ends at `end`.
    pub fn addressing(end: &Key) -> Key {
        let mut bytes = vec![ADDRESSING];
        bytes.extend_from_slice(end.as_bytes());
        Key(bytes.into())
    }

    /// A system key: `\x03 name / rest`.
    pub fn system(name: &str, rest: &[u8]) -> Key {
        let mut bytes = vec![SYSTEM];
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(b'/');
        bytes.extend_from_slice(rest);
        Key(bytes.into())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl<T: Into<Bytes>> From<T> for Key {
    fn from(bytes: T) -> Key {
        Key(bytes.into())
    }
}

/// Keys from `start` (in) to `end` (out).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Inclusive.
    pub start: Key,
    /// Exclusive.
    pub end: Key,
}

impl Span {
    /// The whole keyspace.
    pub fn all() -> Span {
        Span { start: Key::MIN, end: Key::MAX }
    }

    /// From `start` (in) to `end` (out). An `end` at or before `start` is an empty span.
    pub fn new(start: Key, end: Key) -> Span {
        Span { start, end }
    }

    /// Just this key.
    pub fn point(key: &Key) -> Span {
        Span { start: key.clone(), end: key.next() }
    }

    /// All keys with this prefix.
    pub fn prefix(prefix: &Key) -> Span {
        Span { start: prefix.clone(), end: prefix.prefix_end() }
    }

    /// Whether no key is in it.
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// Whether it is exactly one key.
    pub fn is_point(&self) -> bool {
        self.end.as_bytes().len() == self.start.as_bytes().len() + 1
            && self.end.as_bytes().starts_with(self.start.as_bytes())
            && self.end.as_bytes().last() == Some(&0)
    }

    /// Whether `key` is in it.
    pub fn contains(&self, key: &Key) -> bool {
        *key >= self.start && *key < self.end
    }

    /// Whether every key of `other` is in it.
    pub fn covers(&self, other: &Span) -> bool {
        other.is_empty() || (other.start >= self.start && other.end <= self.end)
    }

    /// Whether some key is in both.
    pub fn overlaps(&self, other: &Span) -> bool {
        !self.is_empty() && !other.is_empty() && self.start < other.end && other.start < self.end
    }

    /// The keys in both; empty if there are none.
    #[must_use]
    pub fn intersect(&self, other: &Span) -> Span {
        Span {
            start: self.start.clone().max(other.start.clone()),
            end: self.end.clone().min(other.end.clone()),
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
