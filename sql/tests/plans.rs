//! Which indexes a table has is nobody's business but the clock's: every query says the same with and without them (killer Q11).
//!
//! Two tables of the same rows, one with its primary key alone, one with every kind of index, are asked the same random questions: with NULLs on
//! both sides of comparisons, values at the ends of their types, text that sorts by bytes. And each predicate divides the rows into those where
//! it is true, false and NULL, whatever plan each of the three takes (Rigger and Su, *Finding bugs in database systems via query partitioning*,
//! OOPSLA 2020).

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::world::TestCluster;

/// Values of the int columns; few, so that they meet.
const INTS: [&str; 8] = ["NULL", "0", "1", "2", "-1", "7", "2147483647", "(-2147483648)"];
/// Values of the text column.
const TEXTS: [&str; 7] = ["NULL", "''", "'a'", "'A'", "'ab'", "'b'", "'ä'"];
/// Queries per set of rows.
const QUERIES: usize = 40;

/// What is asked of one set of rows.
#[derive(Clone, Debug)]
struct Case {
    rows: Vec<(usize, usize, usize)>,
    predicates: Vec<String>,
}

fn pick<const N: usize>(of: [&'static str; N]) -> impl Strategy<Value = String> {
    (0..N).prop_map(move |place| of[place].to_string())
}

fn int() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => pick(["a", "b"]),
        4 => pick(INTS),
        1 => Just("id".to_string()),
        1 => Just("coalesce(a, b)".to_string()),
        1 => Just("a::bigint + b".to_string()),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![2 => Just("c".to_string()), 3 => pick(TEXTS)]
}

fn atom() -> impl Strategy<Value = String> {
    let comparison =
        || pick(["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"]);
    let not = || pick(["", "NOT "]);
    prop_oneof![
        6 => (pick(["a", "b"]), comparison(), int()).prop_map(|(x, op, y)| format!("{x} {op} {y}")),
        2 => (int(), comparison(), pick(["a", "b", "id"])).prop_map(|(x, op, y)| format!("{x} {op} {y}")),
        3 => (Just("c"), comparison(), text()).prop_map(|(x, op, y)| format!("{x} {op} {y}")),
        2 => (pick(["a", "b", "c"]), not()).prop_map(|(x, not)| format!("{x} IS {not}NULL")),
        3 => (pick(["a", "b"]), not(), prop::collection::vec(pick(INTS), 1..4))
            .prop_map(|(x, not, list)| format!("{x} {not}IN ({})", list.join(", "))),
        2 => (pick(["a", "b"]), not(), int(), int())
            .prop_map(|(x, not, low, high)| format!("{x} {not}BETWEEN {low} AND {high}")),
        1 => (not(), pick(["'a%'", "'%b'", "''", "'_'"]))
            .prop_map(|(not, pattern)| format!("c {not}LIKE {pattern}")),
        1 => (pick(["a", "b"]), not(), comparison(), int())
            .prop_map(|(x, not, op, y)| format!("{x} {not}IN (SELECT o.b FROM other o WHERE o.a {op} {})", y.replace("id", "7"))),
        1 => pick(["true", "false", "NULL::bool"]),
    ]
}

fn predicate() -> impl Strategy<Value = String> {
    atom().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(p, q)| format!("({p}) AND ({q})")),
            (inner.clone(), inner.clone()).prop_map(|(p, q)| format!("({p}) OR ({q})")),
            inner.prop_map(|p| format!("NOT ({p})")),
        ]
    })
}

fn case() -> impl Strategy<Value = Case> {
    let row = (0..INTS.len(), 0..INTS.len(), 0..TEXTS.len());
    let rows = prop::collection::vec(row, 0..24);
    (rows, prop::collection::vec(predicate(), QUERIES))
        .prop_map(|(rows, predicates)| Case { rows, predicates })
}

/// The questions about one predicate; `TABLE` stands for the table.
fn questions(predicate: &str) -> Vec<String> {
    vec![
        format!("SELECT id FROM TABLE WHERE {predicate} ORDER BY id"),
        format!("SELECT a, b, c, id FROM TABLE WHERE {predicate} ORDER BY a, b DESC, id LIMIT 5"),
        format!(
            "SELECT id, c FROM TABLE WHERE {predicate} ORDER BY c DESC NULLS LAST, id DESC OFFSET 1"
        ),
        format!(
            "SELECT a, count(*), min(b), max(c) FROM TABLE WHERE {predicate} GROUP BY a ORDER BY a"
        ),
        format!(
            "SELECT t.id, other.id FROM TABLE t LEFT JOIN other ON other.a = t.b WHERE {} ORDER BY 1, 2",
            predicate_of("t", predicate)
        ),
    ]
}

/// The predicate with its columns named in full.
fn predicate_of(table: &str, predicate: &str) -> String {
    let mut text = String::new();
    let mut word = String::new();
    let mut quoted = false;
    for letter in predicate.chars().chain([' ']) {
        if letter.is_alphanumeric() || letter == '_' || letter == '.' {
            word.push(letter);
            continue;
        }
        match word.as_str() {
            "a" | "b" | "c" | "id" if !quoted => text.push_str(&format!("{table}.{word}")),
            _ => text.push_str(&word),
        }
        word.clear();
        quoted ^= letter == '\'';
        text.push(letter);
    }
    text
}

/// What a test has come to.
#[derive(Default)]
struct Met {
    answered: usize,
    refused: usize,
    by_index: usize,
}

fn check(case: &Case, met: &mut Met) -> Result<(), String> {
    let cluster = TestCluster::new();
    let mut session = cluster.session(&cluster.east);
    let mut run = |text: &str| cluster.run(&mut session, text);
    for table in ["plain", "indexed", "other"] {
        run(&format!("CREATE TABLE {table} (id int PRIMARY KEY, a int, b int, c text)"));
        for (id, (a, b, c)) in case.rows.iter().enumerate() {
            let (a, b, c) = (INTS[*a], INTS[*b], TEXTS[*c]);
            run(&format!("INSERT INTO {table} VALUES ({id}, {a}, {b}, {c})"));
        }
    }
    for index in ["(a)", "(b, a)", "(b DESC, c)", "(c, a DESC)", "(a, id)"] {
        let said = run(&format!("CREATE INDEX ON indexed {index}"));
        if said != "CREATE INDEX\n" {
            return Err(format!("{index}: {said}"));
        }
    }
    for predicate in &case.predicates {
        for question in questions(predicate) {
            let mut ask = |table: &str| run(&question.replace("TABLE", table));
            let (plain, indexed) = (ask("plain"), ask("indexed"));
            match plain.contains("ERROR") {
                true => met.refused += 1,
                false => met.answered += 1,
            }
            // A plan that looks at fewer rows may come to fewer errors, never to others.
            if plain != indexed && !plain.contains("ERROR") {
                return Err(format!("{question}\nwithout indexes:\n{plain}with them:\n{indexed}"));
            }
        }
        let explained = run(&format!("EXPLAIN SELECT id FROM indexed WHERE {predicate}"));
        met.by_index += usize::from(explained.contains("indexed_"));
        let mut count = |when: &str| {
            let text = format!("SELECT id FROM indexed WHERE {when}");
            let said = run(&text);
            if said.contains("ERROR") { None } else { Some(said.lines().count()) }
        };
        let parts =
            [predicate.clone(), format!("NOT ({predicate})"), format!("({predicate}) IS NULL")];
        let counts: Option<Vec<usize>> = parts.iter().map(|part| count(part)).collect();
        if let (Some(counts), Some(all), Some(none)) = (counts, count("true"), count("false")) {
            let sum: usize = counts.iter().map(|count| count - none).sum();
            if sum != all - none {
                return Err(format!("{predicate} divides {} rows into {counts:?}", all - none));
            }
        }
    }
    Ok(())
}

#[test]
fn a_query_says_the_same_with_and_without_indexes() {
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let met = RefCell::new(Met::default());
    let tested = TestRunner::new_with_rng(config, rng)
        .run(&case(), |case| check(&case, &mut met.borrow_mut()).map_err(TestCaseError::fail));
    if let Err(why) = tested {
        panic!("{why}");
    }
    let Met { answered, refused, by_index } = met.into_inner();
    assert!(answered > 20 * refused, "{answered} answered, {refused} refused");
    assert!(by_index > 100, "{by_index} plans that use an index");
}

/// NULLs are not equal: a unique index names many rows by them, in no order of their other columns.
#[test]
fn a_unique_index_gives_its_nulls_in_no_order() {
    let (cluster, mut session, _) = TestCluster::with_two_sessions(
        "CREATE TABLE un (id int PRIMARY KEY, a int UNIQUE, b int); \
         INSERT INTO un VALUES (1, NULL, 30), (2, NULL, 10), (3, NULL, 20), (4, 4, 1)",
    );
    let mut ask = |query: &str| cluster.run(&mut session, query);
    assert_eq!(ask("SELECT b FROM un WHERE a IS NULL ORDER BY b LIMIT 1"), "b\n10\n");
    assert_eq!(ask("SELECT b FROM un WHERE a IS NULL ORDER BY b"), "b\n10\n20\n30\n");
    assert_eq!(ask("SELECT b FROM un WHERE a IS NULL ORDER BY a, b DESC"), "b\n30\n20\n10\n");
    assert_eq!(ask("SELECT b FROM un WHERE a = 4 ORDER BY b"), "b\n1\n");
}
