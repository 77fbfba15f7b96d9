//! The log stays small, carries idle groups along, and can be read while it is being written.

use bytes::Bytes;
use std::sync::Arc;

use storage::StorageError;
use storage::log::sim_file::Crash;
use storage::log::{
    DiskDir, Entry, Log, LogBatch, LogGroup, LogIndex, LogOp, LogOptions, LogReader, LogSequence,
    SegmentedLog, SimDir, Term,
};

const OPTIONS: LogOptions = LogOptions {
    segment_bytes: 16 << 10,
    cache_bytes: 1 << 10,
    rewrite_bytes_per_append: 512,
    pending_bytes_max: 1 << 20,
    planted: None,
};

fn append(group: u64, index: u64, data: impl Into<Bytes>) -> LogOp {
    let entry = Entry { term: Term::new(1), index: LogIndex::new(index), data: data.into() };
    LogOp::Append { group: LogGroup(group), entries: vec![entry] }
}

fn truncate(group: u64, index: u64) -> LogOp {
    LogOp::Truncate { group: LogGroup(group), index: LogIndex::new(index), term: Term::new(1) }
}

fn batch(ops: impl Into<Vec<LogOp>>) -> LogBatch {
    LogBatch { ops: ops.into() }
}

#[test]
fn space_is_bounded_while_idle_groups_are_carried_along() {
    let dir = SimDir::new();
    let log = SegmentedLog::open(Arc::new(dir.clone()), OPTIONS).expect("opens");
    for group in 100..120 {
        let state = LogOp::State { group: LogGroup(group), state: Bytes::from_static(b"vote") };
        log.append(batch([append(group, 1, vec![group as u8; 100]), state])).expect("appends");
    }
    for index in 1..5000 {
        let mut ops = vec![append(1, index, vec![7; 100])];
        if index > 10 {
            ops.push(truncate(1, index - 10));
        }
        log.append(batch(ops)).expect("appends");
        if index % 5 == 0 {
            log.sync().expect("syncs");
        }
    }
    assert!(log.bytes() <= 10 * OPTIONS.segment_bytes, "{} bytes", log.bytes());
    let files = storage::log::LogDir::list(&dir).expect("lists").len();
    assert!(files <= 10, "{files} files");
    log.sync().expect("syncs");
    for log in [log, SegmentedLog::open(Arc::new(dir.crash(Crash::Lose)), OPTIONS).expect("opens")]
    {
        assert_eq!(log.groups().len(), 21);
        for group in 100..120 {
            let entries = log
                .entries(LogGroup(group), LogIndex::new(1), LogIndex::new(9), 1000)
                .expect("reads");
            assert_eq!(entries.len(), 1);
            assert_eq!(entries[0].data, vec![group as u8; 100]);
        }
        let state = log.groups().into_iter().find(|(group, _)| *group == LogGroup(100));
        assert_eq!(state.and_then(|(_, state)| state.state), Some(Bytes::from_static(b"vote")));
    }
}

#[test]
fn many_restarts_do_not_eat_the_disk() {
    let mut dir = SimDir::new();
    let options = LogOptions { rewrite_bytes_per_append: 8 << 10, ..OPTIONS };
    for life in 1..200 {
        let log = SegmentedLog::open(Arc::new(dir.clone()), options).expect("opens");
        if life % 2 == 0 {
            log.append(batch([append(1, life / 2, "x")])).expect("appends");
            log.sync().expect("syncs");
        }
        assert!(log.bytes() <= 10 * OPTIONS.segment_bytes, "life {life}: {} bytes", log.bytes());
        dir = dir.crash(Crash::Lose);
    }
}

#[test]
fn a_prepared_segment_is_used() {
    let dir = SimDir::new();
    let log = SegmentedLog::open(Arc::new(dir.clone()), OPTIONS).expect("opens");
    log.prepare().expect("nothing to do");
    assert_eq!(log.bytes(), OPTIONS.segment_bytes, "the current segment is empty");
    log.append(batch([append(1, 1, vec![1; 10_000])])).expect("appends");
    log.prepare().expect("makes a file");
    log.prepare().expect("once");
    assert_eq!(log.bytes(), 2 * OPTIONS.segment_bytes);
    dir.set_capacity(Some(2 * OPTIONS.segment_bytes));
    log.append(batch([append(1, 2, vec![2; 10_000])])).expect("there is a file for it");
    log.append(batch([append(1, 3, vec![3; 10_000])])).expect_err("and none for the next");
}

#[test]
fn a_batch_larger_than_a_segment_fits() {
    let dir = SimDir::new();
    let log = SegmentedLog::open(Arc::new(dir.clone()), OPTIONS).expect("opens");
    let data = vec![3; 100_000];
    log.append(batch([append(1, 1, "small")])).expect("appends");
    log.append(batch([append(1, 2, data.clone())])).expect("appends");
    log.append(batch([append(1, 3, "small")])).expect("appends");
    log.sync().expect("syncs");
    let log = SegmentedLog::open(Arc::new(dir.crash(Crash::Lose)), OPTIONS).expect("opens");
    let read = |bytes_max| {
        log.entries(LogGroup(1), LogIndex::new(2), LogIndex::new(3), bytes_max).expect("reads")
    };
    assert_eq!(read(10).len(), 1, "at least one");
    assert_eq!(read(usize::MAX).len(), 2);
    assert_eq!(read(usize::MAX)[0].data, data);
    let none = log.entries(LogGroup(1), LogIndex::new(9), LogIndex::new(9), 10).expect("reads");
    assert!(none.is_empty());
}

#[test]
fn a_rotten_entry_is_corrupt_and_not_absent() {
    let dir = SimDir::new();
    let log = SegmentedLog::open(Arc::new(dir.clone()), OPTIONS).expect("opens");
    for index in 1..50 {
        log.append(batch([append(1, index, vec![index as u8; 100])])).expect("appends");
    }
    log.sync().expect("syncs");
    let name = &storage::log::LogDir::list(&dir).expect("lists")[0];
    assert!(dir.flip_bit(name, 4096 + 100, 0));
    let read = log.entries(LogGroup(1), LogIndex::new(1), LogIndex::new(1), 1000);
    assert!(matches!(read, Err(StorageError::Corrupt(_))), "{read:?}");
    assert_eq!(
        log.entries(LogGroup(1), LogIndex::new(2), LogIndex::new(2), 9).expect("reads").len(),
        1
    );
}

#[test]
#[should_panic(expected = "gap")]
fn an_append_with_a_gap_is_refused() {
    let log = SegmentedLog::open(Arc::new(SimDir::new()), OPTIONS).expect("opens");
    let _ = log.append(batch([append(1, 2, "x")]));
}

#[test]
fn threads_append_sync_and_read_on_a_real_disk_and_nothing_acknowledged_is_lost() {
    const PER_THREAD: u64 = 300;
    let temporary = tempfile::tempdir().expect("a directory");
    let options = LogOptions { segment_bytes: 64 << 10, ..OPTIONS };
    let open = || {
        let dir = DiskDir::open(temporary.path().join("log")).expect("opens");
        SegmentedLog::open(Arc::new(dir), options).expect("opens")
    };
    let log = open();
    let again = DiskDir::open(temporary.path().join("log"));
    assert!(matches!(again, Err(StorageError::Foreign(_))), "the directory is locked");
    std::thread::scope(|scope| {
        for group in 1..=3u64 {
            let log = &log;
            scope.spawn(move || {
                for index in 1..=PER_THREAD {
                    let data = vec![group as u8; 50 + index as usize % 400];
                    let LogSequence(number) =
                        log.append(batch([append(group, index, data)])).expect("appends");
                    let LogSequence(synced) = log.sync().expect("syncs");
                    assert!(synced >= number);
                    if index > 50 {
                        log.append(batch([truncate(group, index - 50)])).expect("appends");
                    }
                    let first = LogIndex::new(index.saturating_sub(40).max(1));
                    let last = LogIndex::new(index);
                    let read =
                        log.entries(LogGroup(group), first, last, usize::MAX).expect("reads");
                    assert_eq!(read.last().map(|entry| entry.index), Some(last));
                    assert!(read.iter().all(|entry| entry.data.iter().all(|b| *b == group as u8)));
                }
            });
        }
    });
    drop(log);
    let log = open();
    for (_, state) in log.groups() {
        assert_eq!(state.last.0, LogIndex::new(PER_THREAD));
    }
    assert_eq!(log.groups().len(), 3);
}
