//! Value: what leases build on; a breach is found long before two nodes serve at once.
//!
//! - *A promise is kept at least as long as it is relied on*, in true time, over restarts of who gave it.
//! - *Whoever's promise a lease is made of knows that it is bound by it*, replica by replica.

use replication::raft::Incarnation;
use replication::range::NodeId;
use replication::store::GroupView;
use std::time::Duration;

use super::read;
use crate::world::machine::Process;
use crate::world::{World, nanos};

/// Rounding of clocks' rates.
const TOLERANCE: Duration = Duration::from_micros(100);

impl World {
    pub(super) fn check_promises(&mut self) {
        let now = self.truth.now();
        let mut broken = Vec::new();
        for (holder, machine) in &self.machines {
            let Some(process) = &machine.process else { continue };
            for promise in process.shard.store().promises_held() {
                let (giver, by) = promise.by;
                let relied = process.clock.time.true_time_of(promise.until);
                let Some(other) =
                    self.machines.get(&giver).and_then(|other| other.process.as_ref())
                else {
                    continue;
                };
                if relied <= now {
                    continue;
                }
                let store = other.shard.store();
                let kept = store.bound_to_until(*holder, Incarnation(process.incarnation));
                let kept = other.clock.time.true_time_of(kept);
                if kept + nanos(TOLERANCE) < relied {
                    broken.push(format!(
                        "{holder} relies on a promise of {giver} (incarnation {}) for {:?} longer than that keeps it",
                        by.0,
                        Duration::from_nanos(relied - kept)
                    ));
                }
            }
        }
        broken.into_iter().for_each(|what| self.violate(what));
    }

    /// Of a lease that is held now: who would help to elect another though its promise counts. One that has not heard yet that the holder
    /// is a voter is left out: it helps nobody but such as have not heard of it either, whom a quorum refuses for their logs.
    pub(super) fn unbound_voter(
        &self,
        holder: NodeId,
        own: &Process,
        lead: &GroupView<'_>,
    ) -> Option<String> {
        let (range, leader) = (lead.range, lead.replica);
        let relied_on = own.shard.store().relied_on(read(own), range);
        relied_on.into_iter().find_map(|id| {
            // A change of members that was lost may have made a replica of the same number elsewhere.
            let node = *lead.routes.get(&id)?;
            let process = self.machines.get(&node)?.process.as_ref()?;
            let store = process.shard.store();
            let voter = store.group(range).filter(|voter| voter.replica == id)?;
            let knows = voter.membership.voters.is_empty() || voter.membership.is_voter(leader);
            let free = knows && store.is_free(read(process), range)?;
            free.then(|| {
                format!(
                    "{holder} holds the lease of {range} in term {} by a promise that {node} does not keep there, {:?} in term {} up to {}",
                    lead.term, voter.role, voter.term, voter.last
                )
            })
        })
    }
}
