//! Value: how long each node is waited for alone, by how long it took to answer before.
//!
//! The estimate of a retransmission timer (RFC 6298, 2.2 and 2.3; P. Karn, C. Partridge, "Improving Round-Trip Time Estimates", 1987): smoothed
//! time plus four times its deviation. Only answers to requests that were sent once count; a silence doubles the patience until one does.

use replication::range::NodeId;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::WAIT_SLICE;

/// See the module. Between a least and a most.
#[derive(Debug)]
pub(super) struct Patience {
    min: Duration,
    max: Duration,
    nodes: BTreeMap<NodeId, Estimate>,
}

#[derive(Clone, Copy, Debug)]
struct Estimate {
    smoothed: Duration,
    deviation: Duration,
    patience: Duration,
}

impl Estimate {
    fn takes(&self) -> Duration {
        self.smoothed + self.deviation * 4
    }
}

impl Patience {
    pub(super) fn new(min: Duration, max: Duration) -> Patience {
        Patience { min, max, nodes: BTreeMap::new() }
    }

    /// With `node`, for a request that waits there for others for up to `slice`. The most, as long as nothing is known. (The least has room for
    /// an ordinary slice at a node that is near, and so has the most.)
    pub(super) fn with(&self, node: NodeId, slice: Duration) -> Duration {
        match self.nodes.get(&node) {
            Some(estimate) => {
                let ordinary = slice.min(WAIT_SLICE);
                let waits = (estimate.takes() + ordinary).min(self.max) + (slice - ordinary);
                estimate.patience.max(waits)
            }
            None => self.max.max(self.min + slice),
        }
    }

    /// It has answered what it was sent once. `own`: how much of `took` it did not wait for others; `None`: unknown. Then an answer that was longer than
    /// our patience says nothing.
    pub(super) fn answered(&mut self, node: NodeId, took: Duration, own: Option<Duration>) {
        let known = self.nodes.get(&node).map(|estimate| estimate.patience);
        let likely = || known.is_none_or(|patience| took <= patience).then_some(took);
        if let Some(took) = own.or_else(likely) {
            self.note(node, took);
        }
    }

    fn note(&mut self, node: NodeId, took: Duration) {
        let (min, max) = (self.min, self.max);
        let fresh = Estimate { smoothed: took, deviation: took / 2, patience: max };
        let estimate = self
            .nodes
            .entry(node)
            .and_modify(|known| {
                known.deviation = (known.deviation * 3 + known.smoothed.abs_diff(took)) / 4;
                known.smoothed = (known.smoothed * 7 + took) / 8;
            })
            .or_insert(fresh);
        estimate.patience = estimate.takes().clamp(min, max);
    }

    /// It has not answered in its time.
    pub(super) fn silent(&mut self, node: NodeId) {
        if let Some(estimate) = self.nodes.get_mut(&node) {
            estimate.patience = (estimate.patience * 2).min(self.max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn patience_follows_the_answers_between_its_bounds() {
        let mut patience = Patience::new(millis(250), millis(1000));
        let node = NodeId(1);
        assert_eq!(patience.with(node, Duration::ZERO), millis(1000), "nothing is known");
        patience.answered(node, millis(100), Some(millis(100)));
        assert_eq!(patience.with(node, Duration::ZERO), millis(300), "100 + 4 * 50");
        patience.answered(node, millis(180), Some(millis(180)));
        // Deviation (3 * 50 + 80) / 4 = 57.5, smoothed (7 * 100 + 180) / 8 = 110.
        assert_eq!(patience.with(node, Duration::ZERO), millis(340));
        (0..50).for_each(|_| patience.answered(node, millis(1), Some(millis(1))));
        assert_eq!(patience.with(node, Duration::ZERO), millis(250));
        (0..50).for_each(|_| patience.answered(node, millis(5000), Some(millis(5000))));
        assert_eq!(patience.with(node, Duration::ZERO), millis(1000));
    }

    #[test]
    fn a_silence_doubles_it_until_the_next_answer() {
        let mut patience = Patience::new(millis(250), millis(1000));
        let node = NodeId(1);
        (0..50).for_each(|_| patience.answered(node, millis(1), Some(millis(1))));
        patience.silent(node);
        assert_eq!(patience.with(node, Duration::ZERO), millis(500));
        (0..5).for_each(|_| patience.silent(node));
        assert_eq!(patience.with(node, Duration::ZERO), millis(1000));
        patience.answered(node, millis(1), Some(millis(1)));
        assert_eq!(patience.with(node, Duration::ZERO), millis(250));
    }

    #[test]
    fn who_is_far_away_gets_time_to_wait_and_waiting_is_not_held_against_it() {
        let mut patience = Patience::new(millis(250), millis(1000));
        let node = NodeId(1);
        (0..50).for_each(|_| patience.answered(node, millis(190), Some(millis(190))));
        assert_eq!(patience.with(node, Duration::ZERO), millis(250));
        assert!(patience.with(node, millis(100)) >= millis(290));
        assert!(
            patience.with(node, millis(760)) >= millis(950),
            "also where that is more than the most"
        );
        assert!(patience.with(node, millis(1000)) >= millis(1190));
        // Blocked for a slice; and then it took long, perhaps because of others.
        patience.answered(node, millis(950), Some(millis(190)));
        patience.answered(node, millis(800), None);
        assert_eq!(patience.with(node, Duration::ZERO), millis(250));
        // However slow a node is, its own time counts up to the most.
        (0..50).for_each(|_| patience.answered(node, millis(5000), Some(millis(5000))));
        assert_eq!(patience.with(node, millis(100)), millis(1000));
        assert_eq!(patience.with(node, millis(300)), millis(1200));
        (0..50).for_each(|_| patience.answered(node, millis(190), Some(millis(190))));
        // A node that has become slow is silent first, then believed.
        (0..2).for_each(|_| patience.silent(node));
        patience.answered(node, millis(800), None);
        assert!(patience.with(node, Duration::ZERO) > millis(500));
    }
}
