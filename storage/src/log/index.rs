//! Value: what the log holds, in memory: per group its truncation, its small state, and where each entry is.
//!
//! Everything that is live is charged to the segment it can be read back from; a segment nothing is charged to is not
//! needed any more. Recent entries are cached, up to a number of bytes; an entry that has not been written to its
//! file yet is always cached.
//!
//! Replay runs the same [`Index::apply`] as appending does. It may begin at any segment that was the oldest live one:
//! then entries are missing until their rewrite is met, and what is there is a subset of what was there when the
//! record was appended. That is why records are resolved ([`crate::log::record`]) and why gaps are an error only at
//! the end ([`Index::check`]).

use bytes::Bytes;
use coverage::Mark;
use std::collections::{BTreeMap, VecDeque};

use crate::StorageError;
use crate::log::record::{Placed, Record, Rewrite};
use crate::log::{Entry, GroupState, LogGroup, LogIndex, LogOp, Term};

/// Most entries the cache remembers, however small.
const CACHE_ENTRIES_MAX: usize = 1 << 16;

/// Where an entry is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) term: Term,
    pub(crate) segment: u64,
    /// Of the data, in the file.
    pub(crate) offset: u64,
    pub(crate) bytes: usize,
    pub(crate) crc: u32,
    /// Frame that holds it.
    pub(crate) sequence: u64,
    pub(crate) cached: Option<Bytes>,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct Group {
    truncated: (LogIndex, Term),
    truncated_in: Option<u64>,
    state: Option<Bytes>,
    state_in: Option<u64>,
    entries: BTreeMap<LogIndex, Place>,
}

/// Where a frame is that is being applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameAt {
    pub(crate) segment: u64,
    pub(crate) payload_offset: u64,
    pub(crate) sequence: u64,
}

/// Whether applied entries stay in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cached {
    Yes,
    No,
}

#[derive(Default, Debug)]
pub(crate) struct Index {
    groups: BTreeMap<LogGroup, Group>,
    charges: Charges,
    cache: VecDeque<(LogGroup, LogIndex, u64)>,
    cache_bytes: usize,
}

/// What is live in which segment.
#[derive(Default, Debug)]
struct Charges {
    items: BTreeMap<u64, BTreeMap<LogGroup, usize>>,
    live_bytes: u64,
}

impl Charges {
    fn add(&mut self, segment: u64, group: LogGroup, bytes: usize) {
        *self.items.entry(segment).or_default().entry(group).or_default() += 1;
        self.live_bytes += bytes as u64;
    }

    fn release(&mut self, segment: u64, group: LogGroup, bytes: usize) {
        let groups = self.items.get_mut(&segment).expect("what is released was charged");
        let count = groups.get_mut(&group).expect("what is released was charged");
        *count -= 1;
        if *count == 0 {
            groups.remove(&group);
        }
        if groups.is_empty() {
            self.items.remove(&segment);
        }
        self.live_bytes -= bytes as u64;
    }
}

impl Index {
    /// The op as a record, by what the index holds now; `None` when it changes nothing. Panics on an append that is
    /// empty, not consecutive, or leaves a gap: a caller's error.
    pub(crate) fn resolve(&self, op: LogOp) -> Option<Record> {
        match op {
            LogOp::Append { group, entries } => {
                self.check_append(group, &entries);
                let entries = entries.into_iter().map(|entry| Placed { entry, at: 0 }).collect();
                Some(Record::Append { group, entries })
            }
            LogOp::State { group, state } => Some(Record::State { group, state }),
            LogOp::Truncate { group, index, term } => self.resolve_truncate(group, index, term),
            LogOp::Remove { group } => {
                self.groups.contains_key(&group).then_some(Record::Remove { group })
            }
        }
    }

    fn resolve_truncate(&self, group: LogGroup, index: LogIndex, term: Term) -> Option<Record> {
        let held = self.groups.get(&group);
        if held.map_or(LogIndex::ZERO, |held| held.truncated.0) >= index {
            return None;
        }
        // Another term at the index means that what is behind it belongs to another history.
        match held.and_then(|held| held.entries.get(&index)) {
            Some(place) if place.term == term => Some(Record::Truncate { group, index, term }),
            Some(_) | None => {
                coverage::reached(Mark::LogBegunAnew);
                Some(Record::Reset { group, index, term })
            }
        }
    }

    fn check_append(&self, group: LogGroup, entries: &[Entry]) {
        let first = entries.first().expect("an append has entries").index;
        let state = self.group_state(group);
        assert!(first > state.truncated.0, "append to {group:?} at truncated index {first}");
        assert!(first <= state.last.0.next(), "append to {group:?} leaves a gap before {first}");
        for (place, entry) in entries.iter().enumerate() {
            let expected = first.after(place as u64);
            assert!(entry.index == expected, "append to {group:?}: {} is not next", entry.index);
        }
    }

    /// Carries a record out.
    pub(crate) fn apply(&mut self, record: Record, at: FrameAt, cached: Cached) {
        match record {
            Record::Append { group, entries } => {
                if let Some(first) = entries.first() {
                    self.remove_from(group, first.entry.index);
                }
                self.put_entries(group, entries, at, cached);
            }
            Record::State { group, state } => self.set_state(group, Some(state), at),
            Record::Truncate { group, index, term } => {
                self.remove_up_to(group, index);
                self.set_truncated(group, (index, term), at);
            }
            Record::Reset { group, index, term } => {
                self.remove_from(group, LogIndex::ZERO);
                self.set_truncated(group, (index, term), at);
            }
            Record::Remove { group } => {
                self.remove_from(group, LogIndex::ZERO);
                self.set_state(group, None, at);
                self.set_truncated(group, (LogIndex::ZERO, Term::ZERO), at);
                self.groups.remove(&group);
            }
            Record::Rewrite(rewrite) => {
                self.set_truncated(rewrite.group, rewrite.truncated, at);
                self.set_state(rewrite.group, rewrite.state, at);
                self.put_entries(rewrite.group, rewrite.entries, at, cached);
            }
        }
    }

    fn set_truncated(&mut self, group: LogGroup, truncated: (LogIndex, Term), at: FrameAt) {
        let held = self.groups.entry(group).or_default();
        // Nothing truncated is what a group begins with, and needs no segment to say so.
        let now_in = (truncated.0 > LogIndex::ZERO).then_some(at.segment);
        let was_in = std::mem::replace(&mut held.truncated_in, now_in);
        held.truncated = truncated;
        self.recharge(group, (was_in, 0), (now_in, 0));
    }

    fn set_state(&mut self, group: LogGroup, state: Option<Bytes>, at: FrameAt) {
        let held = self.groups.entry(group).or_default();
        let now_in = state.is_some().then_some(at.segment);
        let now_bytes = state.as_ref().map_or(0, Bytes::len);
        let was_in = std::mem::replace(&mut held.state_in, now_in);
        let was_bytes = held.state.as_ref().map_or(0, Bytes::len);
        held.state = state;
        self.recharge(group, (was_in, was_bytes), (now_in, now_bytes));
    }

    fn recharge(&mut self, group: LogGroup, was: (Option<u64>, usize), now: (Option<u64>, usize)) {
        if let (Some(segment), bytes) = now {
            self.charges.add(segment, group, bytes);
        }
        if let (Some(segment), bytes) = was {
            self.charges.release(segment, group, bytes);
        }
    }

    fn put_entries(&mut self, group: LogGroup, entries: Vec<Placed>, at: FrameAt, cached: Cached) {
        for Placed { entry, at: place } in entries {
            let place = Place {
                term: entry.term,
                segment: at.segment,
                offset: at.payload_offset + place as u64,
                bytes: entry.data.len(),
                crc: crc32c::crc32c(&entry.data),
                sequence: at.sequence,
                cached: (cached == Cached::Yes).then_some(entry.data),
            };
            self.charges.add(at.segment, group, place.bytes);
            if cached == Cached::Yes {
                self.cache.push_back((group, entry.index, at.sequence));
                self.cache_bytes += place.bytes;
            }
            let held = self.groups.entry(group).or_default();
            if let Some(moved) = held.entries.insert(entry.index, place) {
                self.release(group, &moved);
            }
        }
    }

    /// Removes the entries from `first` (in).
    fn remove_from(&mut self, group: LogGroup, first: LogIndex) {
        let Some(held) = self.groups.get_mut(&group) else { return };
        let removed = held.entries.split_off(&first);
        for place in removed.values() {
            self.release(group, place);
        }
    }

    /// Removes the entries up to `last` (in).
    fn remove_up_to(&mut self, group: LogGroup, last: LogIndex) {
        let Some(held) = self.groups.get_mut(&group) else { return };
        let kept = held.entries.split_off(&last.next());
        let removed = std::mem::replace(&mut held.entries, kept);
        for place in removed.values() {
            self.release(group, place);
        }
    }

    fn release(&mut self, group: LogGroup, place: &Place) {
        self.charges.release(place.segment, group, place.bytes);
        if place.cached.is_some() {
            self.cache_bytes -= place.bytes;
        }
    }

    /// Forgets cached data until at most `bytes_max` are left; only of frames up to `written`, the others are nowhere
    /// else.
    pub(crate) fn shrink_cache(&mut self, bytes_max: usize, written: u64) {
        while self.cache_bytes > bytes_max || self.cache.len() > CACHE_ENTRIES_MAX {
            match self.cache.front() {
                Some((_, _, sequence)) if *sequence <= written => {}
                Some(_) | None => return,
            }
            let (group, index, sequence) = self.cache.pop_front().expect("looked at above");
            let place = self.groups.get_mut(&group).and_then(|held| held.entries.get_mut(&index));
            let Some(place) = place.filter(|place| place.sequence == sequence) else { continue };
            if place.cached.take().is_some() {
                self.cache_bytes -= place.bytes;
            }
        }
    }

    /// Refuses what no complete log holds: gaps. Run once, at the end of a replay.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        for (group, held) in &self.groups {
            let mut last = held.truncated.0;
            for index in held.entries.keys() {
                if *index != last.next() {
                    let text =
                        format!("log of group {}: entries after {last} are missing", group.0);
                    return Err(StorageError::Corrupt(text));
                }
                last = *index;
            }
        }
        Ok(())
    }

    pub(crate) fn groups(&self) -> Vec<(LogGroup, GroupState)> {
        self.groups.keys().map(|group| (*group, self.group_state(*group))).collect()
    }

    pub(crate) fn group_state(&self, group: LogGroup) -> GroupState {
        let Some(held) = self.groups.get(&group) else { return GroupState::default() };
        let last = held.entries.last_key_value().map(|(index, place)| (*index, place.term));
        GroupState {
            truncated: held.truncated,
            last: last.unwrap_or(held.truncated),
            state: held.state.clone(),
        }
    }

    pub(crate) fn term(&self, group: LogGroup, index: LogIndex) -> Option<Term> {
        let held = self.groups.get(&group)?;
        if index == held.truncated.0 {
            return Some(held.truncated.1);
        }
        held.entries.get(&index).map(|place| place.term)
    }

    /// Where the entries from `first` to `last` are, up to `bytes_max` of data but at least one; nothing when `first`
    /// is not there.
    pub(crate) fn places(
        &self,
        group: LogGroup,
        first: LogIndex,
        last: LogIndex,
        bytes_max: usize,
    ) -> Vec<(LogIndex, Place)> {
        let mut found: Vec<(LogIndex, Place)> = Vec::new();
        let Some(held) = self.groups.get(&group) else { return found };
        if first > last || !held.entries.contains_key(&first) {
            return found;
        }
        let mut bytes = 0;
        for (index, place) in held.entries.range(first..=last) {
            bytes += place.bytes;
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push((*index, place.clone()));
        }
        found
    }

    /// Where the entry is now.
    pub(crate) fn place(&self, group: LogGroup, index: LogIndex) -> Option<&Place> {
        self.groups.get(&group)?.entries.get(&index)
    }

    /// Whether something can only be read back from `segment`.
    pub(crate) fn is_needed(&self, segment: u64) -> bool {
        self.charges.items.contains_key(&segment)
    }

    /// Groups with something in `segment`.
    pub(crate) fn groups_in(&self, segment: u64) -> Vec<LogGroup> {
        self.charges
            .items
            .get(&segment)
            .map_or(Vec::new(), |groups| groups.keys().copied().collect())
    }

    /// Bytes of live data and states.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.charges.live_bytes
    }

    /// What of `group` must be rewritten before `segment` can go: a rewrite without entries, and the entries' places.
    pub(crate) fn rewrite_of(
        &self,
        group: LogGroup,
        segment: u64,
    ) -> (Rewrite, Vec<(LogIndex, Place)>) {
        let held = self.groups.get(&group).cloned().unwrap_or_default();
        let places =
            held.entries.into_iter().filter(|(_, place)| place.segment == segment).collect();
        let rewrite =
            Rewrite { group, truncated: held.truncated, state: held.state, entries: Vec::new() };
        (rewrite, places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_forgets_only_what_is_written() {
        let mut index = Index::default();
        for number in 1..=3 {
            let (term, data) = (Term::new(1), Bytes::from_static(b"data"));
            let entry = Entry { term, index: LogIndex::new(number), data };
            let record =
                Record::Append { group: LogGroup(1), entries: vec![Placed { entry, at: 0 }] };
            let at = FrameAt { segment: 1, payload_offset: 0, sequence: number };
            index.apply(record, at, Cached::Yes);
        }
        let is_cached = |index: &Index, number| {
            let place = index.place(LogGroup(1), LogIndex::new(number)).expect("is there");
            place.cached.is_some()
        };
        index.shrink_cache(0, 1);
        assert!(!is_cached(&index, 1) && is_cached(&index, 2) && is_cached(&index, 3));
        index.shrink_cache(4, 3);
        assert!(!is_cached(&index, 2) && is_cached(&index, 3));
        assert_eq!(index.cache_bytes, 4);
        assert_eq!(index.live_bytes(), 12);
    }
}
