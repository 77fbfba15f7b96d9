//! Driver: counters in an available table, incremented in every region, cut off or not.
//!
//! Invariant: *when all has healed the copies of all regions are equal, and hold every acknowledged increment exactly once.*

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use replication::range::NodeId;
use sql::types::Datum;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::sql_client::{Client, Failed, integer, persevere};
use super::{Workload, ended, persist, persist_on, rest};
use crate::check::RealTime;
use crate::check::convergence::{Increment, check_copies, check_counters};
use crate::check::file::{Operation, show_counters};
use crate::history::History;
use crate::world::access::{Gateway, SharedAccess};
use crate::world::chance::Chance;

const COUNTERS: u64 = 4;

/// What a node shows: value by counter.
type Values = BTreeMap<u64, i64>;

/// See the module.
#[derive(Default)]
pub struct Counters {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    history: History<Increment, ()>,
    /// By node.
    last: Mutex<BTreeMap<NodeId, Values>>,
}

impl Workload for Counters {
    fn name(&self) -> &'static str {
        "counter"
    }

    fn invariant(&self) -> &'static str {
        "in SQL: the copies of an available table become equal, and hold every acknowledged increment exactly once"
    }

    fn prepare(&self, access: SharedAccess) -> BoxFuture<'static, Result<(), String>> {
        async move {
            let open = |gateway| async move { open(&gateway).await }.boxed();
            persist_on(&access, "the counters cannot be made", open).await?;
            // Every region has its copy of every row before anything fails.
            let tries = access.clone();
            persist(&access, move |_| {
                let access = tries.clone();
                async move {
                    let copies = read_copies(&access).await?;
                    let whole = copies.values().all(|copy| copy.len() == COUNTERS as usize);
                    if whole {
                        Ok(())
                    } else {
                        Err(format!("the copies are not whole yet: {copies:?}"))
                    }
                }
                .boxed()
            })
            .await
        }
        .boxed()
    }

    fn client(
        &self,
        client: u32,
        access: SharedAccess,
        mut chance: Chance,
    ) -> BoxFuture<'static, ()> {
        let shared = self.shared.clone();
        async move {
            while !access.is_stopping() {
                let node = chance.pick(&access.nodes());
                let increment = (chance.below(COUNTERS), chance.signed(-3, 9));
                let asked = access.now();
                let work =
                    move |gateway: Gateway| async move { run(&gateway, increment).await }.boxed();
                let ended = ended(access.on_node(node, work).await);
                shared.history.push(client, asked, access.now(), increment, ended);
                rest(&access, &mut chance).await;
            }
        }
        .boxed()
    }

    fn finish(&self, access: SharedAccess) -> BoxFuture<'static, Result<(), String>> {
        let shared = self.shared.clone();
        async move {
            let (tries, slot) = (access.clone(), shared.clone());
            persist(&access, move |_| {
                let (access, shared) = (tries.clone(), slot.clone());
                async move {
                    let copies = read_copies(&access).await?;
                    let equal = check_copies(&copies);
                    *shared.last.lock() = copies;
                    equal
                }
                .boxed()
            })
            .await
        }
        .boxed()
    }

    fn check(&self, _real_time: RealTime) -> Result<(), String> {
        let copies = self.shared.last.lock().clone();
        let Some(copy) = copies.values().next() else { return Err("nothing was read".to_string()) };
        check_counters(&self.shared.history.records(), copy)
    }

    fn operations(&self) -> Vec<Operation> {
        let last = self.shared.last.lock();
        let copies = last.iter().map(|(node, copy)| (node.0, copy.clone())).collect();
        show_counters(&self.shared.history.records(), &copies)
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.shared.history.counts()
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

async fn run(gateway: &Gateway, (counter, amount): Increment) -> Result<(), Failed> {
    persevere(gateway, |client| {
        async move {
            let text = format!("UPDATE counters SET n = n + {amount} WHERE id = {counter}");
            client.run(&text).await.map(|_| ())
        }
        .boxed()
    })
    .await
}

async fn read(gateway: &Gateway) -> Result<Values, Failed> {
    let mut client = Client::connect(gateway)?;
    let rows = client.run("SELECT id, n FROM counters ORDER BY id").await;
    client.close().await;
    let value = |row: &Vec<Datum>| Ok((integer(&row[0])? as u64, integer(&row[1])?));
    rows?.iter().map(value).collect()
}

/// What each node shows.
async fn read_copies(access: &SharedAccess) -> Result<BTreeMap<NodeId, Values>, String> {
    let mut copies = BTreeMap::new();
    for node in access.nodes() {
        let copy =
            access.on_node(node, |gateway| async move { read(&gateway).await }.boxed()).await;
        let copy = copy
            .map_err(|lost| format!("{node}: {lost:?}"))?
            .map_err(|failed| format!("{node}: {failed:?}"))?;
        copies.insert(node, copy);
    }
    Ok(copies)
}
