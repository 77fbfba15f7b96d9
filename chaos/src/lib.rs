//! Chaos: a simulated world that runs the real cores of a whole cluster on virtual time, workloads with a stated invariant, checkers of their
//! histories, and fault scripts.
//!
//! ```text
//!   sim (seeds, threads, report) ──► episode (one seed) ──► world (machines, network, disks, clocks, faults)
//!                                        │                     └─ real: txn::server::Shard, storage log, clock, gateway
//!                                        ├─► workload (clients, history) ──► check (verdict)
//!   script (text) ──────────────────────►┘
//! ```
//!
//! # Entry points
//!
//! | what | room |
//! |---|---|
//! | [`sim::run`]: many seeds, a report | `sim`, `speed` |
//! | `plan`: which faults strike a seed, and when; [`hardship`]: what else it lives with | `plan`, `raid`, `ordeal`, `hardship` |
//! | [`script::parse`], [`script::run_in_sim`]: fault scripts | `script` |
//! | [`check`]: judges of histories | `check` |
//! | [`mutants::hunt`]: known killers brought back, one by one | `mutants`, `planted`, `killers` |
//! | [`shrink::shrink`]: a failing seed made small | `shrink` |
//! | [`world::World`]: the simulated cluster | `world` |
//!
//! # Invariants
//!
//! - One seed, one run: the same seed gives the same trace, to the last byte sent.
//! - Nothing here decides what the database does: the world only drives its machines, as the node's drivers do.
//! - A run in which nothing happened fails.
//!
//! Imports everything below it in the tower; imported by `cli` only.

pub mod check;
pub mod episode;
pub mod hardship;
mod healed_core;
pub mod history;
pub mod killers;
pub mod mutants;
mod ordeal;
mod plan;
pub mod planted;
mod raid;
pub mod script;
pub mod shrink;
pub mod sim;
mod speed;
pub mod workload;
pub mod world;
