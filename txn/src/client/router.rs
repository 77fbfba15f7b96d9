//! Driver: one keyspace out of many ranges. Finds the range of each key and its leaseholder, sends, and follows when they move.
//!
//! ```text
//!   batch ── cut by range ──┬─► piece ─► leaseholder ─ Ok
//!                           ├─► piece ─► replica ─ NotLeaseholder(hint) ─► hint ─ Ok
//!                           └─► piece ─► node ─ RangeMismatch(newer) ─► cut again
//! ```
//!
//! A piece whose node does not answer is sent again, to the next replica ([`Journey`]): all requests but one are idempotent. The one,
//! `CommitOnePhase`, is ambiguous as soon as an answer is lost; a committing `EndTxn` is when no later try is answered.
//! Without any progress for `unavailable_after` the piece fails and names the range and who did not answer.

use coverage::Mark;
use futures::future::{BoxFuture, Either, join_all, select};
use parking_lot::Mutex;
use replication::range::{NodeId, PeerRole, RangeDescriptor, RangeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use storage::{Direction, Key, Span};

use crate::api::{Batch, Footing, Kv, KvError, Peers, Reply, Request, Response};
use crate::client::cache::{Known, RangeCache};
use crate::client::journey::{Answered, Heard, Journey};
use crate::client::patience::Patience;
use crate::client::split::{Aside, clip, first_key, gravest, is_limited, join};
use crate::runtime::Runtime;

/// Ranges asked at once by a scan that is limited in bytes only: what lies beyond the limit was asked in vain.
const SCAN_RANGES_AHEAD: usize = 4;

/// Limits of a router.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouterSettings {
    /// A piece of a batch that gets no useful answer for this long fails.
    pub unavailable_after: Duration,
    /// A node that says nothing for as long as it usually takes is not waited for alone any more, but never before this: longer than what a
    /// range takes over a request in health, a slice of waiting for a lock and a round of consensus.
    pub silent_min: Duration,
    /// And not after this.
    pub silent_max: Duration,
    /// First pause after all replicas of a range were tried; doubles up to `pause_max`.
    pub pause_min: Duration,
    /// Longest such pause.
    pub pause_max: Duration,
    /// Ranges remembered.
    pub ranges_max: usize,
}

impl Default for RouterSettings {
    fn default() -> RouterSettings {
        RouterSettings {
            unavailable_after: Duration::from_secs(4),
            silent_min: Duration::from_millis(250),
            silent_max: Duration::from_secs(1),
            pause_min: Duration::from_millis(20),
            pause_max: Duration::from_millis(400),
            ranges_max: 100_000,
        }
    }
}

/// One keyspace ([`Kv`]) over the nodes ([`Peers`]).
pub struct Router {
    runtime: Runtime,
    peers: Arc<dyn Peers>,
    settings: RouterSettings,
    cache: Mutex<RangeCache>,
    patience: Mutex<Patience>,
}

/// Part of a batch for one range: its requests, each with the index of the one it was cut from.
struct Piece {
    known: Known,
    requests: Vec<(usize, Request)>,
}

/// A batch, cut.
struct Plan {
    pieces: BTreeMap<Key, Piece>,
    /// Indexes of scans over several ranges that go one range after another.
    ordered: Vec<usize>,
}

/// What to do after a try.
enum Next {
    /// That node, now.
    Ask(NodeId),
    /// Any other replica.
    Other,
    /// Cut again: the range is not what it was thought to be.
    Cut,
    /// Wait, then again.
    Pause,
}

/// A piece, cut again.
enum Recut {
    /// Still of one range.
    Same(Known, Batch),
    /// Of several.
    Several(Plan, Batch),
}

impl Router {
    /// A router that knows nothing yet.
    pub fn new(runtime: Runtime, peers: Arc<dyn Peers>, settings: RouterSettings) -> Router {
        let cache = Mutex::new(RangeCache::new(settings.ranges_max));
        let patience = Mutex::new(Patience::new(settings.silent_min, settings.silent_max));
        Router { runtime, peers, settings, cache, patience }
    }

    /// Takes in what is known of a range from elsewhere (gossip, a split made here).
    pub fn learn(&self, descriptor: RangeDescriptor) {
        self.cache.lock().learn(descriptor);
    }

    /// The range of a key and its leaseholder, as far as is known here or to the nodes asked.
    ///
    /// # Errors
    /// `Unavailable`: nobody knew, for `unavailable_after`.
    pub async fn range_of(&self, key: &Key) -> Result<(RangeDescriptor, Option<NodeId>), KvError> {
        let known = self.locate(key).await?;
        Ok(((*known.descriptor).clone(), known.leaseholder))
    }

    async fn send_batch(&self, batch: Batch) -> Result<Reply, KvError> {
        if batch.requests.is_empty() {
            return Err(KvError::Invalid("an empty batch".into()));
        }
        if let Some((range, _)) = batch.range {
            let known = self.cache.lock().find_id(range);
            let known =
                known.ok_or_else(|| KvError::Invalid(format!("{range} is not known here")))?;
            return self.send_piece(known, batch).await;
        }
        let plan = self.plan(&batch).await?;
        let whole = plan.ordered.is_empty() && plan.pieces.len() == 1;
        if let (true, Some((_, piece))) = (whole, plan.pieces.first_key_value()) {
            let one_each = piece.requests.iter().enumerate().all(|(index, (of, _))| index == *of);
            if one_each && piece.requests.len() == batch.requests.len() {
                let known = piece.known.clone();
                let requests = piece.requests.iter().map(|(_, request)| request.clone()).collect();
                return self.send_piece(known, Batch { requests, ..batch }).await;
            }
        }
        self.send_plan(batch, plan).await
    }

    async fn send_plan(&self, batch: Batch, plan: Plan) -> Result<Reply, KvError> {
        // Its parts are to be read at one moment.
        let batch = Batch { footing: Footing::Fixed, ..batch };
        let mut sends: Vec<BoxFuture<'_, Result<Part, KvError>>> = Vec::new();
        for (start, Piece { known, requests }) in plan.pieces {
            let (indexes, requests): (Vec<usize>, Vec<Request>) = requests.into_iter().unzip();
            let part = Batch { requests, ..batch.clone() };
            sends.push(Box::pin(async move {
                let reply = self.send_piece(known, part).await?;
                Ok(Part { start, indexes, reply })
            }));
        }
        for index in plan.ordered {
            let part = Batch { requests: vec![batch.requests[index].clone()], ..batch.clone() };
            sends.push(Box::pin(async move {
                let reply = self.send_ordered(part).await?;
                Ok(Part { start: Key::MIN, indexes: vec![index], reply })
            }));
        }
        coverage::reached(Mark::BatchOverRanges);
        let mut parts = Vec::new();
        let mut errors = Vec::new();
        for outcome in join_all(sends).await {
            match outcome {
                Ok(part) => parts.push(part),
                Err(error) => errors.push(error),
            }
        }
        match gravest(errors) {
            // Another piece has failed: whether this one has not, nobody can tell from the error.
            Some(error) if is_staged(&batch) => {
                coverage::reached(Mark::StagingCut);
                Err(KvError::Ambiguous { reason: error.to_string() })
            }
            Some(error) => Err(error),
            None => join_parts(&batch, parts),
        }
    }

    async fn plan(&self, batch: &Batch) -> Result<Plan, KvError> {
        let mut plan = Plan { pieces: BTreeMap::new(), ordered: Vec::new() };
        for (index, request) in batch.requests.iter().enumerate() {
            let mut rest = Some(request.clone());
            let mut first = true;
            while let Some(request) = rest.take() {
                let key = first_key(batch, &request).ok_or_else(|| {
                    KvError::Invalid("a request that names neither key nor range".into())
                })?;
                let known = self.locate(&key).await?;
                let limited = is_limited(&request);
                let (piece, left) = clip(request, &known.descriptor.span)?;
                if first && limited && left.is_some() {
                    plan.ordered.push(index);
                    break;
                }
                first = false;
                rest = left;
                let start = known.descriptor.span.start.clone();
                let entry = plan
                    .pieces
                    .entry(start)
                    .or_insert_with(|| Piece { known, requests: Vec::new() });
                entry.requests.push((index, piece));
            }
        }
        Ok(plan)
    }

    /// A limited scan over several ranges, in the scan's order.
    fn send_ordered(&self, batch: Batch) -> BoxFuture<'_, Result<Reply, KvError>> {
        Box::pin(self.scan_in_order(batch))
    }

    async fn scan_in_order(&self, batch: Batch) -> Result<Reply, KvError> {
        let Some(Request::Scan { span, direction, limit, bytes_max, lock }) =
            batch.requests.first().cloned()
        else {
            return Err(KvError::Invalid("only scans are limited".into()));
        };
        let ahead = if limit == 0 && lock.is_none() { SCAN_RANGES_AHEAD } else { 1 };
        let mut rows = Vec::new();
        let mut bytes: u64 = 0;
        let mut aside = Aside::new();
        let mut rest = Some(span);
        while let Some(span) = rest.take() {
            let wanted = limit.saturating_sub(rows.len() as u64);
            let bytes_left = bytes_max.saturating_sub(bytes);
            if (limit > 0 && wanted == 0) || (bytes_max > 0 && bytes_left == 0) {
                rest = Some(span);
                break;
            }
            let (now, later) = self.next_ranges(&span, direction, ahead).await?;
            let requests: Vec<Request> = now
                .iter()
                .map(|span| {
                    let span = span.clone();
                    Request::Scan { span, direction, limit: wanted, bytes_max: bytes_left, lock }
                })
                .collect();
            let part = Batch { requests, ..batch.clone() };
            // Each of them is within one range, as far as is known: no further order is needed.
            coverage::reached(Mark::ScanInOrder);
            let answers = aside.take(self.send_batch(part).await?);
            rest = later;
            for (asked, response) in now.into_iter().zip(answers) {
                let Response::Scan { rows: more, resume } = response else {
                    return Err(KvError::Invalid(
                        "a range answered something else than a scan".into(),
                    ));
                };
                bytes += more
                    .iter()
                    .map(|row| (row.key.as_bytes().len() + row.value.len()) as u64)
                    .sum::<u64>();
                rows.extend(more);
                let full = (limit > 0 && rows.len() as u64 >= limit)
                    || (bytes_max > 0 && bytes >= bytes_max);
                if resume.is_some() || full {
                    coverage::reached(Mark::ScanStoppedBetweenRanges);
                    rest = remainder(&span, &asked, resume, direction);
                    break;
                }
            }
        }
        Ok(aside.reply(&batch, vec![Response::Scan { rows, resume: rest }]))
    }

    /// The first parts of `span`, in the scan's order, that are in one range each, and what is left of it.
    async fn next_ranges(
        &self,
        span: &Span,
        direction: Direction,
        count: usize,
    ) -> Result<(Vec<Span>, Option<Span>), KvError> {
        let mut parts = Vec::new();
        let mut at = span.start.clone();
        while at < span.end {
            let known = self.locate(&at).await?;
            let end = known.descriptor.span.end.clone().min(span.end.clone());
            parts.push(Span::new(at, end.clone()));
            at = end;
            if direction == Direction::Forward && parts.len() == count {
                break;
            }
        }
        match direction {
            Direction::Forward => {
                let rest = Span::new(at, span.end.clone());
                Ok((parts, (!rest.is_empty()).then_some(rest)))
            }
            Direction::Reverse => {
                parts.reverse();
                parts.truncate(count);
                let lowest = parts.last().map_or(span.end.clone(), |part| part.start.clone());
                let rest = Span::new(span.start.clone(), lowest);
                Ok((parts, (!rest.is_empty()).then_some(rest)))
            }
        }
    }

    /// Sends a piece until it is answered.
    fn send_piece(&self, known: Known, batch: Batch) -> BoxFuture<'_, Result<Reply, KvError>> {
        Box::pin(async move {
            let mut known = known;
            let mut batch = batch;
            let mut journey = Journey::new(self.runtime.time.monotonic(), &self.settings);
            let mut target = known.leaseholder;
            let mut heard = None;
            loop {
                let descriptor = known.descriptor.clone();
                if heard.is_none() {
                    let node = target.take().or_else(|| self.candidate(&descriptor, &journey));
                    heard = match node {
                        Some(node) => {
                            Some(self.ask(node, &descriptor, &batch, &mut journey).await?)
                        }
                        None => self.search(&mut known, &batch, &mut journey).await?,
                    };
                }
                let Some(Heard { node, outcome }) = heard.take() else {
                    target = known.leaseholder;
                    continue;
                };
                let error = match outcome {
                    Ok(reply) => {
                        self.note_answer(&descriptor, node, &reply);
                        return Ok(reply);
                    }
                    Err(error) => error,
                };
                match self.react(error, node, &descriptor, &batch, &mut journey)? {
                    Next::Ask(node) => target = Some(node),
                    Next::Other => {}
                    Next::Pause => {
                        heard = self.pause(&descriptor, &batch, &mut journey).await?;
                        target = Some(node);
                    }
                    Next::Cut => match self.recut(&known, batch, &mut journey).await? {
                        Recut::Same(again, part) => {
                            target = again.leaseholder;
                            (known, batch) = (again, part);
                        }
                        Recut::Several(plan, batch) => {
                            coverage::reached(Mark::BatchMetSplit);
                            return self.send_plan(batch, plan).await;
                        }
                    },
                }
            }
        })
    }

    /// One try, and what is heard then: of it or of an earlier one, or that it is silent.
    async fn ask<'a>(
        &'a self,
        node: NodeId,
        descriptor: &RangeDescriptor,
        batch: &Batch,
        journey: &mut Journey<'a>,
    ) -> Result<Heard, KvError> {
        let time = &*self.runtime.time;
        let now = time.monotonic();
        if !journey.last.is_empty() && !journey.may_go_on(now, &self.settings) {
            return journey.hear_the_last(time, &self.settings, descriptor, batch).await;
        }
        let mut part = batch.clone();
        part.range = Some((descriptor.id, descriptor.generation));
        let first = journey.ask(node, self.peers.send(node, part));
        let slice = batch.wait.slice();
        let until = if is_idempotent(batch) {
            journey.patience(now, self.patience.lock().with(node, slice), &self.settings)
        } else {
            journey.end(&self.settings)
        };
        let heard = journey.hear(time, until).await;
        match &heard {
            Some(heard) if first && heard.node == node => {
                let took = time.monotonic().since(now);
                let own = match &heard.outcome {
                    Err(KvError::Blocked { .. }) => Some(took.saturating_sub(slice)),
                    Ok(_) | Err(_) => slice.is_zero().then_some(took),
                };
                self.patience.lock().answered(node, took, own);
            }
            Some(_) => {}
            None => self.patience.lock().silent(node),
        }
        Ok(heard.unwrap_or_else(|| {
            coverage::reached(Mark::TryTimedOut);
            journey.note_silence(node);
            Heard { node, outcome: Err(KvError::Unreachable { node, sent: true }) }
        }))
    }

    /// All replicas were asked in vain: waits, and asks others where they are by now. `None`: nothing was heard meanwhile.
    async fn search<'a>(
        &'a self,
        known: &mut Known,
        batch: &Batch,
        journey: &mut Journey<'a>,
    ) -> Result<Option<Heard>, KvError> {
        if let Some(heard) = self.pause(&known.descriptor, batch, journey).await? {
            return Ok(Some(heard));
        }
        coverage::reached(Mark::AllReplicasAskedInVain);
        match journey.hear_during(self.relocate(known, batch)).await {
            Answered::By(heard) => Ok(Some(heard)),
            Answered::Not(newer) => {
                *known = newer?;
                Ok(None)
            }
        }
    }

    /// The range is not what it was thought to be: cuts the piece again by what is known now.
    async fn recut(
        &self,
        known: &Known,
        batch: Batch,
        journey: &mut Journey<'_>,
    ) -> Result<Recut, KvError> {
        let descriptor = &known.descriptor;
        if batch.requests.iter().any(|request| matches!(request, Request::TransferLease { .. })) {
            return Err(KvError::RangeMismatch { range: descriptor.id, known: Vec::new() });
        }
        if !journey.may_go_on(self.runtime.time.monotonic(), &self.settings) {
            return Err(journey.give_up(descriptor, &batch));
        }
        let batch = Batch { range: None, ..batch };
        // What is still under way was cut for another range.
        journey.begin_anew();
        let mut plan = match self.plan(&batch).await {
            Err(KvError::Unavailable { reason, .. }) if journey.lost && batch.is_commit() => {
                coverage::reached(Mark::LostCommitWithoutRange);
                return Err(KvError::Ambiguous { reason });
            }
            plan => plan?,
        };
        if !plan.ordered.is_empty() || plan.pieces.len() > 1 {
            return Ok(Recut::Several(plan, batch));
        }
        let (_, piece) =
            plan.pieces.pop_first().expect("a batch has requests, and each has a piece");
        coverage::reached(Mark::BatchCutAgain);
        if piece.known.descriptor == *descriptor {
            self.pause(descriptor, &batch, journey).await?;
        }
        // What was cut anew counts: a one-phase commit's reads may lie in another range by now.
        let requests = piece.requests.into_iter().map(|(_, request)| request).collect();
        Ok(Recut::Same(piece.known, Batch { requests, ..batch }))
    }

    fn note_answer(&self, descriptor: &RangeDescriptor, node: NodeId, reply: &Reply) {
        let mut cache = self.cache.lock();
        cache.set_leaseholder(descriptor, Some(node));
        if let Some(newer) = &reply.range {
            cache.learn(newer.clone());
        }
        for response in &reply.responses {
            if let Response::Split { left, right } = response {
                for half in left.iter().chain([right]) {
                    cache.learn(half.clone());
                }
                // Who has carried out the split leads both.
                cache.set_leaseholder(right, Some(node));
            }
        }
    }

    /// What a refusal means for the piece's way; `Err`: it is for the sender.
    fn react(
        &self,
        error: KvError,
        node: NodeId,
        descriptor: &RangeDescriptor,
        batch: &Batch,
        journey: &mut Journey<'_>,
    ) -> Result<Next, KvError> {
        journey.last = error.to_string();
        if journey.lost && batch.is_commit() && speaks_of_the_batch(&error) {
            // This try has failed; the one that was lost may not have.
            coverage::reached(Mark::LostCommitRefusedLater);
            return Err(KvError::Doubtful { refused: Box::new(error) });
        }
        match error {
            KvError::NotLeaseholder { hint, .. } => {
                journey.silent.remove(&node);
                let may_answer =
                    |hint: &NodeId| !journey.asked.contains(hint) || journey.is_unheard(*hint);
                let hint = hint.filter(|hint| *hint != node && may_answer(hint));
                self.cache.lock().set_leaseholder(descriptor, hint);
                Ok(hint.map_or(Next::Other, |hint| {
                    coverage::reached(Mark::HintFollowed);
                    Next::Ask(hint)
                }))
            }
            KvError::RangeMismatch { known, .. } => {
                journey.silent.remove(&node);
                let mut cache = self.cache.lock();
                let mut news = false;
                for descriptor in known {
                    news |= cache.learn(descriptor);
                }
                if !news {
                    coverage::reached(Mark::CachedRangeForgotten);
                    cache.forget(descriptor);
                }
                Ok(Next::Cut)
            }
            KvError::Unreachable { sent, .. } => {
                journey.silent.insert(node);
                self.cache.lock().set_leaseholder(descriptor, None);
                if sent {
                    journey.lost = true;
                    coverage::reached(Mark::AnswerLost);
                    if !is_idempotent(batch) {
                        return Err(KvError::Ambiguous {
                            reason: format!("{node} did not answer"),
                        });
                    }
                }
                Ok(Next::Other)
            }
            KvError::Overloaded { .. } => {
                coverage::reached(Mark::OverloadWaitedOut);
                Ok(Next::Pause)
            }
            KvError::Ambiguous { reason } => {
                journey.lost = true;
                if is_idempotent(batch) {
                    Ok(Next::Pause)
                } else {
                    Err(KvError::Ambiguous { reason })
                }
            }
            // It hears all voters that it knows, and none leads: a replica that was removed and has not been told. Others know better.
            KvError::Unavailable { missing, .. } if missing.is_empty() => {
                coverage::reached(Mark::UninformedReplicaPassed);
                journey.silent.remove(&node);
                self.cache.lock().set_leaseholder(descriptor, None);
                Ok(Next::Other)
            }
            error @ (KvError::Uncertain { .. }
            | KvError::NewerVersion { .. }
            | KvError::NeedsRefresh { .. }
            | KvError::RefreshFailed { .. }
            | KvError::Deadlock { .. }
            | KvError::Blocked { .. }
            | KvError::TxnAborted { .. }
            | KvError::Exists { .. }
            | KvError::SchemaChanged { .. }
            | KvError::BelowGc { .. }
            | KvError::TooManyLocks { .. }
            | KvError::Unavailable { .. }
            | KvError::Doubtful { .. }
            | KvError::DeadlinePassed
            | KvError::Invalid(_)) => Err(error),
        }
    }

    /// The nearest replica that may lead and was not asked since the last pause.
    fn candidate(&self, descriptor: &RangeDescriptor, journey: &Journey<'_>) -> Option<NodeId> {
        let may_lead = |node: &NodeId| {
            descriptor.peer_on(*node).is_some_and(|peer| match peer.role {
                PeerRole::Voter | PeerRole::VoterBoth | PeerRole::Outgoing => true,
                PeerRole::Learner => false,
            })
        };
        let nearest = self.peers.nearest().into_iter();
        let all = descriptor.peers.iter().map(|peer| peer.node);
        nearest.chain(all).filter(may_lead).find(|node| !journey.asked.contains(node))
    }

    /// Waits before the next round, or gives up. `Some`: somebody has answered meanwhile.
    async fn pause(
        &self,
        descriptor: &RangeDescriptor,
        batch: &Batch,
        journey: &mut Journey<'_>,
    ) -> Result<Option<Heard>, KvError> {
        let time = &*self.runtime.time;
        if !journey.may_go_on(time.monotonic(), &self.settings) {
            return journey.hear_the_last(time, &self.settings, descriptor, batch).await.map(Some);
        }
        let until = time.monotonic().plus(about(&self.runtime, journey.pause));
        let heard = journey.hear(time, until).await;
        if heard.is_none() {
            journey.pause = (journey.pause * 2).min(self.settings.pause_max);
            journey.asked.clear();
        }
        Ok(heard)
    }

    /// Asks others what they know of the range's place.
    async fn relocate(&self, known: &Known, batch: &Batch) -> Result<Known, KvError> {
        let Some(key) = batch.requests.first().and_then(|request| first_key(batch, request)) else {
            return Ok(known.clone());
        };
        let newer = self.ask_around(&key, Some(&known.descriptor)).await.0;
        // Only the same range's new replicas are of use here; anything else comes out as a mismatch.
        Ok(newer
            .filter(|newer| newer.descriptor.id == known.descriptor.id)
            .unwrap_or_else(|| known.clone()))
    }

    /// The range of a key: remembered, or asked for.
    async fn locate(&self, key: &Key) -> Result<Known, KvError> {
        if *key >= Key::MAX {
            return Err(KvError::Invalid(format!("{key} is beyond the keyspace")));
        }
        if let Some(known) = self.cache.lock().find(key) {
            return Ok(known);
        }
        coverage::reached(Mark::RangeAskedFor);
        let begun = self.runtime.time.monotonic();
        let mut pause = self.settings.pause_min;
        loop {
            let (known, silent) = self.ask_around(key, None).await;
            if let Some(known) = known {
                return Ok(known);
            }
            if self.runtime.time.monotonic().since(begun) >= self.settings.unavailable_after {
                return Err(KvError::Unavailable {
                    range: RangeId::default(),
                    missing: silent,
                    reason: format!("nobody who answers knows the range of {key}"),
                });
            }
            let time = &self.runtime.time;
            time.sleep_until(time.monotonic().plus(about(&self.runtime, pause))).await;
            pause = (pause * 2).min(self.settings.pause_max);
        }
    }

    /// Asks the nearest nodes, then those that hold the directory. Also who did not answer.
    async fn ask_around(
        &self,
        key: &Key,
        stale: Option<&RangeDescriptor>,
    ) -> (Option<Known>, Vec<NodeId>) {
        let mut silent = Vec::new();
        let mut asked = BTreeSet::new();
        let mut ask: Vec<NodeId> = self.peers.nearest();
        for directory in [false, true] {
            if directory {
                coverage::reached(Mark::DirectoryAsked);
                let entry = self.cache.lock().find(&Key::addressing(key));
                ask = entry.map_or(Vec::new(), |known| {
                    known.descriptor.peers.iter().map(|peer| peer.node).collect()
                });
            }
            for node in std::mem::take(&mut ask) {
                if !asked.insert(node) {
                    continue;
                }
                let time = &self.runtime.time;
                let patience = self.patience.lock().with(node, Duration::ZERO);
                let begun = time.monotonic();
                let limit = time.sleep_until(begun.plus(patience));
                match select(self.peers.lookup(node, key.clone()), limit).await {
                    Either::Left((Ok(ranges), _)) => {
                        let took = time.monotonic().since(begun);
                        self.patience.lock().answered(node, took, Some(took));
                        if let Some(known) = self.learn_all(ranges, key, stale) {
                            return (Some(known), silent);
                        }
                    }
                    Either::Left((Err(_), _)) => silent.push(node),
                    // Perhaps it only takes longer than what it was asked so far: next time it has longer.
                    Either::Right(_) => {
                        self.patience.lock().silent(node);
                        silent.push(node);
                    }
                }
            }
        }
        (None, silent)
    }

    fn learn_all(
        &self,
        ranges: Vec<RangeDescriptor>,
        key: &Key,
        stale: Option<&RangeDescriptor>,
    ) -> Option<Known> {
        let mut cache = self.cache.lock();
        for descriptor in ranges {
            cache.learn(descriptor);
        }
        let known = cache.find(key)?;
        stale.is_none_or(|stale| *known.descriptor != *stale).then_some(known)
    }
}

/// The answer of a piece.
struct Part {
    start: Key,
    indexes: Vec<usize>,
    reply: Reply,
}

fn join_parts(batch: &Batch, mut parts: Vec<Part>) -> Result<Reply, KvError> {
    parts.sort_by(|a, b| a.start.cmp(&b.start));
    let mut aside = Aside::new();
    let mut answers: Vec<Vec<Response>> = vec![Vec::new(); batch.requests.len()];
    for part in parts {
        let responses = aside.take(part.reply);
        if responses.len() != part.indexes.len() {
            return Err(KvError::Invalid("a range answered another number of requests".into()));
        }
        for (index, response) in part.indexes.into_iter().zip(responses) {
            answers[index].push(response);
        }
    }
    let responses: Result<Vec<Response>, KvError> =
        batch.requests.iter().zip(answers).map(|(request, pieces)| join(request, pieces)).collect();
    Ok(aside.reply(batch, responses?))
}

/// What is left of `span` when its part `asked` was answered up to `resume`.
fn remainder(
    span: &Span,
    asked: &Span,
    resume: Option<Span>,
    direction: Direction,
) -> Option<Span> {
    let rest = match direction {
        Direction::Forward => {
            Span::new(resume.map_or(asked.end.clone(), |resume| resume.start), span.end.clone())
        }
        Direction::Reverse => {
            Span::new(span.start.clone(), resume.map_or(asked.start.clone(), |resume| resume.end))
        }
    };
    (!rest.is_empty()).then_some(rest)
}

fn is_idempotent(batch: &Batch) -> bool {
    !batch.requests.iter().any(|request| matches!(request, Request::CommitOnePhase { .. }))
}

fn is_staged(batch: &Batch) -> bool {
    batch.requests.iter().any(|request| matches!(request, Request::Stage { .. }))
}

/// A refusal that ends the piece's way, and is not the record's own word on the transaction.
fn speaks_of_the_batch(error: &KvError) -> bool {
    match error {
        KvError::NotLeaseholder { .. }
        | KvError::RangeMismatch { .. }
        | KvError::Unreachable { .. }
        | KvError::Overloaded { .. }
        | KvError::Ambiguous { .. }
        | KvError::Doubtful { .. }
        | KvError::TxnAborted { .. } => false,
        KvError::Uncertain { .. }
        | KvError::NewerVersion { .. }
        | KvError::NeedsRefresh { .. }
        | KvError::RefreshFailed { .. }
        | KvError::Deadlock { .. }
        | KvError::Blocked { .. }
        | KvError::Exists { .. }
        | KvError::SchemaChanged { .. }
        | KvError::BelowGc { .. }
        | KvError::TooManyLocks { .. }
        | KvError::Unavailable { .. }
        | KvError::DeadlinePassed
        | KvError::Invalid(_) => true,
    }
}

/// Half of a duration to all of it.
fn about(runtime: &Runtime, duration: Duration) -> Duration {
    let half = duration / 2;
    let span_us = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_micros(runtime.random.next_u64() % span_us)
}

impl Kv for Router {
    fn send(&self, batch: Batch) -> BoxFuture<'_, Result<Reply, KvError>> {
        Box::pin(self.send_batch(batch))
    }

    fn range_span(&self, key: &Key) -> BoxFuture<'_, Result<Span, KvError>> {
        let key = key.clone();
        Box::pin(async move { Ok(self.locate(&key).await?.descriptor.span.clone()) })
    }
}
