//! Schema changes against those who write at the same time.

use crate::world::{TestCluster, run};
use futures::FutureExt;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use storage::Key;
use txn::runtime::Runtime;

const WRITERS: u32 = 3;
const INSERTS: u32 = 10;

fn pause(runtime: &Runtime, below_us: u64) -> impl Future<Output = ()> + Send + use<> {
    let time = runtime.time.clone();
    let until = time.monotonic().plus(Duration::from_micros(runtime.random.next_u64() % below_us));
    async move { time.sleep_until(until).await }
}

/// A NULL that a writer has in its hands when the column is checked is refused afterwards, whichever schema it was planned under.
#[test]
fn no_null_comes_behind_set_not_null() {
    let mut refused = 0;
    for seed in 1..=10 {
        let cluster = TestCluster::with_seed(seed);
        let mut own = cluster.session(&cluster.east);
        cluster.run(&mut own, "CREATE TABLE t (id int PRIMARY KEY, x int)");
        let (runtime, errors) = (cluster.world.runtime(), Arc::new(Mutex::new(Vec::new())));
        for writer in 0..WRITERS {
            let engine = if writer % 2 == 0 { &cluster.east } else { &cluster.west };
            let (mut session, runtime) = (cluster.session(engine), runtime.clone());
            let errors = errors.clone();
            let work = async move {
                for number in 0..INSERTS {
                    pause(&runtime, 3_000).await;
                    let insert = format!("INSERT INTO t VALUES ({}, NULL)", writer * 100 + number);
                    let mut answer = match number % 2 {
                        0 => run(&mut session, &insert).await,
                        _ => run(&mut session, &format!("BEGIN; {insert}")).await,
                    };
                    pause(&runtime, 3_000).await;
                    if number % 2 == 1 {
                        answer += &run(&mut session, "COMMIT").await;
                    }
                    if let Some((_, code)) = answer.split_once('[') {
                        errors.lock().push(code[..5].to_string());
                    }
                }
            };
            cluster.world.spawn(work.boxed());
        }
        let (mut changer, is_set) = (cluster.session(&cluster.west), Arc::new(Mutex::new(false)));
        let (done, changing) = (is_set.clone(), runtime.clone());
        let work = async move {
            pause(&changing, 15_000).await;
            while !*done.lock() {
                run(&mut changer, "UPDATE t SET x = 0 WHERE x IS NULL").await;
                let change = "ALTER TABLE t ALTER COLUMN x SET NOT NULL";
                *done.lock() = run(&mut changer, change).await == "ALTER TABLE\n";
            }
        };
        cluster.world.spawn(work.boxed());
        cluster.world.settle(Duration::from_secs(600));
        assert!(*is_set.lock(), "seed {seed}: the column was never set");
        for code in errors.lock().iter() {
            assert!(["23502", "40001"].contains(&code.as_str()), "seed {seed}: {code}");
        }
        refused += errors.lock().len();
        let count = cluster.run(&mut own, "SELECT count(*) FROM t WHERE x IS NULL");
        assert_eq!(count, "count\n0\n", "seed {seed}: a NULL is in a column without");
    }
    assert!(refused > 0, "nobody wrote behind a change: this proves nothing");
}

/// What a dead gateway has left in the table is in nobody's way for longer than it takes to be sure that it is dead.
#[test]
fn an_intent_that_nobody_owns_does_not_stop_a_schema_change() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    cluster.run(&mut session, "CREATE TABLE t (id int PRIMARY KEY, x int)");
    let table = cluster.east.catalog().find_table("meridian", "public", "t").expect("there").id;
    cluster.leave_intent(&Key::table(table));
    let begun = cluster.world.runtime().time.monotonic();
    let changed = cluster.run(&mut session, "ALTER TABLE t ADD COLUMN y int");
    assert_eq!(changed, "ALTER TABLE\n");
    let waited = cluster.world.runtime().time.monotonic().since(begun);
    assert!(waited < Duration::from_secs(10), "{waited:?}");
}

/// Whoever takes a row away knows of every key that references it, also at a gateway that has not heard of the key yet (killer Q10).
#[test]
fn no_row_is_deleted_under_a_key_that_its_gateway_does_not_know() {
    let ways: [&[&str]; 4] = [
        &["CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent)"],
        &[
            "CREATE TABLE child (id int PRIMARY KEY, p int)",
            "ALTER TABLE child ADD CONSTRAINT known FOREIGN KEY (p) REFERENCES parent",
        ],
        &[
            "CREATE TABLE child (id int PRIMARY KEY)",
            "ALTER TABLE child ADD COLUMN p int REFERENCES parent",
        ],
        // What was told was rolled back.
        &["BEGIN; SAVEPOINT a; CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent); \
           ROLLBACK TO a; \
           CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent); COMMIT"],
    ];
    for way in ways {
        let (cluster, mut east, mut west) = TestCluster::with_two_sessions(
            "CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1), (2)",
        );
        // It knows the table as it is now, and nobody tells it of what follows.
        assert_eq!(cluster.run(&mut west, "SELECT count(*) FROM parent"), "count\n2\n");
        for change in way {
            let answer = cluster.run(&mut east, change);
            assert!(!answer.contains("ERROR"), "{change}: {answer}");
        }
        cluster.run(&mut east, "INSERT INTO child VALUES (10, 1)");
        let answer = cluster.run(&mut west, "DELETE FROM parent WHERE id = 1");
        assert!(answer.contains("[23503]"), "{way:?}: {answer}");
        assert_eq!(cluster.run(&mut west, "DELETE FROM parent WHERE id = 2"), "DELETE 1\n");
    }
}

/// A block that makes both tables waits for nobody, least of all for itself; one that has used the referenced table is told so at once.
#[test]
fn a_block_may_reference_what_it_has_made_but_not_what_it_has_used() {
    let (cluster, mut session, _) =
        TestCluster::with_two_sessions("CREATE TABLE old (id int PRIMARY KEY)");
    let begun = cluster.world.runtime().time.monotonic();
    let answer = cluster.run(
        &mut session,
        "BEGIN; CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1); \
         CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent); \
         INSERT INTO child VALUES (10, 1); \
         CREATE TABLE other (id int PRIMARY KEY, p int REFERENCES old); \
         CREATE TABLE another (id int PRIMARY KEY, p int REFERENCES old, q int); \
         ALTER TABLE another ADD FOREIGN KEY (q) REFERENCES old; \
         INSERT INTO old VALUES (2); INSERT INTO other VALUES (20, 2); COMMIT",
    );
    assert!(!answer.contains("ERROR"), "{answer}");
    let answer = cluster.run(&mut session, "DELETE FROM old");
    assert!(answer.contains("[23503]"), "{answer}");
    let third = "CREATE TABLE third (id int PRIMARY KEY, p int REFERENCES old)";
    for used in ["INSERT INTO old VALUES (3)", "SELECT count(*) FROM old"] {
        cluster.run(&mut session, &format!("BEGIN; {used}"));
        let answer = cluster.run(&mut session, third);
        assert!(answer.contains("[0A000]"), "{used}: {answer}");
        cluster.run(&mut session, "ROLLBACK");
    }
    let waited = cluster.world.runtime().time.monotonic().since(begun);
    assert!(waited < Duration::from_secs(5), "{waited:?}");
    // What was refused leaves the ranges ahead of the catalog, and that does not stay so.
    assert_eq!(cluster.run(&mut session, third), "CREATE TABLE\n");
}

/// A change that is rolled back leaves the referenced table's ranges ahead: the next writer brings the catalog up to them.
#[test]
fn a_key_that_was_rolled_back_stops_nobody_for_long() {
    let (cluster, mut east, mut west) =
        TestCluster::with_two_sessions("CREATE TABLE parent (id int PRIMARY KEY)");
    cluster.run(
        &mut east,
        "BEGIN; CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent); ROLLBACK",
    );
    let begun = cluster.world.runtime().time.monotonic();
    assert_eq!(cluster.run(&mut west, "INSERT INTO parent VALUES (1)"), "INSERT 0 1\n");
    let waited = cluster.world.runtime().time.monotonic().since(begun);
    assert!(waited < Duration::from_secs(5), "{waited:?}");
}

/// Rows that are there get a new column's default, and its constraints hold for that, too.
#[test]
fn a_new_column_s_constraints_hold_for_old_rows() {
    let (cluster, mut session, _) = TestCluster::with_two_sessions(
        "CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1); \
         CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
    );
    for (change, expected) in [
        ("ALTER TABLE t ADD COLUMN x int DEFAULT 7 CHECK (x > 10)", "[23514]"),
        ("ALTER TABLE t ADD COLUMN x int DEFAULT 7 REFERENCES parent", "[23503]"),
        ("ALTER TABLE t ADD COLUMN x int DEFAULT 1 REFERENCES parent", "ALTER TABLE"),
        ("ALTER TABLE t ADD COLUMN y int DEFAULT 7 CHECK (y > 5)", "ALTER TABLE"),
    ] {
        let answer = cluster.run(&mut session, change);
        assert!(answer.contains(expected), "{change}: {answer}");
    }
    assert_eq!(cluster.run(&mut session, "SELECT * FROM t"), "id|x|y\n1|1|7\n");
}

/// Rows of an available table that have not come to the gateway's region yet are there as well (killer Q06).
#[test]
fn a_change_of_an_available_table_is_about_the_rows_of_all_regions() {
    let (cluster, mut east, mut west) = TestCluster::with_two_sessions(
        "CREATE TABLE t (id int PRIMARY KEY) WITH (consistency = 'available'); \
         INSERT INTO t VALUES (1)",
    );
    let answer = cluster.run(&mut west, "ALTER TABLE t ADD CONSTRAINT large CHECK (id > 100)");
    assert!(answer.contains("[23514]"), "{answer}");
    let added = cluster.run(&mut west, "ALTER TABLE t ADD COLUMN x int NOT NULL DEFAULT 7");
    assert_eq!(added, "ALTER TABLE\n");
    assert_eq!(cluster.run(&mut east, "SELECT * FROM t"), "id|x\n1|7\n");
}

/// A table may come to reference itself: its rows are then held against it as it will be.
#[test]
fn a_table_with_rows_may_come_to_reference_itself() {
    let (cluster, mut session, _) = TestCluster::with_two_sessions(
        "CREATE TABLE t (id int PRIMARY KEY, p int); INSERT INTO t VALUES (1, NULL), (2, 1)",
    );
    let key = "ALTER TABLE t ADD CONSTRAINT k FOREIGN KEY (p) REFERENCES t";
    assert_eq!(cluster.run(&mut session, key), "ALTER TABLE\n");
    let answer = cluster.run(&mut session, "DELETE FROM t WHERE id = 1");
    assert!(answer.contains("[23503]"), "{answer}");
}

/// As PostgreSQL has it: a constraint's name is its table's only once.
#[test]
fn a_foreign_key_has_a_name_of_its_own() {
    let (cluster, mut session, _) = TestCluster::with_two_sessions(
        "CREATE TABLE parent (id int PRIMARY KEY); \
         CREATE TABLE child (id int PRIMARY KEY, p int, q int)",
    );
    let key = "ALTER TABLE child ADD CONSTRAINT k FOREIGN KEY (p) REFERENCES parent";
    assert_eq!(cluster.run(&mut session, key), "ALTER TABLE\n");
    let again = cluster.run(&mut session, key);
    assert!(again.contains("[42710]"), "{again}");
    for _ in 0..2 {
        let unnamed = "ALTER TABLE child ADD FOREIGN KEY (p) REFERENCES parent";
        assert_eq!(cluster.run(&mut session, unnamed), "ALTER TABLE\n");
    }
    let names = "SELECT conname FROM pg_constraint WHERE contype = 'f' ORDER BY conname";
    assert_eq!(cluster.run(&mut session, names), "conname\nchild_p_fkey\nchild_p_fkey1\nk\n");
}

/// A transaction that reads at a moment before an index was filled does not read the index at that moment.
#[test]
fn nobody_reads_an_index_at_a_moment_when_it_was_not_filled() {
    for level in ["SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED"] {
        for told in [false, true] {
            let (cluster, mut east, mut west) = TestCluster::with_two_sessions(
                "CREATE TABLE t (id int PRIMARY KEY, x int); INSERT INTO t VALUES (1, 7), (2, 8)",
            );
            cluster.run(&mut west, &format!("BEGIN ISOLATION LEVEL {level}"));
            let all = "SELECT id FROM t WHERE x = 7";
            assert_eq!(cluster.run(&mut west, all), "id\n1\n");
            assert_eq!(cluster.run(&mut east, "CREATE INDEX ON t (x)"), "CREATE INDEX\n");
            if told {
                cluster.world.block_on(cluster.west.refresh_catalog()).expect("is read");
            }
            let again = cluster.run(&mut west, all);
            if told {
                assert_eq!(again, "id\n1\n", "{level}");
                assert_eq!(cluster.run(&mut west, "COMMIT"), "COMMIT\n", "{level}");
            } else {
                // Its plan is refused, and it has shown rows already.
                assert!(again.contains("[40001]"), "{level}: {again}");
            }
        }
    }
}

/// What a transaction has written before an index came is in the index, or the transaction has failed: also if a later statement of it
/// knows the index.
#[test]
fn a_row_written_before_an_index_came_is_in_it() {
    for level in ["SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED"] {
        for told in [false, true] {
            let (cluster, mut east, mut west) = TestCluster::with_two_sessions(
                "CREATE TABLE t (id int PRIMARY KEY, x int); INSERT INTO t VALUES (1, 7), (2, 8)",
            );
            cluster.run(&mut west, &format!("BEGIN ISOLATION LEVEL {level}"));
            assert_eq!(cluster.run(&mut west, "INSERT INTO t VALUES (3, 7)"), "INSERT 0 1\n");
            assert_eq!(cluster.run(&mut east, "CREATE INDEX ON t (x)"), "CREATE INDEX\n");
            if told {
                cluster.world.block_on(cluster.west.refresh_catalog()).expect("is read");
            }
            cluster.run(&mut west, "UPDATE t SET x = 9 WHERE id = 2");
            let ended = cluster.run(&mut west, "COMMIT");
            let by_index = cluster.run(&mut east, "SELECT id FROM t WHERE x = 7 ORDER BY id");
            let expected = if ended == "COMMIT\n" { "id\n1\n3\n" } else { "id\n1\n" };
            assert_eq!(by_index, expected, "{level}, told: {told}: {ended}");
        }
    }
}

/// The same of a table that the transaction first looks at when it has a snapshot already.
#[test]
fn an_index_is_complete_for_whoever_has_begun_before_it() {
    for level in ["SERIALIZABLE", "REPEATABLE READ"] {
        let (cluster, mut east, mut west) = TestCluster::with_two_sessions(
            "CREATE TABLE t (id int PRIMARY KEY, x int); CREATE TABLE other (id int PRIMARY KEY); \
             INSERT INTO t VALUES (1, 7), (2, 8)",
        );
        cluster.run(&mut west, &format!("BEGIN ISOLATION LEVEL {level}"));
        assert_eq!(cluster.run(&mut west, "SELECT count(*) FROM other"), "count\n0\n");
        assert_eq!(cluster.run(&mut east, "CREATE INDEX ON t (x)"), "CREATE INDEX\n");
        cluster.world.block_on(cluster.west.refresh_catalog()).expect("is read");
        assert_eq!(cluster.run(&mut west, "SELECT id FROM t WHERE x = 7"), "id\n1\n", "{level}");
        // What it has seen was changed: it cannot be where the index is.
        cluster.run(&mut west, "COMMIT");
        cluster.run(&mut west, &format!("BEGIN ISOLATION LEVEL {level}"));
        assert_eq!(cluster.run(&mut west, "SELECT count(*) FROM other"), "count\n0\n");
        cluster.run(&mut east, "INSERT INTO other VALUES (1)");
        assert_eq!(cluster.run(&mut east, "CREATE INDEX ON t (x, id)"), "CREATE INDEX\n");
        cluster.world.block_on(cluster.west.refresh_catalog()).expect("is read");
        let answer = cluster.run(&mut west, "SELECT x FROM t WHERE x = 7 AND id = 1");
        assert!(answer.contains("[40001]"), "{level}: {answer}");
    }
}

/// A plan made for a table of a block that was rolled back is not the plan for the next table of that name and number.
#[test]
fn a_plan_does_not_outlive_the_block_that_it_was_made_in() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    let first = "BEGIN; CREATE TABLE t (id int PRIMARY KEY, x int, y text); INSERT INTO t VALUES (1, 2, 'a')";
    assert!(!cluster.run(&mut session, first).contains("ERROR"));
    assert_eq!(cluster.run(&mut session, "PREPARE p AS SELECT * FROM t"), "PREPARE\n");
    assert_eq!(cluster.run(&mut session, "EXECUTE p"), "id|x|y\n1|2|a\n");
    cluster.run(&mut session, "ROLLBACK");
    cluster.run(&mut session, "CREATE TABLE t (id int PRIMARY KEY, y text, x int)");
    cluster.run(&mut session, "INSERT INTO t VALUES (1, 'b', 3)");
    let answer = cluster.run(&mut session, "EXECUTE p");
    // As PostgreSQL: the columns that the statement was prepared with may not change.
    assert!(answer == "id|y|x\n1|b|3\n" || answer.contains("[0A000]"), "{answer}");
}

/// Nor the one for a table of another schema.
#[test]
fn a_plan_is_made_anew_when_names_mean_something_else() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    let setup = "CREATE SCHEMA one; CREATE SCHEMA two; CREATE TABLE one.t (id int PRIMARY KEY); \
                 CREATE TABLE two.t (id int PRIMARY KEY); INSERT INTO one.t VALUES (1); INSERT INTO two.t VALUES (2)";
    assert!(!cluster.run(&mut session, setup).contains("ERROR"));
    cluster.run(&mut session, "SET search_path = one; PREPARE p AS SELECT id FROM t");
    assert_eq!(cluster.run(&mut session, "EXECUTE p"), "id\n1\n");
    cluster.run(&mut session, "SET search_path = two");
    assert_eq!(cluster.run(&mut session, "EXECUTE p"), "id\n2\n");
}

/// What a block has dropped stays when the block comes back to a savepoint before that, and so do the values of its sequences.
#[test]
fn what_was_dropped_after_a_savepoint_stays_when_that_is_rolled_back() {
    let ways = [
        "SAVEPOINT a; $; ROLLBACK TO a",
        "SAVEPOINT a; SAVEPOINT b; $; RELEASE b; ROLLBACK TO a",
        "SAVEPOINT a; SAVEPOINT b; $; ROLLBACK TO a; SAVEPOINT b",
        "SAVEPOINT a; $; SELECT 1 / 0; ROLLBACK TO a",
    ];
    let drops = ["DROP TABLE s.t", "DROP SCHEMA s CASCADE", "TRUNCATE s.t RESTART IDENTITY"];
    for (way, drop) in ways.iter().flat_map(|way| drops.map(|drop| (way, drop))) {
        let (cluster, mut session, mut other) = TestCluster::with_two_sessions(
            "CREATE SCHEMA s; CREATE TABLE s.t (id serial PRIMARY KEY, x int); \
             INSERT INTO s.t (x) VALUES (1), (2)",
        );
        let block = format!("BEGIN; {}", way.replace('$', drop));
        cluster.run(&mut session, &block);
        // What an error has kept from being run.
        if way.contains("1 / 0") {
            cluster.run(&mut session, "ROLLBACK TO a");
        }
        assert_eq!(cluster.run(&mut session, "COMMIT"), "COMMIT\n", "{block}");
        cluster.world.settle(Duration::from_secs(60));
        let rows = cluster.run(&mut other, "SELECT id, x FROM s.t ORDER BY id");
        assert_eq!(rows, "id|x\n1|1\n2|2\n", "{block}");
        let next = cluster.run(&mut session, "INSERT INTO s.t (x) VALUES (3) RETURNING id > 2");
        assert!(next.contains("\nt\n"), "{block}: {next}");
    }
}

/// A change that takes effect at once, amid a block, does not make the block forget what it has seen.
#[test]
fn a_change_of_one_table_amid_a_block_loses_no_update_of_another() {
    for level in ["SERIALIZABLE", "REPEATABLE READ"] {
        let (cluster, mut session, mut other) = TestCluster::with_two_sessions(
            "CREATE TABLE a (id int PRIMARY KEY, n int); INSERT INTO a VALUES (1, 5); \
             CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b VALUES (1)",
        );
        let block = format!(
            "BEGIN ISOLATION LEVEL {level}; SAVEPOINT s; SELECT n FROM a WHERE id = 1; \
             ALTER TABLE b ADD COLUMN x int NOT NULL DEFAULT 7"
        );
        let answer = cluster.run(&mut session, &block);
        assert!(answer.contains("ALTER TABLE"), "{level}: {answer}");
        cluster.run(&mut other, "UPDATE a SET n = 100 WHERE id = 1");
        let rest = "UPDATE a SET n = 6 WHERE id = 1; COMMIT";
        let answer = cluster.run(&mut session, rest);
        assert!(answer.contains("[40001]"), "{level}: {answer}");
        cluster.run(&mut session, "ROLLBACK");
        assert_eq!(cluster.run(&mut session, "SELECT n FROM a"), "n\n100\n", "{level}");
        // Nobody in between: it goes on, with the new column and with its savepoint.
        let block = format!(
            "BEGIN ISOLATION LEVEL {level}; SAVEPOINT s; SELECT n FROM a WHERE id = 1; \
             ALTER TABLE b ADD COLUMN y int NOT NULL DEFAULT 8; SELECT * FROM b; \
             UPDATE a SET n = 0 WHERE id = 1; ROLLBACK TO s; UPDATE a SET n = 101 WHERE id = 1; COMMIT"
        );
        let answer = cluster.run(&mut session, &block);
        assert!(answer.contains("id|x|y\n1|7|8\n") && !answer.contains("ERROR"), "{answer}");
        assert_eq!(cluster.run(&mut other, "SELECT n FROM a"), "n\n101\n", "{level}");
    }
    let (cluster, mut session, _) = TestCluster::with_two_sessions(
        "CREATE TABLE a (id int PRIMARY KEY, n int); INSERT INTO a VALUES (1, 5)",
    );
    let block = "BEGIN; SELECT n FROM a FOR UPDATE; ALTER TABLE a ADD COLUMN x int DEFAULT 7";
    let answer = cluster.run(&mut session, block);
    assert!(answer.contains("[0A000]") && answer.contains("locked rows"), "{answer}");
}
