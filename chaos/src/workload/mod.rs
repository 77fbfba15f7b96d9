//! Driver: what clients do, and the invariant that must survive it.
//!
//! A workload prepares its data, runs clients from many gateways while faults happen, reads everything at the end, and judges.

pub mod append;
pub mod bank;
pub mod counter;
pub mod register;
pub mod sql_bank;
mod sql_client;

use bytes::Bytes;
use futures::future::BoxFuture;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use storage::Key;
use txn::client::TxnError;

use crate::check::append::RealTime;
use crate::history::Ended;
use crate::world::Level;
use crate::world::access::{Lost, SharedAccess};
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
    /// The bank in SQL text.
    SqlBank,
    /// Counters in an available table, in SQL text.
    Counter,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] =
        [Kind::Bank, Kind::Register, Kind::Append, Kind::SqlBank, Kind::Counter];

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
            Kind::SqlBank => "sql-bank",
            Kind::Counter => "counter",
        }
    }

    /// A fresh one of it.
    pub fn make(self) -> Arc<dyn Workload> {
        match self {
            Kind::Bank => Arc::new(bank::Bank::default()),
            Kind::Register => Arc::new(register::Registers::default()),
            Kind::Append => Arc::new(append::Lists::default()),
            Kind::SqlBank => Arc::new(sql_bank::SqlBank::default()),
            Kind::Counter => Arc::new(counter::Counters::default()),
        }
    }

    /// What it needs of gateways.
    pub fn level(self) -> Level {
        match self {
            Kind::Bank | Kind::Register | Kind::Append => Level::Keys,
            Kind::SqlBank | Kind::Counter => Level::Sql,
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
    /// Operations that ended well, badly, and nobody knows how.
    fn counts(&self) -> (usize, usize, usize);
}

/// What became of a transaction, as far as its client knows.
pub(crate) fn ended<T>(result: Result<Result<T, TxnError>, Lost>) -> Ended<T> {
    match result {
        Ok(Ok(value)) => Ended::Ok(value),
        Ok(Err(TxnError::Ambiguous { .. })) | Err(Lost::Died) => Ended::Unknown,
        Ok(Err(_)) | Err(Lost::NotRunning) => Ended::Fail,
    }
}

/// A client rests between two operations.
pub(crate) async fn rest(access: &SharedAccess, chance: &mut Chance) {
    access.sleep(chance.duration(Duration::from_millis(1), Duration::from_millis(120))).await;
}

/// The key of an item of a table.
pub(crate) fn item_key(table: u32, item: u64) -> Key {
    let mut bytes = Key::table(table).as_bytes().to_vec();
    bytes.extend_from_slice(&item.to_be_bytes());
    Key::new(bytes)
}

/// A number as a value.
pub(crate) fn number(value: u64) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

/// The number in a value.
pub(crate) fn read_number(value: &[u8]) -> u64 {
    u64::from_be_bytes(value.try_into().expect("these workloads write numbers only"))
}

/// Tries until it works; for what is done while nothing fails.
pub(crate) async fn persist<T, F>(
    access: &SharedAccess,
    limit: Duration,
    mut attempt: F,
) -> Result<T, String>
where
    F: FnMut(usize) -> BoxFuture<'static, Result<T, String>>,
{
    let mut tries = 0;
    let end = access.now() + crate::world::nanos(limit);
    loop {
        match attempt(tries).await {
            Ok(value) => return Ok(value),
            Err(why) if access.now() >= end => return Err(why),
            Err(_) => {}
        }
        tries += 1;
        access.sleep(Duration::from_millis(300)).await;
    }
}
