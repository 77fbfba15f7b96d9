//! Driver: gRPC between nodes. `dial` makes connections, `connections` keeps the channels over them, `outbound` the one-way streams of store
//! messages, `peers` the calls of the KV API (`handover`: whether one was sent), `inbound` the services, `server` what they run on. Injected
//! latencies and cuts ([`crate::faults`]) take effect here and nowhere else.

pub mod connections;
pub mod dial;
pub mod handover;
pub mod inbound;
pub mod outbound;
pub mod peers;
pub mod server;
