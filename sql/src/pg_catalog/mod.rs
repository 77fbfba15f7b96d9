//! Value: `pg_catalog` and `information_schema` as virtual tables, and the functions that read the catalog or the session.
//!
//! Clients (psql, JDBC, every ORM) learn about a database by querying PostgreSQL 15's catalogs, often with `SELECT *`. So each
//! relation here has PostgreSQL's columns, in its order and with its types, under its OID; the rows are computed from the
//! catalog snapshot of the statement whenever the relation is read. Nothing is stored, so nothing can be out of step.
//!
//! Rooms: `relation` what `pg_class` lists and what columns it has; `names` names of OIDs and back; `definition` SQL text of
//! indexes and constraints; `functions` (session) and `functions_catalog` the functions; `procedure` the list of functions;
//! `settings` the list of parameters; `type_facts` what `pg_type` says about our types; `tables_*`, `information_schema` the relations,
//! each one declaration: column, type, value.
//!
//! INVARIANT: a row has as many values as its relation has columns, of their types (test `every_relation_keeps_its_shape`).
//!
//! Limits: the hidden columns of PostgreSQL's tables (`xmin`, `ctid`, `tableoid`) do not exist here; privileges are not
//! recorded, so every `acl` is NULL (which PostgreSQL shows for default privileges).

mod cell;
mod definition;
pub(crate) mod functions;
mod functions_catalog;
mod information_schema;
pub(crate) mod names;
mod procedure;
mod relation;
pub(crate) mod settings;
mod tables_cluster;
mod tables_contention;
mod tables_empty;
mod tables_proc;
mod tables_relation;
mod tables_type;
mod tables_view;
mod type_facts;

pub(crate) use tables_contention::{CONTENTION_COLUMNS, contention_rows};

#[cfg(test)]
mod tests;

use crate::catalog::{INFORMATION_SCHEMA, PG_CATALOG};
use crate::error::SqlError;
use crate::exec::Facts;
use crate::outcome::Row;
use crate::types::{Datum, Type};
use futures::future::BoxFuture;
use std::fmt;

/// What PostgreSQL has a virtual relation as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A table.
    Table,
    /// A view.
    View,
}

/// A relation whose rows are computed.
pub(crate) struct VirtualTable {
    /// PostgreSQL's OID of it.
    pub oid: u32,
    /// Its schema's OID.
    pub schema: u32,
    /// Its name.
    pub name: &'static str,
    /// As `pg_class` shows it.
    pub kind: Kind,
    /// Its columns.
    pub columns: &'static [(&'static str, Type)],
    /// The column whose value, if it is known, spares computing the rows of all other relations.
    narrowed_by: Option<&'static str>,
    build: fn(&Facts, Option<u32>) -> Vec<Row>,
    /// Where the rows have to be asked for at other nodes.
    asks: Option<Asks>,
}

type Asks = for<'a> fn(&'a Facts) -> BoxFuture<'a, Result<Vec<Row>, SqlError>>;

impl VirtualTable {
    /// The rows whose column (by place) equals a value; `None`: all. Relations about the
    /// cluster ask it.
    pub(crate) async fn rows_where(
        &self,
        facts: &Facts,
        equals: Option<(usize, &Datum)>,
    ) -> Result<Vec<Row>, SqlError> {
        let Some(asks) = self.asks else { return Ok(self.build_where(facts, equals)) };
        let mut rows = asks(facts).await?;
        if let Some((column, value)) = equals {
            rows.retain(|row| !value.is_null() && row[column].compare(value).is_eq());
        }
        Ok(rows)
    }

    fn build_where(&self, facts: &Facts, equals: Option<(usize, &Datum)>) -> Vec<Row> {
        let Some((column, value)) = equals else { return (self.build)(facts, None) };
        if value.is_null() {
            return Vec::new();
        }
        let only = match value {
            Datum::Oid(oid) if self.narrowed_by == Some(self.columns[column].0) => Some(*oid),
            _ => None,
        };
        let mut rows = (self.build)(facts, only);
        rows.retain(|row| row[column].compare(value).is_eq());
        rows
    }

    /// Name of its schema.
    pub(crate) fn schema_name(&self) -> &'static str {
        if self.schema == PG_CATALOG { "pg_catalog" } else { "information_schema" }
    }
}

impl fmt::Debug for VirtualTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema_name(), self.name)
    }
}

/// Declares a relation: how to find what has a row, and column by column its value.
macro_rules! table {
    ($item:ident = $oid:literal, $schema:ident $name:literal $kind:ident $(by $narrow:literal)?;
     each |$facts:ident, $only:ident| $each:expr;
     row |$row:tt: $Row:ty| { $($column:ident $ty:ident = $value:expr;)* }) => {
        pub(super) static $item: $crate::pg_catalog::VirtualTable = {
            fn build($facts: &$crate::exec::Facts, $only: Option<u32>) -> Vec<$crate::outcome::Row> {
                let _ = ($facts, $only);
                let cells = |$row: $Row| vec![$($crate::pg_catalog::cell::fit($ty, $value)),*];
                ($each).into_iter().map(cells).collect()
            }
            #[allow(unused_mut, unused_assignments)]
            const NARROWED_BY: Option<&str> = {
                let mut column = None;
                $(column = Some($narrow);)?
                column
            };
            $crate::pg_catalog::VirtualTable {
                oid: $oid,
                schema: $crate::catalog::$schema,
                name: $name,
                kind: $crate::pg_catalog::Kind::$kind,
                columns: &[$((stringify!($column), $ty)),*],
                narrowed_by: NARROWED_BY,
                build,
                asks: None,
            }
        };
    };
}
pub(in crate::pg_catalog) use table;

static TABLES: &[&[&VirtualTable]] = &[
    tables_relation::TABLES,
    tables_type::TABLES,
    tables_proc::TABLES,
    tables_cluster::TABLES,
    tables_contention::TABLES,
    tables_view::TABLES,
    tables_empty::TABLES,
    information_schema::TABLES,
];

/// Every virtual relation.
pub(crate) fn tables() -> impl Iterator<Item = &'static VirtualTable> {
    TABLES.iter().flat_map(|tables| tables.iter().copied())
}

/// A virtual relation by the parts of its name. `pg_catalog` need not be named; `information_schema` must be.
pub(crate) fn find(parts: &[String]) -> Option<&'static VirtualTable> {
    let (schema, name) = match parts {
        // Most names are no catalog's: do not look far for those.
        [name] if name.starts_with("pg_") || name.starts_with("meridian_") => (PG_CATALOG, name),
        [schema, name] if schema == "pg_catalog" => (PG_CATALOG, name),
        [schema, name] if schema == "information_schema" => (INFORMATION_SCHEMA, name),
        _ => return None,
    };
    tables().find(|table| table.schema == schema && table.name == name.as_str())
}

/// A virtual relation by OID.
pub(crate) fn find_by_oid(oid: u32) -> Option<&'static VirtualTable> {
    tables().find(|table| table.oid == oid)
}
