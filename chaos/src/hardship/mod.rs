//! Value: hardships: what a seed lives with beside its plan of faults ([`crate::plan`]).
//!
//! ```text
//!   Links   one directed link loses, doubles and reorders; ways there and back differ; the demo's round trips
//!   State   the disk of the state fails, is full, or hangs while it is flushed; the log gets no new file
//!   Rare    what is allowed and hardly ever happens is made to happen in the product (`coverage::rare`)
//!   Limits  limits of gateways, SQL and Raft are small
//!   Core    after the faults only as much is healed as must suffice, and all of it later
//! ```
//!
//! INVARIANT: each kind has a stream of its own, and can be left out by a [`Cut`](crate::shrink::Cut). So a seed that is kept as a regression
//! goes on meaning what it meant when it failed, and a failing seed is made small by the kinds that it does not need.

mod limits;
mod links;
mod state;

use coverage::{Permille, Rare};
use replication::range::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::episode::Plan;
use crate::world::chance::{Chance, Purpose};
use crate::world::{Layout, Level};

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Hardship {
    /// Of the network.
    Links,
    /// Of the state's disk.
    State,
    /// Rare turns in the product.
    Rare,
    /// Small limits.
    Limits,
    /// Not all is healed at once.
    Core,
}

impl Hardship {
    /// All of them. New ones come last: each seed's are drawn in this order.
    pub const ALL: [Hardship; 5] =
        [Hardship::Links, Hardship::State, Hardship::Rare, Hardship::Limits, Hardship::Core];

    /// The seed's.
    pub(crate) fn of(seed: u64) -> BTreeSet<Hardship> {
        let mut chance = Chance::new(seed, Purpose::Hardships);
        Hardship::ALL.into_iter().filter(|hardship| chance.permille(hardship.often())).collect()
    }

    /// In a thousand seeds.
    fn often(self) -> u32 {
        match self {
            Hardship::Links | Hardship::State | Hardship::Rare | Hardship::Limits => 250,
            Hardship::Core => 200,
        }
    }

    fn purpose(self) -> Purpose {
        match self {
            Hardship::Links => Purpose::Links,
            Hardship::State => Purpose::State,
            Hardship::Rare => Purpose::Rare,
            Hardship::Limits => Purpose::Limits,
            Hardship::Core => Purpose::Core,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Hardship::Links => "links",
            Hardship::State => "state",
            Hardship::Rare => "rare",
            Hardship::Limits => "limits",
            Hardship::Core => "core",
        }
    }

    /// What it makes of a cluster.
    pub(crate) fn suit(self, layout: &mut Layout) {
        let mut chance = Chance::new(layout.seed, self.purpose());
        match self {
            Hardship::Links => links::suit(&mut chance, layout),
            Hardship::State => {}
            Hardship::Rare => layout.rare = draw_rare(&mut chance),
            Hardship::Limits => limits::suit(&mut chance, layout),
            // Where a disk may be lost as well a range may have no more than two replicas; a copy of an available table has the nodes of its
            // region.
            Hardship::Core => layout.core = layout.spares == 0 && layout.level == Level::Keys,
        }
    }

    /// Its faults.
    pub(crate) fn plan(self, layout: &Layout, nodes: &[NodeId]) -> Plan {
        // Not the stream of what it makes of the cluster, which would repeat here.
        let mut chance = Chance::new(layout.seed, self.purpose());
        let mut chance = chance.split();
        match self {
            Hardship::Links => links::plan(&mut chance, nodes),
            Hardship::State => state::plan(&mut chance, nodes),
            Hardship::Rare | Hardship::Limits | Hardship::Core => Plan::new(),
        }
    }
}

/// Some of the turns, from hardly ever to often.
fn draw_rare(chance: &mut Chance) -> BTreeMap<Rare, Permille> {
    let drawn = Rare::ALL.iter().map(|turn| {
        let (on, often) = (chance.permille(350), chance.pick(&[3, 20, 100]));
        on.then_some((*turn, often))
    });
    drawn.collect::<Vec<_>>().into_iter().flatten().collect()
}

impl fmt::Display for Hardship {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Hardship {
    type Err = String;

    fn from_str(text: &str) -> Result<Hardship, String> {
        let found = Hardship::ALL.into_iter().find(|hardship| hardship.name() == text);
        found.ok_or_else(|| format!("\"{text}\" is not one of links, state, rare, limits, core"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hardship_comes_and_some_seeds_have_none() {
        let drawn: Vec<BTreeSet<Hardship>> = (1..=400).map(Hardship::of).collect();
        for hardship in Hardship::ALL {
            let seeds = drawn.iter().filter(|drawn| drawn.contains(&hardship)).count();
            assert!((40..160).contains(&seeds), "{hardship} in {seeds} of 400");
        }
        assert!(drawn.iter().filter(|drawn| drawn.is_empty()).count() > 40);
    }

    #[test]
    fn every_rare_turn_is_switched_on_in_some_seed() {
        let mut seen = BTreeSet::new();
        for seed in 1..=100 {
            seen.extend(draw_rare(&mut Chance::new(seed, Purpose::Rare)).into_keys());
        }
        assert_eq!(seen.len(), Rare::ALL.len());
    }
}
