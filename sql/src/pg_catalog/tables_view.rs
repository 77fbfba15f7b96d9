//! Value: the views of `pg_catalog` that people read: tables, indexes, views, sequences by name.

use super::cell::NULL;
use super::definition::{self, Style};
use super::names::{role_name, schema_name};
use super::relation::{self, Rel};
use super::tables_relation::sequence_type;
use super::{VirtualTable, table};
use crate::catalog::{IndexDescriptor, SequenceDescriptor, TableDescriptor, ViewDescriptor};
use crate::exec::Facts;
use crate::types::Type::{Bool, Int8, Name, RegType, Text};

pub(super) static TABLES: &[&VirtualTable] = &[&PG_TABLES, &PG_INDEXES, &PG_VIEWS, &PG_SEQUENCES];

struct Named<'a, T> {
    facts: &'a Facts,
    schema: String,
    what: T,
}

fn named<T>(facts: &Facts, schema: u32, what: T) -> Named<'_, T> {
    Named { facts, schema: schema_name(facts, schema).unwrap_or_default(), what }
}

fn tables(facts: &Facts) -> Vec<Named<'_, Rel<'_>>> {
    let tables = relation::all(facts, None).into_iter().filter(|rel| rel.kind() == 'r');
    tables.map(|rel| named(facts, rel.schema(), rel)).collect()
}

table! {
    PG_TABLES = 12033, PG_CATALOG "pg_tables" View;
    each |facts, _only| tables(facts);
    row |table: Named<'_, Rel<'_>>| {
        schemaname Name = table.schema;
        tablename Name = table.what.name();
        tableowner Name = role_name(table.facts, table.what.owner());
        tablespace Name = NULL;
        hasindexes Bool = matches!(table.what, Rel::Table(table) if relation::indexes(table).next().is_some());
        hasrules Bool = false;
        hastriggers Bool = false;
        rowsecurity Bool = false;
    }
}

type Index<'a> = (&'a TableDescriptor, &'a IndexDescriptor);

fn indexes(facts: &Facts) -> Vec<Named<'_, Index<'_>>> {
    let tables = relation::tables(facts, None).into_iter();
    let pairs = tables.flat_map(|table| relation::indexes(table).map(move |index| (table, index)));
    pairs.map(|(table, index)| named(facts, table.schema, (table, index))).collect()
}

table! {
    PG_INDEXES = 12043, PG_CATALOG "pg_indexes" View;
    each |facts, _only| indexes(facts);
    row |index: Named<'_, Index<'_>>| {
        schemaname Name = index.schema;
        tablename Name = &index.what.0.name;
        indexname Name = &index.what.1.name;
        tablespace Name = NULL;
        indexdef Text = definition::index(index.facts, index.what.1.oid, Style::Qualified);
    }
}

table! {
    PG_VIEWS = 12028, PG_CATALOG "pg_views" View;
    each |facts, _only| relation::views(facts).map(|view| named(facts, view.schema, view));
    row |view: Named<'_, &ViewDescriptor>| {
        schemaname Name = view.schema;
        viewname Name = &view.what.name;
        viewowner Name = role_name(view.facts, view.what.owner);
        definition Text = &view.what.query;
    }
}

table! {
    PG_SEQUENCES = 12048, PG_CATALOG "pg_sequences" View;
    each |facts, _only| relation::sequences(facts).map(|sequence| named(facts, sequence.schema, sequence));
    row |sequence: Named<'_, &SequenceDescriptor>| {
        schemaname Name = sequence.schema;
        sequencename Name = &sequence.what.name;
        sequenceowner Name = role_name(sequence.facts, sequence.what.owner);
        data_type RegType = sequence_type(sequence.what).oid();
        start_value Int8 = sequence.what.start;
        min_value Int8 = sequence.what.min;
        max_value Int8 = sequence.what.max;
        increment_by Int8 = sequence.what.increment;
        cycle Bool = sequence.what.cycle;
        cache_size Int8 = 1;
        // The last value is not in the catalog but in the sequence's own key.
        last_value Int8 = NULL;
    }
}
