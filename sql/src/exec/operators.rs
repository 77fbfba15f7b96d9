//! Driver: operators that hold their rows. Joins, groups, orders, sets.

use super::pipeline::{Pipeline, has_deferred};
use super::{Exec, broken};
use crate::error::SqlError;
use crate::outcome::Row;
use crate::plan::{Expr, Join, JoinMethod, Plan, SetOperator, SortKey, WindowCall, WindowFunction};
use crate::types::{Datum, SqlState};
use futures::future::BoxFuture;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Rounds of a recursive query.
const ROUNDS_MAX: usize = 1_000_000;

impl<'a> Exec<'a> {
    /// All rows of a plan; or the first `limit`.
    pub(crate) fn rows<'b>(
        &'b mut self,
        plan: &'b Plan,
        limit: Option<usize>,
    ) -> BoxFuture<'b, Result<Vec<Row>, SqlError>>
    where
        'a: 'b,
    {
        Box::pin(async move {
            self.check_canceled()?;
            let rows = match plan {
                Plan::Scan(_) | Plan::Filter { .. } | Plan::Project { .. } => {
                    return self.collected(plan, limit).await;
                }
                Plan::Values(rows) => {
                    let mut result = Vec::with_capacity(rows.len());
                    for exprs in rows {
                        result.append(&mut self.projected(vec![Vec::new()], exprs).await?);
                    }
                    result
                }
                Plan::Virtual(scan) => self.virtual_rows(scan).await?,
                Plan::Function(scan) => self.function_rows(scan).await?,
                // These count each row that they make.
                Plan::ProjectSet { input, calls } => {
                    let input = self.rows(input, None).await?;
                    return self.project_set(input, calls).await;
                }
                Plan::Join(join) => return self.join(join).await,
                Plan::Aggregate { input, keys, grouped, aggregates } => {
                    self.aggregate(input, keys, *grouped, aggregates).await?
                }
                Plan::Window { input, windows } => {
                    let rows = self.rows(input, None).await?;
                    self.window(rows, windows).await?
                }
                Plan::Distinct { input, keys } => {
                    let rows = self.rows(input, None).await?;
                    self.distinct(rows, keys.as_deref())?
                }
                Plan::Sort { input, keys } => {
                    let rows = self.rows(input, None).await?;
                    self.sorted(rows, keys).await?
                }
                Plan::Limit { input, limit, offset } => {
                    return self.limited(input, limit.as_ref(), offset.as_ref()).await;
                }
                Plan::SetOperation { operator, all, left, right } => {
                    let left = self.rows(left, None).await?;
                    let right = self.rows(right, None).await?;
                    set_operation(*operator, *all, left, right)
                }
                Plan::With { tables, input } => {
                    for (id, table) in tables {
                        let rows = match &table.recursive {
                            None => self.rows(&table.plan, None).await?,
                            Some((step, all)) => {
                                self.recursive(*id, &table.plan, step, *all).await?
                            }
                        };
                        self.commons.insert(*id, Arc::new(rows));
                    }
                    self.rows(input, limit).await?
                }
                Plan::Common(id) => {
                    self.commons.get(id).ok_or_else(|| broken("WITH query"))?.as_ref().clone()
                }
                Plan::Insert(insert) => self.insert(insert).await?,
                Plan::Update(update) => self.update(update).await?,
                Plan::Delete(delete) => self.delete(delete).await?,
            };
            self.charge(&rows)?;
            Ok(rows)
        })
    }

    async fn collected(&mut self, plan: &Plan, limit: Option<usize>) -> Result<Vec<Row>, SqlError> {
        let mut pipeline = Pipeline::open(plan, limit);
        let mut rows = Vec::new();
        while limit.is_none_or(|limit| rows.len() < limit) {
            let Some(mut batch) = pipeline.next(self).await? else { break };
            self.charge(&batch)?;
            if rows.is_empty() { rows = batch } else { rows.append(&mut batch) }
        }
        if let Some(limit) = limit {
            rows.truncate(limit);
        }
        Ok(rows)
    }

    async fn count(&mut self, expr: Option<&Expr>, what: &str) -> Result<Option<usize>, SqlError> {
        let Some(expr) = expr else { return Ok(None) };
        match self.value(expr, &[]).await?.as_i64() {
            None => Ok(None),
            Some(count) => match usize::try_from(count) {
                Ok(count) => Ok(Some(count)),
                Err(_) => {
                    let code = SqlState::new(if what == "LIMIT" { "2201W" } else { "2201X" });
                    Err(SqlError::new(code, format!("{what} must not be negative")))
                }
            },
        }
    }

    async fn limited(
        &mut self,
        input: &Plan,
        limit: Option<&Expr>,
        offset: Option<&Expr>,
    ) -> Result<Vec<Row>, SqlError> {
        let limit = self.count(limit, "LIMIT").await?;
        let offset = self.count(offset, "OFFSET").await?.unwrap_or(0);
        if limit == Some(0) {
            return Ok(Vec::new());
        }
        let mut rows = self.rows(input, limit.map(|limit| limit.saturating_add(offset))).await?;
        if offset > 0 {
            rows.drain(..offset.min(rows.len()));
        }
        if let Some(limit) = limit {
            rows.truncate(limit);
        }
        Ok(rows)
    }

    async fn recursive(
        &mut self,
        id: usize,
        base: &Plan,
        step: &Plan,
        all: bool,
    ) -> Result<Vec<Row>, SqlError> {
        let mut seen: BTreeSet<Row> = BTreeSet::new();
        let mut fresh = |rows: Vec<Row>| -> Vec<Row> {
            if all {
                rows
            } else {
                rows.into_iter().filter(|row| seen.insert(row.clone())).collect()
            }
        };
        let mut last = fresh(self.rows(base, None).await?);
        let mut result = Vec::new();
        for _ in 0..ROUNDS_MAX {
            if last.is_empty() {
                return Ok(result);
            }
            result.extend(last.iter().cloned());
            self.commons.insert(id, Arc::new(last));
            // Subqueries of the step read the last round: what they gave before is stale.
            self.deferred.iter_mut().for_each(|value| *value = None);
            last = fresh(self.rows(step, None).await?);
            self.breathe().await?;
        }
        Err(SqlError::new(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!("a recursive query took more than {ROUNDS_MAX} rounds"),
        ))
    }

    async fn join(&mut self, join: &Join) -> Result<Vec<Row>, SqlError> {
        if join.lateral {
            return self.lateral_join(join).await;
        }
        match &join.method {
            JoinMethod::Loop => self.loop_join(join).await,
            JoinMethod::Hash(left, right) => self.hash_join(join, left, right).await,
        }
    }

    /// Whether a pair satisfies the condition.
    async fn matches(&mut self, on: Option<&Expr>, row: &Row) -> Result<bool, SqlError> {
        match on {
            None => Ok(true),
            Some(on) => {
                if has_deferred(on) {
                    self.prepare(&[on], row).await?;
                }
                Ok(self.evaluate(on, row)?.is_true())
            }
        }
    }

    async fn lateral_join(&mut self, join: &Join) -> Result<Vec<Row>, SqlError> {
        let left = self.rows(&join.left, None).await?;
        let mut result = Vec::new();
        for row in left {
            self.outer.push(row);
            let right = self.rows(&join.right, None).await;
            let row = self.outer.pop().expect("pushed above");
            let mut found = false;
            for other in right? {
                self.breathe().await?;
                let pair = paired(&row, &other);
                if self.matches(join.on.as_ref(), &pair).await? {
                    found = true;
                    self.keep(&mut result, pair)?;
                }
            }
            if !found && join.kind.keeps_left() {
                self.keep(&mut result, padded_right(row, join.right_width))?;
            }
        }
        Ok(result)
    }

    async fn loop_join(&mut self, join: &Join) -> Result<Vec<Row>, SqlError> {
        let left = self.rows(&join.left, None).await?;
        if left.is_empty() && !join.kind.keeps_right() {
            return Ok(Vec::new());
        }
        let right = self.rows(&join.right, None).await?;
        let mut right_found = vec![false; right.len()];
        let mut result = Vec::new();
        for row in left {
            let mut found = false;
            for (other, matched) in right.iter().zip(&mut right_found) {
                self.breathe().await?;
                let pair = paired(&row, other);
                if self.matches(join.on.as_ref(), &pair).await? {
                    found = true;
                    *matched = true;
                    self.keep(&mut result, pair)?;
                }
            }
            if !found && join.kind.keeps_left() {
                self.keep(&mut result, padded_right(row, join.right_width))?;
            }
        }
        self.unmatched(join, right, right_found, &mut result)?;
        Ok(result)
    }

    async fn hash_join(
        &mut self,
        join: &Join,
        left_keys: &[Expr],
        right_keys: &[Expr],
    ) -> Result<Vec<Row>, SqlError> {
        let left = self.rows(&join.left, None).await?;
        if left.is_empty() && !join.kind.keeps_right() {
            return Ok(Vec::new());
        }
        let right = self.rows(&join.right, None).await?;
        let mut table: HashMap<Row, Vec<usize>> = HashMap::new();
        for (place, row) in right.iter().enumerate() {
            if let Some(key) = self.join_key(right_keys, row)? {
                table.entry(key).or_default().push(place);
            }
        }
        let mut right_found = vec![false; right.len()];
        let mut result = Vec::new();
        for row in left {
            let mut found = false;
            let places = match self.join_key(left_keys, &row)? {
                Some(key) => table.get(&key).map(Vec::as_slice).unwrap_or_default(),
                None => &[],
            };
            for place in places {
                self.breathe().await?;
                let pair = paired(&row, &right[*place]);
                if self.matches(join.on.as_ref(), &pair).await? {
                    found = true;
                    right_found[*place] = true;
                    self.keep(&mut result, pair)?;
                }
            }
            if !found && join.kind.keeps_left() {
                self.keep(&mut result, padded_right(row, join.right_width))?;
            }
        }
        self.unmatched(join, right, right_found, &mut result)?;
        Ok(result)
    }

    fn unmatched(
        &mut self,
        join: &Join,
        right: Vec<Row>,
        found: Vec<bool>,
        result: &mut Vec<Row>,
    ) -> Result<(), SqlError> {
        if !join.kind.keeps_right() {
            return Ok(());
        }
        for (row, found) in right.into_iter().zip(found) {
            if !found {
                let mut pair = vec![Datum::Null; join.left_width];
                pair.extend(row);
                self.keep(result, pair)?;
            }
        }
        Ok(())
    }

    /// The key of a row; `None` if a part is NULL: it equals nothing.
    fn join_key(&self, keys: &[Expr], row: &Row) -> Result<Option<Row>, SqlError> {
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            let value = self.evaluate(key, row)?;
            if value.is_null() {
                return Ok(None);
            }
            values.push(value);
        }
        Ok(Some(values))
    }

    fn distinct(&mut self, rows: Vec<Row>, keys: Option<&[Expr]>) -> Result<Vec<Row>, SqlError> {
        let mut seen: BTreeSet<Row> = BTreeSet::new();
        let mut result = Vec::new();
        for row in rows {
            let key = match keys {
                None => row.clone(),
                Some(keys) => {
                    keys.iter()
                        .map(|key| self.evaluate(key, &row))
                        .collect::<Result<Row, SqlError>>()?
                }
            };
            if seen.insert(key) {
                result.push(row);
            }
        }
        Ok(result)
    }

    /// Rows in order; equal ones stay as they were.
    pub(super) async fn sorted(
        &mut self,
        rows: Vec<Row>,
        keys: &[SortKey],
    ) -> Result<Vec<Row>, SqlError> {
        let exprs: Vec<&Expr> = keys.iter().map(|key| &key.expr).collect();
        let deferred = exprs.iter().any(|expr| has_deferred(expr));
        let mut keyed = Vec::with_capacity(rows.len());
        for row in rows {
            if deferred {
                self.prepare(&exprs, &row).await?;
            }
            let mut values = Vec::with_capacity(keys.len());
            for expr in &exprs {
                values.push(self.evaluate(expr, &row)?);
            }
            keyed.push((values, row));
        }
        keyed.sort_by(|(a, _), (b, _)| compare_keys(keys, a, b));
        Ok(keyed.into_iter().map(|(_, row)| row).collect())
    }

    async fn window(
        &mut self,
        mut rows: Vec<Row>,
        windows: &[WindowCall],
    ) -> Result<Vec<Row>, SqlError> {
        let width = rows.first().map_or(0, Vec::len);
        for window in windows {
            let columns = self.window_column(&rows, width, window).await?;
            for (row, value) in rows.iter_mut().zip(columns) {
                row.push(value);
            }
        }
        Ok(rows)
    }

    /// One window function's value for each row.
    async fn window_column(
        &mut self,
        rows: &[Row],
        width: usize,
        window: &WindowCall,
    ) -> Result<Vec<Datum>, SqlError> {
        let mut partitions: BTreeMap<Row, Vec<usize>> = BTreeMap::new();
        let mut keys = Vec::with_capacity(rows.len());
        for (place, row) in rows.iter().enumerate() {
            let row = &row[..width];
            let partition = window
                .partition
                .iter()
                .map(|expr| self.evaluate(expr, row))
                .collect::<Result<Row, SqlError>>()?;
            keys.push(
                window
                    .order
                    .iter()
                    .map(|key| self.evaluate(&key.expr, row))
                    .collect::<Result<Row, SqlError>>()?,
            );
            partitions.entry(partition).or_default().push(place);
        }
        let mut result = vec![Datum::Null; rows.len()];
        for places in partitions.values_mut() {
            places.sort_by(|a, b| compare_keys(&window.order, &keys[*a], &keys[*b]));
            let peers =
                |a: usize, b: usize| compare_keys(&window.order, &keys[a], &keys[b]).is_eq();
            let values = self.partition_values(rows, places, width, window, &peers)?;
            for (place, value) in places.iter().zip(values) {
                result[*place] = value;
            }
        }
        Ok(result)
    }

    fn partition_values(
        &mut self,
        rows: &[Row],
        places: &[usize],
        width: usize,
        window: &WindowCall,
        peers: &dyn Fn(usize, usize) -> bool,
    ) -> Result<Vec<Datum>, SqlError> {
        let number = |n: usize| Datum::Int8(i64::try_from(n).unwrap_or(i64::MAX));
        let argument =
            |exec: &Self, place: usize| exec.evaluate(&window.args[0], &rows[place][..width]);
        let mut values = Vec::with_capacity(places.len());
        let (mut rank, mut dense) = (0, 0);
        for (at, place) in places.iter().enumerate() {
            if at == 0 || !peers(places[at - 1], *place) {
                rank = at + 1;
                dense += 1;
            }
            values.push(match &window.function {
                WindowFunction::RowNumber => number(at + 1),
                WindowFunction::Rank => number(rank),
                WindowFunction::DenseRank => number(dense),
                WindowFunction::Shift(forward) => {
                    let other = if *forward { at.checked_add(1) } else { at.checked_sub(1) };
                    match other.and_then(|other| places.get(other)) {
                        Some(place) => argument(self, *place)?,
                        None => Datum::Null,
                    }
                }
                WindowFunction::First => argument(self, places[0])?,
                WindowFunction::Aggregate(_) => Datum::Null,
            });
        }
        if let WindowFunction::Aggregate(aggregate) = &window.function {
            let mut accumulator = aggregate.accumulator();
            let mut from = 0;
            while from < places.len() {
                // Without an order the whole partition is one group of peers.
                let mut to = from + 1;
                while to < places.len() && peers(places[from], places[to]) {
                    to += 1;
                }
                for place in &places[from..to] {
                    let args = window
                        .args
                        .iter()
                        .map(|arg| self.evaluate(arg, &rows[*place][..width]))
                        .collect::<Result<Row, SqlError>>()?;
                    accumulator.add(&args, self.facts)?;
                }
                let value = accumulator.clone().finish()?;
                values[from..to].iter_mut().for_each(|slot| *slot = value.clone());
                from = to;
            }
        }
        Ok(values)
    }
}

fn paired(left: &Row, right: &Row) -> Row {
    let mut pair = Vec::with_capacity(left.len() + right.len());
    pair.extend_from_slice(left);
    pair.extend_from_slice(right);
    pair
}

fn padded_right(mut row: Row, width: usize) -> Row {
    row.resize(row.len() + width, Datum::Null);
    row
}

/// Order of two rows of key values.
pub(super) fn compare_keys(keys: &[SortKey], a: &[Datum], b: &[Datum]) -> Ordering {
    for ((key, a), b) in keys.iter().zip(a).zip(b) {
        let order = match (a.is_null(), b.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) => {
                if key.nulls_first {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
            (false, true) => {
                if key.nulls_first {
                    Ordering::Greater
                } else {
                    Ordering::Less
                }
            }
            (false, false) if key.descending => b.compare(a),
            (false, false) => a.compare(b),
        };
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

fn set_operation(operator: SetOperator, all: bool, left: Vec<Row>, right: Vec<Row>) -> Vec<Row> {
    if operator == SetOperator::Union {
        let mut rows = left;
        rows.extend(right);
        if all {
            return rows;
        }
        let mut seen = BTreeSet::new();
        return rows.into_iter().filter(|row| seen.insert(row.clone())).collect();
    }
    let mut counts: BTreeMap<Row, usize> = BTreeMap::new();
    for row in right {
        *counts.entry(row).or_default() += 1;
    }
    let mut seen = BTreeSet::new();
    let mut result = Vec::new();
    for row in left {
        let count = counts.get_mut(&row);
        let there = count.as_ref().is_some_and(|count| **count > 0);
        let keep = match operator {
            SetOperator::Except => !there,
            SetOperator::Intersect | SetOperator::Union => there,
        };
        if all {
            // Each partner counts once.
            if let Some(count) = count {
                *count = count.saturating_sub(1);
            }
        }
        if keep && (all || seen.insert(row.clone())) {
            result.push(row);
        }
    }
    result
}
