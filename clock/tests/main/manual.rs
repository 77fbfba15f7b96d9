//! The clocks that tests move by hand.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use clock::{ManualTime, Monotonic, Sleep, TimeSource, WallTime};

type Log = Arc<Mutex<Vec<&'static str>>>;

struct Named(&'static str, Log);

impl Wake for Named {
    fn wake(self: Arc<Self>) {
        self.1.lock().expect("no test panics with it").push(self.0);
    }
}

fn poll(sleep: &mut Sleep, name: &'static str, log: &Log) -> Poll<()> {
    let waker = Waker::from(Arc::new(Named(name, Arc::clone(log))));
    Pin::new(sleep).poll(&mut Context::from_waker(&waker))
}

fn clocks() -> (ManualTime, Log) {
    (ManualTime::new(WallTime::from_micros(1_000_000)), Log::default())
}

fn seconds(s: u64) -> Monotonic {
    Monotonic::ZERO.plus(Duration::from_secs(s))
}

#[test]
fn sleepers_wake_by_deadline_and_then_by_first_poll() {
    let (time, log) = clocks();
    let mut sleeps = [seconds(3), seconds(1), seconds(3), seconds(2)].map(|d| time.sleep_until(d));
    for (sleep, name) in sleeps.iter_mut().zip(["late 1", "first", "late 2", "second"]) {
        assert!(poll(sleep, name, &log).is_pending());
    }
    // Another poll keeps the place in the queue.
    assert!(poll(&mut sleeps[0], "late 1", &log).is_pending());
    assert_eq!(time.next_deadline(), Some(seconds(1)));
    time.advance(Duration::from_secs(2));
    assert_eq!(*log.lock().unwrap(), ["first", "second"], "a deadline that is reached is due");
    time.advance(Duration::from_secs(1));
    assert_eq!(*log.lock().unwrap(), ["first", "second", "late 1", "late 2"]);
    assert!(sleeps.iter_mut().all(|s| poll(s, "again", &log).is_ready()));
    assert_eq!((time.next_deadline(), time.sleeper_count()), (None, 0));
}

#[test]
fn a_dropped_sleep_leaves_nothing_behind() {
    let (time, log) = clocks();
    let mut sleep = time.sleep_until(seconds(1));
    assert!(poll(&mut sleep, "gone", &log).is_pending());
    drop(sleep);
    assert_eq!(time.sleeper_count(), 0);
    time.advance(Duration::from_secs(2));
    assert!(log.lock().unwrap().is_empty());
}

#[test]
fn the_two_clocks_move_apart() {
    let (time, log) = clocks();
    let other = time.clone();
    let mut sleep = time.sleep_until(seconds(1));
    assert!(poll(&mut sleep, "slept", &log).is_pending());
    other.step_wall_us(300_000);
    assert_eq!(time.wall().micros(), 1_300_000);
    other.step_wall_us(i64::MIN);
    assert_eq!(time.wall().micros(), 0);
    time.set_wall(WallTime::from_micros(5));
    assert!(log.lock().unwrap().is_empty(), "the wall clock wakes nobody");
    time.advance_monotonic(Duration::from_secs(1));
    assert_eq!((time.wall().micros(), time.monotonic()), (5, seconds(1)));
    assert_eq!(*log.lock().unwrap(), ["slept"]);
}

#[test]
fn a_waker_may_ask_the_clocks() {
    struct Asks(ManualTime, Mutex<Option<Monotonic>>);
    impl Wake for Asks {
        fn wake(self: Arc<Self>) {
            *self.1.lock().unwrap() = Some(self.0.monotonic());
        }
    }
    let (time, _) = clocks();
    let asks = Arc::new(Asks(time.clone(), Mutex::default()));
    let waker = Waker::from(Arc::clone(&asks));
    let mut sleep = time.sleep_until(seconds(1));
    assert!(Pin::new(&mut sleep).poll(&mut Context::from_waker(&waker)).is_pending());
    time.advance(Duration::from_secs(4));
    assert_eq!(*asks.1.lock().unwrap(), Some(seconds(4)));
}

#[test]
fn a_deadline_in_the_past_is_ready_at_once() {
    let (time, log) = clocks();
    assert!(poll(&mut time.sleep_until(Monotonic::ZERO), "now", &log).is_ready());
    assert_eq!(time.sleeper_count(), 0);
}
