//! One node's clock through lives, wall steps and a slow disk: no reading is ever repeated.

use std::time::Duration;

use clock::{
    ClockTimestamp, Extension, Hlc, Leap, Start, Timestamp, UpperBound, WINDOW_DEFAULT, WINDOW_MIN,
    WallTime,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Event {
    /// Both time and the wall clock go on.
    Pass(u64),
    /// The wall clock steps, either way.
    Step(i64),
    /// A reading is asked for.
    Read,
    /// A peer's reading this far from our wall clock arrives.
    Hear(i64),
    /// The driver asks the machine, and begins to write.
    Poll(Leap),
    /// The write that is in flight becomes durable.
    Sync,
    /// The write is on disk, but the process dies before it learns that.
    CrashAfterWrite,
    /// The process dies, and what is in flight with it.
    Crash,
    /// An orderly end.
    Close,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0u64..4_000_000).prop_map(Event::Pass),
        1 => (-40_000_000i64..40_000_000).prop_map(Event::Step),
        6 => Just(Event::Read),
        3 => (-400_000i64..400_000).prop_map(Event::Hear),
        4 => Just(Event::Poll(Leap::Follow)),
        1 => (-9_000_000i64..9_000_000).prop_map(|ahead_us| Event::Poll(Leap::Hold { ahead_us })),
        4 => Just(Event::Sync),
        1 => Just(Event::CrashAfterWrite),
        1 => Just(Event::Crash),
        1 => Just(Event::Close),
    ]
}

/// A driver as a node has it, and the disk.
struct Node {
    wall_us: i64,
    disk: Timestamp,
    bound: UpperBound,
    in_flight: Option<Extension>,
    hlc: Option<Hlc>,
    life: usize,
}

impl Node {
    fn boot(&mut self) {
        // Each life has another window.
        let window = if self.life.is_multiple_of(2) { WINDOW_DEFAULT } else { WINDOW_MIN };
        self.life += 1;
        self.in_flight = None;
        self.hlc = None;
        self.bound = UpperBound::new(self.disk, window);
    }

    fn wall(&self) -> WallTime {
        WallTime::from_micros(self.wall_us.max(0) as u64)
    }

    fn poll(&mut self, leap: Leap) {
        let last = match &self.hlc {
            Some(hlc) => hlc.last(),
            None if matches!(self.bound.start(self.wall()), Start::Ready { .. }) => {
                ClockTimestamp::MIN
            }
            None => return,
        };
        if let Some(ask) = self.bound.poll(last, self.wall(), leap) {
            self.in_flight = Some(ask);
        }
    }

    fn sync(&mut self) {
        let Some(ask) = self.in_flight.take() else { return };
        // A start that was ready can cease to be when the wall clock goes back during the write:
        // the floor is the old bound in any case.
        let floor = self.bound.current();
        self.disk = ask.value();
        let persisted = self.bound.persisted(ask);
        match &self.hlc {
            Some(hlc) => hlc.raise(persisted),
            None => self.hlc = Some(Hlc::start(floor, persisted)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_reading_is_repeated_over_any_number_of_lives(events in proptest::collection::vec(event(), 1..120)) {
        let mut node = Node {
            wall_us: 1_000_000_000,
            disk: Timestamp::MIN,
            bound: UpperBound::new(Timestamp::MIN, WINDOW_DEFAULT),
            in_flight: None,
            hlc: None,
            life: 0,
        };
        let cap = Duration::from_millis(250);
        let mut greatest = ClockTimestamp::MIN;
        for event in events {
            let mut got = None;
            match event {
                Event::Pass(us) => node.wall_us += us as i64,
                Event::Step(us) => node.wall_us += us,
                Event::Read => got = node.hlc.as_ref().map(|h| h.now(node.wall())),
                Event::Hear(us) => {
                    let remote = WallTime::from_micros((node.wall_us + us).max(0) as u64).timestamp();
                    let remote = ClockTimestamp::from_raw(remote.raw());
                    got = node.hlc.as_ref().and_then(|h| h.observe(node.wall(), remote, cap).ok());
                    prop_assert!(got.is_none_or(|g| g > remote));
                }
                Event::Poll(leap) => node.poll(leap),
                Event::Sync => node.sync(),
                Event::CrashAfterWrite => {
                    if let Some(ask) = &node.in_flight {
                        node.disk = ask.value();
                    }
                    node.boot();
                }
                Event::Crash => node.boot(),
                Event::Close => {
                    let window = WINDOW_DEFAULT;
                    let bound = std::mem::replace(&mut node.bound, UpperBound::new(node.disk, window));
                    if let Some(hlc) = &node.hlc
                        && let Some(value) = bound.close(hlc.seal())
                    {
                        node.disk = value;
                    }
                    node.boot();
                }
            }
            if let Some(reading) = got {
                prop_assert!(reading > greatest, "{reading} after {greatest}");
                prop_assert!(reading.timestamp() < node.disk, "{reading} is not covered by the disk");
                greatest = reading;
            }
        }
    }
}
