//! The shipped scenarios hold in the simulated world.

use chaos::script::{parse, run_in_sim};
use std::path::Path;

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
