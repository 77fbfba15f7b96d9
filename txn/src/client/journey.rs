//! Value: what one piece of a batch goes through until it is answered: who was asked, who is silent, and what may still be answered.
//!
//! A node that is silent is not waited for alone: after a time ([`super::patience`]) others are asked, and it itself again when they say that it leads.
//! What was sent to it is listened for all the same, since a slow node would otherwise be asked for ever and never heard.

use futures::future::{BoxFuture, Either, select};
use futures::stream::{FuturesUnordered, StreamExt};
use replication::range::{NodeId, RangeDescriptor};
use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use clock::{Monotonic, TimeSource};
use coverage::Mark;

use crate::api::{Batch, KvError, Reply};
use crate::client::router::RouterSettings;

/// More silences do not add to the patience.
const SILENCES_COUNTED_MAX: u32 = 4;

/// What a node has answered, or that it has not.
pub(super) struct Heard {
    pub(super) node: NodeId,
    pub(super) outcome: Result<Reply, KvError>,
}

/// See the module.
pub(super) struct Journey<'a> {
    begun: Monotonic,
    /// Before the next round.
    pub(super) pause: Duration,
    /// Nodes that said nothing in their time; each doubles the patience with the next.
    silences: u32,
    /// Asked since the last pause.
    pub(super) asked: BTreeSet<NodeId>,
    /// Did not answer, the last time they were asked.
    pub(super) silent: BTreeSet<NodeId>,
    /// Sent and not answered.
    under_way: FuturesUnordered<BoxFuture<'a, Heard>>,
    /// Where.
    unheard: BTreeSet<NodeId>,
    /// Whether some try may have arrived without an answer.
    pub(super) lost: bool,
    pub(super) last: String,
}

impl<'a> Journey<'a> {
    pub(super) fn new(begun: Monotonic, settings: &RouterSettings) -> Journey<'a> {
        Journey {
            begun,
            pause: settings.pause_min,
            silences: 0,
            asked: BTreeSet::new(),
            silent: BTreeSet::new(),
            under_way: FuturesUnordered::new(),
            unheard: BTreeSet::new(),
            lost: false,
            last: String::new(),
        }
    }

    /// A try. Whether no other is under way: then what is heard of the node is the answer to this one.
    pub(super) fn ask(
        &mut self,
        node: NodeId,
        answer: impl Future<Output = Result<Reply, KvError>> + Send + 'a,
    ) -> bool {
        let only = self.under_way.is_empty();
        self.asked.insert(node);
        self.under_way.push(Box::pin(async move { Heard { node, outcome: answer.await } }));
        only
    }

    /// Waits for any answer; `None`: nobody has answered by then.
    pub(super) async fn hear(&mut self, time: &dyn TimeSource, until: Monotonic) -> Option<Heard> {
        self.hear_during(time.sleep_until(until)).await.left()
    }

    /// Does something, and listens meanwhile.
    pub(super) async fn hear_during<T>(&mut self, doing: impl Future<Output = T>) -> Answered<T> {
        if self.under_way.is_empty() {
            return Answered::Not(doing.await);
        }
        match select(self.under_way.next(), Box::pin(doing)).await {
            Either::Left((Some(heard), _)) => {
                if self.unheard.remove(&heard.node) {
                    coverage::reached(Mark::LateAnswerHeard);
                }
                Answered::By(heard)
            }
            Either::Left((None, doing)) => Answered::Not(doing.await),
            Either::Right((done, _)) => Answered::Not(done),
        }
    }

    /// Until when the node asked now is waited for alone.
    pub(super) fn patience(
        &self,
        now: Monotonic,
        usual: Duration,
        settings: &RouterSettings,
    ) -> Monotonic {
        now.plus(usual * (1 << self.silences.min(SILENCES_COUNTED_MAX))).min(self.end(settings))
    }

    /// A node has said nothing for so long: it stays listened for.
    pub(super) fn note_silence(&mut self, node: NodeId) {
        self.unheard.insert(node);
        self.silences += 1;
    }

    /// Whether it owes an answer, after its time.
    pub(super) fn is_unheard(&self, node: NodeId) -> bool {
        self.unheard.contains(&node)
    }

    /// Nothing that was sent so far is of use any more.
    pub(super) fn begin_anew(&mut self) {
        self.lost |= !self.under_way.is_empty();
        self.under_way.clear();
        self.unheard.clear();
        self.asked.clear();
    }

    pub(super) fn may_go_on(&self, now: Monotonic, settings: &RouterSettings) -> bool {
        now.since(self.begun) < settings.unavailable_after
    }

    /// The last answer is waited for a little longer than a range takes itself to find out that it has no quorum: its answer says more
    /// than our silence, and a try cut off by the end of the journey would look like a lost answer.
    pub(super) fn end(&self, settings: &RouterSettings) -> Monotonic {
        self.begun.plus(settings.unavailable_after * 9 / 8)
    }

    /// Nothing more is sent: what comes until the end, or the failure.
    pub(super) async fn hear_the_last(
        &mut self,
        time: &dyn TimeSource,
        settings: &RouterSettings,
        descriptor: &RangeDescriptor,
        batch: &Batch,
    ) -> Result<Heard, KvError> {
        let end = self.end(settings);
        if !self.under_way.is_empty()
            && let Some(heard) = self.hear(time, end).await
        {
            return Ok(heard);
        }
        Err(self.give_up(descriptor, batch))
    }

    pub(super) fn give_up(&self, descriptor: &RangeDescriptor, batch: &Batch) -> KvError {
        coverage::reached(Mark::RangeGivenUp);
        if self.lost && batch.is_commit() {
            return KvError::Ambiguous {
                reason: format!("no answer from {}: {}", descriptor.id, self.last),
            };
        }
        KvError::Unavailable {
            range: descriptor.id,
            missing: self.silent.iter().copied().collect(),
            reason: if self.last.is_empty() {
                "it has no leaseholder".into()
            } else {
                self.last.clone()
            },
        }
    }
}

/// What came first.
pub(super) enum Answered<T> {
    /// An answer; what was being done is given up.
    By(Heard),
    /// What was being done is done.
    Not(T),
}

impl<T> Answered<T> {
    fn left(self) -> Option<Heard> {
        match self {
            Answered::By(heard) => Some(heard),
            Answered::Not(_) => None,
        }
    }
}
