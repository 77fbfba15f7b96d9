//! Value: points in time. A [`Timestamp`] is one `u64`: microseconds since the Unix epoch in the upper 52 bits, a
//! logical counter in the lower 12.
//!
//! ```text
//!   63                                   12 11          0
//!  +---------------------------------------+-------------+
//!  |  microseconds since 1970-01-01 UTC    |   logical   |
//!  +---------------------------------------+-------------+
//! ```
//!
//! Comparing two timestamps is comparing two integers; a full logical counter carries into the microseconds, so
//! [`Timestamp::next`] is always strictly greater. 52 bits of microseconds last until the year 2112.
//!
//! Two types, because they may do different things. A [`ClockTimestamp`] was read from some node's clock, and may push
//! another node's clock forward. A [`Timestamp`] is MVCC time: it may lie ahead of every clock, and can never push one.
//! The conversion goes one way only. (HLC: Kulkarni et al. 2014; the split into two types: CockroachDB RFC 20200811.)
//!
//! [`WallTime`] and [`Monotonic`] are what a [`crate::TimeSource`] reads. They are never compared with each other.

use std::fmt;
use std::time::Duration;

/// Bits of the logical counter.
pub const LOGICAL_BITS: u32 = 12;
const LOGICAL_MASK: u64 = (1 << LOGICAL_BITS) - 1;
const MICROS_MAX: u64 = u64::MAX >> LOGICAL_BITS;

/// MVCC time. Totally ordered, `Display` is `seconds.micros,logical`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Before everything; no version is ever written at it.
    pub const MIN: Timestamp = Timestamp(0);
    /// After everything; means "no bound".
    pub const MAX: Timestamp = Timestamp(u64::MAX);

    /// From parts; `logical` must be below 4096.
    pub fn new(micros: u64, logical: u16) -> Timestamp {
        assert!(u64::from(logical) <= LOGICAL_MASK, "logical counter {logical} over 12 bits");
        assert!(micros < (1 << 52), "microseconds {micros} over 52 bits");
        Timestamp((micros << LOGICAL_BITS) | u64::from(logical))
    }

    /// The wire and disk form.
    pub const fn from_raw(raw: u64) -> Timestamp {
        Timestamp(raw)
    }

    /// The wire and disk form.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> u64 {
        self.0 >> LOGICAL_BITS
    }

    /// The logical counter, below 4096.
    pub const fn logical(self) -> u16 {
        (self.0 & LOGICAL_MASK) as u16
    }

    /// The smallest timestamp after this one; `MAX` stays `MAX`.
    #[must_use]
    pub const fn next(self) -> Timestamp {
        Timestamp(self.0.saturating_add(1))
    }

    /// The greatest timestamp before this one; `MIN` stays `MIN`.
    #[must_use]
    pub const fn prev(self) -> Timestamp {
        Timestamp(self.0.saturating_sub(1))
    }

    /// Later by `duration` (rounded down to microseconds), saturating at `MAX`.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Timestamp {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX >> LOGICAL_BITS);
        Timestamp(self.0.saturating_add(micros.min(u64::MAX >> LOGICAL_BITS) << LOGICAL_BITS))
    }

    /// Earlier by `duration`, saturating at `MIN`.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Timestamp {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX >> LOGICAL_BITS);
        Timestamp(self.0.saturating_sub(micros.min(u64::MAX >> LOGICAL_BITS) << LOGICAL_BITS))
    }

    /// How far `self` lies after `earlier`, in whole microseconds; zero when it does not.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(self.micros().saturating_sub(earlier.micros()))
    }

    /// The later of the two.
    #[must_use]
    pub fn forward(self, other: Timestamp) -> Timestamp {
        self.max(other)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.micros();
        write!(f, "{}.{:06},{}", micros / 1_000_000, micros % 1_000_000, self.logical())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A reading of some node's hybrid logical clock. Only this type may push a clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClockTimestamp(u64);

impl ClockTimestamp {
    /// Before every reading.
    pub const MIN: ClockTimestamp = ClockTimestamp(0);

    /// The wire and disk form. HAZARD: only for values that really were clock readings; anything else can drag
    /// clocks ahead of real time (staleness, never corruption).
    pub const fn from_raw(raw: u64) -> ClockTimestamp {
        ClockTimestamp(raw)
    }

    /// The wire and disk form.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// As MVCC time. There is no way back.
    pub const fn timestamp(self) -> Timestamp {
        Timestamp(self.0)
    }

    /// The wall part.
    pub const fn wall(self) -> WallTime {
        WallTime(self.0 >> LOGICAL_BITS)
    }
}

impl fmt::Display for ClockTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.timestamp(), f)
    }
}

impl fmt::Debug for ClockTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.timestamp(), f)
    }
}

/// A wall clock reading: microseconds since the Unix epoch. May jump both ways.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct WallTime(u64);

impl WallTime {
    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: u64) -> WallTime {
        WallTime(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Later by `duration` (rounded down to microseconds), saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> WallTime {
        WallTime(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// Earlier by `duration` (rounded down to microseconds), saturating at the epoch.
    #[must_use]
    pub fn minus(self, duration: Duration) -> WallTime {
        WallTime(self.0.saturating_sub(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// As MVCC time, with a logical counter of zero. A wall clock after the year 2112 gives the last microsecond that a
    /// timestamp can hold.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        Timestamp(self.0.min(MICROS_MAX) << LOGICAL_BITS)
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// A monotonic clock reading: nanoseconds since an arbitrary point of this process's life. Never steps; must count
/// the time the machine was suspended (CLOCK_BOOTTIME). Meaningless in another process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Monotonic(u64);

impl Monotonic {
    /// The process's arbitrary zero.
    pub const ZERO: Monotonic = Monotonic(0);
    /// Never reached.
    pub const MAX: Monotonic = Monotonic(u64::MAX);

    /// From nanoseconds since the arbitrary zero.
    pub const fn from_nanos(nanos: u64) -> Monotonic {
        Monotonic(nanos)
    }

    /// Nanoseconds since the arbitrary zero.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Later by `duration`, saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Monotonic {
        Monotonic(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Monotonic) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// What a machine is told about time in each step. Machines read no clock of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// The node's hybrid logical clock; already pushed by the message that this step delivers.
    pub clock: ClockTimestamp,
    /// The node's monotonic clock: leases, elections, timeouts.
    pub monotonic: Monotonic,
}
