//! Driver: the clock of one simulated process: the disciplined wall clock, the hybrid clock below its persisted bound, peers' offsets, the
//! fence. The decisions are `clock`'s.

use clock::{
    CAP_DEFAULT, Change, ClockTimestamp, Course, Discipline, ErrorBound, Extension, Fence,
    FenceConfig, Followed, Hlc, KernelClock, Leap, Monotonic, OffsetTable, Pace, RoundTrip, Start,
    TimeSource, Timestamp, UpperBound, Verdict, WallTime, largest_advertised, pace, uncertainty,
};
use parking_lot::Mutex;
use replication::range::NodeId;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use txn::runtime::HlcSource;

use super::time::MachineClock;
use crate::planted::{Planted, WorldBug};

/// How far ahead of the clock its bound is kept.
const BOUND_WINDOW: Duration = Duration::from_secs(4);
/// What a planted bug lets pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leniency {
    /// Nothing: as it should be.
    None,
    /// H02: clocks however far ahead are taken in.
    FarClocks,
    /// H03: clocks of others are not taken in.
    OtherClocks,
    /// H05: readers have no uncertainty.
    Uncertainty,
    /// H15: the logical counter has a few bits only, and wraps without a carry.
    Carry,
    /// H13: steps of the wall clock are followed at once, whatever its peers have measured.
    Steps,
}

/// What a counter of four bits keeps of a raw reading.
const WITHOUT_CARRY: u64 = !0xff0;

impl Leniency {
    /// What this mistake lets pass.
    pub fn of(planted: Option<Planted>) -> Leniency {
        match planted {
            Some(Planted::World(WorldBug::FarClocksAbsorbed)) => Leniency::FarClocks,
            Some(Planted::World(WorldBug::ClockNotCarried)) => Leniency::OtherClocks,
            Some(Planted::World(WorldBug::NoUncertainty)) => Leniency::Uncertainty,
            Some(Planted::World(WorldBug::CounterWraps)) => Leniency::Carry,
            Some(Planted::World(WorldBug::StepsFollowed)) => Leniency::Steps,
            Some(_) | None => Leniency::None,
        }
    }
}

/// What a former life of the node has left on its disk.
#[derive(Clone, Copy, Debug)]
pub struct Former {
    /// No reading was at or above.
    pub bound: Timestamp,
    /// Where its clock was; `None`: this is its first.
    pub course: Option<Course>,
}

/// The machine, as far as its clock is concerned.
#[derive(Clone)]
pub struct Host {
    /// Its clocks since its last boot.
    pub time: MachineClock,
    /// Which boot that was.
    pub boot: u128,
    /// Measurements older than that count nowhere in the cluster.
    pub age_max: Duration,
}

struct Judgement {
    offsets: OffsetTable,
    fence: Fence,
    bound: UpperBound,
}

/// See the module.
pub struct NodeClock {
    /// The machine's clocks.
    pub time: MachineClock,
    discipline: Discipline,
    hlc: Hlc,
    judgement: Mutex<Judgement>,
    uncertainty_us: AtomicU64,
    own_bound_us: AtomicU64,
    refused: AtomicU64,
    lenient: Leniency,
}

/// Whether a process can start.
pub enum Begin {
    /// With this clock; the bound has been given to the disk.
    Now(Box<NodeClock>, Timestamp),
    /// Ask again then.
    Later(Duration),
}

impl NodeClock {
    /// Starts above the bound on disk, where the former clock was. `persist` makes a new bound, and where the clock is, durable.
    pub fn begin(
        host: Host,
        former: Former,
        lenient: Leniency,
        persist: impl FnOnce(Timestamp, Course),
    ) -> Begin {
        let Host { time, boot, age_max } = host;
        let mut bound = UpperBound::new(former.bound, BOUND_WINDOW);
        let now = time.monotonic();
        let course = former.course.filter(|_| lenient != Leniency::Steps);
        let discipline = match Discipline::begin(course, boot, (time.wall(), now), age_max) {
            clock::Begin::Ready(discipline) => discipline,
            clock::Begin::Wait(wait) => return Begin::Later(wait),
        };
        discipline.look(time.wall(), now, CAP_DEFAULT, Pace::Slew);
        let wall = discipline.read(now);
        let floor = match bound.start(wall) {
            Start::Ready { floor } => floor,
            Start::Wait(wait) => return Begin::Later(wait),
            Start::WallBehind(_) => return Begin::Later(Duration::from_secs(1)),
        };
        let extension = bound.poll(ClockTimestamp::MIN, wall, Leap::Follow);
        let extension = extension.expect("a bound that the wall clock has passed must be extended");
        persist(extension.value(), discipline.course());
        let hlc = Hlc::start(floor, bound.persisted(extension));
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let clock = NodeClock {
            time,
            discipline,
            hlc,
            judgement: Mutex::new(Judgement {
                offsets: OffsetTable::new(age_max),
                fence: Fence::new(FenceConfig::default()),
                bound,
            }),
            uncertainty_us: AtomicU64::new(micros(CAP_DEFAULT)),
            own_bound_us: AtomicU64::new(micros(CAP_DEFAULT / 2)),
            refused: AtomicU64::new(0),
            lenient,
        };
        Begin::Now(Box::new(clock), floor)
    }

    /// Who the peers are.
    pub fn set_peers(&self, peers: impl IntoIterator<Item = NodeId>) {
        self.judgement.lock().offsets.set_peers(peers.into_iter().map(|node| u64::from(node.0)));
    }

    /// A round trip to a peer.
    pub fn measured(&self, peer: NodeId, trip: RoundTrip) {
        self.judgement.lock().offsets.record(u64::from(peer.0), trip);
    }

    /// Judges anew; what changed, and whether the bound must be extended. `persist` makes durable where the clock goes.
    pub fn look(&self, persist: impl FnOnce(Course)) -> (Change, Option<Extension>) {
        let now: Monotonic = self.time.monotonic();
        let mut judgement = self.judgement.lock();
        let (machine, before) = (self.time.wall(), self.discipline.read(now));
        let peer_count = judgement.offsets.peer_count();
        let seen_from = |clock| judgement.offsets.estimates(clock, now);
        let pace = match self.lenient {
            Leniency::Steps => Pace::Jump,
            _ => pace(&seen_from(before), &seen_from(machine), peer_count),
        };
        if let Followed::Nearer(course) = self.discipline.look(machine, now, CAP_DEFAULT, pace) {
            persist(course);
            self.discipline.jump(course);
        }
        let wall = self.discipline.read(now);
        let estimates = judgement.offsets.estimates(wall, now);
        let held = self.hlc.held_back(wall);
        let own =
            ErrorBound::of(KernelClock::Unsynchronised, &estimates, peer_count, held, CAP_DEFAULT);
        let change = judgement.fence.step(now, &estimates, peer_count, own);
        let spread =
            uncertainty(own, largest_advertised(&estimates, peer_count, CAP_DEFAULT), CAP_DEFAULT);
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.uncertainty_us.store(micros(spread), Ordering::Relaxed);
        self.own_bound_us.store(micros(own.bound), Ordering::Relaxed);
        let leap = judgement.fence.leap();
        let extension = judgement.bound.poll(self.hlc.last(), wall, leap);
        (change, extension)
    }

    /// `extension` is durable.
    pub fn raise(&self, extension: Extension) {
        let bound = self.judgement.lock().bound.persisted(extension);
        self.hlc.raise(bound);
    }

    /// The last act of an orderly stop: what the next start must be above, if that is known.
    pub fn close(&self) -> Option<Timestamp> {
        let sealed = self.hlc.seal();
        let spent = UpperBound::new(Timestamp::MIN, BOUND_WINDOW);
        std::mem::replace(&mut self.judgement.lock().bound, spent).close(sealed)
    }

    /// The wall clock without its steps.
    pub fn wall(&self) -> WallTime {
        self.discipline.read(self.time.monotonic())
    }

    /// Where it is, for the next life.
    pub fn course(&self) -> Course {
        self.discipline.course()
    }

    /// Whether it relies on itself.
    pub fn is_clear(&self) -> bool {
        self.judgement.lock().fence.verdict() == Verdict::Clear
    }

    /// What no reading of this process reaches.
    pub fn bound(&self) -> Timestamp {
        self.hlc.bound()
    }

    /// This node's own error bound.
    pub fn own_bound(&self) -> Duration {
        Duration::from_micros(self.own_bound_us.load(Ordering::Relaxed))
    }

    /// The last reading.
    pub fn last(&self) -> ClockTimestamp {
        self.hlc.last()
    }

    /// Messages refused because their clock was too far ahead.
    pub fn refused_count(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl HlcSource for NodeClock {
    fn now(&self) -> ClockTimestamp {
        let reading = self.hlc.now(self.wall());
        match self.lenient {
            Leniency::Carry => ClockTimestamp::from_raw(reading.raw() & WITHOUT_CARRY),
            Leniency::None
            | Leniency::FarClocks
            | Leniency::OtherClocks
            | Leniency::Uncertainty
            | Leniency::Steps => reading,
        }
    }

    fn observe(&self, remote: ClockTimestamp) -> Result<(), Timestamp> {
        let cap = match self.lenient {
            Leniency::OtherClocks => return Ok(()),
            Leniency::FarClocks => Duration::from_secs(3600),
            Leniency::None | Leniency::Uncertainty | Leniency::Carry | Leniency::Steps => {
                CAP_DEFAULT
            }
        };
        match self.hlc.observe(self.wall(), remote, cap) {
            Ok(_) => Ok(()),
            Err(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(remote.timestamp())
            }
        }
    }

    /// The cap bounds how far clocks differ; how far our readings are held behind our own clock, after a pause, comes on top
    /// and is known at once, before anybody has looked.
    fn uncertainty(&self) -> Duration {
        if self.lenient == Leniency::Uncertainty {
            return Duration::ZERO;
        }
        let held_back = self.hlc.held_back(self.wall());
        Duration::from_micros(self.uncertainty_us.load(Ordering::Relaxed)).saturating_add(held_back)
    }
}
