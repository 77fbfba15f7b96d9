//! What each isolation level forbids and what it allows, by interleavings that would show it (`tests/isolation/anomalies.txt`), and how
//! locks, savepoints and constraints behave under each (`tests/isolation/scripts`). Sessions run on virtual time: a statement that
//! has not answered when nobody can go on any more is waiting for somebody.
//!
//! `UPDATE_GOLDENFILES=1` writes the table in docs/isolation.md and what the scripts answer.

use futures::future::FutureExt;
use parking_lot::Mutex;
use sql::Session;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::world::{TestCluster, run};

const LEVELS: [&str; 5] = [
    "READ UNCOMMITTED",
    "READ COMMITTED",
    "REPEATABLE READ",
    "SERIALIZABLE",
    "STRICT SERIALIZABLE",
];
/// A statement that has not answered by then waits for another session. Shorter than any expiry.
const SOON: Duration = Duration::from_millis(200);
/// It must have answered by then after the last of the others has ended.
const AT_LAST: Duration = Duration::from_secs(60);

/// An anomaly and how to provoke it.
#[derive(Default)]
struct Anomaly<'t> {
    name: &'t str,
    what: &'t str,
    /// Session and statement, in the order in which they are sent.
    steps: Vec<(&'t str, &'t str)>,
    /// It has happened if all conditions of one line hold: what, and its answer.
    happens: Vec<Vec<(&'t str, &'t str)>>,
    /// Levels at which it must be seen; at the others it must not.
    seen: Vec<String>,
    /// Levels at which it happens in PostgreSQL and not here.
    only_there: Vec<String>,
}

fn levels(text: &str) -> Vec<String> {
    let names = text.split(", ").flat_map(|name| match name {
        "weaker" => vec![LEVELS[0], LEVELS[1]],
        name => vec![name],
    });
    let names: Vec<String> = names.map(str::to_uppercase).collect();
    assert!(names.iter().all(|name| LEVELS.contains(&name.as_str())), "levels: {text}");
    names
}

fn parse(text: &str) -> Vec<Anomaly<'_>> {
    let mut all: Vec<Anomaly<'_>> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(head) = line.strip_prefix("== ") {
            let (name, what) = head.split_once(": ").expect("a name and what it is");
            all.push(Anomaly { name, what, ..Anomaly::default() });
            continue;
        }
        let anomaly = all.last_mut().expect("a heading first");
        let (left, right) = line.split_once(": ").expect("who: what");
        match left {
            "happens" => {
                let conditions =
                    right.split(" and ").map(|one| one.split_once(" = ").expect("x = y"));
                anomaly.happens.push(conditions.collect());
            }
            "seen" => anomaly.seen = levels(right),
            "postgresql" => anomaly.only_there = levels(right),
            who => anomaly.steps.push((who, right)),
        }
    }
    all
}

/// A session, or nothing while its statement runs.
type Slot = Arc<Mutex<Option<Session>>>;

/// An interleaving under way.
struct Course {
    cluster: TestCluster,
    level: &'static str,
    /// Times that a transaction is run again unseen.
    reruns: &'static str,
    own: Session,
    sessions: BTreeMap<String, (Slot, u32)>,
    /// By session and number of its statement (`T1@2`), and `end`.
    answers: Arc<Mutex<BTreeMap<String, String>>>,
    /// Statements that have not answered, in the order in which they were sent.
    waiting: Vec<String>,
    transcript: String,
}

impl Course {
    fn new(setup: &str, level: &'static str, reruns: &'static str) -> Course {
        let cluster = TestCluster::new();
        let mut own = cluster.session(&cluster.east);
        let answer = cluster.run(&mut own, setup);
        assert!(!answer.contains("ERROR"), "{setup}: {answer}");
        Course {
            cluster,
            level,
            reruns,
            own,
            sessions: BTreeMap::new(),
            answers: Arc::default(),
            waiting: Vec::new(),
            transcript: String::new(),
        }
    }

    fn step(&mut self, who: &str, statement: &str) {
        let cluster = &self.cluster;
        let (slot, count) = self.sessions.entry(who.to_string()).or_insert_with(|| {
            // Two gateways: nothing may depend on sharing one.
            let engine = if who == "T2" { &cluster.west } else { &cluster.east };
            let session = cluster.session_with(engine, &[("transaction_rerun_limit", self.reruns)]);
            (Arc::new(Mutex::new(Some(session))), 0)
        });
        let slot = slot.clone();
        *count += 1;
        let name = format!("{who}@{count}");
        // A session sends its next statement when the one before has answered.
        if slot.lock().is_none() {
            self.settle(AT_LAST);
        }
        let mut session = slot.lock().take().expect("the statement before it has answered");
        let statement = match statement.strip_prefix("BEGIN") {
            Some(rest) => format!("BEGIN ISOLATION LEVEL {}{rest}", self.level),
            None => statement.to_string(),
        };
        let _ = writeln!(self.transcript, "{name}: {statement}");
        self.waiting.push(name.clone());
        let (back, answers) = (slot.clone(), self.answers.clone());
        let work = async move {
            let answer = condensed(&run(&mut session, &statement).await);
            answers.lock().insert(name, answer);
            *back.lock() = Some(session);
        };
        self.cluster.world.spawn(work.boxed());
        self.settle(SOON);
    }

    /// Lets everybody go on, and notes who has answered.
    fn settle(&mut self, limit: Duration) {
        self.cluster.world.settle(limit);
        let answers = self.answers.lock();
        let last = self.waiting.last().cloned();
        let transcript = &mut self.transcript;
        self.waiting.retain(|name| match answers.get(name) {
            Some(answer) if Some(name) == last.as_ref() => {
                let _ = writeln!(transcript, "  -> {answer}");
                false
            }
            Some(answer) => {
                let _ = writeln!(transcript, "  {name} -> {answer}");
                false
            }
            None => {
                if Some(name) == last.as_ref() {
                    let _ = writeln!(transcript, "  -> (waits)");
                }
                true
            }
        });
    }

    fn finish(&mut self, query: &str) {
        self.settle(AT_LAST);
        for (who, (slot, _)) in &self.sessions {
            let answered = slot.lock().is_some();
            assert!(answered, "{}: {who} waits for ever\n{}", self.level, self.transcript);
        }
        let end = condensed(&self.cluster.run(&mut self.own, query));
        let _ = writeln!(self.transcript, "end: {end}");
        self.answers.lock().insert("end".to_string(), end);
    }

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

fn play(anomaly: &Anomaly<'_>, level: &'static str, reruns: &'static str) -> Course {
    let setup = "CREATE TABLE test (id int PRIMARY KEY, value int); INSERT INTO test VALUES (1, 10), (2, 20)";
    let mut course = Course::new(setup, level, reruns);
    for (who, statement) in &anomaly.steps {
        course.step(who, statement);
    }
    course.finish("SELECT * FROM test ORDER BY id");
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

#[test]
fn each_level_allows_what_it_allows_and_nothing_else() {
    let text = include_str!("isolation/anomalies.txt");
    let anomalies = parse(text);
    assert_eq!(anomalies.len(), 14);
    let mut table = format!(
        "# Isolation levels and anomalies\n\nGenerated by `UPDATE_GOLDENFILES=1 cargo test -p sql isolation`; do not edit. Each cell is one interleaving of \
         two or three sessions\n(`sql/tests/isolation/anomalies.txt`), run over two gateways. What is *seen* must be seen, what is prevented must not. \
         A star marks what\nPostgreSQL lets happen at that level and Meridian does not: a statement of `READ COMMITTED` that meets a newer row is run again as a \
         whole, at a\nlater timestamp, where PostgreSQL looks at the newer row alone. `READ UNCOMMITTED` is `READ COMMITTED`, as there. How the levels \
         are kept:\n[decision 10](decisions/0010-what-each-level-holds.md).\n\n| anomaly | what | {} |\n|---|---|{}\n",
        LEVELS.join(" | ").to_lowercase(),
        "---|".repeat(LEVELS.len()),
    );
    let mut wrong = String::new();
    for anomaly in &anomalies {
        let _ = write!(table, "| {} | {} |", anomaly.name, anomaly.what);
        for level in LEVELS {
            let course = play(anomaly, level, "0");
            let happened = course.has_happened(anomaly);
            table += match (happened, anomaly.only_there.iter().any(|there| there == level)) {
                (true, _) => " **seen** |",
                (false, true) => " prevented * |",
                (false, false) => " prevented |",
            };
            if happened != anomaly.seen.iter().any(|seen| seen == level) {
                let verb = if happened { "happens" } else { "is not seen" };
                let _ =
                    writeln!(wrong, "{} {verb} at {level}:\n{}", anomaly.name, course.transcript);
            }
            // Nor does it make a difference to run transactions again whose clients cannot tell.
            let helped = play(anomaly, level, "10");
            if helped.has_happened(anomaly) != happened {
                let _ = writeln!(wrong, "{} with reruns:\n{}", anomaly.name, helped.transcript);
            }
            // Whoever prevents everything by failing everything is of no use.
            let answers = course.answers.lock();
            let commits = answers.values().filter(|answer| *answer == "COMMIT").count();
            assert!(
                commits > 0,
                "{} at {level}: nobody commits\n{}",
                anomaly.name,
                course.transcript
            );
        }
        table += "\n";
    }
    assert!(wrong.is_empty(), "{wrong}");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/isolation.md");
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        std::fs::write(&golden, &table).expect("writable");
    }
    assert_eq!(std::fs::read_to_string(&golden).unwrap_or_default(), table);
}

/// Stories of locks, savepoints and constraints. A file holds its story in comments, `setup: statements`, `levels: names`, steps
/// (`T1: statement`), `end: query`, then `---` and what was answered at each level.
#[test]
fn scripts_answer_as_they_did() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/isolation/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(&directory)
        .expect("the scripts are there")
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 8, "scripts are missing");
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("readable");
        let (script, _) = text.split_once("---\n").unwrap_or((&text, ""));
        let mut observed = format!("{script}---\n");
        let lines: Vec<(&str, &str)> = script
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| line.split_once(": ").expect("who: what"))
            .collect();
        let of = |name: &str| lines.iter().find(|(who, _)| *who == name).map(|(_, what)| *what);
        let wanted = levels(of("levels").expect("levels"));
        for level in LEVELS.into_iter().filter(|level| wanted.iter().any(|one| one == level)) {
            let mut course = Course::new(of("setup").expect("a setup"), level, "0");
            for (who, statement) in &lines {
                if who.starts_with('T') {
                    course.step(who, statement);
                }
            }
            course.finish(of("end").expect("a query for the end"));
            let _ = write!(observed, "\n== {level}\n{}", course.transcript);
        }
        if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
            std::fs::write(&path, &observed).expect("writable");
        } else {
            assert_eq!(text, observed, "{}", path.display());
        }
    }
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
