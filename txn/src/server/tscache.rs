//! Value: the timestamp cache: when was each key last read, and by whom. A write goes above it.
//!
//! ```text
//!   ts ^        ┌────┐ t7
//!      |   ┌────┘    └──────┐            cells: disjoint, in key order, each with a timestamp and,
//!      |───┘                └────        when only one transaction read at it, that transaction
//!      |   low-water mark
//!      +──────────────────────────► keys
//! ```
//!
//! Everything counts as read at the low-water mark. A new leaseholder starts with the floor of its
//! lease there (killer H10); a cache over its size forgets its lowest cells *by raising the mark
//! over them* (killer H12); a split hands a copy to the right side (killer H11).
//!
//! Why the reader is kept: a transaction that read a key at its own timestamp may write there at
//! that timestamp. When two transactions read at the same timestamp the cell belongs to nobody, and
//! both must write above.
//!
//! INVARIANT: [`TsCache::read_at`] never answers less than any timestamp added for that key, nor
//! less than it answered before (tests: the twin).

use clock::Timestamp;
use coverage::{Mark, Rare, rare};
use std::collections::BTreeMap;
use storage::mvcc::TxnId;
use storage::{Key, Span};

/// What is known of reads of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LastRead {
    /// The highest timestamp of a read.
    pub ts: Timestamp,
    /// The only transaction that read at `ts`; `None`: several, or nobody knows.
    pub reader: Option<TxnId>,
}

impl LastRead {
    const fn unknown(ts: Timestamp) -> LastRead {
        LastRead { ts, reader: None }
    }

    fn join(self, other: LastRead) -> LastRead {
        match self.ts.cmp(&other.ts) {
            std::cmp::Ordering::Less => other,
            std::cmp::Ordering::Greater => self,
            std::cmp::Ordering::Equal if self.reader == other.reader => self,
            std::cmp::Ordering::Equal => LastRead::unknown(self.ts),
        }
    }

    /// The least timestamp at or above `at` at which `writer` may write without invalidating this
    /// read: above others' reads, at or above its own.
    pub fn least_write(self, at: Timestamp, writer: TxnId) -> Timestamp {
        if self.ts < at {
            at
        } else if self.reader == Some(writer) {
            // Others read here strictly below `ts`, or the cell would be nobody's.
            self.ts
        } else {
            coverage::reached(Mark::WriteMovedAboveRead);
            self.ts.next()
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct TsCache {
    low: Timestamp,
    cells_max: usize,
    /// Start of each cell; it ends where the next begins, the last at `Key::MAX`. A cell at or
    /// below `low` says nothing.
    cells: BTreeMap<Key, LastRead>,
    eviction: Eviction,
}

/// What becomes of the reads that a full cache forgets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Eviction {
    RaisesLow,
    /// Planted bug: nothing.
    Forgets,
}

impl TsCache {
    /// Everything counts as read at `low`. At most `cells_max` (at least 4) cells are kept.
    pub fn new(low: Timestamp, cells_max: usize) -> TsCache {
        TsCache {
            low,
            cells_max: cells_max.max(4),
            cells: BTreeMap::new(),
            eviction: Eviction::RaisesLow,
        }
    }

    /// Plants [`super::PlantedBug::EvictionForgets`].
    pub(super) fn plant_forgetful_eviction(&mut self) {
        self.eviction = Eviction::Forgets;
    }

    /// The low-water mark.
    pub fn low(&self) -> Timestamp {
        self.low
    }

    /// How many cells are kept.
    pub fn cell_count(&self) -> usize {
        self.cells.len()
    }

    /// Raises the low-water mark; a lower one changes nothing.
    pub fn raise_low(&mut self, low: Timestamp) {
        if low > self.low {
            self.low = low;
            self.sweep();
        }
    }

    /// Takes over everything that `other` knows (of the left side of a split).
    pub fn absorb(&mut self, other: &TsCache) {
        self.raise_low(other.low);
        let ends = other.cells.keys().skip(1).cloned().chain([Key::MAX]);
        let spans: Vec<(Span, LastRead)> = other
            .cells
            .iter()
            .zip(ends)
            .map(|((start, read), end)| (Span::new(start.clone(), end), *read))
            .collect();
        for (span, read) in spans {
            self.merge(&span, read);
        }
    }

    /// `span` was read at `ts` by `reader` (`None`: outside of any transaction).
    pub fn add(&mut self, span: &Span, ts: Timestamp, reader: Option<TxnId>) {
        self.merge(span, LastRead { ts, reader });
        if self.cells.len() > self.cells_max {
            self.evict();
        }
        if rare(Rare::ReadsForgotten) {
            self.raise_low(ts);
        }
    }

    /// The last read of `key`.
    pub fn read_at(&self, key: &Key) -> LastRead {
        let floor = LastRead::unknown(self.low);
        match self.cells.range(..=key).next_back() {
            Some((_, cell)) => floor.join(*cell),
            None => floor,
        }
    }

    fn merge(&mut self, span: &Span, read: LastRead) {
        if span.is_empty() || read.ts < self.low {
            return;
        }
        self.cut(&span.end);
        self.cut(&span.start);
        for (_, cell) in self.cells.range_mut(&span.start..&span.end) {
            *cell = cell.join(read);
        }
        self.join_neighbours(span);
    }

    /// Makes a cell begin at `key`.
    fn cut(&mut self, key: &Key) {
        if *key >= Key::MAX || self.cells.contains_key(key) {
            return;
        }
        let before = self.cells.range(..key).next_back();
        let cell = before.map_or(LastRead::unknown(self.low), |(_, cell)| *cell);
        self.cells.insert(key.clone(), cell);
    }

    /// Drops boundaries in and around `span` between cells that say the same.
    fn join_neighbours(&mut self, span: &Span) {
        let mut last = self.cells.range(..&span.start).next_back().map(|(_, cell)| *cell);
        let mut needless = Vec::new();
        for (start, cell) in self.cells.range(&span.start..=&span.end) {
            if last.unwrap_or(LastRead::unknown(self.low)) == *cell {
                needless.push(start.clone());
            }
            last = Some(*cell);
        }
        for start in needless {
            self.cells.remove(&start);
        }
    }

    /// Makes room. First by saying less exactly where each transaction read, which never stands in its own way; only then by forgetting the
    /// lower half of the reads: the low-water mark is raised over it. The cells between reads do not count: they are at the mark already,
    /// and as many as the reads, so that with them the mark would stay where it is.
    fn evict(&mut self) {
        if self.eviction == Eviction::RaisesLow {
            self.widen();
            if self.cells.len() <= self.cells_max / 2 {
                return;
            }
        }
        let low = self.low;
        let mut all: Vec<Timestamp> =
            self.cells.values().map(|cell| cell.ts).filter(|ts| *ts > low).collect();
        if all.is_empty() {
            return;
        }
        coverage::reached(Mark::ReadsForgotten);
        let middle = all.len() / 2;
        let (_, median, _) = all.select_nth_unstable(middle);
        self.raise_low(*median);
        match self.eviction {
            Eviction::RaisesLow => {}
            Eviction::Forgets => {
                let forgotten = LastRead::unknown(self.low);
                self.low = low;
                for cell in self.cells.values_mut().filter(|cell| **cell == forgotten) {
                    cell.ts = low;
                }
            }
        }
    }

    /// What lies between two reads of one transaction at one timestamp counts as read there as well, if it was read earlier or not at all.
    ///
    /// Why: a transaction that reads more single keys than there are cells would otherwise raise the mark over its own reads, and be pushed
    /// by itself however often it tries again.
    fn widen(&mut self) {
        let mut needless = Vec::new();
        let mut read: Option<LastRead> = None;
        // Cells since `read` that lie below it.
        let mut below = Vec::new();
        for (start, cell) in &self.cells {
            match read {
                Some(read) if *cell == read => {
                    needless.append(&mut below);
                    needless.push(start.clone());
                }
                Some(read) if cell.ts < read.ts => below.push(start.clone()),
                _ => {
                    below.clear();
                    read = cell.reader.map(|_| *cell);
                }
            }
        }
        for start in needless {
            self.cells.remove(&start);
        }
    }

    /// Drops what the low-water mark covers.
    fn sweep(&mut self) {
        let floor = LastRead::unknown(self.low);
        let mut last = floor;
        let low = self.low;
        self.cells.retain(|_, cell| {
            if cell.ts <= low {
                *cell = floor;
            }
            let needed = *cell != last;
            last = *cell;
            needed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEYS: u8 = 12;

    fn key(number: u8) -> Key {
        Key::new(vec![b'a' + number])
    }

    /// The twin: every key by itself, every read ever.
    #[derive(Default)]
    struct Twin {
        reads: Vec<(u8, u8, u64, u8)>,
        low: u64,
    }

    impl Twin {
        fn least_write(&self, at: u8, ts: u64, writer: u8) -> u64 {
            let others = self
                .reads
                .iter()
                .filter(|(start, end, _, by)| *start <= at && at < *end && *by != writer);
            let bump =
                others.map(|(_, _, read, _)| *read + 1).chain([self.low + 1]).max().unwrap_or(0);
            ts.max(bump)
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Read(u8, u8, u64, u8),
        Low(u64),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            9 => (0..KEYS, 0..=KEYS, 1..40u64, 0..3u8).prop_map(|(a, b, ts, by)| Step::Read(a, b, ts, by)),
            1 => (1..20u64).prop_map(Step::Low),
        ]
    }

    fn play(cache: &mut TsCache, twin: &mut Twin, steps: &[Step]) {
        for step in steps {
            match *step {
                Step::Read(start, end, ts, by) => {
                    let reader = TxnId::new(u128::from(by));
                    cache.add(
                        &Span::new(key(start), key(end)),
                        Timestamp::from_raw(ts),
                        Some(reader),
                    );
                    twin.reads.push((start, end, ts, by));
                }
                Step::Low(low) => {
                    cache.raise_low(Timestamp::from_raw(low));
                    twin.low = twin.low.max(low);
                }
            }
        }
    }

    fn least_write(cache: &TsCache, at: u8, ts: u64, writer: u8) -> u64 {
        cache
            .read_at(&key(at))
            .least_write(Timestamp::from_raw(ts), TxnId::new(u128::from(writer)))
            .raw()
    }

    #[test]
    fn reads_of_many_single_keys_stay_within_the_size_and_raise_the_mark() {
        let mut cache = TsCache::new(Timestamp::from_raw(7), 64);
        for number in 0..10_000_u64 {
            // Keys apart from each other, so that a gap lies behind each.
            let key = Key::new((number * 7919 % 10_007).to_be_bytes().to_vec());
            cache.add(&Span::point(&key), Timestamp::from_raw(100 + number), Some(TxnId::new(1)));
            assert!(cache.cell_count() <= 64, "{} cells", cache.cell_count());
        }
        // About half of the newest reads are kept: the mark lies a few tens below the last.
        let low = cache.low().raw();
        assert!((10_000..10_099).contains(&low), "{low}");
    }

    #[test]
    fn a_transaction_that_reads_more_keys_than_there_are_cells_is_not_pushed_by_itself() {
        let mut cache = TsCache::new(Timestamp::from_raw(7), 64);
        let (old, own) = (TxnId::new(1), TxnId::new(2));
        let key = |number: u64| Key::new(number.to_be_bytes().to_vec());
        cache.add(&Span::point(&key(5_000)), Timestamp::from_raw(50), Some(old));
        for number in 0..10_000 {
            let number = number * 7919 % 10_007;
            cache.add(&Span::point(&key(number)), Timestamp::from_raw(100), Some(own));
            assert!(cache.cell_count() <= 64, "{} cells", cache.cell_count());
        }
        let at = Timestamp::from_raw(100);
        for number in 0..10_000 {
            assert_eq!(cache.read_at(&key(number)).least_write(at, own), at);
        }
        assert_eq!(cache.low(), Timestamp::from_raw(7));
        // Others go above it, as above a scan.
        assert_eq!(cache.read_at(&key(77)).least_write(at, old), at.next());
    }

    proptest! {
        /// However small the cache: never below the twin, and never lower than it answered before.
        #[test]
        fn a_full_cache_forgets_no_read(steps in proptest::collection::vec(any_step(), 0..40)) {
            let (mut cache, mut twin) = (TsCache::new(Timestamp::MIN, 4), Twin::default());
            let mut before = [0; KEYS as usize];
            for step in &steps {
                play(&mut cache, &mut twin, std::slice::from_ref(step));
                for at in 0..KEYS {
                    for writer in 0..3 {
                        let (found, need) = (least_write(&cache, at, 1, writer), twin.least_write(at, 1, writer));
                        prop_assert!(found >= need, "key {at} writer {writer}: {found} < {need}");
                    }
                    let read = cache.read_at(&key(at)).ts.raw();
                    prop_assert!(read >= before[usize::from(at)], "key {at} was read at {} and now at {read}", before[usize::from(at)]);
                    before[usize::from(at)] = read;
                }
            }
        }

        /// Never below the twin; equal to it unless the writer's own later read hides what others
        /// did below (then its own timestamp).
        #[test]
        fn writes_go_above_every_other_reader_and_not_higher(steps in proptest::collection::vec(any_step(), 0..24)) {
            let (mut cache, mut twin) = (TsCache::new(Timestamp::MIN, 1000), Twin::default());
            play(&mut cache, &mut twin, &steps);
            for at in 0..KEYS {
                for writer in 0..3 {
                    for ts in [1, 10, 45] {
                        let (found, need) = (least_write(&cache, at, ts, writer), twin.least_write(at, ts, writer));
                        prop_assert!(found >= need, "key {at} writer {writer} at {ts}: {found} < {need}");
                        let own = twin.reads.iter().filter(|r| r.0 <= at && at < r.1 && r.3 == writer).map(|r| r.2).max();
                        prop_assert!(found <= need.max(own.map_or(0, |own| own + 1)), "{found} > {need}, own {own:?}");
                    }
                }
            }
        }

        /// Killer H12.
        #[test]
        fn eviction_never_lowers_an_answer(steps in proptest::collection::vec(any_step(), 0..60)) {
            let (mut cache, mut twin) = (TsCache::new(Timestamp::MIN, 4), Twin::default());
            for step in &steps {
                let before: Vec<Timestamp> = (0..KEYS).map(|at| cache.read_at(&key(at)).ts).collect();
                play(&mut cache, &mut twin, std::slice::from_ref(step));
                for at in 0..KEYS {
                    prop_assert!(cache.read_at(&key(at)).ts >= before[usize::from(at)]);
                    for writer in 0..3 {
                        prop_assert!(least_write(&cache, at, 1, writer) >= twin.least_write(at, 1, writer));
                    }
                }
                prop_assert!(cache.cell_count() <= 4 + 2);
            }
        }

        /// Killer H11.
        #[test]
        fn a_copy_knows_what_both_knew(
            left in proptest::collection::vec(any_step(), 0..12), right in proptest::collection::vec(any_step(), 0..12),
        ) {
            let (mut a, mut b) = (TsCache::new(Timestamp::MIN, 1000), TsCache::new(Timestamp::MIN, 1000));
            let mut twin = Twin::default();
            play(&mut a, &mut twin, &left);
            play(&mut b, &mut twin, &right);
            b.absorb(&a);
            for at in 0..KEYS {
                for writer in 0..3 {
                    prop_assert!(least_write(&b, at, 1, writer) >= twin.least_write(at, 1, writer));
                }
            }
        }
    }
}
