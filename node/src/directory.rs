//! Value: who is in the cluster, as this node knows it. Entries spread by gossip; of two entries of a node the higher version wins.
//!
//! Nothing here is needed for correctness: a stale entry costs a failed call. It is kept on disk too, so that a region that
//! restarts while it is cut off still knows its own nodes.

use prost::Message;
use proto::internal::{GossipMessage, NodeEntry};
use replication::raft::Incarnation;
use replication::range::{NodeId, RegionId};
use std::collections::BTreeMap;
use storage::{Engine, Space, StorageError, WriteBatch};

use crate::faults::Place;

/// A version from a start and a counter of changes within it.
pub fn entry_version(incarnation: u64, change: u32) -> u64 {
    (incarnation << 32) | u64::from(change)
}

/// The start that an entry tells of.
pub fn incarnation_of(entry: &NodeEntry) -> Incarnation {
    Incarnation(entry.version >> 32)
}

/// The newest entry of a node among what several have told.
pub fn newest(told: &[NodeEntry], node: NodeId) -> Option<&NodeEntry> {
    told.iter().filter(|entry| entry.node == node.0).max_by_key(|entry| entry.version)
}

/// Where the entries are kept on disk, in [`Space::Local`].
const LOCAL_KEY: &[u8] = b"node/directory";

/// The entries kept on disk; none if there are none, or if they cannot be read (gossip brings them again).
pub fn load(engine: &dyn Engine) -> Vec<NodeEntry> {
    match engine.get(Space::Local, LOCAL_KEY) {
        Ok(Some(bytes)) => GossipMessage::decode(bytes).map(|kept| kept.nodes).unwrap_or_default(),
        Ok(None) | Err(_) => Vec::new(),
    }
}

/// Keeps the entries; durable with the engine's next flush.
pub fn save(engine: &dyn Engine, directory: &Directory) -> Result<(), StorageError> {
    let kept =
        GossipMessage { nodes: directory.entries().cloned().collect(), ..GossipMessage::default() };
    let mut batch = WriteBatch::new();
    batch.put(Space::Local, LOCAL_KEY, kept.encode_to_vec());
    engine.write(&batch)
}

/// All known nodes.
#[derive(Clone, Default, Debug)]
pub struct Directory {
    nodes: BTreeMap<NodeId, NodeEntry>,
}

impl Directory {
    /// Takes what is newer; says whether anything was.
    pub fn merge(&mut self, entries: impl IntoIterator<Item = NodeEntry>) -> bool {
        let mut changed = false;
        for entry in entries {
            let node = NodeId(entry.node);
            if self.nodes.get(&node).is_none_or(|known| known.version < entry.version) {
                self.nodes.insert(node, entry);
                changed = true;
            }
        }
        changed
    }

    /// All entries, by node id.
    pub fn entries(&self) -> impl Iterator<Item = &NodeEntry> {
        self.nodes.values()
    }

    /// The entry of a node.
    pub fn get(&self, node: NodeId) -> Option<&NodeEntry> {
        self.nodes.get(&node)
    }

    /// Where a node stands.
    pub fn place(&self, node: NodeId) -> Option<Place> {
        self.nodes.get(&node).map(|entry| Place { node, region: entry.region.clone() })
    }

    /// The region of a node.
    pub fn region(&self, node: NodeId) -> Option<RegionId> {
        let id = self.nodes.get(&node)?.region_id;
        u16::try_from(id).ok().map(RegionId)
    }

    /// Regions by id, with their names.
    pub fn regions(&self) -> BTreeMap<RegionId, String> {
        self.nodes
            .values()
            .filter_map(|entry| {
                Some((RegionId(u16::try_from(entry.region_id).ok()?), entry.region.clone()))
            })
            .collect()
    }

    /// Nodes by nearness to `to`: itself, its region, the rest; within these by id.
    pub fn nearest(&self, to: NodeId) -> Vec<NodeId> {
        let region = self.region(to);
        let mut nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        nodes.sort_by_key(|node| (*node != to, self.region(*node) != region, *node));
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(node: u32, region: u32, version: u64) -> NodeEntry {
        NodeEntry {
            node,
            region_id: region,
            region: format!("region-{region}"),
            version,
            ..NodeEntry::default()
        }
    }

    #[test]
    fn an_older_entry_never_replaces_a_newer_one() {
        let mut directory = Directory::default();
        assert!(directory.merge([entry(1, 1, entry_version(2, 0))]));
        assert!(!directory.merge([entry(1, 9, entry_version(1, 5))]));
        assert_eq!(directory.region(NodeId(1)), Some(RegionId(1)));
    }

    #[test]
    fn nearest_is_itself_then_its_region_then_the_rest() {
        let mut directory = Directory::default();
        directory.merge([entry(1, 1, 1), entry(2, 2, 1), entry(3, 2, 1), entry(4, 1, 1)]);
        assert_eq!(directory.nearest(NodeId(3)), [3, 2, 1, 4].map(NodeId).to_vec());
    }
}
