//! The KV API, and serializable transactions on it: coordinator above (`client`), range server below (`server`).
//!
//! ```text
//!   sql ──► client::Txn (coordinator, async) ──► client::Router (range cache, async) ──► Peers (seam: one node's KV)
//!                                                                                          │
//!                                    server::Shard (machine: step / ready) ◄────────────────┘
//!                                    latches, lock table, timestamp cache, evaluation
//!                                                  │ commands
//!                                    replication::store::Store (machine)
//! ```
//!
//! All waiting that spans ranges (pushing a lock's holder, recovery, deadlock) is done by the waiting transaction's own gateway, in
//! straight-line async code; the machine below only queues, and answers "blocked by" when a request has waited its slice.
//! Imports `clock`, `storage`, `replication`; imported by `sql` and above.

pub mod api;
pub mod client;
pub mod contention;
pub mod runtime;
pub mod server;
pub mod testing;
pub mod wire;
