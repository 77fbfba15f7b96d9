//! Value: order-preserving encodings. Problem: an engine compares keys byte by byte, and a query wants them in the
//! order of their values. Idea: encode each value so that memcmp order *is* value order, and so that no encoding is a
//! prefix of another one of the same type; then concatenation gives the order of tuples.
//!
//! ```text
//!   u32, u64      big endian
//!   i64           big endian with the sign bit flipped
//!   f64           IEEE bits; positive: sign bit flipped, negative: all bits flipped; -0.0 as 0.0; one NaN, greatest
//!   bytes, str    00 -> 00 FF, then the terminator 00 01        "a\0b" -> 61 00 FF 62 00 01
//!   bool          00, 01
//!   NULL          a tag byte before the value: 01 not null, FE null: NULL is largest, as PostgreSQL sorts it
//!   descending    every byte of the ascending form, tag included, inverted
//! ```
//!
//! `encode_*` appends to a vector and cannot fail. `decode_*` takes the value off the front of the input, or fails
//! without a promise about where the input then stands. INVARIANT: `decode(encode(x)) == x` (floats: equal in the
//! total order) and `encode(a) < encode(b)` iff `a < b`; both are properties below.
//!
//! The bytes are on disk: they never change. Source: the escape is the one of FoundationDB's and CockroachDB's
//! tuples.

use thiserror::Error;

/// First byte of a nullable column that holds a value.
pub const TAG_NOT_NULL: u8 = 0x01;
/// The only byte of a nullable column that holds NULL; above every value.
pub const TAG_NULL: u8 = 0xfe;

const ESCAPE: u8 = 0x00;
const ESCAPED_ZERO: u8 = 0xff;
const TERMINATOR: u8 = 0x01;
const SIGN: u64 = 1 << 63;

/// The input is not what an encoder of this file wrote.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// The input ended inside a value.
    #[error("the encoded key ends too early")]
    Truncated,
    /// A byte that no encoder writes there.
    #[error("byte {found:#04x} in an encoded key where {expected} must be")]
    Unexpected {
        /// What was found.
        found: u8,
        /// What could have been there.
        expected: &'static str,
    },
    /// A string that is not UTF-8.
    #[error("an encoded string is not UTF-8")]
    NotUtf8,
}

impl From<DecodeError> for crate::StorageError {
    fn from(error: DecodeError) -> Self {
        crate::StorageError::Corrupt(error.to_string())
    }
}

/// Appends four bytes.
pub fn encode_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Takes what [`encode_u32`] wrote.
pub fn decode_u32(input: &mut &[u8]) -> Result<u32, DecodeError> {
    Ok(u32::from_be_bytes(take_array(input)?))
}

/// Appends eight bytes.
pub fn encode_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Takes what [`encode_u64`] wrote.
pub fn decode_u64(input: &mut &[u8]) -> Result<u64, DecodeError> {
    Ok(u64::from_be_bytes(take_array(input)?))
}

/// Appends eight bytes.
pub fn encode_i64(out: &mut Vec<u8>, value: i64) {
    encode_u64(out, value.cast_unsigned() ^ SIGN);
}

/// Takes what [`encode_i64`] wrote.
pub fn decode_i64(input: &mut &[u8]) -> Result<i64, DecodeError> {
    Ok((decode_u64(input)? ^ SIGN).cast_signed())
}

/// Appends eight bytes. `-0.0` is written as `0.0`, every NaN as the same one.
pub fn encode_f64(out: &mut Vec<u8>, value: f64) {
    let bits = if value.is_nan() {
        f64::NAN.to_bits() & !SIGN
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    };
    encode_u64(out, if bits & SIGN == 0 { bits ^ SIGN } else { !bits });
}

/// Takes what [`encode_f64`] wrote.
pub fn decode_f64(input: &mut &[u8]) -> Result<f64, DecodeError> {
    let ordered = decode_u64(input)?;
    Ok(f64::from_bits(if ordered & SIGN == 0 { !ordered } else { ordered ^ SIGN }))
}

/// Appends one byte; false sorts first.
pub fn encode_bool(out: &mut Vec<u8>, value: bool) {
    out.push(u8::from(value));
}

/// Takes what [`encode_bool`] wrote.
pub fn decode_bool(input: &mut &[u8]) -> Result<bool, DecodeError> {
    match take_byte(input)? {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(DecodeError::Unexpected { found, expected: "a bool" }),
    }
}

/// Appends the escaped bytes and the terminator: `value.len() + zeros + 2` bytes.
pub fn encode_bytes(out: &mut Vec<u8>, value: &[u8]) {
    out.reserve(value.len() + 2);
    let mut parts = value.split(|byte| *byte == ESCAPE);
    out.extend_from_slice(parts.next().expect("split yields at least one part"));
    for part in parts {
        out.extend_from_slice(&[ESCAPE, ESCAPED_ZERO]);
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&[ESCAPE, TERMINATOR]);
}

/// Takes what [`encode_bytes`] wrote.
pub fn decode_bytes(input: &mut &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::new();
    loop {
        let zero = input.iter().position(|byte| *byte == ESCAPE).ok_or(DecodeError::Truncated)?;
        out.extend_from_slice(&input[..zero]);
        *input = &input[zero + 1..];
        match take_byte(input)? {
            ESCAPED_ZERO => out.push(0),
            TERMINATOR => return Ok(out),
            found => {
                return Err(DecodeError::Unexpected { found, expected: "an escape or terminator" });
            }
        }
    }
}

/// Appends the string as [`encode_bytes`] does: the order is that of the UTF-8 bytes (collation "C").
pub fn encode_str(out: &mut Vec<u8>, value: &str) {
    encode_bytes(out, value.as_bytes());
}

/// Takes what [`encode_str`] wrote.
pub fn decode_str(input: &mut &[u8]) -> Result<String, DecodeError> {
    String::from_utf8(decode_bytes(input)?).map_err(|_| DecodeError::NotUtf8)
}

/// Appends the NULL tag alone, or the not-null tag and what `encode` appends for the value.
pub fn encode_nullable<T>(
    out: &mut Vec<u8>,
    value: Option<T>,
    encode: impl FnOnce(&mut Vec<u8>, T),
) {
    match value {
        None => out.push(TAG_NULL),
        Some(value) => {
            out.push(TAG_NOT_NULL);
            encode(out, value);
        }
    }
}

/// Takes what [`encode_nullable`] wrote.
pub fn decode_nullable<T>(
    input: &mut &[u8],
    decode: impl FnOnce(&mut &[u8]) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    match take_byte(input)? {
        TAG_NULL => Ok(None),
        TAG_NOT_NULL => decode(input).map(Some),
        found => Err(DecodeError::Unexpected { found, expected: "a NULL tag" }),
    }
}

/// Appends what `encode` appends, inverted: the order of these values is reversed (and NULLs come first).
pub fn encode_descending(out: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    encode(out);
    invert(&mut out[start..]);
}

/// Takes what [`encode_descending`] wrote, by the ascending decoder `decode`. Copies the rest of the input once.
pub fn decode_descending<T, E>(
    input: &mut &[u8],
    decode: impl FnOnce(&mut &[u8]) -> Result<T, E>,
) -> Result<T, E> {
    let mut copy = input.to_vec();
    invert(&mut copy);
    let mut rest = copy.as_slice();
    let value = decode(&mut rest)?;
    let left_bytes = rest.len();
    *input = &input[input.len() - left_bytes..];
    Ok(value)
}

/// Takes one byte.
pub fn take_byte(input: &mut &[u8]) -> Result<u8, DecodeError> {
    Ok(take_array::<1>(input)?[0])
}

/// Takes `N` bytes.
pub fn take_array<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (head, tail) = input.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
    *input = tail;
    Ok(*head)
}

fn invert(bytes: &mut [u8]) {
    for byte in bytes {
        *byte = !*byte;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out);
        out
    }

    fn whole<T>(bytes: &[u8], decode: impl FnOnce(&mut &[u8]) -> Result<T, DecodeError>) -> T {
        let mut input = bytes;
        let value = decode(&mut input).expect("decodes");
        assert!(input.is_empty(), "nothing left over");
        value
    }

    #[test]
    fn known_answers_never_change() {
        assert_eq!(encoded(|o| encode_u32(o, 1)), [0, 0, 0, 1]);
        assert_eq!(encoded(|o| encode_i64(o, -1)), [0x7f, 255, 255, 255, 255, 255, 255, 255]);
        assert_eq!(encoded(|o| encode_i64(o, 0)), [0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(encoded(|o| encode_bytes(o, b"")), [0, 1]);
        assert_eq!(encoded(|o| encode_bytes(o, b"a\0b")), [0x61, 0, 0xff, 0x62, 0, 1]);
        assert_eq!(encoded(|o| encode_f64(o, 1.0)), [0xbf, 0xf0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(encoded(|o| encode_f64(o, -1.0)), [0x40, 0x0f, 255, 255, 255, 255, 255, 255]);
        assert_eq!(encoded(|o| encode_f64(o, f64::NAN)), [0xff, 0xf8, 0, 0, 0, 0, 0, 0]);
        assert_eq!(encoded(|o| encode_nullable(o, None, encode_u32)), [0xfe]);
        assert_eq!(encoded(|o| encode_descending(o, |o| encode_bool(o, true))), [0xfe]);
    }

    #[test]
    fn floats_have_one_zero_and_one_nan_above_infinity() {
        assert_eq!(encoded(|o| encode_f64(o, -0.0)), encoded(|o| encode_f64(o, 0.0)));
        assert_eq!(encoded(|o| encode_f64(o, -f64::NAN)), encoded(|o| encode_f64(o, f64::NAN)));
        assert!(encoded(|o| encode_f64(o, f64::NAN)) > encoded(|o| encode_f64(o, f64::INFINITY)));
        assert!(whole(&encoded(|o| encode_f64(o, f64::NAN)), decode_f64).is_nan());
    }

    #[test]
    fn garbage_is_an_error() {
        for garbage in [&b""[..], b"a", b"a\0", b"a\0\x02", b"a\0\x00\x01"] {
            assert!(decode_bytes(&mut &garbage[..]).is_err(), "{garbage:?}");
        }
        assert!(decode_bool(&mut &[2u8][..]).is_err());
        assert_eq!(decode_u64(&mut &[0u8; 7][..]), Err(DecodeError::Truncated));
        assert_eq!(decode_str(&mut &[0xff, 0, 1][..]), Err(DecodeError::NotUtf8));
        assert!(decode_nullable(&mut &[7u8][..], decode_u32).is_err());
    }

    /// Strings over few letters, so that prefixes, zeros and the escape bytes meet.
    fn tricky_bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(
            prop_oneof![Just(0u8), Just(1), Just(0xfe), Just(0xff), any::<u8>()],
            0..6,
        )
    }

    fn float_order(a: f64, b: f64) -> std::cmp::Ordering {
        a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
    }

    proptest! {
        #[test]
        fn integers_keep_order(a: i64, b: i64, c: u64, d: u64) {
            prop_assert_eq!(encoded(|o| encode_i64(o, a)).cmp(&encoded(|o| encode_i64(o, b))), a.cmp(&b));
            prop_assert_eq!(encoded(|o| encode_u64(o, c)).cmp(&encoded(|o| encode_u64(o, d))), c.cmp(&d));
            prop_assert_eq!(whole(&encoded(|o| encode_i64(o, a)), decode_i64), a);
            prop_assert_eq!(whole(&encoded(|o| encode_u64(o, c)), decode_u64), c);
        }

        #[test]
        fn floats_keep_order(a in prop_oneof![any::<f64>(), proptest::num::f64::ANY], b in proptest::num::f64::ANY) {
            prop_assert_eq!(encoded(|o| encode_f64(o, a)).cmp(&encoded(|o| encode_f64(o, b))), float_order(a, b));
            prop_assert!(float_order(whole(&encoded(|o| encode_f64(o, a)), decode_f64), a).is_eq());
        }

        #[test]
        fn bytes_keep_order_and_are_prefix_free(a in tricky_bytes(), b in tricky_bytes()) {
            let (x, y) = (encoded(|o| encode_bytes(o, &a)), encoded(|o| encode_bytes(o, &b)));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x.starts_with(&y), a == b);
            prop_assert_eq!(whole(&x, decode_bytes), a);
        }

        #[test]
        fn strings_round_trip(a: String) {
            prop_assert_eq!(whole(&encoded(|o| encode_str(o, &a)), decode_str), a);
        }

        #[test]
        fn tuples_keep_order(a: (Option<bool>, Vec<u8>, i64), b: (Option<bool>, Vec<u8>, i64)) {
            // NULLS LAST ascending; the second column descends.
            let tuple = |t: &(Option<bool>, Vec<u8>, i64)| encoded(|o| {
                encode_nullable(o, t.0, encode_bool);
                encode_descending(o, |o| encode_bytes(o, &t.1));
                encode_i64(o, t.2);
            });
            let rank = |t: &(Option<bool>, Vec<u8>, i64)| (t.0.is_none(), t.0, std::cmp::Reverse(t.1.clone()), t.2);
            prop_assert_eq!(tuple(&a).cmp(&tuple(&b)), rank(&a).cmp(&rank(&b)));
            let bytes = tuple(&a);
            let mut input = bytes.as_slice();
            let first = decode_nullable(&mut input, decode_bool).expect("decodes");
            let second = decode_descending(&mut input, decode_bytes).expect("decodes");
            prop_assert_eq!((first, second, whole(input, decode_i64)), a);
        }

        #[test]
        fn decoders_never_panic(bytes in tricky_bytes()) {
            let _ = decode_bytes(&mut bytes.as_slice());
            let _ = decode_str(&mut bytes.as_slice());
            let _ = decode_nullable(&mut bytes.as_slice(), decode_f64);
            let _ = decode_descending(&mut bytes.as_slice(), decode_bytes);
        }
    }
}
