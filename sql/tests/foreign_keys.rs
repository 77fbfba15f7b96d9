//! A foreign key holds, whatever statement changes a referenced row, and however far a cascade goes.

use crate::world::TestCluster;

/// Runs `setup`, then each statement, and holds its answer against the expected one.
#[track_caller]
fn check(setup: &str, steps: &[(&str, &str)]) {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    let made = cluster.run(&mut session, setup);
    assert!(!made.contains("ERROR"), "{made}");
    for (sql, expected) in steps {
        let answer = cluster.run(&mut session, sql);
        assert_eq!(answer, *expected, "{sql}");
    }
}

const STILL_REFERENCED: &str = "ERROR:  update or delete on table \"p\" violates foreign key constraint \"c_q_fkey\" on table \"c\" [23503]\n";
const SECOND_TIME: &str =
    "ERROR:  ON CONFLICT DO UPDATE command cannot affect row a second time [21000]\n";

#[test]
fn an_upsert_that_changes_a_referenced_key_is_refused() {
    check(
        "CREATE TABLE p (id int PRIMARY KEY, u int UNIQUE);
            CREATE TABLE c (id int PRIMARY KEY, q int REFERENCES p (u));
            INSERT INTO p VALUES (1, 2), (2, 3); INSERT INTO c VALUES (1, 2)",
        &[
            (
                "INSERT INTO p VALUES (1, 4) ON CONFLICT (id) DO UPDATE SET u = excluded.u",
                STILL_REFERENCED,
            ),
            (
                "INSERT INTO p VALUES (2, 4) ON CONFLICT (id) DO UPDATE SET u = excluded.u",
                "INSERT 0 1\n",
            ),
            (
                "INSERT INTO p VALUES (1, 2) ON CONFLICT (id) DO UPDATE SET u = excluded.u",
                "INSERT 0 1\n",
            ),
            ("SELECT * FROM p ORDER BY id", "id|u\n1|2\n2|4\n"),
        ],
    );
}

#[test]
fn an_upsert_that_changes_a_referenced_primary_key_is_refused() {
    check(
        "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (q int REFERENCES p);
            INSERT INTO p VALUES (1); INSERT INTO c VALUES (1)",
        &[
            ("INSERT INTO p VALUES (1) ON CONFLICT (id) DO UPDATE SET id = 9", STILL_REFERENCED),
            ("SELECT * FROM p", "id\n1\n"),
        ],
    );
}

#[test]
fn an_upsert_cascades_as_an_update_does() {
    check(
        "CREATE TABLE p (id int PRIMARY KEY, u int UNIQUE);
            CREATE TABLE c (id int PRIMARY KEY, q int REFERENCES p (u) ON UPDATE CASCADE);
            CREATE TABLE n (id int PRIMARY KEY, q int REFERENCES p (u) ON UPDATE SET NULL);
            INSERT INTO p VALUES (1, 2); INSERT INTO c VALUES (1, 2); INSERT INTO n VALUES (1, 2)",
        &[
            (
                "INSERT INTO p VALUES (1, 4), (2, 5) ON CONFLICT (id) DO UPDATE SET u = excluded.u",
                "INSERT 0 2\n",
            ),
            ("SELECT * FROM p ORDER BY id", "id|u\n1|4\n2|5\n"),
            ("SELECT c.q, n.q AS n FROM c, n", "q|n\n4|NULL\n"),
        ],
    );
}

#[test]
fn a_cascade_follows_a_table_that_references_itself_to_its_end() {
    check(
        "CREATE TABLE t (id int PRIMARY KEY, p int REFERENCES t ON DELETE CASCADE);
            INSERT INTO t VALUES (1, 1), (2, NULL), (3, 2), (4, 3), (5, 3), (6, 5)",
        &[
            ("DELETE FROM t WHERE id = 2", "DELETE 1\n"),
            ("SELECT * FROM t", "id|p\n1|1\n"),
            ("DELETE FROM t", "DELETE 1\n"),
        ],
    );
}

#[test]
fn a_cascade_may_be_thousands_of_steps_long() {
    check(
        "CREATE TABLE t (id int PRIMARY KEY, p int REFERENCES t ON DELETE CASCADE);
            CREATE INDEX ON t (p);
            INSERT INTO t SELECT g, nullif(g - 1, 0) FROM generate_series(1, 3000) g",
        &[("DELETE FROM t WHERE id = 2", "DELETE 1\n"), ("SELECT count(*) FROM t", "count\n1\n")],
    );
}

#[test]
fn a_cascade_follows_a_cycle_of_tables_to_its_end() {
    check(
        "CREATE TABLE a (id int PRIMARY KEY, q int);
            CREATE TABLE b (id int PRIMARY KEY, q int REFERENCES a ON DELETE CASCADE);
            ALTER TABLE a ADD FOREIGN KEY (q) REFERENCES b ON DELETE CASCADE;
            INSERT INTO a VALUES (1, NULL); INSERT INTO b VALUES (1, 1);
            INSERT INTO a VALUES (2, 1); INSERT INTO b VALUES (2, 2);
            INSERT INTO a VALUES (3, 2); INSERT INTO b VALUES (3, 3);
            INSERT INTO a VALUES (4, 3); INSERT INTO b VALUES (4, 4);
            INSERT INTO a VALUES (5, 4); INSERT INTO b VALUES (5, 5);
            INSERT INTO a VALUES (6, 5); INSERT INTO b VALUES (6, 6);
            INSERT INTO a VALUES (7, NULL)",
        &[
            ("DELETE FROM a WHERE id = 1", "DELETE 1\n"),
            ("SELECT id FROM a UNION ALL SELECT id FROM b", "id\n7\n"),
        ],
    );
}

#[test]
fn a_restriction_at_the_end_of_a_cascade_refuses_all_of_it() {
    check(
        "CREATE TABLE t (id int PRIMARY KEY, p int REFERENCES t ON DELETE CASCADE);
            CREATE TABLE c (q int REFERENCES t);
            INSERT INTO t VALUES (1, NULL), (2, 1), (3, 2); INSERT INTO c VALUES (3)",
        &[
            (
                "DELETE FROM t WHERE id = 1",
                "ERROR:  update or delete on table \"t\" violates foreign key constraint \"c_q_fkey\" on table \"c\" [23503]\n",
            ),
            ("SELECT count(*) FROM t", "count\n3\n"),
        ],
    );
}

/// As in PostgreSQL, whose checks run in the order in which they come up: what one cascade takes away in time does not stop another.
#[test]
fn a_cascade_that_takes_a_row_in_time_lets_another_one_by() {
    check(
        "CREATE TABLE p (id int PRIMARY KEY);
            CREATE TABLE b (id int PRIMARY KEY, p int REFERENCES p ON DELETE CASCADE);
            CREATE TABLE c (p int REFERENCES p ON DELETE CASCADE, b int REFERENCES b);
            INSERT INTO p VALUES (1); INSERT INTO b VALUES (1, 1); INSERT INTO c VALUES (1, 1)",
        &[("DELETE FROM p", "DELETE 1\n"), ("SELECT count(*) FROM b, c", "count\n0\n")],
    );
}

#[test]
fn a_cascade_holds_no_more_rows_than_a_statement_may() {
    check(
        "CREATE TABLE t (id int PRIMARY KEY, p int REFERENCES t ON DELETE CASCADE, filler text);
            CREATE INDEX ON t (p);
            INSERT INTO t SELECT g, nullif(g - 1, 0), repeat('x', 1000)
                FROM generate_series(1, 200) g",
        &[
            ("SET statement_memory_limit = '64kB'", "SET\n"),
            ("DELETE FROM t WHERE id = 1", "ERROR:  out of memory for this statement [53200]\n"),
            ("RESET statement_memory_limit", "RESET\n"),
            ("SELECT count(*) FROM t", "count\n200\n"),
        ],
    );
}

const UPSERTED: &str =
    "CREATE TABLE t (id int PRIMARY KEY, e text UNIQUE, v int); INSERT INTO t VALUES (1, 'a', 10)";

#[test]
fn an_upsert_whose_condition_was_false_has_not_affected_the_row() {
    check(
        UPSERTED,
        &[
            (
                "INSERT INTO t VALUES (1, 'b', 1), (1, 'c', 20), (1, 'd', 5) ON CONFLICT (id)
                    DO UPDATE SET v = excluded.v WHERE t.v < 0",
                "INSERT 0 0\n",
            ),
            (
                "INSERT INTO t VALUES (1, 'b', 1), (1, 'c', 20) ON CONFLICT (id)
                    DO UPDATE SET v = excluded.v WHERE excluded.v > t.v RETURNING v",
                "v\n20\nINSERT 0 1\n",
            ),
            (
                "INSERT INTO t VALUES (1, 'b', 21), (1, 'c', 0) ON CONFLICT (id)
                    DO UPDATE SET v = excluded.v WHERE excluded.v > t.v",
                SECOND_TIME,
            ),
        ],
    );
}

#[test]
fn a_row_that_an_upsert_affects_again_much_later_is_noticed() {
    let upsert = |numbers: &str| {
        format!(
            "INSERT INTO t SELECT {numbers}, 'n' || g, g FROM generate_series(2, 1300) g
                ON CONFLICT (id) DO UPDATE SET v = excluded.v"
        )
    };
    check(
        UPSERTED,
        &[
            // A row that the statement has made, and one that it has changed.
            (&upsert("CASE g WHEN 1300 THEN 3 ELSE g END"), SECOND_TIME),
            (&upsert("CASE WHEN g IN (2, 1300) THEN 1 ELSE g END"), SECOND_TIME),
            (&upsert("g"), "INSERT 0 1299\n"),
        ],
    );
}

#[test]
fn a_row_that_an_upsert_has_moved_is_known_by_its_new_key() {
    check(
        UPSERTED,
        &[
            (
                "INSERT INTO t VALUES (7, 'a', 1), (8, 'a', 2)
                    ON CONFLICT (e) DO UPDATE SET id = excluded.id",
                SECOND_TIME,
            ),
            (
                "INSERT INTO t VALUES (7, 'a', 1), (1, 'b', 2)
                    ON CONFLICT (e) DO UPDATE SET id = excluded.id",
                "INSERT 0 2\n",
            ),
            ("SELECT * FROM t ORDER BY id", "id|e|v\n1|b|2\n7|a|10\n"),
        ],
    );
}

/// What a cascade writes is what an UPDATE of the child could write.
#[test]
fn a_cascade_writes_what_the_column_of_the_child_can_hold() {
    check(
        "CREATE TABLE p (id bigint PRIMARY KEY, t text UNIQUE);
         CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p ON UPDATE CASCADE);
         CREATE TABLE d (id int PRIMARY KEY, t varchar(3) REFERENCES p (t) ON UPDATE CASCADE);
         INSERT INTO p VALUES (1, 'a'); INSERT INTO c VALUES (1, 1); INSERT INTO d VALUES (1, 'a')",
        &[
            ("UPDATE p SET id = 5000000000", "ERROR:  integer out of range [22003]\n"),
            (
                "UPDATE p SET t = 'abcdefgh'",
                "ERROR:  value too long for type character varying(3) [22001]\n",
            ),
            ("UPDATE p SET id = 7, t = 'xyz'", "UPDATE 1\n"),
            ("SELECT c.p, d.t FROM c, d", "p|t\n7|xyz\n"),
        ],
    );
}
