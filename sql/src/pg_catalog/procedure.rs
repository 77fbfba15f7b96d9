//! Value: the list of functions that `pg_proc` shows: those over values, over the session and the catalog, aggregates, functions
//! that give rows, and the conversions that `pg_type` refers to.
//!
//! Functions are found by name, never by OID, so OIDs serve clients only: the conversions have PostgreSQL's, the others
//! are numbered from [`FIRST_OID`] in the order of the tables. They are the same on all nodes of one version, and may
//! change with the version.

use super::{functions, type_facts};
use crate::types::registry::{self, OnNull, Volatility};
use crate::types::{Type, aggregate};
use std::sync::LazyLock;

/// First OID of functions that are not PostgreSQL's conversions: above what initdb hands out, below the users'.
const FIRST_OID: u32 = 13_700;

/// `prokind`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ProcedureKind {
    Function,
    Aggregate,
}

/// A function.
#[derive(Debug)]
pub(super) struct Procedure {
    pub oid: u32,
    pub name: &'static str,
    pub args: Vec<Type>,
    pub variadic: Option<Type>,
    /// How many of `args` may be left out.
    pub optional: usize,
    pub result: Type,
    pub returns_set: bool,
    pub kind: ProcedureKind,
    pub strict: bool,
    pub volatility: Volatility,
}

const AGGREGATES: &[&str] = &[
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bool_and",
    "bool_or",
    "count",
    "every",
    "json_agg",
    "json_object_agg",
    "jsonb_agg",
    "jsonb_object_agg",
    "max",
    "min",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "sum",
    "var_pop",
    "var_samp",
    "variance",
];

/// Functions that give rows: name, arguments, result.
const SETS: &[(&str, &[Type], Type)] = &[
    ("generate_series", &[Type::Int4, Type::Int4], Type::Int4),
    ("generate_series", &[Type::Int4, Type::Int4, Type::Int4], Type::Int4),
    ("generate_series", &[Type::Int8, Type::Int8], Type::Int8),
    ("generate_series", &[Type::Int8, Type::Int8, Type::Int8], Type::Int8),
    ("generate_series", &[Type::Timestamp, Type::Timestamp, Type::Interval], Type::Timestamp),
    ("generate_series", &[Type::TimestampTz, Type::TimestampTz, Type::Interval], Type::TimestampTz),
    ("generate_subscripts", &[Type::AnyArray, Type::Int4], Type::Int4),
    ("unnest", &[Type::AnyArray], Type::AnyElement),
];

/// Functions that the binder makes values of itself.
const SPECIAL: &[(&str, &[Type], Type)] = &[
    ("nextval", &[Type::RegClass], Type::Int8),
    ("setval", &[Type::RegClass, Type::Int8], Type::Int8),
    ("setval", &[Type::RegClass, Type::Int8, Type::Bool], Type::Int8),
    ("pg_sleep", &[Type::Float8], Type::Void),
];

static ALL: LazyLock<Vec<Procedure>> = LazyLock::new(|| {
    let mut all = conversions();
    let conversion_count = all.len();
    all.extend(values());
    all.extend(session());
    all.extend(aggregates());
    all.extend(SETS.iter().map(|(name, args, result)| Procedure {
        returns_set: true,
        ..plain(name, args.to_vec(), *result)
    }));
    all.extend(SPECIAL.iter().map(|(name, args, result)| Procedure {
        volatility: Volatility::Volatile,
        ..plain(name, args.to_vec(), *result)
    }));
    for (procedure, oid) in all[conversion_count..].iter_mut().zip(FIRST_OID..) {
        procedure.oid = oid;
    }
    assert!(
        all.iter().all(|procedure| procedure.oid < crate::catalog::FIRST_USER_OID),
        "functions have OIDs below the users'"
    );
    all
});

/// Every function.
pub(super) fn all() -> &'static [Procedure] {
    &ALL
}

/// A function by OID.
pub(super) fn by_oid(oid: u32) -> Option<&'static Procedure> {
    all().iter().find(|procedure| procedure.oid == oid)
}

fn plain(name: &'static str, args: Vec<Type>, result: Type) -> Procedure {
    Procedure {
        oid: 0,
        name,
        args,
        variadic: None,
        optional: 0,
        result,
        returns_set: false,
        kind: ProcedureKind::Function,
        strict: true,
        volatility: Volatility::Immutable,
    }
}

fn conversions() -> Vec<Procedure> {
    let mut all: Vec<Procedure> = Vec::new();
    for (oid, name, args, result) in type_facts::conversions() {
        if !all.iter().any(|known| known.oid == oid) {
            all.push(Procedure { oid, ..plain(name, args, result) });
        }
    }
    all.sort_by_key(|procedure| procedure.oid);
    all
}

fn values() -> impl Iterator<Item = Procedure> {
    let is_name = |name: &str| name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    registry::functions().filter(move |function| is_name(function.name)).map(|function| Procedure {
        variadic: function.variadic,
        strict: function.on_null == OnNull::Null,
        volatility: function.volatility,
        ..plain(function.name, function.args.to_vec(), function.result)
    })
}

fn session() -> impl Iterator<Item = Procedure> {
    functions::all().map(|function| Procedure {
        optional: function.args.len() - function.required,
        strict: function.strict,
        volatility: if function.volatile { Volatility::Volatile } else { Volatility::Stable },
        ..plain(function.name, function.args.to_vec(), function.result)
    })
}

/// Aggregates of one and two arguments, of the types that they take as they are.
fn aggregates() -> Vec<Procedure> {
    let scalars = || {
        Type::SCALARS
            .iter()
            .copied()
            .filter(|ty| !matches!(ty.category(), 'P' | 'X') && *ty != Type::Counter)
    };
    let mut lists: Vec<Vec<Type>> = vec![Vec::new()];
    lists.extend(scalars().map(|ty| vec![ty]));
    lists.extend([vec![Type::Text, Type::Text], vec![Type::Bytea, Type::Bytea]]);
    let mut all = Vec::new();
    for name in AGGREGATES {
        for args in &lists {
            if let Some(found) = aggregate::resolve_aggregate(name, args)
                && found.args == *args
            {
                all.push(Procedure {
                    kind: ProcedureKind::Aggregate,
                    strict: false,
                    ..plain(name, found.args, found.result)
                });
            }
        }
    }
    all
}

impl Procedure {
    /// `name(integer, text)`.
    pub(super) fn signature(&self) -> String {
        let args: Vec<_> = self.args.iter().chain(&self.variadic).map(|ty| ty.name()).collect();
        format!("{}({})", super::names::quote_ident(self.name), args.join(","))
    }

    /// As `pg_get_function_arguments` says it.
    pub(super) fn arguments_text(&self) -> String {
        let plain = self.args.iter().map(|ty| ty.name().into_owned());
        let variadic = self.variadic.iter().map(|ty| format!("VARIADIC {}", ty.name()));
        plain.chain(variadic).collect::<Vec<_>>().join(", ")
    }

    /// As `pg_get_function_result` says it.
    pub(super) fn result_text(&self) -> String {
        format!("{}{}", if self.returns_set { "SETOF " } else { "" }, self.result.name())
    }
}
