//! Value: parked requests, by what they wait for and by when they give up.
//!
//! Waking marks; [`ParkedRequests::take_woken`] hands the marked ones out in the order of arrival,
//! so that whoever came first is evaluated first. INVARIANT: every index names only requests that
//! are parked for that reason.

use clock::Monotonic;
use coverage::Mark;
use replication::range::RangeId;
use std::collections::{BTreeMap, BTreeSet};
use storage::Key;

use super::RequestId;
use super::evaluate::Conflict;
use super::latch::Ticket;
use super::locks::Release;
use crate::api::{Batch, WAIT_SLICE, Wait};

/// A request that is not answered yet.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) id: RequestId,
    pub(super) batch: Batch,
    pub(super) arrived: Monotonic,
}

impl Work {
    /// Until when it queues at a lock; `None`: not at all.
    pub(super) fn wait_until(&self) -> Option<Monotonic> {
        match self.batch.wait {
            Wait::Queue(slice) => Some(self.arrived.plus(slice)),
            // Only plain reads come here: there is nothing to skip in what another may have
            // committed.
            Wait::Skip => Some(self.arrived.plus(WAIT_SLICE)),
            Wait::Error => None,
        }
    }
}

/// What a request waits for.
#[derive(Debug)]
pub(super) enum Why {
    /// Until we hold the lease, or know who does.
    Lease,
    /// Until the lease allows reads that high.
    Bound,
    /// Until that request has released its latches or claims.
    Latch(Ticket),
    /// Until the key is free.
    Lock(Box<Conflict>),
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) range: RangeId,
    pub(super) work: Work,
    pub(super) why: Why,
    pub(super) since: Monotonic,
    pub(super) deadline: Monotonic,
}

/// See the module.
#[derive(Default, Debug)]
pub(super) struct ParkedRequests {
    all: BTreeMap<Ticket, Parked>,
    by_request: BTreeMap<RequestId, Ticket>,
    woken: BTreeSet<Ticket>,
    by_deadline: BTreeSet<(Monotonic, Ticket)>,
    by_range: BTreeSet<(RangeId, Ticket)>,
    by_latch: BTreeSet<(Ticket, Ticket)>,
    by_key: BTreeMap<(RangeId, Key), BTreeSet<Ticket>>,
    for_lease: BTreeSet<Ticket>,
}

impl ParkedRequests {
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    pub(super) fn insert(&mut self, ticket: Ticket, parked: Parked) {
        self.by_deadline.insert((parked.deadline, ticket));
        self.by_range.insert((parked.range, ticket));
        match &parked.why {
            Why::Lease | Why::Bound => {
                coverage::reached(Mark::WaitedForLease);
                self.for_lease.insert(ticket);
            }
            Why::Latch(other) => {
                coverage::reached(Mark::WaitedForLatch);
                self.by_latch.insert((*other, ticket));
            }
            Why::Lock(conflict) => {
                self.by_key.entry((parked.range, conflict.key.clone())).or_default().insert(ticket);
            }
        }
        self.by_request.insert(parked.work.id, ticket);
        let former = self.all.insert(ticket, parked);
        assert!(former.is_none(), "request {ticket:?} is parked once");
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Parked> {
        let parked = self.all.remove(&ticket)?;
        self.by_request.remove(&parked.work.id);
        self.woken.remove(&ticket);
        self.by_deadline.remove(&(parked.deadline, ticket));
        self.by_range.remove(&(parked.range, ticket));
        match &parked.why {
            Why::Lease | Why::Bound => {
                self.for_lease.remove(&ticket);
            }
            Why::Latch(other) => {
                self.by_latch.remove(&(*other, ticket));
            }
            Why::Lock(conflict) => {
                let place = (parked.range, conflict.key.clone());
                if let Some(tickets) = self.by_key.get_mut(&place) {
                    tickets.remove(&ticket);
                    if tickets.is_empty() {
                        self.by_key.remove(&place);
                    }
                }
            }
        }
        Some(parked)
    }

    pub(super) fn remove_request(&mut self, id: RequestId) -> Option<(Ticket, Parked)> {
        let ticket = *self.by_request.get(&id)?;
        self.remove(ticket).map(|parked| (ticket, parked))
    }

    /// What a request waits for, if it is a lock or an intent.
    pub(super) fn conflict(&self, ticket: Ticket) -> Option<&Conflict> {
        match &self.all.get(&ticket)?.why {
            Why::Lock(conflict) => Some(conflict),
            Why::Lease | Why::Bound | Why::Latch(_) => None,
        }
    }

    /// What waits for locks that are given up.
    pub(super) fn of_txn(&self, range: RangeId, release: &Release) -> Vec<Ticket> {
        let Release { txn, span, .. } = release;
        let from = (range, span.start.clone());
        let keys =
            self.by_key.range(from..).take_while(|((of, key), _)| *of == range && *key < span.end);
        let is_its = |ticket: &Ticket| {
            let batch = self.all.get(ticket).map(|parked| &parked.work.batch);
            let of = batch.and_then(|batch| batch.txn.as_ref());
            of.is_some_and(|of| of.id == *txn && release.is_of(of.stage, of.stage))
        };
        keys.flat_map(|(_, tickets)| tickets.iter().copied().filter(is_its)).collect()
    }

    /// The woken request that arrived first.
    pub(super) fn take_woken(&mut self) -> Option<(Ticket, Parked)> {
        let ticket = self.woken.pop_first()?;
        self.remove(ticket).map(|parked| (ticket, parked))
    }

    pub(super) fn has_woken(&self) -> bool {
        !self.woken.is_empty()
    }

    pub(super) fn wake_all(&mut self, tickets: impl IntoIterator<Item = Ticket>) {
        self.woken.extend(tickets);
    }

    pub(super) fn wake_latch(&mut self, released: Ticket) {
        let waiting = self.by_latch.range((released, Ticket(0))..=(released, Ticket(u64::MAX)));
        self.woken.extend(waiting.map(|(_, ticket)| *ticket));
    }

    /// Wakes those that wait for `key` and that `may_go`.
    pub(super) fn wake_key(
        &mut self,
        range: RangeId,
        key: &Key,
        may_go: impl Fn(&Work, &Conflict) -> bool,
    ) {
        let Some(waiting) = self.by_key.get(&(range, key.clone())) else { return };
        let goes = |ticket: &&Ticket| match self.all.get(*ticket).map(|parked| &parked.why) {
            Some(Why::Lock(conflict)) => may_go(&self.all[*ticket].work, conflict),
            Some(Why::Lease | Why::Bound | Why::Latch(_)) | None => false,
        };
        self.woken.extend(waiting.iter().filter(goes).copied());
    }

    pub(super) fn wake_range(&mut self, range: RangeId) {
        let waiting = self.of_range(range);
        self.woken.extend(waiting);
    }

    pub(super) fn of_range(&self, range: RangeId) -> Vec<Ticket> {
        let waiting = self.by_range.range((range, Ticket(0))..=(range, Ticket(u64::MAX)));
        waiting.map(|(_, ticket)| *ticket).collect()
    }

    pub(super) fn waiting_for_lease(&self) -> impl Iterator<Item = Ticket> {
        self.for_lease.iter().copied()
    }

    /// Whose deadline has passed.
    pub(super) fn due(&self, now: Monotonic) -> Vec<Ticket> {
        self.by_deadline
            .iter()
            .take_while(|(at, _)| *at <= now)
            .map(|(_, ticket)| *ticket)
            .collect()
    }

    pub(super) fn next_due(&self) -> Option<Monotonic> {
        self.by_deadline.first().map(|(at, _)| *at)
    }
}
