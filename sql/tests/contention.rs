//! Errors of conflicts say where, who and what to do; SHOW CONTENTION says what waits for what.

use crate::world::{TestCluster, run};
use futures::FutureExt;
use sql::{Session, SqlError};
use std::time::Duration;

/// The error of the last statement.
async fn error(session: &mut Session, text: &str) -> SqlError {
    let mut script = session.simple(text).await;
    let mut last = None;
    while let Some(result) = script.next(session).await {
        last = result.err();
    }
    last.unwrap_or_else(|| panic!("{text} must fail"))
}

fn detail(error: &SqlError) -> &str {
    error.detail.as_deref().expect("it has a detail")
}

fn hint(error: &SqlError) -> &str {
    error.hint.as_deref().expect("it has a hint")
}

#[track_caller]
fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

const SETUP: &str =
    "CREATE TABLE t (id int PRIMARY KEY, email text, v int); CREATE INDEX by_email ON t (email);
    INSERT INTO t VALUES (1, 'a@x', 10), (2, 'b@x', 20), (3, 'c@x', 30)";

fn set_up() -> (TestCluster, Session, Session) {
    TestCluster::with_two_sessions(SETUP)
}

/// A transaction reads a row and writes another; the row is changed meanwhile through the other gateway.
async fn overwritten(one: &mut Session, two: &mut Session, read: &str) -> SqlError {
    run(one, "BEGIN").await;
    run(one, read).await;
    run(two, "UPDATE t\n  SET v = 11, email = 'd@x'\n  WHERE id = 1").await;
    // Whoever writes that row comes after this.
    run(two, "SELECT v FROM t WHERE id = 2").await;
    run(one, "UPDATE t SET v = 21 WHERE id = 2").await;
    let error = error(one, "COMMIT").await;
    assert_eq!(error.code.to_string(), "40001");
    error
}

#[test]
fn an_overwritten_read_names_the_row_and_the_writer_with_its_statement_and_age() {
    let (cluster, mut one, mut two) = set_up();
    cluster.world.block_on(async {
        let error = overwritten(&mut one, &mut two, "SELECT v FROM t WHERE id = 1").await;
        assert_eq!(error.message, "could not serialize access due to concurrent update");
        assert_contains(
            detail(&error),
            &[
                "The row (id)=(1) of table \"t\", which it has read, was overwritten at ",
                "The other is transaction t",
                " of n2, begun ",
                "ms ago and committed since: UPDATE t SET v = 11, email = 'd@x' WHERE id = 1",
            ],
        );
        assert_contains(hint(&error), &["nothing of it was committed", "FOR UPDATE"]);
        assert_eq!(error.table.as_deref(), Some("t"));
        assert_eq!(error.constraint.as_deref(), Some("t_pkey"));
    });
}

#[test]
fn an_entry_of_an_index_is_named_as_such() {
    let (cluster, mut one, mut two) = set_up();
    cluster.world.block_on(async {
        let read = "SELECT count(*) FROM t WHERE email = 'd@x'";
        let error = overwritten(&mut one, &mut two, read).await;
        let entry = "The entry (email)=(d@x) of index \"by_email\" of table \"t\"";
        assert_contains(detail(&error), &[entry, "SET v = 11, email = 'd@x'"]);
        assert_eq!(error.constraint.as_deref(), Some("by_email"));
    });
}

#[test]
fn a_commit_over_several_ranges_is_known_by_its_versions() {
    let (cluster, mut one, mut two) = set_up();
    cluster
        .run(&mut one, "CREATE TABLE u (id int PRIMARY KEY, v int); INSERT INTO u VALUES (1, 0)");
    cluster.world.block_on(async {
        run(&mut one, "BEGIN").await;
        run(&mut one, "SELECT v FROM u WHERE id = 1").await;
        run(&mut two, "BEGIN; UPDATE t SET v = 1 WHERE id = 3").await;
        run(&mut two, "UPDATE u SET v = 1 WHERE id = 1").await;
        assert_eq!(run(&mut two, "COMMIT").await, "COMMIT\n");
        run(&mut two, "SELECT v FROM t WHERE id = 2").await;
        run(&mut one, "UPDATE t SET v = 21 WHERE id = 2").await;
        let error = error(&mut one, "COMMIT").await;
        assert_contains(
            detail(&error),
            &[
                "The row (id)=(1) of table \"u\"",
                "committed since: UPDATE u SET v = 1 WHERE id = 1",
            ],
        );
    });
}

#[test]
fn a_gateway_that_does_not_answer_is_named() {
    let (cluster, mut one, mut two) = set_up();
    cluster.silence(2);
    cluster.world.block_on(async {
        let error = overwritten(&mut one, &mut two, "SELECT v FROM t WHERE id = 1").await;
        assert_contains(
            detail(&error),
            &["(id)=(1)", "its gateway may be one that does not answer: n2."],
        );
    });
}

#[test]
fn what_a_transaction_says_is_its_owners_and_superusers_to_see() {
    let (cluster, mut one, mut two) = set_up();
    cluster.run(&mut one, "CREATE ROLE clerk LOGIN");
    cluster.world.block_on(async {
        let params = sql::SessionParams {
            user: "clerk".into(),
            database: "meridian".into(),
            ..sql::SessionParams::default()
        };
        let mut clerk = cluster.east.session(params).expect("may log in");
        let error = overwritten(&mut clerk, &mut two, "SELECT v FROM t WHERE id = 1").await;
        assert_contains(detail(&error), &["(id)=(1)", "of n2", "is its owner's and superusers'"]);
        assert!(!detail(&error).contains("d@x"), "{}", detail(&error));
        for query in ["SHOW CONTENTION", "SELECT * FROM meridian_contention"] {
            let answer = run(&mut clerk, query).await;
            assert_contains(&answer, &["[42501]"]);
        }
    });
}

/// Two sessions lock two rows in opposite order; the error of the one that gives way.
fn deadlock(cluster: &TestCluster, mut one: Session, mut two: Session) -> SqlError {
    cluster.world.block_on(async {
        run(&mut one, "BEGIN; UPDATE t SET v = 1 WHERE id = 1").await;
        run(&mut two, "BEGIN; UPDATE t SET v = 2 WHERE id = 2").await;
        let first = async {
            let outcome = last(&mut one, "UPDATE t SET v = 3 WHERE id = 2").await;
            run(&mut one, "COMMIT").await;
            outcome
        };
        let second = async {
            let outcome = last(&mut two, "UPDATE t SET v = 4 WHERE id = 1").await;
            run(&mut two, "COMMIT").await;
            outcome
        };
        let (first, second) = futures::future::join(first.boxed(), second.boxed()).await;
        match (first, second) {
            (Some(error), None) | (None, Some(error)) => error,
            both => panic!("one gives way: {both:?}"),
        }
    })
}

/// The last error, if there is one.
async fn last(session: &mut Session, text: &str) -> Option<SqlError> {
    let mut script = session.simple(text).await;
    let mut last = None;
    while let Some(result) = script.next(session).await {
        last = result.err();
    }
    last
}

#[test]
fn who_gives_way_in_a_deadlock_is_told_for_whom() {
    let (cluster, mut one, two) = set_up();
    cluster.run(&mut one, "SET transaction_rerun_limit = 0");
    let mut two = two;
    cluster.run(&mut two, "SET transaction_rerun_limit = 0");
    let error = deadlock(&cluster, one, two);
    assert!(["40P01", "40001"].contains(&error.code.to_string().as_str()), "{error}");
    assert_contains(
        detail(&error),
        &[
            "row (id)=(",
            "of table \"t\"",
            "The other is transaction t",
            "still open: UPDATE t SET v = ",
        ],
    );
    assert_contains(hint(&error), &["nothing of it was committed"]);
}

#[test]
fn nowait_and_lock_timeout_name_the_holder_too() {
    let (cluster, mut one, mut two) = set_up();
    cluster.world.block_on(async {
        run(&mut two, "BEGIN; UPDATE t SET v = 2 WHERE id = 2").await;
        let expected = ["(id)=(2)", "of n2", "still open: UPDATE t SET v = 2 WHERE id = 2"];
        let nowait = "SELECT * FROM t WHERE id = 2 FOR UPDATE NOWAIT";
        let refused = error(&mut one, nowait).await;
        assert_eq!(refused.code.to_string(), "55P03");
        assert_contains(detail(&refused), &expected);
        let waited =
            error(&mut one, "SET lock_timeout = 300; UPDATE t SET v = 0 WHERE id = 2").await;
        assert_eq!(waited.code.to_string(), "55P03");
        assert_contains(detail(&waited), &expected[1..]);
        run(&mut two, "COMMIT").await;
    });
}

#[test]
fn the_table_of_contention_ranks_what_was_waited_for_longest() {
    let (cluster, mut one, mut two) = set_up();
    let wait = |one: &mut Session, two: &mut Session, id: u32, pause: Duration| {
        let time = cluster.world.runtime().time.clone();
        let update = format!("UPDATE t SET v = v + 1 WHERE id = {id}");
        cluster.world.block_on(async {
            run(one, &format!("BEGIN; {update}")).await;
            let release = async {
                time.sleep_until(time.monotonic().plus(pause)).await;
                run(one, "COMMIT").await;
            };
            futures::future::join(run(two, &update).boxed(), release.boxed()).await;
        });
    };
    wait(&mut one, &mut two, 1, Duration::from_millis(50));
    wait(&mut one, &mut two, 2, Duration::from_millis(700));
    wait(&mut one, &mut two, 2, Duration::from_millis(700));
    cluster.world.block_on(overwritten(
        &mut two,
        &mut one,
        "SELECT v FROM t WHERE id = 3; SELECT v FROM t WHERE id = 1",
    ));
    let columns = "table_name, index_name, key, waits, waited_ms > 1000, longest_ms > 600, retries, deadlocks, waiter_statement, holder_statement";
    let query = format!("SELECT {columns} FROM meridian_contention WHERE table_name = 't'");
    let rows = cluster.run(&mut one, &query);
    let rows: Vec<&str> = rows.lines().skip(1).collect();
    let update = "UPDATE t SET v = v + 1 WHERE id = 2";
    assert_eq!(rows[0], format!("t|t_pkey|(id)=(2)|2|t|t|0|0|{update}|{update}"));
    let failed = "t|t_pkey|(id)=(1)|";
    assert!(rows[1].starts_with(failed) && rows[1].contains("|f|f|1|0|"), "{rows:?}");
    // The same from the other gateway, as a statement.
    let shown = cluster.run(&mut two, "SHOW CONTENTION");
    assert_contains(&shown, &["table_name|index_name|key|waits|", "(id)=(2)|2|1", update]);
    // Who is silent is missing, and that is said.
    cluster.silence(1);
    let shown = cluster.run(&mut two, "SHOW CONTENTION");
    assert_contains(&shown, &["WARNING:  what waits there is not shown: no answer from n1"]);
}
