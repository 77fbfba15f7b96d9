//! Driver: rows of an available table, in SQL text; each client stays at one gateway.
//!
//! Invariant: *each client reads what it wrote and never less than it has read; nobody sees a row without what its writer knew; in the end
//! all copies hold every acknowledged row and no failed one.*

use futures::FutureExt;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::copies::Copies;
use super::drive::{Call, Deed, Turn, rest};
use super::persist_on;
use super::sql_client::{Client, Failed, integer, persevere};
use crate::check::RealTime;
use crate::check::file::{Operation, shown};
use crate::check::session::{Items, Op, check};
use crate::history::{Ended, History, Ledger};
use crate::world::access::{Gateway, SharedAccess};
use crate::world::chance::Chance;
use replication::range::NodeId;

const ROOMS: u64 = 3;

/// What a node shows: rows by room.
type Rooms = BTreeMap<u64, Items>;

/// See the module.
pub struct Sessions {
    history: History<Op, Items>,
    copies: Copies<Rooms>,
}

impl Default for Sessions {
    fn default() -> Sessions {
        let copies = Copies::new(|gateway| read(gateway).boxed());
        Sessions { history: History::default(), copies }
    }
}

impl Deed for Sessions {
    type Task = Op;
    type Answer = Items;
    type Error = Failed;

    fn name(&self) -> &'static str {
        "session"
    }

    fn invariant(&self) -> &'static str {
        "in SQL: each client of an available table reads its writes and never goes back, and copies become equal"
    }

    async fn prepare(&self, access: &SharedAccess) -> Result<(), String> {
        let open = |gateway| async move { open(&gateway).await }.boxed();
        persist_on(access, "the table cannot be made", open).await?;
        // Every gateway knows the table before anything fails.
        self.copies.wait_until(access, |_| true).await
    }

    fn gateway(&self, client: u32, nodes: &[NodeId], _chance: &mut Chance) -> NodeId {
        nodes[client as usize % nodes.len()]
    }

    fn draw(&self, mut turn: Turn<'_>) -> Op {
        let set = turn.chance.below(ROOMS);
        match turn.chance.permille(500) {
            true => Op::Add { set, item: turn.fresh(20) },
            false => Op::Read { set },
        }
    }

    async fn run(self: Arc<Self>, gateway: Gateway, op: Op) -> Result<Items, Failed> {
        persevere(&gateway, |client| step(client, op).boxed()).await
    }

    fn note(&self, Call { client, asked, heard }: Call, op: Op, ended: Ended<Items>) {
        self.history.push(client, asked, heard, op, ended);
    }

    async fn pause(&self, access: &SharedAccess, chance: &mut Chance) {
        // Reads are of whole rooms, which grow: half the pace of others.
        rest(access, chance).await;
        rest(access, chance).await;
    }

    async fn finish(self: Arc<Self>, access: &SharedAccess) -> Result<(), String> {
        self.copies.converge(access).await
    }

    fn check(&self, real_time: RealTime) -> Result<(), String> {
        let records = self.history.records();
        let copy = self.copies.any()?;
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
        shown(&self.history.records())
    }

    fn ledger(&self) -> &dyn Ledger {
        &self.history
    }
}

async fn open(gateway: &Gateway) -> Result<(), Failed> {
    let mut client = Client::connect(gateway)?;
    let table = "CREATE TABLE IF NOT EXISTS notes (id BIGINT PRIMARY KEY, room INT NOT NULL) \
                 WITH (consistency = 'available')";
    client.run(table).await?;
    // What no region can hold by itself is refused (killer A12).
    match client.run("CREATE UNIQUE INDEX notes_by_room ON notes (room)").await {
        Err(Failed::Certain(why)) if why.starts_with("0A000") => {}
        Err(failed @ (Failed::Again(_) | Failed::Unknown { .. })) => return Err(failed),
        other => {
            let what = format!("a unique index on an available table: {other:?}");
            return Err(Failed::Certain(what));
        }
    }
    client.close().await;
    Ok(())
}

async fn step(client: &mut Client, op: Op) -> Result<Items, Failed> {
    match op {
        Op::Add { set, item } => {
            client.run(&format!("INSERT INTO notes VALUES ({item}, {set})")).await?;
            Ok(Items::new())
        }
        Op::Read { set } => {
            let rows = client.run(&format!("SELECT id FROM notes WHERE room = {set}")).await?;
            rows.iter().map(|row| integer(&row[0]).map(|id| id as u64)).collect()
        }
    }
}

async fn read(gateway: Gateway) -> Result<Rooms, Failed> {
    let mut client = Client::connect(&gateway)?;
    let rows = client.run("SELECT room, id FROM notes ORDER BY id").await;
    client.close().await;
    let mut rooms = Rooms::new();
    for row in rows? {
        rooms.entry(integer(&row[0])? as u64).or_default().insert(integer(&row[1])? as u64);
    }
    Ok(rooms)
}
