//! kill -9 loses nothing acknowledged: a child process appends and syncs on a real disk and says which batch is
//! durable; it is killed in the middle of it, several times over the same directory.

use bytes::Bytes;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use storage::log::{
    DiskDir, Entry, Log, LogBatch, LogGroup, LogIndex, LogOp, LogOptions, LogReader, SegmentedLog,
    Term,
};

const DIR_VARIABLE: &str = "STORAGE_TEST_LOG_KILL_DIR";
const GROUP: LogGroup = LogGroup(1);
const KEPT: u64 = 200;

fn open(dir: &Path) -> SegmentedLog {
    let options = LogOptions { segment_bytes: 64 << 10, ..LogOptions::default() };
    let dir = DiskDir::open(dir).expect("opens");
    SegmentedLog::open(Arc::new(dir), options).expect("opens")
}

fn data(index: u64) -> Bytes {
    Bytes::from(index.to_be_bytes().repeat(1 + index as usize % 50))
}

fn last_index(log: &SegmentedLog) -> u64 {
    log.groups().first().map_or(0, |(_, state)| state.last.0.get())
}

/// The child. Does nothing when it is run as a test among others.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR_VARIABLE) else { return };
    let log = open(Path::new(&dir));
    for index in last_index(&log) + 1.. {
        let entry = Entry { term: Term::new(1), index: LogIndex::new(index), data: data(index) };
        let mut ops = vec![LogOp::Append { group: GROUP, entries: vec![entry] }];
        if index > KEPT {
            let index = LogIndex::new(index - KEPT);
            ops.push(LogOp::Truncate { group: GROUP, index, term: Term::new(1) });
        }
        log.append(LogBatch { ops }).expect("appends");
        log.sync().expect("syncs");
        println!("durable {index}");
    }
}

#[test]
fn a_killed_process_loses_nothing_acknowledged() {
    let temporary = tempfile::tempdir().expect("a directory");
    let mut durable = 0;
    for life in 1..=4 {
        let mut process = Command::new(std::env::current_exe().expect("this test"))
            .args(["log_kill::child", "--exact", "--nocapture", "--test-threads=1"])
            .env(DIR_VARIABLE, temporary.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let said = BufReader::new(process.stdout.take().expect("piped")).lines();
        let said = said.map_while(Result::ok);
        let mut said = said.filter_map(|line| line.rsplit("durable ").next()?.parse::<u64>().ok());
        durable = said.nth(150 * life).expect("the child goes on until it is killed");
        process.kill().expect("kills");
        // What it still said before it died counts as well.
        durable = said.last().unwrap_or(durable);
        process.wait().expect("ends");

        let log = open(temporary.path());
        let last = last_index(&log);
        assert!(last >= durable, "life {life}: {durable} was acknowledged, {last} is there");
        let first = LogIndex::new(last.saturating_sub(KEPT) + 1);
        let entries = log.entries(GROUP, first, LogIndex::new(last), usize::MAX).expect("readable");
        assert_eq!(entries.len() as u64, last + 1 - first.get());
        assert!(entries.iter().all(|entry| entry.data == data(entry.index.get())));
    }
    assert!(durable > 1000, "{durable} batches over all lives");
}
