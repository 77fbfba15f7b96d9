//! Value: what clients did and were told, with the true times at which they asked and heard. Checkers judge it.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How an operation ended, as its client knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended<R> {
    /// It took effect, with this answer.
    Ok(R),
    /// It had no effect and will have none.
    Fail,
    /// Nobody knows: it may take effect at any time from its beginning on, or never.
    Unknown,
}

impl<R> Ended<R> {
    /// The same end with another answer.
    pub fn map<S>(self, answer: impl FnOnce(R) -> S) -> Ended<S> {
        match self {
            Ended::Ok(value) => Ended::Ok(answer(value)),
            Ended::Fail => Ended::Fail,
            Ended::Unknown => Ended::Unknown,
        }
    }
}

impl<A, B> Ended<(A, B)> {
    /// Two answers, each with the same end.
    pub fn apart(self) -> (Ended<A>, Ended<B>) {
        match self {
            Ended::Ok((a, b)) => (Ended::Ok(a), Ended::Ok(b)),
            Ended::Fail => (Ended::Fail, Ended::Fail),
            Ended::Unknown => (Ended::Unknown, Ended::Unknown),
        }
    }
}

/// One operation of one client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record<O, R> {
    /// Whose. A client has one operation at a time.
    pub client: u32,
    /// True time when it was asked, nanoseconds.
    pub asked: u64,
    /// True time when the answer came, nanoseconds; of an unknown end: never.
    pub heard: u64,
    /// What.
    pub op: O,
    /// How it ended.
    pub ended: Ended<R>,
}

/// When the last of them was asked or heard; of an unknown end nobody ever heard.
pub fn end_of<O, R>(records: &[Record<O, R>]) -> u64 {
    let last = |record: &Record<O, R>| match record.heard {
        u64::MAX => record.asked,
        heard => heard,
    };
    records.iter().map(last).max().unwrap_or(0)
}

/// How the operations of a run ended, whatever they are.
pub trait Ledger {
    /// How many ended well, badly, and nobody knows how. Asked after every event: counted, not searched.
    fn counts(&self) -> (usize, usize, usize);
    /// Each of them.
    fn ends(&self) -> Vec<Record<(), ()>>;
}

/// Operations of all clients of a run, in the order in which they ended.
pub struct History<O, R> {
    records: Mutex<Vec<Record<O, R>>>,
    ok: AtomicUsize,
    failed: AtomicUsize,
    unknown: AtomicUsize,
}

impl<O, R> Default for History<O, R> {
    fn default() -> History<O, R> {
        History {
            records: Mutex::new(Vec::new()),
            ok: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            unknown: AtomicUsize::new(0),
        }
    }
}

impl<O: Clone, R: Clone> History<O, R> {
    /// An operation has ended.
    pub fn push(&self, client: u32, asked: u64, heard: u64, op: O, ended: Ended<R>) {
        let heard = if matches!(ended, Ended::Unknown) { u64::MAX } else { heard };
        let count = match ended {
            Ended::Ok(_) => &self.ok,
            Ended::Fail => &self.failed,
            Ended::Unknown => &self.unknown,
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.records.lock().push(Record { client, asked, heard, op, ended });
    }

    /// All of them.
    pub fn records(&self) -> Vec<Record<O, R>> {
        self.records.lock().clone()
    }
}

impl<O, R> Ledger for History<O, R> {
    fn counts(&self) -> (usize, usize, usize) {
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (read(&self.ok), read(&self.failed), read(&self.unknown))
    }

    fn ends(&self) -> Vec<Record<(), ()>> {
        let bare = |record: &Record<O, R>| Record {
            client: record.client,
            asked: record.asked,
            heard: record.heard,
            op: (),
            ended: match record.ended {
                Ended::Ok(_) => Ended::Ok(()),
                Ended::Fail => Ended::Fail,
                Ended::Unknown => Ended::Unknown,
            },
        };
        self.records.lock().iter().map(bare).collect()
    }
}
