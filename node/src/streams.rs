//! Driver: the streams between the copies of available tables. Pulls, for each table and each other region, what that region's copy
//! has committed, into our region's copy. One node of a region does it: the live one with the smallest id.
//!
//! Two pulling at once (a region that cannot see itself whole) would do harm to nobody: merging is idempotent, and each applies in
//! ordinary transactions.

use clock::TimeSource;
use futures::future::join_all;
use replication::range::{NodeId, RegionId};
use sql::{Engine, TableMode};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::shared::Shared;

/// Pause between two pulls of a stream that had nothing new.
const IDLE_PAUSE: Duration = Duration::from_millis(100);
/// Pause after a pull that failed.
const FAILURE_PAUSE: Duration = Duration::from_millis(500);

/// Runs until `stop`.
pub async fn run(shared: Arc<Shared>, engine: Arc<Engine>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let pause =
            if is_puller(&shared) { pull_all(&shared, &engine).await } else { FAILURE_PAUSE };
        let pause = shared.time.sleep_until(shared.time.monotonic().plus(pause));
        futures::future::select(pause, Box::pin(stop.cancelled())).await;
    }
}

fn is_puller(shared: &Shared) -> bool {
    let directory = shared.directory.read();
    let in_region = directory.entries().map(|entry| NodeId(entry.node));
    in_region.filter(|node| directory.region(*node) == Some(shared.region)).min()
        == Some(shared.node)
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
