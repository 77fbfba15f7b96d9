//! Machine: promises between pairs of stores, and who has been heard of.
//!
//! Problem: a leader may serve reads without asking anybody only while no other can be elected; asking per range costs a
//! message per range and interval. Idea: one promise per pair of stores covers all ranges.
//!
//! ```text
//!   A: request (sent at s) ─────────────► B: promises until  t + d            on B's clock, t = moment of receipt
//!   A: holds until s + d (1 - 1/drift) ◄── B: reply                            on A's clock, counted from s
//! ```
//!
//! Sending precedes receipt, so A's end lies before B's in true time as long as their monotonic clocks drift apart by less than
//! one in `drift_divisor`. HAZARD: with more drift than that two leaders may serve reads at once (staleness; writes stay safe).
//!
//! With each promise B records a **read bound**: A serves no read above what a quorum has recorded. B never records more than
//! the persisted bound of its own clock, so after a restart that bound is above everything it ever recorded.
//!
//! A store that does not hear the other's answers asks for nothing (duration zero), so that a cut in one direction ends the
//! promise: otherwise a leader whose followers cannot reach it would bind them for ever.
//!
//! INVARIANT: the recorded bound per store never goes back, over incarnations of the other store too; a promise answers
//! the incarnation that asked, and a reply counts only for the request whose send time we still know.

use clock::{Monotonic, Now, Timestamp};
use coverage::Mark;
use std::collections::BTreeMap;
use std::time::Duration;

use super::{PlantedBug, StoreConfig, StoreIdentity, StoreMessage};
use crate::raft::{Incarnation, Promise, ReplicaId, Support};
use crate::range::NodeId;

/// Requests whose send time is remembered, per store: older ones have been answered or never will be.
const REQUESTS_PENDING_MAX: usize = 64;

/// A request as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) incarnation: Incarnation,
    pub(super) sequence: u64,
    pub(super) duration: Duration,
    pub(super) read_bound: Timestamp,
}

/// A reply as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    pub(super) incarnation: Incarnation,
    pub(super) by: Incarnation,
    pub(super) sequence: u64,
    pub(super) duration: Duration,
    pub(super) read_bound: Timestamp,
}

/// What we have promised a store.
#[derive(Clone, Copy, Debug)]
struct Given {
    incarnation: Incarnation,
    until: Monotonic,
    read_bound: Timestamp,
}

/// Everything about one other store.
#[derive(Clone, Debug)]
struct PeerStore {
    /// Highest incarnation ever heard of.
    incarnation: Incarnation,
    heard: Monotonic,
    given: Option<Given>,
    received: Option<Promise>,
    /// Send times by sequence.
    pending: BTreeMap<u64, Monotonic>,
    /// When it last answered a request of ours.
    answered: Option<Monotonic>,
}

/// The promises of one store, given and received.
#[derive(Debug)]
pub(super) struct Promises {
    planted: Option<PlantedBug>,
    identity: StoreIdentity,
    duration: Duration,
    interval: Duration,
    slack: Duration,
    drift_divisor: u32,
    /// Persisted upper bound of our clock.
    clock_bound: Timestamp,
    /// The greatest bound that this incarnation recorded for anybody.
    recorded_max: Timestamp,
    /// The greatest bound that this incarnation asked for: none of our leaders serves above it, whatever others recorded.
    asked_max: Timestamp,
    restart_floor: Timestamp,
    no_vote_before: Monotonic,
    started: Monotonic,
    sequence: u64,
    next_round: Monotonic,
    peers: BTreeMap<NodeId, PeerStore>,
}

/// What a message said about its sender's store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// From an incarnation that is dead by now: to be dropped.
    Stale,
    /// From the one we knew.
    Known,
    /// From a new one: whatever was promised to or by the former is void.
    Restarted,
}

impl Promises {
    pub(super) fn new(
        config: &StoreConfig,
        identity: StoreIdentity,
        now: Now,
        no_vote_before: Monotonic,
        restart_floor: Timestamp,
    ) -> Promises {
        let planted = config.planted;
        let votes = planted == Some(PlantedBug::VotesAfterRestart);
        let forgets = planted == Some(PlantedBug::RestartForgetsReads);
        let late = planted == Some(PlantedBug::RestartedVotesLate);
        let no_vote_before = match late && no_vote_before > now.monotonic {
            true => no_vote_before.plus(Duration::from_secs(3600)),
            false => no_vote_before,
        };
        Promises {
            planted,
            identity,
            duration: config.promise_duration,
            interval: config.promise_interval,
            slack: config.read_bound_slack,
            drift_divisor: config.drift_divisor.max(2),
            clock_bound: Timestamp::MIN,
            recorded_max: Timestamp::MIN,
            asked_max: Timestamp::MIN,
            restart_floor: if forgets { Timestamp::MIN } else { restart_floor },
            no_vote_before: if votes { Monotonic::ZERO } else { no_vote_before },
            started: now.monotonic,
            sequence: 0,
            next_round: now.monotonic,
            peers: BTreeMap::new(),
        }
    }

    /// Must be durable. A lower one than before is ignored.
    pub(super) fn set_clock_bound(&mut self, bound: Timestamp) {
        self.clock_bound = self.clock_bound.max(bound);
    }

    /// Notes that `from` lives. `incarnation` is what the message said, if it said any.
    pub(super) fn heard(&mut self, now: Now, from: NodeId, incarnation: Incarnation) -> Heard {
        let peer = self.peer(from);
        if incarnation < peer.incarnation {
            return Heard::Stale;
        }
        peer.heard = now.monotonic;
        if incarnation == peer.incarnation {
            return Heard::Known;
        }
        let first = peer.incarnation == Incarnation::default();
        peer.incarnation = incarnation;
        peer.received = None;
        if first { Heard::Known } else { Heard::Restarted }
    }

    /// Notes that `from` lives, for messages that name no incarnation.
    pub(super) fn heard_anonymous(&mut self, now: Now, from: NodeId) {
        self.peer(from).heard = now.monotonic;
    }

    /// The incarnation that `node` was last heard in; the default if never.
    pub(super) fn incarnation_of(&self, node: NodeId) -> Incarnation {
        self.peers.get(&node).map(|peer| peer.incarnation).unwrap_or_default()
    }

    /// When `node` was last heard of; our start if never (so that nobody is dead before we have had time to hear).
    pub(super) fn last_heard(&self, node: NodeId) -> Monotonic {
        self.peers.get(&node).map_or(self.started, |peer| peer.heard)
    }

    /// Until then this store helps nobody to be elected: it may have promised not to in its former life.
    pub(super) fn no_vote_before(&self) -> Monotonic {
        self.no_vote_before
    }

    /// Whether `node` was heard of at all by this incarnation of ours, and not longer than `age_max` ago.
    pub(super) fn is_live(&self, now: Now, node: NodeId, age_max: Duration) -> bool {
        node == self.identity.node
            || self.peers.get(&node).is_some_and(|peer| {
                peer.incarnation != Incarnation::default()
                    && now.monotonic.since(peer.heard) <= age_max
            })
    }

    /// When the next round of requests is due.
    pub(super) fn next_round(&self) -> Monotonic {
        self.next_round
    }

    /// The next round is due at once: somebody has just become a leader.
    pub(super) fn hurry(&mut self, now: Now) {
        self.next_round = self.next_round.min(now.monotonic);
    }

    /// The round that is due now, to `nodes`. Not to be called when fenced or stalled; then [`Promises::skip_round`].
    pub(super) fn round(
        &mut self,
        now: Now,
        nodes: impl IntoIterator<Item = NodeId>,
    ) -> Vec<(NodeId, StoreMessage)> {
        self.skip_round(now);
        self.sequence += 1;
        let sequence = self.sequence;
        let (incarnation, full) = (self.identity.incarnation, self.duration);
        let read_bound = now.clock.timestamp().plus(full).plus(self.slack);
        self.asked_max = self.asked_max.max(read_bound);
        let mut messages = Vec::new();
        for node in nodes {
            let peer = self.peer(node);
            let hears = peer.answered.is_some_and(|at| now.monotonic.since(at) <= full);
            let duration = if hears { full } else { Duration::ZERO };
            let pending = &mut peer.pending;
            pending.insert(sequence, now.monotonic);
            while pending.len() > REQUESTS_PENDING_MAX {
                pending.pop_first();
            }
            messages.push((
                node,
                StoreMessage::SupportRequest { incarnation, sequence, duration, read_bound },
            ));
        }
        messages
    }

    /// Puts the next round one interval off without asking.
    pub(super) fn skip_round(&mut self, now: Now) {
        self.next_round = now.monotonic.plus(self.interval);
    }

    /// Somebody asks; the incarnation has gone through [`Promises::heard`]. Returns our answer.
    pub(super) fn request(&mut self, now: Now, from: NodeId, asked: Asked) -> StoreMessage {
        let Asked { incarnation, sequence, duration, read_bound } = asked;
        let duration = duration.min(self.duration);
        let bound = read_bound.min(self.clock_bound);
        let until = now.monotonic.plus(duration);
        let peer = self.peer(from);
        let given = match peer.given {
            Some(old) if old.incarnation == incarnation => Given {
                incarnation,
                until: old.until.max(until),
                read_bound: old.read_bound.max(bound),
            },
            // Its former incarnation is dead and serves nothing; what it served before stays covered by the bound.
            Some(old) => {
                coverage::reached(Mark::PromiseToNewIncarnation);
                Given { incarnation, until, read_bound: old.read_bound.max(bound) }
            }
            None => Given { incarnation, until, read_bound: bound },
        };
        peer.given = Some(given);
        self.recorded_max = self.recorded_max.max(given.read_bound);
        StoreMessage::SupportReply {
            incarnation,
            by: self.identity.incarnation,
            sequence,
            duration,
            read_bound: given.read_bound,
        }
    }

    /// Somebody promised; its incarnation `by` has gone through [`Promises::heard`].
    pub(super) fn reply(&mut self, now: Now, from: NodeId, granted: Granted) {
        let Granted { incarnation, by, sequence, duration, read_bound } = granted;
        if incarnation != self.identity.incarnation {
            coverage::reached(Mark::PromiseToFormerSelf);
            return;
        }
        let shortened = duration.saturating_sub(duration / self.drift_divisor);
        let full = self.duration;
        let peer = self.peer(from);
        let Some(sent) = peer.pending.get(&sequence).copied() else { return };
        peer.pending.retain(|other, _| *other > sequence);
        if now.monotonic.since(sent) > full {
            coverage::reached(Mark::PromiseCameTooLate);
            return;
        }
        let met = peer.answered.replace(now.monotonic);
        if met.is_none_or(|at| now.monotonic.since(at) > full) {
            self.hurry(now);
        }
        if duration.is_zero() {
            coverage::reached(Mark::SupportWithoutPromise);
            return;
        }
        let from_receipt = self.planted == Some(PlantedBug::PromiseFromReceipt);
        let peer = self.peer(from);
        let until = if from_receipt { now.monotonic } else { sent }.plus(shortened);
        // After a gap the promiser was free for a while: that is another promise, however short the gap.
        let unbroken_since = match peer.received {
            Some(old) if old.by == by && old.until > now.monotonic => old.unbroken_since,
            Some(_) | None => {
                coverage::reached(Mark::PromiseAfterGap);
                now.monotonic
            }
        };
        peer.received = Some(match peer.received {
            Some(old) if old.by == by => Promise {
                until: old.until.max(until),
                read_bound: old.read_bound.max(read_bound),
                by,
                unbroken_since,
            },
            Some(_) | None => Promise { until, read_bound, by, unbroken_since },
        });
    }

    /// At or above every read bound this store ever recorded for anybody, itself included. A range that is split off starts
    /// with it: its voters cannot know which of the stores they recorded for had served the right keys.
    pub(super) fn recorded_max(&self) -> Timestamp {
        self.recorded_max.max(self.own_bound()).max(self.restart_floor)
    }

    /// See `asked_max`.
    pub(super) fn asked_max(&self) -> Timestamp {
        self.asked_max
    }

    /// What a store records for itself: what it has asked others for, within its own clock's bound.
    fn own_bound(&self) -> Timestamp {
        self.asked_max.min(self.clock_bound)
    }

    /// Until when we have promised `node`'s present incarnation.
    pub(super) fn promised_until(&self, node: NodeId) -> Monotonic {
        let given = self
            .peers
            .get(&node)
            .and_then(|peer| peer.given.filter(|given| given.incarnation == peer.incarnation));
        given.map_or(Monotonic::ZERO, |given| given.until)
    }

    /// What was promised to us, by whom.
    pub(super) fn held(&self) -> impl Iterator<Item = (NodeId, Promise)> + '_ {
        self.peers.iter().filter_map(|(node, peer)| peer.received.map(|promise| (*node, promise)))
    }

    /// Until when that incarnation of `node`'s has our promise; for ever when it is dead, for nobody can be deposed then.
    pub(super) fn given_until(&self, node: NodeId, incarnation: Incarnation) -> Monotonic {
        match self.peers.get(&node).and_then(|peer| peer.given) {
            Some(given) if given.incarnation == incarnation => given.until,
            Some(given) if given.incarnation > incarnation => Monotonic::MAX,
            Some(_) | None => Monotonic::ZERO,
        }
    }

    fn peer(&mut self, node: NodeId) -> &mut PeerStore {
        let started = self.started;
        self.peers.entry(node).or_insert(PeerStore {
            incarnation: Incarnation::default(),
            heard: started,
            given: None,
            received: None,
            pending: BTreeMap::new(),
            answered: None,
        })
    }
}

/// The promises as one replica's group sees them.
pub(super) struct GroupSupport<'a> {
    pub(super) promises: &'a Promises,
    /// Which store a replica lives on.
    pub(super) routes: &'a BTreeMap<ReplicaId, NodeId>,
    /// Reads that were served on this range's keys before it was a range of its own.
    pub(super) inherited_floor: Timestamp,
    /// The replica that asks for a vote in the message that is being looked at. A promise to a leader's store not to help elect
    /// *another* does not bind against that very replica: it has given up leading, or it would not ask.
    pub(super) asking: Option<ReplicaId>,
    pub(super) now: Monotonic,
}

impl Support for GroupSupport<'_> {
    fn incarnation(&self) -> Incarnation {
        self.promises.identity.incarnation
    }

    fn given(&self, leader: ReplicaId, incarnation: Incarnation) -> Option<(Monotonic, Timestamp)> {
        let node = self.routes.get(&leader)?;
        if *node == self.promises.identity.node {
            return Some((Monotonic::ZERO, self.promises.own_bound()));
        }
        let peer = self.promises.peers.get(node)?;
        let given = peer.given?;
        // A newer incarnation has been heard of: the asked-for one is dead, its promise void, its bound still true.
        let alive = given.incarnation == incarnation && peer.incarnation == incarnation;
        let binds = alive && self.asking != Some(leader);
        Some((if binds { given.until } else { Monotonic::ZERO }, given.read_bound))
    }

    fn received(&self, peer: ReplicaId) -> Option<Promise> {
        let node = self.routes.get(&peer)?;
        if *node == self.promises.identity.node {
            return Some(Promise {
                until: self.now.plus(self.promises.duration),
                read_bound: self.promises.own_bound(),
                by: self.promises.identity.incarnation,
                unbroken_since: Monotonic::ZERO,
            });
        }
        let promise = self.promises.peers.get(node)?.received?;
        // It may have recorded more for a former incarnation of ours.
        let read_bound = promise.read_bound.min(self.promises.asked_max);
        Some(Promise { read_bound, ..promise })
    }

    fn no_vote_before(&self) -> Monotonic {
        self.promises.no_vote_before
    }

    fn restart_floor(&self) -> Timestamp {
        self.promises.restart_floor.max(self.inherited_floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clock::ClockTimestamp;

    fn now(millis: u64) -> Now {
        Now {
            clock: ClockTimestamp::from_raw((1_000_000 + millis * 1000) << clock::LOGICAL_BITS),
            monotonic: Monotonic::from_nanos(millis * 1_000_000),
        }
    }

    fn store(node: u32, incarnation: u64) -> Promises {
        let identity =
            StoreIdentity { cluster: 1, node: NodeId(node), incarnation: Incarnation(incarnation) };
        let config = StoreConfig::default();
        let mut promises =
            Promises::new(&config, identity, now(0), Monotonic::ZERO, Timestamp::MIN);
        promises.set_clock_bound(now(60_000).clock.timestamp());
        promises
    }

    /// They have heard each other already.
    fn acquainted() -> (Promises, Promises) {
        let (mut a, mut b) = (store(1, 1), store(2, 1));
        round(&mut a, &mut b, 0, 0);
        assert_eq!(received(&a, NodeId(2)), None, "the first request asks for nothing");
        (a, b)
    }

    /// One round from `a` to `b`, sent, received and answered at the given times.
    fn round(a: &mut Promises, b: &mut Promises, sent: u64, received: u64) {
        let node = b.identity.node;
        let requests = a.round(now(sent), [node]);
        let (_, StoreMessage::SupportRequest { incarnation, sequence, duration, read_bound }) =
            requests[0]
        else {
            panic!("a request")
        };
        assert_ne!(b.heard(now(received), a.identity.node, incarnation), Heard::Stale);
        let asked = Asked { incarnation, sequence, duration, read_bound };
        let reply = b.request(now(received), a.identity.node, asked);
        let StoreMessage::SupportReply { incarnation, by, sequence, duration, read_bound } = reply
        else {
            panic!("a reply")
        };
        a.heard(now(received), node, by);
        let granted = Granted { incarnation, by, sequence, duration, read_bound };
        a.reply(now(received), node, granted);
    }

    fn received(a: &Promises, b: NodeId) -> Option<Promise> {
        a.peers.get(&b)?.received
    }

    #[test]
    fn a_promise_counts_from_sending_and_ends_before_the_promiser_is_free() {
        let (mut a, mut b) = acquainted();
        round(&mut a, &mut b, 100, 900);
        let held = received(&a, NodeId(2)).expect("promised");
        assert_eq!(held.until, now(100 + 1980).monotonic);
        assert_eq!(b.promised_until(NodeId(1)), now(900 + 2000).monotonic);
        assert_eq!(held.read_bound, now(100 + 2000 + 500).clock.timestamp());
    }

    #[test]
    fn the_recorded_bound_stays_under_the_persisted_clock_bound_and_never_falls() {
        let (mut a, mut b) = (store(1, 1), store(2, 1));
        b.clock_bound = now(1_000).clock.timestamp();
        round(&mut a, &mut b, 0, 0);
        round(&mut a, &mut b, 100, 100);
        assert_eq!(
            received(&a, NodeId(2)).expect("promised").read_bound,
            now(1_000).clock.timestamp()
        );
        let mut restarted = store(1, 2);
        round(&mut restarted, &mut b, 0, 200);
        assert_eq!(b.peers[&NodeId(1)].given.expect("given").read_bound, b.clock_bound);
    }

    #[test]
    fn a_store_that_hears_no_answers_binds_nobody() {
        let (mut a, mut b) = acquainted();
        round(&mut a, &mut b, 0, 0);
        let held = b.promised_until(NodeId(1));
        let requests = a.round(now(5_000), [NodeId(2)]);
        let (_, StoreMessage::SupportRequest { incarnation, sequence, duration, read_bound }) =
            requests[0]
        else {
            panic!("a request")
        };
        b.request(now(5_000), NodeId(1), Asked { incarnation, sequence, duration, read_bound });
        assert!(
            duration.is_zero() && b.promised_until(NodeId(1)).max(held) <= now(5_000).monotonic
        );
    }

    #[test]
    fn a_restart_voids_what_the_dead_incarnation_held_and_gave() {
        let (mut a, mut b) = acquainted();
        round(&mut a, &mut b, 0, 0);
        let routes = BTreeMap::from([(ReplicaId(1), NodeId(1)), (ReplicaId(2), NodeId(2))]);
        assert_eq!(b.heard(now(10), NodeId(1), Incarnation(2)), Heard::Restarted);
        let view = GroupSupport {
            promises: &b,
            routes: &routes,
            inherited_floor: Timestamp::MIN,
            asking: None,
            now: now(10).monotonic,
        };
        let (until, bound) = view.given(ReplicaId(1), Incarnation(1)).expect("bound stays");
        assert_eq!(until, Monotonic::ZERO);
        assert_eq!(bound, now(2_500).clock.timestamp());
        assert_eq!(b.heard(now(11), NodeId(1), Incarnation(1)), Heard::Stale);
        assert_eq!(a.heard(now(11), NodeId(2), Incarnation(5)), Heard::Restarted);
        assert_eq!(received(&a, NodeId(2)), None);
    }

    #[test]
    fn late_and_repeated_replies_never_lengthen_a_promise_beyond_its_request() {
        let (mut a, mut b) = acquainted();
        round(&mut a, &mut b, 0, 0);
        let long = |incarnation| Granted {
            incarnation: Incarnation(incarnation),
            by: Incarnation(1),
            sequence: 2,
            duration: Duration::from_secs(60),
            read_bound: Timestamp::MAX,
        };
        a.reply(now(5), NodeId(2), long(1));
        assert_eq!(received(&a, NodeId(2)).expect("promised").until, now(1_980).monotonic);
        a.reply(now(5), NodeId(2), long(9));
        assert_eq!(received(&a, NodeId(2)).expect("promised").until, now(1_980).monotonic);
    }
}
