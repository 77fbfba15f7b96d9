//! The past: AS OF SYSTEM TIME in all its forms, how long history is kept, and what is told when it is gone.

use crate::world::{TestCluster, run};
use coverage::Mark;
use replication::range::RegionId;
use sql::{Collector, PROTECTED_MAX, PROTECTION_KEPT, Session};
use std::time::Duration;
use storage::{Key, Span};
use txn::api::{Batch, Kv, Request, Wait};

const EAST: RegionId = RegionId(1);
const WEST: RegionId = RegionId(2);

const HOUR: Duration = Duration::from_secs(3600);

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(240);

/// One round on every node that is up.
fn collect(cluster: &TestCluster, collectors: &mut [Collector]) {
    for collector in collectors {
        let done = cluster.world.block_on(collector.round()).expect("the system ranges are there");
        assert_eq!(done.failed, 0);
    }
}

fn collectors(cluster: &TestCluster) -> [Collector; 2] {
    [Collector::new(cluster.east.clone()), Collector::new(cluster.west.clone())]
}

/// Time passes, with a round now and then.
fn pass_collecting(cluster: &TestCluster, collectors: &mut [Collector], duration: Duration) {
    let time = cluster.world.runtime().time;
    let end = time.monotonic().plus(duration);
    while time.monotonic() < end {
        pass(cluster, ROUND.min(end.since(time.monotonic())));
        collect(cluster, collectors);
    }
}

fn pass(cluster: &TestCluster, duration: Duration) {
    let time = cluster.world.runtime().time;
    cluster.world.block_on(time.sleep_until(time.monotonic().plus(duration)));
}

/// The clock, as text that AS OF SYSTEM TIME takes.
fn reading(cluster: &TestCluster) -> String {
    cluster.world.runtime().hlc.now().timestamp().to_string()
}

async fn error(session: &mut Session, text: &str) -> sql::SqlError {
    let mut script = session.simple(text).await;
    let mut last = None;
    while let Some(result) = script.next(session).await {
        last = result.err();
    }
    last.unwrap_or_else(|| panic!("{text} must fail"))
}

fn code(cluster: &TestCluster, session: &mut Session, text: &str) -> String {
    cluster.world.block_on(error(session, text)).code.to_string()
}

#[test]
fn the_past_is_read_by_any_name_of_its_moment() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    cluster.run(&mut session, "CREATE TABLE t (a int PRIMARY KEY, b int)");
    cluster.run(&mut session, "INSERT INTO t VALUES (1, 10)");
    let then = reading(&cluster);
    let clock = cluster.run(&mut session, "SELECT now()");
    let clock = clock.lines().nth(1).expect("a row").to_string();
    pass(&cluster, Duration::from_secs(10));
    cluster.run(&mut session, "UPDATE t SET b = 20; INSERT INTO t VALUES (2, 20)");
    for moment in [then.as_str(), clock.as_str(), "-9s", "-00:00:09"] {
        let sql = format!("SELECT a, b FROM t AS OF SYSTEM TIME '{moment}' WHERE a < 5 ORDER BY a");
        assert_eq!(cluster.run(&mut session, &sql), "a|b\n1|10\n", "{moment}");
    }
    let (seconds, rest) = then.split_once('.').expect("seconds and micros");
    let (micros, logical) = rest.split_once(',').expect("micros and logical");
    let decimal = format!("{seconds}{micros}000.{logical:0>10}");
    let sql = format!("SELECT count(*) FROM t AS OF SYSTEM TIME {decimal}");
    assert_eq!(cluster.run(&mut session, &sql), "count\n1\n");
    // The present goes on as ever.
    assert_eq!(cluster.run(&mut session, "SELECT count(*) FROM t"), "count\n2\n");
    let sql = format!("EXPLAIN SELECT * FROM t AS OF SYSTEM TIME '{then}'");
    assert!(cluster.run(&mut session, &sql).contains("t"));
}

#[test]
fn a_block_is_in_the_past_as_a_whole() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.west);
    cluster.run(&mut session, "CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let then = reading(&cluster);
    cluster.run(&mut session, "INSERT INTO t VALUES (2)");
    for begin in [
        format!("BEGIN AS OF SYSTEM TIME '{then}'"),
        format!("BEGIN; SET TRANSACTION AS OF SYSTEM TIME '{then}'"),
        format!("BEGIN AS OF SYSTEM TIME '{then}'; SET TRANSACTION READ ONLY"),
    ] {
        cluster.run(&mut session, &begin);
        for _ in 0..2 {
            assert_eq!(
                cluster.run(&mut session, "SELECT count(*) FROM t"),
                "count\n1\n",
                "{begin}"
            );
        }
        let same = format!("SELECT count(*) FROM t AS OF SYSTEM TIME '{then}'");
        assert_eq!(cluster.run(&mut session, &same), "count\n1\n");
        assert_eq!(code(&cluster, &mut session, "INSERT INTO t VALUES (3)"), "25006");
        cluster.run(&mut session, "ROLLBACK");
    }
    let begun = format!("BEGIN AS OF SYSTEM TIME '{then}'");
    for (statement, expected) in [
        ("ALTER TABLE t ADD COLUMN b int", "25006"),
        ("SELECT * FROM t FOR UPDATE", "25006"),
        ("SELECT 1 FROM t AS OF SYSTEM TIME '-1s'", "25001"),
        ("SELECT 1; SET TRANSACTION AS OF SYSTEM TIME '-1s'", "25001"),
    ] {
        cluster.run(&mut session, &begun);
        assert_eq!(code(&cluster, &mut session, statement), expected, "{statement}");
        cluster.run(&mut session, "ROLLBACK");
    }
    cluster.run(&mut session, "BEGIN; SELECT count(*) FROM t");
    let late = format!("SELECT 1 FROM t AS OF SYSTEM TIME '{then}'");
    assert_eq!(code(&cluster, &mut session, &late), "25001");
    cluster.run(&mut session, "ROLLBACK");
    for wrong in ["+10s", "10s ago", "tomorrow", "yesterdays", "-99999 years", "2999-01-01"] {
        let sql = format!("SELECT 1 FROM t AS OF SYSTEM TIME '{wrong}'");
        assert_eq!(code(&cluster, &mut session, &sql), "22023", "{wrong}");
    }
}

#[test]
fn the_catalog_of_the_past_is_the_past_s() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    let before = reading(&cluster);
    cluster.run(
        &mut session,
        "CREATE TABLE t (a int PRIMARY KEY, b int); INSERT INTO t VALUES (1, 10)",
    );
    let then = reading(&cluster);
    cluster.run(&mut session, "ALTER TABLE t ADD COLUMN c int DEFAULT 5");
    cluster.run(&mut session, "ALTER TABLE t DROP COLUMN b");
    let sql = format!("SELECT * FROM t AS OF SYSTEM TIME '{then}'");
    assert_eq!(cluster.run(&mut session, &sql), "a|b\n1|10\n");
    assert_eq!(cluster.run(&mut session, "SELECT * FROM t"), "a|c\n1|5\n");
    cluster.run(&mut session, "DROP TABLE t");
    assert_eq!(cluster.run(&mut session, &sql), "a|b\n1|10\n", "also of a table that is gone");
    let sql = format!("SELECT * FROM t AS OF SYSTEM TIME '{before}'");
    assert_eq!(code(&cluster, &mut session, &sql), "42P01");
}

#[test]
fn a_parameter_says_the_moment() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    cluster.run(&mut session, "CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let then = reading(&cluster);
    cluster.run(&mut session, "INSERT INTO t VALUES (2)");
    cluster
        .run(&mut session, "PREPARE p AS SELECT count(*) FROM t AS OF SYSTEM TIME $2 WHERE a > $1");
    let past = format!("EXECUTE p (0, '{then}')");
    assert_eq!(cluster.run(&mut session, &past), "count\n1\n");
    assert_eq!(cluster.run(&mut session, &past), "count\n1\n");
    assert_eq!(code(&cluster, &mut session, "EXECUTE p (0, NULL)"), "22023");
    assert_eq!(code(&cluster, &mut session, "EXECUTE p (0, 'when')"), "22023");
    cluster.world.block_on(async {
        session.parse("q", "SELECT a FROM t AS OF SYSTEM TIME $1", &[]).await.expect("parses");
        let (types, _) = session.describe_statement("q").expect("is there");
        assert_eq!(types, [25]);
        let moment = bytes::Bytes::from(then.clone());
        session.bind("", "q", vec![Some(moment)], &[0], &[]).await.expect("binds");
        let outcome = session.execute("", 0, sql::Next::Sync).await.expect("runs");
        let sql::Outcome::Rows { rows, .. } = outcome else { panic!("a query gives rows") };
        assert_eq!(rows.len(), 1);
        session.sync().await.expect("it has read only");
    });
}

#[test]
fn history_is_kept_for_its_time_and_refused_afterwards() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    cluster.run(&mut session, "CREATE TABLE short (a int PRIMARY KEY) WITH (gc_ttl = '1h')");
    cluster.run(&mut session, "CREATE TABLE usual (a int PRIMARY KEY)");
    cluster.run(&mut session, "INSERT INTO short VALUES (0); INSERT INTO usual VALUES (0)");
    let then = reading(&cluster);
    for n in 1..50 {
        cluster.run(&mut session, &format!("UPDATE short SET a = {n}; UPDATE usual SET a = {n}"));
    }
    pass(&cluster, Duration::from_secs(1));
    let full = cluster.kv.version_count();
    let mut collectors = collectors(&cluster);
    let of = |table: &str| format!("SELECT a FROM {table} AS OF SYSTEM TIME '{then}'");
    pass(&cluster, HOUR - Duration::from_secs(60));
    collect(&cluster, &mut collectors);
    assert_eq!(cluster.kv.version_count(), full, "everything is younger");
    assert_eq!(cluster.run(&mut session, &of("short")), "a\n0\n");
    pass(&cluster, Duration::from_secs(480));
    collect(&cluster, &mut collectors);
    assert!(cluster.kv.version_count() < full, "old versions of `short` are gone");
    let gone = cluster.world.block_on(error(&mut session, &of("short")));
    assert_eq!(gone.code.to_string(), "72000");
    assert_eq!(gone.message, "snapshot too old");
    assert!(
        gone.detail.as_ref().is_some_and(|detail| detail.contains("from 2023-11-14")),
        "{gone:?}"
    );
    assert_eq!(cluster.run(&mut session, &of("usual")), "a\n0\n");
    assert_eq!(cluster.run(&mut session, "SELECT a FROM short"), "a\n49\n");
    // Twice as long from now on; what is gone stays gone.
    cluster.run(&mut session, "ALTER TABLE short SET (gc_ttl = '8h')");
    let later = reading(&cluster);
    cluster.run(&mut session, "UPDATE short SET a = 100; UPDATE usual SET a = 100");
    pass_collecting(&cluster, &mut collectors, 5 * HOUR);
    assert_eq!(code(&cluster, &mut session, &of("short")), "72000");
    let kept = format!("SELECT a FROM short AS OF SYSTEM TIME '{later}'");
    assert_eq!(cluster.run(&mut session, &kept), "a\n49\n");
    let usual = format!("SELECT a FROM usual AS OF SYSTEM TIME '{later}'");
    assert_eq!(code(&cluster, &mut session, &usual), "72000");
}

#[test]
fn an_open_transaction_keeps_what_it_reads_but_not_for_ever() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    let mut open = cluster.session(&cluster.west);
    cluster.run(&mut session, "CREATE TABLE t (a int PRIMARY KEY, n int) WITH (gc_ttl = '1h')");
    cluster.run(&mut session, "INSERT INTO t VALUES (1, 0), (2, 0)");
    cluster.run(&mut open, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT n FROM t WHERE a = 1");
    let mut collectors = collectors(&cluster);
    for n in 1..10 {
        cluster.run(&mut session, &format!("UPDATE t SET n = {n}"));
    }
    pass_collecting(&cluster, &mut collectors, 4 * HOUR);
    assert_eq!(cluster.run(&mut open, "SELECT n FROM t WHERE a = 2"), "n\n0\n");
    let mut hours = 4;
    let refused = loop {
        let answer = cluster.run(&mut open, "SELECT n FROM t WHERE a = 2");
        if answer != "n\n0\n" {
            break answer;
        }
        pass_collecting(&cluster, &mut collectors, HOUR);
        hours += 1;
        assert!(hours <= 3 + PROTECTED_MAX.as_secs() / 3600, "it is kept for ever");
    };
    assert!(refused.contains("[72000]"), "complete or refused: {refused}");
    assert!(hours > 20, "{hours}");
    // Once it has ended, nobody asks for more than the table's own hour.
    cluster.run(&mut open, "ROLLBACK");
    pass_collecting(&cluster, &mut collectors, 2 * ROUND);
    assert_eq!(code(&cluster, &mut open, "SELECT n FROM t AS OF SYSTEM TIME '-3h'"), "72000");
    let kept = cluster.run(&mut open, "SELECT n FROM t AS OF SYSTEM TIME '-45min' WHERE a = 2");
    assert_eq!(kept, "n\n9\n");
}

#[test]
fn a_gateway_that_is_gone_protects_nothing_for_long() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    let mut open = cluster.session(&cluster.west);
    cluster.run(&mut session, "CREATE TABLE t (a int PRIMARY KEY) WITH (gc_ttl = '1h')");
    cluster.run(&mut session, "INSERT INTO t VALUES (1)");
    cluster.run(&mut open, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM t");
    let mut collectors = collectors(&cluster);
    pass_collecting(&cluster, &mut collectors, HOUR - PROTECTION_KEPT / 2);
    cluster.run(&mut session, "UPDATE t SET a = 2");
    // The west says nothing any more, and the ranges are led from the east.
    pass(&cluster, 2 * HOUR);
    collect(&cluster, &mut collectors[..1]);
    let answer = cluster.world.block_on(run(&mut open, "SELECT * FROM t"));
    assert!(answer == "a\n1\n" || answer.contains("[72000]"), "complete or refused: {answer}");
}

#[test]
fn a_ttl_is_a_duration_within_reason() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    cluster.run(&mut session, "CREATE TABLE t (a int PRIMARY KEY)");
    for wrong in ["0", "-1h", "soon", "4000d"] {
        let sql = format!("ALTER TABLE t SET (gc_ttl = '{wrong}')");
        assert_eq!(code(&cluster, &mut session, &sql), "22023", "{wrong}");
    }
    for right in ["'90 min'", "86400", "'default'", "'7 days'"] {
        let answer = cluster.run(&mut session, &format!("ALTER TABLE t SET (gc_ttl = {right})"));
        assert_eq!(answer, "ALTER TABLE\n", "{right}");
    }
}

#[test]
fn a_table_that_is_younger_than_what_was_collected_around_it_reaches_every_region() {
    let cluster = TestCluster::new();
    let (mut east, mut west) = (cluster.session(&cluster.east), cluster.session(&cluster.west));
    let make = "CREATE TABLE late (id int PRIMARY KEY, n COUNTER, t text) WITH (consistency = 'available')";
    cluster.run(&mut east, make);
    cluster.run(&mut east, "CREATE INDEX late_t ON late (t)");
    let table = cluster.east.catalog().find_table("meridian", "public", "late").cloned();
    let table = table.expect("it was just made");
    cluster
        .run(&mut east, "INSERT INTO late SELECT n, n, 'row ' || n FROM generate_series(1, 100) n");
    cluster.run(&mut east, "UPDATE late SET n = n + 1 WHERE id = 7; DELETE FROM late WHERE id = 8");
    pass(&cluster, Duration::from_secs(1));
    // What was split off a range inherits from when on that has its history.
    let now = cluster.world.runtime().hlc.now().timestamp();
    for region in [EAST, WEST] {
        let span = Span::prefix(&Key::new(table.index_prefix(region.0, table.primary().id)));
        let gc = Request::Gc { span, threshold: now };
        let batch = Batch::bare(now.next(), Wait::Error, vec![gc]);
        cluster.world.block_on(cluster.kv.send(batch)).expect("it lies in the past");
    }
    cluster.run(&mut west, "INSERT INTO late VALUES (1000, 5, 'west')");
    let before = coverage::count(Mark::StreamTookWhole);
    cluster.world.block_on(async {
        cluster.west.refresh_catalog().await.expect("reads the catalog");
        for _ in 0..2 {
            sql::pump(&cluster.west, table.id, EAST, WEST).await.expect("streams");
            sql::pump(&cluster.east, table.id, WEST, EAST).await.expect("streams");
        }
    });
    assert_eq!(coverage::count(Mark::StreamTookWhole), before + 2, "each once");
    for session in [&mut east, &mut west] {
        let sums = cluster.run(session, "SELECT count(*), sum(n), sum(id) FROM late");
        assert_eq!(sums, "count|sum|sum\n100|5048|6042\n");
        let found = cluster.run(session, "SELECT id FROM late WHERE t = 'row 42'");
        assert_eq!(found, "id\n42\n");
    }
    // From here on by its changes.
    cluster.run(&mut east, "UPDATE late SET n = n + 10 WHERE id = 1");
    cluster.world.block_on(async {
        sql::pump(&cluster.west, table.id, EAST, WEST).await.expect("streams");
    });
    assert_eq!(cluster.run(&mut west, "SELECT n FROM late WHERE id = 1"), "n\n11\n");
    assert_eq!(coverage::count(Mark::StreamTookWhole), before + 2);
}
