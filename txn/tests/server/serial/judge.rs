//! The law: the committed transactions, one after another in the order of their timestamps, explain every read and everything stored.

use bytes::Bytes;
use clock::{ClockTimestamp, Timestamp};
use std::collections::BTreeMap;
use storage::mvcc::{Version, layout};
use storage::{Direction, Key, Reader, Space, Span};

use super::{Bank, Rows};

pub(super) struct Committed {
    pub(super) ts: Timestamp,
    pub(super) limit: Timestamp,
    /// Steps of the test: in real time.
    pub(super) began: u64,
    pub(super) acknowledged: u64,
    pub(super) reads: Vec<(Span, Rows)>,
    pub(super) writes: BTreeMap<Key, Option<Bytes>>,
}

impl Bank {
    pub(super) fn versions(&self) -> BTreeMap<(Key, Timestamp), Option<Bytes>> {
        let items =
            self.world.replicas.engine.scan(Space::Versions, b"", b"\xff", Direction::Forward);
        let mut found = BTreeMap::new();
        for item in items {
            let (raw, value) = item.expect("reads");
            let (key, ts) = layout::parse_version_key(&raw).expect("parses");
            let Version { written_at, value, .. } = Version::decode(value).expect("decodes");
            assert!(written_at > ClockTimestamp::MIN);
            found.insert((key, ts), value);
        }
        found
    }

    pub(super) fn check(&self) -> usize {
        let versions = self.versions();
        let mut unexplained = versions.clone();
        for txn in &self.committed {
            for (key, value) in &txn.writes {
                let stored = unexplained.remove(&(key.clone(), txn.ts));
                assert_eq!(
                    stored.as_ref(),
                    Some(value),
                    "{key} committed at {} is stored once",
                    txn.ts
                );
            }
            for (span, seen) in &txn.reads {
                let expected = read(&versions, span, txn);
                assert_eq!(
                    *seen, expected,
                    "what was read in {span} by the transaction at {}",
                    txn.ts
                );
            }
        }
        for ((key, ts), value) in unexplained {
            let explained = self.open.iter().any(|writes| writes.get(&key) == Some(&value));
            assert!(explained, "{key}={value:?} at {ts} was committed by nobody");
        }
        self.check_real_time();
        self.committed.iter().filter(|txn| !txn.writes.is_empty()).count()
    }

    /// Who began after a write was acknowledged, with a clock within the bound, reads it or
    /// something newer; unless the write went above every clock (then it should not have been
    /// acknowledged yet, which is the coordinator's to see to).
    pub(super) fn check_real_time(&self) {
        for reader in &self.committed {
            for writer in self.committed.iter().filter(|writer| writer.acknowledged < reader.began)
            {
                let met = |key: &Key| reader.reads.iter().any(|(span, _)| span.contains(key));
                if writer.ts <= reader.limit && writer.writes.keys().any(met) {
                    assert!(
                        writer.ts <= reader.ts,
                        "{} was acknowledged before {} began",
                        writer.ts,
                        reader.ts
                    );
                }
            }
        }
    }
}

/// What the twin says that `txn` reads: the others' versions at or below its timestamp.
pub(super) fn read(
    versions: &BTreeMap<(Key, Timestamp), Option<Bytes>>,
    span: &Span,
    txn: &Committed,
) -> Rows {
    let mut rows = Rows::new();
    for ((key, ts), value) in versions {
        let own = *ts == txn.ts && txn.writes.contains_key(key);
        if !span.contains(key) || *ts > txn.ts || own {
            continue;
        }
        match value {
            Some(value) => rows.insert(key.clone(), value.clone()),
            None => rows.remove(key),
        };
    }
    rows
}
