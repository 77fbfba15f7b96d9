//! Driver: SHOW.

use super::Session;
use super::run::rows_outcome;
use crate::catalog::TableMode;
use crate::error::{SqlError, codes};
use crate::outcome::{Notice, Outcome, Row};
use crate::parse::Show;
use crate::types::{Datum, SqlState, Type};
use clock::Timestamp;
use replication::range::RegionId;
use txn::client::{NoTicket, Settled, Ticket};

/// Columns of its answer.
pub(super) fn columns_of(show: &Show) -> Vec<(&str, Type)> {
    match show {
        Show::Setting(name) => vec![(name.as_str(), Type::Text)],
        Show::All => {
            vec![("name", Type::Text), ("setting", Type::Text), ("description", Type::Text)]
        }
        Show::Chaos => vec![("fault", Type::Text), ("remaining", Type::Text)],
        Show::Clocks => vec![
            ("node", Type::Text),
            ("region", Type::Text),
            ("offset_us", Type::Int8),
            ("offset_error_us", Type::Int8),
            ("round_trip_us", Type::Int8),
            ("bound_us", Type::Int8),
            ("state", Type::Text),
        ],
        Show::Contention => crate::pg_catalog::CONTENTION_COLUMNS.to_vec(),
        Show::Nodes => vec![
            ("node", Type::Text),
            ("region", Type::Text),
            ("zone", Type::Text),
            ("sql_address", Type::Text),
            ("rpc_address", Type::Text),
            ("status", Type::Text),
        ],
        Show::Regions => vec![("id", Type::Int4), ("region", Type::Text), ("here", Type::Bool)],
        Show::Ranges(_) => vec![
            ("range", Type::Int8),
            ("start_key", Type::Text),
            ("end_key", Type::Text),
            ("table", Type::Text),
            ("leaseholder", Type::Text),
            ("replicas", Type::Text),
        ],
        Show::Staleness => vec![
            ("table", Type::Text),
            ("origin", Type::Text),
            ("as_of", Type::Text),
            ("staleness_ms", Type::Float8),
        ],
        Show::Conflicts(_) => vec![
            ("at", Type::Text),
            ("key", Type::Text),
            ("winner", Type::Text),
            ("winner_region", Type::Text),
            ("loser", Type::Text),
            ("loser_region", Type::Text),
            ("rule", Type::Text),
        ],
        Show::TransactionStatus(_) => {
            vec![("status", Type::Text), ("commit_timestamp", Type::Text)]
        }
        Show::Tables => {
            vec![("schema", Type::Text), ("table", Type::Text), ("consistency", Type::Text)]
        }
        Show::Databases => vec![("database", Type::Text)],
    }
}

fn int8(value: Option<impl TryInto<i64>>) -> Datum {
    value.and_then(|value| value.try_into().ok()).map_or(Datum::Null, Datum::Int8)
}

impl Session {
    /// SHOW.
    pub(super) async fn run_show(&mut self, show: &Show) -> Result<Outcome, SqlError> {
        match show {
            // Addresses, keys, faults: the operators' affair.
            Show::Nodes => self.superusers_only("SHOW NODES")?,
            Show::Ranges(_) => self.superusers_only("SHOW RANGES")?,
            Show::Clocks => self.superusers_only("SHOW CLOCKS")?,
            Show::Contention => self.superusers_only("SHOW CONTENTION")?,
            Show::Chaos => self.superusers_only("SHOW CHAOS")?,
            Show::Setting(_)
            | Show::All
            | Show::Regions
            | Show::Staleness
            | Show::Conflicts(_)
            | Show::TransactionStatus(_)
            | Show::Tables
            | Show::Databases => {}
        }
        let rows = self.show_rows(show).await?;
        Ok(rows_outcome(&columns_of(show), rows, "SHOW"))
    }

    async fn show_rows(&mut self, show: &Show) -> Result<Vec<Row>, SqlError> {
        fn text(value: impl AsRef<str>) -> Datum {
            Datum::text(value)
        }
        let cluster = self.engine.cluster.clone();
        let region_name =
            |region| cluster.region_name(region).unwrap_or_else(|| format!("region {}", region.0));
        Ok(match show {
            Show::Setting(name) => {
                let value = self.settings.get(name).ok_or_else(|| {
                    SqlError::new(
                        SqlState::UNDEFINED_OBJECT,
                        format!("unrecognized configuration parameter \"{name}\""),
                    )
                })?;
                vec![vec![text(value)]]
            }
            Show::All => {
                let all = self.settings.shared();
                all.iter().map(|(name, value)| vec![text(name), text(value), text("")]).collect()
            }
            Show::Chaos => {
                let faults = cluster.chaos_active().await;
                let remaining = |one: Option<std::time::Duration>| {
                    one.map_or(Datum::Null, |d| Datum::text(format!("{:.1}s", d.as_secs_f64())))
                };
                faults
                    .iter()
                    .map(|fault| vec![text(&fault.fault), remaining(fault.remaining)])
                    .collect()
            }
            Show::Contention => {
                let facts = self.facts_now();
                let (rows, silent) = crate::pg_catalog::contention_rows(&facts).await?;
                if !silent.is_empty() {
                    let silent = self.named_nodes(&silent);
                    let code = codes::SYSTEM_ERROR;
                    let message = format!("what waits there is not shown: no answer from {silent}");
                    self.notice(Notice::warning(code, message));
                }
                rows
            }
            Show::Clocks => cluster
                .clocks()
                .iter()
                .map(|clock| {
                    vec![
                        Datum::text(clock.node.to_string()),
                        text(&clock.region),
                        int8(clock.offset_us),
                        int8(clock.offset_error_us),
                        int8(clock.round_trip_us),
                        int8(clock.bound_us),
                        text(&clock.state),
                    ]
                })
                .collect(),
            Show::Nodes => cluster
                .nodes()
                .iter()
                .map(|node| {
                    let name = Datum::text(node.node.to_string());
                    vec![
                        name,
                        text(&node.region),
                        text(&node.zone),
                        text(&node.sql_addr),
                        text(&node.rpc_addr),
                        text(&node.status),
                    ]
                })
                .collect(),
            Show::Regions => {
                let here = cluster.region();
                let row = |(id, name): (RegionId, String)| {
                    vec![Datum::Int4(i32::from(id.0)), Datum::text(name), Datum::Bool(id == here)]
                };
                cluster.regions().into_iter().map(row).collect()
            }
            Show::Ranges(table) => self.range_rows(table.as_deref()).await?,
            Show::Staleness => {
                let frontiers =
                    crate::copies::stream::frontiers(&self.engine, cluster.region()).await?;
                let now = self.engine.db.runtime().hlc.now().timestamp();
                let row = |(table, origin, frontier): (String, RegionId, Timestamp)| {
                    // A stream that has never run has delivered nothing: there is no age to tell.
                    let started = frontier > Timestamp::MIN;
                    let behind_ms = now.since(frontier).as_secs_f64() * 1000.0;
                    vec![
                        Datum::text(table),
                        Datum::text(region_name(origin)),
                        if started { Datum::text(frontier.to_string()) } else { Datum::Null },
                        if started { Datum::Float8(behind_ms) } else { Datum::Null },
                    ]
                };
                frontiers.into_iter().map(row).collect()
            }
            Show::Conflicts(name) => {
                let table = self.facts_now().find_relation(std::slice::from_ref(name));
                let Some(crate::catalog::Relation::Table(table)) = table else {
                    return Err(SqlError::new(
                        SqlState::UNDEFINED_TABLE,
                        format!("relation \"{name}\" does not exist"),
                    ));
                };
                if table.mode == TableMode::Strong {
                    return Err(SqlError::new(
                        codes::WRONG_OBJECT_TYPE,
                        format!("\"{name}\" is a strong table: it has no conflicts"),
                    ));
                }
                self.conflict_rows(&table).await?
            }
            Show::TransactionStatus(id) => {
                let ticket: Ticket = id.parse().map_err(|error: NoTicket| {
                    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, error.to_string())
                })?;
                match self.engine.db.settle(&ticket).await? {
                    Settled::Committed(ts) => vec![vec![text("committed"), text(ts.to_string())]],
                    Settled::Aborted => vec![vec![text("aborted"), Datum::Null]],
                }
            }
            Show::Tables => {
                let catalog = self.catalog();
                let schema = |id| {
                    catalog.schema_by_id(id).map_or_else(String::new, |schema| schema.name.clone())
                };
                let row = |table: &std::sync::Arc<crate::catalog::TableDescriptor>| {
                    vec![
                        Datum::text(schema(table.schema)),
                        text(&table.name),
                        text(crate::bind::mode_name(table.mode)),
                    ]
                };
                catalog.tables().map(row).collect()
            }
            Show::Databases => {
                self.catalog().databases().map(|database| vec![text(&database.name)]).collect()
            }
        })
    }

    async fn range_rows(&mut self, table: Option<&str>) -> Result<Vec<Row>, SqlError> {
        let catalog = self.catalog();
        let mut rows = Vec::new();
        for range in self.engine.cluster.ranges().await {
            let of = range
                .span
                .start
                .table_id()
                .and_then(|id| catalog.table(id))
                .map(|table| table.name.clone());
            if table.is_some() && of.as_deref() != table {
                continue;
            }
            let replicas: Vec<String> = range.replicas.iter().map(ToString::to_string).collect();
            rows.push(vec![
                int8(Some(range.range)),
                Datum::text(range.span.start.to_string()),
                Datum::text(range.span.end.to_string()),
                of.map_or(Datum::Null, Datum::text),
                range.leaseholder.map_or(Datum::Null, |node| Datum::text(node.to_string())),
                Datum::text(replicas.join(", ")),
            ]);
        }
        Ok(rows)
    }

    async fn conflict_rows(
        &mut self,
        table: &crate::catalog::TableDescriptor,
    ) -> Result<Vec<Row>, SqlError> {
        let region = self.engine.cluster.region().0;
        let conflicts = crate::copies::Conflict::list(&self.engine, table, region).await?;
        let name = |region: u16| {
            let id = replication::range::RegionId(region);
            Datum::text(
                self.engine.cluster.region_name(id).unwrap_or_else(|| format!("region {region}")),
            )
        };
        let rows = conflicts.into_iter().map(|conflict| {
            vec![
                Datum::text(Timestamp::from_raw(conflict.at).to_string()),
                Datum::text(conflict.key),
                Datum::text(conflict.winner),
                name(conflict.winner_region),
                Datum::text(conflict.loser),
                name(conflict.loser_region),
                Datum::text("last writer wins"),
            ]
        });
        Ok(rows.collect())
    }
}
