//! Driver: runs plans in a transaction.
//!
//! Rooms: `facts` what a statement knows of its surroundings; `evaluate` expressions; `pipeline` rows from scans, in batches;
//! `scan` reading tables; `operators` joins, groups, sorts; `aggregate`; `rowset` functions that give rows; `modify` INSERT, UPDATE,
//! DELETE; `constraint` foreign keys; `sequence`.
//!
//! Scans with their filters and projections stream in batches; everything else holds its rows in memory, within the session's
//! limit ([`Exec::charge`]).

mod aggregate;
pub(crate) mod constraint;
mod evaluate;
mod facts;
pub(crate) mod modify;
mod operators;
mod pipeline;
mod rowset;
mod scan;
mod sequence;

pub(crate) use facts::{Facts, POSTGRES_EPOCH_US, SequenceValues};
pub(crate) use pipeline::Pipeline;
pub(crate) use sequence::Sequences;

use crate::catalog::TableDescriptor;
use crate::engine::PlantedBug;
use crate::error::{SqlError, codes};
use crate::outcome::{CancelHandle, Row};
use crate::plan::{Deferred, DeferredKind, Expr, Plan, Planned};
use crate::rows::Place;
use crate::types::{ArrayValue, Datum, SqlState};
use clock::Timestamp;
use coverage::Mark;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;
use txn::client::{Hold, OwnWrites, Txn};

/// When an INSERT finds out that a key is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Uniqueness {
    /// Now: the transaction goes on after this statement, which has to fail by itself.
    AtOnce,
    /// With the commit, which follows at once: the ranges check it where they write, and a round trip is saved.
    AtCommit,
}

/// One execution of a statement.
pub(crate) struct Exec<'a> {
    /// The transaction.
    pub txn: &'a mut Txn,
    /// Surroundings.
    pub facts: &'a Facts,
    /// Parameters.
    pub params: &'a [Datum],
    /// Which copies.
    pub place: Place,
    /// Asked between batches.
    pub cancel: &'a CancelHandle,
    /// Values of sequences.
    pub sequences: &'a Sequences,
    /// Rows written by the outermost INSERT, UPDATE or DELETE.
    pub affected: u64,
    /// How INSERT checks its keys.
    pub uniqueness: Uniqueness,
    /// What must not change under its scans below SERIALIZABLE.
    pub hold: Hold,
    /// Which of the transaction's own writes its scans see. Those before the statement alone, where it could meet others ([`Exec::enter`]).
    pub own: OwnWrites,
    /// Rows of enclosing queries, the nearest last.
    outer: Vec<Row>,
    /// Deferred values by id.
    deferred: Vec<Option<Datum>>,
    /// Those that have failed, and may stand where a CASE never comes to: told when they are asked for.
    failed: BTreeMap<usize, SqlError>,
    /// Rows of WITH queries.
    commons: BTreeMap<usize, Arc<Vec<Row>>>,
    memory_bytes: usize,
    memory_bytes_max: usize,
    steps: u32,
}

/// Pairs of rows that a join tries between two looks at the time.
const BREATH_STEPS: u32 = 4096;

impl<'a> Exec<'a> {
    /// For one statement.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        txn: &'a mut Txn,
        facts: &'a Facts,
        params: &'a [Datum],
        cancel: &'a CancelHandle,
        sequences: &'a Sequences,
        deferred_count: usize,
        memory_bytes_max: usize,
    ) -> Exec<'a> {
        Exec {
            place: Place { region: facts.cluster.region().0 },
            txn,
            facts,
            params,
            cancel,
            sequences,
            affected: 0,
            uniqueness: Uniqueness::AtOnce,
            hold: Hold::AsLocked,
            own: OwnWrites::All,
            outer: Vec::new(),
            deferred: vec![None; deferred_count],
            failed: BTreeMap::new(),
            commons: BTreeMap::new(),
            memory_bytes: 0,
            memory_bytes_max,
            steps: 0,
        }
    }

    /// Before the first row: a plan that reads what it has changed sees it as it was before.
    ///
    /// # Errors
    /// 25006: it changes rows, and its transaction only reads.
    pub(crate) fn enter(&mut self, planned: &Planned) -> Result<(), SqlError> {
        if self.txn.is_read_only() && planned.plan.changes_rows() {
            return Err(SqlError::read_only(planned.verb.name()));
        }
        if planned.reads_what_it_wrote {
            coverage::reached(Mark::OwnEffectsHidden);
            self.txn.begin_effects();
            self.own = OwnWrites::BeforeEffects;
        }
        Ok(())
    }

    /// Whether that mistake is planted.
    pub(crate) fn has(&self, bug: PlantedBug) -> bool {
        self.sequences.planted() == Some(bug)
    }

    /// What is asked of the table from now on was planned under this schema of it.
    pub(crate) async fn name_schema(&mut self, table: &TableDescriptor) -> Result<(), SqlError> {
        let lies = self.has(PlantedBug::SchemaNotNamed);
        let version = if lies { u64::MAX } else { table.version };
        let early = self.has(PlantedBug::IndexReadBefore);
        let since = if early { Timestamp::MIN } else { table.since };
        if self.has(PlantedBug::SchemasMixed) {
            self.txn.forget_schema(table.id);
        }
        Ok(self.txn.use_schema(table.id, version, since).await?)
    }

    /// Counts rows that are held; 53200 over the limit.
    pub(crate) fn charge(&mut self, rows: &[Row]) -> Result<(), SqlError> {
        let bytes: usize =
            rows.iter().map(|row| 24 + row.iter().map(Datum::memory_bytes).sum::<usize>()).sum();
        self.memory_bytes += bytes;
        if self.memory_bytes > self.memory_bytes_max {
            return Err(SqlError::new(codes::OUT_OF_MEMORY, "out of memory for this statement")
                .with_detail(format!(
                    "It would hold {} bytes of rows; statement_memory_limit allows {}.",
                    self.memory_bytes, self.memory_bytes_max
                ))
                .with_hint("Read less at once: use LIMIT, a cursor, or COPY."));
        }
        Ok(())
    }

    /// Counts a row and adds it to those that are held: for operators that make more rows than they are given.
    pub(crate) fn keep(&mut self, kept: &mut Vec<Row>, row: Row) -> Result<(), SqlError> {
        self.charge(std::slice::from_ref(&row))?;
        kept.push(row);
        Ok(())
    }

    /// Between two steps of work that reads nothing: the client may want no more, its time may be over, and others use this thread too.
    pub(crate) async fn breathe(&mut self) -> Result<(), SqlError> {
        self.steps = self.steps.wrapping_add(1);
        if !self.steps.is_multiple_of(BREATH_STEPS) {
            return Ok(());
        }
        self.check_canceled()?;
        self.txn.check_time()?;
        let mut yielded = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut yielded, true) {
                return std::task::Poll::Ready(());
            }
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
        Ok(())
    }

    /// 25006 in a transaction that only reads, whether or not a row would be touched. `what`: as the error names it.
    pub(crate) fn may_write(&self, what: &str) -> Result<(), SqlError> {
        if self.txn.is_read_only() { Err(SqlError::read_only(what)) } else { Ok(()) }
    }

    /// 57014 if the client wants no more.
    pub(crate) fn check_canceled(&self) -> Result<(), SqlError> {
        if self.cancel.is_canceled() {
            return Err(SqlError::new(
                codes::QUERY_CANCELED,
                "canceling statement due to user request",
            ));
        }
        Ok(())
    }

    /// Values the deferred parts of `exprs` for a row. Uncorrelated ones are computed once.
    pub(crate) async fn prepare(&mut self, exprs: &[&Expr], row: &[Datum]) -> Result<(), SqlError> {
        let mut deferred = Vec::new();
        for expr in exprs {
            expr.deferred(&mut deferred);
        }
        for one in deferred {
            if !one.correlated && self.deferred[one.id].is_some() {
                continue;
            }
            let held = self.memory_bytes;
            self.failed.remove(&one.id);
            self.deferred[one.id] = match self.value_of(one, row).await {
                Err(error) if matches!(one.kind, DeferredKind::Drawn(_)) => {
                    self.failed.insert(one.id, error);
                    None
                }
                value => Some(value?),
            };
            // The subquery's rows are gone; the value of a correlated one takes the place of its former one.
            let kept = self.deferred[one.id].as_ref().filter(|_| !one.correlated);
            self.memory_bytes = held + kept.map_or(0, Datum::memory_bytes);
        }
        Ok(())
    }

    /// An expression's value for a row, its deferred parts included.
    pub(crate) async fn value(&mut self, expr: &Expr, row: &[Datum]) -> Result<Datum, SqlError> {
        self.prepare(&[expr], row).await?;
        self.evaluate(expr, row)
    }

    fn value_of<'b>(
        &'b mut self,
        deferred: &'b Deferred,
        row: &'b [Datum],
    ) -> BoxFuture<'b, Result<Datum, SqlError>> {
        Box::pin(async move {
            match &deferred.kind {
                DeferredKind::Scalar(plan) => {
                    let mut rows = self.inner_rows(plan, row, Some(2)).await?;
                    if rows.len() > 1 {
                        return Err(SqlError::new(
                            codes::CARDINALITY_VIOLATION,
                            "more than one row returned by a subquery used as an expression",
                        ));
                    }
                    Ok(rows.pop().and_then(|row| row.into_iter().next()).unwrap_or(Datum::Null))
                }
                DeferredKind::Exists(plan) => {
                    Ok(Datum::Bool(!self.inner_rows(plan, row, Some(1)).await?.is_empty()))
                }
                DeferredKind::Quantified { left, test, all, plan } => {
                    let mut values = Vec::with_capacity(left.len());
                    for expr in left {
                        values.push(self.evaluate(expr, row)?);
                    }
                    let rows = self.inner_rows(plan, row, None).await?;
                    self.quantified_rows(&values, test, *all, &rows)
                }
                DeferredKind::Array(element, plan) => {
                    let rows = self.inner_rows(plan, row, None).await?;
                    let values =
                        rows.into_iter().filter_map(|row| row.into_iter().next()).collect();
                    Ok(Datum::Array(Arc::new(ArrayValue::new(*element, values))))
                }
                DeferredKind::NextVal(sequence) => match self.evaluate(sequence, row)? {
                    Datum::Oid(id) => {
                        self.may_write("nextval()")?;
                        self.sequences.next(self.facts, id).await.map(Datum::Int8)
                    }
                    _ => Ok(Datum::Null),
                },
                DeferredKind::Drawn(call) => self.evaluate(call, row),
                DeferredKind::SetVal(args) => {
                    let mut values = Vec::new();
                    for arg in args {
                        values.push(self.evaluate(arg, row)?);
                    }
                    match values.as_slice() {
                        [Datum::Oid(id), Datum::Int8(value), called] => {
                            self.may_write("setval()")?;
                            let called = called.is_true();
                            let set = self.sequences.set(self.facts, *id, *value, called);
                            set.await.map(Datum::Int8)
                        }
                        _ => Ok(Datum::Null),
                    }
                }
                DeferredKind::Sleep(seconds) => {
                    let seconds =
                        self.evaluate(seconds, row)?.as_f64().unwrap_or(0.0).clamp(0.0, 1e6);
                    self.sleep(std::time::Duration::from_secs_f64(seconds)).await?;
                    Ok(Datum::text(""))
                }
            }
        })
    }

    async fn sleep(&mut self, duration: std::time::Duration) -> Result<(), SqlError> {
        let time = &self.facts.runtime.time;
        let sleep = time.sleep_until(time.monotonic().plus(duration));
        let canceled = Box::pin(self.cancel.canceled());
        futures::future::select(sleep, canceled).await;
        self.check_canceled()
    }

    /// Runs a query within an expression for a row.
    async fn inner_rows(
        &mut self,
        plan: &Arc<Plan>,
        row: &[Datum],
        limit: Option<usize>,
    ) -> Result<Vec<Row>, SqlError> {
        self.outer.push(row.to_vec());
        let plan = plan.clone();
        let result = self.rows(&plan, limit).await;
        self.outer.pop();
        result
    }
}

/// An inconsistency between binder and executor.
pub(crate) fn broken(what: &str) -> SqlError {
    SqlError::new(SqlState::INTERNAL_ERROR, format!("plan is inconsistent: {what}"))
}
