//! Three whole clocks that talk: one is skewed by 300 ms, fences itself alone, and returns.

use std::time::Duration;

use clock::{
    AGE_MAX_DEFAULT, CAP_DEFAULT, Change, ClockTimestamp, ErrorBound, Fence, FenceConfig, Hlc,
    KernelClock, ManualTime, OffsetTable, Refused, RoundTrip, TimeSource, Timestamp, UpperBound,
    Verdict, WINDOW_DEFAULT, WallTime, largest_advertised, uncertainty,
};

const KERNEL: KernelClock = KernelClock::Synchronised { error_max: Duration::from_millis(2) };
/// One way. The replies carry wall clocks; the world below is symmetric.
const LINK: Duration = Duration::from_millis(20);

struct Node {
    time: ManualTime,
    hlc: Hlc,
    bound: UpperBound,
    peers: OffsetTable,
    fence: Fence,
    own: ErrorBound,
    changes: Vec<Change>,
    refused: usize,
    last: ClockTimestamp,
}

impl Node {
    fn new(id: u64) -> Node {
        let time = ManualTime::new(WallTime::from_micros(1_700_000_000_000_000 + id * 500));
        let mut bound = UpperBound::new(Timestamp::MIN, WINDOW_DEFAULT);
        let fence = Fence::new(FenceConfig::default());
        let ask = bound.poll(ClockTimestamp::MIN, time.wall(), fence.leap());
        let persisted = bound.persisted(ask.expect("a new bound is due"));
        let mut peers = OffsetTable::new(AGE_MAX_DEFAULT);
        peers.set_peers((0..3).filter(|p| *p != id));
        let own = ErrorBound::of(KERNEL, &Default::default(), 2, Duration::ZERO, CAP_DEFAULT);
        let hlc = Hlc::start(Timestamp::MIN, persisted);
        let last = hlc.last();
        Node { time, hlc, bound, peers, fence, own, changes: vec![], refused: 0, last }
    }

    fn read(&mut self, reading: ClockTimestamp) {
        assert!(reading > self.last, "{reading} after {}", self.last);
        self.last = reading;
    }

    fn judge(&mut self) {
        let (wall, now) = (self.time.wall(), self.time.monotonic());
        let seen = self.peers.estimates(wall, now);
        let count = self.peers.peer_count();
        self.own = ErrorBound::of(KERNEL, &seen, count, self.hlc.held_back(wall), CAP_DEFAULT);
        match self.fence.step(now, &seen, count, self.own) {
            Change::None => {}
            change => self.changes.push(change),
        }
        if let Some(more) = self.bound.poll(self.hlc.last(), wall, self.fence.leap()) {
            self.hlc.raise(self.bound.persisted(more));
        }
    }

    fn uncertainty(&self) -> Duration {
        let seen = self.peers.estimates(self.time.wall(), self.time.monotonic());
        uncertainty(self.own, largest_advertised(&seen, 2, CAP_DEFAULT), CAP_DEFAULT)
    }
}

/// One second in which everybody reads, sends to everybody, and measures everybody.
fn second(nodes: &mut [Node; 3]) {
    for from in 0..3 {
        for to in (0..3).filter(|to| *to != from) {
            let sent = nodes[from].time.monotonic().plus(Duration::ZERO);
            let wall = nodes[from].time.wall();
            let message = nodes[from].hlc.now(wall);
            nodes[from].read(message);
            nodes.iter().for_each(|n| n.time.advance(LINK));
            let wall = nodes[to].time.wall();
            match nodes[to].hlc.observe(wall, message, CAP_DEFAULT) {
                Ok(reading) => nodes[to].read(reading),
                Err(Refused::FarAhead(_)) => nodes[to].refused += 1,
                Err(other) => panic!("{other}"),
            }
            let (remote, advertised) = (nodes[to].time.wall(), nodes[to].own.bound);
            nodes.iter().for_each(|n| n.time.advance(LINK));
            let received = nodes[from].time.monotonic();
            nodes[from].peers.record(to as u64, RoundTrip { sent, received, remote, advertised });
        }
    }
    nodes.iter().for_each(|n| n.time.advance(Duration::from_secs(1) - LINK * 12));
    nodes.iter_mut().for_each(Node::judge);
}

fn skewed_by(first_us: i64, seconds: usize) -> [Node; 3] {
    let mut nodes = [0, 1, 2].map(Node::new);
    (0..3).for_each(|_| second(&mut nodes));
    assert!(nodes.iter().all(|n| n.uncertainty() < Duration::from_millis(10)));

    nodes[0].time.step_wall_us(first_us);
    nodes[0].judge();
    assert_eq!(nodes[0].changes, [Change::Fenced], "at once, without a message");
    (0..seconds).for_each(|_| second(&mut nodes));
    assert!(nodes[1..].iter().all(|n| n.fence.verdict() == Verdict::Clear));
    assert!(nodes.iter().all(|n| n.uncertainty() == CAP_DEFAULT), "all know that one is far off");

    nodes[0].time.step_wall_us(-first_us);
    (0..7).for_each(|_| second(&mut nodes));
    nodes
}

fn all_is_well_again(nodes: &[Node; 3]) {
    assert_eq!(nodes[0].changes, [Change::Fenced, Change::Returned]);
    assert!(nodes[1].changes.is_empty() && nodes[2].changes.is_empty());
    assert!(nodes.iter().all(|n| n.uncertainty() < Duration::from_millis(10)));
}

#[test]
fn a_clock_300_ms_fast_fences_pushes_nobody_and_returns() {
    let nodes = skewed_by(300_000, 20);
    all_is_well_again(&nodes);
    assert!(nodes[1].refused > 0 && nodes[2].refused > 0, "its readings were refused");
    for node in &nodes[1..] {
        assert!(node.hlc.ahead_of(node.time.wall()) < Duration::from_millis(5));
    }
}

#[test]
fn a_clock_300_ms_slow_fences_and_returns() {
    let nodes = skewed_by(-300_000, 20);
    all_is_well_again(&nodes);
    assert!(nodes[0].refused > 0, "to the slow one, everybody is fast");
}

#[test]
fn a_clock_an_hour_fast_is_usable_one_window_after_it_was_repaired() {
    let mut nodes = skewed_by(3_600_000_000, 20);
    (0..WINDOW_DEFAULT.as_secs()).for_each(|_| second(&mut nodes));
    all_is_well_again(&nodes);
    let node = &nodes[0];
    assert!(node.hlc.ahead_of(node.time.wall()) < Duration::from_millis(5));
}
