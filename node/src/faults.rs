//! Value: injected faults of this node, as the transport and the clock see them. Latencies between regions; cuts, delays, losses and
//! wrong clocks that end by themselves.
//!
//! Every fault is applied where a message leaves or an answer would arrive, in the product's own transport: no help of the
//! kernel is needed, and real processes can be cut from each other on any machine. All nodes hold the same faults (the node that
//! was asked tells the others), each counting the end on its own monotonic clock.
//!
//! INVARIANT: every fault has an end; `heal` removes all at once.

use clock::Monotonic;
use parking_lot::RwLock;
use replication::range::NodeId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// No fault lasts longer.
pub const FAULT_DURATION_MAX: Duration = Duration::from_secs(3600);

/// What is wrong. Sides are region names or node names (`n3`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// Nothing passes between the sides, in either direction.
    Partition {
        /// One side.
        from: Vec<String>,
        /// The other; empty: everybody else.
        to: Vec<String>,
    },
    /// Nothing passes from the one side to the other; the other way it does.
    Cut {
        /// Who is not heard.
        from: Vec<String>,
        /// Who does not hear.
        to: Vec<String>,
    },
    /// What goes from the one side to the other is later.
    Latency {
        /// Who sends.
        from: Vec<String>,
        /// Who hears late.
        to: Vec<String>,
        /// Always.
        extra: Duration,
        /// And up to so much more, drawn for each message; streams keep their order.
        jitter: Duration,
    },
    /// Some of what goes from the one side to the other is lost: a batch of store messages, a call, an answer.
    Loss {
        /// Who sends.
        from: Vec<String>,
        /// Who does not hear all.
        to: Vec<String>,
        /// Of 1000.
        permille: u32,
    },
    /// The wall clock of `node` is off by so much.
    Clock {
        /// Which node.
        node: NodeId,
        /// Positive: ahead.
        skew_micros: i64,
    },
    /// The wall clock of `node` runs at another rate, from the fault's beginning on.
    Drift {
        /// Which node.
        node: NodeId,
        /// Parts per million; positive: too fast.
        ppm: i64,
    },
}

/// A fault, its beginning and its end.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// Began at, on this node's monotonic clock.
    pub since: Monotonic,
    /// Ends at, on this node's monotonic clock.
    pub until: Monotonic,
}

/// Where a node stands, for matching sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its id.
    pub node: NodeId,
    /// Its region's name.
    pub region: String,
}

impl Place {
    fn is_named(&self, side: &[String]) -> bool {
        side.iter().any(|name| *name == self.region || *name == self.node.to_string())
    }
}

/// What a link does to a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// Delivered after this delay.
    Delay(Duration),
    /// Lost.
    Cut,
}

/// How a link treats messages, with chance left open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Conduct {
    is_cut: bool,
    delay: Duration,
    jitter: Duration,
    loss_permille: u32,
}

impl Conduct {
    /// What happens to one message; `bits` are its chance.
    pub fn meet(self, bits: u64) -> Link {
        if self.is_cut || bits % 1000 < u64::from(self.loss_permille) {
            return Link::Cut;
        }
        let share = (bits >> 32) as f64 / (1_u64 << 32) as f64;
        Link::Delay(self.delay + self.jitter.mul_f64(share))
    }

    /// Whether every message meets the same.
    pub fn is_certain(self) -> bool {
        self.is_cut || (self.jitter.is_zero() && self.loss_permille == 0)
    }
}

/// Round trip times between regions, by name, symmetric.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    round_trips: BTreeMap<(String, String), Duration>,
}

/// A latency file that cannot be read: which line, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("latency file, line {line}: {why}")]
pub struct LatencyError {
    /// From 1.
    pub line: usize,
    /// In plain words.
    pub why: String,
}

impl Latencies {
    /// The three demo regions, as wide area networks really are.
    pub fn realistic() -> Latencies {
        let mut latencies = Latencies::default();
        latencies.set("us-east", "eu-west", Duration::from_millis(68));
        latencies.set("us-east", "ap-south", Duration::from_millis(190));
        latencies.set("eu-west", "ap-south", Duration::from_millis(122));
        latencies
    }

    /// From text: one `region region milliseconds` per line (round trip), `#` starts a comment.
    pub fn parse(text: &str) -> Result<Latencies, LatencyError> {
        let mut latencies = Latencies::default();
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> =
                line.split('#').next().unwrap_or("").split_whitespace().collect();
            let fail = |why: &str| Err(LatencyError { line: number + 1, why: why.to_string() });
            match words[..] {
                [] => {}
                [a, b, millis] => match millis.parse::<f64>() {
                    Ok(millis) if (0.0..=60_000.0).contains(&millis) => {
                        latencies.set(a, b, Duration::from_micros((millis * 1000.0) as u64));
                    }
                    _ => {
                        return fail(
                            "the third word must be a round trip time from 0 to 60000 milliseconds",
                        );
                    }
                },
                _ => return fail("expected: REGION REGION MILLISECONDS"),
            }
        }
        Ok(latencies)
    }

    /// As text that `parse` reads.
    pub fn to_text(&self) -> String {
        self.round_trips
            .iter()
            .map(|((a, b), time)| format!("{a} {b} {}\n", time.as_micros() as f64 / 1000.0))
            .collect()
    }

    /// Sets the round trip between two regions.
    pub fn set(&mut self, a: &str, b: &str, round_trip: Duration) {
        let (a, b) = if a <= b { (a, b) } else { (b, a) };
        self.round_trips.insert((a.to_string(), b.to_string()), round_trip);
    }

    /// The round trip between two regions; zero if nothing was set.
    pub fn round_trip(&self, a: &str, b: &str) -> Duration {
        let (a, b) = if a <= b { (a, b) } else { (b, a) };
        self.round_trips.get(&(a.to_string(), b.to_string())).copied().unwrap_or_default()
    }

    /// The longest one.
    pub fn longest(&self) -> Duration {
        self.round_trips.values().copied().max().unwrap_or_default()
    }
}

/// The faults in force at this node. Shared by all of its transports.
#[derive(Default)]
pub struct Faults {
    latencies: RwLock<Latencies>,
    active: RwLock<BTreeMap<u64, Fault>>,
    changes: AtomicU64,
}

impl Faults {
    /// With these latencies and nothing else wrong.
    pub fn new(latencies: Latencies) -> Faults {
        Faults {
            latencies: RwLock::new(latencies),
            active: RwLock::default(),
            changes: AtomicU64::new(0),
        }
    }

    /// Adds (or replaces) the fault with this id.
    pub fn add(&self, id: u64, fault: Fault) {
        self.active.write().insert(id, fault);
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes all faults; latencies stay.
    pub fn heal(&self) {
        self.active.write().clear();
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// How often faults were added or healed: whoever gave up on a link may try again when it has changed.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// What is in force at `now`, by id.
    pub fn active(&self, now: Monotonic) -> Vec<(u64, Fault)> {
        self.active
            .read()
            .iter()
            .filter(|(_, fault)| fault.until > now)
            .map(|(id, fault)| (*id, fault.clone()))
            .collect()
    }

    /// Forgets what has ended.
    pub fn expire(&self, now: Monotonic) {
        if self.active.read().values().any(|fault| fault.until <= now) {
            self.active.write().retain(|_, fault| fault.until > now);
        }
    }

    /// The injected clock skew of `node` at `now`, in microseconds.
    pub fn skew_micros(&self, node: NodeId, now: Monotonic) -> i64 {
        let active = self.active.read();
        active
            .values()
            .filter(|fault| fault.until > now)
            .map(|fault| match fault.kind {
                FaultKind::Clock { node: skewed, skew_micros } if skewed == node => skew_micros,
                FaultKind::Drift { node: drifting, ppm } if drifting == node => {
                    let passed = i64::try_from(now.since(fault.since).as_micros());
                    passed.unwrap_or(i64::MAX).saturating_mul(ppm) / 1_000_000
                }
                FaultKind::Clock { .. }
                | FaultKind::Drift { .. }
                | FaultKind::Partition { .. }
                | FaultKind::Cut { .. }
                | FaultKind::Latency { .. }
                | FaultKind::Loss { .. } => 0,
            })
            .sum()
    }

    /// How messages from `from` to `to` that leave at `now` are treated. One way: half the round trip.
    pub fn conduct(&self, from: &Place, to: &Place, now: Monotonic) -> Conduct {
        let active = self.active.read();
        let mut conduct = Conduct::default();
        let goes = |one: &[String], other: &[String]| from.is_named(one) && to.is_named(other);
        for fault in active.values().filter(|fault| fault.until > now) {
            match &fault.kind {
                FaultKind::Partition { from: one, to: other } => {
                    conduct.is_cut |= separates(one, other, from, to);
                }
                FaultKind::Cut { from: one, to: other } => conduct.is_cut |= goes(one, other),
                FaultKind::Latency { from: one, to: other, extra, jitter } if goes(one, other) => {
                    conduct.delay += *extra;
                    conduct.jitter += *jitter;
                }
                FaultKind::Loss { from: one, to: other, permille } if goes(one, other) => {
                    conduct.loss_permille = conduct.loss_permille.max(*permille);
                }
                FaultKind::Latency { .. }
                | FaultKind::Loss { .. }
                | FaultKind::Clock { .. }
                | FaultKind::Drift { .. } => {}
            }
        }
        conduct.delay += self.latencies.read().round_trip(&from.region, &to.region) / 2;
        conduct
    }
}

/// Whether a partition between the sides separates these two places.
fn separates(one: &[String], other: &[String], a: &Place, b: &Place) -> bool {
    let across = |x: &Place, y: &Place| {
        x.is_named(one) && if other.is_empty() { !y.is_named(one) } else { y.is_named(other) }
    };
    across(a, b) || across(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(node: u32, region: &str) -> Place {
        Place { node: NodeId(node), region: region.to_string() }
    }

    fn names(side: &[&str]) -> Vec<String> {
        side.iter().map(ToString::to_string).collect()
    }

    fn until(kind: FaultKind, until: u64) -> Fault {
        Fault { kind, since: Monotonic::ZERO, until: Monotonic::from_nanos(until) }
    }

    fn cut(from: &[&str], to: &[&str], end: u64) -> Fault {
        until(FaultKind::Partition { from: names(from), to: names(to) }, end)
    }

    fn link(faults: &Faults, from: &Place, to: &Place, now: Monotonic) -> Link {
        faults.conduct(from, to, now).meet(0)
    }

    #[test]
    fn a_cut_one_way_leaves_the_other() {
        let faults = Faults::new(Latencies::default());
        let kind = FaultKind::Cut { from: names(&["n1"]), to: names(&["eu-west"]) };
        faults.add(1, until(kind, 100));
        let (one, other) = (place(1, "us-east"), place(2, "eu-west"));
        assert_eq!(link(&faults, &one, &other, Monotonic::ZERO), Link::Cut);
        assert_eq!(link(&faults, &other, &one, Monotonic::ZERO), Link::Delay(Duration::ZERO));
        assert_eq!(
            link(&faults, &one, &other, Monotonic::from_nanos(100)),
            Link::Delay(Duration::ZERO)
        );
    }

    #[test]
    fn latency_adds_up_and_its_jitter_stays_within_its_bound() {
        let faults = Faults::new(Latencies::realistic());
        let (us, eu) = (place(1, "us-east"), place(2, "eu-west"));
        let (extra, jitter) = (Duration::from_millis(100), Duration::from_millis(50));
        let kind =
            FaultKind::Latency { from: names(&["us-east"]), to: names(&["n2"]), extra, jitter };
        faults.add(1, until(kind, 100));
        let conduct = faults.conduct(&us, &eu, Monotonic::ZERO);
        assert!(!conduct.is_certain());
        assert_eq!(conduct.meet(0), Link::Delay(Duration::from_millis(134)));
        let Link::Delay(late) = conduct.meet(u64::MAX) else { panic!("it passes") };
        assert!(
            late > Duration::from_millis(183) && late <= Duration::from_millis(184),
            "{late:?}"
        );
        let back = faults.conduct(&eu, &us, Monotonic::ZERO);
        assert!(back.is_certain() && back.meet(7) == Link::Delay(Duration::from_millis(34)));
    }

    #[test]
    fn of_1000_messages_so_many_are_lost() {
        let faults = Faults::new(Latencies::default());
        let kind = FaultKind::Loss { from: names(&["n1"]), to: names(&["n2"]), permille: 250 };
        faults.add(1, until(kind, 100));
        let conduct = faults.conduct(&place(1, "a"), &place(2, "b"), Monotonic::ZERO);
        let lost = (0..1000).filter(|bits| conduct.meet(*bits) == Link::Cut).count();
        assert_eq!(lost, 250);
    }

    #[test]
    fn a_drifting_clock_is_off_by_more_and_more() {
        let faults = Faults::new(Latencies::default());
        let kind = FaultKind::Drift { node: NodeId(2), ppm: -200 };
        faults.add(1, until(kind, u64::MAX));
        let after = Monotonic::from_nanos(10_000_000_000);
        assert_eq!(faults.skew_micros(NodeId(2), after), -2000);
        assert_eq!(faults.skew_micros(NodeId(1), after), 0);
    }

    #[test]
    fn a_partition_cuts_both_directions_and_ends_by_itself() {
        let faults = Faults::new(Latencies::realistic());
        let (us, eu, ap) = (place(1, "us-east"), place(2, "eu-west"), place(3, "ap-south"));
        faults.add(1, cut(&["eu-west"], &["us-east"], 100));
        let before = Monotonic::from_nanos(99);
        assert_eq!(link(&faults, &us, &eu, before), Link::Cut);
        assert_eq!(link(&faults, &eu, &us, before), Link::Cut);
        assert_eq!(link(&faults, &eu, &ap, before), Link::Delay(Duration::from_millis(61)));
        assert_eq!(
            link(&faults, &us, &eu, Monotonic::from_nanos(100)),
            Link::Delay(Duration::from_millis(34))
        );
    }

    #[test]
    fn a_partition_without_a_second_side_cuts_off_from_everybody_but_itself() {
        let faults = Faults::new(Latencies::default());
        faults.add(1, cut(&["n2"], &[], 100));
        let now = Monotonic::ZERO;
        assert_eq!(link(&faults, &place(1, "a"), &place(2, "b"), now), Link::Cut);
        assert_eq!(link(&faults, &place(2, "b"), &place(2, "b"), now), Link::Delay(Duration::ZERO));
        assert_eq!(link(&faults, &place(1, "a"), &place(3, "c"), now), Link::Delay(Duration::ZERO));
    }

    #[test]
    fn healing_removes_every_fault_and_keeps_latencies() {
        let faults = Faults::new(Latencies::realistic());
        faults.add(1, cut(&["eu-west"], &[], 100));
        faults.heal();
        let link = link(&faults, &place(1, "us-east"), &place(2, "eu-west"), Monotonic::ZERO);
        assert_eq!(link, Link::Delay(Duration::from_millis(34)));
    }

    #[test]
    fn a_latency_file_names_the_line_that_is_wrong() {
        assert_eq!(Latencies::parse("a b 10 # ten\n\nb c x").map_err(|error| error.line), Err(3));
        let parsed = Latencies::parse("a b 10.5").expect("well formed");
        assert_eq!(parsed.round_trip("b", "a"), Duration::from_micros(10_500));
        assert_eq!(Latencies::parse(&parsed.to_text()), Ok(parsed));
    }
}
