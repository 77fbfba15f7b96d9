//! Machine: elections. Who may ask, who may grant, who wins.
//!
//! A follower whose leader is silent asks for pre-votes first (thesis 9.6), so that a replica that cannot win does not disturb.
//! A candidate asks for votes only when its own vote, its term and its log are durable, and counts its own vote then: were it to
//! crash and come back with a shorter log, votes granted to the longer one must not count for it.
//!
//! A voter is *bound* while its store's promise to the leader it acknowledged last is unexpired ([`Raft::is_bound`]); then it
//! neither campaigns nor grants, nor lets the request raise its term. A leader is bound by itself. A promise is about all groups of a
//! store and is kept up while that lives: a leader that does not lead any more says so by a later term ([`Raft::release`]), and for one
//! whose replica was removed its store says so when it is asked ([`Raft::leader_departed`]).
//!
//! # How soon
//!
//! When a leader's store dies, the promises to it run out at about the same time everywhere, for all its ranges. They are what
//! tells that it is dead, so nobody waits longer than that, and everything below only keeps candidates out of each other's way:
//!
//! ```text
//!   leader dies      X is free   Y is free
//!   ────┼────────────────┼───────────┼──────────────────────────────►
//!       X:                  ask ──►  : deferred, granted when free     Y lets X go first for a while
//! ```
//!
//! - Who is free asks after a small random part of the election timeout.
//! - A voter that will be free soon (while promises are renewed it never will be) keeps the request and answers it then.
//! - Who grants a pre-vote lets the other go first for a third of an election timeout. Of two that ask at once the one with
//!   the longer log, then the greater id, goes on; the other gives up asking. (Both would vote for themselves.)
//! - Who is asked by somebody whose log is too short, and is free, asks soon: it can win.
//! - After a split vote the next try comes soon.
//!
//! All of this is about pre-votes and when they are asked for: whatever it does, votes are granted by the same rules.
//!
//! INVARIANT: at most one candidate wins a term. A winner's floor is at or above every read served in former terms.

use super::core::{Binding, Raft, Role};
use super::quorum::Tally;
use super::*;
use coverage::Mark;
use std::collections::BTreeMap;
use std::time::Duration;

/// A vote cast.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ballot {
    /// With the voter's read floor.
    Granted(Timestamp),
    Refused,
}

/// A request for a pre-vote that waits. See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeferredPreVote {
    from: ReplicaId,
    term: Term,
    last: (Term, LogIndex),
}

/// Of the random part of an election timeout, so much is used when a promise has run out.
const LAPSED_JITTER_DIVISOR: u32 = 8;
/// A voter that is free within this part of an election timeout defers its answer. Below what is left of a promise that is being
/// renewed.
const DEFER_DIVISOR: u32 = 2;
/// Who granted a pre-vote waits for this part of an election timeout.
const YIELD_DIVISOR: u32 = 3;

impl Raft {
    /// Asks to lead at once, unless a promise forbids it or this replica cannot vote. A single voter then leads as soon as its
    /// own vote is durable.
    pub fn campaign(&mut self, env: &mut Env<'_>) {
        let leads = matches!(self.role, Role::Leader(_));
        if self.failure().is_some() || leads || !self.is_promotable() || self.is_promised(env) {
            return;
        }
        self.pre_campaign(env);
    }

    /// Whether it may stand: it counts in the membership in force, or in the one that is committed, or with somebody whose log is too short
    /// to lead. Whoever has appended its own removal may be the only one with a log that can win, and so may a learner: whom another counts
    /// already, by an entry that the learner lacks, and that may never be committed. It then leads without counting itself (thesis 4.2.2),
    /// until a quorum has its log.
    pub(super) fn is_promotable(&self) -> bool {
        self.summoned
            || self.membership().is_voter(self.id)
            || self.history.at(self.commit).is_voter(self.id)
    }

    /// Whether it asks for pre-votes when it hears of no leader. A former leader does even when it has no vote any more: it cannot
    /// win, but those bound to it learn that it does not lead ([`Raft::release`]).
    pub(super) fn asks(&self) -> bool {
        self.is_promotable() || self.renounces
    }

    /// When an election is due: after the timeout, and not while promises hold.
    pub(super) fn due(&self, env: &Env<'_>) -> Monotonic {
        let promised = match self.promised_until(env) {
            Monotonic::ZERO => Monotonic::ZERO,
            // Everybody's promises end at about the same time: without the random part they would all ask at once.
            until => until.plus(self.jitter / LAPSED_JITTER_DIVISOR),
        };
        let due = match &self.role {
            // The promise tells that the leader is dead; that we have heard of it lately is no news.
            Role::Follower { leader: Some(_), heard_at } if promised > Monotonic::ZERO => {
                promised.max(heard_at.plus(self.config.election_timeout))
            }
            Role::Follower { .. }
            | Role::PreCandidate { .. }
            | Role::Candidate { .. }
            | Role::Leader(_) => self.election_due.max(promised),
        };
        due.max(self.yields_until).max(env.support.no_vote_before())
    }

    /// From when on, as things stand, we may help to elect another leader.
    pub(super) fn free_at(&self, env: &Env<'_>) -> Monotonic {
        let free = self.promised_until(env).max(env.support.no_vote_before());
        match &self.role {
            Role::Leader(_) => Monotonic::MAX,
            Role::Follower { leader: Some(_), heard_at } => {
                free.max(heard_at.plus(self.config.election_timeout))
            }
            Role::Follower { leader: None, .. }
            | Role::PreCandidate { .. }
            | Role::Candidate { .. } => free,
        }
    }

    /// Answers the request that has waited, if we are free now.
    pub(super) fn answer_deferred(&mut self, env: &mut Env<'_>) {
        if let Some(DeferredPreVote { from, term, last }) = self.deferred
            && env.now >= self.free_at(env)
        {
            coverage::reached(Mark::PreVoteAnsweredLate);
            self.deferred = None;
            self.on_pre_vote(env, from, term, last, false);
        }
    }

    /// Lets somebody else go first; not again and again.
    fn yield_to_other(&mut self, env: &Env<'_>) {
        if env.now >= self.yields_until {
            self.yields_until = env.now.plus(self.config.election_timeout / YIELD_DIVISOR);
        }
    }

    /// Draws a new timeout, between one and two of the configured ones from now.
    pub(super) fn rearm(&mut self, env: &mut Env<'_>) {
        self.jitter = self.random_below(env, self.config.election_timeout);
        self.election_due = env.now.plus(self.config.election_timeout + self.jitter);
    }

    fn random_below(&self, env: &mut Env<'_>, limit: Duration) -> Duration {
        let nanos = u64::try_from(limit.as_nanos()).expect("timeouts are far below 2^64 ns");
        Duration::from_nanos((env.random)() % nanos.max(1))
    }

    /// Until when our store has promised the store of the leader we acknowledged last; zero if never, or if that leader
    /// does not count any more (it holds no lease since it appended that). Uninitialised, we do not know who counts, and may
    /// be counted: then every leader does.
    fn promised_until(&self, env: &Env<'_>) -> Monotonic {
        let membership = self.membership();
        let counts = |id| membership.voters.is_empty() || membership.is_voter(id);
        let binding = self.binding.filter(|binding| counts(binding.leader));
        let given =
            binding.and_then(|binding| env.support.given(binding.leader, binding.incarnation));
        given.map_or(Monotonic::ZERO, |(until, _)| until)
    }

    /// A later term in a message of the leader we are bound to says that it does not lead the term that we acknowledged any more,
    /// and never will: that frees us. Its store's promise would not end by itself, being about all groups.
    ///
    /// A term that it proposed itself says as much: who asks for pre-votes does not lead its own term, and leads no other without
    /// standing for it. One that it agreed to says nothing: a candidate agrees to terms above the one that it then wins.
    pub(super) fn release(
        &mut self,
        env: &mut Env<'_>,
        incarnation: Incarnation,
        message: &Message,
    ) {
        let Message { from, term, body, .. } = message;
        let agreed = matches!(body, Body::PreVoteReply { granted: true });
        let speaks = !agreed || self.is_planted(PlantedBug::AgreedTermReleases);
        let gave_up = self.binding.is_some_and(|binding| {
            binding.leader == *from && incarnation >= binding.incarnation && *term > binding.term
        });
        if gave_up && speaks {
            coverage::reached(Mark::VoterReleased);
            self.unbind(env, *from);
        }
    }

    /// The replica of that number is no more, says its store in that incarnation. It served nothing after that, and leads nothing: we are
    /// free of it. A later incarnation may not know of the removal yet, and lead once more.
    pub fn leader_departed(
        &mut self,
        env: &mut Env<'_>,
        leader: ReplicaId,
        incarnation: Incarnation,
    ) {
        let bound = self
            .binding
            .is_some_and(|binding| binding.leader == leader && incarnation >= binding.incarnation);
        if bound {
            coverage::reached(Mark::VoterReleasedByDeparture);
            self.unbind(env, leader);
        }
    }

    /// Whose lease a promise of our store may be part of.
    pub fn bound_to(&self) -> Option<ReplicaId> {
        self.binding.map(|binding| binding.leader)
    }

    fn unbind(&mut self, env: &Env<'_>, from: ReplicaId) {
        self.keep_bound_floor(env);
        self.binding = None;
        if let Role::Follower { leader, .. } = &mut self.role
            && *leader == Some(from)
        {
            *leader = None;
        }
    }

    fn is_promised(&self, env: &Env<'_>) -> bool {
        env.now < self.promised_until(env) || env.now < env.support.no_vote_before()
    }

    /// Whether this replica must not help to elect a leader of `term`.
    ///
    /// A blessing lifts the binding to leaders of terms before: the leader of `term - 1` has stopped, and the ones before had
    /// lost their leases when it was elected. The wait after a restart is lifted with it: leaders acknowledged before the
    /// restart are of terms that are durable here, so before `term`.
    pub(super) fn is_bound(&self, env: &Env<'_>, blessed: bool, term: Term) -> bool {
        match &self.role {
            Role::Leader(leading) => {
                !(blessed && term == self.term.next() && leading.transfer.is_some())
            }
            _ if blessed && self.binding.is_none_or(|binding| binding.term < term) => false,
            Role::Follower { leader: Some(_), heard_at } => {
                self.is_promised(env) || env.now < heard_at.plus(self.config.election_timeout)
            }
            Role::Follower { leader: None, .. }
            | Role::PreCandidate { .. }
            | Role::Candidate { .. } => self.is_promised(env),
        }
    }

    /// Whether it would help to elect another leader that nobody has blessed: no promise binds it.
    pub fn is_free(&self, env: &Env<'_>) -> bool {
        !self.is_bound(env, false, self.term.next())
    }

    /// Follows from now on, in `term`, which is ours or later.
    pub(super) fn become_follower(
        &mut self,
        env: &mut Env<'_>,
        term: Term,
        leader: Option<ReplicaId>,
    ) {
        assert!(term >= self.term, "replica {}: term {} after {}", self.id, term, self.term);
        if term > self.term {
            self.term = term;
            self.vote = None;
        }
        self.asked.clear();
        if matches!(self.role, Role::Leader(_)) {
            self.keep_own_floor(env);
            self.renounces = true;
            tracing::info!(replica = %self.id, term = %self.term, "leader stepped down");
            coverage::reached(Mark::LeaderSteppedDown);
            // An election that the owner never heard of needs no end.
            if self.out.elected.take().is_none() {
                self.out.deposed = true;
            }
            self.out.read_indexes.clear();
        }
        self.role = Role::Follower { leader, heard_at: env.now };
        self.rearm(env);
    }

    /// Records `leader` (in that incarnation of its store) as the leader of our term. From now on our store's promise binds us.
    pub(super) fn acknowledge(
        &mut self,
        env: &mut Env<'_>,
        leader: ReplicaId,
        incarnation: Incarnation,
    ) {
        assert!(
            !matches!(self.role, Role::Leader(_)),
            "replica {}: two leaders in term {}: {leader} and ourselves",
            self.id,
            self.term
        );
        match &mut self.role {
            Role::Follower { leader: known @ Some(_), heard_at } => {
                assert_eq!(
                    *known,
                    Some(leader),
                    "replica {}: two leaders in term {}",
                    self.id,
                    self.term
                );
                *heard_at = env.now;
                self.election_due = env.now.plus(self.config.election_timeout + self.jitter);
            }
            Role::Follower { leader: None, .. }
            | Role::PreCandidate { .. }
            | Role::Candidate { .. }
            | Role::Leader(_) => self.become_follower(env, self.term, Some(leader)),
        }
        let binding = Binding { leader, incarnation, term: self.term };
        self.renounces = false;
        self.summoned = false;
        self.deferred = None;
        if self.binding != Some(binding) {
            self.keep_bound_floor(env);
            self.binding = Some(binding);
        }
    }

    pub(super) fn pre_campaign(&mut self, env: &mut Env<'_>) {
        if self.is_planted(PlantedBug::NoPreVote) {
            return self.stand(env, None);
        }
        self.asked.clear();
        self.role = Role::PreCandidate { votes: BTreeMap::from([(self.id, true)]) };
        self.rearm(env);
        // A pre-vote costs nothing to repeat, and others' promises may end a little later than ours.
        self.election_due = env.now.plus((self.config.election_timeout + self.jitter) / 2);
        let (last_index, last_term) = self.tail.last;
        let term = self.term.next();
        for to in self.membership().all_voters() {
            if to != self.id {
                let body = Body::PreVote { last_index, last_term, blessed: false };
                self.out.now.push(Message { from: self.id, to, term, body });
            }
        }
        self.judge_pre_votes(env);
    }

    fn judge_pre_votes(&mut self, env: &mut Env<'_>) {
        let Role::PreCandidate { votes } = &self.role else { return };
        if !self.is_promotable() {
            return;
        }
        match self.membership().tally(|id| votes.get(&id).copied()) {
            Tally::Won => self.stand(env, None),
            Tally::Lost => {
                coverage::reached(Mark::PreVotesLost);
                self.role = Role::Follower { leader: None, heard_at: env.now };
            }
            Tally::Open => {}
        }
    }

    /// Stands for election in the next term.
    pub(super) fn stand(&mut self, env: &mut Env<'_>, blessing: Option<Timestamp>) {
        self.asked.clear();
        self.term = self.term.next();
        self.vote = Some(self.id);
        self.role = Role::Candidate { votes: BTreeMap::new(), blessing };
        self.rearm(env);
        tracing::debug!(replica = %self.id, term = %self.term, blessed = blessing.is_some(), "stood for election");
        let (last_index, last_term) = self.tail.last;
        for to in self.membership().all_voters() {
            if to != self.id {
                let body = Body::Vote { last_index, last_term, blessed: blessing.is_some() };
                self.send_vote(to, body);
            }
        }
        self.count_own_vote(env);
    }

    fn send_vote(&mut self, to: ReplicaId, body: Body) {
        if self.is_planted(PlantedBug::VoteBeforeSync) {
            self.send_now(to, body);
        } else {
            self.send_after(to, body);
        }
    }

    /// Counts our own vote once it is durable.
    pub(super) fn count_own_vote(&mut self, env: &mut Env<'_>) {
        let durable =
            self.durable_state.term == self.term && self.durable_state.vote == Some(self.id);
        let own = Ballot::Granted(self.read_floor(env));
        let counts = durable || self.is_planted(PlantedBug::VoteBeforeSync);
        if let Role::Candidate { votes, .. } = &mut self.role
            && counts
        {
            votes.entry(self.id).or_insert(own);
            self.judge_votes(env);
        }
    }

    fn judge_votes(&mut self, env: &mut Env<'_>) {
        let Role::Candidate { votes, blessing } = &self.role else { return };
        let tally = self.membership().tally(|id| {
            votes.get(&id).map(|ballot| match ballot {
                Ballot::Granted(_) => true,
                Ballot::Refused => false,
            })
        });
        let floors = votes.values().filter_map(|ballot| match ballot {
            Ballot::Granted(floor) => Some(*floor),
            Ballot::Refused => None,
        });
        // The leader that blessed us knew the floors of all leaders before it; what was promised to it, it did not use up.
        let floor = blessing.unwrap_or_else(|| floors.max().unwrap_or(Timestamp::MIN));
        match tally {
            Tally::Won => self.become_leader(env, floor),
            Tally::Lost => {
                coverage::reached(Mark::ElectionLost);
                self.role = Role::Follower { leader: None, heard_at: env.now };
                self.election_due = env.now.plus(self.jitter / LAPSED_JITTER_DIVISOR);
            }
            Tally::Open => {}
        }
    }

    /// Whether a log that ends with (term, index) is at least as up to date as ours (thesis 3.6.1).
    fn is_up_to_date(&self, last: (Term, LogIndex)) -> bool {
        let (index, term) = self.tail.last;
        last >= (term, index)
    }

    pub(super) fn on_pre_vote(
        &mut self,
        env: &mut Env<'_>,
        from: ReplicaId,
        term: Term,
        last: (Term, LogIndex),
        blessed: bool,
    ) {
        // It would get our vote in a term that we know already, but have not voted in.
        let unspent = term == self.term && self.vote.is_none() && self.leader().is_none();
        let open = term > self.term || unspent;
        let bound = self.is_bound(env, blessed, term);
        let up_to_date = self.is_up_to_date(last);
        if open && !bound && up_to_date {
            let body = Body::PreVoteReply { granted: true };
            self.out.now.push(Message { from: self.id, to: from, term, body });
            self.give_way(env, from, last);
            return;
        }
        let free_at = self.free_at(env);
        if open && bound && up_to_date && env.now < free_at {
            let patience = self.config.election_timeout / DEFER_DIVISOR;
            if free_at <= env.now.plus(patience) {
                coverage::reached(Mark::PreVoteDeferred);
                self.deferred = Some(DeferredPreVote { from, term, last });
                return;
            }
        }
        coverage::reached(Mark::PreVoteRefused);
        self.send_now(from, Body::PreVoteReply { granted: false });
        self.remind(from);
        if open && !bound && matches!(self.role, Role::Follower { .. }) {
            coverage::reached(Mark::PreVoteRefusedByLog);
            let soon = env.now.plus(self.jitter / LAPSED_JITTER_DIVISOR);
            self.election_due = self.election_due.min(soon);
            if !self.is_promotable() && !self.membership().voters.is_empty() {
                coverage::reached(Mark::LearnerSummoned);
                self.summoned = true;
            }
        }
    }

    /// `from` has our pre-vote. Do we still want to lead ourselves?
    fn give_way(&mut self, env: &mut Env<'_>, from: ReplicaId, last: (Term, LogIndex)) {
        let (index, term) = self.tail.last;
        match &self.role {
            Role::PreCandidate { .. } if (last, from) < ((term, index), self.id) => {}
            Role::PreCandidate { .. } => {
                coverage::reached(Mark::PreCandidateGaveWay);
                self.role = Role::Follower { leader: None, heard_at: env.now };
                self.yield_to_other(env);
            }
            Role::Follower { .. } => self.yield_to_other(env),
            Role::Candidate { .. } | Role::Leader(_) => {}
        }
    }

    pub(super) fn on_pre_vote_reply(
        &mut self,
        env: &mut Env<'_>,
        from: ReplicaId,
        term: Term,
        granted: bool,
    ) {
        let next = self.term.next();
        if let Role::PreCandidate { votes } = &mut self.role
            && (!granted || term == next)
        {
            votes.insert(from, granted);
            self.judge_pre_votes(env);
        }
    }

    pub(super) fn on_vote(
        &mut self,
        env: &mut Env<'_>,
        from: ReplicaId,
        last: (Term, LogIndex),
        blessed: bool,
    ) {
        if self.is_bound(env, blessed, self.term) {
            coverage::reached(Mark::VoteRefusedInTerm);
            return;
        }
        let free = match self.vote {
            Some(vote) => vote == from,
            None => self.leader().is_none(),
        };
        let granted = free && self.is_up_to_date(last);
        if granted {
            self.vote = Some(from);
            self.role = Role::Follower { leader: None, heard_at: env.now };
            self.rearm(env);
        }
        let read_floor = if granted { self.read_floor(env) } else { Timestamp::MIN };
        self.send_vote(from, Body::VoteReply { granted, read_floor });
    }

    pub(super) fn on_vote_reply(&mut self, env: &mut Env<'_>, from: ReplicaId, ballot: Ballot) {
        if let Role::Candidate { votes, .. } = &mut self.role {
            votes.insert(from, ballot);
            self.judge_votes(env);
        }
    }
}
