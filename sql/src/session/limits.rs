//! Value: a session's limits, as its settings say them, and the time that it may take. Over a limit is an error that says which and how
//! much; what each costs is in docs/limits.md.

use super::{Block, Session};
use crate::error::{SqlError, codes};
use clock::Monotonic;
use futures::future::BoxFuture;
use txn::client::TxnLimits;

/// What ends a statement that takes too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TimeLimit {
    /// `statement_timeout`.
    Statement,
    /// `transaction_timeout`.
    Transaction,
}

impl TimeLimit {
    pub(super) fn error(self) -> SqlError {
        match self {
            TimeLimit::Statement => {
                SqlError::new(codes::QUERY_CANCELED, "canceling statement due to statement timeout")
            }
            TimeLimit::Transaction => SqlError::new(
                codes::TRANSACTION_TIMEOUT,
                "canceling statement due to transaction timeout",
            ),
        }
    }
}

impl Session {
    /// When a statement that begins now must have ended, and why.
    pub(super) fn time_limit(&self, now: Monotonic) -> Option<(Monotonic, TimeLimit)> {
        let of_statement = self.settings.milliseconds("statement_timeout");
        let of_statement = of_statement.map(|limit| (now.plus(limit), TimeLimit::Statement));
        let of_transaction = self.transaction_end(now).map(|end| (end, TimeLimit::Transaction));
        [of_statement, of_transaction].into_iter().flatten().min_by_key(|(end, _)| *end)
    }

    /// When the transaction under way, or one that begins now, must have ended.
    fn transaction_end(&self, now: Monotonic) -> Option<Monotonic> {
        let limit = self.settings.milliseconds("transaction_timeout")?;
        Some(self.active.as_ref().map_or(now, |active| active.begun).plus(limit))
    }

    /// Ready, with what the client is to be told last, when the session has been idle for longer than it may. To be awaited while
    /// nothing is asked of it; the connection then ends.
    pub fn too_idle(&self) -> BoxFuture<'static, SqlError> {
        let time = self.engine.db.runtime().time.clone();
        let now = time.monotonic();
        let limit = |name: &str| self.settings.milliseconds(name).map(|limit| now.plus(limit));
        let idle = match self.block {
            Block::None => limit("idle_session_timeout").map(|end| {
                (
                    end,
                    codes::IDLE_SESSION_TIMEOUT,
                    "terminating connection due to idle-session timeout",
                )
            }),
            Block::Open | Block::Failed => {
                limit("idle_in_transaction_session_timeout").map(|end| {
                    (
                        end,
                        codes::IDLE_IN_TRANSACTION_TIMEOUT,
                        "terminating connection due to idle-in-transaction timeout",
                    )
                })
            }
        };
        let transaction = match self.block {
            Block::None => None,
            Block::Open | Block::Failed => self.transaction_end(now).map(|end| {
                (
                    end,
                    codes::TRANSACTION_TIMEOUT,
                    "terminating connection due to transaction timeout",
                )
            }),
        };
        let first = [idle, transaction].into_iter().flatten().min_by_key(|(end, ..)| *end);
        match first {
            None => Box::pin(std::future::pending()),
            Some((end, code, message)) => Box::pin(async move {
                time.sleep_until(end).await;
                SqlError::new(code, message)
            }),
        }
    }

    /// What one transaction may take.
    pub(super) fn txn_limits(&self) -> TxnLimits {
        TxnLimits {
            write_bytes_max: self.settings.number("transaction_write_limit"),
            locks_max: self.settings.number("transaction_lock_limit"),
            savepoints_max: self.settings.number("transaction_savepoint_limit"),
        }
    }

    /// Bytes of rows that one statement may hold.
    pub(super) fn statement_memory_max(&self) -> usize {
        let limit = self.settings.number("statement_memory_limit");
        usize::try_from(limit).unwrap_or(usize::MAX)
    }
}
