//! Value: one follower as the leader sees it. What it has, what is on the way to it, when it was heard of.
//!
//! ```text
//!              refused, or silent                        behind the truncated log
//!   Replicate ───────────────────► Probe ────────────────────────────► Snapshot
//!       ▲                           │  ▲                                   │
//!       └───────── accepted ────────┘  └──── delivered, failed, caught up ─┘
//! ```
//!
//! `Probe` sends one append and waits; `Replicate` sends ahead of the replies, up to a limit of bytes in flight; `Snapshot`
//! sends nothing but heartbeats while the owner sends data. (etcd's `tracker.Progress`, with bytes instead of messages.)

use super::{Incarnation, LogIndex, Promise, RaftConfig, ReplicaId};
use clock::Monotonic;
use std::collections::VecDeque;

/// How a follower is being sent the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProgressState {
    /// One append at a time: it is not known where the logs meet.
    Probe,
    /// Pipelined.
    Replicate,
    /// Its next entry is truncated here: it needs a snapshot.
    Snapshot,
}

/// A follower as of now, for display and placement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// Whose.
    pub id: ReplicaId,
    /// Everything at or before is durable there.
    pub match_index: LogIndex,
    /// What is sent next.
    pub next_index: LogIndex,
    /// How.
    pub state: ProgressState,
    /// When the last message of it came, on our monotonic clock (the election, before the first one).
    pub heard_at: Monotonic,
    /// The commit index it has told.
    pub commit_known: LogIndex,
}

#[derive(Debug)]
pub(super) struct Progress {
    pub(super) state: ProgressState,
    pub(super) match_index: LogIndex,
    pub(super) next: LogIndex,
    /// A probe is on the way.
    probing: bool,
    inflight: VecDeque<(LogIndex, usize)>,
    inflight_bytes: usize,
    /// Something must be sent even if there is no news.
    pub(super) ping: bool,
    pub(super) sent_at: Monotonic,
    pub(super) heard_at: Monotonic,
    /// Commit index last sent, and last told by it.
    pub(super) commit_sent: LogIndex,
    pub(super) commit_known: LogIndex,
    /// The incarnation in which it last acknowledged us.
    incarnation: Option<Incarnation>,
    /// The newest round it acknowledged, and when that round began.
    pub(super) round: u64,
    acknowledged_at: Option<Monotonic>,
    /// When the owner was last asked for a snapshot.
    pub(super) snapshot_asked_at: Monotonic,
}

impl Progress {
    pub(super) fn new(now: Monotonic, next: LogIndex) -> Progress {
        Progress {
            state: ProgressState::Probe,
            match_index: LogIndex::ZERO,
            next,
            probing: false,
            inflight: VecDeque::new(),
            inflight_bytes: 0,
            ping: false,
            sent_at: now,
            heard_at: now,
            commit_sent: LogIndex::ZERO,
            commit_known: LogIndex::ZERO,
            incarnation: None,
            round: 0,
            acknowledged_at: None,
            snapshot_asked_at: Monotonic::ZERO,
        }
    }

    pub(super) fn status(&self, id: ReplicaId) -> PeerStatus {
        PeerStatus {
            id,
            match_index: self.match_index,
            next_index: self.next,
            state: self.state,
            heard_at: self.heard_at,
            commit_known: self.commit_known,
        }
    }

    /// Whether entries may be sent now.
    pub(super) fn may_send(&self, config: &RaftConfig) -> bool {
        match self.state {
            ProgressState::Probe => !self.probing,
            ProgressState::Replicate => self.inflight_bytes < config.inflight_bytes_max,
            ProgressState::Snapshot => false,
        }
    }

    /// Entries up to `last` with `bytes` of payload are on the way.
    pub(super) fn sent_entries(&mut self, last: LogIndex, bytes: usize) {
        match self.state {
            ProgressState::Probe => self.probing = true,
            ProgressState::Replicate => {
                self.next = last.next();
                self.inflight.push_back((last, bytes));
                self.inflight_bytes += bytes;
            }
            ProgressState::Snapshot => {
                unreachable!("no entries are sent while a snapshot is needed")
            }
        }
    }

    /// A probe without entries is on the way.
    pub(super) fn sent_empty(&mut self) {
        if self.state == ProgressState::Probe {
            self.probing = true;
        }
    }

    /// Sends again what a probe asked: the answer is overdue.
    pub(super) fn poke(&mut self) {
        self.ping = true;
        self.probing = false;
    }

    /// A message of this term came. `round`: the newest round it answers to and when that began, if still known.
    pub(super) fn heard(
        &mut self,
        now: Monotonic,
        incarnation: Incarnation,
        round: u64,
        began: Option<Monotonic>,
    ) {
        self.heard_at = now;
        if self.incarnation.is_none_or(|known| known < incarnation) {
            self.incarnation = Some(incarnation);
            self.acknowledged_at = None;
            self.commit_known = LogIndex::ZERO;
        }
        self.round = self.round.max(round);
        // A late message of a former incarnation says nothing about what this one has acknowledged.
        if self.incarnation == Some(incarnation) {
            self.acknowledged_at = self.acknowledged_at.max(began);
        }
    }

    /// Whether `promise` binds this follower to us: given in the incarnation that acknowledged us, and not renewed after a
    /// gap since. Says nothing about its expiry.
    pub(super) fn is_bound_by(&self, promise: &Promise) -> bool {
        self.incarnation == Some(promise.by)
            && self
                .acknowledged_at
                .is_some_and(|acknowledged| acknowledged > promise.unbroken_since)
    }

    /// It has everything up to `index`.
    pub(super) fn matched(&mut self, index: LogIndex, truncated: LogIndex) {
        self.match_index = self.match_index.max(index);
        while let Some((_, bytes)) = self.inflight.pop_front_if(|(last, _)| *last <= index) {
            self.inflight_bytes -= bytes;
        }
        match self.state {
            ProgressState::Probe if index == self.match_index => self.replicate(),
            ProgressState::Probe => {}
            ProgressState::Replicate => self.next = self.next.max(self.match_index.next()),
            ProgressState::Snapshot if self.match_index >= truncated => self.replicate(),
            ProgressState::Snapshot => {}
        }
    }

    fn replicate(&mut self) {
        self.state = ProgressState::Replicate;
        self.next = self.match_index.next();
        self.forget_inflight();
    }

    /// It does not have the entry before `refused_next`; ours may meet at `next`.
    pub(super) fn refused(&mut self, prev_index: LogIndex, next: LogIndex) {
        match self.state {
            ProgressState::Replicate if prev_index > self.match_index => self.probe(next),
            ProgressState::Probe if prev_index == self.next.prev() => self.probe(next),
            // Late, or already overtaken.
            ProgressState::Replicate | ProgressState::Probe | ProgressState::Snapshot => {}
        }
    }

    pub(super) fn probe(&mut self, next: LogIndex) {
        self.state = ProgressState::Probe;
        self.next = next.max(self.match_index.next());
        self.forget_inflight();
    }

    pub(super) fn need_snapshot(&mut self, now: Monotonic) {
        self.state = ProgressState::Snapshot;
        self.snapshot_asked_at = now;
        self.forget_inflight();
    }

    fn forget_inflight(&mut self) {
        self.probing = false;
        self.inflight.clear();
        self.inflight_bytes = 0;
    }
}
