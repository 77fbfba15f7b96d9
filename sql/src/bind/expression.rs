//! Value: binding of expressions.

use super::{Binder, PARAMS_MAX, Typed, data_type};
use crate::error::{SqlError, codes};
use crate::plan::{Callee, Code, Comparison, Deferred, DeferredKind, Expr, Plan, Quantified, Test};
use crate::types::{CastContext, Datum, EvalContext, SqlState, Type, TypeError, functions_array};
use sqlparser::ast::{self, BinaryOperator, UnaryOperator, Value};
use std::sync::Arc;

impl Binder<'_> {
    /// Binds an expression over the innermost scope.
    pub(crate) fn expression(&mut self, ast: &ast::Expr) -> Result<Typed, SqlError> {
        self.deeper(|binder| binder.expression_inner(ast))
    }

    fn expression_inner(&mut self, ast: &ast::Expr) -> Result<Typed, SqlError> {
        use ast::Expr as E;
        match ast {
            E::Nested(inner) => self.expression(inner),
            E::Value(value) => self.literal(value),
            E::Identifier(ident) => {
                let position = self.position(ident.span);
                if ident.quote_style.is_none()
                    && let Some(typed) = self.bare_function(&ident.value)?
                {
                    return Ok(typed);
                }
                let typed = self
                    .column(None, &crate::parse::name(ident))
                    .map_err(|error| error.at(position))?;
                Ok(typed.at(position))
            }
            E::CompoundIdentifier(parts) => self.compound(parts),
            E::UnaryOp { op, expr } => self.unary(*op, expr),
            E::BinaryOp { left, op: op @ (BinaryOperator::And | BinaryOperator::Or), right } => {
                self.connective(left, op, right)
            }
            E::BinaryOp { left, op, right } => self.binary(left, op, right),
            E::IsNull(inner) => Ok(Typed::boolean(Expr::IsNull(Box::new(self.value(inner)?.expr)))),
            E::IsNotNull(inner) => Ok(Typed::boolean(Expr::Not(Box::new(Expr::IsNull(Box::new(
                self.value(inner)?.expr,
            )))))),
            E::IsTrue(inner) => self.is(inner, true, false),
            E::IsNotTrue(inner) => self.is(inner, true, true),
            E::IsFalse(inner) => self.is(inner, false, false),
            E::IsNotFalse(inner) => self.is(inner, false, true),
            E::IsUnknown(inner) => {
                let inner = self.boolean(inner, "IS UNKNOWN")?;
                Ok(Typed::boolean(Expr::IsNull(Box::new(inner))))
            }
            E::IsNotUnknown(inner) => {
                let inner = self.boolean(inner, "IS NOT UNKNOWN")?;
                Ok(Typed::boolean(Expr::Not(Box::new(Expr::IsNull(Box::new(inner))))))
            }
            E::IsDistinctFrom(left, right) => self.distinct(left, right, false),
            E::IsNotDistinctFrom(left, right) => self.distinct(left, right, true),
            E::InList { expr, list, negated } => self.in_list(expr, list, *negated),
            E::InSubquery { expr, subquery, negated } => self.in_subquery(expr, subquery, *negated),
            E::Between { expr, negated, low, high } => self.between(expr, low, high, *negated),
            E::Like { negated, any: false, expr, pattern, escape_char } => self.like(
                if *negated { "!~~" } else { "~~" },
                expr,
                pattern,
                escape_char.as_deref(),
            ),
            E::ILike { negated, any: false, expr, pattern, escape_char } => self.like(
                if *negated { "!~~*" } else { "~~*" },
                expr,
                pattern,
                escape_char.as_deref(),
            ),
            E::AnyOp { left, compare_op, right, .. } => {
                self.quantified(left, compare_op, right, false)
            }
            E::AllOp { left, compare_op, right } => self.quantified(left, compare_op, right, true),
            E::Cast { expr, data_type: ty, .. } => self.cast(expr, ty),
            E::TypedString(typed) => {
                let (ty, typmod) = data_type(&typed.data_type)?;
                let value = self.literal(&typed.value)?;
                self.explicit_cast(value, ty, typmod)
            }
            E::Interval(interval) => self.interval(interval),
            E::AtTimeZone { timestamp, time_zone } => {
                self.call_named("timezone", &[time_zone, timestamp])
            }
            E::Extract { field, expr, .. } => {
                let field = Typed::new(
                    Expr::Const(Datum::text(field.to_string().to_lowercase())),
                    Type::Text,
                );
                let value = self.expression(expr)?;
                self.call_typed("extract", vec![field, value], None)
            }
            E::Ceil { expr, .. } => self.call_named("ceil", &[expr]),
            E::Floor { expr, .. } => self.call_named("floor", &[expr]),
            E::Position { expr, r#in } => self.call_named("strpos", &[r#in, expr]),
            E::Substring { expr, substring_from, substring_for, .. } => {
                let mut args: Vec<&ast::Expr> = vec![expr];
                let one = ast::Expr::value(Value::Number("1".into(), false));
                match (substring_from, substring_for) {
                    (Some(from), Some(length)) => args.extend([from.as_ref(), length.as_ref()]),
                    (Some(from), None) => args.push(from),
                    (None, Some(length)) => args.extend([&one, length.as_ref()]),
                    (None, None) => {}
                }
                self.call_named("substring", &args)
            }
            E::Trim { trim_where, trim_what, expr, trim_characters } => {
                let name = match trim_where {
                    Some(ast::TrimWhereField::Leading) => "ltrim",
                    Some(ast::TrimWhereField::Trailing) => "rtrim",
                    Some(ast::TrimWhereField::Both) | None => "btrim",
                };
                let mut args: Vec<&ast::Expr> = vec![expr];
                args.extend(trim_what.as_deref());
                args.extend(trim_characters.iter().flatten());
                self.call_named(name, &args)
            }
            E::Overlay { expr, overlay_what, overlay_from, overlay_for } => {
                let mut args: Vec<&ast::Expr> = vec![expr, overlay_what, overlay_from];
                args.extend(overlay_for.as_deref());
                self.call_named("overlay", &args)
            }
            E::Collate { expr, .. } => self.expression(expr),
            E::Function(function) => self.function(function),
            E::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref())
            }
            E::Exists { subquery, negated } => {
                let (plan, _) = self.subquery(subquery)?;
                let exists = self.deferred(DeferredKind::Exists(Arc::new(plan)));
                Ok(Typed::boolean(if *negated { Expr::Not(Box::new(exists)) } else { exists }))
            }
            E::Subquery(query) => self.scalar_subquery(query),
            E::Tuple(items) => self.row(items),
            E::Array(array) => self.array(&array.elem),
            E::CompoundFieldAccess { root, access_chain } => self.access(root, access_chain),
            E::QualifiedWildcard(name, _) => {
                let parts = super::name_parts(name)?;
                let relation = parts.last().expect("a name has a part").clone();
                self.whole_row(&relation).ok_or_else(|| {
                    SqlError::new(
                        SqlState::UNDEFINED_TABLE,
                        format!("missing FROM-clause entry for table \"{relation}\""),
                    )
                })
            }
            E::Prefixed { .. } => Err(SqlError::unsupported(format!("{ast} is not supported"))),
            other => Err(SqlError::unsupported(format!("expression {other} is not supported"))),
        }
    }

    /// A value whose type may stay open no longer: unknown becomes text.
    pub(super) fn value(&mut self, ast: &ast::Expr) -> Result<Typed, SqlError> {
        let typed = self.expression(ast)?;
        if typed.ty == Type::Unknown && !matches!(typed.expr, Expr::Param(_)) {
            return self.coerce_implicit(typed, Type::Text, "value");
        }
        Ok(typed)
    }

    fn boolean(&mut self, ast: &ast::Expr, what: &str) -> Result<Expr, SqlError> {
        let typed = self.expression(ast)?;
        self.condition(typed, what)
    }

    fn is(&mut self, inner: &ast::Expr, truth: bool, negated: bool) -> Result<Typed, SqlError> {
        let inner = self.boolean(inner, if truth { "IS TRUE" } else { "IS FALSE" })?;
        let test = Expr::Is(Box::new(inner), truth);
        Ok(Typed::boolean(if negated { Expr::Not(Box::new(test)) } else { test }))
    }

    fn literal(&mut self, value: &ast::ValueWithSpan) -> Result<Typed, SqlError> {
        let position = self.position(value.span);
        if let Value::EscapedStringLiteral(text) | Value::UnicodeStringLiteral(text) = &value.value
            && text.contains('\0')
        {
            return Err(SqlError::new(
                SqlState::CHARACTER_NOT_IN_REPERTOIRE,
                "invalid byte sequence for encoding \"UTF8\": 0x00",
            )
            .at(position));
        }
        let unknown =
            |text: &str| Typed::new(Expr::Const(Datum::text(text)), Type::Unknown).at(position);
        Ok(match &value.value {
            Value::Null => Typed::null().at(position),
            Value::Boolean(value) => Typed::boolean(Expr::Const(Datum::Bool(*value))).at(position),
            Value::Number(text, _) => {
                number(text).map_err(|error| error.at(position))?.at(position)
            }
            Value::SingleQuotedString(text)
            | Value::EscapedStringLiteral(text)
            | Value::UnicodeStringLiteral(text)
            | Value::NationalStringLiteral(text) => unknown(text),
            Value::DollarQuotedString(quoted) => unknown(&quoted.value),
            Value::Placeholder(name) => {
                return self
                    .param(name)
                    .map(|typed| typed.at(position))
                    .map_err(|error| error.at(position));
            }
            other => {
                return Err(
                    SqlError::unsupported(format!("literal {other} is not supported")).at(position)
                );
            }
        })
    }

    fn param(&mut self, name: &str) -> Result<Typed, SqlError> {
        let index: usize =
            name.strip_prefix('$').and_then(|digits| digits.parse().ok()).unwrap_or(0);
        if !(1..=PARAMS_MAX).contains(&index) {
            return Err(SqlError::new(
                codes::UNDEFINED_PARAMETER,
                format!("there is no parameter {name}"),
            ));
        }
        if self.params.len() < index {
            self.params.resize(index, None);
        }
        let ty = self.params[index - 1].unwrap_or(Type::Unknown);
        Ok(Typed::new(Expr::Param(index - 1), ty))
    }

    fn compound(&mut self, parts: &[ast::Ident]) -> Result<Typed, SqlError> {
        let position = parts.first().and_then(|part| self.position(part.span));
        let names: Vec<String> = parts.iter().map(crate::parse::name).collect();
        let (relation, column) = match names.as_slice() {
            [relation, column] => (relation, column),
            [_, relation, column] => (relation, column),
            [_, _, relation, column] => (relation, column),
            _ => {
                return Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    format!("improper qualified name: {}", names.join(".")),
                )
                .at(position));
            }
        };
        let typed = self.column(Some(relation), column).map_err(|error| error.at(position))?;
        Ok(typed.at(position))
    }

    /// AND and OR chains are long and left-deep: walked, not recursed into.
    fn connective(
        &mut self,
        left: &ast::Expr,
        op: &BinaryOperator,
        right: &ast::Expr,
    ) -> Result<Typed, SqlError> {
        let what = if matches!(op, BinaryOperator::And) { "AND" } else { "OR" };
        let mut operands = vec![right];
        let mut rest = left;
        while let ast::Expr::BinaryOp { left, op: inner, right } = rest
            && inner == op
        {
            operands.push(right);
            rest = left;
        }
        operands.push(rest);
        let mut list = Vec::with_capacity(operands.len());
        for operand in operands.into_iter().rev() {
            list.push(self.boolean(operand, what)?);
        }
        Ok(Typed::boolean(if what == "AND" { Expr::And(list) } else { Expr::Or(list) }))
    }

    fn unary(&mut self, op: UnaryOperator, inner: &ast::Expr) -> Result<Typed, SqlError> {
        match op {
            UnaryOperator::Not => {
                Ok(Typed::boolean(Expr::Not(Box::new(self.boolean(inner, "NOT")?))))
            }
            UnaryOperator::Plus => self.expression(inner),
            UnaryOperator::Minus => {
                // The smallest integers have no positive counterpart: the sign belongs to the literal.
                if let ast::Expr::Value(ast::ValueWithSpan {
                    value: Value::Number(text, _),
                    span,
                }) = inner
                {
                    let position = self.position(*span);
                    return Ok(number(&format!("-{text}"))
                        .map_err(|error| error.at(position))?
                        .at(position));
                }
                let inner = self.expression(inner)?;
                self.operator("-", vec![inner], None)
            }
            UnaryOperator::BitwiseNot
            | UnaryOperator::PGAbs
            | UnaryOperator::PGSquareRoot
            | UnaryOperator::PGCubeRoot => {
                let inner = self.expression(inner)?;
                self.operator(&op.to_string(), vec![inner], None)
            }
            other => Err(SqlError::unsupported(format!("operator {other} is not supported"))),
        }
    }

    fn binary(
        &mut self,
        left: &ast::Expr,
        op: &BinaryOperator,
        right: &ast::Expr,
    ) -> Result<Typed, SqlError> {
        let symbol = symbol(op)?;
        if let Some(comparison) = comparison(&symbol) {
            if let (Some(left), Some(right)) = (tuple(left), tuple(right)) {
                return self.compare_rows(comparison, left, right);
            }
            let (left, right) = (self.expression(left)?, self.expression(right)?);
            return self.compare(comparison, left, right);
        }
        let (left, right) = (self.expression(left)?, self.expression(right)?);
        let position = left.position;
        self.operator(&symbol, vec![left, right], position)
    }

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

    fn compare_rows(
        &mut self,
        comparison: Comparison,
        left: &[ast::Expr],
        right: &[ast::Expr],
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

    fn distinct(
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

    fn in_list(
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
                arms.push(self.compare_rows(Comparison::Eq, left, right)?.expr);
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

    fn in_subquery(
        &mut self,
        expr: &ast::Expr,
        query: &ast::Query,
        negated: bool,
    ) -> Result<Typed, SqlError> {
        let comparison = if negated { Comparison::Ne } else { Comparison::Eq };
        self.quantified_subquery(expr, Some(comparison), "=", query, negated)
    }

    fn quantified(
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

    fn quantified_subquery(
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
            Some(items) => items.iter().collect(),
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

    fn between(
        &mut self,
        expr: &ast::Expr,
        low: &ast::Expr,
        high: &ast::Expr,
        negated: bool,
    ) -> Result<Typed, SqlError> {
        let expr = self.expression(expr)?;
        let (low, high) = (self.expression(low)?, self.expression(high)?);
        let above = self.compare(Comparison::Ge, expr.clone(), low)?.expr;
        let below = self.compare(Comparison::Le, expr, high)?.expr;
        let both = Expr::And(vec![above, below]);
        Ok(Typed::boolean(if negated { Expr::Not(Box::new(both)) } else { both }))
    }

    fn like(
        &mut self,
        symbol: &str,
        expr: &ast::Expr,
        pattern: &ast::Expr,
        escape: Option<&ast::Expr>,
    ) -> Result<Typed, SqlError> {
        let expr = self.value(expr)?;
        let mut pattern = self.expression(pattern)?;
        if let Some(escape) = escape {
            let escape = self.expression(escape)?;
            pattern = self.call_typed("like_escape", vec![pattern, escape], None)?;
        }
        let position = expr.position;
        self.operator(symbol, vec![expr, pattern], position)
    }

    fn cast(&mut self, expr: &ast::Expr, ty: &ast::DataType) -> Result<Typed, SqlError> {
        let (ty, typmod) = data_type(ty)?;
        // ARRAY[]::int[] has no element to take a type from.
        if let (ast::Expr::Array(array), Some(element)) = (expr, ty.element()) {
            if array.elem.is_empty() {
                return Ok(Typed { typmod, ..Typed::new(Expr::Array(element, Vec::new()), ty) });
            }
            // The element's type is said by the cast: '{...}' literals inside are read as that.
            let typed = self.array_of(&array.elem, Some(element))?;
            return self.explicit_cast(typed, ty, typmod);
        }
        let typed = self.expression(expr)?;
        self.explicit_cast(typed, ty, typmod)
    }

    /// `expr::type`.
    pub(super) fn explicit_cast(
        &mut self,
        typed: Typed,
        ty: Type,
        typmod: i32,
    ) -> Result<Typed, SqlError> {
        let (from, position) = (typed.ty, typed.position);
        match self.try_coerce(typed, ty, typmod, CastContext::Explicit)? {
            Some(typed) => Ok(Typed { origin: None, ..typed }),
            None => Err(SqlError::new(
                SqlState::CANNOT_COERCE,
                format!("cannot cast type {from} to {ty}"),
            )
            .at(position)),
        }
    }

    fn interval(&mut self, interval: &ast::Interval) -> Result<Typed, SqlError> {
        let ast::Expr::Value(ast::ValueWithSpan { value: Value::SingleQuotedString(text), .. }) =
            interval.value.as_ref()
        else {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "an interval literal must be a string",
            ));
        };
        let text = match &interval.leading_field {
            None => text.clone(),
            Some(_) if interval.last_field.is_some() => text.clone(),
            Some(field) => format!("{text} {field}"),
        };
        self.explicit_cast(
            Typed::new(Expr::Const(Datum::text(text)), Type::Unknown),
            Type::Interval,
            -1,
        )
    }

    fn case(
        &mut self,
        operand: Option<&ast::Expr>,
        arms: &[ast::CaseWhen],
        otherwise: Option<&ast::Expr>,
    ) -> Result<Typed, SqlError> {
        let operand = operand.map(|operand| self.expression(operand)).transpose()?;
        let mut conditions = Vec::new();
        let mut results = Vec::new();
        for arm in arms {
            let condition = self.expression(&arm.condition)?;
            conditions.push(match &operand {
                Some(operand) => self.compare(Comparison::Eq, operand.clone(), condition)?.expr,
                None => self.condition(condition, "CASE/WHEN")?,
            });
            results.push(self.expression(&arm.result)?);
        }
        // PostgreSQL looks at ELSE first when it chooses the type.
        results.insert(
            0,
            otherwise.map_or_else(|| Ok(Typed::null()), |otherwise| self.expression(otherwise))?,
        );
        let (mut exprs, ty, typmod) = self.unify(results, "CASE")?;
        let otherwise = exprs.remove(0);
        let arms = conditions.into_iter().zip(exprs).collect();
        Ok(Typed { typmod, ..Typed::new(Expr::Case(arms, Box::new(otherwise)), ty) })
    }

    /// A query inside of an expression: it sees this scope as its outer row.
    pub(super) fn subquery(
        &mut self,
        query: &ast::Query,
    ) -> Result<(Plan, Vec<super::OutputColumn>), SqlError> {
        let bound = self.query(query)?;
        Ok((bound.plan, bound.columns))
    }

    fn scalar_subquery(&mut self, query: &ast::Query) -> Result<Typed, SqlError> {
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
            DeferredKind::NextVal(_) | DeferredKind::SetVal(_) | DeferredKind::Sleep(_) => true,
            DeferredKind::Quantified { left, plan, .. } => {
                reaches_out(plan) || left.iter().any(|expr| !expr.is_constant()) || !left.is_empty()
            }
            DeferredKind::Scalar(plan)
            | DeferredKind::Exists(plan)
            | DeferredKind::Array(_, plan) => reaches_out(plan),
        };
        Expr::Deferred(Box::new(deferred))
    }

    fn row(&mut self, items: &[ast::Expr]) -> Result<Typed, SqlError> {
        let mut fields = Vec::new();
        for item in items {
            let typed = self.value(item)?;
            fields.push((typed.ty, typed.expr));
        }
        Ok(Typed::new(Expr::Row(fields), Type::Record))
    }

    pub(super) fn array(&mut self, items: &[ast::Expr]) -> Result<Typed, SqlError> {
        self.array_of(items, None)
    }

    fn array_of(&mut self, items: &[ast::Expr], hint: Option<Type>) -> Result<Typed, SqlError> {
        if items.is_empty() {
            return Err(SqlError::new(
                codes::INDETERMINATE_DATATYPE,
                "cannot determine type of empty array",
            )
            .with_hint("Explicitly cast to the desired type, for example ARRAY[]::integer[]."));
        }
        let mut typed = Vec::new();
        for item in items {
            let item = match item {
                ast::Expr::Array(inner) => self.array_of(&inner.elem, hint)?,
                other => self.expression(other)?,
            };
            typed.push(match (hint, item.ty) {
                (Some(element), Type::Unknown) => self.coerce_implicit(item, element, "ARRAY")?,
                _ => item,
            });
        }
        let (exprs, ty, _) = self.unify(typed, "ARRAY")?;
        let element = ty.element().unwrap_or(ty);
        let array = element.array().ok_or_else(|| {
            SqlError::new(
                SqlState::UNDEFINED_OBJECT,
                format!("could not find array type for data type {element}"),
            )
        })?;
        Ok(Typed::new(Expr::Array(element, exprs), array))
    }

    fn access(&mut self, root: &ast::Expr, chain: &[ast::AccessExpr]) -> Result<Typed, SqlError> {
        let mut rest = chain;
        // `schema.table.column[1]` comes as accesses of a name.
        let mut names: Vec<ast::Ident> = match root {
            ast::Expr::Identifier(ident) => vec![ident.clone()],
            ast::Expr::CompoundIdentifier(parts) => parts.clone(),
            _ => Vec::new(),
        };
        let mut typed = None;
        if !names.is_empty() {
            while let [ast::AccessExpr::Dot(ast::Expr::Identifier(ident)), tail @ ..] = rest {
                names.push(ident.clone());
                rest = tail;
            }
            typed = Some(match names.as_slice() {
                [only] => self.expression(&ast::Expr::Identifier(only.clone()))?,
                many => self.compound(many)?,
            });
        }
        let mut typed = match typed {
            Some(typed) => typed,
            None => self.expression(root)?,
        };
        while let Some(access) = rest.first() {
            match access {
                ast::AccessExpr::Subscript(ast::Subscript::Index { .. }) => {
                    let mut indexes = Vec::new();
                    while let [
                        ast::AccessExpr::Subscript(ast::Subscript::Index { index }),
                        tail @ ..,
                    ] = rest
                    {
                        indexes.push(index);
                        rest = tail;
                    }
                    typed = self.subscript(typed, &indexes)?;
                    continue;
                }
                ast::AccessExpr::Subscript(ast::Subscript::Slice {
                    lower_bound,
                    upper_bound,
                    ..
                }) => {
                    let mut args = vec![typed.expr.clone()];
                    for bound in [lower_bound, upper_bound] {
                        args.push(match bound {
                            Some(bound) => self.subscript_index(bound)?,
                            None => Expr::Const(Datum::Null),
                        });
                    }
                    if typed.ty.element().is_none() {
                        return Err(no_subscripts(typed.ty));
                    }
                    typed = Typed::new(Expr::Call(array_callee("slice", slice), args), typed.ty);
                }
                ast::AccessExpr::Dot(field) => {
                    return Err(SqlError::unsupported(format!(
                        "field selection .{field} is not supported"
                    )));
                }
            }
            rest = &rest[1..];
        }
        Ok(typed)
    }

    /// `array[i]`, `array[i][j]`.
    fn subscript(&mut self, array: Typed, indexes: &[&ast::Expr]) -> Result<Typed, SqlError> {
        let element = array.ty.element().ok_or_else(|| no_subscripts(array.ty))?;
        let mut args = vec![array.expr];
        for index in indexes {
            args.push(self.subscript_index(index)?);
        }
        Ok(Typed::new(Expr::Call(array_callee("subscript", subscript), args), element))
    }

    fn subscript_index(&mut self, index: &ast::Expr) -> Result<Expr, SqlError> {
        let index = self.expression(index)?;
        Ok(self.coerce_implicit(index, Type::Int8, "array subscript")?.expr)
    }
}

fn no_subscripts(ty: Type) -> SqlError {
    SqlError::new(
        SqlState::DATATYPE_MISMATCH,
        format!("cannot subscript type {ty} because it does not support subscripting"),
    )
}

fn array_callee(name: &str, code: crate::types::registry::Code) -> Callee {
    Callee { name: Arc::from(name), strict: false, volatile: false, code: Code::Value(code, true) }
}

fn subscript(_: &dyn EvalContext, args: &[Datum]) -> Result<Datum, TypeError> {
    let Some((Datum::Array(array), indexes)) = args.split_first() else { return Ok(Datum::Null) };
    let indexes: Option<Vec<i64>> = indexes.iter().map(Datum::as_i64).collect();
    Ok(indexes.map_or(Datum::Null, |indexes| functions_array::subscript(array, &indexes)))
}

fn slice(_: &dyn EvalContext, args: &[Datum]) -> Result<Datum, TypeError> {
    match args {
        [Datum::Array(array), low, high] => {
            functions_array::slice(array, low.as_i64(), high.as_i64())
        }
        _ => Ok(Datum::Null),
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

/// A number: int4, int8 or numeric, the smallest that holds it.
fn number(text: &str) -> Result<Typed, SqlError> {
    let digits = text.trim_start_matches('-');
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        if let Ok(value) = text.parse::<i32>() {
            return Ok(Typed::new(Expr::Const(Datum::Int4(value)), Type::Int4));
        }
        if let Ok(value) = text.parse::<i64>() {
            return Ok(Typed::new(Expr::Const(Datum::Int8(value)), Type::Int8));
        }
    }
    let value = crate::types::Numeric::parse(text)?;
    Ok(Typed::new(Expr::Const(Datum::Numeric(value)), Type::Numeric))
}

fn tuple(ast: &ast::Expr) -> Option<&[ast::Expr]> {
    match ast {
        ast::Expr::Tuple(items) if items.len() > 1 => Some(items),
        ast::Expr::Nested(inner) => tuple(inner),
        _ => None,
    }
}

fn comparison(symbol: &str) -> Option<Comparison> {
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

fn symbol(op: &BinaryOperator) -> Result<String, SqlError> {
    Ok(match op {
        BinaryOperator::PGBitwiseXor => "#".to_string(),
        BinaryOperator::PGCustomBinaryOperator(parts) => parts.last().cloned().unwrap_or_default(),
        BinaryOperator::Custom(symbol) => symbol.clone(),
        other => other.to_string(),
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
