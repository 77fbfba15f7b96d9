//! Driver: a queue of jobs, taken with `FOR UPDATE SKIP LOCKED` at every level, in SQL text. Who takes keeps the day from being closed
//! (`FOR SHARE`); who closes it counts what was taken. There are two desks, each with its own days: at one of them all are READ COMMITTED and
//! rely on the lock; at the other they take at any level, and who closes is serializable.
//!
//! Invariant: *each job is taken once; a closed day stays as it was counted, also for those that look into the past; once all has healed
//! workers that wait for nobody come to every job.*

use ::sql::types::Datum;
use futures::FutureExt;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::drive::{Call, Deed, Turn};
use super::persist_on;
use super::sql_client::{Client, Failed, integer, persevere};
use crate::check::RealTime;
use crate::check::queue::{Answer, Books, Closing, Line, Op, check};
use crate::history::{Ended, History, Ledger};
use crate::world::access::{Gateway, SharedAccess};

/// The most that one takes.
const TAKEN_MAX: u64 = 2;
/// Workers that find nothing, one after another, before it is taken for empty: more than it takes to find out that a holder is gone.
const IDLE_MAX: u32 = 5;
/// Between two of them.
const IDLE_PAUSE: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Default)]
pub struct Queue {
    history: History<Op, Answer>,
    books: Mutex<Books>,
}

/// An operation, and how it is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Task {
    op: Op,
    level: &'static str,
    desk: u64,
    /// Rows that are taken.
    limit: u64,
    /// How far into the past one looks, milliseconds.
    ago: u64,
}

/// The desk where all are READ COMMITTED.
const RELIES_ON_LOCKS: u64 = 0;
const READ_COMMITTED: &str = "READ COMMITTED";
const REPEATABLE_READ: &str = "REPEATABLE READ";
const SERIALIZABLE: &str = "SERIALIZABLE";

impl Deed for Queue {
    type Task = Task;
    type Answer = Answer;
    type Error = Failed;

    fn name(&self) -> &'static str {
        "queue"
    }

    fn invariant(&self) -> &'static str {
        "in SQL: each job of a queue is taken once, none stays behind, and a day that was closed stays closed"
    }

    async fn prepare(&self, access: &SharedAccess) -> Result<(), String> {
        let open = |gateway| async move { open(&gateway).await }.boxed();
        persist_on(access, "the queue cannot be made", open).await
    }

    fn draw(&self, mut turn: Turn<'_>) -> Task {
        let number = turn.fresh(20);
        let op = match turn.chance.below(20) {
            0..=7 => Op::Put { job: number },
            8..=15 => Op::Take { taker: number },
            16 | 17 => Op::Close,
            _ => Op::Look,
        };
        let desk = turn.chance.below(2);
        let level = match op {
            _ if desk == RELIES_ON_LOCKS => READ_COMMITTED,
            Op::Close => SERIALIZABLE,
            Op::Put { .. } | Op::Take { .. } | Op::Look => {
                turn.chance.pick(&[READ_COMMITTED, REPEATABLE_READ, SERIALIZABLE])
            }
        };
        let limit = turn.chance.between(1, TAKEN_MAX);
        let ago = turn.chance.pick(&[0, 200, 2_000]);
        Task { op, level, desk, limit, ago }
    }

    async fn run(self: Arc<Self>, gateway: Gateway, task: Task) -> Result<Answer, Failed> {
        persevere(&gateway, |client| step(client, task).boxed()).await
    }

    fn note(&self, call: Call, Task { op, .. }: Task, ended: Ended<Answer>) {
        self.history.push(call.client, call.asked, call.heard, op, ended);
    }

    async fn finish(self: Arc<Self>, access: &SharedAccess) -> Result<(), String> {
        let mut idle = 0;
        for number in 0.. {
            let work = move |gateway: Gateway| async move { drain(&gateway, number).await }.boxed();
            match persist_on(access, "the queue cannot be emptied", work).await? {
                true => idle = 0,
                false => idle += 1,
            }
            if idle > IDLE_MAX {
                break;
            }
            if idle > 0 {
                access.sleep(IDLE_PAUSE).await;
            }
        }
        let read = |gateway| async move { read_books(gateway).await }.boxed();
        *self.books.lock() = persist_on(access, "the queue cannot be read", read).await?;
        Ok(())
    }

    fn check(&self, _real_time: RealTime) -> Result<(), String> {
        check(&self.history.records(), &self.books.lock())
    }

    fn ledger(&self) -> &dyn Ledger {
        &self.history
    }
}

async fn open(gateway: &Gateway) -> Result<(), Failed> {
    let mut client = Client::connect(gateway)?;
    for table in [
        "CREATE TABLE IF NOT EXISTS jobs (id BIGINT PRIMARY KEY)",
        "CREATE TABLE IF NOT EXISTS lines (job BIGINT, taker BIGINT, day BIGINT NOT NULL, PRIMARY KEY (job, taker))",
        "CREATE TABLE IF NOT EXISTS today (id INT PRIMARY KEY, day BIGINT NOT NULL)",
        "CREATE TABLE IF NOT EXISTS closings (day BIGINT PRIMARY KEY, lines BIGINT NOT NULL)",
        "INSERT INTO today VALUES (0, 0), (1, 1) ON CONFLICT (id) DO NOTHING",
    ] {
        client.run(table).await?;
    }
    client.close().await;
    Ok(())
}

async fn step(client: &mut Client, task: Task) -> Result<Answer, Failed> {
    match task.op {
        Op::Put { job } => {
            client.run(&format!("INSERT INTO jobs VALUES ({job})")).await?;
            Ok(Answer::Put)
        }
        Op::Take { taker } => take(client, taker, task).await,
        Op::Close => close(client, task).await,
        Op::Look => look(client, task).await,
    }
}

async fn take(client: &mut Client, taker: u64, task: Task) -> Result<Answer, Failed> {
    client.run(&format!("BEGIN ISOLATION LEVEL {}", task.level)).await?;
    let Task { desk, limit, .. } = task;
    let today = format!("SELECT day FROM today WHERE id = {desk} FOR SHARE");
    let day = one(&client.run(&today).await?)?;
    let first = format!("SELECT id FROM jobs ORDER BY id LIMIT {limit} FOR UPDATE SKIP LOCKED");
    let jobs = column(&client.run(&first).await?)?;
    for job in &jobs {
        let deleted = format!("DELETE FROM jobs WHERE id = {job} RETURNING id");
        if client.run(&deleted).await?.is_empty() {
            return Err(Failed::Certain(format!("job {job}, which was locked, is gone")));
        }
        client.run(&format!("INSERT INTO lines VALUES ({job}, {taker}, {day})")).await?;
    }
    client.run("COMMIT").await?;
    Ok(Answer::Taken { day, jobs })
}

async fn close(client: &mut Client, task: Task) -> Result<Answer, Failed> {
    client.run(&format!("BEGIN ISOLATION LEVEL {}", task.level)).await?;
    let desk = task.desk;
    let next = format!("UPDATE today SET day = day + 2 WHERE id = {desk} RETURNING day - 2");
    let day = one(&client.run(&next).await?)?;
    let count = format!("SELECT count(*) FROM lines WHERE day <= {day} AND day % 2 = {desk}");
    let lines = one(&client.run(&count).await?)?;
    client.run(&format!("INSERT INTO closings VALUES ({day}, {lines})")).await?;
    client.run("COMMIT").await?;
    Ok(Answer::Closed(Closing { day, lines }))
}

async fn look(client: &mut Client, task: Task) -> Result<Answer, Failed> {
    let past = match task.ago {
        0 => String::new(),
        ago => format!(" AS OF SYSTEM TIME '-{ago}ms'"),
    };
    let counts = format!(
        "SELECT c.day, c.lines, count(l.job) FROM closings c LEFT JOIN lines l \
         ON l.day <= c.day AND l.day % 2 = c.day % 2{past} \
         GROUP BY c.day, c.lines"
    );
    let seen = |row: &Vec<Datum>| {
        let closing = Closing { day: whole(&row[0])?, lines: whole(&row[1])? };
        Ok((closing, whole(&row[2])?))
    };
    let seen: Result<Vec<_>, Failed> = client.run(&counts).await?.iter().map(seen).collect();
    seen.map(Answer::Seen)
}

/// One more worker; whether it has found anything.
async fn drain(gateway: &Gateway, number: u64) -> Result<bool, Failed> {
    let (op, level, desk) = (Op::Take { taker: number }, READ_COMMITTED, RELIES_ON_LOCKS);
    let task = Task { op, level, desk, limit: 100, ago: 0 };
    match persevere(gateway, |client| step(client, task).boxed()).await? {
        Answer::Taken { jobs, .. } => Ok(!jobs.is_empty()),
        other => Err(Failed::Certain(format!("a taker was answered {other:?}"))),
    }
}

async fn read_books(gateway: Gateway) -> Result<Books, Failed> {
    let mut client = Client::connect(&gateway)?;
    client.run("BEGIN").await?;
    let jobs = column(&client.run("SELECT id FROM jobs").await?)?;
    let lines = client.run("SELECT job, taker, day FROM lines").await?;
    let closings = client.run("SELECT day, lines FROM closings").await?;
    client.run("COMMIT").await?;
    client.close().await;
    let line = |row: &Vec<Datum>| {
        Ok(Line { job: whole(&row[0])?, taker: whole(&row[1])?, day: whole(&row[2])? })
    };
    let closing = |row: &Vec<Datum>| Ok(Closing { day: whole(&row[0])?, lines: whole(&row[1])? });
    let lines: Result<Vec<Line>, Failed> = lines.iter().map(line).collect();
    let closings: Result<BTreeSet<Closing>, Failed> = closings.iter().map(closing).collect();
    Ok(Books { jobs, lines: lines?, closings: closings? })
}

fn whole(datum: &Datum) -> Result<u64, Failed> {
    let number = integer(datum)?;
    u64::try_from(number).map_err(|_| Failed::Certain(format!("{number} is below zero")))
}

fn one(rows: &[Vec<Datum>]) -> Result<u64, Failed> {
    match rows {
        [row] => whole(&row[0]),
        _ => Err(Failed::Certain(format!("{} rows where there is one", rows.len()))),
    }
}

fn column(rows: &[Vec<Datum>]) -> Result<BTreeSet<u64>, Failed> {
    rows.iter().map(|row| whole(&row[0])).collect()
}
