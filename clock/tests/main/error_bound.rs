//! Error bounds: the sum of two nodes' bounds covers the true difference of their clocks.

use std::collections::BTreeMap;
use std::time::Duration;

use clock::{
    AGE_MAX_DEFAULT, BoundSource, CAP_DEFAULT, ErrorBound, KernelClock, Monotonic, OffsetEstimate,
    OffsetTable, RoundTrip, WallTime, largest_advertised, share, uncertainty,
};
use proptest::prelude::*;

const CAP: Duration = CAP_DEFAULT;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn kernel(error_max: Duration) -> KernelClock {
    KernelClock::Synchronised { error_max }
}

/// Peers numbered from zero, each (how far ahead in ms, round trip in ms, advertised).
pub(crate) fn peers(list: &[(i64, u64, Duration)]) -> BTreeMap<u64, OffsetEstimate> {
    const WALL_US: i64 = 1_000_000_000;
    let mut table = OffsetTable::new(AGE_MAX_DEFAULT);
    table.set_peers(0..list.len() as u64);
    let end = Monotonic::from_nanos(10_000_000_000);
    for (peer, (ahead, rtt, advertised)) in list.iter().enumerate() {
        let remote = WALL_US - (*rtt as i64) * 500 + ahead * 1000;
        table.record(
            peer as u64,
            RoundTrip {
                sent: Monotonic::from_nanos(end.nanos() - rtt * 1_000_000),
                received: end,
                remote: WallTime::from_micros(remote as u64),
                advertised: *advertised,
            },
        );
    }
    table.estimates(WallTime::from_micros(WALL_US as u64), end)
}

#[test]
fn a_synchronised_kernel_is_believed() {
    let near = peers(&[(0, 80, ms(2)), (1, 200, ms(3))]);
    let own = ErrorBound::of(kernel(ms(4)), &near, 2, Duration::ZERO, CAP);
    assert_eq!(own, ErrorBound { bound: ms(4), source: BoundSource::Kernel });
    assert_eq!(uncertainty(own, largest_advertised(&near, 2, CAP), CAP), ms(7));
}

#[test]
fn a_small_offset_with_a_large_kernel_bound_is_judged_by_what_was_measured() {
    // oxidecomputer/omicron#7668: a node that just booted; NTP has found the time but does not
    // vouch for it yet.
    let near = peers(&[(0, 2, ms(2)), (0, 2, ms(2))]);
    let own = ErrorBound::of(kernel(ms(900)), &near, 2, Duration::ZERO, CAP);
    assert_eq!(own.source, BoundSource::Measured);
    assert!(own.bound < ms(2));
}

#[test]
fn a_kernel_that_a_peer_contradicts_is_not_believed() {
    let apart = peers(&[(100, 2, ms(1))]);
    let own = ErrorBound::of(kernel(ms(1)), &apart, 1, Duration::ZERO, CAP);
    assert_eq!(own.source, BoundSource::Measured);
    assert!(own.bound >= ms(101));
}

#[test]
fn nothing_known_is_half_of_the_cap_and_the_whole_cap_for_a_reader() {
    let none = BTreeMap::new();
    let own = ErrorBound::of(KernelClock::Unsynchronised, &none, 2, Duration::ZERO, CAP);
    assert_eq!(own, ErrorBound { bound: share(CAP), source: BoundSource::Assumed });
    assert_eq!(uncertainty(own, largest_advertised(&none, 2, CAP), CAP), CAP);
}

#[test]
fn a_measurement_counts_only_if_it_covers_every_peer() {
    let one = peers(&[(0, 2, ms(1))]);
    let own = |peer_count| {
        ErrorBound::of(KernelClock::Unsynchronised, &one, peer_count, Duration::ZERO, CAP)
    };
    assert_eq!(own(1).source, BoundSource::Measured);
    assert_eq!(own(2).source, BoundSource::Assumed);
}

#[test]
fn a_clock_that_is_held_back_is_wrong_by_that_much_more() {
    let own = ErrorBound::of(kernel(ms(4)), &BTreeMap::new(), 0, ms(30), CAP);
    assert_eq!(own.bound, ms(34));
}

#[test]
fn a_node_alone_needs_to_distrust_only_itself() {
    let none = BTreeMap::new();
    let own = ErrorBound::of(kernel(ms(4)), &none, 0, Duration::ZERO, CAP);
    assert_eq!(uncertainty(own, largest_advertised(&none, 0, CAP), CAP), ms(4));
}

#[test]
fn uncertainty_never_passes_the_cap() {
    let wide = ErrorBound { bound: Duration::MAX, source: BoundSource::Kernel };
    assert_eq!(uncertainty(wide, Duration::MAX, CAP), CAP);
}

proptest! {
    /// Two nodes, each with any true error below its share, each kernel honest or unsynchronised,
    /// any round trip.
    #[test]
    fn two_bounds_cover_the_true_difference(
        x in -125i64..=125, y in -125i64..=125,
        slack_x in 0u64..100, slack_y in 0u64..100,
        synced_x in any::<bool>(), synced_y in any::<bool>(),
        rtt in 1u64..600, known in any::<bool>(),
    ) {
        let kernel_of = |error: i64, slack: u64, synced: bool| match synced {
            true => kernel(ms(error.unsigned_abs() + slack)),
            false => KernelClock::Unsynchronised,
        };
        let bound = |mine: i64, theirs: i64, k: KernelClock, advertised: Duration| {
            let seen = peers(&[(theirs - mine, rtt, advertised)]);
            let seen = if known { seen } else { BTreeMap::new() };
            ErrorBound::of(k, &seen, 1, Duration::ZERO, CAP)
        };
        // What each advertised before it knew the other, then with it.
        let (kx, ky) = (kernel_of(x, slack_x, synced_x), kernel_of(y, slack_y, synced_y));
        let first_x = ErrorBound::of(kx, &BTreeMap::new(), 1, Duration::ZERO, CAP).bound;
        let own_y = bound(y, x, ky, first_x);
        let own_x = bound(x, y, kx, own_y.bound);
        let difference = ms((x - y).unsigned_abs());
        prop_assert!(own_x.bound + own_y.bound >= difference, "{own_x:?} {own_y:?} {difference:?}");
    }
}
