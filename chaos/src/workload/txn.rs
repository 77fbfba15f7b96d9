//! Driver: transactions that read and blindly write registers, over several ranges.
//!
//! Invariant: *the transactions could have run one after another, in an order that agrees with real time on every register.* What lists
//! ([`super::append`]) cannot show: writes that read nothing before.

use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::BTreeSet;
use std::sync::Arc;
use txn::api::Lock;
use txn::client::{Db, TxnError, TxnOptions};

use super::{Workload, ended, item_key, number, persist_on, read_number, rest};
use crate::check::RealTime;
use crate::check::file::{Operation, shown};
use crate::check::mvcc::{self, Seen};
use crate::check::txn_register::{Reads, Step, Txn, check};
use crate::history::{Ended, History};
use crate::world::access::{Gateway, SharedAccess};
use crate::world::chance::Chance;

const TABLE: u32 = 130;
const REGISTERS: u64 = 6;

/// See the module.
#[derive(Default)]
pub struct Txns {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    history: History<Txn, Reads>,
    /// The same, by the timestamps of commits.
    instants: History<mvcc::Writes, mvcc::Seen>,
}

impl Shared {
    fn push(&self, client: u32, asked: u64, heard: u64, op: Txn, ended: Ended<(Reads, Seen)>) {
        let writes = op.iter().filter_map(|step| match step {
            Step::Write { key, value } => Some((*key, *value)),
            Step::Read { .. } => None,
        });
        let (reads, seen) = ended.apart();
        self.instants.push(client, asked, heard, writes.collect(), seen);
        self.history.push(client, asked, heard, op, reads);
    }
}

impl Workload for Txns {
    fn name(&self) -> &'static str {
        "txn"
    }

    fn invariant(&self) -> &'static str {
        "transactions with blind writes could have run one after another, in an order that agrees with real time on every register"
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
                let op = draw(client, &mut written, &mut chance);
                let lock = if chance.permille(200) { Some(Lock::Exclusive) } else { None };
                let steps = op.clone();
                let asked = access.now();
                let work = move |gateway: Gateway| {
                    async move { run(&gateway.db, steps, lock).await }.boxed()
                };
                let ended = ended(access.on_node(node, work).await);
                shared.push(client, asked, access.now(), op, ended);
                rest(&access, &mut chance).await;
            }
        }
        .boxed()
    }

    fn finish(&self, access: SharedAccess) -> BoxFuture<'static, Result<(), String>> {
        let shared = self.shared.clone();
        async move {
            let op: Txn = (0..REGISTERS).map(|key| Step::Read { key }).collect();
            let steps = op.clone();
            let read = move |gateway: Gateway| {
                let steps = steps.clone();
                async move { run(&gateway.db, steps, None).await }.boxed()
            };
            let asked = access.now();
            let reads = persist_on(&access, "the registers cannot be read", read).await?;
            shared.push(u32::MAX, asked, access.now(), op, Ended::Ok(reads));
            Ok(())
        }
        .boxed()
    }

    fn check(&self, real_time: RealTime) -> Result<(), String> {
        mvcc::check(&self.shared.instants.records())?;
        check(&self.shared.history.records(), real_time.into())
    }

    fn operations(&self) -> Vec<Operation> {
        shown(&self.shared.history.records())
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.shared.history.counts()
    }
}

fn draw(client: u32, written: &mut u64, chance: &mut Chance) -> Txn {
    let steps = chance.between(1, 4);
    // Some transactions write one key again and again: only the last of these may ever be seen.
    let again = chance.permille(200).then(|| chance.below(REGISTERS));
    (0..steps)
        .map(|_| {
            let drawn = chance.below(REGISTERS);
            let key = again.filter(|_| chance.permille(700)).unwrap_or(drawn);
            if chance.permille(if again == Some(key) { 800 } else { 500 }) {
                *written += 1;
                Step::Write { key, value: u64::from(client + 1) << 32 | *written }
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
