//! Driver: single registers, each a key: read, write, compare and swap, each in a transaction of its own.
//!
//! Invariant: *each register behaves as one copy: every answer fits one order of operations that agrees with real time.*

use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use txn::client::{Db, TxnError, TxnOptions};

use super::{Workload, ended, item_key, number, persist_on, read_number, rest};
use crate::check::RealTime;
use crate::check::file::{Operation, shown};
use crate::check::register::{Answer, Op, check_all};
use crate::history::{Ended, History};
use crate::world::access::{Gateway, SharedAccess};
use crate::world::chance::Chance;

const TABLE: u32 = 110;
const REGISTERS: u64 = 6;

/// See the module.
#[derive(Default)]
pub struct Registers {
    history: Arc<History<(u64, Op), Answer>>,
}

impl Workload for Registers {
    fn name(&self) -> &'static str {
        "register"
    }

    fn invariant(&self) -> &'static str {
        "each register behaves as one copy, in an order that agrees with real time"
    }

    fn prepare(&self, access: SharedAccess) -> BoxFuture<'static, Result<(), String>> {
        async move {
            access.split(item_key(TABLE, REGISTERS / 2)).await;
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
            let mut written = 0;
            while !access.is_stopping() {
                let node = chance.pick(&access.nodes());
                let register = chance.below(REGISTERS);
                written += 1;
                let fresh = u64::from(client + 1) << 32 | written;
                let op = match chance.below(10) {
                    0..=4 => Op::Read,
                    5..=7 => Op::Write(fresh),
                    _ => Op::Swap(recent(&history, register), fresh),
                };
                let asked = access.now();
                let work = move |gateway: Gateway| {
                    async move { run(&gateway.db, register, op).await }.boxed()
                };
                let ended = ended(access.on_node(node, work).await);
                history.push(client, asked, access.now(), (register, op), ended);
                rest(&access, &mut chance).await;
            }
        }
        .boxed()
    }

    fn finish(&self, access: SharedAccess) -> BoxFuture<'static, Result<(), String>> {
        let history = self.history.clone();
        async move {
            for register in 0..REGISTERS {
                let asked = access.now();
                let read = move |gateway: Gateway| {
                    async move { run(&gateway.db, register, Op::Read).await }.boxed()
                };
                let answer = persist_on(&access, "a register cannot be read", read).await?;
                let op = (register, Op::Read);
                history.push(u32::MAX, asked, access.now(), op, Ended::Ok(answer));
            }
            Ok(())
        }
        .boxed()
    }

    fn check(&self, real_time: RealTime) -> Result<(), String> {
        if real_time == RealTime::Waived {
            // All that is promised of a single register is its order in real time.
            return Ok(());
        }
        check_all(&self.history.records())
    }

    fn operations(&self) -> Vec<Operation> {
        shown(&self.history.records())
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.history.counts()
    }
}

/// Something that was in the register lately: swaps that can succeed.
fn recent(history: &History<(u64, Op), Answer>, register: u64) -> u64 {
    let records = history.records();
    let seen = records.iter().rev().filter(|record| record.op.0 == register).find_map(|record| {
        match (record.op.1, &record.ended) {
            (_, Ended::Ok(Answer::Value(value))) => Some(*value),
            (
                Op::Write(value) | Op::Swap(_, value),
                Ended::Ok(Answer::Done | Answer::Swapped(true)),
            ) => Some(value),
            (
                Op::Read | Op::Write(_) | Op::Swap(..),
                Ended::Ok(_) | Ended::Fail | Ended::Unknown,
            ) => None,
        }
    });
    seen.unwrap_or(0)
}

async fn run(db: &Db, register: u64, op: Op) -> Result<Answer, TxnError> {
    db.run(TxnOptions::labelled("register"), move |txn| {
        async move {
            let key = item_key(TABLE, register);
            match op {
                Op::Read => {
                    let value = txn.get(&key, None).await?;
                    Ok(Answer::Value(value.map_or(0, |bytes| read_number(&bytes))))
                }
                Op::Write(value) => {
                    txn.put(key, number(value))?;
                    Ok(Answer::Done)
                }
                Op::Swap(old, new) => {
                    let value = txn.get(&key, None).await?.map_or(0, |bytes| read_number(&bytes));
                    if value == old {
                        txn.put(key, number(new))?;
                    }
                    Ok(Answer::Swapped(value == old))
                }
            }
        }
        .boxed()
    })
    .await
}
