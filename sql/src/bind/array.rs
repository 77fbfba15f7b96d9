//! Value: binding of arrays: their construction, subscripts and slices.

use super::{Binder, Typed};
use crate::error::{SqlError, codes};
use crate::plan::{Callee, Code, Expr};
use crate::types::{Datum, EvalContext, SqlState, Type, TypeError, functions_array};
use sqlparser::ast;
use std::sync::Arc;

impl Binder<'_> {
    pub(super) fn array(&mut self, items: &[ast::Expr]) -> Result<Typed, SqlError> {
        self.array_of(items, None)
    }

    pub(super) fn array_of(
        &mut self,
        items: &[ast::Expr],
        hint: Option<Type>,
    ) -> Result<Typed, SqlError> {
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

    pub(super) fn access(
        &mut self,
        root: &ast::Expr,
        chain: &[ast::AccessExpr],
    ) -> Result<Typed, SqlError> {
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
