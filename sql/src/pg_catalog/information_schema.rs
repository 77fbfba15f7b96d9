//! Value: `information_schema`, the standard's view of the catalog. Names, words and columns are PostgreSQL 15's.

use super::cell::{NULL, yes_no};
use super::definition::{self, Constraint, all_constraints};
use super::names::{role_name, schema_name, shown_default};
use super::relation::{self, Attribute, Rel};
use super::tables_relation::sequence_type;
use super::{VirtualTable, procedure, table};
use crate::catalog::{
    ColumnDescriptor, ForeignKeyDescriptor, SequenceDescriptor, TableDescriptor, ViewDescriptor,
};
use crate::exec::Facts;
use crate::types::Type::{self, Int4, Name, TimestampTz, Varchar};
use crate::types::registry::Volatility;
use crate::types::ty::numeric_precision_scale;

pub(super) static TABLES: &[&VirtualTable] = &[
    &SCHEMATA,
    &TABLES_VIEW,
    &COLUMNS,
    &TABLE_CONSTRAINTS,
    &CHECK_CONSTRAINTS,
    &KEY_COLUMN_USAGE,
    &REFERENTIAL_CONSTRAINTS,
    &CONSTRAINT_COLUMN_USAGE,
    &VIEWS,
    &SEQUENCES,
    &ROUTINES,
];

/// Something with what is needed to name it.
struct Item<'a, T> {
    facts: &'a Facts,
    what: T,
}

impl<T> Item<'_, T> {
    fn database(&self) -> String {
        self.facts.database_name.to_string()
    }

    fn schema(&self, oid: u32) -> String {
        schema_name(self.facts, oid).unwrap_or_default()
    }
}

/// Tables and views.
fn tables(facts: &Facts) -> Vec<Item<'_, Rel<'_>>> {
    let shown =
        relation::all(facts, None).into_iter().filter(|rel| matches!(rel.kind(), 'r' | 'v'));
    shown.map(|what| Item { facts, what }).collect()
}

table! {
    SCHEMATA = 13382, INFORMATION_SCHEMA "schemata" View;
    each |facts, _only| super::tables_cluster::schemas(facts).into_iter().map(|(_, name)| Item { facts, what: name });
    row |schema: Item<'_, String>| {
        catalog_name Name = schema.database();
        schema_name Name = schema.what;
        schema_owner Name = role_name(schema.facts, crate::catalog::FIRST_ROLE);
        default_character_set_catalog Name = NULL;
        default_character_set_schema Name = NULL;
        default_character_set_name Name = NULL;
        sql_path Varchar = NULL;
    }
}

table! {
    TABLES_VIEW = 13425, INFORMATION_SCHEMA "tables" View;
    each |facts, _only| tables(facts);
    row |table: Item<'_, Rel<'_>>| {
        table_catalog Name = table.database();
        table_schema Name = table.schema(table.what.schema());
        table_name Name = table.what.name();
        table_type Varchar = if table.what.kind() == 'v' { "VIEW" } else { "BASE TABLE" };
        self_referencing_column_name Name = NULL;
        reference_generation Varchar = NULL;
        user_defined_type_catalog Name = NULL;
        user_defined_type_schema Name = NULL;
        user_defined_type_name Name = NULL;
        is_insertable_into Varchar = yes_no(matches!(table.what, Rel::Table(_)));
        is_typed Varchar = "NO";
        commit_action Varchar = NULL;
    }
}

/// Columns of tables and views with their relations.
fn columns(facts: &Facts) -> Vec<Item<'_, (Rel<'_>, Attribute)>> {
    let mut all = Vec::new();
    for table in tables(facts) {
        let attributes = table.what.attributes().into_iter().filter(|attribute| !attribute.dropped);
        all.extend(attributes.map(|attribute| Item { facts, what: (table.what, attribute) }));
    }
    all
}

impl Item<'_, (Rel<'_>, Attribute)> {
    fn ty(&self) -> Type {
        self.what.1.ty
    }

    fn table_column(&self) -> Option<&ColumnDescriptor> {
        let Rel::Table(table) = self.what.0 else { return None };
        table.columns.iter().find(|column| relation::attnum(column.id) == self.what.1.number)
    }

    /// What an identity column counts by.
    fn identity(&self) -> Option<&SequenceDescriptor> {
        let column = self.table_column().filter(|column| column.identity.is_some())?;
        let table = self.what.0.oid();
        relation::sequences(self.facts).find(|sequence| {
            sequence.owned_by.is_some_and(|(owner, place)| {
                owner == table
                    && super::functions_catalog::place_number(self.facts, owner, place)
                        == Some(relation::attnum(column.id))
            })
        })
    }

    fn character_length(&self) -> Option<i32> {
        let typmod = self.what.1.typmod;
        (matches!(self.ty(), Type::Varchar | Type::BpChar) && typmod > 4).then(|| typmod - 4)
    }

    fn octet_length(&self) -> Option<i32> {
        if !self.ty().is_string() || self.ty() == Type::Name {
            return None;
        }
        // Four bytes for a character of UTF-8, at most a gigabyte.
        Some(self.character_length().map_or(1 << 30, |length| length.saturating_mul(4)))
    }

    fn precision(&self) -> Option<i32> {
        match self.ty().base() {
            Type::Int2 => Some(16),
            Type::Int4 => Some(32),
            Type::Int8 => Some(64),
            Type::Float4 => Some(24),
            Type::Float8 => Some(53),
            Type::Numeric => {
                numeric_precision_scale(self.what.1.typmod).map(|(precision, _)| precision)
            }
            _ => None,
        }
    }

    fn radix(&self) -> Option<i32> {
        match self.ty().base() {
            Type::Int2 | Type::Int4 | Type::Int8 | Type::Float4 | Type::Float8 => Some(2),
            Type::Numeric => Some(10),
            _ => None,
        }
    }

    fn scale(&self) -> Option<i32> {
        match self.ty().base() {
            Type::Int2 | Type::Int4 | Type::Int8 => Some(0),
            Type::Numeric => numeric_precision_scale(self.what.1.typmod).map(|(_, scale)| scale),
            _ => None,
        }
    }

    fn datetime_precision(&self) -> Option<i32> {
        match self.ty() {
            Type::Date => Some(0),
            Type::Time | Type::Timestamp | Type::TimestampTz if self.what.1.typmod >= 0 => {
                Some(self.what.1.typmod)
            }
            Type::Time | Type::Timestamp | Type::TimestampTz | Type::Interval => Some(6),
            _ => None,
        }
    }

    fn collation(&self) -> Option<&'static str> {
        (super::type_facts::of(self.ty().base())?.collation == 950).then_some("C")
    }
}

table! {
    COLUMNS = 13295, INFORMATION_SCHEMA "columns" View;
    each |facts, _only| columns(facts);
    row |column: Item<'_, (Rel<'_>, Attribute)>| {
        table_catalog Name = column.database();
        table_schema Name = column.schema(column.what.0.schema());
        table_name Name = column.what.0.name();
        column_name Name = &column.what.1.name;
        ordinal_position Int4 = column.what.1.number;
        column_default Varchar = column.table_column().filter(|column| column.identity.is_none()).and_then(|found| found.default.as_ref()).map(|text| shown_default(column.facts, text));
        is_nullable Varchar = yes_no(!column.what.1.not_null);
        data_type Varchar = if matches!(column.ty(), Type::Array(_)) { "ARRAY".to_string() } else { column.ty().base().name().into_owned() };
        character_maximum_length Int4 = column.character_length();
        character_octet_length Int4 = column.octet_length();
        numeric_precision Int4 = column.precision();
        numeric_precision_radix Int4 = column.radix();
        numeric_scale Int4 = column.scale();
        datetime_precision Int4 = column.datetime_precision();
        interval_type Varchar = NULL;
        interval_precision Int4 = NULL;
        character_set_catalog Name = NULL;
        character_set_schema Name = NULL;
        character_set_name Name = NULL;
        collation_catalog Name = column.collation().map(|_| column.database());
        collation_schema Name = column.collation().map(|_| "pg_catalog");
        collation_name Name = column.collation();
        domain_catalog Name = NULL;
        domain_schema Name = NULL;
        domain_name Name = NULL;
        udt_catalog Name = column.database();
        udt_schema Name = "pg_catalog";
        udt_name Name = column.ty().base().internal_name().into_owned();
        scope_catalog Name = NULL;
        scope_schema Name = NULL;
        scope_name Name = NULL;
        maximum_cardinality Int4 = NULL;
        dtd_identifier Name = column.what.1.number.to_string();
        is_self_referencing Varchar = "NO";
        is_identity Varchar = yes_no(!column.what.1.identity.is_empty());
        identity_generation Varchar = match column.what.1.identity { "a" => Some("ALWAYS"), "d" => Some("BY DEFAULT"), _ => None };
        identity_start Varchar = column.identity().map(|sequence| sequence.start.to_string());
        identity_increment Varchar = column.identity().map(|sequence| sequence.increment.to_string());
        identity_maximum Varchar = column.identity().map(|sequence| sequence.max.to_string());
        identity_minimum Varchar = column.identity().map(|sequence| sequence.min.to_string());
        identity_cycle Varchar = yes_no(column.identity().is_some_and(|sequence| sequence.cycle));
        is_generated Varchar = "NEVER";
        generation_expression Varchar = NULL;
        is_updatable Varchar = yes_no(matches!(column.what.0, Rel::Table(_)));
    }
}

type TableConstraint<'a> = (&'a TableDescriptor, Constraint<'a>);

fn constraints(facts: &Facts) -> impl Iterator<Item = Item<'_, TableConstraint<'_>>> {
    all_constraints(facts, None).into_iter().map(move |what| Item { facts, what })
}

fn keys(facts: &Facts) -> impl Iterator<Item = Item<'_, TableConstraint<'_>>> {
    constraints(facts).filter(|item| item.what.1.kind() != 'c')
}

impl Item<'_, TableConstraint<'_>> {
    fn schema_text(&self) -> String {
        self.schema(self.what.0.schema)
    }

    fn kind_text(&self) -> &'static str {
        match self.what.1.kind() {
            'p' => "PRIMARY KEY",
            'u' => "UNIQUE",
            'f' => "FOREIGN KEY",
            _ => "CHECK",
        }
    }
}

table! {
    TABLE_CONSTRAINTS = 13411, INFORMATION_SCHEMA "table_constraints" View;
    each |facts, _only| constraints(facts);
    row |constraint: Item<'_, TableConstraint<'_>>| {
        constraint_catalog Name = constraint.database();
        constraint_schema Name = constraint.schema_text();
        constraint_name Name = constraint.what.1.name();
        table_catalog Name = constraint.database();
        table_schema Name = constraint.schema_text();
        table_name Name = &constraint.what.0.name;
        constraint_type Varchar = constraint.kind_text();
        is_deferrable Varchar = "NO";
        initially_deferred Varchar = "NO";
        enforced Varchar = "YES";
        nulls_distinct Varchar = (constraint.what.1.kind() == 'u').then_some("YES");
    }
}

table! {
    CHECK_CONSTRAINTS = 13260, INFORMATION_SCHEMA "check_constraints" View;
    each |facts, _only| constraints(facts).filter(|item| item.what.1.kind() == 'c');
    row |constraint: Item<'_, TableConstraint<'_>>| {
        constraint_catalog Name = constraint.database();
        constraint_schema Name = constraint.schema_text();
        constraint_name Name = constraint.what.1.name();
        check_clause Varchar = match constraint.what.1 { Constraint::Check(check) => Some(&check.expression), Constraint::Key(_) | Constraint::Foreign(_) => None };
    }
}

type KeyColumn<'a> = (TableConstraint<'a>, usize, &'a ColumnDescriptor);

/// Columns of keys and foreign keys, counted from 0.
fn key_columns(facts: &Facts) -> Vec<Item<'_, KeyColumn<'_>>> {
    let mut all = Vec::new();
    for Item { what: (table, constraint), .. } in keys(facts) {
        for (at, place) in constraint.columns(table).into_iter().enumerate() {
            all.push(Item { facts, what: ((table, constraint), at, &table.columns[place]) });
        }
    }
    all
}

/// The place of a foreign key's column in the key that it references, counted from 1.
fn place_in_referenced(item: &Item<'_, KeyColumn<'_>>) -> Option<i32> {
    let ((_, Constraint::Foreign(key)), at, _) = item.what else { return None };
    let parent = item.facts.catalog.table(key.table)?;
    let place = parent
        .index(key.index)?
        .columns
        .iter()
        .position(|column| Some(&column.column) == key.referenced.get(at))?;
    i32::try_from(place + 1).ok()
}

table! {
    KEY_COLUMN_USAGE = 13329, INFORMATION_SCHEMA "key_column_usage" View;
    each |facts, _only| key_columns(facts);
    row |column: Item<'_, KeyColumn<'_>>| {
        constraint_catalog Name = column.database();
        constraint_schema Name = column.schema(column.what.0.0.schema);
        constraint_name Name = column.what.0.1.name();
        table_catalog Name = column.database();
        table_schema Name = column.schema(column.what.0.0.schema);
        table_name Name = &column.what.0.0.name;
        column_name Name = &column.what.2.name;
        ordinal_position Int4 = column.what.1 + 1;
        position_in_unique_constraint Int4 = place_in_referenced(&column);
    }
}

type Reference<'a> = (&'a TableDescriptor, &'a ForeignKeyDescriptor);

fn references(facts: &Facts) -> Vec<Item<'_, Reference<'_>>> {
    let tables = relation::tables(facts, None).into_iter();
    tables
        .flat_map(|table| {
            table.foreign_keys.iter().map(move |key| Item { facts, what: (table, key) })
        })
        .collect()
}

impl Item<'_, Reference<'_>> {
    fn parent(&self) -> Option<&TableDescriptor> {
        self.facts.catalog.table(self.what.1.table).map(AsRef::as_ref)
    }
}

table! {
    REFERENTIAL_CONSTRAINTS = 13339, INFORMATION_SCHEMA "referential_constraints" View;
    each |facts, _only| references(facts);
    row |reference: Item<'_, Reference<'_>>| {
        constraint_catalog Name = reference.database();
        constraint_schema Name = reference.schema(reference.what.0.schema);
        constraint_name Name = &reference.what.1.name;
        unique_constraint_catalog Name = reference.database();
        unique_constraint_schema Name = reference.parent().map(|parent| reference.schema(parent.schema));
        unique_constraint_name Name = reference.parent().and_then(|parent| parent.index(reference.what.1.index)).map(|index| &*index.name);
        match_option Varchar = "NONE";
        update_rule Varchar = definition::action_rule(reference.what.1.on_update);
        delete_rule Varchar = definition::action_rule(reference.what.1.on_delete);
    }
}

/// Columns that constraints use: of foreign keys those that are referenced.
fn used_columns(facts: &Facts) -> Vec<Item<'_, (TableConstraint<'_>, &TableDescriptor, usize)>> {
    let mut all = Vec::new();
    for Item { what: (table, constraint), .. } in constraints(facts) {
        let (of, places) = match constraint {
            Constraint::Foreign(key) => match facts.catalog.table(key.table) {
                Some(parent) => (parent.as_ref(), key.referenced.clone()),
                None => continue,
            },
            Constraint::Key(_) | Constraint::Check(_) => (table, constraint.columns(table)),
        };
        all.extend(
            places.into_iter().map(|place| Item { facts, what: ((table, constraint), of, place) }),
        );
    }
    all
}

table! {
    CONSTRAINT_COLUMN_USAGE = 13300, INFORMATION_SCHEMA "constraint_column_usage" View;
    each |facts, _only| used_columns(facts);
    row |used: Item<'_, (TableConstraint<'_>, &TableDescriptor, usize)>| {
        table_catalog Name = used.database();
        table_schema Name = used.schema(used.what.1.schema);
        table_name Name = &used.what.1.name;
        column_name Name = &used.what.1.columns[used.what.2].name;
        constraint_catalog Name = used.database();
        constraint_schema Name = used.schema(used.what.0.0.schema);
        constraint_name Name = used.what.0.1.name();
    }
}

table! {
    VIEWS = 13483, INFORMATION_SCHEMA "views" View;
    each |facts, _only| relation::views(facts).map(move |what| Item { facts, what });
    row |view: Item<'_, &ViewDescriptor>| {
        table_catalog Name = view.database();
        table_schema Name = view.schema(view.what.schema);
        table_name Name = &view.what.name;
        view_definition Varchar = &view.what.query;
        check_option Varchar = "NONE";
        is_updatable Varchar = "NO";
        is_insertable_into Varchar = "NO";
        is_trigger_updatable Varchar = "NO";
        is_trigger_deletable Varchar = "NO";
        is_trigger_insertable_into Varchar = "NO";
    }
}

/// Sequences but those of identity columns.
fn sequences(facts: &Facts) -> impl Iterator<Item = Item<'_, &SequenceDescriptor>> {
    let is_identity = move |sequence: &&SequenceDescriptor| {
        let column = sequence
            .owned_by
            .and_then(|(table, place)| facts.catalog.table(table)?.columns.get(place));
        column.is_some_and(|column| column.identity.is_some())
    };
    relation::sequences(facts)
        .filter(move |sequence| !is_identity(sequence))
        .map(move |what| Item { facts, what })
}

fn sequence_bits(sequence: &SequenceDescriptor) -> i32 {
    match sequence_type(sequence) {
        Type::Int2 => 16,
        Type::Int4 => 32,
        _ => 64,
    }
}

table! {
    SEQUENCES = 13386, INFORMATION_SCHEMA "sequences" View;
    each |facts, _only| sequences(facts);
    row |sequence: Item<'_, &SequenceDescriptor>| {
        sequence_catalog Name = sequence.database();
        sequence_schema Name = sequence.schema(sequence.what.schema);
        sequence_name Name = &sequence.what.name;
        data_type Varchar = sequence_type(sequence.what).name().into_owned();
        numeric_precision Int4 = sequence_bits(sequence.what);
        numeric_precision_radix Int4 = 2;
        numeric_scale Int4 = 0;
        start_value Varchar = sequence.what.start.to_string();
        minimum_value Varchar = sequence.what.min.to_string();
        maximum_value Varchar = sequence.what.max.to_string();
        increment Varchar = sequence.what.increment.to_string();
        cycle_option Varchar = yes_no(sequence.what.cycle);
    }
}

table! {
    ROUTINES = 13377, INFORMATION_SCHEMA "routines" View;
    each |facts, _only| procedure::all().iter().map(move |what| Item { facts, what });
    row |routine: Item<'_, &procedure::Procedure>| {
        specific_catalog Name = routine.database();
        specific_schema Name = "pg_catalog";
        specific_name Name = format!("{}_{}", routine.what.name, routine.what.oid);
        routine_catalog Name = routine.database();
        routine_schema Name = "pg_catalog";
        routine_name Name = routine.what.name;
        routine_type Varchar = (routine.what.kind == procedure::ProcedureKind::Function).then_some("FUNCTION");
        module_catalog Name = NULL;
        module_schema Name = NULL;
        module_name Name = NULL;
        udt_catalog Name = NULL;
        udt_schema Name = NULL;
        udt_name Name = NULL;
        data_type Varchar = if matches!(routine.what.result, Type::Array(_)) { "ARRAY".to_string() } else { routine.what.result.name().into_owned() };
        character_maximum_length Int4 = NULL;
        character_octet_length Int4 = NULL;
        character_set_catalog Name = NULL;
        character_set_schema Name = NULL;
        character_set_name Name = NULL;
        collation_catalog Name = NULL;
        collation_schema Name = NULL;
        collation_name Name = NULL;
        numeric_precision Int4 = NULL;
        numeric_precision_radix Int4 = NULL;
        numeric_scale Int4 = NULL;
        datetime_precision Int4 = NULL;
        interval_type Varchar = NULL;
        interval_precision Int4 = NULL;
        type_udt_catalog Name = routine.database();
        type_udt_schema Name = "pg_catalog";
        type_udt_name Name = routine.what.result.internal_name().into_owned();
        scope_catalog Name = NULL;
        scope_schema Name = NULL;
        scope_name Name = NULL;
        maximum_cardinality Int4 = NULL;
        dtd_identifier Name = "0";
        routine_body Varchar = "EXTERNAL";
        routine_definition Varchar = NULL;
        external_name Varchar = NULL;
        external_language Varchar = "INTERNAL";
        parameter_style Varchar = "GENERAL";
        is_deterministic Varchar = yes_no(routine.what.volatility == Volatility::Immutable);
        sql_data_access Varchar = "MODIFIES";
        is_null_call Varchar = yes_no(routine.what.strict);
        sql_path Varchar = NULL;
        schema_level_routine Varchar = "YES";
        max_dynamic_result_sets Int4 = 0;
        is_user_defined_cast Varchar = NULL;
        is_implicitly_invocable Varchar = NULL;
        security_type Varchar = "INVOKER";
        to_sql_specific_catalog Name = NULL;
        to_sql_specific_schema Name = NULL;
        to_sql_specific_name Name = NULL;
        as_locator Varchar = "NO";
        created TimestampTz = NULL;
        last_altered TimestampTz = NULL;
        new_savepoint_level Varchar = NULL;
        is_udt_dependent Varchar = "NO";
        result_cast_from_data_type Varchar = NULL;
        result_cast_as_locator Varchar = NULL;
        result_cast_char_max_length Int4 = NULL;
        result_cast_char_octet_length Int4 = NULL;
        result_cast_char_set_catalog Name = NULL;
        result_cast_char_set_schema Name = NULL;
        result_cast_char_set_name Name = NULL;
        result_cast_collation_catalog Name = NULL;
        result_cast_collation_schema Name = NULL;
        result_cast_collation_name Name = NULL;
        result_cast_numeric_precision Int4 = NULL;
        result_cast_numeric_precision_radix Int4 = NULL;
        result_cast_numeric_scale Int4 = NULL;
        result_cast_datetime_precision Int4 = NULL;
        result_cast_interval_type Varchar = NULL;
        result_cast_interval_precision Int4 = NULL;
        result_cast_type_udt_catalog Name = NULL;
        result_cast_type_udt_schema Name = NULL;
        result_cast_type_udt_name Name = NULL;
        result_cast_scope_catalog Name = NULL;
        result_cast_scope_schema Name = NULL;
        result_cast_scope_name Name = NULL;
        result_cast_maximum_cardinality Int4 = NULL;
        result_cast_dtd_identifier Name = NULL;
    }
}
