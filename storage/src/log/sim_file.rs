//! Driver stand-in: files of the simulator, which a power cut treats as badly as the contract of
//! [`crate::log::file`] allows.
//!
//! Idea: a file has two contents, *current* (what reads see) and *durable*, and the list of writes between them. A
//! crash chooses which of those writes, by sector of 512 bytes, reached the platter; names likewise. The choice is a
//! seed's or the test's.
//!
//! Faults are switched on by the simulator: an operation that fails, a disk that is full, a bit that rots. A stalled
//! disk is a flag that the simulator's log driver asks before it calls [`crate::log::Log::sync`]: in one thread
//! nothing can block.

use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::StorageError;
use crate::log::file::{LogDir, LogFile};

/// What a disk writes at once.
pub const SECTOR_BYTES: usize = 512;

/// The log's claims about a sync are written after it, and durable with the next one or the one after that.
const UNCLAIMED_SYNCS: usize = 2;

/// What can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileOperation {
    /// [`LogFile::read_at`].
    Read,
    /// [`LogFile::write_at`] and [`LogFile::allocate`].
    Write,
    /// [`LogFile::sync`] and [`LogDir::sync`].
    Sync,
    /// [`LogDir::create`].
    Create,
}

/// What survives of the writes that were not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// All: the process died, the machine did not. What was not synced still is not: the next crash may take it.
    Keep,
    /// None.
    Lose,
    /// The first so many bytes, in the order of writing, over all files; names as they are.
    Prefix(usize),
    /// Of each sector any of its versions, of each name either state, by this seed.
    Seeded(u64),
}

#[derive(Clone, Default, Debug)]
struct Content {
    current: Vec<u8>,
    durable: Vec<u8>,
    /// Writes since the last sync: number in the order of all writes, place, bytes.
    unsynced: Vec<(u64, usize, Vec<u8>)>,
}

#[derive(Default, Debug)]
struct State {
    files: BTreeMap<u64, Content>,
    current: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    next_file: u64,
    next_write: u64,
    /// What each of the last syncs made durable: file, place, length.
    rounds: VecDeque<Vec<(u64, usize, usize)>>,
    operations: u64,
    die_after: Option<u64>,
    faults: [Option<StorageError>; 4],
    capacity_bytes: Option<u64>,
    stalled: bool,
}

/// A simulated directory; clones are the same one.
#[derive(Clone, Default, Debug)]
pub struct SimDir {
    state: Arc<Mutex<State>>,
}

impl SimDir {
    /// An empty one.
    pub fn new() -> SimDir {
        SimDir::default()
    }

    /// The directory as it is after a crash: a new one, without faults. This one is left as it is.
    #[must_use]
    pub fn crash(&self, crash: Crash) -> SimDir {
        let state = self.state.lock();
        if crash == Crash::Keep {
            return SimDir { state: Arc::new(Mutex::new(state.without_faults())) };
        }
        let mut rng = Rng(match crash {
            Crash::Seeded(seed) => seed,
            Crash::Keep | Crash::Lose | Crash::Prefix(_) => 0,
        });
        let names = surviving_names(&state, crash, &mut rng);
        let contents = surviving_contents(&state, crash, &mut rng);
        let mut after =
            State { next_file: state.next_file, rounds: state.rounds.clone(), ..State::default() };
        for (name, id) in names {
            let bytes = contents.get(&id).cloned().unwrap_or_default();
            let content = Content { current: bytes.clone(), durable: bytes, unsynced: Vec::new() };
            after.files.insert(id, content);
            after.current.insert(name, id);
        }
        after.durable = after.current.clone();
        SimDir { state: Arc::new(Mutex::new(after)) }
    }

    /// How many bytes of writes are not synced: the range of [`Crash::Prefix`].
    pub fn unsynced_bytes(&self) -> usize {
        let state = self.state.lock();
        state.files.values().flat_map(|file| &file.unsynced).map(|write| write.2.len()).sum()
    }

    /// From now on `operation` fails with `error`; `None` heals it.
    pub fn set_fault(&self, operation: FileOperation, error: Option<StorageError>) {
        self.state.lock().faults[operation as usize] = error;
    }

    /// The disk holds so many bytes and no more; `None` is no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity_bytes = bytes;
    }

    /// Whether syncs would hang; only remembered here, see the module.
    pub fn set_stalled(&self, stalled: bool) {
        self.state.lock().stalled = stalled;
    }

    /// What [`SimDir::set_stalled`] said last.
    pub fn is_stalled(&self) -> bool {
        self.state.lock().stalled
    }

    /// Everything fails after so many more operations: the process dies there.
    pub fn die_after(&self, operations: u64) {
        let mut state = self.state.lock();
        state.die_after = Some(state.operations + operations);
    }

    /// Operations so far.
    pub fn operation_count(&self) -> u64 {
        self.state.lock().operations
    }

    /// Bit rot: flips one bit of a file, for good. False when there is no such byte.
    pub fn flip_bit(&self, name: &str, offset: usize, bit: u8) -> bool {
        let mut state = self.state.lock();
        let Some(id) = state.current.get(name).copied() else { return false };
        let file = state.files.get_mut(&id).expect("a name has a file");
        let mut found = false;
        for content in [&mut file.current, &mut file.durable] {
            if let Some(byte) = content.get_mut(offset) {
                *byte ^= 1 << (bit % 8);
                found = true;
            }
        }
        found
    }

    /// A file's current content.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state.lock();
        Some(state.files.get(state.current.get(name)?)?.current.clone())
    }

    /// Where a file holds what was written last: not synced yet, or by one of the last syncs of the directory. No later write says
    /// that it is durable, so damage there looks like a torn tail.
    pub fn written_last(&self, name: &str) -> Vec<Range<usize>> {
        let state = self.state.lock();
        let Some(id) = state.current.get(name) else { return Vec::new() };
        let synced = state.rounds.iter().flatten().filter(|(file, ..)| file == id);
        let unsynced = state.files[id].unsynced.iter();
        synced
            .map(|(_, offset, length)| (*offset, *length))
            .chain(unsynced.map(|(_, offset, bytes)| (*offset, bytes.len())))
            .map(|(offset, length)| offset..offset + length)
            .collect()
    }

    fn file(&self, id: u64, name: &str) -> Arc<dyn LogFile> {
        Arc::new(SimFile { dir: self.clone(), id, name: name.to_owned() })
    }
}

impl State {
    fn without_faults(&self) -> State {
        State {
            files: self.files.clone(),
            current: self.current.clone(),
            durable: self.durable.clone(),
            next_file: self.next_file,
            next_write: self.next_write,
            rounds: self.rounds.clone(),
            ..State::default()
        }
    }

    fn begin(&mut self, operation: FileOperation) -> Result<(), StorageError> {
        self.operations += 1;
        if self.die_after.is_some_and(|last| self.operations > last) {
            return Err(StorageError::Io("the process is dead".into()));
        }
        self.faults[operation as usize].clone().map_or(Ok(()), Err)
    }

    fn check_room(&self, more: u64) -> Result<(), StorageError> {
        let used: u64 = self.files.values().map(|file| file.current.len() as u64).sum();
        match self.capacity_bytes {
            Some(capacity) if used + more > capacity => {
                Err(StorageError::Full(format!("simulated disk of {capacity} bytes")))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn write(&mut self, id: u64, offset: usize, bytes: &[u8]) -> Result<(), StorageError> {
        let length = self.files.get(&id).map_or(0, |file| file.current.len());
        let end = offset + bytes.len();
        self.check_room(end.saturating_sub(length) as u64)?;
        let number = self.next_write;
        self.next_write += 1;
        let file = self.files.get_mut(&id).expect("the caller looked");
        put(&mut file.current, offset, bytes);
        file.unsynced.push((number, offset, bytes.to_vec()));
        Ok(())
    }
}

impl LogDir for SimDir {
    fn create(&self, name: &str) -> Result<Arc<dyn LogFile>, StorageError> {
        let mut state = self.state.lock();
        state.begin(FileOperation::Create)?;
        if state.current.contains_key(name) {
            return Err(StorageError::Io(format!("{name} exists")));
        }
        let id = state.next_file;
        state.next_file += 1;
        state.files.insert(id, Content::default());
        state.current.insert(name.to_owned(), id);
        drop(state);
        Ok(self.file(id, name))
    }

    fn open(&self, name: &str) -> Result<Arc<dyn LogFile>, StorageError> {
        let id = self.state.lock().current.get(name).copied();
        let id = id.ok_or_else(|| StorageError::Io(format!("no file {name}")))?;
        Ok(self.file(id, name))
    }

    fn list(&self) -> Result<Vec<String>, StorageError> {
        Ok(self.state.lock().current.keys().cloned().collect())
    }

    fn remove(&self, name: &str) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        state.begin(FileOperation::Create)?;
        // The content stays: the name may still be there after a crash.
        state.current.remove(name);
        Ok(())
    }

    fn sync(&self) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        state.begin(FileOperation::Sync)?;
        state.durable = state.current.clone();
        let State { files, durable, .. } = &mut *state;
        files.retain(|id, _| durable.values().any(|named| named == id));
        Ok(())
    }
}

struct SimFile {
    dir: SimDir,
    id: u64,
    name: String,
}

impl SimFile {
    fn removed(&self) -> StorageError {
        StorageError::Io(format!("{} was removed", self.name))
    }
}

impl LogFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let mut state = self.dir.state.lock();
        state.begin(FileOperation::Write)?;
        if !state.files.contains_key(&self.id) {
            return Err(self.removed());
        }
        state.write(self.id, place(offset), bytes)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StorageError> {
        let mut state = self.dir.state.lock();
        state.begin(FileOperation::Read)?;
        let file = state.files.get(&self.id);
        let file = file.ok_or_else(|| self.removed())?;
        let rest = file.current.get(place(offset)..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn sync(&self) -> Result<(), StorageError> {
        let mut state = self.dir.state.lock();
        state.begin(FileOperation::Sync)?;
        let Some(file) = state.files.get_mut(&self.id) else { return Err(self.removed()) };
        let mut round = Vec::new();
        for (_, offset, bytes) in std::mem::take(&mut file.unsynced) {
            put(&mut file.durable, offset, &bytes);
            round.push((self.id, offset, bytes.len()));
        }
        if !round.is_empty() {
            state.rounds.push_back(round);
            let old = state.rounds.len().saturating_sub(UNCLAIMED_SYNCS);
            state.rounds.drain(..old);
        }
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> Result<(), StorageError> {
        let mut state = self.dir.state.lock();
        state.begin(FileOperation::Write)?;
        let length = state.files.get(&self.id).map_or(0, |file| file.current.len());
        let zeros = vec![0; place(bytes).saturating_sub(length)];
        state.write(self.id, length, &zeros)
    }

    fn bytes(&self) -> Result<u64, StorageError> {
        let state = self.dir.state.lock();
        Ok(state.files.get(&self.id).map_or(0, |file| file.current.len() as u64))
    }
}

fn surviving_names(state: &State, crash: Crash, rng: &mut Rng) -> BTreeMap<String, u64> {
    match crash {
        Crash::Keep | Crash::Prefix(_) => state.current.clone(),
        Crash::Lose => state.durable.clone(),
        Crash::Seeded(_) => {
            let mut names = BTreeMap::new();
            for name in state.current.keys().chain(state.durable.keys()) {
                let from = if rng.below(2) == 0 { &state.current } else { &state.durable };
                if let (Some(id), false) = (from.get(name), names.contains_key(name)) {
                    names.insert(name.clone(), *id);
                }
            }
            // A name that is in both maps must not vanish by the two draws.
            for (name, id) in &state.durable {
                if state.current.get(name) == Some(id) {
                    names.insert(name.clone(), *id);
                }
            }
            names
        }
    }
}

fn surviving_contents(state: &State, crash: Crash, rng: &mut Rng) -> BTreeMap<u64, Vec<u8>> {
    if let Crash::Prefix(bytes) = crash {
        return prefix_contents(state, bytes);
    }
    // A disk that lost everything, nothing, or something.
    let odds = rng.below(3);
    let survive = |(id, file): (&u64, &Content)| {
        let bytes = match crash {
            Crash::Keep => file.current.clone(),
            Crash::Lose => file.durable.clone(),
            Crash::Prefix(_) | Crash::Seeded(_) => torn(file, odds, rng),
        };
        (*id, bytes)
    };
    state.files.iter().map(survive).collect()
}

fn prefix_contents(state: &State, mut left: usize) -> BTreeMap<u64, Vec<u8>> {
    let mut contents: BTreeMap<u64, Vec<u8>> =
        state.files.iter().map(|(id, file)| (*id, file.durable.clone())).collect();
    let mut writes: Vec<_> = state
        .files
        .iter()
        .flat_map(|(id, file)| file.unsynced.iter().map(move |(n, offset, b)| (n, id, offset, b)))
        .collect();
    writes.sort();
    for (_, id, offset, bytes) in writes {
        let count = bytes.len().min(left);
        left -= count;
        put(contents.get_mut(id).expect("listed above"), *offset, &bytes[..count]);
    }
    contents
}

/// Each sector stops at one of its versions, independently.
fn torn(file: &Content, odds: u64, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = file.durable.clone();
    let mut stopped: BTreeMap<usize, bool> = BTreeMap::new();
    for (_, offset, write) in &file.unsynced {
        let mut from = 0;
        while from < write.len() {
            let sector = (offset + from) / SECTOR_BYTES;
            let count = ((sector + 1) * SECTOR_BYTES - offset - from).min(write.len() - from);
            let stop = stopped.entry(sector).or_insert(false);
            *stop |= match odds {
                0 => true,
                1 => rng.below(16) == 0,
                _ => rng.below(2) == 0,
            };
            if !*stop {
                put(&mut bytes, offset + from, &write[from..from + count]);
            }
            from += count;
        }
    }
    bytes
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if bytes.is_empty() {
        return;
    }
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).expect("simulated files fit memory")
}

/// SplitMix64: the crash's own choices, from its seed.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_what_was_synced_and_may_tear_the_rest_by_sector() {
        let dir = SimDir::new();
        let file = dir.create("a").expect("creates");
        file.write_at(0, &[1; 2 * SECTOR_BYTES]).expect("writes");
        file.sync().expect("syncs");
        dir.sync().expect("syncs");
        file.write_at(0, &[2; 2 * SECTOR_BYTES]).expect("writes");
        dir.create("b").expect("creates");
        let first_bytes = |crash| {
            let content = dir.crash(crash).content("a").expect("is there");
            (content[0], content[SECTOR_BYTES])
        };
        assert_eq!(first_bytes(Crash::Lose), (1, 1));
        assert_eq!(first_bytes(Crash::Keep), (2, 2));
        assert_eq!(first_bytes(Crash::Prefix(10)), (2, 1));
        let mut seen: Vec<_> = (0..100).map(|seed| first_bytes(Crash::Seeded(seed))).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [(1, 1), (1, 2), (2, 1), (2, 2)]);
        assert!(dir.crash(Crash::Lose).content("b").is_none());
    }

    #[test]
    fn a_full_disk_refuses_and_recovers() {
        let dir = SimDir::new();
        dir.set_capacity(Some(10));
        let file = dir.create("a").expect("creates");
        assert!(matches!(file.allocate(11), Err(StorageError::Full(_))));
        dir.set_capacity(None);
        file.allocate(11).expect("writes");
        assert!(dir.flip_bit("a", 10, 3));
        assert_eq!(dir.content("a").expect("is there")[10], 8);
        assert!(!dir.flip_bit("a", 11, 0));
    }
}
