//! Driver: syncs of the Raft log: in place, or by a thread beside the shard's; and what waits for them.
//!
//! ```text
//!   appended ──► is_due ──► fast disk: the shard's thread syncs, and goes on
//!                      └──► slow disk: the other thread syncs ──► Input::Synced ──► covered messages leave, the next sync begins
//! ```
//!
//! INVARIANT: at most one sync is under way; what is appended meanwhile waits for the next one.

use clock::TimeSource;
use crossbeam::channel::{Receiver, Sender, bounded};
use replication::store::Deferred;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use storage::log::{Log, LogSequence};

use crate::shard::Input;

/// A disk whose syncs take longer, on average, is synced by the other thread: a handover costs about a tenth of it.
const IN_PLACE_MAX: Duration = Duration::from_micros(400);
/// Syncs that the average is over, about.
const AVERAGE_OVER: u32 = 8;

/// The thread that syncs where syncs are slow. Sleeps otherwise.
pub struct Syncer {
    orders: Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Syncer {
    /// Starts it. It answers every order with [`Input::Synced`].
    #[allow(clippy::disallowed_methods)]
    pub fn start(log: Arc<dyn Log>, time: Arc<dyn TimeSource>, inbox: Sender<Input>) -> Syncer {
        let (orders, ordered) = bounded(1);
        let thread = std::thread::Builder::new()
            .name("sync".to_string())
            .spawn(move || carry_out(&*log, &*time, &ordered, &inbox))
            .expect("the OS starts threads");
        Syncer { orders, thread }
    }
}

fn carry_out(log: &dyn Log, time: &dyn TimeSource, orders: &Receiver<()>, inbox: &Sender<Input>) {
    while orders.recv().is_ok() {
        let begun = time.monotonic();
        let synced = log.sync();
        let took = time.monotonic().since(begun);
        if inbox.send(Input::Synced(synced, took)).is_err() {
            return;
        }
    }
}

/// What is appended, what is synced, and what waits for it.
pub(crate) struct Syncs {
    syncer: Syncer,
    appended: LogSequence,
    synced: LogSequence,
    /// In the order of what they need.
    deferred: VecDeque<Deferred>,
    under_way: bool,
    average: Duration,
}

impl Syncs {
    /// Nothing was appended; the disk is taken for a fast one.
    pub(crate) fn new(syncer: Syncer) -> Syncs {
        Syncs {
            syncer,
            appended: LogSequence::default(),
            synced: LogSequence::default(),
            deferred: VecDeque::new(),
            under_way: false,
            average: Duration::ZERO,
        }
    }

    /// A batch is in the log.
    pub(crate) fn appended(&mut self, sequence: LogSequence) {
        self.appended = sequence;
    }

    /// The last batch, if no sync has covered it.
    pub(crate) fn last_unsynced(&self) -> Option<LogSequence> {
        (self.appended > self.synced).then_some(self.appended)
    }

    /// Whether a sync should begin.
    pub(crate) fn is_due(&self) -> bool {
        !self.under_way && self.appended > self.synced
    }

    /// Orders one of the other thread if the disk is slow; otherwise it is the caller's to do.
    pub(crate) fn begin_elsewhere(&mut self) -> bool {
        self.under_way = self.average > IN_PLACE_MAX && self.syncer.orders.try_send(()).is_ok();
        self.under_way
    }

    /// The other thread's sync has returned.
    pub(crate) fn returned(&mut self, took: Duration) {
        self.under_way = false;
        self.took(took);
    }

    /// A sync took so long.
    pub(crate) fn took(&mut self, took: Duration) {
        self.average = (self.average * (AVERAGE_OVER - 1) + took) / AVERAGE_OVER;
    }

    /// These wait for what they need.
    pub(crate) fn defer(&mut self, deferred: Deferred) {
        if !deferred.is_empty() {
            self.deferred.push_back(deferred);
        }
    }

    /// A sync has covered everything up to `synced`: what has waited for that.
    pub(crate) fn covered(&mut self, synced: LogSequence) -> Vec<Deferred> {
        self.synced = self.synced.max(synced);
        let upto = self.synced;
        let count = self.deferred.iter().take_while(|deferred| deferred.needs() <= upto).count();
        self.deferred.drain(..count).collect()
    }

    /// Ends the other thread, after its sync.
    pub(crate) fn end(self) {
        drop(self.syncer.orders);
        let _ = self.syncer.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clock::{Monotonic, Sleep, Timestamp, WallTime};
    use replication::range::NodeId;
    use replication::store::{Incarnation, StoreMessage};
    use storage::log::{LogOptions, SegmentedLog, SimDir};

    struct NoTime;

    impl TimeSource for NoTime {
        fn wall(&self) -> WallTime {
            WallTime::from_micros(0)
        }
        fn monotonic(&self) -> Monotonic {
            Monotonic::ZERO
        }
        fn sleep_until(&self, _: Monotonic) -> Sleep {
            Box::pin(std::future::pending())
        }
    }

    fn syncs() -> (Syncs, Receiver<Input>) {
        let (inbox, heard) = bounded(4);
        let log = SegmentedLog::open(Arc::new(SimDir::new()), LogOptions::default());
        let log: Arc<dyn Log> = Arc::new(log.expect("an empty directory"));
        (Syncs::new(Syncer::start(log, Arc::new(NoTime), inbox)), heard)
    }

    fn deferred(needs: u64) -> Deferred {
        let message = StoreMessage::SupportRequest {
            incarnation: Incarnation(1),
            sequence: needs,
            duration: Duration::ZERO,
            read_bound: Timestamp::MIN,
        };
        Deferred::new(vec![(NodeId(2), message)], LogSequence(needs))
    }

    #[test]
    fn a_slow_disk_is_synced_beside_and_a_fast_one_in_place() {
        let (mut syncs, heard) = syncs();
        assert!(!syncs.is_due(), "nothing was appended");
        syncs.appended(LogSequence(1));
        assert!(syncs.is_due() && !syncs.begin_elsewhere(), "it is taken for a fast one");
        for _ in 0..AVERAGE_OVER {
            syncs.took(Duration::from_millis(4));
        }
        assert!(syncs.begin_elsewhere());
        assert!(!syncs.is_due(), "one is under way");
        let Ok(Input::Synced(Ok(_), took)) = heard.recv() else { panic!("it is synced") };
        syncs.returned(took);
        assert!(syncs.is_due(), "what was appended meanwhile waits for the next one");
        for _ in 0..100 {
            syncs.took(Duration::from_micros(90));
        }
        assert!(!syncs.begin_elsewhere(), "it is fast again");
        syncs.end();
    }

    #[test]
    fn what_waits_leaves_when_it_is_covered_and_in_order() {
        let (mut syncs, _heard) = syncs();
        for sequence in 1..=3 {
            syncs.appended(LogSequence(sequence));
            assert_eq!(syncs.last_unsynced(), Some(LogSequence(sequence)));
            syncs.defer(deferred(sequence));
        }
        let needs = |all: Vec<Deferred>| all.iter().map(|one| one.needs().0).collect::<Vec<_>>();
        assert_eq!(needs(syncs.covered(LogSequence(2))), [1, 2]);
        assert_eq!(needs(syncs.covered(LogSequence(1))), [0_u64; 0], "it says nothing new");
        assert_eq!(syncs.last_unsynced(), Some(LogSequence(3)));
        assert_eq!(needs(syncs.covered(LogSequence(3))), [3]);
        assert_eq!(syncs.last_unsynced(), None);
        syncs.end();
    }
}
