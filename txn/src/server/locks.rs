//! Value: the lock table of a range: unreplicated locks, and who waits for which key, in which
//! order.
//!
//! ```text
//!   key ──► holders   one exclusive, or several shared          (in memory only; lost with the lease)
//!       └─► queue     places, by rank                           (also for keys that are locked by an intent)
//! ```
//!
//! The rank of a place is its transaction's: higher priority first, then who began first, then who
//! came first. Who begins again after a deadlock keeps its age, hence its place: nobody is overtaken
//! by those who began after it, so each gets its turn, and of two that want each other's keys the
//! older one does not wait behind others that will want its own.
//!
//! Losing this table costs order and time, never correctness: what a transaction has read is checked
//! again by timestamps when it commits, and one under `READ COMMITTED`, which may rely on having had
//! a row to itself, asks at its commit whether anything was lost ([`crate::api::LockEra`]).
//!
//! A place belongs to a transaction: when its request has waited its slice and is answered
//! "blocked", the place is kept for a short time so that its gateway can push the holder and come
//! back. A transaction has at most one place in a range; with places on several keys it would hold
//! up others on a key that it is not waiting for any more, and deadlock with them. Of two requests
//! of one transaction that wait at once (a late copy of a message, say) the first has the place and
//! the second waits without: they must not take it from each other.
//!
//! Who may pass a key: the transaction whose request is compatible with every other holder and with
//! every earlier place. Holders pass their own queue (upgrade from shared to exclusive included;
//! two that upgrade deadlock, and are found by their pushes). Plain reads do not come here at all.

use clock::{Monotonic, Timestamp};
use coverage::Mark;
use std::collections::{BTreeMap, BTreeSet};
use storage::mvcc::TxnId;
use storage::{Key, Span};

use super::latch::Ticket;
use crate::api::{Lock, TxnMeta};

/// One who holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Who.
    pub txn: TxnMeta,
    /// How.
    pub strength: Lock,
    /// The stage of `txn` in which it was taken first; `txn.stage` is the one in which it was taken last.
    pub since: u32,
    /// Clock when the lock was last taken: a sign of life.
    pub active: Timestamp,
}

/// What is given up: of a transaction's locks in `span` those taken in no stage before `since` and none after `upto`.
///
/// A savepoint's locks are given back before the transaction's end, and it may lock the same keys again: a copy of the message that
/// comes late must not take those.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Release {
    /// Whose.
    pub txn: TxnId,
    /// Where.
    pub span: Span,
    /// The first stage.
    pub since: u32,
    /// The last stage.
    pub upto: u32,
}

impl Release {
    /// Of a transaction that has ended.
    pub fn all(txn: TxnId, span: Span) -> Release {
        Release { txn, span, since: 0, upto: u32::MAX }
    }

    /// Whether it is about what was taken in these stages, first and last.
    pub fn is_of(&self, since: u32, last: u32) -> bool {
        since >= self.since && last <= self.upto
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    txn: TxnMeta,
    strength: Lock,
    /// The request that waits, or waited, here.
    ticket: Ticket,
    /// `None`: it is waiting here now.
    kept_until: Option<Monotonic>,
    /// Clock when it queued.
    active: Timestamp,
}

#[derive(Clone, Default, Debug)]
struct Row {
    holders: Vec<Holder>,
    queue: Vec<Place>,
}

/// Who is in the way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InTheWay {
    /// Who.
    pub txn: TxnMeta,
    /// Last sign of life.
    pub active: Timestamp,
}

/// See the module.
#[derive(Clone, Default, Debug)]
pub struct LockTable {
    rows: BTreeMap<Key, Row>,
    held: BTreeMap<TxnId, BTreeSet<Key>>,
    places: BTreeMap<TxnId, Key>,
    losses: u64,
}

impl LockTable {
    /// Who keeps `txn` from locking (or, with `Exclusive`, writing) `key` now: a holder, or
    /// somebody ahead in its queue. Who has no place there is behind those that its place would be
    /// behind. (Were it behind everybody, one that wants two keys could go to and fro between
    /// their queues for ever, as each time it is sent away by a younger one that it then overtakes.)
    pub fn in_the_way(&self, key: &Key, txn: &TxnMeta, strength: Lock) -> Option<InTheWay> {
        match self.rows.get(key)?.obstacle(txn, strength)? {
            Obstacle::Holder(holder) => {
                Some(InTheWay { txn: holder.txn.clone(), active: holder.active })
            }
            Obstacle::Ahead(place) => {
                coverage::reached(Mark::QueuedBehindOthers);
                Some(InTheWay { txn: place.txn.clone(), active: place.active })
            }
        }
    }

    /// Whether nobody is in its way.
    pub fn may_pass(&self, key: &Key, txn: &TxnMeta, strength: Lock) -> bool {
        self.rows.get(key).is_none_or(|row| row.obstacle(txn, strength).is_none())
    }

    /// A holder that excludes `txn`, the queue aside (SKIP LOCKED).
    pub fn holder_against(&self, key: &Key, txn: TxnId, strength: Lock) -> Option<&Holder> {
        self.rows.get(key)?.holder_against(txn, strength)
    }

    /// Whether `more` locks can be kept where `max` can.
    pub fn has_room(&self, more: usize, max: usize) -> bool {
        self.rows.len().max(self.held.len()) + more <= max
    }

    /// Whether it holds the key, however strongly.
    pub fn holds(&self, txn: TxnId, key: &Key) -> bool {
        self.held.get(&txn).is_some_and(|keys| keys.contains(key))
    }

    /// How often locks were forgotten ([`LockTable::forget_before`]).
    pub fn losses(&self) -> u64 {
        self.losses
    }

    /// Takes the lock (keeps the stronger one) and gives up the place in the key's queue. The
    /// caller has asked [`LockTable::in_the_way`] and [`LockTable::has_room`].
    pub fn acquire(&mut self, key: &Key, txn: &TxnMeta, strength: Lock, active: Timestamp) {
        if self.places.get(&txn.id) == Some(key) {
            self.vacate(txn.id);
        }
        let row = self.rows.entry(key.clone()).or_default();
        if let Some(holder) = row.holders.iter_mut().find(|holder| holder.txn.id == txn.id) {
            coverage::reached(Mark::LockTakenAgain);
            holder.strength = holder.strength.max(strength);
            holder.since = holder.since.min(txn.stage);
            holder.txn.stage = holder.txn.stage.max(txn.stage);
            holder.active = holder.active.max(active);
            return;
        }
        self.insert(key, Holder { txn: txn.clone(), strength, since: txn.stage, active });
    }

    fn insert(&mut self, key: &Key, holder: Holder) {
        self.held.entry(holder.txn.id).or_default().insert(key.clone());
        self.rows.entry(key.clone()).or_default().holders.push(holder);
    }

    /// Queues at `key`, or keeps the place there; gives up a place elsewhere. Returns the key where
    /// a place was given up: whoever waits there may have come first now.
    pub fn queue(
        &mut self,
        key: &Key,
        txn: &TxnMeta,
        ticket: Ticket,
        strength: Lock,
        active: Timestamp,
    ) -> Option<Key> {
        if self
            .place(txn.id)
            .is_some_and(|place| place.kept_until.is_none() && place.ticket != ticket)
        {
            return None;
        }
        let left = match self.places.get(&txn.id) {
            Some(place) if place == key => None,
            Some(_) => self.leave(txn.id, ticket),
            None => None,
        };
        let row = self.rows.entry(key.clone()).or_default();
        match row.queue.iter_mut().find(|place| place.txn.id == txn.id) {
            Some(place) => {
                place.strength = place.strength.max(strength);
                place.txn.stage = place.txn.stage.max(txn.stage);
                place.ticket = ticket;
                place.kept_until = None;
                // It is alive: it has come back.
                place.active = place.active.max(active);
            }
            None => {
                let at = row.turn_of(txn);
                if at < row.queue.len() {
                    coverage::reached(Mark::QueuedBeforeYounger);
                }
                let place = Place { txn: txn.clone(), strength, ticket, kept_until: None, active };
                row.queue.insert(at, place);
            }
        }
        self.places.insert(txn.id, key.clone());
        left
    }

    /// Whom `txn` waits for at its place: who holds the key against it, and who is ahead of it there.
    pub fn waited_for(&self, txn: TxnId) -> impl Iterator<Item = &TxnMeta> {
        let at_place = self.places.get(&txn).and_then(|key| self.rows.get(key)).and_then(|row| {
            let place = row.queue.iter().find(|place| place.txn.id == txn)?;
            let passes = row.holders.iter().any(|holder| holder.txn.id == txn);
            let held = row.holders.iter().filter(move |holder| {
                holder.txn.id != txn && conflicts(holder.strength, place.strength)
            });
            let ahead = row.queue.iter().take_while(move |ahead| ahead.txn.id != txn);
            let ahead =
                ahead.filter(move |ahead| !passes && conflicts(ahead.strength, place.strength));
            Some(held.map(|holder| &holder.txn).chain(ahead.map(|place| &place.txn)))
        });
        at_place.into_iter().flatten()
    }

    /// Whether anybody has a place in a queue here.
    pub fn has_places(&self) -> bool {
        !self.places.is_empty()
    }

    /// Whether `txn` holds a lock here that somebody has a place for.
    pub fn is_waited_for(&self, txn: TxnId) -> bool {
        let queued = |key: &Key| self.rows.get(key).is_some_and(|row| !row.queue.is_empty());
        self.held.get(&txn).is_some_and(|keys| keys.iter().any(queued))
    }

    /// Whether `txn` holds a lock here.
    pub fn is_holder(&self, txn: TxnId) -> bool {
        self.held.contains_key(&txn)
    }

    /// Whether `txn` has a place in a queue here.
    pub fn has_place(&self, txn: TxnId) -> bool {
        self.places.contains_key(&txn)
    }

    /// The request of `txn` that waits here now.
    pub fn waiting_request(&self, txn: TxnId) -> Option<Ticket> {
        self.place(txn).filter(|place| place.kept_until.is_none()).map(|place| place.ticket)
    }

    /// The request that waited has been answered: its place is kept until then.
    pub fn keep_place(&mut self, txn: TxnId, ticket: Ticket, until: Monotonic) {
        let Some(row) = self.places.get(&txn).and_then(|key| self.rows.get_mut(key)) else {
            return;
        };
        for place in
            row.queue.iter_mut().filter(|place| place.txn.id == txn && place.ticket == ticket)
        {
            coverage::reached(Mark::PlaceKept);
            place.kept_until = Some(until);
        }
    }

    /// The request needs no place any more; gives it up, unless another request of the transaction
    /// waits there. Returns where it was.
    pub fn leave(&mut self, txn: TxnId, ticket: Ticket) -> Option<Key> {
        let others = self
            .place(txn)
            .is_some_and(|place| place.kept_until.is_none() && place.ticket != ticket);
        if others { None } else { self.vacate(txn) }
    }

    fn place(&self, txn: TxnId) -> Option<&Place> {
        let row = self.rows.get(self.places.get(&txn)?)?;
        row.queue.iter().find(|place| place.txn.id == txn)
    }

    fn vacate(&mut self, txn: TxnId) -> Option<Key> {
        let key = self.places.remove(&txn)?;
        if let Some(row) = self.rows.get_mut(&key) {
            row.queue.retain(|place| place.txn.id != txn);
        }
        self.tidy(&key);
        Some(key)
    }

    /// Gives up places that were kept long enough. Returns the keys that changed.
    pub fn expire_places(&mut self, now: Monotonic) -> Vec<Key> {
        let expired = |place: &Place| place.kept_until.is_some_and(|until| until <= now);
        let gone: Vec<TxnId> = self
            .places
            .iter()
            .filter(|(txn, key)| {
                let row = self.rows.get(*key);
                row.is_some_and(|row| {
                    row.queue.iter().any(|place| place.txn.id == **txn && expired(place))
                })
            })
            .map(|(txn, _)| *txn)
            .collect();
        let vacate = |txn| {
            coverage::reached(Mark::PlaceExpired);
            self.vacate(txn)
        };
        gone.into_iter().filter_map(vacate).collect()
    }

    /// When the first kept place expires.
    pub fn next_expiry(&self) -> Option<Monotonic> {
        let rows = self.places.values().filter_map(|key| self.rows.get(key));
        rows.flat_map(|row| row.queue.iter().filter_map(|place| place.kept_until)).min()
    }

    /// Gives up locks, and the transaction's place there. Returns the keys that changed.
    pub fn release(&mut self, release: &Release) -> Vec<Key> {
        let Release { txn, span, .. } = release;
        let mut changed = Vec::new();
        if span.is_empty() {
            return changed;
        }
        let held =
            self.held.get(txn).into_iter().flat_map(|keys| keys.range(&span.start..&span.end));
        let held: Vec<Key> = held.cloned().collect();
        for key in held {
            let row = self.rows.get_mut(&key).expect("a key that is held has its row");
            let before = row.holders.len();
            row.holders.retain(|holder| {
                holder.txn.id != *txn || !release.is_of(holder.since, holder.txn.stage)
            });
            if row.holders.len() == before {
                coverage::reached(Mark::LateUnlock);
                continue;
            }
            coverage::reached(Mark::LockReleased);
            if let Some(keys) = self.held.get_mut(txn) {
                keys.remove(&key);
            }
            self.tidy(&key);
            changed.push(key);
        }
        if self.held.get(txn).is_some_and(BTreeSet::is_empty) {
            self.held.remove(txn);
        }
        let has_place =
            self.place(*txn).is_some_and(|place| release.is_of(place.txn.stage, place.txn.stage));
        if has_place && self.places.get(txn).is_some_and(|key| span.contains(key)) {
            changed.extend(self.vacate(*txn));
        }
        changed
    }

    /// Forgets locks last taken before `before`: their owners seem long gone, and nobody has asked for
    /// the keys. A new era of the range's locks begins.
    pub fn forget_before(&mut self, before: Timestamp) -> Vec<Key> {
        let old: BTreeSet<(TxnId, Key)> = self
            .rows
            .iter()
            .flat_map(|(key, row)| row.holders.iter().map(move |holder| (key, holder)))
            .filter(|(_, holder)| holder.active < before)
            .map(|(key, holder)| (holder.txn.id, key.clone()))
            .collect();
        self.losses += u64::from(!old.is_empty());
        let point = |(txn, key): (TxnId, Key)| Release::all(txn, Span::point(&key));
        old.into_iter().map(point).flat_map(|release| self.release(&release)).collect()
    }

    /// Takes the locks at or after `at` out, for the right side of a split. Places stay behind and
    /// go: their requests are re-routed.
    #[must_use]
    pub fn split_off(&mut self, at: &Key) -> LockTable {
        let mut right = LockTable::default();
        for (key, row) in self.rows.split_off(at) {
            for place in &row.queue {
                coverage::reached(Mark::PlaceLostBySplit);
                self.places.remove(&place.txn.id);
            }
            for holder in row.holders {
                coverage::reached(Mark::LockMovedBySplit);
                right.insert(&key, holder);
            }
        }
        for keys in self.held.values_mut() {
            keys.split_off(at);
        }
        self.held.retain(|_, keys| !keys.is_empty());
        right
    }

    /// Every lock with the number of transactions in its queue.
    pub fn locks(&self) -> impl Iterator<Item = (&Key, &Holder, usize)> {
        self.rows.iter().flat_map(|(key, row)| {
            row.holders.iter().map(move |holder| (key, holder, row.queue.len()))
        })
    }

    /// How many wait at `key`.
    #[cfg(test)]
    fn queue_len(&self, key: &Key) -> usize {
        self.rows.get(key).map_or(0, |row| row.queue.len())
    }

    fn tidy(&mut self, key: &Key) {
        if self.rows.get(key).is_some_and(|row| row.holders.is_empty() && row.queue.is_empty()) {
            self.rows.remove(key);
        }
    }
}

/// Who keeps another from a key.
enum Obstacle<'a> {
    Holder(&'a Holder),
    /// In the queue.
    Ahead(&'a Place),
}

impl Row {
    fn obstacle(&self, txn: &TxnMeta, strength: Lock) -> Option<Obstacle<'_>> {
        if let Some(holder) = self.holder_against(txn.id, strength) {
            return Some(Obstacle::Holder(holder));
        }
        if self.holders.iter().any(|holder| holder.txn.id == txn.id) {
            return None;
        }
        let mut ahead = self.queue.iter().take(self.turn_of(txn));
        ahead.find(|place| conflicts(place.strength, strength)).map(Obstacle::Ahead)
    }

    /// How many places are ahead of the one that `txn` has, or would take.
    fn turn_of(&self, txn: &TxnMeta) -> usize {
        let own = self.queue.iter().position(|place| place.txn.id == txn.id);
        own.unwrap_or_else(|| {
            let after = self.queue.iter().rposition(|place| !goes_before(txn, &place.txn));
            after.map_or(0, |after| after + 1)
        })
    }

    fn holder_against(&self, txn: TxnId, strength: Lock) -> Option<&Holder> {
        self.holders
            .iter()
            .find(|holder| holder.txn.id != txn && conflicts(holder.strength, strength))
    }
}

/// Whether `a` takes its place ahead of `b`, which is there already.
fn goes_before(a: &TxnMeta, b: &TxnMeta) -> bool {
    let rank = |txn: &TxnMeta| (std::cmp::Reverse(txn.priority), txn.started);
    rank(a) < rank(b)
}

fn conflicts(a: Lock, b: Lock) -> bool {
    match (a, b) {
        (Lock::Shared, Lock::Shared) => false,
        (Lock::Exclusive, _) | (_, Lock::Exclusive) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txn(number: u128) -> TxnMeta {
        TxnMeta {
            id: TxnId::new(number),
            anchor: Key::new("a"),
            started: Timestamp::from_raw(1),
            priority: 1,
            stage: 0,
        }
    }

    fn blocker(table: &LockTable, number: u128, strength: Lock) -> Option<u128> {
        table.in_the_way(&Key::new("k"), &txn(number), strength).map(|way| way.txn.id.get())
    }

    const AT: Timestamp = Timestamp::from_raw(5);

    #[test]
    fn shared_locks_share_and_exclude_exclusive() {
        let (mut table, key) = (LockTable::default(), Key::new("k"));
        table.acquire(&key, &txn(1), Lock::Shared, AT);
        assert_eq!(blocker(&table, 2, Lock::Shared), None);
        table.acquire(&key, &txn(2), Lock::Shared, AT);
        assert_eq!(blocker(&table, 3, Lock::Exclusive), Some(1));
        assert_eq!(
            blocker(&table, 1, Lock::Exclusive),
            Some(2),
            "an upgrade waits for the other sharer"
        );
        table.release(&Release::all(TxnId::new(2), Span::all()));
        assert_eq!(blocker(&table, 1, Lock::Exclusive), None);
    }

    #[test]
    fn a_queue_is_first_come_first_served_and_keeps_the_place_for_a_while() {
        let (mut table, key) = (LockTable::default(), Key::new("k"));
        table.acquire(&key, &txn(1), Lock::Exclusive, AT);
        table.queue(&key, &txn(2), Ticket(2), Lock::Exclusive, AT);
        table.queue(&key, &txn(3), Ticket(3), Lock::Exclusive, AT);
        table.keep_place(TxnId::new(2), Ticket(2), Monotonic::from_nanos(10));
        assert_eq!(table.release(&Release::all(TxnId::new(1), Span::all())), vec![key.clone()]);
        assert_eq!(blocker(&table, 3, Lock::Exclusive), Some(2));
        assert_eq!(blocker(&table, 4, Lock::Shared), Some(2));
        assert_eq!(blocker(&table, 2, Lock::Exclusive), None);
        assert_eq!(table.expire_places(Monotonic::from_nanos(9)), vec![]);
        assert_eq!(table.expire_places(Monotonic::from_nanos(10)), vec![key.clone()]);
        assert_eq!(blocker(&table, 3, Lock::Exclusive), None);
        table.acquire(&key, &txn(3), Lock::Exclusive, AT);
        assert_eq!(table.queue_len(&key), 0);
        assert_eq!(blocker(&table, 4, Lock::Shared), Some(3));
    }

    #[test]
    fn who_came_later_is_ahead_of_those_that_began_after_it_with_and_without_a_place() {
        let (mut table, key) = (LockTable::default(), Key::new("k"));
        let young = TxnMeta { started: Timestamp::from_raw(9), ..txn(2) };
        table.acquire(&key, &txn(1), Lock::Exclusive, AT);
        table.queue(&key, &young, Ticket(2), Lock::Exclusive, AT);
        table.release(&Release::all(TxnId::new(1), Span::all()));
        assert_eq!(blocker(&table, 3, Lock::Exclusive), None);
        table.queue(&key, &txn(3), Ticket(3), Lock::Exclusive, AT);
        assert_eq!(blocker(&table, 3, Lock::Exclusive), None);
        assert_eq!(blocker(&table, 4, Lock::Exclusive), Some(3));
        let way = table.in_the_way(&key, &young, Lock::Exclusive).map(|way| way.txn.id.get());
        assert_eq!(way, Some(3));
    }

    #[test]
    fn a_transaction_has_one_place() {
        let (mut table, a, b) = (LockTable::default(), Key::new("a"), Key::new("k"));
        let mut queue =
            |key: &Key, ticket| table.queue(key, &txn(1), Ticket(ticket), Lock::Exclusive, AT);
        assert_eq!(queue(&a, 7), None);
        assert_eq!(queue(&b, 7), Some(a.clone()));
        assert_eq!(queue(&b, 7), None);
        assert_eq!(queue(&a, 8), None, "another request does not take it away");
        assert_eq!(table.leave(TxnId::new(1), Ticket(8)), None);
        assert_eq!((table.queue_len(&a), table.queue_len(&b)), (0, 1));
        table.keep_place(TxnId::new(1), Ticket(7), Monotonic::from_nanos(9));
        assert_eq!(
            table.queue(&a, &txn(1), Ticket(8), Lock::Exclusive, AT),
            Some(b.clone()),
            "nobody waits there"
        );
    }

    #[test]
    fn a_split_takes_the_right_locks_along() {
        let mut table = LockTable::default();
        for key in ["a", "k", "z"] {
            table.acquire(&Key::new(key), &txn(1), Lock::Exclusive, AT);
        }
        let right = table.split_off(&Key::new("k"));
        assert_eq!(blocker(&table, 2, Lock::Shared), None);
        assert_eq!(blocker(&right, 2, Lock::Shared), Some(1));
        assert_eq!(right.locks().count(), 2);
        assert_eq!(table.release(&Release::all(TxnId::new(1), Span::all())), vec![Key::new("a")]);
        assert_eq!(table.locks().count(), 0);
    }
}
