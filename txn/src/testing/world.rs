//! Driver: one thread, virtual time, one seed. Which of several ready tasks goes next is drawn from the seed, so that many seeds
//! try many interleavings; when no task is ready, time moves to the next sleeper.

use clock::{ClockTimestamp, Hlc, ManualTime, TimeSource, Timestamp, WallTime};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::runtime::{HlcSource, Random, Runtime, Spawn};

/// Where virtual time begins, in microseconds since the epoch.
const EPOCH_US: u64 = 1_700_000_000_000_000;
/// How far ahead of ours a clock may be that is absorbed.
const CLOCK_CAP: Duration = Duration::from_millis(250);
/// The future given to [`World::block_on`].
const MAIN: u64 = 0;

/// A deterministic runtime. Clones are the same one.
#[derive(Clone)]
pub struct World {
    time: ManualTime,
    hlc: Arc<WorldClock>,
    tasks: Arc<Tasks>,
    random: Arc<Seeded>,
}

impl World {
    /// A world of its own, wholly determined by `seed` and by what is run in it. Clocks agree: no uncertainty.
    pub fn new(seed: u64) -> World {
        World::with_uncertainty(seed, Duration::ZERO)
    }

    /// As [`World::new`]; readers must expect that other clocks are ahead by up to `uncertainty`.
    pub fn with_uncertainty(seed: u64, uncertainty: Duration) -> World {
        let time = ManualTime::new(WallTime::from_micros(EPOCH_US));
        World {
            hlc: Arc::new(WorldClock { hlc: Hlc::unbounded(), time: time.clone(), uncertainty }),
            tasks: Arc::new(Tasks::default()),
            random: Arc::new(Seeded { state: Mutex::new(seed) }),
            time,
        }
    }

    /// Its seams.
    pub fn runtime(&self) -> Runtime {
        Runtime {
            time: Arc::new(self.time.clone()),
            hlc: self.hlc.clone(),
            spawn: self.tasks.clone(),
            random: self.random.clone(),
        }
    }

    /// Its clocks, to be moved by hand.
    pub fn time(&self) -> &ManualTime {
        &self.time
    }

    /// Starts a task; it runs while somebody is in [`World::block_on`] or [`World::settle`].
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(Box::pin(task));
    }

    /// Runs `main` to its end, and spawned tasks meanwhile. Not to be nested.
    ///
    /// # Panics
    /// If nothing can go on any more: `main` waits for something that will not happen.
    pub fn block_on<F: Future>(&self, main: F) -> F::Output {
        let mut main = pin!(main);
        self.tasks.wake(MAIN);
        loop {
            match self.tasks.next_ready(&self.random) {
                Some(MAIN) => {
                    let waker = self.tasks.waker(MAIN);
                    if let Poll::Ready(output) =
                        main.as_mut().poll(&mut Context::from_waker(&waker))
                    {
                        return output;
                    }
                }
                Some(id) => self.tasks.poll(id),
                None => {
                    assert!(self.advance(), "nothing can go on: everybody waits, nobody sleeps")
                }
            }
        }
    }

    /// Runs spawned tasks, moving time on, until all have ended or `limit` of virtual time has passed.
    pub fn settle(&self, limit: Duration) {
        let end = self.time.monotonic().plus(limit);
        loop {
            match self.tasks.next_ready(&self.random) {
                Some(MAIN) => {}
                Some(id) => self.tasks.poll(id),
                None => {
                    if self.time.next_deadline().is_none_or(|next| next > end) || !self.advance() {
                        return;
                    }
                }
            }
        }
    }

    /// Moves time to the next sleeper; `false` if there is none.
    fn advance(&self) -> bool {
        let Some(next) = self.time.next_deadline() else { return false };
        self.time.advance(next.since(self.time.monotonic()));
        true
    }
}

struct WorldClock {
    hlc: Hlc,
    time: ManualTime,
    uncertainty: Duration,
}

impl HlcSource for WorldClock {
    fn now(&self) -> ClockTimestamp {
        self.hlc.now(self.time.wall())
    }

    fn observe(&self, remote: ClockTimestamp) -> Result<(), Timestamp> {
        match self.hlc.observe(self.time.wall(), remote, CLOCK_CAP) {
            Ok(_) => Ok(()),
            Err(_) => Err(remote.timestamp()),
        }
    }

    fn uncertainty(&self) -> Duration {
        self.uncertainty
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Seeded {
    state: Mutex<u64>,
}

impl Random for Seeded {
    fn next_u64(&self) -> u64 {
        let mut state = self.state.lock();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[derive(Default)]
struct Tasks {
    state: Arc<Mutex<TaskState>>,
}

#[derive(Default)]
struct TaskState {
    next: u64,
    tasks: BTreeMap<u64, BoxFuture<'static, ()>>,
    ready: Vec<u64>,
}

impl Spawn for Tasks {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let mut state = self.state.lock();
        state.next += 1;
        let id = state.next;
        state.tasks.insert(id, task);
        state.ready.push(id);
    }
}

impl Tasks {
    fn wake(&self, id: u64) {
        wake(&self.state, id);
    }

    fn waker(&self, id: u64) -> Waker {
        Waker::from(Arc::new(TaskWaker { id, state: self.state.clone() }))
    }

    fn next_ready(&self, random: &Seeded) -> Option<u64> {
        let mut state = self.state.lock();
        let count = state.ready.len() as u64;
        if count == 0 {
            return None;
        }
        let index = if count == 1 { 0 } else { random.next_u64() % count };
        Some(state.ready.remove(usize::try_from(index).expect("it is below a length in memory")))
    }

    fn poll(&self, id: u64) {
        // Out of the map while it runs: it may spawn.
        let Some(mut task) = self.state.lock().tasks.remove(&id) else { return };
        let waker = self.waker(id);
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.state.lock().tasks.insert(id, task);
        }
    }
}

fn wake(state: &Mutex<TaskState>, id: u64) {
    let mut state = state.lock();
    if !state.ready.contains(&id) {
        state.ready.push(id);
    }
}

struct TaskWaker {
    id: u64,
    state: Arc<Mutex<TaskState>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        wake(&self.state, self.id);
    }
}
