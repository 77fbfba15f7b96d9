//! Value: what clients were served in a run, by second: how much, how fast, how often not. Made from recorded histories, whichever world
//! they come from.

use std::fmt;
use std::time::Duration;

use replication::range::NodeId;

use crate::history::{Ended, Record};
use crate::workload::Kind;

/// Which promise a workload's tables live under.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mode {
    /// Serializable.
    Strong,
    /// Answers in every region, always.
    Available,
}

impl Mode {
    /// Of a workload; one that writes both kinds in one transaction has the stronger promise's trouble.
    pub fn of(kind: Kind) -> Mode {
        match kind {
            Kind::Counter | Kind::Session | Kind::Cells => Mode::Available,
            Kind::Bank
            | Kind::Register
            | Kind::Append
            | Kind::Txn
            | Kind::Skew
            | Kind::LongFork
            | Kind::Monotonic
            | Kind::SqlBank
            | Kind::Shop
            | Kind::Strict
            | Kind::Queue => Mode::Strong,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Strong => "strong",
            Mode::Available => "available",
        })
    }
}

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Acknowledged.
    Ok,
    /// Refused: it had no effect.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// An operation of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Act {
    /// Through which node.
    pub node: NodeId,
    /// When it was asked, since the script's beginning.
    pub asked: Duration,
    /// When it was answered; of an unknown end, when it was asked.
    pub heard: Duration,
    /// How.
    pub end: End,
}

impl Act {
    /// Whether it was acknowledged.
    pub fn is_ok(&self) -> bool {
        self.end == End::Ok
    }
}

/// The acts of a history. `node_of` says through which node; none: it was nobody's of the run. `begun` is the script's beginning in the
/// history's nanoseconds.
pub fn acts<'a, O: 'a, R: 'a>(
    records: impl IntoIterator<Item = &'a Record<O, R>>,
    begun: u64,
    node_of: impl Fn(&Record<O, R>) -> Option<NodeId>,
) -> Vec<Act> {
    let act = |record: &Record<O, R>| {
        let since = |time: u64| Duration::from_nanos(time.saturating_sub(begun));
        let (heard, end) = match record.ended {
            Ended::Ok(_) => (record.heard, End::Ok),
            Ended::Fail => (record.heard, End::Failed),
            Ended::Unknown => (record.asked, End::Unknown),
        };
        Some(Act { node: node_of(record)?, asked: since(record.asked), heard: since(heard), end })
    };
    records.into_iter().filter_map(act).collect()
}

/// What was served in a second, or in all of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Served {
    /// Acknowledged.
    pub ok: usize,
    /// Refused.
    pub failed: usize,
    /// Nobody knows.
    pub unknown: usize,
    /// Half of what was acknowledged took no longer; zero if nothing was.
    pub p50: Duration,
    /// Ninety-nine of a hundred took no longer.
    pub p99: Duration,
}

impl Served {
    /// Of so many acts.
    pub fn of<'a>(acts: impl IntoIterator<Item = &'a Act>) -> Served {
        let mut served = Served::default();
        let mut took = Vec::new();
        for act in acts {
            match act.end {
                End::Ok => {
                    served.ok += 1;
                    took.push(act.heard.saturating_sub(act.asked));
                }
                End::Failed => served.failed += 1,
                End::Unknown => served.unknown += 1,
            }
        }
        took.sort();
        let quantile = |hundredths: usize| {
            let place = (took.len() * hundredths).div_ceil(100).saturating_sub(1);
            took.get(place).copied().unwrap_or_default()
        };
        (served.p50, served.p99) = (quantile(50), quantile(99));
        served
    }

    /// All of them.
    pub fn count(&self) -> usize {
        self.ok + self.failed + self.unknown
    }

    /// Of a hundred operations so many were acknowledged; `None`: there were none.
    pub fn percent(&self) -> Option<f64> {
        (self.count() > 0).then(|| 100.0 * self.ok as f64 / self.count() as f64)
    }
}

/// What was served in each second of a run; an operation counts when it ended.
pub fn by_second(acts: &[Act], length: Duration) -> Vec<Served> {
    let seconds = usize::try_from(length.as_secs() + 1).unwrap_or(usize::MAX);
    let mut sorted: Vec<Vec<Act>> = vec![Vec::new(); seconds];
    for act in acts {
        let second = usize::try_from(act.heard.as_secs()).unwrap_or(usize::MAX).min(seconds - 1);
        sorted[second].push(*act);
    }
    sorted.iter().map(Served::of).collect()
}

/// The longest time without an acknowledgement within the run.
pub fn longest_silence(acts: &[Act], length: Duration) -> Duration {
    let ok = acts.iter().filter(|act| act.end == End::Ok).map(|act| act.heard.min(length));
    let mut times: Vec<Duration> = ok.chain([Duration::ZERO, length]).collect();
    times.sort();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act(asked_ms: u64, heard_ms: u64, end: End) -> Act {
        let [asked, heard] = [asked_ms, heard_ms].map(Duration::from_millis);
        Act { node: NodeId(1), asked, heard, end }
    }

    #[test]
    fn an_operation_counts_in_the_second_in_which_it_ended() {
        let acts = [
            act(0, 100, End::Ok),
            act(900, 1100, End::Ok),
            act(1200, 1900, End::Failed),
            act(5000, 5000, End::Unknown),
        ];
        let seconds = by_second(&acts, Duration::from_millis(2500));
        let counts: Vec<_> = seconds.iter().map(|s| (s.ok, s.failed, s.unknown)).collect();
        assert_eq!(counts, [(1, 0, 0), (1, 1, 0), (0, 0, 1)], "what is late is in the last");
        let all = Served::of(&acts);
        assert_eq!((all.count(), all.percent()), (4, Some(50.0)));
        assert_eq!(Served::default().percent(), None);
    }

    #[test]
    fn quantiles_are_of_what_was_acknowledged() {
        let mut acts: Vec<Act> = (1..=100).map(|ms| act(0, ms, End::Ok)).collect();
        acts.push(act(0, 9000, End::Failed));
        let served = Served::of(&acts);
        assert_eq!(served.p50, Duration::from_millis(50));
        assert_eq!(served.p99, Duration::from_millis(99));
    }

    #[test]
    fn silence_is_measured_from_the_beginning_to_the_end() {
        let acts = [act(0, 3000, End::Ok), act(0, 4000, End::Ok), act(0, 9000, End::Failed)];
        assert_eq!(longest_silence(&acts, Duration::from_secs(10)), Duration::from_secs(6));
        assert_eq!(longest_silence(&[], Duration::from_secs(10)), Duration::from_secs(10));
    }
}
