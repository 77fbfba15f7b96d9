//! Value: conversions that nobody wrote. Literals and parameters of unknown type take the type of their surroundings; arms of
//! CASE, UNION and VALUES take one common type (PostgreSQL manual 10.4 and 10.5).

use super::{Binder, Typed};
use crate::error::SqlError;
use crate::plan::{Cast, Expr};
use crate::types::{CastContext, Datum, SqlState, Type, castable};

impl Binder<'_> {
    /// Converts, if that is allowed in this context; `None` if not.
    pub(super) fn try_coerce(
        &mut self,
        typed: Typed,
        to: Type,
        typmod: i32,
        context: CastContext,
    ) -> Result<Option<Typed>, SqlError> {
        let to_base = to.base();
        if typed.ty == Type::Unknown {
            return self.coerce_unknown(typed, to_base, typmod, context).map(Some);
        }
        let same = typed.ty.base() == to_base;
        if same && (typmod < 0 || typmod == typed.typmod) {
            return Ok(Some(Typed { ty: to_base, typmod: typed.typmod, ..typed }));
        }
        if !same && !castable(typed.ty, to_base, context) {
            return Ok(None);
        }
        let position = typed.position;
        let cast = Cast { from: typed.ty, to: to_base, typmod, context, expr: typed.expr };
        let expr = self.fold_cast(cast, position)?;
        Ok(Some(Typed { expr, ty: to_base, typmod, origin: None, position }))
    }

    /// A conversion of a constant is made now, unless its result depends on the session's moment.
    fn fold_cast(&mut self, cast: Cast, position: Option<usize>) -> Result<Expr, SqlError> {
        let stable =
            !matches!(cast.to, Type::TimestampTz | Type::Date | Type::Timestamp | Type::Time)
                && !cast.to.is_reg();
        match &cast.expr {
            Expr::Const(value) if stable || value.is_null() => {
                let value = crate::types::cast(
                    value,
                    cast.from,
                    cast.to,
                    cast.typmod,
                    cast.context,
                    self.facts,
                )
                .map_err(|error| SqlError::from(error).at(position))?;
                Ok(Expr::Const(value))
            }
            _ => Ok(Expr::Cast(Box::new(cast))),
        }
    }

    fn coerce_unknown(
        &mut self,
        typed: Typed,
        to: Type,
        typmod: i32,
        context: CastContext,
    ) -> Result<Typed, SqlError> {
        let to = if to == Type::Unknown { Type::Text } else { to };
        let to = match to {
            Type::AnyElement | Type::AnyNonArray | Type::Any => Type::Text,
            other => other,
        };
        let position = typed.position;
        let expr = match typed.expr {
            Expr::Param(index) => {
                let ty = *self.params[index].get_or_insert(to);
                let param =
                    Typed { expr: Expr::Param(index), ty, typmod: -1, origin: None, position };
                if ty == to && typmod < 0 {
                    return Ok(param);
                }
                return self
                    .try_coerce(param, to, typmod, context.max(CastContext::Assignment))?
                    .ok_or_else(|| {
                        SqlError::new(
                            SqlState::DATATYPE_MISMATCH,
                            format!("inconsistent types deduced for parameter ${}", index + 1),
                        )
                        .with_detail(format!("{ty} versus {to}"))
                        .at(position)
                    });
            }
            Expr::Const(Datum::Null) => Expr::Const(Datum::Null),
            expr => {
                let cast = Cast { from: Type::Unknown, to, typmod, context, expr };
                self.fold_cast(cast, position)?
            }
        };
        Ok(Typed { expr, ty: to, typmod, origin: None, position })
    }

    /// Converts as a function's argument is: or says what is wrong.
    pub(super) fn coerce_implicit(
        &mut self,
        typed: Typed,
        to: Type,
        what: &str,
    ) -> Result<Typed, SqlError> {
        let (from, position) = (typed.ty, typed.position);
        self.try_coerce(typed, to, -1, CastContext::Implicit)?.ok_or_else(|| {
            SqlError::new(
                SqlState::DATATYPE_MISMATCH,
                format!("{what} must be type {to}, not type {from}"),
            )
            .at(position)
        })
    }

    /// A condition: WHERE, ON, HAVING, CASE WHEN, AND.
    pub(super) fn condition(&mut self, typed: Typed, what: &str) -> Result<Expr, SqlError> {
        let (from, position) = (typed.ty, typed.position);
        match self.try_coerce(typed, Type::Bool, -1, CastContext::Implicit)? {
            Some(typed) => Ok(typed.expr),
            None => Err(SqlError::new(
                SqlState::DATATYPE_MISMATCH,
                format!("argument of {what} must be type boolean, not type {from}"),
            )
            .at(position)),
        }
    }

    /// The one type that all of these become.
    pub(super) fn common_type(&mut self, all: &[Typed], what: &str) -> Result<Type, SqlError> {
        let mut chosen: Option<Type> = None;
        for typed in all.iter().filter(|typed| typed.ty != Type::Unknown) {
            let ty = typed.ty.base();
            let Some(current) = chosen else {
                chosen = Some(ty);
                continue;
            };
            if current == ty {
                continue;
            }
            if current.category() != ty.category() {
                return Err(SqlError::new(
                    SqlState::DATATYPE_MISMATCH,
                    format!("{what} types {current} and {ty} cannot be matched"),
                )
                .at(typed.position));
            }
            // The wider of the two: the one at hand, if it takes the other.
            let takes = castable(ty, current, CastContext::Implicit);
            if !takes {
                chosen = Some(ty);
            }
        }
        Ok(chosen.unwrap_or(Type::Text))
    }

    /// All of them in their common type.
    pub(super) fn unify(
        &mut self,
        all: Vec<Typed>,
        what: &str,
    ) -> Result<(Vec<Expr>, Type, i32), SqlError> {
        let ty = self.common_type(&all, what)?;
        let typmod = all.first().map_or(-1, |first| first.typmod);
        let typmod = if all.iter().all(|typed| typed.typmod == typmod && typed.ty.base() == ty) {
            typmod
        } else {
            -1
        };
        let mut exprs = Vec::with_capacity(all.len());
        for typed in all {
            exprs.push(self.coerce_implicit(typed, ty, what)?.expr);
        }
        Ok((exprs, ty, typmod))
    }
}

/// A value for a column: the conversion of an assignment.
pub(crate) fn coerce_assignment(
    binder: &mut Binder<'_>,
    typed: Typed,
    column: &crate::catalog::ColumnDescriptor,
) -> Result<Expr, SqlError> {
    let (from, position) = (typed.ty, typed.position);
    match binder.try_coerce(typed, column.ty.base(), column.typmod, CastContext::Assignment)? {
        Some(typed) => Ok(typed.expr),
        None => Err(SqlError::new(
            SqlState::DATATYPE_MISMATCH,
            format!(
                "column \"{}\" is of type {} but expression is of type {from}",
                column.name,
                column.ty.base()
            ),
        )
        .with_hint("You will need to rewrite or cast the expression.")
        .at(position)),
    }
}
