//! Value behind a lock: which transactions of this gateway others may have met, and what they are doing. For people: an error that
//! says who was in the way is worth more than one that says that somebody was.
//!
//! Ranges know transactions by their ids only, and versions do not name their writers. So whoever is about to report an error asks the
//! gateways ([`Question`]); nothing of it travels before. A transaction is entered with its first lock or write, and remembered for a
//! while after its end ([`ENDED_MAX`]).

use clock::Timestamp;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use storage::Key;
use storage::mvcc::TxnId;

use crate::api::Mutation;

/// Ended transactions that are remembered.
const ENDED_MAX: usize = 4_096;
/// Transactions of others that this gateway has aborted, remembered.
const ABORTED_MAX: usize = 1_024;
/// Writes that are told apart by their key; a transaction with more matches every key.
const WRITES_MAX: usize = 256;

/// What a transaction is doing, and for whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Doing {
    /// The statement under way, or the last one; shortened by whoever sets it.
    pub statement: Arc<str>,
    /// Whose.
    pub user: Arc<str>,
}

/// How far a transaction has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is open.
    Open,
    /// It was committed, at this timestamp.
    Committed(Timestamp),
    /// It was given up, or nobody knows.
    Ended,
}

/// A transaction as its gateway knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// Which.
    pub txn: TxnId,
    /// Its statement.
    pub statement: String,
    /// Whose.
    pub user: String,
    /// HLC reading at its very first start.
    pub started: Timestamp,
    /// How far it has come.
    pub fate: Fate,
}

/// Who is meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    /// The one with this id.
    Transaction(TxnId),
    /// Who wrote this version.
    Writer {
        /// Where.
        key: Key,
        /// Its commit timestamp.
        ts: Timestamp,
    },
    /// Who aborted this one.
    AborterOf(TxnId),
}

#[derive(Clone, Debug)]
struct Entry {
    doing: Doing,
    started: Timestamp,
}

#[derive(Debug)]
struct Ended {
    txn: TxnId,
    entry: Entry,
    fate: Fate,
    wrote: Writes,
}

/// What a transaction has written: one bit per key, by its hash. May say yes to a key that was not written, never no to one that was.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Writes(u64);

impl Writes {
    pub(super) fn of(mutations: &[Mutation]) -> Writes {
        if mutations.len() > WRITES_MAX {
            return Writes(u64::MAX);
        }
        Writes(mutations.iter().fold(0, |bits, mutation| bits | bit(&mutation.key)))
    }

    /// Writes that were laid down early are not told apart.
    pub(super) fn all() -> Writes {
        Writes(u64::MAX)
    }

    fn may_have(self, key: &Key) -> bool {
        self.0 & bit(key) != 0
    }
}

/// FNV-1a, its upper bits.
fn bit(key: &Key) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    1 << (key.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step) >> 58)
}

#[derive(Default)]
struct Inner {
    open: BTreeMap<TxnId, Entry>,
    /// Oldest first.
    ended: VecDeque<Ended>,
    /// Victim, and who aborted it; oldest first.
    aborted: VecDeque<(TxnId, Sighting)>,
}

/// All of a gateway.
#[derive(Default)]
pub(super) struct Roster {
    inner: Mutex<Inner>,
}

impl Roster {
    /// Others may meet it from now on.
    pub(super) fn enter(&self, txn: TxnId, started: Timestamp, doing: Doing) {
        self.inner.lock().open.insert(txn, Entry { doing, started });
    }

    /// What it does now, if it was entered.
    pub(super) fn update(&self, txn: TxnId, doing: &Doing) {
        if let Some(entry) = self.inner.lock().open.get_mut(&txn) {
            entry.doing.clone_from(doing);
        }
    }

    /// It has ended. One that was never entered and wrote nothing was met by nobody.
    pub(super) fn leave(&self, txn: TxnId, started: Timestamp, doing: &Doing, end: (Fate, Writes)) {
        let (fate, wrote) = end;
        let mut inner = self.inner.lock();
        let entry = match (inner.open.remove(&txn), fate) {
            (Some(entry), _) => entry,
            (None, Fate::Committed(_)) => Entry { doing: doing.clone(), started },
            (None, Fate::Open | Fate::Ended) => return,
        };
        if inner.ended.len() >= ENDED_MAX {
            inner.ended.pop_front();
        }
        inner.ended.push_back(Ended { txn, entry, fate, wrote });
    }

    /// One of ours had another aborted.
    pub(super) fn note_aborted(&self, victim: TxnId, by: Sighting) {
        let mut inner = self.inner.lock();
        if inner.aborted.len() >= ABORTED_MAX {
            inner.aborted.pop_front();
        }
        inner.aborted.push_back((victim, by));
    }

    /// What is known here; the latest, if several fit.
    pub(super) fn answer(&self, question: &Question) -> Option<Sighting> {
        let inner = self.inner.lock();
        let ended = || inner.ended.iter().rev();
        match question {
            Question::Transaction(txn) => match inner.open.get(txn) {
                Some(entry) => Some(sighting(*txn, entry, Fate::Open)),
                None => ended().find(|ended| ended.txn == *txn).map(Ended::sighting),
            },
            Question::Writer { key, ts } => ended()
                .find(|ended| ended.fate == Fate::Committed(*ts) && ended.wrote.may_have(key))
                .map(Ended::sighting),
            Question::AborterOf(txn) => inner
                .aborted
                .iter()
                .rev()
                .find(|(victim, _)| victim == txn)
                .map(|(_, by)| by.clone()),
        }
    }
}

impl Ended {
    fn sighting(&self) -> Sighting {
        sighting(self.txn, &self.entry, self.fate)
    }
}

fn sighting(txn: TxnId, entry: &Entry, fate: Fate) -> Sighting {
    Sighting {
        txn,
        statement: entry.doing.statement.to_string(),
        user: entry.doing.user.to_string(),
        started: entry.started,
        fate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Expect, Sequence};

    fn doing(statement: &str) -> Doing {
        Doing { statement: statement.into(), user: "root".into() }
    }

    fn writes(key: &'static str) -> Writes {
        Writes::of(&[Mutation {
            key: Key::new(key),
            value: None,
            expect: Expect::Anything,
            sequence: Sequence::ZERO,
        }])
    }

    fn statement(roster: &Roster, question: &Question) -> Option<String> {
        roster.answer(question).map(|sighting| sighting.statement)
    }

    #[test]
    fn who_is_open_or_ended_lately_is_known_by_id_and_by_what_it_wrote() {
        let roster = Roster::default();
        let (txn, ts) = (TxnId::new(1), Timestamp::from_raw(9));
        let question = Question::Transaction(txn);
        roster.enter(txn, Timestamp::MIN, doing("one"));
        roster.update(txn, &doing("two"));
        assert_eq!(statement(&roster, &question).as_deref(), Some("two"));
        let end = (Fate::Committed(ts), writes("k"));
        roster.leave(txn, Timestamp::MIN, &doing("not entered so"), end);
        assert_eq!(statement(&roster, &question).as_deref(), Some("two"));
        let writer = |key, ts| Question::Writer { key: Key::new(key), ts };
        assert_eq!(statement(&roster, &writer("k", ts)).as_deref(), Some("two"));
        assert_eq!(statement(&roster, &writer("k", ts.next())), None);
        assert_eq!(statement(&roster, &writer("another", ts)), None);
        for number in 0..ENDED_MAX as u128 {
            let end = (Fate::Committed(ts), writes("k"));
            roster.leave(TxnId::new(100 + number), Timestamp::MIN, &doing("later"), end);
        }
        assert_eq!(statement(&roster, &question), None, "the oldest is forgotten");
    }

    #[test]
    fn who_was_never_met_is_not_remembered() {
        let roster = Roster::default();
        roster.leave(
            TxnId::new(1),
            Timestamp::MIN,
            &doing("a read"),
            (Fate::Ended, Writes::default()),
        );
        assert_eq!(statement(&roster, &Question::Transaction(TxnId::new(1))), None);
    }
}
