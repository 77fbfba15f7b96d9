//! Driver: the KV API of a node, in process when it is ourselves, over gRPC otherwise.
//!
//! A call ends within [`CALL_TIMEOUT`], whatever the network does. It is said not to have been sent only if HTTP/2 never took its
//! bytes ([`Handover`]), or its receiver says that it has not begun it: a one-phase commit that was not sent is sent to another replica, and
//! must not be carried out twice.

use bytes::Bytes;
use clock::{ClockTimestamp, TimeSource};
use futures::future::{BoxFuture, Either, select};
use prost::Message;
use proto::internal::{KvRequest, LookupRequest};
use replication::range::{NodeId, RangeDescriptor};
use std::sync::Arc;
use std::time::Duration;
use storage::Key;
use tonic::Request;
use txn::api::{Batch, KvError, Peers, Reply};
use txn::runtime::HlcSource;
use txn::wire;

use crate::faults::Link;
use crate::shard::{Input, ShardHandle};
use crate::shared::Shared;
use crate::transport::connections::{Class, Connections, too_long};
use crate::transport::handover::Handover;
use crate::transport::inbound::is_not_begun;

/// A call to another node ends after this at the latest. Above the time after which a range reports itself unavailable.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(8);
/// A call that has not left by then is given up: the connection's windows are full, by others' calls.
pub const HANDOVER_TIMEOUT: Duration = Duration::from_secs(4);
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

    /// Runs a call under the link's latency, its cuts, and the time limits.
    async fn over_link<T>(
        &self,
        to: NodeId,
        handover: Handover,
        call: impl Future<Output = Result<T, tonic::Status>>,
    ) -> Result<T, NoAnswer> {
        match self.shared.link(self.shared.node, to) {
            Link::Cut => {
                self.pause(CUT_NOTICE).await;
                return Err(NoAnswer { sent: false });
            }
            Link::Delay(delay) => self.delay(delay).await,
        }
        let given_up = || NoAnswer { sent: !handover.abandon() };
        let limit = Box::pin(async {
            self.pause(HANDOVER_TIMEOUT).await;
            if handover.is_taken() {
                self.pause(CALL_TIMEOUT - HANDOVER_TIMEOUT).await;
            }
        });
        let answer = match select(Box::pin(call), limit).await {
            Either::Left((Err(status), _)) if is_not_begun(&status) => {
                return Err(NoAnswer { sent: false });
            }
            Either::Left((answer, _)) => answer.map_err(|_| given_up())?,
            Either::Right(_) => return Err(given_up()),
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
            self.pause(delay).await;
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
        if let Some(why) = too_long("a request between nodes", request.encoded_len()) {
            return Err(KvError::Invalid(why));
        }
        let (request, handover) = watched(request);
        let call = async move { client.kv(request).await };
        let reply = self.over_link(to, handover, call).await;
        let reply = reply.map_err(|lost| unreachable(lost.sent))?.into_inner();
        // A refused reading is dropped with its message: the answer of a node whose clock is far off must not be believed to be fresh.
        self.shared
            .clocks
            .observe(ClockTimestamp::from_raw(reply.clock))
            .map_err(|_| unreachable(true))?;
        wire::decode::<Result<Reply, KvError>>(reply.result).map_err(|_| unreachable(true))?
    }
}

/// A request, and what tells whether it has left.
fn watched<T>(message: T) -> (Request<T>, Handover) {
    let handover = Handover::default();
    let mut request = Request::new(message);
    request.extensions_mut().insert(handover.clone());
    (request, handover)
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
            let (request, handover) = watched(request);
            let call = async move { client.lookup(request).await };
            let reply = self.over_link(to, handover, call).await;
            let reply = reply.map_err(|lost| unreachable(lost.sent))?.into_inner();
            wire::decode(reply.ranges).map_err(|_| unreachable(true))
        })
    }

    fn nearest(&self) -> Vec<NodeId> {
        self.shared.directory.read().nearest(self.shared.node)
    }
}
