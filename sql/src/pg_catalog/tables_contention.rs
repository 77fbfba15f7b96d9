//! Driver: `meridian_contention`, also shown by SHOW CONTENTION: the keys that transactions wait for and fail over, the worst first.
//!
//! The one relation whose rows are asked for, at all nodes: nothing else knows them.

use futures::future::BoxFuture;
use replication::range::NodeId;
use std::collections::BTreeSet;
use storage::Key;
use txn::api::TxnId;
use txn::client::{Question, Sighting};
use txn::contention::KeyContention;

use super::{Kind, VirtualTable};
use crate::catalog::PG_CATALOG;
use crate::error::{SqlError, codes};
use crate::exec::{Facts, POSTGRES_EPOCH_US};
use crate::gateways::by_id;
use crate::outcome::Row;
use crate::session::key_in_words;
use crate::types::{Datum, Type};

pub(super) static TABLES: &[&VirtualTable] = &[&MERIDIAN_CONTENTION];

/// Its columns.
pub(crate) const CONTENTION_COLUMNS: &[(&str, Type)] = &[
    ("table_name", Type::Text),
    ("index_name", Type::Text),
    ("key", Type::Text),
    ("waits", Type::Int8),
    ("waited_ms", Type::Float8),
    ("longest_ms", Type::Float8),
    ("retries", Type::Int8),
    ("deadlocks", Type::Int8),
    ("last", Type::TimestampTz),
    ("waiter", Type::Text),
    ("waiter_statement", Type::Text),
    ("holder", Type::Text),
    ("holder_statement", Type::Text),
];

static MERIDIAN_CONTENTION: VirtualTable = VirtualTable {
    oid: 12950,
    schema: PG_CATALOG,
    name: "meridian_contention",
    kind: Kind::View,
    columns: CONTENTION_COLUMNS,
    narrowed_by: None,
    build: |_, _| Vec::new(),
    asks: Some(asked),
};

fn asked(facts: &Facts) -> BoxFuture<'_, Result<Vec<Row>, SqlError>> {
    Box::pin(async move { contention_rows(facts).await.map(|(rows, _)| rows) })
}

/// The rows, and the nodes that did not answer: what waits there is missing.
///
/// # Errors
/// 42501: keys and statements are for superusers.
pub(crate) async fn contention_rows(facts: &Facts) -> Result<(Vec<Row>, Vec<NodeId>), SqlError> {
    if !facts.catalog.role(&facts.user).is_some_and(|role| role.superuser) {
        return Err(SqlError::new(
            codes::INSUFFICIENT_PRIVILEGE,
            "permission denied: meridian_contention is for superusers",
        ));
    }
    let (mut keys, silent) = facts.gateways.contention().await;
    keys.sort_by_cached_key(|(key, known)| {
        let failures = known.retries + known.deadlocks;
        (std::cmp::Reverse((known.waited, failures)), key.clone())
    });
    let named: BTreeSet<TxnId> =
        keys.iter().flat_map(|(_, known)| known.waiter.into_iter().chain(known.holder)).collect();
    let questions: Vec<Question> = named.into_iter().map(Question::Transaction).collect();
    let found = facts.gateways.sightings(questions.clone()).await;
    let known = by_id(&questions, &found);
    let name = |txn: Option<TxnId>| {
        let found = txn.and_then(|txn| known.get(&txn));
        let name = txn.map(|txn| match found {
            Some((node, _)) => format!("{txn} of {node}"),
            None => txn.to_string(),
        });
        let statement = found.map(|(_, Sighting { statement, .. })| statement.clone());
        [name, statement].map(|text| text.map_or(Datum::Null, Datum::text))
    };
    let row = |(key, known): (Key, KeyContention)| {
        let mut row = place(facts, &key);
        let count = |count: u64| Datum::Int8(i64::try_from(count).unwrap_or(i64::MAX));
        let millis = |time: std::time::Duration| Datum::Float8(time.as_secs_f64() * 1000.0);
        let at = i64::try_from(known.at.micros()).unwrap_or(i64::MAX) - POSTGRES_EPOCH_US;
        row.extend([
            count(known.waits),
            millis(known.waited),
            millis(known.longest),
            count(known.retries),
            count(known.deadlocks),
            Datum::TimestampTz(at),
        ]);
        row.extend(name(known.waiter));
        row.extend(name(known.holder));
        row
    };
    Ok((keys.into_iter().map(row).collect(), silent))
}

/// Table, index and key; of a key that is no table's, the key alone.
fn place(facts: &Facts, key: &Key) -> Row {
    match key_in_words(&facts.catalog, key, facts) {
        Some((table, index, values)) => {
            let columns = index.columns.iter().map(|column| column.column);
            let names = table.column_names(columns).join(", ");
            let key = format!("({names})=({values})");
            vec![Datum::text(&table.name), Datum::text(&index.name), Datum::text(key)]
        }
        None => vec![Datum::Null, Datum::Null, Datum::text(key.to_string())],
    }
}
