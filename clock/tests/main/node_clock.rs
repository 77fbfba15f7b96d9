//! Three nodes' clocks through lives, steps of their wall clocks, gossip and crashes in the middle of a look.
//!
//! - No reading of a node is ever repeated, and each is covered by what is on its disk.
//! - No clock is farther ahead of a reader's than its uncertainty says, while both are within their share of the cap.
//!
//! The same run must fail with each mistake that a clock can be told to make.

use std::time::Duration;

use clock::{
    Birth, CAP_DEFAULT, ClockTimestamp, Former, LOOK_INTERVAL, NodeClock, NodeClockConfig,
    PlantedBug, Reading, RoundTrip, Timestamp, Verdict, WallTime, share,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const NODES: usize = 3;
/// Clocks are read in whole microseconds, and an uncertainty is up to one look old.
const ROUNDING: Duration = Duration::from_micros(600);
/// Where time begins, microseconds.
const EPOCH_US: u64 = 1_700_000_000_000_000;

/// When a process dies that looks at its clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dies {
    BeforeTheWrite,
    AfterTheWrite,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// So many looks of everybody, each a look interval after the other.
    Pass(u32),
    /// A machine's wall clock is set to so much from true time, microseconds.
    Step(usize, i64),
    /// Asks for the time; there and back, microseconds.
    Ping(usize, usize, u64, u64),
    /// Everybody asks everybody, quickly.
    PingAll,
    /// A message with its sender's reading.
    Message(usize, usize),
    Crash(usize),
    CrashInLook(usize, Dies),
    /// Power is lost, and comes back after so many microseconds.
    Reboot(usize, u64),
    Close(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let node = || 0..NODES;
    let share_us = share(CAP_DEFAULT).as_micros() as i64;
    prop_oneof![
        5 => (1u32..20).prop_map(Event::Pass),
        2 => (node(), -share_us..share_us).prop_map(|(node, us)| Event::Step(node, us)),
        3 => (node(), node(), 0u64..80_000, 0u64..80_000)
            .prop_map(|(from, to, there, back)| Event::Ping(from, to, there, back)),
        3 => Just(Event::PingAll),
        4 => (node(), node()).prop_map(|(from, to)| Event::Message(from, to)),
        1 => node().prop_map(Event::Crash),
        1 => (node(), prop_oneof![Just(Dies::BeforeTheWrite), Just(Dies::AfterTheWrite)])
            .prop_map(|(node, dies)| Event::CrashInLook(node, dies)),
        1 => (node(), 0u64..8_000_000).prop_map(|(node, us)| Event::Reboot(node, us)),
        1 => node().prop_map(Event::Close),
    ]
}

struct Machine {
    wall_off_us: i64,
    boot: u128,
    booted_us: u64,
    disk: Former,
    clock: Option<NodeClock>,
    greatest: ClockTimestamp,
}

struct World {
    true_us: u64,
    config: NodeClockConfig,
    machines: Vec<Machine>,
}

impl World {
    fn new(planted: Option<PlantedBug>) -> World {
        let machine = |_| Machine {
            wall_off_us: 0,
            boot: 1,
            booted_us: 0,
            disk: Former { bound: Timestamp::MIN, course: None },
            clock: None,
            greatest: ClockTimestamp::MIN,
        };
        World {
            true_us: 60_000_000,
            config: NodeClockConfig { planted, ..NodeClockConfig::default() },
            machines: (0..NODES).map(machine).collect(),
        }
    }

    fn reading(&self, node: usize) -> Reading {
        let machine = &self.machines[node];
        let wall = (EPOCH_US + self.true_us).saturating_add_signed(machine.wall_off_us);
        let now = Duration::from_micros(self.true_us.saturating_sub(machine.booted_us));
        Reading { wall: WallTime::from_micros(wall), now: clock::Monotonic::ZERO.plus(now) }
    }

    /// A supervisor tries at every look.
    fn start(&mut self, node: usize) {
        let reading = self.reading(node);
        let machine = &mut self.machines[node];
        if self.true_us < machine.booted_us {
            return;
        }
        if let Birth::Ready(newborn) =
            NodeClock::begin(self.config, machine.disk, machine.boot, reading)
        {
            let (bound, course) = newborn.due();
            machine.disk = Former { bound, course: Some(course) };
            let clock = newborn.persisted();
            clock.set_peers((0..NODES as u64).filter(|peer| *peer != node as u64));
            machine.clock = Some(clock);
        }
    }

    fn look(&mut self, node: usize, dies: Option<Dies>) {
        let reading = self.reading(node);
        let machine = &mut self.machines[node];
        let Some(clock) = &machine.clock else { return self.start(node) };
        let due = clock.look(reading, None).due;
        if dies != Some(Dies::BeforeTheWrite) {
            if let Some(course) = due.course {
                machine.disk.course = Some(course);
                if dies.is_none() {
                    clock.follow(course);
                }
            }
            if let Some(extension) = due.extension {
                machine.disk = Former { bound: extension.value(), course: Some(clock.course()) };
                if dies.is_none() {
                    clock.raise(extension);
                }
            }
        }
        if dies.is_some() {
            machine.clock = None;
        }
    }

    fn ping(&mut self, from: usize, to: usize, there_us: u64, back_us: u64) {
        if from == to || self.machines[from].clock.is_none() {
            return;
        }
        let sent = self.reading(from).now;
        self.true_us += there_us;
        let asked = self.reading(to).now;
        let Some(peer) = &self.machines[to].clock else { return };
        let (remote, advertised) = (peer.read(asked), peer.own_bound());
        self.true_us += back_us;
        let received = self.reading(from).now;
        let trip = RoundTrip { sent, received, remote, advertised };
        if let Some(clock) = &self.machines[from].clock {
            clock.measured(to as u64, trip);
        }
    }

    fn message(&mut self, from: usize, to: usize) -> Result<(), String> {
        let Some(carried) = self.read(from)? else { return Ok(()) };
        let now = self.reading(to).now;
        if let Some(clock) = &self.machines[to].clock
            && clock.observe(now, carried).is_ok()
        {
            let after = self.read(to)?.expect("it runs");
            if after <= carried {
                return Err(format!("{after} was read after {carried} was taken in"));
            }
        }
        Ok(())
    }

    /// A reading, if there is a process.
    fn read(&mut self, node: usize) -> Result<Option<ClockTimestamp>, String> {
        let now = self.reading(node).now;
        let machine = &mut self.machines[node];
        let Some(clock) = &machine.clock else { return Ok(None) };
        let reading = clock.now(now);
        if reading <= machine.greatest {
            return Err(format!("{reading} after {}", machine.greatest));
        }
        if reading.timestamp() >= machine.disk.bound {
            return Err(format!("{reading} is not covered by {}", machine.disk.bound));
        }
        machine.greatest = reading;
        Ok(Some(reading))
    }

    fn play(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Pass(looks) => {
                for _ in 0..looks {
                    self.true_us += LOOK_INTERVAL.as_micros() as u64;
                    (0..NODES).for_each(|node| self.look(node, None));
                    self.check()?;
                }
            }
            Event::Step(node, us) => self.machines[node].wall_off_us = us,
            Event::Ping(from, to, there, back) => self.ping(from, to, there, back),
            Event::PingAll => {
                for from in 0..NODES {
                    (0..NODES).for_each(|to| self.ping(from, to, 100, 100));
                }
            }
            Event::Message(from, to) if from != to => self.message(from, to)?,
            Event::Message(..) => {}
            Event::Crash(node) => self.machines[node].clock = None,
            Event::CrashInLook(node, dies) => self.look(node, Some(dies)),
            Event::Reboot(node, us) => {
                let machine = &mut self.machines[node];
                machine.clock = None;
                machine.boot += 1;
                machine.booted_us = self.true_us + us;
            }
            Event::Close(node) => {
                let machine = &mut self.machines[node];
                if let Some(clock) = machine.clock.take()
                    && let Some(bound) = clock.close()
                {
                    machine.disk = Former { bound, course: Some(clock.course()) };
                }
            }
        }
        self.check()
    }

    fn check(&mut self) -> Result<(), String> {
        let share_us = share(CAP_DEFAULT).as_micros() as u64;
        let clocks: Vec<(usize, WallTime, Duration)> = (0..NODES)
            .filter_map(|node| {
                let now = self.reading(node).now;
                let clock = self.machines[node].clock.as_ref()?;
                let reads = clock.read(now);
                let off = reads.micros().abs_diff(EPOCH_US + self.true_us);
                (clock.verdict() == Verdict::Clear && off <= share_us)
                    .then(|| (node, reads, clock.uncertainty(now)))
            })
            .collect();
        for (node, reads, uncertainty) in &clocks {
            for (other, there, _) in &clocks {
                if *there > reads.plus(*uncertainty).plus(ROUNDING) {
                    return Err(format!(
                        "n{node} reads {reads} and allows for {uncertainty:?}, n{other} reads {there}"
                    ));
                }
            }
        }
        (0..NODES).try_for_each(|node| self.read(node).map(drop))
    }
}

fn run(cases: u32, planted: Option<PlantedBug>) -> Result<(), String> {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(
        config,
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let events = proptest::collection::vec(event(), 1..100);
    let tested = runner.run(&events, |events| {
        let mut world = World::new(planted);
        (0..NODES).for_each(|node| world.start(node));
        for event in events {
            world.play(event).map_err(TestCaseError::fail)?;
        }
        Ok(())
    });
    tested.map_err(|error| error.to_string())
}

#[test]
fn no_reading_is_repeated_and_none_is_farther_ahead_than_readers_allow_for() {
    if let Err(why) = run(2000, None) {
        panic!("{why}");
    }
}

#[test]
fn each_mistake_of_a_clock_is_noticed() {
    for bug in [
        PlantedBug::OthersIgnored,
        PlantedBug::NoUncertainty,
        PlantedBug::StepsFollowed,
        PlantedBug::CarryLost,
    ] {
        assert!(run(2000, Some(bug)).is_err(), "{bug:?} was not noticed");
    }
}

/// A clock an hour ahead is refused, and taken in by a clock that makes this mistake.
#[test]
fn a_reading_beyond_the_cap_is_refused_and_leaves_no_trace() {
    for (planted, takes) in [(None, false), (Some(PlantedBug::FarClocksAbsorbed), true)] {
        let mut world = World::new(planted);
        world.start(0);
        let Reading { wall, now } = world.reading(0);
        let clock = world.machines[0].clock.as_ref().expect("nothing to wait for");
        let far = wall.plus(Duration::from_secs(1)).timestamp();
        let far = ClockTimestamp::from_raw(far.raw());
        assert_eq!(clock.observe(now, far).is_ok(), takes);
        assert_eq!(clock.now(now) > far, takes);
    }
}
