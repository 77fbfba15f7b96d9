//! Machine: a follower's log.
//!
//! An append says: "your entry at `prev_index` has `prev_term`; after it come these". If it is so, everything up to there is equal
//! (log matching), conflicting entries are cut off, missing ones appended. The reply waits for the write.
//!
//! INVARIANT: nothing at or before the commit index is ever cut off.

use super::core::{Raft, Role};
use super::payload::membership_of;
use super::tail::Completions;
use super::*;
use coverage::Mark;

impl Raft {
    pub(super) fn on_append(
        &mut self,
        env: &mut Env<'_>,
        from: ReplicaId,
        prev: (LogIndex, Term),
        mut entries: Vec<Entry>,
        commit: LogIndex,
        context: u64,
    ) {
        let (mut prev_index, mut prev_term) = prev;
        if !entries.iter().zip(1..).all(|(entry, n)| entry.index == prev_index.after(n)) {
            tracing::warn!(replica = %self.id, %from, "append with a hole dropped");
            return;
        }
        if prev_index < self.commit {
            coverage::reached(Mark::LateAppendTaken);
            // Late: the committed part is equal anyway.
            entries.retain(|entry| entry.index > self.commit);
            let committed = self.commit;
            prev_index = committed;
            prev_term = self.tail.term(env.log, committed).unwrap_or(prev_term);
        }
        if self.tail.term(env.log, prev_index) != Some(prev_term) {
            coverage::reached(Mark::AppendRefusedByLog);
            self.refuse(env, from, (prev_index, prev_term), context);
            return;
        }
        let match_index = entries.last().map_or(prev_index, |entry| entry.index);
        if !self.take_entries(env, entries) {
            return;
        }
        self.commit = self.commit.max(commit.min(match_index));
        let body = Body::AppendReply { match_index, commit: self.commit, context };
        if self.is_planted(PlantedBug::AckBeforeSync) {
            self.send_now(from, body);
        } else {
            self.send_after(from, body);
        }
    }

    /// Appends what is new, cutting off what conflicts. False if that is impossible.
    fn take_entries(&mut self, env: &mut Env<'_>, entries: Vec<Entry>) -> bool {
        for entry in entries {
            if entry.index <= self.tail.last.0 {
                if self.tail.term(env.log, entry.index) == Some(entry.term) {
                    continue;
                }
                assert!(
                    entry.index > self.commit,
                    "replica {}: entry {} of term {} conflicts with the committed one",
                    self.id,
                    entry.index,
                    entry.term
                );
                coverage::reached(Mark::ConflictCutOff);
                let stale = self.is_planted(PlantedBug::StaleCompletion);
                let completions = if stale { Completions::Believe } else { Completions::Shorten };
                self.tail.cut(env.log, entry.index, completions);
                self.history.roll_back(entry.index);
            }
            let membership = membership_of(&entry);
            let Some(membership) = self.checked(membership) else { return false };
            if let Some(membership) = membership {
                self.history.append(entry.index, membership);
            }
            self.tail.append(entry);
        }
        true
    }

    /// Says where the logs may meet: at our last entry at or before `prev_index` whose term is not above `prev_term`.
    fn refuse(&mut self, env: &Env<'_>, from: ReplicaId, prev: (LogIndex, Term), context: u64) {
        let hint = self.last_at_or_below(env, prev.0, prev.1);
        let (hint_index, hint_term) = hint.unwrap_or((self.commit, self.term));
        let body = Body::AppendRefused { prev_index: prev.0, hint_index, hint_term, context };
        self.send_after(from, body);
    }

    /// Our last entry at or before `index` whose term is at most `term`; `None` when that is truncated.
    pub(super) fn last_at_or_below(
        &self,
        env: &Env<'_>,
        index: LogIndex,
        term: Term,
    ) -> Option<(LogIndex, Term)> {
        let mut index = index.min(self.tail.last.0);
        loop {
            let found = self.tail.term(env.log, index)?;
            if found <= term {
                return Some((index, found));
            }
            index = index.prev();
        }
    }

    /// A leader that hears of someone without a leader makes itself known.
    pub(super) fn remind(&mut self, to: ReplicaId) {
        if let Role::Leader(leading) = &mut self.role
            && let Some(progress) = leading.progress.get_mut(&to)
        {
            coverage::reached(Mark::LeaderMadeItselfKnown);
            progress.poke();
            leading.send_due = true;
        }
    }
}
