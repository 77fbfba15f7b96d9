//! Value: every mistake that can be made on purpose, wherever in the code its switch is, under one name.
//!
//! Each brings back a known killer. The switches are off, and nothing but chaos and tests turns them on; a harness that does not find them
//! finds nothing ([`crate::mutants`]).

use std::fmt;
use std::str::FromStr;

use clock::PlantedBug as ClockBug;
use replication::raft::PlantedBug as RaftBug;
use replication::store::PlantedBug as StoreBug;
use sql::PlantedBug as SqlBug;
use storage::log::PlantedBug as LogBug;
use txn::client::PlantedBug as GatewayBug;
use txn::server::PlantedBug as ServerBug;

use crate::ordeal::Ordeal;
use crate::raid::Raid;
use crate::workload::Kind;
use crate::world::Level;

/// A mistake of the world's own drivers and disks: what `node/` does in production.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WorldBug {
    /// What must follow the sync of the log leaves before it.
    AckBeforeSync,
    /// An error of a sync is ignored, and the next one relied on.
    SyncErrorIgnored,
    /// A full disk is taken for one that has written.
    FullIgnored,
    /// The state engine's flushes are not atomic over its spaces.
    FlushNotAtomic,
    /// The store is told of a flush that was not made.
    MarkWithoutFlush,
    /// A new range's or a snapshot's state is not flushed before its log begins.
    BirthsNotFlushed,
    /// The state engine gives out what has rotted.
    StateChecksumsIgnored,
    /// A stalled disk does not cost the node its leases.
    StallUnnoticed,
    /// A machine that lost power comes back with the log of its last flush.
    OlderDisk,
    /// The clock's upper bound is not kept over restarts.
    ClockBoundForgotten,
    /// A node whose clock disagrees goes on.
    FenceIgnored,
    /// Leases are counted on a clock that is stepped with the wall clock.
    LeaseOnWallClock,
    /// A call without an answer counts as never sent.
    LostReplyCountsAsUnsent,
    /// A call may arrive twice.
    CallsDoubled,
    /// Clients do nothing.
    IdleClients,
}

/// Any of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planted {
    /// See [`WorldBug`].
    World(WorldBug),
    /// See [`ClockBug`].
    Clock(ClockBug),
    /// See [`RaftBug`].
    Raft(RaftBug),
    /// See [`StoreBug`].
    Store(StoreBug),
    /// See [`ServerBug`].
    Server(ServerBug),
    /// See [`GatewayBug`].
    Gateway(GatewayBug),
    /// See [`LogBug`].
    Log(LogBug),
    /// See [`SqlBug`].
    Sql(SqlBug),
}

/// A planted bug's name, and the killers it brings back.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// As it is written.
    pub name: &'static str,
    /// What is switched on.
    pub planted: Planted,
    /// Killers by their number.
    pub killers: &'static [&'static str],
    /// What keeps it from doing harm, so that no seed can find it.
    pub guard: Option<&'static str>,
    /// Which seeds can find it before long.
    pub(crate) aim: Aim,
    /// The only workload that can; `None`: those of its kind, in turn.
    pub(crate) workload: Option<Kind>,
}

/// Seeds that go through what a killer needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Aim {
    /// Any.
    Any,
    /// Those with this ordeal.
    Ordeal(Ordeal),
    /// Those with this raid.
    Raid(Raid),
}

impl Aim {
    /// Whether this is such a seed.
    pub(crate) fn is_at(self, seed: u64, level: Level) -> bool {
        let ordeal = Ordeal::of(seed, level);
        match self {
            Aim::Any => true,
            Aim::Ordeal(aim) => ordeal == Some(aim),
            Aim::Raid(aim) => ordeal.is_none() && Raid::of(seed) == aim,
        }
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Aim::Any => f.write_str("any"),
            Aim::Ordeal(ordeal) => write!(f, "the ordeal {ordeal:?}"),
            Aim::Raid(raid) => write!(f, "the raid {raid:?}"),
        }
    }
}

impl Mutant {
    /// The same, harmless because of something else.
    const fn behind(self, guard: &'static str) -> Mutant {
        Mutant { guard: Some(guard), ..self }
    }

    /// The same, hunted with one workload only.
    const fn with(self, workload: Kind) -> Mutant {
        Mutant { workload: Some(workload), ..self }
    }

    /// The same, hunted on seeds that are about it.
    const fn on(self, aim: Aim) -> Mutant {
        Mutant { aim, ..self }
    }
}

const fn world(name: &'static str, bug: WorldBug, killers: &'static [&'static str]) -> Mutant {
    Mutant {
        name,
        planted: Planted::World(bug),
        killers,
        guard: None,
        aim: Aim::Any,
        workload: None,
    }
}

const fn clock(name: &'static str, bug: ClockBug, killers: &'static [&'static str]) -> Mutant {
    Mutant {
        name,
        planted: Planted::Clock(bug),
        killers,
        guard: None,
        aim: Aim::Any,
        workload: None,
    }
}

const fn raft(name: &'static str, bug: RaftBug, killers: &'static [&'static str]) -> Mutant {
    Mutant {
        name,
        planted: Planted::Raft(bug),
        killers,
        guard: None,
        aim: Aim::Any,
        workload: None,
    }
}

const fn store(name: &'static str, bug: StoreBug, killers: &'static [&'static str]) -> Mutant {
    Mutant {
        name,
        planted: Planted::Store(bug),
        killers,
        guard: None,
        aim: Aim::Any,
        workload: None,
    }
}

const fn server(name: &'static str, bug: ServerBug, killers: &'static [&'static str]) -> Mutant {
    Mutant {
        name,
        planted: Planted::Server(bug),
        killers,
        guard: None,
        aim: Aim::Any,
        workload: None,
    }
}

const fn gateway(name: &'static str, bug: GatewayBug, killers: &'static [&'static str]) -> Mutant {
    Mutant {
        name,
        planted: Planted::Gateway(bug),
        killers,
        guard: None,
        aim: Aim::Any,
        workload: None,
    }
}

const fn log(name: &'static str, bug: LogBug, killers: &'static [&'static str]) -> Mutant {
    Mutant { name, planted: Planted::Log(bug), killers, guard: None, aim: Aim::Any, workload: None }
}

const fn sql(name: &'static str, bug: SqlBug, killers: &'static [&'static str]) -> Mutant {
    Mutant { name, planted: Planted::Sql(bug), killers, guard: None, aim: Aim::Any, workload: None }
}

/// All of them, in the order of killers.
pub const MUTANTS: &[Mutant] = &[
    raft("vote-before-sync", RaftBug::VoteBeforeSync, &["R01"]),
    world("ack-before-sync", WorldBug::AckBeforeSync, &["R02", "R05", "S01"]),
    raft("append-acked-before-sync", RaftBug::AckBeforeSync, &["R02"]),
    world("sync-error-ignored", WorldBug::SyncErrorIgnored, &["R03"]),
    world("flush-not-atomic", WorldBug::FlushNotAtomic, &["R04", "S03"]),
    raft("own-copy-counted-unsynced", RaftBug::CountOwnUnsynced, &["R05"]),
    raft("change-before-own-commit", RaftBug::ChangeBeforeOwnCommit, &["R06"])
        .behind("every change of voters goes through a joint membership, whose majorities contain one of the former voters (the killer is of changes of one voter at a time)"),
    raft("membership-at-apply", RaftBug::MembershipAtApply, &["R07"]),
    raft("commit-by-counting", RaftBug::CommitByCounting, &["R09"]),
    raft("lease-never-expires", RaftBug::LeaseNeverExpires, &["R10"]),
    store("votes-after-restart", StoreBug::VotesAfterRestart, &["R10"]),
    raft("read-index-unconfirmed", RaftBug::ReadIndexUnconfirmed, &["R12"])
        .behind("nothing above Raft asks for read indexes yet; replication/tests/raft does"),
    store("snapshot-overlaps", StoreBug::SnapshotOverlaps, &["R13"]),
    store("removed-returns", StoreBug::RemovedReturns, &["R15"]),
    raft("birth-forgets-binding", RaftBug::BirthForgetsBinding, &["R14"]),
    raft("birth-led-by-any-leader", RaftBug::BirthLedByAnyLeader, &["R14"]),
    raft("former-round-counts", RaftBug::FormerRoundCounts, &["R10"]).on(Aim::Ordeal(Ordeal::Swap)),
    raft("agreed-term-releases", RaftBug::AgreedTermReleases, &["R10"]).on(Aim::Ordeal(Ordeal::Contest)),
    raft("no-pre-vote", RaftBug::NoPreVote, &["R17", "C05"]),
    raft("stale-completion", RaftBug::StaleCompletion, &["R16"]).on(Aim::Ordeal(Ordeal::Overwrite)),
    world("calls-doubled", WorldBug::CallsDoubled, &["R18"]),
    store("apply-depends-on-node", StoreBug::ApplyDependsOnNode, &["R20"]),
    world("older-disk", WorldBug::OlderDisk, &["R21"]),
    store("snapshot-not-repeated", StoreBug::SnapshotNotRepeated, &["R23"]),
    world("births-not-flushed", WorldBug::BirthsNotFlushed, &["R22"]),
    world("mark-without-flush", WorldBug::MarkWithoutFlush, &["S03"]),
    log("damage-is-tail", LogBug::DamageIsTail, &["S02"]),
    world("full-ignored", WorldBug::FullIgnored, &["S04"]),
    log("checksums-ignored", LogBug::ChecksumsIgnored, &["S06"]),
    world("state-checksums-ignored", WorldBug::StateChecksumsIgnored, &["S06"]),
    world("stall-unnoticed", WorldBug::StallUnnoticed, &["S05"]),
    server("history-unguarded", ServerBug::HistoryUnguarded, &["S08"]),
    world("clock-bound-forgotten", WorldBug::ClockBoundForgotten, &["H01"]),
    clock("far-clocks-absorbed", ClockBug::FarClocksAbsorbed, &["H02"]),
    clock("clock-not-carried", ClockBug::OthersIgnored, &["H03"]),
    clock("no-uncertainty", ClockBug::NoUncertainty, &["H05"]),
    gateway("commit-wait-skipped", GatewayBug::CommitWaitSkipped, &["H04"]),
    gateway("lock-loss-unnoticed", GatewayBug::LockLossUnnoticed, &["T07"]),
    server("uncertain-intent-ignored", ServerBug::UncertainIntentIgnored, &["H05"]),
    server("resolved-counts-as-new", ServerBug::ResolvedCountsAsNew, &["H07"]),
    server("floor-forgotten", ServerBug::FloorForgotten, &["H10"]),
    server("bound-ignored", ServerBug::BoundIgnored, &["H10"]),
    store("restart-forgets-reads", StoreBug::RestartForgetsReads, &["H10"]),
    server("split-forgets-reads", ServerBug::SplitForgetsReads, &["H11"]),
    raft("birth-floor-of-others", RaftBug::BirthFloorOfOthers, &["H11"]),
    server("eviction-forgets", ServerBug::EvictionForgets, &["H12"]),
    world("fence-ignored", WorldBug::FenceIgnored, &["H13"])
        .behind("whoever gets a message from beyond the cap refuses it: the leases of a clock that is wrong run out without the fence, too"),
    clock("steps-followed", ClockBug::StepsFollowed, &["H13"]),
    clock("counter-wraps", ClockBug::CarryLost, &["H15"]),
    world("lease-on-wall-clock", WorldBug::LeaseOnWallClock, &["H14"]),
    store("promise-from-receipt", StoreBug::PromiseFromReceipt, &["H14"]),
    world("lost-reply-counts-as-unsent", WorldBug::LostReplyCountsAsUnsent, &["T01", "T04"]),
    server("abort-not-recorded", ServerBug::AbortNotRecorded, &["T03"]),
    server("scan-protects-rows-only", ServerBug::ScanProtectsRowsOnly, &["T06"]),
    server("refresh-forgotten", ServerBug::RefreshForgotten, &["T08"]),
    server("aborted-reads-on", ServerBug::AbortedReadsOn, &["T09"])
        .behind("a transaction whose record is aborted never commits: what it read without its intents goes nowhere"),
    server("reads-pass-writes-in-flight", ServerBug::ReadsPassWritesInFlight, &["T10"]),
    gateway("unlock-resolves", GatewayBug::UnlockResolves, &["T10"]),
    server("push-forgotten", ServerBug::PushForgotten, &["T11"]),
    server("deadlock-unseen", ServerBug::DeadlockUnseen, &["T12"]),
    gateway("skipped-not-asked", GatewayBug::SkippedNotAsked, &["T12"]).with(Kind::Queue),
    server("fast-path-skips-cache", ServerBug::FastPathSkipsCache, &["T13"]),
    server("late-write-commits", ServerBug::LateWriteCommits, &["T14"]).on(Aim::Raid(Raid::Echoes)),
    server("lost-commit-not-prevented", ServerBug::LostCommitNotPrevented, &["T01", "T04"]),
    server("missing-not-prevented", ServerBug::MissingNotPrevented, &["T14"]),
    server("outdated-attempt-believed", ServerBug::OutdatedAttemptBelieved, &["T02"]),
    server("stage-goes-back", ServerBug::StageGoesBack, &["T02"]),
    server("staged-counts-as-pending", ServerBug::StagedCountsAsPending, &["T02", "T14"]),
    server("staged-not-uncertain", ServerBug::StagedNotUncertain, &["H05"]).on(Aim::Raid(Raid::Clocks)),
    sql("fence-skipped", SqlBug::FenceSkipped, &["Q01", "Q05"]),
    sql("duplicates-indexed", SqlBug::DuplicatesIndexed, &["Q03"]),
    sql("page-end-missed", SqlBug::PageEndMissed, &["Q08"]),
    sql("entries-dated-later", SqlBug::EntriesDatedLater, &["Q02"]),
    sql("failed-index-stays", SqlBug::FailedIndexStays, &["Q04"]),
    sql("default-for-new-rows-only", SqlBug::DefaultForNewRowsOnly, &["Q06"]),
    sql("catalog-from-memory", SqlBug::CatalogFromMemory, &["Q07"]),
    sql("schema-not-named", SqlBug::SchemaNotNamed, &["Q09"]),
    sql("index-read-before", SqlBug::IndexReadBefore, &["Q09"]),
    sql("schemas-mixed", SqlBug::SchemasMixed, &["Q09", "Q01"]),
    sql("parent-not-told", SqlBug::ParentNotTold, &["Q10", "Q05"]),
    sql("parents-read-apart", SqlBug::ParentsReadApart, &["Q10"]),
    sql("table-numbers-reused", SqlBug::TableNumbersReused, &["Q12"]),
    sql("rerun-though-seen", SqlBug::RerunThoughSeen, &["T05"]),
    sql("sequence-blocks-overlap", SqlBug::SequenceBlocksOverlap, &["T15"]),
    sql("writes-dated-by-clock", SqlBug::WritesDatedByClock, &["A01"]),
    sql("ties-kept-locally", SqlBug::TiesKeptLocally, &["A02"]),
    sql("tombstones-forgotten", SqlBug::TombstonesForgotten, &["A03", "A04"]),
    sql("counts-added", SqlBug::CountsAdded, &["A05"]),
    sql("cells-mixed", SqlBug::CellsMixed, &["A06"]),
    sql("later-arrival-wins", SqlBug::LaterArrivalWins, &["A08"]),
    sql("stream-unordered", SqlBug::StreamUnordered, &["A09"]),
    sql("modes-commit-apart", SqlBug::ModesCommitApart, &["A10"]),
    sql("unique-on-available", SqlBug::UniqueOnAvailable, &["A12"]),
    store("restarted-votes-late", StoreBug::RestartedVotesLate, &["C01", "C03"]),
    store("draining-shrinks", StoreBug::DrainingShrinks, &["C07"]),
    world("idle-clients", WorldBug::IdleClients, &["C08"]),
];

impl Planted {
    /// Its entry among all.
    pub fn mutant(self) -> &'static Mutant {
        let found = MUTANTS.iter().find(|mutant| mutant.planted == self);
        found.expect("every planted bug has a name (tested)")
    }
}

impl fmt::Display for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mutant().name)
    }
}

impl FromStr for Planted {
    type Err = String;

    fn from_str(text: &str) -> Result<Planted, String> {
        let found = MUTANTS.iter().find(|mutant| mutant.name == text);
        let names = || MUTANTS.iter().map(|mutant| mutant.name).collect::<Vec<_>>().join(", ");
        found
            .map(|mutant| mutant.planted)
            .ok_or_else(|| format!("there is no planted bug \"{text}\"; there are {}", names()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::killers::KILLERS;

    #[test]
    fn every_bug_of_the_range_server_has_a_name_and_names_are_unique() {
        for bug in ServerBug::ALL {
            assert_eq!(Planted::Server(bug).mutant().planted, Planted::Server(bug));
        }
        for mutant in MUTANTS {
            assert_eq!(mutant.name.parse(), Ok(mutant.planted));
            assert_eq!(mutant.planted.to_string(), mutant.name);
        }
    }

    #[test]
    fn every_mutant_brings_back_a_known_killer() {
        for mutant in MUTANTS {
            assert!(!mutant.killers.is_empty(), "{}", mutant.name);
            for killer in mutant.killers {
                assert!(KILLERS.iter().any(|known| known.id == *killer), "{killer}");
            }
        }
    }
}
