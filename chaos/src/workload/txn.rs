//! Driver: transactions that read and blindly write registers, over several ranges.
//!
//! Invariant: *the transactions could have run one after another, in an order that agrees with real time on every register.* What lists
//! ([`super::append`]) cannot show: writes that read nothing before.

use futures::FutureExt;
use std::collections::BTreeSet;
use std::sync::Arc;
use txn::api::Lock;
use txn::client::{Db, TxnError, TxnOptions};

use super::drive::{Call, Dated, Deed, Turn, ask_last};
use super::{item_key, number, read_number};
use crate::check::RealTime;
use crate::check::file::Operation;
use crate::check::mvcc::{self, Seen};
use crate::check::txn_register::{Reads, Step, Txn, check};
use crate::history::{Ended, Ledger};
use crate::world::access::{Gateway, SharedAccess};

const TABLE: u32 = 130;
const REGISTERS: u64 = 6;

/// See the module.
#[derive(Default)]
pub struct Txns {
    dated: Dated<Txn, Reads>,
}

impl Deed for Txns {
    /// With which lock it reads what it will write.
    type Task = (Txn, Option<Lock>);
    type Answer = (Reads, Seen);
    type Error = TxnError;

    fn name(&self) -> &'static str {
        "txn"
    }

    fn invariant(&self) -> &'static str {
        "transactions with blind writes could have run one after another, in an order that agrees with real time on every register"
    }

    async fn prepare(&self, access: &SharedAccess) -> Result<(), String> {
        access.split(item_key(TABLE, REGISTERS / 2)).await;
        Ok(())
    }

    fn draw(&self, mut turn: Turn<'_>) -> (Txn, Option<Lock>) {
        let steps = draw(&mut turn);
        (steps, turn.chance.permille(200).then_some(Lock::Exclusive))
    }

    async fn run(
        self: Arc<Self>,
        gateway: Gateway,
        (steps, lock): (Txn, Option<Lock>),
    ) -> Result<(Reads, Seen), TxnError> {
        run(&gateway.db, steps, lock).await
    }

    fn note(&self, call: Call, (steps, _): (Txn, Option<Lock>), ended: Ended<(Reads, Seen)>) {
        self.dated.push(call, steps, ended, |steps, _| {
            let writes = steps.iter().filter_map(|step| match step {
                Step::Write { key, value } => Some((*key, *value)),
                Step::Read { .. } => None,
            });
            writes.collect()
        });
    }

    async fn finish(self: Arc<Self>, access: &SharedAccess) -> Result<(), String> {
        let all: Txn = (0..REGISTERS).map(|key| Step::Read { key }).collect();
        ask_last(&self, access, "the registers cannot be read", (all, None)).await
    }

    fn check(&self, real_time: RealTime) -> Result<(), String> {
        mvcc::check(&self.dated.instants.records())?;
        check(&self.dated.history.records(), real_time.into())
    }

    fn operations(&self) -> Vec<Operation> {
        self.dated.operations()
    }

    fn ledger(&self) -> &dyn Ledger {
        &self.dated.history
    }
}

fn draw(turn: &mut Turn<'_>) -> Txn {
    let steps = turn.chance.between(1, 4);
    // Some transactions write one key again and again: only the last of these may ever be seen.
    let again = turn.chance.permille(200).then(|| turn.chance.below(REGISTERS));
    (0..steps)
        .map(|_| {
            let drawn = turn.chance.below(REGISTERS);
            let key = again.filter(|_| turn.chance.permille(700)).unwrap_or(drawn);
            if turn.chance.permille(if again == Some(key) { 800 } else { 500 }) {
                Step::Write { key, value: turn.fresh(32) }
            } else {
                Step::Read { key }
            }
        })
        .collect()
}

async fn run(db: &Db, steps: Txn, lock: Option<Lock>) -> Result<(Reads, Seen), TxnError> {
    // A register that is written later is locked when it is read, if at all: as FOR UPDATE is used.
    let writes: BTreeSet<u64> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Write { key, .. } => Some(*key),
            Step::Read { .. } => None,
        })
        .collect();
    let work = db.run_to_commit(TxnOptions::labelled("txn"), move |txn| {
        let (steps, writes) = (steps.clone(), writes.clone());
        async move {
            let (mut reads, mut found) = (Reads::new(), Vec::new());
            let mut written = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Read { key } => {
                        let lock = lock.filter(|_| writes.contains(&key));
                        let value = txn.get(&item_key(TABLE, key), lock).await?;
                        let value = value.map(|value| read_number(&value));
                        reads.push(value);
                        if !written.contains(&key) {
                            found.push((key, value));
                        }
                    }
                    Step::Write { key, value } => {
                        txn.put(item_key(TABLE, key), number(value))?;
                        written.insert(key);
                    }
                }
            }
            Ok((reads, found))
        }
        .boxed()
    });
    let ((reads, found), commit) = work.await?;
    Ok((reads, Seen { at: commit.ts, reads: found }))
}
