//! Driver: who was in the way: an error of a conflict, as the client is told it.
//!
//! The transaction layer knows the other by its id, or by a version it wrote. What that transaction is doing is known at its gateway,
//! which is asked when the error is about to leave the session, and at no other time: what is run again unseen asks nobody.

use super::Session;
use crate::error::SqlError;
use crate::gateways::Sought;
use clock::Timestamp;
use std::time::Duration;
use txn::client::{Fate, Sighting};

impl Session {
    /// With the other transaction's statement and age in its detail.
    pub(super) async fn attributed(&self, mut error: SqlError) -> SqlError {
        let Some(question) = error.other.take() else { return error };
        let who = match self.engine.gateways.seek(&question).await {
            Sought::Found(node, sighting) => {
                let place = self.named_nodes(&[node]);
                self.described(&place, &sighting)
            }
            Sought::Unknown(silent) if silent.is_empty() => {
                "The other transaction is not known any more.".to_string()
            }
            Sought::Unknown(silent) => format!(
                "The other transaction is not known: its gateway may be one that does not answer: {}.",
                self.named_nodes(&silent)
            ),
            Sought::NotAsked => {
                "The other transaction was not asked after: too many errors at once.".to_string()
            }
        };
        error.detail = Some(match error.detail.take() {
            Some(detail) => format!("{detail} {who}"),
            None => who,
        });
        error
    }

    /// `Transaction t12345678 of east (n1), begun 1.25s ago and still open: UPDATE t SET ...`
    fn described(&self, place: &str, sighting: &Sighting) -> String {
        let Sighting { txn, statement, started, fate, .. } = sighting;
        let now = self.engine.db.runtime().hlc.now().timestamp();
        let fate = match fate {
            Fate::Open => "still open",
            Fate::Committed(_) => "committed since",
            Fate::Ended => "given up since",
        };
        let age = age(now, *started);
        let doing = match self.may_see(sighting) {
            true => format!(": {statement}"),
            false => "; its statement is its owner's and superusers' to see.".to_string(),
        };
        format!("The other is transaction {txn} of {place}, begun {age:?} ago and {fate}{doing}")
    }

    /// What a statement says is for its owner, and for superusers.
    fn may_see(&self, sighting: &Sighting) -> bool {
        sighting.user == *self.user || self.superusers_only("").is_ok()
    }
}

/// To the millisecond.
fn age(now: Timestamp, started: Timestamp) -> Duration {
    let age = now.since(started);
    Duration::from_millis(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}
