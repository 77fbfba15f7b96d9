//! One real shard: a store with a single replica over the in-memory engine and the segmented log,
//! killed and started again.

use bytes::Bytes;
use clock::{ClockTimestamp, Monotonic, Now, Timestamp};
use replication::raft::{Incarnation, ReplicaId};
use replication::range::{NodeId, Peer, PeerRole, RangeDescriptor, RangeId};
use replication::store::{Fencing, NodeInfo, Persisted, Store, StoreConfig, StoreIdentity};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use storage::log::{Log, LogOptions, SegmentedLog, SimDir};
use storage::mvcc::{Sequence, TxnId};
use storage::{Engine, Key, MemoryEngine, Span, WriteBatch};
use txn::api::{Batch, Expect, KvError, Mutation, Reply, Request, Response, TxnMeta, Wait};
use txn::server::{Event, RequestId, ServerConfig, Shard};

const NODE: NodeId = NodeId(1);

struct Node {
    engine: Arc<MemoryEngine>,
    log: Arc<SegmentedLog>,
    shard: Shard,
    micros: u64,
    answers: BTreeMap<RequestId, Result<Reply, KvError>>,
    last_request: u64,
}

fn now(micros: u64) -> Now {
    let clock = ClockTimestamp::from_raw(Timestamp::new(micros, 0).raw());
    Now { clock, monotonic: Monotonic::from_nanos(micros * 1000) }
}

fn open(
    engine: &Arc<MemoryEngine>,
    log: &Arc<SegmentedLog>,
    micros: u64,
    incarnation: u64,
    floor: Timestamp,
) -> Shard {
    let identity = StoreIdentity { cluster: 7, node: NODE, incarnation: Incarnation(incarnation) };
    let store = Store::open(
        StoreConfig::default(),
        identity,
        engine.clone(),
        log.clone(),
        now(micros),
        1,
        floor,
    );
    let mut shard = Shard::new(ServerConfig::new(NODE), store.expect("opens"));
    let info =
        NodeInfo { node: NODE, region: Default::default(), zone: "a".into(), draining: false };
    shard.step(now(micros), Event::Nodes(vec![info]));
    shard.step(now(micros), Event::ClockBound(Timestamp::MAX));
    shard
}

impl Node {
    fn new() -> Node {
        let options = LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
        let engine = Arc::new(MemoryEngine::new());
        let log = Arc::new(SegmentedLog::open(Arc::new(SimDir::new()), options).expect("opens"));
        let peers = vec![Peer { node: NODE, replica: ReplicaId(1), role: PeerRole::Voter }];
        let descriptor = RangeDescriptor {
            id: RangeId(1),
            span: Span::all(),
            generation: 1,
            peers,
            next_replica: 2,
        };
        Store::bootstrap(&*engine, &*log, &descriptor, WriteBatch::new()).expect("bootstraps");
        let micros = 1_000_000_000;
        let shard = open(&engine, &log, micros, 1, Timestamp::MIN);
        let mut node =
            Node { engine, log, shard, micros, answers: BTreeMap::new(), last_request: 0 };
        node.elect();
        node
    }

    /// Longer than a lone voter needs to lead.
    fn elect(&mut self) {
        for _ in 0..60 {
            self.pass(100_000);
        }
    }

    /// The process dies; of the engine only what was flushed is left. All of the log was synced.
    fn restart(&mut self) {
        self.engine = Arc::new(self.engine.crash());
        let floor = Timestamp::new(self.micros, 0).plus(Duration::from_secs(3));
        self.shard = open(&self.engine, &self.log, self.micros, 2, floor);
        self.answers.clear();
    }

    fn drive(&mut self) {
        while self.shard.has_ready() {
            let ready = self.shard.ready(now(self.micros));
            if ready.flush_before_write {
                self.engine.flush().expect("flushes");
            }
            if !ready.write.is_empty() {
                let sequence = self.log.append(ready.write).expect("appends");
                self.shard.step(now(self.micros), Event::Appended(sequence));
                let proof = Persisted::after_sync(self.log.sync().expect("syncs"));
                self.shard.step(now(self.micros), Event::Persisted(proof));
            }
            self.answers.extend(ready.replies);
        }
        assert!(self.shard.fatal().is_none(), "{:?}", self.shard.fatal());
    }

    fn pass(&mut self, micros: u64) {
        self.micros += micros;
        self.shard.step(now(self.micros), Event::Tick);
        self.drive();
    }

    fn call(&mut self, request: Request) -> Result<Response, KvError> {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        let read_at = Timestamp::new(self.micros, 0);
        let txn = TxnMeta {
            id: TxnId::new(1),
            anchor: Key::new("k"),
            started: read_at,
            priority: 1,
            stage: 0,
        };
        let batch = Batch { txn: Some(txn), ..Batch::bare(read_at, Wait::Error, vec![request]) };
        self.shard.step(now(self.micros), Event::Request { id, batch });
        self.drive();
        for _ in 0..100 {
            if let Some(result) = self.answers.remove(&id) {
                return result.map(|mut reply| reply.responses.remove(0));
            }
            self.pass(100_000);
        }
        panic!("no answer in ten seconds");
    }

    fn put(&mut self, key: &'static str, value: &'static str) -> Result<Response, KvError> {
        let (key, value) = (Key::new(key), Some(Bytes::from_static(value.as_bytes())));
        let mutation =
            Mutation { key, value, expect: Expect::Anything, sequence: Sequence::new(1) };
        self.call(Request::CommitOnePhase {
            mutations: vec![mutation],
            reads: Vec::new(),
            reads_elsewhere: false,
            deadline: Timestamp::MAX,
        })
    }

    fn value(&mut self, key: &'static str) -> Option<Bytes> {
        match self.call(Request::Get { key: Key::new(key), lock: None }) {
            Ok(Response::Get(row)) => row.map(|row| row.value),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_was_acknowledged_survives_a_restart() {
    let mut node = Node::new();
    assert!(matches!(node.put("k", "1"), Ok(Response::Committed(_))));
    assert!(matches!(node.put("q", "2"), Ok(Response::Committed(_))));
    assert_eq!(node.value("k").as_deref(), Some(&b"1"[..]));
    node.restart();
    node.elect();
    assert_eq!(node.value("k").as_deref(), Some(&b"1"[..]));
    assert_eq!(node.value("q").as_deref(), Some(&b"2"[..]));
    // What the former process may have served counts as read.
    let floor = Timestamp::new(node.micros, 0);
    match node.put("k", "3") {
        Ok(Response::Committed(ts)) => assert!(ts >= floor),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_split_range_serves_both_halves() {
    let mut node = Node::new();
    node.put("a", "1").expect("commits");
    node.put("z", "2").expect("commits");
    let split = Request::Split { at: Key::new("m"), right: RangeId(2) };
    match node.call(split.clone()) {
        Ok(Response::Split { left: Some(left), right }) => {
            assert_eq!(left.span.end, right.span.start);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(node.call(split), Ok(Response::Split { .. })), "idempotent");
    assert_eq!(node.value("a").as_deref(), Some(&b"1"[..]));
    assert_eq!(node.value("z").as_deref(), Some(&b"2"[..]));
    node.put("z", "3").expect("commits");
    assert_eq!(node.shard.lookup(&Key::new("z"))[0].id, RangeId(2));
    assert_eq!(node.shard.status(now(node.micros)).len(), 2);
    node.restart();
    node.elect();
    assert_eq!(node.value("z").as_deref(), Some(&b"3"[..]));
}

#[test]
fn a_fenced_node_serves_nothing_and_comes_back() {
    let mut node = Node::new();
    node.put("k", "1").expect("commits");
    node.shard.step(now(node.micros), Event::Fencing(Fencing::Fenced));
    node.pass(100_000);
    let refused = node.call(Request::Get { key: Key::new("k"), lock: None });
    assert!(
        matches!(refused, Err(KvError::NotLeaseholder { .. } | KvError::Unavailable { .. })),
        "{refused:?}"
    );
    node.shard.step(now(node.micros), Event::Fencing(Fencing::Serving));
    node.elect();
    assert_eq!(node.value("k").as_deref(), Some(&b"1"[..]));
}
