//! Driver: sequences. Values are drawn outside of the user's transaction, as PostgreSQL does: a rollback leaves a gap.
//!
//! `system/sequence/ <number>` holds the last value handed out to any node. A node takes [`BLOCK`] values at once and gives them to its
//! sessions; a restart of the node loses the rest of the block. INVARIANT: no value is given twice, unless the sequence cycles or `setval`
//! or a restart of the sequence says so.
//!
//! The number is the sequence's OID until it is started anew (`TRUNCATE .. RESTART IDENTITY`), then another, which the catalog says
//! ([`SequenceDescriptor::values`]): the restart is the transaction's that asks for it, though its values are not. Numbers are never given
//! twice, so that nothing is found under one that is left from what was rolled back. That nobody goes on under a former one is the
//! table's matter: its ranges refuse whoever has not heard of the restart.

use super::Facts;
use crate::catalog::SequenceDescriptor;
use crate::engine::PlantedBug;
use crate::error::{SqlError, codes};
use crate::types::SqlState;
use bytes::Bytes;
use clock::Timestamp;
use coverage::{Mark, Rare, rare};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use storage::Key;
use txn::api::Lock;
use txn::client::{Db, TxnError, TxnOptions};

/// Values that a node takes at once.
const BLOCK: i64 = 32;

/// A node's share of the sequences.
pub(crate) struct Sequences {
    db: Db,
    /// By the number of a sequence's values: the next one, and the last one of the block.
    blocks: Mutex<BTreeMap<u32, (i64, i64)>>,
    /// Chaos only.
    planted: Option<PlantedBug>,
}

fn sequence_key(sequence: &SequenceDescriptor) -> Key {
    Key::system("sequence", &sequence.values().to_be_bytes())
}

impl Sequences {
    pub(crate) fn new(db: Db, planted: Option<PlantedBug>) -> Sequences {
        Sequences { db, blocks: Mutex::new(BTreeMap::new()), planted }
    }

    /// The mistake that this node makes on purpose, if any.
    pub(crate) fn planted(&self) -> Option<PlantedBug> {
        self.planted
    }

    /// Chaos only: what this node's wall clock reads.
    pub(crate) fn wall_clock(&self) -> Timestamp {
        Timestamp::new(self.db.runtime().time.wall().micros(), 0)
    }

    /// Chaos only: a row as it is outside of any transaction.
    pub(crate) async fn read_apart(&self, key: &Key) -> Result<Option<Bytes>, TxnError> {
        self.db.begin(TxnOptions::read_only("read apart")).get(key, None).await
    }

    /// `nextval`.
    pub(crate) async fn next(&self, facts: &Facts, id: u32) -> Result<i64, SqlError> {
        let sequence = descriptor(facts, id)?;
        let value = match self.take_from_block(&sequence) {
            Some(value) => value,
            None => self.allocate(&sequence).await?,
        };
        let mut drawn = facts.sequence_values.lock();
        drawn.values.insert(id, value);
        drawn.last = Some(id);
        Ok(value)
    }

    fn take_from_block(&self, sequence: &SequenceDescriptor) -> Option<i64> {
        let mut blocks = self.blocks.lock();
        if rare(Rare::SequenceBlockDropped) {
            blocks.remove(&sequence.values());
        }
        let (next, last) = *blocks.get(&sequence.values())?;
        if next == last {
            blocks.remove(&sequence.values());
        } else {
            blocks.insert(sequence.values(), (next + sequence.increment, last));
        }
        Some(next)
    }

    /// Takes a block and gives its first value.
    async fn allocate(&self, sequence: &SequenceDescriptor) -> Result<i64, SqlError> {
        let key = sequence_key(sequence);
        let overlap = self.planted == Some(PlantedBug::SequenceBlocksOverlap);
        let block = self.db.run(TxnOptions::labelled("nextval"), |txn| {
            let (key, sequence) = (key.clone(), sequence.clone());
            Box::pin(async move {
                let stored = txn.get(&key, Some(Lock::Exclusive)).await?;
                let last = stored.map(|bytes| number(&bytes)).transpose()?;
                let Some((first, end)) = next_block(&sequence, last) else { return Ok(None) };
                let used = if overlap { first } else { end };
                txn.put(key, Bytes::copy_from_slice(&used.to_be_bytes()))?;
                Ok(Some((first, end)))
            })
        });
        let Some((first, end)) = block.await? else {
            let (word, bound) = if sequence.increment > 0 {
                ("maximum", sequence.max)
            } else {
                ("minimum", sequence.min)
            };
            return Err(SqlError::new(
                SqlState::new("2200H"),
                format!(
                    "nextval: reached {word} value of sequence \"{}\" ({bound})",
                    sequence.name
                ),
            ));
        };
        if first != end {
            coverage::reached(Mark::SequenceBlockTaken);
            self.blocks.lock().insert(sequence.values(), (first + sequence.increment, end));
        }
        Ok(first)
    }

    /// `setval`. Blocks that other nodes have taken before are given out all the same.
    pub(crate) async fn set(
        &self,
        facts: &Facts,
        id: u32,
        value: i64,
        called: bool,
    ) -> Result<i64, SqlError> {
        let sequence = descriptor(facts, id)?;
        if !(sequence.min..=sequence.max).contains(&value) {
            return Err(SqlError::new(
                SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                format!(
                    "setval: value {value} is out of bounds for sequence \"{}\" ({}..{})",
                    sequence.name, sequence.min, sequence.max
                ),
            ));
        }
        facts.sequence_values.lock().set = true;
        let last = if called { Some(value) } else { value.checked_sub(sequence.increment) };
        let key = sequence_key(&sequence);
        let write = self.db.run(TxnOptions::labelled("setval"), |txn| {
            let key = key.clone();
            Box::pin(async move {
                match last {
                    Some(last) => txn.put(key, Bytes::copy_from_slice(&last.to_be_bytes())),
                    None => txn.delete(key),
                }
            })
        });
        write.await?;
        self.blocks.lock().remove(&sequence.values());
        if called {
            facts.sequence_values.lock().values.insert(id, value);
        }
        Ok(value)
    }
}

fn descriptor(facts: &Facts, id: u32) -> Result<std::sync::Arc<SequenceDescriptor>, SqlError> {
    facts.catalog.sequence(id).cloned().ok_or_else(|| {
        SqlError::new(codes::WRONG_OBJECT_TYPE, format!("relation with OID {id} is not a sequence"))
    })
}

fn number(bytes: &[u8]) -> Result<i64, TxnError> {
    bytes
        .try_into()
        .map(i64::from_be_bytes)
        .map_err(|_| TxnError::Invalid("a stored sequence value cannot be read".into()))
}

/// First and last value of the block after `last`; `None`: there are none left.
fn next_block(sequence: &SequenceDescriptor, last: Option<i64>) -> Option<(i64, i64)> {
    let up = sequence.increment > 0;
    let inside = |value: &i64| (sequence.min..=sequence.max).contains(value);
    let first = match last {
        None => sequence.start,
        Some(last) => match last.checked_add(sequence.increment).filter(inside) {
            Some(next) => next,
            None if sequence.cycle => {
                if up {
                    sequence.min
                } else {
                    sequence.max
                }
            }
            None => return None,
        },
    };
    let room = if up {
        i128::from(sequence.max) - i128::from(first)
    } else {
        i128::from(first) - i128::from(sequence.min)
    };
    let steps = (room / i128::from(sequence.increment).abs()).min(i128::from(BLOCK - 1));
    let end = i128::from(first) + steps * i128::from(sequence.increment);
    Some((first, i64::try_from(end).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(increment: i64, min: i64, max: i64, cycle: bool) -> SequenceDescriptor {
        let start = if increment > 0 { min } else { max };
        SequenceDescriptor {
            id: 1,
            schema: 1,
            name: "s".into(),
            owner: 1,
            start,
            increment,
            min,
            max,
            cycle,
            owned_by: None,
            restarted_as: None,
        }
    }

    #[test]
    fn blocks_follow_each_other_and_stop_at_the_bounds() {
        let up = sequence(1, 1, 40, false);
        assert_eq!(next_block(&up, None), Some((1, 32)));
        assert_eq!(next_block(&up, Some(32)), Some((33, 40)));
        assert_eq!(next_block(&up, Some(40)), None);
        let wide = sequence(i64::MAX, 1, i64::MAX, false);
        assert_eq!(next_block(&wide, None), Some((1, 1)));
        let down = sequence(-10, -25, -1, true);
        assert_eq!(next_block(&down, None), Some((-1, -21)));
        assert_eq!(next_block(&down, Some(-21)), Some((-1, -21)));
    }
}
