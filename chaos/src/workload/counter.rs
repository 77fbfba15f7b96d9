//! Driver: counters in an available table, incremented in every region, cut off or not.
//!
//! Invariant: *when all has healed the copies of all regions are equal, and hold every acknowledged increment exactly once.*

use futures::FutureExt;
use sql::types::Datum;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::copies::Copies;
use super::drive::{Call, Deed, Turn};
use super::persist_on;
use super::sql_client::{Client, Failed, integer, persevere};
use crate::check::RealTime;
use crate::check::convergence::{Increment, check_counters};
use crate::check::file::{Operation, show_counters};
use crate::history::{Ended, History, Ledger};
use crate::world::access::{Gateway, SharedAccess};

const COUNTERS: u64 = 4;

/// What a node shows: value by counter.
type Values = BTreeMap<u64, i64>;

/// See the module.
pub struct Counters {
    history: History<Increment, ()>,
    copies: Copies<Values>,
}

impl Default for Counters {
    fn default() -> Counters {
        let copies = Copies::new(|gateway| read(gateway).boxed());
        Counters { history: History::default(), copies }
    }
}

impl Deed for Counters {
    type Task = Increment;
    type Answer = ();
    type Error = Failed;

    fn name(&self) -> &'static str {
        "counter"
    }

    fn invariant(&self) -> &'static str {
        "in SQL: the copies of an available table become equal, and hold every acknowledged increment exactly once"
    }

    async fn prepare(&self, access: &SharedAccess) -> Result<(), String> {
        let open = |gateway| async move { open(&gateway).await }.boxed();
        persist_on(access, "the counters cannot be made", open).await?;
        // Every region has its copy of every row before anything fails.
        self.copies.wait_until(access, |copy| copy.len() == COUNTERS as usize).await
    }

    fn draw(&self, turn: Turn<'_>) -> Increment {
        (turn.chance.below(COUNTERS), turn.chance.signed(-3, 9))
    }

    async fn run(self: Arc<Self>, gateway: Gateway, increment: Increment) -> Result<(), Failed> {
        persevere(&gateway, |client| step(client, increment).boxed()).await
    }

    fn note(&self, Call { client, asked, heard }: Call, op: Increment, ended: Ended<()>) {
        self.history.push(client, asked, heard, op, ended);
    }

    async fn finish(self: Arc<Self>, access: &SharedAccess) -> Result<(), String> {
        self.copies.converge(access).await
    }

    fn check(&self, _real_time: RealTime) -> Result<(), String> {
        check_counters(&self.history.records(), &self.copies.any()?)
    }

    fn operations(&self) -> Vec<Operation> {
        let copies = self.copies.last().into_iter().map(|(node, copy)| (node.0, copy)).collect();
        show_counters(&self.history.records(), &copies)
    }

    fn ledger(&self) -> &dyn Ledger {
        &self.history
    }
}

async fn open(gateway: &Gateway) -> Result<(), Failed> {
    let mut client = Client::connect(gateway)?;
    let table = "CREATE TABLE IF NOT EXISTS counters (id INT PRIMARY KEY, n COUNTER NOT NULL DEFAULT 0) \
                 WITH (consistency = 'available')";
    client.run(table).await?;
    let rows: Vec<String> = (0..COUNTERS).map(|counter| format!("({counter})")).collect();
    client
        .run(&format!(
            "INSERT INTO counters (id) VALUES {} ON CONFLICT (id) DO NOTHING",
            rows.join(", ")
        ))
        .await?;
    client.close().await;
    Ok(())
}

async fn step(client: &mut Client, (counter, amount): Increment) -> Result<(), Failed> {
    let text = format!("UPDATE counters SET n = n + {amount} WHERE id = {counter}");
    client.run(&text).await.map(|_| ())
}

async fn read(gateway: Gateway) -> Result<Values, Failed> {
    let mut client = Client::connect(&gateway)?;
    let rows = client.run("SELECT id, n FROM counters ORDER BY id").await;
    client.close().await;
    let value = |row: &Vec<Datum>| Ok((integer(&row[0])? as u64, integer(&row[1])?));
    rows?.iter().map(value).collect()
}
