//! The real gRPC transport between nodes, and the real gRPC service and driver for clients, over a network in memory: links whose bytes
//! come late and in pieces, that fill up, break off and fall silent; hosts that refuse, are dark, or stop in good order.
//!
//! Dozens of seeds each; the verdict never depends on timing beyond the limits that the transport promises.

// Time is tokio's, paused: its sleeps take none.
#![allow(clippy::disallowed_methods)]

mod calls;
mod faults;
mod network;
mod sessions;
mod stop;
mod stores;
mod world;
