//! Value: binding of queries inside of expressions. Such a query sees the scope around it as its outer row.

use super::expression::tuple;
use super::{Binder, OutputColumn, Typed};
use crate::error::SqlError;
use crate::plan::{Comparison, Deferred, DeferredKind, Expr, Plan, Test};
use crate::types::{SqlState, Type};
use sqlparser::ast;
use std::sync::Arc;

impl Binder<'_> {
    pub(super) fn in_subquery(
        &mut self,
        expr: &ast::Expr,
        query: &ast::Query,
        negated: bool,
    ) -> Result<Typed, SqlError> {
        let comparison = if negated { Comparison::Ne } else { Comparison::Eq };
        self.quantified_subquery(expr, Some(comparison), "=", query, negated)
    }

    pub(super) fn quantified_subquery(
        &mut self,
        left: &ast::Expr,
        comparison: Option<Comparison>,
        symbol: &str,
        query: &ast::Query,
        all: bool,
    ) -> Result<Typed, SqlError> {
        let Some(comparison) = comparison else {
            return Err(SqlError::unsupported(format!(
                "operator {symbol} with a subquery is not supported"
            )));
        };
        let items: Vec<&ast::Expr> = match tuple(left) {
            Some(items) => items,
            None => vec![left],
        };
        let mut lefts = Vec::new();
        for item in items {
            lefts.push(self.expression(item)?);
        }
        let (plan, columns) = self.subquery(query)?;
        if columns.len() != lefts.len() {
            let few = if columns.len() > lefts.len() { "too many" } else { "too few" };
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("subquery has {few} columns"),
            ));
        }
        let (mut left_exprs, mut right_exprs, mut changed) = (Vec::new(), Vec::new(), false);
        for (slot, (left, column)) in lefts.into_iter().zip(&columns).enumerate() {
            let right = Typed { typmod: column.typmod, ..Typed::new(Expr::Slot(slot), column.ty) };
            let right =
                if column.ty == Type::Unknown { Typed { ty: Type::Text, ..right } } else { right };
            let (left, right) = self.comparable(symbol, left, right)?;
            changed |= right != Expr::Slot(slot);
            left_exprs.push(left);
            right_exprs.push(right);
        }
        let plan = if changed {
            Plan::Project { input: Box::new(plan), exprs: right_exprs }
        } else {
            plan
        };
        let test = Test::Compare(comparison);
        Ok(Typed::boolean(self.deferred(DeferredKind::Quantified {
            left: left_exprs,
            test,
            all,
            plan: Arc::new(plan),
        })))
    }

    /// A query inside of an expression: it sees this scope as its outer row.
    pub(super) fn subquery(
        &mut self,
        query: &ast::Query,
    ) -> Result<(Plan, Vec<OutputColumn>), SqlError> {
        let bound = self.query(query)?;
        Ok((bound.plan, bound.columns))
    }

    pub(super) fn scalar_subquery(&mut self, query: &ast::Query) -> Result<Typed, SqlError> {
        let (plan, columns) = self.subquery(query)?;
        let [column] = columns.as_slice() else {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "subquery must return only one column",
            ));
        };
        let (ty, typmod) =
            (if column.ty == Type::Unknown { Type::Text } else { column.ty }, column.typmod);
        let expr = self.deferred(DeferredKind::Scalar(Arc::new(plan)));
        Ok(Typed { typmod, ..Typed::new(expr, ty) })
    }

    /// `ARRAY(SELECT ...)`.
    pub(super) fn array_subquery(&mut self, query: &ast::Query) -> Result<Typed, SqlError> {
        let (plan, columns) = self.subquery(query)?;
        let [column] = columns.as_slice() else {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "subquery must return only one column",
            ));
        };
        let element = if column.ty == Type::Unknown { Type::Text } else { column.ty };
        let ty = element.array().ok_or_else(|| {
            SqlError::new(
                SqlState::UNDEFINED_OBJECT,
                format!("could not find array type for data type {element}"),
            )
        })?;
        Ok(Typed::new(self.deferred(DeferredKind::Array(element, Arc::new(plan))), ty))
    }

    pub(super) fn deferred(&mut self, kind: DeferredKind) -> Expr {
        let mut deferred = Deferred { id: self.deferred_id(), correlated: false, kind };
        deferred.correlated = match &deferred.kind {
            DeferredKind::NextVal(_)
            | DeferredKind::Drawn(_)
            | DeferredKind::SetVal(_)
            | DeferredKind::Sleep(_) => true,
            DeferredKind::Quantified { left, plan, .. } => {
                reaches_out(plan) || left.iter().any(|expr| !expr.is_constant()) || !left.is_empty()
            }
            DeferredKind::Scalar(plan)
            | DeferredKind::Exists(plan)
            | DeferredKind::Array(_, plan) => reaches_out(plan),
        };
        Expr::Deferred(Box::new(deferred))
    }
}

/// Whether a query reads rows outside of itself.
pub(super) fn reaches_out(plan: &Plan) -> bool {
    fn expr_reaches(expr: &Expr, depth: usize) -> bool {
        if matches!(expr, Expr::Outer { level, .. } if *level > depth) {
            return true;
        }
        if expr.children().into_iter().any(|child| expr_reaches(child, depth)) {
            return true;
        }
        expr.plan().is_some_and(|plan| plan_reaches(plan, depth + 1))
    }
    fn plan_reaches(plan: &Plan, depth: usize) -> bool {
        let mut found = false;
        plan.for_exprs(
            &mut |expr, lateral| found = found || expr_reaches(expr, depth + lateral),
            0,
        );
        found
    }
    plan_reaches(plan, 0)
}
