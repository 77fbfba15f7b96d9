//! Judges of histories. Each takes what clients saw, knows nothing of the database, and says what is wrong or nothing.
//!
//! | judge | what it accepts |
//! |---|---|
//! | [`append`] | transactions over lists that could have run one after another (in an order that real time allows) |
//! | [`txn_register`] | the same over registers that are written and read |
//! | [`cells`] | rows of an available table that their last writer has, whole |
//! | [`register`] | single registers that behave as one copy |
//! | [`bank`] | transfers of which every acknowledged one happened once, every failed one never |
//! | [`long_fork`] | readers that agree on the order of independent writes |
//! | [`skew`] | of two transactions that each forbid the other's insert, at most one |
//! | [`session`] | read your writes, monotonic reads and writes, writes follow reads |
//! | [`monotonic`] | counters that nobody sees go back |
//! | [`mvcc`] | transactions whose reads and writes all fit their commit timestamps |
//! | [`queue`] | jobs that are taken once, and days that stay closed |
//! | [`convergence`] | copies that end equal, with everything that was acknowledged |
//! | [`index`] | indexes that say what their table says |
//!
//! [`graph`] finds and names cycles for the transactional ones. [`file`] reads and writes histories as EDN or JSON.

pub mod append;
pub mod bank;
pub mod cells;
pub mod convergence;
pub mod file;
pub mod graph;
pub mod index;
pub mod long_fork;
pub mod monotonic;
pub mod mvcc;
pub mod queue;
pub mod register;
pub mod session;
pub mod skew;
pub mod txn_register;

/// Whether clocks were within their bound, so that real time counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RealTime {
    /// They were.
    Demanded,
    /// They were not: serializability is all that is promised.
    Waived,
}

/// Which order beyond that of the data an order of transactions must agree with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// None.
    Serializable,
    /// That in which each client asked.
    Session,
    /// Real time, per key: SERIALIZABLE as Meridian promises it.
    KeyRealTime,
    /// Real time, over everything, and sessions.
    Strict,
}

impl From<RealTime> for Level {
    fn from(real_time: RealTime) -> Level {
        match real_time {
            RealTime::Demanded => Level::KeyRealTime,
            RealTime::Waived => Level::Serializable,
        }
    }
}
