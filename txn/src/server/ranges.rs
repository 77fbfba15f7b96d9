//! Machine: requests of all ranges of a shard. Admits, parks, evaluates, proposes, answers.
//!
//! ```text
//!   request ──► route ──► lease? ──► latches? ──► evaluate ──► answer                     (reads)
//!                 │         │            │           │   └───► propose ──► applied ──► answer   (writes)
//!                 ▼         ▼            ▼           ▼
//!              refuse     parked: until led, until a latch is released, until a key is free, until the read bound has moved
//! ```
//!
//! A parked request is evaluated again from the start, in the order of arrival among those that the
//! same event woke.
//!
//! # When is it answered?
//!
//! A write: when its command is applied here, or is known never to be (`NotLeaseholder`), or when
//! nobody can know (`Ambiguous`: the replica went away, or it is not decided within the limit). A
//! read: at once, if the lease still holds when the answer leaves. Everything else that waits has a
//! deadline after which it is told for whom or for what it waits; nothing hangs.
//!
//! # Restarts and losses
//!
//! Nothing here survives a restart and nothing needs to: an unanswered request is its gateway's to
//! judge. When the lease is lost, parked requests are routed anew and requests in flight stay until
//! they are decided, for a deposed leader's commands may still be committed.

mod waiting;

use clock::{Monotonic, Now, Timestamp};
use coverage::{Mark, Rare, rare};
use replication::raft::{Lease, LogIndex, ProposeError, Term};
use replication::range::{Command, NodeId, RangeId};
use replication::store::{Outcome, RangeEvent};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use storage::mvcc::TxnId;
use storage::{Key, StorageError};

use super::evaluate::{self, Claims, Conflict, ConflictKind, Effects, Moment, Stop};
use super::latch::Ticket;
use super::leading::{Inherited, Leading};
use super::locks::Release;
use super::parked::{Parked, ParkedRequests, Why, Work};
use super::replicas::Replicas;
use super::route::{belongs, reply, route, split_answer};
use super::{LockInfo, PlantedBug, RequestId, ServerConfig};
use crate::api::{Batch, Footing, KvError, Reply, Request, Response};
use crate::contention::Contention;

/// How often a request that waits for a lease or its read bound looks again.
const LEASE_RECHECK_INTERVAL: Duration = Duration::from_millis(50);
/// A place is kept for at least so many of its request's slices, each two trips to the range or more: who is away asks its own record and the
/// holder's, has the holder's lock resolved, perhaps looks for the holder's writes first, and comes back; each a trip and a round of
/// consensus. Too short, and a holder that was aborted for it takes the key again before it is back, for ever. Too long costs little: who ends or
/// is run again releases its place. To the end it is kept of one whose gateway has died, and of one that gave up waiting (`lock_timeout`, whose
/// last slices are short) in a block that goes on.
const PLACE_SLICES: u32 = 8;
/// Attempts per step.
const ATTEMPTS_MAX: usize = 10_000;

/// A request whose command is in the log.
#[derive(Debug)]
struct Proposal {
    ticket: Ticket,
    /// `None`: answered already, or nobody waits any more.
    work: Option<Work>,
    responses: Vec<Response>,
    releases: Vec<Release>,
    freed: Vec<Key>,
    aborted: Vec<TxnId>,
    again: bool,
    deadline: Monotonic,
}

/// An answer, and under which lease it was read.
#[derive(Debug)]
struct Answer {
    id: RequestId,
    range: RangeId,
    read_under: Option<Term>,
    result: Result<Reply, KvError>,
}

/// See the module.
#[derive(Debug)]
pub struct Ranges {
    config: ServerConfig,
    leading: BTreeMap<RangeId, Leading>,
    inherited: BTreeMap<RangeId, Inherited>,
    parked: ParkedRequests,
    proposals: BTreeMap<(RangeId, Term, LogIndex), Proposal>,
    /// Of proposals that are not answered.
    deadlines: BTreeSet<(Monotonic, (RangeId, Term, LogIndex))>,
    /// When the first kept place in a queue may expire.
    places_due: Monotonic,
    answers: Vec<Answer>,
    contention: Contention,
    next_ticket: u64,
    swept: Monotonic,
    ticked: Monotonic,
    fatal: Option<StorageError>,
}

impl Ranges {
    /// Leads nothing.
    pub fn new(config: ServerConfig) -> Ranges {
        Ranges {
            config,
            leading: BTreeMap::new(),
            inherited: BTreeMap::new(),
            parked: ParkedRequests::default(),
            proposals: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            places_due: Monotonic::MAX,
            answers: Vec::new(),
            contention: Contention::default(),
            next_ticket: 0,
            swept: Monotonic::ZERO,
            ticked: Monotonic::ZERO,
            fatal: None,
        }
    }

    /// A batch arrives. Its answer comes once from [`Ranges::answers`], unless it is cancelled.
    pub fn request(&mut self, now: Now, replicas: &mut dyn Replicas, id: RequestId, batch: Batch) {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        let work = Work { id, batch, arrived: now.monotonic };
        self.attempt(now, replicas, ticket, work);
        self.run(now, replicas);
    }

    /// Nobody waits for the answer any more. What is in the log stays there.
    pub fn cancel(&mut self, now: Now, replicas: &mut dyn Replicas, id: RequestId) {
        if let Some((ticket, parked)) = self.parked.remove_request(id) {
            self.withdraw(parked.range, ticket);
            self.leave_queue(parked.range, ticket, &parked.work.batch);
        }
        for proposal in self.proposals.values_mut() {
            if proposal.work.as_ref().is_some_and(|work| work.id == id) {
                proposal.work = None;
            }
        }
        self.answers.retain(|answer| answer.id != id);
        self.run(now, replicas);
    }

    /// Something happened to a range.
    pub fn event(&mut self, now: Now, replicas: &mut dyn Replicas, event: RangeEvent) {
        match event {
            RangeEvent::Proposal { range, term, index, outcome } => {
                if let Some(proposal) = self.proposals.remove(&(range, term, index)) {
                    self.deadlines.remove(&(proposal.deadline, (range, term, index)));
                    self.decided(now, replicas, range, term, proposal, outcome);
                }
            }
            RangeEvent::Led { range, term, floor } => self.led(now, range, term, floor),
            RangeEvent::Deposed { range } => self.deposed(range),
            RangeEvent::Split { left, right } => self.split(now, replicas, left, right),
            RangeEvent::Removed { range } => {
                self.inherited.remove(&range);
                self.deposed(range);
            }
        }
        self.run(now, replicas);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Now, replicas: &mut dyn Replicas) {
        self.ticked = now.monotonic;
        self.expire_places(now);
        let woken: Vec<Ticket> = self.parked.waiting_for_lease().collect();
        self.parked.wake_all(woken);
        self.run(now, replicas);
        for ticket in self.parked.due(now.monotonic) {
            self.give_up(now, replicas, ticket);
        }
        self.give_up_proposals(now, replicas);
        self.run(now, replicas);
    }

    /// When [`Ranges::tick`] has something to do.
    pub fn wake_at(&self) -> Monotonic {
        if self.parked.has_woken() {
            return Monotonic::ZERO;
        }
        let undecided = self.deadlines.first().map(|(deadline, _)| *deadline);
        let waits_for_lease = self.parked.waiting_for_lease().next().is_some();
        let recheck = waits_for_lease.then(|| self.ticked.plus(LEASE_RECHECK_INTERVAL));
        let all = undecided.into_iter().chain(self.parked.next_due()).chain(recheck);
        let all = all.chain([self.places_due]);
        all.min().unwrap_or(Monotonic::MAX)
    }

    /// Whether [`Ranges::answers`] has something.
    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Answers to send now. A read whose lease has run out since is not answered but re-routed
    /// (killers R10, R11).
    pub fn answers(
        &mut self,
        now: Now,
        replicas: &dyn Replicas,
    ) -> Vec<(RequestId, Result<Reply, KvError>)> {
        let answers = std::mem::take(&mut self.answers);
        let checked = answers.into_iter().map(|answer| {
            let lapsed = answer
                .read_under
                .is_some_and(|term| lease_of(replicas, now, answer.range, term).is_none());
            let result = if lapsed {
                coverage::reached(Mark::LeaseLapsedBeforeAnswer);
                Err(self.not_leaseholder(replicas, answer.range))
            } else {
                answer.result
            };
            (answer.id, result)
        });
        checked.collect()
    }

    /// The first engine error: the node must stop.
    pub fn fatal(&self) -> Option<&StorageError> {
        self.fatal.as_ref()
    }

    /// At or above everything read under the current lease; `None` when the range is not led here.
    pub fn read_high(&self, range: RangeId) -> Option<Timestamp> {
        self.leading.get(&range).map(Leading::read_high)
    }

    /// Unreplicated locks.
    pub fn locks(&self) -> Vec<LockInfo> {
        let ranges = self.leading.iter();
        let locks = ranges
            .flat_map(|(range, leading)| leading.locks.locks().map(move |lock| (*range, lock)));
        let info = locks.map(|(range, (key, holder, waiters_count))| LockInfo {
            range,
            key: key.clone(),
            holder: holder.txn.clone(),
            strength: holder.strength,
            active: holder.active,
            waiters_count,
        });
        info.collect()
    }

    /// What was waited for in ranges that were led here.
    pub fn contention(&self) -> &Contention {
        &self.contention
    }

    /// Attempts what was woken, in the order of arrival; a bounded piece of it, the rest at the
    /// next call.
    fn run(&mut self, now: Now, replicas: &mut dyn Replicas) {
        for _ in 0..ATTEMPTS_MAX {
            let Some((ticket, parked)) = self.parked.take_woken() else { return };
            self.note_wait(now, &parked);
            let Parked { range, work, .. } = parked;
            if belongs(&*replicas, &work.batch) != Some(range) {
                coverage::reached(Mark::ClaimsGivenUp);
                // It will be answered, or go on elsewhere: what it claimed where it waited would block others for ever.
                self.withdraw(range, ticket);
                self.leave_queue(range, ticket, &work.batch);
            }
            self.attempt(now, replicas, ticket, work);
        }
    }

    fn attempt(&mut self, now: Now, replicas: &mut dyn Replicas, ticket: Ticket, work: Work) {
        if let Some(response) = split_answer(&*replicas, &work.batch) {
            coverage::reached(Mark::SplitAskedAgain);
            let range = work.batch.range.map_or(RangeId::default(), |(range, _)| range);
            let reply =
                reply(now, &*replicas, range, &work.batch, None, (vec![response], Vec::new()));
            return self.answers.push(Answer {
                id: work.id,
                range,
                read_under: None,
                result: Ok(reply),
            });
        }
        let range = match route(&*replicas, &work.batch) {
            Ok(range) => range,
            Err(error) => return self.refuse(None, ticket, work, error),
        };
        if rare(Rare::LeaseDenied) {
            let error = KvError::NotLeaseholder { range, hint: None };
            return self.refuse(Some((now, range)), ticket, work, error);
        }
        let Some(lease) = self.lease(now, &*replicas, range) else {
            return self.no_lease(now, &*replicas, range, ticket, work);
        };
        let (Some(leading), Some(state)) = (self.leading.get_mut(&range), replicas.state(range))
        else {
            return self.no_lease(now, &*replicas, range, ticket, work);
        };
        let claims = Claims::of(&work.batch, &state.descriptor.span);
        if !claims.is_empty() {
            leading.key_latches.claim(ticket, claims.keys);
            leading.record_latches.claim(ticket, claims.records);
            if let Some(other) = leading.blocks_write(ticket) {
                return self.park(now, range, ticket, work, Why::Latch(other));
            }
        }
        let moment = Moment {
            now,
            reader: replicas.reader(),
            state,
            leading,
            batch: &work.batch,
            expiry: self.config.txn_expiry,
            staged_kept: self.config.staged_kept,
            locks_max: self.config.locks_max,
            planted: self.config.planted,
        };
        let bound = match self.config.planted {
            Some(PlantedBug::BoundIgnored) => Timestamp::MAX,
            Some(_) | None => lease.read_bound,
        };
        match evaluate::evaluate(&moment) {
            Ok((_, effects)) if effects.highest_mark() > bound => {
                self.park_behind_bound(now, range, ticket, work);
            }
            Ok((responses, effects)) => {
                self.carry_out(now, replicas, range, ticket, work, responses, effects)
            }
            Err(Stop::Latched(other)) => self.park(now, range, ticket, work, Why::Latch(other)),
            Err(Stop::Locked(conflict)) => self.blocked(now, range, ticket, work, conflict),
            Err(Stop::Refuse(error)) => match later(now, &error, &work.batch) {
                Some(read_at) => {
                    coverage::reached(Mark::ReadLater);
                    let uncertainty_limit = work.batch.uncertainty_limit.forward(read_at);
                    let batch = Batch { read_at, uncertainty_limit, ..work.batch };
                    self.attempt(now, replicas, ticket, Work { batch, ..work })
                }
                None => self.refuse(Some((now, range)), ticket, work, *error),
            },
            Err(Stop::RefuseSeen(_, ts)) if ts > bound => {
                self.park_behind_bound(now, range, ticket, work);
            }
            Err(Stop::RefuseSeen(seen, ts)) => {
                let (error, span) = *seen;
                coverage::reached(Mark::RefusalCountedAsRead);
                leading.mark_read(&span, ts, work.batch.txn.as_ref().map(|txn| txn.id));
                self.refuse(Some((now, range)), ticket, work, error);
            }
            Err(Stop::Broken(error)) => self.break_down(error),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn carry_out(
        &mut self,
        now: Now,
        replicas: &mut dyn Replicas,
        range: RangeId,
        ticket: Ticket,
        work: Work,
        responses: Vec<Response>,
        mut effects: Effects,
    ) {
        let leading = self.leading.get_mut(&range).expect("the batch was evaluated under a lease");
        let reader = work.batch.txn.as_ref().map(|txn| txn.id);
        leading.mark(&effects, reader);
        if effects.must_propose() {
            return self.propose(now, replicas, range, ticket, work, responses, effects);
        }
        leading.note(&mut effects, work.batch.txn.as_ref(), now);
        let term = leading.term;
        if let Some(to) = effects.transfer {
            let read_high = leading.read_high();
            if let Err(error) = replicas.transfer(now, range, to, read_high) {
                let error = self.propose_error(&*replicas, range, error);
                return self.refuse(Some((now, range)), ticket, work, error);
            }
        }
        self.release_locks(range, &effects.releases);
        self.leave_queue(range, ticket, &work.batch);
        self.withdraw(range, ticket);
        // A lease that was just given away has served this answer.
        let read_under = effects.transfer.is_none().then_some(term);
        let leading = self.leading.get(&range);
        let answer = (responses, effects.skipped);
        let reply = reply(now, &*replicas, range, &work.batch, leading, answer);
        self.answers.push(Answer { id: work.id, range, read_under, result: Ok(reply) });
    }

    #[allow(clippy::too_many_arguments)]
    fn propose(
        &mut self,
        now: Now,
        replicas: &mut dyn Replicas,
        range: RangeId,
        ticket: Ticket,
        work: Work,
        responses: Vec<Response>,
        mut effects: Effects,
    ) {
        let command = Command {
            batch: std::mem::take(&mut effects.batch),
            effect: std::mem::replace(&mut effects.effect, replication::range::Effect::None),
        };
        let (term, index) = match replicas.propose(now, range, command) {
            Ok(position) => position,
            Err(ProposeError::Transferring) => {
                coverage::reached(Mark::ProposedWhileTransferring);
                return self.no_lease(now, &*replicas, range, ticket, work);
            }
            Err(error) => {
                let error = self.propose_error(&*replicas, range, error);
                return self.refuse(Some((now, range)), ticket, work, error);
            }
        };
        let leading = self.leading.get_mut(&range).expect("the batch was evaluated under a lease");
        assert_eq!(
            term, leading.term,
            "{range}: a command is appended under the lease it was evaluated under"
        );
        leading.hold(ticket, effects.write_ts);
        leading.note(&mut effects, work.batch.txn.as_ref(), now);
        let proposal = Proposal {
            ticket,
            responses,
            releases: effects.releases,
            freed: effects.freed,
            aborted: effects.aborted,
            again: effects.again,
            deadline: now.monotonic.plus(self.config.unavailable_after),
            work: Some(work),
        };
        self.deadlines.insert((proposal.deadline, (range, term, index)));
        let former = self.proposals.insert((range, term, index), proposal);
        assert!(former.is_none(), "{range}: one proposal at {index} of term {term}");
    }

    fn decided(
        &mut self,
        now: Now,
        replicas: &mut dyn Replicas,
        range: RangeId,
        term: Term,
        proposal: Proposal,
        outcome: Outcome,
    ) {
        let still_leads = self.leading.get(&range).is_some_and(|leading| leading.term == term);
        if still_leads {
            self.withdraw(range, proposal.ticket);
            if outcome == Outcome::Applied {
                self.applied(now, range, &proposal);
            }
        }
        let Some(work) = proposal.work else { return };
        let result = match outcome {
            Outcome::Applied if proposal.again => {
                coverage::reached(Mark::ResolutionWentOn);
                return self.attempt(now, replicas, proposal.ticket, work);
            }
            Outcome::Applied => {
                let answer = (proposal.responses, Vec::new());
                Ok(reply(now, &*replicas, range, &work.batch, None, answer))
            }
            Outcome::Dropped => {
                coverage::reached(Mark::WriteRoutedAnew);
                Err(self.not_leaseholder(&*replicas, range))
            }
            Outcome::Unknown => Err(KvError::Ambiguous {
                reason: format!("{range} left this node before it was decided"),
            }),
        };
        self.answers.push(Answer { id: work.id, range, read_under: None, result });
    }

    /// The command is applied: locks go, who waited for them comes.
    fn applied(&mut self, now: Now, range: RangeId, proposal: &Proposal) {
        self.release_locks(range, &proposal.releases);
        for key in &proposal.freed {
            self.wake_key(range, key);
        }
        if let Some(leading) = self.leading.get_mut(&range) {
            for txn in &proposal.aborted {
                leading.remember_aborted(*txn, now.monotonic);
            }
        }
        if let Some(work) = proposal.work.as_ref().filter(|_| !proposal.again) {
            self.leave_queue(range, proposal.ticket, &work.batch);
        }
    }

    fn led(&mut self, now: Now, range: RangeId, term: Term, floor: Timestamp) {
        let mut leading =
            Leading::new(term, floor, self.config.tscache_cells_max, self.config.planted);
        let inherited = self.inherited.remove(&range);
        if let Some(inherited) =
            inherited.filter(|_| self.config.planted != Some(PlantedBug::SplitForgetsReads))
        {
            let fresh = now.monotonic.since(inherited.at) < self.config.txn_expiry;
            coverage::reached(Mark::SplitStateInherited);
            leading.inherit(if fresh { inherited } else { inherited.without_locks() });
        }
        self.leading.insert(range, leading);
        self.parked.wake_range(range);
    }

    fn deposed(&mut self, range: RangeId) {
        self.leading.remove(&range);
        self.parked.wake_range(range);
    }

    fn split(&mut self, now: Now, replicas: &dyn Replicas, left: RangeId, right: RangeId) {
        let Some(leading) = self.leading.get_mut(&left) else { return };
        let Some(state) = replicas.state(left) else { return };
        let inherited = leading.bequeath(&state.descriptor.span.end, now.monotonic);
        self.inherited.insert(right, inherited);
        for ticket in self.parked.of_range(left) {
            coverage::reached(Mark::WaitMetSplit);
            // Some of them are the right side's now; claims are made anew.
            self.withdraw(left, ticket);
        }
        self.parked.wake_range(left);
    }

    /// The lease under which `range` is served now.
    fn lease(&self, now: Now, replicas: &dyn Replicas, range: RangeId) -> Option<Lease> {
        lease_of(replicas, now, range, self.leading.get(&range)?.term)
    }

    /// Re-routes when somebody else may lead, refuses when nobody can, waits otherwise.
    fn no_lease(
        &mut self,
        now: Now,
        replicas: &dyn Replicas,
        range: RangeId,
        ticket: Ticket,
        work: Work,
    ) {
        if let Some(unavailable) = replicas.unavailable(now, range) {
            coverage::reached(Mark::RefusedUnavailable);
            let reason = "no quorum answers".to_owned();
            let error = KvError::Unavailable { range, missing: unavailable.missing, reason };
            return self.refuse(Some((now, range)), ticket, work, error);
        }
        match replicas.leader_node(range) {
            Some(node) if node != self.config.node => {
                let error = KvError::NotLeaseholder { range, hint: Some(node) };
                self.refuse(Some((now, range)), ticket, work, error);
            }
            Some(_) | None => {
                self.withdraw(range, ticket);
                self.park(now, range, ticket, work, Why::Lease);
            }
        }
    }

    fn park_behind_bound(&mut self, now: Now, range: RangeId, ticket: Ticket, work: Work) {
        coverage::reached(Mark::WaitedForReadBound);
        self.withdraw(range, ticket);
        self.park(now, range, ticket, work, Why::Bound);
    }

    fn park(&mut self, now: Now, range: RangeId, ticket: Ticket, work: Work, why: Why) {
        if self.parked.count() >= self.config.parked_max {
            coverage::reached(Mark::TooManyWaited);
            return self.refuse(Some((now, range)), ticket, work, KvError::Overloaded { range });
        }
        let deadline = match &why {
            Why::Lease => work.arrived.plus(self.config.leaderless_max),
            Why::Latch(_) | Why::Bound => work.arrived.plus(self.config.unavailable_after),
            Why::Lock(_) => work.wait_until().unwrap_or(work.arrived),
        };
        let since = now.monotonic;
        self.parked.insert(ticket, Parked { range, work, why, since, deadline });
    }

    /// A parked request's deadline has passed.
    fn give_up(&mut self, now: Now, replicas: &mut dyn Replicas, ticket: Ticket) {
        let Some(parked) = self.parked.remove(ticket) else { return };
        self.note_wait(now, &parked);
        let Parked { range, work, why, since, .. } = parked;
        // A long piece of work before it (the resolution of a bulk load, say) is no reason to call a range that moves unavailable.
        let patient = now.monotonic.since(work.arrived) < self.config.latch_wait_max;
        if matches!(why, Why::Latch(_)) && patient && replicas.unavailable(now, range).is_none() {
            coverage::reached(Mark::LatchWaitProlonged);
            let deadline = now.monotonic.plus(self.config.unavailable_after);
            return self.parked.insert(ticket, Parked { range, work, why, since, deadline });
        }
        let error = match why {
            // Who is in the way by now: whom it met when it came may be gone.
            Why::Lock(_) => return self.attempt(now, replicas, ticket, work),
            Why::Lease => self.not_leaseholder(&*replicas, range),
            Why::Latch(_) => {
                unavailable(&*replicas, now, range, "a write before this one is not replicated")
            }
            Why::Bound => unavailable(
                &*replicas,
                now,
                range,
                "the read lies too far ahead of what the lease allows",
            ),
        };
        self.refuse(Some((now, range)), ticket, work, error);
    }

    fn give_up_proposals(&mut self, now: Now, replicas: &dyn Replicas) {
        while let Some((deadline, position)) = self.deadlines.first().copied() {
            if deadline > now.monotonic {
                return;
            }
            self.deadlines.pop_first();
            let range = &position.0;
            let Some(proposal) = self.proposals.get_mut(&position) else { continue };
            let Some(work) = proposal.work.take() else { continue };
            coverage::reached(Mark::CommandUndecidedTooLong);
            let missing = replicas
                .unavailable(now, *range)
                .map_or_else(Vec::new, |unavailable| unavailable.missing);
            let missing: Vec<String> = missing.iter().map(NodeId::to_string).collect();
            let reason =
                format!("{range} has not replicated it in time; missing: [{}]", missing.join(", "));
            let result = Err(KvError::Ambiguous { reason });
            self.answers.push(Answer { id: work.id, range: *range, read_under: None, result });
        }
    }

    /// Answers with an error. The place in a queue is kept for those who will be back.
    fn refuse(&mut self, at: Option<(Now, RangeId)>, ticket: Ticket, work: Work, error: KvError) {
        let range = at.map_or(RangeId::default(), |(_, range)| range);
        if let Some((now, range)) = at {
            self.withdraw(range, ticket);
            let txn = work.batch.txn.as_ref().map(|txn| txn.id);
            if let (KvError::NeedsRefresh { .. }, Some(txn), Some(leading)) =
                (&error, txn, self.leading.get_mut(&range))
                && asks_the_record_to_commit(&work.batch)
            {
                leading.moved.note(txn, now.monotonic);
            }
            match (&error, txn, self.leading.get_mut(&range)) {
                (
                    KvError::Blocked { .. }
                    | KvError::NewerVersion { .. }
                    | KvError::Uncertain { .. }
                    | KvError::NeedsRefresh { .. },
                    Some(txn),
                    Some(leading),
                ) => {
                    let away = work.batch.wait.slice() * PLACE_SLICES;
                    let away = away.min(self.config.txn_expiry);
                    let until = now.monotonic.plus(self.config.place_kept.max(away));
                    self.places_due = self.places_due.min(until);
                    leading.locks.keep_place(txn, ticket, until);
                }
                _ => self.leave_queue(range, ticket, &work.batch),
            }
        }
        self.answers.push(Answer { id: work.id, range, read_under: None, result: Err(error) });
    }

    /// Gives up claims or latches and wakes who waited for them.
    fn withdraw(&mut self, range: RangeId, ticket: Ticket) {
        if let Some(leading) = self.leading.get_mut(&range) {
            leading.release(ticket);
        }
        self.parked.wake_latch(ticket);
    }

    fn break_down(&mut self, error: StorageError) {
        tracing::error!(%error, "state engine failed");
        self.fatal.get_or_insert(error);
    }

    fn not_leaseholder(&self, replicas: &dyn Replicas, range: RangeId) -> KvError {
        let hint = replicas.leader_node(range).filter(|node| *node != self.config.node);
        KvError::NotLeaseholder { range, hint }
    }

    fn propose_error(
        &self,
        replicas: &dyn Replicas,
        range: RangeId,
        error: ProposeError,
    ) -> KvError {
        match error {
            ProposeError::NotLeader(_) | ProposeError::Transferring => {
                self.not_leaseholder(replicas, range)
            }
            ProposeError::Overloaded | ProposeError::MembershipBusy => {
                KvError::Overloaded { range }
            }
            ProposeError::MembershipIllegal | ProposeError::TransferTarget => {
                KvError::Invalid(error.to_string())
            }
        }
    }
}

/// Where a refused batch may read instead, without asking its sender: there was nothing in what it has read before that could fail.
/// As late as possible, so that it need not move again soon. But a plain read stays in its uncertainty interval: its sender has
/// intents pushed out of that, not higher. Each time it is above a version that is there, so that this ends.
fn later(now: Now, error: &KvError, batch: &Batch) -> Option<Timestamp> {
    let now = now.clock.timestamp();
    let read_at = match error {
        KvError::Uncertain { ts, .. } => ts.forward(now.min(batch.uncertainty_limit)),
        KvError::NewerVersion { ts, .. } => ts.forward(now),
        _ => return None,
    };
    (batch.footing == Footing::Free && read_at > batch.read_at).then_some(read_at)
}

/// A commit of writes that are laid, or being laid.
fn asks_the_record_to_commit(batch: &Batch) -> bool {
    let asks = |request: &Request| {
        matches!(request, Request::EndTxn { commit_ts: Some(_), .. } | Request::Stage { .. })
    };
    batch.requests.iter().any(asks)
}

fn lease_of(replicas: &dyn Replicas, now: Now, range: RangeId, term: Term) -> Option<Lease> {
    replicas.lease(now, range).filter(|lease| lease.term == term && now.monotonic < lease.until)
}

fn unavailable(replicas: &dyn Replicas, now: Now, range: RangeId, reason: &str) -> KvError {
    let missing =
        replicas.unavailable(now, range).map_or_else(Vec::new, |unavailable| unavailable.missing);
    KvError::Unavailable { range, missing, reason: reason.to_owned() }
}

fn blocked_error(conflict: Conflict) -> KvError {
    KvError::Blocked {
        key: conflict.key,
        holder: conflict.holder,
        active: conflict.active,
        intent: conflict.kind == ConflictKind::Intent,
    }
}
