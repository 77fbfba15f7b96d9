//! The range server: scripts over scripted replicas ([`scripts`]), random transactions against a
//! serial twin ([`serial`]), and one real shard over a real store ([`shard`]).

// Test code throughout, though clippy sees only the functions marked as tests.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod replicas;
mod scripts;
mod serial;
mod shard;
mod words;
