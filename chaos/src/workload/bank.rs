//! Driver: a bank over several ranges, or in SQL text over two tables.
//!
//! Invariant: *money is neither made nor lost, whoever looks, and every acknowledged transfer is in the journal exactly once.*
//!
//! Transfers are made at every isolation level at which that is promised for what they do, some think again (a savepoint), some do not wait.

mod keys;
mod sql;

use futures::FutureExt;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use storage::Key;
use txn::client::Isolation;

use super::drive::{Call, Deed, Turn};
use super::{ClientError, item_key, persist_on};
use crate::check::RealTime;
use crate::check::bank::{Answer, Books, Op, Transfer, check};
use crate::check::file::{Operation, show_bank};
use crate::history::{Ended, History, Ledger};
use crate::world::access::{Gateway, SharedAccess};

const ACCOUNTS: u32 = 8;
const INITIAL: u64 = 100;

/// Who carries out what clients ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Teller {
    /// Transactions over keys.
    Keys,
    /// SQL text.
    Sql,
}

/// See the module.
pub struct Bank {
    teller: Teller,
    history: History<Op, Answer>,
    books: Mutex<Books>,
}

/// What either teller says when it does not do it.
pub(super) struct Refused {
    text: String,
    unknown: bool,
}

impl Refused {
    fn of(error: impl ClientError) -> Refused {
        Refused { text: error.to_string(), unknown: error.is_unknown() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl ClientError for Refused {
    fn is_unknown(&self) -> bool {
        self.unknown
    }
}

/// How a transfer reads what it will overwrite.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Style {
    Plain,
    Locking,
}

/// How else a transfer is made: its number decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Terms {
    /// Below `SERIALIZABLE` who overwrites what it has read must find it unchanged at its commit; `READ COMMITTED` promises that of rows
    /// that were locked.
    pub(super) isolation: Isolation,
    /// It writes nonsense first, and takes that back.
    pub(super) thinks_again: bool,
    /// It fails rather than wait for a lock.
    pub(super) is_impatient: bool,
}

impl Terms {
    fn of(transfer: &Transfer, style: Style) -> Terms {
        let isolation = match (transfer.id % 4, style) {
            (1, Style::Locking) => Isolation::ReadCommitted,
            (1 | 2, _) => Isolation::Snapshot,
            (_, _) => Isolation::Serializable,
        };
        let thinks_again = transfer.id.is_multiple_of(5);
        Terms { isolation, thinks_again, is_impatient: transfer.id % 16 == 7 }
    }
}

impl Bank {
    /// With this teller.
    pub fn new(teller: Teller) -> Bank {
        Bank { teller, history: History::default(), books: Mutex::default() }
    }
}

impl Deed for Bank {
    type Task = (Op, Style);
    type Answer = Answer;
    type Error = Refused;

    fn name(&self) -> &'static str {
        match self.teller {
            Teller::Keys => "bank",
            Teller::Sql => "sql-bank",
        }
    }

    fn invariant(&self) -> &'static str {
        match self.teller {
            Teller::Keys => {
                "money is neither made nor lost, and every acknowledged transfer happened exactly once"
            }
            Teller::Sql => {
                "in SQL: money is neither made nor lost, and every acknowledged transfer happened exactly once"
            }
        }
    }

    async fn prepare(&self, access: &SharedAccess) -> Result<(), String> {
        let what = "the bank cannot be opened";
        match self.teller {
            Teller::Keys => {
                let middle = item_key(keys::ACCOUNTS_TABLE, u64::from(ACCOUNTS / 2));
                access.split(middle).await;
                access.split(Key::table(keys::JOURNAL_TABLE)).await;
                let open = |gateway: Gateway| async move { keys::open(&gateway.db).await }.boxed();
                persist_on(access, what, open).await
            }
            Teller::Sql => {
                let open = |gateway| async move { sql::open(&gateway).await }.boxed();
                persist_on(access, what, open).await
            }
        }
    }

    fn draw(&self, mut turn: Turn<'_>) -> (Op, Style) {
        let op = match turn.chance.permille(250) {
            true => Op::Audit,
            false => Op::Move(draw(&mut turn)),
        };
        (op, if turn.chance.permille(500) { Style::Plain } else { Style::Locking })
    }

    async fn run(
        self: Arc<Self>,
        gateway: Gateway,
        (op, style): (Op, Style),
    ) -> Result<Answer, Refused> {
        Ok(match (self.teller, op) {
            (Teller::Keys, Op::Audit) => {
                Answer::Balances(keys::audit(&gateway.db, style).await.map_err(Refused::of)?)
            }
            (Teller::Keys, Op::Move(transfer)) => {
                keys::run(&gateway.db, transfer, style).await.map_err(Refused::of)?
            }
            (Teller::Sql, Op::Audit) => {
                Answer::Balances(sql::audit(&gateway).await.map_err(Refused::of)?)
            }
            (Teller::Sql, Op::Move(transfer)) => {
                sql::run(&gateway, transfer, style).await.map_err(Refused::of)?
            }
        })
    }

    fn note(&self, call: Call, (op, _): (Op, Style), ended: Ended<Answer>) {
        self.history.push(call.client, call.asked, call.heard, op, ended);
    }

    async fn finish(self: Arc<Self>, access: &SharedAccess) -> Result<(), String> {
        let what = "the books cannot be read";
        let books = match self.teller {
            Teller::Keys => {
                let read =
                    |gateway: Gateway| async move { keys::read_books(&gateway.db).await }.boxed();
                persist_on(access, what, read).await?
            }
            Teller::Sql => {
                let read = |gateway| async move { sql::read_books(&gateway).await }.boxed();
                persist_on(access, what, read).await?
            }
        };
        *self.books.lock() = books;
        Ok(())
    }

    fn check(&self, _real_time: RealTime) -> Result<(), String> {
        check(&initial(), &self.history.records(), &self.books.lock())
    }

    fn operations(&self) -> Vec<Operation> {
        show_bank(&initial(), &self.history.records(), &self.books.lock())
    }

    fn ledger(&self) -> &dyn Ledger {
        &self.history
    }
}

fn initial() -> Vec<i64> {
    vec![INITIAL as i64; ACCOUNTS as usize]
}

fn draw(turn: &mut Turn<'_>) -> Transfer {
    let id = turn.fresh(32);
    let from = turn.chance.below(u64::from(ACCOUNTS)) as u32;
    let to = (from + 1 + turn.chance.below(u64::from(ACCOUNTS) - 1) as u32) % ACCOUNTS;
    let amount = turn.chance.between(1, 20) as i64;
    Transfer { id, from, to, amount }
}
