//! Known-answer histories: `tests/histories/*.edn`, each with its verdict in its first line; and histories of the simulator as files.

use chaos::check::Level;
use chaos::check::file::{Format, Model, Operation, Value, Verdict, write};
use chaos::episode::{Options, run_cut};
use chaos::history::{Ended, Record};
use chaos::shrink::Cut;
use chaos::workload::Kind;
use std::path::Path;

/// A known answer: the model, the level, how the verdict begins, and the history.
struct Known {
    name: String,
    model: Model,
    level: Level,
    expected: String,
    text: String,
}

fn known() -> Vec<Known> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/histories");
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("reads").path();
        let text = std::fs::read_to_string(&path).expect("reads");
        // `; model M, level L: verdict`
        let head = text.lines().next().and_then(|line| line.strip_prefix("; model "));
        let (model, rest) = head.and_then(|head| head.split_once(", level ")).expect("a model");
        let (level, expected) = rest.split_once(": ").expect("a level and a verdict");
        let level = match level {
            "serializable" => Level::Serializable,
            "session" => Level::Session,
            "key-real-time" => Level::KeyRealTime,
            "strict" => Level::Strict,
            other => panic!("{other}"),
        };
        let (model, expected) = (model.parse().expect("a known model"), expected.to_string());
        Known { name: path.display().to_string(), model, level, expected, text }
    };
    std::fs::read_dir(folder).expect("there are histories").map(read).collect()
}

#[test]
fn known_answers_are_given() {
    for Known { name, model, level, expected, text } in known() {
        let verdict = model.judge(&text, level).to_string();
        assert!(verdict.starts_with(&expected), "{name}: {verdict}");
    }
}

#[test]
fn every_model_has_known_answers_of_each_kind() {
    let known = known();
    for model in Model::ALL {
        let has = |kind: &str, is: &dyn Fn(&str) -> bool| {
            let found = known.iter().any(|one| one.model == model && is(&one.expected));
            assert!(found, "no history of {model} is {kind}");
        };
        has("good", &|expected| expected == "good");
        has("without anything", &|expected| expected == "nothing to judge");
        has("malformed", &|expected| expected.starts_with("malformed"));
        let others = ["good", "nothing to judge", "malformed"];
        has("bad", &|expected| !others.iter().any(|other| expected.starts_with(other)));
    }
}

#[test]
fn every_class_of_transactional_anomaly_has_a_known_answer() {
    let known = known();
    let cycles = ["G0", "G1c", "G-single", "G2-item"];
    let forms = ["", "-session", "-realtime"];
    let cyclic = cycles.iter().flat_map(|cycle| forms.map(|form| format!("{cycle}{form}")));
    let other = ["G1a", "G1b", "lost update", "internal"].map(String::from);
    for class in cyclic.chain(other) {
        for model in [Model::ListAppend, Model::RwRegister] {
            let found = known.iter().any(|one| one.model == model && one.expected == class);
            assert!(found, "no history of {model} shows {class}");
        }
    }
}

#[test]
fn a_seed_s_history_is_judged_the_same_from_its_file() {
    for workload in Kind::ALL {
        let Some(model) = workload.model() else { continue };
        let (report, operations) =
            run_cut(Options { seed: 3, workload, planted: None }, &Cut::default());
        assert_eq!(report.verdict, Ok(()), "{workload}");
        contradictions_are_malformed(workload, model, &operations);
        for format in [Format::Edn, Format::Json] {
            let text = write(&operations, format);
            let verdict = model.judge(&text, Level::KeyRealTime);
            // A session's client that got another number after an unknown end is another client.
            assert!(verdict.is_good(), "{workload}: {verdict}");
            let cut = model.judge(&text[..text.len() / 2], Level::KeyRealTime).to_string();
            assert!(cut.starts_with("malformed at line"), "{workload}: {cut}");
        }
    }
}

/// Changes a number in an answer that the question had already told.
fn contradict(asked: &Value, answer: &mut Value) -> bool {
    match (asked, answer) {
        (Value::Int(_), Value::Int(number)) => {
            *number += 1;
            true
        }
        (Value::List(asked), Value::List(values)) => {
            asked.iter().zip(values).any(|(asked, value)| contradict(asked, value))
        }
        (Value::Map(asked), Value::Map(pairs)) => {
            asked.iter().zip(pairs).any(|((_, asked), (_, value))| contradict(asked, value))
        }
        _ => false,
    }
}

/// Some answers, each to another question than was asked.
fn contradictions_are_malformed(workload: Kind, model: Model, operations: &[Operation]) {
    let (mut broken, mut contradicted) = (operations.to_vec(), 0);
    for (place, whole) in operations.iter().enumerate() {
        let Record { op, ended: Ended::Ok(answer), .. } = &mut broken[place].record else {
            continue;
        };
        if !contradict(&op.1, answer) {
            continue;
        }
        contradicted += 1;
        let verdict = model.judge(&write(&broken, Format::Edn), Level::KeyRealTime).to_string();
        let malformed = verdict.starts_with("malformed at line");
        assert!(malformed && verdict.contains("answered with"), "{workload}: {verdict}");
        broken[place] = whole.clone();
        if contradicted == 10 {
            return;
        }
    }
    // Looks at indexes ask for names only.
    assert!(contradicted > 0 || model == Model::Index, "{workload}: nothing to contradict");
}

#[test]
fn a_planted_bug_is_seen_in_the_file_alone() {
    let planted = Some("fast-path-skips-cache".parse().expect("a known bug"));
    let broken = (1..40).any(|seed| {
        let (_, operations) =
            run_cut(Options { seed, workload: Kind::Append, planted }, &Cut::default());
        !Model::ListAppend.judge(&write(&operations, Format::Edn), Level::KeyRealTime).is_good()
    });
    assert!(broken, "no history of forty shows it");
}

/// Workloads whose transactions know their commit timestamps.
const DATED: [Kind; 4] = [Kind::Register, Kind::Append, Kind::Txn, Kind::Strict];

#[test]
fn timestamps_in_a_seed_s_file_fit_what_was_read() {
    for workload in DATED {
        let (report, operations) =
            run_cut(Options { seed: 3, workload, planted: None }, &Cut::default());
        assert_eq!(report.verdict, Ok(()), "{workload}");
        for format in [Format::Edn, Format::Json] {
            let text = write(&operations, format);
            let verdict = Model::Mvcc.judge(&text, Level::KeyRealTime);
            assert!(verdict.is_good(), "{workload}: {verdict}");
            let without = text.replace(":ts", ":was").replace("\"ts\"", "\"was\"");
            let undated = Model::Mvcc.judge(&without, Level::KeyRealTime).to_string();
            assert!(undated.contains("without its commit timestamp"), "{workload}: {undated}");
        }
    }
}

#[test]
fn the_file_s_timestamps_convict_whom_the_simulator_convicts() {
    let planted = Some("fast-path-skips-cache".parse().expect("a known bug"));
    let mut convicted = 0;
    for seed in 1..40 {
        let (report, operations) =
            run_cut(Options { seed, workload: Kind::Append, planted }, &Cut::default());
        let verdict = Model::Mvcc.judge(&write(&operations, Format::Edn), Level::KeyRealTime);
        let bad = matches!(verdict, Verdict::Bad(_));
        // What its world has seen inside the simulator tells before what its judges say.
        let told = report.verdict.err().unwrap_or_default();
        assert!(!bad || !told.is_empty(), "{seed}: only the file is bad: {verdict}");
        let by_timestamps = told.starts_with("key ") && told.contains("read at");
        assert!(bad || !by_timestamps, "{seed}: the file is {verdict}, and {told}");
        convicted += usize::from(bad);
        if convicted == 3 {
            return;
        }
    }
    panic!("{convicted} histories of forty show it");
}
