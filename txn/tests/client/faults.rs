//! Lost, late and doubled messages, at every message of a commit: never applied twice, never reported as failed when it happened.

use super::history::{Done, check};
use super::serial::{Step, name, step};
use super::{Routed, key, number, routed, routed_with, value};
use bytes::Bytes;
use futures::future::join;
use parking_lot::Mutex;
use proptest::prelude::*;
use replication::range::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use storage::Key;
use txn::api::{Batch, Lock, Request};
use txn::client::{CommitInfo, Settings, Settled, Txn, TxnError, TxnOptions};
use txn::testing::Fate;

/// Reads and increments both counters, in one range or in two.
async fn increment_both(t: &Routed) -> Result<CommitInfo, TxnError> {
    let mut txn = t.db.begin(TxnOptions::default());
    increment(&mut txn, "a").await?;
    increment(&mut txn, "z").await?;
    txn.commit().await
}

async fn increment(txn: &mut Txn, counter: &str) -> Result<(), TxnError> {
    let old = number(txn.get(&key(counter), Some(Lock::Exclusive)).await?.as_ref());
    txn.put(key(counter), Bytes::from((old + 1).to_string()))
}

/// Everything is laid down as soon as it is written.
fn two_phases() -> Settings {
    Settings { spill_bytes: 0, ..Settings::default() }
}

fn counters(t: &Routed) -> (i64, i64) {
    let rows: BTreeMap<Key, Bytes> = t.kv.rows().into_iter().collect();
    (number(rows.get(&key("a"))), number(rows.get(&key("z"))))
}

/// One message, the `nth`, will meet its fate.
fn with_one_fault(nth: u64, fate: Fate, split: bool, settings: Settings) -> Routed {
    let t = routed_with(nth, settings);
    if split {
        t.peers.split_at(key("m"));
    }
    let mut count = 0;
    t.peers.set_fates(move |_, _| {
        count += 1;
        if count == nth { fate } else { Fate::Delivered }
    });
    t
}

/// The transaction must say the truth about its commit. How many messages were sent.
fn one_fault(nth: u64, fate: Fate, split: bool, settings: Settings) -> u64 {
    let t = with_one_fault(nth, fate, split, settings);
    let outcome = t.world.block_on(increment_both(&t));
    // Everything late has arrived, everything left has been cleaned or has expired.
    t.world.settle(Duration::from_secs(100));
    t.world.block_on(async {
        let mut reader = t.db.begin(TxnOptions::default());
        let seen =
            reader.multi_get(&[key("a"), key("z")], Some(Lock::Exclusive)).await.expect("healed");
        assert_eq!((number(seen[0].as_ref()), number(seen[1].as_ref())), counters(&t));
        reader.rollback().await;
    });
    let (a, z) = counters(&t);
    assert_eq!(a, z, "half of the transaction");
    match outcome {
        Ok(_) => assert_eq!(a, 1, "message {nth} {fate:?}: reported as committed"),
        Err(TxnError::Ambiguous { .. }) => assert!(a <= 1),
        Err(error) => assert_eq!(a, 0, "message {nth} {fate:?}: reported as failed: {error:?}"),
    }
    t.peers.sent()
}

#[test]
fn a_single_lost_late_or_doubled_message_never_makes_it_lie() {
    for fate in [
        Fate::LostBefore,
        Fate::LostAfter,
        Fate::Swallowed,
        Fate::SwallowedAfter,
        Fate::Slow,
        Fate::Late,
        Fate::Twice,
    ] {
        for (split, settings) in
            [(false, Settings::default()), (true, Settings::default()), (true, two_phases())]
        {
            let mut nth = 1;
            while one_fault(nth, fate, split, settings.clone()) >= nth && nth < 40 {
                nth += 1;
            }
            assert!(nth > 3, "only {nth} messages: nothing was tested");
        }
    }
}

/// A message that is lost without a word costs a second or two, not the time after which a range counts as lost, and no error.
#[test]
fn a_single_message_lost_without_a_word_costs_nobody_his_statement() {
    for fate in [Fate::Swallowed, Fate::SwallowedAfter, Fate::Slow] {
        for (split, settings) in
            [(false, Settings::default()), (true, Settings::default()), (true, two_phases())]
        {
            let mut nth = 1;
            let mut sent = 1;
            while sent >= nth {
                let t = with_one_fault(nth, fate, split, settings.clone());
                let begun = t.world.runtime().time.monotonic();
                let outcome = t.world.block_on(async {
                    loop {
                        match increment_both(&t).await {
                            // Its commit never arrived: what is whole in one statement is run again by the server.
                            Err(error) if error.is_retryable() => {}
                            outcome => return outcome,
                        }
                    }
                });
                let waited = t.world.runtime().time.monotonic().since(begun);
                assert!(outcome.is_ok(), "message {nth} {fate:?}: {outcome:?}");
                assert!(waited < Duration::from_secs(2), "message {nth} {fate:?}: {waited:?}");
                sent = t.peers.sent();
                t.world.settle(Duration::from_secs(100));
                assert_eq!(counters(&t), (1, 1), "message {nth} {fate:?}");
                nth += 1;
            }
            assert!(nth > 3, "only {nth} messages: nothing was tested");
        }
    }
}

/// Where every answer takes longer than gateways are patient, each commit's refusal comes after a silence. What it asks for is done
/// nevertheless: those in each other's way all get through.
#[test]
fn refusals_that_come_late_are_acted_on() {
    for seed in 0..20 {
        let t = routed(seed);
        t.peers.split_at(key("m"));
        t.peers.set_fates(|_, _| Fate::Slow);
        let done = Arc::new(Mutex::new(0));
        for _ in 0..3 {
            let (db, done) = (t.db.clone(), done.clone());
            t.world.spawn(async move {
                loop {
                    let mut txn = db.begin(TxnOptions::default());
                    let outcome = async {
                        let a = number(txn.get(&key("a"), None).await?.as_ref());
                        let z = number(txn.get(&key("z"), None).await?.as_ref());
                        txn.put(key("a"), Bytes::from((a + 1).to_string()))?;
                        txn.put(key("z"), Bytes::from((z + 1).to_string()))?;
                        txn.commit().await
                    };
                    match outcome.await {
                        Ok(_) => break *done.lock() += 1,
                        Err(error) => assert!(error.is_retryable(), "{error:?}"),
                    }
                }
            });
        }
        t.world.settle(Duration::from_secs(300));
        assert_eq!(*done.lock(), 3, "seed {seed}");
        assert_eq!(counters(&t), (3, 3), "seed {seed}");
    }
}

/// The record knows: when the answer to the commit is lost, it is found out, not guessed.
#[test]
fn a_lost_answer_to_a_two_phase_commit_is_found_out() {
    let t = routed_with(1, two_phases());
    t.peers.split_at(key("m"));
    let mut lost = 0;
    t.peers.set_fates(move |_, batch| {
        let commits =
            matches!(batch.requests.as_slice(), [Request::EndTxn { commit_ts: Some(_), .. }]);
        if commits && lost < 3 {
            lost += 1;
            return Fate::LostAfter;
        }
        Fate::Delivered
    });
    assert!(t.world.block_on(increment_both(&t)).is_ok());
    t.world.settle(Duration::from_secs(10));
    assert_eq!(counters(&t), (1, 1));
}

#[test]
fn a_lost_answer_to_a_one_phase_commit_is_found_out_and_it_is_not_repeated() {
    let at_once = Duration::ZERO;
    // So long that it has given a sign of life, and has a record.
    let beaten = Duration::from_secs(3);
    for (fate, happens, rest) in [
        (Fate::LostAfter, 1, at_once),
        (Fate::LostAfter, 1, beaten),
        (Fate::Late, 0, at_once),
        (Fate::Late, 0, beaten),
    ] {
        let t = routed(2);
        let tries = Arc::new(Mutex::new(0));
        let counted = tries.clone();
        t.peers.set_fates(move |_, batch| match batch.requests.as_slice() {
            [Request::CommitOnePhase { .. }] => {
                *counted.lock() += 1;
                fate
            }
            _ => Fate::Delivered,
        });
        let outcome = t.world.block_on(async {
            let mut txn = t.db.begin(TxnOptions::default());
            increment(&mut txn, "a").await?;
            increment(&mut txn, "z").await?;
            let time = t.world.runtime().time;
            time.sleep_until(time.monotonic().plus(rest)).await;
            txn.commit().await
        });
        match outcome {
            Ok(_) => assert_eq!(happens, 1),
            // What is late comes after somebody was told that it never will.
            Err(error) => assert!(error.is_retryable() && happens == 0, "{error:?}"),
        }
        t.world.settle(Duration::from_secs(10));
        assert_eq!(counters(&t), (happens, happens), "{fate:?} after {rest:?}");
        assert_eq!(t.kv.lock_count(), 0);
        assert_eq!(*tries.lock(), 1, "a commit that is not idempotent was sent again");
    }
}

/// The commit has arrived, and then nobody answers any more: nobody may say that it failed.
#[test]
fn a_commit_into_silence_is_ambiguous_and_cleaned_up_after_the_silence() {
    let t = routed_with(3, two_phases());
    t.peers.split_at(key("m"));
    let silent = Arc::new(Mutex::new(false));
    let seen = silent.clone();
    t.peers.set_fates(move |_, batch| {
        let commits =
            matches!(batch.requests.as_slice(), [Request::EndTxn { commit_ts: Some(_), .. }]);
        let mut silent = seen.lock();
        if *silent {
            return Fate::LostBefore;
        }
        if commits {
            *silent = true;
            return Fate::LostAfter;
        }
        Fate::Delivered
    });
    let error = t.world.block_on(increment_both(&t)).expect_err("silence");
    assert!(matches!(error, TxnError::Ambiguous { .. }), "{error:?}");
    t.peers.heal();
    *silent.lock() = false;
    t.world.settle(Duration::from_secs(100));
    assert_eq!((counters(&t), t.kv.lock_count()), ((1, 1), 0));
}

/// Whoever was told that nobody knows can ask later, at any gateway, and learns the truth for good.
#[test]
fn a_ticket_tells_what_became_of_a_commit() {
    for (split, fate) in
        [(false, Fate::LostAfter), (false, Fate::Late), (true, Fate::LostAfter), (true, Fate::Late)]
    {
        let t = routed(5);
        if split {
            t.peers.split_at(key("m"));
        }
        let silent = Arc::new(Mutex::new(false));
        let seen = silent.clone();
        t.peers.set_fates(move |_, batch| {
            let is_commit = batch.requests.iter().any(|request| {
                matches!(request, Request::CommitOnePhase { .. } | Request::Stage { .. })
            });
            let mut silent = seen.lock();
            if is_commit && !*silent {
                *silent = true;
                return fate;
            }
            if *silent { Fate::LostBefore } else { Fate::Delivered }
        });
        let error = t.world.block_on(increment_both(&t)).expect_err("silence");
        let TxnError::Ambiguous { ticket: Some(ticket), .. } = &error else { panic!("{error:?}") };
        t.peers.heal();
        *silent.lock() = false;
        t.peers.set_fates(|_, _| Fate::Delivered);
        let text = ticket.to_string();
        let settled = t.world.block_on(t.db.settle(&text.parse().expect("a ticket")));
        t.world.settle(Duration::from_secs(100));
        let again = t.world.block_on(t.db.settle(ticket));
        let happened = matches!(settled, Ok(Settled::Committed(_)));
        assert_eq!(settled, again, "{split} {fate:?}");
        assert_eq!(counters(&t), (i64::from(happened), i64::from(happened)), "{split} {fate:?}");
        if !split && fate == Fate::LostAfter {
            assert!(happened);
        }
        assert_eq!(t.kv.lock_count(), 0);
    }
}

#[test]
fn a_session_that_goes_away_in_its_commit_leaves_all_or_nothing() {
    for polls in 1..200 {
        let t = routed(4);
        t.peers.split_at(key("m"));
        let ended = t.world.block_on(async {
            let mut commit = Box::pin(increment_both(&t));
            let mut left = polls;
            // Polled so many times, then dropped: the client is gone.
            std::future::poll_fn(|context| {
                if left == 0 {
                    return std::task::Poll::Ready(false);
                }
                left -= 1;
                commit.as_mut().poll(context).map(|outcome| outcome.is_ok())
            })
            .await
        });
        t.world.settle(Duration::from_secs(100));
        let (a, z) = counters(&t);
        assert_eq!(a, z, "after {polls} polls");
        assert_eq!(t.kv.lock_count(), 0, "after {polls} polls");
        if ended {
            assert_eq!(a, 1);
            return;
        }
    }
    panic!("it never ended");
}

fn fate(draw: u8) -> Fate {
    match draw {
        0..=5 => Fate::LostBefore,
        6..=11 => Fate::LostAfter,
        12..=15 => Fate::Late,
        16..=25 => Fate::Twice,
        _ => Fate::Delivered,
    }
}

type History = Arc<Mutex<Vec<Done>>>;

/// As in `serial`, but each transaction is tried once, and an ambiguous one writes a mark that tells afterwards.
async fn try_all(
    db: txn::client::Db,
    id: usize,
    scripts: Vec<Vec<Step>>,
    sure: History,
    unsure: History,
) {
    for (index, steps) in scripts.into_iter().enumerate() {
        let mark = key(&format!("mark/{id}/{index}"));
        let mut txn = db.begin(TxnOptions::default());
        let mut done = Done { label: format!("s{id}t{index}"), ..Done::default() };
        done.writes.insert(mark.clone(), Some(value("1")));
        let outcome = async {
            txn.put(mark.clone(), value("1"))?;
            for step in &steps {
                let (Step::Get(k, _)
                | Step::Put(k)
                | Step::Delete(k)
                | Step::Increment(k)
                | Step::Scan(k, _, _)) = step;
                let k = name(*k % 4);
                let seen = txn.get(&k, None).await?;
                if !done.writes.contains_key(&k) {
                    done.gets.push((k.clone(), seen));
                }
                let new = Bytes::from(format!("{}-{}", done.label, done.gets.len()));
                txn.put(k.clone(), new.clone())?;
                done.writes.insert(k, Some(new));
            }
            txn.commit().await
        }
        .await;
        match outcome {
            Ok(info) => sure.lock().push(Done { ts: info.ts, ..done }),
            Err(TxnError::Ambiguous { .. }) => unsure.lock().push(done),
            Err(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Committed ones are all there, failed ones are not, in a serial order. (Ambiguous ones are told by their marks; they have no
    /// known timestamp, so a history with one of them in it is only checked for its marks.)
    #[test]
    fn under_random_faults_everybody_tells_the_truth(
        seed in any::<u64>(),
        draws in proptest::collection::vec(0u8..120, 1..300),
        scripts in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(step(4), 1..4), 1..4), 1..4),
    ) {
        let t = routed(seed);
        t.peers.split_at(name(2));
        let mut draws = draws.into_iter();
        t.peers.set_fates(move |_, _: &Batch| draws.next().map_or(Fate::Delivered, fate));
        let (sure, unsure) = (History::default(), History::default());
        for (id, scripts) in scripts.into_iter().enumerate() {
            t.world.spawn(try_all(t.db.clone(), id, scripts, sure.clone(), unsure.clone()));
        }
        t.world.settle(Duration::from_secs(600));
        // Somebody comes by everything that was left: orphans are resolved by who meets them.
        t.world.block_on(async {
            let mut sweeper = t.db.begin(TxnOptions::default());
            sweeper.scan(storage::Span::all(), txn::client::ScanOptions {
                lock: Some(Lock::Exclusive), ..Default::default()
            }).await.expect("healed");
            sweeper.rollback().await;
        });
        t.world.settle(Duration::from_secs(60));
        let rows = t.kv.rows();
        let marked = |done: &Done| {
            let mark = done.writes.keys().find(|key| key.as_bytes().starts_with(b"mark/")).expect("each has one");
            rows.iter().any(|(key, _)| key == mark)
        };
        let (sure, unsure) = (std::mem::take(&mut *sure.lock()), std::mem::take(&mut *unsure.lock()));
        for done in &sure {
            prop_assert!(marked(done), "{} was reported as committed", done.label);
        }
        let marks = rows.iter().filter(|(key, _)| key.as_bytes().starts_with(b"mark/")).count();
        let happened = unsure.iter().filter(|done| marked(done)).count();
        prop_assert_eq!(marks, sure.len() + happened, "somebody was reported as failed");
        if happened == 0 {
            check(sure, &rows);
        }
    }
}

/// T04: a copy that was carried out, and then nobody knows the range any more. What is told as certain must be.
#[test]
fn a_commit_whose_answer_was_lost_stays_in_doubt_when_its_range_cannot_be_found() {
    for settings in [Settings::default(), two_phases()] {
        let t = routed_with(3, settings.clone());
        t.peers.split_at(key("m"));
        t.world.block_on(increment_both(&t)).expect("nothing fails");
        t.world.settle(Duration::from_secs(1));
        t.peers.set_fates(|to, batch| match batch.is_commit() && to == NodeId(1) {
            true => Fate::SwallowedAfter,
            false => Fate::Delivered,
        });
        let time = t.world.runtime().time;
        let (outcome, ()) = t.world.block_on(join(increment_both(&t), async {
            time.sleep_until(time.monotonic().plus(Duration::from_millis(100))).await;
            t.peers.lose_ranges(true);
        }));
        t.peers.lose_ranges(false);
        t.peers.heal();
        t.world.settle(Duration::from_secs(100));
        let read = t.world.block_on(async {
            let mut txn = t.db.begin(TxnOptions::read_only("who meets its traces"));
            (txn.get(&key("a"), None).await, txn.get(&key("z"), None).await)
        });
        assert!(matches!(outcome, Err(TxnError::Ambiguous { .. })), "{outcome:?}: {read:?}");
        if settings == two_phases() {
            let two = Ok(Some(value("2")));
            assert_eq!(read, (two.clone(), two), "its record says so");
        }
    }
}
