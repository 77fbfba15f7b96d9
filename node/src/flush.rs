//! Driver: flushes the state engine in the background, so that the Raft log can be truncated. Decides only when.

use clock::TimeSource;
use std::sync::Arc;
use std::time::Duration;
use storage::Engine;
use storage::log::SegmentedLog;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};
use txn::server::Event;

use crate::shard::{Input, ShardHandle};

/// Flush when so much is volatile.
const FLUSH_BYTES: u64 = 32 << 20;
/// Flush at least this often while anything is volatile: bounds the log to be re-applied after a crash.
const FLUSH_INTERVAL: Duration = Duration::from_secs(30);
/// How often to look.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Runs until `stop`; then flushes once more, so that the next start has nothing to replay.
pub async fn run(
    engine: Arc<dyn Engine>,
    log: Arc<SegmentedLog>,
    shard: ShardHandle,
    time: Arc<dyn TimeSource>,
    stop: CancellationToken,
) {
    let mut last = time.monotonic();
    loop {
        let stopping = stop.is_cancelled();
        // The next segment is filled with zeros here, so that no append has to wait for it.
        let preparing = log.clone();
        match tokio::task::spawn_blocking(move || preparing.prepare()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "a log segment could not be prepared"),
            Err(_) => return,
        }
        let now = time.monotonic();
        let volatile = engine.unflushed_bytes();
        let due = volatile >= FLUSH_BYTES
            || (volatile > 0 && now.since(last) >= FLUSH_INTERVAL)
            || stopping;
        if due {
            last = now;
            if !flush_once(&engine, &shard).await {
                return;
            }
        }
        if stopping {
            return;
        }
        let pause = time.sleep_until(time.monotonic().plus(LOOK_INTERVAL));
        let _ = futures::future::select(pause, Box::pin(stop.cancelled())).await;
    }
}

/// One flush; `false` if the shard or the disk is gone.
async fn flush_once(engine: &Arc<dyn Engine>, shard: &ShardHandle) -> bool {
    // The mark is taken before the flush: everything it names has been written to the engine by then.
    let Some(mark) = shard.ask(Input::FlushMark).await else { return false };
    let flushing = engine.clone();
    match tokio::task::spawn_blocking(move || flushing.flush()).await {
        Ok(Ok(())) => {
            debug!("state flushed");
            shard.send(Input::Event(Event::Flushed(mark)))
        }
        Ok(Err(error)) => {
            error!(%error, "state could not be flushed");
            false
        }
        Err(_) => false,
    }
}
