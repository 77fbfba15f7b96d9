//! Value behind a lock: what this gateway's open transactions read at. The oldest of it is what history must be kept for.
//!
//! A transaction's timestamp only rises; what stands here may lag behind it, which keeps history for longer than needed.

use clock::Timestamp;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Default)]
struct Open {
    next: u64,
    by_number: BTreeMap<u64, Timestamp>,
    by_time: BTreeSet<(Timestamp, u64)>,
}

/// All open transactions of a gateway.
#[derive(Clone, Default)]
pub(crate) struct OpenTxns {
    open: Arc<Mutex<Open>>,
}

/// One of them, until it is dropped.
pub(crate) struct OpenMark {
    number: u64,
    of: OpenTxns,
}

impl OpenTxns {
    pub(crate) fn enter(&self, at: Timestamp) -> OpenMark {
        let mut open = self.open.lock();
        open.next += 1;
        let number = open.next;
        open.by_number.insert(number, at);
        open.by_time.insert((at, number));
        OpenMark { number, of: self.clone() }
    }

    /// The lowest timestamp that any of them reads at.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        self.open.lock().by_time.first().map(|(at, _)| *at)
    }
}

impl OpenMark {
    /// It reads at `at` from now on.
    pub(crate) fn move_to(&self, at: Timestamp) {
        let mut open = self.of.open.lock();
        if let Some(before) = open.by_number.insert(self.number, at) {
            open.by_time.remove(&(before, self.number));
        }
        open.by_time.insert((at, self.number));
    }
}

impl Drop for OpenMark {
    fn drop(&mut self) {
        let mut open = self.of.open.lock();
        if let Some(at) = open.by_number.remove(&self.number) {
            open.by_time.remove(&(at, self.number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_the_oldest_that_is_open() {
        let at = Timestamp::from_raw;
        let open = OpenTxns::default();
        assert_eq!(open.oldest(), None);
        let (one, other) = (open.enter(at(5)), open.enter(at(3)));
        assert_eq!(open.oldest(), Some(at(3)));
        other.move_to(at(9));
        assert_eq!(open.oldest(), Some(at(5)));
        drop(one);
        assert_eq!(open.oldest(), Some(at(9)));
        drop(other);
        assert_eq!(open.oldest(), None);
    }
}
