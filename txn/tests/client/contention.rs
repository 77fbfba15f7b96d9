//! Locks, waiting, deadlocks, pushes.

use super::{Local, key, local, local_with, number, routed, routed_with, value};
use bytes::Bytes;
use coverage::Mark;
use futures::future::{join, join_all};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use storage::{Key, Span};
use txn::api::{Lock, Request};
use txn::client::{
    CommitPath, Db, GetOptions, OnLock, RetryKind, Router, RouterSettings, ScanOptions, Settings,
    TimeoutKind, Txn, TxnError, TxnOptions,
};
use txn::testing::{Fate, LocalKv, LocalPeers, World};

const EXCLUSIVE: Option<Lock> = Some(Lock::Exclusive);

/// Everybody locks its own key, then the next one's. Who gives way restarts and must get through.
async fn ring_member(t: &Local, own: String, next: String, deadlocks: &std::cell::Cell<u32>) {
    let mut txn = t.db.begin(TxnOptions::default());
    loop {
        match ring_round(&mut txn, &own, &next).await {
            Ok(()) => return,
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                if matches!(error, TxnError::Deadlock { .. }) {
                    deadlocks.set(deadlocks.get() + 1);
                }
                txn.restart();
            }
        }
    }
}

async fn ring_round(txn: &mut Txn, own: &str, next: &str) -> Result<(), TxnError> {
    for name in [own, next] {
        let old = number(txn.get(&key(name), EXCLUSIVE).await?.as_ref());
        txn.put(key(name), Bytes::from((old + 1).to_string()))?;
    }
    txn.commit().await.map(|_| ())
}

fn ring(count: usize, seed: u64) -> u32 {
    let t = local(seed);
    let deadlocks = std::cell::Cell::new(0);
    let name = |n: usize| format!("k{}", n % count);
    t.world.block_on(async {
        join_all((0..count).map(|n| ring_member(&t, name(n), name(n + 1), &deadlocks))).await;
    });
    t.world.settle(Duration::from_secs(10));
    assert_eq!(t.kv.lock_count(), 0);
    for (at, sum) in t.kv.rows() {
        assert_eq!(number(Some(&sum)), 2, "{at} was incremented twice");
    }
    let waited = t.world.runtime().time.monotonic().nanos();
    assert!(waited < 60_000_000_000, "it took {waited} ns of virtual time");
    deadlocks.get()
}

#[test]
fn a_cycle_of_two_ends_with_a_victim_and_everybody_gets_through() {
    let victims: u32 = (0..20).map(|seed| ring(2, seed)).sum();
    assert!(victims >= 10, "only {victims} deadlocks: nothing was tested");
}

#[test]
fn a_cycle_of_three_ends_with_a_victim_and_everybody_gets_through() {
    let victims: u32 = (0..20).map(|seed| ring(3, seed)).sum();
    assert!(victims >= 10, "only {victims} deadlocks: nothing was tested");
}

#[test]
fn a_cycle_of_six_ends_with_a_victim_and_everybody_gets_through() {
    let victims: u32 = (0..10).map(|seed| ring(6, seed)).sum();
    assert!(victims >= 5, "only {victims} deadlocks: nothing was tested");
}

/// The first time it begins again at once; then it holds up nobody any more until the other is through.
#[test]
fn who_has_given_way_twice_lets_the_other_by() {
    // With signs of life and without; the end of a transaction that has only locked leaves no record.
    for (heartbeat_interval, held_for) in
        [(Duration::from_secs(1), 1_000), (Duration::from_secs(3600), 100)]
    {
        let settings = Settings { heartbeat_interval, ..Settings::default() };
        let t = local_with(World::new(5), settings);
        let time = t.world.runtime().time;
        t.world.block_on(async {
            let mut old = t.db.begin(TxnOptions::default());
            old.get(&key("wanted"), EXCLUSIVE).await.expect("free");
            let mut young = t.db.begin(TxnOptions::default());
            for name in ["first", "second"] {
                young.get(&key(name), EXCLUSIVE).await.expect("free");
                let gives_way = async {
                    let refused = young.get(&key("wanted"), EXCLUSIVE).await;
                    assert!(matches!(refused, Err(TxnError::Deadlock { .. })), "{refused:?}");
                    young.restart();
                };
                let (got, ()) = join(old.get(&key(name), EXCLUSIVE), gives_way).await;
                got.expect("the older one gets it");
            }
            let ends = async {
                let held_for = Duration::from_millis(held_for);
                time.sleep_until(time.monotonic().plus(held_for)).await;
                old.commit().await.expect("nothing was written");
                time.monotonic()
            };
            let begins = async {
                young.get(&key("elsewhere"), EXCLUSIVE).await.expect("free");
                time.monotonic()
            };
            let (ended, begun) = join(ends, begins).await;
            assert!(begun >= ended, "it began {:?} before", ended.since(begun));
            assert!(begun.since(ended) < Duration::from_secs(1), "{:?} later", begun.since(ended));
            young.rollback().await;
        });
        t.world.settle(Duration::from_secs(1));
        assert_eq!(t.kv.lock_count(), 0);
    }
}

#[test]
fn concurrent_increments_are_all_counted() {
    for spill in [0, 1 << 20] {
        let t = local_with(World::new(7), Settings { spill_bytes: spill, ..Settings::default() });
        t.world.block_on(async {
            join_all((0..20).map(|_| async {
                let outcome = t.db.run(TxnOptions::default(), |txn| {
                    Box::pin(async move {
                        let old = number(txn.get(&key("n"), EXCLUSIVE).await?.as_ref());
                        txn.put(key("n"), Bytes::from((old + 1).to_string()))
                    })
                });
                outcome.await.expect("it gets its turn");
            }))
            .await;
        });
        t.world.settle(Duration::from_secs(5));
        assert_eq!(t.kv.rows(), vec![(key("n"), value("20"))]);
        assert_eq!(t.kv.lock_count(), 0);
    }
}

/// A commit waits for the lock of another, who lets go after that time.
async fn commit_after(world: &World, db: &Db, wait: Duration) {
    let mut holder = db.begin(TxnOptions::default());
    holder.get(&key("n"), EXCLUSIVE).await.expect("free");
    let mut writer = db.begin(TxnOptions::default());
    writer.put(key("n"), value("written")).expect("open");
    let release = async {
        let time = world.runtime().time;
        time.sleep_until(time.monotonic().plus(wait)).await;
        holder.rollback().await;
    };
    let (committed, ()) = futures::future::join(writer.commit(), release).await;
    committed.expect("it only had to wait");
}

/// The question what became of a commit ends it if it has not been carried out: it must not come while the commit waits its turn.
#[test]
fn a_commit_that_waits_for_a_lock_is_not_taken_for_lost() {
    let settings = Settings {
        commit_asked_after: Duration::from_millis(50),
        wait_slice: Duration::from_millis(400),
        ..Settings::default()
    };
    let t = local_with(World::new(31), settings);
    t.world.block_on(commit_after(&t.world, &t.db, Duration::from_millis(900)));
    t.world.settle(Duration::from_secs(5));
    assert_eq!(t.kv.rows(), vec![(key("n"), value("written"))]);
}

/// Found by seed 3002860 of the simulator's workload shop: whoever waited was ended before it heard for whom it waits, for ever.
#[test]
fn a_commit_that_waits_for_a_lock_far_away_is_not_taken_for_lost() {
    let settings =
        Settings { commit_asked_after: Duration::from_millis(50), ..Settings::default() };
    let t = routed_with(35, settings);
    t.peers.set_fates(move |_, _| Fate::Far(Duration::from_millis(95)));
    t.world.block_on(commit_after(&t.world, &t.db, Duration::from_secs(3)));
    t.world.settle(Duration::from_secs(5));
    assert_eq!(t.kv.rows(), vec![(key("n"), value("written"))]);
}

#[test]
fn nowait_fails_at_once_and_skip_locked_leaves_out() {
    let t = local(8);
    t.world.block_on(async {
        let mut setup = t.db.begin(TxnOptions::default());
        for name in ["a", "b", "c"] {
            setup.put(key(name), value(name)).expect("open");
        }
        setup.commit().await.expect("free");
        let mut holder = t.db.begin(TxnOptions::default());
        holder.get(&key("b"), EXCLUSIVE).await.expect("free");

        let mut nowait = t.db.begin(TxnOptions::default());
        let options = GetOptions { lock: EXCLUSIVE, wait: OnLock::Fail, ..GetOptions::default() };
        let error = nowait.multi_get_with(&[key("b")], options).await.expect_err("it is locked");
        assert_eq!(error, TxnError::Blocked { key: key("b"), holder: holder.id() });
        assert!(nowait.is_active());

        let mut skip = t.db.begin(TxnOptions::default());
        let options = ScanOptions { lock: EXCLUSIVE, wait: OnLock::Skip, ..ScanOptions::default() };
        let page = skip.scan(Span::all(), options).await.expect("nothing to wait for");
        let names: Vec<_> = page.rows.into_iter().map(|(key, _)| key).collect();
        assert_eq!(names, [key("a"), key("c")]);

        // What was skipped was not read: its change does not disturb.
        holder.put(key("b"), value("changed")).expect("open");
        holder.commit().await.expect("free");
        skip.put(key("a"), value("taken")).expect("open");
        skip.commit().await.expect("b does not matter");
    });
}

#[test]
fn a_lock_timeout_and_a_statement_deadline_end_the_wait() {
    let t = local(9);
    t.world.block_on(async {
        let mut holder = t.db.begin(TxnOptions::default());
        holder.get(&key("k"), EXCLUSIVE).await.expect("free");
        let mut waiter = t.db.begin(TxnOptions::default());
        waiter.set_lock_timeout(Some(Duration::from_millis(300)));
        let error = waiter.get(&key("k"), EXCLUSIVE).await.expect_err("it is locked");
        assert!(matches!(error, TxnError::Timeout { kind: TimeoutKind::Lock, .. }), "{error:?}");
        waiter.set_lock_timeout(None);
        let now = t.world.runtime().time.monotonic();
        waiter.set_deadline(Some(now.plus(Duration::from_millis(50))));
        let error = waiter.get(&key("k"), EXCLUSIVE).await.expect_err("it is locked");
        assert!(
            matches!(error, TxnError::Timeout { kind: TimeoutKind::Statement, .. }),
            "{error:?}"
        );
        assert!(waiter.is_active());
        waiter.set_deadline(None);
        holder.commit().await.expect("free");
        waiter.get(&key("k"), EXCLUSIVE).await.expect("free now");
    });
}

/// T12: nobody waits for ever on a coordinator that is gone.
#[test]
fn a_silent_holder_is_taken_for_dead_after_its_expiry_and_learns_it() {
    let t = local_with(World::new(10), Settings { spill_bytes: 0, ..Settings::default() });
    // The holder's gateway has stopped: it sends no heartbeat for an hour.
    let stopped = Settings {
        heartbeat_interval: Duration::from_secs(3_600),
        spill_bytes: 0,
        ..Settings::default()
    };
    let silent =
        txn::client::Db::new(t.world.runtime(), std::sync::Arc::new(t.kv.clone()), stopped);
    t.world.block_on(async {
        let mut holder = silent.begin(TxnOptions::default());
        holder.put(key("k"), value("lost")).expect("open");
        holder.spill_if_large().await.expect("free");
        let mut next = t.db.begin(TxnOptions::default());
        next.get(&key("k"), EXCLUSIVE).await.expect("the holder expires");
        let waited = t.world.runtime().time.monotonic().nanos();
        assert!(waited > 5_000_000_000 && waited < 8_000_000_000, "{waited} ns");
        next.put(key("k"), value("won")).expect("open");
        next.commit().await.expect("free");
        let error = holder.commit().await.expect_err("it was aborted");
        assert!(matches!(error, TxnError::Retry { kind: RetryKind::Aborted, .. }), "{error:?}");
    });
    t.world.settle(Duration::from_secs(2));
    assert_eq!(t.kv.rows(), vec![(key("k"), value("won"))]);
}

/// T12, for those that wait for nobody: rows of a queue that only its workers look at.
#[test]
fn a_silent_holder_is_found_out_by_those_that_only_skip() {
    let settings = Settings { spill_bytes: 0, ..Settings::default() };
    let t = routed_with(13, settings.clone());
    let stopped = Settings { heartbeat_interval: Duration::from_secs(3_600), ..settings };
    let silent =
        txn::client::Db::new(t.world.runtime(), std::sync::Arc::new(t.kv.clone()), stopped);
    t.world.block_on(async {
        let mut setup = t.db.begin(TxnOptions::default());
        for name in ["a", "b", "c"] {
            setup.put(key(name), value("job")).expect("open");
        }
        setup.commit().await.expect("free");
    });
    t.peers.split_at(key("b"));
    t.peers.split_at(key("c"));
    let skips = ScanOptions { lock: EXCLUSIVE, wait: OnLock::Skip, ..ScanOptions::default() };
    let jobs = async |limit: u64| -> Vec<Key> {
        let mut worker = t.db.begin(TxnOptions::default());
        let page = worker.scan(Span::all(), ScanOptions { limit, ..skips }).await;
        worker.rollback().await;
        page.expect("nothing is waited for").rows.into_iter().map(|(key, _)| key).collect()
    };
    let pause = async |secs: u64| {
        let time = t.world.runtime().time;
        time.sleep_until(time.monotonic().plus(Duration::from_secs(secs))).await;
    };
    t.world.block_on(async {
        // One lock and one intent are left behind, in two ranges, and a third row is held by one that lives.
        let mut silent_lock = silent.begin(TxnOptions::default());
        silent_lock.get(&key("b"), EXCLUSIVE).await.expect("free");
        let mut silent_write = silent.begin(TxnOptions::default());
        silent_write.put(key("c"), value("taken")).expect("open");
        silent_write.spill_if_large().await.expect("free");
        let mut alive = t.db.begin(TxnOptions::default());
        alive.get(&key("a"), EXCLUSIVE).await.expect("free");
        assert_eq!(jobs(0).await, [], "all are held");
        pause(6).await;
        assert_eq!(jobs(2).await, [], "nobody is waited for");
        pause(1).await;
        assert_eq!(jobs(2).await, [key("b"), key("c")]);
        alive.commit().await.expect("it was not disturbed");
        pause(1).await;
        assert_eq!(jobs(0).await, [key("a"), key("b"), key("c")]);
        silent_lock.rollback().await;
        silent_write.rollback().await;
    });
}

#[test]
fn a_holder_that_shows_signs_of_life_is_waited_for() {
    let t = local_with(World::new(11), Settings { spill_bytes: 0, ..Settings::default() });
    t.world.block_on(async {
        let mut holder = t.db.begin(TxnOptions::default());
        holder.put(key("k"), value("slow")).expect("open");
        holder.spill_if_large().await.expect("free");
        let waiter = async {
            let mut waiter = t.db.begin(TxnOptions::default());
            waiter.get(&key("k"), EXCLUSIVE).await
        };
        let slow = async {
            let time = t.world.runtime().time;
            time.sleep_until(time.monotonic().plus(Duration::from_secs(30))).await;
            holder.commit().await.expect("it is alive")
        };
        let (seen, _) = futures::join!(waiter, slow);
        assert_eq!(seen, Ok(Some(value("slow"))));
    });
}

/// A plain read does not wait for a writer that takes its time: it makes it commit later.
#[test]
fn a_reader_passes_by_an_intent_and_the_writer_commits_above_it() {
    let t = local_with(World::new(12), Settings { spill_bytes: 0, ..Settings::default() });
    t.world.block_on(async {
        let mut writer = t.db.begin(TxnOptions::default());
        writer.put(key("k"), value("new")).expect("open");
        writer.spill_if_large().await.expect("free");
        let mut reader = t.db.begin(TxnOptions::default());
        assert_eq!(reader.get(&key("k"), None).await, Ok(None));
        let info = writer.commit().await.expect("it was only moved");
        assert!(info.ts > reader.read_timestamp());
        assert_eq!(reader.get(&key("k"), None).await, Ok(None), "the reader's view is stable");
    });
}

#[test]
fn a_higher_priority_pushes_others_away() {
    let t = local(13);
    t.world.block_on(async {
        let mut low = t.db.begin(TxnOptions::default());
        low.get(&key("k"), EXCLUSIVE).await.expect("free");
        let mut high = t.db.begin(TxnOptions { priority: 1_000, ..TxnOptions::default() });
        high.get(&key("k"), EXCLUSIVE).await.expect("low gives way");
        let waited = t.world.runtime().time.monotonic().nanos();
        assert!(waited < 1_000_000_000, "{waited} ns");
    });
}

#[test]
fn who_holds_nothing_asks_ever_less_often_and_is_on_time_all_the_same() {
    let t = local(31);
    let longer = || coverage::count(Mark::WaitedInLongerSlices);
    t.world.block_on(async {
        let time = t.world.runtime().time;
        let mut holder = t.db.begin(TxnOptions::default());
        holder.get(&key("k"), EXCLUSIVE).await.expect("free");
        let begun = time.monotonic();
        let freed = begun.plus(Duration::from_secs(2));
        let before = longer();
        let wait = async {
            let mut waiter = t.db.begin(TxnOptions::default());
            waiter.get(&key("k"), EXCLUSIVE).await.expect("its turn comes");
            assert!(time.monotonic() >= freed);
            let took = time.monotonic().since(freed);
            assert!(took < Duration::from_millis(20), "{took:?} after it was free");
        };
        // Its own limit is not a slice's.
        let give_up = async {
            let mut waiter = t.db.begin(TxnOptions::default());
            waiter.set_lock_timeout(Some(Duration::from_millis(850)));
            let error = waiter.get(&key("k"), EXCLUSIVE).await.expect_err("it is locked");
            assert!(
                matches!(error, TxnError::Timeout { kind: TimeoutKind::Lock, .. }),
                "{error:?}"
            );
            let took = time.monotonic().since(begun);
            assert!(took < Duration::from_millis(900), "{took:?}");
        };
        let let_go = async {
            time.sleep_until(freed).await;
            holder.rollback().await;
        };
        futures::join!(wait, give_up, let_go);
        let slices = longer() - before;
        assert!((6..=10).contains(&slices), "{slices} longer slices of both, not 28 short ones");
    });
}

#[test]
fn who_has_read_nothing_is_not_sent_back_for_a_newer_row() {
    let t = local(32);
    t.world.block_on(async {
        let mut early = t.db.begin(TxnOptions::default());
        let mut setup = t.db.begin(TxnOptions::default());
        setup.put(key("k"), value("1")).expect("open");
        let written = setup.commit().await.expect("free").ts;
        let moved = coverage::count(Mark::MovedFreely);
        let row = early.get(&key("k"), EXCLUSIVE).await.expect("free");
        assert_eq!(row, Some(value("1")));
        assert!(early.read_timestamp() >= written);
        assert_eq!(coverage::count(Mark::MovedFreely), moved, "the range has moved it");
        // From its first read on it is not moved unseen.
        let mut second = t.db.begin(TxnOptions::default());
        second.put(key("m"), value("1")).expect("open");
        let written = second.commit().await.expect("free").ts;
        let refreshed = coverage::count(Mark::ReadsRefreshed);
        early.get(&key("m"), EXCLUSIVE).await.expect("k has not changed");
        assert!(early.read_timestamp() >= written);
        assert_eq!(coverage::count(Mark::ReadsRefreshed), refreshed + 1);
        early.put(key("k"), value("2")).expect("open");
        early.commit().await.expect("nobody was in the way");
    });
}

/// Who is far from a row is there for most of the time that it waits: while it is on its way, nobody has the row at all. And a range that
/// makes it wait is not taken for a silent one.
#[test]
fn a_waiter_that_is_far_away_waits_at_the_range() {
    let t = routed(33);
    let way = Duration::from_millis(95);
    t.world.block_on(async {
        let time = t.world.runtime().time;
        // Everybody knows how far it is by then.
        t.peers.set_fates(move |_, _| Fate::Far(way));
        for number in 0..20 {
            let mut txn = t.db.begin(TxnOptions::default());
            txn.get(&key(&format!("far{number}")), None).await.expect("free");
        }
        let mut holder = t.db.begin(TxnOptions::default());
        holder.get(&key("k"), EXCLUSIVE).await.expect("free");
        let asked = Arc::new(AtomicU64::new(0));
        let counted = asked.clone();
        t.peers.set_fates(move |_, batch| {
            let locks = |request: &Request| matches!(request, Request::Get { lock: Some(_), .. });
            counted.fetch_add(u64::from(batch.requests.iter().any(locks)), Ordering::Relaxed);
            Fate::Far(way)
        });
        let silent = coverage::count(Mark::TryTimedOut);
        let freed = time.monotonic().plus(Duration::from_secs(6));
        let wait = async {
            let mut waiter = t.db.begin(TxnOptions::default());
            waiter.get(&key("k"), EXCLUSIVE).await.expect("its turn comes");
        };
        let let_go = async {
            time.sleep_until(freed).await;
            holder.rollback().await;
        };
        futures::join!(wait, let_go);
        // The way, a slice of four times there and back, and as many for asking after the holder: 1.1 s each after the first two.
        let asked = asked.load(Ordering::Relaxed);
        assert!((3..=7).contains(&asked), "asked {asked} times in 6 s");
        assert_eq!(coverage::count(Mark::TryTimedOut), silent, "nobody was silent");
    });
}

/// A range that answers nobody must not keep a gateway's other transactions from showing that they live.
#[test]
fn a_range_that_is_gone_takes_no_transaction_of_another_range_along() {
    let world = World::new(21);
    let kv = LocalKv::new(world.runtime());
    let peers = LocalPeers::new(world.runtime(), kv.clone(), 3);
    let slow = RouterSettings { unavailable_after: Duration::from_secs(20), ..Default::default() };
    let router = Router::new(world.runtime(), Arc::new(peers.clone()), slow);
    let db = Db::new(world.runtime(), Arc::new(router), Settings::default());
    peers.split_at(key("m"));
    peers.set_fates(|_, batch| match (&batch.txn, &batch.requests[0]) {
        (Some(txn), Request::Heartbeat) if txn.anchor == key("a") => Fate::Swallowed,
        _ => Fate::Delivered,
    });
    world.block_on(async {
        let mut stuck = db.begin(TxnOptions::default());
        stuck.get(&key("a"), EXCLUSIVE).await.expect("free");
        let mut alive = db.begin(TxnOptions::default());
        alive.get(&key("z"), EXCLUSIVE).await.expect("free");
        let waiter = async {
            let mut waiter = db.begin(TxnOptions::default());
            waiter.get(&key("z"), EXCLUSIVE).await.expect("free in the end");
            waiter.rollback().await;
        };
        let works = async {
            let time = world.runtime().time;
            time.sleep_until(time.monotonic().plus(Duration::from_secs(12))).await;
            alive.put(key("z"), value("done")).expect("open");
            alive.commit().await.expect("it has shown that it lives")
        };
        futures::join!(waiter, works);
        stuck.rollback().await;
    });
}

/// What it read is old, and so is what it lays down: others must not take that for a sign of its death.
#[test]
fn a_transaction_that_has_read_for_long_is_alive_when_it_begins_to_write() {
    let t = local_with(World::new(22), Settings { spill_bytes: 0, ..Settings::default() });
    t.world.block_on(async {
        let mut slow = t.db.begin(TxnOptions::default());
        slow.get(&key("r"), None).await.expect("free");
        let time = t.world.runtime().time;
        time.sleep_until(time.monotonic().plus(Duration::from_secs(6))).await;
        slow.put(key("k"), value("late")).expect("open");
        slow.spill_if_large().await.expect("free");
        time.sleep_until(time.monotonic().plus(Duration::from_millis(100))).await;
        let mut reader = t.db.begin(TxnOptions::default());
        assert_eq!(reader.get(&key("k"), None).await, Ok(None));
        slow.commit().await.expect("nobody has taken it for dead");
    });
}

/// One that has shown for hours that it lives may write in a range that has never heard of it.
#[test]
fn an_old_transaction_that_lives_can_commit_in_a_range_without_its_record() {
    let t = routed(23);
    t.peers.split_at(key("m"));
    t.world.block_on(async {
        let mut old = t.db.begin(TxnOptions::default());
        old.get(&key("a"), EXCLUSIVE).await.expect("free");
        let time = t.world.runtime().time;
        time.sleep_until(time.monotonic().plus(Duration::from_secs(61 * 60))).await;
        old.put(key("z"), value("late")).expect("open");
        let committed = old.commit().await.expect("it is alive");
        assert_eq!(committed.path, CommitPath::Parallel, "ranges want to see its record");
    });
}
