//! Value: what Raft promises, held against all replicas at once.
//!
//! - *A vote is remembered*: a replica that has voted in a term never goes back before that term.
//! - *One leader per term*, and *a replica that was replaced never comes back*.
//! - *What is committed once is committed for good*: no two entries are ever committed at one index, and what a replica's log holds there
//!   is what was committed, to the last byte, also after restarts on a disk that rots.
//! - *Committed means durable*: a quorum of the leader's membership has it on disk.
//! - *Who lacks a committed entry cannot be elected*: no quorum of any replica's membership would vote for it now. That is what the
//!   election restriction, the rule of the own term's commit (R09) and those of membership changes (R06, R07) are for; looking at it
//!   whenever something is committed finds their breach without waiting for the election.
//! - *Counting commits entries of the own term only*, whatever came before them (Raft, 5.4.2).
//! - *A range never bears the loss of fewer voters than before* (C07).
//! - *Applied means durable here*: else a crash leaves state without its log. And *what a replica takes for durable is*.

use replication::raft::{LogIndex, Membership, ReplicaId, RoleKind, Term};
use replication::range::{NodeId, RangeId};
use replication::store::{GroupView, StoreMessage};
use std::collections::BTreeMap;
use storage::log::{LogGroup, LogReader};

use super::is_quorum;
use crate::world::fault::Trigger;
use crate::world::machine::Process;
use crate::world::tally::Trace;
use crate::world::{Level, World};

/// What was seen of all groups so far.
#[derive(Default)]
pub(super) struct LogWatch {
    /// Terms of committed entries, and hashes of their payload.
    committed: BTreeMap<(RangeId, LogIndex), (Term, u64)>,
    /// Looked at up to here, by replica of a process.
    looked: BTreeMap<(NodeId, RangeId), (ReplicaId, LogIndex)>,
    leaders: BTreeMap<(RangeId, Term), ReplicaId>,
    /// What each leader had committed when it was last looked at, and in which term it led.
    led: BTreeMap<(NodeId, RangeId), (Term, LogIndex)>,
    /// The last term voted in.
    votes: BTreeMap<(NodeId, RangeId, ReplicaId), Term>,
    /// The newest replica that knew its range.
    newest: BTreeMap<(NodeId, RangeId), ReplicaId>,
    /// As a range's last leader had it.
    memberships: BTreeMap<RangeId, Membership>,
    /// Whether there is no reason ever to bear fewer losses than before (C07).
    keeps_voters: bool,
}

impl LogWatch {
    pub(super) fn new(level: Level) -> LogWatch {
        // The copies of available tables move into regions that may have fewer nodes.
        LogWatch { keeps_voters: level == Level::Keys, ..LogWatch::default() }
    }

    pub(super) fn died(&mut self, node: NodeId) {
        self.looked.retain(|(of, _), _| *of != node);
        self.led.retain(|(of, _), _| *of != node);
    }

    /// A message leaves. Whether it is a vote.
    pub(super) fn leaves(&mut self, node: NodeId, message: &StoreMessage) -> bool {
        use replication::raft::Body;
        let StoreMessage::Raft { range, message, .. } = message else { return false };
        let (Body::Vote { .. } | Body::VoteReply { granted: true, .. }) = &message.body else {
            return false;
        };
        let voted = self.votes.entry((node, *range, message.from)).or_insert(message.term);
        *voted = message.term.max(*voted);
        true
    }
}

/// What one replica has on disk, or in memory, of one group.
struct Copy<'a> {
    node: NodeId,
    view: GroupView<'a>,
    process: &'a Process,
}

impl Copy<'_> {
    fn group(&self) -> LogGroup {
        LogGroup(self.view.range.0)
    }

    fn durable(&self) -> LogIndex {
        self.process.durable_index(self.view.range).min(self.view.last)
    }

    /// Term and index of the end of what is on disk.
    fn durable_end(&self) -> (Term, LogIndex) {
        let index = self.durable();
        let term = match self.process.durable.get(&self.view.range) {
            Some((durable, term)) if *durable == index => *term,
            _ => self.process.log.term(self.group(), index).unwrap_or_default(),
        };
        (term, index)
    }

    fn end(&self) -> (Term, LogIndex) {
        let index = self.view.last;
        (self.process.log.term(self.group(), index).unwrap_or_default(), index)
    }

    /// Whether its log, up to `upto`, has that entry.
    fn has(&self, index: LogIndex, term: Term, upto: LogIndex) -> bool {
        index <= upto
            && self.process.log.term(self.group(), index).is_none_or(|found| found == term)
    }
}

impl World {
    /// After a turn of a node.
    pub(super) fn check_logs(&mut self, node: NodeId) {
        let Some(process) = &self.machines[&node].process else { return };
        let mut broken: Vec<String> = Vec::new();
        let mut committed: Vec<(RangeId, LogIndex, Term)> = Vec::new();
        let mut sprung: Vec<(Trigger, RangeId, Term)> = Vec::new();
        let watch = &mut self.watch.log;
        for view in process.shard.store().groups() {
            let range = view.range;
            let settled = look_at_replica(watch, node, process, &view, &mut broken, &mut sprung);
            look_at_memory(node, process, &view, &mut broken);
            look_at_commit(watch, node, process, &view, &mut broken);
            let looked =
                watch.looked.entry((node, range)).or_insert((view.replica, LogIndex::ZERO));
            if looked.0 != view.replica || looked.1 > view.commit {
                *looked = (view.replica, LogIndex::ZERO);
            }
            if looked.1 >= view.commit {
                continue;
            }
            let first = looked.1.max(view.truncated).next();
            looked.1 = view.commit;
            look_at_entries(watch, node, process, (range, first, view.commit), &mut broken);
            // What a range is born with each replica gets with its birth, not through the log.
            // And what was committed just before a change was committed by the members before it.
            if settled
                && view.commit > view.truncated
                && let Some(term) = process.log.term(LogGroup(range.0), view.commit)
            {
                committed.push((range, view.commit, term));
            }
        }
        for (range, index, term) in committed {
            broken.extend(self.commit_is_lost_without(node, range, index, term));
        }
        broken.into_iter().for_each(|what| self.violate(what));
        for (trigger, range, term) in sprung {
            if trigger == Trigger::Elected {
                self.tell(|| format!("{node} is elected in {range}, term {term}"));
            }
            self.spring(trigger, node);
        }
    }

    /// Why the entry that `leader` has just committed can still be lost.
    fn commit_is_lost_without(
        &self,
        leader: NodeId,
        range: RangeId,
        index: LogIndex,
        term: Term,
    ) -> Option<String> {
        let copy_on = |node: NodeId| {
            let process = self.machines[&node].process.as_ref()?;
            Some(Copy { node, view: process.shard.store().group(range)?, process })
        };
        // Where `of` would send it a message. A change of members that was lost may have made a replica of that number elsewhere.
        let peer = |of: &Copy<'_>, id: ReplicaId| {
            let node = if id == of.view.replica { of.node } else { *of.view.routes.get(&id)? };
            copy_on(node).filter(|copy| copy.view.replica == id)
        };
        let own = copy_on(leader)?;
        let membership = own.view.membership;
        // Of a replica that does not run, nobody knows here: it may have it, and it does not vote.
        let durable =
            |id: ReplicaId| peer(&own, id).is_none_or(|copy| copy.has(index, term, copy.durable()));
        if !is_quorum(membership, durable) {
            let voters = membership.all_voters();
            let on = voters.iter().filter(|id| durable(**id)).count();
            return Some(format!(
                "{leader} committed entry {index} of {range}, which is durable on {on} of {} voters only",
                voters.len()
            ));
        }
        self.machines.keys().filter_map(|node| copy_on(*node)).find_map(|candidate| {
            let membership: &Membership = candidate.view.membership;
            let id = candidate.view.replica;
            if !membership.is_voter(id) || candidate.has(index, term, candidate.view.last) {
                return None;
            }
            let end = candidate.end();
            let votes = |voter: ReplicaId| {
                voter == id || peer(&candidate, voter).is_some_and(|copy| copy.durable_end() <= end)
            };
            is_quorum(membership, votes).then(|| {
                format!(
                    "{leader} committed entry {index} of {range} in term {term}, but replica {id}, which lacks it, could still be elected"
                )
            })
        })
    }
}

/// Whether it leads, with the members that the range had when it was last looked at.
fn look_at_replica(
    watch: &mut LogWatch,
    node: NodeId,
    process: &Process,
    view: &GroupView<'_>,
    broken: &mut Vec<String>,
    sprung: &mut Vec<(Trigger, RangeId, Term)>,
) -> bool {
    let GroupView { range, replica, term, .. } = *view;
    if watch.votes.get(&(node, range, replica)).is_some_and(|voted| *voted > term) {
        broken.push(format!("{node} has forgotten that it voted in {range}: its term is {term}"));
    }
    if watch.newest.get(&(node, range)).is_some_and(|newest| *newest > replica) {
        broken.push(format!("{node}: replica {replica} of {range} has come back"));
    }
    if process.shard.store().descriptor(range).is_some() {
        watch.newest.insert((node, range), replica);
    }
    if view.role != RoleKind::Leader {
        return false;
    }
    match watch.leaders.insert((range, term), replica) {
        None => sprung.push((Trigger::Elected, range, term)),
        Some(other) if other == replica => {}
        Some(other) => {
            broken.push(format!("replicas {other} and {replica} of {range} both lead term {term}"))
        }
    }
    if watch.memberships.get(&range) == Some(view.membership) {
        return true;
    }
    let former = watch.memberships.insert(range, view.membership.clone());
    let Some(former) = former else { return false };
    if former.is_joint() != view.membership.is_joint() {
        sprung.push((Trigger::Reconfigured, range, term));
    }
    let (before, now) = (former.voters.len(), view.membership.voters.len());
    // Of four voters one may be lost, as of three.
    let bears = |voters: usize| voters.saturating_sub(1) / 2;
    if bears(now) < bears(before) && watch.keeps_voters {
        broken.push(format!("{node} leads {range} from {before} voters to {now}"));
    }
    false
}

/// Holds what a log has between two indexes, both in, against what was committed there.
fn look_at_entries(
    watch: &mut LogWatch,
    node: NodeId,
    process: &Process,
    (range, first, last): (RangeId, LogIndex, LogIndex),
    broken: &mut Vec<String>,
) {
    // What cannot be read, whoever needs it finds out.
    let read = coverage::aside(|| process.log.entries(LogGroup(range.0), first, last, usize::MAX));
    for entry in read.unwrap_or_default() {
        let mut content = Trace::default();
        content.bytes(&entry.data);
        let (index, found) = (entry.index, (entry.term, content.value()));
        let known = *watch.committed.entry((range, index)).or_insert(found);
        if known.0 != found.0 {
            broken.push(format!(
                "{node} has committed entry {index} of {range} in term {}, others in term {}",
                found.0, known.0
            ));
        } else if known != found {
            broken.push(format!(
                "{node} has entry {index} of {range} with another content than was committed"
            ));
        }
    }
}

/// Since it leads it has committed nothing but what ends with an entry of its term.
fn look_at_commit(
    watch: &mut LogWatch,
    node: NodeId,
    process: &Process,
    view: &GroupView<'_>,
    broken: &mut Vec<String>,
) {
    let GroupView { range, term, commit, .. } = *view;
    if view.role != RoleKind::Leader {
        watch.led.remove(&(node, range));
        return;
    }
    let former = watch.led.insert((node, range), (term, commit));
    let goes_on = former.is_some_and(|(of, before)| of == term && before < commit);
    if !goes_on || commit <= view.truncated {
        return;
    }
    let of = process.log.term(LogGroup(range.0), commit);
    if of.is_some_and(|of| of != term) {
        broken.push(format!(
            "{node} leads {range} in term {term}, and has committed up to entry {commit}, which is of term {}",
            of.unwrap_or_default()
        ));
    }
}

fn look_at_memory(node: NodeId, process: &Process, view: &GroupView<'_>, broken: &mut Vec<String>) {
    let durable = process.durable_index(view.range);
    // What a birth or a snapshot brought is in the state engine, and flushed.
    if view.applied > view.truncated && view.applied > durable {
        broken.push(format!(
            "{node} has applied {} up to {}, but has it on disk up to {durable} only",
            view.range, view.applied
        ));
    }
    if view.durable > view.truncated && view.durable > durable {
        broken.push(format!(
            "{node} takes its log of {} for durable up to {}, but has it on disk up to {durable} only",
            view.range, view.durable
        ));
    }
}
