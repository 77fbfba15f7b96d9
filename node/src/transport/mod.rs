//! Driver: gRPC between nodes. `connections` keeps the channels, `outbound` the one-way streams of store messages, `peers` the calls
//! of the KV API, `inbound` the services. Injected latencies and cuts ([`crate::faults`]) take effect here and nowhere else.

pub mod connections;
pub mod inbound;
pub mod outbound;
pub mod peers;
pub mod punctual;
