//! Value: bugs that can be put back on purpose, one for each known killer that maps to this
//! machine. Off by default. A harness that does not find them finds nothing
//! (`tests/server/serial.rs` and the simulator must).

/// A mistake made on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlantedBug {
    /// H10: a new lease does not count as having read everything up to its floor.
    FloorForgotten,
    /// H10: reads above the lease's read bound are served.
    BoundIgnored,
    /// H11: the right side of a split knows nothing of former reads.
    SplitForgetsReads,
    /// H12: a full timestamp cache forgets without raising its low-water mark.
    EvictionForgets,
    /// T06: a scan protects the rows it returned, not the span it examined.
    ScanProtectsRowsOnly,
    /// T13: a one-phase commit does not look at the timestamp cache.
    FastPathSkipsCache,
    /// T08: a one-phase commit above its reads does not refresh them.
    RefreshForgotten,
    /// H07: a resolved intent counts as written when it was resolved.
    ResolvedCountsAsNew,
    /// An intent in a reader's uncertainty interval is ignored.
    UncertainIntentIgnored,
    /// A pushed timestamp is not remembered.
    PushForgotten,
    /// T03: an abort of a silent transaction is not written down.
    AbortNotRecorded,
    /// T14: who finds a staged write missing does not prevent it.
    MissingNotPrevented,
    /// T01: who does not find a lost commit does not prevent it.
    LostCommitNotPrevented,
    /// T02: a record that was staged anew takes the answer about the former attempt.
    OutdatedAttemptBelieved,
    /// T02: a late `Stage` puts the record back.
    StageGoesBack,
    /// A staged transaction is pushed or aborted as if it were pending.
    StagedCountsAsPending,
    /// A reader passes by a transaction that is staged above it, though within its uncertainty interval.
    StagedNotUncertain,
    /// A read does not wait for writes in flight.
    ReadsPassWritesInFlight,
    /// T09: a transaction whose intents were removed by an abort reads on, without them.
    AbortedReadsOn,
    /// T12: waits that close a cycle are not noticed.
    DeadlockUnseen,
    /// A write that arrives after its transaction has ended is committed once more when it is met.
    LateWriteCommits,
    /// S08: a read of history that was collected is answered with what is left.
    HistoryUnguarded,
}

impl PlantedBug {
    /// All of them.
    pub const ALL: [PlantedBug; 22] = [
        PlantedBug::FloorForgotten,
        PlantedBug::BoundIgnored,
        PlantedBug::SplitForgetsReads,
        PlantedBug::EvictionForgets,
        PlantedBug::ScanProtectsRowsOnly,
        PlantedBug::FastPathSkipsCache,
        PlantedBug::RefreshForgotten,
        PlantedBug::ResolvedCountsAsNew,
        PlantedBug::UncertainIntentIgnored,
        PlantedBug::PushForgotten,
        PlantedBug::AbortNotRecorded,
        PlantedBug::LostCommitNotPrevented,
        PlantedBug::MissingNotPrevented,
        PlantedBug::OutdatedAttemptBelieved,
        PlantedBug::StageGoesBack,
        PlantedBug::StagedCountsAsPending,
        PlantedBug::StagedNotUncertain,
        PlantedBug::ReadsPassWritesInFlight,
        PlantedBug::LateWriteCommits,
        PlantedBug::AbortedReadsOn,
        PlantedBug::DeadlockUnseen,
        PlantedBug::HistoryUnguarded,
    ];
}
