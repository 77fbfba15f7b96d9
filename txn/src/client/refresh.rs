//! Driver: moving a transaction to a later timestamp. Everything it has read must still hold there: each read span is asked for
//! writes in between, in parallel; one such write, and the transaction has to be run again. With nothing read there is nothing to check.
//!
//! The end of the uncertainty interval does not move with it: it is about what had happened when the transaction was dated.

use clock::Timestamp;
use coverage::Mark;

use crate::api::{KvError, Request, Response, Wait};
use crate::client::exchange::{Purpose, Trials};
use crate::client::{OnLock, Txn, TxnError};

impl Txn {
    /// Makes `read_at` at least `to`.
    ///
    /// # Errors
    /// `Retry` (and the transaction is doomed) when something it has read was overwritten; whatever else a range answers.
    pub(super) async fn move_to(&mut self, to: Timestamp) -> Result<(), TxnError> {
        if to <= self.read_at {
            return Ok(());
        }
        if self.options.as_of.is_some() {
            return Err(TxnError::Invalid(format!("a read of the past was asked to move to {to}")));
        }
        if self.reads.is_empty() {
            coverage::reached(Mark::MovedFreely);
            // Free to go anywhere: as late as possible, so that it need not move again soon.
            self.read_at = to.forward(self.db.runtime().hlc.now().timestamp());
            return Ok(());
        }
        let since = self.read_at;
        let requests = self.reads.iter().map(|span| Request::Refresh { span, since }).collect();
        self.refresh(requests, to).await?;
        coverage::reached(Mark::ReadsRefreshed);
        self.read_at = to;
        Ok(())
    }

    /// From here on it reads whatever is committed, and moves to where that is. For those who know that nobody writes any more (behind a
    /// fence): what was written before may be dated ahead of every clock, so that no timestamp of now is sure to show it.
    ///
    /// # Errors
    /// As [`Txn::move_to`].
    pub async fn read_newest(&mut self) -> Result<(), TxnError> {
        self.check_open()?;
        // Now, and not at the first read: it would set the limit anew.
        self.catch_up().await?;
        self.move_to(self.db.runtime().hlc.now().timestamp()).await?;
        self.uncertainty_limit = Timestamp::MAX;
        Ok(())
    }

    /// Finds out whether spans that were read still hold at `to`, and makes them hold there for good; and whether the locks are held
    /// that earlier statements have taken, if that matters ([`Txn::check_locks`]).
    ///
    /// # Errors
    /// As [`Txn::move_to`].
    pub(super) async fn refresh(
        &mut self,
        mut requests: Vec<Request>,
        to: Timestamp,
    ) -> Result<(), TxnError> {
        let relies = self.relies_on_locks();
        if let Some(anchor) = self.anchor.clone().filter(|_| relies) {
            requests.push(Request::QueryTxn { txn: self.id, anchor });
        }
        let mut trials = Trials::new(Purpose::Read, OnLock::Wait);
        loop {
            self.check_open()?;
            let mut batch = self.batch(requests.clone(), Wait::Error);
            batch.read_at = to;
            batch.uncertainty_limit = batch.uncertainty_limit.forward(to);
            match self.send(batch).await {
                Ok(reply) if relies => {
                    let own = match reply.responses.last() {
                        Some(Response::Txn { status, .. }) => Some(status),
                        _ => None,
                    };
                    return self.check_locks(&reply.eras, own);
                }
                Ok(_) => return Ok(()),
                // Moving the writer up instead would let two that have read what the other writes move each other for ever.
                Err(KvError::Blocked { key, holder, active, .. }) => {
                    let by = Some(holder.id);
                    if !self.is_over(&key, holder, active, &mut trials).await? {
                        coverage::reached(Mark::RefreshMetLiveWriter);
                        let error = KvError::RefreshFailed { key, ts: active, by };
                        return Err(self.doom(TxnError::from_kv(error)));
                    }
                }
                Err(
                    error @ (KvError::Uncertain { .. }
                    | KvError::NewerVersion { .. }
                    | KvError::NeedsRefresh { .. }),
                ) => {
                    return Err(self.doom(TxnError::from_kv(error)));
                }
                Err(error) => Box::pin(self.overcome(error, &mut trials)).await?,
            }
        }
    }
}
