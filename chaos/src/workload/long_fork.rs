//! Driver: independent writes of keys in several ranges, each written once, and readers of whole groups of them.
//!
//! Invariant: *all readers agree on one order of the writes, and see what was acknowledged before they asked.*

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;
use txn::client::{Db, TxnError, TxnOptions};

use super::{Workload, ended, item_key, number, persist_on, rest};
use crate::check::RealTime;
use crate::check::file::{Operation, shown};
use crate::check::long_fork::{Op, Seen, check};
use crate::history::{Ended, History};
use crate::world::access::{Gateway, SharedAccess};
use crate::world::chance::Chance;

const TABLE: u32 = 150;
/// Keys of a group, each in a range of its own.
const SIDES: u64 = 3;
/// Between the keys of one group.
const FAR: u64 = 1 << 32;
/// Operations on a group before clients go on to the next.
const GROUP_OPS: u64 = 12;

/// See the module.
#[derive(Default)]
pub struct LongFork {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    history: History<Op, Seen>,
    drawn: Mutex<u64>,
}

impl Workload for LongFork {
    fn name(&self) -> &'static str {
        "long-fork"
    }

    fn invariant(&self) -> &'static str {
        "all readers agree on one order of independent writes"
    }

    fn prepare(&self, access: SharedAccess) -> BoxFuture<'static, Result<(), String>> {
        async move {
            for side in 1..SIDES {
                access.split(item_key(TABLE, side * FAR)).await;
            }
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
            while !access.is_stopping() {
                let node = chance.pick(&access.nodes());
                let op = shared.draw(&mut chance);
                let asked = access.now();
                let what = op.clone();
                let work =
                    move |gateway: Gateway| async move { run(&gateway.db, what).await }.boxed();
                let ended = ended(access.on_node(node, work).await);
                shared.history.push(client, asked, access.now(), op, ended);
                rest(&access, &mut chance).await;
            }
        }
        .boxed()
    }

    fn finish(&self, access: SharedAccess) -> BoxFuture<'static, Result<(), String>> {
        let shared = self.shared.clone();
        async move {
            let groups = *shared.drawn.lock() / GROUP_OPS;
            let op = Op::Read((0..=groups).flat_map(keys_of).collect());
            let what = op.clone();
            let read = move |gateway: Gateway| {
                let what = what.clone();
                async move { run(&gateway.db, what).await }.boxed()
            };
            let asked = access.now();
            let seen = persist_on(&access, "the keys cannot be read", read).await?;
            shared.history.push(u32::MAX, asked, access.now(), op, Ended::Ok(seen));
            Ok(())
        }
        .boxed()
    }

    fn check(&self, real_time: RealTime) -> Result<(), String> {
        check(&self.shared.history.records(), real_time.into())
    }

    fn operations(&self) -> Vec<Operation> {
        shown(&self.shared.history.records())
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.shared.history.counts()
    }
}

fn keys_of(group: u64) -> impl Iterator<Item = u64> {
    (0..SIDES).map(move |side| side * FAR + group)
}

impl Shared {
    /// Of each group's operations three write its keys, the others read them in any order.
    fn draw(&self, chance: &mut Chance) -> Op {
        let mut drawn = self.drawn.lock();
        let (group, place) = (*drawn / GROUP_OPS, *drawn % GROUP_OPS);
        *drawn += 1;
        let mut keys: Vec<u64> = keys_of(group).collect();
        match place {
            2 => Op::Write(keys[0]),
            4 => Op::Write(keys[1]),
            7 => Op::Write(keys[2]),
            _ => {
                keys.rotate_left(chance.index(SIDES as usize));
                if chance.permille(500) {
                    keys.reverse();
                }
                Op::Read(keys)
            }
        }
    }
}

async fn run(db: &Db, op: Op) -> Result<Seen, TxnError> {
    let options = match &op {
        Op::Write(_) => TxnOptions::labelled("long fork: write"),
        Op::Read(_) => TxnOptions::read_only("long fork: read"),
    };
    db.run(options, move |txn| {
        let op = op.clone();
        async move {
            let mut seen = Seen::new();
            match op {
                Op::Write(key) => txn.put(item_key(TABLE, key), number(1))?,
                Op::Read(keys) => {
                    for key in keys {
                        if txn.get(&item_key(TABLE, key), None).await?.is_some() {
                            seen.insert(key);
                        }
                    }
                }
            }
            Ok(seen)
        }
        .boxed()
    })
    .await
}
