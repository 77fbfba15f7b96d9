//! Value: commits that readers have moved. Who has read much takes long to look at all of it again, and may never end while readers
//! move it in the meantime. So the ranges that keep records let such a transaction alone, each time for twice as long: readers that come
//! after it wait until then. The oldest one is moved by nobody in the end, and it is never held up itself.
//!
//! In memory, and only at the record's range: forgotten, it costs moves.

use clock::Monotonic;
use std::collections::BTreeMap;
use std::time::Duration;
use storage::mvcc::TxnId;

/// A commit that was moved once may be moved again; after the second time it is let alone for this long.
const ALONE_MIN: Duration = Duration::from_millis(200);
/// Times two for each further time, up to this.
const ALONE_MAX: Duration = Duration::from_secs(10);
/// A transaction that does not come again for so long is forgotten.
const KEPT: Duration = Duration::from_secs(20);
/// Transactions remembered; beyond it those that have not come for longest go.
const MOVED_MAX: usize = 1_000;

/// See the module.
#[derive(Clone, Default, Debug)]
pub(super) struct MovedCommits {
    by: BTreeMap<TxnId, Moved>,
}

#[derive(Clone, Copy, Debug)]
struct Moved {
    times: u32,
    last: Monotonic,
}

impl Moved {
    fn alone(self) -> Duration {
        let doubled = match self.times {
            0 | 1 => return Duration::ZERO,
            times => ALONE_MIN.saturating_mul(1 << (times - 2).min(16)),
        };
        doubled.min(ALONE_MAX)
    }
}

impl MovedCommits {
    /// A commit was refused at its timestamp.
    pub(super) fn note(&mut self, txn: TxnId, now: Monotonic) {
        let times = self.by.get(&txn).map_or(0, |moved| moved.times);
        self.by.insert(txn, Moved { times: times.saturating_add(1), last: now });
        if self.by.len() > MOVED_MAX {
            let oldest = self.by.iter().min_by_key(|(_, moved)| moved.last).map(|(txn, _)| *txn);
            oldest.map(|txn| self.by.remove(&txn));
        }
    }

    /// Whether readers that come after it should wait for it.
    pub(super) fn is_let_alone(&self, txn: TxnId, now: Monotonic) -> bool {
        self.by.get(&txn).is_some_and(|moved| now.since(moved.last) < moved.alone())
    }

    /// Forgets those that do not come any more.
    pub(super) fn expire(&mut self, now: Monotonic) {
        self.by.retain(|_, moved| now.since(moved.last) < KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn each_move_lets_it_alone_for_twice_as_long() {
        let (mut moved, id) = (MovedCommits::default(), TxnId::new(1));
        let mut alone = |now: u64| {
            moved.note(id, at(now));
            (0..=11_000).find(|millis| !moved.is_let_alone(id, at(now + millis))).unwrap()
        };
        let times: Vec<u64> = (0..9).map(|n| alone(n * 20_000)).collect();
        assert_eq!(times, [0, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        assert!(!moved.is_let_alone(TxnId::new(2), at(0)), "another");
    }

    #[test]
    fn who_stays_away_is_forgotten_and_so_is_the_oldest_of_too_many() {
        let mut moved = MovedCommits::default();
        let [first, second] = [1, 2].map(TxnId::new);
        for (id, now) in [(first, 0), (first, 1), (second, 10_000), (second, 10_001)] {
            moved.note(id, at(now));
        }
        moved.expire(at(20_001));
        assert_eq!(moved.by.keys().collect::<Vec<_>>(), [&second]);
        for n in 0..MOVED_MAX as u128 {
            moved.note(TxnId::new(100 + n), at(20_002));
        }
        assert!(!moved.by.contains_key(&second) && moved.by.len() == MOVED_MAX);
    }
}
