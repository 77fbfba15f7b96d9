//! Tests of the crate from outside: the Raft log against its twin under crashes, and one set of scripts against every
//! engine.

mod engines;
mod log_crash;
mod log_kill;
mod log_space;
mod log_twin;
mod scripts;
