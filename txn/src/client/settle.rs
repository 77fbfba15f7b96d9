//! Driver: commits whose answer was lost: what became of them, now and later.
//!
//! A [`Ticket`] names a commit. Whoever shows it, at any gateway, learns its outcome, and the same one each time: if the commit has not
//! happened by then, it never will. So a client that was told "unknown" (40003) can find out, and repeat what did not happen.

use clock::{Monotonic, Timestamp};
use coverage::Mark;
use futures::future::{Either, select};
use std::fmt;
use std::str::FromStr;
use storage::Key;
use storage::mvcc::TxnId;

use crate::api::{
    Batch, KvError, Mutation, PushKind, Reply, Request, Response, TxnMeta, TxnStatus,
};
use crate::client::commit::{CommitInfo, CommitPath};
use crate::client::txn::unexpected;
use crate::client::wait::send_plain;
use crate::client::{Db, RetryKind, Txn, TxnError, TxnOptions};
use crate::server::record::RECORD_KEPT;
use crate::server::settle::witness;

/// Names a commit whose outcome is not known. As text: `v-` or `r-`, transaction, start, key, in hexadecimal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ticket {
    txn: TxnId,
    started: Timestamp,
    key: Key,
    evidence: Evidence,
}

/// What tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Evidence {
    /// The version at the lowest key that it wrote.
    Version,
    /// The record beside its anchor.
    Record,
}

/// What became of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// It happened, at this timestamp.
    Committed(Timestamp),
    /// It did not, and never will.
    Aborted,
}

/// The text is no ticket.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("\"{0}\" is not the id of a transaction as error 40003 gives it")]
pub struct NoTicket(String);

impl Ticket {
    pub(super) fn of_version(txn: &TxnMeta, key: Key) -> Ticket {
        Ticket { txn: txn.id, started: txn.started, key, evidence: Evidence::Version }
    }

    pub(super) fn of_record(txn: &TxnMeta) -> Ticket {
        let (id, started, key) = (txn.id, txn.started, txn.anchor.clone());
        Ticket { txn: id, started, key, evidence: Evidence::Record }
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.evidence {
            Evidence::Version => 'v',
            Evidence::Record => 'r',
        };
        write!(f, "{kind}-{:032x}-{:016x}-", self.txn.get(), self.started.raw())?;
        self.key.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Ticket {
    type Err = NoTicket;

    fn from_str(text: &str) -> Result<Ticket, NoTicket> {
        parse(text).ok_or_else(|| NoTicket(text.chars().take(100).collect()))
    }
}

fn parse(text: &str) -> Option<Ticket> {
    let [kind, txn, started, key]: [&str; 4] =
        text.trim().split('-').collect::<Vec<_>>().try_into().ok()?;
    let evidence = match kind {
        "v" => Evidence::Version,
        "r" => Evidence::Record,
        _ => return None,
    };
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let key = key.len().is_multiple_of(2).then(|| key.as_bytes().chunks(2).map(byte))?;
    Some(Ticket {
        txn: TxnId::new(u128::from_str_radix(txn, 16).ok()?),
        started: Timestamp::from_raw(u64::from_str_radix(started, 16).ok()?),
        key: Key::new(key.collect::<Option<Vec<u8>>>()?),
        evidence,
    })
}

impl Db {
    /// What became of a commit. If it has not happened, it never will after this.
    ///
    /// # Errors
    /// `BelowGc`: it is so long ago that nobody can tell. `Unavailable`: nobody answers who could.
    pub async fn settle(&self, ticket: &Ticket) -> Result<Settled, TxnError> {
        match ticket.evidence {
            Evidence::Version => {
                let (txn, started, key) = (ticket.txn, ticket.started, ticket.key.clone());
                let reply = send_plain(self, None, Request::Settle { txn, started, key }).await;
                settled(reply.map_err(|error| TxnError::from_kv(error))?.responses.first())
            }
            Evidence::Record => {
                // A record that is that old may be gone, and its absence tells nothing.
                let threshold = self.runtime().hlc.now().timestamp().minus(RECORD_KEPT);
                if ticket.started <= threshold {
                    return Err(TxnError::BelowGc { threshold });
                }
                let asker = self.begin(TxnOptions::read_only("settle"));
                asker.settle_record(ticket).await
            }
        }
    }
}

fn settled(response: Option<&Response>) -> Result<Settled, TxnError> {
    match response {
        Some(Response::Committed(ts)) => Ok(Settled::Committed(*ts)),
        Some(Response::Aborted) => Ok(Settled::Aborted),
        _ => Err(unexpected("Settle")),
    }
}

/// What came first.
pub(super) enum Early {
    /// The answer to the commit.
    Answer(Result<Reply, KvError>),
    /// The answer to the question what became of it.
    Outcome(Settled),
}

/// What an outcome means for whoever commits.
pub(super) fn concluded(settled: Settled, reason: &str) -> Result<CommitInfo, TxnError> {
    match settled {
        Settled::Committed(ts) => Ok(CommitInfo { ts, path: CommitPath::OnePhase }),
        Settled::Aborted => Err(TxnError::Retry {
            kind: RetryKind::Aborted,
            key: None,
            other: None,
            reason: format!("its commit was lost ({reason})"),
        }),
    }
}

impl Txn {
    /// Sends a one-phase commit, which cannot be sent again. When its answer is long in coming its outcome is asked for as well: if it was
    /// lost on its way, or its answer was, nobody waits for what will never come. A commit that is being carried out holds its
    /// keys, and the question waits for it there. One that waits for others' locks holds nothing, and the question would end it: so
    /// it is given the time for which it may wait, and that of a trip there and back. Were it ended while its answer is on its way, it would
    /// never hear who holds the lock, and never ask after a holder that is gone.
    pub(super) async fn send_and_ask(&self, batch: Batch, mutations: &[Mutation]) -> Early {
        let time = &self.db.runtime().time;
        let patience = self.db.settings().commit_asked_after + batch.wait.slice();
        let patience = time.sleep_until(time.monotonic().plus(patience));
        let sending = Box::pin(self.send(batch));
        let sending = match select(sending, patience).await {
            Either::Left((reply, _)) => return Early::Answer(reply),
            Either::Right(((), sending)) => sending,
        };
        let Some(key) = witness(mutations) else { return Early::Answer(sending.await) };
        let question = async {
            let request = Request::QueryTxn { txn: self.id, anchor: key.clone() };
            if let Err(error) = send_plain(&self.db, None, request).await {
                tracing::debug!(txn = %self.id, %error, "the way to a late commit could not be measured");
            }
            coverage::reached(Mark::LateCommitAskedFor);
            self.db.settle(&Ticket::of_version(&self.meta(), key.clone())).await
        };
        match select(sending, Box::pin(question)).await {
            Either::Left((reply, _)) => Early::Answer(reply),
            Either::Right((Ok(settled), _)) => Early::Outcome(settled),
            Either::Right((Err(_), sending)) => Early::Answer(sending.await),
        }
    }

    /// The answer to a one-phase commit was lost: finds out what became of it.
    pub(super) async fn find_out(
        &mut self,
        mutations: &[Mutation],
        begun: Monotonic,
        mut reason: String,
    ) -> Result<CommitInfo, TxnError> {
        let Some(key) = witness(mutations).cloned() else { return Err(unexpected("no writes")) };
        loop {
            let (txn, started, key) = (self.id, self.started, key.clone());
            match send_plain(&self.db, None, Request::Settle { txn, started, key }).await {
                Ok(reply) => {
                    return concluded(settled(reply.responses.first())?, &reason);
                }
                Err(error @ (KvError::BelowGc { .. } | KvError::Invalid(_))) => {
                    return Err(TxnError::Ambiguous { ticket: None, reason: error.to_string() });
                }
                Err(error) => {
                    coverage::reached(Mark::OnePhaseAmbiguous);
                    reason = match &error {
                        KvError::Unavailable { missing, .. } if !missing.is_empty() => {
                            let missing: Vec<String> =
                                missing.iter().map(ToString::to_string).collect();
                            format!("{error}; not heard of: {}", missing.join(", "))
                        }
                        _ => error.to_string(),
                    };
                    self.pause_for_outcome(begun, reason.clone()).await?;
                }
            }
        }
    }

    async fn settle_record(&self, ticket: &Ticket) -> Result<Settled, TxnError> {
        let (id, anchor, started) = (ticket.txn, ticket.key.clone(), ticket.started);
        let holder = TxnMeta { id, anchor, started, priority: 0, stage: 0 };
        let judged = self.ask_record(&holder, started, PushKind::Force, &[]).await?;
        match judged.map(|judged| judged.status) {
            Some(TxnStatus::Committed(ts)) => Ok(Settled::Committed(ts)),
            Some(TxnStatus::Aborted) => Ok(Settled::Aborted),
            Some(TxnStatus::Pending | TxnStatus::Staging(_)) | None => {
                let (range, missing) = (Default::default(), Vec::new());
                let reason = "it was staged again and again".into();
                Err(TxnError::Unavailable { range, missing, reason })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tickets_survive_their_text(txn: u128, started: u64, key: Vec<u8>, record: bool) {
            let evidence = if record { Evidence::Record } else { Evidence::Version };
            let (txn, started) = (TxnId::new(txn), Timestamp::from_raw(started));
            let ticket = Ticket { txn, started, key: Key::new(key), evidence };
            prop_assert_eq!(ticket.to_string().parse(), Ok(ticket));
        }

        #[test]
        fn other_texts_are_no_tickets(text: String) {
            prop_assert!(text.parse::<Ticket>().is_err());
        }
    }
}
