//! Values as they are stored in rows: a value. Compact, tagged, independent of the table's declared types.
//!
//! ```text
//!   row     version 01, then per column that is not NULL: column id as a difference (varint), value
//!   value   tag byte, payload: small integers and dates as zigzag varints, floats and instants as fixed bytes,
//!           text and bytes with a length, numerics as scale and coefficient, arrays and records recursively
//! ```
//!
//! A reader skips columns that it does not know, and takes an absent column as NULL or its default: so ADD COLUMN rewrites nothing.
//! INVARIANT: `decode(encode(x))` is identical to `x`: scale, padding and field structure included. The bytes are on disk: a tag is
//! never reused, a layout never changed; new ones get new tags. Every decoder refuses garbage with XX001.

use super::datum::{ArrayValue, Datum, Dim};
use super::error::{SqlState, TypeError};
use super::interval::Interval;
use super::json::Json;
use super::numeric::Numeric;
use super::ty::Type;
use std::borrow::Borrow;
use std::sync::Arc;
use storage::varint;

/// First byte of a row.
pub const ROW_VERSION: u8 = 1;
/// Arrays and records inside each other that a stored value may have.
const DEPTH_MAX: usize = 64;

mod tag {
    pub(super) const NULL: u8 = 0;
    pub(super) const FALSE: u8 = 1;
    pub(super) const TRUE: u8 = 2;
    pub(super) const INT2: u8 = 3;
    pub(super) const INT4: u8 = 4;
    pub(super) const INT8: u8 = 5;
    pub(super) const FLOAT4: u8 = 6;
    pub(super) const FLOAT8: u8 = 7;
    pub(super) const NUMERIC_SMALL: u8 = 8;
    pub(super) const NUMERIC_TEXT: u8 = 9;
    pub(super) const TEXT: u8 = 10;
    pub(super) const BPCHAR: u8 = 11;
    pub(super) const BYTEA: u8 = 12;
    pub(super) const UUID: u8 = 13;
    pub(super) const DATE: u8 = 14;
    pub(super) const TIME: u8 = 15;
    pub(super) const TIMESTAMP: u8 = 16;
    pub(super) const TIMESTAMPTZ: u8 = 17;
    pub(super) const INTERVAL: u8 = 18;
    pub(super) const JSONB: u8 = 19;
    pub(super) const OID: u8 = 20;
    pub(super) const ARRAY: u8 = 21;
    pub(super) const RECORD: u8 = 22;
}

fn corrupt(what: &str) -> TypeError {
    TypeError::new(SqlState::DATA_CORRUPTED, format!("a stored value is damaged: {what}"))
}

fn put_signed(out: &mut Vec<u8>, value: i64) {
    // Zigzag: small magnitudes of either sign are short.
    varint::put(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_tagged(out: &mut Vec<u8>, tag: u8, value: i64) {
    out.push(tag);
    put_signed(out, value);
}

fn put_fixed(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(bytes);
}

/// Appends a value.
pub fn value_encode(value: &Datum, out: &mut Vec<u8>) {
    match value {
        Datum::Null => out.push(tag::NULL),
        Datum::Bool(value) => out.push(if *value { tag::TRUE } else { tag::FALSE }),
        Datum::Int2(value) => put_tagged(out, tag::INT2, i64::from(*value)),
        Datum::Int4(value) => put_tagged(out, tag::INT4, i64::from(*value)),
        Datum::Int8(value) => put_tagged(out, tag::INT8, *value),
        Datum::Float4(value) => put_fixed(out, tag::FLOAT4, &value.to_be_bytes()),
        Datum::Float8(value) => put_fixed(out, tag::FLOAT8, &value.to_be_bytes()),
        Datum::Numeric(value) => match value.small_parts() {
            Some((coefficient, dscale)) => {
                out.push(tag::NUMERIC_SMALL);
                varint::put(out, u64::from(dscale));
                put_signed(out, coefficient);
            }
            None => put_bytes(out, tag::NUMERIC_TEXT, value.to_string().as_bytes()),
        },
        Datum::Text(value) => put_bytes(out, tag::TEXT, value.as_bytes()),
        Datum::BpChar(value) => put_bytes(out, tag::BPCHAR, value.as_bytes()),
        Datum::Bytea(value) => put_bytes(out, tag::BYTEA, value),
        Datum::Uuid(value) => put_fixed(out, tag::UUID, value),
        Datum::Date(value) => put_tagged(out, tag::DATE, i64::from(*value)),
        Datum::Time(value) => put_fixed(out, tag::TIME, &value.to_be_bytes()),
        Datum::Timestamp(value) => put_fixed(out, tag::TIMESTAMP, &value.to_be_bytes()),
        Datum::TimestampTz(value) => put_fixed(out, tag::TIMESTAMPTZ, &value.to_be_bytes()),
        Datum::Interval(value) => {
            put_tagged(out, tag::INTERVAL, i64::from(value.months));
            put_signed(out, i64::from(value.days));
            put_signed(out, value.us);
        }
        Datum::Jsonb(value) => put_bytes(out, tag::JSONB, value.to_string().as_bytes()),
        Datum::Oid(value) => {
            out.push(tag::OID);
            varint::put(out, u64::from(*value));
        }
        Datum::Array(array) => {
            out.push(tag::ARRAY);
            varint::put(out, u64::from(array.element_type().oid()));
            varint::put(out, array.dims().len() as u64);
            for dim in array.dims() {
                varint::put(out, dim.length as u64);
                put_signed(out, i64::from(dim.lower));
            }
            array.elements().iter().for_each(|element| value_encode(element, out));
        }
        Datum::Record(record) => {
            out.push(tag::RECORD);
            varint::put(out, record.fields.len() as u64);
            for (ty, field) in &record.fields {
                varint::put(out, u64::from(ty.oid()));
                value_encode(field, out);
            }
        }
    }
}

/// Takes a value off the front; XX001 if it is none.
pub fn value_decode(input: &mut &[u8]) -> Result<Datum, TypeError> {
    decode(input, 0)
}

/// A row of columns with ascending ids; NULLs may be left out by the caller or are left out here.
/// Panics if the ids do not ascend.
pub fn row_encode<D: Borrow<Datum>>(columns: impl IntoIterator<Item = (u32, D)>) -> Vec<u8> {
    let mut out = vec![ROW_VERSION];
    let mut next = 0u32;
    for (id, value) in columns {
        assert!(id >= next, "column ids ascend: {id} comes after {next}");
        let value = value.borrow();
        if value.is_null() {
            continue;
        }
        varint::put(&mut out, u64::from(id - next));
        value_encode(value, &mut out);
        next = id + 1;
    }
    out
}

/// The columns of a row that are not NULL, ascending; XX001 if it is none.
pub fn row_decode(mut input: &[u8]) -> Result<Vec<(u32, Datum)>, TypeError> {
    let mut columns = Vec::new();
    if byte(&mut input)? != ROW_VERSION {
        return Err(corrupt("an unknown version of rows"));
    }
    let mut next = 0u64;
    while !input.is_empty() {
        let id = next.checked_add(unsigned(&mut input)?).and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| corrupt("a column id"))?;
        columns.push((id, value_decode(&mut input)?));
        next = u64::from(id) + 1;
    }
    Ok(columns)
}

fn byte(input: &mut &[u8]) -> Result<u8, TypeError> {
    Ok(fixed::<1>(input)?[0])
}

fn fixed<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], TypeError> {
    let (head, tail) =
        input.split_first_chunk::<N>().ok_or_else(|| corrupt("it ends too early"))?;
    *input = tail;
    Ok(*head)
}

fn unsigned(input: &mut &[u8]) -> Result<u64, TypeError> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let next = byte(input)?;
        let part = u64::from(next & 0x7f);
        if shift == 63 && part > 1 {
            break;
        }
        value |= part << shift;
        if next & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(corrupt("a number is too long"))
}

fn signed(input: &mut &[u8]) -> Result<i64, TypeError> {
    let zigzag = unsigned(input)?;
    Ok((zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed()))
}

fn narrow<T: TryFrom<i64>>(input: &mut &[u8]) -> Result<T, TypeError> {
    T::try_from(signed(input)?).map_err(|_| corrupt("a number is out of range"))
}

fn bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], TypeError> {
    let length = usize::try_from(unsigned(input)?).ok().filter(|length| *length <= input.len());
    let (head, tail) = input.split_at(length.ok_or_else(|| corrupt("it ends too early"))?);
    *input = tail;
    Ok(head)
}

fn str<'a>(input: &mut &'a [u8]) -> Result<&'a str, TypeError> {
    std::str::from_utf8(bytes(input)?).map_err(|_| corrupt("text is not UTF-8"))
}

fn type_of(input: &mut &[u8]) -> Result<Type, TypeError> {
    let oid = u32::try_from(unsigned(input)?).ok().and_then(Type::from_oid);
    oid.ok_or_else(|| corrupt("an unknown type"))
}

fn decode(input: &mut &[u8], depth: usize) -> Result<Datum, TypeError> {
    if depth > DEPTH_MAX {
        return Err(corrupt("it is nested too deep"));
    }
    Ok(match byte(input)? {
        tag::NULL => Datum::Null,
        tag::FALSE => Datum::Bool(false),
        tag::TRUE => Datum::Bool(true),
        tag::INT2 => Datum::Int2(narrow(input)?),
        tag::INT4 => Datum::Int4(narrow(input)?),
        tag::INT8 => Datum::Int8(signed(input)?),
        tag::FLOAT4 => Datum::Float4(f32::from_be_bytes(fixed(input)?)),
        tag::FLOAT8 => Datum::Float8(f64::from_be_bytes(fixed(input)?)),
        tag::NUMERIC_SMALL => {
            let dscale = u16::try_from(unsigned(input)?).ok();
            let dscale = dscale.filter(|d| usize::from(*d) <= super::numeric::SCALE_MAX);
            let dscale = dscale.ok_or_else(|| corrupt("a scale"))?;
            Datum::Numeric(Numeric::from_scaled(i128::from(signed(input)?), dscale))
        }
        tag::NUMERIC_TEXT => {
            let text = str(input)?;
            Datum::Numeric(Numeric::parse(text).map_err(|_| corrupt("a numeric"))?)
        }
        tag::TEXT => Datum::text(str(input)?),
        tag::BPCHAR => Datum::BpChar(Arc::from(str(input)?)),
        tag::BYTEA => Datum::bytea(bytes(input)?),
        tag::UUID => Datum::Uuid(fixed(input)?),
        tag::DATE => Datum::Date(narrow(input)?),
        tag::TIME => Datum::Time(i64::from_be_bytes(fixed(input)?)),
        tag::TIMESTAMP => Datum::Timestamp(i64::from_be_bytes(fixed(input)?)),
        tag::TIMESTAMPTZ => Datum::TimestampTz(i64::from_be_bytes(fixed(input)?)),
        tag::INTERVAL => Datum::Interval(Interval {
            months: narrow(input)?,
            days: narrow(input)?,
            us: signed(input)?,
        }),
        tag::JSONB => {
            let json = Json::parse(str(input)?).map_err(|_| corrupt("jsonb"))?;
            Datum::Jsonb(Arc::new(json))
        }
        tag::OID => Datum::Oid(unsigned(input)?.try_into().map_err(|_| corrupt("an oid"))?),
        tag::ARRAY => decode_array(input, depth)?,
        tag::RECORD => {
            let count = unsigned(input)?;
            let mut fields = Vec::new();
            for _ in 0..count {
                fields.push((type_of(input)?, decode(input, depth + 1)?));
            }
            Datum::record(fields)
        }
        _ => return Err(corrupt("an unknown tag")),
    })
}

fn decode_array(input: &mut &[u8], depth: usize) -> Result<Datum, TypeError> {
    let element = type_of(input)?;
    let dim_count = unsigned(input)? as usize;
    if dim_count > ArrayValue::DIMENSIONS_MAX {
        return Err(corrupt("an array has too many dimensions"));
    }
    let mut dims = Vec::with_capacity(dim_count);
    let mut count = usize::from(dim_count > 0);
    for _ in 0..dim_count {
        let length = usize::try_from(unsigned(input)?).ok().filter(|length| *length > 0);
        let length = length.ok_or_else(|| corrupt("a dimension"))?;
        dims.push(Dim { length, lower: narrow(input)? });
        count = count.checked_mul(length).ok_or_else(|| corrupt("a dimension"))?;
    }
    // Every element has at least its tag: a count that cannot be true is refused before memory is taken for it.
    if count > input.len() {
        return Err(corrupt("it ends too early"));
    }
    let elements: Result<Vec<Datum>, TypeError> =
        (0..count).map(|_| decode(input, depth + 1)).collect();
    Ok(Datum::Array(Arc::new(ArrayValue::with_dims(element, dims, elements?))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::key::tests::any_pair;
    use crate::types::{FixedContext, text};
    use proptest::prelude::*;

    #[test]
    fn known_answers_never_change() {
        let encoded = |value: Datum| {
            let mut out = Vec::new();
            value_encode(&value, &mut out);
            out
        };
        assert_eq!(encoded(Datum::Int4(-1)), [4, 1]);
        assert_eq!(encoded(Datum::Int8(64)), [5, 0x80, 1]);
        assert_eq!(encoded(Datum::text("ab")), [10, 2, 0x61, 0x62]);
        let numeric = Numeric::parse("1.10").expect("a numeric");
        assert_eq!(encoded(Datum::Numeric(numeric)), [8, 2, 0xdc, 1]);
        let array = Datum::array(Type::Int4, vec![Datum::Int4(1), Datum::Null]);
        assert_eq!(encoded(array), [21, 23, 1, 2, 2, 4, 2, 0]);
        let row = row_encode([(0, &Datum::Int4(1)), (1, &Datum::Null), (5, &Datum::Bool(true))]);
        assert_eq!(row, [1, 0, 4, 2, 4, 2]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn values_come_back_identical((ty, a, b) in any_pair()) {
            let row = row_encode([(3, &a), (300, &b)]);
            let expected: Vec<_> = [(3, a), (300, b)].into_iter().filter(|(_, v)| !v.is_null()).collect();
            let back = row_decode(&row).unwrap();
            prop_assert_eq!(&back, &expected);
            // Equality forgets the scale: the text does not.
            let show = |row: &[(u32, Datum)]| row.iter().map(|(_, v)| text::to_string(v, ty, &FixedContext::default())).collect::<Vec<_>>();
            if !matches!(ty, Type::Date | Type::Timestamp) {
                prop_assert_eq!(show(&back), show(&expected));
            }
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(prop_oneof![0u8..24, any::<u8>()], 0..40)) {
            let _ = row_decode(&bytes);
            let _ = value_decode(&mut bytes.as_slice());
        }
    }
}
