//! Machine: how a store begins: [`Store::open`] after every start, [`Store::bootstrap`] once per cluster.
//!
//! State engine and log are two things that become durable separately. Every state they can be found in:
//!
//! | engine (last flush) | log | how it came about | what is done |
//! |---|---|---|---|
//! | range state | reaches the applied index with its term | the usual | entries after it apply again when they are known committed |
//! | range state | shorter, or another term there | applied entries were committed elsewhere and not yet synced here; or a snapshot, split or bootstrap was flushed and its log write lost | the log is begun anew after the applied index |
//! | range state | truncated beyond the applied index | never: truncation follows flushes | `Corrupt` |
//! | range state without us in it | any | crash between applying our removal and finishing it | the replica is removed |
//! | none, tombstone | any | crash in the middle of a removal | the group is removed |
//! | none | hard state only | an uninitialised replica that has voted | it goes on as one (killer R14) |
//! | none | entries | never: births are flushed before their log is written | `Corrupt` |

use bytes::Bytes;
use clock::{Monotonic, Now, Timestamp};
use coverage::Mark;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use storage::log::{GroupState, Log, LogBatch, LogGroup, LogOp, LogReader, LogSequence};
use storage::varint::{self, Input};
use storage::{Direction, Engine, Space, StorageError, WriteBatch};

use super::core::{Out, Store};
use super::promises::Promises;
use super::replica::{Birth, Random, Replica};
use super::tail::Tail;
use super::{Fencing, PlantedBug, StoreConfig, StoreIdentity};
use crate::raft::{Entry, HardState, LogIndex, Payload, ReplicaId, Term};
use crate::range::{
    INITIAL, NodeId, RangeDescriptor, RangeId, RangeState, range_state_key, range_states_span,
    tombstone_key,
};

const FORMAT: u8 = 1;
/// Payload bytes read from the log at a time while a store opens.
const SCAN_BYTES: usize = 4 << 20;
/// In `Space::Local`: the longest promise any incarnation of this store may have given, in nanoseconds.
const PROMISE_KEY: &[u8] = b"store/promise_duration";

impl Store {
    /// Loads every replica. Nothing is applied yet: committed entries apply again as their commitment becomes known. What
    /// is found half done is finished by the first [`Store::ready`].
    ///
    /// `restart_floor`: at or above the clock bound persisted by former starts. `seed` makes election timeouts differ.
    /// Errors: what is on disk cannot be; the node must not start.
    pub fn open(
        config: StoreConfig,
        identity: StoreIdentity,
        engine: Arc<dyn Engine>,
        log: Arc<dyn LogReader>,
        now: Now,
        seed: u64,
        restart_floor: Timestamp,
    ) -> Result<Store, StorageError> {
        let no_vote_before = wait_for_former_promises(&config, &*engine, now)?;
        let promises = Promises::new(&config, identity, now, no_vote_before, restart_floor);
        let mut store = Store {
            config,
            identity,
            engine,
            log,
            promises,
            replicas: BTreeMap::new(),
            spans: BTreeMap::new(),
            nodes: BTreeMap::new(),
            fencing: Fencing::Serving,
            random: Random::new(seed),
            fatal: None,
            dirty: BTreeSet::new(),
            timers: BTreeSet::new(),
            sweep_at: now.monotonic,
            out: Out::default(),
            unsynced: VecDeque::new(),
            last_appended: LogSequence::default(),
            last_epoch: 0,
            last_attempt: identity.incarnation.0 << 32,
            outgoing: BTreeMap::new(),
        };
        store.load(now)?;
        Ok(store)
    }

    /// Writes the cluster's first range, with `batch` as its content. Durable on return. `descriptor` names this node as its
    /// single voter. A crash in the middle leaves nothing, or a range that [`Store::open`] completes.
    pub fn bootstrap(
        engine: &dyn Engine,
        log: &dyn Log,
        descriptor: &RangeDescriptor,
        mut batch: WriteBatch,
    ) -> Result<(), StorageError> {
        assert_eq!(descriptor.peers.len(), 1, "the first range has one replica");
        let state = RangeState {
            applied: INITIAL,
            descriptor: descriptor.clone(),
            fences: BTreeMap::new(),
            gc_threshold: Timestamp::MIN,
        };
        batch.put(Space::Local, range_state_key(descriptor.id), state.encode());
        engine.write(&batch)?;
        engine.flush()?;
        let mut ops = LogBatch::default();
        begin_log(
            &mut ops,
            descriptor.id,
            descriptor.peers[0].replica,
            initial_hard_state(),
            INITIAL,
        );
        log.append(ops)?;
        log.sync()?;
        Ok(())
    }

    fn load(&mut self, now: Now) -> Result<(), StorageError> {
        let mut groups: BTreeMap<LogGroup, GroupState> = self.log.groups().into_iter().collect();
        for state in read_states(&*self.engine)? {
            let group = groups.remove(&LogGroup(state.descriptor.id.0)).unwrap_or_default();
            self.load_range(now, state, group)?;
        }
        for (group, found) in groups {
            self.load_leftover(now, RangeId(group.0), found)?;
        }
        Ok(())
    }

    fn load_range(
        &mut self,
        now: Now,
        state: RangeState,
        group: GroupState,
    ) -> Result<(), StorageError> {
        let range = state.descriptor.id;
        let Some(id) = state.descriptor.peer_on(self.identity.node).map(|peer| peer.replica) else {
            let next = state.descriptor.next_replica;
            coverage::reached(Mark::RemovalFinishedAtStart);
            return self.erase(range, Some(&state.descriptor.span), next);
        };
        if let Some(taken) = self.overlapping(&state.descriptor.span, range) {
            return Err(StorageError::Corrupt(format!("{range} overlaps {taken}")));
        }
        let (stored_id, mut hard_state) = match group.state {
            Some(bytes) => match decode_hard_state(bytes)? {
                // A former replica's, which had nothing that was kept.
                (former, _) if former < id => {
                    coverage::reached(Mark::FormerHardStateIgnored);
                    (id, initial_hard_state())
                }
                stored => stored,
            },
            None => (id, initial_hard_state()),
        };
        if stored_id > id {
            return Err(StorageError::Corrupt(format!(
                "{range}: log of replica {stored_id}, state of {id}"
            )));
        }
        let (applied, applied_term) = state.applied;
        if group.truncated.0 > applied {
            return Err(StorageError::Corrupt(format!(
                "{range}: log begins after {}, state ends at {applied}",
                group.truncated.0
            )));
        }
        raise_term(&mut hard_state, applied_term);
        let in_log = self.log.term(LogGroup(range.0), applied) == Some(applied_term);
        let (tail, last, entries) = if in_log && group.last.0 >= applied {
            let entries = self.read_log(range, group.truncated.0, group.last.0)?;
            (Tail::found(group.truncated, &entries), group.last, entries)
        } else {
            hard_state.commit = applied;
            coverage::reached(Mark::LogBegunAfterState);
            let mut tail = Tail::default();
            tail.reset(state.applied);
            begin_log(&mut self.out.write, range, id, hard_state, state.applied);
            self.out.unsettled.insert(range);
            (tail, state.applied, Vec::new())
        };
        let routes = routes_of(&entries)?;
        self.spans.insert(state.descriptor.span.start.clone(), range);
        let birth = Birth {
            range,
            id,
            epoch: self.next_epoch(),
            hard_state,
            state: Some(state),
            tail,
            last,
            routes,
            inherited_floor: Timestamp::MIN,
        };
        self.adopt(now, birth);
        Ok(())
    }

    /// A group in the log whose range the engine does not know.
    fn load_leftover(
        &mut self,
        now: Now,
        range: RangeId,
        group: GroupState,
    ) -> Result<(), StorageError> {
        let Some(bytes) = group.state else {
            coverage::reached(Mark::EmptyLogRemovedAtStart);
            self.out.write.ops.push(LogOp::Remove { group: LogGroup(range.0) });
            return Ok(());
        };
        let (id, hard_state) = decode_hard_state(bytes)?;
        if id.0 < self.tombstone(range)? {
            coverage::reached(Mark::BuriedLogRemovedAtStart);
            self.out.write.ops.push(LogOp::Remove { group: LogGroup(range.0) });
            return Ok(());
        }
        if group.last.0 > LogIndex::ZERO {
            return Err(StorageError::Corrupt(format!("{range}: a log without its state")));
        }
        coverage::reached(Mark::UninitialisedKeptAtStart);
        let birth = Birth {
            range,
            id,
            epoch: self.next_epoch(),
            hard_state,
            state: None,
            tail: Tail::default(),
            last: group.last,
            routes: BTreeMap::new(),
            inherited_floor: Timestamp::MIN,
        };
        self.adopt(now, birth);
        Ok(())
    }

    pub(super) fn adopt(&mut self, now: Now, birth: Birth) {
        let range = birth.range;
        let config = self.config.raft.clone();
        let replica = Replica::new(&config, birth, &mut self.context(now));
        self.replicas.insert(range, Box::new(replica));
        self.dirty.insert(range);
    }

    fn read_log(
        &self,
        range: RangeId,
        truncated: LogIndex,
        last: LogIndex,
    ) -> Result<Vec<Entry>, StorageError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut next = truncated.next();
        while next <= last {
            let more = self.log.entries(LogGroup(range.0), next, last, SCAN_BYTES)?;
            match more.last() {
                Some(entry) => next = entry.index.next(),
                None => return Err(StorageError::Corrupt(format!("{range}: no entry {next}"))),
            }
            entries.extend(more);
        }
        Ok(entries)
    }

    /// The lowest replica id of `range` that may live here.
    pub(super) fn tombstone(&self, range: RangeId) -> Result<u64, StorageError> {
        if self.config.planted == Some(PlantedBug::RemovedReturns) {
            return Ok(0);
        }
        match self.engine.get(Space::Local, &tombstone_key(range))? {
            None => Ok(0),
            Some(bytes) => {
                let mut input = Input::new(bytes, "tombstone");
                let next = input.u64()?;
                input.finish()?;
                Ok(next)
            }
        }
    }
}

/// When votes may be granted again: our former incarnations' promises have run out. Durably raises the longest promise first.
fn wait_for_former_promises(
    config: &StoreConfig,
    engine: &dyn Engine,
    now: Now,
) -> Result<Monotonic, StorageError> {
    let ours = u64::try_from(config.promise_duration.as_nanos()).unwrap_or(u64::MAX);
    let before = match engine.get(Space::Local, PROMISE_KEY)? {
        None => None,
        Some(bytes) => {
            let mut input = Input::new(bytes, "longest promise");
            let nanos = input.u64()?;
            input.finish()?;
            Some(nanos)
        }
    };
    if before.is_none_or(|before| before < ours) {
        let mut batch = WriteBatch::new();
        batch.put(Space::Local, PROMISE_KEY, Bytes::copy_from_slice(&ours.to_be_bytes()));
        engine.write(&batch)?;
        engine.flush()?;
    }
    let longest = before.map(|before| Duration::from_nanos(before.max(ours)));
    Ok(longest.map_or(now.monotonic, |longest| now.monotonic.plus(longest)))
}

fn read_states(engine: &dyn Engine) -> Result<Vec<RangeState>, StorageError> {
    let (start, end) = range_states_span();
    engine
        .scan(Space::Local, &start, &end, Direction::Forward)
        .map(|item| RangeState::decode(item?.1))
        .collect()
}

/// Where membership entries say that replicas live.
pub(super) fn routes_of(entries: &[Entry]) -> Result<BTreeMap<ReplicaId, NodeId>, StorageError> {
    let mut routes = BTreeMap::new();
    for entry in entries {
        if let Some(descriptor) = announced(entry)? {
            routes.extend(descriptor.peers.iter().map(|peer| (peer.replica, peer.node)));
        }
    }
    Ok(routes)
}

/// The descriptor that a membership entry carries.
pub(super) fn announced(entry: &Entry) -> Result<Option<RangeDescriptor>, StorageError> {
    match Payload::decode(&entry.data)? {
        Payload::Membership { context, .. } => RangeDescriptor::decode(context).map(Some),
        Payload::Empty | Payload::Command(_) => Ok(None),
    }
}

/// What a replica is born with by bootstrap or split.
pub(super) fn initial_hard_state() -> HardState {
    HardState { term: INITIAL.1, vote: None, commit: INITIAL.0 }
}

/// We have an entry of `term`, so that term has begun. A vote belongs to the term it was given in.
pub(super) fn raise_term(hard_state: &mut HardState, term: Term) {
    if term > hard_state.term {
        hard_state.term = term;
        hard_state.vote = None;
    }
}

/// Forgets whatever the group has in the log, and begins it after `truncated`.
pub(super) fn begin_log(
    batch: &mut LogBatch,
    range: RangeId,
    replica: ReplicaId,
    hard_state: HardState,
    truncated: (LogIndex, Term),
) {
    let group = LogGroup(range.0);
    batch.ops.push(LogOp::Remove { group });
    batch.ops.push(LogOp::State { group, state: encode_hard_state(replica, hard_state) });
    batch.ops.push(LogOp::Truncate { group, index: truncated.0, term: truncated.1 });
}

pub(super) fn encode_hard_state(replica: ReplicaId, hard_state: HardState) -> Bytes {
    let mut out = vec![FORMAT];
    varint::put(&mut out, replica.0);
    varint::put(&mut out, hard_state.term.get());
    varint::put(&mut out, hard_state.commit.get());
    if let Some(vote) = hard_state.vote {
        varint::put(&mut out, vote.0);
    }
    out.into()
}

fn decode_hard_state(bytes: Bytes) -> Result<(ReplicaId, HardState), StorageError> {
    let mut input = Input::new(bytes, "hard state");
    if input.byte()? != FORMAT {
        return Err(input.corrupt("unknown format"));
    }
    let replica = ReplicaId(input.varint()?);
    let term = Term::new(input.varint()?);
    let commit = LogIndex::new(input.varint()?);
    let vote = if input.left() > 0 { Some(ReplicaId(input.varint()?)) } else { None };
    input.finish()?;
    Ok((replica, HardState { term, vote, commit }))
}
