//! Driver: reads of the past: `AS OF SYSTEM TIME`. A transaction at one moment, read-only, without uncertainty, and never run again;
//! it sees the catalog of that moment, too.
//!
//! HAZARD: history is kept for a table's `gc_ttl`. What is older is refused by the ranges (72000), whatever this gateway believes.

use super::transaction::Active;
use super::{Block, Session};
use crate::catalog;
use crate::error::{SqlError, codes};
use crate::parse::{AsOf, Moment, Parsed};
use crate::types::{Datum, EvalContext, Interval, SqlState, Type, datetime_in, text};
use clock::Timestamp;
use coverage::Mark;
use std::time::Duration;
use txn::client::{Access, TxnOptions};

/// Microseconds from the HLC's epoch (1970) to PostgreSQL's (2000).
const EPOCH_2000_US: i64 = 946_684_800_000_000;
/// Digits of an HLC decimal's fraction: the logical part.
const LOGICAL_DIGITS: usize = 10;

impl Session {
    /// A statement's own clause: its transaction is at that moment, or is none yet.
    pub(super) async fn enter_past(
        &mut self,
        parsed: &Parsed,
        params: &[Datum],
    ) -> Result<(), SqlError> {
        let Some(as_of) = &parsed.as_of else { return Ok(()) };
        let at = self
            .moment(as_of, params)
            .map_err(|error| error.at(parsed.positions.at(as_of.location)))?;
        match &self.active {
            Some(active) if active.txn.options().as_of == Some(at) => return Ok(()),
            Some(active) if self.block == Block::None && active.is_fresh() => {}
            Some(_) => {
                return Err(SqlError::new(
                    codes::ACTIVE_TRANSACTION,
                    "AS OF SYSTEM TIME: the transaction is at another moment",
                )
                .with_hint("Use BEGIN AS OF SYSTEM TIME, or SET TRANSACTION AS OF SYSTEM TIME before any query."));
            }
            None => {}
        }
        self.begin_in_past(at).await
    }

    /// BEGIN and SET TRANSACTION: the transaction, in which nothing has happened, is at that moment.
    pub(super) async fn move_to_past(
        &mut self,
        as_of: &AsOf,
        params: &[Datum],
    ) -> Result<(), SqlError> {
        if self.active.as_ref().is_some_and(|active| !active.is_fresh()) {
            return Err(SqlError::new(
                codes::ACTIVE_TRANSACTION,
                "SET TRANSACTION AS OF SYSTEM TIME must be called before any query",
            ));
        }
        let at = self.moment(as_of, params)?;
        self.begin_in_past(at).await
    }

    /// Begins a transaction in the past, in place of one in which nothing has happened.
    async fn begin_in_past(&mut self, at: Timestamp) -> Result<(), SqlError> {
        coverage::reached(Mark::PastRead);
        let options = TxnOptions {
            as_of: Some(at),
            access: Access::ReadOnly,
            ..TxnOptions::labelled("sql, past")
        };
        let mut txn = self.engine.db.begin(options);
        let current = self.engine.catalog();
        // Most of the time nothing has changed since: one key tells.
        let past = if catalog::stored_version(&mut txn).await? == current.version() {
            current
        } else {
            coverage::reached(Mark::PastCatalogRead);
            std::sync::Arc::new(catalog::load(&mut txn).await?)
        };
        self.active = Some(Active::new(txn, &self.facts, Some(past)));
        Ok(())
    }

    fn moment(&self, as_of: &AsOf, params: &[Datum]) -> Result<Timestamp, SqlError> {
        let now = self.engine.db.runtime().hlc.now().timestamp();
        let at = match &as_of.moment {
            Moment::Text(text) => self.moment_of_text(text, now)?,
            Moment::Param(number) => match params.get(*number - 1) {
                Some(Datum::TimestampTz(us)) => since_2000(*us)?,
                Some(Datum::Interval(interval)) => before(now, interval)?,
                Some(Datum::Null) | None => return Err(invalid("a moment cannot be NULL")),
                Some(Datum::Int8(number)) => self.moment_of_text(&number.to_string(), now)?,
                Some(number @ Datum::Numeric(_)) => {
                    self.moment_of_text(&text::to_string(number, Type::Numeric, &*self.facts), now)?
                }
                Some(other) => {
                    self.moment_of_text(&text::to_string(other, Type::Text, &*self.facts), now)?
                }
            },
        };
        if at > now {
            return Err(invalid("cannot specify timestamp in the future"));
        }
        Ok(at)
    }

    /// A timestamp, an interval back from now, or an HLC reading.
    fn moment_of_text(&self, text: &str, now: Timestamp) -> Result<Timestamp, SqlError> {
        let text = text.trim();
        if let Some(at) = hlc_decimal(text) {
            return Ok(at);
        }
        if text.starts_with('-')
            && let Ok(interval) = Interval::parse(text)
        {
            return before(now, &interval);
        }
        match datetime_in::parse_timestamptz(text, &*self.facts) {
            Ok(us) => since_2000(us),
            Err(_) => Err(invalid(&format!(
                "\"{text}\" is neither a timestamp, nor an interval such as '-10s', nor an HLC reading"
            ))),
        }
    }

    /// A moment in words.
    pub(super) fn moment_text(&self, at: Timestamp) -> String {
        let us = i64::try_from(at.micros()).unwrap_or(i64::MAX).saturating_sub(EPOCH_2000_US);
        text::to_string(
            &Datum::TimestampTz(us),
            Type::TimestampTz,
            &*self.facts as &dyn EvalContext,
        )
    }
}

fn invalid(what: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("AS OF SYSTEM TIME: {what}"))
}

fn since_2000(us: i64) -> Result<Timestamp, SqlError> {
    match us.checked_add(EPOCH_2000_US).and_then(|us| u64::try_from(us).ok()) {
        Some(us) if us > 0 && us < Timestamp::MAX.micros() => Ok(Timestamp::new(us, 0)),
        _ => Err(invalid("timestamp out of range")),
    }
}

fn before(now: Timestamp, interval: &Interval) -> Result<Timestamp, SqlError> {
    let us = interval.normal_us();
    if us > 0 {
        return Err(invalid("cannot specify timestamp in the future"));
    }
    match u64::try_from(-us) {
        Ok(us) if us < now.micros() => Ok(now.minus(Duration::from_micros(us))),
        _ => Err(invalid("timestamp out of range")),
    }
}

/// `1700000000000000000.0000000003`: nanoseconds since 1970 and the logical part; or as SHOW STALENESS prints it, in seconds:
/// `1700000000.000000,3`.
fn hlc_decimal(text: &str) -> Option<Timestamp> {
    let all_digits =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((wall, logical)) = text.split_once(',') {
        let (seconds, micros) = wall.split_once('.')?;
        if !all_digits(seconds) || !all_digits(micros) || micros.len() != 6 {
            return None;
        }
        let us = seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?;
        return reading(us.checked_add(micros.parse().ok()?)?, logical.parse().ok()?);
    }
    let (nanos, logical) = text.split_once('.').unwrap_or((text, "0"));
    // Shorter numbers are dates.
    if !all_digits(nanos)
        || !all_digits(logical)
        || nanos.len() < 16
        || logical.len() > LOGICAL_DIGITS
    {
        return None;
    }
    let missing = u32::try_from(LOGICAL_DIGITS - logical.len()).ok()?;
    let logical = logical.parse::<u64>().ok()?.checked_mul(10u64.checked_pow(missing)?)?;
    reading(nanos.parse::<u64>().ok()? / 1000, u16::try_from(logical).ok()?)
}

fn reading(us: u64, logical: u16) -> Option<Timestamp> {
    let fits = us > 0 && us < Timestamp::MAX.micros() && logical <= Timestamp::MAX.logical();
    fits.then(|| Timestamp::new(us, logical))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hlc_readings_are_read_in_both_forms() {
        let at = Timestamp::new(1_700_000_000_000_005, 3);
        assert_eq!(hlc_decimal("1700000000000005000.0000000003"), Some(at));
        assert_eq!(hlc_decimal(&at.to_string()), Some(at));
        assert_eq!(
            hlc_decimal("1700000000000005000"),
            Some(Timestamp::new(1_700_000_000_000_005, 0))
        );
        for other in
            ["20260101", "2026-01-01", "-10s", "1.5", "", "1700000000000005000.00000000031"]
        {
            assert_eq!(hlc_decimal(other), None, "{other}");
        }
    }
}
