//! Driver: the collector of old versions, every half minute. What it collects, and why no more, is `sql::Collector`'s.

use clock::TimeSource;
use futures::future::{Either, select};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;

/// Between two rounds. Shorter than what a gateway says of its transactions counts for.
const INTERVAL: Duration = Duration::from_secs(30);
const _: () = assert!(INTERVAL.as_secs() * 4 <= sql::PROTECTION_KEPT.as_secs());

/// Runs until `stop`.
pub async fn run(shared: Arc<Shared>, engine: Arc<sql::Engine>, stop: CancellationToken) {
    let mut collector = sql::Collector::new(engine);
    loop {
        let next = shared.time.monotonic().plus(INTERVAL);
        let sleep = Box::pin(shared.time.sleep_until(next));
        if let Either::Right(_) = select(sleep, Box::pin(stop.cancelled())).await {
            return;
        }
        // Given up in the middle it has removed whole pieces, and raised a threshold that stays.
        match select(Box::pin(collector.round()), Box::pin(stop.cancelled())).await {
            Either::Left((Ok(done), _)) if done.ranges + done.failed > 0 => {
                tracing::info!(ranges = done.ranges, failed = done.failed, "history collected");
            }
            Either::Left((Ok(_), _)) => {}
            Either::Left((Err(error), _)) => {
                tracing::debug!(error = error.message, "history was not collected");
            }
            Either::Right(_) => return,
        }
    }
}
