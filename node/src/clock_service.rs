//! Driver: this node's clock. Gives the machine's clocks to [`clock::NodeClock`], which decides, and writes what that wants durable.
//!
//! HAZARD: everything above relies on [`ClockService::uncertainty`] for freshness only. A clock beyond its bound makes reads stale,
//! never transactions wrong, and the fence ends that.

use clock::{
    Birth, Change, ClockTimestamp, Course, Due, Former, Looked, Monotonic, Newborn, NodeClock,
    NodeClockConfig, OffsetEstimate, Reading, RoundTrip, TimeSource, Timestamp, Verdict, Wait,
    WallTime,
};
use replication::range::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};
use txn::runtime::HlcSource;

use crate::identity::{ClockBounds, DataDir, IdentityError};
use crate::world::{OsTime, boot_id, kernel_clock_error};

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

/// The clock of this node.
pub struct ClockService {
    time: Arc<OsTime>,
    clock: NodeClock,
}

impl ClockService {
    /// Waits until the wall clock has passed everything that a former life may have handed out, and persists the first bound.
    pub async fn start(
        time: Arc<OsTime>,
        dir: &DataDir,
    ) -> Result<Arc<ClockService>, IdentityError> {
        let newborn = wait_for_birth(&time, &dir.clock_bounds()?).await;
        let (bound, course) = newborn.due();
        store(dir, bound, course)?;
        Ok(Arc::new(ClockService { clock: newborn.persisted(), time }))
    }

    /// The wall clock without its steps: what peers are told, and what all else here goes by.
    pub fn wall(&self) -> WallTime {
        self.clock.read(self.time.monotonic())
    }

    /// Our own error bound.
    pub fn own_bound(&self) -> Duration {
        self.clock.own_bound()
    }

    /// Whether the node has fenced itself.
    pub fn is_fenced(&self) -> bool {
        self.clock.verdict() != Verdict::Clear
    }

    /// What is on disk as never reached.
    pub fn persisted_bound(&self) -> Timestamp {
        self.clock.bound()
    }

    /// Who the peers are.
    pub fn set_peers(&self, peers: impl IntoIterator<Item = NodeId>) {
        self.clock.set_peers(peers.into_iter().map(|node| u64::from(node.0)));
    }

    /// A round trip to a peer.
    pub fn measured(&self, peer: NodeId, trip: RoundTrip) {
        self.clock.measured(u64::from(peer.0), trip);
    }

    /// Judges anew, and says what must be written ([`ClockService::persist`]); to be called every [`clock::LOOK_INTERVAL`].
    pub fn look(&self, now: Monotonic) -> (Change, Due) {
        let reading = Reading { wall: self.time.wall(), now };
        let Looked { change, stepped, due } = self.clock.look(reading, kernel_clock_error());
        if let Some(step) = stepped {
            warn!(?step, "the wall clock was stepped, and followed at once");
        }
        match (change, self.clock.verdict().reason()) {
            (Change::Fenced, Some(reason)) => {
                warn!(%reason, "fenced: this node gives up its leases until its clock agrees again");
            }
            (Change::Returned, _) => info!("the clock agrees again: no longer fenced"),
            (Change::Fenced | Change::None, _) => {}
        }
        (change, due)
    }

    /// Writes what a look has found due. Blocks on the disk: call from a thread that may. After an error the node must stop: what is on
    /// disk is unknown.
    pub fn persist(&self, due: Due, dir: &DataDir) -> Result<(), IdentityError> {
        if let Some(course) = due.course {
            dir.store_clock_bounds(ClockBounds { course: Some(course), ..dir.clock_bounds()? })?;
            info!("the wall clock is nearer to all peers than this node's clock was: followed");
            self.clock.follow(course);
        }
        if let Some(extension) = due.extension {
            store(dir, extension.value(), self.clock.course())?;
            self.clock.raise(extension);
        }
        Ok(())
    }

    /// The last act of an orderly stop: no reading is handed out any more, and the next start need not wait.
    pub fn close(&self, dir: &DataDir) -> Result<(), IdentityError> {
        match self.clock.close() {
            // What was recorded for others stays: their reads may have reached it.
            Some(last) => dir.store_clock_bounds(ClockBounds {
                readings: last,
                recorded: dir.clock_bounds()?.recorded,
                course: Some(self.clock.course()),
            }),
            None => Ok(()),
        }
    }

    /// For people.
    pub fn report(&self, now: Monotonic) -> ClockReport {
        let view = self.clock.view(now);
        let micros = |wall: WallTime| i64::try_from(wall.micros()).unwrap_or(i64::MAX);
        ClockReport {
            wall_ahead_us: micros(self.time.wall()).saturating_sub(micros(view.reads)),
            bound: view.own.bound,
            uncertainty: self.uncertainty(),
            fenced: view.verdict.reason().map(|reason| reason.to_string()),
            peers: view
                .peers
                .into_iter()
                .filter_map(|(peer, estimate)| Some((NodeId(u32::try_from(peer).ok()?), estimate)))
                .collect(),
        }
    }
}

/// A store records read bounds up to the clock's persisted bound, so that one number serves for both.
fn store(dir: &DataDir, bound: Timestamp, course: Course) -> Result<(), IdentityError> {
    let recorded = dir.clock_bounds()?.recorded.max(bound);
    dir.store_clock_bounds(ClockBounds { readings: bound, recorded, course: Some(course) })
}

/// Waits until the clock can begin: after a reboot until the machine has been up for long enough, which most machines have been by then;
/// after a crash until the wall clock has passed the bound.
async fn wait_for_birth(time: &OsTime, left: &ClockBounds) -> Box<Newborn> {
    let lived = left.readings > Timestamp::MIN;
    let former = Former {
        bound: left.readings,
        // A node of before there were courses: as after a reboot.
        course: left.course.or(lived.then_some(Course { boot: 0, ahead_ns: 0 })),
    };
    loop {
        let reading = Reading { wall: time.wall(), now: time.monotonic() };
        let config = NodeClockConfig::default();
        let wait = match NodeClock::begin(config, former, boot_id(), reading) {
            Birth::Ready(newborn) => return newborn,
            Birth::Wait(wait) => wait,
        };
        match wait {
            Wait::Booted(wait) => info!(
                ?wait,
                "the machine was booted just now: waiting until no peer knows its former clock"
            ),
            Wait::WallBehind(behind) => warn!(
                ?behind,
                "the wall clock is far behind the last run's: waiting until it is set right"
            ),
            Wait::Bound(_) => {}
        }
        time.sleep_until(time.monotonic().plus(wait.retry_after())).await;
    }
}

impl HlcSource for ClockService {
    fn now(&self) -> ClockTimestamp {
        self.clock.now(self.time.monotonic())
    }

    fn observe(&self, remote: ClockTimestamp) -> Result<(), Timestamp> {
        self.clock.observe(self.time.monotonic(), remote).map_err(|_| remote.timestamp())
    }

    fn uncertainty(&self) -> Duration {
        self.clock.uncertainty(self.time.monotonic())
    }

    fn held_back(&self) -> Duration {
        self.clock.held_back(self.time.monotonic())
    }
}
