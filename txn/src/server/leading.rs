//! Value: what a leaseholder knows of its range beside the replicated state, from `Led` to
//! `Deposed`. All of it is in memory.
//!
//! Losing it is safe: the next leaseholder's timestamp caches begin at its floor, at or above
//! everything we served (killer H10); queues and the wait-for graph only order contenders; and who
//! relies on a lock finds out at its commit whether it was lost ([`LockEra`]).

use clock::{Monotonic, Now, Timestamp};
use replication::raft::Term;
use replication::range::RangeDescriptor;
use std::collections::BTreeMap;
use storage::mvcc::TxnId;
use storage::{Key, Span};

use super::PlantedBug;
use super::evaluate::Effects;
use super::latch::{Latches, Ticket};
use super::locks::LockTable;
use super::moved::MovedCommits;
use super::push::WaitGraph;
use super::tscache::TsCache;
use crate::api::{LockEra, TxnMeta};

/// Aborted transactions remembered (killer T09); beyond it the oldest are forgotten: their reads
/// may miss their own writes, their commits still fail.
pub(super) const ABORTED_MAX: usize = 10_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Leading {
    /// The lease's sequence.
    pub(super) term: Term,
    /// When keys were read.
    pub(super) keys: TsCache,
    /// To what timestamps transactions anchored here were pushed, by raw record key.
    pub(super) records: TsCache,
    pub(super) locks: LockTable,
    pub(super) key_latches: Latches,
    pub(super) record_latches: Latches,
    pub(super) waits: WaitGraph,
    pub(super) moved: MovedCommits,
    read_high: Timestamp,
    aborted: BTreeMap<TxnId, Monotonic>,
    gc: Option<(Span, Timestamp, Key)>,
}

impl Leading {
    /// Nothing at or below `floor` may be written any more.
    pub(super) fn new(
        term: Term,
        floor: Timestamp,
        cells_max: usize,
        planted: Option<PlantedBug>,
    ) -> Leading {
        let low = if planted == Some(PlantedBug::FloorForgotten) { Timestamp::MIN } else { floor };
        let mut leading = Leading {
            term,
            keys: TsCache::new(low, cells_max),
            records: TsCache::new(low, cells_max),
            locks: LockTable::default(),
            key_latches: Latches::default(),
            record_latches: Latches::default(),
            waits: WaitGraph::default(),
            moved: MovedCommits::default(),
            read_high: floor,
            aborted: BTreeMap::new(),
            gc: None,
        };
        if planted == Some(PlantedBug::EvictionForgets) {
            leading.keys.plant_forgetful_eviction();
        }
        leading
    }

    /// At or above every timestamp at which something was read, or a transaction pushed.
    pub(super) fn read_high(&self) -> Timestamp {
        self.read_high
    }

    /// The locks that are taken now are held while this stays the same.
    pub(super) fn lock_era(&self, of: &RangeDescriptor) -> LockEra {
        let losses = self.locks.losses();
        LockEra { range: of.id, span: of.span.clone(), lease: self.term, losses }
    }

    /// Takes over what the left side of a split knew.
    pub(super) fn inherit(&mut self, inherited: Inherited) {
        self.read_high = self.read_high.max(inherited.read_high);
        self.keys.absorb(&inherited.keys);
        self.records.absorb(&inherited.records);
        self.locks = inherited.locks;
    }

    /// What the right side of a split must know; its locks move.
    pub(super) fn bequeath(&mut self, at: &Key, now: Monotonic) -> Inherited {
        Inherited {
            keys: self.keys.clone(),
            records: self.records.clone(),
            locks: self.locks.split_off(at),
            read_high: self.read_high,
            at: now,
        }
    }

    /// Reads and pushes take effect now, whatever becomes of the rest.
    pub(super) fn mark(&mut self, effects: &Effects, reader: Option<TxnId>) {
        for (span, ts) in &effects.reads {
            self.mark_read(span, *ts, reader);
        }
        for (record, ts) in &effects.pushes {
            self.records.add(&Span::point(record), *ts, None);
            self.read_high = self.read_high.max(*ts);
        }
    }

    /// `span` was read at `ts`.
    pub(super) fn mark_read(&mut self, span: &Span, ts: Timestamp, reader: Option<TxnId>) {
        self.keys.add(span, ts, reader);
        self.read_high = self.read_high.max(ts);
    }

    /// What else an answer that needs no command does.
    pub(super) fn note(&mut self, effects: &mut Effects, txn: Option<&TxnMeta>, now: Now) {
        for wait in std::mem::take(&mut effects.waits) {
            self.waits.add(wait, now.monotonic);
        }
        if let Some(txn) = txn {
            for (key, strength) in std::mem::take(&mut effects.locks) {
                self.locks.acquire(&key, txn, strength, now.clock.timestamp());
            }
        }
        if let Some((span, threshold, resume)) = effects.gc_resume.take() {
            self.gc = resume.map(|resume| (span, threshold, resume));
        }
    }

    /// Where a collection of `span` at `threshold` goes on.
    pub(super) fn gc_resume(&self, span: &Span, threshold: Timestamp) -> Option<Key> {
        let resumed = self.gc.as_ref().filter(|gc| gc.0 == *span && gc.1 == threshold);
        resumed.map(|gc| gc.2.clone())
    }

    /// Intents of `txn` were removed by an abort, or its locks.
    pub(super) fn remember_aborted(&mut self, txn: TxnId, now: Monotonic) {
        self.aborted.insert(txn, now);
        if self.aborted.len() > ABORTED_MAX {
            let oldest = self.aborted.iter().min_by_key(|(_, at)| **at).map(|(txn, _)| *txn);
            oldest.map(|txn| self.aborted.remove(&txn));
        }
    }

    /// Whether intents or locks of `txn` were removed by an abort.
    pub(super) fn is_known_aborted(&self, txn: TxnId) -> bool {
        self.aborted.contains_key(&txn)
    }

    /// Whom the claims of `ticket` must wait for.
    pub(super) fn blocks_write(&self, ticket: Ticket) -> Option<Ticket> {
        self.key_latches.blocks_write(ticket).or_else(|| self.record_latches.blocks_write(ticket))
    }

    /// The claims of `ticket` become latches.
    pub(super) fn hold(&mut self, ticket: Ticket, ts: Timestamp) {
        self.key_latches.hold(ticket, ts);
        self.record_latches.hold(ticket, Timestamp::MIN);
    }

    /// Forgets the claims or latches of `ticket`.
    pub(super) fn release(&mut self, ticket: Ticket) {
        self.key_latches.release(ticket);
        self.record_latches.release(ticket);
    }
}

/// What a range that was split off knows of its past, until it is led here.
#[derive(Debug)]
pub(super) struct Inherited {
    keys: TsCache,
    records: TsCache,
    locks: LockTable,
    read_high: Timestamp,
    /// When; locks that are too old by the time the range is led are not worth having.
    pub(super) at: Monotonic,
}

impl Inherited {
    /// Without its locks: others may have ended their owners meanwhile.
    pub(super) fn without_locks(self) -> Inherited {
        Inherited { locks: LockTable::default(), ..self }
    }
}
