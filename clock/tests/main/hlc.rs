//! The lock-free clock against a twin: Kulkarni's algorithm as the paper writes it, with two
//! numbers behind a mutex.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use clock::{
    ClockStopped, ClockTimestamp, FarAhead, Hlc, Leap, RESERVE, Refused, Timestamp, UpperBound,
    WINDOW_DEFAULT, WallTime,
};
use proptest::prelude::*;

const CAP: Duration = Duration::from_millis(250);
const SECOND: u64 = 1_000_000;

fn wall(seconds: u64) -> WallTime {
    WallTime::from_micros(seconds * SECOND)
}

fn reading(t: Timestamp) -> ClockTimestamp {
    ClockTimestamp::from_raw(t.raw())
}

/// A clock with a persisted bound ten seconds after `at`.
fn bounded(at: WallTime) -> Hlc {
    let mut bound = UpperBound::new(Timestamp::MIN, WINDOW_DEFAULT);
    let ask = bound.poll(ClockTimestamp::MIN, at, Leap::Follow).expect("a new bound is due");
    Hlc::start(Timestamp::MIN, bound.persisted(ask))
}

/// HLC, Kulkarni 2014, figure 5, with a counter that carries. No bound.
#[derive(Default)]
struct Twin {
    state: Mutex<(u64, u64)>,
}

impl Twin {
    fn now(&self, pt: u64) -> (u64, u64) {
        let mut state = self.state.lock().expect("no thread panics with it");
        let (l, c) = *state;
        *state = if pt > l { (pt, 0) } else { carried(l, c + 1) };
        *state
    }

    fn observe(&self, pt: u64, remote: (u64, u64), cap: u64) -> Option<(u64, u64)> {
        if remote.0 > pt + cap {
            return None;
        }
        let mut state = self.state.lock().expect("no thread panics with it");
        let (l, c) = *state;
        let l2 = l.max(remote.0).max(pt);
        let c2 = match (l2 == l, l2 == remote.0) {
            (true, true) => c.max(remote.1) + 1,
            (true, false) => c + 1,
            (false, true) => remote.1 + 1,
            (false, false) => 0,
        };
        *state = carried(l2, c2);
        Some(*state)
    }
}

fn carried(l: u64, c: u64) -> (u64, u64) {
    (l + (c >> 12), c & 4095)
}

#[derive(Clone, Debug)]
enum Op {
    Now(u64),
    Observe(u64, (u64, u64)),
}

fn op() -> impl Strategy<Value = Op> {
    // A narrow span of microseconds, so that ties and full counters happen.
    let micros = 1_000_000u64..1_000_020;
    let counter = prop_oneof![0u64..3, 4090u64..4096];
    prop_oneof![
        micros.clone().prop_map(Op::Now),
        (micros.clone(), (micros, counter)).prop_map(|(pt, remote)| Op::Observe(pt, remote)),
    ]
}

proptest! {
    #[test]
    fn equals_the_paper(ops in proptest::collection::vec(op(), 1..200), cap in 0u64..12) {
        let (hlc, twin) = (Hlc::unbounded(), Twin::default());
        for op in ops {
            match op {
                Op::Now(pt) => {
                    let (l, c) = twin.now(pt);
                    let got = hlc.now(WallTime::from_micros(pt));
                    prop_assert_eq!(got.timestamp(), Timestamp::new(l, c as u16));
                }
                Op::Observe(pt, remote) => {
                    let sent = reading(Timestamp::new(remote.0, remote.1 as u16));
                    let before = hlc.last();
                    let got = hlc.observe(WallTime::from_micros(pt), sent, Duration::from_micros(cap));
                    match twin.observe(pt, remote, cap) {
                        Some((l, c)) => prop_assert_eq!(got.unwrap().timestamp(), Timestamp::new(l, c as u16)),
                        None => {
                            prop_assert!(matches!(got, Err(Refused::FarAhead(_))));
                            prop_assert_eq!(hlc.last(), before);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn no_input_wraps_panics_or_passes_the_bound(
        start in 0u64..1 << 50,
        steps in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 1..50),
    ) {
        let hlc = bounded(WallTime::from_micros(start));
        let mut last = hlc.last();
        for (pt, remote, cap) in steps {
            let pt = WallTime::from_micros(pt);
            let observed = hlc.observe(pt, ClockTimestamp::from_raw(remote), Duration::from_micros(cap));
            for got in [observed.ok(), hlc.try_now(pt).ok()].into_iter().flatten() {
                prop_assert!(got > last);
                prop_assert!(got.timestamp() < hlc.bound());
                last = got;
            }
            hlc.held_back(pt);
            hlc.ahead_of(pt);
        }
    }
}

#[test]
fn many_threads_never_share_a_reading() {
    const THREADS: u64 = 8;
    const READINGS: usize = 20_000;
    let hlc = Hlc::unbounded();
    let mut all = BTreeSet::new();
    let lists: Vec<Vec<ClockTimestamp>> = std::thread::scope(|scope| {
        let run = |id: u64| {
            let hlc = &hlc;
            scope.spawn(move || {
                let pt = |i: usize| WallTime::from_micros(1_000_000 + (i as u64 * id) % 977);
                (0..READINGS).map(|i| hlc.now(pt(i))).collect()
            })
        };
        let threads: Vec<_> = (1..=THREADS).map(run).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    for list in lists {
        assert!(list.windows(2).all(|w| w[0] < w[1]), "one thread's readings rise");
        all.extend(list);
    }
    assert_eq!(all.len(), THREADS as usize * READINGS);
}

#[test]
fn a_wall_clock_that_goes_back_does_not_move_it_back() {
    let hlc = Hlc::unbounded();
    let before = hlc.now(wall(100));
    assert_eq!(hlc.now(wall(40)).timestamp(), before.timestamp().next());
    assert_eq!(hlc.ahead_of(wall(40)), Duration::from_secs(60));
}

#[test]
fn a_reading_beyond_the_cap_is_refused_and_leaves_no_trace() {
    let hlc = bounded(wall(100));
    let before = hlc.now(wall(100));
    let far = reading(wall(100).plus(CAP).plus(Duration::from_micros(1)).timestamp());
    let refused = FarAhead { remote: far, wall: wall(100), cap: CAP };
    assert_eq!(hlc.observe(wall(100), far, CAP), Err(Refused::FarAhead(refused)));
    assert_eq!(hlc.last(), before);
    let near = reading(wall(100).plus(CAP).timestamp());
    assert_eq!(hlc.observe(wall(100), near, CAP).unwrap().timestamp(), near.timestamp().next());
}

#[test]
fn repeated_readings_cannot_drag_the_clock_further_than_one_cap() {
    // Measured against the HLC itself instead of the wall clock, each message would add a cap.
    let hlc = bounded(wall(100));
    for _ in 0..100 {
        let far = reading(hlc.last().timestamp().forward(wall(100).timestamp()).plus(CAP));
        let _ = hlc.observe(wall(100), far, CAP);
    }
    assert!(hlc.ahead_of(wall(100)) <= CAP);
}

#[test]
fn a_reading_beyond_the_ceiling_is_refused_until_the_bound_is_raised() {
    let mut bound = UpperBound::new(Timestamp::MIN, WINDOW_DEFAULT);
    let ask = bound.poll(ClockTimestamp::MIN, wall(100), Leap::Follow).unwrap();
    let hlc = Hlc::start(Timestamp::MIN, bound.persisted(ask));
    // We were asleep for a minute; a peer's message is the first thing we see.
    let remote = reading(wall(160).timestamp());
    let refused = Refused::BeyondBound { remote, bound: wall(110).timestamp() };
    assert_eq!(hlc.observe(wall(160), remote, CAP), Err(refused));
    assert_eq!(hlc.last(), ClockTimestamp::MIN);
    // The reserve is for counting, not for peers.
    let ceiling = reading(hlc.bound().minus(RESERVE));
    assert!(hlc.observe(wall(160), ceiling, CAP).is_err());
    let below = reading(ceiling.timestamp().prev());
    assert!(hlc.observe(wall(100), below, RESERVE * 9).is_ok());
    let ask = bound.poll(hlc.last(), wall(160), Leap::Follow).unwrap();
    hlc.raise(bound.persisted(ask));
    assert!(hlc.observe(wall(160), remote, CAP).unwrap() > remote);
}

#[test]
fn a_held_clock_counts_through_its_whole_reserve() {
    let hlc = bounded(wall(100));
    let held = hlc.now(wall(1000)).timestamp();
    assert_eq!(held.plus(RESERVE), hlc.bound());
    for _ in 0..10_000 {
        hlc.now(wall(1000));
    }
    assert_eq!(hlc.last().timestamp().raw(), held.raw() + 10_000);
}

#[test]
fn a_sealed_clock_gives_nothing_more_and_remembers_its_end() {
    let hlc = bounded(wall(100));
    let end = hlc.now(wall(101));
    assert_eq!((hlc.seal(), hlc.seal(), hlc.last()), (end, end, end));
    assert_eq!(hlc.try_now(wall(102)), Err(ClockStopped::Sealed));
    assert_eq!(hlc.observe(wall(102), end, CAP), Err(Refused::Stopped(ClockStopped::Sealed)));
}

#[test]
#[should_panic(expected = "clock is sealed")]
fn now_on_a_sealed_clock_ends_the_process() {
    let hlc = Hlc::unbounded();
    hlc.seal();
    hlc.now(wall(1));
}

#[test]
#[should_panic(expected = "leaves no room")]
fn a_start_below_the_floor_is_a_bug() {
    let mut bound = UpperBound::new(Timestamp::MIN, WINDOW_DEFAULT);
    let ask = bound.poll(ClockTimestamp::MIN, wall(100), Leap::Follow).unwrap();
    let persisted = bound.persisted(ask);
    Hlc::start(wall(110).timestamp(), persisted);
}
