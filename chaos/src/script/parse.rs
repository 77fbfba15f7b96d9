//! Value: a fault script from its text. Everything is checked before anything starts; an error names line and column.

use replication::range::NodeId;
use std::collections::BTreeMap;
use std::time::Duration;

use super::planned::{Action, Assertion, Place, Planned, Script};
use super::random::{Chosen, draw};
use super::words::{Word, Words};
use crate::workload::Kind;
use crate::world::chance::{Chance, Purpose};
use crate::world::fault::{Fault, Power};
use crate::world::network::Weather;

/// Most nodes a script may ask for.
const NODES_MAX: u32 = 15;
/// Longest round trip between two regions; real nodes accept no longer one.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(60);
/// Longest script, in its own time.
const END_MAX: Duration = Duration::from_secs(3600);

/// What is wrong with a script, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}, column {column}: {what}")]
pub struct ScriptError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// In plain words.
    pub what: String,
}

/// Reads a script.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse(text: &str) -> Result<Script, ScriptError> {
    let mut reader = Reader::default();
    for (number, line) in text.lines().enumerate() {
        let mut words = Words::new(number + 1, line);
        if words.is_at_end() {
            continue;
        }
        reader.statement(&mut words)?;
        words.end()?;
    }
    reader.finish(text.lines().count())
}

struct Reader {
    regions: Vec<String>,
    nodes: Option<u32>,
    round_trips: BTreeMap<(usize, usize), Duration>,
    seed: u64,
    workloads: Vec<Vec<Kind>>,
    workloads_at: Place,
    plan: Vec<Planned>,
    /// Random episodes: from when, for how long, of what; drawn when the seed is known.
    episodes: Vec<(Duration, Duration, Vec<Chosen>, Place)>,
    /// The last time that was written.
    latest: Duration,
    end: Option<Duration>,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader {
            regions: ["us-east", "eu-west", "ap-south"].map(String::from).to_vec(),
            nodes: None,
            round_trips: BTreeMap::new(),
            seed: 1,
            workloads: vec![vec![Kind::Bank]],
            workloads_at: Place { line: 1, column: 1 },
            plan: Vec::new(),
            episodes: Vec::new(),
            latest: Duration::ZERO,
            end: None,
        }
    }
}

impl Reader {
    fn statement(&mut self, words: &mut Words<'_>) -> Result<(), ScriptError> {
        let verb = words.word("a statement")?;
        if self.end.is_some() {
            return Err(verb.wrong("nothing may follow \"end\""));
        }
        if verb.text != "at" && verb.text != "end" && self.has_begun() {
            return Err(
                verb.wrong(&format!("\"{}\" must stand before the first \"at\"", verb.text))
            );
        }
        match verb.text {
            "regions" => {
                if self.nodes.is_some() || !self.round_trips.is_empty() {
                    return Err(
                        verb.wrong("\"regions\" must stand before \"nodes\" and \"latency\"")
                    );
                }
                self.regions = regions(words)?;
            }
            "nodes" => self.nodes = Some(self.node_number(words)?),
            "latency" => self.latency(words)?,
            "seed" => self.seed = words.number("a seed")?.1,
            "workload" => {
                self.workloads_at = words.peek("a workload")?.place();
                self.workloads = workloads(words)?;
            }
            "at" => self.timed(words)?,
            "end" => self.end = Some(self.moment(words)?),
            other => return Err(verb.wrong(&format!("unknown statement \"{other}\""))),
        }
        Ok(())
    }

    /// Nodes stand in the regions in turn: with fewer than regions, one would stand for nothing.
    fn node_number(&self, words: &mut Words<'_>) -> Result<u32, ScriptError> {
        let (word, count) = words.number("how many nodes")?;
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if count == 0 || count > NODES_MAX {
            return Err(word.wrong(&format!("there can be 1 to {NODES_MAX} nodes")));
        }
        match self.regions.get(count as usize) {
            Some(empty) => Err(word.wrong(&format!(
                "{} regions need a node each: there would be none in {empty}",
                self.regions.len()
            ))),
            None => Ok(count),
        }
    }

    fn latency(&mut self, words: &mut Words<'_>) -> Result<(), ScriptError> {
        let a = self.region(words)?;
        let other = words.peek("a region")?;
        let b = self.region(words)?;
        if a == b {
            return Err(other.wrong("a region has no latency to itself"));
        }
        let word = words.peek("a round trip")?;
        let duration = words.duration("a round trip")?;
        if duration > ROUND_TRIP_MAX {
            return Err(word.wrong(&format!("a round trip takes up to {ROUND_TRIP_MAX:?}")));
        }
        if self.round_trips.insert((a.min(b), a.max(b)), duration).is_some() {
            return Err(other.wrong("the latency between these regions is given twice"));
        }
        Ok(())
    }

    fn has_begun(&self) -> bool {
        !self.plan.is_empty() || !self.episodes.is_empty()
    }

    fn moment(&mut self, words: &mut Words<'_>) -> Result<Duration, ScriptError> {
        let word = words.peek("a time")?;
        let at = words.duration("a time")?;
        if at > END_MAX {
            return Err(word.wrong(&format!("a script lasts up to {END_MAX:?}")));
        }
        if self.latest > at {
            return Err(word.wrong("times must not go back"));
        }
        self.latest = at;
        Ok(at)
    }

    fn timed(&mut self, words: &mut Words<'_>) -> Result<(), ScriptError> {
        let at = self.moment(words)?;
        let place = words.peek("what happens")?.place();
        if words.takes("random") {
            let duration = words.duration("how long")?;
            let kinds = self.chosen(words)?;
            self.episodes.push((at, duration, kinds, place));
            return Ok(());
        }
        let (mut period, mut times) = (Duration::ZERO, 1);
        if words.takes("every") {
            period = words.duration("how often")?;
            let (word, count) = words.number("how many times")?;
            let last = |times: u32| period.checked_mul(times.checked_sub(1)?)?.checked_add(at);
            let fits = |times: &u32| last(*times).is_some_and(|last| last <= END_MAX);
            let count = u32::try_from(count).ok().filter(fits);
            let wrong = format!("something is done at least once, and up to {END_MAX:?}");
            times = count.ok_or_else(|| word.wrong(&wrong))?;
            words.expect("times")?;
        }
        let text = words.rest().trim().to_string();
        let when = words.takes("when").then(|| self.condition(words)).transpose()?;
        if when.is_some() {
            words.expect("then")?;
        }
        let action = self.action(words)?;
        for turn in 0..times {
            let (text, when, action) = (text.clone(), when.clone(), action.clone());
            self.plan.push(Planned { at: at + period * turn, place, text, when, action });
        }
        Ok(())
    }

    fn condition(&self, words: &mut Words<'_>) -> Result<Assertion, ScriptError> {
        let verb = words.word("a condition")?;
        match self.assertion(verb, words)? {
            Some(Assertion::Invariant) | None => Err(verb.wrong(&format!(
                "\"{}\" is not available, unavailable, converged or progress",
                verb.text
            ))),
            Some(condition) => Ok(condition),
        }
    }

    /// `None`: the verb is no assertion's.
    fn assertion(
        &self,
        verb: Word<'_>,
        words: &mut Words<'_>,
    ) -> Result<Option<Assertion>, ScriptError> {
        Ok(Some(match verb.text {
            "available" => Assertion::Available(self.places(words)?, words.within()?),
            "unavailable" => Assertion::Unavailable(self.places(words)?, words.within()?),
            "converged" => Assertion::Converged(words.within()?),
            "progress" => {
                let (word, count) = words.number("how many operations")?;
                let count = usize::try_from(count).ok().filter(|count| *count > 0);
                let count = count.ok_or_else(|| word.wrong("at least one operation"))?;
                Assertion::Progress(count, words.within()?)
            }
            "invariant" => Assertion::Invariant,
            _ => return Ok(None),
        }))
    }

    fn action(&self, words: &mut Words<'_>) -> Result<Action, ScriptError> {
        let verb = words.word("what happens")?;
        let each = |nodes: Vec<NodeId>, make: fn(NodeId) -> Fault| {
            Action::Do(nodes.into_iter().map(make).collect())
        };
        Ok(match verb.text {
            "cut" => {
                let (some, others) = self.sides(words, "from")?;
                Action::Do(vec![Fault::Cut(some.clone(), others.clone()), Fault::Cut(others, some)])
            }
            "join" => {
                let (some, others) = self.sides(words, "from")?;
                let there = Fault::Join(some.clone(), others.clone());
                Action::Do(vec![there, Fault::Join(others, some)])
            }
            "cut-one-way" | "join-one-way" => {
                let (from, to) = self.sides(words, "to")?;
                let make = if verb.text == "cut-one-way" { Fault::Cut } else { Fault::Join };
                Action::Do(vec![make(from, to)])
            }
            "kill" => Action::Down(self.places(words)?, Power::Kept),
            "power-off" => Action::Down(self.places(words)?, Power::Lost),
            "restart" => each(self.places(words)?, |node| Fault::Crash(node, Power::Kept)),
            "start" => each(self.places(words)?, Fault::Start),
            "blackout" => Action::Do(vec![Fault::Blackout]),
            "pause" => each(self.places(words)?, Fault::Pause),
            "resume" => each(self.places(words)?, Fault::Resume),
            "stall" => {
                let nodes = self.places(words)?;
                words.expect("for")?;
                let duration = words.duration("how long")?;
                Action::Do(nodes.into_iter().map(|node| Fault::Stall(node, duration)).collect())
            }
            "clog" | "unclog" => {
                let (from, to) = self.sides(words, "to")?;
                let make = if verb.text == "clog" { Fault::Clog } else { Fault::Unclog };
                let links = from.iter().flat_map(|a| to.iter().map(move |b| (*a, *b)));
                Action::Do(links.map(|(a, b)| make(a, b)).collect())
            }
            "fail-write" => each(self.places(words)?, Fault::WriteError),
            "flush" => each(self.places(words)?, Fault::Flush),
            "fail-sync" => each(self.places(words)?, Fault::SyncError),
            "fill" => each(self.places(words)?, Fault::Full),
            "free" => each(self.places(words)?, Fault::Roomy),
            "clock" => {
                let nodes = self.places(words)?;
                let offset_us = words.signed_us("how far from true time")?;
                Action::Do(nodes.into_iter().map(|node| Fault::Step(node, offset_us)).collect())
            }
            "drift" => {
                let nodes = self.places(words)?;
                let (_, ppm) = words.signed("parts per million")?;
                words.expect("ppm")?;
                Action::Do(nodes.into_iter().map(|node| Fault::Drift(node, 0, ppm)).collect())
            }
            "weather" => Action::Do(vec![Fault::Weather(weather(words)?)]),
            "heal" => Action::Do(vec![Fault::Heal]),
            other => {
                let unknown = || verb.wrong(&format!("unknown fault or assertion \"{other}\""));
                Action::Assert(self.assertion(verb, words)?.ok_or_else(unknown)?)
            }
        })
    }

    fn node_count(&self) -> u32 {
        self.nodes.unwrap_or(self.regions.len() as u32)
    }

    fn region(&self, words: &mut Words<'_>) -> Result<usize, ScriptError> {
        let word = words.word("a region")?;
        let place = self.regions.iter().position(|name| name == word.text);
        place.ok_or_else(|| word.wrong(&format!("there is no region \"{}\"", word.text)))
    }

    /// The two sides of a link. Nothing can be done to the link between a place and itself: there is none.
    fn sides(
        &self,
        words: &mut Words<'_>,
        between: &str,
    ) -> Result<(Vec<NodeId>, Vec<NodeId>), ScriptError> {
        let some = self.places(words)?;
        words.expect(between)?;
        let first = words.peek("a node or region")?;
        let others = self.places(words)?;
        match some.iter().find(|node| others.contains(node)) {
            Some(node) => Err(first.wrong(&format!("{node} is on both sides of \"{between}\""))),
            None => Ok((some, others)),
        }
    }

    /// Kinds of faults to draw from; all that can be, if none is named.
    fn chosen(&self, words: &mut Words<'_>) -> Result<Vec<Chosen>, ScriptError> {
        let is_possible = |kind: &Chosen| self.node_count() > 1 || !kind.needs_links();
        if !words.takes("of") {
            return Ok(Chosen::ALL.into_iter().filter(is_possible).collect());
        }
        let chosen = |word: &Word<'_>| {
            let kind = word.text.parse::<Chosen>().map_err(|why| word.wrong(&why))?;
            let alone = || word.wrong("one node has no links that could fail");
            Some(kind).filter(is_possible).ok_or_else(alone)
        };
        words.list("a kind of fault")?.iter().map(chosen).collect()
    }

    /// Nodes, by their names or their regions': at least one, as no region is empty.
    fn places(&self, words: &mut Words<'_>) -> Result<Vec<NodeId>, ScriptError> {
        let mut nodes = Vec::new();
        for word in words.list("a node or region")? {
            if let Some(place) = self.regions.iter().position(|name| name == word.text) {
                let count = self.regions.len() as u32;
                nodes.extend(
                    (1..=self.node_count())
                        .filter(|node| (node - 1) % count == place as u32)
                        .map(NodeId),
                );
                continue;
            }
            let number = word.text.strip_prefix('n').and_then(|digits| digits.parse::<u32>().ok());
            match number {
                Some(number) if (1..=self.node_count()).contains(&number) => {
                    nodes.push(NodeId(number))
                }
                Some(_) => {
                    return Err(word.wrong(&format!("there are {} nodes only", self.node_count())));
                }
                None => {
                    return Err(
                        word.wrong(&format!("there is no node or region \"{}\"", word.text))
                    );
                }
            }
        }
        nodes.sort();
        nodes.dedup();
        assert!(!nodes.is_empty(), "a region has no node");
        Ok(nodes)
    }

    fn finish(self, lines: usize) -> Result<Script, ScriptError> {
        let nodes = self.node_count();
        let Some(end) = self.end else {
            let what = "the script has no \"end\"".to_string();
            return Err(ScriptError { line: lines.max(1), column: 1, what });
        };
        let Reader { regions, round_trips, seed, workloads, workloads_at, mut plan, .. } = self;
        // The first one draws from the seed's stream itself, as scripts with one always have; each other one from a stream of its own.
        let mut first = Some(Chance::new(seed, Purpose::Nemesis));
        let mut others = Chance::new(seed, Purpose::Nemesis);
        for (at, duration, kinds, place) in self.episodes {
            let mut chance = first.take().unwrap_or_else(|| others.split());
            let drawn = draw(nodes, at, duration, &kinds, place, &mut chance);
            if drawn.is_empty() {
                let Place { line, column } = place;
                let what =
                    format!("nothing is drawn for {duration:?}: it takes longer, or another seed");
                return Err(ScriptError { line, column, what });
            }
            plan.extend(drawn);
        }
        plan.sort_by_key(|planned| planned.at);
        if let Some(late) = plan.iter().find(|planned| planned.at > end) {
            let Place { line, column } = late.place;
            let what = format!("this goes on until {:?}, and the script ends at {end:?}", late.at);
            return Err(ScriptError { line, column, what });
        }
        Ok(Script { regions, nodes, round_trips, seed, workloads, workloads_at, plan, end })
    }
}

fn regions(words: &mut Words<'_>) -> Result<Vec<String>, ScriptError> {
    let mut regions: Vec<String> = Vec::new();
    for word in words.list("a region")? {
        let is_node =
            |digits: &str| !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
        if word.text.strip_prefix('n').is_some_and(is_node) {
            return Err(word.wrong(&format!("\"{}\" is a node's name", word.text)));
        }
        if regions.iter().any(|region| region == word.text) {
            return Err(word.wrong("a region is named twice"));
        }
        if regions.len() == NODES_MAX as usize {
            return Err(word.wrong(&format!("there can be {NODES_MAX} nodes only")));
        }
        regions.push(word.text.to_string());
    }
    Ok(regions)
}

/// Lists of workloads, with "or" between them.
fn workloads(words: &mut Words<'_>) -> Result<Vec<Vec<Kind>>, ScriptError> {
    let mut lists = Vec::new();
    loop {
        let mut kinds: Vec<Kind> = Vec::new();
        let names = words.list("a workload")?;
        for word in &names {
            if word.text == "none" {
                if names.len() > 1 || !lists.is_empty() || words.takes("or") {
                    return Err(word.wrong("\"none\" stands alone"));
                }
                return Ok(vec![Vec::new()]);
            }
            let kind = word.text.parse().map_err(|why: String| word.wrong(&why))?;
            if kinds.contains(&kind) {
                return Err(word.wrong("a workload is named twice"));
            }
            kinds.push(kind);
        }
        lists.push(kinds);
        if !words.takes("or") {
            return Ok(lists);
        }
    }
}

fn weather(words: &mut Words<'_>) -> Result<Weather, ScriptError> {
    let mut weather = Weather::default();
    loop {
        let kind = words.word("loss, duplicate or reorder")?;
        let (word, permille) = words.number("messages in 1000")?;
        let permille = u32::try_from(permille).ok().filter(|permille| *permille <= 1000);
        let permille = permille.ok_or_else(|| word.wrong("at most 1000 of 1000 messages"))?;
        match kind.text {
            "loss" => weather.loss_permille = permille,
            "duplicate" => weather.duplicate_permille = permille,
            "reorder" => weather.reorder_permille = permille,
            other => {
                return Err(kind.wrong(&format!("\"{other}\" is not loss, duplicate or reorder")));
            }
        }
        if words.is_at_end() {
            return Ok(weather);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_whole() {
        let script = parse(
            "# story\nregions a, b, c\nnodes 6\nlatency a b 80ms\nseed 7\nworkload append\n\
             at 2s cut a from b, n3 # comment\nat 2s clock n4 -300ms\nat 8s unavailable a within 6s\nend 9s\n",
        )
        .expect("it is right");
        assert_eq!((script.nodes, script.seed, script.workloads), (6, 7, vec![vec![Kind::Append]]));
        assert_eq!(script.round_trips[&(0, 1)], Duration::from_millis(80));
        let (a, b) = (vec![NodeId(1), NodeId(4)], vec![NodeId(2), NodeId(3), NodeId(5)]);
        let cuts = Action::Do(vec![Fault::Cut(a.clone(), b.clone()), Fault::Cut(b, a.clone())]);
        assert_eq!(script.plan[0].action, cuts);
        assert_eq!(script.plan[1].action, Action::Do(vec![Fault::Step(NodeId(4), -300_000)]));
        let assertion = Assertion::Unavailable(a, Duration::from_secs(6));
        assert_eq!(script.plan[2].action, Action::Assert(assertion));
    }

    #[test]
    fn what_is_repeated_waited_for_and_drawn_is_planned() {
        let text = "seed 7\nworkload bank, counter\nat 1s every 2s 3 times restart n1\n\
             at 2s when unavailable n2 within 4s then start n2\nat 8s random 20s of cut, kill\nend 30s";
        let script = parse(text).expect("it is right");
        assert_eq!(script.workloads, [[Kind::Bank, Kind::Counter]]);
        let times: Vec<u64> =
            script.plan.iter().take(4).map(|planned| planned.at.as_secs()).collect();
        assert_eq!(times, [1, 2, 3, 5], "in order of time");
        let condition = Assertion::Unavailable(vec![NodeId(2)], Duration::from_secs(4));
        assert_eq!(script.plan[1].when, Some(condition));
        assert!(script.plan.len() > 8, "{:?}", script.plan);
        assert_eq!(parse(text), Ok(script), "the same seed, the same faults");
        let other = parse(&text.replace("seed 7", "seed 8")).expect("it is right");
        assert_ne!(parse(text).expect("it is right").plan, other.plan);
    }

    #[test]
    fn each_random_line_draws_faults_of_its_own_and_the_first_those_that_it_draws_alone() {
        let one = "at 2s random 20s\n";
        let faults = |text: &str, line: usize| {
            let script = parse(text).expect("it is right");
            let begun = Duration::from_secs(if line == 1 { 2 } else { 30 });
            let here = script.plan.into_iter().filter(|planned| planned.place.line == line);
            here.map(|planned| (planned.at - begun, planned.text)).collect::<Vec<_>>()
        };
        let alone = faults(&format!("{one}end 60s"), 1);
        let both = format!("{one}at 30s random 20s\nend 60s");
        assert_eq!(faults(&both, 1), alone);
        assert_ne!(faults(&both, 2), alone);
        let three = format!("{one}at 30s random 20s\nat 30s random 20s\nend 60s");
        assert_eq!(faults(&three, 2), faults(&both, 2));
        assert_ne!(faults(&three, 3), faults(&three, 2));
    }

    #[test]
    fn a_single_node_has_no_faults_of_links() {
        let text = "regions a\nnodes 1\nat 1s random 100s\nend 101s";
        let plan = parse(text).expect("it is right").plan;
        assert!(plan.len() > 20, "{plan:?}");
        let links = |planned: &&Planned| {
            let kinds = ["cut", "join", "clog", "weather"];
            kinds.iter().any(|kind| planned.text.contains(kind))
        };
        assert_eq!(plan.iter().find(links), None);
    }

    #[test]
    fn a_world_takes_the_first_list_of_workloads_that_it_has_all_of() {
        let text = "workload shop, bank or txn or append, counter\nend 9s";
        let script = parse(text).expect("it is right");
        let where_not = |lacks: &[Kind]| script.workloads_where(|kind| !lacks.contains(&kind));
        assert_eq!(where_not(&[]), Some(&[Kind::Shop, Kind::Bank][..]));
        assert_eq!(where_not(&[Kind::Bank]), Some(&[Kind::Txn][..]));
        assert_eq!(where_not(&[Kind::Shop, Kind::Txn]), Some(&[Kind::Append, Kind::Counter][..]));
        assert_eq!(where_not(&[Kind::Shop, Kind::Txn, Kind::Append]), None);
        let none = parse("workload none\nend 9s").expect("it is right");
        assert_eq!(none.workloads_where(|_| false), Some(&[][..]));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let cases = [
            ("nodes 3\nexplode n1\nend 1s", "line 2, column 1: unknown statement \"explode\""),
            (
                "at 1s explode n1\nend 2s",
                "line 1, column 7: unknown fault or assertion \"explode\"",
            ),
            ("nodes 3\nat 1s kill n9\nend 2s", "line 2, column 12: there are 3 nodes only"),
            ("at 1s kill mars\nend 2s", "line 1, column 12: there is no node or region \"mars\""),
            ("at 5 heal\nend 9s", "line 1, column 4: \"5\" has no unit: us, ms, s or m"),
            ("at 5h heal\nend 9s", "line 1, column 4: \"h\" is not a unit: us, ms, s or m"),
            ("at 5s heal\nat 4s heal\nend 9s", "line 2, column 4: times must not go back"),
            ("at 5s heal", "line 1, column 1: the script has no \"end\""),
            ("at 1s heal now\nend 2s", "line 1, column 12: \"now\" is too much"),
            (
                "at 1s join mars from n1\nend 2s",
                "line 1, column 12: there is no node or region \"mars\"",
            ),
            (
                "at 1s when heal then heal\nend 2s",
                "line 1, column 12: \"heal\" is not available, unavailable, converged or progress",
            ),
            (
                "at 1s when converged within 2s heal\nend 2s",
                "line 1, column 32: \"then\" is missing before \"heal\"",
            ),
            (
                "at 1s every 1s 9 times restart n1\nend 2s",
                "line 1, column 7: this goes on until 3s, and the script ends at 2s",
            ),
            (
                "at 1s random 5s of love\nend 9s",
                "line 1, column 20: \"love\" is not cut, cut-one-way, kill, pause, clog, clock or loss",
            ),
            ("nodes 99\nend 1s", "line 1, column 7: there can be 1 to 15 nodes"),
            ("at 1s cut n1 from n1\nend 2s", "line 1, column 19: n1 is on both sides of \"from\""),
            (
                "nodes 6\nat 1s join n2, us-east from n3, n4\nend 2s",
                "line 2, column 29: n4 is on both sides of \"from\"",
            ),
            (
                "at 1s cut-one-way n1 to n1\nend 2s",
                "line 1, column 25: n1 is on both sides of \"to\"",
            ),
            (
                "at 1s join-one-way us-east to n1\nend 2s",
                "line 1, column 31: n1 is on both sides of \"to\"",
            ),
            (
                "at 1s clog n1 to us-east, n2\nend 2s",
                "line 1, column 18: n1 is on both sides of \"to\"",
            ),
            ("at 1s unclog n1 to n1\nend 2s", "line 1, column 20: n1 is on both sides of \"to\""),
            (
                "nodes 2\nat 1s available ap-south within 3s\nend 2s",
                "line 1, column 7: 3 regions need a node each: there would be none in ap-south",
            ),
            (
                "regions a, b, c, d\nnodes 3\nend 2s",
                "line 2, column 7: 4 regions need a node each: there would be none in d",
            ),
            (
                "regions a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p\nend 2s",
                "line 1, column 54: there can be 15 nodes only",
            ),
            ("regions a, b, a\nend 2s", "line 1, column 15: a region is named twice"),
            ("regions a, n2\nend 2s", "line 1, column 12: \"n2\" is a node's name"),
            (
                "latency us-east us-east 5ms\nend 2s",
                "line 1, column 17: a region has no latency to itself",
            ),
            (
                "latency us-east eu-west 61s\nend 2s",
                "line 1, column 25: a round trip takes up to 60s",
            ),
            (
                "latency us-east eu-west 5ms\nlatency eu-west us-east 6ms\nend 2s",
                "line 2, column 17: the latency between these regions is given twice",
            ),
            (
                "regions a\nnodes 1\nat 1s random 20s of kill, cut\nend 30s",
                "line 3, column 27: one node has no links that could fail",
            ),
            (
                "at 1s random 1s\nend 30s",
                "line 1, column 7: nothing is drawn for 1s: it takes longer, or another seed",
            ),
            ("at 1s weather\nend 2s", "line 1, column 14: loss, duplicate or reorder is missing"),
            ("workload bank, none\nend 2s", "line 1, column 16: \"none\" stands alone"),
            ("workload none or bank\nend 2s", "line 1, column 10: \"none\" stands alone"),
            ("workload txn or none\nend 2s", "line 1, column 17: \"none\" stands alone"),
            ("workload txn or txn, txn\nend 2s", "line 1, column 22: a workload is named twice"),
            ("workload txn or\nend 2s", "line 1, column 16: a workload is missing"),
            (
                "at 1s available n1 in 3s\nend 2s",
                "line 1, column 20: \"within\" is missing before \"in\"",
            ),
            (
                "workload chess\nend 1s",
                "line 1, column 10: there is no workload \"chess\"; there are bank, register, append, sql-bank, txn, skew, counter, long-fork, shop, monotonic, session, cells, strict, queue",
            ),
            ("end 1s\nat 2s heal", "line 2, column 1: nothing may follow \"end\""),
        ];
        for (text, wrong) in cases {
            assert_eq!(parse(text).expect_err(text).to_string(), wrong, "{text}");
        }
    }
}
