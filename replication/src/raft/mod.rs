//! Machine: one Raft group's consensus. No I/O, no clock, no randomness of its own.
//!
//! The owner ([`crate::store`]) feeds messages, proposals and proofs of persistence through [`Raft::step`] and friends, and takes
//! what is to be done with [`Raft::ready`]. The vocabulary is the Raft thesis's (Ongaro 2014); the shape is etcd's `RawNode`;
//! log writes are asynchronous.
//!
//! ```text
//!   propose / step(message) / tick ──► Raft ──► Ready { hard_state, entries, snapshot }   written to the log by the owner
//!                                       │           messages_now      need no persistence (pre-votes' requests, appends, heartbeats)
//!   persisted(proof) ───────────────────┘           messages_after    only with proof of this Ready's write (votes, append replies)
//!                                                   committed         entries to apply, in order, each exactly once per incarnation
//! ```
//!
//! # Leases and promises
//!
//! There are no per-range heartbeats in an idle group. Stores promise each other ([`Support`]): store B promises store A, for a
//! duration on B's monotonic clock, that no replica on B helps to elect another leader for the groups A leads. Concretely, a
//! replica that has acknowledged (replica `a`, incarnation `i` of its store) as leader of its term neither campaigns nor grants a
//! (pre-)vote, while its store's promise to that incarnation is unexpired, except to a candidate blessed by the leader (transfer).
//! A leader holds the lease until [`Raft::lease`] says, computed from the promises it has received of stores whose replica
//! acknowledged this term *in the promising incarnation*; in a joint configuration both majorities count.
//!
//! A promise that lapses and is renewed is another promise: in the gap the replica may have helped to elect someone else, who
//! is not known here yet. So a promise counts only if the replica acknowledged an append that was sent *after* the unbroken
//! chain of promises began ([`Promise::unbroken_since`]); after a gap the leader asks again. The acknowledgement outlives the
//! term at the voter: hearing of a higher term does not free it from its store's word, only the acknowledgement of a later
//! leader does (who was elected by a majority that was free), or a message of the acknowledged leader itself that shows it in a
//! later term, or the appending of a membership in which it has no vote. (Promises of stores go on for ever; without this a
//! deposed or removed leader's store would keep its former followers from ever electing anybody.)
//!
//! Each promise also carries a **read bound**: the leader serves no read above the bound that a quorum has recorded. A voter
//! reports its recorded bound with its vote (`read_floor`), so a new leader knows a timestamp at or above everything the old one
//! served, whatever the wall clocks did. After a restart a voter reports its store's floor ([`Support::restart_floor`]).
//! (Leases: YugabyteDB's leader lease counted from send time; fortification: CockroachDB store liveness. The read bound is ours.)
//!
//! # Invariants
//!
//! Election safety, log matching, leader completeness, state machine safety (thesis, figure 3.2), checked after every step by
//! `tests/`. A configuration takes effect when its entry is *appended* (thesis 4.1) and is rolled back with it.
//! A leader proposes a membership change only after an entry of its own term is committed (Ongaro 2015), one at a time.
//! The term a group is born with may have a leader without an election (`birth`).

mod birth;
mod core;
mod election;
mod follow;
mod lead;
mod lease;
mod membership;
mod payload;
mod progress;
pub mod quorum;
mod read_index;
mod snapshot;
mod tail;
mod transfer;

use bytes::Bytes;
use clock::{Monotonic, Timestamp};
use std::collections::BTreeSet;
use std::fmt;

pub use self::core::Raft;
pub use progress::{PeerStatus, ProgressState};
pub use snapshot::SnapshotOutcome;
pub use storage::log::{Entry, LogIndex, Term};

/// A member of a group. Unique for the range's whole life: a replica that is removed and comes back has a new id (killer R15).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReplicaId(pub u64);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts a store's restarts, durably. Promises and acknowledgements never outlive an incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Incarnation(pub u64);

/// What must be durable before a vote or an append is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HardState {
    /// Latest term seen.
    pub term: Term,
    /// Who got this term's vote.
    pub vote: Option<ReplicaId>,
    /// A commit index known at some time; only a hint after a restart, never ahead of the truth.
    pub commit: LogIndex,
}

/// Who counts. `outgoing` is non-empty in a joint configuration (thesis 4.3): then both majorities are needed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Membership {
    /// Incoming (or only) voters.
    pub voters: BTreeSet<ReplicaId>,
    /// Outgoing voters while joint.
    pub outgoing: BTreeSet<ReplicaId>,
    /// Receive the log, never counted.
    pub learners: BTreeSet<ReplicaId>,
}

/// What an entry says to Raft itself. Encoded into [`Entry::data`] by [`Payload::encode`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    /// A new leader's first entry.
    Empty,
    /// A command for the state machine.
    Command(Bytes),
    /// The whole new membership (joint or not), with the owner's context (the new range descriptor).
    Membership {
        /// In force from this entry on.
        membership: Membership,
        /// Opaque.
        context: Bytes,
    },
}

/// Why a message is sent, and what the receiver may conclude. Each variant's comment speaks of its fields.
#[allow(missing_docs)]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// "Would you vote for me in `term`?" Changes nothing durable.
    PreVote { last_index: LogIndex, last_term: Term, blessed: bool },
    /// Answer to a pre-vote, in the candidate's proposed term when granted, in the voter's own when refused.
    PreVoteReply { granted: bool },
    /// "Vote for me." `blessed`: the leader of the previous term asked the candidate to (transfer).
    Vote { last_index: LogIndex, last_term: Term, blessed: bool },
    /// Sent only when term and vote are durable. `read_floor` is at or above every read bound this replica's store recorded
    /// for a leader this replica acknowledged.
    VoteReply { granted: bool, read_floor: Timestamp },
    /// Entries after `prev_index`. `durable` is how far the leader's own log is synced. Empty entries: probe, commit notice, or heartbeat.
    Append {
        prev_index: LogIndex,
        prev_term: Term,
        entries: Vec<Entry>,
        commit: LogIndex,
        durable: LogIndex,
        context: u64,
    },
    /// Sent only when what it acknowledges is durable. `match_index`: everything at or before is durable and equals the leader's log.
    /// `context` echoes the append's (read index, commit notice acknowledgement).
    AppendReply { match_index: LogIndex, commit: LogIndex, context: u64 },
    /// The follower has no entry (`hint_index` at most its last) of `prev_term` at `prev_index`; `hint_term` is its term there.
    /// `context` echoes that of an append of the reply's term. A refusal of a former term's carries none: it acknowledges nobody.
    AppendRefused { prev_index: LogIndex, hint_index: LogIndex, hint_term: Term, context: u64 },
    /// The data comes through the owner (chunks); this is what Raft must know of it. See [`Raft::snapshot_received`].
    SnapshotReply { index: LogIndex, accepted: bool },
    /// The leader has stopped serving for good in this term; campaign at once. No read above `read_high` was served.
    TimeoutNow { read_high: Timestamp },
    /// A follower asks for a read index on behalf of its owner.
    ReadIndex { context: u64 },
    /// The commit index at or after which a read asked with `context` is linearizable.
    ReadIndexReply { context: u64, index: LogIndex },
}

/// One message of one group. The owner adds range, stores and incarnations (its envelope).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Sender.
    pub from: ReplicaId,
    /// Receiver.
    pub to: ReplicaId,
    /// Sender's term (for a pre-vote: the proposed term).
    pub term: Term,
    /// What.
    pub body: Body,
}

/// A promise received from the store of a peer, as it stands now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Promise {
    /// Unexpired until then on *our* monotonic clock (already shortened for drift).
    pub until: Monotonic,
    /// The read bound the peer's store has recorded.
    pub read_bound: Timestamp,
    /// The incarnation of the peer's store that gave it.
    pub by: Incarnation,
    /// When, on our monotonic clock, we received the first promise of the chain this one continues. A promise continues the
    /// chain if it arrived while the one before (of the same incarnation, to our same incarnation) was unexpired on our clock;
    /// otherwise it begins a new one, at its arrival.
    pub unbroken_since: Monotonic,
}

/// Store-to-store promises, seen from one group's replica. Implemented by [`crate::store`] and by tests.
pub trait Support {
    /// Our own store's incarnation.
    fn incarnation(&self) -> Incarnation;
    /// Until when our store has promised the store of `leader` (in that incarnation) not to help elect another, on our monotonic
    /// clock, and the read bound recorded with it. `None`: never promised. Once a later incarnation has taken the place of that
    /// one, the promise is void (until zero), but the bound must still be at or above what was recorded for either.
    fn given(&self, leader: ReplicaId, incarnation: Incarnation) -> Option<(Monotonic, Timestamp)>;
    /// The promise that the store of `peer` last gave our current incarnation. `peer` may be our own replica: a store records a
    /// read bound for itself too (`until` and `unbroken_since` of that answer are not looked at); without it there is no lease.
    fn received(&self, peer: ReplicaId) -> Option<Promise>;
    /// No vote before then: promises given by our former incarnation may be unexpired (start + longest promise).
    fn no_vote_before(&self) -> Monotonic;
    /// At or above every read bound that our former incarnations recorded.
    fn restart_floor(&self) -> Timestamp;
}

/// Everything a call needs from outside.
pub struct Env<'a> {
    /// Our monotonic clock.
    pub now: Monotonic,
    /// Store promises.
    pub support: &'a dyn Support,
    /// Entries that are in the log (readable before they are durable).
    pub log: &'a dyn GroupLog,
    /// Random 64 bits, for election timeouts.
    pub random: &'a mut dyn FnMut() -> u64,
}

/// The group's entries as the owner's log has them. What Raft has just put into a `Ready` counts as present: the owner
/// appends at once.
pub trait GroupLog {
    /// Entries `first..=last` (see `LogReader::entries`).
    fn entries(
        &self,
        first: LogIndex,
        last: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, storage::StorageError>;
    /// Term at an index, also the last truncated one.
    fn term(&self, index: LogIndex) -> Option<Term>;
}

/// Parameters of a group. Durations are on the monotonic clock.
#[derive(Clone, Debug)]
pub struct RaftConfig {
    /// A follower without a (promised) leader campaigns after between one and two of these.
    pub election_timeout: std::time::Duration,
    /// An active leader repeats unacknowledged commit notices and probes this often; an idle, caught-up group sends nothing.
    pub heartbeat_interval: std::time::Duration,
    /// Payload bytes per append message.
    pub append_bytes_max: usize,
    /// Payload bytes in flight to one follower.
    pub inflight_bytes_max: usize,
    /// Payload bytes appended and not yet committed; above it proposals are refused.
    pub uncommitted_bytes_max: usize,
    /// Payload bytes handed out for application per `Ready`.
    pub apply_bytes_max: usize,
    /// Chaos only: a known mistake made on purpose, so that a harness can show that it would notice.
    pub planted: Option<PlantedBug>,
}

impl Default for RaftConfig {
    fn default() -> RaftConfig {
        RaftConfig {
            election_timeout: std::time::Duration::from_millis(1500),
            heartbeat_interval: std::time::Duration::from_millis(500),
            append_bytes_max: 256 << 10,
            inflight_bytes_max: 8 << 20,
            uncommitted_bytes_max: 16 << 20,
            apply_bytes_max: 4 << 20,
            planted: None,
        }
    }
}

/// A mistake that has broken real systems, brought back on purpose. Never set outside of chaos and tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlantedBug {
    /// R01: votes are sent, and the own one counted, before they are durable.
    VoteBeforeSync,
    /// R02: appends are acknowledged before they are durable.
    AckBeforeSync,
    /// R05: the leader counts its own copy before it is durable.
    CountOwnUnsynced,
    /// R06: a leader changes the membership before an entry of its own term is committed.
    ChangeBeforeOwnCommit,
    /// R07: a membership takes effect when it is applied, not when it is appended.
    MembershipAtApply,
    /// R09: entries of former terms are committed by counting copies.
    CommitByCounting,
    /// R10: promises are believed for ever.
    LeaseNeverExpires,
    /// R12: read indexes are answered without asking a majority and before the own term's first commit.
    ReadIndexUnconfirmed,
    /// R16: the completion of a write that was overwritten meanwhile counts for what took its place.
    StaleCompletion,
    /// R17: who hears of no leader stands at once, without asking whether anybody would vote for it.
    NoPreVote,
    /// What refuses an append of a former term confirms that append's round, although the replica that it goes to may lead
    /// again and count its rounds anew.
    FormerRoundCounts,
    /// A voter takes the term that its leader has agreed to, as a candidate, for the end of the reign that it then began.
    AgreedTermReleases,
    /// The store's: whoever leads the left range when a split is applied leads the right one from birth, in whatever
    /// term the split was proposed.
    BirthLedByAnyLeader,
    /// The store's: whoever leads the left range when a split is applied counts as knowing all reads of the right one's keys.
    BirthFloorOfOthers,
    /// The store's: what an uninitialised replica has acknowledged does not bind the one that takes its place.
    BirthForgetsBinding,
}

/// The leader's right to serve, as of now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// The term is the lease's sequence number: commands are proposed under it and refused at apply under another.
    pub term: Term,
    /// Serve nothing at or after this reading of our monotonic clock.
    pub until: Monotonic,
    /// Serve no read above this timestamp.
    pub read_bound: Timestamp,
}

/// Follower, candidate or leader, for display and for owners' decisions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoleKind {
    /// Follows (or has no leader yet).
    Follower,
    /// Asks for pre-votes.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// A refused proposal. Nothing was appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProposeError {
    /// Not the leader; the known one, if any.
    #[error("not the leader")]
    NotLeader(Option<ReplicaId>),
    /// A leadership transfer is under way.
    #[error("leadership transfer under way")]
    Transferring,
    /// Too many bytes appended and not committed.
    #[error("too many uncommitted bytes")]
    Overloaded,
    /// A membership change is under way, or no entry of this term is committed yet.
    #[error("membership change not possible now")]
    MembershipBusy,
    /// Not one legal step from the membership in force (see [`Membership::check_step`]).
    #[error("illegal membership change")]
    MembershipIllegal,
    /// The target of a transfer is not a voter of the incoming configuration, or is ourselves.
    #[error("transfer target cannot lead")]
    TransferTarget,
}

/// What is to be done, in the order of the fields. `Ready` number `n` is acknowledged with [`Raft::persisted`]`(n)`, which says
/// that everything written for this and all earlier ones is durable. `messages_after` of a `Ready` that writes nothing wait for
/// the writes of the earlier ones all the same.
#[derive(Debug, Default)]
pub struct Ready {
    /// Number of this `Ready`'s write, or of the last one before it when nothing is to be written.
    pub number: u64,
    /// To be written, if changed.
    pub hard_state: Option<HardState>,
    /// To be appended (truncating what the log has at or after the first).
    pub entries: Vec<Entry>,
    /// May be sent before the write is durable.
    pub messages_now: Vec<Message>,
    /// May be sent only when the write is durable.
    pub messages_after: Vec<Message>,
    /// To be applied, in order. Durable here already. The next ones come after [`Raft::applied`] of the last of these.
    pub committed: Vec<Entry>,
    /// Followers that need a snapshot: the owner sends one and answers with [`Raft::snapshot_sent`]. A reminder may repeat an
    /// id; it is to be ignored while a snapshot to it is under way.
    pub snapshots_wanted: Vec<ReplicaId>,
    /// Read indexes that are confirmed: (context, index). The read may be served once `index` is applied.
    pub read_indexes: Vec<(u64, LogIndex)>,
    /// We have just become leader of this term: the least read floor (serve and write nothing at or below it).
    pub elected: Option<(Term, Timestamp)>,
    /// We have just stopped leading (stepped down or transferred). Happened before `elected` when both are there.
    pub deposed: bool,
}
