//! Value: mistakes of merging that have broken real systems, made on purpose ([`PlantedBug`]), and the right way.

use clock::Timestamp;

use super::RowState;
use crate::engine::PlantedBug;

/// Makes one state of ours and theirs.
pub(super) type Merge = fn(&RowState, &RowState) -> RowState;

/// How a node merges: as [`RowState::merge`] says, unless that mistake is planted.
pub(super) fn merge_of(planted: Option<PlantedBug>) -> Merge {
    match planted {
        Some(PlantedBug::LaterArrivalWins) => |_, theirs| theirs.clone(),
        Some(PlantedBug::TiesKeptLocally) => keep_ties,
        Some(PlantedBug::CountsAdded) => add_counts,
        Some(PlantedBug::CellsMixed) => mix_cells,
        // The others are made elsewhere.
        Some(_) | None => RowState::merge,
    }
}

fn keep_ties(ours: &RowState, theirs: &RowState) -> RowState {
    let tenth = |state: &RowState| Timestamp::from_raw(state.dot.time).micros() / 100_000;
    let merged = ours.merge(theirs);
    if ours.incarnation != theirs.incarnation || tenth(ours) != tenth(theirs) {
        return merged;
    }
    RowState { counters: merged.counters, ..ours.clone() }
}

fn add_counts(ours: &RowState, theirs: &RowState) -> RowState {
    let mut merged = ours.merge(theirs);
    for (key, slot) in &mut merged.counters {
        let sides =
            [ours, theirs].map(|state| state.counters.get(key).copied().unwrap_or_default());
        slot.plus = sides.iter().map(|side| side.plus).fold(0, u64::saturating_add);
        slot.minus = sides.iter().map(|side| side.minus).fold(0, u64::saturating_add);
    }
    merged
}

fn mix_cells(ours: &RowState, theirs: &RowState) -> RowState {
    let mut merged = ours.merge(theirs);
    if let (Some(cell), Some(own)) = (merged.values.last_mut(), ours.values.last()) {
        *cell = own.clone();
    }
    merged
}
