//! What psql 15 asks for its backslash commands (`tests/data/psql`, captured by `psql -E`): every query binds and runs.
//! `:oid` stands for the OID of the relation that the file's name ends with.

use crate::world::TestCluster;
use std::path::Path;

const SCHEMA: &[&str] = &[
    "CREATE TABLE parent (id int PRIMARY KEY, name varchar(20) UNIQUE)",
    "CREATE TABLE t (id serial PRIMARY KEY, a int NOT NULL DEFAULT 7, b text, c numeric(10,2), \
     p int REFERENCES parent(id) ON DELETE CASCADE, CHECK (a > 0))",
    "CREATE INDEX t_b_idx ON t (b, a DESC)",
    "CREATE VIEW v AS SELECT id, b FROM t",
    "CREATE SEQUENCE s",
];

/// Queries that fail so far, by file.
const KNOWN: &[&str] = &[];

fn relation_of(file: &str) -> Option<&'static str> {
    ["t_b_idx", "parent", "t", "v", "s"]
        .into_iter()
        .find(|name| file.ends_with(&format!("_{name}")))
}

#[test]
fn every_query_of_psql_runs() {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    for statement in SCHEMA {
        let out = cluster.run(&mut session, statement);
        assert!(!out.contains("ERROR"), "{statement}: {out}");
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/psql");
    let entries = std::fs::read_dir(&directory).expect("there are queries");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    let (mut failed, mut names) = (Vec::new(), Vec::new());
    for path in paths {
        let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        let mut text = std::fs::read_to_string(&path).expect("readable");
        if let Some(relation) = relation_of(&name) {
            let sql = format!("SELECT '{relation}'::regclass::oid");
            let oid = cluster.run(&mut session, &sql);
            let oid = oid.lines().nth(1).expect("the relation exists").to_string();
            text = text.replace("':oid'", &format!("'{oid}'")).replace(" :oid", &format!(" {oid}"));
        }
        for query in text.split(";\n").filter(|query| !query.trim().is_empty()) {
            let out = cluster.run(&mut session, query);
            if out.contains("ERROR:") {
                failed.push(format!("{name}: {out}{query}"));
                names.push(name.clone());
            } else if std::env::var_os("SHOW_PSQL").is_some_and(|wanted| *wanted == *name) {
                failed.push(out);
                names.push(String::new());
            }
        }
    }
    assert_eq!(names.as_slice(), KNOWN, "\n{}", failed.join("\n----\n"));
}
