//! Value: the process's hybrid logical clock, shared by every thread without a lock.
//!
//! Problem: every session and every message needs a reading that is close to the wall clock,
//! greater than every reading that could have caused it, and never handed out twice, also not by
//! the next life of this process.
//!
//! Idea (HLC, Kulkarni 2014): the clock is the greatest reading handed out so far, in one atomic
//! word. A new reading is the wall clock, or one more than the last reading if the wall is not
//! ahead of it. A message's reading is a third candidate. A full logical counter carries into the
//! microseconds, so one integer comparison is the whole algorithm.
//!
//! A second word holds the *persisted bound*: what is on disk as "no reading was ever at or above
//! this" (see [`crate::UpperBound`]). The wall clock moves the clock only up to the *ceiling*, one
//! [`RESERVE`] below that bound:
//!
//! ```text
//!   --- last ------------- wall ------------ ceiling ----------- bound --->  time
//!        |  follows the wall clock  | then counts by one | then refuses: [`ClockStopped`]
//! ```
//!
//! So a wall clock that leaps by minutes, or a disk that does not answer, cannot make the clock
//! hand out a reading that a restart could repeat (killer H01). Between ceiling and bound lie 4 x
//! 10^9 readings: the clock goes on, strictly increasing, but it lags the wall. [`Hlc::held_back`]
//! says how much; add it to the node's own error bound.
//!
//! # Invariants
//!
//! - INVARIANT: all readings of [`Hlc::now`] and [`Hlc::observe`] are pairwise different, each is
//!   greater than all that happened before it, and each is below the bound that was persisted.
//!   (Loom: `loom_tests`; twin: `tests/main/hlc.rs`.)
//! - INVARIANT: a refused remote reading changes nothing (killer H02).
//! - A wall clock that goes back never moves the clock back (H01); no operation wraps (H15).
//!
//! Honest limits: the clock cannot know whether the wall clock is right; [`crate::Fence`] judges
//! that.
//!
//! HAZARD: a peer whose clock is wrong by less than the cap still pushes ours by that much. Readers
//! elsewhere expect it, for they have measured that peer, and its clock does not step
//! ([`crate::Discipline`]); where it does (beyond the cap), a read can be stale until it is measured
//! again.

use std::fmt;
use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};
use crate::timestamp::{ClockTimestamp, LOGICAL_BITS, Timestamp, WallTime};
use crate::upper_bound::PersistedBound;

/// How far below the persisted bound the clock stops following the wall clock and only counts.
pub const RESERVE: Duration = Duration::from_secs(1);
const RESERVE_RAW: u64 = 1_000_000 << LOGICAL_BITS;

/// What `last` holds after [`Hlc::seal`]. No reading has this value: a reading is always below some
/// bound.
const SEALED: u64 = u64::MAX;

/// The clock of one process. All methods take `&self`, never block, and may be called from any
/// thread.
pub struct Hlc {
    /// The greatest reading handed out, or [`SEALED`].
    last: AtomicU64,
    /// Readings are strictly below it. Only rises.
    bound: AtomicU64,
    /// The last reading of a sealed clock; meaningless before.
    sealed_at: AtomicU64,
}

impl Hlc {
    /// A clock whose readings are all above `floor` (what [`crate::Start`] said) and below `bound`.
    ///
    /// # Panics
    /// If `bound` leaves no room above `floor`: it was not made by the [`crate::UpperBound`] that
    /// said `floor`.
    pub fn start(floor: Timestamp, bound: PersistedBound) -> Hlc {
        let limit = bound.limit();
        assert!(
            floor.plus(RESERVE) < limit,
            "the bound {limit} leaves no room above the floor {floor}"
        );
        Hlc::with(floor.raw(), limit.raw())
    }

    /// A clock without a persisted bound, for processes that keep nothing across a restart: tools,
    /// drivers, tests. HAZARD: a node that used it could repeat readings after a restart
    /// (staleness).
    pub fn unbounded() -> Hlc {
        Hlc::with(0, u64::MAX)
    }

    fn with(last: u64, bound: u64) -> Hlc {
        Hlc {
            last: AtomicU64::new(last),
            bound: AtomicU64::new(bound),
            sealed_at: AtomicU64::new(0),
        }
    }

    /// A new reading: greater than every earlier one of every caller, at least `wall` unless the
    /// persisted bound holds the clock back.
    ///
    /// # Panics
    /// If the clock has stopped ([`ClockStopped`]): the process must end rather than hand out a
    /// reading that its next life could repeat. That takes a disk that is stuck for 4 x 10^9
    /// readings, or a call after [`Hlc::seal`].
    pub fn now(&self, wall: WallTime) -> ClockTimestamp {
        match self.try_now(wall) {
            Ok(reading) => reading,
            Err(stopped) => panic!("{stopped}"),
        }
    }

    /// [`Hlc::now`] for callers that can go on without a reading.
    ///
    /// # Errors
    /// The clock is sealed, or has counted up to its persisted bound.
    pub fn try_now(&self, wall: WallTime) -> Result<ClockTimestamp, ClockStopped> {
        let bound = self.bound.load(Ordering::Acquire);
        self.advance(followed(wall, bound), bound)
    }

    /// Absorbs a reading that came with a message and returns a new reading, greater than `remote`
    /// and than every earlier one. `cap` is the most that two nodes' clocks may differ.
    ///
    /// # Errors
    /// `remote` is more than `cap` ahead of the local *wall* clock, or at or above the ceiling of
    /// the persisted bound, or the clock has stopped. Nothing was absorbed; the message must be
    /// dropped (its sender will repeat it).
    pub fn observe(
        &self,
        wall: WallTime,
        remote: ClockTimestamp,
        cap: Duration,
    ) -> Result<ClockTimestamp, Refused> {
        // Against the wall and not against `last`: measured against `last`, each message could drag
        // the clock one more cap ahead, and a single bad node would poison all of them (killer
        // H02).
        if remote.wall() > wall.plus(cap) {
            return Err(Refused::FarAhead(FarAhead { remote, wall, cap }));
        }
        let bound = self.bound.load(Ordering::Acquire);
        if remote.raw() >= ceiling(bound) {
            let bound = Timestamp::from_raw(bound);
            return Err(Refused::BeyondBound { remote, bound });
        }
        Ok(self.advance(followed(wall, bound).max(remote.raw() + 1), bound)?)
    }

    /// The loop: one more than the last reading, or `candidate` if that is greater. `bound` was
    /// read before; it can have been raised meanwhile, never lowered, so that a reading below it is
    /// safe.
    fn advance(&self, candidate: u64, mut bound: u64) -> Result<ClockTimestamp, ClockStopped> {
        let mut last = self.last.load(Ordering::Relaxed);
        loop {
            let next = candidate.max(last.saturating_add(1));
            if next >= bound {
                let raised = self.bound.load(Ordering::Acquire);
                if raised == bound || last == SEALED {
                    return Err(self.stopped(last));
                }
                bound = raised;
                continue;
            }
            match self.last.compare_exchange_weak(last, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(ClockTimestamp::from_raw(next)),
                Err(newer) => last = newer,
            }
        }
    }

    fn stopped(&self, last: u64) -> ClockStopped {
        if last == SEALED {
            ClockStopped::Sealed
        } else {
            ClockStopped::AtBound(Timestamp::from_raw(self.bound.load(Ordering::Acquire)))
        }
    }

    /// The greatest reading handed out so far (or the floor). Does not advance the clock.
    pub fn last(&self) -> ClockTimestamp {
        let last = self.last.load(Ordering::Acquire);
        let reading = if last == SEALED { self.sealed_at.load(Ordering::Acquire) } else { last };
        ClockTimestamp::from_raw(reading)
    }

    /// Readings may from now on reach up to `bound`. A bound that is not higher than the present
    /// one changes nothing.
    pub fn raise(&self, bound: PersistedBound) {
        self.bound.fetch_max(bound.limit().raw(), Ordering::AcqRel);
    }

    /// What the clock may not reach. Readings are strictly below it.
    pub fn bound(&self) -> Timestamp {
        Timestamp::from_raw(self.bound.load(Ordering::Acquire))
    }

    /// How far the persisted bound holds the clock behind `wall`; zero in health. The node's
    /// readings are wrong by this much more than its wall clock is: add it to the own error bound.
    pub fn held_back(&self, wall: WallTime) -> Duration {
        let ceiling = Timestamp::from_raw(ceiling(self.bound.load(Ordering::Acquire)));
        wall.timestamp().since(ceiling.forward(self.last().timestamp()))
    }

    /// How far the clock is ahead of `wall`: pushed by messages, or the wall clock went back.
    /// Beyond the cap, peers refuse this node's messages until its wall clock has caught up.
    pub fn ahead_of(&self, wall: WallTime) -> Duration {
        self.last().timestamp().since(wall.timestamp())
    }

    /// Ends the clock and returns its last reading: after this every call for a reading fails, also
    /// one that has already begun. For an orderly shutdown, see [`crate::UpperBound::close`].
    /// Calling it again returns the same reading.
    pub fn seal(&self) -> ClockTimestamp {
        let mut last = self.last.load(Ordering::Acquire);
        while last != SEALED {
            // Before the exchange, so that whoever sees SEALED sees this too. Several callers may
            // race: `last` only rises, so the greatest value stored is the one that was exchanged.
            self.sealed_at.fetch_max(last, Ordering::AcqRel);
            match self.last.compare_exchange(last, SEALED, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(newer) => last = newer,
            }
        }
        self.last()
    }
}

/// Up to where the wall clock moves the clock.
fn ceiling(bound: u64) -> u64 {
    bound.saturating_sub(RESERVE_RAW)
}

/// The wall clock as far as it may be followed.
fn followed(wall: WallTime, bound: u64) -> u64 {
    wall.timestamp().raw().min(ceiling(bound))
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hlc").field("last", &self.last()).field("bound", &self.bound()).finish()
    }
}

/// The clock hands out no more readings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ClockStopped {
    /// It has counted up to its persisted bound, and the disk has not confirmed a higher one. Wait
    /// for it.
    #[error("clock has reached its persisted bound {0}, and no higher one is on disk")]
    AtBound(Timestamp),
    /// The process is shutting down. Give up.
    #[error("clock is sealed: the process is shutting down")]
    Sealed,
}

/// A remote reading beyond the cap on the difference of two clocks: one of the two nodes has a
/// wrong clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("remote clock {remote} is more than {cap:?} ahead of this node's wall clock {wall}")]
pub struct FarAhead {
    /// The reading that was refused.
    pub remote: ClockTimestamp,
    /// The local wall clock it was compared with.
    pub wall: WallTime,
    /// The cap.
    pub cap: Duration,
}

/// A remote reading was not absorbed; the clock is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// Drop the message, count it, and let [`crate::Fence`] find out whose clock is wrong.
    #[error(transparent)]
    FarAhead(#[from] FarAhead),
    /// Drop the message; the bound is being extended, or the disk is stuck.
    #[error("remote clock {remote} is beyond what the persisted bound {bound} allows")]
    BeyondBound {
        /// The reading that was refused.
        remote: ClockTimestamp,
        /// The persisted bound.
        bound: Timestamp,
    },
    /// Drop the message.
    #[error(transparent)]
    Stopped(#[from] ClockStopped),
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const WALL: WallTime = WallTime::from_micros(10_000_000);

    #[test]
    fn a_clock_at_its_bound_stops_and_goes_on_when_it_is_raised() {
        let last = WALL.timestamp().raw();
        let hlc = Hlc::with(last, last + 3);
        assert_eq!(hlc.now(WALL).raw(), last + 1);
        assert_eq!(hlc.now(WALL).raw(), last + 2);
        assert_eq!(hlc.try_now(WALL), Err(ClockStopped::AtBound(hlc.bound())));
        assert_eq!(hlc.last().raw(), last + 2);
        hlc.raise(PersistedBound::for_tests(Timestamp::from_raw(last + 4)));
        assert_eq!(hlc.now(WALL).raw(), last + 3);
        hlc.raise(PersistedBound::for_tests(Timestamp::from_raw(last)));
        assert_eq!(hlc.bound().raw(), last + 4, "a late, lower bound changes nothing");
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    //! Every interleaving of a few threads. `RUSTFLAGS="--cfg loom" cargo test -p clock --release
    //! --lib`.

    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    const WALL: WallTime = WallTime::from_micros(10_000_000);
    const CAP: Duration = Duration::from_millis(250);

    /// A clock at `WALL` whose bound leaves exactly `count` readings.
    fn with_room_for(count: u64) -> Arc<Hlc> {
        let last = WALL.timestamp().raw();
        Arc::new(Hlc::with(last, last + 1 + count))
    }

    #[test]
    fn three_threads_never_get_the_same_reading() {
        loom::model(|| {
            let hlc = Arc::new(Hlc::unbounded());
            let other = |wall: WallTime| {
                let hlc = Arc::clone(&hlc);
                thread::spawn(move || hlc.now(wall))
            };
            let threads = [other(WALL), other(WallTime::from_micros(WALL.micros() - 1))];
            let mine = hlc.now(WALL);
            let mut all: Vec<_> = threads.map(|t| t.join().unwrap()).to_vec();
            all.push(mine);
            all.sort();
            assert!(all.windows(2).all(|w| w[0] < w[1]), "{all:?}");
            assert_eq!(hlc.last(), all[2]);
        });
    }

    #[test]
    fn a_reading_after_an_observation_is_above_it() {
        loom::model(|| {
            let hlc = Arc::new(Hlc::unbounded());
            let remote = ClockTimestamp::from_raw(WALL.plus(CAP / 2).timestamp().raw());
            let receiver = {
                let hlc = Arc::clone(&hlc);
                thread::spawn(move || {
                    let received = hlc.observe(WALL, remote, CAP).unwrap();
                    assert!(received > remote);
                    let next = hlc.now(WALL);
                    assert!(next > received);
                    [received, next]
                })
            };
            let mine = hlc.now(WALL);
            let theirs = receiver.join().unwrap();
            assert!(!theirs.contains(&mine));
            assert!(hlc.now(WALL) > theirs[1].max(mine));
        });
    }

    #[test]
    fn no_reading_reaches_the_bound_while_it_is_raised() {
        loom::model(|| {
            let hlc = with_room_for(1);
            let bound = hlc.bound();
            let higher = bound.next();
            let raiser = {
                let hlc = Arc::clone(&hlc);
                thread::spawn(move || hlc.raise(PersistedBound::for_tests(higher)))
            };
            let reader = {
                let hlc = Arc::clone(&hlc);
                thread::spawn(move || hlc.try_now(WALL))
            };
            let mine = hlc.try_now(WALL);
            let theirs = reader.join().unwrap();
            raiser.join().unwrap();
            let got: Vec<_> = [mine, theirs].into_iter().flatten().collect();
            assert!(!got.is_empty(), "one reading fits below the old bound");
            assert!(got.iter().all(|r| r.timestamp() < higher));
            assert!(got.len() < 2 || mine != theirs);
        });
    }

    #[test]
    fn nothing_is_handed_out_above_the_sealed_reading() {
        loom::model(|| {
            let hlc = Arc::new(Hlc::unbounded());
            hlc.now(WALL);
            let reader = {
                let hlc = Arc::clone(&hlc);
                thread::spawn(move || hlc.try_now(WALL))
            };
            let sealer = {
                let hlc = Arc::clone(&hlc);
                thread::spawn(move || hlc.seal())
            };
            let seen = hlc.last();
            let end = hlc.seal();
            assert_eq!(sealer.join().unwrap(), end, "both see the same end");
            assert!(seen <= end && hlc.last() == end);
            if let Ok(reading) = reader.join().unwrap() {
                assert!(reading <= end, "{reading} after the end {end}");
            }
            assert_eq!(hlc.try_now(WALL), Err(ClockStopped::Sealed));
        });
    }
}
