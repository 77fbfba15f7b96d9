//! Driver: write skew on predicates: who finds a group empty puts a row into it. A group lies on both sides of a range's border.
//!
//! Invariant: *no group ever has two rows.* Looked at in every way a gateway can: one scan, a scan with a limit, backwards, or key by key.
//!
//! In one of three groups `READ COMMITTED` has to do without the judge of reads: who wants to look locks the group's guard before, a row
//! that nobody writes. What each has seen is right as long as no other has held the lock before its commit.

use futures::FutureExt;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::{Direction, Key, Span};
use txn::api::Lock;
use txn::client::{Db, Isolation, ScanOptions, Txn, TxnError, TxnOptions};

use super::drive::{Call, Deed, Turn, rest};
use super::{item_key, number, persist_on, read_number, scan_all, scan_span};
use crate::check::RealTime;
use crate::check::file::{Operation, Skewed, Skewing, shown};
use crate::check::skew::{Insert, Inserted, check};
use crate::history::{Ended, History, Ledger, Record, end_of};
use crate::world::access::{Gateway, SharedAccess};
use crate::world::chance::Chance;

const TABLE: u32 = 140;
/// Keys of a group.
const SLOTS: u64 = 8;
/// Rows that are locked and never written, half of them in each range.
const GUARDS: u64 = 1 << 31;
/// The first half of a group's keys lies `FAR` before the second: the border of two ranges is between them.
const FAR: u64 = 1 << 32;

/// See the module.
#[derive(Default)]
pub struct Skew {
    history: History<Insert, Inserted>,
    last: Mutex<BTreeMap<u64, Vec<u64>>>,
    /// The group that clients are at.
    group: Mutex<(u64, u32)>,
}

/// An insert, where it is made, and how it looks before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Attempt {
    insert: Insert,
    slot: u64,
    look: Look,
}

/// How a transaction looks whether a group is empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Look {
    Scan,
    First,
    Last,
    Keys,
}

impl Deed for Skew {
    type Task = Attempt;
    type Answer = Inserted;
    type Error = TxnError;

    fn name(&self) -> &'static str {
        "skew"
    }

    fn invariant(&self) -> &'static str {
        "of inserts that each need an empty group, one at most succeeds"
    }

    async fn prepare(&self, access: &SharedAccess) -> Result<(), String> {
        access.split(item_key(TABLE, FAR)).await;
        Ok(())
    }

    fn draw(&self, mut turn: Turn<'_>) -> Attempt {
        let insert = Insert { group: self.next_group(), row: turn.fresh(32) };
        let slot = turn.chance.below(SLOTS);
        let look = turn.chance.pick(&[Look::Scan, Look::First, Look::Last, Look::Keys]);
        Attempt { insert, slot, look }
    }

    async fn run(
        self: Arc<Self>,
        gateway: Gateway,
        attempt: Attempt,
    ) -> Result<Inserted, TxnError> {
        run(&gateway.db, attempt).await
    }

    fn note(&self, call: Call, Attempt { insert, .. }: Attempt, ended: Ended<Inserted>) {
        self.history.push(call.client, call.asked, call.heard, insert, ended);
    }

    async fn pause(&self, access: &SharedAccess, chance: &mut Chance) {
        if chance.permille(600) {
            rest(access, chance).await;
        } else {
            access.sleep(std::time::Duration::from_micros(50)).await;
        }
    }

    async fn finish(self: Arc<Self>, access: &SharedAccess) -> Result<(), String> {
        let read = |gateway: Gateway| async move { read_all(&gateway.db).await }.boxed();
        *self.last.lock() = persist_on(access, "the groups cannot be read", read).await?;
        Ok(())
    }

    fn check(&self, _real_time: RealTime) -> Result<(), String> {
        check(&self.history.records(), Some(&self.last.lock()))
    }

    fn operations(&self) -> Vec<Operation> {
        let records = self.history.records();
        let end = end_of(&records);
        let mut all: Vec<Record<Skewing, Skewed>> = records
            .into_iter()
            .map(|record| {
                let Record { client, asked, heard, op, ended } = record;
                let ended = match ended {
                    Ended::Ok(inserted) => Ended::Ok(Skewed::Inserted(inserted)),
                    Ended::Fail => Ended::Fail,
                    Ended::Unknown => Ended::Unknown,
                };
                Record { client, asked, heard, op: Skewing::Insert(op), ended }
            })
            .collect();
        let ended = Ended::Ok(Skewed::Rows(self.last.lock().clone()));
        let (asked, heard) = (end + 1, end + 2);
        all.push(Record { client: u32::MAX, asked, heard, op: Skewing::Rows, ended });
        shown(&all)
    }

    fn ledger(&self) -> &dyn Ledger {
        &self.history
    }
}

impl Skew {
    /// A few attempts are made at each group.
    fn next_group(&self) -> u64 {
        let mut group = self.group.lock();
        group.1 += 1;
        if group.1 > 4 {
            *group = (group.0 + 1, 1);
        }
        group.0
    }
}

fn slot_key(group: u64, slot: u64) -> Key {
    let side = if slot < SLOTS / 2 { 0 } else { FAR };
    item_key(TABLE, side + group * SLOTS + slot % (SLOTS / 2))
}

/// The group's keys on one side.
fn side(group: u64, far: u64) -> Span {
    let first = far + group * SLOTS;
    Span { start: item_key(TABLE, first), end: item_key(TABLE, first + SLOTS / 2) }
}

/// What excludes others from a group, if that is a lock. It is not always where the row will be.
fn guard(group: u64) -> Option<Key> {
    let far = if group.is_multiple_of(2) { 0 } else { FAR };
    group.is_multiple_of(3).then(|| item_key(TABLE, far + GUARDS + group))
}

async fn run(db: &Db, Attempt { insert, slot, look }: Attempt) -> Result<Inserted, TxnError> {
    let guard = guard(insert.group);
    let isolation =
        if guard.is_some() { Isolation::ReadCommitted } else { Isolation::Serializable };
    let options = TxnOptions { isolation, ..TxnOptions::labelled("skew") };
    db.run(options, move |txn| {
        let guard = guard.clone();
        async move {
            if let Some(guard) = guard {
                txn.begin_statement().await?;
                txn.get(&guard, Some(Lock::Exclusive)).await?;
                txn.begin_statement().await?;
            }
            let empty = is_empty(txn, insert.group, look).await?;
            if empty {
                txn.put(slot_key(insert.group, slot), number(insert.row))?;
            }
            Ok(empty)
        }
        .boxed()
    })
    .await
}

async fn is_empty(txn: &mut Txn, group: u64, look: Look) -> Result<bool, TxnError> {
    if look == Look::Keys {
        for slot in 0..SLOTS {
            if txn.get(&slot_key(group, slot), None).await?.is_some() {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    for far in [0, FAR] {
        let span = side(group, far);
        let found = match look {
            Look::Scan | Look::Keys => !scan_span(txn, span).await?.is_empty(),
            Look::First => any(txn, span, Direction::Forward).await?,
            Look::Last => any(txn, span, Direction::Reverse).await?,
        };
        if found {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn any(txn: &mut Txn, span: Span, direction: Direction) -> Result<bool, TxnError> {
    let mut left = Some(span);
    while let Some(span) = left {
        let options = ScanOptions { direction, limit: 1, ..ScanOptions::default() };
        let page = txn.scan(span, options).await?;
        if !page.rows.is_empty() {
            return Ok(true);
        }
        left = page.resume;
    }
    Ok(false)
}

async fn read_all(db: &Db) -> Result<BTreeMap<u64, Vec<u64>>, TxnError> {
    db.run(TxnOptions::read_only("skew: all"), |txn| {
        async move {
            let at = Key::table(TABLE).as_bytes().len();
            let mut groups: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            for (key, value) in scan_all(txn, Key::table(TABLE)).await? {
                let place = read_number(&key.as_bytes()[at..]) % FAR;
                groups.entry(place / SLOTS).or_default().push(read_number(&value));
            }
            Ok(groups)
        }
        .boxed()
    })
    .await
}
