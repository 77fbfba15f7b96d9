//! Driver: keeps the range directory. Whoever leads a range writes its descriptor under `\x02 end key`, when it has changed.
//!
//! The directory is a hint: replicas know their own descriptors, a request that went wrong is told the right ones, and of two
//! descriptors the higher generation wins. A record that is late or lost costs a detour, and is written again by the next look.

use clock::TimeSource;
use replication::range::{RangeDescriptor, RangeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use storage::Key;
use tokio_util::sync::CancellationToken;
use tracing::debug;
use txn::client::{Db, TxnError, TxnOptions};
use txn::wire;

use crate::shard::{Input, ShardHandle};
use crate::shared::Shared;

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Runs until `stop`.
pub async fn run(shared: Arc<Shared>, shard: ShardHandle, db: Db, stop: CancellationToken) {
    let mut written: BTreeMap<RangeId, u64> = BTreeMap::new();
    while !stop.is_cancelled() {
        if let Some(status) = shard.ask(Input::Status).await {
            let led = status.into_iter().filter(|range| range.lease.is_some());
            for descriptor in led.filter_map(|range| range.descriptor) {
                if written.get(&descriptor.id) == Some(&descriptor.generation) {
                    continue;
                }
                match write(&db, &descriptor).await {
                    Ok(()) => drop(written.insert(descriptor.id, descriptor.generation)),
                    Err(error) => {
                        debug!(range = %descriptor.id, %error, "the directory could not be written")
                    }
                }
            }
        }
        let pause = shared.time.sleep_until(shared.time.monotonic().plus(LOOK_INTERVAL));
        futures::future::select(pause, Box::pin(stop.cancelled())).await;
    }
}

async fn write(db: &Db, descriptor: &RangeDescriptor) -> Result<(), TxnError> {
    let descriptor = descriptor.clone();
    db.run(TxnOptions::labelled("range directory"), move |txn| {
        let descriptor = descriptor.clone();
        Box::pin(async move {
            let key = Key::addressing(&descriptor.span.end);
            let known = txn.get(&key, None).await?;
            let known = known.and_then(|bytes| wire::decode::<RangeDescriptor>(bytes).ok());
            let newer = known.is_none_or(|known| {
                known.id != descriptor.id || known.generation < descriptor.generation
            });
            if newer {
                txn.put(key, wire::encode(&descriptor))?;
            }
            Ok(())
        })
    })
    .await
}
