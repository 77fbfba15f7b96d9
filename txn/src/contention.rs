//! Value: what waits for what: the keys that transactions wait for and fail over, with how often and how long. For people; nothing
//! depends on it.
//!
//! Ranges note waits (they see every one, however short), gateways note failures (only they know that a transaction had to be run
//! again). Both keep the same few keys' worth, and whoever shows it adds up what all nodes have ([`Contention::merge`]).
//!
//! Memory is bounded ([`KEYS_MAX`]). A key that is new takes the place of the one with the least weight and inherits that weight
//! (space-saving, Metwally 2005), so that a key that comes again and again stays even among many that come once. Weights fade, so
//! that what was contended yesterday makes room. The numbers shown are exact since the key was taken up: at most too low.

use clock::{Monotonic, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;
use storage::Key;
use storage::mvcc::TxnId;

/// Keys that are remembered.
pub const KEYS_MAX: usize = 256;
/// Waiting transactions told apart per key; of more, each slice of waiting counts as a wait of its own.
const WAITERS_MAX: usize = 64;
/// A transaction that comes back to the same key so soon has not stopped waiting: its gateway was asking after the holder.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// After so many notes all weights are halved.
const FADE_EVERY: u64 = 4_096;

/// What is known of one key.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct KeyContention {
    /// Transactions that waited for it.
    pub waits: u64,
    /// All their waiting together.
    pub waited: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// Transactions that could not go on because of it and had to be run again; by the server or, after a 40001, by the client.
    pub retries: u64,
    /// Transactions that gave way in a deadlock over it.
    pub deadlocks: u64,
    /// Who came to grief here last; with `holder` and `at`.
    pub waiter: Option<TxnId>,
    /// Who was in the way.
    pub holder: Option<TxnId>,
    /// When.
    pub at: Timestamp,
}

/// Why a transaction could not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// It has to be run again.
    Retry,
    /// It gave way in a deadlock.
    Deadlock,
}

/// A stretch of waiting.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// Who waited; `None`: nobody that can be told apart.
    pub waiter: Option<TxnId>,
    /// For whom.
    pub holder: TxnId,
    /// When it began.
    pub since: Monotonic,
    /// When it ended.
    pub until: Monotonic,
}

/// A transaction whose waiting may not be over.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    txn: TxnId,
    since: Monotonic,
    until: Monotonic,
}

#[derive(Clone, Default, Debug)]
struct Tracked {
    known: KeyContention,
    weight: u64,
    waiting: Vec<Waiting>,
}

/// See the module.
#[derive(Clone, Default, Debug)]
pub struct Contention {
    keys: BTreeMap<Key, Tracked>,
    notes: u64,
}

impl Contention {
    /// Somebody has waited. Stretches of one transaction that follow each other are one wait.
    pub fn note_wait(&mut self, key: &Key, stretch: Stretch, at: Timestamp) {
        let tracked = self.tracked(key);
        let Stretch { waiter, holder, since, until } = stretch;
        tracked.waiting.retain(|waiting| since.since(waiting.until) < PAUSE_MAX);
        let whole = match tracked.waiting.iter_mut().find(|waiting| Some(waiting.txn) == waiter) {
            Some(waiting) => {
                // What lay between counts, too: it was spent on asking after the holder.
                tracked.known.waited += until.since(waiting.until);
                waiting.until = until;
                until.since(waiting.since)
            }
            None => {
                tracked.known.waits += 1;
                tracked.known.waited += until.since(since);
                if let Some(txn) = waiter.filter(|_| tracked.waiting.len() < WAITERS_MAX) {
                    tracked.waiting.push(Waiting { txn, since, until });
                }
                until.since(since)
            }
        };
        let known = &mut tracked.known;
        known.longest = known.longest.max(whole);
        (known.waiter, known.holder, known.at) = (waiter, Some(holder), at);
    }

    /// A transaction could not go on.
    pub fn note_failure(
        &mut self,
        key: &Key,
        failure: Failure,
        (waiter, holder): (TxnId, Option<TxnId>),
        at: Timestamp,
    ) {
        let known = &mut self.tracked(key).known;
        match failure {
            Failure::Retry => known.retries += 1,
            Failure::Deadlock => known.deadlocks += 1,
        }
        (known.waiter, known.holder, known.at) = (Some(waiter), holder, at);
    }

    /// All that is known, in key order.
    pub fn keys(&self) -> Vec<(Key, KeyContention)> {
        self.keys.iter().map(|(key, tracked)| (key.clone(), tracked.known.clone())).collect()
    }

    /// Adds up what several have noted, in key order.
    pub fn merge(
        parts: impl IntoIterator<Item = (Key, KeyContention)>,
    ) -> Vec<(Key, KeyContention)> {
        let mut all: BTreeMap<Key, KeyContention> = BTreeMap::new();
        for (key, part) in parts {
            let sum = all.entry(key).or_default();
            sum.waits += part.waits;
            sum.waited += part.waited;
            sum.longest = sum.longest.max(part.longest);
            sum.retries += part.retries;
            sum.deadlocks += part.deadlocks;
            if part.at >= sum.at {
                (sum.waiter, sum.holder, sum.at) = (part.waiter, part.holder, part.at);
            }
        }
        all.into_iter().collect()
    }

    fn tracked(&mut self, key: &Key) -> &mut Tracked {
        self.notes += 1;
        if self.notes.is_multiple_of(FADE_EVERY) {
            self.keys.values_mut().for_each(|tracked| tracked.weight /= 2);
        }
        let mut weight = 0;
        if self.keys.len() >= KEYS_MAX && !self.keys.contains_key(key) {
            let least = self.keys.iter().min_by_key(|(_, tracked)| tracked.weight);
            if let Some(least) = least.map(|(key, _)| key.clone()) {
                weight = self.keys.remove(&least).map_or(0, |tracked| tracked.weight);
            }
        }
        let tracked = self.keys.entry(key.clone()).or_default();
        tracked.weight = tracked.weight.max(weight) + 1;
        tracked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AT: Timestamp = Timestamp::from_raw(7);

    fn stretch(waiter: u128, since_ms: u64, until_ms: u64) -> Stretch {
        let moment = |ms: u64| Monotonic::ZERO.plus(Duration::from_millis(ms));
        Stretch {
            waiter: Some(TxnId::new(waiter)),
            holder: TxnId::new(99),
            since: moment(since_ms),
            until: moment(until_ms),
        }
    }

    #[test]
    fn slices_of_one_wait_are_one_wait() {
        let mut contention = Contention::default();
        let key = Key::new("k");
        contention.note_wait(&key, stretch(1, 0, 100), AT);
        contention.note_wait(&key, stretch(2, 50, 80), AT);
        contention.note_wait(&key, stretch(1, 120, 220), AT);
        // Long after: the same transaction has begun to wait again.
        contention.note_wait(&key, stretch(1, 5_000, 5_001), AT);
        let (_, known) = contention.keys().pop().expect("one key");
        assert_eq!(known.waits, 3);
        assert_eq!(known.longest, Duration::from_millis(220));
        assert_eq!(known.waited, Duration::from_millis(220 + 30 + 1));
        assert_eq!((known.waiter, known.holder), (Some(TxnId::new(1)), Some(TxnId::new(99))));
    }

    #[test]
    fn whoever_is_last_is_named_and_the_rest_is_added_up() {
        let part = |waits, longest_ms, at, holder| KeyContention {
            waits,
            waited: Duration::from_millis(longest_ms),
            longest: Duration::from_millis(longest_ms),
            retries: 1,
            deadlocks: 2,
            waiter: None,
            holder: Some(TxnId::new(holder)),
            at: Timestamp::from_raw(at),
        };
        let key = Key::new("k");
        let merged =
            Contention::merge([(key.clone(), part(3, 10, 9, 1)), (key, part(4, 20, 8, 2))]);
        let [(_, sum)] = merged.as_slice() else { panic!("one key") };
        assert_eq!((sum.waits, sum.retries, sum.deadlocks), (7, 2, 4));
        assert_eq!(
            (sum.waited, sum.longest),
            (Duration::from_millis(30), Duration::from_millis(20))
        );
        assert_eq!(sum.holder, Some(TxnId::new(1)));
    }

    proptest! {
        /// However many come once, who comes again and again is there, and nothing grows.
        #[test]
        fn a_hot_key_stays_among_many_cold_ones(seed: u64, cold in 1_000..3_000_u64) {
            let mut contention = Contention::default();
            let hot = Key::new("hot");
            for number in 0..cold {
                let key = Key::new((seed ^ number).to_be_bytes().to_vec());
                contention.note_wait(&key, stretch(u128::from(number), number, number + 1), AT);
                if number % 8 == 0 {
                    contention.note_failure(&hot, Failure::Retry, (TxnId::new(1), None), AT);
                }
                prop_assert!(contention.keys.len() <= KEYS_MAX);
            }
            prop_assert!(contention.keys.contains_key(&hot));
        }
    }
}
