//! The fence: every case of its essay, and a swarm of nodes of which a minority is wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use clock::{
    BoundSource, Change, ErrorBound, Fence, FenceConfig, FenceReason, Leap, Monotonic,
    OffsetEstimate, Verdict,
};
use proptest::prelude::*;

use crate::error_bound::peers;

const GOOD: ErrorBound = ErrorBound { bound: ms(2), source: BoundSource::Kernel };
const WIDE: ErrorBound = ErrorBound { bound: ms(126), source: BoundSource::Kernel };

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn at(ms: u64) -> Monotonic {
    Monotonic::from_nanos(ms * 1_000_000)
}

/// Peers this many milliseconds ahead, 2 ms away.
fn ahead(list: &[i64]) -> BTreeMap<u64, OffsetEstimate> {
    peers(&list.iter().map(|a| (*a, 2, ms(2))).collect::<Vec<_>>())
}

fn judge(list: &[i64], peer_count: usize) -> Change {
    Fence::new(FenceConfig::default()).step(at(0), &ahead(list), peer_count, GOOD)
}

#[test]
fn the_wrong_one_of_three_fences_and_the_others_do_not() {
    assert_eq!(judge(&[-300, -301], 2), Change::Fenced);
    assert_eq!(judge(&[300, 1], 2), Change::None);
    assert_eq!(judge(&[-300, -100], 2), Change::None, "one agrees: two of three");
}

#[test]
fn two_nodes_that_disagree_both_fence() {
    assert_eq!(judge(&[300], 1), Change::Fenced);
    assert_eq!(judge(&[-300], 1), Change::Fenced);
    assert_eq!(judge(&[300], 2), Change::Fenced, "a silent third one does not help");
}

#[test]
fn the_limit_is_eighty_percent_and_must_be_proven() {
    assert_eq!(judge(&[201, 201], 2), Change::None, "201 ms with an error of 1 ms may be 199.999");
    assert_eq!(judge(&[202, 202], 2), Change::Fenced);
    // 300 ms over a link of 240 ms: at least 180. No proof, but no agreement either.
    let far = peers(&[(300, 240, ms(2)), (300, 2, ms(2))]);
    let mut fence = Fence::new(FenceConfig::default());
    assert_eq!(
        fence.step(at(0), &far, 2, GOOD),
        Change::Fenced,
        "one against one; one without a vote"
    );
}

#[test]
fn a_node_alone_is_fenced_by_its_own_bound_only() {
    let mut fence = Fence::new(FenceConfig::default());
    assert_eq!(fence.step(at(0), &BTreeMap::new(), 0, GOOD), Change::None);
    assert_eq!(fence.step(at(1), &BTreeMap::new(), 0, WIDE), Change::Fenced);
    let reason = FenceReason::OwnBound { bound: ms(126), share: ms(125) };
    assert_eq!(fence.verdict(), Verdict::Fenced { since: at(1), reason });
    assert_eq!(
        reason.to_string(),
        "clock error bound 126.000 ms is over this node's share 125.000 ms"
    );
    assert_eq!(fence.leap(), Leap::Follow);
}

#[test]
fn silence_fences_nobody_and_frees_nobody() {
    let silent = BTreeMap::new();
    let mut fence = Fence::new(FenceConfig::default());
    assert_eq!(fence.step(at(0), &silent, 2, GOOD), Change::None);
    assert_eq!(fence.step(at(1), &ahead(&[-300, -300]), 2, GOOD), Change::Fenced);
    for second in 1..60 {
        assert_eq!(fence.step(at(second * 1000), &silent, 2, GOOD), Change::None);
    }
    assert!(matches!(fence.verdict(), Verdict::Fenced { .. }));
    // The peers were removed from the cluster: there is nobody left to vouch.
    for second in 60..65 {
        assert_eq!(fence.step(at(second * 1000), &silent, 0, GOOD), Change::None);
    }
    assert_eq!(fence.step(at(65_000), &silent, 0, GOOD), Change::Returned);
}

#[test]
fn a_skew_of_300_ms_fences_and_returns_five_calm_seconds_after_it_ends() {
    let mut fence = Fence::new(FenceConfig::default());
    assert_eq!(fence.step(at(0), &ahead(&[0, 0]), 2, GOOD), Change::None);
    assert_eq!(fence.step(at(1000), &ahead(&[-300, -300]), 2, GOOD), Change::Fenced);
    let reason = FenceReason::Disagrees { against: 2, agreeing: 1, median_ahead_us: -300_000 };
    assert_eq!(fence.verdict(), Verdict::Fenced { since: at(1000), reason });
    assert_eq!(
        reason.to_string(),
        "clock disagrees with 2 of 3 known clocks, their median is -300.000 ms ahead"
    );
    assert_eq!(fence.leap(), Leap::Hold { ahead_us: -300_000 });
    for second in 2..7 {
        assert_eq!(fence.step(at(second * 1000), &ahead(&[1, 0]), 2, GOOD), Change::None);
    }
    assert_eq!(fence.step(at(6999), &ahead(&[1, 0]), 2, GOOD), Change::None);
    assert_eq!(fence.step(at(7000), &ahead(&[1, 0]), 2, GOOD), Change::Returned);
    assert_eq!(fence.verdict(), Verdict::Clear);
}

#[test]
fn between_the_two_limits_it_neither_fences_nor_returns() {
    let mut fence = Fence::new(FenceConfig::default());
    for second in 0..20 {
        assert_eq!(fence.step(at(second * 1000), &ahead(&[-150, -150]), 2, GOOD), Change::None);
    }
    assert_eq!(fence.step(at(20_000), &ahead(&[-300, -300]), 2, GOOD), Change::Fenced);
    for second in 21..40 {
        assert_eq!(fence.step(at(second * 1000), &ahead(&[-150, -150]), 2, GOOD), Change::None);
    }
}

#[test]
fn a_relapse_starts_the_calm_time_again() {
    let mut fence = Fence::new(FenceConfig::default());
    fence.step(at(0), &ahead(&[-300, -300]), 2, GOOD);
    for second in 1..5 {
        fence.step(at(second * 1000), &ahead(&[0, 0]), 2, GOOD);
    }
    fence.step(at(5000), &ahead(&[-200, -200]), 2, GOOD);
    for second in 6..11 {
        assert_eq!(fence.step(at(second * 1000), &ahead(&[0, 0]), 2, GOOD), Change::None);
    }
    assert_eq!(fence.step(at(11_000), &ahead(&[0, 0]), 2, GOOD), Change::Returned);
}

#[test]
fn time_asleep_is_not_calm_time() {
    let mut fence = Fence::new(FenceConfig::default());
    fence.step(at(0), &ahead(&[-300, -300]), 2, GOOD);
    fence.step(at(1000), &ahead(&[0, 0]), 2, GOOD);
    assert_eq!(fence.step(at(3_600_000), &ahead(&[0, 0]), 2, GOOD), Change::None);
    assert_eq!(fence.step(at(3_605_000), &ahead(&[0, 0]), 2, GOOD), Change::Returned);
}

#[test]
fn the_reason_follows_what_holds_now() {
    let mut fence = Fence::new(FenceConfig::default());
    fence.step(at(0), &ahead(&[0, 0]), 2, WIDE);
    assert!(matches!(fence.verdict().reason(), Some(FenceReason::OwnBound { .. })));
    fence.step(at(1000), &ahead(&[300, 300]), 2, WIDE);
    assert!(matches!(fence.verdict().reason(), Some(FenceReason::Disagrees { .. })));
}

proptest! {
    /// Every node judges with what it sees. A minority is wrong by at least the cap, each in its
    /// own direction; round trips are up to 80 ms. No good node fences, every wrong one does.
    #[test]
    fn exactly_the_wrong_minority_fences(
        good in proptest::collection::vec(-20i64..=20, 2..7),
        wrong in proptest::collection::vec(prop_oneof![-9000i64..=-300, 300i64..=9000], 0..3),
        rtt in 1u64..80,
    ) {
        prop_assume!(wrong.len() < good.len());
        let clocks: Vec<i64> = good.iter().chain(&wrong).copied().collect();
        for (me, mine) in clocks.iter().enumerate() {
            let others = clocks.iter().enumerate().filter(|(i, _)| *i != me);
            let seen: Vec<_> = others.map(|(_, c)| (c - mine, rtt, ms(2))).collect();
            let mut fence = Fence::new(FenceConfig::default());
            let change = fence.step(at(0), &peers(&seen), seen.len(), GOOD);
            let expected = if me < good.len() { Change::None } else { Change::Fenced };
            prop_assert_eq!(change, expected, "node {} of {:?}", me, clocks);
        }
    }

    /// However the evidence comes and goes, a return is always preceded by `calm` of proven
    /// agreement.
    #[test]
    fn a_return_follows_calm_time_only(
        steps in proptest::collection::vec((1u64..2000, 0u8..4), 1..200),
    ) {
        let mut fence = Fence::new(FenceConfig::default());
        let (mut now, mut calm_since) = (0u64, None);
        for (gap, what) in steps {
            now += gap;
            let seen = match what {
                0 => ahead(&[-300, -300]),
                1 => BTreeMap::new(),
                _ => ahead(&[3, -4]),
            };
            let change = fence.step(at(now), &seen, 2, GOOD);
            calm_since = if what >= 2 { calm_since.or(Some(now)) } else { None };
            if change == Change::Returned {
                prop_assert!(calm_since.is_some_and(|start| now - start >= 5000));
            }
        }
    }
}
