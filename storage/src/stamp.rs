//! Driver: whose a data directory is, and by which format. A small text file that a person can read; written before
//! anything else, never by halves.
//!
//! ```text
//!   meridian-state 1
//!   cluster 6f1c.. node 3
//! ```
//!
//! The first line is the kind of data and its format; the second, once it is known, names the owner in the caller's
//! words. A directory that says anything else is `Foreign`: opening it would mix two clusters' histories, or read
//! bytes by the wrong rules.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::StorageError;

const NAME: &str = "MERIDIAN";
const NAME_NEW: &str = "MERIDIAN.new";

/// A directory's stamp.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stamp {
    path: PathBuf,
    kind: String,
    owner: Option<String>,
}

impl Stamp {
    /// Reads the stamp of `dir`, making the directory and a stamp without owner when there is none. `kind` is one
    /// line. Errors: `Foreign` for another kind or format, or when the directory has no stamp but holds files; `Io`,
    /// `Full`.
    pub fn open(dir: &Path, kind: &str) -> Result<Stamp, StorageError> {
        std::fs::create_dir_all(dir).map_err(|error| failed(dir, &error))?;
        let path = dir.join(NAME);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                refuse_unknown_files(dir)?;
                let stamp = Stamp { path, kind: kind.to_owned(), owner: None };
                stamp.write()?;
                return Ok(stamp);
            }
            Err(error) => return Err(failed(&path, &error)),
        };
        let mut lines = text.lines();
        let found = lines.next().unwrap_or_default();
        if found != kind {
            let text = format!("{} is '{found}', not '{kind}'", path.display());
            return Err(StorageError::Foreign(text));
        }
        Ok(Stamp { path, kind: kind.to_owned(), owner: lines.next().map(str::to_owned) })
    }

    /// The owner, if there is one yet.
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// Makes `owner` (one line) the owner, durably. Errors: `Foreign` when another one is.
    pub fn claim(&mut self, owner: &str) -> Result<(), StorageError> {
        match &self.owner {
            Some(found) if found == owner => Ok(()),
            Some(found) => {
                let text =
                    format!("{} belongs to '{found}', not to '{owner}'", self.path.display());
                Err(StorageError::Foreign(text))
            }
            None => {
                self.owner = Some(owner.to_owned());
                self.write()
            }
        }
    }

    fn write(&self) -> Result<(), StorageError> {
        let text = format!("{}\n{}\n", self.kind, self.owner.as_deref().unwrap_or_default());
        let dir = self.path.parent().expect("a stamp is in a directory");
        let new = dir.join(NAME_NEW);
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(text.trim_end().as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            std::fs::rename(&new, &self.path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(|error| failed(&self.path, &error))
    }
}

/// A directory with files and no stamp is not ours, whatever it is.
fn refuse_unknown_files(dir: &Path) -> Result<(), StorageError> {
    let entries = std::fs::read_dir(dir).map_err(|error| failed(dir, &error))?;
    for entry in entries {
        let name = entry.map_err(|error| failed(dir, &error))?.file_name();
        if name != NAME_NEW {
            let text =
                format!("{} holds {} but no {NAME} file", dir.display(), name.to_string_lossy());
            return Err(StorageError::Foreign(text));
        }
    }
    Ok(())
}

fn failed(path: &Path, error: &io::Error) -> StorageError {
    let text = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageError::Full(text),
        _ => StorageError::Io(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_of_one_kind_and_one_owner() {
        let temporary = tempfile::tempdir().expect("a directory");
        let dir = temporary.path().join("state");
        let mut stamp = Stamp::open(&dir, "test 1").expect("opens");
        assert_eq!(stamp.owner(), None);
        stamp.claim("cluster a").expect("claims");
        let mut stamp = Stamp::open(&dir, "test 1").expect("opens again");
        assert_eq!(stamp.owner(), Some("cluster a"));
        stamp.claim("cluster a").expect("claims again");
        assert!(matches!(stamp.claim("cluster b"), Err(StorageError::Foreign(_))));
        assert!(matches!(Stamp::open(&dir, "test 2"), Err(StorageError::Foreign(_))));
        std::fs::remove_file(dir.join(NAME)).expect("removes");
        std::fs::write(dir.join("photo.jpg"), "x").expect("writes");
        assert!(matches!(Stamp::open(&dir, "test 1"), Err(StorageError::Foreign(_))));
    }
}
