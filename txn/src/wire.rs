//! Value: the bytes of the KV API. A batch or an answer travels as one message of these bytes, inside the transport's own frame.
//!
//! The form is positional: a leading version byte, then fields in declaration order; integers little-endian, lengths as `u32`,
//! enums by a tag byte that is never reused. Decoding checks every length against what is left: garbage is an error, never a panic and
//! never an allocation larger than the input. Both ends of a connection agree on the version; another version is refused.
//!
//! INVARIANT: `decode(encode(x)) == x` (property in this file's tests); the simulator sends every message through here as well.

use bytes::{Buf, Bytes};
use clock::{ClockTimestamp, Timestamp};
use replication::raft::{ReplicaId, Term};
use replication::range::{NodeId, Peer, PeerRole, RangeDescriptor, RangeId};
use std::time::Duration;
use storage::{Direction, Key, Span};

use crate::api::*;
use crate::client::{Fate, Question, Sighting};
use crate::contention::KeyContention;

/// First byte of every message.
const VERSION: u8 = 1;
/// No message of this API is longer.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The bytes are not a message of this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed KV message: {0}")]
pub struct WireError(pub &'static str);

type Taken<T> = Result<T, WireError>;

/// Something with a byte form.
pub trait Wire: Sized {
    /// Appends the bytes.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes them off the front.
    fn take(input: &mut Bytes) -> Taken<Self>;
}

/// A whole message: version, then the value.
pub fn encode<T: Wire>(value: &T) -> Bytes {
    let mut out = Vec::with_capacity(256);
    out.push(VERSION);
    value.put(&mut out);
    out.into()
}

/// Decodes a whole message; trailing bytes are an error.
pub fn decode<T: Wire>(mut input: Bytes) -> Taken<T> {
    if input.len() > MESSAGE_BYTES_MAX {
        return Err(WireError("too long"));
    }
    if u8::take(&mut input)? != VERSION {
        return Err(WireError("unknown version"));
    }
    let value = T::take(&mut input)?;
    if input.is_empty() { Ok(value) } else { Err(WireError("trailing bytes")) }
}

macro_rules! wire_integer {
    ($($type:ty, $take:ident);*) => {$(
        impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn take(input: &mut Bytes) -> Taken<Self> {
                if input.len() < size_of::<$type>() {
                    return Err(WireError("short integer"));
                }
                Ok(input.$take())
            }
        }
    )*};
}
wire_integer!(u8, get_u8; u16, get_u16_le; u32, get_u32_le; u64, get_u64_le; u128, get_u128_le);

/// A type that is one number: through these two functions.
macro_rules! wire_number {
    ($($type:ty: $number:ty, $to:expr, $from:expr;)*) => {$(
        impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                let to: fn(&$type) -> $number = $to;
                to(self).put(out);
            }
            fn take(input: &mut Bytes) -> Taken<Self> {
                let from: fn($number) -> $type = $from;
                Ok(from(<$number>::take(input)?))
            }
        }
    )*};
}
wire_number! {
    Timestamp: u64, |t| t.raw(), Timestamp::from_raw;
    ClockTimestamp: u64, |t| t.raw(), ClockTimestamp::from_raw;
    NodeId: u32, |n| n.0, NodeId;
    RangeId: u64, |r| r.0, RangeId;
    ReplicaId: u64, |r| r.0, ReplicaId;
    Term: u64, |t| t.get(), Term::new;
    TxnId: u128, |t| t.get(), TxnId::new;
    Sequence: u32, |s| s.get(), Sequence::new;
    Duration: u64, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX), Duration::from_micros;
}

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(input: &mut Bytes) -> Taken<Self> {
        match u8::take(input)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError("not a boolean")),
        }
    }
}

impl Wire for Bytes {
    fn put(&self, out: &mut Vec<u8>) {
        let length = u32::try_from(self.len())
            .expect("no value reaches 4 GiB: limits are checked before encoding");
        length.put(out);
        out.extend_from_slice(self);
    }
    fn take(input: &mut Bytes) -> Taken<Self> {
        let length = u32::take(input)? as usize;
        if length > input.len() {
            return Err(WireError("short bytes"));
        }
        Ok(input.split_to(length))
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        Bytes::copy_from_slice(self.as_bytes()).put(out);
    }
    fn take(input: &mut Bytes) -> Taken<Self> {
        String::from_utf8(<Bytes as Wire>::take(input)?.to_vec())
            .map_err(|_| WireError("not UTF-8"))
    }
}

impl Wire for Key {
    fn put(&self, out: &mut Vec<u8>) {
        self.bytes().put(out);
    }
    fn take(input: &mut Bytes) -> Taken<Self> {
        Ok(Key::new(<Bytes as Wire>::take(input)?))
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(input: &mut Bytes) -> Taken<Self> {
        Ok(if bool::take(input)? { Some(T::take(input)?) } else { None })
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        let length = u32::try_from(self.len())
            .expect("no list reaches 4 G items: limits are checked before encoding");
        length.put(out);
        self.iter().for_each(|item| item.put(out));
    }
    fn take(input: &mut Bytes) -> Taken<Self> {
        let length = u32::take(input)? as usize;
        // Every item takes at least one byte, so a length beyond the input is a lie, told before anything is allocated for it.
        if length > input.len() {
            return Err(WireError("short list"));
        }
        (0..length).map(|_| T::take(input)).collect()
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(input: &mut Bytes) -> Taken<Self> {
        Ok((A::take(input)?, B::take(input)?))
    }
}

macro_rules! wire_struct {
    ($($type:ident { $($field:ident),* })*) => {$(
        impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                let $type { $($field),* } = self;
                $($field.put(out);)*
            }
            fn take(input: &mut Bytes) -> Taken<Self> {
                $(let $field = Wire::take(input)?;)*
                Ok($type { $($field),* })
            }
        }
    )*};
}

/// Enums: `tag => Variant { fields }`, `tag => Variant(inner)` or `tag => Variant`.
macro_rules! wire_enum {
    ($type:ident { $($tag:literal => $variant:ident $({ $($field:ident),* })? $(($inner:ident))? ,)* }) => {
        impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $($type::$variant $({ $($field),* })? $(($inner))? => {
                        out.push($tag);
                        $($($field.put(out);)*)?
                        $($inner.put(out);)?
                    })*
                }
            }
            fn take(input: &mut Bytes) -> Taken<Self> {
                match u8::take(input)? {
                    $($tag => {
                        $($(let $field = Wire::take(input)?;)*)?
                        $(let $inner = Wire::take(input)?;)?
                        Ok($type::$variant $({ $($field),* })? $(($inner))?)
                    })*
                    _ => Err(WireError(concat!("unknown tag of ", stringify!($type)))),
                }
            }
        }
    };
}

wire_struct! {
    Span { start, end }
    Peer { node, replica, role }
    RangeDescriptor { id, span, generation, peers, next_replica }
    TxnMeta { id, anchor, started, priority, stage }
    Mutation { key, value, expect, sequence }
    Staged { at, since, writes }
    Sought { at, found }
    Batch { range, read_at, uncertainty_limit, footing, txn, schema, pushed, ignored, wait, asks_era, requests }
    Row { key, value, ts }
    Change { ts, key, value }
    LockEra { range, span, lease, losses }
    Skipped { key, holder, active }
    Reply { responses, clock, read_at, range, eras, read_high, skipped }
    KeyContention { waits, waited, longest, retries, deadlocks, waiter, holder, at }
    Sighting { txn, statement, user, started, fate }
}

wire_enum!(PeerRole { 0 => Voter, 1 => VoterBoth, 2 => Outgoing, 3 => Learner, });
wire_enum!(Direction { 0 => Forward, 1 => Reverse, });
wire_enum!(Lock { 0 => Shared, 1 => Exclusive, });
wire_enum!(Footing { 0 => Fixed, 1 => Free, });
wire_enum!(Wait { 0 => Queue(slice), 1 => Error, 2 => Skip, });
wire_enum!(Expect { 0 => Anything, 1 => Absent, });
wire_enum!(PushKind { 0 => Abort, 1 => Timestamp(ts), 2 => Force, });
wire_enum!(Missing { 0 => Tell, 1 => Prevent, });
wire_enum!(Found { 0 => All, 1 => Prevented, });
wire_enum!(Advice { 0 => Wait, 1 => GiveUp, 2 => Recover, 3 => Pass, });
wire_enum!(Fate { 0 => Open, 1 => Committed(ts), 2 => Ended, });
wire_enum!(Question { 0 => Transaction(txn), 1 => Writer { key, ts }, 2 => AborterOf(txn), });
wire_enum!(TxnStatus { 0 => Pending, 1 => Committed(ts), 2 => Aborted, 3 => Staging(staged), });
wire_enum!(Request {
    0 => Get { key, lock },
    1 => Scan { span, direction, limit, bytes_max, lock },
    2 => Refresh { span, since },
    3 => Write { mutations },
    4 => CommitOnePhase { mutations, reads, reads_elsewhere, deadline },
    5 => EndTxn { commit_ts, intents, deadline },
    6 => Resolve { txn, commit_ts, ignored, spans },
    7 => Push { pushee, active, kind, dependents, sought },
    8 => Heartbeat,
    9 => QueryTxn { txn, anchor },
    10 => ForgetTxn { txn, anchor },
    11 => Changes { span, after, bytes_max },
    12 => Fence { span, table, version },
    13 => Split { at, right },
    14 => TransferLease { to },
    15 => Gc { span, threshold },
    16 => Stage { intents, writes, deadline },
    17 => QueryWrites { txn, at, writes, missing },
    18 => Settle { txn, started, key },
    19 => Unlock { spans, since, upto },
});
wire_enum!(Response {
    0 => Get(row),
    1 => Scan { rows, resume },
    2 => Done,
    3 => Written(ts),
    4 => Committed(ts),
    5 => Aborted,
    6 => Pushed { status, intents, ignored, advice },
    7 => Alive(status),
    8 => Txn { status, waiters },
    9 => Changes { changes, upto },
    10 => Split { left, right },
    11 => Gc { more },
    12 => Staged(ts),
    13 => Writes { all },
});
wire_enum!(KvError {
    0 => NotLeaseholder { range, hint },
    1 => RangeMismatch { range, known },
    2 => Unreachable { node, sent },
    3 => Uncertain { key, ts },
    4 => NewerVersion { key, ts },
    5 => NeedsRefresh { ts },
    7 => Blocked { key, holder, active, intent },
    8 => TxnAborted { reason },
    9 => Exists { key, value },
    10 => SchemaChanged { table, version },
    11 => BelowGc { threshold },
    12 => Unavailable { range, missing, reason },
    13 => Overloaded { range },
    14 => Ambiguous { reason },
    15 => DeadlinePassed,
    16 => Invalid(reason),
    17 => RefreshFailed { key, ts, by },
    18 => Doubtful { refused },
    19 => Deadlock { key, holder },
    20 => TooManyLocks { range, limit },
});

/// Tag of `KvError::Doubtful`.
const DOUBTFUL: u8 = 18;

/// Of a refusal in doubt. One within another would be recursion as deep as a sender likes.
impl Wire for Box<KvError> {
    fn put(&self, out: &mut Vec<u8>) {
        (**self).put(out);
    }
    fn take(input: &mut Bytes) -> Taken<Self> {
        if input.first() == Some(&DOUBTFUL) {
            return Err(WireError("doubt in doubt"));
        }
        KvError::take(input).map(Box::new)
    }
}

impl<T: Wire, E: Wire> Wire for Result<T, E> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Ok(value) => {
                out.push(0);
                value.put(out);
            }
            Err(error) => {
                out.push(1);
                error.put(out);
            }
        }
    }
    fn take(input: &mut Bytes) -> Taken<Self> {
        match u8::take(input)? {
            0 => Ok(Ok(T::take(input)?)),
            1 => Ok(Err(E::take(input)?)),
            _ => Err(WireError("unknown tag of a result")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample_batch() -> Batch {
        Batch {
            range: Some((RangeId(7), 3)),
            read_at: Timestamp::new(10, 1),
            uncertainty_limit: Timestamp::new(20, 0),
            footing: Footing::Free,
            txn: Some(TxnMeta {
                id: TxnId::new(9),
                anchor: Key::new(&b"a"[..]),
                started: Timestamp::new(1, 0),
                priority: 5,
                stage: 6,
            }),
            schema: vec![(100, 2)],
            pushed: vec![(TxnId::new(4), Timestamp::new(3, 3))],
            ignored: vec![(Sequence::new(1), Sequence::new(2))],
            wait: Wait::Queue(WAIT_SLICE),
            asks_era: true,
            requests: vec![
                Request::Get { key: Key::new(&b"k"[..]), lock: Some(Lock::Exclusive) },
                Request::Write {
                    mutations: vec![Mutation {
                        key: Key::new(&b"k"[..]),
                        value: None,
                        expect: Expect::Absent,
                        sequence: Sequence::new(3),
                    }],
                },
                Request::Heartbeat,
            ],
        }
    }

    #[test]
    fn a_batch_survives_its_bytes() {
        let batch = sample_batch();
        assert_eq!(decode::<Batch>(encode(&batch)), Ok(batch));
    }

    #[test]
    fn every_truncation_of_a_message_is_refused() {
        let bytes = encode(&sample_batch());
        for length in 0..bytes.len() {
            assert!(
                decode::<Batch>(bytes.slice(..length)).is_err(),
                "accepted {length} of {} bytes",
                bytes.len()
            );
        }
    }

    #[test]
    fn a_refusal_in_doubt_survives_its_bytes_and_none_is_within_another() {
        let doubt = |error| KvError::Doubtful { refused: Box::new(error) };
        let told: Result<Reply, KvError> = Err(doubt(KvError::DeadlinePassed));
        assert_eq!(decode::<Result<Reply, KvError>>(encode(&told)), Ok(told.clone()));
        let deep: Result<Reply, KvError> = Err(doubt(doubt(KvError::DeadlinePassed)));
        assert!(decode::<Result<Reply, KvError>>(encode(&deep)).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut framed = vec![VERSION];
            framed.extend(bytes);
            let _ = decode::<Batch>(framed.clone().into());
            let _ = decode::<Result<Reply, KvError>>(framed.into());
        }
    }
}
