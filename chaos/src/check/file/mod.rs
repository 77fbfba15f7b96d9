//! Value: histories as files: one event when a client asks, one when it hears, as Jepsen writes them, in EDN or JSON.
//!
//! ```text
//!   {:index 0 :type :invoke :process 3 :time 120 :f :txn :value [[:append 1 7] [:r 1 nil]]}
//!   {:index 1 :type :ok     :process 3 :time 250 :f :txn :value [[:append 1 7] [:r 1 [5 7]]]}
//! ```
//!
//! Types are `invoke`, `ok`, `fail` (it had and will have no effect) and `info` (nobody knows). A client asks one thing at a time, and
//! every invocation has its end, so that a file that was cut off is noticed; files of ours also say first how many events they have
//! (EDN, in a comment) or are one array (JSON). An end repeats what was asked: an `ok` fills in what was left open (nil), a `fail` or an
//! `info` may do so, or say nothing (nil). What contradicts itself is *malformed at line N*, never good.
//!
//! An `ok` may say at which timestamp it was committed, after its value: `:ts [microseconds logical]`, as the hybrid logical clock has it
//! ([`Timestamp`]). The model `mvcc` needs it, the others pass over it. Which version was read, the value says: none is written twice.

mod books;
mod instants;
mod models;
mod shown;
mod singles;
mod txns;
mod value;

use clock::Timestamp;
use std::collections::BTreeMap;
use std::fmt;

use crate::history::{Ended, Record};

pub(crate) use books::{Skewed, Skewing};
pub use models::{Model, show_bank, show_cells, show_counters, show_looks};
pub use shown::{Shown, shown};
pub use value::{Format, Malformed, Value, show};

use value::Reader;

/// A history of any model: what was asked and what was answered, as values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// The line of its invocation; zero if it was not read from a file.
    pub line: usize,
    /// The timestamp at which it was committed; `None`: it was not, or nobody says.
    pub ts: Option<Timestamp>,
    /// Who, when, and how it ended; `op` is the function's name and argument.
    pub record: Record<(String, Value), Value>,
}

/// What comes of judging a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing is wrong with so many operations.
    Good(usize),
    /// An anomaly.
    Bad(String),
    /// Nothing is wrong, and nothing is shown: of so many operations none changed anything, nor saw that anybody did.
    Nothing(usize),
    /// The history itself makes no sense.
    Malformed(Malformed),
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        matches!(self, Verdict::Good(_))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Good(count) => write!(f, "good: {count} operations, no anomaly"),
            Verdict::Bad(what) => write!(f, "{what}"),
            Verdict::Nothing(count) => {
                write!(
                    f,
                    "nothing to judge: none of {count} operations shows that anything happened"
                )
            }
            Verdict::Malformed(malformed) => write!(f, "{malformed}"),
        }
    }
}

/// What a file of ours says first in EDN: how many events follow.
const COUNT_COMMENT: &str = "; events: ";

/// Writes a history.
pub fn write(operations: &[Operation], format: Format) -> String {
    let mut events: Vec<(u64, u64, Value)> = Vec::new();
    let mut order = 0;
    let mut push = |time: u64, event: Value| {
        order += 1;
        events.push((time, order, event));
    };
    let clients = operations
        .iter()
        .map(|operation| operation.record.client)
        .filter(|client| *client < 1 << 20);
    let step = clients.max().unwrap_or(0) + 1;
    // The process that stands for each client now, and when it heard last.
    let mut process: BTreeMap<u32, (u32, Option<u64>)> = BTreeMap::new();
    let end = operations.iter().map(|operation| ended_at(&operation.record)).max().unwrap_or(0);
    let mut sorted: Vec<&Operation> = operations.iter().collect();
    sorted.sort_by_key(|operation| operation.record.asked);
    for Operation { record, ts, .. } in sorted {
        let (number, heard) =
            process.entry(record.client).or_insert((record.client.min(step * 1000), None));
        if heard.is_some_and(|heard| heard >= record.asked) {
            // At one moment an answer is written after a question, which one process cannot do.
            *number += step;
        }
        *heard = Some(ended_at(record));
        let event = |kind: &str, time: u64, value: &Value| {
            let field = |name: &str, value: Value| (Value::word(name), value);
            Value::Map(vec![
                field("type", Value::word(kind)),
                field("process", Value::Int(i64::from(*number))),
                field("time", Value::number(time)),
                field("f", Value::word(&record.op.0)),
                field("value", value.clone()),
            ])
        };
        push(record.asked, event("invoke", record.asked, &record.op.1));
        match &record.ended {
            Ended::Ok(value) => {
                let mut event = event("ok", record.heard, value);
                if let (Value::Map(pairs), Some(ts)) = (&mut event, ts) {
                    pairs.push((Value::word("ts"), show_ts(*ts)));
                }
                push(record.heard, event);
            }
            Ended::Fail => push(record.heard, event("fail", record.heard, &record.op.1)),
            Ended::Unknown => {
                // It may take effect at any later time, and its process asks nothing more.
                push(end, event("info", end, &record.op.1));
                *number += step;
            }
        }
    }
    // Of one moment, answers come after what was asked then: nothing is ordered that was not.
    events.sort_by_key(|(time, order, event)| {
        (*time, event.field("type") != Some(&Value::word("invoke")), *order)
    });
    let lines: Vec<String> = events
        .into_iter()
        .enumerate()
        .map(|(index, (_, _, event))| {
            let Value::Map(mut pairs) = event else { unreachable!("events are maps") };
            pairs.insert(0, (Value::word("index"), Value::Int(index as i64)));
            show(&Value::Map(pairs), format)
        })
        .collect();
    match format {
        Format::Edn => format!("{COUNT_COMMENT}{}\n{}\n", lines.len(), lines.join("\n")),
        Format::Json => format!("[\n{}\n]\n", lines.join(",\n")),
    }
}

fn ended_at(record: &Record<(String, Value), Value>) -> u64 {
    if record.heard == u64::MAX { record.asked } else { record.heard }
}

/// Reads a history.
///
/// # Errors
/// The first line that makes no sense.
pub fn read(text: &str) -> Result<Vec<Operation>, Malformed> {
    let format = Format::of(text);
    let events = read_events(text, format)?;
    let last_line = text.lines().count().max(1);
    let promised = text.strip_prefix(COUNT_COMMENT).and_then(|rest| rest.lines().next());
    if let Some(promised) = promised
        && promised.trim().parse() != Ok(events.len())
    {
        let what = format!("{} events promised, {} found", promised.trim(), events.len());
        return Err(Malformed { line: last_line, what });
    }
    let mut open: BTreeMap<i64, usize> = BTreeMap::new();
    let mut operations: Vec<Operation> = Vec::new();
    let mut now = 0;
    for (index, (line, event)) in events.into_iter().enumerate() {
        let wrong = |what: String| Malformed { line, what };
        let Some(event) = Event::of(&event, index).map_err(wrong)? else { continue };
        if event.time < now {
            return Err(wrong(format!("time goes back from {now} to {}", event.time)));
        }
        now = event.time;
        let Event { kind, process, f, value, time, ts } = event;
        if ts.is_some() && kind != "ok" {
            return Err(wrong(format!("{kind} with a commit timestamp")));
        }
        if kind == "invoke" {
            if let Some(former) = open.insert(process, operations.len()) {
                let line = operations[former].line;
                return Err(wrong(format!(
                    "process {process} asks while it waits for what it asked in line {line}"
                )));
            }
            let client =
                u32::try_from(process).map_err(|_| wrong(format!("{process} is not a process")))?;
            let record = Record {
                client,
                asked: time,
                heard: u64::MAX,
                op: (f, value),
                ended: Ended::Unknown,
            };
            operations.push(Operation { line, ts: None, record });
            continue;
        }
        let Some(place) = open.remove(&process) else {
            return Err(wrong(format!("process {process} hears an answer and has asked nothing")));
        };
        operations[place].ts = ts;
        let record = &mut operations[place].record;
        if record.op.0 != f {
            return Err(wrong(format!("asked for {} and answered to {f}", record.op.0)));
        }
        let says_nothing = kind != "ok" && value == Value::Nil;
        if !says_nothing && !value.completes(&record.op.1) {
            let [asked, answered] = [&record.op.1, &value].map(|value| show(value, Format::Edn));
            return Err(wrong(format!("asked for {f} {asked} and answered with {answered}")));
        }
        (record.heard, record.ended) = match kind.as_str() {
            "ok" => (time, Ended::Ok(value)),
            "fail" => (time, Ended::Fail),
            "info" => (u64::MAX, Ended::Unknown),
            other => return Err(wrong(format!("unknown type of event {other}"))),
        };
    }
    if let Some(place) = open.values().min() {
        let line = operations[*place].line;
        let what = format!("the file ends before the answer to line {line}");
        return Err(Malformed { line: last_line, what });
    }
    if operations.is_empty() {
        return Err(Malformed { line: last_line, what: "no operation".to_string() });
    }
    Ok(operations)
}

fn read_events(text: &str, format: Format) -> Result<Vec<(usize, Value)>, Malformed> {
    let mut reader = Reader::new(text, format);
    let mut events = Vec::new();
    if reader.take('[')? {
        while !reader.take(']')? {
            if format == Format::Json && !events.is_empty() && !reader.take(',')? {
                return Err(reader.wrong("',' or ']' expected after an event"));
            }
            let line = reader.line();
            events.push((line, reader.value()?));
        }
        if !reader.is_at_end()? {
            return Err(reader.wrong("something follows the history's end"));
        }
        return Ok(events);
    }
    while !reader.is_at_end()? {
        let line = reader.line();
        events.push((line, reader.value()?));
    }
    Ok(events)
}

struct Event {
    kind: String,
    process: i64,
    f: String,
    value: Value,
    time: u64,
    ts: Option<Timestamp>,
}

impl Event {
    /// `None`: not a client's.
    fn of(event: &Value, index: usize) -> Result<Option<Event>, String> {
        if !matches!(event, Value::Map(_)) {
            return Err("an event is a map".to_string());
        }
        let word = |name: &str| match event.field(name) {
            Some(Value::Word(word)) => Ok(word.clone()),
            Some(_) => Err(format!("{name} is not a word")),
            None => Err(format!("an event without {name}")),
        };
        let process = match event.field("process") {
            Some(Value::Int(process)) => *process,
            // Jepsen's nemesis.
            Some(Value::Word(_)) => return Ok(None),
            Some(_) => return Err("process is not a number".to_string()),
            None => return Err("an event without process".to_string()),
        };
        if let Some(written) = event.field("index")
            && written.integer() != i64::try_from(index).ok()
        {
            return Err(format!(
                "event {index} says it is {written:?}: lines are missing or moved"
            ));
        }
        let time = match event.field("time") {
            None => index as u64,
            Some(Value::Int(time)) => u64::try_from(*time).map_err(|_| "time is negative")?,
            Some(_) => return Err("time is not a whole number".to_string()),
        };
        let ts = match event.field("ts") {
            None => None,
            Some(ts) => Some(parse_ts(ts).ok_or("ts is not [microseconds logical]")?),
        };
        let value = event.field("value").cloned().unwrap_or(Value::Nil);
        Ok(Some(Event { kind: word("type")?, process, f: word("f")?, value, time, ts }))
    }
}

fn show_ts(ts: Timestamp) -> Value {
    Value::List(vec![Value::number(ts.micros()), Value::number(u64::from(ts.logical()))])
}

fn parse_ts(value: &Value) -> Option<Timestamp> {
    let [micros, logical] = value.list()? else { return None };
    let micros = u64::try_from(micros.integer()?).ok().filter(|micros| *micros < 1 << 52)?;
    let logical = u16::try_from(logical.integer()?).ok().filter(|logical| *logical < 1 << 12)?;
    let ts = Timestamp::new(micros, logical);
    // Nothing is written at the first and the last: they stand for no bound.
    Some(ts).filter(|ts| *ts != Timestamp::MIN && *ts != Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    fn operation(client: u32, asked: u64, heard: u64, ended: Ended<Value>) -> Operation {
        let value = Value::List(vec![Value::Int(1), Value::Nil]);
        let heard = if ended == Ended::Unknown { u64::MAX } else { heard };
        Operation {
            line: 0,
            ts: (asked == 1).then(|| Timestamp::new(4, 7)),
            record: Record { client, asked, heard, op: ("read".into(), value), ended },
        }
    }

    fn sample() -> Vec<Operation> {
        vec![
            operation(0, 1, 5, Ended::Ok(Value::List(vec![Value::Int(1), Value::Int(9)]))),
            operation(1, 2, 0, Ended::Unknown),
            operation(0, 6, 7, Ended::Fail),
            operation(1, 8, 9, Ended::Ok(Value::List(vec![Value::Int(1), Value::Nil]))),
        ]
    }

    #[test]
    fn what_is_written_is_read_back_with_a_new_process_after_an_unknown_end() {
        for format in [Format::Edn, Format::Json] {
            let text = write(&sample(), format);
            assert_eq!(Format::of(&text), format);
            let read = read(&text).expect("reads");
            let mut expected = sample();
            expected[3].record.client = 3;
            for (read, expected) in read.iter().zip(&expected) {
                assert_eq!(read.record, expected.record, "{text}");
                assert_eq!(read.ts, expected.ts, "{text}");
            }
        }
    }

    #[test]
    fn a_file_that_was_cut_off_is_malformed_wherever_it_was() {
        for format in [Format::Edn, Format::Json] {
            let text = write(&sample(), format);
            for end in 0..text.trim_end().len() {
                assert!(read(&text[..end]).is_err(), "{format:?} {}", &text[..end]);
            }
        }
    }

    #[test]
    fn contradictions_are_told_with_their_line() {
        let told = |text: &str| read(text).map(|_| ()).map_err(|wrong| wrong.to_string());
        let ask = "{:type :invoke :process 0 :f :read :value nil :time 5}\n";
        let hear = "{:type :ok :process 0 :f :read :value nil :time 6}\n";
        assert_eq!(told(&format!("{ask}{hear}")), Ok(()));
        for (text, line) in [
            (format!("{ask}{ask}{hear}"), 2),
            (format!("{ask}{hear}{hear}"), 3),
            (format!("{ask}{hear}{ask}{}", hear.replace('6', "4")), 3),
            (format!("{ask}{}", hear.replace("read", "write")), 2),
            (format!("{ask}{}", hear.replace(":ok", ":maybe")), 2),
            (format!("{ask}[]"), 2),
            (format!("{ask}{}", hear.replace(":time", ":ts [5 4096] :time")), 2),
            (format!("{ask}{}", hear.replace(":time", ":ts 5 :time")), 2),
            (format!("{}{hear}", ask.replace(":time", ":ts [5 0] :time")), 1),
            (String::new(), 1),
        ] {
            let told = told(&text).expect_err(&text);
            assert!(told.starts_with(&format!("malformed at line {line}: ")), "{told}\n{text}");
        }
    }
    #[test]
    fn what_a_judge_finds_contradictory_is_told_with_its_line() {
        let text = "{:type :invoke :process 9 :f :open :value {0 50 1 50} :time 0}\n\
             {:type :ok :process 9 :f :open :value {0 50 1 50} :time 0}\n\
             {:type :invoke :process 0 :f :transfer :value {:id 7 :from 0 :to 2 :amount 5} :time 5}\n\
             {:type :ok :process 0 :f :transfer :value {:id 7 :from 0 :to 2 :amount 5} :time 6}\n";
        let verdict = Model::Bank.judge(text, Level::Strict).to_string();
        assert_eq!(verdict, "malformed at line 3: 7 moves money of no account");
    }
}
