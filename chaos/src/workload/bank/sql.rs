//! Driver: the bank's teller in SQL text: transaction blocks, FOR UPDATE, two tables.

use futures::FutureExt;
use txn::client::Isolation;

use super::super::sql_client::{Client, Failed, integer, outcome_of, persevere};
use super::{ACCOUNTS, INITIAL, Style, Terms};
use crate::check::bank::{Answer, Books, Transfer};
use crate::world::access::Gateway;

pub(super) async fn open(gateway: &Gateway) -> Result<(), Failed> {
    let mut client = Client::connect(gateway)?;
    client
        .run("CREATE TABLE IF NOT EXISTS accounts (id INT PRIMARY KEY, balance BIGINT NOT NULL)")
        .await?;
    let journal = "CREATE TABLE IF NOT EXISTS journal \
                   (id BIGINT PRIMARY KEY, payer INT NOT NULL, payee INT NOT NULL, amount BIGINT NOT NULL)";
    client.run(journal).await?;
    let rows: Vec<String> =
        (0..ACCOUNTS).map(|account| format!("({account}, {INITIAL})")).collect();
    client
        .run(&format!(
            "INSERT INTO accounts VALUES {} ON CONFLICT (id) DO NOTHING",
            rows.join(", ")
        ))
        .await?;
    client.close().await;
    Ok(())
}

pub(super) async fn run(
    gateway: &Gateway,
    transfer: Transfer,
    style: Style,
) -> Result<Answer, Failed> {
    let moved = persevere(gateway, |client| transfer_once(client, transfer, style).boxed()).await;
    let Err(Failed::Unknown { text, ticket: Some(ticket) }) = moved else { return moved };
    // What it says is final, and judged like any other answer.
    match outcome_of(gateway, &ticket).await {
        Some(true) => Ok(Answer::Moved),
        Some(false) => Err(Failed::Certain(text)),
        None => Err(Failed::Unknown { text, ticket: None }),
    }
}

async fn transfer_once(
    client: &mut Client,
    transfer: Transfer,
    style: Style,
) -> Result<Answer, Failed> {
    let Transfer { id, from, to, amount } = transfer;
    let terms = Terms::of(&transfer, style);
    let lock = match style {
        Style::Plain => "",
        Style::Locking if terms.is_impatient => " FOR UPDATE NOWAIT",
        Style::Locking => " FOR UPDATE",
    };
    let level = match terms.isolation {
        Isolation::ReadCommitted => "READ COMMITTED",
        Isolation::Snapshot => "REPEATABLE READ",
        Isolation::Serializable | Isolation::StrictSerializable => "SERIALIZABLE",
    };
    client.run(&format!("BEGIN ISOLATION LEVEL {level}")).await?;
    let payer = balance_of(client, from, lock).await?;
    if payer < amount {
        client.run("COMMIT").await?;
        return Ok(Answer::Poor);
    }
    if terms.thinks_again {
        client.run("SAVEPOINT thought").await?;
        client.run(&format!("UPDATE accounts SET balance = 0 WHERE id IN ({from}, {to})")).await?;
        client.run("ROLLBACK TO SAVEPOINT thought").await?;
    }
    // Either the database computes the new balances, or the client does, of those that it was shown (killer T05).
    let (less, more) = match style {
        Style::Locking => (format!("balance - {amount}"), format!("balance + {amount}")),
        Style::Plain => {
            let payee = balance_of(client, to, lock).await?;
            ((payer - amount).to_string(), (payee + amount).to_string())
        }
    };
    client.run(&format!("UPDATE accounts SET balance = {less} WHERE id = {from}")).await?;
    client.run(&format!("UPDATE accounts SET balance = {more} WHERE id = {to}")).await?;
    client.run(&format!("INSERT INTO journal VALUES ({id}, {from}, {to}, {amount})")).await?;
    client.run("COMMIT").await?;
    Ok(Answer::Moved)
}

async fn balance_of(client: &mut Client, account: u32, lock: &str) -> Result<i64, Failed> {
    let text = format!("SELECT balance FROM accounts WHERE id = {account}{lock}");
    let rows = client.run(&text).await?;
    match rows.first().and_then(|row| row.first()) {
        Some(balance) => integer(balance),
        None => Err(Failed::Certain("an account is missing".to_string())),
    }
}

pub(super) async fn audit(gateway: &Gateway) -> Result<Vec<i64>, Failed> {
    let mut client = Client::connect(gateway)?;
    let rows = client.run("SELECT balance FROM accounts ORDER BY id").await;
    client.close().await;
    rows?.iter().map(|row| integer(&row[0])).collect()
}

pub(super) async fn read_books(gateway: &Gateway) -> Result<Books, Failed> {
    let balances = audit(gateway).await?;
    let mut client = Client::connect(gateway)?;
    let rows = client.run("SELECT id, payer, payee, amount FROM journal ORDER BY id").await;
    client.close().await;
    let mut journal = Vec::new();
    for row in rows? {
        journal.push(Transfer {
            id: integer(&row[0])? as u64,
            from: integer(&row[1])? as u32,
            to: integer(&row[2])? as u32,
            amount: integer(&row[3])?,
        });
    }
    Ok(Books { balances, journal })
}
