//! Replicas of one node whose commands are decided when the test says so.

use clock::{Monotonic, Now, Timestamp};
use replication::raft::{Lease, LogIndex, ProposeError, ReplicaId, Term};
use replication::range::{
    Command, Effect, NodeId, Peer, PeerRole, RangeDescriptor, RangeId, RangeState,
};
use replication::store::{Outcome, RangeEvent, Unavailable};
use std::collections::{BTreeMap, VecDeque};
use storage::{Engine, Key, MemoryEngine, Reader, Span};
use txn::server::Replicas;

pub(super) const NODE: NodeId = NodeId(1);

/// A command that is not decided.
pub(super) struct Undecided {
    pub(super) range: RangeId,
    pub(super) term: Term,
    pub(super) index: LogIndex,
    command: Command,
}

pub(super) struct Scripted {
    pub(super) engine: MemoryEngine,
    pub(super) states: BTreeMap<RangeId, RangeState>,
    pub(super) terms: BTreeMap<RangeId, Term>,
    pub(super) leaders: BTreeMap<RangeId, NodeId>,
    pub(super) missing: Option<Vec<NodeId>>,
    pub(super) bound: Timestamp,
    pub(super) lease_until: Monotonic,
    pub(super) undecided: VecDeque<Undecided>,
    next_index: u64,
}

impl Scripted {
    /// One range over everything, on nodes 1 to 3, not led.
    pub(super) fn new() -> Scripted {
        let range = RangeId(1);
        let peers = (1..=3).map(|n| Peer {
            node: NodeId(n),
            replica: ReplicaId(u64::from(n)),
            role: PeerRole::Voter,
        });
        let descriptor = RangeDescriptor {
            id: range,
            span: Span::all(),
            generation: 1,
            peers: peers.collect(),
            next_replica: 4,
        };
        let mut scripted = Scripted {
            engine: MemoryEngine::new(),
            states: BTreeMap::new(),
            terms: BTreeMap::new(),
            leaders: BTreeMap::new(),
            missing: None,
            bound: Timestamp::MAX,
            lease_until: Monotonic::MAX,
            undecided: VecDeque::new(),
            next_index: 10,
        };
        scripted.add(descriptor);
        scripted
    }

    fn add(&mut self, descriptor: RangeDescriptor) {
        let state = RangeState {
            applied: (LogIndex::ZERO, Term::ZERO),
            descriptor: descriptor.clone(),
            fences: BTreeMap::new(),
            gc_threshold: Timestamp::MIN,
        };
        self.states.insert(descriptor.id, state);
    }

    /// Decides the oldest undecided command. Events in the order in which a store tells them.
    pub(super) fn decide(&mut self, outcome: Outcome) -> Vec<RangeEvent> {
        let Some(Undecided { range, term, index, command }) = self.undecided.pop_front() else {
            return Vec::new();
        };
        let applied = outcome == Outcome::Applied;
        let mut events = vec![RangeEvent::Proposal { range, term, index, outcome }];
        if applied {
            self.engine.write(&command.batch).expect("the memory engine writes");
            events.extend(self.take_effect(range, command.effect));
        }
        events
    }

    /// The oldest undecided command is lost sight of, whether or not it took effect.
    pub(super) fn lose_sight(&mut self, took_effect: bool) -> Vec<RangeEvent> {
        let mut events = self.decide(if took_effect { Outcome::Applied } else { Outcome::Dropped });
        if let Some(RangeEvent::Proposal { outcome, .. }) = events.first_mut() {
            *outcome = Outcome::Unknown;
        }
        events
    }

    fn take_effect(&mut self, range: RangeId, effect: Effect) -> Option<RangeEvent> {
        let state = self.states.get_mut(&range).expect("the range is here");
        match effect {
            Effect::None => None,
            Effect::Fence { table, version } => {
                state.fences.insert(table, version);
                None
            }
            Effect::GcThreshold(threshold) => {
                state.gc_threshold = threshold;
                None
            }
            Effect::Split { left, right } => {
                state.descriptor = left.clone();
                self.add(right.clone());
                Some(RangeEvent::Split { left: left.id, right: right.id })
            }
        }
    }
}

impl Replicas for Scripted {
    fn reader(&self) -> &dyn Reader {
        &self.engine
    }

    fn lease(&self, _now: Now, range: RangeId) -> Option<Lease> {
        let term = *self.terms.get(&range)?;
        Some(Lease { term, until: self.lease_until, read_bound: self.bound })
    }

    fn state(&self, range: RangeId) -> Option<&RangeState> {
        self.states.get(&range)
    }

    fn range_for(&self, key: &Key) -> Option<&RangeDescriptor> {
        self.states
            .values()
            .map(|state| &state.descriptor)
            .find(|descriptor| descriptor.span.contains(key))
    }

    fn overlapping(&self, span: &Span) -> Vec<RangeDescriptor> {
        let all = self.states.values().map(|state| &state.descriptor);
        all.filter(|descriptor| descriptor.span.overlaps(span)).cloned().collect()
    }

    fn leader_node(&self, range: RangeId) -> Option<NodeId> {
        self.leaders.get(&range).copied()
    }

    fn unavailable(&self, now: Now, range: RangeId) -> Option<Unavailable> {
        let missing = self.missing.clone()?;
        Some(Unavailable { range, missing, since: now.monotonic })
    }

    fn propose(
        &mut self,
        _now: Now,
        range: RangeId,
        command: Command,
    ) -> Result<(Term, LogIndex), ProposeError> {
        let term = *self.terms.get(&range).ok_or(ProposeError::NotLeader(None))?;
        self.next_index += 1;
        let index = LogIndex::new(self.next_index);
        self.undecided.push_back(Undecided { range, term, index, command });
        Ok((term, index))
    }

    fn transfer(
        &mut self,
        _now: Now,
        range: RangeId,
        to: NodeId,
        _high: Timestamp,
    ) -> Result<(), ProposeError> {
        self.terms.remove(&range);
        self.leaders.insert(range, to);
        Ok(())
    }
}
