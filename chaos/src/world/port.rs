//! Driver: how the async code of a simulated process reaches its own shard and other machines. Calls are left here and picked up by the
//! world's loop; answers come back the same way.

use bytes::Bytes;
use clock::{ClockTimestamp, TimeSource};
use futures::channel::oneshot;
use futures::future::{BoxFuture, Either, select};
use parking_lot::Mutex;
use replication::range::{NodeId, RangeDescriptor};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use storage::Key;
use txn::api::{Batch, KvError, Peers, Reply, Request};
use txn::runtime::{HlcSource, Random, Spawn};
use txn::wire;

use super::chance::Chance;
use super::clocks::ProcessClock;
use super::executor::Spawner;
use super::time::MachineClock;

/// What a packet asks or tells. Everything is in bytes, as on a wire.
#[derive(Clone, Debug)]
pub enum Packet {
    /// Messages between stores.
    Store(Bytes),
    /// A batch for a range.
    Request(Call),
    /// Which ranges are known around a key.
    Lookup(Call),
    /// The answer to either.
    Answer(Call),
    /// Nobody waits for the answer to that any more (as HTTP/2 resets a stream); `body` is empty.
    Withdrawal(Call),
    /// "The catalog has this version now."
    Catalog(u64),
    /// "What time is it?" Sent at this reading of the sender's monotonic clock.
    Ping {
        /// The sender's process.
        incarnation: u64,
        /// Nanoseconds.
        sent: u64,
    },
    /// The answer to `Ping`.
    Pong {
        /// As asked.
        incarnation: u64,
        /// As asked.
        sent: u64,
        /// The answering machine's wall clock, microseconds.
        wall_us: u64,
        /// Its error bound, microseconds.
        bound_us: u64,
    },
}

impl Packet {
    /// Whether it is a call that the transport must not double: a commit, whose refusal is the last word ([`txn::api::Peers`]), and what
    /// is not idempotent.
    pub fn happens_once(&self) -> bool {
        let Packet::Request(call) = self else { return false };
        let batch: Batch =
            wire::decode(call.body.clone()).expect("what was encoded can be decoded");
        let mut requests = batch.requests.iter();
        batch.is_commit()
            || requests.any(|request| matches!(request, Request::TransferLease { .. }))
    }

    /// How many bytes it takes on a wire, about.
    pub fn bytes(&self) -> u64 {
        const HEADER: u64 = 64;
        HEADER
            + match self {
                Packet::Store(bytes) => bytes.len() as u64,
                Packet::Request(call)
                | Packet::Lookup(call)
                | Packet::Answer(call)
                | Packet::Withdrawal(call) => call.body.len() as u64,
                Packet::Catalog(_) | Packet::Ping { .. } | Packet::Pong { .. } => 0,
            }
    }
}

/// A call of a gateway, or its answer.
#[derive(Clone, Debug)]
pub struct Call {
    /// The calling process.
    pub incarnation: u64,
    /// Its number for the call.
    pub id: u64,
    /// The sender's clock.
    pub clock: u64,
    /// What.
    pub body: Bytes,
}

/// What became of a remote call.
#[derive(Debug)]
pub enum Answered {
    /// Answered, with the other's clock.
    With(u64, Bytes),
    /// It certainly never arrived.
    NotSent,
}

/// What the world's loop has to do for a process.
pub enum Outgoing {
    /// A batch for our own shard, with the call's number.
    Local(u64, Batch, oneshot::Sender<Result<Reply, KvError>>),
    /// Nobody waits for the answer to that any more.
    LocalWithdrawal(u64),
    /// A question to our own shard.
    LocalLookup(Key, oneshot::Sender<Vec<RangeDescriptor>>),
    /// A packet; when it is a call, its number is given.
    Remote(NodeId, Packet),
}

#[derive(Default)]
struct State {
    last: u64,
    outgoing: Vec<Outgoing>,
    answers: BTreeMap<u64, oneshot::Sender<Answered>>,
}

/// One process's calls.
pub struct Port {
    node: NodeId,
    incarnation: u64,
    clock: Arc<ProcessClock>,
    nearest: Vec<NodeId>,
    call_timeout: Duration,
    /// Planted bug: a call without an answer counts as never sent.
    forgetful: bool,
    state: Mutex<State>,
}

impl Port {
    /// For one process. `nearest`: all nodes, ourselves first.
    pub fn new(
        node: NodeId,
        incarnation: u64,
        clock: Arc<ProcessClock>,
        nearest: Vec<NodeId>,
        call_timeout: Duration,
        forgetful: bool,
    ) -> Port {
        Port { node, incarnation, clock, nearest, call_timeout, forgetful, state: Mutex::default() }
    }

    /// Whether anything is to be done.
    pub fn has_outgoing(&self) -> bool {
        !self.state.lock().outgoing.is_empty()
    }

    /// What is to be done.
    pub fn take_outgoing(&self) -> Vec<Outgoing> {
        std::mem::take(&mut self.state.lock().outgoing)
    }

    /// An answer has come. Late and doubled ones find nobody.
    pub fn answered(&self, id: u64, answer: Answered) {
        let waiter = self.state.lock().answers.remove(&id);
        if let Some(waiter) = waiter {
            drop(waiter.send(answer));
        }
    }

    /// Tells every other node that the catalog has a new version. Best effort.
    pub fn tell_of_catalog(&self, version: u64) {
        for node in self.nearest.iter().filter(|node| **node != self.node) {
            self.leave(Outgoing::Remote(*node, Packet::Catalog(version)));
        }
    }

    fn leave(&self, outgoing: Outgoing) {
        self.state.lock().outgoing.push(outgoing);
    }

    fn next_call(&self) -> u64 {
        let mut state = self.state.lock();
        state.last += 1;
        state.last
    }

    async fn call(
        &self,
        to: NodeId,
        body: Bytes,
        wrap: fn(Call) -> Packet,
    ) -> Result<Bytes, KvError> {
        let (sender, answer) = oneshot::channel();
        let (clock, id) = (self.clock.now().raw(), self.next_call());
        self.state.lock().answers.insert(id, sender);
        let call = Call { incarnation: self.incarnation, id, clock, body };
        self.leave(Outgoing::Remote(to, wrap(call)));
        let mut awaited = Awaited { port: self, to, id, waits: true };
        let time = &self.clock.time;
        let limit = time.sleep_until(time.monotonic().plus(self.call_timeout));
        let answered = match select(answer, limit).await {
            Either::Left((answered, _)) => answered.ok(),
            Either::Right(_) => None,
        };
        awaited.waits = answered.is_none();
        drop(awaited);
        match answered {
            Some(Answered::With(clock, bytes)) => {
                let observed = self.clock.observe(ClockTimestamp::from_raw(clock));
                observed.map_err(|_| KvError::Unreachable { node: to, sent: true })?;
                Ok(bytes)
            }
            Some(Answered::NotSent) => Err(KvError::Unreachable { node: to, sent: false }),
            None => Err(KvError::Unreachable { node: to, sent: !self.forgetful }),
        }
    }
}

/// A call whose answer is awaited. Given up before that comes, it is withdrawn where it was sent.
struct Awaited<'a> {
    port: &'a Port,
    to: NodeId,
    id: u64,
    waits: bool,
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        let Awaited { port, to, id, waits } = *self;
        port.state.lock().answers.remove(&id);
        if !waits {
            return;
        }
        port.leave(match to == port.node {
            true => Outgoing::LocalWithdrawal(id),
            false => {
                // It carries no clock: a process that ends does not look at its own any more.
                let (incarnation, clock) = (port.incarnation, 0);
                let call = Call { incarnation, id, clock, body: Bytes::new() };
                Outgoing::Remote(to, Packet::Withdrawal(call))
            }
        });
    }
}

impl Peers for Port {
    fn send(&self, to: NodeId, batch: Batch) -> BoxFuture<'_, Result<Reply, KvError>> {
        Box::pin(async move {
            let lost = KvError::Unreachable { node: to, sent: true };
            if to == self.node {
                let ((sender, answer), id) = (oneshot::channel(), self.next_call());
                self.leave(Outgoing::Local(id, batch, sender));
                let mut awaited = Awaited { port: self, to, id, waits: true };
                let answer = answer.await;
                awaited.waits = false;
                return answer.unwrap_or(Err(lost));
            }
            let bytes = self.call(to, wire::encode(&batch), Packet::Request).await?;
            wire::decode::<Result<Reply, KvError>>(bytes).unwrap_or(Err(lost))
        })
    }

    fn lookup(&self, to: NodeId, key: Key) -> BoxFuture<'_, Result<Vec<RangeDescriptor>, KvError>> {
        Box::pin(async move {
            let lost = KvError::Unreachable { node: to, sent: true };
            if to == self.node {
                let (sender, answer) = oneshot::channel();
                self.leave(Outgoing::LocalLookup(key, sender));
                return answer.await.map_err(|_| lost);
            }
            let bytes = self.call(to, wire::encode(&key), Packet::Lookup).await?;
            wire::decode(bytes).map_err(|_| lost)
        })
    }

    fn nearest(&self) -> Vec<NodeId> {
        self.nearest.clone()
    }
}

/// A process's background tasks, which begin late: its threads have other things to do.
pub struct LateSpawn {
    spawn: Spawner,
    time: MachineClock,
    lag: Duration,
    chance: Mutex<Chance>,
}

impl LateSpawn {
    /// Tasks begin up to `lag` after they are spawned.
    pub fn new(spawn: Spawner, time: MachineClock, lag: Duration, chance: Chance) -> LateSpawn {
        LateSpawn { spawn, time, lag, chance: Mutex::new(chance) }
    }
}

impl Spawn for LateSpawn {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        if self.lag.is_zero() {
            return self.spawn.spawn(task);
        }
        let late = self.chance.lock().duration(Duration::ZERO, self.lag);
        let sleep = self.time.sleep_until(self.time.monotonic().plus(late));
        self.spawn.spawn(Box::pin(async move {
            sleep.await;
            task.await;
        }));
    }
}

/// A process's randomness, from the seed.
pub struct NodeRandom(Mutex<Chance>);

impl NodeRandom {
    /// From a stream of its own.
    pub fn new(chance: Chance) -> NodeRandom {
        NodeRandom(Mutex::new(chance))
    }
}

impl Random for NodeRandom {
    fn next_u64(&self) -> u64 {
        self.0.lock().bits()
    }
}
