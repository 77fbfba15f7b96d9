//! The router: ranges that split, leases that move, nodes that do not answer.

use super::{key, routed, value};
use bytes::Bytes;
use replication::range::{NodeId, RangeId};
use std::time::Duration;
use storage::{Direction, Key, Span};
use txn::client::{CommitPath, ScanOptions, TxnError, TxnOptions};
use txn::testing::Fate;

fn name(n: u32) -> Key {
    key(&format!("{n:03}"))
}

#[test]
fn splits_and_lease_moves_are_followed_without_errors() {
    let t = routed(1);
    t.world.block_on(async {
        for round in 0..20u32 {
            t.peers.split_at(name(round * 5 + 2));
            t.peers.move_lease(&name(round * 5), NodeId(round % 3 + 1));
            let mut txn = t.db.begin(TxnOptions::default());
            for n in round * 5..round * 5 + 5 {
                txn.put(name(n), Bytes::from(n.to_string())).expect("open");
            }
            let info = txn.commit().await.expect("found");
            assert_eq!(info.path, CommitPath::Parallel);
            let mut check = t.db.begin(TxnOptions::default());
            let page = check.scan(Span::all(), ScanOptions::default()).await.expect("found");
            assert_eq!(page.rows.len() as u32, round * 5 + 5);
        }
    });
    t.world.settle(Duration::from_secs(5));
    assert_eq!(t.kv.lock_count(), 0);
}

#[test]
fn scans_over_many_ranges_give_every_row_once_in_order_within_their_limits() {
    let t = routed(2);
    t.world.block_on(async {
        let mut txn = t.db.begin(TxnOptions::default());
        for n in 0..60 {
            txn.put(name(n), value("x")).expect("open");
        }
        txn.commit().await.expect("found");
        for n in [7, 8, 20, 21, 35, 50] {
            t.peers.split_at(name(n));
        }
        for direction in [Direction::Forward, Direction::Reverse] {
            for limit in [0, 1, 3, 13, 60, 100] {
                for bytes_max in [0, 1, 20, 10_000] {
                    let options =
                        ScanOptions { direction, limit, bytes_max, ..ScanOptions::default() };
                    let mut seen = Vec::new();
                    let mut rest = Some(Span::all());
                    let mut txn = t.db.begin(TxnOptions::default());
                    while let Some(span) = rest {
                        let page = txn.scan(span, options).await.expect("found");
                        assert!(limit == 0 || page.rows.len() as u64 <= limit);
                        seen.extend(page.rows.into_iter().map(|(key, _)| key));
                        rest = page.resume;
                    }
                    if direction == Direction::Reverse {
                        seen.reverse();
                    }
                    assert_eq!(seen, (0..60).map(name).collect::<Vec<_>>(), "{options:?}");
                }
            }
        }
    });
}

/// A range may split between the question whether the writes are in one range and the commit.
#[test]
fn a_split_under_a_one_phase_commit_makes_it_parallel() {
    let t = routed(3);
    t.world.block_on(async {
        let mut warm = t.db.begin(TxnOptions::default());
        warm.get(&name(1), None).await.expect("found");
        t.peers.split_at(name(5));
        let mut txn = t.db.begin(TxnOptions::default());
        txn.put(name(1), value("a")).expect("open");
        txn.put(name(9), value("b")).expect("open");
        let info = txn.commit().await.expect("found");
        assert_eq!(info.path, CommitPath::Parallel);
    });
}

/// Reads outside the range of a one-phase commit: the range must not move the commit on its own.
#[test]
fn a_one_phase_commit_with_reads_elsewhere_refreshes_them_too() {
    let t = routed(4);
    t.peers.split_at(name(5));
    t.world.block_on(async {
        let mut txn = t.db.begin(TxnOptions::default());
        assert_eq!(txn.get(&name(9), None).await, Ok(None));
        // Somebody overwrites what was read, and somebody else reads what will be written: the commit must go above both.
        let mut other = t.db.begin(TxnOptions::default());
        other.put(name(9), value("changed")).expect("open");
        other.commit().await.expect("found");
        let mut reader = t.db.begin(TxnOptions::default());
        assert_eq!(reader.get(&name(1), None).await, Ok(None));
        txn.put(name(1), value("stale")).expect("open");
        assert!(matches!(txn.commit().await, Err(TxnError::Retry { .. })));
    });
}

#[test]
fn a_silent_leaseholder_is_replaced_by_its_successor() {
    let t = routed(5);
    t.peers.set_fates(|to, _| if to == NodeId(1) { Fate::LostBefore } else { Fate::Delivered });
    t.peers.move_lease(&key(""), NodeId(3));
    t.world.block_on(async {
        let mut txn = t.db.begin(TxnOptions::default());
        txn.put(key("k"), value("1")).expect("open");
        txn.commit().await.expect("n3 leads");
    });
}

/// Its successor is found while it says nothing; nobody is told that the range is lost.
#[test]
fn a_leaseholder_that_falls_silent_is_replaced_by_its_successor_without_an_error() {
    let t = routed(8);
    t.world.block_on(async {
        let mut warm = t.db.begin(TxnOptions::default());
        warm.get(&key("k"), None).await.expect("found");
        t.peers.set_fates(|to, _| if to == NodeId(1) { Fate::Swallowed } else { Fate::Delivered });
        t.peers.move_lease(&key(""), NodeId(3));
        let begun = t.world.runtime().time.monotonic();
        let mut txn = t.db.begin(TxnOptions::default());
        assert_eq!(txn.get(&key("k"), None).await, Ok(None));
        txn.put(key("k"), value("1")).expect("open");
        txn.commit().await.expect("n3 leads");
        let waited = t.world.runtime().time.monotonic().since(begun);
        assert!(waited < Duration::from_secs(2), "{waited:?}");
    });
}

/// A node that needs longer than others are patient is not asked for ever anew: its first answer is taken.
#[test]
fn the_answer_of_a_slow_leaseholder_is_taken() {
    let t = routed(9);
    t.peers.set_fates(|_, _| Fate::Slow);
    t.world.block_on(async {
        let begun = t.world.runtime().time.monotonic();
        let mut txn = t.db.begin(TxnOptions::default());
        assert_eq!(txn.get(&key("k"), None).await, Ok(None));
        let waited = t.world.runtime().time.monotonic().since(begun);
        assert!(waited < Duration::from_millis(1600), "{waited:?}");
        assert!(t.peers.sent() <= 4, "{} messages for one read", t.peers.sent());
    });
}

#[test]
fn without_an_answer_it_fails_in_seconds_and_names_range_and_nodes() {
    let t = routed(6);
    t.world.block_on(async {
        let mut warm = t.db.begin(TxnOptions::default());
        warm.get(&key("k"), None).await.expect("found");
        t.peers.set_fates(|_, _| Fate::LostBefore);
        let begun = t.world.runtime().time.monotonic();
        let mut txn = t.db.begin(TxnOptions::default());
        let error = txn.get(&key("k"), None).await.expect_err("nobody answers");
        let waited = t.world.runtime().time.monotonic().since(begun);
        assert!(waited >= Duration::from_secs(4) && waited < Duration::from_secs(5), "{waited:?}");
        match error {
            TxnError::Unavailable { range, missing, .. } => {
                assert_eq!(range, RangeId(1));
                assert_eq!(missing, [NodeId(1), NodeId(2), NodeId(3)]);
            }
            other => panic!("{other:?}"),
        }
        assert!(txn.is_active(), "a read may be tried again");
        t.peers.heal();
        assert_eq!(txn.get(&key("k"), None).await, Ok(None));
    });
}

/// Nodes that answer what they are asked for at once, and where a range is later than a router is patient with them by then.
#[test]
fn a_slow_lookup_is_waited_for_longer_the_next_time() {
    let t = routed(10);
    t.peers.split_at(key("m"));
    t.world.block_on(async {
        let mut txn = t.db.begin(TxnOptions::default());
        for node in [1, 2, 3].map(NodeId) {
            t.peers.move_lease(&key(""), node);
            for _ in 0..20 {
                txn.get(&key("a"), None).await.expect("found");
            }
        }
        t.peers.delay_lookups(Duration::from_millis(400));
        assert_eq!(txn.get(&key("z"), None).await, Ok(None));
    });
}

#[test]
fn stale_lookups_do_not_stop_the_router() {
    let t = routed(7);
    t.peers.freeze_lookups();
    t.peers.split_at(name(5));
    t.world.block_on(async {
        let mut txn = t.db.begin(TxnOptions::default());
        txn.put(name(1), value("a")).expect("open");
        txn.put(name(9), value("b")).expect("open");
        txn.commit().await.expect("the nodes themselves know better");
    });
}
