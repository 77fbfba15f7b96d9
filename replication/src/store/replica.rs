//! Value with a machine inside: one replica as its store keeps it: the group's [`Raft`], the applied state, the log's tail, the
//! routes to the others, and what the store owes to whom.

use clock::{Monotonic, Now, Timestamp};
use coverage::Mark;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use storage::log::{LogGroup, LogReader};
use storage::mvcc::RawSpan;
use storage::{Op, Space, Span, mvcc};

use super::promises::{GroupSupport, Promises};
use super::snapshot_in::Incoming;
use super::tail::{Tail, TailView};
use crate::raft::{
    Body, Env, HardState, Incarnation, LogIndex, Membership, Message, Raft, RaftConfig, ReplicaId,
    RoleKind, Term,
};
use crate::range::{INITIAL, NodeId, RangeDescriptor, RangeId, RangeState};

/// What every call into a group needs from its store.
pub(super) struct Context<'a> {
    pub(super) now: Now,
    pub(super) promises: &'a Promises,
    pub(super) log: &'a dyn LogReader,
    pub(super) random: &'a mut Random,
    /// See [`GroupSupport::asking`].
    pub(super) asking: Option<ReplicaId>,
}

/// Seeded random bits (SplitMix64, Steele et al. 2014): same seed, same trace.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

/// How far we are in leading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reign {
    /// We do not lead.
    None,
    /// Elected; the first entry of the term is not applied yet.
    Elected { term: Term, floor: Timestamp },
    /// `Led` was emitted.
    Led { term: Term, floor: Timestamp },
}

/// An append that came before the split that creates its range was applied here. See [`Replica::hold_early`].
#[derive(Clone, Debug)]
pub(super) struct Early {
    pub(super) from: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) message: Message,
}

/// A peer that was removed and should hear of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departed {
    pub(super) replica: ReplicaId,
    pub(super) node: NodeId,
    pub(super) notices_left: u32,
}

/// One replica. Uninitialised while `state` is `None`: it votes, and waits for a split or a snapshot.
pub(super) struct Replica {
    pub(super) range: RangeId,
    pub(super) id: ReplicaId,
    /// Unique per [`Raft`] instance of this store: acknowledgements never reach a successor.
    pub(super) epoch: u64,
    pub(super) raft: Raft,
    pub(super) state: Option<RangeState>,
    /// Where replicas live, as far as anybody said. Descriptors override hearsay.
    pub(super) routes: BTreeMap<ReplicaId, NodeId>,
    /// See [`GroupSupport::inherited_floor`]. Below this store's clock bound, so `restart_floor` covers it after a restart.
    pub(super) inherited_floor: Timestamp,
    /// Set beside the leader of the range this one was split off from: that store knows every read on these keys, so its
    /// first reign needs no higher floor. Gone when that has begun.
    pub(super) covered_floor: Option<Timestamp>,
    /// While uninitialised: the newest append that waits for the birth, and since when any has.
    pub(super) early: Option<Early>,
    early_since: Option<Monotonic>,
    pub(super) tail: Tail,
    /// As last written.
    pub(super) hard_state: HardState,
    /// Ours that are undecided.
    pub(super) proposals: BTreeSet<(LogIndex, Term)>,
    /// The last split we proposed.
    pub(super) splitting: Option<(LogIndex, Term)>,
    pub(super) reign: Reign,
    /// Applied index that a finished flush covers.
    pub(super) flushed: (LogIndex, Term),
    pub(super) timer: Monotonic,
    pub(super) unhealthy_since: Option<Monotonic>,
    /// When something was applied, or a proposal found nothing undecided before it.
    pub(super) moved_at: Monotonic,
    /// When a message of the group last came in.
    pub(super) heard_at: Monotonic,
    /// When it last asked whether it is still a member ([`super::StoreMessage::Probe`]).
    pub(super) asked_at: Monotonic,
    /// When the leader that it is bound to was asked after last.
    pub(super) probed_at: Monotonic,
    pub(super) departed: Vec<Departed>,
    /// No replica with a lower number is or will be on that node, it has said.
    pub(super) departed_below: BTreeMap<NodeId, ReplicaId>,
    pub(super) snapshots_wanted: BTreeSet<ReplicaId>,
    pub(super) incoming: Option<Incoming>,
    /// When the wish to hand leadership away was first told to the owner.
    pub(super) transfer_wanted_since: Option<Monotonic>,
    /// While joint: what the quorums must have recorded before the outgoing voters may be let go.
    pub(super) joint_floor: Option<Timestamp>,
    /// Cached raw spans of the descriptor's span.
    pub(super) raw_spans: Option<[RawSpan; 4]>,
}

/// What a replica starts from.
pub(super) struct Birth {
    pub(super) range: RangeId,
    pub(super) id: ReplicaId,
    pub(super) epoch: u64,
    pub(super) hard_state: HardState,
    pub(super) state: Option<RangeState>,
    pub(super) tail: Tail,
    pub(super) last: (LogIndex, Term),
    pub(super) routes: BTreeMap<ReplicaId, NodeId>,
    pub(super) inherited_floor: Timestamp,
}

impl Replica {
    pub(super) fn new(config: &RaftConfig, birth: Birth, context: &mut Context<'_>) -> Replica {
        let Birth { range, id, epoch, hard_state, state, tail, last, mut routes, .. } = birth;
        let mut membership = Membership::default();
        let mut applied = LogIndex::ZERO;
        if let Some(state) = &state {
            membership = state.descriptor.membership();
            applied = state.applied.0;
            routes.extend(state.descriptor.peers.iter().map(|peer| (peer.replica, peer.node)));
        }
        let group = Group { range, tail: &tail, routes: &routes, floor: birth.inherited_floor };
        let raft = group.with_env(context, |env| {
            Raft::new(
                config.clone(),
                id,
                hard_state,
                membership,
                tail.truncated(),
                last,
                applied,
                env,
            )
        });
        let raw_spans = state.as_ref().map(|state| mvcc::raw_spans(&state.descriptor.span));
        let monotonic = context.now.monotonic;
        Replica {
            range,
            id,
            epoch,
            raft,
            flushed: (LogIndex::ZERO, Term::ZERO),
            state,
            routes,
            inherited_floor: birth.inherited_floor,
            covered_floor: None,
            early: None,
            early_since: None,
            tail,
            hard_state,
            proposals: BTreeSet::new(),
            splitting: None,
            reign: Reign::None,
            timer: Monotonic::MAX,
            unhealthy_since: None,
            moved_at: monotonic,
            heard_at: monotonic,
            asked_at: monotonic,
            probed_at: Monotonic::ZERO,
            departed: Vec::new(),
            departed_below: BTreeMap::new(),
            snapshots_wanted: BTreeSet::new(),
            incoming: None,
            transfer_wanted_since: None,
            joint_floor: None,
            raw_spans,
        }
    }

    /// Calls into the group.
    pub(super) fn with_raft<R>(
        &mut self,
        context: &mut Context<'_>,
        call: impl FnOnce(&mut Raft, &mut Env<'_>) -> R,
    ) -> R {
        let Replica { raft, tail, routes, range, inherited_floor, .. } = self;
        let group = Group { range: *range, tail, routes, floor: *inherited_floor };
        group.with_env(context, |env| call(raft, env))
    }

    /// Asks the group something that changes nothing.
    pub(super) fn ask<R>(
        &self,
        now: Now,
        promises: &Promises,
        log: &dyn LogReader,
        question: impl FnOnce(&Raft, &Env<'_>) -> R,
    ) -> R {
        // A question never draws random bits; a fixed seed keeps it a question.
        let mut random = Random::new(0);
        let mut context = Context { now, promises, log, random: &mut random, asking: None };
        let floor = self.inherited_floor;
        let group = Group { range: self.range, tail: &self.tail, routes: &self.routes, floor };
        group.with_env(&mut context, |env| question(&self.raft, env))
    }

    pub(super) fn descriptor(&self) -> Option<&RangeDescriptor> {
        self.state.as_ref().map(|state| &state.descriptor)
    }

    pub(super) fn span(&self) -> Option<&Span> {
        self.descriptor().map(|descriptor| &descriptor.span)
    }

    pub(super) fn is_leader(&self) -> bool {
        matches!(self.raft.role(), RoleKind::Leader)
    }

    /// Whether `Led` was emitted and not taken back.
    pub(super) fn has_led(&self) -> bool {
        matches!(self.reign, Reign::Led { .. })
    }

    /// Whether a split that we proposed is undecided.
    pub(super) fn is_splitting(&self) -> bool {
        self.splitting.is_some_and(|split| self.proposals.contains(&split))
    }

    /// Keeps an append that follows the state every range is born with, if the birth may yet come: it was sent by who has applied
    /// the split, and ours may be one message behind. Refusing it would make the sender prepare a snapshot. Kept is the newest
    /// one, and none once the first was kept for `patience`: then a snapshot is what we need. Gives back what is not kept.
    ///
    /// What is kept is not acknowledged, so it binds nobody.
    pub(super) fn hold_early(
        &mut self,
        now: Monotonic,
        patience: Duration,
        early: Early,
    ) -> Option<Early> {
        let follows_birth = match &early.message.body {
            Body::Append { prev_index, prev_term, .. } => (*prev_index, *prev_term) == INITIAL,
            Body::PreVote { .. }
            | Body::PreVoteReply { .. }
            | Body::Vote { .. }
            | Body::VoteReply { .. }
            | Body::AppendReply { .. }
            | Body::AppendRefused { .. }
            | Body::SnapshotReply { .. }
            | Body::TimeoutNow { .. }
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. } => false,
        };
        let uninitialised = self.state.is_none();
        if !uninitialised || !follows_birth || early.message.term < self.raft.term() {
            return Some(early);
        }
        let since = *self.early_since.get_or_insert(now);
        if now.since(since) >= patience {
            coverage::reached(Mark::EarlyAppendGivenUp);
            self.early = None;
            return Some(early);
        }
        let newer = self.early.as_ref().is_none_or(|kept| kept.message.term <= early.message.term);
        if newer {
            coverage::reached(Mark::EarlyAppendHeld);
            self.early = Some(early);
        }
        None
    }

    pub(super) fn learn_routes(&mut self, descriptor: &RangeDescriptor) {
        self.routes.extend(descriptor.peers.iter().map(|peer| (peer.replica, peer.node)));
    }

    /// Stores the descriptor's derived forms; to be called after every change of it.
    pub(super) fn descriptor_changed(&mut self) {
        let Some(state) = &self.state else { return };
        self.routes.extend(state.descriptor.peers.iter().map(|peer| (peer.replica, peer.node)));
        self.raw_spans = Some(mvcc::raw_spans(&state.descriptor.span));
    }

    /// Whether `op` changes nothing but this range's own keys. Changes are sorted by time inside a copy, so for a span of
    /// them only the copy is checked.
    pub(super) fn owns(&self, op: &Op) -> bool {
        let Some(spans) = &self.raw_spans else { return false };
        let of = |space: &Space| spans.iter().find(|raw| raw.space == *space);
        match op {
            Op::Put { space, key, .. } | Op::Delete { space, key } => {
                of(space).is_some_and(|raw| {
                    *key >= raw.start && *key < raw.end && raw.holds(key).unwrap_or(false)
                })
            }
            Op::DeleteSpan { space, start, end } => of(space)
                .is_some_and(|raw| start >= end || (*start >= raw.start && *end <= raw.end)),
        }
    }
}

/// The parts of a replica that its environment is made of.
struct Group<'a> {
    range: RangeId,
    tail: &'a Tail,
    routes: &'a BTreeMap<ReplicaId, NodeId>,
    floor: Timestamp,
}

impl Group<'_> {
    fn with_env<R>(&self, context: &mut Context<'_>, call: impl FnOnce(&mut Env<'_>) -> R) -> R {
        let Context { now, promises, log, random, asking } = context;
        let support = GroupSupport {
            promises,
            routes: self.routes,
            inherited_floor: self.floor,
            asking: *asking,
            now: now.monotonic,
        };
        let log = TailView { group: LogGroup(self.range.0), tail: self.tail, log: *log };
        let mut random = || random.next();
        let mut env = Env { now: now.monotonic, support: &support, log: &log, random: &mut random };
        call(&mut env)
    }
}
