//! Runs `raft_scripts/*.txt`: stories in comments, commands, `---`, and what was observed.
//!
//! A file is a list of blocks, separated by empty lines: comments (`#`) and commands, a line `---`, output.
//! `UPDATE_GOLDENFILES=1` rewrites the output. The file's name is its claim.
//!
//! ```text
//! nodes N                     N voters, running; their disks sync by themselves, nothing is delivered by itself
//! node ID                     a running replica that knows of no group yet
//! campaign ID, tick ID..      as it says; `pass MS` lets time pass for all, without ticks
//! deliver [A->B [COUNT]]      syncs and delivers until nothing is left (or that link's messages, or so many of them)
//! run MS                      time passes in steps of 100 ms: promises (if on), ticks, deliveries
//! drop [A->B], dup A->B       of the messages under way
//! cut A->B | A B, heal        links; what is sent over a cut link is lost
//! hold ID, sync ID [COUNT]    stops automatic syncs of a disk; syncs so many writes
//! promises                    exchanges promises between all connected stores, now and every 400 ms of `run`
//! no-promises                 and no more
//! propose ID DATA, read ID CONTEXT, transfer ID TO [READ_HIGH_MICROS], lease ID, floor ID, status [ID..]
//! membership ID [voters=1,2] [outgoing=..] [learners=..]
//! flush ID, truncate ID KEEP, snapshot A->B, snapshot-failed A->B, snapshot-delivered A->B
//! crash ID [KEPT], restart ID
//! ```

use super::lab::{self, Effects, Ledger, Node, Packet, Parcel, Snapshot, show};
use bytes::Bytes;
use clock::{Monotonic, Timestamp};
use replication::raft::{
    GroupLog, LogIndex, Membership, ProposeError, Raft, ReplicaId, SnapshotOutcome,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const STEP: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Script {
    now: Duration,
    commands: u64,
    nodes: BTreeMap<ReplicaId, Node>,
    held: BTreeSet<ReplicaId>,
    cuts: BTreeSet<(ReplicaId, ReplicaId)>,
    network: VecDeque<Packet>,
    promises: bool,
    snapshots: BTreeMap<(ReplicaId, ReplicaId), LogIndex>,
    ledger: Ledger,
    output: String,
}

fn id(text: &str) -> ReplicaId {
    ReplicaId(text.parse().unwrap_or_else(|_| panic!("{text} is no replica")))
}

fn ids(text: &str) -> BTreeSet<ReplicaId> {
    text.split(',').filter(|part| !part.is_empty()).map(id).collect()
}

fn link(text: &str) -> (ReplicaId, ReplicaId) {
    let (from, to) = text.split_once("->").unwrap_or_else(|| panic!("{text} is no link"));
    (id(from), id(to))
}

fn joined(set: &BTreeSet<ReplicaId>) -> String {
    set.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

impl Script {
    /// Every command takes a nanosecond: what is done at one instant happens in no order.
    fn local(&self) -> Monotonic {
        Monotonic::ZERO
            .plus(self.now + Duration::from_secs(10) + Duration::from_nanos(self.commands))
    }

    fn wall(&self) -> Timestamp {
        Timestamp::new(u64::try_from(self.now.as_micros()).unwrap(), 0)
    }

    fn say(&mut self, line: impl AsRef<str>) {
        self.output.push_str(line.as_ref());
        self.output.push('\n');
    }

    fn node(&mut self, id: ReplicaId) -> &mut Node {
        self.nodes.get_mut(&id).unwrap_or_else(|| panic!("no replica {id}"))
    }

    fn add(&mut self, id: ReplicaId, initial: Snapshot) {
        let mut node = Node::new(id, lab::config(None), initial, 0);
        node.fixed_random = Some(Duration::from_millis(100 * id.0).as_nanos() as u64);
        node.start(self.local());
        self.nodes.insert(id, node);
    }

    fn with<R>(
        &mut self,
        id: ReplicaId,
        call: impl FnOnce(&mut Raft, &mut replication::raft::Env<'_>) -> R,
    ) -> R {
        let now = self.local();
        let result = self.node(id).with(now, call).unwrap_or_else(|| panic!("{id} does not run"));
        self.settle(id);
        result
    }

    fn settle(&mut self, id: ReplicaId) {
        let now = self.local();
        let elections = self.ledger.elections;
        let node = self.nodes.get_mut(&id).expect("known");
        let effects = node.settle(now, &mut self.ledger);
        self.take(id, effects);
        let nodes = &self.nodes;
        self.ledger.committed(&nodes[&id], |index, term| {
            let has = |node: &Node| {
                node.disk.log.truncated.0 >= index || node.disk.log.term(index) == Some(term)
            };
            nodes.iter().filter(|(_, node)| has(node)).map(|(id, _)| *id).collect()
        });
        if self.ledger.elections > elections {
            self.ledger.check_complete(&nodes[&id]);
        }
    }

    fn take(&mut self, id: ReplicaId, effects: Effects) {
        for note in effects.notes {
            self.say(format!("{id} {note}"));
        }
        for (context, index) in effects.read_indexes {
            self.say(format!("{id} may read {context} at {index}"));
        }
        for to in effects.snapshots_wanted {
            self.say(format!("{id} wants a snapshot sent to {to}"));
        }
        self.send(effects.packets);
    }

    fn send(&mut self, packets: Vec<Packet>) {
        for packet in packets {
            if !self.cuts.contains(&(packet.from, packet.to)) {
                self.network.push_back(packet);
            }
        }
    }

    fn sync_all(&mut self) -> bool {
        let waiting: Vec<ReplicaId> = self
            .nodes
            .iter()
            .filter(|(id, node)| node.unsynced() > 0 && !self.held.contains(id))
            .map(|(id, _)| *id)
            .collect();
        for id in &waiting {
            self.sync(*id, usize::MAX);
        }
        !waiting.is_empty()
    }

    fn sync(&mut self, id: ReplicaId, count: usize) {
        let now = self.local();
        let packets = self.node(id).sync(now, count);
        self.send(packets);
        self.settle(id);
    }

    fn deliver(&mut self, only: Option<(ReplicaId, ReplicaId)>, mut count: usize) {
        loop {
            let synced = self.sync_all();
            let matches = |packet: &Packet| {
                only.is_none_or(|(from, to)| (packet.from, packet.to) == (from, to))
            };
            let Some(position) = self.network.iter().position(matches) else {
                if synced {
                    continue;
                }
                return;
            };
            if count == 0 {
                return;
            }
            count -= 1;
            let packet = self.network.remove(position).expect("found");
            self.arrive(packet);
        }
    }

    fn arrive(&mut self, packet: Packet) {
        let to = packet.to;
        let Some(node) = self.nodes.get(&to) else { return };
        let down = if node.raft.is_none() { " (down)" } else { "" };
        match &packet.parcel {
            Parcel::Raft(message) => self.say(format!("{}{down}", show(message))),
            Parcel::Snapshot { snapshot, leader_term } => {
                let (from, index, term) = (packet.from, snapshot.index, snapshot.term);
                self.say(format!("{from}->{to} t{leader_term} snapshot {term}/{index}{down}"));
            }
            Parcel::Ask { .. } | Parcel::Promise { .. } => {}
        }
        if !down.is_empty() {
            return;
        }
        let now = self.local();
        let answers = self.node(to).receive(now, packet);
        self.send(answers);
        self.settle(to);
    }

    fn exchange_promises(&mut self) {
        let (now, wall) = (self.local(), self.wall());
        let all: Vec<ReplicaId> = self.nodes.keys().copied().collect();
        let mut packets = Vec::new();
        for id in &all {
            packets.extend(self.node(*id).ask(now, wall, &all));
        }
        while let Some(packet) = packets.pop() {
            if !self.cuts.contains(&(packet.from, packet.to)) {
                packets.extend(self.node(packet.to).receive(now, packet));
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += STEP;
            if self.promises && self.now.as_millis().is_multiple_of(400) {
                self.exchange_promises();
            }
            let running: Vec<ReplicaId> = self
                .nodes
                .iter()
                .filter(|(_, node)| node.raft.is_some())
                .map(|(id, _)| *id)
                .collect();
            for id in running {
                self.with(id, |raft, env| {
                    if env.now >= raft.wake_at(env) {
                        raft.tick(env);
                    }
                });
            }
            self.deliver(None, usize::MAX);
        }
    }

    fn refused<T>(&mut self, id: ReplicaId, result: Result<T, ProposeError>) {
        if let Err(error) = result {
            self.say(format!("{id} refuses: {error}"));
        }
    }

    fn status(&mut self, id: ReplicaId) {
        let Some(raft) = &self.node(id).raft else {
            self.say(format!("{id} down"));
            return;
        };
        let membership = raft.membership();
        let mut line = format!(
            "{id} t{} {} log {}..{} durable {} commit {} applied {} voters {}",
            raft.term(),
            format!("{:?}", raft.role()).to_lowercase(),
            raft.truncated_index(),
            raft.last_index(),
            raft.durable_index(),
            raft.commit_index(),
            raft.applied_index(),
            joined(&membership.voters),
        );
        if membership.is_joint() {
            write!(line, " outgoing {}", joined(&membership.outgoing)).unwrap();
        }
        if !membership.learners.is_empty() {
            write!(line, " learners {}", joined(&membership.learners)).unwrap();
        }
        for peer in raft.progress() {
            write!(line, " [{} {:?} {}]", peer.id, peer.state, peer.match_index).unwrap();
        }
        self.say(line);
    }

    fn snapshot(&mut self, from: ReplicaId, to: ReplicaId) {
        let node = self.node(from);
        let snapshot = node.applied.clone();
        let incarnation = node.promises_incarnation();
        let leader_term = node.raft.as_ref().expect("it runs").term();
        self.snapshots.insert((from, to), snapshot.index);
        let parcel = Parcel::Snapshot { snapshot, leader_term };
        self.send(vec![Packet { from, incarnation, to, parcel }]);
    }

    fn report(&mut self, (from, to): (ReplicaId, ReplicaId), outcome: SnapshotOutcome) {
        let index = self.snapshots[&(from, to)];
        self.with(from, |raft, env| raft.snapshot_sent(env, to, index, outcome));
    }

    fn membership(&mut self, id: ReplicaId, parts: &[&str]) {
        let mut membership = Membership::default();
        for part in parts {
            let (name, members) = part.split_once('=').expect("name=members");
            match name {
                "voters" => membership.voters = ids(members),
                "outgoing" => membership.outgoing = ids(members),
                "learners" => membership.learners = ids(members),
                _ => panic!("no such part {name}"),
            }
        }
        let proposed =
            self.with(id, |raft, env| raft.propose_membership(env, membership, Bytes::new()));
        self.refused(id, proposed);
    }

    fn lease(&mut self, id: ReplicaId) {
        let (now, start) = (self.local(), Monotonic::ZERO.plus(Duration::from_secs(10)));
        let line = match self.node(id).lease(now) {
            Some(lease) => {
                let until = lease.until.since(start).as_millis();
                format!(
                    "{id} lease of term {} until {until} ms, reads up to {}",
                    lease.term, lease.read_bound
                )
            }
            None => format!("{id} has no lease"),
        };
        self.say(line);
    }

    fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.commands += 1;
        match words[..] {
            ["nodes", count] => {
                let count: u64 = count.parse().unwrap();
                let membership = Membership::of_voters((1..=count).map(ReplicaId));
                for n in 1..=count {
                    self.add(
                        ReplicaId(n),
                        Snapshot { membership: membership.clone(), ..Snapshot::default() },
                    );
                }
            }
            ["node", one] => self.add(id(one), Snapshot::default()),
            ["campaign", one] => self.with(id(one), |raft, env| raft.campaign(env)),
            ["born", one, floor] => {
                let floor = Timestamp::new(floor.parse().unwrap(), 0);
                let leads = self.with(id(one), |raft, env| raft.lead_from_birth(env, floor));
                if !leads {
                    self.say(format!("{one} does not lead from birth"));
                }
            }
            ["tick", ref some @ ..] => {
                for one in some {
                    self.with(id(one), |raft, env| raft.tick(env));
                }
            }
            ["pass", millis] => self.now += Duration::from_millis(millis.parse().unwrap()),
            ["run", millis] => self.run(Duration::from_millis(millis.parse().unwrap())),
            ["deliver"] => self.deliver(None, usize::MAX),
            ["deliver", of] => {
                let count = self
                    .network
                    .iter()
                    .filter(|packet| (packet.from, packet.to) == link(of))
                    .count();
                self.deliver(Some(link(of)), count.max(1));
            }
            ["deliver", of, count] => self.deliver(Some(link(of)), count.parse().unwrap()),
            ["drop"] => self.network.clear(),
            ["drop", of] => self.network.retain(|packet| (packet.from, packet.to) != link(of)),
            ["dup", of] => {
                let of = link(of);
                let copies: Vec<Packet> = self
                    .network
                    .iter()
                    .filter(|packet| (packet.from, packet.to) == of)
                    .cloned()
                    .collect();
                self.network.extend(copies);
            }
            ["cut", of] if of.contains("->") => {
                self.cuts.insert(link(of));
            }
            ["cut", one] => {
                let others: Vec<ReplicaId> =
                    self.nodes.keys().copied().filter(|other| *other != id(one)).collect();
                for other in others {
                    self.cuts.insert((id(one), other));
                    self.cuts.insert((other, id(one)));
                }
            }
            ["cut", a, b] => {
                self.cuts.insert((id(a), id(b)));
                self.cuts.insert((id(b), id(a)));
            }
            ["heal"] => self.cuts.clear(),
            ["hold", one] => {
                self.held.insert(id(one));
            }
            ["sync", one] => {
                self.held.remove(&id(one));
                self.sync(id(one), usize::MAX);
            }
            ["sync", one, count] => self.sync(id(one), count.parse().unwrap()),
            ["promises"] => {
                self.promises = true;
                self.exchange_promises();
            }
            ["no-promises"] => self.promises = false,
            ["propose", one, data] => {
                let data = Bytes::from(data.to_string());
                let proposed = self.with(id(one), |raft, env| raft.propose(env, data));
                self.refused(id(one), proposed);
            }
            ["read", one, context] => {
                let context = context.parse().unwrap();
                self.with(id(one), |raft, env| raft.read_index(env, context));
            }
            ["transfer", one, to, ref rest @ ..] => {
                let high = rest.first().map_or(0, |micros| micros.parse().unwrap());
                let asked = self
                    .with(id(one), |raft, env| raft.transfer(env, id(to), Timestamp::new(high, 0)));
                self.refused(id(one), asked);
            }
            ["lease", one] => self.lease(id(one)),
            ["floor", one] => {
                let now = self.local();
                let floor = self
                    .node(id(one))
                    .view(now, |raft, env| raft.read_floor(env))
                    .expect("it runs");
                self.say(format!("{one} floor {floor}"));
            }
            ["status"] => {
                for one in self.nodes.keys().copied().collect::<Vec<_>>() {
                    self.status(one);
                }
            }
            ["status", ref some @ ..] => {
                for one in some {
                    self.status(id(one));
                }
            }
            ["membership", one, ref parts @ ..] => self.membership(id(one), parts),
            ["flush", one] => self.node(id(one)).flush(),
            ["truncate", one, keep] => self.node(id(one)).truncate(keep.parse().unwrap()),
            ["snapshot", of] => self.snapshot(link(of).0, link(of).1),
            ["snapshot-failed", of] => self.report(link(of), SnapshotOutcome::Failed),
            ["snapshot-delivered", of] => self.report(link(of), SnapshotOutcome::Delivered),
            ["crash", one] => self.node(id(one)).crash(0),
            ["crash", one, kept] => self.node(id(one)).crash(kept.parse().unwrap()),
            ["restart", one] => {
                let now = self.local();
                self.node(id(one)).start(now);
            }
            _ => panic!("no such command: {line}"),
        }
    }
}

/// Runs a script and returns it with what was observed.
fn replay(text: &str) -> String {
    let mut script = Script::default();
    let mut result = String::new();
    for block in text.split("\n\n") {
        let mut input: Vec<&str> = block.lines().filter(|line| !line.trim().is_empty()).collect();
        let observed = input.iter().position(|line| *line == "---");
        input.truncate(observed.unwrap_or(input.len()));
        if input.is_empty() {
            continue;
        }
        for line in input.iter().filter(|line| !line.starts_with('#')) {
            script.command(line);
        }
        let output = std::mem::take(&mut script.output);
        if !result.is_empty() {
            result.push('\n');
        }
        let has_command = input.iter().any(|line| !line.starts_with('#'));
        result.push_str(&input.join("\n"));
        result.push('\n');
        if has_command {
            result.push_str("---\n");
            result.push_str(&output);
        }
    }
    result
}

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/raft_scripts");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|ext| ext == "txt")).collect();
    files.sort();
    files
}

#[test]
fn scripts_are_observed_as_written() {
    let update = std::env::var_os("UPDATE_GOLDENFILES").is_some();
    let mut differing = Vec::new();
    for path in scripts() {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let observed = std::panic::catch_unwind(|| replay(&text))
            .unwrap_or_else(|_| panic!("in script {name}"));
        if observed == text {
            continue;
        }
        if update {
            std::fs::write(&path, observed).unwrap();
        } else {
            let at = observed.lines().zip(text.lines()).position(|(a, b)| a != b).unwrap_or(0);
            let (now, before) = (observed.lines().nth(at), text.lines().nth(at));
            differing.push(format!("{name}, line {}: {before:?} is now {now:?}", at + 1));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    assert!(scripts().len() >= 25, "scripts were lost");
}
