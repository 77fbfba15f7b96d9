//! Value: `pg_proc`.

use super::cell::{ACLS, CHARS, NULL, OIDS, TEXTS, oidvector};
use super::procedure::{self, ProcedureKind};
use super::{VirtualTable, table};
use crate::types::Type::{
    Bool, Char, Float4, Int2, Name, Oid, OidVector, PgNodeTree, RegProc, Text,
};
use crate::types::registry::Volatility;
use crate::types::{Datum, Type};

pub(super) static TABLES: &[&VirtualTable] = &[&PG_PROC];

table! {
    PG_PROC = 1255, PG_CATALOG "pg_proc" Table;
    each |_facts, only| procedure::all().iter().filter(|procedure| only.is_none_or(|oid| procedure.oid == oid));
    row |procedure: &procedure::Procedure| {
        oid Oid = procedure.oid;
        proname Name = procedure.name;
        pronamespace Oid = crate::catalog::PG_CATALOG;
        proowner Oid = crate::catalog::FIRST_ROLE;
        prolang Oid = 12;
        procost Float4 = 1;
        prorows Float4 = if procedure.returns_set { 1000 } else { 0 };
        provariadic Oid = procedure.variadic.map_or(0, Type::oid);
        prosupport RegProc = 0;
        prokind Char = match procedure.kind { ProcedureKind::Function => 'f', ProcedureKind::Aggregate => 'a' };
        prosecdef Bool = false;
        proleakproof Bool = false;
        proisstrict Bool = procedure.strict;
        proretset Bool = procedure.returns_set;
        provolatile Char = match procedure.volatility {
            Volatility::Immutable => 'i',
            Volatility::Stable => 's',
            Volatility::Volatile => 'v',
        };
        proparallel Char = 's';
        pronargs Int2 = procedure.args.len() + usize::from(procedure.variadic.is_some());
        pronargdefaults Int2 = procedure.optional;
        prorettype Oid = procedure.result.oid();
        proargtypes OidVector = oidvector(procedure.args.iter().chain(&procedure.variadic).map(|ty| ty.oid()));
        proallargtypes OIDS = procedure.variadic.map(|_| super::cell::oids(procedure.args.iter().chain(&procedure.variadic).map(|ty| ty.oid())));
        proargmodes CHARS = procedure.variadic.map(|_| modes(procedure.args.len()));
        proargnames TEXTS = NULL;
        proargdefaults PgNodeTree = NULL;
        protrftypes OIDS = NULL;
        prosrc Text = procedure.name;
        probin Text = NULL;
        prosqlbody PgNodeTree = NULL;
        proconfig TEXTS = NULL;
        proacl ACLS = NULL;
    }
}

/// All in, the last one variadic.
fn modes(plain: usize) -> Datum {
    let mut modes = vec![Datum::text("i"); plain];
    modes.push(Datum::text("v"));
    Datum::array(Type::Char, modes)
}
