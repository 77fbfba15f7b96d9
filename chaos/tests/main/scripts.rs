//! The shipped scenarios hold in the simulated world.

use chaos::script::{Outcome, parse, run_in_sim, run_in_sim_telling};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

#[test]
fn every_shipped_scenario_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("there are scenarios") {
        let path = entry.expect("reads").path();
        let text = std::fs::read_to_string(&path).expect("reads");
        let script = parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let report = run_in_sim(&script);
        assert!(report.is_good(), "{}\n{report}", path.display());
        count += 1;
    }
    assert!(count >= 20, "only {count} scenarios");
}

#[test]
fn a_script_that_asks_too_much_is_told_so() {
    let script = parse(
        "nodes 3\nworkload none\nat 1s cut n1 from n2, n3\nat 8s available n1 within 3s\nend 12s",
    )
    .expect("right");
    let report = run_in_sim(&script);
    assert!(!report.is_good(), "{report}");
    assert!(report.played.outcomes[1].verdict.is_err(), "{report}");
    assert_eq!(report.played.verdict, Ok(()), "{report}");
}

#[test]
fn each_line_is_told_as_soon_as_it_is_done() {
    let text = "nodes 3\nworkload bank\nat 1s restart n1\nat 4s available n1 within 8s\nat 20s heal\nend 30s";
    let script = parse(text).expect("right");
    let mut told: Vec<Outcome> = Vec::new();
    let whole = run_in_sim_telling(&script, &mut |outcome| {
        told.push(outcome.clone());
        ControlFlow::Continue(())
    });
    assert_eq!(told, whole.played.outcomes);
    assert_eq!(whole.trace, run_in_sim(&script).trace, "who listens changes nothing");
    // Who has heard enough after two lines need not wait for the rest, and the bank is judged all the same.
    let mut told: Vec<Outcome> = Vec::new();
    let broken = run_in_sim_telling(&script, &mut |outcome| {
        told.push(outcome.clone());
        if told.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(told, whole.played.outcomes[..2]);
    assert_eq!(told, broken.played.outcomes);
    assert!(broken.played.length < Duration::from_secs(20), "{broken}");
    assert!(broken.is_good(), "{broken}");
}
