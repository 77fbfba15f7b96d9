//! Driver: one transaction as its session sees it: reads, buffered writes, savepoints.
//!
//! Reads go to the ranges at `read_at` and get the buffered writes laid over them. Writes stay here until the commit, or until
//! they are too many ([`Txn::spill_if_large`]). All of it is on one timestamp, see [`super`].

use bytes::Bytes;
use clock::{Monotonic, Timestamp};
use coverage::Mark;
use std::collections::BTreeMap;
use std::time::Duration;
use storage::{Direction, Key, Span};

use crate::api::{Expect, Lock, Request, Response, Row, TxnId, TxnMeta};
use crate::client::buffer::WriteBuffer;
use crate::client::cleanup::{Outcome, Remains};
use crate::client::exchange::{Purpose, Trials};
use crate::client::heartbeat::Pulse;
use crate::client::held::Held;
use crate::client::open::OpenMark;
use crate::client::roster::Writes;
use crate::client::spans::SpanSet;
use crate::client::statement::LockLevel;
use crate::client::{
    Access, Db, Doing, Fate, GetOptions, Hold, OnLock, Question, RetryKind, SavepointId,
    ScanOptions, Sighting, TxnError, TxnOptions,
};

/// Part of a scan's rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScanPage {
    /// In the scan's order.
    pub rows: Vec<(Key, Bytes)>,
    /// What has not been read; `None`: nothing is left. Pass it on to go on.
    pub resume: Option<Span>,
}

/// Where a transaction stands.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// Reads and writes.
    Open,
    /// Cannot commit any more; may restart or roll back.
    Broken(TxnError),
    /// Has ended.
    Committed,
    /// Has ended.
    RolledBack,
    /// Has ended, nobody knows how.
    Unknown(TxnError),
}

/// One transaction. Dropping it before its end rolls it back in the background.
pub struct Txn {
    pub(super) db: Db,
    pub(super) options: TxnOptions,
    pub(super) id: TxnId,
    pub(super) started: Timestamp,
    pub(super) read_at: Timestamp,
    /// Fixed from the first read on (HLC, uncertainty), for each statement anew under `READ COMMITTED`: later values were written after
    /// it was dated, in real time.
    pub(super) uncertainty_limit: Timestamp,
    /// `read_at` was taken from a clock that lagged: see [`Txn::catch_up`].
    pub(super) lags: bool,
    pub(super) state: State,
    /// While it is open.
    open: Option<OpenMark>,
    pub(super) anchor: Option<Key>,
    /// Sign of life, from the first lock or intent on.
    pub(super) pulse: Option<Pulse>,
    pub(super) buffer: WriteBuffer,
    /// As of `read_at`. Must hold where `read_at` moves to; at the commit it is narrowed to what the isolation level asks for.
    pub(super) reads: SpanSet,
    /// Below `SERIALIZABLE`: what must hold at the commit.
    pub(super) held: Held,
    pub(super) locks: SpanSet,
    /// One per open savepoint, outermost first.
    pub(super) lock_levels: Vec<LockLevel>,
    /// Bytes written so far, and before the statement under way.
    pub(super) written_bytes: u64,
    pub(super) written_before: u64,
    /// Rows locked so far.
    pub(super) locked_count: u64,
    /// How often it was the one to give way in a circle that it had found by pushes, over all its attempts.
    pub(super) gave_way: u32,
    /// To whom last in this attempt, and at which key.
    pub(super) gave_way_to: Option<(Key, TxnId)>,
    /// The same of the attempt before, until it is waited for ([`Txn::let_by`]).
    pub(super) lets_by: Option<(Key, TxnId)>,
    /// Grows with each savepoint and each rollback to one ([`TxnMeta::stage`]).
    pub(super) stage: u32,
    /// Under `READ COMMITTED`, the savepoint of the statement under way.
    pub(super) statement: Option<SavepointId>,
    /// Where the effects of the statement under way begin, if it asked for that ([`Txn::begin_effects`]).
    pub(super) effects: Option<SavepointId>,
    /// Where a request under way may be taking locks: part of what must be released if it never comes back.
    pub(super) locking: Vec<Span>,
    /// The last exchange took more than one try.
    pub(super) asked_again: bool,
    /// Where a one-phase commit that was sent away may have a place in a queue.
    pub(super) queued: Option<Span>,
    pub(super) intents: SpanSet,
    /// What it does, for others' errors.
    pub(super) doing: Doing,
    /// What it has written, as far as its commit has come.
    pub(super) wrote: Writes,
    /// Where the intents have been laid, at most.
    pub(super) write_ts: Timestamp,
    pub(super) schema: BTreeMap<u32, u64>,
    pub(super) pushed: BTreeMap<TxnId, Timestamp>,
    pub(super) lock_timeout: Option<Duration>,
    pub(super) deadline: Option<Monotonic>,
    pub(super) commit_deadline: Timestamp,
    /// An `EndTxn` that commits has left: from here on only the record knows.
    pub(super) commit_sent: bool,
    /// A one-phase commit has left and has not answered.
    pub(super) may_arrive_late: bool,
}

impl Txn {
    pub(super) fn new(db: Db, options: TxnOptions) -> Txn {
        let mut txn = Txn {
            id: db.new_id(),
            started: db.runtime().hlc.now().timestamp(),
            read_at: Timestamp::MIN,
            uncertainty_limit: Timestamp::MIN,
            lags: false,
            state: State::Open,
            open: None,
            anchor: None,
            pulse: None,
            buffer: WriteBuffer::default(),
            reads: SpanSet::default(),
            held: Held::default(),
            locks: SpanSet::default(),
            lock_levels: Vec::new(),
            written_bytes: 0,
            written_before: 0,
            locked_count: 0,
            gave_way: 0,
            gave_way_to: None,
            lets_by: None,
            stage: 0,
            statement: None,
            effects: None,
            locking: Vec::new(),
            asked_again: false,
            queued: None,
            intents: SpanSet::default(),
            doing: Doing { statement: options.label.as_str().into(), user: "".into() },
            wrote: Writes::default(),
            write_ts: Timestamp::MIN,
            schema: BTreeMap::new(),
            pushed: BTreeMap::new(),
            lock_timeout: None,
            deadline: None,
            commit_deadline: Timestamp::MAX,
            commit_sent: false,
            may_arrive_late: false,
            options,
            db,
        };
        txn.date();
        txn
    }

    /// Dates it: by this gateway's clock, and not before what it has been dated by already, so that nobody sees time go back; nor before
    /// what was done under the locks that it has now, by those who had them before.
    pub(super) fn date(&mut self) {
        let hlc = &self.db.runtime().hlc;
        // Looked at before the clock is read: a pause in between lies within the transaction.
        self.lags = self.options.as_of.is_none() && hlc.held_back() > Duration::ZERO;
        // Who was pushed may have committed, and been acknowledged, before now.
        self.pushed.clear();
        let now = hlc.now().timestamp();
        let uncertainty = hlc.uncertainty();
        (self.read_at, self.uncertainty_limit) = match (self.options.as_of, self.options.access) {
            (Some(at), _) => (at, at),
            // Everything that may have been acknowledged before now is at or below: nothing is uncertain.
            (None, Access::Deferrable) => {
                let latest = now.plus(uncertainty).forward(self.read_at);
                (latest, latest)
            }
            (None, Access::ReadWrite | Access::ReadOnly) => {
                let now = now.forward(self.read_at).forward(self.held.read_high());
                (now, now.plus(uncertainty))
            }
        };
        match &self.open {
            Some(open) => open.move_to(self.read_at),
            None => self.open = Some(self.db.open().enter(self.read_at)),
        }
    }

    /// Its id; another one after each restart.
    pub fn id(&self) -> TxnId {
        self.id
    }

    /// Everything it reads holds at this timestamp. Moves forward as it refreshes.
    pub fn read_timestamp(&self) -> Timestamp {
        self.read_at
    }

    /// HLC reading of the very first start, kept over restarts.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// How it was begun.
    pub fn options(&self) -> &TxnOptions {
        &self.options
    }

    /// From here on it is refused writes and locks; what it has written stays.
    pub fn make_read_only(&mut self) {
        if self.options.access == Access::ReadWrite {
            self.options.access = Access::ReadOnly;
        }
    }

    /// Takes [`Txn::make_read_only`] back: it may do again what it could when its access was this.
    pub fn restore_access(&mut self, access: Access) {
        self.options.access = access;
    }

    /// Says what it does from here on: others that it is in the way of are told.
    pub fn set_doing(&mut self, doing: Doing) {
        if self.pulse.is_some() {
            self.db.roster().update(self.id, &doing);
        }
        self.doing = doing;
    }

    /// Itself, as others are told of it.
    pub(super) fn sighting(&self) -> Sighting {
        Sighting {
            txn: self.id,
            statement: self.doing.statement.to_string(),
            user: self.doing.user.to_string(),
            started: self.started,
            fate: Fate::Open,
        }
    }

    /// Whether it has written anything that is not rolled back.
    pub fn has_writes(&self) -> bool {
        !self.buffer.is_empty() || !self.intents.is_empty()
    }

    /// Whether it has read anything, so that a change of timestamp needs a refresh.
    pub fn has_reads(&self) -> bool {
        !self.reads.is_empty()
    }

    /// Whether it may have locked keys of the span.
    pub fn has_locks_in(&self, span: &Span) -> bool {
        self.locks.touches(span)
    }

    /// Whether operations may go on: not ended, not doomed.
    pub fn is_active(&self) -> bool {
        self.check_open().is_ok()
    }

    /// Whether [`Txn::restart`] is allowed: it has neither committed nor an unknown outcome.
    pub fn can_restart(&self) -> bool {
        match self.state {
            State::Open | State::Broken(_) | State::RolledBack => true,
            State::Committed | State::Unknown(_) => false,
        }
    }

    /// Gives up waiting for one lock after this long ([`TxnError::Timeout`]); `None`: never.
    pub fn set_lock_timeout(&mut self, timeout: Option<Duration>) {
        self.lock_timeout = timeout;
    }

    /// Gives up waiting at this point ([`TxnError::Timeout`]): the statement's time limit. `None`: none.
    pub fn set_deadline(&mut self, deadline: Option<Monotonic>) {
        self.deadline = deadline;
    }

    /// It must not commit above this timestamp (a lease on the schema, say); otherwise it has to be run again.
    pub fn set_commit_deadline(&mut self, deadline: Timestamp) {
        self.commit_deadline = deadline;
    }

    /// Chaos only: what was planned under this table's schema so far is not remembered.
    pub fn forget_schema(&mut self, table: u32) {
        self.schema.remove(&table);
    }

    /// Requests from now on say that they were planned under this version of the table's schema; ranges refuse older ones. The version
    /// counts from `since` on: what it says of the table (an index is complete, say) need not hold at earlier timestamps, so the
    /// transaction moves to it.
    ///
    /// INVARIANT: everything that a transaction has written was planned under the versions that its commit names.
    ///
    /// # Errors
    /// `SchemaChanged`: it has written under a former version, and the commit would say that it knew this one. `Retry`: what it has read
    /// was overwritten since.
    pub async fn use_schema(
        &mut self,
        table: u32,
        version: u64,
        since: Timestamp,
    ) -> Result<(), TxnError> {
        self.check_open()?;
        let former = self.schema.insert(table, version);
        if former.is_some_and(|former| former < version) && self.has_writes() {
            coverage::reached(Mark::SchemaRaisedAfterWrite);
            return Err(self.doom(TxnError::SchemaChanged { table, version }));
        }
        if since > self.read_at && self.options.as_of.is_none() {
            coverage::reached(Mark::MovedToSchema);
            self.move_to(since).await?;
        }
        Ok(())
    }

    /// A row; `None` if there is none.
    ///
    /// # Errors
    /// Any [`TxnError`] but those of commits.
    pub async fn get(&mut self, key: &Key, lock: Option<Lock>) -> Result<Option<Bytes>, TxnError> {
        let mut values = self.multi_get(std::slice::from_ref(key), lock).await?;
        Ok(values.pop().flatten())
    }

    /// Rows in the order of `keys`; one batch per range.
    ///
    /// # Errors
    /// As [`Txn::get`].
    pub async fn multi_get(
        &mut self,
        keys: &[Key],
        lock: Option<Lock>,
    ) -> Result<Vec<Option<Bytes>>, TxnError> {
        self.multi_get_with(keys, GetOptions { lock, ..GetOptions::default() }).await
    }

    /// Rows in the order of `keys`. A row left out by [`OnLock::Skip`] reads as `None`.
    ///
    /// # Errors
    /// As [`Txn::get`].
    pub async fn multi_get_with(
        &mut self,
        keys: &[Key],
        options: GetOptions,
    ) -> Result<Vec<Option<Bytes>>, TxnError> {
        self.check_open()?;
        self.check_lock_allowed(options.lock)?;
        let mut values: Vec<Option<Bytes>> = vec![None; keys.len()];
        let before = self.hidden_from(options.own);
        let mut asked = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            match self.buffer.get_before(key, before) {
                Some(value) => values[index] = value.cloned(),
                None => asked.push(index),
            }
            // A buffered write is no lock: a locking read of an own write still takes one.
            if options.lock.is_some() && asked.last() != Some(&index) {
                asked.push(index);
            }
        }
        if asked.is_empty() {
            return Ok(values);
        }
        let requests: Vec<Request> = asked
            .iter()
            .map(|index| Request::Get { key: keys[*index].clone(), lock: options.lock })
            .collect();
        let spans: Vec<Span> = asked.iter().map(|index| Span::point(&keys[*index])).collect();
        let responses = self.read(requests, &spans, options).await?;
        for ((index, response), span) in asked.into_iter().zip(responses).zip(spans) {
            let Response::Get(row) = response else {
                return Err(unexpected("Get"));
            };
            if row.is_some() || options.wait != OnLock::Skip {
                self.note_read(span.clone());
                if options.lock.is_some() || options.hold == Hold::ToCommit {
                    self.note_held(span.clone());
                }
                if options.lock.is_some() {
                    self.count_locks(std::iter::once(&keys[index]));
                }
            }
            // Also of an absent row, which looks like one that was left out.
            self.note_lock(span, options.lock);
            if self.buffer.get_before(&keys[index], before).is_none() {
                values[index] = row.map(|row| row.value);
            }
        }
        if options.lock.is_some() {
            self.check_lock_count()?;
        }
        Ok(values)
    }

    /// Rows of a span, the transaction's own writes included, up to the page's limits.
    ///
    /// # Errors
    /// As [`Txn::get`].
    pub async fn scan(&mut self, span: Span, options: ScanOptions) -> Result<ScanPage, TxnError> {
        self.check_open()?;
        self.check_lock_allowed(options.lock)?;
        let mut page = ScanPage { rows: Vec::new(), resume: Some(span) };
        let mut bytes: u64 = 0;
        while let Some(span) = page.resume.take() {
            if span.is_empty() {
                break;
            }
            let wanted = options.limit.saturating_sub(page.rows.len() as u64);
            let (rows, resume) = self.scan_piece(&span, options, wanted).await?;
            bytes += rows
                .iter()
                .map(|(key, value)| (key.as_bytes().len() + value.len()) as u64)
                .sum::<u64>();
            page.rows.extend(rows);
            page.resume = resume;
            let full = options.limit > 0 && page.rows.len() as u64 >= options.limit;
            if full || (options.bytes_max > 0 && bytes >= options.bytes_max) {
                break;
            }
        }
        Ok(page)
    }

    /// What one request answers of `span`, own writes laid over it, cut to `wanted` rows (if there is a limit).
    async fn scan_piece(
        &mut self,
        span: &Span,
        options: ScanOptions,
        wanted: u64,
    ) -> Result<(Vec<(Key, Bytes)>, Option<Span>), TxnError> {
        let piece_bytes = self.db.settings().scan_piece_bytes;
        let request = Request::Scan {
            span: span.clone(),
            direction: options.direction,
            limit: wanted,
            bytes_max: if options.bytes_max == 0 {
                piece_bytes
            } else {
                options.bytes_max.min(piece_bytes)
            },
            lock: options.lock,
        };
        let get = GetOptions {
            lock: options.lock,
            wait: options.wait,
            hold: options.hold,
            own: options.own,
        };
        let mut responses = self.read(vec![request], std::slice::from_ref(span), get).await?;
        let Some(Response::Scan { rows, resume }) = responses.pop() else {
            return Err(unexpected("Scan"));
        };
        let examined = examined(span, resume.as_ref(), options.direction);
        if options.lock.is_some() {
            self.count_locks(rows.iter().map(|row| &row.key));
        }
        match options.wait {
            // What was skipped was not read: whoever holds it may well change it.
            OnLock::Skip => {
                for row in &rows {
                    self.note_read(Span::point(&row.key));
                    self.note_lock(Span::point(&row.key), options.lock);
                }
            }
            OnLock::Wait | OnLock::Fail => {
                self.note_read(examined.clone());
                self.note_lock(examined.clone(), options.lock);
            }
        }
        match (options.hold, options.lock) {
            (Hold::ToCommit, _) => self.note_held(examined.clone()),
            (Hold::AsLocked, Some(_)) => {
                rows.iter().for_each(|row| self.note_held(Span::point(&row.key)));
            }
            (Hold::AsLocked, None) => {}
        }
        if options.lock.is_some() {
            self.check_lock_count()?;
        }
        let rows = rows.into_iter().map(|Row { key, value, .. }| (key, value)).collect();
        let before = self.hidden_from(options.own);
        let mut rows = self.buffer.overlay(&examined, options.direction, rows, before);
        if options.limit == 0 || (rows.len() as u64) <= wanted {
            return Ok((rows, resume));
        }
        coverage::reached(Mark::OwnWritesCutScan);
        rows.truncate(usize::try_from(wanted).expect("it is below a length in memory"));
        let last = &rows.last().expect("at least one row is wanted").0;
        let rest = match options.direction {
            Direction::Forward => Span::new(last.next(), span.end.clone()),
            Direction::Reverse => Span::new(span.start.clone(), last.clone()),
        };
        Ok((rows, (!rest.is_empty()).then_some(rest)))
    }

    /// Sends reads. Until they are answered, `spans` count as locked if they lock.
    async fn read(
        &mut self,
        requests: Vec<Request>,
        spans: &[Span],
        options: GetOptions,
    ) -> Result<Vec<Response>, TxnError> {
        self.spill_if_large().await?;
        self.catch_up().await?;
        self.wait_for_snapshot().await;
        self.note_stray_locks();
        let purpose = match options.lock {
            None => Purpose::Read,
            Some(_) => Purpose::Lock,
        };
        if options.lock.is_some() {
            self.take_anchor(&spans[0].start);
            self.locking.extend_from_slice(spans);
        }
        let reply = self.exchange(&requests, purpose, options.wait).await?;
        if options.lock.is_some() || options.hold == Hold::ToCommit {
            self.note_eras(&reply, options.lock)?;
        }
        // A former try may have been granted what this one did not come to: it is noted with the next request, or released at the end.
        if !self.asked_again {
            self.locking.clear();
        }
        Ok(reply.responses)
    }

    fn note_read(&mut self, span: Span) {
        if self.options.as_of.is_none() {
            self.reads.add(span, self.db.settings().read_spans_bytes_max);
        }
    }

    /// Writes a row, whatever was there. Buffered.
    ///
    /// # Errors
    /// `ReadOnly`, `TooLarge`, or what ended the transaction.
    pub fn put(&mut self, key: Key, value: Bytes) -> Result<(), TxnError> {
        self.write(key, Some(value), Expect::Anything)
    }

    /// Deletes a row, if there is one. Buffered.
    ///
    /// # Errors
    /// As [`Txn::put`].
    pub fn delete(&mut self, key: Key) -> Result<(), TxnError> {
        self.write(key, None, Expect::Anything)
    }

    /// Writes a row that must not be there. Buffered: whether it is there is found out by the commit at the latest, which then
    /// fails with `Exists`.
    ///
    /// # Errors
    /// `Exists` if the transaction itself has written it; as [`Txn::put`].
    pub fn insert(&mut self, key: Key, value: Bytes) -> Result<(), TxnError> {
        if let Some(Some(own)) = self.buffer.get(&key) {
            return Err(TxnError::Exists { value: own.clone(), key });
        }
        self.write(key, Some(value), Expect::Absent)
    }

    /// Writes a row that must not be there, and finds out now: reads the key and locks it.
    ///
    /// # Errors
    /// `Exists`; as [`Txn::get`] and [`Txn::put`].
    pub async fn insert_checked(&mut self, key: Key, value: Bytes) -> Result<(), TxnError> {
        if let Some(there) = self.get(&key, Some(Lock::Exclusive)).await? {
            return Err(TxnError::Exists { key, value: there });
        }
        // The key was read as absent: if that changes, the refresh fails. No condition is needed, and after an own delete that has
        // been laid down already it would be wrong.
        self.write(key, Some(value), Expect::Anything)
    }

    fn write(&mut self, key: Key, value: Option<Bytes>, expect: Expect) -> Result<(), TxnError> {
        self.check_open()?;
        if self.is_read_only() {
            return Err(TxnError::ReadOnly);
        }
        let settings = self.db.settings();
        let value_bytes = value.as_ref().map_or(0, Bytes::len);
        check_size("key", settings.key_bytes_max, key.as_bytes().len())?;
        check_size("value", settings.value_bytes_max, value_bytes)?;
        let total = self.buffer.bytes() + key.as_bytes().len() + value_bytes;
        check_size("buffered writes of a transaction", settings.buffer_bytes_max, total)?;
        let written = self.written_bytes + (key.as_bytes().len() + value_bytes) as u64;
        let limit = self.options.limits.write_bytes_max;
        check_count("bytes written by a transaction", limit, written)?;
        self.written_bytes = written;
        self.buffer.write(key, value, expect);
        self.let_large_statement_settle();
        Ok(())
    }

    /// Ends it without effect. Locks and intents are released in the background.
    pub async fn rollback(&mut self) {
        match self.state {
            State::Open | State::Broken(_) => {
                self.leave(Outcome::Undecided);
                self.state = State::RolledBack;
            }
            State::Committed | State::RolledBack | State::Unknown(_) => {}
        }
    }

    /// From here on it can only be restarted or rolled back. Releases now what it holds, instead of then.
    pub fn let_go(&mut self) {
        match self.state {
            State::Open => {
                let reason = "it was given up".to_string();
                let (kind, key, other) = (RetryKind::Aborted, None, None);
                self.state = State::Broken(TxnError::Retry { kind, key, other, reason });
            }
            State::Broken(_) => {}
            State::Committed | State::RolledBack | State::Unknown(_) => return,
        }
        self.leave(Outcome::Undecided);
    }

    /// Begins again from nothing: new id, fresh timestamps; age, priority and settings stay. The old attempt is rolled back.
    ///
    /// # Panics
    /// If it has committed or may have ([`Txn::can_restart`]).
    pub fn restart(&mut self) {
        assert!(self.can_restart(), "{} was restarted after its commit", self.id);
        coverage::reached(Mark::TxnRestarted);
        self.leave(Outcome::Undecided);
        self.id = self.db.new_id();
        self.date();
        self.write_ts = Timestamp::MIN;
        self.schema.clear();
        self.commit_sent = false;
        self.may_arrive_late = false;
        self.lets_by = self.gave_way_to.take().or(self.lets_by.take());
        self.state = State::Open;
    }

    /// Hands what it has left at the ranges to the background, and forgets it here.
    pub(super) fn leave(&mut self, outcome: Outcome) {
        self.leave_roster(Fate::Ended);
        self.open = None;
        self.buffer.clear();
        self.reads = SpanSet::default();
        self.held = Held::default();
        self.lock_levels.clear();
        (self.written_bytes, self.written_before, self.locked_count) = (0, 0, 0);
        (self.statement, self.effects) = (None, None);
        let pulse = self.pulse.take();
        let beats = pulse.as_ref().is_some_and(Pulse::has_beaten);
        drop(pulse);
        let mut locks = std::mem::take(&mut self.locks);
        // What is released includes a place in a queue: others would wait behind it for nobody.
        for span in self.locking.drain(..).chain(self.queued.take()) {
            locks.add(span, self.db.settings().lock_spans_bytes_max);
        }
        let intents = std::mem::take(&mut self.intents);
        let Some(anchor) = self.anchor.take() else {
            assert!(locks.is_empty() && intents.is_empty(), "{} locked without an anchor", self.id);
            return;
        };
        let meta = TxnMeta { anchor, ..self.meta() };
        let (commit_sent, may_arrive_late) = (self.commit_sent, self.may_arrive_late);
        let highest = self.read_at.forward(self.write_ts);
        let remains =
            Remains { meta, locks, intents, outcome, beats, commit_sent, may_arrive_late, highest };
        remains.clear_up(&self.db);
    }

    /// Others do not meet it any more, or only what it has left behind. The first time counts.
    pub(super) fn leave_roster(&mut self, fate: Fate) {
        let wrote = std::mem::take(&mut self.wrote);
        self.db.roster().leave(self.id, self.started, &self.doing, (fate, wrote));
    }

    /// Whether its statement may go on, for who works without asking ranges.
    ///
    /// # Errors
    /// `Timeout`: the time that was set for the statement is over.
    pub fn check_time(&self) -> Result<(), TxnError> {
        self.check_deadline(None, &Trials::new(Purpose::Read, OnLock::Wait))
    }

    /// What ended or doomed it, if anything has.
    pub(super) fn check_open(&self) -> Result<(), TxnError> {
        match &self.state {
            State::Open => match &self.pulse {
                Some(pulse) if pulse.is_stopped() => {
                    coverage::reached(Mark::TakenForDead);
                    Err(TxnError::Retry {
                        kind: RetryKind::Aborted,
                        key: None,
                        other: Some(Question::AborterOf(self.id)),
                        reason: "it was aborted by another, which took it for dead".into(),
                    })
                }
                _ => Ok(()),
            },
            State::Broken(error) | State::Unknown(error) => Err(error.clone()),
            State::Committed | State::RolledBack => {
                Err(TxnError::Invalid("the transaction has ended".into()))
            }
        }
    }

    fn check_lock_allowed(&self, lock: Option<Lock>) -> Result<(), TxnError> {
        if lock.is_some() && self.is_read_only() { Err(TxnError::ReadOnly) } else { Ok(()) }
    }

    /// Whether it is refused writes and locks.
    pub fn is_read_only(&self) -> bool {
        match self.options.access {
            Access::ReadWrite => self.options.as_of.is_some(),
            Access::ReadOnly | Access::Deferrable => true,
        }
    }

    /// The record's place is the first key that is locked or laid down; from then on the transaction shows that it lives.
    pub(super) fn take_anchor(&mut self, key: &Key) {
        if self.anchor.is_none() {
            self.anchor = Some(key.clone());
        }
        if self.pulse.is_none() {
            self.pulse = Some(self.db.heartbeats().register(self.meta(), self.read_at));
            self.db.roster().enter(self.id, self.started, self.doing.clone());
        }
    }

    /// What others must know of it. Before it has an anchor nobody can meet it, and the empty key stands there.
    pub(super) fn meta(&self) -> TxnMeta {
        TxnMeta {
            id: self.id,
            anchor: self.anchor.clone().unwrap_or(Key::MIN),
            started: self.started,
            priority: self.options.priority,
            stage: self.stage,
        }
    }
}

impl Drop for Txn {
    fn drop(&mut self) {
        match self.state {
            State::Open | State::Broken(_) => {
                coverage::reached(Mark::TxnDroppedOpen);
                self.leave(Outcome::Undecided);
            }
            State::Committed | State::RolledBack | State::Unknown(_) => {}
        }
    }
}

/// The part of `span` that an answer speaks of.
fn examined(span: &Span, resume: Option<&Span>, direction: Direction) -> Span {
    match (resume, direction) {
        (None, _) => span.clone(),
        (Some(rest), Direction::Forward) => Span::new(span.start.clone(), rest.start.clone()),
        (Some(rest), Direction::Reverse) => Span::new(rest.end.clone(), span.end.clone()),
    }
}

fn check_size(what: &'static str, limit: usize, actual: usize) -> Result<(), TxnError> {
    if actual <= limit {
        return Ok(());
    }
    Err(TxnError::TooLarge { what, limit: limit as u64, actual: actual as u64 })
}

pub(super) fn check_count(what: &'static str, limit: u64, actual: u64) -> Result<(), TxnError> {
    if actual <= limit { Ok(()) } else { Err(TxnError::TooMany { what, limit, actual }) }
}

pub(super) fn unexpected(request: &str) -> TxnError {
    TxnError::Invalid(format!("a range answered something else than asked by {request}"))
}

pub(super) fn no_savepoint() -> TxnError {
    TxnError::Invalid("there is no such savepoint".into())
}
