//! Seam: where time comes from. Production reads the OS (node/src/world.rs); the simulator hands out virtual time with
//! drift, steps and freezes per node.

use std::future::Future;
use std::pin::Pin;

use crate::{Monotonic, WallTime};

/// Resolves when the monotonic clock has reached the asked-for reading.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One node's clocks. Wall and monotonic time are independent: faults move them apart.
pub trait TimeSource: Send + Sync + 'static {
    /// The wall clock. May jump both ways.
    fn wall(&self) -> WallTime;
    /// The monotonic clock. Counts suspended time; never goes back.
    fn monotonic(&self) -> Monotonic;
    /// A future that is ready once `monotonic() >= deadline`. Never blocks a thread.
    fn sleep_until(&self, deadline: Monotonic) -> Sleep;
}
