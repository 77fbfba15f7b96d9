//! Value: the wire, log and disk forms of descriptors, commands and range states.
//!
//! Numbers are varints, byte strings carry their length, every record that is stored begins with its format. Every replica
//! applies these bytes, so decoding is exact: whatever an encoder did not write is `Corrupt`, never a shorter record, and no
//! count is believed before the bytes for it are there.

use bytes::Bytes;
use clock::Timestamp;
use std::collections::BTreeMap;
use storage::varint::{self, Input};
use storage::{Key, Span, StorageError, WriteBatch};

use super::{Command, Effect, NodeId, Peer, PeerRole, RangeDescriptor, RangeId, RangeState};
use crate::raft::{LogIndex, ReplicaId, Term};

const FORMAT: u8 = 1;
/// Node, replica, role.
const PEER_BYTES_MIN: usize = 3;
/// Table, version.
const FENCE_BYTES_MIN: usize = 2;

const EFFECT_NONE: u8 = 0;
const EFFECT_SPLIT: u8 = 1;
const EFFECT_FENCE: u8 = 2;
const EFFECT_GC: u8 = 3;

impl RangeDescriptor {
    /// The bytes that [`RangeDescriptor::decode`] reads.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![FORMAT];
        put_descriptor(&mut out, self);
        out.into()
    }

    /// The descriptor in `bytes`. Errors: `Corrupt` for anything that `encode` does not write.
    pub fn decode(bytes: Bytes) -> Result<RangeDescriptor, StorageError> {
        let mut input = Input::new(bytes, "range descriptor");
        check_format(&mut input)?;
        let descriptor = take_descriptor(&mut input)?;
        input.finish()?;
        Ok(descriptor)
    }
}

impl Command {
    /// The bytes that [`Command::decode`] reads: what is replicated.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.batch.bytes() + 2);
        out.push(FORMAT);
        put_effect(&mut out, &self.effect);
        out.extend_from_slice(&self.batch.encode());
        out.into()
    }

    /// The command in `bytes`, sharing them. Errors: `Corrupt` for anything that `encode` does not write.
    pub fn decode(bytes: Bytes) -> Result<Command, StorageError> {
        let mut input = Input::new(bytes, "command");
        check_format(&mut input)?;
        let effect = take_effect(&mut input)?;
        Ok(Command { effect, batch: WriteBatch::decode_shared(input.remainder())? })
    }
}

impl RangeState {
    /// The bytes that [`RangeState::decode`] reads.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![FORMAT];
        varint::put(&mut out, self.applied.0.get());
        varint::put(&mut out, self.applied.1.get());
        varint::put(&mut out, self.gc_threshold.raw());
        varint::put(&mut out, self.fences.len() as u64);
        for (table, version) in &self.fences {
            varint::put(&mut out, u64::from(*table));
            varint::put(&mut out, *version);
        }
        put_descriptor(&mut out, &self.descriptor);
        out.into()
    }

    /// The state in `bytes`. Errors: `Corrupt` for anything that `encode` does not write.
    pub fn decode(bytes: Bytes) -> Result<RangeState, StorageError> {
        let mut input = Input::new(bytes, "range state");
        check_format(&mut input)?;
        let applied = (LogIndex::new(input.varint()?), Term::new(input.varint()?));
        let gc_threshold = Timestamp::from_raw(input.varint()?);
        let mut fences = BTreeMap::new();
        for _ in 0..input.count(FENCE_BYTES_MIN)? {
            let table = input.varint_u32()?;
            let above = fences.last_key_value().is_none_or(|(last, _)| *last < table);
            if !above {
                return Err(input.corrupt("fences out of order"));
            }
            fences.insert(table, input.varint()?);
        }
        let descriptor = take_descriptor(&mut input)?;
        input.finish()?;
        Ok(RangeState { applied, descriptor, fences, gc_threshold })
    }
}

fn check_format(input: &mut Input) -> Result<(), StorageError> {
    if input.byte()? == FORMAT { Ok(()) } else { Err(input.corrupt("unknown format")) }
}

pub(crate) fn put_descriptor(out: &mut Vec<u8>, descriptor: &RangeDescriptor) {
    varint::put(out, descriptor.id.0);
    varint::put_bytes(out, descriptor.span.start.as_bytes());
    varint::put_bytes(out, descriptor.span.end.as_bytes());
    varint::put(out, descriptor.generation);
    varint::put(out, descriptor.next_replica);
    varint::put(out, descriptor.peers.len() as u64);
    for peer in &descriptor.peers {
        varint::put(out, u64::from(peer.node.0));
        varint::put(out, peer.replica.0);
        out.push(role_number(peer.role));
    }
}

pub(crate) fn take_descriptor(input: &mut Input) -> Result<RangeDescriptor, StorageError> {
    let id = RangeId(input.varint()?);
    let span = Span::new(Key::new(input.bytes()?), Key::new(input.bytes()?));
    let generation = input.varint()?;
    let next_replica = input.varint()?;
    let count = input.count(PEER_BYTES_MIN)?;
    let mut peers: Vec<Peer> = Vec::with_capacity(count);
    for _ in 0..count {
        let node = NodeId(input.varint_u32()?);
        let replica = ReplicaId(input.varint()?);
        let role = input.byte()?;
        let role = role_from(role).ok_or_else(|| input.corrupt("unknown role"))?;
        if peers.last().is_some_and(|last| last.replica >= replica) {
            return Err(input.corrupt("peers out of order"));
        }
        peers.push(Peer { node, replica, role });
    }
    Ok(RangeDescriptor { id, span, generation, peers, next_replica })
}

/// Its number on disk and on the wire; never changes.
fn role_number(role: PeerRole) -> u8 {
    match role {
        PeerRole::Voter => 0,
        PeerRole::VoterBoth => 1,
        PeerRole::Outgoing => 2,
        PeerRole::Learner => 3,
    }
}

fn role_from(number: u8) -> Option<PeerRole> {
    match number {
        0 => Some(PeerRole::Voter),
        1 => Some(PeerRole::VoterBoth),
        2 => Some(PeerRole::Outgoing),
        3 => Some(PeerRole::Learner),
        _ => None,
    }
}

fn put_effect(out: &mut Vec<u8>, effect: &Effect) {
    match effect {
        Effect::None => out.push(EFFECT_NONE),
        Effect::Split { left, right } => {
            out.push(EFFECT_SPLIT);
            put_descriptor(out, left);
            put_descriptor(out, right);
        }
        Effect::Fence { table, version } => {
            out.push(EFFECT_FENCE);
            varint::put(out, u64::from(*table));
            varint::put(out, *version);
        }
        Effect::GcThreshold(threshold) => {
            out.push(EFFECT_GC);
            varint::put(out, threshold.raw());
        }
    }
}

fn take_effect(input: &mut Input) -> Result<Effect, StorageError> {
    match input.byte()? {
        EFFECT_NONE => Ok(Effect::None),
        EFFECT_SPLIT => {
            Ok(Effect::Split { left: take_descriptor(input)?, right: take_descriptor(input)? })
        }
        EFFECT_FENCE => Ok(Effect::Fence { table: input.varint_u32()?, version: input.varint()? }),
        EFFECT_GC => Ok(Effect::GcThreshold(Timestamp::from_raw(input.varint()?))),
        _ => Err(input.corrupt("unknown effect")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use storage::Space;

    pub(crate) fn any_key() -> impl Strategy<Value = Key> {
        vec(any::<u8>(), 0..12).prop_map(Key::new)
    }

    pub(crate) fn any_descriptor() -> impl Strategy<Value = RangeDescriptor> {
        let peers = btree_map(any::<u64>(), (any::<u32>(), 0u8..4), 0..5);
        (any::<u64>(), any_key(), any_key(), any::<u64>(), peers, any::<u64>()).prop_map(
            |(id, start, end, generation, peers, next_replica)| RangeDescriptor {
                id: RangeId(id),
                span: Span::new(start, end),
                generation,
                peers: peers
                    .into_iter()
                    .map(|(replica, (node, role))| Peer {
                        node: NodeId(node),
                        replica: ReplicaId(replica),
                        role: role_from(role).expect("four roles"),
                    })
                    .collect(),
                next_replica,
            },
        )
    }

    fn any_effect() -> impl Strategy<Value = Effect> {
        prop_oneof![
            Just(Effect::None),
            (any_descriptor(), any_descriptor())
                .prop_map(|(left, right)| Effect::Split { left, right }),
            (any::<u32>(), any::<u64>())
                .prop_map(|(table, version)| Effect::Fence { table, version }),
            any::<u64>().prop_map(|raw| Effect::GcThreshold(Timestamp::from_raw(raw))),
        ]
    }

    pub(crate) fn any_state() -> impl Strategy<Value = RangeState> {
        let fences = btree_map(any::<u32>(), any::<u64>(), 0..4);
        (any::<u64>(), any::<u64>(), any_descriptor(), fences, any::<u64>()).prop_map(
            |(index, term, descriptor, fences, gc)| RangeState {
                applied: (LogIndex::new(index), Term::new(term)),
                descriptor,
                fences,
                gc_threshold: Timestamp::from_raw(gc),
            },
        )
    }

    proptest! {
        #[test]
        fn descriptors_round_trip(descriptor in any_descriptor()) {
            prop_assert_eq!(RangeDescriptor::decode(descriptor.encode()).expect("decodes"), descriptor);
        }

        #[test]
        fn states_round_trip(state in any_state()) {
            prop_assert_eq!(RangeState::decode(state.encode()).expect("decodes"), state);
        }

        #[test]
        fn commands_round_trip(effect in any_effect(), key in any_key(), value in vec(any::<u8>(), 0..40)) {
            let mut batch = WriteBatch::new();
            batch.put(Space::Versions, key.bytes().clone(), value);
            let command = Command { batch, effect };
            prop_assert_eq!(Command::decode(command.encode()).expect("decodes"), command);
        }

        #[test]
        fn a_cut_record_is_an_error(state in any_state(), effect in any_effect(), cut: prop::sample::Index) {
            let bytes = state.encode();
            prop_assert!(RangeState::decode(bytes.slice(..cut.index(bytes.len()))).is_err());
            let bytes = Command { batch: WriteBatch::new(), effect }.encode();
            prop_assert!(Command::decode(bytes.slice(..cut.index(bytes.len()))).is_err());
        }

        #[test]
        fn garbage_never_panics(bytes in vec(any::<u8>(), 0..60)) {
            let bytes = Bytes::from(bytes);
            let _ = RangeDescriptor::decode(bytes.clone());
            let _ = RangeState::decode(bytes.clone());
            let _ = Command::decode(bytes);
        }
    }
}
