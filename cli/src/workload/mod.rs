//! `meridian workload`: bounded load with an invariant and a report. Each client has a connection of its own and one statement under way.

mod bank;
mod kv;
mod report;

use clap::{Args, Subcommand};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::url::{DEFAULT_URL, Url};
use report::{Kind, Report};

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
    /// How long, in seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    duration: u64,
    /// Seed of what is asked.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs a workload to its end; the error says what was violated.
pub(crate) fn run(arguments: &WorkloadArguments) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        match &arguments.workload {
            Workload::Bank(arguments) => bank::run(arguments).await,
            Workload::Kv(arguments) => kv::run(arguments).await,
        }
    })
}

/// The parsed URL with its hosts turned, so that client `number` starts at another one.
fn url_for(common: &Common, number: u32) -> Result<Url, String> {
    let mut url = Url::parse(&common.url)?;
    let turn = number as usize % url.hosts.len();
    url.hosts.rotate_left(turn);
    Ok(url)
}

/// One client's connection; connects again by itself, for as long as the workload runs.
struct Client {
    url: Url,
    backend: Option<Backend>,
}

impl Client {
    fn new(url: Url) -> Client {
        Client { url, backend: None }
    }

    /// The connection, made if there is none.
    async fn backend(&mut self) -> Result<&mut Backend, client::Error> {
        if self.backend.is_none() {
            self.backend = Some(Backend::connect(&self.url, "meridian workload").await?);
        }
        Ok(self.backend.as_mut().expect("just made"))
    }

    /// Runs statements; forgets the connection when it is lost, and begins with the next host then.
    async fn query(&mut self, sql: &str) -> Result<Vec<crate::backend::Answer>, client::Error> {
        let done = match self.backend().await {
            Ok(backend) => backend.query(sql).await,
            Err(error) => Err(error),
        };
        if let Err(client::Error::Ambiguous(_) | client::Error::Unreachable(_)) = &done {
            self.backend = None;
            self.url.hosts.rotate_left(1);
        }
        done
    }
}

/// Runs one future per client until the deadline, with a report that is printed every second.
async fn drive<F>(
    common: &Common,
    report: &Arc<Report>,
    client: impl Fn(u32, Instant) -> F,
) -> Result<(), String>
where
    F: Future<Output = Result<(), String>>,
{
    let deadline = Instant::now() + Duration::from_secs(common.duration);
    let clients = (0..common.clients).map(|number| client(number, deadline));
    let work = futures::future::try_join_all(clients);
    let progress = report.clone().progress(deadline);
    let (done, ()) = futures::future::join(work, progress).await;
    done.map(|_| ())
}

/// Tries of a statement that sets up.
const SET_UP_TRIES_MAX: usize = 5;

/// A statement of the set-up, which may be repeated: an answer that was lost is asked for again.
async fn set_up_statement(admin: &mut Client, statement: &str) -> Result<(), String> {
    let mut tries = 0;
    loop {
        tries += 1;
        match admin.query(statement).await {
            Ok(_) => return Ok(()),
            Err(error)
                if tries < SET_UP_TRIES_MAX && (error.is_ambiguous() || error.is_retryable()) => {}
            Err(error) => return Err(format!("{statement}: {error}")),
        }
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
