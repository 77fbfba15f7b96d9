//! The tower stands: crates import only crates below them, machines touch no OS, every file says what it is, and none grows
//! without end. Each failure names the file and what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Crates from the bottom up, with those each may import.
const TOWER: [(&str, &[&str]); 12] = [
    ("coverage", &[]),
    ("clock", &[]),
    ("storage", &["coverage", "clock"]),
    ("replication", &["coverage", "clock", "storage"]),
    ("txn", &["coverage", "clock", "storage", "replication"]),
    ("sql", &["coverage", "clock", "storage", "replication", "txn"]),
    ("proto", &[]),
    ("client", &["proto"]),
    ("node", &["clock", "storage", "replication", "txn", "sql", "proto"]),
    ("chaos", &["coverage", "clock", "storage", "replication", "txn", "sql", "node"]),
    ("cli", &["clock", "node", "client", "chaos"]),
    ("benches", &["clock", "storage", "replication", "txn", "sql", "node", "client"]),
];

/// Crates below the seams: no runtime, no sockets, no engine of theirs.
const SANS_IO: [&str; 6] = ["coverage", "clock", "storage", "replication", "txn", "sql"];
const FORBIDDEN_DEPENDENCIES: [&str; 4] = ["tokio", "tonic", "axum", "proto"];

/// Calls that bypass a seam, and what to use instead.
const BANNED: [(&str, &str); 8] = [
    ("Instant::now", "take clock::Now, or await TimeSource::sleep_until"),
    ("SystemTime::now", "take clock::Now"),
    ("thread_rng", "take txn::runtime::Random or a seed"),
    ("rand::random", "take txn::runtime::Random or a seed"),
    ("rand::rng()", "take txn::runtime::Random or a seed"),
    ("thread::spawn", "spawn through txn::runtime::Spawn"),
    ("tokio::select!", "futures::future::select: its order is not random"),
    ("thread::sleep", "await TimeSource::sleep_until"),
];

/// A room that has outgrown this has a second noun in it.
const LINES_MAX: usize = 800;
/// Rooms that have, and are to be split (docs/plan.md). They may shrink, not grow.
const OUTGROWN: [(&str, usize); 1] = [("sql/src/bind/expression.rs", 1100)];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is in the workspace")
        .to_path_buf()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else { return files };
    for entry in entries {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Names in `[dependencies]` of a crate's manifest (not of its tests).
fn dependencies(krate: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(krate).join("Cargo.toml"))
        .expect("every crate has a manifest");
    let mut section = String::new();
    let mut names = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line.to_string();
        } else if section == "[dependencies]"
            && let Some((name, _)) = line.split_once('=')
        {
            names.insert(name.trim().to_string());
        }
    }
    names
}

#[test]
fn a_crate_imports_only_crates_below_it() {
    let ours: BTreeMap<&str, &[&str]> = TOWER.into_iter().collect();
    for (krate, allowed) in TOWER {
        for dependency in dependencies(krate) {
            if ours.contains_key(dependency.as_str()) {
                assert!(
                    allowed.contains(&dependency.as_str()),
                    "{krate} must not import {dependency}"
                );
            }
        }
    }
}

#[test]
fn machines_know_no_runtime_and_no_sockets() {
    for krate in SANS_IO {
        let dependencies = dependencies(krate);
        for forbidden in FORBIDDEN_DEPENDENCIES {
            assert!(!dependencies.contains(forbidden), "{krate} must not depend on {forbidden}");
        }
    }
}

#[test]
fn time_and_chance_come_through_the_seams() {
    for krate in SANS_IO.iter().chain(&["chaos"]) {
        for file in rust_files(&root().join(krate).join("src")) {
            // The runner of many seeds times itself for people, and has threads; no seed sees either.
            if file.ends_with("chaos/src/sim.rs") {
                continue;
            }
            let text = fs::read_to_string(&file).expect("a readable file");
            for (number, line) in text.lines().enumerate() {
                // Tests at a file's end may do as they like.
                if line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test") {
                    break;
                }
                let code = line.split("//").next().unwrap_or("");
                for (call, instead) in BANNED {
                    let place = format!("{}:{}", file.display(), number + 1);
                    assert!(!code.contains(call), "{place}: {call} bypasses a seam; {instead}");
                }
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for (krate, _) in TOWER {
        for file in rust_files(&root().join(krate).join("src")) {
            let text = fs::read_to_string(&file).expect("a readable file");
            assert!(
                text.starts_with("//!"),
                "{}: begin with `//!`: what is this room for?",
                file.display()
            );
        }
    }
}

#[test]
fn no_room_outgrows_its_noun() {
    for (krate, _) in TOWER {
        for file in rust_files(&root().join(krate).join("src")) {
            let lines = fs::read_to_string(&file).expect("a readable file").lines().count();
            let known = OUTGROWN.iter().find(|(name, _)| file.ends_with(name));
            let most = known.map_or(LINES_MAX, |(_, most)| *most);
            assert!(
                lines <= most,
                "{} has {lines} lines: which is the second noun in it?",
                file.display()
            );
        }
    }
}

#[test]
fn no_crate_is_named_for_having_no_purpose() {
    for (krate, _) in TOWER {
        assert!(
            !["common", "util", "utils", "types", "base"].contains(&krate),
            "{krate} names no purpose"
        );
    }
}
