//! Driver: nodes with the real transport and no more: in place of each one's shard stands [`Desk`], which notes what it is asked, thinks for
//! a while and answers. One thread, tokio's virtual time, one seed for links, pauses and faults.
//!
//! What the transport reads of the OS's clocks it only adds to (how long to wait): the waiting itself is virtual.

use bytes::Bytes;
use clock::{ClockTimestamp, Hlc, Monotonic, Sleep, TimeSource, Timestamp, WallTime};
use crossbeam::channel::{Receiver, TryRecvError};
use futures::future::{Either, select};
use node::clock_service::ClockService;
use node::control::{Control, Ends};
use node::directory::{Directory, entry_version};
use node::faults::{Faults, Latencies};
use node::gossip::watch_clock;
use node::identity::DataDir;
use node::join::Admission;
use node::shard::{Input, Outbox, ReplyTo, ShardHandle};
use node::shared::{Chaos, Shared};
use node::sql_service::SqlFront;
use node::transport::connections::Connections;
use node::transport::inbound::{Front, Services};
use node::transport::outbound::Outbound;
use node::transport::peers::NodePeers;
use node::transport::server;
use node::world::{OsTime, TokioSpawn};
use parking_lot::Mutex;
use proto::internal::NodeEntry;
use replication::raft::ReplicaId;
use replication::range::{NodeId, RangeId, RegionId};
use replication::store::StoreMessage;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use storage::Key;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use txn::api::{Batch, KvError, Peers, Reply, Request, Response, Row, Wait};
use txn::client::{Db, Settings};
use txn::runtime::{HlcSource, Random, Runtime};
use txn::testing::{LocalKv, World as Seeds};

use super::network::{Network, Weather};

const CLUSTER: u128 = 7;
/// How often a desk looks into its inbox.
const DESK_INTERVAL: Duration = Duration::from_millis(2);

/// What all nodes of a test share.
pub(crate) struct Scene {
    pub(crate) network: Network,
    pub(crate) random: Arc<dyn Random>,
    disk: tempfile::TempDir,
}

/// Plays one scene to its end.
pub(crate) fn play<T, F: Future<Output = T>>(
    seed: u64,
    weather: Weather,
    play: impl FnOnce(Arc<Scene>) -> F,
) -> T {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("the OS gives a runtime");
    let random = Seeds::new(seed).runtime().random;
    let network = Network::new(random.clone(), weather);
    let disk = tempfile::tempdir().expect("a place for clocks");
    let scene = Arc::new(Scene { network, random, disk });
    tokio::task::LocalSet::new().block_on(&tokio, async { play(scene).await })
}

impl Scene {
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    pub(crate) async fn pause_below(&self, milliseconds: u64) {
        sleep(Duration::from_millis(self.below(milliseconds))).await;
    }

    /// The seams of what runs above the KV line.
    pub(crate) fn runtime(&self) -> Runtime {
        let time = Arc::new(VirtualTime(Instant::now()));
        Runtime {
            hlc: Arc::new(VirtualClock { hlc: Hlc::unbounded(), time: time.clone() }),
            time,
            spawn: Arc::new(TokioSpawn(tokio::runtime::Handle::current())),
            random: self.random.clone(),
        }
    }

    /// Nodes 1 and 2, each serving at its address.
    pub(crate) async fn pair(self: &Arc<Scene>) -> (Arc<Node>, Arc<Node>) {
        let (one, two) = (Node::new(self, 1).await, Node::new(self, 2).await);
        one.serve(SqlFront::default());
        two.serve(SqlFront::default());
        (one, two)
    }
}

/// Ends tasks that go on for ever.
///
/// # Panics
/// As one of them did.
pub(crate) async fn end(tasks: impl IntoIterator<Item = JoinHandle<()>>) {
    for task in tasks {
        task.abort();
        match task.await {
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Ok(()) | Err(_) => {}
        }
    }
}

/// Where node `id` listens.
pub(crate) fn address(id: u32) -> String {
    format!("n{id}:1")
}

/// A node's transport.
pub(crate) struct Node {
    scene: Arc<Scene>,
    pub(crate) id: NodeId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) outbound: Outbound,
    pub(crate) peers: Arc<NodePeers>,
    pub(crate) control: Arc<Control>,
    pub(crate) desk: Arc<Desk>,
    shard: ShardHandle,
    served: Mutex<Option<(CancellationToken, JoinHandle<()>)>>,
}

impl Node {
    pub(crate) async fn new(scene: &Arc<Scene>, id: u32) -> Arc<Node> {
        let path = scene.disk.path().join(id.to_string());
        let (dir, _) = DataDir::open(&path, u128::from(id)).expect("a new directory");
        let time = Arc::new(OsTime::default());
        let clocks = ClockService::start(time.clone(), &dir).await.expect("nothing is waited for");
        let entries = [1, 2].map(|node| NodeEntry {
            node,
            version: entry_version(1, 0),
            rpc_addr: address(node),
            region: "eu".to_string(),
            region_id: 1,
            ..NodeEntry::default()
        });
        let mut directory = Directory::default();
        directory.merge(entries.clone());
        let shared = Arc::new(Shared {
            cluster: CLUSTER,
            node: NodeId(id),
            region: RegionId(1),
            region_name: "eu".to_string(),
            time,
            clocks,
            directory: parking_lot::RwLock::new(directory),
            faults: Faults::new(Latencies::default()),
            chaos: Chaos::Forbidden,
        });
        let (shard, inbox) = ShardHandle::new();
        let desk = Arc::new(Desk::new(scene.random.clone()));
        let tokio = tokio::runtime::Handle::current();
        tokio.spawn(desk.clone().work(inbox));
        let watched =
            watch_clock(shared.clone(), Arc::new(dir), shard.clone(), CancellationToken::new());
        tokio.spawn(async move { watched.await.expect("the clock's bound is kept ahead") });
        let connections =
            Arc::new(Connections::new(shared.clone(), Arc::new(scene.network.clone())));
        let ends = Ends { crash: Box::new(|| {}), fail: Box::new(|why| panic!("{why}")) };
        let own = entries[id as usize - 1].clone();
        Arc::new(Node {
            scene: scene.clone(),
            id: NodeId(id),
            outbound: Outbound::new(shared.clone(), connections.clone(), tokio),
            peers: Arc::new(NodePeers::new(shared.clone(), connections.clone(), shard.clone())),
            control: Arc::new(Control::new(shared.clone(), shard.clone(), own, ends)),
            shared,
            connections,
            desk,
            shard,
            served: Mutex::default(),
        })
    }

    /// Listens at its address, until [`Node::stop`]; what ends when the node stops.
    pub(crate) fn serve(self: &Arc<Node>, sql: SqlFront) -> CancellationToken {
        let stop = CancellationToken::new();
        let front = self.listen(sql, stop.clone());
        let runtime = self.scene.runtime();
        let db = Db::new(runtime.clone(), Arc::new(LocalKv::new(runtime)), Settings::default());
        front.open(Arc::new(Services {
            shared: self.shared.clone(),
            shard: self.shard.clone(),
            admission: Arc::new(Admission::new(self.shared.clone(), db)),
            control: self.control.clone(),
            stop: stop.clone(),
        }));
        stop
    }

    /// Listens as a node that starts and has nothing to serve yet.
    pub(crate) fn listen(&self, sql: SqlFront, stop: CancellationToken) -> Front {
        let front = Front::new(address(self.id.0));
        let incoming = self.scene.network.listen(&address(self.id.0));
        let (served, time, token) = (front.clone(), self.shared.time.clone(), stop.clone());
        let serving = tokio::runtime::Handle::current()
            .spawn(async move { server::serve(incoming, served, sql, token, &*time).await });
        *self.served.lock() = Some((stop, serving));
        front
    }

    /// Stops in good order; how long that took.
    pub(crate) async fn stop(&self) -> Duration {
        let (stop, serving) = self.served.lock().take().expect("it serves");
        let begun = Instant::now();
        stop.cancel();
        serving.await.expect("it does not panic");
        begun.elapsed()
    }

    /// Sends one store message with a number and so many bytes.
    pub(crate) fn tell(&self, to: NodeId, number: u64, bytes: usize) {
        self.outbound.send(to, vec![numbered(number, bytes)]);
    }

    /// Asks node `to` under a number.
    pub(crate) async fn ask(&self, to: NodeId, number: u64) -> Result<Reply, KvError> {
        self.peers.send(to, question(number)).await
    }
}

/// A store message that can be told from others.
pub(crate) fn numbered(number: u64, bytes: usize) -> StoreMessage {
    let (range, replica) = (RangeId(number), ReplicaId(1));
    if bytes == 0 {
        return StoreMessage::Probe { range, replica };
    }
    StoreMessage::SnapshotChunk {
        range,
        from: replica,
        to: replica,
        term: Default::default(),
        attempt: 1,
        number: 1,
        data: Bytes::from(vec![7; bytes]),
        last: false,
    }
}

fn number_of(message: &StoreMessage) -> u64 {
    match message {
        StoreMessage::Probe { range, .. } | StoreMessage::SnapshotChunk { range, .. } => range.0,
        other => panic!("nobody sent {other:?}"),
    }
}

/// A batch that can be told from others.
pub(crate) fn question(number: u64) -> Batch {
    let key = Key::new(number.to_be_bytes().to_vec());
    Batch::bare(Timestamp::MIN, Wait::Error, vec![Request::Get { key, lock: None }])
}

/// How long a desk thinks about a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Thinking {
    /// Less than so many milliseconds.
    Below(u64),
    Exactly(Duration),
    ForEver,
}

/// Stands in place of a shard.
pub(crate) struct Desk {
    random: Arc<dyn Random>,
    pub(crate) thinking: Mutex<Thinking>,
    /// Bytes of the row that it answers with.
    pub(crate) answer_bytes: AtomicUsize,
    /// How often each call was carried out.
    pub(crate) executed: Mutex<BTreeMap<u64, u32>>,
    /// Numbers of store messages, as they came.
    pub(crate) heard: Mutex<Vec<u64>>,
    /// Calls whose caller waits.
    pub(crate) waiting: AtomicUsize,
    /// Calls that were withdrawn, because their callers had left.
    pub(crate) withdrawn: AtomicU64,
}

impl Desk {
    fn new(random: Arc<dyn Random>) -> Desk {
        Desk {
            random,
            thinking: Mutex::new(Thinking::Below(1)),
            answer_bytes: AtomicUsize::new(0),
            executed: Mutex::default(),
            heard: Mutex::default(),
            waiting: AtomicUsize::new(0),
            withdrawn: AtomicU64::new(0),
        }
    }

    async fn work(self: Arc<Desk>, inbox: Receiver<Input>) {
        loop {
            match inbox.try_recv() {
                Ok(Input::Messages(_, messages)) => {
                    self.heard.lock().extend(messages.iter().map(number_of));
                }
                Ok(Input::Request(_, batch, reply)) => self.take(&batch, reply),
                Ok(Input::Cancel(_)) => {
                    self.withdrawn.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Input::Lookup(_, reply)) => drop(reply.send(Vec::new())),
                Ok(_) => {}
                Err(TryRecvError::Empty) => sleep(DESK_INTERVAL).await,
                Err(TryRecvError::Disconnected) => return,
            }
        }
    }

    fn take(self: &Arc<Desk>, batch: &Batch, reply: ReplyTo) {
        let Some(Request::Get { key, .. }) = batch.requests.first() else {
            panic!("nobody sent {batch:?}")
        };
        let bytes = self.answer_bytes.load(Ordering::Relaxed);
        let value = Bytes::from(vec![7; bytes]);
        let row = Row { key: key.clone(), value, ts: Timestamp::MIN };
        let response = Response::Get((bytes > 0).then_some(row));
        let number = key.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        *self.executed.lock().entry(number).or_default() += 1;
        let thinking = *self.thinking.lock();
        let thought: Option<Duration> = match thinking {
            Thinking::Below(bound) => {
                Some(Duration::from_millis(self.random.next_u64() % bound.max(1)))
            }
            Thinking::Exactly(duration) => Some(duration),
            Thinking::ForEver => None,
        };
        let desk = self.clone();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        tokio::runtime::Handle::current().spawn(async move {
            desk.answer(reply, response, thought).await;
            desk.waiting.fetch_sub(1, Ordering::Relaxed);
        });
    }

    async fn answer(&self, mut reply: ReplyTo, response: Response, thought: Option<Duration>) {
        let think = async {
            match thought {
                Some(duration) => sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        if let Either::Right(_) = select(pin!(think), pin!(reply.closed())).await {
            return;
        }
        let (clock, read_at) = (ClockTimestamp::MIN, Timestamp::MIN);
        let (eras, read_high) = (Vec::new(), Timestamp::MIN);
        let (responses, skipped) = (vec![response], Vec::new());
        let answer = Reply { responses, clock, read_at, range: None, eras, read_high, skipped };
        drop(reply.send(Ok(answer)));
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn heard(&self) -> Vec<u64> {
        self.heard.lock().clone()
    }
}

/// Tokio's virtual time since a moment.
struct VirtualTime(Instant);

impl TimeSource for VirtualTime {
    fn wall(&self) -> WallTime {
        let passed = u64::try_from(self.0.elapsed().as_micros()).expect("tests are short");
        WallTime::from_micros(1_700_000_000_000_000 + passed)
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic::from_nanos(u64::try_from(self.0.elapsed().as_nanos()).expect("tests are short"))
    }

    fn sleep_until(&self, deadline: Monotonic) -> Sleep {
        Box::pin(sleep(deadline.since(self.monotonic())))
    }
}

struct VirtualClock {
    hlc: Hlc,
    time: Arc<VirtualTime>,
}

impl HlcSource for VirtualClock {
    fn now(&self) -> ClockTimestamp {
        self.hlc.now(self.time.wall())
    }

    fn observe(&self, remote: ClockTimestamp) -> Result<(), Timestamp> {
        let observed = self.hlc.observe(self.time.wall(), remote, Duration::from_millis(250));
        observed.map(drop).map_err(|_| remote.timestamp())
    }

    fn uncertainty(&self) -> Duration {
        Duration::ZERO
    }
}
