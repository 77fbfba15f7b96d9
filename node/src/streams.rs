//! Driver: the streams between the copies of available tables. Pulls, for each table and each other region, what that region's copy
//! has committed, into our region's copy. One node of a region does it: the one with the smallest id that this node has lately
//! heard of.
//!
//! Two pulling at once (a region that cannot see itself whole) do harm to nobody: merging is idempotent, and each applies in
//! ordinary transactions.

use clock::TimeSource;
use futures::future::{join_all, select};
use replication::range::{NodeId, RegionId};
use sql::{Engine, TableMode};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::control::Control;
use crate::shared::Shared;

/// Pause between two pulls of a stream that had nothing new.
const IDLE_PAUSE: Duration = Duration::from_millis(100);
/// Pause after a pull that failed.
const FAILURE_PAUSE: Duration = Duration::from_millis(500);

/// A node of our region that was not heard of for this long no longer pulls: the next one does.
const TAKE_OVER_AFTER: Duration = Duration::from_secs(3);

/// Pulls under way: one, and others that were not waited for and have not ended yet.
const PULLS_MAX: usize = 4;

/// How soon a stream notices that somebody is back.
const NEWS_INTERVAL: Duration = Duration::from_millis(50);

/// Runs until `stop`.
pub async fn run(
    shared: Arc<Shared>,
    control: Arc<Control>,
    engine: Arc<Engine>,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(PULLS_MAX));
    while !stop.is_cancelled() {
        let round = Box::pin(async {
            let pause = if is_puller(&shared, &control) {
                let permit = room.clone().acquire_owned().await;
                // A task of its own, which goes on when this round is given up: dropped in the middle of its commit it would leave
                // intents behind, for which the clients of this region wait until they expire.
                let (shared, engine) = (shared.clone(), engine.clone());
                let pull = Handle::current().spawn(async move {
                    let _permit = permit;
                    pull_all(&shared, &engine).await
                });
                pull.await.unwrap_or(FAILURE_PAUSE)
            } else {
                FAILURE_PAUSE
            };
            sleep(&shared, pause).await;
        });
        // A pull that waits for somebody who is back by now is not waited for: another is begun at once.
        let round = select(round, Box::pin(somebody_is_back(&shared, &control)));
        select(round, Box::pin(stop.cancelled())).await;
    }
}

async fn sleep(shared: &Shared, duration: Duration) {
    shared.time.sleep_until(shared.time.monotonic().plus(duration)).await;
}

/// Ready when a node is heard that was silent, or when injected faults have changed.
async fn somebody_is_back(shared: &Shared, control: &Control) {
    let heard_within = |limit: Duration| -> BTreeSet<NodeId> {
        let now = shared.time.monotonic();
        let heard = control.heard_of();
        let lately = heard.iter().filter(|(_, heard)| now.since(heard.at) < limit);
        lately.map(|(node, _)| *node).collect()
    };
    let (known, changes) = (heard_within(TAKE_OVER_AFTER), shared.faults.changes());
    while shared.faults.changes() == changes && heard_within(TAKE_OVER_AFTER).is_subset(&known) {
        sleep(shared, NEWS_INTERVAL).await;
    }
}

fn is_puller(shared: &Shared, control: &Control) -> bool {
    let now = shared.time.monotonic();
    let heard = control.heard_of();
    let is_up = |node: &NodeId| {
        *node == shared.node
            || heard.get(node).is_some_and(|heard| now.since(heard.at) < TAKE_OVER_AFTER)
    };
    let directory = shared.directory.read();
    let in_region = directory
        .entries()
        .map(|entry| NodeId(entry.node))
        .filter(|node| directory.region(*node) == Some(shared.region));
    in_region.filter(is_up).min() == Some(shared.node)
}

/// One pull of every stream into our region; the pause until the next.
async fn pull_all(shared: &Shared, engine: &Arc<Engine>) -> Duration {
    let origins: Vec<RegionId> = shared
        .directory
        .read()
        .regions()
        .into_keys()
        .filter(|region| *region != shared.region)
        .collect();
    let catalog = engine.catalog();
    let tables: Vec<u32> = catalog
        .tables()
        .filter(|table| table.mode == TableMode::Available)
        .map(|table| table.id)
        .collect();
    let streams =
        tables.iter().flat_map(|table| origins.iter().map(move |origin| (*table, *origin)));
    let pulls = streams.map(|(table, origin)| async move {
        let pulled = sql::pump(engine, table, origin, shared.region).await;
        if let Err(error) = &pulled {
            debug!(table, origin = origin.0, error = error.message, "a stream made no progress");
        }
        pulled
    });
    let results = join_all(pulls).await;
    if results.iter().any(|pulled| matches!(pulled, Ok(progress) if progress.more)) {
        Duration::ZERO
    } else if results.iter().all(Result::is_ok) {
        IDLE_PAUSE
    } else {
        FAILURE_PAUSE
    }
}
