//! Driver stand-in: the state engine of the simulator. Problem: a simulated crash must lose exactly what RocksDB
//! without a log of its own would lose, thousands of times per second, with many snapshots open. Idea: two sets of
//! maps that share their nodes ([`crate::persistent`]): *current*, which every write changes, and *durable*, which a
//! flush sets to current.
//!
//! ```text
//!   write, write, flush, write, CRASH        crash() = an engine that starts at the flush
//! ```
//!
//! INVARIANT: durable is the effect of a prefix of the batches written, over all spaces; a failed write or flush
//! changes nothing. Faults are switched on by the simulator ([`MemoryEngine::set_fault`]); a stall is the simulator's
//! own affair (it just does not call).

use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::StorageError;
use crate::engine::{Direction, Engine, Items, Op, Reader, Snapshot, Space, WriteBatch};
use crate::persistent::OrderedMap;

/// What can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Gets and scans, of the engine and of its snapshots taken while the fault is on.
    Read,
    /// [`Engine::write`].
    Write,
    /// [`Engine::flush`].
    Flush,
}

#[derive(Clone, Default, Debug)]
struct Maps([OrderedMap; Space::ALL.len()]);

impl Maps {
    fn of(&self, space: Space) -> &OrderedMap {
        &self.0[usize::from(space.number())]
    }

    fn of_mut(&mut self, space: Space) -> &mut OrderedMap {
        &mut self.0[usize::from(space.number())]
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Put { space, key, value } => {
                self.of_mut(*space).insert(key.clone(), value.clone());
            }
            Op::Delete { space, key } => {
                self.of_mut(*space).remove(key);
            }
            Op::DeleteSpan { space, start, end } => self.of_mut(*space).remove_span(start, end),
        }
    }
}

#[derive(Default, Debug)]
struct State {
    current: Maps,
    durable: Maps,
    unflushed_bytes: u64,
    faults: [Option<StorageError>; 3],
    damaged: Damaged,
}

/// Entries whose checksum tells that they are not what was written.
type Damaged = Arc<BTreeSet<(Space, Bytes)>>;

fn check_sum(damaged: &Damaged, space: Space, key: &[u8]) -> Result<(), StorageError> {
    if damaged.is_empty() || !damaged.iter().any(|(of, entry)| *of == space && entry == key) {
        return Ok(());
    }
    Err(StorageError::Corrupt("an entry of the state: its checksum differs".into()))
}

/// Whether rot is told by a checksum when it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rot {
    /// As in RocksDB.
    Noticed,
    /// A planted bug.
    Unnoticed,
}

/// The in-memory engine.
#[derive(Default, Debug)]
pub struct MemoryEngine {
    state: Mutex<State>,
}

impl MemoryEngine {
    /// An empty one.
    pub fn new() -> MemoryEngine {
        MemoryEngine::default()
    }

    /// What a restart would find: the state of the last flush, no faults. This engine is left as it is.
    #[must_use]
    pub fn crash(&self) -> MemoryEngine {
        let state = self.state.lock();
        let (durable, damaged) = (state.durable.clone(), state.damaged.clone());
        let state = State { current: durable.clone(), durable, damaged, ..State::default() };
        MemoryEngine { state: Mutex::new(state) }
    }

    /// What a restart would find if flushes were not atomic over the spaces: `ahead` as it is now, the others as of the last flush.
    /// For planted bugs.
    #[must_use]
    pub fn crash_torn(&self, ahead: Space) -> MemoryEngine {
        let state = self.state.lock();
        let mut durable = state.durable.clone();
        *durable.of_mut(ahead) = state.current.of(ahead).clone();
        let after = State { current: durable.clone(), durable, ..State::default() };
        MemoryEngine { state: Mutex::new(after) }
    }

    /// A bit of an entry turns round: of that one of `space` that `draw`, given their number, names. False if there is none.
    pub fn rot(&self, space: Space, rot: Rot, draw: impl FnOnce(usize) -> usize) -> bool {
        let mut state = self.state.lock();
        let count = state.durable.of(space).count();
        if count == 0 {
            return false;
        }
        let place = draw(count) % count;
        let entry = state.durable.of(space).forward(b"", &[0xff; 64]).nth(place);
        let Some((key, value)) = entry.filter(|(_, value)| !value.is_empty()) else { return false };
        let mut bytes = value.to_vec();
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        let was_current = state.current.of(space).get(&key) == Some(&value);
        let bytes = Bytes::from(bytes);
        state.durable.of_mut(space).insert(key.clone(), bytes.clone());
        if was_current {
            state.current.of_mut(space).insert(key.clone(), bytes);
        }
        if rot == Rot::Noticed {
            Arc::make_mut(&mut state.damaged).insert((space, key));
        }
        true
    }

    /// From now on `operation` fails with `error`; `None` heals it.
    pub fn set_fault(&self, operation: Operation, error: Option<StorageError>) {
        self.state.lock().faults[operation as usize] = error;
    }

    /// How many keys a space holds now.
    pub fn key_count(&self, space: Space) -> usize {
        self.state.lock().current.of(space).count()
    }

    fn view(&self) -> View {
        let state = self.state.lock();
        let damaged = state.damaged.clone();
        View {
            maps: state.current.clone(),
            damaged,
            fault: state.faults[Operation::Read as usize].clone(),
        }
    }
}

impl State {
    fn check(&self, operation: Operation) -> Result<(), StorageError> {
        self.faults[operation as usize].clone().map_or(Ok(()), Err)
    }
}

impl Reader for MemoryEngine {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let state = self.state.lock();
        state.check(Operation::Read)?;
        check_sum(&state.damaged, space, key)?;
        Ok(state.current.of(space).get(key).cloned())
    }

    fn scan(&self, space: Space, start: &[u8], end: &[u8], direction: Direction) -> Items<'_> {
        let state = self.state.lock();
        if let Err(error) = state.check(Operation::Read) {
            return Box::new(std::iter::once(Err(error)));
        }
        checked(items(state.current.of(space), start, end, direction), &state.damaged, space)
    }
}

impl Engine for MemoryEngine {
    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(self.view())
    }

    fn write(&self, batch: &WriteBatch) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        state.check(Operation::Write)?;
        for op in &batch.ops {
            state.current.apply(op);
            if let Op::Put { space, key, .. } | Op::Delete { space, key } = op
                && !state.damaged.is_empty()
            {
                Arc::make_mut(&mut state.damaged).remove(&(*space, key.clone()));
            }
        }
        state.unflushed_bytes += batch.bytes() as u64;
        Ok(())
    }

    fn flush(&self) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        state.check(Operation::Flush)?;
        state.durable = state.current.clone();
        state.unflushed_bytes = 0;
        Ok(())
    }

    fn unflushed_bytes(&self) -> u64 {
        self.state.lock().unflushed_bytes
    }
}

/// One moment.
struct View {
    maps: Maps,
    damaged: Damaged,
    fault: Option<StorageError>,
}

impl Reader for View {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        match &self.fault {
            Some(error) => Err(error.clone()),
            None => {
                check_sum(&self.damaged, space, key)?;
                Ok(self.maps.of(space).get(key).cloned())
            }
        }
    }

    fn scan(&self, space: Space, start: &[u8], end: &[u8], direction: Direction) -> Items<'_> {
        match &self.fault {
            Some(error) => Box::new(std::iter::once(Err(error.clone()))),
            None => {
                checked(items(self.maps.of(space), start, end, direction), &self.damaged, space)
            }
        }
    }
}

impl Snapshot for View {}

/// The walk owns its tree, so it outlives the lock under which it began.
fn items<'a>(map: &OrderedMap, start: &[u8], end: &[u8], direction: Direction) -> Items<'a> {
    match direction {
        Direction::Forward => Box::new(map.forward(start, end).map(Ok)),
        Direction::Reverse => Box::new(map.reverse(start, end).map(Ok)),
    }
}

/// The same, with an error in the place of an entry that is not what was written.
fn checked<'a>(items: Items<'a>, damaged: &Damaged, space: Space) -> Items<'a> {
    if damaged.is_empty() {
        return items;
    }
    let damaged = damaged.clone();
    Box::new(items.map(move |item| {
        let (key, value) = item?;
        check_sum(&damaged, space, &key).map(|()| (key, value))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(engine: &MemoryEngine, key: &'static str) {
        let mut batch = WriteBatch::new();
        batch.put(Space::Local, key, "v");
        engine.write(&batch).expect("writes");
    }

    fn keys(reader: &dyn Reader) -> Vec<Bytes> {
        reader
            .scan(Space::Local, b"", b"\xff", Direction::Forward)
            .map(|item| item.expect("reads").0)
            .collect()
    }

    #[test]
    fn crash_loses_what_was_not_flushed_and_nothing_else() {
        let engine = MemoryEngine::new();
        put(&engine, "a");
        engine.flush().expect("flushes");
        put(&engine, "b");
        assert!(engine.unflushed_bytes() > 0);
        assert_eq!(keys(&engine), ["a", "b"]);
        assert_eq!(keys(&engine.crash()), ["a"]);
        assert_eq!(keys(&engine.crash().crash()), ["a"]);
    }

    #[test]
    fn a_snapshot_does_not_move() {
        let engine = MemoryEngine::new();
        put(&engine, "a");
        let snapshot = engine.snapshot();
        put(&engine, "b");
        assert_eq!(snapshot.get(Space::Local, b"b").expect("reads"), None);
    }

    #[test]
    fn rot_is_told_when_it_is_read_until_it_is_written_over() {
        let engine = MemoryEngine::new();
        put(&engine, "a");
        engine.flush().expect("flushes");
        assert!(engine.rot(Space::Local, Rot::Noticed, |_| 0));
        for engine in [&engine, &engine.crash()] {
            assert!(engine.get(Space::Local, b"a").is_err());
            assert!(engine.snapshot().get(Space::Local, b"a").is_err());
            assert_eq!(engine.get(Space::Local, b"b").expect("it is whole"), None);
            put(engine, "a");
            assert_eq!(keys(engine), ["a"]);
        }
        engine.flush().expect("flushes");
        assert!(engine.rot(Space::Local, Rot::Unnoticed, |_| 0));
        let read = engine.get(Space::Local, b"a").expect("nobody looks");
        assert_ne!(read.as_deref(), Some(&b"v"[..]));
    }

    #[test]
    fn a_fault_fails_whole_and_heals() {
        let engine = MemoryEngine::new();
        let error = || Some(StorageError::Io("planted".into()));
        engine.set_fault(Operation::Write, error());
        let mut batch = WriteBatch::new();
        batch.put(Space::Local, "a", "v");
        assert!(engine.write(&batch).is_err());
        engine.set_fault(Operation::Write, None);
        assert!(keys(&engine).is_empty());
        put(&engine, "a");
        engine.set_fault(Operation::Flush, error());
        assert!(engine.flush().is_err());
        assert!(keys(&engine.crash()).is_empty(), "a failed flush makes nothing durable");
        engine.set_fault(Operation::Read, error());
        assert!(engine.get(Space::Local, b"a").is_err());
        assert!(engine.snapshot().get(Space::Local, b"a").is_err());
    }
}
