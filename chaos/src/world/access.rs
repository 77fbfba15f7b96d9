//! Driver: how clients, who are outside of the cluster, use it: they hold true time, choose a node, and lose what a crash takes.

use clock::{Sleep, TimeSource};
use futures::channel::oneshot;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use replication::range::{NodeId, RangeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use storage::Key;
use txn::api::{Batch, Request, Wait};
use txn::client::Db;
use txn::runtime::{Runtime, Spawn};

use super::executor::Spawner;
use super::time::{MachineClock, Truth};

/// What a client finds on a node.
#[derive(Clone)]
pub struct Gateway {
    /// Which node.
    pub node: NodeId,
    /// Which start of it.
    pub incarnation: u64,
    /// Transactions.
    pub db: Db,
    /// The process's seams.
    pub runtime: Runtime,
    /// SQL, if the world has it.
    pub sql: Option<Arc<sql::Engine>>,
}

/// Why a client has no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// Nobody listens there: nothing was begun.
    NotRunning,
    /// The process died meanwhile: nobody knows.
    Died,
}

/// Shared by all clients of a world.
pub struct Access {
    truth: Truth,
    clock: MachineClock,
    outside: Spawner,
    gateways: Mutex<BTreeMap<NodeId, (Gateway, Spawner)>>,
    nodes: Mutex<Vec<NodeId>>,
    stopping: AtomicBool,
    /// Operations that each client may begin; `None`: any number.
    allowed: Mutex<Option<u32>>,
    begun: Mutex<BTreeMap<u32, u32>>,
    next_range: Arc<AtomicU64>,
    /// Through which node something was asked, by true time.
    asked: Mutex<BTreeMap<u64, NodeId>>,
}

impl Access {
    /// For a world of these nodes.
    pub fn new(truth: Truth, outside: Spawner, nodes: Vec<NodeId>, next_range: u64) -> Access {
        Access {
            clock: MachineClock::new(truth.clone(), 0),
            truth,
            outside,
            gateways: Mutex::default(),
            nodes: Mutex::new(nodes),
            stopping: AtomicBool::new(false),
            allowed: Mutex::default(),
            begun: Mutex::default(),
            next_range: Arc::new(AtomicU64::new(next_range)),
            asked: Mutex::default(),
        }
    }

    pub(super) fn open(&self, gateway: Gateway, spawner: Spawner) {
        self.gateways.lock().insert(gateway.node, (gateway, spawner));
    }

    pub(super) fn range_numbers(&self) -> Arc<AtomicU64> {
        self.next_range.clone()
    }

    /// A range number that was never used.
    pub(super) fn take_range(&self) -> RangeId {
        RangeId(self.next_range.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn close(&self, node: NodeId) {
        let closed = self.gateways.lock().remove(&node);
        drop(closed);
    }

    /// All nodes, running or not, but those that are lost for good.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.nodes.lock().clone()
    }

    /// One is lost for good, another one takes its place.
    pub(super) fn replace(&self, lost: NodeId, by: NodeId) {
        let mut nodes = self.nodes.lock();
        nodes.retain(|node| *node != lost);
        nodes.push(by);
    }

    /// True time, nanoseconds since the world began.
    pub fn now(&self) -> u64 {
        self.truth.now()
    }

    /// Waits in true time.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.clock.sleep_until(self.clock.monotonic().plus(duration))
    }

    /// Asks the clients to end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Each client ends after so many operations; `None`: when it is asked to.
    pub(crate) fn allow(&self, operations: Option<u32>) {
        *self.allowed.lock() = operations;
    }

    /// Whether a client that wants to begin another operation may, or should end.
    pub(crate) fn may_begin(&self, client: u32) -> bool {
        let mut begun = self.begun.lock();
        let begun = begun.entry(client).or_default();
        *begun += 1;
        let allowed = *self.allowed.lock();
        !self.stopping.load(Ordering::Relaxed) && allowed.is_none_or(|allowed| *begun <= allowed)
    }

    /// Starts a task outside of the cluster.
    pub fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.outside.spawn(task);
    }

    /// Runs `work` in the process that now serves on `node`; it dies with the process.
    pub async fn on_node<T, W>(&self, node: NodeId, work: W) -> Result<T, Lost>
    where
        T: Send + 'static,
        W: FnOnce(Gateway) -> BoxFuture<'static, T>,
    {
        self.asked.lock().insert(self.now(), node);
        let found = self.gateways.lock().get(&node).cloned();
        let (gateway, spawner) = found.ok_or(Lost::NotRunning)?;
        let (sender, answer) = oneshot::channel();
        let work = work(gateway);
        spawner.spawn(Box::pin(async move {
            drop(sender.send(work.await));
        }));
        answer.await.map_err(|_| Lost::Died)
    }

    /// Through which node somebody asked at this true time.
    pub fn asked_on(&self, time: u64) -> Option<NodeId> {
        self.asked.lock().get(&time).copied()
    }

    /// Makes `at` the first key of a range, trying until it is.
    pub async fn split(&self, at: Key) {
        loop {
            let right = self.take_range();
            let key = at.clone();
            let node = self.nodes()[0];
            let split = self
                .on_node(node, move |gateway| {
                    Box::pin(async move {
                        let batch = admin(&gateway.db, Request::Split { at: key, right });
                        gateway.db.kv().send(batch).await
                    })
                })
                .await;
            match split {
                Ok(Ok(_)) => return,
                Ok(Err(error)) => tracing::debug!(%error, "no split yet"),
                Err(lost) => tracing::debug!(?lost, "no split yet"),
            }
            self.sleep(Duration::from_millis(200)).await;
        }
    }
}

/// A batch of one request of no transaction.
pub(super) fn admin(db: &Db, request: Request) -> Batch {
    let now = db.runtime().hlc.now().timestamp();
    Batch::bare(now, Wait::Queue(txn::api::WAIT_SLICE), vec![request])
}

/// What every client holds.
pub type SharedAccess = Arc<Access>;
