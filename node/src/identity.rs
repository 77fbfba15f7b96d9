//! Driver: the data directory and who it belongs to.
//!
//! ```text
//!   DATA/LOCK       held while a process uses the directory
//!   DATA/MERIDIAN   who we are: format, instance, incarnation; cluster, node and region once we belong to a cluster
//!   DATA/clock      upper bounds of every clock reading ever handed out, and of every read bound ever recorded
//!   DATA/log/       the Raft log's segments
//!   DATA/state/     RocksDB
//! ```
//!
//! Small files are replaced atomically: written beside, synced, renamed, and the directory synced (killer S07).
//! INVARIANT: the incarnation is raised durably before the node does anything in its own name. It is not raised by a start that is refused.

use clock::{Course, Timestamp};
use replication::raft::Incarnation;
use replication::range::{NodeId, RegionId};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Version of everything in the directory. Another version is refused.
pub const FORMAT: u32 = 1;

/// Why a data directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The OS refused.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process uses it.
    #[error("{0} is in use by another process: stop that one, or use another directory")]
    InUse(PathBuf),
    /// Written by another version.
    #[error(
        "{path} has data format {found}, this binary reads format {FORMAT}: use the version that wrote it"
    )]
    Version {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: String,
    },
    /// Not ours, or damaged.
    #[error("{path} is not a Meridian data directory, or is damaged: {why}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It belongs to somebody else than was asked for.
    #[error("{path} belongs to {found}, not to {wanted}")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who was expected.
        wanted: String,
    },
}

/// Membership in a cluster, given once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Membership {
    /// The cluster.
    pub cluster: u128,
    /// This node.
    pub node: NodeId,
    /// Its region.
    pub region: RegionId,
}

/// Who the directory belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Random, made with the directory: joining twice gives the same node id.
    pub instance: u128,
    /// Starts so far, this one included.
    pub incarnation: Incarnation,
    /// Set once the node belongs to a cluster.
    pub membership: Option<Membership>,
}

/// What a node must know of its clock's former life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClockBounds {
    /// No reading was handed out at or above.
    pub readings: Timestamp,
    /// No read bound above was recorded for another store. Never falls, also not at an orderly stop.
    pub recorded: Timestamp,
    /// Where the clock was; `None` at the very first start, and of a node that did not keep it yet.
    pub course: Option<Course>,
}

/// An open data directory; the lock is released when it is dropped.
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens (or makes) the directory and takes its lock. The identity has the incarnation of this start, which counts once it is
    /// stored.
    pub fn open(path: &Path, fresh_instance: u128) -> Result<(DataDir, Identity), IdentityError> {
        if path.exists() && !path.is_dir() {
            return Err(malformed(path, "it is not a directory"));
        }
        fs::create_dir_all(path).map_err(|source| io_error(path, source))?;
        if !path.join("MERIDIAN").exists() {
            refuse_strangers(path)?;
        }
        let lock = take_lock(path)?;
        let dir = DataDir { path: path.to_path_buf(), _lock: lock };
        let mut identity = match read_if_there(&dir.path.join("MERIDIAN"))? {
            Some(text) => parse_identity(&dir.path, &text)?,
            None => {
                Identity { instance: fresh_instance, incarnation: Incarnation(0), membership: None }
            }
        };
        // Nothing is stored before we belong to a cluster: the membership was there once.
        if identity.membership.is_none()
            && let Some(data) = [dir.log(), dir.state()].iter().find(|data| data.exists())
        {
            let why = format!("it names no cluster, but {} is there", data.display());
            return Err(malformed(&dir.path.join("MERIDIAN"), why));
        }
        identity.incarnation = Incarnation(identity.incarnation.0 + 1);
        Ok((dir, identity))
    }

    /// Replaces the identity, durably.
    pub fn store(&self, identity: &Identity) -> Result<(), IdentityError> {
        let mut text = format!(
            "format {FORMAT}\ninstance {:032x}\nincarnation {}\n",
            identity.instance, identity.incarnation.0
        );
        if let Some(membership) = identity.membership {
            text += &format!(
                "cluster {:032x}\nnode {}\nregion {}\n",
                membership.cluster, membership.node.0, membership.region.0
            );
        }
        self.replace("MERIDIAN", text.as_bytes())
    }

    /// What is known of the clock's former life; all `Timestamp::MIN` at the very first start.
    pub fn clock_bounds(&self) -> Result<ClockBounds, IdentityError> {
        let path = self.path.join("clock");
        let Some(text) = read_if_there(&path)? else { return Ok(ClockBounds::default()) };
        parse_bounds(&text).ok_or_else(|| malformed(&path, "it does not hold two or four numbers"))
    }

    /// Replaces the bounds, durably. Must return before a reading above the old one is handed out.
    pub fn store_clock_bounds(&self, bounds: ClockBounds) -> Result<(), IdentityError> {
        let mut text = format!("{} {}", bounds.readings.raw(), bounds.recorded.raw());
        if let Some(Course { boot, ahead_ns }) = bounds.course {
            text.push_str(&format!(" {boot} {ahead_ns}"));
        }
        text.push('\n');
        self.replace("clock", text.as_bytes())
    }

    /// Where the Raft log is.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where the state engine is.
    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), IdentityError> {
        let target = self.path.join(name);
        let beside = self.path.join(format!("{name}.new"));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&beside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&beside, &target)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|source| io_error(&target, source))
    }
}

fn io_error(path: &Path, source: std::io::Error) -> IdentityError {
    IdentityError::Io { path: path.to_path_buf(), source }
}

fn malformed(path: &Path, why: impl ToString) -> IdentityError {
    IdentityError::Malformed { path: path.to_path_buf(), why: why.to_string() }
}

/// The bounds, and perhaps boot and course.
fn parse_bounds(text: &str) -> Option<ClockBounds> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let time = |word: &str| word.parse().ok().map(Timestamp::from_raw);
    let (readings, recorded, course) = match words[..] {
        [readings, recorded] => (readings, recorded, None),
        [readings, recorded, boot, ahead] => {
            let course = Course { boot: boot.parse().ok()?, ahead_ns: ahead.parse().ok()? };
            (readings, recorded, Some(course))
        }
        _ => return None,
    };
    Some(ClockBounds { readings: time(readings)?, recorded: time(recorded)?, course })
}

fn read_if_there(path: &Path) -> Result<Option<String>, IdentityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(path, error)),
    }
}

#[allow(unsafe_code)]
fn take_lock(path: &Path) -> Result<File, IdentityError> {
    let name = path.join("LOCK");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&name)
        .map_err(|source| io_error(&name, source))?;
    // SAFETY: flock on a file descriptor that `file` keeps open; it touches no memory of ours.
    let failed = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    if failed == 0 { Ok(file) } else { Err(IdentityError::InUse(path.to_path_buf())) }
}

/// A directory without our file must be empty (but for the lock): we never write among somebody else's files.
fn refuse_strangers(path: &Path) -> Result<(), IdentityError> {
    let entries = fs::read_dir(path).map_err(|source| io_error(path, source))?;
    for entry in entries {
        let name = entry.map_err(|source| io_error(path, source))?.file_name();
        if name != "LOCK" && name != "MERIDIAN.new" && name != "lost+found" {
            return Err(malformed(path, format!("it is not empty (it holds {})", name.display())));
        }
    }
    Ok(())
}

fn parse_identity(dir: &Path, text: &str) -> Result<Identity, IdentityError> {
    let path = dir.join("MERIDIAN");
    let field = |name: &str| -> Option<&str> {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::trim)
    };
    let needed =
        |name: &str| field(name).ok_or_else(|| malformed(&path, format!("no `{name}` in it")));
    let format = needed("format")?;
    if format != FORMAT.to_string() {
        return Err(IdentityError::Version { path: dir.to_path_buf(), found: format.to_string() });
    }
    if !text.ends_with('\n') {
        return Err(malformed(&path, "its last line is cut off"));
    }
    let hex = |text: &str| u128::from_str_radix(text, 16).map_err(|error| malformed(&path, error));
    let membership = match field("cluster") {
        None => None,
        Some(cluster) => Some(Membership {
            cluster: hex(cluster)?,
            node: NodeId(needed("node")?.parse().map_err(|error| malformed(&path, error))?),
            region: RegionId(needed("region")?.parse().map_err(|error| malformed(&path, error))?),
        }),
    };
    Ok(Identity {
        instance: hex(needed("instance")?)?,
        incarnation: Incarnation(
            needed("incarnation")?.parse().map_err(|error| malformed(&path, error))?,
        ),
        membership,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_restarts_and_counts_them() {
        let dir = tempfile::tempdir().unwrap();
        let membership = Membership { cluster: 7, node: NodeId(3), region: RegionId(2) };
        {
            let (data, mut identity) = DataDir::open(dir.path(), 42).unwrap();
            assert_eq!((identity.instance, identity.incarnation), (42, Incarnation(1)));
            data.store(&identity).unwrap();
            identity.membership = Some(membership);
            data.store(&identity).unwrap();
            let bounds = ClockBounds {
                readings: Timestamp::from_raw(98),
                recorded: Timestamp::from_raw(99),
                course: Some(Course { boot: u128::MAX, ahead_ns: u64::MAX }),
            };
            data.store_clock_bounds(ClockBounds { course: None, ..bounds }).unwrap();
            assert_eq!(data.clock_bounds().unwrap().course, None);
            data.store_clock_bounds(bounds).unwrap();
        }
        let (data, identity) = DataDir::open(dir.path(), 43).unwrap();
        assert_eq!((identity.instance, identity.incarnation), (42, Incarnation(2)));
        assert_eq!(identity.membership, Some(membership));
        let bounds = data.clock_bounds().unwrap();
        assert_eq!(bounds.recorded, Timestamp::from_raw(99));
        assert_eq!(bounds.course, Some(Course { boot: u128::MAX, ahead_ns: u64::MAX }));
    }

    #[test]
    fn a_directory_in_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _held = DataDir::open(dir.path(), 1).unwrap();
        assert!(matches!(DataDir::open(dir.path(), 2), Err(IdentityError::InUse(_))));
    }

    #[test]
    fn another_version_and_strangers_files_are_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("MERIDIAN"), "format 99\n").unwrap();
        assert!(matches!(DataDir::open(dir.path(), 1), Err(IdentityError::Version { .. })));
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("thesis.tex"), "mine").unwrap();
        assert!(matches!(DataDir::open(other.path(), 1), Err(IdentityError::Malformed { .. })));
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1, "nothing was written");
    }

    #[test]
    fn a_damaged_identity_is_refused_wherever_it_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let membership = Membership { cluster: 7, node: NodeId(13), region: RegionId(21) };
        let (data, mut identity) = DataDir::open(dir.path(), 42).unwrap();
        identity.membership = Some(membership);
        identity.incarnation = Incarnation(33);
        data.store(&identity).unwrap();
        fs::create_dir(data.state()).unwrap();
        drop(data);
        let file = dir.path().join("MERIDIAN");
        let whole = fs::read(&file).unwrap();
        for length in 0..whole.len() {
            fs::write(&file, &whole[..length]).unwrap();
            let opened = DataDir::open(dir.path(), 1).map(|(_, identity)| identity);
            assert!(
                matches!(
                    opened,
                    Err(IdentityError::Malformed { .. } | IdentityError::Version { .. })
                ),
                "cut to {length}: {opened:?}"
            );
            assert_eq!(fs::read(&file).unwrap(), whole[..length], "untouched");
        }
    }

    #[test]
    fn a_start_that_is_refused_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let (_, identity) = DataDir::open(dir.path(), 42).unwrap();
            assert_eq!(identity.incarnation, Incarnation(1));
        }
    }
}
