//! Value: judges transactions over registers that are written and read: could they have run one after another?
//!
//! Every written value is unique, so who wrote what was read is known; the order of versions is not, and is inferred: everything comes
//! after the initial nothing; a transaction that read a version and then wrote one wrote the later one; and in real time per key
//! ([`Level::KeyRealTime`], [`Level::Strict`]) a version that an answered transaction has read or written is not later than one that
//! is written or first seen by a transaction asked after it. From it follow the edges of [`super::graph`]. An order that goes round
//! is a *cyclic versions* anomaly by itself.

use std::collections::{BTreeMap, BTreeSet};

use super::Level;
use super::graph::{Edge, Graph, Moment};
use crate::history::{Ended, Record};

/// One step of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Writes a value that nobody else writes, ever.
    Write {
        /// Which register.
        key: u64,
        /// What.
        value: u64,
    },
    /// Reads.
    Read {
        /// Which register.
        key: u64,
    },
}

/// A transaction.
pub type Txn = Vec<Step>;
/// What its reads saw, in order; `None`: nothing was ever written.
pub type Reads = Vec<Option<u64>>;
type Records = [Record<Txn, Reads>];

/// A version: a register and what was in it.
type Version = (u64, Option<u64>);

/// Judges a history.
///
/// # Errors
/// The anomaly, by its name, with the transactions.
pub fn check(history: &Records, level: Level) -> Result<(), String> {
    let mut writers: BTreeMap<u64, (usize, u64)> = BTreeMap::new();
    for (place, record) in history.iter().enumerate() {
        for step in &record.op {
            if let Step::Write { key, value } = step
                && writers.insert(*value, (place, *key)).is_some()
            {
                return Err(format!("malformed history: {value} is written twice"));
            }
        }
    }
    let looks: Vec<Look> = history.iter().map(look).collect::<Result<_, _>>()?;
    for (place, look) in looks.iter().enumerate() {
        check_reads(history, place, look, &looks, &writers)?;
    }
    let mut seen: BTreeMap<Version, usize> = BTreeMap::new();
    for (place, look) in looks.iter().enumerate() {
        for (key, version) in &look.read {
            if look.wrote.contains_key(key)
                && matches!(history[place].ended, Ended::Ok(_))
                && let Some(former) = seen.insert((*key, *version), place)
            {
                return Err(format!("lost update:\n  {}\n  {}", history[former], history[place]));
            }
        }
    }
    let later = version_order(history, &looks, level);
    check_cyclic(&later)?;
    let mut graph = dependencies(history, &looks, &later, &writers);
    match level {
        Level::Serializable => {}
        Level::Session => add_sessions(&mut graph, history),
        Level::KeyRealTime => {
            for moments in moments_by_key(history, &looks).values_mut() {
                let mut moments: Vec<Moment> = moments.iter().map(|(moment, _)| *moment).collect();
                graph.add_real_time(&mut moments);
            }
        }
        Level::Strict => {
            add_sessions(&mut graph, history);
            let answered = answered(history);
            let mut moments: Vec<Moment> =
                answered.map(|(place, record)| moment(place, record, true)).collect();
            graph.add_real_time(&mut moments);
        }
    }
    let Some(cycle) = graph.worst_cycle() else { return Ok(()) };
    let mut text = format!("{}:", cycle.name);
    for (place, edge) in cycle.steps {
        text.push_str(&format!("\n  {}\n    before ({edge})", history[place]));
    }
    Err(text)
}

/// What a transaction shows to others.
#[derive(Default)]
struct Look {
    /// The version it found of each register, before it wrote there itself.
    read: BTreeMap<u64, Option<u64>>,
    /// The last value it wrote to each.
    wrote: BTreeMap<u64, u64>,
    /// Values it overwrote itself.
    half: BTreeSet<u64>,
}

fn look(record: &Record<Txn, Reads>) -> Result<Look, String> {
    let mut look = Look::default();
    let nothing = Vec::new();
    let answers = match &record.ended {
        Ended::Ok(answers) => answers,
        Ended::Fail | Ended::Unknown => &nothing,
    };
    let mut answers = answers.iter();
    for step in &record.op {
        match step {
            Step::Write { key, value } => {
                if let Some(former) = look.wrote.insert(*key, *value) {
                    look.half.insert(former);
                }
            }
            Step::Read { key } => {
                let Ended::Ok(_) = record.ended else { continue };
                let Some(seen) = answers.next() else {
                    return Err(format!("malformed history: fewer answers than reads in {record}"));
                };
                let expected = match look.wrote.get(key) {
                    Some(own) => Some(Some(*own)),
                    None => look.read.get(key).copied(),
                };
                match expected {
                    Some(expected) if expected != *seen => {
                        return Err(format!(
                            "internal: a transaction contradicts itself: {record}"
                        ));
                    }
                    Some(_) => {}
                    None => {
                        look.read.insert(*key, *seen);
                    }
                }
            }
        }
    }
    Ok(look)
}

fn check_reads(
    history: &Records,
    place: usize,
    look: &Look,
    looks: &[Look],
    writers: &BTreeMap<u64, (usize, u64)>,
) -> Result<(), String> {
    for (key, version) in &look.read {
        let Some(value) = version else { continue };
        let reader = &history[place];
        match writers.get(value) {
            None => return Err(format!("{value} was read and never written: {reader:?}")),
            Some((_, of)) if of != key => {
                return Err(format!("{value} of register {of} was read in {key}: {reader:?}"));
            }
            Some((writer, _)) if history[*writer].ended == Ended::Fail => {
                return Err(format!("G1a: a write that failed was read: {reader:?}"));
            }
            Some((writer, _)) if looks[*writer].half.contains(value) => {
                return Err(format!("G1b: half of a transaction was read: {reader:?}"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn answered(history: &Records) -> impl Iterator<Item = (usize, &Record<Txn, Reads>)> {
    let all = history.iter().enumerate();
    all.filter(|(_, record)| matches!(record.ended, Ended::Ok(_)))
}

fn moment(place: usize, record: &Record<Txn, Reads>, wrote: bool) -> Moment {
    Moment { place, asked: record.asked, heard: record.heard, wrote }
}

/// Who touched each register, with the version it left there as it knows.
fn moments_by_key(history: &Records, looks: &[Look]) -> BTreeMap<u64, Vec<(Moment, Option<u64>)>> {
    let mut by_key: BTreeMap<u64, Vec<(Moment, Option<u64>)>> = BTreeMap::new();
    for (place, record) in answered(history) {
        let look = &looks[place];
        for (key, value) in &look.wrote {
            let entry = (moment(place, record, true), Some(*value));
            by_key.entry(*key).or_default().push(entry);
        }
        for (key, version) in look.read.iter().filter(|(key, _)| !look.wrote.contains_key(key)) {
            by_key.entry(*key).or_default().push((moment(place, record, false), *version));
        }
    }
    by_key
}

/// Which versions are directly known to come later than each.
type Later = BTreeMap<Version, BTreeSet<Version>>;

fn version_order(history: &Records, looks: &[Look], level: Level) -> Later {
    let mut later = Later::new();
    for (place, record) in history.iter().enumerate() {
        // A write of unknown end has an order only if somebody saw it; then its edges are harmless anyway.
        if record.ended == Ended::Fail {
            continue;
        }
        for (key, value) in &looks[place].wrote {
            later.entry((*key, None)).or_default().insert((*key, Some(*value)));
            if let Some(former) = looks[place].read.get(key) {
                later.entry((*key, *former)).or_default().insert((*key, Some(*value)));
            }
        }
    }
    if matches!(level, Level::KeyRealTime | Level::Strict) {
        for (key, mut touched) in moments_by_key(history, looks) {
            touched.sort_by_key(|(moment, _)| moment.asked);
            for (before, version) in &touched {
                let from = touched.partition_point(|(moment, _)| moment.asked <= before.heard);
                let mut until = u64::MAX;
                for (after, next) in &touched[from..] {
                    if after.asked > until {
                        break;
                    }
                    until = until.min(after.heard);
                    if version != next {
                        later.entry((key, *version)).or_default().insert((key, *next));
                    }
                }
            }
        }
    }
    later
}

/// No version comes after itself.
fn check_cyclic(later: &Later) -> Result<(), String> {
    let mut numbers: BTreeMap<Version, usize> = BTreeMap::new();
    for version in later.iter().flat_map(|(from, to)| std::iter::once(from).chain(to)) {
        let next = numbers.len();
        numbers.entry(*version).or_insert(next);
    }
    let mut graph = Graph::new(numbers.len());
    for (from, to) in later {
        to.iter().for_each(|to| graph.add(numbers[from], numbers[to], Edge::Ww));
    }
    let Some(cycle) = graph.worst_cycle() else { return Ok(()) };
    let name = |number: usize| numbers.iter().find(|(_, known)| **known == number);
    let versions: Vec<&Version> =
        cycle.steps.iter().filter_map(|(place, _)| name(*place)).map(|(name, _)| name).collect();
    Err(format!("cyclic versions: each of these comes before the next: {versions:?}"))
}

fn dependencies(
    history: &Records,
    looks: &[Look],
    later: &Later,
    writers: &BTreeMap<u64, (usize, u64)>,
) -> Graph {
    let mut graph = Graph::new(history.len());
    let writer = |version: &Version| version.1.map(|value| writers[&value].0);
    for (from, to) in later {
        for to in to.iter().filter_map(writer) {
            if let Some(from) = writer(from) {
                graph.add(from, to, Edge::Ww);
            }
        }
    }
    for (place, look) in looks.iter().enumerate() {
        for (key, version) in &look.read {
            if let Some(writer) = writer(&(*key, *version)) {
                graph.add(writer, place, Edge::Wr);
            }
            for next in later.get(&(*key, *version)).into_iter().flatten().filter_map(writer) {
                graph.add(place, next, Edge::Rw);
            }
        }
    }
    graph
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

#[cfg(test)]
mod tests {
    use super::*;

    fn w(key: u64, value: u64) -> Step {
        Step::Write { key, value }
    }

    fn r(key: u64) -> Step {
        Step::Read { key }
    }

    fn ok(
        client: u32,
        asked: u64,
        heard: u64,
        op: &[Step],
        reads: &[Option<u64>],
    ) -> Record<Txn, Reads> {
        Record { client, asked, heard, op: op.to_vec(), ended: Ended::Ok(reads.to_vec()) }
    }

    fn verdict(history: &Records, level: Level) -> String {
        match check(history, level) {
            Ok(()) => "good".to_string(),
            Err(what) => what.split(':').next().unwrap_or_default().to_string(),
        }
    }

    const S: Level = Level::Serializable;

    #[test]
    fn one_after_another_is_good() {
        let history = [
            ok(1, 0, 1, &[w(1, 10), w(2, 20)], &[]),
            ok(2, 2, 3, &[r(1), w(1, 11), r(1)], &[Some(10), Some(11)]),
            ok(1, 4, 5, &[r(1), r(2), r(3)], &[Some(11), Some(20), None]),
        ];
        for level in [S, Level::Session, Level::KeyRealTime, Level::Strict] {
            assert_eq!(verdict(&history, level), "good");
        }
    }

    #[test]
    fn write_skew_lost_update_and_read_skew() {
        let skew =
            [ok(1, 0, 9, &[r(1), w(2, 20)], &[None]), ok(2, 0, 9, &[r(2), w(1, 10)], &[None])];
        assert_eq!(verdict(&skew, S), "G2-item");
        let lost =
            [ok(1, 0, 9, &[r(1), w(1, 10)], &[None]), ok(2, 0, 9, &[r(1), w(1, 11)], &[None])];
        assert_eq!(verdict(&lost, S), "lost update");
        let read = [
            ok(1, 0, 9, &[w(1, 10), w(2, 20)], &[]),
            ok(2, 0, 9, &[r(1), r(2)], &[Some(10), None]),
        ];
        assert_eq!(verdict(&read, S), "G-single");
    }

    #[test]
    fn circles_of_writes_and_reads() {
        let g1c = [
            ok(1, 0, 9, &[w(1, 10), r(2)], &[Some(20)]),
            ok(2, 0, 9, &[w(2, 20), r(1)], &[Some(10)]),
        ];
        assert_eq!(verdict(&g1c, S), "G1c");
        // Each overwrites what the other wrote: orders known from what third ones read and wrote.
        let g0 = [
            ok(1, 0, 9, &[w(1, 10), w(2, 20)], &[]),
            ok(2, 0, 9, &[w(1, 11), w(2, 21)], &[]),
            ok(3, 2, 3, &[r(1)], &[Some(10)]),
            ok(3, 4, 5, &[r(1)], &[Some(11)]),
            ok(3, 2, 3, &[r(2)], &[Some(21)]),
            ok(3, 4, 5, &[r(2)], &[Some(20)]),
        ];
        assert_eq!(verdict(&g0, Level::KeyRealTime), "G0");
        assert_eq!(verdict(&g0, S), "good");
    }

    #[test]
    fn what_failed_or_was_half_done_is_not_read() {
        let failed = Record { ended: Ended::Fail, ..ok(1, 0, 1, &[w(1, 10)], &[]) };
        assert_eq!(verdict(&[failed, ok(2, 2, 3, &[r(1)], &[Some(10)])], S), "G1a");
        let half = [ok(1, 0, 9, &[w(1, 10), w(1, 11)], &[]), ok(2, 0, 9, &[r(1)], &[Some(10)])];
        assert_eq!(verdict(&half, S), "G1b");
        let own = [ok(1, 0, 9, &[w(1, 10), r(1)], &[None])];
        assert_eq!(verdict(&own, S), "internal");
    }

    #[test]
    fn stale_reads_and_reads_that_go_back() {
        let stale = [ok(1, 0, 1, &[w(1, 10)], &[]), ok(2, 2, 3, &[r(1)], &[None])];
        assert_eq!(verdict(&stale, S), "good");
        assert_eq!(verdict(&stale, Level::KeyRealTime), "cyclic versions");
        let own = [ok(1, 0, 1, &[w(1, 10)], &[]), ok(1, 2, 3, &[r(1)], &[None])];
        assert_eq!(verdict(&own, Level::Session), "G-single-session");
        let lost =
            Record { ended: Ended::Unknown, heard: u64::MAX, ..ok(1, 0, 1, &[w(1, 10)], &[]) };
        let seen = ok(2, 2, 3, &[r(1)], &[Some(10)]);
        let not = ok(2, 2, 3, &[r(1)], &[None]);
        for read in [seen, not] {
            assert_eq!(verdict(&[lost.clone(), read], Level::Strict), "good");
        }
    }
}
