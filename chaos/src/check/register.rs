//! Value: judges whether a register's history is linearizable (Wing and Gong 1993, with the memory of Lowe 2017).
//!
//! Search for an order of operations that agrees with real time and with a register's behaviour. An operation of unknown end may
//! be put anywhere after it was asked, or left out. States that were tried (which operations are done, and the register's value) are
//! remembered, so that they are tried once.
//!
//! Cost: exponential in the number of concurrent operations at worst; each register is judged alone (linearizability is local).

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Ended, Record};

/// An operation on one register.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Op {
    /// What is in it?
    Read,
    /// Put this in.
    Write(u64),
    /// Put the second in if the first is there; the answer tells whether.
    Swap(u64, u64),
}

/// What a client was told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Answer {
    /// To `Read`: zero if nothing was ever put in.
    Value(u64),
    /// To `Write`.
    Done,
    /// To `Swap`.
    Swapped(bool),
}

/// States tried before the judge gives up.
const STATES_MAX: usize = 2_000_000;

/// Judges one register's history; it begins with zero.
///
/// # Errors
/// Why there is no order, or that none was found within the limit.
pub fn check(history: &[Record<Op, Answer>]) -> Result<(), String> {
    let mut ops: Vec<&Record<Op, Answer>> =
        history.iter().filter(|record| !matches!(record.ended, Ended::Fail)).collect();
    // A read that nobody heard the answer of says nothing.
    ops.retain(|record| !(matches!(record.ended, Ended::Unknown) && record.op == Op::Read));
    ops.sort_by_key(|record| (record.asked, record.heard));
    Search { ops, tried: BTreeSet::new() }.run()
}

/// Judges every register of a history alone.
///
/// # Errors
/// The register that does not behave as one copy, why, and its history.
pub fn check_all(history: &[Record<(u64, Op), Answer>]) -> Result<(), String> {
    let mut by_register: BTreeMap<u64, Vec<Record<Op, Answer>>> = BTreeMap::new();
    for record in history {
        let Record { client, asked, heard, op: (register, op), ended } = record.clone();
        let record = Record { client, asked, heard, op, ended };
        by_register.entry(register).or_default().push(record);
    }
    for (register, history) in by_register {
        check(&history).map_err(|why| format!("register {register}: {why}\n{}", show(&history)))?;
    }
    Ok(())
}

/// The history for people, by time.
fn show(history: &[Record<Op, Answer>]) -> String {
    let mut sorted: Vec<&Record<Op, Answer>> = history.iter().collect();
    sorted.sort_by_key(|record| record.asked);
    let line = |record: &&Record<Op, Answer>| {
        let heard =
            if record.heard == u64::MAX { "never".to_string() } else { record.heard.to_string() };
        format!(
            "  {} to {heard} client {}: {:?} {:?}",
            record.asked, record.client, record.op, record.ended
        )
    };
    sorted.iter().map(line).collect::<Vec<_>>().join("\n")
}

struct Search<'a> {
    ops: Vec<&'a Record<Op, Answer>>,
    tried: BTreeSet<(Done, u64)>,
}

/// Which operations have been put in order: all before `first`, and these after it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Done {
    first: usize,
    beyond: Vec<usize>,
}

impl Done {
    fn has(&self, place: usize) -> bool {
        place < self.first || self.beyond.binary_search(&place).is_ok()
    }

    fn with(&self, place: usize) -> Done {
        let mut beyond = self.beyond.clone();
        if let Err(at) = beyond.binary_search(&place) {
            beyond.insert(at, place);
        }
        let mut first = self.first;
        while beyond.first() == Some(&first) {
            beyond.remove(0);
            first += 1;
        }
        Done { first, beyond }
    }
}

impl Search<'_> {
    fn run(mut self) -> Result<(), String> {
        let mut stack = vec![(Done { first: 0, beyond: Vec::new() }, 0u64)];
        let mut furthest = (0, 0u64);
        while let Some((done, value)) = stack.pop() {
            if self.tried.len() > STATES_MAX {
                return Err(format!("no verdict within {STATES_MAX} states"));
            }
            if !self.tried.insert((done.clone(), value)) {
                continue;
            }
            if done.first >= furthest.0 {
                furthest = (done.first, value);
            }
            let Some(deadline) = self.deadline(&done) else { return Ok(()) };
            for place in done.first..self.ops.len() {
                let op = self.ops[place];
                if op.asked > deadline {
                    break;
                }
                if done.has(place) {
                    continue;
                }
                if let Some(next) = effect(op, value) {
                    stack.push((done.with(place), next));
                }
            }
        }
        let stuck = self.ops.get(furthest.0);
        Err(format!("no order explains {stuck:?} when the register holds {}", furthest.1))
    }

    /// Whoever is put next must have been asked before the first of the others was answered. `None`: nobody must be put any more.
    fn deadline(&self, done: &Done) -> Option<u64> {
        let left = (done.first..self.ops.len()).filter(|place| !done.has(*place));
        let first = left.map(|place| self.ops[place].heard).min()?;
        (first != u64::MAX).then_some(first)
    }
}

/// The register's value after the operation, if the answer is one that the register would give.
fn effect(record: &Record<Op, Answer>, value: u64) -> Option<u64> {
    match (record.op, &record.ended) {
        (Op::Read, Ended::Ok(Answer::Value(seen))) => (*seen == value).then_some(value),
        (Op::Write(new), Ended::Ok(Answer::Done) | Ended::Unknown) => Some(new),
        (Op::Swap(old, new), Ended::Ok(Answer::Swapped(true))) => (old == value).then_some(new),
        (Op::Swap(old, _), Ended::Ok(Answer::Swapped(false))) => (old != value).then_some(value),
        (Op::Swap(old, new), Ended::Unknown) => Some(if old == value { new } else { value }),
        (Op::Read | Op::Write(_) | Op::Swap(..), Ended::Ok(_) | Ended::Fail | Ended::Unknown) => {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(client: u32, asked: u64, heard: u64, op: Op, answer: Answer) -> Record<Op, Answer> {
        Record { client, asked, heard, op, ended: Ended::Ok(answer) }
    }

    fn unknown(client: u32, asked: u64, op: Op) -> Record<Op, Answer> {
        Record { client, asked, heard: u64::MAX, op, ended: Ended::Unknown }
    }

    #[test]
    fn one_after_another_is_linearizable() {
        let history = [
            record(1, 0, 1, Op::Write(1), Answer::Done),
            record(2, 2, 3, Op::Read, Answer::Value(1)),
            record(1, 4, 5, Op::Swap(1, 2), Answer::Swapped(true)),
            record(2, 6, 7, Op::Swap(1, 3), Answer::Swapped(false)),
            record(2, 8, 9, Op::Read, Answer::Value(2)),
        ];
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn a_stale_read_is_refused() {
        let history = [
            record(1, 0, 1, Op::Write(1), Answer::Done),
            record(1, 2, 3, Op::Write(2), Answer::Done),
            record(2, 4, 5, Op::Read, Answer::Value(1)),
        ];
        assert!(check(&history).is_err());
    }

    #[test]
    fn concurrent_reads_may_see_either_but_not_go_back() {
        let write = record(1, 0, 100, Op::Write(1), Answer::Done);
        let new = record(2, 10, 20, Op::Read, Answer::Value(1));
        let old = record(3, 30, 40, Op::Read, Answer::Value(0));
        assert!(check(&[write.clone(), new.clone(), old.clone()]).is_err());
        let old_first = record(3, 5, 15, Op::Read, Answer::Value(0));
        assert_eq!(check(&[write, new, old_first]), Ok(()));
    }

    #[test]
    fn a_lost_answer_may_count_late_or_never_but_once() {
        let lost = unknown(1, 0, Op::Write(7));
        let before = record(2, 10, 20, Op::Read, Answer::Value(0));
        let after = record(2, 30, 40, Op::Read, Answer::Value(7));
        assert_eq!(check(&[lost.clone(), before.clone(), after.clone()]), Ok(()));
        assert_eq!(check(&[lost.clone(), before.clone()]), Ok(()));
        let back = record(2, 50, 60, Op::Read, Answer::Value(0));
        assert!(check(&[lost, before, after, back]).is_err());
    }

    #[test]
    fn a_lost_acknowledged_write_is_refused() {
        let history = [
            record(1, 0, 1, Op::Write(1), Answer::Done),
            record(2, 2, 3, Op::Read, Answer::Value(0)),
        ];
        assert!(check(&history).is_err());
    }

    #[test]
    fn two_winners_of_one_swap_are_refused() {
        let history = [
            record(1, 0, 10, Op::Swap(0, 1), Answer::Swapped(true)),
            record(2, 0, 10, Op::Swap(0, 2), Answer::Swapped(true)),
        ];
        assert!(check(&history).is_err());
    }
}
