//! Driver: counters that are read and raised by one, from every gateway.
//!
//! Invariant: *no two increments make the same value, and nobody sees a counter below what somebody heard before.*

use futures::FutureExt;
use std::sync::Arc;
use txn::client::{Db, TxnError, TxnOptions};

use super::drive::{Call, Deed, Turn, ask_last};
use super::{Manner, beside, draft, item_key, number, read_number};
use crate::check::RealTime;
use crate::check::file::{Operation, shown};
use crate::check::monotonic::{Op, Value, check};
use crate::history::{Ended, History, Ledger};
use crate::world::access::{Gateway, SharedAccess};

const TABLE: u32 = 160;
const COUNTERS: u64 = 4;
/// Of two ranges.
const MIDDLE: u64 = COUNTERS / 2;

/// See the module.
#[derive(Default)]
pub struct Monotonic {
    history: History<Op, Value>,
}

impl Deed for Monotonic {
    type Task = (Op, Manner);
    type Answer = Value;
    type Error = TxnError;

    fn name(&self) -> &'static str {
        "monotonic"
    }

    fn invariant(&self) -> &'static str {
        "no two increments make the same value, and no counter is seen to go back"
    }

    async fn prepare(&self, access: &SharedAccess) -> Result<(), String> {
        access.split(item_key(TABLE, MIDDLE)).await;
        Ok(())
    }

    fn draw(&self, turn: Turn<'_>) -> (Op, Manner) {
        let counter = turn.chance.below(COUNTERS);
        let grows = turn.chance.permille(500);
        let op = if grows { Op::Increment(counter) } else { Op::Read(counter) };
        (op, Manner::draw(turn.chance))
    }

    async fn run(
        self: Arc<Self>,
        gateway: Gateway,
        (op, manner): (Op, Manner),
    ) -> Result<Value, TxnError> {
        run(&gateway.db, op, manner).await
    }

    fn note(
        &self,
        Call { client, asked, heard }: Call,
        (op, _): (Op, Manner),
        ended: Ended<Value>,
    ) {
        self.history.push(client, asked, heard, op, ended);
    }

    async fn finish(self: Arc<Self>, access: &SharedAccess) -> Result<(), String> {
        for counter in 0..COUNTERS {
            let read = (Op::Read(counter), Manner::Plain);
            ask_last(&self, access, "a counter cannot be read", read).await?;
        }
        Ok(())
    }

    fn check(&self, real_time: RealTime) -> Result<(), String> {
        check(&self.history.records(), real_time.into())
    }

    fn operations(&self) -> Vec<Operation> {
        shown(&self.history.records())
    }

    fn ledger(&self) -> &dyn Ledger {
        &self.history
    }
}

async fn run(db: &Db, op: Op, manner: Manner) -> Result<Value, TxnError> {
    db.run(TxnOptions::labelled("monotonic"), move |txn| {
        async move {
            let (Op::Increment(counter) | Op::Read(counter)) = op;
            let key = item_key(TABLE, counter);
            let other = (manner == Manner::Beside).then(|| beside(TABLE, counter, MIDDLE));
            match (op, other) {
                (_, None) => {}
                (Op::Read(_), Some(other)) => drop(txn.get(&other, None).await?),
                (Op::Increment(_), Some(other)) => txn.put(other, number(counter))?,
            }
            let value = txn.get(&key, None).await?.map_or(0, |value| read_number(&value));
            match op {
                Op::Read(_) => Ok(value),
                Op::Increment(_) => {
                    if manner == Manner::Twice {
                        draft(txn, &key, value + 1).await?;
                    }
                    txn.put(key, number(value + 1))?;
                    Ok(value + 1)
                }
            }
        }
        .boxed()
    })
    .await
}
