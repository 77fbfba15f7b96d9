//! Driver: the catalog in the keyspace.
//!
//! ```text
//!   system/catalog/version          u64, big endian: raised by every change, locked by who changes
//!   system/catalog/next             u32, big endian: the first OID that no gateway has taken ([`super::Numbers`])
//!   system/catalog/e <oid>          one entry, JSON
//! ```
//!
//! Changes are made to a [`Draft`]: the whole catalog, read in the changing transaction under an exclusive lock of the version
//! key. Two changes can therefore never be based on the same state.

use super::{
    Catalog, DatabaseDescriptor, Entry, FIRST_DATABASE, FIRST_ROLE, FIRST_USER_OID, Numbers,
    PUBLIC, RoleDescriptor, SchemaDescriptor,
};
use crate::engine::PlantedBug;
use crate::error::SqlError;
use crate::types::SqlState;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use storage::{Key, Span};
use txn::api::Lock;
use txn::client::{ScanOptions, Txn};

/// Bytes of catalog entries asked for at once.
const PAGE_BYTES: u64 = 1 << 20;

fn version_key() -> Key {
    Key::system("catalog", b"version")
}

/// What whoever changes the catalog has locked.
pub(crate) fn version_span() -> Span {
    Span::point(&version_key())
}

fn entry_prefix() -> Key {
    Key::system("catalog", b"e")
}

fn entry_key(id: u32) -> Key {
    let mut rest = b"e".to_vec();
    rest.extend_from_slice(&id.to_be_bytes());
    Key::system("catalog", &rest)
}

fn corrupt(what: impl std::fmt::Display) -> SqlError {
    SqlError::new(SqlState::DATA_CORRUPTED, format!("stored catalog: {what}"))
}

fn number<const N: usize>(value: Option<&Bytes>, what: &str) -> Result<Option<[u8; N]>, SqlError> {
    value.map(|bytes| bytes.as_ref().try_into().map_err(|_| corrupt(what))).transpose()
}

/// Which version is stored; 0: there is no catalog.
pub(crate) async fn stored_version(txn: &mut Txn) -> Result<u64, SqlError> {
    let stored = txn.get(&version_key(), None).await?;
    Ok(number(stored.as_ref(), "version")?.map_or(0, u64::from_be_bytes))
}

/// Reads the whole catalog.
pub(crate) async fn load(txn: &mut Txn) -> Result<Catalog, SqlError> {
    load_locked(txn, None).await
}

async fn load_locked(txn: &mut Txn, lock: Option<Lock>) -> Result<Catalog, SqlError> {
    let heads = txn.multi_get(&[version_key()], lock).await?;
    let version = number(heads[0].as_ref(), "version")?.map_or(0, u64::from_be_bytes);
    let mut catalog = Catalog { version, ..Catalog::default() };
    let mut rest = Some(Span::prefix(&entry_prefix()));
    while let Some(span) = rest {
        let page =
            txn.scan(span, ScanOptions { bytes_max: PAGE_BYTES, ..ScanOptions::default() }).await?;
        for (key, value) in page.rows {
            let entry = serde_json::from_slice(&value)
                .map_err(|error| corrupt(format!("{key}: {error}")))?;
            catalog.insert(entry);
        }
        rest = page.resume;
    }
    Ok(catalog)
}

/// The number of this process's next draft. Never that of another: what was planned with a draft that was rolled back, to a savepoint
/// say, must not pass for planned with the next one.
static DRAFTS: AtomicU64 = AtomicU64::new(1);

/// A catalog that is being changed in a transaction.
pub(crate) struct Draft {
    catalog: Catalog,
    numbers: Arc<Numbers>,
    changed: BTreeMap<u32, Entry>,
    removed: BTreeSet<u32>,
    /// Tables whose ranges were asked to refuse versions below.
    announced: Arc<Mutex<BTreeMap<u32, u64>>>,
}

impl Draft {
    /// Reads the catalog for changing it: waits for whoever changes it now. What is new gets its OIDs from `numbers`, once they are provided.
    pub(crate) async fn begin(txn: &mut Txn, numbers: &Arc<Numbers>) -> Result<Draft, SqlError> {
        Ok(Draft::of(load_locked(txn, Some(Lock::Exclusive)).await?, numbers))
    }

    /// Chaos only, but for [`Draft::begin`]: of a catalog that may have changed since it was read, and may be changing now.
    pub(crate) fn of(catalog: Catalog, numbers: &Arc<Numbers>) -> Draft {
        let (numbers, announced) = (numbers.clone(), Arc::default());
        let (changed, removed) = (BTreeMap::new(), BTreeSet::new());
        Draft { catalog, numbers, changed, removed, announced }
    }

    /// Before [`Draft::allocate`].
    ///
    /// # Errors
    /// The system ranges cannot be reached; 54000: there are no OIDs left.
    pub(crate) async fn provide(&self) -> Result<(), SqlError> {
        self.numbers.provide().await
    }

    /// A fresh table's OID.
    ///
    /// # Errors
    /// As [`Draft::allocate`].
    pub(crate) fn allocate_table(&mut self, planted: Option<PlantedBug>) -> Result<u32, SqlError> {
        let fresh = self.allocate()?;
        let former = (FIRST_USER_OID..fresh).find(|id| !self.catalog.is_taken(*id));
        match former.filter(|_| planted == Some(PlantedBug::TableNumbersReused)) {
            Some(id) => Ok(id),
            None => Ok(fresh),
        }
    }

    /// A table's ranges are about to refuse versions below: should this draft not be committed, the table has to follow.
    pub(crate) fn note_announced(&mut self, table: u32, version: u64) {
        let mut announced = self.announced.lock();
        let known = announced.entry(table).or_default();
        *known = (*known).max(version);
    }

    /// From here on that stands there, too when this draft is given up.
    pub(crate) fn announce_into(&mut self, announced: Arc<Mutex<BTreeMap<u32, u64>>>) {
        self.announced = announced;
    }

    /// What was announced by this draft.
    pub(crate) fn announced(&self) -> BTreeMap<u32, u64> {
        self.announced.lock().clone()
    }

    /// As it would be.
    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// A fresh OID, which is never handed out again, whatever becomes of this draft.
    ///
    /// # Errors
    /// 54000: one statement cannot make as much.
    pub(crate) fn allocate(&mut self) -> Result<u32, SqlError> {
        self.numbers.take()
    }

    /// Adds or replaces.
    pub(crate) fn put(&mut self, entry: Entry) {
        let id = match &entry {
            Entry::Table(table) => table.id,
            Entry::Sequence(sequence) => sequence.id,
            Entry::View(view) => view.id,
            Entry::Schema(schema) => schema.id,
            Entry::Database(database) => database.id,
            Entry::Role(role) => role.id,
        };
        self.catalog.remove(id);
        self.catalog.insert(entry.clone());
        self.removed.remove(&id);
        self.changed.insert(id, entry);
    }

    /// Takes out.
    pub(crate) fn remove(&mut self, id: u32) {
        self.catalog.remove(id);
        self.changed.remove(&id);
        self.removed.insert(id);
    }

    /// Writes the changes; they count when the transaction commits. The catalog as it then is.
    pub(crate) fn write(mut self, txn: &mut Txn) -> Result<Arc<Catalog>, SqlError> {
        self.catalog.version += 1;
        self.catalog.draft = DRAFTS.fetch_add(1, Ordering::Relaxed);
        txn.put(version_key(), Bytes::copy_from_slice(&self.catalog.version.to_be_bytes()))?;
        for (id, entry) in &self.changed {
            let value = serde_json::to_vec(entry)
                .map_err(|error| SqlError::internal(format!("catalog entry: {error}")))?;
            txn.put(entry_key(*id), Bytes::from(value))?;
        }
        for id in &self.removed {
            txn.delete(entry_key(*id))?;
        }
        Ok(Arc::new(self.catalog))
    }
}

/// Writes the first catalog, unless there is one: database `meridian`, its schema `public`, role `root`.
pub(crate) async fn bootstrap(txn: &mut Txn, numbers: &Arc<Numbers>) -> Result<(), SqlError> {
    let mut draft = Draft::begin(txn, numbers).await?;
    if draft.catalog.version > 0 {
        return Ok(());
    }
    draft.put(Entry::Database(DatabaseDescriptor { id: FIRST_DATABASE, name: "meridian".into() }));
    draft.put(Entry::Schema(SchemaDescriptor {
        id: PUBLIC,
        database: FIRST_DATABASE,
        name: "public".into(),
    }));
    draft.put(Entry::Role(RoleDescriptor {
        id: FIRST_ROLE,
        name: "root".into(),
        superuser: true,
        login: true,
    }));
    draft.write(txn)?;
    Ok(())
}
