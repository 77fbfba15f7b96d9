//! Golden scripts: `tests/scripts/*.sql` against `*.out`. `UPDATE_GOLDENFILES=1` writes the latter. What PostgreSQL 15 has to say to
//! the same script: `psql -AX -F'|' -P null=NULL -P footer=off -v VERBOSITY=terse < script`, but for the codes in brackets.

use crate::world::TestCluster;
use std::path::Path;

/// Statements of a script: each ends with a semicolon at a line's end.
fn statements(text: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut current = String::new();
    for line in text.lines() {
        if current.is_empty() && (line.trim().is_empty() || line.trim_start().starts_with("--")) {
            continue;
        }
        current.push_str(line);
        current.push('\n');
        if line.trim_end().ends_with(';') {
            statements.push(std::mem::take(&mut current).trim_end().to_string());
        }
    }
    assert!(current.trim().is_empty(), "a statement does not end: {current}");
    statements
}

#[test]
fn scripts_answer_as_recorded() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut failed = Vec::new();
    let mut paths: Vec<_> = std::fs::read_dir(&directory)
        .expect("there are scripts")
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    for path in paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
    {
        let text = std::fs::read_to_string(&path).expect("readable");
        let cluster = TestCluster::new();
        let mut session = cluster.session(&cluster.east);
        let mut out = String::new();
        for statement in statements(&text) {
            out.push_str("> ");
            out.push_str(&statement.replace('\n', "\n> "));
            out.push('\n');
            out.push_str(&cluster.run(&mut session, &statement));
        }
        let golden = path.with_extension("out");
        if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
            std::fs::write(&golden, &out).expect("writable");
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != out {
            failed.push(format!("{}:\n{out}", path.display()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
