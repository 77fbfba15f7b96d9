//! Value: whether ranges tile the keyspace, over all stores and at every moment, by what was applied of their logs.
//!
//! Of each range the newest descriptor counts that any store has applied. A split is applied in one step: with the left side's new end the
//! right side is there. So the newest descriptors always tile, whoever is behind, dead or about to apply it again. And a generation of
//! a range's descriptor is the same wherever it is applied.

use replication::range::{NodeId, RangeDescriptor, RangeId, keyspace};
use std::collections::BTreeMap;

/// What was seen so far.
#[derive(Default)]
pub(super) struct Tiles {
    newest: BTreeMap<RangeId, (RangeDescriptor, NodeId)>,
    /// A span has changed since the tiling was looked at.
    moved: bool,
}

/// What is new about a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum News {
    /// Nothing that was not known.
    None,
    /// It is there, or has other bounds.
    Span,
    /// Its replicas are others.
    Members,
}

impl Tiles {
    /// A store has applied this descriptor.
    pub(super) fn note(&mut self, node: NodeId, seen: &RangeDescriptor) -> Result<News, String> {
        let Some((known, by)) = self.newest.get_mut(&seen.id) else {
            self.newest.insert(seen.id, (seen.clone(), node));
            self.moved = true;
            return Ok(News::Span);
        };
        if seen.generation < known.generation || seen == known {
            return Ok(News::None);
        }
        if seen.generation == known.generation {
            return Err(format!("{node} and {by} differ in {}: {seen:?} and {known:?}", seen.id));
        }
        let news = if seen.span == known.span { News::Members } else { News::Span };
        self.moved |= news == News::Span;
        (*known, *by) = (seen.clone(), node);
        Ok(news)
    }

    /// To be asked when all that one event has changed in a store was noted.
    pub(super) fn check(&mut self) -> Result<(), String> {
        if !std::mem::take(&mut self.moved) {
            return Ok(());
        }
        let mut spans: Vec<_> =
            self.newest.values().map(|(seen, by)| (&seen.span, seen.id, *by)).collect();
        spans.sort();
        let mut at = keyspace().start;
        for (span, range, by) in spans {
            if span.start != at {
                return Err(format!(
                    "{range} on {by} holds {span}, but the ranges before it end at {at}"
                ));
            }
            at = span.end.clone();
        }
        if at == keyspace().end { Ok(()) } else { Err(format!("no range begins at {at}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::{Key, Span};

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn descriptor(id: u64, generation: u64, span: Span) -> RangeDescriptor {
        RangeDescriptor { id: RangeId(id), span, generation, peers: Vec::new(), next_replica: 1 }
    }

    fn founded() -> Tiles {
        let mut tiles = Tiles::default();
        assert_eq!(tiles.note(A, &descriptor(1, 1, keyspace())), Ok(News::Span));
        assert_eq!(tiles.check(), Ok(()));
        tiles
    }

    #[test]
    fn a_split_tiles_whoever_is_behind() {
        let (mut tiles, at) = (founded(), Key::table(7));
        let left = descriptor(1, 2, Span::new(keyspace().start, at.clone()));
        let right = descriptor(2, 2, Span::new(at, keyspace().end));
        assert_eq!(tiles.note(B, &left), Ok(News::Span));
        assert_eq!(tiles.note(B, &right), Ok(News::Span));
        assert_eq!(tiles.check(), Ok(()));
        assert_eq!(tiles.note(A, &descriptor(1, 1, keyspace())), Ok(News::None));
        assert_eq!(tiles.note(A, &RangeDescriptor { generation: 3, ..left }), Ok(News::Members));
        assert_eq!(tiles.check(), Ok(()));
    }

    #[test]
    fn gaps_overlaps_and_two_of_one_generation_are_found() {
        let at = Key::table(7);
        let mut gap = founded();
        gap.note(A, &descriptor(1, 2, Span::new(keyspace().start, at.clone()))).expect("newer");
        assert!(gap.check().is_err());
        let mut overlap = founded();
        overlap.note(A, &descriptor(2, 2, Span::new(at.clone(), keyspace().end))).expect("new");
        assert!(overlap.check().is_err());
        let other = descriptor(1, 1, Span::new(keyspace().start, at));
        assert!(founded().note(B, &other).is_err());
    }
}
