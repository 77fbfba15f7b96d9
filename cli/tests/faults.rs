//! A region cut off, processes killed, a clock that goes wrong: what each kind of table promises, on real processes.

use crate::harness::{
    Cluster, REALISTIC, REGIONS, alone, load_seconds, meridian_within, now, pause, wait_until,
};
use std::time::Duration;

#[test]
fn a_region_cut_off_refuses_strong_writes_in_seconds_and_keeps_taking_available_ones() {
    let _alone = alone();
    let cluster = Cluster::start(REALISTIC);
    let sql = |place, statement: &str| cluster.sql(place, statement);
    sql(0, "CREATE TABLE accounts (id int PRIMARY KEY, balance int)").unwrap();
    sql(
        0,
        "CREATE TABLE carts (id int PRIMARY KEY, qty COUNTER, note text) WITH (consistency = 'available')",
    )
    .unwrap();
    sql(0, "INSERT INTO accounts SELECT i, 100 FROM generate_series(1, 50) i").unwrap();
    sql(0, "INSERT INTO carts VALUES (1, 5, 'before')").unwrap();
    let arrived = |place| sql(place, "SELECT qty FROM carts WHERE id = 1").as_deref() == Ok("5");
    for place in 0..3 {
        assert!(wait_until(Duration::from_secs(5), || arrived(place)).is_some(), "{place}");
        sql(place, "SELECT count(*) FROM accounts").unwrap();
    }
    // Each copy is in its region, and nowhere else.
    let homes = || {
        let ranges = sql(0, "SHOW RANGES").unwrap_or_default();
        let copies = ranges.lines().filter(|line| line.contains("|carts|"));
        let mut homes: Vec<String> =
            copies.filter_map(|line| line.rsplit('|').next().map(str::to_string)).collect();
        homes.sort();
        homes
    };
    assert_eq!(homes(), ["n1", "n2", "n3"], "CREATE TABLE has answered too early");

    // A machine that stood still while the cluster came up may have made eu-west the leader: the write is in a log there then.
    let ranges = sql(0, "SHOW RANGES").unwrap();
    let strong = ranges.lines().find(|line| line.contains("|accounts|")).unwrap();
    let is_led_there = strong.contains("|n2|");
    sql(0, "CHAOS PARTITION 'eu-west' FROM 'us-east', 'ap-south' FOR '60s'").unwrap();
    let start = now();
    let refused = sql(1, "INSERT INTO accounts VALUES (1001, 1)").unwrap_err();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "refused after {took:?}: {refused}");
    println!("refused after {took:?}: {refused}");
    if is_led_there {
        assert!(refused.contains("SHOW TRANSACTION STATUS"), "can be asked about: {refused}");
        assert!(refused.contains("n1") && refused.contains("n3"), "names them: {refused}");
    } else {
        assert!(refused.contains("range r"), "names the range: {refused}");
        assert!(
            refused.contains("us-east") && refused.contains("ap-south"),
            "names them: {refused}"
        );
    }
    sql(0, "INSERT INTO accounts VALUES (1002, 1)").unwrap();
    sql(2, "INSERT INTO accounts VALUES (1003, 1)").unwrap();
    for (place, region) in REGIONS.iter().enumerate() {
        sql(place, &format!("INSERT INTO carts VALUES ({}, 1, '{region}')", 10 + place)).unwrap();
        let start = now();
        sql(place, "UPDATE carts SET qty = qty + 10 WHERE id = 1").unwrap();
        // "In local time": far below any round trip to another region, the start of psql included.
        let took = start.elapsed();
        println!("available write in {region}: {took:?} (with psql's start)");
        assert!(took < Duration::from_millis(500), "{region}: {took:?}");
        sql(place, "UPDATE carts SET qty = qty - 2 WHERE id = 1").unwrap();
    }

    sql(0, "CHAOS HEAL").unwrap();
    let dump = |place| sql(place, "SELECT id, qty, note FROM carts ORDER BY id").unwrap();
    let mut dumps = Vec::new();
    let equal = wait_until(Duration::from_secs(2), || {
        dumps = (0..3).map(dump).collect::<Vec<String>>();
        dumps.iter().all(|copy| *copy == dumps[0]) && dumps[0].lines().count() == 4
    });
    assert!(equal.is_some(), "2 s after the healing the copies differ: {dumps:?}");
    println!("copies equal {:?} after the healing", equal.unwrap());
    let late = "CHAOS LATENCY 'us-east' TO 'eu-west', 'ap-south' ADD";
    sql(0, &format!("{late} '400ms' JITTER '50ms' FOR '60s'")).unwrap();
    let listed = sql(2, "SHOW CHAOS").unwrap();
    let expected = "latency us-east to eu-west, ap-south: 400 to 450 ms more";
    assert!(listed.contains(expected), "{listed}");
    let start = now();
    sql(0, "INSERT INTO accounts VALUES (1004, 0)").unwrap();
    assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
    // One that is over at once takes its like's place.
    sql(0, &format!("{late} '0ms' FOR '1ms'")).unwrap();
    assert_eq!(sql(1, "SHOW CHAOS").unwrap(), "");
    sql(0, "DELETE FROM accounts WHERE id = 1004").unwrap();
    assert!(dumps[0].contains("1|29|before"), "5 + 3 * (10 - 2): {}", dumps[0]);
    for place in 0..3 {
        let ids =
            "SELECT count(*), sum(balance) FROM accounts WHERE id < 1000 OR id IN (1002, 1003)";
        let mut seen = String::new();
        let readable = wait_until(Duration::from_secs(10), || {
            seen = sql(place, ids).unwrap_or_default();
            seen == "52|5002"
        });
        assert!(readable.is_some(), "{}: {seen}", REGIONS[place]);
        assert_eq!(sql(place, "SELECT count(*) FROM accounts WHERE id = 1001").unwrap(), "0");
    }
}

#[test]
fn kill_9_of_any_process_under_the_bank_loses_nothing() {
    let _alone = alone();
    let mut cluster = Cluster::start("");
    for place in 0..3 {
        let seconds = (load_seconds() + 7).to_string();
        let bank = cluster.workload(&["bank", "--duration", &seconds, "--gap-max", "5"]);
        pause(Duration::from_secs(3));
        cluster.kill(place);
        pause(Duration::from_secs(load_seconds()));
        cluster.start_node(place);
        let report = bank.finish().unwrap_or_else(|why| panic!("killed n{}: {why}", place + 1));
        assert!(report.contains("invariant holds"), "{report}");
        println!("killed n{}:\n{report}", place + 1);
        cluster.wait_ready();
    }
}

#[test]
fn a_clock_300_ms_off_fences_its_node_under_load_and_returns() {
    let _alone = alone();
    let cluster = Cluster::start("");
    let seconds = (load_seconds() + 15).to_string();
    let bank = cluster.workload(&["bank", "--duration", &seconds, "--clients", "4"]);
    let kv = cluster.workload(&["kv", "--duration", &seconds, "--clients", "4"]);
    pause(Duration::from_secs(4));
    cluster.sql(0, "CHAOS CLOCK 'n3' SKEW '300ms' FOR '5s'").unwrap();
    let status = || {
        let nodes = cluster.sql(0, "SHOW NODES").unwrap_or_default();
        let line = nodes.lines().find(|line| line.starts_with("n3|")).unwrap_or("").to_string();
        line.rsplit('|').next().unwrap_or("").to_string()
    };
    let fenced = wait_until(Duration::from_secs(5), || status() == "fenced");
    assert!(fenced.is_some(), "n3 did not fence itself: it is {}", status());
    println!("n3 fenced itself {:?} after the skew began", fenced.unwrap());
    let back = wait_until(Duration::from_secs(20), || status() == "live");
    assert!(back.is_some(), "n3 did not return: it is {}", status());
    println!("n3 was back {:?} later", back.unwrap());
    for (name, running) in [("bank", bank), ("kv", kv)] {
        let report = running.finish().unwrap_or_else(|why| panic!("{name}: {why}"));
        assert!(report.contains("invariant holds"), "{report}");
        println!("{name}:\n{report}");
    }
    assert_eq!(cluster.sql(2, "SELECT sum(balance) FROM bank_accounts").unwrap(), "100000");
}

/// Times that everything is killed at once.
fn crash_count() -> u64 {
    std::env::var("MERIDIAN_TEST_CRASHES").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

#[test]
fn kill_9_of_all_processes_at_once_under_load_over_and_over_loses_nothing() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    const ROUND_SECONDS: u64 = 7;
    let rounds = (0..crash_count()).map(|round| {
        let at = 2 + round * ROUND_SECONDS;
        format!(
            "at {at}s blackout\nat {}s available us-east, eu-west, ap-south within 30s\n",
            at + 1
        )
    });
    let end = 2 + crash_count() * ROUND_SECONDS;
    let rounds = rounds.collect::<String>();
    let script = format!("nodes 3\nworkload bank, append\n{rounds}end {end}s\n");
    std::fs::write(dir.path().join("crashes.chaos"), script).unwrap();
    let (code, said) = meridian_within(
        Duration::from_secs(120 + 40 * crash_count()),
        &["chaos", "run", "crashes.chaos", "--world", "processes"],
        dir.path(),
    );
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("all held"), "{said}");
    assert_eq!(said.matches("invariant holds").count(), 2, "{said}");
    println!("{said}");
}

#[test]
fn a_fault_script_runs_on_real_processes_and_its_histories_are_judged() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let script = "# Two faults, one after the other.\n\
         nodes 3\n\
         latency us-east eu-west 10ms\n\
         latency us-east ap-south 10ms\n\
         latency eu-west ap-south 10ms\n\
         workload bank, append, counter\n\
         at 1s kill n2\n\
         at 2s available n1 within 8s\n\
         at 4s start n2\n\
         at 6s available n2 within 10s\n\
         at 7s cut eu-west from us-east, ap-south\n\
         at 8s unavailable eu-west within 5s\n\
         at 13s heal\n\
         at 13s converged within 10s\n\
         at 14s weather loss 30\n\
         at 14s clog us-east to eu-west\n\
         at 14s drift n1 200 ppm\n\
         at 15s progress 20 within 10s\n\
         at 17s weather loss 0\n\
         at 17s unclog us-east to eu-west\n\
         at 17s cut-one-way n3 to n1, n2\n\
         at 18s when progress 20 within 10s then heal\n\
         at 18s available ap-south within 10s\n\
         at 19s invariant\n\
         end 20s\n";
    std::fs::write(dir.path().join("two.chaos"), script).unwrap();
    let run = |arguments: &[&str]| {
        let arguments = [&["chaos"], arguments].concat();
        meridian_within(Duration::from_secs(90), &arguments, dir.path())
    };
    let on_processes =
        ["run", "two.chaos", "--world", "processes", "--history", "h.edn", "--report", "r.html"];
    let (code, said) = run(&on_processes);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("all held"), "{said}");
    println!("{said}");
    // Two regions whose nodes run all the time: whatever happens elsewhere, their available tables answer.
    let silence = |region: &str| -> f64 {
        let is_it = |line: &&str| line.starts_with("  available") && line.contains(region);
        let line = said.lines().find(is_it).unwrap();
        let (_, seconds) = line.rsplit_once("longest silence ").unwrap();
        seconds.trim_end_matches(" s").parse().unwrap()
    };
    for region in ["us-east", "ap-south"] {
        assert!(silence(region) < 3.0, "{region} was silent for {} s: {said}", silence(region));
    }
    let page = std::fs::read_to_string(dir.path().join("r.html")).unwrap();
    for load in said.lines().filter(|line| line.contains(" unknown; invariant holds")) {
        let (kind, counts) = load.split_once(": ").unwrap();
        let mode = if kind == "counter" { "available" } else { "strong" };
        let counts = counts.split(';').next().unwrap().split(", ");
        let counts = counts.map(|count| count.split(' ').next().unwrap());
        let cells: String = counts.map(|count| format!("<td class=\"n\">{count}</td>")).collect();
        let row = format!("<td>{kind}</td><td>{mode}</td>{cells}");
        assert!(page.contains(&row), "the page has no {row}");
    }
    for model in ["bank", "list-append", "counter"] {
        let file = format!("h.{model}.edn");
        let (code, judged) = run(&["check", &file, "--model", model]);
        assert_eq!(code, Some(0), "{judged}");
        assert!(judged.starts_with("good: "), "{judged}");
        let history = std::fs::read_to_string(dir.path().join(&file)).unwrap();
        assert!(history.contains(":type :ok"), "{model}");
    }
    let disks = script.replace("kill n2", "fill n2");
    std::fs::write(dir.path().join("disks.chaos"), disks).unwrap();
    let (code, said) = run(&["run", "disks.chaos", "--world", "processes"]);
    assert_eq!(code, Some(1), "{said}");
    let why = "line 7, column 7: `fill n2`: only the simulated world can do that";
    assert!(said.contains(why), "{said}");
}
