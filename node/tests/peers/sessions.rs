//! SQL over gRPC: the driver on the one side, the node's service on the other. Whatever the network does: what was acknowledged is there,
//! once; what was not said to be done or undone may be either; nobody's locks outlive him.

use client::{Connect, Connecting, Error, Options, Session};
use node::sql_service::{SqlFront, SqlService};
use node::transport::connections::{FRAME_BYTES_MAX, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT};
use parking_lot::Mutex;
use sql::testing::Alone;
use sql::{Engine, EngineSettings};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use txn::client::{Db, Settings};
use txn::testing::LocalKv;

use super::network::{Link, Stranger, Weather};
use super::world::{Node, Scene, address, end, play};

const SEEDS: u64 = 30;
const CLIENTS: u64 = 4;
const ROWS: u64 = 3;
/// A statement that waits for nobody ends within this.
const PROMPT: Duration = Duration::from_secs(1);
/// After so long a client that fell silent is found out.
fn noticed_after() -> Duration {
    KEEP_ALIVE_INTERVAL + KEEP_ALIVE_TIMEOUT
}

/// Two nodes that serve the same database.
struct Stage {
    scene: Arc<Scene>,
    nodes: [Arc<Node>; 2],
    engine: Arc<Engine>,
}

impl Stage {
    async fn new(scene: Arc<Scene>) -> Arc<Stage> {
        let runtime = scene.runtime();
        let db = Db::new(runtime.clone(), Arc::new(LocalKv::new(runtime)), Settings::default());
        let engine = Engine::new(db, Arc::new(Alone), EngineSettings::default());
        engine.bootstrap().await.expect("bootstraps");
        let nodes = [Node::new(&scene, 1).await, Node::new(&scene, 2).await];
        let stage = Arc::new(Stage { scene, nodes, engine });
        (0..2).for_each(|place| stage.serve(place));
        let mut session = stage.session(&[1]).await.expect("it listens");
        for statement in [
            "CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL)".to_string(),
            format!("INSERT INTO counters SELECT i, 0 FROM generate_series(0, {}) i", ROWS - 1),
        ] {
            session.query(&statement, &[]).await.expect("nothing is in its way");
        }
        stage
    }

    fn serve(&self, place: usize) {
        let node = &self.nodes[place];
        let front = SqlFront::default();
        let stop: CancellationToken = node.serve(front.clone());
        front.open(SqlService { shared: node.shared.clone(), engine: self.engine.clone(), stop });
    }

    async fn session(&self, nodes: &[u32]) -> Result<Session, Error> {
        let network = self.scene.network.clone();
        let connect: Connect = Arc::new(move |endpoint: Endpoint| -> Connecting {
            let stranger = Stranger(network.clone());
            Box::pin(async move { endpoint.connect_with_connector(stranger).await })
        });
        let addresses: Vec<String> = nodes.iter().map(|node| address(*node)).collect();
        Session::connect_by(connect, &addresses, Options::default()).await
    }

    /// A client that comes after all of them finds every row free.
    async fn judge(&self, seed: u64, least: u64, most: u64) {
        let mut session = self.session(&[1]).await.expect("it listens");
        let begun = Instant::now();
        for row in 0..ROWS {
            session.query(&increment(row), &[]).await.expect("nothing is in its way");
        }
        let took = begun.elapsed();
        assert!(took < PROMPT, "seed {seed}: somebody's locks outlived him for {took:?}");
        let results = session.query("SELECT sum(n) FROM counters", &[]).await.expect("it reads");
        let sum: u64 = results[0].rows[0][0].as_ref().expect("a sum").parse().expect("a number");
        assert!(
            (least + ROWS..=most + ROWS).contains(&sum),
            "seed {seed}: {sum} is not in {least}..={most} + {ROWS}"
        );
    }
}

fn increment(row: u64) -> String {
    format!("UPDATE counters SET n = n + 1 WHERE id = {row}")
}

/// Increments by what is known of them.
#[derive(Default)]
struct Ledger {
    acknowledged: u64,
    doubtful: u64,
}

#[derive(Default)]
struct Seen {
    acknowledged: u64,
    doubtful: u64,
    unreachable: usize,
    given_up: usize,
}

#[test]
fn whatever_the_network_does_acknowledged_statements_stay_and_nobodys_locks_outlive_him() {
    let mut seen = Seen::default();
    for seed in 0..SEEDS {
        let more = play(seed, Weather::VARIABLE, |scene| perform(scene, seed));
        seen.acknowledged += more.acknowledged;
        seen.doubtful += more.doubtful;
        seen.unreachable += more.unreachable;
        seen.given_up += more.given_up;
    }
    // A run in which nothing happened proves nothing.
    assert!(seen.acknowledged > 20 * SEEDS, "{} were acknowledged", seen.acknowledged);
    assert!(seen.doubtful > SEEDS, "{} were in doubt", seen.doubtful);
    // Few: a session goes on by itself, unless both nodes are away.
    assert!(seen.unreachable > 0, "{} found nobody", seen.unreachable);
    assert!(seen.given_up > SEEDS as usize, "{} were given up", seen.given_up);
}

async fn perform(scene: Arc<Scene>, seed: u64) -> Seen {
    let stage = Stage::new(scene.clone()).await;
    let ledger: Arc<Mutex<Ledger>> = Arc::default();
    let counts: Arc<[AtomicUsize; 2]> = Arc::default();
    let clients: Vec<JoinHandle<()>> = (0..CLIENTS)
        .map(|_| {
            let (stage, ledger, counts) = (stage.clone(), ledger.clone(), counts.clone());
            tokio::task::spawn_local(async move {
                loop {
                    let Ok(mut session) = stage.session(&[1, 2]).await else {
                        stage.scene.pause_below(500).await;
                        continue;
                    };
                    for _ in 0..stage.scene.below(12) {
                        stage.scene.pause_below(200).await;
                        act(&stage, &mut session, &ledger, &counts).await;
                    }
                }
            })
        })
        .collect();
    disturb(&stage, Duration::from_secs(15)).await;
    end(clients).await;
    sleep(noticed_after() + Duration::from_secs(1)).await;
    let (acknowledged, doubtful) = {
        let ledger = ledger.lock();
        (ledger.acknowledged, ledger.doubtful)
    };
    stage.judge(seed, acknowledged, acknowledged + doubtful).await;
    let [unreachable, given_up] = [0, 1].map(|place| counts[place].load(Ordering::Relaxed));
    Seen { acknowledged, doubtful, unreachable, given_up }
}

async fn act(
    stage: &Stage,
    session: &mut Session,
    ledger: &Mutex<Ledger>,
    counts: &[AtomicUsize; 2],
) {
    let row = stage.scene.below(ROWS);
    // In doubt until something else is known.
    let begun = |count: u64| ledger.lock().doubtful += count;
    let known = |count: u64, happened: bool| {
        let mut ledger = ledger.lock();
        ledger.doubtful -= count;
        ledger.acknowledged += if happened { count } else { 0 };
    };
    match stage.scene.below(6) {
        0..3 => {
            begun(1);
            match session.query(&increment(row), &[]).await {
                Ok(_) => known(1, true),
                Err(Error::Unreachable(_)) => {
                    counts[0].fetch_add(1, Ordering::Relaxed);
                    known(1, false);
                }
                Err(error) if error.is_ambiguous() => {}
                Err(Error::Sql(_)) => known(1, false),
                Err(error) => panic!("{error}"),
            }
        }
        3 => {
            begun(2);
            let other = stage.scene.below(ROWS);
            let done = session
                .transaction(async |session| {
                    session.query(&increment(row), &[]).await?;
                    session.query(&increment(other), &[]).await.map(drop)
                })
                .await;
            match done {
                Ok(()) => known(2, true),
                Err(error) if error.is_ambiguous() => {}
                Err(Error::Unreachable(_) | Error::Sql(_)) => known(2, false),
                Err(error) => panic!("{error}"),
            }
        }
        // Given up in the middle of a statement, with a lock held.
        4 => {
            begun(1);
            let text = format!("BEGIN; {}; SELECT pg_sleep(100000)", increment(row));
            let patience = Duration::from_millis(100 + stage.scene.below(400));
            match timeout(patience, session.query(&text, &[])).await {
                Err(_) => {
                    counts[1].fetch_add(1, Ordering::Relaxed);
                    known(1, false);
                }
                // It never commits, whatever became of it.
                Ok(_) => {
                    known(1, false);
                    let _ = session.query("ROLLBACK", &[]).await;
                }
            }
        }
        _ => {
            let text = "SELECT i, repeat('x', 1000) FROM generate_series(1, 50) i";
            if let Ok(results) = session.query(text, &[]).await {
                assert_eq!((results.len(), results[0].rows.len()), (1, 50));
            }
        }
    }
}

/// Breaks links, silences them, stops node 1 and starts it again.
async fn disturb(stage: &Arc<Stage>, duration: Duration) {
    let (scene, end) = (&stage.scene, Instant::now() + duration);
    while Instant::now() < end {
        scene.pause_below(2000).await;
        let links = [1, 2].map(|node| scene.network.open_links(&address(node))).concat();
        let some = links.iter().filter(|_| scene.below(3) == 0);
        match scene.below(4) {
            0 | 1 => some.for_each(Link::reset),
            2 => some.for_each(Link::silence),
            _ => {
                stage.nodes[0].stop().await;
                scene.pause_below(500).await;
                stage.serve(0);
            }
        }
    }
}

#[test]
fn a_client_that_drops_its_query_or_vanishes_leaves_no_locks() {
    for seed in 0..12 {
        play(seed, Weather::VARIABLE, |scene| async move {
            let stage = Stage::new(scene.clone()).await;
            let mut session = stage.session(&[1]).await.expect("it listens");
            let text = format!("BEGIN; {}; SELECT pg_sleep(100000)", increment(0));
            let dropped = timeout(Duration::from_secs(1), session.query(&text, &[])).await;
            assert!(dropped.is_err());
            match seed % 3 {
                // The session stays; only its query is given up.
                0 => {}
                1 => drop(session),
                // Its machine loses power.
                _ => {
                    let asked = tokio::runtime::Handle::current()
                        .spawn(async move { session.query(&text, &[]).await.map(drop) });
                    sleep(Duration::from_secs(1)).await;
                    assert!(!asked.is_finished());
                    scene.network.open_links(&address(1)).iter().for_each(Link::silence);
                    sleep(noticed_after()).await;
                }
            }
            sleep(Duration::from_millis(200)).await;
            stage.judge(seed, 0, 0).await;
        });
    }
}

#[test]
fn a_session_whose_query_was_given_up_never_takes_its_answer_for_another_ones() {
    play(1, Weather::VARIABLE, |scene| async move {
        let stage = Stage::new(scene).await;
        let mut session = stage.session(&[1]).await.expect("it listens");
        let slow = session.query("SELECT 1, pg_sleep(5)", &[]);
        assert!(timeout(Duration::from_secs(1), slow).await.is_err());
        let results = session.query("SELECT 2", &[]).await.expect("another stream takes over");
        assert_eq!(results[0].rows, [[Some("2".to_string())]]);
    });
}

#[test]
fn an_idle_session_goes_on_elsewhere_when_its_node_stops_and_a_transaction_is_told() {
    for seed in 0..8 {
        play(seed, Weather::VARIABLE, |scene| async move {
            let stage = Stage::new(scene).await;
            let mut idle = stage.session(&[1, 2]).await.expect("it listens");
            let mut busy = stage.session(&[1, 2]).await.expect("it listens");
            busy.query("BEGIN", &[]).await.expect("nothing is in its way");
            busy.query(&increment(0), &[]).await.expect("nothing is in its way");
            assert_eq!((idle.node().0, busy.node().0), (1, 1));
            let took = stage.nodes[0].stop().await;
            assert!(took < Duration::from_secs(1), "open sessions were waited for: {took:?}");
            sleep(Duration::from_millis(100)).await;
            idle.query("SELECT 1", &[]).await.expect("another node takes over");
            assert_eq!(idle.node().0, 2);
            let lost = busy.query(&increment(1), &[]).await;
            assert!(matches!(lost, Err(Error::Unreachable(_))), "{lost:?}");
            let done = busy.transaction(async |txn| txn.query(&increment(1), &[]).await.map(drop));
            done.await.expect("another node takes over");
            stage.serve(0);
            stage.judge(seed, 1, 1).await;
        });
    }
}

#[test]
fn a_large_result_arrives_whole_and_a_slow_reader_holds_up_nobody() {
    play(2, Weather::FAIR, |scene| async move {
        let stage = Stage::new(scene.clone()).await;
        let mut session = stage.session(&[1]).await.expect("it listens");
        // 200 rows of 50 kB: more than any buffer on the way, and than the protocol's own default for a message.
        let text = "SELECT i, repeat('x', 50000) FROM generate_series(1, 200) i";
        let results = session.query(text, &[]).await.expect("it arrives");
        assert_eq!(results[0].rows.len(), 200);
        assert!(results[0].rows.iter().all(|row| row[1].as_ref().map(String::len) == Some(50_000)));
        let link = scene.network.open_links(&address(1)).pop().expect("its link");
        let stuck = tokio::runtime::Handle::current().spawn(async move {
            session.query(text, &[]).await.map(|results| results[0].rows.len())
        });
        sleep(Duration::from_millis(1)).await;
        link.silence();
        let begun = Instant::now();
        stage.judge(2, 0, 0).await;
        assert!(begun.elapsed() < PROMPT);
        link.resume();
        assert_eq!(stuck.await.expect("it does not panic"), Ok(200));
    });
}

#[test]
fn a_statement_beyond_the_limit_is_refused_with_an_error_that_names_it() {
    play(3, Weather::FAIR, |scene| async move {
        let stage = Stage::new(scene).await;
        let mut session = stage.session(&[1]).await.expect("it listens");
        let long = "x".repeat(FRAME_BYTES_MAX + 1);
        let refused = session.query("SELECT $1", &[&long]).await.expect_err("it is too long");
        let Error::Sql(error) = &refused else { panic!("{refused}") };
        assert_eq!(error.code, "54000");
        assert!(error.message.contains(&FRAME_BYTES_MAX.to_string()), "{error}");
        session.query("SELECT 1", &[]).await.expect("a new stream");
    });
}
