//! Value: what a range is. Its descriptor, the commands of its log, the state they lead to.

use bytes::Bytes;
use clock::Timestamp;
use std::collections::BTreeMap;
use std::fmt;
use storage::{Key, Span, WriteBatch};

use crate::raft::{LogIndex, Membership, ReplicaId, Term};

pub(crate) mod encoding;

/// Where the log of every range begins: the state it is born with (by bootstrap or split) counts as applied up to here. A
/// replica that has not seen the birth has applied nothing, so its log never looks as good as one that has.
pub const INITIAL: (LogIndex, Term) = (LogIndex::new(10), Term::new(5));

/// A node of the cluster (one store per node). Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// A range. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RangeId(pub u64);

impl fmt::Display for RangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// A region, numbered in the catalog. Part of the keys of copies, so never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RegionId(pub u16);

/// How a replica counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PeerRole {
    /// Voter, in the only or the incoming configuration.
    Voter,
    /// Voter of both configurations while joint.
    VoterBoth,
    /// Voter of the outgoing configuration only; a learner afterwards or removed.
    Outgoing,
    /// Receives the log, never counted.
    Learner,
}

/// One replica of a range.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Peer {
    /// Where.
    pub node: NodeId,
    /// Its Raft id, unique for the range's life.
    pub replica: ReplicaId,
    /// How it counts.
    pub role: PeerRole,
}

/// Which keys, whose replicas. Changed only by commands of the range's own log; every change raises `generation`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeDescriptor {
    /// Its id.
    pub id: RangeId,
    /// Its keys.
    pub span: Span,
    /// Raised by every change; of two descriptors of one range the higher is newer.
    pub generation: u64,
    /// Its replicas, ordered by replica id.
    pub peers: Vec<Peer>,
    /// The next replica id to hand out.
    pub next_replica: u64,
}

impl RangeDescriptor {
    /// The replica on `node`.
    pub fn peer_on(&self, node: NodeId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.node == node)
    }

    /// The peer with this Raft id.
    pub fn peer(&self, replica: ReplicaId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.replica == replica)
    }

    /// Whether it is in a joint configuration.
    pub fn is_joint(&self) -> bool {
        self.peers.iter().any(|peer| matches!(peer.role, PeerRole::Outgoing))
            || self.peers.iter().any(|peer| matches!(peer.role, PeerRole::VoterBoth))
    }

    /// As Raft counts it. In a joint configuration `Voter` is incoming only, `VoterBoth` both, `Outgoing` outgoing only;
    /// otherwise there are only `Voter` and `Learner`.
    pub fn membership(&self) -> Membership {
        let mut membership = Membership::default();
        for peer in &self.peers {
            match peer.role {
                PeerRole::Voter => {
                    membership.voters.insert(peer.replica);
                }
                PeerRole::VoterBoth => {
                    membership.voters.insert(peer.replica);
                    membership.outgoing.insert(peer.replica);
                }
                PeerRole::Outgoing => {
                    membership.outgoing.insert(peer.replica);
                }
                PeerRole::Learner => {
                    membership.learners.insert(peer.replica);
                }
            }
        }
        membership
    }
}

/// What a command does beside its batch.
#[expect(clippy::large_enum_variant, reason = "a split is rare, and a command is not kept in bulk")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Nothing.
    None,
    /// The range ends at `right.span.start`; the rest becomes `right`, with a replica beside every replica of ours.
    /// Both generations are above the old one.
    Split {
        /// Ours afterwards.
        left: RangeDescriptor,
        /// The new range.
        right: RangeDescriptor,
    },
    /// Requests planned under an older version of `table`'s schema are refused from now on.
    Fence {
        /// Table id.
        table: u32,
        /// Lowest version that is still accepted.
        version: u64,
    },
    /// Versions at or below are subject to garbage collection; reads at or below are refused.
    GcThreshold(Timestamp),
}

/// What the leaseholder has decided, evaluated once; every replica applies the same bytes.
///
/// A command needs no lease sequence of its own: leaseholder is leader, a command is evaluated and appended in one step, so its
/// entry's term *is* the lease it was evaluated under (killers R18, R19).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// Changes to the range's own keys.
    pub batch: WriteBatch,
    /// Beside them.
    pub effect: Effect,
}

/// The replicated state of a range beside its keys: equal on every replica at the same applied index, stored in
/// `Space::Local` in the same atomic batch as the effects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeState {
    /// Last applied entry.
    pub applied: (LogIndex, Term),
    /// As of `applied`.
    pub descriptor: RangeDescriptor,
    /// Lowest accepted schema version per table.
    pub fences: BTreeMap<u32, u64>,
    /// Reads at or below are refused.
    pub gc_threshold: Timestamp,
}

/// Engine key (in `Space::Local`) of a range's [`RangeState`].
pub fn range_state_key(range: RangeId) -> Bytes {
    let mut key = b"range/".to_vec();
    key.extend_from_slice(&range.0.to_be_bytes());
    key.into()
}

/// Prefix of all keys of [`range_state_key`], as a span in `Space::Local`.
pub fn range_states_span() -> (Bytes, Bytes) {
    (Bytes::from_static(b"range/"), Bytes::from_static(b"range0"))
}

/// Engine key (in `Space::Local`) of what is left of a removed replica: the lowest replica id of `range` that may ever live
/// on this store again, big endian.
pub fn tombstone_key(range: RangeId) -> Bytes {
    let mut key = b"tombstone/".to_vec();
    key.extend_from_slice(&range.0.to_be_bytes());
    key.into()
}

/// The smallest user key of the first range and the end of the last.
pub fn keyspace() -> Span {
    Span::new(Key::MIN, Key::MAX)
}
