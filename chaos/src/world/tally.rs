//! Value: what really happened in a world: how often each fault struck, which branches of the product were taken ([`coverage::Mark`]), and
//! a hash of everything in order.

use coverage::{Frequency, Mark, Rare};
use std::collections::BTreeMap;
use std::fmt;

/// Coverage points: what must happen at least once in a run of many seeds. A test holds the list against 60 seeds.
pub const SOMETIMES: &[&str] = &[
    "ambiguous answers",
    "batches blocked by a lock",
    "batches for a range that had split",
    "batches re-routed",
    "batches refused without a quorum",
    "bits of the state rotten",
    "bits rotten",
    "blackouts",
    "calls that came again",
    "calls that strayed",
    "calls withdrawn",
    "changes of one link's weather",
    "changes of weather",
    "clock drifts",
    "clock steps",
    "clocks frozen",
    "crashes between two outputs",
    "disks full",
    "disks of the state full",
    "disks of the state stalled",
    "disks slowed down",
    "disks stalled",
    "flushes of the state failed",
    "healed cores that sufficed",
    "leaders struck as they changed members",
    "leaders struck as they were elected",
    "leases asked to move",
    "leases moved",
    "links clogged",
    "links cut",
    "links throttled",
    "log files denied",
    "messages cut off",
    "messages duplicated",
    "messages lost",
    "messages of a dead incarnation",
    "messages refused by clock",
    "messages reordered",
    "messages very late",
    "nodes drained",
    "nodes fenced",
    "nodes replaced",
    "nodes returned from the fence",
    "nodes stopped by their disk",
    "nodes struck in a rare branch",
    "power losses with writes lost or torn",
    "power losses",
    "processes killed",
    "processes paused",
    "processes stopped in good order",
    "reads failed",
    "reads of the state failed",
    "refreshes failed",
    "regions cut off",
    "splits asked for",
    "starts that waited for the clock",
    "state flushes failed",
    "states compared",
    "syncs failed",
    "timestamps moved",
    "transactions aborted by others",
    "uncertain reads",
    "voters struck as they voted",
    "writes failed",
    "writes of the state failed",
];

/// How often worlds came to a mark, or took a rare turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reached {
    /// In so many worlds.
    pub worlds: u64,
    /// So often in all of them.
    pub times: u64,
}

/// Counts by name, and by mark.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    counts: BTreeMap<&'static str, u64>,
    marks: BTreeMap<Mark, Reached>,
    rare: BTreeMap<Rare, Reached>,
}

impl Tally {
    /// One more.
    pub fn count(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    /// So many more.
    pub fn add(&mut self, what: &'static str, more: u64) {
        if more > 0 {
            *self.counts.entry(what).or_default() += more;
        }
    }

    /// How often.
    pub fn of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// Takes the marks that this thread has come to since they were taken last: those of one world, at its end.
    pub fn take_marks(&mut self) {
        for (mark, times) in coverage::take() {
            self.add_mark(mark, Reached { worlds: 1, times });
        }
    }

    fn add_mark(&mut self, mark: Mark, more: Reached) {
        let reached = self.marks.entry(mark).or_default();
        reached.worlds += more.worlds;
        reached.times += more.times;
    }

    /// Adds the rare turns that one world has taken.
    pub fn add_rare(&mut self, taken: BTreeMap<Rare, u64>) {
        for (turn, times) in taken {
            self.add_turn(turn, Reached { worlds: 1, times });
        }
    }

    fn add_turn(&mut self, turn: Rare, more: Reached) {
        let reached = self.rare.entry(turn).or_default();
        reached.worlds += more.worlds;
        reached.times += more.times;
    }

    /// How often a rare turn was taken.
    pub fn taken(&self, turn: Rare) -> Reached {
        self.rare.get(&turn).copied().unwrap_or_default()
    }

    /// Adds another world's counts.
    pub fn merge(&mut self, other: &Tally) {
        for (what, count) in &other.counts {
            self.add(what, *count);
        }
        for (mark, reached) in &other.marks {
            self.add_mark(*mark, *reached);
        }
        for (turn, reached) in &other.rare {
            self.add_turn(*turn, *reached);
        }
    }

    /// How often a mark was reached.
    pub fn reached(&self, mark: Mark) -> Reached {
        self.marks.get(&mark).copied().unwrap_or_default()
    }

    /// Marks that were never reached, in the order of their declaration.
    pub fn unreached(&self) -> Vec<Mark> {
        let unreached = |mark: &Mark| !self.marks.contains_key(mark);
        Mark::ALL.iter().copied().filter(unreached).collect()
    }

    /// Of them those that a corpus of some dozens of seeds should come to.
    pub fn unreached_often(&self) -> Vec<Mark> {
        let often = |mark: &Mark| mark.frequency() == Frequency::Often;
        self.unreached().into_iter().filter(often).collect()
    }

    /// What sometimes happens and has not: a simulation of many seeds in which it never does tests less than it seems to.
    pub fn missed(&self) -> Vec<&'static str> {
        SOMETIMES.iter().copied().filter(|what| self.of(what) == 0).collect()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.counts.iter().map(|(what, count)| (*what, *count))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (what, count) in &self.counts {
            let comma = if first { "" } else { ", " };
            write!(f, "{comma}{what} {count}")?;
            first = false;
        }
        Ok(())
    }
}

/// A running hash (FNV-1a over 64-bit words) of what happened, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trace(u64);

impl Default for Trace {
    fn default() -> Trace {
        Trace(0xcbf2_9ce4_8422_2325)
    }
}

impl Trace {
    /// Takes a number in.
    pub fn number(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    /// Takes bytes in.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.number(u64::from_le_bytes(word));
        }
    }

    /// The hash so far.
    pub fn value(self) -> u64 {
        self.0
    }
}
