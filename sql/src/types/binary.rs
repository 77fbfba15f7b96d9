//! Values in PostgreSQL's binary wire format: a value. Everything is big-endian; text is UTF-8; NULL is the caller's length -1.
//!
//! INVARIANT: `read(write(v)) == v`. Errors: 22P03 for bytes that are no such value, 22021 for text that is not UTF-8.
//! Source: the `*send` and `*recv` functions of PostgreSQL 15.

use super::bignum::Natural;
use super::context::EvalContext;
use super::datetime as dt;
use super::datum::{ArrayValue, Datum, Dim, RecordValue};
use super::error::{SqlState, TypeError};
use super::interval::Interval;
use super::json::Json;
use super::numeric::{Class, Numeric};
use super::text;
use super::ty::Type;
use std::sync::Arc;

/// Version byte of `jsonb`.
const JSONB_VERSION: u8 = 1;
const NUMERIC_NEGATIVE: u16 = 0x4000;
const NUMERIC_NAN: u16 = 0xc000;
const NUMERIC_INFINITY: u16 = 0xd000;
const NUMERIC_NEGATIVE_INFINITY: u16 = 0xf000;

/// Appends a value that is not NULL; NULL appends nothing.
pub fn write(out: &mut Vec<u8>, value: &Datum, ty: Type, context: &dyn EvalContext) {
    match value {
        Datum::Null => {}
        Datum::Bool(value) => out.push(u8::from(*value)),
        Datum::Int2(value) => out.extend(value.to_be_bytes()),
        Datum::Int4(value) => out.extend(value.to_be_bytes()),
        Datum::Int8(value) => out.extend(value.to_be_bytes()),
        Datum::Float4(value) => out.extend(value.to_be_bytes()),
        Datum::Float8(value) => out.extend(value.to_be_bytes()),
        Datum::Numeric(value) => write_numeric(out, value),
        // `"char"` is always one byte.
        Datum::Text(value) if ty == Type::Char => out.push(value.bytes().next().unwrap_or(0)),
        Datum::Text(value) | Datum::BpChar(value) => out.extend(value.as_bytes()),
        Datum::Bytea(value) => out.extend(value.iter()),
        Datum::Uuid(value) => out.extend(value),
        Datum::Date(value) => out.extend(value.to_be_bytes()),
        Datum::Time(value) | Datum::Timestamp(value) | Datum::TimestampTz(value) => {
            out.extend(value.to_be_bytes());
        }
        Datum::Interval(value) => {
            out.extend(value.us.to_be_bytes());
            out.extend(value.days.to_be_bytes());
            out.extend(value.months.to_be_bytes());
        }
        Datum::Jsonb(value) => {
            out.push(JSONB_VERSION);
            out.extend(value.to_string().as_bytes());
        }
        Datum::Oid(value) => out.extend(value.to_be_bytes()),
        Datum::Array(value) => write_array(out, value, context),
        Datum::Record(value) => write_record(out, value, context),
    }
}

/// Appends a length and the value, or the length -1 of NULL.
pub fn write_field(out: &mut Vec<u8>, value: &Datum, ty: Type, context: &dyn EvalContext) {
    if value.is_null() {
        return out.extend((-1i32).to_be_bytes());
    }
    let start = out.len();
    out.extend([0; 4]);
    write(out, value, ty, context);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn write_array(out: &mut Vec<u8>, array: &ArrayValue, context: &dyn EvalContext) {
    let has_null = array.elements().iter().any(Datum::is_null);
    out.extend((array.dims().len() as u32).to_be_bytes());
    out.extend(u32::from(has_null).to_be_bytes());
    out.extend(array.element_type().oid().to_be_bytes());
    for dim in array.dims() {
        out.extend((dim.length as u32).to_be_bytes());
        out.extend(dim.lower.to_be_bytes());
    }
    for element in array.elements() {
        write_field(out, element, array.element_type(), context);
    }
}

fn write_record(out: &mut Vec<u8>, record: &RecordValue, context: &dyn EvalContext) {
    out.extend((record.fields.len() as u32).to_be_bytes());
    for (ty, field) in &record.fields {
        out.extend(ty.oid().to_be_bytes());
        write_field(out, field, *ty, context);
    }
}

fn write_numeric(out: &mut Vec<u8>, value: &Numeric) {
    let special = match value.class() {
        Class::NaN => Some(NUMERIC_NAN),
        Class::PositiveInfinity => Some(NUMERIC_INFINITY),
        Class::NegativeInfinity => Some(NUMERIC_NEGATIVE_INFINITY),
        Class::Finite => None,
    };
    let header = |out: &mut Vec<u8>, count: usize, weight: i64, sign: u16, dscale: u16| {
        out.extend((count as u16).to_be_bytes());
        out.extend((weight as i16).to_be_bytes());
        out.extend(sign.to_be_bytes());
        out.extend(dscale.to_be_bytes());
    };
    let Some(finite) = value.to_finite() else {
        return header(out, 0, 0, special.unwrap_or(NUMERIC_NAN), 0);
    };
    // Decimal digits grouped by four around the point.
    let padding = (4 - finite.dscale % 4) % 4;
    let digits = finite.magnitude.mul_pow10(padding).to_digits();
    let fraction_groups = (finite.dscale + padding) / 4;
    let mut groups: Vec<u16> = digits
        .as_bytes()
        .rchunks(4)
        .rev()
        .map(|chunk| chunk.iter().fold(0, |value, digit| value * 10 + u16::from(digit - b'0')))
        .collect();
    let weight = groups.len() as i64 - fraction_groups as i64 - 1;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let weight = if groups.is_empty() { 0 } else { weight };
    let sign = if finite.negative { NUMERIC_NEGATIVE } else { 0 };
    header(out, groups.len(), weight, sign, finite.dscale as u16);
    groups.iter().for_each(|group| out.extend(group.to_be_bytes()));
}

/// Reads a value of a type; all of `bytes` is the value.
pub fn read(
    bytes: &[u8],
    ty: Type,
    typmod: i32,
    context: &dyn EvalContext,
) -> Result<Datum, TypeError> {
    let mut input = Input(bytes);
    let value = read_value(&mut input, ty, typmod, context)?;
    if !input.0.is_empty() {
        return Err(TypeError::binary("incorrect binary data format"));
    }
    Ok(value)
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], TypeError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or_else(short)?;
        self.0 = tail;
        Ok(*head)
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], TypeError> {
        if count > self.0.len() {
            return Err(short());
        }
        let (head, tail) = self.0.split_at(count);
        self.0 = tail;
        Ok(head)
    }

    fn i32(&mut self) -> Result<i32, TypeError> {
        Ok(i32::from_be_bytes(self.take()?))
    }

    fn u16(&mut self) -> Result<u16, TypeError> {
        Ok(u16::from_be_bytes(self.take()?))
    }

    fn i64(&mut self) -> Result<i64, TypeError> {
        Ok(i64::from_be_bytes(self.take()?))
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn text(&mut self) -> Result<&'a str, TypeError> {
        let bytes = self.rest();
        std::str::from_utf8(bytes).map_err(|error| {
            let bad = bytes.get(error.valid_up_to()).copied().unwrap_or(0);
            TypeError::new(
                SqlState::CHARACTER_NOT_IN_REPERTOIRE,
                format!("invalid byte sequence for encoding \"UTF8\": 0x{bad:02x}"),
            )
        })
    }
}

fn short() -> TypeError {
    TypeError::binary("insufficient data left in message")
}

fn read_value(
    input: &mut Input<'_>,
    ty: Type,
    typmod: i32,
    context: &dyn EvalContext,
) -> Result<Datum, TypeError> {
    Ok(match ty.base() {
        Type::Bool => Datum::Bool(input.take::<1>()?[0] != 0),
        Type::Int2 => Datum::Int2(i16::from_be_bytes(input.take()?)),
        Type::Int4 => Datum::Int4(input.i32()?),
        Type::Int8 | Type::Counter => Datum::Int8(input.i64()?),
        Type::Float4 => Datum::Float4(f32::from_be_bytes(input.take()?)),
        Type::Float8 => Datum::Float8(f64::from_be_bytes(input.take()?)),
        Type::Numeric => Datum::Numeric(read_numeric(input)?.apply_typmod(typmod)?),
        Type::Bytea => Datum::bytea(input.rest()),
        Type::Uuid => Datum::Uuid(input.take()?),
        Type::Date => {
            let days = input.i32()?;
            let infinite = matches!(days, i32::MIN | i32::MAX);
            Datum::Date(if infinite { days } else { dt::checked_date(i64::from(days))? })
        }
        Type::Time => match input.i64()? {
            us @ 0..=dt::US_PER_DAY => Datum::Time(dt::round_us(us, typmod)),
            _ => {
                return Err(TypeError::new(SqlState::DATETIME_FIELD_OVERFLOW, "time out of range"));
            }
        },
        Type::Timestamp => Datum::Timestamp(text::round_timestamp(read_timestamp(input)?, typmod)),
        Type::TimestampTz => {
            Datum::TimestampTz(text::round_timestamp(read_timestamp(input)?, typmod))
        }
        Type::Interval => {
            let (us, days, months) = (input.i64()?, input.i32()?, input.i32()?);
            Datum::Interval(text::fit_interval(Interval { months, days, us }, typmod))
        }
        Type::Jsonb => {
            if input.take::<1>()?[0] != JSONB_VERSION {
                return Err(TypeError::binary("unsupported jsonb version number"));
            }
            Datum::Jsonb(Arc::new(Json::parse(input.text()?)?))
        }
        Type::Char => {
            let byte = input.take::<1>()?[0];
            Datum::text(if byte == 0 { String::new() } else { char::from(byte).to_string() })
        }
        oid if oid.is_oid_like() || oid == Type::Xid => {
            Datum::Oid(u32::from_be_bytes(input.take()?))
        }
        Type::Record => read_record(input, context)?,
        Type::Void => Datum::Null,
        array if array.element().is_some() => read_array(input, array, typmod, context)?,
        // What remains is text: its binary form is its text form.
        other => text::parse(input.text()?, other, typmod, context)?,
    })
}

fn read_timestamp(input: &mut Input<'_>) -> Result<i64, TypeError> {
    match input.i64()? {
        us @ (dt::TIMESTAMP_INFINITY | dt::TIMESTAMP_NEGATIVE_INFINITY) => Ok(us),
        us => dt::checked_timestamp(Some(us)),
    }
}

fn read_field(
    input: &mut Input<'_>,
    ty: Type,
    typmod: i32,
    context: &dyn EvalContext,
) -> Result<Datum, TypeError> {
    match input.i32()? {
        -1 => Ok(Datum::Null),
        length => {
            let length = usize::try_from(length).map_err(|_| short())?;
            read(input.bytes(length)?, ty, typmod, context)
        }
    }
}

fn read_array(
    input: &mut Input<'_>,
    ty: Type,
    typmod: i32,
    context: &dyn EvalContext,
) -> Result<Datum, TypeError> {
    let element = ty.element().expect("the caller asked for an array");
    let dim_count = input.i32()?;
    let flags = input.i32()?;
    let oid = u32::from_be_bytes(input.take()?);
    if !(0..=ArrayValue::DIMENSIONS_MAX as i32).contains(&dim_count) || !(0..=1).contains(&flags) {
        return Err(TypeError::binary("invalid array header"));
    }
    if oid != element.oid() {
        return Err(TypeError::new(SqlState::DATATYPE_MISMATCH, "wrong element type").with_detail(
            format!(
                "binary data has array element type {oid} instead of expected {}",
                element.oid()
            ),
        ));
    }
    let mut dims = Vec::new();
    let mut count = usize::from(dim_count > 0);
    for _ in 0..dim_count {
        let length = usize::try_from(input.i32()?)
            .map_err(|_| TypeError::binary("invalid array dimension"))?;
        dims.push(Dim { length, lower: input.i32()? });
        count = count.checked_mul(length).ok_or_else(short)?;
    }
    // Every element has a length of four bytes: refuse counts that cannot be true before memory is taken for them.
    if count > input.0.len() / 4 {
        return Err(short());
    }
    let elements: Result<Vec<Datum>, TypeError> =
        (0..count).map(|_| read_field(input, element, typmod, context)).collect();
    Ok(Datum::Array(Arc::new(ArrayValue::with_dims(element, dims, elements?))))
}

fn read_record(input: &mut Input<'_>, context: &dyn EvalContext) -> Result<Datum, TypeError> {
    let count = input.i32()?;
    let mut fields = Vec::new();
    for _ in 0..count {
        let oid = u32::from_be_bytes(input.take()?);
        let ty = Type::from_oid(oid).ok_or_else(|| {
            TypeError::new(SqlState::UNDEFINED_OBJECT, format!("unrecognized type OID {oid}"))
        })?;
        fields.push((ty, read_field(input, ty, -1, context)?));
    }
    Ok(Datum::record(fields))
}

fn read_numeric(input: &mut Input<'_>) -> Result<Numeric, TypeError> {
    let count = usize::from(input.u16()?);
    let weight = i16::from_be_bytes(input.take()?);
    let sign = input.u16()?;
    let dscale = usize::from(input.u16()?);
    let negative = match sign {
        0 => false,
        NUMERIC_NEGATIVE => true,
        NUMERIC_NAN => return Ok(Numeric::NAN),
        NUMERIC_INFINITY => return Ok(Numeric::INFINITY),
        NUMERIC_NEGATIVE_INFINITY => return Ok(Numeric::NEGATIVE_INFINITY),
        _ => return Err(TypeError::binary("invalid sign in external \"numeric\" value")),
    };
    if dscale > super::numeric::SCALE_MAX {
        return Err(TypeError::binary("invalid scale in external \"numeric\" value"));
    }
    let mut digits = Vec::with_capacity(count * 4);
    for _ in 0..count {
        match input.u16()? {
            group @ 0..=9999 => digits.extend(format!("{group:04}").bytes()),
            _ => return Err(TypeError::binary("invalid digit in external \"numeric\" value")),
        }
    }
    // Decimal places that the groups reach to; PostgreSQL cuts what lies beyond the scale.
    let places = (count as i64 - 1 - i64::from(weight)) * 4;
    let magnitude = Natural::from_digits(&digits);
    let scaled = match dscale as i64 - places {
        more @ 0.. => magnitude.mul_pow10(more as usize),
        fewer => magnitude.div_pow10(fewer.unsigned_abs() as usize),
    };
    Numeric::finite(negative && !scaled.is_zero(), scaled, dscale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::FixedContext;
    use crate::types::key::tests::any_pair;
    use proptest::prelude::*;

    fn binary(text: &str, ty: Type) -> Vec<u8> {
        let context = FixedContext::default();
        let value = text::parse(text, ty, -1, &context).expect(text);
        let mut out = Vec::new();
        write(&mut out, &value, ty, &context);
        out
    }

    #[test]
    fn known_answers_of_postgres() {
        // From `numeric_send` and kin.
        assert_eq!(
            binary("12345.678", Type::Numeric),
            [0, 3, 0, 1, 0, 0, 0, 3, 0, 1, 9, 41, 26, 124]
        );
        assert_eq!(binary("-0.0001", Type::Numeric), [0, 1, 255, 255, 64, 0, 0, 4, 0, 1]);
        assert_eq!(binary("0", Type::Numeric), [0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(binary("10000", Type::Numeric), [0, 1, 0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(binary("{}", Type::Array(&Type::Int4)), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 23]);
        assert_eq!(binary("{\"a\":1}", Type::Jsonb), b"\x01{\"a\": 1}");
    }

    #[test]
    fn broken_values_are_refused() {
        let context = FixedContext::default();
        let code =
            |bytes: &[u8], ty| read(bytes, ty, -1, &context).expect_err("broken").code.to_string();
        assert_eq!(code(&[0, 0], Type::Int4), "22P03");
        assert_eq!(code(&[0, 0, 0, 0, 0], Type::Int4), "22P03");
        assert_eq!(code(&[0xff], Type::Text), "22021");
        assert_eq!(code(&[2, b'1'], Type::Jsonb), "22P03");
        assert_eq!(code(&[0, 1, 0, 0, 0, 0, 0, 0, 0xff, 0xff], Type::Numeric), "22P03");
        assert_eq!(code(&i64::MAX.wrapping_sub(1).to_be_bytes(), Type::Timestamp), "22008");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn values_round_trip((ty, a, _) in any_pair()) {
            let context = FixedContext::default();
            let in_range = match &a {
                Datum::Null => false,
                Datum::Text(text) | Datum::BpChar(text) => !text.contains('\0'),
                Datum::Date(days) => dt::checked_date(i64::from(*days)).is_ok(),
                Datum::Timestamp(us) => dt::is_timestamp(*us),
                _ => true,
            };
            prop_assume!(in_range);
            let mut out = Vec::new();
            write(&mut out, &a, ty, &context);
            let back = read(&out, ty, -1, &context).unwrap();
            prop_assert_eq!(text::to_string(&back, ty, &context), text::to_string(&a, ty, &context));
        }

        #[test]
        fn garbage_never_panics((ty, _, _) in any_pair(), bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = read(&bytes, ty, -1, &FixedContext::default());
        }
    }
}
