//! Value: judges readers of independent writes: do all of them agree on an order of the writes?
//!
//! Each key is written once, alone. A reader sees which keys are written already. Two readers of which each sees a write that the
//! other does not have seen two different pasts: a *long fork*, which snapshot isolation forbids and parallel snapshot isolation
//! allows (killer H16). In real time, a reader that was asked after another was answered sees no less.

use std::collections::BTreeSet;

use super::Level;
use crate::history::{Ended, Record};

/// What a client does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Writes this key, which nobody else does.
    Write(u64),
    /// Reads these keys in one transaction.
    Read(Vec<u64>),
}

/// To a read: those of the keys that were written. To a write: none.
pub type Seen = BTreeSet<u64>;

/// Judges.
///
/// # Errors
/// The two readers that disagree, or what else is wrong.
pub fn check(history: &[Record<Op, Seen>], level: Level) -> Result<(), String> {
    let mut written = BTreeSet::new();
    let mut failed = BTreeSet::new();
    for record in history {
        if let Op::Write(key) = record.op {
            if !written.insert(key) {
                return Err(format!("malformed history: {key} is written twice"));
            }
            if record.ended == Ended::Fail {
                failed.insert(key);
            }
        }
    }
    let readers: Vec<(&Record<Op, Seen>, BTreeSet<u64>, &Seen)> = history
        .iter()
        .filter_map(|record| match (&record.op, &record.ended) {
            (Op::Read(keys), Ended::Ok(seen)) => {
                Some((record, keys.iter().copied().collect(), seen))
            }
            (Op::Read(_) | Op::Write(_), Ended::Ok(_) | Ended::Fail | Ended::Unknown) => None,
        })
        .collect();
    for (record, _, seen) in &readers {
        if let Some(key) = seen.iter().find(|key| !written.contains(key)) {
            return Err(format!("{key} was read and never written: {record}"));
        }
        if let Some(key) = seen.iter().find(|key| failed.contains(key)) {
            return Err(format!("G1a: {key} was read though its write failed: {record}"));
        }
    }
    for (place, (first, keys, seen)) in readers.iter().enumerate() {
        for (second, other_keys, other_seen) in &readers[place + 1..] {
            let alone = |mine: &Seen, theirs: &Seen, looked: &BTreeSet<u64>| {
                mine.iter().any(|key| !theirs.contains(key) && looked.contains(key))
            };
            let (ahead, behind) =
                (alone(seen, other_seen, other_keys), alone(other_seen, seen, keys));
            if ahead && behind {
                return Err(format!("long fork:\n  {first}\n  {second}"));
            }
            let backwards =
                ahead && first.heard < second.asked || behind && second.heard < first.asked;
            if backwards && matches!(level, Level::KeyRealTime | Level::Strict) {
                return Err(format!("a later reader sees less:\n  {first}\n  {second}"));
            }
        }
    }
    if matches!(level, Level::KeyRealTime | Level::Strict) {
        check_acknowledged(history, &readers)?;
    }
    Ok(())
}

/// A reader sees what was acknowledged before it was asked.
fn check_acknowledged(
    history: &[Record<Op, Seen>],
    readers: &[(&Record<Op, Seen>, BTreeSet<u64>, &Seen)],
) -> Result<(), String> {
    for record in history {
        let (Op::Write(key), Ended::Ok(_)) = (&record.op, &record.ended) else { continue };
        let missed = readers.iter().find(|(reader, keys, seen)| {
            record.heard < reader.asked && keys.contains(key) && !seen.contains(key)
        });
        if let Some((reader, _, _)) = missed {
            return Err(format!("stale read:\n  {record}\n  {reader}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(asked: u64, heard: u64, key: u64) -> Record<Op, Seen> {
        Record { client: 1, asked, heard, op: Op::Write(key), ended: Ended::Ok(Seen::new()) }
    }

    fn read(asked: u64, heard: u64, keys: &[u64], seen: &[u64]) -> Record<Op, Seen> {
        let ended = Ended::Ok(seen.iter().copied().collect());
        Record { client: 2, asked, heard, op: Op::Read(keys.to_vec()), ended }
    }

    fn verdict(history: &[Record<Op, Seen>], level: Level) -> String {
        match check(history, level) {
            Ok(()) => "good".to_string(),
            Err(what) => what.split(':').next().unwrap_or_default().to_string(),
        }
    }

    #[test]
    fn readers_that_see_one_order_are_good() {
        let history = [
            write(0, 9, 1),
            write(0, 9, 2),
            read(1, 3, &[1, 2], &[]),
            read(2, 4, &[1, 2], &[2]),
            read(2, 5, &[1, 2], &[1, 2]),
            read(2, 5, &[1], &[]),
        ];
        assert_eq!(verdict(&history, Level::Strict), "good");
    }

    #[test]
    fn readers_that_see_two_orders_are_a_long_fork() {
        let history =
            [write(0, 9, 1), write(0, 9, 2), read(1, 5, &[1, 2], &[1]), read(1, 5, &[1, 2], &[2])];
        assert_eq!(verdict(&history, Level::Serializable), "long fork");
    }

    #[test]
    fn real_time_forbids_to_see_less_and_to_miss_what_was_acknowledged() {
        let less = [write(0, 99, 1), read(1, 2, &[1], &[1]), read(3, 4, &[1], &[])];
        assert_eq!(verdict(&less, Level::Serializable), "good");
        assert_eq!(verdict(&less, Level::KeyRealTime), "a later reader sees less");
        let missed = [write(0, 1, 1), read(3, 4, &[1], &[])];
        assert_eq!(verdict(&missed, Level::Serializable), "good");
        assert_eq!(verdict(&missed, Level::KeyRealTime), "stale read");
    }

    #[test]
    fn what_failed_or_never_was_is_not_read() {
        let failed = Record { ended: Ended::Fail, ..write(0, 1, 1) };
        assert_eq!(verdict(&[failed, read(2, 3, &[1], &[1])], Level::Serializable), "G1a");
        assert!(check(&[read(2, 3, &[1], &[1])], Level::Serializable).is_err());
    }
}
