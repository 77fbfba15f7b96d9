//! Driver: the gRPC services between nodes. Decodes, observes the sender's clock, hands on.
//!
//! INVARIANT: a message whose clock is refused (too far ahead) is dropped whole and never absorbed (killers H02, H03).

use bytes::Bytes;
use clock::ClockTimestamp;
use proto::internal::control_request::Order;
use proto::internal::internal_server::Internal;
use proto::internal::*;
use replication::range::{NodeId, RangeDescriptor};
use replication::store::MessageBatch;
use std::sync::{Arc, OnceLock};
use storage::Key;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;
use txn::api::{Batch, KvError, Reply};
use txn::runtime::HlcSource;
use txn::wire;

use crate::control::Control;
use crate::join::{Admission, newcomer_reply};
use crate::shard::{Input, ShardHandle};
use crate::shared::Shared;

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
        self.services()?.kv(request).await
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
        while let Some(frame) = frames.message().await? {
            if let Err(status) = self.take_frame(frame) {
                debug!(%status, "store messages were dropped");
            }
        }
        Ok(Response::new(StoreEnd {}))
    }

    async fn kv(&self, request: Request<KvRequest>) -> Result<Response<KvReply>, Status> {
        let request = request.into_inner();
        self.same_cluster(&request.cluster)?;
        self.observe(request.clock)?;
        let batch: Batch = wire::decode(request.batch)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let result: Result<Reply, KvError> = self.shard.request(self.shared.node, batch).await;
        Ok(Response::new(KvReply {
            clock: self.shared.clocks.now().raw(),
            result: wire::encode(&result),
        }))
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
