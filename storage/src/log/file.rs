//! Seam: the files the log writes. Real ones in [`crate::log::disk`]; in the simulator [`crate::log::sim_file`],
//! whose un-synced bytes can be lost or torn.
//!
//! The contract the log relies on, and no more: bytes written before a successful [`LogFile::sync`] survive every
//! crash; of bytes written after it any subset of 512-byte sectors may survive, old or new each; a name created
//! survives after [`LogDir::sync`].

use std::sync::Arc;

use crate::StorageError;

/// One file. All methods may be called by several threads; they block.
pub trait LogFile: Send + Sync {
    /// Writes all of `bytes` at `offset`, volatile until [`LogFile::sync`]. Errors: `Full`, `Io`; part may have been
    /// written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), StorageError>;
    /// Fills `buffer` from `offset`; fewer bytes only at the end of the file. Returns how many.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StorageError>;
    /// Makes what was written durable (fdatasync). After an error what is on disk is unknown, and a second call may
    /// lie: the caller must give the file up.
    fn sync(&self) -> Result<(), StorageError>;
    /// Extends the file to `bytes` of written zeros (so that later writes change no metadata); not durable until
    /// [`LogFile::sync`]. Errors: `Full`.
    fn allocate(&self, bytes: u64) -> Result<(), StorageError>;
    /// Length in bytes.
    fn bytes(&self) -> Result<u64, StorageError>;
}

/// One directory, owned by one log.
pub trait LogDir: Send + Sync {
    /// A new, empty file. The name is durable after [`LogDir::sync`].
    fn create(&self, name: &str) -> Result<Arc<dyn LogFile>, StorageError>;
    /// A file that is there.
    fn open(&self, name: &str) -> Result<Arc<dyn LogFile>, StorageError>;
    /// Names of all files, in order.
    fn list(&self) -> Result<Vec<String>, StorageError>;
    /// Removes a file.
    fn remove(&self, name: &str) -> Result<(), StorageError>;
    /// Makes creations and removals durable.
    fn sync(&self) -> Result<(), StorageError>;
}

/// Reads exactly `count` bytes; an earlier end of the file is `Corrupt`.
pub(crate) fn read_exact(
    file: &dyn LogFile,
    offset: u64,
    count: usize,
) -> Result<Vec<u8>, StorageError> {
    let mut buffer = vec![0; count];
    if file.read_at(offset, &mut buffer)? < count {
        return Err(StorageError::Corrupt(format!(
            "log file ends before {}",
            offset + count as u64
        )));
    }
    Ok(buffer)
}
