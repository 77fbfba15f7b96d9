//! Value: clocks that move only when they are told to. For tests and the simulator; never in a real
//! node.
//!
//! Wall and monotonic time are set independently, so that steps, freezes and drift of the wall
//! clock can be played. Sleepers are woken in the order of their deadlines, and of equal ones in
//! the order in which they were first polled: the same script gives the same order.
//!
//! [`ManualTime::advance`] goes straight to its target; sleepers in between see the target, as
//! after a pause. A simulator that wants each sleeper to see its own deadline goes in steps, with
//! [`ManualTime::next_deadline`].

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::source::{Sleep, TimeSource};
use crate::timestamp::{Monotonic, WallTime};

/// One node's clocks, moved by hand. Clones are the same clocks.
#[derive(Clone)]
pub struct ManualTime {
    shared: Arc<Mutex<Clocks>>,
}

struct Clocks {
    wall: WallTime,
    monotonic: Monotonic,
    next_sleeper: u64,
    sleepers: BTreeMap<(Monotonic, u64), Waker>,
}

impl ManualTime {
    /// Clocks that stand at `wall` and at monotonic zero.
    pub fn new(wall: WallTime) -> ManualTime {
        let clocks =
            Clocks { wall, monotonic: Monotonic::ZERO, next_sleeper: 0, sleepers: BTreeMap::new() };
        ManualTime { shared: Arc::new(Mutex::new(clocks)) }
    }

    /// Moves both clocks, and wakes whoever is due.
    pub fn advance(&self, by: Duration) {
        let mut clocks = self.lock();
        clocks.wall = clocks.wall.plus(by);
        let target = clocks.monotonic.plus(by);
        self.wake_up_to(clocks, target);
    }

    /// Moves the monotonic clock alone, as if the wall clock were frozen, and wakes whoever is due.
    pub fn advance_monotonic(&self, by: Duration) {
        let clocks = self.lock();
        let target = clocks.monotonic.plus(by);
        self.wake_up_to(clocks, target);
    }

    /// Sets the wall clock alone; forwards or back. Wakes nobody.
    pub fn set_wall(&self, wall: WallTime) {
        self.lock().wall = wall;
    }

    /// Steps the wall clock alone by a signed number of microseconds, saturating. Wakes nobody.
    pub fn step_wall_us(&self, by: i64) {
        let mut clocks = self.lock();
        clocks.wall = WallTime::from_micros(clocks.wall.micros().saturating_add_signed(by));
    }

    /// The earliest deadline that somebody sleeps for.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        self.lock().sleepers.keys().next().map(|(deadline, _)| *deadline)
    }

    /// How many sleepers have been polled and are not yet due.
    pub fn sleeper_count(&self) -> usize {
        self.lock().sleepers.len()
    }

    fn wake_up_to(&self, mut clocks: MutexGuard<'_, Clocks>, target: Monotonic) {
        clocks.monotonic = target;
        let later = clocks.sleepers.split_off(&(target, u64::MAX));
        let due = std::mem::replace(&mut clocks.sleepers, later);
        // A waker may run its task at once, and the task may ask these clocks.
        drop(clocks);
        due.into_values().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Clocks> {
        // Every critical section leaves the clocks valid at each step, so a panic elsewhere does
        // not spoil them.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ManualTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clocks = self.lock();
        f.debug_struct("ManualTime")
            .field("wall", &clocks.wall)
            .field("monotonic", &clocks.monotonic)
            .field("sleepers", &clocks.sleepers.len())
            .finish()
    }
}

impl TimeSource for ManualTime {
    fn wall(&self) -> WallTime {
        self.lock().wall
    }

    fn monotonic(&self) -> Monotonic {
        self.lock().monotonic
    }

    fn sleep_until(&self, deadline: Monotonic) -> Sleep {
        Box::pin(ManualSleep { time: self.clone(), deadline, id: None })
    }
}

/// Registered from its first poll until it is due or dropped.
struct ManualSleep {
    time: ManualTime,
    deadline: Monotonic,
    id: Option<u64>,
}

impl Future for ManualSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let time = self.time.clone();
        let mut clocks = time.lock();
        if clocks.monotonic >= self.deadline {
            return Poll::Ready(());
        }
        let id = *self.id.get_or_insert(clocks.next_sleeper);
        clocks.next_sleeper = clocks.next_sleeper.max(id + 1);
        clocks.sleepers.insert((self.deadline, id), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for ManualSleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.time.lock().sleepers.remove(&(self.deadline, id));
        }
    }
}
