//! Value: how far the peers' wall clocks are from ours, from round trips.
//!
//! Problem: a wrong clock must be found within a second, over links whose round trips are longer
//! than the error that matters, and no matter whether our clock or the peer's has moved.
//!
//! Idea: a reply that carries the peer's wall clock was made somewhere between our sending and our
//! receiving, so the peer's clock is known to within half of a round trip. Cristian 1989:
//!
//! ```text
//!   we      sent |--------------- rtt ---------------| received        (our monotonic clock)
//!   peer                      | remote (its wall clock)
//!                -rtt/2 ------^------ +rtt/2       the instant of `remote`, on our monotonic clock
//! ```
//!
//! A sample keeps *the peer's wall clock minus our monotonic clock*. Our own wall clock comes in
//! only when an offset is asked for, so that a step of it shows at once against every peer, without
//! one more message. Wall clocks are the disciplined ones here ([`crate::Discipline`]): within the
//! cap they do not step.
//!
//! Of the last [`SAMPLES_MAX`] samples the one with the smallest error counts (the shortest round
//! trip had the least queueing; NTP's clock filter, RFC 5905 section 10). Age adds [`DRIFT_PPM`].
//! When the newest sample cannot be true together with an older one, the peer's clock has moved and
//! the older ones are dropped.
//!
//! # Invariants
//!
//! - The true difference lies within [`OffsetEstimate::error`] of the estimate, if the reply was
//!   made inside of the round trip, neither clock stepped since, and no clock drifts more than
//!   [`DRIFT_PPM`].
//! - A duplicated or reordered reply cannot make an estimate wrong, only wider. A reading that no
//!   clock can have does not overflow (H15).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::discipline::SLEW_PPM;
use crate::timestamp::{Monotonic, WallTime};

/// Samples kept per peer.
pub const SAMPLES_MAX: usize = 8;
/// Assumed drift of a peer's clock against our monotonic clock, parts per million: each machine's
/// oscillator is off by up to 500 (what NTP assumes, RFC 5905), and the peer's clock is being moved
/// towards its wall clock.
pub const DRIFT_PPM: u32 = 2 * 500 + SLEW_PPM;
/// Default age after which a sample says nothing any more.
pub const AGE_MAX_DEFAULT: Duration = Duration::from_secs(10);

/// One request and its reply, matched by the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoundTrip {
    /// Our monotonic clock when the request was handed to the transport.
    pub sent: Monotonic,
    /// Our monotonic clock when the reply arrived.
    pub received: Monotonic,
    /// The peer's *wall* clock when it made the reply. Not its HLC, which other nodes push.
    pub remote: WallTime,
    /// The peer's own error bound, as it advertises it in the reply.
    pub advertised: Duration,
}

/// Where a peer's wall clock is, seen from ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OffsetEstimate {
    ahead_us: i64,
    error: Duration,
    advertised: Duration,
    round_trip: Duration,
}

impl OffsetEstimate {
    /// Microseconds by which the peer's clock is ahead of ours; negative when it is behind.
    /// Saturates.
    pub const fn ahead_us(&self) -> i64 {
        self.ahead_us
    }

    /// How wrong [`OffsetEstimate::ahead_us`] can be.
    pub const fn error(&self) -> Duration {
        self.error
    }

    /// The peer's own error bound when it replied, plus what it can have drifted since.
    pub const fn advertised(&self) -> Duration {
        self.advertised
    }

    /// The shortest round trip of late.
    pub const fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// The distance of the two clocks, either way.
    pub const fn distance(&self) -> Duration {
        Duration::from_micros(self.ahead_us.unsigned_abs())
    }

    /// The clocks are provably at least this far apart.
    pub const fn at_least(&self) -> Duration {
        self.distance().saturating_sub(self.error)
    }

    /// The clocks are at most this far apart.
    pub const fn at_most(&self) -> Duration {
        self.distance().saturating_add(self.error)
    }
}

impl fmt::Display for OffsetEstimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:+}us±{}us", self.ahead_us, self.error.as_micros())
    }
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    /// The peer's wall clock minus our monotonic clock, in nanoseconds. Wide enough for every u64
    /// of both.
    base_ns: i128,
    error_ns: u64,
    round_trip: Duration,
    received: Monotonic,
    advertised: Duration,
}

impl Sample {
    fn of(trip: &RoundTrip) -> Sample {
        let rtt = trip.received.since(trip.sent);
        let rtt_ns = u64::try_from(rtt.as_nanos()).unwrap_or(u64::MAX);
        let middle_ns = i128::from(trip.sent.nanos()) + i128::from(rtt_ns / 2);
        Sample {
            base_ns: i128::from(trip.remote.micros()) * 1000 - middle_ns,
            // The wall clock is read in whole microseconds, at both ends.
            error_ns: rtt_ns.div_ceil(2).saturating_add(1000),
            round_trip: rtt,
            received: trip.received,
            advertised: trip.advertised,
        }
    }

    fn error_ns_at(&self, now: Monotonic) -> u64 {
        self.error_ns.saturating_add(drift_ns(now.since(self.received)))
    }

    /// Both can be true, seen from `now`.
    fn agrees_with(&self, other: &Sample, now: Monotonic) -> bool {
        let reach = i128::from(self.error_ns_at(now)) + i128::from(other.error_ns_at(now));
        (self.base_ns - other.base_ns).abs() <= reach
    }
}

fn drift_ns(age: Duration) -> u64 {
    u64::try_from(age.as_nanos() * u128::from(DRIFT_PPM) / 1_000_000).unwrap_or(u64::MAX)
}

/// All peers of one node. Peers are named by their node id.
#[derive(Clone, Debug)]
pub struct OffsetTable {
    age_max: Duration,
    /// Oldest first, at most [`SAMPLES_MAX`] each; empty for a peer that was never measured.
    peers: BTreeMap<u64, Vec<Sample>>,
}

impl OffsetTable {
    /// An empty table whose samples count for `age_max`. It should be several times the interval of
    /// the round trips.
    pub fn new(age_max: Duration) -> OffsetTable {
        OffsetTable { age_max, peers: BTreeMap::new() }
    }

    /// The peers there are, measured or not. Samples of peers that are not named any more are
    /// forgotten.
    pub fn set_peers(&mut self, peers: impl IntoIterator<Item = u64>) {
        let mut old = std::mem::take(&mut self.peers);
        for peer in peers {
            self.peers.insert(peer, old.remove(&peer).unwrap_or_default());
        }
    }

    /// Adds a round trip. Ignored when it ends before it begins, when `peer` is not in the table,
    /// or when it arrived late and contradicts what is newer.
    pub fn record(&mut self, peer: u64, trip: RoundTrip) {
        let Some(samples) = self.peers.get_mut(&peer) else { return };
        if trip.received < trip.sent {
            return;
        }
        let sample = Sample::of(&trip);
        let newest = samples.last().map_or(Monotonic::ZERO, |s| s.received);
        if sample.received < newest {
            let contradicts =
                |s: &Sample| s.received > sample.received && !s.agrees_with(&sample, newest);
            if samples.iter().any(contradicts) {
                return;
            }
        } else {
            samples.retain(|s| s.agrees_with(&sample, sample.received));
        }
        let place = samples.partition_point(|s| s.received <= sample.received);
        samples.insert(place, sample);
        if samples.len() > SAMPLES_MAX {
            samples.remove(0);
        }
    }

    /// How many peers there are, measured or not.
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// Where one peer's clock is, given our own clocks. `None` without a sample young enough.
    pub fn estimate(&self, peer: u64, wall: WallTime, now: Monotonic) -> Option<OffsetEstimate> {
        let samples = self.peers.get(&peer)?;
        let mut fresh = samples.iter().filter(|s| now.since(s.received) <= self.age_max);
        let best = fresh.clone().min_by_key(|s| s.error_ns_at(now))?;
        let round_trip = fresh.clone().map(|s| s.round_trip).min()?;
        let newest = fresh.next_back()?;
        let ahead_ns = best.base_ns + i128::from(now.nanos()) - i128::from(wall.micros()) * 1000;
        let ahead_us = i64::try_from(ahead_ns / 1000).unwrap_or(if ahead_ns < 0 {
            i64::MIN
        } else {
            i64::MAX
        });
        let drift = Duration::from_nanos(drift_ns(now.since(newest.received)));
        Some(OffsetEstimate {
            ahead_us,
            error: Duration::from_nanos(best.error_ns_at(now)),
            advertised: newest.advertised.saturating_add(drift),
            round_trip,
        })
    }

    /// All peers with a sample young enough, by id.
    pub fn estimates(&self, wall: WallTime, now: Monotonic) -> BTreeMap<u64, OffsetEstimate> {
        let known = |peer: &u64| self.estimate(*peer, wall, now).map(|e| (*peer, e));
        self.peers.keys().filter_map(known).collect()
    }
}

/// The median of how far the peers are ahead of us, in microseconds; zero without peers. Of an even
/// number the one nearer to zero, so that it takes more than half of the peers to move it.
pub fn median_ahead_us(estimates: &BTreeMap<u64, OffsetEstimate>) -> i64 {
    let mut ahead: Vec<i64> = estimates.values().map(OffsetEstimate::ahead_us).collect();
    ahead.sort_unstable();
    let middle = ahead.len() / 2;
    match ahead.len() {
        0 => 0,
        n if n % 2 == 1 => ahead[middle],
        _ => std::cmp::min_by_key(ahead[middle - 1], ahead[middle], |a| a.unsigned_abs()),
    }
}
