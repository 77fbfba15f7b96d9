//! Value: which judge a history is for, and how its operations are written as values.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::books::{Banked, Banking, Counting, Reading, Replaced, Replacing, Skewed, Skewing};
use super::instants::instants;
use super::shown::{Shown, records, shown};
use super::{Malformed, Operation, Value, Verdict, read};
use crate::check::{
    Level, RealTime, append, bank, cells, convergence, index, long_fork, monotonic, mvcc, register,
    session, skew, txn_register,
};
use crate::history::{Ended, Record, end_of};

/// Clients that read the copies at the end have numbers from here on.
const COPIES_BEGIN: u32 = 1000;

/// Which judge.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Model {
    /// [`append`].
    ListAppend,
    /// [`txn_register`].
    RwRegister,
    /// [`register`].
    Register,
    /// [`bank`].
    Bank,
    /// [`long_fork`].
    LongFork,
    /// [`skew`].
    WriteSkew,
    /// [`session`].
    Session,
    /// [`monotonic`].
    Monotonic,
    /// [`convergence`] of counters.
    Counter,
    /// [`mvcc`].
    Mvcc,
    /// [`index`].
    Index,
    /// [`cells`].
    Cells,
    /// [`convergence`] of copies of anything.
    Convergence,
}

impl Model {
    /// All of them.
    pub const ALL: [Model; 13] = [
        Model::ListAppend,
        Model::RwRegister,
        Model::Register,
        Model::Bank,
        Model::LongFork,
        Model::WriteSkew,
        Model::Session,
        Model::Monotonic,
        Model::Counter,
        Model::Mvcc,
        Model::Index,
        Model::Cells,
        Model::Convergence,
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Model::ListAppend => "list-append",
            Model::RwRegister => "rw-register",
            Model::Register => "register",
            Model::Bank => "bank",
            Model::LongFork => "long-fork",
            Model::WriteSkew => "write-skew",
            Model::Session => "session",
            Model::Monotonic => "monotonic",
            Model::Counter => "counter",
            Model::Mvcc => "mvcc",
            Model::Index => "index",
            Model::Cells => "cells",
            Model::Convergence => "convergence",
        }
    }

    /// Judges the text of a history.
    pub fn judge(self, text: &str, level: Level) -> Verdict {
        let operations = match read(text) {
            Ok(operations) => operations,
            Err(malformed) => return Verdict::Malformed(malformed),
        };
        let all = &operations;
        match self {
            Model::ListAppend => hear(all, |history| append::check(history, None, level)),
            Model::RwRegister => hear(all, |history| txn_register::check(history, level)),
            Model::Register => hear(all, |history| judge_registers(history, level)),
            Model::Bank => hear(all, judge_bank),
            Model::LongFork => hear(all, |history| long_fork::check(history, level)),
            Model::WriteSkew => hear(all, judge_skew),
            Model::Session => hear(all, session::check),
            Model::Monotonic => hear(all, |history| monotonic::check(history, level)),
            Model::Counter => hear(all, judge_counters),
            Model::Mvcc => hear_instants(all),
            Model::Index => hear(all, index::check_all),
            Model::Cells => hear(all, |history| judge_cells(history, level)),
            Model::Convergence => hear(all, judge_copies),
        }
        .unwrap_or_else(Verdict::Malformed)
    }
}

/// A judge's verdict on the operations as records of its own.
fn hear<O: Shown>(
    operations: &[Operation],
    judge: impl FnOnce(&[Record<O, O::Answer>]) -> Result<(), String>,
) -> Result<Verdict, Malformed> {
    let history = records::<O>(operations)?;
    let tells = |record: &Record<O, O::Answer>| match &record.ended {
        Ended::Ok(answer) => record.op.tells(answer),
        Ended::Fail | Ended::Unknown => false,
    };
    verdict(operations, judge(&history), || history.iter().any(tells))
}

/// The verdict on transactions by their commit timestamps.
fn hear_instants(operations: &[Operation]) -> Result<Verdict, Malformed> {
    let history = instants(operations)?;
    let tells = |record: &Record<mvcc::Writes, mvcc::Seen>| match &record.ended {
        Ended::Ok(seen) => {
            !record.op.is_empty() || seen.reads.iter().any(|(_, version)| version.is_some())
        }
        Ended::Fail | Ended::Unknown => false,
    };
    verdict(operations, mvcc::check(&history), || history.iter().any(tells))
}

fn verdict(
    operations: &[Operation],
    judged: Result<(), String>,
    tells: impl FnOnce() -> bool,
) -> Result<Verdict, Malformed> {
    let Err(what) = judged else {
        let count = operations.len();
        return Ok(if tells() { Verdict::Good(count) } else { Verdict::Nothing(count) });
    };
    match what.strip_prefix("malformed history: ") {
        Some(what) => Err(Malformed { line: line_of(operations, what), what: what.to_string() }),
        None => Ok(Verdict::Bad(what)),
    }
}

/// The line of the operation that a judge's text begins with: its number is the first in it. The first if there is none.
fn line_of(operations: &[Operation], what: &str) -> usize {
    let number = what.split(' ').next().and_then(|word| word.parse::<i64>().ok());
    let has = |value: &Value| number.is_some_and(|number| mentions(value, number));
    let mut found = operations.iter().filter(|operation| has(&operation.record.op.1));
    let first = found.next();
    found.next().or(first).map_or(1, |operation| operation.line)
}

fn mentions(value: &Value, number: i64) -> bool {
    match value {
        Value::List(values) => values.iter().any(|value| mentions(value, number)),
        Value::Map(pairs) => pairs.iter().any(|(_, value)| mentions(value, number)),
        other => other.integer() == Some(number),
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Model {
    type Err = String;

    fn from_str(text: &str) -> Result<Model, String> {
        let known = || Model::ALL.map(Model::name).join(", ");
        Model::ALL
            .into_iter()
            .find(|model| model.name() == text)
            .ok_or_else(|| format!("there is no model \"{text}\"; there are {}", known()))
    }
}

fn judge_registers(
    records: &[Record<(u64, register::Op), register::Answer>],
    level: Level,
) -> Result<(), String> {
    if !matches!(level, Level::KeyRealTime | Level::Strict) {
        return Err(
            "single registers promise their order in real time only: use another level".into()
        );
    }
    register::check_all(records)
}

fn judge_bank(records: &[Record<Banking, Banked>]) -> Result<(), String> {
    let mut opened: Option<Vec<i64>> = None;
    let mut seen: Option<Vec<i64>> = None;
    let mut history = Vec::new();
    let mut last: Option<(u64, Vec<i64>)> = None;
    let mut journal = None;
    for record in records {
        let Record { client, asked, heard, op, ended } = record.clone();
        match (op, ended) {
            (Banking::Open(balances), Ended::Ok(_)) => {
                if opened.replace(balances.clone()).is_some_and(|former| former != balances) {
                    return Err("the bank was opened twice, with other balances".to_string());
                }
            }
            (Banking::Open(_), Ended::Fail | Ended::Unknown) => {}
            (Banking::Journal, Ended::Ok(Banked::Lines(lines))) => journal = Some(lines),
            (Banking::Journal, _) => {}
            (Banking::Op(op), ended) => {
                let ended = match ended {
                    Ended::Ok(Banked::Answer(answer)) => {
                        if let bank::Answer::Balances(balances) = &answer {
                            seen.get_or_insert_with(|| balances.clone());
                            if last.as_ref().is_none_or(|(time, _)| *time <= asked) {
                                last = Some((asked, balances.clone()));
                            }
                        }
                        Ended::Ok(answer)
                    }
                    Ended::Ok(Banked::Done | Banked::Lines(_)) | Ended::Fail => Ended::Fail,
                    Ended::Unknown => Ended::Unknown,
                };
                history.push(Record { client, asked, heard, op, ended });
            }
        }
    }
    let Some(initial) = opened.or(seen) else {
        return Err("nobody has read the bank's balances".into());
    };
    if let Some(transfer) = history.iter().find_map(|record| match record.op {
        bank::Op::Move(transfer) => Some(transfer)
            .filter(|transfer| transfer.from.max(transfer.to) as usize >= initial.len()),
        bank::Op::Audit => None,
    }) {
        return Err(format!("malformed history: {} moves money of no account", transfer.id));
    }
    match journal.zip(last) {
        Some((journal, (_, balances))) => {
            bank::check(&initial, &history, &bank::Books { balances, journal })
        }
        None => bank::check_audits(&initial, &history),
    }
}

/// The bank's history for a file, with the books at its end.
pub fn show_bank(
    initial: &[i64],
    history: &[Record<bank::Op, bank::Answer>],
    books: &bank::Books,
) -> Vec<Operation> {
    let end = end_of(history);
    let at = |time, op, answer| Record {
        client: u32::MAX,
        asked: time,
        heard: time,
        op,
        ended: Ended::Ok(answer),
    };
    let mut records = vec![at(0, Banking::Open(initial.to_vec()), Banked::Done)];
    records.extend(history.iter().map(|record| {
        let Record { client, asked, heard, op, ended } = record.clone();
        Record { client, asked, heard, op: Banking::Op(op), ended: ended.map(Banked::Answer) }
    }));
    let answer = bank::Answer::Balances(books.balances.clone());
    records.push(at(end + 1, Banking::Op(bank::Op::Audit), Banked::Answer(answer)));
    records.push(at(end + 2, Banking::Journal, Banked::Lines(books.journal.clone())));
    shown(&records)
}

/// The counters' history for a file, with what each copy shows at its end, by any number.
pub fn show_counters(
    history: &[Record<convergence::Increment, ()>],
    copies: &BTreeMap<u32, BTreeMap<u64, i64>>,
) -> Vec<Operation> {
    let mut records: Vec<Record<Counting, BTreeMap<u64, i64>>> = Vec::new();
    for record in history {
        let Record { client, asked, heard, op, ended } = record.clone();
        let ended = ended.map(|()| BTreeMap::new());
        records.push(Record { client, asked, heard, op: Counting::Add(op), ended });
    }
    let read = |copy: &BTreeMap<u64, i64>| (Counting::ReadAll, copy.clone());
    records.extend(read_at_last(end_of(history), copies, read));
    shown(&records)
}

/// The history of replaced rows for a file, with what each copy shows at its end, by any number.
pub fn show_cells(
    history: &[Record<cells::Op, cells::Answer>],
    copies: &BTreeMap<u32, BTreeMap<u64, cells::Row>>,
) -> Vec<Operation> {
    let mut records: Vec<Record<Replacing, Replaced>> = Vec::new();
    for record in history {
        let Record { client, asked, heard, op, ended } = record.clone();
        let ended = ended.map(Replaced::Answer);
        records.push(Record { client, asked, heard, op: Replacing::Op(op), ended });
    }
    let read =
        |copy: &BTreeMap<u64, cells::Row>| (Replacing::ReadAll, Replaced::Rows(copy.clone()));
    records.extend(read_at_last(end_of(history), copies, read));
    shown(&records)
}

/// Looks at indexes for a file.
pub fn show_looks(history: &[Record<index::Look, index::Seen<i64, i64>>]) -> Vec<Operation> {
    let rows = |rows: &[(i64, i64)]| {
        rows.iter().map(|(key, value)| (Value::Int(*key), Value::Int(*value))).collect()
    };
    let both = |both: &index::Compared<i64, i64>| index::Compared {
        table: rows(&both.table),
        index: rows(&both.index),
    };
    let look = |record: &Record<index::Look, index::Seen<i64, i64>>| {
        let Record { client, asked, heard, op, ended } = record.clone();
        let ended = ended.map(|seen| seen.iter().map(both).collect());
        Record { client, asked, heard, op, ended }
    };
    let records: Vec<Record<index::Look, index::Seen<Value, Value>>> =
        history.iter().map(look).collect();
    shown(&records)
}

/// Each copy as it was read after everything had ended.
fn read_at_last<C, O, A>(
    end: u64,
    copies: &BTreeMap<u32, C>,
    read: impl Fn(&C) -> (O, A),
) -> impl Iterator<Item = Record<O, A>> {
    copies.iter().map(move |(number, copy)| {
        let (op, answer) = read(copy);
        let (asked, heard) = (end + 1, end + 2);
        Record { client: COPIES_BEGIN + number, asked, heard, op, ended: Ended::Ok(answer) }
    })
}

fn judge_skew(records: &[Record<Skewing, Skewed>]) -> Result<(), String> {
    let mut history = Vec::new();
    let mut last = None;
    for record in records {
        let Record { client, asked, heard, op, ended } = record.clone();
        match (op, ended) {
            (Skewing::Rows, Ended::Ok(Skewed::Rows(rows))) => last = Some(rows),
            (Skewing::Rows, _) => {}
            (Skewing::Insert(op), ended) => {
                let ended = match ended {
                    Ended::Ok(Skewed::Inserted(inserted)) => Ended::Ok(inserted),
                    Ended::Ok(Skewed::Rows(_)) | Ended::Fail => Ended::Fail,
                    Ended::Unknown => Ended::Unknown,
                };
                history.push(Record { client, asked, heard, op, ended });
            }
        }
    }
    skew::check(&history, last.as_ref())
}

fn judge_counters(records: &[Record<Counting, BTreeMap<u64, i64>>]) -> Result<(), String> {
    let mut history = Vec::new();
    let mut copies: BTreeMap<u32, BTreeMap<u64, i64>> = BTreeMap::new();
    for record in records {
        let Record { client, asked, heard, op, ended } = record.clone();
        match (op, ended) {
            (Counting::ReadAll, Ended::Ok(copy)) => {
                copies.insert(client, copy);
            }
            (Counting::ReadAll, Ended::Fail | Ended::Unknown) => {}
            (Counting::Add(op), ended) => {
                history.push(Record { client, asked, heard, op, ended: ended.map(drop) });
            }
        }
    }
    convergence::check_copies(&copies)?;
    copies.values().next().map_or(Ok(()), |copy| convergence::check_counters(&history, copy))
}

fn judge_cells(records: &[Record<Replacing, Replaced>], level: Level) -> Result<(), String> {
    let mut history = Vec::new();
    let mut copies: BTreeMap<u32, BTreeMap<u64, cells::Row>> = BTreeMap::new();
    for record in records {
        let Record { client, asked, heard, op, ended } = record.clone();
        match (op, ended) {
            (Replacing::ReadAll, Ended::Ok(Replaced::Rows(copy))) => {
                copies.insert(client, copy);
            }
            (Replacing::ReadAll, _) => {}
            (Replacing::Op(op), ended) => {
                let ended = match ended {
                    Ended::Ok(Replaced::Answer(answer)) => Ended::Ok(answer),
                    Ended::Ok(Replaced::Rows(_)) | Ended::Fail => Ended::Fail,
                    Ended::Unknown => Ended::Unknown,
                };
                history.push(Record { client, asked, heard, op, ended });
            }
        }
    }
    convergence::check_copies(&copies)?;
    let real_time = match level {
        Level::Serializable | Level::Session => RealTime::Waived,
        Level::KeyRealTime | Level::Strict => RealTime::Demanded,
    };
    copies.values().next().map_or(Ok(()), |copy| cells::check(&history, copy, real_time))
}

fn judge_copies(records: &[Record<Reading, Value>]) -> Result<(), String> {
    let mut copies: BTreeMap<u32, &Value> = BTreeMap::new();
    for record in records {
        if let Ended::Ok(copy) = &record.ended {
            copies.insert(record.client, copy);
        }
    }
    if copies.len() == 1 {
        return Err("one copy alone was read, which nothing can differ from".to_string());
    }
    convergence::check_copies(&copies)
}
