//! Counters that all clients count up and read, one statement at a time. The invariant: no two increments make the same value, and nobody
//! sees a counter go back, whichever gateway they ask.

use ::chaos::check::Level;
use ::chaos::check::file::shown;
use ::chaos::check::monotonic::{Op, Value, check};
use ::chaos::history::{Ended, Record, end_of};
use rand::Rng;
use rand::rngs::StdRng;

use super::load::{AUDITOR, Hosts, Judged, Load, integers};
use super::{Client, set_up_statement};

/// How many.
const COUNTERS: u64 = 6;

/// See the module.
pub(crate) struct Monotonic;

impl Load for Monotonic {
    type Op = Op;
    type Answer = Value;

    async fn prepare(&self, hosts: &Hosts) -> Result<(), String> {
        let mut admin = hosts.admin();
        let rows: Vec<String> = (0..COUNTERS).map(|counter| format!("({counter}, 0)")).collect();
        for statement in [
            "DROP TABLE IF EXISTS monotonic_counters",
            "CREATE TABLE IF NOT EXISTS monotonic_counters (id bigint PRIMARY KEY, n bigint NOT NULL)",
            &format!(
                "INSERT INTO monotonic_counters VALUES {} ON CONFLICT (id) DO NOTHING",
                rows.join(", ")
            ),
        ] {
            set_up_statement(&mut admin, statement).await?;
        }
        Ok(())
    }

    fn draw(&self, _client: u32, _count: u64, random: &mut StdRng) -> Op {
        let counter = random.random_range(0..COUNTERS);
        if random.random_range(0..2) == 0 { Op::Increment(counter) } else { Op::Read(counter) }
    }

    async fn attempt(&self, client: &mut Client, op: &Op) -> Result<Value, client::Error> {
        let sql = match op {
            Op::Increment(counter) => {
                format!("UPDATE monotonic_counters SET n = n + 1 WHERE id = {counter} RETURNING n")
            }
            Op::Read(counter) => format!("SELECT n FROM monotonic_counters WHERE id = {counter}"),
        };
        let answers = client.query(&sql).await?;
        let rows = integers(&answers.into_iter().next().unwrap_or_default());
        let rows = rows.map_err(client::Error::Protocol)?;
        let none = || client::Error::Protocol(format!("{sql}: the counter is gone"));
        let value = rows.first().ok_or_else(none)?[0];
        Ok(Value::try_from(value).unwrap_or(Value::MAX))
    }

    fn judges_early(&self, _level: Level) -> bool {
        true
    }

    async fn judge_early(
        &self,
        _hosts: &Hosts,
        so_far: Vec<Record<Op, Value>>,
        level: Level,
    ) -> Result<(), String> {
        check(&so_far, level)
    }

    async fn judge(
        &self,
        hosts: &Hosts,
        mut history: Vec<Record<Op, Value>>,
        level: Level,
    ) -> Judged {
        let sql = "SELECT id, n FROM monotonic_counters ORDER BY id";
        let last = hosts
            .read_at_last(sql)
            .await
            .and_then(|answers| integers(answers.first().ok_or("the final read has no result")?));
        let verdict = last.and_then(|rows| {
            let asked = end_of(&history) + 1;
            for row in rows {
                let number = |place: usize| u64::try_from(row[place]);
                let failed = |_| format!("{row:?} is not a counter");
                let op = Op::Read(number(0).map_err(failed)?);
                let ended = Ended::Ok(number(1).map_err(failed)?);
                history.push(Record { client: AUDITOR, asked, heard: asked + 1, op, ended });
            }
            let holds = format!(
                "invariant holds: in {} operations no increment made another's value, and no counter was seen to go back",
                history.len()
            );
            check(&history, level).map(|()| holds).map_err(|why| format!("VIOLATED: {why}"))
        });
        Judged { verdict, operations: shown(&history) }
    }
}
