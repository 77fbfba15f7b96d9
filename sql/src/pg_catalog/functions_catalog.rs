//! Value: functions over the catalog: what an OID is called, whether its name does without a schema, how it is defined.
//!
//! Of what does not exist PostgreSQL answers NULL here (a client may ask about a relation that has just been dropped).

use super::definition::{self, Style};
use super::functions::{Answer, SessionFunction, int, oid, stable, text};
use super::names::{self, attribute_named, is_visible, qualified_name, relation_named};
use super::{procedure, relation};
use crate::error::SqlError;
use crate::exec::Facts;
use crate::types::Datum;
use crate::types::Type::{
    self, Bool, Int2, Int4, Int8, Name, Oid, PgNodeTree, RegClass, RegNamespace, RegProc,
    RegProcedure, RegRole, RegType, Text,
};

pub(super) static TABLE: &[SessionFunction] = &[
    stable("format_type", &[Oid, Int4], Text, format_type).called_on_null(),
    stable("pg_get_expr", &[PgNodeTree, Oid, Bool], Text, expression).with_optional(1),
    stable("pg_get_expr", &[Text, Oid, Bool], Text, expression).with_optional(1),
    stable("pg_get_indexdef", &[Oid], Text, |facts, args| {
        or_null(definition::index(facts, oid(args, 0)?, Style::Qualified))
    }),
    stable("pg_get_indexdef", &[Oid, Int4, Bool], Text, index_definition),
    stable("pg_get_constraintdef", &[Oid, Bool], Text, |facts, args| {
        or_null(definition::constraint(facts, oid(args, 0)?, style(args, 1)))
    })
    .with_optional(1),
    stable("pg_get_viewdef", &[Oid, Bool], Text, |facts, args| {
        view_definition(facts, oid(args, 0)?)
    })
    .with_optional(1),
    stable("pg_get_viewdef", &[Oid, Int4], Text, |facts, args| {
        view_definition(facts, oid(args, 0)?)
    }),
    stable("pg_get_viewdef", &[Text, Bool], Text, |facts, args| {
        view_definition(facts, relation_named(facts, text(args, 0)?)?)
    })
    .with_optional(1),
    stable("pg_get_userbyid", &[Oid], Name, |facts, args| {
        Ok(Datum::text(names::role_name(facts, oid(args, 0)?)))
    }),
    stable("pg_get_serial_sequence", &[Text, Text], Text, serial_sequence),
    stable("pg_get_partkeydef", &[Oid], Text, never),
    stable("pg_get_partition_constraintdef", &[Oid], Text, never),
    stable("pg_get_ruledef", &[Oid, Bool], Text, never).with_optional(1),
    stable("pg_get_triggerdef", &[Oid, Bool], Text, never).with_optional(1),
    stable("pg_get_statisticsobjdef", &[Oid], Text, never),
    stable("pg_get_statisticsobjdef_columns", &[Oid], Text, never),
    stable("pg_get_functiondef", &[Oid], Text, |_, args| match procedure::by_oid(oid(args, 0)?) {
        Some(found) => Err(SqlError::unsupported(format!(
            "\"{}\" is built in and has no definition",
            found.name
        ))),
        None => Ok(Datum::Null),
    }),
    stable("pg_get_function_sqlbody", &[Oid], Text, never),
    stable("pg_get_function_result", &[Oid], Text, |_, args| {
        or_null(procedure::by_oid(oid(args, 0)?).map(procedure::Procedure::result_text))
    }),
    stable("pg_get_function_arguments", &[Oid], Text, function_arguments),
    stable("pg_get_function_identity_arguments", &[Oid], Text, function_arguments),
    stable("pg_table_is_visible", &[Oid], Bool, |facts, args| {
        or_null_bool(is_visible(facts, oid(args, 0)?))
    }),
    stable("pg_type_is_visible", &[Oid], Bool, |_, args| {
        or_null_bool(Type::from_oid(oid(args, 0)?).map(|_| true))
    }),
    stable("pg_function_is_visible", &[Oid], Bool, |_, args| {
        or_null_bool(procedure::by_oid(oid(args, 0)?).map(|_| true))
    }),
    stable("pg_collation_is_visible", &[Oid], Bool, |_, args| {
        or_null_bool(built_in(oid(args, 0)?))
    }),
    stable("pg_opclass_is_visible", &[Oid], Bool, |_, args| or_null_bool(built_in(oid(args, 0)?))),
    stable("pg_opfamily_is_visible", &[Oid], Bool, |_, args| or_null_bool(built_in(oid(args, 0)?))),
    stable("pg_operator_is_visible", &[Oid], Bool, |_, args| or_null_bool(built_in(oid(args, 0)?))),
    stable("pg_conversion_is_visible", &[Oid], Bool, never),
    stable("pg_statistics_obj_is_visible", &[Oid], Bool, never),
    stable("pg_ts_config_is_visible", &[Oid], Bool, never),
    stable("pg_ts_dict_is_visible", &[Oid], Bool, never),
    stable("pg_ts_parser_is_visible", &[Oid], Bool, never),
    stable("pg_ts_template_is_visible", &[Oid], Bool, never),
    // There is no COMMENT, hence no description.
    stable("obj_description", &[Oid, Name], Text, never).with_optional(1),
    stable("col_description", &[Oid, Int4], Text, never),
    stable("shobj_description", &[Oid, Name], Text, never),
    // Sizes are the ranges' matter and are not told here: NULL is PostgreSQL's answer for what it cannot measure.
    stable("pg_table_size", &[RegClass], Int8, never),
    stable("pg_relation_size", &[RegClass, Text], Int8, never).with_optional(1),
    stable("pg_total_relation_size", &[RegClass], Int8, never),
    stable("pg_indexes_size", &[RegClass], Int8, never),
    stable("pg_database_size", &[Oid], Int8, never),
    stable("pg_database_size", &[Name], Int8, never),
    stable("pg_tablespace_size", &[Oid], Int8, never),
    stable("pg_tablespace_location", &[Oid], Text, |_, _| Ok(Datum::text(""))),
    stable("pg_relation_is_publishable", &[RegClass], Bool, |facts, args| {
        let found = relation::one(facts, oid(args, 0)?);
        or_null_bool(found.map(|found| matches!(found, relation::Rel::Table(_))))
    }),
    stable("pg_relation_is_updatable", &[RegClass, Bool], Int4, |facts, args| {
        // INSERT, UPDATE and DELETE, as bits 3, 2 and 4.
        let is_table = matches!(relation::one(facts, oid(args, 0)?), Some(relation::Rel::Table(_)));
        Ok(Datum::Int4(if is_table { 28 } else { 0 }))
    }),
    stable("pg_column_is_updatable", &[RegClass, Int2, Bool], Bool, |facts, args| {
        Ok(Datum::Bool(matches!(
            relation::one(facts, oid(args, 0)?),
            Some(relation::Rel::Table(_))
        )))
    }),
    // A table that is no partition is its own only ancestor.
    stable("pg_partition_ancestors", &[RegClass], RegClass, |_, args| Ok(args[0].clone())),
    stable("pg_partition_root", &[RegClass], RegClass, never),
    stable("to_regclass", &[Text], RegClass, |facts, args| lookup(facts, RegClass, args)),
    stable("to_regtype", &[Text], RegType, |facts, args| lookup(facts, RegType, args)),
    stable("to_regproc", &[Text], RegProc, |facts, args| lookup(facts, RegProc, args)),
    stable("to_regprocedure", &[Text], RegProcedure, |facts, args| {
        lookup(facts, RegProcedure, args)
    }),
    stable("to_regnamespace", &[Text], RegNamespace, |facts, args| {
        lookup(facts, RegNamespace, args)
    }),
    stable("to_regrole", &[Text], RegRole, |facts, args| lookup(facts, RegRole, args)),
];

fn never(_: &Facts, _: &[Datum]) -> Answer {
    Ok(Datum::Null)
}

fn or_null(text: Option<String>) -> Answer {
    Ok(text.map_or(Datum::Null, Datum::text))
}

fn or_null_bool(truth: Option<bool>) -> Answer {
    Ok(truth.map_or(Datum::Null, Datum::Bool))
}

/// What is not a relation, a type or a function is ours if its OID is below the users'.
fn built_in(oid: u32) -> Option<bool> {
    (oid != 0 && oid < crate::catalog::FIRST_USER_OID).then_some(true)
}

fn style(args: &[Datum], at: usize) -> Style {
    if args.get(at).is_some_and(Datum::is_true) { Style::Pretty } else { Style::Qualified }
}

fn format_type(_: &Facts, args: &[Datum]) -> Answer {
    if args[0].is_null() {
        return Ok(Datum::Null);
    }
    let oid = oid(args, 0)?;
    Ok(Datum::text(match (Type::from_oid(oid), args[1].as_i64()) {
        (Some(ty), Some(typmod)) => ty.format(i32::try_from(typmod).unwrap_or(-1)),
        (Some(ty), None) => ty.name().into_owned(),
        (None, _) if oid == 0 => "-".to_string(),
        (None, _) => "???".to_string(),
    }))
}

/// Stored expressions are SQL text already.
fn expression(_: &Facts, args: &[Datum]) -> Answer {
    Ok(args[0].clone())
}

fn index_definition(facts: &Facts, args: &[Datum]) -> Answer {
    let index = oid(args, 0)?;
    match int(args, 1)? {
        0 => or_null(definition::index(facts, index, style(args, 2))),
        column => or_null(definition::index_column(facts, index, column)),
    }
}

fn view_definition(facts: &Facts, oid: u32) -> Answer {
    let view = match relation::one(facts, oid) {
        Some(relation::Rel::View(view)) => view,
        _ => return Ok(Datum::Null),
    };
    Ok(Datum::text(format!(" {};", view.query.trim().trim_end_matches(';').trim_end())))
}

fn serial_sequence(facts: &Facts, args: &[Datum]) -> Answer {
    let table = relation_named(facts, text(args, 0)?)?;
    let attribute = attribute_named(facts, table, text(args, 1)?)?;
    let owned = relation::sequences(facts).find(|sequence| {
        sequence.owned_by.is_some_and(|(owner, place)| {
            owner == table && place_number(facts, owner, place) == Some(attribute.number)
        })
    });
    or_null(owned.and_then(|sequence| qualified_name(facts, sequence.id)))
}

/// `attnum` of the column at a place of a table.
pub(super) fn place_number(facts: &Facts, table: u32, place: usize) -> Option<i16> {
    facts.catalog.table(table)?.columns.get(place).map(|column| relation::attnum(column.id))
}

fn function_arguments(_: &Facts, args: &[Datum]) -> Answer {
    or_null(procedure::by_oid(oid(args, 0)?).map(procedure::Procedure::arguments_text))
}

fn lookup(facts: &Facts, ty: Type, args: &[Datum]) -> Answer {
    // What `::regclass` fails for is NULL here.
    Ok(names::oid_of(facts, ty, text(args, 0)?).ok().flatten().map_or(Datum::Null, Datum::Oid))
}
