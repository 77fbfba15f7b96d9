//! Value: latches: which keys are about to change. A write that has been proposed holds its keys
//! until its command is applied; whoever would have to see its effect waits that long.
//!
//! Evaluation itself is one step of the machine, so reads never hold a latch; they only wait for
//! overlapping writes that are in flight. A write that must wait leaves a *claim*: writes that come
//! later wait behind it, so a write over a wide span (a split) is not starved by a stream of small
//! ones.
//!
//! Deadlock is impossible: a holder waits for nobody (its command is in the log), a claim waits for
//! holders and for claims with a smaller number.
//!
//! One kind of holder lets others by: a resolution of what is committed for certain (`leaving`). Who knows what its command does
//! can be evaluated as if it were applied, and writes behind it in the log.
//!
//! INVARIANT: no two holders overlap, but for one that lets by and one that passes.

use clock::Timestamp;
use std::collections::BTreeMap;
use storage::{Key, Span};

/// Number of a request, in the order of arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket(pub u64);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Waits; later writes wait behind it.
    Claimed,
    /// In flight; reads strictly below the timestamp need not see it.
    Held(Timestamp),
    /// In flight, and lets by who knows what it does.
    Passable,
}

/// What a claim does about a holder that lets others by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// Waits for it as for any other.
    Waits,
    /// Passes it: it knows what it does.
    Passes,
}

/// See the module. Single keys lie in a map over all requests; wide spans with their request: few requests have any, but one that
/// resolves what a bulk load left may have a thousand.
#[derive(Clone, Default, Debug)]
pub struct Latches {
    points: BTreeMap<Key, Vec<(Ticket, State)>>,
    wide: BTreeMap<Ticket, Wide>,
    spans: BTreeMap<Ticket, (Vec<Span>, Manner)>,
}

/// The wide spans of one request.
#[derive(Clone, Debug)]
struct Wide {
    /// Ascending, apart from each other.
    spans: Vec<Span>,
    state: State,
}

impl Wide {
    fn new(mut spans: Vec<Span>) -> Wide {
        spans.sort_by(|a, b| a.start.cmp(&b.start));
        let mut apart: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            match apart.last_mut().filter(|last| span.start <= last.end) {
                Some(last) => last.end = std::cmp::max(last.end.clone(), span.end),
                None => apart.push(span),
            }
        }
        Wide { spans: apart, state: State::Claimed }
    }

    fn overlaps(&self, span: &Span) -> bool {
        let first = self.spans.partition_point(|own| own.end <= span.start);
        self.spans.get(first).is_some_and(|own| own.overlaps(span))
    }
}

impl Latches {
    /// Leaves a claim. A ticket claims once; a second call changes nothing.
    pub fn claim(&mut self, ticket: Ticket, spans: Vec<Span>, manner: Manner) {
        if self.spans.contains_key(&ticket) {
            return;
        }
        let mut wide = Vec::new();
        for span in &spans {
            if span.is_point() {
                self.points.entry(span.start.clone()).or_default().push((ticket, State::Claimed));
            } else if !span.is_empty() {
                wide.push(span.clone());
            }
        }
        if !wide.is_empty() {
            self.wide.insert(ticket, Wide::new(wide));
        }
        self.spans.insert(ticket, (spans, manner));
    }

    /// Whom the write `ticket`, which has claimed, must wait for.
    pub fn blocks_write(&self, ticket: Ticket) -> Option<Ticket> {
        let (spans, manner) = self.spans.get(&ticket)?;
        let in_the_way = |other: Ticket, state: State| match state {
            State::Held(_) => other != ticket,
            State::Passable => other != ticket && *manner == Manner::Waits,
            State::Claimed => other < ticket,
        };
        spans.iter().find_map(|span| self.find(span, in_the_way))
    }

    /// Whom a read of `span` that must see every write at or below `upto` must wait for.
    pub fn blocks_read(&self, span: &Span, upto: Timestamp) -> Option<Ticket> {
        self.find(span, |_, state| match state {
            State::Held(ts) => ts <= upto,
            State::Passable => true,
            State::Claimed => false,
        })
    }

    /// The same, of a read that sees what a holder that lets others by does.
    pub fn blocks_knowing_read(&self, span: &Span, upto: Timestamp) -> Option<Ticket> {
        self.find(span, |_, state| matches!(state, State::Held(ts) if ts <= upto))
    }

    /// The claim's command is in the log. Reads strictly below `ts` do not wait for it.
    pub fn hold(&mut self, ticket: Ticket, ts: Timestamp) {
        self.hold_as(ticket, State::Held(ts));
    }

    /// The claim's command is in the log, and lets others by.
    pub fn hold_passable(&mut self, ticket: Ticket) {
        self.hold_as(ticket, State::Passable);
    }

    fn hold_as(&mut self, ticket: Ticket, state: State) {
        assert_eq!(self.blocks_write(ticket), None, "no two holders overlap");
        let spans = self.spans.get(&ticket).map(|(spans, _)| spans.clone()).unwrap_or_default();
        for span in &spans {
            if let Some(entries) = self.points.get_mut(&span.start).filter(|_| span.is_point()) {
                for entry in entries.iter_mut().filter(|entry| entry.0 == ticket) {
                    entry.1 = state;
                }
            }
        }
        if let Some(wide) = self.wide.get_mut(&ticket) {
            wide.state = state;
        }
    }

    /// Forgets the claim or the latch.
    pub fn release(&mut self, ticket: Ticket) {
        let Some((spans, _)) = self.spans.remove(&ticket) else { return };
        self.wide.remove(&ticket);
        for span in spans.iter().filter(|span| span.is_point()) {
            if let Some(entries) = self.points.get_mut(&span.start) {
                entries.retain(|entry| entry.0 != ticket);
                if entries.is_empty() {
                    self.points.remove(&span.start);
                }
            }
        }
    }

    /// How many requests claim or hold.
    pub fn count(&self) -> usize {
        self.spans.len()
    }

    fn find(&self, span: &Span, wanted: impl Fn(Ticket, State) -> bool) -> Option<Ticket> {
        if span.is_empty() {
            return None;
        }
        let points = self.points.range(&span.start..&span.end).flat_map(|(_, entries)| entries);
        let by_point = points
            .copied()
            .find(|(ticket, state)| wanted(*ticket, *state))
            .map(|(ticket, _)| ticket);
        let by_span = || {
            let mut wide = self.wide.iter();
            wide.find(|(ticket, wide)| wanted(**ticket, wide.state) && wide.overlaps(span))
                .map(|(ticket, _)| *ticket)
        };
        by_point.or_else(by_span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The twin: a list of spans, scanned.
    #[derive(Default)]
    struct Twin(Vec<(u64, Vec<Span>, Option<u64>)>);

    impl Twin {
        fn blocks(&self, span: &Span, wanted: impl Fn(u64, Option<u64>) -> bool) -> bool {
            self.0.iter().any(|(ticket, spans, held)| {
                spans.iter().any(|s| s.overlaps(span)) && wanted(*ticket, *held)
            })
        }
    }

    fn any_span() -> impl Strategy<Value = Span> {
        let key = |n: u8| Key::new(vec![b'a' + n]);
        prop_oneof![
            2 => (0..6u8).prop_map(move |n| Span::point(&key(n))),
            1 => (0..6u8, 0..6u8).prop_map(move |(a, b)| Span::new(key(a), key(b))),
        ]
    }

    proptest! {
        #[test]
        fn latches_block_exactly_what_overlaps(
            steps in proptest::collection::vec((proptest::collection::vec(any_span(), 1..5), 0..9u64, any::<bool>()), 1..20),
            probe in any_span(), upto in 0..10u64,
        ) {
            let (mut latches, mut twin) = (Latches::default(), Twin::default());
            for (number, (spans, ts, release)) in steps.into_iter().enumerate() {
                let number = number as u64;
                let ticket = Ticket(number);
                let blocked = spans.iter().any(|span| twin.blocks(span, |_, _| true));
                latches.claim(ticket, spans.clone(), Manner::Waits);
                prop_assert_eq!(latches.blocks_write(ticket).is_some(), blocked);
                let held = (!blocked).then_some(ts);
                if !blocked {
                    latches.hold(ticket, Timestamp::from_raw(ts));
                }
                twin.0.push((number, spans, held));
                prop_assert_eq!(
                    latches.blocks_read(&probe, Timestamp::from_raw(upto)).is_some(),
                    twin.blocks(&probe, |_, held| held.is_some_and(|held| held <= upto))
                );
                if release {
                    let (gone, _, _) = twin.0.remove(0);
                    latches.release(Ticket(gone));
                    prop_assert_eq!(latches.count(), twin.0.len());
                }
            }
        }
    }

    #[test]
    fn who_knows_passes_a_holder_that_lets_by_and_nobody_else() {
        let mut latches = Latches::default();
        let (key, at) = (Span::point(&Key::new("a")), Timestamp::from_raw(5));
        latches.claim(Ticket(1), vec![key.clone()], Manner::Waits);
        latches.hold_passable(Ticket(1));
        assert_eq!(latches.blocks_read(&key, at), Some(Ticket(1)));
        assert_eq!(latches.blocks_knowing_read(&key, at), None);
        latches.claim(Ticket(2), vec![key.clone()], Manner::Waits);
        assert_eq!(latches.blocks_write(Ticket(2)), Some(Ticket(1)));
        latches.release(Ticket(2));
        latches.claim(Ticket(3), vec![key.clone()], Manner::Passes);
        assert_eq!(latches.blocks_write(Ticket(3)), None);
        latches.hold(Ticket(3), at);
        latches.claim(Ticket(4), vec![key.clone()], Manner::Passes);
        assert_eq!(latches.blocks_write(Ticket(4)), Some(Ticket(3)), "it is no resolution");
        assert_eq!(latches.blocks_knowing_read(&key, at), Some(Ticket(3)));
    }

    #[test]
    fn a_wide_claim_is_not_starved_by_later_points() {
        let mut latches = Latches::default();
        let point = |text: &'static str| vec![Span::point(&Key::new(text))];
        latches.claim(Ticket(1), point("a"), Manner::Waits);
        latches.hold(Ticket(1), Timestamp::MIN);
        latches.claim(Ticket(2), vec![Span::all()], Manner::Waits);
        latches.claim(Ticket(3), point("b"), Manner::Waits);
        assert_eq!(latches.blocks_write(Ticket(2)), Some(Ticket(1)));
        assert_eq!(latches.blocks_write(Ticket(3)), Some(Ticket(2)));
        latches.release(Ticket(1));
        assert_eq!(latches.blocks_write(Ticket(2)), None);
        latches.hold(Ticket(2), Timestamp::MIN);
        latches.release(Ticket(2));
        assert_eq!(latches.blocks_write(Ticket(3)), None);
    }
}
