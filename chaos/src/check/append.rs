//! Value: judges transactions over lists (after Adya 1999, and Elle, VLDB 2020): could they have run one after another?
//!
//! Clients append unique numbers to lists and read whole lists. A read shows the order of all appends before it, so that the order of
//! versions is known, not guessed. From it follow the edges of a graph over transactions:
//!
//! ```text
//!   ww   T1 appended, then T2 right after it        wr   T1 appended the last number that T2 read
//!   rw   T1 read a list, T2 appended the next       rt   T1 was answered before T2 was asked (per list, see below)
//! ```
//!
//! A cycle is an anomaly, named by its edges: *G0* (ww only), *G1c* (ww and wr), *G-single* (one rw), *G2* (several rw). Without the
//! graph: *G1a* a read of an append that failed, *G1b* a read of a transaction's half, and lists that do not agree with each other.
//!
//! Real-time edges are added between transactions of which one wrote a key that both touched: SERIALIZABLE promises that a reader sees
//! what was acknowledged before it began (per key), and not more; a causal reverse across keys is allowed.

use std::collections::{BTreeMap, BTreeSet};

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

/// Why one transaction must come before another, from weak to strong for naming.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Edge {
    Ww,
    Wr,
    RealTime,
    Rw,
}

/// Judges a history. `last` are the lists after everything has ended.
///
/// # Errors
/// The anomaly, by its name, with the transactions.
pub fn check(
    history: &[Record<Txn, Reads>],
    last: &BTreeMap<u32, Vec<u64>>,
    real_time: RealTime,
) -> Result<(), String> {
    check_lists(history, last)?;
    check_own(history)?;
    let mut graph = Graph::new(history, last);
    match real_time {
        RealTime::Demanded => graph.add_real_time(),
        RealTime::Waived => {}
    }
    graph.find_cycle()
}

/// Whether clocks were within their bound, so that real time counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RealTime {
    /// They were.
    Demanded,
    /// They were not: serializability is all that is promised.
    Waived,
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
    for record in history {
        if !matches!(record.ended, Ended::Ok(_)) {
            continue;
        }
        for step in &record.op {
            if let Step::Append { list, number } = step
                && !last.get(list).is_some_and(|whole| whole.contains(number))
            {
                return Err(format!(
                    "{number} was acknowledged and is lost from list {list}: {record:?}"
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
                            "malformed history: fewer answers than reads in {record:?}"
                        ));
                    };
                    let mine = own.get(list).map(Vec::as_slice).unwrap_or_default();
                    if !seen.ends_with(mine) {
                        return Err(format!(
                            "internal: a transaction does not see its own appends: {record:?}"
                        ));
                    }
                    let others = &seen[..seen.len() - mine.len()];
                    if let Some(end) = others.last()
                        && last_of.get(end).is_some_and(|last| last != end)
                    {
                        return Err(format!("G1b: half of a transaction was read: {record:?}"));
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

struct Graph<'a> {
    history: &'a [Record<Txn, Reads>],
    edges: BTreeMap<usize, BTreeMap<usize, Edge>>,
}

impl<'a> Graph<'a> {
    fn new(history: &'a [Record<Txn, Reads>], order: &BTreeMap<u32, Vec<u64>>) -> Graph<'a> {
        let mut graph = Graph { history, edges: BTreeMap::new() };
        let mut writer: BTreeMap<u64, usize> = BTreeMap::new();
        for (place, record) in history.iter().enumerate() {
            for step in &record.op {
                if let Step::Append { number, .. } = step {
                    writer.insert(*number, place);
                }
            }
        }
        for whole in order.values() {
            for pair in whole.windows(2) {
                graph.add(writer[&pair[0]], writer[&pair[1]], Edge::Ww);
            }
        }
        for (place, record) in history.iter().enumerate() {
            for (list, seen) in reads(record) {
                if let Some(end) = seen.last() {
                    graph.add(writer[end], place, Edge::Wr);
                }
                let next = order.get(&list).and_then(|whole| whole.get(seen.len()));
                if let Some(next) = next {
                    graph.add(place, writer[next], Edge::Rw);
                }
            }
        }
        graph
    }

    fn add(&mut self, from: usize, to: usize, edge: Edge) {
        if from == to {
            return;
        }
        let known = self.edges.entry(from).or_default().entry(to).or_insert(edge);
        *known = (*known).min(edge);
    }

    /// Per list: whoever was answered before another was asked comes first, if one of the two appended to it.
    fn add_real_time(&mut self) {
        let mut by_list: BTreeMap<u32, BTreeMap<usize, bool>> = BTreeMap::new();
        for (place, record) in self.history.iter().enumerate() {
            if !matches!(record.ended, Ended::Ok(_)) {
                continue;
            }
            for step in &record.op {
                let (list, wrote) = match step {
                    Step::Append { list, .. } => (*list, true),
                    Step::Read { list } => (*list, false),
                };
                *by_list.entry(list).or_default().entry(place).or_default() |= wrote;
            }
        }
        for places in by_list.into_values() {
            for (before, wrote_before) in &places {
                for (after, wrote_after) in &places {
                    let ordered = self.history[*before].heard < self.history[*after].asked;
                    if ordered && (*wrote_before || *wrote_after) {
                        self.add(*before, *after, Edge::RealTime);
                    }
                }
            }
        }
    }

    /// Depth-first search for strongly connected components (Tarjan 1972); any with two members is an anomaly.
    fn find_cycle(&self) -> Result<(), String> {
        let Some(component) = self.first_component() else { return Ok(()) };
        let cycle = self.shortest_cycle(&component);
        let edges: Vec<Edge> = cycle.iter().map(|(_, edge)| *edge).collect();
        let anti = edges.iter().filter(|edge| **edge == Edge::Rw).count();
        let name = match anti {
            0 if edges.iter().all(|edge| *edge == Edge::Ww) => "G0",
            0 => "G1c",
            1 => "G-single",
            _ => "G2",
        };
        let real_time = if edges.contains(&Edge::RealTime) { " with real time" } else { "" };
        let mut text = format!("{name}{real_time}:");
        for (place, edge) in cycle {
            text.push_str(&format!("\n  {:?}\n    before ({edge:?})", self.history[place]));
        }
        Err(text)
    }

    fn next_of(&self, place: usize) -> impl Iterator<Item = (usize, Edge)> + '_ {
        self.edges.get(&place).into_iter().flatten().map(|(to, edge)| (*to, *edge))
    }

    fn first_component(&self) -> Option<BTreeSet<usize>> {
        let count = self.history.len();
        let mut index = vec![usize::MAX; count];
        let mut low = vec![0; count];
        let mut on_stack = vec![false; count];
        let (mut stack, mut next_index) = (Vec::new(), 0);
        for root in 0..count {
            if index[root] != usize::MAX {
                continue;
            }
            let mut work =
                vec![(root, self.next_of(root).map(|(to, _)| to).collect::<Vec<_>>(), 0)];
            index[root] = next_index;
            low[root] = next_index;
            next_index += 1;
            stack.push(root);
            on_stack[root] = true;
            while let Some((place, successors, at)) = work.last_mut() {
                let place = *place;
                if let Some(to) = successors.get(*at).copied() {
                    *at += 1;
                    if index[to] == usize::MAX {
                        index[to] = next_index;
                        low[to] = next_index;
                        next_index += 1;
                        stack.push(to);
                        on_stack[to] = true;
                        work.push((to, self.next_of(to).map(|(to, _)| to).collect(), 0));
                    } else if on_stack[to] {
                        low[place] = low[place].min(index[to]);
                    }
                    continue;
                }
                work.pop();
                if let Some((parent, _, _)) = work.last() {
                    low[*parent] = low[*parent].min(low[place]);
                }
                if low[place] == index[place] {
                    let mut component = BTreeSet::new();
                    while let Some(member) = stack.pop() {
                        on_stack[member] = false;
                        component.insert(member);
                        if member == place {
                            break;
                        }
                    }
                    if component.len() > 1 {
                        return Some(component);
                    }
                }
            }
        }
        None
    }

    /// A short way round within the component, from its first member; each with the edge that leaves it.
    fn shortest_cycle(&self, component: &BTreeSet<usize>) -> Vec<(usize, Edge)> {
        let mut best: Vec<(usize, Edge)> = Vec::new();
        for start in component {
            let mut came: BTreeMap<usize, (usize, Edge)> = BTreeMap::new();
            let mut queue = std::collections::VecDeque::from([*start]);
            'search: while let Some(place) = queue.pop_front() {
                for (to, edge) in self.next_of(place).filter(|(to, _)| component.contains(to)) {
                    if came.contains_key(&to) {
                        continue;
                    }
                    came.insert(to, (place, edge));
                    if to == *start {
                        break 'search;
                    }
                    queue.push_back(to);
                }
            }
            let mut cycle = Vec::new();
            let mut at = *start;
            while let Some((from, edge)) = came.get(&at) {
                cycle.push((*from, *edge));
                at = *from;
                if at == *start {
                    break;
                }
            }
            cycle.reverse();
            if !cycle.is_empty() && (best.is_empty() || cycle.len() < best.len()) {
                best = cycle;
            }
        }
        best
    }
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
        match check(history, last, RealTime::Demanded) {
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
        assert_eq!(verdict(&history, &lists(&[(1, &[10]), (2, &[20])])), "G2");
    }

    #[test]
    fn a_lost_update_is_g_single() {
        let history = [
            ok(0, 9, vec![read(1), append(1, 10)], vec![vec![]]),
            ok(0, 9, vec![read(1), append(1, 11)], vec![vec![]]),
        ];
        assert_eq!(verdict(&history, &lists(&[(1, &[10, 11])])), "G-single");
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
        assert!(
            check(std::slice::from_ref(&acknowledged), &lists(&[(1, &[])]), RealTime::Demanded)
                .is_err()
        );
        let unknown = Record { ended: Ended::Unknown, heard: u64::MAX, ..acknowledged };
        assert_eq!(
            check(std::slice::from_ref(&unknown), &lists(&[(1, &[])]), RealTime::Demanded),
            Ok(())
        );
        assert_eq!(check(&[unknown], &lists(&[(1, &[10])]), RealTime::Demanded), Ok(()));
    }

    #[test]
    fn a_stale_read_breaks_real_time_on_its_key_alone() {
        let write = ok(0, 1, vec![append(1, 10)], vec![]);
        let stale = ok(2, 3, vec![read(1)], vec![vec![]]);
        assert_eq!(
            verdict(&[write.clone(), stale], &lists(&[(1, &[10])])),
            "G-single with real time"
        );
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
}
