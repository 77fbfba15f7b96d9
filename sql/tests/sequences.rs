//! Sequences: values are drawn outside of transactions, what they are drawn from belongs to them.

use crate::world::TestCluster;

/// The number of something that was rolled back is nobody else's, at whichever gateway.
#[test]
fn a_sequence_has_nothing_of_one_that_was_rolled_back() {
    let (cluster, mut session, mut other) = TestCluster::with_two_sessions("SELECT 1");
    let block = "BEGIN; CREATE SEQUENCE s1; SELECT setval('s1', 1000); ROLLBACK";
    assert!(!cluster.run(&mut session, block).contains("ERROR"));
    cluster.run(&mut session, "CREATE SEQUENCE s2 MAXVALUE 10");
    let answer = cluster.run(&mut session, "SELECT currval('s2')");
    assert!(answer.contains("[55000]"), "{answer}");
    assert_eq!(cluster.run(&mut session, "SELECT nextval('s2')"), "nextval\n1\n");
    let table = "CREATE TABLE t (id serial PRIMARY KEY, v int)";
    let fill = "INSERT INTO t (v) VALUES (1), (2), (3) RETURNING id";
    for block in [
        format!("BEGIN; {table}; {fill}; ROLLBACK"),
        format!("BEGIN; SAVEPOINT s; {table}; {fill}; ROLLBACK TO s; COMMIT"),
        format!("{table}; {fill}; SELECT 1 / 0"),
    ] {
        let answer = cluster.run(&mut session, &block);
        assert!(answer.contains("id\n1\n2\n3\n"), "{block}: {answer}");
        let (maker, prefix) = if block.starts_with("BEGIN; C") {
            (&mut other, "at another gateway")
        } else {
            (&mut session, "at the same")
        };
        assert_eq!(cluster.run(maker, table), "CREATE TABLE\n");
        let answer = cluster.run(maker, fill);
        assert_eq!(answer, "id\n1\n2\n3\nINSERT 0 3\n", "{block}: {prefix}");
        cluster.run(maker, "DROP TABLE t");
    }
}

/// Whatever is created, wherever, and whatever becomes of it, has a number of its own.
#[test]
fn numbers_are_not_given_out_again() {
    let (cluster, mut east, mut west) = TestCluster::with_two_sessions("SELECT 1");
    let mut numbers = Vec::new();
    let create = "CREATE TABLE t (id int PRIMARY KEY); SELECT 't'::regclass::oid AS oid";
    for (turn, end) in ["ROLLBACK", "COMMIT; DROP TABLE t", "ROLLBACK", "COMMIT; DROP TABLE t"]
        .into_iter()
        .enumerate()
    {
        let session = if turn < 2 { &mut east } else { &mut west };
        let answer = cluster.run(session, &format!("BEGIN; {create}"));
        let number = answer.lines().last().expect("a number").to_string();
        assert!(number.parse::<u32>().is_ok(), "{answer}");
        numbers.push(number);
        cluster.run(session, end);
    }
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), 4, "{numbers:?}");
}
