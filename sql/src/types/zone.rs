//! Time zones of a session: a value over the IANA tables that are compiled in.
//!
//! A zone is a name (`America/New_York`) or a fixed offset. Local times that a clock change skips or repeats resolve as
//! PostgreSQL resolves them: in the gap of spring with the offset from before it, in the repeated hour of autumn with the
//! later offset. Honest limit: the compiled tables end in 2037 to 2100 by zone; later dates use the last offset.

use super::datetime::{US_PER_DAY, US_PER_SECOND};
use super::error::{SqlState, TypeError};
use chrono::{MappedLocalTime, NaiveDateTime, Offset, TimeZone as _};
use std::fmt;

/// A session's time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeZone {
    /// A zone of the IANA database.
    Named(chrono_tz::Tz),
    /// Seconds east of Greenwich.
    Fixed(i32),
}

/// Microseconds from 1970-01-01 to 2000-01-01.
const EPOCH_2000_US: i64 = 946_684_800 * US_PER_SECOND;
/// Largest offset that a time zone may have, in seconds: PostgreSQL's 15:59:59.
pub const OFFSET_SECONDS_MAX: i32 = 16 * 3600 - 1;

impl TimeZone {
    /// Greenwich.
    pub const UTC: TimeZone = TimeZone::Named(chrono_tz::Tz::UTC);

    /// The zone by its name or offset, as `SET TIME ZONE` and `AT TIME ZONE` take it. 22023 for an unknown one.
    /// An offset in a string is POSIX: `'+5'` lies west of Greenwich.
    pub fn parse(text: &str) -> Result<TimeZone, TypeError> {
        let name = text.trim();
        if let Some(zone) = TimeZone::by_name(name) {
            return Ok(zone);
        }
        // A POSIX zone with a quoted name, as fixed offsets are shown: `<+02>-02`.
        let name = name
            .strip_prefix('<')
            .and_then(|quoted| quoted.split_once('>'))
            .map_or(name, |(_, offset)| offset);
        let posix = name.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        if let Some(seconds) = parse_offset(posix) {
            return Ok(TimeZone::Fixed(-seconds));
        }
        if let Some(seconds) = parse_offset(&format!("+{posix}"))
            && !posix.is_empty()
        {
            return Ok(TimeZone::Fixed(-seconds));
        }
        Err(TypeError::parameter(format!("time zone \"{text}\" not recognized")))
    }

    /// The zone as `SET TIME ZONE` takes it: a bare number is hours east of Greenwich, as in the SQL standard; all else is as in
    /// [`TimeZone::parse`]. 22023 for an unknown one.
    pub fn of_setting(text: &str) -> Result<TimeZone, TypeError> {
        let Ok(hours) = text.trim().parse::<f64>() else { return TimeZone::parse(text) };
        let seconds = (hours * 3600.0).round();
        if seconds.is_nan() || seconds.abs() > f64::from(OFFSET_SECONDS_MAX) {
            return Err(TypeError::parameter(format!("time zone \"{text}\" not recognized")));
        }
        Ok(TimeZone::Fixed(seconds as i32))
    }

    /// The zone of `SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE`: east is positive. 22023 if it is no offset.
    pub fn of_interval(text: &str) -> Result<TimeZone, TypeError> {
        let text = text.trim();
        let offset = parse_offset(text).or_else(|| parse_offset(&format!("+{text}")));
        offset.map(TimeZone::Fixed).ok_or_else(|| {
            TypeError::parameter(format!("time zone interval \"{text}\" not recognized"))
        })
    }

    /// The zone of a full name or a known abbreviation, in any case.
    pub fn by_name(name: &str) -> Option<TimeZone> {
        let abbreviation = match name.to_ascii_uppercase().as_str() {
            "UTC" | "GMT" | "Z" | "ZULU" | "UT" | "UCT" => return Some(TimeZone::UTC),
            "EST" => -5,
            "EDT" | "AST" => -4,
            "CST" => -6,
            "CDT" => -5,
            "MST" => -7,
            "MDT" => -6,
            "PST" => -8,
            "PDT" => -7,
            "CET" | "BST" | "WEST" | "MET" => 1,
            "CEST" | "EET" | "METDST" | "SAST" => 2,
            "EEST" | "MSK" => 3,
            "WET" => 0,
            "JST" | "KST" => 9,
            "AEST" => 10,
            "AEDT" => 11,
            "NZST" => 12,
            "NZDT" => 13,
            _ => {
                // Names are nearly always written in their own case: that look-up is a perfect hash.
                let exact = name.parse::<chrono_tz::Tz>().ok();
                let any_case = || {
                    chrono_tz::TZ_VARIANTS
                        .iter()
                        .find(|zone| zone.name().eq_ignore_ascii_case(name))
                        .copied()
                };
                return exact.or_else(any_case).map(TimeZone::Named);
            }
        };
        Some(TimeZone::Fixed(abbreviation * 3600))
    }

    /// Seconds east of Greenwich at an instant.
    pub fn offset_at(self, timestamptz_us: i64) -> i32 {
        match self {
            TimeZone::Fixed(seconds) => seconds,
            TimeZone::Named(chrono_tz::Tz::UTC) => 0,
            TimeZone::Named(zone) => {
                zone.offset_from_utc_datetime(&naive(timestamptz_us)).fix().local_minus_utc()
            }
        }
    }

    /// Seconds east of Greenwich at a local time.
    pub fn offset_at_local(self, timestamp_us: i64) -> i32 {
        let zone = match self {
            TimeZone::Fixed(seconds) => return seconds,
            TimeZone::Named(chrono_tz::Tz::UTC) => return 0,
            TimeZone::Named(zone) => zone,
        };
        match zone.offset_from_local_datetime(&naive(timestamp_us)) {
            MappedLocalTime::Single(offset) => offset.fix().local_minus_utc(),
            MappedLocalTime::Ambiguous(_, later) => later.fix().local_minus_utc(),
            // In the gap: the offset that was in force a day earlier.
            MappedLocalTime::None => self.offset_at(timestamp_us.saturating_sub(US_PER_DAY)),
        }
    }

    /// The local time of an instant; infinities stay. `None` beyond the range of timestamps.
    pub fn to_local(self, timestamptz_us: i64) -> Option<i64> {
        if matches!(timestamptz_us, i64::MIN | i64::MAX) {
            return Some(timestamptz_us);
        }
        let offset = i64::from(self.offset_at(timestamptz_us));
        timestamptz_us.checked_add(offset * US_PER_SECOND)
    }

    /// The instant of a local time; infinities stay. 22008 beyond the range of timestamps.
    pub fn to_instant(self, timestamp_us: i64) -> Result<i64, TypeError> {
        if matches!(timestamp_us, i64::MIN | i64::MAX) {
            return Ok(timestamp_us);
        }
        let offset = i64::from(self.offset_at_local(timestamp_us));
        timestamp_us.checked_sub(offset * US_PER_SECOND).ok_or_else(|| {
            TypeError::new(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp out of range")
        })
    }

    /// The abbreviation in force at an instant, as `to_char(.., 'TZ')` shows it; empty for a fixed offset.
    pub fn abbreviation_at(self, timestamptz_us: i64) -> String {
        match self {
            TimeZone::Fixed(_) => String::new(),
            TimeZone::Named(zone) => {
                zone.offset_from_utc_datetime(&naive(timestamptz_us)).to_string()
            }
        }
    }
}

impl fmt::Display for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TimeZone::Named(zone) => f.write_str(zone.name()),
            // PostgreSQL shows a fixed offset as a POSIX zone: a display name, then the offset westward.
            TimeZone::Fixed(seconds) => {
                let (sign, west) = if *seconds < 0 { ('-', '+') } else { ('+', '-') };
                let (hours, minutes) = (seconds.abs() / 3600, seconds.abs() % 3600 / 60);
                match minutes {
                    0 => write!(f, "<{sign}{hours:02}>{west}{hours:02}"),
                    _ => write!(f, "<{sign}{hours:02}:{minutes:02}>{west}{hours:02}:{minutes:02}"),
                }
            }
        }
    }
}

/// Reads `+05`, `-0530`, `+5:30`, `+05:30:15`: seconds in the sense of the sign. `None` if it is none, or too large.
pub(super) fn parse_offset(text: &str) -> Option<i32> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let body = &text[1..];
    if body.is_empty() || !body.bytes().all(|b| b.is_ascii_digit() || b == b':') {
        return None;
    }
    let parts: Vec<&str> = body.split(':').collect();
    let number = |text: &str| text.parse::<i32>().ok();
    let (hours, minutes, seconds) = match parts[..] {
        [hhmm] if hhmm.len() == 3 || hhmm.len() == 4 => {
            let (hours, minutes) = hhmm.split_at(hhmm.len() - 2);
            (number(hours)?, number(minutes)?, 0)
        }
        [hours] if hours.len() <= 2 => (number(hours)?, 0, 0),
        [hours, minutes] => (number(hours)?, number(minutes)?, 0),
        [hours, minutes, seconds] => (number(hours)?, number(minutes)?, number(seconds)?),
        _ => return None,
    };
    if hours > 15 || minutes > 59 || seconds > 59 {
        return None;
    }
    Some(sign * (hours * 3600 + minutes * 60 + seconds))
}

fn naive(us_since_2000: i64) -> NaiveDateTime {
    let us = us_since_2000.saturating_add(EPOCH_2000_US);
    let far = if us < 0 {
        chrono::DateTime::<chrono::Utc>::MIN_UTC
    } else {
        chrono::DateTime::<chrono::Utc>::MAX_UTC
    };
    chrono::DateTime::from_timestamp_micros(us).unwrap_or(far).naive_utc()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::datetime::{DateTime, timestamp_from};

    #[test]
    fn gaps_and_repeats_resolve_as_postgres_resolves_them() {
        let zone = TimeZone::parse("america/new_york").expect("a zone");
        let at = |month: i64, day: i64, hour: i64| {
            timestamp_from(&DateTime {
                year: 2021,
                month,
                day,
                us: (hour * 3600 + 1800) * 1_000_000,
            })
            .expect("in range")
        };
        assert_eq!(zone.offset_at_local(at(3, 14, 1)), -5 * 3600);
        assert_eq!(zone.offset_at_local(at(3, 14, 2)), -5 * 3600);
        assert_eq!(zone.offset_at_local(at(3, 14, 3)), -4 * 3600);
        assert_eq!(zone.offset_at_local(at(11, 7, 1)), -5 * 3600);
        assert_eq!(zone.offset_at_local(at(11, 7, 0)), -4 * 3600);
    }

    #[test]
    fn names_and_offsets_parse() {
        assert_eq!(TimeZone::parse("utc").expect("UTC"), TimeZone::UTC);
        assert_eq!(TimeZone::parse("+5").expect("POSIX"), TimeZone::Fixed(-5 * 3600));
        assert_eq!(TimeZone::parse("UTC+3").expect("POSIX"), TimeZone::Fixed(-3 * 3600));
        assert_eq!(parse_offset("-05:30"), Some(-19_800));
        assert_eq!(parse_offset("+1600"), None);
        assert!(TimeZone::parse("Mars/Olympus").is_err());
        assert_eq!(TimeZone::Fixed(-3 * 3600).to_string(), "<-03>+03");
        for seconds in [-19_800, -3600, 0, 7200, 20_700] {
            let zone = TimeZone::Fixed(seconds);
            assert_eq!(TimeZone::parse(&zone.to_string()).expect("as shown"), zone);
        }
    }

    #[test]
    fn a_number_that_is_set_is_hours_east() {
        let set = |text: &str| TimeZone::of_setting(text).expect("a zone");
        assert_eq!(set("+02"), TimeZone::Fixed(7200));
        assert_eq!(set("-5"), TimeZone::Fixed(-5 * 3600));
        assert_eq!(set("5.5"), TimeZone::Fixed(19_800));
        assert_eq!(set("+02:00"), TimeZone::Fixed(-7200));
        assert_eq!(TimeZone::of_interval("-08:00").expect("west"), TimeZone::Fixed(-8 * 3600));
        assert!(TimeZone::of_setting("99").is_err());
        assert!(TimeZone::of_setting("nan").is_err());
    }
}
