//! Driver: cursors of SQL: portals with a name that a statement gives. Their rows are read when they are declared. When portals end.

use super::statement::{Lasting, Portal, PortalState, Prepared, take_rows};
use super::{Block, Session};
use crate::error::{SqlError, codes};
use crate::outcome::{Column, Outcome};
use crate::parse::{Parsed, Statement};
use crate::types::{Datum, SqlState};
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
        let lasting = match declare.hold {
            Some(true) => Lasting::IfCommitted,
            Some(false) | None => Lasting::Transaction,
        };
        refuse_unreadable(query, lasting)?;
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
        self.open_portal(&name, prepared, Vec::new(), Arc::from([]), (state, lasting));
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

    /// In place of one of that name, if there is one.
    pub(super) fn open_portal(
        &mut self,
        name: &str,
        prepared: Arc<Prepared>,
        params: Vec<Datum>,
        formats: Arc<[i16]>,
        (state, lasting): (PortalState, Lasting),
    ) {
        self.portals_opened += 1;
        let opened = self.portals_opened;
        let portal = Portal { prepared, params, formats, state, opened, lasting };
        self.portals.insert(name.to_string(), portal);
    }

    /// The transaction is over: but for those that earlier ones have left, its portals are.
    pub(super) fn close_portals(&mut self) {
        self.portals.retain(|_, portal| portal.lasting == Lasting::Session);
    }

    /// What was opened since is rolled back.
    pub(super) fn close_portals_since(&mut self, opened: u64) {
        self.portals
            .retain(|_, portal| portal.opened <= opened || portal.lasting == Lasting::Session);
    }

    /// The transaction has committed.
    pub(super) fn keep_held_portals(&mut self) {
        for portal in self.portals.values_mut() {
            if portal.lasting == Lasting::IfCommitted {
                portal.lasting = Lasting::Session;
            }
        }
    }
}

/// A cursor reads.
fn refuse_unreadable(query: &ast::Query, lasting: Lasting) -> Result<(), SqlError> {
    let verb = |body: &ast::SetExpr| match body {
        ast::SetExpr::Insert(_) => Some("INSERT"),
        ast::SetExpr::Update(_) => Some("UPDATE"),
        ast::SetExpr::Delete(_) => Some("DELETE"),
        ast::SetExpr::Merge(_) => Some("MERGE"),
        ast::SetExpr::Select(_)
        | ast::SetExpr::Query(_)
        | ast::SetExpr::SetOperation { .. }
        | ast::SetExpr::Values(_)
        | ast::SetExpr::Table(_) => None,
    };
    if let Some(verb) = verb(&query.body) {
        let message = format!("syntax error at or near \"{verb}\"");
        return Err(SqlError::new(SqlState::SYNTAX_ERROR, message));
    }
    let with = query.with.iter().flat_map(|with| &with.cte_tables);
    if with.into_iter().any(|part| verb(&part.query.body).is_some()) {
        return Err(SqlError::unsupported(
            "DECLARE CURSOR must not contain data-modifying statements in WITH",
        ));
    }
    if lasting != Lasting::Transaction && !query.locks.is_empty() {
        return Err(SqlError::unsupported(
            "DECLARE CURSOR WITH HOLD ... FOR UPDATE/SHARE is not supported",
        )
        .with_detail("Holdable cursors must be READ ONLY."));
    }
    Ok(())
}
