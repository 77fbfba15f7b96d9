//! Value: access paths. Which keys of which index a scan reads, as expressions that are known when it starts.
//!
//! A path fixes a prefix of the index's columns to values (one value, or one of a list), and may bound the next column. Conditions
//! that it takes care of stay in the scan's filter as well: they cost little, and a path may read more than it must (floats,
//! numerics and `char(n)` compare equal in several spellings, but have one key).

use super::{Comparison, Expr, Quantified, Test};
use crate::catalog::{IndexDescriptor, IndexKind, IndexState, TableDescriptor};
use crate::types::{ArrayValue, Datum, Type};
use std::sync::Arc;

/// Combinations of listed values that one path may expand to; beyond, the list is left to the filter.
pub(crate) const POINTS_MAX: usize = 10_000;

/// An access path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    /// Place in `TableDescriptor::indexes`.
    pub index: usize,
    /// Values of the first columns.
    pub prefix: Vec<KeyPart>,
    /// Bounds of the next column.
    pub bounds: Bounds,
}

/// What a key column is fixed to.
#[derive(Clone, Debug)]
pub(crate) enum KeyPart {
    /// One value.
    One(Expr),
    /// One of these.
    List(Vec<Expr>),
    /// One of an array's elements.
    Elements(Expr),
    /// IS NULL.
    Null,
}

/// Bounds of a column.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bounds {
    /// From.
    pub low: Option<Limit>,
    /// To.
    pub high: Option<Limit>,
}

/// One bound.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    /// The value.
    pub value: Expr,
    /// Whether it is in.
    pub inclusive: bool,
}

impl Access {
    /// Whether it reads the whole index.
    pub(crate) fn is_full(&self) -> bool {
        self.prefix.is_empty() && self.bounds.low.is_none() && self.bounds.high.is_none()
    }

    /// Whether it names whole keys of a unique index: rows are read one by one, not scanned.
    pub(crate) fn is_points(&self, index: &IndexDescriptor) -> bool {
        index.kind != IndexKind::Plain
            && self.prefix.len() == index.columns.len()
            && !self.prefix.iter().any(|part| matches!(part, KeyPart::Null))
    }

    /// Whether it names at most one row.
    pub(crate) fn is_single(&self, index: &IndexDescriptor) -> bool {
        self.is_points(index) && self.prefix.iter().all(|part| matches!(part, KeyPart::One(_)))
    }

    /// Its expressions.
    pub(crate) fn exprs(&self) -> Vec<&Expr> {
        let mut exprs = Vec::new();
        for part in &self.prefix {
            match part {
                KeyPart::One(expr) | KeyPart::Elements(expr) => exprs.push(expr),
                KeyPart::List(list) => exprs.extend(list),
                KeyPart::Null => {}
            }
        }
        exprs.extend(
            [&self.bounds.low, &self.bounds.high].into_iter().flatten().map(|limit| &limit.value),
        );
        exprs
    }

    /// Its expressions, to be changed.
    pub(crate) fn exprs_mut(&mut self) -> Vec<&mut Expr> {
        let mut exprs = Vec::new();
        for part in &mut self.prefix {
            match part {
                KeyPart::One(expr) | KeyPart::Elements(expr) => exprs.push(expr),
                KeyPart::List(list) => exprs.extend(list),
                KeyPart::Null => {}
            }
        }
        exprs.extend(
            [&mut self.bounds.low, &mut self.bounds.high]
                .into_iter()
                .flatten()
                .map(|limit| &mut limit.value),
        );
        exprs
    }
}

/// The best path for these conditions (over the table's columns), by a simple score: whole unique keys, then more fixed columns,
/// then bounds, then the primary index. `order`: the column and direction that the rows are wanted in.
pub(crate) fn choose(
    table: &TableDescriptor,
    conditions: &[Expr],
    order: &[(usize, bool)],
) -> Access {
    let mut best = (0u32, Access::default());
    for (place, index) in table.indexes.iter().enumerate() {
        if index.state != IndexState::Public {
            continue;
        }
        let access = for_index(table, place, index, conditions);
        let mut score = 4 * access.prefix.len() as u32;
        score +=
            2 * (u32::from(access.bounds.low.is_some()) + u32::from(access.bounds.high.is_some()));
        if access.is_points(index) {
            score += 1000;
        }
        if score > 0 && index.kind != IndexKind::Plain {
            score += 1;
        }
        // An order for free is worth a little more than the detour over a secondary index, if it is selective or limited.
        if !order.is_empty() && gives_order(&access, index, order).is_some() {
            score += 3;
        }
        if place > 0 && access.is_full() {
            // Reading everything by a secondary index reads everything twice.
            score = 0;
        }
        if score > best.0 {
            best = (score, access);
        }
    }
    best.1
}

/// Whether rows come in this order by that path: `Some(backward)`.
pub(crate) fn gives_order(
    access: &Access,
    index: &IndexDescriptor,
    order: &[(usize, bool)],
) -> Option<bool> {
    if access.prefix.iter().any(|part| !matches!(part, KeyPart::One(_) | KeyPart::Null)) {
        return None;
    }
    let fixed: Vec<usize> =
        index.columns[..access.prefix.len()].iter().map(|column| column.column).collect();
    let mut rest = index.columns[access.prefix.len()..].iter();
    let mut backward = None;
    // One row at most, unless it is named by a NULL: those are not equal, and the index has many.
    let is_null = access.prefix.iter().any(|part| matches!(part, KeyPart::Null));
    let mut complete =
        access.prefix.len() == index.columns.len() && index.kind != IndexKind::Plain && !is_null;
    for (column, descending) in order {
        if fixed.contains(column) || complete {
            continue;
        }
        let next = rest.next()?;
        let turned = next.descending != *descending;
        if next.column != *column || backward.is_some_and(|backward| backward != turned) {
            return None;
        }
        backward = Some(turned);
        complete = rest.as_slice().is_empty() && index.kind == IndexKind::Primary;
    }
    Some(backward.unwrap_or(false))
}

fn for_index(
    table: &TableDescriptor,
    place: usize,
    index: &IndexDescriptor,
    conditions: &[Expr],
) -> Access {
    let mut access = Access { index: place, ..Access::default() };
    let mut points = 1usize;
    for column in &index.columns {
        let ty = table.columns[column.column].ty;
        match conditions.iter().find_map(|condition| equality(condition, column.column, ty)) {
            Some(KeyPart::List(list)) => {
                points = points.saturating_mul(list.len().max(1));
                if points > POINTS_MAX {
                    break;
                }
                access.prefix.push(KeyPart::List(list));
            }
            Some(part) => access.prefix.push(part),
            None => {
                access.bounds = bounds(conditions, column.column, ty);
                break;
            }
        }
    }
    access
}

/// A condition that fixes a column.
fn equality(condition: &Expr, column: usize, ty: Type) -> Option<KeyPart> {
    match condition {
        Expr::Compare(Comparison::Eq, left, right) => value_for(left, right, column, ty)
            .or_else(|| value_for(right, left, column, ty))
            .map(KeyPart::One),
        Expr::IsNull(inner) if is_column(inner, column) => Some(KeyPart::Null),
        Expr::Quantified(quantified) => {
            let Quantified { left, array, test: Test::Compare(Comparison::Eq), all: false } =
                quantified.as_ref()
            else {
                return None;
            };
            if !is_column(left, column) || !array.is_constant() {
                return None;
            }
            match array {
                Expr::Array(element, items) if storable(*element, ty) => {
                    Some(KeyPart::List(items.clone()))
                }
                Expr::Const(Datum::Array(array)) if storable(array.element_type(), ty) => {
                    Some(KeyPart::List(
                        ArrayValue::elements(array).iter().cloned().map(Expr::Const).collect(),
                    ))
                }
                Expr::Param(_) => Some(KeyPart::Elements(array.clone())),
                Expr::Cast(cast)
                    if cast.to.element().is_some_and(|element| storable(element, ty)) =>
                {
                    Some(KeyPart::Elements(array.clone()))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn bounds(conditions: &[Expr], column: usize, ty: Type) -> Bounds {
    let mut bounds = Bounds::default();
    for condition in conditions {
        let Expr::Compare(comparison, left, right) = condition else { continue };
        let (comparison, value) = match value_for(left, right, column, ty) {
            Some(value) => (*comparison, value),
            None => match value_for(right, left, column, ty) {
                Some(value) => (comparison.flipped(), value),
                None => continue,
            },
        };
        let limit = |inclusive| Some(Limit { value: value.clone(), inclusive });
        match comparison {
            Comparison::Lt if bounds.high.is_none() => bounds.high = limit(false),
            Comparison::Le if bounds.high.is_none() => bounds.high = limit(true),
            Comparison::Gt if bounds.low.is_none() => bounds.low = limit(false),
            Comparison::Ge if bounds.low.is_none() => bounds.low = limit(true),
            _ => {}
        }
    }
    bounds
}

/// The other side of a comparison with a column, if its value is known beforehand and can be looked up in the column's index.
fn value_for(side: &Expr, other: &Expr, column: usize, ty: Type) -> Option<Expr> {
    if !other.is_constant() {
        return None;
    }
    match side {
        Expr::Slot(slot) if *slot == column => Some(other.clone()),
        // `int4 column = int8 value`: the column was widened to be compared; integers have one key order.
        Expr::Cast(cast) if cast.expr == Expr::Slot(column) && widens(ty, cast.to) => {
            Some(other.clone())
        }
        _ => None,
    }
}

fn is_column(expr: &Expr, column: usize) -> bool {
    match expr {
        Expr::Slot(slot) => *slot == column,
        Expr::Cast(cast) => cast.expr == Expr::Slot(column) && widens(cast.from, cast.to),
        _ => false,
    }
}

/// Whether a conversion keeps the order and the keys.
fn widens(from: Type, to: Type) -> bool {
    let integer = |ty| matches!(ty, Type::Int2 | Type::Int4 | Type::Int8);
    let string = |ty| matches!(ty, Type::Text | Type::Varchar | Type::Name);
    from == to || (integer(from) && integer(to)) || (string(from) && string(to))
}

fn storable(value: Type, column: Type) -> bool {
    widens(column, value)
}

/// A plan's table and path, for messages.
pub(crate) fn describe(table: &Arc<TableDescriptor>, access: &Access) -> String {
    let index = &table.indexes[access.index];
    if access.is_full() {
        return format!("Seq Scan on {}", table.name);
    }
    let primary = access.index == 0;
    let name = if primary && table.has_hidden_key() { "row id" } else { index.name.as_str() };
    format!("Index Scan using {name} on {}", table.name)
}
