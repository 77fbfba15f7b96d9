//! Tests of the node as a whole. One binary: each links RocksDB.

mod architecture;
mod clients;
mod peers;
mod pipe;
