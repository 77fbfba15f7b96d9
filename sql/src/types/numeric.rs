//! `numeric`: exact decimals with PostgreSQL's scales: a value.
//!
//! A number is an integer coefficient and a display scale, `coefficient * 10^-dscale`: `1.10` is (110, 2) and prints its zero.
//! Coefficients that fit an `i64` live in place and compute in `i128`; larger ones are shared [`Natural`]s. The scale is
//! data, not presentation: sums keep the larger, products add, quotients follow PostgreSQL's `select_div_scale` (at least 16
//! significant digits); every rounding is half away from zero. Equality, order and hash look at the value only.
//!
//! INVARIANT: a coefficient that fits an `i64` is never kept as `Big`. Checked by the constructor, which is the only one.
//! Limits are PostgreSQL's: 131,072 digits before the point, 16,383 after it; beyond them 22003.
//! Source: `src/backend/utils/adt/numeric.c` of PostgreSQL 15, for the scales.

use super::bignum::Natural;
use super::error::{SqlState, TypeError};
use super::ty::numeric_precision_scale;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Most decimal digits before the point.
pub const DIGITS_BEFORE_POINT_MAX: usize = 131_072;
/// Most decimal digits after the point.
pub const SCALE_MAX: usize = 16_383;
/// Significant digits that a quotient has at least.
pub(super) const SIGNIFICANT_DIGITS_MIN: i64 = 16;
/// Most digits after the point that a quotient, root or power chooses by itself.
pub(super) const DISPLAY_SCALE_MAX: i64 = 1000;

/// A decimal number, NaN or an infinity.
#[derive(Clone, Debug)]
pub struct Numeric(Repr);

#[derive(Clone, Debug)]
enum Repr {
    Small { coefficient: i64, dscale: u16 },
    Big(Arc<Big>),
    NegativeInfinity,
    PositiveInfinity,
    NaN,
}

#[derive(Debug)]
struct Big {
    negative: bool,
    magnitude: Natural,
    dscale: u16,
}

/// A finite number taken apart, for arithmetic.
#[derive(Clone, Debug)]
pub(super) struct Finite {
    pub(super) negative: bool,
    pub(super) magnitude: Natural,
    pub(super) dscale: usize,
}

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Not a number.
    NaN,
    /// `Infinity`
    PositiveInfinity,
    /// `-Infinity`
    NegativeInfinity,
    /// A decimal.
    Finite,
}

/// 22003 `value overflows numeric format`.
fn overflow() -> TypeError {
    TypeError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value overflows numeric format")
}

impl Finite {
    pub(super) fn new(negative: bool, magnitude: Natural, dscale: usize) -> Finite {
        Finite { negative: negative && !magnitude.is_zero(), magnitude, dscale }
    }

    /// The same value with exactly `dscale` digits after the point, half away from zero.
    pub(super) fn rounded(&self, dscale: usize) -> Finite {
        let magnitude = match dscale.checked_sub(self.dscale) {
            Some(more) => self.magnitude.mul_pow10(more),
            None => self.magnitude.div_pow10_rounded(self.dscale - dscale),
        };
        Finite::new(self.negative, magnitude, dscale)
    }

    fn truncated(&self, dscale: usize) -> Finite {
        let magnitude = match dscale.checked_sub(self.dscale) {
            Some(more) => self.magnitude.mul_pow10(more),
            None => self.magnitude.div_pow10(self.dscale - dscale),
        };
        Finite::new(self.negative, magnitude, dscale)
    }

    pub(super) fn add(&self, other: &Finite) -> Finite {
        let dscale = self.dscale.max(other.dscale);
        let (a, b) = (self.rounded(dscale), other.rounded(dscale));
        if a.negative == b.negative {
            return Finite::new(a.negative, a.magnitude.add(&b.magnitude), dscale);
        }
        match a.magnitude.compare(&b.magnitude) {
            Ordering::Less => Finite::new(b.negative, b.magnitude.sub(&a.magnitude), dscale),
            _ => Finite::new(a.negative, a.magnitude.sub(&b.magnitude), dscale),
        }
    }

    pub(super) fn negated(&self) -> Finite {
        Finite::new(!self.negative, self.magnitude.clone(), self.dscale)
    }

    pub(super) fn mul(&self, other: &Finite) -> Finite {
        let negative = self.negative != other.negative;
        Finite::new(negative, self.magnitude.mul(&other.magnitude), self.dscale + other.dscale)
    }

    /// The quotient rounded to `rscale` digits. Panics if `other` is zero.
    pub(super) fn div(&self, other: &Finite, rscale: usize) -> Finite {
        self.div_to(other, rscale + 1).rounded(rscale)
    }

    /// The quotient cut off after `rscale` digits.
    fn div_to(&self, other: &Finite, rscale: usize) -> Finite {
        // a / 10^x over b / 10^y, times 10^rscale, is a * 10^(rscale + y - x) / b.
        let shift = rscale + other.dscale;
        let (numerator, denominator) = match shift.checked_sub(self.dscale) {
            Some(up) => (self.magnitude.mul_pow10(up), other.magnitude.clone()),
            None => (self.magnitude.clone(), other.magnitude.mul_pow10(self.dscale - shift)),
        };
        let (quotient, _) = numerator.div_rem(&denominator);
        Finite::new(self.negative != other.negative, quotient, rscale)
    }

    /// Weight in base 10^4 of the first non-zero digit, and that digit: PostgreSQL decides scales by them. (0, 0) for zero.
    pub(super) fn weight_and_first_digit(&self) -> (i64, u32) {
        let digits = self.magnitude.digit_count();
        if digits == 0 {
            return (0, 0);
        }
        // Exponent of the first decimal digit: 0 for units.
        let exponent = digits as i64 - 1 - self.dscale as i64;
        let weight = exponent.div_euclid(4);
        // Digits of the leading group that lie at or above its weight.
        let group_digits = exponent - weight * 4 + 1;
        let text = self.magnitude.to_digits();
        let take = (group_digits as usize).min(text.len());
        let head: u32 = text[..take].parse().expect("at most four digits");
        (weight, head * 10u32.pow(group_digits as u32 - take as u32))
    }

    pub(super) fn into_numeric(self) -> Result<Numeric, TypeError> {
        Numeric::finite(self.negative, self.magnitude, self.dscale)
    }
}

/// The scale that PostgreSQL gives a quotient.
pub(super) fn division_scale(a: &Finite, b: &Finite) -> usize {
    let (weight_a, first_a) = a.weight_and_first_digit();
    let (weight_b, first_b) = b.weight_and_first_digit();
    let weight = weight_a - weight_b - i64::from(first_a <= first_b);
    clamp_scale(SIGNIFICANT_DIGITS_MIN - weight * 4, a.dscale.max(b.dscale))
}

/// A chosen scale within PostgreSQL's bounds, not below `least`.
pub(super) fn clamp_scale(scale: i64, least: usize) -> usize {
    scale.max(least as i64).clamp(0, DISPLAY_SCALE_MAX) as usize
}

impl Numeric {
    /// Not a number.
    pub const NAN: Numeric = Numeric(Repr::NaN);
    /// `Infinity`
    pub const INFINITY: Numeric = Numeric(Repr::PositiveInfinity);
    /// `-Infinity`
    pub const NEGATIVE_INFINITY: Numeric = Numeric(Repr::NegativeInfinity);
    /// 0, scale 0
    pub const ZERO: Numeric = Numeric(Repr::Small { coefficient: 0, dscale: 0 });

    /// An integer, scale 0.
    pub fn from_i64(value: i64) -> Numeric {
        Numeric(Repr::Small { coefficient: value, dscale: 0 })
    }

    /// An integer, scale 0.
    pub fn from_i128(value: i128) -> Numeric {
        Numeric::from_scaled(value, 0)
    }

    /// `coefficient * 10^-dscale`, showing `dscale` digits after the point.
    pub fn from_scaled(coefficient: i128, dscale: u16) -> Numeric {
        match i64::try_from(coefficient) {
            Ok(coefficient) => Numeric(Repr::Small { coefficient, dscale }),
            Err(_) => Numeric(Repr::Big(Arc::new(Big {
                negative: coefficient < 0,
                magnitude: Natural::from_u128(coefficient.unsigned_abs()),
                dscale,
            }))),
        }
    }

    /// The number from its parts; 22003 beyond the limits of the format.
    pub(super) fn finite(
        negative: bool,
        magnitude: Natural,
        dscale: usize,
    ) -> Result<Numeric, TypeError> {
        if dscale > SCALE_MAX
            || magnitude.digit_count().saturating_sub(dscale) > DIGITS_BEFORE_POINT_MAX
        {
            return Err(overflow());
        }
        let dscale = dscale as u16;
        let small = magnitude.to_u128().and_then(|m| i128::try_from(m).ok());
        let small = small.and_then(|m| i64::try_from(if negative { -m } else { m }).ok());
        Ok(Numeric(match small {
            Some(coefficient) => Repr::Small { coefficient, dscale },
            None => Repr::Big(Arc::new(Big { negative, magnitude, dscale })),
        }))
    }

    /// The parts of a finite number.
    pub(super) fn to_finite(&self) -> Option<Finite> {
        match &self.0 {
            Repr::Small { coefficient, dscale } => Some(Finite::new(
                *coefficient < 0,
                Natural::from_u128(u128::from(coefficient.unsigned_abs())),
                usize::from(*dscale),
            )),
            Repr::Big(big) => {
                Some(Finite::new(big.negative, big.magnitude.clone(), usize::from(big.dscale)))
            }
            Repr::NaN | Repr::PositiveInfinity | Repr::NegativeInfinity => None,
        }
    }

    /// Coefficient and scale of a number that is kept in place.
    pub(super) fn small_parts(&self) -> Option<(i64, u16)> {
        match self.0 {
            Repr::Small { coefficient, dscale } => Some((coefficient, dscale)),
            Repr::Big(_) | Repr::NaN | Repr::PositiveInfinity | Repr::NegativeInfinity => None,
        }
    }

    /// NaN, an infinity, or finite.
    pub fn class(&self) -> Class {
        match self.0 {
            Repr::NaN => Class::NaN,
            Repr::PositiveInfinity => Class::PositiveInfinity,
            Repr::NegativeInfinity => Class::NegativeInfinity,
            Repr::Small { .. } | Repr::Big(_) => Class::Finite,
        }
    }

    /// Digits shown after the point; 0 for NaN and infinities.
    pub fn dscale(&self) -> u16 {
        match &self.0 {
            Repr::Small { dscale, .. } => *dscale,
            Repr::Big(big) => big.dscale,
            Repr::NaN | Repr::PositiveInfinity | Repr::NegativeInfinity => 0,
        }
    }

    /// -1, 0 or 1; `None` for NaN.
    pub fn signum(&self) -> Option<i32> {
        match &self.0 {
            Repr::Small { coefficient, .. } => Some(coefficient.signum() as i32),
            Repr::Big(big) => Some(if big.negative { -1 } else { 1 }),
            Repr::NegativeInfinity => Some(-1),
            Repr::PositiveInfinity => Some(1),
            Repr::NaN => None,
        }
    }

    /// True for any zero.
    pub fn is_zero(&self) -> bool {
        self.signum() == Some(0)
    }

    /// Bytes outside the datum itself.
    pub fn memory_bytes(&self) -> usize {
        match &self.0 {
            Repr::Big(big) => big.magnitude.memory_bytes() + size_of::<Big>(),
            _ => 0,
        }
    }

    /// Reads PostgreSQL's text form. 22P02 if it is none, 22003 beyond the limits.
    pub fn parse(text: &str) -> Result<Numeric, TypeError> {
        parse(text)
    }

    /// The float as a decimal of 15 significant digits, as PostgreSQL casts it.
    pub fn from_f64(value: f64) -> Numeric {
        Numeric::from_float(value, 15)
    }

    /// The float as a decimal of 6 significant digits, as PostgreSQL casts it.
    pub fn from_f32(value: f32) -> Numeric {
        Numeric::from_float(f64::from(value), 6)
    }

    fn from_float(value: f64, digits: usize) -> Numeric {
        if value.is_nan() {
            return Numeric::NAN;
        }
        if value.is_infinite() {
            return if value > 0.0 { Numeric::INFINITY } else { Numeric::NEGATIVE_INFINITY };
        }
        let text = format!("{value:.precision$e}", precision = digits - 1);
        let (mantissa, exponent) = text.split_once('e').expect("the format has an exponent");
        let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
        Numeric::parse(&format!("{mantissa}e{exponent}")).expect("a float's decimal is in bounds")
    }

    /// The nearest float; infinite beyond its range.
    pub fn to_f64(&self) -> f64 {
        match &self.0 {
            Repr::NaN => f64::NAN,
            Repr::PositiveInfinity => f64::INFINITY,
            Repr::NegativeInfinity => f64::NEG_INFINITY,
            Repr::Small { coefficient, dscale: 0 } => *coefficient as f64,
            _ => self.to_string().parse().expect("a decimal is a float's syntax"),
        }
    }

    /// Rounded half away from zero; `None` if it does not fit, or is not finite.
    pub fn to_i128(&self) -> Option<i128> {
        if let Repr::Small { coefficient, dscale: 0 } = self.0 {
            return Some(i128::from(coefficient));
        }
        let whole = self.to_finite()?.rounded(0);
        let magnitude = i128::try_from(whole.magnitude.to_u128()?).ok()?;
        Some(if whole.negative { -magnitude } else { magnitude })
    }

    /// Rounded half away from zero; `None` if it does not fit, or is not finite.
    pub fn to_i64(&self) -> Option<i64> {
        self.to_i128().and_then(|value| i64::try_from(value).ok())
    }

    /// Order by value; NaN equals itself and is above everything.
    pub fn compare(&self, other: &Numeric) -> Ordering {
        use Repr::*;
        match (&self.0, &other.0) {
            (Small { coefficient: a, dscale: x }, Small { coefficient: b, dscale: y })
                if x.abs_diff(*y) <= SMALL_SHIFT_MAX =>
            {
                compare_small((*a, *x), (*b, *y))
            }
            (Small { .. } | Big(_), Small { .. } | Big(_)) => self.compare_finite(other),
            _ => self.class_rank().cmp(&other.class_rank()),
        }
    }

    fn class_rank(&self) -> u8 {
        match self.class() {
            Class::NegativeInfinity => 0,
            Class::Finite => 1,
            Class::PositiveInfinity => 2,
            Class::NaN => 3,
        }
    }

    fn compare_finite(&self, other: &Numeric) -> Ordering {
        let (a, b) = match (self.to_finite(), other.to_finite()) {
            (Some(a), Some(b)) => (a, b),
            _ => unreachable!("the caller has separated the special values"),
        };
        if a.negative != b.negative {
            return b.negative.cmp(&a.negative);
        }
        let dscale = a.dscale.max(b.dscale);
        let order = a.rounded(dscale).magnitude.compare(&b.rounded(dscale).magnitude);
        if a.negative { order.reverse() } else { order }
    }

    /// Hashes the value: 1.0 as 1.00.
    pub(super) fn hash_value<H: Hasher>(&self, state: &mut H) {
        let Some(mut finite) = self.to_finite() else {
            return self.class_rank().hash(state);
        };
        let zeros = finite.magnitude.trailing_zeros();
        finite.magnitude = finite.magnitude.div_pow10(zeros);
        finite.negative.hash(state);
        let exponent =
            if finite.magnitude.is_zero() { 0 } else { zeros as i64 - finite.dscale as i64 };
        exponent.hash(state);
        finite.magnitude.to_digits().hash(state);
    }

    /// The negative.
    pub fn neg(&self) -> Numeric {
        match &self.0 {
            Repr::NaN => Numeric::NAN,
            Repr::PositiveInfinity => Numeric::NEGATIVE_INFINITY,
            Repr::NegativeInfinity => Numeric::INFINITY,
            Repr::Small { coefficient, dscale } => {
                Numeric::from_scaled(-i128::from(*coefficient), *dscale)
            }
            Repr::Big(_) => {
                let finite = self.to_finite().expect("Big is finite").negated();
                finite.into_numeric().expect("its negative was in bounds")
            }
        }
    }

    /// Without its sign.
    pub fn abs(&self) -> Numeric {
        if self.signum() == Some(-1) { self.neg() } else { self.clone() }
    }

    /// The sum; the larger scale.
    pub fn add(&self, other: &Numeric) -> Result<Numeric, TypeError> {
        if let (
            Repr::Small { coefficient: a, dscale: x },
            Repr::Small { coefficient: b, dscale: y },
        ) = (&self.0, &other.0)
            && x.abs_diff(*y) <= SMALL_SHIFT_MAX
        {
            let dscale = *x.max(y);
            let sum = shift(*a, dscale - x) + shift(*b, dscale - y);
            return Ok(Numeric::from_scaled(sum, dscale));
        }
        match (self.to_finite(), other.to_finite()) {
            (Some(a), Some(b)) => a.add(&b).into_numeric(),
            _ => Ok(add_special(self, other)),
        }
    }

    /// The difference; the larger scale.
    pub fn sub(&self, other: &Numeric) -> Result<Numeric, TypeError> {
        self.add(&other.neg())
    }

    /// The product; the sum of the scales.
    pub fn mul(&self, other: &Numeric) -> Result<Numeric, TypeError> {
        if let (
            Repr::Small { coefficient: a, dscale: x },
            Repr::Small { coefficient: b, dscale: y },
        ) = (&self.0, &other.0)
            && usize::from(*x) + usize::from(*y) <= SCALE_MAX
        {
            return Ok(Numeric::from_scaled(i128::from(*a) * i128::from(*b), x + y));
        }
        match (self.to_finite(), other.to_finite()) {
            (Some(a), Some(b)) => {
                let product = a.mul(&b);
                let dscale = product.dscale.min(SCALE_MAX);
                product.rounded(dscale).into_numeric()
            }
            _ => Ok(mul_special(self, other)),
        }
    }

    /// The quotient with PostgreSQL's scale; 22012 for a zero divisor.
    pub fn div(&self, other: &Numeric) -> Result<Numeric, TypeError> {
        if self.class() == Class::NaN || other.class() == Class::NaN {
            return Ok(Numeric::NAN);
        }
        if other.is_zero() {
            return Err(TypeError::division_by_zero());
        }
        match (self.to_finite(), other.to_finite()) {
            (Some(a), Some(b)) => a.div(&b, division_scale(&a, &b)).into_numeric(),
            (Some(_), None) => Ok(Numeric::ZERO),
            (None, Some(_)) => Ok(mul_special(self, other)),
            (None, None) => Ok(Numeric::NAN),
        }
    }

    /// The quotient without its fraction, scale 0; 22012 for a zero divisor.
    pub fn div_trunc(&self, other: &Numeric) -> Result<Numeric, TypeError> {
        match (self.to_finite(), other.to_finite()) {
            (Some(a), Some(b)) if !b.magnitude.is_zero() => a.div_to(&b, 0).into_numeric(),
            _ => self.div(other),
        }
    }

    /// The remainder with the dividend's sign, the larger scale; 22012 for a zero divisor.
    pub fn rem(&self, other: &Numeric) -> Result<Numeric, TypeError> {
        if self.class() == Class::NaN || other.class() == Class::NaN {
            return Ok(Numeric::NAN);
        }
        if other.is_zero() {
            return Err(TypeError::division_by_zero());
        }
        match (self.to_finite(), other.to_finite()) {
            (Some(a), Some(b)) => {
                let dscale = a.dscale.max(b.dscale);
                let (a, b) = (a.rounded(dscale), b.rounded(dscale));
                let (_, rest) = a.magnitude.div_rem(&b.magnitude);
                Numeric::finite(a.negative, rest, dscale)
            }
            (Some(_), None) => Ok(self.clone()),
            (None, _) => Ok(Numeric::NAN),
        }
    }

    /// Rounded to `scale` digits after the point, half away from zero; a negative scale rounds before the point.
    pub fn round(&self, scale: i32) -> Result<Numeric, TypeError> {
        self.rescale(scale, Finite::rounded)
    }

    /// Cut off after `scale` digits after the point; a negative scale cuts before the point.
    pub fn trunc(&self, scale: i32) -> Result<Numeric, TypeError> {
        self.rescale(scale, Finite::truncated)
    }

    fn rescale(&self, scale: i32, cut: fn(&Finite, usize) -> Finite) -> Result<Numeric, TypeError> {
        let Some(finite) = self.to_finite() else { return Ok(self.clone()) };
        let Ok(scale) = usize::try_from(scale) else {
            // Before the point: shift the digits to drop behind it, cut, shift back.
            let drop = (scale.unsigned_abs() as usize).min(DIGITS_BEFORE_POINT_MAX * 2);
            let shifted = Finite { dscale: finite.dscale + drop, ..finite };
            let whole = cut(&shifted, 0);
            return Numeric::finite(whole.negative, whole.magnitude.mul_pow10(drop), 0);
        };
        cut(&finite, scale.min(SCALE_MAX)).into_numeric()
    }

    /// The least integer that is not below it, scale 0.
    pub fn ceil(&self) -> Result<Numeric, TypeError> {
        self.neg().floor().map(|floor| floor.neg())
    }

    /// The greatest integer that is not above it, scale 0.
    pub fn floor(&self) -> Result<Numeric, TypeError> {
        let Some(finite) = self.to_finite() else { return Ok(self.clone()) };
        let whole = finite.truncated(0);
        let exact = finite.magnitude.is_multiple_of_pow10(finite.dscale);
        if finite.negative && !exact {
            let next = whole.magnitude.add(&Natural::from_u128(1));
            return Numeric::finite(true, next, 0);
        }
        whole.into_numeric()
    }

    /// The value as a column `numeric(p,s)` keeps it; 22003 if it does not fit. Any value for typmod -1.
    pub fn apply_typmod(&self, typmod: i32) -> Result<Numeric, TypeError> {
        let Some((precision, scale)) = numeric_precision_scale(typmod) else {
            return Ok(self.clone());
        };
        let field = |rest: String| {
            TypeError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow")
                .with_detail(format!("A field with precision {precision}, scale {scale} {rest}"))
        };
        match self.class() {
            Class::NaN => return Ok(Numeric::NAN),
            Class::PositiveInfinity | Class::NegativeInfinity => {
                return Err(field("cannot hold an infinite value.".to_string()));
            }
            Class::Finite => {}
        }
        let rounded = self.round(scale)?;
        let finite = rounded.to_finite().expect("a rounded finite number is finite");
        let digits = finite.magnitude.digit_count() as i64 - finite.dscale as i64;
        let digits_max = i64::from(precision - scale);
        if !finite.magnitude.is_zero() && digits > digits_max {
            let bound = if digits_max == 0 { "1".to_string() } else { format!("10^{digits_max}") };
            return Err(field(format!("must round to an absolute value less than {bound}.")));
        }
        Ok(rounded)
    }

    /// The same value without zeros at the end of its fraction.
    pub fn trim_scale(&self) -> Numeric {
        let Some(finite) = self.to_finite() else { return self.clone() };
        let drop = finite.magnitude.trailing_zeros().min(finite.dscale);
        let dscale = if finite.magnitude.is_zero() { 0 } else { finite.dscale - drop };
        finite.truncated(dscale).into_numeric().expect("a shorter scale is in bounds")
    }
}

/// Scales further apart than this are aligned by `Natural`s: 10^18 times an `i64` fits an `i128`.
const SMALL_SHIFT_MAX: u16 = 18;

fn shift(coefficient: i64, digits: u16) -> i128 {
    i128::from(coefficient) * 10i128.pow(u32::from(digits))
}

fn compare_small((a, x): (i64, u16), (b, y): (i64, u16)) -> Ordering {
    let dscale = x.max(y);
    shift(a, dscale - x).cmp(&shift(b, dscale - y))
}

/// The sum when at least one is not finite.
fn add_special(a: &Numeric, b: &Numeric) -> Numeric {
    match (a.class(), b.class()) {
        (Class::NaN, _) | (_, Class::NaN) => Numeric::NAN,
        (Class::Finite, _) => b.clone(),
        (_, Class::Finite) => a.clone(),
        (a_class, b_class) if a_class == b_class => a.clone(),
        _ => Numeric::NAN,
    }
}

/// The product when at least one is not finite: the sign decides, a zero makes NaN.
fn mul_special(a: &Numeric, b: &Numeric) -> Numeric {
    match (a.signum(), b.signum()) {
        (Some(a), Some(b)) if a * b > 0 => Numeric::INFINITY,
        (Some(a), Some(b)) if a * b < 0 => Numeric::NEGATIVE_INFINITY,
        _ => Numeric::NAN,
    }
}

impl PartialEq for Numeric {
    fn eq(&self, other: &Numeric) -> bool {
        self.compare(other).is_eq()
    }
}

impl Eq for Numeric {}

impl fmt::Display for Numeric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (negative, digits, dscale) = match &self.0 {
            Repr::NaN => return f.write_str("NaN"),
            Repr::PositiveInfinity => return f.write_str("Infinity"),
            Repr::NegativeInfinity => return f.write_str("-Infinity"),
            Repr::Small { coefficient, dscale } => {
                (*coefficient < 0, coefficient.unsigned_abs().to_string(), usize::from(*dscale))
            }
            Repr::Big(big) => (big.negative, big.magnitude.to_digits(), usize::from(big.dscale)),
        };
        let padded = format!("{digits:0>width$}", width = dscale + 1);
        let (whole, fraction) = padded.split_at(padded.len() - dscale);
        let sign = if negative { "-" } else { "" };
        match fraction {
            "" => write!(f, "{sign}{whole}"),
            fraction => write!(f, "{sign}{whole}.{fraction}"),
        }
    }
}

fn parse(input: &str) -> Result<Numeric, TypeError> {
    let wrong = || TypeError::syntax("numeric", input);
    let text = input.trim_matches(super::text::is_space);
    let (negative, body) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    match body.to_ascii_lowercase().as_str() {
        "nan" if body.len() == text.len() => return Ok(Numeric::NAN),
        "inf" | "infinity" if negative => return Ok(Numeric::NEGATIVE_INFINITY),
        "inf" | "infinity" => return Ok(Numeric::INFINITY),
        _ => {}
    }
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(at) => (&body[..at], parse_exponent(&body[at + 1..]).ok_or_else(wrong)?),
        None => (body, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole.as_bytes(), fraction.as_bytes()].concat();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(wrong());
    }
    let dscale = fraction.len() as i64 - exponent;
    if digits.iter().all(|digit| *digit == b'0') {
        let dscale = dscale.max(0) as usize;
        return Numeric::finite(false, Natural::zero(), dscale);
    }
    let first = digits.iter().position(|digit| *digit != b'0').expect("not all are zero");
    let digits_before_point = (digits.len() - first) as i64 - dscale;
    if digits_before_point > DIGITS_BEFORE_POINT_MAX as i64 || dscale > SCALE_MAX as i64 {
        return Err(overflow());
    }
    let magnitude = Natural::from_digits(&digits);
    match usize::try_from(dscale) {
        Ok(dscale) => Numeric::finite(negative, magnitude, dscale),
        Err(_) => Numeric::finite(negative, magnitude.mul_pow10(dscale.unsigned_abs() as usize), 0),
    }
}

/// Digits with a sign; `None` also for numbers that PostgreSQL refuses as syntax.
fn parse_exponent(text: &str) -> Option<i64> {
    const EXPONENT_MAX: i64 = (i32::MAX / 2) as i64;
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let exponent: i64 = text.parse().ok()?;
    (exponent.abs() < EXPONENT_MAX).then_some(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn n(text: &str) -> Numeric {
        Numeric::parse(text).expect("a numeric")
    }

    #[test]
    fn prints_its_scale() {
        for text in ["0", "0.00", "1.10", "-0.001", "123456789012345678901234567890.5", "NaN"] {
            assert_eq!(n(text).to_string(), text);
        }
        assert_eq!(n(" 1e3 ").to_string(), "1000");
        assert_eq!(n("1.5e-3").to_string(), "0.0015");
        assert_eq!(n(".5").to_string(), "0.5");
        assert_eq!(n("5.").to_string(), "5");
        assert_eq!(n("-0").to_string(), "0");
        assert_eq!(n("-inf").to_string(), "-Infinity");
    }

    #[test]
    fn refuses_what_postgres_refuses() {
        let code = |text: &str| Numeric::parse(text).expect_err("refused").code.to_string();
        for text in ["", ".", "1.2.3", "1e", "e5", "0x1", "1 2", "+nan", "1e2147483647", "--1"] {
            assert_eq!(code(text), "22P02", "{text}");
        }
        assert_eq!(code("1e131072"), "22003");
        assert_eq!(code("1e-16384"), "22003");
    }

    #[test]
    fn quotients_have_postgres_scales() {
        let div = |a: &str, b: &str| n(a).div(&n(b)).expect("divides").to_string();
        assert_eq!(div("1", "3"), "0.33333333333333333333");
        assert_eq!(div("10", "3"), "3.3333333333333333");
        assert_eq!(div("2", "3"), "0.66666666666666666667");
        assert_eq!(div("100000", "3"), "33333.333333333333");
        assert_eq!(div("1.0", "2.000"), "0.50000000000000000000");
        assert_eq!(div("0", "7"), "0.00000000000000000000");
        assert!(n("1").div(&n("0")).is_err());
    }

    #[test]
    fn typmods_round_and_refuse() {
        let typmod = super::super::ty::Type::Numeric.typmod(&[4, 2]).expect("valid");
        let apply = |text: &str| n(text).apply_typmod(typmod);
        assert_eq!(apply("99.994").expect("fits").to_string(), "99.99");
        let error = apply("99.995").expect_err("does not fit");
        assert_eq!(error.code, SqlState::NUMERIC_VALUE_OUT_OF_RANGE);
        assert_eq!(
            error.detail.as_deref(),
            Some(
                "A field with precision 4, scale 2 must round to an absolute value less than 10^2."
            )
        );
    }

    fn any_numeric() -> impl Strategy<Value = Numeric> {
        prop_oneof![
            (any::<i128>(), 0u16..30).prop_map(|(c, s)| Numeric::from_scaled(c, s)),
            (any::<i32>(), 0u16..6).prop_map(|(c, s)| Numeric::from_scaled(c.into(), s)),
            (-30i128..30, 0u16..4).prop_map(|(c, s)| Numeric::from_scaled(c, s)),
        ]
    }

    proptest! {
        #[test]
        fn text_round_trips(a in any_numeric()) {
            let back = n(&a.to_string());
            prop_assert_eq!(back.dscale(), a.dscale());
            prop_assert_eq!(back, a);
        }

        #[test]
        fn arithmetic_agrees_with_its_inverses(a in any_numeric(), b in any_numeric()) {
            prop_assert_eq!(a.add(&b).unwrap().sub(&b).unwrap(), a.clone());
            prop_assert_eq!(a.mul(&b).unwrap(), b.mul(&a).unwrap());
            prop_assert_eq!(a.compare(&b), b.compare(&a).reverse());
            if !b.is_zero() {
                let whole = a.div_trunc(&b).unwrap();
                let rest = a.rem(&b).unwrap();
                prop_assert_eq!(whole.mul(&b).unwrap().add(&rest).unwrap(), a.clone());
                prop_assert!(rest.abs().compare(&b.abs()).is_lt());
            }
        }

        #[test]
        fn order_is_that_of_the_difference(a in any_numeric(), b in any_numeric()) {
            let sign = a.sub(&b).unwrap().signum().unwrap();
            prop_assert_eq!(a.compare(&b), sign.cmp(&0));
        }

        #[test]
        fn floor_and_ceiling_bracket(a in any_numeric()) {
            let (floor, ceil) = (a.floor().unwrap(), a.ceil().unwrap());
            prop_assert!(floor.compare(&a).is_le() && a.compare(&ceil).is_le());
            prop_assert!(ceil.sub(&floor).unwrap().compare(&Numeric::from_i64(1)).is_le());
        }
    }
}
