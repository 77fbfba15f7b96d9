//! SQL: statements to KV batches. Parse, bind, plan, execute; sessions with PostgreSQL's semantics, error codes and catalog.
//!
//! ```text
//!   text ──► parse ──► Statement ──► bind (names, types) ──► plan (access paths, joins) ──► exec over txn::client::Txn
//!                                      │                                                        │
//!                                 catalog (descriptors, versions)                     rows (keys and values of tables)
//! ```
//!
//! # Entry points
//!
//! | what | room |
//! |---|---|
//! | [`Engine`]: one per node; catalog snapshot, plans, cluster services | `engine` |
//! | [`Session`]: one per client; the pgwire loop, the gRPC service and the simulator drive it | `session` |
//! | [`Outcome`], [`Column`]: what a statement answers | `outcome` |
//! | [`SqlError`]: SQLSTATE, message, position | `error` |
//! | [`Cluster`]: what SQL asks of the node around it | `cluster` |
//! | [`types`]: values with PostgreSQL's semantics | `types` |
//! | [`copies`]: merge and streams of available tables | `copies` |
//!
//! # Invariants
//!
//! - A statement runs in one transaction and is planned under one catalog snapshot, whose table versions travel with every
//!   batch; a range that has seen a newer schema refuses, and the statement is planned again.
//! - Only what has not been shown to the client is retried.
//! - No clock, no randomness, no spawning but through `txn::runtime`; nothing here knows tokio.
//!
//! Imports `clock`, `storage`, `replication` (ids only) and `txn`; imported by `node`, `chaos`, `cli`.

mod bind;
mod catalog;
mod cluster;
mod collect;
mod copies;
mod engine;
mod error;
mod exec;
mod gateways;
mod outcome;
mod parse;
mod pg_catalog;
mod plan;
mod rows;
mod session;
pub mod testing;
pub mod types;

pub use catalog::{Catalog, ColumnDescriptor, IndexDescriptor, TableDescriptor, TableMode};
pub use cluster::{ChaosCommand, ChaosSummary, ClockSummary, Cluster, NodeSummary, RangeSummary};
pub use collect::{Collected, Collector, PROTECTED_MAX, PROTECTION_KEPT};
pub use copies::stream::{Progress, pump};
pub use engine::{Engine, EngineSettings, PlantedBug};
pub use error::SqlError;
pub use outcome::{CancelHandle, Column, Notice, Outcome, Row, TransactionStatus};
pub use session::{Next, Session, SessionParams, SimpleScript};
pub use types::SqlState;
