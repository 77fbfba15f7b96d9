//! Value: variable-length integers for values and records (not for keys: their order is not the numbers' order).
//!
//! Little-endian base 128, as in protocol buffers: seven bits per byte, the top bit says that more follow. Decoding
//! accepts only the shortest form, so that equal values have equal bytes (replicas compare digests of what they
//! stored).

use bytes::Bytes;

use crate::StorageError;

/// Most bytes a `u64` takes.
pub const VARINT_BYTES_MAX: usize = 10;

/// Appends one to ten bytes.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes [`put`] appends.
pub fn bytes_of(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a length and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, value: &[u8]) {
    put(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Takes values off the front of shared bytes; slices it hands out share their memory.
#[derive(Clone, Debug)]
pub struct Input {
    rest: Bytes,
    what: &'static str,
}

impl Input {
    /// Over `bytes`; `what` names the record in errors.
    pub fn new(bytes: Bytes, what: &'static str) -> Input {
        Input { rest: bytes, what }
    }

    /// Bytes not yet taken.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// The error for a record that is not what an encoder wrote.
    pub fn corrupt(&self, why: &str) -> StorageError {
        StorageError::Corrupt(format!("{}: {why}", self.what))
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8, StorageError> {
        Ok(self.take(1)?[0])
    }

    /// `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<Bytes, StorageError> {
        if count > self.rest.len() {
            return Err(self.corrupt("ends too early"));
        }
        Ok(self.rest.split_to(count))
    }

    /// Eight bytes, big endian.
    pub fn u64(&mut self) -> Result<u64, StorageError> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.take(8)?);
        Ok(u64::from_be_bytes(bytes))
    }

    /// A number as [`put`] writes it.
    pub fn varint(&mut self) -> Result<u64, StorageError> {
        let mut value = 0u64;
        for position in 0..VARINT_BYTES_MAX {
            let byte = self.byte()?;
            if position == VARINT_BYTES_MAX - 1 && byte > 1 {
                return Err(self.corrupt("number over 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * position);
            if byte & 0x80 == 0 {
                if byte == 0 && position > 0 {
                    return Err(self.corrupt("number not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(self.corrupt("number over ten bytes"))
    }

    /// A number that fits 32 bits.
    pub fn varint_u32(&mut self) -> Result<u32, StorageError> {
        let value = self.varint()?;
        u32::try_from(value).map_err(|_| self.corrupt("number over 32 bits"))
    }

    /// A length and that many bytes, as [`put_bytes`] writes them.
    pub fn bytes(&mut self) -> Result<Bytes, StorageError> {
        let count = self.varint()?;
        let count =
            usize::try_from(count).map_err(|_| self.corrupt("length over the address space"))?;
        self.take(count)
    }

    /// A count of things that take at least `each_bytes_min` bytes; refuses one that cannot be true.
    pub fn count(&mut self, each_bytes_min: usize) -> Result<usize, StorageError> {
        let count = self.varint()?;
        let most = self.rest.len() / each_bytes_min.max(1);
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(self.corrupt("count over what follows")),
        }
    }

    /// The rest, as one value.
    pub fn remainder(&mut self) -> Bytes {
        self.rest.split_off(0)
    }

    /// Refuses bytes after the end.
    pub fn finish(self) -> Result<(), StorageError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.corrupt("bytes after the end")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_round_trip(bits in 0u32..64, value: u64) {
            let value = value >> bits;
            let mut out = Vec::new();
            put(&mut out, value);
            prop_assert_eq!(out.len(), bytes_of(value));
            let mut input = Input::new(out.into(), "test");
            prop_assert_eq!(input.varint().expect("decodes"), value);
            input.finish().expect("nothing left");
        }
    }

    #[test]
    fn only_the_shortest_form_is_accepted() {
        let decode = |bytes: &'static [u8]| Input::new(Bytes::from_static(bytes), "test").varint();
        assert!(decode(&[0x80, 0x00]).is_err());
        assert!(decode(&[0x80]).is_err());
        assert!(decode(&[0xff; 10]).is_err());
        assert_eq!(
            decode(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).expect("max"),
            u64::MAX
        );
    }
}
