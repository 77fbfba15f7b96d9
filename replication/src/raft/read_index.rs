//! Machine: read indexes. Linearizable reads without a lease, for example at followers.
//!
//! The leader answers with its commit index, once an entry of its own term is committed (before, it does not know what is) and a
//! quorum has acknowledged an append that was sent after the question came (thesis 6.4, killer R12). Questions that arrive before
//! the append is sent share one round.
//!
//! A follower asks under a random token, so that no answer of an earlier life is taken for a new one. Lost questions and answers
//! are not repeated: the owner asks again.

use super::core::{Raft, Role};
use super::*;
use coverage::Mark;
use std::collections::VecDeque;

/// Questions under way at a replica; the oldest is dropped for a new one.
const QUESTIONS_MAX: usize = 4096;

#[derive(Clone, Copy, Debug)]
enum Asker {
    Owner { context: u64 },
    Peer { id: ReplicaId, token: u64 },
}

#[derive(Debug)]
struct Read {
    asker: Asker,
    round: u64,
    index: LogIndex,
}

/// A leader's questions.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// For the first commit of the term.
    waiting: Vec<Asker>,
    /// For a quorum's answer; rounds ascend.
    asked: VecDeque<Read>,
}

impl Reads {
    /// The newest round that a read waits for; zero if none does.
    pub(super) fn newest_round(&self) -> u64 {
        self.asked.back().map_or(0, |read| read.round)
    }
}

impl Raft {
    /// Asks for an index at or after everything that is committed anywhere as of now. The answer comes in
    /// [`Ready::read_indexes`] under the same `context`, or never (lost, or the leader changed): then ask again.
    pub fn read_index(&mut self, env: &mut Env<'_>, context: u64) {
        match self.leader() {
            Some(leader) if leader == self.id => self.ask(env, Asker::Owner { context }),
            Some(leader) => {
                let token = (env.random)();
                if self.asked.len() >= QUESTIONS_MAX {
                    self.asked.pop_first();
                }
                self.asked.insert(token, context);
                self.send_now(leader, Body::ReadIndex { context: token });
            }
            None => {}
        }
    }

    pub(super) fn on_read_index(&mut self, env: &mut Env<'_>, from: ReplicaId, token: u64) {
        self.ask(env, Asker::Peer { id: from, token });
    }

    pub(super) fn on_read_index_reply(&mut self, from: ReplicaId, token: u64, index: LogIndex) {
        if self.leader() == Some(from)
            && let Some(context) = self.asked.remove(&token)
        {
            self.out.read_indexes.push((context, index));
        }
    }

    fn ask(&mut self, env: &mut Env<'_>, asker: Asker) {
        if self.is_planted(PlantedBug::ReadIndexUnconfirmed) {
            self.answer(asker, self.commit);
            return;
        }
        let commit = self.commit;
        let Role::Leader(leading) = &mut self.role else { return };
        if leading.reads.waiting.len() + leading.reads.asked.len() >= QUESTIONS_MAX {
            return;
        }
        if commit < leading.first {
            coverage::reached(Mark::ReadIndexWaitedForTerm);
            leading.reads.waiting.push(asker);
            return;
        }
        let round = leading.begin_round(env.now);
        leading.reads.asked.push_back(Read { asker, round, index: commit });
        self.confirm_reads();
    }

    /// The commit index has moved: questions that came before the term's first commit can be asked now.
    pub(super) fn release_waiting_reads(&mut self, env: &mut Env<'_>) {
        let commit = self.commit;
        let Role::Leader(leading) = &mut self.role else { return };
        if commit >= leading.first {
            for asker in std::mem::take(&mut leading.reads.waiting) {
                self.ask(env, asker);
            }
        }
    }

    /// Answers what a quorum has confirmed.
    pub(super) fn confirm_reads(&mut self) {
        let Role::Leader(leading) = &self.role else { return };
        if leading.reads.asked.is_empty() {
            return;
        }
        let confirmed = self.membership().reached(|id| {
            if id == self.id {
                return u64::MAX;
            }
            leading.progress.get(&id).map_or(0, |progress| progress.round)
        });
        let confirmed = confirmed.unwrap_or(0);
        let Role::Leader(leading) = &mut self.role else { return };
        let mut answers = Vec::new();
        while let Some(read) = leading.reads.asked.pop_front_if(|read| read.round <= confirmed) {
            answers.push(read);
        }
        for read in answers {
            coverage::reached(Mark::ReadIndexConfirmed);
            self.answer(read.asker, read.index);
        }
    }

    fn answer(&mut self, asker: Asker, index: LogIndex) {
        match asker {
            Asker::Owner { context } => self.out.read_indexes.push((context, index)),
            Asker::Peer { id, token } => {
                self.send_now(id, Body::ReadIndexReply { context: token, index })
            }
        }
    }
}
