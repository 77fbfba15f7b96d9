//! Offsets: the truth always lies inside of the error, and steps on either side show at once.

use std::time::Duration;

use clock::{
    AGE_MAX_DEFAULT, Monotonic, OffsetTable, RoundTrip, SAMPLES_MAX, WallTime, median_ahead_us,
};
use proptest::prelude::*;

const BASE_US: i64 = 1_000_000_000;

fn mono(us: i64) -> Monotonic {
    Monotonic::from_nanos(us as u64 * 1000)
}

/// Our wall clock at monotonic microsecond `us`, in a world where ours is right.
fn wall(us: i64) -> WallTime {
    WallTime::from_micros((BASE_US + us) as u64)
}

/// A reply made `there_us` after the request was sent and received `back_us` later, by a peer
/// `ahead_us` ahead.
fn trip(sent_us: i64, there_us: i64, back_us: i64, ahead_us: i64) -> RoundTrip {
    RoundTrip {
        sent: mono(sent_us),
        received: mono(sent_us + there_us + back_us),
        remote: WallTime::from_micros((BASE_US + sent_us + there_us + ahead_us) as u64),
        advertised: Duration::from_millis(1),
    }
}

fn table() -> OffsetTable {
    let mut table = OffsetTable::new(AGE_MAX_DEFAULT);
    table.set_peers([1, 2, 3]);
    table
}

#[test]
fn a_symmetric_trip_is_exact() {
    let mut table = table();
    table.record(1, trip(0, 500, 500, 42));
    let e = table.estimate(1, wall(1000), mono(1000)).unwrap();
    assert_eq!(e.ahead_us(), 42);
    assert_eq!(e.error(), Duration::from_micros(501), "half of the trip and the rounding");
    assert_eq!(e.to_string(), "+42us±501us");
}

#[test]
fn the_shortest_trip_counts() {
    let mut table = table();
    table.record(1, trip(0, 100, 100, 42));
    table.record(1, trip(1_000, 100, 90_000, 42));
    let e = table.estimate(1, wall(100_000), mono(100_000)).unwrap();
    assert_eq!(e.ahead_us(), 42);
    assert!(e.error() < Duration::from_micros(260));
}

#[test]
fn a_step_of_our_own_wall_clock_shows_without_a_new_trip() {
    let mut table = table();
    table.record(1, trip(0, 100, 100, 0));
    let stepped = wall(1000).plus(Duration::from_millis(300));
    assert_eq!(table.estimate(1, stepped, mono(1000)).unwrap().ahead_us(), -300_000);
    assert_eq!(table.estimate(1, wall(1000), mono(1000)).unwrap().ahead_us(), 0);
}

#[test]
fn a_step_of_the_peers_clock_shows_with_the_next_trip() {
    let mut table = table();
    for i in 0..SAMPLES_MAX as i64 {
        table.record(1, trip(i * 1000, 100, 100, 0));
    }
    table.record(1, trip(10_000, 400, 400, 300_000));
    let e = table.estimate(1, wall(11_000), mono(11_000)).unwrap();
    assert_eq!(e.ahead_us(), 300_000, "the older, shorter trips are about the past");
    // A reply from before the step that arrives late does not bring the past back.
    table.record(1, trip(9_000, 50, 50, 0));
    assert_eq!(table.estimate(1, wall(11_000), mono(11_000)).unwrap(), e);
}

#[test]
fn samples_age_out_and_unknown_peers_are_none() {
    let mut table = table();
    table.record(1, trip(0, 100, 100, 0));
    table.record(9, trip(0, 100, 100, 0));
    let late = 200 + AGE_MAX_DEFAULT.as_micros() as i64;
    assert!(table.estimate(1, wall(late), mono(late)).is_some());
    assert!(table.estimate(1, wall(late + 1), mono(late + 1)).is_none());
    assert!(table.estimate(2, wall(200), mono(200)).is_none(), "never measured");
    assert!(table.estimate(9, wall(200), mono(200)).is_none(), "not a peer");
    assert_eq!((table.peer_count(), table.estimates(wall(200), mono(200)).len()), (3, 1));
}

#[test]
fn a_peer_that_left_is_forgotten() {
    let mut table = table();
    table.record(1, trip(0, 100, 100, 0));
    table.set_peers([2]);
    table.set_peers([1, 2]);
    assert!(table.estimate(1, wall(200), mono(200)).is_none());
}

#[test]
fn a_trip_that_ends_before_it_begins_is_ignored() {
    let mut table = table();
    let mut bad = trip(1000, 100, 100, 0);
    bad.received = mono(900);
    table.record(1, bad);
    assert!(table.estimate(1, wall(1200), mono(1200)).is_none());
}

#[test]
fn the_median_takes_more_than_half_of_the_peers_to_move() {
    let median = |offsets: &[i64]| {
        let mut table = OffsetTable::new(AGE_MAX_DEFAULT);
        table.set_peers(0..offsets.len() as u64);
        for (peer, ahead) in offsets.iter().enumerate() {
            table.record(peer as u64, trip(0, 100, 100, *ahead));
        }
        median_ahead_us(&table.estimates(wall(200), mono(200)))
    };
    assert_eq!(median(&[]), 0);
    assert_eq!(median(&[7]), 7);
    assert_eq!(median(&[0, 300_000]), 0);
    assert_eq!(median(&[-300_000, 1, -2]), -2);
    assert_eq!(median(&[0, 1, 300_000, 300_000]), 1);
}

proptest! {
    /// The peer drifts within the assumed rate; trips are lopsided, overlap, and arrive in any
    /// order, some twice.
    #[test]
    fn the_truth_lies_within_the_error(
        ahead in -400_000i64..400_000,
        ppm in -1499i64..1500,
        trips in proptest::collection::vec((0i64..5_000_000, 1i64..200_000, 1i64..200_000, 0usize..2), 1..30),
        later in 0i64..4_000_000,
    ) {
        let ahead_at = |us: i64| ahead + us * ppm / 1_000_000;
        let mut table = table();
        let mut end = 0;
        for (sent, there, back, again) in trips {
            let t = trip(sent, there, back, ahead_at(sent + there));
            for _ in 0..=again {
                table.record(1, t);
            }
            end = end.max(sent + there + back);
        }
        let now = end + later;
        let e = table.estimate(1, wall(now), mono(now)).unwrap();
        let truth = ahead_at(now);
        let off = Duration::from_micros((e.ahead_us() - truth).unsigned_abs());
        // Two microseconds for the rounding of this test's own arithmetic.
        prop_assert!(off <= e.error() + Duration::from_micros(2), "{e}, truth {truth}");
        let distance = Duration::from_micros(truth.unsigned_abs());
        prop_assert!(e.at_least() <= distance + Duration::from_micros(2));
        prop_assert!(e.at_most() + Duration::from_micros(2) >= distance);
    }

    #[test]
    fn no_reading_overflows(
        trips in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 1..20),
        w in any::<u64>(), now in any::<u64>(), advertised in any::<u64>(),
    ) {
        let mut table = OffsetTable::new(Duration::MAX);
        table.set_peers([1]);
        for (sent, received, remote) in trips {
            table.record(1, RoundTrip {
                sent: Monotonic::from_nanos(sent),
                received: Monotonic::from_nanos(received),
                remote: WallTime::from_micros(remote),
                advertised: Duration::from_micros(advertised),
            });
        }
        for e in table.estimates(WallTime::from_micros(w), Monotonic::from_nanos(now)).values() {
            prop_assert!(e.at_least() <= e.at_most());
        }
    }
}
