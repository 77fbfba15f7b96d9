//! Driver: SQL text through a session, as a client's driver sends it.

use ::sql::types::Datum;
use ::sql::{Outcome, Session, SessionParams, SqlError};
use futures::future::BoxFuture;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::ClientError;
use crate::world::access::Gateway;

/// Times that a client runs a transaction again that was told to.
const ATTEMPTS_MAX: u32 = 8;

/// Why a statement failed, by what the client does about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Failed {
    /// Runs the transaction again (40001, 40P01).
    Again(String),
    /// Gives up: nothing happened.
    Certain(String),
    /// Does not know (40003).
    Unknown {
        /// What was said.
        text: String,
        /// With it the outcome can be asked for.
        ticket: Option<String>,
    },
}

impl Failed {
    fn of(error: &SqlError) -> Failed {
        let code = error.code.to_string();
        let text = format!("{code}: {}", error.message);
        match code.as_str() {
            "40001" | "40P01" => Failed::Again(text),
            "40003" => {
                let hint = error.hint.as_deref().unwrap_or_default();
                let ticket = hint.split('\'').nth(1).map(str::to_string);
                Failed::Unknown { text, ticket }
            }
            _ => Failed::Certain(text),
        }
    }
}

/// A client's connection.
pub(super) struct Client {
    session: Session,
}

impl Client {
    /// Connects.
    pub(super) fn connect(gateway: &Gateway) -> Result<Client, Failed> {
        let engine: &Arc<sql::Engine> = gateway
            .sql
            .as_ref()
            .ok_or_else(|| Failed::Certain("this world has no SQL".to_string()))?;
        let params = SessionParams {
            user: "root".to_string(),
            database: "meridian".to_string(),
            application_name: "chaos".to_string(),
            ..SessionParams::default()
        };
        let session = engine.session(params).map_err(|error| Failed::of(&error))?;
        Ok(Client { session })
    }

    /// Sends a simple query; the rows of its last statement.
    pub(super) async fn run(&mut self, text: &str) -> Result<Vec<Vec<Datum>>, Failed> {
        let mut rows = Vec::new();
        let mut script = self.session.simple(text).await;
        while let Some(outcome) = script.next(&mut self.session).await {
            match outcome.map_err(|error| Failed::of(&error))? {
                Outcome::Rows { rows: found, .. } => rows = found,
                Outcome::Complete { .. }
                | Outcome::Empty
                | Outcome::CopyIn { .. }
                | Outcome::CopyOut { .. } => {}
            }
        }
        Ok(rows)
    }

    /// Leaves a block that has failed.
    pub(super) async fn give_up(&mut self) {
        // It has failed already; what matters is that its locks go.
        drop(self.run("ROLLBACK").await);
    }

    /// Says goodbye.
    pub(super) async fn close(mut self) {
        self.session.terminate().await;
    }
}

/// Runs a transaction, again if it is told to, on one connection.
pub(super) async fn persevere<T, W>(gateway: &Gateway, mut work: W) -> Result<T, Failed>
where
    W: for<'c> FnMut(&'c mut Client) -> BoxFuture<'c, Result<T, Failed>>,
{
    let mut client = Client::connect(gateway)?;
    let mut attempts = 0;
    let result = loop {
        attempts += 1;
        match work(&mut client).await {
            Ok(value) => break Ok(value),
            Err(failed) => {
                tracing::debug!(attempts, %failed, "an attempt failed");
                client.give_up().await;
                if !matches!(failed, Failed::Again(_)) || attempts >= ATTEMPTS_MAX {
                    break Err(failed);
                }
            }
        }
        let time = &gateway.runtime.time;
        time.sleep_until(time.monotonic().plus(Duration::from_millis(10) * attempts)).await;
    };
    client.close().await;
    result
}

/// Whether the transaction of a ticket has committed; `None`: nobody says so soon.
pub(super) async fn outcome_of(gateway: &Gateway, ticket: &str) -> Option<bool> {
    let mut client = Client::connect(gateway).ok()?;
    let mut outcome = None;
    for _ in 0..ATTEMPTS_MAX {
        let shown = client.run(&format!("SHOW TRANSACTION STATUS '{ticket}'")).await;
        if let Ok([row]) = shown.as_deref() {
            outcome = Some(row[0] == Datum::text("committed"));
            break;
        }
        let time = &gateway.runtime.time;
        time.sleep_until(time.monotonic().plus(Duration::from_millis(500))).await;
    }
    client.close().await;
    outcome
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failed::Again(text) | Failed::Certain(text) | Failed::Unknown { text, .. }) = self;
        f.write_str(text)
    }
}

impl ClientError for Failed {
    fn is_unknown(&self) -> bool {
        matches!(self, Failed::Unknown { .. })
    }
}

/// An integer of any width.
pub(super) fn integer(datum: &Datum) -> Result<i64, Failed> {
    match datum {
        Datum::Int2(value) => Ok(i64::from(*value)),
        Datum::Int4(value) => Ok(i64::from(*value)),
        Datum::Int8(value) => Ok(*value),
        other => Err(Failed::Certain(format!("{other:?} is not an integer"))),
    }
}
