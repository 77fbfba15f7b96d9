//! Value: the KV API. What a gateway asks of a range, what it is answered, and why it may be refused.
//!
//! A [`Batch`] goes to one range's leaseholder and is evaluated there in one step: all its reads see one moment, all its writes
//! become one command. Batches are idempotent where the comment of their request says so; elsewhere a lost answer is
//! [`KvError::Ambiguous`], never a silent retry.
//!
//! # How a transaction runs (coordinator's side in `client`, lineage: CockroachDB SIGMOD 2020, simplified)
//!
//! 1. Reads at `read_at`. A version in `(read_at, uncertainty_limit]` that was written at a clock reading at or below the limit is
//!    [`KvError::Uncertain`]: the coordinator refreshes its reads to the newer timestamp and goes on, or restarts.
//! 2. Writes stay in the coordinator's buffer. Statements that update what they read take unreplicated exclusive locks as they read
//!    ([`Lock::Exclusive`]); these order contenders (FIFO). What the transaction has read is checked without them; under
//!    `READ COMMITTED` it also finds out at its commit whether it still has them ([`LockEra`]).
//! 3. Commit. All writes in one range: [`Request::CommitOnePhase`]. Several ranges: [`Request::Write`] lays intents on all in
//!    parallel, each answering the timestamp it could be written at, and at the same time [`Request::Stage`] writes on the range
//!    of the anchor key a record that names all these writes and the timestamp `read_at`. When all are laid at or below it, the
//!    transaction is committed ([`Staged`] says it precisely). Otherwise all read spans are refreshed to the largest
//!    ([`Request::Refresh`]), and [`Request::EndTxn`] writes the record's last word there. Too many writes to be named in a record, or
//!    intents laid earlier: `Write`, refresh, `EndTxn`. Intents are resolved afterwards, in the background, when the record says
//!    "committed" in so many words.
//! 4. Who meets an intent waits its slice at the range, then asks the record ([`Request::Push`]) and resolves. A transaction
//!    without heartbeat for the expiry is aborted by the pusher. A pushed timestamp is kept in the record range's timestamp
//!    cache, whose low-water mark survives lease moves, so that the push is never forgotten. A staged record is taken at its
//!    word only after its writes were looked for ([`Request::QueryWrites`]), and a missing one prevented.
//!
//! INVARIANT (serializability): nothing is written at or below a timestamp at which its key was read by another transaction, and a
//! transaction commits at one timestamp at which all its reads hold. Clocks decide none of it.

use bytes::Bytes;
use clock::{ClockTimestamp, Timestamp};
use replication::raft::Term;
use replication::range::{NodeId, RangeDescriptor, RangeId};
use std::time::Duration;
use storage::{Direction, Key, Span};

mod error;

pub use error::KvError;
pub use storage::mvcc::{Sequence, TxnId};

/// What others must know of a transaction: carried by its requests, its intents and its locks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TxnMeta {
    /// Unique over the cluster's life. Every restart takes a new one.
    pub id: TxnId,
    /// The key whose range keeps the record. Chosen at the first lock or write, never changed afterwards.
    pub anchor: Key,
    /// HLC reading at the very first start (kept over restarts): age, for deadlock victims and expiry.
    pub started: Timestamp,
    /// Higher wins pushes; equal for ordinary transactions.
    pub priority: u32,
    /// How far it had come when it said this: grows with each savepoint and each rollback to one. Means nothing where an intent is met.
    pub stage: u32,
}

impl TxnMeta {
    /// Of two that are in each other's way, whether this is the one to go: lower priority, then younger, then the greater id.
    pub fn yields_to(&self, other: &TxnMeta) -> bool {
        let rank = |txn: &TxnMeta| (txn.priority, std::cmp::Reverse((txn.started, txn.id)));
        rank(self) < rank(other)
    }
}

/// Strength of an unreplicated lock taken by a read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lock {
    /// FOR SHARE: excludes exclusive locks and writes of others.
    Shared,
    /// FOR UPDATE, and reads of UPDATE and DELETE: excludes every lock and write of others.
    Exclusive,
}

/// What a request does that meets another transaction's lock or intent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Queue up to this long at the range, then [`KvError::Blocked`] (the place in the queue is kept for a short time).
    Queue(Duration),
    /// NOWAIT: [`KvError::Blocked`] at once.
    Error,
    /// SKIP LOCKED: leave locked keys out of the answer.
    Skip,
}

impl Wait {
    /// How long it may take at the range because of others.
    pub fn slice(self) -> Duration {
        match self {
            Wait::Queue(slice) => slice,
            Wait::Skip => WAIT_SLICE,
            Wait::Error => Duration::ZERO,
        }
    }
}

/// Condition on the newest committed version of a written key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// None.
    Anything,
    /// No live row there (never written, or deleted): otherwise [`KvError::Exists`].
    Absent,
}

/// One buffered write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mutation {
    /// Where.
    pub key: Key,
    /// New value; `None` deletes.
    pub value: Option<Bytes>,
    /// Condition.
    pub expect: Expect,
    /// The transaction's sequence number of the write.
    pub sequence: Sequence,
}

/// A request to one range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Reads a key at `read_at`. Idempotent.
    Get {
        /// Which.
        key: Key,
        /// Lock to take as well (also on an absent key). Needs `txn`.
        lock: Option<Lock>,
    },
    /// Reads keys in order at `read_at`. Protects exactly the span it examined, which its answer names. Idempotent.
    Scan {
        /// Which, within the range.
        span: Span,
        /// Which way.
        direction: Direction,
        /// At most this many rows; 0: no limit.
        limit: u64,
        /// Stop after about this many bytes of answer (at least one row); 0: no limit.
        bytes_max: u64,
        /// Lock to take on every returned key.
        lock: Option<Lock>,
    },
    /// Fails with [`KvError::RefreshFailed`] if a key of the span was written in `(since, read_at]` by another transaction;
    /// otherwise the span counts as read at `read_at`. Idempotent.
    Refresh {
        /// What was read.
        span: Span,
        /// At which timestamp.
        since: Timestamp,
    },
    /// Lays intents at the answered timestamp, at least `read_at`. Idempotent (same transaction, same sequence).
    Write {
        /// Not empty.
        mutations: Vec<Mutation>,
    },
    /// Commits a transaction whose writes all are in this range: no intent, no record. Not idempotent: after a lost answer ask
    /// [`Request::Settle`].
    CommitOnePhase {
        /// Not empty.
        mutations: Vec<Mutation>,
        /// Read spans of this transaction *within this range* (since `read_at`): refreshed here if the commit must go above `read_at`.
        reads: Vec<Span>,
        /// Whether the transaction read elsewhere too: then it cannot go above `read_at` here ([`KvError::NeedsRefresh`]).
        reads_elsewhere: bool,
        /// The commit must not be above this.
        deadline: Timestamp,
    },
    /// Names the transaction's writes in its record: it is committed at `read_at` as soon as all of them are laid at or below ([`Staged`]).
    /// May travel beside the last [`Request::Write`]; is answered with `Committed` if nothing more is to be laid. Addressed to the
    /// anchor. Idempotent. A transaction names the same writes whenever it stages.
    Stage {
        /// Where the intents are or will be, for whoever resolves them.
        intents: Vec<Span>,
        /// All writes: key and highest sequence. Not empty, no key twice.
        writes: Vec<(Key, Sequence)>,
        /// The commit must not be above this.
        deadline: Timestamp,
    },
    /// Whether these writes of a staged transaction are laid at or below `at`. Idempotent.
    QueryWrites {
        /// Whose.
        txn: TxnId,
        /// Where it staged.
        at: Timestamp,
        /// Which.
        writes: Vec<(Key, Sequence)>,
        /// About the others.
        missing: Missing,
    },
    /// Writes the record: the transaction is committed at `commit_ts`, or aborted. A commit resolves intents in the record's range at once.
    /// Addressed to the anchor. Idempotent: answers the same if the record says so.
    EndTxn {
        /// `Some`: commit at. `None`: abort.
        commit_ts: Option<Timestamp>,
        /// Where the intents are, for whoever resolves them: kept in the record until all are resolved.
        intents: Vec<Span>,
        /// The commit must not be above this.
        deadline: Timestamp,
    },
    /// Applies a decided transaction to its intents and releases its locks in these spans. Idempotent.
    Resolve {
        /// Whose.
        txn: TxnId,
        /// Committed at, or `None`: aborted.
        commit_ts: Option<Timestamp>,
        /// Sequences that savepoint rollbacks took back: (first, last), both inclusive.
        ignored: Vec<(Sequence, Sequence)>,
        /// Where.
        spans: Vec<Span>,
    },
    /// Gives back locks that the batch's transaction took in these stages of its, and the place where it waits for one. Idempotent; a
    /// copy that comes late finds locks of a later stage and leaves them alone. Intents are no matter of it.
    Unlock {
        /// Where.
        spans: Vec<Span>,
        /// Locks that it had before this stage stay.
        since: u32,
        /// Locks that it has taken, or taken again, after this stage stay.
        upto: u32,
    },
    /// "Your lock is in my way." Addressed to the pushee's anchor. Idempotent.
    Push {
        /// Whose lock or intent was met.
        pushee: TxnMeta,
        /// When the pushee was last known to be active (its intent's or lock's time).
        active: Timestamp,
        /// What is asked.
        kind: PushKind,
        /// Transactions known to wait, directly or not, for the pusher: a cycle if the pushee is among them.
        dependents: Vec<TxnId>,
        /// What the pusher has found out about the pushee's staged writes.
        sought: Option<Sought>,
    },
    /// "I am alive." Addressed to the anchor; writes the record if there is none. Idempotent.
    Heartbeat,
    /// The record of a transaction and who waits for it. Idempotent.
    QueryTxn {
        /// Whose.
        txn: TxnId,
        /// Its anchor.
        anchor: Key,
    },
    /// Removes a finished transaction's record once no intent of it is left. `read_at` is at or above every timestamp that it was to commit at:
    /// a late request of its commit finds that mark in the record's place. Idempotent.
    ForgetTxn {
        /// Whose.
        txn: TxnId,
        /// Its anchor.
        anchor: Key,
    },
    /// What became of a one-phase commit that wrote `key` as its lowest: committed, or never to be. Idempotent.
    Settle {
        /// Whose.
        txn: TxnId,
        /// When the transaction first started.
        started: Timestamp,
        /// The lowest key that it writes.
        key: Key,
    },
    /// Committed changes of a copy (keys in `span`, which lies in one table's copy) in `(after, read_at]`, in commit order; the span counts
    /// as read at `read_at`, so the answer is complete. Waits for intents like a scan. Idempotent.
    Changes {
        /// Which keys.
        span: Span,
        /// Exclusive.
        after: Timestamp,
        /// Stop after about this many bytes, at a commit timestamp's end: then `ChangesReply::upto` is below `read_at`.
        bytes_max: u64,
    },
    /// Refuses requests planned under an older version of the table's schema from now on; waits for (pushes) intents in the span first. Idempotent.
    Fence {
        /// The part of the table in this range.
        span: Span,
        /// Which table.
        table: u32,
        /// Lowest version accepted afterwards.
        version: u64,
    },
    /// Splits the range at `at`, which becomes the first key of range `right`. Idempotent.
    Split {
        /// Inside the range, or where one begins: then nothing is left to do.
        at: Key,
        /// A fresh id.
        right: RangeId,
    },
    /// Moves the lease.
    TransferLease {
        /// To the voter there.
        to: NodeId,
    },
    /// Removes old versions (GC) at or below `threshold`, a bounded piece at a time. Idempotent.
    Gc {
        /// Which keys.
        span: Span,
        /// New threshold.
        threshold: Timestamp,
    },
}

/// What [`Request::QueryWrites`] does about a write that is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missing {
    /// Tells.
    Tell,
    /// Sees to it that it can never be laid at or below the staged timestamp.
    Prevent,
}

/// A transaction that has named its writes.
///
/// INVARIANT (parallel commits, CockroachDB SIGMOD 2020): a transaction is committed at `T` exactly if its record says "committed at `T`", or
/// says "staged at `T`" and each write it names has an intent at or below `T`. Once true it stays true: intents do not move, go only
/// by the record's last word, and that word is "aborted" only after a write was prevented, or from a coordinator that has told nobody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Staged {
    /// Where it commits.
    pub at: Timestamp,
    /// Clock of the leaseholder when it was first staged there.
    pub since: Timestamp,
    /// Key and highest sequence of each write.
    pub writes: Vec<(Key, Sequence)>,
}

/// What looking for a staged transaction's writes has shown. Either stays true for good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sought {
    /// The staged timestamp.
    pub at: Timestamp,
    /// What was found.
    pub found: Found,
}

/// See [`Sought`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// All writes are laid at or below: it is committed there.
    All,
    /// A missing write was prevented: it will never be committed there.
    Prevented,
}

/// What a pusher should do about a transaction that is not decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    /// Wait on.
    Wait,
    /// It was moved: who reads below passes by what it has written.
    Pass,
    /// Give up: it would be a deadlock, and the pusher is the one to go.
    GiveUp,
    /// Look for its staged writes, prevent what is missing, and push again with what was found.
    Recover,
}

/// What a push wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PushKind {
    /// A writer (or locker): abort it if expired, deadlocked or of lower priority; otherwise keep waiting.
    Abort,
    /// A reader at this timestamp: make it commit above.
    Timestamp(Timestamp),
    /// As `Abort`, unconditionally (the pusher's user asked, or a schema change).
    Force,
}

/// State of a transaction's record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TxnStatus {
    /// Undecided: no record, or one that is only alive.
    Pending,
    /// Decided if all its writes are laid.
    Staging(Staged),
    /// Decided.
    Committed(Timestamp),
    /// Decided.
    Aborted,
}

/// What a range does where the batch's reads cannot be at `read_at` ([`KvError::Uncertain`], [`KvError::NewerVersion`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Footing {
    /// Refuses: what was read before has to hold at the later timestamp, too.
    Fixed,
    /// Nothing was read before, and nothing is read elsewhere meanwhile: reads later, and says when ([`Reply::read_at`]). Who
    /// has waited for a row has it at once then, and holds up those behind it no longer than it must.
    Free,
}

/// A batch for one range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// The range it is meant for and the generation known of it; filled in by the router.
    pub range: Option<(RangeId, u64)>,
    /// Reads happen at this timestamp; writes at or above it.
    pub read_at: Timestamp,
    /// End of the uncertainty interval; equal to `read_at` when there is none (historical reads).
    pub uncertainty_limit: Timestamp,
    /// Whether the reads may be later.
    pub footing: Footing,
    /// On whose behalf. Requests that need it say so.
    pub txn: Option<TxnMeta>,
    /// Schema versions it was planned under: (table, version).
    pub schema: Vec<(u32, u64)>,
    /// Transactions that will commit above the given timestamp (pushed): their intents do not block reads at or below it.
    pub pushed: Vec<(TxnId, Timestamp)>,
    /// Sequences of `txn` that savepoint rollbacks took back; own intents show through without them.
    pub ignored: Vec<(Sequence, Sequence)>,
    /// What to do about locks.
    pub wait: Wait,
    /// Whether the answer is to tell in which eras of their locks the ranges gave it ([`Reply::eras`]).
    pub asks_era: bool,
    /// In order. Reads and writes are not mixed in one batch.
    pub requests: Vec<Request>,
}

impl Request {
    /// Whether it may have to queue at a key.
    pub fn may_queue(&self) -> bool {
        match self {
            Request::Get { lock, .. } | Request::Scan { lock, .. } => lock.is_some(),
            Request::Write { .. }
            | Request::CommitOnePhase { .. }
            | Request::Stage { .. }
            | Request::EndTxn { .. } => true,
            Request::Refresh { .. }
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
            | Request::Gc { .. } => false,
        }
    }
}

impl Batch {
    /// On nobody's behalf, under no schema, at `at` without uncertainty, for whichever range its keys are in.
    pub fn bare(at: Timestamp, wait: Wait, requests: Vec<Request>) -> Batch {
        Batch {
            range: None,
            read_at: at,
            uncertainty_limit: at,
            footing: Footing::Fixed,
            txn: None,
            schema: Vec::new(),
            pushed: Vec::new(),
            ignored: Vec::new(),
            wait,
            asks_era: false,
            requests,
        }
    }

    /// Whether carrying it out may commit its transaction.
    pub fn is_commit(&self) -> bool {
        self.requests.iter().any(|request| {
            matches!(
                request,
                Request::CommitOnePhase { .. }
                    | Request::Stage { .. }
                    | Request::EndTxn { commit_ts: Some(_), .. }
            )
        })
    }
}

/// One row of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its key.
    pub key: Key,
    /// Its value.
    pub value: Bytes,
    /// Commit timestamp; the intent's for the transaction's own write.
    pub ts: Timestamp,
}

/// One committed change of a copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Commit timestamp: changes with the same one were written by one transaction.
    pub ts: Timestamp,
    /// Which row.
    pub key: Key,
    /// `None`: deleted.
    pub value: Option<Bytes>,
}

/// Answer to one request, in the request's order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// To `Get`.
    Get(Option<Row>),
    /// To `Scan`. `resume`: what was not examined (`None`: all was).
    Scan {
        /// In scan order.
        rows: Vec<Row>,
        /// The rest.
        resume: Option<Span>,
    },
    /// To `Refresh`, `Resolve`, `ForgetTxn`, `Fence`, `TransferLease`.
    Done,
    /// To `Write`: laid at.
    Written(Timestamp),
    /// To `CommitOnePhase`, to `EndTxn` that commits, and to `Stage` when that is certain already.
    Committed(Timestamp),
    /// To `Stage`: the record names the writes, at this timestamp or above.
    Staged(Timestamp),
    /// To `QueryWrites`: whether all are laid at or below.
    Writes {
        /// All of them.
        all: bool,
    },
    /// To `EndTxn` that aborts.
    Aborted,
    /// To `Push`.
    Pushed {
        /// `Pending` after a timestamp push: will commit above; after an abort push: still alive, wait on. `Staging`: nobody may pass
        /// by its intents, whatever was asked.
        status: TxnStatus,
        /// The record's intents, when decided or staged.
        intents: Vec<Span>,
        /// When committed: the sequences that savepoint rollbacks took back. Whoever resolves passes them on to [`Request::Resolve`].
        ignored: Vec<(Sequence, Sequence)>,
        /// What to do when it is not decided.
        advice: Advice,
    },
    /// To `Heartbeat`.
    Alive(TxnStatus),
    /// To `QueryTxn`.
    Txn {
        /// Its state.
        status: TxnStatus,
        /// Who waits for it, directly or not.
        waiters: Vec<TxnId>,
    },
    /// To `Changes`.
    Changes {
        /// In commit order.
        changes: Vec<Change>,
        /// Everything at or below has been delivered.
        upto: Timestamp,
    },
    /// To `Split`: both halves.
    Split {
        /// What ends there; `None`: it was split before, and that part has left this node since.
        left: Option<RangeDescriptor>,
        /// What begins there.
        right: RangeDescriptor,
    },
    /// To `Gc`: whether more is left.
    Gc {
        /// Send again.
        more: bool,
    },
}

/// A time in which a range has lost no lock but by the word of its owner, or for one that cannot commit any more. Locks taken in one era
/// are still held while that era lasts; in another one they may be gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockEra {
    /// Where.
    pub range: RangeId,
    /// Its keys.
    pub span: Span,
    /// Under which lease: locks do not outlive it.
    pub lease: Term,
    /// How often locks were forgotten under it, as nobody seemed to want them any more.
    pub losses: u64,
}

/// Answer to a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// One per request.
    pub responses: Vec<Response>,
    /// The leaseholder's clock.
    pub clock: ClockTimestamp,
    /// When the batch's reads were made: at its `read_at`, unless its footing was free.
    pub read_at: Timestamp,
    /// The range as the leaseholder knows it, when newer than the request's generation.
    pub range: Option<RangeDescriptor>,
    /// If asked for: the era in which each range has answered, and taken the locks.
    pub eras: Vec<LockEra>,
    /// With them: at or above every timestamp at which the ranges have answered reads, under earlier leases, too.
    pub read_high: Timestamp,
    /// Of what [`Wait::Skip`] left out, that whose holders have shown no sign of life for the expiry: nobody who only skips would ever
    /// find out that they have ended. At most [`SKIPPED_MAX`] from each range.
    pub skipped: Vec<Skipped>,
}

/// Skipped holders that one answer names.
pub const SKIPPED_MAX: usize = 8;

/// A lock or intent that was left out of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Skipped {
    /// Where.
    pub key: Key,
    /// Whose it is.
    pub holder: TxnMeta,
    /// The holder's last sign of life, as far as the range knows.
    pub active: Timestamp,
}

/// One node's KV: seam between gateway and leaseholder. In process when `to` is ourselves.
///
/// INVARIANT: a commit ([`Batch::is_commit`]) that was sent once is carried out once at most, so that a refusal of it is the last word:
/// the transport is a stream (HTTP/2 over TCP), which drops or delays a call and never doubles it. Whoever sends another copy after
/// silence (`client::Router`) takes the doubt on himself ([`KvError::Doubtful`]).
pub trait Peers: Send + Sync + 'static {
    /// Sends a batch to a node. The future ends within the transport's limits: an answer, or `Unreachable`.
    fn send(
        &self,
        to: NodeId,
        batch: Batch,
    ) -> futures::future::BoxFuture<'_, Result<Reply, KvError>>;
    /// Asks a node which range it knows around `key` (its own replicas, or the directory if it leads that).
    fn lookup(
        &self,
        to: NodeId,
        key: Key,
    ) -> futures::future::BoxFuture<'_, Result<Vec<RangeDescriptor>, KvError>>;
    /// Nodes to ask for a range that the cache does not know, nearest first (ourselves, our region, the rest).
    fn nearest(&self) -> Vec<NodeId>;
}

/// One keyspace: batches whose requests may touch several ranges. Implemented by `client::Router`.
pub trait Kv: Send + Sync + 'static {
    /// Splits by range, sends in parallel (limited scans in order), follows moves of ranges and leases, and joins the answers in
    /// request order. Requests that must stay whole (`CommitOnePhase`, `EndTxn`, ...) are refused with `Invalid` if they would have to be split.
    /// Of a batch with a [`Request::Stage`] every error but `Ambiguous`, `Doubtful` and `Unreachable { sent: true }` says that it was not staged.
    fn send(&self, batch: Batch) -> futures::future::BoxFuture<'_, Result<Reply, KvError>>;
    /// The keys of the range that holds `key`, as far as is known here. Only a hint: the range checks.
    fn range_span(&self, key: &Key) -> futures::future::BoxFuture<'_, Result<Span, KvError>>;
}

/// How long a request waits in a range's queue before its gateway is told by whom it is blocked.
pub const WAIT_SLICE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_the_lower_priority_then_the_younger_goes() {
        let txn = |id: u128, started: u64, priority: u32| TxnMeta {
            id: TxnId::new(id),
            anchor: Key::MIN,
            started: Timestamp::from_raw(started),
            priority,
            stage: 0,
        };
        assert!(txn(1, 5, 1).yields_to(&txn(2, 9, 2)));
        assert!(txn(1, 9, 1).yields_to(&txn(2, 5, 1)));
        assert!(!txn(1, 5, 1).yields_to(&txn(2, 9, 1)));
        assert!(txn(2, 5, 1).yields_to(&txn(1, 5, 1)));
    }
}
