//! Driver: makes a failing seed small enough to read: fewer faults, then a shorter run, then fewer clients with fewer operations, then
//! fewer nodes, as long as it still fails in the same way.
//!
//! A seed stays what it is: what is cut is named by a [`Cut`], so that a seed and its cut are a replay line. Each kind of chance has a
//! stream of its own (`world::chance`), so a fault that is left out shifts no client's choices.
//!
//! Faults are removed as in delta debugging (Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input, 2002,
//! section 3): large parts first, then smaller ones, until no single fault can go.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::episode::{self, Options};
use crate::hardship::Hardship;
use crate::sim::{replay_line, run_one};

/// Operations of each client that are tried first: hardly one has time for more.
const OPERATIONS_TRIED_MAX: u32 = 512;

/// What of a seed is left out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cut {
    /// The faults that stay, by their places in the plan, ascending; `None`: all.
    pub faults: Option<Vec<usize>>,
    /// The faults' time; `None`: as it is.
    pub safety: Option<Duration>,
    /// Clients; `None`: as many as there are.
    pub clients: Option<u32>,
    /// Operations of each client; `None`: as many as there is time for.
    pub operations: Option<u32>,
    /// Nodes; `None`: as drawn.
    pub nodes: Option<u32>,
    /// Kinds of hardships that are spared.
    pub without: BTreeSet<Hardship>,
}

impl Cut {
    /// Whether a fault of the plan stays.
    pub fn keeps(&self, place: usize) -> bool {
        self.faults.as_ref().is_none_or(|kept| kept.binary_search(&place).is_ok())
    }
}

/// `faults=1,4,7;seconds=8;clients=2;operations=9;nodes=3;without=links,rare`, each part only if something is cut; `faults=` alone leaves none.
impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(faults) = &self.faults {
            let places: Vec<String> = faults.iter().map(usize::to_string).collect();
            parts.push(format!("faults={}", places.join(",")));
        }
        if let Some(safety) = self.safety {
            parts.push(format!("seconds={}", safety.as_secs()));
        }
        if let Some(clients) = self.clients {
            parts.push(format!("clients={clients}"));
        }
        if let Some(operations) = self.operations {
            parts.push(format!("operations={operations}"));
        }
        if let Some(nodes) = self.nodes {
            parts.push(format!("nodes={nodes}"));
        }
        if !self.without.is_empty() {
            let names: Vec<String> = self.without.iter().map(Hardship::to_string).collect();
            parts.push(format!("without={}", names.join(",")));
        }
        write!(f, "{}", parts.join(";"))
    }
}

impl FromStr for Cut {
    type Err = String;

    fn from_str(text: &str) -> Result<Cut, String> {
        let mut cut = Cut::default();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let bad = || {
                format!(
                    "\"{part}\" is not faults=1,4,7 or seconds=8 or clients=2 or operations=9 or nodes=3 or without=links,rare"
                )
            };
            let (name, value) = part.split_once('=').ok_or_else(bad)?;
            let number = |most: u32| match value.parse::<u32>() {
                Ok(number) if (1..=most).contains(&number) => Ok(number),
                _ => Err(bad()),
            };
            match name {
                "faults" => {
                    let places = value.split(',').filter(|place| !place.is_empty());
                    let places: Result<Vec<usize>, _> = places.map(str::parse).collect();
                    let mut places = places.map_err(|_| bad())?;
                    places.sort_unstable();
                    places.dedup();
                    cut.faults = Some(places);
                }
                "seconds" => cut.safety = Some(Duration::from_secs(u64::from(number(3600)?))),
                "clients" => cut.clients = Some(number(episode::CLIENTS)?),
                "operations" => cut.operations = Some(number(100_000)?),
                "nodes" => cut.nodes = Some(number(9)?),
                "without" => {
                    let names = value.split(',').map(Hardship::from_str);
                    cut.without = names.collect::<Result<_, _>>()?;
                }
                _ => return Err(bad()),
            }
        }
        Ok(cut)
    }
}

/// What is left of a failing seed.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The seed.
    pub options: Options,
    /// What was cut.
    pub cut: Cut,
    /// How the small one fails.
    pub why: String,
    /// Runs that it took.
    pub runs: u32,
}

/// Cuts a failing seed down in at most so many runs. `None`: it does not fail.
pub fn shrink(options: Options, runs_max: u32) -> Option<Shrunk> {
    let why = run_one(options, &Cut::default()).verdict.err()?;
    let mut search = Search {
        options,
        kind: kind_of(&why),
        best: Shrunk { options, cut: Cut::default(), why, runs: 1 },
        runs_max,
    };
    // Whole kinds first: none of what is left then is about them.
    for hardship in Hardship::of(options.seed) {
        let mut without = search.best.cut.without.clone();
        without.insert(hardship);
        search.try_cut(Cut { without, ..search.best.cut.clone() });
    }
    search.remove_faults();
    for seconds in [2, 4, 8, 12] {
        if search
            .try_cut(Cut { safety: Some(Duration::from_secs(seconds)), ..search.best.cut.clone() })
        {
            break;
        }
    }
    for clients in 1..episode::CLIENTS {
        if search.try_cut(Cut { clients: Some(clients), ..search.best.cut.clone() }) {
            break;
        }
    }
    search.bound_operations();
    if episode::nodes_of(options) > 3 {
        search.try_cut(Cut { nodes: Some(3), ..search.best.cut.clone() });
    }
    // Less time and fewer clients may have made more faults superfluous.
    search.remove_faults();
    Some(search.best)
}

/// What is left, what it does, and the line that runs it again.
impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = episode::plan_of(self.options).len();
        let kept = self.cut.faults.as_ref().map_or(all, Vec::len);
        let clients = self.cut.clients.unwrap_or(episode::CLIENTS);
        writeln!(
            f,
            "shrunk in {} runs: {kept} of {all} faults, {clients} of {} clients: {}",
            self.runs,
            episode::CLIENTS,
            self.why
        )?;
        write!(f, "{}", episode::explain(self.options, &self.cut))?;
        let Options { seed, workload, planted } = self.options;
        write!(f, "replay: {} --cut '{}'", replay_line(seed, workload, planted), self.cut)
    }
}

struct Search {
    options: Options,
    kind: String,
    best: Shrunk,
    runs_max: u32,
}

impl Search {
    /// Takes the cut if the seed still fails in the same way.
    fn try_cut(&mut self, cut: Cut) -> bool {
        if self.best.runs >= self.runs_max {
            return false;
        }
        self.best.runs += 1;
        match run_one(self.options, &cut).verdict {
            Err(why) if kind_of(&why) == self.kind => {
                (self.best.cut, self.best.why) = (cut, why);
                true
            }
            _ => false,
        }
    }

    /// Halves how many operations each client may begin, for as long as that fails as well.
    fn bound_operations(&mut self) {
        let mut operations = OPERATIONS_TRIED_MAX;
        while operations > 0
            && self.try_cut(Cut { operations: Some(operations), ..self.best.cut.clone() })
        {
            operations /= 2;
        }
    }

    fn remove_faults(&mut self) {
        let all = || (0..episode::plan_of(self.options).len()).collect();
        let mut kept: Vec<usize> = self.best.cut.faults.clone().unwrap_or_else(all);
        let mut part = kept.len().div_ceil(2);
        while part > 0 && !kept.is_empty() {
            let mut start = 0;
            let mut removed = false;
            while start < kept.len() {
                let end = (start + part).min(kept.len());
                let rest: Vec<usize> = [&kept[..start], &kept[end..]].concat();
                let cut = Cut { faults: Some(rest.clone()), ..self.best.cut.clone() };
                if self.try_cut(cut) {
                    kept = rest;
                    removed = true;
                } else {
                    start = end;
                }
            }
            if part == 1 && !removed {
                return;
            }
            part = if part == 1 { 1 } else { part.div_ceil(2) };
        }
    }
}

/// How a seed fails, without numbers and names that differ from run to run: the words before the first one with a digit.
fn kind_of(why: &str) -> String {
    let line = why.lines().next().unwrap_or_default();
    let words = line.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
    words.take(6).collect::<Vec<&str>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_read_as_it_is_written() {
        let cut = Cut {
            faults: Some(vec![1, 4, 7]),
            safety: Some(Duration::from_secs(8)),
            clients: Some(2),
            operations: Some(9),
            nodes: Some(3),
            without: BTreeSet::from([Hardship::Links, Hardship::Rare]),
        };
        let text = "faults=1,4,7;seconds=8;clients=2;operations=9;nodes=3;without=links,rare";
        assert_eq!(cut.to_string(), text);
        for cut in [cut, Cut { faults: Some(Vec::new()), ..Cut::default() }, Cut::default()] {
            assert_eq!(cut.to_string().parse(), Ok(cut));
        }
        for bad in [
            "without=ranges",
            "faults=x",
            "clients=0",
            "clients=99",
            "nodes",
            "time=3",
            "faults=1,,x",
        ] {
            assert!(bad.parse::<Cut>().is_err(), "{bad}");
        }
    }

    #[test]
    fn failures_of_one_kind_differ_in_numbers_only() {
        let at = |seconds, node| {
            format!("at {seconds} s: n{node} answered a write of r1 that is durable nowhere")
        };
        assert_eq!(kind_of(&at(2.5, 1)), kind_of(&at(17.25, 3)));
        assert_ne!(kind_of(&at(2.5, 1)), kind_of("G2: two inserts that exclude each other"));
    }
}
