//! Driver: OIDs. A rollback does not take them back: whatever is kept by OID outside of the transaction that made it (values of a
//! sequence, say) is never met by what is made later.
//!
//! `system/catalog/next` holds the first OID that no gateway has taken. A gateway takes [`BLOCK`] at once, in a transaction of its own, and
//! gives them to the objects that are made at it; a restart loses the rest. INVARIANT: no OID is given twice.

use super::FIRST_USER_OID;
use crate::error::SqlError;
use crate::types::SqlState;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::ops::Range;
use storage::Key;
use txn::api::Lock;
use txn::client::{Db, TxnError, TxnOptions};

/// OIDs that a gateway takes at once.
const BLOCK: u32 = 2 * STATEMENT_MAX;
/// OIDs that one statement may need: a table of 1600 columns, each with a sequence, has room.
const STATEMENT_MAX: u32 = 4096;

fn next_key() -> Key {
    Key::system("catalog", b"next")
}

/// A gateway's share.
pub(crate) struct Numbers {
    db: Db,
    /// Taken and not given yet, the first ones first.
    free: Mutex<VecDeque<Range<u32>>>,
}

impl Numbers {
    pub(crate) fn new(db: Db) -> Numbers {
        Numbers { db, free: Mutex::default() }
    }

    /// Sees to it that a statement has enough.
    ///
    /// # Errors
    /// The system ranges cannot be reached; 54000: there are none left.
    pub(super) async fn provide(&self) -> Result<(), SqlError> {
        let left: usize = self.free.lock().iter().map(ExactSizeIterator::len).sum();
        if left >= STATEMENT_MAX as usize {
            return Ok(());
        }
        let block = self.db.run(TxnOptions::labelled("take OIDs"), |txn| {
            Box::pin(async move {
                let stored = txn.get(&next_key(), Some(Lock::Exclusive)).await?;
                let first = stored.map(|bytes| number(&bytes)).transpose()?;
                let first = first.unwrap_or(FIRST_USER_OID);
                let Some(end) = first.checked_add(BLOCK) else { return Ok(None) };
                txn.put(next_key(), Bytes::copy_from_slice(&end.to_be_bytes()))?;
                Ok(Some(first..end))
            })
        });
        let Some(block) = block.await? else {
            return Err(SqlError::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                "all OIDs have been given out",
            ));
        };
        self.free.lock().push_back(block);
        Ok(())
    }

    /// The next one.
    ///
    /// # Errors
    /// 54000: the statement has used up what it was provided with.
    pub(super) fn take(&self) -> Result<u32, SqlError> {
        let mut free = self.free.lock();
        while let Some(block) = free.front_mut() {
            if let Some(number) = block.next() {
                return Ok(number);
            }
            free.pop_front();
        }
        Err(SqlError::new(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!("one statement may make at most {STATEMENT_MAX} objects and constraints"),
        ))
    }
}

fn number(bytes: &[u8]) -> Result<u32, TxnError> {
    bytes
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| TxnError::Invalid("stored catalog: next".into()))
}
