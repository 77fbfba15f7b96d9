//! The shipped binary as its users meet it: real processes, real disks, real clients, real kills. One binary, run one test at a time
//! (the machine's cores are few, and promises in seconds are asserted).
//!
//! `MERIDIAN_TEST_SECONDS` is the length of each load (default 5).

mod bad_input;
mod contention;
mod demo;
mod faults;
mod harness;
mod pgbench;
mod restart;
mod scripts;
mod wire;
