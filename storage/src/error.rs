//! Errors of this crate, by what the caller must do.

use thiserror::Error;

/// What went wrong below. None of them is "absent".
#[derive(Error, Debug, Clone)]
pub enum StorageError {
    /// Stored bytes contradict their checksum or form: the replica that owns them must be given up and repaired from
    /// peers.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// The disk refused. After a failed sync or write the node must stop: what is on disk is unknown (fsync errors
    /// are reported once and forgotten by the kernel).
    #[error("disk: {0}")]
    Io(String),
    /// No space left. Nothing of the failed write is durable.
    #[error("disk full: {0}")]
    Full(String),
    /// The directory belongs to another cluster, node, or version.
    #[error("data directory: {0}")]
    Foreign(String),
}
