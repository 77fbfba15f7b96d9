//! Value: what the catalog knows of a relation, a schema, a database, a role. Stored as versioned JSON, because a descriptor is
//! read by hand at 3 a.m., is small, and lives longer than the code that wrote it.
//!
//! A table's columns are addressed by their place in [`TableDescriptor::columns`], which never changes: a dropped column stays,
//! marked. A column's id is its `attnum`, an index's id is part of its keys; neither is reused within a table.
//!
//! INVARIANT: `indexes[0]` is the primary index; its key is unique. Every change of a table raises its `version` by one, and a
//! change that other writers must know of is announced to the table's ranges (`Request::Fence`) before it is relied on.

use crate::types::Type;
use clock::Timestamp;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use storage::{Key, Span};

/// First OID of what users create.
pub(crate) const FIRST_USER_OID: u32 = 16_384;
/// Columns of one table, as in PostgreSQL.
pub(crate) const COLUMNS_MAX: usize = 1600;
/// Columns of one index, as in PostgreSQL.
pub(crate) const INDEX_COLUMNS_MAX: usize = 32;
/// Name of the key column of a table without a primary key.
pub(crate) const ROWID: &str = "rowid";

/// How a table is replicated, and what it therefore promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableMode {
    /// One copy, over the regions: serializable.
    Strong,
    /// A copy per region: always writable, merged.
    Available,
}

/// A table.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TableDescriptor {
    /// OID, and part of its keys.
    pub id: u32,
    /// Its schema's OID.
    pub schema: u32,
    /// Its name.
    pub name: String,
    /// Owning role's OID.
    pub owner: u32,
    /// Raised by every change.
    pub version: u64,
    /// Whoever plans with this version reads here or later: before, the table was not as it says. An upper bound, as this gateway
    /// knows it; [`Timestamp::MIN`] in a catalog that the planning transaction itself has read.
    #[serde(skip)]
    pub since: Timestamp,
    /// How it is replicated.
    pub mode: TableMode,
    /// All columns ever, in order.
    pub columns: Vec<ColumnDescriptor>,
    /// The primary index first.
    pub indexes: Vec<IndexDescriptor>,
    /// CHECK constraints.
    #[serde(default)]
    pub checks: Vec<CheckDescriptor>,
    /// FOREIGN KEY constraints of this table.
    #[serde(default)]
    pub foreign_keys: Vec<ForeignKeyDescriptor>,
    /// The next index id to hand out.
    pub next_index: u32,
    /// `WITH (...)`, as written, for tools that look.
    #[serde(default)]
    pub options: Vec<String>,
    /// How long its history is kept; `None`: as long as the cluster keeps that of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gc_ttl_ms: Option<u64>,
}

/// A column.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ColumnDescriptor {
    /// `attnum`, from 1.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(with = "type_name")]
    pub ty: Type,
    /// Type modifier, or -1.
    pub typmod: i32,
    /// Whether NULL is refused.
    pub not_null: bool,
    /// SQL text of its DEFAULT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Value of rows that were written before the column was added: text form, or NULL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// GENERATED ... AS IDENTITY.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Not there any more.
    #[serde(default)]
    pub dropped: bool,
    /// Not seen by `*`: the key of a table without a primary key.
    #[serde(default)]
    pub hidden: bool,
}

/// Kind of identity column.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Identity {
    /// ALWAYS.
    Always,
    /// BY DEFAULT.
    ByDefault,
}

/// An index.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct IndexDescriptor {
    /// Part of its keys, unique within the table. 0 is never an index: available copies keep their streams' frontiers there.
    pub id: u32,
    /// Its OID.
    pub oid: u32,
    /// Its name, and its constraint's.
    pub name: String,
    /// Key columns.
    pub columns: Vec<IndexColumn>,
    /// What it enforces.
    pub kind: IndexKind,
    /// Who uses it.
    pub state: IndexState,
    /// OID of its constraint, if it has one.
    #[serde(default)]
    pub constraint: Option<u32>,
}

/// A column of an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IndexColumn {
    /// Place in [`TableDescriptor::columns`].
    pub column: usize,
    /// Largest first.
    #[serde(default)]
    pub descending: bool,
}

/// What an index enforces.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum IndexKind {
    /// The rows themselves.
    Primary,
    /// No two rows with equal keys (NULLs are not equal).
    Unique,
    /// Nothing.
    Plain,
}

/// Who uses an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum IndexState {
    /// Readers and writers.
    Public,
    /// Writers only: it is being filled.
    WriteOnly,
}

/// A CHECK constraint.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CheckDescriptor {
    /// OID.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// SQL text.
    pub expression: String,
}

/// A FOREIGN KEY constraint.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ForeignKeyDescriptor {
    /// OID.
    pub oid: u32,
    /// Name.
    pub name: String,
    /// Places of the referencing columns.
    pub columns: Vec<usize>,
    /// The referenced table.
    pub table: u32,
    /// Places of the referenced columns there, which are the key of `index`.
    pub referenced: Vec<usize>,
    /// The unique index there.
    pub index: u32,
    /// What a delete of the referenced row does.
    pub on_delete: ForeignKeyAction,
    /// What a change of the referenced key does.
    pub on_update: ForeignKeyAction,
}

/// What happens to referencing rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ForeignKeyAction {
    /// The change is refused.
    Restrict,
    /// They are deleted, or changed with it.
    Cascade,
    /// Their columns become NULL.
    SetNull,
}

/// A sequence.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SequenceDescriptor {
    /// OID.
    pub id: u32,
    /// Its schema's OID.
    pub schema: u32,
    /// Its name.
    pub name: String,
    /// Owning role's OID.
    pub owner: u32,
    /// First value.
    pub start: i64,
    /// Step, not 0.
    pub increment: i64,
    /// Lowest value.
    pub min: i64,
    /// Highest value.
    pub max: i64,
    /// Whether it starts again.
    pub cycle: bool,
    /// (table, column place) that it belongs to.
    pub owned_by: Option<(u32, usize)>,
    /// The number under which its values are kept since it was started anew; `None`: its OID.
    #[serde(default)]
    pub restarted_as: Option<u32>,
}

impl SequenceDescriptor {
    /// The number under which its values are kept. Another one is another beginning, which comes and goes with the transaction that wrote it.
    pub(crate) fn values(&self) -> u32 {
        self.restarted_as.unwrap_or(self.id)
    }
}

/// A view.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ViewDescriptor {
    /// OID.
    pub id: u32,
    /// Its schema's OID.
    pub schema: u32,
    /// Its name.
    pub name: String,
    /// Owning role's OID.
    pub owner: u32,
    /// Names and types of its columns, types by name.
    pub columns: Vec<(String, String)>,
    /// SQL text of its query.
    pub query: String,
}

/// A schema.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SchemaDescriptor {
    /// OID.
    pub id: u32,
    /// Its database's OID.
    pub database: u32,
    /// Its name.
    pub name: String,
}

/// A database.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct DatabaseDescriptor {
    /// OID.
    pub id: u32,
    /// Its name.
    pub name: String,
}

/// A role.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct RoleDescriptor {
    /// OID.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// May do everything.
    pub superuser: bool,
    /// May log in.
    pub login: bool,
}

/// One entry of the stored catalog.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) enum Entry {
    Table(TableDescriptor),
    Sequence(SequenceDescriptor),
    View(ViewDescriptor),
    Schema(SchemaDescriptor),
    Database(DatabaseDescriptor),
    Role(RoleDescriptor),
}

impl TableDescriptor {
    /// The primary index.
    pub fn primary(&self) -> &IndexDescriptor {
        &self.indexes[0]
    }

    /// Columns that `*` means, with their places.
    pub fn visible(&self) -> impl Iterator<Item = (usize, &ColumnDescriptor)> {
        self.columns.iter().enumerate().filter(|(_, column)| !column.dropped && !column.hidden)
    }

    /// The place of a column; hidden ones are found too.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| !column.dropped && column.name == name)
    }

    /// An index by its id.
    pub fn index(&self, id: u32) -> Option<&IndexDescriptor> {
        self.indexes.iter().find(|index| index.id == id)
    }

    /// Whether the key is a hidden row id.
    pub fn has_hidden_key(&self) -> bool {
        self.primary().columns.iter().any(|column| self.columns[column.column].hidden)
    }

    /// Names of an index's columns.
    pub fn column_names(&self, places: impl IntoIterator<Item = usize>) -> Vec<&str> {
        places.into_iter().map(|place| self.columns[place].name.as_str()).collect()
    }

    /// Prefix of everything of this table that a node of `region` uses.
    pub fn prefix(&self, region: u16) -> Key {
        match self.mode {
            TableMode::Strong => Key::table(self.id),
            TableMode::Available => Key::copy(region, self.id),
        }
    }

    /// Prefix of an index.
    pub fn index_prefix(&self, region: u16, index: u32) -> Vec<u8> {
        let mut bytes = self.prefix(region).as_bytes().to_vec();
        bytes.extend_from_slice(&index.to_be_bytes());
        bytes
    }

    /// Everything of this table that a node of `region` uses.
    pub fn span(&self, region: u16) -> Span {
        Span::prefix(&self.prefix(region))
    }
}

/// Types by their `typname`, which outlives the enum's numbering.
mod type_name {
    use super::{Cow, Type};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(ty: &Type, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&ty.internal_name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Type, D::Error> {
        let name: Cow<'de, str> = Deserialize::deserialize(input)?;
        Type::from_internal_name(&name)
            .ok_or_else(|| serde::de::Error::custom(format!("unknown type {name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_survives_its_storage() {
        let column = ColumnDescriptor {
            id: 1,
            name: "a".into(),
            ty: Type::Int4.array().expect("has an array"),
            typmod: -1,
            not_null: true,
            default: None,
            missing: None,
            identity: Some(Identity::Always),
            dropped: false,
            hidden: false,
        };
        let text = serde_json::to_string(&column).expect("serializes");
        assert!(text.contains("\"_int4\""), "{text}");
        assert_eq!(serde_json::from_str::<ColumnDescriptor>(&text).expect("parses"), column);
    }
}
