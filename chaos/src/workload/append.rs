//! Driver: transactions that append to and read lists, over several ranges.
//!
//! Invariant: *the transactions could have run one after another, in an order that agrees with real time on every list.*

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use storage::Key;
use txn::api::Lock;
use txn::client::{Db, TxnError, TxnOptions};

use super::{Workload, ended, item_key, persist_on, read_number, rest, scan_all};
use crate::check::RealTime;
use crate::check::append::{Reads, Step, Txn, check};
use crate::check::file::{Operation, shown};
use crate::check::mvcc::{self, Seen};
use crate::history::{Ended, History};
use crate::world::access::{Gateway, SharedAccess};
use crate::world::chance::Chance;

const TABLE: u32 = 120;
const LISTS: u64 = 6;

/// See the module.
#[derive(Default)]
pub struct Lists {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    history: History<Txn, Reads>,
    /// The same, by the timestamps of commits: of a list its last number is looked at.
    instants: History<mvcc::Writes, mvcc::Seen>,
    last: Mutex<BTreeMap<u32, Vec<u64>>>,
}

impl Shared {
    fn push(&self, client: u32, asked: u64, heard: u64, op: Txn, ended: Ended<(Reads, Seen)>) {
        let writes = op.iter().filter_map(|step| match step {
            Step::Append { list, number } => Some((u64::from(*list), *number)),
            Step::Read { .. } => None,
        });
        let (reads, seen) = ended.apart();
        self.instants.push(client, asked, heard, writes.collect(), seen);
        self.history.push(client, asked, heard, op, reads);
    }
}

impl Workload for Lists {
    fn name(&self) -> &'static str {
        "append"
    }

    fn invariant(&self) -> &'static str {
        "transactions could have run one after another, in an order that agrees with real time on every list"
    }

    fn prepare(&self, access: SharedAccess) -> BoxFuture<'static, Result<(), String>> {
        async move {
            access.split(item_key(TABLE, LISTS / 3)).await;
            access.split(item_key(TABLE, 2 * LISTS / 3)).await;
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
            let mut appended = 0;
            while !access.is_stopping() {
                let node = chance.pick(&access.nodes());
                let op = draw(client, &mut appended, &mut chance);
                let lock = if chance.permille(300) { Some(Lock::Exclusive) } else { None };
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
            let read = |gateway: Gateway| async move { read_all(&gateway.db).await }.boxed();
            let asked = access.now();
            let (last, seen) = persist_on(&access, "the lists cannot be read", read).await?;
            let op = last.keys().map(|list| Step::Read { list: *list }).collect();
            let answer = Ended::Ok((last.values().cloned().collect(), seen));
            shared.push(u32::MAX, asked, access.now(), op, answer);
            *shared.last.lock() = last;
            Ok(())
        }
        .boxed()
    }

    fn check(&self, real_time: RealTime) -> Result<(), String> {
        mvcc::check(&self.shared.instants.records())?;
        check(&self.shared.history.records(), Some(&self.shared.last.lock()), real_time.into())
    }

    fn operations(&self) -> Vec<Operation> {
        shown(&self.shared.history.records())
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.shared.history.counts()
    }
}

fn draw(client: u32, appended: &mut u64, chance: &mut Chance) -> Txn {
    let steps = chance.between(1, 4);
    (0..steps)
        .map(|_| {
            let list = chance.below(LISTS) as u32;
            if chance.permille(500) {
                *appended += 1;
                Step::Append { list, number: u64::from(client) << 32 | *appended }
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
