//! Driver: strictly serializable transactions: single writes, and readers that take their time between two keys.
//!
//! Invariant: *the transactions could have run one after another, in an order that agrees with real time, also of those that have no key in
//! common.* A reader that is between two reads when one key is written and then, by somebody who heard of that, another, must not
//! see the second write without the first (killer H04).

use futures::FutureExt;
use std::sync::Arc;
use std::time::Duration;
use txn::client::{Access, Isolation, TxnError, TxnOptions};

use super::drive::{Call, Dated, Deed, Turn, ask_last, rest};
use super::{item_key, number, read_number};
use crate::check::file::Operation;
use crate::check::mvcc::{self, Seen};
use crate::check::txn_register::{Reads, Step, Txn, check};
use crate::check::{Level, RealTime};
use crate::history::{Ended, Ledger};
use crate::world::access::{Gateway, SharedAccess};
use crate::world::chance::Chance;

const TABLE: u32 = 170;
const REGISTERS: u64 = 4;

/// See the module.
#[derive(Default)]
pub struct Strict {
    dated: Dated<Txn, Reads>,
}

impl Deed for Strict {
    /// How long it waits between two steps.
    type Task = (Txn, Duration);
    type Answer = (Reads, Seen);
    type Error = TxnError;

    fn name(&self) -> &'static str {
        "strict"
    }

    fn invariant(&self) -> &'static str {
        "strictly serializable transactions could have run one after another, in an order that agrees with real time"
    }

    async fn prepare(&self, access: &SharedAccess) -> Result<(), String> {
        access.split(item_key(TABLE, REGISTERS / 2)).await;
        Ok(())
    }

    fn draw(&self, mut turn: Turn<'_>) -> (Txn, Duration) {
        if turn.chance.permille(600) {
            let key = turn.chance.below(REGISTERS);
            return (vec![Step::Write { key, value: turn.fresh(32) }], Duration::ZERO);
        }
        let first = turn.chance.below(REGISTERS);
        let keys = (first..first + turn.chance.between(2, REGISTERS)).map(|key| key % REGISTERS);
        let apart = Duration::from_millis(turn.chance.pick(&[0, 20, 80, 200]));
        (keys.map(|key| Step::Read { key }).collect(), apart)
    }

    async fn run(
        self: Arc<Self>,
        gateway: Gateway,
        (steps, apart): (Txn, Duration),
    ) -> Result<(Reads, Seen), TxnError> {
        run(&gateway, steps, apart).await
    }

    fn note(&self, call: Call, (steps, _): (Txn, Duration), ended: Ended<(Reads, Seen)>) {
        self.dated.push(call, steps, ended, |steps, _| {
            let writes = steps.iter().filter_map(|step| match step {
                Step::Write { key, value } => Some((*key, *value)),
                Step::Read { .. } => None,
            });
            writes.collect()
        });
    }

    async fn pause(&self, access: &SharedAccess, chance: &mut Chance) {
        rest(access, chance).await;
    }

    async fn finish(self: Arc<Self>, access: &SharedAccess) -> Result<(), String> {
        let all: Txn = (0..REGISTERS).map(|key| Step::Read { key }).collect();
        ask_last(&self, access, "the registers cannot be read", (all, Duration::ZERO)).await
    }

    fn check(&self, real_time: RealTime) -> Result<(), String> {
        mvcc::check(&self.dated.instants.records())?;
        let level = match real_time {
            RealTime::Demanded => Level::Strict,
            RealTime::Waived => Level::Serializable,
        };
        check(&self.dated.history.records(), level)
    }

    fn operations(&self) -> Vec<Operation> {
        self.dated.operations()
    }

    fn ledger(&self) -> &dyn Ledger {
        &self.dated.history
    }
}

async fn run(gateway: &Gateway, steps: Txn, apart: Duration) -> Result<(Reads, Seen), TxnError> {
    let only_reads = steps.iter().all(|step| matches!(step, Step::Read { .. }));
    let access = if only_reads { Access::ReadOnly } else { Access::ReadWrite };
    let isolation = Isolation::StrictSerializable;
    let options = TxnOptions { isolation, access, ..TxnOptions::labelled("strict") };
    let time = gateway.runtime.time.clone();
    let work = gateway.db.run_to_commit(options, move |txn| {
        let (steps, time) = (steps.clone(), time.clone());
        async move {
            let (mut reads, mut found) = (Reads::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Read { key } => {
                        if !reads.is_empty() && !apart.is_zero() {
                            time.sleep_until(time.monotonic().plus(apart)).await;
                        }
                        let value = txn.get(&item_key(TABLE, key), None).await?;
                        let value = value.map(|value| read_number(&value));
                        reads.push(value);
                        found.push((key, value));
                    }
                    Step::Write { key, value } => txn.put(item_key(TABLE, key), number(value))?,
                }
            }
            Ok((reads, found))
        }
        .boxed()
    });
    let ((reads, found), commit) = work.await?;
    Ok((reads, Seen { at: commit.ts, reads: found }))
}
