//! Driver: cursors of SQL: portals with a name that a statement gives. Their rows are read when they are declared.

use super::statement::{Portal, PortalState, Prepared, take_rows};
use super::{Block, Session};
use crate::error::{SqlError, codes};
use crate::outcome::{Column, Outcome};
use crate::parse::{Parsed, Statement};
use crate::types::SqlState;
use sqlparser::ast::{self, FetchDirection};
use std::sync::Arc;

impl Session {
    /// DECLARE.
    pub(super) async fn run_declare(
        &mut self,
        declares: &[ast::Declare],
        parsed: &Parsed,
    ) -> Result<Outcome, SqlError> {
        let [declare] = declares else {
            return Err(SqlError::unsupported("this DECLARE is not supported"));
        };
        let (Some(query), [name]) = (&declare.for_query, declare.names.as_slice()) else {
            return Err(SqlError::unsupported("this DECLARE is not supported"));
        };
        let name = crate::parse::name(name);
        if self.block == Block::None && declare.hold != Some(true) {
            return Err(SqlError::new(
                codes::NO_ACTIVE_TRANSACTION,
                "DECLARE CURSOR can only be used in transaction blocks",
            ));
        }
        if self.portals.contains_key(&name) {
            return Err(SqlError::new(
                codes::DUPLICATE_CURSOR,
                format!("cursor \"{name}\" already exists"),
            ));
        }
        let statement = Statement::Sql(Box::new(ast::Statement::Query(query.clone())));
        let inner = Parsed { statement: Arc::new(statement), ..parsed.clone() };
        let prepared = Arc::new(Prepared::new(Some(inner), &[])?);
        let Outcome::Rows { columns, rows, tag, .. } =
            self.run_planned(&prepared, Vec::new()).await?
        else {
            return Err(SqlError::internal("a query gave no rows"));
        };
        let state = PortalState::Rows {
            columns,
            rest: rows.into(),
            tag: tag.unwrap_or_default(),
            taken: 0,
        };
        self.portals
            .insert(name, Portal { prepared, params: Vec::new(), formats: Arc::from([]), state });
        Ok(Outcome::Complete { tag: "DECLARE CURSOR".into() })
    }

    pub(super) fn cursor_columns(&self, name: &str) -> Option<Arc<[Column]>> {
        match &self.portals.get(name)?.state {
            PortalState::Rows { columns, .. } => Some(columns.clone()),
            PortalState::New | PortalState::Done => None,
        }
    }

    pub(super) fn planned_columns(&self, prepared: &Prepared) -> Option<Arc<[Column]>> {
        prepared.columns()
    }

    /// FETCH: forward only.
    pub(super) fn run_fetch(
        &mut self,
        name: &ast::Ident,
        direction: &FetchDirection,
    ) -> Result<Outcome, SqlError> {
        let name = crate::parse::name(name);
        let portal = self.portals.get_mut(&name).ok_or_else(|| {
            SqlError::new(codes::INVALID_CURSOR_NAME, format!("cursor \"{name}\" does not exist"))
        })?;
        let number = |value: &ast::ValueWithSpan| -> Result<usize, SqlError> {
            value
                .value
                .to_string()
                .parse()
                .map_err(|_| SqlError::unsupported("cursor can only scan forward"))
        };
        let count = match direction {
            FetchDirection::Next => Some(1),
            FetchDirection::All | FetchDirection::ForwardAll => None,
            FetchDirection::Count { limit } => Some(number(limit)?),
            FetchDirection::Forward { limit: Some(limit) } => Some(number(limit)?),
            FetchDirection::Forward { limit: None } => Some(1),
            _ => {
                return Err(SqlError::new(SqlState::new("55000"), "cursor can only scan forward")
                    .with_hint("Declare it with SCROLL option to enable backward scan."));
            }
        };
        let outcome = match count {
            Some(0) => Outcome::Complete { tag: "FETCH 0".into() },
            Some(count) => take_rows(portal, count),
            None => take_rows(portal, 0),
        };
        Ok(match outcome {
            Outcome::Rows { columns, rows, .. } => {
                let tag = Some(format!("FETCH {}", rows.len()));
                Outcome::Rows { columns, rows, formats: Arc::from([]), tag, suspended: false }
            }
            other => other,
        })
    }

    /// CLOSE.
    pub(super) fn run_close(&mut self, cursor: &ast::CloseCursor) -> Result<Outcome, SqlError> {
        match cursor {
            ast::CloseCursor::All => self.portals.clear(),
            ast::CloseCursor::Specific { name } => {
                let name = crate::parse::name(name);
                if self.portals.remove(&name).is_none() {
                    return Err(SqlError::new(
                        codes::INVALID_CURSOR_NAME,
                        format!("cursor \"{name}\" does not exist"),
                    ));
                }
            }
        }
        Ok(Outcome::Complete { tag: "CLOSE CURSOR".into() })
    }
}
