//! MVCC against its dumb twin: a `BTreeMap` from key and descending timestamp, read by filtering everything.

use bytes::Bytes;
use clock::{ClockTimestamp, Timestamp};
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::*;
use crate::key::{Key, Span};
use crate::{Direction, Engine, MemoryEngine, Reader, Space, WriteBatch};

#[derive(Default)]
struct Twin {
    versions: BTreeMap<(Key, Reverse<Timestamp>), Version>,
    intents: BTreeMap<Key, Intent>,
}

impl Twin {
    fn in_span<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = (Timestamp, Version)> + 'a {
        self.versions
            .iter()
            .filter(move |((other, _), _)| other == key)
            .map(|((_, ts), version)| (ts.0, version.clone()))
    }

    fn get(&self, key: &Key, at: Timestamp) -> Option<(Timestamp, Version)> {
        self.in_span(key).find(|(ts, _)| *ts <= at)
    }

    fn scan(
        &self,
        span: &Span,
        at: Timestamp,
        limit: Timestamp,
        direction: Direction,
    ) -> Vec<ScanItem> {
        let mut keys: Vec<Key> = self.versions.keys().map(|(key, _)| key.clone()).collect();
        keys.extend(self.intents.keys().cloned());
        keys.sort();
        keys.dedup();
        let mut items: Vec<ScanItem> = keys
            .into_iter()
            .filter(|key| span.contains(key))
            .map(|key| ScanItem {
                intent: self.intents.get(&key).cloned(),
                visible: self.get(&key, at),
                newer: self.in_span(&key).filter(|(ts, _)| *ts > at && *ts <= limit).last(),
                key,
            })
            .filter(|item| item.intent.is_some() || item.visible.is_some() || item.newer.is_some())
            .collect();
        if direction == Direction::Reverse {
            items.reverse();
        }
        items
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(Key, Timestamp, Option<u8>),
    Intent(Key, u8),
    Resolve(Key),
    Gc(Span, Timestamp, usize),
}

/// Few keys, so that versions pile up; prefixes of each other, zeros, and two copies.
fn any_key() -> impl Strategy<Value = Key> {
    let keys: Vec<Key> = [
        &b"a"[..],
        b"a\0",
        b"a\0\x01",
        b"b",
        b"\x11\0\x01\0\0\0\x05k",
        b"\x11\0\x01\0\0\0\x05l",
        b"\x11\0\x01\0\0\0\x06",
        b"\x11\0\x02\0\0\0\x05k",
        b"",
        b"\xfe",
    ]
    .iter()
    .map(|bytes| Key::new(Bytes::copy_from_slice(bytes)))
    .collect();
    prop::sample::select(keys)
}

fn any_ts() -> impl Strategy<Value = Timestamp> {
    prop_oneof![20 => (0u64..40).prop_map(Timestamp::from_raw), 1 => Just(Timestamp::MAX)]
}

fn any_span() -> impl Strategy<Value = Span> {
    prop_oneof![
        (any_key(), any_key()).prop_map(|(start, end)| Span::new(start, end)),
        any_key().prop_map(|key| Span::point(&key)),
        Just(Span::all()),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => (any_key(), any_ts(), proptest::option::of(any::<u8>())).prop_map(|(k, t, v)| Step::Put(k, t, v)),
        4 => (any_key(), any::<u8>()).prop_map(|(k, id)| Step::Intent(k, id)),
        2 => any_key().prop_map(Step::Resolve),
        2 => (any_span(), any_ts(), 1usize..12).prop_map(|(s, t, n)| Step::Gc(s, t, n)),
    ]
}

fn intent(id: u8) -> Intent {
    Intent {
        txn: TxnId::new(u128::from(id)),
        anchor: Key::new(&b"anchor"[..]),
        ts: Timestamp::from_raw(u64::from(id)),
        priority: 7,
        started: Timestamp::MIN,
        history: vec![(Sequence::new(1), Some(Bytes::from(vec![id])))],
    }
}

fn run(steps: &[Step]) -> (MemoryEngine, Twin) {
    let (engine, mut twin) = (MemoryEngine::new(), Twin::default());
    for step in steps {
        let mut batch = WriteBatch::new();
        match step {
            Step::Put(key, ts, value) => {
                let version = Version {
                    by: None,
                    written_at: ClockTimestamp::from_raw(ts.raw() / 2),
                    value: value.map(|byte| Bytes::from(vec![byte])),
                };
                put_version(&mut batch, key, *ts, &version);
                twin.versions.insert((key.clone(), Reverse(*ts)), version);
            }
            Step::Intent(key, id) => {
                put_intent(&mut batch, key, &intent(*id));
                twin.intents.insert(key.clone(), intent(*id));
            }
            Step::Resolve(key) => {
                remove_intent(&mut batch, key);
                twin.intents.remove(key);
            }
            Step::Gc(span, threshold, limit) => {
                collect(&engine, &mut twin, span, *threshold, *limit)
            }
        }
        let batch = WriteBatch::decode(&batch.encode()).expect("decodes");
        engine.write(&batch).expect("writes");
    }
    (engine, twin)
}

/// Collects to the end in small passes; after every prefix of every pass, reads at the threshold and above are what
/// they were.
fn collect(
    engine: &MemoryEngine,
    twin: &mut Twin,
    span: &Span,
    threshold: Timestamp,
    limit: usize,
) {
    let reads = |reader: &dyn Reader| -> Vec<_> {
        [threshold, threshold.next(), Timestamp::MAX]
            .iter()
            .map(|at| live(scan(reader, &Span::all(), *at, *at, Direction::Forward)))
            .collect()
    };
    let before = reads(engine);
    let mut rest = span.clone();
    loop {
        let pass = gc(engine, &rest, threshold, limit).expect("collects");
        for op in pass.batch.ops {
            engine.write(&WriteBatch { ops: vec![op] }).expect("writes");
            assert_eq!(reads(engine), before, "gc at {threshold} changed a read");
        }
        match pass.resume {
            Some(key) => rest.start = key,
            None => break,
        }
    }
    // The twin: all at once.
    let keys: Vec<Key> =
        twin.versions.keys().map(|(key, _)| key.clone()).filter(|key| span.contains(key)).collect();
    for key in keys {
        let Some((base, version)) = twin.get(&key, threshold) else { continue };
        twin.versions.retain(|(other, ts), _| {
            *other != key || ts.0 > base || (ts.0 == base && version.value.is_some())
        });
    }
}

fn live(scan: Scan<'_>) -> Vec<(Key, Bytes)> {
    scan.map(|item| item.expect("reads"))
        .filter_map(|item| Some((item.key, item.visible?.1.value?)))
        .collect()
}

proptest! {
    #[test]
    fn reads_equal_the_twin(
        steps in proptest::collection::vec(any_step(), 0..120),
        key in any_key(), span in any_span(), at in any_ts(), limit in any_ts(),
    ) {
        let (engine, twin) = run(&steps);
        let reader: &dyn Reader = &*engine.snapshot();
        prop_assert_eq!(get(reader, &key, at).expect("reads"), twin.get(&key, at));
        prop_assert_eq!(newest(reader, &key).expect("reads"), twin.get(&key, Timestamp::MAX));
        let between: Vec<_> = twin.in_span(&key).filter(|(ts, _)| *ts > at && *ts <= limit).collect();
        prop_assert_eq!(newest_in(reader, &key, at, limit).expect("reads"), between.first().cloned());
        prop_assert_eq!(read::oldest_in(reader, &key, at, limit).expect("reads"), between.last().cloned());
        prop_assert_eq!(get_intent(reader, &key).expect("reads"), twin.intents.get(&key).cloned());
        for direction in [Direction::Forward, Direction::Reverse] {
            let items: Vec<ScanItem> = scan(reader, &span, at, limit, direction).map(|item| item.expect("reads")).collect();
            prop_assert_eq!(items, twin.scan(&span, at, limit.max(at), direction));
        }
        let found: Vec<_> = intents(reader, &span).map(|item| item.expect("reads")).collect();
        let expected: Vec<_> = twin.intents.iter().filter(|(key, _)| span.contains(key)).map(|(k, i)| (k.clone(), i.clone())).collect();
        prop_assert_eq!(found, expected);
        let changed = twin.versions.keys().find(|(key, ts)| span.contains(key) && ts.0 > at && ts.0 <= limit);
        prop_assert_eq!(changed_in(reader, &span, at, limit).expect("reads"), changed.map(|(key, _)| key.clone()));
    }

    #[test]
    fn changes_are_the_versions_of_a_copy_in_commit_order(
        steps in proptest::collection::vec(any_step(), 0..120),
        within in any_span(), from in any_ts(), to in any_ts(), limit in 1usize..9,
    ) {
        let (engine, twin) = run(&steps);
        let expected = |copy: &Key, from: Timestamp, to: Timestamp| -> Vec<(Timestamp, Key)> {
            let mut all: Vec<_> = twin.versions.keys()
                .filter(|(key, ts)| within.contains(key) && Span::prefix(copy).contains(key) && ts.0 > from && ts.0 <= to)
                .map(|(key, ts)| (ts.0, key.clone())).collect();
            all.sort();
            all
        };
        let found = |copy: &Key, from: Timestamp, to: Timestamp| -> Vec<(Timestamp, Key)> {
            changes(&engine, copy, &within, from, to).map(|item| item.expect("reads")).collect()
        };
        let copies = [Key::copy(1, 5), Key::copy(1, 6), Key::copy(2, 5)];
        for copy in &copies {
            prop_assert_eq!(found(copy, from, to), expected(copy, from, to));
        }
        // Forgetting up to `to` leaves exactly what is after it.
        loop {
            let pass = gc_changes(&engine, &within, to, limit).expect("collects");
            prop_assert!(pass.batch.ops.len() <= limit);
            engine.write(&pass.batch).expect("writes");
            if pass.resume.is_none() { break; }
        }
        for copy in &copies {
            prop_assert_eq!(found(copy, Timestamp::MIN, Timestamp::MAX), expected(copy, to, Timestamp::MAX));
        }
    }

    #[test]
    fn removing_a_span_removes_it_and_nothing_else(
        steps in proptest::collection::vec(any_step(), 0..80), span in any_span(),
    ) {
        let (engine, twin) = run(&steps);
        let mut batch = WriteBatch::new();
        remove_span(&engine, &mut batch, &span).expect("reads");
        engine.write(&batch).expect("writes");
        let kept: Vec<_> = twin.versions.keys().filter(|(key, _)| !span.contains(key)).cloned().collect();
        prop_assert_eq!(engine.key_count(Space::Versions), kept.len());
        let changes = kept.iter().filter(|(key, _)| key.copy_region().is_some()).count();
        prop_assert!(engine.key_count(Space::Changes) <= kept.len().max(changes));
        let intents = twin.intents.keys().filter(|key| !span.contains(key)).count();
        prop_assert_eq!(engine.key_count(Space::Locks), intents);
        prop_assert_eq!(engine.key_count(Space::Changes), changes);
    }
}

#[test]
fn a_scan_over_many_versions_seeks() {
    let engine = MemoryEngine::new();
    let mut batch = WriteBatch::new();
    for key in [&b"a"[..], b"b", b"c"] {
        for ts in 1..1000 {
            let version =
                Version { written_at: ClockTimestamp::MIN, by: None, value: Some(Bytes::new()) };
            put_version(&mut batch, &Key::new(key), Timestamp::from_raw(ts), &version);
        }
    }
    engine.write(&batch).expect("writes");
    let counting = Counting { inner: &engine, items: Default::default() };
    for direction in [Direction::Forward, Direction::Reverse] {
        let at = Timestamp::from_raw(500);
        let items = scan(&counting, &Span::all(), at, Timestamp::from_raw(800), direction);
        let seen: Vec<_> = items
            .map(|item| item.expect("reads"))
            .map(|item| (item.visible.map(|v| v.0.raw()), item.newer.map(|v| v.0.raw())))
            .collect();
        assert_eq!(seen, vec![(Some(500), Some(501)); 3]);
    }
    let read = counting.items.load(std::sync::atomic::Ordering::Relaxed);
    assert!(read < 300, "{read} items read for six keys");
}

/// Counts what is read.
struct Counting<'a> {
    inner: &'a MemoryEngine,
    items: std::sync::atomic::AtomicUsize,
}

impl Reader for Counting<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, crate::StorageError> {
        self.inner.get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        start: &[u8],
        end: &[u8],
        direction: Direction,
    ) -> crate::Items<'_> {
        Box::new(self.inner.scan(space, start, end, direction).inspect(|_| {
            self.items.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }))
    }
}
