//! Driver: whether somebody else carries our node id. A data directory that was copied, or brought back from an old copy, must
//! never take part: it would vote twice, or without remembering what it has promised.
//!
//! ```text
//!   before we start:  ask the nodes that the directory knows, ourselves at our former address included, and --join
//!                        one of them is us                           -> refused: it runs already
//!                        they have seen our next incarnation         -> refused: ours is an older copy
//!                        they know us elsewhere, and we answer there -> refused: it runs already
//!                        one of --join belongs to another cluster    -> refused
//!                        nobody answers                              -> we start: a region that is cut off must be able to
//!   while we run:     gossip tells of us with a later incarnation, or with ours at another address -> we stop
//! ```
//!
//! INVARIANT: nothing is written before the questions are answered: a refused start does not count as one.
//!
//! # Limits
//! Of two copies that start in the same second neither is refused; both learn of each other by gossip, and stop. A copy made while the
//! original ran its last life looks as new as the original: if the original is gone, nobody can tell that the copy is older.

use bytes::Bytes;
use clock::TimeSource;
use futures::future::{Either, join_all, select};
use proto::internal::{GossipMessage, NodeEntry};
use replication::raft::Incarnation;
use replication::range::NodeId;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use tracing::info;

use crate::directory::{incarnation_of, newest};
use crate::identity::Membership;
use crate::transport::connections::client_for_address;

/// Who has not answered by then is not waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Why we must not start. Nothing was changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TwinError {
    /// Another process is this node.
    #[error(
        "{node} runs already at {address}: {data} is a copy of its data directory. Stop that process, or start this one as a new node \
         with an empty directory"
    )]
    Running {
        /// Who we would be.
        node: NodeId,
        /// Where it runs.
        address: String,
        /// Our directory.
        data: PathBuf,
    },
    /// The directory has missed something.
    #[error(
        "{data} is an older copy of {node}'s data directory: the cluster has seen its start number {seen}, this would be number {ours}. \
         Use the newest one, or start as a new node with an empty directory"
    )]
    Older {
        /// Who we would be.
        node: NodeId,
        /// Our directory.
        data: PathBuf,
        /// The last incarnation that the cluster knows of.
        seen: u64,
        /// Ours would be.
        ours: u64,
    },
    /// The cluster is not the directory's.
    #[error(
        "{data} belongs to {node} of cluster {cluster:032x}, but {address} (--join) belongs to another cluster. Name nodes of its own \
         cluster, or start as a new node with an empty directory"
    )]
    OtherCluster {
        /// Who we would be.
        node: NodeId,
        /// Our directory.
        data: PathBuf,
        /// Its cluster.
        cluster: u128,
        /// Who is of another.
        address: String,
    },
}

/// Who we would be if we started.
pub struct Candidate<'a> {
    /// The directory's membership.
    pub membership: Membership,
    /// The incarnation that we would be.
    pub incarnation: Incarnation,
    /// Our RPC address, as others reach it.
    pub address: &'a str,
    /// Our directory.
    pub data: PathBuf,
    /// RPC addresses that we were told to join.
    pub join: &'a [String],
    /// The nodes that the directory knows.
    pub known: &'a [NodeEntry],
}

/// What somebody says when asked who they are.
enum Answer {
    /// A node of our cluster.
    Node(GossipMessage),
    /// They are of another one.
    OtherCluster,
}

impl Candidate<'_> {
    /// Asks whether we may start. Takes at most two seconds.
    pub async fn ask(&self, time: &dyn TimeSource) -> Result<(), TwinError> {
        let mut asked: BTreeSet<String> =
            self.known.iter().map(|entry| entry.rpc_addr.clone()).collect();
        asked.extend(self.join.iter().cloned());
        // We listen there already.
        asked.remove(self.address);
        let answers =
            join_all(asked.iter().map(|address| self.ask_one(address.clone(), time))).await;
        let mut told = Vec::new();
        for (address, answer) in asked.iter().zip(answers) {
            match answer {
                Some(Answer::Node(message)) if message.from == self.membership.node.0 => {
                    return Err(self.running(address));
                }
                Some(Answer::Node(message)) => told.extend(message.nodes),
                // An address that the directory remembers may be anybody's by now; one that we were told to join may not.
                Some(Answer::OtherCluster) if self.join.contains(address) => {
                    return Err(TwinError::OtherCluster {
                        node: self.membership.node,
                        data: self.data.clone(),
                        cluster: self.membership.cluster,
                        address: address.clone(),
                    });
                }
                Some(Answer::OtherCluster) | None => {}
            }
        }
        let Some(seen) = newest(&told, self.membership.node) else { return Ok(()) };
        if seen.rpc_addr != self.address && !asked.contains(&seen.rpc_addr) {
            info!(address = seen.rpc_addr, "the cluster knows this node at another address");
            let there = self.ask_one(seen.rpc_addr.clone(), time).await;
            if let Some(Answer::Node(message)) = there
                && message.from == self.membership.node.0
            {
                return Err(self.running(&seen.rpc_addr));
            }
        }
        let seen = incarnation_of(seen);
        if seen >= self.incarnation {
            return Err(TwinError::Older {
                node: self.membership.node,
                data: self.data.clone(),
                seen: seen.0,
                ours: self.incarnation.0,
            });
        }
        Ok(())
    }

    fn running(&self, address: &str) -> TwinError {
        TwinError::Running {
            node: self.membership.node,
            address: address.to_string(),
            data: self.data.clone(),
        }
    }

    async fn ask_one(&self, address: String, time: &dyn TimeSource) -> Option<Answer> {
        let mut client = client_for_address(&address)?;
        // From nobody: a question, not news.
        let question = GossipMessage {
            cluster: Bytes::copy_from_slice(&self.membership.cluster.to_be_bytes()),
            ..GossipMessage::default()
        };
        let limit = time.sleep_until(time.monotonic().plus(ANSWER_TIMEOUT));
        match select(Box::pin(client.gossip(question)), limit).await {
            Either::Left((Ok(reply), _)) => Some(Answer::Node(reply.into_inner())),
            Either::Left((Err(status), _)) if status.code() == tonic::Code::PermissionDenied => {
                Some(Answer::OtherCluster)
            }
            Either::Left((Err(_), _)) | Either::Right(_) => None,
        }
    }
}

/// Whether an entry that others tell of means that somebody else runs as us; the reason is for people.
pub fn is_another(own: &NodeEntry, heard: &NodeEntry) -> Option<String> {
    let (node, ours, theirs) = (NodeId(own.node), incarnation_of(own), incarnation_of(heard));
    if own.node != heard.node || theirs < ours {
        return None;
    }
    let is_elsewhere = heard.rpc_addr != own.rpc_addr;
    (theirs > ours || is_elsewhere).then(|| {
        format!(
            "another process carries our node id: {node} was started at {} as start number {}, this one at {} was number {}. Only one \
             data directory of {node} may be used; remove the copy",
            heard.rpc_addr, theirs.0, own.rpc_addr, ours.0
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::entry_version;

    fn entry(node: u32, incarnation: u64, address: &str) -> NodeEntry {
        NodeEntry {
            node,
            version: entry_version(incarnation, 0),
            rpc_addr: address.to_string(),
            ..NodeEntry::default()
        }
    }

    #[test]
    fn only_a_later_start_or_the_same_one_elsewhere_is_another_process() {
        let own = entry(2, 5, "here:1");
        assert_eq!(is_another(&own, &own), None);
        assert_eq!(is_another(&own, &entry(2, 4, "there:1")), None, "our own former life");
        assert_eq!(is_another(&own, &entry(3, 9, "there:1")), None, "another node");
        assert!(is_another(&own, &entry(2, 5, "there:1")).is_some());
        assert!(is_another(&own, &entry(2, 6, "here:1")).is_some());
    }
}
