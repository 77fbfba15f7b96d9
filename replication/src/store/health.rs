//! Machine: the sweep, every promise interval over all replicas: which ranges make no progress, who should be told of a removal,
//! whose snapshot is overdue, where leadership or replicas should move.

use clock::{Monotonic, Now};
use coverage::Mark;
use std::time::Duration;

use super::core::Store;
use super::replica::Replica;
use super::{StoreMessage, Unavailable};
use crate::raft::ReplicaId;
use crate::raft::quorum::Tally;
use crate::range::{NodeId, RangeId};

/// A follower that has heard nothing of its group for this many promise durations asks whether it is still a member; one that knows no
/// living leader asks once in each.
const PROBE_AFTER_PROMISES: u32 = 10;

impl Store {
    pub(super) fn sweep(&mut self, now: Now) {
        let ranges: Vec<RangeId> = self.replicas.keys().copied().collect();
        for range in ranges {
            let Some(mut replica) = self.replicas.remove(&range) else { continue };
            self.check_health(now, &mut replica);
            self.remind_departed(&mut replica);
            self.forget_abandoned(now, &mut replica);
            self.probe_membership(now, &mut replica);
            self.relocate(now, &mut replica);
            self.replicas.insert(range, replica);
        }
        self.retry_snapshots(now);
    }

    /// Why `range` can make no progress here, once that has lasted for `unavailable_after`. `None`: it can, or not yet known.
    pub fn unavailable(&self, now: Now, range: RangeId) -> Option<Unavailable> {
        let replica = self.replicas.get(&range)?;
        let since = replica.unhealthy_since?;
        self.ailing(now, replica)?;
        if now.monotonic.since(since) < self.config.unavailable_after {
            return None;
        }
        coverage::reached(Mark::RangeUnavailable);
        Some(Unavailable { range, missing: self.missing_voters(now, replica), since })
    }

    /// Voters that are not heard of. None if the others are a quorum: then it is not for want of them, and whoever is asked here may
    /// have been removed, and not know.
    fn missing_voters(&self, now: Now, replica: &Replica) -> Vec<NodeId> {
        let membership = replica.raft.membership();
        let is_missing = |voter: &ReplicaId| {
            let node = replica.routes.get(voter)?;
            let live = self.promises.is_live(now, *node, self.config.promise_duration);
            (!live).then_some(*node)
        };
        if membership.tally(|voter| Some(is_missing(&voter).is_none())) == Tally::Won {
            return Vec::new();
        }
        let voters = membership.voters.iter().chain(&membership.outgoing);
        let mut missing: Vec<NodeId> = voters.filter_map(is_missing).collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    fn check_health(&self, now: Now, replica: &mut Replica) {
        // After a restart nobody can be elected with our help yet: that is no sign that others are missing.
        if now.monotonic < self.promises.no_vote_before() {
            replica.unhealthy_since = None;
            return;
        }
        replica.unhealthy_since =
            self.ailing(now, replica).map(|since| replica.unhealthy_since.unwrap_or(since));
    }

    /// `None`: it makes progress as far as we can see. Otherwise since when it does not, at the latest.
    fn ailing(&self, now: Now, replica: &Replica) -> Option<Monotonic> {
        if replica.is_leader() {
            self.leader_ailing(now, replica)
        } else {
            self.follower_ailing(now, replica)
        }
    }

    fn leader_ailing(&self, now: Now, replica: &Replica) -> Option<Monotonic> {
        let leased = replica.has_led()
            && replica
                .ask(now, &self.promises, &*self.log, |raft, env| raft.lease(env))
                .is_some_and(|lease| lease.until > now.monotonic);
        // Proposals that nobody confirms: the quorum promises, but does not replicate.
        let patience = self.config.promise_duration;
        let stuck =
            !replica.proposals.is_empty() && now.monotonic.since(replica.moved_at) > patience;
        match (leased, stuck) {
            (true, false) => None,
            (true, true) => {
                coverage::reached(Mark::LeasedButStuck);
                Some(replica.moved_at)
            }
            (false, true | false) => {
                coverage::reached(Mark::LeaderWithoutLease);
                Some(now.monotonic)
            }
        }
    }

    fn follower_ailing(&self, now: Now, replica: &Replica) -> Option<Monotonic> {
        let leader = replica.raft.leader().and_then(|leader| replica.routes.get(&leader));
        let alive = leader.is_some_and(|node| {
            self.promises.promised_until(*node) > now.monotonic
                || now.monotonic.since(replica.heard_at) < self.config.promise_duration
        });
        if alive { None } else { Some(now.monotonic) }
    }

    fn remind_departed(&mut self, replica: &mut Replica) {
        let Some(descriptor) = replica.state.as_ref().map(|state| &state.descriptor) else {
            return;
        };
        for departed in &mut replica.departed {
            departed.notices_left = departed.notices_left.saturating_sub(1);
            coverage::reached(Mark::RemovalToldAgain);
            self.out.after.push((
                departed.node,
                StoreMessage::Gone {
                    range: replica.range,
                    replica: departed.replica,
                    descriptor: descriptor.clone(),
                },
            ));
        }
        replica.departed.retain(|departed| departed.notices_left > 0);
    }

    /// An idle group is silent for ever; a member that was removed while nobody could tell it must not wait for ever.
    fn probe_membership(&mut self, now: Now, replica: &mut Replica) {
        let promise = self.config.promise_duration;
        let is_led =
            replica.unhealthy_since.is_none_or(|since| now.monotonic.since(since) < promise);
        let patience: Duration = if is_led { promise * PROBE_AFTER_PROMISES } else { promise };
        let last = replica.heard_at.max(replica.asked_at);
        if replica.is_leader() || now.monotonic.since(last) < patience {
            return;
        }
        coverage::reached(Mark::MembershipProbed);
        replica.asked_at = now.monotonic;
        let (range, id) = (replica.range, replica.id);
        let here = self.identity.node;
        let others: std::collections::BTreeSet<NodeId> =
            replica.routes.values().copied().filter(|node| *node != here).collect();
        for node in others {
            self.out.now.push((node, StoreMessage::Probe { range, replica: id }));
        }
    }
}
