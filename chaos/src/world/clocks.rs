//! Driver: the clock of one simulated process: its machine's clocks in front of [`clock::NodeClock`], which decides, as on a real node.

use clock::{
    ClockTimestamp, Course, Extension, Looked, Monotonic, NodeClock, Reading, RoundTrip,
    TimeSource, Timestamp, Verdict, WallTime,
};
use replication::range::NodeId;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use txn::runtime::HlcSource;

use super::time::MachineClock;

/// See the module.
pub struct ProcessClock {
    /// The machine's clocks.
    pub time: MachineClock,
    clock: NodeClock,
    refused: AtomicU64,
}

impl ProcessClock {
    /// On a machine with these clocks.
    pub fn new(time: MachineClock, clock: NodeClock) -> ProcessClock {
        ProcessClock { time, clock, refused: AtomicU64::new(0) }
    }

    /// Who the peers are.
    pub fn set_peers(&self, peers: impl IntoIterator<Item = NodeId>) {
        self.clock.set_peers(peers.into_iter().map(|node| u64::from(node.0)));
    }

    /// A round trip to a peer.
    pub fn measured(&self, peer: NodeId, trip: RoundTrip) {
        self.clock.measured(u64::from(peer.0), trip);
    }

    /// Judges anew; see [`NodeClock::look`].
    pub fn look(&self) -> Looked {
        self.clock.look(reading(&self.time), None)
    }

    /// The course is durable.
    pub fn follow(&self, course: Course) {
        self.clock.follow(course);
    }

    /// The extension is durable.
    pub fn raise(&self, extension: Extension) {
        self.clock.raise(extension);
    }

    /// The last act of an orderly stop: what the next start must be above, if that is known.
    pub fn close(&self) -> Option<Timestamp> {
        self.clock.close()
    }

    /// The wall clock without its steps.
    pub fn wall(&self) -> WallTime {
        self.clock.read(self.monotonic())
    }

    /// Where it is, for the next life.
    pub fn course(&self) -> Course {
        self.clock.course()
    }

    /// Whether the process relies on it.
    pub fn is_clear(&self) -> bool {
        self.clock.verdict() == Verdict::Clear
    }

    /// What no reading of this process reaches.
    pub fn bound(&self) -> Timestamp {
        self.clock.bound()
    }

    /// This node's own error bound.
    pub fn own_bound(&self) -> Duration {
        self.clock.own_bound()
    }

    /// The last reading.
    pub fn last(&self) -> ClockTimestamp {
        self.clock.last()
    }

    /// Messages refused because their clock was too far ahead.
    pub fn refused_count(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Monotonic {
        self.time.monotonic()
    }
}

/// Both clocks of a machine, now.
pub fn reading(time: &MachineClock) -> Reading {
    Reading { wall: time.wall(), now: time.monotonic() }
}

impl HlcSource for ProcessClock {
    fn now(&self) -> ClockTimestamp {
        self.clock.now(self.monotonic())
    }

    fn observe(&self, remote: ClockTimestamp) -> Result<(), Timestamp> {
        self.clock.observe(self.monotonic(), remote).map_err(|_| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            remote.timestamp()
        })
    }

    fn uncertainty(&self) -> Duration {
        self.clock.uncertainty(self.monotonic())
    }

    fn held_back(&self) -> Duration {
        self.clock.held_back(self.monotonic())
    }
}
