//! Driver: another transaction is in the way. Ask its record, and do what that allows.
//!
//! ```text
//!   a range answers Blocked(holder)
//!     └─ who waits for us? (our own record's range)            only if we hold something ourselves
//!     └─ push the holder (its record's range), with them        a holder among them closes a cycle: one in it gives way
//!          decided       -> apply the decision to the key, ask again
//!          moved later   -> a reader passes by it
//!          staged        -> look for its writes (`recover`), push again with what was found
//!          let alone     -> a reader waits, too, as what it asks would move again a commit that was moved often; says who waits for it
//!          alive         -> ask again: the next slice of waiting is at the range, in its queue
//! ```
//!
//! Who waits is known only to the records' ranges, and each edge only while its waiter keeps pushing: a waiter that is gone is forgotten.

use clock::{Monotonic, Timestamp};
use coverage::Mark;
use futures::future::BoxFuture;
use std::time::Duration;
use storage::{Key, Span};

use crate::api::{
    Advice, Batch, KvError, Lock, Missing, PushKind, Reply, Request, Response, Sequence, TxnId,
    TxnMeta, TxnStatus, Wait,
};
use crate::client::exchange::{Purpose, Trials};
use crate::client::recover::look_for_writes;
use crate::client::txn::unexpected;
use crate::client::{
    Db, GetOptions, OnLock, Question, RetryKind, TimeoutKind, Txn, TxnError, TxnOptions,
};

/// Pushed transactions remembered for later reads; above it all are forgotten, which costs pushes.
const PUSHED_MAX: usize = 1_024;
/// Spans resolved in one request on behalf of a decided transaction whose own gateway may be gone.
const RESOLVE_SPANS_MAX: usize = 128;

/// So often the writes of a staged transaction are looked for in one push: once, and again if it was staged anew meanwhile.
const SEARCHES_MAX: u32 = 2;
/// Who has given way so often lets the other by.
const GAVE_WAY_TWICE: u32 = 2;
/// For so long at most. The other may be at work for longer, and will be met again.
const LET_BY_MAX: Duration = Duration::from_secs(5);
const LET_BY_PAUSE_MIN: Duration = Duration::from_millis(20);
const LET_BY_PAUSE_MAX: Duration = Duration::from_millis(320);

/// What a push has found.
enum Verdict {
    /// Decided, and applied to the key.
    Gone,
    /// Will commit above the reader.
    Moved,
    /// Goes on.
    Alive,
}

/// What a record has said in the end.
pub(super) struct Judged {
    pub(super) status: TxnStatus,
    /// Undecided, it will commit above the reader that asked.
    moved: bool,
    intents: Vec<Span>,
    ignored: Vec<(Sequence, Sequence)>,
}

impl Db {
    /// Whether the transaction that a request on nobody's behalf has met has ended ([`KvError::Blocked`]), or shows no sign of life
    /// any more, and has ended with that. Then its traces at `key` are gone, and the same request gets past it. Nobody else may
    /// ever come that way.
    ///
    /// # Errors
    /// Its record, or the key's range, cannot be asked.
    pub async fn is_over(
        &self,
        key: &Key,
        holder: TxnMeta,
        active: Timestamp,
    ) -> Result<bool, TxnError> {
        // It goes before nobody.
        let options = TxnOptions { priority: 0, ..TxnOptions::read_only("get past an intent") };
        let mut asker = self.begin(options);
        let mut trials = Trials::new(Purpose::Lock, OnLock::Wait);
        asker.is_over(key, holder, active, &mut trials).await
    }

    /// Whether that transaction keeps another from locking the key. Its record would not do: most have none at the end. What cannot be
    /// asked now will be met again.
    fn is_held_by<'a>(&'a self, key: &'a Key, holder: TxnId) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let options = TxnOptions { priority: 0, ..TxnOptions::labelled("let another by") };
            let mut asker = self.begin(options);
            let get = GetOptions {
                lock: Some(Lock::Exclusive),
                wait: OnLock::Fail,
                ..GetOptions::default()
            };
            let locked = asker.multi_get_with(std::slice::from_ref(key), get).await;
            asker.rollback().await;
            matches!(locked, Err(TxnError::Blocked { holder: by, .. }) if by == holder)
        })
    }
}

impl Txn {
    /// Reacts to a holder that has been in the way for a slice.
    pub(super) async fn give_way(
        &mut self,
        key: Key,
        holder: TxnMeta,
        active: Timestamp,
        trials: &mut Trials,
    ) -> Result<(), TxnError> {
        trials.slices += 1;
        if holder.id == self.id {
            return Err(TxnError::Invalid(format!("{key} is locked by the transaction itself")));
        }
        match trials.purpose {
            Purpose::Read => {
                // An intent above us is in the way only because it is uncertain: past the whole interval it is not.
                let known = self.pushed.get(&holder.id).is_some_and(|ts| *ts >= self.read_at);
                let limit = match self.uncertainty_limit {
                    // It reads whatever is committed (`read_newest`): what is not, is pushed as by one that begins now.
                    Timestamp::MAX => {
                        let hlc = &self.db.runtime().hlc;
                        hlc.now().timestamp().plus(hlc.uncertainty())
                    }
                    limit => limit,
                };
                let limit = limit.forward(self.read_at);
                let above = if known || active > self.read_at {
                    coverage::reached(Mark::UncertainIntentPushed);
                    limit
                } else {
                    self.read_at
                };
                self.push_reader(key, holder, (active, above), trials).await
            }
            Purpose::Lock => {
                let nowait = trials.on_lock == OnLock::Fail;
                let id = holder.id;
                trials.holder = Some(id);
                match self.push(&key, holder, active, PushKind::Abort, trials).await? {
                    Verdict::Gone | Verdict::Moved => Ok(()),
                    Verdict::Alive if nowait => {
                        coverage::reached(Mark::NowaitRefused);
                        Err(TxnError::Blocked { key, holder: id })
                    }
                    Verdict::Alive => self.check_deadline(Some(key), trials),
                }
            }
        }
    }

    /// Makes a writer, last known to be active then, commit above `above`, so that a reader at or below may pass by its intents.
    async fn push_reader(
        &mut self,
        key: Key,
        holder: TxnMeta,
        (active, above): (Timestamp, Timestamp),
        trials: &mut Trials,
    ) -> Result<(), TxnError> {
        let id = holder.id;
        trials.holder = Some(id);
        // A young writer has no record yet: its intent is its only sign of life.
        match self.push(&key, holder, active, PushKind::Timestamp(above), trials).await? {
            Verdict::Moved => {
                if self.pushed.len() >= PUSHED_MAX {
                    coverage::reached(Mark::PushesForgotten);
                    self.pushed.clear();
                }
                let pushed = self.pushed.entry(id).or_insert(above);
                *pushed = above.forward(*pushed);
            }
            Verdict::Gone => {}
            Verdict::Alive => trials.stands_back = true,
        }
        self.check_deadline(Some(key), trials)
    }

    /// Whether a holder has ended; if so, its decision has been applied to the key.
    pub(super) async fn is_over(
        &mut self,
        key: &Key,
        holder: TxnMeta,
        active: Timestamp,
        trials: &mut Trials,
    ) -> Result<bool, TxnError> {
        match self.push(key, holder, active, PushKind::Abort, trials).await? {
            Verdict::Gone => Ok(true),
            Verdict::Moved | Verdict::Alive => Ok(false),
        }
    }

    /// Before anything of a transaction that is run again: if it has given way more than once, waits until the one that it gave way to
    /// last has ended, with nothing in its hands.
    ///
    /// Who finds a circle by pushes knows the rank of two of its members, itself and the one that it waits for, and gives way if it is the
    /// younger of these. The youngest of the circle may be a third one, which waits for what was just given up: it is overtaken there by
    /// whoever has given way and begins again, as that is older, and the same circle closes anew.
    pub(super) async fn let_by(&mut self) -> Result<(), TxnError> {
        let Some((key, other)) = self.lets_by.take() else { return Ok(()) };
        if self.gave_way < GAVE_WAY_TWICE {
            return Ok(());
        }
        coverage::reached(Mark::LetAnotherBy);
        let mut trials = Trials::new(Purpose::Lock, OnLock::Wait);
        let time = self.db.runtime().time.clone();
        let until = time.monotonic().plus(LET_BY_MAX);
        let mut pause = LET_BY_PAUSE_MIN;
        trials.holder = Some(other);
        while time.monotonic() < until && self.db.is_held_by(&key, other).await {
            self.db.pause(pause).await;
            self.check_deadline(Some(key.clone()), &trials)?;
            pause = (pause * 2).min(LET_BY_PAUSE_MAX);
        }
        // Nothing was read yet, and much has happened.
        self.date();
        Ok(())
    }

    /// It is the one to give way in a circle: it waits for `holder` at `key`.
    pub(super) fn fall_victim(&mut self, key: Key, holder: TxnId) -> TxnError {
        coverage::reached(Mark::GaveWayInDeadlock);
        self.gave_way += 1;
        self.gave_way_to = Some((key.clone(), holder));
        self.doom(TxnError::Deadlock { key, holder })
    }

    async fn push(
        &mut self,
        key: &Key,
        holder: TxnMeta,
        active: Timestamp,
        kind: PushKind,
        trials: &mut Trials,
    ) -> Result<Verdict, TxnError> {
        trials.blocked_since.get_or_insert(self.db.runtime().time.monotonic());
        let dependents = match kind {
            PushKind::Timestamp(_) if !trials.stands_back => Vec::new(),
            PushKind::Abort | PushKind::Force | PushKind::Timestamp(_) => {
                self.dependents(key, holder.id).await?
            }
        };
        let Judged { status, moved, intents, ignored } =
            match self.ask_record(&holder, active, kind, &dependents).await? {
                Some(judged) => judged,
                None => return Err(self.fall_victim(key.clone(), holder.id)),
            };
        let commit_ts = match status {
            TxnStatus::Pending if moved => return Ok(Verdict::Moved),
            TxnStatus::Pending | TxnStatus::Staging(_) => return Ok(Verdict::Alive),
            TxnStatus::Committed(ts) => Some(ts),
            TxnStatus::Aborted => {
                tracing::debug!(txn = %self.id, started = %self.started, %key, holder = %holder.id, "a holder is aborted");
                self.db.roster().note_aborted(holder.id, self.sighting());
                None
            }
        };
        resolve(&self.db, holder.id, commit_ts, &ignored, vec![Span::point(key)])
            .await
            .map_err(|error| TxnError::from_kv(error))?;
        // Its own gateway is cleaning up, or is gone: then the next reader of each of its keys would come this way again.
        let others: Vec<Span> = intents
            .into_iter()
            .filter(|span| *span != Span::point(key))
            .take(RESOLVE_SPANS_MAX)
            .collect();
        if !others.is_empty() {
            coverage::reached(Mark::OthersIntentsResolved);
            let db = self.db.clone();
            let task = async move {
                if let Err(error) = resolve(&db, holder.id, commit_ts, &ignored, others).await {
                    tracing::debug!(txn = %holder.id, %error, "intents of another transaction were left");
                }
            };
            self.db.runtime().spawn.spawn(Box::pin(task));
        }
        Ok(Verdict::Gone)
    }

    /// Pushes until the record has said what it can say. A staged one is asked again with what was found of its writes. `None`: give up.
    pub(super) async fn ask_record(
        &self,
        holder: &TxnMeta,
        active: Timestamp,
        kind: PushKind,
        dependents: &[TxnId],
    ) -> Result<Option<Judged>, TxnError> {
        let failed = |error| TxnError::from_kv(error);
        let mut sought = None;
        let mut searches = 0;
        loop {
            let (pushee, dependents) = (holder.clone(), dependents.to_vec());
            let request = Request::Push { pushee, active, kind, dependents, sought };
            let reply = self.send(self.batch(vec![request], Wait::Error)).await.map_err(failed)?;
            let Some(Response::Pushed { status, intents, ignored, advice }) =
                reply.responses.into_iter().next()
            else {
                return Err(unexpected("Push"));
            };
            let missing = match advice {
                Advice::GiveUp => return Ok(None),
                Advice::Recover => Missing::Prevent,
                Advice::Wait | Advice::Pass => Missing::Tell,
            };
            let moved = advice == Advice::Pass;
            match status {
                TxnStatus::Staging(staged) if searches < SEARCHES_MAX => {
                    searches += 1;
                    let id = holder.id;
                    sought = look_for_writes(&self.db, id, staged.clone(), missing)
                        .await
                        .map_err(failed)?;
                    if sought.is_none() {
                        let status = TxnStatus::Staging(staged);
                        return Ok(Some(Judged { status, moved, intents, ignored }));
                    }
                }
                status => return Ok(Some(Judged { status, moved, intents, ignored })),
            }
        }
    }

    /// Who waits for this transaction, which waits for `holder`, directly or not. It must hold something for that.
    async fn dependents(&mut self, key: &Key, holder: TxnId) -> Result<Vec<TxnId>, TxnError> {
        let Some(anchor) = self.anchor.clone().filter(|_| self.may_hold()) else {
            return Ok(Vec::new());
        };
        let request = Request::QueryTxn { txn: self.id, anchor };
        let reply = match self.send(self.batch(vec![request], Wait::Error)).await {
            Ok(reply) => reply,
            Err(error) => return Err(TxnError::from_kv(error)),
        };
        match reply.responses.into_iter().next() {
            Some(Response::Txn { status: TxnStatus::Aborted, .. }) => {
                coverage::reached(Mark::WaiterFoundItselfAborted);
                let reason = format!(
                    "it was aborted while it waited for {key}: another had to get past its own locks"
                );
                let (kind, other) = (RetryKind::Aborted, Some(Question::Transaction(holder)));
                Err(self.doom(TxnError::Retry { kind, key: Some(key.clone()), other, reason }))
            }
            Some(Response::Txn { waiters, .. }) => Ok(waiters),
            _ => Err(unexpected("QueryTxn")),
        }
    }

    /// Whether waiting may go on.
    pub(super) fn check_deadline(&self, key: Option<Key>, trials: &Trials) -> Result<(), TxnError> {
        let now: Monotonic = self.db.runtime().time.monotonic();
        let waited =
            trials.blocked_since.map_or(std::time::Duration::ZERO, |since| now.since(since));
        let kind = if self.deadline.is_some_and(|deadline| now >= deadline) {
            TimeoutKind::Statement
        } else if self.lock_timeout.is_some_and(|limit| waited >= limit) {
            TimeoutKind::Lock
        } else {
            return Ok(());
        };
        coverage::reached(Mark::WaitTimedOut);
        Err(TxnError::Timeout { kind, key, holder: trials.holder, waited })
    }
}

/// Applies a decision to intents and locks.
pub(super) async fn resolve(
    db: &Db,
    txn: TxnId,
    commit_ts: Option<Timestamp>,
    ignored: &[(Sequence, Sequence)],
    spans: Vec<Span>,
) -> Result<Reply, KvError> {
    let request = Request::Resolve { txn, commit_ts, ignored: ignored.to_vec(), spans };
    send_plain(db, None, request).await
}

/// Sends one request that reads and writes no rows of its own.
pub(super) async fn send_plain(
    db: &Db,
    txn: Option<TxnMeta>,
    request: Request,
) -> Result<Reply, KvError> {
    send_at(db, Timestamp::MIN, txn, request).await
}

/// The same, now or at `least`, whichever is later.
pub(super) async fn send_at(
    db: &Db,
    least: Timestamp,
    txn: Option<TxnMeta>,
    request: Request,
) -> Result<Reply, KvError> {
    let now = db.runtime().hlc.now().timestamp().forward(least);
    let batch = Batch { txn, ..Batch::bare(now, Wait::Error, vec![request]) };
    let reply = db.kv().send(batch).await?;
    if let Err(refused) = db.runtime().hlc.observe(reply.clock) {
        tracing::warn!(clock = %refused, "a leaseholder's clock was too far ahead and not absorbed");
    }
    Ok(reply)
}
