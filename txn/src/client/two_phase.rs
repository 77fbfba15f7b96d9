//! Driver: the commit in two phases: intents on all ranges in parallel; refresh of everything read if one had to go above `read_at`;
//! then the record, which is the commit (CockroachDB, SIGMOD 2020, section 3.1). Also what other ways to commit fall back to.
//!
//! INVARIANT: the record is made to say "committed" only after every intent is known to be laid, at or below the commit timestamp.

use clock::{Monotonic, Timestamp};
use coverage::Mark;
use std::time::Duration;
use storage::Span;

use crate::api::{Expect, KvError, Lock, Mutation, Request, Response, Wait};
use crate::client::exchange::Purpose;
use crate::client::roster::Writes;
use crate::client::txn::unexpected;
use crate::client::wait::send_plain;
use crate::client::{OnLock, Question, RetryKind, Txn, TxnError};

/// Pause before the record is asked again.
const OUTCOME_PAUSE: Duration = Duration::from_millis(50);
/// Keys read in one batch to find out whether inserted rows are there.
const RECHECK_KEYS_MAX: usize = 1_024;

/// Settled writes on their way to the ranges. A statement that is given up meanwhile (cancelled, or its client is gone) is dropped
/// with this: then nobody knows which of them are laid, and they must not be committed.
struct Laying<'a> {
    txn: &'a mut Txn,
    ended: bool,
}

impl Drop for Laying<'_> {
    fn drop(&mut self) {
        if !self.ended {
            coverage::reached(Mark::LayingGivenUp);
            let reason =
                "a statement was given up while the writes of earlier ones were sent".into();
            let (kind, key, other) = (RetryKind::Aborted, None, None);
            self.txn.doom(TxnError::Retry { kind, key, other, reason });
        }
    }
}

impl Txn {
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
        let mut laying = Laying { txn: self, ended: false };
        let outcome = laying.txn.lay(mutations).await;
        laying.ended = true;
        drop(laying);
        // They are neither in the buffer nor surely laid: the transaction would not see its own writes.
        outcome.map_err(|error| self.doom(error))
    }

    /// Lays intents, a message's worth at a time, and learns how late the commit has to be.
    pub(super) async fn lay(&mut self, mut mutations: Vec<Mutation>) -> Result<(), TxnError> {
        let Some(first) = mutations.first().map(|mutation| mutation.key.clone()) else {
            return Ok(());
        };
        self.catch_up().await?;
        self.take_anchor(&first);
        self.wrote = Writes::all();
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
            let reply = self
                .exchange(&[Request::Write { mutations: chunk }], Purpose::Lock, OnLock::Wait)
                .await?;
            let Some(Response::Written(ts)) = reply.responses.first() else {
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
            let reply = self.exchange(&requests, Purpose::Lock, OnLock::Wait).await?;
            self.note_eras(&reply, lock)?;
            for (mutation, response) in chunk.iter_mut().zip(reply.responses) {
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
    pub(super) async fn commit_record(&mut self) -> Result<Timestamp, TxnError> {
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
            coverage::reached(Mark::RecordSent);
            let answer = self.send(batch).await.map_err(|error| match error {
                KvError::Doubtful { refused } => {
                    doubt = true;
                    *refused
                }
                error => error,
            });
            let failure = match answer {
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
                        Ok(()) => TxnError::from_kv(error),
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
                    return Err(TxnError::from_kv(error));
                }
            }
            other => return Err(TxnError::from_kv(other)),
        }
        self.pause_for_outcome(begun, reason).await
    }

    pub(super) async fn pause_for_outcome(
        &self,
        begun: Monotonic,
        reason: String,
    ) -> Result<(), TxnError> {
        let now = self.db.runtime().time.monotonic();
        if now.since(begun) >= self.db.settings().outcome_wait {
            coverage::reached(Mark::OutcomeUnknown);
            return Err(TxnError::Ambiguous { ticket: None, reason });
        }
        self.db.pause(OUTCOME_PAUSE).await;
        Ok(())
    }

    /// Reports `failure` only when the record has excluded a commit; if the record is committed, that is the answer.
    pub(super) async fn fail_for_certain(
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
                        _ => Err(TxnError::Ambiguous { ticket: None, reason: failure.to_string() }),
                    };
                }
                Err(KvError::TxnAborted { .. }) => return Err(failure),
                Err(error) => self.pause_for_outcome(begun, error.to_string()).await?,
            }
        }
    }

    fn aborted(&self, reason: String) -> TxnError {
        let other = Some(Question::AborterOf(self.id));
        TxnError::Retry { kind: RetryKind::Aborted, key: None, other, reason }
    }
}
