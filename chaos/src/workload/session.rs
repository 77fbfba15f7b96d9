//! Driver: rows of an available table, in SQL text; each client stays at one gateway.
//!
//! Invariant: *each client reads what it wrote and never less than it has read; nobody sees a row without what its writer knew; in the end
//! all copies hold every acknowledged row and no failed one.*

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use replication::range::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::sql_client::{Client, Failed, integer, persevere};
use super::{Workload, ended, persist, persist_on, rest};
use crate::check::RealTime;
use crate::check::convergence::check_copies;
use crate::check::file::{Operation, shown};
use crate::check::session::{Items, Op, check};
use crate::history::{Ended, History};
use crate::world::access::{Gateway, SharedAccess};
use crate::world::chance::Chance;

const ROOMS: u64 = 3;

/// What a node shows: rows by room.
type Rooms = BTreeMap<u64, Items>;

/// See the module.
#[derive(Default)]
pub struct Sessions {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    history: History<Op, Items>,
    last: Mutex<BTreeMap<NodeId, Rooms>>,
}

impl Workload for Sessions {
    fn name(&self) -> &'static str {
        "session"
    }

    fn invariant(&self) -> &'static str {
        "in SQL: each client of an available table reads its writes and never goes back, and copies become equal"
    }

    fn prepare(&self, access: SharedAccess) -> BoxFuture<'static, Result<(), String>> {
        async move {
            let open = |gateway| async move { open(&gateway).await }.boxed();
            persist_on(&access, "the table cannot be made", open).await?;
            let tries = access.clone();
            // Every gateway knows the table before anything fails.
            persist(&access, move |_| {
                let access = tries.clone();
                async move { read_copies(&access).await.map(|_| ()) }.boxed()
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
            let node = access.nodes()[client as usize % access.nodes().len()];
            let mut added = 0;
            while !access.is_stopping() {
                let set = chance.below(ROOMS);
                let op = if chance.permille(500) {
                    added += 1;
                    Op::Add { set, item: u64::from(client + 1) << 20 | added }
                } else {
                    Op::Read { set }
                };
                let asked = access.now();
                let work = move |gateway: Gateway| async move { run(&gateway, op).await }.boxed();
                let ended = ended(access.on_node(node, work).await);
                shared.history.push(client, asked, access.now(), op, ended);
                // Reads are of whole rooms, which grow: half the pace of others.
                rest(&access, &mut chance).await;
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

    fn check(&self, real_time: RealTime) -> Result<(), String> {
        let records = self.shared.history.records();
        let last = self.shared.last.lock();
        let Some(copy) = last.values().next() else { return Err("nothing was read".to_string()) };
        for record in &records {
            let Op::Add { set, item } = record.op else { continue };
            let there = copy.get(&set).is_some_and(|items| items.contains(&item));
            match record.ended {
                Ended::Ok(_) if !there => return Err(format!("lost: {record:?}")),
                Ended::Fail if there => {
                    return Err(format!("there though it was said to have failed: {record:?}"));
                }
                Ended::Ok(_) | Ended::Fail | Ended::Unknown => {}
            }
        }
        match real_time {
            RealTime::Demanded => check(&records),
            // A copy with several nodes and a clock beyond its bound may be read stale.
            RealTime::Waived => Ok(()),
        }
    }

    fn operations(&self) -> Vec<Operation> {
        shown(&self.shared.history.records())
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.shared.history.counts()
    }
}

async fn open(gateway: &Gateway) -> Result<(), Failed> {
    let mut client = Client::connect(gateway)?;
    let table = "CREATE TABLE IF NOT EXISTS notes (id BIGINT PRIMARY KEY, room INT NOT NULL) \
                 WITH (consistency = 'available')";
    client.run(table).await?;
    client.close().await;
    Ok(())
}

async fn run(gateway: &Gateway, op: Op) -> Result<Items, Failed> {
    persevere(gateway, |client| {
        async move {
            match op {
                Op::Add { set, item } => {
                    client.run(&format!("INSERT INTO notes VALUES ({item}, {set})")).await?;
                    Ok(Items::new())
                }
                Op::Read { set } => {
                    let rows =
                        client.run(&format!("SELECT id FROM notes WHERE room = {set}")).await?;
                    rows.iter().map(|row| integer(&row[0]).map(|id| id as u64)).collect()
                }
            }
        }
        .boxed()
    })
    .await
}

async fn read(gateway: &Gateway) -> Result<Rooms, Failed> {
    let mut client = Client::connect(gateway)?;
    let rows = client.run("SELECT room, id FROM notes ORDER BY id").await;
    client.close().await;
    let mut rooms = Rooms::new();
    for row in rows? {
        rooms.entry(integer(&row[0])? as u64).or_default().insert(integer(&row[1])? as u64);
    }
    Ok(rooms)
}

/// What each node shows.
async fn read_copies(access: &SharedAccess) -> Result<BTreeMap<NodeId, Rooms>, String> {
    let mut copies = BTreeMap::new();
    for node in access.nodes() {
        let work = |gateway: Gateway| async move { read(&gateway).await }.boxed();
        let copy = access.on_node(node, work).await;
        let copy = copy
            .map_err(|lost| format!("{node}: {lost:?}"))?
            .map_err(|failed| format!("{node}: {failed}"))?;
        copies.insert(node, copy);
    }
    Ok(copies)
}
