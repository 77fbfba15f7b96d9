//! Schema changes against those who write at the same time.

use crate::world::{TestCluster, run};
use futures::FutureExt;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use storage::Key;
use txn::runtime::Runtime;

const WRITERS: u32 = 3;
const INSERTS: u32 = 10;

fn pause(runtime: &Runtime, below_us: u64) -> impl Future<Output = ()> + Send + use<> {
    let time = runtime.time.clone();
    let until = time.monotonic().plus(Duration::from_micros(runtime.random.next_u64() % below_us));
    async move { time.sleep_until(until).await }
}

/// A NULL that a writer has in its hands when the column is checked is refused afterwards, whichever schema it was planned under.
#[test]
fn no_null_comes_behind_set_not_null() {
    let mut refused = 0;
    for seed in 1..=10 {
        let cluster = TestCluster::with_seed(seed);
        let mut own = cluster.session(&cluster.east);
        cluster.run(&mut own, "CREATE TABLE t (id int PRIMARY KEY, x int)");
        let (runtime, errors) = (cluster.world.runtime(), Arc::new(Mutex::new(Vec::new())));
        for writer in 0..WRITERS {
            let engine = if writer % 2 == 0 { &cluster.east } else { &cluster.west };
            let (mut session, runtime) = (cluster.session(engine), runtime.clone());
            let errors = errors.clone();
            let work = async move {
                for number in 0..INSERTS {
                    pause(&runtime, 3_000).await;
                    let insert = format!("INSERT INTO t VALUES ({}, NULL)", writer * 100 + number);
                    let mut answer = match number % 2 {
                        0 => run(&mut session, &insert).await,
                        _ => run(&mut session, &format!("BEGIN; {insert}")).await,
                    };
                    pause(&runtime, 3_000).await;
                    if number % 2 == 1 {
                        answer += &run(&mut session, "COMMIT").await;
                    }
                    if let Some((_, code)) = answer.split_once('[') {
                        errors.lock().push(code[..5].to_string());
                    }
                }
            };
            cluster.world.spawn(work.boxed());
        }
        let (mut changer, is_set) = (cluster.session(&cluster.west), Arc::new(Mutex::new(false)));
        let (done, changing) = (is_set.clone(), runtime.clone());
        let work = async move {
            pause(&changing, 15_000).await;
            while !*done.lock() {
                run(&mut changer, "UPDATE t SET x = 0 WHERE x IS NULL").await;
                let change = "ALTER TABLE t ALTER COLUMN x SET NOT NULL";
                *done.lock() = run(&mut changer, change).await == "ALTER TABLE\n";
            }
        };
        cluster.world.spawn(work.boxed());
        cluster.world.settle(Duration::from_secs(600));
        assert!(*is_set.lock(), "seed {seed}: the column was never set");
        for code in errors.lock().iter() {
            assert!(["23502", "40001"].contains(&code.as_str()), "seed {seed}: {code}");
        }
        refused += errors.lock().len();
        let count = cluster.run(&mut own, "SELECT count(*) FROM t WHERE x IS NULL");
        assert_eq!(count, "count\n0\n", "seed {seed}: a NULL is in a column without");
    }
    assert!(refused > 0, "nobody wrote behind a change: this proves nothing");
}

/// What a dead gateway has left in the table is in nobody's way for longer than it takes to be sure that it is dead.
#[test]
fn an_intent_that_nobody_owns_does_not_stop_a_schema_change() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    cluster.run(&mut session, "CREATE TABLE t (id int PRIMARY KEY, x int)");
    let table = cluster.east.catalog().find_table("meridian", "public", "t").expect("there").id;
    cluster.leave_intent(&Key::table(table));
    let begun = cluster.world.runtime().time.monotonic();
    let changed = cluster.run(&mut session, "ALTER TABLE t ADD COLUMN y int");
    assert_eq!(changed, "ALTER TABLE\n");
    let waited = cluster.world.runtime().time.monotonic().since(begun);
    assert!(waited < Duration::from_secs(10), "{waited:?}");
}
