//! What drivers do: the extended protocol, COPY, and transactions that get into each other's way.

use crate::world::TestCluster;
use bytes::Bytes;
use sql::{Next, Outcome, TransactionStatus};

fn text(values: &[&str]) -> Vec<Option<Bytes>> {
    values.iter().map(|value| Some(Bytes::copy_from_slice(value.as_bytes()))).collect()
}

#[test]
fn a_prepared_statement_infers_its_parameters_and_runs_again_and_again() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    cluster.run(&mut session, "CREATE TABLE t (a int PRIMARY KEY, b text)");
    cluster.world.block_on(async {
        session.parse("i", "INSERT INTO t VALUES ($1, $2)", &[]).await.expect("parses");
        assert_eq!(session.describe_statement("i").expect("described").0, [23, 25]);
        for (a, b) in [("1", "x"), ("2", "y")] {
            session.bind("", "i", text(&[a, b]), &[], &[]).await.expect("binds");
            let outcome = session.execute("", 0, Next::Unknown).await.expect("executes");
            assert!(matches!(outcome, Outcome::Complete { tag } if tag == "INSERT 0 1"));
            session.sync().await.expect("commits");
        }
        session.parse("s", "SELECT b FROM t WHERE a = $1", &[]).await.expect("parses");
        let (params, columns) = session.describe_statement("s").expect("described");
        assert_eq!(params, [23]);
        let columns = columns.expect("a query has columns");
        assert_eq!((columns[0].type_oid, columns[0].attnum), (25, 2));
        session.bind("", "s", text(&["2"]), &[], &[]).await.expect("binds");
        let Outcome::Rows { rows, suspended, .. } =
            session.execute("", 0, Next::Unknown).await.expect("executes")
        else {
            panic!("rows")
        };
        assert_eq!(rows[0][0].as_str(), Some("y"));
        assert!(!suspended);
        session.sync().await.expect("ends");
    });
}

#[test]
fn a_portal_gives_its_rows_in_pieces() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    cluster.world.block_on(async {
        session.parse("", "SELECT * FROM generate_series(1, 5)", &[]).await.expect("parses");
        session.bind("p", "", Vec::new(), &[], &[]).await.expect("binds");
        let mut sizes = Vec::new();
        loop {
            let Outcome::Rows { rows, suspended, tag, .. } =
                session.execute("p", 2, Next::Unknown).await.expect("executes")
            else {
                panic!("rows")
            };
            sizes.push(rows.len());
            if !suspended {
                assert_eq!(tag.as_deref(), Some("SELECT 5"));
                break;
            }
        }
        assert_eq!(sizes, [2, 2, 1]);
        session.sync().await.expect("ends");
    });
}

#[test]
fn copy_in_takes_data_that_is_cut_anywhere() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    cluster.run(&mut session, "CREATE TABLE t (a int, b text)");
    cluster.world.block_on(async {
        let mut script = session.simple("COPY t FROM STDIN WITH (FREEZE ON)").await;
        let outcome = script.next(&mut session).await.expect("an outcome").expect("begins");
        assert!(matches!(outcome, Outcome::CopyIn { columns: 2, format: 0 }));
        for piece in ["1\ton", "e\n2\t\\N\n3", "\tth\\tree\n\\.\n"] {
            session.copy_data(Bytes::from(piece)).await.expect("takes data");
        }
        let outcome = session.copy_done().await.expect("ends");
        assert!(matches!(outcome, Outcome::Complete { tag } if tag == "COPY 3"));
        assert!(script.next(&mut session).await.is_none());
    });
    let rows = cluster.run(&mut session, "SELECT * FROM t ORDER BY a");
    assert_eq!(rows, "a|b\n1|one\n2|NULL\n3|th\tree\n");
    assert_eq!(
        cluster.run(&mut session, "COPY t TO STDOUT WITH (FORMAT csv, HEADER)"),
        "a,b\n1,one\n2,\n3,th\tree\n"
    );
}

#[test]
fn of_two_increments_none_is_lost() {
    let cluster = TestCluster::new();
    let (mut one, mut two) = (cluster.session(&cluster.east), cluster.session(&cluster.west));
    cluster.run(&mut one, "CREATE TABLE t (a int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0)");
    cluster.world.block_on(async {
        let work = |session| async move {
            let session: &mut sql::Session = session;
            for _ in 0..10 {
                let out = crate::world::run(session, "UPDATE t SET n = n + 1 WHERE a = 1").await;
                assert_eq!(out, "UPDATE 1\n");
            }
        };
        futures::future::join(work(&mut one), work(&mut two)).await;
    });
    assert_eq!(cluster.run(&mut one, "SELECT n FROM t"), "n\n20\n");
}

#[test]
fn a_failed_block_only_ends() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    cluster.run(&mut session, "CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let out =
        cluster.run(&mut session, "BEGIN; INSERT INTO t VALUES (2); INSERT INTO t VALUES (1)");
    assert!(out.contains("[23505]"), "{out}");
    assert_eq!(session.status(), TransactionStatus::Failed);
    assert!(cluster.run(&mut session, "SELECT 1").contains("[25P02]"));
    assert_eq!(cluster.run(&mut session, "COMMIT"), "ROLLBACK\n");
    assert_eq!(cluster.run(&mut session, "SELECT count(*) FROM t"), "count\n1\n");
}

#[test]
fn another_node_learns_of_new_and_changed_tables() {
    let cluster = TestCluster::new();
    let (mut one, mut two) = (cluster.session(&cluster.east), cluster.session(&cluster.west));
    cluster.run(&mut one, "CREATE TABLE t (a int PRIMARY KEY, b int)");
    assert_eq!(cluster.run(&mut two, "INSERT INTO t VALUES (1, 1), (2, 1)"), "INSERT 0 2\n");
    assert_eq!(cluster.run(&mut one, "ALTER TABLE t ADD COLUMN c int DEFAULT 7"), "ALTER TABLE\n");
    assert_eq!(cluster.run(&mut two, "UPDATE t SET b = 2 WHERE a = 1"), "UPDATE 1\n");
    assert_eq!(cluster.run(&mut two, "SELECT * FROM t ORDER BY a"), "a|b|c\n1|2|7\n2|1|7\n");
    assert_eq!(cluster.run(&mut one, "CREATE UNIQUE INDEX i ON t (b)"), "CREATE INDEX\n");
    assert!(cluster.run(&mut two, "INSERT INTO t VALUES (3, 2)").contains("[23505]"));
}

#[test]
fn an_execute_before_sync_is_a_whole_transaction() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    cluster.run(&mut session, "CREATE TABLE t (a int PRIMARY KEY, b text UNIQUE)");
    cluster.world.block_on(async {
        session.parse("i", "INSERT INTO t VALUES ($1, $2) RETURNING a", &[]).await.expect("parses");
        session.bind("", "i", text(&["1", "x"]), &[], &[]).await.expect("binds");
        let outcome = session.execute("", 0, Next::Sync).await.expect("executes");
        assert!(matches!(outcome, Outcome::Rows { rows, .. } if rows.len() == 1));
        // It has committed, though Sync has not come yet.
        let mut other = cluster.session(&cluster.west);
        assert_eq!(crate::world::run(&mut other, "SELECT a FROM t").await, "a\n1\n");
        session.sync().await.expect("nothing is left to do");
        // A key that is taken is found by the commit, and told by the statement, in its terms.
        for (values, name, detail) in [
            (["1", "y"], "t_pkey", "Key (a)=(1) already exists."),
            (["2", "x"], "t_b_key", "Key (b)=(x) already exists."),
        ] {
            session.bind("", "i", text(&values), &[], &[]).await.expect("binds");
            let error = session.execute("", 0, Next::Sync).await.expect_err("the key is taken");
            assert_eq!(error.code.to_string(), "23505");
            assert_eq!(error.detail.as_deref(), Some(detail));
            assert!(error.message.contains(name), "{}", error.message);
            session.fail();
            session.sync().await.expect("the connection goes on");
        }
        // In one statement as well, and nothing of it stays.
        let out =
            crate::world::run(&mut session, "INSERT INTO t VALUES (5, 'p'), (6, 'q'), (5, 'r')")
                .await;
        assert!(out.contains("[23505]"), "{out}");
        let out = crate::world::run(&mut session, "SELECT count(*) FROM t").await;
        assert_eq!(out, "count\n1\n");
    });
}

#[test]
fn of_two_increments_by_prepared_statements_none_is_lost_and_no_client_is_told() {
    let cluster = TestCluster::new();
    let (mut one, mut two) = (cluster.session(&cluster.east), cluster.session(&cluster.west));
    cluster.run(&mut one, "CREATE TABLE t (a int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0)");
    cluster.world.block_on(async {
        let work = |session| async move {
            let session: &mut sql::Session = session;
            session.parse("u", "UPDATE t SET n = n + 1 WHERE a = 1", &[]).await.expect("parses");
            for _ in 0..10 {
                session.bind("", "u", Vec::new(), &[], &[]).await.expect("binds");
                session.execute("", 0, Next::Sync).await.expect("is run until it commits");
                session.sync().await.expect("has committed");
            }
        };
        futures::future::join(work(&mut one), work(&mut two)).await;
    });
    assert_eq!(cluster.run(&mut one, "SELECT n FROM t"), "n\n20\n");
}
