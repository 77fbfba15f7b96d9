//! Value: the dependency graph of transactions (Adya 1999), its cycles and their names.
//!
//! An edge says why one transaction must come before another:
//!
//! ```text
//!   ww   it wrote the version before the other's        wr   it wrote what the other read
//!   rw   it read the version before the other's         session   the same client asked for it before
//!                                                       real time   it was answered before the other was asked
//! ```
//!
//! A cycle is an anomaly. Its name is that of the weakest guarantee it breaks, as Elle (VLDB 2020) names them: *G0* (ww alone), *G1c*
//! (ww and wr), *G-single* (one rw), *G2-item* (several rw); with `-session` or `-realtime` when it needs such an edge. Names are
//! tried in this order, so that what is reported is the worst there is.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

/// Why one transaction must come before another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Edge {
    /// Write, write.
    Ww,
    /// Write, read.
    Wr,
    /// Read, write (anti-dependency).
    Rw,
    /// One client, one after another.
    Session,
    /// Answered before asked.
    RealTime,
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Edge::Ww => "ww",
            Edge::Wr => "wr",
            Edge::Rw => "rw",
            Edge::Session => "session",
            Edge::RealTime => "real time",
        })
    }
}

/// Several kinds of edge.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Kinds(u8);

impl Kinds {
    fn of(kinds: &[Edge]) -> Kinds {
        Kinds(kinds.iter().fold(0, |bits, kind| bits | 1 << *kind as u8))
    }

    fn with(self, kind: Edge) -> Kinds {
        Kinds(self.0 | 1 << kind as u8)
    }

    fn meets(self, other: Kinds) -> bool {
        self.0 & other.0 != 0
    }

    /// The strongest reason among those allowed.
    fn first_in(self, allowed: Kinds) -> Edge {
        [Edge::Ww, Edge::Wr, Edge::Rw, Edge::Session, Edge::RealTime]
            .into_iter()
            .find(|kind| {
                self.meets(allowed) && Kinds(self.0 & allowed.0).meets(Kinds::of(&[*kind]))
            })
            .expect("an edge that is followed has an allowed kind")
    }
}

/// A way round: each transaction with the edge that leaves it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cycle {
    /// See the module.
    pub name: String,
    /// Transactions by their place in the history.
    pub steps: Vec<(usize, Edge)>,
}

/// See the module. Vertices are places in a history.
#[derive(Clone, Debug)]
pub struct Graph {
    edges: Vec<BTreeMap<usize, Kinds>>,
}

impl Graph {
    /// Of so many transactions, without an edge.
    pub fn new(count: usize) -> Graph {
        Graph { edges: vec![BTreeMap::new(); count] }
    }

    /// `from` must come before `to`. Nobody comes before itself.
    pub fn add(&mut self, from: usize, to: usize, kind: Edge) {
        if from != to {
            let known = self.edges[from].entry(to).or_default();
            *known = known.with(kind);
        }
    }

    /// The worst anomaly there is.
    pub fn worst_cycle(&self) -> Option<Cycle> {
        use Edge::{RealTime, Rw, Session, Wr, Ww};
        let all = Kinds::of(&[Ww, Wr, Rw, Session, RealTime]);
        let (place, component) = self.components(all);
        if component.iter().all(|size| *size < 2) {
            return None;
        }
        let extras: [(&str, &[Edge]); 3] =
            [("", &[]), ("-session", &[Session]), ("-realtime", &[Session, RealTime])];
        for (suffix, extra) in extras {
            let with = |kinds: &[Edge]| Kinds::of(&[kinds, extra].concat());
            for (name, kinds) in [("G0", &[Ww][..]), ("G1c", &[Ww, Wr][..])] {
                if let Some(steps) = self.cycle_in(with(kinds)) {
                    return Some(Cycle { name: format!("{name}{suffix}"), steps });
                }
            }
            if let Some(steps) = self.cycle_of_one_rw(with(&[Ww, Wr]), &place) {
                return Some(Cycle { name: format!("G-single{suffix}"), steps });
            }
            if let Some(steps) = self.cycle_in(with(&[Ww, Wr, Rw])) {
                return Some(Cycle { name: format!("G2-item{suffix}"), steps });
            }
        }
        None
    }

    fn next_of(&self, from: usize, allowed: Kinds) -> impl Iterator<Item = usize> + '_ {
        let edges = self.edges[from].iter();
        edges.filter(move |(_, kinds)| kinds.meets(allowed)).map(|(to, _)| *to)
    }

    /// A short cycle over these kinds.
    fn cycle_in(&self, allowed: Kinds) -> Option<Vec<(usize, Edge)>> {
        let (place, sizes) = self.components(allowed);
        let member = (0..self.edges.len()).filter(|vertex| sizes[place[*vertex]] > 1);
        // Which member is the first does not matter; a few are tried for a short way.
        member
            .take(64)
            .filter_map(|start| self.way(start, start, allowed, &place))
            .min_by_key(Vec::len)
    }

    /// A cycle with one anti-dependency, and else `others`.
    fn cycle_of_one_rw(&self, others: Kinds, place: &[usize]) -> Option<Vec<(usize, Edge)>> {
        let rw = Kinds::of(&[Edge::Rw]);
        let mut best: Option<Vec<(usize, Edge)>> = None;
        for from in 0..self.edges.len() {
            for to in self.next_of(from, rw).filter(|to| place[*to] == place[from]) {
                let Some(back) = self.way(to, from, others, place) else { continue };
                if best.as_ref().is_none_or(|best| back.len() + 1 < best.len()) {
                    let mut steps = vec![(from, Edge::Rw)];
                    steps.extend(back);
                    best = Some(steps);
                }
            }
        }
        best
    }

    /// The shortest way over these kinds within a component (breadth first), at least one edge long.
    fn way(
        &self,
        from: usize,
        to: usize,
        allowed: Kinds,
        place: &[usize],
    ) -> Option<Vec<(usize, Edge)>> {
        let mut came: BTreeMap<usize, usize> = BTreeMap::new();
        let mut queue = VecDeque::from([from]);
        while let Some(at) = queue.pop_front() {
            for next in self.next_of(at, allowed).filter(|next| place[*next] == place[from]) {
                if came.contains_key(&next) {
                    continue;
                }
                came.insert(next, at);
                if next != to {
                    queue.push_back(next);
                    continue;
                }
                let mut steps = Vec::new();
                let mut at = to;
                loop {
                    let before = came[&at];
                    steps.push((before, self.edges[before][&at].first_in(allowed)));
                    at = before;
                    if at == from {
                        steps.reverse();
                        return Some(steps);
                    }
                }
            }
        }
        None
    }

    /// Strongly connected components (Tarjan 1972, without recursion): of each vertex its component, of each component its size.
    fn components(&self, allowed: Kinds) -> (Vec<usize>, Vec<usize>) {
        const NONE: usize = usize::MAX;
        let count = self.edges.len();
        let (mut index, mut low) = (vec![NONE; count], vec![0; count]);
        let (mut place, mut sizes) = (vec![NONE; count], Vec::new());
        let (mut stack, mut next_index) = (Vec::new(), 0);
        for root in 0..count {
            if index[root] != NONE {
                continue;
            }
            let mut work = vec![(root, self.next_of(root, allowed))];
            (index[root], low[root]) = (next_index, next_index);
            next_index += 1;
            stack.push(root);
            while let Some((vertex, successors)) = work.last_mut() {
                let vertex = *vertex;
                if let Some(to) = successors.next() {
                    if index[to] == NONE {
                        (index[to], low[to]) = (next_index, next_index);
                        next_index += 1;
                        stack.push(to);
                        work.push((to, self.next_of(to, allowed)));
                    } else if place[to] == NONE {
                        low[vertex] = low[vertex].min(index[to]);
                    }
                    continue;
                }
                work.pop();
                if let Some((parent, _)) = work.last() {
                    low[*parent] = low[*parent].min(low[vertex]);
                }
                if low[vertex] == index[vertex] {
                    let mut size = 0;
                    while let Some(member) = stack.pop() {
                        place[member] = sizes.len();
                        size += 1;
                        if member == vertex {
                            break;
                        }
                    }
                    sizes.push(size);
                }
            }
        }
        (place, sizes)
    }
}

/// When a transaction was asked and answered, and whether it wrote: what real-time edges are made of.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Its place in the history.
    pub place: usize,
    /// When it was asked.
    pub asked: u64,
    /// When it was answered.
    pub heard: u64,
    /// Whether it wrote what is looked at. Two that only read are not ordered.
    pub wrote: bool,
}

impl Graph {
    /// Whoever was answered before another was asked comes first, if one of the two wrote. Edges that follow from others are left out:
    /// from each only to those that were asked before the first later writer was answered.
    pub fn add_real_time(&mut self, moments: &mut [Moment]) {
        moments.sort_by_key(|moment| moment.asked);
        for before in moments.iter() {
            let later = moments.partition_point(|moment| moment.asked <= before.heard);
            let mut until = u64::MAX;
            for after in &moments[later..] {
                if after.asked > until {
                    break;
                }
                if before.wrote || after.wrote {
                    self.add(before.place, after.place, Edge::RealTime);
                }
                if after.wrote {
                    until = until.min(after.heard);
                }
            }
        }
    }

    /// One client's transactions, in the order in which they were asked for.
    pub fn add_session(&mut self, places: &[usize]) {
        for pair in places.windows(2) {
            self.add(pair[0], pair[1], Edge::Session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(count: usize, edges: &[(usize, usize, Edge)]) -> String {
        let mut graph = Graph::new(count);
        for (from, to, kind) in edges {
            graph.add(*from, *to, *kind);
        }
        graph.worst_cycle().map_or("none".to_string(), |cycle| cycle.name)
    }

    #[test]
    fn cycles_are_named_by_the_weakest_guarantee_they_break() {
        use Edge::{RealTime, Rw, Session, Wr, Ww};
        assert_eq!(name(3, &[(0, 1, Ww), (1, 2, Wr), (0, 2, Rw)]), "none");
        assert_eq!(name(2, &[(0, 1, Ww), (1, 0, Ww)]), "G0");
        assert_eq!(name(2, &[(0, 1, Ww), (1, 0, Wr)]), "G1c");
        assert_eq!(name(2, &[(0, 1, Rw), (1, 0, Wr)]), "G-single");
        assert_eq!(name(2, &[(0, 1, Rw), (1, 0, Rw)]), "G2-item");
        assert_eq!(name(2, &[(0, 1, Rw), (1, 0, Session)]), "G-single-session");
        assert_eq!(name(2, &[(0, 1, Wr), (1, 0, RealTime)]), "G1c-realtime");
        assert_eq!(name(3, &[(0, 1, Rw), (1, 2, Rw), (2, 0, RealTime)]), "G2-item-realtime");
        // Both a harmless-looking and a worse one: the worse is told.
        assert_eq!(name(4, &[(0, 1, Rw), (1, 0, Rw), (2, 3, Ww), (3, 2, Ww)]), "G0");
    }

    /// The dumb twin: every pair.
    #[test]
    fn reduced_real_time_edges_reach_as_far_as_all_of_them() {
        let mut state = 7u64;
        let mut draw = |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % limit
        };
        for _ in 0..50 {
            let mut moments: Vec<Moment> = (0..12)
                .map(|place| {
                    let asked = draw(40);
                    Moment { place, asked, heard: asked + 1 + draw(12), wrote: draw(3) == 0 }
                })
                .collect();
            let mut all = Graph::new(12);
            for before in &moments {
                for after in &moments {
                    if before.heard < after.asked && (before.wrote || after.wrote) {
                        all.add(before.place, after.place, Edge::RealTime);
                    }
                }
            }
            let mut reduced = Graph::new(12);
            reduced.add_real_time(&mut moments);
            let kinds = Kinds::of(&[Edge::RealTime]);
            for from in 0..12 {
                for to in all.next_of(from, kinds) {
                    let way = reduced.way(from, to, kinds, &[0; 12]);
                    assert!(way.is_some(), "{from} to {to} in {moments:?}");
                }
            }
        }
    }
}
