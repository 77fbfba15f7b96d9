//! Value: the known killers of systems like this one: what has really broken databases. `docs/killers.md` is made of them, and
//! of what [`crate::mutants`] finds.

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Killer {
    /// Its number.
    pub id: &'static str,
    /// Which part of a system it kills.
    pub section: &'static str,
    /// What happens.
    pub what: &'static str,
    /// Why nothing is planted for it, if nothing is.
    pub note: &'static str,
}

const fn killer(
    id: &'static str,
    section: &'static str,
    what: &'static str,
    note: &'static str,
) -> Killer {
    Killer { id, section, what, note }
}

/// All of them, by section.
pub const KILLERS: &[Killer] = &[
    killer(
        "R01",
        "RAFT",
        "vote or term not durable before the reply => two leaders in a term after crash",
        "no planted bug",
    ),
    killer(
        "R02",
        "RAFT",
        "append acked before fsync => leader counts a copy that vanishes; follower then 'tocommit out of range'",
        "no planted bug",
    ),
    killer(
        "R03",
        "RAFT",
        "fsync returns an error once, later fsync OK => hole in WAL, acked entries unreadable",
        "no planted bug",
    ),
    killer(
        "R04",
        "RAFT",
        "applied index not in the same atomic batch as its effects => re-apply or skip after crash",
        "no planted bug",
    ),
    killer(
        "R05",
        "RAFT",
        "single-replica group acks before its own log is durable",
        "no planted bug",
    ),
    killer(
        "R06",
        "RAFT",
        "new leader starts a membership change before committing an entry of its own term => disjoint quorums (Ongaro 2015)",
        "no planted bug",
    ),
    killer(
        "R07",
        "RAFT",
        "config taken at apply time: lagging appliers elect a second leader with the old config",
        "no planted bug",
    ),
    killer(
        "R08",
        "RAFT",
        "shrinking 2->1 or removing the leader strands the group ; config change + minority failure deadlock",
        "every change is joint; placement hands leadership over before it removes a leader, and never goes below its goal (replication's placement tests); a leader that is removed all the same leads until that is committed (mark LeaderLeftItsRange). No one switch brings it back",
    ),
    killer(
        "R09",
        "RAFT",
        "committing an old-term entry by counting replicas (Raft fig. 8)",
        "no planted bug",
    ),
    killer(
        "R10",
        "RAFT",
        "lease read on a leader that was paused, GC-stalled or has a slow clock => stale read",
        "no planted bug",
    ),
    killer(
        "R11",
        "RAFT",
        "lease still served after the range was merged/moved: check must precede sending the commit, not follow persisting",
        "ranges do not merge yet",
    ),
    killer(
        "R12",
        "RAFT",
        "ReadIndex answered by a new leader before its no-op commits; follower read on un-applied index",
        "no planted bug",
    ),
    killer(
        "R13",
        "RAFT",
        "wide snapshot overwrites a newer range that was merged then split off ; two snapshots in short order",
        "no planted bug",
    ),
    killer(
        "R14",
        "RAFT",
        "uninitialised replica's HardState clobbers (or is clobbered by) the split's right side",
        "an uninitialised replica keeps no hard state of its own range; no planted bug",
    ),
    killer(
        "R15",
        "RAFT",
        "removed replica comes back as a zombie with the same id, votes or serves; replica id must never go back",
        "no planted bug",
    ),
    killer(
        "R16",
        "RAFT",
        "async log write: old-term append completion acknowledged as new (ABA)",
        "no planted bug",
    ),
    killer(
        "R17",
        "RAFT",
        "PreVote/CheckQuorum interplay: deposed or partially partitioned nodes block elections or keep bumping terms",
        "tested by replication/tests/raft; no planted bug",
    ),
    killer(
        "R18",
        "RAFT",
        "a proposal re-proposed after an uncertain drop is applied twice",
        "no planted bug",
    ),
    killer(
        "R19",
        "RAFT",
        "command proposed under an old lease is applied after the lease moved",
        "by construction: an entry's term is its lease, no entry is ever moved to another term, and a command that was dropped is evaluated anew. No switch short of another protocol brings it back",
    ),
    killer(
        "R20",
        "RAFT",
        "non-deterministic apply (HashMap order, local clock, rand, float, mixed version) => silent divergence",
        "no planted bug",
    ),
    killer(
        "R21",
        "RAFT",
        "node returns with an EMPTY or OLDER disk under the same node id => forgotten votes/entries",
        "no planted bug",
    ),
    killer(
        "R22",
        "RAFT",
        "snapshot install not atomic with log truncation and metadata; crash in the middle",
        "no planted bug",
    ),
    killer(
        "R23",
        "RAFT",
        "log compaction beyond a follower in need + lost snapshot message => follower stuck for ever (liveness)",
        "small logs and small snapshot chunks are drawn per seed; no planted bug",
    ),
    killer(
        "S01",
        "STORAGE / RocksDB",
        "WAL off, or manual/lazy flush, or ack before sync . Default must be safe",
        "no planted bug",
    ),
    killer(
        "S02",
        "STORAGE / RocksDB",
        "wrong WAL recovery mode: PointInTime may drop acked tail after mid-log damage, TolerateCorruptedTail hides it; gaps when truncated on record boundary; only-last-WAL assumption",
        "the log has one recovery mode; storage/tests/log_crash cuts it at every byte; no planted bug",
    ),
    killer(
        "S03",
        "STORAGE / RocksDB",
        "raft log and state in different DBs/CFs without an order rule (state ahead of log)",
        "no planted bug",
    ),
    killer(
        "S04",
        "STORAGE / RocksDB",
        "disk full: must stop acking, must not corrupt, must recover when freed",
        "full disks are a fault of every run; no planted bug",
    ),
    killer(
        "S05",
        "STORAGE / RocksDB",
        "disk stall (gray): leader keeps lease by heartbeats while its disk is frozen",
        "no planted bug",
    ),
    killer(
        "S06",
        "STORAGE / RocksDB",
        "bit rot / misdirected read: corrupt bytes served or replicated; checksum error handled as 'key absent'",
        "the simulator does not rot bits yet; no planted bug",
    ),
    killer(
        "S07",
        "STORAGE / RocksDB",
        "SST ingest / checkpoint / directory rename without dir fsync",
        "no SST ingest, no checkpoints",
    ),
    killer(
        "S08",
        "STORAGE / RocksDB",
        "MVCC GC or compaction filter removes versions still needed by an open txn, backup or follower read; read below GC threshold returns partial instead of error",
        "no planted bug",
    ),
    killer(
        "S09",
        "STORAGE / RocksDB",
        "restore or clone from an old snapshot: timestamps, votes, id allocators go back",
        "no backup yet",
    ),
    killer(
        "H01",
        "HLC / TIME",
        "clock goes back across restart => commit ts below already served reads",
        "no planted bug",
    ),
    killer("H02", "HLC / TIME", "one node jumps far ahead and poisons every HLC", "no planted bug"),
    killer(
        "H03",
        "HLC / TIME",
        "HLC update not wired on some message path (responses, Raft, gossip, driver token)",
        "no planted bug",
    ),
    killer(
        "H04",
        "HLC / TIME",
        "causal reverse: T1 before T2 in real time, reader sees T2 only . Ours: possible under SERIALIZABLE (documented), impossible under STRICT SERIALIZABLE (tested)",
        "no planted bug",
    ),
    killer(
        "H05",
        "HLC / TIME",
        "uncertainty window shrunk by an 'observed timestamp' from before the node got the lease => stale read",
        "no planted bug",
    ),
    killer("H06", "HLC / TIME", "same through range merge", "ranges do not merge yet"),
    killer(
        "H07",
        "HLC / TIME",
        "intent resolved asynchronously to a later ts without its original local ts => stale read under skew",
        "no planted bug",
    ),
    killer(
        "H08",
        "HLC / TIME",
        "write below the closed ts: lease start taken as closed ts + merge race => follower read misses a write",
        "no closed timestamps yet",
    ),
    killer(
        "H09",
        "HLC / TIME",
        "closed ts or its lease index regresses at lease transfer/reproposal",
        "no closed timestamps yet",
    ),
    killer(
        "H10",
        "HLC / TIME",
        "lease transfer/expiry loses the read timestamp cache; reads above the old lease end are forgotten",
        "no planted bug",
    ),
    killer("H11", "HLC / TIME", "split or merge loses timestamp-cache spans", "no planted bug"),
    killer(
        "H12",
        "HLC / TIME",
        "timestamp cache eviction without raising the low-water mark",
        "no planted bug",
    ),
    killer("H13", "HLC / TIME", "skew beyond max_offset unnoticed", "no planted bug"),
    killer(
        "H14",
        "HLC / TIME",
        "lease interval counted from receive time or wall clock; suspend/VM pause not counted by CLOCK_MONOTONIC",
        "no planted bug",
    ),
    killer(
        "H15",
        "HLC / TIME",
        "logical counter overflow, negative duration panic, leap second, u64 subtract wrap",
        "readings are one integer (clock/src/hlc.rs), tested in clock/tests",
    ),
    killer(
        "H16",
        "HLC / TIME",
        "follower reads order visibility differently from the leader => long fork",
        "no follower reads yet",
    ),
    killer(
        "H17",
        "HLC / TIME",
        "driver failover to another gateway loses read-your-writes (no causality token)",
        "no causality token yet",
    ),
    killer(
        "T01",
        "TRANSACTIONS",
        "lost reply on a write that rides with the commit is retried with a bumped ts; txn was already implicitly committed => 'failed' yet committed",
        "no planted bug",
    ),
    killer(
        "T02",
        "TRANSACTIONS",
        "re-staging or recovery looks at an outdated staging attempt",
        "no planted bug",
    ),
    killer(
        "T03",
        "TRANSACTIONS",
        "txn record GCed, then recovery decides 'aborted' for a committed txn",
        "no planted bug",
    ),
    killer(
        "T04",
        "TRANSACTIONS",
        "ambiguous COMMIT reported as plain failure; driver or user retries => double effect",
        "no planted bug",
    ),
    killer(
        "T05",
        "TRANSACTIONS",
        "server auto-retry after rows were sent, or of non-idempotent statement; re-applying writes from stale reads",
        "no planted bug",
    ),
    killer(
        "T06",
        "TRANSACTIONS",
        "phantom: predicate/limit/reverse/index-only scan does not protect its whole examined span",
        "no planted bug",
    ),
    killer(
        "T07",
        "TRANSACTIONS",
        "SELECT FOR UPDATE does not lock absent keys / lost on lease move (unreplicated locks)",
        "no planted bug",
    ),
    killer(
        "T08",
        "TRANSACTIONS",
        "read refresh misses a span (resume key, limit, savepoint rollback)",
        "no planted bug",
    ),
    killer(
        "T09",
        "TRANSACTIONS",
        "aborted txn reads without its own intents (missing abort marker) and acts on it",
        "no planted bug",
    ),
    killer(
        "T10",
        "TRANSACTIONS",
        "dirty/intermediate read through intent resolution or read-your-own-write at wrong sequence after savepoint rollback",
        "no planted bug",
    ),
    killer(
        "T11",
        "TRANSACTIONS",
        "multi-range read-only txn not at one timestamp => read skew/fractured read",
        "no planted bug",
    ),
    killer(
        "T12",
        "TRANSACTIONS",
        "distributed deadlock undetected; starvation by priority; pusher waits on dead coordinator for ever",
        "deadlocks happen in the bank workload; no planted bug",
    ),
    killer(
        "T13",
        "TRANSACTIONS",
        "1-phase/fast path skips ts-cache, uncertainty or constraint checks",
        "no planted bug",
    ),
    killer(
        "T14",
        "TRANSACTIONS",
        "coordinator dies after ack to client before intents resolve: every later reader must reach the same verdict",
        "no planted bug",
    ),
    killer(
        "T15",
        "TRANSACTIONS",
        "sequences/SERIAL/unique id blocks re-issued after failover or clock step",
        "see the planted bug",
    ),
    killer(
        "Q01",
        "SQL / SCHEMA",
        "backfill reads at a ts below a write made by a node with the older schema => row missing in index",
        "no planted bug",
    ),
    killer(
        "Q02",
        "SQL / SCHEMA",
        "backfilled entries stamped 'now' mask newer deletes",
        "no planted bug",
    ),
    killer(
        "Q03",
        "SQL / SCHEMA",
        "CREATE UNIQUE INDEX and a concurrent duplicate both succeed; or false duplicate",
        "no planted bug",
    ),
    killer(
        "Q04",
        "SQL / SCHEMA",
        "failed/rolled back DDL leaves rows, versions or half indexes visible",
        "no planted bug",
    ),
    killer(
        "Q05",
        "SQL / SCHEMA",
        "two nodes more than one schema version apart; descriptor lease judged by skewed clocks",
        "no planted bug",
    ),
    killer(
        "Q06",
        "SQL / SCHEMA",
        "ADD COLUMN DEFAULT/NOT NULL visible in mixed form ; CREATE TABLE not visible on other node yet, or race",
        "no planted bug",
    ),
    killer(
        "Q07",
        "SQL / SCHEMA",
        "DDL inside a txn not atomic, or concurrent DDL lost",
        "no planted bug",
    ),
    killer(
        "Q08",
        "SQL / SCHEMA",
        "index answers differ from table (negative numbers, page ends, NULLs, multi-predicate intersection)",
        "no planted bug",
    ),
    killer(
        "Q09",
        "SQL / SCHEMA",
        "stale prepared plan / cached descriptor after DDL writes with the wrong shape",
        "no planted bug",
    ),
    killer(
        "Q10",
        "SQL / SCHEMA",
        "FK/unique/check verified at a weaker level than the txn, or across a CP and an AP table",
        "no planted bug",
    ),
    killer(
        "Q11",
        "SQL / SCHEMA",
        "optimizer rewrites wrong under NULL/collation/overflow",
        "a plan is not a matter of faults: sql/tests/plans.rs asks the same with and without indexes, and divides rows by each predicate into true, false and NULL",
    ),
    killer(
        "Q12",
        "SQL / SCHEMA",
        "drop+create same name resurrects old data or grants (id reuse)",
        "no planted bug",
    ),
    killer(
        "A01",
        "AP TABLES",
        "LWW by skewed wall clock: acked later write silently loses; future-dated write cannot be overwritten or deleted",
        "no planted bug",
    ),
    killer(
        "A02",
        "AP TABLES",
        "equal timestamps resolved differently on replicas => permanent divergence",
        "a region's dots go up within a row, so that two writes never have one dot (sql/src/copies/state.rs); no planted bug",
    ),
    killer(
        "A03",
        "AP TABLES",
        "tombstone GCed before every replica saw it => resurrection, even with QUORUM",
        "tombstones are never collected yet",
    ),
    killer(
        "A04",
        "AP TABLES",
        "hints/late anti-entropy replay after tombstone GC",
        "tombstones are never collected yet",
    ),
    killer(
        "A05",
        "AP TABLES",
        "counter increment retried => double count; PN-counter slot reused after node replace",
        "an increment whose answer was lost is T04; slots are merged by their maximum (sql/src/copies tests); no planted bug",
    ),
    killer(
        "A06",
        "AP TABLES",
        "cells of one row mixed from two writes; multi-row statement half visible",
        "no planted bug",
    ),
    killer(
        "A07",
        "AP TABLES",
        "topology change: stale ring sends writes to ex-owners",
        "there is no ring: the copies of an available table are ordinary ranges, whose members change by joint consensus (R06 to R08)",
    ),
    killer("A08", "AP TABLES", "merge not commutative/associative/idempotent", "no planted bug"),
    killer("A09", "AP TABLES", "session guarantee lost on replica switch", "no planted bug"),
    killer(
        "A10",
        "AP TABLES",
        "AP read sees CP intents or uncommitted rows; mixed CP+AP txn half applied",
        "no planted bug",
    ),
    killer(
        "A11",
        "AP TABLES",
        "ALTER between modes loses or forks writes",
        "a table keeps the consistency that it was created with: to change it is refused",
    ),
    killer(
        "A12",
        "AP TABLES",
        "unique constraint on an AP table accepted though it cannot hold: refuse at DDL time",
        "no planted bug",
    ),
    killer(
        "C01",
        "CLUSTER / LIVENESS",
        "election or meta-range race takes the whole cluster down for good",
        "no planted bug",
    ),
    killer(
        "C02",
        "CLUSTER / LIVENESS",
        "memory grows during partitions until OOM",
        "queues and buffers have limits (docs/limits.md, node/tests); the loads of a simulated world are too small to reach them",
    ),
    killer(
        "C03",
        "CLUSTER / LIVENESS",
        "all nodes restarted at once, or in odd order, do not come back",
        "no planted bug",
    ),
    killer(
        "C04",
        "CLUSTER / LIVENESS",
        "retry storm/metastable failure after heal",
        "what is tried again is tried after pauses that double up to a limit; the loads of a simulated world are too small for a storm",
    ),
    killer(
        "C05",
        "CLUSTER / LIVENESS",
        "partial (bridge, one-way) partition: lease flaps for ever, A hears B but not vice versa",
        "no planted bug",
    ),
    killer(
        "C06",
        "CLUSTER / LIVENESS",
        "mixed-version rolling upgrade/downgrade diverges",
        "there is one version so far",
    ),
    killer(
        "C07",
        "CLUSTER / LIVENESS",
        "decommission/drain loses the last good replica, or zone survivability placement not met when a region dies",
        "no planted bug",
    ),
    killer(
        "C08",
        "CLUSTER / LIVENESS",
        "test passes because nothing ran (no ops, no faults hit)",
        "no planted bug",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_sections_together() {
        for (place, killer) in KILLERS.iter().enumerate() {
            assert!(KILLERS[..place].iter().all(|other| other.id != killer.id), "{}", killer.id);
        }
        let mut sections: Vec<&str> = KILLERS.iter().map(|killer| killer.section).collect();
        sections.dedup();
        let count = sections.len();
        sections.sort_unstable();
        sections.dedup();
        assert_eq!(sections.len(), count);
    }
}
