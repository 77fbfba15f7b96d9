//! The calendar behind `date`, `time`, `timestamp` and `timestamptz`: a value. Days and microseconds since 2000-01-01 to
//! year, month, day and back, and PostgreSQL's ISO output. Reading dates is `datetime_in.rs`.
//!
//! The calendar is Gregorian for all years (as PostgreSQL's), years count astronomically: 0 is 1 BC.
//! INVARIANT: `datetime_from(timestamp_from(x)) == x` for every date in range; a property below.
//! Source: Hinnant, "chrono-compatible low-level date algorithms".

use super::error::{SqlState, TypeError};
use super::zone::TimeZone;
use std::fmt::Write;

/// Microseconds in a second.
pub const US_PER_SECOND: i64 = 1_000_000;
/// Microseconds in a day of 24 hours.
pub const US_PER_DAY: i64 = 86_400 * US_PER_SECOND;
/// 4714-11-24 BC, the first date.
pub const DATE_MIN: i32 = -2_451_545;
/// 5874897-12-31, the last date.
pub const DATE_MAX: i32 = 2_145_031_948;
/// 4714-11-24 00:00:00 BC, the first timestamp.
pub const TIMESTAMP_MIN: i64 = DATE_MIN as i64 * US_PER_DAY;
/// The end of 294276-12-31, exclusive.
pub const TIMESTAMP_END: i64 = 9_223_371_331_200_000_000;
/// `-infinity` of timestamps.
pub const TIMESTAMP_NEGATIVE_INFINITY: i64 = i64::MIN;
/// `infinity` of timestamps.
pub const TIMESTAMP_INFINITY: i64 = i64::MAX;

/// A local date and time in fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime {
    /// Astronomical: 0 is 1 BC.
    pub year: i64,
    /// 1 to 12
    pub month: i64,
    /// 1 to 31
    pub day: i64,
    /// Microseconds since midnight.
    pub us: i64,
}

/// Days from 2000-01-01 to a date of the Gregorian calendar. The day may lie outside its month.
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 730_425
}

/// Year, month and day of the day that lies so many days after 2000-01-01.
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 730_425;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Days in a month.
pub fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.rem_euclid(4) == 0
            && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0) =>
        {
            29
        }
        2 => 28,
        _ => 31,
    }
}

/// The fields of a finite timestamp.
pub fn datetime_from(timestamp_us: i64) -> DateTime {
    let (year, month, day) = civil_from_days(timestamp_us.div_euclid(US_PER_DAY));
    DateTime { year, month, day, us: timestamp_us.rem_euclid(US_PER_DAY) }
}

/// The timestamp of these fields; `None` beyond the range of timestamps.
pub fn timestamp_from(at: &DateTime) -> Option<i64> {
    let days = days_from_civil(at.year, at.month, at.day);
    let us = days.checked_mul(US_PER_DAY)?.checked_add(at.us)?;
    is_timestamp(us).then_some(us)
}

/// True for a finite timestamp in range.
pub fn is_timestamp(us: i64) -> bool {
    (TIMESTAMP_MIN..TIMESTAMP_END).contains(&us)
}

/// A timestamp checked for its range: 22008.
pub fn checked_timestamp(us: Option<i64>) -> Result<i64, TypeError> {
    us.filter(|us| is_timestamp(*us))
        .ok_or_else(|| TypeError::new(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp out of range"))
}

/// A date checked for its range: 22008.
pub fn checked_date(days: i64) -> Result<i32, TypeError> {
    let date = i32::try_from(days).ok().filter(|days| (DATE_MIN..=DATE_MAX).contains(days));
    date.ok_or_else(|| TypeError::new(SqlState::DATETIME_FIELD_OVERFLOW, "date out of range"))
}

/// 0 for Sunday to 6 for Saturday.
pub fn weekday(days: i64) -> i64 {
    (days + 6).rem_euclid(7)
}

/// ISO 8601 year and week (1 to 53) of a day.
pub fn iso_week(days: i64) -> (i64, i64) {
    // The week belongs to the year that its Thursday lies in.
    let thursday = days - (weekday(days) + 6) % 7 + 3;
    let (year, _, _) = civil_from_days(thursday);
    (year, (thursday - days_from_civil(year, 1, 1)) / 7 + 1)
}

/// Microseconds rounded to `precision` digits of a second, half away from zero. Precisions outside 0 to 6 change nothing.
pub fn round_us(us: i64, precision: i32) -> i64 {
    let Ok(drop) = u32::try_from(6 - precision) else { return us };
    if precision < 0 {
        return us;
    }
    let unit = 10i64.pow(drop);
    let half = if us < 0 { -(unit / 2) } else { unit / 2 };
    us.saturating_add(half) / unit * unit
}

fn write_date(out: &mut String, year: i64, month: i64, day: i64) {
    let shown = if year > 0 { year } else { 1 - year };
    let _ = write!(out, "{shown:04}-{month:02}-{day:02}");
}

/// Appends `HH:MM:SS[.ffffff]` without zeros at the end of the fraction.
pub fn write_time(out: &mut String, us: i64) {
    let seconds = us / US_PER_SECOND;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let _ = write!(out, "{hours:02}:{minutes:02}:{:02}", seconds % 60);
    write_fraction(out, us % US_PER_SECOND);
}

/// Appends `.ffffff` without zeros at the end; nothing for zero.
pub(super) fn write_fraction(out: &mut String, us: i64) {
    if us > 0 {
        let digits = format!(".{us:06}");
        out.push_str(digits.trim_end_matches('0'));
    }
}

/// Appends a date as ISO prints it.
pub fn write_date_value(out: &mut String, days: i32) {
    match days {
        i32::MIN => out.push_str("-infinity"),
        i32::MAX => out.push_str("infinity"),
        days => {
            let (year, month, day) = civil_from_days(i64::from(days));
            write_date(out, year, month, day);
            if year <= 0 {
                out.push_str(" BC");
            }
        }
    }
}

/// Appends a timestamp as ISO prints it.
pub fn write_timestamp(out: &mut String, us: i64) {
    write_timestamp_with(out, us, ' ', "");
}

/// Appends a timestamp in the form of JSON: `T` between date and time.
pub fn write_timestamp_json(out: &mut String, us: i64) {
    write_timestamp_with(out, us, 'T', "");
}

fn write_timestamp_with(out: &mut String, us: i64, separator: char, offset: &str) {
    match us {
        TIMESTAMP_NEGATIVE_INFINITY => out.push_str("-infinity"),
        TIMESTAMP_INFINITY => out.push_str("infinity"),
        us => {
            let at = datetime_from(us);
            write_date(out, at.year, at.month, at.day);
            out.push(separator);
            write_time(out, at.us);
            out.push_str(offset);
            if at.year <= 0 {
                out.push_str(" BC");
            }
        }
    }
}

/// `+05`, `-05:30`, `+00:19:32`
pub fn format_offset(seconds: i32) -> String {
    let (sign, seconds) = (if seconds < 0 { '-' } else { '+' }, seconds.abs());
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (minutes, seconds) {
        (0, 0) => format!("{sign}{hours:02}"),
        (_, 0) => format!("{sign}{hours:02}:{minutes:02}"),
        _ => format!("{sign}{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

/// Appends an instant as ISO prints it in a zone.
pub fn write_timestamptz(out: &mut String, us: i64, zone: TimeZone) {
    write_instant(out, us, zone, ' ');
}

/// Appends an instant in the form of JSON: `T` between date and time, minutes of the offset always shown.
pub fn write_timestamptz_json(out: &mut String, us: i64, zone: TimeZone) {
    write_instant(out, us, zone, 'T');
}

fn write_instant(out: &mut String, us: i64, zone: TimeZone, separator: char) {
    let mut offset = match us {
        TIMESTAMP_NEGATIVE_INFINITY | TIMESTAMP_INFINITY => String::new(),
        us => format_offset(zone.offset_at(us)),
    };
    if separator == 'T' && offset.len() == 3 {
        offset.push_str(":00");
    }
    let local = zone.to_local(us).unwrap_or(us);
    write_timestamp_with(out, local, separator, &offset);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_days() {
        assert_eq!(days_from_civil(2000, 1, 1), 0);
        assert_eq!(days_from_civil(1970, 1, 1), -10_957);
        assert_eq!(days_from_civil(-4713, 11, 24), i64::from(DATE_MIN));
        assert_eq!(days_from_civil(5_874_897, 12, 31), i64::from(DATE_MAX));
        assert_eq!(days_from_civil(294_277, 1, 1) * US_PER_DAY, TIMESTAMP_END);
        assert_eq!(weekday(0), 6);
        assert_eq!(iso_week(days_from_civil(2021, 1, 3)), (2020, 53));
        assert_eq!(iso_week(days_from_civil(2018, 12, 31)), (2019, 1));
    }

    #[test]
    fn known_texts() {
        let text = |us| {
            let mut out = String::new();
            write_timestamp(&mut out, us);
            out
        };
        assert_eq!(text(1), "2000-01-01 00:00:00.000001");
        assert_eq!(text(TIMESTAMP_MIN), "4714-11-24 00:00:00 BC");
        assert_eq!(text(TIMESTAMP_END - 1_000_000), "294276-12-31 23:59:59");
        assert_eq!(text(i64::MAX), "infinity");
        let mut out = String::new();
        write_timestamptz(&mut out, 0, TimeZone::by_name("Asia/Kolkata").expect("a zone"));
        assert_eq!(out, "2000-01-01 05:30:00+05:30");
    }

    proptest! {
        #[test]
        fn the_calendar_round_trips(days in DATE_MIN..DATE_MAX) {
            let (year, month, day) = civil_from_days(i64::from(days));
            prop_assert_eq!(days_from_civil(year, month, day), i64::from(days));
            prop_assert!((1..=12).contains(&month) && day >= 1 && day <= days_in_month(year, month));
        }
    }
}
