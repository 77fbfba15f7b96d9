//! `meridian workload`: bounded load with an invariant and a report. Each client has a connection of its own and one statement under way.

mod append;
mod bank;
mod contention;
mod counter;
mod kv;
mod latency;
pub(crate) mod load;
mod monotonic;
pub(crate) mod report;

use ::chaos::check::Level;
use ::chaos::workload::Kind as Script;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;
use tokio::time::Instant;

use crate::backend::{Answer, Backend};
use crate::chaos::LevelKind;
use crate::url::{DEFAULT_URL, Url};
use load::{Hosts, Judged, Load, Recorded, Run, Until};
use report::{Kind, Report};

/// A statement without an answer by then is given up, and nobody knows what it did.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A connection that is not there by then will not be.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Keys that the clients of a script's registers share.
const SHARED_KEYS: u32 = 24;

/// Bounded load with an invariant.
#[derive(Args)]
pub(crate) struct WorkloadArguments {
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Subcommand)]
enum Workload {
    /// Transfers between accounts: the total never changes, no acknowledged transfer is lost.
    Bank(bank::BankArguments),
    /// Reads and upserts of single rows: what is read was written, and never older than an acknowledged write.
    Kv(kv::KvArguments),
    /// Transactions that append to and read lists: they could have run one after another.
    ListAppend(append::AppendArguments),
    /// Increments of an available table in every region: its copies become equal and hold each once.
    Counter(counter::CounterArguments),
    /// Single statements at each gateway: how long they take, beside how long they must.
    Latency(latency::LatencyArguments),
    /// One row, or few, that everybody wants: throughput, fairness, errors, beside what is promised of them.
    Contention(contention::ContentionArguments),
}

/// What every workload is told.
#[derive(Args, Clone)]
pub(crate) struct Common {
    /// Where to connect; clients are spread over the hosts and fail over between them.
    #[arg(long, default_value = DEFAULT_URL)]
    url: String,
    /// Connections.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=512))]
    clients: u32,
    /// How long, in seconds; Ctrl-C ends it earlier.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    duration: u64,
    /// Seed of what is asked.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Each client stays at its host, served or not.
    #[arg(long)]
    stay: bool,
    /// Write the history to this file (.edn or .json), for `meridian chaos check` and other judges.
    #[arg(long)]
    history: Option<PathBuf>,
    /// Which order beyond that of the data counts.
    #[arg(long, default_value = "key-real-time")]
    level: LevelKind,
}

/// A load of any kind.
pub(crate) enum AnyLoad {
    /// See [`bank`].
    Bank(Recorded<bank::Bank>),
    /// See [`kv`].
    Kv(Recorded<kv::Kv>),
    /// See [`append`].
    Append(Recorded<append::Lists>),
    /// See [`counter`].
    Counter(Recorded<counter::Counters>),
    /// See [`monotonic`].
    Monotonic(Recorded<monotonic::Monotonic>),
}

/// The same for the load of each kind.
macro_rules! each {
    ($any:expr, $of:ident => $work:expr) => {
        match $any {
            AnyLoad::Bank($of) => $work,
            AnyLoad::Kv($of) => $work,
            AnyLoad::Append($of) => $work,
            AnyLoad::Counter($of) => $work,
            AnyLoad::Monotonic($of) => $work,
        }
    };
}

impl AnyLoad {
    /// The load with the same invariant as a script's workload; `None`: only the simulated world has it.
    pub(crate) fn of_script(kind: Script) -> Option<AnyLoad> {
        match kind {
            Script::Bank | Script::SqlBank => Some(AnyLoad::bank(50)),
            Script::Register => Some(AnyLoad::Kv(Recorded::new(kv::Kv {
                keys: SHARED_KEYS,
                read_percent: 50,
                padding: String::new(),
                owners: kv::Owners::All { written: AtomicU64::new(0) },
            }))),
            Script::Append => Some(AnyLoad::append()),
            Script::Counter => Some(AnyLoad::counter()),
            Script::Monotonic => Some(AnyLoad::Monotonic(Recorded::new(monotonic::Monotonic))),
            Script::Txn
            | Script::Skew
            | Script::LongFork
            | Script::Strict
            | Script::Shop
            | Script::Session
            | Script::Cells
            | Script::Queue => None,
        }
    }

    fn bank(accounts: u32) -> AnyLoad {
        AnyLoad::Bank(Recorded::new(bank::Bank { accounts }))
    }

    fn append() -> AnyLoad {
        AnyLoad::Append(Recorded::new(append::Lists::default()))
    }

    fn counter() -> AnyLoad {
        AnyLoad::Counter(Recorded::new(counter::Counters))
    }

    /// As a command line calls it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            AnyLoad::Bank(_) => "bank",
            AnyLoad::Kv(_) => "kv",
            AnyLoad::Append(_) => "list-append",
            AnyLoad::Counter(_) => "counter",
            AnyLoad::Monotonic(_) => "monotonic",
        }
    }

    /// Whether something can be told before the end, where this much is promised.
    pub(crate) fn judges_early(&self, level: Level) -> bool {
        each!(self, of => of.load.judges_early(level))
    }

    /// Judges while clients go on; the error: what is violated.
    pub(crate) async fn judge_early(&self, run: &Run) -> Result<(), String> {
        each!(self, of => run.judge_early(of).await)
    }

    /// Of an available table, the query that shows the copy of the region where it is asked.
    pub(crate) fn copy(&self) -> Option<&'static str> {
        each!(self, of => of.load.copy())
    }

    /// Makes its tables; nothing fails meanwhile.
    pub(crate) async fn prepare(&self, hosts: &Hosts) -> Result<(), String> {
        each!(self, of => of.load.prepare(hosts).await)
    }

    /// Runs its clients to their end, then judges.
    pub(crate) async fn play(&self, run: &Run) -> Judged {
        each!(self, of => run.play(of).await)
    }
}

/// Runs a workload to its end; the error says what was violated.
pub(crate) fn run(arguments: &WorkloadArguments) -> Result<(), String> {
    let mut gap_max = 0.0;
    let (common, load) = match &arguments.workload {
        Workload::Bank(arguments) => {
            gap_max = arguments.gap_max;
            let accounts = arguments.accounts;
            (&arguments.common, AnyLoad::bank(accounts))
        }
        Workload::Kv(arguments) => {
            let kv = kv::Kv {
                keys: arguments.keys,
                read_percent: arguments.read_percent,
                padding: "x".repeat(arguments.value_bytes as usize),
                owners: kv::Owners::Each,
            };
            (&arguments.common, AnyLoad::Kv(Recorded::new(kv)))
        }
        Workload::ListAppend(arguments) => (&arguments.common, AnyLoad::append()),
        Workload::Counter(arguments) => (&arguments.common, AnyLoad::counter()),
        Workload::Latency(arguments) => return runtime()?.block_on(latency::run(arguments)),
        Workload::Contention(arguments) => {
            return runtime()?.block_on(contention::run(arguments));
        }
    };
    if let Some(path) = &common.history {
        load::format_of(path)?;
    }
    runtime()?.block_on(drive(common, &load, gap_max))
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
}

/// Runs a load until its time is over or Ctrl-C, with a line per second; `gap_max_s`: zero is no limit.
async fn drive(common: &Common, load: &AnyLoad, gap_max_s: f64) -> Result<(), String> {
    let manner = if common.stay { Manner::Stays } else { Manner::Roams };
    let hosts = Hosts::new(Url::parse(&common.url)?, manner);
    load.prepare(&hosts).await?;
    let begun = Instant::now();
    let run = Run {
        hosts,
        clients: common.clients,
        seed: common.seed,
        begun,
        until: Arc::new(Until::new(Some(begun + Duration::from_secs(common.duration)))),
        level: common.level.into(),
        report: Report::new(),
        held: AtomicBool::new(false),
    };
    let interrupted = Box::pin(async {
        let _ = tokio::signal::ctrl_c().await;
        run.until.stop();
        futures::future::pending::<std::convert::Infallible>().await
    });
    let work = futures::future::join(load.play(&run), run.report.progress(&run.until));
    let judged = match futures::future::select(Box::pin(work), interrupted).await {
        futures::future::Either::Left(((judged, ()), _)) => judged,
        futures::future::Either::Right((never, _)) => match never {},
    };
    println!("{}", run.report.text());
    if let Some(path) = &common.history {
        load::write_history(&judged.operations, path)?;
    }
    println!("{}", judged.verdict?);
    let gap_s = run.report.longest_gap().as_secs_f64();
    if gap_max_s > 0.0 && gap_s > gap_max_s {
        return Err(format!(
            "acknowledgements stopped for {gap_s:.2} s, allowed are {gap_max_s:.2} s"
        ));
    }
    if run.report.total(Kind::Ok) == 0 {
        return Err("nothing was acknowledged: nothing was tested".to_string());
    }
    Ok(())
}

/// What a client does when its host does not serve it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    /// Goes to another one.
    Roams,
    /// Asks again there.
    Stays,
}

/// One client's connection; connects again by itself, for as long as the workload runs.
pub(crate) struct Client {
    url: Url,
    answer_within: Duration,
    backend: Option<Backend>,
}

impl Client {
    fn new(url: &Url, place: usize, manner: Manner, answer_within: Duration) -> Client {
        let mut url = url.clone();
        url.hosts.rotate_left(place);
        if manner == Manner::Stays {
            url.hosts.truncate(1);
        }
        Client { url, answer_within, backend: None }
    }

    /// The connection, made if there is none.
    async fn backend(&mut self) -> Result<&mut Backend, client::Error> {
        if self.backend.is_none() {
            let connected = Backend::connect(&self.url, "meridian workload");
            let connected = tokio::time::timeout(CONNECT_WITHIN, connected).await;
            let silent =
                || client::Error::Unreachable(format!("no greeting within {CONNECT_WITHIN:?}"));
            self.backend = Some(connected.unwrap_or_else(|_| Err(silent()))?);
        }
        Ok(self.backend.as_mut().expect("just made"))
    }

    /// Runs statements; forgets the connection when it is lost, and begins with the next host then.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<Vec<Answer>, client::Error> {
        let within = self.answer_within;
        let done = match self.backend().await {
            Ok(backend) => {
                let answer = tokio::time::timeout(within, backend.query(sql)).await;
                let silent = || client::Error::Ambiguous(format!("no answer within {within:?}"));
                answer.unwrap_or_else(|_| Err(silent()))
            }
            Err(error) => Err(error),
        };
        if let Err(client::Error::Ambiguous(_) | client::Error::Unreachable(_)) = &done {
            self.backend = None;
            self.url.hosts.rotate_left(1);
        }
        done
    }

    /// Opens a block.
    async fn begin(&mut self) -> Result<(), client::Error> {
        self.query("BEGIN").await.map(drop)
    }

    /// Ends the block. After an error the connection is a new one: whatever state the old one was in, nobody trips over it.
    async fn commit(&mut self) -> Result<(), client::Error> {
        self.query("COMMIT").await.map(drop).inspect_err(|_| self.backend = None)
    }

    /// Leaves a block that has failed; a lost connection has left it already.
    async fn roll_back(&mut self) {
        if self.backend.is_some() && self.query("ROLLBACK").await.is_err() {
            self.backend = None;
        }
    }
}

/// Who cannot set up by then gives up: a fail-over takes seconds.
const SET_UP_WITHIN: Duration = Duration::from_secs(30);
/// Between two tries.
const SET_UP_PAUSE: Duration = Duration::from_millis(200);

/// A statement of the set-up, which may be repeated: an answer that was lost is asked for again, and a fail-over is waited for.
async fn set_up_statement(admin: &mut Client, statement: &str) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let error = match admin.query(statement).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let may_pass = error.is_ambiguous() || error.is_retryable() || error.is_unavailable();
        if !may_pass || begun.elapsed() >= SET_UP_WITHIN {
            return Err(format!("{statement}: {error}"));
        }
        #[allow(clippy::disallowed_methods)]
        tokio::time::sleep(SET_UP_PAUSE).await;
    }
}

/// What an error means for the invariant, and a pause where the server is not there.
async fn after_error(report: &Report, error: &client::Error) -> Kind {
    let kind = if error.is_retryable() {
        Kind::Retry
    } else if error.is_ambiguous() {
        Kind::Ambiguous
    } else {
        Kind::Failed
    };
    report.count(kind);
    report.note(error);
    if kind != Kind::Retry {
        #[allow(clippy::disallowed_methods)]
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    kind
}
