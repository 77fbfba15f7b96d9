//! Limits are settings: shown, set, and told of when they are reached, with how much it would have been.

use crate::world::{TestCluster, run};
use futures::future::join;
use sql::Session;
use std::time::Duration;

async fn error(session: &mut Session, text: &str) -> sql::SqlError {
    let mut script = session.simple(text).await;
    let mut last = None;
    while let Some(result) = script.next(session).await {
        last = result.err();
    }
    last.unwrap_or_else(|| panic!("{text} must fail"))
}

#[test]
fn limits_are_shown_and_checked() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    for (name, value) in [
        ("statement_memory_limit", "256MB"),
        ("transaction_write_limit", "4GB"),
        ("transaction_lock_limit", "1000000"),
        ("transaction_savepoint_limit", "10000"),
        ("transaction_buffer_limit", "32MB"),
        ("refresh_span_limit", "4MB"),
        ("lock_span_limit", "4MB"),
        ("held_span_limit", "32MB"),
        ("default_gc_ttl", "14400s"),
        ("transaction_timeout", "0"),
    ] {
        let shown = cluster.run(&mut session, &format!("SHOW {name}"));
        assert_eq!(shown, format!("{name}\n{value}\n"));
    }
    for (set, shown) in [
        ("statement_memory_limit = '65536kB'", "64MB"),
        ("statement_memory_limit = 1536", "1536B"),
        ("transaction_write_limit = '1TB'", "1TB"),
    ] {
        let name = set.split(' ').next().expect("a name");
        let answer = cluster.run(&mut session, &format!("SET {set}; SHOW {name}"));
        assert_eq!(answer, format!("SET\n{name}\n{shown}\n"));
    }
    for set in [
        "statement_memory_limit = '257MB'",
        "statement_memory_limit = 'much'",
        "transaction_write_limit = 0",
        "transaction_lock_limit = 0",
        "transaction_savepoint_limit = -1",
        "refresh_span_limit = '1MB'",
    ] {
        let code = cluster.world.block_on(error(&mut session, &format!("SET {set}"))).code;
        assert!(["22023", "55P02"].contains(&code.to_string().as_str()), "{set}: {code}");
    }
}

#[test]
fn over_a_limit_is_an_error_that_says_which_and_how_much() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    cluster.run(&mut session, "CREATE TABLE t (a int PRIMARY KEY, b text)");
    cluster.run(&mut session, "INSERT INTO t SELECT n, 'x' FROM generate_series(1, 100) n");

    cluster.run(&mut session, "SET transaction_lock_limit = 10; BEGIN");
    cluster.run(&mut session, "SELECT * FROM t WHERE a <= 10 FOR UPDATE");
    let over =
        cluster.world.block_on(error(&mut session, "SELECT * FROM t WHERE a = 11 FOR UPDATE"));
    assert_eq!(over.code.to_string(), "54000");
    assert_eq!(over.message, "rows locked by a transaction: 11, over the limit of 10");
    assert_eq!(over.hint.as_deref(), Some("The limit is the setting transaction_lock_limit."));
    cluster.run(&mut session, "ROLLBACK; RESET transaction_lock_limit");

    cluster.run(&mut session, "SET transaction_write_limit = '1kB'; BEGIN");
    let update = "UPDATE t SET b = repeat('x', 500) WHERE a = 1";
    assert_eq!(cluster.run(&mut session, update), "UPDATE 1\n");
    let over = cluster.world.block_on(error(&mut session, update));
    assert_eq!(over.code.to_string(), "54000");
    assert!(over.message.starts_with("bytes written by a transaction: 10"), "{}", over.message);
    cluster.run(&mut session, "ROLLBACK; RESET transaction_write_limit");

    cluster.run(&mut session, "SET transaction_savepoint_limit = 3; BEGIN");
    assert_eq!(
        cluster.run(&mut session, "SAVEPOINT a; SAVEPOINT b; SAVEPOINT c"),
        "SAVEPOINT\nSAVEPOINT\nSAVEPOINT\n"
    );
    let over = cluster.world.block_on(error(&mut session, "SAVEPOINT d"));
    assert_eq!(over.message, "savepoints of a transaction: 4, over the limit of 3");
    cluster.run(&mut session, "ROLLBACK; RESET transaction_savepoint_limit");

    cluster.run(&mut session, "SET statement_memory_limit = '64kB'");
    let query = "SELECT repeat('x', 1000) FROM generate_series(1, 100)";
    let over = cluster.world.block_on(error(&mut session, query));
    assert_eq!(over.code.to_string(), "53200");
    let detail = over.detail.expect("a detail");
    assert!(detail.ends_with("statement_memory_limit allows 65536."), "{detail}");
    let fits = "SELECT count(repeat('x', 1000)) FROM generate_series(1, 10)";
    assert_eq!(cluster.run(&mut session, fits), "count\n10\n");
}

#[test]
fn who_makes_many_rows_of_few_is_stopped_as_it_makes_them() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    cluster.run(&mut session, "SET statement_memory_limit = '4MB'");
    let few = "(SELECT n FROM generate_series(1, 3000) n)";
    // Nine million pairs each: more than the limit, and more than this test has time for.
    for query in [
        format!("SELECT * FROM {few} a CROSS JOIN {few} b"),
        format!("SELECT * FROM {few} a LEFT JOIN {few} b ON a.n >= 0 OR b.n = 7"),
        format!("SELECT * FROM {few} a JOIN {few} b ON a.n / 10000 = b.n / 10000"),
        format!("SELECT * FROM {few} a, LATERAL (SELECT a.n + m FROM {few} b(m)) c"),
        format!("SELECT generate_series(1, 3000) FROM {few} a"),
    ] {
        let over = cluster.world.block_on(error(&mut session, &query));
        assert_eq!(over.code.to_string(), "53200", "{query}");
        let detail = over.detail.expect("a detail");
        let held = detail.split(' ').nth(3).and_then(|bytes| bytes.parse::<u64>().ok());
        assert!(held.is_some_and(|bytes| bytes < 5 << 20), "{query}: {detail}");
    }
    // A subquery's rows are let go of: each of these holds a fifth of a megabyte.
    let each = "SELECT sum((SELECT count(*) FROM generate_series(1, 3000) m WHERE m > n)) FROM generate_series(1, 200) n";
    assert_eq!(cluster.run(&mut session, each), "sum\n579900\n");
    let fits = format!("SELECT count(*) FROM {few} a JOIN {few} b ON a.n = b.n");
    assert_eq!(cluster.run(&mut session, &fits), "count\n3000\n");
}

#[test]
fn a_session_that_is_idle_for_too_long_is_ended() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    let time = cluster.world.runtime().time;
    let idle = |session: &Session| {
        let begun = time.monotonic();
        let error = cluster.world.block_on(session.too_idle());
        (error.code.to_string(), time.monotonic().since(begun))
    };
    cluster.run(&mut session, "SET idle_session_timeout = '7s'");
    assert_eq!(idle(&session), ("57P05".into(), Duration::from_secs(7)));
    cluster.run(&mut session, "SET idle_in_transaction_session_timeout = '3s'; BEGIN");
    assert_eq!(idle(&session), ("25P03".into(), Duration::from_secs(3)));
    cluster.run(&mut session, "ROLLBACK; SET transaction_timeout = '2s'; BEGIN");
    let (code, waited) = idle(&session);
    assert_eq!(code, "25P04");
    assert!(waited <= Duration::from_secs(2));
}

#[test]
fn a_transaction_that_takes_too_long_is_told_so() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    let time = cluster.world.runtime().time;
    cluster.run(&mut session, "SET transaction_timeout = '5s'; SET statement_timeout = '4s'");
    let begun = time.monotonic();
    cluster.run(&mut session, "BEGIN; SELECT pg_sleep(3)");
    cluster.run(&mut session, "SELECT pg_sleep(1)");
    let late = cluster.world.block_on(error(&mut session, "SELECT pg_sleep(3.5)"));
    assert_eq!(late.code.to_string(), "25P04");
    assert!(time.monotonic().since(begun) >= Duration::from_secs(5));
    cluster.run(&mut session, "ROLLBACK");
    let late = cluster.world.block_on(error(&mut session, "SELECT pg_sleep(4.5)"));
    assert_eq!(late.code.to_string(), "57014");
}

/// The time of a statement is its own, also of TRUNCATE, COPY and COMMIT: what the one before had left of its time is over long ago.
#[test]
fn a_statement_after_a_rest_has_its_own_time() {
    let (cluster, mut session, mut other) = TestCluster::with_two_sessions(
        "CREATE TABLE t (id int PRIMARY KEY, x int); INSERT INTO t VALUES (7, 1)",
    );
    let time = cluster.world.runtime().time;
    let rest = |ms| time.sleep_until(time.monotonic().plus(Duration::from_millis(ms)));
    for (held_ms, answer) in [(5_000, "57014"), (500, "TRUNCATE TABLE\nCOMMIT")] {
        cluster.run(&mut session, "SET statement_timeout = '1s'; BEGIN; SELECT 1");
        cluster.run(&mut other, "BEGIN; SELECT * FROM t WHERE id = 7 FOR UPDATE");
        cluster.world.block_on(rest(2_000));
        let (truncated, _) =
            cluster.world.block_on(join(run(&mut session, "TRUNCATE t; COMMIT"), async {
                rest(held_ms).await;
                run(&mut other, "ROLLBACK").await
            }));
        assert!(truncated.contains(answer), "held for {held_ms} ms: {truncated}");
        cluster.run(&mut session, "ROLLBACK");
    }
}
