//! Raft, ranges, leases, membership, placement; convergence of available tables.
//!
//! Rooms: [`raft`] one group's consensus, a machine; [`range`] what a range is (descriptor, command, applied state);
//! [`store`] all ranges of one shard of a node: a machine that drives the groups, applies commands, holds leases.
//! Imports `clock` and `storage`; imported by `txn` and everything above.

pub mod raft;
pub mod range;
pub mod store;
