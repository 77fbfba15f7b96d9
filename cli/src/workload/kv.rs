//! Reads and upserts of single rows, each a register. The invariant: every register behaves as one copy: a read shows the last write, and
//! never an older one.

use ::chaos::check::Level;
use ::chaos::check::file::shown;
use ::chaos::check::register::{Answer, Op, check_all};
use ::chaos::history::Record;
use clap::Args;
use rand::Rng;
use rand::rngs::StdRng;
use std::sync::atomic::{AtomicU64, Ordering};

use super::load::{Hosts, Judged, Load, integers};
use super::{Client, Common, set_up_statement};

/// Writes per shared key until others are used: the judge's work grows faster than a register's history.
const WRITES_PER_KEY: u64 = 60;

/// Reads and upserts of single rows.
#[derive(Args)]
pub(crate) struct KvArguments {
    #[command(flatten)]
    pub(super) common: Common,
    /// Keys per client.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) keys: u32,
    /// Of a hundred operations, how many read.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(super) read_percent: u8,
    /// Bytes of padding in each row.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=65_536))]
    pub(super) value_bytes: u32,
}

/// Whose a key is.
pub(crate) enum Owners {
    /// Every client has keys of its own.
    Each,
    /// All clients use the same ones, for a while.
    All {
        /// Writes so far.
        written: AtomicU64,
    },
}

/// See the module.
pub(crate) struct Kv {
    /// Keys of a client, or in use at a time.
    pub(super) keys: u32,
    /// Of a hundred operations, how many read.
    pub(super) read_percent: u8,
    /// In each row.
    pub(super) padding: String,
    /// Whose they are.
    pub(super) owners: Owners,
}

impl Load for Kv {
    type Op = (u64, Op);
    type Answer = Answer;

    async fn prepare(&self, hosts: &Hosts) -> Result<(), String> {
        let mut admin = hosts.admin();
        for statement in [
            "DROP TABLE IF EXISTS kv",
            "CREATE TABLE IF NOT EXISTS kv (k bigint PRIMARY KEY, version bigint NOT NULL, padding text NOT NULL)",
        ] {
            set_up_statement(&mut admin, statement).await?;
        }
        Ok(())
    }

    fn draw(&self, client: u32, count: u64, random: &mut StdRng) -> (u64, Op) {
        let reads = random.random_range(0..100) < self.read_percent;
        let base = match &self.owners {
            Owners::Each => u64::from(client) << 32,
            Owners::All { written } => {
                let written = written.fetch_add(u64::from(!reads), Ordering::Relaxed);
                let keys = u64::from(self.keys);
                written / (keys * WRITES_PER_KEY) * keys
            }
        };
        let key = base + u64::from(random.random_range(0..self.keys));
        (key, if reads { Op::Read } else { Op::Write((u64::from(client) << 32) | count) })
    }

    async fn attempt(
        &self,
        client: &mut Client,
        (key, op): &(u64, Op),
    ) -> Result<Answer, client::Error> {
        let sql = match op {
            Op::Read => format!("SELECT version FROM kv WHERE k = {key}"),
            Op::Write(version) => format!(
                "INSERT INTO kv VALUES ({key}, {version}, '{}') \
                 ON CONFLICT (k) DO UPDATE SET version = excluded.version, padding = excluded.padding",
                self.padding
            ),
            Op::Swap(..) => unreachable!("nobody draws a swap"),
        };
        let answers = client.query(&sql).await?;
        if *op != Op::Read {
            return Ok(Answer::Done);
        }
        let rows = integers(&answers.into_iter().next().unwrap_or_default());
        let rows = rows.map_err(client::Error::Protocol)?;
        let version = rows.first().map_or(0, |row| row[0]);
        Ok(Answer::Value(u64::try_from(version).unwrap_or(u64::MAX)))
    }

    fn judges_early(&self, level: Level) -> bool {
        match level {
            Level::Serializable | Level::Session => false,
            Level::KeyRealTime | Level::Strict => true,
        }
    }

    async fn judge_early(
        &self,
        _hosts: &Hosts,
        so_far: Vec<Record<(u64, Op), Answer>>,
        level: Level,
    ) -> Result<(), String> {
        if self.judges_early(level) { check_all(&so_far) } else { Ok(()) }
    }

    async fn judge(
        &self,
        _hosts: &Hosts,
        history: Vec<Record<(u64, Op), Answer>>,
        level: Level,
    ) -> Judged {
        let verdict = match level {
            // Registers promise nothing but their order in real time.
            Level::Serializable | Level::Session => Ok("no order was asked for".to_string()),
            Level::KeyRealTime | Level::Strict => check_all(&history)
                .map(|()| {
                    "invariant holds: no read was older than an acknowledged write of its key"
                        .to_string()
                })
                .map_err(|why| format!("VIOLATED: {why}")),
        };
        Judged { verdict, operations: shown(&history) }
    }
}
