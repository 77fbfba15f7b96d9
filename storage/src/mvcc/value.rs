//! Value: what is stored under a key: versions and intents, and their bytes.
//!
//! ```text
//!   version   kind (11 value, 10 tombstone; 13, 12: with txn) | written_at (8) | txn (16)? | value
//!   intent    format (1) | txn (16) | anchor | ts (8) | priority | started (8) | count | (sequence, 0 / 1, value?) ..
//! ```
//!
//! Lengths and counts are varints. The first byte names the format, so a later one can be told apart; decoding is
//! exact.

use bytes::Bytes;
use clock::{ClockTimestamp, Timestamp};
use std::fmt;

use crate::StorageError;
use crate::key::Key;
use crate::varint::{self, Input};

const VERSION_TOMBSTONE: u8 = 0x10;
const VERSION_VALUE: u8 = 0x11;
/// Of either kind: the writer follows.
const VERSION_NAMES_WRITER: u8 = 0x02;
const INTENT_FORMAT: u8 = 0x01;
/// A sequence and a tag.
const STEP_BYTES_MIN: usize = 2;

/// Names a transaction, everywhere and for ever (random, 128 bits).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TxnId(u128);

impl TxnId {
    /// From its number.
    pub const fn new(id: u128) -> TxnId {
        TxnId(id)
    }

    /// Its number.
    pub const fn get(self) -> u128 {
        self.0
    }
}

impl fmt::Display for TxnId {
    /// The first eight hex digits: enough for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{:08x}", self.0 >> 96)
    }
}

impl fmt::Debug for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{:032x}", self.0)
    }
}

/// Position of a write in its transaction. A transaction reads its own writes up to a sequence; a savepoint is one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Sequence(u32);

impl Sequence {
    /// Before the first write.
    pub const ZERO: Sequence = Sequence(0);

    /// From its number.
    pub const fn new(sequence: u32) -> Sequence {
        Sequence(sequence)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The sequence after this one.
    #[must_use]
    pub const fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

/// A committed version; its commit timestamp is in its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// Clock reading when it was written: no later than any acknowledgement of it. At or below the commit timestamp.
    pub written_at: ClockTimestamp,
    /// Who wrote it, where nothing else would tell that its commit happened.
    pub by: Option<TxnId>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
}

impl Version {
    /// The stored bytes.
    pub fn encode(&self) -> Bytes {
        let value = self.value.as_deref().unwrap_or_default();
        let mut out = Vec::with_capacity(25 + value.len());
        let kind = if self.value.is_some() { VERSION_VALUE } else { VERSION_TOMBSTONE };
        out.push(if self.by.is_some() { kind | VERSION_NAMES_WRITER } else { kind });
        out.extend_from_slice(&self.written_at.raw().to_be_bytes());
        if let Some(by) = self.by {
            out.extend_from_slice(&by.0.to_be_bytes());
        }
        out.extend_from_slice(value);
        out.into()
    }

    /// The version in `bytes`; the value shares them. Errors: `Corrupt`.
    pub fn decode(bytes: Bytes) -> Result<Version, StorageError> {
        let mut input = Input::new(bytes, "version");
        let kind = input.byte()?;
        let written_at = ClockTimestamp::from_raw(input.u64()?);
        let by = match kind & VERSION_NAMES_WRITER {
            0 => None,
            _ => Some(TxnId(u128::from(input.u64()?) << 64 | u128::from(input.u64()?))),
        };
        let value = match kind & !VERSION_NAMES_WRITER {
            VERSION_VALUE => Some(input.remainder()),
            VERSION_TOMBSTONE => {
                input.finish()?;
                None
            }
            _ => return Err(input.corrupt("unknown kind")),
        };
        Ok(Version { written_at, by, value })
    }
}

/// A provisional write: the lock on its key and the value(s) it may become.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Intent {
    /// Whose.
    pub txn: TxnId,
    /// The key whose range holds the transaction's record.
    pub anchor: Key,
    /// Provisional commit timestamp; the real one is not below it.
    pub ts: Timestamp,
    /// The transaction's priority when it wrote: pushers compare.
    pub priority: u32,
    /// Clock reading (as MVCC time) when the transaction began or wrote this; what a reader's uncertainty is judged
    /// by, and the age of a transaction that never wrote a record.
    pub started: Timestamp,
    /// The writes of this key, ascending by sequence; the last is current. `None` deletes. Empty: the key is locked,
    /// not written.
    pub history: Vec<(Sequence, Option<Bytes>)>,
}

impl Intent {
    /// The newest write; `None` when the key is only locked.
    pub fn current(&self) -> Option<&Option<Bytes>> {
        self.history.last().map(|(_, value)| value)
    }

    /// What the transaction itself sees at `sequence`: its newest write at or below it. `None`: not written by then,
    /// look below the intent.
    pub fn at(&self, sequence: Sequence) -> Option<&Option<Bytes>> {
        let below = self.history.partition_point(|(written, _)| *written <= sequence);
        self.history[..below].last().map(|(_, value)| value)
    }

    /// The stored bytes. Panics when the history does not ascend.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64);
        out.push(INTENT_FORMAT);
        out.extend_from_slice(&self.txn.get().to_be_bytes());
        varint::put_bytes(&mut out, self.anchor.as_bytes());
        out.extend_from_slice(&self.ts.raw().to_be_bytes());
        varint::put(&mut out, u64::from(self.priority));
        out.extend_from_slice(&self.started.raw().to_be_bytes());
        varint::put(&mut out, self.history.len() as u64);
        assert!(self.history.is_sorted_by(|a, b| a.0 < b.0), "history of {} ascends", self.txn);
        for (sequence, value) in &self.history {
            varint::put(&mut out, u64::from(sequence.get()));
            out.push(u8::from(value.is_some()));
            if let Some(value) = value {
                varint::put_bytes(&mut out, value);
            }
        }
        out.into()
    }

    /// The intent in `bytes`; its values share them. Errors: `Corrupt`.
    pub fn decode(bytes: Bytes) -> Result<Intent, StorageError> {
        let mut input = Input::new(bytes, "intent");
        if input.byte()? != INTENT_FORMAT {
            return Err(input.corrupt("unknown format"));
        }
        let txn = u128::from(input.u64()?) << 64 | u128::from(input.u64()?);
        let anchor = Key::new(input.bytes()?);
        let ts = Timestamp::from_raw(input.u64()?);
        let priority = input.varint_u32()?;
        let started = Timestamp::from_raw(input.u64()?);
        let count = input.count(STEP_BYTES_MIN)?;
        let mut history: Vec<(Sequence, Option<Bytes>)> = Vec::with_capacity(count);
        for _ in 0..count {
            let step = decode_step(&mut input)?;
            if history.last().is_some_and(|(sequence, _)| *sequence >= step.0) {
                return Err(input.corrupt("history does not ascend"));
            }
            history.push(step);
        }
        input.finish()?;
        Ok(Intent { txn: TxnId(txn), anchor, ts, priority, started, history })
    }
}

fn decode_step(input: &mut Input) -> Result<(Sequence, Option<Bytes>), StorageError> {
    let sequence = Sequence(input.varint_u32()?);
    match input.byte()? {
        0 => Ok((sequence, None)),
        1 => Ok((sequence, Some(input.bytes()?))),
        _ => Err(input.corrupt("unknown kind of write")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_value() -> impl Strategy<Value = Option<Bytes>> {
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from))
    }

    prop_compose! {
        fn any_intent()(
            txn: u128, anchor: Vec<u8>, ts: u64, priority: u32, started: u64,
            history in proptest::collection::btree_map(any::<u32>(), any_value(), 0..4),
        ) -> Intent {
            Intent {
                txn: TxnId::new(txn),
                anchor: Key::new(anchor),
                ts: Timestamp::from_raw(ts),
                priority,
                started: Timestamp::from_raw(started),
                history: history.into_iter().map(|(sequence, value)| (Sequence(sequence), value)).collect(),
            }
        }
    }

    proptest! {
        #[test]
        fn intents_round_trip_and_cut_ones_are_corrupt(intent in any_intent(), cut: prop::sample::Index) {
            let bytes = intent.encode();
            prop_assert!(Intent::decode(bytes.slice(..cut.index(bytes.len()))).is_err());
            prop_assert_eq!(Intent::decode(bytes).expect("decodes"), intent);
        }

        #[test]
        fn versions_round_trip(written_at: u64, by: Option<u128>, value in any_value()) {
            let written_at = ClockTimestamp::from_raw(written_at);
            let version = Version { written_at, by: by.map(TxnId), value };
            prop_assert_eq!(Version::decode(version.encode()).expect("decodes"), version);
        }
    }

    #[test]
    fn a_tombstone_is_not_an_empty_value() {
        let of = |value| Version { written_at: ClockTimestamp::MIN, by: None, value }.encode();
        assert_ne!(of(None), of(Some(Bytes::new())));
        assert_eq!(&of(Some(Bytes::from_static(b"v")))[..], b"\x11\0\0\0\0\0\0\0\0v");
        assert!(Version::decode(Bytes::from_static(b"\x13\0\0\0\0\0\0\0\0v")).is_err());
        assert!(Version::decode(Bytes::from_static(b"\x14\0\0\0\0\0\0\0\0v")).is_err());
        assert!(Version::decode(Bytes::from_static(b"\x10\0\0\0\0\0\0\0\0v")).is_err());
        assert!(Version::decode(Bytes::new()).is_err());
    }

    #[test]
    fn a_transaction_reads_its_writes_up_to_a_sequence() {
        let value = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        let intent = Intent {
            txn: TxnId::new(1),
            anchor: Key::MIN,
            ts: Timestamp::MIN,
            priority: 1,
            started: Timestamp::MIN,
            history: vec![(Sequence(2), value("a")), (Sequence(5), None)],
        };
        assert_eq!(intent.at(Sequence(1)), None);
        assert_eq!(intent.at(Sequence(2)), Some(&value("a")));
        assert_eq!(intent.at(Sequence(4)), Some(&value("a")));
        assert_eq!(intent.at(Sequence(9)), Some(&None));
        assert_eq!(intent.current(), Some(&None));
    }
}
