//! Value: judges transactions by the timestamps that the database itself gives them: *all reads and writes of a committed transaction
//! share one instant, its commit timestamp.*
//!
//! The other judges infer an order from what clients saw, and accept whatever some order explains. Here the order is known:
//!
//! ```text
//!   key 1   ──o──────────o────────────x────►  time       o a committed write, x a read
//!            @3         @7           @9                   the read must see the write @7, whatever an order could excuse
//! ```
//!
//! - A read sees the newest write of another that committed at or below the reader's timestamp, or nothing if there is none.
//! - No two transactions write a key at one timestamp.
//! - Nobody sees what failed, or what its own writer overwrote.
//!
//! A write of unknown end has no timestamp, until somebody sees it: then it has committed, at one instant at or below every reader that
//! saw it, above every write that it hid from them, and not where a reader of its key saw something else instead. Of two unknown
//! writers, one seen by those who did not see the other, nothing is concluded.

use std::collections::BTreeMap;

use clock::Timestamp;

use crate::history::{Ended, Record};

/// What a transaction wrote, in order: key and value. Nobody else writes the value, ever.
pub type Writes = Vec<(u64, u64)>;

/// What a committed transaction knows of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Its commit timestamp.
    pub at: Timestamp,
    /// What it read of each key before it wrote there itself; `None`: nothing was there.
    pub reads: Vec<(u64, Option<u64>)>,
}

type Transaction = Record<Writes, Seen>;

/// Judges a history.
///
/// # Errors
/// The first read or write that does not fit its transaction's instant, with the transactions.
pub fn check(history: &[Transaction]) -> Result<(), String> {
    let judge = Judge { history, writers: writers(history)?, versions: versions(history)? };
    let mut doubtful: BTreeMap<usize, Doubt> = BTreeMap::new();
    for (place, seen) in committed(history) {
        for (key, value) in &seen.reads {
            judge.read(place, seen, *key, *value, &mut doubtful)?;
        }
    }
    for (place, doubt) in &mut doubtful {
        judge.restrict(*place, doubt);
        if !doubt.has_room() {
            return Err(format!(
                "no instant fits a write that was seen: {:?}\n  {doubt:?}",
                history[*place]
            ));
        }
    }
    Ok(())
}

fn committed(history: &[Transaction]) -> impl Iterator<Item = (usize, &Seen)> {
    history.iter().enumerate().filter_map(|(place, record)| match &record.ended {
        Ended::Ok(seen) => Some((place, seen)),
        Ended::Fail | Ended::Unknown => None,
    })
}

/// Who wrote a value, where, and whether it wrote there again.
#[derive(Clone, Copy)]
struct Writer {
    place: usize,
    key: u64,
    overwritten: bool,
}

fn writers(history: &[Transaction]) -> Result<BTreeMap<u64, Writer>, String> {
    let mut writers = BTreeMap::new();
    for (place, record) in history.iter().enumerate() {
        for (step, (key, value)) in record.op.iter().enumerate() {
            let overwritten = record.op[step + 1..].iter().any(|(later, _)| later == key);
            if writers.insert(*value, Writer { place, key: *key, overwritten }).is_some() {
                return Err(format!("malformed history: {value} is written twice"));
            }
        }
    }
    Ok(writers)
}

/// A key's versions: by their timestamp, who wrote what.
type Versions = BTreeMap<Timestamp, (usize, u64)>;

fn versions(history: &[Transaction]) -> Result<BTreeMap<u64, Versions>, String> {
    let mut versions: BTreeMap<u64, Versions> = BTreeMap::new();
    for (place, seen) in committed(history) {
        let last: BTreeMap<u64, u64> = history[place].op.iter().copied().collect();
        for (key, value) in last {
            let of_key = versions.entry(key).or_default();
            if let Some((other, _)) = of_key.insert(seen.at, (place, value)) {
                return Err(format!(
                    "two writes of key {key} at {}:\n  {:?}\n  {:?}",
                    seen.at, history[other], history[place]
                ));
            }
        }
    }
    Ok(versions)
}

/// Where a write of unknown end may have committed: above `low`, at or below `high`, outside of all `excluded` (first one out, last in).
#[derive(Debug)]
struct Doubt {
    low: Timestamp,
    high: Timestamp,
    excluded: Vec<(Timestamp, Timestamp)>,
}

impl Doubt {
    fn has_room(&self) -> bool {
        let mut at = self.low.next();
        let mut excluded = self.excluded.clone();
        excluded.sort_unstable();
        for (below, upto) in excluded {
            if below < at && at <= upto {
                at = upto.next();
            }
        }
        at <= self.high
    }
}

struct Judge<'a> {
    history: &'a [Transaction],
    writers: BTreeMap<u64, Writer>,
    versions: BTreeMap<u64, Versions>,
}

impl Judge<'_> {
    /// The newest version of `key` at or below `at` that `but` has not written.
    fn newest(&self, key: u64, at: Timestamp, but: usize) -> Option<(Timestamp, u64)> {
        let upto = self.versions.get(&key)?.range(..=at);
        let others = upto.rev().find(|(_, (writer, _))| *writer != but);
        others.map(|(ts, (_, value))| (*ts, *value))
    }

    fn read(
        &self,
        place: usize,
        seen: &Seen,
        key: u64,
        value: Option<u64>,
        doubtful: &mut BTreeMap<usize, Doubt>,
    ) -> Result<(), String> {
        let newest = self.newest(key, seen.at, place);
        let wrong = |why: &str, writer: Option<usize>| {
            let writer = writer.map_or(String::new(), |writer| {
                format!("\n  it was written by {:?}", self.history[writer])
            });
            Err(format!(
                "key {key} read at {} as {value:?}, {why}; the newest is {newest:?}:\n  {:?}{writer}",
                seen.at, self.history[place]
            ))
        };
        let Some(value) = value else {
            return newest.map_or(Ok(()), |_| wrong("though it was written", None));
        };
        let Some(writer) = self.writers.get(&value).filter(|writer| writer.key == key) else {
            return wrong("which nobody wrote there", None);
        };
        if writer.overwritten {
            return wrong("which its writer overwrote", Some(writer.place));
        }
        if writer.place == place {
            return wrong("which the reader wrote later", None);
        }
        match &self.history[writer.place].ended {
            Ended::Fail => wrong("which was not committed", Some(writer.place)),
            Ended::Ok(_) if newest.is_some_and(|(_, there)| there == value) => Ok(()),
            Ended::Ok(_) => wrong("which is not the newest", Some(writer.place)),
            Ended::Unknown => {
                let whole =
                    || Doubt { low: Timestamp::MIN, high: Timestamp::MAX, excluded: Vec::new() };
                let doubt = doubtful.entry(writer.place).or_insert_with(whole);
                doubt.low = doubt.low.max(newest.map_or(Timestamp::MIN, |(ts, _)| ts));
                doubt.high = doubt.high.min(seen.at);
                Ok(())
            }
        }
    }

    /// Excludes where a reader of one of its keys would have seen it and saw something else, and where others wrote.
    fn restrict(&self, unknown: usize, doubt: &mut Doubt) {
        let keys: BTreeMap<u64, u64> = self.history[unknown].op.iter().copied().collect();
        for (_, seen) in committed(self.history) {
            for (key, value) in &seen.reads {
                if !keys.contains_key(key) {
                    continue;
                }
                let below = match value.map(|value| self.writers[&value].place) {
                    None => Timestamp::MIN,
                    Some(writer) if writer == unknown => continue,
                    Some(writer) => match &self.history[writer].ended {
                        Ended::Ok(writer) => writer.at,
                        Ended::Fail | Ended::Unknown => continue,
                    },
                };
                doubt.excluded.push((below, seen.at));
            }
        }
        for versions in keys.keys().filter_map(|key| self.versions.get(key)) {
            doubt.excluded.extend(versions.keys().map(|ts| (ts.prev(), *ts)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(raw: u64) -> Timestamp {
        Timestamp::from_raw(raw)
    }

    fn record(writes: &[(u64, u64)], ended: Ended<Seen>) -> Transaction {
        Record { client: 1, asked: 0, heard: 1, op: writes.to_vec(), ended }
    }

    fn at(raw: u64, reads: &[(u64, Option<u64>)], writes: &[(u64, u64)]) -> Transaction {
        record(writes, Ended::Ok(Seen { at: ts(raw), reads: reads.to_vec() }))
    }

    fn unknown(writes: &[(u64, u64)]) -> Transaction {
        record(writes, Ended::Unknown)
    }

    #[track_caller]
    fn refused(history: &[Transaction], why: &str) {
        let error = check(history).expect_err("the history is bad");
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn reads_that_fit_their_instants_are_good() {
        let history = [
            at(3, &[(1, None)], &[(1, 10)]),
            at(3, &[(2, None)], &[(2, 20)]),
            at(7, &[(1, Some(10)), (2, Some(20))], &[(1, 11), (1, 12)]),
            at(6, &[(1, Some(10))], &[]),
            at(7, &[(2, Some(20)), (1, Some(12))], &[]),
            at(9, &[(1, Some(12))], &[]),
        ];
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn a_read_below_the_newest_write_is_bad_though_an_order_would_explain_it() {
        let (old, new) = (at(3, &[], &[(1, 10)]), at(7, &[], &[(1, 11)]));
        refused(&[old.clone(), new.clone(), at(9, &[(1, Some(10))], &[])], "not the newest");
        refused(&[old, new, at(9, &[(1, None)], &[])], "though it was written");
    }

    #[test]
    fn a_read_of_the_future_is_bad() {
        refused(&[at(7, &[], &[(1, 10)]), at(6, &[(1, Some(10))], &[])], "not the newest");
    }

    #[test]
    fn a_transaction_seen_in_one_key_and_not_in_another_is_bad() {
        let both = at(5, &[], &[(1, 10), (2, 20)]);
        refused(&[both, at(6, &[(1, Some(10)), (2, None)], &[])], "though it was written");
    }

    #[test]
    fn a_lost_update_is_bad() {
        let history = [
            at(3, &[(1, None)], &[(1, 10)]),
            at(5, &[(1, Some(10))], &[(1, 11)]),
            at(6, &[(1, Some(10))], &[(1, 12)]),
        ];
        refused(&history, "not the newest");
    }

    #[test]
    fn failed_halves_and_inventions_must_not_be_seen() {
        let failed = record(&[(1, 10)], Ended::Fail);
        refused(&[failed, at(6, &[(1, Some(10))], &[])], "not committed");
        refused(&[at(5, &[], &[(1, 10), (1, 11)]), at(6, &[(1, Some(10))], &[])], "overwrote");
        refused(&[at(6, &[(1, Some(10))], &[])], "nobody wrote");
        refused(&[at(5, &[], &[(1, 10)]), at(6, &[(2, Some(10))], &[])], "nobody wrote");
        refused(&[at(6, &[(1, Some(10))], &[(1, 10)])], "wrote later");
    }

    #[test]
    fn two_writes_of_a_key_at_one_instant_are_bad() {
        refused(&[at(5, &[], &[(1, 10)]), at(5, &[], &[(1, 11)])], "two writes of key 1");
    }

    #[test]
    fn a_write_of_unknown_end_counts_at_one_instant_or_never() {
        let (lost, first) = (unknown(&[(1, 10), (2, 20)]), at(3, &[], &[(1, 1)]));
        let before = at(5, &[(1, Some(1)), (2, None)], &[]);
        let after = at(8, &[(1, Some(10)), (2, Some(20))], &[]);
        assert_eq!(check(&[lost.clone(), first.clone(), before.clone(), after.clone()]), Ok(()));
        assert_eq!(check(&[lost.clone(), first.clone(), before.clone()]), Ok(()));
        // Seen at 8, hence committed between 5 and 8; but at 9 the key reads as before.
        let back = at(9, &[(1, Some(1))], &[]);
        refused(&[lost.clone(), first.clone(), before, after, back], "no instant fits");
        // Half of it.
        refused(&[lost, first, at(8, &[(1, Some(10)), (2, None)], &[])], "no instant fits");
    }

    #[test]
    fn a_write_of_unknown_end_lies_above_what_it_hid() {
        let (lost, later) = (unknown(&[(1, 10)]), at(7, &[], &[(1, 11)]));
        let sees = |raw| at(raw, &[(1, Some(10))], &[]);
        assert_eq!(check(&[lost.clone(), later.clone(), sees(6)]), Ok(()));
        assert_eq!(check(&[lost.clone(), later.clone(), sees(9)]), Ok(()));
        refused(&[lost, later, sees(6), sees(9)], "no instant fits");
    }
}
