//! Integration tests of the transaction layer, one binary.

mod client;
mod model;
mod server;
