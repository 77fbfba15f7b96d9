//! Coverage marks: which of the branches that matter a run has really taken.
//!
//! Problem: a simulation of many seeds that all pass says nothing of what never happened in them. The world can count its own faults,
//! but not whether one of them met a split with a snapshot on its way. Idea (sqlite's `testcase`, FoundationDB's `TEST`, rust-analyzer's
//! `cov_mark`): the branch says so itself, in one line, and whoever runs the world asks afterwards what was said.
//!
//! ```text
//!   production branch ── reached(Mark::SnapshotMetOtherRange) ──► this thread's counts ──► take() ── chaos: tally, report, test
//! ```
//!
//! # Entry points
//!
//! [`reached`] in a branch; [`take`] after a run; [`count`] while it runs, by a harness that strikes when a branch is taken, and [`aside`] for
//! its own looks; [`Mark`] with all there are, in the room `marks`. The other way round, [`rare`] asks in a branch whether a harness wants it
//! taken: the room `rare`, with [`switch_on`] and [`switch_off`].
//!
//! # Invariants
//!
//! - A mark changes nothing: no result depends on a count, and none is kept on disk or sent. Where nobody has switched a rare turn on, none is taken.
//! - A mark stands in the branch where the thing happens, and nowhere else: a count is a number of times.
//!
//! # Why per thread
//!
//! A simulated world runs on one thread from its beginning to its end, and many worlds run at once: counts per thread are counts per
//! world, without locks. In production threads count too, as marks are no build of their own, and nobody reads them: about a
//! nanosecond each, no allocation, no shared cache line.
//!
//! Imported by all crates whose branches are marked; imports nothing. Gotcha: work that moves to another thread is counted there.

mod marks;
mod rare;

use std::cell::Cell;
use std::collections::BTreeMap;

pub use marks::{Frequency, Mark};
pub use rare::{Permille, Rare, rare, switch_off, switch_on};

thread_local! {
    static COUNTS: [Cell<u64>; Mark::ALL.len()] = const { [const { Cell::new(0) }; Mark::ALL.len()] };
}

/// Counts: this thread has come to `mark`.
#[inline]
pub fn reached(mark: Mark) {
    COUNTS.with(|counts| {
        let count = &counts[mark as usize];
        count.set(count.get().wrapping_add(1));
    });
}

/// How often this thread has come to `mark` so far, or since [`take`]: for a harness that waits for it.
pub fn count(mark: Mark) -> u64 {
    COUNTS.with(|counts| counts[mark as usize].get())
}

/// Runs a harness's own look at the product: what it comes to does not count, and nothing rare happens to it.
pub fn aside<T>(look: impl FnOnce() -> T) -> T {
    let before: [u64; Mark::ALL.len()] =
        COUNTS.with(|counts| std::array::from_fn(|place| counts[place].get()));
    let seen = rare::without(look);
    COUNTS.with(|counts| counts.iter().zip(before).for_each(|(count, before)| count.set(before)));
    seen
}

/// How often this thread has come to each mark since it began or was asked last; only those above zero.
pub fn take() -> BTreeMap<Mark, u64> {
    COUNTS.with(|counts| {
        let taken = Mark::ALL.iter().map(|mark| (*mark, counts[*mark as usize].take()));
        taken.filter(|(_, count)| *count > 0).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn counts_are_this_threads_and_taken_once() {
        let (one, other) = (Mark::ALL[0], Mark::ALL[1]);
        reached(one);
        reached(one);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                reached(other);
                assert_eq!(take(), BTreeMap::from([(other, 1)]));
            });
        });
        assert_eq!(take(), BTreeMap::from([(one, 2)]));
        assert_eq!(take(), BTreeMap::new());
    }

    #[test]
    fn a_harness_counts_without_being_counted() {
        let mark = Mark::ALL[2];
        reached(mark);
        assert_eq!(aside(|| (reached(mark), count(mark)).1), 2);
        assert_eq!(count(mark), 1);
        take();
    }

    #[test]
    fn every_mark_has_its_own_sentence_and_place() {
        let texts: BTreeSet<&str> = Mark::ALL.iter().map(|mark| mark.text()).collect();
        assert_eq!(texts.len(), Mark::ALL.len());
        for (place, mark) in Mark::ALL.iter().enumerate() {
            assert_eq!(*mark as usize, place);
            assert!(!mark.text().ends_with('.') && mark.text().len() > 10, "{mark:?}");
        }
    }
}
