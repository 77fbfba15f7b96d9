//! Driver: a load whose every operation is recorded and judged. What a load does is a [`Load`]; that clients do it, again where they are
//! told that nothing happened, and what they learned from it, is here, once for all of them.
//!
//! An operation whose end nobody knows (40003, a connection lost, no answer in time) is recorded as such, and its client goes on with the
//! next one.

use ::chaos::check::Level;
use ::chaos::check::file::{Format, Operation, write};
use ::chaos::history::{Ended, Record};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

use super::report::{Kind, Report};
use super::{ANSWER_WITHIN, Client, Manner, after_error};
use crate::backend::Answer;
use crate::url::Url;

/// A load ends early when it has recorded so many operations: they are held in memory until they are judged.
pub(crate) const OPERATIONS_MAX: usize = 5_000_000;
/// The client whose operations are the load's own: what it reads when all has ended.
pub(crate) const AUDITOR: u32 = u32::MAX;
/// How often a client that is held looks whether it may go on.
const HOLD_LOOK: Duration = Duration::from_millis(20);
/// Tries of the final reads, a second apart: the cluster may still be recovering from what was done to it.
const FINAL_TRIES_MAX: usize = 60;

/// See the module.
pub(crate) trait Load: Sync {
    /// What is asked.
    type Op: Clone + Send + Sync;
    /// What is answered.
    type Answer: Clone + Send + Sync;
    /// Makes the tables; nothing fails meanwhile.
    fn prepare(&self, hosts: &Hosts) -> impl Future<Output = Result<(), String>> + Send;
    /// The next thing that a client asks; `count` is its number among those of this client, from 1.
    fn draw(&self, client: u32, count: u64, random: &mut StdRng) -> Self::Op;
    /// Asks once.
    fn attempt(
        &self,
        client: &mut Client,
        op: &Self::Op,
    ) -> impl Future<Output = Result<Self::Answer, client::Error>> + Send;
    /// A client's pause between two operations.
    fn rest(&self) -> Duration {
        Duration::ZERO
    }
    /// Whether something can be told before the end, where this much is promised.
    fn judges_early(&self, _level: Level) -> bool {
        false
    }
    /// Judges while clients go on; `so_far` has what is under way with an unknown end. The error: what is violated.
    fn judge_early(
        &self,
        _hosts: &Hosts,
        _so_far: Vec<Record<Self::Op, Self::Answer>>,
        _level: Level,
    ) -> impl Future<Output = Result<(), String>> + Send {
        async { Ok(()) }
    }
    /// Of an available table, the query that shows the copy of the region where it is asked, in an order that is always the same.
    fn copy(&self) -> Option<&'static str> {
        None
    }
    /// Reads what is there after all has ended, and judges.
    fn judge(
        &self,
        hosts: &Hosts,
        history: Vec<Record<Self::Op, Self::Answer>>,
        level: Level,
    ) -> impl Future<Output = Judged> + Send;
}

/// What a judge says.
pub(crate) struct Judged {
    /// In words: what holds, or what is violated.
    pub(crate) verdict: Result<String, String>,
    /// The history, as a file tells it.
    pub(crate) operations: Vec<Operation>,
}

/// Where a load's clients connect.
#[derive(Clone)]
pub(crate) struct Hosts {
    url: Url,
    manner: Manner,
    answer_within: Duration,
}

impl Hosts {
    /// Clients begin at the hosts in turn.
    pub(crate) fn new(url: Url, manner: Manner) -> Hosts {
        Hosts { url, manner, answer_within: ANSWER_WITHIN }
    }

    /// The same with clients that wait for so long for an answer before they give it up.
    pub(crate) fn patient(self, answer_within: Duration) -> Hosts {
        Hosts { answer_within, ..self }
    }

    /// One of them alone.
    pub(crate) fn only(&self, place: usize) -> Hosts {
        let mut one = self.clone();
        one.url.hosts = vec![one.url.hosts[place % self.count()].clone()];
        one
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.url.hosts.len()
    }

    /// A client that begins at a host, and stays there if that is the load's manner.
    pub(crate) fn client(&self, place: usize) -> Client {
        Client::new(&self.url, place % self.count(), self.manner, self.answer_within)
    }

    /// A client of one host.
    pub(crate) fn client_of(&self, place: usize) -> Client {
        Client::new(&self.url, place % self.count(), Manner::Stays, self.answer_within)
    }

    /// A client that goes wherever it is served.
    pub(crate) fn admin(&self) -> Client {
        Client::new(&self.url, 0, Manner::Roams, self.answer_within)
    }

    /// Reads at the first host that answers.
    pub(crate) async fn read_anywhere(&self, sql: &str) -> Result<Vec<Answer>, String> {
        let mut last = String::new();
        for place in 0..self.count() {
            match self.client_of(place).query(sql).await {
                Ok(answers) => return Ok(answers),
                Err(error) => last = error.to_string(),
            }
        }
        Err(format!("{sql}: {last}"))
    }

    /// Reads when the cluster lets us.
    pub(crate) async fn read_at_last(&self, sql: &str) -> Result<Vec<Answer>, String> {
        let mut admin = self.admin();
        let mut last = String::new();
        for _ in 0..FINAL_TRIES_MAX {
            match admin.query(sql).await {
                Ok(answers) => return Ok(answers),
                Err(error) => last = error.to_string(),
            }
            admin.roll_back().await;
            #[allow(clippy::disallowed_methods)] // A load lives in real time.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Err(format!("the final state cannot be read: {last}"))
    }
}

/// When clients end: at a time, when they are told to, or when there is nothing left to record on.
pub(crate) struct Until {
    deadline: Option<Instant>,
    stopped: AtomicBool,
    recorded: AtomicUsize,
}

impl Until {
    /// `None`: when told to.
    pub(crate) fn new(deadline: Option<Instant>) -> Until {
        Until { deadline, stopped: AtomicBool::new(false), recorded: AtomicUsize::new(0) }
    }

    /// Now.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether it has come.
    pub(crate) fn is_over(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
            || self.recorded.load(Ordering::Relaxed) >= OPERATIONS_MAX
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// A load with the history of its clients.
pub(crate) struct Recorded<L: Load> {
    /// The load.
    pub(crate) load: L,
    log: Mutex<Log<L>>,
}

/// INVARIANT: whatever has reached the database is in here, ended or under way, so that a history of so far knows who wrote what was read.
struct Log<L: Load> {
    ended: Vec<Record<L::Op, L::Answer>>,
    /// By client: when it was asked, and what.
    under_way: BTreeMap<u32, (u64, L::Op)>,
}

impl<L: Load> Recorded<L> {
    /// Nothing yet.
    pub(crate) fn new(load: L) -> Recorded<L> {
        let log = Log { ended: Vec::new(), under_way: BTreeMap::new() };
        Recorded { load, log: Mutex::new(log) }
    }

    fn lock(&self) -> MutexGuard<'_, Log<L>> {
        self.log.lock().expect("nobody panics while holding the log")
    }

    fn begin(&self, client: u32, asked: u64, op: &L::Op) {
        self.lock().under_way.insert(client, (asked, op.clone()));
    }

    fn end(&self, client: u32, heard: u64, ended: Ended<L::Answer>) {
        let heard = if matches!(ended, Ended::Unknown) { u64::MAX } else { heard };
        let mut log = self.lock();
        let (asked, op) = log.under_way.remove(&client).expect("it was begun");
        log.ended.push(Record { client, asked, heard, op, ended });
    }

    /// What has ended, and what is under way as if nobody would ever hear of it.
    fn so_far(&self) -> Vec<Record<L::Op, L::Answer>> {
        let log = self.lock();
        let under_way = log.under_way.iter().map(|(client, (asked, op))| Record {
            client: *client,
            asked: *asked,
            heard: u64::MAX,
            op: op.clone(),
            ended: Ended::Unknown,
        });
        log.ended.iter().cloned().chain(under_way).collect()
    }
}

/// A load under way: who takes part, and for how long.
pub(crate) struct Run {
    /// Where.
    pub(crate) hosts: Hosts,
    /// How many.
    pub(crate) clients: u32,
    /// Of what is asked.
    pub(crate) seed: u64,
    /// Zero of the history's times.
    pub(crate) begun: Instant,
    /// How long.
    pub(crate) until: Arc<Until>,
    /// What is promised.
    pub(crate) level: Level,
    /// Counts and latencies.
    pub(crate) report: Arc<Report>,
    /// Whether clients begin nothing new for a while.
    pub(crate) held: AtomicBool,
}

/// Clients begin nothing new as long as this lives.
pub(crate) struct Hold<'a>(&'a Run);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.held.store(false, Ordering::Relaxed);
    }
}

impl Run {
    /// Has the clients rest, each when it is done with what it is at.
    pub(crate) fn hold(&self) -> Hold<'_> {
        self.held.store(true, Ordering::Relaxed);
        Hold(self)
    }

    async fn rest_while_held(&self) {
        while self.held.load(Ordering::Relaxed) && !self.until.is_over() {
            #[allow(clippy::disallowed_methods)] // A load lives in real time.
            tokio::time::sleep(HOLD_LOOK).await;
        }
    }

    /// Judges while clients go on.
    pub(crate) async fn judge_early<L: Load>(&self, of: &Recorded<L>) -> Result<(), String> {
        of.load.judge_early(&self.hosts, of.so_far(), self.level).await
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Runs the clients to their end, then judges.
    pub(crate) async fn play<L: Load>(&self, of: &Recorded<L>) -> Judged {
        let clients = (0..self.clients).map(|number| self.client(of, number));
        futures::future::join_all(clients).await;
        of.load.judge(&self.hosts, of.so_far(), self.level).await
    }

    async fn client<L: Load>(&self, of: &Recorded<L>, number: u32) {
        let load = &of.load;
        let mut random = StdRng::seed_from_u64(self.seed ^ (u64::from(number) << 32));
        let mut client = self.hosts.client(number as usize);
        let mut count = 0;
        while !self.until.is_over() {
            self.rest_while_held().await;
            count += 1;
            let op = load.draw(number, count, &mut random);
            let (asked, start) = (self.now(), Instant::now());
            of.begin(number, asked, &op);
            let ended = loop {
                match load.attempt(&mut client, &op).await {
                    Ok(answer) => {
                        self.report.ok(start.elapsed());
                        break Ended::Ok(answer);
                    }
                    Err(error) => match after_error(&self.report, &error).await {
                        Kind::Retry if !self.until.is_over() => {}
                        Kind::Ambiguous => break Ended::Unknown,
                        Kind::Ok | Kind::Retry | Kind::Failed => break Ended::Fail,
                    },
                }
            };
            of.end(number, self.now(), ended);
            self.until.recorded.fetch_add(1, Ordering::Relaxed);
            if !load.rest().is_zero() {
                #[allow(clippy::disallowed_methods)] // A load lives in real time.
                tokio::time::sleep(load.rest()).await;
            }
        }
    }
}

/// Writes a history; the format is its name's.
pub(crate) fn write_history(operations: &[Operation], path: &Path) -> Result<(), String> {
    let format = format_of(path)?;
    std::fs::write(path, write(operations, format))
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// How a file of this name is written.
pub(crate) fn format_of(path: &Path) -> Result<Format, String> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("edn") => Ok(Format::Edn),
        Some("json") => Ok(Format::Json),
        _ => Err(format!("{}: a history is written as .edn or .json", path.display())),
    }
}

/// The integers of a result's rows.
pub(crate) fn integers(answer: &Answer) -> Result<Vec<Vec<i64>>, String> {
    let number = |value: &Option<String>| {
        let text = value.as_deref().unwrap_or("NULL");
        text.parse().map_err(|_| format!("{text} is not a number"))
    };
    answer.rows.iter().map(|row| row.iter().map(number).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::append::Lists;
    use super::*;
    use ::chaos::check::append::Step;

    fn run() -> Run {
        let url = Url::parse("postgresql://localhost").expect("a URL");
        Run {
            hosts: Hosts::new(url, Manner::Stays),
            clients: 2,
            seed: 1,
            begun: Instant::now(),
            until: Arc::new(Until::new(None)),
            level: Level::KeyRealTime,
            report: Report::new(),
            held: AtomicBool::new(false),
        }
    }

    fn judged(lists: &Recorded<Lists>) -> Result<(), String> {
        futures::executor::block_on(run().judge_early(lists))
    }

    #[test]
    fn what_is_seen_of_an_operation_under_way_is_no_violation_and_what_nobody_asked_for_is_one() {
        let lists = Recorded::new(Lists::default());
        let (append, read) = (Step::Append { list: 1, number: 7 }, Step::Read { list: 1 });
        lists.begin(0, 10, &vec![append]);
        lists.begin(1, 20, &vec![read.clone()]);
        lists.end(1, 30, Ended::Ok(vec![vec![7]]));
        assert_eq!(judged(&lists), Ok(()), "nobody has heard yet that 7 is there");
        lists.end(0, 40, Ended::Ok(Vec::new()));
        lists.begin(1, 50, &vec![read.clone()]);
        lists.end(1, 60, Ended::Ok(vec![Vec::new()]));
        assert!(judged(&lists).is_err(), "7 was acknowledged, and is gone");
        let lists = Recorded::new(Lists::default());
        lists.begin(1, 20, &vec![read]);
        lists.end(1, 30, Ended::Ok(vec![vec![8]]));
        assert!(judged(&lists).is_err(), "nobody has appended 8");
    }
}
