//! Points in time: order, carry, saturation, text.

use std::time::Duration;

use clock::{ClockTimestamp, LOGICAL_BITS, Monotonic, Timestamp, WallTime};
use proptest::prelude::*;

#[test]
fn text_is_seconds_micros_logical() {
    assert_eq!(Timestamp::new(12_000_005, 3).to_string(), "12.000005,3");
    assert_eq!(ClockTimestamp::from_raw(Timestamp::new(1, 0).raw()).to_string(), "0.000001,0");
    assert_eq!(WallTime::from_micros(12_000_005).to_string(), "12.000005");
}

#[test]
fn a_full_logical_counter_carries_into_the_microseconds() {
    assert_eq!(Timestamp::new(7, 4095).next(), Timestamp::new(8, 0));
    assert_eq!(Timestamp::new(8, 0).prev(), Timestamp::new(7, 4095));
}

#[test]
fn the_ends_saturate() {
    assert_eq!(Timestamp::MAX.next(), Timestamp::MAX);
    assert_eq!(Timestamp::MIN.prev(), Timestamp::MIN);
    assert_eq!(Timestamp::MAX.plus(Duration::MAX), Timestamp::MAX);
    assert_eq!(Timestamp::MIN.minus(Duration::MAX), Timestamp::MIN);
    assert_eq!(Timestamp::new(5, 0).since(Timestamp::new(6, 0)), Duration::ZERO);
    assert_eq!(Monotonic::from_nanos(5).since(Monotonic::from_nanos(6)), Duration::ZERO);
    assert_eq!(Monotonic::from_nanos(5).plus(Duration::MAX), Monotonic::MAX);
    assert_eq!(WallTime::from_micros(u64::MAX).timestamp().micros(), (1 << 52) - 1);
    assert_eq!(WallTime::from_micros(5).minus(Duration::from_secs(1)).micros(), 0);
    assert_eq!(WallTime::from_micros(5).plus(Duration::MAX).micros(), u64::MAX);
}

#[test]
#[should_panic(expected = "logical counter 4096 over 12 bits")]
fn a_logical_part_that_does_not_fit_is_a_bug() {
    let _ = Timestamp::new(1, 1 << LOGICAL_BITS);
}

proptest! {
    #[test]
    fn order_is_the_order_of_the_parts(a in 0u64..1 << 52, al in 0u16..4096, b in 0u64..1 << 52, bl in 0u16..4096) {
        let (x, y) = (Timestamp::new(a, al), Timestamp::new(b, bl));
        prop_assert_eq!(x.cmp(&y), (a, al).cmp(&(b, bl)));
        prop_assert_eq!(x.raw().to_be_bytes().cmp(&y.raw().to_be_bytes()), x.cmp(&y));
        prop_assert_eq!(Timestamp::from_raw(x.raw()), x);
        prop_assert_eq!((x.micros(), x.logical()), (a, al));
    }

    #[test]
    fn next_is_the_smallest_that_is_greater(raw in 0u64..u64::MAX) {
        let t = Timestamp::from_raw(raw);
        prop_assert!(t.next() > t);
        prop_assert_eq!(t.next().prev(), t);
    }

    #[test]
    fn plus_and_minus_are_inverse_where_nothing_saturates(micros in 1u64 << 40..1 << 51, by in 0u64..1 << 40) {
        let t = Timestamp::new(micros, 17);
        let d = Duration::from_micros(by);
        prop_assert_eq!(t.plus(d).minus(d), t);
        prop_assert_eq!(t.plus(d).since(t), d);
    }
}
