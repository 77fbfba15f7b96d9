//! What one session sees.

use super::{key, local, local_with, value};
use bytes::Bytes;
use clock::{ClockTimestamp, Monotonic, Timestamp};
use futures::FutureExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use storage::{Direction, Span};
use txn::api::Lock;
use txn::client::{
    Access, CommitPath, Db, Isolation, RetryKind, ScanOptions, Settings, TxnError, TxnOptions,
};
use txn::runtime::{HlcSource, Runtime};
use txn::testing::{LocalKv, World};

#[test]
fn a_transaction_sees_its_own_writes_and_others_only_after_its_commit() {
    let t = local(1);
    t.world.block_on(async {
        let mut a = t.db.begin(TxnOptions::default());
        a.put(key("k"), value("1")).expect("open");
        assert_eq!(a.get(&key("k"), None).await, Ok(Some(value("1"))));
        let mut b = t.db.begin(TxnOptions::default());
        assert_eq!(b.get(&key("k"), None).await, Ok(None));
        let info = a.commit().await.expect("nobody is in the way");
        assert_eq!(info.path, CommitPath::OnePhase);
        assert_eq!(b.get(&key("k"), None).await, Ok(None), "b's snapshot moved");
        let mut c = t.db.begin(TxnOptions::default());
        assert_eq!(c.get(&key("k"), None).await, Ok(Some(value("1"))));
    });
}

#[test]
fn writes_to_several_ranges_commit_in_parallel_and_leave_nothing() {
    let t = local(2);
    t.kv.split_at(key("m"));
    t.world.block_on(async {
        let mut txn = t.db.begin(TxnOptions::default());
        txn.put(key("a"), value("1")).expect("open");
        txn.put(key("z"), value("2")).expect("open");
        let info = txn.commit().await.expect("nobody is in the way");
        assert_eq!(info.path, CommitPath::Parallel);
    });
    t.world.settle(Duration::from_secs(2));
    assert_eq!((t.kv.lock_count(), t.kv.record_count()), (0, 0));
    assert_eq!(t.kv.rows(), vec![(key("a"), value("1")), (key("z"), value("2"))]);
}

#[test]
fn a_dropped_transaction_releases_its_locks_and_intents() {
    let settings = Settings { spill_bytes: 0, ..Settings::default() };
    let t = local_with(World::new(3), settings);
    t.world.block_on(async {
        let mut txn = t.db.begin(TxnOptions::default());
        txn.get(&key("locked"), Some(txn::api::Lock::Exclusive)).await.expect("free");
        txn.put(key("laid"), value("1")).expect("open");
        txn.spill_if_large().await.expect("free");
        assert_eq!(t.kv.lock_count(), 2);
        drop(txn);
    });
    t.world.settle(Duration::from_secs(2));
    assert_eq!((t.kv.lock_count(), t.kv.rows()), (0, vec![]));
}

#[test]
fn an_inserted_row_that_exists_fails_at_once_when_checked_and_at_commit_when_not() {
    let t = local(4);
    t.world.block_on(async {
        let mut txn = t.db.begin(TxnOptions::default());
        txn.put(key("k"), value("old")).expect("open");
        txn.commit().await.expect("free");
        let exists = TxnError::Exists { key: key("k"), value: value("old") };

        let mut txn = t.db.begin(TxnOptions::default());
        assert_eq!(txn.insert_checked(key("k"), value("new")).await, Err(exists.clone()));
        assert!(txn.is_active(), "a failed insert does not end the transaction");
        txn.rollback().await;

        let mut txn = t.db.begin(TxnOptions::default());
        txn.insert(key("k"), value("new")).expect("unknown yet");
        assert_eq!(txn.commit().await, Err(exists));

        let mut txn = t.db.begin(TxnOptions::default());
        txn.delete(key("k")).expect("open");
        txn.insert(key("k"), value("new")).expect("its own delete made room");
        txn.commit().await.expect("free");
    });
    assert_eq!(t.kv.rows(), vec![(key("k"), value("new"))]);
}

#[test]
fn a_second_insert_of_a_key_is_refused_also_when_the_first_was_spilled() {
    let t = local_with(World::new(5), Settings { spill_bytes: 0, ..Settings::default() });
    t.world.block_on(async {
        let mut txn = t.db.begin(TxnOptions::default());
        txn.insert(key("k"), value("1")).expect("open");
        assert!(matches!(txn.insert(key("k"), value("2")), Err(TxnError::Exists { .. })));
        txn.spill_if_large().await.expect("free");
        txn.insert(key("k"), value("2")).expect("not known at the gateway any more");
        assert!(matches!(txn.commit().await, Err(TxnError::Exists { .. })));

        let mut txn = t.db.begin(TxnOptions::default());
        txn.put(key("k"), value("old")).expect("open");
        txn.commit().await.expect("free");
        let mut txn = t.db.begin(TxnOptions::default());
        txn.delete(key("k")).expect("open");
        txn.spill_if_large().await.expect("free");
        txn.insert(key("k"), value("new")).expect("open");
        txn.commit().await.expect("its own delete made room");
    });
    t.world.settle(Duration::from_secs(2));
    assert_eq!(t.kv.rows(), vec![(key("k"), value("new"))]);
    assert_eq!(t.kv.lock_count(), 0);
}

#[test]
fn every_limit_names_itself() {
    let settings = Settings {
        key_bytes_max: 4,
        value_bytes_max: 4,
        buffer_bytes_max: 200,
        ..Settings::default()
    };
    let t = local_with(World::new(6), settings);
    let mut txn = t.db.begin(TxnOptions::default());
    let too_large = |what, limit, actual| Err(TxnError::TooLarge { what, limit, actual });
    assert_eq!(txn.put(key("12345"), value("1")), too_large("key", 4, 5));
    assert_eq!(txn.put(key("1"), value("12345")), too_large("value", 4, 5));
    for n in 0..3 {
        txn.put(key(&n.to_string()), value("1")).expect("within the limit");
    }
    let over = (0..10).map(|n| txn.put(key(&format!("x{n}")), value("1"))).find(Result::is_err);
    assert!(matches!(over, Some(Err(TxnError::TooLarge { limit: 200, .. }))), "{over:?}");
}

#[test]
fn a_read_only_transaction_refuses_writes_and_locks() {
    let t = local(7);
    t.world.block_on(async {
        let mut txn = t.db.begin(TxnOptions { access: Access::ReadOnly, ..TxnOptions::default() });
        assert_eq!(txn.put(key("k"), value("1")), Err(TxnError::ReadOnly));
        assert_eq!(txn.get(&key("k"), Some(txn::api::Lock::Shared)).await, Err(TxnError::ReadOnly));
        assert_eq!(txn.commit().await.map(|info| info.path), Ok(CommitPath::ReadOnly));
    });
}

#[test]
fn a_read_of_the_past_sees_the_past() {
    let t = local(8);
    t.world.block_on(async {
        let mut txn = t.db.begin(TxnOptions::default());
        txn.put(key("k"), value("1")).expect("open");
        let first = txn.commit().await.expect("free").ts;
        let mut txn = t.db.begin(TxnOptions::default());
        txn.put(key("k"), value("2")).expect("open");
        txn.commit().await.expect("free");
        let mut past = t.db.begin(TxnOptions { as_of: Some(first), ..TxnOptions::default() });
        assert_eq!(past.get(&key("k"), None).await, Ok(Some(value("1"))));
        let mut before =
            t.db.begin(TxnOptions { as_of: Some(first.prev()), ..TxnOptions::default() });
        assert_eq!(before.get(&key("k"), None).await, Ok(None));
    });
}

/// A value that may have been written before we began, by a faster clock, must be seen. Nothing else was read: no restart.
#[test]
fn an_uncertain_value_is_read_after_moving_there() {
    let t = local_with(World::with_uncertainty(9, Duration::from_millis(100)), Settings::default());
    t.world.block_on(async {
        let mut reader = t.db.begin(TxnOptions::default());
        let began = reader.read_timestamp();
        let mut writer = t.db.begin(TxnOptions::default());
        writer.put(key("k"), value("1")).expect("open");
        writer.commit().await.expect("free");
        assert_eq!(reader.get(&key("k"), None).await, Ok(Some(value("1"))));
        assert!(reader.read_timestamp() > began);
    });
}

#[test]
fn a_write_over_what_was_read_since_makes_the_transaction_run_again() {
    let t = local(10);
    t.world.block_on(async {
        let mut slow = t.db.begin(TxnOptions::default());
        assert_eq!(slow.get(&key("k"), None).await, Ok(None));
        let mut fast = t.db.begin(TxnOptions::default());
        fast.put(key("k"), value("1")).expect("open");
        fast.commit().await.expect("free");
        slow.put(key("k"), value("2")).expect("open");
        match slow.commit().await {
            Err(TxnError::Retry { kind: RetryKind::Overwritten, key: Some(at), .. }) => {
                assert_eq!(at, key("k"))
            }
            other => panic!("{other:?}"),
        }
        let (id, started) = (slow.id(), slow.started());
        slow.restart();
        assert!(slow.id() != id && slow.started() == started);
        assert_eq!(slow.get(&key("k"), None).await, Ok(Some(value("1"))));
        slow.put(key("k"), value("2")).expect("open");
        slow.commit().await.expect("free");
    });
}

#[test]
fn run_repeats_its_closure_until_it_commits() {
    let t = local(11);
    let tries = Arc::new(AtomicU32::new(0));
    t.world.block_on(async {
        let (db, seen) = (t.db.clone(), tries.clone());
        let outcome =
            t.db.run(TxnOptions::labelled("test"), move |txn| {
                let (db, seen) = (db.clone(), seen.clone());
                async move {
                    let old = txn.get(&key("k"), None).await?;
                    if seen.fetch_add(1, Ordering::Relaxed) == 0 {
                        let mut other = db.begin(TxnOptions::default());
                        other.put(key("k"), value("other"))?;
                        other.commit().await?;
                    }
                    txn.put(key("k"), value("ours"))?;
                    Ok(old)
                }
                .boxed()
            })
            .await;
        assert_eq!(outcome, Ok(Some(value("other"))));
    });
    assert_eq!(tries.load(Ordering::Relaxed), 2);
    assert_eq!(t.kv.rows(), vec![(key("k"), value("ours"))]);
}

#[test]
fn a_commit_above_its_deadline_is_refused() {
    let t = local(12);
    t.world.block_on(async {
        let mut txn = t.db.begin(TxnOptions::default());
        txn.put(key("k"), value("1")).expect("open");
        txn.set_commit_deadline(txn.read_timestamp().prev());
        let error = txn.commit().await.expect_err("too late");
        assert!(
            matches!(error, TxnError::Retry { kind: RetryKind::DeadlinePassed, .. }),
            "{error:?}"
        );
    });
    assert_eq!(t.kv.rows(), vec![]);
}

#[test]
fn a_fenced_schema_refuses_transactions_planned_before() {
    let t = local(13);
    t.world.block_on(async {
        let mut old = t.db.begin(TxnOptions::default());
        old.use_schema(7, 1, Timestamp::MIN).await.expect("open");
        old.put(key("k"), value("1")).expect("open");
        let fence = txn::api::Request::Fence { span: Span::all(), table: 7, version: 2 };
        let mut batch_txn = t.db.begin(TxnOptions::default());
        batch_txn.get(&key("k"), None).await.expect("free");
        let batch = txn::api::Batch {
            range: None,
            read_at: batch_txn.read_timestamp(),
            uncertainty_limit: batch_txn.read_timestamp(),
            footing: txn::api::Footing::Fixed,
            txn: None,
            schema: vec![],
            pushed: vec![],
            ignored: vec![],
            wait: txn::api::Wait::Error,
            asks_era: false,
            requests: vec![fence],
        };
        t.db.kv().send(batch).await.expect("no intents");
        assert_eq!(old.commit().await, Err(TxnError::SchemaChanged { table: 7, version: 2 }));
    });
}

#[test]
fn a_schema_is_met_where_it_counts_and_not_after_a_write_under_a_former_one() {
    let t = local(13);
    t.world.block_on(async {
        let mut txn = t.db.begin(TxnOptions::default());
        let begun = txn.read_timestamp();
        txn.use_schema(7, 1, begun).await.expect("open");
        assert_eq!(txn.read_timestamp(), begun);
        txn.get(&key("k"), None).await.expect("free");
        let since = begun.plus(Duration::from_millis(5));
        txn.use_schema(7, 2, since).await.expect("nothing it has read was overwritten");
        assert_eq!(txn.read_timestamp(), since);
        txn.put(key("k"), value("1")).expect("open");
        txn.use_schema(8, 5, since).await.expect("another table");
        txn.use_schema(7, 2, since).await.expect("the same version");
        let changed = TxnError::SchemaChanged { table: 7, version: 3 };
        assert_eq!(txn.use_schema(7, 3, since).await, Err(changed.clone()));
        assert_eq!(txn.commit().await, Err(changed));

        let options = TxnOptions { as_of: Some(begun), ..TxnOptions::default() };
        let mut past = t.db.begin(options);
        past.use_schema(7, 1, since).await.expect("it sees the catalog of its own moment");
        assert_eq!(past.read_timestamp(), begun);
    });
    assert_eq!(t.kv.rows(), vec![]);
}

/// A clock that a pause has left behind, until its bound is raised.
struct Lagging {
    runtime: Runtime,
    until: Monotonic,
}

impl HlcSource for Lagging {
    fn now(&self) -> ClockTimestamp {
        self.runtime.hlc.now()
    }

    fn observe(&self, remote: ClockTimestamp) -> Result<(), Timestamp> {
        self.runtime.hlc.observe(remote)
    }

    fn uncertainty(&self) -> Duration {
        self.runtime.hlc.uncertainty() + self.held_back()
    }

    fn held_back(&self) -> Duration {
        self.until.since(self.runtime.time.monotonic())
    }
}

#[test]
fn a_transaction_begins_when_its_clock_has_caught_up_or_will_not() {
    let world = World::new(15);
    let runtime = world.runtime();
    let kv = Arc::new(LocalKv::new(runtime.clone()));
    for (lags, waits) in [(0, 0), (90, 90), (60_000, 1_000)] {
        let begun = runtime.time.monotonic();
        let until = begun.plus(Duration::from_millis(lags));
        let hlc = Arc::new(Lagging { runtime: runtime.clone(), until });
        let db = Db::new(Runtime { hlc, ..runtime.clone() }, kv.clone(), Settings::default());
        world.block_on(async {
            let mut txn = db.begin(TxnOptions::default());
            let early = txn.read_timestamp();
            txn.begin_statement().await.expect("open");
            let waited = runtime.time.monotonic().since(begun);
            assert_eq!(waited, Duration::from_millis(waits));
            let moved = txn.read_timestamp().since(early);
            assert!(moved + Duration::from_micros(1) >= waited, "it was dated before the wait");
            // What it has read binds it: a later statement does not wait, and is not dated anew.
            let dated = txn.read_timestamp();
            txn.get(&key("k"), None).await.expect("free");
            txn.begin_statement().await.expect("open");
            assert_eq!(txn.read_timestamp(), dated);
        });
    }
}

#[test]
fn a_deferrable_reader_does_not_wait_for_the_time_that_its_clock_has_made_up_for() {
    let world = World::new(17);
    let runtime = world.runtime();
    let kv = Arc::new(LocalKv::new(runtime.clone()));
    let begun = runtime.time.monotonic();
    let until = begun.plus(Duration::from_millis(90));
    let hlc = Arc::new(Lagging { runtime: runtime.clone(), until });
    let db = Db::new(Runtime { hlc, ..runtime.clone() }, kv, Settings::default());
    world.block_on(async {
        let options =
            TxnOptions { access: Access::Deferrable, ..TxnOptions::labelled("deferrable") };
        let mut txn = db.begin(options);
        txn.begin_statement().await.expect("open");
        txn.get(&key("k"), None).await.expect("free");
        let waited = runtime.time.monotonic().since(begun);
        let limit = Duration::from_millis(90) * 2 + runtime.hlc.uncertainty();
        assert!(waited <= limit, "{waited:?}");
    });
}

#[test]
fn who_reads_the_newest_sees_what_is_dated_ahead_also_by_a_clock_that_lagged() {
    let world = World::new(18);
    let runtime = world.runtime();
    let kv = Arc::new(LocalKv::new(runtime.clone()));
    let db = Db::new(runtime.clone(), kv.clone(), Settings::default());
    world.block_on(async {
        // Whoever writes it after this read writes it later than this.
        let ahead = runtime.hlc.now().timestamp().plus(Duration::from_secs(2));
        let options = TxnOptions { as_of: Some(ahead), ..TxnOptions::read_only("of the future") };
        db.begin(options).get(&key("k"), None).await.expect("free");
        let writer = async {
            let mut txn = db.begin(TxnOptions::default());
            txn.put(key("k"), value("ahead")).expect("open");
            assert!(txn.commit().await.expect("free").ts > ahead);
        };
        let reader = async {
            let now = runtime.time.monotonic();
            runtime.time.sleep_until(now.plus(Duration::from_millis(10))).await;
            let until = now.plus(Duration::from_millis(100));
            let hlc = Arc::new(Lagging { runtime: runtime.clone(), until });
            let late = Db::new(Runtime { hlc, ..runtime.clone() }, kv, Settings::default());
            let mut txn = late.begin(TxnOptions::default());
            txn.read_newest().await.expect("nothing to hold");
            assert_eq!(txn.get(&key("k"), None).await.expect("free"), Some(value("ahead")));
        };
        futures::join!(writer, reader);
    });
}

/// Found by seed 4006881 of the simulator's workload strict: who had only written was never dated anew.
#[test]
fn what_is_written_or_read_first_is_dated_by_a_clock_that_has_caught_up() {
    let world = World::new(16);
    let runtime = world.runtime();
    let kv = Arc::new(LocalKv::new(runtime.clone()));
    let strict = || TxnOptions {
        isolation: Isolation::StrictSerializable,
        ..TxnOptions::labelled("strict")
    };
    for first in ["commit", "get", "lock", "spill"] {
        for (lags, catches_up) in [(90, true), (60_000, false)] {
            let begun = runtime.time.monotonic();
            let until = begun.plus(Duration::from_millis(lags));
            let hlc = Arc::new(Lagging { runtime: runtime.clone(), until });
            let settings = Settings { spill_bytes: 0, ..Settings::default() };
            let settings = if first == "spill" { settings } else { Settings::default() };
            let db = Db::new(Runtime { hlc, ..runtime.clone() }, kv.clone(), settings);
            world.block_on(async {
                let mut txn = db.begin(strict());
                let early = txn.read_timestamp();
                txn.put(key("k"), value("new")).expect("open");
                let done = match first {
                    "get" => txn.get(&key("other"), None).await.map(drop),
                    "lock" => txn.get(&key("other"), Some(Lock::Exclusive)).await.map(drop),
                    "spill" => txn.spill_if_large().await,
                    _ => Ok(()),
                };
                let done = match done {
                    Ok(()) => txn.commit().await,
                    Err(error) => Err(error),
                };
                match done {
                    Ok(commit) => {
                        assert!(catches_up, "{first}: committed by a clock that lags");
                        let moved = commit.ts.since(early) + Duration::from_micros(1);
                        assert!(moved >= Duration::from_millis(lags), "{first}: {moved:?}");
                    }
                    Err(error) => {
                        let lagged = matches!(error, TxnError::ClockLags { .. });
                        assert!(lagged && !catches_up, "{first}: {error:?}");
                        // Nor does what is tried after that pass for being in order.
                        let again = txn.commit().await.expect_err("it lags as ever");
                        assert!(matches!(again, TxnError::ClockLags { .. }), "{first}: {again:?}");
                    }
                }
            });
        }
    }
}

#[test]
fn long_scans_go_in_pieces_and_pages_resume_where_they_ended() {
    let t = local_with(World::new(14), Settings { scan_piece_bytes: 16, ..Settings::default() });
    let names: Vec<String> = (0..50).map(|n| format!("{n:03}")).collect();
    t.world.block_on(async {
        let mut txn = t.db.begin(TxnOptions::default());
        for name in &names {
            txn.put(key(name), Bytes::from(name.clone())).expect("open");
        }
        txn.commit().await.expect("free");
        for direction in [Direction::Forward, Direction::Reverse] {
            let mut txn = t.db.begin(TxnOptions::default());
            let mut seen = Vec::new();
            let mut rest = Some(Span::all());
            while let Some(span) = rest {
                let options = ScanOptions { direction, limit: 7, ..ScanOptions::default() };
                let page = txn.scan(span, options).await.expect("free");
                assert!(page.rows.len() == 7 || page.resume.is_none());
                seen.extend(page.rows.into_iter().map(|(_, name)| name));
                rest = page.resume;
            }
            if direction == Direction::Reverse {
                seen.reverse();
            }
            assert_eq!(seen, names);
        }
    });
}
