//! Value: random episodes of a script, drawn from its seed before anything starts: the same in every world. One fault at a time, each
//! with its end.

use std::str::FromStr;
use std::time::Duration;

use replication::range::NodeId;

use super::planned::{Action, Place, Planned};
use crate::world::chance::Chance;
use crate::world::fault::{Fault, Power};
use crate::world::network::Weather;

/// Time between the end of a fault and the next one.
const REST: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(2500));
/// How long a fault lasts.
const LASTS: (Duration, Duration) = (Duration::from_millis(1000), Duration::from_millis(6000));
/// Within the bound of clocks, so that everything that is promised still is.
const SKEW_MAX_MS: i64 = 100;
/// Of 1000 messages.
const LOSS_MAX: u64 = 200;

/// A kind of fault that may be drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Chosen {
    Cut,
    CutOneWay,
    Kill,
    Pause,
    Clog,
    Clock,
    Loss,
}

impl Chosen {
    /// All of them.
    pub(super) const ALL: [Chosen; 7] = [
        Chosen::Cut,
        Chosen::CutOneWay,
        Chosen::Kill,
        Chosen::Pause,
        Chosen::Clog,
        Chosen::Clock,
        Chosen::Loss,
    ];

    /// Whether it is done to links between nodes.
    pub(super) fn needs_links(self) -> bool {
        match self {
            Chosen::Cut | Chosen::CutOneWay | Chosen::Clog | Chosen::Loss => true,
            Chosen::Kill | Chosen::Pause | Chosen::Clock => false,
        }
    }
}

impl FromStr for Chosen {
    type Err = String;

    fn from_str(text: &str) -> Result<Chosen, String> {
        Ok(match text {
            "cut" => Chosen::Cut,
            "cut-one-way" => Chosen::CutOneWay,
            "kill" => Chosen::Kill,
            "pause" => Chosen::Pause,
            "clog" => Chosen::Clog,
            "clock" => Chosen::Clock,
            "loss" => Chosen::Loss,
            other => {
                return Err(format!(
                    "\"{other}\" is not cut, cut-one-way, kill, pause, clog, clock or loss"
                ));
            }
        })
    }
}

/// What happens from `at` on for `duration`; all of it has ended by then.
pub(super) fn draw(
    nodes: u32,
    at: Duration,
    duration: Duration,
    kinds: &[Chosen],
    place: Place,
    chance: &mut Chance,
) -> Vec<Planned> {
    let mut plan = Vec::new();
    let mut now = at + chance.duration(REST.0, REST.1);
    loop {
        let until = now + chance.duration(LASTS.0, LASTS.1);
        if until > at + duration {
            return plan;
        }
        let (begin, end) = fault(nodes, chance.pick(kinds), chance);
        for (at, (text, action)) in [(now, begin), (until, end)] {
            plan.push(Planned { at, place, text: format!("random: {text}"), when: None, action });
        }
        now = until + chance.duration(REST.0, REST.1);
    }
}

/// What begins it, and what ends it; each with its words.
fn fault(nodes: u32, kind: Chosen, chance: &mut Chance) -> ((String, Action), (String, Action)) {
    let node = NodeId(u32::try_from(chance.between(1, u64::from(nodes))).expect("few nodes"));
    let others: Vec<NodeId> = (1..=nodes).map(NodeId).filter(|other| *other != node).collect();
    let rest = others.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
    let one = vec![node];
    let links = |make: fn(NodeId, NodeId) -> Fault| {
        others.iter().map(|other| make(*other, node)).collect::<Vec<Fault>>()
    };
    let both = |make: fn(Vec<NodeId>, Vec<NodeId>) -> Fault| {
        vec![make(one.clone(), others.clone()), make(others.clone(), one.clone())]
    };
    let (begin, end) = match kind {
        Chosen::Cut => (
            (format!("cut {node} from {rest}"), both(Fault::Cut)),
            (format!("join {node} from {rest}"), both(Fault::Join)),
        ),
        Chosen::CutOneWay => (
            (
                format!("cut-one-way {node} to {rest}"),
                vec![Fault::Cut(one.clone(), others.clone())],
            ),
            (format!("join-one-way {node} to {rest}"), vec![Fault::Join(one, others)]),
        ),
        Chosen::Kill => {
            let start = (format!("start {node}"), Action::Do(vec![Fault::Start(node)]));
            return ((format!("kill {node}"), Action::Down(one, Power::Kept)), start);
        }
        Chosen::Pause => (
            (format!("pause {node}"), vec![Fault::Pause(node)]),
            (format!("resume {node}"), vec![Fault::Resume(node)]),
        ),
        Chosen::Clog => (
            (format!("clog {rest} to {node}"), links(Fault::Clog)),
            (format!("unclog {rest} to {node}"), links(Fault::Unclog)),
        ),
        Chosen::Clock => {
            let skew = chance.signed(-SKEW_MAX_MS, SKEW_MAX_MS);
            (
                (format!("clock {node} {skew}ms"), vec![Fault::Step(node, skew * 1000)]),
                (format!("clock {node} 0ms"), vec![Fault::Step(node, 0)]),
            )
        }
        Chosen::Loss => {
            let loss = u32::try_from(chance.between(1, LOSS_MAX)).expect("at most 200");
            let weather = Weather { loss_permille: loss, ..Weather::default() };
            (
                (format!("weather loss {loss}"), vec![Fault::Weather(weather)]),
                ("weather loss 0".to_string(), vec![Fault::Weather(Weather::default())]),
            )
        }
    };
    let done = |(text, faults)| (text, Action::Do(faults));
    (done(begin), done(end))
}
