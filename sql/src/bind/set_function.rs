//! Value: functions that give rows.

use super::{Binder, OutputColumn, Typed};
use crate::error::{SqlError, codes};
use crate::plan::{Expr, SetCall, SetFunction};
use crate::types::{Datum, SqlState, Type};
use sqlparser::ast;
use std::sync::Arc;

fn column(name: &str, ty: Type) -> OutputColumn {
    OutputColumn { name: Arc::from(name), ty, typmod: -1, origin: None }
}

impl Binder<'_> {
    /// A call that gives rows, if the name is one of those functions.
    pub(super) fn set_call(
        &mut self,
        name: &str,
        args: &[&ast::Expr],
    ) -> Result<Option<(SetCall, Vec<OutputColumn>)>, SqlError> {
        let call = match name {
            "generate_series" => self.generate_series(args)?,
            "unnest" => {
                let (mut calls, columns) = self.unnest_calls(args)?;
                if calls.len() != 1 {
                    return Err(SqlError::unsupported(
                        "unnest of several arrays is supported in FROM only",
                    ));
                }
                (calls.remove(0), columns)
            }
            "generate_subscripts" => {
                let [array, dimension, ..] = args else { return Err(missing(name)) };
                let array = self.array_argument(array)?;
                let dimension = self.expression(dimension)?;
                let dimension = self.coerce_implicit(dimension, Type::Int4, "dimension")?;
                let call = SetCall {
                    function: SetFunction::Subscripts,
                    args: vec![array.expr, dimension.expr],
                    width: 1,
                };
                (call, vec![column(name, Type::Int4)])
            }
            "_pg_expandarray" => {
                let [array] = args else { return Err(missing(name)) };
                let array = self.array_argument(array)?;
                let element = array.ty.element().unwrap_or(Type::Text);
                let call = SetCall {
                    function: SetFunction::ExpandArray,
                    args: vec![array.expr],
                    width: 2,
                };
                (call, vec![column("x", element), column("n", Type::Int4)])
            }
            _ => return Ok(None),
        };
        Ok(Some(call))
    }

    /// A scalar function in FROM: one row of one column.
    pub(super) fn scalar_call(
        &mut self,
        name: &str,
        args: &[&ast::Expr],
        position: Option<usize>,
    ) -> Result<(Vec<SetCall>, Vec<OutputColumn>), SqlError> {
        let mut typed = Vec::new();
        for arg in args {
            typed.push(self.expression(arg)?);
        }
        let value = self.call_typed(name, typed, position)?;
        let call = SetCall { function: SetFunction::Scalar, args: vec![value.expr], width: 1 };
        Ok((vec![call], vec![column(name, value.ty)]))
    }

    /// `unnest(a, b, ...)`.
    pub(super) fn unnest_calls(
        &mut self,
        args: &[&ast::Expr],
    ) -> Result<(Vec<SetCall>, Vec<OutputColumn>), SqlError> {
        let (mut calls, mut columns) = (Vec::new(), Vec::new());
        for arg in args {
            let array = self.array_argument(arg)?;
            columns.push(column("unnest", array.ty.element().unwrap_or(Type::Text)));
            calls.push(SetCall { function: SetFunction::Unnest, args: vec![array.expr], width: 1 });
        }
        Ok((calls, columns))
    }

    fn array_argument(&mut self, ast: &ast::Expr) -> Result<Typed, SqlError> {
        let typed = self.expression(ast)?;
        let position = typed.position;
        let typed = match typed.ty {
            Type::Unknown => self.coerce_implicit(typed, Type::Array(&Type::Text), "argument")?,
            _ => typed,
        };
        if typed.ty.element().is_none() {
            return Err(SqlError::new(
                SqlState::UNDEFINED_FUNCTION,
                format!("function unnest({}) does not exist", typed.ty),
            )
            .at(position));
        }
        Ok(typed)
    }

    fn generate_series(
        &mut self,
        args: &[&ast::Expr],
    ) -> Result<(SetCall, Vec<OutputColumn>), SqlError> {
        let mut typed = Vec::new();
        for arg in args {
            typed.push(self.expression(arg)?);
        }
        if !(2..=3).contains(&typed.len()) {
            return Err(missing("generate_series"));
        }
        let known: Vec<Type> =
            typed.iter().map(|typed| typed.ty.base()).filter(|ty| *ty != Type::Unknown).collect();
        if known.iter().any(|ty| {
            matches!(ty, Type::Timestamp | Type::TimestampTz | Type::Date | Type::Interval)
        }) {
            return self.generate_times(typed, &known);
        }
        let ty = match known.as_slice() {
            all if all.contains(&Type::Numeric) => {
                return Err(SqlError::unsupported("generate_series of numeric is not supported"));
            }
            all if all.contains(&Type::Int8) => Type::Int8,
            _ => Type::Int4,
        };
        if typed.len() == 2 {
            let one = if ty == Type::Int8 { Datum::Int8(1) } else { Datum::Int4(1) };
            typed.push(Typed::new(Expr::Const(one), ty));
        }
        let mut exprs = Vec::new();
        for typed in typed {
            exprs.push(self.coerce_implicit(typed, ty, "argument of generate_series")?.expr);
        }
        let call = SetCall { function: SetFunction::SeriesInt(ty), args: exprs, width: 1 };
        Ok((call, vec![column("generate_series", ty)]))
    }

    fn generate_times(
        &mut self,
        typed: Vec<Typed>,
        known: &[Type],
    ) -> Result<(SetCall, Vec<OutputColumn>), SqlError> {
        if typed.len() != 3 {
            return Err(missing("generate_series"));
        }
        let ty = if known.contains(&Type::Timestamp) && !known.contains(&Type::TimestampTz) {
            Type::Timestamp
        } else {
            Type::TimestampTz
        };
        let wanted = [ty, ty, Type::Interval];
        let mut exprs = Vec::new();
        for (typed, to) in typed.into_iter().zip(wanted) {
            exprs.push(self.coerce_implicit(typed, to, "argument of generate_series")?.expr);
        }
        let sum = [Typed::new(Expr::Slot(0), ty), Typed::new(Expr::Slot(1), Type::Interval)];
        let (callee, _, _) = self.resolve_operator("+", sum.to_vec(), None)?;
        let call = SetCall { function: SetFunction::SeriesStep(callee), args: exprs, width: 1 };
        Ok((call, vec![column("generate_series", ty)]))
    }
}

fn missing(name: &str) -> SqlError {
    SqlError::new(SqlState::UNDEFINED_FUNCTION, format!("function {name} does not exist with these arguments"))
        .with_hint("No function matches the given name and argument types. You might need to add explicit type casts.")
}

impl Binder<'_> {
    /// `(f(x)).n` and `(f(x)).*` of functions that give rows of several columns; `None`: it is not that.
    pub(super) fn record_star(
        &mut self,
        ast: &ast::Expr,
    ) -> Result<Option<Vec<super::query::Item>>, SqlError> {
        let ast::Expr::CompoundFieldAccess { root, access_chain } = ast else { return Ok(None) };
        let [ast::AccessExpr::Dot(field)] = access_chain.as_slice() else { return Ok(None) };
        let mut inner = root.as_ref();
        while let ast::Expr::Nested(nested) = inner {
            inner = nested;
        }
        let ast::Expr::Function(function) = inner else { return Ok(None) };
        let parts = super::name_parts(&function.name)?;
        let (args, _) = super::call::arguments_of(function)?;
        let Some((call, columns)) =
            self.set_call(parts.last().expect("a name has a part"), &args)?
        else {
            return Ok(None);
        };
        let wanted: Option<String> = match field {
            ast::Expr::Identifier(ident) => Some(crate::parse::name(ident)),
            ast::Expr::Wildcard(_) => None,
            other => return Err(SqlError::unsupported(format!("field {other} is not supported"))),
        };
        let mut items = Vec::new();
        for (place, column) in columns.iter().enumerate() {
            if wanted.as_deref().is_none_or(|wanted| wanted == &*column.name) {
                let typed = self.set_placeholder(call.clone(), Some(place), column.ty, None)?;
                items.push(super::query::Item { name: column.name.clone(), typed });
            }
        }
        if items.is_empty() {
            let wanted = wanted.unwrap_or_default();
            return Err(SqlError::new(
                codes::UNDEFINED_COLUMN,
                format!("column \"{wanted}\" not found in data type record"),
            ));
        }
        Ok(Some(items))
    }
}
