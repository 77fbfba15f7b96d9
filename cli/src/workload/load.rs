//! Driver: a load whose every operation is recorded and judged. What a load does is a [`Load`]; that clients do it, again where they are
//! told that nothing happened, and what they learned from it, is here, once for all of them.
//!
//! An operation whose end nobody knows (40003, a connection lost, no answer in time) is recorded as such, and its client goes on with the
//! next one.

use ::chaos::check::Level;
use ::chaos::check::file::{Format, Operation, write};
use ::chaos::history::{Ended, History, Record};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
}

impl Run {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Runs the clients to their end, then judges.
    pub(crate) async fn play<L: Load>(&self, load: &L) -> Judged {
        let history = History::default();
        let clients = (0..self.clients).map(|number| self.client(load, number, &history));
        futures::future::join_all(clients).await;
        load.judge(&self.hosts, history.records(), self.level).await
    }

    async fn client<L: Load>(&self, load: &L, number: u32, history: &History<L::Op, L::Answer>) {
        let mut random = StdRng::seed_from_u64(self.seed ^ (u64::from(number) << 32));
        let mut client = self.hosts.client(number as usize);
        let mut count = 0;
        while !self.until.is_over() {
            count += 1;
            let op = load.draw(number, count, &mut random);
            let (asked, start) = (self.now(), Instant::now());
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
            history.push(number, asked, self.now(), op, ended);
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
