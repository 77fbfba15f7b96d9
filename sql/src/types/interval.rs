//! `interval`: months, days and microseconds, kept apart because a month has no fixed days and a day no fixed hours: a value.
//!
//! Two intervals are compared by 30-day months and 24-hour days: `1 mon = 30 days`, though they print differently.
//! Printing is PostgreSQL's `IntervalStyle = postgres`; reading takes that, ISO 8601 (`P1Y2M3DT4H`), the verbose `@ 1 day ago` and the
//! SQL standard's `1-2 3 4:05:06`.

use super::datetime::{US_PER_DAY, US_PER_SECOND, write_fraction};
use super::error::{SqlState, TypeError};
use std::cmp::Ordering;
use std::fmt::{self, Write};

/// A span of time. Equality and order are [`Interval::compare`], not the fields'.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interval {
    /// Calendar months.
    pub months: i32,
    /// Calendar days.
    pub days: i32,
    /// Microseconds.
    pub us: i64,
}

/// 22008 `interval out of range`.
pub(super) fn out_of_range() -> TypeError {
    TypeError::new(SqlState::DATETIME_FIELD_OVERFLOW, "interval out of range")
}

impl Interval {
    /// A span of microseconds only.
    pub fn from_us(us: i64) -> Interval {
        Interval { us, ..Interval::default() }
    }

    /// The length with 30-day months and 24-hour days, in microseconds: what is compared.
    pub fn normal_us(&self) -> i128 {
        let days = i128::from(self.months) * 30 + i128::from(self.days);
        days * i128::from(US_PER_DAY) + i128::from(self.us)
    }

    /// Order of the lengths.
    pub fn compare(&self, other: &Interval) -> Ordering {
        self.normal_us().cmp(&other.normal_us())
    }

    /// The sum, field by field; 22008 on overflow.
    pub fn add(&self, other: &Interval) -> Result<Interval, TypeError> {
        let sum = || {
            Some(Interval {
                months: self.months.checked_add(other.months)?,
                days: self.days.checked_add(other.days)?,
                us: self.us.checked_add(other.us)?,
            })
        };
        sum().ok_or_else(out_of_range)
    }

    /// The negative; 22008 on overflow.
    pub fn neg(&self) -> Result<Interval, TypeError> {
        let negative = || {
            Some(Interval {
                months: self.months.checked_neg()?,
                days: self.days.checked_neg()?,
                us: self.us.checked_neg()?,
            })
        };
        negative().ok_or_else(out_of_range)
    }

    /// Times a float: what is lost of a month goes into days, what is lost of a day into microseconds.
    pub fn mul(&self, factor: f64) -> Result<Interval, TypeError> {
        let months = f64::from(self.months) * factor;
        let days = f64::from(self.days) * factor;
        let us = self.us as f64 * factor;
        if ![months, days, us].iter().all(|v| v.is_finite()) {
            return Err(out_of_range());
        }
        // Rounded to microseconds on the way, as PostgreSQL's TSROUND: 0.1 has no exact float.
        let round = |v: f64| (v * 1e6).round_ties_even() / 1e6;
        let mut day_rest = round((months - months.trunc()) * 30.0);
        let mut second_rest = round((days - days.trunc() + day_rest - day_rest.trunc()) * 86_400.0);
        if second_rest.abs() >= 86_400.0 {
            let whole = (second_rest / 86_400.0).trunc();
            day_rest += whole;
            second_rest -= whole * 86_400.0;
        }
        let total_days = days.trunc() + day_rest.trunc();
        let total_us = (us + second_rest * 1e6).round_ties_even();
        let fits = |v: f64, bound: f64| v >= -bound && v < bound;
        if !fits(months.trunc(), 2_147_483_648.0)
            || !fits(total_days, 2_147_483_648.0)
            || !fits(total_us, 9_223_372_036_854_775_808.0)
        {
            return Err(out_of_range());
        }
        Ok(Interval { months: months as i32, days: total_days as i32, us: total_us as i64 })
    }

    /// Divided by a float; 22012 for zero.
    pub fn div(&self, divisor: f64) -> Result<Interval, TypeError> {
        if divisor == 0.0 {
            return Err(TypeError::division_by_zero());
        }
        let months = f64::from(self.months) / divisor;
        let days = f64::from(self.days) / divisor;
        let us = self.us as f64 / divisor;
        let round = |v: f64| (v * 1e6).round_ties_even() / 1e6;
        let mut day_rest = round((months - months.trunc()) * 30.0);
        let mut second_rest = round((days - days.trunc() + day_rest - day_rest.trunc()) * 86_400.0);
        if second_rest.abs() >= 86_400.0 {
            let whole = (second_rest / 86_400.0).trunc();
            day_rest += whole;
            second_rest -= whole * 86_400.0;
        }
        let total_us = (us + second_rest * 1e6).round_ties_even();
        if !total_us.is_finite() || !months.is_finite() || !days.is_finite() {
            return Err(out_of_range());
        }
        Ok(Interval {
            months: months as i32,
            days: (days.trunc() + day_rest.trunc()) as i32,
            us: total_us as i64,
        })
    }

    /// `justify_hours`: whole days out of the microseconds.
    pub fn justify_hours(&self) -> Result<Interval, TypeError> {
        let whole = i32::try_from(self.us / US_PER_DAY).map_err(|_| out_of_range())?;
        let days = self.days.checked_add(whole).ok_or_else(out_of_range)?;
        Ok(Interval { days, us: self.us % US_PER_DAY, ..*self }.with_one_sign_below_days())
    }

    fn with_one_sign_below_days(mut self) -> Interval {
        if self.days > 0 && self.us < 0 {
            self.us += US_PER_DAY;
            self.days -= 1;
        } else if self.days < 0 && self.us > 0 {
            self.us -= US_PER_DAY;
            self.days += 1;
        }
        self
    }

    /// `justify_days`: whole 30-day months out of the days.
    pub fn justify_days(&self) -> Result<Interval, TypeError> {
        let months = self.months.checked_add(self.days / 30).ok_or_else(out_of_range)?;
        let mut out = Interval { months, days: self.days % 30, us: self.us };
        if out.months > 0 && out.days < 0 {
            out.days += 30;
            out.months -= 1;
        } else if out.months < 0 && out.days > 0 {
            out.days -= 30;
            out.months += 1;
        }
        Ok(out)
    }

    /// Rounded to `precision` digits of a second.
    pub fn rounded(&self, precision: i32) -> Interval {
        Interval { us: super::datetime::round_us(self.us, precision), ..*self }
    }

    /// Reads an interval. 22007 if it is none, 22008 or 22015 if it is too long.
    pub fn parse(text: &str) -> Result<Interval, TypeError> {
        Reader::read(text)
    }
}

impl PartialEq for Interval {
    fn eq(&self, other: &Interval) -> bool {
        self.compare(other).is_eq()
    }
}

impl Eq for Interval {}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        // A positive field after a negative one shows its sign, as in `-1 days +02:03:00`.
        let mut negative_before = false;
        let mut field = |out: &mut String, value: i32, unit: &str| {
            if value == 0 {
                return;
            }
            let space = if out.is_empty() { "" } else { " " };
            let plus = if negative_before && value > 0 { "+" } else { "" };
            let plural = if value == 1 { "" } else { "s" };
            let _ = write!(out, "{space}{plus}{value} {unit}{plural}");
            negative_before = value < 0;
        };
        field(&mut out, self.months / 12, "year");
        field(&mut out, self.months % 12, "mon");
        field(&mut out, self.days, "day");
        if self.us != 0 || out.is_empty() {
            let space = if out.is_empty() { "" } else { " " };
            let sign = match self.us {
                ..0 => "-",
                _ if negative_before => "+",
                _ => "",
            };
            let us = self.us.unsigned_abs();
            let seconds = us / US_PER_SECOND as u64;
            let _ = write!(
                out,
                "{space}{sign}{:02}:{:02}:{:02}",
                seconds / 3600,
                seconds / 60 % 60,
                seconds % 60
            );
            write_fraction(&mut out, (us % US_PER_SECOND as u64) as i64);
        }
        f.write_str(&out)
    }
}

/// A unit of an interval, by what it counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Months(i64),
    Days(i64),
    Us(i64),
}

fn unit_of(word: &str) -> Option<Unit> {
    Some(match word {
        "us" | "usec" | "usecs" | "microsecond" | "microseconds" | "usecond" | "useconds"
        | "microsecon" => Unit::Us(1),
        "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" | "msecond" | "mseconds" => {
            Unit::Us(1000)
        }
        "s" | "sec" | "secs" | "second" | "seconds" => Unit::Us(US_PER_SECOND),
        "m" | "min" | "mins" | "minute" | "minutes" => Unit::Us(60 * US_PER_SECOND),
        "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Us(3600 * US_PER_SECOND),
        "d" | "day" | "days" => Unit::Days(1),
        "w" | "week" | "weeks" => Unit::Days(7),
        "mon" | "mons" | "month" | "months" => Unit::Months(1),
        "y" | "yr" | "yrs" | "year" | "years" => Unit::Months(12),
        "dec" | "decs" | "decade" | "decades" => Unit::Months(120),
        "c" | "cent" | "century" | "centuries" => Unit::Months(1200),
        "mil" | "mils" | "millennium" | "millennia" => Unit::Months(12_000),
        _ => return None,
    })
}

/// A decimal number in two parts: the whole and millionths that keep its sign.
#[derive(Clone, Copy)]
struct Decimal {
    whole: i64,
    fraction: f64,
    negative: bool,
}

#[derive(Default)]
struct Reader {
    months: i128,
    days: i128,
    us: i128,
}

impl Reader {
    fn read(input: &str) -> Result<Interval, TypeError> {
        let wrong = || {
            TypeError::new(
                SqlState::INVALID_DATETIME_FORMAT,
                format!("invalid input syntax for type interval: \"{input}\""),
            )
        };
        let too_long = || {
            TypeError::new(
                SqlState::INTERVAL_FIELD_OVERFLOW,
                format!("interval field value out of range: \"{input}\""),
            )
        };
        let text = input.trim().to_ascii_lowercase();
        let mut reader = Reader::default();
        let understood = match text.strip_prefix(['p', 'P']) {
            Some(iso) => reader.iso(iso),
            None => reader.words(&text),
        };
        understood.ok_or_else(wrong)?;
        let fits = || {
            Some(Interval {
                months: i32::try_from(reader.months).ok()?,
                days: i32::try_from(reader.days).ok()?,
                us: i64::try_from(reader.us).ok()?,
            })
        };
        fits().ok_or_else(too_long)
    }

    /// Adds a number of units; the fraction flows into the next smaller kind of field, as PostgreSQL lets it.
    fn add(&mut self, number: Decimal, unit: Unit) -> Option<()> {
        let whole = i128::from(number.whole);
        match unit {
            Unit::Us(each) => {
                self.us += whole * i128::from(each);
                self.us += (number.fraction * each as f64).round_ties_even() as i128;
            }
            Unit::Days(each) => {
                self.days += whole * i128::from(each);
                self.add_days(number.fraction * each as f64);
            }
            Unit::Months(1) => {
                self.months += whole;
                self.add_days(number.fraction * 30.0);
            }
            Unit::Months(each) => {
                self.months += whole * i128::from(each);
                self.months += (number.fraction * each as f64).round_ties_even() as i128;
            }
        }
        Some(())
    }

    fn add_days(&mut self, days: f64) {
        self.days += days.trunc() as i128;
        self.us += ((days - days.trunc()) * US_PER_DAY as f64).round_ties_even() as i128;
    }

    /// `1Y2M3DT4H5M6.7S`, after the `P`.
    fn iso(&mut self, text: &str) -> Option<()> {
        let (date, time) = text.split_once('t').unwrap_or((text, ""));
        if date.is_empty() && time.is_empty() {
            return None;
        }
        for (part, in_time) in [(date, false), (time, true)] {
            let mut rest = part;
            while !rest.is_empty() {
                let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
                let number = decimal(&rest[..end])?;
                let unit = match (&rest[end..=end], in_time) {
                    ("y", false) => Unit::Months(12),
                    ("m", false) => Unit::Months(1),
                    ("w", false) => Unit::Days(7),
                    ("d", false) => Unit::Days(1),
                    ("h", true) => Unit::Us(3600 * US_PER_SECOND),
                    ("m", true) => Unit::Us(60 * US_PER_SECOND),
                    ("s", true) => Unit::Us(US_PER_SECOND),
                    _ => return None,
                };
                self.add(number, unit)?;
                rest = &rest[end + 1..];
            }
        }
        Some(())
    }

    /// Numbers and units in turn, times, `1-2`, and at the end perhaps `ago`.
    fn words(&mut self, text: &str) -> Option<()> {
        let mut tokens = tokenize(text);
        if tokens.first().is_some_and(|t| t == "@") {
            tokens.remove(0);
        }
        let ago = tokens.last().is_some_and(|t| t == "ago");
        if ago {
            tokens.pop();
        }
        if tokens.is_empty() {
            return None;
        }
        let mut index = 0;
        let mut seen = Vec::new();
        while let Some(token) = tokens.get(index) {
            index += 1;
            if token.contains(':') {
                self.us += time(token)?;
                continue;
            }
            if let Some(months) = year_month(token) {
                self.months += months;
                continue;
            }
            let number = decimal(token)?;
            let unit = match tokens.get(index) {
                Some(word) if word.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                    index += 1;
                    unit_of(word)?
                }
                // `1 4:05`: a bare number before a time counts days; a bare number at the end counts seconds.
                Some(next) if next.contains(':') => Unit::Days(1),
                Some(_) => return None,
                None => Unit::Us(US_PER_SECOND),
            };
            // A unit counts once.
            if seen.contains(&unit) {
                return None;
            }
            seen.push(unit);
            self.add(number, unit)?;
        }
        if ago {
            (self.months, self.days, self.us) = (-self.months, -self.days, -self.us);
        }
        Some(())
    }
}

/// Splits at blanks and between a number and a word: `1day` is two tokens.
fn tokenize(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    for piece in text.split(|c: char| c.is_whitespace() || c == ',').filter(|p| !p.is_empty()) {
        let mut current = String::new();
        for c in piece.chars() {
            let previous_is_word = current.starts_with(|c: char| c.is_ascii_alphabetic());
            if !current.is_empty() && c.is_ascii_alphabetic() != previous_is_word {
                tokens.push(std::mem::take(&mut current));
            }
            current.push(c);
        }
        // A sign that stands alone belongs to the number after it.
        match tokens.last_mut() {
            Some(sign) if sign == "-" || sign == "+" => sign.push_str(&current),
            _ => tokens.push(current),
        }
    }
    tokens
}

fn decimal(text: &str) -> Option<Decimal> {
    let negative = text.starts_with('-');
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    if !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: f64 =
        if fraction.is_empty() { 0.0 } else { format!("0.{fraction}").parse().ok()? };
    let sign = if negative { -1 } else { 1 };
    Some(Decimal { whole: whole * sign, fraction: fraction * sign as f64, negative })
}

/// `[+-]H:MM[:SS[.f]]`; two parts with a fraction are minutes and seconds, as PostgreSQL reads them.
fn time(text: &str) -> Option<i128> {
    let negative = text.starts_with('-');
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let parts: Vec<&str> = body.split(':').collect();
    let (hours, minutes, seconds) = match parts[..] {
        [minutes, seconds] if seconds.contains('.') => ("0", minutes, seconds),
        [hours, minutes] => (hours, minutes, "0"),
        [hours, minutes, seconds] => (hours, minutes, seconds),
        _ => return None,
    };
    let hours: i64 = hours.parse().ok()?;
    let minutes: i64 = minutes.parse().ok().filter(|m| *m < 60)?;
    let seconds = decimal(seconds).filter(|s| !s.negative && s.whole <= 60)?;
    let us = i128::from(hours) * 3_600_000_000
        + i128::from(minutes) * 60_000_000
        + i128::from(seconds.whole) * 1_000_000
        + (seconds.fraction * 1e6).round_ties_even() as i128;
    Some(if negative { -us } else { us })
}

/// `1-2`: years and months of the SQL standard.
fn year_month(text: &str) -> Option<i128> {
    let negative = text.starts_with('-');
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (years, months) = body.split_once('-')?;
    let years: i128 = years.parse().ok()?;
    let months: i128 = months.parse().ok().filter(|m| (0..12).contains(m))?;
    let total = years * 12 + months;
    Some(if negative { -total } else { total })
}

impl PartialOrd for Interval {
    fn partial_cmp(&self, other: &Interval) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Interval {
    fn cmp(&self, other: &Interval) -> Ordering {
        self.compare(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(text: &str) -> String {
        Interval::parse(text).expect(text).to_string()
    }

    #[test]
    fn reads_every_style_and_prints_postgres() {
        assert_eq!(
            canonical("1 year 2 months 3 days 04:05:06.7"),
            "1 year 2 mons 3 days 04:05:06.7"
        );
        assert_eq!(canonical("P1Y2M3DT4H5M6S"), "1 year 2 mons 3 days 04:05:06");
        assert_eq!(canonical("1-2 3 4:05:06"), "1 year 2 mons 3 days 04:05:06");
        assert_eq!(canonical("@ 1 day 2 hours ago"), "-1 days -02:00:00");
        assert_eq!(canonical("1.5 days"), "1 day 12:00:00");
        assert_eq!(canonical("30"), "00:00:30");
        assert_eq!(canonical("1 day -1 hour"), "1 day -01:00:00");
        assert_eq!(canonical("-1 day +1 hour"), "-1 days +01:00:00");
        assert_eq!(canonical("0.5 month"), "15 days");
        assert_eq!(canonical("1.5 years"), "1 year 6 mons");
        assert_eq!(canonical("2w"), "14 days");
        assert_eq!(canonical("0"), "00:00:00");
        assert_eq!(canonical("-14 months"), "-1 years -2 mons");
    }

    #[test]
    fn refuses_what_is_none() {
        for text in ["", "abc", "1 foo", "day", "1:99", "p", "1 2 days", "ago"] {
            assert_eq!(Interval::parse(text).expect_err(text).code.to_string(), "22007", "{text}");
        }
        let code = Interval::parse("999999999999 years").expect_err("long").code.to_string();
        assert_eq!(code, "22015");
    }

    #[test]
    fn a_month_equals_thirty_days() {
        assert_eq!(Interval::parse("1 mon").expect("ok"), Interval::parse("30 days").expect("ok"));
        assert!(Interval::parse("1 mon").expect("ok") < Interval::parse("31 days").expect("ok"));
    }

    proptest! {
        #[test]
        fn text_round_trips(months: i32, days: i32, us: i64) {
            let interval = Interval { months, days, us };
            let back = Interval::parse(&interval.to_string()).unwrap();
            prop_assert_eq!((back.months, back.days, back.us), (months, days, us));
        }
    }
}
