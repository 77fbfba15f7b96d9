//! Driver: questions that gateways put to each other on behalf of people: who is that transaction, and what waits for what.
//!
//! Nothing is asked unless an error is about to be told or somebody wants to see a table. An answer decides nothing. A gateway that
//! does not answer in time is left out, and the answer says so. How a question travels is the node's affair ([`Cluster::ask`]).

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{Either, join_all, select};
use futures::stream::{FuturesUnordered, StreamExt};
use replication::range::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use storage::Key;
use txn::client::{Db, Question, Sighting};
use txn::contention::{Contention, KeyContention};
use txn::wire::{self, Wire, WireError};

use crate::cluster::Cluster;

/// An error waits no longer for the answer of another gateway. Above the round trips of one planet.
const ASKED_MAX: Duration = Duration::from_millis(500);
/// Errors of a node that ask others at once. In a storm of errors most of them say only what is known here.
const ASKING_MAX: usize = 16;

/// What another gateway is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Ask {
    /// Who that is.
    Who(Vec<Question>),
    /// What waits for what at its ranges, and what its transactions failed over.
    Contention,
}

impl Wire for Ask {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Ask::Who(questions) => {
                0_u8.put(out);
                questions.put(out);
            }
            Ask::Contention => 1_u8.put(out),
        }
    }

    fn take(input: &mut Bytes) -> Result<Ask, WireError> {
        match u8::take(input)? {
            0 => Ok(Ask::Who(Wire::take(input)?)),
            1 => Ok(Ask::Contention),
            _ => Err(WireError("unknown question of a gateway")),
        }
    }
}

/// What has become of a question about one transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Sought {
    /// It is, or was, that gateway's.
    Found(NodeId, Sighting),
    /// Nobody who answered knows it; these did not answer.
    Unknown(Vec<NodeId>),
    /// Too many questions are under way: only this gateway was asked.
    NotAsked,
}

/// All gateways, from one of them.
pub(crate) struct Gateways {
    db: Db,
    cluster: Arc<dyn Cluster>,
    asking: AtomicUsize,
}

impl Gateways {
    pub(crate) fn new(db: Db, cluster: Arc<dyn Cluster>) -> Arc<Gateways> {
        Arc::new(Gateways { db, cluster, asking: AtomicUsize::new(0) })
    }

    /// The answer to another gateway's question; `None`: it is none.
    pub(crate) async fn answer(&self, question: Bytes) -> Option<Bytes> {
        match wire::decode(question).ok()? {
            Ask::Who(questions) => {
                let known: Vec<Option<Sighting>> =
                    questions.iter().map(|question| self.db.sighting(question)).collect();
                Some(wire::encode(&known))
            }
            Ask::Contention => Some(wire::encode(&self.own_contention().await)),
        }
    }

    /// Who that is. Ends with the first gateway that knows it.
    pub(crate) async fn seek(&self, question: &Question) -> Sought {
        if let Some(sighting) = self.db.sighting(question) {
            return Sought::Found(self.cluster.node(), sighting);
        }
        let asking = Asking::enter(&self.asking);
        if asking.before >= ASKING_MAX {
            return Sought::NotAsked;
        }
        let ask = wire::encode(&Ask::Who(vec![question.clone()]));
        let mut asked: FuturesUnordered<_> =
            self.cluster.others().into_iter().map(|node| self.ask(node, ask.clone())).collect();
        let mut silent = Vec::new();
        while let Some((node, answer)) = asked.next().await {
            match answer.map(wire::decode::<Vec<Option<Sighting>>>) {
                Some(Ok(known)) => {
                    if let Some(sighting) = known.into_iter().flatten().next() {
                        return Sought::Found(node, sighting);
                    }
                }
                Some(Err(_)) | None => silent.push(node),
            }
        }
        silent.sort();
        Sought::Unknown(silent)
    }

    /// What waits for what, everywhere; with the nodes that did not say.
    pub(crate) async fn contention(&self) -> (Vec<(Key, KeyContention)>, Vec<NodeId>) {
        let ask = wire::encode(&Ask::Contention);
        let asked = self.cluster.others().into_iter().map(|node| self.ask(node, ask.clone()));
        let mut all = self.own_contention().await;
        let mut silent = Vec::new();
        for (node, answer) in join_all(asked).await {
            match answer.map(wire::decode::<Vec<(Key, KeyContention)>>) {
                Some(Ok(keys)) => all.extend(keys),
                Some(Err(_)) | None => silent.push(node),
            }
        }
        (Contention::merge(all), silent)
    }

    /// Those of them that somebody knows, in order.
    pub(crate) async fn sightings(
        &self,
        questions: Vec<Question>,
    ) -> Vec<Option<(NodeId, Sighting)>> {
        let own = self.cluster.node();
        let mut found: Vec<Option<(NodeId, Sighting)>> = questions
            .iter()
            .map(|question| self.db.sighting(question).map(|sighting| (own, sighting)))
            .collect();
        let open: Vec<usize> = (0..found.len()).filter(|place| found[*place].is_none()).collect();
        if open.is_empty() {
            return found;
        }
        let rest = open.iter().map(|place| questions[*place].clone()).collect();
        let ask = wire::encode(&Ask::Who(rest));
        let asked = self.cluster.others().into_iter().map(|node| self.ask(node, ask.clone()));
        for (node, answer) in join_all(asked).await {
            let known = answer.and_then(|bytes| wire::decode::<Vec<Option<Sighting>>>(bytes).ok());
            for (place, sighting) in open.iter().zip(known.into_iter().flatten()) {
                if let Some(sighting) = sighting {
                    found[*place].get_or_insert((node, sighting));
                }
            }
        }
        found
    }

    async fn own_contention(&self) -> Vec<(Key, KeyContention)> {
        let waits = self.cluster.lock_waits().await.keys();
        let failures = self.db.contention().keys();
        Contention::merge(waits.into_iter().chain(failures))
    }

    async fn ask(&self, node: NodeId, question: Bytes) -> (NodeId, Option<Bytes>) {
        let time = &self.db.runtime().time;
        let limit = time.sleep_until(time.monotonic().plus(ASKED_MAX));
        match select(self.cluster.ask(node, question).boxed(), limit).await {
            Either::Left((answer, _)) => (node, answer),
            Either::Right(_) => (node, None),
        }
    }
}

/// A question under way; counted until it is dropped.
struct Asking<'a> {
    count: &'a AtomicUsize,
    /// How many there were.
    before: usize,
}

impl Asking<'_> {
    fn enter(count: &AtomicUsize) -> Asking<'_> {
        Asking { count, before: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Names of transactions that a table is about: each asked for once.
pub(crate) fn by_id<'a>(
    questions: &'a [Question],
    found: &'a [Option<(NodeId, Sighting)>],
) -> BTreeMap<txn::api::TxnId, &'a (NodeId, Sighting)> {
    let known = questions.iter().zip(found).filter_map(|(question, found)| match question {
        Question::Transaction(txn) => found.as_ref().map(|found| (*txn, found)),
        Question::Writer { .. } | Question::AborterOf(_) => None,
    });
    known.collect()
}
