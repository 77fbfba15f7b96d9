//! Value: a set of keys as disjoint spans: what a transaction has read, or where its locks and intents are.
//!
//! Bounded: above its limit the set is condensed, which only ever makes it larger as a set of keys. A refresh of a condensed set
//! may fail where the exact one would not, and a release visits keys that need none; both are correct.
//!
//! INVARIANT: spans are not empty, disjoint, do not touch, and cover every span that was ever added.

use coverage::Mark;
use std::collections::BTreeMap;
use storage::{Key, Span};

/// Memory a span costs beside its keys' bytes, roughly.
const SPAN_OVERHEAD_BYTES: usize = 64;
/// Leading bytes of a key that name its table: spans of one table are condensed before anything else.
const TABLE_PREFIX_BYTES: usize = 5;

/// Disjoint spans in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SpanSet {
    /// Start to end.
    spans: BTreeMap<Key, Key>,
    bytes: usize,
    is_condensed: bool,
}

fn cost(start: &Key, end: &Key) -> usize {
    start.as_bytes().len() + end.as_bytes().len() + SPAN_OVERHEAD_BYTES
}

impl SpanSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Whether it may have keys that were never added.
    pub(crate) fn is_condensed(&self) -> bool {
        self.is_condensed
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Span> + '_ {
        self.spans.iter().map(|(start, end)| Span::new(start.clone(), end.clone()))
    }

    pub(crate) fn to_vec(&self) -> Vec<Span> {
        self.iter().collect()
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.spans.range(..=key.clone()).next_back().is_some_and(|(_, end)| key < end)
    }

    /// Whether it has keys of `span`.
    pub(crate) fn touches(&self, span: &Span) -> bool {
        !self.touching(span).is_empty()
    }

    pub(crate) fn add(&mut self, span: Span, bytes_max: usize) {
        if span.is_empty() {
            return;
        }
        self.merge_in(span);
        // Halving may not be enough when few spans have very long keys; one span is where it must end.
        while self.bytes > bytes_max && self.spans.len() > 1 {
            coverage::reached(Mark::SpansCondensed);
            self.condense();
        }
    }

    pub(crate) fn add_all(&mut self, other: &SpanSet, bytes_max: usize) {
        self.is_condensed |= other.is_condensed;
        other.iter().for_each(|span| self.add(span, bytes_max));
    }

    /// The parts of `span` that are not in the set, in order.
    pub(crate) fn missing(&self, span: &Span) -> Vec<Span> {
        let mut parts = Vec::new();
        let mut from = span.start.clone();
        for covered in self.touching(span) {
            if from < covered.start {
                parts.push(Span::new(from, covered.start));
            }
            from = covered.end;
        }
        if from < span.end {
            parts.push(Span::new(from, span.end.clone()));
        }
        parts
    }

    /// Takes the keys of `span` out.
    pub(crate) fn remove(&mut self, span: &Span) {
        for covered in self.touching(span) {
            self.bytes -= cost(&covered.start, &covered.end);
            self.spans.remove(&covered.start);
            let before = Span::new(covered.start.clone(), span.start.clone());
            let after = Span::new(span.end.clone(), covered.end);
            for rest in [before, after].into_iter().filter(|rest| rest.start < rest.end) {
                self.bytes += cost(&rest.start, &rest.end);
                self.spans.insert(rest.start, rest.end);
            }
        }
    }

    /// Spans of the set that share a key with `span`.
    fn touching(&self, span: &Span) -> Vec<Span> {
        if span.is_empty() {
            return Vec::new();
        }
        let before = self.spans.range(..span.start.clone()).next_back();
        let reaching = before.filter(|(_, end)| **end > span.start);
        let within = self.spans.range(span.start.clone()..span.end.clone());
        let all = reaching.into_iter().chain(within);
        all.map(|(start, end)| Span::new(start.clone(), end.clone())).collect()
    }

    fn merge_in(&mut self, span: Span) {
        let Span { mut start, mut end } = span;
        // The span before may reach into (or touch) ours; then those that start within ours (or at its end).
        if let Some((before, before_end)) = self.spans.range(..=start.clone()).next_back() {
            if *before_end >= end {
                return;
            }
            if *before_end >= start {
                start = before.clone();
            }
        }
        let swallowed: Vec<Key> =
            self.spans.range(start.clone()..=end.clone()).map(|(start, _)| start.clone()).collect();
        for key in swallowed {
            let key_end = self.spans.remove(&key).expect("it was just found");
            self.bytes -= cost(&key, &key_end);
            end = end.max(key_end);
        }
        self.bytes += cost(&start, &end);
        self.spans.insert(start, end);
    }

    /// Joins neighbours two by two: those of one table, or all when no two are of one table.
    fn condense(&mut self) {
        let spans: Vec<Span> = self.to_vec();
        let same_table = |a: &Span, b: &Span| {
            let prefix =
                |span: &Span| span.start.as_bytes().get(..TABLE_PREFIX_BYTES).map(<[u8]>::to_vec);
            prefix(a).is_some() && prefix(a) == prefix(b)
        };
        let any_joinable = spans.windows(2).any(|pair| same_table(&pair[0], &pair[1]));
        self.is_condensed = true;
        let mut condensed: Vec<Span> = Vec::with_capacity(spans.len());
        let mut joined = true;
        for span in spans {
            match condensed.last_mut() {
                Some(last) if !joined && (!any_joinable || same_table(last, &span)) => {
                    last.end = span.end;
                    joined = true;
                }
                _ => {
                    condensed.push(span);
                    joined = false;
                }
            }
        }
        self.bytes = condensed.iter().map(|span| cost(&span.start, &span.end)).sum();
        self.spans = condensed.into_iter().map(|span| (span.start, span.end)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn key(n: u8) -> Key {
        Key::new(vec![n])
    }

    proptest! {
        /// The dumb twin: a set of single bytes.
        #[test]
        fn a_span_set_is_the_union_of_what_was_added(spans in proptest::collection::vec((0u8..40, 0u8..40), 0..20)) {
            let mut set = SpanSet::default();
            let mut twin = BTreeSet::new();
            for (start, end) in spans {
                set.add(Span::new(key(start), key(end)), usize::MAX);
                twin.extend(start..end);
            }
            for n in 0..=40 {
                prop_assert_eq!(set.contains(&key(n)), twin.contains(&n), "key {}", n);
            }
            let listed = set.to_vec();
            for pair in listed.windows(2) {
                prop_assert!(pair[0].end < pair[1].start, "spans touch: {:?}", listed);
            }
            let bytes: usize = listed.iter().map(|span| cost(&span.start, &span.end)).sum();
            prop_assert_eq!(set.bytes(), bytes);
        }

        #[test]
        fn what_is_removed_is_missing_and_nothing_else(
            spans in proptest::collection::vec((0u8..40, 0u8..40), 0..12), start in 0u8..40, end in 0u8..40,
        ) {
            let mut set = SpanSet::default();
            let mut twin = BTreeSet::new();
            for (start, end) in spans {
                set.add(Span::new(key(start), key(end)), usize::MAX);
                twin.extend(start..end);
            }
            let taken = Span::new(key(start), key(end));
            let mut missing = SpanSet::default();
            set.missing(&taken).into_iter().for_each(|part| missing.add(part, usize::MAX));
            for n in 0..=40 {
                let expected = (start..end).contains(&n) && !twin.contains(&n);
                prop_assert_eq!(missing.contains(&key(n)), expected, "key {} is missing", n);
            }
            set.remove(&taken);
            twin.retain(|n| !(start..end).contains(n));
            for n in 0..=40 {
                prop_assert_eq!(set.contains(&key(n)), twin.contains(&n), "key {}", n);
            }
            let bytes: usize = set.iter().map(|span| cost(&span.start, &span.end)).sum();
            prop_assert_eq!(set.bytes(), bytes);
        }

        #[test]
        fn condensing_loses_no_key_and_keeps_the_limit(keys in proptest::collection::vec(any::<[u8; 6]>(), 1..100)) {
            let limit = 1_000;
            let mut set = SpanSet::default();
            for key in &keys {
                set.add(Span::point(&Key::new(key.to_vec())), limit);
                prop_assert!(set.bytes() <= limit || set.len() == 1);
            }
            for key in &keys {
                prop_assert!(set.contains(&Key::new(key.to_vec())));
            }
            let mut exact = SpanSet::default();
            keys.iter().for_each(|key| exact.add(Span::point(&Key::new(key.to_vec())), usize::MAX));
            prop_assert_eq!(set.is_condensed(), exact.bytes() > limit);
            prop_assert!(set.is_condensed() || set == exact);
            exact.add_all(&set, usize::MAX);
            prop_assert_eq!(exact.is_condensed(), set.is_condensed());
        }
    }
}
