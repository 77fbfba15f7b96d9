//! Values to and from text, exactly as PostgreSQL 15's input and output functions: a value.
//!
//! One place decides by type: [`parse`] is every type's input function, [`write`] every type's output function. `parse` applies
//! the typmod as an assignment of a string literal does: `varchar(3)` refuses a longer text (22001) unless only blanks are lost.
//!
//! INVARIANT: `parse(write(v)) == v` for every type; checked against PostgreSQL's own output in `tests/`.

use super::array_text;
use super::context::{ByteaOutput, EvalContext};
use super::datetime as dt;
use super::datetime_in;
use super::datum::{ArrayValue, Datum};
use super::error::{SqlState, TypeError};
use super::float;
use super::interval::Interval;
use super::json::Json;
use super::numeric::Numeric;
use super::ty::Type;
use std::sync::Arc;

/// Longest identifier (`name`), in bytes.
pub const NAME_BYTES_MAX: usize = 63;

/// What C's `isspace` accepts.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

/// Reads a value of a type from its text. Codes as PostgreSQL's: 22P02, 22003, 22007, 22008, 22001, 22021.
pub fn parse(
    text: &str,
    ty: Type,
    typmod: i32,
    context: &dyn EvalContext,
) -> Result<Datum, TypeError> {
    let value = match ty {
        Type::Bool => Datum::Bool(parse_bool(text)?),
        Type::Int2 => {
            Datum::Int2(parse_integer(text, "smallint", i16::MIN.into(), i16::MAX.into())? as i16)
        }
        Type::Int4 => {
            Datum::Int4(parse_integer(text, "integer", i32::MIN.into(), i32::MAX.into())? as i32)
        }
        Type::Int8 | Type::Counter => {
            Datum::Int8(parse_integer(text, "bigint", i64::MIN, i64::MAX)?)
        }
        Type::Float4 => Datum::Float4(float::parse_f32(text)?),
        Type::Float8 => Datum::Float8(float::parse_f64(text)?),
        Type::Numeric => Datum::Numeric(Numeric::parse(text)?.apply_typmod(typmod)?),
        Type::Text | Type::Unknown | Type::CString | Type::PgNodeTree | Type::AclItem => {
            Datum::Text(checked_text(text)?)
        }
        Type::Varchar => Datum::Text(checked_text(fit_varchar(text, typmod, Overlong::Refused)?)?),
        Type::BpChar => {
            checked_text(text)?;
            Datum::BpChar(fit_char(text, typmod, Overlong::Refused)?)
        }
        Type::Name => Datum::Text(checked_text(truncate_name(text))?),
        Type::Char => Datum::Text(parse_char(text)),
        Type::Bytea => Datum::Bytea(parse_bytea(text)?),
        Type::Uuid => Datum::Uuid(parse_uuid(text)?),
        Type::Date => Datum::Date(datetime_in::parse_date(text, context)?),
        Type::Time => Datum::Time(dt::round_us(datetime_in::parse_time(text, context)?, typmod)),
        Type::Timestamp => {
            Datum::Timestamp(round_timestamp(datetime_in::parse_timestamp(text, context)?, typmod))
        }
        Type::TimestampTz => Datum::TimestampTz(round_timestamp(
            datetime_in::parse_timestamptz(text, context)?,
            typmod,
        )),
        Type::Interval => Datum::Interval(fit_interval(Interval::parse(text)?, typmod)),
        Type::Json => {
            Json::check(text)?;
            Datum::Text(checked_text(text)?)
        }
        Type::Jsonb => Datum::Jsonb(Arc::new(Json::parse(text)?)),
        Type::Oid | Type::Xid => Datum::Oid(parse_oid(text)?),
        Type::RegClass
        | Type::RegType
        | Type::RegProc
        | Type::RegProcedure
        | Type::RegNamespace
        | Type::RegRole => Datum::Oid(parse_reg(text, ty, context)?),
        Type::Int2Vector | Type::OidVector => parse_vector(text, ty, context)?,
        Type::Array(element) => array_text::parse(text, *element, typmod, context)?,
        Type::Void => Datum::Null,
        Type::Record => {
            return Err(TypeError::unsupported(
                "input of anonymous composite types is not implemented",
            ));
        }
        Type::Any | Type::AnyArray | Type::AnyElement | Type::AnyNonArray => {
            return Err(TypeError::unsupported(format!("cannot accept a value of type {ty}")));
        }
    };
    Ok(value)
}

/// Appends the text of a value of type `ty`. NULL appends nothing: the caller shows it.
pub fn write(out: &mut String, value: &Datum, ty: Type, context: &dyn EvalContext) {
    use std::fmt::Write;
    match value {
        Datum::Null => {}
        Datum::Bool(value) => out.push(if *value { 't' } else { 'f' }),
        Datum::Int2(value) => drop(write!(out, "{value}")),
        Datum::Int4(value) => drop(write!(out, "{value}")),
        Datum::Int8(value) => drop(write!(out, "{value}")),
        Datum::Float4(value) => match context.extra_float_digits() {
            1.. => float::write_f32(out, *value),
            extra => float::write_rounded(out, f64::from(*value), (6 + extra).max(1) as usize),
        },
        Datum::Float8(value) => match context.extra_float_digits() {
            1.. => float::write_f64(out, *value),
            extra => float::write_rounded(out, *value, (15 + extra).max(1) as usize),
        },
        Datum::Numeric(value) => drop(write!(out, "{value}")),
        Datum::Text(value) | Datum::BpChar(value) => out.push_str(value),
        Datum::Bytea(value) => write_bytea(out, value, context.bytea_output()),
        Datum::Uuid(value) => write_uuid(out, value),
        Datum::Date(value) => dt::write_date_value(out, *value),
        Datum::Time(value) => dt::write_time(out, *value),
        Datum::Timestamp(value) => dt::write_timestamp(out, *value),
        Datum::TimestampTz(value) => dt::write_timestamptz(out, *value, context.time_zone()),
        Datum::Interval(value) => drop(write!(out, "{value}")),
        Datum::Jsonb(value) => drop(write!(out, "{value}")),
        Datum::Oid(0) if ty.is_reg() => out.push('-'),
        Datum::Oid(value) => match ty.is_reg().then(|| context.reg_name(ty, *value)).flatten() {
            Some(name) => out.push_str(&name),
            None => drop(write!(out, "{value}")),
        },
        Datum::Array(value) => match ty {
            Type::Int2Vector | Type::OidVector => write_vector(out, value, context),
            _ => array_text::write(out, value, context),
        },
        Datum::Record(value) => array_text::write_record(out, value, context),
    }
}

/// The text of a value of type `ty`; NULL is the empty string.
pub fn to_string(value: &Datum, ty: Type, context: &dyn EvalContext) -> String {
    let mut out = String::new();
    write(&mut out, value, ty, context);
    out
}

/// What to do with text that is longer than its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlong {
    /// 22001, unless only blanks are lost: assignment.
    Refused,
    /// Cut off: an explicit cast.
    Cut,
}

/// Text as it is stored in a `varchar` with that typmod.
pub fn fit_varchar(text: &str, typmod: i32, overlong: Overlong) -> Result<&str, TypeError> {
    let length = (typmod - 4) as usize;
    let cut = match typmod {
        ..=4 => None,
        _ => text.char_indices().nth(length).map(|(at, _)| at),
    };
    match cut {
        None => Ok(text),
        Some(at) if overlong == Overlong::Cut || text[at..].trim_start_matches(' ').is_empty() => {
            Ok(&text[..at])
        }
        Some(_) => Err(too_long("character varying", length)),
    }
}

/// Text as it is stored in a `char(n)` with that typmod: padded with blanks.
pub fn fit_char(text: &str, typmod: i32, overlong: Overlong) -> Result<Arc<str>, TypeError> {
    if typmod <= 4 {
        return Ok(Arc::from(text));
    }
    let length = (typmod - 4) as usize;
    let fitted = fit_varchar(text, typmod, overlong).map_err(|_| too_long("character", length))?;
    let missing = length - fitted.chars().count();
    if missing == 0 {
        return Ok(Arc::from(fitted));
    }
    let mut padded = String::with_capacity(fitted.len() + missing);
    padded.push_str(fitted);
    padded.extend(std::iter::repeat_n(' ', missing));
    Ok(Arc::from(padded))
}

fn too_long(name: &str, length: usize) -> TypeError {
    TypeError::new(
        SqlState::STRING_DATA_RIGHT_TRUNCATION,
        format!("value too long for type {name}({length})"),
    )
}

/// A timestamp rounded to its typmod's precision; infinities stay.
pub fn round_timestamp(us: i64, typmod: i32) -> i64 {
    match us {
        dt::TIMESTAMP_INFINITY | dt::TIMESTAMP_NEGATIVE_INFINITY => us,
        us => dt::round_us(us, typmod),
    }
}

/// An interval rounded to its typmod's precision.
pub fn fit_interval(interval: Interval, typmod: i32) -> Interval {
    match typmod {
        ..0 => interval,
        _ => interval.rounded(typmod & 0xffff),
    }
}

/// An identifier cut to 63 bytes at a character's border.
pub fn truncate_name(text: &str) -> &str {
    let mut end = text.len().min(NAME_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn checked_text(text: &str) -> Result<Arc<str>, TypeError> {
    if text.contains('\0') {
        return Err(TypeError::new(
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            "invalid byte sequence for encoding \"UTF8\": 0x00",
        ));
    }
    Ok(Arc::from(text))
}

/// `"char"` keeps one byte; what is no ASCII is beyond our text.
fn parse_char(text: &str) -> Arc<str> {
    Arc::from(text.chars().next().filter(char::is_ascii).map(String::from).unwrap_or_default())
}

fn parse_bool(input: &str) -> Result<bool, TypeError> {
    let text = input.trim_matches(is_space).to_ascii_lowercase();
    let is_prefix =
        |word: &str, length_min: usize| text.len() >= length_min && word.starts_with(&*text);
    if is_prefix("true", 1) || is_prefix("yes", 1) || text == "on" || text == "1" {
        return Ok(true);
    }
    if is_prefix("false", 1) || is_prefix("no", 1) || is_prefix("off", 2) || text == "0" {
        return Ok(false);
    }
    Err(TypeError::syntax("boolean", input))
}

fn parse_integer(text: &str, name: &str, min: i64, max: i64) -> Result<i64, TypeError> {
    let trimmed = text.trim_matches(is_space);
    let digits = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(TypeError::syntax(name, text));
    }
    let value = trimmed.parse::<i64>().ok().filter(|value| (min..=max).contains(value));
    value.ok_or_else(|| {
        TypeError::new(
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            format!("value \"{text}\" is out of range for type {name}"),
        )
    })
}

fn parse_oid(text: &str) -> Result<u32, TypeError> {
    let value = parse_integer(text, "oid", i64::MIN, i64::MAX)?;
    // PostgreSQL wraps negative numbers: -1 is 4294967295.
    let wrapped =
        u32::try_from(value).ok().or_else(|| i32::try_from(value).ok().map(i32::cast_unsigned));
    wrapped.ok_or_else(|| {
        TypeError::new(
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            format!("value \"{text}\" is out of range for type oid"),
        )
    })
}

fn parse_reg(text: &str, ty: Type, context: &dyn EvalContext) -> Result<u32, TypeError> {
    if text == "-" {
        return Ok(0);
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return parse_oid(text);
    }
    context.reg_oid(ty, text)
}

fn parse_vector(text: &str, ty: Type, context: &dyn EvalContext) -> Result<Datum, TypeError> {
    let element = ty.element().expect("vectors have elements");
    let parts = text.split(is_space).filter(|part| !part.is_empty());
    let elements: Result<Vec<Datum>, TypeError> =
        parts.map(|part| parse(part, element, -1, context)).collect();
    Ok(Datum::Array(Arc::new(ArrayValue::with_lower(element, elements?, 0))))
}

fn write_vector(out: &mut String, value: &ArrayValue, context: &dyn EvalContext) {
    for (index, element) in value.elements().iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        write(out, element, value.element_type(), context);
    }
}

fn parse_bytea(text: &str) -> Result<Arc<[u8]>, TypeError> {
    if let Some(hex) = text.strip_prefix("\\x") {
        return parse_hex(hex).map(Arc::from);
    }
    parse_bytea_escape(text).map(Arc::from)
}

/// Hexadecimal digits with blanks between pairs. 22023 for anything else, as PostgreSQL.
pub fn parse_hex(text: &str) -> Result<Vec<u8>, TypeError> {
    let mut out = Vec::with_capacity(text.len() / 2);
    let mut chars = text.chars().filter(|c| !is_space(*c));
    let digit = |c: char| {
        c.to_digit(16)
            .map(|d| d as u8)
            .ok_or_else(|| TypeError::parameter(format!("invalid hexadecimal digit: \"{c}\"")))
    };
    while let Some(high) = chars.next() {
        let high = digit(high)?;
        let low = chars.next().ok_or_else(|| {
            TypeError::parameter("invalid hexadecimal data: odd number of digits")
        })?;
        out.push(high << 4 | digit(low)?);
    }
    Ok(out)
}

/// `\\` and `\ooo` escapes. 22P02 for a broken one.
pub fn parse_bytea_escape(text: &str) -> Result<Vec<u8>, TypeError> {
    let wrong = || {
        TypeError::new(SqlState::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type bytea")
    };
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at..] {
            [b'\\', b'\\', ..] => {
                out.push(b'\\');
                at += 2;
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                at += 4;
            }
            [b'\\', ..] => return Err(wrong()),
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    Ok(out)
}

/// Appends lower-case hexadecimal digits.
pub fn write_hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// Appends bytes as `bytea_output` wants them.
pub fn write_bytea(out: &mut String, bytes: &[u8], form: ByteaOutput) {
    match form {
        ByteaOutput::Hex => {
            out.push_str("\\x");
            write_hex(out, bytes);
        }
        ByteaOutput::Escape => {
            for byte in bytes {
                match byte {
                    b'\\' => out.push_str("\\\\"),
                    b' '..=b'~' => out.push(char::from(*byte)),
                    byte => out.push_str(&format!("\\{byte:03o}")),
                }
            }
        }
    }
}

fn parse_uuid(text: &str) -> Result<[u8; 16], TypeError> {
    let wrong = || TypeError::syntax("uuid", text);
    let body = match (text.strip_prefix('{'), text.strip_suffix('}')) {
        (Some(_), Some(_)) if text.len() > 1 => &text[1..text.len() - 1],
        (None, None) => text,
        _ => return Err(wrong()),
    };
    let mut out = [0; 16];
    let mut digits = 0;
    let mut previous_hyphen = true;
    for byte in body.bytes() {
        // A hyphen may stand after every fourth digit.
        if byte == b'-' {
            if previous_hyphen || digits % 4 != 0 || digits == 32 {
                return Err(wrong());
            }
            previous_hyphen = true;
            continue;
        }
        let value = char::from(byte).to_digit(16).filter(|_| digits < 32).ok_or_else(wrong)?;
        out[digits / 2] = out[digits / 2] << 4 | value as u8;
        digits += 1;
        previous_hyphen = false;
    }
    if digits == 32 { Ok(out) } else { Err(wrong()) }
}

/// Appends `8-4-4-4-12` hexadecimal digits.
pub fn write_uuid(out: &mut String, value: &[u8; 16]) {
    for (index, part) in [0..4, 4..6, 6..8, 8..10, 10..16].into_iter().enumerate() {
        if index > 0 {
            out.push('-');
        }
        write_hex(out, &value[part]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::context::FixedContext;

    fn round(text: &str, ty: Type, typmod: i32) -> String {
        let context = FixedContext::default();
        let value = parse(text, ty, typmod, &context).expect(text);
        to_string(&value, ty, &context)
    }

    fn code(text: &str, ty: Type, typmod: i32) -> String {
        let context = FixedContext::default();
        parse(text, ty, typmod, &context).expect_err(text).code.to_string()
    }

    #[test]
    fn values_print_as_postgres_prints_them() {
        assert_eq!(round(" TRUE ", Type::Bool, -1), "t");
        assert_eq!(round("of", Type::Bool, -1), "f");
        assert_eq!(round(" -32768 ", Type::Int2, -1), "-32768");
        assert_eq!(round("abc   ", Type::Varchar, 7), "abc");
        assert_eq!(round("abc", Type::BpChar, 9), "abc  ");
        assert_eq!(round("\\x DE ad", Type::Bytea, -1), "\\xdead");
        assert_eq!(round("a\\000\\\\b", Type::Bytea, -1), "\\x61005c62");
        assert_eq!(
            round("{A0EEBC99-9C0B4EF8-BB6D6BB9BD380A11}", Type::Uuid, -1),
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
        );
        assert_eq!(round("-1", Type::Oid, -1), "4294967295");
        assert_eq!(round("1 2  3", Type::Int2Vector, -1), "1 2 3");
        assert_eq!(
            round("2021-05-05 01:02:03.456789", Type::Timestamp, 3),
            "2021-05-05 01:02:03.457"
        );
    }

    #[test]
    fn errors_have_postgres_codes() {
        assert_eq!(code("abcd", Type::Varchar, 7), "22001");
        assert_eq!(code("32768", Type::Int2, -1), "22003");
        assert_eq!(code("99999999999999999999", Type::Int4, -1), "22003");
        assert_eq!(code("1.5", Type::Int4, -1), "22P02");
        assert_eq!(code("maybe", Type::Bool, -1), "22P02");
        assert_eq!(code("o", Type::Bool, -1), "22P02");
        assert_eq!(code("\\x1", Type::Bytea, -1), "22023");
        assert_eq!(code("a\\9", Type::Bytea, -1), "22P02");
        assert_eq!(code("a0eebc999-c0b4ef8bb6d6bb9bd380a11", Type::Uuid, -1), "22P02");
        assert_eq!(code("a\0b", Type::Text, -1), "22021");
    }
}
