//! Driver: a node, wired. Starts everything in order, and stops it in the opposite one.
//!
//! ```text
//!   data directory ── clock ── ports ── membership (found, join, or known) ── disk ── shard thread ── transport, gossip
//!                                                                                     └── router ── SQL engine ── clients
//! ```

use bytes::Bytes;
use clock::TimeSource;
use futures::future::Either;
use proto::internal::{JoinRequest, NodeEntry};
use replication::store::{Store, StoreConfig, StoreIdentity};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use storage::Engine;
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use txn::client::{Db, Router, RouterSettings, Settings};
use txn::runtime::{HlcSource, Random, Runtime};
use txn::server::{Event, ServerConfig, Shard};

use crate::cluster::NodeCluster;
use crate::config::Config;
use crate::control::{Control, Ends};
use crate::directory::{Directory, entry_version};
use crate::faults::Faults;
use crate::gossip::{self, Gossip};
use crate::http::{self, HttpState};
use crate::identity::{DataDir, FORMAT, Identity, IdentityError, Membership};
use crate::join::{Admission, Verdict};
use crate::metrics::Metrics;
use crate::pg::listener::PgServer;
use crate::shard::{Input, ShardHandle, ShardParts};
use crate::shared::Shared;
use crate::sql_service::SqlService;
use crate::transport::connections::Connections;
use crate::transport::dial::Tcp;
use crate::transport::inbound::{Front, Services};
use crate::transport::outbound::Outbound;
use crate::transport::peers::NodePeers;
use crate::transport::server;
use crate::twin::Candidate;
use crate::world::{OsRandom, OsTime, TokioSpawn};
use crate::{addressing, clock_service, collector, flush, founding, join, streams};

/// Size of a segment of the Raft log.
const LOG_SEGMENT_BYTES: u64 = 16 << 20;

/// Pause between two tries of reading the catalog.
const CATALOG_PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// How a node's life ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It was asked to.
    AsAsked,
    /// It could not go on.
    Failed(String),
}

/// A running node.
pub struct Node {
    stop: CancellationToken,
    failed: tokio::sync::mpsc::UnboundedReceiver<String>,
    tasks: TaskTracker,
    late_tasks: TaskTracker,
    late_stop: CancellationToken,
    shard: ShardHandle,
    shard_thread: std::thread::JoinHandle<()>,
    clocks: Arc<clock_service::ClockService>,
    dir: Arc<DataDir>,
}

/// The ports, bound before anything else can fail.
struct Ports {
    sql: TcpListener,
    rpc: TcpListener,
    http: TcpListener,
}

async fn bind(what: &str, address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address)
        .await
        .map_err(|error| {
            let option = what.to_lowercase();
            format!("{what} address {address} cannot be used: {error} (choose another one with --{option}-addr)")
        })
}

impl Node {
    /// Starts a node; returns when it serves SQL. The error is for people.
    pub async fn start(config: Config) -> Result<Node, String> {
        let say = |error: &dyn std::fmt::Display| error.to_string();
        join::check_addresses(&config.join)?;
        let ports = Ports {
            sql: bind("SQL", config.sql_addr).await?,
            rpc: bind("RPC", config.rpc_addr).await?,
            http: bind("HTTP", config.http_addr).await?,
        };
        let random = OsRandom;
        let instance = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
        let (dir, identity) = DataDir::open(&config.data, instance).map_err(|error| say(&error))?;
        let dir = Arc::new(dir);
        let time = Arc::new(OsTime::default());

        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let front = Front::new(advertised(&config));
        let ready = Arc::new(AtomicBool::new(false));
        let sql_front = crate::sql_service::SqlFront::default();
        let (served, sql_served, rpc_stop) = (front.clone(), sql_front.clone(), stop.clone());
        let rpc_time = time.clone();
        tasks.spawn(async move {
            // The builder's own setting of it does not reach streams given to it.
            let incoming = TcpListenerStream::new(ports.rpc)
                .map(|accepted| accepted.and_then(|io| io.set_nodelay(true).map(|()| io)));
            server::serve(incoming, served, sql_served, rpc_stop, &*rpc_time).await;
        });

        let (identity, membership, opened, known) = belong(&config, &dir, identity, &*time).await?;
        let restart_floor = dir.clock_bounds().map_err(|error| say(&error))?.recorded;
        // Not before: nobody extends the clock's bound while we wait to be admitted.
        let clocks = clock_service::ClockService::start(time.clone(), &dir)
            .await
            .map_err(|error| say(&error))?;
        if membership == founding::membership(membership.cluster) && !opened.has_ranges() {
            let at = clocks.now();
            founding::found(&*opened.engine, &*opened.log, &config.region, identity.instance, at)
                .map_err(|error| say(&error))?;
            info!(cluster = format!("{:032x}", membership.cluster), "a new cluster was founded");
        }

        let own = own_entry(&config, &identity, membership);
        let mut directory = Directory::default();
        directory.merge(known);
        directory.merge([own.clone()]);
        let shared = Arc::new(Shared {
            cluster: membership.cluster,
            node: membership.node,
            region: membership.region,
            region_name: config.region.clone(),
            time: time.clone(),
            clocks: clocks.clone(),
            directory: parking_lot::RwLock::new(directory),
            faults: Faults::new(config.latencies.clone()),
            chaos: config.chaos,
        });

        let connections = Arc::new(Connections::new(shared.clone(), Arc::new(Tcp)));
        let handle = tokio::runtime::Handle::current();
        let runtime = Runtime {
            time: time.clone(),
            hlc: clocks.clone(),
            spawn: Arc::new(TokioSpawn(handle.clone())),
            random: Arc::new(OsRandom),
        };
        let outbound = Outbound::new(shared.clone(), connections.clone(), handle);
        let (fatal, mut failed) = tokio::sync::mpsc::unbounded_channel();
        let store_identity = StoreIdentity {
            cluster: membership.cluster,
            node: membership.node,
            incarnation: identity.incarnation,
        };
        let now = clock::Now { clock: clocks.now(), monotonic: time.monotonic() };
        let store = Store::open(
            store_config(&config),
            store_identity,
            opened.engine.clone(),
            opened.log_reader(),
            now,
            runtime.random.next_u64(),
            restart_floor,
        )
        .map_err(|error| say(&error))?;
        let (shard, shard_thread) = crate::shard::start(ShardParts {
            shard: Shard::new(ServerConfig::new(membership.node), store),
            engine: opened.engine.clone(),
            log: opened.log.clone(),
            time: time.clone(),
            hlc: clocks.clone(),
            outbox: Box::new(outbound.clone()),
            on_fatal: {
                let fatal = fatal.clone();
                Box::new(move |why| drop(fatal.send(why)))
            },
        });
        shard.send(Input::Event(Event::ClockBound(clocks.persisted_bound())));

        let twin_fatal = fatal.clone();
        let ends =
            Ends { crash: Box::new(crash), fail: Box::new(move |why| drop(twin_fatal.send(why))) };
        let control = Arc::new(Control::new(shared.clone(), shard.clone(), own, ends));
        let peers = Arc::new(NodePeers::new(shared.clone(), connections.clone(), shard.clone()));
        let router = Arc::new(Router::new(runtime.clone(), peers, RouterSettings::default()));
        let db = Db::new(runtime.clone(), router, Settings::default());
        let admission = Arc::new(Admission::new(shared.clone(), db.clone()));
        front.open(Arc::new(Services {
            shared: shared.clone(),
            shard: shard.clone(),
            admission,
            control: control.clone(),
            stop: stop.clone(),
        }));

        let gossip = Gossip {
            shared: shared.clone(),
            connections: connections.clone(),
            control: control.clone(),
            shard: shard.clone(),
            engine: opened.engine.clone(),
            join: config.join.clone(),
        };
        tasks.spawn(Arc::new(gossip).run(stop.clone()));
        let watch = gossip::watch_clock(shared.clone(), dir.clone(), shard.clone(), stop.clone());
        let clock_fatal = fatal.clone();
        tasks.spawn(async move {
            if let Err(why) = watch.await {
                drop(clock_fatal.send(why));
            }
        });
        tasks.spawn(addressing::run(shared.clone(), shard.clone(), db.clone(), stop.clone()));
        let late_stop = CancellationToken::new();
        let late_tasks = TaskTracker::new();
        late_tasks.spawn(flush::run(
            opened.engine.clone(),
            opened.log.clone(),
            shard.clone(),
            time.clone(),
            late_stop.clone(),
        ));

        let cluster =
            Arc::new(NodeCluster::new(shared.clone(), connections, control.clone(), db.clone()));
        let engine = sql::Engine::new(db, cluster.clone(), sql::EngineSettings::default());
        let pg = PgServer::new(engine.clone(), runtime);
        let metrics = Arc::new(Metrics::new(
            shared.clone(),
            shard.clone(),
            pg.clone(),
            opened.engine.clone(),
            opened.log.clone(),
            outbound,
        ));
        let pages = HttpState { ready: ready.clone(), metrics };
        let http_stop = stop.clone();
        tasks.spawn(async move {
            if let Err(error) = http::run(ports.http, pages, http_stop).await {
                tracing::error!(%error, "the HTTP pages ended");
            }
        });
        let bootstrap = Box::pin(read_catalog(&engine, &*time));
        match futures::future::select(bootstrap, Box::pin(failed.recv())).await {
            Either::Left((read, _)) => {
                read.map_err(|error| format!("the catalog cannot be read: {}", error.message))?;
            }
            Either::Right((why, _)) => return Err(why.unwrap_or_default()),
        }
        let refreshed = engine.clone();
        control.on_catalog_change(Box::new(move || {
            let engine = refreshed.clone();
            Box::pin(async move {
                if let Err(error) = engine.refresh_catalog().await {
                    tracing::warn!(error = error.message, "the catalog could not be read again");
                }
                engine.catalog().version()
            })
        }));
        let asked = engine.clone();
        control.on_question(Box::new(move |question| {
            let engine = asked.clone();
            Box::pin(async move { engine.answer(question).await })
        }));
        sql_front.open(SqlService {
            shared: shared.clone(),
            engine: engine.clone(),
            stop: stop.clone(),
        });
        tasks.spawn(collector::run(shared.clone(), engine.clone(), stop.clone()));
        tasks.spawn(streams::run(shared.clone(), control, engine, stop.clone()));
        tasks.spawn(pg.run(ports.sql, stop.clone()));
        ready.store(true, Ordering::Relaxed);
        info!(node = %membership.node, region = config.region, sql = %config.sql_addr, rpc = %config.rpc_addr, "the node serves");
        Ok(Node { stop, failed, tasks, late_tasks, late_stop, shard, shard_thread, clocks, dir })
    }

    /// Runs until `asked` is ready or the node fails, then stops everything.
    pub async fn run_until(mut self, asked: impl Future<Output = ()>) -> Stopped {
        let failed = Box::pin(self.failed.recv());
        let ended = match futures::future::select(Box::pin(asked), failed).await {
            Either::Left(_) => Stopped::AsAsked,
            Either::Right((why, _)) => Stopped::Failed(why.unwrap_or_default()),
        };
        info!("stopping");
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        // Last: the shard must still answer while the others end, and the flush leaves nothing to replay.
        self.late_stop.cancel();
        self.late_tasks.close();
        self.late_tasks.wait().await;
        self.shard.send(Input::Stop);
        let thread = self.shard_thread;
        if tokio::task::spawn_blocking(move || thread.join()).await.is_err() {
            return Stopped::Failed("the shard thread could not be joined".to_string());
        }
        if let Err(error) = self.clocks.close(&self.dir) {
            info!(%error, "the clock was not closed: the next start waits for a few seconds");
        }
        info!("stopped");
        ended
    }
}

/// Reads the catalog, or makes the first one. Waits for as long as it takes until a majority answers: others may be starting, too.
async fn read_catalog(engine: &sql::Engine, time: &dyn TimeSource) -> Result<(), sql::SqlError> {
    loop {
        match engine.bootstrap().await {
            // No quorum; a conflict; or unknown what became of it: doing it again does no harm.
            Err(error)
                if ["58000", "40001", "40003"].contains(&error.code.to_string().as_str()) =>
            {
                warn!(why = error.message, "waiting for a majority to read the catalog from");
                time.sleep_until(time.monotonic().plus(CATALOG_PAUSE)).await;
            }
            done => return done,
        }
    }
}

/// As a machine that loses power ends: no farewell, nothing flushed.
fn crash() {
    std::process::abort();
}

fn advertised(config: &Config) -> String {
    config.advertise_addr.clone().unwrap_or_else(|| config.rpc_addr.to_string())
}

fn own_entry(config: &Config, identity: &Identity, membership: Membership) -> NodeEntry {
    NodeEntry {
        node: membership.node.0,
        version: entry_version(identity.incarnation.0, 0),
        rpc_addr: advertised(config),
        sql_addr: config.sql_addr.to_string(),
        http_addr: config.http_addr.to_string(),
        region: config.region.clone(),
        region_id: u32::from(membership.region.0),
        zone: config.zone.clone(),
        draining: false,
    }
}

/// Finds out which cluster we belong to, and remembers it; the disk, and the nodes that are known of.
async fn belong(
    config: &Config,
    dir: &DataDir,
    mut identity: Identity,
    time: &dyn TimeSource,
) -> Result<(Identity, Membership, Disk, Vec<NodeEntry>), String> {
    let say = |error: IdentityError| error.to_string();
    if let Some(membership) = identity.membership {
        let disk = open_disk(config, dir, membership)?;
        let known = crate::directory::load(&*disk.engine);
        same_region(config, dir, membership, &known).map_err(say)?;
        let candidate = Candidate {
            membership,
            incarnation: identity.incarnation,
            address: &advertised(config),
            data: dir.path().to_path_buf(),
            join: &config.join,
            known: &known,
        };
        candidate.ask(time).await.map_err(|error| error.to_string())?;
        dir.store(&identity).map_err(say)?;
        return Ok((identity, membership, disk, known));
    }
    // Before we ask: asking again after a crash must be asking as the same one.
    dir.store(&identity).map_err(say)?;
    let request = JoinRequest {
        rpc_addr: advertised(config),
        sql_addr: config.sql_addr.to_string(),
        http_addr: config.http_addr.to_string(),
        region: config.region.clone(),
        zone: config.zone.clone(),
        format: FORMAT,
        instance: Bytes::copy_from_slice(&identity.instance.to_be_bytes()),
    };
    let (membership, known) = match join::ask(request, &config.join, time).await {
        Verdict::Member(membership, known) => (membership, known),
        Verdict::Found => {
            let random = OsRandom;
            let cluster = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
            (founding::membership(cluster), Vec::new())
        }
    };
    identity.membership = Some(membership);
    dir.store(&identity).map_err(say)?;
    let disk = open_disk(config, dir, membership)?;
    Ok((identity, membership, disk, known))
}

/// A node never moves: its region's id stands in what it has written.
fn same_region(
    config: &Config,
    dir: &DataDir,
    membership: Membership,
    known: &[NodeEntry],
) -> Result<(), IdentityError> {
    let node = membership.node;
    match crate::directory::newest(known, node) {
        Some(own) if own.region != config.region => Err(IdentityError::Foreign {
            path: dir.path().to_path_buf(),
            found: format!("{node} in region {}", own.region),
            wanted: format!("region {}: start it with its own --locality", config.region),
        }),
        Some(_) | None => Ok(()),
    }
}

/// The disk, opened.
struct Disk {
    engine: Arc<dyn Engine>,
    log: Arc<storage::log::SegmentedLog>,
}

impl Disk {
    fn log_reader(&self) -> Arc<dyn storage::log::LogReader> {
        self.log.clone()
    }

    fn has_ranges(&self) -> bool {
        let (start, end) = replication::range::range_states_span();
        let any = self
            .engine
            .scan(storage::Space::Local, &start, &end, storage::Direction::Forward)
            .next()
            .is_some();
        any
    }
}

fn open_disk(config: &Config, dir: &DataDir, membership: Membership) -> Result<Disk, String> {
    let say = |error: storage::StorageError| error.to_string();
    let options =
        storage::rocks::RocksOptions { cache_bytes: config.cache_bytes, ..Default::default() };
    let engine = storage::rocks::RocksEngine::open(&dir.state(), membership.cluster, options)
        .map_err(say)?;
    let directory = storage::log::DiskDir::open(dir.log()).map_err(say)?;
    let options =
        storage::log::LogOptions { segment_bytes: LOG_SEGMENT_BYTES, ..Default::default() };
    let log = storage::log::SegmentedLog::open(Arc::new(directory), options).map_err(say)?;
    Ok(Disk { engine: Arc::new(engine), log: Arc::new(log) })
}

/// Timeouts scale with the longest round trip that is known of.
fn store_config(config: &Config) -> StoreConfig {
    let mut store = StoreConfig::default();
    let four_trips = config.latencies.longest() * 4;
    store.promise_duration = store.promise_duration.max(four_trips);
    store.raft.election_timeout = store.raft.election_timeout.max(four_trips);
    store
}
