//! Runs `server_scripts/*.txt`: a story, commands after `> `, and what was observed.
//! `UPDATE_GOLDENFILES=1` rewrites them.
//!
//! ```text
//! > txn a started=100 anchor=k        declares a transaction
//! > room 2                            for so many locks in a range; to be said first
//! > clock 5s                          moves both clocks and ticks
//! > led [range] [floor=ts]            the next term begins            > deposed [leader=n]    > bound ts    > lapse   > missing n,n
//! > gone [range]                      its replica has left this node
//! > hold / > release                  commands stay undecided / are applied at once again (with all that wait)
//! > apply | drop | lose               decides the oldest undecided command
//! > a get k at=100 ..                 a request of `a` (or `-`): its number, and answers as they come
//! > cancel 3                          > locks        > keys (all that is stored)
//! ```

use clock::{ClockTimestamp, Monotonic, Now, Timestamp};
use replication::raft::Term;
use replication::range::{NodeId, RangeId};
use replication::store::{Outcome, RangeEvent};
use std::fmt::Write;
use std::path::Path;
use storage::mvcc::{self, Intent, Version, layout};
use storage::{Direction, Key, Reader, Space};
use txn::server::record::Record;
use txn::server::{Ranges, RequestId, ServerConfig};

use super::replicas::{NODE, Scripted};
use super::words::{self, Txns, show_key, show_ts};

pub(super) struct World {
    pub(super) replicas: Scripted,
    pub(super) ranges: Ranges,
    pub(super) micros: u64,
    txns: Txns,
    next_request: u64,
    next_term: u64,
    holding: bool,
    out: String,
}

impl World {
    pub(super) fn new(config: ServerConfig) -> World {
        World {
            replicas: Scripted::new(),
            ranges: Ranges::new(config),
            micros: 100,
            txns: Txns::new(),
            next_request: 0,
            next_term: 0,
            holding: false,
            out: String::new(),
        }
    }

    pub(super) fn now(&self) -> Now {
        let clock = ClockTimestamp::from_raw(Timestamp::new(self.micros, 0).raw());
        Now { clock, monotonic: Monotonic::from_nanos(self.micros * 1000) }
    }

    pub(super) fn event(&mut self, event: RangeEvent) {
        self.ranges.event(self.now(), &mut self.replicas, event);
    }

    pub(super) fn decide(&mut self, outcome: Outcome) {
        for event in self.replicas.decide(outcome) {
            self.event(event);
        }
    }

    pub(super) fn lead(&mut self, range: RangeId, floor: Timestamp) {
        self.next_term += 1;
        let term = Term::new(self.next_term);
        self.replicas.terms.insert(range, term);
        self.replicas.leaders.insert(range, NODE);
        self.event(RangeEvent::Led { range, term, floor });
    }

    fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let range =
            |words: &[&str]| RangeId(words.get(1).and_then(|word| word.parse().ok()).unwrap_or(1));
        match words[0] {
            "txn" => {
                let number = (self.txns.len() as u128 + 1) << 96;
                self.txns.insert(words[1].into(), words::txn(words[1], &words[2..], number));
            }
            "room" => {
                let locks_max = words[1].parse().expect("a number");
                self.ranges = Ranges::new(ServerConfig { locks_max, ..ServerConfig::new(NODE) });
            }
            "clock" => {
                self.micros = words::micros(words[1]);
                self.ranges.tick(self.now(), &mut self.replicas);
            }
            "led" => {
                let floor = words.iter().find_map(|word| word.strip_prefix("floor="));
                self.lead(range(&words), floor.map_or(Timestamp::MIN, words::ts));
            }
            "deposed" => {
                let leader = words.iter().find_map(|word| word.strip_prefix("leader="));
                self.replicas.terms.remove(&RangeId(1));
                self.replicas.leaders.remove(&RangeId(1));
                if let Some(leader) = leader {
                    self.replicas.leaders.insert(RangeId(1), NodeId(leader.parse().unwrap()));
                }
                self.event(RangeEvent::Deposed { range: RangeId(1) });
            }
            "gone" => {
                self.replicas.states.remove(&range(&words));
                self.replicas.terms.remove(&range(&words));
                self.event(RangeEvent::Removed { range: range(&words) });
            }
            "bound" => {
                self.replicas.bound = words::ts(words[1]);
                self.ranges.tick(self.now(), &mut self.replicas);
            }
            "lapse" => self.replicas.lease_until = Monotonic::ZERO,
            "missing" => {
                let nodes = words[1].split(',').map(|node| NodeId(node.parse().unwrap()));
                self.replicas.missing = Some(nodes.collect());
                self.ranges.tick(self.now(), &mut self.replicas);
            }
            "hold" => self.holding = true,
            "release" => self.holding = false,
            "apply" => self.decide(Outcome::Applied),
            "drop" => self.decide(Outcome::Dropped),
            "lose" => self.decide(Outcome::Unknown),
            "cancel" => {
                let id = RequestId(words[1].parse().unwrap());
                self.ranges.cancel(self.now(), &mut self.replicas, id);
            }
            "locks" => self.show_locks(),
            "keys" => self.show_keys(),
            who => {
                self.next_request += 1;
                let id = RequestId(self.next_request);
                let batch = words::batch(&self.txns, who, &words[1..]);
                self.ranges.request(self.now(), &mut self.replicas, id, batch);
                self.settle();
                if !self.show_answers().contains(&id) {
                    writeln!(self.out, "{} waits", id.0).unwrap();
                }
            }
        }
        self.settle();
        self.show_answers();
    }

    fn settle(&mut self) {
        while !self.holding && !self.replicas.undecided.is_empty() {
            self.decide(Outcome::Applied);
        }
    }

    fn show_answers(&mut self) -> Vec<RequestId> {
        let answers = self.ranges.answers(self.now(), &self.replicas);
        for (id, result) in &answers {
            writeln!(self.out, "{}: {}", id.0, words::show(&self.txns, result)).unwrap();
        }
        answers.into_iter().map(|(id, _)| id).collect()
    }

    fn name(&self, id: mvcc::TxnId) -> String {
        let found = self.txns.iter().find(|(_, txn)| txn.id == id);
        found.map_or_else(|| id.to_string(), |(name, _)| name.clone())
    }

    fn show_locks(&mut self) {
        for lock in self.ranges.locks() {
            let (key, name) = (show_key(&lock.key), self.name(lock.holder.id));
            writeln!(
                self.out,
                "{} {key} {:?} by {name}, {} wait",
                lock.range, lock.strength, lock.waiters_count
            )
            .unwrap();
        }
    }

    fn show_keys(&mut self) {
        let all = |space| -> Vec<(bytes::Bytes, bytes::Bytes)> {
            self.replicas
                .engine
                .scan(space, b"", b"\xff", Direction::Forward)
                .map(|item| item.unwrap())
                .collect()
        };
        let mut lines = Vec::new();
        for (raw, value) in all(Space::Versions) {
            let (key, ts) = layout::parse_version_key(&raw).unwrap();
            let version = Version::decode(value).unwrap();
            let value = version
                .value
                .map_or_else(|| "deleted".into(), |value| value.escape_ascii().to_string());
            let written = show_ts(version.written_at.timestamp());
            lines.push(format!("{}={value}@{} written {written}", show_key(&key), show_ts(ts)));
        }
        for (raw, value) in all(Space::Locks) {
            let intent = Intent::decode(value).unwrap();
            let values: Vec<String> = intent
                .history
                .iter()
                .map(|(s, v)| {
                    format!(
                        "{}:{}",
                        s.get(),
                        v.as_ref().map_or("deleted".into(), |v| v.escape_ascii().to_string())
                    )
                })
                .collect();
            let key = show_key(&Key::new(raw));
            lines.push(format!(
                "{key} intent of {} at {} {}",
                self.name(intent.txn),
                show_ts(intent.ts),
                values.join(" ")
            ));
        }
        for (raw, value) in all(Space::Records) {
            let (anchor, id) = layout::parse_record_key(&raw).unwrap();
            let record = Record::decode(value).unwrap();
            lines.push(format!(
                "{} record of {} {:?}",
                show_key(&anchor),
                self.name(id),
                record.status
            ));
        }
        for line in lines {
            writeln!(self.out, "{line}").unwrap();
        }
    }
}

fn replay(script: &str) -> String {
    let mut world = World::new(ServerConfig::new(NODE));
    let mut rendered = String::new();
    let mut in_output = false;
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            world.command(command);
            writeln!(rendered, "{line}").unwrap();
            rendered.push_str(&std::mem::take(&mut world.out));
            in_output = true;
        } else if line.is_empty() || line.starts_with('#') || !in_output {
            writeln!(rendered, "{line}").unwrap();
            in_output = false;
        }
    }
    rendered
}

#[test]
fn stories_go_as_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server_scripts");
    let mut paths: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "the stories are there");
    let update = std::env::var_os("UPDATE_GOLDENFILES").is_some();
    let mut wrong = Vec::new();
    for path in paths {
        let told = std::fs::read_to_string(&path).unwrap();
        let seen = replay(&told);
        if update {
            std::fs::write(&path, seen).unwrap();
        } else if seen != told {
            let difference = told.lines().zip(seen.lines()).find(|(a, b)| a != b);
            wrong.push(format!("{}: {difference:?}", path.file_name().unwrap().display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
