//! Driver: waits that end when they should: for the injected latencies of links. tokio's timers count whole milliseconds and round up;
//! a message that crosses two links would be two to four of them late, which no real link would make it.
//!
//! A thread of its own sleeps until the next wait ends and wakes whoever waits, late by what the kernel allows itself (about 0.06 ms).
//! It starts with the first wait: where links have no latency there is none.

use clock::{Monotonic, TimeSource};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use crate::world::OsTime;

/// See the module. Its thread ends when it is dropped.
pub struct Punctual {
    shared: Arc<Shared>,
}

struct Shared {
    time: Arc<OsTime>,
    waits: Mutex<Waits>,
    changed: Condvar,
}

#[derive(Default)]
struct Waits {
    thread: Thread,
    last: u64,
    by_end: BTreeMap<(Monotonic, u64), Waker>,
}

#[derive(Default, PartialEq, Eq)]
enum Thread {
    #[default]
    NotStarted,
    Runs,
    IsToEnd,
}

/// Forgets a wait that is over or given up.
struct Entry<'a> {
    shared: &'a Shared,
    key: (Monotonic, u64),
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.shared.waits.lock().by_end.remove(&self.key);
    }
}

impl Punctual {
    /// By this clock.
    pub fn new(time: Arc<OsTime>) -> Punctual {
        let (waits, changed) = (Mutex::default(), Condvar::new());
        Punctual { shared: Arc::new(Shared { time, waits, changed }) }
    }

    /// Waits until then.
    pub async fn until(&self, end: Monotonic) {
        let shared = &*self.shared;
        if shared.time.monotonic() >= end {
            return;
        }
        let entry = Entry { shared, key: (end, self.number()) };
        poll_fn(|context| {
            if shared.time.monotonic() >= end {
                return Poll::Ready(());
            }
            let mut waits = shared.waits.lock();
            waits.by_end.insert(entry.key, context.waker().clone());
            if waits.by_end.first_key_value().is_some_and(|(first, _)| *first == entry.key) {
                shared.changed.notify_one();
            }
            Poll::Pending
        })
        .await;
    }

    /// Of a new wait. The first one starts the thread.
    #[allow(clippy::disallowed_methods)]
    fn number(&self) -> u64 {
        let mut waits = self.shared.waits.lock();
        if waits.thread == Thread::NotStarted {
            waits.thread = Thread::Runs;
            let shared = self.shared.clone();
            std::thread::Builder::new()
                .name("links".to_string())
                .spawn(move || shared.wake_in_time())
                .expect("the OS starts threads");
        }
        waits.last += 1;
        waits.last
    }
}

impl Drop for Punctual {
    fn drop(&mut self) {
        self.shared.waits.lock().thread = Thread::IsToEnd;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn wake_in_time(&self) {
        let mut waits = self.waits.lock();
        while waits.thread != Thread::IsToEnd {
            let now = self.time.monotonic();
            let mut due = Vec::new();
            while let Some(first) = waits.by_end.first_entry().filter(|first| first.key().0 <= now)
            {
                due.push(first.remove());
            }
            if !due.is_empty() {
                MutexGuard::unlocked(&mut waits, || due.into_iter().for_each(Waker::wake));
                continue;
            }
            match waits.by_end.first_key_value().map(|((end, _), _)| end.since(now)) {
                Some(wait) => drop(self.changed.wait_for(&mut waits, wait)),
                None => self.changed.wait(&mut waits),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn waits_end_in_order_and_never_early() {
        let time = Arc::new(OsTime::default());
        let punctual = Punctual::new(time.clone());
        let begun = time.monotonic();
        let ended = Mutex::new(Vec::new());
        let wait = async |millis: u64| {
            let end = begun.plus(Duration::from_millis(millis));
            punctual.until(end).await;
            assert!(time.monotonic() >= end, "it is not over");
            ended.lock().push(millis);
        };
        let given_up = Box::pin(punctual.until(begun.plus(Duration::from_secs(3600))));
        futures::future::select(given_up, Box::pin(wait(1))).await;
        futures::future::join4(wait(9), wait(3), wait(5), wait(0)).await;
        assert_eq!(*ended.lock(), [1, 0, 3, 5, 9]);
        assert!(punctual.shared.waits.lock().by_end.is_empty());
    }
}
