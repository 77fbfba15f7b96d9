//! Value: what a statement knows of its surroundings: the catalog, the session, the moment.

use crate::catalog::{Catalog, PG_CATALOG, Relation};
use crate::cluster::Cluster;
use crate::gateways::Gateways;
use crate::types::{ByteaOutput, EvalContext, SqlState, TimeZone, Type, TypeError};
use std::collections::BTreeMap;
use std::sync::Arc;
use txn::runtime::Runtime;

/// Microseconds from 1970 to 2000.
pub(crate) const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// Surroundings of a statement. Fixed while it runs.
#[derive(Clone)]
pub(crate) struct Facts {
    /// The catalog it is planned under.
    pub catalog: Arc<Catalog>,
    /// Its database's OID.
    pub database: u32,
    /// Its database's name.
    pub database_name: Arc<str>,
    /// Its user.
    pub user: Arc<str>,
    /// Names on the search path, as set.
    pub search_path: Arc<[String]>,
    /// Settings by name.
    pub settings: Arc<BTreeMap<String, String>>,
    /// When the transaction began, microseconds since 2000.
    pub transaction_us: i64,
    /// When the statement began, microseconds since 2000.
    pub statement_us: i64,
    /// Its time zone.
    pub zone: TimeZone,
    /// How bytea is printed.
    pub bytea_output: ByteaOutput,
    /// How floats are printed.
    pub extra_float_digits: i32,
    /// The session's number.
    pub process_id: i32,
    /// Clock and randomness.
    pub runtime: Runtime,
    /// The node around.
    pub cluster: Arc<dyn Cluster>,
    /// The other gateways.
    pub gateways: Arc<Gateways>,
    /// currval of sequences, lastval.
    pub sequence_values: Arc<parking_lot::Mutex<SequenceValues>>,
}

/// What a session has drawn from sequences.
#[derive(Default)]
pub(crate) struct SequenceValues {
    /// Last value per sequence.
    pub values: BTreeMap<u32, i64>,
    /// The sequence last drawn from.
    pub last: Option<u32>,
    /// Whether `setval` was called since this was last asked for.
    pub set: bool,
    /// What `set_config` was asked for in this statement: the session grants it when the statement has ended.
    pub setting_changes: Vec<crate::pg_catalog::settings::Change>,
}

impl Facts {
    /// OIDs of the schemas on the search path that exist.
    pub(crate) fn path(&self) -> Vec<u32> {
        let mut path = Vec::new();
        for name in self.search_path.iter() {
            let name = if name == "$user" { &*self.user } else { name.as_str() };
            if name == "pg_catalog" {
                path.push(PG_CATALOG);
            } else if let Some(schema) = self.catalog.schema(self.database, name) {
                path.push(schema.id);
            }
        }
        path
    }

    /// The schema in which things are created that are named without one.
    pub(crate) fn creation_schema(&self) -> Option<u32> {
        self.path().into_iter().find(|id| *id != PG_CATALOG)
    }

    /// A relation by the parts of its name.
    pub(crate) fn find_relation(&self, parts: &[String]) -> Option<Relation> {
        match parts {
            [name] => {
                self.path().into_iter().find_map(|schema| self.catalog.relation(schema, name))
            }
            [schema, name] => {
                self.catalog.relation(self.catalog.schema(self.database, schema)?.id, name)
            }
            [database, schema, name] if **database == *self.database_name => {
                self.catalog.relation(self.catalog.schema(self.database, schema)?.id, name)
            }
            _ => None,
        }
    }

    /// A setting.
    pub(crate) fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// The wall clock, microseconds since 2000.
    pub(crate) fn clock_us(&self) -> i64 {
        i64::try_from(self.runtime.time.wall().micros()).unwrap_or(i64::MAX) - POSTGRES_EPOCH_US
    }
}

impl EvalContext for Facts {
    fn transaction_timestamp(&self) -> i64 {
        self.transaction_us
    }

    fn statement_timestamp(&self) -> i64 {
        self.statement_us
    }

    fn clock_timestamp(&self) -> i64 {
        self.clock_us()
    }

    fn random_u64(&self) -> u64 {
        self.runtime.random.next_u64()
    }

    fn time_zone(&self) -> TimeZone {
        self.zone
    }

    fn bytea_output(&self) -> ByteaOutput {
        self.bytea_output
    }

    fn extra_float_digits(&self) -> i32 {
        self.extra_float_digits
    }

    fn reg_name(&self, ty: Type, oid: u32) -> Option<String> {
        crate::pg_catalog::names::name_of(self, ty, oid)
    }

    fn reg_oid(&self, ty: Type, name: &str) -> Result<u32, TypeError> {
        crate::pg_catalog::names::oid_of(self, ty, name)?.ok_or_else(|| {
            TypeError::new(
                SqlState::UNDEFINED_OBJECT,
                format!("{} \"{name}\" does not exist", ty.name()),
            )
        })
    }
}
