//! Driver: groups.

use super::Exec;
use super::pipeline::{Pipeline, has_deferred};
use crate::error::SqlError;
use crate::outcome::Row;
use crate::plan::{AggregateCall, Expr, Plan};
use crate::types::{Accumulator, Datum, EvalContext};
use std::collections::{BTreeSet, HashMap};

/// One aggregate of one group.
enum State {
    /// Takes rows as they come.
    Running(Accumulator, Option<BTreeSet<Row>>),
    /// Takes them in order at the end: (order keys, arguments).
    Ordered(Vec<(Row, Row)>),
}

impl Exec<'_> {
    /// Groups rows by keys; in the order in which the groups appear.
    pub(super) async fn aggregate(
        &mut self,
        input: &Plan,
        keys: &[Expr],
        grouped: bool,
        calls: &[AggregateCall],
    ) -> Result<Vec<Row>, SqlError> {
        let exprs: Vec<&Expr> =
            keys.iter().chain(calls.iter().flat_map(AggregateCall::exprs)).collect();
        let deferred = exprs.iter().any(|expr| has_deferred(expr));
        let mut places: HashMap<Row, usize> = HashMap::new();
        let mut groups: Vec<(Row, Vec<State>)> = Vec::new();
        if !grouped {
            places.insert(Vec::new(), 0);
            groups.push((Vec::new(), fresh(calls)));
        }
        let mut pipeline = Pipeline::open(input, None);
        while let Some(batch) = pipeline.next(self).await? {
            for row in batch {
                if deferred {
                    self.prepare(&exprs, &row).await?;
                }
                let mut key = Vec::with_capacity(keys.len());
                for expr in keys {
                    key.push(self.evaluate(expr, &row)?);
                }
                let place = match places.get(&key) {
                    Some(place) => *place,
                    None => {
                        self.charge(std::slice::from_ref(&key))?;
                        places.insert(key.clone(), groups.len());
                        groups.push((key, fresh(calls)));
                        groups.len() - 1
                    }
                };
                for (state, call) in groups[place].1.iter_mut().zip(calls) {
                    self.accumulate(state, call, &row)?;
                }
            }
        }
        let mut result = Vec::with_capacity(groups.len());
        for (mut row, states) in groups {
            for (state, call) in states.into_iter().zip(calls) {
                row.push(finish(state, call, self.facts)?);
            }
            result.push(row);
        }
        Ok(result)
    }

    fn accumulate(
        &self,
        state: &mut State,
        call: &AggregateCall,
        row: &Row,
    ) -> Result<(), SqlError> {
        if let Some(filter) = &call.filter
            && !self.evaluate(filter, row)?.is_true()
        {
            return Ok(());
        }
        let mut args = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            args.push(self.evaluate(arg, row)?);
        }
        match state {
            State::Running(accumulator, seen) => {
                if seen.as_mut().is_none_or(|seen| seen.insert(args.clone())) {
                    accumulator.add(&args, self.facts)?;
                }
            }
            State::Ordered(rows) => {
                let mut keys = Vec::with_capacity(call.order.len());
                for key in &call.order {
                    keys.push(self.evaluate(&key.expr, row)?);
                }
                rows.push((keys, args));
            }
        }
        Ok(())
    }
}

fn fresh(calls: &[AggregateCall]) -> Vec<State> {
    let one = |call: &AggregateCall| {
        if call.order.is_empty() {
            State::Running(call.function.accumulator(), call.distinct.then(BTreeSet::new))
        } else {
            State::Ordered(Vec::new())
        }
    };
    calls.iter().map(one).collect()
}

fn finish(
    state: State,
    call: &AggregateCall,
    context: &dyn EvalContext,
) -> Result<Datum, SqlError> {
    match state {
        State::Running(accumulator, _) => Ok(accumulator.finish()?),
        State::Ordered(mut rows) => {
            rows.sort_by(|(a, _), (b, _)| super::operators::compare_keys(&call.order, a, b));
            let mut seen = call.distinct.then(BTreeSet::new);
            let mut accumulator = call.function.accumulator();
            for (_, args) in rows {
                if seen.as_mut().is_none_or(|seen| seen.insert(args.clone())) {
                    accumulator.add(&args, context)?;
                }
            }
            Ok(accumulator.finish()?)
        }
    }
}
