//! Seam: what the range server needs of the replicas below it. In production and in the simulator
//! [`replication::store::Store`]; in this crate's tests a scripted one, whose commands are decided
//! when and how the script says.

use clock::{Now, Timestamp};
use replication::raft::{Lease, LogIndex, ProposeError, Term};
use replication::range::{Command, NodeId, RangeDescriptor, RangeId, RangeState};
use replication::store::Unavailable;
use storage::{Key, Reader, Span};

/// See the module. All answers are as of the last applied command.
pub trait Replicas {
    /// The state engine.
    fn reader(&self) -> &dyn Reader;
    /// Our right to serve the range now.
    fn lease(&self, now: Now, range: RangeId) -> Option<Lease>;
    /// What is applied of a range that has a replica here.
    fn state(&self, range: RangeId) -> Option<&RangeState>;
    /// The replica that holds `key`.
    fn range_for(&self, key: &Key) -> Option<&RangeDescriptor>;
    /// Replicas that overlap `span`.
    fn overlapping(&self, span: &Span) -> Vec<RangeDescriptor>;
    /// Who leads, as far as is known.
    fn leader_node(&self, range: RangeId) -> Option<NodeId>;
    /// Whether the range makes no progress, and whom it misses.
    fn unavailable(&self, now: Now, range: RangeId) -> Option<Unavailable>;
    /// Appends a command; its outcome comes as an event with the returned term and index.
    fn propose(
        &mut self,
        now: Now,
        range: RangeId,
        command: Command,
    ) -> Result<(Term, LogIndex), ProposeError>;
    /// Moves the lease: from now on [`Replicas::lease`] is `None`. Nothing above `read_high` was
    /// read.
    fn transfer(
        &mut self,
        now: Now,
        range: RangeId,
        to: NodeId,
        read_high: Timestamp,
    ) -> Result<(), ProposeError>;
}
