//! Fault scripts as their users run them: against a cluster with data of somebody else's, until somebody has seen enough, with mistakes.

use crate::harness::{
    Cluster, MERIDIAN, alone, meridian_within, send_signal, wait_for_exit, wait_until,
};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A script that a user ends has cleaned up by then.
const ENDED_WITHIN: Duration = Duration::from_secs(60);

/// The SQL URL of all nodes.
fn url(cluster: &Cluster) -> String {
    let hosts = cluster.ports.iter().map(|ports| format!("127.0.0.1:{}", ports.sql));
    format!("postgresql://root@{}/meridian", hosts.collect::<Vec<_>>().join(","))
}

/// `meridian chaos run ..` in the background. Killed when dropped.
struct Script {
    child: Child,
    out: PathBuf,
}

impl Script {
    fn start(dir: &Path, text: &str, arguments: &[&str]) -> Script {
        fs::write(dir.join("run.chaos"), text).unwrap();
        let out = dir.join("said.txt");
        let said = File::create(&out).unwrap();
        let child = Command::new(MERIDIAN)
            .args(["chaos", "run", "run.chaos"])
            .args(arguments)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stderr(said.try_clone().unwrap())
            .stdout(said)
            .spawn()
            .unwrap();
        Script { child, out }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.out).unwrap()
    }

    fn wait_for(&self, text: &str) {
        let seen = wait_until(Duration::from_secs(120), || self.said().contains(text));
        assert!(seen.is_some(), "it never said `{text}`: {}", self.said());
    }

    /// Sends a signal; the exit code.
    fn end(&mut self, signal: &str) -> Option<i32> {
        send_signal(&self.child, signal);
        wait_for_exit(&mut self.child, ENDED_WITHIN).and_then(|status| status.code())
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_script_on_a_running_cluster_touches_no_table_of_its_users_and_leaves_nothing_behind() {
    let _alone = alone();
    let cluster = Cluster::start("");
    let dir = cluster.dir.path();
    let sql = |statement: &str| cluster.sql(0, statement).unwrap();
    // The workloads' tables and the probe have the same names.
    let tables = ["kv", "bank_accounts", "bank_ledger", "append_0", "load_counters", "chaos_probe"];
    for table in tables {
        sql(&format!("CREATE TABLE {table} (mine text PRIMARY KEY)"));
        sql(&format!("INSERT INTO {table} VALUES ('precious')"));
    }
    let check = || {
        for table in tables {
            assert_eq!(sql(&format!("SELECT mine FROM {table}")), "precious", "{table}");
        }
        let databases = sql("SHOW DATABASES");
        assert!(!databases.contains("chaos"), "{databases}");
        assert_eq!(sql("SHOW CHAOS"), "");
    };
    let text = "nodes 3\nworkload bank, register, append, counter\n\
         at 1s cut eu-west from us-east, ap-south\n\
         at 2s when unavailable eu-west within 8s then heal\n\
         at 4s available us-east, eu-west, ap-south within 10s\n\
         at 5s invariant\nat 5s converged within 20s\nend 6s\n";
    fs::write(dir.join("all.chaos"), text).unwrap();
    let run = || {
        let arguments = ["chaos", "run", "all.chaos", "--world", &url(&cluster)];
        meridian_within(Duration::from_secs(120), &arguments, dir)
    };
    let (code, said) = run();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("all held"), "{said}");
    assert_eq!(said.matches("invariant holds").count(), 4, "{said}");
    check();

    let url = url(&cluster);
    let endless = "nodes 3\nworkload bank\nat 1s cut eu-west from us-east, ap-south\nend 300s\n";
    let mut script = Script::start(dir, endless, &["--world", &url]);
    script.wait_for("cut eu-west from us-east, ap-south");
    let in_force = wait_until(Duration::from_secs(10), || !sql("SHOW CHAOS").is_empty());
    assert!(in_force.is_some(), "{}", script.said());
    assert_eq!(script.end("TERM"), Some(143), "{}", script.said());
    let said = script.said();
    assert!(said.contains("served, by second") && said.contains("invariant holds"), "{said}");
    check();

    // A database of that name may be somebody's.
    sql("CREATE DATABASE meridian_chaos");
    let (code, said) = run();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("database meridian_chaos is there already"), "{said}");
    assert!(sql("SHOW DATABASES").contains("meridian_chaos"), "it is not ours to drop");
}

/// Processes whose command line names this directory.
fn processes_in(dir: &Path) -> Vec<String> {
    let name = dir.to_string_lossy().into_owned();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(" start ") && line.contains(&name)).collect()
}

#[test]
fn who_interrupts_a_script_leaves_no_process_behind_nor_one_that_stands_still() {
    let _alone = alone();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("nodes");
        let text = "nodes 3\nworkload bank\nat 1s pause n2\nat 290s resume n2\nend 300s\n";
        let arguments = ["--world", "processes", "--data", data.to_str().unwrap()];
        let mut script = Script::start(dir.path(), text, &arguments);
        script.wait_for("pause n2");
        assert_eq!(processes_in(&data).len(), 3, "{}", script.said());
        assert_eq!(script.end(signal), Some(code), "{signal}: {}", script.said());
        let said = script.said();
        assert!(said.contains("served, by second") && said.contains("invariant holds"), "{said}");
        assert!(said.contains(&format!("ended by SIG{signal}")), "{said}");
        let gone = wait_until(Duration::from_secs(5), || processes_in(&data).is_empty());
        assert!(gone.is_some(), "{:?}\n{said}", processes_in(&data));
    }
    // Also before anything was played.
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("nodes");
    let arguments = ["--world", "processes", "--data", data.to_str().unwrap()];
    let mut script = Script::start(dir.path(), "nodes 3\nend 300s\n", &arguments);
    script.wait_for("starting 3 nodes");
    assert_eq!(script.end("INT"), Some(130), "{}", script.said());
    let gone = wait_until(Duration::from_secs(5), || processes_in(&data).is_empty());
    assert!(gone.is_some(), "{:?}\n{}", processes_in(&data), script.said());
}

#[test]
fn a_script_in_the_simulated_world_tells_each_line_when_it_is_done_and_can_be_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    // An hour of load takes minutes here.
    let text =
        "nodes 3\nworkload bank\nat 1s restart n1\nat 3s every 1s 3500 times heal\nend 3600s\n";
    let mut script = Script::start(dir.path(), text, &[]);
    script.wait_for("restart n1");
    let code = script.end("INT");
    let said = script.said();
    assert_eq!(code, Some(130), "{said}");
    assert!(!said.contains("all held"), "{said}");
    assert!(said.contains("served, by second") && said.contains("ended by SIGINT"), "{said}");
}

#[test]
fn a_script_that_a_world_cannot_play_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |text: &str, why: &str| {
        fs::write(dir.path().join("no.chaos"), text).unwrap();
        let arguments = ["chaos", "run", "no.chaos", "--world", "processes"];
        let (code, said) = meridian_within(Duration::from_secs(20), &arguments, dir.path());
        assert_eq!(code, Some(1), "{text}: {said}");
        assert!(said.contains(why), "{text}: {said}");
        assert!(!said.contains("starting"), "{text}: {said}");
    };
    refused(
        "nodes 3\nworkload shop or txn\nend 3s\n",
        "line 2, column 10: workload shop runs in the simulated world only",
    );
    refused(
        "nodes 3\nworkload bank, sql-bank\nend 3s\n",
        "line 2, column 10: bank and sql-bank are one workload here",
    );
    refused(
        "nodes 3\nworkload counter\nat 1s invariant\nend 3s\n",
        "line 3, column 7: `invariant`: no workload here can be judged before the end",
    );
    refused(
        "nodes 3\nworkload register\nat 1s clock n1 300ms\nat 2s invariant\nend 3s\n",
        "line 4, column 7: `invariant`: no workload here can be judged before the end",
    );
    refused("nodes 3\nat 1s cut n1 from n1\nend 3s\n", "line 2, column 19: n1 is on both sides");
}
