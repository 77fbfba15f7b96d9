//! Machine: how a replica begins whose group was split off from another: with its leader, and with what its uninitialised
//! predecessor on this store has said.
//!
//! Problem: an election costs two round trips and two syncs (three with pre-votes) before the first entry of its winner can be
//! committed; yet when a range is split everybody could know who will lead: the store that leads now. Idea: the term that the
//! group is born with belongs to one replica, named by the split itself. Nobody asks for votes in that term, and it leads at
//! once; one append acknowledged by a quorum then settles leadership, lease and first commit together.
//!
//! ```text
//!   left's leader       applies the split: leads right ──► append ─┐            committed: serves
//!   left's followers                                               └─► apply the split, acknowledge ─┘
//! ```
//!
//! INVARIANT: at most one replica ever leads the term of birth, once. The owner calls [`Raft::lead_from_birth`] only where the
//! command that creates the group was proposed in the very term its store still leads: of that term there is one leader, in one
//! incarnation, and it applies the command once. A candidate's term is above its own, and every replica that can stand is born
//! in the term of birth, so nobody else leads it by election either. (Checked: "two leaders in term" asserts in
//! [`Raft::acknowledge`], `tests/store`.)
//!
//! The log's safety does not ask how a term got its leader, only that it has one, whose log has everything committed before:
//! before the first term nothing was. Entries that a crash makes it forget were not counted with its own copy (R05), and after
//! the restart it does not lead the term any more.
//!
//! INVARIANT: what an uninitialised replica has acknowledged binds the replica that takes its place ([`Raft::take_over`]): the
//! leader counts its store's promise.

use super::core::{Raft, Role};
use super::*;
use coverage::Mark;

impl Raft {
    /// Leads the term it is born with. `floor`: at or above every read served on what the group holds, that whoever serves under
    /// this leadership does not know of by itself. False, and nothing has changed, if this replica has heard of a later term, has
    /// voted, follows somebody or does not count.
    pub fn lead_from_birth(&mut self, env: &mut Env<'_>, floor: Timestamp) -> bool {
        let unborn = self.tail.last == self.tail.truncated && self.tail.last.1 == self.term;
        let free = matches!(self.role, Role::Follower { leader: None, .. })
            && self.vote.is_none()
            && self.binding.is_none();
        let counts = self.membership().voters.contains(&self.id);
        if self.failure().is_some() || !unborn || !free || !counts {
            coverage::reached(Mark::BirthNotLed);
            return false;
        }
        coverage::reached(Mark::LedFromBirth);
        // Not needed to keep others from being elected; it says on disk to whom the term belongs.
        self.vote = Some(self.id);
        self.become_leader(env, floor);
        true
    }

    /// Takes the place of an uninitialised replica with the same id, whose term and vote it has already.
    pub fn take_over(&mut self, env: &Env<'_>, former: &Raft) {
        assert_eq!(self.id, former.id, "a replica takes over from itself only");
        coverage::reached(Mark::TookOverUninitialised);
        self.floor = self.floor.max(former.read_floor(env));
        self.binding = former.binding;
        if former.term == self.term
            && let Role::Follower { leader, heard_at } = former.role
        {
            self.role = Role::Follower { leader, heard_at };
        }
    }
}
