//! Value: what clients did and were told, with the true times at which they asked and heard. Checkers judge it.

use parking_lot::Mutex;

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

/// Operations of all clients of a run, in the order in which they ended.
pub struct History<O, R> {
    records: Mutex<Vec<Record<O, R>>>,
}

impl<O, R> Default for History<O, R> {
    fn default() -> History<O, R> {
        History { records: Mutex::new(Vec::new()) }
    }
}

impl<O: Clone, R: Clone> History<O, R> {
    /// An operation has ended.
    pub fn push(&self, client: u32, asked: u64, heard: u64, op: O, ended: Ended<R>) {
        let heard = if matches!(ended, Ended::Unknown) { u64::MAX } else { heard };
        self.records.lock().push(Record { client, asked, heard, op, ended });
    }

    /// All of them.
    pub fn records(&self) -> Vec<Record<O, R>> {
        self.records.lock().clone()
    }

    /// How many ended well, badly, and nobody knows how.
    pub fn counts(&self) -> (usize, usize, usize) {
        let records = self.records.lock();
        let count = |pick: fn(&Ended<R>) -> bool| {
            records.iter().filter(|record| pick(&record.ended)).count()
        };
        (
            count(|ended| matches!(ended, Ended::Ok(_))),
            count(|ended| matches!(ended, Ended::Fail)),
            count(|ended| matches!(ended, Ended::Unknown)),
        )
    }
}
