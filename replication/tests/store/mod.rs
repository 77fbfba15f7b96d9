//! The store machine: many stores in one thread on virtual time, every message encoded and decoded, logs that lose what was
//! not synced, clocks that drift.

mod chaos;
mod scenarios;
mod sim_log;
mod world;
