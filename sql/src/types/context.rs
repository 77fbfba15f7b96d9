//! What a function may ask of its surroundings: the seam between pure values and a session.
//!
//! Time, randomness and names come through here, so that the same statement gives the same answer in simulation.
//! Timestamps are microseconds since 2000-01-01 00:00:00 UTC, as `Datum::TimestampTz`.

use super::error::TypeError;
use super::ty::Type;
use super::zone::TimeZone;

/// How `bytea` is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ByteaOutput {
    /// `\x0102`
    #[default]
    Hex,
    /// Printable bytes as they are, the others as `\ooo`.
    Escape,
}

/// The surroundings of an evaluation.
pub trait EvalContext {
    /// `now()`: when the transaction began.
    fn transaction_timestamp(&self) -> i64;
    /// When the statement arrived.
    fn statement_timestamp(&self) -> i64;
    /// The time of the call itself.
    fn clock_timestamp(&self) -> i64;
    /// 64 uniform bits.
    fn random_u64(&self) -> u64;
    /// The session's TimeZone.
    fn time_zone(&self) -> TimeZone;
    /// The session's `bytea_output`.
    fn bytea_output(&self) -> ByteaOutput {
        ByteaOutput::Hex
    }
    /// The session's `extra_float_digits`; above 0 floats print their shortest exact form.
    fn extra_float_digits(&self) -> i32 {
        1
    }
    /// The name under which `regclass` and kin show an OID, qualified and quoted as needed; `None` if nothing has it.
    fn reg_name(&self, ty: Type, oid: u32) -> Option<String> {
        let _ = (ty, oid);
        None
    }
    /// The OID that a name means for `regclass` and kin; an error names what does not exist (42P01, 42704, ...).
    fn reg_oid(&self, ty: Type, name: &str) -> Result<u32, TypeError> {
        Err(TypeError::new(
            super::error::SqlState::UNDEFINED_OBJECT,
            format!("{} \"{name}\" does not exist", ty.name()),
        ))
    }
}

/// A context for constants and tests: a fixed time, UTC, no names; `random_u64` always answers the same.
#[derive(Clone, Debug)]
pub struct FixedContext {
    /// All three timestamps.
    pub now: i64,
    /// The zone.
    pub zone: TimeZone,
    /// What `random_u64` answers.
    pub random: u64,
}

impl Default for FixedContext {
    fn default() -> FixedContext {
        FixedContext { now: 0, zone: TimeZone::UTC, random: 0 }
    }
}

impl EvalContext for FixedContext {
    fn transaction_timestamp(&self) -> i64 {
        self.now
    }
    fn statement_timestamp(&self) -> i64 {
        self.now
    }
    fn clock_timestamp(&self) -> i64 {
        self.now
    }
    fn random_u64(&self) -> u64 {
        self.random
    }
    fn time_zone(&self) -> TimeZone {
        self.zone
    }
}
