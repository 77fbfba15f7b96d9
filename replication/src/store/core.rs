//! Machine: [`Store`], its owner's interface. What happens inside is in the rooms beside: `inbox` (messages), `drive` (one group's
//! `Ready`), `apply`, `lifecycle` (replicas come and go), `split`, `snapshot_out`, `snapshot_in`, `relocate` (membership),
//! `health`, `truncate`.
//!
//! INVARIANT: after the first engine or log error ([`Store::fatal`]) the store does nothing any more; the owner stops the node.

use clock::{Monotonic, Now, Timestamp};
use coverage::Mark;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use storage::log::{LogBatch, LogReader, LogSequence};
use storage::{Engine, Key, StorageError};

use super::promises::Promises;
use super::replica::{Context, Random, Replica};
use super::snapshot_out::Outgoing;
use super::{
    Fencing, NodeInfo, Persisted, RangeEvent, StoreConfig, StoreIdentity, StoreMessage, StoreReady,
};
use crate::raft::{Lease, LogIndex, ProposeError, ReplicaId, Term};
use crate::range::{Command, Effect, NodeId, RangeDescriptor, RangeId, RangeState};

/// All ranges of one shard of a node. See the module's essay ([`crate::store`]).
pub struct Store {
    pub(super) config: StoreConfig,
    pub(super) identity: StoreIdentity,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) log: Arc<dyn LogReader>,
    pub(super) promises: Promises,
    pub(super) replicas: BTreeMap<RangeId, Box<Replica>>,
    /// Initialised ranges by start key.
    pub(super) spans: BTreeMap<Key, RangeId>,
    pub(super) nodes: BTreeMap<NodeId, NodeInfo>,
    pub(super) fencing: Fencing,
    pub(super) random: Random,
    pub(super) fatal: Option<StorageError>,
    /// Groups whose `Ready` has to be looked at.
    pub(super) dirty: BTreeSet<RangeId>,
    pub(super) timers: BTreeSet<(Monotonic, RangeId)>,
    pub(super) sweep_at: Monotonic,
    pub(super) out: Out,
    pub(super) unsynced: VecDeque<Unsynced>,
    pub(super) last_appended: LogSequence,
    pub(super) last_epoch: u64,
    pub(super) last_attempt: u64,
    pub(super) outgoing: BTreeMap<(RangeId, ReplicaId), Outgoing>,
}

/// Which `Ready` of which group a batch contains.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tracked {
    pub(super) range: RangeId,
    pub(super) epoch: u64,
    pub(super) number: u64,
}

/// A batch that the owner has appended and not yet synced.
#[derive(Debug)]
pub(super) struct Unsynced {
    pub(super) sequence: LogSequence,
    pub(super) since: Monotonic,
    pub(super) tracked: Vec<Tracked>,
}

/// What the next [`StoreReady`] will carry.
#[derive(Debug, Default)]
pub(super) struct Out {
    pub(super) flush: bool,
    pub(super) write: LogBatch,
    pub(super) tracked: Vec<Tracked>,
    pub(super) now: Vec<(NodeId, StoreMessage)>,
    pub(super) after: Vec<(NodeId, StoreMessage)>,
    pub(super) events: Vec<RangeEvent>,
    pub(super) transfers: Vec<(RangeId, NodeId)>,
    /// Handed out and not yet confirmed by `appended`: since when, and of which groups.
    pub(super) handed_out: Option<(Monotonic, Vec<Tracked>)>,
    /// Groups whose tails hold pending entries.
    pub(super) unsettled: BTreeSet<RangeId>,
}

impl Store {
    /// Told by the owner whenever it changes; ourselves included. A node that is not in it any more receives nothing new.
    pub fn set_nodes(&mut self, now: Now, nodes: Vec<NodeInfo>) {
        self.nodes = nodes.into_iter().map(|info| (info.node, info)).collect();
        self.promises.hurry(now);
    }

    /// The persisted upper bound of this node's hybrid clock. No read bound above it is recorded for anybody, so that after a
    /// restart `restart_floor` (the persisted bound of then) covers all of them. Until it is called no read is served.
    pub fn set_clock_bound(&mut self, bound: Timestamp) {
        self.promises.set_clock_bound(bound);
    }

    /// A fenced store has no lease, asks for no support, and hands leadership away; it goes on following and voting.
    pub fn set_fenced(&mut self, now: Now, fencing: Fencing) {
        if self.fencing != fencing {
            tracing::info!(node = %self.identity.node, ?fencing, "fencing changed");
            self.fencing = fencing;
            self.promises.hurry(now);
            self.sweep_at = now.monotonic;
        }
    }

    /// Why the store has stopped for good, if it has.
    pub fn fatal(&self) -> Option<&StorageError> {
        self.fatal.as_ref()
    }

    /// Time has passed. To be called at or after [`StoreReady::wake_at`]; at other times it is cheap.
    pub fn tick(&mut self, now: Now) {
        if self.fatal.is_some() {
            return;
        }
        while let Some((at, range)) = self.timers.first().copied() {
            if at > now.monotonic {
                break;
            }
            self.timers.pop_first();
            if let Some(mut replica) = self.replicas.remove(&range) {
                replica.timer = Monotonic::MAX;
                replica.with_raft(&mut self.context(now), |raft, env| raft.tick(env));
                self.replicas.insert(range, replica);
                self.dirty.insert(range);
            }
        }
        if self.promises.next_round() <= now.monotonic {
            self.ask_for_support(now);
        }
        if self.sweep_at <= now.monotonic {
            self.sweep_at = now.monotonic.plus(self.config.promise_interval);
            self.sweep(now);
        }
    }

    /// Whether [`Store::ready`] has something to hand out.
    pub fn has_ready(&self) -> bool {
        self.fatal.is_none()
            && (!self.dirty.is_empty()
                || self.out.flush
                || !self.out.write.is_empty()
                || !self.out.now.is_empty()
                || !self.out.after.is_empty()
                || !self.out.events.is_empty()
                || !self.out.transfers.is_empty())
    }

    /// What is to be done now. Committed entries have been applied to the engine when it returns.
    ///
    /// A non-empty `write` must be appended, and [`Store::appended`] called, before anything else is asked of the store.
    pub fn ready(&mut self, now: Now) -> StoreReady {
        assert!(
            self.out.handed_out.is_none(),
            "the former Ready's write was not reported as appended"
        );
        while self.fatal.is_none() {
            let Some(range) = self.dirty.pop_first() else { break };
            self.drive(now, range);
        }
        if self.fatal.is_some() {
            return StoreReady { wake_at: Monotonic::MAX, ..StoreReady::default() };
        }
        let write = std::mem::take(&mut self.out.write);
        let tracked = std::mem::take(&mut self.out.tracked);
        let mut messages_now = std::mem::take(&mut self.out.now);
        let mut messages_after = std::mem::take(&mut self.out.after);
        if !write.is_empty() {
            self.out.handed_out = Some((now.monotonic, tracked));
        } else if self.unsynced.is_empty() {
            messages_now.append(&mut messages_after);
        }
        StoreReady {
            flush_before_write: std::mem::take(&mut self.out.flush),
            write,
            messages_now,
            messages_after,
            events: std::mem::take(&mut self.out.events),
            transfers_wanted: std::mem::take(&mut self.out.transfers),
            wake_at: self.wake_at(),
        }
    }

    /// The last [`StoreReady::write`] was appended under this sequence. To be called exactly when it was not empty.
    pub fn appended(&mut self, sequence: LogSequence) {
        let (since, tracked) = self.out.handed_out.take().expect("a write was handed out before");
        assert!(sequence > self.last_appended, "log sequences go up");
        self.last_appended = sequence;
        self.unsynced.push_back(Unsynced { sequence, since, tracked });
        for range in std::mem::take(&mut self.out.unsettled) {
            if let Some(replica) = self.replicas.get_mut(&range) {
                replica.tail.settled();
            }
        }
    }

    /// Of the last batch reported with [`Store::appended`].
    pub fn last_appended(&self) -> LogSequence {
        self.last_appended
    }

    /// A log sync has covered batches up to the proof's.
    pub fn persisted(&mut self, now: Now, proof: Persisted) {
        while self.unsynced.front().is_some_and(|batch| batch.sequence <= proof.upto()) {
            let Some(batch) = self.unsynced.pop_front() else { break };
            for Tracked { range, epoch, number } in batch.tracked {
                let Some(mut replica) = self.replicas.remove(&range) else { continue };
                if replica.epoch == epoch {
                    replica.with_raft(&mut self.context(now), |raft, env| {
                        raft.persisted(env, number);
                    });
                    self.dirty.insert(range);
                } else {
                    coverage::reached(Mark::StaleCompletionDropped);
                }
                self.replicas.insert(range, replica);
            }
        }
    }

    /// Appends a command to the range's log, if we lead it. Its outcome comes as [`RangeEvent::Proposal`] with the returned
    /// term and index, exactly once, unless the process dies before. Errors: nothing was appended.
    pub fn propose(
        &mut self,
        now: Now,
        range: RangeId,
        command: Command,
    ) -> Result<(Term, LogIndex), ProposeError> {
        if self.fatal.is_some() {
            return Err(ProposeError::NotLeader(None));
        }
        let splits = matches!(command.effect, Effect::Split { .. });
        let data = command.encode();
        let mut replica = self.replicas.remove(&range).ok_or(ProposeError::NotLeader(None))?;
        let result = replica.with_raft(&mut self.context(now), |raft, env| raft.propose(env, data));
        if let Ok((term, index)) = result {
            if replica.proposals.is_empty() {
                replica.moved_at = now.monotonic;
            }
            replica.proposals.insert((index, term));
            if splits {
                replica.splitting = Some((index, term));
            }
            self.dirty.insert(range);
        }
        self.replicas.insert(range, replica);
        result
    }

    /// Our right to serve the range, as of now. Checked before evaluating, and again when the answer leaves (killers R10, R11).
    ///
    /// `None` also between proposing a split and its outcome: when our own disk lags, others apply the split before we do, and the
    /// right range is served elsewhere already.
    pub fn lease(&self, now: Now, range: RangeId) -> Option<Lease> {
        if self.fatal.is_some() || self.fencing == Fencing::Fenced {
            return None;
        }
        let replica = self.replicas.get(&range)?;
        if !replica.has_led() || replica.is_splitting() {
            return None;
        }
        replica.ask(now, &self.promises, &*self.log, |raft, env| raft.lease(env))
    }

    /// The state engine: what is applied here. For reads by whoever holds the lease.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// The range that holds `key`, if we have a replica of it that knows its keys.
    pub fn range_for(&self, key: &Key) -> Option<&RangeDescriptor> {
        let (_, range) = self.spans.range(..=key.clone()).next_back()?;
        self.descriptor(*range).filter(|descriptor| descriptor.span.contains(key))
    }

    /// As of the last applied entry.
    pub fn descriptor(&self, range: RangeId) -> Option<&RangeDescriptor> {
        self.replicas.get(&range)?.descriptor()
    }

    /// As of the last applied entry.
    pub fn state(&self, range: RangeId) -> Option<&RangeState> {
        self.replicas.get(&range)?.state.as_ref()
    }

    /// All ranges here whose keys are known, by id.
    pub fn ranges(&self) -> impl Iterator<Item = &RangeDescriptor> {
        self.replicas.values().filter_map(|replica| replica.descriptor())
    }

    /// Whether we lead it and have told so ([`RangeEvent::Led`]). Says nothing about the lease.
    pub fn leads(&self, range: RangeId) -> bool {
        self.replicas.get(&range).is_some_and(|replica| replica.has_led())
    }

    /// The node of the replica that we believe leads. A hint.
    pub fn leader_node(&self, range: RangeId) -> Option<NodeId> {
        let replica = self.replicas.get(&range)?;
        replica.routes.get(&replica.raft.leader()?).copied()
    }

    /// Hands leadership to the replica on `to`. From now on we serve nothing in this term. `read_high`: no read above it was
    /// served. Errors: nothing has changed.
    pub fn transfer(
        &mut self,
        now: Now,
        range: RangeId,
        to: NodeId,
        read_high: Timestamp,
    ) -> Result<(), ProposeError> {
        let mut replica = self.replicas.remove(&range).ok_or(ProposeError::NotLeader(None))?;
        let target = replica.descriptor().and_then(|descriptor| descriptor.peer_on(to)).copied();
        let result = match target {
            Some(peer) => replica.with_raft(&mut self.context(now), |raft, env| {
                raft.transfer(env, peer.replica, read_high)
            }),
            None => Err(ProposeError::MembershipBusy),
        };
        if result.is_ok() {
            tracing::info!(%range, %to, "leadership transfer begun");
        }
        self.replicas.insert(range, replica);
        self.dirty.insert(range);
        result
    }

    pub(super) fn context(&mut self, now: Now) -> Context<'_> {
        Context {
            now,
            promises: &self.promises,
            log: &*self.log,
            random: &mut self.random,
            asking: None,
        }
    }

    pub(super) fn next_epoch(&mut self) -> u64 {
        self.last_epoch += 1;
        self.last_epoch
    }

    /// Stops for good.
    pub(super) fn fail(&mut self, error: StorageError) {
        tracing::error!(node = %self.identity.node, %error, "store stopped");
        self.fatal.get_or_insert(error);
    }

    fn wake_at(&self) -> Monotonic {
        let timer = self.timers.first().map_or(Monotonic::MAX, |(at, _)| *at);
        timer.min(self.promises.next_round()).min(self.sweep_at)
    }
}
