//! Value: transaction records: the one place that says whether a transaction is committed.
//!
//! ```text
//!   (nothing) ──heartbeat──► Pending ──EndTxn──► Committed(ts)  ──all intents resolved──► (nothing)
//!       │                     ▲    │               ▲
//!       ├──Stage──► Staging(ts, writes) ──all found┘
//!       │           a write   │    │
//!       │           prevented ┘    │
//!       └───────push, EndTxn───────┴──────────► Aborted         ──its own coordinator───► (nothing)
//! ```
//!
//! A record lies beside its anchor key, so it moves with splits and snapshots. `Committed` and
//! `Aborted` are final. `Staging` may mean "committed" (`stage`).
//!
//! # Why a removed record is never missed (killer T03)
//!
//! - `Committed` is removed only when no intent is left (the caller's word); a later push finds
//!   nothing, aborts what is by then only a duplicate of a request that had its effect already, and
//!   nothing is lost.
//! - `Aborted` is removed by the transaction's own coordinator, which then never commits it; or,
//!   when older than [`RECORD_KEPT`], by garbage collection. The transaction cannot come back then,
//!   because nobody may *create* a record for a transaction older than [`CREATION_AGE_MAX`].
//!   HAZARD: a clock wrong by more than the difference of the two (an hour; the cap is 250 ms)
//!   could let an aborted coordinator commit after its intents were dropped: lost writes.

use bytes::Bytes;
use clock::Timestamp;
use std::time::Duration;
use storage::mvcc::{Sequence, TxnId, record_key};
use storage::varint::{self, Input};
use storage::{Key, Reader, Space, Span, StorageError, WriteBatch};

use crate::api::{Staged, TxnMeta, TxnStatus};

/// A transaction that started longer ago gets no new record: it must have one already (heartbeats
/// write it) or restart.
pub const CREATION_AGE_MAX: Duration = Duration::from_secs(3600);
/// Garbage collection leaves younger records alone, counted from the transaction's start.
pub const RECORD_KEPT: Duration = Duration::from_secs(2 * 3600);
const _: () = assert!(RECORD_KEPT.as_secs() >= CREATION_AGE_MAX.as_secs() + 3600);

const FORMAT: u8 = 1;
const PENDING: u8 = 0;
const COMMITTED: u8 = 1;
const ABORTED: u8 = 2;
const STAGING: u8 = 3;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The verdict.
    pub status: TxnStatus,
    /// Clock of the leaseholder at the last heartbeat (or at the verdict).
    pub active: Timestamp,
    /// When the transaction first started.
    pub started: Timestamp,
    /// Where its intents are, once staged or committed.
    pub intents: Vec<Span>,
    /// Sequences taken back, once staged or committed.
    pub ignored: Vec<(Sequence, Sequence)>,
}

impl Record {
    /// A record without intents.
    pub fn bare(status: TxnStatus, active: Timestamp, started: Timestamp) -> Record {
        Record { status, active, started, intents: Vec::new(), ignored: Vec::new() }
    }

    /// The record of `id`, if there is one.
    pub fn read(
        reader: &dyn Reader,
        anchor: &Key,
        id: TxnId,
    ) -> Result<Option<Record>, StorageError> {
        reader.get(Space::Records, &record_key(anchor, id))?.map(Record::decode).transpose()
    }

    /// Puts it.
    pub fn put(&self, batch: &mut WriteBatch, anchor: &Key, id: TxnId) {
        batch.put(Space::Records, record_key(anchor, id), self.encode());
    }

    /// Removes it.
    pub fn remove(batch: &mut WriteBatch, anchor: &Key, id: TxnId) {
        batch.delete(Space::Records, record_key(anchor, id));
    }

    /// The stored bytes: format, status, (staged or commit), active, started, intents, ignored.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![FORMAT];
        match &self.status {
            TxnStatus::Pending => out.push(PENDING),
            TxnStatus::Staging(staged) => {
                out.push(STAGING);
                put_staged(&mut out, staged);
            }
            TxnStatus::Committed(ts) => {
                out.push(COMMITTED);
                out.extend_from_slice(&ts.raw().to_be_bytes());
            }
            TxnStatus::Aborted => out.push(ABORTED),
        }
        out.extend_from_slice(&self.active.raw().to_be_bytes());
        out.extend_from_slice(&self.started.raw().to_be_bytes());
        varint::put(&mut out, self.intents.len() as u64);
        for span in &self.intents {
            varint::put_bytes(&mut out, span.start.as_bytes());
            varint::put_bytes(&mut out, span.end.as_bytes());
        }
        varint::put(&mut out, self.ignored.len() as u64);
        for (first, last) in &self.ignored {
            varint::put(&mut out, u64::from(first.get()));
            varint::put(&mut out, u64::from(last.get()));
        }
        out.into()
    }

    /// What [`Record::encode`] wrote. Errors: `Corrupt`.
    pub fn decode(bytes: Bytes) -> Result<Record, StorageError> {
        let mut input = Input::new(bytes, "transaction record");
        if input.byte()? != FORMAT {
            return Err(input.corrupt("unknown format"));
        }
        let status = match input.byte()? {
            PENDING => TxnStatus::Pending,
            COMMITTED => TxnStatus::Committed(Timestamp::from_raw(input.u64()?)),
            ABORTED => TxnStatus::Aborted,
            STAGING => TxnStatus::Staging(take_staged(&mut input)?),
            _ => return Err(input.corrupt("unknown status")),
        };
        let active = Timestamp::from_raw(input.u64()?);
        let started = Timestamp::from_raw(input.u64()?);
        let mut intents = Vec::new();
        for _ in 0..input.count(2)? {
            intents.push(Span::new(Key::new(input.bytes()?), Key::new(input.bytes()?)));
        }
        let mut ignored = Vec::new();
        for _ in 0..input.count(2)? {
            ignored.push((Sequence::new(input.varint_u32()?), Sequence::new(input.varint_u32()?)));
        }
        input.finish()?;
        Ok(Record { status, active, started, intents, ignored })
    }
}

fn put_staged(out: &mut Vec<u8>, staged: &Staged) {
    out.extend_from_slice(&staged.at.raw().to_be_bytes());
    out.extend_from_slice(&staged.since.raw().to_be_bytes());
    varint::put(out, staged.writes.len() as u64);
    for (key, sequence) in &staged.writes {
        varint::put_bytes(out, key.as_bytes());
        varint::put(out, u64::from(sequence.get()));
    }
}

fn take_staged(input: &mut Input) -> Result<Staged, StorageError> {
    let at = Timestamp::from_raw(input.u64()?);
    let since = Timestamp::from_raw(input.u64()?);
    let mut writes = Vec::new();
    for _ in 0..input.count(2)? {
        writes.push((Key::new(input.bytes()?), Sequence::new(input.varint_u32()?)));
    }
    Ok(Staged { at, since, writes })
}

/// Whether a record may be created for a transaction that has none, at clock `now`.
pub fn may_create(txn: &TxnMeta, now: Timestamp) -> bool {
    txn.started.plus(CREATION_AGE_MAX) > now
}

/// Whether `sequence` was taken back.
pub fn is_ignored(ignored: &[(Sequence, Sequence)], sequence: Sequence) -> bool {
    ignored.iter().any(|(first, last)| *first <= sequence && sequence <= *last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_round_trip_and_cut_ones_are_corrupt(
            kind in 0..4u8, ts: u64, active: u64, started: u64,
            spans in proptest::collection::vec(any::<(Vec<u8>, Vec<u8>)>(), 0..3),
            ignored in proptest::collection::vec(any::<(u32, u32)>(), 0..3), cut: prop::sample::Index,
        ) {
            let record = Record {
                status: match kind {
                    0 => TxnStatus::Pending,
                    1 => TxnStatus::Committed(Timestamp::from_raw(ts)),
                    2 => TxnStatus::Staging(Staged {
                        at: Timestamp::from_raw(ts),
                        since: Timestamp::from_raw(active),
                        writes: ignored
                            .iter()
                            .map(|(key, sequence)| (Key::new(key.to_be_bytes().to_vec()), Sequence::new(*sequence)))
                            .collect(),
                    }),
                    _ => TxnStatus::Aborted,
                },
                active: Timestamp::from_raw(active),
                started: Timestamp::from_raw(started),
                intents: spans.into_iter().map(|(a, b)| Span::new(Key::new(a), Key::new(b))).collect(),
                ignored: ignored.into_iter().map(|(a, b)| (Sequence::new(a), Sequence::new(b))).collect(),
            };
            let bytes = record.encode();
            prop_assert!(Record::decode(bytes.slice(..cut.index(bytes.len()))).is_err());
            prop_assert_eq!(Record::decode(bytes).expect("decodes"), record);
        }
    }
}
