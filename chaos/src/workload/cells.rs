//! Driver: rows of an available table that everybody replaces, deletes and makes again, in every region, cut off or not; and numbers drawn
//! from a sequence.
//!
//! Invariant: *in the end all copies are equal; what stays is a whole row of one write that nobody knew of when it was replaced; no number is
//! drawn twice.*

use futures::FutureExt;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::copies::Copies;
use super::drive::{Call, Deed, Turn};
use super::persist_on;
use super::sql_client::{Client, Failed, integer, persevere};
use crate::check::RealTime;
use crate::check::cells::{Answer, Op, Row, check};
use crate::check::file::{Operation, show_cells};
use crate::history::{Ended, History, Ledger};
use crate::world::access::{Gateway, SharedAccess};

/// Rows that are only replaced.
const KEPT: u64 = 2;
/// All rows.
const ROWS: u64 = 4;

/// What a node shows: rows by key.
type Rows = BTreeMap<u64, Row>;

/// See the module.
pub struct Cells {
    history: History<Op, Answer>,
    copies: Copies<Rows>,
}

impl Default for Cells {
    fn default() -> Cells {
        Cells { history: History::default(), copies: Copies::new(|gateway| read(gateway).boxed()) }
    }
}

impl Deed for Cells {
    type Task = Op;
    type Answer = Answer;
    type Error = Failed;

    fn name(&self) -> &'static str {
        "cells"
    }

    fn invariant(&self) -> &'static str {
        "in SQL: the last writer of a row of an available table wins, whole, and in all copies; no number is drawn twice"
    }

    async fn prepare(&self, access: &SharedAccess) -> Result<(), String> {
        let open = |gateway| async move { open(&gateway).await }.boxed();
        persist_on(access, "the table cannot be made", open).await?;
        // Every gateway knows the table before anything fails.
        self.copies.wait_until(access, |_| true).await
    }

    fn draw(&self, mut turn: Turn<'_>) -> Op {
        let (key, at, tag) = (turn.chance.below(ROWS), turn.node.0, turn.fresh(20));
        match turn.chance.below(10) {
            0..=4 => Op::Put { key, tag, at },
            5 | 6 if key >= KEPT => Op::Delete { key, at },
            7 => Op::Draw,
            _ => Op::Read { key, at },
        }
    }

    async fn run(self: Arc<Self>, gateway: Gateway, op: Op) -> Result<Answer, Failed> {
        persevere(&gateway, |client| async move { step(client, op).await }.boxed()).await
    }

    fn note(&self, Call { client, asked, heard }: Call, op: Op, ended: Ended<Answer>) {
        self.history.push(client, asked, heard, op, ended);
    }

    async fn finish(self: Arc<Self>, access: &SharedAccess) -> Result<(), String> {
        self.copies.converge(access).await
    }

    fn check(&self, real_time: RealTime) -> Result<(), String> {
        check(&self.history.records(), &self.copies.any()?, real_time)
    }

    fn operations(&self) -> Vec<Operation> {
        let copies = self.copies.last().into_iter().map(|(node, copy)| (node.0, copy)).collect();
        show_cells(&self.history.records(), &copies)
    }

    fn ledger(&self) -> &dyn Ledger {
        &self.history
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

async fn read(gateway: Gateway) -> Result<Rows, Failed> {
    let mut client = Client::connect(&gateway)?;
    let rows = client.run("SELECT id, tag, twin FROM cells ORDER BY id").await;
    client.close().await;
    let row = |row: &Vec<sql::types::Datum>| Ok((integer(&row[0])? as u64, row_of(&row[1..])?));
    rows?.iter().map(row).collect()
}
