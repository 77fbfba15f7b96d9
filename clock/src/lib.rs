//! Time: hybrid logical clocks, how wrong they can be, and what follows from that.
//!
//! May be imported by every crate; imports none of ours. No I/O, no threads, and no clock of its
//! own: the wall clock and the monotonic clock are arguments everywhere, and come from a
//! [`TimeSource`].
//!
//! # Entry points
//!
//! | what | room |
//! |---|---|
//! | [`NodeClock`]: all of what follows, led in the right order; what a driver uses | `node_clock` |
//! | [`Timestamp`], [`ClockTimestamp`], [`WallTime`], [`Monotonic`], [`Now`]: points in time, and who may push a clock | `timestamp` |
//! | [`TimeSource`]: the seam to the operating system or the simulator; [`ManualTime`]: one for tests | `source`, `manual` |
//! | [`Discipline`]: the wall clock without its steps, on which all else goes | `discipline` |
//! | [`Hlc`]: the process's clock, lock-free | `hlc` |
//! | [`UpperBound`]: the bound on disk that makes a restart safe | `upper_bound` |
//! | [`OffsetTable`]: the peers' clocks, from round trips | `offset` |
//! | [`ErrorBound`], [`uncertainty`]: how far a reader must distrust the others | `error_bound` |
//! | [`Fence`]: whether this node's clock may be relied on | `fence` |
//!
//! # How they fit
//!
//! ```text
//!   wall, monotonic ──► Discipline ──┬─────────────────┐   (what is called `wall` from here on)
//!                     ┌──────────────┘                 │
//!                     v                                v
//!   messages ──► Hlc::observe          replies ──► OffsetTable ──► estimates ──┬──► ErrorBound ──► uncertainty, advertised
//!                Hlc::now ──► Now                                              │        │
//!                  ^   │                                                       └──► Fence ◄──┘
//!            raise │   │ last                                                        │
//!               UpperBound ◄──────────────────────── leap ───────────────────────────┘──► leases, SHOW CLOCKS
//!                  │   ^
//!                disk ─┘
//! ```
//!
//! The life of a clock, as a driver leads it (`disk` stands for a write and its sync):
//!
//! ```
//! use clock::*;
//! # fn disk<T>(_: T) {}
//! # let time = ManualTime::new(WallTime::from_micros(1_700_000_000_000_000));
//! # let former = Former { bound: Timestamp::MIN, course: None };
//! # let (boot, from_peer) = (1, ClockTimestamp::MIN);
//! let read = || Reading { wall: time.wall(), now: time.monotonic() };
//! let clock = match NodeClock::begin(NodeClockConfig::default(), former, boot, read()) {
//!     Birth::Ready(newborn) => {
//!         disk(newborn.due());
//!         newborn.persisted()
//!     }
//!     Birth::Wait(wait) => return /* ask again after wait.retry_after() */,
//! };
//!
//! // With every message, from any thread:
//! if let Err(refused) = clock.observe(time.monotonic(), from_peer) {
//!     /* drop the message, count it */
//! }
//! Now { clock: clock.now(time.monotonic()), monotonic: time.monotonic() };
//!
//! // Every LOOK_INTERVAL, in one place:
//! let Looked { change, due, .. } = clock.look(read(), None);
//! /* tell the leases of `change` */
//! if let Some(course) = due.course {
//!     disk(course);
//!     clock.follow(course);
//! }
//! if let Some(more) = due.extension {
//!     disk((more.value(), clock.course()));
//!     clock.raise(more);
//! }
//!
//! // At an orderly end:
//! if let Some(value) = clock.close() {
//!     disk((value, clock.course()));
//! }
//! ```
//!
//! # Invariants
//!
//! - Serializability never rests on clocks. What is at stake here is freshness alone, and each
//!   HAZARD says so.
//! - A reading of this node is never repeated, not by its next life either (`hlc`, `upper_bound`).
//! - A reading beyond the cap is refused and leaves no trace (`hlc`).
//! - Durations are measured on the monotonic clock only, which counts suspended time.
//! - No clock that a peer has measured moves away from that by more than the measurement allows for, but beyond the
//!   cap (`discipline`).
//!
//! # Gotchas
//!
//! - [`Timestamp`] cannot be turned into a [`ClockTimestamp`]. If you need to, you are about to
//!   poison a clock.
//! - [`OffsetTable`] wants the peer's disciplined clock, not its HLC.
//! - Built with `--cfg loom` the crate's atomics work inside of `loom::model` only:
//!   `RUSTFLAGS="--cfg loom" cargo test -p clock --release --lib`, in a target directory of its
//!   own.

mod discipline;
mod error_bound;
mod fence;
mod hlc;
mod manual;
mod node_clock;
mod offset;
mod source;
mod sync;
mod timestamp;
mod upper_bound;

pub use discipline::{Begin, Course, Discipline, Followed, Pace, SLEW_PPM, pace};
pub use error_bound::{
    BoundSource, CAP_DEFAULT, ErrorBound, KernelClock, largest_advertised, share, uncertainty,
};
pub use fence::{Change, Fence, FenceConfig, FenceReason, Verdict};
pub use hlc::{ClockStopped, FarAhead, Hlc, RESERVE, Refused};
pub use manual::ManualTime;
pub use node_clock::{
    Birth, ClockView, Due, Former, LOOK_INTERVAL, Looked, Newborn, NodeClock, NodeClockConfig,
    PlantedBug, Reading, Wait,
};
pub use offset::{
    AGE_MAX_DEFAULT, DRIFT_PPM, OffsetEstimate, OffsetTable, RoundTrip, SAMPLES_MAX,
    median_ahead_us,
};
pub use source::{Sleep, TimeSource};
pub use timestamp::{ClockTimestamp, LOGICAL_BITS, Monotonic, Now, Timestamp, WallTime};
pub use upper_bound::{
    Extension, Leap, PersistedBound, Start, UpperBound, WINDOW_DEFAULT, WINDOW_MIN,
};
