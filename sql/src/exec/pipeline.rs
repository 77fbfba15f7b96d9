//! Driver: rows in batches, from a scan (or from rows that are there) through filters and projections.

use super::Exec;
use super::scan::TableScan;
use crate::error::SqlError;
use crate::outcome::Row;
use crate::plan::{Expr, Plan};

/// Where rows come from, and what is done with each.
pub(crate) struct Pipeline<'p> {
    source: Source<'p>,
    steps: Vec<Step<'p>>,
}

enum Source<'p> {
    Table(Box<TableScan<'p>>),
    Plan(&'p Plan),
    Done,
}

enum Step<'p> {
    Filter(&'p Expr),
    Project(&'p [Expr]),
}

impl<'p> Pipeline<'p> {
    /// Of a plan. Nothing is read yet. `wanted`: rows that will be taken at most.
    pub(crate) fn open(plan: &'p Plan, wanted: Option<usize>) -> Pipeline<'p> {
        let mut steps = Vec::new();
        let mut plan = plan;
        loop {
            match plan {
                Plan::Filter { input, predicate } => {
                    steps.push(Step::Filter(predicate));
                    plan = input;
                }
                Plan::Project { input, exprs } => {
                    steps.push(Step::Project(exprs));
                    plan = input;
                }
                Plan::Scan(scan) => {
                    let filters = steps.iter().any(|step| matches!(step, Step::Filter(_)));
                    let wanted = if filters { None } else { wanted };
                    steps.reverse();
                    return Pipeline {
                        source: Source::Table(Box::new(TableScan::new(scan, wanted))),
                        steps,
                    };
                }
                other => {
                    steps.reverse();
                    return Pipeline { source: Source::Plan(other), steps };
                }
            }
        }
    }

    /// The next rows; `None`: there are no more. May be an empty batch.
    pub(crate) async fn next(&mut self, exec: &mut Exec<'_>) -> Result<Option<Vec<Row>>, SqlError> {
        exec.check_canceled()?;
        let mut rows = match &mut self.source {
            Source::Table(scan) => match scan.next(exec).await? {
                Some(rows) => rows,
                None => {
                    self.source = Source::Done;
                    return Ok(None);
                }
            },
            Source::Plan(plan) => {
                let plan = *plan;
                self.source = Source::Done;
                exec.rows(plan, None).await?
            }
            Source::Done => return Ok(None),
        };
        for step in &self.steps {
            rows = match step {
                Step::Filter(predicate) => exec.filtered(rows, predicate).await?,
                Step::Project(exprs) => exec.projected(rows, exprs).await?,
            };
        }
        Ok(Some(rows))
    }
}

impl Exec<'_> {
    /// Rows for which the predicate is true.
    pub(super) async fn filtered(
        &mut self,
        rows: Vec<Row>,
        predicate: &Expr,
    ) -> Result<Vec<Row>, SqlError> {
        let deferred = has_deferred(predicate);
        let mut kept = Vec::with_capacity(rows.len());
        for row in rows {
            if deferred {
                self.prepare(&[predicate], &row).await?;
            }
            if self.evaluate(predicate, &row)?.is_true() {
                kept.push(row);
            }
        }
        Ok(kept)
    }

    /// Computed columns.
    pub(super) async fn projected(
        &mut self,
        rows: Vec<Row>,
        exprs: &[Expr],
    ) -> Result<Vec<Row>, SqlError> {
        let deferred = exprs.iter().any(has_deferred);
        let all: Vec<&Expr> = exprs.iter().collect();
        let mut result = Vec::with_capacity(rows.len());
        for row in rows {
            if deferred {
                self.prepare(&all, &row).await?;
            }
            let mut values = Vec::with_capacity(exprs.len());
            for expr in exprs {
                values.push(self.evaluate(expr, &row)?);
            }
            result.push(values);
        }
        Ok(result)
    }
}

/// Whether anything has to be prepared for it.
pub(super) fn has_deferred(expr: &Expr) -> bool {
    expr.any(&|expr| matches!(expr, Expr::Deferred(_)))
}
