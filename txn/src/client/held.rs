//! Value: what a transaction below `SERIALIZABLE` must find unchanged when it commits: the rows that it has locked, and what
//! constraints were checked against. (Above that level everything that was read must hold, and this stays empty.)
//!
//! Under `READ COMMITTED` each statement has a timestamp of its own, so that what earlier statements held is kept with theirs.
//!
//! It is held by locks, too, which a lease that moves may lose. Statements of `READ COMMITTED` rely on them: a row that all lock and nobody
//! writes keeps others from what the statements after it look at. So the eras in which the ranges took them are kept here.
//!
//! INVARIANT: whatever was held and not given up is covered by `now` (as of the transaction's `read_at`) or by an entry of
//! `earlier` (as of that entry's timestamp).

use clock::Timestamp;
use replication::range::RangeId;
use std::collections::BTreeMap;
use storage::Span;

use crate::api::{Lock, LockEra, Request};
use crate::client::spans::SpanSet;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    now: SpanSet,
    /// Oldest first; timestamps rise.
    earlier: Vec<(Timestamp, SpanSet)>,
    /// Of the ranges where something is held; whether anything of it is locked.
    eras: BTreeMap<RangeId, (LockEra, bool)>,
    read_high: Timestamp,
}

impl Held {
    /// Holds a span as of `read_at`.
    pub(crate) fn add(&mut self, span: Span, bytes_max: usize) {
        self.now.add(span, bytes_max);
    }

    /// The parts of `span` that are not held.
    pub(crate) fn missing(&self, span: &Span) -> Vec<Span> {
        let mut parts = self.now.missing(span);
        for (_, spans) in &self.earlier {
            parts = parts.iter().flat_map(|part| spans.missing(part)).collect();
        }
        parts
    }

    /// Something was held in these eras, and locked or only looked at, by ranges that had answered reads up to there. `false`: in others
    /// than before, so that what was locked before may be lost.
    #[must_use]
    pub(crate) fn add_eras(
        &mut self,
        eras: &[LockEra],
        lock: Option<Lock>,
        read_high: Timestamp,
    ) -> bool {
        self.read_high = self.read_high.max(read_high);
        let mut kept = true;
        for era in eras {
            kept &= self.is_kept(era);
            match self.eras.get_mut(&era.range) {
                Some((known, locked)) if *locked => {
                    // What was locked first may lie where it does not reach any more.
                    let span = known.span.clone();
                    *known = LockEra { span, ..era.clone() };
                }
                Some((known, locked)) => (*known, *locked) = (era.clone(), lock.is_some()),
                None => drop(self.eras.insert(era.range, (era.clone(), lock.is_some()))),
            }
        }
        kept
    }

    /// At or above whatever those that had held it before have committed at.
    pub(crate) fn read_high(&self) -> Timestamp {
        self.read_high
    }

    /// Whether what was locked is held in these eras still. Ranges where nothing is locked say nothing.
    pub(crate) fn keeps(&self, eras: &[LockEra]) -> bool {
        eras.iter().all(|era| self.is_kept(era))
    }

    fn is_kept(&self, era: &LockEra) -> bool {
        match self.eras.get(&era.range) {
            Some((known, locked)) => {
                !locked || (known.lease, known.losses) == (era.lease, era.losses)
            }
            // What was split off has its locks from a range that may have lost them.
            None => {
                !self.eras.values().any(|(known, locked)| *locked && known.span.overlaps(&era.span))
            }
        }
    }

    /// The statement at `read_at` has ended: the next one has another timestamp.
    pub(crate) fn close(&mut self, read_at: Timestamp, bytes_max: usize) {
        if self.now.is_empty() {
            return;
        }
        let now = std::mem::take(&mut self.now);
        match self.earlier.last_mut() {
            Some((since, spans)) if *since == read_at => spans.add_all(&now, bytes_max),
            last => {
                assert!(last.is_none_or(|(since, _)| *since < read_at), "time went back");
                self.earlier.push((read_at, now));
            }
        }
    }

    /// How many timestamps of earlier statements are kept.
    pub(crate) fn earlier_count(&self) -> usize {
        self.earlier.len()
    }

    /// What finds out whether everything of earlier statements still holds, at the timestamp of the batch that carries it.
    pub(crate) fn refreshes(&self) -> Vec<Request> {
        let of_one = |(since, spans): &(Timestamp, SpanSet)| {
            let since = *since;
            spans.to_vec().into_iter().map(move |span| Request::Refresh { span, since })
        };
        self.earlier.iter().flat_map(of_one).collect()
    }

    /// Everything of earlier statements was found to hold at `at`.
    pub(crate) fn refreshed(&mut self, at: Timestamp, bytes_max: usize) {
        let mut all = SpanSet::default();
        for (_, spans) in self.earlier.drain(..) {
            all.add_all(&spans, bytes_max);
        }
        if !all.is_empty() {
            self.earlier.push((at, all));
        }
    }

    /// Gives up what the statement under way holds: it is run again.
    pub(crate) fn forget_statement(&mut self) {
        self.now = SpanSet::default();
    }

    /// Gives a span up, whoever held it.
    pub(crate) fn remove(&mut self, span: &Span) {
        self.now.remove(span);
        self.earlier.iter_mut().for_each(|(_, spans)| spans.remove(span));
        self.earlier.retain(|(_, spans)| !spans.is_empty());
    }

    /// Everything that is held.
    pub(crate) fn all(&self, bytes_max: usize) -> SpanSet {
        let mut all = self.now.clone();
        self.earlier.iter().for_each(|(_, spans)| all.add_all(spans, bytes_max));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replication::raft::Term;
    use storage::Key;

    fn era(range: u64, (start, end): (&'static str, &'static str), lease: u64) -> LockEra {
        let span = Span::new(Key::new(start), Key::new(end));
        LockEra { range: RangeId(range), span, lease: Term::new(lease), losses: 0 }
    }

    fn locked(eras: &[LockEra]) -> Held {
        let mut held = Held::default();
        assert!(held.add_eras(eras, Some(Lock::Exclusive), Timestamp::MIN));
        held
    }

    #[test]
    fn a_range_where_nothing_is_locked_says_nothing() {
        let mut held = locked(&[era(1, ("a", "m"), 3)]);
        assert!(held.keeps(&[era(1, ("a", "m"), 3), era(2, ("m", "z"), 7)]), "the anchor's, say");
        assert!(held.add_eras(&[era(2, ("m", "z"), 7)], None, Timestamp::MIN), "looked at");
        assert!(held.keeps(&[era(2, ("m", "z"), 8)]), "only looked at");
    }

    #[test]
    fn what_was_locked_in_another_era_may_be_lost() {
        let mut held = locked(&[era(1, ("a", "m"), 3)]);
        assert!(!held.keeps(&[era(1, ("a", "m"), 4)]));
        assert!(!held.add_eras(&[era(1, ("a", "m"), 4)], Some(Lock::Shared), Timestamp::MIN));
    }

    /// The lease moved, and then the range was split: the right half answers under a name that nobody knew.
    #[test]
    fn what_is_split_off_a_range_with_locks_may_have_lost_them() {
        let mut held = locked(&[era(1, ("a", "m"), 3)]);
        assert!(!held.keeps(&[era(9, ("g", "m"), 4)]));
        assert!(!held.clone().add_eras(&[era(9, ("g", "m"), 4)], None, Timestamp::MIN));
        // Also when the left half was asked again before.
        assert!(held.add_eras(&[era(1, ("a", "g"), 3)], Some(Lock::Shared), Timestamp::MIN));
        assert!(!held.keeps(&[era(9, ("g", "m"), 4)]));
        assert!(held.keeps(&[era(8, ("m", "z"), 4)]), "of another range");
    }
}
