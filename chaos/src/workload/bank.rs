//! Driver: a bank over several ranges.
//!
//! Invariant: *money is neither made nor lost, whoever looks, and every acknowledged transfer is in the journal exactly once.*

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use storage::{Key, Span};
use txn::api::Lock;
use txn::client::{ScanOptions, Txn, TxnError, TxnOptions};

use super::{Workload, ended, item_key, number, persist, read_number, rest};
use crate::check::append::RealTime;
use crate::check::bank::{Answer, Books, Op, Transfer, check};
use crate::history::{Ended, History};
use crate::world::access::SharedAccess;
use crate::world::chance::Chance;

const ACCOUNTS_TABLE: u32 = 100;
const JOURNAL_TABLE: u32 = 101;
pub(super) const ACCOUNTS: u32 = 8;
pub(super) const INITIAL: u64 = 100;
/// Patience with a healed cluster.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Default)]
pub struct Bank {
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

impl Workload for Bank {
    fn name(&self) -> &'static str {
        "bank"
    }

    fn invariant(&self) -> &'static str {
        "money is neither made nor lost, and every acknowledged transfer happened exactly once"
    }

    fn prepare(&self, access: SharedAccess) -> BoxFuture<'static, Result<(), String>> {
        async move {
            access.split(item_key(ACCOUNTS_TABLE, u64::from(ACCOUNTS / 2))).await;
            access.split(Key::table(JOURNAL_TABLE)).await;
            let tries = access.clone();
            persist(&access, PATIENCE, move |_| {
                let access = tries.clone();
                async move {
                    let node = access.nodes()[0];
                    let written = access
                        .on_node(node, |gateway| async move { open(&gateway.db).await }.boxed())
                        .await;
                    match written {
                        Ok(Ok(())) => Ok(()),
                        Ok(Err(error)) => Err(error.to_string()),
                        Err(lost) => Err(format!("{lost:?}")),
                    }
                }
                .boxed()
            })
            .await
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
            let mut transfers = 0;
            while !access.is_stopping() {
                let node = chance.pick(access.nodes());
                let asked = access.now();
                if chance.permille(250) {
                    let result = access
                        .on_node(node, |gateway| async move { audit(&gateway.db).await }.boxed())
                        .await;
                    let ended = match ended(result) {
                        Ended::Ok(balances) => Ended::Ok(Answer::Balances(balances)),
                        Ended::Fail => Ended::Fail,
                        Ended::Unknown => Ended::Unknown,
                    };
                    shared.history.push(client, asked, access.now(), Op::Audit, ended);
                } else {
                    transfers += 1;
                    let transfer = draw(client, transfers, &mut chance);
                    let style = if chance.permille(500) { Style::Plain } else { Style::Locking };
                    let work = move |gateway: crate::world::access::Gateway| {
                        async move { run(&gateway.db, transfer, style).await }.boxed()
                    };
                    let ended = ended(access.on_node(node, work).await);
                    shared.history.push(client, asked, access.now(), Op::Move(transfer), ended);
                }
                rest(&access, &mut chance).await;
            }
        }
        .boxed()
    }

    fn finish(&self, access: SharedAccess) -> BoxFuture<'static, Result<(), String>> {
        let shared = self.shared.clone();
        async move {
            let tries = access.clone();
            let books = persist(&access, PATIENCE, move |attempt| {
                let access = tries.clone();
                async move {
                    let node = access.nodes()[attempt % access.nodes().len()];
                    let read = access
                        .on_node(node, |gateway| {
                            async move { read_books(&gateway.db).await }.boxed()
                        })
                        .await;
                    match read {
                        Ok(Ok(books)) => Ok(books),
                        Ok(Err(error)) => Err(format!("the books cannot be read: {error}")),
                        Err(lost) => Err(format!("the books cannot be read: {lost:?}")),
                    }
                }
                .boxed()
            })
            .await?;
            *shared.books.lock() = books;
            Ok(())
        }
        .boxed()
    }

    fn check(&self, _real_time: RealTime) -> Result<(), String> {
        let initial = vec![INITIAL as i64; ACCOUNTS as usize];
        check(&initial, &self.shared.history.records(), &self.shared.books.lock())
    }

    fn counts(&self) -> (usize, usize, usize) {
        self.shared.history.counts()
    }
}

pub(super) fn draw(client: u32, number: u64, chance: &mut Chance) -> Transfer {
    let from = chance.below(u64::from(ACCOUNTS)) as u32;
    let to = (from + 1 + chance.below(u64::from(ACCOUNTS) - 1) as u32) % ACCOUNTS;
    let amount = chance.between(1, 20) as i64;
    Transfer { id: u64::from(client) << 32 | number, from, to, amount }
}

async fn open(db: &txn::client::Db) -> Result<(), TxnError> {
    db.run(TxnOptions::labelled("bank: open"), |txn| {
        async move {
            for account in 0..ACCOUNTS {
                txn.put(item_key(ACCOUNTS_TABLE, u64::from(account)), number(INITIAL))?;
            }
            Ok(())
        }
        .boxed()
    })
    .await
}

async fn run(db: &txn::client::Db, transfer: Transfer, style: Style) -> Result<Answer, TxnError> {
    db.run(TxnOptions::labelled("bank: transfer"), move |txn| {
        async move { move_money(txn, transfer, style).await }.boxed()
    })
    .await
}

async fn move_money(txn: &mut Txn, transfer: Transfer, style: Style) -> Result<Answer, TxnError> {
    let lock = match style {
        Style::Plain => None,
        Style::Locking => Some(Lock::Exclusive),
    };
    let (from, to) = (
        item_key(ACCOUNTS_TABLE, u64::from(transfer.from)),
        item_key(ACCOUNTS_TABLE, u64::from(transfer.to)),
    );
    let payer = txn.get(&from, lock).await?;
    let payee = txn.get(&to, lock).await?;
    let (Some(payer), Some(payee)) = (payer, payee) else {
        return Err(TxnError::Invalid("an account is missing".to_string()));
    };
    let amount = transfer.amount as u64;
    let Some(rest) = read_number(&payer).checked_sub(amount) else { return Ok(Answer::Poor) };
    txn.put(from, number(rest))?;
    txn.put(to, number(read_number(&payee) + amount))?;
    let mut line = Vec::with_capacity(16);
    line.extend_from_slice(&transfer.from.to_be_bytes());
    line.extend_from_slice(&transfer.to.to_be_bytes());
    line.extend_from_slice(&amount.to_be_bytes());
    txn.insert(item_key(JOURNAL_TABLE, transfer.id), Bytes::from(line))?;
    Ok(Answer::Moved)
}

async fn audit(db: &txn::client::Db) -> Result<Vec<i64>, TxnError> {
    db.run(TxnOptions::read_only("bank: audit"), |txn| async move { balances(txn).await }.boxed())
        .await
}

async fn balances(txn: &mut Txn) -> Result<Vec<i64>, TxnError> {
    let rows = scan_all(txn, Key::table(ACCOUNTS_TABLE)).await?;
    Ok(rows.iter().map(|(_, value)| read_number(value) as i64).collect())
}

async fn read_books(db: &txn::client::Db) -> Result<Books, TxnError> {
    db.run(TxnOptions::read_only("bank: books"), |txn| {
        async move {
            let balances = balances(txn).await?;
            let lines = scan_all(txn, Key::table(JOURNAL_TABLE)).await?;
            let journal = lines.iter().map(|(key, value)| read_line(key, value)).collect();
            Ok(Books { balances, journal })
        }
        .boxed()
    })
    .await
}

fn read_line(key: &Key, line: &[u8]) -> Transfer {
    let at = Key::table(JOURNAL_TABLE).as_bytes().len();
    let four = |from: usize| {
        u32::from_be_bytes(line[from..from + 4].try_into().expect("lines have 16 bytes"))
    };
    Transfer {
        id: read_number(&key.as_bytes()[at..]),
        from: four(0),
        to: four(4),
        amount: read_number(&line[8..16]) as i64,
    }
}

/// All rows of a table.
pub(crate) async fn scan_all(txn: &mut Txn, table: Key) -> Result<Vec<(Key, Bytes)>, TxnError> {
    let mut rows = Vec::new();
    let mut left = Some(Span::prefix(&table));
    while let Some(span) = left {
        let page = txn.scan(span, ScanOptions::default()).await?;
        rows.extend(page.rows);
        left = page.resume;
    }
    Ok(rows)
}
