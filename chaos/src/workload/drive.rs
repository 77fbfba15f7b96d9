//! Driver: the one loop that the clients of every workload run: choose a gateway, draw something to do, ask for it there, note how it
//! ended, rest.
//!
//! A workload is a [`Deed`]: what is drawn, how it is carried out, and what the notes must say in the end. [`Driven`] makes a
//! [`Workload`] of it.

use futures::FutureExt;
use futures::future::BoxFuture;
use replication::range::NodeId;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::{ClientError, Workload, persist_on};
use crate::check::RealTime;
use crate::check::file::{Operation, Shown, shown};
use crate::check::mvcc::{Seen, Writes};
use crate::history::{Ended, History, Ledger};
use crate::world::access::{Gateway, Lost, SharedAccess};
use crate::world::chance::Chance;

/// The number of a client that is none: what is read once all has healed.
pub(super) const NOBODY: u32 = u32::MAX;

/// A client before its next operation.
pub(super) struct Turn<'a> {
    /// Its number, from zero on.
    pub(super) client: u32,
    /// Where it will ask.
    pub(super) node: NodeId,
    /// What it counts by itself, to make things that nobody else makes; zero at first.
    pub(super) made: &'a mut u64,
    /// Its chances.
    pub(super) chance: &'a mut Chance,
}

impl Turn<'_> {
    /// A number that no client has drawn before.
    pub(super) fn fresh(&mut self, bits: u32) -> u64 {
        *self.made += 1;
        u64::from(self.client + 1) << bits | *self.made
    }
}

/// Who asked, when, and when the answer came: true times, nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Call {
    pub(super) client: u32,
    pub(super) asked: u64,
    pub(super) heard: u64,
}

/// What the clients of a workload do, and how it is judged.
pub(super) trait Deed: Send + Sync + 'static {
    /// One thing to do.
    type Task: Clone + Send + Sync + 'static;
    /// What comes of it.
    type Answer: Send + 'static;
    /// Or does not.
    type Error: ClientError;

    /// See [`Workload::name`].
    fn name(&self) -> &'static str;
    /// See [`Workload::invariant`].
    fn invariant(&self) -> &'static str;
    /// See [`Workload::prepare`].
    fn prepare(&self, access: &SharedAccess) -> impl Future<Output = Result<(), String>> + Send;

    /// Where a client asks next: anywhere.
    fn gateway(&self, _client: u32, nodes: &[NodeId], chance: &mut Chance) -> NodeId {
        chance.pick(nodes)
    }
    /// What it asks for.
    fn draw(&self, turn: Turn<'_>) -> Self::Task;
    /// Carries it out, in the process that serves there.
    fn run(
        self: Arc<Self>,
        gateway: Gateway,
        task: Self::Task,
    ) -> impl Future<Output = Result<Self::Answer, Self::Error>> + Send;
    /// It has ended.
    fn note(&self, call: Call, task: Self::Task, ended: Ended<Self::Answer>);
    /// The client waits until it asks again.
    fn pause(&self, access: &SharedAccess, chance: &mut Chance) -> impl Future<Output = ()> + Send {
        rest(access, chance)
    }

    /// See [`Workload::finish`].
    fn finish(
        self: Arc<Self>,
        access: &SharedAccess,
    ) -> impl Future<Output = Result<(), String>> + Send;
    /// See [`Workload::check`].
    fn check(&self, real_time: RealTime) -> Result<(), String>;
    /// See [`Workload::operations`]: none, where histories are judged by what is in the tables at the end.
    fn operations(&self) -> Vec<Operation> {
        Vec::new()
    }
    /// See [`Workload::ledger`].
    fn ledger(&self) -> &dyn Ledger;
}

/// A deed that clients do.
pub(super) struct Driven<D>(pub(super) Arc<D>);

impl<D: Deed> Workload for Driven<D> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn invariant(&self) -> &'static str {
        self.0.invariant()
    }

    fn prepare(&self, access: SharedAccess) -> BoxFuture<'static, Result<(), String>> {
        let deed = self.0.clone();
        async move { deed.prepare(&access).await }.boxed()
    }

    fn client(&self, number: u32, access: SharedAccess, chance: Chance) -> BoxFuture<'static, ()> {
        drive(self.0.clone(), number, access, chance).boxed()
    }

    fn finish(&self, access: SharedAccess) -> BoxFuture<'static, Result<(), String>> {
        let deed = self.0.clone();
        async move { deed.finish(&access).await }.boxed()
    }

    fn check(&self, real_time: RealTime) -> Result<(), String> {
        self.0.check(real_time)
    }

    fn operations(&self) -> Vec<Operation> {
        self.0.operations()
    }

    fn ledger(&self) -> &dyn Ledger {
        self.0.ledger()
    }
}

async fn drive<D: Deed>(deed: Arc<D>, client: u32, access: SharedAccess, mut chance: Chance) {
    let mut made = 0;
    while access.may_begin(client) {
        let node = deed.gateway(client, &access.nodes(), &mut chance);
        let task = deed.draw(Turn { client, node, made: &mut made, chance: &mut chance });
        let asked = access.now();
        let (does, what) = (deed.clone(), task.clone());
        let answer = access.on_node(node, move |gateway| does.run(gateway, what).boxed()).await;
        if let Ok(Err(error)) = &answer {
            tracing::debug!(client, %node, asked, %error, "an operation failed");
        }
        let ended = ended(answer);
        deed.note(Call { client, asked, heard: access.now() }, task, ended);
        deed.pause(&access, &mut chance).await;
    }
}

/// Does one thing more once all has healed, through one gateway after another, until it works, and notes it.
pub(super) async fn ask_last<D: Deed>(
    deed: &Arc<D>,
    access: &SharedAccess,
    what: &'static str,
    task: D::Task,
) -> Result<(), String> {
    let asked = access.now();
    let (does, wanted) = (deed.clone(), task.clone());
    let work = move |gateway| does.clone().run(gateway, wanted.clone()).boxed();
    let answer = persist_on(access, what, work).await?;
    deed.note(Call { client: NOBODY, asked, heard: access.now() }, task, Ended::Ok(answer));
    Ok(())
}

/// What became of a transaction, as far as its client knows.
fn ended<T, E: ClientError>(result: Result<Result<T, E>, Lost>) -> Ended<T> {
    match result {
        Ok(Ok(value)) => Ended::Ok(value),
        Ok(Err(error)) if error.is_unknown() => Ended::Unknown,
        Err(Lost::Died) => Ended::Unknown,
        Ok(Err(_)) | Err(Lost::NotRunning) => Ended::Fail,
    }
}

/// A client rests between two operations. Sometimes hardly: what one gateway has just acknowledged is then asked of another one.
pub(super) async fn rest(access: &SharedAccess, chance: &mut Chance) {
    let longest = if chance.permille(250) { 4 } else { 120 };
    access.sleep(chance.duration(Duration::from_millis(1), Duration::from_millis(longest))).await;
}

/// A history twice: as clients know it, and by the timestamps of commits.
pub(super) struct Dated<O, R> {
    /// As clients know it.
    pub(super) history: History<O, R>,
    /// By timestamps.
    pub(super) instants: History<Writes, Seen>,
}

impl<O, R> Default for Dated<O, R> {
    fn default() -> Dated<O, R> {
        Dated { history: History::default(), instants: History::default() }
    }
}

impl<O: Clone, R: Clone> Dated<O, R> {
    /// An operation has ended; `writes` tells what it wrote or would have written.
    pub(super) fn push(
        &self,
        Call { client, asked, heard }: Call,
        op: O,
        ended: Ended<(R, Seen)>,
        writes: impl FnOnce(&O, &Ended<R>) -> Writes,
    ) {
        let (answer, seen) = ended.apart();
        self.instants.push(client, asked, heard, writes(&op, &answer), seen);
        self.history.push(client, asked, heard, op, answer);
    }
}

impl<O: Shown<Answer = R> + Clone, R: Clone> Dated<O, R> {
    /// The history as a file tells it, with the timestamps.
    pub(super) fn operations(&self) -> Vec<Operation> {
        let mut operations = shown(&self.history.records());
        for (operation, instant) in operations.iter_mut().zip(self.instants.records()) {
            assert_eq!(operation.record.asked, instant.asked, "both were noted together");
            // A swap that did not match is a file's failure, though it was committed.
            if let (Ended::Ok(_), Ended::Ok(seen)) = (&operation.record.ended, instant.ended) {
                operation.ts = Some(seen.at);
            }
        }
        operations
    }
}
