//! Reads and upserts of single rows. Every client owns a part of the keys and writes ascending numbers to each, so that it knows what a
//! later read must at least show. The invariant: a read shows what was written to its key, and nothing older than the last
//! acknowledged write before it.

use clap::Args;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::Instant;

use super::report::{Kind, Report};
use super::{Client, Common, after_error, drive, set_up_statement, url_for};

/// Reads and upserts of single rows.
#[derive(Args)]
pub(crate) struct KvArguments {
    #[command(flatten)]
    common: Common,
    /// Keys per client.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    keys: u32,
    /// Of a hundred operations, how many read.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    read_percent: u8,
    /// Bytes of padding in each row.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=65_536))]
    value_bytes: u32,
}

/// Runs it; the error says what was violated.
pub(crate) async fn run(arguments: &KvArguments) -> Result<(), String> {
    let mut admin = Client::new(url_for(&arguments.common, 0)?);
    for statement in [
        "DROP TABLE IF EXISTS kv",
        "CREATE TABLE IF NOT EXISTS kv (k bigint PRIMARY KEY, version bigint NOT NULL, padding text NOT NULL)",
    ] {
        set_up_statement(&mut admin, statement).await?;
    }
    let report = Report::new();
    drive(&arguments.common, &report, |number, deadline| {
        client(arguments, number, deadline, report.clone())
    })
    .await?;
    println!("{}", report.text());
    if report.total(Kind::Ok) == 0 {
        return Err("nothing was acknowledged: nothing was tested".to_string());
    }
    println!("invariant holds: no read was older than an acknowledged write of its key");
    Ok(())
}

/// What is known of a key: (last acknowledged version, last version asked for).
type Known = BTreeMap<i64, (i64, i64)>;

async fn client(
    arguments: &KvArguments,
    number: u32,
    deadline: Instant,
    report: Arc<Report>,
) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(arguments.common.seed ^ (u64::from(number) << 32));
    let mut client = Client::new(url_for(&arguments.common, number)?);
    let padding = "x".repeat(arguments.value_bytes as usize);
    let mut known = Known::new();
    while Instant::now() < deadline {
        let key = (i64::from(number) << 32) | i64::from(random.random_range(0..arguments.keys));
        let start = Instant::now();
        let done = if random.random_range(0..100) < arguments.read_percent {
            read(&mut client, key, &known).await
        } else {
            write(&mut client, key, &padding, &mut known).await.map(Ok)
        };
        match done {
            Ok(Ok(())) => report.ok(start.elapsed()),
            Ok(Err(violation)) => return Err(violation),
            Err(error) => drop(after_error(&report, &error).await),
        }
    }
    Ok(())
}

async fn read(
    client: &mut Client,
    key: i64,
    known: &Known,
) -> Result<Result<(), String>, client::Error> {
    let answers = client.query(&format!("SELECT version FROM kv WHERE k = {key}")).await?;
    let row = answers.first().and_then(|answer| answer.rows.first());
    let shown = row.and_then(|row| row[0].as_deref()).map_or(0, |text| text.parse().unwrap_or(-1));
    let (acknowledged, asked) = known.get(&key).copied().unwrap_or((0, 0));
    if shown < acknowledged || shown > asked {
        return Ok(Err(format!(
            "VIOLATED: key {key} shows version {shown}; acknowledged {acknowledged}, written up to {asked}"
        )));
    }
    Ok(Ok(()))
}

async fn write(
    client: &mut Client,
    key: i64,
    padding: &str,
    known: &mut Known,
) -> Result<(), client::Error> {
    let entry = known.entry(key).or_insert((0, 0));
    entry.1 += 1;
    let version = entry.1;
    let sql = format!(
        "INSERT INTO kv VALUES ({key}, {version}, '{padding}') \
         ON CONFLICT (k) DO UPDATE SET version = excluded.version, padding = excluded.padding"
    );
    client.query(&sql).await?;
    entry.0 = version;
    Ok(())
}
