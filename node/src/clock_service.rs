//! Driver: this node's clock. Reads the OS through the seam, keeps the persisted bound ahead of the clock, measures peers, and asks
//! the fence for its verdict. The decisions are `clock`'s.
//!
//! HAZARD: everything above relies on [`ClockService::uncertainty`] for freshness only. A clock beyond its bound makes reads stale,
//! never transactions wrong, and the fence ends that.

use clock::{
    CAP_DEFAULT, Change, ClockTimestamp, ErrorBound, Extension, Fence, FenceConfig, Hlc,
    KernelClock, Leap, Monotonic, OffsetEstimate, OffsetTable, RoundTrip, Start, TimeSource,
    Timestamp, UpperBound, Verdict, largest_advertised, uncertainty,
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
use crate::world::{OsTime, kernel_clock_error};

/// How far ahead of the clock its persisted bound is kept. A restart after a crash waits up to this long.
const BOUND_WINDOW: Duration = Duration::from_secs(4);
/// Measurements older than this say nothing.
const SAMPLE_AGE_MAX: Duration = Duration::from_secs(10);
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
    /// Peers' clocks as we see them.
    pub peers: BTreeMap<NodeId, OffsetEstimate>,
}

struct Judgement {
    offsets: OffsetTable,
    fence: Fence,
    own: ErrorBound,
}

/// The clock of this node.
pub struct ClockService {
    time: Arc<OsTime>,
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
        let (floor, extension) = wait_for_wall(&time, &mut bound).await;
        store(dir, &extension)?;
        let hlc = Hlc::start(floor, bound.persisted(extension));
        let assumed = CAP_DEFAULT / 2;
        let own = ErrorBound { bound: assumed, source: clock::BoundSource::Assumed };
        let fence = Fence::new(FenceConfig::default());
        Ok(Arc::new(ClockService {
            time,
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

    /// Judges anew, and says whether the persisted bound must be extended; to be called every [`LOOK_INTERVAL`].
    /// Both go by one reading of the wall clock: a leap between two readings would be followed before it was judged.
    pub fn look(&self, now: Monotonic) -> (Change, Option<Extension>) {
        let wall = self.time.wall();
        let mut judgement = self.judgement.lock();
        let estimates = judgement.offsets.estimates(wall, now);
        let peer_count = judgement.offsets.peer_count();
        let kernel = match kernel_clock_error() {
            Some(error_max) => KernelClock::Synchronised { error_max },
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
        (
            change,
            self.bound.lock().as_mut().and_then(|bound| bound.poll(self.hlc.last(), wall, leap)),
        )
    }

    /// Writes an extension. Blocks on the disk: call from a thread that may. After an error the node must stop: what is on disk
    /// is unknown.
    pub fn extend_bound(&self, extension: Extension, dir: &DataDir) -> Result<(), IdentityError> {
        store(dir, &extension)?;
        if let Some(bound) = self.bound.lock().as_mut() {
            self.hlc.raise(bound.persisted(extension));
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
            }),
            None => Ok(()),
        }
    }

    /// For people.
    pub fn report(&self, now: Monotonic) -> ClockReport {
        let judgement = self.judgement.lock();
        let estimates = judgement.offsets.estimates(self.time.wall(), now);
        ClockReport {
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
fn store(dir: &DataDir, extension: &Extension) -> Result<(), IdentityError> {
    let recorded = dir.clock_bounds()?.recorded.max(extension.value());
    dir.store_clock_bounds(ClockBounds { readings: extension.value(), recorded })
}

/// The floor, and the first bound to be persisted, both by one reading of the wall clock.
async fn wait_for_wall(time: &OsTime, bound: &mut UpperBound) -> (Timestamp, Extension) {
    loop {
        let wall = time.wall();
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
        self.hlc.now(self.time.wall())
    }

    fn observe(&self, remote: ClockTimestamp) -> Result<(), Timestamp> {
        match self.hlc.observe(self.time.wall(), remote, self.cap) {
            Ok(_) => Ok(()),
            Err(_) => Err(remote.timestamp()),
        }
    }

    fn uncertainty(&self) -> Duration {
        // After a pause of the process the clock lags behind the wall until its bound is extended: by that much more can others'
        // writes be ahead. On top of the cap, which bounds clocks that are not held back. (The simulator found reads stale by it.)
        let held_back = self.hlc.held_back(self.time.wall());
        Duration::from_micros(self.uncertainty_micros.load(Ordering::Relaxed))
            .saturating_add(held_back)
    }
}
