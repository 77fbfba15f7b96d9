//! Levels below SERIALIZABLE: what they allow, what they hold even when every lock is lost, and how a statement is run again.

use super::{Local, key, local, local_with, number, routed, value};
use bytes::Bytes;
use clock::{ClockTimestamp, Timestamp};
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use storage::{Key, Span};
use txn::api::{Batch, Kv, Lock, PushKind, Request, TxnMeta, Wait};
use txn::client::{
    Access, Db, GetOptions, Hold, Isolation, OnLock, RetryKind, ScanOptions, Settings, Txn,
    TxnError, TxnLimits, TxnOptions,
};
use txn::runtime::{HlcSource, Runtime, Spawn};
use txn::testing::World;

const EXCLUSIVE: Option<Lock> = Some(Lock::Exclusive);
const WEAK: [Isolation; 2] = [Isolation::ReadCommitted, Isolation::Snapshot];
const ALL: [Isolation; 4] = [
    Isolation::ReadCommitted,
    Isolation::Snapshot,
    Isolation::Serializable,
    Isolation::StrictSerializable,
];

fn at(isolation: Isolation) -> TxnOptions {
    TxnOptions { isolation, ..TxnOptions::default() }
}

async fn put(t: &Local, pairs: &[(&str, &str)]) -> Timestamp {
    let mut txn = t.db.begin(TxnOptions::default());
    for (name, text) in pairs {
        txn.put(key(name), value(text)).expect("open");
    }
    txn.commit().await.expect("free").ts
}

/// A leaseholder forgets the locks of a transaction: its lease has moved.
async fn lose_locks(t: &Local, txn: &Txn) {
    let spans = vec![Span::new(key("a"), key("z"))];
    let request = Request::Resolve { txn: txn.id(), commit_ts: None, ignored: Vec::new(), spans };
    let now = t.world.runtime().hlc.now().timestamp();
    let batch = Batch::bare(now, Wait::Error, vec![request]);
    t.kv.send(batch).await.expect("locks are forgotten");
}

fn is_overwritten<T>(result: &Result<T, TxnError>) -> bool {
    matches!(result, Err(TxnError::Retry { kind: RetryKind::Overwritten, .. }))
}

#[test]
fn a_row_whose_lock_was_lost_is_not_overwritten() {
    for isolation in WEAK {
        for ranges in [1, 2] {
            let t = local(1);
            if ranges == 2 {
                t.kv.split_at(key("m"));
            }
            t.world.block_on(async {
                put(&t, &[("k", "1"), ("p", "1")]).await;
                let mut txn = t.db.begin(at(isolation));
                txn.begin_statement().await.expect("open");
                txn.get(&key("k"), EXCLUSIVE).await.expect("free");
                lose_locks(&t, &txn).await;
                put(&t, &[("k", "2")]).await;
                // Later statements are at later timestamps, at which the other's write is no news.
                for _ in 0..3 {
                    txn.begin_statement().await.expect("open");
                    txn.get(&key("p"), None).await.expect("free");
                }
                txn.put(key("k"), value("2")).expect("open");
                txn.put(key("p"), value("2")).expect("open");
                let committed = txn.commit().await;
                assert!(is_overwritten(&committed), "{isolation:?}, {ranges}: {committed:?}");
            });
        }
    }
}

/// Killer T07: the guard is a row that nobody writes.
#[test]
fn what_was_looked_at_under_a_lock_is_not_acted_upon_when_the_lock_was_lost() {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Then {
        Nothing,
        LocksAgain,
        ReadsMore,
    }
    for then in [Then::Nothing, Then::LocksAgain, Then::ReadsMore] {
        for loses in [false, true] {
            let t = local(1);
            t.world.block_on(async {
                let mut txn = t.db.begin(at(Isolation::ReadCommitted));
                txn.begin_statement().await.expect("open");
                txn.get(&key("guard"), EXCLUSIVE).await.expect("free");
                txn.begin_statement().await.expect("open");
                assert_eq!(txn.get(&key("a"), None).await, Ok(None));
                if loses {
                    t.kv.move_lease();
                    // Another has the guard, finds nothing, and writes.
                    let mut other = t.db.begin(at(Isolation::ReadCommitted));
                    other.begin_statement().await.expect("open");
                    other.get(&key("guard"), EXCLUSIVE).await.expect("it was lost");
                    other.begin_statement().await.expect("open");
                    assert_eq!(other.get(&key("a"), None).await, Ok(None));
                    other.put(key("b"), value("other")).expect("open");
                    other.commit().await.expect("its lock was not lost");
                }
                let went_on = match then {
                    Then::Nothing => Ok(()),
                    Then::LocksAgain => {
                        txn.begin_statement().await.expect("open");
                        txn.get(&key("guard"), EXCLUSIVE).await.map(drop)
                    }
                    Then::ReadsMore => {
                        txn.begin_statement().await.expect("open");
                        txn.get(&key("c"), None).await.map(drop)
                    }
                };
                let done = match went_on {
                    Ok(()) => {
                        txn.put(key("a"), value("1")).expect("open");
                        txn.commit().await.map(drop)
                    }
                    lost => lost,
                };
                let lost = matches!(done, Err(TxnError::Retry { kind: RetryKind::LockLost, .. }));
                assert_eq!(lost, loses, "{then:?}: {done:?}");
                assert!(lost || done.is_ok(), "{then:?}: {done:?}");
            });
        }
    }
}

#[test]
fn a_lock_that_guarded_nothing_may_be_lost() {
    for (isolation, locks_last) in [
        (Isolation::ReadCommitted, true),
        (Isolation::Snapshot, false),
        (Isolation::Serializable, false),
    ] {
        let t = local(1);
        t.world.block_on(async {
            let mut txn = t.db.begin(at(isolation));
            txn.begin_statement().await.expect("open");
            if locks_last {
                txn.get(&key("b"), None).await.expect("free");
                txn.begin_statement().await.expect("open");
            }
            txn.get(&key("guard"), EXCLUSIVE).await.expect("free");
            if !locks_last {
                txn.begin_statement().await.expect("open");
                txn.get(&key("b"), None).await.expect("free");
            }
            t.kv.move_lease();
            txn.put(key("a"), value("1")).expect("open");
            txn.commit().await.unwrap_or_else(|error| panic!("{isolation:?}: {error}"));
        });
    }
}

/// A gateway that stood still was taken for dead, and its locks were given to others.
#[test]
fn who_was_aborted_meanwhile_does_not_act_upon_what_it_has_seen_under_its_lock() {
    let t = local(1);
    t.kv.split_at(key("m"));
    t.world.block_on(async {
        let mut txn = t.db.begin(at(Isolation::ReadCommitted));
        txn.begin_statement().await.expect("open");
        txn.get(&key("guard"), EXCLUSIVE).await.expect("free");
        txn.begin_statement().await.expect("open");
        txn.get(&key("x"), None).await.expect("free");
        let pushee = TxnMeta {
            id: txn.id(),
            anchor: key("guard"),
            started: txn.started(),
            priority: TxnOptions::default().priority,
            stage: 0,
        };
        let push = Request::Push {
            pushee,
            active: Timestamp::MIN,
            kind: PushKind::Force,
            dependents: Vec::new(),
            sought: None,
        };
        let now = t.world.runtime().hlc.now().timestamp();
        t.kv.send(Batch::bare(now, Wait::Error, vec![push])).await.expect("it is alive");
        lose_locks(&t, &txn).await;
        // Not where its record is.
        txn.put(key("x"), value("1")).expect("open");
        let committed = txn.commit().await;
        let aborted = matches!(committed, Err(TxnError::Retry { kind: RetryKind::Aborted, .. }));
        assert!(aborted, "{committed:?}");
    });
}

#[test]
fn of_two_blind_writers_under_snapshot_the_first_committer_wins() {
    for (ranges, spill_bytes) in [(1, 1 << 20), (2, 1 << 20), (1, 1)] {
        let settings = Settings { spill_bytes, ..Settings::default() };
        let t = local_with(World::new(2), settings);
        if ranges == 2 {
            t.kv.split_at(key("m"));
        }
        t.world.block_on(async {
            let mut txn = t.db.begin(at(Isolation::Snapshot));
            txn.get(&key("other"), None).await.expect("free");
            put(&t, &[("k", "1")]).await;
            txn.put(key("k"), value("2")).expect("open");
            txn.put(key("p"), value("2")).expect("open");
            txn.spill_if_large().await.expect("free");
            let committed = txn.commit().await;
            assert!(is_overwritten(&committed), "{ranges}, {spill_bytes}: {committed:?}");

            // What others have merely read is no conflict: the commit goes above the read.
            let mut txn = t.db.begin(at(Isolation::Snapshot));
            txn.get(&key("other"), None).await.expect("free");
            let mut reader = t.db.begin(TxnOptions::default());
            reader.get(&key("k"), None).await.expect("free");
            txn.put(key("k"), value("3")).expect("open");
            let info = txn.commit().await.expect("nobody has written");
            assert!(info.ts > reader.read_timestamp());
        });
    }
}

#[test]
fn a_snapshot_is_one_and_write_skew_is_allowed_under_it() {
    let t = local(3);
    t.world.block_on(async {
        put(&t, &[("a", "1"), ("b", "1")]).await;
        let mut one = t.db.begin(at(Isolation::Snapshot));
        let mut other = t.db.begin(at(Isolation::Snapshot));
        for txn in [&mut one, &mut other] {
            assert_eq!(txn.get(&key("a"), None).await, Ok(Some(value("1"))));
        }
        put(&t, &[("b", "2")]).await;
        assert_eq!(one.get(&key("b"), None).await, Ok(Some(value("1"))));
        one.put(key("x"), value("1")).expect("open");
        one.commit().await.expect("nobody has written x");
        other.put(key("a"), value("0")).expect("open");
        other.commit().await.expect("nobody has written a");
    });
}

#[test]
fn a_statement_of_read_committed_is_run_again_by_itself() {
    let t = local(4);
    t.world.block_on(async {
        put(&t, &[("a", "1"), ("b", "1")]).await;
        let mut txn = t.db.begin(at(Isolation::ReadCommitted));
        txn.begin_statement().await.expect("open");
        txn.put(key("own"), value("1")).expect("open");
        txn.begin_statement().await.expect("open");
        txn.put(key("lost"), value("1")).expect("open");
        txn.get(&key("a"), None).await.expect("free");
        put(&t, &[("a", "2"), ("b", "2")]).await;
        // Its statement has read `a` as of before.
        let late = txn.get(&key("b"), EXCLUSIVE).await;
        assert!(is_overwritten(&late), "{late:?}");
        assert!(txn.can_restart_statement() && !txn.is_active());
        txn.restart_statement();
        txn.begin_statement().await.expect("open again");
        assert_eq!(txn.get(&key("a"), None).await, Ok(Some(value("2"))));
        assert_eq!(txn.get(&key("b"), EXCLUSIVE).await, Ok(Some(value("2"))));
        assert_eq!(txn.get(&key("own"), None).await, Ok(Some(value("1"))));
        assert_eq!(txn.get(&key("lost"), None).await, Ok(None), "the first run took it back");
        txn.commit().await.expect("free");
    });
}

#[test]
fn a_statement_that_has_laid_writes_down_is_not_run_again() {
    let t = local_with(World::new(5), Settings { spill_bytes: 100, ..Settings::default() });
    t.world.block_on(async {
        let mut txn = t.db.begin(at(Isolation::ReadCommitted));
        txn.begin_statement().await.expect("open");
        for n in 0..10 {
            assert_eq!(txn.can_restart_statement(), n < 2, "{n}");
            txn.put(key(&format!("k{n}")), value("some bytes")).expect("open");
        }
        txn.spill_if_large().await.expect("free");
        assert_eq!(txn.get(&key("k0"), None).await, Ok(Some(value("some bytes"))));
        txn.commit().await.expect("free");
    });
}

#[test]
fn many_statements_hold_what_each_has_locked() {
    for broken in [None, Some(3), Some(38)] {
        let t = local(6);
        t.world.block_on(async {
            let mut txn = t.db.begin(at(Isolation::ReadCommitted));
            let mut failed = false;
            for n in 0..40 {
                failed |= txn.begin_statement().await.is_err();
                if failed {
                    break;
                }
                txn.get(&key(&format!("k{n:02}")), EXCLUSIVE).await.expect("free");
                if broken == Some(n) {
                    lose_locks(&t, &txn).await;
                    put(&t, &[(&format!("k{n:02}"), "x")]).await;
                }
            }
            if !failed {
                txn.put(key("own"), value("1")).expect("open");
                failed = txn.commit().await.is_err();
            }
            assert_eq!(failed, broken.is_some(), "{broken:?}");
        });
    }
}

/// Counts up with locking reads, a statement at a time, and starts again when told to. Returns how many additions were committed.
async fn adder(t: &Local, isolation: Isolation, seed: u64, done: &std::cell::Cell<i64>) {
    let random = t.world.runtime().random;
    let mut txn = t.db.begin(at(isolation));
    for _ in 0..6 {
        loop {
            match add(t, &mut txn, seed, &*random).await {
                Ok(()) => {
                    done.set(done.get() + 2);
                    txn = t.db.begin(at(isolation));
                    break;
                }
                Err(error) => {
                    assert!(error.is_retryable(), "{error:?}");
                    txn.restart();
                }
            }
        }
    }
}

async fn add(
    t: &Local,
    txn: &mut Txn,
    seed: u64,
    random: &dyn txn::runtime::Random,
) -> Result<(), TxnError> {
    let first = random.next_u64() % 3;
    for name in [first, (first + 1 + seed % 2) % 3] {
        let name = format!("k{name}");
        loop {
            let statement = async {
                txn.begin_statement().await?;
                let old = number(txn.get(&key(&name), EXCLUSIVE).await?.as_ref());
                txn.put(key(&name), Bytes::from((old + 1).to_string()))
            };
            match statement.await {
                Ok(()) => break,
                Err(_) if txn.can_restart_statement() => txn.restart_statement(),
                Err(error) => return Err(error),
            }
        }
        if random.next_u64().is_multiple_of(4) {
            lose_locks(t, txn).await;
        }
    }
    txn.commit().await.map(|_| ())
}

/// The dumb twin is a sum.
#[test]
fn no_update_is_lost_at_any_level_though_locks_are() {
    for isolation in ALL {
        for seed in 0..40 {
            let t = local(seed);
            if seed % 2 == 0 {
                t.kv.split_at(key("k1"));
            }
            let done = std::cell::Cell::new(0);
            t.world.block_on(async {
                join_all((0..4).map(|n| adder(&t, isolation, seed + n, &done))).await;
            });
            // Intents become rows in the background.
            t.world.settle(Duration::from_secs(10));
            let sum: i64 = t.kv.rows().iter().map(|(_, value)| number(Some(value))).sum();
            assert_eq!(sum, done.get(), "{isolation:?}, seed {seed}");
        }
    }
}

/// What a constraint was checked against holds at the commit, at every level: at most three rows, counted before each insert.
#[test]
fn what_is_held_to_the_commit_keeps_a_constraint() {
    async fn insert(t: &Local, isolation: Isolation, own: Key) {
        let options = ScanOptions { hold: Hold::ToCommit, ..ScanOptions::default() };
        let mut txn = t.db.begin(at(isolation));
        loop {
            let work = async {
                txn.begin_statement().await?;
                let there = txn.scan(Span::new(key("a"), key("z")), options).await?.rows.len();
                txn.begin_statement().await?;
                if there < 3 {
                    txn.put(own.clone(), value("1"))?;
                }
                txn.commit().await.map(|_| ())
            };
            match work.await {
                Ok(()) => return,
                Err(error) => assert!(error.is_retryable(), "{error:?}"),
            }
            txn.restart();
        }
    }
    for isolation in ALL {
        for seed in 0..40 {
            let t = local(seed);
            if seed % 2 == 0 {
                t.kv.split_at(key("k3"));
            }
            t.world.block_on(async {
                let all = (0..6).map(|n| insert(&t, isolation, key(&format!("k{n}"))));
                join_all(all).await;
            });
            t.world.settle(Duration::from_secs(10));
            assert_eq!(t.kv.rows().len(), 3, "{isolation:?}, seed {seed}");
        }
    }
}

#[test]
fn a_savepoint_gives_back_the_locks_taken_since_and_no_intent() {
    let t = local_with(World::new(7), Settings { spill_bytes: 1, ..Settings::default() });
    t.world.block_on(async {
        let mut txn = t.db.begin(at(Isolation::ReadCommitted));
        txn.get(&key("before"), EXCLUSIVE).await.expect("free");
        txn.put(key("laid"), value("1")).expect("open");
        txn.spill_if_large().await.expect("free");
        let savepoint = txn.savepoint().expect("few");
        let span = Span::new(key("a"), key("z"));
        txn.scan(span, ScanOptions { lock: EXCLUSIVE, ..ScanOptions::default() })
            .await
            .expect("free");
        for name in ["before", "since", "laid"] {
            txn.get(&key(name), EXCLUSIVE).await.expect("free");
        }
        assert_eq!(t.kv.lock_count(), 4, "three locks and an intent");
        txn.rollback_to(savepoint).await.expect("it is open");
        assert_eq!(t.kv.lock_count(), 2, "`since` is free, `laid` keeps its intent");
        txn.commit().await.expect("free");
    });
    t.world.settle(Duration::from_secs(10));
    assert_eq!(t.kv.lock_count(), 0);
    assert_eq!(t.kv.rows(), vec![(key("laid"), value("1"))]);
}

/// A rollback to a savepoint gives up what was held since, and nothing that was held before: neither rows between those locked since, where
/// so many were that neighbours are remembered as one, nor what a constraint was checked against and was locked only since.
#[test]
fn what_was_held_before_a_savepoint_is_held_after_a_rollback_to_it() {
    let at_once = |hold| GetOptions { hold, ..GetOptions::default() };
    for isolation in WEAK {
        for lock_spans_bytes_max in [64, 4 << 20] {
            for before in [Hold::AsLocked, Hold::ToCommit] {
                for after in ["a c e g", "c"] {
                    let settings = Settings { lock_spans_bytes_max, ..Settings::default() };
                    let t = local_with(World::new(1), settings);
                    t.world.block_on(async {
                        put(&t, &[("a", "1"), ("c", "1"), ("d", "1"), ("e", "1"), ("g", "1")])
                            .await;
                        let mut txn = t.db.begin(at(isolation));
                        txn.begin_statement().await.expect("open");
                        let lock = EXCLUSIVE.filter(|_| before == Hold::AsLocked);
                        for name in ["c", "d"] {
                            let options = GetOptions { lock, ..at_once(before) };
                            txn.multi_get_with(&[key(name)], options).await.expect("free");
                        }
                        let savepoint = txn.savepoint().expect("few");
                        txn.begin_statement().await.expect("open");
                        for name in after.split(' ') {
                            txn.get(&key(name), EXCLUSIVE).await.expect("free");
                        }
                        txn.rollback_to(savepoint).await.expect("it is open");
                        lose_locks(&t, &txn).await;
                        put(&t, &[("c", "2"), ("g", "2")]).await;
                        // The commit must be later than that.
                        let mut reader = t.db.begin(TxnOptions::default());
                        assert_eq!(reader.get(&key("z"), None).await, Ok(None));
                        txn.begin_statement().await.expect("open");
                        txn.put(key("z"), value("1")).expect("open");
                        let committed = txn.commit().await;
                        let case =
                            format!("{isolation:?}, {lock_spans_bytes_max}, {before:?}, {after}");
                        assert!(is_overwritten(&committed), "{case}: {committed:?}");
                    });
                }
            }
        }
    }
}

/// What was held since a savepoint is given up with it: others may change it.
#[test]
fn what_was_held_since_a_savepoint_only_may_change_after_a_rollback_to_it() {
    for isolation in WEAK {
        for hold in [Hold::AsLocked, Hold::ToCommit] {
            for inner in [false, true] {
                let t = local(1);
                t.world.block_on(async {
                    put(&t, &[("a", "1"), ("c", "1")]).await;
                    let mut txn = t.db.begin(at(isolation));
                    txn.begin_statement().await.expect("open");
                    txn.get(&key("a"), EXCLUSIVE).await.expect("free");
                    let savepoint = txn.savepoint().expect("few");
                    let released = inner.then(|| txn.savepoint().expect("few"));
                    txn.begin_statement().await.expect("open");
                    let lock = EXCLUSIVE.filter(|_| hold == Hold::AsLocked);
                    let options = GetOptions { lock, hold, ..GetOptions::default() };
                    txn.multi_get_with(&[key("c")], options).await.expect("free");
                    released.into_iter().for_each(|id| txn.release(id).expect("it is open"));
                    txn.rollback_to(savepoint).await.expect("it is open");
                    put(&t, &[("c", "2")]).await;
                    // The commit must be later than that.
                    let mut reader = t.db.begin(TxnOptions::default());
                    assert_eq!(reader.get(&key("z"), None).await, Ok(None));
                    txn.begin_statement().await.expect("open");
                    txn.put(key("z"), value("1")).expect("open");
                    let committed = txn.commit().await;
                    assert!(committed.is_ok(), "{isolation:?}, {hold:?}, {inner}: {committed:?}");
                });
            }
        }
    }
}

#[test]
fn over_a_limit_is_an_error_that_says_which_and_how_much() {
    let t = local(10);
    let limits = TxnLimits { write_bytes_max: 20, locks_max: 3, savepoints_max: 2 };
    let options = TxnOptions { limits, ..TxnOptions::default() };
    let too_many = |what, limit, actual| TxnError::TooMany { what, limit, actual };
    t.world.block_on(async {
        let mut txn = t.db.begin(options.clone());
        txn.put(key("k"), value("123456789")).expect("10 bytes");
        txn.put(key("k"), value("123456789")).expect("20 bytes");
        let over = txn.put(key("k"), value("")).expect_err("21 bytes");
        assert_eq!(over, too_many("bytes written by a transaction", 20, 21));
        assert_eq!(over.to_string(), "bytes written by a transaction: 21, over the limit of 20");
        txn.commit().await.expect("what was refused was not written");

        let mut txn = t.db.begin(options.clone());
        for name in ["a", "b", "a", "c", "b"] {
            txn.get(&key(name), EXCLUSIVE).await.expect("three rows");
        }
        let over = txn.get(&key("d"), EXCLUSIVE).await;
        assert_eq!(over, Err(too_many("rows locked by a transaction", 3, 4)));
        txn.rollback().await;

        let mut rows = t.db.begin(TxnOptions::default());
        for name in ["b", "c", "d"] {
            rows.put(key(name), value("")).expect("no limit is near");
        }
        rows.commit().await.expect("free");
        let mut txn = t.db.begin(options.clone());
        txn.get(&key("a"), EXCLUSIVE).await.expect("one row");
        let savepoint = txn.savepoint().expect("one");
        let all = Span::new(key("a"), key("z"));
        let locking = ScanOptions { lock: EXCLUSIVE, ..ScanOptions::default() };
        let over = txn.scan(all, locking).await;
        assert_eq!(over, Err(too_many("rows locked by a transaction", 3, 5)));
        txn.rollback_to(savepoint).await.expect("it is open");
        assert_eq!(t.kv.lock_count(), 1, "what was locked since is free");
        txn.get(&key("b"), EXCLUSIVE).await.expect("and counts no more");
        txn.rollback().await;

        let mut txn = t.db.begin(options);
        let first = txn.savepoint().expect("one");
        txn.savepoint().expect("two");
        assert_eq!(txn.savepoint(), Err(too_many("savepoints of a transaction", 2, 3)));
        txn.release(first).expect("it is open");
        txn.savepoint().expect("one again");
    });
    t.world.settle(Duration::from_secs(10));
    assert_eq!(t.kv.lock_count(), 0, "also of what was over the limit");
}

#[test]
fn a_deferrable_reader_waits_once_and_is_certain() {
    let uncertainty = Duration::from_millis(100);
    let t = local_with(World::with_uncertainty(8, uncertainty), Settings::default());
    t.world.block_on(async {
        let time = t.world.runtime().time;
        put(&t, &[("k", "1")]).await;
        let options = TxnOptions { access: Access::Deferrable, ..TxnOptions::default() };
        let mut reader = t.db.begin(options);
        let begun = time.monotonic();
        let snapshot = reader.read_timestamp();
        assert_eq!(reader.get(&key("k"), None).await, Ok(Some(value("1"))));
        assert!(time.monotonic().since(begun) >= uncertainty);
        put(&t, &[("k", "2"), ("l", "2")]).await;
        // Later writes are above: never uncertain, whatever their writer's clock.
        let again = time.monotonic();
        assert_eq!(reader.get(&key("k"), None).await, Ok(Some(value("1"))));
        assert_eq!(reader.get(&key("l"), None).await, Ok(None));
        assert_eq!(reader.read_timestamp(), snapshot);
        assert!(time.monotonic().since(again) < uncertainty / 10);
        assert_eq!(reader.put(key("k"), value("3")), Err(TxnError::ReadOnly));
        reader.commit().await.expect("it has read only");
    });
}

/// Nobody's clock may still be below what a strictly serializable transaction has written, or seen, when it answers.
#[test]
fn strict_commits_wait_for_every_clock_also_those_that_only_read() {
    let uncertainty = Duration::from_millis(100);
    for writes in [true, false] {
        for isolation in ALL {
            let t = local_with(World::with_uncertainty(9, uncertainty), Settings::default());
            t.world.block_on(async {
                let mut txn = t.db.begin(at(isolation));
                txn.get(&key("k"), None).await.expect("free");
                if writes {
                    txn.put(key("k"), value("1")).expect("open");
                }
                let info = txn.commit().await.expect("alone");
                let now = t.world.runtime().hlc.now().timestamp();
                let strict = isolation == Isolation::StrictSerializable;
                assert_eq!(now > info.ts.plus(uncertainty), strict, "{isolation:?}, {writes}");
            });
        }
    }
}

/// Whatever a transaction was granted is free when it has ended, or when the savepoint is rolled back under which it was granted.
#[test]
fn no_lock_outlives_its_transaction_by_what_went_wrong() {
    // Another range's lock was lost, which the answer that grants this one tells.
    let t = routed(1);
    t.peers.split_at(key("m"));
    t.world.block_on(async {
        let mut txn = t.db.begin(at(Isolation::ReadCommitted));
        txn.begin_statement().await.expect("open");
        txn.get(&key("a"), EXCLUSIVE).await.expect("free");
        t.kv.move_lease();
        txn.begin_statement().await.expect("open");
        let lost = txn.get(&key("b"), EXCLUSIVE).await;
        assert!(matches!(lost, Err(TxnError::Retry { kind: RetryKind::LockLost, .. })), "{lost:?}");
        txn.rollback().await;
    });
    t.world.settle(Duration::from_secs(1));
    assert_eq!(t.kv.lock_count(), 0, "granted by the answer that told of a loss");
    // One range grants, the other refuses.
    for ends in ["rolls back to", "releases", "opens another", "goes on"] {
        let t = routed(2);
        t.peers.split_at(key("m"));
        t.world.block_on(async {
            let mut other = t.db.begin(at(Isolation::ReadCommitted));
            other.get(&key("z"), EXCLUSIVE).await.expect("free");
            let mut txn = t.db.begin(at(Isolation::ReadCommitted));
            let savepoint = txn.savepoint().expect("few");
            let nowait =
                GetOptions { lock: EXCLUSIVE, wait: OnLock::Fail, ..GetOptions::default() };
            let refused = txn.multi_get_with(&[key("a"), key("z")], nowait).await;
            assert!(matches!(refused, Err(TxnError::Blocked { .. })), "{refused:?}");
            match ends {
                "rolls back to" => txn.rollback_to(savepoint).await.expect("it is open"),
                "releases" => txn.release(savepoint).expect("it is open"),
                "opens another" => drop(txn.savepoint().expect("few")),
                _ => {}
            }
            if ends == "rolls back to" {
                assert_eq!(t.kv.lock_count(), 1, "the other's");
            }
            txn.get(&key("q"), None).await.expect("free");
            txn.commit().await.expect("free");
            other.rollback().await;
        });
        t.world.settle(Duration::from_secs(1));
        assert_eq!(t.kv.lock_count(), 0, "{ends}");
    }
    // An absent row is locked, and looks like one that is left out.
    let t = local(3);
    t.world.block_on(async {
        let mut txn = t.db.begin(at(Isolation::ReadCommitted));
        let skip = GetOptions { lock: EXCLUSIVE, wait: OnLock::Skip, ..GetOptions::default() };
        assert_eq!(txn.multi_get_with(&[key("absent")], skip).await, Ok(vec![None]));
        txn.commit().await.expect("free");
    });
    t.world.settle(Duration::from_secs(1));
    assert_eq!(t.kv.lock_count(), 0, "of an absent row");
}

/// A gateway whose clock is ahead of the others, and which never gets to what it leaves for later.
struct Ahead(txn::runtime::Runtime);

impl HlcSource for Ahead {
    fn now(&self) -> ClockTimestamp {
        let ahead = self.0.hlc.now().timestamp().plus(Duration::from_millis(6));
        ClockTimestamp::from_raw(ahead.raw())
    }

    fn observe(&self, remote: ClockTimestamp) -> Result<(), Timestamp> {
        self.0.hlc.observe(remote)
    }

    fn uncertainty(&self) -> Duration {
        self.0.hlc.uncertainty()
    }
}

struct Never;

impl Spawn for Never {
    fn spawn(&self, _task: futures::future::BoxFuture<'static, ()>) {}
}

/// H07: whom an earlier statement has pushed may have committed, and been acknowledged, before the next one begins.
#[test]
fn a_statement_sees_what_was_acknowledged_before_it_of_a_writer_that_an_earlier_one_passed_by() {
    let wait_slice = Duration::from_millis(1);
    let settings = Settings { spill_bytes: 0, wait_slice, ..Settings::default() };
    let t = local_with(World::with_uncertainty(3, Duration::from_millis(10)), settings.clone());
    let runtime = t.world.runtime();
    let hlc = Arc::new(Ahead(runtime.clone()));
    let ahead = Runtime { hlc, spawn: Arc::new(Never), ..runtime.clone() };
    t.kv.split_at(key("g"));
    let other = Db::new(ahead, Arc::new(t.kv.clone()), settings);
    t.world.block_on(async {
        put(&t, &[("k", "old")]).await;
        runtime.time.sleep_until(runtime.time.monotonic().plus(Duration::from_millis(50))).await;
        let mut reader = t.db.begin(at(Isolation::ReadCommitted));
        reader.begin_statement().await.expect("open");
        let mut writer = other.begin(TxnOptions::default());
        writer.put(key("a"), value("anchor")).expect("open");
        writer.put(key("k"), value("new")).expect("open");
        writer.spill_if_large().await.expect("free");
        assert_eq!(reader.get(&key("k"), None).await.expect("free"), Some(value("old")));
        let committed = writer.commit().await.expect("free");
        reader.begin_statement().await.expect("open");
        assert!(reader.read_timestamp() < committed.ts, "its clock is behind");
        assert_eq!(reader.get(&key("k"), None).await.expect("free"), Some(value("new")));
    });
}

/// A scan that is blocked in one range was granted rows in others, which it may not ask for again.
#[test]
fn rows_that_were_locked_by_a_try_and_not_by_the_next_are_released_with_the_others() {
    let t = routed(5);
    t.peers.split_at(key("m"));
    t.peers.split_at(key("s"));
    let write = async |names: &[&str]| {
        let mut txn = t.db.begin(TxnOptions::default());
        names.iter().for_each(|name| txn.put(key(name), value("row")).expect("open"));
        txn.commit().await.expect("free");
    };
    t.world.block_on(async {
        write(&["b", "n", "t"]).await;
        let mut holder = t.db.begin(TxnOptions::default());
        holder.get(&key("t"), EXCLUSIVE).await.expect("free");
        let locks = ScanOptions { limit: 3, lock: EXCLUSIVE, ..ScanOptions::default() };
        let scan = async {
            let mut txn = t.db.begin(TxnOptions::default());
            let page = txn.scan(Span::all(), locks).await.expect("they are free in the end");
            txn.commit().await.expect("free");
            page.rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        let others = async {
            let time = t.world.runtime().time;
            time.sleep_until(time.monotonic().plus(Duration::from_millis(50))).await;
            write(&["c", "d"]).await;
            let mut reader = t.db.begin(TxnOptions::default());
            reader.get(&key("t"), None).await.expect("only locked");
            holder.put(key("t"), value("changed")).expect("open");
            holder.commit().await.expect("free");
        };
        let (rows, ()) = futures::join!(scan, others);
        assert_eq!(rows, [key("b"), key("c"), key("d")]);
    });
    t.world.settle(Duration::from_secs(1));
    assert_eq!(t.kv.lock_count(), 0);
}
