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
use crate::check::mvcc::{self, Seen};
use crate::check::register::{Answer, Op, check_all};
use crate::history::{Ended, History};
use crate::world::access::{Gateway, SharedAccess};
use crate::world::chance::Chance;

const TABLE: u32 = 110;
const REGISTERS: u64 = 6;

/// See the module.
#[derive(Default)]
pub struct Registers {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    history: History<(u64, Op), Answer>,
    /// The same, by the timestamps of commits.
    instants: History<mvcc::Writes, mvcc::Seen>,
}

impl Shared {
    fn push(
        &self,
        client: u32,
        asked: u64,
        heard: u64,
        op: (u64, Op),
        ended: Ended<(Answer, Seen)>,
    ) {
        let (answer, seen) = ended.apart();
        let writes = match (op.1, &answer) {
            (Op::Read, _) | (Op::Swap(..), Ended::Ok(Answer::Swapped(false))) => Vec::new(),
            (Op::Write(value) | Op::Swap(_, value), _) => vec![(op.0, value)],
        };
        self.instants.push(client, asked, heard, writes, seen);
        self.history.push(client, asked, heard, op, answer);
    }
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
        let shared = self.shared.clone();
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
                    _ => Op::Swap(recent(&shared.history, register), fresh),
                };
                let asked = access.now();
                let work = move |gateway: Gateway| {
                    async move { run(&gateway.db, register, op).await }.boxed()
                };
                let ended = ended(access.on_node(node, work).await);
                shared.push(client, asked, access.now(), (register, op), ended);
                rest(&access, &mut chance).await;
            }
        }
        .boxed()
    }

    fn finish(&self, access: SharedAccess) -> BoxFuture<'static, Result<(), String>> {
        let shared = self.shared.clone();
        async move {
            for register in 0..REGISTERS {
                let asked = access.now();
                let read = move |gateway: Gateway| {
                    async move { run(&gateway.db, register, Op::Read).await }.boxed()
                };
                let answer = persist_on(&access, "a register cannot be read", read).await?;
                let op = (register, Op::Read);
                shared.push(u32::MAX, asked, access.now(), op, Ended::Ok(answer));
            }
            Ok(())
        }
        .boxed()
    }

    fn check(&self, real_time: RealTime) -> Result<(), String> {
        mvcc::check(&self.shared.instants.records())?;
        if real_time == RealTime::Waived {
            // All else that is promised of a single register is its order in real time.
            return Ok(());
        }
        check_all(&self.shared.history.records())
    }

    fn operations(&self) -> Vec<Operation> {
        shown(&self.shared.history.records())
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.shared.history.counts()
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

async fn run(db: &Db, register: u64, op: Op) -> Result<(Answer, Seen), TxnError> {
    let work = db.run_to_commit(TxnOptions::labelled("register"), move |txn| {
        async move {
            let key = item_key(TABLE, register);
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
