//! Value: judges copies after everything has healed: all equal, and holding what was acknowledged.
//!
//! [`check_copies`] compares what the copies show; [`check_counters`] judges one of them against increments: each counter must be the sum of
//! what was acknowledged and of some of what nobody knows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use crate::history::{Ended, Record};

/// Sums of increments of unknown end that are told apart; beyond, only their bounds are.
const SUMS_MAX: usize = 1 << 16;

/// All copies show the same.
///
/// # Errors
/// Two that differ.
pub fn check_copies<N: Debug, V: PartialEq + Debug>(copies: &BTreeMap<N, V>) -> Result<(), String> {
    let Some((first_name, first)) = copies.iter().next() else {
        return Err("no copy was read".to_string());
    };
    match copies.iter().find(|(_, copy)| *copy != first) {
        None => Ok(()),
        Some((name, copy)) => Err(format!(
            "the copies are not equal: {first_name:?} has {first:?}, {name:?} has {copy:?}"
        )),
    }
}

/// A counter and what is added to it.
pub type Increment = (u64, i64);

/// Every counter is a sum that the history allows; `copy` holds what is not zero.
///
/// # Errors
/// The counter that is not.
pub fn check_counters(
    history: &[Record<Increment, ()>],
    copy: &BTreeMap<u64, i64>,
) -> Result<(), String> {
    let mut sums: BTreeMap<u64, Sums> = BTreeMap::new();
    for counter in copy.keys() {
        sums.entry(*counter).or_default();
    }
    for record in history {
        let (counter, amount) = record.op;
        let sums = sums.entry(counter).or_default();
        match record.ended {
            Ended::Ok(()) => sums.certain += amount,
            Ended::Fail => {}
            Ended::Unknown => sums.perhaps(amount),
        }
    }
    for (counter, sums) in sums {
        let value = copy.get(&counter).copied().unwrap_or(0);
        if !sums.allow(value) {
            return Err(format!(
                "counter {counter} is {value}; what was acknowledged is {}, and what is unknown may add {:?}",
                sums.certain, sums.unknown
            ));
        }
    }
    Ok(())
}

struct Sums {
    certain: i64,
    unknown: BTreeSet<i64>,
    bounds: Option<(i64, i64)>,
}

impl Default for Sums {
    fn default() -> Sums {
        Sums { certain: 0, unknown: BTreeSet::from([0]), bounds: None }
    }
}

impl Sums {
    fn perhaps(&mut self, amount: i64) {
        if let Some((low, high)) = &mut self.bounds {
            *low += amount.min(0);
            *high += amount.max(0);
            return;
        }
        let more: Vec<i64> = self.unknown.iter().map(|sum| sum + amount).collect();
        self.unknown.extend(more);
        if self.unknown.len() > SUMS_MAX {
            self.bounds = self.unknown.first().copied().zip(self.unknown.last().copied());
        }
    }

    fn allow(&self, value: i64) -> bool {
        match self.bounds {
            Some((low, high)) => (low..=high).contains(&(value - self.certain)),
            None => self.unknown.contains(&(value - self.certain)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(amount: i64, ended: Ended<()>) -> Record<Increment, ()> {
        Record { client: 1, asked: 0, heard: 1, op: (0, amount), ended }
    }

    #[test]
    fn an_unknown_increment_counts_once_or_never() {
        let history = [record(5, Ended::Ok(())), record(3, Ended::Unknown), record(7, Ended::Fail)];
        for (value, good) in [(5, true), (8, true), (3, false), (11, false), (12, false)] {
            let copy = BTreeMap::from([(0, value)]);
            assert_eq!(check_counters(&history, &copy).is_ok(), good, "{value}");
        }
        assert!(check_counters(&history, &BTreeMap::new()).is_err());
    }

    #[test]
    fn copies_must_be_equal() {
        assert_eq!(check_copies(&BTreeMap::from([(1, "a"), (2, "a")])), Ok(()));
        assert!(check_copies(&BTreeMap::from([(1, "a"), (2, "b")])).is_err());
        assert!(check_copies::<u32, u32>(&BTreeMap::new()).is_err());
    }
}
