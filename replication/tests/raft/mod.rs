//! Raft from outside.
//!
//! - [`scripts`]: readable stories with observed traces, in `raft_scripts/*.txt`;
//! - [`tables`]: quorums and configuration changes against a dumb twin;
//! - [`sim`]: a seeded simulation that checks the Raft thesis's invariants, leases and read floors after every step, and that
//!   notices each planted bug;
//! - `oracle`: terms, logs and commit indexes against raft-rs;
//! - [`lab`]: what they share, a replica with a disk that can lose what was not synced, and the ledger of what must hold.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod lab;
// Needs `slog` (raft-rs asks for a logger) and raft-rs built with `protobuf-codec` (`prost-codec` needs a system protoc).
mod oracle;
mod scripts;
mod sim;
mod tables;
