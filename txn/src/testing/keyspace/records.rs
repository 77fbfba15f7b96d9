//! Machine, as dumb as its parent: transactions' records, and who pushes whom.

use clock::{ClockTimestamp, Timestamp};
use std::collections::BTreeSet;
use storage::{Key, Span};

use super::{EXPIRY, Keyspace, Record, STAGED_KEPT, WAITER_MAX, Waiter, aborted, own, pushed};
use crate::api::{
    Advice, Batch, Found, KvError, Missing, PushKind, Response, Sequence, Sought, Staged, TxnId,
    TxnMeta, TxnStatus,
};

impl Keyspace {
    pub(super) fn stage(
        &mut self,
        batch: &Batch,
        intents: &[Span],
        writes: &[(Key, Sequence)],
        deadline: Timestamp,
        clock: ClockTimestamp,
    ) -> Result<Response, KvError> {
        let (id, at) = (own(batch)?.id, batch.read_at);
        match self.records.get(&id).map(|record| &record.status) {
            Some(TxnStatus::Committed(ts)) => return Ok(Response::Committed(*ts)),
            Some(TxnStatus::Aborted) => return Err(aborted()),
            Some(TxnStatus::Staging(staged)) if staged.at >= at => {
                return Ok(Response::Staged(staged.at));
            }
            Some(TxnStatus::Pending | TxnStatus::Staging(_)) | None => {}
        }
        if self.forgotten.contains(&id) {
            return Err(aborted());
        }
        if let Some(pushed) = self.pushed.get(&id).filter(|pushed| **pushed >= at) {
            return Err(KvError::NeedsRefresh { ts: pushed.next() });
        }
        if at > deadline {
            return Err(KvError::DeadlinePassed);
        }
        let since = clock.timestamp();
        let status = TxnStatus::Staging(Staged { at, since, writes: writes.to_vec() });
        self.records.insert(id, Record { status, heartbeat: since, intents: intents.to_vec() });
        Ok(Response::Staged(at))
    }

    pub(super) fn query_writes(
        &mut self,
        txn: TxnId,
        at: Timestamp,
        writes: &[(Key, Sequence)],
        missing: Missing,
    ) -> Response {
        let mut all = true;
        for (key, sequence) in writes {
            let laid = self.intents.get(key).is_some_and(|intent| {
                intent.holder.id == txn && intent.ts <= at && intent.steps.contains_key(sequence)
            });
            if !laid && missing == Missing::Prevent {
                self.note_read(Span::point(key), at, None);
            }
            all &= laid;
        }
        Response::Writes { all }
    }

    /// What somebody has found out of the attempt that its record speaks of becomes the record's word.
    pub(super) fn note_found(&mut self, txn: TxnId, sought: Option<Sought>) {
        let (Some(record), Some(sought)) = (self.records.get_mut(&txn), sought) else { return };
        let TxnStatus::Staging(staged) = &record.status else { return };
        if staged.at == sought.at {
            record.status = match sought.found {
                Found::All => TxnStatus::Committed(staged.at),
                Found::Prevented => TxnStatus::Pending,
            };
        }
    }

    /// Of a one-phase commit: whether it has happened. If not, it never will.
    pub(super) fn settle(&mut self, txn: TxnId, clock: ClockTimestamp) -> Response {
        if let Some(ts) = self.one_phase.get(&txn) {
            return Response::Committed(*ts);
        }
        let heartbeat = clock.timestamp();
        let record = Record { status: TxnStatus::Aborted, heartbeat, intents: Vec::new() };
        self.records.insert(txn, record);
        Response::Aborted
    }

    pub(super) fn end(
        &mut self,
        batch: &Batch,
        commit_ts: Option<Timestamp>,
        intents: &[Span],
        deadline: Timestamp,
        clock: ClockTimestamp,
    ) -> Result<Response, KvError> {
        let id = own(batch)?.id;
        match (self.records.get(&id).map(|record| &record.status), commit_ts) {
            (Some(TxnStatus::Committed(ts)), _) => return Ok(Response::Committed(*ts)),
            (Some(TxnStatus::Aborted), Some(_)) => return Err(aborted()),
            (Some(TxnStatus::Aborted), None) => return Ok(Response::Aborted),
            (Some(TxnStatus::Pending | TxnStatus::Staging(_)) | None, _) => {}
        }
        let is_staged = |ts: Timestamp| {
            let status = self.records.get(&id).map(|record| &record.status);
            matches!(status, Some(TxnStatus::Staging(staged)) if staged.at == ts)
        };
        let (status, response) = match commit_ts {
            None => (TxnStatus::Aborted, Response::Aborted),
            Some(ts) if is_staged(ts) => (TxnStatus::Committed(ts), Response::Committed(ts)),
            Some(_) if self.forgotten.contains(&id) => return Err(aborted()),
            Some(ts) => {
                if let Some(pushed) = self.pushed.get(&id).filter(|pushed| **pushed >= ts) {
                    return Err(KvError::NeedsRefresh { ts: pushed.next() });
                }
                if ts > deadline {
                    return Err(KvError::DeadlinePassed);
                }
                (TxnStatus::Committed(ts), Response::Committed(ts))
            }
        };
        let record = Record { status, heartbeat: clock.timestamp(), intents: intents.to_vec() };
        self.records.insert(id, record);
        Ok(response)
    }

    pub(super) fn push(
        &mut self,
        pusher: Option<&TxnMeta>,
        pushee: &TxnMeta,
        active: Timestamp,
        kind: PushKind,
        dependents: &[TxnId],
        clock: ClockTimestamp,
    ) -> Response {
        let now = clock.timestamp();
        let decided = |status, intents| pushed(status, intents, Advice::Wait);
        let mut alive = active;
        if let Some(record) = self.records.get(&pushee.id) {
            alive = alive.forward(record.heartbeat);
            match &record.status {
                TxnStatus::Pending => {}
                // In doubt whoever meets it finds out; who is too quick prevents what might have come.
                TxnStatus::Staging(staged) => {
                    let dead = staged.since.plus(STAGED_KEPT) < now || kind == PushKind::Force;
                    let advice = if dead { Advice::Recover } else { Advice::Wait };
                    return pushed(record.status.clone(), record.intents.clone(), advice);
                }
                TxnStatus::Committed(_) | TxnStatus::Aborted => {
                    return decided(record.status.clone(), record.intents.clone());
                }
            }
        }
        let silent = alive.plus(EXPIRY) < now;
        let abort = match kind {
            PushKind::Timestamp(ts) if !silent => {
                let pushed = self.pushed.entry(pushee.id).or_default();
                *pushed = pushed.forward(ts);
                return self::pushed(TxnStatus::Pending, Vec::new(), Advice::Pass);
            }
            PushKind::Timestamp(_) | PushKind::Force => true,
            PushKind::Abort => {
                let outranked = pusher.is_some_and(|pusher| pusher.priority > pushee.priority);
                outranked || silent || self.forgotten.contains(&pushee.id)
            }
        };
        if abort {
            let record = Record { status: TxnStatus::Aborted, heartbeat: now, intents: Vec::new() };
            self.records.insert(pushee.id, record);
            return decided(TxnStatus::Aborted, Vec::new());
        }
        let Some(pusher) = pusher else { return decided(TxnStatus::Pending, Vec::new()) };
        // In a cycle at least one pushes an older one: that one gives way. Of the others nobody needs to.
        let younger = (pusher.priority, std::cmp::Reverse((pusher.started, pusher.id)))
            < (pushee.priority, std::cmp::Reverse((pushee.started, pushee.id)));
        let deadlock = dependents.contains(&pushee.id) && younger;
        let waiter = Waiter { seen: now, dependents: dependents.to_vec() };
        self.waiters.entry(pushee.id).or_default().insert(pusher.id, waiter);
        let advice = if deadlock { Advice::GiveUp } else { Advice::Wait };
        pushed(TxnStatus::Pending, Vec::new(), advice)
    }

    pub(super) fn heartbeat(
        &mut self,
        txn: &TxnMeta,
        clock: ClockTimestamp,
    ) -> Result<Response, KvError> {
        if self.forgotten.contains(&txn.id) {
            return Err(aborted());
        }
        let now = clock.timestamp();
        let record = self.records.entry(txn.id).or_insert_with(|| Record {
            status: TxnStatus::Pending,
            heartbeat: now,
            intents: Vec::new(),
        });
        record.heartbeat = record.heartbeat.forward(now);
        Ok(Response::Alive(record.status.clone()))
    }

    pub(super) fn query(&mut self, txn: TxnId, clock: ClockTimestamp) -> Response {
        let status =
            self.records.get(&txn).map_or(TxnStatus::Pending, |record| record.status.clone());
        let mut waiters = BTreeSet::new();
        if let Some(waiting) = self.waiters.get_mut(&txn) {
            waiting.retain(|_, waiter| waiter.seen.plus(WAITER_MAX) >= clock.timestamp());
            for (id, waiter) in waiting {
                waiters.insert(*id);
                waiters.extend(&waiter.dependents);
            }
        }
        Response::Txn { status, waiters: waiters.into_iter().collect() }
    }
}
