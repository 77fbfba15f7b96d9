//! Value: binding of expressions.

use super::comparison::comparison;
use super::{Binder, PARAMS_MAX, Typed, data_type};
use crate::error::{SqlError, codes};
use crate::plan::{Comparison, DeferredKind, Expr};
use crate::types::{CastContext, Datum, SqlState, Type};
use sqlparser::ast::{self, BinaryOperator, UnaryOperator, Value};
use std::sync::Arc;

impl Binder<'_> {
    /// Binds an expression over the innermost scope.
    pub(crate) fn expression(&mut self, ast: &ast::Expr) -> Result<Typed, SqlError> {
        self.deeper(|binder| binder.expression_inner(ast))
    }

    fn expression_inner(&mut self, ast: &ast::Expr) -> Result<Typed, SqlError> {
        use ast::Expr as E;
        if let Some(mended) = super::precedence::mended(ast) {
            return self.expression_inner(&mended);
        }
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
            E::IsNotNull(inner) => {
                let inner = self.value(inner)?;
                let (row, inner) = (inner.ty == Type::Record, Box::new(inner.expr));
                // Of a row this is more than "not null": no field may be.
                Ok(Typed::boolean(match row {
                    true => Expr::NoneNull(inner),
                    false => Expr::Not(Box::new(Expr::IsNull(inner))),
                }))
            }
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
            E::Cast {
                kind: ast::CastKind::Cast | ast::CastKind::DoubleColon,
                expr,
                data_type: ty,
                format: None,
                ..
            } => self.cast(expr, ty),
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
            E::Collate { expr, collation } => {
                super::clauses::refuse_collation(collation)?;
                self.expression(expr)
            }
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

    pub(super) fn compound(&mut self, parts: &[ast::Ident]) -> Result<Typed, SqlError> {
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
                return self.compare_rows(comparison, &left, &right);
            }
            let (left, right) = (self.expression(left)?, self.expression(right)?);
            return self.compare(comparison, left, right);
        }
        let (left, right) = (self.expression(left)?, self.expression(right)?);
        let position = left.position;
        self.operator(&symbol, vec![left, right], position)
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

    fn row(&mut self, items: &[ast::Expr]) -> Result<Typed, SqlError> {
        let mut fields = Vec::new();
        for item in items {
            let typed = self.value(item)?;
            fields.push((typed.ty, typed.expr));
        }
        Ok(Typed::new(Expr::Row(fields, None), Type::Record))
    }
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

/// The items of `(a, b)` or `ROW(a, b)`.
pub(super) fn tuple(ast: &ast::Expr) -> Option<Vec<&ast::Expr>> {
    match ast {
        ast::Expr::Tuple(items) if items.len() > 1 => Some(items.iter().collect()),
        ast::Expr::Nested(inner) => tuple(inner),
        ast::Expr::Function(function) => {
            let [ast::ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else {
                return None;
            };
            if name.quote_style.is_some() || !name.value.eq_ignore_ascii_case("row") {
                return None;
            }
            let (items, star) = super::call::arguments_of(function).ok()?;
            (!star && !items.is_empty()).then_some(items)
        }
        _ => None,
    }
}

pub(super) fn symbol(op: &BinaryOperator) -> Result<String, SqlError> {
    Ok(match op {
        BinaryOperator::PGBitwiseXor => "#".to_string(),
        BinaryOperator::PGCustomBinaryOperator(parts) => parts.last().cloned().unwrap_or_default(),
        BinaryOperator::Custom(symbol) => symbol.clone(),
        other => other.to_string(),
    })
}
