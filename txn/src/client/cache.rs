//! Value: what a gateway believes about ranges: their spans, replicas and leaseholders. Always a hint; ranges check.
//!
//! INVARIANT: entries do not overlap. Of overlapping descriptors the one of higher generation is the newer, whichever range it is of:
//! a split raises both halves above the whole.

use coverage::Mark;
use replication::range::{NodeId, RangeDescriptor, RangeId};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use storage::Key;

#[derive(Clone, Debug)]
struct Entry {
    descriptor: Arc<RangeDescriptor>,
    leaseholder: Option<NodeId>,
    used: u64,
}

/// Known ranges by their end.
#[derive(Debug)]
pub(super) struct RangeCache {
    ranges: BTreeMap<Key, Entry>,
    clock: u64,
    count_max: usize,
}

/// One known range.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) descriptor: Arc<RangeDescriptor>,
    pub(super) leaseholder: Option<NodeId>,
}

impl RangeCache {
    /// Keeps at most `count_max` ranges, at least one.
    pub(super) fn new(count_max: usize) -> RangeCache {
        RangeCache { ranges: BTreeMap::new(), clock: 0, count_max: count_max.max(1) }
    }

    /// The range of a key.
    pub(super) fn find(&mut self, key: &Key) -> Option<Known> {
        self.clock += 1;
        let clock = self.clock;
        let beyond = (Bound::Excluded(key.clone()), Bound::Unbounded);
        let (_, entry) = self.ranges.range_mut(beyond).next()?;
        if entry.descriptor.span.start > *key {
            return None;
        }
        entry.used = clock;
        Some(Known { descriptor: entry.descriptor.clone(), leaseholder: entry.leaseholder })
    }

    /// The range of an id.
    pub(super) fn find_id(&self, id: RangeId) -> Option<Known> {
        let entry = self.ranges.values().find(|entry| entry.descriptor.id == id)?;
        Some(Known { descriptor: entry.descriptor.clone(), leaseholder: entry.leaseholder })
    }

    /// Takes in a descriptor unless something newer is known of any of its keys. Whether it was news.
    pub(super) fn learn(&mut self, descriptor: RangeDescriptor) -> bool {
        if descriptor.span.is_empty() {
            return false;
        }
        let overlapping: Vec<Key> = self
            .ranges
            .range((Bound::Excluded(descriptor.span.start.clone()), Bound::Unbounded))
            .take_while(|(_, entry)| entry.descriptor.span.start < descriptor.span.end)
            .map(|(end, _)| end.clone())
            .collect();
        let mut leaseholder = None;
        for end in &overlapping {
            let entry = &self.ranges[end];
            if entry.descriptor.generation >= descriptor.generation {
                coverage::reached(Mark::OldDescriptorIgnored);
                return false;
            }
            if entry.descriptor.id == descriptor.id {
                leaseholder = entry.leaseholder.filter(|node| descriptor.peer_on(*node).is_some());
            }
        }
        for end in overlapping {
            self.ranges.remove(&end);
        }
        self.clock += 1;
        let entry = Entry { leaseholder, used: self.clock, descriptor: Arc::new(descriptor) };
        self.ranges.insert(entry.descriptor.span.end.clone(), entry);
        self.shrink();
        true
    }

    /// Notes who leads a range, or that nobody is known to.
    pub(super) fn set_leaseholder(
        &mut self,
        descriptor: &RangeDescriptor,
        leaseholder: Option<NodeId>,
    ) {
        if let Some(entry) = self.ranges.get_mut(&descriptor.span.end)
            && entry.descriptor.id == descriptor.id
        {
            entry.leaseholder = leaseholder;
        }
    }

    /// Forgets exactly this descriptor: it was found wrong.
    pub(super) fn forget(&mut self, descriptor: &RangeDescriptor) {
        if self
            .ranges
            .get(&descriptor.span.end)
            .is_some_and(|entry| *entry.descriptor == *descriptor)
        {
            self.ranges.remove(&descriptor.span.end);
        }
    }

    /// Over the limit: drops the half that was not used for longest.
    fn shrink(&mut self) {
        if self.ranges.len() <= self.count_max {
            return;
        }
        coverage::reached(Mark::RangesForgotten);
        let mut used: Vec<u64> = self.ranges.values().map(|entry| entry.used).collect();
        used.sort_unstable();
        let keep_from = used[used.len() / 2];
        self.ranges.retain(|_, entry| entry.used >= keep_from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use storage::Span;

    fn range(id: u64, generation: u64, start: u8, end: u8) -> RangeDescriptor {
        let span = Span::new(Key::new(vec![start]), Key::new(vec![end]));
        RangeDescriptor { id: RangeId(id), span, generation, peers: Vec::new(), next_replica: 1 }
    }

    fn found(cache: &mut RangeCache, key: u8) -> Option<u64> {
        cache.find(&Key::new(vec![key])).map(|known| known.descriptor.id.0)
    }

    #[test]
    fn a_stale_whole_does_not_replace_its_newer_half() {
        let mut cache = RangeCache::new(10);
        assert!(cache.learn(range(1, 3, 0, 100)));
        assert!(cache.learn(range(2, 4, 50, 100)));
        assert_eq!(found(&mut cache, 20), None);
        assert!(!cache.learn(range(1, 3, 0, 100)));
        assert!(cache.learn(range(1, 4, 0, 50)));
        assert_eq!((found(&mut cache, 20), found(&mut cache, 50)), (Some(1), Some(2)));
    }

    #[test]
    fn the_cache_stays_within_its_limit_and_keeps_what_is_used() {
        let mut cache = RangeCache::new(4);
        for n in 0..100 {
            cache.learn(range(u64::from(n), 1, n, n + 1));
            assert_eq!(found(&mut cache, 0), Some(0));
            assert!(cache.ranges.len() <= 4);
        }
    }

    proptest! {
        #[test]
        fn entries_never_overlap(ranges in proptest::collection::vec((1u64..6, 1u64..9, 0u8..30, 0u8..30), 0..40)) {
            let mut cache = RangeCache::new(100);
            for (id, generation, start, end) in ranges {
                cache.learn(range(id, generation, start, end));
                let spans: Vec<Span> = cache.ranges.values().map(|entry| entry.descriptor.span.clone()).collect();
                for pair in spans.windows(2) {
                    prop_assert!(pair[0].end <= pair[1].start, "{:?}", spans);
                }
            }
        }
    }
}
