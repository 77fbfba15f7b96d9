//! Value: how operations on one object are written: `[object argument]`, of registers, of sets, and of counters that only grow.

use super::Value;
use super::shown::{Shown, list, natural, naturals, pair, two};
use crate::check::{monotonic, register, session};

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

    fn parse_answer(&self, whole: &Value) -> Option<register::Answer> {
        let (key, value) = pair(whole)?;
        if natural(key)? != self.0 {
            return None;
        }
        match self.1 {
            register::Op::Read if *value == Value::Nil => Some(register::Answer::Value(0)),
            register::Op::Read => natural(value).map(register::Answer::Value),
            register::Op::Write(_) => Some(register::Answer::Done),
            // What it found there was not left open: nil is the value before the first.
            register::Op::Swap(..) => {
                let same = Shown::parse("cas", whole) == Some(*self);
                same.then_some(register::Answer::Swapped(true))
            }
        }
    }

    fn tells(&self, answer: &register::Answer) -> bool {
        match answer {
            register::Answer::Value(value) => *value != 0,
            register::Answer::Done => true,
            register::Answer::Swapped(swapped) => *swapped,
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

    fn tells(&self, items: &session::Items) -> bool {
        matches!(self, session::Op::Add { .. }) || !items.is_empty()
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

    fn tells(&self, value: &monotonic::Value) -> bool {
        matches!(self, monotonic::Op::Increment(_)) || *value > 0
    }
}
