//! Arithmetic of dates, times, instants and intervals: a value.
//!
//! An interval is added in three steps: months by the calendar (the day is cut to the month's length), then days by the
//! calendar, then microseconds. For instants the first two happen in the session's zone, so that a day may have 23 hours.
//! Infinities stay infinite; results beyond the range are 22008.

use crate::types::cast::date_to_timestamp;
use crate::types::context::EvalContext;
use crate::types::datetime as dt;
use crate::types::datum::Datum;
use crate::types::error::{SqlState, TypeError};
use crate::types::interval::Interval;
use crate::types::registry::{Function, Volatility, arg, pure};
use crate::types::ty::Type::{self, Date, Float8, Int4, Time, Timestamp, TimestampTz};
use crate::types::zone::TimeZone;

const IV: Type = Type::Interval;
const TS: Type = Timestamp;
const TZ: Type = TimestampTz;

const fn stable(function: Function) -> Function {
    function.with_volatility(Volatility::Stable)
}

/// The operators of this room.
pub(in crate::types) const TABLE: &[Function] = &[
    pure("+", &[Date, Int4], Date, |_, a| add_days(arg::date(a, 0)?, arg::int(a, 1)?)),
    pure("+", &[Int4, Date], Date, |_, a| add_days(arg::date(a, 1)?, arg::int(a, 0)?)),
    pure("-", &[Date, Int4], Date, |_, a| add_days(arg::date(a, 0)?, -arg::int(a, 1)?)),
    pure("-", &[Date, Date], Int4, |_, a| days_between(arg::date(a, 0)?, arg::date(a, 1)?)),
    pure("+", &[Date, IV], TS, |_, a| date_plus(arg::date(a, 0)?, arg::interval(a, 1)?)),
    pure("+", &[IV, Date], TS, |_, a| date_plus(arg::date(a, 1)?, arg::interval(a, 0)?)),
    pure("-", &[Date, IV], TS, |_, a| date_plus(arg::date(a, 0)?, arg::interval(a, 1)?.neg()?)),
    pure("+", &[Date, Time], TS, |_, a| date_at(arg::date(a, 0)?, arg::us(a, 1)?)),
    pure("+", &[Time, Date], TS, |_, a| date_at(arg::date(a, 1)?, arg::us(a, 0)?)),
    pure("+", &[TS, IV], TS, |_, a| {
        add_interval(arg::us(a, 0)?, arg::interval(a, 1)?).map(Datum::Timestamp)
    }),
    pure("+", &[IV, TS], TS, |_, a| {
        add_interval(arg::us(a, 1)?, arg::interval(a, 0)?).map(Datum::Timestamp)
    }),
    pure("-", &[TS, IV], TS, |_, a| {
        add_interval(arg::us(a, 0)?, arg::interval(a, 1)?.neg()?).map(Datum::Timestamp)
    }),
    stable(pure("+", &[TZ, IV], TZ, |c, a| instant_plus(c, arg::us(a, 0)?, arg::interval(a, 1)?))),
    stable(pure("+", &[IV, TZ], TZ, |c, a| instant_plus(c, arg::us(a, 1)?, arg::interval(a, 0)?))),
    stable(pure("-", &[TZ, IV], TZ, |c, a| {
        instant_plus(c, arg::us(a, 0)?, arg::interval(a, 1)?.neg()?)
    })),
    pure("-", &[TS, TS], IV, |_, a| difference(arg::us(a, 0)?, arg::us(a, 1)?)),
    pure("-", &[TZ, TZ], IV, |_, a| difference(arg::us(a, 0)?, arg::us(a, 1)?)),
    pure("-", &[Time, Time], IV, |_, a| {
        Ok(Datum::Interval(Interval::from_us(arg::us(a, 0)? - arg::us(a, 1)?)))
    }),
    pure("+", &[Time, IV], Time, |_, a| time_plus(arg::us(a, 0)?, arg::interval(a, 1)?)),
    pure("+", &[IV, Time], Time, |_, a| time_plus(arg::us(a, 1)?, arg::interval(a, 0)?)),
    pure("-", &[Time, IV], Time, |_, a| time_plus(arg::us(a, 0)?, arg::interval(a, 1)?.neg()?)),
    pure("+", &[IV, IV], IV, |_, a| {
        arg::interval(a, 0)?.add(&arg::interval(a, 1)?).map(Datum::Interval)
    }),
    pure("-", &[IV, IV], IV, |_, a| {
        arg::interval(a, 0)?.add(&arg::interval(a, 1)?.neg()?).map(Datum::Interval)
    }),
    pure("-", &[IV], IV, |_, a| arg::interval(a, 0)?.neg().map(Datum::Interval)),
    pure("*", &[IV, Float8], IV, |_, a| {
        arg::interval(a, 0)?.mul(arg::float(a, 1)?).map(Datum::Interval)
    }),
    pure("*", &[Float8, IV], IV, |_, a| {
        arg::interval(a, 1)?.mul(arg::float(a, 0)?).map(Datum::Interval)
    }),
    pure("/", &[IV, Float8], IV, |_, a| {
        arg::interval(a, 0)?.div(arg::float(a, 1)?).map(Datum::Interval)
    }),
];

type Answer = Result<Datum, TypeError>;

fn is_infinite_date(days: i32) -> bool {
    matches!(days, i32::MIN | i32::MAX)
}

fn is_infinite(us: i64) -> bool {
    matches!(us, dt::TIMESTAMP_INFINITY | dt::TIMESTAMP_NEGATIVE_INFINITY)
}

fn add_days(days: i32, more: i64) -> Answer {
    if is_infinite_date(days) {
        return Ok(Datum::Date(days));
    }
    dt::checked_date(i64::from(days) + more).map(Datum::Date)
}

fn days_between(a: i32, b: i32) -> Answer {
    if is_infinite_date(a) || is_infinite_date(b) {
        return Err(TypeError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            "cannot subtract infinite dates",
        ));
    }
    let days = i32::try_from(i64::from(a) - i64::from(b));
    days.map(Datum::Int4).map_err(|_| TypeError::out_of_range("integer"))
}

fn date_plus(days: i32, interval: Interval) -> Answer {
    add_interval(date_to_timestamp(days)?, interval).map(Datum::Timestamp)
}

fn date_at(days: i32, time_us: i64) -> Answer {
    let midnight = date_to_timestamp(days)?;
    if is_infinite(midnight) {
        return Ok(Datum::Timestamp(midnight));
    }
    dt::checked_timestamp(midnight.checked_add(time_us)).map(Datum::Timestamp)
}

/// A local timestamp plus an interval.
pub(in crate::types) fn add_interval(us: i64, interval: Interval) -> Result<i64, TypeError> {
    if is_infinite(us) {
        return Ok(us);
    }
    let shifted = add_calendar(us, interval)?;
    dt::checked_timestamp(shifted.checked_add(interval.us))
}

/// An instant plus an interval, months and days by the calendar of a zone.
pub(in crate::types) fn add_interval_tz(
    us: i64,
    interval: Interval,
    zone: TimeZone,
) -> Result<i64, TypeError> {
    if is_infinite(us) {
        return Ok(us);
    }
    let shifted = match (interval.months, interval.days) {
        (0, 0) => us,
        _ => {
            let local = dt::checked_timestamp(zone.to_local(us))?;
            zone.to_instant(add_calendar(local, interval)?)?
        }
    };
    dt::checked_timestamp(shifted.checked_add(interval.us))
}

/// The months and days of an interval, by the calendar.
fn add_calendar(us: i64, interval: Interval) -> Result<i64, TypeError> {
    let mut at = dt::datetime_from(us);
    if interval.months != 0 {
        let months = at.year * 12 + at.month - 1 + i64::from(interval.months);
        (at.year, at.month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
        at.day = at.day.min(dt::days_in_month(at.year, at.month));
    }
    at.day += i64::from(interval.days);
    dt::checked_timestamp(dt::timestamp_from(&at))
}

fn instant_plus(context: &dyn EvalContext, us: i64, interval: Interval) -> Answer {
    add_interval_tz(us, interval, context.time_zone()).map(Datum::TimestampTz)
}

fn difference(a: i64, b: i64) -> Answer {
    if is_infinite(a) || is_infinite(b) {
        return Err(TypeError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            "cannot subtract infinite timestamps",
        ));
    }
    let us = a.checked_sub(b).ok_or_else(crate::types::interval::out_of_range)?;
    Interval::from_us(us).justify_hours().map(Datum::Interval)
}

fn time_plus(us: i64, interval: Interval) -> Answer {
    let sum = i128::from(us) + i128::from(interval.us);
    Ok(Datum::Time(sum.rem_euclid(i128::from(dt::US_PER_DAY)) as i64))
}
