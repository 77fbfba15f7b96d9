//! Driver: the copies of an available table, each as its nodes show it.

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use replication::range::NodeId;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use super::persist;
use super::sql_client::Failed;
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

    /// Reads until all are equal: once all has healed.
    pub(super) async fn converge(&self, access: &SharedAccess) -> Result<(), String> {
        let (tries, slot, read) = (access.clone(), self.last.clone(), self.read);
        persist(access, move |_| {
            let (access, slot) = (tries.clone(), slot.clone());
            async move {
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
