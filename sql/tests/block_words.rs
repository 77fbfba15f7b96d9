//! What a transaction block and a session answer where PostgreSQL refuses: prepared statements, EXPLAIN ANALYZE, DISCARD, modes,
//! savepoints that are gone.

use crate::world::{TestCluster, run};
use sql::Session;

const SETUP: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE o (id int PRIMARY KEY);
    INSERT INTO t VALUES (1, 10), (2, 20), (3, 30); CREATE SEQUENCE s";

fn set_up() -> (TestCluster, Session, Session) {
    TestCluster::with_two_sessions(SETUP)
}

/// Runs each statement in one session, and holds its answer against the expected one.
#[track_caller]
fn check(steps: &[(&str, &str)]) {
    let (cluster, mut session, _) = set_up();
    for (sql, expected) in steps {
        let answer = cluster.run(&mut session, sql);
        assert_eq!(answer, *expected, "{sql}");
    }
}

const NO_SUBQUERY: &str = "ERROR:  cannot use subquery in EXECUTE parameter [0A000]\n";
const ALREADY: &str = "WARNING:  there is already a transaction in progress\n";

fn refused(what: &str) -> String {
    format!("ERROR:  cannot execute {what} in a read-only transaction [25006]\n")
}

#[test]
fn a_parameter_of_execute_reads_no_rows() {
    check(&[
        ("PREPARE u (int) AS UPDATE t SET v = $1 WHERE id = 1", "PREPARE\n"),
        ("EXECUTE u ((SELECT v + 1 FROM t WHERE id = 1))", NO_SUBQUERY),
        ("EXECUTE u (1 + (SELECT 1))", NO_SUBQUERY),
        ("EXECUTE u (CASE WHEN EXISTS (SELECT 1 FROM t) THEN 1 END)", NO_SUBQUERY),
        ("EXECUTE u (CASE WHEN 1 IN (SELECT v FROM t) THEN 1 END)", NO_SUBQUERY),
        ("EXECUTE u (cardinality(ARRAY(SELECT v FROM t)))", NO_SUBQUERY),
        ("SELECT v FROM t WHERE id = 1", "v\n10\n"),
        ("EXECUTE u (1 + abs(-2) + nextval('s'))", "UPDATE 1\n"),
        ("SELECT v FROM t WHERE id = 1", "v\n4\n"),
    ]);
}

#[test]
fn what_explain_analyze_has_written_is_not_lost_when_others_get_in_the_way() {
    let (cluster, mut one, mut two) = set_up();
    cluster.world.block_on(async {
        run(
            &mut one,
            "BEGIN; EXPLAIN ANALYZE INSERT INTO o VALUES (1); EXPLAIN ANALYZE SELECT * FROM t",
        )
        .await;
        assert_eq!(run(&mut two, "UPDATE t SET v = 50 WHERE id = 1").await, "UPDATE 1\n");
        let answer = run(&mut one, "UPDATE t SET v = v + 1 WHERE id = 1").await;
        assert!(answer.ends_with("[40001]\n"), "{answer}");
        assert_eq!(run(&mut one, "COMMIT").await, "ROLLBACK\n");
    });
    assert_eq!(cluster.run(&mut one, "SELECT v FROM t WHERE id = 1"), "v\n50\n");
}

#[test]
fn explain_analyze_is_a_query_of_its_transaction() {
    let (cluster, mut one, _) = set_up();
    cluster.run(&mut one, "BEGIN; EXPLAIN ANALYZE SELECT * FROM t");
    assert_eq!(
        cluster.run(&mut one, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"),
        "ERROR:  SET TRANSACTION ISOLATION LEVEL must be called before any query [25001]\n"
    );
}

#[test]
fn discard_gives_up_what_it_names_and_no_more() {
    check(&[
        ("PREPARE q AS SELECT 1 AS one", "PREPARE\n"),
        ("SET application_name = 'mine'", "SET\n"),
        ("SELECT nextval('s')", "nextval\n1\n"),
        ("DISCARD PLANS", "DISCARD PLANS\n"),
        ("DISCARD TEMP", "DISCARD TEMP\n"),
        ("EXECUTE q", "one\n1\n"),
        ("SHOW application_name", "application_name\nmine\n"),
        ("SELECT currval('s')", "currval\n1\n"),
        ("DISCARD SEQUENCES", "DISCARD SEQUENCES\n"),
        (
            "SELECT currval('s')",
            "ERROR:  currval of sequence \"s\" is not yet defined in this session [55000]\n",
        ),
        ("EXECUTE q", "one\n1\n"),
        ("SELECT nextval('s')", "nextval\n2\n"),
        ("DISCARD ALL", "DISCARD ALL\n"),
        ("EXECUTE q", "ERROR:  prepared statement \"q\" does not exist [26000]\n"),
        ("SHOW application_name", "application_name\n\n"),
        ("SELECT lastval()", "ERROR:  lastval is not yet defined in this session [55000]\n"),
    ]);
}

#[test]
fn discard_all_is_refused_in_a_transaction() {
    let refused = "ERROR:  DISCARD ALL cannot run inside a transaction block [25001]\n";
    check(&[
        ("PREPARE q AS SELECT 1 AS one", "PREPARE\n"),
        ("BEGIN; DISCARD PLANS", "BEGIN\nDISCARD PLANS\n"),
        ("DISCARD ALL", refused),
        ("ROLLBACK", "ROLLBACK\n"),
        ("EXECUTE q", "one\n1\n"),
    ]);
}

#[test]
fn begin_inside_a_block_says_modes() {
    check(&[
        ("BEGIN; BEGIN READ ONLY", &format!("BEGIN\n{ALREADY}BEGIN\n")),
        ("INSERT INTO o VALUES (1)", &refused("INSERT")),
        ("ROLLBACK", "ROLLBACK\n"),
        ("BEGIN; BEGIN ISOLATION LEVEL READ COMMITTED", &format!("BEGIN\n{ALREADY}BEGIN\n")),
        ("SHOW transaction_isolation", "transaction_isolation\nread committed\n"),
        ("SELECT v FROM t WHERE id = 1", "v\n10\n"),
        ("BEGIN ISOLATION LEVEL READ COMMITTED", &format!("{ALREADY}BEGIN\n")),
        (
            "BEGIN ISOLATION LEVEL SERIALIZABLE",
            &format!(
                "{ALREADY}ERROR:  SET TRANSACTION ISOLATION LEVEL must be called before any query [25001]\n"
            ),
        ),
        ("ROLLBACK", "ROLLBACK\n"),
    ]);
}

#[test]
fn a_savepoint_of_a_transaction_that_must_begin_again_says_so() {
    let (cluster, mut one, mut two) = set_up();
    cluster.world.block_on(async {
        run(
            &mut one,
            "BEGIN; SELECT v FROM t WHERE id = 1; SAVEPOINT a; SELECT v FROM t WHERE id = 3",
        )
        .await;
        run(&mut two, "UPDATE t SET v = 11 WHERE id = 1; UPDATE t SET v = 21 WHERE id = 2").await;
        // It is run again in vain: its first answer would be another one, and it does not come to the savepoint.
        let answer = run(&mut one, "UPDATE t SET v = v + 1 WHERE id = 2").await;
        assert!(answer.ends_with("[40001]\n"), "{answer}");
        for _ in 0..2 {
            let answer = run(&mut one, "ROLLBACK TO a").await;
            assert_eq!(
                answer,
                "ERROR:  the transaction must be begun again: no savepoint of it is left [40001]\n"
            );
        }
        assert_eq!(run(&mut one, "ROLLBACK").await, "ROLLBACK\n");
        let answer = run(&mut one, "BEGIN; SAVEPOINT a; ROLLBACK TO a; ROLLBACK TO b").await;
        assert!(answer.ends_with("[3B001]\n"), "{answer}");
    });
}

#[test]
fn a_read_only_transaction_refuses_what_writes_though_it_would_touch_nothing() {
    for (sql, what) in [
        ("UPDATE t SET v = 1 WHERE false", "UPDATE"),
        ("DELETE FROM t WHERE id = 99", "DELETE"),
        ("INSERT INTO o SELECT id FROM t WHERE false", "INSERT"),
        ("INSERT INTO o VALUES (1) ON CONFLICT DO NOTHING", "INSERT"),
        ("WITH w AS (DELETE FROM o RETURNING id) SELECT * FROM w", "SELECT"),
        ("EXPLAIN ANALYZE DELETE FROM o", "DELETE"),
        ("SELECT nextval('s')", "nextval()"),
        ("SELECT setval('s', 7)", "setval()"),
        ("COPY o FROM STDIN", "COPY FROM"),
    ] {
        check(&[
            ("BEGIN READ ONLY", "BEGIN\n"),
            (sql, &refused(what)),
            ("ROLLBACK", "ROLLBACK\n"),
            ("SET default_transaction_read_only = on", "SET\n"),
            (sql, &refused(what)),
        ]);
    }
    check(&[
        ("BEGIN READ ONLY; SELECT v FROM t WHERE id = 1", "BEGIN\nv\n10\n"),
        ("SELECT 1 AS one", "one\n1\n"),
        ("COMMIT; SELECT nextval('s')", "COMMIT\nnextval\n1\n"),
    ]);
}
