//! Arithmetic: a value. Integers overflow with 22003, division by zero is 22012, a float that leaves its range is 22003.
//! The result of two integers has the wider type; `/` and `%` of integers truncate, the remainder has the dividend's sign.

use crate::types::context::EvalContext;
use crate::types::datum::Datum;
use crate::types::error::{SqlState, TypeError};
use crate::types::numeric::Numeric;
use crate::types::registry::{Function, arg, pure};
use crate::types::ty::Type::{self, Float4, Float8, Int2, Int4, Int8};

type Answer = Result<Datum, TypeError>;
type Context<'a> = &'a dyn EvalContext;

macro_rules! integers {
    ($symbol:literal, $code:expr) => {
        [
            pure($symbol, &[Int2, Int2], Int2, $code),
            pure($symbol, &[Int2, Int4], Int4, $code),
            pure($symbol, &[Int2, Int8], Int8, $code),
            pure($symbol, &[Int4, Int2], Int4, $code),
            pure($symbol, &[Int4, Int4], Int4, $code),
            pure($symbol, &[Int4, Int8], Int8, $code),
            pure($symbol, &[Int8, Int2], Int8, $code),
            pure($symbol, &[Int8, Int4], Int8, $code),
            pure($symbol, &[Int8, Int8], Int8, $code),
        ]
    };
}

macro_rules! floats {
    ($symbol:literal, $code:expr) => {
        [
            pure($symbol, &[Float4, Float4], Float4, $code),
            pure($symbol, &[Float4, Float8], Float8, $code),
            pure($symbol, &[Float8, Float4], Float8, $code),
            pure($symbol, &[Float8, Float8], Float8, $code),
        ]
    };
}

macro_rules! shifts {
    ($symbol:literal, $code:expr) => {
        [
            pure($symbol, &[Int2, Int4], Int2, $code),
            pure($symbol, &[Int4, Int4], Int4, $code),
            pure($symbol, &[Int8, Int4], Int8, $code),
        ]
    };
}

macro_rules! same {
    ($symbol:literal, $code:expr, $($ty:expr),*) => {
        [$(pure($symbol, &[$ty, $ty], $ty, $code),)*]
    };
}

macro_rules! unary {
    ($symbol:literal, $code:expr, $($ty:expr),*) => {
        [$(pure($symbol, &[$ty], $ty, $code),)*]
    };
}

const N: Type = Type::Numeric;
const TABLE_LENGTH: usize = 9 * 5 + 4 * 4 + 7 + 3 * 3 + 3 * 2 + 3 + 6 * 3;
static ENTRIES: [Function; TABLE_LENGTH] = flatten(&[
    &integers!("+", |_, a| int_op(a, i64::checked_add)),
    &integers!("-", |_, a| int_op(a, i64::checked_sub)),
    &integers!("*", |_, a| int_op(a, i64::checked_mul)),
    &integers!("/", |_, a| int_div(a, i64::checked_div)),
    &integers!("%", |_, a| int_div(a, |a, b| Some(a.wrapping_rem(b)))),
    &floats!("+", |_, a| float_op(a, |x, y| x + y, |x, y| x + y, Vanish::Allowed)),
    &floats!("-", |_, a| float_op(a, |x, y| x - y, |x, y| x - y, Vanish::Allowed)),
    &floats!("*", |_, a| float_op(a, |x, y| x * y, |x, y| x * y, Vanish::IfFactorIsZero)),
    &floats!("/", float_div),
    &[
        pure("+", &[N, N], N, |_, a| numeric_op(a, Numeric::add)),
        pure("-", &[N, N], N, |_, a| numeric_op(a, Numeric::sub)),
        pure("*", &[N, N], N, |_, a| numeric_op(a, Numeric::mul)),
        pure("/", &[N, N], N, |_, a| numeric_op(a, Numeric::div)),
        pure("%", &[N, N], N, |_, a| numeric_op(a, Numeric::rem)),
        pure("^", &[N, N], N, |_, a| numeric_op(a, Numeric::power)),
        pure("^", &[Float8, Float8], Float8, |_, a| {
            super::super::functions_math::power(arg::float(a, 0)?, arg::float(a, 1)?)
        }),
    ],
    &same!("&", |_, a| bits(a, |x, y| x & y), Int2, Int4, Int8),
    &same!("|", |_, a| bits(a, |x, y| x | y), Int2, Int4, Int8),
    &same!("#", |_, a| bits(a, |x, y| x ^ y), Int2, Int4, Int8),
    &shifts!("<<", |_, a| shift(a, Way::Left)),
    &shifts!(">>", |_, a| shift(a, Way::Right)),
    &unary!("~", |_, a| sized(!arg::int(a, 0)?, arg::any(a, 0)?), Int2, Int4, Int8),
    &unary!("-", negate, Int2, Int4, Int8, Float4, Float8, N),
    &unary!("+", |_, a| Ok(arg::any(a, 0)?.clone()), Int2, Int4, Int8, Float4, Float8, N),
    &unary!("@", absolute, Int2, Int4, Int8, Float4, Float8, N),
]);

/// The operators of this room.
pub(in crate::types) const TABLE: &[Function] = &ENTRIES;

/// Tables of several lengths as one, when the program is compiled.
const fn flatten<const LENGTH: usize>(tables: &[&[Function]]) -> [Function; LENGTH] {
    let mut out = [tables[0][0]; LENGTH];
    let (mut table, mut at) = (0, 0);
    while table < tables.len() {
        let mut row = 0;
        while row < tables[table].len() {
            out[at] = tables[table][row];
            at += 1;
            row += 1;
        }
        table += 1;
    }
    assert!(at == LENGTH, "the length of the table is the sum of its parts");
    out
}

/// An integer in the type of a sample; 22003 if it does not fit.
pub(in crate::types) fn sized(value: i64, sample: &Datum) -> Answer {
    match sample {
        Datum::Int2(_) => {
            i16::try_from(value).map(Datum::Int2).map_err(|_| TypeError::out_of_range("smallint"))
        }
        Datum::Int4(_) => {
            i32::try_from(value).map(Datum::Int4).map_err(|_| TypeError::out_of_range("integer"))
        }
        _ => Ok(Datum::Int8(value)),
    }
}

fn wider<'a>(a: &'a Datum, b: &'a Datum) -> &'a Datum {
    let rank = |d: &Datum| match d {
        Datum::Int2(_) => 0,
        Datum::Int4(_) => 1,
        _ => 2,
    };
    if rank(a) >= rank(b) { a } else { b }
}

fn int_op(args: &[Datum], op: fn(i64, i64) -> Option<i64>) -> Answer {
    let sample = wider(arg::any(args, 0)?, arg::any(args, 1)?);
    match op(arg::int(args, 0)?, arg::int(args, 1)?) {
        Some(value) => sized(value, sample),
        None => Err(TypeError::out_of_range("bigint")),
    }
}

fn int_div(args: &[Datum], op: fn(i64, i64) -> Option<i64>) -> Answer {
    if arg::int(args, 1)? == 0 {
        return Err(TypeError::division_by_zero());
    }
    int_op(args, op)
}

fn numeric_op(args: &[Datum], op: fn(&Numeric, &Numeric) -> Result<Numeric, TypeError>) -> Answer {
    match (arg::any(args, 0)?, arg::any(args, 1)?) {
        (Datum::Numeric(a), Datum::Numeric(b)) => op(a, b).map(Datum::Numeric),
        _ => op(&arg::numeric(args, 0)?, &arg::numeric(args, 1)?).map(Datum::Numeric),
    }
}

/// When a result of zero is not an underflow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Vanish {
    Allowed,
    IfFactorIsZero,
}

pub(in crate::types) fn overflow() -> TypeError {
    TypeError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: overflow")
}

pub(in crate::types) fn underflow() -> TypeError {
    TypeError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: underflow")
}

fn float_op(
    args: &[Datum],
    wide: fn(f64, f64) -> f64,
    narrow: fn(f32, f32) -> f32,
    vanish: Vanish,
) -> Answer {
    let (result, x, y, out) = match (arg::any(args, 0)?, arg::any(args, 1)?) {
        (Datum::Float4(a), Datum::Float4(b)) => {
            let result = narrow(*a, *b);
            (f64::from(result), f64::from(*a), f64::from(*b), Datum::Float4(result))
        }
        _ => {
            let (x, y) = (arg::float(args, 0)?, arg::float(args, 1)?);
            let result = wide(x, y);
            (result, x, y, Datum::Float8(result))
        }
    };
    if result.is_infinite() && x.is_finite() && y.is_finite() {
        return Err(overflow());
    }
    if result == 0.0 && vanish == Vanish::IfFactorIsZero && x != 0.0 && y != 0.0 {
        return Err(underflow());
    }
    Ok(out)
}

fn float_div(_: Context<'_>, args: &[Datum]) -> Answer {
    let (x, y) = (arg::float(args, 0)?, arg::float(args, 1)?);
    if y == 0.0 && !x.is_nan() {
        return Err(TypeError::division_by_zero());
    }
    let out = float_op(args, |x, y| x / y, |x, y| x / y, Vanish::Allowed)?;
    if out.as_f64() == Some(0.0) && x != 0.0 && y.is_finite() {
        return Err(underflow());
    }
    Ok(out)
}

fn bits(args: &[Datum], op: fn(i64, i64) -> i64) -> Answer {
    sized(op(arg::int(args, 0)?, arg::int(args, 1)?), arg::any(args, 0)?)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Left,
    Right,
}

/// Shifts by the count modulo the width, as the processors that PostgreSQL runs on.
fn shift(args: &[Datum], way: Way) -> Answer {
    let count = arg::int(args, 1)? as u32;
    Ok(match (arg::any(args, 0)?, way) {
        // C shifts a smallint as an int and cuts the result.
        (Datum::Int2(v), Way::Left) => Datum::Int2(i32::from(*v).wrapping_shl(count) as i16),
        (Datum::Int2(v), Way::Right) => Datum::Int2(i32::from(*v).wrapping_shr(count) as i16),
        (Datum::Int4(v), Way::Left) => Datum::Int4(v.wrapping_shl(count)),
        (Datum::Int4(v), Way::Right) => Datum::Int4(v.wrapping_shr(count)),
        (Datum::Int8(v), Way::Left) => Datum::Int8(v.wrapping_shl(count)),
        (Datum::Int8(v), Way::Right) => Datum::Int8(v.wrapping_shr(count)),
        _ => return Err(arg::mismatch()),
    })
}

fn negate(_: Context<'_>, args: &[Datum]) -> Answer {
    match arg::any(args, 0)? {
        Datum::Float4(value) => Ok(Datum::Float4(-value)),
        Datum::Float8(value) => Ok(Datum::Float8(-value)),
        Datum::Numeric(value) => Ok(Datum::Numeric(value.neg())),
        integer => {
            let value = arg::int(args, 0)?.checked_neg();
            sized(value.ok_or_else(|| TypeError::out_of_range("bigint"))?, integer)
        }
    }
}

/// `@ x`, `abs(x)`
pub(in crate::types) fn absolute(context: Context<'_>, args: &[Datum]) -> Answer {
    match arg::any(args, 0)? {
        Datum::Float4(value) => Ok(Datum::Float4(value.abs())),
        Datum::Float8(value) => Ok(Datum::Float8(value.abs())),
        Datum::Numeric(value) => Ok(Datum::Numeric(value.abs())),
        _ if arg::int(args, 0)? < 0 => negate(context, args),
        integer => Ok(integer.clone()),
    }
}
