//! Driver: a transaction whose client has seen results is run again, unseen: if every statement answers what it has answered before,
//! the client cannot tell, and is spared a 40001.
//!
//! A [`Tape`] keeps what the transaction was asked and a digest of what it answered: columns, rows, tag or error. When the transaction
//! cannot go on (a read was overwritten, it gave way in a deadlock, it was taken for dead), it is begun anew, the tape is played, and the
//! statement or commit at hand is tried again. The first answer that differs ends that, and the client is told the conflict.
//!
//! INVARIANT (serializability): what commits is one attempt, from its first read to its last write. The attempts before it were
//! rolled back; of them the client keeps only answers that the last one has given, too.
//! INVARIANT: nothing is run again after a commit whose outcome is not known ([`txn::client::Txn::can_restart`]).
//!
//! What is not put on tape ends its use for this transaction: COPY (the data is not kept), schema changes, `setval` (they have
//! effects outside of the transaction), EXPLAIN ANALYZE, and more than `transaction_rerun_memory`. What would be played under other
//! settings or another schema than it was run under is not played. Values of sequences that an earlier attempt drew are gaps. `now()`
//! stays; what else changes from run to run (`clock_timestamp()`, `random()`, `nextval`) shows in the digest if the client has seen it.

use super::Session;
use super::statement::Prepared;
use super::transaction::Around;
use crate::catalog::Edition;
use crate::engine::PlantedBug;
use crate::error::{Recovery, SqlError, codes};
use crate::exec::Uniqueness;
use crate::outcome::{Column, Notice, Outcome, Row};
use crate::types::{Datum, binary};
use coverage::Mark;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// Pause before it is run again; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// While a tape is played, no lock is waited for longer: whoever holds it may wait for what our client does after the error that it would
/// have had by now.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(1);
/// What a step takes beside its parameters, about, in bytes.
const STEP_BYTES: usize = 200;
/// What a parsed statement takes for each of its characters, about, in bytes.
const PARSED_BYTES: usize = 16;

/// What a transaction was asked and has answered.
#[derive(Default)]
pub(super) struct Tape {
    steps: Vec<Step>,
    bytes: usize,
    /// Statements on it.
    answered: u64,
    /// It does not hold everything: the transaction cannot be run again.
    torn: bool,
    /// Times that the transaction was run again.
    reruns: u64,
}

enum Step {
    Statement(Taped),
    Savepoint(String, Around),
    Release(String),
    RollbackTo(String),
}

struct Taped {
    prepared: Arc<Prepared>,
    params: Vec<Datum>,
    /// Under which it was run.
    settings: Arc<BTreeMap<String, String>>,
    /// The catalog that it was planned with.
    edition: Edition,
    answer: Digest,
}

/// Of an answer. Two answers that differ have the same one with a probability of 2^-64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Digest(u64);

/// Why a tape was not played to its end.
enum Stop {
    /// Others were in the way again.
    Conflict(SqlError),
    /// An answer is not what it was.
    Differs(String),
    /// The statement at hand was canceled, or has run out of time.
    Ended(SqlError),
}

impl Tape {
    /// From here on the transaction cannot be run again.
    pub(super) fn tear(&mut self) {
        *self = Tape { torn: true, reruns: self.reruns, ..Tape::default() };
    }

    /// Whether it does not hold everything that the transaction has done.
    pub(super) fn is_torn(&self) -> bool {
        self.torn
    }

    fn add(&mut self, step: Step, bytes: usize, bytes_max: u64) {
        if self.torn {
            return;
        }
        self.bytes += STEP_BYTES + bytes;
        if self.bytes as u64 > bytes_max {
            coverage::reached(Mark::TapeTooLong);
            return self.tear();
        }
        self.answered += u64::from(matches!(step, Step::Statement(_)));
        self.steps.push(step);
    }
}

impl Session {
    /// Puts a statement on tape that has answered, and whose answer the client is about to see.
    pub(super) fn tape_statement(
        &mut self,
        prepared: &Arc<Prepared>,
        params: &[Datum],
        outcome: &Result<Outcome, SqlError>,
        notices_before: usize,
    ) {
        let moved_sequence = std::mem::take(&mut self.sequence_values.lock().set);
        // A statement that is a whole transaction is run again without one.
        let alone = self.uniqueness == Uniqueness::AtCommit;
        let bytes_max = self.tape_bytes_max();
        if alone || bytes_max == 0 {
            return self.tear_tape();
        }
        if self.active.as_ref().is_none_or(|active| active.tape.torn || active.past.is_some()) {
            return;
        }
        let edition = prepared.planned_under();
        let answer = self.digest(outcome, notices_before);
        let settings = self.settings.shared();
        let Some(active) = &mut self.active else { return };
        match (outcome, edition) {
            // It may go on from a savepoint, without what this statement has seen.
            (Err(SqlError { recovery: Recovery::Restart | Recovery::Refresh { .. }, .. }), _) => {
                active.tape.tear();
            }
            (_, Some(edition)) if !moved_sequence => {
                let mut bytes: usize = params.iter().map(size).sum();
                // One that the session keeps under a name costs nothing more.
                if Arc::strong_count(prepared) <= 2 {
                    bytes += PARSED_BYTES * prepared.parsed.as_ref().map_or(0, |p| p.length);
                }
                let (prepared, params) = (prepared.clone(), params.to_vec());
                let taped = Taped { prepared, params, settings, edition, answer };
                active.tape.add(Step::Statement(taped), bytes, bytes_max);
            }
            _ => active.tape.tear(),
        }
    }

    pub(super) fn tape_savepoint(&mut self, name: &str, around: Around) {
        self.tape_step(Step::Savepoint(name.to_string(), around), name.len());
    }

    pub(super) fn tape_release(&mut self, name: &str) {
        self.tape_step(Step::Release(name.to_string()), name.len());
    }

    pub(super) fn tape_rollback_to(&mut self, name: &str) {
        self.tape_step(Step::RollbackTo(name.to_string()), name.len());
    }

    fn tape_step(&mut self, step: Step, bytes: usize) {
        let bytes_max = self.tape_bytes_max();
        if let Some(active) = &mut self.active {
            active.tape.add(step, bytes, bytes_max);
        }
    }

    /// The transaction does what cannot be run again.
    pub(super) fn tear_tape(&mut self) {
        if let Some(active) = &mut self.active {
            active.tape.tear();
        }
    }

    fn tape_bytes_max(&self) -> u64 {
        match self.settings.number("transaction_rerun_limit") {
            0 => 0,
            _ => self.settings.number("transaction_rerun_memory"),
        }
    }

    /// After `error`, from which only the transaction's beginning helps: brings it again to where it was, unless the client would see the
    /// difference.
    ///
    /// # Errors
    /// What the client is to be told: `error`, or what came of running it again.
    pub(super) async fn rerun(&mut self, error: SqlError) -> Result<(), SqlError> {
        let before = self.reruns();
        let outcome = self.rerun_while_it_helps(error).await;
        if outcome.is_err()
            && self.reruns() != before
            && let Some(active) = &mut self.active
        {
            // Half played, it knows what the client has not seen: it must not go on from a savepoint.
            active.give_up(codes::SERIALIZATION_FAILURE);
        }
        outcome
    }

    fn reruns(&self) -> u64 {
        self.active.as_ref().map_or(0, |active| active.tape.reruns)
    }

    async fn rerun_while_it_helps(&mut self, mut error: SqlError) -> Result<(), SqlError> {
        let limit = self.settings.number("transaction_rerun_limit");
        let mut pause = PAUSE_MIN;
        loop {
            if error.recovery != Recovery::Restart || !self.may_rerun() {
                return Err(error);
            }
            let active = self.active.as_mut().expect("it was just asked for");
            if active.tape.reruns >= limit {
                coverage::reached(Mark::RerunTooOften);
                let often = format!("It was run again {limit} times.");
                error.detail = Some(joined(error.detail, often));
                return Err(error);
            }
            active.tape.reruns += 1;
            self.engine.pause(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            self.check_time()?;
            let active = self.active.as_mut().expect("nobody else takes it");
            active.restart();
            let tape = std::mem::take(&mut active.tape);
            // In a box: every statement's and commit's future would have room for it.
            let played = Box::pin(self.play(&tape)).await;
            if let Some(active) = &mut self.active {
                active.tape = tape;
            }
            match played {
                Ok(()) => {
                    coverage::reached(Mark::TransactionRunAgain);
                    return Ok(());
                }
                Err(Stop::Conflict(another)) => error = another,
                Err(Stop::Ended(ended)) => return Err(ended),
                Err(Stop::Differs(why)) => {
                    coverage::reached(Mark::RerunDiffered);
                    error.detail = Some(joined(error.detail, why));
                    return Err(error);
                }
            }
        }
    }

    fn may_rerun(&self) -> bool {
        self.copy.is_none()
            && self.active.as_ref().is_some_and(|active| {
                // The second is so if the first is; if it ever were not, writes would be lost.
                !active.tape.torn
                    && active.tape.answered == active.statement_count
                    && active.past.is_none()
                    && active.changes_nothing_else()
                    && active.txn.can_restart()
            })
    }

    async fn play(&mut self, tape: &Tape) -> Result<(), Stop> {
        let count = tape.steps.len();
        for (place, step) in (1..).zip(&tape.steps) {
            match step {
                Step::Statement(taped) => self.play_statement(taped, (place, count)).await?,
                Step::Savepoint(name, around) => {
                    self.open_savepoint(name.clone(), *around).map_err(Stop::Conflict)?;
                }
                Step::Release(name) => {
                    self.release_savepoint(name).map_err(Stop::Conflict)?;
                }
                Step::RollbackTo(name) => {
                    self.back_to_savepoint(name).await.map_err(Stop::Conflict)?;
                }
            }
        }
        Ok(())
    }

    async fn play_statement(
        &mut self,
        taped: &Taped,
        (place, count): (usize, usize),
    ) -> Result<(), Stop> {
        let text = taped.prepared.parsed.as_ref().map_or("", |parsed| &*parsed.text);
        let differs = |what: &str| {
            Stop::Differs(format!(
                "It was run again, but {what} its statement {place} of {count}, which was answered before ({text})."
            ))
        };
        if *self.settings.shared() != *taped.settings {
            return Err(differs("other settings are in force than for"));
        }
        let notices_before = self.notices.len();
        let outcome = match self.planned(&taped.prepared).await {
            Ok(planned) if planned.edition != taped.edition => {
                return Err(differs("the schema has changed since"));
            }
            Ok(planned) => self.run_once(&planned, &taped.params, LOCK_WAIT_MAX).await,
            Err(error) => Err(error),
        };
        let answer = self.digest(&outcome, notices_before);
        // The client has had them.
        self.notices.truncate(notices_before);
        let moved_sequence = std::mem::take(&mut self.sequence_values.lock().set);
        match outcome {
            Err(error) if error.recovery == Recovery::Restart => Err(Stop::Conflict(error)),
            Err(error)
                if answer != taped.answer
                    && [codes::QUERY_CANCELED, codes::TRANSACTION_TIMEOUT]
                        .contains(&error.code) =>
            {
                Err(Stop::Ended(error))
            }
            Err(error) if answer != taped.answer && error.code == codes::LOCK_NOT_AVAILABLE => {
                Err(differs("others hold for too long what was locked by"))
            }
            // Rows are different now: it did not come to `setval` before.
            _ if moved_sequence => Err(differs("a sequence was set by")),
            _ if answer != taped.answer && !self.engine.has(PlantedBug::RerunThoughSeen) => {
                Err(differs("another answer came from"))
            }
            _ => Ok(()),
        }
    }

    fn digest(&self, outcome: &Result<Outcome, SqlError>, notices_before: usize) -> Digest {
        let mut hasher = DefaultHasher::new();
        let mut tell = |bytes: &[u8]| {
            hasher.write_u64(bytes.len() as u64);
            hasher.write(bytes);
        };
        for Notice { severity, code, message, hint } in &self.notices[notices_before..] {
            tell(format!("{severity} {code} {message} {hint:?}").as_bytes());
        }
        match outcome {
            Ok(Outcome::Rows { columns, rows, tag, .. }) => {
                tell(b"rows");
                tell(format!("{columns:?}").as_bytes());
                self.tell_rows(&mut tell, columns, rows);
                tell(tag.as_deref().unwrap_or_default().as_bytes());
            }
            Ok(Outcome::Complete { tag }) => {
                tell(b"complete");
                tell(tag.as_bytes());
            }
            Ok(Outcome::Empty) => tell(b"empty"),
            Ok(Outcome::CopyIn { .. } | Outcome::CopyOut { .. }) => tell(b"copy"),
            Err(error) => {
                tell(b"error");
                tell(format!("{error:?}").as_bytes());
            }
        }
        Digest(hasher.finish())
    }

    /// As they are in binary form: two numbers that are equal may look different.
    fn tell_rows(&self, tell: &mut impl FnMut(&[u8]), columns: &[Column], rows: &[Row]) {
        let mut bytes = Vec::new();
        for row in rows {
            for (datum, column) in row.iter().zip(columns) {
                bytes.clear();
                match datum {
                    Datum::Null => tell(b"-"),
                    datum => {
                        bytes.push(0);
                        binary::write(&mut bytes, datum, column.ty, &*self.facts);
                        tell(&bytes);
                    }
                }
            }
        }
    }
}

fn joined(detail: Option<String>, more: String) -> String {
    match detail {
        Some(detail) => format!("{detail} {more}"),
        None => more,
    }
}

/// About, in bytes.
fn size(datum: &Datum) -> usize {
    let more = match datum {
        Datum::Text(text) | Datum::BpChar(text) => text.len(),
        Datum::Bytea(bytes) => bytes.len(),
        // Their sizes are not known without a walk; few of them are parameters.
        Datum::Numeric(_) | Datum::Jsonb(_) | Datum::Array(_) | Datum::Record(_) => 1024,
        _ => 0,
    };
    size_of::<Datum>() + more
}
