//! Driver: the commit, and which way it goes.
//!
//! | path | when | rounds of consensus until the answer |
//! |---|---|---|
//! | one phase | all writes are in one range, none was laid down before | 1: the range writes committed values |
//! | parallel ([`super::parallel`]) | several ranges, none was laid down before | 1: intents and a record that names them, at once |
//! | two phases ([`super::two_phase`]) | writes were laid down early, or are too many to name | 2: intents, then the record |
//!
//! A late answer to a one-phase commit: its outcome is asked for while it may still come. A lost answer: the version at its lowest
//! key, or the others' record, says what happened; it is asked until it answers or `outcome_wait` is over. What has not happened
//! then never will. Who is left without an answer all the same gets a [`Ticket`], with which anybody can ask later. Before a
//! failure is reported after a commit may have arrived, the record is made to say "aborted" (killers T01, T04).

use clock::Timestamp;
use coverage::Mark;
use std::time::Duration;
use storage::{Key, Span};

use crate::api::{KvError, Mutation, Request, Response};
use crate::client::cleanup::Outcome;
use crate::client::exchange::{Purpose, Trials};
use crate::client::heartbeat::Pulse;
use crate::client::roster::Writes;
use crate::client::settle::{Early, concluded};
use crate::client::txn::{State, unexpected};
use crate::client::{Fate, Isolation, OnLock, PlantedBug, Ticket, Txn, TxnError};
use crate::server::record::CREATION_AGE_MAX;
use crate::server::settle;

/// So often a commit of one phase moves above others' reads before it is made in two.
const ONE_PHASE_MOVES_MAX: u32 = 1;
/// Most writes that a record names: beyond it the record would cost more than a second round.
const STAGED_WRITES_MAX: usize = 1_024;

/// How a transaction was committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitPath {
    /// It wrote nothing; no message was sent.
    ReadOnly,
    /// By one request.
    OnePhase,
    /// By intents and a record that names them, at once.
    Parallel,
    /// By intents, then a record.
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
                if info.path != CommitPath::ReadOnly {
                    self.leave_roster(Fate::Committed(info.ts));
                }
                self.leave(match info.path {
                    CommitPath::Parallel => Outcome::Staged(info.ts),
                    CommitPath::TwoPhase => Outcome::Committed(info.ts),
                    CommitPath::OnePhase | CommitPath::ReadOnly => Outcome::WithoutRecord,
                });
                self.wait_for_time(info).await;
                Ok(info)
            }
            Err(TxnError::Ambiguous { reason, .. }) => {
                coverage::reached(Mark::OutcomeLeftOpen);
                let error = TxnError::Ambiguous { ticket: self.ticket(), reason };
                self.state = State::Unknown(error.clone());
                self.leave(Outcome::Reported);
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
        self.catch_up().await?;
        self.narrow_reads().await?;
        let mutations = self.buffer.mutations();
        if self.intents.is_empty() {
            self.wrote = Writes::of(&mutations);
        }
        let one_message = self.buffer.bytes() <= self.db.settings().spill_bytes;
        if self.intents.is_empty()
            && one_message
            && !self.is_old_and_known()
            && self.in_one_range(&mutations).await?
            && let Some(info) = self.commit_one_phase(&mutations).await?
        {
            return Ok(info);
        }
        if self.intents.is_empty() && one_message && mutations.len() <= STAGED_WRITES_MAX {
            return self.commit_parallel(mutations).await;
        }
        self.lay(mutations).await?;
        let ts = self.commit_record().await?;
        coverage::reached(Mark::TwoPhaseCommitted);
        Ok(CommitInfo { ts, path: CommitPath::TwoPhase })
    }

    /// Whether it may be too old for a range that has never heard of it ([`KvError::TxnAborted`]), and has a record that says that it
    /// lives.
    fn is_old_and_known(&self) -> bool {
        let age = self.db.runtime().hlc.now().timestamp().since(self.started);
        let is_old = age * 2 > CREATION_AGE_MAX;
        if is_old {
            coverage::reached(Mark::OldTxnCommittedByRecord);
        }
        is_old && self.pulse.as_ref().is_some_and(Pulse::has_beaten)
    }

    /// With it the outcome of the commit under way can be asked for later.
    fn ticket(&self) -> Option<Ticket> {
        if self.commit_sent {
            return Some(Ticket::of_record(&self.meta()));
        }
        let mutations = self.buffer.mutations();
        settle::witness(&mutations).map(|key| Ticket::of_version(&self.meta(), key.clone()))
    }

    /// Ranges are contiguous: first and last key decide.
    async fn in_one_range(&self, mutations: &[Mutation]) -> Result<bool, TxnError> {
        let (Some(first), Some(last)) = (mutations.first(), mutations.last()) else {
            return Ok(false);
        };
        Ok(self.range_around(&first.key).await?.contains(&last.key))
    }

    /// The range that holds `key`, as far as is known here.
    pub(super) async fn range_around(&self, key: &Key) -> Result<Span, TxnError> {
        let known = self.db.kv().range_span(key).await;
        known.map_err(|error| TxnError::from_kv(error))
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
        let begun = self.db.runtime().time.monotonic();
        let mut trials = Trials::new(Purpose::Lock, OnLock::Wait);
        let mut moves = 0;
        loop {
            self.check_open()?;
            let request = Request::CommitOnePhase {
                mutations: mutations.to_vec(),
                // All of them; the router leaves the range its own and says whether there were others.
                reads: self.reads.to_vec(),
                // The range knows what has changed, and not which locks were lost.
                reads_elsewhere: self.relies_on_locks(),
                deadline: self.commit_deadline,
            };
            let batch = self.batch(vec![request], self.wait_mode(&mut trials));
            coverage::reached(Mark::OnePhaseSent);
            self.may_arrive_late = true;
            let reply = match self.send_and_ask(batch, mutations).await {
                Early::Outcome(settled) => return concluded(settled, "it was late").map(Some),
                Early::Answer(reply) => reply,
            };
            if let Err(
                error @ (KvError::Ambiguous { .. }
                | KvError::Doubtful { .. }
                | KvError::Unreachable { sent: true, .. }),
            ) = reply
            {
                coverage::reached(Mark::OnePhaseUnanswered);
                return self.find_out(mutations, begun, error.to_string()).await.map(Some);
            }
            self.may_arrive_late = false;
            match reply {
                Ok(reply) => match reply.responses.first() {
                    Some(Response::Committed(ts)) => {
                        self.queued = None;
                        return Ok(Some(CommitInfo { ts: *ts, path: CommitPath::OnePhase }));
                    }
                    _ => return Err(unexpected("CommitOnePhase")),
                },
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
                    self.queued = around(mutations);
                    moves += u32::from(matches!(error, KvError::NeedsRefresh { .. }));
                    self.overcome(error, &mut trials).await?;
                }
            }
        }
    }

    /// The answer of a commit waits until this gateway's clock has passed it, so that the session's next transaction sees it;
    /// strictly serializable ones until every clock has.
    async fn wait_for_time(&self, info: CommitInfo) {
        let hlc = &self.db.runtime().hlc;
        let time = &self.db.runtime().time;
        loop {
            let now = hlc.now().timestamp();
            let target = match self.options.isolation {
                Isolation::StrictSerializable
                    if self.db.settings().planted != Some(PlantedBug::CommitWaitSkipped) =>
                {
                    info.ts.plus(hlc.uncertainty())
                }
                Isolation::ReadCommitted
                | Isolation::Snapshot
                | Isolation::Serializable
                | Isolation::StrictSerializable => info.ts,
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

/// The span from the first key to the last.
fn around(mutations: &[Mutation]) -> Option<Span> {
    let (first, last) = (mutations.first()?, mutations.last()?);
    Some(Span::new(first.key.clone(), last.key.next()))
}
