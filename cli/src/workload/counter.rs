//! Increments of counters in an available table, each client in its own region. The invariant: when all has healed the copies of all
//! regions become equal, and hold every acknowledged increment exactly once.

use ::chaos::check::Level;
use ::chaos::check::convergence::{Increment, check_copies, check_counters};
use ::chaos::check::file::show_counters;
use ::chaos::history::Record;
use clap::Args;
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

use super::load::{Hosts, Judged, Load, integers};
use super::{Client, Common, set_up_statement};

/// How many.
const COUNTERS: u64 = 4;
/// A new table's copies are in their regions after so many looks.
const SETTLE_LOOKS_MAX: usize = 240;
/// Copies that have not become equal after so many looks will not: what a load has left behind is caught up with by then.
const EQUAL_LOOKS_MAX: usize = 1200;
/// Between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// Between two increments of a client: streams apply one transaction at a time, and a load that outruns them measures only that.
const REST: Duration = Duration::from_millis(50);

/// Increments of an available table.
#[derive(Args)]
pub(crate) struct CounterArguments {
    #[command(flatten)]
    pub(super) common: Common,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Counters;

/// What each host shows.
type Copies = BTreeMap<u32, BTreeMap<u64, i64>>;

impl Load for Counters {
    type Op = Increment;
    type Answer = ();

    async fn prepare(&self, hosts: &Hosts) -> Result<(), String> {
        let mut admin = hosts.admin();
        let rows: Vec<String> = (0..COUNTERS).map(|counter| format!("({counter})")).collect();
        for statement in [
            "DROP TABLE IF EXISTS load_counters",
            "CREATE TABLE IF NOT EXISTS load_counters (id int PRIMARY KEY, n COUNTER NOT NULL DEFAULT 0) \
             WITH (consistency = 'available')",
            &format!(
                "INSERT INTO load_counters (id) VALUES {} ON CONFLICT (id) DO NOTHING",
                rows.join(", ")
            ),
        ] {
            set_up_statement(&mut admin, statement).await?;
        }
        // A region that is cut off before its copy is there cannot use it (docs/limits.md).
        let mut why = String::new();
        for _ in 0..SETTLE_LOOKS_MAX {
            match is_settled(hosts, &mut admin).await {
                Ok(()) => return Ok(()),
                Err(reason) => why = reason,
            }
            pause().await;
        }
        Err(format!("the copies of load_counters are not in their regions: {why}"))
    }

    fn draw(&self, _client: u32, _count: u64, random: &mut StdRng) -> Increment {
        (random.random_range(0..COUNTERS), random.random_range(-3..=9))
    }

    async fn attempt(
        &self,
        client: &mut Client,
        (counter, amount): &Increment,
    ) -> Result<(), client::Error> {
        let sql = format!("UPDATE load_counters SET n = n + {amount} WHERE id = {counter}");
        client.query(&sql).await.map(drop)
    }

    fn rest(&self) -> Duration {
        REST
    }

    fn copy(&self) -> Option<&'static str> {
        Some("SELECT id, n FROM load_counters ORDER BY id")
    }

    async fn judge(
        &self,
        hosts: &Hosts,
        history: Vec<Record<Increment, ()>>,
        _level: Level,
    ) -> Judged {
        let mut copies = Err("nothing was read".to_string());
        let begun = Instant::now();
        for _ in 0..EQUAL_LOOKS_MAX {
            copies = read_copies(hosts).await;
            if copies.as_ref().is_ok_and(|copies| check_copies(copies).is_ok()) {
                break;
            }
            pause().await;
        }
        let took_s = begun.elapsed().as_secs_f64();
        let verdict = copies.as_ref().map_err(String::clone).and_then(|copies| {
            check_copies(copies)?;
            let copy = copies.values().next().ok_or("there is no copy")?;
            check_counters(&history, copy)?;
            Ok(format!(
                "invariant holds: {} copies are equal {took_s:.1} s after the end, and {copy:?} is what {} increments make",
                copies.len(),
                history.len()
            ))
        });
        let verdict = verdict.map_err(|why| format!("VIOLATED: {why}"));
        let copies = copies.unwrap_or_default();
        Judged { verdict, operations: show_counters(&history, &copies) }
    }
}

async fn pause() {
    #[allow(clippy::disallowed_methods)] // A load lives in real time.
    tokio::time::sleep(LOOK_PAUSE).await;
}

/// Every host shows all rows, and every copy has its replicas in a region of its own.
async fn is_settled(hosts: &Hosts, admin: &mut Client) -> Result<(), String> {
    for (host, copy) in read_copies(hosts).await? {
        if copy.len() != COUNTERS as usize {
            return Err(format!("host {host} shows {copy:?}"));
        }
    }
    let columns = |answers: Vec<crate::backend::Answer>, wanted: [&str; 2]| {
        let answer = answers.into_iter().next().unwrap_or_default();
        let place = |name| answer.columns.iter().position(|column| column == name);
        let places = wanted.map(place);
        let text = |row: &Vec<Option<String>>, place: Option<usize>| {
            place.and_then(|place| row[place].clone()).unwrap_or_default()
        };
        answer.rows.iter().map(|row| places.map(|place| text(row, place))).collect::<Vec<_>>()
    };
    let failed = |error: client::Error| error.to_string();
    let nodes = admin.query("SHOW NODES").await.map_err(failed)?;
    let region_of: BTreeMap<String, String> = columns(nodes, ["node", "region"])
        .into_iter()
        .map(|[node, region]| (node, region))
        .collect();
    let ranges = admin.query("SHOW RANGES").await.map_err(failed)?;
    let ranges = columns(ranges, ["table", "replicas"]);
    let copies = ranges.iter().filter(|[table, _]| table == "load_counters");
    let homes: Vec<BTreeSet<&String>> = copies
        .map(|[_, replicas]| {
            replicas.split(", ").filter_map(|node| region_of.get(node.trim())).collect()
        })
        .collect();
    let regions: BTreeSet<&String> = region_of.values().collect();
    // Another database may have a table of this name: what has replicas in several regions is none of our copies, or not there yet.
    let alone = homes.iter().filter(|home| home.len() == 1);
    let apart: BTreeSet<&String> = alone.flatten().copied().collect();
    if apart == regions { Ok(()) } else { Err(format!("they are in {homes:?}")) }
}

async fn read_copies(hosts: &Hosts) -> Result<Copies, String> {
    let mut copies = Copies::new();
    for place in 0..hosts.count() {
        let answers = hosts.client_of(place).query("SELECT id, n FROM load_counters").await;
        let answers = answers.map_err(|error| format!("host {place}: {error}"))?;
        let mut copy = BTreeMap::new();
        for row in integers(answers.first().ok_or("a final read has no result")?)? {
            let counter = u64::try_from(row[0]).map_err(|error| error.to_string())?;
            copy.insert(counter, row[1]);
        }
        copies.insert(u32::try_from(place).expect("hosts are few"), copy);
    }
    Ok(copies)
}
