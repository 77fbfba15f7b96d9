//! Machine: whether this node's clock may be relied on.
//!
//! Problem: a clock beyond the cap makes reads stale without anybody noticing (killer H13).
//! Stopping the node, as others do, turns a wrong time server into an outage. Not noticing is
//! worse.
//!
//! Idea: the node *fences itself*. A fenced node gives up its leases and strong reads, goes on with
//! everything that does not depend on the clock (replication, available tables), and returns by
//! itself. Two reasons:
//!
//! - **Disagrees**: among the clocks whose standing is known, ours included, those that agree with
//!   ours are no majority. A peer disagrees when it is *provably* at least `fence_percent` of the
//!   cap away (estimate minus its error), and agrees when its estimate is nearer than that. In
//!   between (a long round trip) it has no vote.
//! - **Own bound**: the node's own error bound is over its share of the cap.
//!
//! ```text
//!                         disagrees by 80 %, or own bound > share
//!        +--------+ ---------------------------------------------> +----------+
//!        | Clear  |                                                |  Fenced  |
//!        +--------+ <--------------------------------------------- +----------+
//!                    agrees by 50 %, own bound <= share, for `calm`
//! ```
//!
//! # The cases
//!
//! - *One node*: there is no other clock to differ from. Only its own bound can fence it.
//! - *Two nodes* that disagree: nobody can tell who is wrong, each is one of two. Both fence.
//!   Freshness before availability.
//! - *Three nodes, one wrong*: the wrong one has two against one and fences; the others have two
//!   for one and stay clear. If one of the good ones is down, the other one is in the case of two
//!   nodes.
//! - *Stale samples*: the table leaves them out, they have no vote. Silence alone fences nobody: a
//!   node cut off from its quorum has no leases to be wrong with. But silence is no proof of
//!   health: a node fenced for disagreement stays fenced until somebody agrees with it again (or it
//!   has no peers any more).
//! - *Our own wall clock steps*: all offsets move with it at once, see [`crate::OffsetTable`]. No
//!   message is needed.
//! - *The process was asleep*: time in which nobody looked is not calm time. It starts again.
//!
//! # Invariants
//!
//! - All times are monotonic; a wall clock that jumps cannot end or prolong the calm time (H14).
//! - The reason that is shown is the one that holds now, or the last one that held.
//!
//! Honest limits: it takes one round trip to see that a peer's clock has moved; when a majority is
//! wrong in the same direction, the minority fences.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::error_bound::{CAP_DEFAULT, ErrorBound, share};
use crate::offset::{OffsetEstimate, median_ahead_us};
use crate::timestamp::Monotonic;
use crate::upper_bound::Leap;

/// Parameters of the fence. All may be shrunk by the simulator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FenceConfig {
    /// Cap on the difference of two clocks. Default 250 ms.
    pub cap: Duration,
    /// A peer disagrees from this part of the cap on. Default 80.
    pub fence_percent: u32,
    /// A fenced node returns when the disagreement is below this part of the cap. Default 50.
    pub return_percent: u32,
    /// For how long it must be below. Default 5 s. Steps must come more often than that.
    pub calm: Duration,
}

impl Default for FenceConfig {
    fn default() -> FenceConfig {
        FenceConfig {
            cap: CAP_DEFAULT,
            fence_percent: 80,
            return_percent: 50,
            calm: Duration::from_secs(5),
        }
    }
}

/// Why a node is fenced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FenceReason {
    /// The clocks that agree with ours are no majority.
    Disagrees {
        /// Peers that provably disagree.
        against: usize,
        /// Clocks that agree, ours included.
        agreeing: usize,
        /// How far the peers' median is ahead of our wall clock, in microseconds.
        median_ahead_us: i64,
    },
    /// The own error bound is over its share of the cap.
    OwnBound {
        /// The own bound.
        bound: Duration,
        /// The share.
        share: Duration,
    },
}

impl fmt::Display for FenceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FenceReason::Disagrees { against, agreeing, median_ahead_us } => write!(
                f,
                "clock disagrees with {against} of {} known clocks, their median is {:+.3} ms ahead",
                against + agreeing,
                *median_ahead_us as f64 / 1000.0
            ),
            FenceReason::OwnBound { bound, share } => write!(
                f,
                "clock error bound {:.3} ms is over this node's share {:.3} ms",
                bound.as_secs_f64() * 1000.0,
                share.as_secs_f64() * 1000.0
            ),
        }
    }
}

/// What the fence says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The clock may be relied on, as far as is known.
    Clear,
    /// It may not: no leases, no strong reads.
    Fenced {
        /// Since when.
        since: Monotonic,
        /// Why.
        reason: FenceReason,
    },
}

impl Verdict {
    /// The reason, if fenced.
    pub const fn reason(&self) -> Option<FenceReason> {
        match self {
            Verdict::Clear => None,
            Verdict::Fenced { reason, .. } => Some(*reason),
        }
    }
}

/// What a step has changed, for the driver to act on and to log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Nothing, or only the details of the reason.
    None,
    /// The node is fenced from now on: give up the leases.
    Fenced,
    /// The node is clear again.
    Returned,
}

/// The fence's machine. One per node.
#[derive(Clone, Debug)]
pub struct Fence {
    config: FenceConfig,
    verdict: Verdict,
    calm_since: Option<Monotonic>,
    stepped: Monotonic,
}

/// How the known clocks stand to ours at one threshold.
#[derive(Clone, Copy)]
struct Votes {
    against: usize,
    /// Peers only.
    agreeing: usize,
}

impl Votes {
    fn count(estimates: &BTreeMap<u64, OffsetEstimate>, threshold: Duration) -> Votes {
        Votes {
            against: estimates.values().filter(|e| e.at_least() >= threshold).count(),
            agreeing: estimates.values().filter(|e| e.distance() < threshold).count(),
        }
    }

    fn outvoted(self) -> bool {
        self.against > self.agreeing
    }
}

impl Fence {
    /// A fence that is clear: nothing is known against the clock yet.
    ///
    /// # Panics
    /// If the percentages are not `0 < return <= fence <= 100`.
    pub fn new(config: FenceConfig) -> Fence {
        assert!(config.return_percent > 0, "a fenced node could never return");
        assert!(config.return_percent <= config.fence_percent, "no hysteresis");
        assert!(config.fence_percent <= 100, "the fence is beyond the cap");
        Fence { config, verdict: Verdict::Clear, calm_since: None, stepped: Monotonic::ZERO }
    }

    /// The present verdict.
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// What [`crate::UpperBound::poll`] shall do with a wall clock beyond the bound. While the
    /// peers agree again (the calm time), the wall clock is followed again.
    pub const fn leap(&self) -> Leap {
        match (self.verdict.reason(), self.calm_since) {
            (Some(FenceReason::Disagrees { median_ahead_us, .. }), None) => {
                Leap::Hold { ahead_us: median_ahead_us }
            }
            (Some(FenceReason::Disagrees { .. }), Some(_))
            | (Some(FenceReason::OwnBound { .. }) | None, _) => Leap::Follow,
        }
    }

    /// Judges anew. To be called after every round trip and at least once a second: `estimates`
    /// must be made with the wall clock of now, `peer_count` is how many peers there are, measured
    /// or not.
    pub fn step(
        &mut self,
        now: Monotonic,
        estimates: &BTreeMap<u64, OffsetEstimate>,
        peer_count: usize,
        own: ErrorBound,
    ) -> Change {
        let asleep = now.since(self.stepped) > self.config.calm;
        self.stepped = now;
        let trouble = self.trouble(estimates, own);
        match self.verdict {
            Verdict::Clear => match trouble {
                None => Change::None,
                Some(reason) => {
                    self.verdict = Verdict::Fenced { since: now, reason };
                    self.calm_since = None;
                    Change::Fenced
                }
            },
            Verdict::Fenced { since, reason } => {
                let reason = trouble.unwrap_or(reason);
                self.verdict = Verdict::Fenced { since, reason };
                let calm = trouble.is_none() && self.is_calm(reason, estimates, peer_count);
                self.calm_since = match self.calm_since {
                    _ if !calm => None,
                    Some(start) if !asleep => Some(start),
                    Some(_) | None => Some(now),
                };
                match self.calm_since {
                    Some(start) if now.since(start) >= self.config.calm => {
                        self.verdict = Verdict::Clear;
                        self.calm_since = None;
                        Change::Returned
                    }
                    Some(_) | None => Change::None,
                }
            }
        }
    }

    fn trouble(
        &self,
        estimates: &BTreeMap<u64, OffsetEstimate>,
        own: ErrorBound,
    ) -> Option<FenceReason> {
        let votes = Votes::count(estimates, self.part_of_cap(self.config.fence_percent));
        let share = share(self.config.cap);
        if votes.outvoted() {
            Some(FenceReason::Disagrees {
                against: votes.against,
                agreeing: votes.agreeing + 1,
                median_ahead_us: median_ahead_us(estimates),
            })
        } else if own.bound > share {
            Some(FenceReason::OwnBound { bound: own.bound, share })
        } else {
            None
        }
    }

    fn is_calm(
        &self,
        reason: FenceReason,
        estimates: &BTreeMap<u64, OffsetEstimate>,
        peer_count: usize,
    ) -> bool {
        let votes = Votes::count(estimates, self.part_of_cap(self.config.return_percent));
        let vouched = votes.agreeing > 0 || peer_count == 0;
        match reason {
            FenceReason::Disagrees { .. } => vouched && !votes.outvoted(),
            FenceReason::OwnBound { .. } => !votes.outvoted(),
        }
    }

    fn part_of_cap(&self, percent: u32) -> Duration {
        self.config.cap * percent / 100
    }
}
