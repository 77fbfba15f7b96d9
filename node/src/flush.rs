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

/// After a flush that failed the next one waits so long.
const FLUSH_AGAIN: Duration = Duration::from_secs(5);

/// Runs until `stop`; then flushes once more, so that the next start has nothing to replay.
///
/// A flush that fails loses nothing: the log keeps what it was to cover, and it is tried again. An engine that cannot go on refuses the
/// next write, and that stops the node.
pub async fn run(
    engine: Arc<dyn Engine>,
    log: Arc<SegmentedLog>,
    shard: ShardHandle,
    time: Arc<dyn TimeSource>,
    stop: CancellationToken,
) {
    let mut last = time.monotonic();
    let mut not_before = last;
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
        let due = now >= not_before
            && (volatile >= FLUSH_BYTES || (volatile > 0 && now.since(last) >= FLUSH_INTERVAL));
        if due || stopping {
            last = now;
            if !flush_once(&engine, &shard).await {
                not_before = now.plus(FLUSH_AGAIN);
            }
        }
        if stopping {
            return;
        }
        let pause = time.sleep_until(time.monotonic().plus(LOOK_INTERVAL));
        let _ = futures::future::select(pause, Box::pin(stop.cancelled())).await;
    }
}

/// One flush; `false`: it has failed, or the shard has not heard of it (it is overloaded, or gone).
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
            error!(%error, "state could not be flushed: the log is kept, and it is tried again");
            false
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clock::{Monotonic, Sleep, WallTime};
    use parking_lot::Mutex;
    use storage::log::{LogOptions, SimDir};
    use storage::memory::{MemoryEngine, Operation};
    use storage::{Space, StorageError, WriteBatch};

    /// Whoever sleeps has slept.
    #[derive(Default)]
    struct Leaping(Mutex<Monotonic>);

    impl TimeSource for Leaping {
        fn wall(&self) -> WallTime {
            WallTime::default()
        }

        fn monotonic(&self) -> Monotonic {
            *self.0.lock()
        }

        fn sleep_until(&self, deadline: Monotonic) -> Sleep {
            let mut now = self.0.lock();
            *now = deadline.max(*now);
            Box::pin(tokio::task::yield_now())
        }
    }

    #[tokio::test]
    async fn a_flush_that_fails_is_tried_again() {
        let engine = Arc::new(MemoryEngine::new());
        let mut batch = WriteBatch::new();
        batch.put(Space::Local, "k", "v");
        engine.write(&batch).expect("nothing fails yet");
        let full = StorageError::Full("of something else".into());
        engine.set_fault(Operation::Flush, Some(full));
        let options = LogOptions::default();
        let log = SegmentedLog::open(Arc::new(SimDir::new()), options).expect("opens");
        let (shard, inbox) = ShardHandle::new();
        let stop = CancellationToken::new();
        let running = tokio::spawn(run(
            engine.clone(),
            Arc::new(log),
            shard,
            Arc::new(Leaping::default()),
            stop.clone(),
        ));
        let (mut marks, mut flushed) = (0, 0);
        while flushed == 0 {
            match inbox.try_recv() {
                Ok(Input::FlushMark(answer)) => {
                    marks += 1;
                    drop(answer.send(Default::default()));
                    if marks == 3 {
                        engine.set_fault(Operation::Flush, None);
                    }
                }
                Ok(Input::Event(Event::Flushed(_))) => flushed += 1,
                Ok(_) | Err(_) => tokio::task::yield_now().await,
            }
        }
        assert_eq!(marks, 3, "flushes were begun");
        stop.cancel();
        drop(inbox);
        running.await.expect("it ends");
    }
}
