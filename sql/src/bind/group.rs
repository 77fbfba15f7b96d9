//! Value: aggregation, window and set functions of one query level.
//!
//! Expressions are bound over the input first, with placeholders for what is computed besides. Here the stages are put under
//! them, and every expression is rewritten over the output of the last stage: a subexpression that equals a group key becomes
//! that key's slot, a placeholder its slot; a bare input column that is left is an error, unless a grouped primary key settles it.

use super::{Binder, Level};
use crate::error::{SqlError, codes};
use crate::plan::{Expr, Placeholder, Plan};
use std::sync::Arc;

/// What a SELECT's stages are made of.
pub(super) struct Stage<'e> {
    pub(super) level: Level,
    /// Expressions above all stages.
    pub(super) exprs: Vec<&'e mut Expr>,
    pub(super) having: Option<&'e mut Expr>,
}

impl Binder<'_> {
    /// Puts Aggregate, Filter (HAVING), Window and ProjectSet over `plan`, as needed.
    pub(super) fn aggregate_stage(
        &mut self,
        mut plan: Plan,
        stage: Stage<'_>,
        keys: Option<Vec<Expr>>,
    ) -> Result<Plan, SqlError> {
        let Stage { level, mut exprs, having } = stage;
        let Level { aggregates, mut windows, mut sets, .. } = level;
        let grouped = keys.is_some();
        let mut width = self.scopes.last().expect("inside of a query").width();
        if grouped || !aggregates.is_empty() || having.is_some() {
            let mut keys = keys.unwrap_or_default();
            let mut rewrite =
                |binder: &Self, expr: &mut Expr| binder.over_groups(expr, &mut keys, grouped);
            for expr in exprs.iter_mut() {
                rewrite(self, expr)?;
            }
            for expr in windows
                .iter_mut()
                .flat_map(|window| window.exprs_mut())
                .chain(sets.iter_mut().flat_map(|(call, _)| &mut call.args))
            {
                rewrite(self, expr)?;
            }
            let having = match having {
                Some(having) => {
                    rewrite(self, having)?;
                    Some(having)
                }
                None => None,
            };
            let count = keys.len();
            width = count + aggregates.len();
            let shift = &mut |placeholder| match placeholder {
                Placeholder::Aggregate(index) => Some(Expr::Slot(count + index)),
                Placeholder::Window(_) | Placeholder::Set(_) => None,
            };
            for expr in exprs.iter_mut() {
                replace(expr, shift);
            }
            for expr in windows
                .iter_mut()
                .flat_map(|window| window.exprs_mut())
                .chain(sets.iter_mut().flat_map(|(call, _)| &mut call.args))
            {
                replace(expr, shift);
            }
            plan = Plan::Aggregate { input: Box::new(plan), keys, grouped, aggregates };
            if let Some(having) = having {
                replace(having, shift);
                plan = Plan::Filter {
                    input: Box::new(plan),
                    predicate: std::mem::replace(having, Expr::truth()),
                };
            }
        }
        if !windows.is_empty() {
            let base = width;
            width += windows.len();
            plan = Plan::Window { input: Box::new(plan), windows };
            let shift = &mut |placeholder| match placeholder {
                Placeholder::Window(index) => Some(Expr::Slot(base + index)),
                Placeholder::Aggregate(_) | Placeholder::Set(_) => None,
            };
            exprs.iter_mut().for_each(|expr| replace(expr, shift));
            sets.iter_mut()
                .flat_map(|(call, _)| &mut call.args)
                .for_each(|expr| replace(expr, shift));
        }
        if !sets.is_empty() {
            let base = width;
            plan = Plan::ProjectSet { input: Box::new(plan), calls: sets };
            let shift = &mut |placeholder| match placeholder {
                Placeholder::Set(index) => Some(Expr::Slot(base + index)),
                Placeholder::Aggregate(_) | Placeholder::Window(_) => None,
            };
            exprs.iter_mut().for_each(|expr| replace(expr, shift));
        }
        Ok(plan)
    }

    /// Rewrites an expression over the input into one over group keys (and placeholders).
    fn over_groups(
        &self,
        expr: &mut Expr,
        keys: &mut Vec<Expr>,
        grouped: bool,
    ) -> Result<(), SqlError> {
        if let Some(place) = keys.iter().position(|key| key == expr) {
            *expr = Expr::Slot(place);
            return Ok(());
        }
        if let Expr::Slot(slot) = expr {
            *expr = Expr::Slot(self.group_slot(*slot, keys, grouped)?);
            return Ok(());
        }
        if matches!(expr, Expr::Placeholder(_)) {
            return Ok(());
        }
        for child in expr.children_mut() {
            self.over_groups(child, keys, grouped)?;
        }
        // Queries inside see the groups as their outer row, too.
        if let Some(plan) = expr.plan() {
            let mut slots = Vec::new();
            plan.for_exprs(
                &mut |inner, lateral| inner.for_slots(1 + lateral, &mut |slot| slots.push(slot)),
                0,
            );
            let mut map = std::collections::BTreeMap::new();
            for slot in slots {
                map.insert(slot, self.group_slot(slot, keys, grouped)?);
            }
            if !map.is_empty()
                && let Some(plan) = expr.plan_for_change()
            {
                let plan = Arc::make_mut(plan);
                plan.for_exprs_mut(
                    &mut |inner, lateral| inner.map_slots(1 + lateral, &mut |slot| map[&slot]),
                    0,
                );
            }
        }
        Ok(())
    }

    /// The group key that an input column is, or becomes because the grouped primary key settles it.
    fn group_slot(
        &self,
        slot: usize,
        keys: &mut Vec<Expr>,
        grouped: bool,
    ) -> Result<usize, SqlError> {
        if let Some(place) = keys.iter().position(|key| *key == Expr::Slot(slot)) {
            return Ok(place);
        }
        let scope = self.scopes.last().expect("inside of a query");
        let column = &scope.columns[slot];
        if grouped
            && let Some((table, _)) = column.origin
            && let Some(table) = self.catalog().table(table)
        {
            let in_keys = |place: usize| {
                let attnum = i16::try_from(table.columns[place].id).unwrap_or(0);
                scope.columns.iter().enumerate().any(|(other, candidate)| {
                    candidate.relation == column.relation
                        && candidate.origin == Some((table.id, attnum))
                        && keys.contains(&Expr::Slot(other))
                })
            };
            if !table.has_hidden_key()
                && table.primary().columns.iter().all(|key| in_keys(key.column))
            {
                keys.push(Expr::Slot(slot));
                return Ok(keys.len() - 1);
            }
        }
        let name = match &column.relation {
            Some(relation) => format!("{relation}.{}", column.name),
            None => column.name.to_string(),
        };
        Err(SqlError::new(
            codes::GROUPING_ERROR,
            format!(
                "column \"{name}\" must appear in the GROUP BY clause or be used in an aggregate function"
            ),
        ))
    }
}

/// Replaces placeholders for which `f` has an expression.
fn replace(expr: &mut Expr, f: &mut dyn FnMut(Placeholder) -> Option<Expr>) {
    if let Expr::Placeholder(placeholder) = expr {
        if let Some(new) = f(*placeholder) {
            *expr = new;
        }
        return;
    }
    for child in expr.children_mut() {
        replace(child, f);
    }
}
