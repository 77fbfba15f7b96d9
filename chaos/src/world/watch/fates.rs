//! Value: *a transaction has one fate, whoever is told of it.* Ranges tell many about one transaction: its coordinator, readers that pass by it,
//! writers that wait for it, a client that asks what became of its commit. What they were told must go together:
//!
//! - who was told that it commits above a timestamp, if at all, read on below: so it does not commit at or below that;
//! - who was told that it is aborted took its intents away: so it does not commit;
//! - what is committed, in so many words or because all that its staged record names is laid (`txn::api::Staged`), nobody calls undecided or
//!   aborted; a late copy of a write may be called so once the record is gone, and a coordinator that has told nobody may change its mind;
//! - who was told that a lost commit will not happen does it again: so it does not.
//!
//! Only answers are looked at, as their leaseholders give them: whether anybody heard one does not matter.

use clock::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use storage::Key;
use txn::api::{Advice, Batch, PushKind, Reply, Request, Response, TxnId, TxnStatus};

/// A request whose answer tells of a transaction's fate, by its place in its batch.
#[derive(Clone, Debug)]
pub(super) struct Question {
    place: usize,
    of: TxnId,
    asks: Asks,
}

#[derive(Clone, Debug)]
enum Asks {
    Write(Vec<Key>),
    Stage(Vec<Key>),
    CommitOnePhase,
    /// `EndTxn`, either way.
    End,
    Push(PushKind),
    Query,
    Settle,
}

/// What is known to be committed, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Committed {
    /// An answer said so.
    Told(Timestamp),
    /// By one message: nobody who met its locks knows of it.
    InOnePhase,
    /// All that its record names is laid.
    Implied(Timestamp),
}

/// What was told of one transaction.
#[derive(Default)]
struct Fate {
    /// It commits above, if at all; [`Timestamp::MAX`]: it is aborted.
    above: Option<Timestamp>,
    /// A lost commit of one phase will not happen.
    settled: bool,
    committed: Option<Committed>,
    staged: BTreeSet<Timestamp>,
    named: Vec<Key>,
    laid: BTreeMap<Key, Timestamp>,
    /// Its coordinator has asked for its abort: nobody but it can have told of a commit that nobody has written down.
    given_up: bool,
    /// Its record may be gone, and what is left of it are late copies.
    forgotten: bool,
}

/// What was told of all.
#[derive(Default)]
pub(super) struct FateWatch {
    fates: BTreeMap<TxnId, Fate>,
}

impl FateWatch {
    /// A batch reaches its shard.
    pub(super) fn ask(&mut self, batch: &Batch) -> Vec<Question> {
        let own = batch.txn.as_ref().map(|txn| txn.id);
        let requests = batch.requests.iter().enumerate();
        requests.filter_map(|(place, request)| self.ask_one(place, request, own)).collect()
    }

    fn ask_one(&mut self, place: usize, request: &Request, own: Option<TxnId>) -> Option<Question> {
        let (of, asks) = match request {
            Request::Write { mutations } => {
                let keys = mutations.iter().map(|mutation| mutation.key.clone()).collect();
                (own?, Asks::Write(keys))
            }
            Request::Stage { writes, .. } => {
                (own?, Asks::Stage(writes.iter().map(|(key, _)| key.clone()).collect()))
            }
            Request::CommitOnePhase { .. } => (own?, Asks::CommitOnePhase),
            Request::EndTxn { commit_ts, .. } => {
                if commit_ts.is_none() {
                    self.fates.entry(own?).or_default().given_up = true;
                }
                (own?, Asks::End)
            }
            Request::Push { pushee, kind, .. } => (pushee.id, Asks::Push(*kind)),
            Request::QueryTxn { txn, .. } => (*txn, Asks::Query),
            Request::Settle { txn, .. } => (*txn, Asks::Settle),
            Request::ForgetTxn { txn, .. } => {
                self.fates.entry(*txn).or_default().forgotten = true;
                return None;
            }
            Request::Get { .. }
            | Request::Scan { .. }
            | Request::Refresh { .. }
            | Request::QueryWrites { .. }
            | Request::Resolve { .. }
            | Request::Unlock { .. }
            | Request::Heartbeat
            | Request::Changes { .. }
            | Request::Fence { .. }
            | Request::Split { .. }
            | Request::TransferLease { .. }
            | Request::Gc { .. } => return None,
        };
        Some(Question { place, of, asks })
    }

    /// It is answered. What does not go together with former answers.
    pub(super) fn answered(&mut self, questions: &[Question], reply: &Reply) -> Vec<String> {
        let mut broken = Vec::new();
        for Question { place, of, asks } in questions {
            let Some(response) = reply.responses.get(*place) else { continue };
            let fate = self.fates.entry(*of).or_default();
            if let Err(what) = fate.hear(asks, response) {
                broken.push(format!("transaction {of} {what}"));
            }
        }
        broken
    }
}

impl Fate {
    fn hear(&mut self, asks: &Asks, response: &Response) -> Result<(), String> {
        match (asks, response) {
            (Asks::Write(keys), Response::Written(ts)) => {
                for key in keys {
                    // An intent does not move: the lowest answer is nearest to it.
                    let laid = self.laid.entry(key.clone()).or_insert(*ts);
                    *laid = (*laid).min(*ts);
                }
                self.conclude()
            }
            (Asks::Stage(keys), Response::Staged(ts)) => {
                self.named.clone_from(keys);
                self.staged.insert(*ts);
                self.conclude()
            }
            (Asks::Stage(_) | Asks::End, Response::Committed(ts)) => {
                self.commit(Committed::Told(*ts))
            }
            (Asks::End, Response::Aborted) => self.tell(Timestamp::MAX),
            (Asks::CommitOnePhase, Response::Committed(_)) => self.commit(Committed::InOnePhase),
            (Asks::Push(kind), Response::Pushed { status, advice, .. }) => match (status, kind) {
                (TxnStatus::Committed(ts), _) => self.commit(Committed::Told(*ts)),
                (TxnStatus::Aborted, _) => self.tell(Timestamp::MAX),
                (TxnStatus::Pending, PushKind::Timestamp(above)) if *advice == Advice::Pass => {
                    self.tell(*above)
                }
                (TxnStatus::Pending | TxnStatus::Staging(_), _) => Ok(()),
            },
            (Asks::Query, Response::Txn { status, .. }) => match status {
                TxnStatus::Committed(ts) => self.commit(Committed::Told(*ts)),
                TxnStatus::Aborted => self.tell(Timestamp::MAX),
                TxnStatus::Pending | TxnStatus::Staging(_) => Ok(()),
            },
            (Asks::Settle, Response::Aborted) => {
                self.settled = true;
                match self.committed {
                    Some(Committed::InOnePhase) => {
                        Err("will not commit, as its client was told, and has".to_string())
                    }
                    Some(Committed::Told(_) | Committed::Implied(_)) | None => Ok(()),
                }
            }
            (
                Asks::Write(_)
                | Asks::Stage(_)
                | Asks::CommitOnePhase
                | Asks::End
                | Asks::Push(_)
                | Asks::Query
                | Asks::Settle,
                _,
            ) => Ok(()),
        }
    }

    /// Whether it is committed by what is laid.
    fn conclude(&mut self) -> Result<(), String> {
        if self.committed.is_some() || self.given_up {
            return Ok(());
        }
        let laid: Option<Vec<Timestamp>> =
            self.named.iter().map(|key| self.laid.get(key).copied()).collect();
        let Some(last) = laid.and_then(|laid| laid.into_iter().max()) else { return Ok(()) };
        match self.staged.range(last..).next().copied() {
            Some(at) => self.commit(Committed::Implied(at)),
            None => Ok(()),
        }
    }

    fn commit(&mut self, committed: Committed) -> Result<(), String> {
        let before = self.committed.replace(committed);
        let at = match committed {
            Committed::InOnePhase if self.settled => {
                return Err("has committed, though somebody was told that it never would".into());
            }
            Committed::InOnePhase => return Ok(()),
            Committed::Told(at) | Committed::Implied(at) => at,
        };
        match self.above {
            Some(Timestamp::MAX) if before.is_none() => Err(format!(
                "is committed at {at} ({committed:?}), though somebody was told that it is aborted"
            )),
            Some(above) if before.is_none() && above >= at => Err(format!(
                "is committed at {at} ({committed:?}), though a reader was told that it would be above {above}"
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// It commits above this, if at all.
    fn tell(&mut self, above: Timestamp) -> Result<(), String> {
        self.above = self.above.max(Some(above));
        let at = match self.committed {
            Some(Committed::Told(at)) => at,
            Some(Committed::Implied(at)) if !self.given_up => at,
            Some(Committed::Implied(_) | Committed::InOnePhase) | None => return Ok(()),
        };
        if self.forgotten || above < at {
            return Ok(());
        }
        let what = if above == Timestamp::MAX {
            "aborted".into()
        } else {
            format!("to commit above {above}")
        };
        Err(format!(
            "is {what}, as somebody was told, though it is committed at {at} ({:?})",
            self.committed
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(raw: u64) -> Timestamp {
        Timestamp::from_raw(raw)
    }

    fn key(name: &str) -> Key {
        Key::new(name.as_bytes().to_vec())
    }

    fn write(name: &str) -> Asks {
        Asks::Write(vec![key(name)])
    }

    fn stage() -> Asks {
        Asks::Stage(vec![key("a"), key("b")])
    }

    fn pushed(status: TxnStatus) -> Response {
        let (intents, ignored) = (Vec::new(), Vec::new());
        let advice = if status == TxnStatus::Pending { Advice::Pass } else { Advice::Wait };
        Response::Pushed { status, intents, ignored, advice }
    }

    const READER: fn(u64) -> Asks = |at| Asks::Push(PushKind::Timestamp(ts(at)));

    /// Staged at 5, with `b` laid there.
    fn staged(b: u64) -> Fate {
        let mut fate = Fate::default();
        assert_eq!(fate.hear(&stage(), &Response::Staged(ts(5))), Ok(()));
        assert_eq!(fate.hear(&write("a"), &Response::Written(ts(5))), Ok(()));
        assert_eq!(fate.hear(&write("b"), &Response::Written(ts(b))), Ok(()));
        fate
    }

    #[test]
    fn all_that_is_named_laid_is_a_commit_that_nobody_takes_back() {
        let mut fate = staged(5);
        assert_eq!(fate.hear(&READER(4), &pushed(TxnStatus::Pending)), Ok(()), "below it");
        assert!(fate.hear(&READER(5), &pushed(TxnStatus::Pending)).is_err());
        assert!(staged(5).hear(&READER(4), &pushed(TxnStatus::Aborted)).is_err());
        let mut above = staged(6);
        assert_eq!(above.hear(&READER(9), &pushed(TxnStatus::Pending)), Ok(()));
        assert_eq!(above.hear(&stage(), &Response::Staged(ts(10))), Ok(()));
        assert_eq!(above.committed, Some(Committed::Implied(ts(10))));
    }

    #[test]
    fn a_commit_comes_above_what_others_were_told() {
        let (status, intents, ignored) = (TxnStatus::Pending, Vec::new(), Vec::new());
        let waits = Response::Pushed { status, intents, ignored, advice: Advice::Wait };
        let mut fate = Fate::default();
        assert_eq!(fate.hear(&READER(7), &waits), Ok(()));
        assert_eq!(
            fate.hear(&Asks::End, &Response::Committed(ts(7))),
            Ok(()),
            "a reader that waits"
        );
        let mut fate = Fate::default();
        assert_eq!(fate.hear(&READER(7), &pushed(TxnStatus::Pending)), Ok(()));
        assert!(fate.hear(&Asks::End, &Response::Committed(ts(7))).is_err());
        let mut fate = Fate::default();
        assert_eq!(fate.hear(&Asks::Push(PushKind::Abort), &pushed(TxnStatus::Aborted)), Ok(()));
        assert!(fate.hear(&Asks::End, &Response::Committed(ts(9))).is_err());
    }

    #[test]
    fn a_coordinator_takes_back_what_it_has_told_nobody_and_late_copies_are_nobodys() {
        let mut fate = staged(5);
        fate.given_up = true;
        assert_eq!(fate.hear(&Asks::End, &Response::Aborted), Ok(()));
        let mut fate = staged(5);
        assert_eq!(fate.hear(&Asks::End, &Response::Committed(ts(5))), Ok(()));
        fate.forgotten = true;
        assert_eq!(fate.hear(&READER(9), &pushed(TxnStatus::Aborted)), Ok(()));
    }

    #[test]
    fn a_lost_commit_that_was_called_off_does_not_come() {
        let mut fate = Fate::default();
        assert_eq!(fate.hear(&Asks::Settle, &Response::Aborted), Ok(()));
        assert!(fate.hear(&Asks::CommitOnePhase, &Response::Committed(ts(3))).is_err());
        let mut locks = Fate::default();
        assert_eq!(locks.hear(&Asks::Push(PushKind::Abort), &pushed(TxnStatus::Aborted)), Ok(()));
        assert_eq!(locks.hear(&Asks::CommitOnePhase, &Response::Committed(ts(3))), Ok(()));
    }
}
