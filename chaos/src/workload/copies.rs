//! Driver: the copies of an available table, each as its nodes show it.

use ::sql::types::Datum;
use clock::Timestamp;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use replication::range::NodeId;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use super::persist;
use super::sql_client::{Client, Failed};
use crate::check::convergence::check_copies;
use crate::world::access::{Gateway, SharedAccess};

/// Reads all of what a node shows.
pub(super) type Read<T> = fn(Gateway) -> BoxFuture<'static, Result<T, Failed>>;

/// What each node showed when they were read last.
pub(super) struct Copies<T> {
    read: Read<T>,
    last: Arc<Mutex<BTreeMap<NodeId, T>>>,
}

impl<T: Clone + PartialEq + Debug + Send + 'static> Copies<T> {
    /// Nothing is read yet.
    pub(super) fn new(read: Read<T>) -> Copies<T> {
        Copies { read, last: Arc::default() }
    }

    /// Reads until every node shows what is `whole`: before anything fails.
    pub(super) async fn wait_until(
        &self,
        access: &SharedAccess,
        whole: fn(&T) -> bool,
    ) -> Result<(), String> {
        let (tries, read) = (access.clone(), self.read);
        persist(access, move |_| {
            let access = tries.clone();
            async move {
                let copies = read_all(&access, read).await?;
                if copies.values().all(whole) {
                    Ok(())
                } else {
                    Err(format!("the copies are not whole yet: {copies:?}"))
                }
            }
            .boxed()
        })
        .await
    }

    /// Reads until all have everything of each other, and are equal: once all has healed. (Counters may show the same sum before.)
    pub(super) async fn converge(&self, access: &SharedAccess) -> Result<(), String> {
        let (tries, slot, read) = (access.clone(), self.last.clone(), self.read);
        let begun: Arc<Mutex<Option<Timestamp>>> = Arc::default();
        persist(access, move |_| {
            let (access, slot, begun) = (tries.clone(), slot.clone(), begun.clone());
            async move {
                let known = *begun.lock();
                let upto = match known {
                    Some(upto) => upto,
                    None => {
                        let latest = latest_clock(&access).await?;
                        *begun.lock() = Some(latest);
                        latest
                    }
                };
                for node in access.nodes() {
                    let wait = move |gateway| has_all_upto(gateway, upto).boxed();
                    let delivered = access.on_node(node, wait).await;
                    delivered
                        .map_err(|lost| format!("{node}: {lost:?}"))?
                        .map_err(|failed| format!("{node}: {failed}"))?;
                }
                let copies = read_all(&access, read).await?;
                let equal = check_copies(&copies);
                *slot.lock() = copies;
                equal
            }
            .boxed()
        })
        .await
    }

    /// By node.
    pub(super) fn last(&self) -> BTreeMap<NodeId, T> {
        self.last.lock().clone()
    }

    /// One of them.
    ///
    /// # Errors
    /// None was read.
    pub(super) fn any(&self) -> Result<T, String> {
        self.last.lock().values().next().cloned().ok_or_else(|| "nothing was read".to_string())
    }
}

/// What no node's clock has passed.
async fn latest_clock(access: &SharedAccess) -> Result<Timestamp, String> {
    let mut latest = Timestamp::MIN;
    for node in access.nodes() {
        let read = |gateway: Gateway| async move { gateway.runtime.hlc.now().timestamp() }.boxed();
        let reading = access.on_node(node, read).await;
        latest = latest.max(reading.map_err(|lost| format!("{node}: {lost:?}"))?);
    }
    Ok(latest)
}

/// Whether the copies in this node's region have what was committed in the others by `upto`.
async fn has_all_upto(gateway: Gateway, upto: Timestamp) -> Result<(), Failed> {
    let mut client = Client::connect(&gateway)?;
    let rows = client.run("SHOW STALENESS").await;
    client.close().await;
    for row in rows? {
        let frontier = match &row[2] {
            Datum::Text(text) => reading_of(text),
            _ => None,
        };
        if frontier.is_none_or(|frontier| frontier < upto) {
            let why = format!("not all of {:?} from {:?} is here by {upto}", row[0], row[1]);
            return Err(Failed::Certain(why));
        }
    }
    Ok(())
}

/// `seconds.micros,logical`.
fn reading_of(text: &str) -> Option<Timestamp> {
    let (seconds, rest) = text.split_once('.')?;
    let (micros, logical) = rest.split_once(',')?;
    let micros = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
    Some(Timestamp::new(micros, logical.parse().ok()?))
}

async fn read_all<T: Send + 'static>(
    access: &SharedAccess,
    read: Read<T>,
) -> Result<BTreeMap<NodeId, T>, String> {
    let mut copies = BTreeMap::new();
    for node in access.nodes() {
        let copy = access.on_node(node, read).await;
        let copy = copy
            .map_err(|lost| format!("{node}: {lost:?}"))?
            .map_err(|failed| format!("{node}: {failed}"))?;
        copies.insert(node, copy);
    }
    Ok(copies)
}
