//! Value: judges transactions over lists (after Adya 1999, and Elle, VLDB 2020): could they have run one after another?
//!
//! Clients append unique numbers to lists and read whole lists. A read shows the order of all appends before it, so that the order of
//! versions is known, not guessed. From it follow the edges of [`super::graph`], and a cycle is an anomaly. Without the graph: *G1a* a
//! read of an append that failed, *G1b* a read of a transaction's half, *internal* a transaction that does not see its own appends,
//! *incompatible order* lists that do not agree with each other, *lost* an acknowledged append that is not there at the end. A
//! *lost update* is a G-single of two transactions that read the same version and both append to it.
//!
//! Real-time edges per list ([`Level::KeyRealTime`]) are between transactions of which one wrote a list that both touched:
//! SERIALIZABLE promises that a reader sees what was acknowledged before it began (per key), and not more; a causal reverse across
//! keys is allowed.

use std::collections::{BTreeMap, BTreeSet};

use super::Level;
use super::graph::{Edge, Graph, Moment};
use crate::history::{Ended, Record};

/// One step of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Appends a number that nobody else appends, ever.
    Append {
        /// To which list.
        list: u32,
        /// What.
        number: u64,
    },
    /// Reads a list.
    Read {
        /// Which.
        list: u32,
    },
}

/// A transaction.
pub type Txn = Vec<Step>;
/// What its reads saw, in order.
pub type Reads = Vec<Vec<u64>>;

/// A history.
type Records = [Record<Txn, Reads>];

/// Judges a history. `last` are the lists after everything has ended, if they were read; else the longest reads stand for them.
///
/// # Errors
/// The anomaly, by its name, with the transactions.
pub fn check(
    history: &Records,
    last: Option<&BTreeMap<u32, Vec<u64>>>,
    level: Level,
) -> Result<(), String> {
    let longest = longest_reads(history);
    check_lists(history, last.unwrap_or(&longest))?;
    if let Some(last) = last {
        check_lost(history, last)?;
    }
    check_own(history)?;
    let mut graph = dependencies(history, last.unwrap_or(&longest));
    match level {
        Level::Serializable => {}
        Level::Session => add_sessions(&mut graph, history),
        Level::KeyRealTime => add_key_real_time(&mut graph, history),
        Level::Strict => {
            add_sessions(&mut graph, history);
            graph.add_real_time(&mut moments(history));
        }
    }
    let Some(cycle) = graph.worst_cycle() else { return Ok(()) };
    let update = if cycle.name.starts_with("G0") || cycle.name.starts_with("G1") {
        None
    } else {
        lost_update(history)
    };
    if let Some((first, second)) = update {
        return Err(format!("lost update:\n  {}\n  {}", history[first], history[second]));
    }
    let mut text = format!("{}:", cycle.name);
    for (place, edge) in cycle.steps {
        text.push_str(&format!("\n  {}\n    before ({edge})", history[place]));
    }
    Err(text)
}

fn longest_reads(history: &Records) -> BTreeMap<u32, Vec<u64>> {
    let mut longest: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for (list, seen) in history.iter().flat_map(reads) {
        let known = longest.entry(list).or_default();
        if seen.len() > known.len() {
            known.clone_from(seen);
        }
    }
    longest
}

/// All reads of a list are prefixes of its longest; numbers come once, from a transaction that did not fail.
fn check_lists(
    history: &[Record<Txn, Reads>],
    last: &BTreeMap<u32, Vec<u64>>,
) -> Result<(), String> {
    let mut writers: BTreeMap<u64, (u32, usize)> = BTreeMap::new();
    for (place, record) in history.iter().enumerate() {
        for step in &record.op {
            if let Step::Append { list, number } = step
                && writers.insert(*number, (*list, place)).is_some()
            {
                return Err(format!("malformed history: {number} is appended twice"));
            }
        }
    }
    for record in history {
        for (list, seen) in reads(record) {
            let whole = last.get(&list).map(Vec::as_slice).unwrap_or_default();
            if !whole.starts_with(seen) {
                return Err(format!(
                    "incompatible order: list {list} was read as {seen:?} and ended as {whole:?}"
                ));
            }
        }
    }
    for (list, whole) in last {
        let mut once = BTreeSet::new();
        for number in whole {
            if !once.insert(number) {
                return Err(format!("list {list} has {number} twice"));
            }
            match writers.get(number) {
                Some((of, _)) if of != list => {
                    return Err(format!("list {list} has {number} of list {of}"));
                }
                None => return Err(format!("list {list} has {number}, which nobody appended")),
                Some((_, place)) if history[*place].ended == Ended::Fail => {
                    return Err(format!(
                        "G1a: list {list} has {number} of a transaction that failed"
                    ));
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// What was acknowledged is there.
fn check_lost(history: &Records, last: &BTreeMap<u32, Vec<u64>>) -> Result<(), String> {
    for record in history {
        if !matches!(record.ended, Ended::Ok(_)) {
            continue;
        }
        for step in &record.op {
            if let Step::Append { list, number } = step
                && !last.get(list).is_some_and(|whole| whole.contains(number))
            {
                return Err(format!(
                    "lost: {number} was acknowledged and is not in list {list}: {record}"
                ));
            }
        }
    }
    Ok(())
}

/// A transaction sees its own appends, and others' transactions whole.
fn check_own(history: &[Record<Txn, Reads>]) -> Result<(), String> {
    let mut last_of: BTreeMap<u64, u64> = BTreeMap::new();
    for record in history {
        let mut latest: BTreeMap<u32, u64> = BTreeMap::new();
        for step in &record.op {
            if let Step::Append { list, number } = step {
                latest.insert(*list, *number);
            }
        }
        for step in &record.op {
            if let Step::Append { list, number } = step {
                last_of.insert(*number, latest[list]);
            }
        }
    }
    for record in history {
        let Ended::Ok(answers) = &record.ended else { continue };
        let mut own: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let mut seen = answers.iter();
        for step in &record.op {
            match step {
                Step::Append { list, number } => own.entry(*list).or_default().push(*number),
                Step::Read { list } => {
                    let Some(seen) = seen.next() else {
                        return Err(format!(
                            "malformed history: fewer answers than reads in {record}"
                        ));
                    };
                    let mine = own.get(list).map(Vec::as_slice).unwrap_or_default();
                    if !seen.ends_with(mine) {
                        return Err(format!(
                            "internal: a transaction does not see its own appends: {record}"
                        ));
                    }
                    let others = &seen[..seen.len() - mine.len()];
                    if let Some(end) = others.last()
                        && last_of.get(end).is_some_and(|last| last != end)
                    {
                        return Err(format!("G1b: half of a transaction was read: {record}"));
                    }
                }
            }
        }
    }
    Ok(())
}

fn reads(record: &Record<Txn, Reads>) -> Vec<(u32, &Vec<u64>)> {
    let Ended::Ok(answers) = &record.ended else { return Vec::new() };
    let lists = record.op.iter().filter_map(|step| match step {
        Step::Read { list } => Some(*list),
        Step::Append { .. } => None,
    });
    lists.zip(answers).collect()
}

/// Edges that follow from what was read and written.
fn dependencies(history: &Records, order: &BTreeMap<u32, Vec<u64>>) -> Graph {
    let mut graph = Graph::new(history.len());
    let mut writer: BTreeMap<u64, usize> = BTreeMap::new();
    let mut unseen: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (place, record) in history.iter().enumerate() {
        for step in &record.op {
            if let Step::Append { list, number } = step {
                writer.insert(*number, place);
                let seen = order.get(list).is_some_and(|whole| whole.contains(number));
                if !seen && matches!(record.ended, Ended::Ok(_)) {
                    unseen.entry(*list).or_default().push(place);
                }
            }
        }
    }
    for whole in order.values() {
        for pair in whole.windows(2) {
            graph.add(writer[&pair[0]], writer[&pair[1]], Edge::Ww);
        }
    }
    // Acknowledged and never read: after everything that was read, in an order that nobody knows.
    for (list, places) in &unseen {
        if let Some(end) = order.get(list).and_then(|whole| whole.last()) {
            places.iter().for_each(|place| graph.add(writer[end], *place, Edge::Ww));
        }
    }
    for (place, record) in history.iter().enumerate() {
        for (list, seen) in reads(record) {
            if let Some(end) = seen.last() {
                graph.add(writer[end], place, Edge::Wr);
            }
            match order.get(&list).and_then(|whole| whole.get(seen.len())) {
                Some(next) => graph.add(place, writer[next], Edge::Rw),
                None => {
                    let later = unseen.get(&list).into_iter().flatten();
                    later.for_each(|writer| graph.add(place, *writer, Edge::Rw));
                }
            }
        }
    }
    graph
}

fn moment(place: usize, record: &Record<Txn, Reads>, wrote: bool) -> Moment {
    Moment { place, asked: record.asked, heard: record.heard, wrote }
}

fn answered(history: &Records) -> impl Iterator<Item = (usize, &Record<Txn, Reads>)> {
    let all = history.iter().enumerate();
    all.filter(|(_, record)| matches!(record.ended, Ended::Ok(_)))
}

/// Everybody is ordered with everybody.
fn moments(history: &Records) -> Vec<Moment> {
    answered(history).map(|(place, record)| moment(place, record, true)).collect()
}

fn add_key_real_time(graph: &mut Graph, history: &Records) {
    let mut by_list: BTreeMap<u32, Vec<Moment>> = BTreeMap::new();
    for (place, record) in answered(history) {
        let mut touched: BTreeMap<u32, bool> = BTreeMap::new();
        for step in &record.op {
            match step {
                Step::Append { list, .. } => *touched.entry(*list).or_default() = true,
                Step::Read { list } => *touched.entry(*list).or_default() |= false,
            }
        }
        for (list, wrote) in touched {
            by_list.entry(list).or_default().push(moment(place, record, wrote));
        }
    }
    by_list.values_mut().for_each(|moments| graph.add_real_time(moments));
}

fn add_sessions(graph: &mut Graph, history: &Records) {
    let mut by_client: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (place, record) in answered(history) {
        by_client.entry(record.client).or_default().push(place);
    }
    for places in by_client.values_mut() {
        places.sort_by_key(|place| history[*place].asked);
        graph.add_session(places);
    }
}

/// Two transactions that read the same version of a list before their first own append, and both appended to it.
fn lost_update(history: &Records) -> Option<(usize, usize)> {
    let mut updates: BTreeMap<(u32, usize), usize> = BTreeMap::new();
    for (place, record) in answered(history) {
        let Ended::Ok(answers) = &record.ended else { continue };
        let mut seen = answers.iter();
        let mut read: BTreeMap<u32, usize> = BTreeMap::new();
        let mut wrote: BTreeSet<u32> = BTreeSet::new();
        for step in &record.op {
            match step {
                Step::Read { list } => {
                    let length = seen.next().map_or(0, Vec::len);
                    if !wrote.contains(list) {
                        read.entry(*list).or_insert(length);
                    }
                }
                Step::Append { list, .. } => {
                    wrote.insert(*list);
                }
            }
        }
        for (list, length) in read.into_iter().filter(|(list, _)| wrote.contains(list)) {
            if let Some(former) = updates.insert((list, length), place) {
                return Some((former, place));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(list: u32, number: u64) -> Step {
        Step::Append { list, number }
    }

    fn read(list: u32) -> Step {
        Step::Read { list }
    }

    fn ok(asked: u64, heard: u64, op: Txn, reads: Reads) -> Record<Txn, Reads> {
        Record { client: 1, asked, heard, op, ended: Ended::Ok(reads) }
    }

    fn lists(lists: &[(u32, &[u64])]) -> BTreeMap<u32, Vec<u64>> {
        lists.iter().map(|(list, numbers)| (*list, numbers.to_vec())).collect()
    }

    fn verdict(history: &[Record<Txn, Reads>], last: &BTreeMap<u32, Vec<u64>>) -> String {
        match check(history, Some(last), Level::KeyRealTime) {
            Ok(()) => "good".to_string(),
            Err(what) => what.split(':').next().unwrap_or_default().to_string(),
        }
    }

    #[test]
    fn one_after_another_is_good() {
        let history = [
            ok(0, 1, vec![append(1, 10), append(2, 11)], vec![]),
            ok(2, 3, vec![read(1), append(1, 12), read(1)], vec![vec![10], vec![10, 12]]),
            ok(4, 5, vec![read(2), read(1)], vec![vec![11], vec![10, 12]]),
        ];
        assert_eq!(verdict(&history, &lists(&[(1, &[10, 12]), (2, &[11])])), "good");
    }

    #[test]
    fn write_skew_is_g2() {
        let history = [
            ok(0, 9, vec![read(1), append(2, 20)], vec![vec![]]),
            ok(0, 9, vec![read(2), append(1, 10)], vec![vec![]]),
        ];
        assert_eq!(verdict(&history, &lists(&[(1, &[10]), (2, &[20])])), "G2-item");
    }

    #[test]
    fn a_lost_update_is_told_as_such() {
        let history = [
            ok(0, 9, vec![read(1), append(1, 10)], vec![vec![]]),
            ok(0, 9, vec![read(1), append(1, 11)], vec![vec![]]),
        ];
        assert_eq!(verdict(&history, &lists(&[(1, &[10, 11])])), "lost update");
    }

    #[test]
    fn opposite_orders_of_writes_are_g0() {
        let history = [
            ok(0, 9, vec![append(1, 10), append(2, 20)], vec![]),
            ok(0, 9, vec![append(1, 11), append(2, 21)], vec![]),
        ];
        assert_eq!(verdict(&history, &lists(&[(1, &[10, 11]), (2, &[21, 20])])), "G0");
    }

    #[test]
    fn reading_each_other_is_g1c() {
        let history = [
            ok(0, 9, vec![append(1, 10), read(2)], vec![vec![20]]),
            ok(0, 9, vec![append(2, 20), read(1)], vec![vec![10]]),
        ];
        assert_eq!(verdict(&history, &lists(&[(1, &[10]), (2, &[20])])), "G1c");
    }

    #[test]
    fn reading_what_failed_is_g1a_and_half_of_it_g1b() {
        let failed =
            Record { client: 1, asked: 0, heard: 1, op: vec![append(1, 10)], ended: Ended::Fail };
        let seen = ok(2, 3, vec![read(1)], vec![vec![10]]);
        assert_eq!(verdict(&[failed, seen], &lists(&[(1, &[10])])), "G1a");
        let two = ok(0, 9, vec![append(1, 10), append(1, 11)], vec![]);
        let half = ok(0, 9, vec![read(1)], vec![vec![10]]);
        assert_eq!(verdict(&[two, half], &lists(&[(1, &[10, 11])])), "G1b");
    }

    #[test]
    fn an_acknowledged_append_must_be_there_and_an_unknown_one_may() {
        let acknowledged = ok(0, 1, vec![append(1, 10)], vec![]);
        let judge = |record: &Record<Txn, Reads>, last: &[u64]| {
            verdict(std::slice::from_ref(record), &lists(&[(1, last)]))
        };
        assert_eq!(judge(&acknowledged, &[]), "lost");
        let unknown = Record { ended: Ended::Unknown, heard: u64::MAX, ..acknowledged };
        assert_eq!(judge(&unknown, &[]), "good");
        assert_eq!(judge(&unknown, &[10]), "good");
    }

    #[test]
    fn a_stale_read_breaks_real_time_on_its_key_alone() {
        let write = ok(0, 1, vec![append(1, 10)], vec![]);
        let stale = ok(2, 3, vec![read(1)], vec![vec![]]);
        assert_eq!(verdict(&[write.clone(), stale], &lists(&[(1, &[10])])), "G-single-realtime");
        let elsewhere = ok(2, 3, vec![read(2)], vec![vec![]]);
        assert_eq!(verdict(&[write, elsewhere], &lists(&[(1, &[10])])), "good");
    }

    #[test]
    fn lists_that_disagree_are_refused() {
        let history = [
            ok(0, 9, vec![append(1, 10)], vec![]),
            ok(0, 9, vec![append(1, 11)], vec![]),
            ok(0, 9, vec![read(1)], vec![vec![11]]),
        ];
        assert_eq!(verdict(&history, &lists(&[(1, &[10, 11])])), "incompatible order");
    }
    #[test]
    fn a_read_skew_is_g_single() {
        let history = [
            ok(0, 9, vec![append(1, 10), append(2, 20)], vec![]),
            ok(0, 9, vec![read(1), read(2)], vec![vec![10], vec![]]),
        ];
        assert_eq!(verdict(&history, &lists(&[(1, &[10]), (2, &[20])])), "G-single");
    }

    #[test]
    fn one_that_does_not_see_its_own_append_is_internal() {
        let history = [ok(0, 9, vec![append(1, 10), read(1)], vec![vec![]])];
        assert_eq!(verdict(&history, &lists(&[(1, &[10])])), "internal");
    }

    #[test]
    fn levels_ask_for_more_and_more() {
        let judge = |history: &[Record<Txn, Reads>], level| match check(history, None, level) {
            Ok(()) => "good".to_string(),
            Err(what) => what.split(':').next().unwrap_or_default().to_string(),
        };
        let levels = [Level::Serializable, Level::Session, Level::KeyRealTime, Level::Strict];
        let of = |client, record| Record { client, ..record };
        // A client does not see its own former append; it may say so in any order but that of its session.
        let own = [
            of(1, ok(0, 1, vec![append(1, 10)], vec![])),
            of(1, ok(2, 3, vec![read(1)], vec![vec![]])),
            of(2, ok(4, 5, vec![read(1)], vec![vec![10]])),
        ];
        let verdicts = levels.map(|level| judge(&own, level));
        assert_eq!(verdicts, ["good", "G-single-session", "G-single-realtime", "G-single-session"]);
        // Causal reverse: two lists, two clients, one after another; a reader sees the later append alone.
        let reverse = [
            of(1, ok(0, 1, vec![append(1, 10)], vec![])),
            of(2, ok(2, 3, vec![append(2, 20)], vec![])),
            of(3, ok(0, 9, vec![read(1), read(2)], vec![vec![], vec![20]])),
            of(4, ok(10, 11, vec![read(1)], vec![vec![10]])),
        ];
        let verdicts = levels.map(|level| judge(&reverse, level));
        assert_eq!(verdicts, ["good", "good", "good", "G-single-realtime"]);
        // Acknowledged, and a later read that is nobody's last word does not see it.
        let lost = [
            of(1, ok(0, 1, vec![append(1, 10)], vec![])),
            of(2, ok(2, 3, vec![read(1)], vec![vec![]])),
        ];
        assert_eq!(judge(&lost, Level::KeyRealTime), "G-single-realtime");
        assert_eq!(judge(&lost, Level::Serializable), "good");
    }
}
