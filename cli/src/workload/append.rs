//! Transactions that append unique numbers to lists and read whole lists, in blocks of several statements over several tables. The
//! invariant: they could have run one after another, in an order that agrees with real time on every list.
//!
//! Lists are left behind when they have grown long, so that neither a statement nor the judge's work grows with the load's length.

use ::chaos::check::Level;
use ::chaos::check::append::{Reads, Step, Txn, check};
use ::chaos::check::file::shown;
use ::chaos::history::{Ended, Record, end_of};
use clap::Args;
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::load::{AUDITOR, Hosts, Judged, Load};
use super::{Client, Common, set_up_statement};
use crate::backend::Answer;

/// Tables that lists are spread over, each a range of its own.
const TABLES: u32 = 3;
/// Lists in use at a time.
const LISTS: u32 = 6;
/// Appends until the lists in use are left behind.
const APPENDS_PER_WINDOW: u64 = 40 * LISTS as u64;
/// Most steps of a transaction.
const STEPS_MAX: u32 = 4;

/// Transactions over lists.
#[derive(Args)]
pub(crate) struct AppendArguments {
    #[command(flatten)]
    pub(super) common: Common,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Lists {
    appended: AtomicU64,
}

fn table(list: u32) -> u32 {
    list % TABLES
}

impl Load for Lists {
    type Op = Txn;
    type Answer = Reads;

    async fn prepare(&self, hosts: &Hosts) -> Result<(), String> {
        let mut admin = hosts.admin();
        for table in 0..TABLES {
            for statement in [
                format!("DROP TABLE IF EXISTS append_{table}"),
                format!(
                    "CREATE TABLE IF NOT EXISTS append_{table} (id bigint PRIMARY KEY, items text NOT NULL)"
                ),
            ] {
                set_up_statement(&mut admin, &statement).await?;
            }
        }
        Ok(())
    }

    fn draw(&self, client: u32, count: u64, random: &mut StdRng) -> Txn {
        let window = self.appended.load(Ordering::Relaxed) / APPENDS_PER_WINDOW;
        let first = u32::try_from(window).unwrap_or(0) * LISTS;
        let steps = random.random_range(1..=STEPS_MAX);
        (0..steps)
            .map(|step| {
                let list = first + random.random_range(0..LISTS);
                if random.random_range(0..2) == 0 {
                    Step::Read { list }
                } else {
                    self.appended.fetch_add(1, Ordering::Relaxed);
                    let number = count * u64::from(STEPS_MAX) + u64::from(step);
                    Step::Append { list, number: (u64::from(client) << 32) | number }
                }
            })
            .collect()
    }

    async fn attempt(&self, client: &mut Client, op: &Txn) -> Result<Reads, client::Error> {
        let mut reads = Reads::new();
        if let [step] = op.as_slice() {
            take_step(client, step, &mut reads).await?;
            return Ok(reads);
        }
        client.begin().await?;
        for step in op {
            if let Err(error) = take_step(client, step, &mut reads).await {
                client.roll_back().await;
                return Err(error);
            }
        }
        client.commit().await?;
        Ok(reads)
    }

    fn judges_early(&self, _level: Level) -> bool {
        true
    }

    async fn judge_early(
        &self,
        _hosts: &Hosts,
        so_far: Vec<Record<Txn, Reads>>,
        level: Level,
    ) -> Result<(), String> {
        check(&so_far, None, level)
    }

    async fn judge(
        &self,
        hosts: &Hosts,
        mut history: Vec<Record<Txn, Reads>>,
        level: Level,
    ) -> Judged {
        let verdict = match read_all(hosts).await {
            Err(why) => Err(why),
            Ok(lists) => {
                let asked = end_of(&history) + 1;
                let op = lists.keys().map(|list| Step::Read { list: *list }).collect();
                let ended = Ended::Ok(lists.values().cloned().collect());
                history.push(Record { client: AUDITOR, asked, heard: asked + 1, op, ended });
                let verdict = check(&history, Some(&lists), level);
                let numbers: usize = lists.values().map(Vec::len).sum();
                let holds = format!(
                    "invariant holds: {} transactions on {} lists could have run one after another; {numbers} appends are there, none that was acknowledged is lost",
                    history.len(),
                    lists.len()
                );
                verdict.map(|()| holds).map_err(|why| format!("VIOLATED: {why}"))
            }
        };
        Judged { verdict, operations: shown(&history) }
    }
}

async fn take_step(
    client: &mut Client,
    step: &Step,
    reads: &mut Reads,
) -> Result<(), client::Error> {
    match step {
        Step::Read { list } => {
            let sql = format!("SELECT items FROM append_{} WHERE id = {list}", table(*list));
            let answers = client.query(&sql).await?;
            let items = answers.first().and_then(|answer| answer.rows.first());
            reads.push(numbers(items.and_then(|row| row[0].as_deref()).unwrap_or_default())?);
        }
        Step::Append { list, number } => {
            let name = table(*list);
            let sql = format!(
                "INSERT INTO append_{name} VALUES ({list}, ' {number}') \
                 ON CONFLICT (id) DO UPDATE SET items = append_{name}.items || excluded.items"
            );
            client.query(&sql).await?;
        }
    }
    Ok(())
}

/// A list as it is stored: its numbers, each behind a blank.
fn numbers(items: &str) -> Result<Vec<u64>, client::Error> {
    let number = |word: &str| {
        word.parse().map_err(|_| client::Error::Protocol(format!("`{items}` is not a list")))
    };
    items.split_whitespace().map(number).collect()
}

async fn read_all(hosts: &Hosts) -> Result<BTreeMap<u32, Vec<u64>>, String> {
    let reads: Vec<String> =
        (0..TABLES).map(|table| format!("SELECT id, items FROM append_{table}")).collect();
    let sql = format!("BEGIN READ ONLY; {}; COMMIT", reads.join("; "));
    let answers = hosts.read_at_last(&sql).await?;
    let mut lists = BTreeMap::new();
    for row in answers.iter().flat_map(|answer: &Answer| &answer.rows) {
        let [Some(id), Some(items)] = row.as_slice() else {
            return Err(format!("{row:?} is not a list"));
        };
        let id = id.parse().map_err(|_| format!("{id} is not a list's number"))?;
        lists.insert(id, numbers(items).map_err(|error| error.to_string())?);
    }
    Ok(lists)
}
