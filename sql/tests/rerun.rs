//! A transaction that others got in the way of is run again unseen, if its client cannot tell: and never otherwise.

use crate::world::{TestCluster, run};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use sql::{Next, Outcome, Session};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use storage::{Key, Span};
use txn::api::{Batch, Kv, KvError, Reply, Request};
use txn::testing::{LocalKv, World};

const SETUP: &str = "CREATE TABLE t (id int PRIMARY KEY, email text, v int);
    INSERT INTO t VALUES (1, 'a', 10), (2, 'b', 20), (3, 'c', 30); CREATE SEQUENCE s";

fn set_up() -> (TestCluster, Session, Session) {
    TestCluster::with_two_sessions(SETUP)
}

/// Reads a column that nobody changes of a row that another changes, and writes a row that the other has read since, so that it must
/// come after the other: a conflict that shows in no answer.
/// `first` comes before that. What the commit answers.
fn conflict(cluster: &TestCluster, one: &mut Session, two: &mut Session, first: &str) -> String {
    cluster.world.block_on(async {
        let begun = run(one, &format!("BEGIN; {first}")).await;
        assert!(!begun.contains("ERROR"), "{begun}");
        assert_eq!(run(one, "SELECT v FROM t WHERE id = 1").await, "v\n10\n");
        assert_eq!(run(two, "UPDATE t SET email = email || '!' WHERE id = 1").await, "UPDATE 1\n");
        run(two, READ).await;
        assert_eq!(run(one, "UPDATE t SET v = v + 1 WHERE id = 2").await, "UPDATE 1\n");
        let answer = run(one, "COMMIT").await;
        run(one, "ROLLBACK").await;
        answer
    })
}

#[track_caller]
fn assert_told(answer: &str) {
    assert!(answer.ends_with("[40001]\n"), "{answer}");
}

/// Whoever writes row 2 from then on comes after the reader.
const READ: &str = "SELECT v FROM t WHERE id = 2";
const TABLE: &str = "SELECT * FROM t ORDER BY id";

#[test]
fn a_conflict_that_changes_nothing_of_what_was_seen_is_not_told() {
    let (cluster, mut one, mut two) = set_up();
    assert_eq!(conflict(&cluster, &mut one, &mut two, "SELECT 1"), "COMMIT\n");
    let rows = cluster.run(&mut two, TABLE);
    assert_eq!(rows, "id|email|v\n1|a!|10\n2|b|21\n3|c|30\n", "both have happened, once");
}

#[test]
fn a_conflict_that_changes_what_was_seen_is_told_with_the_statement_that_would_answer_otherwise() {
    let (cluster, mut one, mut two) = set_up();
    cluster.world.block_on(async {
        run(&mut one, "BEGIN; SELECT 1; SELECT v FROM t WHERE id = 1").await;
        run(&mut two, "UPDATE t SET v = 11 WHERE id = 1").await;
        run(&mut two, READ).await;
        run(&mut one, "UPDATE t SET v = 0 WHERE id = 2").await;
        let mut script = one.simple("COMMIT").await;
        let error = script.next(&mut one).await.expect("an answer").expect_err("it cannot commit");
        assert_eq!(error.code.to_string(), "40001");
        let detail = error.detail.expect("it has one");
        assert!(
            detail.contains(
                "It was run again, but another answer came from its statement 2 of 3, which was answered before (SELECT v FROM t WHERE id = 1)."
            ),
            "{detail}"
        );
    });
    assert_eq!(cluster.run(&mut one, "SELECT v FROM t WHERE id = 2"), "v\n20\n");
}

#[test]
fn a_transaction_that_was_run_again_in_vain_goes_on_from_no_savepoint() {
    let (cluster, mut one, mut two) = set_up();
    cluster.world.block_on(async {
        run(
            &mut one,
            "BEGIN; SELECT v FROM t WHERE id = 1; SAVEPOINT a; SELECT v FROM t WHERE id = 3",
        )
        .await;
        run(&mut two, "UPDATE t SET v = 31 WHERE id = 3; UPDATE t SET v = 21 WHERE id = 2").await;
        assert_told(&run(&mut one, "UPDATE t SET v = v + 1 WHERE id = 2").await);
        // It stands at the savepoint, later than what its client has seen.
        assert_told(&run(&mut one, "ROLLBACK TO a").await);
        assert_eq!(run(&mut one, "COMMIT").await, "ROLLBACK\n");
    });
}

#[test]
fn a_conflict_in_the_middle_is_not_told_either() {
    let (cluster, mut one, mut two) = set_up();
    cluster.world.block_on(async {
        run(&mut one, "BEGIN; SELECT v FROM t WHERE id = 1").await;
        run(&mut two, "UPDATE t SET email = 'x' WHERE id = 1; UPDATE t SET v = 21 WHERE id = 2")
            .await;
        // It must move to read what is newer, and cannot: its first read was overwritten.
        let answer = run(&mut one, "UPDATE t SET v = v + 1 WHERE id = 2 RETURNING v").await;
        assert_eq!(answer, "v\n22\nUPDATE 1\n");
        assert_eq!(run(&mut one, "COMMIT").await, "COMMIT\n");
    });
    assert_eq!(cluster.run(&mut one, TABLE), "id|email|v\n1|x|10\n2|b|22\n3|c|30\n");
}

#[test]
fn who_gives_way_in_a_deadlock_is_not_told_if_it_could_not_tell() {
    let (cluster, mut one, mut two) = set_up();
    cluster.world.block_on(async {
        for _ in 0..5 {
            let update = |id| format!("UPDATE t SET v = v + 1 WHERE id = {id}");
            run(&mut one, &format!("BEGIN; {}", update(1))).await;
            run(&mut two, &format!("BEGIN; {}", update(2))).await;
            let end = |session| async move {
                let (session, id): (&mut Session, u32) = session;
                assert_eq!(run(session, &update(id)).await, "UPDATE 1\n");
                assert_eq!(run(session, "COMMIT").await, "COMMIT\n");
            };
            futures::future::join(end((&mut one, 2)).boxed(), end((&mut two, 1)).boxed()).await;
        }
    });
    assert_eq!(cluster.run(&mut one, TABLE), "id|email|v\n1|a|20\n2|b|30\n3|c|30\n");
}

#[test]
fn what_changes_from_run_to_run_is_told_if_it_was_seen() {
    for (first, silent) in [
        ("SELECT now(), transaction_timestamp()", true),
        ("SELECT random()", false),
        ("SELECT gen_random_uuid()", false),
        ("SELECT clock_timestamp()", false),
        ("SELECT nextval('s')", false),
        // Drawn again, and not seen.
        ("INSERT INTO t VALUES (nextval('s') + 100)", true),
        ("INSERT INTO t VALUES (nextval('s') + 100) RETURNING id", false),
        ("INSERT INTO t VALUES (100, random()::text)", true),
        ("INSERT INTO t VALUES (nextval('s') + 100); SELECT currval('s')", false),
    ] {
        let (cluster, mut one, mut two) = set_up();
        let answer = conflict(&cluster, &mut one, &mut two, first);
        assert_eq!(answer == "COMMIT\n", silent, "{first}: {answer}");
        let bumped = cluster.run(&mut one, "SELECT v FROM t WHERE id = 2");
        assert_eq!(bumped, if silent { "v\n21\n" } else { "v\n20\n" }, "{first}");
    }
}

#[test]
fn what_has_other_effects_is_not_run_again() {
    for first in [
        "SELECT setval('s', 7)",
        "CREATE TABLE u (a int)",
        "EXPLAIN ANALYZE SELECT 1",
        "COPY t TO STDOUT",
        "SELECT 1; SET extra_float_digits = 0",
        "SELECT 1; SET LOCAL timezone = 'Europe/Berlin'",
        "SELECT 1; SELECT set_config('application_name', 'x', false)",
    ] {
        let (cluster, mut one, mut two) = set_up();
        assert_told(&conflict(&cluster, &mut one, &mut two, first));
    }
    // What was set before the first statement holds for all of them.
    for first in ["SET LOCAL timezone = 'Europe/Berlin'", "SET lock_timeout = 5000; SELECT 1"] {
        let (cluster, mut one, mut two) = set_up();
        assert_eq!(conflict(&cluster, &mut one, &mut two, first), "COMMIT\n", "{first}");
    }
}

#[test]
fn it_can_be_turned_off_and_has_limits() {
    for (set, silent) in [
        ("SET transaction_rerun_limit = 0", false),
        ("SET transaction_rerun_limit = 1", true),
        ("SET transaction_rerun_memory = '1kB'", false),
        ("SET transaction_rerun_memory = '100kB'", true),
    ] {
        let (cluster, mut one, mut two) = set_up();
        assert_eq!(cluster.run(&mut one, set), "SET\n");
        let first = "SELECT 'a long statement', 'a long statement', 'a long statement'";
        let answer = conflict(&cluster, &mut one, &mut two, first);
        assert_eq!(answer == "COMMIT\n", silent, "{set}: {answer}");
    }
    let (cluster, mut one, _) = set_up();
    for set in [
        "transaction_rerun_limit = -1",
        "transaction_rerun_limit = 100000",
        "transaction_rerun_memory = 'much'",
    ] {
        assert!(cluster.run(&mut one, &format!("SET {set}")).ends_with("[22023]\n"), "{set}");
    }
}

#[test]
fn savepoints_and_errors_that_were_seen_are_run_again_too() {
    let first =
        "SELECT 1; SAVEPOINT a; UPDATE t SET v = 0 WHERE id = 3; SAVEPOINT b; ROLLBACK TO a;
        SAVEPOINT c; RELEASE c; UPDATE t SET v = v + 5 WHERE id = 3";
    let (cluster, mut one, mut two) = set_up();
    assert_eq!(conflict(&cluster, &mut one, &mut two, first), "COMMIT\n");
    assert_eq!(cluster.run(&mut one, "SELECT v FROM t WHERE id = 3"), "v\n35\n");
    // An error was seen: it must be the same one.
    for (meanwhile, silent) in [("SELECT 1", true), ("DELETE FROM t WHERE id = 3", false)] {
        let (cluster, mut one, mut two) = set_up();
        cluster.run(&mut one, "BEGIN; SELECT 1; SAVEPOINT a");
        assert!(cluster.run(&mut one, "INSERT INTO t VALUES (3)").ends_with("[23505]\n"));
        assert_eq!(cluster.run(&mut one, "ROLLBACK TO a"), "ROLLBACK\n");
        cluster.run(&mut one, "SELECT v FROM t WHERE id = 1");
        cluster.run(&mut two, &format!("UPDATE t SET email = 'z' WHERE id = 1; {meanwhile}"));
        cluster.run(&mut two, READ);
        cluster.run(&mut one, "UPDATE t SET v = 0 WHERE id = 2");
        let answer = cluster.run(&mut one, "COMMIT");
        assert_eq!(answer == "COMMIT\n", silent, "{meanwhile}: {answer}");
    }
}

#[test]
fn a_transaction_that_has_answered_nothing_keeps_its_savepoints_when_it_is_run_again() {
    let (cluster, mut one, mut two) = set_up();
    cluster.run(&mut one, "SET transaction_rerun_limit = 0");
    cluster.world.block_on(async {
        run(&mut one, "BEGIN; SAVEPOINT a").await;
        // It reads a snapshot, waits for a row, and finds that another of its rows has changed meanwhile.
        run(&mut two, "BEGIN; UPDATE t SET v = v + 1").await;
        let update = run(&mut one, "UPDATE t SET v = v + (SELECT max(v) FROM t) WHERE id = 1");
        let (answer, _) =
            futures::future::join(update.boxed(), run(&mut two, "COMMIT").boxed()).await;
        assert_eq!(answer, "UPDATE 1\n");
        assert_eq!(run(&mut one, "ROLLBACK TO a").await, "ROLLBACK\n");
        assert_eq!(run(&mut one, "COMMIT").await, "COMMIT\n");
    });
    assert_eq!(cluster.run(&mut one, "SELECT v FROM t WHERE id = 1"), "v\n11\n");
}

#[test]
fn an_error_that_was_seen_is_an_answer() {
    let (cluster, mut one, mut two) = set_up();
    cluster.run(&mut one, "SET transaction_rerun_limit = 0");
    cluster.run(&mut one, "BEGIN; SAVEPOINT a");
    assert!(cluster.run(&mut one, "INSERT INTO t VALUES (3)").ends_with("[23505]\n"));
    cluster.run(&mut one, "ROLLBACK TO a");
    // The row goes, and another is written that the transaction reads next: it must not see both.
    cluster.run(&mut two, "DELETE FROM t WHERE id = 3; UPDATE t SET v = 21 WHERE id = 2");
    assert_told(&cluster.run(&mut one, "UPDATE t SET v = v + 1 WHERE id = 2"));
}

#[test]
fn a_cursor_that_is_half_read_goes_on_where_it_was() {
    let (cluster, mut one, mut two) = set_up();
    cluster.world.block_on(async {
        run(&mut one, "BEGIN; DECLARE c CURSOR FOR SELECT id, v FROM t ORDER BY id").await;
        assert_eq!(run(&mut one, "FETCH 1 FROM c").await, "id|v\n1|10\n");
        run(&mut two, "UPDATE t SET email = 'x' WHERE id = 3; UPDATE t SET v = 20 WHERE id = 2")
            .await;
        assert_eq!(run(&mut one, "UPDATE t SET email = 'y' WHERE id = 2").await, "UPDATE 1\n");
        assert_eq!(run(&mut one, "FETCH ALL FROM c").await, "id|v\n2|20\n3|30\n");
        assert_eq!(run(&mut one, "COMMIT").await, "COMMIT\n");
        // What it has not fetched counts as seen: it will be.
        run(
            &mut one,
            "BEGIN; DECLARE c CURSOR FOR SELECT id, v FROM t ORDER BY id; FETCH 1 FROM c",
        )
        .await;
        run(&mut two, "UPDATE t SET v = 31 WHERE id = 3").await;
        run(&mut two, READ).await;
        run(&mut one, "UPDATE t SET email = 'z' WHERE id = 2").await;
        assert_told(&run(&mut one, "COMMIT").await);
    });
}

#[test]
fn statements_before_one_sync_are_run_again_as_a_whole() {
    let (cluster, mut one, mut two) = set_up();
    cluster.world.block_on(async {
        let update = "UPDATE t SET v = v + $1::int WHERE id = 2";
        one.parse("r", "SELECT v FROM t WHERE id = 1", &[]).await.expect("parses");
        one.parse("w", update, &[]).await.expect("parses");
        one.bind("", "r", Vec::new(), &[], &[]).await.expect("binds");
        let Outcome::Rows { rows, .. } = one.execute("", 0, Next::Unknown).await.expect("reads")
        else {
            panic!("rows")
        };
        assert_eq!(rows.len(), 1);
        run(&mut two, "UPDATE t SET email = 'x' WHERE id = 1").await;
        run(&mut two, READ).await;
        let five = vec![Some(Bytes::from_static(b"5"))];
        one.bind("", "w", five, &[], &[]).await.expect("binds");
        one.execute("", 0, Next::Unknown).await.expect("writes");
        one.sync().await.expect("nobody can tell");
        assert_eq!(run(&mut two, "SELECT v FROM t WHERE id = 2").await, "v\n25\n");
    });
}

#[test]
fn a_statement_timeout_holds_for_running_it_again() {
    let (cluster, mut one, mut two) = set_up();
    cluster.world.block_on(async {
        run(&mut one, "SET statement_timeout = 300; BEGIN; SELECT v FROM t WHERE id = 1").await;
        run(&mut one, "SELECT v FROM t WHERE id = 3 FOR UPDATE").await;
        run(&mut one, "UPDATE t SET v = 0 WHERE id = 2").await;
        run(&mut two, "UPDATE t SET email = 'x' WHERE id = 1").await;
        run(&mut two, READ).await;
        // To be had again, a lock is in the way that is not given back in time.
        let mut third = cluster.session(&cluster.west);
        run(&mut third, "BEGIN").await;
        let lock = run(&mut third, "SELECT v FROM t WHERE id = 3 FOR UPDATE");
        let (answer, _) =
            futures::future::join(run(&mut one, "COMMIT").boxed(), lock.boxed()).await;
        assert!(answer.ends_with("[57014]\n"), "{answer}");
        run(&mut third, "ROLLBACK").await;
    });
    assert_eq!(cluster.run(&mut one, "SELECT v FROM t WHERE id = 2"), "v\n20\n");
}

#[test]
fn weaker_levels_are_spared_as_well() {
    for level in ["READ COMMITTED", "REPEATABLE READ"] {
        let (cluster, mut one, mut two) = set_up();
        cluster.world.block_on(async {
            let begin = format!("BEGIN ISOLATION LEVEL {level}; ");
            run(&mut one, &format!("{begin} UPDATE t SET v = v + 1 WHERE id = 1")).await;
            run(&mut two, &format!("{begin} UPDATE t SET v = v + 1 WHERE id = 2")).await;
            let end = |session| async move {
                let (session, id): (&mut Session, u32) = session;
                let update = format!("UPDATE t SET v = v + 1 WHERE id = {id}");
                assert_eq!(run(session, &update).await, "UPDATE 1\n");
                assert_eq!(run(session, "COMMIT").await, "COMMIT\n");
            };
            futures::future::join(end((&mut one, 2)).boxed(), end((&mut two, 1)).boxed()).await;
        });
        let rows = cluster.run(&mut one, TABLE);
        assert_eq!(rows, "id|email|v\n1|a|12\n2|b|22\n3|c|30\n", "{level}");
    }
}

/// A keyspace whose answers to commits are lost, and which then cannot be asked what became of them.
struct Forgetful {
    kv: LocalKv,
    commits: Arc<AtomicU64>,
}

impl Kv for Forgetful {
    fn send(&self, batch: Batch) -> BoxFuture<'_, Result<Reply, KvError>> {
        let lost = || KvError::Ambiguous { reason: "the answer was lost".into() };
        // Tables are created in peace: only rows written by one statement or more of the test's.
        let is_commit = |request: &Request| match request {
            Request::CommitOnePhase { mutations, .. } => {
                mutations.iter().any(|one| one.value.as_ref().is_some_and(is_marked))
            }
            _ => false,
        };
        let (commits, asks) = (
            batch.requests.iter().any(is_commit),
            matches!(batch.requests.as_slice(), [Request::Settle { .. }]),
        );
        Box::pin(async move {
            if asks {
                return Err(lost());
            }
            let reply = self.kv.send(batch).await;
            if commits {
                self.commits.fetch_add(1, Ordering::SeqCst);
                return Err(lost());
            }
            reply
        })
    }

    fn range_span(&self, key: &Key) -> BoxFuture<'_, Result<Span, KvError>> {
        self.kv.range_span(key)
    }
}

fn is_marked(value: &Bytes) -> bool {
    value.windows(6).any(|window| window == b"marked")
}

#[test]
fn a_commit_whose_outcome_is_unknown_is_never_run_again() {
    let world = World::new(3);
    let commits = Arc::new(AtomicU64::new(0));
    let kv = Forgetful { kv: LocalKv::new(world.runtime()), commits: commits.clone() };
    let db = txn::client::Db::new(world.runtime(), Arc::new(kv), txn::client::Settings::default());
    let settings = sql::EngineSettings::default();
    let engine = sql::Engine::new(db, Arc::new(sql::testing::Alone), settings);
    world.block_on(async {
        engine.bootstrap().await.expect("bootstraps");
        let params = sql::SessionParams {
            user: "root".into(),
            database: "meridian".into(),
            ..sql::SessionParams::default()
        };
        let mut session = engine.session(params).expect("root may log in");
        run(&mut session, "CREATE TABLE t (id int PRIMARY KEY, x text)").await;
        run(&mut session, "BEGIN; SELECT 1; INSERT INTO t VALUES (1, 'marked')").await;
        let answer = run(&mut session, "COMMIT").await;
        assert!(answer.ends_with("[40003]\n"), "{answer}");
    });
    assert_eq!(commits.load(Ordering::SeqCst), 1);
}
