//! Value: the network: who can reach whom, how late, and what is lost, doubled or overtaken.
//!
//! Links are directed. Without faults a link keeps its order, as a stream does. A message is addressed to a machine, not to a process: it may
//! arrive at a later incarnation.

use replication::range::{NodeId, RegionId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::chance::Chance;
use super::tally::Tally;

/// Misbehaviour of all links, in thousandths of messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Weather {
    /// Never arrive.
    pub loss_permille: u32,
    /// Arrive twice.
    pub duplicate_permille: u32,
    /// Are late enough to be overtaken.
    pub reorder_permille: u32,
}

/// What becomes of gateways' calls to ranges, on all links: each call goes its own way, so that one is overtaken by others, or comes
/// once more when its transaction has long ended. Store messages, which share a stream, are none of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Straying {
    /// So many in a thousand are late.
    pub late_permille: u32,
    /// So many in a thousand come once more, if they may: commits go once (`txn::api::Peers`).
    pub again_permille: u32,
    /// By up to this, both.
    pub longest: Duration,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Network {
    regions: BTreeMap<NodeId, RegionId>,
    one_way: BTreeMap<(RegionId, RegionId), Duration>,
    cuts: BTreeMap<(NodeId, NodeId), u32>,
    regions_cut: BTreeMap<RegionId, u32>,
    clogged: BTreeSet<(NodeId, NodeId)>,
    clog_max: Duration,
    weather: Weather,
    straying: Straying,
    last_arrival: BTreeMap<(NodeId, NodeId), u64>,
    /// Bytes per second.
    rates: BTreeMap<(NodeId, NodeId), u64>,
    /// When a throttled link has sent what it was given.
    busy_until: BTreeMap<(NodeId, NodeId), u64>,
}

/// Latency between two nodes of one region.
const LOCAL: Duration = Duration::from_micros(250);
/// Extra delay of a message that is to be overtaken, at most.
const LATE_MAX: Duration = Duration::from_millis(400);
/// Extra delay on a clogged link, at most, unless it is told otherwise.
pub const CLOG_MAX: Duration = Duration::from_millis(1500);

impl Network {
    /// Nodes in their regions. A clogged link delays by up to `clog_max`.
    pub fn new(regions: BTreeMap<NodeId, RegionId>, clog_max: Duration) -> Network {
        Network { regions, clog_max, ..Network::default() }
    }

    /// A node stands there from now on.
    pub fn place(&mut self, node: NodeId, region: RegionId) {
        self.regions.insert(node, region);
    }

    /// Round trip time between two regions.
    pub fn set_round_trip(&mut self, a: RegionId, b: RegionId, round_trip: Duration) {
        self.one_way.insert((a, b), round_trip / 2);
        self.one_way.insert((b, a), round_trip / 2);
    }

    /// The longest round trip.
    pub fn longest_round_trip(&self) -> Duration {
        self.one_way.values().max().copied().unwrap_or(LOCAL) * 2
    }

    /// From now on.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// From now on.
    pub fn set_straying(&mut self, straying: Straying) {
        self.straying = straying;
    }

    /// Whether calls stray now.
    pub fn calls_stray(&self) -> bool {
        self.straying != Straying::default()
    }

    /// How much later than they should the copies of a call arrive: one, or two where it may be doubled and is.
    pub fn stray(&self, may_double: bool, chance: &mut Chance, tally: &mut Tally) -> Vec<Duration> {
        let Straying { late_permille, again_permille, longest } = self.straying;
        let mut copies = vec![Duration::ZERO];
        if chance.permille(late_permille) {
            tally.count("calls that strayed");
            copies[0] = chance.duration(Duration::ZERO, longest);
        }
        if may_double && chance.permille(again_permille) {
            tally.count("calls that came again");
            copies.push(chance.duration(Duration::ZERO, longest));
        }
        copies
    }

    /// Cuts the link, one way. Cuts add up: as many [`Network::join`]s make it whole.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        *self.cuts.entry((from, to)).or_default() += 1;
    }

    /// Takes back one cut.
    pub fn join(&mut self, from: NodeId, to: NodeId) {
        if let Some(count) = self.cuts.get_mut(&(from, to)) {
            *count -= 1;
            if *count == 0 {
                self.cuts.remove(&(from, to));
            }
        }
    }

    /// Cuts a region off from all others, whoever stands there now or later. Adds up as cuts of links do.
    pub fn cut_region(&mut self, region: RegionId) {
        *self.regions_cut.entry(region).or_default() += 1;
    }

    /// Takes back one such cut.
    pub fn join_region(&mut self, region: RegionId) {
        if let Some(count) = self.regions_cut.get_mut(&region) {
            *count -= 1;
            if *count == 0 {
                self.regions_cut.remove(&region);
            }
        }
    }

    /// Messages on the link are very late.
    pub fn clog(&mut self, from: NodeId, to: NodeId) {
        self.clogged.insert((from, to));
    }

    /// No longer.
    pub fn unclog(&mut self, from: NodeId, to: NodeId) {
        self.clogged.remove(&(from, to));
    }

    /// The link carries so many bytes per second; `None`: everything.
    pub fn throttle(&mut self, from: NodeId, to: NodeId, rate: Option<u64>) {
        match rate {
            Some(rate) => self.rates.insert((from, to), rate.max(1)),
            None => self.rates.remove(&(from, to)),
        };
        self.busy_until.remove(&(from, to));
    }

    /// When the last byte of a message has been put on the link.
    fn sent(&mut self, (from, to, bytes): (NodeId, NodeId, u64), now: u64) -> u64 {
        let Some(rate) = self.rates.get(&(from, to)) else { return now };
        let busy = self.busy_until.entry((from, to)).or_default();
        *busy = now.max(*busy) + bytes.saturating_mul(1_000_000_000) / rate;
        *busy
    }

    /// Everything arrives again.
    pub fn heal(&mut self) {
        self.rates.clear();
        self.busy_until.clear();
        self.cuts.clear();
        self.regions_cut.clear();
        self.clogged.clear();
        self.weather = Weather::default();
        self.straying = Straying::default();
    }

    /// Whether nothing passes now.
    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        if self.cuts.contains_key(&(from, to)) {
            return true;
        }
        let (here, there) = (self.regions[&from], self.regions[&to]);
        here != there && [here, there].iter().any(|region| self.regions_cut.contains_key(region))
    }

    /// Whether messages are overtaken by others now.
    pub fn is_disordered(&self) -> bool {
        self.weather.reorder_permille > 0
    }

    /// Where a node is.
    pub fn region(&self, node: NodeId) -> RegionId {
        self.regions[&node]
    }

    /// All nodes, nearest first, then by number.
    pub fn nearest(&self, from: NodeId) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self.regions.keys().copied().collect();
        nodes.sort_by_key(|node| (*node != from, self.base(from, *node), *node));
        nodes
    }

    fn base(&self, from: NodeId, to: NodeId) -> Duration {
        let regions = (self.regions[&from], self.regions[&to]);
        self.one_way.get(&regions).copied().unwrap_or(LOCAL)
    }

    /// When a message of so many bytes sent at `now` arrives: never, once or twice.
    pub fn arrivals(
        &mut self,
        (from, to, bytes): (NodeId, NodeId, u64),
        now: u64,
        chance: &mut Chance,
        tally: &mut Tally,
    ) -> Vec<u64> {
        if self.is_cut(from, to) {
            tally.count("messages cut off");
            return Vec::new();
        }
        if chance.permille(self.weather.loss_permille) {
            tally.count("messages lost");
            return Vec::new();
        }
        let base = self.base(from, to);
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let jitter = chance.between(0, nanos(base) / 10 + 50_000);
        let clog = if self.clogged.contains(&(from, to)) {
            chance.between(0, nanos(self.clog_max))
        } else {
            0
        };
        let on_time = self.sent((from, to, bytes), now) + nanos(base) + jitter + clog;
        let mut arrivals = Vec::new();
        if chance.permille(self.weather.reorder_permille) {
            tally.count("messages reordered");
            arrivals.push(on_time + chance.between(0, nanos(LATE_MAX)));
        } else {
            // A stream keeps its order.
            let last = self.last_arrival.entry((from, to)).or_default();
            *last = on_time.max(*last + 1);
            arrivals.push(*last);
        }
        if chance.permille(self.weather.duplicate_permille) {
            tally.count("messages duplicated");
            arrivals.push(on_time + chance.between(0, nanos(LATE_MAX)));
        }
        arrivals
    }
}
