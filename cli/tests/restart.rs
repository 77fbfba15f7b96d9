//! Stopping and starting: what was written is there again, and nothing is left running.

use std::time::Duration;

use crate::harness::{Cluster, Ports, alone, wait_until};

#[test]
fn a_cluster_stopped_by_signals_or_killed_as_a_whole_comes_back_with_everything() {
    let _alone = alone();
    let mut cluster = Cluster::start("");
    cluster.sql(0, "CREATE TABLE kept (id int PRIMARY KEY, note text)").unwrap();
    cluster.sql(0, "CREATE INDEX kept_note ON kept (note)").unwrap();
    cluster
        .sql(1, "INSERT INTO kept SELECT i, 'row ' || i FROM generate_series(1, 1000) i")
        .unwrap();
    cluster
        .sql(
            2,
            "CREATE TABLE loose (id int PRIMARY KEY, n COUNTER) WITH (consistency = 'available')",
        )
        .unwrap();
    cluster.sql(2, "INSERT INTO loose VALUES (1, 7)").unwrap();
    for round in 0..2 {
        if round == 0 {
            for (place, signal) in ["TERM", "INT", "TERM"].iter().enumerate() {
                cluster.terminate(place, signal);
            }
        } else {
            (0..3).for_each(|place| cluster.kill(place));
        }
        (0..3).for_each(|place| cluster.start_node(place));
        cluster.wait_ready();
        for place in 0..3 {
            let count = "SELECT count(*), min(note), max(id) FROM kept";
            assert_eq!(cluster.sql(place, count).unwrap(), "1000|row 1|1000", "round {round}");
            let by_index = "SELECT id FROM kept WHERE note = 'row 77'";
            assert_eq!(cluster.sql(place, by_index).unwrap(), "77");
        }
        assert_eq!(cluster.sql(2, "SELECT n FROM loose").unwrap(), "7");
        cluster.sql(0, &format!("INSERT INTO kept VALUES ({}, 'x')", 2000 + round)).unwrap();
        cluster.sql(0, &format!("DELETE FROM kept WHERE id = {}", 2000 + round)).unwrap();
    }
}

#[test]
fn killed_nodes_find_each_other_at_new_addresses() {
    let _alone = alone();
    let mut cluster = Cluster::start("");
    cluster.sql(0, "CREATE TABLE kept (id int PRIMARY KEY)").unwrap();
    cluster.sql(1, "INSERT INTO kept VALUES (1)").unwrap();
    // One alone is told by the others; of all at once nobody is where the others remember them.
    for moved in [vec![1], vec![0, 1, 2]] {
        moved.iter().for_each(|place| cluster.kill(*place));
        moved.iter().for_each(|place| cluster.ports[*place] = Ports::free());
        moved.iter().for_each(|place| cluster.start_node(*place));
        cluster.wait_ready();
        for place in 0..3 {
            assert_eq!(cluster.sql(place, "SELECT count(*) FROM kept").unwrap(), "1");
        }
        let knows_all = || {
            let nodes = cluster.sql(0, "SHOW NODES").unwrap_or_default();
            nodes.lines().filter(|line| line.ends_with("|live")).count() == 3
        };
        assert!(wait_until(Duration::from_secs(5), knows_all).is_some());
    }
}
