//! Driver: the log's files on a real disk.
//!
//! Segments are filled with zeros when they are made: an `fdatasync` over blocks that are already allocated and
//! written needs no journal entry, which about halves its cost. A `LOCK` file keeps a second process out.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::StorageError;
use crate::log::file::{LogDir, LogFile};

const LOCK_NAME: &str = "LOCK";
const ZEROS_BYTES: usize = 1 << 20;

/// A directory of the operating system, locked for this process.
#[derive(Debug)]
pub struct DiskDir {
    path: PathBuf,
    dir: File,
    /// Held for its lock.
    _lock: File,
}

impl DiskDir {
    /// Opens the directory, making it (and its parents) first. Errors: `Foreign` when another process has it; `Io`.
    pub fn open(path: impl Into<PathBuf>) -> Result<DiskDir, StorageError> {
        let path = path.into();
        let at = |error: io::Error| disk_error(&path, error);
        std::fs::create_dir_all(&path).map_err(at)?;
        let lock_path = path.join(LOCK_NAME);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|error| disk_error(&lock_path, error))?;
        if lock.try_lock().is_err() {
            let text = format!("{} is in use by another process", path.display());
            return Err(StorageError::Foreign(text));
        }
        let dir = File::open(&path).map_err(at)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            // The directory's own name must survive too.
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(at)?;
        }
        Ok(DiskDir { dir, _lock: lock, path })
    }

    fn file(&self, name: &str, options: &OpenOptions) -> Result<Arc<dyn LogFile>, StorageError> {
        let path = self.path.join(name);
        let file = options.open(&path).map_err(|error| disk_error(&path, error))?;
        Ok(Arc::new(DiskFile { file, path }))
    }
}

impl LogDir for DiskDir {
    fn create(&self, name: &str) -> Result<Arc<dyn LogFile>, StorageError> {
        self.file(name, OpenOptions::new().read(true).write(true).create_new(true))
    }

    fn open(&self, name: &str) -> Result<Arc<dyn LogFile>, StorageError> {
        self.file(name, OpenOptions::new().read(true).write(true))
    }

    fn list(&self) -> Result<Vec<String>, StorageError> {
        let at = |error: io::Error| disk_error(&self.path, error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(at)? {
            let name = entry.map_err(at)?.file_name();
            // A name that is not UTF-8 is not ours.
            names.extend(name.into_string().ok().filter(|name| name != LOCK_NAME));
        }
        names.sort();
        Ok(names)
    }

    fn remove(&self, name: &str) -> Result<(), StorageError> {
        let path = self.path.join(name);
        std::fs::remove_file(&path).map_err(|error| disk_error(&path, error))
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.dir.sync_all().map_err(|error| disk_error(&self.path, error))
    }
}

#[derive(Debug)]
struct DiskFile {
    file: File,
    path: PathBuf,
}

impl DiskFile {
    fn check<T>(&self, result: io::Result<T>) -> Result<T, StorageError> {
        result.map_err(|error| disk_error(&self.path, error))
    }
}

impl LogFile for DiskFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.check(self.file.write_all_at(bytes, offset))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StorageError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.check(Err(error)),
            }
        }
        Ok(filled)
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.check(self.file.sync_data())
    }

    fn allocate(&self, bytes: u64) -> Result<(), StorageError> {
        let zeros = vec![0; ZEROS_BYTES];
        let mut from = self.bytes()?;
        while from < bytes {
            let count = zeros.len().min(usize::try_from(bytes - from).unwrap_or(usize::MAX));
            self.write_at(from, &zeros[..count])?;
            from += count as u64;
        }
        Ok(())
    }

    fn bytes(&self) -> Result<u64, StorageError> {
        Ok(self.check(self.file.metadata())?.len())
    }
}

fn disk_error(path: &Path, error: io::Error) -> StorageError {
    let text = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageError::Full(text),
        _ => StorageError::Io(text),
    }
}
