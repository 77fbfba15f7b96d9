//! The engines under one roof: each can be crashed. And the same random life on all of them must look the same.

use bytes::Bytes;
use proptest::prelude::*;

use storage::{Direction, Engine, MemoryEngine, Op, Reader, Space, WriteBatch};

/// An engine that a test can crash: what was not flushed is lost.
pub(crate) trait Host {
    fn engine(&self) -> &dyn Engine;
    fn crash(&mut self);
}

#[derive(Default)]
pub(crate) struct MemoryHost(MemoryEngine);

impl Host for MemoryHost {
    fn engine(&self) -> &dyn Engine {
        &self.0
    }

    fn crash(&mut self) {
        self.0 = self.0.crash();
    }
}

/// RocksDB in a temporary directory. A crash is a copy of the files as they are, opened elsewhere: what a killed
/// process leaves.
#[cfg(feature = "rocksdb")]
pub(crate) struct RocksHost {
    engine: storage::RocksEngine,
    dir: tempfile::TempDir,
}

#[cfg(feature = "rocksdb")]
impl RocksHost {
    pub(crate) fn new() -> RocksHost {
        let dir = tempfile::tempdir().expect("a directory");
        RocksHost { engine: open(dir.path()), dir }
    }
}

#[cfg(feature = "rocksdb")]
const CLUSTER: u128 = 7;

#[cfg(feature = "rocksdb")]
fn open(dir: &std::path::Path) -> storage::RocksEngine {
    let options =
        storage::RocksOptions { cache_bytes: 1 << 20, memtable_bytes: 1 << 20, background_jobs: 1 };
    storage::RocksEngine::open(dir.join("state"), CLUSTER, options).expect("opens")
}

#[cfg(feature = "rocksdb")]
impl Host for RocksHost {
    fn engine(&self) -> &dyn Engine {
        &self.engine
    }

    fn crash(&mut self) {
        let after = tempfile::tempdir().expect("a directory");
        copy(&self.dir.path().join("state"), &after.path().join("state"));
        self.engine = open(after.path());
        self.dir = after;
    }
}

/// The directory as one moment left it, while RocksDB works in it: a version is an edit of the manifest, and only files that no version
/// names any more go away. A copy during which the manifest has not changed is of one version.
#[cfg(feature = "rocksdb")]
fn copy(from: &std::path::Path, to: &std::path::Path) {
    loop {
        let version = manifests(from);
        let _ = std::fs::remove_dir_all(to);
        copy_now(from, to);
        if manifests(from) == version {
            return;
        }
    }
}

#[cfg(feature = "rocksdb")]
fn copy_now(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("makes");
    for entry in std::fs::read_dir(from).expect("lists") {
        let entry = entry.expect("listed");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_now(&entry.path(), &target);
            continue;
        }
        match std::fs::copy(entry.path(), target) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("{}: {error}", entry.path().display()),
        }
    }
}

/// The manifests and how long they are.
#[cfg(feature = "rocksdb")]
fn manifests(dir: &std::path::Path) -> std::collections::BTreeMap<std::ffi::OsString, u64> {
    let entries = std::fs::read_dir(dir.join("db")).expect("lists");
    let entries = entries.map(|entry| entry.expect("listed"));
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("MANIFEST"))
        .filter_map(|entry| Some((entry.file_name(), entry.metadata().ok()?.len())))
        .collect()
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Op>),
    Flush,
    Crash,
    Scan(Space, Bytes, Bytes),
    Get(Space, Bytes),
}

fn any_key() -> impl Strategy<Value = Bytes> {
    let byte = prop_oneof![Just(0u8), Just(1), Just(2), Just(0xff), Just(b'k')];
    proptest::collection::vec(byte, 0..13).prop_map(Bytes::from)
}

fn any_op() -> impl Strategy<Value = Op> {
    let space = prop::sample::select(Space::ALL.to_vec());
    (space, 0..7, any_key(), any_key()).prop_map(|(space, kind, key, other)| match kind {
        0 => Op::DeleteSpan { space, start: key, end: other },
        1 | 2 => Op::Delete { space, key },
        _ => Op::Put { space, key, value: other },
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    let space = || prop::sample::select(Space::ALL.to_vec());
    prop_oneof![
        8 => proptest::collection::vec(any_op(), 0..6).prop_map(Step::Write),
        1 => Just(Step::Flush),
        1 => Just(Step::Crash),
        4 => (space(), any_key(), any_key()).prop_map(|(s, a, b)| Step::Scan(s, a, b)),
        2 => (space(), any_key()).prop_map(|(s, k)| Step::Get(s, k)),
    ]
}

type Seen = Vec<Vec<(Bytes, Bytes)>>;

fn scan(reader: &dyn Reader, space: Space, start: &[u8], end: &[u8]) -> Seen {
    [Direction::Forward, Direction::Reverse]
        .map(|direction| {
            reader.scan(space, start, end, direction).map(|item| item.expect("reads")).collect()
        })
        .to_vec()
}

/// Everything the steps show; with each scan also what a snapshot taken before the last write shows.
fn live(host: &mut dyn Host, steps: &[Step]) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut before = host.engine().snapshot();
    for step in steps {
        match step {
            Step::Write(ops) => {
                before = host.engine().snapshot();
                host.engine().write(&WriteBatch { ops: ops.clone() }).expect("writes");
            }
            Step::Flush => host.engine().flush().expect("flushes"),
            Step::Crash => {
                before = host.engine().snapshot();
                host.crash();
            }
            Step::Scan(space, start, end) => {
                seen.push(scan(host.engine(), *space, start, end));
                seen.push(scan(&*before, *space, start, end));
            }
            Step::Get(space, key) => {
                let found = host.engine().get(*space, key).expect("reads");
                let earlier = before.get(*space, key).expect("reads");
                seen.push(vec![
                    [found, earlier].into_iter().flatten().map(|v| (key.clone(), v)).collect(),
                ]);
            }
        }
    }
    drop(before);
    for space in Space::ALL {
        seen.push(scan(
            host.engine(),
            space,
            b"",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ));
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(feature = "rocksdb") { 12 } else { 64 }))]
    #[test]
    fn engines_look_the_same(steps in proptest::collection::vec(any_step(), 0..60)) {
        let memory = live(&mut MemoryHost::default(), &steps);
        // Without RocksDB the other one is the same engine again: then at least it is deterministic.
        #[cfg(feature = "rocksdb")]
        let other = live(&mut RocksHost::new(), &steps);
        #[cfg(not(feature = "rocksdb"))]
        let other = live(&mut MemoryHost::default(), &steps);
        prop_assert_eq!(memory, other);
    }
}

#[cfg(feature = "rocksdb")]
mod rocks {
    use super::*;
    use clock::{ClockTimestamp, Timestamp};
    use storage::mvcc::{self, Version};
    use storage::{Key, RocksEngine, RocksOptions, Span, StorageError};

    #[test]
    fn a_directory_in_use_or_of_another_cluster_is_foreign() {
        let temporary = tempfile::tempdir().expect("a directory");
        let engine = open(temporary.path());
        let dir = temporary.path().join("state");
        let second = RocksEngine::open(&dir, CLUSTER, RocksOptions::default()).err();
        assert!(matches!(second, Some(StorageError::Foreign(_))), "in use: {second:?}");
        drop(engine);
        let other = RocksEngine::open(&dir, CLUSTER + 1, RocksOptions::default()).err();
        assert!(matches!(other, Some(StorageError::Foreign(_))), "another cluster: {other:?}");
        open(temporary.path());
    }

    #[test]
    fn a_clean_close_keeps_what_was_not_flushed() {
        let temporary = tempfile::tempdir().expect("a directory");
        let engine = open(temporary.path());
        let mut batch = WriteBatch::new();
        batch.put(Space::Local, "a", "v");
        engine.write(&batch).expect("writes");
        drop(engine);
        let found = open(temporary.path()).get(Space::Local, b"a").expect("reads");
        assert_eq!(found, Some(Bytes::from_static(b"v")));
    }

    /// Table files, filters and memtables all take part: some versions are flushed, some are not, some files are
    /// compacted.
    #[test]
    fn versions_are_found_through_filters_on_disk() {
        let host = RocksHost::new();
        let memory = MemoryEngine::new();
        let key = |number: u32| Key::new(format!("key\0{number:03}"));
        for round in 0..12u64 {
            let mut batch = WriteBatch::new();
            for number in (0..200u32).filter(|number| (u64::from(*number) + round) % 3 > 0) {
                let version = Version {
                    by: None,
                    written_at: ClockTimestamp::MIN,
                    value: Some(Bytes::from(format!("{round}/{number}"))),
                };
                mvcc::put_version(
                    &mut batch,
                    &key(number),
                    Timestamp::from_raw(round * 10),
                    &version,
                );
            }
            host.engine().write(&batch).expect("writes");
            memory.write(&batch).expect("writes");
            if round % 2 == 0 {
                host.engine().flush().expect("flushes");
            }
        }
        for at in [0, 5, 10, 37, 110, 500].map(Timestamp::from_raw) {
            for number in 0..210 {
                let read = |reader: &dyn Reader| {
                    let found = mvcc::get(reader, &key(number), at).expect("reads");
                    let newest = mvcc::newest_in(reader, &key(number), at, Timestamp::MAX);
                    (found, newest.expect("reads"))
                };
                assert_eq!(read(host.engine()), read(&memory), "key {number} at {at}");
            }
            for direction in [Direction::Forward, Direction::Reverse] {
                let read = |reader: &dyn Reader| -> Vec<_> {
                    let limit = at.plus(std::time::Duration::from_micros(1));
                    mvcc::scan(reader, &Span::all(), at, limit, direction)
                        .map(|item| item.expect("reads"))
                        .collect()
                };
                assert_eq!(read(host.engine()), read(&memory));
            }
        }
    }
}
