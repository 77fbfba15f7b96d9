//! Value: rewriting of plans. Every step keeps the rows and the columns of every operator.
//!
//! 1. Filters move down: through projections of plain columns, sorts and joins, into scans.
//! 2. Scans choose an access path for their conditions, and for the order that is wanted of them; a sort that the path makes
//!    superfluous is dropped.
//! 3. Joins with equal keys become hash joins; those of few left rows with an indexed table become lookups.
//! 4. A limit tells the scan under it how much will be wanted.

use super::access::{self, KeyPart};
use super::{Comparison, Expr, Join, JoinKind, JoinMethod, Plan, Scan, SortKey};
use std::sync::Arc;

/// Optimises a bound plan.
pub(crate) fn optimise(plan: Plan) -> Plan {
    let mut plan = push(plan, Vec::new());
    inner_plans(&mut plan);
    plan
}

/// Queries within expressions are optimised on their own.
fn inner_plans(plan: &mut Plan) {
    fn in_expr(expr: &mut Expr) {
        for child in expr.children_mut() {
            in_expr(child);
        }
        if let Some(plan) = expr.plan_for_change() {
            let owned = std::mem::replace(Arc::make_mut(plan), Plan::nothing());
            *Arc::make_mut(plan) = optimise(owned);
        }
    }
    plan.for_exprs_mut(&mut |expr, _| in_expr(expr), 0);
}

fn filtered(plan: Plan, conditions: Vec<Expr>) -> Plan {
    if conditions.is_empty() {
        plan
    } else {
        Plan::Filter { input: Box::new(plan), predicate: Expr::and(conditions) }
    }
}

/// Pushes conditions (over the plan's output) as far down as they go.
fn push(plan: Plan, mut conditions: Vec<Expr>) -> Plan {
    match plan {
        Plan::Filter { input, predicate } => {
            let mut own = Vec::new();
            predicate.conjuncts(&mut own);
            own.append(&mut conditions);
            push(*input, own)
        }
        Plan::Project { input, exprs } => {
            let (down, up) = split(conditions, |condition| {
                condition.slots().iter().all(|slot| matches!(exprs[*slot], Expr::Slot(_)))
            });
            let down = down.into_iter().map(|mut condition| {
                condition.map_slots(0, &mut |slot| match exprs[slot] {
                    Expr::Slot(inner) => inner,
                    _ => slot,
                });
                condition
            });
            let input = push(*input, down.collect());
            filtered(Plan::Project { input: Box::new(input), exprs }, up)
        }
        Plan::Join(join) => push_join(*join, conditions),
        Plan::Scan(mut scan) => {
            conditions.extend(scan.filter.take().map(|filter| vec![filter]).unwrap_or_default());
            scan.access = access::choose(&scan.table, &conditions, &[]);
            scan.filter = (!conditions.is_empty()).then(|| Expr::and(conditions));
            Plan::Scan(scan)
        }
        Plan::Virtual(mut scan) => {
            scan.equals = conditions.iter().find_map(|condition| match condition {
                Expr::Compare(Comparison::Eq, left, right) => match (left.as_ref(), right.as_ref())
                {
                    (Expr::Slot(slot), value) | (value, Expr::Slot(slot))
                        if value.is_constant() =>
                    {
                        Some((*slot, value.clone()))
                    }
                    _ => None,
                },
                _ => None,
            });
            filtered(Plan::Virtual(scan), conditions)
        }
        Plan::Sort { input, keys } => sort(push(*input, conditions), keys),
        Plan::With { tables, input } => {
            let tables = tables.into_iter().map(|(id, table)| {
                let mut table = Arc::unwrap_or_clone(table);
                table.plan = push(table.plan, Vec::new());
                table.recursive = table.recursive.map(|(step, all)| (push(step, Vec::new()), all));
                (id, Arc::new(table))
            });
            Plan::With { tables: tables.collect(), input: Box::new(push(*input, conditions)) }
        }
        Plan::Limit { input, limit, offset } => {
            let mut input = push(*input, Vec::new());
            if offset.is_none()
                && let Some(limit) = &limit
            {
                limit_scan(&mut input, limit);
            }
            filtered(Plan::Limit { input: Box::new(input), limit, offset }, conditions)
        }
        Plan::ProjectSet { input, calls } => filtered(
            Plan::ProjectSet { input: Box::new(push(*input, Vec::new())), calls },
            conditions,
        ),
        Plan::Aggregate { input, keys, grouped, aggregates } => {
            let input = Box::new(push(*input, Vec::new()));
            filtered(Plan::Aggregate { input, keys, grouped, aggregates }, conditions)
        }
        Plan::Window { input, windows } => filtered(
            Plan::Window { input: Box::new(push(*input, Vec::new())), windows },
            conditions,
        ),
        Plan::Distinct { input, keys: None } => {
            Plan::Distinct { input: Box::new(push(*input, conditions)), keys: None }
        }
        Plan::Distinct { input, keys } => {
            filtered(Plan::Distinct { input: Box::new(push(*input, Vec::new())), keys }, conditions)
        }
        Plan::SetOperation { operator, all, left, right } => {
            let left = Box::new(push(*left, Vec::new()));
            let right = Box::new(push(*right, Vec::new()));
            filtered(Plan::SetOperation { operator, all, left, right }, conditions)
        }
        Plan::Insert(mut insert) => {
            insert.source = push(insert.source, Vec::new());
            filtered(Plan::Insert(insert), conditions)
        }
        Plan::Update(mut update) => {
            update.source = push(update.source, Vec::new());
            filtered(Plan::Update(update), conditions)
        }
        Plan::Delete(mut delete) => {
            delete.source = push(delete.source, Vec::new());
            filtered(Plan::Delete(delete), conditions)
        }
        leaf @ (Plan::Values(_) | Plan::Function(_) | Plan::Common(_)) => {
            filtered(leaf, conditions)
        }
    }
}

fn split(conditions: Vec<Expr>, test: impl Fn(&Expr) -> bool) -> (Vec<Expr>, Vec<Expr>) {
    conditions.into_iter().partition(test)
}

fn push_join(join: Join, conditions: Vec<Expr>) -> Plan {
    let Join { left, right, kind, on, left_width, right_width, lateral, .. } = join;
    let only_left = |condition: &Expr| condition.slots().iter().all(|slot| *slot < left_width);
    let only_right = |condition: &Expr| condition.slots().iter().all(|slot| *slot >= left_width);
    let mut on_list = Vec::new();
    if let Some(on) = on {
        on.conjuncts(&mut on_list);
    }
    let (to_left, mut to_right, above);
    match kind {
        JoinKind::Inner => {
            on_list.extend(conditions);
            (to_left, on_list) = split(on_list, only_left);
            above = Vec::new();
            (to_right, on_list) =
                if lateral { (Vec::new(), on_list) } else { split(on_list, only_right) };
        }
        JoinKind::Left => {
            (to_left, above) = split(conditions, only_left);
            (to_right, on_list) =
                if lateral { (Vec::new(), on_list) } else { split(on_list, only_right) };
        }
        JoinKind::Right => {
            (to_right, above) = split(conditions, only_right);
            (to_left, on_list) = split(on_list, only_left);
        }
        JoinKind::Full => {
            (to_left, to_right, above) = (Vec::new(), Vec::new(), conditions);
        }
    }
    for condition in &mut to_right {
        condition.map_slots(0, &mut |slot| slot - left_width);
    }
    let left = push(left, to_left);
    let mut right = push(right, to_right);
    let mut lateral = lateral;
    let mut method = JoinMethod::Loop;
    if !lateral {
        let mut keys = (Vec::new(), Vec::new());
        for condition in &on_list {
            if let Some((a, b)) = equal_sides(condition, left_width) {
                keys.0.push(a);
                keys.1.push(b);
            }
        }
        if !keys.0.is_empty() {
            if !kind.keeps_right() && is_small(&left) && lookup(&mut right, &keys) {
                lateral = true;
            } else {
                method = JoinMethod::Hash(keys.0, keys.1);
            }
        }
    }
    let on = (!on_list.is_empty()).then(|| Expr::and(on_list));
    filtered(
        Plan::Join(Box::new(Join {
            left,
            right,
            kind,
            on,
            left_width,
            right_width,
            lateral,
            method,
        })),
        above,
    )
}

/// `left expression = right expression`, each over its own side.
fn equal_sides(condition: &Expr, left_width: usize) -> Option<(Expr, Expr)> {
    let Expr::Compare(Comparison::Eq, a, b) = condition else { return None };
    let side = |expr: &Expr| {
        let slots = expr.slots();
        if slots.is_empty() || expr.any(&|expr| matches!(expr, Expr::Deferred(_))) {
            return None;
        }
        let left = slots[0] < left_width;
        slots.iter().all(|slot| (*slot < left_width) == left).then_some(left)
    };
    let (left, right) = match (side(a)?, side(b)?) {
        (true, false) => (a, b),
        (false, true) => (b, a),
        _ => return None,
    };
    let mut right = right.as_ref().clone();
    right.map_slots(0, &mut |slot| slot - left_width);
    Some((left.as_ref().clone(), right))
}

/// Whether a plan gives few rows, as far as its form tells.
fn is_small(plan: &Plan) -> bool {
    match plan {
        Plan::Values(rows) => rows.len() <= 100,
        Plan::Scan(scan) => !scan.access.prefix.is_empty() || scan.limit.is_some(),
        Plan::Filter { input, .. } | Plan::Project { input, .. } | Plan::Sort { input, .. } => {
            is_small(input)
        }
        Plan::Limit { limit, .. } => limit.is_some(),
        Plan::Join(join) => is_small(&join.left) && join.lateral,
        _ => false,
    }
}

/// Turns a scan into a lookup by the left row's keys, if an index serves them.
fn lookup(right: &mut Plan, keys: &(Vec<Expr>, Vec<Expr>)) -> bool {
    let Plan::Scan(scan) = right else { return false };
    let mut conditions = Vec::new();
    if let Some(filter) = &scan.filter {
        let mut filter = filter.clone();
        filter.shift_outer(0, 1);
        filter.conjuncts(&mut conditions);
    }
    let own = conditions.len();
    for (left, right) in keys.0.iter().zip(&keys.1) {
        let Expr::Slot(slot) = left else { continue };
        conditions.push(Expr::Compare(
            Comparison::Eq,
            Box::new(right.clone()),
            Box::new(Expr::Outer { level: 1, slot: *slot }),
        ));
    }
    let access = access::choose(&scan.table, &conditions, &[]);
    let uses_keys =
        access.prefix.iter().any(|part| matches!(part, KeyPart::One(Expr::Outer { level: 1, .. })));
    if own == conditions.len() || !uses_keys {
        return false;
    }
    scan.access = access;
    scan.filter = Some(Expr::and(conditions));
    true
}

/// Drops the sort if the scan under it can give the order.
fn sort(mut input: Plan, keys: Vec<SortKey>) -> Plan {
    if let Some(order) = scan_order(&input, &keys)
        && let Some(scan) = scan_under(&mut input)
    {
        let mut conditions = Vec::new();
        if let Some(filter) = &scan.filter {
            filter.clone().conjuncts(&mut conditions);
        }
        let access = access::choose(&scan.table, &conditions, &order);
        let index = &scan.table.indexes[access.index];
        // A single row is in any order.
        let given = if access.is_single(index) {
            Some(false)
        } else {
            access::gives_order(&access, index, &order)
        };
        if let Some(backward) = given {
            scan.access = access;
            scan.backward = backward;
            return input;
        }
    }
    Plan::Sort { input: Box::new(input), keys }
}

/// The sort keys as columns of the scan at the bottom: `None` if they are not.
fn scan_order(plan: &Plan, keys: &[SortKey]) -> Option<Vec<(usize, bool)>> {
    let mut order = Vec::new();
    for key in keys {
        let Expr::Slot(mut slot) = key.expr else { return None };
        // NULL is the largest value in every index.
        if key.nulls_first != key.descending {
            return None;
        }
        let mut plan = plan;
        loop {
            match plan {
                Plan::Project { input, exprs } => {
                    let Expr::Slot(inner) = exprs[slot] else { return None };
                    slot = inner;
                    plan = input;
                }
                Plan::Filter { input, .. } => plan = input,
                Plan::Scan(_) => break,
                _ => return None,
            }
        }
        order.push((slot, key.descending));
    }
    Some(order)
}

fn scan_under(plan: &mut Plan) -> Option<&mut Scan> {
    match plan {
        Plan::Scan(scan) => Some(scan),
        Plan::Project { input, .. } | Plan::Filter { input, .. } => scan_under(input),
        _ => None,
    }
}

fn limit_scan(plan: &mut Plan, limit: &Expr) {
    match plan {
        Plan::Scan(scan) => scan.limit = Some(limit.clone()),
        Plan::Project { input, .. } => limit_scan(input, limit),
        _ => {}
    }
}
