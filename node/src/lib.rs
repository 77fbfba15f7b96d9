//! A node: everything that touches threads, sockets, files and the OS's clocks. Drivers only: the machines below decide.
//!
//! ```text
//!   psql, drivers ── pg/ ──┐                              ┌── shard (thread: steps the machine, appends, syncs)
//!   gRPC driver ── sql_service ──► sql::Engine ──► txn ──►│
//!                                              transport/ ├── other nodes
//!   Prometheus ── http, metrics                           └── gossip, control, join
//! ```
//!
//! Start at [`node`]: it wires the parts in order. `world` is the OS behind the seams, `faults` what is wrong on purpose.
//! Imports every crate below and `proto`; imported by `chaos` and `cli`.

pub mod addressing;
pub mod clock_service;
pub mod cluster;
pub mod collector;
pub mod config;
pub mod control;
pub mod directory;
pub mod faults;
pub mod flush;
pub mod founding;
pub mod gossip;
pub mod http;
pub mod identity;
pub mod join;
pub mod metrics;
pub mod node;
pub mod pg;
pub mod range_status;
pub mod shard;
pub mod shared;
pub mod sql_service;
pub mod streams;
pub mod syncs;
pub mod transport;
pub mod twin;
pub mod world;

pub use node::{Node, Stopped};
