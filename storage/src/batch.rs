//! Value: the wire and log form of a [`WriteBatch`].
//!
//! ```text
//!   version (1) | count | op ..
//!   op = kind << 4 | space, then length-prefixed byte strings: put: key, value; delete: key; delete span: start, end
//! ```
//!
//! All numbers are varints. Every replica applies these bytes, so decoding is exact: an unknown version, kind or
//! space, a length past the end, or bytes after the last op are `Corrupt`, never a shorter batch. No checksum:
//! whoever stores or sends the bytes has one.

use bytes::Bytes;

use crate::StorageError;
use crate::engine::{Op, Space, WriteBatch};
use crate::varint::{self, Input};

const FORMAT: u8 = 1;
const KIND_PUT: u8 = 0;
const KIND_DELETE: u8 = 1;
const KIND_DELETE_SPAN: u8 = 2;
/// A tag and an empty key.
const OP_BYTES_MIN: usize = 2;

impl WriteBatch {
    /// The bytes that [`WriteBatch::decode`] reads.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.bytes());
        out.push(FORMAT);
        varint::put(&mut out, self.ops.len() as u64);
        for op in &self.ops {
            match op {
                Op::Put { space, key, value } => {
                    out.push(tag(KIND_PUT, *space));
                    varint::put_bytes(&mut out, key);
                    varint::put_bytes(&mut out, value);
                }
                Op::Delete { space, key } => {
                    out.push(tag(KIND_DELETE, *space));
                    varint::put_bytes(&mut out, key);
                }
                Op::DeleteSpan { space, start, end } => {
                    out.push(tag(KIND_DELETE_SPAN, *space));
                    varint::put_bytes(&mut out, start);
                    varint::put_bytes(&mut out, end);
                }
            }
        }
        out.into()
    }

    /// The batch in `bytes`, which it copies once. Errors: `Corrupt` for anything that `encode` does not write.
    pub fn decode(bytes: &[u8]) -> Result<WriteBatch, StorageError> {
        WriteBatch::decode_shared(Bytes::copy_from_slice(bytes))
    }

    /// As [`WriteBatch::decode`], without a copy: the ops share `bytes`.
    pub fn decode_shared(bytes: Bytes) -> Result<WriteBatch, StorageError> {
        let mut input = Input::new(bytes, "write batch");
        if input.byte()? != FORMAT {
            return Err(input.corrupt("unknown format"));
        }
        let count = input.count(OP_BYTES_MIN)?;
        let mut ops = Vec::with_capacity(count);
        for _ in 0..count {
            ops.push(decode_op(&mut input)?);
        }
        input.finish()?;
        Ok(WriteBatch { ops })
    }

    /// About how many bytes the encoded form takes, from above: for limits on commands.
    pub fn bytes(&self) -> usize {
        const OVERHEAD: usize = 1 + varint::VARINT_BYTES_MAX;
        let op_bytes = |op: &Op| match op {
            Op::Put { key, value, .. } => key.len() + value.len() + OVERHEAD,
            Op::Delete { key, .. } => key.len() + OVERHEAD,
            Op::DeleteSpan { start, end, .. } => start.len() + end.len() + OVERHEAD,
        };
        OVERHEAD + self.ops.iter().map(op_bytes).sum::<usize>()
    }
}

impl Space {
    /// Its number on disk and on the wire; never changes.
    pub const fn number(self) -> u8 {
        match self {
            Space::Versions => 0,
            Space::Locks => 1,
            Space::Records => 2,
            Space::Changes => 3,
            Space::Local => 4,
        }
    }

    /// The space with that number.
    pub const fn from_number(number: u8) -> Option<Space> {
        match number {
            0 => Some(Space::Versions),
            1 => Some(Space::Locks),
            2 => Some(Space::Records),
            3 => Some(Space::Changes),
            4 => Some(Space::Local),
            _ => None,
        }
    }
}

fn tag(kind: u8, space: Space) -> u8 {
    kind << 4 | space.number()
}

fn decode_op(input: &mut Input) -> Result<Op, StorageError> {
    let tag = input.byte()?;
    let space = Space::from_number(tag & 0x0f).ok_or_else(|| input.corrupt("unknown space"))?;
    match tag >> 4 {
        KIND_PUT => Ok(Op::Put { space, key: input.bytes()?, value: input.bytes()? }),
        KIND_DELETE => Ok(Op::Delete { space, key: input.bytes()? }),
        KIND_DELETE_SPAN => {
            Ok(Op::DeleteSpan { space, start: input.bytes()?, end: input.bytes()? })
        }
        _ => Err(input.corrupt("unknown kind of change")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_op() -> impl Strategy<Value = Op> {
        let space = prop::sample::select(Space::ALL.to_vec());
        let bytes = || proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
        (space, 0..3, bytes(), bytes()).prop_map(|(space, kind, key, value)| match kind {
            0 => Op::Put { space, key, value },
            1 => Op::Delete { space, key },
            _ => Op::DeleteSpan { space, start: key, end: value },
        })
    }

    fn any_batch() -> impl Strategy<Value = WriteBatch> {
        proptest::collection::vec(any_op(), 0..8).prop_map(|ops| WriteBatch { ops })
    }

    #[test]
    fn known_answer_never_changes() {
        let mut batch = WriteBatch::new();
        batch.put(Space::Locks, &b"k"[..], &b"vv"[..]);
        batch.delete(Space::Versions, &b""[..]);
        batch.delete_span(Space::Local, &b"a"[..], &b"b"[..]);
        assert_eq!(&batch.encode()[..], b"\x01\x03\x01\x01k\x02vv\x10\x00\x24\x01a\x01b");
    }

    proptest! {
        #[test]
        fn batches_round_trip(batch in any_batch()) {
            let bytes = batch.encode();
            prop_assert!(bytes.len() <= batch.bytes());
            prop_assert_eq!(WriteBatch::decode(&bytes).expect("decodes"), batch);
        }

        #[test]
        fn a_cut_batch_is_corrupt(batch in any_batch(), cut: prop::sample::Index) {
            let bytes = batch.encode();
            let cut = cut.index(bytes.len());
            prop_assert!(WriteBatch::decode(&bytes[..cut]).is_err());
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..40), batch in any_batch()) {
            let mut input = batch.encode().to_vec();
            for (place, byte) in bytes.iter().enumerate().filter(|(place, _)| place % 7 == 0) {
                if let Some(target) = input.get_mut(place * 3) { *target = *byte; }
            }
            if let Ok(decoded) = WriteBatch::decode(&input) {
                prop_assert_eq!(&decoded.encode()[..], &input[..]);
            }
        }
    }
}
