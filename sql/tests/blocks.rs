//! What a block leaves behind when it fails or is rolled back, whole or to a savepoint: plans, locks, cursors, settings, and what others
//! are told.

use crate::world::{TestCluster, run};
use futures::FutureExt;
use parking_lot::Mutex;
use sql::{Next, Outcome};
use std::sync::Arc;
use std::time::Duration;

const PAIR: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2)";

/// Drafts of a catalog after a rollback to a savepoint have the number of those before it.
#[test]
fn a_plan_of_what_was_rolled_back_is_not_used_again() {
    let (cluster, mut session, _) = TestCluster::with_two_sessions("SELECT 1");
    let answer = cluster.run(
        &mut session,
        "BEGIN; CREATE TABLE q (id int PRIMARY KEY, a int); SAVEPOINT s; ALTER TABLE q ADD COLUMN b int; \
         PREPARE i (int) AS INSERT INTO q VALUES ($1, $1, $1); EXECUTE i (1); \
         ROLLBACK TO s; ALTER TABLE q ADD COLUMN c text NOT NULL DEFAULT 'x'; EXECUTE i (2); COMMIT",
    );
    assert!(!answer.contains("ERROR"), "{answer}");
    assert_eq!(cluster.run(&mut session, "SELECT c || 'y' AS c FROM q"), "c\n2y\n");
    // Another table under the number of the one that is gone.
    let answer = cluster.run(
        &mut session,
        "BEGIN; SAVEPOINT s; CREATE TABLE one (id int PRIMARY KEY, a int); \
         PREPARE j AS INSERT INTO one VALUES (1, NULL); EXECUTE j; ROLLBACK TO s; \
         CREATE TABLE two (id int PRIMARY KEY, a int NOT NULL); EXECUTE j",
    );
    assert!(answer.contains("[42P01]"), "{answer}");
    cluster.run(&mut session, "ROLLBACK");
}

/// The same of a statement that the protocol prepares.
#[test]
fn a_named_statement_is_planned_again_after_a_rollback_to_a_savepoint() {
    let (cluster, mut session, _) = TestCluster::with_two_sessions("SELECT 1");
    let setup = "BEGIN; CREATE TABLE q (id int PRIMARY KEY, a int); SAVEPOINT s; ALTER TABLE q ADD COLUMN b int";
    assert!(!cluster.run(&mut session, setup).contains("ERROR"));
    cluster.world.block_on(async {
        session.parse("i", "INSERT INTO q VALUES (1, 1, 1)", &[]).await.expect("parses");
    });
    let change = "ROLLBACK TO s; ALTER TABLE q ADD COLUMN c text NOT NULL DEFAULT 'x'";
    assert!(!cluster.run(&mut session, change).contains("ERROR"));
    cluster.world.block_on(async {
        session.bind("", "i", Vec::new(), &[], &[]).await.expect("binds");
        session.execute("", 0, Next::Unknown).await.expect("executes");
    });
    assert_eq!(cluster.run(&mut session, "COMMIT"), "COMMIT\n");
    assert_eq!(cluster.run(&mut session, "SELECT c || 'y' AS c FROM q"), "c\n1y\n");
}

/// A foreign key that does not come to be leaves nobody behind: neither blocks nor other gateways.
#[test]
fn a_key_that_does_not_come_to_be_is_in_no_block_s_way() {
    let child = "CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES t (id))";
    let ways = [
        format!("BEGIN; {child}; ROLLBACK"),
        format!("BEGIN; SAVEPOINT s; {child}; ROLLBACK TO s; COMMIT"),
        format!("BEGIN; CREATE TABLE d (id int); SAVEPOINT s; {child}; ROLLBACK TO s; COMMIT"),
        format!("BEGIN; SAVEPOINT s; {child}; ROLLBACK TO s; {child}; ROLLBACK"),
        format!("{child}; SELECT 1 / 0"),
        format!("BEGIN; {child}; SELECT 1 / 0; ROLLBACK"),
        "ALTER TABLE bad ADD FOREIGN KEY (p) REFERENCES t (id)".to_string(),
    ];
    for way in &ways {
        let (cluster, mut east, mut west) = TestCluster::with_two_sessions(&format!(
            "{PAIR}; CREATE TABLE other (id int PRIMARY KEY); \
             CREATE TABLE bad (id int PRIMARY KEY, p int); INSERT INTO bad VALUES (1, 99)",
        ));
        cluster.run(&mut west, "SELECT * FROM t, other");
        cluster.run(&mut east, way);
        cluster.run(&mut east, "ROLLBACK");
        let begin = "BEGIN; SELECT count(*) FROM other";
        let update = "UPDATE t SET v = v + 1 WHERE id = 2";
        // The gateway that has made the mess knows.
        cluster.run(&mut east, begin);
        assert_eq!(cluster.run(&mut east, update), "UPDATE 1\n", "{way}");
        assert_eq!(cluster.run(&mut east, "COMMIT"), "COMMIT\n", "{way}");
        // Another learns of it from the first refusal at the latest.
        cluster.run(&mut west, begin);
        let first = cluster.run(&mut west, update);
        if first != "UPDATE 1\n" {
            assert!(first.contains("[40001]"), "{way}: {first}");
            cluster.run(&mut west, &format!("ROLLBACK; {begin}"));
            assert_eq!(cluster.run(&mut west, update), "UPDATE 1\n", "{way}");
        }
        assert_eq!(cluster.run(&mut west, "COMMIT"), "COMMIT\n", "{way}");
    }
}

/// A block that goes back behind a key that it has announced may go on with the table.
#[test]
fn a_block_goes_on_with_the_table_whose_key_it_has_rolled_back() {
    for before in ["", "CREATE TABLE d (id int); "] {
        let (cluster, mut session, mut other) = TestCluster::with_two_sessions(PAIR);
        let answer = cluster.run(
            &mut session,
            &format!(
                "BEGIN; {before}SAVEPOINT s; CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES t (id)); \
                 ROLLBACK TO s; UPDATE t SET v = 7 WHERE id = 1; COMMIT"
            ),
        );
        assert!(!answer.contains("ERROR") && answer.ends_with("COMMIT\n"), "{answer}");
        assert_eq!(cluster.run(&mut other, "SELECT v FROM t WHERE id = 1"), "v\n7\n");
    }
}

/// A change that died with its gateway leaves the ranges ahead: a block is refused once, not for ever.
#[test]
fn a_block_that_is_refused_brings_the_catalog_up_to_the_ranges() {
    let (cluster, mut east, mut west) =
        TestCluster::with_two_sessions(&format!("{PAIR}; CREATE TABLE other (id int)"));
    let child = "BEGIN; CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES t (id))";
    assert!(!cluster.run(&mut east, child).contains("ERROR"));
    // Nobody rolls it back.
    drop(east);
    cluster.world.settle(Duration::from_secs(60));
    let block = "BEGIN; SELECT count(*) FROM other; UPDATE t SET v = v + 1 WHERE id = 2";
    let first = cluster.run(&mut west, block);
    assert!(first.contains("[40001]"), "{first}");
    cluster.run(&mut west, "ROLLBACK");
    let again = cluster.run(&mut west, block);
    assert!(again.ends_with("UPDATE 1\n"), "{again}");
    assert_eq!(cluster.run(&mut west, "COMMIT"), "COMMIT\n");
}

/// Runs a statement in the background, and whether it has been answered within some time.
fn is_answered(cluster: &TestCluster, sql: &'static str) -> bool {
    let mut session = cluster.session(&cluster.west);
    let answer = Arc::new(Mutex::new(None));
    let told = answer.clone();
    let work = async move {
        let answer = run(&mut session, sql).await;
        *told.lock() = Some(answer);
    };
    cluster.world.spawn(work.boxed());
    cluster.world.settle(Duration::from_secs(5));
    let answer = answer.lock().take();
    answer.is_some_and(|answer| !answer.contains("ERROR"))
}

/// A block that can only be rolled back is in nobody's way; one that can go on from a savepoint holds what it had locked by then.
#[test]
fn a_failed_block_holds_no_locks() {
    for level in ["SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED"] {
        for failure in
            ["SELECT 1 / 0", "SELEKT", "SELECT * FROM nowhere", "INSERT INTO t VALUES (2, 0)"]
        {
            let (cluster, mut session, _) = TestCluster::with_two_sessions(PAIR);
            let block = format!("BEGIN ISOLATION LEVEL {level}; UPDATE t SET v = 10 WHERE id = 1");
            cluster.run(&mut session, &block);
            assert!(cluster.run(&mut session, failure).contains("ERROR"));
            assert!(
                is_answered(&cluster, "UPDATE t SET v = 20 WHERE id = 1"),
                "{level}: {failure}"
            );
            let after = cluster.run(&mut session, "SELECT 1");
            assert!(after.contains("[25P02]"), "{after}");
            assert_eq!(cluster.run(&mut session, "COMMIT"), "ROLLBACK\n");
            let rows = cluster.run(&mut session, "SELECT v FROM t WHERE id = 1");
            assert_eq!(rows, "v\n20\n", "{level}: {failure}");
        }
    }
}

#[test]
fn a_failed_block_goes_back_to_its_last_savepoint_at_once() {
    let (cluster, mut session, _) = TestCluster::with_two_sessions(
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3); \
         CREATE TABLE gone (id int PRIMARY KEY); INSERT INTO gone VALUES (1)",
    );
    cluster.run(
        &mut session,
        "BEGIN; UPDATE t SET v = 10 WHERE id = 1; SAVEPOINT a; UPDATE t SET v = 20 WHERE id = 2; \
         SAVEPOINT b; UPDATE t SET v = 30 WHERE id = 3; DROP TABLE gone; CREATE TABLE fresh (id int)",
    );
    cluster.run(&mut session, "SELECT 1 / 0");
    assert!(is_answered(&cluster, "UPDATE t SET v = 33 WHERE id = 3"), "what came last is held");
    assert!(is_answered(&cluster, "CREATE TABLE fresh (id int)"), "the catalog is held");
    cluster.run(&mut session, "ROLLBACK TO a; UPDATE t SET v = 22 WHERE id = 2");
    assert_eq!(cluster.run(&mut session, "COMMIT"), "COMMIT\n");
    let rows = cluster.run(&mut session, "SELECT v FROM t ORDER BY id");
    assert_eq!(rows, "v\n10\n22\n33\n");
    assert_eq!(cluster.run(&mut session, "SELECT id FROM gone"), "id\n1\n");
    // To the innermost one, twice.
    cluster.run(&mut session, "BEGIN; SAVEPOINT a; UPDATE t SET v = 0; SELECT 1 / 0");
    cluster.run(&mut session, "ROLLBACK TO a; UPDATE t SET v = 0 WHERE id = 1; SELECT 1 / 0");
    cluster.run(&mut session, "ROLLBACK TO a; UPDATE t SET v = 5 WHERE id = 1; RELEASE a");
    assert_eq!(cluster.run(&mut session, "COMMIT"), "COMMIT\n");
    let rows = cluster.run(&mut session, "SELECT v FROM t ORDER BY id");
    assert_eq!(rows, "v\n5\n22\n33\n");
}

/// As PostgreSQL: what a savepoint's rollback takes back are its cursors, too.
#[test]
fn cursors_do_not_outlive_what_opened_them() {
    let (cluster, mut session, _) = TestCluster::with_two_sessions(PAIR);
    let one = "DECLARE one CURSOR FOR SELECT id FROM t ORDER BY id";
    let two = one.replace("one", "two");
    cluster.run(
        &mut session,
        &format!("BEGIN; {one}; SAVEPOINT s; {two}; FETCH NEXT FROM one; ROLLBACK TO s"),
    );
    assert_eq!(cluster.run(&mut session, "FETCH NEXT FROM one"), "id\n2\n");
    let answer = cluster.run(&mut session, "FETCH NEXT FROM two");
    assert!(answer.contains("[34000]"), "{answer}");
    // One that was opened under a savepoint that was released is the outer one's.
    let nested =
        format!("ROLLBACK; BEGIN; SAVEPOINT o; SAVEPOINT s; {two}; RELEASE s; FETCH NEXT FROM two");
    assert!(cluster.run(&mut session, &nested).ends_with("id\n1\n"));
    let answer = cluster.run(&mut session, "ROLLBACK TO o; FETCH NEXT FROM two");
    assert!(answer.contains("[34000]"), "{answer}");
    cluster.run(&mut session, "ROLLBACK");
    // Portals are of the same kind.
    cluster.run(&mut session, "BEGIN; SAVEPOINT s");
    cluster.world.block_on(async {
        session.parse("q", "SELECT id FROM t ORDER BY id", &[]).await.expect("parses");
        session.bind("p", "q", Vec::new(), &[], &[]).await.expect("binds");
        session.execute("p", 1, Next::Unknown).await.expect("executes");
    });
    cluster.run(&mut session, "ROLLBACK TO s");
    cluster.world.block_on(async {
        let error = session.execute("p", 1, Next::Unknown).await.expect_err("it is gone");
        assert_eq!(error.code.to_string(), "34000");
    });
    cluster.run(&mut session, "ROLLBACK");
}

#[test]
fn a_cursor_with_hold_outlives_its_transaction_if_that_commits() {
    let (cluster, mut session, _) = TestCluster::with_two_sessions(PAIR);
    let held = "DECLARE held CURSOR WITH HOLD FOR SELECT id FROM t ORDER BY id";
    cluster.run(&mut session, &format!("BEGIN; {held}; FETCH NEXT FROM held; COMMIT; BEGIN"));
    assert_eq!(cluster.run(&mut session, "FETCH NEXT FROM held"), "id\n2\n");
    cluster.run(&mut session, "ROLLBACK");
    assert_eq!(cluster.run(&mut session, "FETCH NEXT FROM held"), "id\n");
    assert_eq!(cluster.run(&mut session, "CLOSE held"), "CLOSE CURSOR\n");
    assert_eq!(cluster.run(&mut session, held), "DECLARE CURSOR\n");
    assert_eq!(cluster.run(&mut session, "FETCH NEXT FROM held"), "id\n1\n");
    cluster.run(&mut session, "SELECT 1 / 0");
    cluster.world.block_on(session.sync()).expect("ends");
    assert_eq!(cluster.run(&mut session, "FETCH NEXT FROM held"), "id\n2\n");
    cluster.run(&mut session, "CLOSE held");
    cluster.run(&mut session, &format!("BEGIN; {held}; ROLLBACK"));
    let answer = cluster.run(&mut session, "FETCH NEXT FROM held");
    assert!(answer.contains("[34000]"), "{answer}");
    let locking = "DECLARE l CURSOR WITH HOLD FOR SELECT id FROM t FOR UPDATE";
    assert!(cluster.run(&mut session, locking).contains("[0A000]"));
    for writing in ["UPDATE t SET v = 9", "DELETE FROM t", "INSERT INTO t VALUES (9, 9)"] {
        let answer = cluster.run(&mut session, &format!("BEGIN; DECLARE c CURSOR FOR {writing}"));
        assert!(answer.contains("[42601]"), "{writing}: {answer}");
        cluster.run(&mut session, "ROLLBACK");
    }
    let answer = cluster.run(
        &mut session,
        "BEGIN; DECLARE c CURSOR FOR WITH w AS (DELETE FROM t RETURNING id) SELECT * FROM w",
    );
    assert!(answer.contains("[0A000]"), "{answer}");
    cluster.run(&mut session, "ROLLBACK");
    assert_eq!(cluster.run(&mut session, "SELECT count(*) FROM t"), "count\n2\n");
}

/// What `lock_timeout` is in the end, of a session in which it was 0.
#[test]
fn settings_are_kept_and_taken_back_as_in_postgresql() {
    let cases = [
        ("BEGIN; SET LOCAL lock_timeout = 1; SET lock_timeout = 2; COMMIT", "2"),
        ("BEGIN; SET LOCAL lock_timeout = 1; SET lock_timeout = 2; ROLLBACK", "0"),
        ("BEGIN; SET lock_timeout = 1; SET LOCAL lock_timeout = 2; COMMIT", "1"),
        ("BEGIN; SET lock_timeout = 1; SET LOCAL lock_timeout = 2; ROLLBACK", "0"),
        (
            "BEGIN; SET lock_timeout = 1; SAVEPOINT s; SET lock_timeout = 2; ROLLBACK TO s; COMMIT",
            "1",
        ),
        (
            "BEGIN; SAVEPOINT s; SET LOCAL lock_timeout = 2; ROLLBACK TO s; SHOW lock_timeout; COMMIT",
            "0",
        ),
        ("BEGIN; SAVEPOINT s; SET lock_timeout = 2; RELEASE s; COMMIT", "2"),
        (
            "BEGIN; SET lock_timeout = 1; SAVEPOINT s; SET LOCAL lock_timeout = 2; RELEASE s; COMMIT",
            "1",
        ),
        (
            "BEGIN; SET LOCAL lock_timeout = 1; SAVEPOINT s; SET lock_timeout = 2; RELEASE s; COMMIT",
            "2",
        ),
        (
            "BEGIN; SET lock_timeout = 1; SAVEPOINT s; SET lock_timeout = 2; SELECT 1 / 0; ROLLBACK TO s; COMMIT",
            "1",
        ),
        (
            "BEGIN; SAVEPOINT s; SAVEPOINT u; SET lock_timeout = 2; RELEASE u; ROLLBACK TO s; COMMIT",
            "0",
        ),
        ("SET lock_timeout = 5; BEGIN; RESET ALL; ROLLBACK", "5"),
        ("SET lock_timeout = 5; BEGIN; RESET ALL; COMMIT", "0"),
        ("SET lock_timeout = 5; BEGIN; SET LOCAL lock_timeout = DEFAULT; COMMIT", "5"),
        (
            "SET lock_timeout = 5; BEGIN; SAVEPOINT s; RESET lock_timeout; ROLLBACK TO s; COMMIT",
            "5",
        ),
        ("SET lock_timeout = 5; BEGIN; SELECT set_config('lock_timeout', '6', true); COMMIT", "5"),
        ("SET lock_timeout = 5; SET LOCAL lock_timeout = 6; SHOW lock_timeout", "5"),
    ];
    for (case, expected) in cases {
        let (cluster, mut session, _) = TestCluster::with_two_sessions("SELECT 1");
        // One by one: a string of statements is a transaction, too.
        for statement in case.split("; ") {
            cluster.run(&mut session, statement);
        }
        let shown = cluster.run(&mut session, "SHOW lock_timeout");
        assert_eq!(shown, format!("lock_timeout\n{expected}\n"), "{case}");
    }
    let (cluster, mut session, _) = TestCluster::with_two_sessions("SELECT 1");
    cluster.run(&mut session, "BEGIN; SAVEPOINT s; SET LOCAL lock_timeout = 2");
    let shown = cluster.run(&mut session, "ROLLBACK TO s; SHOW lock_timeout");
    assert_eq!(shown, "ROLLBACK\nlock_timeout\n0\n");
    cluster.run(&mut session, "ROLLBACK");
    // Others are told what clients are told.
    cluster.run(&mut session, "BEGIN; SAVEPOINT s; SET TimeZone = 'Europe/Berlin'");
    session.parameter_changes();
    cluster.run(&mut session, "ROLLBACK TO s");
    assert_eq!(session.parameter_changes(), [("TimeZone".to_string(), "UTC".to_string())]);
}

/// A string of statements is a transaction, and so is a pipeline: what is local to it counts in it.
#[test]
fn local_settings_count_outside_of_blocks() {
    let (cluster, mut session, _) = TestCluster::with_two_sessions(PAIR);
    let answer = cluster.run(&mut session, "SET LOCAL lock_timeout = 7; SHOW lock_timeout");
    assert_eq!(answer, "SET\nlock_timeout\n7\n");
    assert_eq!(cluster.run(&mut session, "SHOW lock_timeout"), "lock_timeout\n0\n");
    let alone = cluster.run(&mut session, "SET LOCAL lock_timeout = 7");
    assert!(alone.starts_with("WARNING:"), "{alone}");
    cluster.run(&mut session, "BEGIN; UPDATE t SET v = 5 WHERE id = 1");
    let mut other = cluster.session(&cluster.west);
    let answer = cluster
        .run(&mut other, "SET LOCAL statement_timeout = 100; UPDATE t SET v = 6 WHERE id = 1");
    assert!(answer.contains("[57014]"), "{answer}");
    cluster.world.block_on(async {
        for (at, sql) in ["SET LOCAL statement_timeout = 100", "UPDATE t SET v = 6 WHERE id = 1"]
            .into_iter()
            .enumerate()
        {
            other.parse("", sql, &[]).await.expect("parses");
            other.bind("", "", Vec::new(), &[], &[]).await.expect("binds");
            let next = if at == 0 { Next::Unknown } else { Next::Sync };
            match (at, other.execute("", 0, next).await) {
                (0, Ok(Outcome::Complete { tag })) => assert_eq!(tag, "SET"),
                (1, Err(error)) => assert_eq!(error.code.to_string(), "57014"),
                (at, other) => panic!("{at}: {other:?}"),
            }
        }
        other.sync().await.expect("ends");
    });
    // PostgreSQL warns, too: a pipeline is no block.
    assert_eq!(other.notices().len(), 1);
    assert_eq!(cluster.run(&mut other, "SHOW statement_timeout"), "statement_timeout\n0\n");
}

#[test]
fn a_transaction_is_read_only_no_longer_than_its_savepoint() {
    let (cluster, mut session, _) = TestCluster::with_two_sessions(PAIR);
    for read_only in ["SET TRANSACTION READ ONLY", "SET transaction_read_only = on"] {
        cluster.run(&mut session, &format!("BEGIN; SELECT 1; SAVEPOINT s; {read_only}"));
        let refused = cluster.run(&mut session, "UPDATE t SET v = 5 WHERE id = 1");
        assert!(refused.contains("[25006]"), "{refused}");
        let answer = cluster.run(
            &mut session,
            "ROLLBACK TO s; SHOW transaction_read_only; UPDATE t SET v = 5 WHERE id = 1; COMMIT",
        );
        assert_eq!(answer, "ROLLBACK\ntransaction_read_only\noff\nUPDATE 1\nCOMMIT\n");
    }
}

/// As PostgreSQL: a client that was told columns gets these, or an error.
#[test]
fn the_columns_of_a_prepared_statement_do_not_change() {
    let (cluster, mut session, mut other) = TestCluster::with_two_sessions(PAIR);
    cluster.run(&mut session, "PREPARE p AS SELECT * FROM t WHERE id = 1");
    cluster.world.block_on(async {
        session.parse("q", "SELECT * FROM t", &[]).await.expect("parses");
        session.describe_statement("q").expect("is described");
        session.parse("fine", "SELECT v FROM t WHERE id = $1", &[]).await.expect("parses");
        session.describe_statement("fine").expect("is described");
    });
    cluster.run(&mut other, "ALTER TABLE t ADD COLUMN w text");
    cluster.world.block_on(cluster.east.refresh_catalog()).expect("is read");
    let answer = cluster.run(&mut session, "EXECUTE p");
    assert!(answer.contains("cached plan must not change result type [0A000]"), "{answer}");
    cluster.world.block_on(async {
        let error = session.bind("", "q", Vec::new(), &[], &[]).await.expect_err("has changed");
        assert_eq!(error.code.to_string(), "0A000");
        session.sync().await.expect("ends");
        let one = vec![Some("1".into())];
        session.bind("", "fine", one, &[], &[]).await.expect("binds");
        session.execute("", 0, Next::Sync).await.expect("executes");
        session.sync().await.expect("ends");
    });
    // Back to what it was.
    cluster.run(&mut other, "ALTER TABLE t DROP COLUMN w");
    cluster.world.block_on(cluster.east.refresh_catalog()).expect("is read");
    assert_eq!(cluster.run(&mut session, "EXECUTE p"), "id|v\n1|1\n");
    // Whoever was not told gets the rows as they are.
    cluster.run(&mut other, "ALTER TABLE t ADD COLUMN x int DEFAULT 9");
    assert_eq!(cluster.run(&mut session, "SELECT * FROM t WHERE id = 1"), "id|v|x\n1|1|9\n");
}
