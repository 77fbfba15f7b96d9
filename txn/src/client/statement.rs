//! Driver: statements and savepoints of a transaction, and what each isolation level makes hold at its commit.
//!
//! ```text
//!                        plain reads hold at           rows locked, constraints checked, hold from ... to
//!   SERIALIZABLE         the commit timestamp          the same: the commit timestamp
//!   REPEATABLE READ      read_at (one snapshot)        read_at to the commit timestamp; so do rows written
//!   READ COMMITTED       their statement's read_at     their statement's read_at to the commit timestamp
//! ```
//!
//! "Hold" is checked by timestamps, never by locks: a span holds from `a` to `b` if a refresh at `b` has found nobody's write in
//! `(a, b]`, and has left its read mark at `b`, so that nobody will write there any more. Locks only keep others from
//! invalidating it in the meantime; if they are lost (a lease moved), the refresh at the commit finds the other's write, and the
//! transaction fails with `Retry` instead of losing an update. Under `READ COMMITTED` it also fails if nothing was written there: what
//! statements have seen after one that has locked may rely on the lock. Decision 10 has the argument in full.
//!
//! A statement of `READ COMMITTED` runs under a savepoint of its own. If what it has read was overwritten before it could lock it, it
//! is rolled back and run again at a later timestamp ([`Txn::restart_statement`]); its locks stay, so that it gets further each time.

use coverage::Mark;
use std::time::Duration;
use storage::{Key, Span};

use crate::api::{KvError, Lock, LockEra, Reply, Request, TxnStatus};
use crate::client::spans::SpanSet;
use crate::client::txn::{State, check_count, no_savepoint};
use crate::client::wait::{resolve, send_plain};
use crate::client::{
    Access, Isolation, OwnWrites, PlantedBug, RetryKind, SavepointId, Txn, TxnError,
};

/// Statements with held rows whose timestamps are kept apart; with more, one round of refreshes brings them to one.
const EARLIER_MAX: usize = 16;
/// Spans of locks released by one request.
const RELEASED_MAX: usize = 128;

impl Isolation {
    /// Whether plain reads need not hold at the commit.
    pub(super) fn is_weak(self) -> bool {
        match self {
            Isolation::ReadCommitted | Isolation::Snapshot => true,
            Isolation::Serializable | Isolation::StrictSerializable => false,
        }
    }
}

/// An open savepoint's part of the locks, and of what must hold at the commit below `SERIALIZABLE`.
pub(super) struct LockLevel {
    id: SavepointId,
    /// Locked since, and not before.
    fresh: SpanSet,
    /// Held since, and not before.
    held: SpanSet,
    /// The transaction's first stage under it.
    since: u32,
    /// Rows locked before it.
    locked_before: u64,
}

impl Txn {
    /// A statement begins. Under `READ COMMITTED` it sees what is committed now; at the other levels so does the first one.
    ///
    /// # Errors
    /// What ended the transaction. `Retry`: a row that an earlier statement had locked was changed all the same.
    pub async fn begin_statement(&mut self) -> Result<(), TxnError> {
        self.check_open()?;
        self.end_statement();
        if self.options.as_of.is_some() {
            return Ok(());
        }
        let is_first = self.reads.is_empty() && self.anchor.is_none() && !self.has_writes();
        if self.options.isolation == Isolation::ReadCommitted {
            self.held.close(self.read_at, self.db.settings().held_spans_bytes_max);
            self.reads = SpanSet::default();
            self.date();
            if self.held.earlier_count() > EARLIER_MAX {
                self.bring_held().await?;
            }
            self.written_before = self.written_bytes;
            self.statement = Some(self.buffer.savepoint());
        } else if is_first {
            self.date();
        }
        self.catch_up().await
    }

    /// Before anything of the transaction leaves the gateway: lets another by ([`Txn::let_by`]); and if it was dated by a clock that lagged, waits until that has caught up,
    /// and dates it anew. Others who heard of commits before it began would not be before it otherwise.
    ///
    /// # Errors
    /// `ClockLags`: it does not catch up, and the transaction is to be in real-time order.
    pub(super) async fn catch_up(&mut self) -> Result<(), TxnError> {
        if self.lets_by.is_some() {
            Box::pin(self.let_by()).await?;
        }
        let is_new = self.reads.is_empty() && self.locks.is_empty() && self.intents.is_empty();
        if !self.lags || !is_new {
            return Ok(());
        }
        self.db.wait_for_clock().await;
        self.date();
        if self.lags && self.options.isolation == Isolation::StrictSerializable {
            // It still lags: whatever is tried next in this transaction waits, too, and is refused.
            coverage::reached(Mark::StrictRefusedByClock);
            return Err(TxnError::ClockLags { by: self.db.runtime().hlc.held_back() });
        }
        // Of the others nobody promised more than an order, and they do not wait twice for one date.
        self.lags = false;
        Ok(())
    }

    /// From here to the statement's end, reads with [`OwnWrites::BeforeEffects`] see of the transaction's own writes those so far and
    /// no later ones. What is written meanwhile stays at the gateway, and must fit there.
    pub fn begin_effects(&mut self) {
        self.end_effects();
        self.effects = Some(self.buffer.savepoint());
    }

    /// Whether a key was written since [`Txn::begin_effects`].
    pub fn is_own_effect(&self, key: &Key) -> bool {
        self.effects.is_some_and(|begin| self.buffer.is_written_since(key, begin))
    }

    /// From where on reads that see these do not see its own writes.
    pub(super) fn hidden_from(&self, own: OwnWrites) -> Option<SavepointId> {
        match own {
            OwnWrites::All => None,
            OwnWrites::BeforeEffects => self.effects,
        }
    }

    fn end_effects(&mut self) {
        if let Some(begin) = self.effects.take() {
            self.buffer.release(begin);
        }
    }

    /// The statement's effects stay.
    pub(super) fn end_statement(&mut self) {
        self.end_effects();
        if let Some(statement) = self.statement.take() {
            self.buffer.release(statement);
        }
    }

    /// Whether the statement under way can be run again without the rest of the transaction: `READ COMMITTED`, what it has read was
    /// overwritten, and none of its writes has left the gateway.
    pub fn can_restart_statement(&self) -> bool {
        let may = match &self.state {
            State::Open => self.check_open().is_ok(),
            State::Broken(TxnError::Retry { kind: RetryKind::Overwritten, .. }) => {
                !self.pulse.as_ref().is_some_and(|pulse| pulse.is_stopped())
            }
            State::Broken(_) | State::Committed | State::RolledBack | State::Unknown(_) => false,
        };
        may && self.statement.is_some_and(|statement| self.buffer.has_savepoint(statement))
    }

    /// Takes back what the statement under way has written, and forgets what it has read. Its locks stay. Then
    /// [`Txn::begin_statement`].
    ///
    /// # Panics
    /// If it cannot be ([`Txn::can_restart_statement`]).
    pub fn restart_statement(&mut self) {
        assert!(self.can_restart_statement(), "{} cannot run its statement again", self.id);
        coverage::reached(Mark::StatementRestarted);
        let statement = self.statement.take().expect("it was just asked for");
        self.effects = None;
        self.buffer.rollback_to(statement);
        self.buffer.release(statement);
        self.written_bytes = self.written_before;
        self.held.forget_statement();
        self.reads = SpanSet::default();
        self.state = State::Open;
    }

    /// A statement that writes much must lay its writes down: from then on it cannot be run again by itself.
    pub(super) fn let_large_statement_settle(&mut self) {
        // While effects are hidden nothing of the statement can be laid down: giving up its savepoint would win nothing.
        if self.effects.is_some() || self.buffer.bytes() <= self.db.settings().spill_bytes {
            return;
        }
        if let Some(statement) = self.statement.take_if(|id| self.buffer.is_outermost(*id)) {
            coverage::reached(Mark::LargeStatementSettled);
            self.buffer.release(statement);
        }
    }

    /// Before anything of the commit is sent: leaves in `reads` only what has to hold at the commit timestamp, as of `read_at`.
    ///
    /// # Errors
    /// `Retry`: a row that an earlier statement had locked was changed all the same.
    pub(super) async fn narrow_reads(&mut self) -> Result<(), TxnError> {
        self.end_statement();
        let settings = self.db.settings();
        let (read_max, held_max) = (settings.read_spans_bytes_max, settings.held_spans_bytes_max);
        match self.options.isolation {
            Isolation::Serializable | Isolation::StrictSerializable => {}
            // What it overwrites without having locked it counts too: the first committer wins.
            Isolation::Snapshot => {
                self.reads = self.held.all(held_max);
                for mutation in self.buffer.mutations() {
                    self.reads.add(Span::point(&mutation.key), held_max.max(read_max));
                }
                self.reads.add_all(&self.intents, held_max.max(read_max));
            }
            Isolation::ReadCommitted => {
                self.bring_held().await?;
                self.reads = self.held.all(held_max);
            }
        }
        Ok(())
    }

    /// Makes what earlier statements hold hold at `read_at`.
    async fn bring_held(&mut self) -> Result<(), TxnError> {
        let at = self.read_at;
        let requests = self.held.refreshes();
        if !requests.is_empty() {
            self.refresh(requests, at).await?;
            coverage::reached(Mark::HeldRowsRefreshed);
        }
        self.held.refreshed(at, self.db.settings().held_spans_bytes_max);
        Ok(())
    }

    /// Something is held in these eras.
    ///
    /// # Errors
    /// `Retry`: it is not the first that is held there, and the others may be lost.
    pub(super) fn note_eras(&mut self, reply: &Reply, lock: Option<Lock>) -> Result<(), TxnError> {
        if self.options.isolation == Isolation::ReadCommitted
            && !self.held.add_eras(&reply.eras, lock, reply.read_high)
            && self.db.settings().planted != Some(PlantedBug::LockLossUnnoticed)
        {
            coverage::reached(Mark::LockLossNoticed);
            return Err(self.doom(lock_lost()));
        }
        Ok(())
    }

    /// Whether what statements have seen may be right only because an earlier one had locked something.
    pub(super) fn relies_on_locks(&self) -> bool {
        self.options.isolation == Isolation::ReadCommitted && self.held.earlier_count() > 0
    }

    /// A range has answered: whether what earlier statements have locked is still locked, and by a transaction that may commit.
    ///
    /// Whoever has the lock next, also after it was lost, dates what it looks at then at or above the range's reads so far, and this answer
    /// is one of them. So it sees what we commit at the answer's timestamp, or, where that is not laid yet, keeps it from being laid
    /// there; then we move, and ask again.
    ///
    /// # Errors
    /// `Retry`.
    pub(super) fn check_locks(
        &mut self,
        eras: &[LockEra],
        own: Option<&TxnStatus>,
    ) -> Result<(), TxnError> {
        if own == Some(&TxnStatus::Aborted) {
            coverage::reached(Mark::LockLossNoticed);
            return Err(self.doom(TxnError::from_kv(KvError::TxnAborted {
                reason: "it was aborted by another, which took it for dead".into(),
            })));
        }
        if self.db.settings().planted != Some(PlantedBug::LockLossUnnoticed)
            && !self.held.keeps(eras)
        {
            coverage::reached(Mark::LockLossNoticed);
            return Err(self.doom(lock_lost()));
        }
        Ok(())
    }

    /// Below `SERIALIZABLE`: this has to hold from now to the commit.
    pub(super) fn note_held(&mut self, span: Span) {
        if !self.options.isolation.is_weak() {
            return;
        }
        let bytes_max = self.db.settings().held_spans_bytes_max;
        if let Some(level) = self.lock_levels.last_mut() {
            for part in self.held.missing(&span) {
                level.held.add(part, bytes_max);
            }
        }
        self.held.add(span, bytes_max);
    }

    /// Counts keys that were just locked; those that were locked before do not count again. To be called before they are noted.
    pub(super) fn count_locks<'k>(&mut self, keys: impl Iterator<Item = &'k Key>) {
        self.locked_count += keys.filter(|key| !self.locks.contains(key)).count() as u64;
    }

    /// Whether it may hold what it has locked. A transaction that may not goes no further; its locks are noted, so that they are
    /// released with it, or with the savepoint under which it took them.
    pub(super) fn check_lock_count(&self) -> Result<(), TxnError> {
        let limit = self.options.limits.locks_max;
        check_count("rows locked by a transaction", limit, self.locked_count)
    }

    /// What was asked for by a request that failed may have been granted in part.
    pub(super) fn note_stray_locks(&mut self) {
        for span in std::mem::take(&mut self.locking) {
            self.note_locked(span);
        }
    }

    pub(super) fn note_lock(&mut self, span: Span, lock: Option<Lock>) {
        if lock.is_some() {
            self.note_locked(span);
        }
    }

    fn note_locked(&mut self, span: Span) {
        let bytes_max = self.db.settings().lock_spans_bytes_max;
        if let Some(level) = self.lock_levels.last_mut() {
            for part in self.locks.missing(&span) {
                level.fresh.add(part, bytes_max);
            }
        }
        self.locks.add(span, bytes_max);
    }

    /// A point to roll back to.
    ///
    /// # Errors
    /// `TooMany`.
    pub fn savepoint(&mut self) -> Result<SavepointId, TxnError> {
        self.end_statement();
        self.note_stray_locks();
        let (limit, count) =
            (self.options.limits.savepoints_max, self.lock_levels.len() as u64 + 1);
        check_count("savepoints of a transaction", limit, count)?;
        let id = self.buffer.savepoint();
        let locked_before = self.locked_count;
        self.stage += 1;
        let (fresh, held, since) = (SpanSet::default(), SpanSet::default(), self.stage);
        self.lock_levels.push(LockLevel { id, fresh, held, since, locked_before });
        Ok(id)
    }

    /// Takes back all writes since the savepoint, and releases the locks taken since. What was read since still counts as read: the
    /// client has seen it.
    ///
    /// # Errors
    /// `Invalid`: no such savepoint is open. What ended the transaction.
    pub async fn rollback_to(&mut self, savepoint: SavepointId) -> Result<(), TxnError> {
        self.check_open()?;
        coverage::reached(Mark::SavepointRolledBack);
        if !self.buffer.rollback_to(savepoint) {
            return Err(no_savepoint());
        }
        (self.statement, self.effects) = (None, None);
        self.note_stray_locks();
        let place = self.lock_place(savepoint);
        let settings = self.db.settings();
        let (locks_max, held_max) = (settings.lock_spans_bytes_max, settings.held_spans_bytes_max);
        let (mut taken, mut held) = (SpanSet::default(), SpanSet::default());
        for level in self.lock_levels.drain(place + 1..) {
            taken.add_all(&level.fresh, locks_max);
            held.add_all(&level.held, held_max);
        }
        let level = &mut self.lock_levels[place];
        taken.add_all(&std::mem::take(&mut level.fresh), locks_max);
        held.add_all(&std::mem::take(&mut level.held), held_max);
        let since = level.since;
        self.locked_count = level.locked_before;
        // Condensed, these have keys that were locked or held before the savepoint. What is kept too long only makes others wait, or
        // this commit run again.
        if !held.is_condensed() {
            held.iter().for_each(|span| self.held.remove(&span));
        }
        if !taken.is_condensed() {
            taken.iter().for_each(|span| self.locks.remove(&span));
        }
        self.give_back(&taken, since).await;
        Ok(())
    }

    /// Forgets a savepoint and those inside it; keeps their writes and locks.
    ///
    /// # Errors
    /// As [`Txn::rollback_to`].
    pub fn release(&mut self, savepoint: SavepointId) -> Result<(), TxnError> {
        self.check_open()?;
        self.end_statement();
        self.note_stray_locks();
        if !self.buffer.release(savepoint) {
            return Err(no_savepoint());
        }
        let settings = self.db.settings();
        let (locks_max, held_max) = (settings.lock_spans_bytes_max, settings.held_spans_bytes_max);
        let inner = self.lock_levels.split_off(self.lock_place(savepoint));
        if let Some(outer) = self.lock_levels.last_mut() {
            for level in inner {
                outer.fresh.add_all(&level.fresh, locks_max);
                outer.held.add_all(&level.held, held_max);
            }
        }
        Ok(())
    }

    fn lock_place(&self, savepoint: SavepointId) -> usize {
        let place = self.lock_levels.iter().position(|level| level.id == savepoint);
        place.expect("a savepoint of the buffer has its level of locks")
    }

    /// Releases locks taken since a stage, before the transaction's end; ranges keep those of earlier stages. Failures leave them held:
    /// that only makes others wait.
    async fn give_back(&mut self, taken: &SpanSet, since: u32) {
        let upto = self.stage;
        self.stage += 1;
        if taken.is_empty() {
            return;
        }
        coverage::reached(Mark::LocksGivenBack);
        for chunk in taken.to_vec().chunks(RELEASED_MAX) {
            let spans = chunk.to_vec();
            let outcome = match self.db.settings().planted {
                Some(PlantedBug::UnlockResolves) => {
                    resolve(&self.db, self.id, None, &[], spans).await
                }
                _ => {
                    let request = Request::Unlock { spans, since, upto };
                    send_plain(&self.db, Some(self.meta()), request).await
                }
            };
            if let Err(error) = outcome {
                tracing::debug!(txn = %self.id, %error, "locks were not given back");
                let bytes_max = self.db.settings().lock_spans_bytes_max;
                chunk.iter().for_each(|span| self.locks.add(span.clone(), bytes_max));
            }
        }
    }

    /// Deferrable: waits until everything at or below the snapshot is known to be past everywhere.
    pub(super) async fn wait_for_snapshot(&self) {
        if self.options.access != Access::Deferrable {
            return;
        }
        let (hlc, time) = (&self.db.runtime().hlc, &self.db.runtime().time);
        loop {
            let now = hlc.now().timestamp();
            if now >= self.read_at {
                return;
            }
            coverage::reached(Mark::SnapshotWaitedFor);
            let rest = self.read_at.since(now).max(Duration::from_micros(1));
            time.sleep_until(time.monotonic().plus(rest)).await;
        }
    }
}

fn lock_lost() -> TxnError {
    TxnError::Retry {
        kind: RetryKind::LockLost,
        key: None,
        other: None,
        reason: "a lock that it held was lost, as the range's lease moved".into(),
    }
}
