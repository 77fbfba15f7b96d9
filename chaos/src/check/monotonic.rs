//! Value: judges counters that only grow: every increment has a value of its own, and nobody, whichever gateway they ask, sees a counter go back
//! after somebody has heard a higher value (real time), or after they have themselves (session).

use std::collections::BTreeMap;

use super::Level;
use crate::history::{Ended, Record};

/// What a client does to a counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Adds one; the answer is the value after it.
    Increment(u64),
    /// Reads.
    Read(u64),
}

/// The value.
pub type Value = u64;

/// Judges.
///
/// # Errors
/// Who saw what go back.
pub fn check(history: &[Record<Op, Value>], level: Level) -> Result<(), String> {
    let mut by_counter: BTreeMap<u64, Vec<(&Record<Op, Value>, Value)>> = BTreeMap::new();
    let mut winners: BTreeMap<(u64, Value), &Record<Op, Value>> = BTreeMap::new();
    for record in history {
        let Ended::Ok(value) = record.ended else { continue };
        let counter = match record.op {
            Op::Increment(counter) => {
                if let Some(former) = winners.insert((counter, value), record) {
                    return Err(format!(
                        "lost update: two increments made the same value:\n  {former}\n  {record}"
                    ));
                }
                counter
            }
            Op::Read(counter) => counter,
        };
        by_counter.entry(counter).or_default().push((record, value));
    }
    for seen in by_counter.values_mut() {
        seen.sort_by_key(|(record, _)| record.asked);
        let mut of_client: BTreeMap<u32, (&Record<Op, Value>, Value)> = BTreeMap::new();
        for (record, value) in seen.iter() {
            let most = of_client.entry(record.client).or_insert((record, *value));
            if *value < most.1 && level != Level::Serializable {
                return Err(format!("a client saw a counter go back:\n  {}\n  {record}", most.0));
            }
            if *value >= most.1 {
                *most = (record, *value);
            }
        }
        if matches!(level, Level::KeyRealTime | Level::Strict) {
            check_real_time(seen)?;
        }
    }
    Ok(())
}

/// In the order of asking, against the highest value that was heard before.
fn check_real_time(seen: &[(&Record<Op, Value>, Value)]) -> Result<(), String> {
    let mut heard = seen.to_vec();
    heard.sort_by_key(|(record, _)| record.heard);
    let mut answers = heard.into_iter().peekable();
    let mut most: Option<(&Record<Op, Value>, Value)> = None;
    for (record, value) in seen {
        while let Some(answer) = answers.next_if(|(answer, _)| answer.heard < record.asked) {
            if most.is_none_or(|(_, most)| answer.1 > most) {
                most = Some(answer);
            }
        }
        if let Some((former, most)) = most
            && *value < most
        {
            return Err(format!("a counter went back:\n  {former}\n  {record}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(client: u32, asked: u64, heard: u64, op: Op, value: Value) -> Record<Op, Value> {
        Record { client, asked, heard, op, ended: Ended::Ok(value) }
    }

    #[test]
    fn growing_is_good_and_going_back_is_not() {
        let up = record(1, 0, 1, Op::Increment(7), 1);
        let same = record(2, 0, 5, Op::Read(7), 0);
        let all = [Level::Serializable, Level::Session, Level::KeyRealTime];
        for level in all {
            assert_eq!(check(&[up.clone(), same.clone()], level), Ok(()));
        }
        let stale = record(2, 2, 5, Op::Read(7), 0);
        let verdicts = all.map(|level| check(&[up.clone(), stale.clone()], level).is_ok());
        assert_eq!(verdicts, [true, true, false]);
        let own = record(1, 2, 5, Op::Read(7), 0);
        let verdicts = all.map(|level| check(&[up.clone(), own.clone()], level).is_ok());
        assert_eq!(verdicts, [true, false, false]);
        let elsewhere = record(1, 2, 5, Op::Read(8), 0);
        assert_eq!(check(&[up, elsewhere], Level::Strict), Ok(()));
    }

    #[test]
    fn two_increments_to_one_value_lost_one() {
        let first = record(1, 0, 9, Op::Increment(7), 1);
        let second = record(2, 0, 9, Op::Increment(7), 1);
        assert!(check(&[first, second], Level::Serializable).is_err());
    }
}
