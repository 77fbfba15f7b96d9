//! Transfers between accounts. The invariant: the sum of all balances never changes, and every acknowledged transfer is in the ledger
//! exactly once, every ledger entry once in the balances.

use clap::Args;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

use super::report::{Kind, Report};
use super::{Client, Common, after_error, drive, set_up_statement, url_for};

/// Balance of every account at the start.
const INITIAL_BALANCE: i64 = 1000;
/// Tries of the final reads, a second apart: the cluster may still be recovering from what was done to it.
const FINAL_TRIES_MAX: usize = 60;

/// Transfers between accounts.
#[derive(Args)]
pub(crate) struct BankArguments {
    #[command(flatten)]
    common: Common,
    /// Accounts.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    accounts: u32,
    /// Fail if acknowledgements stop for longer than this, in seconds; 0: no limit.
    #[arg(long, default_value_t = 0.0)]
    gap_max: f64,
}

/// Ids of acknowledged and of ambiguous transfers.
#[derive(Default)]
struct Ledger {
    acknowledged: Mutex<BTreeSet<i64>>,
    ambiguous: Mutex<BTreeSet<i64>>,
}

/// Runs it; the error says what was violated.
pub(crate) async fn run(arguments: &BankArguments) -> Result<(), String> {
    let common = &arguments.common;
    let mut admin = Client::new(url_for(common, 0)?);
    set_up(&mut admin, arguments.accounts).await?;
    let report = Report::new();
    let ledger = Arc::new(Ledger::default());
    drive(common, &report, |number, deadline| {
        let (report, ledger) = (report.clone(), ledger.clone());
        client(arguments, number, deadline, report, ledger)
    })
    .await?;
    println!("{}", report.text());
    let verdict = check(&mut admin, arguments.accounts, &ledger).await?;
    println!("{verdict}");
    let gap = report.longest_gap().as_secs_f64();
    if arguments.gap_max > 0.0 && gap > arguments.gap_max {
        return Err(format!(
            "acknowledgements stopped for {gap:.2} s, allowed are {:.2} s",
            arguments.gap_max
        ));
    }
    if report.total(Kind::Ok) == 0 {
        return Err("no transfer was acknowledged: nothing was tested".to_string());
    }
    Ok(())
}

async fn set_up(admin: &mut Client, accounts: u32) -> Result<(), String> {
    let mut statements = vec![
        "DROP TABLE IF EXISTS bank_accounts".to_string(),
        "DROP TABLE IF EXISTS bank_ledger".to_string(),
        "CREATE TABLE IF NOT EXISTS bank_accounts (id int PRIMARY KEY, balance bigint NOT NULL)".to_string(),
        "CREATE TABLE IF NOT EXISTS bank_ledger (id bigint PRIMARY KEY, source int NOT NULL, target int NOT NULL, amount bigint NOT NULL)".to_string(),
    ];
    let ids: Vec<u32> = (0..accounts).collect();
    for chunk in ids.chunks(500) {
        let rows: Vec<String> =
            chunk.iter().map(|id| format!("({id}, {INITIAL_BALANCE})")).collect();
        statements.push(format!(
            "INSERT INTO bank_accounts VALUES {} ON CONFLICT (id) DO NOTHING",
            rows.join(", ")
        ));
    }
    for statement in statements {
        set_up_statement(admin, &statement).await?;
    }
    Ok(())
}

async fn client(
    arguments: &BankArguments,
    number: u32,
    deadline: Instant,
    report: Arc<Report>,
    ledger: Arc<Ledger>,
) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(arguments.common.seed ^ (u64::from(number) << 32));
    let mut client = Client::new(url_for(&arguments.common, number)?);
    let mut count = 0;
    while Instant::now() < deadline {
        count += 1;
        let id = (i64::from(number) << 40) | count;
        let source = random.random_range(0..arguments.accounts);
        let target = (source + random.random_range(1..arguments.accounts)) % arguments.accounts;
        let amount = random.random_range(1..=10);
        let transfer = Transfer { id, source, target, amount };
        let start = Instant::now();
        loop {
            match transfer.run(&mut client).await {
                Ok(()) => {
                    ledger.acknowledged.lock().expect("no panic while held").insert(id);
                    report.ok(start.elapsed());
                    break;
                }
                Err(error) => match after_error(&report, &error).await {
                    Kind::Retry if Instant::now() < deadline => {}
                    Kind::Ambiguous => {
                        ledger.ambiguous.lock().expect("no panic while held").insert(id);
                        break;
                    }
                    Kind::Ok | Kind::Retry | Kind::Failed => break,
                },
            }
        }
    }
    Ok(())
}

struct Transfer {
    id: i64,
    source: u32,
    target: u32,
    amount: i64,
}

impl Transfer {
    /// One transaction. An error before COMMIT was sent leaves nothing behind.
    async fn run(&self, client: &mut Client) -> Result<(), client::Error> {
        let Transfer { id, source, target, amount } = self;
        let body = format!(
            "UPDATE bank_accounts SET balance = balance - {amount} WHERE id = {source}; \
             UPDATE bank_accounts SET balance = balance + {amount} WHERE id = {target}; \
             INSERT INTO bank_ledger VALUES ({id}, {source}, {target}, {amount})"
        );
        let before_commit = async {
            client.query("BEGIN").await?;
            client.query(&body).await
        };
        if let Err(error) = before_commit.await {
            let _ = client.query("ROLLBACK").await;
            return Err(match error {
                client::Error::Ambiguous(why) => client::Error::Unreachable(why),
                other => other,
            });
        }
        client.query("COMMIT").await.map(|_| ()).inspect_err(|_| client.backend = None)
    }
}

async fn check(admin: &mut Client, accounts: u32, ledger: &Ledger) -> Result<String, String> {
    let answers = read_at_last(
        admin,
        "BEGIN READ ONLY; SELECT id, balance FROM bank_accounts; SELECT id, source, target, amount FROM bank_ledger; COMMIT",
    )
    .await?;
    let numbers = |place: usize| -> Result<Vec<Vec<i64>>, String> {
        let rows = &answers.get(place).ok_or("a final read has no result")?.rows;
        let number = |value: &Option<String>| {
            value.as_deref().and_then(|text| text.parse().ok()).ok_or("not a number")
        };
        rows.iter()
            .map(|row| row.iter().map(number).collect::<Result<_, _>>().map_err(str::to_string))
            .collect()
    };
    let (balances, entries) = (numbers(1)?, numbers(2)?);
    let total: i64 = balances.iter().map(|row| row[1]).sum();
    let expected = i64::from(accounts) * INITIAL_BALANCE;
    if total != expected || balances.len() != accounts as usize {
        return Err(format!(
            "VIOLATED: {} accounts hold {total}, there were {accounts} with {expected}",
            balances.len()
        ));
    }
    let recorded: BTreeSet<i64> = entries.iter().map(|row| row[0]).collect();
    let acknowledged = ledger.acknowledged.lock().expect("no panic while held");
    let ambiguous = ledger.ambiguous.lock().expect("no panic while held");
    if let Some(lost) = acknowledged.iter().find(|id| !recorded.contains(id)) {
        return Err(format!("VIOLATED: the acknowledged transfer {lost} is lost"));
    }
    if let Some(ghost) =
        recorded.iter().find(|id| !acknowledged.contains(id) && !ambiguous.contains(id))
    {
        return Err(format!("VIOLATED: the transfer {ghost} was refused, and happened"));
    }
    let mut replayed = vec![INITIAL_BALANCE; accounts as usize];
    for row in &entries {
        replayed[usize::try_from(row[1]).map_err(|error| error.to_string())?] -= row[3];
        replayed[usize::try_from(row[2]).map_err(|error| error.to_string())?] += row[3];
    }
    for row in &balances {
        let account = usize::try_from(row[0]).map_err(|error| error.to_string())?;
        if replayed.get(account) != Some(&row[1]) {
            return Err(format!(
                "VIOLATED: account {account} holds {}, the ledger says {:?}",
                row[1],
                replayed.get(account)
            ));
        }
    }
    Ok(format!(
        "invariant holds: {accounts} accounts hold {total} in all; {} acknowledged transfers are in the ledger, none is lost",
        acknowledged.len()
    ))
}

/// Reads when the cluster lets us.
async fn read_at_last(
    admin: &mut Client,
    sql: &str,
) -> Result<Vec<crate::backend::Answer>, String> {
    let mut last = String::new();
    for _ in 0..FINAL_TRIES_MAX {
        match admin.query(sql).await {
            Ok(answers) => return Ok(answers),
            Err(error) => last = error.to_string(),
        }
        let _ = admin.query("ROLLBACK").await;
        #[allow(clippy::disallowed_methods)]
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Err(format!("the final state cannot be read: {last}"))
}
