//! Value: transactions by their commit timestamps, for the judge of [`mvcc`](crate::check::mvcc), from a history of transactions over lists
//! or registers, or of single registers, whose every `ok` has its timestamp (`:ts`).
//!
//! A list's version is its last number. An append finds the version before it, though its answer does not say so: whoever reads a list
//! later sees what was in front of it.

use std::collections::{BTreeMap, BTreeSet};

use super::shown::{natural, not_of_model, pair, parse_micro};
use super::{Malformed, Operation, Value};
use crate::check::mvcc::{Seen, Writes};
use crate::history::{Ended, Record};

/// One step of a transaction, with what it saw.
enum Step {
    Write { key: u64, value: u64 },
    Read { key: u64, version: Option<u64> },
}

/// What each number in a list was appended to, as everybody saw it who saw it.
type Before = BTreeMap<u64, BTreeSet<Option<u64>>>;

/// Operations as records with their instants, to be judged.
///
/// # Errors
/// The first operation that is none of these models', or was answered without a timestamp.
pub(super) fn instants(operations: &[Operation]) -> Result<Vec<Record<Writes, Seen>>, Malformed> {
    let before = before(operations);
    operations.iter().map(|operation| instant(operation, &before)).collect()
}

fn instant(operation: &Operation, before: &Before) -> Result<Record<Writes, Seen>, Malformed> {
    let Record { client, asked, heard, op: (f, value), ended } = &operation.record;
    let parse = |value: &Value| steps(f, value).ok_or_else(|| not_of_model(operation));
    let writes = parse(value)?.into_iter().filter_map(|step| match step {
        Step::Write { key, value } => Some((key, value)),
        Step::Read { .. } => None,
    });
    let op = writes.collect();
    let ended = match ended {
        Ended::Ok(answer) => {
            let Some(at) = operation.ts else {
                let what = "answered without its commit timestamp, :ts [microseconds logical]";
                return Err(Malformed { line: operation.line, what: what.to_string() });
            };
            Ended::Ok(Seen { at, reads: found(&parse(answer)?, before) })
        }
        Ended::Fail => Ended::Fail,
        Ended::Unknown => Ended::Unknown,
    };
    Ok(Record { client: *client, asked: *asked, heard: *heard, op, ended })
}

fn steps(f: &str, value: &Value) -> Option<Vec<Step>> {
    let read = |key: &Value, seen: &Value| {
        Some(Step::Read { key: natural(key)?, version: version(seen)? })
    };
    let write = |key: &Value, value: &Value| {
        Some(Step::Write { key: natural(key)?, value: natural(value)? })
    };
    if f == "txn" {
        let step = |value: &Value| match parse_micro(value)? {
            ("append" | "w", key, value) => Some(Step::Write { key, value: natural(value)? }),
            ("r", key, seen) => Some(Step::Read { key, version: version(seen)? }),
            _ => None,
        };
        return value.list()?.iter().map(step).collect();
    }
    let (key, value) = pair(value)?;
    match f {
        "read" => Some(vec![read(key, value)?]),
        "write" => Some(vec![write(key, value)?]),
        "cas" => {
            let (old, new) = pair(value)?;
            // A register begins with nothing, which swaps write as zero.
            let old = if natural(old) == Some(0) { &Value::Nil } else { old };
            Some(vec![read(key, old)?, write(key, new)?])
        }
        _ => None,
    }
}

/// The version in which something was read: what was written there last.
fn version(seen: &Value) -> Option<Option<u64>> {
    match seen {
        Value::Nil => Some(None),
        Value::List(numbers) => match numbers.last() {
            None => Some(None),
            Some(last) => natural(last).map(Some),
        },
        value => natural(value).map(Some),
    }
}

/// What a transaction found of each key before it wrote there itself.
fn found(steps: &[Step], before: &Before) -> Vec<(u64, Option<u64>)> {
    let mut written = BTreeSet::new();
    let mut found = Vec::new();
    for step in steps {
        match step {
            Step::Read { key, version } if !written.contains(key) => found.push((*key, *version)),
            Step::Read { .. } => {}
            Step::Write { key, value } => {
                if written.insert(*key) {
                    let versions = before.get(value).into_iter().flatten();
                    found.extend(versions.map(|version| (*key, *version)));
                }
            }
        }
    }
    found
}

fn before(operations: &[Operation]) -> Before {
    let mut before = Before::new();
    for operation in operations {
        let Ended::Ok(answer) = &operation.record.ended else { continue };
        let steps = answer.list().unwrap_or_default().iter().filter_map(parse_micro);
        for (_, _, seen) in steps.filter(|(f, _, _)| *f == "r") {
            let mut former = None;
            for number in seen.list().unwrap_or_default().iter().filter_map(natural) {
                before.entry(number).or_default().insert(former);
                former = Some(number);
            }
        }
    }
    before
}
