//! `meridian demo`, as somebody who has just built it runs it.

use crate::harness::{
    MERIDIAN, alone, free_ports, psql, send_signal, text_of, wait_for_exit, wait_until,
};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A port p so that p, p + 2000 and p + 3000 are free, with the next two of each.
fn demo_port() -> u16 {
    let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    (0..100)
        .map(|_| free_ports(1)[0])
        .find(|port| {
            let all = [0, 2000, 3000].iter().flat_map(|base| (0..3).map(move |i| base + i));
            all.map(|offset| port.checked_add(offset)).all(|port| port.is_some_and(is_free))
        })
        .expect("nine free ports")
}

fn demo(data: &std::path::Path, port: u16) -> Child {
    Command::new(MERIDIAN)
        .args(["demo", "--no-shell", "--data"])
        .arg(data)
        .args(["--sql-port", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Everything up to the line that says it runs.
fn introduction(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = String::new();
    for line in lines.by_ref() {
        said += &(line.unwrap() + "\n");
        if said.contains("Ctrl-C stops the cluster.") {
            return said;
        }
    }
    panic!("the demo ended: {said}");
}

/// The row that the shell prints while its input, a pipe, stays open.
fn answered_before_the_end_of_input(url: &str, statement: &str) -> String {
    let mut shell = Command::new(MERIDIAN)
        .args(["sql", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = shell.stdin.take().unwrap();
    writeln!(input, "{statement};").unwrap();
    let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
    let row = lines.nth(2).expect("a row below its heading").unwrap();
    drop(input);
    assert!(
        wait_for_exit(&mut shell, Duration::from_secs(5)).is_some_and(|status| status.success())
    );
    row.trim().to_string()
}

#[test]
fn the_demo_tells_its_ports_serves_on_them_and_opens_its_data_again() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let port = demo_port();
    for round in 0..2 {
        let mut child = demo(dir.path(), port);
        let said = introduction(&mut child);
        for (place, region) in ["us-east", "eu-west", "ap-south"].iter().enumerate() {
            let sql = port + u16::try_from(place).unwrap();
            let line = said
                .lines()
                .find(|line| line.split_whitespace().nth(1) == Some(region))
                .unwrap_or_else(|| panic!("no line for {region}: {said}"));
            let fields: Vec<String> = line.split_whitespace().map(str::to_string).collect();
            assert_eq!(fields[0], format!("n{}", place + 1), "{said}");
            assert_eq!(fields[2..], [sql, sql + 2000, sql + 3000].map(|port| port.to_string()));
            let nodes = psql(sql, "SHOW NODES").unwrap();
            assert!(nodes.contains(&format!("{}|{region}|", fields[0])), "{nodes}");
        }
        assert!(said.contains(" 68") && said.contains("190") && said.contains("122"), "{said}");
        if round == 0 {
            psql(port, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (42)").unwrap();
        }
        assert_eq!(psql(port + 2, "SELECT id FROM t").unwrap(), "42");
        let url = format!("postgresql://root@127.0.0.1:{}/meridian", port + 1);
        let shell = Command::new(MERIDIAN)
            .args(["sql", &url, "-c", "SELECT id FROM t"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(text_of(shell).unwrap().contains("42"));
        assert_eq!(answered_before_the_end_of_input(&url, "SELECT 'now'"), "now");
        send_signal(&child, if round == 0 { "TERM" } else { "INT" });
        let status = wait_for_exit(&mut child, Duration::from_secs(20));
        assert!(status.is_some_and(|status| status.success()), "round {round}: {status:?}");
        let closed = || std::net::TcpListener::bind(("127.0.0.1", port + 1)).is_ok();
        assert!(wait_until(Duration::from_secs(5), closed).is_some(), "a node was left behind");
    }
}
