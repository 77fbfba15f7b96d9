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
//! | `mvcc` | those of `list-append`, `rw-register` or `register`, each `ok` with its `:ts` |
//! | `index` | `look` `{name nil ..}` → `{name {:table [[key value] ..] :index [[key value] ..]} ..}`: in one transaction, keys and values of any kind |
//! | `cells` | `put` `{:key k :tag t :at node :found nil}` and `delete`, `read` without a tag → `:found` nil or `[tag twin]`, `draw` nil → a number, `read-all` nil → `[[key tag twin] ..]`, as `counter`'s |
//! | `convergence` | `read-all` nil → anything: as `counter`'s, and nothing else |
//! | `counter` | `add` `[k amount]`, `read-all` nil → `[[k v] ..]`: by several processes after everything has ended, all equal |

use std::fmt;

use super::value::show;
use super::{Format, Malformed, Operation, Value};
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
    /// Whether it shows that something happened: it has changed something, or has seen that somebody did.
    fn tells(&self, answer: &Self::Answer) -> bool;
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
        Operation { line: 0, ts: None, record: Record { client, asked, heard, op, ended } }
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
        let op = O::parse(f, value).ok_or_else(|| not_of_model(operation))?;
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

/// What is wrong with an operation that a model does not know.
pub(super) fn not_of_model(operation: &Operation) -> Malformed {
    let (f, value) = &operation.record.op;
    let what = format!("not an operation of this model: {f} {}", show(value, Format::Edn));
    Malformed { line: operation.line, what }
}

pub(super) fn natural(value: &Value) -> Option<u64> {
    value.integer().and_then(|number| u64::try_from(number).ok())
}

pub(super) fn pair(value: &Value) -> Option<(&Value, &Value)> {
    match value.list()? {
        [first, second] => Some((first, second)),
        _ => None,
    }
}

pub(super) fn naturals(value: &Value) -> Option<Vec<u64>> {
    value.list()?.iter().map(natural).collect()
}

pub(super) fn list(numbers: impl IntoIterator<Item = u64>) -> Value {
    Value::List(numbers.into_iter().map(Value::number).collect())
}

pub(super) fn two(first: u64, second: Value) -> Value {
    Value::List(vec![Value::number(first), second])
}

/// `[:f key value]`.
pub(super) fn micro(f: &str, key: u64, value: Value) -> Value {
    Value::List(vec![Value::word(f), Value::number(key), value])
}

pub(super) fn parse_micro(value: &Value) -> Option<(&str, u64, &Value)> {
    match value.list()? {
        [Value::Word(f), key, value] => Some((f, natural(key)?, value)),
        _ => None,
    }
}
