//! Value: why a transaction's operation failed, by what its caller must do about it.

use clock::Timestamp;
use replication::range::{NodeId, RangeId};
use std::time::Duration;
use storage::Key;
use storage::mvcc::TxnId;

use crate::api::KvError;
use crate::client::{Question, Ticket};

/// What went against a transaction that has to be run again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetryKind {
    /// Something it has read was overwritten before it could commit.
    Overwritten,
    /// Another transaction aborted it (it looked dead, or had a lower priority).
    Aborted,
    /// It would have committed above its deadline.
    DeadlinePassed,
    /// A lock that it held was lost before it could commit: others may have had it since.
    LockLost,
}

/// Which limit of time ran out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeoutKind {
    /// [`super::Txn::set_lock_timeout`].
    Lock,
    /// [`super::Txn::set_deadline`].
    Statement,
}

/// Why an operation of a [`super::Txn`] failed. Unless it says otherwise, the transaction has had no effect and can have none
/// any more only after its rollback; variants differ in what the caller must do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TxnError {
    /// Run the whole transaction again ([`super::Txn::restart`]): it cannot commit, others can.
    #[error("transaction must be run again: {reason}")]
    Retry {
        /// What happened.
        kind: RetryKind,
        /// Where, when it is known.
        key: Option<Key>,
        /// Who it was that went against it, if it was somebody.
        other: Option<Question>,
        /// In plain words.
        reason: String,
    },
    /// Give up, or do without the insert: the row is there.
    #[error("{key} exists")]
    Exists {
        /// Where.
        key: Key,
        /// What is there.
        value: bytes::Bytes,
    },
    /// NOWAIT met a lock. The transaction stays usable.
    #[error("{key} is locked by {holder}")]
    Blocked {
        /// Where.
        key: Key,
        /// By whom.
        holder: TxnId,
    },
    /// Plan again under a newer schema and run the transaction again.
    #[error("schema of table {table} is at version {version}")]
    SchemaChanged {
        /// Which table.
        table: u32,
        /// Lowest version accepted.
        version: u64,
    },
    /// Give up: the history asked for is gone.
    #[error("history at or below {threshold} is gone")]
    BelowGc {
        /// Everything at or below.
        threshold: Timestamp,
    },
    /// Give up, or try again later or elsewhere: nothing that begins at this gateway is in real-time order, as its clock may not be read
    /// yet. Only of strictly serializable transactions; nothing was sent.
    #[error("this node's clock is {by:?} behind and does not catch up")]
    ClockLags {
        /// How far.
        by: Duration,
    },
    /// Give up, or try again later: part of the data cannot be reached. Nothing was committed.
    #[error("{range} is unavailable: {reason}")]
    Unavailable {
        /// Which range.
        range: RangeId,
        /// Nodes that do not answer.
        missing: Vec<NodeId>,
        /// In plain words.
        reason: String,
    },
    /// Report, never repeat: the transaction may or may not have committed.
    #[error("the outcome is unknown: {reason}")]
    Ambiguous {
        /// With it one can ask later; `None`: it was no commit.
        ticket: Option<Ticket>,
        /// In plain words.
        reason: String,
    },
    /// Run the transaction again: it was chosen to give way in a cycle of waiting transactions.
    #[error("deadlock: gave way to {holder}, which holds {key}")]
    Deadlock {
        /// The lock it waited for.
        key: Key,
        /// Its holder, which waited, directly or not, for this transaction.
        holder: TxnId,
    },
    /// Give up, or write less at once.
    #[error("{what}: {actual} bytes, over the limit of {limit}")]
    TooLarge {
        /// What has the limit.
        what: &'static str,
        /// In bytes, inclusive.
        limit: u64,
        /// In bytes.
        actual: u64,
    },
    /// Give up, or ask for a higher limit ([`super::TxnLimits`]).
    #[error("{what}: {actual}, over the limit of {limit}")]
    TooMany {
        /// What has the limit, with its unit.
        what: &'static str,
        /// Inclusive.
        limit: u64,
        /// How many it would have been.
        actual: u64,
    },
    /// Give up: a time limit set by the caller ran out. The transaction stays usable, except in its commit.
    #[error("waited {waited:?} for a lock")]
    Timeout {
        /// Which limit.
        kind: TimeoutKind,
        /// The lock that was waited for.
        key: Option<Key>,
        /// Who held it.
        holder: Option<TxnId>,
        /// How long.
        waited: Duration,
    },
    /// A write in a read-only transaction.
    #[error("transaction is read-only")]
    ReadOnly,
    /// A programmer's or a client's error; trying again does not help.
    #[error("{0}")]
    Invalid(String),
}

impl TxnError {
    /// Whether running the transaction again from its start may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            TxnError::Retry { .. } | TxnError::Deadlock { .. } => true,
            TxnError::Exists { .. }
            | TxnError::Blocked { .. }
            | TxnError::SchemaChanged { .. }
            | TxnError::BelowGc { .. }
            | TxnError::ClockLags { .. }
            | TxnError::Unavailable { .. }
            | TxnError::Ambiguous { .. }
            | TxnError::TooLarge { .. }
            | TxnError::TooMany { .. }
            | TxnError::Timeout { .. }
            | TxnError::ReadOnly
            | TxnError::Invalid(_) => false,
        }
    }

    /// A range's refusal as the transaction's caller sees it. Refusals that the coordinator answers itself (refresh, push, re-route)
    /// come here only when that has not helped.
    pub(crate) fn from_kv(error: KvError) -> TxnError {
        match error {
            KvError::Exists { key, value } => TxnError::Exists { key, value },
            KvError::SchemaChanged { table, version } => TxnError::SchemaChanged { table, version },
            KvError::BelowGc { threshold } => TxnError::BelowGc { threshold },
            KvError::Unavailable { range, missing, reason } => {
                TxnError::Unavailable { range, missing, reason }
            }
            KvError::Ambiguous { reason } => TxnError::Ambiguous { ticket: None, reason },
            KvError::Doubtful { refused } => {
                TxnError::Ambiguous { ticket: None, reason: refused.to_string() }
            }
            KvError::Deadlock { key, holder } => TxnError::Deadlock { key, holder },
            KvError::Blocked { key, holder, .. } => TxnError::Blocked { key, holder: holder.id },
            KvError::RefreshFailed { key, ts, by } => TxnError::Retry {
                kind: RetryKind::Overwritten,
                reason: format!("{key}, which it has read, was overwritten at {ts}"),
                other: Some(match by {
                    Some(txn) => Question::Transaction(txn),
                    None => Question::Writer { key: key.clone(), ts },
                }),
                key: Some(key),
            },
            KvError::Uncertain { key, ts } | KvError::NewerVersion { key, ts } => TxnError::Retry {
                kind: RetryKind::Overwritten,
                reason: format!("{key} has a newer value, of {ts}"),
                other: Some(Question::Writer { key: key.clone(), ts }),
                key: Some(key),
            },
            KvError::NeedsRefresh { ts } => TxnError::Retry {
                kind: RetryKind::Overwritten,
                key: None,
                other: None,
                reason: format!("its commit had to move to {ts}"),
            },
            KvError::TxnAborted { reason } => {
                TxnError::Retry { kind: RetryKind::Aborted, key: None, other: None, reason }
            }
            KvError::TooManyLocks { limit, .. } => TxnError::TooMany {
                what: "rows of one range that are locked",
                limit,
                actual: limit + 1,
            },
            KvError::DeadlinePassed => TxnError::Retry {
                kind: RetryKind::DeadlinePassed,
                key: None,
                other: None,
                reason: "its commit would have been above its deadline".into(),
            },
            KvError::Unreachable { node, .. } => TxnError::Unavailable {
                range: RangeId::default(),
                missing: vec![node],
                reason: format!("{node} does not answer"),
            },
            KvError::NotLeaseholder { range, .. } => TxnError::Unavailable {
                range,
                missing: Vec::new(),
                reason: "its leaseholder was not found".into(),
            },
            KvError::RangeMismatch { range, .. } => TxnError::Unavailable {
                range,
                missing: Vec::new(),
                reason: "its boundaries kept changing".into(),
            },
            KvError::Overloaded { range } => TxnError::Unavailable {
                range,
                missing: Vec::new(),
                reason: "it is overloaded".into(),
            },
            KvError::Invalid(reason) => TxnError::Invalid(reason),
        }
    }
}
