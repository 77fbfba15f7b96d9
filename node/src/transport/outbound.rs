//! Driver: one stream of store messages per peer. Best effort: what cannot be sent is dropped, and counted; Raft repeats it.
//!
//! ```text
//!   shard thread ── queue (at most QUEUE_MAX batches, QUEUE_BYTES_MAX bytes) ── HTTP/2 ── the peer
//!                     full: dropped                                    broken: what waits is dropped
//! ```
//!
//! INVARIANT: within one stream batches arrive in the order of `send`, each at most once; none is sent a second time, on any stream.

use bytes::Bytes;
use clock::{Monotonic, TimeSource};
use futures::future::{Either, select};
use parking_lot::Mutex;
use proto::internal::StoreFrame;
use replication::range::NodeId;
use replication::store::{MessageBatch, StoreMessage};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, warn};
use txn::runtime::HlcSource;

use crate::faults::Link;
use crate::shard::Outbox;
use crate::shared::Shared;
use crate::transport::connections::{Class, Connections, FRAME_BYTES_MAX};

/// Batches that wait for a peer; beyond it new ones are dropped.
pub const QUEUE_MAX: usize = 8192;
/// Bytes of batches that wait for a peer, until HTTP/2 takes them; a batch that would exceed it is dropped.
pub const QUEUE_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// Messages that leave together are cut into batches of about this size, or of one message.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// What a frame needs besides its batch.
const FRAME_OVERHEAD_BYTES: usize = 16;
/// Batches handed to HTTP/2 that it has not taken yet.
const STREAM_MAX: usize = 64;
/// Pause after a broken stream.
pub const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// A batch and when the injected latency lets it leave.
struct Queued {
    leave_at: Monotonic,
    waiting: Waiting,
}

/// A batch with its share of [`QUEUE_BYTES_MAX`], which is free again when HTTP/2 has taken it, or nobody will.
struct Waiting {
    frame: Option<Bytes>,
    dropped: Arc<AtomicU64>,
    _share: OwnedSemaphorePermit,
}

impl Waiting {
    fn take(mut self) -> StoreFrame {
        StoreFrame { batch: self.frame.take().expect("it is taken once, here") }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.frame.is_some() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What waits for one peer.
#[derive(Clone)]
struct Queue {
    batches: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    dropped: Arc<AtomicU64>,
}

/// How things stand with one peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backlog {
    /// Bytes that wait for HTTP/2 to take them.
    pub waiting_bytes: usize,
    /// Batches that were dropped here since the node has started: no room, too long, or the stream broke before HTTP/2 took them.
    pub dropped_count: u64,
}

/// The outgoing streams of a node.
#[derive(Clone)]
pub struct Outbound {
    shared: Arc<Shared>,
    connections: Arc<Connections>,
    runtime: tokio::runtime::Handle,
    queues: Arc<Mutex<BTreeMap<NodeId, Queue>>>,
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

    /// Of every peer that something was sent to.
    pub fn backlogs(&self) -> BTreeMap<NodeId, Backlog> {
        let backlog = |queue: &Queue| Backlog {
            waiting_bytes: QUEUE_BYTES_MAX - queue.room.available_permits(),
            dropped_count: queue.dropped.load(Ordering::Relaxed),
        };
        self.queues.lock().iter().map(|(to, queue)| (*to, backlog(queue))).collect()
    }

    fn queue(&self, to: NodeId) -> Queue {
        let mut queues = self.queues.lock();
        let queue = queues.entry(to).or_insert_with(|| {
            let (batches, receiver) = mpsc::channel(QUEUE_MAX);
            let stream =
                Stream { to, shared: self.shared.clone(), connections: self.connections.clone() };
            self.runtime.spawn(stream.run(receiver));
            let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX));
            Queue { batches, room, dropped: Arc::default() }
        });
        queue.clone()
    }

    fn send_batch(&self, to: NodeId, delay: Duration, messages: Vec<StoreMessage>) {
        let batch = MessageBatch {
            cluster: self.shared.cluster,
            from: self.shared.node,
            to,
            clock: self.shared.clocks.now(),
            messages,
        };
        let leave_at = self.shared.time.monotonic().plus(delay);
        self.queue(to).push(leave_at, batch.encode(), to);
    }
}

impl Queue {
    fn push(&self, leave_at: Monotonic, frame: Bytes, to: NodeId) {
        let bytes = frame.len();
        if bytes > FRAME_BYTES_MAX - FRAME_OVERHEAD_BYTES {
            // HTTP/2 would refuse it and close the stream, over and over: Raft repeats it.
            warn!(%to, bytes, limit = FRAME_BYTES_MAX, "a message is longer than a frame and was dropped");
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let share = u32::try_from(bytes).expect("it is below a frame's limit");
        // No room means that the peer has been away for long: Raft repeats what matters.
        let Ok(share) = self.room.clone().try_acquire_many_owned(share) else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let dropped = self.dropped.clone();
        let waiting = Waiting { frame: Some(frame), dropped, _share: share };
        let _ = self.batches.try_send(Queued { leave_at, waiting });
    }
}

impl Outbox for Outbound {
    fn send(&self, to: NodeId, messages: Vec<StoreMessage>) {
        let Link::Delay(delay) = self.shared.link(self.shared.node, to) else { return };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for message in messages {
            if bytes + message.bytes() > BATCH_BYTES_MAX && !batch.is_empty() {
                self.send_batch(to, delay, std::mem::take(&mut batch));
                bytes = 0;
            }
            bytes += message.bytes();
            batch.push(message);
        }
        if !batch.is_empty() {
            self.send_batch(to, delay, batch);
        }
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
        let (frames, receiver) = mpsc::channel::<Waiting>(STREAM_MAX);
        let frames_taken = ReceiverStream::new(receiver).map(Waiting::take);
        let call = tokio::runtime::Handle::current()
            .spawn(async move { client.stores(frames_taken).await.map(|_| ()) });
        let mut next = Some(first);
        while let Some(queued) = next {
            if queued.leave_at > self.shared.time.monotonic() {
                self.pause(queued.leave_at).await;
            }
            if frames.send(queued.waiting).await.is_err() {
                break;
            }
            // A stream that breaks while there is nothing to send is noticed now, not by the next message, which would be lost.
            next = match select(pin!(frames.closed()), pin!(queue.recv())).await {
                Either::Left(_) => None,
                Either::Right((queued, _)) => queued,
            };
        }
        call.abort();
        debug!(to = %self.to, "store stream ended");
    }
}
