//! Driver: counters that are read and raised by one, from every gateway.
//!
//! Invariant: *no two increments make the same value, and nobody sees a counter below what somebody heard before.*

use futures::FutureExt;
use std::sync::Arc;
use txn::client::{Db, TxnError, TxnOptions};

use super::drive::{Call, Deed, Turn, ask_last};
use super::{item_key, number, read_number};
use crate::check::RealTime;
use crate::check::file::{Operation, shown};
use crate::check::monotonic::{Op, Value, check};
use crate::history::{Ended, History};
use crate::world::access::{Gateway, SharedAccess};

const TABLE: u32 = 160;
const COUNTERS: u64 = 4;

/// See the module.
#[derive(Default)]
pub struct Monotonic {
    history: History<Op, Value>,
}

impl Deed for Monotonic {
    type Task = Op;
    type Answer = Value;
    type Error = TxnError;

    fn name(&self) -> &'static str {
        "monotonic"
    }

    fn invariant(&self) -> &'static str {
        "no two increments make the same value, and no counter is seen to go back"
    }

    async fn prepare(&self, access: &SharedAccess) -> Result<(), String> {
        access.split(item_key(TABLE, COUNTERS / 2)).await;
        Ok(())
    }

    fn draw(&self, turn: Turn<'_>) -> Op {
        let counter = turn.chance.below(COUNTERS);
        if turn.chance.permille(500) { Op::Increment(counter) } else { Op::Read(counter) }
    }

    async fn run(self: Arc<Self>, gateway: Gateway, op: Op) -> Result<Value, TxnError> {
        run(&gateway.db, op).await
    }

    fn note(&self, Call { client, asked, heard }: Call, op: Op, ended: Ended<Value>) {
        self.history.push(client, asked, heard, op, ended);
    }

    async fn finish(self: Arc<Self>, access: &SharedAccess) -> Result<(), String> {
        for counter in 0..COUNTERS {
            ask_last(&self, access, "a counter cannot be read", Op::Read(counter)).await?;
        }
        Ok(())
    }

    fn check(&self, real_time: RealTime) -> Result<(), String> {
        check(&self.history.records(), real_time.into())
    }

    fn operations(&self) -> Vec<Operation> {
        shown(&self.history.records())
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.history.counts()
    }
}

async fn run(db: &Db, op: Op) -> Result<Value, TxnError> {
    db.run(TxnOptions::labelled("monotonic"), move |txn| {
        async move {
            let (Op::Increment(counter) | Op::Read(counter)) = op;
            let key = item_key(TABLE, counter);
            let value = txn.get(&key, None).await?.map_or(0, |value| read_number(&value));
            match op {
                Op::Read(_) => Ok(value),
                Op::Increment(_) => {
                    txn.put(key, number(value + 1))?;
                    Ok(value + 1)
                }
            }
        }
        .boxed()
    })
    .await
}
