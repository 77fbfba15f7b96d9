//! Machine: handing leadership over (thesis 3.10).
//!
//! From the moment it is asked the leader takes no proposals and holds no lease, for the rest of its term. When the target has
//! the whole log it is told to campaign at once, *blessed*: voters' promises to the old leader do not bind them against it. With
//! the blessing goes `read_high`, at or above every read served, so that the new leader need not start above what was
//! promised and never used.
//!
//! If that does not work out within an election timeout, the leader steps down: it has nothing left to serve with.

use super::core::{Raft, Role};
use super::*;
use coverage::Mark;
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    to: ReplicaId,
    read_high: Timestamp,
    give_up_at: Monotonic,
    /// When the target was last told; `None` before it has the whole log.
    told_at: Option<Monotonic>,
}

impl Transfer {
    pub(super) fn wake_at(&self, interval: Duration) -> Monotonic {
        let again = self.told_at.map_or(Monotonic::MAX, |told_at| told_at.plus(interval));
        self.give_up_at.min(again)
    }
}

impl Raft {
    /// Hands leadership over to `to`. `read_high`: at or above every read served in this term; nothing above it may be
    /// served after this call. Errors: [`ProposeError::TransferTarget`] if `to` cannot lead; not the leader; under way already.
    pub fn transfer(
        &mut self,
        env: &mut Env<'_>,
        to: ReplicaId,
        read_high: Timestamp,
    ) -> Result<(), ProposeError> {
        let can_lead = to != self.id && self.membership().voters.contains(&to);
        let leader = self.leader();
        let give_up_at = env.now.plus(self.config.election_timeout);
        let Role::Leader(leading) = &mut self.role else {
            return Err(ProposeError::NotLeader(leader));
        };
        if leading.transfer.is_some() {
            coverage::reached(Mark::TransferAskedTwice);
            return Err(ProposeError::Transferring);
        }
        if !can_lead {
            return Err(ProposeError::TransferTarget);
        }
        // Reads of former terms are below our floor; the new leader hears of them through us alone.
        let read_high = read_high.max(leading.floor).max(self.floor);
        leading.transfer = Some(Transfer { to, read_high, give_up_at, told_at: None });
        coverage::reached(Mark::TransferBegun);
        self.drive_transfer(env);
        Ok(())
    }

    /// The transfer under way, if any.
    pub fn transferring_to(&self) -> Option<ReplicaId> {
        match &self.role {
            Role::Leader(leading) => leading.transfer.map(|transfer| transfer.to),
            Role::Follower { .. } | Role::PreCandidate { .. } | Role::Candidate { .. } => None,
        }
    }

    /// Tells the target when it is time, again when it is overdue, and gives up in the end.
    pub(super) fn drive_transfer(&mut self, env: &mut Env<'_>) {
        let last = self.tail.last.0;
        let interval = self.config.heartbeat_interval;
        let Role::Leader(leading) = &mut self.role else { return };
        let Some(transfer) = &mut leading.transfer else { return };
        if env.now >= transfer.give_up_at {
            coverage::reached(Mark::TransferTimedOut);
            self.become_follower(env, self.term, None);
            return;
        }
        let caught_up =
            leading.progress.get(&transfer.to).is_some_and(|progress| progress.match_index == last);
        let overdue = transfer.told_at.is_none_or(|told_at| env.now >= told_at.plus(interval));
        if caught_up && overdue {
            transfer.told_at = Some(env.now);
            let (to, read_high) = (transfer.to, transfer.read_high);
            self.send_now(to, Body::TimeoutNow { read_high });
        }
    }

    pub(super) fn on_timeout_now(
        &mut self,
        env: &mut Env<'_>,
        from: ReplicaId,
        read_high: Timestamp,
    ) {
        let follows = matches!(self.role, Role::Follower { leader, .. } if leader.is_none_or(|leader| leader == from));
        if follows && self.is_promotable() {
            coverage::reached(Mark::StoodWithBlessing);
            self.stand(env, Some(read_high));
        }
    }
}
