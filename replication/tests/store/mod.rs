//! The store machine: many stores in one thread on virtual time, every message encoded and decoded, logs that lose what was
//! not synced, clocks that drift.

mod additions;
mod chaos;
mod geography;
mod scenarios;
mod sim_log;
mod splits;
mod world;
