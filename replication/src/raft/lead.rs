//! Machine: the leader. Proposals, appends to followers, commit, and whether it is still one.
//!
//! Appends are made when a `Ready` is taken, so that many proposals travel as one. A follower that lags, has not told that it
//! knows the commit index, or whose promise is not confirmed, is contacted every heartbeat interval, and so is everybody while no
//! quorum is bound to us by promises; an idle, caught-up group is silent, and only looks now and then whether they still come.
//!
//! INVARIANT: an entry is committed by counting only if it is of the leader's term (thesis 3.6.2, killer R09); the leader's own
//! copy counts once it is durable (R05).

use super::core::{Raft, Role};
use super::progress::{PeerStatus, Progress, ProgressState};
use super::read_index::Reads;
use super::transfer::Transfer;
use super::*;
use coverage::{Mark, Rare, rare};
use std::collections::{BTreeMap, VecDeque};

/// A peer that is neither promised nor heard of is contacted less often by this factor.
const SILENT_PEER_FACTOR: u32 = 4;

/// The owner is reminded of a wanted snapshot after so many election timeouts (killer R23).
const SNAPSHOT_REMINDER_TIMEOUTS: u32 = 8;

/// So many rounds are remembered; answers to older ones confirm nothing.
const ROUNDS_MAX: usize = 64;

/// Precedes every round of a reign: an answer that carries it confirms nothing.
pub(super) const NO_ROUND: u64 = 0;

/// A leader's state.
#[derive(Debug)]
pub(super) struct Leading {
    /// Our first entry.
    pub(super) first: LogIndex,
    /// As elected with.
    pub(super) floor: Timestamp,
    /// Everybody but ourselves.
    pub(super) progress: BTreeMap<ReplicaId, Progress>,
    uncommitted: VecDeque<(LogIndex, usize)>,
    uncommitted_bytes: usize,
    /// Rounds of confirmation of this reign, and when they began. Appends carry the newest one as their context.
    rounds: VecDeque<(u64, Monotonic)>,
    /// No append has carried the newest round yet.
    round_unsent: bool,
    pub(super) reads: Reads,
    pub(super) transfer: Option<Transfer>,
    /// The latest end of a lease that could have been given under memberships before the one in force.
    pub(super) lease_high: Monotonic,
    ticked_at: Monotonic,
    /// Since when no quorum has been bound to us, as far as ticks have noticed.
    at_risk_since: Option<Monotonic>,
    /// The next `Ready` looks for something to send.
    pub(super) send_due: bool,
}

impl Leading {
    /// The newest round.
    pub(super) fn round(&self) -> u64 {
        self.rounds.back().map_or(NO_ROUND, |(round, _)| *round)
    }

    /// A round that begins now or has not been sent yet: whoever answers it does so after this call.
    pub(super) fn begin_round(&mut self, now: Monotonic) -> u64 {
        if !self.round_unsent {
            let round = self.round() + 1;
            self.rounds.push_back((round, now));
            self.round_unsent = true;
            if self.rounds.len() > ROUNDS_MAX {
                self.rounds.pop_front();
            }
        }
        for progress in self.progress.values_mut() {
            progress.ping = true;
        }
        self.send_due = true;
        self.round()
    }

    fn began(&self, round: u64) -> Option<Monotonic> {
        let oldest = self.rounds.front()?.0;
        let offset = usize::try_from(round.checked_sub(oldest)?).ok()?;
        self.rounds.get(offset).map(|(_, began)| *began)
    }
}

impl Raft {
    pub(super) fn become_leader(&mut self, env: &mut Env<'_>, floor: Timestamp) {
        tracing::info!(replica = %self.id, term = %self.term, %floor, "leader elected");
        self.keep_bound_floor(env);
        self.binding = None;
        self.renounces = false;
        self.summoned = false;
        self.floor = self.floor.max(floor);
        self.role = Role::Leader(Box::new(Leading {
            first: self.tail.last.0.next(),
            floor,
            progress: BTreeMap::new(),
            uncommitted: VecDeque::new(),
            uncommitted_bytes: 0,
            rounds: VecDeque::new(),
            round_unsent: false,
            reads: Reads::default(),
            transfer: None,
            lease_high: Monotonic::ZERO,
            ticked_at: env.now,
            at_risk_since: None,
            send_due: true,
        }));
        self.membership_in_force(env);
        if let Role::Leader(leading) = &mut self.role {
            leading.begin_round(env.now);
        }
        self.append_own(Payload::Empty.encode());
        self.out.elected = Some((self.term, floor));
        self.advance_commit(env);
    }

    /// Keeps the list of followers in step with the membership in force.
    pub(super) fn membership_in_force(&mut self, env: &Env<'_>) {
        let members = self.membership().members();
        let (id, next) = (self.id, self.tail.last.0.next());
        let Role::Leader(leading) = &mut self.role else { return };
        leading.progress.retain(|peer, _| members.contains(peer));
        for peer in members {
            if peer != id {
                leading.progress.entry(peer).or_insert_with(|| Progress::new(env.now, next));
            }
        }
        leading.send_due = true;
    }

    fn append_own(&mut self, data: Bytes) -> LogIndex {
        let entry = Entry { term: self.term, index: self.tail.last.0.next(), data };
        let index = entry.index;
        if let Role::Leader(leading) = &mut self.role {
            leading.uncommitted.push_back((index, entry.data.len()));
            leading.uncommitted_bytes += entry.data.len();
            leading.send_due = true;
        }
        self.tail.append(entry);
        index
    }

    /// Appends a command. It may still be lost: whether it is committed shows when an entry at this index is (with this term,
    /// or with another one if it was lost). Never proposed again by itself.
    /// Errors: nothing was appended; the cause says where to go or when to come back.
    pub fn propose(
        &mut self,
        env: &mut Env<'_>,
        command: Bytes,
    ) -> Result<(Term, LogIndex), ProposeError> {
        let uncommitted_bytes_max = self.config.uncommitted_bytes_max;
        let leading = self.leading_for_proposal()?;
        let bytes = leading.uncommitted_bytes;
        let too_much = bytes > 0 && bytes + command.len() > uncommitted_bytes_max;
        if too_much || rare(Rare::ProposalRefused) {
            coverage::reached(Mark::ProposalRefusedOverloaded);
            return Err(ProposeError::Overloaded);
        }
        let index = self.append_own(Payload::Command(command).encode());
        self.advance_commit(env);
        Ok((self.term, index))
    }

    /// Appends a membership, which is in force at once (and no more if the entry is lost).
    /// Errors: as for `propose`; [`ProposeError::MembershipBusy`] while a change is uncommitted, no entry of this term is
    /// committed, or leases given under the membership before the present one are not covered;
    /// [`ProposeError::MembershipIllegal`] if it is not one legal step ([`Membership::check_step`]).
    pub fn propose_membership(
        &mut self,
        env: &mut Env<'_>,
        membership: Membership,
        context: Bytes,
    ) -> Result<(Term, LogIndex), ProposeError> {
        let first = self.leading_for_proposal()?.first;
        let own_commit = self.commit >= first || self.is_planted(PlantedBug::ChangeBeforeOwnCommit);
        let Role::Leader(leading) = &self.role else { return Err(ProposeError::NotLeader(None)) };
        if !own_commit
            || self.history.changed_at() > self.commit
            || !self.leases_covered(env, leading)
        {
            coverage::reached(Mark::MembershipChangeHadToWait);
            return Err(ProposeError::MembershipBusy);
        }
        self.history.current().check_step(&membership)?;
        let lease_high = self.bound_until(env, leading);
        let data = Payload::Membership { membership: membership.clone(), context }.encode();
        let index = self.append_own(data);
        self.history.append(index, membership);
        if let Role::Leader(leading) = &mut self.role {
            leading.lease_high = leading.lease_high.max(lease_high);
        }
        self.membership_in_force(env);
        self.advance_commit(env);
        Ok((self.term, index))
    }

    fn leading_for_proposal(&self) -> Result<&Leading, ProposeError> {
        match &self.role {
            Role::Leader(leading) if leading.transfer.is_some() => Err(ProposeError::Transferring),
            Role::Leader(leading) if self.failure().is_none() => Ok(leading),
            Role::Leader(_)
            | Role::Follower { .. }
            | Role::PreCandidate { .. }
            | Role::Candidate { .. } => Err(ProposeError::NotLeader(self.leader())),
        }
    }

    /// Commits what a quorum has.
    pub(super) fn advance_commit(&mut self, env: &mut Env<'_>) {
        let Role::Leader(leading) = &self.role else { return };
        let unsynced = self.is_planted(PlantedBug::CountOwnUnsynced);
        let own = if unsynced { self.tail.last.0 } else { self.tail.durable() };
        let reached = self.membership().reached(|id| {
            if id == self.id {
                return own;
            }
            leading.progress.get(&id).map_or(LogIndex::ZERO, |progress| progress.match_index)
        });
        let Some(reached) = reached else { return };
        let of_our_term = self.tail.term(env.log, reached) == Some(self.term);
        if reached > self.commit && (of_our_term || self.is_planted(PlantedBug::CommitByCounting)) {
            self.commit_to(env, reached);
        }
    }

    fn commit_to(&mut self, env: &mut Env<'_>, index: LogIndex) {
        self.commit = index;
        if let Role::Leader(leading) = &mut self.role {
            while let Some((_, bytes)) = leading.uncommitted.pop_front_if(|(at, _)| *at <= index) {
                leading.uncommitted_bytes -= bytes;
            }
            leading.send_due = true;
        }
        self.release_waiting_reads(env);
        let out_of_office = !self.history.current().voters.contains(&self.id);
        if out_of_office
            && self.history.changed_at() <= self.commit
            && !self.history.current().is_joint()
        {
            // Removed or demoted, and that is settled: the others learn of the commit, and elect one of themselves.
            coverage::reached(Mark::LeaderLeftItsRange);
            self.send_appends(env);
            self.become_follower(env, self.term, None);
        }
    }

    /// A follower has answered in our term.
    pub(super) fn heard_follower(
        &mut self,
        env: &mut Env<'_>,
        from: ReplicaId,
        incarnation: Incarnation,
        round: u64,
    ) {
        let Role::Leader(leading) = &mut self.role else { return };
        let began = leading.began(round);
        let Some(progress) = leading.progress.get_mut(&from) else { return };
        progress.heard(env.now, incarnation, round, began);
        self.confirm_reads();
    }

    pub(super) fn on_append_reply(
        &mut self,
        env: &mut Env<'_>,
        from: ReplicaId,
        match_index: LogIndex,
        commit: LogIndex,
    ) {
        let (last, truncated) = (self.tail.last.0, self.tail.truncated.0);
        let Role::Leader(leading) = &mut self.role else { return };
        let Some(progress) = leading.progress.get_mut(&from) else { return };
        if match_index > last {
            tracing::warn!(replica = %self.id, %from, %match_index, %last, "acknowledged what was never sent");
            return;
        }
        progress.commit_known = progress.commit_known.max(commit);
        progress.matched(match_index, truncated);
        leading.send_due = true;
        self.advance_commit(env);
        self.drive_transfer(env);
    }

    pub(super) fn on_append_refused(
        &mut self,
        env: &mut Env<'_>,
        from: ReplicaId,
        prev_index: LogIndex,
        hint: (LogIndex, Term),
    ) {
        let meet = self.last_at_or_below(env, hint.0.min(prev_index.prev()), hint.1);
        // What is truncated here is where a snapshot is needed; the next append finds that out.
        let next = meet.map_or(self.tail.truncated.0, |(index, _)| index.next());
        let Role::Leader(leading) = &mut self.role else { return };
        let Some(progress) = leading.progress.get_mut(&from) else { return };
        coverage::reached(Mark::LeaderWentBack);
        progress.refused(prev_index, next);
        leading.send_due = true;
    }

    /// Sends everybody what is due. Called once per `Ready`.
    pub(super) fn send_appends(&mut self, env: &Env<'_>) {
        let Role::Leader(leading) = &mut self.role else { return };
        if !std::mem::replace(&mut leading.send_due, false) {
            return;
        }
        let peers: Vec<ReplicaId> = leading.progress.keys().copied().collect();
        for peer in peers {
            self.send_entries(env, peer);
            self.send_empty_append(env, peer);
        }
    }

    /// Sends entries as far as flow control lets it.
    fn send_entries(&mut self, env: &Env<'_>, to: ReplicaId) {
        loop {
            let last = self.tail.last.0;
            let Role::Leader(leading) = &self.role else { return };
            let Some(progress) = leading.progress.get(&to) else { return };
            let probes = progress.state == ProgressState::Probe;
            if !progress.may_send(&self.config) || (progress.next > last && !probes) {
                return;
            }
            let next = progress.next;
            if probes && next <= last && rare(Rare::SnapshotThoughLogHasIt) {
                return self.want_snapshot(env, to);
            }
            let known = self.tail.term(env.log, next.prev()).is_some();
            let one = rare(Rare::OneEntryPerAppend);
            let bytes_max = if one { 1 } else { self.config.append_bytes_max };
            let read = self.tail.entries(env.log, next, last, bytes_max);
            let Some(entries) = self.checked(read) else { return };
            if !known || (entries.is_empty() && next <= last) {
                coverage::reached(Mark::FollowerBehindLog);
                self.want_snapshot(env, to);
                return;
            }
            self.send_append(env, to, next.prev(), entries);
        }
    }

    /// Sends an append without entries if a notice, a probe or a confirmation is due and nothing else has carried it.
    fn send_empty_append(&mut self, env: &Env<'_>, to: ReplicaId) {
        let truncated = self.tail.truncated.0;
        let Role::Leader(leading) = &self.role else { return };
        let Some(progress) = leading.progress.get(&to) else { return };
        if progress.ping && progress.state == ProgressState::Probe && progress.next <= truncated {
            // Truncated while its answer was awaited; other pings may keep `tick` from finding that out.
            coverage::reached(Mark::ProbeMetTruncation);
            self.want_snapshot(env, to);
        }
        let Role::Leader(leading) = &self.role else { return };
        let Some(progress) = leading.progress.get(&to) else { return };
        let notice = progress.state == ProgressState::Replicate
            && progress.commit_sent < self.commit
            && !rare(Rare::CommitNoticeWithheld);
        if !progress.ping && !notice {
            return;
        }
        let prev_index = match progress.state {
            ProgressState::Replicate | ProgressState::Probe => progress.next.prev(),
            ProgressState::Snapshot => truncated,
        };
        self.send_append(env, to, prev_index.max(truncated), Vec::new());
    }

    fn send_append(
        &mut self,
        env: &Env<'_>,
        to: ReplicaId,
        prev_index: LogIndex,
        entries: Vec<Entry>,
    ) {
        let prev_term =
            self.tail.term(env.log, prev_index).expect("the entry before an append is in the log");
        let (commit, durable) = (self.commit, self.tail.durable());
        let Role::Leader(leading) = &mut self.role else { return };
        let context = leading.round();
        leading.round_unsent = false;
        let Some(progress) = leading.progress.get_mut(&to) else { return };
        match entries.last().map(|entry| entry.index) {
            Some(last) => {
                let bytes = entries.iter().map(|entry| entry.data.len()).sum();
                progress.sent_entries(last, bytes);
            }
            None => progress.sent_empty(),
        }
        progress.ping = false;
        progress.sent_at = env.now;
        progress.commit_sent = progress.commit_sent.max(commit);
        self.send_now(
            to,
            Body::Append { prev_index, prev_term, entries, commit, durable, context },
        );
    }

    /// Whether something about `peer` is unsettled, so that it is contacted again and again.
    fn is_unsettled(
        &self,
        env: &Env<'_>,
        leading: &Leading,
        peer: ReplicaId,
        progress: &Progress,
    ) -> bool {
        progress.match_index < self.tail.last.0
            || progress.commit_known < self.commit
            || progress.round < leading.reads.newest_round()
            || self.is_unconfirmed(env, peer, progress)
    }

    /// Whether its store promises, but it is not known whether the replica is bound by that.
    fn is_unconfirmed(&self, env: &Env<'_>, peer: ReplicaId, progress: &Progress) -> bool {
        let promise = env.support.received(peer).filter(|promise| promise.until > env.now);
        promise.is_some_and(|promise| !progress.is_bound_by(&promise))
    }

    fn contact_due(&self, env: &Env<'_>, peer: ReplicaId, progress: &Progress) -> Monotonic {
        let promised = env.support.received(peer).is_some_and(|promise| promise.until > env.now);
        let heard = progress.heard_at.plus(self.config.election_timeout) > env.now;
        let factor = if promised || heard { 1 } else { SILENT_PEER_FACTOR };
        progress.sent_at.plus(self.config.heartbeat_interval * factor)
    }

    pub(super) fn tick_leader(&mut self, env: &mut Env<'_>) {
        self.drive_transfer(env);
        let Role::Leader(leading) = &self.role else { return };
        let at_risk = self.bound_until(env, leading) <= env.now;
        let at_risk_since = at_risk.then(|| leading.at_risk_since.unwrap_or(env.now));
        if at_risk_since.is_some_and(|since| env.now >= self.quorum_lost_at(leading, since)) {
            tracing::info!(replica = %self.id, term = %self.term, "no quorum heard of");
            coverage::reached(Mark::LeaderLostQuorum);
            self.become_follower(env, self.term, None);
            return;
        }
        let mut due = Vec::new();
        let mut unconfirmed = false;
        for (peer, progress) in &leading.progress {
            let unsettled = at_risk || self.is_unsettled(env, leading, *peer, progress);
            if unsettled && env.now >= self.contact_due(env, *peer, progress) {
                due.push(*peer);
                unconfirmed |= self.is_unconfirmed(env, *peer, progress);
            }
        }
        let reminder = self.config.election_timeout * SNAPSHOT_REMINDER_TIMEOUTS;
        let Role::Leader(leading) = &mut self.role else { return };
        leading.ticked_at = env.now;
        leading.at_risk_since = at_risk_since;
        if unconfirmed {
            coverage::reached(Mark::PromiseConfirmedAnew);
            leading.begin_round(env.now);
        }
        for peer in due {
            let progress = leading.progress.get_mut(&peer).expect("collected from the same map");
            progress.poke();
            leading.send_due = true;
            if progress.state == ProgressState::Snapshot
                && env.now >= progress.snapshot_asked_at.plus(reminder)
            {
                progress.snapshot_asked_at = env.now;
                coverage::reached(Mark::SnapshotAskedForAgain);
                self.out.snapshots_wanted.push(peer);
            }
        }
    }

    /// When a quorum has been silent for an election timeout (check-quorum), if no quorum has been bound to us `since` then: that
    /// long we have asked everybody.
    fn quorum_lost_at(&self, leading: &Leading, since: Monotonic) -> Monotonic {
        let heard = self.membership().reached(|id| {
            if id == self.id {
                return Monotonic::MAX;
            }
            leading.progress.get(&id).map_or(Monotonic::ZERO, |progress| progress.heard_at)
        });
        heard.unwrap_or(Monotonic::ZERO).max(since).plus(self.config.election_timeout)
    }

    pub(super) fn wake_leader(&self, env: &Env<'_>, leading: &Leading) -> Monotonic {
        if leading.progress.is_empty() {
            return Monotonic::MAX;
        }
        let bound_until = self.bound_until(env, leading);
        let at_risk = bound_until <= env.now;
        let mut wake = if at_risk {
            let since = leading.at_risk_since.unwrap_or(leading.ticked_at);
            self.quorum_lost_at(leading, since)
        } else {
            bound_until
        };
        if let Some(transfer) = &leading.transfer {
            wake = wake.min(transfer.wake_at(self.config.heartbeat_interval));
        }
        for (peer, progress) in &leading.progress {
            if at_risk || self.is_unsettled(env, leading, *peer, progress) {
                wake = wake.min(self.contact_due(env, *peer, progress));
            }
            match env.support.received(*peer).filter(|promise| promise.until > env.now) {
                // When it is renewed we are not told.
                Some(promise) => wake = wake.min(promise.until),
                None => wake = wake.min(leading.ticked_at.plus(self.config.heartbeat_interval)),
            }
        }
        wake
    }

    /// The followers as the leader sees them, by id; empty when we do not lead.
    pub fn progress(&self) -> Vec<PeerStatus> {
        match &self.role {
            Role::Leader(leading) => {
                leading.progress.iter().map(|(id, progress)| progress.status(*id)).collect()
            }
            Role::Follower { .. } | Role::PreCandidate { .. } | Role::Candidate { .. } => {
                Vec::new()
            }
        }
    }
}
