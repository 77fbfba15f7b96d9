//! Machine: the wall clock as the rest of the node sees it: never in steps.
//!
//! Problem: how far a reader must distrust the others' clocks is measured, once a second or so. A
//! wall clock that steps in between, though by less than the cap, makes every such measurement
//! wrong until it is made again: a value that was acknowledged a moment ago lies above what a
//! reader elsewhere takes for its uncertainty, and is missed (staleness). Operators step clocks, and
//! so do virtual machines that wake.
//!
//! Idea: between two looks the clock is the *monotonic* clock plus a constant; a look moves that
//! constant towards the wall clock, by at most [`SLEW_PPM`] of the time that has passed (as
//! `adjtime` does). A step becomes a drift that every measurement allows for already
//! ([`crate::DRIFT_PPM`]).
//!
//! ```text
//!            wall  ______________
//!                 |            ,-'        its distance from the wall clock shrinks by 0.5 ms a second
//!   ______________|         ,-'
//!   ~~~~~~~~~~~~~~~~~~~~~~~'  the disciplined clock
//! ```
//!
//! Beyond the cap a wall clock is followed at once: the fence must see what it shows. One that is
//! provably nearer to every peer than our clock is ([`pace`]) is followed as soon as that is on disk
//! ([`Followed::Nearer`]): what peers have measured of us is then more than what is true. A clock that
//! was wrong and is set right need not stay fenced for minutes. On disk first, because a next life
//! that went on where the clock was before would be farther off than peers have measured since; one
//! that goes on where it was to be is nearer. (The simulator found this.)
//!
//! What the peers have measured outlives the process: its next life must not begin elsewhere. On the
//! same boot of the machine it goes on where the former one was ([`Course`], on disk). After a reboot
//! the monotonic clock has begun anew and nobody knows how long that took: the clock begins at the
//! wall clock, but not before the machine has been up for so long that no measurement of its former
//! life counts any more ([`Discipline::begin`]).
//!
//! # Invariants
//!
//! - INVARIANT: two readings differ by the monotonic time between them, give or take [`SLEW_PPM`] of
//!   it, unless a look said [`Followed::Wall`] or [`Followed::Nearer`]. (`tests/main/discipline.rs`; chaos compares all
//!   clocks of a world against every node's uncertainty.)
//! - After a look it is no farther from the wall clock than the cap.
//!
//! Honest limits: an in-process reading may go back by what one look takes off (0.1 ms); the hybrid
//! clock does not. A virtual machine whose monotonic clock stood still with it is behind by as much
//! until the next round trip to a peer. Between the last [`Course`] that was written and a crash the
//! clock may have moved by [`SLEW_PPM`] of that time; the wait for the persisted bound
//! ([`crate::UpperBound`]) is longer, so that what peers allow for drift covers it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::offset::OffsetEstimate;
use crate::sync::{AtomicU64, Ordering};
use crate::timestamp::{Monotonic, WallTime};

/// How fast the clock is moved towards the wall clock, parts per million.
pub const SLEW_PPM: u32 = 500;

/// Added to the age at which a measurement says nothing any more: a reply was made before it was
/// received, and one that took longer than this has too large an error to be relied on.
const REPLY_TIME_MAX: Duration = Duration::from_secs(1);

/// Where the clock of a process was: what its next life on the same boot goes on from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Course {
    /// Which boot of the machine: its monotonic clock counts from there.
    pub boot: u128,
    /// The clock minus the monotonic clock, nanoseconds, modulo 2^64.
    pub ahead_ns: u64,
}

/// How a look moves the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// By [`SLEW_PPM`] at most.
    Slew,
    /// To the wall clock.
    Jump,
}

/// Less than this is not worth a write.
const JUMP_MIN: Duration = Duration::from_millis(1);

/// How to move: jumps only to where every peer's clock is provably nearer. `by_clock` and `by_wall`
/// tell where the peers' clocks are, seen from ours and from the wall clock; there are `peer_count`.
pub fn pace(
    by_clock: &BTreeMap<u64, OffsetEstimate>,
    by_wall: &BTreeMap<u64, OffsetEstimate>,
    peer_count: usize,
) -> Pace {
    let nearer = |(peer, wall): (&u64, &OffsetEstimate)| {
        by_clock.get(peer).is_some_and(|clock| wall.at_most() <= clock.at_least())
    };
    if peer_count > 0 && by_wall.len() == peer_count && by_wall.iter().all(nearer) {
        Pace::Jump
    } else {
        Pace::Slew
    }
}

/// Whether the clock can begin.
pub enum Begin {
    /// It has begun.
    Ready(Discipline),
    /// The machine was booted just now: ask again after this time.
    Wait(Duration),
}

/// What a look has followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Followed {
    /// The monotonic clock; the wall clock is still this far from it.
    Course(Duration),
    /// The wall clock, by a step of this size.
    Wall(Duration),
    /// The monotonic clock. It may go to the wall clock, which is nearer to every peer, once this is
    /// durable ([`Discipline::jump`]).
    Nearer(Course),
}

/// A clock that follows the wall clock without steps. Read from any thread; looked at in one place.
pub struct Discipline {
    boot: u128,
    /// See [`Course::ahead_ns`].
    ahead_ns: AtomicU64,
    /// The monotonic clock at the last look.
    looked_ns: AtomicU64,
}

impl Discipline {
    /// The clock of a process. `former`: what its former life has left, `None` for a node's first.
    /// `boot` names the present boot of the machine. `age_max`: measurements older than that count
    /// nowhere in the cluster.
    pub fn begin(
        former: Option<Course>,
        boot: u128,
        (wall, now): (WallTime, Monotonic),
        age_max: Duration,
    ) -> Begin {
        let ahead_ns = match former {
            Some(course) if course.boot == boot => course.ahead_ns,
            Some(_) => {
                let up = now.since(Monotonic::ZERO);
                let rest = (age_max + REPLY_TIME_MAX).saturating_sub(up);
                if !rest.is_zero() {
                    return Begin::Wait(rest);
                }
                ahead(wall, now)
            }
            None => ahead(wall, now),
        };
        Begin::Ready(Discipline {
            boot,
            ahead_ns: AtomicU64::new(ahead_ns),
            looked_ns: AtomicU64::new(now.nanos()),
        })
    }

    /// The clock. Never blocks.
    pub fn read(&self, now: Monotonic) -> WallTime {
        let ahead_ns = self.ahead_ns.load(Ordering::Acquire);
        WallTime::from_micros(now.nanos().wrapping_add(ahead_ns) / 1000)
    }

    /// Moves the clock towards the wall clock; beyond `cap` at any pace at once. To be called every
    /// few hundred milliseconds, by one caller at a time.
    pub fn look(&self, wall: WallTime, now: Monotonic, cap: Duration, pace: Pace) -> Followed {
        let looked = self.looked_ns.swap(now.nanos(), Ordering::Relaxed);
        let ahead_ns = self.ahead_ns.load(Ordering::Relaxed);
        let here = now.nanos().wrapping_add(ahead_ns);
        let there = nanos_of(wall);
        let distance = Duration::from_nanos(here.abs_diff(there));
        if distance > cap {
            self.ahead_ns.store(ahead(wall, now), Ordering::Release);
            return Followed::Wall(distance);
        }
        let passed = u128::from(now.nanos().saturating_sub(looked));
        let most = u64::try_from(passed * u128::from(SLEW_PPM) / 1_000_000).unwrap_or(u64::MAX);
        let step = here.abs_diff(there).min(most);
        let moved =
            if there > here { ahead_ns.wrapping_add(step) } else { ahead_ns.wrapping_sub(step) };
        self.ahead_ns.store(moved, Ordering::Release);
        if pace == Pace::Jump && distance >= JUMP_MIN {
            return Followed::Nearer(Course { boot: self.boot, ahead_ns: ahead(wall, now) });
        }
        Followed::Course(distance - Duration::from_nanos(step))
    }

    /// Goes to where a look has said, which is durable now.
    pub fn jump(&self, course: Course) {
        self.ahead_ns.store(course.ahead_ns, Ordering::Release);
    }

    /// What the next life goes on from; to be kept on disk.
    pub fn course(&self) -> Course {
        Course { boot: self.boot, ahead_ns: self.ahead_ns.load(Ordering::Relaxed) }
    }
}

/// Nanoseconds since the epoch; saturates in the year 2554.
fn nanos_of(wall: WallTime) -> u64 {
    wall.micros().saturating_mul(1000)
}

fn ahead(wall: WallTime, now: Monotonic) -> u64 {
    nanos_of(wall).wrapping_sub(now.nanos())
}
