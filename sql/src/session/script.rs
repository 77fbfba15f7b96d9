//! Driver: the simple protocol: a string of statements, one implicit transaction around them unless they say otherwise.
//!
//! The last statement's answer is given once the transaction has committed.

use super::statement::Prepared;
use super::{Block, Session};
use crate::error::SqlError;
use crate::outcome::Outcome;
use crate::parse::{Parsed, parse};
use std::collections::VecDeque;
use std::sync::Arc;

/// The statements of a simple query that have not been run.
pub struct SimpleScript {
    rest: VecDeque<Parsed>,
    /// What parsing found: told before anything runs.
    error: Option<SqlError>,
    empty: bool,
    /// More than one statement.
    several: bool,
    ended: bool,
}

impl Session {
    /// Begins a simple query. Its outcomes come from [`SimpleScript::next`].
    pub async fn simple(&mut self, sql: &str) -> SimpleScript {
        self.portals.remove("");
        self.statements.remove("");
        match parse(sql) {
            Ok(statements) => {
                let (empty, several) = (statements.is_empty(), statements.len() > 1);
                let rest = statements.into();
                SimpleScript { rest, error: None, empty, several, ended: false }
            }
            Err(error) => SimpleScript {
                rest: VecDeque::new(),
                error: Some(error),
                empty: false,
                several: false,
                ended: false,
            },
        }
    }
}

impl SimpleScript {
    /// The next outcome; `None`: the query has ended, and its implicit transaction with it. After an error there is nothing more.
    pub async fn next(&mut self, session: &mut Session) -> Option<Result<Outcome, SqlError>> {
        if self.ended {
            return None;
        }
        if let Some(error) = self.error.take() {
            self.ended = true;
            return Some(session.noted(Err(error)).await);
        }
        if std::mem::take(&mut self.empty) {
            self.ended = true;
            return Some(Ok(Outcome::Empty));
        }
        let Some(parsed) = self.rest.pop_front() else {
            // After a COPY at the end: what it wrote is committed now.
            self.ended = true;
            return match session.end_implicit().await {
                Ok(()) => None,
                Err(error) => Some(Err(session.attributed(error).await)),
            };
        };
        session.in_script = self.several;
        let result = self.run(session, parsed).await;
        session.in_script = false;
        if result.is_err() {
            self.ended = true;
            self.rest.clear();
        }
        Some(session.noted(result).await)
    }

    async fn run(&mut self, session: &mut Session, parsed: Parsed) -> Result<Outcome, SqlError> {
        let last = self.rest.is_empty();
        let prepared = Arc::new(Prepared::new(Some(parsed), &[])?);
        if last && session.may_run_alone(&prepared) {
            self.ended = true;
            return session.run_alone(&prepared, Vec::new()).await;
        }
        let outcome = session.run(&prepared, Vec::new()).await?;
        if last && !matches!(outcome, Outcome::CopyIn { .. }) {
            self.ended = true;
            session.end_implicit().await?;
        }
        Ok(outcome)
    }

    /// The client could not be answered: the rest is not run.
    pub async fn fail(&mut self, session: &mut Session, error: &SqlError) {
        self.ended = true;
        self.rest.clear();
        let _: Result<(), SqlError> = session.noted(Err(error.clone())).await;
    }
}

impl Session {
    /// Commits the implicit transaction, if there is one.
    pub(super) async fn end_implicit(&mut self) -> Result<(), SqlError> {
        if self.block != Block::None {
            return Ok(());
        }
        self.commit_active().await
    }
}
