//! Driver: rows of an available table that everybody replaces, deletes and makes again, in every region, cut off or not; and numbers drawn
//! from a sequence.
//!
//! Invariant: *in the end all copies are equal; what stays is a whole row of one write that nobody knew of when it was replaced; no number is
//! drawn twice.*

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use replication::range::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::sql_client::{Client, Failed, integer, persevere};
use super::{Workload, ended, persist, persist_on, rest};
use crate::check::RealTime;
use crate::check::cells::{Answer, Op, Row, check};
use crate::check::convergence::check_copies;
use crate::check::file::Operation;
use crate::history::History;
use crate::world::access::{Gateway, SharedAccess};
use crate::world::chance::Chance;

/// Rows that are only replaced.
const KEPT: u64 = 2;
/// All rows.
const ROWS: u64 = 4;

/// What a node shows: rows by key.
type Rows = BTreeMap<u64, Row>;

/// See the module.
#[derive(Default)]
pub struct Cells {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    history: History<Op, Answer>,
    last: Mutex<BTreeMap<NodeId, Rows>>,
}

impl Workload for Cells {
    fn name(&self) -> &'static str {
        "cells"
    }

    fn invariant(&self) -> &'static str {
        "in SQL: the last writer of a row of an available table wins, whole, and in all copies; no number is drawn twice"
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
            let mut written = 0;
            while !access.is_stopping() {
                let node = chance.pick(&access.nodes());
                let (key, at) = (chance.below(ROWS), node.0);
                written += 1;
                let tag = u64::from(client + 1) << 20 | written;
                let op = match chance.below(10) {
                    0..=4 => Op::Put { key, tag, at },
                    5 | 6 if key >= KEPT => Op::Delete { key, at },
                    7 => Op::Draw,
                    _ => Op::Read { key, at },
                };
                let asked = access.now();
                let work = move |gateway: Gateway| async move { run(&gateway, op).await }.boxed();
                let ended = ended(access.on_node(node, work).await);
                shared.history.push(client, asked, access.now(), op, ended);
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
        let last = self.shared.last.lock();
        let Some(copy) = last.values().next() else {
            return Err("nothing was read".to_string());
        };
        check(&self.shared.history.records(), copy, real_time)
    }

    fn operations(&self) -> Vec<Operation> {
        Vec::new()
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.shared.history.counts()
    }
}

async fn open(gateway: &Gateway) -> Result<(), Failed> {
    let mut client = Client::connect(gateway)?;
    let table = "CREATE TABLE IF NOT EXISTS cells (id BIGINT PRIMARY KEY, tag BIGINT NOT NULL, twin BIGINT NOT NULL) \
                 WITH (consistency = 'available')";
    client.run(table).await?;
    client.run("CREATE SEQUENCE IF NOT EXISTS numbers").await?;
    client.close().await;
    Ok(())
}

async fn run(gateway: &Gateway, op: Op) -> Result<Answer, Failed> {
    persevere(gateway, |client| async move { step(client, op).await }.boxed()).await
}

async fn step(client: &mut Client, op: Op) -> Result<Answer, Failed> {
    let (key, change) = match op {
        Op::Draw => {
            let rows = client.run("SELECT nextval('numbers')").await?;
            let number = rows.first().map(|row| integer(&row[0])).transpose()?;
            let nothing = || Failed::Certain("no number was drawn".to_string());
            return number.map(Answer::Drawn).ok_or_else(nothing);
        }
        Op::Read { key, .. } => return Ok(Answer::Found(find(client, key).await?)),
        Op::Put { key, tag, .. } => {
            let replaces =
                "ON CONFLICT (id) DO UPDATE SET tag = excluded.tag, twin = excluded.twin";
            (key, format!("INSERT INTO cells VALUES ({key}, {tag}, {tag}) {replaces}"))
        }
        Op::Delete { key, .. } => (key, format!("DELETE FROM cells WHERE id = {key}")),
    };
    client.run("BEGIN").await?;
    let found = find(client, key).await?;
    client.run(&change).await?;
    client.run("COMMIT").await?;
    Ok(Answer::Found(found))
}

async fn find(client: &mut Client, key: u64) -> Result<Option<Row>, Failed> {
    let rows = client.run(&format!("SELECT tag, twin FROM cells WHERE id = {key}")).await?;
    rows.first().map(|row| row_of(&row[..])).transpose()
}

fn row_of(row: &[sql::types::Datum]) -> Result<Row, Failed> {
    Ok(Row { tag: integer(&row[0])? as u64, twin: integer(&row[1])? as u64 })
}

async fn read(gateway: &Gateway) -> Result<Rows, Failed> {
    let mut client = Client::connect(gateway)?;
    let rows = client.run("SELECT id, tag, twin FROM cells ORDER BY id").await;
    client.close().await;
    let row = |row: &Vec<sql::types::Datum>| Ok((integer(&row[0])? as u64, row_of(&row[1..])?));
    rows?.iter().map(row).collect()
}

/// What each node shows.
async fn read_copies(access: &SharedAccess) -> Result<BTreeMap<NodeId, Rows>, String> {
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
