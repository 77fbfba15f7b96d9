//! Lease moves against the timestamp cache: one key, reads and writes of strangers, and a lease that moves while commands are in the log.
//!
//! Bound: timestamps 1 to 4, three leases, two writes under way, any reads. A lease's read bound is what the next lease begins above.
//! Law: what a read has answered at a timestamp is what the key has at that timestamp for ever.

use stateright::{Model, Property};
use std::collections::BTreeSet;

use super::{breaks, holds};

const LAST: u8 = 4;
const TERMS: u8 = 3;
const PROPOSALS_MAX: usize = 2;

/// A rule that is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Without {
    /// A new lease counts as having read everything up to its floor (killer H10).
    Floor,
    /// No read is served above the lease's read bound.
    Bound,
    /// A read is remembered.
    Cache,
    /// A read waits for writes in flight at or below it.
    Latches,
    /// A new leaseholder has applied what was in the log before it.
    Applied,
    /// A command is refused under another lease than it was proposed under (killer R19).
    LeaseCheck,
}

/// A write in the log, not applied yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Proposal {
    term: u8,
    at: u8,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    term: u8,
    /// Nothing at or below is written: the timestamp cache with its low-water mark.
    cache: u8,
    /// The lease's read bound.
    bound: u8,
    log: Vec<Proposal>,
    /// Commands of a former leaseholder that were not in the log when its lease ended; a careless log takes them later.
    stray: Vec<Proposal>,
    versions: BTreeSet<u8>,
    /// Reads answered: at which timestamp, and which version they saw (0: none).
    reads: BTreeSet<(u8, u8)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Read(u8),
    Write(u8),
    Apply,
    ApplyStray,
    ExtendBound,
    /// So many of the commands in the log survive.
    MoveLease(usize),
}

struct LeaseMoves(Option<Without>);

impl LeaseMoves {
    fn lacks(&self, rule: Without) -> bool {
        self.0 == Some(rule)
    }
}

fn seen_at(versions: &BTreeSet<u8>, at: u8) -> u8 {
    versions.range(..=at).next_back().copied().unwrap_or(0)
}

impl Model for LeaseMoves {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            term: 1,
            cache: 0,
            bound: 1,
            log: Vec::new(),
            stray: Vec::new(),
            versions: BTreeSet::new(),
            reads: BTreeSet::new(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend((1..=LAST).map(Action::Read));
        actions.extend((1..=LAST).map(Action::Write));
        actions.extend([Action::Apply, Action::ApplyStray, Action::ExtendBound]);
        actions.extend((0..=state.log.len()).map(Action::MoveLease));
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Read(at) => {
                let above = at > state.bound && !self.lacks(Without::Bound);
                let latched =
                    state.log.iter().any(|write| write.at <= at && write.term == state.term);
                let behind = state.log.iter().any(|write| write.term < state.term);
                if above
                    || (latched && !self.lacks(Without::Latches))
                    || (behind && !self.lacks(Without::Applied))
                {
                    return None;
                }
                next.reads.insert((at, seen_at(&state.versions, at)));
                if !self.lacks(Without::Cache) {
                    next.cache = state.cache.max(at);
                }
            }
            Action::Write(at) => {
                let newest = state.versions.last().copied().unwrap_or(0);
                // One write of a key at a time (latches).
                let busy = !state.log.is_empty() || state.stray.len() >= PROPOSALS_MAX;
                if busy || at <= state.cache || at <= newest {
                    return None;
                }
                next.log.push(Proposal { term: state.term, at });
            }
            Action::Apply => {
                if state.log.is_empty() {
                    return None;
                }
                next.versions.insert(next.log.remove(0).at);
            }
            Action::ApplyStray => {
                if state.stray.is_empty() {
                    return None;
                }
                let write = next.stray.remove(0);
                if write.term == state.term || self.lacks(Without::LeaseCheck) {
                    next.versions.insert(write.at);
                }
            }
            Action::ExtendBound if state.bound < LAST => next.bound += 1,
            Action::ExtendBound => return None,
            Action::MoveLease(kept) => {
                if state.term == TERMS {
                    return None;
                }
                next.term += 1;
                next.stray.extend(next.log.drain(kept..));
                next.cache = if self.lacks(Without::Floor) { 0 } else { state.bound };
            }
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(STABLE, |_, state: &State| {
                state.reads.iter().all(|(at, seen)| seen_at(&state.versions, *at) == *seen)
            }),
            Property::sometimes("a write survives its lease", |_, state: &State| {
                state.term > 1 && state.log.iter().any(|write| write.term < state.term)
            }),
            Property::sometimes("a command comes under another lease", |_, state: &State| {
                state.stray.iter().any(|write| write.term < state.term)
            }),
            Property::sometimes("reads and writes under the last lease", |_, state: &State| {
                state.term == TERMS && state.reads.len() >= 2 && state.versions.len() >= 2
            }),
        ]
    }
}

const STABLE: &str = "what was read stays so";

#[test]
fn what_was_read_stays_so_over_lease_moves() {
    let states = holds(LeaseMoves(None));
    println!("{states} states");
    assert!(states > 1_000, "only {states} states: the model is too small");
}

#[test]
fn no_rule_can_be_left_out() {
    let rules = [
        Without::Floor,
        Without::Bound,
        Without::Cache,
        Without::Latches,
        Without::Applied,
        Without::LeaseCheck,
    ];
    for rule in rules {
        assert!(breaks(LeaseMoves(Some(rule)), STABLE), "without {rule:?} it still holds");
    }
}
