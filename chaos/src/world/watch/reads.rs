//! Value: *nothing is written at or below a timestamp at which its key was read by another transaction* (`txn::api`'s invariant), and what
//! that rests on: *no read is served above the lease's read bound*, and *a reign's floor is above every read served before it*.
//!
//! Reads are noted when they are answered, and held against writes that arrive later: those were evaluated later, wherever that was.

use clock::Timestamp;
use replication::raft::Term;
use replication::range::{NodeId, RangeId};
use std::collections::{BTreeMap, VecDeque};
use storage::mvcc::TxnId;
use storage::{Direction, Key, Span};
use txn::api::{Batch, KvError, Reply, Request, Response, Wait};

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
            Request::Stage { .. }
            | Request::QueryWrites { .. }
            | Request::EndTxn { .. }
            | Request::Resolve { .. }
            | Request::Push { .. }
            | Request::Heartbeat
            | Request::QueryTxn { .. }
            | Request::ForgetTxn { .. }
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
        reign: Option<(RangeId, Term)>,
    ) {
        self.number += 1;
        if let Some((range, term)) = reign {
            let high = self.high.entry(range).or_default().entry(term).or_insert(at);
            *high = at.max(*high);
        }
        self.served.push_back(Served { number: self.number, span, at, by });
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
    /// A batch reaches its shard.
    pub(in crate::world) fn note_asked(&mut self, batch: &Batch) -> Option<Asked> {
        let watch = &mut self.watch.reads;
        let parts: Vec<Part> =
            batch.requests.iter().map(|request| watch.part_of(batch, request)).collect();
        if parts.iter().all(|part| matches!(part, Part::Other)) {
            return None;
        }
        Some(Asked {
            before: watch.number,
            read_at: batch.read_at,
            range: batch.range.map(|(range, _)| range),
            txn: batch.txn.as_ref().map(|txn| txn.id),
            parts,
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
        let watch = &mut self.watch.reads;
        let mut broken = Vec::new();
        let mut reads = false;
        let store = process.shard.store();
        let reign = asked.range.and_then(|range| Some((range, store.group(range)?.term)));
        for (part, response) in asked.parts.iter().zip(&reply.responses) {
            let (keys, spans, ts) = match (part, response) {
                (Part::Read(span, direction), response) => {
                    reads = true;
                    let span = examined(span, *direction, response);
                    watch.serve(span, asked.read_at, asked.txn, reign);
                    continue;
                }
                (Part::Write(keys, _), Response::Written(ts)) => (keys, &Vec::new(), *ts),
                (Part::Commit(keys, spans), Response::Committed(ts)) => (keys, spans, *ts),
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
                watch.serve(span.clone(), ts, asked.txn, None);
            }
        }
        if reads && let Some(range) = asked.range {
            let lease = process.shard.store().lease(super::read(process), range);
            if let Some(lease) = lease.filter(|lease| lease.read_bound < asked.read_at) {
                broken.push(format!(
                    "{node} served a read of {range} at {}, above its bound {}",
                    asked.read_at, lease.read_bound
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
            let reign = (node, view.term);
            if self.watch.reads.floors.insert(view.range, reign) == Some(reign) {
                continue;
            }
            let before = self
                .watch
                .reads
                .high
                .get(&view.range)
                .and_then(|reigns| reigns.range(..view.term).map(|(_, high)| *high).max());
            if let Some(high) = before.filter(|high| *high > floor) {
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
