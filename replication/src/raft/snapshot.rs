//! Machine: snapshots, as far as Raft is concerned. The data travels through the owners.
//!
//! ```text
//!   leader                                  owner ~~ data ~~> owner                        follower
//!     Ready.snapshots_wanted ──────────────►  sends           holds all of it ──► snapshot_received(index, term)
//!     snapshot_sent(Delivered | Failed) ◄───  reports         true: installs, truncates the log at index
//!     probe goes on after the match   ◄───────────────── SnapshotReply, once that is durable
//! ```
//!
//! Whatever of this is lost, the leader's next probe finds out where the follower stands and starts over (killer R23).

use super::core::{Raft, Role};
use super::membership::MembershipHistory;
use super::progress::ProgressState;
use super::*;
use coverage::Mark;

/// What became of a snapshot that the owner sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotOutcome {
    /// The receiver has all of it.
    Delivered,
    /// It did not arrive, or was refused.
    Failed,
}

impl Raft {
    pub(super) fn want_snapshot(&mut self, env: &Env<'_>, to: ReplicaId) {
        let Role::Leader(leading) = &mut self.role else { return };
        if let Some(progress) = leading.progress.get_mut(&to) {
            progress.need_snapshot(env.now);
            self.out.snapshots_wanted.push(to);
        }
    }

    /// The owner has sent (or failed to send) a snapshot at `index` to `to`.
    pub fn snapshot_sent(
        &mut self,
        env: &mut Env<'_>,
        to: ReplicaId,
        index: LogIndex,
        outcome: SnapshotOutcome,
    ) {
        let Role::Leader(leading) = &mut self.role else { return };
        let Some(progress) = leading.progress.get_mut(&to) else { return };
        if progress.state != ProgressState::Snapshot {
            return;
        }
        match outcome {
            SnapshotOutcome::Delivered => {
                progress.probe(index.next());
                leading.send_due = true;
            }
            SnapshotOutcome::Failed => {
                coverage::reached(Mark::SnapshotFailed);
                // The next heartbeat probes, and finds again that a snapshot is needed.
                progress.probe(self.tail.truncated.0.next());
                progress.sent_empty();
                progress.sent_at = env.now;
            }
        }
    }

    /// The owner holds a complete snapshot of the state after entry (`index`, `term`), whose sender led `from_leader_term`.
    /// True: install it. The owner then replaces its state and writes `Truncate(index, term)` to the log before (or together
    /// with) the next `Ready`'s write; the log goes on after `index`. False: of a former term, or nothing new.
    pub fn snapshot_received(
        &mut self,
        env: &mut Env<'_>,
        index: LogIndex,
        term: Term,
        from_leader_term: Term,
        membership: Membership,
    ) -> bool {
        if self.failure().is_some() || from_leader_term < self.term {
            return false;
        }
        if from_leader_term > self.term {
            self.become_follower(env, from_leader_term, None);
        }
        let known = index <= self.commit || self.tail.term(env.log, index) == Some(term);
        if matches!(self.role, Role::Leader(_)) || known {
            coverage::reached(Mark::SnapshotNotNeeded);
            self.commit = self.commit.max(index);
            self.answer_snapshot(index);
            return false;
        }
        tracing::info!(replica = %self.id, %index, %term, "snapshot accepted");
        self.tail.install(index, term);
        self.history = MembershipHistory::new(membership);
        self.jump_to(index);
        self.answer_snapshot(index);
        true
    }

    fn answer_snapshot(&mut self, index: LogIndex) {
        if let Role::Follower { leader: Some(leader), .. } = self.role {
            self.send_after(leader, Body::SnapshotReply { index, accepted: true });
        }
    }

    pub(super) fn on_snapshot_reply(
        &mut self,
        env: &mut Env<'_>,
        from: ReplicaId,
        index: LogIndex,
        accepted: bool,
    ) {
        if accepted {
            self.on_append_reply(env, from, index, LogIndex::ZERO);
        } else {
            self.snapshot_sent(env, from, index, SnapshotOutcome::Failed);
        }
    }

    /// The owner has truncated the log at or before `index`, whose entry has `term` and is applied.
    pub fn truncated(&mut self, index: LogIndex, term: Term) {
        assert!(
            index <= self.applied,
            "replica {}: truncated to {index}, applied only {}",
            self.id,
            self.applied
        );
        self.tail.truncate(index, term);
    }
}
