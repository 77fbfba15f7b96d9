//! Value: judges an index against its table (killer Q08): for every row one entry, for every entry one row.
//!
//! Both must be read in one transaction. A history is of such looks, each at some indexes.

use std::collections::BTreeMap;
use std::fmt::Debug;

use crate::history::{Ended, Record};

/// Reads some indexes and their tables, in one transaction: the indexes' names.
pub type Look = Vec<String>;

/// What a table and an index of it say, in any order: (primary key, indexed value).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compared<K, V> {
    /// As the table says.
    pub table: Vec<(K, V)>,
    /// As the index says.
    pub index: Vec<(K, V)>,
}

/// By index, in the order in which they were asked for.
pub type Seen<K, V> = Vec<Compared<K, V>>;

/// Judges all looks of a history.
///
/// # Errors
/// The first index that does not say what its table says.
pub fn check_all<K: Ord + Clone + Debug, V: Ord + Clone + Debug>(
    history: &[Record<Look, Seen<K, V>>],
) -> Result<(), String> {
    for record in history {
        let Ended::Ok(seen) = &record.ended else { continue };
        for (name, Compared { table, index }) in record.op.iter().zip(seen) {
            check(name, table, index)?;
        }
    }
    Ok(())
}

/// `table` holds (primary key, indexed value) as the table says, `index` the same as the index says, in any order.
///
/// # Errors
/// A row without its entry, an entry without its row, or either of them twice.
pub fn check<K: Ord + Clone + Debug, V: Ord + Clone + Debug>(
    name: &str,
    table: &[(K, V)],
    index: &[(K, V)],
) -> Result<(), String> {
    let count = |rows: &[(K, V)]| {
        let mut counts: BTreeMap<(K, V), usize> = BTreeMap::new();
        for row in rows {
            *counts.entry(row.clone()).or_default() += 1;
        }
        counts
    };
    let (rows, entries) = (count(table), count(index));
    if let Some((row, _)) = rows.iter().find(|(_, count)| **count > 1) {
        return Err(format!("{name}: the table has {row:?} twice"));
    }
    if let Some((entry, _)) = entries.iter().find(|(_, count)| **count > 1) {
        return Err(format!("{name}: the index has {entry:?} twice"));
    }
    if let Some(row) = rows.keys().find(|row| !entries.contains_key(row)) {
        return Err(format!("{name}: the table has {row:?}, the index has not"));
    }
    match entries.keys().find(|entry| !rows.contains_key(entry)) {
        None => Ok(()),
        Some(entry) => Err(format!("{name}: the index has {entry:?}, the table has not")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_entry_and_every_entry_its_row() {
        let table = [(1, "a"), (2, "b")];
        assert_eq!(check("i", &table, &[(2, "b"), (1, "a")]), Ok(()));
        assert!(check("i", &table, &[(1, "a")]).is_err());
        assert!(check("i", &table, &[(1, "a"), (2, "b"), (3, "c")]).is_err());
        assert!(check("i", &table, &[(1, "a"), (2, "c")]).is_err());
        assert!(check("i", &table, &[(1, "a"), (1, "a"), (2, "b")]).is_err());
    }
}
