//! `meridian start`: one node in this process, until SIGTERM or Ctrl-C.

use clap::Args;
use node::config::{Config, parse_locality};
use node::faults::Latencies;
use node::shared::Chaos;
use node::{Node, Stopped};
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

/// One node.
#[derive(Args)]
pub(crate) struct StartArguments {
    /// Data directory; made if it is not there.
    #[arg(long)]
    data: PathBuf,
    /// Where the node is: region=NAME[,zone=NAME].
    #[arg(long)]
    locality: String,
    /// Address for PostgreSQL clients.
    #[arg(long, default_value = "127.0.0.1:15432")]
    sql_addr: SocketAddr,
    /// Address for other nodes and gRPC clients.
    #[arg(long, default_value = "127.0.0.1:17432")]
    rpc_addr: SocketAddr,
    /// Address for /health, /ready and /metrics.
    #[arg(long, default_value = "127.0.0.1:18432")]
    http_addr: SocketAddr,
    /// RPC address as other nodes reach this one, if it is another than --rpc-addr.
    #[arg(long)]
    advertise_addr: Option<String>,
    /// RPC addresses of nodes to join, comma-separated; the own one may be among them. A new cluster is founded only if all of them
    /// are new, by the one with the smallest address.
    #[arg(long, value_delimiter = ',')]
    join: Vec<String>,
    /// Allow administrators to inject faults (CHAOS statements).
    #[arg(long)]
    allow_chaos: bool,
    /// File of injected latencies: one `REGION REGION MILLISECONDS` (round trip) per line.
    #[arg(long)]
    latency_file: Option<PathBuf>,
    /// Cache for stored data, in MiB.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(8..))]
    cache_mib: u32,
    /// Log as JSON lines.
    #[arg(long)]
    log_json: bool,
    /// Stop when standard input is closed: for a supervisor that must not leave nodes behind.
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

/// Runs the node to its end.
pub(crate) fn run(arguments: StartArguments) -> Result<(), String> {
    start_logging(arguments.log_json);
    let watch_stdin = arguments.stop_with_stdin;
    let config = config(arguments)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Plans are walked by recursion, up to the depths that sql allows; only what is touched takes memory.
        .thread_stack_size(32 << 20)
        .enable_all()
        .build()
        .map_err(|error| format!("no threads: {error}"))?;
    let ended = runtime.block_on(async move {
        let node = Node::start(config).await?;
        let stopped = node.run_until(stop_signal(watch_stdin)).await;
        match stopped {
            Stopped::AsAsked => Ok(()),
            Stopped::Failed(why) => Err(why),
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    ended
}

fn config(arguments: StartArguments) -> Result<Config, String> {
    let (region, zone) = parse_locality(&arguments.locality).map_err(|error| error.to_string())?;
    let latencies = match &arguments.latency_file {
        None => Latencies::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            Latencies::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?
        }
    };
    Ok(Config {
        data: arguments.data,
        region,
        zone,
        sql_addr: arguments.sql_addr,
        rpc_addr: arguments.rpc_addr,
        http_addr: arguments.http_addr,
        advertise_addr: arguments.advertise_addr,
        join: arguments.join,
        chaos: if arguments.allow_chaos { Chaos::Allowed } else { Chaos::Forbidden },
        latencies,
        cache_bytes: (arguments.cache_mib as usize) << 20,
    })
}

fn start_logging(json: bool) {
    let filter = EnvFilter::try_from_env("MERIDIAN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        builder.json().init();
    } else {
        builder.with_ansi(false).init();
    }
}

/// Ready when the process is asked to stop.
async fn stop_signal(watch_stdin: bool) {
    use tokio::signal::unix::{SignalKind, signal};
    let (asked, wait) = tokio::sync::oneshot::channel::<()>();
    if watch_stdin {
        // A thread of its own: a blocking read of standard input cannot be cancelled, and ends with the process.
        #[allow(clippy::disallowed_methods)]
        std::thread::spawn(move || {
            let mut byte = [0_u8; 64];
            while matches!(std::io::stdin().read(&mut byte), Ok(count) if count > 0) {}
            let _ = asked.send(());
        });
    } else {
        std::mem::forget(asked);
    }
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened to");
    let interrupt = tokio::signal::ctrl_c();
    let terminated = Box::pin(terminate.recv());
    let stdin_closed = Box::pin(wait);
    let either = futures::future::select(Box::pin(interrupt), terminated);
    futures::future::select(either, stdin_closed).await;
}
