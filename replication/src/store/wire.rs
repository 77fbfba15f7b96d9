//! Value: the wire form of what travels between stores.
//!
//! ```text
//!   batch    format | cluster (16) | from | to | clock | count | message ..
//!   message  kind | fields
//! ```
//!
//! Numbers are varints, byte strings carry their length. Whatever an encoder did not write is `Corrupt`; nothing panics, and no
//! count is believed before the bytes for it are there. The transport has a checksum and a size limit of its own.

use bytes::Bytes;
use clock::{ClockTimestamp, Timestamp};
use std::time::Duration;
use storage::StorageError;
use storage::varint::{self, Input};

use super::{MessageBatch, StoreMessage};
use crate::raft::{Body, Entry, Incarnation, LogIndex, Message, ReplicaId, Term};
use crate::range::encoding::{put_descriptor, take_descriptor};
use crate::range::{NodeId, RangeId};

const FORMAT: u8 = 1;
/// Kind and range.
const MESSAGE_BYTES_MIN: usize = 2;
/// Term and length.
const ENTRY_BYTES_MIN: usize = 2;

mod kind {
    pub(super) const RAFT: u8 = 1;
    pub(super) const SUPPORT_REQUEST: u8 = 2;
    pub(super) const SUPPORT_REPLY: u8 = 3;
    pub(super) const SNAPSHOT_CHUNK: u8 = 4;
    pub(super) const SNAPSHOT_ACK: u8 = 5;
    pub(super) const PROBE: u8 = 6;
    pub(super) const GONE: u8 = 7;
    pub(super) const DEPARTED: u8 = 8;
}

mod body {
    pub(super) const PRE_VOTE: u8 = 1;
    pub(super) const PRE_VOTE_REPLY: u8 = 2;
    pub(super) const VOTE: u8 = 3;
    pub(super) const VOTE_REPLY: u8 = 4;
    pub(super) const APPEND: u8 = 5;
    pub(super) const APPEND_REPLY: u8 = 6;
    pub(super) const APPEND_REFUSED: u8 = 7;
    pub(super) const SNAPSHOT_REPLY: u8 = 8;
    pub(super) const TIMEOUT_NOW: u8 = 9;
    pub(super) const READ_INDEX: u8 = 10;
    pub(super) const READ_INDEX_REPLY: u8 = 11;
}

impl MessageBatch {
    /// The bytes that [`MessageBatch::decode`] reads.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![FORMAT];
        out.extend_from_slice(&self.cluster.to_be_bytes());
        varint::put(&mut out, u64::from(self.from.0));
        varint::put(&mut out, u64::from(self.to.0));
        varint::put(&mut out, self.clock.raw());
        varint::put(&mut out, self.messages.len() as u64);
        for message in &self.messages {
            put_store_message(&mut out, message);
        }
        out.into()
    }

    /// The batch in `bytes`, sharing them. Errors: `Corrupt` for anything that `encode` does not write.
    pub fn decode(bytes: Bytes) -> Result<MessageBatch, StorageError> {
        let mut input = Input::new(bytes, "message batch");
        if input.byte()? != FORMAT {
            return Err(input.corrupt("unknown format"));
        }
        let cluster = u128::from(input.u64()?) << 64 | u128::from(input.u64()?);
        let from = NodeId(input.varint_u32()?);
        let to = NodeId(input.varint_u32()?);
        let clock = ClockTimestamp::from_raw(input.varint()?);
        let count = input.count(MESSAGE_BYTES_MIN)?;
        let mut messages = Vec::with_capacity(count);
        for _ in 0..count {
            messages.push(take_store_message(&mut input)?);
        }
        input.finish()?;
        Ok(MessageBatch { cluster, from, to, clock, messages })
    }
}

impl StoreMessage {
    /// About how many bytes it takes on the wire, from above: for limits on batches.
    pub fn bytes(&self) -> usize {
        const SMALL: usize = 128;
        const ENTRY: usize = 2 * varint::VARINT_BYTES_MAX;
        match self {
            StoreMessage::Raft { message, .. } => match &message.body {
                Body::Append { entries, .. } => {
                    SMALL + entries.iter().map(|entry| entry.data.len() + ENTRY).sum::<usize>()
                }
                Body::PreVote { .. }
                | Body::PreVoteReply { .. }
                | Body::Vote { .. }
                | Body::VoteReply { .. }
                | Body::AppendReply { .. }
                | Body::AppendRefused { .. }
                | Body::SnapshotReply { .. }
                | Body::TimeoutNow { .. }
                | Body::ReadIndex { .. }
                | Body::ReadIndexReply { .. } => SMALL,
            },
            StoreMessage::SnapshotChunk { data, .. } => SMALL + data.len(),
            StoreMessage::Gone { descriptor, .. } => {
                let keys = &descriptor.span;
                SMALL
                    + keys.start.as_bytes().len()
                    + keys.end.as_bytes().len()
                    + descriptor.peers.len() * ENTRY
            }
            StoreMessage::SupportRequest { .. }
            | StoreMessage::SupportReply { .. }
            | StoreMessage::SnapshotAck { .. }
            | StoreMessage::Probe { .. }
            | StoreMessage::Departed { .. } => SMALL,
        }
    }
}

fn put_store_message(out: &mut Vec<u8>, message: &StoreMessage) {
    match message {
        StoreMessage::Raft { range, message, incarnation, to_incarnation } => {
            out.push(kind::RAFT);
            put_all(out, [range.0, incarnation.0, to_incarnation.0]);
            put_message(out, message);
        }
        StoreMessage::SupportRequest { incarnation, sequence, duration, read_bound } => {
            out.push(kind::SUPPORT_REQUEST);
            put_all(out, [incarnation.0, *sequence, nanos(*duration), read_bound.raw()]);
        }
        StoreMessage::SupportReply { incarnation, by, sequence, duration, read_bound } => {
            out.push(kind::SUPPORT_REPLY);
            put_all(out, [incarnation.0, by.0, *sequence, nanos(*duration), read_bound.raw()]);
        }
        StoreMessage::SnapshotChunk { range, from, to, term, attempt, number, data, last } => {
            out.push(kind::SNAPSHOT_CHUNK);
            put_all(out, [range.0, from.0, to.0, term.get(), *attempt, u64::from(*number)]);
            varint::put_bytes(out, data);
            out.push(u8::from(*last));
        }
        StoreMessage::SnapshotAck { range, from, to, attempt, next } => {
            out.push(kind::SNAPSHOT_ACK);
            put_all(out, [range.0, from.0, to.0, *attempt, u64::from(*next)]);
        }
        StoreMessage::Probe { range, replica } => {
            out.push(kind::PROBE);
            put_all(out, [range.0, replica.0]);
        }
        StoreMessage::Gone { range, replica, descriptor } => {
            out.push(kind::GONE);
            put_all(out, [range.0, replica.0]);
            put_descriptor(out, descriptor);
        }
        StoreMessage::Departed { range, below, incarnation } => {
            out.push(kind::DEPARTED);
            put_all(out, [range.0, below.0, incarnation.0]);
        }
    }
}

fn take_store_message(input: &mut Input) -> Result<StoreMessage, StorageError> {
    Ok(match input.byte()? {
        kind::RAFT => {
            let [range, incarnation, to_incarnation] = take_all(input)?;
            StoreMessage::Raft {
                range: RangeId(range),
                incarnation: Incarnation(incarnation),
                to_incarnation: Incarnation(to_incarnation),
                message: take_message(input)?,
            }
        }
        kind::SUPPORT_REQUEST => {
            let [incarnation, sequence, duration, read_bound] = take_all(input)?;
            StoreMessage::SupportRequest {
                incarnation: Incarnation(incarnation),
                sequence,
                duration: Duration::from_nanos(duration),
                read_bound: Timestamp::from_raw(read_bound),
            }
        }
        kind::SUPPORT_REPLY => {
            let [incarnation, by, sequence, duration, read_bound] = take_all(input)?;
            StoreMessage::SupportReply {
                incarnation: Incarnation(incarnation),
                by: Incarnation(by),
                sequence,
                duration: Duration::from_nanos(duration),
                read_bound: Timestamp::from_raw(read_bound),
            }
        }
        kind::SNAPSHOT_CHUNK => {
            let [range, from, to, term, attempt] = take_all(input)?;
            StoreMessage::SnapshotChunk {
                range: RangeId(range),
                from: ReplicaId(from),
                to: ReplicaId(to),
                term: Term::new(term),
                attempt,
                number: input.varint_u32()?,
                data: input.bytes()?,
                last: take_flag(input)?,
            }
        }
        kind::SNAPSHOT_ACK => {
            let [range, from, to, attempt] = take_all(input)?;
            StoreMessage::SnapshotAck {
                range: RangeId(range),
                from: ReplicaId(from),
                to: ReplicaId(to),
                attempt,
                next: input.varint_u32()?,
            }
        }
        kind::PROBE => {
            let [range, replica] = take_all(input)?;
            StoreMessage::Probe { range: RangeId(range), replica: ReplicaId(replica) }
        }
        kind::GONE => {
            let [range, replica] = take_all(input)?;
            let descriptor = take_descriptor(input)?;
            StoreMessage::Gone { range: RangeId(range), replica: ReplicaId(replica), descriptor }
        }
        kind::DEPARTED => {
            let [range, below, incarnation] = take_all(input)?;
            StoreMessage::Departed {
                range: RangeId(range),
                below: ReplicaId(below),
                incarnation: Incarnation(incarnation),
            }
        }
        _ => return Err(input.corrupt("unknown kind of message")),
    })
}

fn put_message(out: &mut Vec<u8>, message: &Message) {
    put_all(out, [message.from.0, message.to.0, message.term.get()]);
    match &message.body {
        Body::PreVote { last_index, last_term, blessed } => {
            out.push(body::PRE_VOTE);
            put_all(out, [last_index.get(), last_term.get()]);
            out.push(u8::from(*blessed));
        }
        Body::PreVoteReply { granted } => {
            out.push(body::PRE_VOTE_REPLY);
            out.push(u8::from(*granted));
        }
        Body::Vote { last_index, last_term, blessed } => {
            out.push(body::VOTE);
            put_all(out, [last_index.get(), last_term.get()]);
            out.push(u8::from(*blessed));
        }
        Body::VoteReply { granted, read_floor } => {
            out.push(body::VOTE_REPLY);
            out.push(u8::from(*granted));
            varint::put(out, read_floor.raw());
        }
        Body::Append { prev_index, prev_term, entries, commit, durable, context } => {
            out.push(body::APPEND);
            let (commit, durable) = (commit.get(), durable.get());
            put_all(out, [prev_index.get(), prev_term.get(), commit, durable, *context]);
            put_entries(out, *prev_index, entries);
        }
        Body::AppendReply { match_index, commit, context } => {
            out.push(body::APPEND_REPLY);
            put_all(out, [match_index.get(), commit.get(), *context]);
        }
        Body::AppendRefused { prev_index, hint_index, hint_term, context } => {
            out.push(body::APPEND_REFUSED);
            put_all(out, [prev_index.get(), hint_index.get(), hint_term.get(), *context]);
        }
        Body::SnapshotReply { index, accepted } => {
            out.push(body::SNAPSHOT_REPLY);
            varint::put(out, index.get());
            out.push(u8::from(*accepted));
        }
        Body::TimeoutNow { read_high } => {
            out.push(body::TIMEOUT_NOW);
            varint::put(out, read_high.raw());
        }
        Body::ReadIndex { context } => {
            out.push(body::READ_INDEX);
            varint::put(out, *context);
        }
        Body::ReadIndexReply { context, index } => {
            out.push(body::READ_INDEX_REPLY);
            put_all(out, [*context, index.get()]);
        }
    }
}

fn take_message(input: &mut Input) -> Result<Message, StorageError> {
    let [from, to, term] = take_all(input)?;
    let body = take_body(input)?;
    Ok(Message { from: ReplicaId(from), to: ReplicaId(to), term: Term::new(term), body })
}

fn take_body(input: &mut Input) -> Result<Body, StorageError> {
    Ok(match input.byte()? {
        body::PRE_VOTE => {
            let [index, term] = take_all(input)?;
            let (last_index, last_term) = (LogIndex::new(index), Term::new(term));
            Body::PreVote { last_index, last_term, blessed: take_flag(input)? }
        }
        body::PRE_VOTE_REPLY => Body::PreVoteReply { granted: take_flag(input)? },
        body::VOTE => {
            let [index, term] = take_all(input)?;
            let (last_index, last_term) = (LogIndex::new(index), Term::new(term));
            Body::Vote { last_index, last_term, blessed: take_flag(input)? }
        }
        body::VOTE_REPLY => Body::VoteReply {
            granted: take_flag(input)?,
            read_floor: Timestamp::from_raw(input.varint()?),
        },
        body::APPEND => {
            let [prev_index, prev_term, commit, durable, context] = take_all(input)?;
            let prev_index = LogIndex::new(prev_index);
            Body::Append {
                prev_index,
                prev_term: Term::new(prev_term),
                entries: take_entries(input, prev_index)?,
                commit: LogIndex::new(commit),
                durable: LogIndex::new(durable),
                context,
            }
        }
        body::APPEND_REPLY => {
            let [match_index, commit, context] = take_all(input)?;
            let (match_index, commit) = (LogIndex::new(match_index), LogIndex::new(commit));
            Body::AppendReply { match_index, commit, context }
        }
        body::APPEND_REFUSED => {
            let [prev_index, hint_index, hint_term, context] = take_all(input)?;
            Body::AppendRefused {
                prev_index: LogIndex::new(prev_index),
                hint_index: LogIndex::new(hint_index),
                hint_term: Term::new(hint_term),
                context,
            }
        }
        body::SNAPSHOT_REPLY => {
            let index = LogIndex::new(input.varint()?);
            Body::SnapshotReply { index, accepted: take_flag(input)? }
        }
        body::TIMEOUT_NOW => Body::TimeoutNow { read_high: Timestamp::from_raw(input.varint()?) },
        body::READ_INDEX => Body::ReadIndex { context: input.varint()? },
        body::READ_INDEX_REPLY => {
            let [context, index] = take_all(input)?;
            Body::ReadIndexReply { context, index: LogIndex::new(index) }
        }
        _ => return Err(input.corrupt("unknown body")),
    })
}

/// Entries follow `prev` without a gap, so their indexes need no bytes.
fn put_entries(out: &mut Vec<u8>, prev: LogIndex, entries: &[Entry]) {
    varint::put(out, entries.len() as u64);
    let mut index = prev;
    for entry in entries {
        index = index.next();
        assert_eq!(entry.index, index, "entries of an append are consecutive");
        varint::put(out, entry.term.get());
        varint::put_bytes(out, &entry.data);
    }
}

fn take_entries(input: &mut Input, prev: LogIndex) -> Result<Vec<Entry>, StorageError> {
    let count = input.count(ENTRY_BYTES_MIN)?;
    if prev.get().checked_add(count as u64).is_none() {
        return Err(input.corrupt("index over 64 bits"));
    }
    let mut entries = Vec::with_capacity(count);
    let mut index = prev;
    for _ in 0..count {
        index = index.next();
        entries.push(Entry { term: Term::new(input.varint()?), index, data: input.bytes()? });
    }
    Ok(entries)
}

fn put_all<const N: usize>(out: &mut Vec<u8>, values: [u64; N]) {
    for value in values {
        varint::put(out, value);
    }
}

fn take_all<const N: usize>(input: &mut Input) -> Result<[u64; N], StorageError> {
    let mut values = [0; N];
    for value in &mut values {
        *value = input.varint()?;
    }
    Ok(values)
}

fn take_flag(input: &mut Input) -> Result<bool, StorageError> {
    match input.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(input.corrupt("neither yes nor no")),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::range::encoding::tests::any_descriptor;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn any_entries(prev: u64) -> impl Strategy<Value = Vec<Entry>> {
        vec((any::<u64>(), vec(any::<u8>(), 0..20)), 0..4).prop_map(move |items| {
            (prev + 1..)
                .zip(items)
                .map(|(index, (term, data))| Entry {
                    index: LogIndex::new(index),
                    term: Term::new(term),
                    data: data.into(),
                })
                .collect()
        })
    }

    fn any_body() -> impl Strategy<Value = Body> {
        let index = || any::<u64>().prop_map(LogIndex::new);
        let term = || any::<u64>().prop_map(Term::new);
        let ts = || any::<u64>().prop_map(Timestamp::from_raw);
        let append = (0u64..1 << 40).prop_flat_map(move |prev| {
            (any_entries(prev), term(), index(), index(), any::<u64>()).prop_map(
                move |(entries, prev_term, commit, durable, context)| Body::Append {
                    prev_index: LogIndex::new(prev),
                    prev_term,
                    entries,
                    commit,
                    durable,
                    context,
                },
            )
        });
        prop_oneof![
            (index(), term(), any::<bool>()).prop_map(|(last_index, last_term, blessed)| {
                Body::PreVote { last_index, last_term, blessed }
            }),
            any::<bool>().prop_map(|granted| Body::PreVoteReply { granted }),
            (index(), term(), any::<bool>()).prop_map(|(last_index, last_term, blessed)| {
                Body::Vote { last_index, last_term, blessed }
            }),
            (any::<bool>(), ts())
                .prop_map(|(granted, read_floor)| Body::VoteReply { granted, read_floor }),
            append,
            (index(), index(), any::<u64>()).prop_map(|(match_index, commit, context)| {
                Body::AppendReply { match_index, commit, context }
            }),
            (index(), index(), term(), any::<u64>()).prop_map(
                |(prev_index, hint_index, hint_term, context)| Body::AppendRefused {
                    prev_index,
                    hint_index,
                    hint_term,
                    context
                }
            ),
            (index(), any::<bool>())
                .prop_map(|(index, accepted)| Body::SnapshotReply { index, accepted }),
            ts().prop_map(|read_high| Body::TimeoutNow { read_high }),
            any::<u64>().prop_map(|context| Body::ReadIndex { context }),
            (any::<u64>(), index())
                .prop_map(|(context, index)| Body::ReadIndexReply { context, index }),
        ]
    }

    fn any_message() -> impl Strategy<Value = StoreMessage> {
        let raft = (any::<[u64; 6]>(), any_body()).prop_map(|(n, body)| StoreMessage::Raft {
            range: RangeId(n[0]),
            incarnation: Incarnation(n[1]),
            to_incarnation: Incarnation(n[2]),
            message: Message {
                from: ReplicaId(n[3]),
                to: ReplicaId(n[4]),
                term: Term::new(n[5]),
                body,
            },
        });
        let chunk = (any::<[u64; 5]>(), any::<u32>(), vec(any::<u8>(), 0..30), any::<bool>())
            .prop_map(|(n, number, data, last)| StoreMessage::SnapshotChunk {
                range: RangeId(n[0]),
                from: ReplicaId(n[1]),
                to: ReplicaId(n[2]),
                term: Term::new(n[3]),
                attempt: n[4],
                number,
                data: data.into(),
                last,
            });
        prop_oneof![
            raft,
            chunk,
            any::<[u64; 4]>().prop_map(|n| StoreMessage::SupportRequest {
                incarnation: Incarnation(n[0]),
                sequence: n[1],
                duration: Duration::from_nanos(n[2]),
                read_bound: Timestamp::from_raw(n[3]),
            }),
            any::<[u64; 5]>().prop_map(|n| StoreMessage::SupportReply {
                incarnation: Incarnation(n[0]),
                by: Incarnation(n[1]),
                sequence: n[2],
                duration: Duration::from_nanos(n[3]),
                read_bound: Timestamp::from_raw(n[4]),
            }),
            (any::<[u64; 4]>(), any::<u32>()).prop_map(|(n, next)| StoreMessage::SnapshotAck {
                range: RangeId(n[0]),
                from: ReplicaId(n[1]),
                to: ReplicaId(n[2]),
                attempt: n[3],
                next,
            }),
            any::<[u64; 2]>().prop_map(|n| StoreMessage::Probe {
                range: RangeId(n[0]),
                replica: ReplicaId(n[1]),
            }),
            any::<[u64; 3]>().prop_map(|n| StoreMessage::Departed {
                range: RangeId(n[0]),
                below: ReplicaId(n[1]),
                incarnation: Incarnation(n[2]),
            }),
            (any::<[u64; 2]>(), any_descriptor()).prop_map(|(n, descriptor)| StoreMessage::Gone {
                range: RangeId(n[0]),
                replica: ReplicaId(n[1]),
                descriptor,
            }),
        ]
    }

    fn any_batch() -> impl Strategy<Value = MessageBatch> {
        (any::<u128>(), any::<[u32; 2]>(), any::<u64>(), vec(any_message(), 0..4)).prop_map(
            |(cluster, nodes, clock, messages)| MessageBatch {
                cluster,
                from: NodeId(nodes[0]),
                to: NodeId(nodes[1]),
                clock: ClockTimestamp::from_raw(clock),
                messages,
            },
        )
    }

    proptest! {
        #[test]
        fn batches_round_trip(batch in any_batch()) {
            let bytes = batch.encode();
            let limit = batch.messages.iter().map(StoreMessage::bytes).sum::<usize>() + 64;
            prop_assert!(bytes.len() <= limit);
            prop_assert_eq!(MessageBatch::decode(bytes).expect("decodes"), batch);
        }

        #[test]
        fn a_cut_batch_is_an_error(batch in any_batch(), cut: prop::sample::Index) {
            let bytes = batch.encode();
            let cut = cut.index(bytes.len());
            prop_assert!(MessageBatch::decode(bytes.slice(..cut)).is_err());
        }

        #[test]
        fn damage_never_panics(batch in any_batch(), places in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
            let mut bytes = batch.encode().to_vec();
            for (place, value) in places {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            let _ = MessageBatch::decode(bytes.into());
        }
    }
}
