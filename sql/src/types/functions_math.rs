//! Mathematical functions: a value. Names and results as in PostgreSQL's manual 9.3.

use super::context::EvalContext;
use super::datum::Datum;
use super::error::{SqlState, TypeError};
use super::numeric::Numeric;
use super::operators::{absolute, overflow, sized, underflow};
use super::registry::{Function, Volatility, arg, pure};
use super::ty::Type::{self, Float4, Float8, Int2, Int4, Int8};

type Answer = Result<Datum, TypeError>;
const N: Type = Type::Numeric;

macro_rules! float {
    ($name:literal, $code:expr) => {
        pure($name, &[Float8], Float8, |_, a| {
            let code: fn(f64) -> f64 = $code;
            Ok(Datum::Float8(code(arg::float(a, 0)?)))
        })
    };
}

macro_rules! numeric {
    ($name:literal, $code:expr) => {
        pure($name, &[N], N, |_, a| {
            let code: fn(&Numeric) -> Result<Numeric, TypeError> = $code;
            code(&arg::numeric(a, 0)?).map(Datum::Numeric)
        })
    };
}

pub(super) const TABLE: &[Function] = &[
    pure("abs", &[Int2], Int2, absolute),
    pure("abs", &[Int4], Int4, absolute),
    pure("abs", &[Int8], Int8, absolute),
    pure("abs", &[Float4], Float4, absolute),
    pure("abs", &[Float8], Float8, absolute),
    pure("abs", &[N], N, absolute),
    float!("ceil", f64::ceil),
    numeric!("ceil", Numeric::ceil),
    float!("ceiling", f64::ceil),
    numeric!("ceiling", Numeric::ceil),
    float!("floor", f64::floor),
    numeric!("floor", Numeric::floor),
    float!("round", f64::round_ties_even),
    numeric!("round", |n| n.round(0)),
    pure("round", &[N, Int4], N, |_, a| rescaled(a, Numeric::round)),
    float!("trunc", f64::trunc),
    numeric!("trunc", |n| n.trunc(0)),
    pure("trunc", &[N, Int4], N, |_, a| rescaled(a, Numeric::trunc)),
    float!("sign", |x| if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x
    }),
    pure("sign", &[N], N, |_, a| {
        let sign = arg::numeric(a, 0)?.signum();
        Ok(Datum::Numeric(sign.map_or(Numeric::NAN, |sign| Numeric::from_i64(sign.into()))))
    }),
    pure("mod", &[Int2, Int2], Int2, |_, a| modulo(a)),
    pure("mod", &[Int4, Int4], Int4, |_, a| modulo(a)),
    pure("mod", &[Int8, Int8], Int8, |_, a| modulo(a)),
    pure("mod", &[N, N], N, |_, a| {
        arg::numeric(a, 0)?.rem(&arg::numeric(a, 1)?).map(Datum::Numeric)
    }),
    pure("div", &[N, N], N, |_, a| {
        arg::numeric(a, 0)?.div_trunc(&arg::numeric(a, 1)?).map(Datum::Numeric)
    }),
    pure("power", &[Float8, Float8], Float8, |_, a| power(arg::float(a, 0)?, arg::float(a, 1)?)),
    pure("power", &[N, N], N, |_, a| {
        arg::numeric(a, 0)?.power(&arg::numeric(a, 1)?).map(Datum::Numeric)
    }),
    pure("pow", &[Float8, Float8], Float8, |_, a| power(arg::float(a, 0)?, arg::float(a, 1)?)),
    pure("pow", &[N, N], N, |_, a| {
        arg::numeric(a, 0)?.power(&arg::numeric(a, 1)?).map(Datum::Numeric)
    }),
    pure("sqrt", &[Float8], Float8, |_, a| match arg::float(a, 0)? {
        value if value < 0.0 => Err(TypeError::new(
            SqlState::INVALID_ARGUMENT_FOR_POWER,
            "cannot take square root of a negative number",
        )),
        value => Ok(Datum::Float8(value.sqrt())),
    }),
    numeric!("sqrt", Numeric::sqrt),
    float!("cbrt", f64::cbrt),
    pure("exp", &[Float8], Float8, |_, a| {
        let value = arg::float(a, 0)?;
        finite(value.exp(), value.is_infinite() || value.is_nan())
    }),
    numeric!("exp", Numeric::exp),
    pure("ln", &[Float8], Float8, |_, a| logarithm(arg::float(a, 0)?, f64::ln)),
    numeric!("ln", Numeric::ln),
    pure("log", &[Float8], Float8, |_, a| logarithm(arg::float(a, 0)?, f64::log10)),
    pure("log10", &[Float8], Float8, |_, a| logarithm(arg::float(a, 0)?, f64::log10)),
    numeric!("log", |n| Numeric::log(&Numeric::from_i64(10), n)),
    numeric!("log10", |n| Numeric::log(&Numeric::from_i64(10), n)),
    pure("log", &[N, N], N, |_, a| {
        Numeric::log(&arg::numeric(a, 0)?, &arg::numeric(a, 1)?).map(Datum::Numeric)
    }),
    float!("sin", f64::sin),
    float!("cos", f64::cos),
    float!("tan", f64::tan),
    float!("asin", f64::asin),
    float!("acos", f64::acos),
    float!("atan", f64::atan),
    float!("degrees", f64::to_degrees),
    float!("radians", f64::to_radians),
    pure("atan2", &[Float8, Float8], Float8, |_, a| {
        Ok(Datum::Float8(arg::float(a, 0)?.atan2(arg::float(a, 1)?)))
    }),
    pure("pi", &[], Float8, |_, _| Ok(Datum::Float8(std::f64::consts::PI))),
    pure("scale", &[N], Int4, |_, a| Ok(Datum::Int4(arg::numeric(a, 0)?.dscale().into()))),
    pure("trim_scale", &[N], N, |_, a| Ok(Datum::Numeric(arg::numeric(a, 0)?.trim_scale()))),
    pure("gcd", &[Int4, Int4], Int4, |_, a| gcd(a)),
    pure("gcd", &[Int8, Int8], Int8, |_, a| gcd(a)),
    pure("random", &[], Float8, random).with_volatility(Volatility::Volatile),
    pure("gen_random_uuid", &[], Type::Uuid, random_uuid).with_volatility(Volatility::Volatile),
];

fn rescaled(args: &[Datum], cut: fn(&Numeric, i32) -> Result<Numeric, TypeError>) -> Answer {
    cut(&arg::numeric(args, 0)?, arg::int(args, 1)? as i32).map(Datum::Numeric)
}

fn modulo(args: &[Datum]) -> Answer {
    match arg::int(args, 1)? {
        0 => Err(TypeError::division_by_zero()),
        divisor => sized(arg::int(args, 0)?.wrapping_rem(divisor), arg::any(args, 0)?),
    }
}

fn gcd(args: &[Datum]) -> Answer {
    let (mut a, mut b) = (arg::int(args, 0)?.unsigned_abs(), arg::int(args, 1)?.unsigned_abs());
    while b > 0 {
        (a, b) = (b, a % b);
    }
    let value = i64::try_from(a).map_err(|_| TypeError::out_of_range("bigint"))?;
    sized(value, arg::any(args, 0)?)
}

fn finite(value: f64, was_special: bool) -> Answer {
    if value.is_infinite() && !was_special {
        return Err(overflow());
    }
    if value == 0.0 && !was_special {
        return Err(underflow());
    }
    Ok(Datum::Float8(value))
}

/// `power` and `^` of floats.
pub(super) fn power(base: f64, exponent: f64) -> Answer {
    let wrong = |message| Err(TypeError::new(SqlState::INVALID_ARGUMENT_FOR_POWER, message));
    if base == 0.0 && exponent < 0.0 {
        return wrong("zero raised to a negative power is undefined");
    }
    if base < 0.0 && base.is_finite() && exponent.is_finite() && exponent.fract() != 0.0 {
        return wrong("a negative number raised to a non-integer power yields a complex result");
    }
    finite(base.powf(exponent), !base.is_finite() || !exponent.is_finite() || base == 0.0)
}

fn logarithm(value: f64, of: fn(f64) -> f64) -> Answer {
    let wrong = |message| Err(TypeError::new(SqlState::INVALID_ARGUMENT_FOR_LOG, message));
    if value == 0.0 {
        return wrong("cannot take logarithm of zero");
    }
    if value < 0.0 {
        return wrong("cannot take logarithm of a negative number");
    }
    Ok(Datum::Float8(of(value)))
}

/// 53 random bits: at least 0, below 1.
fn random(context: &dyn EvalContext, _: &[Datum]) -> Answer {
    Ok(Datum::Float8((context.random_u64() >> 11) as f64 / (1u64 << 53) as f64))
}

/// A version 4 UUID.
fn random_uuid(context: &dyn EvalContext, _: &[Datum]) -> Answer {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&context.random_u64().to_be_bytes());
    bytes[8..].copy_from_slice(&context.random_u64().to_be_bytes());
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(Datum::Uuid(bytes))
}
