//! Value: *a promise is kept at least as long as it is relied on*, in true time, over restarts of who gave it. Everything that leases
//! build on; a breach is found long before two nodes serve at once.

use replication::raft::Incarnation;
use std::time::Duration;

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
}
