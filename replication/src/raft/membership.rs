//! Value: who counts, which changes are legal, and which membership is in force at the end of a log.
//!
//! A configuration takes effect when its entry is appended and is rolled back with it (thesis 4.1), so a log carries a short
//! history: what was in force at the commit index, and each change after it. There is at most one such change, except on a
//! follower that has not yet heard that the first one is committed.
//!
//! INVARIANT: quorums of two memberships that are one legal step apart have a member in common ([`Membership::check_step`]).

use super::{LogIndex, Membership, ProposeError, ReplicaId};
use std::collections::BTreeSet;

impl Membership {
    /// Only voters, one configuration.
    pub fn of_voters(voters: impl IntoIterator<Item = ReplicaId>) -> Membership {
        Membership { voters: voters.into_iter().collect(), ..Membership::default() }
    }

    /// Whether two majorities are needed.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether it counts in any configuration.
    pub fn is_voter(&self, id: ReplicaId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether it receives the log.
    pub fn contains(&self, id: ReplicaId) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }

    /// Everybody, in order.
    pub fn members(&self) -> BTreeSet<ReplicaId> {
        self.voters.iter().chain(&self.outgoing).chain(&self.learners).copied().collect()
    }

    /// Everybody who counts, in order.
    pub fn all_voters(&self) -> BTreeSet<ReplicaId> {
        self.voters.iter().chain(&self.outgoing).copied().collect()
    }

    /// Whether `next` is one legal step away:
    ///
    /// - from a single configuration: at most one voter more or less, or into a joint one that keeps all voters as outgoing;
    /// - from a joint one: out of it, to its incoming voters.
    ///
    /// Learners come and go freely; nobody is voter and learner at once.
    pub fn check_step(&self, next: &Membership) -> Result<(), ProposeError> {
        let counts_twice = next.learners.iter().any(|learner| next.is_voter(*learner));
        let voters_step = if self.is_joint() {
            !next.is_joint() && next.voters == self.voters
        } else if next.is_joint() {
            next.outgoing == self.voters
        } else {
            self.voters.symmetric_difference(&next.voters).count() <= 1
        };
        if next.voters.is_empty() || counts_twice || !voters_step {
            return Err(ProposeError::MembershipIllegal);
        }
        Ok(())
    }
}

/// The memberships that a log's end may still fall back to.
#[derive(Clone, Debug)]
pub(super) struct MembershipHistory {
    /// In force before all of `changes`; cannot be rolled back.
    base: Membership,
    /// Where `base` was appended; zero when that is not known any more.
    base_index: LogIndex,
    /// Appended later, by index.
    changes: Vec<(LogIndex, Membership)>,
}

impl MembershipHistory {
    pub(super) fn new(base: Membership) -> MembershipHistory {
        MembershipHistory { base, base_index: LogIndex::ZERO, changes: Vec::new() }
    }

    /// In force at the end of the log.
    pub(super) fn current(&self) -> &Membership {
        self.changes.last().map_or(&self.base, |(_, membership)| membership)
    }

    /// In force at `index`, which is not before what was settled.
    pub(super) fn at(&self, index: LogIndex) -> &Membership {
        let change = self.changes.iter().rev().find(|(at, _)| *at <= index);
        change.map_or(&self.base, |(_, membership)| membership)
    }

    /// Where the current one was appended; zero when it is old.
    pub(super) fn changed_at(&self) -> LogIndex {
        self.changes.last().map_or(self.base_index, |(index, _)| *index)
    }

    pub(super) fn append(&mut self, index: LogIndex, membership: Membership) {
        assert!(
            index > self.changed_at(),
            "membership at {index} appended after the one at {}",
            self.changed_at()
        );
        self.changes.push((index, membership));
    }

    /// Forgets changes at or after `index`.
    pub(super) fn roll_back(&mut self, index: LogIndex) {
        assert!(index > self.base_index, "settled membership at {} rolled back", self.base_index);
        self.changes.retain(|(at, _)| *at < index);
    }

    /// Nothing at or before `index` will be rolled back.
    pub(super) fn settle(&mut self, index: LogIndex) {
        let settled = self.changes.iter().filter(|(at, _)| *at <= index).count();
        if let Some((at, membership)) = self.changes.drain(..settled).next_back() {
            self.base = membership;
            self.base_index = at;
        }
    }
}
