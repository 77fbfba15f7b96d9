//! Driver: this node's clock. Reads the OS through the seam, disciplines it, keeps the persisted bound ahead of the clock, measures peers,
//! and asks the fence for its verdict. The decisions are `clock`'s.
//!
//! HAZARD: everything above relies on [`ClockService::uncertainty`] for freshness only. A clock beyond its bound makes reads stale,
//! never transactions wrong, and the fence ends that.

use clock::{
    Begin, CAP_DEFAULT, Change, ClockTimestamp, Course, Discipline, ErrorBound, Extension, Fence,
    FenceConfig, Followed, Hlc, KernelClock, Leap, Monotonic, OffsetEstimate, OffsetTable, Pace,
    RoundTrip, Start, TimeSource, Timestamp, UpperBound, Verdict, WallTime, largest_advertised,
    pace, uncertainty,
};
use parking_lot::Mutex;
use replication::range::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tracing::{info, warn};
use txn::runtime::HlcSource;

use crate::identity::{ClockBounds, DataDir, IdentityError};
use crate::world::{OsTime, boot_id, kernel_clock_error};

/// How far ahead of the clock its persisted bound is kept. A restart after a crash waits up to this long.
const BOUND_WINDOW: Duration = Duration::from_secs(4);
/// Measurements older than this say nothing. Nodes that differ in it could rely on what others have given up: it is not a setting.
const SAMPLE_AGE_MAX: Duration = Duration::from_secs(5);
/// How often the bound and the verdict are looked at.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// What people and peers see of the clock.
#[derive(Clone, Debug)]
pub struct ClockReport {
    /// Our own error bound.
    pub bound: Duration,
    /// What is added to a reader's timestamp.
    pub uncertainty: Duration,
    /// Why we are fenced, if we are.
    pub fenced: Option<String>,
    /// How far the wall clock is ahead of the node's clock, which follows it without steps; microseconds.
    pub wall_ahead_us: i64,
    /// Peers' clocks as we see them.
    pub peers: BTreeMap<NodeId, OffsetEstimate>,
}

/// What must be written after a look.
#[derive(Default)]
#[must_use = "the clock will stop if its bound is not persisted"]
pub struct Due {
    extension: Option<Extension>,
    course: Option<Course>,
}

impl Due {
    /// Nothing.
    pub fn is_empty(&self) -> bool {
        self.extension.is_none() && self.course.is_none()
    }
}

struct Judgement {
    offsets: OffsetTable,
    fence: Fence,
    own: ErrorBound,
}

/// The clock of this node.
pub struct ClockService {
    time: Arc<OsTime>,
    discipline: Discipline,
    hlc: Hlc,
    cap: Duration,
    /// Taken by [`ClockService::close`].
    bound: Mutex<Option<UpperBound>>,
    judgement: Mutex<Judgement>,
    uncertainty_micros: AtomicU64,
    own_bound_micros: AtomicU64,
    fenced: AtomicBool,
}

impl ClockService {
    /// Waits until the wall clock has passed everything that a former life may have handed out, and persists the first bound.
    pub async fn start(
        time: Arc<OsTime>,
        dir: &DataDir,
    ) -> Result<Arc<ClockService>, IdentityError> {
        let former = dir.clock_bounds()?;
        let mut bound = UpperBound::new(former.readings, BOUND_WINDOW);
        let discipline = wait_for_boot(&time, &former).await;
        let (floor, extension) = wait_for_clock(&time, &discipline, &mut bound).await;
        store(dir, &extension, &discipline)?;
        let hlc = Hlc::start(floor, bound.persisted(extension));
        let assumed = CAP_DEFAULT / 2;
        let own = ErrorBound { bound: assumed, source: clock::BoundSource::Assumed };
        let fence = Fence::new(FenceConfig::default());
        Ok(Arc::new(ClockService {
            time,
            discipline,
            hlc,
            cap: CAP_DEFAULT,
            bound: Mutex::new(Some(bound)),
            judgement: Mutex::new(Judgement {
                offsets: OffsetTable::new(SAMPLE_AGE_MAX),
                fence,
                own,
            }),
            uncertainty_micros: AtomicU64::new(micros(CAP_DEFAULT)),
            own_bound_micros: AtomicU64::new(micros(assumed)),
            fenced: AtomicBool::new(false),
        }))
    }

    /// The wall clock without its steps: what peers are told, and what all else here goes by.
    pub fn wall(&self) -> WallTime {
        self.discipline.read(self.time.monotonic())
    }

    /// Our own error bound.
    pub fn own_bound(&self) -> Duration {
        Duration::from_micros(self.own_bound_micros.load(Ordering::Relaxed))
    }

    /// Whether the node has fenced itself.
    pub fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Relaxed)
    }

    /// What is on disk as never reached.
    pub fn persisted_bound(&self) -> Timestamp {
        self.hlc.bound()
    }

    /// Who the peers are.
    pub fn set_peers(&self, peers: impl IntoIterator<Item = NodeId>) {
        self.judgement.lock().offsets.set_peers(peers.into_iter().map(|node| u64::from(node.0)));
    }

    /// A round trip to a peer.
    pub fn measured(&self, peer: NodeId, trip: RoundTrip) {
        self.judgement.lock().offsets.record(u64::from(peer.0), trip);
    }

    /// Judges anew, and says what must be written ([`ClockService::persist`]); to be called every [`LOOK_INTERVAL`].
    /// Both go by one reading of the clock: a leap between two readings would be followed before it was judged.
    pub fn look(&self, now: Monotonic) -> (Change, Due) {
        let (os, before) = (self.time.wall(), self.discipline.read(now));
        let mut judgement = self.judgement.lock();
        let peer_count = judgement.offsets.peer_count();
        let seen_from = |clock| judgement.offsets.estimates(clock, now);
        let pace = pace(&seen_from(before), &seen_from(os), peer_count);
        let mut due = Due::default();
        match self.discipline.look(os, now, self.cap, pace) {
            Followed::Course(_) => {}
            Followed::Wall(step) => {
                warn!(?step, "the wall clock was stepped, and followed at once")
            }
            Followed::Nearer(course) => due.course = Some(course),
        }
        let wall = self.discipline.read(now);
        let off = Duration::from_micros(wall.micros().abs_diff(os.micros()));
        let estimates = judgement.offsets.estimates(wall, now);
        let kernel = match kernel_clock_error() {
            // The kernel speaks of the wall clock.
            Some(error_max) => {
                KernelClock::Synchronised { error_max: error_max.saturating_add(off) }
            }
            None => KernelClock::Unsynchronised,
        };
        let own =
            ErrorBound::of(kernel, &estimates, peer_count, self.hlc.held_back(wall), self.cap);
        judgement.own = own;
        let change = judgement.fence.step(now, &estimates, peer_count, own);
        let spread =
            uncertainty(own, largest_advertised(&estimates, peer_count, self.cap), self.cap);
        self.uncertainty_micros.store(micros(spread), Ordering::Relaxed);
        self.own_bound_micros.store(micros(own.bound), Ordering::Relaxed);
        match (change, judgement.fence.verdict()) {
            (Change::Fenced, Verdict::Fenced { reason, .. }) => {
                self.fenced.store(true, Ordering::Relaxed);
                warn!(%reason, "fenced: this node gives up its leases until its clock agrees again");
            }
            (Change::Returned, _) => {
                self.fenced.store(false, Ordering::Relaxed);
                info!("the clock agrees again: no longer fenced");
            }
            _ => {}
        }
        let leap = judgement.fence.leap();
        let mut bound = self.bound.lock();
        due.extension = bound.as_mut().and_then(|bound| bound.poll(self.hlc.last(), wall, leap));
        (change, due)
    }

    /// Writes what a look has found due. Blocks on the disk: call from a thread that may. After an error the node must stop: what is on
    /// disk is unknown.
    pub fn persist(&self, due: Due, dir: &DataDir) -> Result<(), IdentityError> {
        if let Some(course) = due.course {
            dir.store_clock_bounds(ClockBounds { course: Some(course), ..dir.clock_bounds()? })?;
            info!("the wall clock is nearer to all peers than this node's clock was: followed");
            self.discipline.jump(course);
        }
        if let Some(extension) = due.extension {
            store(dir, &extension, &self.discipline)?;
            if let Some(bound) = self.bound.lock().as_mut() {
                self.hlc.raise(bound.persisted(extension));
            }
        }
        Ok(())
    }

    /// The last act of an orderly stop: no reading is handed out any more, and the next start need not wait.
    pub fn close(&self, dir: &DataDir) -> Result<(), IdentityError> {
        let sealed = self.hlc.seal();
        match self.bound.lock().take().and_then(|bound| bound.close(sealed)) {
            // What was recorded for others stays: their reads may have reached it.
            Some(last) => dir.store_clock_bounds(ClockBounds {
                readings: last,
                recorded: dir.clock_bounds()?.recorded,
                course: Some(self.discipline.course()),
            }),
            None => Ok(()),
        }
    }

    /// For people.
    pub fn report(&self, now: Monotonic) -> ClockReport {
        let judgement = self.judgement.lock();
        let clock = self.discipline.read(now);
        let estimates = judgement.offsets.estimates(clock, now);
        let micros = |wall: WallTime| i64::try_from(wall.micros()).unwrap_or(i64::MAX);
        ClockReport {
            wall_ahead_us: micros(self.time.wall()).saturating_sub(micros(clock)),
            bound: judgement.own.bound,
            uncertainty: self.uncertainty(),
            fenced: judgement.fence.verdict().reason().map(|reason| reason.to_string()),
            peers: estimates
                .into_iter()
                .filter_map(|(peer, estimate)| Some((NodeId(u32::try_from(peer).ok()?), estimate)))
                .collect(),
        }
    }
}

/// A store records read bounds up to the clock's persisted bound, so that one number serves for both.
fn store(
    dir: &DataDir,
    extension: &Extension,
    discipline: &Discipline,
) -> Result<(), IdentityError> {
    let recorded = dir.clock_bounds()?.recorded.max(extension.value());
    let course = Some(discipline.course());
    dir.store_clock_bounds(ClockBounds { readings: extension.value(), recorded, course })
}

/// The clock goes on where the former process left it. After a reboot it waits until the machine has been up for long enough, which most
/// machines have been by then.
async fn wait_for_boot(time: &OsTime, former: &ClockBounds) -> Discipline {
    let lived = former.readings > Timestamp::MIN;
    // A node of before there were courses: as after a reboot.
    let course = former.course.or(lived.then_some(Course { boot: 0, ahead_ns: 0 }));
    loop {
        let now = time.monotonic();
        match Discipline::begin(course, boot_id(), (time.wall(), now), SAMPLE_AGE_MAX) {
            Begin::Ready(discipline) => return discipline,
            Begin::Wait(wait) => {
                info!(
                    ?wait,
                    "the machine was booted just now: waiting until no peer knows its former clock"
                );
                time.sleep_until(now.plus(wait)).await;
            }
        }
    }
}

/// The floor, and the first bound to be persisted, both by one reading of the clock.
async fn wait_for_clock(
    time: &OsTime,
    discipline: &Discipline,
    bound: &mut UpperBound,
) -> (Timestamp, Extension) {
    loop {
        let now = time.monotonic();
        discipline.look(time.wall(), now, CAP_DEFAULT, Pace::Slew);
        let wall = discipline.read(now);
        let wait = match bound.start(wall) {
            Start::Ready { floor } => {
                let extension = bound.poll(ClockTimestamp::MIN, wall, Leap::Follow);
                return (
                    floor,
                    extension.expect("a bound that the wall clock has passed must be extended"),
                );
            }
            Start::Wait(wait) => wait,
            Start::WallBehind(behind) => {
                warn!(
                    ?behind,
                    "the wall clock is far behind the last run's: waiting until it is set right"
                );
                Duration::from_secs(1)
            }
        };
        time.sleep_until(time.monotonic().plus(wait)).await;
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl HlcSource for ClockService {
    fn now(&self) -> ClockTimestamp {
        self.hlc.now(self.wall())
    }

    fn observe(&self, remote: ClockTimestamp) -> Result<(), Timestamp> {
        match self.hlc.observe(self.wall(), remote, self.cap) {
            Ok(_) => Ok(()),
            Err(_) => Err(remote.timestamp()),
        }
    }

    fn uncertainty(&self) -> Duration {
        // After a pause of the process the clock lags behind the wall until its bound is extended: by that much more can others'
        // writes be ahead. On top of the cap, which bounds clocks that are not held back. (The simulator found reads stale by it.)
        let held_back = self.hlc.held_back(self.wall());
        Duration::from_micros(self.uncertainty_micros.load(Ordering::Relaxed))
            .saturating_add(held_back)
    }
}
