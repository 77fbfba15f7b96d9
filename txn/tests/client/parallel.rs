//! Parallel commits: one round, and one verdict whoever asks after the coordinator is gone.

use super::{Routed, key, routed_with, value};
use coverage::Mark;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use txn::api::{Batch, Request};
use txn::client::{CommitPath, Settings, TxnError, TxnOptions};
use txn::testing::Fate;

fn has(batch: &Batch, wanted: impl Fn(&Request) -> bool) -> bool {
    batch.requests.iter().any(wanted)
}

fn is_stage(request: &Request) -> bool {
    matches!(request, Request::Stage { .. })
}

/// What a coordinator does once its client has been told.
fn is_afterwork(request: &Request) -> bool {
    matches!(request, Request::EndTxn { .. } | Request::Resolve { .. } | Request::ForgetTxn { .. })
}

/// Writes to three ranges.
fn over_three_ranges(seed: u64) -> Routed {
    over_three_ranges_with(seed, Settings::default())
}

fn over_three_ranges_with(seed: u64, settings: Settings) -> Routed {
    let t = routed_with(seed, settings);
    t.peers.split_at(key("g"));
    t.peers.split_at(key("p"));
    t
}

const KEYS: [&str; 3] = ["a", "h", "z"];

async fn write_all(t: &Routed, text: &str) -> Result<CommitPath, TxnError> {
    let mut txn = t.db.begin(TxnOptions::default());
    for name in KEYS {
        txn.put(key(name), value(text)).expect("open");
    }
    Ok(txn.commit().await?.path)
}

async fn read_all(t: &Routed) -> Vec<Option<bytes::Bytes>> {
    let mut txn = t.db.begin(TxnOptions::default());
    txn.multi_get(&KEYS.map(key), None).await.expect("somebody decides")
}

#[test]
fn the_client_waits_for_one_message_to_each_range_and_no_more() {
    let t = over_three_ranges(1);
    t.world.block_on(async {
        write_all(&t, "warm").await.expect("free");
    });
    t.world.settle(Duration::from_secs(1));
    let before = Arc::new(Mutex::new(Vec::new()));
    let seen = before.clone();
    t.peers.set_fates(move |_, batch| {
        let kinds = (has(batch, |r| matches!(r, Request::Write { .. })), has(batch, is_stage));
        seen.lock().push(kinds);
        Fate::Delivered
    });
    let path = t.world.block_on(write_all(&t, "1")).expect("free");
    assert_eq!(path, CommitPath::Parallel);
    let mut sent = before.lock().clone();
    sent.sort_unstable();
    assert_eq!(sent, [(true, false), (true, false), (true, true)], "one batch per range");
}

/// Killer T14.
#[test]
fn what_was_acknowledged_is_found_by_others_when_the_coordinator_is_gone() {
    let t = over_three_ranges(2);
    let gone = Arc::new(Mutex::new(true));
    let dead = gone.clone();
    t.peers.set_fates(move |_, batch| {
        let own = batch.txn.is_some() && has(batch, is_afterwork);
        if own && *dead.lock() { Fate::LostBefore } else { Fate::Delivered }
    });
    t.world.block_on(async {
        assert_eq!(write_all(&t, "1").await, Ok(CommitPath::Parallel));
        // Nobody has said that it is committed: who meets it looks for its writes, and says so.
        assert_eq!(read_all(&t).await, [Some(value("1")), Some(value("1")), Some(value("1"))]);
    });
    *gone.lock() = false;
    t.world.settle(Duration::from_secs(100));
    assert_eq!((t.kv.lock_count(), t.kv.record_count()), (0, 0));
}

#[test]
fn what_misses_a_write_is_aborted_by_others_when_the_coordinator_is_gone() {
    for lost in KEYS {
        let t = over_three_ranges(3);
        let (alive, dead) = (Arc::new(Mutex::new(true)), Arc::new(Mutex::new(false)));
        let (reader, silent) = (alive.clone(), dead.clone());
        t.peers.set_fates(move |_, batch| {
            let misses = |request: &Request| match request {
                Request::Write { mutations } => mutations.iter().any(|m| m.key == key(lost)),
                _ => false,
            };
            if *reader.lock() && (*silent.lock() || has(batch, misses)) {
                *silent.lock() = true;
                return Fate::LostBefore;
            }
            Fate::Delivered
        });
        // It would try for long; its client, its gateway and all are gone before.
        t.world.block_on(async {
            let commit = Box::pin(write_all(&t, "1"));
            let end = t.world.runtime().time.monotonic().plus(Duration::from_millis(20));
            let sleep = t.world.runtime().time.sleep_until(end);
            futures::future::select(commit, sleep).await;
        });
        *alive.lock() = false;
        t.world.block_on(async {
            assert_eq!(read_all(&t).await, [None, None, None], "{lost} was lost");
        });
        t.world.settle(Duration::from_secs(100));
        assert_eq!(t.kv.lock_count(), 0, "{lost} was lost");
        assert_eq!(t.kv.rows(), [], "{lost} was lost");
    }
}

/// A reader above it delays a commit that is stuck on another's lock, and aborts nobody.
#[test]
fn a_reader_does_not_wait_for_a_staged_writer_that_waits_for_another() {
    let t = over_three_ranges(4);
    t.world.block_on(async {
        let mut holder = t.db.begin(TxnOptions::default());
        holder.get(&key("z"), Some(txn::api::Lock::Exclusive)).await.expect("free");
        let writer = Box::pin(write_all(&t, "1"));
        let reader = Box::pin(async {
            let time = t.world.runtime().time;
            time.sleep_until(time.monotonic().plus(Duration::from_millis(10))).await;
            let begun = time.monotonic();
            assert_eq!(read_all(&t).await, [None, None, None]);
            let waited = time.monotonic().since(begun);
            holder.rollback().await;
            waited
        });
        let (path, waited) = futures::future::join(writer, reader).await;
        assert!(waited < Duration::from_secs(2), "{waited:?}");
        path.expect("the reader has only moved it");
        assert_eq!(read_all(&t).await, [Some(value("1")), Some(value("1")), Some(value("1"))]);
    });
}

/// A transaction commits by staging once more where its writes had to go, if its gateway is set to it; what it has read is refreshed.
#[test]
fn writes_above_a_reader_are_staged_again_above_it() {
    for (stagings_again_max, path) in [(0, CommitPath::TwoPhase), (1, CommitPath::Parallel)] {
        let settings = Settings { stagings_again_max, ..Settings::default() };
        let t = over_three_ranges_with(5, settings);
        coverage::take();
        t.world.block_on(async {
            let mut writer = t.db.begin(TxnOptions::default());
            assert_eq!(writer.get(&key("b"), None).await, Ok(None));
            let time = t.world.runtime().time;
            time.sleep_until(time.monotonic().plus(Duration::from_millis(5))).await;
            assert_eq!(read_all(&t).await, [None, None, None]);
            for name in KEYS {
                writer.put(key(name), value("1")).expect("open");
            }
            assert_eq!(writer.commit().await.map(|info| info.path), Ok(path));
            assert_eq!(read_all(&t).await, [Some(value("1")), Some(value("1")), Some(value("1"))]);
        });
        assert_eq!(coverage::count(Mark::ParallelStagedAgain), u64::from(stagings_again_max));
        t.world.settle(Duration::from_secs(100));
        assert_eq!((t.kv.lock_count(), t.kv.record_count()), (0, 0));
    }
}
