//! Available tables: a copy per region, and streams between them.

use crate::world::TestCluster;
use replication::range::RegionId;
use std::time::Duration;
use storage::Key;

const EAST: RegionId = RegionId(1);
const WEST: RegionId = RegionId(2);

fn exchange(cluster: &TestCluster, table: &str) {
    let id = cluster
        .east
        .catalog()
        .find_table("meridian", "public", table)
        .expect("there is a table")
        .id;
    cluster.world.block_on(async {
        cluster.west.refresh_catalog().await.expect("reads the catalog");
        for _ in 0..3 {
            sql::pump(&cluster.west, id, EAST, WEST).await.expect("streams");
            sql::pump(&cluster.east, id, WEST, EAST).await.expect("streams");
        }
    });
}

#[test]
fn copies_converge_and_counters_sum() {
    let cluster = TestCluster::new();
    let (mut east, mut west) = (cluster.session(&cluster.east), cluster.session(&cluster.west));
    let made = cluster.run(&mut east, "CREATE TABLE carts (id int PRIMARY KEY, qty COUNTER, note text) WITH (consistency = 'available')");
    assert_eq!(made, "CREATE TABLE\n");
    cluster.run(&mut east, "CREATE INDEX carts_note ON carts (note)");
    cluster.run(&mut east, "INSERT INTO carts VALUES (1, 5, 'first')");
    assert_eq!(cluster.run(&mut west, "SELECT * FROM carts"), "id|qty|note\n");
    exchange(&cluster, "carts");
    assert_eq!(cluster.run(&mut west, "SELECT * FROM carts"), "id|qty|note\n1|5|first\n");
    cluster.run(
        &mut east,
        "UPDATE carts SET qty = qty + 10 WHERE id = 1; UPDATE carts SET note = 'east' WHERE id = 1",
    );
    cluster.run(
        &mut west,
        "UPDATE carts SET qty = qty - 3 WHERE id = 1; UPDATE carts SET note = 'west' WHERE id = 1",
    );
    cluster.run(&mut west, "INSERT INTO carts VALUES (2, 1, 'two')");
    exchange(&cluster, "carts");
    let (a, b) = (
        cluster.run(&mut east, "SELECT * FROM carts ORDER BY id"),
        cluster.run(&mut west, "SELECT * FROM carts ORDER BY id"),
    );
    assert_eq!(a, b);
    assert!(a.contains("1|12|"), "{a}");
    let winner = if a.contains("1|12|west") { "west" } else { "east" };
    for session in [&mut east, &mut west] {
        let found = cluster.run(session, &format!("SELECT id FROM carts WHERE note = '{winner}'"));
        assert_eq!(found, "id\n1\n");
    }
    let conflicts = cluster.run(&mut east, "SHOW CONFLICTS FROM TABLE carts")
        + &cluster.run(&mut west, "SHOW CONFLICTS FROM TABLE carts");
    assert!(conflicts.contains("last writer wins"), "{conflicts}");
    cluster.run(&mut east, "DELETE FROM carts WHERE id = 2");
    exchange(&cluster, "carts");
    assert_eq!(cluster.run(&mut west, "SELECT count(*) FROM carts WHERE id = 2"), "count\n0\n");
    assert_eq!(cluster.run(&mut west, "INSERT INTO carts VALUES (2, 7, 'again')"), "INSERT 0 1\n");
    exchange(&cluster, "carts");
    assert_eq!(
        cluster.run(&mut east, "SELECT qty, note FROM carts WHERE id = 2"),
        "qty|note\n7|again\n"
    );
}

/// A stream stops before what is not decided. What a dead gateway has left is decided as soon as it is sure that it is dead.
#[test]
fn an_intent_that_nobody_owns_does_not_stop_a_stream() {
    let cluster = TestCluster::new();
    let (mut east, mut west) = (cluster.session(&cluster.east), cluster.session(&cluster.west));
    let made = cluster
        .run(&mut east, "CREATE TABLE carts (id int PRIMARY KEY) WITH (consistency = 'available')");
    assert_eq!(made, "CREATE TABLE\n");
    let table = cluster.east.catalog().find_table("meridian", "public", "carts").expect("there").id;
    cluster.leave_intent(&Key::copy(EAST.0, table));
    cluster.run(&mut east, "INSERT INTO carts VALUES (1)");
    exchange(&cluster, "carts");
    assert_eq!(cluster.run(&mut west, "SELECT * FROM carts"), "id\n", "it may be alive");
    let time = cluster.world.runtime().time;
    cluster.world.block_on(time.sleep_until(time.monotonic().plus(Duration::from_secs(10))));
    exchange(&cluster, "carts");
    assert_eq!(cluster.run(&mut west, "SELECT * FROM carts"), "id\n1\n");
}

/// Several transactions of the origin become one here: what a row goes through on the way ends where it ended there, in its indexes too.
#[test]
fn hundreds_of_transactions_on_few_rows_arrive_at_once_and_whole() {
    let cluster = TestCluster::new();
    let (mut east, mut west) = (cluster.session(&cluster.east), cluster.session(&cluster.west));
    cluster.run(&mut east, "CREATE TABLE few (id int PRIMARY KEY, qty COUNTER, note text) WITH (consistency = 'available')");
    cluster.run(&mut east, "CREATE INDEX few_note ON few (note)");
    exchange(&cluster, "few");
    for round in 0..300 {
        let id = round % 3;
        let change = match round % 7 {
            5 => format!("DELETE FROM few WHERE id = {id}"),
            _ => format!(
                "INSERT INTO few VALUES ({id}, 1, 'n{round}') ON CONFLICT (id) DO UPDATE SET qty = few.qty + 1, note = 'n{round}'"
            ),
        };
        // The two regions change the same rows by turns.
        let session = if round % 10 < 8 { &mut east } else { &mut west };
        cluster.run(session, &change);
    }
    exchange(&cluster, "few");
    let mut all = |query: &str| {
        let (here, there) = (cluster.run(&mut east, query), cluster.run(&mut west, query));
        assert_eq!(here, there, "{query}");
        here
    };
    let rows = all("SELECT id, qty, note FROM few ORDER BY id");
    assert_eq!(rows.lines().count(), 4, "{rows}");
    // Through the index: no entry of a note that a row had on its way, none missing.
    assert_eq!(all("SELECT id, qty, note FROM few WHERE note >= 'n' ORDER BY id"), rows);
}

#[test]
fn staleness_is_told_per_table_and_origin() {
    let cluster = TestCluster::new();
    let (mut east, mut west) = (cluster.session(&cluster.east), cluster.session(&cluster.west));
    cluster.run(&mut east, "CREATE TABLE strong (id int PRIMARY KEY)");
    cluster
        .run(&mut east, "CREATE TABLE carts (id int PRIMARY KEY) WITH (consistency = 'available')");
    let header = "table|origin|as_of|staleness_ms\n";
    let before = cluster.run(&mut east, "SHOW STALENESS");
    assert_eq!(before, format!("{header}carts|west|NULL|NULL\n"), "nothing has arrived yet");
    exchange(&cluster, "carts");
    let after = cluster.run(&mut west, "SHOW STALENESS");
    let row = after.strip_prefix(header).expect("the same columns");
    let fields: Vec<&str> = row.trim_end().split('|').collect();
    assert_eq!(fields[..2], ["carts", "east"]);
    let staleness_ms: f64 = fields[3].parse().expect("a number");
    assert!((0.0..1000.0).contains(&staleness_ms), "{staleness_ms}");
}

#[test]
fn what_an_available_table_cannot_hold_is_refused() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    for columns in [
        "a int PRIMARY KEY, b int UNIQUE",
        "a int",
        "a serial PRIMARY KEY",
        "a int PRIMARY KEY, b int REFERENCES x",
    ] {
        let out = cluster.run(
            &mut session,
            &format!("CREATE TABLE t ({columns}) WITH (consistency = 'available')"),
        );
        assert!(out.contains("[0A000]") || out.contains("[42P01]"), "{columns}: {out}");
    }
    assert!(
        cluster
            .run(&mut session, "CREATE TABLE t (a int PRIMARY KEY, n COUNTER)")
            .contains("[0A000]")
    );
}

/// A column that came with a default: a NULL written to it is a NULL, in the table, in its indexes, in the other region.
#[test]
fn a_null_is_not_the_default_of_a_column_that_came_later() {
    let cluster = TestCluster::new();
    let (mut east, mut west) = (cluster.session(&cluster.east), cluster.session(&cluster.west));
    cluster.run(
        &mut east,
        "CREATE TABLE av (id int PRIMARY KEY, v int, n COUNTER) WITH (consistency = 'available')",
    );
    cluster.run(&mut east, "INSERT INTO av VALUES (1, 1, 0), (2, 2, 0)");
    exchange(&cluster, "av");
    cluster.run(&mut east, "ALTER TABLE av ADD COLUMN c int DEFAULT 5");
    cluster.run(&mut east, "CREATE INDEX avc ON av (c)");
    cluster.run(&mut east, "UPDATE av SET c = NULL WHERE id = 1");
    cluster.run(&mut east, "INSERT INTO av VALUES (3, 3, 0, NULL)");
    let rows = "id|c\n1|NULL\n2|5\n3|NULL\n";
    for round in 0..2 {
        for session in [&mut east, &mut west] {
            assert_eq!(cluster.run(session, "SELECT id, c FROM av ORDER BY id"), rows);
            assert_eq!(cluster.run(session, "SELECT id FROM av WHERE c = 5"), "id\n2\n");
            let null = cluster.run(session, "SELECT id FROM av WHERE c IS NULL ORDER BY id");
            assert_eq!(null, "id\n1\n3\n");
            if round == 0 {
                exchange(&cluster, "av");
            }
        }
    }
    // The later write wins, be it of a NULL or over one.
    cluster.run(&mut east, "UPDATE av SET c = 6 WHERE id IN (1, 2)");
    cluster.run(&mut west, "UPDATE av SET c = 7 WHERE id IN (1, 2)");
    cluster.run(&mut west, "UPDATE av SET c = NULL WHERE id = 2");
    cluster.run(&mut west, "UPDATE av SET v = 4 WHERE id = 3");
    exchange(&cluster, "av");
    for session in [&mut east, &mut west] {
        let rows = cluster.run(session, "SELECT id, v, c FROM av ORDER BY id");
        assert_eq!(rows, "id|v|c\n1|1|7\n2|2|NULL\n3|4|NULL\n");
        assert_eq!(cluster.run(session, "SELECT id FROM av WHERE c = 6"), "id\n");
    }
}

/// To count is no write of the other columns, not even of one that came after the row.
#[test]
fn a_counter_alone_wins_over_nobodys_columns_after_a_column_was_added() {
    let cluster = TestCluster::new();
    let (mut east, mut west) = (cluster.session(&cluster.east), cluster.session(&cluster.west));
    cluster.run(
        &mut east,
        "CREATE TABLE av (id int PRIMARY KEY, v int, n COUNTER) WITH (consistency = 'available')",
    );
    cluster.run(&mut east, "INSERT INTO av VALUES (1, 1, 0)");
    cluster.run(&mut east, "ALTER TABLE av ADD COLUMN c int DEFAULT 5");
    exchange(&cluster, "av");
    cluster.run(&mut west, "UPDATE av SET v = 2, c = 8 WHERE id = 1");
    cluster.run(&mut east, "UPDATE av SET n = n + 3 WHERE id = 1");
    exchange(&cluster, "av");
    for session in [&mut east, &mut west] {
        assert_eq!(cluster.run(session, "SELECT * FROM av"), "id|v|n|c\n1|2|3|8\n");
    }
}
