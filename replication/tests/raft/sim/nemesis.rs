//! What strikes the group, drawn again and again until all is healed.

use bytes::Bytes;
use replication::raft::{ProgressState, Raft, ReplicaId};
use std::collections::BTreeSet;

use super::{Event, MS, NODES_MAX, Sim};
use crate::raft::lab::Snapshot;

impl Sim {
    pub(super) fn nemesis(&mut self) {
        if self.healed {
            return;
        }
        let ids = self.ids();
        if self.knobs.restless {
            self.transfer_and_back();
        }
        match self.below(14) {
            10 | 11 => self.strike_leader(),
            12 => {
                let id = self.pick(&ids).expect("there are nodes");
                let until = self.now + self.below(4000 * MS);
                self.lanes.get_mut(&id).expect("known").stalled_until = until;
            }
            0 | 1 => self.crash(),
            2 => {
                let one: BTreeSet<ReplicaId> =
                    ids.iter().copied().filter(|_| self.chance(50)).collect();
                for a in &ids {
                    for b in &ids {
                        if one.contains(a) != one.contains(b) {
                            self.cuts.insert((*a, *b));
                        }
                    }
                }
            }
            3 => {
                if let (Some(a), Some(b)) = (self.pick(&ids), self.pick(&ids)) {
                    self.cuts.insert((a, b));
                }
            }
            4 | 5 => self.cuts.clear(),
            6 => self.transfer_and_back(),
            7 | 8 if self.knobs.membership => self.change_membership(),
            7..=9 | 13 => {
                let id = self.pick(&ids).expect("there are nodes");
                let keep = self.below(4);
                let lane = self.lanes.get_mut(&id).expect("known");
                lane.node.flush();
                lane.node.truncate(keep);
            }
            _ => unreachable!("below fourteen"),
        }
        let every = self.knobs.nemesis_every;
        let next = self.now + 1 + self.below(2 * every);
        self.at(next, Event::Nemesis);
    }

    /// Where it hurts: the leader's disk stalls, and it is cut off or crashes. Clients go on asking it.
    fn strike_leader(&mut self) {
        let leaders = self.leaders();
        let Some(leader) = self.pick(&leaders) else { return };
        let until = self.now + self.below(4000 * MS);
        self.lanes.get_mut(&leader).expect("known").stalled_until = until;
        if self.chance(50) {
            for other in self.ids() {
                self.cuts.insert((leader, other));
                self.cuts.insert((other, leader));
            }
        } else {
            self.lanes.get_mut(&leader).expect("known").node.crash(0);
            self.lanes.get_mut(&leader).expect("known").leased = None;
            let back = self.now + 1 + self.below(500 * MS);
            self.at(back, Event::Restart(leader));
        }
    }

    fn crash(&mut self) {
        let ids = self.ids();
        let all = self.chance(10);
        let victims = if all { ids } else { self.pick(&ids).into_iter().collect() };
        for id in victims {
            let kept = self.below(4) as usize;
            let lane = self.lanes.get_mut(&id).expect("known");
            if lane.node.raft.is_some() {
                lane.node.crash(kept);
                lane.leased = None;
                lane.reads.clear();
                self.counts.crashes += 1;
            }
            let back = self.now + 1 + self.below(1500 * MS);
            self.at(back, Event::Restart(id));
        }
    }

    /// One in two is undone soon, while messages of the first reign are under way; and somebody hears little of the second.
    fn transfer_and_back(&mut self) {
        let ids = self.ids();
        let leader = self.leaders().first().copied();
        let to = self.pick(&ids).expect("there are nodes");
        self.transfer(to);
        if let Some(leader) = leader.filter(|_| self.chance(50)) {
            let back = self.now + 1 + self.below(5 * self.knobs.latency_max);
            self.at(back, Event::Transfer(leader));
            let other = self.pick(&ids).expect("there are nodes");
            let cut = back + self.below(5 * self.knobs.latency_max);
            self.at(cut, Event::Cut(leader, other));
        }
    }

    pub(super) fn transfer(&mut self, to: ReplicaId) {
        let leaders = self.leaders();
        let Some(leader) = self.pick(&leaders) else { return };
        let lane = self.lanes.get_mut(&leader).expect("known");
        let local = lane.local(self.now);
        let term = lane.node.raft.as_ref().map(Raft::term).expect("it leads");
        let read_high = self.ledger.served_in(term);
        if let Some(Ok(())) = lane.node.with(local, |raft, env| raft.transfer(env, to, read_high)) {
            self.counts.transfers += 1;
        }
        self.touched(leader);
    }

    fn change_membership(&mut self) {
        let leaders = self.leaders();
        let Some(leader) = self.pick(&leaders) else { return };
        let raft = self.lanes[&leader].node.raft.as_ref().expect("it leads");
        let mut next = raft.membership().clone();
        let progress = raft.progress();
        if next.is_joint() {
            next.outgoing.clear();
        } else {
            let choice = self.below(4);
            let voters: Vec<ReplicaId> = next.voters.iter().copied().collect();
            let learners: Vec<ReplicaId> = next.learners.iter().copied().collect();
            match choice {
                0 if self.next_id <= NODES_MAX => {
                    let id = ReplicaId(self.next_id);
                    self.next_id += 1;
                    self.add(id, Snapshot::default());
                    next.learners.insert(id);
                }
                1 | 0 => {
                    if let Some(learner) = self.pick(&learners) {
                        let replicates = |id| {
                            progress
                                .iter()
                                .any(|p| p.id == id && p.state == ProgressState::Replicate)
                        };
                        if replicates(learner) {
                            next.learners.remove(&learner);
                            next.voters.insert(learner);
                        }
                    }
                }
                2 => {
                    // Replaces voters by learners, all at once.
                    next.outgoing = next.voters.clone();
                    if let Some(out) = self.pick(&voters).filter(|_| voters.len() > 1) {
                        next.voters.remove(&out);
                    }
                    for learner in learners {
                        next.learners.remove(&learner);
                        next.voters.insert(learner);
                    }
                }
                _ => {
                    if let Some(out) = self.pick(&voters).filter(|_| voters.len() > 1) {
                        next.voters.remove(&out);
                    }
                }
            }
        }
        let lane = self.lanes.get_mut(&leader).expect("known");
        let local = lane.local(self.now);
        let proposed =
            lane.node.with(local, |raft, env| raft.propose_membership(env, next, Bytes::new()));
        if let Some(Ok((term, index))) = proposed {
            self.counts.memberships += 1;
            self.ledger.membership_proposed(term, index);
        }
        self.touched(leader);
    }
}
