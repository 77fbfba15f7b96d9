//! Value: why a range, or a router, refuses a batch.

use bytes::Bytes;
use clock::Timestamp;
use replication::range::{NodeId, RangeDescriptor, RangeId};
use storage::Key;

use super::{TxnId, TxnMeta};

/// Why a batch was not carried out, by what the caller must do about it. Except for `Ambiguous` and
/// `Doubtful`, it had and will have no effect.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KvError {
    /// Re-route: that node does not hold the lease. With the node that may.
    #[error("{range} is not led here")]
    NotLeaseholder {
        /// Which range.
        range: RangeId,
        /// Who may lead it.
        hint: Option<NodeId>,
    },
    /// Re-route: the keys are not (all) in that range. With what the node knows instead.
    #[error("keys are outside {range}")]
    RangeMismatch {
        /// Which range was asked.
        range: RangeId,
        /// Newer descriptors around the keys.
        known: Vec<RangeDescriptor>,
    },
    /// Re-route after a pause: nobody answers there. `sent`: whether the request may have arrived (only then can it have taken effect,
    /// and only if it is not idempotent does that matter).
    #[error("{node} does not answer")]
    Unreachable {
        /// Who.
        node: NodeId,
        /// Whether it may have arrived.
        sent: bool,
    },
    /// Refresh: a version in the uncertainty interval. Read again at or above `ts`.
    #[error("uncertain value at {ts}")]
    Uncertain {
        /// Where.
        key: Key,
        /// The version's timestamp.
        ts: Timestamp,
    },
    /// Refresh: a locking read met a version newer than `read_at`. Read again at or above `ts`.
    #[error("newer value at {ts}")]
    NewerVersion {
        /// Where.
        key: Key,
        /// The version's timestamp.
        ts: Timestamp,
    },
    /// Refresh: the commit must go to `ts`. Refresh all reads to it and try again with it as `read_at`.
    #[error("commit must move to {ts}")]
    NeedsRefresh {
        /// The least possible commit timestamp.
        ts: Timestamp,
    },
    /// Restart the transaction: what it read has been overwritten.
    #[error("{key} was overwritten at {ts}")]
    RefreshFailed {
        /// Where.
        key: Key,
        /// By a version (or intent) at.
        ts: Timestamp,
        /// Whose, where what lies there tells it.
        by: Option<TxnId>,
    },
    /// Push the holder, then ask again.
    #[error("{key} is locked by {}", holder.id)]
    Blocked {
        /// Where.
        key: Key,
        /// By whom.
        holder: TxnMeta,
        /// Last sign of life known here (intent timestamp or lock time).
        active: Timestamp,
        /// Intent (replicated) or only a lock.
        intent: bool,
    },
    /// Restart the transaction: it would wait for others that wait for it, and is the one to give way. Its locks there are gone.
    #[error("waiting for {key} closes a circle")]
    Deadlock {
        /// Where.
        key: Key,
        /// For whom it would wait.
        holder: TxnId,
    },
    /// Restart the transaction under a new id: it was aborted by another.
    #[error("transaction was aborted: {reason}")]
    TxnAborted {
        /// In plain words.
        reason: String,
    },
    /// Give up, or try again when others have ended: the range keeps no more locks.
    #[error("{range} keeps {limit} locks, and no more")]
    TooManyLocks {
        /// Which range.
        range: RangeId,
        /// So many.
        limit: u64,
    },
    /// Give up: the row is there already.
    #[error("{key} exists")]
    Exists {
        /// Where.
        key: Key,
        /// What is there.
        value: Bytes,
    },
    /// Plan again under a newer schema.
    #[error("schema of table {table} is at version {version}")]
    SchemaChanged {
        /// Which table.
        table: u32,
        /// Lowest version accepted.
        version: u64,
    },
    /// Give up: history that old is gone.
    #[error("history at or below {threshold} is gone")]
    BelowGc {
        /// Everything at or below.
        threshold: Timestamp,
    },
    /// Give up (or try again later): no quorum. Names what is missing.
    #[error("{range} is unavailable: {reason}")]
    Unavailable {
        /// Which range.
        range: RangeId,
        /// Voters that are not heard of.
        missing: Vec<NodeId>,
        /// In plain words.
        reason: String,
    },
    /// Try again after a pause: too much at once.
    #[error("{range} is overloaded")]
    Overloaded {
        /// Which range.
        range: RangeId,
    },
    /// Report: it may or may not have taken effect.
    #[error("result is ambiguous: {reason}")]
    Ambiguous {
        /// In plain words.
        reason: String,
    },
    /// A copy of a commit was refused like this, without effect; an earlier copy may have been carried out, or still be. Made by routers.
    #[error("{refused} (an earlier try was not answered)")]
    Doubtful {
        /// The refusal: what it asks for is worth doing before the next copy.
        refused: Box<KvError>,
    },
    /// The commit would be above its deadline: restart.
    #[error("deadline passed")]
    DeadlinePassed,
    /// A programmer's or a client's error; trying again does not help.
    #[error("{0}")]
    Invalid(String),
}
