//! Value: how operations are written whose judge reads books at the end: what all accounts, groups or copies hold.

use std::collections::BTreeMap;

use super::Value;
use super::shown::{Shown, list, natural, naturals, pair, two};
use crate::check::{bank, convergence, skew};

/// What is done at a bank, as files tell it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Banking {
    Open(Vec<i64>),
    Op(bank::Op),
    Journal,
}

/// What is answered there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Banked {
    Done,
    Answer(bank::Answer),
    Lines(Vec<bank::Transfer>),
}

fn balances(values: &[i64]) -> Value {
    let entry =
        |(account, balance): (usize, &i64)| (Value::Int(account as i64), Value::Int(*balance));
    Value::Map(values.iter().enumerate().map(entry).collect())
}

fn parse_balances(value: &Value) -> Option<Vec<i64>> {
    let Value::Map(pairs) = value else { return None };
    let mut by_account = BTreeMap::new();
    for (account, balance) in pairs {
        by_account.insert(natural(account)?, balance.integer()?);
    }
    let whole = by_account.keys().copied().eq(0..by_account.len() as u64);
    whole.then(|| by_account.into_values().collect())
}

impl Shown for Banking {
    type Answer = Banked;

    fn show(&self) -> (&'static str, Value) {
        match self {
            Banking::Open(initial) => ("open", balances(initial)),
            Banking::Op(bank::Op::Audit) => ("read", Value::Nil),
            Banking::Op(bank::Op::Move(transfer)) => {
                let field = |name: &str, value: i64| (Value::word(name), Value::Int(value));
                let fields = vec![
                    (Value::word("id"), Value::number(transfer.id)),
                    field("from", i64::from(transfer.from)),
                    field("to", i64::from(transfer.to)),
                    field("amount", transfer.amount),
                ];
                ("transfer", Value::Map(fields))
            }
            Banking::Journal => ("journal", Value::Nil),
        }
    }

    fn show_answer(&self, answer: &Banked) -> Option<Value> {
        match answer {
            Banked::Done | Banked::Answer(bank::Answer::Moved) => Some(self.show().1),
            Banked::Answer(bank::Answer::Poor) => None,
            Banked::Answer(bank::Answer::Balances(values)) => Some(balances(values)),
            Banked::Lines(lines) => {
                let line = |line: &bank::Transfer| {
                    let mut values = vec![Value::number(line.id)];
                    let numbers = [i64::from(line.from), i64::from(line.to), line.amount];
                    values.extend(numbers.map(Value::Int));
                    Value::List(values)
                };
                Some(Value::List(lines.iter().map(line).collect()))
            }
        }
    }

    fn parse(f: &str, value: &Value) -> Option<Banking> {
        Some(match f {
            "open" => Banking::Open(parse_balances(value)?),
            "read" => Banking::Op(bank::Op::Audit),
            "journal" => Banking::Journal,
            "transfer" => {
                let number = |name: &str| value.field(name).and_then(natural);
                let account = |name: &str| number(name).and_then(|n| u32::try_from(n).ok());
                Banking::Op(bank::Op::Move(bank::Transfer {
                    id: number("id")?,
                    from: account("from")?,
                    to: account("to")?,
                    amount: value.field("amount")?.integer()?,
                }))
            }
            _ => return None,
        })
    }

    fn parse_answer(&self, value: &Value) -> Option<Banked> {
        Some(match self {
            Banking::Open(_) => Banked::Done,
            Banking::Op(bank::Op::Move(_)) => Banked::Answer(bank::Answer::Moved),
            Banking::Op(bank::Op::Audit) => {
                Banked::Answer(bank::Answer::Balances(parse_balances(value)?))
            }
            Banking::Journal => {
                let line = |value: &Value| match naturals(value)?.as_slice() {
                    [id, from, to, amount] => Some(bank::Transfer {
                        id: *id,
                        from: u32::try_from(*from).ok()?,
                        to: u32::try_from(*to).ok()?,
                        amount: i64::try_from(*amount).ok()?,
                    }),
                    _ => None,
                };
                Banked::Lines(value.list()?.iter().map(line).collect::<Option<_>>()?)
            }
        })
    }

    fn tells(&self, answer: &Banked) -> bool {
        match answer {
            Banked::Answer(bank::Answer::Moved) => true,
            Banked::Lines(lines) => !lines.is_empty(),
            // Balances are what they were opened with, for all that they tell alone.
            Banked::Done | Banked::Answer(bank::Answer::Poor | bank::Answer::Balances(_)) => false,
        }
    }
}

/// Inserts, and the reading of all groups at the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Skewing {
    Insert(skew::Insert),
    Rows,
}

/// Their answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Skewed {
    Inserted(bool),
    Rows(BTreeMap<u64, Vec<u64>>),
}

impl Shown for Skewing {
    type Answer = Skewed;

    fn show(&self) -> (&'static str, Value) {
        match self {
            Skewing::Insert(skew::Insert { group, row }) => ("insert", list([*group, *row])),
            Skewing::Rows => ("rows", Value::Nil),
        }
    }

    fn show_answer(&self, answer: &Skewed) -> Option<Value> {
        match answer {
            Skewed::Inserted(true) => Some(self.show().1),
            Skewed::Inserted(false) => None,
            Skewed::Rows(groups) => {
                let group = |(group, rows): (&u64, &Vec<u64>)| two(*group, list(rows.clone()));
                Some(Value::List(groups.iter().map(group).collect()))
            }
        }
    }

    fn parse(f: &str, value: &Value) -> Option<Skewing> {
        match f {
            "rows" => Some(Skewing::Rows),
            "insert" => {
                let (group, row) = pair(value)?;
                Some(Skewing::Insert(skew::Insert { group: natural(group)?, row: natural(row)? }))
            }
            _ => None,
        }
    }

    fn parse_answer(&self, value: &Value) -> Option<Skewed> {
        match self {
            Skewing::Insert(_) => Some(Skewed::Inserted(true)),
            Skewing::Rows => {
                let group = |value: &Value| {
                    let (group, rows) = pair(value)?;
                    Some((natural(group)?, naturals(rows)?))
                };
                Some(Skewed::Rows(value.list()?.iter().map(group).collect::<Option<_>>()?))
            }
        }
    }

    fn tells(&self, answer: &Skewed) -> bool {
        match answer {
            Skewed::Inserted(inserted) => *inserted,
            Skewed::Rows(groups) => groups.values().any(|rows| !rows.is_empty()),
        }
    }
}

/// Increments, and the reading of a copy at the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Counting {
    Add(convergence::Increment),
    ReadAll,
}

impl Shown for Counting {
    /// A copy; of an increment none.
    type Answer = BTreeMap<u64, i64>;

    fn show(&self) -> (&'static str, Value) {
        match self {
            Counting::Add((counter, amount)) => ("add", two(*counter, Value::Int(*amount))),
            Counting::ReadAll => ("read-all", Value::Nil),
        }
    }

    fn show_answer(&self, copy: &BTreeMap<u64, i64>) -> Option<Value> {
        match self {
            Counting::Add(_) => Some(self.show().1),
            Counting::ReadAll => {
                let counter = |(counter, value): (&u64, &i64)| two(*counter, Value::Int(*value));
                Some(Value::List(copy.iter().map(counter).collect()))
            }
        }
    }

    fn parse(f: &str, value: &Value) -> Option<Counting> {
        match f {
            "read-all" => Some(Counting::ReadAll),
            "add" => {
                let (counter, amount) = pair(value)?;
                Some(Counting::Add((natural(counter)?, amount.integer()?)))
            }
            _ => None,
        }
    }

    fn parse_answer(&self, value: &Value) -> Option<BTreeMap<u64, i64>> {
        match self {
            Counting::Add(_) => Some(BTreeMap::new()),
            Counting::ReadAll => {
                let counter = |value: &Value| {
                    let (counter, value) = pair(value)?;
                    Some((natural(counter)?, value.integer()?))
                };
                value.list()?.iter().map(counter).collect()
            }
        }
    }

    fn tells(&self, copy: &BTreeMap<u64, i64>) -> bool {
        matches!(self, Counting::Add(_)) || copy.values().any(|value| *value != 0)
    }
}
