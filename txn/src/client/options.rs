//! Value: how a transaction is asked to behave, and the limits of every transaction of a gateway.

use clock::Timestamp;
use std::time::Duration;
use storage::{Direction, key::KEY_BYTES_MAX};

use crate::api::{Lock, WAIT_SLICE};

/// What a transaction may see of others, see `statement` for how each level is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Isolation {
    /// PostgreSQL's READ COMMITTED: each statement sees what was committed when it began ([`super::Txn::begin_statement`]). Rows that
    /// were locked stay as they were locked.
    ReadCommitted,
    /// PostgreSQL's REPEATABLE READ, snapshot isolation: everything is read at one timestamp, and of two that write one row the first
    /// to commit wins.
    Snapshot,
    /// As if transactions ran one after another.
    #[default]
    Serializable,
    /// The same, and in an order that agrees with real time everywhere: commit waits until no clock can be behind it.
    StrictSerializable,
}

/// Whether a transaction may write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Access {
    /// Yes.
    #[default]
    ReadWrite,
    /// No: writes and locks are refused.
    ReadOnly,
    /// No; and it waits before its first read until its snapshot is certain, so that it never has to be run again.
    Deferrable,
}

/// What must not change under a read below `SERIALIZABLE`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Hold {
    /// The rows that it locks, until the commit.
    #[default]
    AsLocked,
    /// All that it has examined, until the commit: for constraints, which hold at every level.
    ToCommit,
}

/// How a transaction begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TxnOptions {
    /// What it may see.
    pub isolation: Isolation,
    /// Whether it may write.
    pub access: Access,
    /// Higher wins pushes. Ordinary: [`PRIORITY_NORMAL`].
    pub priority: u32,
    /// Read the past: everything at exactly this timestamp, no uncertainty. Read-only.
    pub as_of: Option<Timestamp>,
    /// What it may take.
    pub limits: TxnLimits,
    /// For logs: what it is for.
    pub label: String,
}

/// Most that one transaction may take. Over it: [`super::TxnError::TooMany`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxnLimits {
    /// Bytes of keys and values that it writes; each write counts, also one that replaces another.
    pub write_bytes_max: u64,
    /// Rows that it locks.
    pub locks_max: u64,
    /// Savepoints that are open at once.
    pub savepoints_max: u64,
}

impl Default for TxnLimits {
    fn default() -> TxnLimits {
        TxnLimits { write_bytes_max: 4 << 30, locks_max: 1_000_000, savepoints_max: 10_000 }
    }
}

/// Priority of ordinary transactions.
pub const PRIORITY_NORMAL: u32 = 100;

impl Default for TxnOptions {
    fn default() -> TxnOptions {
        TxnOptions {
            isolation: Isolation::default(),
            access: Access::default(),
            priority: PRIORITY_NORMAL,
            as_of: None,
            limits: TxnLimits::default(),
            label: String::new(),
        }
    }
}

impl TxnOptions {
    /// An ordinary read-write transaction, with what logs call it.
    pub fn labelled(label: impl Into<String>) -> TxnOptions {
        TxnOptions { label: label.into(), ..TxnOptions::default() }
    }

    /// A read-only transaction.
    pub fn read_only(label: impl Into<String>) -> TxnOptions {
        TxnOptions { access: Access::ReadOnly, ..TxnOptions::labelled(label) }
    }
}

/// What a locking read (or a read that meets an intent) does about others' locks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnLock {
    /// Waits its turn.
    #[default]
    Wait,
    /// NOWAIT: [`super::TxnError::Blocked`] at once.
    Fail,
    /// SKIP LOCKED: leaves locked rows out.
    Skip,
}

/// Which of its own writes a transaction sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OwnWrites {
    /// All so far.
    #[default]
    All,
    /// Those before [`super::Txn::begin_effects`]; all, if the statement has not called it.
    BeforeEffects,
}

/// How rows are read by key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GetOptions {
    /// Lock to take on every key, absent ones too.
    pub lock: Option<Lock>,
    /// About others' locks.
    pub wait: OnLock,
    /// Below `SERIALIZABLE`.
    pub hold: Hold,
    /// Which of the transaction's own writes are seen.
    pub own: OwnWrites,
}

/// How a span is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScanOptions {
    /// Which way.
    pub direction: Direction,
    /// At most this many rows in the page; 0: no limit.
    pub limit: u64,
    /// End the page after about this many bytes of rows (at least one row); 0: no limit, the caller can hold the whole span.
    pub bytes_max: u64,
    /// Lock to take on every returned row.
    pub lock: Option<Lock>,
    /// About others' locks.
    pub wait: OnLock,
    /// Below `SERIALIZABLE`.
    pub hold: Hold,
    /// Which of the transaction's own writes are seen.
    pub own: OwnWrites,
}

impl Default for ScanOptions {
    fn default() -> ScanOptions {
        ScanOptions {
            direction: Direction::Forward,
            limit: 0,
            bytes_max: 0,
            lock: None,
            wait: OnLock::Wait,
            hold: Hold::AsLocked,
            own: OwnWrites::All,
        }
    }
}

/// Limits and periods of a gateway's transactions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Longest key that may be written, in bytes.
    pub key_bytes_max: usize,
    /// Largest value that may be written, in bytes.
    pub value_bytes_max: usize,
    /// Buffered writes above this are laid down as intents before the commit, and no message of writes is much larger, in bytes.
    pub spill_bytes: usize,
    /// Buffered writes above this are refused, in bytes. Reached only where they cannot be laid down early: by writes under an
    /// open savepoint, or by a caller that never awaits [`super::Txn::spill_if_large`].
    pub buffer_bytes_max: usize,
    /// Read spans above this are condensed into fewer, larger ones, in bytes; then refreshes fail more often than they must.
    pub read_spans_bytes_max: usize,
    /// The same for spans of locks and intents; then they cost more to release.
    pub lock_spans_bytes_max: usize,
    /// The same for what transactions below `SERIALIZABLE` hold, in bytes; then they fail where they need not.
    pub held_spans_bytes_max: usize,
    /// Largest answer asked of one range, in bytes; longer scans go in pieces.
    pub scan_piece_bytes: u64,
    /// How long a request waits at a range for a lock before the holder is pushed.
    pub wait_slice: Duration,
    /// Between two signs of life of a transaction that holds locks or intents.
    pub heartbeat_interval: Duration,
    /// A one-phase commit that is not answered by then, and the time for which it may wait for locks, is asked for.
    pub commit_asked_after: Duration,
    /// So often a parallel commit one of whose writes had to go above the rest moves there and stages again: one message to each range,
    /// as the commit in two phases costs one to the record. 0: never, the record follows.
    pub stagings_again_max: u32,
    /// A record stays for so long after all its intents are gone: who meets a late copy of a write meanwhile finds it.
    pub forget_after: Duration,
    /// How long after its sending the outcome of a commit is searched for when its answer was lost, before it is `Ambiguous`. A little
    /// longer than a range takes to say that it could not replicate it in time, so that in a region cut off this comes within 5 s, too.
    pub outcome_wait: Duration,
    /// Most times [`super::Db::run`] runs its closure.
    pub run_attempts_max: u32,
    /// Most times one operation moves the transaction's timestamp before it asks for a restart.
    pub moves_max: u32,
    /// Chaos only: a known mistake made on purpose, so that a harness can show that it would notice.
    pub planted: Option<PlantedBug>,
}

/// A mistake that has broken real systems, brought back on purpose. Never set outside of chaos and tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlantedBug {
    /// H04: a strictly serializable commit is answered as soon as this gateway's clock has passed it.
    CommitWaitSkipped,
    /// T07: a transaction of `READ COMMITTED` commits although a lock that its statements relied on was lost.
    LockLossUnnoticed,
    /// T12: nobody asks after holders that are only ever skipped.
    SkippedNotAsked,
    /// T10: a savepoint's locks are given back in the words of an abort, which take an intent that was laid since, too, when they come late.
    UnlockResolves,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            key_bytes_max: KEY_BYTES_MAX,
            value_bytes_max: 16 << 20,
            spill_bytes: 1 << 20,
            buffer_bytes_max: 32 << 20,
            read_spans_bytes_max: 4 << 20,
            lock_spans_bytes_max: 4 << 20,
            held_spans_bytes_max: 32 << 20,
            scan_piece_bytes: 4 << 20,
            wait_slice: WAIT_SLICE,
            heartbeat_interval: Duration::from_secs(1),
            commit_asked_after: Duration::from_secs(1),
            stagings_again_max: 0,
            forget_after: Duration::ZERO,
            outcome_wait: Duration::from_millis(4500),
            run_attempts_max: 50,
            moves_max: 100,
            planted: None,
        }
    }
}
