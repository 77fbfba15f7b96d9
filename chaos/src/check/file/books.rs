//! Value: how operations are written whose judge reads books at the end: what all accounts, groups or copies hold.

use std::collections::BTreeMap;

use super::Value;
use super::shown::{Shown, list, natural, naturals, pair, two};
use crate::check::{bank, cells, convergence, index, skew};

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

/// What is done to rows of an available table, and the reading of a copy at the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Replacing {
    Op(cells::Op),
    ReadAll,
}

/// Their answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Replaced {
    Answer(cells::Answer),
    Rows(BTreeMap<u64, cells::Row>),
}

/// Of a row of [`cells`]: which, at which node, and what is written.
fn at_row(key: u64, at: u32, tag: Option<u64>, found: Value) -> Value {
    let mut fields = vec![(Value::word("key"), Value::number(key))];
    fields.extend(tag.map(|tag| (Value::word("tag"), Value::number(tag))));
    fields.push((Value::word("at"), Value::number(u64::from(at))));
    fields.push((Value::word("found"), found));
    Value::Map(fields)
}

impl Replacing {
    fn show_found(&self, found: Value) -> (&'static str, Value) {
        match *self {
            Replacing::Op(cells::Op::Put { key, tag, at }) => {
                ("put", at_row(key, at, Some(tag), found))
            }
            Replacing::Op(cells::Op::Delete { key, at }) => {
                ("delete", at_row(key, at, None, found))
            }
            Replacing::Op(cells::Op::Read { key, at }) => ("read", at_row(key, at, None, found)),
            Replacing::Op(cells::Op::Draw) => ("draw", found),
            Replacing::ReadAll => ("read-all", found),
        }
    }
}

impl Shown for Replacing {
    type Answer = Replaced;

    fn show(&self) -> (&'static str, Value) {
        self.show_found(Value::Nil)
    }

    fn show_answer(&self, answer: &Replaced) -> Option<Value> {
        let found = match answer {
            Replaced::Answer(cells::Answer::Found(None)) => Value::Nil,
            Replaced::Answer(cells::Answer::Found(Some(row))) => list([row.tag, row.twin]),
            Replaced::Answer(cells::Answer::Drawn(number)) => Value::Int(*number),
            Replaced::Rows(rows) => {
                let row = |(key, row): (&u64, &cells::Row)| list([*key, row.tag, row.twin]);
                Value::List(rows.iter().map(row).collect())
            }
        };
        Some(self.show_found(found).1)
    }

    fn parse(f: &str, value: &Value) -> Option<Replacing> {
        let number = |name: &str| value.field(name).and_then(natural);
        let at = || u32::try_from(number("at")?).ok();
        Some(match f {
            "put" => Replacing::Op(cells::Op::Put {
                key: number("key")?,
                tag: number("tag")?,
                at: at()?,
            }),
            "delete" => Replacing::Op(cells::Op::Delete { key: number("key")?, at: at()? }),
            "read" => Replacing::Op(cells::Op::Read { key: number("key")?, at: at()? }),
            "draw" => Replacing::Op(cells::Op::Draw),
            "read-all" => Replacing::ReadAll,
            _ => return None,
        })
    }

    fn parse_answer(&self, value: &Value) -> Option<Replaced> {
        match self {
            Replacing::Op(cells::Op::Draw) => {
                Some(Replaced::Answer(cells::Answer::Drawn(value.integer()?)))
            }
            Replacing::Op(_) => {
                let found = match value.field("found")? {
                    Value::Nil => None,
                    row => {
                        let [tag, twin]: [u64; 2] = naturals(row)?.try_into().ok()?;
                        Some(cells::Row { tag, twin })
                    }
                };
                Some(Replaced::Answer(cells::Answer::Found(found)))
            }
            Replacing::ReadAll => {
                let row = |value: &Value| {
                    let [key, tag, twin]: [u64; 3] = naturals(value)?.try_into().ok()?;
                    Some((key, cells::Row { tag, twin }))
                };
                let rows: Vec<_> = value.list()?.iter().map(row).collect::<Option<_>>()?;
                let by_key: BTreeMap<u64, cells::Row> = rows.iter().copied().collect();
                (by_key.len() == rows.len()).then_some(Replaced::Rows(by_key))
            }
        }
    }

    fn tells(&self, answer: &Replaced) -> bool {
        match answer {
            Replaced::Answer(cells::Answer::Found(found)) => {
                found.is_some() || matches!(self, Replacing::Op(cells::Op::Put { .. }))
            }
            Replaced::Answer(cells::Answer::Drawn(_)) => true,
            Replaced::Rows(rows) => !rows.is_empty(),
        }
    }
}

/// The reading of a copy of whatever it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reading;

impl Shown for Reading {
    type Answer = Value;

    fn show(&self) -> (&'static str, Value) {
        ("read-all", Value::Nil)
    }

    fn show_answer(&self, copy: &Value) -> Option<Value> {
        Some(copy.clone())
    }

    fn parse(f: &str, value: &Value) -> Option<Reading> {
        (f == "read-all" && *value == Value::Nil).then_some(Reading)
    }

    fn parse_answer(&self, value: &Value) -> Option<Value> {
        Some(value.clone())
    }

    fn tells(&self, copy: &Value) -> bool {
        ![Value::Nil, Value::List(Vec::new()), Value::Map(Vec::new())].contains(copy)
    }
}

impl Shown for index::Look {
    /// Keys and values of any kind.
    type Answer = index::Seen<Value, Value>;

    fn show(&self) -> (&'static str, Value) {
        let name = |name: &String| (Value::word(name), Value::Nil);
        ("look", Value::Map(self.iter().map(name).collect()))
    }

    fn show_answer(&self, seen: &index::Seen<Value, Value>) -> Option<Value> {
        let pair = |(key, value): &(Value, Value)| Value::List(vec![key.clone(), value.clone()]);
        let rows = |rows: &[(Value, Value)]| Value::List(rows.iter().map(pair).collect());
        let one = |(name, compared): (&String, &index::Compared<Value, Value>)| {
            let both = vec![
                (Value::word("table"), rows(&compared.table)),
                (Value::word("index"), rows(&compared.index)),
            ];
            (Value::word(name), Value::Map(both))
        };
        Some(Value::Map(self.iter().zip(seen).map(one).collect()))
    }

    fn parse(f: &str, value: &Value) -> Option<index::Look> {
        let Value::Map(pairs) = value else { return None };
        let name = |(name, _): &(Value, Value)| match name {
            Value::Word(name) => Some(name.clone()),
            _ => None,
        };
        if f == "look" { pairs.iter().map(name).collect() } else { None }
    }

    fn parse_answer(&self, value: &Value) -> Option<index::Seen<Value, Value>> {
        let rows = |both: &Value, name: &str| {
            let row = |row: &Value| pair(row).map(|(key, value)| (key.clone(), value.clone()));
            both.field(name)?.list()?.iter().map(row).collect::<Option<Vec<_>>>()
        };
        let one = |name: &String| {
            let both = value.field(name)?;
            Some(index::Compared { table: rows(both, "table")?, index: rows(both, "index")? })
        };
        self.iter().map(one).collect()
    }

    fn tells(&self, seen: &index::Seen<Value, Value>) -> bool {
        seen.iter().any(|both| !both.table.is_empty() || !both.index.is_empty())
    }
}
