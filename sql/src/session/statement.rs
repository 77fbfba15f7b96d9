//! Driver: prepared statements and portals.

use super::{PORTALS_MAX, STATEMENTS_MAX, Session};
use crate::bind::Binder;
use crate::catalog::Edition;
use crate::error::{SqlError, codes};
use crate::outcome::{Column, Outcome, Row};
use crate::parse::{AsOf, Moment, Parsed, Statement, parse};
use crate::plan::Planned;
use crate::types::{Datum, SqlState, Type, binary, text};
use bytes::Bytes;
use parking_lot::Mutex;
use sqlparser::ast;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

/// Columns of a result; `None`: there are no rows.
type ResultColumns = Option<Arc<[Column]>>;

/// What the client sends after an Execute, as far as it has arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Sync: the implicit transaction ends.
    Sync,
    /// Something else, or not known yet.
    Unknown,
}

/// A parsed statement, and its plan while the catalog stays as it is.
pub(crate) struct Prepared {
    /// The statement; `None`: the text held none.
    pub(super) parsed: Option<Parsed>,
    /// Parameter types that the client gave.
    pub(super) given: Vec<Type>,
    /// OIDs that it gave, to be told back as they are.
    given_oids: Vec<u32>,
    /// The plan, of statements that have one.
    planned: Mutex<Option<Arc<Planned>>>,
    /// The columns that a client was told, and has to get.
    promised: OnceLock<ResultColumns>,
}

impl Prepared {
    pub(super) fn new(parsed: Option<Parsed>, oids: &[u32]) -> Result<Prepared, SqlError> {
        let mut given = Vec::with_capacity(oids.len());
        for oid in oids {
            given.push(match oid {
                0 => Type::Unknown,
                oid => Type::from_oid(*oid).ok_or_else(|| {
                    SqlError::new(
                        SqlState::UNDEFINED_OBJECT,
                        format!("type with OID {oid} does not exist"),
                    )
                })?,
            });
        }
        // Outside of the tree, the binder does not see it.
        if let Some(AsOf { moment: Moment::Param(number), .. }) =
            parsed.as_ref().and_then(|parsed| parsed.as_of.as_ref())
        {
            given.resize(given.len().max(*number), Type::Unknown);
            let ty = &mut given[number - 1];
            if *ty == Type::Unknown {
                *ty = Type::Text;
            }
        }
        Ok(Prepared {
            parsed,
            given,
            given_oids: oids.to_vec(),
            planned: Mutex::new(None),
            promised: OnceLock::new(),
        })
    }

    /// The statement that has a plan of its own, if it is one.
    pub(super) fn plannable(&self) -> Option<&ast::Statement> {
        let Statement::Sql(statement) = self.parsed.as_ref()?.statement.as_ref() else {
            return None;
        };
        is_plannable(statement).then_some(statement)
    }
}

/// Whether a statement is run by a plan.
pub(super) fn is_plannable(statement: &ast::Statement) -> bool {
    matches!(
        statement,
        ast::Statement::Query(_)
            | ast::Statement::Insert(_)
            | ast::Statement::Update(_)
            | ast::Statement::Delete(_)
    )
}

/// A bound statement.
pub(super) struct Portal {
    pub(super) prepared: Arc<Prepared>,
    pub(super) params: Vec<Datum>,
    pub(super) formats: Arc<[i16]>,
    pub(super) state: PortalState,
    /// How many the session had opened with it.
    pub(super) opened: u64,
    pub(super) lasting: Lasting,
}

/// For how long a portal is there, unless it is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lasting {
    Transaction,
    /// WITH HOLD: for good, once its transaction has committed.
    IfCommitted,
    Session,
}

/// How far a portal has come.
pub(super) enum PortalState {
    New,
    /// Rows that have not been taken.
    Rows {
        columns: Arc<[Column]>,
        rest: VecDeque<Row>,
        tag: String,
        taken: u64,
    },
    Done,
}

impl Session {
    /// Parses and plans a statement under a name; the empty name is free to be taken again.
    ///
    /// # Errors
    /// 42601 and everything that planning finds; 42P05: the name is taken.
    pub async fn parse(
        &mut self,
        name: &str,
        sql: &str,
        param_types: &[u32],
    ) -> Result<(), SqlError> {
        let result = self.parse_inner(name, sql, param_types).await;
        self.noted(result).await
    }

    async fn parse_inner(
        &mut self,
        name: &str,
        sql: &str,
        param_types: &[u32],
    ) -> Result<(), SqlError> {
        if !name.is_empty() && self.statements.contains_key(name) {
            return Err(SqlError::new(
                codes::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        if self.statements.len() >= STATEMENTS_MAX {
            return Err(SqlError::new(
                codes::CONFIGURATION_LIMIT,
                format!("a session may have {STATEMENTS_MAX} prepared statements"),
            ));
        }
        let mut parsed = parse(sql)?;
        if parsed.len() > 1 {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            ));
        }
        let prepared = Arc::new(Prepared::new(parsed.pop(), param_types)?);
        self.refuse_in_failed(prepared.parsed.as_ref())?;
        if prepared.plannable().is_some() {
            self.planned(&prepared).await?;
        }
        self.statements.insert(name.to_string(), prepared);
        Ok(())
    }

    /// The plan of a statement, made again if a table it uses has changed. A name that is unknown here may be known elsewhere: the
    /// catalog is read again, once.
    pub(super) async fn planned(&mut self, prepared: &Prepared) -> Result<Arc<Planned>, SqlError> {
        let catalog = self.catalog();
        if let Some(planned) = prepared.planned.lock().clone()
            && planned.edition == catalog.edition()
            && planned.search_path == self.settings.search_path()
        {
            return Ok(planned);
        }
        let planned = match self.plan_once(prepared) {
            Err(error)
                if is_unknown_name(&error)
                    && self.active.as_ref().is_none_or(|active| active.catalog.is_none()) =>
            {
                if self.engine.refresh_catalog().await.is_err()
                    || self.catalog().version() == catalog.version()
                {
                    return Err(error);
                }
                self.plan_once(prepared)?
            }
            other => other?,
        };
        if prepared.promised.get().is_some_and(|told| !same_columns(told, &planned.columns)) {
            return Err(SqlError::unsupported("cached plan must not change result type"));
        }
        *prepared.planned.lock() = Some(planned.clone());
        Ok(planned)
    }

    fn plan_once(&mut self, prepared: &Prepared) -> Result<Arc<Planned>, SqlError> {
        let facts = self.facts_now();
        let parsed = prepared.parsed.as_ref().expect("a plannable statement is there");
        let statement = prepared.plannable().expect("asked of plannable statements");
        // Parameters may have been given already: they stay what the first plan made of them.
        let former = prepared.planned.lock().clone();
        let types = former.as_ref().map_or(&prepared.given, |former| &former.params);
        let planned = Binder::new(&facts, &parsed.positions, types).statement(statement)?;
        Ok(Arc::new(planned))
    }

    /// Types of a statement's parameters, and its result's columns.
    ///
    /// # Errors
    /// 26000: there is none of that name.
    pub fn describe_statement(
        &mut self,
        name: &str,
    ) -> Result<(Vec<u32>, ResultColumns), SqlError> {
        let prepared = self.prepared(name)?;
        prepared.promise();
        let planned = prepared.planned.lock().clone();
        match planned {
            Some(planned) => {
                let oids = planned.params.iter().enumerate().map(|(at, ty)| {
                    match prepared.given_oids.get(at) {
                        Some(oid) if *oid != 0 => *oid,
                        _ => ty.oid(),
                    }
                });
                Ok((oids.collect(), planned.columns.clone()))
            }
            None => Ok((
                prepared.given_oids.clone(),
                self.columns_without_plan(prepared.parsed.as_ref())?,
            )),
        }
    }

    pub(super) fn prepared(&self, name: &str) -> Result<Arc<Prepared>, SqlError> {
        self.statements.get(name).cloned().ok_or_else(|| {
            let what = if name.is_empty() {
                "unnamed prepared statement".into()
            } else {
                format!("prepared statement \"{name}\"")
            };
            SqlError::new(codes::INVALID_STATEMENT_NAME, format!("{what} does not exist"))
        })
    }

    /// Gives a statement its parameters.
    ///
    /// # Errors
    /// 26000: no such statement; 08P01: not its number of parameters; 22P02, 22P03, ...: not values of their types.
    pub async fn bind(
        &mut self,
        portal: &str,
        statement: &str,
        params: Vec<Option<Bytes>>,
        param_formats: &[i16],
        result_formats: &[i16],
    ) -> Result<(), SqlError> {
        let result =
            self.bind_inner(portal, statement, params, param_formats, result_formats).await;
        self.noted(result).await
    }

    async fn bind_inner(
        &mut self,
        portal: &str,
        statement: &str,
        params: Vec<Option<Bytes>>,
        param_formats: &[i16],
        result_formats: &[i16],
    ) -> Result<(), SqlError> {
        let prepared = self.prepared(statement)?;
        self.refuse_in_failed(prepared.parsed.as_ref())?;
        if self.portals.len() >= PORTALS_MAX {
            return Err(SqlError::new(
                codes::CONFIGURATION_LIMIT,
                format!("a session may have {PORTALS_MAX} portals"),
            ));
        }
        if !portal.is_empty() && self.portals.contains_key(portal) {
            return Err(SqlError::new(
                codes::DUPLICATE_CURSOR,
                format!("cursor \"{portal}\" already exists"),
            ));
        }
        let types = match prepared.plannable() {
            Some(_) => self.planned(&prepared).await?.params.clone(),
            None => prepared.given.clone(),
        };
        if params.len() != types.len() {
            return Err(SqlError::new(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {} parameters, but prepared statement \"{statement}\" requires {}",
                    params.len(),
                    types.len()
                ),
            ));
        }
        let mut values = Vec::with_capacity(params.len());
        for (at, (param, ty)) in params.iter().zip(&types).enumerate() {
            let format = match param_formats {
                [] => 0,
                [all] => *all,
                each => each.get(at).copied().unwrap_or(0),
            };
            values.push(self.param(param.as_deref(), *ty, format)?);
        }
        let (formats, lasting) = (Arc::from(result_formats), Lasting::Transaction);
        self.open_portal(portal, prepared, values, formats, (PortalState::New, lasting));
        Ok(())
    }

    fn param(&self, bytes: Option<&[u8]>, ty: Type, format: i16) -> Result<Datum, SqlError> {
        let Some(bytes) = bytes else { return Ok(Datum::Null) };
        let ty = if ty == Type::Unknown { Type::Text } else { ty };
        match format {
            0 => {
                let string = std::str::from_utf8(bytes).map_err(|_| {
                    SqlError::new(
                        SqlState::CHARACTER_NOT_IN_REPERTOIRE,
                        "invalid byte sequence for encoding \"UTF8\"",
                    )
                })?;
                if string.contains('\0') {
                    return Err(SqlError::new(
                        SqlState::CHARACTER_NOT_IN_REPERTOIRE,
                        "invalid byte sequence for encoding \"UTF8\": 0x00",
                    ));
                }
                Ok(text::parse(string, ty, -1, &*self.facts)?)
            }
            1 => Ok(binary::read(bytes, ty, -1, &*self.facts)?),
            other => Err(SqlError::new(
                SqlState::PROTOCOL_VIOLATION,
                format!("unsupported format code: {other}"),
            )),
        }
    }

    /// A portal's columns, and the formats it was bound with.
    ///
    /// # Errors
    /// 34000: there is none of that name.
    pub fn describe_portal(&mut self, name: &str) -> Result<(ResultColumns, Vec<i16>), SqlError> {
        let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
        let formats = portal.formats.to_vec();
        if let PortalState::Rows { columns, .. } = &portal.state {
            return Ok((Some(columns.clone()), formats));
        }
        let prepared = portal.prepared.clone();
        prepared.promise();
        let planned = prepared.planned.lock().clone();
        match planned {
            Some(planned) => Ok((planned.columns.clone(), formats)),
            None => Ok((self.columns_without_plan(prepared.parsed.as_ref())?, formats)),
        }
    }

    /// Forgets a statement; none of that name is no error.
    pub fn close_statement(&mut self, name: &str) {
        self.statements.remove(name);
    }

    /// Forgets a portal; none of that name is no error.
    pub fn close_portal(&mut self, name: &str) {
        self.portals.remove(name);
    }

    /// Runs a portal, or goes on with it. 0: all rows. If the client is known to send Sync next, a first statement is a whole
    /// transaction: it is committed before it is answered, and run again if its commit fails for a reason that may pass.
    ///
    /// # Errors
    /// The statement's.
    pub async fn execute(
        &mut self,
        portal: &str,
        max_rows: usize,
        next: Next,
    ) -> Result<Outcome, SqlError> {
        let result = self.execute_inner(portal, max_rows, next).await;
        self.noted(result).await
    }

    async fn execute_inner(
        &mut self,
        name: &str,
        max_rows: usize,
        next: Next,
    ) -> Result<Outcome, SqlError> {
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        let formats = portal.formats.clone();
        if let PortalState::New = portal.state {
            let (prepared, params) = (portal.prepared.clone(), portal.params.clone());
            let outcome = if next == Next::Sync && self.may_run_alone(&prepared) {
                self.run_alone(&prepared, params).await?
            } else {
                self.run(&prepared, params).await?
            };
            let Outcome::Rows { columns, rows, tag, .. } = outcome else {
                if let Some(portal) = self.portals.get_mut(name) {
                    portal.state = PortalState::Done;
                }
                return Ok(outcome);
            };
            let tag = tag.unwrap_or_default();
            if max_rows == 0 || rows.len() <= max_rows && !tag.starts_with("SELECT") {
                if let Some(portal) = self.portals.get_mut(name) {
                    portal.state = PortalState::Done;
                }
                return Ok(Outcome::Rows {
                    columns,
                    rows,
                    formats,
                    tag: Some(tag),
                    suspended: false,
                });
            }
            if let Some(portal) = self.portals.get_mut(name) {
                portal.state = PortalState::Rows { columns, rest: rows.into(), tag, taken: 0 };
            }
        }
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        Ok(take_rows(portal, max_rows))
    }

    /// Ends the implicit transaction: commits it.
    ///
    /// # Errors
    /// It could not commit; nothing of it happened, unless the code is 40003.
    pub async fn sync(&mut self) -> Result<(), SqlError> {
        self.portals.remove("");
        if self.block != super::Block::None {
            return Ok(());
        }
        self.portals.retain(|_, portal| portal.lasting != Lasting::Transaction);
        match self.commit_active().await {
            Err(error) => {
                self.close_portals();
                Err(self.attributed(error).await)
            }
            ended => ended,
        }
    }
}

/// The next rows of a portal.
pub(super) fn take_rows(portal: &mut Portal, max_rows: usize) -> Outcome {
    let formats = portal.formats.clone();
    match &mut portal.state {
        PortalState::Rows { columns, rest, tag, taken } => {
            let count = if max_rows == 0 { rest.len() } else { max_rows.min(rest.len()) };
            let rows: Vec<Row> = rest.drain(..count).collect();
            *taken += rows.len() as u64;
            // A portal that gave as many rows as were asked for is suspended, even if there are no more: as PostgreSQL.
            let suspended = max_rows > 0 && count == max_rows;
            let tag = if suspended {
                None
            } else {
                Some(if tag.starts_with("SELECT") {
                    format!("SELECT {taken}")
                } else {
                    tag.clone()
                })
            };
            Outcome::Rows { columns: columns.clone(), rows, formats, tag, suspended }
        }
        PortalState::New | PortalState::Done => Outcome::Complete { tag: "SELECT 0".into() },
    }
}

fn no_portal(name: &str) -> SqlError {
    SqlError::new(codes::INVALID_CURSOR_NAME, format!("portal \"{name}\" does not exist"))
}

fn is_unknown_name(error: &SqlError) -> bool {
    error.code == SqlState::UNDEFINED_TABLE || error.code == codes::UNDEFINED_COLUMN
}

/// Whether rows of the ones can pass for rows of the others.
fn same_columns(told: &ResultColumns, planned: &ResultColumns) -> bool {
    let shape = |column: &Column| (column.name.clone(), column.ty, column.typmod);
    match (told, planned) {
        (Some(told), Some(planned)) => told.iter().map(shape).eq(planned.iter().map(shape)),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

impl Prepared {
    /// A client has been told the columns of its plan: they do not change any more.
    pub(super) fn promise(&self) {
        if let Some(planned) = self.planned.lock().as_ref() {
            self.promised.get_or_init(|| planned.columns.clone());
        }
    }

    /// The catalog of its plan, if it has been made.
    pub(super) fn planned_under(&self) -> Option<Edition> {
        self.planned.lock().as_ref().map(|planned| planned.edition)
    }

    /// Columns of its plan, if it has been made.
    pub(super) fn columns(&self) -> Option<Arc<[Column]>> {
        self.planned.lock().as_ref().and_then(|planned| planned.columns.clone())
    }
}
