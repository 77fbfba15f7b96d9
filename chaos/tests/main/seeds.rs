//! Seeds: a fixed corpus, the same seed twice, and a mistake made on purpose.

use chaos::episode::{Options, plan_of, run};
use chaos::mutants::{HuntOptions, hunt};
use chaos::planted::{Planted, WorldBug};
use chaos::shrink::shrink;
use chaos::sim::{SimOptions, run_one};
use chaos::workload::Kind;

fn options(first_seed: u64, seeds: u64, workload: Option<Kind>) -> SimOptions {
    SimOptions { seeds, first_seed, workload, planted: None, threads: 2 }
}

#[test]
fn the_same_seed_leaves_the_same_trace() {
    for workload in Kind::ALL {
        let once = run(Options { seed: 17, workload, planted: None });
        let again = run(Options { seed: 17, workload, planted: None });
        assert_eq!((once.trace, once.events), (again.trace, again.events), "{workload}");
        let other = run(Options { seed: 18, workload, planted: None });
        assert_ne!(once.trace, other.trace, "{workload}");
    }
}

#[test]
fn a_corpus_of_seeds_is_good() {
    let report = chaos::sim::run(options(1, 66, None));
    assert!(report.is_good(), "{report}");
    assert_eq!(report.tally.missed(), Vec::<&str>::new(), "{report}");
    assert_eq!(report.tally.unreached_often(), Vec::<coverage::Mark>::new(), "{report}");
    assert!(report.repeated > 0, "no seed ran twice");
}

/// What once failed, or came near to it.
#[test]
fn hard_seeds_stay_good() {
    let hard = [
        (3, Kind::Register),
        (198, Kind::Register),
        (242, Kind::Register),
        (332, Kind::Register),
        (540, Kind::Bank),
        (1028, Kind::Append),
        // A split left claims behind (txn/tests/server_scripts/a_split_leaves_no_claims_behind.txt).
        (20288, Kind::Bank),
        // Commits of one phase moved each other above their refreshes for ever.
        (22, Kind::Skew),
        // Transactions pushed themselves: more reads than the timestamp cache has cells.
        (6, Kind::Skew),
        (34, Kind::Skew),
        // Gave up its place in a queue when it asked after who is in the way; the place did not last until it came back.
        (106_877, Kind::Monotonic),
        (200_591, Kind::Bank),
        (500_690, Kind::SqlBank),
        // Commits that were given up left their places behind.
        (600_447, Kind::Append),
        // Commits that waited for a lock were taken for lost, and ended by the question.
        (404_968, Kind::Shop),
        // Readers moved the commit of the oldest one faster than it could look at what it had read.
        (704_468, Kind::SqlBank),
        // A voter was bound to a leader whose replica had been removed, and whose store lived: nobody could be elected.
        (1_005_893, Kind::Skew),
        // A replica that had been removed, and did not know, told its gateway that the range had no quorum.
        (2_015_881, Kind::Bank),
        // A gateway began transactions by a clock that a pause had left seconds behind: the last writer lost.
        (2_005_787, Kind::Cells),
        // A transaction read an index that had been made since its snapshot.
        (2_012_870, Kind::Shop),
        // A commit was refused, and a copy of it that the network had made was carried out.
        (2_006_610, Kind::Bank),
        (2_011_480, Kind::Counter),
        // An addition that was lost had left a replica with a higher number where the next leader added one.
        (3_006_868, Kind::Shop),
        // A voter waited for ever for a learner that had more of the log than it, and did not know that it counted.
        (3_007_171, Kind::Monotonic),
        // Commits that waited for a lock far away were ended before they heard for whom they waited.
        (3_002_860, Kind::Shop),
        // What was only written was dated by a clock that a pause had left behind, before commits that had been acknowledged.
        (4_006_881, Kind::Strict),
    ];
    for (seed, workload) in hard {
        let report = chaos::sim::run(options(seed, 1, Some(workload)));
        assert!(report.is_good(), "{report}");
    }
}

#[test]
fn acknowledging_before_the_sync_is_found() {
    let planted = Some(Planted::World(WorldBug::AckBeforeSync));
    let report = chaos::sim::run(SimOptions { planted, ..options(1, 6, None) });
    assert!(!report.is_good(), "the planted mistake was not noticed: {report}");
    let replay = &report.failures[0].replay;
    assert!(replay.contains("--planted ack-before-sync"), "{replay}");
}

#[test]
fn a_failing_seed_is_made_small_and_still_fails() {
    let planted = Some(Planted::World(WorldBug::AckBeforeSync));
    let report = chaos::sim::run(SimOptions { planted, ..options(1, 6, None) });
    let failure = &report.failures[0];
    let whole = Options { seed: failure.seed, workload: failure.workload, planted };
    let small = shrink(whole, 60).expect("it fails");
    let kept = small.cut.faults.as_ref().expect("some fault was superfluous").len();
    assert!(kept < plan_of(whole).len() / 2, "{small}");
    assert!(run_one(whole, &small.cut).verdict.is_err(), "{small}");
    assert!(
        shrink(Options { planted: None, ..whole }, 60).is_none(),
        "a good seed has nothing to shrink"
    );
}

/// Testing the tester, as far as a test has time for it: those that break something soon. `meridian sim --mutants` hunts all.
#[test]
fn planted_bugs_are_found() {
    for name in [
        "append-acked-before-sync",
        "flush-not-atomic",
        "apply-depends-on-node",
        "reads-pass-writes-in-flight",
        "abort-not-recorded",
        "staged-counts-as-pending",
        "commit-by-counting",
        "membership-at-apply",
        "fast-path-skips-cache",
        "push-forgotten",
        "idle-clients",
    ] {
        let only = Some(name.to_string());
        let report = hunt(&HuntOptions { seeds: 100, hunts: 1, threads: 2, only }, &|_| {});
        assert_eq!(report.quarries.len(), 1, "{name}");
        assert_eq!(report.missed(), Vec::<&str>::new(), "{report}");
    }
}
