//! Value: judges a bank: money is neither made nor lost, every acknowledged transfer happened exactly once, every failed one never.
//!
//! Each transfer leaves a line in a journal in the same transaction. At the end, balances must be the initial ones plus the
//! journal's lines, and the journal must hold every acknowledged transfer and none that failed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::history::{Ended, Record};

/// A transfer's line in the journal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Transfer {
    /// Unique.
    pub id: u64,
    /// Account that pays.
    pub from: u32,
    /// Account that is paid.
    pub to: u32,
    /// How much.
    pub amount: i64,
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transfer {} of {} from {} to {}", self.id, self.amount, self.from, self.to)
    }
}

/// What a client does at the bank.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Moves money.
    Move(Transfer),
    /// Reads all balances in one transaction.
    Audit,
}

/// What a client was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Moved.
    Moved,
    /// Nothing was done: the account has not enough.
    Poor,
    /// All balances.
    Balances(Vec<i64>),
}

/// The bank after everything has ended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Books {
    /// By account.
    pub balances: Vec<i64>,
    /// All lines.
    pub journal: Vec<Transfer>,
}

/// Judges; `initial` is what each account began with.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(initial: &[i64], history: &[Record<Op, Answer>], books: &Books) -> Result<(), String> {
    check_audits(initial, history)?;
    check_journal(history, books)?;
    let mut expected = initial.to_vec();
    for transfer in &books.journal {
        expected[transfer.from as usize] -= transfer.amount;
        expected[transfer.to as usize] += transfer.amount;
    }
    if expected != books.balances {
        return Err(format!("balances are {:?}, the journal says {expected:?}", books.balances));
    }
    Ok(())
}

/// Judges what was seen while it ran alone.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_audits(initial: &[i64], history: &[Record<Op, Answer>]) -> Result<(), String> {
    let total: i64 = initial.iter().sum();
    for record in history {
        if let Ended::Ok(Answer::Balances(balances)) = &record.ended {
            let seen: i64 = balances.iter().sum();
            if seen != total {
                return Err(format!(
                    "client {} saw a total of {seen} instead of {total} at {} to {} ns: {balances:?}",
                    record.client, record.asked, record.heard
                ));
            }
            if let Some(account) = balances.iter().position(|balance| *balance < 0) {
                return Err(format!("client {} saw account {account} overdrawn", record.client));
            }
        }
    }
    Ok(())
}

fn check_journal(history: &[Record<Op, Answer>], books: &Books) -> Result<(), String> {
    let mut asked: BTreeMap<u64, (&Transfer, &Ended<Answer>)> = BTreeMap::new();
    for record in history {
        if let Op::Move(transfer) = &record.op
            && asked.insert(transfer.id, (transfer, &record.ended)).is_some()
        {
            return Err(format!("malformed history: {} is asked for twice", transfer.id));
        }
    }
    let mut seen = BTreeSet::new();
    for line in &books.journal {
        if !seen.insert(line.id) {
            return Err(format!("transfer {} is in the journal twice", line.id));
        }
        match asked.get(&line.id) {
            None => return Err(format!("{line} is in the journal and was never asked for")),
            Some((transfer, _)) if *transfer != line => {
                return Err(format!("{transfer} is in the journal as {line}"));
            }
            Some((_, Ended::Fail | Ended::Ok(Answer::Poor))) => {
                return Err(format!("{line} is in the journal though it was said to have failed"));
            }
            Some((_, Ended::Ok(Answer::Moved | Answer::Balances(_)) | Ended::Unknown)) => {}
        }
    }
    for (id, (transfer, ended)) in asked {
        if matches!(ended, Ended::Ok(Answer::Moved)) && !seen.contains(&id) {
            return Err(format!("{transfer} was acknowledged and is lost"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Transfer = Transfer { id: 1, from: 0, to: 1, amount: 5 };

    fn moved(ended: Ended<Answer>) -> Record<Op, Answer> {
        Record { client: 1, asked: 0, heard: 1, op: Op::Move(LINE), ended }
    }

    fn books(balances: [i64; 2], journal: &[Transfer]) -> Books {
        Books { balances: balances.to_vec(), journal: journal.to_vec() }
    }

    #[test]
    fn an_acknowledged_transfer_must_be_there() {
        let history = [moved(Ended::Ok(Answer::Moved))];
        assert_eq!(check(&[10, 10], &history, &books([5, 15], &[LINE])), Ok(()));
        assert!(check(&[10, 10], &history, &books([10, 10], &[])).is_err());
    }

    #[test]
    fn an_unknown_one_may_be_there_whole_or_not_at_all() {
        let history = [moved(Ended::Unknown)];
        assert_eq!(check(&[10, 10], &history, &books([5, 15], &[LINE])), Ok(()));
        assert_eq!(check(&[10, 10], &history, &books([10, 10], &[])), Ok(()));
        assert!(check(&[10, 10], &history, &books([5, 15], &[])).is_err());
        assert!(check(&[10, 10], &history, &books([10, 10], &[LINE])).is_err());
        assert!(check(&[10, 10], &history, &books([0, 20], &[LINE, LINE])).is_err());
    }

    #[test]
    fn a_failed_one_must_not() {
        assert!(check(&[10, 10], &[moved(Ended::Fail)], &books([5, 15], &[LINE])).is_err());
        let poor = [moved(Ended::Ok(Answer::Poor))];
        assert!(check(&[10, 10], &poor, &books([5, 15], &[LINE])).is_err());
    }

    #[test]
    fn every_audit_sees_the_same_total() {
        let audit = |balances: Vec<i64>| Record {
            client: 2,
            asked: 0,
            heard: 1,
            op: Op::Audit,
            ended: Ended::Ok(Answer::Balances(balances)),
        };
        let books = books([10, 10], &[]);
        assert_eq!(check(&[10, 10], &[audit(vec![3, 17])], &books), Ok(()));
        assert!(check(&[10, 10], &[audit(vec![5, 10])], &books).is_err());
        assert!(check(&[10, 10], &[audit(vec![-1, 21])], &books).is_err());
    }
}
