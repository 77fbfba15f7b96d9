//! Value: rare turns: places in the product where what is allowed and hardly ever happens is made to happen (FoundationDB's `BUGGIFY`).
//!
//! A cache is dropped, a batch ends after one entry, a refresh fails, a lease is not renewed in time: whoever relies on that not happening
//! is wrong, but a simulation of health comes there in one of many thousands of seeds. A harness switches some of the turns on for its thread,
//! each with its own chance, and [`rare`] says there whether this time it is so.
//!
//! INVARIANTS:
//! - Each turn is legal: nothing that the product promises depends on it, only its pace.
//! - Nobody but a harness switches any on. Otherwise [`rare`] costs the look at one word of the thread, and says no.
//! - Each turn has a stream of its own, made from the harness's seed: one that is asked more often does not shift the others.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// Declares [`Rare`], each with what happens there.
macro_rules! turns {
    ($($name:ident: $text:literal,)+) => {
        /// Where something rare can be made to happen.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Rare {
            $(#[doc = $text] $name,)+
        }

        impl Rare {
            /// All of them, in the order of their declaration.
            pub const ALL: &'static [Rare] = &[$(Rare::$name,)+];

            /// What happens there.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Rare::$name => $text,)+
                }
            }
        }
    };
}

turns! {
    OneEntryPerAppend: "an append carries one entry, however many wait",
    OneEntryApplied: "one committed entry is applied, however many there are",
    CommitNoticeWithheld: "a follower is not told of a new commit index before the next heartbeat",
    SnapshotThoughLogHasIt: "a follower is sent a snapshot though the log has what it lacks",
    SnapshotRefused: "a snapshot that arrives is refused, and has to be sent again",
    LogTruncatedEarly: "the log is truncated up to the last flush, whoever lags",
    ProposalRefused: "a leader refuses a command as if too much were uncommitted",
    PromisesNotRenewed: "a store lets a round of promises pass without asking for any",
    LeaseDenied: "a leaseholder sends a request elsewhere",
    ReadsForgotten: "the timestamp cache forgets all reads up to this one",
    RefreshFailed: "a refresh fails though nothing has changed",
    IntentsLeftBehind: "a commit leaves the intents in its record's own range to be resolved later",
    PushPutOff: "who pushes a transaction is told to wait first, whatever is to be done to it",
    StageMoved: "a transaction that stages is told to move, as by a push",
    OnePhaseMoved: "a commit of one phase is told to move, as by reads that it does not know",
    SequenceBlockDropped: "a node drops the sequence's values that it has taken in advance",
    OneRowPerPage: "a page of a scan ends early, after as little as one row",
}

const _: () = assert!(Rare::ALL.len() <= u64::BITS as usize, "one bit each");

/// How often a turn is taken that is switched on, in thousandths of the times when it is asked for.
pub type Permille = u32;

thread_local! {
    /// Which are on; all others cost no more than this.
    static ON: Cell<u64> = const { Cell::new(0) };
    static TURNS: RefCell<BTreeMap<Rare, Turn>> = const { RefCell::new(BTreeMap::new()) };
}

struct Turn {
    often: Permille,
    state: u64,
    taken: u64,
}

/// Whether the rare thing happens here, this time.
#[inline]
pub fn rare(turn: Rare) -> bool {
    ON.get() & bit(turn) != 0 && take_turn(turn)
}

#[cold]
fn take_turn(turn: Rare) -> bool {
    TURNS.with_borrow_mut(|turns| {
        let Some(turn) = turns.get_mut(&turn) else { return false };
        let taken = split_mix(&mut turn.state) % 1000 < u64::from(turn.often);
        turn.taken += u64::from(taken);
        taken
    })
}

/// For a harness: from now on these, and no others, may happen on this thread, drawn from the seed. What was counted before is forgotten.
pub fn switch_on(seed: u64, turns: &BTreeMap<Rare, Permille>) {
    let begin = |(turn, often): (&Rare, &Permille)| {
        let mut state = seed ^ (*turn as u64 + 1).wrapping_mul(0xd6e8_feb8_6659_fd93);
        split_mix(&mut state);
        (*turn, Turn { often: *often, state, taken: 0 })
    };
    TURNS.set(turns.iter().map(begin).collect());
    ON.set(turns.keys().fold(0, |on, turn| on | bit(*turn)));
}

/// For a harness: none happens any more; how often each was taken, only those above zero.
pub fn switch_off() -> BTreeMap<Rare, u64> {
    ON.set(0);
    let taken = TURNS.take().into_iter().map(|(turn, state)| (turn, state.taken));
    taken.filter(|(_, taken)| *taken > 0).collect()
}

/// Runs without any.
pub(crate) fn without<T>(look: impl FnOnce() -> T) -> T {
    let on = ON.replace(0);
    let seen = look();
    ON.set(on);
    seen
}

fn bit(turn: Rare) -> u64 {
    1 << turn as u32
}

/// Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Rare = Rare::ALL[0];
    const OTHER: Rare = Rare::ALL[1];

    fn draw(turn: Rare, times: usize) -> Vec<bool> {
        (0..times).map(|_| rare(turn)).collect()
    }

    #[test]
    fn nothing_happens_unless_it_is_switched_on_for_the_thread() {
        assert!(!draw(ONE, 1000).contains(&true));
        switch_on(7, &BTreeMap::from([(ONE, 1000)]));
        assert!(rare(ONE) && !rare(OTHER));
        assert!(!without(|| rare(ONE)), "a harness's own look");
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(!rare(ONE)));
        });
        assert_eq!(switch_off(), BTreeMap::from([(ONE, 1)]));
        assert!(!rare(ONE));
    }

    #[test]
    fn each_turn_has_a_stream_of_its_own_and_repeats() {
        let both = BTreeMap::from([(ONE, 300), (OTHER, 300)]);
        switch_on(7, &both);
        let (first, second) = (draw(ONE, 200), draw(OTHER, 200));
        assert_ne!(first, second);
        switch_on(7, &both);
        draw(OTHER, 17);
        assert_eq!(draw(ONE, 200), first, "others shift nothing");
        switch_on(8, &both);
        assert_ne!(draw(ONE, 200), first);
        let taken = first.iter().filter(|taken| **taken).count();
        assert!((30..90).contains(&taken), "{taken} of 200");
        switch_off();
    }
}
