//! Value: the network: who can reach whom, how late, and what is lost, doubled or overtaken.
//!
//! Links are directed. Without faults a link keeps its order, as a stream does. A message is addressed to a machine, not to a process: it may
//! arrive at a later incarnation.

use replication::range::{NodeId, RegionId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::chance::Chance;
use super::tally::Tally;

/// Misbehaviour of all links, or of one in one direction, in thousandths of messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Weather {
    /// Never arrive.
    pub loss_permille: u32,
    /// Arrive twice.
    pub duplicate_permille: u32,
    /// Are late enough to be overtaken.
    pub reorder_permille: u32,
}

/// What becomes of gateways' calls to ranges, on all links or on one: each call goes its own way, so that one is overtaken by others, or comes
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

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Weather { loss_permille, duplicate_permille, reorder_permille } = self;
        write!(
            f,
            "of 1000 messages {loss_permille} lost, {duplicate_permille} doubled, {reorder_permille} reordered"
        )
    }
}

impl fmt::Display for Straying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Straying { late_permille, again_permille, longest } = self;
        write!(
            f,
            "of 1000 calls {late_permille} stray and {again_permille} come again, by up to {longest:?}"
        )
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Network {
    regions: BTreeMap<NodeId, RegionId>,
    one_way: BTreeMap<(RegionId, RegionId), Duration>,
    cuts: BTreeMap<(NodeId, NodeId), u32>,
    regions_cut: BTreeMap<RegionId, u32>,
    /// Cut off from everybody until all is healed, whatever cuts come and go.
    away: Option<NodeId>,
    clogged: BTreeSet<(NodeId, NodeId)>,
    clog_max: Duration,
    weather: Weather,
    straying: Straying,
    /// Of links that have a weather of their own.
    weather_of: BTreeMap<(NodeId, NodeId), Weather>,
    straying_of: BTreeMap<(NodeId, NodeId), Straying>,
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

    /// How long it takes from one region to another; the way back is another matter.
    pub fn set_one_way(&mut self, from: RegionId, to: RegionId, latency: Duration) {
        self.one_way.insert((from, to), latency);
    }

    /// The longest round trip.
    pub fn longest_round_trip(&self) -> Duration {
        let back = |(from, to): &(RegionId, RegionId)| self.one_way.get(&(*to, *from)).copied();
        let trips = self.one_way.iter().map(|(link, there)| *there + back(link).unwrap_or(*there));
        trips.max().unwrap_or(LOCAL * 2)
    }

    /// From now on.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// From now on, on one link in one direction, whatever it is elsewhere; the default ends that.
    pub fn set_weather_of(&mut self, from: NodeId, to: NodeId, weather: Weather) {
        self.weather_of.insert((from, to), weather);
        self.weather_of.retain(|_, weather| *weather != Weather::default());
    }

    /// From now on.
    pub fn set_straying(&mut self, straying: Straying) {
        self.straying = straying;
    }

    /// From now on, on one link in one direction, whatever it is elsewhere; the default ends that.
    pub fn set_straying_of(&mut self, from: NodeId, to: NodeId, straying: Straying) {
        self.straying_of.insert((from, to), straying);
        self.straying_of.retain(|_, straying| *straying != Straying::default());
    }

    fn weather(&self, from: NodeId, to: NodeId) -> Weather {
        self.weather_of.get(&(from, to)).copied().unwrap_or(self.weather)
    }

    fn straying(&self, from: NodeId, to: NodeId) -> Straying {
        self.straying_of.get(&(from, to)).copied().unwrap_or(self.straying)
    }

    /// Whether calls stray there now.
    pub fn calls_stray(&self, from: NodeId, to: NodeId) -> bool {
        self.straying(from, to) != Straying::default()
    }

    /// How much later than they should the copies of a call arrive: one, or two where it may be doubled and is.
    pub fn stray(
        &self,
        (from, to): (NodeId, NodeId),
        may_double: bool,
        chance: &mut Chance,
        tally: &mut Tally,
    ) -> Vec<Duration> {
        let Straying { late_permille, again_permille, longest } = self.straying(from, to);
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

    /// Nothing passes from or to the node before [`Network::heal`]. The end of a cut that began before does not end this.
    pub fn send_away(&mut self, node: NodeId) {
        self.away = Some(node);
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
        self.away = None;
        self.clogged.clear();
        self.weather = Weather::default();
        self.straying = Straying::default();
        self.weather_of.clear();
        self.straying_of.clear();
    }

    /// Whether nothing passes now.
    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        if from != to && [from, to].iter().any(|node| self.away == Some(*node)) {
            return true;
        }
        if self.cuts.contains_key(&(from, to)) {
            return true;
        }
        let (here, there) = (self.regions[&from], self.regions[&to]);
        here != there && [here, there].iter().any(|region| self.regions_cut.contains_key(region))
    }

    /// Whether messages are overtaken by others there now.
    pub fn is_disordered(&self, from: NodeId, to: NodeId) -> bool {
        self.weather(from, to).reorder_permille > 0
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
        let weather = self.weather(from, to);
        if chance.permille(weather.loss_permille) {
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
        if chance.permille(weather.reorder_permille) {
            tally.count("messages reordered");
            arrivals.push(on_time + chance.between(0, nanos(LATE_MAX)));
        } else {
            // A stream keeps its order.
            let last = self.last_arrival.entry((from, to)).or_default();
            *last = on_time.max(*last + 1);
            arrivals.push(*last);
        }
        if chance.permille(weather.duplicate_permille) {
            tally.count("messages duplicated");
            arrivals.push(on_time + chance.between(0, nanos(LATE_MAX)));
        }
        arrivals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::chance::Purpose;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn network() -> Network {
        let mut network =
            Network::new(BTreeMap::from([(A, RegionId(1)), (B, RegionId(2))]), CLOG_MAX);
        network.set_round_trip(RegionId(1), RegionId(2), Duration::from_millis(100));
        network
    }

    /// How many of 200 messages arrive, and how late the first one is, milliseconds.
    fn sent(network: &mut Network, from: NodeId, to: NodeId) -> (usize, u64) {
        let (mut chance, mut tally) = (Chance::new(1, Purpose::Network), Tally::default());
        let mut arrivals = (0..200)
            .flat_map(|_| network.arrivals((from, to, 1), 0, &mut chance, &mut tally))
            .collect::<Vec<u64>>();
        arrivals.sort_unstable();
        (arrivals.len(), arrivals.first().map_or(0, |first| first / 1_000_000))
    }

    #[test]
    fn one_link_has_a_weather_of_its_own_in_one_direction() {
        let mut network = network();
        let lossy = Weather { loss_permille: 500, ..Weather::default() };
        network.set_weather_of(A, B, lossy);
        let straying = Straying { late_permille: 1, ..Straying::default() };
        network.set_straying_of(B, A, straying);
        assert!((60..140).contains(&sent(&mut network, A, B).0));
        assert_eq!(sent(&mut network, B, A).0, 200);
        assert!(network.calls_stray(B, A) && !network.calls_stray(A, B));
        network.set_weather_of(A, B, Weather::default());
        network.set_straying_of(B, A, Straying::default());
        assert_eq!(sent(&mut network, A, B).0, 200);
        assert!(!network.calls_stray(B, A));
    }

    #[test]
    fn there_and_back_may_differ() {
        let mut network = network();
        network.set_one_way(RegionId(1), RegionId(2), Duration::from_millis(90));
        network.set_one_way(RegionId(2), RegionId(1), Duration::from_millis(10));
        assert!((90..100).contains(&sent(&mut network, A, B).1));
        assert!((10..12).contains(&sent(&mut network, B, A).1));
        assert_eq!(network.longest_round_trip(), Duration::from_millis(100));
    }
}
