//! Reading dates and times as PostgreSQL reads them (DateStyle `ISO, MDY`): a value.
//!
//! The text is cut into tokens (numbers, dates with delimiters, times, words, offsets), then each token claims the fields it can
//! mean; a field claimed twice is an error. Words may be months, weekdays (ignored), zones, `AM`/`PM`, `BC`/`AD`, `T`, or one of the
//! special values: `now`, `today`, `tomorrow`, `yesterday`, `epoch`, `infinity`, `-infinity`, `allballs`.
//!
//! Errors: 22007 for what is no date, 22008 for fields out of range (month 13), 22023 for an unknown zone.
//! Honest limits: Julian days (`J2451187`), day-of-year and fields run together with letters (`y2001m02d04`) are refused.
//! Source: the rules of `datetime.c` of PostgreSQL 15.

use super::context::EvalContext;
use super::datetime::{
    DateTime, TIMESTAMP_INFINITY, TIMESTAMP_NEGATIVE_INFINITY, US_PER_DAY, US_PER_SECOND,
    checked_date, civil_from_days, days_from_civil, days_in_month, timestamp_from,
};
use super::error::{SqlState, TypeError};
use super::zone::{self, TimeZone};

/// Longest text that is looked at, as in PostgreSQL.
const TEXT_BYTES_MAX: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Special {
    Infinity,
    NegativeInfinity,
    Epoch,
    Now,
    Day(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Am,
    Pm,
}

#[derive(Debug, Default)]
struct Fields {
    special: Option<Special>,
    year: Option<i64>,
    /// The year had one or two digits: it is of this or the last century.
    short_year: bool,
    month: Option<i64>,
    month_by_name: bool,
    day: Option<i64>,
    time_us: Option<i64>,
    half: Option<Half>,
    before_christ: bool,
    zone: Option<TimeZone>,
    after_t: bool,
}

enum Failure {
    Syntax,
    Range,
    MonthOrDay,
    Zone(String),
    Displacement,
}

#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    Number(&'a str),
    Date(&'a str),
    Time(&'a str),
    Word(&'a str),
    Offset(&'a str),
}

/// Reads a date: days since 2000-01-01.
pub fn parse_date(text: &str, context: &dyn EvalContext) -> Result<i32, TypeError> {
    let fields = read(text).map_err(|failure| explain(failure, "date", text))?;
    let range = || out_of_range("date", text);
    match fields.special {
        Some(Special::Infinity) => return Ok(i32::MAX),
        Some(Special::NegativeInfinity) => return Ok(i32::MIN),
        Some(Special::Epoch) => return checked_date(days_from_civil(1970, 1, 1)),
        Some(Special::Now) => return checked_date(today(context)),
        Some(Special::Day(shift)) => return checked_date(today(context) + shift),
        None => {}
    }
    let day = fields.civil().map_err(|failure| explain(failure, "date", text))?;
    let (year, month, day) = day.ok_or_else(|| explain(Failure::Syntax, "date", text))?;
    checked_date(days_from_civil(year, month, day)).map_err(|_| range())
}

/// Reads a time of day: microseconds since midnight.
pub fn parse_time(text: &str, context: &dyn EvalContext) -> Result<i64, TypeError> {
    let fields = read_time(text).map_err(|failure| explain(failure, "time", text))?;
    match fields.special {
        Some(Special::Now) => {
            let local = context.time_zone().to_local(context.transaction_timestamp());
            return Ok(local.unwrap_or(0).rem_euclid(US_PER_DAY));
        }
        Some(_) => return Err(explain(Failure::Syntax, "time", text)),
        None => {}
    }
    match fields.time() {
        Ok(Some(us)) => Ok(us),
        Ok(None) => Err(explain(Failure::Syntax, "time", text)),
        Err(failure) => Err(explain(failure, "time", text)),
    }
}

/// Reads a timestamp; a zone in the text is ignored.
pub fn parse_timestamp(text: &str, context: &dyn EvalContext) -> Result<i64, TypeError> {
    let fields = read(text).map_err(|failure| explain(failure, "timestamp", text))?;
    match fields.special {
        Some(special) => special_local(special, &fields, context, text),
        None => local_timestamp(&fields, "timestamp", text),
    }
}

/// Reads an instant; without a zone in the text the session's counts.
pub fn parse_timestamptz(text: &str, context: &dyn EvalContext) -> Result<i64, TypeError> {
    const NAME: &str = "timestamp with time zone";
    let fields = read(text).map_err(|failure| explain(failure, NAME, text))?;
    match fields.special {
        Some(Special::Now) => return Ok(context.transaction_timestamp()),
        Some(Special::Epoch) => return Ok(days_from_civil(1970, 1, 1) * US_PER_DAY),
        _ => {}
    }
    let local = match fields.special {
        Some(special) => special_local(special, &fields, context, text)?,
        None => local_timestamp(&fields, NAME, text)?,
    };
    let zone = fields.zone.unwrap_or_else(|| context.time_zone());
    let instant = zone.to_instant(local).map_err(|_| out_of_range("timestamp", text))?;
    let finite = !matches!(instant, TIMESTAMP_INFINITY | TIMESTAMP_NEGATIVE_INFINITY);
    if finite && !super::datetime::is_timestamp(instant) {
        return Err(out_of_range("timestamp", text));
    }
    Ok(instant)
}

fn special_local(
    special: Special,
    fields: &Fields,
    context: &dyn EvalContext,
    text: &str,
) -> Result<i64, TypeError> {
    match special {
        Special::Infinity => Ok(TIMESTAMP_INFINITY),
        Special::NegativeInfinity => Ok(TIMESTAMP_NEGATIVE_INFINITY),
        Special::Epoch => Ok(days_from_civil(1970, 1, 1) * US_PER_DAY),
        Special::Now => {
            let local = context.time_zone().to_local(context.transaction_timestamp());
            local.ok_or_else(|| out_of_range("timestamp", text))
        }
        Special::Day(shift) => {
            let time = fields.time().map_err(|f| explain(f, "timestamp", text))?.unwrap_or(0);
            Ok((today(context) + shift) * US_PER_DAY + time)
        }
    }
}

fn local_timestamp(fields: &Fields, name: &str, text: &str) -> Result<i64, TypeError> {
    let explain = |failure| explain(failure, name, text);
    let day = fields.civil().map_err(explain)?;
    let (year, month, day) = day.ok_or_else(|| explain(Failure::Syntax))?;
    let us = fields.time().map_err(explain)?.unwrap_or(0);
    timestamp_from(&DateTime { year, month, day, us })
        .ok_or_else(|| out_of_range("timestamp", text))
}

fn today(context: &dyn EvalContext) -> i64 {
    let now = context.transaction_timestamp();
    context.time_zone().to_local(now).unwrap_or(now).div_euclid(US_PER_DAY)
}

fn out_of_range(what: &str, text: &str) -> TypeError {
    TypeError::new(SqlState::DATETIME_FIELD_OVERFLOW, format!("{what} out of range: \"{text}\""))
}

fn explain(failure: Failure, name: &str, text: &str) -> TypeError {
    let range = || {
        TypeError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            format!("date/time field value out of range: \"{text}\""),
        )
    };
    match failure {
        Failure::Syntax => TypeError::new(
            SqlState::INVALID_DATETIME_FORMAT,
            format!("invalid input syntax for type {name}: \"{text}\""),
        ),
        Failure::Range => range(),
        Failure::MonthOrDay => {
            range().with_hint("Perhaps you need a different \"datestyle\" setting.")
        }
        Failure::Displacement => TypeError::new(
            SqlState::INVALID_TIME_ZONE_DISPLACEMENT,
            format!("time zone displacement out of range: \"{text}\""),
        ),
        Failure::Zone(zone) => TypeError::parameter(format!("time zone \"{zone}\" not recognized")),
    }
}

fn read(text: &str) -> Result<Fields, Failure> {
    let mut fields = Fields::default();
    fields.claim_all(text)?;
    Ok(fields)
}

/// As [`read`], where a bare number is a time.
fn read_time(text: &str) -> Result<Fields, Failure> {
    let mut fields = Fields { after_t: true, ..Fields::default() };
    fields.claim_all(text)?;
    Ok(fields)
}

fn tokenize(text: &str) -> Result<Vec<Token<'_>>, Failure> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Failure::Syntax);
    }
    let mut tokens = Vec::new();
    let mut rest = text.trim();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '0'..='9' | '.' => number_token(rest),
            'a'..='z' | 'A'..='Z' => word_token(rest),
            '+' | '-' => offset_token(rest)?,
            c if c.is_whitespace() || c == ',' => {
                rest = &rest[1..];
                continue;
            }
            _ => return Err(Failure::Syntax),
        };
        tokens.push(token);
        rest = &rest[length..];
    }
    Ok(tokens)
}

fn span(text: &str, accept: impl Fn(char) -> bool) -> usize {
    text.find(|c: char| !accept(c)).unwrap_or(text.len())
}

fn number_token(rest: &str) -> (Token<'_>, usize) {
    let digits = span(rest, |c| c.is_ascii_digit());
    match rest.as_bytes().get(digits) {
        Some(b':') => {
            let end = span(rest, |c| c.is_ascii_digit() || c == ':' || c == '.');
            (Token::Time(&rest[..end]), end)
        }
        Some(delimiter @ (b'-' | b'/' | b'.')) if digits > 0 => {
            let delimiter = char::from(*delimiter);
            let after = &rest[digits + 1..];
            let second = span(after, |c| c.is_ascii_digit());
            let end = if second > 0 || after.is_empty() {
                let more = span(after, |c| c.is_ascii_digit() || c == delimiter);
                digits + 1 + more
            } else {
                digits + 1 + span(after, |c| c.is_ascii_alphanumeric() || c == delimiter)
            };
            let token = &rest[..end];
            let is_decimal = delimiter == '.' && token.matches('.').count() == 1;
            (if is_decimal { Token::Number(token) } else { Token::Date(token) }, end)
        }
        _ => {
            let end = span(rest, |c| c.is_ascii_digit() || c == '.').max(1);
            (Token::Number(&rest[..end]), end)
        }
    }
}

fn word_token(rest: &str) -> (Token<'_>, usize) {
    let letters = span(rest, |c| c.is_ascii_alphabetic());
    match rest.as_bytes().get(letters) {
        // `Jan-08-1999`
        Some(b'-') if month_by_name(&rest[..letters]).is_some() => {
            let end = span(rest, |c| c.is_ascii_alphanumeric() || c == '-');
            (Token::Date(&rest[..end]), end)
        }
        // `America/New_York`, `Etc/GMT+5`
        Some(b'/' | b'_') => {
            let end = span(rest, |c| c.is_ascii_alphanumeric() || "/_-+".contains(c));
            (Token::Word(&rest[..end]), end)
        }
        _ => (Token::Word(&rest[..letters]), letters),
    }
}

fn offset_token(rest: &str) -> Result<(Token<'_>, usize), Failure> {
    let body = &rest[1..];
    match body.chars().next() {
        Some('0'..='9') => {
            let end = 1 + span(body, |c| c.is_ascii_digit() || c == ':');
            Ok((Token::Offset(&rest[..end]), end))
        }
        Some('a'..='z' | 'A'..='Z') => {
            let end = 1 + span(body, |c| c.is_ascii_alphabetic());
            Ok((Token::Word(&rest[..end]), end))
        }
        _ => Err(Failure::Syntax),
    }
}

fn month_by_name(word: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let word = word.to_ascii_lowercase();
    let at = MONTHS.iter().position(|name| *name == word || name[..3] == word);
    at.or_else(|| (word == "sept").then_some(8)).map(|at| at as i64 + 1)
}

fn is_weekday(word: &str) -> bool {
    const DAYS: [&str; 7] =
        ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
    DAYS.iter().any(|name| *name == word || name[..3] == *word)
        || matches!(word, "tues" | "weds" | "thur" | "thurs")
}

impl Fields {
    fn claim_all(&mut self, text: &str) -> Result<(), Failure> {
        let tokens = tokenize(text)?;
        if tokens.is_empty() {
            return Err(Failure::Syntax);
        }
        for token in tokens {
            match token {
                Token::Number(text) => self.number(text)?,
                Token::Date(text) => self.date(text)?,
                Token::Time(text) => self.time_of_day(text)?,
                Token::Word(text) => self.word(text)?,
                Token::Offset(text) => {
                    if self.time_us.is_none() && self.special.is_none() && self.day.is_none() {
                        return Err(Failure::Syntax);
                    }
                    let seconds = zone::parse_offset(text).ok_or(Failure::Displacement)?;
                    claim(&mut self.zone, TimeZone::Fixed(seconds))?;
                }
            }
        }
        Ok(())
    }

    fn word(&mut self, text: &str) -> Result<(), Failure> {
        let word = text.to_ascii_lowercase();
        match word.as_str() {
            "t" => self.after_t = true,
            "am" => claim(&mut self.half, Half::Am)?,
            "pm" => claim(&mut self.half, Half::Pm)?,
            "ad" => {}
            "bc" => self.before_christ = true,
            "infinity" | "+infinity" => claim(&mut self.special, Special::Infinity)?,
            "-infinity" => claim(&mut self.special, Special::NegativeInfinity)?,
            "epoch" => claim(&mut self.special, Special::Epoch)?,
            "now" => claim(&mut self.special, Special::Now)?,
            "today" => claim(&mut self.special, Special::Day(0))?,
            "tomorrow" => claim(&mut self.special, Special::Day(1))?,
            "yesterday" => claim(&mut self.special, Special::Day(-1))?,
            "allballs" => {
                claim(&mut self.time_us, 0)?;
                claim(&mut self.zone, TimeZone::UTC)?;
            }
            _ if is_weekday(&word) => {}
            _ => match (month_by_name(&word), TimeZone::by_name(text)) {
                (Some(month), _) => {
                    // `1 Feb` and `Feb 1` both read their number as a day.
                    if let (Some(number), false, None) = (self.month, self.month_by_name, self.day)
                    {
                        self.day = Some(number);
                        self.month = None;
                    }
                    claim(&mut self.month, month)?;
                    self.month_by_name = true;
                }
                (None, Some(zone)) => claim(&mut self.zone, zone)?,
                (None, None) if text.contains('/') => {
                    return Err(Failure::Zone(text.to_ascii_lowercase()));
                }
                (None, None) => return Err(Failure::Syntax),
            },
        }
        Ok(())
    }

    fn number(&mut self, text: &str) -> Result<(), Failure> {
        let whole = &text[..span(text, |c| c.is_ascii_digit())];
        let has_date = self.year.is_some() && self.day.is_some();
        if self.after_t || (has_date && self.time_us.is_none()) {
            return self.compact_time(text);
        }
        if whole.len() < text.len() {
            return Err(Failure::Syntax);
        }
        let value: i64 = text.parse().map_err(|_| Failure::Range)?;
        match (text.len(), self.month_by_name) {
            (8.., false) => {
                let (rest, day) = (value / 100, value % 100);
                claim(&mut self.day, day)?;
                claim(&mut self.month, rest % 100)?;
                claim(&mut self.year, rest / 100)
            }
            (6, false) => {
                claim(&mut self.day, value % 100)?;
                claim(&mut self.month, value / 100 % 100)?;
                self.short_year = true;
                claim(&mut self.year, value / 10_000)
            }
            (3.., _) => claim(&mut self.year, value),
            (_, true) if self.day.is_none() => claim(&mut self.day, value),
            (_, true) => {
                self.short_year = true;
                claim(&mut self.year, value)
            }
            // A short number before any month: the month to be, or the day if a name follows.
            (_, false) if self.month.is_none() => claim(&mut self.month, value),
            (_, false) if self.day.is_none() => claim(&mut self.day, value),
            (_, false) => {
                self.short_year = true;
                claim(&mut self.year, value)
            }
        }
    }

    /// `040506.789`, `0405`
    fn compact_time(&mut self, text: &str) -> Result<(), Failure> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let (hours, minutes, seconds) = match whole.len() {
            6 => (&whole[..2], &whole[2..4], &whole[4..]),
            4 if fraction.is_empty() => (&whole[..2], &whole[2..], "0"),
            _ => return Err(Failure::Syntax),
        };
        self.set_time(hours, minutes, seconds, fraction)
    }

    fn time_of_day(&mut self, text: &str) -> Result<(), Failure> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let parts: Vec<&str> = whole.split(':').collect();
        match parts[..] {
            [hours, minutes] if fraction.is_empty() => self.set_time(hours, minutes, "0", ""),
            [minutes, seconds] => self.set_time("0", minutes, seconds, fraction),
            [hours, minutes, seconds] => self.set_time(hours, minutes, seconds, fraction),
            _ => Err(Failure::Syntax),
        }
    }

    fn set_time(
        &mut self,
        hours: &str,
        minutes: &str,
        seconds: &str,
        fraction: &str,
    ) -> Result<(), Failure> {
        let number = |text: &str| match text.parse::<i64>() {
            Ok(value) => Ok(value),
            Err(_) if text.is_empty() => Err(Failure::Syntax),
            Err(_) => Err(Failure::Range),
        };
        let (hours, minutes, seconds) = (number(hours)?, number(minutes)?, number(seconds)?);
        let fraction_us = match fraction {
            "" => 0,
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
                let value: f64 = format!("0.{digits}").parse().map_err(|_| Failure::Syntax)?;
                (value * 1e6).round_ties_even() as i64
            }
            _ => return Err(Failure::Syntax),
        };
        if hours > 24 || minutes > 59 || seconds > 60 {
            return Err(Failure::Range);
        }
        let us = (hours * 3600 + minutes * 60 + seconds) * US_PER_SECOND + fraction_us;
        if us > US_PER_DAY {
            return Err(Failure::Range);
        }
        claim(&mut self.time_us, us)
    }

    fn date(&mut self, text: &str) -> Result<(), Failure> {
        let delimiter = text.find(['-', '/', '.']).ok_or(Failure::Syntax)?;
        let parts: Vec<&str> = text.split(&text[delimiter..=delimiter]).collect();
        let named =
            parts.iter().position(|part| part.starts_with(|c: char| c.is_ascii_alphabetic()));
        let number = |text: &str| match text.parse::<i64>() {
            Ok(value) if !text.starts_with(['+', '-']) => Ok(value),
            _ => Err(Failure::Syntax),
        };
        let (year, month, day) = match (parts.as_slice(), named) {
            ([a, b, c], Some(1)) => {
                let month = month_by_name(b).ok_or(Failure::Syntax)?;
                if a.len() > 2 { (*a, month, number(c)?) } else { (*c, month, number(a)?) }
            }
            ([a, b, c], Some(0)) => (*c, month_by_name(a).ok_or(Failure::Syntax)?, number(b)?),
            ([a, b, c], None) if a.len() > 2 => (*a, number(b)?, number(c)?),
            // DateStyle MDY.
            ([a, b, c], None) => (*c, number(a)?, number(b)?),
            _ => return Err(Failure::Syntax),
        };
        self.short_year = year.len() <= 2;
        self.month_by_name = named.is_some();
        claim(&mut self.year, number(year)?)?;
        claim(&mut self.month, month)?;
        claim(&mut self.day, day)
    }

    /// The day, if the text had one.
    fn civil(&self) -> Result<Option<(i64, i64, i64)>, Failure> {
        let (Some(year), Some(month), Some(day)) = (self.year, self.month, self.day) else {
            return Ok(None);
        };
        let year = match (self.before_christ, self.short_year) {
            (true, _) if year == 0 => return Err(Failure::Range),
            (true, _) => 1 - year,
            (false, true) if year < 70 => year + 2000,
            (false, true) => year + 1900,
            (false, false) if year == 0 => return Err(Failure::Range),
            (false, false) => year,
        };
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return Err(Failure::MonthOrDay);
        }
        if day > days_in_month(year, month) {
            return Err(Failure::Range);
        }
        Ok(Some((year, month, day)))
    }

    /// Microseconds since midnight, if the text had a time.
    fn time(&self) -> Result<Option<i64>, Failure> {
        const HOUR: i64 = 3600 * US_PER_SECOND;
        let Some(us) = self.time_us else { return Ok(None) };
        let hour = us / HOUR;
        match self.half {
            None => Ok(Some(us)),
            Some(_) if hour > 12 => Err(Failure::Range),
            Some(Half::Am) if hour == 12 => Ok(Some(us - 12 * HOUR)),
            Some(Half::Pm) if hour != 12 => Ok(Some(us + 12 * HOUR)),
            Some(_) => Ok(Some(us)),
        }
    }
}

fn claim<T>(field: &mut Option<T>, value: T) -> Result<(), Failure> {
    match field {
        Some(_) => Err(Failure::Syntax),
        None => {
            *field = Some(value);
            Ok(())
        }
    }
}

/// The date that a number of days means, for messages and tests.
pub fn civil(days: i32) -> (i64, i64, i64) {
    civil_from_days(i64::from(days))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::context::FixedContext;
    use crate::types::datetime::{write_timestamp, write_timestamptz};

    fn stamp(text: &str) -> String {
        let mut out = String::new();
        let us = parse_timestamp(text, &FixedContext::default()).expect(text);
        write_timestamp(&mut out, us);
        out
    }

    #[test]
    fn many_spellings_mean_one_instant() {
        for text in [
            "1999-01-08 04:05:06",
            "1999-01-08T04:05:06",
            "19990108 040506",
            "19990108T040506",
            "January 8, 1999 04:05:06",
            "8 January 1999 04:05:06",
            "Fri Jan 8 04:05:06 1999",
            "1/8/1999 4:05:06 AM",
            "1/8/99 4:05:06",
            "1999-Jan-08 04:05:06",
            "08-Jan-1999 04:05:06",
            "Jan-08-1999 04:05:06",
            "1999-01-08 04:05:06 UTC",
            "1999-01-08 04:05:06-08",
        ] {
            assert_eq!(stamp(text), "1999-01-08 04:05:06", "{text}");
        }
    }

    #[test]
    fn zones_move_an_instant() {
        let show = |text: &str| {
            let mut out = String::new();
            let us = parse_timestamptz(text, &FixedContext::default()).expect(text);
            write_timestamptz(&mut out, us, TimeZone::UTC);
            out
        };
        assert_eq!(show("1999-01-08 04:05:06-08"), "1999-01-08 12:05:06+00");
        assert_eq!(show("1999-01-08 04:05:06 PST"), "1999-01-08 12:05:06+00");
        assert_eq!(show("1999-01-08T04:05:06Z"), "1999-01-08 04:05:06+00");
        assert_eq!(show("1999-01-08 04:05:06 America/New_York"), "1999-01-08 09:05:06+00");
        assert_eq!(show("1999-01-08 04:05:06.1234565+05:30"), "1999-01-07 22:35:06.123456+00");
        assert_eq!(show("epoch"), "1970-01-01 00:00:00+00");
        assert_eq!(show("-infinity"), "-infinity");
    }

    #[test]
    fn errors_have_postgres_codes() {
        let context = FixedContext::default();
        let code = |text: &str| parse_timestamp(text, &context).expect_err(text).code.to_string();
        for text in
            ["", "x", "1999-01", "04:05", "1999-01-08 04:05:06 foo", "1999-01-08 1999-01-08"]
        {
            assert_eq!(code(text), "22007", "{text}");
        }
        for text in ["1999-13-01", "1999-02-30", "1999-01-08 25:00", "300000-01-01", "0000-01-01"] {
            assert_eq!(code(text), "22008", "{text}");
        }
        assert_eq!(code("1999-01-08 04:05 Foo/Bar"), "22023");
    }
}
