//! Value: a fault script from its text. Everything is checked before anything starts; an error names line and column.

use replication::range::NodeId;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::random::{Chosen, draw};
use crate::check::RealTime;
use crate::workload::Kind;
use crate::world::chance::{Chance, Purpose};
use crate::world::fault::{Fault, Power};
use crate::world::network::Weather;

/// Most nodes a script may ask for.
const NODES_MAX: u32 = 15;
/// Longest script, in its own time.
const END_MAX: Duration = Duration::from_secs(3600);
/// Clocks farther apart than this void promises of real time, microseconds.
const SKEW_MAX_US: i64 = 125_000;

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

/// A whole script.
#[derive(Clone, PartialEq, Debug)]
pub struct Script {
    /// Names of regions; nodes stand in them in turn.
    pub regions: Vec<String>,
    /// How many nodes.
    pub nodes: u32,
    /// Round trips between regions, by place.
    pub round_trips: BTreeMap<(usize, usize), Duration>,
    /// Of everything random.
    pub seed: u64,
    /// What clients do, all of it at once; none: there are none.
    pub workloads: Vec<Kind>,
    /// Where that was said; the beginning, if it was not.
    pub workloads_at: Place,
    /// In order of time.
    pub plan: Vec<Planned>,
    /// When it ends.
    pub end: Duration,
}

/// Something at its time.
#[derive(Clone, PartialEq, Debug)]
pub struct Planned {
    /// After the workload was prepared.
    pub at: Duration,
    /// Where it is written.
    pub place: Place,
    /// As it was written; of a random episode, as it was drawn.
    pub text: String,
    /// Waited for before it is done; if it does not come in time, it is not done.
    pub when: Option<Assertion>,
    /// What.
    pub action: Action,
}

/// Where something stands in a script.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

impl Script {
    /// The region in which a node stands.
    pub fn region_of(&self, node: NodeId) -> &String {
        &self.regions[(node.0 as usize + self.regions.len() - 1) % self.regions.len()]
    }

    /// Whether clocks stay within their bound, so that real time counts.
    pub fn real_time(&self) -> RealTime {
        let far =
            |fault: &Fault| matches!(fault, Fault::Step(_, offset) if offset.abs() > SKEW_MAX_US);
        let beyond = self.plan.iter().any(|planned| match &planned.action {
            Action::Do(faults) => faults.iter().any(far),
            Action::Down(..) | Action::Assert(_) => false,
        });
        if beyond { RealTime::Waived } else { RealTime::Demanded }
    }
}

/// What happens.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Faults, together.
    Do(Vec<Fault>),
    /// These processes are not started again by themselves from now on; then the faults.
    Down(Vec<NodeId>, Power),
    /// Something must hold.
    Assert(Assertion),
}

/// What must hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Assertion {
    /// A transaction through each of these nodes succeeds in time.
    Available(Vec<NodeId>, Duration),
    /// A transaction through each of these nodes fails, with an answer, in time.
    Unavailable(Vec<NodeId>, Duration),
    /// Every range is led, every replica equal, in time.
    Converged(Duration),
    /// So many operations of workloads are acknowledged from now on, in time.
    Progress(usize, Duration),
    /// Nothing that must hold always is violated: what the simulated world watches, and what a workload can tell while it runs.
    Invariant,
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
    workloads: Vec<Kind>,
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
            workloads: vec![Kind::Bank],
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
                self.regions =
                    words.list("a region")?.iter().map(|word| word.text.to_string()).collect();
                let mut sorted = self.regions.clone();
                sorted.sort();
                sorted.dedup();
                if sorted.len() != self.regions.len() {
                    return Err(verb.wrong("a region is named twice"));
                }
            }
            "nodes" => {
                let (word, count) = words.number("how many nodes")?;
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                if count == 0 || count > NODES_MAX {
                    return Err(word.wrong(&format!("there can be 1 to {NODES_MAX} nodes")));
                }
                self.nodes = Some(count);
            }
            "latency" => {
                let (a, b) = (self.region(words)?, self.region(words)?);
                let duration = words.duration("a round trip")?;
                self.round_trips.insert((a.min(b), a.max(b)), duration);
            }
            "seed" => self.seed = words.number("a seed")?.1,
            "workload" => {
                let names = words.list("a workload")?;
                self.workloads_at = names[0].place();
                self.workloads.clear();
                for word in names {
                    match word.text {
                        "none" if self.workloads.is_empty() => {}
                        name => {
                            let kind = name.parse().map_err(|why: String| word.wrong(&why))?;
                            if self.workloads.contains(&kind) {
                                return Err(word.wrong("a workload is named twice"));
                            }
                            self.workloads.push(kind);
                        }
                    }
                }
            }
            "at" => self.timed(words)?,
            "end" => self.end = Some(self.moment(words)?),
            other => return Err(verb.wrong(&format!("unknown statement \"{other}\""))),
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
            let kinds = if words.takes("of") { chosen(words)? } else { Chosen::ALL.to_vec() };
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
                let some = self.places(words)?;
                words.expect("from")?;
                let others = self.places(words)?;
                if some.iter().any(|node| others.contains(node)) {
                    return Err(verb.wrong("a node cannot be cut from itself"));
                }
                Action::Do(vec![Fault::Cut(some.clone(), others.clone()), Fault::Cut(others, some)])
            }
            "join" => {
                let some = self.places(words)?;
                words.expect("from")?;
                let others = self.places(words)?;
                let there = Fault::Join(some.clone(), others.clone());
                Action::Do(vec![there, Fault::Join(others, some)])
            }
            "cut-one-way" | "join-one-way" => {
                let from = self.places(words)?;
                words.expect("to")?;
                let make = if verb.text == "cut-one-way" { Fault::Cut } else { Fault::Join };
                Action::Do(vec![make(from, self.places(words)?)])
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
                let from = self.places(words)?;
                words.expect("to")?;
                let to = self.places(words)?;
                let make = if verb.text == "clog" { Fault::Clog } else { Fault::Unclog };
                let links = from.iter().flat_map(|a| to.iter().map(move |b| (*a, *b)));
                Action::Do(links.filter(|(a, b)| a != b).map(|(a, b)| make(a, b)).collect())
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

    /// Nodes, by their names or their regions'.
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
        Ok(nodes)
    }

    fn finish(self, lines: usize) -> Result<Script, ScriptError> {
        let nodes = self.node_count();
        let Some(end) = self.end else {
            let what = "the script has no \"end\"".to_string();
            return Err(ScriptError { line: lines.max(1), column: 1, what });
        };
        let Reader { regions, round_trips, seed, workloads, workloads_at, mut plan, .. } = self;
        for (at, duration, kinds, place) in self.episodes {
            let mut chance = Chance::new(seed, Purpose::Nemesis);
            plan.extend(draw(nodes, at, duration, &kinds, place, &mut chance));
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

fn chosen(words: &mut Words<'_>) -> Result<Vec<Chosen>, ScriptError> {
    let chosen = |word: &Word<'_>| word.text.parse::<Chosen>().map_err(|why| word.wrong(&why));
    words.list("a kind of fault")?.iter().map(chosen).collect()
}

fn weather(words: &mut Words<'_>) -> Result<Weather, ScriptError> {
    let mut weather = Weather::default();
    while !words.is_at_end() {
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
    }
    Ok(weather)
}

/// A word and where it stands.
#[derive(Clone, Copy, Debug)]
struct Word<'a> {
    line: usize,
    column: usize,
    text: &'a str,
}

impl Word<'_> {
    fn place(&self) -> Place {
        Place { line: self.line, column: self.column }
    }

    fn wrong(&self, what: &str) -> ScriptError {
        ScriptError { line: self.line, column: self.column, what: what.to_string() }
    }
}

/// The words of a line, commas apart.
struct Words<'a> {
    line: usize,
    text: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    fn new(line: usize, text: &'a str) -> Words<'a> {
        let text = text.split_once('#').map_or(text, |(before, _)| before);
        Words { line, text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_blank(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn is_at_end(&mut self) -> bool {
        self.skip_blank();
        self.rest().is_empty()
    }

    fn here(&self, length: usize) -> Word<'a> {
        let column = self.text[..self.at].chars().count() + 1;
        Word { line: self.line, column, text: &self.text[self.at..self.at + length] }
    }

    fn peek(&mut self, what: &str) -> Result<Word<'a>, ScriptError> {
        self.skip_blank();
        let length =
            self.rest().find(|c: char| c.is_whitespace() || c == ',').unwrap_or(self.rest().len());
        let word = self.here(length);
        if length == 0 { Err(word.wrong(&format!("{what} is missing"))) } else { Ok(word) }
    }

    fn word(&mut self, what: &str) -> Result<Word<'a>, ScriptError> {
        let word = self.peek(what)?;
        self.at += word.text.len();
        Ok(word)
    }

    fn list(&mut self, what: &str) -> Result<Vec<Word<'a>>, ScriptError> {
        let mut words = vec![self.word(what)?];
        loop {
            self.skip_blank();
            if !self.rest().starts_with(',') {
                return Ok(words);
            }
            self.at += 1;
            words.push(self.word(what)?);
        }
    }

    /// Whether the next word is this one; it is read then.
    fn takes(&mut self, text: &str) -> bool {
        let is_next = self.peek(text).is_ok_and(|word| word.text == text);
        if is_next {
            self.at += text.len();
        }
        is_next
    }

    fn expect(&mut self, text: &str) -> Result<(), ScriptError> {
        let word = self.word(&format!("\"{text}\""))?;
        if word.text == text {
            Ok(())
        } else {
            Err(word.wrong(&format!("\"{text}\" is missing before \"{}\"", word.text)))
        }
    }

    fn number(&mut self, what: &str) -> Result<(Word<'a>, u64), ScriptError> {
        let word = self.word(what)?;
        let number = word
            .text
            .parse()
            .map_err(|_| word.wrong(&format!("\"{}\" is not a number", word.text)))?;
        Ok((word, number))
    }

    fn signed(&mut self, what: &str) -> Result<(Word<'a>, i64), ScriptError> {
        let word = self.word(what)?;
        let number: i64 = word
            .text
            .parse()
            .map_err(|_| word.wrong(&format!("\"{}\" is not a number", word.text)))?;
        if number.abs() > 500_000 {
            return Err(word.wrong("at most 500000 parts per million"));
        }
        Ok((word, number))
    }

    fn duration(&mut self, what: &str) -> Result<Duration, ScriptError> {
        let word = self.word(what)?;
        read_duration(word.text).map_err(|why| word.wrong(&why))
    }

    fn signed_us(&mut self, what: &str) -> Result<i64, ScriptError> {
        let word = self.word(what)?;
        let (sign, digits) = match word.text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, word.text.strip_prefix('+').unwrap_or(word.text)),
        };
        let duration = read_duration(digits).map_err(|why| word.wrong(&why))?;
        i64::try_from(duration.as_micros())
            .map(|micros| sign * micros)
            .map_err(|_| word.wrong("too far"))
    }

    fn within(&mut self) -> Result<Duration, ScriptError> {
        self.expect("within")?;
        self.duration("how soon")
    }

    fn end(&mut self) -> Result<(), ScriptError> {
        if self.is_at_end() {
            return Ok(());
        }
        let word = self.here(self.rest().len());
        Err(word.wrong(&format!("\"{}\" is too much", word.text.trim_end())))
    }
}

fn read_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits]
        .parse()
        .map_err(|_| format!("\"{text}\" is not a duration such as 300ms"))?;
    let micros: u64 = match &text[digits..] {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "" => return Err(format!("\"{text}\" has no unit: us, ms, s or m")),
        unit => return Err(format!("\"{unit}\" is not a unit: us, ms, s or m")),
    };
    number
        .checked_mul(micros)
        .map(Duration::from_micros)
        .ok_or_else(|| format!("\"{text}\" is too long"))
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
        assert_eq!((script.nodes, script.seed, script.workloads), (6, 7, vec![Kind::Append]));
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
        assert_eq!(script.workloads, [Kind::Bank, Kind::Counter]);
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
            ("at 1s cut n1 from n1\nend 2s", "line 1, column 7: a node cannot be cut from itself"),
            (
                "at 1s available n1 in 3s\nend 2s",
                "line 1, column 20: \"within\" is missing before \"in\"",
            ),
            (
                "workload chess\nend 1s",
                "line 1, column 10: there is no workload \"chess\"; there are bank, register, append, sql-bank, txn, skew, counter, long-fork, shop, monotonic, session, cells, strict",
            ),
            ("end 1s\nat 2s heal", "line 2, column 1: nothing may follow \"end\""),
        ];
        for (text, wrong) in cases {
            assert_eq!(parse(text).expect_err(text).to_string(), wrong, "{text}");
        }
    }
}
