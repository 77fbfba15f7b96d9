//! Transfers between accounts, and audits of all of them. The invariant: the sum of all balances never changes, every acknowledged
//! transfer is in the ledger exactly once, and the ledger makes the balances.

use ::chaos::check::Level;
use ::chaos::check::bank::{Answer, Books, Op, Transfer, check, check_audits};
use ::chaos::check::file::show_bank;
use ::chaos::history::{Ended, Record};
use clap::Args;
use rand::Rng;
use rand::rngs::StdRng;

use super::load::{Hosts, Judged, Load, integers};
use super::{Client, Common, set_up_statement};

/// Balance of every account at the start.
const INITIAL_BALANCE: i64 = 1000;
/// Most that a transfer moves.
const AMOUNT_MAX: i64 = 10;
/// Of a hundred operations, how many are audits.
const AUDIT_PERCENT: u32 = 2;
/// Rows of one INSERT of the set-up.
const ROWS_PER_INSERT: usize = 500;

/// Transfers between accounts.
#[derive(Args)]
pub(crate) struct BankArguments {
    #[command(flatten)]
    pub(super) common: Common,
    /// Accounts.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub(super) accounts: u32,
    /// Fail if acknowledgements stop for longer than this, in seconds; 0: no limit.
    #[arg(long, default_value_t = 0.0)]
    pub(super) gap_max: f64,
}

/// See the module.
pub(crate) struct Bank {
    /// How many accounts.
    pub(super) accounts: u32,
}

impl Bank {
    fn initial(&self) -> Vec<i64> {
        vec![INITIAL_BALANCE; self.accounts as usize]
    }
}

impl Load for Bank {
    type Op = Op;
    type Answer = Answer;

    async fn prepare(&self, hosts: &Hosts) -> Result<(), String> {
        let mut statements = vec![
            "DROP TABLE IF EXISTS bank_accounts".to_string(),
            "DROP TABLE IF EXISTS bank_ledger".to_string(),
            "CREATE TABLE IF NOT EXISTS bank_accounts (id int PRIMARY KEY, balance bigint NOT NULL)".to_string(),
            "CREATE TABLE IF NOT EXISTS bank_ledger (id bigint PRIMARY KEY, source int NOT NULL, target int NOT NULL, amount bigint NOT NULL)".to_string(),
        ];
        let ids: Vec<u32> = (0..self.accounts).collect();
        for chunk in ids.chunks(ROWS_PER_INSERT) {
            let rows: Vec<String> =
                chunk.iter().map(|id| format!("({id}, {INITIAL_BALANCE})")).collect();
            statements.push(format!(
                "INSERT INTO bank_accounts VALUES {} ON CONFLICT (id) DO NOTHING",
                rows.join(", ")
            ));
        }
        let mut admin = hosts.admin();
        for statement in statements {
            set_up_statement(&mut admin, &statement).await?;
        }
        Ok(())
    }

    fn draw(&self, client: u32, count: u64, random: &mut StdRng) -> Op {
        if random.random_range(0..100) < AUDIT_PERCENT {
            return Op::Audit;
        }
        let from = random.random_range(0..self.accounts);
        let to = (from + random.random_range(1..self.accounts)) % self.accounts;
        let id = (u64::from(client) << 40) | count;
        Op::Move(Transfer { id, from, to, amount: random.random_range(1..=AMOUNT_MAX) })
    }

    async fn attempt(&self, client: &mut Client, op: &Op) -> Result<Answer, client::Error> {
        match op {
            Op::Audit => audit(client).await,
            Op::Move(transfer) => move_money(client, *transfer).await,
        }
    }

    fn judges_early(&self, _level: Level) -> bool {
        true
    }

    async fn judge_early(
        &self,
        hosts: &Hosts,
        so_far: Vec<Record<Op, Answer>>,
        _level: Level,
    ) -> Result<(), String> {
        check_audits(&self.initial(), &so_far)?;
        let sql = "SELECT count(*), sum(balance) FROM bank_accounts";
        let answers = hosts.read_anywhere(sql).await?;
        let seen = integers(answers.first().ok_or("the look at the accounts has no result")?)?;
        let expected = [i64::from(self.accounts), self.initial().iter().sum()];
        if seen == [expected] {
            Ok(())
        } else {
            Err(format!("accounts and their total are {seen:?} instead of {expected:?}"))
        }
    }

    async fn judge(
        &self,
        hosts: &Hosts,
        history: Vec<Record<Op, Answer>>,
        _level: Level,
    ) -> Judged {
        let initial = self.initial();
        let books = read_books(hosts).await;
        let verdict = books.as_ref().map_err(String::clone).and_then(|books| {
            check(&initial, &history, books).map_err(|why| format!("VIOLATED: {why}"))?;
            let acknowledged = |record: &&Record<Op, Answer>| record.ended == Ended::Ok(Answer::Moved);
            Ok(format!(
                "invariant holds: {} accounts hold {} in all; {} acknowledged transfers are in the ledger, none is lost",
                self.accounts,
                books.balances.iter().sum::<i64>(),
                history.iter().filter(acknowledged).count()
            ))
        });
        let books = books.unwrap_or_default();
        Judged { verdict, operations: show_bank(&initial, &history, &books) }
    }
}

/// One transaction. An account that has not enough ends it without effect.
async fn move_money(client: &mut Client, transfer: Transfer) -> Result<Answer, client::Error> {
    let Transfer { id, from, to, amount } = transfer;
    let take = format!(
        "UPDATE bank_accounts SET balance = balance - {amount} WHERE id = {from} AND balance >= {amount} RETURNING id"
    );
    let give = format!(
        "UPDATE bank_accounts SET balance = balance + {amount} WHERE id = {to}; \
         INSERT INTO bank_ledger VALUES ({id}, {from}, {to}, {amount})"
    );
    client.begin().await?;
    let before_commit = async {
        let taken = client.query(&take).await?;
        if taken.first().is_none_or(|answer| answer.rows.is_empty()) {
            return Ok(Answer::Poor);
        }
        client.query(&give).await.map(|_| Answer::Moved)
    };
    match before_commit.await {
        Ok(Answer::Moved) => client.commit().await.map(|()| Answer::Moved),
        other => {
            client.roll_back().await;
            other
        }
    }
}

async fn audit(client: &mut Client) -> Result<Answer, client::Error> {
    let answers = client.query("SELECT balance FROM bank_accounts ORDER BY id").await?;
    let rows = integers(&answers.into_iter().next().unwrap_or_default());
    let rows = rows.map_err(client::Error::Protocol)?;
    Ok(Answer::Balances(rows.into_iter().flatten().collect()))
}

async fn read_books(hosts: &Hosts) -> Result<Books, String> {
    let sql = "BEGIN READ ONLY; SELECT balance FROM bank_accounts ORDER BY id; \
               SELECT id, source, target, amount FROM bank_ledger ORDER BY id; COMMIT";
    let answers = hosts.read_at_last(sql).await?;
    let [_, balances, ledger, ..] = answers.as_slice() else {
        return Err(format!("the final reads gave {} results", answers.len()));
    };
    let line = |row: Vec<i64>| -> Result<Transfer, std::num::TryFromIntError> {
        Ok(Transfer {
            id: u64::try_from(row[0])?,
            from: u32::try_from(row[1])?,
            to: u32::try_from(row[2])?,
            amount: row[3],
        })
    };
    let journal = integers(ledger)?.into_iter().map(line).collect::<Result<_, _>>();
    Ok(Books {
        balances: integers(balances)?.into_iter().flatten().collect(),
        journal: journal.map_err(|error| error.to_string())?,
    })
}
