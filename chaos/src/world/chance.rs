//! Value: the seed's random streams. Each kind of chance has its own, so that a change in one (a packet more, a fault less) does
//! not shift the others, and a failure can be shrunk.

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

/// What a stream decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Latency, loss, duplication, order.
    Network,
    /// Time of a sync, what a crash leaves.
    Disk,
    /// Drift and steps.
    Clock,
    /// What clients do.
    Workload,
    /// Which faults, when, for how long.
    Nemesis,
    /// Which of several ready tasks goes first, ties of events.
    Schedule,
    /// Randomness of the nodes themselves.
    Nodes,
    /// Sizes and limits of this seed's cluster.
    Knobs,
    /// What happens to ranges and members while the load runs, and faults that aim at it.
    Topology,
    /// Faults that aim at rare branches of the product.
    Raids,
    /// When history is collected, and how much of it.
    History,
    /// Whole orders of events.
    Ordeals,
    /// Which hardships a seed has beside its plan.
    Hardships,
    /// Links that are not like all others.
    Links,
    /// Faults of the state's disk.
    State,
    /// Rare turns in the product.
    Rare,
    /// Small limits.
    Limits,
    /// What is not healed at once.
    Core,
}

/// One stream.
#[derive(Clone, Debug)]
pub struct Chance(ChaCha8Rng);

impl Chance {
    /// The stream of `seed` for `purpose`.
    pub fn new(seed: u64, purpose: Purpose) -> Chance {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(purpose as u64 + 1);
        Chance(rng)
    }

    /// A stream of its own, drawn from this one.
    pub fn split(&mut self) -> Chance {
        Chance(ChaCha8Rng::seed_from_u64(self.bits()))
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Below `limit`, which must not be zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0.random_range(0..limit)
    }

    /// An index into something of this length, which must not be zero.
    pub fn index(&mut self, length: usize) -> usize {
        self.0.random_range(0..length)
    }

    /// Between both, inclusive.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high)
    }

    /// Between both, inclusive.
    pub fn signed(&mut self, low: i64, high: i64) -> i64 {
        self.0.random_range(low..=high)
    }

    /// True so often in a thousand.
    pub fn permille(&mut self, often: u32) -> bool {
        self.0.random_range(0..1000) < often
    }

    /// Between both, inclusive.
    pub fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.between(nanos(low), nanos(high)))
    }

    /// One of them; `items` must not be empty.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.index(items.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let draw = |seed, purpose| Chance::new(seed, purpose).bits();
        assert_eq!(draw(1, Purpose::Network), draw(1, Purpose::Network));
        assert_ne!(draw(1, Purpose::Network), draw(1, Purpose::Disk));
        assert_ne!(draw(1, Purpose::Network), draw(2, Purpose::Network));
    }
}
