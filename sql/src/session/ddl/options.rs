//! Value: options of tables: `WITH (..)` of CREATE TABLE and `SET (..)` of ALTER TABLE.

use crate::catalog::{TableDescriptor, TableMode};
use crate::error::SqlError;
use crate::types::{Interval, SqlState};
use sqlparser::ast;
use std::time::Duration;

/// Below it a statement could not read what it began with.
const GC_TTL_MIN: Duration = Duration::from_secs(1);
/// Ten years.
const GC_TTL_MAX: Duration = Duration::from_secs(3650 * 86_400);

/// What a list of options says. PostgreSQL's storage parameters are kept and mean nothing.
#[derive(Default)]
pub(super) struct TableOptions {
    /// `consistency`.
    pub(super) mode: Option<TableMode>,
    /// `gc_ttl`: how long history is kept; `Some(None)`: as long as the cluster's default says.
    gc_ttl_ms: Option<Option<u64>>,
    /// Name and value, for tools that look.
    kept: Vec<(String, String)>,
}

impl TableOptions {
    /// Of CREATE TABLE.
    pub(super) fn of_create(options: &ast::CreateTableOptions) -> Result<TableOptions, SqlError> {
        TableOptions::read(match options {
            ast::CreateTableOptions::None => &[],
            ast::CreateTableOptions::With(list)
            | ast::CreateTableOptions::Options(list)
            | ast::CreateTableOptions::Plain(list)
            | ast::CreateTableOptions::TableProperties(list) => list,
        })
    }

    /// Of a list.
    pub(super) fn read(list: &[ast::SqlOption]) -> Result<TableOptions, SqlError> {
        let mut options = TableOptions::default();
        for option in list {
            let ast::SqlOption::KeyValue { key, value } = option else {
                return Err(SqlError::unsupported(format!(
                    "table option {option} is not supported"
                )));
            };
            let name = crate::parse::name(key);
            let text = value.to_string().trim_matches('\'').to_lowercase();
            options.take(name, text)?;
        }
        Ok(options)
    }

    fn take(&mut self, name: String, text: String) -> Result<(), SqlError> {
        match name.as_str() {
            "consistency" => {
                self.mode = Some(match text.as_str() {
                    "strong" => TableMode::Strong,
                    "available" => TableMode::Available,
                    _ => return Err(invalid(&name, &text, "It is 'strong' or 'available'.")),
                });
            }
            "gc_ttl" if text == "default" => self.gc_ttl_ms = Some(None),
            "gc_ttl" => self.gc_ttl_ms = Some(Some(gc_ttl_ms(&name, &text)?)),
            "fillfactor" | "autovacuum_enabled" | "toast_tuple_target" | "parallel_workers" => {}
            _ => {
                return Err(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("unrecognized parameter \"{name}\""),
                ));
            }
        }
        self.kept.push((name, text));
        Ok(())
    }

    /// Puts them into a table's descriptor.
    pub(super) fn apply(self, table: &mut TableDescriptor) {
        if let Some(mode) = self.mode {
            table.mode = mode;
        }
        if let Some(gc_ttl_ms) = self.gc_ttl_ms {
            table.gc_ttl_ms = gc_ttl_ms;
        }
        for (name, text) in self.kept {
            let prefix = format!("{name}=");
            table.options.retain(|option| !option.starts_with(&prefix));
            if (name.as_str(), text.as_str()) != ("gc_ttl", "default") {
                table.options.push(prefix + &text);
            }
        }
    }
}

/// `'4h'`, `'90 minutes'`, `14400` (seconds).
fn gc_ttl_ms(name: &str, text: &str) -> Result<u64, SqlError> {
    let hint = "It is a duration from '1s' to '3650d', such as '4h', or 'default'.";
    let us = Interval::parse(text).map_err(|_| invalid(name, text, hint))?.normal_us();
    let ms = u64::try_from(us / 1000).map_err(|_| invalid(name, text, hint))?;
    if (GC_TTL_MIN..=GC_TTL_MAX).contains(&Duration::from_millis(ms)) {
        Ok(ms)
    } else {
        Err(invalid(name, text, hint))
    }
}

fn invalid(name: &str, text: &str, hint: &str) -> SqlError {
    SqlError::new(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("invalid value for option \"{name}\": {text}"),
    )
    .with_hint(hint)
}
