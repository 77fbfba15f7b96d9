//! Test double: a cluster of two regions in one process, and a client that prints what psql would.

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use replication::range::{NodeId, RegionId};
use sql::{
    ChaosCommand, ChaosSummary, ClockSummary, Cluster, Engine, EngineSettings, NodeSummary,
    Outcome, RangeSummary, Session, SessionParams, SqlError,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::{Arc, Weak};
use storage::mvcc::{Sequence, TxnId};
use storage::{Key, Span};
use txn::api::{Batch, Expect, Kv, Mutation, Request, TxnMeta, Wait};
use txn::client::{Db, Settings};
use txn::contention::Contention;
use txn::testing::{LocalKv, World};

/// A node of the test cluster.
pub(crate) struct Node {
    region: RegionId,
    kv: LocalKv,
    street: Arc<Street>,
}

/// The engines of all nodes, as they reach each other.
#[derive(Default)]
struct Street {
    engines: Mutex<BTreeMap<NodeId, Weak<Engine>>>,
    /// Answer nobody.
    silent: Mutex<BTreeSet<NodeId>>,
}

impl Cluster for Node {
    fn node(&self) -> NodeId {
        NodeId(u32::from(self.region.0))
    }
    fn region(&self) -> RegionId {
        self.region
    }
    fn region_name(&self, region: RegionId) -> Option<String> {
        self.regions().into_iter().find(|(id, _)| *id == region).map(|(_, name)| name)
    }
    fn regions(&self) -> Vec<(RegionId, String)> {
        vec![(RegionId(1), "east".into()), (RegionId(2), "west".into())]
    }
    fn nodes(&self) -> Vec<NodeSummary> {
        Vec::new()
    }
    fn clocks(&self) -> Vec<ClockSummary> {
        Vec::new()
    }
    fn ranges(&self) -> BoxFuture<'_, Vec<RangeSummary>> {
        let summary = |(number, span): (u64, Span)| RangeSummary {
            range: number,
            span,
            // Both regions lead some.
            leaseholder: Some(NodeId(1 + u32::from(number % 2 == 0))),
            replicas: Vec::new(),
        };
        let ranges = (1..).zip(self.kv.ranges()).map(summary).collect();
        Box::pin(std::future::ready(ranges))
    }
    fn chaos(&self, _: ChaosCommand) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async { Err("chaos is not allowed on this node".into()) })
    }
    fn chaos_active(&self) -> BoxFuture<'_, Vec<ChaosSummary>> {
        Box::pin(async { Vec::new() })
    }
    fn broadcast_catalog(&self, _: u64) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
    fn others(&self) -> Vec<NodeId> {
        let all = self.street.engines.lock();
        all.keys().copied().filter(|node| *node != self.node()).collect()
    }
    fn ask(&self, node: NodeId, question: Bytes) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(async move {
            if self.street.silent.lock().contains(&node) {
                return None;
            }
            let engine = self.street.engines.lock().get(&node)?.upgrade()?;
            engine.answer(question).await
        })
    }
    fn lock_waits(&self) -> BoxFuture<'_, Contention> {
        // The first node leads all ranges.
        let own = self.node() == NodeId(1);
        let waits = if own { self.kv.contention() } else { Contention::default() };
        Box::pin(std::future::ready(waits))
    }
    fn split(&self, at: Vec<Key>) -> BoxFuture<'_, Result<(), String>> {
        at.into_iter().for_each(|key| self.kv.split_at(key));
        Box::pin(async { Ok(()) })
    }
    fn settle(&self, _: Vec<(RegionId, Key)>) -> BoxFuture<'_, Vec<(RegionId, Key)>> {
        Box::pin(async { Vec::new() })
    }
}

/// Engines of both regions over one keyspace.
pub(crate) struct TestCluster {
    pub(crate) world: World,
    pub(crate) east: Arc<Engine>,
    pub(crate) west: Arc<Engine>,
    pub(crate) kv: LocalKv,
    street: Arc<Street>,
}

impl TestCluster {
    /// A fresh one.
    pub(crate) fn new() -> TestCluster {
        TestCluster::with_seed(7)
    }

    /// A fresh one, in which what may happen in any order happens in the seed's.
    pub(crate) fn with_seed(seed: u64) -> TestCluster {
        let world = World::new(seed);
        let kv = LocalKv::new(world.runtime());
        let street = Arc::new(Street::default());
        let engine = |region| {
            let db = Db::new(world.runtime(), Arc::new(kv.clone()), Settings::default());
            let (number, street) = (NodeId(u32::from(region)), street.clone());
            let node = Node { region: RegionId(region), kv: kv.clone(), street: street.clone() };
            let engine = Engine::new(db, Arc::new(node), EngineSettings::default());
            street.engines.lock().insert(number, Arc::downgrade(&engine));
            engine
        };
        let (east, west) = (engine(1), engine(2));
        world.block_on(async {
            east.bootstrap().await.expect("bootstraps");
            west.bootstrap().await.expect("is bootstrapped");
        });
        TestCluster { world, east, west, kv, street }
    }

    /// An intent in an index's first rows, of a transaction whose gateway has died. `table`: what all keys of its table (or of
    /// a copy of it) begin with.
    pub(crate) fn leave_intent(&self, table: &Key) {
        let key = Key::new([table.as_bytes(), &[0, 0, 0, 1, 0]].concat());
        let now = self.world.runtime().hlc.now().timestamp();
        let (id, anchor) = (TxnId::new(99), key.clone());
        let txn = Some(TxnMeta { id, anchor, started: now, priority: 1, stage: 0 });
        let (value, sequence) = (Some(Bytes::from_static(b"never committed")), Sequence::new(1));
        let mutations = vec![Mutation { key, value, expect: Expect::Anything, sequence }];
        let batch =
            Batch { txn, ..Batch::bare(now, Wait::Error, vec![Request::Write { mutations }]) };
        self.world.block_on(self.kv.send(batch)).expect("nothing is in its way");
    }

    /// From now on a node answers no other's questions.
    pub(crate) fn silence(&self, node: u32) {
        self.street.silent.lock().insert(NodeId(node));
    }

    /// Two gateways with what `setup` makes, a session at each.
    pub(crate) fn with_two_sessions(setup: &str) -> (TestCluster, Session, Session) {
        let cluster = TestCluster::new();
        let (mut one, two) = (cluster.session(&cluster.east), cluster.session(&cluster.west));
        let answer = cluster.run(&mut one, setup);
        assert!(!answer.contains("ERROR"), "{answer}");
        (cluster, one, two)
    }

    /// A session of `root`.
    pub(crate) fn session(&self, engine: &Arc<Engine>) -> Session {
        self.session_with(engine, &[])
    }

    /// The same, with settings.
    pub(crate) fn session_with(&self, engine: &Arc<Engine>, options: &[(&str, &str)]) -> Session {
        let option = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        let params = SessionParams {
            user: "root".into(),
            database: "meridian".into(),
            options: options.iter().map(option).collect(),
            ..SessionParams::default()
        };
        engine.session(params).expect("root may log in")
    }

    /// Runs a query string and prints its outcomes as `psql -A` would.
    pub(crate) fn run(&self, session: &mut Session, sql: &str) -> String {
        self.world.block_on(run(session, sql))
    }
}

/// Runs a query string and prints its outcomes.
pub(crate) async fn run(session: &mut Session, sql: &str) -> String {
    let mut out = String::new();
    let mut script = session.simple(sql).await;
    while let Some(result) = script.next(session).await {
        for notice in session.notices() {
            writeln!(out, "{}:  {}", notice.severity, notice.message).expect("a string");
        }
        match result {
            Ok(outcome) => print(&mut out, session, outcome),
            Err(error) => print_error(&mut out, &error),
        }
    }
    for notice in session.notices() {
        writeln!(out, "{}:  {}", notice.severity, notice.message).expect("a string");
    }
    out
}

fn print_error(out: &mut String, error: &SqlError) {
    write!(out, "ERROR:  {}", error.message).expect("a string");
    if let Some(position) = error.position {
        write!(out, " at character {position}").expect("a string");
    }
    writeln!(out, " [{}]", error.code).expect("a string");
}

fn print(out: &mut String, session: &Session, outcome: Outcome) {
    match outcome {
        Outcome::Rows { columns, rows, tag, .. } => {
            let names: Vec<&str> = columns.iter().map(|column| &*column.name).collect();
            writeln!(out, "{}", names.join("|")).expect("a string");
            for row in rows {
                let mut values = Vec::new();
                for (value, column) in row.iter().zip(columns.iter()) {
                    let mut bytes = bytes::BytesMut::new();
                    let there = session.encode_datum(value, column, 0, &mut bytes);
                    let text = String::from_utf8(bytes.to_vec()).expect("text is UTF-8");
                    values.push(if there { text } else { "NULL".into() });
                }
                writeln!(out, "{}", values.join("|")).expect("a string");
            }
            if let Some(tag) = tag.filter(|tag| {
                !tag.starts_with("SELECT")
                    && !tag.starts_with("SHOW")
                    && !tag.starts_with("FETCH")
                    && !tag.starts_with("EXPLAIN")
            }) {
                writeln!(out, "{tag}").expect("a string");
            }
        }
        Outcome::Complete { tag } => writeln!(out, "{tag}").expect("a string"),
        Outcome::Empty => {}
        Outcome::CopyIn { .. } => writeln!(out, "(copy in)").expect("a string"),
        Outcome::CopyOut { chunks, .. } => {
            for chunk in chunks {
                out.push_str(std::str::from_utf8(&chunk).expect("text is UTF-8"));
            }
        }
    }
}
