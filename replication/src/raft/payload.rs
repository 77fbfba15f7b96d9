//! Value: what an entry says to Raft itself, as bytes in [`Entry::data`].
//!
//! ```text
//!   (no bytes)                                              Empty
//!   1, command ...                                          Command
//!   2, voters, outgoing, learners, context ...              Membership; each set is a count (u32) and ids (u64), big-endian
//! ```
//!
//! INVARIANT: `decode(encode(p)) == p`; bytes that no `encode` made are an error, never a panic and never another payload.

use super::{Entry, Membership, Payload, ReplicaId};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeSet;
use storage::StorageError;

const TAG_COMMAND: u8 = 1;
const TAG_MEMBERSHIP: u8 = 2;

impl Payload {
    /// As [`Entry::data`].
    pub fn encode(&self) -> Bytes {
        match self {
            Payload::Empty => Bytes::new(),
            Payload::Command(command) => {
                let mut data = BytesMut::with_capacity(1 + command.len());
                data.put_u8(TAG_COMMAND);
                data.put_slice(command);
                data.freeze()
            }
            Payload::Membership { membership, context } => {
                let mut data = BytesMut::new();
                data.put_u8(TAG_MEMBERSHIP);
                for set in [&membership.voters, &membership.outgoing, &membership.learners] {
                    let count =
                        u32::try_from(set.len()).expect("a group has far fewer than 2^32 members");
                    data.put_u32(count);
                    for id in set {
                        data.put_u64(id.0);
                    }
                }
                data.put_slice(context);
                data.freeze()
            }
        }
    }

    /// The payload of an entry's data. Errors: [`StorageError::Corrupt`] when no `encode` made these bytes.
    pub fn decode(data: &Bytes) -> Result<Payload, StorageError> {
        match data.first().copied() {
            None => Ok(Payload::Empty),
            Some(TAG_COMMAND) => Ok(Payload::Command(data.slice(1..))),
            Some(TAG_MEMBERSHIP) => {
                let mut position = 1;
                let voters = decode_set(data, &mut position)?;
                let outgoing = decode_set(data, &mut position)?;
                let learners = decode_set(data, &mut position)?;
                let membership = Membership { voters, outgoing, learners };
                Ok(Payload::Membership { membership, context: data.slice(position..) })
            }
            Some(tag) => Err(StorageError::Corrupt(format!("raft entry of unknown kind {tag}"))),
        }
    }
}

/// The membership that an entry puts in force, if it is one; does not look at commands.
pub(super) fn membership_of(entry: &Entry) -> Result<Option<Membership>, StorageError> {
    if entry.data.first() != Some(&TAG_MEMBERSHIP) {
        return Ok(None);
    }
    match Payload::decode(&entry.data)? {
        Payload::Membership { membership, .. } => Ok(Some(membership)),
        Payload::Empty | Payload::Command(_) => Ok(None),
    }
}

fn decode_set(data: &Bytes, position: &mut usize) -> Result<BTreeSet<ReplicaId>, StorageError> {
    let short = || StorageError::Corrupt("raft membership entry ends early".to_string());
    let count = data.get(*position..*position + 4).ok_or_else(short)?;
    let count = u32::from_be_bytes(count.try_into().expect("the span has four bytes"));
    *position += 4;
    let mut set = BTreeSet::new();
    for _ in 0..count {
        let id = data.get(*position..*position + 8).ok_or_else(short)?;
        let id = ReplicaId(u64::from_be_bytes(id.try_into().expect("the span has eight bytes")));
        if set.last().is_some_and(|last| *last >= id) {
            return Err(StorageError::Corrupt("raft membership entry is not in order".to_string()));
        }
        set.insert(id);
        *position += 8;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payload() -> impl Strategy<Value = Payload> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let set = proptest::collection::btree_set(any::<u64>().prop_map(ReplicaId), 0..6);
        prop_oneof![
            Just(Payload::Empty),
            bytes.clone().prop_map(Payload::Command),
            (set.clone(), set.clone(), set, bytes).prop_map(
                |(voters, outgoing, learners, context)| {
                    Payload::Membership {
                        membership: Membership { voters, outgoing, learners },
                        context,
                    }
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(payload in payload()) {
            prop_assert_eq!(Payload::decode(&payload.encode()).unwrap(), payload);
        }

        #[test]
        fn garbage_is_an_error_or_encodes_to_itself(data in proptest::collection::vec(any::<u8>(), 0..60)) {
            let data = Bytes::from(data);
            if let Ok(payload) = Payload::decode(&data) {
                prop_assert_eq!(payload.encode(), data);
            }
        }
    }
}
