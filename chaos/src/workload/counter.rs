//! Driver: counters in an available table, incremented in every region, cut off or not.
//!
//! Invariant: *when all has healed the copies of all regions are equal, and hold every acknowledged increment exactly once.*

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use replication::range::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::sql_client::{Client, Failed, again, ended, integer};
use super::{Workload, persist, rest};
use crate::check::append::RealTime;
use crate::history::{Ended, History};
use crate::world::access::{Gateway, SharedAccess};
use crate::world::chance::Chance;

const COUNTERS: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(60);

/// An increment of a counter by an amount.
type Increment = (u64, i64);

/// See the module.
#[derive(Default)]
pub struct Counters {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    history: History<Increment, ()>,
    /// By node, in the order of the counters.
    last: Mutex<BTreeMap<NodeId, Vec<i64>>>,
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
            let tries = access.clone();
            persist(&access, PATIENCE, move |_| {
                let access = tries.clone();
                async move {
                    let node = access.nodes()[0];
                    let opened = access
                        .on_node(node, |gateway| async move { open(&gateway).await }.boxed())
                        .await;
                    opened
                        .map_err(|lost| format!("{lost:?}"))?
                        .map_err(|failed| format!("{failed:?}"))
                }
                .boxed()
            })
            .await?;
            // Every region has its copy of every row before anything fails.
            let tries = access.clone();
            persist(&access, PATIENCE, move |_| {
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
                let node = chance.pick(access.nodes());
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
            persist(&access, PATIENCE, move |_| {
                let (access, shared) = (tries.clone(), slot.clone());
                async move {
                    let copies = read_copies(&access).await?;
                    let first = copies.values().next().cloned().unwrap_or_default();
                    let equal = copies.values().all(|copy| *copy == first);
                    let text = format!(
                        "the copies are not equal {PATIENCE:?} after the healing: {copies:?}"
                    );
                    *shared.last.lock() = copies;
                    if equal { Ok(()) } else { Err(text) }
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
        check(&self.shared.history.records(), copy)
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.shared.history.counts()
    }
}

/// Every counter must be the sum of what was acknowledged and of some of what nobody knows.
fn check(history: &[crate::history::Record<Increment, ()>], copy: &[i64]) -> Result<(), String> {
    for counter in 0..COUNTERS {
        let of = history.iter().filter(|record| record.op.0 == counter);
        let mut sums = std::collections::BTreeSet::from([0i64]);
        for record in of {
            let amount = record.op.1;
            sums = match record.ended {
                Ended::Ok(()) => sums.iter().map(|sum| sum + amount).collect(),
                Ended::Fail => continue,
                Ended::Unknown => sums.iter().flat_map(|sum| [*sum, sum + amount]).collect(),
            };
        }
        let value = copy.get(counter as usize).copied().unwrap_or_default();
        if !sums.contains(&value) {
            return Err(format!(
                "counter {counter} is {value}; what was acknowledged allows {sums:?}"
            ));
        }
    }
    Ok(())
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
    let mut client = Client::connect(gateway)?;
    let mut attempts = 0;
    loop {
        attempts += 1;
        match client
            .run(&format!("UPDATE counters SET n = n + {amount} WHERE id = {counter}"))
            .await
        {
            Ok(_) => {
                client.close().await;
                return Ok(());
            }
            Err(failed) if again(&failed, attempts) => {}
            Err(failed) => {
                client.close().await;
                return Err(failed);
            }
        }
    }
}

async fn read(gateway: &Gateway) -> Result<Vec<i64>, Failed> {
    let mut client = Client::connect(gateway)?;
    let rows = client.run("SELECT n FROM counters ORDER BY id").await;
    client.close().await;
    rows?.iter().map(|row| integer(&row[0])).collect()
}

/// What each node shows.
async fn read_copies(access: &SharedAccess) -> Result<BTreeMap<NodeId, Vec<i64>>, String> {
    let mut copies = BTreeMap::new();
    for node in access.nodes().to_vec() {
        let copy =
            access.on_node(node, |gateway| async move { read(&gateway).await }.boxed()).await;
        let copy = copy
            .map_err(|lost| format!("{node}: {lost:?}"))?
            .map_err(|failed| format!("{node}: {failed:?}"))?;
        copies.insert(node, copy);
    }
    Ok(copies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Record;

    fn record(amount: i64, ended: Ended<()>) -> Record<Increment, ()> {
        Record { client: 1, asked: 0, heard: 1, op: (0, amount), ended }
    }

    #[test]
    fn an_unknown_increment_counts_once_or_never() {
        let history = [record(5, Ended::Ok(())), record(3, Ended::Unknown), record(7, Ended::Fail)];
        for (value, good) in [(5, true), (8, true), (3, false), (11, false), (12, false)] {
            assert_eq!(check(&history, &[value, 0, 0, 0]).is_ok(), good, "{value}");
        }
    }
}
