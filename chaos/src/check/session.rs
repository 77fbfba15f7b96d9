//! Value: judges session guarantees (Terry 1994) over sets that grow: what a client may rely on when copies lag.
//!
//! Clients add unique items to sets and read whole sets. Per set:
//!
//! - *read your writes*: a read has what the same client was acknowledged before;
//! - *monotonic reads*: a read has what the same client has read before;
//! - *monotonic writes*: whoever sees an item sees what its client had added before it;
//! - *writes follow reads*: whoever sees an item sees what its client had read before it added it.
//!
//! The first two are about one client at one copy, the last two about everybody: causal order.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Ended, Record};

/// What a client does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Adds an item that nobody else adds, ever.
    Add {
        /// To which set.
        set: u64,
        /// What.
        item: u64,
    },
    /// Reads a set.
    Read {
        /// Which.
        set: u64,
    },
}

/// To a read: its items. To an add: none.
pub type Items = BTreeSet<u64>;

/// Judges.
///
/// # Errors
/// The guarantee that is broken, and by whom.
pub fn check(history: &[Record<Op, Items>]) -> Result<(), String> {
    let mut sorted: Vec<&Record<Op, Items>> = history.iter().collect();
    sorted.sort_by_key(|record| record.asked);
    // What must be there wherever this item is.
    let mut before: BTreeMap<u64, Items> = BTreeMap::new();
    let mut added: BTreeMap<(u32, u64), Items> = BTreeMap::new();
    let mut read: BTreeMap<(u32, u64), Items> = BTreeMap::new();
    let mut failed = BTreeSet::new();
    for record in &sorted {
        match (record.op, &record.ended) {
            (Op::Add { set, item }, ended) => {
                let at = (record.client, set);
                let mut needs = added.get(&at).cloned().unwrap_or_default();
                needs.extend(read.get(&at).into_iter().flatten());
                if before.insert(item, needs).is_some() {
                    return Err(format!("malformed history: {item} is added twice"));
                }
                match ended {
                    Ended::Ok(_) => {
                        added.entry(at).or_default().insert(item);
                    }
                    Ended::Fail => {
                        failed.insert(item);
                    }
                    Ended::Unknown => {}
                }
            }
            (Op::Read { set }, Ended::Ok(items)) => {
                let at = (record.client, set);
                if let Some(own) = added.get(&at).and_then(|own| own.difference(items).next()) {
                    return Err(format!("read your writes: {own} is missing in {record}"));
                }
                if let Some(gone) = read.get(&at).and_then(|seen| seen.difference(items).next()) {
                    return Err(format!("monotonic reads: {gone} is missing in {record}"));
                }
                read.entry(at).or_default().extend(items);
            }
            (Op::Read { .. }, Ended::Fail | Ended::Unknown) => {}
        }
    }
    for record in sorted {
        let (Op::Read { .. }, Ended::Ok(items)) = (record.op, &record.ended) else { continue };
        for item in items {
            let Some(needs) = before.get(item) else {
                return Err(format!("{item} was read and never added: {record}"));
            };
            if failed.contains(item) {
                return Err(format!("{item} was read though its add failed: {record}"));
            }
            if let Some(missing) = needs.difference(items).next() {
                return Err(format!(
                    "causal order: {item} is there without {missing}, which its client knew: {record}"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(client: u32, asked: u64, item: u64) -> Record<Op, Items> {
        let op = Op::Add { set: 1, item };
        Record { client, asked, heard: asked + 1, op, ended: Ended::Ok(Items::new()) }
    }

    fn read(client: u32, asked: u64, items: &[u64]) -> Record<Op, Items> {
        let ended = Ended::Ok(items.iter().copied().collect());
        Record { client, asked, heard: asked + 1, op: Op::Read { set: 1 }, ended }
    }

    fn verdict(history: &[Record<Op, Items>]) -> String {
        match check(history) {
            Ok(()) => "good".to_string(),
            Err(what) => what.split(':').next().unwrap_or_default().to_string(),
        }
    }

    #[test]
    fn lagging_copies_are_good_as_long_as_each_client_goes_forward() {
        let history = [
            add(1, 0, 10),
            read(2, 2, &[]),
            add(2, 4, 20),
            read(2, 6, &[20]),
            read(1, 8, &[10]),
            read(2, 10, &[10, 20]),
        ];
        assert_eq!(verdict(&history), "good");
    }

    #[test]
    fn each_guarantee_is_told_by_its_name() {
        assert_eq!(verdict(&[add(1, 0, 10), read(1, 2, &[])]), "read your writes");
        let back = [add(1, 0, 10), read(2, 2, &[10]), read(2, 4, &[])];
        assert_eq!(verdict(&back), "monotonic reads");
        let own = [add(1, 0, 10), add(1, 2, 11), read(2, 4, &[11])];
        assert_eq!(verdict(&own), "causal order");
        let reply = [add(1, 0, 10), read(2, 2, &[10]), add(2, 4, 20), read(3, 6, &[20])];
        assert_eq!(verdict(&reply), "causal order");
    }

    #[test]
    fn an_add_of_unknown_end_may_be_there_or_not_and_a_failed_one_not() {
        let lost = Record { ended: Ended::Unknown, heard: u64::MAX, ..add(1, 0, 10) };
        assert_eq!(verdict(&[lost.clone(), read(1, 2, &[])]), "good");
        assert_eq!(verdict(&[lost, read(1, 2, &[10])]), "good");
        let failed = Record { ended: Ended::Fail, ..add(1, 0, 10) };
        assert!(check(&[failed, read(2, 2, &[10])]).is_err());
    }
}
