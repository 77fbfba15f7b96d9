//! Seam: what async code above the KV line needs from outside. Production: tokio and the OS; simulation: one thread, virtual
//! time, one seed.

use clock::{ClockTimestamp, TimeSource};
use futures::future::BoxFuture;
use std::sync::Arc;

/// Starts background work (intent resolution, heartbeats). Production spawns on tokio, the simulator on its own queue.
pub trait Spawn: Send + Sync + 'static {
    /// Runs `task` to its end, some time.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

/// Random bits; seeded in the simulator.
pub trait Random: Send + Sync + 'static {
    /// 64 uniformly random bits.
    fn next_u64(&self) -> u64;
}

/// The node's hybrid logical clock as the gateway uses it.
pub trait HlcSource: Send + Sync + 'static {
    /// A new reading, greater than every earlier one.
    fn now(&self) -> ClockTimestamp;
    /// Absorbs a reading that came with a message; readings too far ahead are refused and not absorbed.
    fn observe(&self, remote: ClockTimestamp) -> Result<(), clock::Timestamp>;
    /// How far another node's clock may be ahead of ours, now (our bound plus the largest advertised, at most the cap).
    fn uncertainty(&self) -> std::time::Duration;
    /// How far our clock lags behind the wall because what it may not reach has not been raised in time: the process was paused, or
    /// its disk stalls. Zero in health, and for clocks that need no such bound.
    fn held_back(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

/// All of it, cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    /// Wall, monotonic, sleep.
    pub time: Arc<dyn TimeSource>,
    /// The node's clock.
    pub hlc: Arc<dyn HlcSource>,
    /// Background work.
    pub spawn: Arc<dyn Spawn>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}
