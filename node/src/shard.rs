//! Driver: one thread that runs one [`txn::server::Shard`]. It takes what has arrived, steps the machine, appends and syncs its
//! writes, and sends what may be sent. It decides nothing.
//!
//! ```text
//!   inbox ──► step, step, step ──► ready ──► messages_now ──► append ──► sync ──► messages_after, Persisted ──► ready ...
//!             (everything that waits)          (one batch for all ranges)    (in place: while it runs, the next batch gathers)
//! ```
//!
//! The sync is done in place: handing it to a sleeping thread costs two wake-ups (about 40 us) on top of the 90 us of the sync
//! itself, and what arrives meanwhile becomes the next batch (group commit). A disk that stalls stalls the thread, so that the
//! node asks for no support and loses its leases (killer S05).
//!
//! INVARIANT: `messages_after` leave only after `Log::sync` has covered the batch they follow: [`Deferred`] wants the proof.

use clock::{Monotonic, Now, TimeSource};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use replication::range::{NodeId, RangeDescriptor};
use replication::store::{Deferred, FlushMark, Persisted, Placement, RangeStatus, StoreMessage};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use storage::log::{Log, LogSequence};
use storage::{Engine, Key};
use tokio::sync::oneshot;
use tracing::error;
use txn::api::{Batch, KvError, Reply};
use txn::contention::Contention;
use txn::runtime::HlcSource;
use txn::server::{Event, Ready, RequestId, Shard};

/// Inputs that wait for the thread; beyond it senders of requests are refused, senders of messages drop.
const INBOX_MAX: usize = 16_384;
/// Inputs taken before the machine's output is carried out: bounds the delay of the first of them.
const STEPS_MAX: usize = 512;

/// Where answers to a request go.
pub type ReplyTo = oneshot::Sender<Result<Reply, KvError>>;

/// What the thread is given.
pub enum Input {
    /// A batch for a range of this shard.
    Request(RequestId, Batch, ReplyTo),
    /// Nobody waits for the answer to that any more.
    Cancel(RequestId),
    /// Messages of another store, in order.
    Messages(NodeId, Vec<StoreMessage>),
    /// An event of the node itself.
    Event(Event),
    /// Which ranges are known around a key.
    Lookup(Key, oneshot::Sender<Vec<RangeDescriptor>>),
    /// What the ranges are doing.
    Status(oneshot::Sender<Vec<RangeStatus>>),
    /// Whether replicas are where they should be.
    Placement(oneshot::Sender<Placement>),
    /// What was waited for.
    Contention(oneshot::Sender<Contention>),
    /// What a flush that starts now will cover.
    FlushMark(oneshot::Sender<FlushMark>),
    /// End the thread.
    Stop,
}

/// Sends messages to other stores; never blocks. Implemented by the transport.
pub trait Outbox: Send + 'static {
    /// Queues messages for a node, in order, best effort.
    fn send(&self, to: NodeId, messages: Vec<StoreMessage>);
}

/// The thread's inbox, cheap to clone.
#[derive(Clone)]
pub struct ShardHandle {
    inbox: Sender<Input>,
    refused: Arc<AtomicU64>,
    last_request: Arc<AtomicU64>,
}

/// A request whose answer is awaited. Dropped before it comes, it tells the shard, where the request may wait for a lock: it would take it
/// for nobody.
struct Awaited<'a> {
    shard: &'a ShardHandle,
    id: Option<RequestId>,
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            // A full inbox: then it is answered in its time, to nobody.
            self.shard.send(Input::Cancel(id));
        }
    }
}

impl ShardHandle {
    /// An inbox, and what its inputs are taken from.
    pub fn new() -> (ShardHandle, Receiver<Input>) {
        let (inbox, receiver) = bounded(INBOX_MAX);
        let (refused, last_request) = (Arc::default(), Arc::default());
        (ShardHandle { inbox, refused, last_request }, receiver)
    }

    /// Queues an input. `false`: the shard has stopped or is overloaded, nothing was queued.
    pub fn send(&self, input: Input) -> bool {
        let queued = self.inbox.try_send(input).is_ok();
        if !queued {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        queued
    }

    /// Inputs that were not queued, since the node has started.
    pub fn refused_count(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Carries out a batch. Dropped, it is withdrawn where it waits; what it has done is done.
    pub async fn request(&self, node: NodeId, batch: Batch) -> Result<Reply, KvError> {
        let (reply, answer) = oneshot::channel();
        let id = RequestId(self.last_request.fetch_add(1, Ordering::Relaxed) + 1);
        if !self.send(Input::Request(id, batch, reply)) {
            return Err(KvError::Unreachable { node, sent: false });
        }
        let mut awaited = Awaited { shard: self, id: Some(id) };
        let answer = answer.await;
        awaited.id = None;
        answer.unwrap_or(Err(KvError::Unreachable { node, sent: true }))
    }

    /// Asks something that `make` packs with its way back; `None` if the shard has stopped.
    pub async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Input) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        if !self.send(make(reply)) {
            return None;
        }
        answer.await.ok()
    }
}

/// What the thread works with.
pub struct ShardParts {
    /// The machine.
    pub shard: Shard,
    /// State engine; flushed here only when the machine demands it before a write.
    pub engine: Arc<dyn Engine>,
    /// The Raft log.
    pub log: Arc<dyn Log>,
    /// Monotonic time.
    pub time: Arc<dyn TimeSource>,
    /// The node's clock.
    pub hlc: Arc<dyn HlcSource>,
    /// Ways out.
    pub outbox: Box<dyn Outbox>,
    /// Called once if the disk or the state fails: the node must stop.
    pub on_fatal: Box<dyn FnOnce(String) + Send>,
}

/// Starts the thread.
#[allow(clippy::disallowed_methods)]
pub fn start(parts: ShardParts) -> (ShardHandle, std::thread::JoinHandle<()>) {
    let (handle, receiver) = ShardHandle::new();
    let thread = std::thread::Builder::new()
        .name("shard".to_string())
        .spawn(move || ShardThread::new(parts, receiver).run())
        .expect("the OS starts threads");
    (handle, thread)
}

struct ShardThread {
    parts: Option<ShardParts>,
    inbox: Receiver<Input>,
    /// Who waits for which request.
    waiting: BTreeMap<RequestId, ReplyTo>,
    wake_at: Monotonic,
}

/// Why the thread ends.
enum End {
    Stopped,
    Fatal(String),
}

impl ShardThread {
    fn new(parts: ShardParts, inbox: Receiver<Input>) -> ShardThread {
        ShardThread {
            parts: Some(parts),
            inbox,
            waiting: BTreeMap::new(),
            wake_at: Monotonic::ZERO,
        }
    }

    fn run(mut self) {
        let mut parts = self.parts.take().expect("run is called once, with parts");
        let end = loop {
            if let Err(end) = self.turn(&mut parts) {
                break end;
            }
        };
        if let End::Fatal(why) = end {
            error!(why, "the shard stopped: the node cannot go on");
            (parts.on_fatal)(why);
        }
    }

    /// Waits for input, steps everything that is there, carries out what follows.
    fn turn(&mut self, parts: &mut ShardParts) -> Result<(), End> {
        let wait = self.wake_at.since(parts.time.monotonic());
        match self.inbox.recv_timeout(wait) {
            Ok(input) => self.take(parts, input)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(End::Stopped),
        }
        for _ in 1..STEPS_MAX {
            match self.inbox.try_recv() {
                Ok(input) => self.take(parts, input)?,
                Err(_) => break,
            }
        }
        let now = read_clocks(parts);
        if now.monotonic >= self.wake_at {
            parts.shard.step(now, Event::Tick);
        }
        self.carry_out(parts)
    }

    fn take(&mut self, parts: &mut ShardParts, input: Input) -> Result<(), End> {
        match input {
            Input::Request(id, batch, reply) => {
                self.waiting.insert(id, reply);
                parts.shard.step(read_clocks(parts), Event::Request { id, batch });
            }
            // Or it has been answered.
            Input::Cancel(id) => {
                if self.waiting.remove(&id).is_some() {
                    parts.shard.step(read_clocks(parts), Event::Cancel { id });
                }
            }
            Input::Messages(from, messages) => {
                for message in messages {
                    parts.shard.step(read_clocks(parts), Event::Message { from, message });
                }
            }
            Input::Event(event) => parts.shard.step(read_clocks(parts), event),
            Input::Lookup(key, reply) => drop(reply.send(parts.shard.lookup(&key))),
            Input::Status(reply) => drop(reply.send(parts.shard.status(read_clocks(parts)))),
            Input::Placement(reply) => drop(reply.send(parts.shard.placement(read_clocks(parts)))),
            Input::Contention(reply) => drop(reply.send(parts.shard.contention().clone())),
            Input::FlushMark(reply) => drop(reply.send(parts.shard.flush_mark())),
            Input::Stop => return Err(End::Stopped),
        }
        Ok(())
    }

    /// Until the machine has nothing more to say.
    fn carry_out(&mut self, parts: &mut ShardParts) -> Result<(), End> {
        loop {
            let ready = parts.shard.ready(read_clocks(parts));
            self.wake_at = ready.wake_at;
            let synced = self.carry_out_one(parts, ready)?;
            if let Some(fatal) = parts.shard.fatal() {
                return Err(End::Fatal(fatal.to_string()));
            }
            if let Some(proof) = synced {
                parts.shard.step(read_clocks(parts), Event::Persisted(proof));
            }
            if !parts.shard.has_ready() {
                return Ok(());
            }
        }
    }

    /// Appends, sends, syncs; the proof of the sync if there was something to sync.
    fn carry_out_one(
        &mut self,
        parts: &mut ShardParts,
        ready: Ready,
    ) -> Result<Option<Persisted>, End> {
        let fatal = |error: storage::StorageError| End::Fatal(error.to_string());
        send_all(parts.outbox.as_ref(), ready.messages_now);
        if ready.flush_before_write {
            parts.engine.flush().map_err(fatal)?;
        }
        let appended: Option<LogSequence> = if ready.write.is_empty() {
            None
        } else {
            let sequence = parts.log.append(ready.write).map_err(fatal)?;
            parts.shard.step(read_clocks(parts), Event::Appended(sequence));
            Some(sequence)
        };
        for (id, reply) in ready.replies {
            if let Some(waiter) = self.waiting.remove(&id) {
                drop(waiter.send(reply));
            }
        }
        let Some(sequence) = appended else {
            // Nothing to write: what came before is durable already, this thread syncs everything it appends.
            send_all(parts.outbox.as_ref(), ready.messages_after);
            return Ok(None);
        };
        let deferred = Deferred::new(ready.messages_after, sequence);
        let proof = Persisted::after_sync(parts.log.sync().map_err(fatal)?);
        send_all(parts.outbox.as_ref(), deferred.release(proof));
        Ok(Some(proof))
    }
}

fn read_clocks(parts: &ShardParts) -> Now {
    Now { clock: parts.hlc.now(), monotonic: parts.time.monotonic() }
}

/// One queueing per destination, in order.
fn send_all(outbox: &dyn Outbox, messages: Vec<(NodeId, StoreMessage)>) {
    let mut by_node: BTreeMap<NodeId, Vec<StoreMessage>> = BTreeMap::new();
    for (to, message) in messages {
        by_node.entry(to).or_default().push(message);
    }
    for (to, messages) in by_node {
        outbox.send(to, messages);
    }
}
