//! Driver: founding a cluster. Writes the first range, which holds the whole keyspace, with the ids that are taken already.

use bytes::Bytes;
use clock::ClockTimestamp;
use replication::raft::ReplicaId;
use replication::range::{NodeId, Peer, PeerRole, RangeDescriptor, RangeId, RegionId, keyspace};
use replication::store::Store;
use storage::log::Log;
use storage::mvcc::{self, Version};
use storage::{Engine, Key, StorageError, WriteBatch};

use crate::identity::Membership;
use crate::join::{counter_key, instance_key, region_key, text};

/// The first range.
pub const FIRST_RANGE: RangeId = RangeId(1);

/// The founder's membership of a new cluster.
pub fn membership(cluster: u128) -> Membership {
    Membership { cluster, node: NodeId(1), region: RegionId(1) }
}

/// Writes the first range, durably. Doing it again after a crash in the middle completes it.
pub fn found(
    engine: &dyn Engine,
    log: &dyn Log,
    region: &str,
    instance: u128,
    at: ClockTimestamp,
) -> Result<(), StorageError> {
    let founder = Peer { node: NodeId(1), replica: ReplicaId(1), role: PeerRole::Voter };
    let descriptor = RangeDescriptor {
        id: FIRST_RANGE,
        span: keyspace(),
        generation: 1,
        peers: vec![founder],
        next_replica: 2,
    };
    let mut batch = WriteBatch::new();
    let mut put = |key: Key, value: Bytes| {
        mvcc::put_version(
            &mut batch,
            &key,
            at.timestamp(),
            &Version { written_at: at, by: None, value: Some(value) },
        );
    };
    put(counter_key("node"), text(2));
    put(counter_key("region"), text(2));
    put(counter_key("range"), text(FIRST_RANGE.0 + 1));
    put(region_key(region), text(1));
    put(instance_key(&instance.to_be_bytes()), Bytes::from_static(b"1 1"));
    Store::bootstrap(engine, log, &descriptor, batch)
}
