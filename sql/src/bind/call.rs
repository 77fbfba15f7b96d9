//! Value: binding of calls and operators.

use super::overload::{self, Match};
use super::{Binder, Typed};
use crate::error::{SqlError, codes};
use crate::plan::{
    AggregateCall, Callee, Comparison, DeferredKind, Expr, Extreme, Placeholder, SortKey,
    WindowCall, WindowFunction,
};
use crate::types::{Datum, SqlState, Type};
use sqlparser::ast;

impl Binder<'_> {
    /// An operator over bound operands.
    pub(super) fn operator(
        &mut self,
        symbol: &str,
        operands: Vec<Typed>,
        position: Option<usize>,
    ) -> Result<Typed, SqlError> {
        let (callee, args, result) = self.resolve_operator(symbol, operands, position)?;
        Ok(Typed::new(self.fold(callee, args)?, result).at(position))
    }

    pub(super) fn resolve_operator(
        &mut self,
        symbol: &str,
        operands: Vec<Typed>,
        position: Option<usize>,
    ) -> Result<(Callee, Vec<Expr>, Type), SqlError> {
        let given: Vec<Type> = operands.iter().map(|typed| typed.ty.base()).collect();
        let describe = || match given.as_slice() {
            [only] => format!("{symbol} {only}"),
            [left, right, ..] => format!("{left} {symbol} {right}"),
            [] => symbol.to_string(),
        };
        let found = overload::operator(symbol, &given).map_err(|error| {
            SqlError { message: format!("operator is not unique: {}", describe()), ..error }
                .with_hint("Could not choose a best candidate operator. You might need to add explicit type casts.")
                .at(position)
        })?;
        let Some(Match { args, result, callee }) = found else {
            return Err(SqlError::new(SqlState::UNDEFINED_FUNCTION, format!("operator does not exist: {}", describe()))
                .with_hint("No operator matches the given name and argument types. You might need to add explicit type casts.")
                .at(position));
        };
        let exprs = self.arguments(operands, &args)?;
        Ok((callee, exprs, result))
    }

    fn arguments(&mut self, given: Vec<Typed>, params: &[Type]) -> Result<Vec<Expr>, SqlError> {
        let mut exprs = Vec::with_capacity(given.len());
        for (typed, to) in given.into_iter().zip(params) {
            exprs.push(self.coerce_implicit(typed, *to, "argument")?.expr);
        }
        Ok(exprs)
    }

    /// Calls with constant arguments are made now.
    fn fold(&mut self, callee: Callee, args: Vec<Expr>) -> Result<Expr, SqlError> {
        // Only what depends on nothing but its arguments; errors are left to the execution, where CASE may avoid them.
        if !callee.volatile
            && let crate::plan::Code::Value(code, true) = &callee.code
            && args.iter().all(|arg| matches!(arg, Expr::Const(_)))
        {
            let values: Vec<Datum> = args
                .iter()
                .map(|arg| match arg {
                    Expr::Const(value) => value.clone(),
                    _ => Datum::Null,
                })
                .collect();
            if callee.strict && values.iter().any(Datum::is_null) {
                return Ok(Expr::Const(Datum::Null));
            }
            if let Ok(value) = code(self.facts, &values) {
                return Ok(Expr::Const(value));
            }
        }
        Ok(Expr::Call(callee, args))
    }

    /// A function over expressions.
    pub(super) fn call_named(
        &mut self,
        name: &str,
        args: &[&ast::Expr],
    ) -> Result<Typed, SqlError> {
        let mut typed = Vec::with_capacity(args.len());
        for arg in args {
            typed.push(self.expression(arg)?);
        }
        self.call_typed(name, typed, None)
    }

    /// A function over bound arguments.
    pub(super) fn call_typed(
        &mut self,
        name: &str,
        args: Vec<Typed>,
        position: Option<usize>,
    ) -> Result<Typed, SqlError> {
        if let (Some(to), [only]) = (to_json(name), args.as_slice())
            && only.ty == Type::Json
        {
            return self.explicit_cast(only.clone(), to, -1);
        }
        let found = self.resolve_function(name, &args, position)?;
        let mut exprs = self.arguments(args, &found.args)?;
        if crate::types::makes_json(name) {
            // What is JSON already is embedded: it goes with its type, because its datum is a text.
            for (expr, _) in exprs.iter_mut().zip(&found.args).filter(|(_, ty)| **ty == Type::Json)
            {
                let value = std::mem::replace(expr, Expr::Const(Datum::Null));
                *expr = Expr::Row(vec![(Type::Json, value)], Some(Vec::new().into()));
            }
        }
        Ok(Typed::new(self.fold(found.callee, exprs)?, found.result).at(position))
    }

    fn resolve_function(
        &mut self,
        name: &str,
        args: &[Typed],
        position: Option<usize>,
    ) -> Result<Match, SqlError> {
        let given: Vec<Type> = args.iter().map(|typed| typed.ty.base()).collect();
        let list = || given.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let found = overload::function(name, &given).map_err(|error| {
            SqlError { message: format!("function {name}({}) is not unique", list()), ..error }
                .with_hint("Could not choose a best candidate function. You might need to add explicit type casts.")
                .at(position)
        })?;
        found.ok_or_else(|| {
            SqlError::new(SqlState::UNDEFINED_FUNCTION, format!("function {name}({}) does not exist", list()))
                .with_hint("No function matches the given name and argument types. You might need to add explicit type casts.")
                .at(position)
        })
    }

    /// Words that are calls without parentheses.
    pub(super) fn bare_function(&mut self, word: &str) -> Result<Option<Typed>, SqlError> {
        let lower = word.to_lowercase();
        match lower.as_str() {
            "current_date" | "current_time" | "current_timestamp" | "localtime"
            | "localtimestamp" | "current_user" | "session_user" | "user" | "current_role"
            | "current_catalog" | "current_schema" => {}
            _ => return Ok(None),
        }
        // A column of that name hides it only when quoted, as in PostgreSQL.
        self.call_typed(&lower, Vec::new(), None).map(Some)
    }

    /// A call as written.
    pub(super) fn function(&mut self, function: &ast::Function) -> Result<Typed, SqlError> {
        let parts = super::name_parts(&function.name)?;
        let position = self.position(super::name_span(&function.name));
        let name = parts.last().expect("a name has a part").as_str();
        if let ast::FunctionArguments::Subquery(query) = &function.args {
            if name == "array" {
                return self.array_subquery(query);
            }
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("{name} does not take a query"),
            )
            .at(position));
        }
        let (args, star) = arguments_of(function)?;
        super::clauses::refuse_in_call(function, crate::types::is_aggregate(name))
            .map_err(|error| error.at(position))?;
        if let Some(window) = &function.over {
            return self.window(name, function, &args, window, position);
        }
        if crate::types::is_aggregate(name) {
            return self
                .aggregate(name, function, &args, star, position)
                .map(|typed| typed.at(position));
        }
        if let Some(typed) = self.special(name, &args, position)? {
            return Ok(typed.at(position));
        }
        if let Some(call) = self.set_call(name, &args)? {
            let (call, columns) = call;
            let ty = match columns.as_slice() {
                [only] => only.ty,
                _ => Type::Record,
            };
            return self.set_placeholder(call, None, ty, position);
        }
        self.call_named_at(name, &args, position)
    }

    fn call_named_at(
        &mut self,
        name: &str,
        args: &[&ast::Expr],
        position: Option<usize>,
    ) -> Result<Typed, SqlError> {
        let mut typed = Vec::with_capacity(args.len());
        for arg in args {
            typed.push(self.expression(arg)?);
        }
        // `typename(value)` is a cast.
        if !overload::exists(name)
            && typed.len() == 1
            && let Some(ty) = Type::from_name(name)
        {
            return self.explicit_cast(typed.remove(0), ty, -1);
        }
        self.call_typed(name, typed, position)
    }

    /// Registers a function that gives rows.
    pub(super) fn set_placeholder(
        &mut self,
        call: crate::plan::SetCall,
        field: Option<usize>,
        ty: Type,
        position: Option<usize>,
    ) -> Result<Typed, SqlError> {
        let level = self
            .levels
            .last_mut()
            .filter(|level| !level.sets_forbidden && level.forbidden.is_none());
        let Some(level) = level else {
            return Err(
                SqlError::unsupported("set-returning functions are not allowed here").at(position)
            );
        };
        level.sets.push((call, field));
        let index = level.sets.len() - 1;
        Ok(Typed::new(Expr::Placeholder(Placeholder::Set(index)), ty).at(position))
    }

    /// Calls that are not functions: their arguments are not all evaluated, or they need the database.
    fn special(
        &mut self,
        name: &str,
        args: &[&ast::Expr],
        position: Option<usize>,
    ) -> Result<Option<Typed>, SqlError> {
        match (name, args) {
            ("coalesce", [_, ..]) => {
                let mut typed = Vec::new();
                for arg in args {
                    typed.push(self.expression(arg)?);
                }
                let (exprs, ty, _) = self.unify(typed, "COALESCE")?;
                Ok(Some(Typed::new(Expr::Coalesce(exprs), ty)))
            }
            ("nullif", [left, right]) => {
                let (left, right) = (self.expression(left)?, self.expression(right)?);
                let left = match left.ty {
                    Type::Unknown => {
                        let to = if right.ty == Type::Unknown { Type::Text } else { right.ty };
                        self.coerce_implicit(left, to, "argument of NULLIF")?
                    }
                    _ => left,
                };
                let (value, ty) = (left.expr.clone(), left.ty);
                let equal = self.compare(Comparison::Eq, left, right)?.expr;
                Ok(Some(Typed::new(Expr::NullIf(Box::new(equal), Box::new(value)), ty)))
            }
            ("greatest" | "least", [_, ..]) => {
                let mut typed = Vec::new();
                for arg in args {
                    typed.push(self.expression(arg)?);
                }
                let (exprs, ty, _) = self.unify(typed, &name.to_uppercase())?;
                let extreme = if name == "greatest" { Extreme::Greatest } else { Extreme::Least };
                Ok(Some(Typed::new(Expr::Extreme(extreme, exprs), ty)))
            }
            ("nextval", [sequence]) => {
                let sequence = self.expression(sequence)?;
                let sequence = self.explicit_cast(sequence, Type::RegClass, -1)?;
                Ok(Some(Typed::new(
                    self.deferred(DeferredKind::NextVal(sequence.expr)),
                    Type::Int8,
                )))
            }
            // In the order in which they were written, among the calls that change what they give.
            ("currval", [_]) | ("lastval", []) => {
                let typed = self.call_named_at(name, args, position)?;
                let deferred = self.deferred(DeferredKind::Drawn(typed.expr));
                Ok(Some(Typed { expr: deferred, ..typed }))
            }
            ("setval", [sequence, rest @ ..]) if !rest.is_empty() => {
                let sequence = self.expression(sequence)?;
                let mut exprs = vec![self.explicit_cast(sequence, Type::RegClass, -1)?.expr];
                let value = self.expression(rest[0])?;
                exprs.push(self.coerce_implicit(value, Type::Int8, "argument of setval")?.expr);
                match rest.get(1) {
                    Some(called) => {
                        let called = self.expression(called)?;
                        exprs.push(self.condition(called, "setval")?);
                    }
                    None => exprs.push(Expr::truth()),
                }
                Ok(Some(Typed::new(self.deferred(DeferredKind::SetVal(exprs)), Type::Int8)))
            }
            ("pg_sleep", [seconds]) => {
                let seconds = self.expression(seconds)?;
                let seconds =
                    self.coerce_implicit(seconds, Type::Float8, "argument of pg_sleep")?;
                Ok(Some(
                    Typed::new(self.deferred(DeferredKind::Sleep(seconds.expr)), Type::Void)
                        .at(position),
                ))
            }
            ("row", _) => {
                let mut fields = Vec::new();
                for arg in args {
                    let typed = self.value(arg)?;
                    fields.push((typed.ty, typed.expr));
                }
                Ok(Some(Typed::new(Expr::Row(fields, None), Type::Record)))
            }
            _ => Ok(None),
        }
    }

    fn aggregate(
        &mut self,
        name: &str,
        function: &ast::Function,
        args: &[&ast::Expr],
        star: bool,
        position: Option<usize>,
    ) -> Result<Typed, SqlError> {
        let Some(level) = self.levels.last_mut() else {
            return Err(SqlError::new(
                codes::GROUPING_ERROR,
                "aggregate functions are not allowed here",
            )
            .at(position));
        };
        if let Some(place) = level.forbidden {
            return Err(SqlError::new(
                codes::GROUPING_ERROR,
                format!("aggregate functions are not allowed in {place}"),
            )
            .at(position));
        }
        if level.inside {
            return Err(SqlError::new(
                codes::GROUPING_ERROR,
                "aggregate function calls cannot be nested",
            )
            .at(position));
        }
        level.inside = true;
        let result = self.aggregate_inner(name, function, args, star, position);
        self.levels.last_mut().expect("pushed above").inside = false;
        let (call, ty) = result?;
        let level = self.levels.last_mut().expect("pushed above");
        let index = level.aggregates.iter().position(|known| *known == call).unwrap_or_else(|| {
            level.aggregates.push(call);
            level.aggregates.len() - 1
        });
        Ok(Typed::new(Expr::Placeholder(Placeholder::Aggregate(index)), ty))
    }

    fn aggregate_inner(
        &mut self,
        name: &str,
        function: &ast::Function,
        args: &[&ast::Expr],
        star: bool,
        position: Option<usize>,
    ) -> Result<(AggregateCall, Type), SqlError> {
        let mut typed = Vec::new();
        for arg in args {
            typed.push(self.expression(arg)?);
        }
        if star && name != "count" {
            return Err(SqlError::new(
                SqlState::UNDEFINED_FUNCTION,
                format!("function {name}() does not exist"),
            )
            .at(position));
        }
        let (aggregate, params, ty) = self.resolve_aggregate(name, &typed, position)?;
        let exprs = self.arguments(typed, &params)?;
        let any = |what: &dyn Fn(&Expr) -> bool| exprs.iter().any(|expr| expr.any(what));
        // Such an aggregate is the outer query's: here it would be computed for each of its rows.
        if any(&|expr| matches!(expr, Expr::Outer { .. }))
            && !any(&|expr| matches!(expr, Expr::Slot(_) | Expr::Deferred(_)))
        {
            return Err(SqlError::unsupported(
                "an aggregate of nothing but an outer query's columns is not supported",
            )
            .at(position));
        }
        let filter = match &function.filter {
            Some(filter) => {
                let filter = self.expression(filter)?;
                Some(self.condition(filter, "FILTER")?)
            }
            None => None,
        };
        let mut order = Vec::new();
        let mut distinct = false;
        if let ast::FunctionArguments::List(list) = &function.args {
            distinct = matches!(list.duplicate_treatment, Some(ast::DuplicateTreatment::Distinct));
            for clause in &list.clauses {
                let ast::FunctionArgumentClause::OrderBy(keys) = clause else {
                    return Err(SqlError::unsupported(format!(
                        "{clause} in a call of {name} is not supported"
                    ))
                    .at(position));
                };
                for key in keys {
                    order.push(self.sort_key(key)?);
                }
            }
        }
        Ok((AggregateCall { function: aggregate, args: exprs, distinct, filter, order }, ty))
    }

    fn resolve_aggregate(
        &mut self,
        name: &str,
        args: &[Typed],
        position: Option<usize>,
    ) -> Result<(super::Aggregate, Vec<Type>, Type), SqlError> {
        let given: Vec<Type> = args.iter().map(|typed| typed.ty.base()).collect();
        crate::types::resolve_aggregate(name, &given).map(|found| (found.aggregate, found.args, found.result)).ok_or_else(|| {
            let list = given.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            SqlError::new(SqlState::UNDEFINED_FUNCTION, format!("function {name}({list}) does not exist"))
                .with_hint("No function matches the given name and argument types. You might need to add explicit type casts.")
                .at(position)
        })
    }

    /// A key of ORDER BY, over the innermost scope.
    pub(super) fn sort_key(&mut self, key: &ast::OrderByExpr) -> Result<SortKey, SqlError> {
        let typed = self.value(&key.expr)?;
        sort_key_of(typed.expr, key)
    }

    fn window(
        &mut self,
        name: &str,
        function: &ast::Function,
        args: &[&ast::Expr],
        window: &ast::WindowType,
        position: Option<usize>,
    ) -> Result<Typed, SqlError> {
        let ast::WindowType::WindowSpec(spec) = window else {
            return Err(SqlError::unsupported("named windows are not supported").at(position));
        };
        if spec.window_frame.is_some() {
            return Err(SqlError::unsupported("window frames are not supported").at(position));
        }
        if self.levels.last().is_none_or(|level| level.forbidden.is_some()) {
            return Err(SqlError::new(
                SqlState::new("42P20"),
                "window functions are not allowed here",
            )
            .at(position));
        }
        let mut typed = Vec::new();
        for arg in args {
            typed.push(self.value(arg)?);
        }
        let first = typed.first().map(|typed| typed.ty);
        let (function_kind, exprs, ty) = match (name, first) {
            ("row_number", None) => (WindowFunction::RowNumber, Vec::new(), Type::Int8),
            ("rank", None) => (WindowFunction::Rank, Vec::new(), Type::Int8),
            ("dense_rank", None) => (WindowFunction::DenseRank, Vec::new(), Type::Int8),
            ("lag" | "lead", Some(ty)) if typed.len() == 1 => {
                (WindowFunction::Shift(name == "lead"), vec![typed.remove(0).expr], ty)
            }
            ("first_value", Some(ty)) => (WindowFunction::First, vec![typed.remove(0).expr], ty),
            _ if crate::types::is_aggregate(name) => {
                let (aggregate, params, ty) = self.resolve_aggregate(name, &typed, position)?;
                (WindowFunction::Aggregate(aggregate), self.arguments(typed, &params)?, ty)
            }
            _ => {
                return Err(SqlError::unsupported(format!(
                    "window function {name} is not supported"
                ))
                .at(position));
            }
        };
        if function.filter.is_some() {
            return Err(
                SqlError::unsupported("FILTER of window functions is not supported").at(position)
            );
        }
        let mut partition = Vec::new();
        for expr in &spec.partition_by {
            partition.push(self.value(expr)?.expr);
        }
        let mut order = Vec::new();
        for key in &spec.order_by {
            order.push(self.sort_key(key)?);
        }
        let level = self.levels.last_mut().expect("checked above");
        level.windows.push(WindowCall { function: function_kind, args: exprs, partition, order });
        let index = level.windows.len() - 1;
        Ok(Typed::new(Expr::Placeholder(Placeholder::Window(index)), ty).at(position))
    }
}

/// What `to_json` and `to_jsonb` make.
fn to_json(name: &str) -> Option<Type> {
    match name {
        "to_json" => Some(Type::Json),
        "to_jsonb" => Some(Type::Jsonb),
        _ => None,
    }
}

/// A key with its direction; NULLs are larger than everything unless said otherwise.
pub(super) fn sort_key_of(expr: Expr, key: &ast::OrderByExpr) -> Result<SortKey, SqlError> {
    let descending = match &key.options.sort {
        None | Some(ast::OrderBySort::Asc) => false,
        Some(ast::OrderBySort::Desc) => true,
        Some(ast::OrderBySort::Using(operator)) => match operator.to_string().as_str() {
            "<" | "pg_catalog.<" => false,
            ">" | "pg_catalog.>" => true,
            other => {
                return Err(SqlError::unsupported(format!(
                    "ORDER BY ... USING {other} is not supported"
                ))
                .with_hint("It sorts by < or by >."));
            }
        },
    };
    if key.with_fill.is_some() {
        return Err(SqlError::unsupported("WITH FILL is not supported"));
    }
    Ok(SortKey { expr, descending, nulls_first: key.options.nulls_first.unwrap_or(descending) })
}

/// The arguments of a call; `true`: it was `(*)`.
pub(super) fn arguments_of(function: &ast::Function) -> Result<(Vec<&ast::Expr>, bool), SqlError> {
    let ast::FunctionArguments::List(list) = &function.args else { return Ok((Vec::new(), false)) };
    let mut args = Vec::new();
    let mut star = false;
    for arg in &list.args {
        match arg {
            ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => args.push(expr),
            ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Wildcard) => star = true,
            other => {
                return Err(SqlError::unsupported(format!("argument {other} is not supported")));
            }
        }
    }
    Ok((args, star))
}
