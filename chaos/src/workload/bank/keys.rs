//! Driver: the bank's teller over keys: accounts in one table, a line per transfer in another, over three ranges.

use bytes::Bytes;
use futures::FutureExt;
use storage::Key;
use txn::api::Lock;
use txn::client::{Access, Db, GetOptions, Isolation, OnLock, Txn, TxnError, TxnOptions};

use super::super::{item_key, number, read_number, scan_all};
use super::{ACCOUNTS, INITIAL, Style, Terms};
use crate::check::bank::{Answer, Books, Transfer};

pub(super) const ACCOUNTS_TABLE: u32 = 100;
pub(super) const JOURNAL_TABLE: u32 = 101;

pub(super) async fn open(db: &Db) -> Result<(), TxnError> {
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

pub(super) async fn run(db: &Db, transfer: Transfer, style: Style) -> Result<Answer, TxnError> {
    let terms = Terms::of(&transfer, style);
    let options =
        TxnOptions { isolation: terms.isolation, ..TxnOptions::labelled("bank: transfer") };
    db.run(options, move |txn| async move { move_money(txn, transfer, style, terms).await }.boxed())
        .await
}

/// A statement that reads one account.
async fn balance_of(
    txn: &mut Txn,
    account: &Key,
    style: Style,
    terms: Terms,
) -> Result<Option<Bytes>, TxnError> {
    if terms.isolation == Isolation::ReadCommitted {
        txn.begin_statement().await?;
    }
    let lock = match style {
        Style::Plain => None,
        Style::Locking => Some(Lock::Exclusive),
    };
    let wait = if terms.is_impatient { OnLock::Fail } else { OnLock::Wait };
    let options = GetOptions { lock, wait, ..GetOptions::default() };
    Ok(txn.multi_get_with(std::slice::from_ref(account), options).await?.pop().flatten())
}

async fn move_money(
    txn: &mut Txn,
    transfer: Transfer,
    style: Style,
    terms: Terms,
) -> Result<Answer, TxnError> {
    let (from, to) = (
        item_key(ACCOUNTS_TABLE, u64::from(transfer.from)),
        item_key(ACCOUNTS_TABLE, u64::from(transfer.to)),
    );
    let payer = balance_of(txn, &from, style, terms).await?;
    if terms.thinks_again {
        let before = txn.savepoint()?;
        balance_of(txn, &to, style, terms).await?;
        txn.put(from.clone(), number(0))?;
        txn.put(to.clone(), number(0))?;
        txn.rollback_to(before).await?;
    }
    let payee = balance_of(txn, &to, style, terms).await?;
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

/// One that could lock rows, were it no audit, waits for its snapshot instead.
pub(super) async fn audit(db: &Db, style: Style) -> Result<Vec<i64>, TxnError> {
    let access = match style {
        Style::Plain => Access::ReadOnly,
        Style::Locking => Access::Deferrable,
    };
    let options = TxnOptions { access, ..TxnOptions::labelled("bank: audit") };
    db.run(options, |txn| async move { balances(txn).await }.boxed()).await
}

async fn balances(txn: &mut Txn) -> Result<Vec<i64>, TxnError> {
    let rows = scan_all(txn, Key::table(ACCOUNTS_TABLE)).await?;
    Ok(rows.iter().map(|(_, value)| read_number(value) as i64).collect())
}

pub(super) async fn read_books(db: &Db) -> Result<Books, TxnError> {
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
