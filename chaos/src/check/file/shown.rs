//! Value: how the operations of each model are written as values.
//!
//! | model | operations (`f`, `value` when asked → when answered) |
//! |---|---|
//! | `list-append` | `txn` `[[:append k v] [:r k nil]]` → `[[:append k v] [:r k [..]]]` |
//! | `rw-register` | `txn` `[[:w k v] [:r k nil]]` → `[[:w k v] [:r k v]]` |
//! | `register` | `read` `[k nil]` → `[k v]`, `write` `[k v]`, `cas` `[k [old new]]` (a swap that did not match is a `fail`) |
//! | `bank` | `open` `{account balance}`, `transfer` `{:id :from :to :amount}`, `read` nil → `{account balance}`, `journal` nil → `[[id from to amount]]` |
//! | `long-fork` | `write` `[[:w k 1]]`, `read` `[[:r k nil] ..]` → `[[:r k 1] [:r k nil] ..]` |
//! | `write-skew` | `insert` `[group row]` (`fail`: the group was not empty), `rows` nil → `[[group [row ..]] ..]` |
//! | `session` | `add` `[set item]`, `read` `[set nil]` → `[set [item ..]]` |
//! | `monotonic` | `inc` `[k nil]` → `[k v]`, `read` `[k nil]` → `[k v]` |
//! | `counter` | `add` `[k amount]`, `read-all` nil → `[[k v] ..]`: by several processes after everything has ended, all equal |

use std::collections::BTreeMap;
use std::fmt;

use super::value::show;
use super::{Format, Malformed, Operation, Value};
use crate::check::{
    append, bank, convergence, long_fork, monotonic, register, session, skew, txn_register,
};
use crate::history::{Ended, Record};

/// An operation of a model and its answer, as values and back.
pub trait Shown: Sized {
    /// What it is answered with.
    type Answer;
    /// The function's name, and its argument.
    fn show(&self) -> (&'static str, Value);
    /// What it was answered with; `None`: a certain failure is the best word for it.
    fn show_answer(&self, answer: &Self::Answer) -> Option<Value>;
    /// From a function's name and argument.
    fn parse(f: &str, value: &Value) -> Option<Self>;
    /// From what it was answered with.
    fn parse_answer(&self, value: &Value) -> Option<Self::Answer>;
}

/// As a line of a history, for people: `client 3, 4.116 to 4.230 s: transfer {:id 7 ..} -> true`.
impl<O: Shown> fmt::Display for Record<O, O::Answer> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        let (name, value) = self.op.show();
        write!(f, "client {}, {:.6} to ", self.client, seconds(self.asked))?;
        match self.heard {
            u64::MAX => f.write_str("never: ")?,
            heard => write!(f, "{:.6} s: ", seconds(heard))?,
        }
        write!(f, "{name} {} -> ", show(&value, Format::Edn))?;
        match &self.ended {
            Ended::Ok(answer) => match self.op.show_answer(answer) {
                Some(value) => f.write_str(&show(&value, Format::Edn)),
                None => f.write_str("failed"),
            },
            Ended::Fail => f.write_str("failed"),
            Ended::Unknown => f.write_str("unknown"),
        }
    }
}

/// Records as operations, to be written.
pub fn shown<O: Shown>(records: &[Record<O, O::Answer>]) -> Vec<Operation> {
    let show = |record: &Record<O, O::Answer>| {
        let (f, value) = record.op.show();
        let ended = match &record.ended {
            Ended::Ok(answer) => record.op.show_answer(answer).map_or(Ended::Fail, Ended::Ok),
            Ended::Fail => Ended::Fail,
            Ended::Unknown => Ended::Unknown,
        };
        let Record { client, asked, heard, .. } = *record;
        let op = (f.to_string(), value);
        Operation { line: 0, record: Record { client, asked, heard, op, ended } }
    };
    records.iter().map(show).collect()
}

/// Operations as records, to be judged.
pub(crate) fn records<O: Shown>(
    operations: &[Operation],
) -> Result<Vec<Record<O, O::Answer>>, Malformed> {
    let parse = |operation: &Operation| {
        let Record { client, asked, heard, op: (f, value), ended } = &operation.record;
        let wrong = |what: String| Malformed { line: operation.line, what };
        let op = O::parse(f, value).ok_or_else(|| {
            wrong(format!("not an operation of this model: {f} {}", show(value, Format::Edn)))
        })?;
        let ended = match ended {
            Ended::Ok(answer) => Ended::Ok(op.parse_answer(answer).ok_or_else(|| {
                wrong(format!(
                    "not an answer to {f} {}: {}",
                    show(value, Format::Edn),
                    show(answer, Format::Edn)
                ))
            })?),
            Ended::Fail => Ended::Fail,
            Ended::Unknown => Ended::Unknown,
        };
        Ok(Record { client: *client, asked: *asked, heard: *heard, op, ended })
    };
    operations.iter().map(parse).collect()
}

fn natural(value: &Value) -> Option<u64> {
    value.integer().and_then(|number| u64::try_from(number).ok())
}

fn pair(value: &Value) -> Option<(&Value, &Value)> {
    match value.list()? {
        [first, second] => Some((first, second)),
        _ => None,
    }
}

fn naturals(value: &Value) -> Option<Vec<u64>> {
    value.list()?.iter().map(natural).collect()
}

fn list(numbers: impl IntoIterator<Item = u64>) -> Value {
    Value::List(numbers.into_iter().map(Value::number).collect())
}

fn two(first: u64, second: Value) -> Value {
    Value::List(vec![Value::number(first), second])
}

/// `[:f key value]`.
fn micro(f: &str, key: u64, value: Value) -> Value {
    Value::List(vec![Value::word(f), Value::number(key), value])
}

fn parse_micro(value: &Value) -> Option<(&str, u64, &Value)> {
    match value.list()? {
        [Value::Word(f), key, value] => Some((f, natural(key)?, value)),
        _ => None,
    }
}

impl Shown for append::Txn {
    type Answer = append::Reads;

    fn show(&self) -> (&'static str, Value) {
        let step = |step: &append::Step| match step {
            append::Step::Append { list, number } => {
                micro("append", u64::from(*list), Value::number(*number))
            }
            append::Step::Read { list } => micro("r", u64::from(*list), Value::Nil),
        };
        ("txn", Value::List(self.iter().map(step).collect()))
    }

    fn show_answer(&self, answer: &append::Reads) -> Option<Value> {
        let mut reads = answer.iter();
        let step = |step: &append::Step| match step {
            append::Step::Append { list, number } => {
                micro("append", u64::from(*list), Value::number(*number))
            }
            append::Step::Read { list: of } => {
                let seen = reads.next().cloned().unwrap_or_default();
                micro("r", u64::from(*of), list(seen))
            }
        };
        Some(Value::List(self.iter().map(step).collect()))
    }

    fn parse(f: &str, value: &Value) -> Option<append::Txn> {
        let step = |value: &Value| match parse_micro(value)? {
            ("append", list, number) => Some(append::Step::Append {
                list: u32::try_from(list).ok()?,
                number: natural(number)?,
            }),
            ("r", list, _) => Some(append::Step::Read { list: u32::try_from(list).ok()? }),
            _ => None,
        };
        if f == "txn" { value.list()?.iter().map(step).collect() } else { None }
    }

    fn parse_answer(&self, value: &Value) -> Option<append::Reads> {
        let steps = value.list()?;
        if append::Txn::parse("txn", value)? != *self {
            return None;
        }
        let reads = steps.iter().filter_map(parse_micro).filter(|(f, _, _)| *f == "r");
        reads
            .map(|(_, _, seen)| if *seen == Value::Nil { Some(Vec::new()) } else { naturals(seen) })
            .collect()
    }
}

impl Shown for txn_register::Txn {
    type Answer = txn_register::Reads;

    fn show(&self) -> (&'static str, Value) {
        let step = |step: &txn_register::Step| match step {
            txn_register::Step::Write { key, value } => micro("w", *key, Value::number(*value)),
            txn_register::Step::Read { key } => micro("r", *key, Value::Nil),
        };
        ("txn", Value::List(self.iter().map(step).collect()))
    }

    fn show_answer(&self, answer: &txn_register::Reads) -> Option<Value> {
        let mut reads = answer.iter();
        let step = |step: &txn_register::Step| match step {
            txn_register::Step::Write { key, value } => micro("w", *key, Value::number(*value)),
            txn_register::Step::Read { key } => {
                micro("r", *key, reads.next().copied().flatten().map_or(Value::Nil, Value::number))
            }
        };
        Some(Value::List(self.iter().map(step).collect()))
    }

    fn parse(f: &str, value: &Value) -> Option<txn_register::Txn> {
        let step = |value: &Value| match parse_micro(value)? {
            ("w", key, value) => Some(txn_register::Step::Write { key, value: natural(value)? }),
            ("r", key, _) => Some(txn_register::Step::Read { key }),
            _ => None,
        };
        if f == "txn" { value.list()?.iter().map(step).collect() } else { None }
    }

    fn parse_answer(&self, value: &Value) -> Option<txn_register::Reads> {
        let steps = value.list()?;
        if <txn_register::Txn as Shown>::parse("txn", value)? != *self {
            return None;
        }
        let reads = steps.iter().filter_map(parse_micro).filter(|(f, _, _)| *f == "r");
        reads
            .map(|(_, _, seen)| match seen {
                Value::Nil => Some(None),
                other => natural(other).map(Some),
            })
            .collect()
    }
}

impl Shown for (u64, register::Op) {
    type Answer = register::Answer;

    fn show(&self) -> (&'static str, Value) {
        let (key, op) = self;
        match op {
            register::Op::Read => ("read", two(*key, Value::Nil)),
            register::Op::Write(value) => ("write", two(*key, Value::number(*value))),
            register::Op::Swap(old, new) => ("cas", two(*key, list([*old, *new]))),
        }
    }

    fn show_answer(&self, answer: &register::Answer) -> Option<Value> {
        match answer {
            register::Answer::Value(0) => Some(two(self.0, Value::Nil)),
            register::Answer::Value(value) => Some(two(self.0, Value::number(*value))),
            register::Answer::Done | register::Answer::Swapped(true) => Some(self.show().1),
            register::Answer::Swapped(false) => None,
        }
    }

    fn parse(f: &str, value: &Value) -> Option<(u64, register::Op)> {
        let (key, value) = pair(value)?;
        let op = match f {
            "read" => register::Op::Read,
            "write" => register::Op::Write(natural(value)?),
            "cas" => {
                let (old, new) = pair(value)?;
                let old = if *old == Value::Nil { 0 } else { natural(old)? };
                register::Op::Swap(old, natural(new)?)
            }
            _ => return None,
        };
        Some((natural(key)?, op))
    }

    fn parse_answer(&self, value: &Value) -> Option<register::Answer> {
        let (key, value) = pair(value)?;
        if natural(key)? != self.0 {
            return None;
        }
        match self.1 {
            register::Op::Read if *value == Value::Nil => Some(register::Answer::Value(0)),
            register::Op::Read => natural(value).map(register::Answer::Value),
            register::Op::Write(_) => Some(register::Answer::Done),
            register::Op::Swap(..) => Some(register::Answer::Swapped(true)),
        }
    }
}

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
}

impl Shown for long_fork::Op {
    type Answer = long_fork::Seen;

    fn show(&self) -> (&'static str, Value) {
        match self {
            long_fork::Op::Write(key) => {
                ("write", Value::List(vec![micro("w", *key, Value::Int(1))]))
            }
            long_fork::Op::Read(keys) => {
                let steps = keys.iter().map(|key| micro("r", *key, Value::Nil));
                ("read", Value::List(steps.collect()))
            }
        }
    }

    fn show_answer(&self, seen: &long_fork::Seen) -> Option<Value> {
        let long_fork::Op::Read(keys) = self else { return Some(self.show().1) };
        let value = |key: &u64| if seen.contains(key) { Value::Int(1) } else { Value::Nil };
        Some(Value::List(keys.iter().map(|key| micro("r", *key, value(key))).collect()))
    }

    fn parse(f: &str, value: &Value) -> Option<long_fork::Op> {
        let steps: Vec<_> = value.list()?.iter().map(parse_micro).collect::<Option<_>>()?;
        match (f, steps.as_slice()) {
            ("write", [("w", key, _)]) => Some(long_fork::Op::Write(*key)),
            ("read", steps) if steps.iter().all(|(f, _, _)| *f == "r") => {
                Some(long_fork::Op::Read(steps.iter().map(|(_, key, _)| *key).collect()))
            }
            _ => None,
        }
    }

    fn parse_answer(&self, value: &Value) -> Option<long_fork::Seen> {
        match self {
            long_fork::Op::Write(_) => Some(long_fork::Seen::new()),
            long_fork::Op::Read(keys) => {
                let steps: Vec<_> = value.list()?.iter().map(parse_micro).collect::<Option<_>>()?;
                if !steps.iter().map(|(_, key, _)| *key).eq(keys.iter().copied()) {
                    return None;
                }
                let seen = steps.into_iter().filter(|(_, _, value)| **value != Value::Nil);
                Some(seen.map(|(_, key, _)| key).collect())
            }
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
}

impl Shown for session::Op {
    type Answer = session::Items;

    fn show(&self) -> (&'static str, Value) {
        match self {
            session::Op::Add { set, item } => ("add", list([*set, *item])),
            session::Op::Read { set } => ("read", two(*set, Value::Nil)),
        }
    }

    fn show_answer(&self, items: &session::Items) -> Option<Value> {
        match self {
            session::Op::Add { .. } => Some(self.show().1),
            session::Op::Read { set } => Some(two(*set, list(items.iter().copied()))),
        }
    }

    fn parse(f: &str, value: &Value) -> Option<session::Op> {
        let (set, item) = pair(value)?;
        let set = natural(set)?;
        match f {
            "add" => Some(session::Op::Add { set, item: natural(item)? }),
            "read" => Some(session::Op::Read { set }),
            _ => None,
        }
    }

    fn parse_answer(&self, value: &Value) -> Option<session::Items> {
        match self {
            session::Op::Add { .. } => Some(session::Items::new()),
            session::Op::Read { set } => {
                let (of, items) = pair(value)?;
                let same = natural(of)? == *set;
                naturals(items).filter(|_| same).map(|items| items.into_iter().collect())
            }
        }
    }
}

impl Shown for monotonic::Op {
    type Answer = monotonic::Value;

    fn show(&self) -> (&'static str, Value) {
        match self {
            monotonic::Op::Increment(counter) => ("inc", two(*counter, Value::Nil)),
            monotonic::Op::Read(counter) => ("read", two(*counter, Value::Nil)),
        }
    }

    fn show_answer(&self, value: &monotonic::Value) -> Option<Value> {
        let (monotonic::Op::Increment(counter) | monotonic::Op::Read(counter)) = self;
        Some(list([*counter, *value]))
    }

    fn parse(f: &str, value: &Value) -> Option<monotonic::Op> {
        let (counter, _) = pair(value)?;
        match f {
            "inc" => Some(monotonic::Op::Increment(natural(counter)?)),
            "read" => Some(monotonic::Op::Read(natural(counter)?)),
            _ => None,
        }
    }

    fn parse_answer(&self, value: &Value) -> Option<monotonic::Value> {
        let (monotonic::Op::Increment(counter) | monotonic::Op::Read(counter)) = self;
        let (of, value) = pair(value)?;
        if natural(of)? == *counter { natural(value) } else { None }
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
}
