//! Driver: one thread that runs one [`txn::server::Shard`]. It takes what has arrived, steps the machine, appends and syncs its
//! writes, and sends what may be sent. It decides nothing.
//!
//! ```text
//!   inbox ──► step, step, step ──► ready ──► messages_now ──► append ──► sync ──► messages_after, Persisted ──► ready ...
//!             (everything that waits)          (one batch for all ranges)    (in place, or beside: see `syncs`)
//! ```
//!
//! Where syncs are fast they are done in place: handing one to a sleeping thread costs two wake-ups (about 40 us) on top of the 90 us of
//! the sync itself, and what arrives meanwhile becomes the next batch (group commit). Where they take longer, everything that
//! arrives meanwhile would wait for them, reads and acknowledgements of other ranges too: then another thread does them. A disk that
//! stalls stalls the thread, or is found stalled by the machine: either way the node asks for no support and loses its leases (killer S05).
//! The simulated world does it both ways.
//!
//! INVARIANT: `messages_after` leave only after `Log::sync` has covered the batch they follow: [`Deferred`] wants the proof.

use clock::{Monotonic, Now, TimeSource};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use replication::range::{NodeId, RangeDescriptor};
use replication::store::{Deferred, FlushMark, Persisted, Placement, RangeStatus, StoreMessage};
use std::sync::Arc;
use std::time::Duration;
use storage::log::{Log, LogSequence};
use storage::{Engine, Key, StorageError};
use tokio::sync::oneshot;
use tracing::error;
use txn::api::{Batch, KvError, Reply};
use txn::contention::Contention;
use txn::runtime::HlcSource;
use txn::server::{Event, Ready, RequestId, Shard};

use crate::syncs::{Syncer, Syncs};

/// Inputs that wait for the thread; beyond it senders of requests are refused, senders of messages drop.
const INBOX_MAX: usize = 16_384;
/// Inputs taken before the machine's output is carried out: bounds the delay of the first of them.
const STEPS_MAX: usize = 512;

/// Where answers to a request go.
pub type ReplyTo = oneshot::Sender<Result<Reply, KvError>>;

/// What the thread is given.
pub enum Input {
    /// A batch for a range of this shard.
    Request(Batch, ReplyTo),
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
    /// The other thread's sync has returned, after so long.
    Synced(Result<LogSequence, StorageError>, Duration),
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
}

impl ShardHandle {
    /// Queues an input. `false`: the shard has stopped or is overloaded, nothing was queued.
    pub fn send(&self, input: Input) -> bool {
        self.inbox.try_send(input).is_ok()
    }

    /// Carries out a batch.
    pub async fn request(&self, node: NodeId, batch: Batch) -> Result<Reply, KvError> {
        let (reply, answer) = oneshot::channel();
        if !self.send(Input::Request(batch, reply)) {
            return Err(KvError::Unreachable { node, sent: false });
        }
        answer.await.unwrap_or(Err(KvError::Unreachable { node, sent: true }))
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
    let (inbox, receiver) = bounded(INBOX_MAX);
    let syncer = Syncer::start(parts.log.clone(), parts.time.clone(), inbox.clone());
    let thread = std::thread::Builder::new()
        .name("shard".to_string())
        .spawn(move || ShardThread::new(parts, receiver, syncer).run())
        .expect("the OS starts threads");
    (ShardHandle { inbox }, thread)
}

/// Who waits for which request.
#[derive(Default)]
struct Waiting {
    last: u64,
    replies: std::collections::BTreeMap<u64, ReplyTo>,
}

struct ShardThread {
    parts: Option<ShardParts>,
    inbox: Receiver<Input>,
    waiting: Waiting,
    syncs: Syncs,
    wake_at: Monotonic,
}

/// Why the thread ends.
enum End {
    Stopped,
    Fatal(String),
}

impl ShardThread {
    fn new(parts: ShardParts, inbox: Receiver<Input>, syncer: Syncer) -> ShardThread {
        ShardThread {
            parts: Some(parts),
            inbox,
            waiting: Waiting::default(),
            syncs: Syncs::new(syncer),
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
        // The other thread may be waiting to be heard.
        drop(self.inbox);
        self.syncs.end();
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
            Input::Request(batch, reply) => {
                self.waiting.last += 1;
                let id = self.waiting.last;
                self.waiting.replies.insert(id, reply);
                parts.shard.step(read_clocks(parts), Event::Request { id: RequestId(id), batch });
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
            Input::Synced(synced, took) => {
                self.syncs.returned(took);
                self.synced(parts, synced.map_err(fatal)?);
            }
            Input::Stop => return Err(End::Stopped),
        }
        Ok(())
    }

    /// Until the machine has nothing more to say.
    fn carry_out(&mut self, parts: &mut ShardParts) -> Result<(), End> {
        loop {
            let ready = parts.shard.ready(read_clocks(parts));
            self.wake_at = ready.wake_at;
            self.carry_out_one(parts, ready)?;
            if let Some(fatal) = parts.shard.fatal() {
                return Err(End::Fatal(fatal.to_string()));
            }
            if self.syncs.is_due() {
                self.sync(parts)?;
            }
            if !parts.shard.has_ready() {
                return Ok(());
            }
        }
    }

    /// Here, or by the other thread.
    fn sync(&mut self, parts: &mut ShardParts) -> Result<(), End> {
        if self.syncs.begin_elsewhere() {
            return Ok(());
        }
        let begun = parts.time.monotonic();
        let synced = parts.log.sync().map_err(fatal)?;
        self.syncs.took(parts.time.monotonic().since(begun));
        self.synced(parts, synced);
        Ok(())
    }

    /// What had to wait for a sync follows it.
    fn synced(&mut self, parts: &mut ShardParts, synced: LogSequence) {
        let proof = Persisted::after_sync(synced);
        for deferred in self.syncs.covered(synced) {
            send_all(parts.outbox.as_ref(), deferred.release(proof));
        }
        parts.shard.step(read_clocks(parts), Event::Persisted(proof));
    }

    /// Sends, appends, answers; what must follow a sync waits for it.
    fn carry_out_one(&mut self, parts: &mut ShardParts, ready: Ready) -> Result<(), End> {
        send_all(parts.outbox.as_ref(), ready.messages_now);
        if ready.flush_before_write {
            parts.engine.flush().map_err(fatal)?;
        }
        if !ready.write.is_empty() {
            let sequence = parts.log.append(ready.write).map_err(fatal)?;
            parts.shard.step(read_clocks(parts), Event::Appended(sequence));
            self.syncs.appended(sequence);
        }
        for (id, reply) in ready.replies {
            if let Some(waiter) = self.waiting.replies.remove(&id.0) {
                drop(waiter.send(reply));
            }
        }
        match self.syncs.last_unsynced() {
            Some(needs) => self.syncs.defer(Deferred::new(ready.messages_after, needs)),
            None => send_all(parts.outbox.as_ref(), ready.messages_after),
        }
        Ok(())
    }
}

fn fatal(error: StorageError) -> End {
    End::Fatal(error.to_string())
}

fn read_clocks(parts: &ShardParts) -> Now {
    Now { clock: parts.hlc.now(), monotonic: parts.time.monotonic() }
}

/// One queueing per destination, in order.
fn send_all(outbox: &dyn Outbox, messages: Vec<(NodeId, StoreMessage)>) {
    let mut by_node: std::collections::BTreeMap<NodeId, Vec<StoreMessage>> =
        std::collections::BTreeMap::new();
    for (to, message) in messages {
        by_node.entry(to).or_default().push(message);
    }
    for (to, messages) in by_node {
        outbox.send(to, messages);
    }
}
