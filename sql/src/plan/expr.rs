//! Value: bound expressions. Names are slots of the input row, types are settled, casts are explicit.
//!
//! What needs the database (subqueries, sequences) is a [`Deferred`]: the executor computes it before the expression is
//! evaluated for a row, so that evaluation itself is a plain function. `Outer` refers to the row of an enclosing query: level 1
//! is the nearest.
//!
//! INVARIANT: in a plan at depth d (inside of d subqueries), `Slot` at depth 0 and `Outer { level: d }` at depth d mean the same
//! row. [`Expr::map_slots`] relies on it.

use super::Plan;
use crate::error::SqlError;
use crate::exec::Facts;
use crate::types::{CastContext, Datum, Type};
use std::sync::Arc;

/// A bound expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr {
    /// A constant.
    Const(Datum),
    /// A column of the input row.
    Slot(usize),
    /// A column of an enclosing query's row.
    Outer {
        /// 1: the nearest.
        level: usize,
        /// Its column.
        slot: usize,
    },
    /// `$n`, from 0.
    Param(usize),
    /// Result of an aggregate, window or set function of the query that is being bound; replaced by a slot before execution.
    Placeholder(Placeholder),
    /// Comparison of two values of one type.
    Compare(Comparison, Box<Expr>, Box<Expr>),
    /// Function or operator.
    Call(Callee, Vec<Expr>),
    /// AND of all.
    And(Vec<Expr>),
    /// OR of all.
    Or(Vec<Expr>),
    /// NOT.
    Not(Box<Expr>),
    /// IS NULL.
    IsNull(Box<Expr>),
    /// `row IS NOT NULL`: no field is null.
    NoneNull(Box<Expr>),
    /// IS TRUE, IS FALSE.
    Is(Box<Expr>, bool),
    /// IS DISTINCT FROM.
    Distinct(Box<Expr>, Box<Expr>),
    /// CASE WHEN.
    Case(Vec<(Expr, Expr)>, Box<Expr>),
    /// COALESCE.
    Coalesce(Vec<Expr>),
    /// NULLIF: condition (they are equal), value.
    NullIf(Box<Expr>, Box<Expr>),
    /// GREATEST, LEAST.
    Extreme(Extreme, Vec<Expr>),
    /// A conversion.
    Cast(Box<Cast>),
    /// `left op ANY (array)`: the comparison of the left value with each element.
    Quantified(Box<Quantified>),
    /// ARRAY[...]; nested ones are one level of a multidimensional array.
    Array(Type, Vec<Expr>),
    /// ROW(...), or a table's row, whose fields have names.
    Row(Vec<(Type, Expr)>, Option<Arc<[Arc<str>]>>),
    /// Computed beforehand.
    Deferred(Box<Deferred>),
}

/// What a query computes besides its expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placeholder {
    /// The n-th aggregate.
    Aggregate(usize),
    /// The n-th window function.
    Window(usize),
    /// The n-th function that gives rows.
    Set(usize),
}

/// A comparison operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Comparison {
    /// Whether two values that order so satisfy it.
    pub(crate) fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Comparison::Eq => order.is_eq(),
            Comparison::Ne => order.is_ne(),
            Comparison::Lt => order.is_lt(),
            Comparison::Le => order.is_le(),
            Comparison::Gt => order.is_gt(),
            Comparison::Ge => order.is_ge(),
        }
    }

    /// The same with its sides exchanged.
    pub(crate) fn flipped(self) -> Comparison {
        match self {
            Comparison::Eq => Comparison::Eq,
            Comparison::Ne => Comparison::Ne,
            Comparison::Lt => Comparison::Gt,
            Comparison::Le => Comparison::Ge,
            Comparison::Gt => Comparison::Lt,
            Comparison::Ge => Comparison::Le,
        }
    }

    /// As written.
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Comparison::Eq => "=",
            Comparison::Ne => "<>",
            Comparison::Lt => "<",
            Comparison::Le => "<=",
            Comparison::Gt => ">",
            Comparison::Ge => ">=",
        }
    }
}

/// GREATEST or LEAST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extreme {
    Greatest,
    Least,
}

/// What a call runs.
#[derive(Clone)]
pub(crate) struct Callee {
    /// For plans and equality.
    pub name: Arc<str>,
    /// NULL in, NULL out, without a call.
    pub strict: bool,
    /// Not the same answer for the same arguments: never folded.
    pub volatile: bool,
    /// The code.
    pub code: Code,
}

/// The code of a call.
#[derive(Clone)]
pub(crate) enum Code {
    /// Over values; whether it gives the same for the same arguments always.
    Value(crate::types::registry::Code, bool),
    /// Over the session and the catalog.
    Session(fn(&Facts, &[Datum]) -> Result<Datum, SqlError>),
}

impl PartialEq for Callee {
    fn eq(&self, other: &Callee) -> bool {
        self.name == other.name && !self.volatile
    }
}

impl std::fmt::Debug for Callee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// A conversion.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cast {
    /// Of what.
    pub expr: Expr,
    /// From this type.
    pub from: Type,
    /// To this.
    pub to: Type,
    /// With this modifier.
    pub typmod: i32,
    /// Who asked.
    pub context: CastContext,
}

/// ANY or ALL over an array.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Quantified {
    /// The left value.
    pub left: Expr,
    /// The array.
    pub array: Expr,
    /// How each element is tested.
    pub test: Test,
    /// ALL instead of ANY.
    pub all: bool,
}

/// Test of a value against another.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Test {
    /// A comparison.
    Compare(Comparison),
    /// Any operator that gives a boolean.
    Call(Callee),
}

/// What is computed before the expression it is in.
#[derive(Clone, Debug)]
pub(crate) struct Deferred {
    /// Its place among the statement's deferred values.
    pub id: usize,
    /// Whether it reads the enclosing row: if not, it is computed once per execution.
    pub correlated: bool,
    /// What.
    pub kind: DeferredKind,
}

impl PartialEq for Deferred {
    fn eq(&self, other: &Deferred) -> bool {
        self.id == other.id
    }
}

/// Kinds of deferred values.
#[derive(Clone, Debug)]
pub(crate) enum DeferredKind {
    /// `(SELECT ...)`: one row, one column, or NULL.
    Scalar(Arc<Plan>),
    /// `EXISTS (SELECT ...)`.
    Exists(Arc<Plan>),
    /// `left op ANY|ALL (SELECT ...)`.
    Quantified {
        /// The left value(s): one per column.
        left: Vec<Expr>,
        /// The test.
        test: Test,
        /// ALL instead of ANY.
        all: bool,
        /// The query.
        plan: Arc<Plan>,
    },
    /// `ARRAY(SELECT ...)`.
    Array(Type, Arc<Plan>),
    /// `nextval(regclass)`.
    NextVal(Expr),
    /// `currval(regclass)`, `lastval()`: the call, which is told what this statement has drawn before it.
    Drawn(Expr),
    /// `setval(regclass, value, is_called)`.
    SetVal(Vec<Expr>),
    /// `pg_sleep(seconds)`.
    Sleep(Expr),
}

impl Expr {
    /// `true`.
    pub(crate) fn truth() -> Expr {
        Expr::Const(Datum::Bool(true))
    }

    /// AND of conditions, flat.
    pub(crate) fn and(mut conditions: Vec<Expr>) -> Expr {
        match conditions.len() {
            0 => Expr::truth(),
            1 => conditions.remove(0),
            _ => Expr::And(conditions),
        }
    }

    /// The conditions that all must hold.
    pub(crate) fn conjuncts(self, out: &mut Vec<Expr>) {
        match self {
            Expr::And(list) => list.into_iter().for_each(|expr| expr.conjuncts(out)),
            Expr::Const(Datum::Bool(true)) => {}
            other => out.push(other),
        }
    }

    /// Direct subexpressions. Plans of deferred values are not entered.
    pub(crate) fn children(&self) -> Vec<&Expr> {
        match self {
            Expr::Const(_)
            | Expr::Slot(_)
            | Expr::Outer { .. }
            | Expr::Param(_)
            | Expr::Placeholder(_) => Vec::new(),
            Expr::Compare(_, a, b) | Expr::Distinct(a, b) | Expr::NullIf(a, b) => vec![a, b],
            Expr::Call(_, list)
            | Expr::And(list)
            | Expr::Or(list)
            | Expr::Coalesce(list)
            | Expr::Extreme(_, list)
            | Expr::Array(_, list) => list.iter().collect(),
            Expr::Not(a) | Expr::IsNull(a) | Expr::NoneNull(a) | Expr::Is(a, _) => vec![a],
            Expr::Case(arms, otherwise) => arms
                .iter()
                .flat_map(|(a, b)| [a, b])
                .chain(std::iter::once(otherwise.as_ref()))
                .collect(),
            Expr::Cast(cast) => vec![&cast.expr],
            Expr::Quantified(quantified) => vec![&quantified.left, &quantified.array],
            Expr::Row(list, _) => list.iter().map(|(_, expr)| expr).collect(),
            Expr::Deferred(deferred) => match &deferred.kind {
                DeferredKind::Scalar(_) | DeferredKind::Exists(_) | DeferredKind::Array(..) => {
                    Vec::new()
                }
                DeferredKind::Quantified { left, .. } => left.iter().collect(),
                DeferredKind::NextVal(expr)
                | DeferredKind::Drawn(expr)
                | DeferredKind::Sleep(expr) => vec![expr],
                DeferredKind::SetVal(list) => list.iter().collect(),
            },
        }
    }

    /// Direct subexpressions, to be changed.
    pub(crate) fn children_mut(&mut self) -> Vec<&mut Expr> {
        match self {
            Expr::Const(_)
            | Expr::Slot(_)
            | Expr::Outer { .. }
            | Expr::Param(_)
            | Expr::Placeholder(_) => Vec::new(),
            Expr::Compare(_, a, b) | Expr::Distinct(a, b) | Expr::NullIf(a, b) => vec![a, b],
            Expr::Call(_, list)
            | Expr::And(list)
            | Expr::Or(list)
            | Expr::Coalesce(list)
            | Expr::Extreme(_, list)
            | Expr::Array(_, list) => list.iter_mut().collect(),
            Expr::Not(a) | Expr::IsNull(a) | Expr::NoneNull(a) | Expr::Is(a, _) => vec![a],
            Expr::Case(arms, otherwise) => arms
                .iter_mut()
                .flat_map(|(a, b)| [a, b])
                .chain(std::iter::once(otherwise.as_mut()))
                .collect(),
            Expr::Cast(cast) => vec![&mut cast.expr],
            Expr::Quantified(quantified) => vec![&mut quantified.left, &mut quantified.array],
            Expr::Row(list, _) => list.iter_mut().map(|(_, expr)| expr).collect(),
            Expr::Deferred(deferred) => match &mut deferred.kind {
                DeferredKind::Scalar(_) | DeferredKind::Exists(_) | DeferredKind::Array(..) => {
                    Vec::new()
                }
                DeferredKind::Quantified { left, .. } => left.iter_mut().collect(),
                DeferredKind::NextVal(expr)
                | DeferredKind::Drawn(expr)
                | DeferredKind::Sleep(expr) => vec![expr],
                DeferredKind::SetVal(list) => list.iter_mut().collect(),
            },
        }
    }

    /// The query of a deferred value.
    pub(crate) fn plan(&self) -> Option<&Arc<Plan>> {
        let Expr::Deferred(deferred) = self else { return None };
        match &deferred.kind {
            DeferredKind::Scalar(plan)
            | DeferredKind::Exists(plan)
            | DeferredKind::Array(_, plan) => Some(plan),
            DeferredKind::Quantified { plan, .. } => Some(plan),
            DeferredKind::NextVal(_)
            | DeferredKind::Drawn(_)
            | DeferredKind::SetVal(_)
            | DeferredKind::Sleep(_) => None,
        }
    }

    /// The query of a deferred value, to be changed.
    pub(crate) fn plan_for_change(&mut self) -> Option<&mut Arc<Plan>> {
        let Expr::Deferred(deferred) = self else { return None };
        match &mut deferred.kind {
            DeferredKind::Scalar(plan)
            | DeferredKind::Exists(plan)
            | DeferredKind::Array(_, plan) => Some(plan),
            DeferredKind::Quantified { plan, .. } => Some(plan),
            DeferredKind::NextVal(_)
            | DeferredKind::Drawn(_)
            | DeferredKind::SetVal(_)
            | DeferredKind::Sleep(_) => None,
        }
    }

    /// Calls `f` with every slot of the row at `depth` levels out, in this expression and in the plans of its deferred values.
    pub(crate) fn for_slots(&self, depth: usize, f: &mut dyn FnMut(usize)) {
        match self {
            Expr::Slot(slot) if depth == 0 => f(*slot),
            Expr::Outer { level, slot } if *level == depth => f(*slot),
            _ => {}
        }
        for child in self.children() {
            child.for_slots(depth, f);
        }
        if let Some(plan) = self.plan() {
            plan.for_exprs(&mut |expr, lateral| expr.for_slots(depth + 1 + lateral, f), 0);
        }
    }

    /// Replaces every slot of the row at `depth` levels out, in this expression and in the plans of its deferred values.
    pub(crate) fn map_slots(&mut self, depth: usize, f: &mut dyn FnMut(usize) -> usize) {
        match self {
            Expr::Slot(slot) if depth == 0 => *slot = f(*slot),
            Expr::Outer { level, slot } if *level == depth => *slot = f(*slot),
            _ => {}
        }
        for child in self.children_mut() {
            child.map_slots(depth, f);
        }
        if let Some(plan) = self.plan_for_change() {
            Arc::make_mut(plan)
                .for_exprs_mut(&mut |expr, lateral| expr.map_slots(depth + 1 + lateral, f), 0);
        }
    }

    /// Puts the expression under `by` more outer rows: what it reads outside of itself is that much farther away.
    pub(crate) fn shift_outer(&mut self, depth: usize, by: usize) {
        if let Expr::Outer { level, .. } = self
            && *level > depth
        {
            *level += by;
        }
        for child in self.children_mut() {
            child.shift_outer(depth, by);
        }
        if let Some(plan) = self.plan_for_change() {
            Arc::make_mut(plan)
                .for_exprs_mut(&mut |expr, lateral| expr.shift_outer(depth + 1 + lateral, by), 0);
        }
    }

    /// The slots of its input row.
    pub(crate) fn slots(&self) -> Vec<usize> {
        let mut slots = Vec::new();
        self.for_slots(0, &mut |slot| slots.push(slot));
        slots
    }

    /// Whether any subexpression satisfies `test`.
    pub(crate) fn any(&self, test: &dyn Fn(&Expr) -> bool) -> bool {
        test(self) || self.children().into_iter().any(|child| child.any(test))
    }

    /// Whether it has the same value for every row of one execution, and costs nothing to compute.
    pub(crate) fn is_constant(&self) -> bool {
        !self.any(&|expr| match expr {
            Expr::Slot(_) | Expr::Deferred(_) | Expr::Placeholder(_) => true,
            Expr::Call(callee, _) => callee.volatile,
            _ => false,
        })
    }

    /// The deferred values in it.
    pub(crate) fn deferred<'a>(&'a self, out: &mut Vec<&'a Deferred>) {
        // Inner ones first: an outer one may need their values.
        for child in self.children() {
            child.deferred(out);
        }
        if let Expr::Deferred(deferred) = self {
            out.push(deferred);
        }
    }
}
