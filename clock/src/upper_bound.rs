//! Machine: the upper bound of this node's clock that is on disk.
//!
//! Problem: a node that restarts must never hand out a reading that its former life has handed out
//! already, or commits land below reads that were served (killer H01). The wall clock may have gone
//! back meanwhile, and the configured cap may have been made smaller, so neither tells how far the
//! former life had come (cockroach#9733).
//!
//! Idea: before the clock may reach a value, a *bound* above that value is durable. The bound is
//! asked for well ahead (a window of ten seconds, renewed when half of it is used up), so nobody
//! waits for the disk. A start begins at the bound.
//!
//! ```text
//!                last                    bound             asked
//!   -------------+-----------------------+-----------------+---->  time
//!                | < window / 2: ask for |  one in flight,  |
//!                |   last + window       |  not usable yet  |
//! ```
//!
//! The driver's part, in this order: [`UpperBound::start`] until it says [`Start::Ready`];
//! [`UpperBound::poll`], write what it returns and sync it; [`UpperBound::persisted`];
//! [`crate::Hlc::start`]. Then `poll` at least every quarter window, and whenever `Hlc::held_back`
//! is not zero.
//!
//! # Invariants
//!
//! - INVARIANT: a [`PersistedBound`] exists only after its value was reported durable, so
//!   [`crate::Hlc`] cannot be raised above what is on disk. The types enforce it: an [`Extension`]
//!   is not copied and is consumed by `persisted`.
//! - INVARIANT: at most one extension is in flight, so that a lower one cannot overwrite a higher
//!   one.
//! - A wall clock that leapt ahead is followed only if the node's peers do not contradict it
//!   ([`Leap`]): an hour that gets into the bound stays in the clock for an hour after the wall
//!   clock was repaired (killer H02).
//!
//! Honest limits: after a crash a node waits up to the rest of the window before it starts
//! ([`UpperBound::close`] spares an orderly restart the wait). A data directory that was rolled
//! back has an old bound: nothing here can see that.

use std::fmt;
use std::time::Duration;

use crate::hlc::RESERVE;
use crate::timestamp::{ClockTimestamp, Timestamp, WallTime};

/// Default distance of the bound ahead of the clock.
pub const WINDOW_DEFAULT: Duration = Duration::from_secs(10);
/// The smallest window: below it the clock would spend its life between ceiling and bound.
pub const WINDOW_MIN: Duration = Duration::from_secs(4);

const _: () = assert!(WINDOW_MIN.as_secs() >= 4 * RESERVE.as_secs());

/// A bound that is on disk: no reading of this node was or will be at or above it, until a higher
/// one is persisted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PersistedBound(Timestamp);

impl PersistedBound {
    /// The value; readings are strictly below it.
    pub const fn limit(self) -> Timestamp {
        self.0
    }

    #[cfg(test)]
    pub(crate) const fn for_tests(limit: Timestamp) -> PersistedBound {
        PersistedBound(limit)
    }
}

/// A bound that must be written and synced, and then be given to [`UpperBound::persisted`].
#[must_use = "the clock will stop if the bound is not persisted"]
#[derive(PartialEq, Eq, Debug)]
pub struct Extension(Timestamp);

impl Extension {
    /// What to write: [`Timestamp::raw`] of it.
    pub const fn value(&self) -> Timestamp {
        self.0
    }
}

/// Whether a wall clock that is beyond the bound is followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leap {
    /// Nobody contradicts the wall clock: the process or its disk was asleep.
    Follow,
    /// The peers contradict it ([`crate::Fence::leap`]). The bound follows *their* time, so that
    /// the clock goes on absorbing their readings and comes at most one window ahead of them.
    Hold {
        /// How far the peers' median is ahead of our wall clock, in microseconds.
        ahead_us: i64,
    },
}

/// Whether the clock can start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// The wall clock has passed the bound: all new readings will be above `floor`.
    Ready {
        /// For [`crate::Hlc::start`].
        floor: Timestamp,
    },
    /// Ask again after this time. The wall clock may be set meanwhile, so one sleep is not proof.
    Wait(Duration),
    /// The wall clock is further behind the bound than a crash explains: it was set back, or the
    /// disk is from elsewhere. Say so and keep asking; starting would give readings that all peers
    /// refuse.
    WallBehind(Duration),
}

/// The bound's machine. One per node.
#[derive(Debug)]
pub struct UpperBound {
    window: Duration,
    persisted: Timestamp,
    asked: Option<Timestamp>,
}

impl UpperBound {
    /// `recovered` is the bound found on disk, or `Timestamp::MIN` on a new disk.
    ///
    /// # Panics
    /// If `window` is below [`WINDOW_MIN`].
    pub fn new(recovered: Timestamp, window: Duration) -> UpperBound {
        assert!(window >= WINDOW_MIN, "window {window:?} below {WINDOW_MIN:?}");
        UpperBound { window, persisted: recovered, asked: None }
    }

    /// Whether the clock can start at this wall time. Depends on the bound alone, never on the
    /// configured cap.
    pub fn start(&self, wall: WallTime) -> Start {
        let behind = self.persisted.since(wall.timestamp());
        if self.persisted <= wall.timestamp() {
            Start::Ready { floor: self.persisted }
        } else if behind <= self.window {
            // At least one microsecond: a bound with a logical part is less than one away from its
            // wall time.
            Start::Wait(behind.max(Duration::from_micros(1)))
        } else {
            Start::WallBehind(behind)
        }
    }

    /// Whether the bound must be extended, given the clock's last reading (before the start:
    /// [`ClockTimestamp::MIN`]) and the wall clock. `None` while an extension is in flight, and
    /// before the start until [`UpperBound::start`] is ready.
    ///
    /// HAZARD: `wall` must be the reading that `leap` was judged with. A later one can have leapt
    /// in between, and would be followed although the peers contradict it (the clock is then as far
    /// ahead as the leap, until the wall clock gets there).
    pub fn poll(&mut self, last: ClockTimestamp, wall: WallTime, leap: Leap) -> Option<Extension> {
        if self.asked.is_some() {
            return None;
        }
        let target = self.target(last, wall, leap)?;
        assert!(target > self.persisted, "bound {target} would fall below {}", self.persisted);
        self.asked = Some(target);
        Some(Extension(target))
    }

    fn target(&self, last: ClockTimestamp, wall: WallTime, leap: Leap) -> Option<Timestamp> {
        let leapt = wall.timestamp() >= self.persisted;
        if last == ClockTimestamp::MIN && !leapt {
            // Not ready to start. Each try would move the bound, and the next start, further away.
            return None;
        }
        let target = match leap {
            Leap::Hold { ahead_us } if leapt => {
                let peers = wall.micros().saturating_add_signed(ahead_us);
                self.window_after(WallTime::from_micros(peers).timestamp())
                    .or_else(|| self.room_to_count(last))
            }
            Leap::Hold { .. } | Leap::Follow => {
                self.window_after(last.timestamp().forward(wall.timestamp()))
            }
        };
        target.filter(|target| *target > self.persisted)
    }

    /// A window after `front`, when half of the present one is used up there.
    fn window_after(&self, front: Timestamp) -> Option<Timestamp> {
        let due = self.persisted.since(front) <= self.window / 2;
        due.then(|| front.plus(self.window))
    }

    /// Leaves the ceiling where the clock already is, so that a wall clock that leapt moves it no
    /// further. Nothing for a clock that has not started.
    fn room_to_count(&self, last: ClockTimestamp) -> Option<Timestamp> {
        let started = last > ClockTimestamp::MIN;
        let used_up = self.persisted.since(last.timestamp()) < RESERVE / 2;
        (started && used_up).then(|| last.timestamp().plus(RESERVE))
    }

    /// `extension` is durable.
    ///
    /// # Panics
    /// If it is not the one in flight: it was made by another machine.
    pub fn persisted(&mut self, extension: Extension) -> PersistedBound {
        let asked = self.asked.take();
        assert_eq!(asked, Some(extension.0), "an extension that is not in flight");
        self.persisted = extension.0;
        PersistedBound(self.persisted)
    }

    /// The bound on disk.
    pub const fn current(&self) -> Timestamp {
        self.persisted
    }

    /// At an orderly shutdown: the bound just above `sealed` (from [`crate::Hlc::seal`]), so that
    /// the next start need not wait. `None` while an extension is in flight: finish that one first,
    /// or leave it.
    pub fn close(self, sealed: ClockTimestamp) -> Option<Timestamp> {
        match self.asked {
            Some(_) => None,
            None => Some(sealed.timestamp().next().min(self.persisted)),
        }
    }
}

impl fmt::Display for PersistedBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::hlc::Hlc;

    const SECOND: u64 = 1_000_000;
    const AN_HOUR_FAST: Leap = Leap::Hold { ahead_us: -3_600_000_000 };

    fn wall(seconds: u64) -> WallTime {
        WallTime::from_micros(seconds * SECOND)
    }

    fn at(seconds: u64) -> Timestamp {
        wall(seconds).timestamp()
    }

    fn started(seconds: u64) -> (UpperBound, Hlc) {
        let mut bound = UpperBound::new(Timestamp::MIN, WINDOW_DEFAULT);
        let first = bound.poll(ClockTimestamp::MIN, wall(seconds), Leap::Follow);
        let first = first.expect("a new bound is due");
        assert_eq!(first.value(), at(seconds + 10));
        let persisted = bound.persisted(first);
        (bound, Hlc::start(Timestamp::MIN, persisted))
    }

    #[test]
    fn asked_for_at_half_of_the_window_and_only_once() {
        let (mut bound, hlc) = started(100);
        assert_eq!(bound.poll(hlc.now(wall(104)), wall(104), Leap::Follow), None);
        let ask = bound.poll(hlc.now(wall(105)), wall(105), Leap::Follow).unwrap();
        assert_eq!(ask.value(), at(115));
        assert_eq!(bound.poll(hlc.now(wall(108)), wall(108), Leap::Follow), None, "one in flight");
        assert_eq!(hlc.bound(), at(110), "not usable before it is durable");
        hlc.raise(bound.persisted(ask));
        assert_eq!(hlc.bound(), at(115));
    }

    #[test]
    fn a_wall_step_of_minutes_hands_out_nothing_that_is_not_persisted() {
        let (mut bound, hlc) = started(100);
        let held = hlc.now(wall(400));
        assert_eq!(held.timestamp(), at(109), "one reserve below the bound");
        assert!(hlc.now(wall(400)) > held, "it still counts");
        assert_eq!(hlc.held_back(wall(400)).as_secs(), 291);

        let ask = bound.poll(hlc.last(), wall(400), Leap::Follow).unwrap();
        hlc.raise(bound.persisted(ask));
        assert_eq!(hlc.now(wall(400)).timestamp(), at(400));
        assert_eq!(hlc.held_back(wall(400)), Duration::ZERO);
    }

    #[test]
    fn a_leap_that_the_peers_contradict_does_not_get_into_the_bound() {
        let (mut bound, hlc) = started(100);
        hlc.now(wall(3700));
        assert_eq!(bound.poll(hlc.last(), wall(3700), AN_HOUR_FAST), None);
        // The wall clock is repaired: the clock is at most one window ahead of it.
        assert!(hlc.ahead_of(wall(101)) <= WINDOW_DEFAULT);
        assert!(hlc.now(wall(101)).timestamp() < at(110));
    }

    #[test]
    fn a_contradicted_leap_follows_the_time_of_the_peers() {
        let (mut bound, hlc) = started(100);
        let ask = bound.poll(hlc.now(wall(3705)), wall(3705), AN_HOUR_FAST).unwrap();
        assert_eq!(ask.value(), at(115), "they are at 105");
    }

    #[test]
    fn a_held_clock_gets_room_to_count_and_nothing_else() {
        let (mut bound, _) = started(100);
        let nearly = ClockTimestamp::from_raw(at(110).minus(RESERVE / 4).raw());
        let ask = bound.poll(nearly, wall(3700), AN_HOUR_FAST).unwrap();
        assert_eq!(
            ask.value(),
            nearly.timestamp().plus(RESERVE),
            "the ceiling is where the clock is"
        );
    }

    #[test]
    fn a_contradicted_wall_clock_that_has_not_leapt_is_still_followed() {
        // A slow node is fenced too, and must go on absorbing its peers' readings.
        let (mut bound, hlc) = started(100);
        let ask =
            bound.poll(hlc.now(wall(106)), wall(106), Leap::Hold { ahead_us: 300_000 }).unwrap();
        assert_eq!(ask.value(), at(116));
    }

    #[test]
    fn a_restart_waits_until_the_wall_clock_has_passed_the_bound() {
        let restart = UpperBound::new(at(110), WINDOW_DEFAULT);
        assert_eq!(restart.start(wall(103)), Start::Wait(Duration::from_secs(7)));
        assert_eq!(restart.start(wall(50)), Start::WallBehind(Duration::from_secs(60)));
        assert_eq!(restart.start(wall(110)), Start::Ready { floor: at(110) });
        let odd = UpperBound::new(at(110).next(), WINDOW_DEFAULT);
        assert_eq!(odd.start(wall(110)), Start::Wait(Duration::from_micros(1)));
    }

    #[test]
    fn a_node_that_may_not_start_yet_does_not_move_its_bound() {
        let mut restart = UpperBound::new(at(110), WINDOW_DEFAULT);
        assert_eq!(restart.poll(ClockTimestamp::MIN, wall(108), Leap::Follow), None);
        assert_eq!(restart.poll(ClockTimestamp::MIN, wall(3700), AN_HOUR_FAST), None);
        assert!(restart.poll(ClockTimestamp::MIN, wall(110), Leap::Follow).is_some());
    }

    #[test]
    fn a_start_with_another_window_still_starts_above_the_old_bound() {
        let (_, old) = started(100);
        let last = old.now(wall(109));
        let mut bound = UpperBound::new(old.bound(), WINDOW_MIN);
        let Start::Ready { floor } = bound.start(wall(110)) else { panic!("the wall is past it") };
        let ask = bound.poll(ClockTimestamp::MIN, wall(110), Leap::Follow).unwrap();
        let hlc = Hlc::start(floor, bound.persisted(ask));
        assert!(hlc.now(wall(1)) > last, "even if the wall clock goes back now");
    }

    #[test]
    fn an_orderly_shutdown_spares_the_next_start_the_wait() {
        let (bound, hlc) = started(100);
        let last = hlc.now(wall(101));
        let closed = bound.close(hlc.seal()).unwrap();
        assert_eq!(closed, last.timestamp().next());
        assert!(hlc.try_now(wall(102)).is_err());
        let next = UpperBound::new(closed, WINDOW_DEFAULT);
        assert!(matches!(next.start(wall(102)), Start::Ready { .. }));
    }

    #[test]
    fn a_shutdown_with_an_extension_in_flight_leaves_the_bound_alone() {
        let (mut bound, hlc) = started(100);
        let _in_flight = bound.poll(hlc.now(wall(106)), wall(106), Leap::Follow).unwrap();
        assert_eq!(bound.close(hlc.seal()), None);
    }
}
