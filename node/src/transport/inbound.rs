//! Driver: the gRPC services between nodes. Decodes, observes the sender's clock, hands on.
//!
//! INVARIANT: a message whose clock is refused (too far ahead) is dropped whole and never absorbed (killers H02, H03).

use bytes::Bytes;
use clock::ClockTimestamp;
use futures::future::{Either, select};
use prost::Message;
use proto::internal::control_request::Order;
use proto::internal::internal_server::Internal;
use proto::internal::*;
use replication::range::{NodeId, RangeDescriptor};
use replication::store::MessageBatch;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use storage::Key;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;
use txn::api::{Batch, KvError, Reply, Request as KvAsk};
use txn::runtime::HlcSource;
use txn::wire;

use crate::control::Control;
use crate::join::{Admission, newcomer_reply};
use crate::shard::{Input, ShardHandle};
use crate::shared::Shared;
use crate::transport::connections::too_long;

/// Stands beside a refusal that was made before anything was done.
const NOT_BEGUN: &str = "not-begun";

/// A refusal of a call of which nothing was done.
fn not_begun(mut status: Status) -> Status {
    status.metadata_mut().insert(NOT_BEGUN, MetadataValue::from_static("1"));
    status
}

/// Whether a call that failed was refused by its receiver before it did anything.
pub fn is_not_begun(status: &Status) -> bool {
    status.metadata().contains_key(NOT_BEGUN)
}

/// The services of an initialised node.
pub struct Services {
    /// The node.
    pub shared: Arc<Shared>,
    /// Its ranges.
    pub shard: ShardHandle,
    /// Who admits new nodes.
    pub admission: Arc<Admission>,
    /// Orders.
    pub control: Arc<Control>,
    /// Ends the streams of other nodes, which never end by themselves.
    pub stop: CancellationToken,
}

impl Services {
    fn observe(&self, raw: u64) -> Result<(), Status> {
        self.shared
            .clocks
            .observe(ClockTimestamp::from_raw(raw))
            .map_err(|_| Status::failed_precondition("the sender's clock is too far ahead"))
    }

    fn same_cluster(&self, cluster: &Bytes) -> Result<(), Status> {
        if cluster.as_ref() == self.shared.cluster.to_be_bytes() {
            Ok(())
        } else {
            Err(Status::permission_denied("that is another cluster's message"))
        }
    }

    fn admit(&self, request: KvRequest) -> Result<Batch, Status> {
        self.same_cluster(&request.cluster)?;
        self.observe(request.clock)?;
        wire::decode(request.batch).map_err(|error| Status::invalid_argument(error.to_string()))
    }

    fn take_frame(&self, frame: StoreFrame) -> Result<(), Status> {
        let batch = MessageBatch::decode(frame.batch)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if batch.cluster != self.shared.cluster || batch.to != self.shared.node {
            return Err(Status::permission_denied("that message is not for this node"));
        }
        self.observe(batch.clock.raw())?;
        self.shard.send(Input::Messages(batch.from, batch.messages));
        Ok(())
    }
}

fn is_read(request: &KvAsk) -> bool {
    matches!(request, KvAsk::Get { .. } | KvAsk::Scan { .. } | KvAsk::Changes { .. })
}

/// What listens from the first moment. Until the node belongs to a cluster it can only say so.
#[derive(Clone)]
pub struct Front {
    rpc_addr: String,
    services: Arc<OnceLock<Arc<Services>>>,
}

impl Front {
    /// Nothing is served yet but the answer that we are new.
    pub fn new(rpc_addr: String) -> Front {
        Front { rpc_addr, services: Arc::default() }
    }

    /// From now on everything is served.
    pub fn open(&self, services: Arc<Services>) {
        let first = self.services.set(services).is_ok();
        assert!(first, "a node opens its services once");
    }

    fn services(&self) -> Result<&Arc<Services>, Status> {
        self.services.get().ok_or_else(|| Status::unavailable("the node is starting"))
    }
}

#[tonic::async_trait]
impl Internal for Front {
    async fn stores(
        &self,
        request: Request<Streaming<StoreFrame>>,
    ) -> Result<Response<StoreEnd>, Status> {
        self.services()?.stores(request).await
    }

    async fn kv(&self, request: Request<KvRequest>) -> Result<Response<KvReply>, Status> {
        self.services().map_err(not_begun)?.kv(request).await
    }

    async fn lookup(
        &self,
        request: Request<LookupRequest>,
    ) -> Result<Response<LookupReply>, Status> {
        self.services()?.lookup(request).await
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        match self.services.get() {
            Some(services) => services.join(request).await,
            None => Ok(Response::new(newcomer_reply(&self.rpc_addr))),
        }
    }

    async fn gossip(
        &self,
        request: Request<GossipMessage>,
    ) -> Result<Response<GossipMessage>, Status> {
        self.services()?.gossip(request).await
    }

    async fn control(
        &self,
        request: Request<ControlRequest>,
    ) -> Result<Response<ControlReply>, Status> {
        self.services()?.control(request).await
    }
}

impl Services {
    async fn stores(
        &self,
        request: Request<Streaming<StoreFrame>>,
    ) -> Result<Response<StoreEnd>, Status> {
        let mut frames = request.into_inner();
        let mut stopped = pin!(self.stop.cancelled());
        loop {
            let frame = match select(pin!(frames.message()), stopped.as_mut()).await {
                Either::Left((frame, _)) => frame?,
                Either::Right(_) => None,
            };
            let Some(frame) = frame else { return Ok(Response::new(StoreEnd {})) };
            if let Err(status) = self.take_frame(frame) {
                debug!(%status, "store messages were dropped");
            }
        }
    }

    async fn kv(&self, request: Request<KvRequest>) -> Result<Response<KvReply>, Status> {
        let batch = self.admit(request.into_inner()).map_err(not_begun)?;
        let only_reads = batch.requests.iter().all(is_read);
        let result: Result<Reply, KvError> = self.shard.request(self.shared.node, batch).await;
        let reply =
            KvReply { clock: self.shared.clocks.now().raw(), result: wire::encode(&result) };
        let Some(reason) = too_long("an answer between nodes", reply.encoded_len()) else {
            return Ok(Response::new(reply));
        };
        let refused: Result<Reply, KvError> = Err(match only_reads {
            true => KvError::Invalid(reason),
            // It was carried out.
            false => KvError::Ambiguous { reason },
        });
        Ok(Response::new(KvReply { result: wire::encode(&refused), ..reply }))
    }

    async fn lookup(
        &self,
        request: Request<LookupRequest>,
    ) -> Result<Response<LookupReply>, Status> {
        let request = request.into_inner();
        self.observe(request.clock)?;
        let key = Key::new(request.key);
        let known: Option<Vec<RangeDescriptor>> =
            self.shard.ask(|reply| Input::Lookup(key, reply)).await;
        let known = known.ok_or_else(|| Status::unavailable("the node is stopping"))?;
        Ok(Response::new(LookupReply {
            ranges: wire::encode(&known),
            clock: self.shared.clocks.now().raw(),
        }))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let reply = self
            .admission
            .admit(request.into_inner())
            .await
            .map_err(Status::failed_precondition)?;
        Ok(Response::new(reply))
    }

    async fn gossip(
        &self,
        request: Request<GossipMessage>,
    ) -> Result<Response<GossipMessage>, Status> {
        let message = request.into_inner();
        self.same_cluster(&message.cluster)?;
        // No clock is observed here: gossip is how a node whose clock is far off is told so.
        // From nobody: somebody who asks before it starts (crate::twin).
        if message.from != 0 {
            self.control.heard(NodeId(message.from), &message);
            self.control.learn(message.nodes);
        }
        Ok(Response::new(self.control.gossip()))
    }

    async fn control(
        &self,
        request: Request<ControlRequest>,
    ) -> Result<Response<ControlReply>, Status> {
        let order =
            request.into_inner().order.ok_or_else(|| Status::invalid_argument("no order"))?;
        let reply = match order {
            Order::AddFault(fault) => self.control.add_fault(&fault),
            Order::Heal(HealFaults {}) => self.control.heal(),
            Order::List(ListFaults {}) => self.control.list_faults(),
            Order::Catalog(changed) => self.control.catalog_changed(changed.version).await,
            Order::Ranges(RangeList {}) => self.control.ranges().await,
            Order::Ask(question) => self.control.answer(question.body).await,
        };
        Ok(Response::new(reply))
    }
}
