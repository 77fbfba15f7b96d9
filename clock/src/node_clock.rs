//! Machine: the clock of one process, its parts put together in the only order that is safe.
//!
//! Problem: the parts of this crate are safe together only if a driver leads them right: one reading
//! of the wall clock for all that a look decides, the disk before the jump, the disk before the
//! ceiling, an uncertainty that grows while readings are held back. Each of these orders was once
//! wrong somewhere. A node and the simulated world must not each have a version of them.
//!
//! Idea: this room leads the parts; a driver has the machine's clocks, the disk and the messages.
//!
//! ```text
//!   begin ──► Wait: ask again            every LOOK_INTERVAL:  look ──► Due ──► disk ──► followed, raised
//!     └─────► Newborn ──► disk ──► NodeClock   with every message:  observe, now; measured
//!                                        at an orderly end:  close ──► disk
//! ```
//!
//! # Invariants
//!
//! - INVARIANT: what a look decides goes by one reading of the wall and the monotonic clock. A leap
//!   between two readings would be followed before it was judged.
//! - INVARIANT: the clock moves to a course, and its ceiling to a bound, only after the driver has
//!   reported each as durable. ([`Due`] is consumed by it.)
//!
//! HAZARD: [`NodeClock::uncertainty`] is about freshness only. A clock beyond its bound makes reads
//! stale, never transactions wrong, and the fence ends that.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::discipline::{self, Course, Discipline, Followed, Pace, pace};
use crate::error_bound::{
    BoundSource, CAP_DEFAULT, ErrorBound, KernelClock, largest_advertised, uncertainty,
};
use crate::fence::{Change, Fence, FenceConfig, Verdict};
use crate::hlc::{Hlc, Refused};
use crate::offset::{OffsetEstimate, OffsetTable, RoundTrip};
use crate::sync::{AtomicU64, Ordering};
use crate::timestamp::{ClockTimestamp, Monotonic, Timestamp, WallTime};
use crate::upper_bound::{Extension, Leap, Start, UpperBound, WINDOW_MIN};

/// How often the clock is to be looked at.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How soon to ask again after a wall clock that is far behind.
const BEHIND_RETRY: Duration = Duration::from_secs(1);

/// What a node is told of clocks. The same on all nodes of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct NodeClockConfig {
    /// How far two clocks may differ.
    pub cap: Duration,
    /// How far ahead of the clock its persisted bound is kept. A restart after a crash waits up to
    /// this long.
    pub bound_window: Duration,
    /// Measurements older than this say nothing.
    pub age_max: Duration,
    /// Chaos only: a known mistake made on purpose, so that a harness can show that it would notice.
    pub planted: Option<PlantedBug>,
}

impl Default for NodeClockConfig {
    fn default() -> NodeClockConfig {
        NodeClockConfig {
            cap: CAP_DEFAULT,
            bound_window: WINDOW_MIN,
            age_max: Duration::from_secs(5),
            planted: None,
        }
    }
}

/// A mistake that has broken real systems, brought back on purpose. Never set outside of chaos and tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlantedBug {
    /// H02: clocks however far ahead are taken in.
    FarClocksAbsorbed,
    /// H03: clocks of others are not taken in.
    OthersIgnored,
    /// H05: readers have no uncertainty.
    NoUncertainty,
    /// H13: steps of the wall clock are followed at once, whatever the peers have measured.
    StepsFollowed,
    /// H15: the logical counter has a few bits only, and wraps without a carry.
    CarryLost,
}

/// What [`PlantedBug::FarClocksAbsorbed`] takes for near.
const FAR: Duration = Duration::from_secs(3600);
/// What a counter of four bits keeps of a raw reading.
const WITHOUT_CARRY: u64 = !0xff0;

/// What a former life of the node has left on its disk.
#[derive(Clone, Copy, Debug)]
pub struct Former {
    /// No reading was at or above; [`Timestamp::MIN`]: this is the node's first life.
    pub bound: Timestamp,
    /// Where its clock was; `None`: unknown.
    pub course: Option<Course>,
}

/// The machine's clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The wall clock, with its steps.
    pub wall: WallTime,
    /// Since the machine was booted; counts suspended time.
    pub now: Monotonic,
}

/// Why a process cannot start yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// The machine was booted just now: peers may still rely on what they measured before.
    Booted(Duration),
    /// The wall clock has not passed the bound yet.
    Bound(Duration),
    /// The wall clock is this far behind the bound, more than a crash explains. Say so.
    WallBehind(Duration),
}

impl Wait {
    /// When to ask again.
    pub fn retry_after(self) -> Duration {
        match self {
            Wait::Booted(wait) | Wait::Bound(wait) => wait,
            Wait::WallBehind(_) => BEHIND_RETRY,
        }
    }
}

/// Whether a process can start.
pub enum Birth {
    /// As soon as what the newborn asks for is durable.
    Ready(Box<Newborn>),
    /// Ask again.
    Wait(Wait),
}

/// A clock whose first bound is not durable yet.
#[must_use = "a clock that is not made durable gives no readings"]
pub struct Newborn {
    config: NodeClockConfig,
    discipline: Discipline,
    bound: UpperBound,
    first: Extension,
    floor: Timestamp,
}

impl Newborn {
    /// What must be written: the first bound, and where the clock is.
    pub fn due(&self) -> (Timestamp, Course) {
        (self.first.value(), self.discipline.course())
    }

    /// No reading of a former life was at or above, none of this one will be below.
    pub fn floor(&self) -> Timestamp {
        self.floor
    }

    /// [`Newborn::due`] is durable.
    pub fn persisted(self) -> NodeClock {
        let Newborn { config, discipline, mut bound, first, floor } = self;
        let hlc = Hlc::start(floor, bound.persisted(first));
        // Nothing is known of the peers, and nothing of how good this clock is.
        let own = ErrorBound { bound: config.cap / 2, source: BoundSource::Assumed };
        NodeClock {
            discipline,
            hlc,
            judgement: Mutex::new(Judgement {
                offsets: OffsetTable::new(config.age_max),
                fence: Fence::new(FenceConfig::default()),
                own,
                bound: Some(bound),
            }),
            uncertainty_us: AtomicU64::new(micros(config.cap)),
            own_bound_us: AtomicU64::new(micros(own.bound)),
            config,
        }
    }
}

/// What must be durable before the clock goes on; each part is given back by itself.
#[derive(Default)]
#[must_use = "the clock will stop if its bound is not persisted"]
pub struct Due {
    /// Where the clock goes: [`NodeClock::follow`].
    pub course: Option<Course>,
    /// How far it may: [`NodeClock::raise`]. To be written with [`NodeClock::course`].
    pub extension: Option<Extension>,
}

impl Due {
    /// Nothing is.
    pub fn is_empty(&self) -> bool {
        self.course.is_none() && self.extension.is_none()
    }
}

/// What a look has found.
pub struct Looked {
    /// Of the fence.
    pub change: Change,
    /// A wall clock beyond the cap was followed at once, by this much.
    pub stepped: Option<Duration>,
    /// What to write.
    pub due: Due,
}

/// What people see of a clock.
#[derive(Clone, Debug)]
pub struct ClockView {
    /// The wall clock without its steps.
    pub reads: WallTime,
    /// How wrong it may be.
    pub own: ErrorBound,
    /// Whether it is relied on.
    pub verdict: Verdict,
    /// The peers' clocks seen from it.
    pub peers: BTreeMap<u64, OffsetEstimate>,
}

struct Judgement {
    offsets: OffsetTable,
    fence: Fence,
    own: ErrorBound,
    /// Taken by [`NodeClock::close`].
    bound: Option<UpperBound>,
}

/// See the module. Readings come from any thread and never block; looks are made in one place.
pub struct NodeClock {
    config: NodeClockConfig,
    discipline: Discipline,
    hlc: Hlc,
    judgement: Mutex<Judgement>,
    uncertainty_us: AtomicU64,
    own_bound_us: AtomicU64,
}

impl NodeClock {
    /// The clock of a process that starts on this boot of its machine: above the bound of its former
    /// life, where the former clock was.
    ///
    /// # Panics
    /// If the window is below [`WINDOW_MIN`].
    pub fn begin(config: NodeClockConfig, former: Former, boot: u128, reading: Reading) -> Birth {
        let Reading { wall, now } = reading;
        let follows = config.planted == Some(PlantedBug::StepsFollowed);
        let course = former.course.filter(|_| !follows);
        let discipline = match Discipline::begin(course, boot, (wall, now), config.age_max) {
            discipline::Begin::Ready(discipline) => discipline,
            discipline::Begin::Wait(wait) => return Birth::Wait(Wait::Booted(wait)),
        };
        // Nothing is measured yet: towards the wall clock, and beyond the cap to it.
        discipline.look(wall, now, config.cap, Pace::Slew);
        let reads = discipline.read(now);
        let mut bound = UpperBound::new(former.bound, config.bound_window);
        let floor = match bound.start(reads) {
            Start::Ready { floor } => floor,
            Start::Wait(wait) => return Birth::Wait(Wait::Bound(wait)),
            Start::WallBehind(behind) => return Birth::Wait(Wait::WallBehind(behind)),
        };
        let first = bound
            .poll(ClockTimestamp::MIN, reads, Leap::Follow)
            .expect("a bound that the wall clock has passed must be extended");
        Birth::Ready(Box::new(Newborn { config, discipline, bound, first, floor }))
    }

    /// Who the peers are.
    pub fn set_peers(&self, peers: impl IntoIterator<Item = u64>) {
        self.judge().offsets.set_peers(peers);
    }

    /// A round trip to a peer.
    pub fn measured(&self, peer: u64, trip: RoundTrip) {
        self.judge().offsets.record(peer, trip);
    }

    /// Judges anew, and says what must be written. To be called every [`LOOK_INTERVAL`] by one caller
    /// at a time, with one reading of the machine's clocks. `kernel_error_max`: what the kernel says
    /// of the wall clock, `None` if that is not synchronised.
    pub fn look(&self, reading: Reading, kernel_error_max: Option<Duration>) -> Looked {
        let Reading { wall, now } = reading;
        let cap = self.config.cap;
        let mut judgement = self.judge();
        let peer_count = judgement.offsets.peer_count();
        let seen_from = |clock| judgement.offsets.estimates(clock, now);
        let pace = match self.config.planted {
            Some(PlantedBug::StepsFollowed) => Pace::Jump,
            Some(_) | None => {
                pace(&seen_from(self.discipline.read(now)), &seen_from(wall), peer_count)
            }
        };
        let (mut due, mut stepped) = (Due::default(), None);
        match self.discipline.look(wall, now, cap, pace) {
            Followed::Course(_) => {}
            Followed::Wall(step) => stepped = Some(step),
            Followed::Nearer(course) => due.course = Some(course),
        }
        let reads = self.discipline.read(now);
        let kernel = match kernel_error_max {
            // The kernel speaks of the wall clock.
            Some(error_max) => KernelClock::Synchronised {
                error_max: error_max.saturating_add(distance(reads, wall)),
            },
            None => KernelClock::Unsynchronised,
        };
        let estimates = judgement.offsets.estimates(reads, now);
        let own = ErrorBound::of(kernel, &estimates, peer_count, self.hlc.held_back(reads), cap);
        judgement.own = own;
        let change = judgement.fence.step(now, &estimates, peer_count, own);
        let others = largest_advertised(&estimates, peer_count, cap);
        self.uncertainty_us.store(micros(uncertainty(own, others, cap)), Ordering::Relaxed);
        self.own_bound_us.store(micros(own.bound), Ordering::Relaxed);
        let leap = judgement.fence.leap();
        let last = self.hlc.last();
        due.extension = judgement.bound.as_mut().and_then(|bound| bound.poll(last, reads, leap));
        Looked { change, stepped, due }
    }

    /// Goes where a look has said ([`Due::course`]), which is durable now.
    pub fn follow(&self, course: Course) {
        self.discipline.jump(course);
    }

    /// The extension ([`Due::extension`]) is durable. Nothing after [`NodeClock::close`].
    pub fn raise(&self, extension: Extension) {
        if let Some(bound) = self.judge().bound.as_mut() {
            self.hlc.raise(bound.persisted(extension));
        }
    }

    /// The last act of an orderly stop: no reading is handed out any more. What the next life must be
    /// above, so that it need not wait; `None` if what is on disk must stay, and the second time.
    pub fn close(&self) -> Option<Timestamp> {
        let sealed = self.hlc.seal();
        self.judge().bound.take().and_then(|bound| bound.close(sealed))
    }

    /// The wall clock without its steps: what peers are told, and what all else here goes by.
    pub fn read(&self, now: Monotonic) -> WallTime {
        self.discipline.read(now)
    }

    /// Where it is, for the next life.
    pub fn course(&self) -> Course {
        self.discipline.course()
    }

    /// A reading above all others of this node.
    pub fn now(&self, now: Monotonic) -> ClockTimestamp {
        let reading = self.hlc.now(self.read(now));
        match self.config.planted {
            Some(PlantedBug::CarryLost) => ClockTimestamp::from_raw(reading.raw() & WITHOUT_CARRY),
            Some(_) | None => reading,
        }
    }

    /// Takes in another's reading: all later ones here are above it.
    ///
    /// # Errors
    /// If it is beyond the cap ([`crate::FarAhead`]) or the clock was sealed; nothing is taken in.
    pub fn observe(&self, now: Monotonic, remote: ClockTimestamp) -> Result<(), Refused> {
        let cap = match self.config.planted {
            Some(PlantedBug::OthersIgnored) => return Ok(()),
            Some(PlantedBug::FarClocksAbsorbed) => FAR,
            Some(_) | None => self.config.cap,
        };
        self.hlc.observe(self.read(now), remote, cap).map(drop)
    }

    /// How far above a reader's timestamp others may have written before it began.
    pub fn uncertainty(&self, now: Monotonic) -> Duration {
        if self.config.planted == Some(PlantedBug::NoUncertainty) {
            return Duration::ZERO;
        }
        // After a pause of the process the clock lags behind the wall until its bound is extended: by
        // that much more can others' writes be ahead. On top of the cap, which bounds clocks that are
        // not held back. (The simulator found reads stale by it.)
        let uncertainty = Duration::from_micros(self.uncertainty_us.load(Ordering::Relaxed));
        uncertainty.saturating_add(self.held_back(now))
    }

    /// How far the clock lags behind the wall until its bound is extended ([`Hlc::held_back`]); zero in health.
    pub fn held_back(&self, now: Monotonic) -> Duration {
        self.hlc.held_back(self.read(now))
    }

    /// This node's own error bound.
    pub fn own_bound(&self) -> Duration {
        Duration::from_micros(self.own_bound_us.load(Ordering::Relaxed))
    }

    /// Whether the node relies on its clock.
    pub fn verdict(&self) -> Verdict {
        self.judge().fence.verdict()
    }

    /// What is durable as never reached.
    pub fn bound(&self) -> Timestamp {
        self.hlc.bound()
    }

    /// The last reading.
    pub fn last(&self) -> ClockTimestamp {
        self.hlc.last()
    }

    /// For people.
    pub fn view(&self, now: Monotonic) -> ClockView {
        let judgement = self.judge();
        let reads = self.read(now);
        ClockView {
            reads,
            own: judgement.own,
            verdict: judgement.fence.verdict(),
            peers: judgement.offsets.estimates(reads, now),
        }
    }

    fn judge(&self) -> MutexGuard<'_, Judgement> {
        self.judgement.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn distance(one: WallTime, other: WallTime) -> Duration {
    Duration::from_micros(one.micros().abs_diff(other.micros()))
}
