//! Seeds: a fixed corpus, the same seed twice, and a mistake made on purpose.

use chaos::episode::{Options, run};
use chaos::sim::{PlantedBug, SimOptions};
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
    let report = chaos::sim::run(options(1, 50, None));
    assert!(report.is_good(), "{report}");
    for fault in [
        "links cut",
        "power losses",
        "crashes between two outputs",
        "messages duplicated",
        "clock steps",
    ] {
        assert!(report.tally.of(fault) > 0, "no {fault} in {report}");
    }
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
    ];
    for (seed, workload) in hard {
        let report = chaos::sim::run(options(seed, 1, Some(workload)));
        assert!(report.is_good(), "{report}");
    }
}

#[test]
fn acknowledging_before_the_sync_is_found() {
    let planted = Some(PlantedBug::AckBeforeSync);
    let report = chaos::sim::run(SimOptions { planted, ..options(1, 6, None) });
    assert!(!report.is_good(), "the planted mistake was not noticed: {report}");
    let replay = &report.failures[0].replay;
    assert!(replay.contains("--planted ack-before-sync"), "{replay}");
}
