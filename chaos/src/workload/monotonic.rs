//! Driver: counters that are read and raised by one, from every gateway.
//!
//! Invariant: *no two increments make the same value, and nobody sees a counter below what somebody heard before.*

use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use txn::client::{Db, TxnError, TxnOptions};

use super::{Workload, ended, item_key, number, persist_on, read_number, rest};
use crate::check::RealTime;
use crate::check::file::{Operation, shown};
use crate::check::monotonic::{Op, Value, check};
use crate::history::{Ended, History};
use crate::world::access::{Gateway, SharedAccess};
use crate::world::chance::Chance;

const TABLE: u32 = 160;
const COUNTERS: u64 = 4;

/// See the module.
#[derive(Default)]
pub struct Monotonic {
    history: Arc<History<Op, Value>>,
}

impl Workload for Monotonic {
    fn name(&self) -> &'static str {
        "monotonic"
    }

    fn invariant(&self) -> &'static str {
        "no two increments make the same value, and no counter is seen to go back"
    }

    fn prepare(&self, access: SharedAccess) -> BoxFuture<'static, Result<(), String>> {
        async move {
            access.split(item_key(TABLE, COUNTERS / 2)).await;
            Ok(())
        }
        .boxed()
    }

    fn client(
        &self,
        client: u32,
        access: SharedAccess,
        mut chance: Chance,
    ) -> BoxFuture<'static, ()> {
        let history = self.history.clone();
        async move {
            while !access.is_stopping() {
                let node = chance.pick(&access.nodes());
                let counter = chance.below(COUNTERS);
                let op =
                    if chance.permille(500) { Op::Increment(counter) } else { Op::Read(counter) };
                let asked = access.now();
                let work =
                    move |gateway: Gateway| async move { run(&gateway.db, op).await }.boxed();
                let ended = ended(access.on_node(node, work).await);
                history.push(client, asked, access.now(), op, ended);
                rest(&access, &mut chance).await;
            }
        }
        .boxed()
    }

    fn finish(&self, access: SharedAccess) -> BoxFuture<'static, Result<(), String>> {
        let history = self.history.clone();
        async move {
            for counter in 0..COUNTERS {
                let op = Op::Read(counter);
                let asked = access.now();
                let read =
                    move |gateway: Gateway| async move { run(&gateway.db, op).await }.boxed();
                let value = persist_on(&access, "a counter cannot be read", read).await?;
                history.push(u32::MAX, asked, access.now(), op, Ended::Ok(value));
            }
            Ok(())
        }
        .boxed()
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
