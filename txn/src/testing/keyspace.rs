//! Machine, as dumb as it can be: all versions, intents, locks, records and reads of a keyspace, and what each request does to them.

mod records;

use bytes::Bytes;
use clock::{ClockTimestamp, Timestamp};
use replication::range::{RangeDescriptor, RangeId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use storage::{Direction, Key, Span};

use crate::api::{
    Advice, Batch, Change, Expect, KvError, Lock, Mutation, Request, Response, Row, Sequence,
    Skipped, TxnId, TxnMeta, TxnStatus, Wait,
};

/// A transaction without a sign of life for this long may be aborted by others.
const EXPIRY: Duration = Duration::from_secs(5);
/// So long a staged transaction is left to its coordinator.
const STAGED_KEPT: Duration = Duration::from_millis(200);
/// A waiter that has not pushed for this long waits no more.
const WAITER_MAX: Duration = Duration::from_millis(500);
/// Reads remembered; when there are more, the older half becomes the low-water mark.
const READS_MAX: usize = 512;

struct Version {
    value: Option<Bytes>,
    written_at: ClockTimestamp,
}

struct Intent {
    holder: TxnMeta,
    ts: Timestamp,
    written_at: ClockTimestamp,
    steps: BTreeMap<Sequence, Option<Bytes>>,
}

impl Intent {
    fn value(&self, ignored: &[(Sequence, Sequence)]) -> Option<&Option<Bytes>> {
        let is_ignored = |sequence: &Sequence| {
            ignored.iter().any(|(first, last)| sequence >= first && sequence <= last)
        };
        self.steps.iter().rev().find(|(sequence, _)| !is_ignored(sequence)).map(|(_, value)| value)
    }
}

struct Held {
    holder: TxnMeta,
    strength: Lock,
    /// `holder.stage` is the last one.
    first_stage: u32,
    since: Timestamp,
}

struct Record {
    status: TxnStatus,
    heartbeat: Timestamp,
    intents: Vec<Span>,
}

struct Read {
    span: Span,
    at: Timestamp,
    by: Option<TxnId>,
}

struct Waiter {
    seen: Timestamp,
    dependents: Vec<TxnId>,
}

#[derive(Default)]
pub(super) struct Keyspace {
    versions: BTreeMap<Key, BTreeMap<Timestamp, Version>>,
    intents: BTreeMap<Key, Intent>,
    locks: BTreeMap<Key, Vec<Held>>,
    records: BTreeMap<TxnId, Record>,
    /// Transactions must commit above.
    pushed: BTreeMap<TxnId, Timestamp>,
    /// Ended and removed: a message of theirs that comes late finds no record, and must not make one.
    forgotten: BTreeSet<TxnId>,
    reads: Vec<Read>,
    /// When transactions were committed in one phase.
    one_phase: BTreeMap<TxnId, Timestamp>,
    low_water: Timestamp,
    waiters: BTreeMap<TxnId, BTreeMap<TxnId, Waiter>>,
    fences: BTreeMap<u32, u64>,
    /// Where history was collected, and up to when.
    collected: Vec<(Span, Timestamp)>,
}

/// What reads leave behind once the whole batch has succeeded.
#[derive(Default)]
struct Traces {
    reads: Vec<Span>,
    locks: Vec<(Key, Lock)>,
    skipped: Vec<Skipped>,
}

impl Traces {
    fn note_skipped(&mut self, skipped: Skipped, clock: ClockTimestamp) {
        if skipped.active.plus(EXPIRY) <= clock.timestamp() {
            self.skipped.push(skipped);
        }
    }
}

impl Keyspace {
    pub(super) fn lose_locks(&mut self) {
        self.locks.clear();
    }

    pub(super) fn lock_count(&self) -> usize {
        self.intents.len() + self.locks.values().map(Vec::len).sum::<usize>()
    }

    /// Versions of rows that are there, deletions among them.
    pub(super) fn version_count(&self) -> usize {
        self.versions.values().map(BTreeMap::len).sum()
    }

    pub(super) fn record_count(&self) -> usize {
        self.records.len()
    }

    pub(super) fn rows(&self) -> Vec<(Key, Bytes)> {
        self.versions
            .iter()
            .filter_map(|(key, versions)| {
                let (_, newest) = versions.last_key_value()?;
                Some((key.clone(), newest.value.clone()?))
            })
            .collect()
    }

    /// All or nothing, but for reads that the refusal itself tells of, and for writes before a refused `Stage`: as over several ranges.
    pub(super) fn evaluate(
        &mut self,
        batch: &Batch,
        clock: ClockTimestamp,
    ) -> Result<(Vec<Response>, Vec<Skipped>), KvError> {
        for (table, version) in &batch.schema {
            if let Some(fence) = self.fences.get(table).filter(|fence| *fence > version) {
                return Err(KvError::SchemaChanged { table: *table, version: *fence });
            }
        }
        let mut traces = Traces::default();
        let mut responses = Vec::with_capacity(batch.requests.len());
        for request in &batch.requests {
            responses.push(self.evaluate_one(batch, request, clock, &mut traces)?);
        }
        let skipped = std::mem::take(&mut traces.skipped);
        self.leave(batch, traces);
        Ok((responses, skipped))
    }

    fn leave(&mut self, batch: &Batch, traces: Traces) {
        let by = batch.txn.as_ref().map(|txn| txn.id);
        for span in traces.reads {
            self.note_read(span, batch.read_at, by);
        }
        let Some(holder) = &batch.txn else { return };
        for (key, strength) in traces.locks {
            let held = self.locks.entry(key).or_default();
            match held.iter_mut().find(|held| held.holder.id == holder.id) {
                Some(own) => {
                    own.strength = own.strength.max(strength);
                    own.first_stage = own.first_stage.min(holder.stage);
                    own.holder.stage = own.holder.stage.max(holder.stage);
                }
                None => held.push(Held {
                    holder: holder.clone(),
                    strength,
                    first_stage: holder.stage,
                    since: batch.read_at,
                }),
            }
        }
    }

    fn note_read(&mut self, span: Span, at: Timestamp, by: Option<TxnId>) {
        if at <= self.low_water {
            return;
        }
        self.reads.push(Read { span, at, by });
        if self.reads.len() > READS_MAX {
            self.reads.sort_by_key(|read| read.at);
            let older = self.reads.drain(..READS_MAX / 2).map(|read| read.at).max();
            self.low_water = self.low_water.forward(older.unwrap_or(Timestamp::MIN));
        }
    }

    fn evaluate_one(
        &mut self,
        batch: &Batch,
        request: &Request,
        clock: ClockTimestamp,
        traces: &mut Traces,
    ) -> Result<Response, KvError> {
        match request {
            Request::Get { key, lock } => {
                let row = self.read(batch, key, *lock);
                match row {
                    Err(KvError::Blocked { key, holder, active, .. })
                        if batch.wait == Wait::Skip =>
                    {
                        traces.note_skipped(Skipped { key, holder, active }, clock);
                        Ok(Response::Get(None))
                    }
                    Err(error) => Err(error),
                    Ok(row) => {
                        traces.reads.push(Span::point(key));
                        traces.locks.extend(lock.map(|lock| (key.clone(), lock)));
                        Ok(Response::Get(row))
                    }
                }
            }
            Request::Scan { span, direction, limit, bytes_max, lock } => {
                self.scan(batch, span, *direction, (*limit, *bytes_max), *lock, (traces, clock))
            }
            Request::Refresh { span, since } => {
                self.refresh(batch, span, *since, batch.read_at)?;
                traces.reads.push(span.clone());
                Ok(Response::Done)
            }
            Request::Write { mutations } => self.write(batch, mutations, clock),
            Request::CommitOnePhase { mutations, reads, reads_elsewhere, deadline } => {
                self.commit_one_phase(batch, mutations, reads, *reads_elsewhere, *deadline, clock)
            }
            Request::Stage { intents, writes, deadline } => {
                self.stage(batch, intents, writes, *deadline, clock)
            }
            Request::QueryWrites { txn, at, writes, missing } => {
                Ok(self.query_writes(*txn, *at, writes, *missing))
            }
            Request::EndTxn { commit_ts, intents, deadline } => {
                self.end(batch, *commit_ts, intents, *deadline, clock)
            }
            Request::Resolve { txn, commit_ts, ignored, spans } => {
                self.resolve(*txn, *commit_ts, ignored, spans);
                Ok(Response::Done)
            }
            Request::Unlock { spans, since, upto } => {
                self.unlock(own(batch)?.id, spans, *since, *upto);
                Ok(Response::Done)
            }
            Request::Push { pushee, active, kind, dependents, sought } => {
                self.note_found(pushee.id, *sought);
                Ok(self.push(batch.txn.as_ref(), pushee, *active, *kind, dependents, clock))
            }
            Request::Heartbeat => self.heartbeat(own(batch)?, clock),
            Request::QueryTxn { txn, .. } => Ok(self.query(*txn, clock)),
            Request::ForgetTxn { txn, .. } => {
                self.records.remove(txn);
                self.pushed.remove(txn);
                self.waiters.remove(txn);
                self.forgotten.insert(*txn);
                Ok(Response::Done)
            }
            Request::Settle { txn, .. } => Ok(self.settle(*txn, clock)),
            Request::Changes { span, after, bytes_max } => {
                self.changes(batch, span, *after, *bytes_max, traces)
            }
            Request::Fence { span, table, version } => {
                if let Some((key, intent)) = self.intents_in(span).next() {
                    return Err(blocked(key, &intent.holder, intent.ts, true));
                }
                let fence = self.fences.entry(*table).or_default();
                *fence = (*fence).max(*version);
                Ok(Response::Done)
            }
            Request::Split { at, right } => Ok(Response::Split {
                left: Some(descriptor(RangeId(1), Span::new(Key::MIN, at.clone()))),
                right: descriptor(*right, Span::new(at.clone(), Key::MAX)),
            }),
            Request::TransferLease { .. } => Ok(Response::Done),
            Request::Gc { span, threshold } => {
                self.gc(span, *threshold);
                Ok(Response::Gc { more: false })
            }
        }
    }

    fn intents_in(&self, span: &Span) -> impl Iterator<Item = (&Key, &Intent)> {
        let end = span.end.clone().max(span.start.clone());
        self.intents.range(span.start.clone()..end)
    }

    fn read(&self, batch: &Batch, key: &Key, lock: Option<Lock>) -> Result<Option<Row>, KvError> {
        self.check_history(&Span::point(key), batch.read_at)?;
        let limit = batch.uncertainty_limit.forward(batch.read_at);
        let own = batch.txn.as_ref().map(|txn| txn.id);
        if let Some(strength) = lock {
            if own.is_none() {
                return Err(KvError::Invalid("a lock needs a transaction".into()));
            }
            self.check_locks(own, key, strength)?;
        }
        if let Some(intent) = self.intents.get(key) {
            if Some(intent.holder.id) == own {
                if let Some(value) = intent.value(&batch.ignored) {
                    return Ok(value.clone().map(|value| Row {
                        key: key.clone(),
                        value,
                        ts: intent.ts,
                    }));
                }
            } else {
                let moved = batch
                    .pushed
                    .iter()
                    .any(|(id, ts)| *id == intent.holder.id && *ts >= batch.read_at);
                if lock.is_some() || (intent.ts <= limit && !moved) {
                    return Err(blocked(key, &intent.holder, intent.ts, true));
                }
            }
        }
        let Some(versions) = self.versions.get(key) else { return Ok(None) };
        for (ts, version) in versions.range(batch.read_at..=limit).rev() {
            if *ts > batch.read_at && version.written_at.timestamp() <= limit {
                return Err(KvError::Uncertain { key: key.clone(), ts: *ts });
            }
        }
        if let Some((newest, _)) = versions.last_key_value()
            && lock.is_some()
            && *newest > batch.read_at
        {
            return Err(KvError::NewerVersion { key: key.clone(), ts: *newest });
        }
        let visible = versions.range(..=batch.read_at).next_back();
        Ok(visible.and_then(|(ts, version)| {
            version.value.clone().map(|value| Row { key: key.clone(), value, ts: *ts })
        }))
    }

    fn check_locks(&self, own: Option<TxnId>, key: &Key, strength: Lock) -> Result<(), KvError> {
        for held in self.locks.get(key).into_iter().flatten() {
            let excludes = strength == Lock::Exclusive || held.strength == Lock::Exclusive;
            if Some(held.holder.id) != own && excludes {
                return Err(blocked(key, &held.holder, held.since, false));
            }
        }
        Ok(())
    }

    fn scan(
        &self,
        batch: &Batch,
        span: &Span,
        direction: Direction,
        (limit, bytes_max): (u64, u64),
        lock: Option<Lock>,
        (traces, clock): (&mut Traces, ClockTimestamp),
    ) -> Result<Response, KvError> {
        let end = span.end.clone().max(span.start.clone());
        let keys: BTreeSet<&Key> = self
            .versions
            .range(span.start.clone()..end.clone())
            .map(|(key, _)| key)
            .chain(self.intents.range(span.start.clone()..end).map(|(key, _)| key))
            .collect();
        let keys: Vec<&Key> = match direction {
            Direction::Forward => keys.into_iter().collect(),
            Direction::Reverse => keys.into_iter().rev().collect(),
        };
        let mut rows: Vec<Row> = Vec::new();
        let mut bytes: u64 = 0;
        let mut resume = None;
        for key in keys {
            if (limit > 0 && rows.len() as u64 >= limit) || (bytes_max > 0 && bytes >= bytes_max) {
                resume = Some(match direction {
                    Direction::Forward => Span::new(key.clone(), span.end.clone()),
                    Direction::Reverse => Span::new(span.start.clone(), key.next()),
                });
                break;
            }
            // A deleted row is locked for no one: first without, then with the lock.
            match self.read(batch, key, None) {
                Ok(None) => continue,
                Ok(Some(_)) | Err(KvError::Blocked { .. } | KvError::Uncertain { .. }) => {}
                Err(error) => return Err(error),
            }
            match self.read(batch, key, lock) {
                Ok(None) => {}
                Ok(Some(row)) => {
                    bytes += (key.as_bytes().len() + row.value.len()) as u64;
                    traces.locks.extend(lock.map(|lock| (key.clone(), lock)));
                    rows.push(row);
                }
                Err(KvError::Blocked { key, holder, active, .. }) if batch.wait == Wait::Skip => {
                    traces.note_skipped(Skipped { key, holder, active }, clock);
                }
                Err(error) => return Err(error),
            }
        }
        let examined = match (&resume, direction) {
            (None, _) => span.clone(),
            (Some(rest), Direction::Forward) => Span::new(span.start.clone(), rest.start.clone()),
            (Some(rest), Direction::Reverse) => Span::new(rest.end.clone(), span.end.clone()),
        };
        traces.reads.push(examined);
        Ok(Response::Scan { rows, resume })
    }

    /// Whether nobody else has written in `(since, at]`.
    fn refresh(
        &self,
        batch: &Batch,
        span: &Span,
        since: Timestamp,
        at: Timestamp,
    ) -> Result<(), KvError> {
        if since < at {
            self.check_history(span, since)?;
        }
        let own = batch.txn.as_ref().map(|txn| txn.id);
        let end = span.end.clone().max(span.start.clone());
        for (key, versions) in self.versions.range(span.start.clone()..end) {
            if let Some((ts, _)) =
                versions.range(since.next()..).next().filter(|(ts, _)| **ts <= at)
            {
                let (key, ts) = (key.clone(), *ts);
                return Err(KvError::RefreshFailed { key, ts, by: None });
            }
        }
        for (key, intent) in self.intents_in(span) {
            let moved = batch.pushed.iter().any(|(id, ts)| *id == intent.holder.id && *ts >= at);
            if Some(intent.holder.id) != own && intent.ts <= at && !moved {
                return Err(blocked(key, &intent.holder, intent.ts, true));
            }
        }
        Ok(())
    }

    /// The least timestamp, from `read_at` on, at which all these may be written.
    fn write_ts(
        &mut self,
        batch: &Batch,
        own: TxnId,
        mutations: &[Mutation],
    ) -> Result<Timestamp, KvError> {
        let mut ts = batch.read_at.forward(self.low_water.next());
        for mutation in mutations {
            let key = &mutation.key;
            self.check_locks(Some(own), key, Lock::Exclusive)?;
            if let Some(intent) = self.intents.get(key).filter(|intent| intent.holder.id != own) {
                return Err(blocked(key, &intent.holder, intent.ts, true));
            }
            let newest = self.versions.get(key).and_then(|versions| versions.last_key_value());
            if let Some((newest_ts, version)) = newest {
                let (newest_ts, value) = (*newest_ts, version.value.clone());
                if let (Expect::Absent, Some(value)) = (mutation.expect, value) {
                    let at = newest_ts.forward(batch.read_at);
                    self.note_read(Span::point(key), at, Some(own));
                    return Err(KvError::Exists { key: key.clone(), value });
                }
                ts = ts.forward(newest_ts.next());
            }
            for read in
                self.reads.iter().filter(|read| read.by != Some(own) && read.span.contains(key))
            {
                ts = ts.forward(read.at.next());
            }
        }
        Ok(ts)
    }

    fn write(
        &mut self,
        batch: &Batch,
        mutations: &[Mutation],
        clock: ClockTimestamp,
    ) -> Result<Response, KvError> {
        let holder = own(batch)?.clone();
        match self.records.get(&holder.id).map(|record| &record.status) {
            Some(TxnStatus::Committed(ts)) => return Ok(Response::Written(*ts)),
            Some(TxnStatus::Aborted) => return Err(aborted()),
            Some(TxnStatus::Pending | TxnStatus::Staging(_)) | None => {}
        }
        let ts = self.write_ts(batch, holder.id, mutations)?;
        let mut laid = batch.read_at;
        for mutation in mutations {
            let intent = self.intents.entry(mutation.key.clone()).or_insert_with(|| Intent {
                holder: holder.clone(),
                ts,
                written_at: clock,
                steps: BTreeMap::new(),
            });
            // It stays where it was laid first.
            laid = laid.forward(intent.ts);
            intent.steps.insert(mutation.sequence, mutation.value.clone());
        }
        Ok(Response::Written(laid))
    }

    fn commit_one_phase(
        &mut self,
        batch: &Batch,
        mutations: &[Mutation],
        reads: &[Span],
        reads_elsewhere: bool,
        deadline: Timestamp,
        clock: ClockTimestamp,
    ) -> Result<Response, KvError> {
        let own = own(batch)?.id;
        if matches!(self.records.get(&own), Some(Record { status: TxnStatus::Aborted, .. })) {
            return Err(aborted());
        }
        let ts = self.write_ts(batch, own, mutations)?;
        if ts > deadline {
            return Err(KvError::DeadlinePassed);
        }
        if ts > batch.read_at {
            if reads_elsewhere {
                return Err(KvError::NeedsRefresh { ts });
            }
            for span in reads {
                self.refresh(batch, span, batch.read_at, ts)?;
            }
            for span in reads {
                self.note_read(span.clone(), ts, Some(own));
            }
        }
        for mutation in mutations {
            let version = Version { value: mutation.value.clone(), written_at: clock };
            self.versions.entry(mutation.key.clone()).or_default().insert(ts, version);
            self.release(own, &mutation.key);
        }
        self.one_phase.insert(own, ts);
        Ok(Response::Committed(ts))
    }

    fn release(&mut self, txn: TxnId, key: &Key) {
        if let Some(held) = self.locks.get_mut(key) {
            held.retain(|held| held.holder.id != txn);
            if held.is_empty() {
                self.locks.remove(key);
            }
        }
    }

    fn resolve(
        &mut self,
        txn: TxnId,
        commit_ts: Option<Timestamp>,
        ignored: &[(Sequence, Sequence)],
        spans: &[Span],
    ) {
        for span in spans {
            let own =
                |(key, intent): (&Key, &Intent)| (intent.holder.id == txn).then(|| key.clone());
            let keys: Vec<Key> = self.intents_in(span).filter_map(own).collect();
            for key in keys {
                let intent = self.intents.remove(&key).expect("it was just found");
                if let (Some(ts), Some(value)) = (commit_ts, intent.value(ignored)) {
                    let version = Version { value: value.clone(), written_at: intent.written_at };
                    self.versions.entry(key).or_default().insert(ts, version);
                }
            }
            let end = span.end.clone().max(span.start.clone());
            let locked: Vec<Key> =
                self.locks.range(span.start.clone()..end).map(|(key, _)| key.clone()).collect();
            for key in locked {
                self.release(txn, &key);
            }
        }
    }

    fn unlock(&mut self, txn: TxnId, spans: &[Span], since: u32, upto: u32) {
        for (key, held) in &mut self.locks {
            if spans.iter().any(|span| span.contains(key)) {
                held.retain(|held| {
                    held.holder.id != txn || held.first_stage < since || held.holder.stage > upto
                });
            }
        }
        self.locks.retain(|_, held| !held.is_empty());
    }

    fn changes(
        &self,
        batch: &Batch,
        span: &Span,
        after: Timestamp,
        bytes_max: u64,
        traces: &mut Traces,
    ) -> Result<Response, KvError> {
        if let Some((key, intent)) =
            self.intents_in(span).find(|(_, intent)| intent.ts <= batch.read_at)
        {
            return Err(blocked(key, &intent.holder, intent.ts, true));
        }
        if after < batch.read_at {
            self.check_history(span, after)?;
        }
        let mut all: Vec<Change> = Vec::new();
        for (key, versions) in self.versions.range(span.start.clone()..span.end.clone()) {
            for (ts, version) in
                versions.range(after.next()..).take_while(|(ts, _)| **ts <= batch.read_at)
            {
                all.push(Change { ts: *ts, key: key.clone(), value: version.value.clone() });
            }
        }
        all.sort_by(|a, b| (a.ts, &a.key).cmp(&(b.ts, &b.key)));
        traces.reads.push(span.clone());
        let mut changes: Vec<Change> = Vec::new();
        let mut bytes: u64 = 0;
        for change in all {
            let new_ts = changes.last().is_some_and(|last| last.ts != change.ts);
            if new_ts && bytes_max > 0 && bytes >= bytes_max {
                let upto = changes.last().map_or(after, |last| last.ts);
                return Ok(Response::Changes { changes, upto });
            }
            bytes +=
                (change.key.as_bytes().len() + change.value.as_ref().map_or(0, Bytes::len)) as u64;
            changes.push(change);
        }
        Ok(Response::Changes { changes, upto: batch.read_at })
    }

    fn check_history(&self, span: &Span, at: Timestamp) -> Result<(), KvError> {
        let of_span = self.collected.iter().filter(|(collected, _)| collected.overlaps(span));
        match of_span.map(|(_, threshold)| *threshold).max() {
            Some(threshold) if at <= threshold => Err(KvError::BelowGc { threshold }),
            _ => Ok(()),
        }
    }

    fn gc(&mut self, span: &Span, threshold: Timestamp) {
        match self.collected.iter_mut().find(|(collected, _)| collected == span) {
            Some((_, before)) => *before = before.forward(threshold),
            None => self.collected.push((span.clone(), threshold)),
        }
        for (_, versions) in self.versions.range_mut(span.start.clone()..span.end.clone()) {
            // The newest at or below the threshold is what a read just above it sees.
            let keep = versions.range(..=threshold).next_back().map(|(ts, _)| *ts);
            if let Some(keep) = keep {
                versions
                    .retain(|ts, version| *ts > keep || (*ts == keep && version.value.is_some()));
            }
        }
    }
}

fn pushed(status: TxnStatus, intents: Vec<Span>, advice: Advice) -> Response {
    Response::Pushed { status, intents, ignored: Vec::new(), advice }
}

fn own(batch: &Batch) -> Result<&TxnMeta, KvError> {
    batch.txn.as_ref().ok_or_else(|| KvError::Invalid("the request needs a transaction".into()))
}

fn aborted() -> KvError {
    KvError::TxnAborted { reason: "its record says so".into() }
}

fn blocked(key: &Key, holder: &TxnMeta, active: Timestamp, intent: bool) -> KvError {
    KvError::Blocked { key: key.clone(), holder: holder.clone(), active, intent }
}

fn descriptor(id: RangeId, span: Span) -> RangeDescriptor {
    RangeDescriptor { id, span, generation: 1, peers: Vec::new(), next_replica: 1 }
}
