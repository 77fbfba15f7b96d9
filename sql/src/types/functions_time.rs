//! Functions over dates and times: a value. Names and results as in PostgreSQL's manual 9.9.
//!
//! `now()` is the transaction's time, for the whole transaction. `timezone(zone, t)` is `t AT TIME ZONE zone`. `extract` is numeric,
//! `date_part` a float.

use super::cast::date_to_timestamp;
use super::context::EvalContext;
use super::datetime::{self as dt, US_PER_DAY, US_PER_SECOND};
use super::datum::Datum;
use super::error::{SqlState, TypeError};
use super::interval::Interval;
use super::numeric::Numeric;
use super::operators::{add_interval, add_interval_tz};
use super::registry::{Function, Volatility, arg, pure};
use super::ty::Type::{self, Date, Float8, Int4, Text, Time, Timestamp, TimestampTz};
use super::zone::TimeZone;

type Answer = Result<Datum, TypeError>;
const IV: Type = Type::Interval;
const TS: Type = Timestamp;
const TZ: Type = TimestampTz;
const N: Type = Type::Numeric;

const fn stable(function: Function) -> Function {
    function.with_volatility(Volatility::Stable)
}

macro_rules! fields {
    ($name:literal, $result:expr, $code:expr) => {
        [
            pure($name, &[Text, Date], $result, $code),
            pure($name, &[Text, TS], $result, $code),
            stable(pure($name, &[Text, TZ], $result, $code)),
            pure($name, &[Text, Time], $result, $code),
            pure($name, &[Text, IV], $result, $code),
        ]
    };
}

const EXTRACT: [Function; 5] = fields!("extract", N, |c, a| extract(c, a).map(or_null));
const DATE_PART: [Function; 5] = fields!("date_part", Float8, |c, a| {
    Ok(extract(c, a)?.map_or(Datum::Null, |number| Datum::Float8(number.to_f64())))
});

pub(super) const TABLE: &[Function] = &[
    stable(pure("now", &[], TZ, |c, _| Ok(Datum::TimestampTz(c.transaction_timestamp())))),
    stable(pure("transaction_timestamp", &[], TZ, |c, _| {
        Ok(Datum::TimestampTz(c.transaction_timestamp()))
    })),
    stable(pure("current_timestamp", &[], TZ, |c, _| {
        Ok(Datum::TimestampTz(c.transaction_timestamp()))
    })),
    stable(pure("statement_timestamp", &[], TZ, |c, _| {
        Ok(Datum::TimestampTz(c.statement_timestamp()))
    })),
    pure("clock_timestamp", &[], TZ, |c, _| Ok(Datum::TimestampTz(c.clock_timestamp())))
        .with_volatility(Volatility::Volatile),
    stable(pure("localtimestamp", &[], TS, |c, _| local_now(c).map(Datum::Timestamp))),
    stable(pure("current_date", &[], Date, |c, _| {
        Ok(Datum::Date(local_now(c)?.div_euclid(US_PER_DAY) as i32))
    })),
    stable(pure("localtime", &[], Time, |c, _| {
        Ok(Datum::Time(local_now(c)?.rem_euclid(US_PER_DAY)))
    })),
    EXTRACT[0],
    EXTRACT[1],
    EXTRACT[2],
    EXTRACT[3],
    EXTRACT[4],
    DATE_PART[0],
    DATE_PART[1],
    DATE_PART[2],
    DATE_PART[3],
    DATE_PART[4],
    pure("date_trunc", &[Text, TS], TS, |_, a| {
        truncate(arg::text(a, 0)?, arg::us(a, 1)?).map(Datum::Timestamp)
    }),
    stable(pure("date_trunc", &[Text, TZ], TZ, |c, a| {
        truncate_in(arg::text(a, 0)?, arg::us(a, 1)?, c.time_zone())
    })),
    pure("date_trunc", &[Text, TZ, Text], TZ, |_, a| {
        truncate_in(arg::text(a, 0)?, arg::us(a, 1)?, TimeZone::parse(arg::text(a, 2)?)?)
    }),
    pure("date_trunc", &[Text, IV], IV, |_, a| {
        truncate_interval(arg::text(a, 0)?, arg::interval(a, 1)?).map(Datum::Interval)
    }),
    pure("timezone", &[Text, TS], TZ, |_, a| {
        TimeZone::parse(arg::text(a, 0)?)?.to_instant(arg::us(a, 1)?).map(Datum::TimestampTz)
    }),
    pure("timezone", &[Text, TZ], TS, |_, a| {
        let local = TimeZone::parse(arg::text(a, 0)?)?.to_local(arg::us(a, 1)?);
        local.map(Datum::Timestamp).ok_or_else(timestamp_range)
    }),
    pure("timezone", &[IV, TS], TZ, |_, a| {
        fixed(arg::interval(a, 0)?)?.to_instant(arg::us(a, 1)?).map(Datum::TimestampTz)
    }),
    pure("timezone", &[IV, TZ], TS, |_, a| {
        let local = fixed(arg::interval(a, 0)?)?.to_local(arg::us(a, 1)?);
        local.map(Datum::Timestamp).ok_or_else(timestamp_range)
    }),
    pure("age", &[TS, TS], IV, |_, a| age(arg::us(a, 0)?, arg::us(a, 1)?)),
    stable(pure("age", &[TZ, TZ], IV, |c, a| {
        let local = |us| c.time_zone().to_local(us).ok_or_else(timestamp_range);
        age(local(arg::us(a, 0)?)?, local(arg::us(a, 1)?)?)
    })),
    stable(pure("age", &[TS], IV, |c, a| age(midnight(c)?, arg::us(a, 0)?))),
    stable(pure("age", &[TZ], IV, |c, a| {
        let local = c.time_zone().to_local(arg::us(a, 0)?).ok_or_else(timestamp_range)?;
        age(midnight(c)?, local)
    })),
    pure("to_timestamp", &[Float8], TZ, |_, a| from_unix(arg::float(a, 0)?)),
    pure("make_date", &[Int4, Int4, Int4], Date, |_, a| {
        make_date(arg::int(a, 0)?, arg::int(a, 1)?, arg::int(a, 2)?)
    }),
    pure("make_time", &[Int4, Int4, Float8], Time, |_, a| make_time(a, 0).map(Datum::Time)),
    pure("make_timestamp", &[Int4, Int4, Int4, Int4, Int4, Float8], TS, |_, a| {
        let date = make_date(arg::int(a, 0)?, arg::int(a, 1)?, arg::int(a, 2)?)?;
        let Datum::Date(days) = date else { return Err(arg::mismatch()) };
        let us = date_to_timestamp(days)?.checked_add(make_time(a, 3)?);
        dt::checked_timestamp(us).map(Datum::Timestamp)
    }),
    pure("make_interval", &[Int4, Int4, Int4, Int4, Int4, Int4, Float8], IV, make_interval),
    pure("justify_hours", &[IV], IV, |_, a| {
        arg::interval(a, 0)?.justify_hours().map(Datum::Interval)
    }),
    pure("justify_days", &[IV], IV, |_, a| {
        arg::interval(a, 0)?.justify_days().map(Datum::Interval)
    }),
    pure("isfinite", &[TS], Type::Bool, |_, a| Ok(Datum::Bool(!is_infinite(arg::us(a, 0)?)))),
    pure("isfinite", &[TZ], Type::Bool, |_, a| Ok(Datum::Bool(!is_infinite(arg::us(a, 0)?)))),
    // The next value of generate_series over instants: the executor calls it by name.
    pure("timestamp_step", &[TS, IV], TS, |_, a| {
        add_interval(arg::us(a, 0)?, arg::interval(a, 1)?).map(Datum::Timestamp)
    }),
    stable(pure("timestamp_step", &[TZ, IV], TZ, |c, a| {
        add_interval_tz(arg::us(a, 0)?, arg::interval(a, 1)?, c.time_zone()).map(Datum::TimestampTz)
    })),
];

fn or_null(number: Option<Numeric>) -> Datum {
    number.map_or(Datum::Null, Datum::Numeric)
}

fn timestamp_range() -> TypeError {
    TypeError::new(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp out of range")
}

fn is_infinite(us: i64) -> bool {
    matches!(us, dt::TIMESTAMP_INFINITY | dt::TIMESTAMP_NEGATIVE_INFINITY)
}

fn local_now(context: &dyn EvalContext) -> Result<i64, TypeError> {
    let now = context.transaction_timestamp();
    context.time_zone().to_local(now).ok_or_else(timestamp_range)
}

fn midnight(context: &dyn EvalContext) -> Result<i64, TypeError> {
    Ok(local_now(context)?.div_euclid(US_PER_DAY) * US_PER_DAY)
}

fn fixed(interval: Interval) -> Result<TimeZone, TypeError> {
    if interval.months != 0 || interval.days != 0 {
        return Err(TypeError::parameter(format!(
            "interval time zone \"{interval}\" must not include months or days"
        )));
    }
    let seconds = i32::try_from(interval.us / US_PER_SECOND).map_err(|_| timestamp_range())?;
    Ok(TimeZone::Fixed(seconds))
}

fn unknown_field(field: &str, ty: &str) -> TypeError {
    TypeError::parameter(format!("unit \"{field}\" not recognized for type {ty}"))
}

/// Units by their singular; PostgreSQL knows plurals and short forms.
fn unit(field: &str) -> String {
    let lower = field.to_ascii_lowercase();
    let unit = match lower.as_str() {
        "years" | "y" | "yr" | "yrs" => "year",
        "months" | "mon" | "mons" => "month",
        "days" | "d" => "day",
        "hours" | "h" | "hr" | "hrs" => "hour",
        "minutes" | "min" | "mins" | "m" => "minute",
        "seconds" | "sec" | "secs" | "s" => "second",
        "milliseconds" | "millisecond" | "msec" | "msecs" | "ms" => "milliseconds",
        "microseconds" | "microsecond" | "usec" | "usecs" | "us" => "microseconds",
        "weeks" | "w" => "week",
        "qtr" => "quarter",
        "decades" | "dec" => "decade",
        "centuries" | "c" => "century",
        "millennia" | "mil" => "millennium",
        other => other,
    };
    unit.to_string()
}

/// A field of a date, time, timestamp, instant or interval; `None` (NULL) for most fields of an infinity.
fn extract(context: &dyn EvalContext, args: &[Datum]) -> Result<Option<Numeric>, TypeError> {
    let field = arg::text(args, 0)?;
    let wanted = unit(field);
    match arg::any(args, 1)? {
        Datum::Date(days) => {
            if matches!(
                wanted.as_str(),
                "hour" | "minute" | "second" | "milliseconds" | "microseconds" | "timezone"
            ) {
                return Err(TypeError::unsupported(format!(
                    "unit \"{field}\" not supported for type date"
                )));
            }
            match of_timestamp(&wanted, date_to_timestamp(*days)?, None) {
                // Of a date the epoch is whole.
                Ok(Some(number)) if wanted == "epoch" => number.trunc(0).map(Some),
                other => other.and_then(|found| known(found, field, "date")),
            }
        }
        Datum::Timestamp(us) => of_timestamp(&wanted, *us, None)
            .and_then(|found| known(found, field, "timestamp without time zone")),
        Datum::TimestampTz(us) => {
            let zone = Some(context.time_zone());
            of_timestamp(&wanted, *us, zone)
                .and_then(|found| known(found, field, "timestamp with time zone"))
        }
        Datum::Time(us) => {
            let found = match wanted.as_str() {
                "epoch" => Some(scaled(*us, 6)),
                other => of_time(other, *us),
            };
            known(found, field, "time without time zone")
        }
        Datum::Interval(interval) => known(of_interval(&wanted, interval), field, "interval"),
        _ => Err(arg::mismatch()),
    }
}

fn known(found: Option<Numeric>, field: &str, ty: &str) -> Result<Option<Numeric>, TypeError> {
    match found {
        Some(number) => Ok(Some(number)),
        None => Err(unknown_field(field, ty)),
    }
}

fn whole(value: i64) -> Numeric {
    Numeric::from_i64(value)
}

fn scaled(value: i64, dscale: u16) -> Numeric {
    Numeric::from_scaled(i128::from(value), dscale)
}

/// Fields of the time of day; `None` if it is none.
fn of_time(field: &str, us: i64) -> Option<Numeric> {
    let minute_us = us % (60 * US_PER_SECOND);
    Some(match field {
        "hour" => whole(us / (3600 * US_PER_SECOND)),
        "minute" => whole(us / (60 * US_PER_SECOND) % 60),
        "second" => scaled(minute_us, 6),
        "milliseconds" => scaled(minute_us, 3),
        "microseconds" => whole(minute_us),
        _ => return None,
    })
}

fn of_interval(field: &str, interval: &Interval) -> Option<Numeric> {
    let (years, months) = (i64::from(interval.months / 12), i64::from(interval.months % 12));
    Some(match field {
        "year" => whole(years),
        "month" => whole(months),
        "day" => whole(interval.days.into()),
        "quarter" => whole(months / 3 + 1),
        "decade" => whole(years / 10),
        "century" => whole(years / 100),
        "millennium" => whole(years / 1000),
        "epoch" => {
            // A year counts 365.25 days here, a month 30.
            let quarter_days = i128::from(years) * 1461
                + (i128::from(months) * 30 + i128::from(interval.days)) * 4;
            let us = quarter_days * i128::from(US_PER_DAY) / 4 + i128::from(interval.us);
            Numeric::from_scaled(us, 6)
        }
        other => return of_time(other, interval.us),
    })
}

/// Fields of a timestamp, or of an instant in a zone. `Ok(None)` for an unknown field.
fn of_timestamp(
    field: &str,
    us: i64,
    zone: Option<TimeZone>,
) -> Result<Option<Numeric>, TypeError> {
    if is_infinite(us) {
        let infinity = if us > 0 { Numeric::INFINITY } else { Numeric::NEGATIVE_INFINITY };
        return Ok(Some(infinity));
    }
    let offset = zone.map(|zone| zone.offset_at(us));
    let local = us + i64::from(offset.unwrap_or(0)) * US_PER_SECOND;
    let at = dt::datetime_from(local);
    let days = local.div_euclid(US_PER_DAY);
    // Years before Christ count down: there is no year 0.
    let year = if at.year > 0 { at.year } else { at.year - 1 };
    let ages =
        |span: i64| if year > 0 { (year + span - 1) / span } else { -((span - 1 - year) / span) };
    Ok(Some(match field {
        "year" => whole(year),
        "month" => whole(at.month),
        "day" => whole(at.day),
        "quarter" => whole((at.month - 1) / 3 + 1),
        "decade" => whole(at.year.div_euclid(10)),
        "century" => whole(ages(100)),
        "millennium" => whole(ages(1000)),
        "dow" => whole(dt::weekday(days)),
        "isodow" => whole((dt::weekday(days) + 6) % 7 + 1),
        "doy" => whole(days - dt::days_from_civil(at.year, 1, 1) + 1),
        "week" => whole(dt::iso_week(days).1),
        "isoyear" => match dt::iso_week(days).0 {
            year @ 1.. => whole(year),
            year => whole(year - 1),
        },
        "epoch" => {
            let unix = i128::from(us)
                - i128::from(dt::days_from_civil(1970, 1, 1)) * i128::from(US_PER_DAY);
            Numeric::from_scaled(unix, 6)
        }
        "julian" => {
            let julian = i128::from(days) + 2_451_545;
            let fraction = Numeric::from_i64(at.us).div(&Numeric::from_i64(US_PER_DAY))?;
            let sum = Numeric::from_i128(julian).add(&fraction)?;
            if at.us == 0 { Numeric::from_i128(julian) } else { sum }
        }
        "timezone" | "timezone_hour" | "timezone_minute" => match (offset, field) {
            (None, _) => return Ok(None),
            (Some(seconds), "timezone") => whole(seconds.into()),
            (Some(seconds), "timezone_hour") => whole((seconds / 3600).into()),
            (Some(seconds), _) => whole((seconds / 60 % 60).into()),
        },
        other => return Ok(of_time(other, at.us)),
    }))
}

/// `date_trunc` of a local timestamp.
fn truncate(field: &str, us: i64) -> Result<i64, TypeError> {
    if is_infinite(us) {
        return Ok(us);
    }
    let at = dt::datetime_from(us);
    let days = us.div_euclid(US_PER_DAY);
    let year_start = |year: i64| dt::days_from_civil(year, 1, 1) * US_PER_DAY;
    let down = |unit_us: i64| us.div_euclid(unit_us) * unit_us;
    let age = |span: i64| {
        if at.year > 0 {
            (at.year - 1) / span * span + 1
        } else {
            (at.year - span) / span * span + 1
        }
    };
    Ok(match unit(field).as_str() {
        "microseconds" => us,
        "milliseconds" => down(1000),
        "second" => down(US_PER_SECOND),
        "minute" => down(60 * US_PER_SECOND),
        "hour" => down(3600 * US_PER_SECOND),
        "day" => down(US_PER_DAY),
        "week" => (days - (dt::weekday(days) + 6) % 7) * US_PER_DAY,
        "month" => dt::days_from_civil(at.year, at.month, 1) * US_PER_DAY,
        "quarter" => dt::days_from_civil(at.year, (at.month - 1) / 3 * 3 + 1, 1) * US_PER_DAY,
        "year" => year_start(at.year),
        "decade" => year_start(at.year.div_euclid(10) * 10),
        "century" => year_start(age(100)),
        "millennium" => year_start(age(1000)),
        _ => return Err(unknown_field(field, "timestamp without time zone")),
    })
}

fn truncate_in(field: &str, us: i64, zone: TimeZone) -> Answer {
    if is_infinite(us) {
        return Ok(Datum::TimestampTz(us));
    }
    let local = truncate(field, zone.to_local(us).ok_or_else(timestamp_range)?)?;
    zone.to_instant(local).map(Datum::TimestampTz)
}

fn truncate_interval(field: &str, interval: Interval) -> Result<Interval, TypeError> {
    let Interval { months, days, us } = interval;
    let of_months = |span: i32| Interval { months: months / span * span, days: 0, us: 0 };
    let of_us = |unit_us: i64| Interval { months, days, us: us / unit_us * unit_us };
    Ok(match unit(field).as_str() {
        "millennium" => of_months(12_000),
        "century" => of_months(1200),
        "decade" => of_months(120),
        "year" => of_months(12),
        "quarter" => of_months(3),
        "month" => of_months(1),
        "day" => Interval { months, days, us: 0 },
        "hour" => of_us(3600 * US_PER_SECOND),
        "minute" => of_us(60 * US_PER_SECOND),
        "second" => of_us(US_PER_SECOND),
        "milliseconds" => of_us(1000),
        "microseconds" => interval,
        _ => return Err(unknown_field(field, "interval")),
    })
}

/// The difference in years, months, days and time, by the calendar.
fn age(a: i64, b: i64) -> Answer {
    if is_infinite(a) || is_infinite(b) {
        return Err(timestamp_range());
    }
    let (later, earlier, sign) = if a >= b { (a, b, 1) } else { (b, a, -1) };
    let (x, y) = (dt::datetime_from(later), dt::datetime_from(earlier));
    let mut months = (x.year - y.year) * 12 + x.month - y.month;
    let mut days = x.day - y.day;
    let mut us = x.us - y.us;
    if us < 0 {
        us += US_PER_DAY;
        days -= 1;
    }
    if days < 0 {
        // A borrowed month has the length of the month that the earlier one lies in.
        days += dt::days_in_month(y.year, y.month);
        months -= 1;
    }
    Ok(Datum::Interval(Interval {
        months: (months * sign) as i32,
        days: (days * sign) as i32,
        us: us * sign,
    }))
}

fn from_unix(seconds: f64) -> Answer {
    if seconds.is_nan() {
        return Err(TypeError::new(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp cannot be NaN"));
    }
    if seconds.is_infinite() {
        return Ok(Datum::TimestampTz(if seconds > 0.0 { i64::MAX } else { i64::MIN }));
    }
    let us = (seconds * 1e6).round_ties_even() + dt::days_from_civil(1970, 1, 1) as f64 * 86_400e6;
    if us < dt::TIMESTAMP_MIN as f64 || us >= dt::TIMESTAMP_END as f64 {
        return Err(TypeError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            format!("timestamp out of range: \"{seconds}\""),
        ));
    }
    Ok(Datum::TimestampTz(us as i64))
}

fn make_date(year: i64, month: i64, day: i64) -> Answer {
    let astronomical = if year < 0 { year + 1 } else { year };
    if year == 0
        || !(1..=12).contains(&month)
        || day < 1
        || day > dt::days_in_month(astronomical, month)
    {
        return Err(TypeError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            format!("date field value out of range: {year}-{month:02}-{day:02}"),
        ));
    }
    dt::checked_date(dt::days_from_civil(astronomical, month, day)).map(Datum::Date)
}

fn make_time(args: &[Datum], from: usize) -> Result<i64, TypeError> {
    let (hour, minute) = (arg::int(args, from)?, arg::int(args, from + 1)?);
    let second = arg::float(args, from + 2)?;
    let us = (hour * 3600 + minute * 60) * US_PER_SECOND + (second * 1e6).round_ties_even() as i64;
    if !(0..=24).contains(&hour)
        || !(0..60).contains(&minute)
        || !(0.0..=60.0).contains(&second)
        || us > US_PER_DAY
    {
        return Err(TypeError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            format!("time field value out of range: {hour}:{minute:02}:{second:02}"),
        ));
    }
    Ok(us)
}

fn make_interval(_: &dyn EvalContext, args: &[Datum]) -> Answer {
    let part = |index| arg::int(args, index);
    let narrow = |value: i64| i32::try_from(value).map_err(|_| super::interval::out_of_range());
    let seconds = (arg::float(args, 6)? * 1e6).round_ties_even() as i64;
    Ok(Datum::Interval(Interval {
        months: narrow(part(0)? * 12 + part(1)?)?,
        days: narrow(part(2)? * 7 + part(3)?)?,
        us: part(4)? * 3600 * US_PER_SECOND + part(5)? * 60 * US_PER_SECOND + seconds,
    }))
}
