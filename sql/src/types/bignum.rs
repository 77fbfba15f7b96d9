//! Unsigned integers of any size, in base 10^9: a value. What `numeric` computes with.
//!
//! Base 10^9, because every operation of a decimal type that is not plain arithmetic (scaling, rounding, printing, parsing) is a
//! shift by powers of ten, which is cheap only in a decimal base; and because a limb's product still fits a `u64`.
//!
//! INVARIANT: least significant limb first, every limb below 10^9, no zero limb at the top; zero has no limb.
//! Source: Knuth, TAOCP 2, 4.3.1, algorithm D for the division.

use std::cmp::Ordering;

const BASE: u64 = 1_000_000_000;
const LIMB_DIGITS: usize = 9;

/// An unsigned integer.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Natural(Vec<u32>);

fn limb(value: u64) -> u32 {
    u32::try_from(value).expect("a limb is below 10^9")
}

impl Natural {
    pub(super) fn zero() -> Natural {
        Natural(Vec::new())
    }

    pub(super) fn from_u128(mut value: u128) -> Natural {
        let mut limbs = Vec::with_capacity(5);
        while value > 0 {
            limbs.push((value % u128::from(BASE)) as u32);
            value /= u128::from(BASE);
        }
        Natural(limbs)
    }

    /// `None` if it does not fit.
    pub(super) fn to_u128(&self) -> Option<u128> {
        if self.0.len() > 5 {
            return None;
        }
        self.0.iter().rev().try_fold(0u128, |value, limb| {
            value.checked_mul(u128::from(BASE))?.checked_add(u128::from(*limb))
        })
    }

    /// The number written as ASCII digits.
    pub(super) fn from_digits(digits: &[u8]) -> Natural {
        let limbs = digits.rchunks(LIMB_DIGITS).map(|chunk| {
            chunk.iter().fold(0u32, |value, digit| value * 10 + u32::from(digit - b'0'))
        });
        Natural(limbs.collect()).trimmed()
    }

    /// ASCII digits without leading zeros; `0` for zero.
    pub(super) fn to_digits(&self) -> String {
        let mut limbs = self.0.iter().rev();
        let mut out = match limbs.next() {
            Some(top) => top.to_string(),
            None => return "0".to_string(),
        };
        for limb in limbs {
            out.push_str(&format!("{limb:09}"));
        }
        out
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.0.len() * 4
    }

    /// Decimal digits; 0 for zero.
    pub(super) fn digit_count(&self) -> usize {
        match self.0.last() {
            Some(top) => (self.0.len() - 1) * LIMB_DIGITS + top.ilog10() as usize + 1,
            None => 0,
        }
    }

    fn trimmed(mut self) -> Natural {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        self
    }

    pub(super) fn compare(&self, other: &Natural) -> Ordering {
        let by_length = self.0.len().cmp(&other.0.len());
        by_length.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    pub(super) fn add(&self, other: &Natural) -> Natural {
        let mut out = Vec::with_capacity(self.0.len().max(other.0.len()) + 1);
        let mut carry = 0;
        for index in 0..self.0.len().max(other.0.len()) {
            let at = |n: &Natural| u64::from(n.0.get(index).copied().unwrap_or(0));
            let sum = at(self) + at(other) + carry;
            out.push(limb(sum % BASE));
            carry = sum / BASE;
        }
        if carry > 0 {
            out.push(limb(carry));
        }
        Natural(out)
    }

    /// Panics if `other` is larger.
    pub(super) fn sub(&self, other: &Natural) -> Natural {
        assert!(self.compare(other).is_ge(), "a natural number does not go below zero");
        let mut out = Vec::with_capacity(self.0.len());
        let mut borrow = 0;
        for (index, mine) in self.0.iter().enumerate() {
            let theirs = u64::from(other.0.get(index).copied().unwrap_or(0)) + borrow;
            borrow = u64::from(u64::from(*mine) < theirs);
            out.push(limb(u64::from(*mine) + borrow * BASE - theirs));
        }
        Natural(out).trimmed()
    }

    pub(super) fn mul(&self, other: &Natural) -> Natural {
        if self.is_zero() || other.is_zero() {
            return Natural::zero();
        }
        let mut out = vec![0u32; self.0.len() + other.0.len()];
        for (i, mine) in self.0.iter().enumerate() {
            let mut carry = 0;
            for (j, theirs) in other.0.iter().enumerate() {
                let sum = u64::from(out[i + j]) + u64::from(*mine) * u64::from(*theirs) + carry;
                out[i + j] = limb(sum % BASE);
                carry = sum / BASE;
            }
            out[i + other.0.len()] = limb(carry);
        }
        Natural(out).trimmed()
    }

    pub(super) fn mul_small(&self, factor: u32) -> Natural {
        let mut out = Vec::with_capacity(self.0.len() + 1);
        let mut carry = 0;
        for mine in &self.0 {
            let product = u64::from(*mine) * u64::from(factor) + carry;
            out.push(limb(product % BASE));
            carry = product / BASE;
        }
        while carry > 0 {
            out.push(limb(carry % BASE));
            carry /= BASE;
        }
        Natural(out).trimmed()
    }

    /// Quotient and remainder. Panics on zero.
    pub(super) fn div_rem_small(&self, divisor: u32) -> (Natural, u32) {
        let divisor = u64::from(divisor);
        let mut out = vec![0; self.0.len()];
        let mut rest = 0;
        for (index, mine) in self.0.iter().enumerate().rev() {
            let value = rest * BASE + u64::from(*mine);
            out[index] = limb(value / divisor);
            rest = value % divisor;
        }
        (Natural(out).trimmed(), rest as u32)
    }

    /// Quotient and remainder. Panics if `divisor` is zero.
    pub(super) fn div_rem(&self, divisor: &Natural) -> (Natural, Natural) {
        assert!(!divisor.is_zero(), "the caller has refused to divide by zero");
        if self.compare(divisor).is_lt() {
            return (Natural::zero(), self.clone());
        }
        if let [only] = divisor.0[..] {
            let (quotient, rest) = self.div_rem_small(only);
            return (quotient, Natural::from_u128(u128::from(rest)));
        }
        // Algorithm D, normalised so that the divisor's top limb is at least BASE / 2.
        let top = u64::from(*divisor.0.last().expect("the divisor is not zero"));
        let scale = limb(BASE / (top + 1));
        let v = divisor.mul_small(scale).0;
        let mut u = self.mul_small(scale).0;
        u.resize(self.0.len() + 1, 0);
        let n = v.len();
        let mut quotient = vec![0; u.len() - n];
        for j in (0..quotient.len()).rev() {
            let digit = estimate(&u, &v, j);
            let digit = subtract_multiple(&mut u[j..=j + n], &v, digit);
            quotient[j] = limb(digit);
        }
        u.truncate(n);
        let (rest, _) = Natural(u).trimmed().div_rem_small(scale);
        (Natural(quotient).trimmed(), rest)
    }

    /// Times 10^exponent.
    pub(super) fn mul_pow10(&self, exponent: usize) -> Natural {
        if self.is_zero() {
            return Natural::zero();
        }
        let mut out = vec![0; exponent / LIMB_DIGITS];
        out.extend(self.mul_small(10u32.pow((exponent % LIMB_DIGITS) as u32)).0);
        Natural(out)
    }

    /// Divided by 10^exponent, towards zero.
    pub(super) fn div_pow10(&self, exponent: usize) -> Natural {
        let kept = self.0.get(exponent / LIMB_DIGITS..).unwrap_or_default();
        let kept = Natural(kept.to_vec());
        kept.div_rem_small(10u32.pow((exponent % LIMB_DIGITS) as u32)).0
    }

    /// Divided by 10^exponent, half away from zero.
    pub(super) fn div_pow10_rounded(&self, exponent: usize) -> Natural {
        if exponent == 0 {
            return self.clone();
        }
        let (quotient, digit) = self.div_pow10(exponent - 1).div_rem_small(10);
        if digit >= 5 { quotient.add(&Natural::from_u128(1)) } else { quotient }
    }

    /// True if 10^exponent divides it.
    pub(super) fn is_multiple_of_pow10(&self, exponent: usize) -> bool {
        self.trailing_zeros() >= exponent || self.is_zero()
    }

    /// Zeros at the end of its decimal form; 0 for zero.
    pub(super) fn trailing_zeros(&self) -> usize {
        let Some(first) = self.0.iter().position(|limb| *limb != 0) else { return 0 };
        let mut low = self.0[first];
        let mut zeros = first * LIMB_DIGITS;
        while low.is_multiple_of(10) {
            low /= 10;
            zeros += 1;
        }
        zeros
    }

    /// The largest integer whose square is not above it (Newton's method from above).
    pub(super) fn sqrt(&self) -> Natural {
        if self.is_zero() {
            return Natural::zero();
        }
        let mut guess = Natural::from_u128(1).mul_pow10(self.digit_count().div_ceil(2));
        loop {
            let (quotient, _) = self.div_rem(&guess);
            let (next, _) = guess.add(&quotient).div_rem_small(2);
            if next.compare(&guess).is_ge() {
                return guess;
            }
            guess = next;
        }
    }
}

/// Knuth's estimate of one quotient digit: never too small, at most one too large.
fn estimate(u: &[u32], v: &[u32], j: usize) -> u64 {
    let n = v.len();
    let high = u64::from(u[j + n]) * BASE + u64::from(u[j + n - 1]);
    let top = u64::from(v[n - 1]);
    let (mut digit, mut rest) = (high / top, high % top);
    while digit >= BASE || digit * u64::from(v[n - 2]) > rest * BASE + u64::from(u[j + n - 2]) {
        digit -= 1;
        rest += top;
        if rest >= BASE {
            break;
        }
    }
    digit
}

/// `window -= digit * v`, and adds `v` back if that went below zero; the digit that was right in the end.
fn subtract_multiple(window: &mut [u32], v: &[u32], digit: u64) -> u64 {
    let mut borrow = 0;
    let mut carry = 0;
    for (index, slot) in window.iter_mut().enumerate() {
        let product = v.get(index).map_or(0, |limb| u64::from(*limb)) * digit + carry;
        carry = product / BASE;
        let take = product % BASE + borrow;
        borrow = u64::from(u64::from(*slot) < take);
        *slot = limb(u64::from(*slot) + borrow * BASE - take);
    }
    if borrow == 0 {
        return digit;
    }
    let mut carry = 0;
    for (index, slot) in window.iter_mut().enumerate() {
        let sum = u64::from(*slot) + v.get(index).map_or(0, |limb| u64::from(*limb)) + carry;
        *slot = limb(sum % BASE);
        carry = sum / BASE;
    }
    digit - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn n(value: u128) -> Natural {
        Natural::from_u128(value)
    }

    /// Numbers whose limbs are often at their limits, where carries and the corrections of algorithm D happen.
    fn tricky(limbs: usize) -> impl Strategy<Value = Natural> {
        let limb = prop_oneof![Just(0u32), Just(1), Just(999_999_999), 0..1_000_000_000u32];
        proptest::collection::vec(limb, 0..limbs).prop_map(|v| Natural(v).trimmed())
    }

    proptest! {
        #[test]
        fn agrees_with_u128(a: u64, b: u64, c: u128) {
            let (wa, wb) = (u128::from(a), u128::from(b));
            prop_assert_eq!(n(wa).mul(&n(wb)).to_u128(), Some(wa * wb));
            prop_assert_eq!(n(wa).add(&n(wb)).to_u128(), Some(wa + wb));
            prop_assert_eq!(n(c).to_digits(), c.to_string());
            prop_assert_eq!(Natural::from_digits(c.to_string().as_bytes()), n(c));
            prop_assert_eq!(n(c).digit_count(), if c == 0 { 0 } else { c.to_string().len() });
            if b > 0 {
                let (q, r) = n(c).div_rem(&n(wb));
                prop_assert_eq!((q.to_u128(), r.to_u128()), (Some(c / wb), Some(c % wb)));
            }
        }

        #[test]
        fn division_undoes_multiplication(a in tricky(9), b in tricky(5)) {
            prop_assume!(!b.is_zero());
            let (q, r) = a.div_rem(&b);
            prop_assert!(r.compare(&b).is_lt());
            prop_assert_eq!(q.mul(&b).add(&r), a);
        }

        #[test]
        fn square_root_is_the_floor(a in tricky(7)) {
            let root = a.sqrt();
            let next = root.add(&n(1));
            prop_assert!(root.mul(&root).compare(&a).is_le());
            prop_assert!(next.mul(&next).compare(&a).is_gt());
        }

        #[test]
        fn powers_of_ten_shift(a in tricky(5), e in 0usize..40) {
            let up = a.mul_pow10(e);
            prop_assert_eq!(up.div_pow10(e), a.clone());
            prop_assert!(up.is_multiple_of_pow10(e));
            let digits = a.to_digits();
            let cut = digits.len().saturating_sub(e);
            prop_assert_eq!(a.div_pow10(e), Natural::from_digits(&digits.as_bytes()[..cut]));
        }
    }
}
