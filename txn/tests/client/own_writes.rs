//! The write buffer, spilling, savepoints and the view from before a statement against the dumb twin: an ordered map that is copied at each savepoint.

use super::{key, local_with, routed_with, value};
use bytes::Bytes;
use futures::future::{Either, select};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use storage::{Direction, Key, Span};
use txn::client::{GetOptions, OwnWrites, ScanOptions, Settings, TxnOptions};
use txn::testing::{Fate, World};

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Get(u8),
    Scan { from: u8, to: u8, reverse: bool, limit: u64, own: OwnWrites },
    GetAsMarked(u8),
    Mark,
    Savepoint,
    RollbackTo(prop::sample::Index),
    Release(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..12, any::<u8>()).prop_map(|(k, v)| Step::Put(k, v)),
        2 => (0u8..12).prop_map(Step::Delete),
        2 => (0u8..12).prop_map(Step::Get),
        3 => (0u8..13, 0u8..13, any::<bool>(), 0u64..5, own())
            .prop_map(|(from, to, reverse, limit, own)| Step::Scan { from, to, reverse, limit, own }),
        1 => (0u8..12).prop_map(Step::GetAsMarked),
        1 => Just(Step::Mark),
        1 => Just(Step::Savepoint),
        1 => any::<prop::sample::Index>().prop_map(Step::RollbackTo),
        1 => any::<prop::sample::Index>().prop_map(Step::Release),
    ]
}

fn own() -> impl Strategy<Value = OwnWrites> {
    prop_oneof![Just(OwnWrites::All), Just(OwnWrites::BeforeEffects)]
}

fn name(n: u8) -> Key {
    key(&format!("k{n:02}"))
}

type Rows = BTreeMap<Key, Bytes>;

fn twin_scan(rows: &Rows, span: &Span, reverse: bool, limit: u64) -> Vec<(Key, Bytes)> {
    let mut all: Vec<(Key, Bytes)> = rows
        .iter()
        .filter(|(key, _)| span.contains(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if reverse {
        all.reverse();
    }
    if limit > 0 {
        all.truncate(usize::try_from(limit).expect("small"));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_transaction_reads_and_commits_what_its_twin_does(
        committed in proptest::collection::vec(0u8..12, 0..8),
        steps in proptest::collection::vec(step(), 1..40),
        spill in prop_oneof![Just(0usize), Just(150), Just(1 << 20)],
    ) {
        let settings = Settings { spill_bytes: spill, scan_piece_bytes: 40, ..Settings::default() };
        let t = local_with(World::new(1), settings);
        t.kv.split_at(name(6));
        let mut twin = Rows::new();
        let outcome: Result<(), TestCaseError> = t.world.block_on(async {
            let mut txn = t.db.begin(TxnOptions::default());
            for n in committed {
                twin.insert(name(n), Bytes::from_static(b"old"));
                txn.put(name(n), Bytes::from_static(b"old")).expect("open");
            }
            txn.commit().await.expect("free");
            let mut txn = t.db.begin(TxnOptions::default());
            let mut savepoints = Vec::new();
            // As the rows were at the mark, and what was written since.
            let mut marked: Option<(Rows, BTreeSet<u8>)> = None;
            for step in steps {
                match step {
                    Step::Put(k, v) => {
                        txn.put(name(k), Bytes::from(vec![v])).expect("open");
                        twin.insert(name(k), Bytes::from(vec![v]));
                        if let Some((_, written)) = &mut marked {
                            written.insert(k);
                        }
                    }
                    Step::Delete(k) => {
                        txn.delete(name(k)).expect("open");
                        twin.remove(&name(k));
                        if let Some((_, written)) = &mut marked {
                            written.insert(k);
                        }
                    }
                    Step::Mark => {
                        txn.begin_effects();
                        marked = Some((twin.clone(), BTreeSet::new()));
                    }
                    Step::GetAsMarked(k) => {
                        let options = GetOptions { own: OwnWrites::BeforeEffects, ..GetOptions::default() };
                        let value = txn.multi_get_with(&[name(k)], options).await.expect("alone").pop().flatten();
                        let rows = marked.as_ref().map_or(&twin, |(rows, _)| rows);
                        prop_assert_eq!(value, rows.get(&name(k)).cloned());
                        let since = marked.as_ref().is_some_and(|(_, written)| written.contains(&k));
                        prop_assert_eq!(txn.is_own_effect(&name(k)), since);
                    }
                    Step::Get(k) => {
                        prop_assert_eq!(txn.get(&name(k), None).await.expect("alone"), twin.get(&name(k)).cloned());
                    }
                    Step::Scan { from, to, reverse, limit, own } => {
                        let twin = match (own, &marked) {
                            (OwnWrites::BeforeEffects, Some((rows, _))) => rows,
                            _ => &twin,
                        };
                        let span = Span::new(name(from), name(to));
                        let direction = if reverse { Direction::Reverse } else { Direction::Forward };
                        let options = ScanOptions { direction, limit, own, ..ScanOptions::default() };
                        let page = txn.scan(span.clone(), options).await.expect("alone");
                        prop_assert_eq!(&page.rows, &twin_scan(twin, &span, reverse, limit));
                        // What is left is exactly what the page does not have.
                        if let Some(rest) = page.resume {
                            let mut all = page.rows;
                            let options = ScanOptions { direction, own, ..ScanOptions::default() };
                            all.extend(txn.scan(rest, options).await.expect("alone").rows);
                            prop_assert_eq!(all, twin_scan(twin, &span, reverse, 0));
                        } else if limit > 0 {
                            prop_assert_eq!(page.rows, twin_scan(twin, &span, reverse, 0));
                        }
                    }
                    Step::Savepoint => {
                        savepoints.push((txn.savepoint().expect("few"), twin.clone()));
                        marked = None;
                    }
                    Step::RollbackTo(index) if !savepoints.is_empty() => {
                        let at = index.index(savepoints.len());
                        savepoints.truncate(at + 1);
                        txn.rollback_to(savepoints[at].0).await.expect("it is open");
                        twin = savepoints[at].1.clone();
                        marked = None;
                    }
                    Step::Release(index) if !savepoints.is_empty() => {
                        let at = index.index(savepoints.len());
                        txn.release(savepoints[at].0).expect("it is open");
                        savepoints.truncate(at);
                        marked = None;
                    }
                    Step::RollbackTo(_) | Step::Release(_) => {}
                }
            }
            txn.commit().await.expect("alone");
            Ok(())
        });
        outcome?;
        t.world.settle(Duration::from_secs(3));
        prop_assert_eq!(t.kv.rows(), twin.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(t.kv.lock_count(), 0);
        prop_assert_eq!(t.kv.record_count(), 0);
    }
}

/// A statement that is given up (a cancel, a client that has gone) while writes of earlier ones are on their way to the ranges: some are
/// there, some never will be, and none is in memory any more.
#[test]
fn what_is_given_up_amid_laying_writes_down_cannot_be_committed() {
    for polls in 1..4 {
        let t = routed_with(1, Settings { spill_bytes: 4, ..Settings::default() });
        t.peers.set_fates(|_, _| Fate::Far(Duration::from_millis(10)));
        let committed = t.world.block_on(async {
            let mut txn = t.db.begin(TxnOptions::default());
            for name in ["a", "b", "c"] {
                txn.put(key(name), value("first")).expect("open");
            }
            let savepoint = txn.savepoint().expect("few");
            txn.put(key("d"), value("later")).expect("open");
            let time = t.world.runtime().time;
            let given_up =
                time.sleep_until(time.monotonic().plus(Duration::from_millis(20 * polls - 5)));
            match select(Box::pin(txn.spill_if_large()), given_up).await {
                Either::Left(_) => panic!("it takes longer"),
                Either::Right(_) => {}
            }
            if txn.rollback_to(savepoint).await.is_err() {
                return false;
            }
            txn.commit().await.is_ok()
        });
        t.world.settle(Duration::from_secs(10));
        let there = t.kv.rows().len();
        assert_eq!(there, if committed { 3 } else { 0 }, "of three rows, given up at {polls}");
    }
}
