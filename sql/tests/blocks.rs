//! What a block leaves behind when it fails or is rolled back, whole or to a savepoint: plans, locks, cursors, settings, and what others
//! are told.

use crate::world::{TestCluster, run};
use futures::FutureExt;
use parking_lot::Mutex;
use sql::Next;
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
