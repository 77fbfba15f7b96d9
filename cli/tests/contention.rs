//! `meridian workload contention`: what it promises holds on three real processes, with a short run.

use crate::harness::{Cluster, alone, load_seconds};

#[test]
fn a_contended_row_starves_nobody_and_the_bank_keeps_its_throughput() {
    let _alone = alone();
    let cluster = Cluster::start("");
    let seconds = load_seconds().min(5).to_string();
    let arguments =
        ["contention", "--clients", "16", "--bank-clients", "8", "--duration", &seconds];
    let said = cluster.workload(&arguments).finish().unwrap_or_else(|why| panic!("{why}"));
    println!("{said}");
    assert_eq!(said.matches("  holds").count(), 3, "{said}");
}
