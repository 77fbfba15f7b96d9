//! Value: what every part of a node needs to know of the node. One per node, behind an `Arc`.

use clock::TimeSource;
use parking_lot::RwLock;
use replication::range::{NodeId, RegionId};
use std::sync::Arc;
use txn::runtime::Random;

use crate::clock_service::ClockService;
use crate::directory::Directory;
use crate::faults::{Faults, Link, Place};
use crate::transport::punctual::Punctual;
use crate::world::{OsRandom, OsTime};

/// The node as its parts see it.
pub struct Shared {
    /// The cluster.
    pub cluster: u128,
    /// Ourselves.
    pub node: NodeId,
    /// Our region.
    pub region: RegionId,
    /// Our region's name.
    pub region_name: String,
    /// The OS's clocks, skewable.
    pub time: Arc<OsTime>,
    /// Our hybrid logical clock and what we know of others'.
    pub clocks: Arc<ClockService>,
    /// Who is there.
    pub directory: RwLock<Directory>,
    /// What is wrong on purpose.
    pub faults: Faults,
    /// Waits for what the latencies of links are.
    pub links: Punctual,
    /// Whether `CHAOS` is allowed here.
    pub chaos: Chaos,
}

/// Whether faults may be injected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chaos {
    /// Refused.
    Forbidden,
    /// Started with chaos allowed, as the demo is.
    Allowed,
}

impl Shared {
    /// What happens to one message that leaves `from` for `to` now: asked for each. Unknown nodes are reached without delay.
    pub fn link(&self, from: NodeId, to: NodeId) -> Link {
        let (from, to) = {
            let directory = self.directory.read();
            (directory.place(from), directory.place(to))
        };
        match (from, to) {
            (Some(from), Some(to)) => {
                let conduct = self.faults.conduct(&from, &to, self.time.monotonic());
                conduct.meet(if conduct.is_certain() { 0 } else { OsRandom.next_u64() })
            }
            _ => Link::Delay(std::time::Duration::ZERO),
        }
    }

    /// Where we stand.
    pub fn place(&self) -> Place {
        Place { node: self.node, region: self.region_name.clone() }
    }
}
