//! Fault scripts: a small text language for "this topology, these faults at these times, this must hold".
//!
//! ```text
//!   # Losing a region neither stops the others nor loses anything.
//!   regions us-east, eu-west, ap-south
//!   nodes 3
//!   latency us-east eu-west 80ms
//!   seed 7
//!   workload bank
//!
//!   at 2s   cut eu-west from us-east, ap-south
//!   at 8s   available us-east within 5s
//!   at 8s   unavailable eu-west within 6s
//!   at 10s  heal
//!   at 12s  available eu-west within 5s
//!   at 14s  converged within 30s
//!   end 16s
//! ```
//!
//! One statement per line; `#` begins a comment. Settings come before the first `at`, and `end` comes last. A node is written `n3`; a region's name
//! stands for its nodes. Durations have a unit: `us`, `ms`, `s`, `m`. When the script ends everything is healed, the workload's data is read
//! and judged, whatever the script has asserted.
//!
//! The same file runs on real processes and on a running cluster (`meridian chaos run --world`), if it asks for nothing that only a
//! simulated machine can do. There its tables are in a database of its own, which goes when the script ends; nobody else's is touched.
//! What `converged` and `invariant` say depends on what a world can see:
//!
//! | | simulated world | real nodes |
//! |---|---|---|
//! | `converged` | every range led, every replica equal | a write through each node, every range led (of processes: every replica in its place and with a vote), every copy of the workloads' available tables equal; their clients rest meanwhile |
//! | `invariant` | what the world watches after every event | what clients of bank, append, monotonic and register were told so far, before its judge; bank: its total, too. A script whose workloads cannot be judged before the end is refused |
//!
//! | statement | meaning |
//! |---|---|
//! | `regions A, B, C` · `nodes N` | the topology; nodes stand in the regions in turn, at least one in each |
//! | `latency A B D` | round trip between two regions, up to a minute |
//! | `seed N` · `workload A, B` | chance and clients, of all these workloads at once; `workload none`: no clients |
//! | `workload A or B, C` | where the world has not all workloads before `or`, those behind it: `txn or append` is txn in the simulated world, which has all, and append on real nodes |
//! | `at T cut A from B, C` | nothing passes between them, either way. Here and below, nobody is on both sides of a link |
//! | `at T cut-one-way A to B` | nothing passes that way |
//! | `at T kill X` · `power-off X` · `start X` | ends a process (files keep everything, or lose what was not synced), starts it. A dead process stays down until `start` or `heal` |
//! | `at T restart X` | `kill`, and the supervisor starts it again |
//! | `at T blackout` | every machine loses power; supervisors start them |
//! | `at T pause X` · `resume X` | the process stands still |
//! | `at T clog A to B` · `unclog A to B` | messages that way are up to 1.5 s late |
//! | `at T stall X for D` · `fail-sync X` · `fail-write X` · `fill X` · `free X` · `flush X` | its disk |
//! | `at T clock X D` | its wall clock is put so far from true time (`-300ms`) |
//! | `at T drift X N ppm` | its wall clock runs so much faster |
//! | `at T weather loss N duplicate N reorder N` | of 1000 messages on every link |
//! | `at T join A from B` · `join-one-way A to B` | ends the cut with the same words |
//! | `at T heal` | ends every fault |
//! | `at T every D N times ..` | the same N times, D apart |
//! | `at T when C then ..` | waits for C, an assertion with its `within`; if it does not come in time, the line fails and nothing is done |
//! | `at T random D of A, B` | for D, one fault after another of these kinds (all if none is named), each with its end, drawn from the seed, other ones for each such line: `cut`, `cut-one-way`, `kill`, `pause`, `clog`, `clock`, `loss` |
//! | `at T available X within D` | a transaction through X must succeed in time |
//! | `at T unavailable X within D` | one must fail, with an answer, in time |
//! | `at T converged within D` | every range led, what is kept several times is equal (above) |
//! | `at T progress N within D` | so many operations of workloads are acknowledged from then on, in time |
//! | `at T invariant` | nothing that must hold always is violated now (above); workloads are judged at the end in any case |
//! | `end T` | when the script ends |

mod figures;
mod parse;
mod planned;
mod random;
mod report;
mod run;
mod words;

pub use replication::range::NodeId;

pub use figures::{Act, End, Mode, Served, acts, by_second, longest_silence};
pub use parse::{ScriptError, parse};
pub use planned::{Action, Assertion, Place, Planned, Script};
pub use report::{Loaded, Outcome, Played, Regional, Span};
pub use run::{ScriptReport, run_in_sim, run_in_sim_telling};
