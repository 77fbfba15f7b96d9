//! Value: judges inserts that forbid each other (Adya's G2; killer T06). Each transaction looks with a predicate whether a group has a row, and
//! inserts one only if it has none. Serializable transactions leave at most one row per group; write skew leaves several.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Ended, Record};

/// An attempt: put this row into this group if the group is empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Insert {
    /// The group.
    pub group: u64,
    /// The row, unique among all attempts.
    pub row: u64,
}

/// Whether the group was empty, and so the row inserted.
pub type Inserted = bool;

/// Judges; `last` are the rows of each group after everything has ended, if they were read.
///
/// # Errors
/// What is wrong.
pub fn check(
    history: &[Record<Insert, Inserted>],
    last: Option<&BTreeMap<u64, Vec<u64>>>,
) -> Result<(), String> {
    let mut winners: BTreeMap<u64, &Record<Insert, Inserted>> = BTreeMap::new();
    let mut rows = BTreeSet::new();
    for record in history {
        if !rows.insert(record.op.row) {
            return Err(format!("malformed history: {} is inserted twice", record.op.row));
        }
        if record.ended == Ended::Ok(true)
            && let Some(former) = winners.insert(record.op.group, record)
        {
            return Err(format!(
                "G2: two inserts that exclude each other:\n  {former:?}\n  {record:?}"
            ));
        }
    }
    let Some(last) = last else { return Ok(()) };
    for (group, rows) in last {
        if rows.len() > 1 {
            return Err(format!("G2: group {group} has several rows: {rows:?}"));
        }
        for row in rows {
            let attempt =
                history.iter().find(|record| record.op == Insert { group: *group, row: *row });
            match attempt.map(|record| &record.ended) {
                None => return Err(format!("row {row} of group {group} was never inserted")),
                Some(Ended::Fail | Ended::Ok(false)) => {
                    return Err(format!(
                        "row {row} of group {group} is there though its insert was said to have failed"
                    ));
                }
                Some(Ended::Ok(true) | Ended::Unknown) => {}
            }
        }
    }
    for (group, record) in winners {
        if !last.get(&group).is_some_and(|rows| rows.contains(&record.op.row)) {
            return Err(format!("lost: {record:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(row: u64, ended: Ended<Inserted>) -> Record<Insert, Inserted> {
        Record { client: 1, asked: 0, heard: 9, op: Insert { group: 1, row }, ended }
    }

    fn verdict(history: &[Record<Insert, Inserted>], rows: &[u64]) -> String {
        match check(history, Some(&BTreeMap::from([(1, rows.to_vec())]))) {
            Ok(()) => "good".to_string(),
            Err(what) => what.split(':').next().unwrap_or_default().to_string(),
        }
    }

    #[test]
    fn one_winner_is_good_two_are_skew() {
        let (won, lost) = (attempt(10, Ended::Ok(true)), attempt(11, Ended::Ok(false)));
        assert_eq!(verdict(&[won.clone(), lost], &[10]), "good");
        assert_eq!(verdict(&[won.clone(), attempt(11, Ended::Ok(true))], &[10, 11]), "G2");
        assert_eq!(verdict(&[won.clone(), attempt(11, Ended::Unknown)], &[10, 11]), "G2");
        assert_eq!(verdict(&[attempt(11, Ended::Unknown)], &[11]), "good");
        assert_eq!(verdict(&[won], &[]), "lost");
    }

    #[test]
    fn what_failed_is_not_there() {
        let what = verdict(&[attempt(10, Ended::Fail)], &[10]);
        assert!(what.contains("said to have failed"), "{what}");
    }
}
