//! The real connection loop on virtual time, with clients that come, vanish between any two bytes, stop reading, fall silent, cancel each
//! other's statements, and a node that stops in the middle. One seed, one run.
//!
//! Whatever they do: every answer is the protocol; what was acknowledged is there, once; nobody's locks outlive him; no connection is
//! left over.

mod link;
mod wire;

use futures::future::{BoxFuture, select};
use node::pg::listener::PgServer;
use parking_lot::Mutex;
use sql::testing::Alone;
use sql::{Engine, EngineSettings};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use txn::client::{Db, Settings};
use txn::runtime::Random;
use txn::testing::{LocalKv, World};

use link::link;
use wire::{Cycle, Gone, Wire, cancel, extended, message, query, startup};

const SEEDS: u64 = 200;
const CLIENTS: u64 = 5;
const ROWS: u64 = 4;
/// Connections that a client makes, one after the other.
const CONNECTIONS: u64 = 4;
/// After so long the kernel's keep-alive cuts off a silent client.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// A statement that waits for nobody ends within this.
const PROMPT: Duration = Duration::from_secs(20);

/// Increments whose end is known, and those that may or may not have happened.
#[derive(Default, Debug)]
struct Ledger {
    acknowledged: u64,
    doubtful: u64,
}

struct Scene {
    world: World,
    random: Arc<dyn Random>,
    server: Arc<PgServer>,
    /// Connections whose server side runs, with what their client did last.
    open: Mutex<BTreeMap<u64, &'static str>>,
    stop: CancellationToken,
    ledger: Mutex<Ledger>,
    cancelled: AtomicUsize,
    vanished: AtomicUsize,
}

#[test]
fn whatever_clients_do_acknowledged_work_stays_and_nothing_is_left_behind() {
    let (mut acknowledged, mut doubtful, mut cancelled, mut vanished) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        let scene = play(seed);
        let ledger = scene.ledger.lock();
        acknowledged += ledger.acknowledged;
        doubtful += ledger.doubtful;
        cancelled += scene.cancelled.load(Ordering::Relaxed);
        vanished += scene.vanished.load(Ordering::Relaxed);
    }
    // A run in which nothing happened proves nothing.
    assert!(acknowledged > 10 * SEEDS, "{acknowledged} increments were acknowledged");
    assert!(doubtful > SEEDS / 4, "{doubtful} increments were in doubt");
    assert!(cancelled > SEEDS as usize / 4, "{cancelled} statements were cancelled");
    assert!(vanished > SEEDS as usize, "{vanished} clients vanished");
}

fn play(seed: u64) -> Arc<Scene> {
    let world = World::new(seed);
    let runtime = world.runtime();
    let db = Db::new(world.runtime(), Arc::new(LocalKv::new(world.runtime())), Settings::default());
    let engine = Engine::new(db, Arc::new(Alone), EngineSettings::default());
    world.block_on(engine.bootstrap()).expect("bootstraps");
    let scene = Arc::new(Scene {
        random: runtime.random.clone(),
        server: PgServer::new(engine, runtime),
        world: world.clone(),
        open: Mutex::default(),
        stop: CancellationToken::new(),
        ledger: Mutex::default(),
        cancelled: AtomicUsize::new(0),
        vanished: AtomicUsize::new(0),
    });
    world.block_on(prepare(&scene));
    for _ in 0..CLIENTS {
        let scene = scene.clone();
        world.spawn(async move {
            for _ in 0..CONNECTIONS {
                let _ = scene.converse().await;
            }
        });
    }
    if seed % 4 == 3 {
        let (scene, after) = (scene.clone(), Duration::from_millis(scene.below(3000)));
        world.spawn(async move {
            scene.sleep(after).await;
            scene.stop.cancel();
        });
    }
    world.settle(Duration::from_secs(3600));
    let open = std::mem::take(&mut *scene.open.lock());
    assert_eq!(open, BTreeMap::new(), "seed {seed}: connections were left over");
    world.block_on(judge(&scene, seed));
    scene
}

async fn prepare(scene: &Arc<Scene>) {
    let mut wire = scene.steady_session().await;
    for statement in [
        "CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL)".to_string(),
        format!("INSERT INTO counters SELECT i, 0 FROM generate_series(0, {}) i", ROWS - 1),
        "CREATE TABLE copied (id int)".to_string(),
    ] {
        wire.send(&query(&statement)).await.expect("it stays");
        let cycle = wire.cycle().await.expect("it stays");
        assert_eq!(cycle.errors, Vec::<String>::new(), "{statement}");
    }
}

/// As a client that comes after all of them sees it.
async fn judge(scene: &Arc<Scene>, seed: u64) {
    let mut wire = scene.steady_session().await;
    let time = scene.world.runtime().time;
    let begun = time.monotonic();
    for row in 0..ROWS {
        wire.send(&query(&increment(row))).await.expect("it stays");
        let cycle = wire.cycle().await.expect("it stays");
        assert_eq!(cycle.tags, ["UPDATE 1"], "seed {seed}: {cycle:?}");
    }
    let took = time.monotonic().since(begun);
    assert!(took < PROMPT, "seed {seed}: somebody's locks outlived him for {took:?}");
    let ledger = scene.ledger.lock();
    let (least, most) = (ledger.acknowledged + ROWS, ledger.acknowledged + ROWS + ledger.doubtful);
    drop(ledger);
    let between = format!(
        "SELECT 1 / (CASE WHEN sum(n) BETWEEN {least} AND {most} THEN 1 ELSE 0 END) FROM counters"
    );
    wire.send(&query(&between)).await.expect("it stays");
    let cycle = wire.cycle().await.expect("it stays");
    assert_eq!(
        cycle.errors,
        Vec::<String>::new(),
        "seed {seed}: the sum is not in {least}..={most}"
    );
}

fn increment(row: u64) -> String {
    format!("UPDATE counters SET n = n + 1 WHERE id = {row}")
}

impl Scene {
    fn below(&self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    async fn sleep(&self, duration: Duration) {
        let time = self.world.runtime().time;
        time.sleep_until(time.monotonic().plus(duration)).await;
    }

    /// A new connection with its server's side running.
    fn connect(self: &Arc<Scene>, stop: CancellationToken) -> (Wire, link::Cutter) {
        let (ours, theirs, cutter) = link(&self.random);
        let scene = self.clone();
        let number = self.random.next_u64();
        self.open.lock().insert(number, "connect");
        self.world.spawn(async move {
            let serve = Box::pin(scene.server.serve(theirs, 1));
            select(serve, Box::pin(stop.cancelled())).await;
            scene.open.lock().remove(&number);
        });
        (Wire::new(number, ours, &self.random), cutter)
    }

    /// A session of a client that stays, on a node that does.
    async fn steady_session(self: &Arc<Scene>) -> Wire {
        let (mut wire, _) = self.connect(CancellationToken::new());
        wire.stay();
        wire.send(&startup()).await.expect("it stays");
        assert_eq!(wire.cycle().await.expect("it stays").status, b'I');
        wire
    }

    /// One connection, from its startup to whatever end it takes.
    async fn converse(self: &Arc<Scene>) -> Result<(), Gone> {
        let (mut wire, cutter) = self.connect(self.stop.clone());
        let ended = self.session(&mut wire).await;
        if ended.is_ok() {
            let _ = wire.send(&message(b'X', &[])).await;
            return ended;
        }
        self.vanished.fetch_add(1, Ordering::Relaxed);
        match self.below(3) {
            0 => cutter.cut(),
            // Its machine lost power: nothing is heard of it until the kernel finds out.
            1 => {
                let scene = self.clone();
                self.world.spawn(async move {
                    scene.sleep(KEEP_ALIVE).await;
                    cutter.cut();
                    drop(wire);
                });
            }
            _ => {}
        }
        ended
    }

    async fn session(self: &Arc<Scene>, wire: &mut Wire) -> Result<(), Gone> {
        wire.send(&startup()).await?;
        let opened = wire.cycle().await?;
        let key = opened.key.expect("a key to cancel with");
        for _ in 0..self.below(8) {
            self.sleep(Duration::from_millis(self.below(200))).await;
            let number = wire.number;
            let (name, step): (_, BoxFuture<'_, Result<(), Gone>>) = match self.below(9) {
                0 | 1 => ("statement", Box::pin(self.one_statement(wire))),
                2 => ("block", Box::pin(self.block(wire))),
                3 => ("pipeline", Box::pin(self.pipeline(wire))),
                4 => ("copy", Box::pin(self.copy(wire))),
                5 => ("cancelled", Box::pin(self.cancelled(wire, key))),
                6 => ("deserted", Box::pin(self.deserted(wire))),
                7 => ("much", Box::pin(self.much(wire))),
                _ => ("mistakes", Box::pin(self.mistakes(wire))),
            };
            if let Some(last) = self.open.lock().get_mut(&number) {
                *last = name;
            }
            step.await?;
        }
        Ok(())
    }

    /// `count` increments are under way: in doubt until [`Scene::known`].
    fn begun(&self, count: u64) {
        self.ledger.lock().doubtful += count;
    }

    fn known(&self, count: u64, happened: bool) {
        let mut ledger = self.ledger.lock();
        ledger.doubtful -= count;
        ledger.acknowledged += if happened { count } else { 0 };
    }

    async fn one_statement(&self, wire: &mut Wire) -> Result<(), Gone> {
        self.begun(1);
        wire.send(&query(&increment(self.below(ROWS)))).await?;
        let cycle = wire.cycle().await?;
        assert_eq!(cycle.tags.len() + cycle.errors.len(), 1, "{cycle:?}");
        self.known(1, cycle.tags == ["UPDATE 1"]);
        Ok(())
    }

    async fn block(&self, wire: &mut Wire) -> Result<(), Gone> {
        self.begun(2);
        let mut last = Cycle::default();
        let rows = [self.below(ROWS), self.below(ROWS)];
        for statement in ["BEGIN".to_string(), increment(rows[0]), increment(rows[1])] {
            wire.send(&query(&statement)).await?;
            last = wire.cycle().await?;
            self.sleep(Duration::from_millis(self.below(50))).await;
        }
        assert!(b"TE".contains(&last.status), "{last:?}");
        wire.send(&query("COMMIT")).await?;
        let cycle = wire.cycle().await?;
        assert_eq!(cycle.status, b'I');
        self.known(2, cycle.tags == ["COMMIT"]);
        Ok(())
    }

    async fn pipeline(&self, wire: &mut Wire) -> Result<(), Gone> {
        let count = 1 + self.below(6);
        self.begun(count);
        let statement = "UPDATE counters SET n = n + 1 WHERE id = $1::int";
        let rows: Vec<String> = (0..count).map(|_| self.below(ROWS).to_string()).collect();
        let all: Vec<u8> = rows.iter().flat_map(|row| extended(statement, row)).collect();
        wire.send(&all).await?;
        for _ in 0..count {
            let cycle = wire.cycle().await?;
            assert_eq!(cycle.tags.len() + cycle.errors.len(), 1, "{cycle:?}");
            self.known(1, cycle.tags == ["UPDATE 1"]);
        }
        Ok(())
    }

    async fn copy(&self, wire: &mut Wire) -> Result<(), Gone> {
        wire.send(&query("COPY copied FROM STDIN")).await?;
        for row in 0..self.below(20) {
            wire.send(&message(b'd', format!("{row}\n").as_bytes())).await?;
        }
        let fails = self.below(2) == 0;
        let end = if fails { message(b'f', b"never mind\0") } else { message(b'c', &[]) };
        wire.send(&end).await?;
        let cycle = wire.cycle().await?;
        assert_eq!(cycle.errors.is_empty(), !fails, "{cycle:?}");
        Ok(())
    }

    async fn cancelled(self: &Arc<Scene>, wire: &mut Wire, key: [u8; 8]) -> Result<(), Gone> {
        wire.send(&query("SELECT pg_sleep(100000)")).await?;
        // Time moves when nobody has anything to do: the statement runs by then. A cancel that comes before it cancels nothing.
        self.sleep(Duration::from_millis(1 + self.below(100))).await;
        let (mut other, _) = self.connect(self.stop.clone());
        other.stay();
        let _ = other.send(&cancel(key)).await;
        let cycle = wire.cycle().await?;
        assert_eq!((cycle.errors, cycle.status), (vec!["57014".to_string()], b'I'));
        self.cancelled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Vanishes while a statement runs, in a block that holds a lock.
    async fn deserted(&self, wire: &mut Wire) -> Result<(), Gone> {
        let text = format!("BEGIN; {}; SELECT pg_sleep(100000)", increment(self.below(ROWS)));
        wire.send(&query(&text)).await?;
        self.sleep(Duration::from_millis(1 + self.below(100))).await;
        Err(Gone)
    }

    /// More than the pipe holds, read after a while.
    async fn much(&self, wire: &mut Wire) -> Result<(), Gone> {
        wire.send(&query("SELECT i, repeat('x', 100) FROM generate_series(1, 3000) i")).await?;
        self.sleep(Duration::from_secs(self.below(5))).await;
        let cycle = wire.cycle().await?;
        assert_eq!((cycle.rows, cycle.tags), (3000, vec!["SELECT 3000".to_string()]));
        Ok(())
    }

    async fn mistakes(&self, wire: &mut Wire) -> Result<(), Gone> {
        let (bytes, cycles, code) = match self.below(4) {
            0 => (query("SELEC 1"), 1, "42601"),
            1 => (query("SELECT 1 / 0"), 1, "22012"),
            // What follows an error is skipped up to its Sync, and no further.
            2 => (
                [extended("SELECT no_such($1)", "1"), extended("SELECT $1", "1")].concat(),
                2,
                "42883",
            ),
            _ => ([message(b'B', b"no zero"), message(b'S', &[])].concat(), 1, "08P01"),
        };
        wire.send(&bytes).await?;
        let first = wire.cycle().await?;
        assert_eq!((first.errors, first.status), (vec![code.to_string()], b'I'));
        for _ in 1..cycles {
            let cycle = wire.cycle().await?;
            assert_eq!((cycle.rows, cycle.errors.len()), (1, 0));
        }
        Ok(())
    }
}
