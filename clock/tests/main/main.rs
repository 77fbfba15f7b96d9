//! The clock's promises, each as a test with a claim for a name. Twins are deliberately dumb.

#[cfg(not(loom))]
mod discipline;
#[cfg(not(loom))]
mod error_bound;
#[cfg(not(loom))]
mod fence;
#[cfg(not(loom))]
mod hlc;
#[cfg(not(loom))]
mod manual;
#[cfg(not(loom))]
mod node_clock;
#[cfg(not(loom))]
mod offset;
#[cfg(not(loom))]
mod skew;
#[cfg(not(loom))]
mod timestamp;
#[cfg(not(loom))]
mod together;
