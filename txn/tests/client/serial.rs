//! Random transactions of several sessions, interleaved at every message, are as if they had run one after another.

use super::history::{Done, check};
use super::{key, local_with};
use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use storage::{Key, Span};
use txn::api::Lock;
use txn::client::{Db, ScanOptions, Settings, Txn, TxnError, TxnOptions};
use txn::testing::World;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Get(u8, Option<Lock>),
    Scan(u8, u8, Option<Lock>),
    Put(u8),
    Delete(u8),
    Increment(u8),
}

pub(super) fn step(keys: u8) -> impl Strategy<Value = Step> {
    let lock = prop_oneof![2 => Just(None), 1 => Just(Some(Lock::Shared)), 1 => Just(Some(Lock::Exclusive))];
    prop_oneof![
        2 => (0..keys, lock.clone()).prop_map(|(k, lock)| Step::Get(k, lock)),
        1 => (0..=keys, 0..=keys, lock).prop_map(|(a, b, lock)| Step::Scan(a.min(b), a.max(b), lock)),
        2 => (0..keys).prop_map(Step::Put),
        1 => (0..keys).prop_map(Step::Delete),
        2 => (0..keys).prop_map(Step::Increment),
    ]
}

pub(super) fn name(n: u8) -> Key {
    key(&format!("k{n:02}"))
}

/// Runs the steps in a transaction; what it saw and wrote, without its own writes in what it saw.
async fn play(txn: &mut Txn, steps: &[Step], label: &str) -> Result<Done, TxnError> {
    let mut done = Done { label: label.to_string(), ..Done::default() };
    for (index, step) in steps.iter().enumerate() {
        let fresh = Bytes::from(format!("{label}.{index}"));
        match step {
            Step::Get(k, lock) => {
                let seen = txn.get(&name(*k), *lock).await?;
                if !done.writes.contains_key(&name(*k)) {
                    done.gets.push((name(*k), seen));
                }
            }
            Step::Scan(from, to, lock) => {
                let span = Span::new(name(*from), name(*to));
                let options = ScanOptions { lock: *lock, ..ScanOptions::default() };
                let page = txn.scan(span.clone(), options).await?;
                if !done.writes.keys().any(|key| span.contains(key)) {
                    done.scans.push((span, page.rows));
                }
            }
            Step::Put(k) => {
                txn.put(name(*k), fresh.clone())?;
                done.writes.insert(name(*k), Some(fresh));
            }
            Step::Delete(k) => {
                txn.delete(name(*k))?;
                done.writes.insert(name(*k), None);
            }
            Step::Increment(k) => {
                let seen = txn.get(&name(*k), Some(Lock::Exclusive)).await?;
                if !done.writes.contains_key(&name(*k)) {
                    done.gets.push((name(*k), seen.clone()));
                }
                let mut longer = seen.unwrap_or_default().to_vec();
                longer.push(b'+');
                let value = Bytes::from(longer);
                txn.put(name(*k), value.clone())?;
                done.writes.insert(name(*k), Some(value));
            }
        }
    }
    Ok(done)
}

/// One session: its transactions one after another, each until it commits or its tries are used up.
pub(super) async fn session(
    db: Db,
    id: usize,
    scripts: Vec<Vec<Step>>,
    history: Arc<Mutex<Vec<Done>>>,
) {
    for (index, steps) in scripts.iter().enumerate() {
        let mut txn = db.begin(TxnOptions::default());
        for attempt in 0..300 {
            let label = format!("s{id}t{index}a{attempt}");
            let outcome = match play(&mut txn, steps, &label).await {
                Ok(done) => txn.commit().await.map(|info| Done { ts: info.ts, ..done }),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(done) => {
                    history.lock().push(done);
                    break;
                }
                Err(error) if error.is_retryable() => {
                    txn.restart();
                    // The keyspace's twin has no queues: without a pause who gives way takes its lock again before others can, and two that alternate
                    // keep out a third that needs two locks at once until one of them pauses for longer than it waits (300 ms a round).
                    let time = db.runtime().time.clone();
                    let pause_ms = 1 + db.runtime().random.next_u64() % (2 << attempt.min(11));
                    time.sleep_until(time.monotonic().plus(Duration::from_millis(pause_ms))).await;
                    txn.restart();
                }
                Err(error) => panic!("{label}: {error:?}"),
            }
        }
    }
}

fn scripts() -> impl Strategy<Value = Vec<Vec<Vec<Step>>>> {
    let txn = proptest::collection::vec(step(4), 1..5);
    proptest::collection::vec(proptest::collection::vec(txn, 1..4), 2..5)
}

fn run(seed: u64, scripts: Vec<Vec<Vec<Step>>>, uncertainty: Duration, spill: usize) -> usize {
    let world = World::with_uncertainty(seed, uncertainty);
    let t = local_with(world, Settings { spill_bytes: spill, ..Settings::default() });
    t.kv.split_at(name(2));
    let history = Arc::new(Mutex::new(Vec::new()));
    let sessions: Vec<_> = scripts
        .into_iter()
        .enumerate()
        .map(|(id, scripts)| session(t.db.clone(), id, scripts, history.clone()))
        .collect();
    for session in sessions {
        t.world.spawn(session);
    }
    t.world.settle(Duration::from_secs(300));
    assert_eq!(t.kv.lock_count(), 0, "locks or intents were left");
    let history = std::mem::take(&mut *history.lock());
    let count = history.len();
    check(history, &t.kv.rows());
    count
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn interleaved_transactions_are_serializable(
        seed in any::<u64>(),
        scripts in scripts(),
        uncertainty_ms in prop_oneof![Just(0u64), Just(50)],
        spill in prop_oneof![Just(0usize), Just(1 << 20)],
    ) {
        let wanted: usize = scripts.iter().map(Vec::len).sum();
        let committed = run(seed, scripts, Duration::from_millis(uncertainty_ms), spill);
        prop_assert_eq!(committed, wanted, "somebody starved");
    }
}

/// Same seed, same trace: what the seed decides is all that decides.
#[test]
fn a_seed_always_gives_the_same_history() {
    let scripts: Vec<Vec<Vec<Step>>> = (0..4)
        .map(|k| vec![vec![Step::Increment(k), Step::Increment(3 - k), Step::Put(1)]; 3])
        .collect();
    let trace = |seed| {
        let t = local_with(World::new(seed), Settings::default());
        let history = Arc::new(Mutex::new(Vec::new()));
        for (id, scripts) in scripts.clone().into_iter().enumerate() {
            t.world.spawn(session(t.db.clone(), id, scripts, history.clone()));
        }
        t.world.settle(Duration::from_secs(60));
        let history = history.lock();
        history.iter().map(|done| (done.label.clone(), done.ts)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(trace(5), trace(5));
    assert!((6..20).any(|seed| trace(seed) != trace(5)), "the seed decides nothing");
}
