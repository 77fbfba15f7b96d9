//! Value: how wrong this node's clock can be, and how far a reader must distrust the others.
//!
//! Problem: a reader at timestamp `t` on this node must treat a version above `t` as "perhaps
//! written before I began" for as long as some other clock can be ahead of ours. A configured
//! constant (250 ms) is always right and always slow; the kernel usually knows a bound of a few
//! milliseconds.
//!
//! Idea: each node advertises a bound `b` such that for any two nodes `|clock_i - clock_j| <= b_i +
//! b_j`. Two sources:
//!
//! - the kernel's `maxerror` (`adjtimex`): distance from true time, so two of them add up to the
//!   difference;
//! - measured: the greatest [`OffsetEstimate::at_most`] over *all* peers. It bounds the whole
//!   difference to every peer, so it may stand beside any bound of the other side. It needs every
//!   peer, for a version can come from any of them.
//!
//! The smaller one counts. A kernel bound that a measurement contradicts (the clocks are provably
//! further apart than both sides' bounds) is not believed: a time server can be wrong. Without
//! either, the node's *share* of the cap is assumed, half of it, and the fence watches the cap.
//!
//! HAZARD: if a clock is further off than its bound says, a read can miss a write that was
//! acknowledged just before it began. Staleness; never corruption, never a lost write, and no
//! isolation anomaly.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::offset::OffsetEstimate;

/// Default cap on the difference of two clocks.
pub const CAP_DEFAULT: Duration = Duration::from_millis(250);

/// What the kernel says about the wall clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelClock {
    /// Disciplined by NTP or PTP.
    Synchronised {
        /// The greatest error against true time (`timex.maxerror`).
        error_max: Duration,
    },
    /// `STA_UNSYNC`, or no such call: its `maxerror` says nothing.
    Unsynchronised,
}

/// Where a node's own bound comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BoundSource {
    /// The kernel's `maxerror`.
    Kernel,
    /// Round trips to all peers.
    Measured,
    /// Nothing is known; half of the cap.
    Assumed,
}

/// How wrong this node's clock can be. What it advertises to its peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ErrorBound {
    /// The bound.
    pub bound: Duration,
    /// What it rests on.
    pub source: BoundSource,
}

/// A node's share of the cap: two clocks, each off by its share, just differ by the cap.
pub fn share(cap: Duration) -> Duration {
    cap / 2
}

impl ErrorBound {
    /// This node's bound. `peer_count` is how many peers there are, measured or not; `held_back` is
    /// [`crate::Hlc::held_back`], which comes on top.
    pub fn of(
        kernel: KernelClock,
        estimates: &BTreeMap<u64, OffsetEstimate>,
        peer_count: usize,
        held_back: Duration,
        cap: Duration,
    ) -> ErrorBound {
        let kernel = believed(kernel, estimates);
        let measured = measured(estimates, peer_count);
        let mut own = match (kernel, measured) {
            (Some(k), Some(m)) if m < k => ErrorBound { bound: m, source: BoundSource::Measured },
            (Some(k), _) => ErrorBound { bound: k, source: BoundSource::Kernel },
            // A measurement over long links can be wider than what is assumed without any. It is no
            // reason to fence.
            (None, Some(m)) if m < share(cap) => {
                ErrorBound { bound: m, source: BoundSource::Measured }
            }
            (None, _) => ErrorBound { bound: share(cap), source: BoundSource::Assumed },
        };
        own.bound = own.bound.saturating_add(held_back);
        own
    }
}

/// The kernel's bound, unless it is unsynchronised or a peer proves it wrong. Which of the two
/// clocks is wrong cannot be told here, so neither may rely on its kernel's word.
fn believed(kernel: KernelClock, estimates: &BTreeMap<u64, OffsetEstimate>) -> Option<Duration> {
    match kernel {
        KernelClock::Unsynchronised => None,
        KernelClock::Synchronised { error_max } => {
            let contradicted =
                estimates.values().any(|e| e.at_least() > error_max.saturating_add(e.advertised()));
            (!contradicted).then_some(error_max)
        }
    }
}

fn measured(estimates: &BTreeMap<u64, OffsetEstimate>, peer_count: usize) -> Option<Duration> {
    if estimates.len() < peer_count {
        return None;
    }
    // Without peers there is no other clock, and nothing was measured.
    estimates.values().map(OffsetEstimate::at_most).max()
}

/// The greatest bound that a peer advertises. A peer that is silent may have any: it counts with
/// its share of the cap. Zero without peers.
pub fn largest_advertised(
    estimates: &BTreeMap<u64, OffsetEstimate>,
    peer_count: usize,
    cap: Duration,
) -> Duration {
    let silent = if estimates.len() < peer_count { share(cap) } else { Duration::ZERO };
    estimates.values().map(OffsetEstimate::advertised).max().unwrap_or_default().max(silent)
}

/// How far ahead of ours another node's clock can be: a reader at `t` distrusts versions in `(t, t
/// + uncertainty]`. Never more than `cap`; a node beyond that is fenced.
pub fn uncertainty(own: ErrorBound, largest_advertised: Duration, cap: Duration) -> Duration {
    own.bound.saturating_add(largest_advertised).min(cap)
}
