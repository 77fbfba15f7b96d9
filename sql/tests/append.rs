//! Histories of explicit transactions, most of which get into each other's way, are serializable: with transactions that are run again
//! unseen among them, and as strictly as without.
//!
//! Each list is a row; transactions read lists and append to them what nobody else appends. The final lists tell the order of the
//! writes, what was read tells the rest: an edge for each pair of transactions of which one must come first. A cycle is a violation
//! (Adya; Elle's list-append, Kingsbury and Alvaro 2020).

use crate::world::{TestCluster, run};
use futures::FutureExt;
use parking_lot::Mutex;
use sql::Session;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use txn::runtime::Runtime;

const LISTS: u64 = 4;
const SESSIONS: u64 = 5;
const TRANSACTIONS: u64 = 8;
const OPERATIONS_MAX: u64 = 4;

/// What a committed transaction has done.
#[derive(Default, Debug)]
struct Committed {
    /// List, and what was in it.
    reads: Vec<(u64, Vec<String>)>,
    /// List and token.
    appends: Vec<(u64, String)>,
}

#[derive(Default, Debug)]
struct History {
    committed: Vec<Committed>,
    /// Tokens of transactions that were told 40001 or 40P01.
    refused: Vec<String>,
}

async fn transaction(
    session: &mut Session,
    runtime: &Runtime,
    name: &str,
    history: &Mutex<History>,
) {
    let random = |below: u64| runtime.random.next_u64() % below;
    let pause = |below_us: u64| {
        let pause = Duration::from_micros(random(below_us));
        runtime.time.sleep_until(runtime.time.monotonic().plus(pause))
    };
    let mut done = Committed::default();
    let mut answer = run(session, "BEGIN").await;
    for number in 0..1 + random(OPERATIONS_MAX) {
        pause(2_000).await;
        let list = random(LISTS);
        answer = if random(3) == 0 {
            let token = format!("{name}.{number}");
            let append = format!("UPDATE lists SET items = items || ' {token}' WHERE id = {list}");
            done.appends.push((list, token));
            run(session, &append).await
        } else {
            // Half of the reads see a column of the row that nobody changes: a conflict over it does not show.
            let column = if random(2) == 0 { "items" } else { "id" };
            let read = format!("SELECT {column} FROM lists WHERE id = {list}");
            let answer = run(session, &read).await;
            if column == "items" && !answer.contains("ERROR") {
                done.reads.push((list, tokens(&answer)));
            }
            answer
        };
        if answer.contains("ERROR") {
            break;
        }
    }
    if !answer.contains("ERROR") {
        pause(2_000).await;
        answer = run(session, "COMMIT").await;
    }
    let refused = answer.contains("ERROR");
    if refused {
        assert!(answer.contains("[40001]") || answer.contains("[40P01]"), "{answer}");
        run(session, "ROLLBACK").await;
        history.lock().refused.extend(done.appends.into_iter().map(|(_, token)| token));
    } else {
        history.lock().committed.push(done);
    }
}

/// Of a list, as printed below its heading.
fn tokens(answer: &str) -> Vec<String> {
    answer.lines().nth(1).unwrap_or("").split_whitespace().map(str::to_string).collect()
}

/// Transactions that must come one before the other.
fn edges(history: &History, lists: &[Vec<String>]) -> BTreeSet<(usize, usize)> {
    let mut writer: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, committed) in history.committed.iter().enumerate() {
        writer.extend(committed.appends.iter().map(|(_, token)| (token.as_str(), place)));
    }
    let by = |token: &String| *writer.get(token.as_str()).expect("only committed tokens are there");
    let mut edges = BTreeSet::new();
    for list in lists {
        edges.extend(list.windows(2).map(|pair| (by(&pair[0]), by(&pair[1]))));
    }
    for (reader, committed) in history.committed.iter().enumerate() {
        for (list, seen) in &committed.reads {
            let all = &lists[usize::try_from(*list).expect("few lists")];
            // It sees its own appends behind everything else.
            let others: Vec<&String> = seen.iter().filter(|token| by(token) != reader).collect();
            let prefix: Vec<&String> = all.iter().take(others.len()).collect();
            assert_eq!(others, prefix, "{reader} has read what was never there: {all:?}");
            edges.extend(others.last().map(|token| (by(token), reader)));
            let next = all.iter().skip(others.len()).find(|token| by(token) != reader);
            edges.extend(next.map(|token| (reader, by(token))));
        }
    }
    edges.retain(|(before, after)| before != after);
    edges
}

/// Removes whoever has nobody before it, again and again: what is left is in cycles.
fn cycles(count: usize, mut edges: BTreeSet<(usize, usize)>) -> BTreeSet<usize> {
    let mut left: BTreeSet<usize> = (0..count).collect();
    loop {
        let after: BTreeSet<usize> = edges.iter().map(|(_, after)| *after).collect();
        let first: Vec<usize> = left.difference(&after).copied().collect();
        if first.is_empty() {
            return left;
        }
        for one in first {
            left.remove(&one);
            edges.retain(|(before, _)| *before != one);
        }
    }
}

/// Plays a history; how many were committed, and refused.
fn play(seed: u64, rerun_limit: u32) -> (usize, usize) {
    let cluster = TestCluster::with_seed(seed);
    let mut own = cluster.session(&cluster.east);
    cluster.run(&mut own, "CREATE TABLE lists (id int PRIMARY KEY, items text)");
    for list in 0..LISTS {
        cluster.run(&mut own, &format!("INSERT INTO lists VALUES ({list}, '')"));
    }
    let history: Arc<Mutex<History>> = Arc::default();
    let (runtime, ended) = (cluster.world.runtime(), Arc::new(Mutex::new(0)));
    for number in 0..SESSIONS {
        let engine = if number % 2 == 0 { &cluster.east } else { &cluster.west };
        let mut session = cluster.session(engine);
        let (history, runtime, ended) = (history.clone(), runtime.clone(), ended.clone());
        let work = async move {
            run(&mut session, &format!("SET transaction_rerun_limit = {rerun_limit}")).await;
            for transaction_number in 0..TRANSACTIONS {
                let name = format!("s{number}t{transaction_number}");
                transaction(&mut session, &runtime, &name, &history).await;
            }
            *ended.lock() += 1;
        };
        cluster.world.spawn(work.boxed());
    }
    cluster.world.settle(Duration::from_secs(600));
    assert_eq!(*ended.lock(), SESSIONS, "seed {seed}: somebody waits for ever");
    let lists: Vec<Vec<String>> = (0..LISTS)
        .map(|list| {
            tokens(&cluster.run(&mut own, &format!("SELECT items FROM lists WHERE id = {list}")))
        })
        .collect();
    let history = history.lock();
    let mut there: Vec<&String> = lists.iter().flatten().collect();
    let mut due: Vec<&String> = history
        .committed
        .iter()
        .flat_map(|one| one.appends.iter().map(|(_, token)| token))
        .collect();
    there.sort();
    due.sort();
    assert_eq!(there, due, "seed {seed}: what was committed is there, once, and nothing else");
    let cycles = cycles(history.committed.len(), edges(&history, &lists));
    assert!(cycles.is_empty(), "seed {seed}: {cycles:?} of {history:#?} over {lists:?}");
    let refused = usize::try_from(SESSIONS * TRANSACTIONS).expect("few") - history.committed.len();
    (history.committed.len(), refused)
}

#[test]
fn histories_with_transactions_that_are_run_again_are_serializable() {
    let (mut with, mut without) = (0, 0);
    for seed in 1..=12 {
        with += play(seed, 10).1;
        without += play(seed, 0).1;
    }
    assert!(without > 0, "nobody was in anybody's way: this proves nothing");
    assert!(
        with < without,
        "{with} were refused though they could be run again, {without} without"
    );
}
