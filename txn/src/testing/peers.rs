//! Driver over a value: nodes that lead the ranges of a [`LocalKv`], as a router sees them: ranges that have moved or split, leases
//! that are elsewhere, messages and answers that are lost, and messages that come twice.

use futures::future::BoxFuture;
use parking_lot::Mutex;
use replication::raft::ReplicaId;
use replication::range::{NodeId, Peer, PeerRole, RangeDescriptor, RangeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use storage::{Key, Span};

use crate::api::{Batch, Kv, KvError, Peers, Reply, Request};
use crate::runtime::Runtime;
use crate::testing::LocalKv;

/// What happens to one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It arrives, and so does its answer.
    Delivered,
    /// It never arrives.
    LostBefore,
    /// It arrives, its answer does not.
    LostAfter,
    /// It never arrives, and nobody says so.
    Swallowed,
    /// It arrives, its answer does not, and nobody says so.
    SwallowedAfter,
    /// It arrives; its answer takes longer than others are patient.
    Slow,
    /// It arrives, and so does its answer; each takes this long.
    Far(Duration),
    /// It does not arrive now, but after its sender has given up.
    Late,
    /// It arrives twice: now, and again later.
    Twice,
}

type Decide = Box<dyn FnMut(NodeId, &Batch) -> Fate + Send>;

/// Nodes that share one keyspace. Clones are the same ones.
#[derive(Clone)]
pub struct LocalPeers {
    runtime: Runtime,
    kv: LocalKv,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    nodes: Vec<NodeId>,
    /// By first key: the range and its leaseholder.
    ranges: BTreeMap<Key, (RangeDescriptor, NodeId)>,
    /// What lookups answer instead of the truth: as of some earlier time.
    stale: Option<Vec<RangeDescriptor>>,
    lookups_take: Duration,
    /// No node knows of any range.
    is_lost: bool,
    next_range: u64,
    generation: u64,
    decide: Option<Decide>,
    sent: u64,
}

/// How late the answer of a slow node is.
const SLOW: Duration = Duration::from_millis(1500);
/// How late a late message is.
const LATE: Duration = Duration::from_millis(700);

impl LocalPeers {
    /// `node_count` nodes, all with a replica of the only range; the first leads it.
    pub fn new(runtime: Runtime, kv: LocalKv, node_count: u32) -> LocalPeers {
        let nodes: Vec<NodeId> = (1..=node_count).map(NodeId).collect();
        let peers = nodes
            .iter()
            .map(|node| Peer {
                node: *node,
                replica: ReplicaId(u64::from(node.0)),
                role: PeerRole::Voter,
            })
            .collect();
        let whole = RangeDescriptor {
            id: RangeId(1),
            span: Span::all(),
            generation: 1,
            peers,
            next_replica: u64::from(node_count) + 1,
        };
        let ranges = BTreeMap::from([(Key::MIN, (whole, NodeId(1)))]);
        let shared = Shared {
            nodes,
            ranges,
            stale: None,
            lookups_take: Duration::ZERO,
            is_lost: false,
            next_range: 2,
            generation: 1,
            decide: None,
            sent: 0,
        };
        LocalPeers { runtime, kv, shared: Arc::new(Mutex::new(shared)) }
    }

    /// Splits the range of `key` there. Nobody is told.
    pub fn split_at(&self, key: Key) {
        self.kv.split_at(key.clone());
        let mut shared = self.shared.lock();
        shared.generation += 1;
        let (generation, id) = (shared.generation, RangeId(shared.next_range));
        shared.next_range += 1;
        let start = shared.ranges.range(..=key.clone()).next_back().map(|(start, _)| start.clone());
        let entry =
            start.and_then(|start| shared.ranges.get_mut(&start)).expect("ranges cover all keys");
        let (left, leaseholder) = entry;
        let mut right = left.clone();
        (left.generation, right.generation) = (generation, generation);
        (left.span.end, right.span.start) = (key.clone(), key.clone());
        right.id = id;
        let leaseholder = *leaseholder;
        shared.ranges.insert(key, (right, leaseholder));
    }

    /// Moves the lease of the range of `key`. Nobody is told.
    pub fn move_lease(&self, key: &Key, to: NodeId) {
        let mut shared = self.shared.lock();
        if let Some((_, (_, leaseholder))) = shared.ranges.range_mut(..=key.clone()).next_back() {
            *leaseholder = to;
        }
    }

    /// From now on lookups answer what is true now, whatever happens.
    pub fn freeze_lookups(&self) {
        let mut shared = self.shared.lock();
        shared.stale = Some(shared.ranges.values().map(|(range, _)| range.clone()).collect());
    }

    /// Whether nodes know of no range from now on, neither their own nor others'.
    pub fn lose_ranges(&self, lost: bool) {
        self.shared.lock().is_lost = lost;
    }

    /// From now on each lookup is answered after so long.
    pub fn delay_lookups(&self, by: Duration) {
        self.shared.lock().lookups_take = by;
    }

    /// From now on `decide` says what happens to each message.
    pub fn set_fates(&self, decide: impl FnMut(NodeId, &Batch) -> Fate + Send + 'static) {
        self.shared.lock().decide = Some(Box::new(decide));
    }

    /// From now on every message is delivered.
    pub fn heal(&self) {
        self.shared.lock().decide = None;
    }

    /// Messages sent so far.
    pub fn sent(&self) -> u64 {
        self.shared.lock().sent
    }

    fn fate(&self, to: NodeId, batch: &Batch) -> Fate {
        let mut shared = self.shared.lock();
        shared.sent += 1;
        match shared.decide.as_mut() {
            Some(decide) => decide(to, batch),
            None => Fate::Delivered,
        }
    }

    /// What the node itself checks before it evaluates.
    fn check(&self, to: NodeId, batch: &Batch) -> Result<(), KvError> {
        let shared = self.shared.lock();
        let Some((id, generation)) = batch.range else {
            return Err(KvError::Invalid("a batch without a range".into()));
        };
        if shared.is_lost {
            return Err(KvError::RangeMismatch { range: id, known: Vec::new() });
        }
        let known: Vec<RangeDescriptor> =
            shared.ranges.values().map(|(range, _)| range.clone()).collect();
        let Some((range, leaseholder)) = shared.ranges.values().find(|(range, _)| range.id == id)
        else {
            return Err(KvError::RangeMismatch { range: id, known });
        };
        let inside = batch
            .requests
            .iter()
            .all(|request| keys_of(batch, request).iter().all(|span| range.span.covers(span)));
        if generation != range.generation || !inside {
            return Err(KvError::RangeMismatch { range: id, known });
        }
        if *leaseholder != to {
            return Err(KvError::NotLeaseholder { range: id, hint: Some(*leaseholder) });
        }
        Ok(())
    }

    async fn arrive(&self, to: NodeId, batch: Batch) -> Result<Reply, KvError> {
        self.check(to, &batch)?;
        self.kv.send(batch).await
    }

    fn arrive_later(&self, to: NodeId, batch: Batch) {
        let peers = self.clone();
        let when = self.runtime.time.monotonic().plus(LATE);
        self.runtime.spawn.spawn(Box::pin(async move {
            peers.runtime.time.sleep_until(when).await;
            // Nobody waits for this answer.
            let _ = peers.arrive(to, batch).await;
        }));
    }

    async fn travel(&self, to: NodeId, batch: Batch) -> Result<Reply, KvError> {
        match self.fate(to, &batch) {
            Fate::Delivered => self.arrive(to, batch).await,
            Fate::LostBefore => Err(KvError::Unreachable { node: to, sent: false }),
            Fate::LostAfter => {
                let _ = self.arrive(to, batch).await;
                Err(KvError::Unreachable { node: to, sent: true })
            }
            Fate::Swallowed => futures::future::pending().await,
            Fate::SwallowedAfter => {
                let _ = self.arrive(to, batch).await;
                futures::future::pending().await
            }
            Fate::Slow => {
                let answer = self.arrive(to, batch).await;
                let time = &self.runtime.time;
                time.sleep_until(time.monotonic().plus(SLOW)).await;
                answer
            }
            Fate::Far(way) => {
                let time = &self.runtime.time;
                time.sleep_until(time.monotonic().plus(way)).await;
                let answer = self.arrive(to, batch).await;
                time.sleep_until(time.monotonic().plus(way)).await;
                answer
            }
            Fate::Late => {
                self.arrive_later(to, batch);
                Err(KvError::Unreachable { node: to, sent: true })
            }
            Fate::Twice => {
                // The transport delivers a commit once; where one was carried out, and is idempotent, a copy does no harm.
                let copy = batch.clone();
                let one_phase =
                    |request: &Request| matches!(request, Request::CommitOnePhase { .. });
                if !batch.is_commit() {
                    self.arrive_later(to, copy);
                    return self.arrive(to, batch).await;
                }
                let answer = self.arrive(to, batch).await;
                if answer.is_ok() && !copy.requests.iter().any(one_phase) {
                    self.arrive_later(to, copy);
                }
                answer
            }
        }
    }
}

/// The keys a range must hold to serve the request.
fn keys_of(batch: &Batch, request: &Request) -> Vec<Span> {
    let anchor = |key: &Key| vec![Span::point(key)];
    match request {
        Request::Get { key, .. } => anchor(key),
        Request::Scan { span, .. }
        | Request::Refresh { span, .. }
        | Request::Changes { span, .. }
        | Request::Fence { span, .. }
        | Request::Gc { span, .. } => vec![span.clone()],
        Request::Write { mutations } => {
            mutations.iter().map(|mutation| Span::point(&mutation.key)).collect()
        }
        Request::CommitOnePhase { mutations, reads, .. } => mutations
            .iter()
            .map(|mutation| Span::point(&mutation.key))
            .chain(reads.iter().cloned())
            .collect(),
        Request::Resolve { spans, .. } | Request::Unlock { spans, .. } => spans.clone(),
        Request::QueryWrites { writes, .. } => {
            writes.iter().map(|(key, _)| Span::point(key)).collect()
        }
        Request::Stage { .. } | Request::EndTxn { .. } | Request::Heartbeat => {
            batch.txn.iter().flat_map(|txn| anchor(&txn.anchor)).collect()
        }
        Request::Push { pushee, .. } => anchor(&pushee.anchor),
        Request::QueryTxn { anchor: key, .. } | Request::ForgetTxn { anchor: key, .. } => {
            anchor(key)
        }
        Request::Settle { key, .. } => anchor(key),
        Request::Split { at, .. } => anchor(at),
        Request::TransferLease { .. } => Vec::new(),
    }
}

impl Peers for LocalPeers {
    fn send(&self, to: NodeId, batch: Batch) -> BoxFuture<'_, Result<Reply, KvError>> {
        Box::pin(self.travel(to, batch))
    }

    fn lookup(
        &self,
        _to: NodeId,
        key: Key,
    ) -> BoxFuture<'_, Result<Vec<RangeDescriptor>, KvError>> {
        let shared = self.shared.lock();
        let ranges = match &shared.stale {
            _ if shared.is_lost => Vec::new(),
            Some(stale) => stale.clone(),
            None => shared.ranges.values().map(|(range, _)| range.clone()).collect(),
        };
        let found = ranges.into_iter().filter(|range| range.span.contains(&key)).collect();
        let time = &self.runtime.time;
        let answered = time.sleep_until(time.monotonic().plus(shared.lookups_take));
        Box::pin(async move {
            answered.await;
            Ok(found)
        })
    }

    fn nearest(&self) -> Vec<NodeId> {
        self.shared.lock().nodes.clone()
    }
}
