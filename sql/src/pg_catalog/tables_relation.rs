//! Value: the relations of `pg_catalog` about relations: `pg_class` and what hangs on its OIDs.

use super::cell::{ACLS, INT2S, NULL, OIDS, TEXTS, int2s, int2vector, oidvector, texts};
use super::definition::{Constraint, all_constraints};
use super::functions_catalog::place_number;
use super::names::shown_default;
use super::relation::{self, Attribute, Rel, attnum, attnums};
use super::tables_type::operator_class;
use super::{VirtualTable, table, type_facts};
use crate::catalog::{
    ColumnDescriptor, ForeignKeyAction, IndexDescriptor, IndexKind, IndexState, SequenceDescriptor,
    TableDescriptor,
};
use crate::exec::Facts;
use crate::types::Datum;
use crate::types::Type::{
    self, AnyArray, Bool, Char, Float4, Int2, Int2Vector, Int4, Int8, Name, Oid, OidVector,
    PgNodeTree, Xid,
};

pub(super) static TABLES: &[&VirtualTable] =
    &[&PG_CLASS, &PG_ATTRIBUTE, &PG_ATTRDEF, &PG_INDEX, &PG_CONSTRAINT, &PG_SEQUENCE, &PG_DEPEND];

/// OIDs of the catalogs that `pg_depend` and `pg_description` refer to.
const CLASS: u32 = 1259;
const ATTRDEF: u32 = 2604;
const CONSTRAINT: u32 = 2606;

table! {
    PG_CLASS = 1259, PG_CATALOG "pg_class" Table by "oid";
    each |facts, only| relation::all(facts, only);
    row |rel: Rel<'_>| {
        oid Oid = rel.oid();
        relname Name = rel.name();
        relnamespace Oid = rel.schema();
        reltype Oid = 0;
        reloftype Oid = 0;
        relowner Oid = rel.owner();
        relam Oid = rel.access_method();
        relfilenode Oid = 0;
        reltablespace Oid = 0;
        relpages Int4 = 0;
        reltuples Float4 = -1;
        relallvisible Int4 = 0;
        reltoastrelid Oid = 0;
        relhasindex Bool = matches!(rel, Rel::Table(table) if relation::indexes(table).next().is_some());
        relisshared Bool = false;
        relpersistence Char = 'p';
        relkind Char = rel.kind();
        relnatts Int2 = rel.attributes().last().map_or(0, |last| last.number);
        relchecks Int2 = match rel { Rel::Table(table) => table.checks.len(), _ => 0 };
        relhasrules Bool = rel.kind() == 'v';
        relhastriggers Bool = false;
        relhassubclass Bool = false;
        relrowsecurity Bool = false;
        relforcerowsecurity Bool = false;
        relispopulated Bool = true;
        relreplident Char = match rel { Rel::Table(_) => 'd', _ => 'n' };
        relispartition Bool = false;
        relrewrite Oid = 0;
        relfrozenxid Xid = 0;
        relminmxid Xid = 0;
        relacl ACLS = NULL;
        reloptions TEXTS = match rel {
            Rel::Table(table) if !table.options.is_empty() => texts(&table.options),
            _ => NULL,
        };
        relpartbound PgNodeTree = NULL;
    }
}

/// How a column's type is passed, aligned and stored.
fn facts_of(attribute: &Attribute) -> type_facts::TypeFacts {
    type_facts::of(attribute.ty.base())
        .expect("every type but COUNTER has facts, and its base is int8")
}

fn attributes(facts: &Facts, only: Option<u32>) -> Vec<Attribute> {
    relation::all(facts, only).iter().flat_map(Rel::attributes).collect()
}

table! {
    PG_ATTRIBUTE = 1249, PG_CATALOG "pg_attribute" Table by "attrelid";
    each |facts, only| attributes(facts, only);
    row |attribute: Attribute| {
        attrelid Oid = attribute.relation;
        attname Name = &attribute.name;
        atttypid Oid = if attribute.dropped { 0 } else { attribute.ty.oid() };
        attstattarget Int4 = -1;
        attlen Int2 = attribute.ty.length();
        attnum Int2 = attribute.number;
        attndims Int4 = i32::from(matches!(attribute.ty, Type::Array(_)));
        attcacheoff Int4 = -1;
        atttypmod Int4 = attribute.typmod;
        attbyval Bool = facts_of(&attribute).by_value;
        attalign Char = facts_of(&attribute).align;
        attstorage Char = facts_of(&attribute).storage;
        attcompression Char = "";
        attnotnull Bool = attribute.not_null;
        atthasdef Bool = attribute.has_default;
        atthasmissing Bool = attribute.has_missing;
        attidentity Char = attribute.identity;
        attgenerated Char = "";
        attisdropped Bool = attribute.dropped;
        attislocal Bool = true;
        attinhcount Int4 = 0;
        attcollation Oid = facts_of(&attribute).collation;
        attacl ACLS = NULL;
        attoptions TEXTS = NULL;
        attfdwoptions TEXTS = NULL;
        attmissingval AnyArray = NULL;
    }
}

/// A default's OID. Defaults have no number of their own: the table's and the column's are put together, unique as long as
/// tables have OIDs below 2 million and columns numbers below 2048; the top bit keeps it off the relations' OIDs.
fn default_oid(table: u32, number: i16) -> u32 {
    0x8000_0000
        | (table.wrapping_shl(11) & 0x7fff_f800)
        | (u32::from(number.unsigned_abs()) & 0x7ff)
}

fn defaults(facts: &Facts, only: Option<u32>) -> Vec<(&TableDescriptor, &ColumnDescriptor)> {
    let has_default = |column: &&ColumnDescriptor| {
        column.default.is_some() && column.identity.is_none() && !column.dropped && !column.hidden
    };
    let tables = relation::tables(facts, only).into_iter();
    tables
        .flat_map(|table| {
            table.columns.iter().filter(has_default).map(move |column| (table, column))
        })
        .collect()
}

table! {
    PG_ATTRDEF = 2604, PG_CATALOG "pg_attrdef" Table by "adrelid";
    each |facts, only| defaults(facts, only).into_iter().map(move |(table, column)| {
        (table, column, column.default.as_ref().map(|text| shown_default(facts, text)))
    });
    row |(table, column, shown): (&TableDescriptor, &ColumnDescriptor, Option<String>)| {
        oid Oid = default_oid(table.id, attnum(column.id));
        adrelid Oid = table.id;
        adnum Int2 = attnum(column.id);
        adbin PgNodeTree = shown;
    }
}

fn indexes(facts: &Facts, only: Option<u32>) -> Vec<(&TableDescriptor, &IndexDescriptor)> {
    let tables = relation::tables(facts, only).into_iter();
    tables.flat_map(|table| relation::indexes(table).map(move |index| (table, index))).collect()
}

fn key_types<'a>(
    table: &'a TableDescriptor,
    index: &'a IndexDescriptor,
) -> impl Iterator<Item = Type> + 'a {
    index.columns.iter().map(|column| table.columns[column.column].ty.base())
}

table! {
    PG_INDEX = 2610, PG_CATALOG "pg_index" Table by "indrelid";
    each |facts, only| indexes(facts, only);
    row |(table, index): (&TableDescriptor, &IndexDescriptor)| {
        indexrelid Oid = index.oid;
        indrelid Oid = table.id;
        indnatts Int2 = index.columns.len();
        indnkeyatts Int2 = index.columns.len();
        indisunique Bool = index.kind != IndexKind::Plain;
        indnullsnotdistinct Bool = false;
        indisprimary Bool = index.kind == IndexKind::Primary;
        indisexclusion Bool = false;
        indimmediate Bool = true;
        indisclustered Bool = false;
        indisvalid Bool = index.state == IndexState::Public;
        indcheckxmin Bool = false;
        indisready Bool = true;
        indislive Bool = true;
        indisreplident Bool = false;
        indkey Int2Vector = int2vector(attnums(table, index.columns.iter().map(|column| column.column)));
        indcollation OidVector = oidvector(key_types(table, index).map(|ty| type_facts::of(ty).map_or(0, |facts| facts.collation)));
        indclass OidVector = oidvector(key_types(table, index).map(operator_class));
        // 1: descending, 2: NULLs first; our descending keys have NULLs first.
        indoption Int2Vector = int2vector(index.columns.iter().map(|column| if column.descending { 3 } else { 0 }));
        indexprs PgNodeTree = NULL;
        indpred PgNodeTree = NULL;
    }
}

fn action(action: ForeignKeyAction) -> char {
    match action {
        ForeignKeyAction::Restrict => 'a',
        ForeignKeyAction::Cascade => 'c',
        ForeignKeyAction::SetNull => 'n',
    }
}

/// Equality operators of a foreign key's columns are not numbered; 98 is `text = text`, 96 `int4 = int4`: as many as there
/// are columns, because clients count them.
fn equality_operators(table: &TableDescriptor, constraint: &Constraint<'_>) -> Option<Datum> {
    let Constraint::Foreign(key) = constraint else { return None };
    let operators =
        key.columns.iter().map(|place| if table.columns[*place].ty.is_string() { 98 } else { 96 });
    Some(super::cell::oids(operators))
}

/// `conindid`: the index that a key or a foreign key relies on.
fn index_of(facts: &Facts, constraint: &Constraint<'_>) -> u32 {
    match constraint {
        Constraint::Key(index) => index.oid,
        Constraint::Check(_) => 0,
        Constraint::Foreign(key) => facts
            .catalog
            .table(key.table)
            .and_then(|parent| parent.index(key.index))
            .map_or(0, |index| index.oid),
    }
}

/// `confkey`.
fn referenced(facts: &Facts, constraint: &Constraint<'_>) -> Option<Datum> {
    let Constraint::Foreign(key) = constraint else { return None };
    let parent = facts.catalog.table(key.table)?;
    Some(int2s(attnums(parent, key.referenced.iter().copied())))
}

struct ConstraintRow<'a> {
    facts: &'a Facts,
    table: &'a TableDescriptor,
    constraint: Constraint<'a>,
}

fn constraint_rows(facts: &Facts, only: Option<u32>) -> impl Iterator<Item = ConstraintRow<'_>> {
    all_constraints(facts, only).into_iter().map(move |(table, constraint)| ConstraintRow {
        facts,
        table,
        constraint,
    })
}

impl ConstraintRow<'_> {
    fn foreign(&self) -> Option<&crate::catalog::ForeignKeyDescriptor> {
        match self.constraint {
            Constraint::Foreign(key) => Some(key),
            Constraint::Key(_) | Constraint::Check(_) => None,
        }
    }

    fn keys(&self) -> Datum {
        int2s(attnums(self.table, self.constraint.columns(self.table)))
    }

    fn expression(&self) -> Option<&String> {
        match self.constraint {
            Constraint::Check(check) => Some(&check.expression),
            Constraint::Key(_) | Constraint::Foreign(_) => None,
        }
    }
}

table! {
    PG_CONSTRAINT = 2606, PG_CATALOG "pg_constraint" Table by "conrelid";
    each |facts, only| constraint_rows(facts, only);
    row |row: ConstraintRow<'_>| {
        oid Oid = row.constraint.oid();
        conname Name = row.constraint.name();
        connamespace Oid = row.table.schema;
        contype Char = row.constraint.kind();
        condeferrable Bool = false;
        condeferred Bool = false;
        convalidated Bool = true;
        conrelid Oid = row.table.id;
        contypid Oid = 0;
        conindid Oid = index_of(row.facts, &row.constraint);
        conparentid Oid = 0;
        confrelid Oid = row.foreign().map_or(0, |key| key.table);
        confupdtype Char = row.foreign().map_or(' ', |key| action(key.on_update));
        confdeltype Char = row.foreign().map_or(' ', |key| action(key.on_delete));
        confmatchtype Char = row.foreign().map_or(' ', |_| 's');
        conislocal Bool = true;
        coninhcount Int4 = 0;
        connoinherit Bool = row.constraint.kind() != 'c';
        conkey INT2S = row.keys();
        confkey INT2S = referenced(row.facts, &row.constraint);
        conpfeqop OIDS = equality_operators(row.table, &row.constraint);
        conppeqop OIDS = equality_operators(row.table, &row.constraint);
        conffeqop OIDS = equality_operators(row.table, &row.constraint);
        confdelsetcols INT2S = NULL;
        conexclop OIDS = NULL;
        conbin PgNodeTree = row.expression();
    }
}

table! {
    PG_SEQUENCE = 2224, PG_CATALOG "pg_sequence" Table;
    each |facts, _only| relation::sequences(facts);
    row |sequence: &SequenceDescriptor| {
        seqrelid Oid = sequence.id;
        seqtypid Oid = sequence_type(sequence).oid();
        seqstart Int8 = sequence.start;
        seqincrement Int8 = sequence.increment;
        seqmax Int8 = sequence.max;
        seqmin Int8 = sequence.min;
        seqcache Int8 = 1;
        seqcycle Bool = sequence.cycle;
    }
}

/// The integer type that a sequence's bounds are of.
pub(super) fn sequence_type(sequence: &SequenceDescriptor) -> Type {
    let outermost = sequence.max.max(sequence.min.saturating_neg());
    match outermost {
        ..=32_768 if sequence.max == i64::from(i16::MAX) => Type::Int2,
        _ if sequence.max == i64::from(i32::MAX) => Type::Int4,
        _ => Type::Int8,
    }
}

/// (class, object, column) depends on (class, object, column), how.
struct Dependency {
    from: (u32, u32, i16),
    on: (u32, u32, i16),
    kind: char,
}

fn dependencies(facts: &Facts) -> Vec<Dependency> {
    let mut all = Vec::new();
    for sequence in relation::sequences(facts) {
        let Some((table, place)) = sequence.owned_by else { continue };
        let Some(number) = place_number(facts, table, place) else { continue };
        let is_identity =
            facts.catalog.table(table).is_some_and(|table| table.columns[place].identity.is_some());
        all.push(Dependency {
            from: (CLASS, sequence.id, 0),
            on: (CLASS, table, number),
            kind: if is_identity { 'i' } else { 'a' },
        });
        if !is_identity {
            all.push(Dependency {
                from: (ATTRDEF, default_oid(table, number), 0),
                on: (CLASS, sequence.id, 0),
                kind: 'n',
            });
        }
    }
    for (table, column) in defaults(facts, None) {
        let number = attnum(column.id);
        all.push(Dependency {
            from: (ATTRDEF, default_oid(table.id, number), 0),
            on: (CLASS, table.id, number),
            kind: 'a',
        });
    }
    for (table, constraint) in all_constraints(facts, None) {
        for number in attnums(table, constraint.columns(table)) {
            all.push(Dependency {
                from: (CONSTRAINT, constraint.oid(), 0),
                on: (CLASS, table.id, number),
                kind: 'a',
            });
        }
        match constraint {
            Constraint::Key(index) => {
                all.push(Dependency {
                    from: (CLASS, index.oid, 0),
                    on: (CONSTRAINT, constraint.oid(), 0),
                    kind: 'i',
                });
            }
            Constraint::Foreign(key) => {
                let on = (CLASS, index_of(facts, &constraint), 0);
                all.push(Dependency { from: (CONSTRAINT, key.oid, 0), on, kind: 'n' });
            }
            Constraint::Check(_) => {}
        }
    }
    for (table, index) in
        indexes(facts, None).into_iter().filter(|(_, index)| index.constraint.is_none())
    {
        for number in attnums(table, index.columns.iter().map(|column| column.column)) {
            all.push(Dependency {
                from: (CLASS, index.oid, 0),
                on: (CLASS, table.id, number),
                kind: 'a',
            });
        }
    }
    all
}

table! {
    PG_DEPEND = 2608, PG_CATALOG "pg_depend" Table;
    each |facts, _only| dependencies(facts);
    row |dependency: Dependency| {
        classid Oid = dependency.from.0;
        objid Oid = dependency.from.1;
        objsubid Int4 = dependency.from.2;
        refclassid Oid = dependency.on.0;
        refobjid Oid = dependency.on.1;
        refobjsubid Int4 = dependency.on.2;
        deptype Char = dependency.kind;
    }
}
