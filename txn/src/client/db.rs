//! Driver: the gateway's entry to transactions. Cheap to clone, shared by all sessions.

use clock::Timestamp;
use coverage::Mark;
use futures::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::time::Duration;

use crate::api::{Kv, TxnId};
use crate::client::heartbeat::Heartbeats;
use crate::client::inquiry::Inquiries;
use crate::client::open::OpenTxns;
use crate::client::roster::Roster;
use crate::client::{CommitInfo, Question, Settings, Sighting, Txn, TxnError, TxnOptions};
use crate::contention::Contention;
use crate::runtime::Runtime;

/// First pause between two runs of [`Db::run`]; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(1);
/// Pause before a clock that lags is looked at again.
const CLOCK_PAUSE: Duration = Duration::from_millis(10);
/// Longest pause between two runs of [`Db::run`].
const BACKOFF_MAX: Duration = Duration::from_millis(200);

/// A gateway: where transactions begin.
#[derive(Clone)]
pub struct Db {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Runtime,
    kv: Arc<dyn Kv>,
    settings: Settings,
    heartbeats: Heartbeats,
    open: OpenTxns,
    roster: Roster,
    inquiries: Inquiries,
    contention: Mutex<Contention>,
}

impl Db {
    /// A gateway over a keyspace.
    pub fn new(runtime: Runtime, kv: Arc<dyn Kv>, settings: Settings) -> Db {
        let heartbeats = Heartbeats::new(runtime.clone(), kv.clone(), settings.heartbeat_interval);
        let inner = Inner {
            runtime,
            kv,
            settings,
            heartbeats,
            open: OpenTxns::default(),
            roster: Roster::default(),
            inquiries: Inquiries::default(),
            contention: Mutex::default(),
        };
        Db { inner: Arc::new(inner) }
    }

    /// Begins a transaction. Sends nothing.
    pub fn begin(&self, options: TxnOptions) -> Txn {
        Txn::new(self.clone(), options)
    }

    /// The keyspace underneath, for requests that are no transaction.
    pub fn kv(&self) -> &Arc<dyn Kv> {
        &self.inner.kv
    }

    /// Time, clock, randomness, background work.
    pub fn runtime(&self) -> &Runtime {
        &self.inner.runtime
    }

    /// Limits and periods.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// The lowest timestamp that an open transaction of this gateway reads at.
    pub fn oldest_open(&self) -> Option<Timestamp> {
        self.inner.open.oldest()
    }

    /// What this gateway knows of a transaction that it has begun. `None`: it was not this one, or is long over.
    pub fn sighting(&self, question: &Question) -> Option<Sighting> {
        self.inner.roster.answer(question)
    }

    /// What this gateway's transactions failed over.
    pub fn contention(&self) -> MutexGuard<'_, Contention> {
        self.inner.contention.lock()
    }

    pub(super) fn roster(&self) -> &Roster {
        &self.inner.roster
    }

    pub(super) fn inquiries(&self) -> &Inquiries {
        &self.inner.inquiries
    }

    pub(super) fn open(&self) -> &OpenTxns {
        &self.inner.open
    }

    pub(super) fn heartbeats(&self) -> &Heartbeats {
        &self.inner.heartbeats
    }

    /// Runs `f` in a transaction and commits; runs it again, in a new one that keeps the age, while the error says that this may
    /// help ([`TxnError::is_retryable`]), at most `run_attempts_max` times with growing pauses. For internal work: `f` must be
    /// free of other effects.
    ///
    /// # Errors
    /// The closure's own, rolled back; the commit's. `Ambiguous` is never retried.
    pub async fn run<T, F>(&self, options: TxnOptions, f: F) -> Result<T, TxnError>
    where
        F: for<'a> FnMut(&'a mut Txn) -> BoxFuture<'a, Result<T, TxnError>>,
    {
        self.run_to_commit(options, f).await.map(|(value, _)| value)
    }

    /// As [`Db::run`], and tells of the commit: everything that the last run of `f` read and wrote holds at its timestamp.
    ///
    /// # Errors
    /// As [`Db::run`].
    pub async fn run_to_commit<T, F>(
        &self,
        options: TxnOptions,
        mut f: F,
    ) -> Result<(T, CommitInfo), TxnError>
    where
        F: for<'a> FnMut(&'a mut Txn) -> BoxFuture<'a, Result<T, TxnError>>,
    {
        let mut txn = self.begin(options);
        let mut pause = BACKOFF_MIN;
        let mut attempts = 1;
        loop {
            let outcome = match f(&mut txn).await {
                Ok(value) => txn.commit().await.map(|info| (value, info)),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(done) => return Ok(done),
                Err(error)
                    if error.is_retryable() && attempts < self.inner.settings.run_attempts_max =>
                {
                    coverage::reached(Mark::WorkRunAgain);
                    attempts += 1;
                    txn.restart();
                    self.pause(pause).await;
                    pause = (pause * 2).min(BACKOFF_MAX);
                    // The pause was spent on letting others finish: start after them.
                    txn.restart();
                }
                Err(error) => {
                    txn.rollback().await;
                    return Err(error);
                }
            }
        }
    }

    /// Waits while the gateway's clock lags behind the wall, for the time of a few looks at it: what is written by a clock that stands
    /// where it stood before a long pause would lose, where the last writer wins, to writes that are long past.
    pub(super) async fn wait_for_clock(&self) {
        let (hlc, time) = (&self.inner.runtime.hlc, &self.inner.runtime.time);
        let give_up = time.monotonic().plus(5 * clock::LOOK_INTERVAL);
        while hlc.held_back() > Duration::ZERO && time.monotonic() < give_up {
            coverage::reached(Mark::LaggingClockWaitedFor);
            time.sleep_until(time.monotonic().plus(CLOCK_PAUSE)).await;
        }
    }

    /// Sleeps between half of `duration` and all of it: those who failed together do not come back together.
    pub(super) async fn pause(&self, duration: Duration) {
        let time = &self.inner.runtime.time;
        let half = duration / 2;
        let span_us = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1);
        let jitter = Duration::from_micros(self.inner.runtime.random.next_u64() % span_us);
        time.sleep_until(time.monotonic().plus(half + jitter)).await;
    }

    pub(super) fn new_id(&self) -> TxnId {
        let random = &self.inner.runtime.random;
        TxnId::new((u128::from(random.next_u64()) << 64) | u128::from(random.next_u64()))
    }
}
