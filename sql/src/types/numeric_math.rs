//! Roots, powers, logarithms of `numeric`: a value. Results are rounded to the scales that PostgreSQL chooses.
//!
//! Square roots and whole powers are exact before the last rounding. `exp` is a Taylor series of a halved argument, squared
//! back; `ln` is Newton's method on it. Both carry [`GUARD_DIGITS`] more digits than they show.
//! Source of the scales: `numeric.c` of PostgreSQL 15 (`numeric_sqrt`, `power_var`, `numeric_exp`, `numeric_ln`).

use super::bignum::Natural;
use super::error::{SqlState, TypeError};
use super::numeric::{Class, Finite, Numeric, SIGNIFICANT_DIGITS_MIN, clamp_scale};

/// Digits computed beyond those shown.
const GUARD_DIGITS: usize = 12;
/// log10(e)
const LOG10_E: f64 = std::f64::consts::LOG10_E;
/// Decimal digits of a result beyond which it overflows `numeric`.
const RESULT_DIGITS_MAX: f64 = 131_072.0;

fn overflow() -> TypeError {
    TypeError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value overflows numeric format")
}

fn integer(value: u128) -> Finite {
    Finite::new(false, Natural::from_u128(value), 0)
}

/// Decimal exponent of the first digit.
fn exponent10(value: &Finite) -> i64 {
    value.magnitude.digit_count() as i64 - 1 - value.dscale as i64
}

impl Numeric {
    /// The square root; 2201F of a negative number.
    pub fn sqrt(&self) -> Result<Numeric, TypeError> {
        match self.class() {
            Class::NaN | Class::PositiveInfinity => return Ok(self.clone()),
            Class::NegativeInfinity | Class::Finite if self.signum() == Some(-1) => {
                return Err(TypeError::new(
                    SqlState::INVALID_ARGUMENT_FOR_POWER,
                    "cannot take square root of a negative number",
                ));
            }
            Class::NegativeInfinity | Class::Finite => {}
        }
        let value = self.to_finite().expect("special values were answered");
        let (weight, _) = value.weight_and_first_digit();
        let half = (weight + 1) * 4 / 2 - 1;
        let scale = clamp_scale(SIGNIFICANT_DIGITS_MIN - half, value.dscale);
        sqrt(&value, scale).into_numeric()
    }

    /// `self ^ exponent`. 2201F for zero to a negative power and for a negative base with a fraction; 22003 on overflow.
    pub fn power(&self, exponent: &Numeric) -> Result<Numeric, TypeError> {
        let (Some(base), Some(power)) = (self.to_finite(), exponent.to_finite()) else {
            return self.power_special(exponent);
        };
        let wrong = |message| Err(TypeError::new(SqlState::INVALID_ARGUMENT_FOR_POWER, message));
        if base.magnitude.is_zero() && power.negative {
            return wrong("zero raised to a negative power is undefined");
        }
        let whole = power.magnitude.is_multiple_of_pow10(power.dscale);
        if base.negative && !whole {
            return wrong(
                "a negative number raised to a non-integer power yields a complex result",
            );
        }
        let small = exponent.to_i64().and_then(|e| i32::try_from(e).ok());
        if let (true, Some(count)) = (whole, small) {
            let scale = clamp_scale(SIGNIFICANT_DIGITS_MIN, base.dscale);
            return power_whole(&base, count, scale)?.into_numeric();
        }
        if base.magnitude.is_zero() {
            return integer(0).rounded(SIGNIFICANT_DIGITS_MIN as usize).into_numeric();
        }
        let estimate = ln_f64(&base.rounded_magnitude()) * exponent.to_f64() * LOG10_E;
        if estimate.abs() > RESULT_DIGITS_MAX {
            return if estimate > 0.0 { Err(overflow()) } else { Ok(Numeric::ZERO) };
        }
        let scale =
            clamp_scale(SIGNIFICANT_DIGITS_MIN - estimate as i64, base.dscale.max(power.dscale));
        let working = scale + estimate.max(0.0) as usize + GUARD_DIGITS;
        let logarithm = ln(&base.rounded_magnitude(), working);
        let product = logarithm.mul(&power).rounded(working);
        let negative = base.negative && is_odd(&power);
        let result = exp(&product, working).rounded(scale);
        Finite::new(negative, result.magnitude, scale).into_numeric()
    }

    /// Powers with NaN or infinities, as in POSIX.
    fn power_special(&self, exponent: &Numeric) -> Result<Numeric, TypeError> {
        if exponent.is_zero() || self.compare(&Numeric::from_i64(1)).is_eq() {
            return Ok(Numeric::from_i64(1));
        }
        let value = self.to_f64().powf(exponent.to_f64());
        Ok(match value {
            v if v.is_nan() => Numeric::NAN,
            f64::INFINITY => Numeric::INFINITY,
            f64::NEG_INFINITY => Numeric::NEGATIVE_INFINITY,
            v => Numeric::from_f64(v),
        })
    }

    /// e to this power; 22003 on overflow.
    pub fn exp(&self) -> Result<Numeric, TypeError> {
        let value = match self.class() {
            Class::NaN | Class::PositiveInfinity => return Ok(self.clone()),
            Class::NegativeInfinity => return Ok(Numeric::ZERO),
            Class::Finite => self.to_finite().expect("the class is finite"),
        };
        let estimate = self.to_f64() * LOG10_E;
        if estimate > RESULT_DIGITS_MAX {
            return Err(overflow());
        }
        let scale =
            clamp_scale(SIGNIFICANT_DIGITS_MIN - estimate.max(-2000.0) as i64, value.dscale);
        let working = scale + estimate.max(0.0) as usize + GUARD_DIGITS;
        if estimate < -(working as f64) {
            return integer(0).rounded(scale).into_numeric();
        }
        exp(&value, working).rounded(scale).into_numeric()
    }

    /// The natural logarithm; 2201E of zero and below.
    pub fn ln(&self) -> Result<Numeric, TypeError> {
        let Some(value) = positive(self)? else { return Ok(self.clone()) };
        let scale = clamp_scale(SIGNIFICANT_DIGITS_MIN - ln_weight(&value), value.dscale);
        ln(&value, scale + GUARD_DIGITS).rounded(scale).into_numeric()
    }

    /// The logarithm to a base; 2201E of zero and below, 22012 for the base 1.
    pub fn log(base: &Numeric, value: &Numeric) -> Result<Numeric, TypeError> {
        let (Some(b), Some(v)) = (positive(base)?, positive(value)?) else {
            return Ok(Numeric::NAN);
        };
        let (ln_base, ln_value) = (ln_weight(&b), ln_weight(&v));
        let scale =
            clamp_scale(SIGNIFICANT_DIGITS_MIN - (ln_value - ln_base), b.dscale.max(v.dscale));
        let working = scale + GUARD_DIGITS + ln_base.unsigned_abs() as usize;
        let divisor = ln(&b, working);
        if divisor.magnitude.is_zero() {
            return Err(TypeError::division_by_zero());
        }
        ln(&v, working).div(&divisor, scale).into_numeric()
    }
}

impl Finite {
    fn rounded_magnitude(&self) -> Finite {
        Finite::new(false, self.magnitude.clone(), self.dscale)
    }

    /// Without surplus digits: significant ones are kept to `digits`.
    fn shortened(&self, digits: i64) -> Finite {
        let wanted = (digits - exponent10(self)).max(0) as usize;
        if wanted < self.dscale { self.rounded(wanted) } else { self.clone() }
    }
}

/// Finite and positive; `None` for NaN and infinity.
fn positive(value: &Numeric) -> Result<Option<Finite>, TypeError> {
    let wrong = |message| Err(TypeError::new(SqlState::INVALID_ARGUMENT_FOR_LOG, message));
    match value.signum() {
        Some(0) => wrong("cannot take logarithm of zero"),
        Some(-1) => wrong("cannot take logarithm of a negative number"),
        _ => Ok(value.to_finite()),
    }
}

fn is_odd(value: &Finite) -> bool {
    value.rounded(0).magnitude.div_rem_small(2).1 == 1
}

/// The square root rounded to a scale.
pub(super) fn sqrt(value: &Finite, scale: usize) -> Finite {
    // One digit more than asked, so that the rounding of the cut root is right: a root is never half a digit exactly.
    let digits = scale + 1;
    let magnitude = value.rounded((2 * digits).max(value.dscale)).magnitude;
    let surplus = (2 * digits).max(value.dscale) - 2 * digits;
    let root = magnitude.div_pow10(surplus).sqrt();
    Finite::new(false, root, digits).rounded(scale)
}

fn power_whole(base: &Finite, count: i32, scale: usize) -> Result<Finite, TypeError> {
    let negative = base.negative && count % 2 != 0;
    let digits = if base.magnitude.is_zero() {
        0.0
    } else {
        ln_f64(&base.rounded_magnitude()) * f64::from(count) * LOG10_E
    };
    if digits > RESULT_DIGITS_MAX {
        return Err(overflow());
    }
    if digits < -(scale as f64) - 2.0 {
        return Ok(integer(0).rounded(scale));
    }
    // Each product is cut to the digits that can still matter; the error grows by a digit or so per squaring.
    let kept = scale as i64 + digits.abs() as i64 + 40;
    let mut result = integer(1);
    let mut square = base.rounded_magnitude();
    let mut left = count.unsigned_abs();
    while left > 0 {
        if left & 1 == 1 {
            result = result.mul(&square).shortened(kept);
        }
        left >>= 1;
        if left > 0 {
            square = square.mul(&square).shortened(kept);
        }
    }
    let result = match count < 0 {
        true => integer(1).div(&result, scale),
        false => result.rounded(scale),
    };
    Ok(Finite::new(negative, result.magnitude, scale))
}

/// The natural logarithm of a positive number, as well as a float can say it.
fn ln_f64(value: &Finite) -> f64 {
    let digits = value.magnitude.to_digits();
    let head: f64 = digits[..digits.len().min(17)].parse().expect("digits are a float's syntax");
    let rest = digits.len().saturating_sub(17) as f64 - value.dscale as f64;
    head.ln() + rest * std::f64::consts::LN_10
}

/// Decimal weight of the logarithm of a positive number.
fn ln_weight(value: &Finite) -> i64 {
    let logarithm = match ln_f64(value).abs() {
        // Near one the float has lost the digits: ln(1 + d) is d.
        small if small < 0.105 => {
            let distance = value.add(&integer(1).negated());
            let (weight, first) = distance.weight_and_first_digit();
            return weight * 4 + i64::from(first.checked_ilog10().unwrap_or(0));
        }
        other => other,
    };
    // Towards zero, as PostgreSQL estimates it.
    logarithm.log10() as i64
}

/// e^x to about `scale` digits after the point.
fn exp(x: &Finite, scale: usize) -> Finite {
    // Halve until below 2^-8, so that the series is short; squaring back costs a bit of precision per step.
    let estimate = x.magnitude.digit_count() as i64 - x.dscale as i64;
    let halvings = ((estimate.max(0) as f64 * std::f64::consts::LOG2_10) as usize) + 8;
    let working = scale + halvings / 2 + GUARD_DIGITS;
    let mut reduced = x.rounded(working.max(x.dscale));
    for _ in 0..halvings {
        reduced = reduced.div(&integer(2), working);
    }
    let mut term = integer(1).rounded(working);
    let mut sum = term.clone();
    let mut index = 1;
    while !term.magnitude.is_zero() {
        term = term.mul(&reduced).rounded(working).div(&integer(index), working);
        sum = sum.add(&term);
        index += 1;
    }
    for _ in 0..halvings {
        sum = sum.mul(&sum).rounded(working);
    }
    sum.rounded(scale)
}

/// ln(x) of a positive number to about `scale` digits after the point.
fn ln(x: &Finite, scale: usize) -> Finite {
    // x = m * 2^k with m near one would need ln 2; roots need nothing: ln(x) = 2^n * ln(x^(1/2^n)).
    let mut roots = 0usize;
    let working = scale + GUARD_DIGITS + 8;
    let mut reduced = x.rounded(working.max(x.dscale) + exponent10(x).unsigned_abs() as usize);
    let one = integer(1);
    while roots < 64 {
        let distance = reduced.add(&one.negated());
        if distance.magnitude.is_zero() || exponent10(&distance) < -1 {
            break;
        }
        let precise = working + roots;
        reduced = sqrt(&reduced, precise.max(working));
        roots += 1;
    }
    let working = working + roots;
    // ln(r) = 2 * artanh((r - 1) / (r + 1))
    let ratio = reduced.add(&one.negated()).div(&reduced.add(&one), working);
    let square = ratio.mul(&ratio).rounded(working);
    let mut power = ratio;
    let mut sum = power.clone();
    let mut odd = 3;
    while !power.magnitude.is_zero() {
        power = power.mul(&square).rounded(working);
        sum = sum.add(&power.div(&integer(odd), working));
        odd += 2;
    }
    let factor = integer(1u128 << (roots + 1).min(100));
    sum.mul(&factor).rounded(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(text: &str) -> Numeric {
        Numeric::parse(text).expect("a numeric")
    }

    #[test]
    fn results_are_those_of_postgres() {
        let show = |value: Result<Numeric, TypeError>| value.expect("a result").to_string();
        assert_eq!(show(n("2").sqrt()), "1.414213562373095");
        assert_eq!(show(n("144").sqrt()), "12.000000000000000");
        assert_eq!(show(n("2").power(&n("3"))), "8.0000000000000000");
        assert_eq!(show(n("2").power(&n("0.5"))), "1.4142135623730950");
        assert_eq!(show(n("10").power(&n("-2"))), "0.0100000000000000");
        assert_eq!(show(n("1").exp()), "2.7182818284590452");
        assert_eq!(show(n("2").ln()), "0.6931471805599453");
        assert_eq!(show(n("10").ln()), "2.3025850929940457");
        assert!(n("-1").sqrt().is_err());
        assert!(n("0").ln().is_err());
    }
}
