//! Value: judges rows of an available table whose last writer wins: each write replaces a whole row, a tag and its twin, and says what it
//! replaced.
//!
//! - *No halves*: a row is one write's, never the tag of one and the twin of another (A06).
//! - *What was replaced is gone*: what the writer of an acknowledged write or delete had before it, and what that one's writer had, is not
//!   what stays (A01, A03).
//! - *The later write wins*: where nothing is deleted, of two acknowledged writes, the second asked for longer after the first was heard than
//!   clocks may differ, the first does not stay (A01).
//! - *A copy goes forward*: who reads at a node finds nothing there that what was read there before had replaced.
//! - *Nothing of a failed write is ever seen*, and a row is gone only if somebody has deleted it.
//! - *A number is drawn once* (T15).

use std::collections::{BTreeMap, BTreeSet};

use super::RealTime;
use crate::history::{Ended, Record};

/// What a client asks, and at which node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Replaces a row, or makes it; nobody else writes this tag, ever.
    Put {
        /// Which row.
        key: u64,
        /// What.
        tag: u64,
        /// At which node.
        at: u32,
    },
    /// Deletes a row.
    Delete {
        /// Which row.
        key: u64,
        /// At which node.
        at: u32,
    },
    /// Reads a row.
    Read {
        /// Which row.
        key: u64,
        /// At which node.
        at: u32,
    },
    /// Draws a number.
    Draw,
}

/// What it was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The row as the transaction found it.
    Found(Option<Row>),
    /// A number.
    Drawn(i64),
}

/// A row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Who wrote it.
    pub tag: u64,
    /// The same, written beside it.
    pub twin: u64,
}

/// Clocks of two writers differ by less, nanoseconds.
const APART_NS: u64 = 250_000_000;

type History = [Record<Op, Answer>];

/// Judges. `last`: what every copy shows in the end.
///
/// # Errors
/// What is broken, and by whom.
pub fn check(
    history: &History,
    last: &BTreeMap<u64, Row>,
    real_time: RealTime,
) -> Result<(), String> {
    let writers = writers_of(history)?;
    let found = history.iter().filter_map(|record| Some((key_of(record)?, row_of(record)?)));
    for (key, row) in found.chain(last.iter().map(|(key, row)| (*key, *row))) {
        if row.tag != row.twin {
            return Err(format!("half of a write: row {key} is {row:?}"));
        }
        let Some(writer) = writers.get(&row.tag).filter(|writer| key_of(writer) == Some(key))
        else {
            return Err(format!("row {key} has {}, which nobody wrote there", row.tag));
        };
        if writer.ended == Ended::Fail {
            return Err(format!("row {key} has {} of a write that failed: {writer:?}", row.tag));
        }
    }
    numbers_are_drawn_once(history)?;
    for (key, row) in last {
        stays_rightly(history, &writers, *key, row.tag, real_time)?;
    }
    for key in history.iter().filter_map(key_of).collect::<BTreeSet<u64>>() {
        gone_rightly(history, last, key)?;
    }
    match real_time {
        RealTime::Demanded => copies_go_forward(history, &writers),
        // A node with a clock beyond its bound may read stale.
        RealTime::Waived => Ok(()),
    }
}

fn writers_of(history: &History) -> Result<BTreeMap<u64, &Record<Op, Answer>>, String> {
    let mut writers = BTreeMap::new();
    for record in history {
        if let Op::Put { tag, .. } = record.op
            && writers.insert(tag, record).is_some()
        {
            return Err(format!("malformed history: {tag} is written twice"));
        }
    }
    Ok(writers)
}

fn key_of(record: &Record<Op, Answer>) -> Option<u64> {
    match record.op {
        Op::Put { key, .. } | Op::Delete { key, .. } | Op::Read { key, .. } => Some(key),
        Op::Draw => None,
    }
}

fn row_of(record: &Record<Op, Answer>) -> Option<Row> {
    match record.ended {
        Ended::Ok(Answer::Found(row)) => row,
        Ended::Ok(Answer::Drawn(_)) | Ended::Fail | Ended::Unknown => None,
    }
}

/// What was replaced, directly or not, by whoever wrote `tag`.
fn replaced_by(writers: &BTreeMap<u64, &Record<Op, Answer>>, tag: u64) -> BTreeSet<u64> {
    let mut replaced = BTreeSet::new();
    let mut next = writers.get(&tag).and_then(|writer| row_of(writer));
    while let Some(row) = next.filter(|row| replaced.insert(row.tag)) {
        next = writers.get(&row.tag).and_then(|writer| row_of(writer));
    }
    replaced
}

fn stays_rightly(
    history: &History,
    writers: &BTreeMap<u64, &Record<Op, Answer>>,
    key: u64,
    tag: u64,
    real_time: RealTime,
) -> Result<(), String> {
    let of_key = || history.iter().filter(|record| key_of(record) == Some(key));
    let heard = writers[&tag].heard;
    for record in of_key().filter(|record| matches!(record.ended, Ended::Ok(_))) {
        let (Op::Put { .. } | Op::Delete { .. }) = record.op else { continue };
        let Some(before) = row_of(record) else { continue };
        if before.tag == tag || replaced_by(writers, before.tag).contains(&tag) {
            return Err(format!("row {key} has {tag} again, which was replaced by {record:?}"));
        }
    }
    let deleted = of_key()
        .any(|record| matches!(record.op, Op::Delete { .. }) && record.ended != Ended::Fail);
    if deleted || real_time == RealTime::Waived {
        return Ok(());
    }
    let later = of_key().find(|record| {
        matches!((record.op, &record.ended), (Op::Put { .. }, Ended::Ok(_)))
            && record.asked > heard.saturating_add(APART_NS)
    });
    match later {
        None => Ok(()),
        Some(later) => Err(format!(
            "row {key} has {tag}, heard of at {heard}, though there is the later write {later:?}"
        )),
    }
}

fn gone_rightly(history: &History, last: &BTreeMap<u64, Row>, key: u64) -> Result<(), String> {
    if last.contains_key(&key) {
        return Ok(());
    }
    let mut of_key = history.iter().filter(|record| key_of(record) == Some(key));
    let deleted = of_key
        .clone()
        .any(|record| matches!(record.op, Op::Delete { .. }) && record.ended != Ended::Fail);
    let written =
        of_key.find(|record| matches!((record.op, &record.ended), (Op::Put { .. }, Ended::Ok(_))));
    match written.filter(|_| !deleted) {
        None => Ok(()),
        Some(written) => Err(format!("lost: nobody deleted row {key}, and {written:?}")),
    }
}

fn copies_go_forward(
    history: &History,
    writers: &BTreeMap<u64, &Record<Op, Answer>>,
) -> Result<(), String> {
    let mut reads: BTreeMap<(u32, u64), Vec<(&Record<Op, Answer>, u64)>> = BTreeMap::new();
    for record in history {
        let (Op::Put { key, at, .. } | Op::Delete { key, at } | Op::Read { key, at }) = record.op
        else {
            continue;
        };
        if let Some(row) = row_of(record) {
            reads.entry((at, key)).or_default().push((record, row.tag));
        }
    }
    for ((at, key), reads) in reads {
        for (later, found) in &reads {
            let back = reads.iter().find(|(earlier, before)| {
                earlier.heard < later.asked
                    && before != found
                    && replaced_by(writers, *before).contains(found)
            });
            if let Some((earlier, before)) = back {
                return Err(format!(
                    "row {key} went back on n{at}: {found} was found after {before}, which had replaced it: {earlier:?}, {later:?}"
                ));
            }
        }
    }
    Ok(())
}

fn numbers_are_drawn_once(history: &History) -> Result<(), String> {
    let mut drawn: BTreeMap<i64, &Record<Op, Answer>> = BTreeMap::new();
    for record in history {
        let Ended::Ok(Answer::Drawn(number)) = record.ended else { continue };
        if let Some(other) = drawn.insert(number, record) {
            return Err(format!("{number} was drawn twice: {other:?} and {record:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tag: u64) -> Option<Row> {
        Some(Row { tag, twin: tag })
    }

    fn done(asked: u64, op: Op, found: Option<Row>) -> Record<Op, Answer> {
        let asked = asked * 1_000_000;
        let ended = Ended::Ok(Answer::Found(found));
        Record { client: 1, asked, heard: asked + 1_000_000, op, ended }
    }

    fn put(asked: u64, at: u32, tag: u64, found: Option<Row>) -> Record<Op, Answer> {
        done(asked, Op::Put { key: 1, tag, at }, found)
    }

    fn delete(asked: u64, at: u32, found: Option<Row>) -> Record<Op, Answer> {
        done(asked, Op::Delete { key: 1, at }, found)
    }

    fn read(asked: u64, at: u32, found: Option<Row>) -> Record<Op, Answer> {
        done(asked, Op::Read { key: 1, at }, found)
    }

    fn verdict(history: &History, last: Option<Row>) -> String {
        let last = last.map(|row| (1, row)).into_iter().collect();
        match check(history, &last, RealTime::Demanded) {
            Ok(()) => "good".to_string(),
            Err(what) => what,
        }
    }

    #[test]
    fn of_writes_that_do_not_know_each_other_either_may_win() {
        let history = [put(0, 1, 10, None), put(5, 1, 11, row(10)), put(8, 2, 20, row(10))];
        assert_eq!(verdict(&history, row(11)), "good");
        assert_eq!(verdict(&history, row(20)), "good");
    }

    #[test]
    fn what_was_replaced_does_not_stay_and_is_not_found_again() {
        let chain = [put(0, 1, 10, None), put(5, 1, 11, row(10)), put(8, 1, 12, row(11))];
        assert_eq!(verdict(&chain, row(12)), "good");
        assert!(verdict(&chain, row(10)).contains("has 10 again"));
        let gone = [put(0, 1, 10, None), delete(5, 1, row(10))];
        assert_eq!(verdict(&gone, None), "good");
        assert!(verdict(&gone, row(10)).contains("has 10 again"));
        let mut back = chain.to_vec();
        back.extend([read(20, 2, row(12)), read(30, 2, row(11))]);
        assert!(verdict(&back, row(12)).contains("went back"));
    }

    #[test]
    fn halves_and_failed_and_lost_writes_are_told() {
        let history = [put(0, 1, 10, None), put(5, 2, 20, None)];
        assert!(verdict(&history, Some(Row { tag: 10, twin: 20 })).contains("half"));
        assert!(verdict(&history, row(30)).contains("nobody wrote"));
        assert!(verdict(&history, None).contains("lost"));
        let failed = [Record { ended: Ended::Fail, ..put(0, 1, 10, None) }];
        assert!(verdict(&failed, row(10)).contains("failed"));
    }

    #[test]
    fn a_much_later_write_wins() {
        let history = [put(0, 1, 10, None), put(1000, 2, 20, None)];
        assert!(verdict(&history, row(10)).contains("later write"));
        assert_eq!(verdict(&history, row(20)), "good");
    }

    #[test]
    fn a_number_drawn_twice_is_told() {
        let draw =
            |asked| Record { ended: Ended::Ok(Answer::Drawn(7)), ..done(asked, Op::Draw, None) };
        assert!(verdict(&[draw(0), draw(5)], None).contains("drawn twice"));
    }
}
