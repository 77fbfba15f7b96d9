//! Value: *a transaction is committed once* (R18), and *nothing is written at or below a timestamp at which its key was read by another transaction* (`txn::api`'s invariant), and what
//! that rests on: *no read is served above the lease's read bound*, and *a reign's floor is above every read served before it*.
//!
//! Reads are noted when they are answered, and held against writes that arrive later: those were evaluated later, wherever that was.

use bytes::Bytes;
use clock::{ClockTimestamp, Timestamp};
use replication::raft::Term;
use replication::range::{NodeId, RangeId};
use std::collections::{BTreeMap, VecDeque};
use storage::mvcc::{self, TxnId, Version};
use storage::{Direction, Key, Space, Span};
use txn::api::{Batch, KvError, Reply, Request, Response, Wait};
use txn::runtime::HlcSource;

use super::fates::Question;
use crate::world::World;
use crate::world::machine::Process;

/// Reads remembered: those before are below what anybody writes at.
const READS_MAX: usize = 256;

/// A read that was answered.
struct Served {
    number: u64,
    span: Span,
    at: Timestamp,
    by: Option<TxnId>,
    /// The process that answered, and its incarnation; `None`: what a commit has refreshed, which is coarser than what its range was asked.
    there: Option<(NodeId, u64)>,
}

/// What was asked, as far as it matters when it is answered.
#[derive(Clone, Debug)]
pub(in crate::world) struct Asked {
    /// Reads answered before it came.
    before: u64,
    read_at: Timestamp,
    range: Option<RangeId>,
    txn: Option<TxnId>,
    parts: Vec<Part>,
    fates: Vec<Question>,
}

#[derive(Clone, Debug)]
enum Part {
    Read(Span, Direction),
    /// Keys that are laid down for the first time, and all of them.
    Write(Vec<Key>, Vec<Key>),
    /// Keys that are committed, and spans that count as read where they are.
    Commit(Vec<Key>, Vec<Span>),
    Other,
}

/// What was seen of reads so far.
#[derive(Default)]
pub(super) struct ReadWatch {
    served: VecDeque<Served>,
    number: u64,
    /// Writes that were or may have been laid down, how often. A repeated one answers where the first one was.
    laid: BTreeMap<(TxnId, Key), u32>,
    /// The highest read answered, by range and reign.
    high: BTreeMap<RangeId, BTreeMap<Term, Timestamp>>,
    floors: BTreeMap<RangeId, (NodeId, Term)>,
    /// When transactions were committed.
    committed: BTreeMap<TxnId, Timestamp>,
    /// By key and commit timestamp: the highest that any clock had shown when the commit was answered.
    answered: BTreeMap<(Key, Timestamp), ClockTimestamp>,
}

impl ReadWatch {
    fn part_of(&mut self, batch: &Batch, request: &Request) -> Part {
        let id = batch.txn.as_ref().map(|txn| txn.id);
        match request {
            // Rows that were skipped were not read.
            Request::Get { .. } | Request::Scan { .. } if batch.wait == Wait::Skip => Part::Other,
            Request::Get { key, .. } => Part::Read(Span::point(key), Direction::Forward),
            Request::Scan { span, direction, .. } => Part::Read(span.clone(), *direction),
            Request::Refresh { span, .. } => Part::Read(span.clone(), Direction::Forward),
            Request::Write { mutations } => {
                let all: Vec<Key> = mutations.iter().map(|mutation| mutation.key.clone()).collect();
                let Some(id) = id else { return Part::Other };
                let fresh = all.iter().filter(|key| {
                    let laid = self.laid.entry((id, (*key).clone())).or_default();
                    *laid += 1;
                    *laid == 1
                });
                Part::Write(fresh.cloned().collect(), all)
            }
            Request::CommitOnePhase { mutations, reads, .. } => {
                let keys = mutations.iter().map(|mutation| mutation.key.clone());
                Part::Commit(keys.collect(), reads.clone())
            }
            Request::Stage { .. } | Request::EndTxn { commit_ts: Some(_), .. } => {
                Part::Commit(Vec::new(), Vec::new())
            }
            Request::EndTxn { commit_ts: None, .. }
            | Request::QueryWrites { .. }
            | Request::Resolve { .. }
            | Request::Unlock { .. }
            | Request::Push { .. }
            | Request::Heartbeat
            | Request::QueryTxn { .. }
            | Request::ForgetTxn { .. }
            | Request::Settle { .. }
            | Request::Changes { .. }
            | Request::Fence { .. }
            | Request::Split { .. }
            | Request::TransferLease { .. }
            | Request::Gc { .. } => Part::Other,
        }
    }

    fn serve(
        &mut self,
        span: Span,
        at: Timestamp,
        by: Option<TxnId>,
        there: Option<(NodeId, u64)>,
        reign: Option<(RangeId, Term)>,
    ) {
        self.number += 1;
        if let Some((range, term)) = reign {
            let high = self.high.entry(range).or_default().entry(term).or_insert(at);
            *high = at.max(*high);
        }
        self.served.push_back(Served { number: self.number, span, at, by, there });
        if self.served.len() > READS_MAX {
            self.served.pop_front();
        }
    }

    /// It was refused: nothing was laid down.
    fn take_back(&mut self, asked: &Asked) {
        let Some(id) = asked.txn else { return };
        for part in &asked.parts {
            let Part::Write(_, all) = part else { continue };
            for key in all {
                if let Some(laid) = self.laid.get_mut(&(id, key.clone())) {
                    *laid -= 1;
                }
            }
        }
    }

    /// A commit is answered for the first time, or again.
    fn note_committed(
        &mut self,
        txn: Option<TxnId>,
        keys: &[Key],
        ts: Timestamp,
        latest: ClockTimestamp,
    ) {
        let laid = txn.into_iter().flat_map(|id| {
            let from = (id, Key::MIN)..;
            self.laid.range(from).take_while(move |((of, _), _)| *of == id).map(|((_, key), _)| key)
        });
        for key in laid.chain(keys) {
            self.answered.entry((key.clone(), ts)).or_insert(latest);
        }
    }

    /// Whether an entry of a range is a version that says it was written after its writer had heard of the commit (H07): uncertain readers
    /// that began between would pass it by.
    pub(super) fn is_dated_late(&self, space: Space, key: &[u8], value: &Bytes) -> Option<String> {
        if space != Space::Versions {
            return None;
        }
        let (key, ts) = mvcc::parse_version_key(key).ok()?;
        let version = Version::decode(value.clone()).ok()?;
        let latest = self.answered.get(&(key.clone(), ts))?;
        (version.written_at > *latest).then(|| {
            format!(
                "{key} of {ts} says that it was written at {}, when its commit had been answered at {latest}",
                version.written_at
            )
        })
    }

    /// A read, answered before this write came, that the write would change.
    fn undone_by(&self, asked: &Asked, key: &Key, ts: Timestamp) -> Option<&Served> {
        self.served.iter().find(|read| {
            read.at >= ts
                && read.number <= asked.before
                && (read.by.is_none() || read.by != asked.txn)
                && read.span.contains(key)
        })
    }
}

impl World {
    /// The highest that any running clock shows.
    fn latest_reading(&self) -> ClockTimestamp {
        let running = self.machines.values().filter_map(|machine| machine.process.as_ref());
        running.map(|process| process.clock.now()).max().unwrap_or(ClockTimestamp::MIN)
    }

    /// A batch reaches its shard.
    pub(in crate::world) fn note_asked(&mut self, batch: &Batch) -> Option<Asked> {
        let fates = self.watch.fates.ask(batch);
        let watch = &mut self.watch.reads;
        let parts: Vec<Part> =
            batch.requests.iter().map(|request| watch.part_of(batch, request)).collect();
        if fates.is_empty() && parts.iter().all(|part| matches!(part, Part::Other)) {
            return None;
        }
        Some(Asked {
            before: watch.number,
            read_at: batch.read_at,
            range: batch.range.map(|(range, _)| range),
            txn: batch.txn.as_ref().map(|txn| txn.id),
            parts,
            fates,
        })
    }

    /// It is answered.
    pub(in crate::world) fn check_answered(
        &mut self,
        node: NodeId,
        process: &Process,
        asked: &Asked,
        reply: &Result<Reply, KvError>,
    ) {
        let reply = match reply {
            Ok(reply) => reply,
            Err(KvError::Ambiguous { .. }) => return,
            Err(_) => return self.watch.reads.take_back(asked),
        };
        let latest = self.latest_reading().max(process.clock.now());
        let watch = &mut self.watch.reads;
        let mut broken = self.watch.fates.answered(&asked.fates, reply);
        let mut reads = false;
        let store = process.shard.store();
        let there = (node, process.incarnation);
        let reign = asked.range.and_then(|range| Some((range, store.group(range)?.term)));
        for (part, response) in asked.parts.iter().zip(&reply.responses) {
            let (keys, spans, ts) = match (part, response) {
                (Part::Read(span, direction), response) => {
                    reads = true;
                    let span = examined(span, *direction, response);
                    watch.serve(span, reply.read_at, asked.txn, Some(there), reign);
                    continue;
                }
                (Part::Write(keys, _), Response::Written(ts)) => (keys, &Vec::new(), *ts),
                (Part::Commit(keys, spans), Response::Committed(ts)) => {
                    watch.note_committed(asked.txn, keys, *ts, latest);
                    if let Some(id) = asked.txn {
                        let before = *watch.committed.entry(id).or_insert(*ts);
                        if before != *ts {
                            broken.push(format!(
                                "{node} committed transaction {id} at {ts}, which was committed at {before} before"
                            ));
                        }
                    }
                    (keys, spans, *ts)
                }
                (Part::Write(..) | Part::Commit(..) | Part::Other, _) => continue,
            };
            for key in keys {
                if let Some(read) = watch.undone_by(asked, key, ts) {
                    broken.push(format!(
                        "{node} wrote {key} at {ts}, below a read at {} of {} that was answered before",
                        read.at, read.span
                    ));
                }
            }
            // Read spans are coarser than what was read: they count where the commit has refreshed them.
            for span in spans.iter().filter(|_| ts > asked.read_at) {
                watch.serve(span.clone(), ts, asked.txn, None, None);
            }
        }
        if reads && let Some(range) = asked.range {
            let lease = process.shard.store().lease(super::read(process), range);
            if let Some(lease) = lease.filter(|lease| lease.read_bound < reply.read_at) {
                broken.push(format!(
                    "{node} served a read of {range} at {}, above its bound {}",
                    reply.read_at, lease.read_bound
                ));
            }
        }
        broken.into_iter().for_each(|what| self.violate(what));
    }

    /// After a turn of a node: new reigns.
    pub(super) fn check_floors(&mut self, node: NodeId) {
        let Some(process) = &self.machines[&node].process else { return };
        let mut broken = Vec::new();
        for view in process.shard.store().groups() {
            let Some(floor) = view.floor else { continue };
            let known = self.watch.reads.floors.get(&view.range);
            // A leader that does not know yet that it was deposed began before what its successor has served.
            if known.is_some_and(|(_, term)| *term >= view.term) {
                continue;
            }
            self.watch.reads.floors.insert(view.range, (node, view.term));
            let before = self
                .watch
                .reads
                .high
                .get(&view.range)
                .and_then(|reigns| reigns.range(..view.term).map(|(_, high)| *high).max());
            // What other processes have read there, under whatever range's name, is known here by the floor only.
            let here = (node, process.incarnation);
            let span = process.shard.store().descriptor(view.range).map(|range| &range.span);
            let elsewhere = self.watch.reads.served.iter().filter(|read| {
                read.there.is_some_and(|there| there != here)
                    && span.is_some_and(|span| span.overlaps(&read.span))
            });
            let high = before.into_iter().chain(elsewhere.map(|read| read.at)).max();
            if let Some(high) = high.filter(|high| *high > floor) {
                broken.push(format!(
                    "{node} leads {} above {floor}, but a read at {high} was served before",
                    view.range
                ));
            }
        }
        broken.into_iter().for_each(|what| self.violate(what));
    }
}

/// What a scan that stopped early has seen.
fn examined(span: &Span, direction: Direction, response: &Response) -> Span {
    match (response, direction) {
        (Response::Scan { resume: Some(rest), .. }, Direction::Forward) => {
            Span::new(span.start.clone(), rest.start.clone())
        }
        (Response::Scan { resume: Some(rest), .. }, Direction::Reverse) => {
            Span::new(rest.end.clone(), span.end.clone())
        }
        _ => span.clone(),
    }
}
