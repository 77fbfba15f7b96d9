//! Driver: the parallel commit: writes and a record that names them leave at the same time, and when all are there the transaction is
//! committed, whether or not anybody has said so yet ([`crate::api::Staged`]).
//!
//! ```text
//!   anchor's range   ──[Write, Stage]──►  one command  ─┐
//!   other ranges     ──[Write]─────────►               ─┴─► all at or below `read_at`: committed, the client is told
//!                                                            afterwards: EndTxn (says so), Resolve, ForgetTxn
//!                                                        one above: refresh to it, EndTxn there  (two phases after all),
//!                                                                   or the same once more there   (`stagings_again_max`)
//! ```
//!
//! # What may come between
//!
//! - A conflict or a push: waited out or moved above, and both are sent again. The record may be staged meanwhile, so others do not pass
//!   by our intents; after `staged_kept` they take the staging back (`server::push`).
//! - A lost answer: both are sent again, they are idempotent. Our own writes may have been committed and resolved by others by
//!   then; the record says so to the second `Stage`.
//! - A failure after a `Stage` that may have arrived: whoever meets the record may still find all writes and commit. So the record is made
//!   to say "aborted" first, and if it says "committed" that is the answer (killer T01).
//!
//! INVARIANT: the same writes are named each time, and no intent was laid before the first time.

use clock::Timestamp;
use coverage::Mark;
use storage::mvcc::Sequence;
use storage::{Key, Span};

use crate::api::{KvError, Mutation, Reply, Request, Response, Wait};
use crate::client::commit::{CommitInfo, CommitPath};
use crate::client::exchange::{Purpose, Trials};
use crate::client::split::gravest;
use crate::client::txn::unexpected;
use crate::client::{OnLock, Txn, TxnError};

/// How far one sending of writes and staging got.
enum Sent {
    /// Everything is there.
    All {
        /// `Some`: the record says "committed" already.
        decided: Option<Timestamp>,
        /// The highest timestamp that a write was laid at.
        laid: Timestamp,
        /// The lowest that the record is staged at.
        staged: Timestamp,
    },
    /// Not everything. `staged`: whether the record may be.
    Part { error: KvError, staged: bool },
}

impl Txn {
    /// Commits writes none of which was laid before.
    pub(super) async fn commit_parallel(
        &mut self,
        mutations: Vec<Mutation>,
    ) -> Result<CommitInfo, TxnError> {
        assert!(self.intents.is_empty(), "{} staged after it had laid intents", self.id);
        let Some(first) = mutations.first() else { return Err(unexpected("a commit of nothing")) };
        self.take_anchor(&first.key.clone());
        let begun = self.db.runtime().time.monotonic();
        let mut doubt = false;
        match self.stage(&mutations, &mut doubt).await {
            Err(failure) if doubt => {
                coverage::reached(Mark::StagedCommitFailed);
                let ts = self.fail_for_certain(failure, begun).await?;
                Ok(CommitInfo { ts, path: CommitPath::TwoPhase })
            }
            outcome => outcome,
        }
    }

    async fn stage(
        &mut self,
        mutations: &[Mutation],
        doubt: &mut bool,
    ) -> Result<CommitInfo, TxnError> {
        let limit = self.db.settings().lock_spans_bytes_max;
        let mut trials = Trials::new(Purpose::Lock, OnLock::Wait);
        let mut again = 0;
        loop {
            self.check_open()?;
            // Said before they are sent: from now on there may be intents, and a record.
            for mutation in mutations {
                self.intents.add(Span::point(&mutation.key), limit);
            }
            self.commit_sent = true;
            let wait = self.wait_mode(&mut trials);
            match self.send_staged(mutations, wait).await? {
                Sent::All { decided: Some(ts), .. } => {
                    return Ok(CommitInfo { ts, path: CommitPath::TwoPhase });
                }
                Sent::All { laid, staged, .. } if laid <= staged => {
                    assert_eq!(staged, self.read_at, "{} is staged where its reads hold", self.id);
                    coverage::reached(Mark::ParallelCommitted);
                    return Ok(CommitInfo { ts: staged, path: CommitPath::Parallel });
                }
                Sent::All { laid, .. } if again < self.db.settings().stagings_again_max => {
                    coverage::reached(Mark::ParallelStagedAgain);
                    *doubt = true;
                    again += 1;
                    self.write_ts = self.write_ts.forward(laid);
                    self.move_to(laid).await?;
                }
                Sent::All { laid, .. } => {
                    coverage::reached(Mark::ParallelMadeTwo);
                    *doubt = true;
                    self.write_ts = self.write_ts.forward(laid);
                    let ts = self.commit_record().await?;
                    return Ok(CommitInfo { ts, path: CommitPath::TwoPhase });
                }
                Sent::Part { error, staged } => {
                    *doubt |= staged;
                    self.overcome(error, &mut trials).await?;
                }
            }
        }
    }

    /// Sends writes and staging once; what concerns the anchor's range in one batch, which is one command there.
    async fn send_staged(&self, mutations: &[Mutation], wait: Wait) -> Result<Sent, TxnError> {
        let anchor = self.anchor.clone().expect("it was taken before anything was sent");
        let around = self.range_around(&anchor).await?;
        let (here, elsewhere): (Vec<Mutation>, Vec<Mutation>) =
            mutations.iter().cloned().partition(|mutation| around.contains(&mutation.key));
        let stage = Request::Stage {
            intents: self.intents.to_vec(),
            writes: named(mutations),
            deadline: self.commit_deadline,
        };
        let write = |mutations: Vec<Mutation>| {
            (!mutations.is_empty()).then_some(Request::Write { mutations })
        };
        let beside: Vec<Request> = write(here).into_iter().chain([stage]).collect();
        coverage::reached(Mark::StagingSent);
        let staging = self.send(self.batch(beside, wait));
        let laying = async {
            match write(elsewhere) {
                Some(write) => Some(self.send(self.batch(vec![write], wait)).await),
                None => None,
            }
        };
        let (staging, laying) = futures::future::join(staging, laying).await;
        let replies: Vec<Result<Reply, KvError>> =
            [Some(staging), laying].into_iter().flatten().collect();
        // Refused for certain is only what was refused as a whole, and not lost on the way.
        let staged = !matches!(&replies[0], Err(error) if !may_have_arrived(error));
        let mut responses = Vec::new();
        let mut errors = Vec::new();
        for reply in replies {
            match reply {
                Ok(reply) => responses.extend(reply.responses),
                Err(error) => errors.push(error),
            }
        }
        match gravest(errors) {
            Some(error) => Ok(Sent::Part { error, staged }),
            None => self.sent_all(&responses),
        }
    }

    fn sent_all(&self, responses: &[Response]) -> Result<Sent, TxnError> {
        let (mut decided, mut staged, mut laid) = (None, Timestamp::MAX, Timestamp::MIN);
        for response in responses {
            match response {
                Response::Written(ts) => laid = laid.forward(*ts),
                Response::Staged(ts) => staged = *ts,
                Response::Committed(ts) => decided = Some(*ts),
                _ => return Err(unexpected("a parallel commit")),
            }
        }
        Ok(Sent::All { decided, laid, staged })
    }
}

/// Each key with the highest sequence of its writes; a record names no more.
fn named(mutations: &[Mutation]) -> Vec<(Key, Sequence)> {
    let mut named: Vec<(Key, Sequence)> = Vec::with_capacity(mutations.len());
    for mutation in mutations {
        match named.last_mut().filter(|(key, _)| *key == mutation.key) {
            Some((_, sequence)) => *sequence = mutation.sequence.max(*sequence),
            None => named.push((mutation.key.clone(), mutation.sequence)),
        }
    }
    named
}

fn may_have_arrived(error: &KvError) -> bool {
    matches!(
        error,
        KvError::Ambiguous { .. }
            | KvError::Doubtful { .. }
            | KvError::Unreachable { sent: true, .. }
    )
}
