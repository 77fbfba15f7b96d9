//! Driver: one stream of store messages per peer. Best effort: what cannot be sent is dropped, Raft repeats it.

use bytes::Bytes;
use clock::{Monotonic, TimeSource};
use parking_lot::Mutex;
use proto::internal::StoreFrame;
use replication::range::NodeId;
use replication::store::{MessageBatch, StoreMessage};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::debug;
use txn::runtime::HlcSource;

use crate::faults::Link;
use crate::shard::Outbox;
use crate::shared::Shared;
use crate::transport::connections::{Class, Connections};

/// Batches that wait for a peer; beyond it new ones are dropped.
const QUEUE_MAX: usize = 8192;
/// Batches handed to HTTP/2 that it has not taken yet.
const STREAM_MAX: usize = 64;
/// Pause after a broken stream.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// A batch and when the injected latency lets it leave.
struct Queued {
    leave_at: Monotonic,
    frame: Bytes,
}

/// The outgoing streams of a node.
#[derive(Clone)]
pub struct Outbound {
    shared: Arc<Shared>,
    connections: Arc<Connections>,
    runtime: tokio::runtime::Handle,
    queues: Arc<Mutex<BTreeMap<NodeId, mpsc::Sender<Queued>>>>,
}

impl Outbound {
    /// Streams are opened when there is something to send.
    pub fn new(
        shared: Arc<Shared>,
        connections: Arc<Connections>,
        runtime: tokio::runtime::Handle,
    ) -> Outbound {
        Outbound { shared, connections, runtime, queues: Arc::default() }
    }

    fn queue(&self, to: NodeId) -> mpsc::Sender<Queued> {
        let mut queues = self.queues.lock();
        let queue = queues.entry(to).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(QUEUE_MAX);
            let stream =
                Stream { to, shared: self.shared.clone(), connections: self.connections.clone() };
            self.runtime.spawn(stream.run(receiver));
            sender
        });
        queue.clone()
    }
}

impl Outbox for Outbound {
    fn send(&self, to: NodeId, messages: Vec<StoreMessage>) {
        let Link::Delay(delay) = self.shared.link(self.shared.node, to) else { return };
        let batch = MessageBatch {
            cluster: self.shared.cluster,
            from: self.shared.node,
            to,
            clock: self.shared.clocks.now(),
            messages,
        };
        let leave_at = self.shared.time.monotonic().plus(delay);
        let queued = Queued { leave_at, frame: batch.encode() };
        // Full means the peer has been away for long: Raft repeats what matters.
        let _ = self.queue(to).try_send(queued);
    }
}

/// One peer's stream, re-opened for ever.
struct Stream {
    to: NodeId,
    shared: Arc<Shared>,
    connections: Arc<Connections>,
}

impl Stream {
    async fn run(self, mut queue: mpsc::Receiver<Queued>) {
        while let Some(first) = queue.recv().await {
            self.stream(first, &mut queue).await;
            self.pause(self.shared.time.monotonic().plus(RECONNECT_PAUSE)).await;
            // What piled up while the peer was away is stale; the newest few thousand would only delay what comes next.
            while queue.try_recv().is_ok() {}
        }
    }

    async fn pause(&self, until: Monotonic) {
        self.shared.time.sleep_until(until).await;
    }

    /// Sends until the stream breaks.
    async fn stream(&self, first: Queued, queue: &mut mpsc::Receiver<Queued>) {
        let Some(mut client) = self.connections.client(self.to, Class::Stores) else { return };
        let (frames, receiver) = mpsc::channel::<StoreFrame>(STREAM_MAX);
        let call = tokio::runtime::Handle::current()
            .spawn(async move { client.stores(ReceiverStream::new(receiver)).await });
        let mut next = Some(first);
        while let Some(queued) = next {
            if queued.leave_at > self.shared.time.monotonic() {
                self.shared.links.until(queued.leave_at).await;
            }
            if frames.send(StoreFrame { batch: queued.frame }).await.is_err() {
                break;
            }
            next = queue.recv().await;
        }
        call.abort();
        debug!(to = %self.to, "store stream ended");
    }
}
