//! Driver: the operating system, behind the seams. The only file that reads its clocks, its randomness, or spawns.

use clock::{Monotonic, Sleep, TimeSource, WallTime};
use futures::future::BoxFuture;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use txn::runtime::{Random, Spawn};

/// The OS's clocks. The wall clock can be skewed on purpose (chaos): everything above sees the skewed one.
#[derive(Default)]
pub struct OsTime {
    skew_micros: AtomicI64,
}

impl OsTime {
    /// Adds to every later wall reading, until set again. Zero heals.
    pub fn set_skew_micros(&self, skew: i64) {
        self.skew_micros.store(skew, Ordering::SeqCst);
    }

    /// The injected skew.
    pub fn skew_micros(&self) -> i64 {
        self.skew_micros.load(Ordering::SeqCst)
    }
}

impl TimeSource for OsTime {
    fn wall(&self) -> WallTime {
        let micros = read_clock(libc::CLOCK_REALTIME).as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        WallTime::from_micros(micros.saturating_add_signed(self.skew_micros()))
    }

    fn monotonic(&self) -> Monotonic {
        // BOOTTIME, not MONOTONIC: a lease must not outlive a suspended machine (killer H14).
        let nanos = read_clock(libc::CLOCK_BOOTTIME).as_nanos();
        Monotonic::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    #[allow(clippy::disallowed_methods)]
    fn sleep_until(&self, deadline: Monotonic) -> Sleep {
        let wait = deadline.since(self.monotonic());
        Box::pin(tokio::time::sleep(wait))
    }
}

#[allow(unsafe_code)]
fn read_clock(which: libc::clockid_t) -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime writes one timespec through a valid pointer, and nothing else.
    let failed = unsafe { libc::clock_gettime(which, &mut now) };
    assert!(failed == 0, "this kernel has no clock {which}");
    let seconds = u64::try_from(now.tv_sec).expect("the clock is set to before 1970");
    let nanos = u32::try_from(now.tv_nsec).expect("nanoseconds are below a billion");
    Duration::new(seconds, nanos)
}

/// The kernel's own bound on the wall clock's error; `None` if it does not know (clock not synchronised).
#[allow(unsafe_code)]
pub fn kernel_clock_error() -> Option<Duration> {
    // SAFETY: all-zero is a valid timex: mode 0 asks and changes nothing.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: adjtimex with modes = 0 only fills the struct.
    let status = unsafe { libc::adjtimex(&mut state) };
    if status < 0 || status == libc::TIME_ERROR {
        return None;
    }
    u64::try_from(state.maxerror).ok().map(Duration::from_micros)
}

/// Which boot of the machine this is; zero, which is no boot's, where the kernel does not tell.
pub fn boot_id() -> u128 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0)
}

/// Spawns on a tokio runtime.
pub struct TokioSpawn(pub tokio::runtime::Handle);

impl Spawn for TokioSpawn {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(self.0.spawn(task));
    }
}

/// The OS's randomness.
pub struct OsRandom;

impl Random for OsRandom {
    fn next_u64(&self) -> u64 {
        rand::random()
    }
}
