//! Value: what becomes of the disks beside the syncs of the log: the state engine's, and the log's when it needs a new file.

use replication::range::NodeId;
use std::time::Duration;
use storage::memory::Operation;

use crate::episode::{Plan, SAFETY};
use crate::world::chance::Chance;
use crate::world::fault::{Fault, Power};

/// Errors end with the process that meets them, or with the healing; all else ends within the plan.
pub(super) fn plan(chance: &mut Chance, nodes: &[NodeId]) -> Plan {
    let millis = Duration::from_millis;
    let mut plan = Plan::new();
    for _ in 0..chance.between(1, 5) {
        let node = chance.pick(nodes);
        let at = chance.duration(millis(200), SAFETY - millis(2000));
        let ends = (at + chance.duration(millis(300), millis(8000))).min(SAFETY);
        match chance.below(8) {
            0 => plan.push((at, Fault::StateError(node, Operation::Read))),
            1 => plan.push((at, Fault::StateError(node, Operation::Write))),
            2 => plan.push((at, Fault::StateError(node, Operation::Flush))),
            3 => plan.push((at, Fault::CreateError(node))),
            4 => {
                plan.push((at, Fault::FullState(node)));
                plan.push((ends, Fault::RoomyState(node)));
            }
            5 | 6 => {
                plan.push((at, Fault::StallState(node, ends - at)));
                // What it was about to flush is read from the log again.
                if chance.permille(300) {
                    plan.push((ends, Fault::Crash(node, Power::Lost)));
                }
            }
            // The log has no room, and neither has the state: one disk.
            _ => {
                plan.push((at, Fault::FullState(node)));
                plan.push((at, Fault::Full(node)));
                plan.push((ends, Fault::Roomy(node)));
                plan.push((ends, Fault::RoomyState(node)));
            }
        }
    }
    plan
}
