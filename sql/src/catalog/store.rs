//! Driver: the catalog in the keyspace.
//!
//! ```text
//!   system/catalog/version          u64, big endian: raised by every change, locked by who changes
//!   system/catalog/next             u32, big endian: the next OID
//!   system/catalog/e <oid>          one entry, JSON
//! ```
//!
//! Changes are made to a [`Draft`]: the whole catalog, read in the changing transaction under an exclusive lock of the version
//! key. Two changes can therefore never be based on the same state.

use super::{
    Catalog, DatabaseDescriptor, Entry, FIRST_DATABASE, FIRST_ROLE, FIRST_USER_OID, PUBLIC,
    RoleDescriptor, SchemaDescriptor,
};
use crate::engine::PlantedBug;
use crate::error::SqlError;
use crate::types::SqlState;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use storage::{Key, Span};
use txn::api::Lock;
use txn::client::{ScanOptions, Txn};

/// Bytes of catalog entries asked for at once.
const PAGE_BYTES: u64 = 1 << 20;

fn version_key() -> Key {
    Key::system("catalog", b"version")
}

fn next_key() -> Key {
    Key::system("catalog", b"next")
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
    let next = txn.multi_get(&[next_key()], None).await?;
    let version = number(heads[0].as_ref(), "version")?.map_or(0, u64::from_be_bytes);
    let next_id = number(next[0].as_ref(), "next")?.map_or(FIRST_USER_OID, u32::from_be_bytes);
    let mut catalog = Catalog { version, next_id, ..Catalog::default() };
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

/// A catalog that is being changed in a transaction.
pub(crate) struct Draft {
    catalog: Catalog,
    changed: BTreeMap<u32, Entry>,
    removed: BTreeSet<u32>,
}

impl Draft {
    /// Reads the catalog for changing it: waits for whoever changes it now.
    pub(crate) async fn begin(txn: &mut Txn) -> Result<Draft, SqlError> {
        let catalog = load_locked(txn, Some(Lock::Exclusive)).await?;
        Ok(Draft { catalog, changed: BTreeMap::new(), removed: BTreeSet::new() })
    }

    /// Chaos only: of a catalog that may have changed since it was read, and may be changing now.
    pub(crate) fn of(catalog: &Catalog) -> Draft {
        Draft { catalog: catalog.clone(), changed: BTreeMap::new(), removed: BTreeSet::new() }
    }

    /// A fresh table's OID.
    pub(crate) fn allocate_table(&mut self, planted: Option<PlantedBug>) -> u32 {
        let former = (FIRST_USER_OID..self.catalog.next_id).find(|id| !self.catalog.is_taken(*id));
        match former.filter(|_| planted == Some(PlantedBug::TableNumbersReused)) {
            Some(id) => id,
            None => self.allocate(),
        }
    }

    /// As it would be.
    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// A fresh OID. Never handed out again once this draft is written.
    pub(crate) fn allocate(&mut self) -> u32 {
        let id = self.catalog.next_id;
        self.catalog.next_id += 1;
        id
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
        self.catalog.draft_of = Some(txn.id());
        txn.put(version_key(), Bytes::copy_from_slice(&self.catalog.version.to_be_bytes()))?;
        txn.put(next_key(), Bytes::copy_from_slice(&self.catalog.next_id.to_be_bytes()))?;
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
pub(crate) async fn bootstrap(txn: &mut Txn) -> Result<(), SqlError> {
    let mut draft = Draft::begin(txn).await?;
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
