//! Value: how operations made of micro-operations are written: `[[:f key value] ..]`, of transactions over lists and registers, and of
//! writers and readers of independent keys.

use super::Value;
use super::shown::{Shown, list, micro, natural, naturals, parse_micro};
use crate::check::{append, long_fork, txn_register};

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

    fn tells(&self, reads: &append::Reads) -> bool {
        let appends = self.iter().any(|step| matches!(step, append::Step::Append { .. }));
        appends || reads.iter().any(|read| !read.is_empty())
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

    fn tells(&self, reads: &txn_register::Reads) -> bool {
        let writes = self.iter().any(|step| matches!(step, txn_register::Step::Write { .. }));
        writes || reads.iter().any(Option::is_some)
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

    fn tells(&self, seen: &long_fork::Seen) -> bool {
        matches!(self, long_fork::Op::Write(_)) || !seen.is_empty()
    }
}
