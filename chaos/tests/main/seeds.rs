//! Seeds: a fixed corpus, fresh ones, the same seed twice, and a mistake made on purpose.

use chaos::episode::{Options, plan_of, run};
use chaos::hardship::Hardship;
use chaos::mutants::{HuntOptions, hunt};
use chaos::planted::{Planted, WorldBug};
use chaos::shrink::{Cut, shrink};
use chaos::sim::{SimOptions, run_one, run_one_told};
use chaos::workload::Kind;
use std::time::{Duration, Instant, SystemTime};

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
        // A savepoint's locks were given back by a message that came late, and took an intent along.
        (8_001_501, Kind::SqlBank),
        (8_001_936, Kind::SqlBank),
    ];
    // Hardships came later: with them a seed would not be what once failed.
    let cut = Cut { without: Hardship::ALL.into(), ..Cut::default() };
    for (seed, workload) in hard {
        let report = run_one(Options { seed, workload, planted: None }, &cut);
        assert!(report.verdict.is_ok(), "{report}\n--cut '{cut}'");
    }
}

/// Seeds that nobody has run before, for a minute: `MERIDIAN_TEST_SIM_SECONDS`, from `MERIDIAN_TEST_FIRST_SEED` on if that is set.
#[test]
#[allow(clippy::disallowed_methods)] // Which seeds are fresh, and for how long they are run: no seed sees it.
fn fresh_seeds_are_good() {
    let given = |name: &str| -> Option<u64> {
        std::env::var(name).ok().map(|text| text.parse().expect("a number"))
    };
    let limit = Duration::from_secs(given("MERIDIAN_TEST_SIM_SECONDS").unwrap_or(60));
    let since_epoch = SystemTime::UNIX_EPOCH.elapsed().expect("it is later than 1970");
    // Ten apart: a run of the next second goes over none of the same seeds for a while.
    let first_seed = given("MERIDIAN_TEST_FIRST_SEED").unwrap_or(since_epoch.as_secs() * 10);
    let (begun, mut seeds) = (Instant::now(), 0);
    while seeds == 0 || begun.elapsed() < limit {
        let report = chaos::sim::run(options(first_seed + seeds, FRESH_BATCH, None));
        assert!(
            report.is_good(),
            "{report}\nthe same again: MERIDIAN_TEST_FIRST_SEED={} MERIDIAN_TEST_SIM_SECONDS=0 \
             cargo test --locked -p chaos --test main fresh_seeds_are_good",
            first_seed + seeds
        );
        seeds += FRESH_BATCH;
    }
    println!("{seeds} fresh seeds from {first_seed} on are good");
}

/// Seeds between two looks at the time.
const FRESH_BATCH: u64 = 4;

#[test]
fn what_happened_is_told_in_order_and_the_same_each_time() {
    let one = Options { seed: 7, workload: Kind::Bank, planted: None };
    let (report, told) = run_one_told(one, &Cut::default());
    assert!(told.is_sorted_by_key(|told| told.at), "by true time");
    for what in ["fault: ", "is elected in r1", "holds the lease of r1", "client ", "starts"] {
        assert!(told.iter().any(|told| told.what.contains(what)), "{what}");
    }
    assert_eq!(run_one_told(one, &Cut::default()).1, told);
    assert_eq!(run_one(one, &Cut::default()).trace, report.trace, "to tell changes nothing");
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
