//! Machine: [`Raft`] itself. Its state, the order in which a message is judged, and what a `Ready` is made of.
//!
//! Each role's behaviour has its own room: `election` (followers that want to lead, voters), `follow` (followers), `lead`
//! (leaders), and beside them `lease`, `read_index`, `transfer`, `snapshot`. `tail` knows what of the log is durable.
//!
//! # Invariants
//!
//! - `applied <= handed <= min(commit, durable) <= last`: nothing is applied that a crash here could forget (killer S03).
//! - Term and vote never go back; a vote is never changed within a term.
//! - What promises durability leaves through `messages_after`, or is counted in [`Raft::persisted`].
//!
//! Limits: a group whose log cannot be read ([`Raft::failure`]) stops altogether; its owner must give the replica up.

use super::election::{Ballot, DeferredPreVote};
use super::lead::{Leading, NO_ROUND};
use super::membership::MembershipHistory;
use super::payload::membership_of;
use super::tail::Tail;
use super::*;
use coverage::{Mark, Rare, rare};
use std::collections::BTreeMap;
use std::time::Duration;
use storage::StorageError;

/// How many payload bytes are read at once when a log is opened.
const OPEN_BYTES_MAX: usize = 1 << 20;

/// What this replica does at present.
#[derive(Debug)]
pub(super) enum Role {
    Follower {
        leader: Option<ReplicaId>,
        /// When the leader was last heard of (or the role began).
        heard_at: Monotonic,
    },
    PreCandidate {
        votes: BTreeMap<ReplicaId, bool>,
    },
    Candidate {
        votes: BTreeMap<ReplicaId, Ballot>,
        /// The former leader has stopped for good, having served no read above.
        blessing: Option<Timestamp>,
    },
    Leader(Box<Leading>),
}

/// The leader that this replica has acknowledged last: its store's promise to that store binds the replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Binding {
    pub(super) leader: ReplicaId,
    pub(super) incarnation: Incarnation,
    pub(super) term: Term,
}

/// What the next `Ready` will carry.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) now: Vec<Message>,
    pub(super) after: Vec<Message>,
    pub(super) snapshots_wanted: Vec<ReplicaId>,
    pub(super) read_indexes: Vec<(u64, LogIndex)>,
    pub(super) elected: Option<(Term, Timestamp)>,
    pub(super) deposed: bool,
}

/// One replica of one group. See the module's essay.
#[derive(Debug)]
pub struct Raft {
    pub(super) config: RaftConfig,
    pub(super) id: ReplicaId,
    pub(super) term: Term,
    pub(super) vote: Option<ReplicaId>,
    pub(super) commit: LogIndex,
    /// The hard state last handed over, and the last one that is durable.
    written: HardState,
    pub(super) durable_state: HardState,
    pub(super) history: MembershipHistory,
    pub(super) tail: Tail,
    /// Handed out for application; applied.
    handed: LogIndex,
    pub(super) applied: LogIndex,
    pub(super) role: Role,
    pub(super) binding: Option<Binding>,
    /// We have led, and do not know who leads now: others may still be bound to us.
    pub(super) renounces: bool,
    /// Somebody who counts us, though we do not, wants to lead and cannot, as our log is longer; and since then nobody has led.
    pub(super) summoned: bool,
    /// At or above every read bound recorded for leaders acknowledged before the present one.
    pub(super) floor: Timestamp,
    /// Not before then an election, and the random part of that.
    pub(super) election_due: Monotonic,
    pub(super) jitter: Duration,
    /// Until then somebody goes first whom we have granted a pre-vote.
    pub(super) yields_until: Monotonic,
    /// A request for a pre-vote that came shortly before we are free; answered then.
    pub(super) deferred: Option<DeferredPreVote>,
    pub(super) out: Outbox,
    /// Read indexes asked of the leader: token on the wire to the owner's context.
    pub(super) asked: BTreeMap<u64, u64>,
    failure: Option<StorageError>,
}

impl Raft {
    /// A replica as its durable state has it. `membership`: as of the truncated index, or of any later one that is applied; the
    /// entries after the truncated index are scanned for later ones. `truncated` and `last`: index and term (equal for an empty
    /// log). `applied`: the state machine's.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        config: RaftConfig,
        id: ReplicaId,
        hard_state: HardState,
        membership: Membership,
        truncated: (LogIndex, Term),
        last: (LogIndex, Term),
        applied: LogIndex,
        env: &mut Env<'_>,
    ) -> Raft {
        assert!(
            truncated.0 <= applied,
            "replica {id}: truncated to {}, applied only {applied}",
            truncated.0
        );
        assert!(
            applied <= last.0,
            "replica {id}: applied {applied}, but the log ends at {}",
            last.0
        );
        let commit = hard_state.commit.min(last.0).max(applied);
        let term = hard_state.term.max(last.1);
        let vote = if term == hard_state.term { hard_state.vote } else { None };
        let mut raft = Raft {
            config,
            id,
            term,
            vote,
            commit,
            written: HardState { term, vote, commit },
            durable_state: hard_state,
            history: MembershipHistory::new(membership),
            tail: Tail::new(truncated, last),
            handed: applied,
            applied,
            role: Role::Follower { leader: None, heard_at: Monotonic::ZERO },
            binding: None,
            renounces: false,
            summoned: false,
            floor: env.support.restart_floor(),
            election_due: Monotonic::MAX,
            jitter: Duration::ZERO,
            yields_until: Monotonic::ZERO,
            deferred: None,
            out: Outbox::default(),
            asked: BTreeMap::new(),
            failure: None,
        };
        raft.scan_memberships(env);
        raft.rearm(env);
        raft
    }

    fn scan_memberships(&mut self, env: &Env<'_>) {
        let mut first = self.tail.truncated.0.next();
        while first <= self.tail.last.0 {
            let read = self.tail.entries(env.log, first, self.tail.last.0, OPEN_BYTES_MAX);
            let Some(entries) = self.checked(read) else { return };
            let Some(end) = entries.last().map(|entry| entry.index) else {
                self.fail(StorageError::Corrupt(format!(
                    "raft log has no entry {first}, its last is {}",
                    self.tail.last.0
                )));
                return;
            };
            for entry in &entries {
                let membership = membership_of(entry);
                if let Some(Some(membership)) = self.checked(membership) {
                    self.history.append(entry.index, membership);
                }
            }
            first = end.next();
        }
        self.history.settle(self.applied);
    }

    /// Judges one message of a peer whose store's incarnation is `from_incarnation`. Late, duplicated and reordered messages
    /// are welcome; a message for another replica is dropped.
    pub fn step(&mut self, env: &mut Env<'_>, from_incarnation: Incarnation, message: Message) {
        if self.failure.is_some() || message.to != self.id || message.from == self.id {
            return;
        }
        self.release(env, from_incarnation, &message);
        if message.term < self.term {
            self.step_stale(env, &message);
            return;
        }
        if message.term > self.term {
            let leader = match &message.body {
                // Neither a proposed term nor an unbound voter's agreement to it changes ours.
                Body::PreVote { .. } | Body::PreVoteReply { granted: true } => None,
                Body::Vote { blessed, .. } if self.is_bound(env, *blessed, message.term) => {
                    coverage::reached(Mark::VoteRefusedByPromise);
                    return;
                }
                Body::Append { .. } => Some(Some(message.from)),
                Body::Vote { .. }
                | Body::PreVoteReply { granted: false }
                | Body::VoteReply { .. }
                | Body::AppendReply { .. }
                | Body::AppendRefused { .. }
                | Body::SnapshotReply { .. }
                | Body::TimeoutNow { .. }
                | Body::ReadIndex { .. }
                | Body::ReadIndexReply { .. } => Some(None),
            };
            if let Some(leader) = leader {
                self.become_follower(env, message.term, leader);
            }
        }
        self.dispatch(env, from_incarnation, message);
    }

    fn dispatch(&mut self, env: &mut Env<'_>, incarnation: Incarnation, message: Message) {
        let Message { from, term, body, .. } = message;
        match body {
            Body::PreVote { last_index, last_term, blessed } => {
                self.on_pre_vote(env, from, term, (last_term, last_index), blessed);
            }
            Body::PreVoteReply { granted } => self.on_pre_vote_reply(env, from, term, granted),
            Body::Vote { last_index, last_term, blessed } => {
                self.on_vote(env, from, (last_term, last_index), blessed);
            }
            Body::VoteReply { granted, read_floor } => {
                let ballot = if granted { Ballot::Granted(read_floor) } else { Ballot::Refused };
                self.on_vote_reply(env, from, ballot);
            }
            Body::Append { prev_index, prev_term, entries, commit, durable: _, context } => {
                self.acknowledge(env, from, incarnation);
                self.on_append(env, from, (prev_index, prev_term), entries, commit, context);
            }
            Body::AppendReply { match_index, commit, context } => {
                self.heard_follower(env, from, incarnation, context);
                self.on_append_reply(env, from, match_index, commit);
            }
            Body::AppendRefused { prev_index, hint_index, hint_term, context } => {
                self.heard_follower(env, from, incarnation, context);
                self.on_append_refused(env, from, prev_index, (hint_index, hint_term));
            }
            Body::SnapshotReply { index, accepted } => {
                self.heard_follower(env, from, incarnation, NO_ROUND);
                self.on_snapshot_reply(env, from, index, accepted);
            }
            Body::TimeoutNow { read_high } => self.on_timeout_now(env, from, read_high),
            Body::ReadIndex { context } => self.on_read_index(env, from, context),
            Body::ReadIndexReply { context, index } => {
                self.on_read_index_reply(from, context, index)
            }
        }
    }

    /// A message of a former term: its sender must learn ours, or it may never get on (killer R17).
    fn step_stale(&mut self, env: &mut Env<'_>, message: &Message) {
        let from = message.from;
        match &message.body {
            Body::PreVote { .. } => {
                self.send_now(from, Body::PreVoteReply { granted: false });
                self.remind(from);
            }
            Body::Vote { .. } => {
                self.send_now(from, Body::VoteReply { granted: false, read_floor: Timestamp::MIN });
            }
            Body::Append { prev_index, context, .. } => {
                coverage::reached(Mark::FormerLeaderRefused);
                let (hint_index, hint_term) = self.tail.last;
                // Not the append's round: its sender may lead our term by now, and we have acknowledged nothing of that reign.
                let counts = self.is_planted(PlantedBug::FormerRoundCounts);
                let body = Body::AppendRefused {
                    prev_index: *prev_index,
                    hint_index,
                    hint_term,
                    context: if counts { *context } else { NO_ROUND },
                };
                self.send_now(from, body);
            }
            Body::PreVoteReply { granted: false } => {
                self.on_pre_vote_reply(env, from, message.term, false);
            }
            Body::PreVoteReply { granted: true }
            | Body::VoteReply { .. }
            | Body::AppendReply { .. }
            | Body::AppendRefused { .. }
            | Body::SnapshotReply { .. }
            | Body::TimeoutNow { .. }
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. } => {}
        }
    }

    /// Lets time pass. Cheap; to be called at or after [`Raft::wake_at`].
    pub fn tick(&mut self, env: &mut Env<'_>) {
        if self.failure.is_some() {
            return;
        }
        match self.role {
            Role::Leader(_) => self.tick_leader(env),
            Role::Follower { .. } | Role::PreCandidate { .. } | Role::Candidate { .. } => {
                self.answer_deferred(env);
                if self.asks() && env.now >= self.due(env) {
                    self.pre_campaign(env);
                }
            }
        }
    }

    /// When `tick` next has something to do, as things stand; [`Monotonic::MAX`] when never.
    pub fn wake_at(&self, env: &Env<'_>) -> Monotonic {
        if self.failure.is_some() {
            return Monotonic::MAX;
        }
        match &self.role {
            Role::Leader(leading) => self.wake_leader(env, leading),
            Role::Follower { .. } | Role::PreCandidate { .. } | Role::Candidate { .. } => {
                let due = if self.asks() { self.due(env) } else { Monotonic::MAX };
                if self.deferred.is_some() { due.min(self.free_at(env)) } else { due }
            }
        }
    }

    /// Everything written for `Ready`s up to number `ready_number` is durable.
    pub fn persisted(&mut self, env: &mut Env<'_>, ready_number: u64) {
        if let Some(hard_state) = self.tail.persisted(ready_number) {
            self.durable_state = hard_state;
        }
        self.count_own_vote(env);
        self.advance_commit(env);
    }

    /// Everything up to `index` is applied.
    pub fn applied(&mut self, env: &mut Env<'_>, index: LogIndex) {
        assert!(
            index <= self.handed,
            "replica {}: applied {index}, handed out only {}",
            self.id,
            self.handed
        );
        if index > self.applied {
            self.applied = index;
            self.history.settle(index);
            self.membership_in_force(env);
        }
    }

    /// Whether [`Raft::ready`] has something to give.
    pub fn has_ready(&self) -> bool {
        if self.failure.is_some() {
            return false;
        }
        let Outbox { now, after, snapshots_wanted, read_indexes, elected, deposed } = &self.out;
        self.tail.has_pending()
            || self.hard_state_to_write().is_some()
            || !now.is_empty()
            || !after.is_empty()
            || !snapshots_wanted.is_empty()
            || !read_indexes.is_empty()
            || elected.is_some()
            || *deposed
            || self.may_hand_out()
            || matches!(&self.role, Role::Leader(leading) if leading.send_due)
    }

    /// What is to be done. The owner does all of it, in order; nothing is given twice.
    pub fn ready(&mut self, env: &mut Env<'_>) -> Ready {
        if self.failure.is_some() {
            return Ready::default();
        }
        self.send_appends(env);
        let committed = self.hand_out(env);
        let hard_state = self.hard_state_to_write();
        if let Some(hard_state) = hard_state {
            self.written = hard_state;
        }
        let (number, entries) = self.tail.hand_over(hard_state);
        let out = std::mem::take(&mut self.out);
        Ready {
            number,
            hard_state,
            entries,
            messages_now: out.now,
            messages_after: out.after,
            committed,
            snapshots_wanted: out.snapshots_wanted,
            read_indexes: out.read_indexes,
            elected: out.elected,
            deposed: out.deposed,
        }
    }

    /// A new commit index alone is not worth a write: it is a hint, and rides along with terms and votes.
    fn hard_state_to_write(&self) -> Option<HardState> {
        let changed = (self.written.term, self.written.vote) != (self.term, self.vote);
        changed.then_some(HardState { term: self.term, vote: self.vote, commit: self.commit })
    }

    fn may_hand_out(&self) -> bool {
        self.handed == self.applied && self.handed < self.commit.min(self.tail.durable())
    }

    fn hand_out(&mut self, env: &Env<'_>) -> Vec<Entry> {
        if !self.may_hand_out() {
            return Vec::new();
        }
        let last = self.commit.min(self.tail.durable());
        let one = rare(Rare::OneEntryApplied);
        let bytes_max = if one { 1 } else { self.config.apply_bytes_max };
        let read = self.tail.entries(env.log, self.handed.next(), last, bytes_max);
        let Some(entries) = self.checked(read) else { return Vec::new() };
        let consecutive = entries.first().is_some_and(|entry| entry.index == self.handed.next());
        if !consecutive {
            self.fail(StorageError::Corrupt(format!(
                "raft log has no entry {}",
                self.handed.next()
            )));
            return Vec::new();
        }
        self.handed = entries.last().map_or(self.handed, |entry| entry.index);
        entries
    }

    /// A snapshot up to `index` has taken the place of everything handed out before.
    pub(super) fn jump_to(&mut self, index: LogIndex) {
        self.commit = index;
        self.handed = index;
        self.applied = index;
    }

    pub(super) fn send_now(&mut self, to: ReplicaId, body: Body) {
        let message = Message { from: self.id, to, term: self.term, body };
        self.out.now.push(message);
    }

    pub(super) fn send_after(&mut self, to: ReplicaId, body: Body) {
        let message = Message { from: self.id, to, term: self.term, body };
        self.out.after.push(message);
    }

    pub(super) fn is_planted(&self, bug: PlantedBug) -> bool {
        self.config.planted == Some(bug)
    }

    /// The value, or the end of this replica's work.
    pub(super) fn checked<T>(&mut self, result: Result<T, StorageError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    pub(super) fn fail(&mut self, error: StorageError) {
        tracing::error!(replica = %self.id, %error, "raft log unreadable, replica stopped");
        self.failure.get_or_insert(error);
    }

    /// Why this replica has stopped: its log could not be read. It does nothing any more.
    pub fn failure(&self) -> Option<&StorageError> {
        self.failure.as_ref()
    }

    /// Which replica this is.
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// The current term.
    pub fn term(&self) -> Term {
        self.term
    }

    /// What it does.
    pub fn role(&self) -> RoleKind {
        match self.role {
            Role::Follower { .. } => RoleKind::Follower,
            Role::PreCandidate { .. } => RoleKind::PreCandidate,
            Role::Candidate { .. } => RoleKind::Candidate,
            Role::Leader(_) => RoleKind::Leader,
        }
    }

    /// The leader of the current term, if known.
    pub fn leader(&self) -> Option<ReplicaId> {
        match &self.role {
            Role::Follower { leader, .. } => *leader,
            Role::PreCandidate { .. } | Role::Candidate { .. } => None,
            Role::Leader(_) => Some(self.id),
        }
    }

    /// The membership in force: of the newest entry in the log, committed or not.
    pub fn membership(&self) -> &Membership {
        if self.is_planted(PlantedBug::MembershipAtApply) {
            return self.history.at(self.applied);
        }
        self.newest_membership()
    }

    /// That of the newest entry in the log, whatever is planted: for who watches.
    pub fn newest_membership(&self) -> &Membership {
        self.history.current()
    }

    /// Known to be committed.
    pub fn commit_index(&self) -> LogIndex {
        self.commit
    }

    /// The end of the log, durable or not.
    pub fn last_index(&self) -> LogIndex {
        self.tail.last.0
    }

    /// The end of what is durable of the log.
    pub fn durable_index(&self) -> LogIndex {
        self.tail.durable()
    }

    /// Known to be applied.
    pub fn applied_index(&self) -> LogIndex {
        self.applied
    }

    /// The first entry that is not truncated would be the one after this.
    pub fn truncated_index(&self) -> LogIndex {
        self.tail.truncated.0
    }

    /// Term of the entry at `index`, if the log has it (or was truncated exactly there).
    pub fn term_at(&self, env: &Env<'_>, index: LogIndex) -> Option<Term> {
        self.tail.term(env.log, index)
    }
}
