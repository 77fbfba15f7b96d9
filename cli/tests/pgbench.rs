//! pgbench, unmodified: its initialisation, its three scripts, its three query modes; and its totals.

use crate::harness::{Cluster, alone, load_seconds, text_of};
use std::process::{Command, Stdio};

fn pgbench(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = Command::new("pgbench")
        .args(["-h", "127.0.0.1", "-U", "root", "-p", &cluster.ports[0].sql.to_string()])
        .args(arguments)
        .arg("meridian")
        .stdin(Stdio::null())
        .output()
        .expect("pgbench is installed (scripts/setup.sh)");
    text_of(output).unwrap_or_else(|why| panic!("pgbench {arguments:?}: {why}"))
}

/// Runs one of its scripts; no transaction may fail.
fn run(cluster: &Cluster, script: &[&str], mode: &str, seconds: u64) {
    let seconds = seconds.to_string();
    let arguments = [script, &["-n", "-c", "8", "-j", "2", "-T", &seconds, "-M", mode]].concat();
    let report = pgbench(cluster, &arguments);
    assert!(report.contains("number of failed transactions: 0 (0.000%)"), "{report}");
    let processed = report
        .lines()
        .find_map(|line| line.strip_prefix("number of transactions actually processed: "));
    let processed: u64 = processed.and_then(|count| count.parse().ok()).unwrap_or(0);
    assert!(processed > 8, "nothing happened: {report}");
    let tps = report.lines().find(|line| line.starts_with("tps")).unwrap_or("no tps");
    println!("pgbench {script:?} -M {mode}: {processed} transactions, none failed, {tps}");
}

fn totals(cluster: &Cluster) -> Vec<i64> {
    let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), \
         (SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)";
    let text = cluster.sql(2, sums).unwrap();
    text.split('|').map(|sum| sum.parse().unwrap()).collect()
}

#[test]
fn pgbench_runs_unmodified_and_its_totals_agree() {
    let _alone = alone();
    let cluster = Cluster::start("");
    pgbench(&cluster, &["-i", "-s", "1", "-q"]);
    assert_eq!(cluster.sql(1, "SELECT count(*) FROM pgbench_accounts").unwrap(), "100000");
    run(&cluster, &["-b", "tpcb-like"], "prepared", load_seconds());
    let after_tpcb = totals(&cluster);
    assert!(after_tpcb.iter().all(|sum| *sum == after_tpcb[0]), "{after_tpcb:?}");
    run(&cluster, &["-S"], "prepared", load_seconds());
    run(&cluster, &["-N"], "prepared", load_seconds());
    let after_updates = totals(&cluster);
    assert_eq!(after_updates[0], after_updates[3], "accounts and history: {after_updates:?}");
    assert_eq!(after_updates[1..3], after_tpcb[1..3], "-N leaves tellers and branches alone");
    for mode in ["simple", "extended"] {
        run(&cluster, &["-b", "tpcb-like"], mode, 2);
        run(&cluster, &["-S"], mode, 1);
    }
    let end = totals(&cluster);
    assert_eq!(end[0], end[3], "accounts and history: {end:?}");
    assert_eq!(end[1], end[2], "tellers and branches: {end:?}");
}
