//! The dumb twin of serializability: committed transactions are played one after another in the order of their commit timestamps, on a map;
//! every read must see what the map has, and the last state must be the keyspace's.
//!
//! Transactions of one timestamp may go in any order that works: they are tried.

use bytes::Bytes;
use clock::Timestamp;
use std::collections::BTreeMap;
use storage::{Key, Span};

/// One committed transaction.
#[derive(Clone, Debug, Default)]
pub(super) struct Done {
    pub(super) label: String,
    pub(super) ts: Timestamp,
    pub(super) gets: Vec<(Key, Option<Bytes>)>,
    pub(super) scans: Vec<(Span, Vec<(Key, Bytes)>)>,
    pub(super) writes: BTreeMap<Key, Option<Bytes>>,
}

type Rows = BTreeMap<Key, Bytes>;

impl Done {
    fn fits(&self, rows: &Rows) -> bool {
        let get_fits = |(key, seen): &(Key, Option<Bytes>)| rows.get(key) == seen.as_ref();
        let scan_fits = |(span, seen): &(Span, Vec<(Key, Bytes)>)| {
            let there: Vec<(Key, Bytes)> = rows
                .iter()
                .filter(|(key, _)| span.contains(key))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            there == *seen
        };
        self.gets.iter().all(get_fits) && self.scans.iter().all(scan_fits)
    }

    fn apply(&self, rows: &mut Rows) {
        for (key, value) in &self.writes {
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
    }
}

/// Plays the history; panics with the first transaction that fits nowhere.
pub(super) fn check(mut history: Vec<Done>, last: &[(Key, Bytes)]) {
    history.sort_by_key(|done| done.ts);
    let mut rows = Rows::new();
    while !history.is_empty() {
        let ts = history[0].ts;
        let mut tied: Vec<Done> = Vec::new();
        while history.first().is_some_and(|done| done.ts == ts) {
            tied.push(history.remove(0));
        }
        assert!(place(&mut tied, &mut rows), "no serial order: {tied:#?} on {rows:#?}");
    }
    assert_eq!(rows.into_iter().collect::<Vec<_>>(), last, "the last state");
}

/// Some order of these, one after another.
fn place(tied: &mut Vec<Done>, rows: &mut Rows) -> bool {
    if tied.is_empty() {
        return true;
    }
    for index in 0..tied.len() {
        if !tied[index].fits(rows) {
            continue;
        }
        let done = tied.remove(index);
        let before = rows.clone();
        done.apply(rows);
        if place(tied, rows) {
            return true;
        }
        *rows = before;
        tied.insert(index, done);
    }
    false
}

#[test]
#[should_panic(expected = "no serial order")]
fn the_checker_finds_a_lost_update() {
    let read_then_write = |ts, seen: Option<&'static [u8]>, new: &'static [u8]| Done {
        ts: Timestamp::new(ts, 0),
        gets: vec![(Key::new(&b"k"[..]), seen.map(Bytes::from_static))],
        writes: BTreeMap::from([(Key::new(&b"k"[..]), Some(Bytes::from_static(new)))]),
        ..Done::default()
    };
    check(vec![read_then_write(1, None, b"1"), read_then_write(2, None, b"2")], &[]);
}
