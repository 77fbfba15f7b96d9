//! Value: true time, and each machine's own idea of it.
//!
//! True time is one counter of nanoseconds, moved by the world's event loop. A machine's monotonic clock runs from its boot at its own rate; its wall
//! clock has an offset, another rate, and can be stepped or frozen. Sleepers are kept in one list, ordered by true time.
//!
//! ```text
//!   true ns ──┬─► monotonic = from boot, rate (never back)
//!             └─► wall      = epoch + true + offset, drift, steps
//! ```

use clock::{Monotonic, Sleep, TimeSource, WallTime};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

/// Where true time begins on the wall, microseconds since the epoch.
pub const EPOCH_US: u64 = 1_700_000_000_000_000;
const EPOCH_NS: i64 = EPOCH_US as i64 * 1000;
const MILLION: i64 = 1_000_000;
/// An hour of nanoseconds: up to there a rate is taken in 64 bits, which is what nearly every reading needs.
const SHORT_NS: u64 = 3_600_000_000_000;
const _: () = assert!(SHORT_NS < (i64::MAX / (2 * MILLION)) as u64);

/// True time and who sleeps. Clones are the same one.
#[derive(Clone, Default)]
pub struct Truth {
    now: Arc<AtomicU64>,
    timers: Arc<Mutex<Timers>>,
}

#[derive(Default)]
struct Timers {
    last: u64,
    sleepers: BTreeMap<(u64, u64), Waker>,
}

impl Truth {
    /// Nanoseconds since the world began.
    pub fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Moves on; never back.
    pub fn advance_to(&self, to: u64) {
        assert!(to >= self.now(), "true time does not go back");
        self.now.store(to, Ordering::Relaxed);
    }

    /// When the first sleeper is due.
    pub fn next_timer(&self) -> Option<u64> {
        self.timers.lock().sleepers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Wakes the first sleeper. To be called when true time has reached [`Truth::next_timer`].
    pub fn fire_first(&self) {
        let first = self.timers.lock().sleepers.pop_first();
        if let Some((_, waker)) = first {
            waker.wake();
        }
    }
}

/// Clocks of one machine since its boot. Clones are the same clocks.
#[derive(Clone)]
pub struct MachineClock {
    truth: Truth,
    state: Arc<Mutex<Clocks>>,
}

#[derive(Clone, Copy, Debug)]
struct Clocks {
    /// True time of the readings below.
    at: u64,
    monotonic_ns: u64,
    monotonic_ppm: i64,
    wall_ns: i64,
    wall_ppm: i64,
}

impl Clocks {
    fn passed(since: u64, now: u64, ppm: i64) -> i64 {
        let (passed, rate) = (now - since, MILLION + ppm);
        if passed <= SHORT_NS && rate <= 2 * MILLION {
            return passed as i64 * rate / MILLION;
        }
        let passed = i128::from(passed) * i128::from(rate) / i128::from(MILLION);
        i64::try_from(passed).unwrap_or(i64::MAX)
    }

    /// The same clocks, read at `now`.
    fn read(self, now: u64) -> Clocks {
        let monotonic = Clocks::passed(self.at, now, self.monotonic_ppm);
        Clocks {
            at: now,
            monotonic_ns: self.monotonic_ns + u64::try_from(monotonic).unwrap_or(0),
            wall_ns: self.wall_ns + Clocks::passed(self.at, now, self.wall_ppm),
            ..self
        }
    }
}

impl MachineClock {
    /// Right clocks; the monotonic one begins at `monotonic_ns`.
    pub fn new(truth: Truth, monotonic_ns: u64) -> MachineClock {
        let now = truth.now();
        let wall_ns = EPOCH_NS + now as i64;
        let clocks = Clocks { at: now, monotonic_ns, monotonic_ppm: 0, wall_ns, wall_ppm: 0 };
        MachineClock { truth, state: Arc::new(Mutex::new(clocks)) }
    }

    /// The machine boots again: the monotonic clock begins anew, the wall clock goes on.
    #[must_use]
    pub fn reboot(&self, monotonic_ns: u64) -> MachineClock {
        let read = self.state.lock().read(self.truth.now());
        let clocks = Clocks { monotonic_ns, ..read };
        MachineClock { truth: self.truth.clone(), state: Arc::new(Mutex::new(clocks)) }
    }

    /// Rates from now on, parts per million away from true time. `wall_ppm` of minus a million freezes the wall clock.
    pub fn set_rates(&self, monotonic_ppm: i64, wall_ppm: i64) {
        let mut state = self.state.lock();
        *state = Clocks { monotonic_ppm, wall_ppm, ..state.read(self.truth.now()) };
    }

    /// Puts the wall clock this far from true time, microseconds.
    pub fn set_wall_offset_us(&self, offset_us: i64) {
        let now = self.truth.now();
        let mut state = self.state.lock();
        let wall_ns = EPOCH_NS + now as i64 + offset_us * 1000;
        *state = Clocks { wall_ns, ..state.read(now) };
    }

    /// Planted bug: the monotonic clock follows a step of the wall clock, as far as it does not go back.
    pub(crate) fn jump_monotonic_us(&self, step_us: i64) {
        let mut state = self.state.lock();
        let read = state.read(self.truth.now());
        let ahead = u64::try_from(step_us).unwrap_or(0) * 1000;
        *state = Clocks { monotonic_ns: read.monotonic_ns + ahead, ..read };
    }

    /// How far the wall clock is from true time, microseconds.
    pub fn wall_offset_us(&self) -> i64 {
        let now = self.truth.now();
        (self.state.lock().read(now).wall_ns - EPOCH_NS - now as i64) / 1000
    }

    /// The true time at which the monotonic clock will have reached `deadline`, if rates stay as they are.
    pub fn true_time_of(&self, deadline: Monotonic) -> u64 {
        let now = self.truth.now();
        let state = self.state.lock().read(now);
        let Some(ahead) = deadline.nanos().checked_sub(state.monotonic_ns) else { return now };
        let rate = MILLION + state.monotonic_ppm;
        if ahead <= SHORT_NS {
            return now + ((ahead as i64 * MILLION + rate - 1) / rate) as u64;
        }
        let rate = i128::from(rate);
        let nanos = (i128::from(ahead) * i128::from(MILLION) + rate - 1) / rate;
        u64::try_from(i128::from(now) + nanos).unwrap_or(u64::MAX)
    }
}

impl TimeSource for MachineClock {
    fn wall(&self) -> WallTime {
        let nanos = self.state.lock().read(self.truth.now()).wall_ns;
        WallTime::from_micros(u64::try_from(nanos / 1000).unwrap_or(0))
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic::from_nanos(self.state.lock().read(self.truth.now()).monotonic_ns)
    }

    fn sleep_until(&self, deadline: Monotonic) -> Sleep {
        Box::pin(SimSleep { clock: self.clone(), deadline, timer: None })
    }
}

/// Registered from its first poll until it is due or dropped.
struct SimSleep {
    clock: MachineClock,
    deadline: Monotonic,
    timer: Option<(u64, u64)>,
}

impl SimSleep {
    fn forget(&mut self) {
        if let Some(timer) = self.timer.take() {
            let waker = self.clock.truth.timers.lock().sleepers.remove(&timer);
            drop(waker);
        }
    }
}

impl Future for SimSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.forget();
        if self.clock.monotonic() >= self.deadline {
            return Poll::Ready(());
        }
        let due = self.clock.true_time_of(self.deadline).max(self.clock.truth.now() + 1);
        let mut timers = self.clock.truth.timers.lock();
        timers.last += 1;
        let timer = (due, timers.last);
        timers.sleepers.insert(timer, context.waker().clone());
        drop(timers);
        self.timer = Some(timer);
        Poll::Pending
    }
}

impl Drop for SimSleep {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_deadline_is_reached_when_the_drifting_clock_says_so() {
        let truth = Truth::default();
        let clock = MachineClock::new(truth.clone(), 5);
        clock.set_rates(-300, 100);
        let deadline = clock.monotonic().plus(Duration::from_millis(1234));
        let due = clock.true_time_of(deadline);
        truth.advance_to(due - 1);
        assert!(clock.monotonic() < deadline);
        truth.advance_to(due);
        assert!(clock.monotonic() >= deadline);
    }

    #[test]
    fn a_step_moves_the_wall_clock_alone() {
        let truth = Truth::default();
        let clock = MachineClock::new(truth.clone(), 0);
        truth.advance_to(1_000_000_000);
        let before = clock.monotonic();
        clock.set_wall_offset_us(-70_000);
        assert_eq!(clock.monotonic(), before);
        assert_eq!(clock.wall_offset_us(), -70_000);
        let again = clock.reboot(0);
        assert_eq!(again.monotonic(), Monotonic::ZERO);
        assert_eq!(again.wall_offset_us(), -70_000);
    }
}
