//! Driver: what clients do, and the invariant that must survive it.
//!
//! A workload prepares its data, runs clients from many gateways while faults happen, reads everything at the end, and judges.

pub mod append;
pub mod bank;
pub mod cells;
mod copies;
pub mod counter;
mod drive;
pub mod long_fork;
pub mod monotonic;
pub mod queue;
pub mod register;
pub mod session;
pub mod shop;
pub mod skew;
mod sql_client;
pub mod strict;
pub mod txn;

use ::txn::client::{ScanOptions, Txn, TxnError};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use storage::{Key, Span};

use crate::check::RealTime;
use crate::check::file::{Model, Operation};
use crate::history::Ledger;
use crate::world::Level;
use crate::world::access::{Gateway, SharedAccess};
use crate::world::chance::Chance;

/// Which workload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Transfers and audits.
    Bank,
    /// Single registers: read, write, compare and swap.
    Register,
    /// Transactions over lists.
    Append,
    /// Transactions over registers, blind writes among them.
    Txn,
    /// Inserts that exclude each other.
    Skew,
    /// Independent writes and readers of all of them.
    LongFork,
    /// Counters that only grow.
    Monotonic,
    /// The bank in SQL text.
    SqlBank,
    /// Several tables and indexes, strong and available in one transaction, in SQL text.
    Shop,
    /// Counters in an available table, in SQL text.
    Counter,
    /// Rows of an available table, each client at one gateway, in SQL text.
    Session,
    /// Rows of an available table that everybody replaces and deletes, in SQL text.
    Cells,
    /// Strictly serializable transactions over registers.
    Strict,
    /// A queue of jobs, in SQL text.
    Queue,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 14] = [
        Kind::Bank,
        Kind::Register,
        Kind::Append,
        Kind::SqlBank,
        Kind::Txn,
        Kind::Skew,
        Kind::Counter,
        Kind::LongFork,
        Kind::Shop,
        Kind::Monotonic,
        Kind::Session,
        Kind::Cells,
        Kind::Strict,
        Kind::Queue,
    ];

    /// The one whose turn it is. Every workload meets every kind of seed (a fifth of them has a clock
    /// beyond its bound).
    pub fn in_turn(seed: u64) -> Kind {
        let count = Kind::ALL.len() as u64;
        Kind::ALL[((seed + seed / count) % count) as usize]
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Bank => "bank",
            Kind::Register => "register",
            Kind::Append => "append",
            Kind::Txn => "txn",
            Kind::Skew => "skew",
            Kind::LongFork => "long-fork",
            Kind::Monotonic => "monotonic",
            Kind::SqlBank => "sql-bank",
            Kind::Shop => "shop",
            Kind::Counter => "counter",
            Kind::Session => "session",
            Kind::Cells => "cells",
            Kind::Strict => "strict",
            Kind::Queue => "queue",
        }
    }

    /// A fresh one of it.
    pub fn make(self) -> Arc<dyn Workload> {
        match self {
            Kind::Bank => drive(bank::Bank::new(bank::Teller::Keys)),
            Kind::Register => drive(register::Registers::default()),
            Kind::Append => drive(append::Lists::default()),
            Kind::Txn => drive(txn::Txns::default()),
            Kind::Skew => drive(skew::Skew::default()),
            Kind::LongFork => drive(long_fork::LongFork::default()),
            Kind::Monotonic => drive(monotonic::Monotonic::default()),
            Kind::SqlBank => drive(bank::Bank::new(bank::Teller::Sql)),
            Kind::Shop => drive(shop::Shop::default()),
            Kind::Counter => drive(counter::Counters::default()),
            Kind::Session => drive(session::Sessions::default()),
            Kind::Cells => drive(cells::Cells::default()),
            Kind::Strict => drive(strict::Strict::default()),
            Kind::Queue => drive(queue::Queue::default()),
        }
    }

    /// What it needs of gateways.
    pub fn level(self) -> Level {
        match self {
            Kind::Bank
            | Kind::Register
            | Kind::Append
            | Kind::Txn
            | Kind::Skew
            | Kind::LongFork
            | Kind::Monotonic
            | Kind::Strict => Level::Keys,
            Kind::SqlBank
            | Kind::Shop
            | Kind::Counter
            | Kind::Session
            | Kind::Cells
            | Kind::Queue => Level::Sql,
        }
    }

    /// Whether what clients were told is all that its judge needs: also without a last look at everything.
    pub fn is_judged_by_history(self) -> bool {
        match self {
            Kind::Register | Kind::Txn | Kind::LongFork | Kind::Monotonic | Kind::Strict => true,
            Kind::Bank
            | Kind::Append
            | Kind::Skew
            | Kind::SqlBank
            | Kind::Shop
            | Kind::Counter
            | Kind::Session
            | Kind::Cells
            | Kind::Queue => false,
        }
    }

    /// The judge of its history in a file; `None`: a file could not hold it.
    pub fn model(self) -> Option<Model> {
        match self {
            Kind::Bank | Kind::SqlBank => Some(Model::Bank),
            Kind::Register => Some(Model::Register),
            Kind::Append => Some(Model::ListAppend),
            Kind::Txn | Kind::Strict => Some(Model::RwRegister),
            Kind::Skew => Some(Model::WriteSkew),
            Kind::LongFork => Some(Model::LongFork),
            Kind::Monotonic => Some(Model::Monotonic),
            Kind::Counter => Some(Model::Counter),
            Kind::Session => Some(Model::Session),
            Kind::Shop => Some(Model::Index),
            Kind::Cells => Some(Model::Cells),
            Kind::Queue => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        let known = || Kind::ALL.map(Kind::name).join(", ");
        Kind::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| format!("there is no workload \"{text}\"; there are {}", known()))
    }
}

fn drive<D: drive::Deed>(deed: D) -> Arc<dyn Workload> {
    Arc::new(drive::Driven(Arc::new(deed)))
}

/// See the module.
pub trait Workload: Send + Sync + 'static {
    /// As it is written.
    fn name(&self) -> &'static str;
    /// What must survive, in a sentence.
    fn invariant(&self) -> &'static str;
    /// Writes the initial data; nothing fails meanwhile.
    fn prepare(&self, access: SharedAccess) -> BoxFuture<'static, Result<(), String>>;
    /// One client, until the access says stop.
    fn client(&self, number: u32, access: SharedAccess, chance: Chance) -> BoxFuture<'static, ()>;
    /// Reads everything once all has healed.
    fn finish(&self, access: SharedAccess) -> BoxFuture<'static, Result<(), String>>;
    /// Judges, after [`Workload::finish`].
    ///
    /// # Errors
    /// What is wrong.
    fn check(&self, real_time: RealTime) -> Result<(), String>;
    /// The history as a file tells it, for [`Kind::model`]'s judge.
    fn operations(&self) -> Vec<Operation>;
    /// How its clients' operations ended.
    fn ledger(&self) -> &dyn Ledger;
}

/// What a client knows after an error.
pub(crate) trait ClientError: fmt::Display + Send + 'static {
    /// Whether it may have taken effect, or yet will.
    fn is_unknown(&self) -> bool;
}

impl ClientError for TxnError {
    fn is_unknown(&self) -> bool {
        matches!(self, TxnError::Ambiguous { .. })
    }
}

/// The key of an item of a table.
pub(crate) fn item_key(table: u32, item: u64) -> Key {
    let mut bytes = Key::table(table).as_bytes().to_vec();
    bytes.extend_from_slice(&item.to_be_bytes());
    Key::new(bytes)
}

/// How an operation on one key is carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    /// A write is committed in one phase.
    Plain,
    /// With a row of another range: a write stages, and its intents are there for a while after its answer; a read moves such writers to
    /// later timestamps. What is in that row does not matter.
    Beside,
    /// A write lays a draft down first, where gateways do so early, and nobody may ever see it.
    Twice,
}

impl Manner {
    /// Any.
    pub(crate) fn draw(chance: &mut Chance) -> Manner {
        match chance.below(10) {
            0..=4 => Manner::Plain,
            5..=8 => Manner::Beside,
            _ => Manner::Twice,
        }
    }
}

/// What no client writes but as a draft.
const DRAFT: u64 = 1 << 63;

/// Lays a draft of a row down, where the gateway does not keep it in memory.
pub(crate) async fn draft(txn: &mut Txn, key: &Key, value: u64) -> Result<(), TxnError> {
    txn.put(key.clone(), number(value | DRAFT))?;
    txn.spill_if_large().await
}

/// The row beside an item of a table whose ranges meet at `middle`: in the table before or behind, whichever is not in the item's range.
pub(crate) fn beside(table: u32, item: u64, middle: u64) -> Key {
    item_key(if item < middle { table + 1 } else { table - 1 }, item)
}

/// A number as a value.
pub(crate) fn number(value: u64) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

/// The number in a value.
pub(crate) fn read_number(value: &[u8]) -> u64 {
    u64::from_be_bytes(value.try_into().expect("these workloads write numbers only"))
}

/// All rows of a table.
pub(crate) async fn scan_all(txn: &mut Txn, table: Key) -> Result<Vec<(Key, Bytes)>, TxnError> {
    scan_span(txn, Span::prefix(&table)).await
}

/// All rows of a span.
pub(crate) async fn scan_span(txn: &mut Txn, span: Span) -> Result<Vec<(Key, Bytes)>, TxnError> {
    let mut rows = Vec::new();
    let mut left = Some(span);
    while let Some(span) = left {
        let page = txn.scan(span, ScanOptions::default()).await?;
        rows.extend(page.rows);
        left = page.resume;
    }
    Ok(rows)
}

/// Patience with a cluster in which nothing fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tries until it works; for what is done while nothing fails.
pub(crate) async fn persist<T, F>(access: &SharedAccess, mut attempt: F) -> Result<T, String>
where
    F: FnMut(usize) -> BoxFuture<'static, Result<T, String>>,
{
    let mut tries = 0;
    let end = access.now() + crate::world::nanos(PATIENCE);
    loop {
        match attempt(tries).await {
            Ok(value) => return Ok(value),
            Err(why) if access.now() >= end => return Err(why),
            Err(why) => tracing::debug!(tries, why, "not yet"),
        }
        tries += 1;
        access.sleep(Duration::from_millis(300)).await;
    }
}

/// The same, through one gateway after another.
pub(crate) async fn persist_on<T, E, W>(
    access: &SharedAccess,
    what: &'static str,
    work: W,
) -> Result<T, String>
where
    T: Send + 'static,
    E: ClientError,
    W: Fn(Gateway) -> BoxFuture<'static, Result<T, E>> + Clone + Send + 'static,
{
    let all = access.clone();
    persist(access, move |attempt| {
        let (access, work) = (all.clone(), work.clone());
        async move {
            let node = access.nodes()[attempt % access.nodes().len()];
            match access.on_node(node, move |gateway| work(gateway)).await {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(error)) => Err(format!("{what}: {error}")),
                Err(lost) => Err(format!("{what}: {lost:?}")),
            }
        }
        .boxed()
    })
    .await
}
