//! Parallel commit and its recovery: one transaction that writes two keys in two ranges, its record in a third.
//!
//! Bound: timestamps 1 and 2; requests arrive late, twice, never, and in any order, each as often as it likes; the coordinator dies at any
//! step, also right after its client was told; anybody may push, look for writes (with and without preventing what is missing) and
//! push with what was found, however old that is. Other transactions read the keys at any time. Two keys are enough: a third only adds
//! another one that is laid or is not.

use stateright::{Model, Property};
use std::collections::BTreeSet;

use super::{breaks, holds};

const KEYS: usize = 2;
const FIRST: u8 = 1;
const LAST: u8 = 2;

/// A rule that is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Without {
    /// Who misses a write prevents it.
    Prevention,
    /// What was found is about one staged timestamp.
    AttemptCheck,
    /// A late `Stage` does not put the record back.
    ForwardOnly,
    /// The record says "committed" before an intent goes.
    ExplicitFirst,
    /// A failure is reported when the record says "aborted".
    Certainty,
    /// A staged record is not simply pushed or aborted.
    StagedIsSpecial,
    /// An intent stays where it was laid.
    IntentsStay,
    /// A removed record leaves a mark at the highest timestamp that late requests may come with.
    HighestMark,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Request {
    Write(usize, u8),
    Stage(u8),
    End(Option<u8>),
    Resolve(usize, Option<u8>),
    /// With the highest timestamp that it was ever to commit at.
    Forget(u8),
}

enum Answer {
    Staged,
    Refused,
    Decided(Option<u8>),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Record {
    None,
    Pending,
    Staging(u8),
    Committed(u8),
    Aborted,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Slot {
    intent: Option<u8>,
    version: Option<u8>,
    /// The timestamp cache: nothing is laid at or below.
    read: u8,
}

/// What the coordinator does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Phase {
    Parallel(u8),
    /// All intents are laid; the record is asked to commit there.
    Record(u8),
    Abort,
    Cleaning(Option<u8>),
    Forgetting,
    Gone,
}

/// What the coordinator has heard of what it is waiting for. A delayed answer needs no state of its own: the coordinator may act on it as late
/// as it likes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Heard {
    laid: [Option<u8>; KEYS],
    staged: bool,
    refused: bool,
    /// The record's last word.
    decided: Option<Option<u8>>,
    resolved: [bool; KEYS],
}

/// What was seen of the writes of one staged attempt, for good: `Some(false)`: missing.
type Facts = [Option<bool>; KEYS];

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    phase: Phase,
    /// The highest timestamp that it has tried.
    highest: u8,
    /// What the client was told: `Some(None)`: failed.
    told: Option<Option<u8>>,
    heard: Heard,
    sent: BTreeSet<Request>,
    record: Record,
    /// The transaction must commit above.
    pushed: u8,
    slots: [Slot; KEYS],
    /// By staged timestamp: `None` until somebody was told of it.
    facts: [Option<Facts>; LAST as usize],
    /// Readers that passed by its intents.
    passed: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Send,
    /// Or once more. Whether its answer is heard.
    Arrive(Request, bool),
    Learn,
    MoveUp,
    GiveUp,
    Die,
    ReadByOther(usize, u8),
    PushAbove(u8, Option<(u8, bool)>),
    PushAway(Option<(u8, bool)>),
    Look(usize, u8, bool),
    /// Whoever was told the verdict applies it to a key.
    ResolveByOther(usize),
}

struct ParallelCommit(Option<Without>);

impl ParallelCommit {
    fn lacks(&self, rule: Without) -> bool {
        self.0 == Some(rule)
    }

    fn arrive(&self, state: &mut State, request: Request, heard: bool) {
        let mut told = state.heard;
        match request {
            Request::Write(key, asked) => {
                let at = self.write(&mut state.slots[key], asked);
                if state.phase == Phase::Parallel(asked) {
                    told.laid[key] = Some(at);
                }
            }
            Request::Stage(at) => match self.stage(state, at) {
                Answer::Decided(verdict) => told.decided = Some(verdict),
                Answer::Staged if state.phase == Phase::Parallel(at) => told.staged = true,
                Answer::Staged | Answer::Refused => {}
            },
            Request::End(at) => match self.end(state, at) {
                Answer::Decided(verdict) => told.decided = Some(verdict),
                Answer::Refused => told.refused |= at.map(Phase::Record) == Some(state.phase),
                Answer::Staged => unreachable!("nobody asked for that"),
            },
            Request::Resolve(key, verdict) => {
                resolve(&mut state.slots[key], verdict);
                told.resolved[key] = true;
            }
            Request::Forget(highest) => {
                if let Record::Committed(at) = state.record {
                    state.record = Record::None;
                    let mark = if self.lacks(Without::HighestMark) { at } else { at.max(highest) };
                    state.pushed = state.pushed.max(mark);
                }
            }
        }
        if heard {
            state.heard = told;
        }
    }

    fn write(&self, slot: &mut Slot, asked: u8) -> u8 {
        let least = asked.max(slot.read + 1).max(slot.version.map_or(0, |at| at + 1));
        let at = match slot.intent {
            Some(at) if self.lacks(Without::IntentsStay) => at.max(least),
            Some(at) => at,
            None => least,
        };
        slot.intent = Some(at);
        at
    }

    fn stage(&self, state: &mut State, at: u8) -> Answer {
        match state.record {
            Record::Committed(ts) => Answer::Decided(Some(ts)),
            Record::Aborted => Answer::Decided(None),
            Record::Staging(ts) if ts >= at && !self.lacks(Without::ForwardOnly) => Answer::Staged,
            _ if state.pushed >= at => Answer::Refused,
            _ => {
                state.record = Record::Staging(at);
                Answer::Staged
            }
        }
    }

    fn end(&self, state: &mut State, at: Option<u8>) -> Answer {
        state.record = match (state.record, at) {
            (decided @ (Record::Committed(_) | Record::Aborted), _) => decided,
            (_, None) => Record::Aborted,
            (Record::Staging(staged), Some(at)) if staged == at => Record::Committed(at),
            (_, Some(at)) if state.pushed >= at => return Answer::Refused,
            (_, Some(at)) => Record::Committed(at),
        };
        match state.record {
            Record::Committed(at) => Answer::Decided(Some(at)),
            _ => Answer::Decided(None),
        }
    }

    /// The record takes what was found; answers what it says then.
    fn judge(&self, state: &mut State, found: Option<(u8, bool)>) -> Record {
        if let (Record::Staging(at), Some((about, all))) = (state.record, found)
            && (about == at || self.lacks(Without::AttemptCheck))
        {
            state.record = if all { Record::Committed(at) } else { Record::Pending };
        }
        if let Record::Staging(at) = state.record {
            facts_of(state, at).get_or_insert_default();
        }
        state.record
    }

    /// A reader at `above` wants to pass by.
    fn push_above(&self, state: &mut State, above: u8, found: Option<(u8, bool)>) {
        match self.judge(state, found) {
            Record::None | Record::Pending => {}
            Record::Staging(at) if at > above || self.lacks(Without::StagedIsSpecial) => {}
            Record::Staging(_) | Record::Committed(_) | Record::Aborted => return,
        }
        state.pushed = state.pushed.max(above);
        state.passed = state.passed.max(above);
    }

    /// It was silent for long, is in a deadlock, or must go.
    fn push_away(&self, state: &mut State, found: Option<(u8, bool)>) {
        match self.judge(state, found) {
            Record::None | Record::Pending => state.record = Record::Aborted,
            Record::Staging(_) if self.lacks(Without::StagedIsSpecial) => {
                state.record = Record::Aborted;
            }
            Record::Staging(_) | Record::Committed(_) | Record::Aborted => {}
        }
    }

    fn look(&self, state: &mut State, key: usize, staged: u8, prevent: bool) {
        let slot = &mut state.slots[key];
        let laid = slot.intent.is_some_and(|at| at <= staged);
        if !laid && prevent && !self.lacks(Without::Prevention) {
            slot.read = slot.read.max(staged);
        }
        if laid || prevent {
            facts_of(state, staged).get_or_insert_default()[key] = Some(laid);
        }
    }

    /// What the answers so far allow the coordinator to do.
    fn learn(&self, state: &State) -> Option<State> {
        let mut next = state.clone();
        let heard = &state.heard;
        match (state.phase, heard.decided) {
            (Phase::Parallel(_) | Phase::Record(_) | Phase::Abort, Some(verdict)) => {
                next.told = next.told.or(Some(verdict));
                next.phase = Phase::Cleaning(verdict);
            }
            (Phase::Parallel(at), None) => {
                let laid = heard.laid.iter().copied().collect::<Option<Vec<u8>>>()?;
                let laid = laid.into_iter().max()?;
                if !heard.staged {
                    return None;
                }
                next.phase = Phase::Record(laid.max(at));
                next.highest = next.highest.max(laid);
                if laid <= at {
                    next.told = Some(Some(at));
                    if self.lacks(Without::ExplicitFirst) {
                        next.phase = Phase::Cleaning(Some(at));
                    }
                }
            }
            (Phase::Cleaning(Some(_)), _) if heard.resolved.iter().all(|done| *done) => {
                next.phase = Phase::Forgetting;
            }
            _ => return None,
        }
        Some(next)
    }

    fn send(&self, state: &mut State) {
        match state.phase {
            Phase::Parallel(at) => {
                state.sent.extend((0..KEYS).map(|key| Request::Write(key, at)));
                state.sent.insert(Request::Stage(at));
            }
            Phase::Record(at) => {
                state.sent.insert(Request::End(Some(at)));
            }
            Phase::Abort => {
                state.sent.insert(Request::End(None));
            }
            Phase::Cleaning(verdict) => {
                state.sent.extend((0..KEYS).map(|key| Request::Resolve(key, verdict)));
            }
            Phase::Forgetting => {
                state.sent.insert(Request::Forget(state.highest));
            }
            Phase::Gone => {}
        }
    }
}

fn resolve(slot: &mut Slot, verdict: Option<u8>) {
    if let (Some(laid), Some(at)) = (slot.intent, verdict)
        && laid <= at
    {
        slot.version = Some(at);
    }
    slot.intent = None;
}

fn facts_of(state: &mut State, staged: u8) -> &mut Option<Facts> {
    &mut state.facts[usize::from(staged - FIRST)]
}

/// What is known of a staged attempt.
fn found(state: &State, staged: u8) -> Option<(u8, bool)> {
    let facts = state.facts[usize::from(staged - FIRST)]?;
    if facts.contains(&Some(false)) {
        return Some((staged, false));
    }
    facts.iter().all(|fact| *fact == Some(true)).then_some((staged, true))
}

/// Whether a reader at `above` finds an intent, and nothing of the transaction yet.
fn hides(slot: &Slot, above: u8) -> bool {
    slot.intent.is_some_and(|laid| laid <= above) && slot.version.is_none_or(|at| at > above)
}

/// Whether the key holds the transaction's write at `at`, or will when it is resolved.
fn keeps(slot: &Slot, at: u8) -> bool {
    slot.version == Some(at) || slot.intent.is_some_and(|laid| laid <= at)
}

impl Model for ParallelCommit {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            phase: Phase::Parallel(FIRST),
            highest: FIRST,
            told: None,
            heard: Heard::default(),
            sent: BTreeSet::new(),
            record: Record::None,
            pushed: 0,
            slots: [Slot::default(); KEYS],
            facts: [None; LAST as usize],
            passed: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend([Action::Send, Action::Learn, Action::Die]);
        actions.extend([Action::MoveUp, Action::GiveUp]);
        for request in &state.sent {
            actions.extend([false, true].map(|heard| Action::Arrive(*request, heard)));
        }
        let mut evidence = vec![None];
        evidence.extend((FIRST..=LAST).map(|at| found(state, at)).filter(Option::is_some));
        for found in evidence {
            actions.extend((FIRST..LAST).map(|above| Action::PushAbove(above, found)));
            actions.push(Action::PushAway(found));
        }
        for key in 0..KEYS {
            actions.extend((FIRST..LAST).map(|at| Action::ReadByOther(key, at)));
            for staged in (FIRST..=LAST).filter(|at| state.facts[usize::from(at - FIRST)].is_some())
            {
                actions.extend([false, true].map(|prevent| Action::Look(key, staged, prevent)));
            }
            actions.push(Action::ResolveByOther(key));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Send => self.send(&mut next),
            Action::Arrive(request, heard) => self.arrive(&mut next, request, heard),
            Action::Learn => next = self.learn(state)?,
            Action::Die => {
                next.phase = Phase::Gone;
                next.heard = Heard::default();
            }
            // Refused, or answered too late: refresh what was read, and again.
            Action::MoveUp => match state.phase {
                Phase::Parallel(at) if at < LAST && state.told.is_none() => {
                    next.highest = at + 1;
                    next.phase = Phase::Parallel(at + 1);
                    next.heard = Heard { decided: state.heard.decided, ..Heard::default() };
                }
                Phase::Record(at) if at < LAST && state.told.is_none() && state.heard.refused => {
                    next.highest = at + 1;
                    next.phase = Phase::Record(at + 1);
                    next.heard.refused = false;
                }
                _ => return None,
            },
            // What was read has been overwritten.
            Action::GiveUp => match state.phase {
                Phase::Parallel(_) | Phase::Record(_) if state.told.is_none() => {
                    next.phase = Phase::Abort;
                    if self.lacks(Without::Certainty) {
                        next.told = Some(None);
                    }
                }
                _ => return None,
            },
            Action::ReadByOther(key, at) => {
                let slot = &mut next.slots[key];
                // An intent at or below is in the way: it would have to be pushed.
                if slot.intent.is_some_and(|laid| laid <= at) {
                    return None;
                }
                slot.read = slot.read.max(at);
            }
            // Who meets an intent that it would have to see, if it were committed.
            Action::PushAbove(above, found)
                if state.slots.iter().any(|slot| hides(slot, above)) =>
            {
                self.push_above(&mut next, above, found);
            }
            Action::PushAbove(..) => return None,
            Action::PushAway(found) => self.push_away(&mut next, found),
            Action::Look(key, staged, prevent) => self.look(&mut next, key, staged, prevent),
            Action::ResolveByOther(key) => match state.record {
                Record::Committed(at) => resolve(&mut next.slots[key], Some(at)),
                Record::Aborted => resolve(&mut next.slots[key], None),
                _ => return None,
            },
        }
        (next != *state).then_some(next)
    }

    fn within_boundary(&self, state: &State) -> bool {
        let in_bound = |slot: &Slot| slot.intent.is_none_or(|at| at <= LAST);
        state.slots.iter().all(in_bound)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(KEPT, |_, state: &State| match state.told {
                Some(Some(at)) => state.slots.iter().all(|slot| keeps(slot, at)),
                Some(None) | None => true,
            }),
            Property::always(FAILED, |_, state: &State| match state.told {
                Some(None) => {
                    !matches!(state.record, Record::Committed(_))
                        && state.slots.iter().all(|slot| slot.version.is_none())
                }
                Some(Some(_)) | None => true,
            }),
            Property::always(WHOLE, |_, state: &State| {
                let at = state.slots.iter().find_map(|slot| slot.version);
                at.is_none_or(|at| state.slots.iter().all(|slot| keeps(slot, at)))
            }),
            Property::always(PASSED, |_, state: &State| {
                let versions = state.slots.iter().filter_map(|slot| slot.version);
                let told = state.told.flatten();
                versions.chain(told).all(|at| at > state.passed)
            }),
            Property::sometimes(
                "others commit what the dead has acknowledged",
                |_, state: &State| {
                    state.phase == Phase::Gone
                        && matches!(state.told, Some(Some(_)))
                        && !state.sent.iter().any(|request| matches!(request, Request::End(_)))
                        && state.slots.iter().all(|slot| slot.version.is_some())
                },
            ),
            Property::sometimes(
                "others commit what nobody knew to be committed",
                |_, state: &State| {
                    state.told.is_none() && matches!(state.record, Record::Committed(_))
                },
            ),
            Property::sometimes("others abort a staged one", |_, state: &State| {
                state.record == Record::Aborted
                    && state.facts != [None; LAST as usize]
                    && !state.sent.contains(&Request::End(None))
            }),
            Property::sometimes("one that was taken back commits later", |_, state: &State| {
                state.passed >= FIRST && matches!(state.told, Some(Some(_)))
            }),
            Property::sometimes("it fails, and says so", |_, state: &State| {
                state.told == Some(None)
            }),
        ]
    }
}

const KEPT: &str = "what was acknowledged is there";
const FAILED: &str = "what was reported as failed never happens";
const WHOLE: &str = "it is committed as a whole";
const PASSED: &str = "it commits above who passed by";

#[test]
fn one_verdict_whoever_asks() {
    let states = holds(ParallelCommit(None));
    println!("{states} states");
    assert!(states > 10_000, "only {states} states: the model is too small");
}

#[test]
fn no_rule_can_be_left_out() {
    let laws = [
        (Without::Prevention, KEPT),
        (Without::AttemptCheck, KEPT),
        (Without::ForwardOnly, KEPT),
        (Without::ExplicitFirst, KEPT),
        (Without::Certainty, FAILED),
        (Without::StagedIsSpecial, KEPT),
        (Without::IntentsStay, KEPT),
        (Without::HighestMark, KEPT),
    ];
    for (rule, law) in laws {
        assert!(breaks(ParallelCommit(Some(rule)), law), "without {rule:?}: \"{law}\" still holds");
    }
}
