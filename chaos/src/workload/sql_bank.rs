//! Driver: the bank in SQL text: transaction blocks, FOR UPDATE, two tables.
//!
//! Invariant: *money is neither made nor lost, whoever looks, and every acknowledged transfer is in the journal exactly once.*

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

use super::bank::{ACCOUNTS, INITIAL, draw};
use super::sql_client::{Client, Failed, again, ended, integer};
use super::{Workload, persist, rest};
use crate::check::append::RealTime;
use crate::check::bank::{Answer, Books, Op, Transfer, check};
use crate::history::{Ended, History};
use crate::world::access::{Gateway, SharedAccess};
use crate::world::chance::Chance;

const PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Default)]
pub struct SqlBank {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    history: History<Op, Answer>,
    books: Mutex<Books>,
}

impl Workload for SqlBank {
    fn name(&self) -> &'static str {
        "sql-bank"
    }

    fn invariant(&self) -> &'static str {
        "in SQL: money is neither made nor lost, and every acknowledged transfer happened exactly once"
    }

    fn prepare(&self, access: SharedAccess) -> BoxFuture<'static, Result<(), String>> {
        async move {
            let tries = access.clone();
            persist(&access, PATIENCE, move |_| {
                let access = tries.clone();
                async move {
                    let node = access.nodes()[0];
                    let opened = access
                        .on_node(node, |gateway| async move { open(&gateway).await }.boxed())
                        .await;
                    opened
                        .map_err(|lost| format!("{lost:?}"))?
                        .map_err(|failed| format!("{failed:?}"))
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
                    let work = |gateway: Gateway| async move { audit(&gateway).await }.boxed();
                    let ended = match ended(access.on_node(node, work).await) {
                        Ended::Ok(balances) => Ended::Ok(Answer::Balances(balances)),
                        Ended::Fail => Ended::Fail,
                        Ended::Unknown => Ended::Unknown,
                    };
                    shared.history.push(client, asked, access.now(), Op::Audit, ended);
                } else {
                    transfers += 1;
                    let transfer = draw(client, transfers, &mut chance);
                    let lock = if chance.permille(500) { " FOR UPDATE" } else { "" };
                    let work = move |gateway: Gateway| {
                        async move { run(&gateway, transfer, lock).await }.boxed()
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
                        .on_node(node, |gateway| async move { read_books(&gateway).await }.boxed())
                        .await;
                    read.map_err(|lost| format!("{lost:?}"))?
                        .map_err(|failed| format!("the books cannot be read: {failed:?}"))
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

async fn open(gateway: &Gateway) -> Result<(), Failed> {
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

async fn run(gateway: &Gateway, transfer: Transfer, lock: &str) -> Result<Answer, Failed> {
    let mut client = Client::connect(gateway)?;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let result = try_once(&mut client, transfer, lock).await;
        match result {
            Ok(answer) => {
                client.close().await;
                return Ok(answer);
            }
            Err(failed) => {
                client.give_up().await;
                if !again(&failed, attempts) {
                    client.close().await;
                    return Err(failed);
                }
                let time = &gateway.runtime.time;
                time.sleep_until(time.monotonic().plus(Duration::from_millis(10) * attempts)).await;
            }
        }
    }
}

async fn try_once(client: &mut Client, transfer: Transfer, lock: &str) -> Result<Answer, Failed> {
    let Transfer { id, from, to, amount } = transfer;
    client.run("BEGIN").await?;
    let rows = client.run(&format!("SELECT balance FROM accounts WHERE id = {from}{lock}")).await?;
    let Some(balance) = rows.first().and_then(|row| row.first()) else {
        return Err(Failed::Certain("an account is missing".to_string()));
    };
    if integer(balance)? < amount {
        client.run("COMMIT").await?;
        return Ok(Answer::Poor);
    }
    client
        .run(&format!("UPDATE accounts SET balance = balance - {amount} WHERE id = {from}"))
        .await?;
    client
        .run(&format!("UPDATE accounts SET balance = balance + {amount} WHERE id = {to}"))
        .await?;
    client.run(&format!("INSERT INTO journal VALUES ({id}, {from}, {to}, {amount})")).await?;
    client.run("COMMIT").await?;
    Ok(Answer::Moved)
}

async fn audit(gateway: &Gateway) -> Result<Vec<i64>, Failed> {
    let mut client = Client::connect(gateway)?;
    let rows = client.run("SELECT balance FROM accounts ORDER BY id").await;
    client.close().await;
    rows?.iter().map(|row| integer(&row[0])).collect()
}

async fn read_books(gateway: &Gateway) -> Result<Books, Failed> {
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
