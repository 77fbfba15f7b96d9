//! TRUNCATE against those who write meanwhile: at every level it is as if one had come after the other, rows and entries alike.

use crate::world::{TestCluster, run};
use futures::FutureExt;
use parking_lot::Mutex;
use sql::Session;
use std::sync::Arc;
use std::time::Duration;

const LEVELS: [&str; 4] =
    ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE", "STRICT SERIALIZABLE"];

/// `one` truncates and `two` writes before the commit: what they were answered.
fn race(cluster: &TestCluster, one: &mut Session, two: Session, texts: [&str; 3]) -> [String; 2] {
    let [begin, truncate, write] = texts;
    let answer = cluster.run(one, &format!("BEGIN ISOLATION LEVEL {begin}; {truncate}"));
    assert!(answer.ends_with("TRUNCATE TABLE\n"), "{begin}: {answer}");
    let (written, write) = (Arc::new(Mutex::new(None)), write.to_string());
    let (answered, mut two) = (written.clone(), two);
    let work = async move { *answered.lock() = Some(run(&mut two, &write).await) };
    cluster.world.spawn(work.boxed());
    cluster.world.settle(Duration::from_secs(1));
    let committed = cluster.run(one, "COMMIT");
    cluster.world.settle(Duration::from_secs(60));
    let written = written.lock().take().expect("it has ended");
    [committed, written]
}

#[test]
fn a_row_that_is_changed_meanwhile_leaves_no_entry_behind() {
    for level in LEVELS {
        let (cluster, mut one, two) = TestCluster::with_two_sessions(
            "CREATE TABLE tu (id int PRIMARY KEY, v int UNIQUE); \
             INSERT INTO tu VALUES (1, 11), (2, 22)",
        );
        let update = "UPDATE tu SET v = 77 WHERE id = 1";
        let answers = race(&cluster, &mut one, two, [level, "TRUNCATE tu", update]);
        assert_eq!(answers, ["COMMIT\n", "UPDATE 0\n"], "{level}");
        assert_eq!(cluster.run(&mut one, "SELECT * FROM tu"), "id|v\n", "{level}");
        let inserted = cluster.run(&mut one, "INSERT INTO tu VALUES (5, 77)");
        assert_eq!(inserted, "INSERT 0 1\n", "{level}");
    }
}

#[test]
fn a_row_that_comes_meanwhile_is_not_left_alone() {
    for level in LEVELS {
        let (cluster, mut one, two) = TestCluster::with_two_sessions(
            "CREATE TABLE tu (id int PRIMARY KEY, v int UNIQUE); INSERT INTO tu VALUES (1, 11)",
        );
        let insert = "INSERT INTO tu VALUES (9, 99)";
        let [committed, written] = race(&cluster, &mut one, two, [level, "TRUNCATE tu", insert]);
        assert_eq!(written, "INSERT 0 1\n", "{level}");
        // It has come after the commit, or the commit has failed for it.
        let left = match committed.as_str() {
            "COMMIT\n" => "id|v\n9|99\n",
            failed => {
                assert!(failed.contains("[40001]"), "{level}: {failed}");
                "id|v\n1|11\n9|99\n"
            }
        };
        for query in ["SELECT * FROM tu ORDER BY id", "SELECT * FROM tu WHERE v > 0 ORDER BY id"] {
            assert_eq!(cluster.run(&mut one, query), left, "{level}: {query}");
        }
        let again = cluster.run(&mut one, "DELETE FROM tu; INSERT INTO tu VALUES (1, 99), (2, 11)");
        assert_eq!(again.lines().last(), Some("INSERT 0 2"), "{level}: {again}");
    }
}

#[test]
fn no_row_is_left_without_the_one_that_it_references() {
    for level in LEVELS {
        let (cluster, mut one, two) = TestCluster::with_two_sessions(
            "CREATE TABLE tp (id int PRIMARY KEY); INSERT INTO tp VALUES (1), (2); \
             CREATE TABLE tc (id int PRIMARY KEY, p int REFERENCES tp); \
             INSERT INTO tc VALUES (1, 1)",
        );
        let insert = "INSERT INTO tc VALUES (9, 2)";
        let [_, written] = race(&cluster, &mut one, two, [level, "TRUNCATE tp, tc", insert]);
        let orphans = "SELECT count(*) FROM tc LEFT JOIN tp ON tp.id = tc.p WHERE tp.id IS NULL";
        assert_eq!(cluster.run(&mut one, orphans), "count\n0\n", "{level}: {written}");
    }
}

#[test]
fn an_available_table_and_its_index_are_emptied_alike() {
    for level in LEVELS {
        let (cluster, mut one, _) = TestCluster::with_two_sessions(
            "CREATE TABLE av (id int PRIMARY KEY, v int) WITH (consistency = 'available'); \
             CREATE INDEX avv ON av (v); INSERT INTO av VALUES (1, 11), (2, 22)",
        );
        let two = cluster.session(&cluster.east);
        let update = "UPDATE av SET v = 77 WHERE id = 1";
        let answers = race(&cluster, &mut one, two, [level, "TRUNCATE av", update]);
        assert_eq!(answers, ["COMMIT\n", "UPDATE 0\n"], "{level}");
        let two = cluster.session(&cluster.east);
        let insert = "INSERT INTO av VALUES (3, 33)";
        let answers = race(&cluster, &mut one, two, [level, "TRUNCATE av", insert]);
        assert_eq!(answers[1], "INSERT 0 1\n", "{level}");
        let by_index = cluster.run(&mut one, "SELECT id, v FROM av WHERE v >= 0");
        assert_eq!(by_index, "id|v\n3|33\n", "{level}");
        assert_eq!(cluster.run(&mut one, "SELECT id, v FROM av"), by_index, "{level}");
    }
}
