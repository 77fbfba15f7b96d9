//! Driver: asks after holders that were skipped and have been silent for long.
//!
//! Who skips locked rows ([`OnLock::Skip`](crate::client::OnLock)) waits for nobody, and so would never find out that a holder's gateway is
//! gone: its rows would be left out until somebody else came by. It is asked after in the background; who comes by next finds the row.

use clock::Monotonic;
use coverage::Mark;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::{Skipped, TxnId};
use crate::client::{Db, PlantedBug};

/// A holder that lives is not asked after again for so long.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Holders remembered; with more, none is asked after until some of these may be asked again.
const ASKED_MAX: usize = 1_024;

/// Whom this gateway has asked after, and when.
#[derive(Default)]
pub(super) struct Inquiries {
    asked: Mutex<BTreeMap<TxnId, Monotonic>>,
}

impl Inquiries {
    /// Whether to ask after it now; then it counts as asked.
    fn begin(&self, txn: TxnId, now: Monotonic) -> bool {
        let mut asked = self.asked.lock();
        if asked.len() >= ASKED_MAX {
            asked.retain(|_, at| now.since(*at) < ASKED_AGAIN_AFTER);
        }
        let due = asked.get(&txn).is_none_or(|at| now.since(*at) >= ASKED_AGAIN_AFTER);
        let begins = due && (asked.len() < ASKED_MAX || asked.contains_key(&txn));
        if begins {
            asked.insert(txn, now);
        }
        begins
    }

    /// It may be asked after again: it is over, and has left more behind, perhaps.
    fn forget(&self, txn: TxnId) {
        self.asked.lock().remove(&txn);
    }
}

impl Db {
    /// Finds out in the background whether these holders have ended, and clears what they have left at these keys if so.
    pub(super) fn ask_after(&self, skipped: &[Skipped]) {
        if self.settings().planted == Some(PlantedBug::SkippedNotAsked) {
            return;
        }
        let now = self.runtime().time.monotonic();
        let mut asked: BTreeMap<TxnId, Vec<Skipped>> = BTreeMap::new();
        for one in skipped {
            let id = one.holder.id;
            match asked.get_mut(&id) {
                Some(others) => others.push(one.clone()),
                None if self.inquiries().begin(id, now) => {
                    asked.insert(id, vec![one.clone()]);
                }
                None => {}
            }
        }
        for left in asked.into_values() {
            coverage::reached(Mark::SilentHolderAskedFor);
            let db = self.clone();
            self.runtime().spawn.spawn(Box::pin(async move { db.clear(left).await }));
        }
    }

    /// Clears what one holder has left, if it has ended.
    async fn clear(&self, left: Vec<Skipped>) {
        for Skipped { key, holder, active } in left {
            let id = holder.id;
            match self.is_over(&key, holder, active).await {
                Ok(true) => self.inquiries().forget(id),
                Ok(false) => return,
                Err(error) => {
                    tracing::debug!(txn = %id, %key, %error, "a holder that was skipped could not be asked after");
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lives_is_not_asked_after_at_once_again() {
        let inquiries = Inquiries::default();
        let at = |secs| Monotonic::ZERO.plus(Duration::from_secs(secs));
        assert!(inquiries.begin(TxnId::new(1), at(10)));
        assert!(!inquiries.begin(TxnId::new(1), at(11)));
        assert!(inquiries.begin(TxnId::new(2), at(11)));
        assert!(inquiries.begin(TxnId::new(1), at(12)));
        inquiries.forget(TxnId::new(1));
        assert!(inquiries.begin(TxnId::new(1), at(12)));
    }

    #[test]
    fn a_full_memory_asks_after_nobody_else_for_a_while() {
        let inquiries = Inquiries::default();
        let at = |secs| Monotonic::ZERO.plus(Duration::from_secs(secs));
        for number in 0..ASKED_MAX as u128 {
            assert!(inquiries.begin(TxnId::new(number), at(10)));
        }
        assert!(!inquiries.begin(TxnId::new(u128::MAX), at(11)));
        assert!(inquiries.begin(TxnId::new(u128::MAX), at(12)));
    }
}
