//! Driver: one exchange with the ranges on a transaction's behalf, repeated until it succeeds or cannot.
//!
//! A range refuses a batch without effect and says what would help: another timestamp (`refresh`), another transaction's end (`wait`),
//! nothing. Every request sent through here is idempotent, so that a lost answer is simply asked for again.

use coverage::Mark;
use std::time::Duration;

use clock::Monotonic;

use crate::api::{Batch, Footing, KvError, Reply, Request, TxnId, Wait};
use crate::client::txn::{State, unexpected};
use crate::client::{Isolation, OnLock, Question, RetryKind, Txn, TxnError};
use crate::contention::Failure;

/// How often a batch whose effect is unknown is sent again. The router has tried for seconds before each.
const LOST_ANSWERS_MAX: u32 = 10;
/// Pause before it.
const LOST_ANSWER_PAUSE: Duration = Duration::from_millis(20);

/// A slice of waiting is at most so often doubled: with 100 ms a dead holder is noticed at most 400 ms after it has expired.
const SLICE_DOUBLINGS_MAX: u32 = 2;
/// A slice is at least so many times the way to the range and back: while a waiter is away, a row that has come to its turn is nobody's.
const SLICE_TRIPS_MIN: u32 = 4;
/// The same for one who holds something.
const HOLDER_SLICE_TRIPS_MIN: u32 = 2;
/// But no longer than this.
const SLICE_MAX: Duration = Duration::from_secs(1);

/// What a batch is for: decides whether it must wait for others or may have them moved out of its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// Reads only: a writer that is in the way may commit later.
    Read,
    /// Locks or writes: a holder that is in the way must end.
    Lock,
}

/// What one exchange has been through.
pub(super) struct Trials {
    pub(super) purpose: Purpose,
    pub(super) on_lock: OnLock,
    /// First time that somebody was in the way.
    pub(super) blocked_since: Option<Monotonic>,
    /// The last one who was.
    pub(super) holder: Option<TxnId>,
    /// How often somebody was in the way for a whole slice.
    pub(super) slices: u32,
    /// When the last batch left, and how long it may wait at the range.
    asked: (Monotonic, Duration),
    /// How much longer than its slice an answer took that told of somebody in the way: the way there and back.
    trip: Duration,
    pub(super) moves: u32,
    /// A reader that was told to wait.
    pub(super) stands_back: bool,
    pub(super) lost: u32,
}

impl Trials {
    pub(super) fn new(purpose: Purpose, on_lock: OnLock) -> Trials {
        // What only reads takes no lock: it gets past who is in its way, and must give them the time for that.
        let on_lock = match purpose {
            Purpose::Read => OnLock::Wait,
            Purpose::Lock => on_lock,
        };
        Trials {
            purpose,
            on_lock,
            blocked_since: None,
            holder: None,
            slices: 0,
            asked: (Monotonic::ZERO, Duration::ZERO),
            trip: Duration::ZERO,
            moves: 0,
            stands_back: false,
            lost: 0,
        }
    }

    /// The answer to what was asked last told of somebody in the way. What it took beyond the slice was no waiting for anybody.
    fn was_blocked(&mut self, now: Monotonic) {
        let (asked, slice) = self.asked;
        self.trip = now.since(asked).saturating_sub(slice);
        self.blocked_since.get_or_insert(asked.plus(self.trip));
    }
}

impl Txn {
    /// Sends requests of one kind until they are answered.
    pub(super) async fn exchange(
        &mut self,
        requests: &[Request],
        purpose: Purpose,
        on_lock: OnLock,
    ) -> Result<Reply, TxnError> {
        self.catch_up().await?;
        let mut trials = Trials::new(purpose, on_lock);
        self.asked_again = false;
        loop {
            self.check_open()?;
            let mut batch = self.batch(requests.to_vec(), self.wait_mode(&mut trials));
            if self.may_read_later(requests) {
                batch.footing = Footing::Free;
            }
            match self.send(batch).await {
                Ok(reply) if reply.responses.len() == requests.len() => {
                    self.read_at = self.read_at.forward(reply.read_at);
                    self.db.ask_after(&reply.skipped);
                    return Ok(reply);
                }
                Ok(_) => return Err(unexpected("a batch")),
                Err(error) => self.overcome(error, &mut trials).await?,
            }
            self.asked_again = true;
        }
    }

    /// Whether these requests are its first reads, so that it has nothing to hold at a later timestamp.
    fn may_read_later(&self, requests: &[Request]) -> bool {
        let reads =
            |request: &Request| matches!(request, Request::Get { .. } | Request::Scan { .. });
        self.options.as_of.is_none() && self.reads.is_empty() && requests.iter().all(reads)
    }

    /// Does what a refusal asks for, or fails.
    pub(super) async fn overcome(
        &mut self,
        error: KvError,
        trials: &mut Trials,
    ) -> Result<(), TxnError> {
        match error {
            KvError::Uncertain { ts, .. }
            | KvError::NewerVersion { ts, .. }
            | KvError::NeedsRefresh { ts } => {
                trials.moves += 1;
                if trials.moves > self.db.settings().moves_max || ts <= self.read_at {
                    coverage::reached(Mark::MovedTooOften);
                    return Err(self.doom(TxnError::from_kv(error)));
                }
                self.move_to(ts).await
            }
            KvError::Blocked { key, holder, active, .. } => {
                trials.was_blocked(self.db.runtime().time.monotonic());
                self.give_way(key, holder, active, trials).await
            }
            KvError::Ambiguous { reason } => {
                coverage::reached(Mark::LostAnswerAskedAgain);
                trials.lost += 1;
                if trials.lost > LOST_ANSWERS_MAX {
                    let range = replication::range::RangeId::default();
                    return Err(TxnError::Unavailable { range, missing: Vec::new(), reason });
                }
                self.db.pause(LOST_ANSWER_PAUSE).await;
                self.check_deadline(None, trials)
            }
            // The sender has noted the doubt.
            KvError::Doubtful { refused } => Box::pin(self.overcome(*refused, trials)).await,
            KvError::Deadlock { key, holder } => Err(self.fall_victim(key, holder)),
            KvError::TxnAborted { .. }
            | KvError::RefreshFailed { .. }
            | KvError::DeadlinePassed => Err(self.doom(TxnError::from_kv(error))),
            KvError::Exists { .. }
            | KvError::SchemaChanged { .. }
            | KvError::BelowGc { .. }
            | KvError::Unavailable { .. }
            | KvError::Unreachable { .. }
            | KvError::NotLeaseholder { .. }
            | KvError::RangeMismatch { .. }
            | KvError::Overloaded { .. }
            | KvError::TooManyLocks { .. }
            | KvError::Invalid(_) => Err(TxnError::from_kv(error)),
        }
    }

    /// From here on every operation fails with `error`, until a restart or the end.
    pub(super) fn doom(&mut self, mut error: TxnError) -> TxnError {
        if let TxnError::Retry { kind: RetryKind::Aborted, other: other @ None, .. } = &mut error {
            *other = Some(Question::AborterOf(self.id));
        }
        tracing::debug!(txn = %self.id, started = %self.started, doing = %self.doing.statement, %error, "a transaction is doomed");
        self.note_failure(&error);
        self.state = State::Broken(error.clone());
        error
    }

    /// For `SHOW CONTENTION`. Told twice, an error counts once.
    fn note_failure(&self, error: &TxnError) {
        let State::Open = self.state else { return };
        let (key, failure, holder) = match error {
            TxnError::Deadlock { key, holder } => (key, Failure::Deadlock, Some(*holder)),
            TxnError::Retry { key: Some(key), other: Some(Question::Transaction(txn)), .. } => {
                (key, Failure::Retry, Some(*txn))
            }
            TxnError::Retry { key: Some(key), .. } => (key, Failure::Retry, None),
            _ => return,
        };
        let at = self.db.runtime().hlc.now().timestamp();
        self.db.contention().note_failure(key, failure, (self.id, holder), at);
    }

    pub(super) fn batch(&self, requests: Vec<Request>, wait: Wait) -> Batch {
        Batch {
            range: None,
            read_at: self.read_at,
            uncertainty_limit: self.uncertainty_limit.forward(self.read_at),
            footing: Footing::Fixed,
            txn: self.options.as_of.is_none().then(|| self.meta()),
            // The past was written under the schema that it is read by.
            schema: match self.options.as_of {
                Some(_) => Vec::new(),
                None => self.schema.iter().map(|(table, version)| (*table, *version)).collect(),
            },
            pushed: self.pushed.iter().map(|(id, ts)| (*id, *ts)).collect(),
            // No write that a savepoint could take back ever leaves the gateway.
            ignored: Vec::new(),
            wait,
            asks_era: self.options.isolation == Isolation::ReadCommitted,
            requests,
        }
    }

    /// One try. Every answer's clock is absorbed: what happened there is in our past from now on (killer H03).
    pub(super) async fn send(&self, batch: Batch) -> Result<Reply, KvError> {
        let reply = self.db.kv().send(batch).await?;
        if let Err(refused) = self.db.runtime().hlc.observe(reply.clock) {
            tracing::warn!(clock = %refused, "a leaseholder's clock was too far ahead and not absorbed");
        }
        Ok(reply)
    }

    /// How a batch that leaves now is to wait.
    pub(super) fn wait_mode(&self, trials: &mut Trials) -> Wait {
        let now = self.db.runtime().time.monotonic();
        let wait = match trials.on_lock {
            OnLock::Fail => Wait::Error,
            OnLock::Skip => Wait::Skip,
            OnLock::Wait => {
                let waited = trials.blocked_since.map_or(Duration::ZERO, |since| now.since(since));
                let statement = self.deadline.map(|deadline| deadline.since(now));
                let lock = self.lock_timeout.map(|limit| limit.saturating_sub(waited));
                let limits = statement.into_iter().chain(lock);
                Wait::Queue(limits.fold(self.slice(trials), Duration::min))
            }
        };
        trials.asked = (now, wait.slice());
        wait
    }

    /// Whether others may have to wait for it: it holds something, or some of what it is asking for now.
    pub(super) fn may_hold(&self) -> bool {
        let asks_for_more = self.locking.len() > 1 || self.locking.iter().any(|it| !it.is_point());
        !self.locks.is_empty() || !self.intents.is_empty() || asks_for_more
    }

    /// How long it waits at a range before it asks after who is in its way. Who holds something may be in a circle, which those in it
    /// find out by asking. Who holds nothing only wants to know whether the holder lives, and most of those that want a row hold
    /// nothing: what they ask is work that holds up the one who has it.
    fn slice(&self, trials: &Trials) -> Duration {
        let slice = self.db.settings().wait_slice;
        let far = |trips: u32| (trials.trip * trips).min(SLICE_MAX);
        if self.may_hold() || trials.slices == 0 {
            return slice.max(far(HOLDER_SLICE_TRIPS_MIN));
        }
        coverage::reached(Mark::WaitedInLongerSlices);
        (slice * (1 << trials.slices.min(SLICE_DOUBLINGS_MAX))).max(far(SLICE_TRIPS_MIN))
    }
}
