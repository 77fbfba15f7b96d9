//! Driver: a bank over several ranges, or in SQL text over two tables.
//!
//! Invariant: *money is neither made nor lost, whoever looks, and every acknowledged transfer is in the journal exactly once.*

mod keys;
mod sql;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;
use storage::Key;

use super::{Workload, ended, item_key, persist_on, rest};
use crate::check::RealTime;
use crate::check::bank::{Answer, Books, Op, Transfer, check};
use crate::check::file::{Operation, show_bank};
use crate::history::History;
use crate::world::access::{Gateway, SharedAccess};
use crate::world::chance::Chance;

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
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    history: History<Op, Answer>,
    books: Mutex<Books>,
}

/// How a transfer reads what it will overwrite.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Style {
    Plain,
    Locking,
}

impl Bank {
    /// With this teller.
    pub fn new(teller: Teller) -> Bank {
        Bank { teller, shared: Arc::default() }
    }
}

impl Workload for Bank {
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

    fn prepare(&self, access: SharedAccess) -> BoxFuture<'static, Result<(), String>> {
        let teller = self.teller;
        async move {
            match teller {
                Teller::Keys => {
                    let middle = item_key(keys::ACCOUNTS_TABLE, u64::from(ACCOUNTS / 2));
                    access.split(middle).await;
                    access.split(Key::table(keys::JOURNAL_TABLE)).await;
                    let open =
                        |gateway: Gateway| async move { keys::open(&gateway.db).await }.boxed();
                    persist_on(&access, "the bank cannot be opened", open).await
                }
                Teller::Sql => {
                    let open = |gateway| async move { sql::open(&gateway).await }.boxed();
                    persist_on(&access, "the bank cannot be opened", open).await
                }
            }
        }
        .boxed()
    }

    fn client(
        &self,
        client: u32,
        access: SharedAccess,
        mut chance: Chance,
    ) -> BoxFuture<'static, ()> {
        let (teller, shared) = (self.teller, self.shared.clone());
        async move {
            let mut transfers = 0;
            while !access.is_stopping() {
                let node = chance.pick(&access.nodes());
                let op = if chance.permille(250) {
                    Op::Audit
                } else {
                    transfers += 1;
                    Op::Move(draw(client, transfers, &mut chance))
                };
                let style = if chance.permille(500) { Style::Plain } else { Style::Locking };
                let asked = access.now();
                let (work, asking) = (op.clone(), &access);
                let ended = match teller {
                    Teller::Keys => ended(
                        asking
                            .on_node(node, move |gateway| {
                                async move { serve_keys(&gateway, work, style).await }.boxed()
                            })
                            .await,
                    ),
                    Teller::Sql => ended(
                        asking
                            .on_node(node, move |gateway| {
                                async move { serve_sql(&gateway, work, style).await }.boxed()
                            })
                            .await,
                    ),
                };
                shared.history.push(client, asked, access.now(), op, ended);
                rest(&access, &mut chance).await;
            }
        }
        .boxed()
    }

    fn finish(&self, access: SharedAccess) -> BoxFuture<'static, Result<(), String>> {
        let (teller, shared) = (self.teller, self.shared.clone());
        async move {
            let what = "the books cannot be read";
            *shared.books.lock() = match teller {
                Teller::Keys => {
                    let read = |gateway: Gateway| {
                        async move { keys::read_books(&gateway.db).await }.boxed()
                    };
                    persist_on(&access, what, read).await?
                }
                Teller::Sql => {
                    let read = |gateway| async move { sql::read_books(&gateway).await }.boxed();
                    persist_on(&access, what, read).await?
                }
            };
            Ok(())
        }
        .boxed()
    }

    fn check(&self, _real_time: RealTime) -> Result<(), String> {
        check(&initial(), &self.shared.history.records(), &self.shared.books.lock())
    }

    fn operations(&self) -> Vec<Operation> {
        show_bank(&initial(), &self.shared.history.records(), &self.shared.books.lock())
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.shared.history.counts()
    }
}

fn initial() -> Vec<i64> {
    vec![INITIAL as i64; ACCOUNTS as usize]
}

fn draw(client: u32, number: u64, chance: &mut Chance) -> Transfer {
    let from = chance.below(u64::from(ACCOUNTS)) as u32;
    let to = (from + 1 + chance.below(u64::from(ACCOUNTS) - 1) as u32) % ACCOUNTS;
    let amount = chance.between(1, 20) as i64;
    Transfer { id: u64::from(client) << 32 | number, from, to, amount }
}

async fn serve_keys(
    gateway: &Gateway,
    op: Op,
    style: Style,
) -> Result<Answer, txn::client::TxnError> {
    match op {
        Op::Audit => keys::audit(&gateway.db).await.map(Answer::Balances),
        Op::Move(transfer) => keys::run(&gateway.db, transfer, style).await,
    }
}

async fn serve_sql(
    gateway: &Gateway,
    op: Op,
    style: Style,
) -> Result<Answer, super::sql_client::Failed> {
    match op {
        Op::Audit => sql::audit(gateway).await.map(Answer::Balances),
        Op::Move(transfer) => sql::run(gateway, transfer, style).await,
    }
}
