//! Runs `tests/scripts/*.txt` against every engine: all must give the trace that is in the file.
//! `UPDATE_GOLDENFILES=1` rewrites it (from the in-memory engine; the others must still agree).
//!
//! A file is blocks separated by blank lines: comments (`#`) and commands, `---`, the trace. Keys and values are
//! words; `\xNN` is a byte; in keys, `copy(region,table)` is the prefix of a copy, and `min`, `max` are the ends of
//! the keyspace.

use bytes::Bytes;
use clock::{ClockTimestamp, Timestamp};
use std::fmt::Write;
use std::path::Path;

use storage::mvcc::{self, Intent, Sequence, TxnId, Version};
use storage::{Direction, Key, Span, StorageError, WriteBatch};

use crate::engines::{Host, MemoryHost};

#[test]
fn scripts_on_the_memory_engine() {
    run_all(|| Box::new(MemoryHost::default()), std::env::var_os("UPDATE_GOLDENFILES").is_some());
}

#[cfg(feature = "rocksdb")]
#[test]
fn scripts_on_the_rocks_engine() {
    run_all(|| Box::new(crate::engines::RocksHost::new()), false);
}

fn run_all(host: impl Fn() -> Box<dyn Host>, update: bool) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut count = 0;
    for entry in std::fs::read_dir(&dir).expect("scripts are there") {
        let path = entry.expect("listed").path();
        let text = std::fs::read_to_string(&path).expect("a text");
        let trace = run(&path.to_string_lossy(), &text, &mut *host());
        if update {
            std::fs::write(&path, &trace).expect("writes");
        } else {
            assert_eq!(trace, text, "{} (UPDATE_GOLDENFILES=1 rewrites it)", path.display());
        }
        count += 1;
    }
    assert!(count >= 6, "{count} scripts");
}

/// The script with the trace that the host gives.
fn run(path: &str, text: &str, host: &mut dyn Host) -> String {
    let mut blocks = Vec::new();
    for block in text.trim_end().split("\n\n") {
        let commands = block.split("\n---").next().expect("split yields one");
        let mut out = commands.to_owned();
        let mut trace = String::new();
        for line in commands.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let Err(error) = command(host, &words, &mut trace) {
                let kind = format!("{error:?}");
                let kind = kind.split('(').next().unwrap_or_default();
                writeln!(trace, "error {kind}").expect("a string takes it");
            }
        }
        if commands.lines().any(|line| !line.starts_with('#')) {
            write!(out, "\n---\n{}", trace.trim_end()).expect("a string takes it");
        }
        assert!(!out.contains("unknown command"), "{path}: {out}");
        blocks.push(out.trim_end().to_owned());
    }
    blocks.join("\n\n") + "\n"
}

fn command(host: &mut dyn Host, words: &[&str], out: &mut String) -> Result<(), StorageError> {
    let mut batch = WriteBatch::new();
    match words {
        ["put", key, ts, value] => put(&mut batch, key, ts, ts, Some(bytes(value))),
        ["put", key, ts, value, "written", at] => put(&mut batch, key, ts, at, Some(bytes(value))),
        ["del", key, ts] => put(&mut batch, key, ts, ts, None),
        ["intent", key, txn, ts, values @ ..] => intent(&mut batch, key, txn, ts, values),
        ["resolve", key] => mvcc::remove_intent(&mut batch, &self::key(key)),
        ["remove", start, end] => {
            mvcc::remove_span(host.engine(), &mut batch, &span(start, end))?;
        }
        ["gc", start, end, threshold, limit] => {
            let limit = limit.parse().expect("a limit");
            let pass = mvcc::gc(host.engine(), &span(start, end), time(threshold), limit)?;
            let resume = pass.resume.map_or("done".into(), |key| format!("resume {key}"));
            writeln!(out, "{} removed, {resume}", pass.batch.ops.len()).expect("a string");
            batch = pass.batch;
        }
        ["gc_changes", start, end, upto] => {
            let pass = mvcc::gc_changes(host.engine(), &span(start, end), time(upto), 100)?;
            writeln!(out, "{} removed", pass.batch.ops.len()).expect("a string");
            batch = pass.batch;
        }
        ["flush"] => host.engine().flush()?,
        ["crash"] => host.crash(),
        _ => return read(host, words, out),
    }
    if !batch.is_empty() {
        host.engine().write(&WriteBatch::decode(&batch.encode())?)?;
    }
    Ok(())
}

fn read(host: &dyn Host, words: &[&str], out: &mut String) -> Result<(), StorageError> {
    let snapshot = host.engine().snapshot();
    let reader = &*snapshot;
    let mut say = |text: String| writeln!(out, "{text}").expect("a string takes it");
    match words {
        ["get", key, at] => {
            say(show(mvcc::get(reader, &self::key(key), time(at))?.as_ref()));
        }
        ["newest_in", key, after, upto] => {
            let found = mvcc::newest_in(reader, &self::key(key), time(after), time(upto))?;
            say(show(found.as_ref()));
        }
        ["scan", start, end, at, limit, rest @ ..] => {
            let direction =
                if rest == ["reverse"] { Direction::Reverse } else { Direction::Forward };
            for item in mvcc::scan(reader, &span(start, end), time(at), time(limit), direction) {
                let item = item?;
                let mut line = format!("{} {}", item.key, show(item.visible.as_ref()));
                if let Some(newer) = &item.newer {
                    line += &format!("  newer {}", show(Some(newer)));
                }
                if let Some(intent) = &item.intent {
                    line += &format!("  intent {}", show_intent(intent));
                }
                say(line);
            }
        }
        ["intents", start, end] => {
            for item in mvcc::intents(reader, &span(start, end)) {
                let (key, intent) = item?;
                say(format!("{key} {}", show_intent(&intent)));
            }
        }
        ["changed_in", start, end, from, to] => {
            let found = mvcc::changed_in(reader, &span(start, end), time(from), time(to))?;
            say(found.map_or("no".into(), |key| format!("yes, {key}")));
        }
        ["changes", copy, start, end, from, to] => {
            let copy = key(copy);
            for item in mvcc::changes(reader, &copy, &span(start, end), time(from), time(to)) {
                let (ts, key) = item?;
                say(format!("{} {key}", ts.raw()));
            }
        }
        ["count", start, end] => {
            for raw in mvcc::raw_spans(&span(start, end)) {
                let items = reader.scan(raw.space, &raw.start, &raw.end, Direction::Forward);
                let mut count = 0;
                for item in items {
                    count += usize::from(raw.holds(&item?.0)?);
                }
                say(format!("{:?} {count}", raw.space));
            }
        }
        _ => say(format!("unknown command {words:?}")),
    }
    Ok(())
}

fn put(batch: &mut WriteBatch, key: &str, ts: &str, written_at: &str, value: Option<Bytes>) {
    let written_at = ClockTimestamp::from_raw(time(written_at).raw());
    mvcc::put_version(batch, &self::key(key), time(ts), &Version { written_at, by: None, value });
}

fn intent(batch: &mut WriteBatch, key: &str, txn: &str, ts: &str, values: &[&str]) {
    let history = values
        .iter()
        .zip(1..)
        .map(|(value, number)| (Sequence::new(number), (*value != "-").then(|| bytes(value))));
    let intent = Intent {
        txn: TxnId::new(u128::from(txn.parse::<u32>().expect("a number")) << 96),
        anchor: self::key(key),
        ts: time(ts),
        priority: 1,
        started: time(ts),
        history: history.collect(),
    };
    mvcc::put_intent(batch, &self::key(key), &intent);
}

fn show(found: Option<&(Timestamp, Version)>) -> String {
    let Some((ts, version)) = found else { return "nothing".into() };
    let value = match &version.value {
        Some(value) => format!("\"{}\"", value.escape_ascii()),
        None => "deleted".into(),
    };
    let written_at = version.written_at.raw();
    let written =
        if written_at == ts.raw() { String::new() } else { format!(" written {written_at}") };
    format!("{value} @{}{written}", ts.raw())
}

fn show_intent(intent: &Intent) -> String {
    let values: Vec<String> = intent
        .history
        .iter()
        .map(|(sequence, value)| {
            let value = value.as_ref().map_or("-".into(), |value| value.escape_ascii().to_string());
            format!("{}:{value}", sequence.get())
        })
        .collect();
    format!("{} @{} [{}]", intent.txn, intent.ts.raw(), values.join(" "))
}

fn time(word: &str) -> Timestamp {
    match word {
        "max" => Timestamp::MAX,
        _ => Timestamp::from_raw(word.parse().expect("a raw timestamp")),
    }
}

fn span(start: &str, end: &str) -> Span {
    Span::new(key(start), key(end))
}

fn key(word: &str) -> Key {
    match word {
        "min" => return Key::MIN,
        "max" => return Key::MAX,
        _ => {}
    }
    let Some(rest) = word.strip_prefix("copy(") else { return Key::new(bytes(word)) };
    let (numbers, tail) = rest.split_once(')').expect("copy(region,table)");
    let (region, table) = numbers.split_once(',').expect("copy(region,table)");
    let prefix = Key::copy(region.parse().expect("a region"), table.parse().expect("a table"));
    Key::new([prefix.as_bytes(), &bytes(tail)].concat())
}

fn bytes(word: &str) -> Bytes {
    let mut parts = word.split("\\x");
    let mut out = parts.next().expect("split yields one").as_bytes().to_vec();
    for part in parts {
        out.push(u8::from_str_radix(&part[..2], 16).expect("two hex digits"));
        out.extend_from_slice(&part.as_bytes()[2..]);
    }
    out.into()
}
