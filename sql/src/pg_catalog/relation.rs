//! Value: what `pg_class` lists, and what columns each has: the users' relations of the session's database and the virtual ones.
//!
//! The key index of a table without a primary key, and the hidden column it is over, are not shown: no client could use them.

use super::{Kind, VirtualTable};
use crate::catalog::{
    IndexDescriptor, IndexKind, Relation, SequenceDescriptor, TableDescriptor, ViewDescriptor,
};
use crate::exec::Facts;
use crate::types::Type;

/// A relation.
#[derive(Clone, Copy)]
pub(super) enum Rel<'a> {
    Virtual(&'static VirtualTable),
    Table(&'a TableDescriptor),
    Index(&'a TableDescriptor, &'a IndexDescriptor),
    Sequence(&'a SequenceDescriptor),
    View(&'a ViewDescriptor),
}

/// A column of a relation.
pub(super) struct Attribute {
    pub relation: u32,
    pub name: String,
    pub ty: Type,
    pub typmod: i32,
    pub number: i16,
    pub not_null: bool,
    pub has_default: bool,
    pub has_missing: bool,
    /// `a`, `d` or empty.
    pub identity: &'static str,
    pub dropped: bool,
}

/// The relations of the session's database; `only`: the one with this OID, if there is one.
pub(super) fn all(facts: &Facts, only: Option<u32>) -> Vec<Rel<'_>> {
    if let Some(oid) = only {
        return one(facts, oid).into_iter().collect();
    }
    let mut all: Vec<Rel<'_>> = super::tables().map(Rel::Virtual).collect();
    for table in tables(facts, None) {
        all.push(Rel::Table(table));
        all.extend(indexes(table).map(|index| Rel::Index(table, index)));
    }
    all.extend(sequences(facts).map(Rel::Sequence));
    all.extend(views(facts).map(Rel::View));
    all
}

/// A relation by OID.
pub(super) fn one(facts: &Facts, oid: u32) -> Option<Rel<'_>> {
    if let Some(table) = super::find_by_oid(oid) {
        return Some(Rel::Virtual(table));
    }
    let found = match facts.catalog.relation_by_id(oid)? {
        Relation::Table(table) => Rel::Table(facts.catalog.table(table.id)?),
        Relation::Index(table, index) => {
            let table = facts.catalog.table(table.id)?;
            Rel::Index(table, indexes(table).find(|shown| shown.id == index)?)
        }
        Relation::Sequence(sequence) => Rel::Sequence(facts.catalog.sequence(sequence.id)?),
        Relation::View(view) => Rel::View(facts.catalog.views().find(|shown| shown.id == view.id)?),
    };
    in_database(facts, found.schema()).then_some(found)
}

/// The tables of the session's database; `only`: the one with this OID.
pub(super) fn tables(facts: &Facts, only: Option<u32>) -> Vec<&TableDescriptor> {
    let shown = |table: &&TableDescriptor| in_database(facts, table.schema);
    match only {
        Some(oid) => {
            facts.catalog.table(oid).map(AsRef::as_ref).filter(shown).into_iter().collect()
        }
        None => facts.catalog.tables().map(AsRef::as_ref).filter(shown).collect(),
    }
}

/// The indexes of a table that are shown.
pub(super) fn indexes(table: &TableDescriptor) -> impl Iterator<Item = &IndexDescriptor> {
    table.indexes.iter().filter(|index| index.kind != IndexKind::Primary || !table.has_hidden_key())
}

/// The sequences of the session's database.
pub(super) fn sequences(facts: &Facts) -> impl Iterator<Item = &SequenceDescriptor> {
    facts
        .catalog
        .sequences()
        .map(AsRef::as_ref)
        .filter(|sequence: &&SequenceDescriptor| in_database(facts, sequence.schema))
}

/// The views of the session's database.
pub(super) fn views(facts: &Facts) -> impl Iterator<Item = &ViewDescriptor> {
    facts
        .catalog
        .views()
        .map(AsRef::as_ref)
        .filter(|view: &&ViewDescriptor| in_database(facts, view.schema))
}

fn in_database(facts: &Facts, schema: u32) -> bool {
    facts.catalog.schema_by_id(schema).is_some_and(|schema| schema.database == facts.database)
}

/// The type of a view's column. Its name was written by the binder, by either of a type's names.
pub(super) fn view_type(name: &str) -> Type {
    Type::from_internal_name(name).or_else(|| super::names::type_named(name)).unwrap_or(Type::Text)
}

impl Rel<'_> {
    pub(super) fn oid(&self) -> u32 {
        match self {
            Rel::Virtual(table) => table.oid,
            Rel::Table(table) => table.id,
            Rel::Index(_, index) => index.oid,
            Rel::Sequence(sequence) => sequence.id,
            Rel::View(view) => view.id,
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Rel::Virtual(table) => table.name,
            Rel::Table(table) => &table.name,
            Rel::Index(_, index) => &index.name,
            Rel::Sequence(sequence) => &sequence.name,
            Rel::View(view) => &view.name,
        }
    }

    pub(super) fn schema(&self) -> u32 {
        match self {
            Rel::Virtual(table) => table.schema,
            Rel::Table(table) | Rel::Index(table, _) => table.schema,
            Rel::Sequence(sequence) => sequence.schema,
            Rel::View(view) => view.schema,
        }
    }

    pub(super) fn owner(&self) -> u32 {
        match self {
            Rel::Virtual(_) => crate::catalog::FIRST_ROLE,
            Rel::Table(table) | Rel::Index(table, _) => table.owner,
            Rel::Sequence(sequence) => sequence.owner,
            Rel::View(view) => view.owner,
        }
    }

    /// `relkind`.
    pub(super) fn kind(&self) -> char {
        match self {
            Rel::Virtual(table) if table.kind == Kind::View => 'v',
            Rel::Virtual(_) | Rel::Table(_) => 'r',
            Rel::Index(..) => 'i',
            Rel::Sequence(_) => 'S',
            Rel::View(_) => 'v',
        }
    }

    /// `relam`: the access method's OID.
    pub(super) fn access_method(&self) -> u32 {
        match self.kind() {
            'r' => 2,
            'i' => 403,
            _ => 0,
        }
    }

    /// Its columns, dropped ones included.
    pub(super) fn attributes(&self) -> Vec<Attribute> {
        let plain = |name: &str, ty: Type, at: usize| Attribute {
            relation: self.oid(),
            name: name.to_string(),
            ty,
            typmod: -1,
            number: i16::try_from(at + 1).unwrap_or(i16::MAX),
            not_null: false,
            has_default: false,
            has_missing: false,
            identity: "",
            dropped: false,
        };
        match self {
            Rel::Virtual(table) => {
                let columns = table.columns.iter().enumerate();
                columns.map(|(at, (name, ty))| plain(name, *ty, at)).collect()
            }
            Rel::Table(table) => table_attributes(table),
            Rel::Index(table, index) => {
                let columns = index.columns.iter().enumerate();
                columns
                    .map(|(at, column)| {
                        let of = &table.columns[column.column];
                        Attribute { typmod: of.typmod, ..plain(&of.name, of.ty, at) }
                    })
                    .collect()
            }
            Rel::Sequence(_) => {
                let columns = [
                    ("last_value", Type::Int8),
                    ("log_cnt", Type::Int8),
                    ("is_called", Type::Bool),
                ];
                let columns = columns.into_iter().enumerate();
                columns
                    .map(|(at, (name, ty))| Attribute { not_null: true, ..plain(name, ty, at) })
                    .collect()
            }
            Rel::View(view) => {
                let columns = view.columns.iter().enumerate();
                columns.map(|(at, (name, ty))| plain(name, view_type(ty), at)).collect()
            }
        }
    }
}

fn table_attributes(table: &TableDescriptor) -> Vec<Attribute> {
    let shown = table.columns.iter().filter(|column| !column.hidden);
    shown
        .map(|column| Attribute {
            relation: table.id,
            name: if column.dropped {
                format!("........pg.dropped.{}........", column.id)
            } else {
                column.name.clone()
            },
            ty: column.ty,
            typmod: column.typmod,
            number: attnum(column.id),
            not_null: column.not_null && !column.dropped,
            has_default: column.default.is_some() && column.identity.is_none() && !column.dropped,
            has_missing: column.missing.is_some() && !column.dropped,
            identity: match column.identity {
                Some(crate::catalog::Identity::Always) => "a",
                Some(crate::catalog::Identity::ByDefault) => "d",
                None => "",
            },
            dropped: column.dropped,
        })
        .collect()
}

/// A column's id as `attnum`; tables have at most `COLUMNS_MAX` columns at a time, and adding more than 32767 ever is refused.
pub(super) fn attnum(id: u32) -> i16 {
    i16::try_from(id).unwrap_or(i16::MAX)
}

/// `attnum` of the columns at these places of a table.
pub(super) fn attnums<'a>(
    table: &'a TableDescriptor,
    places: impl IntoIterator<Item = usize> + 'a,
) -> impl Iterator<Item = i16> + 'a {
    places.into_iter().map(|place| attnum(table.columns[place].id))
}
