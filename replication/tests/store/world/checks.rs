//! What holds after every step of any node, and at the end: leases are disjoint, floors are above what was served, ranges of a store do not
//! overlap, equal applied index means equal state.

use clock::Timestamp;
use rand::Rng;
use replication::raft::LogIndex;
use replication::range::{NodeId, PeerRole, RangeDescriptor, RangeId};
use replication::store::{Outcome, RangeEvent};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use storage::{Direction, Key, MemoryEngine, Reader, Space, Span, mvcc};

use super::World;

impl World {
    pub(super) fn observe(&mut self, id: NodeId, event: RangeEvent) {
        let what = match &event {
            RangeEvent::Proposal { outcome: Outcome::Applied, .. } => "applied",
            RangeEvent::Proposal { outcome: Outcome::Dropped, .. } => "dropped",
            RangeEvent::Proposal { outcome: Outcome::Unknown, .. } => "unknown",
            RangeEvent::Led { .. } => "led",
            RangeEvent::Deposed { .. } => "deposed",
            RangeEvent::Split { .. } => "split",
            RangeEvent::Removed { .. } => "removed",
        };
        *self.coverage.entry(what).or_default() += 1;
        if !matches!(event, RangeEvent::Proposal { .. }) {
            self.history.push(format!("{} {id} {event:?}", self.time / 1_000_000));
        }
        let incarnation = self.nodes[&id].incarnation;
        match &event {
            RangeEvent::Proposal { range, term, index, outcome } => {
                let key = (id, incarnation, *range, *index, *term);
                if let Some(write) = self.pending.remove(&key) {
                    self.writes[write].outcome = Some(outcome.clone());
                }
            }
            RangeEvent::Led { range, term, floor } => {
                let newest = self.led.entry(*range).or_default();
                // Somebody who does not know yet that a later term has begun: it never has a lease (see `check_leases`).
                let stale = *term < *newest;
                *newest = (*newest).max(*term);
                let node = self.nodes.get_mut(&id).expect("node");
                let copied = node.copied.remove(range);
                if !copied {
                    node.cache.remove(range);
                }
                node.floors.insert(*range, *floor);
                let span = node.store.as_ref().and_then(|store| store.descriptor(*range));
                let span = span.expect("led ranges are here").span.clone();
                let cache = node.cache.get(range);
                for (key, (ts, how)) in self.served.range(span.start.clone()..span.end.clone()) {
                    let known = cache.and_then(|cache| cache.get(key)).copied();
                    let water = known.unwrap_or(Timestamp::MIN).max(*floor);
                    assert!(
                        water >= *ts || stale,
                        "at {}: {id} leads {range} from {floor} (copied cache: {copied}), but {key} was read at {ts} by {how}{}",
                        self.time / 1_000_000,
                        self.history.join("\n")
                    );
                }
            }
            RangeEvent::Split { left, right } => {
                let node = self.nodes.get_mut(&id).expect("node");
                let copy = node.cache.get(left).cloned().unwrap_or_default();
                node.cache.insert(*right, copy);
                if node.store.as_ref().is_some_and(|store| store.leads(*left)) {
                    node.copied.insert(*right);
                }
            }
            RangeEvent::Deposed { range } | RangeEvent::Removed { range } => {
                let node = self.nodes.get_mut(&id).expect("node");
                node.copied.remove(range);
                node.cache.remove(range);
            }
        }
        self.events.push((id, event));
    }

    /// Serves reads as far as leases allow, and checks everything.
    pub(super) fn check(&mut self, id: NodeId) {
        self.check_leases();
        self.check_overlaps(id);
        self.check_states(id);
    }

    fn check_leases(&mut self) {
        let mut holders: BTreeMap<RangeId, (NodeId, Span)> = BTreeMap::new();
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let now = self.now_of(id);
            let Some(store) = &self.nodes[&id].store else { continue };
            let leased: Vec<_> = store
                .ranges()
                .filter_map(|descriptor| {
                    Some((descriptor.clone(), store.lease(now, descriptor.id)?))
                })
                .filter(|(_, lease)| lease.until > now.monotonic)
                .collect();
            for (descriptor, lease) in leased {
                let newest = self.led.get(&descriptor.id).copied().unwrap_or_default();
                assert!(lease.term >= newest, "{id} leases {descriptor:?} in a former term");
                for (other, span) in holders.values() {
                    assert!(
                        !span.overlaps(&descriptor.span),
                        "{id} and {other} both lease {descriptor:?}"
                    );
                }
                holders.insert(descriptor.id, (id, descriptor.span.clone()));
                self.serve_read(id, &descriptor, lease.read_bound);
            }
        }
    }

    /// Reads one key of the range, sometimes as far in the future as the lease allows.
    fn serve_read(&mut self, id: NodeId, descriptor: &RangeDescriptor, bound: Timestamp) {
        if self.rng.random_range(0..4) > 0 {
            return;
        }
        let key = self.any_key();
        if !descriptor.span.contains(&key) {
            return;
        }
        let clock = self.now_of(id).clock.timestamp();
        let ts = if self.rng.random_range(0..10) == 0 { bound } else { clock.min(bound) };
        let node = self.nodes.get_mut(&id).expect("node");
        let cached = node.cache.entry(descriptor.id).or_default().entry(key.clone()).or_default();
        *cached = (*cached).max(ts);
        let how =
            format!("{id} for {} at {} of {:?}", descriptor.id, self.time / 1_000_000, descriptor);
        let served = self.served.entry(key).or_insert_with(|| (ts, how.clone()));
        if served.0 < ts {
            *served = (ts, how);
        }
    }

    fn check_overlaps(&self, id: NodeId) {
        let Some(store) = &self.nodes[&id].store else { return };
        let mut spans: Vec<&Span> = store.ranges().map(|descriptor| &descriptor.span).collect();
        spans.sort();
        for pair in spans.windows(2) {
            assert!(pair[0].end <= pair[1].start, "{id}: {} overlaps {}", pair[0], pair[1]);
        }
    }

    fn check_states(&mut self, id: NodeId) {
        let Some(store) = &self.nodes[&id].store else { return };
        let mut moved = Vec::new();
        for descriptor in store.ranges() {
            let state = store.state(descriptor.id).expect("has state").clone();
            if self.seen_applied.get(&(id, descriptor.id)) != Some(&state.applied.0) {
                moved.push(state);
            }
        }
        for state in moved {
            self.history.push(format!(
                "{} {id} {} applied {:?} gen {} {:?}",
                self.time / 1_000_000,
                state.descriptor.id,
                state.applied,
                state.descriptor.generation,
                state
                    .descriptor
                    .peers
                    .iter()
                    .map(|p| (p.node.0, p.replica.0, p.role))
                    .collect::<Vec<_>>()
            ));
            let (range, index) = (state.descriptor.id, state.applied.0);
            self.seen_applied.insert((id, range), index);
            let hash = hash_range(&self.nodes[&id].engine, &state);
            let (known, by) = *self.hashes.entry((range, index)).or_insert((hash, id));
            assert_eq!(known, hash, "{id} and {by} differ in {range} at {index}");
        }
    }

    /// Everything applied everywhere, equal, tiling the keyspace, with every acknowledged write and none that was dropped.
    pub(in crate::store) fn check_converged(&mut self) {
        let mut newest: BTreeMap<RangeId, RangeDescriptor> = BTreeMap::new();
        for node in self.nodes.values() {
            let Some(store) = &node.store else { continue };
            for descriptor in store.ranges() {
                let known = newest.entry(descriptor.id).or_insert_with(|| descriptor.clone());
                if known.generation < descriptor.generation {
                    *known = descriptor.clone();
                }
            }
        }
        let mut spans: Vec<Span> = newest.values().map(|d| d.span.clone()).collect();
        spans.sort();
        assert_eq!(spans.first().map(|span| &span.start), Some(&Key::MIN));
        assert_eq!(spans.last().map(|span| &span.end), Some(&Key::MAX));
        for pair in spans.windows(2) {
            assert_eq!(pair[0].end, pair[1].start, "ranges tile the keyspace");
        }
        for descriptor in newest.values() {
            for peer in &descriptor.peers {
                let Some(store) = &self.nodes[&peer.node].store else { continue };
                let state = store.state(descriptor.id);
                let state =
                    state.unwrap_or_else(|| panic!("{} has no {}", peer.node, descriptor.id));
                assert_eq!(state.descriptor, *descriptor, "at {}", peer.node);
                for write in &self.writes {
                    if !descriptor.span.contains(&write.key) {
                        continue;
                    }
                    let engine = &self.nodes[&peer.node].engine;
                    let found = engine.get(Space::Versions, &write.raw).expect("reads").is_some();
                    match write.outcome {
                        Some(Outcome::Applied) => {
                            assert!(found, "{} lost {write:?} of {}", peer.node, descriptor.id)
                        }
                        Some(Outcome::Dropped) => {
                            assert!(!found, "{} has dropped {write:?}", peer.node);
                        }
                        Some(Outcome::Unknown) | None => {}
                    }
                }
            }
        }
    }

    /// Whether every replica has applied as much as its peers.
    pub(in crate::store) fn is_quiet(&mut self) -> bool {
        let mut applied: BTreeMap<RangeId, LogIndex> = BTreeMap::new();
        let mut members: BTreeSet<(RangeId, NodeId)> = BTreeSet::new();
        for node in self.nodes.values() {
            let Some(store) = &node.store else { continue };
            for descriptor in store.ranges() {
                let index = store.state(descriptor.id).expect("state").applied.0;
                let max = applied.entry(descriptor.id).or_default();
                *max = (*max).max(index);
            }
        }
        for node in self.nodes.values() {
            let Some(store) = &node.store else { continue };
            for descriptor in store.ranges() {
                let index = store.state(descriptor.id).expect("state").applied.0;
                if applied[&descriptor.id] != index || descriptor.is_joint() {
                    return false;
                }
                members.insert((descriptor.id, node.id));
                let learners = descriptor.peers.iter().any(|peer| peer.role == PeerRole::Learner);
                if learners || descriptor.peer_on(node.id).is_none() {
                    return false;
                }
            }
        }
        let ranges: Vec<RangeId> = applied.keys().copied().collect();
        ranges.iter().all(|range| {
            let Some(leader) = self.leaseholder(*range) else { return false };
            let descriptor = self.store(leader).descriptor(*range).expect("leased").clone();
            descriptor.peers.iter().all(|peer| {
                self.nodes[&peer.node].store.is_none() || members.contains(&(*range, peer.node))
            })
        })
    }
}

fn hash_range(engine: &MemoryEngine, state: &replication::range::RangeState) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.encode().hash(&mut hasher);
    for raw in mvcc::raw_spans(&state.descriptor.span) {
        for item in engine.scan(raw.space, &raw.start, &raw.end, Direction::Forward) {
            let (key, value) = item.expect("reads");
            if raw.holds(&key).expect("parses") {
                (raw.space.number(), &key[..], &value[..]).hash(&mut hasher);
            }
        }
    }
    hasher.finish()
}
