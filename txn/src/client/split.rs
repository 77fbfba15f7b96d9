//! Value: how a request that touches several ranges is cut into one piece per range, and the pieces' answers are joined.
//!
//! Cutting goes from the lowest key up: [`first_key`] names the range to cut by, [`clip`] gives the piece inside it and what is left.

use clock::{ClockTimestamp, Timestamp};
use storage::{Direction, Key, Span};

use crate::api::{Batch, KvError, LockEra, Reply, Request, Response, Skipped};

/// What the answers of a batch's parts say beside their responses, together.
pub(super) struct Aside {
    clock: ClockTimestamp,
    eras: Vec<LockEra>,
    read_high: Timestamp,
    skipped: Vec<Skipped>,
}

impl Aside {
    pub(super) fn new() -> Aside {
        Aside {
            clock: ClockTimestamp::MIN,
            eras: Vec::new(),
            read_high: Timestamp::MIN,
            skipped: Vec::new(),
        }
    }

    /// Takes in one part's answer, and returns its responses.
    pub(super) fn take(&mut self, part: Reply) -> Vec<Response> {
        self.clock = self.clock.max(part.clock);
        self.eras.extend(part.eras);
        self.read_high = self.read_high.max(part.read_high);
        self.skipped.extend(part.skipped);
        part.responses
    }

    /// The whole answer.
    pub(super) fn reply(self, batch: &Batch, responses: Vec<Response>) -> Reply {
        let Aside { clock, eras, read_high, skipped } = self;
        Reply { responses, clock, read_at: batch.read_at, range: None, eras, read_high, skipped }
    }
}

/// The lowest key that decides where the request goes; `None` if it says nothing of keys.
pub(super) fn first_key(batch: &Batch, request: &Request) -> Option<Key> {
    match request {
        Request::Get { key, .. } => Some(key.clone()),
        Request::Scan { span, .. }
        | Request::Refresh { span, .. }
        | Request::Changes { span, .. }
        | Request::Fence { span, .. }
        | Request::Gc { span, .. } => Some(span.start.clone()),
        Request::Write { mutations } | Request::CommitOnePhase { mutations, .. } => {
            mutations.iter().map(|mutation| mutation.key.clone()).min()
        }
        Request::Resolve { spans, .. } | Request::Unlock { spans, .. } => {
            spans.iter().map(|span| span.start.clone()).min()
        }
        Request::QueryWrites { writes, .. } => writes.iter().map(|(key, _)| key.clone()).min(),
        Request::Stage { .. } | Request::EndTxn { .. } | Request::Heartbeat => {
            batch.txn.as_ref().map(|txn| txn.anchor.clone())
        }
        Request::Push { pushee, .. } => Some(pushee.anchor.clone()),
        Request::QueryTxn { anchor, .. } | Request::ForgetTxn { anchor, .. } => {
            Some(anchor.clone())
        }
        Request::Settle { key, .. } => Some(key.clone()),
        Request::Split { at, .. } => Some(at.clone()),
        Request::TransferLease { .. } => None,
    }
}

/// The piece inside a range that holds the request's first key, and the rest.
pub(super) fn clip(request: Request, range: &Span) -> Result<(Request, Option<Request>), KvError> {
    match request {
        Request::Scan { span, direction, limit, bytes_max, lock } => {
            let (inside, rest) = cut(span, range);
            let piece = |span| Request::Scan { span, direction, limit, bytes_max, lock };
            Ok((piece(inside), rest.map(piece)))
        }
        Request::Refresh { span, since } => {
            let (inside, rest) = cut(span, range);
            let piece = |span| Request::Refresh { span, since };
            Ok((piece(inside), rest.map(piece)))
        }
        Request::Changes { span, after, bytes_max } => {
            let (inside, rest) = cut(span, range);
            let piece = |span| Request::Changes { span, after, bytes_max };
            Ok((piece(inside), rest.map(piece)))
        }
        Request::Fence { span, table, version } => {
            let (inside, rest) = cut(span, range);
            let piece = |span| Request::Fence { span, table, version };
            Ok((piece(inside), rest.map(piece)))
        }
        Request::Gc { span, threshold } => {
            let (inside, rest) = cut(span, range);
            let piece = |span| Request::Gc { span, threshold };
            Ok((piece(inside), rest.map(piece)))
        }
        Request::Write { mutations } => {
            let (inside, rest): (Vec<_>, Vec<_>) =
                mutations.into_iter().partition(|mutation| range.contains(&mutation.key));
            let rest = (!rest.is_empty()).then_some(Request::Write { mutations: rest });
            Ok((Request::Write { mutations: inside }, rest))
        }
        Request::QueryWrites { txn, at, writes, missing } => {
            let (inside, rest): (Vec<_>, Vec<_>) =
                writes.into_iter().partition(|(key, _)| range.contains(key));
            let piece = |writes| Request::QueryWrites { txn, at, writes, missing };
            let rest = (!rest.is_empty()).then(|| piece(rest));
            Ok((piece(inside), rest))
        }
        Request::Resolve { txn, commit_ts, ignored, spans } => {
            let (inside, rest) = cut_all(spans, range);
            let piece =
                |spans| Request::Resolve { txn, commit_ts, ignored: ignored.clone(), spans };
            let rest = (!rest.is_empty()).then(|| piece(rest));
            Ok((piece(inside), rest))
        }
        Request::Unlock { spans, since, upto } => {
            let (inside, rest) = cut_all(spans, range);
            let piece = |spans| Request::Unlock { spans, since, upto };
            let rest = (!rest.is_empty()).then(|| piece(rest));
            Ok((piece(inside), rest))
        }
        Request::CommitOnePhase { mutations, reads, reads_elsewhere, deadline } => {
            if mutations.iter().any(|mutation| !range.contains(&mutation.key)) {
                return Err(KvError::Invalid("a one-phase commit must be in one range".into()));
            }
            // The range vouches only for its own keys; if there were others, it must not move the commit.
            let (inside, outside) = cut_all(reads, range);
            let reads_elsewhere = reads_elsewhere || !outside.is_empty();
            Ok((
                Request::CommitOnePhase { mutations, reads: inside, reads_elsewhere, deadline },
                None,
            ))
        }
        whole @ (Request::Get { .. }
        | Request::Stage { .. }
        | Request::EndTxn { .. }
        | Request::Push { .. }
        | Request::Heartbeat
        | Request::QueryTxn { .. }
        | Request::ForgetTxn { .. }
        | Request::Settle { .. }
        | Request::Split { .. }
        | Request::TransferLease { .. }) => Ok((whole, None)),
    }
}

/// What of `span` is before the range's end (its start is inside), and what is beyond.
fn cut(span: Span, range: &Span) -> (Span, Option<Span>) {
    if span.end <= range.end {
        return (span, None);
    }
    let rest = Span::new(range.end.clone(), span.end);
    (Span::new(span.start, range.end.clone()), Some(rest))
}

/// What of `spans` is inside the range, and what is not.
fn cut_all(spans: Vec<Span>, range: &Span) -> (Vec<Span>, Vec<Span>) {
    let mut inside = Vec::new();
    let mut outside = Vec::new();
    for span in spans {
        let parts = [
            Span::new(span.start.clone(), span.end.clone().min(range.start.clone())),
            Span::new(span.start.clone().max(range.end.clone()), span.end.clone()),
        ];
        outside.extend(parts.into_iter().filter(|part| !part.is_empty()));
        let common = span.intersect(range);
        if !common.is_empty() {
            inside.push(common);
        }
    }
    (inside, outside)
}

/// Whether the pieces of the request must be asked one after another: what the next one may answer depends on the one before.
pub(super) fn is_limited(request: &Request) -> bool {
    matches!(request, Request::Scan { limit, bytes_max, .. } if *limit > 0 || *bytes_max > 0)
}

/// One answer from the answers of a request's pieces, which are in key order.
pub(super) fn join(request: &Request, mut pieces: Vec<Response>) -> Result<Response, KvError> {
    if pieces.len() == 1 {
        return Ok(pieces.pop().expect("there is one"));
    }
    match request {
        Request::Scan { span, direction, .. } => join_scan(span, *direction, pieces),
        Request::Write { .. } => {
            let ts = pieces.iter().filter_map(|piece| match piece {
                Response::Written(ts) => Some(*ts),
                _ => None,
            });
            ts.max().map(Response::Written).ok_or_else(odd)
        }
        Request::QueryWrites { .. } => {
            let all = pieces.iter().all(|piece| matches!(piece, Response::Writes { all: true }));
            Ok(Response::Writes { all })
        }
        Request::Changes { .. } => join_changes(pieces),
        Request::Gc { .. } => {
            let more = pieces.iter().any(|piece| matches!(piece, Response::Gc { more: true }));
            Ok(Response::Gc { more })
        }
        Request::Refresh { .. }
        | Request::Resolve { .. }
        | Request::Unlock { .. }
        | Request::Fence { .. } => Ok(Response::Done),
        Request::Get { .. }
        | Request::CommitOnePhase { .. }
        | Request::Stage { .. }
        | Request::EndTxn { .. }
        | Request::Push { .. }
        | Request::Heartbeat
        | Request::QueryTxn { .. }
        | Request::ForgetTxn { .. }
        | Request::Settle { .. }
        | Request::Split { .. }
        | Request::TransferLease { .. } => Err(odd()),
    }
}

fn join_scan(
    span: &Span,
    direction: Direction,
    mut pieces: Vec<Response>,
) -> Result<Response, KvError> {
    if direction == Direction::Reverse {
        pieces.reverse();
    }
    let mut all = Vec::new();
    for piece in pieces {
        let Response::Scan { rows, resume } = piece else { return Err(odd()) };
        all.extend(rows);
        // Rows beyond a gap are no continuation: they are asked for again.
        if let Some(rest) = resume {
            let resume = match direction {
                Direction::Forward => Span::new(rest.start, span.end.clone()),
                Direction::Reverse => Span::new(span.start.clone(), rest.end),
            };
            return Ok(Response::Scan { rows: all, resume: Some(resume) });
        }
    }
    Ok(Response::Scan { rows: all, resume: None })
}

/// Complete only up to the least that a piece is complete to.
fn join_changes(pieces: Vec<Response>) -> Result<Response, KvError> {
    let mut all = Vec::new();
    let mut least = None;
    for piece in pieces {
        let Response::Changes { changes, upto } = piece else { return Err(odd()) };
        all.extend(changes);
        least = Some(least.map_or(upto, |least: clock::Timestamp| least.min(upto)));
    }
    let upto = least.ok_or_else(odd)?;
    all.retain(|change| change.ts <= upto);
    all.sort_by(|a, b| (a.ts, &a.key).cmp(&(b.ts, &b.key)));
    Ok(Response::Changes { changes: all, upto })
}

fn odd() -> KvError {
    KvError::Invalid("a range answered something else than it was asked".into())
}

/// Of the errors of several pieces the one to act on: what ends the transaction before what can be overcome, and of timestamps to
/// move to the latest.
pub(super) fn gravest(errors: Vec<KvError>) -> Option<KvError> {
    fn order(error: &KvError) -> (u8, u64) {
        match error {
            KvError::Doubtful { refused } => order(refused),
            KvError::Ambiguous { .. } => (0, 0),
            KvError::TxnAborted { .. } => (1, 0),
            KvError::Invalid(_) => (2, 0),
            KvError::SchemaChanged { .. } => (3, 0),
            KvError::BelowGc { .. } => (4, 0),
            KvError::Exists { .. } => (5, 0),
            KvError::DeadlinePassed => (6, 0),
            KvError::RefreshFailed { .. } => (7, 0),
            KvError::Deadlock { .. } => (7, 1),
            KvError::TooManyLocks { .. } => (7, 2),
            KvError::Unavailable { .. } => (8, 0),
            KvError::Unreachable { .. } => (9, 0),
            KvError::NotLeaseholder { .. } => (10, 0),
            KvError::RangeMismatch { .. } => (11, 0),
            KvError::Overloaded { .. } => (12, 0),
            KvError::Uncertain { ts, .. }
            | KvError::NewerVersion { ts, .. }
            | KvError::NeedsRefresh { ts } => (13, u64::MAX - ts.raw()),
            KvError::Blocked { .. } => (14, 0),
        }
    }
    errors.into_iter().min_by_key(|error| order(error))
}
