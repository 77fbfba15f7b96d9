//! The gateway's side of transactions: coordinator ([`Db`], [`Txn`]) and router ([`Router`]). Straight-line async code over
//! the seams [`crate::runtime::Runtime`], [`crate::api::Kv`] and [`crate::api::Peers`].
//!
//! ```text
//!   Db::begin ─► Txn ── reads ──► exchange ──► Kv (Router) ──► one batch per range ──► Peers
//!                 │ writes           │ Uncertain, NewerVersion, NeedsRefresh ─► refresh
//!                 ▼                  │ Blocked ─► wait (push, deadlock, resolve)
//!              WriteBuffer           ▼
//!                 └─ commit ─► one phase | parallel | two phases ─► cleanup (background)
//! ```
//!
//! Rooms: `db` entry; `txn` state and reads; `statement` statements, savepoints and isolation levels; `held` what weaker levels check;
//! `open` which history is still read; `roster` who does what, for errors;
//! `buffer` writes not sent; `spans` sets of keys; `exchange` batches and refusals; `refresh` moving the timestamp; `wait` others'
//! locks; `recover` others' staged commits; `commit`, `parallel`, `two_phase`, `settle`; `cleanup` what is left behind; `heartbeat`; `router`,
//! `journey`, `patience`, `cache`, `split` ranges; `error`, `options`.
//!
//! INVARIANT: a transaction has one timestamp (`read_at`) at which everything it has read holds; it commits exactly there. Below
//! `SERIALIZABLE` that is so of what it has locked and of what its constraints were checked against (`statement`).
//! INVARIANT: success is reported only of a commit that an answer has confirmed; failure only of one that can never happen.
//! Everything else is [`TxnError::Ambiguous`], and never run again by itself.

mod buffer;
mod cache;
mod cleanup;
mod commit;
mod db;
mod error;
mod exchange;
mod heartbeat;
mod held;
mod inquiry;
mod journey;
mod open;
mod options;
mod parallel;
mod patience;
mod recover;
mod refresh;
mod roster;
mod router;
mod settle;
mod spans;
mod split;
mod statement;
mod two_phase;
mod txn;
mod wait;

pub use buffer::SavepointId;
pub use commit::{CommitInfo, CommitPath};
pub use db::Db;
pub use error::{RetryKind, TimeoutKind, TxnError};
pub use options::{
    Access, GetOptions, Hold, Isolation, OnLock, OwnWrites, PRIORITY_NORMAL, PlantedBug,
    ScanOptions, Settings, TxnLimits, TxnOptions,
};
pub use roster::{Doing, Fate, Question, Sighting};
pub use router::{Router, RouterSettings};
pub use settle::{NoTicket, Settled, Ticket};
pub use txn::{ScanPage, Txn};
