//! Machine, a part of its parent: requests that wait for locks and intents: who waits, who comes next, who gives way.

use clock::{Monotonic, Now};
use coverage::Mark;
use replication::range::RangeId;
use storage::{Key, Span};

use super::{Answer, Ranges, blocked_error};
use crate::api::{Batch, KvError, Request, TxnMeta};
use crate::contention::Stretch;
use crate::server::PlantedBug;
use crate::server::circle;
use crate::server::evaluate::Conflict;
use crate::server::latch::Ticket;
use crate::server::locks::{LockTable, Release};
use crate::server::parked::{Parked, Why, Work};

impl Ranges {
    pub(super) fn blocked(
        &mut self,
        now: Now,
        range: RangeId,
        ticket: Ticket,
        work: Work,
        conflict: Box<Conflict>,
    ) {
        self.withdraw(range, ticket);
        let until = work.wait_until();
        let may_wait = until.is_some_and(|until| now.monotonic < until);
        if until.is_some()
            && let (Some(leading), Some(txn), Some(wants)) =
                (self.leading.get_mut(&range), &work.batch.txn, conflict.wants)
        {
            let left =
                leading.locks.queue(&conflict.key, txn, ticket, wants, now.clock.timestamp());
            if let Some(key) = left {
                coverage::reached(Mark::PlaceChanged);
                self.wake_key(range, &key);
            }
        }
        if may_wait {
            coverage::reached(Mark::WaitedForLock);
            let waiter = work.batch.txn.clone().filter(|_| conflict.wants.is_some());
            self.park(now, range, ticket, work, Why::Lock(conflict));
            return waiter.into_iter().for_each(|waiter| self.break_circles(now, &waiter));
        }
        self.refuse(Some((now, range)), ticket, work, blocked_error(*conflict));
    }

    /// `waiter` has begun to wait. If it waits for itself now, somebody gives way: nobody needs to find out by waiting.
    pub(super) fn break_circles(&mut self, now: Now, waiter: &TxnMeta) {
        while self.config.planted != Some(PlantedBug::DeadlockUnseen) {
            // Where nobody waits no circle passes.
            let tables = self.leading.values().map(|leading| &leading.locks);
            let tables: Vec<&LockTable> = tables.filter(|table| table.has_places()).collect();
            let circle = circle::circle(&tables, waiter);
            // Whose request is away, pushing, cannot be told now: it will close the circle again when it is back.
            let here = |victim: &&TxnMeta| {
                let request = tables.iter().find_map(|table| table.waiting_request(victim.id))?;
                let conflict = self.parked.conflict(request)?;
                Some((victim.id, request, conflict.key.clone(), conflict.holder.id))
            };
            let found = circle::victims(&circle).iter().find_map(here);
            let Some((victim, request, key, holder)) = found else { return };
            let parked = self.parked.remove(request).expect("it was just looked at");
            coverage::reached(Mark::CircleBroken);
            tracing::debug!(%victim, %key, %holder, circle = circle.len(), "a circle of waiters is broken");
            self.note_wait(now, &parked);
            let Parked { range, work, .. } = parked;
            // It cannot commit any more; should it go on all the same, because the request was one that it had given up, it is told.
            let ranges: Vec<RangeId> = self.leading.keys().copied().collect();
            for range in ranges {
                if let Some(leading) = self.leading.get_mut(&range)
                    && leading.locks.is_holder(victim)
                {
                    leading.remember_aborted(victim, now.monotonic);
                }
                self.release_locks(range, &[Release::all(victim, Span::all())]);
            }
            let error = KvError::Deadlock { key, holder };
            self.refuse(Some((now, range)), request, work, error);
        }
    }

    /// For `SHOW CONTENTION`: a request waits no more, or not for the same.
    pub(super) fn note_wait(&mut self, now: Now, parked: &Parked) {
        let Why::Lock(conflict) = &parked.why else { return };
        let waiter = parked.work.batch.txn.as_ref().map(|txn| txn.id);
        let (holder, since, until) = (conflict.holder.id, parked.since, now.monotonic);
        let stretch = Stretch { waiter, holder, since, until };
        self.contention.note_wait(&conflict.key, stretch, now.clock.timestamp());
    }

    pub(super) fn release_locks(&mut self, range: RangeId, releases: &[Release]) {
        let Some(leading) = self.leading.get_mut(&range) else { return };
        let freed: Vec<Key> =
            releases.iter().flat_map(|release| leading.locks.release(release)).collect();
        self.forsake(range, releases);
        for key in freed {
            self.wake_key(range, &key);
        }
    }

    /// A request that waits for a lock which its transaction has just given up is a late copy, or its sender has left: it would take the
    /// lock, and nobody would know. It is sent away; should somebody wait for it all the same, it will be back.
    fn forsake(&mut self, range: RangeId, releases: &[Release]) {
        for release in releases {
            for ticket in self.parked.of_txn(range, release) {
                let Some(Parked { work, why: Why::Lock(conflict), .. }) =
                    self.parked.remove(ticket)
                else {
                    continue;
                };
                coverage::reached(Mark::WaiterForsaken);
                self.withdraw(range, ticket);
                // A copy from before the release may have taken over the place of a request from after it: nobody would give it up.
                self.leave_queue(range, ticket, &work.batch);
                let result = Err(blocked_error(*conflict));
                self.answers.push(Answer { id: work.id, range, read_under: None, result });
            }
        }
    }

    /// Something has changed at a key: who waits for it and may have it now comes. The others would only find who is ahead of them.
    pub(super) fn wake_key(&mut self, range: RangeId, key: &Key) {
        let Some(leading) = self.leading.get(&range) else { return };
        self.parked.wake_key(range, key, |work, conflict| {
            match (&work.batch.txn, conflict.wants) {
                (Some(txn), Some(wants)) => leading.locks.may_pass(&conflict.key, txn, wants),
                (None, _) | (_, None) => true,
            }
        });
    }

    /// A request needs its transaction's place no more. Requests that never queue have none: a waiter that asks in between who is in its
    /// way, or how it fares itself, keeps its place.
    pub(super) fn leave_queue(&mut self, range: RangeId, ticket: Ticket, batch: &Batch) {
        let (Some(leading), Some(txn)) = (self.leading.get_mut(&range), &batch.txn) else { return };
        if !batch.requests.iter().any(Request::may_queue) {
            return;
        }
        if let Some(key) = leading.locks.leave(txn.id, ticket) {
            self.wake_key(range, &key);
        }
    }

    pub(super) fn expire_places(&mut self, now: Now) {
        let sweep = now.monotonic.since(self.swept) >= self.config.lock_sweep_interval;
        if !sweep && self.places_due > now.monotonic {
            return;
        }
        self.places_due = Monotonic::MAX;
        let mut freed_keys: Vec<(RangeId, Key)> = Vec::new();
        for (range, leading) in &mut self.leading {
            let mut freed = leading.locks.expire_places(now.monotonic);
            let due = leading.locks.next_expiry().unwrap_or(Monotonic::MAX);
            self.places_due = self.places_due.min(due);
            leading.waits.expire(now.monotonic);
            leading.moved.expire(now.monotonic);
            if sweep {
                let before = now.clock.timestamp().minus(self.config.lock_kept);
                freed.extend(leading.locks.forget_before(before));
            }
            freed_keys.extend(freed.into_iter().map(|key| (*range, key)));
        }
        for (range, key) in freed_keys {
            self.wake_key(range, &key);
        }
        if sweep {
            self.swept = now.monotonic;
        }
    }
}
