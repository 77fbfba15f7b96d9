//! Schema changes: what is refused, what falls with what, and that nobody waits for himself.

use crate::world::{TestCluster, run};
use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;
use sql::Session;
use std::sync::Arc;
use std::time::Duration;

/// What a session answers within a time; `None`: it still waits. The session is given back if it has answered.
fn within(
    cluster: &TestCluster,
    mut session: Session,
    sql: &str,
    limit: Duration,
) -> (Option<String>, Option<Session>) {
    let (sql, done) = (sql.to_string(), Arc::new(Mutex::new(None)));
    let answered = done.clone();
    let work = async move {
        let answer = run(&mut session, &sql).await;
        *answered.lock() = Some((answer, session));
    };
    cluster.world.spawn(work.boxed());
    cluster.world.settle(limit);
    match done.lock().take() {
        Some((answer, session)) => (Some(answer), Some(session)),
        None => (None, None),
    }
}

/// The same, of one that must answer.
fn told(cluster: &TestCluster, session: Session, sql: &str) -> (String, Session) {
    match within(cluster, session, sql, Duration::from_secs(120)) {
        (Some(answer), Some(session)) => (answer, session),
        _ => panic!("{sql} does not end"),
    }
}

#[test]
fn what_is_there_already_or_not_at_all_is_in_no_schema_changes_way() {
    let (cluster, mut session, mut other) = TestCluster::with_two_sessions(
        "CREATE TABLE hg (id int PRIMARY KEY, v int); INSERT INTO hg VALUES (1, 1); \
         CREATE SEQUENCE sq; CREATE SCHEMA sc; CREATE VIEW vw AS SELECT 1 AS x",
    );
    let nothing = [
        "CREATE TABLE IF NOT EXISTS hg (id int)",
        "CREATE SEQUENCE IF NOT EXISTS sq",
        "CREATE SCHEMA IF NOT EXISTS sc",
        "CREATE DATABASE IF NOT EXISTS meridian",
        "CREATE VIEW IF NOT EXISTS vw AS SELECT 2 AS x",
        "DROP TABLE IF EXISTS nothing",
        "DROP VIEW IF EXISTS nothing",
        "DROP SEQUENCE IF EXISTS nothing",
    ];
    for (number, statement) in nothing.iter().enumerate() {
        for begin in ["", "BEGIN; "] {
            let way = format!("{begin}{statement}; CREATE INDEX i{number} ON hg (v)");
            let answer;
            (answer, session) = told(&cluster, session, &way);
            assert!(!answer.contains("ERROR"), "{way}: {answer}");
            assert!(answer.ends_with("CREATE INDEX\n"), "{way}: {answer}");
            (_, session) = told(&cluster, session, "ROLLBACK");
            let drop = format!("DROP INDEX i{number}");
            assert_eq!(cluster.run(&mut other, "SELECT v FROM hg"), "v\n1\n");
            let answer;
            (answer, session) = told(&cluster, session, &drop);
            assert_eq!(answer, "DROP INDEX\n", "{way}");
        }
    }
    // A change that was found to be none only under the lock: it has to be let go of first.
    for statement in ["DROP SCHEMA IF EXISTS nothing", "DROP ROLE IF EXISTS nobody"] {
        let way = format!("BEGIN; {statement}; CREATE INDEX late ON hg (v)");
        let answer;
        (answer, session) = told(&cluster, session, &way);
        assert!(answer.contains("[0A000]"), "{way}: {answer}");
        (_, session) = told(&cluster, session, "ROLLBACK");
    }
    // Who looked before the other one made it knows of it only under the lock.
    cluster.run(&mut other, "CREATE TABLE fresh (id int PRIMARY KEY)");
    let way = "BEGIN; CREATE TABLE IF NOT EXISTS fresh (id int); CREATE INDEX late ON hg (v)";
    let (answer, session) = told(&cluster, session, way);
    assert!(answer.contains("[0A000]"), "{answer}");
    let (_, session) = told(&cluster, session, "ROLLBACK");
    let (answer, _) = told(&cluster, session, "CREATE INDEX late ON hg (v)");
    assert_eq!(answer, "CREATE INDEX\n");
}

#[test]
fn a_change_does_not_wait_for_what_its_own_block_has_locked() {
    let (cluster, session, mut other) = TestCluster::with_two_sessions(
        "CREATE TABLE par (id int PRIMARY KEY); INSERT INTO par VALUES (1); \
         CREATE TABLE chi (id int PRIMARY KEY, p int, q int REFERENCES par); \
         INSERT INTO chi VALUES (1, 1, 1)",
    );
    let mut session = session;
    for change in [
        "ALTER TABLE chi ADD FOREIGN KEY (p) REFERENCES par",
        "ALTER TABLE chi ADD COLUMN r int DEFAULT 1 REFERENCES par",
        // The keys that are there are looked at again.
        "ALTER TABLE chi ALTER COLUMN p SET NOT NULL",
        "ALTER TABLE chi ADD CHECK (p > 0)",
    ] {
        let block = format!("BEGIN; SELECT * FROM par WHERE id = 1 FOR UPDATE; {change}");
        let answer;
        (answer, session) = told(&cluster, session, &block);
        assert!(answer.contains("[0A000]") && answer.contains("locked rows"), "{answer}");
        (_, session) = told(&cluster, session, "ROLLBACK");
        let answer;
        (answer, session) = told(&cluster, session, change);
        assert_eq!(answer, "ALTER TABLE\n", "{change}");
    }
    assert_eq!(cluster.run(&mut other, "SELECT * FROM chi"), "id|p|q|r\n1|1|1|1\n");
}

/// A change that waits for a lock ends when its time is over, or its client gives it up; the next one finds the way free.
#[test]
fn a_change_that_waits_can_be_cancelled() {
    let (cluster, mut holder, mut other) = TestCluster::with_two_sessions(
        "CREATE TABLE par (id int PRIMARY KEY); INSERT INTO par VALUES (1); \
         CREATE TABLE chi (id int PRIMARY KEY, p int); INSERT INTO chi VALUES (1, 1)",
    );
    cluster.run(&mut holder, "BEGIN; SELECT * FROM par WHERE id = 1 FOR UPDATE");
    let change = "ALTER TABLE chi ADD FOREIGN KEY (p) REFERENCES par";
    let timed = cluster.session_with(&cluster.east, &[("statement_timeout", "2s")]);
    let (answer, _) = told(&cluster, timed, change);
    assert!(answer.contains("statement timeout [57014]"), "{answer}");
    for gone in [false, true] {
        let mut session = cluster.session(&cluster.east);
        let (cancel, done) = (session.cancel_handle(), Arc::new(Mutex::new(None)));
        let answered = done.clone();
        cluster
            .world
            .spawn(async move { *answered.lock() = Some(run(&mut session, change).await) }.boxed());
        cluster.world.settle(Duration::from_secs(2));
        assert_eq!(*done.lock(), None);
        if gone {
            cancel.client_gone();
        } else {
            cancel.cancel();
        }
        cluster.world.settle(Duration::from_secs(60));
        let answer = done.lock().take().expect("it has ended");
        assert!(answer.contains("user request [57014]"), "{answer}");
    }
    assert_eq!(cluster.run(&mut other, "ALTER TABLE chi ADD COLUMN z int"), "ALTER TABLE\n");
    assert_eq!(cluster.run(&mut other, "INSERT INTO chi VALUES (2, 7, 0)"), "INSERT 0 1\n");
    // Who waits for the catalog itself, too.
    cluster.run(&mut holder, "ROLLBACK; BEGIN; CREATE TABLE held (id int PRIMARY KEY)");
    for change in ["CREATE TABLE more (id int PRIMARY KEY)", "CREATE INDEX ON chi (p)"] {
        let timed = cluster.session_with(&cluster.east, &[("statement_timeout", "2s")]);
        let (answer, _) = told(&cluster, timed, change);
        assert!(answer.contains("statement timeout [57014]"), "{answer}");
    }
    cluster.run(&mut holder, "ROLLBACK");
    assert_eq!(cluster.run(&mut other, "CREATE INDEX ON chi (p)"), "CREATE INDEX\n");
}

/// Whichever step of it is given up: what it leaves is whole, and the next one can be made.
#[test]
fn an_index_that_is_given_up_is_gone_or_whole() {
    let (cluster, mut session, mut other) = TestCluster::with_two_sessions(
        "CREATE TABLE t (id int PRIMARY KEY, v int); \
         INSERT INTO t SELECT n, n FROM generate_series(1, 1200) n",
    );
    let mut given_up = 0;
    for number in 1..=60 {
        let mut timed = cluster.session(&cluster.east);
        let (cancel, done) = (timed.cancel_handle(), Arc::new(Mutex::new(None)));
        let answered = done.clone();
        let work = async move {
            *answered.lock() = Some(run(&mut timed, "CREATE UNIQUE INDEX tv ON t (v)").await);
        };
        cluster.world.spawn(work.boxed());
        cluster.world.settle(Duration::from_micros(20 * number));
        cancel.cancel();
        cluster.world.settle(Duration::from_secs(60));
        let answer = done.lock().take().expect("it has ended");
        let insert = format!("INSERT INTO t VALUES ({}, 7)", 10_000 + number);
        let inserted = cluster.run(&mut other, &insert);
        if answer.contains("ERROR") {
            assert!(answer.contains("[57014]"), "{number}: {answer}");
            given_up += 1;
            assert_eq!(inserted, "INSERT 0 1\n", "{number}: it holds to the index still");
        } else {
            assert!(inserted.contains("[23505]"), "{number}: {inserted}");
            cluster.run(&mut session, "DROP INDEX tv");
        }
        cluster.run(&mut other, "DELETE FROM t WHERE id > 10000");
    }
    assert!((1..60).contains(&given_up), "{given_up} of 60: this proves nothing");
    assert_eq!(cluster.run(&mut session, "CREATE UNIQUE INDEX tv ON t (v)"), "CREATE INDEX\n");
}

#[test]
fn a_copy_that_waits_can_be_cancelled() {
    let (cluster, mut holder, mut session) =
        TestCluster::with_two_sessions("CREATE TABLE t (id int PRIMARY KEY)");
    cluster.run(&mut holder, "BEGIN; INSERT INTO t VALUES (1)");
    let (cancel, done) = (session.cancel_handle(), Arc::new(Mutex::new(None)));
    let answered = done.clone();
    let work = async move {
        let mut script = session.simple("COPY t FROM STDIN").await;
        script.next(&mut session).await.expect("an outcome").expect("begins");
        session.copy_data(Bytes::from_static(b"1\n2\n")).await.expect("takes data");
        *answered.lock() = Some(session.copy_done().await.map(|_| ()));
    };
    cluster.world.spawn(work.boxed());
    cluster.world.settle(Duration::from_secs(2));
    assert!(done.lock().is_none());
    cancel.cancel();
    cluster.world.settle(Duration::from_secs(60));
    let error = done.lock().take().expect("it has ended").expect_err("it was cancelled");
    assert_eq!(error.code.to_string(), "57014");
    cluster.run(&mut holder, "COMMIT");
    assert_eq!(cluster.run(&mut holder, "SELECT id FROM t"), "id\n1\n");
}

#[test]
fn who_may_only_read_changes_no_schema() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    cluster.run(&mut session, "CREATE TABLE t (id int PRIMARY KEY)");
    let set = "SET default_transaction_read_only = on";
    cluster.run(&mut session, set);
    for change in ["ALTER TABLE t ADD COLUMN x int", "CREATE INDEX ON t (id)", "DROP TABLE t"] {
        for begin in ["", "BEGIN; "] {
            let answer = cluster.run(&mut session, &format!("{begin}{change}"));
            assert!(answer.contains("[25006]"), "{begin}{change}: {answer}");
            cluster.run(&mut session, "ROLLBACK");
        }
    }
}

/// A gateway that reads the catalog for a change of its own meets tables that it has not heard of: they are not its own.
#[test]
fn a_table_that_another_session_has_made_is_nobody_elses_own() {
    let (cluster, mut east, mut west) =
        TestCluster::with_two_sessions("CREATE TABLE t (id int PRIMARY KEY, v int)");
    cluster.run(&mut east, "INSERT INTO t VALUES (1, 10)");
    let changes = [
        "CREATE INDEX tv ON t (v)",
        "ALTER TABLE t ADD COLUMN w int NOT NULL DEFAULT 3",
        "DROP INDEX tv",
    ];
    for change in changes {
        let block = format!("BEGIN; CREATE TABLE own (id int PRIMARY KEY); {change}");
        let answer = cluster.run(&mut west, &block);
        assert!(answer.contains("[0A000]") || answer.contains("does not exist"), "{answer}");
        cluster.run(&mut west, "ROLLBACK");
    }
    cluster.run(&mut east, "INSERT INTO t VALUES (2, 20)");
    for change in changes {
        cluster.run(&mut west, change);
    }
    assert_eq!(cluster.run(&mut east, "SELECT * FROM t"), "id|v|w\n1|10|3\n2|20|3\n");
    // What is its own stays so until it is rolled back.
    let block = "BEGIN; SAVEPOINT a; CREATE TABLE own (id int PRIMARY KEY, v int); ROLLBACK TO a; \
                 CREATE TABLE own (id int PRIMARY KEY, v int); SAVEPOINT b; \
                 INSERT INTO own VALUES (1, 5); CREATE INDEX ov ON own (v); \
                 ALTER TABLE own ADD COLUMN w int DEFAULT 4; COMMIT; \
                 SELECT * FROM own WHERE v = 5";
    let answer = cluster.run(&mut west, block);
    assert!(answer.ends_with("id|v|w\n1|5|4\n"), "{answer}");
}

#[test]
fn an_index_that_a_foreign_key_needs_stays() {
    let (cluster, mut session, _) = TestCluster::with_two_sessions(
        "CREATE TABLE par (id int PRIMARY KEY, a int); CREATE UNIQUE INDEX pa ON par (a); \
         CREATE TABLE chi (id int PRIMARY KEY, a int REFERENCES par (a)); \
         INSERT INTO par VALUES (1, 10); INSERT INTO chi VALUES (1, 10)",
    );
    let answer = cluster.run(&mut session, "DROP INDEX pa");
    assert_eq!(answer, "ERROR:  cannot drop index pa because other objects depend on it [2BP01]\n");
    assert!(cluster.run(&mut session, "INSERT INTO chi VALUES (2, 11)").contains("[23503]"));
    cluster.run(&mut session, "ALTER TABLE chi DROP CONSTRAINT chi_a_fkey");
    assert_eq!(cluster.run(&mut session, "DROP INDEX pa"), "DROP INDEX\n");
    // Of tables that nobody else knows yet.
    let block = "BEGIN; CREATE TABLE p (id int PRIMARY KEY, a int); CREATE UNIQUE INDEX px ON p (a); \
                 CREATE TABLE c (id int PRIMARY KEY, a int REFERENCES p (a)); DROP INDEX px";
    assert!(cluster.run(&mut session, block).contains("[2BP01]"));
}

#[test]
fn the_checks_of_a_column_fall_with_it_and_no_others() {
    let (cluster, mut session, _) = TestCluster::with_two_sessions(
        "CREATE TABLE t (id int PRIMARY KEY, status text, kind text, \"My Col\" int, \
             CONSTRAINT kept CHECK (kind <> 'status'), \
             CONSTRAINT both CHECK (length(status) < 9 OR kind = 'x'), \
             CONSTRAINT folded CHECK (status = 'a' OR true), \
             CONSTRAINT odd CHECK (\"My Col\" > 0)); \
         INSERT INTO t VALUES (1, 'a', 'k', 1)",
    );
    let names = "SELECT conname FROM pg_constraint WHERE contype = 'c' ORDER BY conname";
    assert_eq!(cluster.run(&mut session, "ALTER TABLE t DROP COLUMN status"), "ALTER TABLE\n");
    assert_eq!(cluster.run(&mut session, names), "conname\nkept\nodd\n");
    let refused = cluster.run(&mut session, "INSERT INTO t VALUES (2, 'status', 1)");
    assert!(refused.contains("[23514]"), "{refused}");
    assert_eq!(cluster.run(&mut session, "ALTER TABLE t DROP COLUMN \"My Col\""), "ALTER TABLE\n");
    assert_eq!(cluster.run(&mut session, names), "conname\nkept\n");
    assert_eq!(cluster.run(&mut session, "INSERT INTO t VALUES (2, 'k')"), "INSERT 0 1\n");
}

#[test]
fn what_a_constraint_would_not_keep_is_refused() {
    let (cluster, mut session, _) = TestCluster::with_two_sessions(
        "CREATE TABLE par (id int PRIMARY KEY, a int, b int, UNIQUE (a, b)); \
         CREATE TABLE old (id int PRIMARY KEY, a int, b int)",
    );
    for (statement, what) in [
        ("CREATE TABLE t (a int, UNIQUE NULLS NOT DISTINCT (a))", "NULLS NOT DISTINCT"),
        ("ALTER TABLE old ADD UNIQUE NULLS NOT DISTINCT (a)", "NULLS NOT DISTINCT"),
        ("CREATE UNIQUE INDEX ON old (a) NULLS NOT DISTINCT", "NULLS NOT DISTINCT"),
        (
            "CREATE TABLE t (a int, b int, FOREIGN KEY (a, b) REFERENCES par (a, b) MATCH FULL)",
            "MATCH FULL",
        ),
        ("CREATE TABLE t (a int REFERENCES par MATCH PARTIAL)", "MATCH PARTIAL"),
        ("CREATE TABLE t (a int REFERENCES par DEFERRABLE)", "DEFERRABLE"),
        ("CREATE TABLE t (a int REFERENCES par INITIALLY DEFERRED)", "DEFERRED"),
        (
            "ALTER TABLE old ADD FOREIGN KEY (a) REFERENCES par DEFERRABLE INITIALLY DEFERRED",
            "DEFERR",
        ),
        ("ALTER TABLE old ADD COLUMN c int REFERENCES par DEFERRABLE", "DEFERRABLE"),
        ("CREATE TABLE t (a int UNIQUE DEFERRABLE)", "DEFERRABLE"),
        ("CREATE TABLE t (a int PRIMARY KEY DEFERRABLE)", "DEFERRABLE"),
        ("CREATE TABLE t (a int, PRIMARY KEY (a) INITIALLY DEFERRED)", "DEFERRED"),
        ("CREATE TABLE t (a int, UNIQUE (a) DEFERRABLE INITIALLY IMMEDIATE)", "DEFERRABLE"),
        ("ALTER TABLE old ADD UNIQUE (a) DEFERRABLE", "DEFERRABLE"),
    ] {
        let answer = cluster.run(&mut session, statement);
        assert!(answer.contains("[0A000]") && answer.contains(what), "{statement}: {answer}");
    }
    for statement in [
        "CREATE TABLE t (a int REFERENCES par MATCH SIMPLE NOT DEFERRABLE INITIALLY IMMEDIATE, \
         UNIQUE (a) NOT DEFERRABLE)",
        "ALTER TABLE old ADD UNIQUE NULLS DISTINCT (a)",
        "CREATE UNIQUE INDEX ON old (b) NULLS DISTINCT",
    ] {
        let answer = cluster.run(&mut session, statement);
        assert!(!answer.contains("ERROR"), "{statement}: {answer}");
    }
}

#[test]
fn a_type_is_widened_only_where_every_value_stays_what_it_is() {
    let (cluster, mut session, _) = TestCluster::with_two_sessions(
        "CREATE TABLE t (id int PRIMARY KEY, n numeric(10, 2), m numeric, v varchar(5), c char(3), \
             a numeric(5, 1)[], s timestamp(3)); \
         INSERT INTO t VALUES (1, 12.34, 1.5, 'abc', 'abc', '{1.5}', '2020-01-01')",
    );
    for (column, ty) in [
        ("n", "numeric(12, 0)"),
        ("n", "numeric(10, 4)"),
        ("n", "numeric(9, 2)"),
        ("n", "numeric(12, 4)"),
        ("m", "numeric(20, 2)"),
        ("v", "varchar(4)"),
        ("c", "char(5)"),
        ("a", "numeric(6, 0)[]"),
        ("s", "timestamp(0)"),
    ] {
        let statement = format!("ALTER TABLE t ALTER COLUMN {column} TYPE {ty}");
        let answer = cluster.run(&mut session, &statement);
        assert!(answer.contains("[0A000]"), "{statement}: {answer}");
    }
    for (column, ty) in [
        ("n", "numeric(12, 2)"),
        ("n", "numeric"),
        ("m", "numeric"),
        ("v", "varchar(5)"),
        ("v", "varchar(6)"),
        ("v", "text"),
        ("c", "char(3)"),
        ("a", "numeric(6, 1)[]"),
        ("s", "timestamp(6)"),
    ] {
        let statement = format!("ALTER TABLE t ALTER COLUMN {column} TYPE {ty}");
        assert_eq!(cluster.run(&mut session, &statement), "ALTER TABLE\n", "{statement}");
    }
}

#[test]
fn an_alter_table_of_several_actions_is_done_whole_or_not_at_all() {
    let (cluster, mut session, mut other) = TestCluster::with_two_sessions(
        "CREATE TABLE mo (id int PRIMARY KEY, v int); INSERT INTO mo VALUES (1, -1); \
         CREATE TABLE par (id int PRIMARY KEY); INSERT INTO par VALUES (1)",
    );
    let failing = "ALTER TABLE mo ADD COLUMN z int DEFAULT 5, ADD CONSTRAINT pos CHECK (v > 0)";
    assert!(cluster.run(&mut session, failing).contains("[23514]"));
    assert_eq!(cluster.run(&mut session, "SELECT * FROM mo"), "id|v\n1|-1\n");
    let several = "ALTER TABLE mo ADD COLUMN z int DEFAULT 5, ADD COLUMN IF NOT EXISTS v int, \
                   ADD CONSTRAINT pos CHECK (z > v), ADD COLUMN p int DEFAULT 1 REFERENCES par, \
                   ADD FOREIGN KEY (p) REFERENCES par ON DELETE CASCADE, OWNER TO root, \
                   ALTER COLUMN v DROP NOT NULL";
    let answer = cluster.run(&mut session, several);
    assert_eq!(
        answer,
        "NOTICE:  column \"v\" of relation \"mo\" already exists, skipping\nALTER TABLE\n"
    );
    assert_eq!(cluster.run(&mut other, "SELECT * FROM mo"), "id|v|z|p\n1|-1|5|1\n");
    assert!(cluster.run(&mut other, "INSERT INTO mo VALUES (2, 9, 1, 1)").contains("[23514]"));
    assert!(cluster.run(&mut other, "INSERT INTO mo VALUES (2, 1, 9, 7)").contains("[23503]"));
    let anew = "ALTER TABLE mo DROP COLUMN z, ADD COLUMN IF NOT EXISTS z int DEFAULT 6";
    assert_eq!(cluster.run(&mut session, anew), "ALTER TABLE\n");
    assert_eq!(cluster.run(&mut session, "SELECT * FROM mo"), "id|v|p|z\n1|-1|1|6\n");
    let jobs = "ALTER TABLE mo ADD COLUMN y int, ADD UNIQUE (v)";
    let answer = cluster.run(&mut session, jobs);
    assert!(answer.contains("[0A000]") && answer.contains("UNIQUE"), "{answer}");
    assert_eq!(cluster.run(&mut session, "SELECT * FROM mo"), "id|v|p|z\n1|-1|1|6\n");
    // A table of one's own block is changed with the block.
    let block = "BEGIN; CREATE TABLE own (id int PRIMARY KEY, v int); \
                 ALTER TABLE own ADD COLUMN y int, ADD UNIQUE (v); COMMIT; SELECT * FROM own";
    assert!(cluster.run(&mut session, block).ends_with("id|v|y\n"));
}

#[test]
fn what_is_stored_means_the_same_to_every_reader() {
    let (cluster, mut session, _) = TestCluster::with_two_sessions(
        "CREATE SCHEMA a; CREATE SCHEMA b; SET search_path = a; \
         CREATE TABLE t (id serial PRIMARY KEY, x text); INSERT INTO t (x) VALUES ('a'); \
         CREATE SEQUENCE s; CREATE TABLE d (id int DEFAULT nextval('s'), x text); \
         CREATE VIEW v AS WITH c AS (SELECT x FROM t) SELECT c.x, t.id FROM c, t \
             WHERE t.x IN (SELECT x FROM t) AND EXISTS (SELECT 1 FROM c) \
                 AND (SELECT count(*) FROM pg_class) > 0; \
         CREATE VIEW w AS SELECT * FROM v; \
         CREATE VIEW n AS WITH t AS (SELECT 7 AS x) SELECT t.x FROM t; \
         SET search_path = public; \
         CREATE TABLE t (id serial PRIMARY KEY, x text); INSERT INTO t (x) VALUES ('public')",
    );
    let mut other = cluster.session(&cluster.east);
    for path in ["public", "b", "b, a", "public, a", "a"] {
        for session in [&mut session, &mut other] {
            cluster.run(session, &format!("SET search_path = {path}"));
            assert_eq!(cluster.run(session, "SELECT * FROM a.v"), "x|id\na|1\n", "{path}");
            assert_eq!(cluster.run(session, "SELECT * FROM a.w"), "x|id\na|1\n", "{path}");
            assert_eq!(cluster.run(session, "SELECT * FROM a.n"), "x\n7\n", "{path}");
            let drawn = cluster.run(session, "INSERT INTO public.t (x) VALUES ('p')");
            assert_eq!(drawn, "INSERT 0 1\n", "{path}");
            let drawn = cluster.run(session, "INSERT INTO a.d (x) VALUES ('p')");
            assert_eq!(drawn, "INSERT 0 1\n", "{path}");
        }
    }
    cluster.run(&mut session, "SET search_path = public");
    let default = "SELECT column_default FROM information_schema.columns \
                   WHERE table_name = 't' AND column_name = 'id' ORDER BY table_schema";
    assert_eq!(
        cluster.run(&mut session, default),
        "column_default\nnextval('a.t_id_seq'::regclass)\nnextval('t_id_seq'::regclass)\n"
    );
}
