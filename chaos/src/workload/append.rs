//! Driver: transactions that append to and read lists, over several ranges.
//!
//! Invariant: *the transactions could have run one after another, in an order that agrees with real time on every list.*

use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use storage::Key;
use txn::api::Lock;
use txn::client::{Db, TxnError, TxnOptions};

use super::drive::{Call, Dated, Deed, Turn, ask_last};
use super::{item_key, read_number, scan_all};
use crate::check::RealTime;
use crate::check::append::{Reads, Step, Txn, check};
use crate::check::file::Operation;
use crate::check::mvcc::{self, Seen};
use crate::history::{Ended, Ledger};
use crate::world::access::{Gateway, SharedAccess};

const TABLE: u32 = 120;
const LISTS: u64 = 6;

/// See the module.
#[derive(Default)]
pub struct Lists {
    /// By timestamps the last number of a list is looked at.
    dated: Dated<Txn, Reads>,
    last: Mutex<BTreeMap<u32, Vec<u64>>>,
}

/// What a client asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Task {
    /// These steps, with which lock it reads what it appends to.
    Steps(Txn, Option<Lock>),
    /// All lists, in one scan.
    All,
}

impl Deed for Lists {
    type Task = Task;
    type Answer = (Reads, Seen);
    type Error = TxnError;

    fn name(&self) -> &'static str {
        "append"
    }

    fn invariant(&self) -> &'static str {
        "transactions could have run one after another, in an order that agrees with real time on every list"
    }

    async fn prepare(&self, access: &SharedAccess) -> Result<(), String> {
        access.split(item_key(TABLE, LISTS / 3)).await;
        access.split(item_key(TABLE, 2 * LISTS / 3)).await;
        Ok(())
    }

    fn draw(&self, mut turn: Turn<'_>) -> Task {
        let steps = draw(&mut turn);
        Task::Steps(steps, turn.chance.permille(300).then_some(Lock::Exclusive))
    }

    async fn run(self: Arc<Self>, gateway: Gateway, task: Task) -> Result<(Reads, Seen), TxnError> {
        match task {
            Task::Steps(steps, lock) => run(&gateway.db, steps, lock).await,
            Task::All => {
                let (last, seen) = read_all(&gateway.db).await?;
                let reads = last.values().cloned().collect();
                *self.last.lock() = last;
                Ok((reads, seen))
            }
        }
    }

    fn note(&self, call: Call, task: Task, ended: Ended<(Reads, Seen)>) {
        let steps = match task {
            Task::Steps(steps, _) => steps,
            Task::All => self.last.lock().keys().map(|list| Step::Read { list: *list }).collect(),
        };
        self.dated.push(call, steps, ended, |steps, _| {
            let writes = steps.iter().filter_map(|step| match step {
                Step::Append { list, number } => Some((u64::from(*list), *number)),
                Step::Read { .. } => None,
            });
            writes.collect()
        });
    }

    async fn finish(self: Arc<Self>, access: &SharedAccess) -> Result<(), String> {
        ask_last(&self, access, "the lists cannot be read", Task::All).await
    }

    fn check(&self, real_time: RealTime) -> Result<(), String> {
        mvcc::check(&self.dated.instants.records())?;
        check(&self.dated.history.records(), Some(&self.last.lock()), real_time.into())
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
    (0..steps)
        .map(|_| {
            let list = turn.chance.below(LISTS) as u32;
            if turn.chance.permille(500) {
                Step::Append { list, number: turn.fresh(32) }
            } else {
                Step::Read { list }
            }
        })
        .collect()
}

async fn run(db: &Db, steps: Txn, lock: Option<Lock>) -> Result<(Reads, Seen), TxnError> {
    let work = db.run_to_commit(TxnOptions::labelled("append"), move |txn| {
        let steps = steps.clone();
        async move {
            let (mut reads, mut found) = (Reads::new(), Vec::new());
            let mut written = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Read { list } => {
                        let value = txn.get(&item_key(TABLE, u64::from(list)), None).await?;
                        let read = numbers(value.as_deref().unwrap_or_default());
                        if !written.contains(&list) {
                            found.push((u64::from(list), read.last().copied()));
                        }
                        reads.push(read);
                    }
                    Step::Append { list, number } => {
                        let key = item_key(TABLE, u64::from(list));
                        let value = txn.get(&key, lock).await?;
                        let mut bytes = value.map(|value| value.to_vec()).unwrap_or_default();
                        if written.insert(list) {
                            found.push((u64::from(list), numbers(&bytes).last().copied()));
                        }
                        bytes.extend_from_slice(&number.to_be_bytes());
                        txn.put(key, Bytes::from(bytes))?;
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

async fn read_all(db: &Db) -> Result<(BTreeMap<u32, Vec<u64>>, Seen), TxnError> {
    let work = db.run_to_commit(TxnOptions::read_only("append: all"), |txn| {
        async move {
            let at = Key::table(TABLE).as_bytes().len();
            let rows = scan_all(txn, Key::table(TABLE)).await?;
            Ok(rows
                .iter()
                .map(|(key, value)| (read_number(&key.as_bytes()[at..]) as u32, numbers(value)))
                .collect())
        }
        .boxed()
    });
    let (lists, commit): (BTreeMap<u32, Vec<u64>>, _) = work.await?;
    let all = (0..LISTS as u32).map(|list| lists.get(&list).and_then(|list| list.last().copied()));
    let reads = (0..).zip(all).collect();
    Ok((lists, Seen { at: commit.ts, reads }))
}

fn numbers(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(read_number).collect()
}
