//! Driver: the KV API of a node, in process when it is ourselves, over gRPC otherwise.

use bytes::Bytes;
use clock::{ClockTimestamp, TimeSource};
use futures::future::{BoxFuture, Either, select};
use proto::internal::{KvRequest, LookupRequest};
use replication::range::{NodeId, RangeDescriptor};
use std::sync::Arc;
use std::time::Duration;
use storage::Key;
use tonic::Code;
use txn::api::{Batch, KvError, Peers, Reply};
use txn::runtime::HlcSource;
use txn::wire;

use crate::faults::Link;
use crate::shard::{Input, ShardHandle};
use crate::shared::Shared;
use crate::transport::connections::{Class, Connections};

/// A call to another node ends after this at the latest. Above the time after which a range reports itself unavailable.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);
/// How long it takes to notice that a node is cut off, when a call to it is started.
const CUT_NOTICE: Duration = Duration::from_millis(300);

/// All nodes, as [`Peers`].
pub struct NodePeers {
    shared: Arc<Shared>,
    connections: Arc<Connections>,
    shard: ShardHandle,
}

/// Why a remote call gave no answer.
struct NoAnswer {
    sent: bool,
}

impl NodePeers {
    /// With the local shard for calls to ourselves.
    pub fn new(
        shared: Arc<Shared>,
        connections: Arc<Connections>,
        shard: ShardHandle,
    ) -> NodePeers {
        NodePeers { shared, connections, shard }
    }

    async fn pause(&self, duration: Duration) {
        self.shared.time.sleep_until(self.shared.time.monotonic().plus(duration)).await;
    }

    /// Runs a call under the link's latency, its cuts, and the time limit.
    async fn over_link<T>(
        &self,
        to: NodeId,
        call: impl Future<Output = Result<T, tonic::Status>>,
    ) -> Result<T, NoAnswer> {
        match self.shared.link(self.shared.node, to) {
            Link::Cut => {
                self.pause(CUT_NOTICE).await;
                return Err(NoAnswer { sent: false });
            }
            Link::Delay(delay) => self.delay(delay).await,
        }
        let limit = self.shared.time.sleep_until(self.shared.time.monotonic().plus(CALL_TIMEOUT));
        let answer = match select(Box::pin(call), limit).await {
            Either::Left((answer, _)) => {
                answer.map_err(|status| NoAnswer { sent: was_sent(&status) })?
            }
            Either::Right(_) => return Err(NoAnswer { sent: true }),
        };
        match self.shared.link(to, self.shared.node) {
            Link::Cut => {
                self.pause(CUT_NOTICE).await;
                Err(NoAnswer { sent: true })
            }
            Link::Delay(delay) => {
                self.delay(delay).await;
                Ok(answer)
            }
        }
    }

    async fn delay(&self, delay: Duration) {
        if !delay.is_zero() {
            self.shared.links.until(self.shared.time.monotonic().plus(delay)).await;
        }
    }

    async fn send_remote(&self, to: NodeId, batch: Batch) -> Result<Reply, KvError> {
        let unreachable = |sent| KvError::Unreachable { node: to, sent };
        let mut client = self.connections.client(to, Class::Kv).ok_or(unreachable(false))?;
        let request = KvRequest {
            cluster: Bytes::copy_from_slice(&self.shared.cluster.to_be_bytes()),
            from: self.shared.node.0,
            clock: self.shared.clocks.now().raw(),
            batch: wire::encode(&batch),
        };
        let call = async move { client.kv(request).await };
        let reply =
            self.over_link(to, call).await.map_err(|lost| unreachable(lost.sent))?.into_inner();
        // A refused reading is dropped with its message: the answer of a node whose clock is far off must not be believed to be fresh.
        self.shared
            .clocks
            .observe(ClockTimestamp::from_raw(reply.clock))
            .map_err(|_| unreachable(true))?;
        wire::decode::<Result<Reply, KvError>>(reply.result).map_err(|_| unreachable(true))?
    }
}

/// Only a connection that was never made proves that nothing was sent.
fn was_sent(status: &tonic::Status) -> bool {
    let text = status.message();
    !(status.code() == Code::Unavailable && (text.contains("connect") || text.contains("dns")))
}

impl Peers for NodePeers {
    fn send(&self, to: NodeId, batch: Batch) -> BoxFuture<'_, Result<Reply, KvError>> {
        Box::pin(async move {
            if to == self.shared.node {
                self.shard.request(to, batch).await
            } else {
                self.send_remote(to, batch).await
            }
        })
    }

    fn lookup(&self, to: NodeId, key: Key) -> BoxFuture<'_, Result<Vec<RangeDescriptor>, KvError>> {
        Box::pin(async move {
            let unreachable = |sent| KvError::Unreachable { node: to, sent };
            if to == self.shared.node {
                return self
                    .shard
                    .ask(|reply| Input::Lookup(key, reply))
                    .await
                    .ok_or(unreachable(false));
            }
            let mut client = self.connections.client(to, Class::Kv).ok_or(unreachable(false))?;
            let request =
                LookupRequest { key: key.bytes().clone(), clock: self.shared.clocks.now().raw() };
            let call = async move { client.lookup(request).await };
            let reply =
                self.over_link(to, call).await.map_err(|lost| unreachable(lost.sent))?.into_inner();
            wire::decode(reply.ranges).map_err(|_| unreachable(true))
        })
    }

    fn nearest(&self) -> Vec<NodeId> {
        self.shared.directory.read().nearest(self.shared.node)
    }
}
