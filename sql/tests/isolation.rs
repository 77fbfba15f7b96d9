//! What each isolation level forbids, by interleavings that would show it (`tests/isolation/anomalies.txt`). Sessions run on virtual time: a
//! statement that has not answered when nobody can go on any more is waiting for somebody.
//!
//! `UPDATE_GOLDENFILES=1` writes the table in docs/isolation.md.

use futures::future::FutureExt;
use parking_lot::Mutex;
use sql::Session;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::world::{TestCluster, run};

const LEVELS: [&str; 4] = ["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];
/// A statement that has not answered by then waits for another session. Shorter than any expiry.
const SOON: Duration = Duration::from_millis(200);
/// It must have answered by then after the last of the others has ended.
const AT_LAST: Duration = Duration::from_secs(60);

/// An anomaly and how to provoke it.
struct Anomaly<'t> {
    name: &'t str,
    what: &'t str,
    /// Session and statement, in the order in which they are sent.
    steps: Vec<(&'t str, &'t str)>,
    /// It has happened if all conditions of one line hold: what, and its answer.
    happens: Vec<Vec<(&'t str, &'t str)>>,
}

fn parse(text: &str) -> Vec<Anomaly<'_>> {
    let mut all: Vec<Anomaly<'_>> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(head) = line.strip_prefix("== ") {
            let (name, what) = head.split_once(": ").expect("a name and what it is");
            all.push(Anomaly { name, what, steps: Vec::new(), happens: Vec::new() });
            continue;
        }
        let anomaly = all.last_mut().expect("a heading first");
        let (left, right) = line.split_once(": ").expect("who: what");
        if left == "happens" {
            let conditions = right.split(" and ").map(|one| one.split_once(" = ").expect("x = y"));
            anomaly.happens.push(conditions.collect());
        } else {
            anomaly.steps.push((left, right));
        }
    }
    all
}

/// A session, or nothing while its statement runs.
type Slot = Arc<Mutex<Option<Session>>>;

/// What an interleaving has come to.
#[derive(Default)]
struct Course {
    /// By session and number of its statement (`T1@2`), and `end`.
    answers: Arc<Mutex<BTreeMap<String, String>>>,
    transcript: String,
}

fn play(anomaly: &Anomaly<'_>, level: &str) -> Course {
    let cluster = TestCluster::new();
    let mut own = cluster.session(&cluster.east);
    cluster.run(
        &mut own,
        "CREATE TABLE test (id int PRIMARY KEY, value int); INSERT INTO test VALUES (1, 10), (2, 20)",
    );
    let mut course = Course::default();
    let mut sessions: BTreeMap<&str, (Slot, u32)> = BTreeMap::new();
    for (who, statement) in &anomaly.steps {
        let (slot, count) = sessions.entry(who).or_insert_with(|| {
            // Two gateways: nothing may depend on sharing one.
            let engine = if *who == "T2" { &cluster.west } else { &cluster.east };
            (Arc::new(Mutex::new(Some(cluster.session(engine)))), 0)
        });
        // A session sends its next statement when the one before has answered.
        if slot.lock().is_none() {
            cluster.world.settle(AT_LAST);
        }
        let mut session = slot.lock().take().expect("the statement before it has answered");
        *count += 1;
        let name = format!("{who}@{count}");
        let statement = match *statement {
            "BEGIN" => format!("BEGIN ISOLATION LEVEL {level}"),
            other => other.to_string(),
        };
        let _ = write!(course.transcript, "{name} {statement}");
        let (back, answers, key) = (slot.clone(), course.answers.clone(), name.clone());
        let work = async move {
            let answer = condensed(&run(&mut session, &statement).await);
            answers.lock().insert(key, answer);
            *back.lock() = Some(session);
        };
        cluster.world.spawn(work.boxed());
        cluster.world.settle(SOON);
        let answered = course.answers.lock().get(&name).cloned();
        let _ = writeln!(course.transcript, " -> {}", answered.as_deref().unwrap_or("(waits)"));
    }
    cluster.world.settle(AT_LAST);
    for (who, (slot, _)) in &sessions {
        assert!(slot.lock().is_some(), "{} {level}: {who} waits for ever", anomaly.name);
    }
    let end = condensed(&cluster.run(&mut own, "SELECT * FROM test ORDER BY id"));
    course.answers.lock().insert("end".to_string(), end);
    course
}

/// Rows without their heading, a tag, or an SQLSTATE.
fn condensed(answer: &str) -> String {
    let lines: Vec<&str> = answer.lines().filter(|line| !line.contains("WARNING")).collect();
    match lines.as_slice() {
        [error] if error.starts_with("ERROR") => {
            error.rsplit_once('[').map_or("?", |(_, code)| code.trim_end_matches(']')).to_string()
        }
        [tag] => (*tag).to_string(),
        [_, rows @ ..] => rows.join("; "),
        [] => String::new(),
    }
}

impl Course {
    fn has_happened(&self, anomaly: &Anomaly<'_>) -> bool {
        let answers = self.answers.lock();
        anomaly.happens.iter().any(|conditions| {
            conditions.iter().all(|(what, value)| {
                let answer = answers.get(*what);
                answer.unwrap_or_else(|| panic!("{}: no {what}", anomaly.name)) == value
            })
        })
    }
}

#[test]
fn no_level_lets_any_anomaly_happen() {
    let text = include_str!("isolation/anomalies.txt");
    let anomalies = parse(text);
    assert_eq!(anomalies.len(), 14);
    let mut table = format!(
        "# Isolation levels and anomalies\n\nGenerated by `UPDATE_GOLDENFILES=1 cargo test -p sql isolation`; do not edit. Each cell is one interleaving of \
         two or three sessions\n(`sql/tests/isolation/anomalies.txt`), run over two gateways. All levels run as `SERIALIZABLE` today \
         (limits.md): what a weaker level would\nallow is prevented too.\n\n| anomaly | what | {} |\n|---|---|{}\n",
        LEVELS.join(" | ").to_lowercase(),
        "---|".repeat(LEVELS.len()),
    );
    let mut happened = String::new();
    for anomaly in &anomalies {
        let _ = write!(table, "| {} | {} |", anomaly.name, anomaly.what);
        for level in LEVELS {
            let course = play(anomaly, level);
            let prevented = !course.has_happened(anomaly);
            table += if prevented { " prevented |" } else { " **happens** |" };
            if !prevented {
                let _ = writeln!(happened, "{} at {level}:\n{}", anomaly.name, course.transcript);
            }
            // Whoever prevents everything by failing everything is of no use.
            let commits =
                course.answers.lock().values().filter(|answer| *answer == "COMMIT").count();
            assert!(
                commits > 0,
                "{} at {level}: nobody commits\n{}",
                anomaly.name,
                course.transcript
            );
        }
        table += "\n";
    }
    assert!(happened.is_empty(), "{happened}");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/isolation.md");
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        std::fs::write(&golden, &table).expect("writable");
    }
    assert_eq!(std::fs::read_to_string(&golden).unwrap_or_default(), table);
}

/// 40001 and 55P03 in the words of tables and values.
#[test]
fn conflicts_name_the_row_they_are_about() {
    let cluster = TestCluster::new();
    let (mut one, mut other) = (cluster.session(&cluster.east), cluster.session(&cluster.west));
    cluster.run(
        &mut one,
        "CREATE TABLE accounts (id int PRIMARY KEY, n int); INSERT INTO accounts VALUES (5, 0)",
    );
    cluster.run(&mut one, "BEGIN; SELECT n FROM accounts WHERE id = 5");
    cluster.run(&mut other, "UPDATE accounts SET n = 1");
    let late = "UPDATE accounts SET n = 2 WHERE id = 5";
    let error = cluster.world.block_on(last_error(&mut one, late));
    assert_eq!(error.code.to_string(), "40001");
    assert_eq!(error.message, "could not serialize access due to concurrent update");
    let detail = error.detail.expect("a detail");
    assert!(detail.starts_with("The row (id)=(5) of table \"accounts\""), "{detail}");
    assert_eq!(error.table.as_deref(), Some("accounts"));

    cluster.run(&mut one, "ROLLBACK; BEGIN; SELECT n FROM accounts WHERE id = 5 FOR UPDATE");
    let nowait = "SELECT n FROM accounts WHERE id = 5 FOR UPDATE NOWAIT";
    let error = cluster.world.block_on(last_error(&mut other, nowait));
    assert_eq!(error.code.to_string(), "55P03");
    assert_eq!(error.message, "could not obtain lock on row in relation \"accounts\"");
}

/// A statement that others make run again and again ends when its time is up, or its user says so.
#[test]
fn a_statement_that_is_run_again_keeps_its_timeout_and_hears_a_cancel() {
    let cluster = TestCluster::new();
    let (mut reader, mut writer) = (cluster.session(&cluster.east), cluster.session(&cluster.west));
    cluster.run(&mut reader, "CREATE TABLE hot (id int PRIMARY KEY, n int); INSERT INTO hot VALUES (1, 0); CREATE TABLE log (n int)");
    let stop = Arc::new(Mutex::new(false));
    let (stopped, time) = (stop.clone(), cluster.world.runtime().time);
    cluster.world.spawn(async move {
        while !*stopped.lock() {
            // Who reads where the other writes moves it past what it has read.
            run(&mut writer, "UPDATE hot SET n = n + 1; SELECT count(*) FROM log").await;
            time.sleep_until(time.monotonic().plus(Duration::from_millis(50))).await;
        }
    });
    // It reads, takes a while, and writes: by then what it has read was overwritten.
    let statement = "INSERT INTO log SELECT n FROM (SELECT n, pg_sleep(0.2) FROM hot) s";
    let time = cluster.world.runtime().time;
    let begun = time.monotonic();
    cluster.run(&mut reader, "SET statement_timeout = '1s'");
    let error = cluster.world.block_on(last_error(&mut reader, statement));
    assert_eq!(error.message, "canceling statement due to statement timeout");
    let took = time.monotonic().since(begun);
    assert!((Duration::from_secs(1)..Duration::from_millis(1600)).contains(&took), "{took:?}");

    cluster.run(&mut reader, "SET statement_timeout = 0");
    let (cancel, at) = (reader.cancel_handle(), time.monotonic().plus(Duration::from_millis(777)));
    let sleeper = time.clone();
    cluster.world.spawn(async move {
        sleeper.sleep_until(at).await;
        cancel.cancel();
    });
    let error = cluster.world.block_on(last_error(&mut reader, statement));
    assert_eq!(error.message, "canceling statement due to user request");
    assert!(time.monotonic() < at.plus(Duration::from_millis(300)), "it went on");
    *stop.lock() = true;
}

async fn last_error(session: &mut Session, text: &str) -> sql::SqlError {
    let mut script = session.simple(text).await;
    let mut last = None;
    while let Some(result) = script.next(session).await {
        last = result.err();
    }
    last.expect("an error")
}
