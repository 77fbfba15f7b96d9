//! Value: binding of comparisons: two values, rows, lists and `ANY`/`ALL`, each in types that compare with each other.

use super::expression::{symbol, tuple};
use super::{Binder, Typed};
use crate::error::{SqlError, codes};
use crate::plan::{Comparison, Expr, Quantified, Test};
use crate::types::{CastContext, SqlState, Type};
use sqlparser::ast::{self, BinaryOperator};

impl Binder<'_> {
    /// A comparison of two values.
    pub(super) fn compare(
        &mut self,
        comparison: Comparison,
        left: Typed,
        right: Typed,
    ) -> Result<Typed, SqlError> {
        let position = left.position;
        let (left, right) = self.comparable(comparison.symbol(), left, right)?;
        Ok(Typed::boolean(Expr::Compare(comparison, Box::new(left), Box::new(right))).at(position))
    }

    /// Both in types that compare with each other.
    pub(super) fn comparable(
        &mut self,
        symbol: &str,
        left: Typed,
        right: Typed,
    ) -> Result<(Expr, Expr), SqlError> {
        let (a, b) = (left.ty.base(), right.ty.base());
        let mismatch = |a: Type, b: Type| {
            SqlError::new(SqlState::UNDEFINED_FUNCTION, format!("operator does not exist: {a} {symbol} {b}"))
                .with_hint("No operator matches the given name and argument types. You might need to add explicit type casts.")
        };
        let position = left.position;
        let (to_left, to_right) = match (a, b) {
            (Type::Unknown, Type::Unknown) => (Type::Text, Type::Text),
            (Type::Unknown, known) => (known, known),
            (known, Type::Unknown) => (known, known),
            (a, b) if a == b => (a, b),
            (a, b) => comparison_types(a, b).ok_or_else(|| mismatch(a, b).at(position))?,
        };
        if matches!(to_left, Type::Json) {
            return Err(mismatch(a, b).at(position));
        }
        let left = self.coerce_implicit_explicitly(left, to_left)?;
        let right = self.coerce_implicit_explicitly(right, to_right)?;
        Ok((left.expr, right.expr))
    }

    /// The operands of a comparison were found to have a common type; some ways to it are explicit casts.
    fn coerce_implicit_explicitly(&mut self, typed: Typed, to: Type) -> Result<Typed, SqlError> {
        let (from, position) = (typed.ty, typed.position);
        self.try_coerce(typed, to, -1, CastContext::Explicit)?.ok_or_else(|| {
            SqlError::new(SqlState::CANNOT_COERCE, format!("cannot cast type {from} to {to}"))
                .at(position)
        })
    }

    pub(super) fn compare_rows(
        &mut self,
        comparison: Comparison,
        left: &[&ast::Expr],
        right: &[&ast::Expr],
    ) -> Result<Typed, SqlError> {
        if left.len() != right.len() {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "unequal number of entries in row expressions",
            ));
        }
        let mut pairs = Vec::new();
        for (left, right) in left.iter().zip(right) {
            let (left, right) = (self.expression(left)?, self.expression(right)?);
            pairs.push(self.comparable(comparison.symbol(), left, right)?);
        }
        let one = |comparison, (left, right): &(Expr, Expr)| {
            Expr::Compare(comparison, Box::new(left.clone()), Box::new(right.clone()))
        };
        let all = |comparison| pairs.iter().map(|pair| one(comparison, pair)).collect::<Vec<_>>();
        Ok(Typed::boolean(match comparison {
            Comparison::Eq => Expr::and(all(Comparison::Eq)),
            Comparison::Ne => Expr::Or(all(Comparison::Ne)),
            ordered => {
                // (a, b) < (c, d)  is  a < c OR (a = c AND b < d); the last one alone may be equal.
                let strict = match ordered {
                    Comparison::Le | Comparison::Lt => Comparison::Lt,
                    _ => Comparison::Gt,
                };
                let mut arms = Vec::new();
                for (place, pair) in pairs.iter().enumerate() {
                    let last = place + 1 == pairs.len();
                    let mut arm: Vec<Expr> =
                        pairs[..place].iter().map(|pair| one(Comparison::Eq, pair)).collect();
                    arm.push(one(if last { ordered } else { strict }, pair));
                    arms.push(Expr::and(arm));
                }
                Expr::Or(arms)
            }
        }))
    }

    pub(super) fn distinct(
        &mut self,
        left: &ast::Expr,
        right: &ast::Expr,
        negated: bool,
    ) -> Result<Typed, SqlError> {
        let (left, right) = (self.expression(left)?, self.expression(right)?);
        let (left, right) = self.comparable("IS DISTINCT FROM", left, right)?;
        let test = Expr::Distinct(Box::new(left), Box::new(right));
        Ok(Typed::boolean(if negated { Expr::Not(Box::new(test)) } else { test }))
    }

    pub(super) fn in_list(
        &mut self,
        expr: &ast::Expr,
        list: &[ast::Expr],
        negated: bool,
    ) -> Result<Typed, SqlError> {
        if let Some(left) = tuple(expr) {
            let mut arms = Vec::new();
            for item in list {
                let right = tuple(item).ok_or_else(|| {
                    SqlError::new(
                        SqlState::SYNTAX_ERROR,
                        "unequal number of entries in row expressions",
                    )
                })?;
                arms.push(self.compare_rows(Comparison::Eq, &left, &right)?.expr);
            }
            let any = Expr::Or(arms);
            return Ok(Typed::boolean(if negated { Expr::Not(Box::new(any)) } else { any }));
        }
        let left = self.expression(expr)?;
        let mut items = Vec::with_capacity(list.len());
        for item in list {
            items.push(self.expression(item)?);
        }
        let mut all = vec![left];
        all.extend(items);
        let ty =
            self.common_type(&all, "IN").or_else(|error| self.in_list_type(&all).ok_or(error))?;
        let mut all = all.into_iter();
        let left = all.next().expect("the left side is there");
        let left = self.coerce_implicit_explicitly(left, ty)?;
        let mut exprs = Vec::new();
        for item in all {
            exprs.push(self.coerce_implicit_explicitly(item, ty)?.expr);
        }
        let quantified = Quantified {
            left: left.expr,
            array: Expr::Array(ty, exprs),
            test: Test::Compare(if negated { Comparison::Ne } else { Comparison::Eq }),
            all: negated,
        };
        Ok(Typed::boolean(Expr::Quantified(Box::new(quantified))))
    }

    /// `oid IN (1, 2)`, `name IN ('a'::text)`: types of different categories that compare all the same.
    fn in_list_type(&self, all: &[Typed]) -> Option<Type> {
        let mut known = all.iter().map(|typed| typed.ty.base()).filter(|ty| *ty != Type::Unknown);
        let first = known.next()?;
        known.try_fold(first, |current, ty| {
            if ty == current { Some(ty) } else { comparison_types(current, ty).map(|(ty, _)| ty) }
        })
    }

    pub(super) fn quantified(
        &mut self,
        left: &ast::Expr,
        op: &BinaryOperator,
        right: &ast::Expr,
        all: bool,
    ) -> Result<Typed, SqlError> {
        let symbol = symbol(op)?;
        let mut right = right;
        while let ast::Expr::Nested(inner) = right {
            right = inner;
        }
        if let ast::Expr::Subquery(query) = right {
            return self.quantified_subquery(left, comparison(&symbol), &symbol, query, all);
        }
        let left = self.expression(left)?;
        let array = self.expression(right)?;
        let array = if array.ty == Type::Unknown {
            let element = if left.ty == Type::Unknown { Type::Text } else { left.ty.base() };
            let ty = element.array().ok_or_else(|| {
                SqlError::new(
                    SqlState::UNDEFINED_OBJECT,
                    format!("could not find array type for data type {element}"),
                )
            })?;
            self.coerce_implicit(array, ty, "op ANY/ALL (array)")?
        } else {
            array
        };
        let Some(element) = array.ty.element() else {
            return Err(SqlError::new(
                codes::WRONG_OBJECT_TYPE,
                "op ANY/ALL (array) requires array on right side",
            )
            .at(array.position));
        };
        // The element's side is bound as a column that does not exist: only its conversion matters.
        let probe = Typed::new(Expr::Slot(usize::MAX), element);
        if let Some(comparison) = comparison(&symbol) {
            let position = left.position;
            let (left, converted) = self.comparable(&symbol, left, probe)?;
            let array_expr = match converted {
                Expr::Cast(cast) => {
                    let to = cast.to.array().ok_or_else(|| {
                        SqlError::new(
                            SqlState::UNDEFINED_OBJECT,
                            format!("could not find array type for data type {}", cast.to),
                        )
                    })?;
                    self.coerce_implicit_explicitly(array, to)?.expr
                }
                _ => array.expr,
            };
            let quantified =
                Quantified { left, array: array_expr, test: Test::Compare(comparison), all };
            return Ok(Typed::boolean(Expr::Quantified(Box::new(quantified))).at(position));
        }
        let position = left.position;
        let (callee, mut args, result) =
            self.resolve_operator(&symbol, vec![left, probe], position)?;
        if result != Type::Bool || args.pop() != Some(Expr::Slot(usize::MAX)) {
            return Err(SqlError::new(
                codes::WRONG_OBJECT_TYPE,
                "op ANY/ALL (array) requires operator to yield boolean",
            )
            .at(position));
        }
        let left = args.pop().expect("a binary operator has a left side");
        Ok(Typed::boolean(Expr::Quantified(Box::new(Quantified {
            left,
            array: array.expr,
            test: Test::Call(callee),
            all,
        }))))
    }
}

pub(super) fn comparison(symbol: &str) -> Option<Comparison> {
    Some(match symbol {
        "=" => Comparison::Eq,
        "<>" | "!=" => Comparison::Ne,
        "<" => Comparison::Lt,
        "<=" => Comparison::Le,
        ">" => Comparison::Gt,
        ">=" => Comparison::Ge,
        _ => return None,
    })
}

/// Types in which two different types are compared. Integers, and strings, compare as they are.
pub(super) fn comparison_types(a: Type, b: Type) -> Option<(Type, Type)> {
    use Type::*;
    let integer = |ty| matches!(ty, Int2 | Int4 | Int8);
    let text = |ty| matches!(ty, Text | Varchar | Name | BpChar | Char);
    let oid = |ty: Type| ty.is_oid_like() || ty == Xid;
    let float = |ty| matches!(ty, Float4 | Float8);
    let number = |ty| integer(ty) || float(ty) || ty == Numeric;
    if integer(a) && integer(b) {
        return Some((a, b));
    }
    if number(a) && number(b) {
        let to = if float(a) || float(b) { Float8 } else { Numeric };
        return Some((to, to));
    }
    if oid(a) && (oid(b) || integer(b)) || oid(b) && integer(a) {
        return Some((Oid, Oid));
    }
    if text(a) && text(b) {
        // char(n) against text compares without its padding, as PostgreSQL's cast to text makes it.
        return match (a, b) {
            (Char | BpChar, _) | (_, Char | BpChar) => Some((Text, Text)),
            _ => Some((a, b)),
        };
    }
    match (a, b) {
        (Date, Timestamp) | (Timestamp, Date) => Some((Timestamp, Timestamp)),
        (Date | Timestamp, TimestampTz) | (TimestampTz, Date | Timestamp) => {
            Some((TimestampTz, TimestampTz))
        }
        (Int2Vector, Array(Int2))
        | (Array(Int2), Int2Vector)
        | (OidVector, Array(Oid))
        | (Array(Oid), OidVector) => Some((a, b)),
        (Array(x), Array(y)) => {
            let (to, _) = comparison_types(*x, *y)?;
            // Elements of both sides that compare as they are need no conversion.
            if comparison_types(*x, *y) == Some((*x, *y)) {
                Some((a, b))
            } else {
                Some((to.array()?, to.array()?))
            }
        }
        _ => None,
    }
}
