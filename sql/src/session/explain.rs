//! Value: errors of the transaction layer in SQL's terms: a key is a table, its columns and their values.

use super::Session;
use super::limits::TimeLimit;
use crate::catalog::{Catalog, IndexDescriptor, TableDescriptor, TableMode};
use crate::error::{Recovery, SqlError, capitalised, codes};
use crate::rows::direction;
use crate::types::{Datum, EvalContext, key_decode, text};
use coverage::Mark;
use replication::range::NodeId;
use std::sync::Arc;
use storage::Key;

impl Session {
    /// With tables and values instead of keys, as far as the catalog knows them.
    pub(super) fn explained(&self, mut error: SqlError) -> SqlError {
        if let Recovery::Exists { key } = error.recovery.clone() {
            error.recovery = Recovery::Report;
            if let Some((table, index, values)) = self.read_key(&key) {
                coverage::reached(Mark::DuplicateFoundAtCommit);
                let names =
                    table.column_names(index.columns.iter().map(|column| column.column)).join(", ");
                error.message =
                    format!("duplicate key value violates unique constraint \"{}\"", index.name);
                error.detail = Some(format!("Key ({names})=({values}) already exists."));
                error = error.on_table(&table.name).on_constraint(&index.name);
            }
        }
        if let Some(key) = error.key.take()
            && let Some((table, index, values)) = self.read_key(&key)
        {
            let row = self.in_words(&table, &index, &values);
            let named = |text: String| capitalised(&text.replace(&key.to_string(), &row));
            error.detail = error.detail.map(named);
            if error.code == codes::LOCK_NOT_AVAILABLE {
                error.message = error
                    .message
                    .replace("lock on row", &format!("lock on row in relation \"{}\"", table.name));
            }
            error = error.on_table(&table.name).on_constraint(&index.name);
        }
        // The transaction layer knows one deadline only.
        if error.code == codes::QUERY_CANCELED
            && error.message == TimeLimit::Statement.error().message
            && let Some((_, limit)) = self.deadline
        {
            error.code = limit.error().code;
            error.message = limit.error().message;
        }
        if let Recovery::TooOld { threshold } = error.recovery.clone() {
            error.recovery = Recovery::Report;
            let oldest = self.moment_text(threshold);
            let wanted = self.active.as_ref().map(|active| active.txn.read_timestamp());
            let wanted =
                wanted.map_or_else(String::new, |at| format!(" at {}", self.moment_text(at)));
            error.detail = Some(format!(
                "It would read{wanted}. History is kept from {oldest} on, without that moment."
            ));
            error.hint = Some(
                "A table keeps its history for its gc_ttl: ALTER TABLE .. SET (gc_ttl = '24h')."
                    .to_string(),
            );
        }
        if let Recovery::Missing { nodes } = error.recovery.clone() {
            error.recovery = Recovery::Report;
            if !nodes.is_empty() {
                error.detail = Some(format!("Not heard of: {}.", self.named_nodes(&nodes)));
            }
            // The reason may be ourselves: what a node says whose clock is off is not heard.
            let (cluster, clocks) = (&self.engine.cluster, self.engine.cluster.clocks());
            let own = clocks.iter().find(|clock| clock.node == cluster.node());
            if let Some(fenced) = own.and_then(|own| own.state.strip_prefix("fenced")) {
                error.detail = Some(format!("This node has fenced itself{fenced}."));
                error.hint = Some(
                    "Nothing was committed. Use another node, or try again when this node's clock agrees with the others'."
                        .to_string(),
                );
            }
        }
        error
    }

    /// `the row (id)=(5) of table "accounts"`.
    fn in_words(&self, table: &TableDescriptor, index: &IndexDescriptor, values: &str) -> String {
        let columns = index.columns.iter().map(|column| column.column);
        let names = table.column_names(columns).join(", ");
        let table_name = &table.name;
        if index.id == table.primary().id {
            format!("the row ({names})=({values}) of table \"{table_name}\"")
        } else {
            format!(
                "the entry ({names})=({values}) of index \"{}\" of table \"{table_name}\"",
                index.name
            )
        }
    }

    /// Nodes with their regions: `eu-west (n2), ap-south (n3)`.
    pub(super) fn named_nodes(&self, nodes: &[NodeId]) -> String {
        let known = self.engine.cluster.nodes();
        let named =
            nodes.iter().map(|node| match known.iter().find(|summary| summary.node == *node) {
                Some(summary) => format!("{} ({node})", summary.region),
                None => node.to_string(),
            });
        named.collect::<Vec<String>>().join(", ")
    }

    fn read_key(&self, key: &Key) -> Option<(Arc<TableDescriptor>, IndexDescriptor, String)> {
        let catalog = self.catalog();
        let (table, index, values) = key_in_words(&catalog, key, &*self.facts)?;
        Some((table, index, values))
    }
}

/// The table, index and column values of a key.
pub(crate) fn key_in_words(
    catalog: &Catalog,
    key: &Key,
    context: &dyn EvalContext,
) -> Option<(Arc<TableDescriptor>, IndexDescriptor, String)> {
    let table = catalog.table(key.table_id()?)?.clone();
    let prefix = match table.mode {
        TableMode::Strong => 5,
        TableMode::Available => 7,
    };
    let rest = key.as_bytes().get(prefix..)?;
    let (id, mut rest) = rest.split_first_chunk::<4>()?;
    let index = table.index(u32::from_be_bytes(*id))?.clone();
    let mut values = Vec::new();
    for column in &index.columns {
        let descriptor = &table.columns[column.column];
        let value: Datum =
            key_decode(&mut rest, descriptor.ty, descriptor.typmod, direction(column.descending))
                .ok()?;
        values.push(if value.is_null() {
            "null".to_string()
        } else {
            text::to_string(&value, descriptor.ty, context)
        });
    }
    Some((table, index, values.join(", ")))
}
