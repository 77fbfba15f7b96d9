//! Driver: single registers, each a key: read, write, compare and swap, each in a transaction of its own.
//!
//! Invariant: *each register behaves as one copy: every answer fits one order of operations that agrees with real time.*

use futures::FutureExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use txn::client::{Db, TxnError, TxnOptions};

use super::drive::{Call, Dated, Deed, Turn, ask_last};
use super::{Manner, beside, draft, item_key, number, read_number};
use crate::check::RealTime;
use crate::check::file::Operation;
use crate::check::mvcc::{self, Seen};
use crate::check::register::{Answer, Op, check_all};
use crate::history::{Ended, History, Ledger};
use crate::world::access::{Gateway, SharedAccess};

const TABLE: u32 = 110;
const REGISTERS: u64 = 6;
/// Of two ranges.
const MIDDLE: u64 = REGISTERS / 2;

/// See the module.
#[derive(Default)]
pub struct Registers {
    dated: Dated<(u64, Op), Answer>,
    /// What was acknowledged last is asked for first: elsewhere, perhaps, and at once.
    acknowledged: AtomicU64,
}

impl Deed for Registers {
    type Task = (u64, Op, Manner);
    type Answer = (Answer, Seen);
    type Error = TxnError;

    fn name(&self) -> &'static str {
        "register"
    }

    fn invariant(&self) -> &'static str {
        "each register behaves as one copy, in an order that agrees with real time"
    }

    async fn prepare(&self, access: &SharedAccess) -> Result<(), String> {
        access.split(item_key(TABLE, MIDDLE)).await;
        Ok(())
    }

    fn draw(&self, mut turn: Turn<'_>) -> (u64, Op, Manner) {
        let (register, fresh) = (turn.chance.below(REGISTERS), turn.fresh(32));
        let manner = Manner::draw(turn.chance);
        if turn.chance.permille(250) {
            return (self.acknowledged.load(Ordering::Relaxed), Op::Read, manner);
        }
        let op = match turn.chance.below(10) {
            0..=4 => Op::Read,
            5..=7 => Op::Write(fresh),
            _ => Op::Swap(recent(&self.dated.history, register), fresh),
        };
        (register, op, manner)
    }

    async fn run(
        self: Arc<Self>,
        gateway: Gateway,
        (register, op, manner): (u64, Op, Manner),
    ) -> Result<(Answer, Seen), TxnError> {
        run(&gateway.db, register, op, manner).await
    }

    fn note(&self, call: Call, (register, op, _): (u64, Op, Manner), ended: Ended<(Answer, Seen)>) {
        if matches!((op, &ended), (Op::Write(_) | Op::Swap(..), Ended::Ok(_))) {
            self.acknowledged.store(register, Ordering::Relaxed);
        }
        self.dated.push(call, (register, op), ended, |(register, op), answer| match (op, answer) {
            (Op::Read, _) | (Op::Swap(..), Ended::Ok(Answer::Swapped(false))) => Vec::new(),
            (Op::Write(value) | Op::Swap(_, value), _) => vec![(*register, *value)],
        });
    }

    async fn finish(self: Arc<Self>, access: &SharedAccess) -> Result<(), String> {
        for register in 0..REGISTERS {
            ask_last(
                &self,
                access,
                "a register cannot be read",
                (register, Op::Read, Manner::Plain),
            )
            .await?;
        }
        Ok(())
    }

    fn check(&self, real_time: RealTime) -> Result<(), String> {
        mvcc::check(&self.dated.instants.records())?;
        if real_time == RealTime::Waived {
            // All else that is promised of a single register is its order in real time.
            return Ok(());
        }
        check_all(&self.dated.history.records())
    }

    fn operations(&self) -> Vec<Operation> {
        self.dated.operations()
    }

    fn ledger(&self) -> &dyn Ledger {
        &self.dated.history
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

async fn run(db: &Db, register: u64, op: Op, manner: Manner) -> Result<(Answer, Seen), TxnError> {
    let work = db.run_to_commit(TxnOptions::labelled("register"), move |txn| {
        async move {
            let key = item_key(TABLE, register);
            let other = (manner == Manner::Beside).then(|| beside(TABLE, register, MIDDLE));
            match (op, other) {
                (_, None) => {}
                (Op::Read, Some(other)) => drop(txn.get(&other, None).await?),
                (Op::Write(value) | Op::Swap(_, value), Some(other)) => {
                    txn.put(other, number(value))?;
                }
            }
            if let (Op::Write(value), Manner::Twice) = (op, manner) {
                draft(txn, &key, value).await?;
            }
            if let Op::Write(value) = op {
                txn.put(key, number(value))?;
                return Ok((Answer::Done, Vec::new()));
            }
            let found = txn.get(&key, None).await?.map(|bytes| read_number(&bytes));
            let value = found.unwrap_or(0);
            let answer = match op {
                Op::Read | Op::Write(_) => Answer::Value(value),
                Op::Swap(old, new) => {
                    if value == old {
                        txn.put(key, number(new))?;
                    }
                    Answer::Swapped(value == old)
                }
            };
            Ok((answer, vec![(register, found)]))
        }
        .boxed()
    });
    let ((answer, reads), commit) = work.await?;
    Ok((answer, Seen { at: commit.ts, reads }))
}
