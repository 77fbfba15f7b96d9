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

/// A restart is the transaction's: it sees it at once, and takes it back with all the rest.
#[test]
fn a_sequence_starts_anew_with_the_transaction_that_says_so() {
    let setup = "CREATE TABLE t (id serial PRIMARY KEY, v int)";
    let insert = "INSERT INTO t (v) VALUES (1) RETURNING id";
    let gives = |number: u32| format!("id\n{number}\nINSERT 0 1\n");
    let (cluster, mut east, mut west) = TestCluster::with_two_sessions(setup);
    cluster.run(&mut east, &format!("{insert}; {insert}; {insert}"));
    // It keeps a block of values.
    assert!(cluster.run(&mut west, insert).contains("INSERT 0 1"));
    let answer =
        cluster.run(&mut east, &format!("BEGIN; TRUNCATE t RESTART IDENTITY; {insert}; COMMIT"));
    assert_eq!(answer, format!("BEGIN\nTRUNCATE TABLE\n{}COMMIT\n", gives(1)));
    for number in 2..=4 {
        assert_eq!(cluster.run(&mut east, insert), gives(number));
    }
    // Neither gateway gives again what the other has given, nor what it had kept from before.
    let mut seen = vec!["1".to_string(), "2".into(), "3".into(), "4".into()];
    for turn in 0..80 {
        let session = if turn % 2 == 0 { &mut west } else { &mut east };
        let answer = cluster.run(session, insert);
        let number = answer.lines().nth(1).unwrap_or_default().to_string();
        assert!(answer.contains("INSERT 0 1") && !seen.contains(&number), "{turn}: {answer}");
        seen.push(number);
    }
    // Rolled back, it goes on.
    let (cluster, mut east, mut west) = TestCluster::with_two_sessions(setup);
    assert_eq!(cluster.run(&mut east, insert), gives(1));
    let block = format!("BEGIN; TRUNCATE t RESTART IDENTITY; {insert}; ROLLBACK");
    assert!(cluster.run(&mut east, &block).contains(&gives(1)));
    assert_eq!(cluster.run(&mut east, insert), gives(2));
    assert!(cluster.run(&mut east, &block).contains(&gives(1)));
    assert_eq!(cluster.run(&mut east, insert), gives(3));
    // currval is what was given last, as in PostgreSQL.
    let answer = cluster.run(&mut east, "TRUNCATE t RESTART IDENTITY; SELECT currval('t_id_seq')");
    assert!(answer.ends_with("currval\n3\n"), "{answer}");
    assert!(cluster.run(&mut west, insert).contains("INSERT 0 1"));
    // Twice in one block, and of a table that the block has made.
    let block = format!(
        "BEGIN; TRUNCATE t RESTART IDENTITY; {insert}; TRUNCATE t RESTART IDENTITY; {insert}; \
         CREATE TABLE u (id serial, v int); INSERT INTO u (v) VALUES (1); TRUNCATE u RESTART IDENTITY; \
         INSERT INTO u (v) VALUES (1) RETURNING id; COMMIT"
    );
    let answer = cluster.run(&mut east, &block);
    assert_eq!(answer.matches("id\n1\n").count(), 3, "{answer}");
    // A table that the block has used already keeps its values: refused.
    let answer = cluster.run(&mut east, &format!("BEGIN; {insert}; TRUNCATE t RESTART IDENTITY"));
    assert!(answer.contains("[0A000]"), "{answer}");
    cluster.run(&mut east, "ROLLBACK");
    assert_eq!(cluster.run(&mut east, "TRUNCATE t RESTART IDENTITY"), "TRUNCATE TABLE\n");
    assert_eq!(cluster.run(&mut east, insert), gives(1));
}
