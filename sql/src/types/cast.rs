//! Conversions between types: a value. Which there are, who may ask for them, and what they do.
//!
//! As in PostgreSQL's `pg_cast` a conversion is *implicit* (made in any expression), by *assignment* (when a value is stored in a
//! column), or *explicit* (`CAST`, `::`). Beyond the table every type converts to text by assignment and from text explicitly,
//! through its text form; arrays convert as their elements do.
//!
//! Narrowing checks: 22003 for numbers, 22008 for dates, 22001 for text that an assignment would cut.

use super::context::EvalContext;
use super::datetime as dt;
use super::datum::{ArrayValue, Datum};
use super::error::{SqlState, TypeError};
use super::json::Json;
use super::numeric::{Class, Numeric};
use super::text::{self, Overlong};
use super::ty::{Type, numeric_precision_scale};
use std::sync::Arc;

/// Who asks for a conversion; a later variant may do all that an earlier one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CastContext {
    /// Nobody: the expression needs it.
    Implicit,
    /// Storing in a column.
    Assignment,
    /// `CAST(x AS t)`, `x::t`.
    Explicit,
}

/// True if the conversion may be made in that context. A type converts to itself.
pub fn castable(from: Type, to: Type, context: CastContext) -> bool {
    least_context(from, to).is_some_and(|least| least <= context)
}

/// The least that must be asked for this conversion; `None` if there is none.
pub fn least_context(from: Type, to: Type) -> Option<CastContext> {
    use CastContext::*;
    use Type::*;
    let (from, to) = (from.base(), to.base());
    if from == to || from == Unknown || matches!(to, Any | AnyElement) {
        return Some(Implicit);
    }
    let level = match (from, to) {
        (Array(a), Array(b)) => return least_context(*a, *b),
        (Array(_) | Int2Vector | OidVector, AnyArray) => Implicit,
        (Int2Vector, Array(Int2)) | (OidVector, Array(Oid)) => Implicit,
        (Int2, Int4 | Int8 | Float4 | Float8 | Numeric | Oid) => Implicit,
        (Int4, Int8 | Float4 | Float8 | Numeric | Oid) => Implicit,
        (Int8, Float4 | Float8 | Numeric | Oid) => Implicit,
        (Int4 | Int8, Int2) | (Int8, Int4) => Assignment,
        (Float4, Float8) | (Numeric, Float4 | Float8) => Implicit,
        (Float4 | Float8 | Numeric, Int2 | Int4 | Int8) => Assignment,
        (Float8, Float4) | (Float4 | Float8, Numeric) => Assignment,
        (Bool, Int4) | (Int4, Bool | Char) | (Char, Int4) => Explicit,
        (Int2 | Int4 | Int8 | Oid, reg) if reg.is_reg() => Implicit,
        (reg, Oid) if reg.is_reg() => Implicit,
        (oid, Int4 | Int8) if oid.is_oid_like() => Assignment,
        (RegProc, RegProcedure) | (RegProcedure, RegProc) => Implicit,
        (Text | Varchar, RegClass) => Implicit,
        (Text | Varchar | BpChar, Text | Varchar | BpChar | Name) => Implicit,
        (Name, Text) | (Char, Text) | (PgNodeTree, Text) => Implicit,
        (Name | Char, Varchar | BpChar) | (Text | Varchar | BpChar, Char) => Assignment,
        (Date, Timestamp | TimestampTz) | (Timestamp, TimestampTz) => Implicit,
        (Timestamp, Date | Time) | (TimestampTz, Date | Time | Timestamp) => Assignment,
        (Time, Interval) => Implicit,
        (Interval, Time) => Assignment,
        (Json, Jsonb) | (Jsonb, Json) => Assignment,
        (Jsonb, Bool | Int2 | Int4 | Int8 | Numeric | Float4 | Float8) => Explicit,
        (Any | AnyArray | AnyElement | AnyNonArray | Void, _) => return None,
        (_, Any | AnyArray | AnyElement | AnyNonArray | Void | Unknown | Record) => return None,
        (_, string) if string.category() == 'S' => Assignment,
        (string, _) if string.category() == 'S' || string == CString => Explicit,
        _ => return None,
    };
    Some(level)
}

/// Converts a value. The context decides whether text that is too long is cut (explicit) or refused.
/// 42846 if there is no such conversion; whether it was allowed is the caller's question to [`castable`].
pub fn cast(
    value: &Datum,
    from: Type,
    to: Type,
    typmod: i32,
    context: CastContext,
    eval: &dyn EvalContext,
) -> Result<Datum, TypeError> {
    if value.is_null() {
        return Ok(Datum::Null);
    }
    let (from, to) = (from.base(), to.base());
    if from == to {
        return apply_typmod(value.clone(), to, typmod, context);
    }
    if from == Type::Unknown || from == Type::CString {
        let text = value.as_str().ok_or_else(|| no_cast(from, to))?;
        // Only lengths treat an explicit cast differently from an assignment.
        if matches!(to, Type::Varchar | Type::BpChar) {
            return apply_typmod(text::parse(text, to, -1, eval)?, to, typmod, context);
        }
        return text::parse(text, to, typmod, eval);
    }
    let converted = convert(value, from, to, typmod, context, eval)?;
    apply_typmod(converted, to, typmod, context)
}

fn no_cast(from: Type, to: Type) -> TypeError {
    TypeError::new(SqlState::CANNOT_COERCE, format!("cannot cast type {from} to {to}"))
}

/// Whether every value of one type is one of the other as it stands, with the same text: a column's type can become that without a look at
/// its rows. Types with their modifiers.
pub fn widens((from, given): (Type, i32), (to, wanted): (Type, i32)) -> bool {
    if let (Type::Array(element), true) = (from, from == to) {
        return widens((*element, given), (*element, wanted));
    }
    let string = |ty| matches!(ty, Type::Text | Type::Varchar);
    if from != to && !(string(from) && string(to)) {
        return false;
    }
    if given == wanted || wanted < 0 {
        return true;
    }
    match to {
        _ if given < 0 => false,
        Type::Varchar | Type::Time | Type::Timestamp | Type::TimestampTz => wanted >= given,
        Type::Numeric => match (numeric_precision_scale(given), numeric_precision_scale(wanted)) {
            (Some((before, scale)), Some((after, same))) => scale == same && after >= before,
            _ => false,
        },
        // char(n) is filled up with blanks, and an interval's fields are no size.
        _ => false,
    }
}

/// The value as a column with this typmod keeps it.
pub fn apply_typmod(
    value: Datum,
    ty: Type,
    typmod: i32,
    context: CastContext,
) -> Result<Datum, TypeError> {
    if typmod < 0 {
        return Ok(value);
    }
    let overlong = match context {
        CastContext::Explicit => Overlong::Cut,
        CastContext::Implicit | CastContext::Assignment => Overlong::Refused,
    };
    Ok(match (value, ty) {
        (Datum::Text(text), Type::Varchar) => match text::fit_varchar(&text, typmod, overlong)? {
            fitted if fitted.len() == text.len() => Datum::Text(text),
            fitted => Datum::text(fitted),
        },
        (Datum::BpChar(text), Type::BpChar) => {
            // Blanks at the end of a longer char(n) are padding, not content.
            let content = text.trim_end_matches(' ');
            Datum::BpChar(text::fit_char(content, typmod, overlong)?)
        }
        (Datum::Numeric(value), _) => Datum::Numeric(value.apply_typmod(typmod)?),
        (Datum::Time(us), _) => Datum::Time(dt::round_us(us, typmod)),
        (Datum::Timestamp(us), _) => Datum::Timestamp(text::round_timestamp(us, typmod)),
        (Datum::TimestampTz(us), _) => Datum::TimestampTz(text::round_timestamp(us, typmod)),
        (Datum::Interval(value), _) => Datum::Interval(text::fit_interval(value, typmod)),
        (Datum::Array(array), Type::Array(element)) => map_array(&array, *element, |item| {
            apply_typmod(item.clone(), *element, typmod, context)
        })?,
        (value, _) => value,
    })
}

fn map_array(
    array: &ArrayValue,
    element: Type,
    convert: impl Fn(&Datum) -> Result<Datum, TypeError>,
) -> Result<Datum, TypeError> {
    let elements: Result<Vec<Datum>, TypeError> = array.elements().iter().map(convert).collect();
    let dims = array.dims().to_vec();
    Ok(Datum::Array(Arc::new(ArrayValue::with_dims(element, dims, elements?))))
}

fn convert(
    value: &Datum,
    from: Type,
    to: Type,
    typmod: i32,
    context: CastContext,
    eval: &dyn EvalContext,
) -> Result<Datum, TypeError> {
    match (value, to) {
        (Datum::Array(array), Type::Array(element)) => {
            let source = array.element_type();
            map_array(array, *element, |item| cast(item, source, *element, typmod, context, eval))
        }
        (Datum::Array(_), Type::AnyArray) | (_, Type::Any | Type::AnyElement) => Ok(value.clone()),
        (Datum::Bool(value), Type::Int4) => Ok(Datum::Int4(i32::from(*value))),
        (Datum::Bool(value), string) if string.category() == 'S' => {
            text_value(if *value { "true" } else { "false" }, string)
        }
        (Datum::Jsonb(json), Type::Bool) => match &**json {
            Json::Bool(value) => Ok(Datum::Bool(*value)),
            other => Err(no_json_cast(other, to)),
        },
        (Datum::Jsonb(json), number) if number.category() == 'N' => match &**json {
            Json::Number(value) => to_number(&Datum::Numeric(value.clone()), number),
            other => Err(no_json_cast(other, to)),
        },
        (Datum::Text(text), Type::Int4) if from == Type::Char => {
            Ok(Datum::Int4(text.bytes().next().map_or(0, i32::from)))
        }
        (Datum::Int4(value), Type::Char) => match u8::try_from(*value).ok().filter(u8::is_ascii) {
            Some(0) => Ok(Datum::text("")),
            Some(byte) => Ok(Datum::text(char::from(byte).to_string())),
            None => Err(TypeError::out_of_range("\"char\"")),
        },
        (Datum::Int4(value), Type::Bool) => Ok(Datum::Bool(*value != 0)),
        (
            Datum::Int2(_)
            | Datum::Int4(_)
            | Datum::Int8(_)
            | Datum::Float4(_)
            | Datum::Float8(_)
            | Datum::Numeric(_)
            | Datum::Oid(_),
            number,
        ) if number.category() == 'N' => to_number(value, number),
        (
            Datum::Date(_)
            | Datum::Timestamp(_)
            | Datum::TimestampTz(_)
            | Datum::Time(_)
            | Datum::Interval(_),
            Type::Date | Type::Time | Type::Timestamp | Type::TimestampTz | Type::Interval,
        ) => to_datetime(value, to, eval).ok_or_else(|| no_cast(from, to))?,
        (Datum::Text(text), string) if string.category() == 'S' => text_value(text, string),
        // char(n) to text loses its padding.
        (Datum::BpChar(text), string) if string.category() == 'S' => {
            text_value(text.trim_end_matches(' '), string)
        }
        (other, string) if string.category() == 'S' => {
            text_value(&text::to_string(other, from, eval), string)
        }
        (Datum::Text(text) | Datum::BpChar(text), _) => text::parse(text, to, typmod, eval),
        (Datum::Jsonb(json), Type::Json) => Ok(Datum::text(json.to_string())),
        _ => Err(no_cast(from, to)),
    }
}

fn no_json_cast(json: &Json, to: Type) -> TypeError {
    let kind = match json {
        Json::Null => "null",
        other => other.type_name(),
    };
    TypeError::parameter(format!("cannot cast jsonb {kind} to type {to}"))
}

fn text_value(text: &str, to: Type) -> Result<Datum, TypeError> {
    Ok(match to {
        Type::BpChar => Datum::BpChar(Arc::from(text)),
        Type::Name => Datum::text(text::truncate_name(text)),
        _ => Datum::text(text),
    })
}

/// An integer in the bounds of its type; 22003.
fn bounded(value: i64, to: Type) -> Result<Datum, TypeError> {
    let out = match to {
        Type::Int2 => i16::try_from(value).map(Datum::Int2),
        Type::Int4 => i32::try_from(value).map(Datum::Int4),
        _ => Ok(Datum::Int8(value)),
    };
    out.map_err(|_| TypeError::out_of_range(&to.name()))
}

fn to_number(value: &Datum, to: Type) -> Result<Datum, TypeError> {
    match to {
        Type::Int2 | Type::Int4 | Type::Int8 => to_integer(value, to),
        Type::Float8 => Ok(Datum::Float8(to_f64(value)?)),
        Type::Float4 => {
            let wide = to_f64(value)?;
            let narrow = match value {
                // From the decimal at once: rounding twice may end elsewhere.
                Datum::Numeric(decimal) => decimal.to_string().parse().unwrap_or(wide as f32),
                Datum::Int8(integer) => *integer as f32,
                Datum::Int4(integer) => *integer as f32,
                _ => wide as f32,
            };
            if narrow.is_infinite() && wide.is_finite() {
                return Err(TypeError::out_of_range("value out of range: overflow").renamed());
            }
            if narrow == 0.0 && wide != 0.0 {
                return Err(TypeError::out_of_range("value out of range: underflow").renamed());
            }
            Ok(Datum::Float4(narrow))
        }
        Type::Numeric => Ok(Datum::Numeric(match value {
            Datum::Float4(value) => Numeric::from_f32(*value),
            Datum::Float8(value) => Numeric::from_f64(*value),
            other => other.as_numeric().expect("integers and numerics are exact"),
        })),
        // The OID types: int4 keeps its bits, int8 must fit.
        _ => match value {
            Datum::Int8(value) => {
                u32::try_from(*value).map(Datum::Oid).map_err(|_| TypeError::out_of_range("OID"))
            }
            Datum::Int4(value) => Ok(Datum::Oid(value.cast_unsigned())),
            Datum::Int2(value) => Ok(Datum::Oid(i32::from(*value).cast_unsigned())),
            Datum::Oid(value) => Ok(Datum::Oid(*value)),
            _ => Err(no_cast(Type::Numeric, to)),
        },
    }
}

impl TypeError {
    /// The message without the words that `out_of_range` adds.
    fn renamed(mut self) -> TypeError {
        self.message = self.message.trim_end_matches(" out of range").to_string();
        self
    }
}

fn to_f64(value: &Datum) -> Result<f64, TypeError> {
    let float = value.as_f64().expect("the caller admits numbers only");
    if let Datum::Numeric(decimal) = value
        && decimal.class() == Class::Finite
        && float.is_infinite()
    {
        return Err(TypeError::new(
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            format!("\"{decimal}\" is out of range for type double precision"),
        ));
    }
    Ok(float)
}

fn to_integer(value: &Datum, to: Type) -> Result<Datum, TypeError> {
    let name = to.name();
    match value {
        Datum::Float4(_) | Datum::Float8(_) => {
            let rounded = to_f64(value)?.round_ties_even();
            // 2^63 itself does not fit; the comparison is also false for NaN.
            if !(-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&rounded) {
                return Err(TypeError::out_of_range(&name));
            }
            bounded(rounded as i64, to)
        }
        Datum::Numeric(decimal) => match decimal.class() {
            Class::NaN => Err(TypeError::unsupported(format!("cannot convert NaN to {name}"))),
            Class::PositiveInfinity | Class::NegativeInfinity => {
                Err(TypeError::unsupported(format!("cannot convert infinity to {name}")))
            }
            Class::Finite => {
                let whole = decimal.to_i64().ok_or_else(|| TypeError::out_of_range(&name))?;
                bounded(whole, to)
            }
        },
        Datum::Oid(oid) if to == Type::Int4 => Ok(Datum::Int4(oid.cast_signed())),
        other => bounded(other.as_i64().expect("the caller admits numbers only"), to),
    }
}

/// `None` if there is no such conversion.
fn to_datetime(
    value: &Datum,
    to: Type,
    eval: &dyn EvalContext,
) -> Option<Result<Datum, TypeError>> {
    let zone = eval.time_zone();
    let local_of = |instant: i64| {
        zone.to_local(instant).ok_or_else(|| {
            TypeError::new(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp out of range")
        })
    };
    Some(match (value, to) {
        (Datum::Date(days), Type::Timestamp) => date_to_timestamp(*days).map(Datum::Timestamp),
        (Datum::Date(days), Type::TimestampTz) => {
            date_to_timestamp(*days).and_then(|us| zone.to_instant(us)).map(Datum::TimestampTz)
        }
        (Datum::Timestamp(us), Type::TimestampTz) => zone.to_instant(*us).map(Datum::TimestampTz),
        (Datum::TimestampTz(us), Type::Timestamp) => local_of(*us).map(Datum::Timestamp),
        (Datum::Timestamp(us), Type::Date) => Ok(Datum::Date(timestamp_to_date(*us))),
        (Datum::TimestampTz(us), Type::Date) => {
            local_of(*us).map(|us| Datum::Date(timestamp_to_date(us)))
        }
        (Datum::Timestamp(us), Type::Time) => Ok(time_of(*us)),
        (Datum::TimestampTz(us), Type::Time) => local_of(*us).map(time_of),
        (Datum::Time(us), Type::Interval) => Ok(Datum::Interval(super::Interval::from_us(*us))),
        (Datum::Interval(interval), Type::Time) => {
            Ok(Datum::Time(interval.us.rem_euclid(dt::US_PER_DAY)))
        }
        _ => return None,
    })
}

/// Midnight of a date; 22008 beyond the range of timestamps.
pub fn date_to_timestamp(days: i32) -> Result<i64, TypeError> {
    match days {
        i32::MIN => Ok(dt::TIMESTAMP_NEGATIVE_INFINITY),
        i32::MAX => Ok(dt::TIMESTAMP_INFINITY),
        days => i64::from(days)
            .checked_mul(dt::US_PER_DAY)
            .filter(|us| dt::is_timestamp(*us))
            .ok_or_else(|| {
                TypeError::new(SqlState::DATETIME_FIELD_OVERFLOW, "date out of range for timestamp")
            }),
    }
}

fn timestamp_to_date(us: i64) -> i32 {
    match us {
        dt::TIMESTAMP_NEGATIVE_INFINITY => i32::MIN,
        dt::TIMESTAMP_INFINITY => i32::MAX,
        us => us.div_euclid(dt::US_PER_DAY) as i32,
    }
}

/// The time of day; NULL of an infinity, as PostgreSQL answers.
fn time_of(us: i64) -> Datum {
    match us {
        dt::TIMESTAMP_NEGATIVE_INFINITY | dt::TIMESTAMP_INFINITY => Datum::Null,
        us => Datum::Time(us.rem_euclid(dt::US_PER_DAY)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::FixedContext;

    fn explicit(text: &str, from: Type, to: Type, typmod: i32) -> Result<String, String> {
        let eval = FixedContext::default();
        let value = text::parse(text, from, -1, &eval).expect(text);
        cast(&value, from, to, typmod, CastContext::Explicit, &eval)
            .map(|value| text::to_string(&value, to, &eval))
            .map_err(|error| error.code.to_string())
    }

    #[test]
    fn contexts_follow_pg_cast() {
        use CastContext::*;
        assert!(castable(Type::Int4, Type::Int8, Implicit));
        assert!(!castable(Type::Int8, Type::Int4, Implicit));
        assert!(castable(Type::Int8, Type::Int4, Assignment));
        assert!(!castable(Type::Text, Type::Int4, Assignment));
        assert!(castable(Type::Text, Type::Int4, Explicit));
        assert!(castable(Type::Int4, Type::Text, Assignment));
        assert!(!castable(Type::Int4, Type::Text, Implicit));
        assert!(!castable(Type::Bool, Type::Int8, Explicit));
        assert!(castable(Type::Array(&Type::Int4), Type::Array(&Type::Int8), Implicit));
        assert!(castable(Type::Counter, Type::Int8, Implicit));
        assert!(!castable(Type::Date, Type::Int4, Explicit));
    }

    #[test]
    fn conversions_round_and_check_as_postgres() {
        use Type::*;
        assert_eq!(explicit("2.5", Float8, Int4, -1), Ok("2".to_string()));
        assert_eq!(explicit("3.5", Float8, Int4, -1), Ok("4".to_string()));
        assert_eq!(explicit("2.5", Numeric, Int4, -1), Ok("3".to_string()));
        assert_eq!(explicit("-2.5", Numeric, Int4, -1), Ok("-3".to_string()));
        assert_eq!(explicit("1e10", Float8, Int4, -1), Err("22003".to_string()));
        assert_eq!(explicit("NaN", Numeric, Int4, -1), Err("0A000".to_string()));
        assert_eq!(explicit("0.1", Float4, Numeric, -1), Ok("0.1".to_string()));
        assert_eq!(explicit("abcdef", Text, Varchar, 7), Ok("abc".to_string()));
        assert_eq!(explicit("ab", Text, BpChar, 8), Ok("ab  ".to_string()));
        assert_eq!(explicit("t", Bool, Text, -1), Ok("true".to_string()));
        assert_eq!(explicit("{1,2}", Array(&Int4), Array(&Text), -1), Ok("{1,2}".to_string()));
        assert_eq!(
            explicit("2021-02-03 04:05:06", Timestamp, Date, -1),
            Ok("2021-02-03".to_string())
        );
        assert_eq!(explicit("12", Jsonb, Int4, -1), Ok("12".to_string()));
    }

    #[test]
    fn an_assignment_refuses_what_a_cast_cuts() {
        let eval = FixedContext::default();
        let cast =
            |context| cast(&Datum::text("abcd"), Type::Unknown, Type::Varchar, 7, context, &eval);
        assert!(cast(CastContext::Assignment).is_err());
        assert_eq!(cast(CastContext::Explicit), Ok(Datum::text("abc")));
    }
}
