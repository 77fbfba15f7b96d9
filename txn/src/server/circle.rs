//! Value: transactions that wait for each other in a circle, as far as one shard's lock tables tell.
//!
//! A circle over several shards is found by those in it, who push each other (`push`): that takes slices of waiting. A circle within
//! one shard is there in its tables the moment that it closes, and whoever takes a place in a queue closes it. So it is looked for there
//! and then, and the youngest of those whose requests are here gives way at once. Left to the pushes is what is not known here (an intent's
//! owner that waits elsewhere, say), and the circle that a batch over several ranges closes which is granted one lock while it waits for
//! another.
//!
//! INVARIANT: of a circle the oldest of the highest priority never gives way, so somebody always gets through.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use super::locks::LockTable;
use crate::api::TxnMeta;
use storage::mvcc::TxnId;

/// A circle that `txn` closes by waiting where it does: its members in the order of waiting, `txn` first. Empty: there is none.
pub(super) fn circle<'a>(tables: &[&'a LockTable], txn: &'a TxnMeta) -> Vec<&'a TxnMeta> {
    // For nobody else is it worth looking: who holds nothing that is wanted is waited for only at its place, and who is behind it there
    // waits already for whomever it waits for; unless it has places in two ranges at once.
    let places = tables.iter().filter(|table| table.has_place(txn.id)).count();
    if places < 2 && !tables.iter().any(|table| table.is_waited_for(txn.id)) {
        return Vec::new();
    }
    // Who was reached, and from whom.
    let mut reached: BTreeMap<TxnId, &'a TxnMeta> = BTreeMap::new();
    let mut open = VecDeque::from([txn]);
    while let Some(waiter) = open.pop_front() {
        for other in tables.iter().flat_map(|table| table.waited_for(waiter.id)) {
            if other.id == txn.id {
                return way_back(&reached, txn, waiter);
            }
            if let Entry::Vacant(unseen) = reached.entry(other.id) {
                unseen.insert(waiter);
                open.push_back(other);
            }
        }
    }
    Vec::new()
}

fn way_back<'a>(
    reached: &BTreeMap<TxnId, &'a TxnMeta>,
    first: &'a TxnMeta,
    last: &'a TxnMeta,
) -> Vec<&'a TxnMeta> {
    let mut circle = vec![last];
    let mut at = last;
    while at.id != first.id {
        at = reached[&at.id];
        circle.push(at);
    }
    circle.reverse();
    circle
}

/// Members of a circle in the order in which they should give way; the one that never does is left out.
pub(super) fn victims<'a>(circle: &[&'a TxnMeta]) -> Vec<&'a TxnMeta> {
    let mut members = circle.to_vec();
    members.sort_by(|a, b| b.yields_to(a).cmp(&a.yields_to(b)));
    members.pop();
    members
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Lock;
    use crate::server::latch::Ticket;
    use crate::server::locks::Release;
    use clock::Timestamp;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use storage::Key;

    const AT: Timestamp = Timestamp::from_raw(5);

    fn txn(number: u8) -> TxnMeta {
        TxnMeta {
            id: TxnId::new(u128::from(number)),
            anchor: Key::new("a"),
            started: Timestamp::from_raw(u64::from(number)),
            priority: 1,
            stage: 0,
        }
    }

    fn key(number: u8) -> Key {
        Key::new(vec![b'a' + number])
    }

    fn numbers(metas: &[&TxnMeta]) -> Vec<u128> {
        metas.iter().map(|meta| meta.id.get()).collect()
    }

    #[test]
    fn a_circle_over_two_ranges_is_found_by_who_closes_it_and_the_youngest_goes_first() {
        let (mut left, mut right) = (LockTable::default(), LockTable::default());
        left.acquire(&key(0), &txn(1), Lock::Exclusive, AT);
        right.acquire(&key(0), &txn(2), Lock::Exclusive, AT);
        left.acquire(&key(1), &txn(3), Lock::Shared, AT);
        right.queue(&key(0), &txn(1), Ticket(1), Lock::Exclusive, AT);
        left.queue(&key(1), &txn(2), Ticket(2), Lock::Exclusive, AT);
        assert!(circle(&[&left, &right], &txn(2)).is_empty());
        left.queue(&key(0), &txn(3), Ticket(3), Lock::Shared, AT);
        let closer = txn(3);
        let tables = [&left, &right];
        let found = circle(&tables, &closer);
        assert_eq!(numbers(&found), [3, 1, 2]);
        assert_eq!(numbers(&victims(&found)), [3, 2]);
    }

    #[test]
    fn who_shares_is_not_waited_for() {
        let mut table = LockTable::default();
        for number in [1, 2] {
            table.acquire(&key(0), &txn(number), Lock::Shared, AT);
        }
        table.acquire(&key(1), &txn(1), Lock::Exclusive, AT);
        table.queue(&key(1), &txn(2), Ticket(1), Lock::Shared, AT);
        assert!(circle(&[&table], &txn(2)).is_empty());
        // Both would have the other's shared lock gone.
        table.queue(&key(0), &txn(1), Ticket(2), Lock::Exclusive, AT);
        assert_eq!(numbers(&circle(&[&table], &txn(1))), [1, 2]);
    }

    /// Who waits where, for what.
    type Waiting = BTreeMap<u8, (u8, Lock)>;

    /// Whoever may have what it waits for takes it, as the woken do.
    fn grant(table: &mut LockTable, waiting: &mut Waiting) {
        waiting.retain(|number, (at, strength)| {
            let waits = table.in_the_way(&key(*at), &txn(*number), *strength).is_some();
            if !waits {
                table.acquire(&key(*at), &txn(*number), *strength, AT);
            }
            waits
        });
    }

    /// The twin: who waits for itself, by following every edge from every transaction.
    fn in_circles(table: &LockTable) -> Vec<u8> {
        let waits_for_itself = |number: &u8| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![txn(*number).id]);
            while let Some(next) = open.pop() {
                open.extend(
                    table.waited_for(next).map(|other| other.id).filter(|id| seen.insert(*id)),
                );
            }
            seen.contains(&txn(*number).id)
        };
        (0..6).filter(waits_for_itself).collect()
    }

    proptest! {
        /// Who queues is looked at, and nobody else: that is enough.
        #[test]
        fn no_circle_is_left_when_victims_give_way(
            steps in proptest::collection::vec((0..6u8, 0..4u8, any::<bool>()), 1..60),
        ) {
            let mut table = LockTable::default();
            let mut waiting = Waiting::new();
            for (ticket, (number, at, shared)) in (1..).zip(steps) {
                let me = txn(number);
                let strength = if shared { Lock::Shared } else { Lock::Exclusive };
                if waiting.contains_key(&number) {
                    continue;
                }
                if table.in_the_way(&key(at), &me, strength).is_none() {
                    table.acquire(&key(at), &me, strength, AT);
                    continue;
                }
                table.queue(&key(at), &me, Ticket(ticket), strength, AT);
                waiting.insert(number, (at, strength));
                loop {
                    let victim = {
                        let tables = [&table];
                        let found = circle(&tables, &me);
                        let oldest = found.iter().map(|meta| meta.id).min();
                        let victim = victims(&found).first().map(|meta| meta.id);
                        prop_assert!(victim.is_none() || victim != oldest);
                        victim
                    };
                    let Some(victim) = victim else { break };
                    table.release(&Release::all(victim, storage::Span::all()));
                    waiting.retain(|number, _| txn(*number).id != victim);
                }
                grant(&mut table, &mut waiting);
                prop_assert_eq!(in_circles(&table), Vec::<u8>::new());
            }
        }
    }
}
