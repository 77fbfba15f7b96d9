//! Value: `pg_type` and what hangs on types: enums and ranges (there are none), operator classes and families, casts.

use super::cell::{ACLS, NULL};
use super::{VirtualTable, table, type_facts};
use crate::catalog::{FIRST_ROLE, PG_CATALOG};
use crate::types::Type::{self, Bool, Char, Int2, Int4, Name, Oid, PgNodeTree, RegProc, Text};
use crate::types::{CastContext, castable};

pub(super) static TABLES: &[&VirtualTable] = &[&PG_TYPE, &PG_OPCLASS, &PG_OPFAMILY, &PG_CAST];

table! {
    PG_TYPE = 1247, PG_CATALOG "pg_type" Table;
    each |_facts, _only| type_facts::all().filter_map(|ty| Some((ty, type_facts::of(ty)?)));
    row |(ty, facts): (Type, type_facts::TypeFacts)| {
        oid Oid = ty.oid();
        typname Name = ty.internal_name().into_owned();
        typnamespace Oid = PG_CATALOG;
        typowner Oid = FIRST_ROLE;
        typlen Int2 = ty.length();
        typbyval Bool = facts.by_value;
        typtype Char = if matches!(ty.category(), 'P' | 'X') { 'p' } else { 'b' };
        typcategory Char = ty.category();
        typispreferred Bool = ty.is_preferred();
        typisdefined Bool = true;
        typdelim Char = ',';
        typrelid Oid = 0;
        typsubscript RegProc = facts.subscript.1;
        typelem Oid = if ty == Type::Name { Type::Char.oid() } else { ty.element().map_or(0, Type::oid) };
        typarray Oid = ty.array().map_or(0, Type::oid);
        typinput RegProc = facts.procs[0].1;
        typoutput RegProc = facts.procs[1].1;
        typreceive RegProc = facts.procs[2].1;
        typsend RegProc = facts.procs[3].1;
        typmodin RegProc = facts.procs[4].1;
        typmodout RegProc = facts.procs[5].1;
        typanalyze RegProc = facts.analyze.1;
        typalign Char = facts.align;
        typstorage Char = facts.storage;
        typnotnull Bool = false;
        typbasetype Oid = 0;
        typtypmod Int4 = -1;
        typndims Int4 = 0;
        typcollation Oid = facts.collation;
        typdefaultbin PgNodeTree = NULL;
        typdefault Text = NULL;
        typacl ACLS = NULL;
    }
}

/// The B-tree operator classes: OID, name, family, type, default.
#[rustfmt::skip]
const CLASSES: &[(u32, &str, u32, u32, bool)] = &[
    (1978, "int4_ops", 1976, 23, true),
    (1979, "int2_ops", 1976, 21, true),
    (1981, "oid_ops", 1989, 26, true),
    (3122, "date_ops", 434, 1082, true),
    (3123, "float8_ops", 1970, 701, true),
    (3124, "int8_ops", 1976, 20, true),
    (3125, "numeric_ops", 1988, 1700, true),
    (3126, "text_ops", 1994, 25, true),
    (3127, "timestamptz_ops", 434, 1184, true),
    (3128, "timestamp_ops", 434, 1114, true),
    (4217, "text_pattern_ops", 2095, 25, false),
    (4218, "varchar_pattern_ops", 2095, 25, false),
    (4219, "bpchar_pattern_ops", 2097, 1042, false),
    (10000, "array_ops", 397, 2277, true),
    (10003, "bool_ops", 424, 16, true),
    (10004, "bpchar_ops", 426, 1042, true),
    (10006, "bytea_ops", 428, 17, true),
    (10007, "char_ops", 429, 18, true),
    (10012, "float4_ops", 1970, 700, true),
    (10022, "interval_ops", 1982, 1186, true),
    (10028, "name_ops", 1994, 19, true),
    (10032, "oidvector_ops", 1991, 30, true),
    (10034, "record_ops", 2994, 2249, true),
    (10038, "time_ops", 1996, 1083, true),
    (10044, "varchar_ops", 1994, 25, false),
    (10065, "uuid_ops", 2968, 2950, true),
    (10088, "jsonb_ops", 4033, 3802, true),
];

/// The operator class of an index column of this type, as `pg_index.indclass` names it.
pub(super) fn operator_class(ty: Type) -> u32 {
    let key = match ty {
        Type::Varchar => Type::Text,
        Type::Array(_) => Type::AnyArray,
        Type::Counter => Type::Int8,
        reg if reg.is_reg() => Type::Oid,
        other => other,
    };
    CLASSES.iter().find(|class| class.3 == key.oid() && class.4).map_or(0, |class| class.0)
}

table! {
    PG_OPCLASS = 2616, PG_CATALOG "pg_opclass" Table;
    each |_facts, _only| CLASSES;
    row |class: &(u32, &str, u32, u32, bool)| {
        oid Oid = class.0;
        opcmethod Oid = 403;
        opcname Name = class.1;
        opcnamespace Oid = PG_CATALOG;
        opcowner Oid = FIRST_ROLE;
        opcfamily Oid = class.2;
        opcintype Oid = class.3;
        opcdefault Bool = class.4;
        opckeytype Oid = if class.3 == Type::Name.oid() { Type::CString.oid() } else { 0 };
    }
}

/// The operator families: OID, name.
#[rustfmt::skip]
const FAMILIES: &[(u32, &str)] = &[
    (397, "array_ops"),
    (424, "bool_ops"),
    (426, "bpchar_ops"),
    (428, "bytea_ops"),
    (429, "char_ops"),
    (434, "datetime_ops"),
    (1970, "float_ops"),
    (1976, "integer_ops"),
    (1982, "interval_ops"),
    (1988, "numeric_ops"),
    (1989, "oid_ops"),
    (1991, "oidvector_ops"),
    (1994, "text_ops"),
    (1996, "time_ops"),
    (2095, "text_pattern_ops"),
    (2097, "bpchar_pattern_ops"),
    (2968, "uuid_ops"),
    (2994, "record_ops"),
    (4033, "jsonb_ops"),
];

table! {
    PG_OPFAMILY = 2753, PG_CATALOG "pg_opfamily" Table;
    each |_facts, _only| FAMILIES;
    row |family: &(u32, &str)| {
        oid Oid = family.0;
        opfmethod Oid = 403;
        opfname Name = family.1;
        opfnamespace Oid = PG_CATALOG;
        opfowner Oid = FIRST_ROLE;
    }
}

/// Casts between scalars, by the contexts in which they are made. They are numbered in this order: nothing refers to them.
fn casts() -> Vec<(u32, Type, Type, char)> {
    let scalars = || type_facts::all().filter(|ty| !matches!(ty.category(), 'P' | 'X' | 'A'));
    let mut all = Vec::new();
    for (from, to) in scalars()
        .flat_map(|from| scalars().map(move |to| (from, to)))
        .filter(|(from, to)| from != to)
    {
        let context = [
            (CastContext::Implicit, 'i'),
            (CastContext::Assignment, 'a'),
            (CastContext::Explicit, 'e'),
        ]
        .into_iter()
        .find(|(context, _)| castable(from, to, *context));
        // Conversions through text have no row in PostgreSQL either.
        let through_text = from.is_string() != to.is_string()
            && !matches!(context, Some((CastContext::Implicit, _)));
        if let Some((_, letter)) = context.filter(|_| !through_text) {
            let number = 10_100 + u32::try_from(all.len()).unwrap_or(u32::MAX);
            all.push((number, from, to, letter));
        }
    }
    all
}

table! {
    PG_CAST = 2605, PG_CATALOG "pg_cast" Table;
    each |_facts, _only| casts();
    row |(number, from, to, context): (u32, Type, Type, char)| {
        oid Oid = number;
        castsource Oid = from.oid();
        casttarget Oid = to.oid();
        castfunc Oid = 0;
        castcontext Char = context;
        castmethod Char = 'b';
    }
}
