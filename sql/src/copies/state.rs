//! Value: the state of one row of an available table, and how two of them merge.
//!
//! ```text
//!   incarnation      0 at first; one more with each insert over a deleted row
//!   dot, parent      (time, region) of the last write of ordinary columns or of the delete, and of the write it replaced
//!   deleted          a tombstone
//!   values           ordinary columns: one last-writer-wins group, so that a CHECK over several stays true
//!   counters         per COUNTER column and region: increments, decrements
//! ```
//!
//! Merge: the higher incarnation wins whole. Within one, ordinary columns follow the greater dot, counters take the greater value
//! of each region's slot. That is a join of a product of total orders, hence commutative, associative and idempotent (Shapiro et
//! al. 2011); checked below.
//!
//! A dot's time is the writing transaction's timestamp, raised above the dot that it replaces: a write that has seen another is
//! always greater, whatever the clocks say. Only a region writes dots and slots of its own, and its transactions are serializable:
//! INVARIANT: two different writes of a row never have the same dot; slots never fall.

use crate::catalog::TableDescriptor;
use crate::error::SqlError;
use crate::types::{Datum, SqlState, Type, row_decode, row_encode};
use bytes::Bytes;
use coverage::Mark;
use std::collections::BTreeMap;

/// Form of the encoding.
const VERSION: u8 = 1;

/// Names a write: later ones are greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Dot {
    /// Raw HLC timestamp.
    pub time: u64,
    /// Who wrote.
    pub region: u16,
}

/// Increments and decrements of one region, in sum.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Slot {
    pub(super) plus: u64,
    pub(super) minus: u64,
}

/// The state of a row.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct RowState {
    pub(super) incarnation: u32,
    /// The last write of ordinary columns.
    pub dot: Dot,
    /// The write that it replaced; zero: none.
    pub parent: Dot,
    /// Deleted.
    pub deleted: bool,
    /// Ordinary columns by id. NULLs are left out, but for [`crate::rows::stored`]'s.
    pub(super) values: Vec<(u32, Datum)>,
    pub(super) counters: BTreeMap<(u32, u16), Slot>,
}

impl RowState {
    /// The row, by column place; `None` if it is deleted.
    pub(crate) fn row(&self, table: &TableDescriptor) -> Result<Option<Vec<Datum>>, SqlError> {
        if self.deleted {
            return Ok(None);
        }
        let mut row = crate::rows::place_columns(table, self.values.clone())?;
        for (place, column) in table.columns.iter().enumerate() {
            if column.ty == Type::Counter && !column.dropped {
                row[place] = Datum::Int8(self.counter(column.id));
            }
        }
        Ok(Some(row))
    }

    /// A counter's value: the sum over the regions, held at the ends of int8.
    fn counter(&self, column: u32) -> i64 {
        let slots = self.counters.range((column, 0)..=(column, u16::MAX));
        let sum: i128 = slots.map(|(_, slot)| i128::from(slot.plus) - i128::from(slot.minus)).sum();
        i64::try_from(sum).unwrap_or(if sum > 0 { i64::MAX } else { i64::MIN })
    }

    /// The state after this region has written `row` over `before`. `now`: the transaction's timestamp.
    pub(crate) fn written(
        before: Option<&RowState>,
        table: &TableDescriptor,
        row: &[Datum],
        now: u64,
        region: u16,
    ) -> RowState {
        let mut state = match before {
            None => RowState::default(),
            // Over a tombstone: a new life, whose counters begin anew.
            Some(dead) if dead.deleted => {
                coverage::reached(Mark::RowRevived);
                RowState { incarnation: dead.incarnation + 1, dot: dead.dot, ..RowState::default() }
            }
            Some(alive) => alive.clone(),
        };
        let fresh = before.is_none_or(|before| before.deleted);
        for (column, value) in table.columns.iter().zip(row).filter(|(column, _)| !column.dropped) {
            if column.ty == Type::Counter {
                let wanted = value.as_i64().unwrap_or(0);
                state.add(
                    column.id,
                    region,
                    i128::from(wanted) - i128::from(state.counter(column.id)),
                );
            }
        }
        let values = ordinary(table, row);
        // A counter alone is no write of the ordinary columns: it must not win over another region's.
        if fresh || state.reads_otherwise(table, &values) {
            state.values = values;
            state.replace_dot(now, region);
        }
        state
    }

    /// Whether the ordinary columns are not those values. Compared as they are read: a row from before a column was added has that
    /// column's default.
    fn reads_otherwise(&self, table: &TableDescriptor, values: &[(u32, Datum)]) -> bool {
        let read = crate::rows::place_columns(table, self.values.clone());
        read.map_or(true, |row| encoded(&ordinary(table, &row)) != encoded(values))
    }

    /// The state after this region has deleted it.
    pub(crate) fn removed(mut self, now: u64, region: u16) -> RowState {
        self.deleted = true;
        self.values.clear();
        self.replace_dot(now, region);
        self
    }

    fn replace_dot(&mut self, now: u64, region: u16) {
        self.parent = self.dot;
        self.dot = Dot { time: now.max(self.dot.time.saturating_add(1)), region };
    }

    fn add(&mut self, column: u32, region: u16, delta: i128) {
        if delta == 0 {
            return;
        }
        let slot = self.counters.entry((column, region)).or_default();
        let size = u64::try_from(delta.unsigned_abs()).unwrap_or(u64::MAX);
        if delta > 0 {
            slot.plus = slot.plus.saturating_add(size);
        } else {
            slot.minus = slot.minus.saturating_add(size);
        }
    }

    /// Both together.
    pub(crate) fn merge(&self, other: &RowState) -> RowState {
        match self.incarnation.cmp(&other.incarnation) {
            std::cmp::Ordering::Less => {
                coverage::reached(Mark::MergeTookNewLife);
                return other.clone();
            }
            std::cmp::Ordering::Greater => return self.clone(),
            std::cmp::Ordering::Equal => {}
        }
        let (winner, loser) = if self.order(other).is_ge() {
            coverage::reached(Mark::MergeKeptOurs);
            (self, other)
        } else {
            coverage::reached(Mark::MergeTookTheirs);
            (other, self)
        };
        if winner.deleted && !loser.deleted {
            coverage::reached(Mark::TombstoneKept);
        }
        let mut merged = winner.clone();
        for (key, slot) in &loser.counters {
            let own = merged.counters.entry(*key).or_default();
            coverage::reached(Mark::CountersMerged);
            own.plus = own.plus.max(slot.plus);
            own.minus = own.minus.max(slot.minus);
        }
        merged
    }

    /// Total order of the ordinary part: by dot; what never happens (two writes of one dot) by content.
    fn order(&self, other: &RowState) -> std::cmp::Ordering {
        let rest = |state: &RowState| (state.deleted, state.parent, encoded(&state.values));
        self.dot.cmp(&other.dot).then_with(|| rest(self).cmp(&rest(other)))
    }

    /// Whether a merge with `theirs` throws away a write that its winner has not seen.
    pub(crate) fn conflicts_with(&self, theirs: &RowState) -> bool {
        if self.incarnation != theirs.incarnation || self.dot == theirs.dot {
            return false;
        }
        let (winner, loser) = if self.dot > theirs.dot { (self, theirs) } else { (theirs, self) };
        winner.parent != loser.dot
    }

    /// As stored.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION, u8::from(self.deleted)];
        out.extend_from_slice(&self.incarnation.to_be_bytes());
        for dot in [self.dot, self.parent] {
            out.extend_from_slice(&dot.time.to_be_bytes());
            out.extend_from_slice(&dot.region.to_be_bytes());
        }
        let slots = u32::try_from(self.counters.len()).expect("columns times regions");
        out.extend_from_slice(&slots.to_be_bytes());
        for ((column, region), slot) in &self.counters {
            out.extend_from_slice(&column.to_be_bytes());
            out.extend_from_slice(&region.to_be_bytes());
            out.extend_from_slice(&slot.plus.to_be_bytes());
            out.extend_from_slice(&slot.minus.to_be_bytes());
        }
        out.extend_from_slice(&encoded(&self.values));
        Bytes::from(out)
    }

    /// From its stored form; XX001 if it is none.
    pub(crate) fn decode(bytes: &[u8]) -> Result<RowState, SqlError> {
        let mut input = Input(bytes);
        let [version, deleted] = input.take()?;
        if version != VERSION || deleted > 1 {
            return Err(corrupt());
        }
        let incarnation = u32::from_be_bytes(input.take()?);
        let mut dot = || -> Result<Dot, SqlError> {
            Ok(Dot {
                time: u64::from_be_bytes(input.take()?),
                region: u16::from_be_bytes(input.take()?),
            })
        };
        let (last, parent) = (dot()?, dot()?);
        let slots = u32::from_be_bytes(input.take()?);
        let mut counters = BTreeMap::new();
        for _ in 0..slots {
            let key = (u32::from_be_bytes(input.take()?), u16::from_be_bytes(input.take()?));
            let slot = Slot {
                plus: u64::from_be_bytes(input.take()?),
                minus: u64::from_be_bytes(input.take()?),
            };
            counters.insert(key, slot);
        }
        let values = row_decode(input.0)?;
        Ok(RowState { incarnation, dot: last, parent, deleted: deleted == 1, values, counters })
    }
}

/// The ordinary columns of a row, as they are stored.
fn ordinary(table: &TableDescriptor, row: &[Datum]) -> Vec<(u32, Datum)> {
    let columns = crate::rows::stored(table, row).filter(|(column, _)| column.ty != Type::Counter);
    columns.map(|(column, value)| (column.id, value.into_owned())).collect()
}

fn encoded(values: &[(u32, Datum)]) -> Vec<u8> {
    row_encode(values.iter().map(|(id, value)| (*id, value)))
}

fn corrupt() -> SqlError {
    SqlError::new(SqlState::DATA_CORRUPTED, "a stored row of an available table cannot be read")
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], SqlError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or_else(corrupt)?;
        self.0 = rest;
        Ok(*head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn states() -> impl Strategy<Value = RowState> {
        let dot = (0u64..4, 0u16..3).prop_map(|(time, region)| Dot { time, region });
        let slots = proptest::collection::btree_map((1u32..3, 0u16..3), (0u64..5, 0u64..5), 0..4);
        (0u32..3, dot.clone(), dot, any::<bool>(), 0i32..3, slots).prop_map(
            |(incarnation, dot, parent, deleted, value, slots)| RowState {
                incarnation,
                dot,
                parent,
                deleted,
                values: if deleted { Vec::new() } else { vec![(1, Datum::Int4(value))] },
                counters: slots
                    .into_iter()
                    .map(|(key, (plus, minus))| (key, Slot { plus, minus }))
                    .collect(),
            },
        )
    }

    proptest! {
        #[test]
        fn merge_is_commutative_associative_idempotent(a in states(), b in states(), c in states()) {
            prop_assert_eq!(a.merge(&b), b.merge(&a));
            prop_assert_eq!(a.merge(&b).merge(&c), a.merge(&b.merge(&c)));
            prop_assert_eq!(a.merge(&a), a.clone());
            prop_assert_eq!(a.merge(&b).merge(&b), a.merge(&b));
        }

        #[test]
        fn a_state_survives_its_storage(a in states()) {
            prop_assert_eq!(RowState::decode(&a.encode()).expect("decodes"), a);
        }
    }
}
