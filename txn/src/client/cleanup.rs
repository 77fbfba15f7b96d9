//! Driver: what an ended transaction leaves at the ranges, and its removal in the background.
//!
//! Nothing here decides anything by itself: where the outcome is not known for certain, the record is asked to abort, and its answer is
//! applied, whichever it is. What cannot be cleaned within the time is left to whoever meets it (`wait`).
//!
//! HAZARD: a record is removed only after all its intents are, and an aborted one only if no commit can come any more, in one phase or
//! in two: a delayed one that found no record would be believed.

use clock::Timestamp;
use coverage::Mark;
use std::time::Duration;
use storage::Span;

use crate::api::{KvError, Request, Response, TxnMeta};
use crate::client::Db;
use crate::client::spans::SpanSet;
use crate::client::wait::{resolve, send_at, send_plain};

/// Most tries for one step, with growing pauses: about a minute.
const TRIES_MAX: u32 = 40;
/// First pause; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Spans in one message.
const SPANS_MAX: usize = 1_024;

/// How the transaction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// Its record is committed, at this timestamp.
    Committed(Timestamp),
    /// It is committed at this timestamp, and its record does not say so yet.
    Staged(Timestamp),
    /// It committed (or not) without a record and without intents; only locks are left.
    WithoutRecord,
    /// It must not commit, if it has not.
    Undecided,
    /// The same, and its client holds a ticket: the record stays, to be asked.
    Reported,
}

/// What is left.
pub(super) struct Remains {
    pub(super) meta: TxnMeta,
    pub(super) locks: SpanSet,
    pub(super) intents: SpanSet,
    pub(super) outcome: Outcome,
    /// Whether a heartbeat was sent, so that there may be a record.
    pub(super) beats: bool,
    /// Whether a `Stage` or a committing `EndTxn` was sent.
    pub(super) commit_sent: bool,
    /// A one-phase commit was sent and has not answered: it may be taken up yet, and must find the record that says "aborted".
    pub(super) may_arrive_late: bool,
    /// At or above every timestamp that they were to commit at.
    pub(super) highest: Timestamp,
}

impl Remains {
    /// Starts the removal, if there is anything to remove.
    pub(super) fn clear_up(self, db: &Db) {
        if self.locks.is_empty() && self.intents.is_empty() && !self.beats && !self.commit_sent {
            return;
        }
        let task_db = db.clone();
        db.runtime().spawn.spawn(Box::pin(async move {
            let id = self.meta.id;
            if let Err(error) = self.run(&task_db).await {
                coverage::reached(Mark::IntentsLeftBehind);
                tracing::info!(txn = %id, %error, "intents or locks were left for others to clean");
            }
        }));
    }

    async fn run(self, db: &Db) -> Result<(), KvError> {
        let commit_ts = self.decide(db).await?;
        let mut spans = self.intents.clone();
        spans.add_all(&self.locks, db.settings().lock_spans_bytes_max);
        let spans: Vec<Span> = spans.to_vec();
        for chunk in spans.chunks(SPANS_MAX) {
            persist(db, || resolve(db, self.meta.id, commit_ts, &[], chunk.to_vec())).await?;
        }
        let may_have_record = self.beats || self.commit_sent || !self.intents.is_empty();
        let may_be_forgotten = commit_ts.is_some() || !(self.commit_sent || self.may_arrive_late);
        if let (Outcome::Reported, Some(ts)) = (self.outcome, commit_ts) {
            return self.keep_record(db, ts).await;
        }
        if may_have_record && may_be_forgotten {
            let time = &db.runtime().time;
            time.sleep_until(time.monotonic().plus(db.settings().forget_after)).await;
            let forget =
                || Request::ForgetTxn { txn: self.meta.id, anchor: self.meta.anchor.clone() };
            persist(db, || send_at(db, self.highest, Some(self.meta.clone()), forget())).await?;
        }
        Ok(())
    }

    /// Nothing is left to resolve: the record names no intents any more, and goes when it is old.
    async fn keep_record(&self, db: &Db, ts: Timestamp) -> Result<(), KvError> {
        coverage::reached(Mark::RecordKeptForTicket);
        let commit = || Request::EndTxn {
            commit_ts: Some(ts),
            intents: Vec::new(),
            deadline: Timestamp::MAX,
        };
        persist(db, || send_plain(db, Some(self.meta.clone()), commit())).await.map(drop)
    }

    /// Makes a staged record say that the transaction is committed. Before that no intent may go: who looked for it would miss it.
    async fn say_committed(&self, db: &Db, ts: Timestamp) -> Result<Timestamp, KvError> {
        let commit = || Request::EndTxn {
            commit_ts: Some(ts),
            intents: self.intents.to_vec(),
            deadline: Timestamp::MAX,
        };
        let reply = persist(db, || send_plain(db, Some(self.meta.clone()), commit())).await;
        if let Err(KvError::TxnAborted { reason }) = &reply {
            tracing::error!(txn = %self.meta.id, %ts, reason, "a committed transaction was aborted");
        }
        reply.map(|_| ts)
    }

    /// The outcome, made certain.
    async fn decide(&self, db: &Db) -> Result<Option<Timestamp>, KvError> {
        match self.outcome {
            Outcome::Committed(ts) => Ok(Some(ts)),
            Outcome::Staged(ts) => self.say_committed(db, ts).await.map(Some),
            Outcome::WithoutRecord => Ok(None),
            Outcome::Undecided | Outcome::Reported
                if self.intents.is_empty() && !self.commit_sent =>
            {
                Ok(None)
            }
            Outcome::Undecided | Outcome::Reported => {
                let abort = || Request::EndTxn {
                    commit_ts: None,
                    intents: self.intents.to_vec(),
                    deadline: Timestamp::MAX,
                };
                match persist(db, || send_plain(db, Some(self.meta.clone()), abort())).await {
                    Ok(reply) => match reply.responses.first() {
                        Some(Response::Committed(ts)) => {
                            coverage::reached(Mark::CleanupFoundCommit);
                            Ok(Some(*ts))
                        }
                        _ => Ok(None),
                    },
                    Err(KvError::TxnAborted { .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        }
    }
}

/// Tries until it works, the refusal is final, or the tries are used up.
async fn persist<T, F>(db: &Db, mut attempt: impl FnMut() -> F) -> Result<T, KvError>
where
    F: Future<Output = Result<T, KvError>>,
{
    let mut pause = PAUSE_MIN;
    let mut tries = 1;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error @ (KvError::TxnAborted { .. } | KvError::Invalid(_))) => return Err(error),
            Err(error) if tries >= TRIES_MAX => return Err(error),
            Err(_) => {
                tries += 1;
                coverage::reached(Mark::CleanupTriedAgain);
                db.pause(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}
