//! Tests of this crate's machines from outside: one binary.

mod raft;
mod store;
