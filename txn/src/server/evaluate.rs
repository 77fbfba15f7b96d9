//! Value: evaluation of one batch at one moment: a total function from what the leaseholder knows
//! to an answer and effects.
//!
//! ```text
//!   Moment (state engine, caches, locks, clock) + Batch ──► Ok  (responses, Effects)     carried out by the range server
//!                                                      └──► Err Stop                      wait for somebody, or refuse
//! ```
//!
//! Nothing is changed here. A batch that has to wait is evaluated again from the start, so an
//! evaluation must not leave traces; a batch that proposes is evaluated once and its effects are
//! what every replica applies.
//!
//! INVARIANT: an answer that tells what was (or was not) there at a timestamp carries a read mark
//! for exactly what was looked at; the range server refuses to answer when the mark is above the
//! lease's read bound, for then a later leaseholder would not know of it.

use clock::{Now, Timestamp};
use coverage::Mark;
use replication::range::{Effect, NodeId, RangeState};
use std::collections::{BTreeMap, BTreeSet};
use storage::mvcc::{Intent, TxnId, record_key};
use storage::{Key, Reader, Span, StorageError, WriteBatch};

use super::PlantedBug;
use super::latch::{Latches, Ticket};
use super::leading::Leading;
use super::locks::Release;
use super::{admin, changes, commit, push, read, resolve, settle, stage, write};
use crate::api::{Batch, KvError, Lock, Request, Response, SKIPPED_MAX, Skipped, TxnMeta};

/// What an evaluation may look at.
#[derive(Clone, Copy)]
pub(super) struct Moment<'a> {
    pub(super) now: Now,
    pub(super) reader: &'a dyn Reader,
    pub(super) state: &'a RangeState,
    pub(super) leading: &'a Leading,
    pub(super) batch: &'a Batch,
    /// How long a silent transaction lives.
    pub(super) expiry: std::time::Duration,
    /// How long a reader leaves a staged transaction to its coordinator.
    pub(super) staged_kept: std::time::Duration,
    /// How many locks the range keeps.
    pub(super) locks_max: usize,
    /// A bug put back on purpose.
    pub(super) planted: Option<PlantedBug>,
}

/// Who is in the way of a request, at which key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Conflict {
    pub(super) key: Key,
    pub(super) holder: TxnMeta,
    pub(super) active: Timestamp,
    pub(super) kind: ConflictKind,
    /// What the request wants there; `None`: only to read, it takes no place in the queue.
    pub(super) wants: Option<Lock>,
}

/// What is met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ConflictKind {
    Intent,
    Lock,
}

/// Why an evaluation did not get to its end.
#[derive(Clone, Debug)]
pub(super) enum Stop {
    /// Wait until that request's command is applied.
    Latched(Ticket),
    /// Wait for a lock or intent.
    Locked(Box<Conflict>),
    /// Refuse.
    Refuse(Box<KvError>),
    /// Refuse, and what was seen counts as read.
    RefuseSeen(Box<(KvError, Span)>, Timestamp),
    /// The engine failed: the node must stop.
    Broken(StorageError),
}

impl From<KvError> for Stop {
    fn from(error: KvError) -> Stop {
        Stop::Refuse(Box::new(error))
    }
}

impl From<StorageError> for Stop {
    fn from(error: StorageError) -> Stop {
        Stop::Broken(error)
    }
}

/// What answering a batch does beside answering.
#[derive(Debug)]
pub(super) struct Effects {
    /// To be replicated.
    pub(super) batch: WriteBatch,
    /// To be replicated.
    pub(super) effect: Effect,
    /// Spans that count as read now, at.
    pub(super) reads: Vec<(Span, Timestamp)>,
    /// Record keys whose transactions must commit above.
    pub(super) pushes: Vec<(Key, Timestamp)>,
    /// Locks taken.
    pub(super) locks: Vec<(Key, Lock)>,
    /// Locks released, once the command is applied.
    pub(super) releases: Vec<Release>,
    /// Silent holders of what was left out.
    pub(super) skipped: Vec<Skipped>,
    /// Keys whose intents are gone, once the command is applied.
    pub(super) freed: Vec<Key>,
    /// Transactions whose intents an abort removes here.
    pub(super) aborted: Vec<TxnId>,
    /// Reads strictly below need not wait for the command.
    pub(super) write_ts: Timestamp,
    /// The request is not finished: evaluate it again when the command is applied.
    pub(super) again: bool,
    /// Who waits for whom, learnt by pushes.
    pub(super) waits: Vec<push::Wait>,
    /// The lease is to move.
    pub(super) transfer: Option<NodeId>,
    /// Where a garbage collection goes on.
    pub(super) gc_resume: Option<(Span, Timestamp, Option<Key>)>,
    /// What this batch's `Write` lays, and at which timestamp.
    pub(super) laid: BTreeMap<Key, Timestamp>,
    touched: BTreeSet<Key>,
}

impl Effects {
    fn new() -> Effects {
        Effects {
            batch: WriteBatch::new(),
            effect: Effect::None,
            reads: Vec::new(),
            pushes: Vec::new(),
            locks: Vec::new(),
            releases: Vec::new(),
            skipped: Vec::new(),
            freed: Vec::new(),
            aborted: Vec::new(),
            write_ts: Timestamp::MAX,
            again: false,
            waits: Vec::new(),
            transfer: None,
            gc_resume: None,
            laid: BTreeMap::new(),
            touched: BTreeSet::new(),
        }
    }

    /// Whether something has to be replicated.
    pub(super) fn must_propose(&self) -> bool {
        !self.batch.is_empty() || self.effect != Effect::None
    }

    /// The highest timestamp that somebody must remember.
    pub(super) fn highest_mark(&self) -> Timestamp {
        let reads = self.reads.iter().map(|(_, ts)| *ts);
        reads.chain(self.pushes.iter().map(|(_, ts)| *ts)).max().unwrap_or(Timestamp::MIN)
    }

    /// Notes who was skipped, if it has been silent for so long that it may have ended.
    pub(super) fn note_skipped(&mut self, moment: &Moment<'_>, skipped: Skipped) {
        let silent = skipped.active.plus(moment.expiry) <= moment.now.clock.timestamp();
        if silent && self.skipped.len() < SKIPPED_MAX {
            coverage::reached(Mark::SilentHolderSkipped);
            self.skipped.push(skipped);
        }
    }

    /// Requests of one batch are evaluated against the same state, so two of them must not change
    /// the same key.
    pub(super) fn touch(&mut self, raw: &Key) -> Result<(), KvError> {
        if self.touched.insert(raw.clone()) {
            Ok(())
        } else {
            Err(KvError::Invalid(format!("two requests of one batch change {raw}")))
        }
    }
}

/// Keys (and raw record keys) that a batch may change: latched before it is evaluated.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Claims {
    pub(super) keys: Vec<Span>,
    pub(super) records: Vec<Span>,
}

impl Claims {
    pub(super) fn of(batch: &Batch, span: &Span) -> Claims {
        let mut claims = Claims::default();
        for request in &batch.requests {
            claims.add(request, batch, span);
        }
        claims
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.records.is_empty()
    }

    fn add(&mut self, request: &Request, batch: &Batch, range: &Span) {
        let own = batch.txn.as_ref().filter(|txn| range.contains(&txn.anchor));
        let own_record = own.map(|txn| record_point(&txn.anchor, txn.id));
        match request {
            Request::Get { .. }
            | Request::Scan { .. }
            | Request::Refresh { .. }
            | Request::QueryWrites { .. }
            | Request::QueryTxn { .. }
            | Request::Changes { .. }
            | Request::TransferLease { .. }
            | Request::Unlock { .. }
            | Request::Gc { .. } => {}
            Request::Write { mutations } => {
                self.keys.extend(mutations.iter().map(|mutation| Span::point(&mutation.key)));
            }
            Request::CommitOnePhase { mutations, .. } => {
                self.keys.extend(mutations.iter().map(|mutation| Span::point(&mutation.key)));
                self.records.extend(own_record);
                let witness = settle::witness(mutations).zip(batch.txn.as_ref());
                self.records.extend(witness.map(|(key, txn)| record_point(key, txn.id)));
            }
            Request::EndTxn { commit_ts: Some(_), intents, .. } => {
                self.keys.extend(commit::resolved_at_once(intents, range).cloned());
                self.records.extend(own_record);
            }
            Request::Stage { .. }
            | Request::EndTxn { commit_ts: None, .. }
            | Request::Heartbeat => {
                self.records.extend(own_record);
            }
            Request::Push { pushee, .. } => {
                self.records.push(record_point(&pushee.anchor, pushee.id))
            }
            Request::ForgetTxn { txn, anchor } => self.records.push(record_point(anchor, *txn)),
            Request::Settle { txn, key, .. } => self.records.push(record_point(key, *txn)),
            Request::Resolve { spans, .. } => self.keys.extend(spans.iter().cloned()),
            Request::Fence { span, .. } => self.keys.push(span.clone()),
            Request::Split { .. } => {
                self.keys.push(range.clone());
                self.records.push(Span::all());
            }
        }
    }
}

/// The raw key of a record, as the records' latches and cache know it.
pub(super) fn record_point(anchor: &Key, id: TxnId) -> Span {
    Span::point(&Key::new(record_key(anchor, id)))
}

/// The spans of keys that a batch is about: they must lie in the range. Anchors count where the
/// request goes to the record.
pub(super) fn spans_of(batch: &Batch) -> Vec<Span> {
    let mut spans = Vec::new();
    let own_anchor = || batch.txn.iter().map(|txn| Span::point(&txn.anchor));
    for request in &batch.requests {
        match request {
            Request::Get { key, .. } => spans.push(Span::point(key)),
            Request::Scan { span, .. }
            | Request::Refresh { span, .. }
            | Request::Changes { span, .. }
            | Request::Fence { span, .. }
            | Request::Gc { span, .. } => spans.push(span.clone()),
            Request::Write { mutations } => {
                spans.extend(mutations.iter().map(|m| Span::point(&m.key)))
            }
            Request::CommitOnePhase { mutations, reads, .. } => {
                spans.extend(mutations.iter().map(|m| Span::point(&m.key)));
                spans.extend(reads.iter().cloned());
            }
            Request::QueryWrites { writes, .. } => {
                spans.extend(writes.iter().map(|(key, _)| Span::point(key)));
            }
            Request::Stage { .. } | Request::EndTxn { .. } | Request::Heartbeat => {
                spans.extend(own_anchor());
            }
            Request::Resolve { spans: others, .. } | Request::Unlock { spans: others, .. } => {
                spans.extend(others.iter().cloned());
            }
            Request::Push { pushee, .. } => spans.push(Span::point(&pushee.anchor)),
            Request::QueryTxn { anchor, .. } | Request::ForgetTxn { anchor, .. } => {
                spans.push(Span::point(anchor))
            }
            Request::Settle { key, .. } => spans.push(Span::point(key)),
            Request::Split { at, .. } => spans.push(Span::point(at)),
            Request::TransferLease { .. } => {}
        }
    }
    spans
}

/// Evaluates every request of the batch.
pub(super) fn evaluate(moment: &Moment<'_>) -> Result<(Vec<Response>, Effects), Stop> {
    moment.check_batch()?;
    let mut effects = Effects::new();
    let mut responses = Vec::with_capacity(moment.batch.requests.len());
    for request in &moment.batch.requests {
        responses.push(evaluate_request(moment, &mut effects, request)?);
    }
    Ok((responses, effects))
}

fn evaluate_request(
    moment: &Moment<'_>,
    effects: &mut Effects,
    request: &Request,
) -> Result<Response, Stop> {
    match request {
        Request::Get { key, lock } => read::get(moment, effects, key, *lock),
        Request::Scan { span, direction, limit, bytes_max, lock } => {
            let scan = read::ScanRequest {
                span,
                direction: *direction,
                limit: *limit,
                bytes_max: *bytes_max,
                lock: *lock,
            };
            read::scan(moment, effects, &scan)
        }
        Request::Refresh { span, since } => read::refresh(moment, effects, span, *since),
        Request::Write { mutations } => write::write(moment, effects, mutations),
        Request::CommitOnePhase { mutations, reads, reads_elsewhere, deadline } => {
            let request = commit::OnePhase {
                mutations,
                reads,
                reads_elsewhere: *reads_elsewhere,
                deadline: *deadline,
            };
            commit::one_phase(moment, effects, &request)
        }
        Request::Stage { intents, writes, deadline } => {
            stage::stage(moment, effects, intents, writes, *deadline)
        }
        Request::QueryWrites { txn, at, writes, missing } => {
            stage::query(moment, effects, *txn, *at, writes, *missing)
        }
        Request::EndTxn { commit_ts: Some(commit_ts), intents, deadline } => {
            commit::commit(moment, effects, *commit_ts, intents, *deadline)
        }
        Request::EndTxn { commit_ts: None, .. } => commit::abort(moment, effects),
        Request::Resolve { txn, commit_ts, ignored, spans } => {
            let decision = resolve::Decision { txn: *txn, commit_ts: *commit_ts, ignored };
            resolve::resolve(moment, effects, &decision, spans)
        }
        Request::Unlock { spans, since, upto } => {
            let (txn, since, upto) = (moment.txn()?.id, *since, *upto);
            let release = |span: &Span| Release { txn, span: span.clone(), since, upto };
            effects.releases.extend(spans.iter().map(release));
            Ok(Response::Done)
        }
        Request::Push { pushee, active, kind, dependents, sought } => {
            let (active, kind, sought) = (*active, *kind, *sought);
            let request = push::PushRequest { pushee, active, kind, dependents, sought };
            push::push(moment, effects, &request)
        }
        Request::Heartbeat => push::heartbeat(moment, effects),
        Request::QueryTxn { txn, anchor } => push::query(moment, *txn, anchor),
        Request::ForgetTxn { txn, anchor } => push::forget(moment, effects, *txn, anchor),
        Request::Settle { txn, started, key } => {
            settle::settle(moment, effects, *txn, *started, key)
        }
        Request::Changes { span, after, bytes_max } => {
            changes::changes(moment, effects, span, *after, *bytes_max)
        }
        Request::Fence { span, table, version } => {
            admin::fence(moment, effects, span, *table, *version)
        }
        Request::Split { at, right } => admin::split(moment, effects, at, *right),
        Request::TransferLease { to } => admin::transfer(moment, effects, *to),
        Request::Gc { span, threshold } => admin::gc(moment, effects, span, *threshold),
    }
}

impl<'a> Moment<'a> {
    /// What holds for a whole batch: schema versions, history, and that the transaction still has
    /// its intents.
    fn check_batch(&self) -> Result<(), KvError> {
        if !self.batch.requests.iter().any(touches_rows) {
            return Ok(());
        }
        for (table, version) in &self.batch.schema {
            if let Some(lowest) = self.state.fences.get(table).filter(|lowest| *lowest > version) {
                coverage::reached(Mark::SchemaVersionRefused);
                return Err(KvError::SchemaChanged { table: *table, version: *lowest });
            }
        }
        // Killer T09: without its intents a transaction would read as if it had not written.
        let own = self.batch.txn.as_ref().filter(|_| !self.has(PlantedBug::AbortedReadsOn));
        if own.is_some_and(|txn| self.leading.is_known_aborted(txn.id)) {
            coverage::reached(Mark::AbortedReaderRefused);
            return Err(KvError::TxnAborted {
                reason: "its intents or locks were removed by another transaction".into(),
            });
        }
        Ok(())
    }

    /// Whether that bug is planted.
    pub(super) fn has(&self, bug: PlantedBug) -> bool {
        self.planted == Some(bug)
    }

    /// Refuses reads of history that may be gone.
    pub(super) fn check_history(&self, at: Timestamp) -> Result<(), KvError> {
        let threshold = self.state.gc_threshold;
        let guarded = !self.has(PlantedBug::HistoryUnguarded);
        if at <= threshold && threshold > Timestamp::MIN && guarded {
            Err(KvError::BelowGc { threshold })
        } else {
            Ok(())
        }
    }

    /// The batch's transaction, for requests that need one.
    pub(super) fn txn(&self) -> Result<&'a TxnMeta, KvError> {
        self.batch
            .txn
            .as_ref()
            .ok_or_else(|| KvError::Invalid("the request needs a transaction".into()))
    }

    /// The batch's transaction's id.
    pub(super) fn txn_id(&self) -> Option<TxnId> {
        self.batch.txn.as_ref().map(|txn| txn.id)
    }

    /// Whether the intent's owner will commit above `ts`, as the batch's sender has made sure.
    pub(super) fn is_pushed_above(&self, intent: &Intent, ts: Timestamp) -> bool {
        self.batch.pushed.iter().any(|(txn, above)| *txn == intent.txn && *above >= ts)
    }

    /// Waits for writes in flight that a read of `span` must see.
    pub(super) fn wait_for_writes(&self, span: &Span, upto: Timestamp) -> Result<(), Stop> {
        if self.has(PlantedBug::ReadsPassWritesInFlight) {
            return Ok(());
        }
        latched(&self.leading.key_latches, span, upto)
    }

    /// Waits for a record that is being written.
    pub(super) fn wait_for_record(&self, record: &Span) -> Result<(), Stop> {
        latched(&self.leading.record_latches, record, Timestamp::MAX)
    }
}

fn latched(latches: &Latches, span: &Span, upto: Timestamp) -> Result<(), Stop> {
    latches.blocks_read(span, upto).map_or(Ok(()), |ticket| Err(Stop::Latched(ticket)))
}

/// Whether a request reads or writes rows as its transaction sees them (and not records, locks,
/// ranges).
fn touches_rows(request: &Request) -> bool {
    match request {
        Request::Get { .. }
        | Request::Scan { .. }
        | Request::Refresh { .. }
        | Request::Write { .. }
        | Request::CommitOnePhase { .. }
        | Request::Changes { .. } => true,
        Request::Stage { .. }
        | Request::QueryWrites { .. }
        | Request::EndTxn { .. }
        | Request::Resolve { .. }
        | Request::Unlock { .. }
        | Request::Push { .. }
        | Request::Heartbeat
        | Request::QueryTxn { .. }
        | Request::ForgetTxn { .. }
        | Request::Settle { .. }
        | Request::Fence { .. }
        | Request::Split { .. }
        | Request::TransferLease { .. }
        | Request::Gc { .. } => false,
    }
}

/// Whose intent it is.
pub(super) fn owner(intent: &Intent) -> TxnMeta {
    TxnMeta {
        id: intent.txn,
        anchor: intent.anchor.clone(),
        started: intent.started,
        priority: intent.priority,
        stage: 0,
    }
}

/// The conflict with an intent.
pub(super) fn intent_conflict(key: &Key, intent: &Intent, wants: Option<Lock>) -> Stop {
    Stop::Locked(Box::new(Conflict {
        key: key.clone(),
        holder: owner(intent),
        active: intent.ts,
        kind: ConflictKind::Intent,
        wants,
    }))
}
