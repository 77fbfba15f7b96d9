//! Driver: the commit.
//!
//! *One phase*: all writes are in one range and none was laid down before. One request; the range writes committed values.
//! *Two phases*: intents on all ranges in parallel; refresh of everything read if one had to go above `read_at`; then the
//! record, which is the commit. (CockroachDB, SIGMOD 2020, without its parallel commits.)
//!
//! INVARIANT: the record is written only after every intent is known to be laid, at or below the commit timestamp.
//!
//! A lost answer: a one-phase commit leaves no trace to ask for, so its outcome is ambiguous. A two-phase commit's record says what
//! happened; it is asked until it answers or `outcome_wait` is over. Before a failure is reported after a commit may have
//! arrived, the record is made to say "aborted" (killers T01, T04).

use clock::{Monotonic, Timestamp};
use coverage::Mark;
use std::time::Duration;
use storage::{Key, Span};

use crate::api::{Expect, KvError, Lock, Mutation, Request, Response, Wait};
use crate::client::cleanup::Outcome;
use crate::client::exchange::{Purpose, Trials};
use crate::client::txn::{State, unexpected};
use crate::client::wait::send_plain;
use crate::client::{Isolation, OnLock, RetryKind, Txn, TxnError};

/// Pause before the record is asked again.
const OUTCOME_PAUSE: Duration = Duration::from_millis(50);
/// So often a commit of one phase moves above others' reads before it is made in two.
const ONE_PHASE_MOVES_MAX: u32 = 1;
/// Keys read in one batch to find out whether inserted rows are there.
const RECHECK_KEYS_MAX: usize = 1_024;

/// How a transaction was committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitPath {
    /// It wrote nothing; no message was sent.
    ReadOnly,
    /// By one request.
    OnePhase,
    /// By intents and a record.
    TwoPhase,
}

/// A commit that has happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitInfo {
    /// Everything it has read holds, and everything it has written is, at this timestamp.
    pub ts: Timestamp,
    /// How.
    pub path: CommitPath,
}

impl Txn {
    /// Commits. Afterwards the transaction has ended, whatever the answer; only [`Txn::restart`] is left, and only after an error
    /// that is not `Ambiguous`.
    ///
    /// # Errors
    /// `Ambiguous`: it may have committed. Everything else: it has not, and never will.
    pub async fn commit(&mut self) -> Result<CommitInfo, TxnError> {
        self.check_open()?;
        match self.commit_by_path().await {
            Ok(info) => {
                self.state = State::Committed;
                self.leave(match info.path {
                    CommitPath::TwoPhase => Outcome::Committed(info.ts),
                    CommitPath::OnePhase | CommitPath::ReadOnly => Outcome::WithoutRecord,
                });
                self.wait_for_time(info).await;
                Ok(info)
            }
            Err(error @ TxnError::Ambiguous { .. }) => {
                self.state = State::Unknown(error.clone());
                self.leave(Outcome::Undecided);
                Err(error)
            }
            Err(error) => {
                self.leave(Outcome::Undecided);
                Err(self.doom(error))
            }
        }
    }

    async fn commit_by_path(&mut self) -> Result<CommitInfo, TxnError> {
        if self.buffer.is_empty() && self.intents.is_empty() {
            return Ok(CommitInfo { ts: self.read_at, path: CommitPath::ReadOnly });
        }
        self.narrow_reads().await?;
        let mutations = self.buffer.mutations();
        let one_message = self.buffer.bytes() <= self.db.settings().spill_bytes;
        if self.intents.is_empty()
            && one_message
            && self.in_one_range(&mutations).await?
            && let Some(info) = self.commit_one_phase(&mutations).await?
        {
            return Ok(info);
        }
        self.lay(mutations).await?;
        let ts = self.commit_record().await?;
        coverage::reached(Mark::TwoPhaseCommitted);
        Ok(CommitInfo { ts, path: CommitPath::TwoPhase })
    }

    /// Ranges are contiguous: first and last key decide.
    async fn in_one_range(&self, mutations: &[Mutation]) -> Result<bool, TxnError> {
        let (Some(first), Some(last)) = (mutations.first(), mutations.last()) else {
            return Ok(false);
        };
        let keys: Vec<Key> = vec![first.key.clone(), last.key.clone()];
        self.db.kv().one_range(&keys).await.map_err(|error| TxnError::from_kv(error, self.id))
    }

    /// `None`: nothing is committed, and it should be tried in two phases: the writes are in several ranges after all, or others
    /// read above them again and again.
    async fn commit_one_phase(
        &mut self,
        mutations: &[Mutation],
    ) -> Result<Option<CommitInfo>, TxnError> {
        if self.anchor.is_none() {
            // No sign of life is needed: it holds nothing while it waits.
            self.anchor = mutations.first().map(|mutation| mutation.key.clone());
        }
        let mut trials = Trials::new(Purpose::Lock, OnLock::Wait);
        let mut moves = 0;
        loop {
            self.check_open()?;
            let request = Request::CommitOnePhase {
                mutations: mutations.to_vec(),
                // All of them; the router leaves the range its own and says whether there were others.
                reads: self.reads.to_vec(),
                reads_elsewhere: false,
                deadline: self.commit_deadline,
            };
            let batch = self.batch(vec![request], self.wait_mode(&trials));
            match self.send(batch).await {
                Ok(reply) => match reply.responses.first() {
                    Some(Response::Committed(ts)) => {
                        return Ok(Some(CommitInfo { ts: *ts, path: CommitPath::OnePhase }));
                    }
                    _ => return Err(unexpected("CommitOnePhase")),
                },
                Err(KvError::Ambiguous { reason }) => {
                    coverage::reached(Mark::OnePhaseAmbiguous);
                    return Err(TxnError::Ambiguous { txn: self.id, reason });
                }
                Err(KvError::Unreachable { node, sent: true }) => {
                    coverage::reached(Mark::OnePhaseUnanswered);
                    let reason = format!("{node} did not answer the commit");
                    return Err(TxnError::Ambiguous { txn: self.id, reason });
                }
                Err(KvError::Invalid(reason)) => {
                    if self.in_one_range(mutations).await? {
                        return Err(TxnError::Invalid(reason));
                    }
                    coverage::reached(Mark::OnePhaseMetSplit);
                    return Ok(None);
                }
                // Two that have each read what the other writes move each other: every refresh is a read above the other's writes, and nothing
                // of the writes is there that the other's refresh could meet. Intents are, so one of them goes first.
                Err(KvError::NeedsRefresh { .. }) if moves >= ONE_PHASE_MOVES_MAX => {
                    coverage::reached(Mark::OnePhaseMadeTwo);
                    return Ok(None);
                }
                Err(error) => {
                    moves += u32::from(matches!(error, KvError::NeedsRefresh { .. }));
                    self.overcome(error, &mut trials).await?;
                }
            }
        }
    }

    /// Lays buffered writes down as intents when they take much memory. Callers that write a lot without reading (COPY) await it
    /// now and then; reads do it by themselves. Writes under an open savepoint stay in memory.
    ///
    /// # Errors
    /// Those of a commit's writes; `Exists` among them.
    pub async fn spill_if_large(&mut self) -> Result<(), TxnError> {
        if self.buffer.bytes() <= self.db.settings().spill_bytes || !self.buffer.can_settle() {
            return Ok(());
        }
        self.check_open()?;
        let mutations = self.buffer.take_settled();
        coverage::reached(Mark::WritesSpilled);
        let outcome = self.lay(mutations).await;
        // They are neither in the buffer nor surely laid: the transaction would not see its own writes.
        outcome.map_err(|error| self.doom(error))
    }

    /// Lays intents, a message's worth at a time, and learns how late the commit has to be.
    async fn lay(&mut self, mut mutations: Vec<Mutation>) -> Result<(), TxnError> {
        let Some(first) = mutations.first().map(|mutation| mutation.key.clone()) else {
            return Ok(());
        };
        self.take_anchor(&first);
        self.recheck_inserts(&mut mutations).await?;
        let limit = self.db.settings().spill_bytes;
        let mut rest = mutations.into_iter().peekable();
        while rest.peek().is_some() {
            let mut chunk = Vec::new();
            let mut bytes = 0;
            while let Some(mutation) = rest.next_if(|_| chunk.is_empty() || bytes < limit) {
                bytes += mutation.key.as_bytes().len()
                    + mutation.value.as_ref().map_or(0, bytes::Bytes::len);
                // Said before it is sent: from now on there may be an intent.
                self.intents
                    .add(Span::point(&mutation.key), self.db.settings().lock_spans_bytes_max);
                chunk.push(mutation);
            }
            let responses = self
                .exchange(&[Request::Write { mutations: chunk }], Purpose::Lock, OnLock::Wait)
                .await?;
            let Some(Response::Written(ts)) = responses.first() else {
                return Err(unexpected("Write"));
            };
            self.write_ts = self.write_ts.forward(*ts);
        }
        Ok(())
    }

    /// A range checks "must not be there" against committed rows only. Where this transaction has laid intents itself, the row is
    /// read instead, intents included: as absent, which the refresh keeps true.
    async fn recheck_inserts(&mut self, mutations: &mut [Mutation]) -> Result<(), TxnError> {
        if self.intents.is_empty() {
            return Ok(());
        }
        let mut doubtful: Vec<&mut Mutation> = mutations
            .iter_mut()
            .filter(|mutation| {
                mutation.expect == Expect::Absent && self.intents.contains(&mutation.key)
            })
            .collect();
        for chunk in doubtful.chunks_mut(RECHECK_KEYS_MAX) {
            coverage::reached(Mark::InsertRechecked);
            let lock = Some(Lock::Exclusive);
            let requests: Vec<Request> = chunk
                .iter()
                .map(|mutation| Request::Get { key: mutation.key.clone(), lock })
                .collect();
            let responses = self.exchange(&requests, Purpose::Lock, OnLock::Wait).await?;
            for (mutation, response) in chunk.iter_mut().zip(responses) {
                let Response::Get(row) = response else { return Err(unexpected("Get")) };
                if let Some(row) = row {
                    return Err(TxnError::Exists { key: mutation.key.clone(), value: row.value });
                }
                let span = Span::point(&mutation.key);
                self.reads.add(span.clone(), self.db.settings().read_spans_bytes_max);
                self.locks.add(span, self.db.settings().lock_spans_bytes_max);
                mutation.expect = Expect::Anything;
            }
        }
        Ok(())
    }

    /// All intents are laid: move to where they are, and write the record.
    async fn commit_record(&mut self) -> Result<Timestamp, TxnError> {
        self.move_to(self.write_ts).await?;
        let begun = self.db.runtime().time.monotonic();
        // Whether a commit may have arrived whose answer is not known.
        let mut doubt = false;
        let mut moves = 0;
        loop {
            if !doubt {
                self.check_open()?;
            }
            self.commit_sent = true;
            let request = Request::EndTxn {
                commit_ts: Some(self.read_at),
                intents: self.intents.to_vec(),
                deadline: self.commit_deadline,
            };
            let mut batch = self.batch(vec![request], Wait::Error);
            // The intents were laid under the schema; a fence waits for them. The record has no schema, and a decided one must
            // answer under any.
            batch.schema.clear();
            let failure = match self.send(batch).await {
                Ok(reply) => match reply.responses.first() {
                    Some(Response::Committed(ts)) => return Ok(*ts),
                    Some(Response::Aborted) => {
                        return Err(self.aborted("its record says so".into()));
                    }
                    _ => unexpected("EndTxn"),
                },
                // The record is decided: the truth, however many commits are still on their way.
                Err(KvError::TxnAborted { reason }) => return Err(self.aborted(reason)),
                Err(error @ KvError::NeedsRefresh { ts }) => {
                    coverage::reached(Mark::CommitRefreshed);
                    moves += 1;
                    match self.move_to(ts).await {
                        Ok(()) if moves <= self.db.settings().moves_max => continue,
                        Ok(()) => TxnError::from_kv(error, self.id),
                        Err(error) => error,
                    }
                }
                Err(error) => match self.after_silence(error, &mut doubt, begun).await {
                    Ok(()) => continue,
                    Err(failure) => failure,
                },
            };
            return if doubt { self.fail_for_certain(failure, begun).await } else { Err(failure) };
        }
    }

    /// A commit was refused or not answered. `Ok`: ask again. `doubt` is raised when it may have arrived.
    async fn after_silence(
        &mut self,
        error: KvError,
        doubt: &mut bool,
        begun: Monotonic,
    ) -> Result<(), TxnError> {
        let reason = error.to_string();
        match error {
            KvError::Ambiguous { .. } | KvError::Unreachable { sent: true, .. } => {
                coverage::reached(Mark::CommitUnanswered);
                *doubt = true;
            }
            KvError::Unreachable { sent: false, .. }
            | KvError::Unavailable { .. }
            | KvError::NotLeaseholder { .. }
            | KvError::RangeMismatch { .. }
            | KvError::Overloaded { .. } => {
                if !*doubt {
                    return Err(TxnError::from_kv(error, self.id));
                }
            }
            other => return Err(TxnError::from_kv(other, self.id)),
        }
        self.pause_for_outcome(begun, reason).await
    }

    async fn pause_for_outcome(&self, begun: Monotonic, reason: String) -> Result<(), TxnError> {
        let now = self.db.runtime().time.monotonic();
        if now.since(begun) >= self.db.settings().outcome_wait {
            coverage::reached(Mark::OutcomeUnknown);
            return Err(TxnError::Ambiguous { txn: self.id, reason });
        }
        self.db.pause(OUTCOME_PAUSE).await;
        Ok(())
    }

    /// Reports `failure` only when the record has excluded a commit; if the record is committed, that is the answer.
    async fn fail_for_certain(
        &mut self,
        failure: TxnError,
        begun: Monotonic,
    ) -> Result<Timestamp, TxnError> {
        if matches!(failure, TxnError::Ambiguous { .. }) {
            return Err(failure);
        }
        loop {
            let request = Request::EndTxn {
                commit_ts: None,
                intents: self.intents.to_vec(),
                deadline: Timestamp::MAX,
            };
            match send_plain(&self.db, Some(self.meta()), request).await {
                Ok(reply) => {
                    return match reply.responses.first() {
                        Some(Response::Committed(ts)) => {
                            coverage::reached(Mark::CommitRecovered);
                            Ok(*ts)
                        }
                        Some(Response::Aborted) => {
                            coverage::reached(Mark::FailureMadeCertain);
                            Err(failure)
                        }
                        _ => Err(TxnError::Ambiguous { txn: self.id, reason: failure.to_string() }),
                    };
                }
                Err(KvError::TxnAborted { .. }) => return Err(failure),
                Err(error) => self.pause_for_outcome(begun, error.to_string()).await?,
            }
        }
    }

    fn aborted(&self, reason: String) -> TxnError {
        TxnError::Retry { kind: RetryKind::Aborted, key: None, reason }
    }

    /// The answer of a commit waits until this gateway's clock has passed it, so that the session's next transaction sees it;
    /// strictly serializable ones until every clock has.
    async fn wait_for_time(&self, info: CommitInfo) {
        let hlc = &self.db.runtime().hlc;
        let time = &self.db.runtime().time;
        loop {
            let now = hlc.now().timestamp();
            let target = match self.options.isolation {
                Isolation::StrictSerializable => info.ts.plus(hlc.uncertainty()),
                Isolation::ReadCommitted | Isolation::Snapshot | Isolation::Serializable => info.ts,
            };
            if now >= target || self.options.as_of.is_some() {
                return;
            }
            coverage::reached(Mark::CommitWaitedForClock);
            let rest = target.since(now).max(Duration::from_micros(1));
            time.sleep_until(time.monotonic().plus(rest)).await;
        }
    }
}
