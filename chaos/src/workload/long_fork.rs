//! Driver: independent writes of keys in several ranges, each written once, and readers of whole groups of them.
//!
//! Invariant: *all readers agree on one order of the writes, and see what was acknowledged before they asked.*

use futures::FutureExt;
use parking_lot::Mutex;
use std::sync::Arc;
use txn::client::{Db, TxnError, TxnOptions};

use super::drive::{Call, Deed, Turn, ask_last};
use super::{Manner, item_key, number};
use crate::check::RealTime;
use crate::check::file::{Operation, shown};
use crate::check::long_fork::{Op, Seen, check};
use crate::history::{Ended, History, Ledger};
use crate::world::access::{Gateway, SharedAccess};
use crate::world::chance::Chance;

const TABLE: u32 = 150;
/// Keys of a group, each in a range of its own.
const SIDES: u64 = 3;
/// Between the keys of one group.
const FAR: u64 = 1 << 32;
/// The row beside a key is so far behind a key of the group's next range.
const BESIDE: u64 = 1 << 31;
/// Operations on a group before clients go on to the next.
const GROUP_OPS: u64 = 12;

/// See the module.
#[derive(Default)]
pub struct LongFork {
    history: History<Op, Seen>,
    drawn: Mutex<u64>,
}

impl Deed for LongFork {
    type Task = (Op, Manner);
    type Answer = Seen;
    type Error = TxnError;

    fn name(&self) -> &'static str {
        "long-fork"
    }

    fn invariant(&self) -> &'static str {
        "all readers agree on one order of independent writes"
    }

    async fn prepare(&self, access: &SharedAccess) -> Result<(), String> {
        for side in 1..SIDES {
            access.split(item_key(TABLE, side * FAR)).await;
        }
        Ok(())
    }

    fn draw(&self, turn: Turn<'_>) -> (Op, Manner) {
        (self.next(turn.chance), Manner::draw(turn.chance))
    }

    async fn run(
        self: Arc<Self>,
        gateway: Gateway,
        (op, manner): (Op, Manner),
    ) -> Result<Seen, TxnError> {
        run(&gateway.db, op, manner).await
    }

    fn note(&self, Call { client, asked, heard }: Call, (op, _): (Op, Manner), ended: Ended<Seen>) {
        self.history.push(client, asked, heard, op, ended);
    }

    async fn finish(self: Arc<Self>, access: &SharedAccess) -> Result<(), String> {
        let groups = *self.drawn.lock() / GROUP_OPS;
        let all = Op::Read((0..=groups).flat_map(keys_of).collect());
        ask_last(&self, access, "the keys cannot be read", (all, Manner::Plain)).await
    }

    fn check(&self, real_time: RealTime) -> Result<(), String> {
        check(&self.history.records(), real_time.into())
    }

    fn operations(&self) -> Vec<Operation> {
        shown(&self.history.records())
    }

    fn ledger(&self) -> &dyn Ledger {
        &self.history
    }
}

fn keys_of(group: u64) -> impl Iterator<Item = u64> {
    (0..SIDES).map(move |side| side * FAR + group)
}

impl LongFork {
    /// Of each group's operations three write its keys, the others read them in any order.
    fn next(&self, chance: &mut Chance) -> Op {
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

/// In the next range.
fn beside(key: u64) -> u64 {
    let (side, group) = (key / FAR, key % FAR);
    (side + 1) % SIDES * FAR + BESIDE + group
}

async fn run(db: &Db, op: Op, manner: Manner) -> Result<Seen, TxnError> {
    let options = match &op {
        Op::Write(_) => TxnOptions::labelled("long fork: write"),
        Op::Read(_) => TxnOptions::read_only("long fork: read"),
    };
    db.run(options, move |txn| {
        let op = op.clone();
        async move {
            let mut seen = Seen::new();
            match op {
                Op::Write(key) => {
                    txn.put(item_key(TABLE, key), number(1))?;
                    if manner == Manner::Beside {
                        txn.put(item_key(TABLE, beside(key)), number(1))?;
                    }
                }
                Op::Read(keys) => {
                    for key in keys {
                        if manner == Manner::Beside {
                            txn.get(&item_key(TABLE, beside(key)), None).await?;
                        }
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
