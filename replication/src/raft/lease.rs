//! Machine: leases and read bounds, computed from promises. See the module's essay for the rules.
//!
//! ```text
//!   voter's promise:    |──── chain unbroken ────────────────────►| until
//!   leader's append:          sent ──► acknowledged
//!                             ▲ after the chain began: the voter was bound when it acknowledged, and has been ever since
//! ```
//!
//! INVARIANT: while a lease of one term is valid, no quorum can elect a leader of another, except one that the leader has
//! blessed after it gave the lease up. A quorum has recorded a read bound at or above the lease's.
//!
//! HAZARD: a monotonic clock that drifts more than the promises are shortened by (the store's business) breaks both: stale reads.

use super::core::{Raft, Role};
use super::lead::Leading;
use super::*;

impl Raft {
    /// The right to serve, as of now. `None` unless we lead and count, an entry of our term is applied, no transfer has begun in
    /// this term, and a quorum is bound to us. To be asked for anew whenever it is used: `until` bounds one use.
    pub fn lease(&self, env: &Env<'_>) -> Option<Lease> {
        let Role::Leader(leading) = &self.role else { return None };
        let counts = self.membership().is_voter(self.id);
        if !counts
            || self.failure().is_some()
            || leading.transfer.is_some()
            || self.applied < leading.first
        {
            return None;
        }
        let until = self.bound_until(env, leading);
        let read_bound = self.membership().reached(|id| self.recorded_bound(env, leading, id))?;
        let valid = until > env.now && read_bound > Timestamp::MIN;
        valid.then_some(Lease { term: self.term, until, read_bound })
    }

    /// Until when a quorum of the membership in force is bound to us; zero if none is.
    pub(super) fn bound_until(&self, env: &Env<'_>, leading: &Leading) -> Monotonic {
        let until = self.membership().reached(|id| {
            if id == self.id {
                // We help nobody while we lead; bounded, so that a lease once given does not hinder membership changes for ever.
                return env.now.plus(self.config.election_timeout);
            }
            self.bound_promise(env, leading, id).map_or(Monotonic::ZERO, |promise| {
                if self.is_planted(PlantedBug::LeaseNeverExpires) {
                    Monotonic::MAX
                } else {
                    promise.until
                }
            })
        });
        until.unwrap_or(Monotonic::ZERO)
    }

    /// The promise that binds `peer` to us, expired or not.
    pub(super) fn bound_promise(
        &self,
        env: &Env<'_>,
        leading: &Leading,
        peer: ReplicaId,
    ) -> Option<Promise> {
        let progress = leading.progress.get(&peer)?;
        env.support.received(peer).filter(|promise| progress.is_bound_by(promise))
    }

    /// Those whose promises bind them to us now, as far as we know: a lease is made of a quorum of them and ourselves.
    pub fn relied_on(&self, env: &Env<'_>) -> Vec<ReplicaId> {
        let Role::Leader(leading) = &self.role else { return Vec::new() };
        let others = self.membership().all_voters().into_iter().filter(|id| *id != self.id);
        let binds = |id: &ReplicaId| {
            self.bound_promise(env, leading, *id).is_some_and(|promise| promise.until > env.now)
        };
        others.filter(binds).collect()
    }

    fn recorded_bound(&self, env: &Env<'_>, leading: &Leading, id: ReplicaId) -> Timestamp {
        let promise = if id == self.id {
            env.support.received(id)
        } else {
            self.bound_promise(env, leading, id)
        };
        promise.map_or(Timestamp::MIN, |promise| promise.read_bound)
    }

    /// At or above every read bound our store recorded for leaders this replica has acknowledged, itself included.
    pub fn read_floor(&self, env: &Env<'_>) -> Timestamp {
        let bound = match (&self.role, self.binding) {
            (Role::Leader(_), _) => env.support.received(self.id).map(|promise| promise.read_bound),
            (_, Some(binding)) => {
                env.support.given(binding.leader, binding.incarnation).map(|(_, bound)| bound)
            }
            (_, None) => None,
        };
        bound.map_or(self.floor, |bound| self.floor.max(bound))
    }

    /// Keeps what the present binding recorded, before another takes its place.
    pub(super) fn keep_bound_floor(&mut self, env: &Env<'_>) {
        self.floor = self.read_floor(env);
    }

    /// Keeps what we recorded as leader, before we stop being one; we are free then.
    pub(super) fn keep_own_floor(&mut self, env: &Env<'_>) {
        self.floor = self.read_floor(env);
        self.binding = None;
    }

    /// Whether every lease given under former memberships is over or covered by the one in force: two quorums that are two
    /// steps apart need not meet (CockroachDB's ConfigChangeSafe).
    pub(super) fn leases_covered(&self, env: &Env<'_>, leading: &Leading) -> bool {
        leading.lease_high <= env.now || leading.lease_high <= self.bound_until(env, leading)
    }
}
