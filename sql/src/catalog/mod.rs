//! Value: the catalog. One immutable snapshot, shared by every session of a node, replaced as a whole.
//!
//! The stored catalog is a set of entries under `system/catalog/`, read and written by ordinary transactions; every change
//! raises one version number, whose key is what schema changes queue on. A snapshot may be old: that costs a refused batch or a
//! second look for an unknown name, never a wrong answer, because table versions travel with every batch.

mod descriptor;
mod numbers;
mod store;

pub(crate) use descriptor::{
    COLUMNS_MAX, CheckDescriptor, DatabaseDescriptor, Entry, FIRST_USER_OID, ForeignKeyAction,
    ForeignKeyDescriptor, INDEX_COLUMNS_MAX, Identity, IndexColumn, IndexKind, IndexState, ROWID,
    RoleDescriptor, SchemaDescriptor, SequenceDescriptor, ViewDescriptor,
};
pub use descriptor::{ColumnDescriptor, IndexDescriptor, TableDescriptor, TableMode};
pub(crate) use numbers::Numbers;
pub(crate) use store::{Draft, bootstrap, load, stored_version, version_span};

use clock::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// OID of schema `pg_catalog`.
pub(crate) const PG_CATALOG: u32 = 11;
/// OID of schema `public` of the first database.
pub(crate) const PUBLIC: u32 = 2200;
/// OID of schema `information_schema`.
pub(crate) const INFORMATION_SCHEMA: u32 = 13_000;
/// OID of the first database.
pub(crate) const FIRST_DATABASE: u32 = 5;
/// OID of the first role.
pub(crate) const FIRST_ROLE: u32 = 10;

/// A relation that users created.
#[derive(Clone, Debug)]
pub(crate) enum Relation {
    /// A table.
    Table(Arc<TableDescriptor>),
    /// A sequence.
    Sequence(Arc<SequenceDescriptor>),
    /// A view.
    View(Arc<ViewDescriptor>),
    /// An index, of this table.
    Index(Arc<TableDescriptor>, u32),
}

/// A snapshot.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    version: u64,
    /// Which draft it is, as long as it is not committed; 0: it is.
    draft: u64,
    tables: BTreeMap<u32, Arc<TableDescriptor>>,
    sequences: BTreeMap<u32, Arc<SequenceDescriptor>>,
    views: BTreeMap<u32, Arc<ViewDescriptor>>,
    schemas: BTreeMap<u32, SchemaDescriptor>,
    databases: BTreeMap<u32, DatabaseDescriptor>,
    roles: BTreeMap<u32, RoleDescriptor>,
    /// (schema, name) of tables, sequences, views and indexes.
    names: BTreeMap<(u32, String), u32>,
    /// Index OID to table and index id.
    indexes: BTreeMap<u32, (u32, u32)>,
}

/// Which catalog something was planned with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Edition {
    version: u64,
    draft: u64,
}

impl Catalog {
    /// Raised by every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Tells it from all others: a version number alone may be given again when what wrote it is rolled back, be it to a savepoint.
    pub(crate) fn edition(&self) -> Edition {
        Edition { version: self.version, draft: self.draft }
    }

    /// Committed, and with the time from which on each table's version counts: for what `former` had already, as it said; for the rest, `now`.
    pub(crate) fn dated(mut self, former: &Catalog, now: Timestamp) -> Catalog {
        self.draft = 0;
        for (id, table) in &mut self.tables {
            let known = former.table(*id).filter(|known| known.version == table.version);
            Arc::make_mut(table).since = known.map_or(now, |known| known.since);
        }
        self
    }

    /// A table by OID.
    pub fn table(&self, id: u32) -> Option<&Arc<TableDescriptor>> {
        self.tables.get(&id)
    }

    /// Whether something that users made has this OID.
    fn is_taken(&self, id: u32) -> bool {
        self.tables.contains_key(&id)
            || self.sequences.contains_key(&id)
            || self.views.contains_key(&id)
            || self.schemas.contains_key(&id)
            || self.databases.contains_key(&id)
            || self.roles.contains_key(&id)
            || self.indexes.contains_key(&id)
    }

    /// All tables, by OID.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<TableDescriptor>> {
        self.tables.values()
    }

    /// A table by the name of its database, schema and itself.
    pub fn find_table(
        &self,
        database: &str,
        schema: &str,
        name: &str,
    ) -> Option<&Arc<TableDescriptor>> {
        let database = self.database(database)?.id;
        let schema = self.schema(database, schema)?.id;
        self.tables.get(self.names.get(&(schema, name.to_string()))?)
    }

    pub(crate) fn sequences(&self) -> impl Iterator<Item = &Arc<SequenceDescriptor>> {
        self.sequences.values()
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = &Arc<ViewDescriptor>> {
        self.views.values()
    }

    pub(crate) fn schemas(&self) -> impl Iterator<Item = &SchemaDescriptor> {
        self.schemas.values()
    }

    pub(crate) fn databases(&self) -> impl Iterator<Item = &DatabaseDescriptor> {
        self.databases.values()
    }

    pub(crate) fn roles(&self) -> impl Iterator<Item = &RoleDescriptor> {
        self.roles.values()
    }

    pub(crate) fn database(&self, name: &str) -> Option<&DatabaseDescriptor> {
        self.databases.values().find(|database| database.name == name)
    }

    pub(crate) fn role(&self, name: &str) -> Option<&RoleDescriptor> {
        self.roles.values().find(|role| role.name == name)
    }

    pub(crate) fn role_by_id(&self, id: u32) -> Option<&RoleDescriptor> {
        self.roles.get(&id)
    }

    pub(crate) fn schema(&self, database: u32, name: &str) -> Option<&SchemaDescriptor> {
        self.schemas.values().find(|schema| schema.database == database && schema.name == name)
    }

    pub(crate) fn schema_by_id(&self, id: u32) -> Option<&SchemaDescriptor> {
        self.schemas.get(&id)
    }

    pub(crate) fn sequence(&self, id: u32) -> Option<&Arc<SequenceDescriptor>> {
        self.sequences.get(&id)
    }

    /// What a name means in a schema.
    pub(crate) fn relation(&self, schema: u32, name: &str) -> Option<Relation> {
        self.relation_by_id(*self.names.get(&(schema, name.to_string()))?)
    }

    /// What an OID means.
    pub(crate) fn relation_by_id(&self, id: u32) -> Option<Relation> {
        if let Some(table) = self.tables.get(&id) {
            return Some(Relation::Table(table.clone()));
        }
        if let Some(sequence) = self.sequences.get(&id) {
            return Some(Relation::Sequence(sequence.clone()));
        }
        if let Some(view) = self.views.get(&id) {
            return Some(Relation::View(view.clone()));
        }
        let (table, index) = self.indexes.get(&id)?;
        Some(Relation::Index(self.tables.get(table)?.clone(), *index))
    }

    /// Foreign keys that reference a table, with the tables that have them.
    pub(crate) fn referencing(
        &self,
        id: u32,
    ) -> impl Iterator<Item = (&Arc<TableDescriptor>, &ForeignKeyDescriptor)> {
        self.tables
            .values()
            .flat_map(|table| table.foreign_keys.iter().map(move |key| (table, key)))
            .filter(move |(_, key)| key.table == id)
    }

    fn insert(&mut self, entry: Entry) {
        match entry {
            Entry::Table(table) => {
                self.names.insert((table.schema, table.name.clone()), table.id);
                for index in &table.indexes {
                    self.indexes.insert(index.oid, (table.id, index.id));
                    if !is_hidden_primary(&table, index) {
                        self.names.insert((table.schema, index.name.clone()), index.oid);
                    }
                }
                self.tables.insert(table.id, Arc::new(table));
            }
            Entry::Sequence(sequence) => {
                self.names.insert((sequence.schema, sequence.name.clone()), sequence.id);
                self.sequences.insert(sequence.id, Arc::new(sequence));
            }
            Entry::View(view) => {
                self.names.insert((view.schema, view.name.clone()), view.id);
                self.views.insert(view.id, Arc::new(view));
            }
            Entry::Schema(schema) => {
                self.schemas.insert(schema.id, schema);
            }
            Entry::Database(database) => {
                self.databases.insert(database.id, database);
            }
            Entry::Role(role) => {
                self.roles.insert(role.id, role);
            }
        }
    }

    fn remove(&mut self, id: u32) {
        if let Some(table) = self.tables.remove(&id) {
            self.names.remove(&(table.schema, table.name.clone()));
            for index in &table.indexes {
                self.indexes.remove(&index.oid);
                if !is_hidden_primary(&table, index) {
                    self.names.remove(&(table.schema, index.name.clone()));
                }
            }
        }
        if let Some(sequence) = self.sequences.remove(&id) {
            self.names.remove(&(sequence.schema, sequence.name.clone()));
        }
        if let Some(view) = self.views.remove(&id) {
            self.names.remove(&(view.schema, view.name.clone()));
        }
        self.schemas.remove(&id);
        self.databases.remove(&id);
        self.roles.remove(&id);
    }
}

/// The key index of a table without a primary key has no name that anybody could collide with or use.
fn is_hidden_primary(table: &TableDescriptor, index: &IndexDescriptor) -> bool {
    index.kind == IndexKind::Primary && table.has_hidden_key()
}
