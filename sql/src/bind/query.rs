//! Value: binding of SELECT, VALUES, set operations and WITH.
//!
//! ```text
//!   FROM ─► Filter (WHERE) ─► Aggregate ─► Filter (HAVING) ─► Window ─► ProjectSet ─► Project (output ++ sort keys)
//!        ─► Distinct ─► Sort ─► Limit ─► Project (output)
//! ```

use super::call::sort_key_of;
use super::{Binder, Bound, CommonName, Level, OutputColumn, Scope, TARGETS_MAX, Typed};
use crate::error::{SqlError, codes};
use crate::plan::{CommonTable, Expr, Plan, SetOperator, SortKey};
use crate::types::{SqlState, Type};
use sqlparser::ast::{self, SelectItem, SetExpr};
use std::sync::Arc;
use txn::api::Lock;
use txn::client::OnLock;

/// Whether a query's body changes rows.
fn is_change(body: &SetExpr) -> bool {
    matches!(body, SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_))
}

/// A select list's item, expanded.
pub(super) struct Item {
    pub(super) name: Arc<str>,
    pub(super) typed: Typed,
}

impl Binder<'_> {
    /// A query with its WITH, ORDER BY and LIMIT.
    pub(crate) fn query(&mut self, query: &ast::Query) -> Result<Bound, SqlError> {
        if is_change(&query.body) && !self.is_outermost {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "INSERT, UPDATE and DELETE cannot stand where a query is read",
            )
            .with_hint("Put it into a WITH at the beginning of the statement."));
        }
        self.query_with(query)
    }

    fn query_with(&mut self, query: &ast::Query) -> Result<Bound, SqlError> {
        self.deeper(|binder| {
            let before = binder.commons.len();
            let is_outermost = std::mem::replace(&mut binder.is_outermost, false);
            let mut tables = Vec::new();
            if let Some(with) = &query.with {
                for cte in &with.cte_tables {
                    if !is_outermost && is_change(&cte.query.body) {
                        return Err(SqlError::unsupported(
                            "WITH clause containing a data-modifying statement must be at the top level",
                        ));
                    }
                    tables.push(binder.common_table(cte, with.recursive)?);
                }
            }
            let bound = binder.query_body(query);
            binder.commons.truncate(before);
            let mut bound = bound?;
            if !tables.is_empty() {
                bound.plan = Plan::With { tables, input: Box::new(bound.plan) };
            }
            Ok(bound)
        })
    }

    fn query_body(&mut self, query: &ast::Query) -> Result<Bound, SqlError> {
        super::clauses::refuse_in_query(query)?;
        let order: &[ast::OrderByExpr] = match query.order_by.as_ref().map(|order| &order.kind) {
            None => &[],
            Some(ast::OrderByKind::Expressions(keys)) => keys,
            Some(ast::OrderByKind::All(_)) => {
                return Err(SqlError::unsupported("ORDER BY ALL is not supported"));
            }
        };
        let mut bound = match query.body.as_ref() {
            SetExpr::Select(select) => self.select_query(select, order)?,
            other => {
                let bound = self.set_expr(other)?;
                self.order_output(bound, order)?
            }
        };
        for lock in &query.locks {
            let strength = match lock.lock_type {
                ast::LockType::Share => Lock::Shared,
                ast::LockType::Update => Lock::Exclusive,
            };
            let on_lock = match lock.nonblock {
                None => OnLock::Wait,
                Some(ast::NonBlock::Nowait) => OnLock::Fail,
                Some(ast::NonBlock::SkipLocked) => OnLock::Skip,
            };
            lock_scans(&mut bound.plan, strength, on_lock);
        }
        self.limited(bound, query)
    }

    fn limited(&mut self, bound: Bound, query: &ast::Query) -> Result<Bound, SqlError> {
        let (mut limit, mut offset) = match &query.limit_clause {
            None => (None, None),
            Some(ast::LimitClause::LimitOffset { limit, offset, .. }) => {
                (limit.as_ref(), offset.as_ref().map(|offset| &offset.value))
            }
            Some(ast::LimitClause::OffsetCommaLimit { offset, limit }) => {
                (Some(limit), Some(offset))
            }
        };
        let one = ast::Expr::value(ast::Value::Number("1".into(), false));
        if let Some(fetch) = &query.fetch {
            if fetch.with_ties || fetch.percent {
                return Err(SqlError::unsupported("FETCH with ties or percent is not supported"));
            }
            limit = Some(fetch.quantity.as_ref().unwrap_or(&one));
        }
        // LIMIT ALL comes as a name.
        if matches!(limit, Some(ast::Expr::Identifier(ident)) if ident.value.eq_ignore_ascii_case("all"))
        {
            limit = None;
        }
        if let Some(ast::Expr::Value(value)) = offset
            && matches!(&value.value, ast::Value::Number(text, _) if text == "0")
        {
            offset = None;
        }
        if limit.is_none() && offset.is_none() {
            return Ok(bound);
        }
        let limit = limit.map(|limit| self.row_count(limit, "LIMIT")).transpose()?;
        let offset = offset.map(|offset| self.row_count(offset, "OFFSET")).transpose()?;
        Ok(Bound {
            plan: Plan::Limit { input: Box::new(bound.plan), limit, offset },
            columns: bound.columns,
        })
    }

    fn row_count(&mut self, ast: &ast::Expr, what: &str) -> Result<Expr, SqlError> {
        self.forbidding("LIMIT", |binder| {
            binder.in_scope(Scope::default(), |binder| {
                let typed = binder.expression(ast)?;
                Ok(binder.coerce_implicit(typed, Type::Int8, &format!("argument of {what}"))?.expr)
            })
        })
    }

    /// Binds something in which aggregates make no sense.
    pub(super) fn forbidding<T>(
        &mut self,
        place: &'static str,
        f: impl FnOnce(&mut Self) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        self.levels.push(Level { forbidden: Some(place), ..Level::default() });
        let result = f(self);
        self.levels.pop();
        result
    }

    fn common_table(
        &mut self,
        cte: &ast::Cte,
        recursive: bool,
    ) -> Result<(usize, Arc<CommonTable>), SqlError> {
        let id = self.next_common;
        self.next_common += 1;
        let name = crate::parse::name(&cte.alias.name);
        let aliases: Vec<String> =
            cte.alias.columns.iter().map(|column| crate::parse::name(&column.name)).collect();
        if recursive
            && let SetExpr::SetOperation {
                op: ast::SetOperator::Union,
                set_quantifier,
                left,
                right,
            } = cte.query.body.as_ref()
            && cte.query.with.is_none()
        {
            let all = matches!(set_quantifier, ast::SetQuantifier::All);
            let mut base = self.set_expr(left)?;
            rename(&mut base.columns, &aliases)?;
            for column in base.columns.iter_mut().filter(|column| column.ty == Type::Unknown) {
                column.ty = Type::Text;
            }
            self.commons.push(CommonName { name, id, columns: base.columns.clone() });
            let step = self.set_expr(right)?;
            let (step, wanted) = (self.as_columns(step, &base.columns)?, base.columns.len());
            if wanted != base.columns.len() {
                return Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    "each UNION query must have the same number of columns",
                ));
            }
            let table = CommonTable { plan: base.plan, recursive: Some((step, all)) };
            return Ok((id, Arc::new(table)));
        }
        let mut bound = self.query_with(&cte.query)?;
        rename(&mut bound.columns, &aliases)?;
        for column in bound.columns.iter_mut().filter(|column| column.ty == Type::Unknown) {
            column.ty = Type::Text;
        }
        self.commons.push(CommonName { name, id, columns: bound.columns });
        Ok((id, Arc::new(CommonTable { plan: bound.plan, recursive: None })))
    }

    /// Converts a query's columns to these types.
    fn as_columns(&mut self, bound: Bound, wanted: &[OutputColumn]) -> Result<Plan, SqlError> {
        if bound.columns.len() != wanted.len() {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "each UNION query must have the same number of columns",
            ));
        }
        let mut exprs = Vec::new();
        for (slot, (column, wanted)) in bound.columns.iter().zip(wanted).enumerate() {
            let typed = Typed { typmod: column.typmod, ..Typed::new(Expr::Slot(slot), column.ty) };
            exprs.push(self.coerce_implicit(typed, wanted.ty, "column")?.expr);
        }
        Ok(Plan::Project { input: Box::new(bound.plan), exprs })
    }

    fn set_expr(&mut self, body: &SetExpr) -> Result<Bound, SqlError> {
        match body {
            SetExpr::Select(select) => self.select_query(select, &[]),
            SetExpr::Query(query) => self.query(query),
            SetExpr::Values(values) => self.values(values),
            SetExpr::SetOperation { left, op, set_quantifier, right } => {
                self.set_operation(left, *op, *set_quantifier, right)
            }
            SetExpr::Insert(ast::Statement::Insert(insert)) => self.insert(insert),
            SetExpr::Update(ast::Statement::Update(update)) => self.update(update),
            SetExpr::Delete(ast::Statement::Delete(delete)) => self.delete(delete),
            SetExpr::Table(table) => {
                let name = table.table_name.clone().unwrap_or_default();
                let parsed = crate::parse::parse(&format!(
                    "SELECT * FROM \"{}\"",
                    name.replace('"', "\"\"")
                ))?;
                match parsed.first().map(|parsed| parsed.statement.as_ref()) {
                    Some(crate::parse::Statement::Sql(statement)) => match statement.as_ref() {
                        ast::Statement::Query(query) => self.query(query),
                        _ => Err(SqlError::internal("TABLE is not a query")),
                    },
                    _ => Err(SqlError::internal("TABLE is not a query")),
                }
            }
            other => Err(SqlError::unsupported(format!("{other} is not supported as a query"))),
        }
    }

    fn set_operation(
        &mut self,
        left: &SetExpr,
        op: ast::SetOperator,
        quantifier: ast::SetQuantifier,
        right: &SetExpr,
    ) -> Result<Bound, SqlError> {
        let (operator, word) = match op {
            ast::SetOperator::Union => (SetOperator::Union, "UNION"),
            ast::SetOperator::Except | ast::SetOperator::Minus => (SetOperator::Except, "EXCEPT"),
            ast::SetOperator::Intersect => (SetOperator::Intersect, "INTERSECT"),
        };
        let all = match quantifier {
            ast::SetQuantifier::All => true,
            ast::SetQuantifier::Distinct | ast::SetQuantifier::None => false,
            other => return Err(SqlError::unsupported(format!("{word} {other} is not supported"))),
        };
        let left = self.deeper(|binder| binder.set_expr(left))?;
        let right = self.deeper(|binder| binder.set_expr(right))?;
        if left.columns.len() != right.columns.len() {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("each {word} query must have the same number of columns"),
            ));
        }
        let mut columns = Vec::new();
        for (slot, (a, b)) in left.columns.iter().zip(&right.columns).enumerate() {
            let both = [Typed::new(Expr::Slot(slot), a.ty), Typed::new(Expr::Slot(slot), b.ty)];
            let open = both.iter().all(|typed| typed.ty == Type::Unknown);
            let ty = if open { Type::Text } else { self.common_type(&both, word)? };
            let typmod = if a.typmod == b.typmod { a.typmod } else { -1 };
            columns.push(OutputColumn { name: a.name.clone(), ty, typmod, origin: None });
        }
        let left = self.as_columns(left, &columns)?;
        let right = self.as_columns(right, &columns)?;
        Ok(Bound {
            plan: Plan::SetOperation {
                operator,
                all,
                left: Box::new(left),
                right: Box::new(right),
            },
            columns,
        })
    }

    fn values(&mut self, values: &ast::Values) -> Result<Bound, SqlError> {
        let rows = self.values_rows(values)?;
        let width = rows.first().map_or(0, Vec::len);
        let mut columns = Vec::new();
        let mut exprs: Vec<Vec<Expr>> = rows.iter().map(|_| Vec::with_capacity(width)).collect();
        for place in 0..width {
            let all: Vec<Typed> = rows.iter().map(|row| row[place].clone()).collect();
            let (converted, ty, typmod) = self.unify(all, "VALUES")?;
            for (row, expr) in exprs.iter_mut().zip(converted) {
                row.push(expr);
            }
            columns.push(OutputColumn {
                name: Arc::from(format!("column{}", place + 1)),
                ty,
                typmod,
                origin: None,
            });
        }
        Ok(Bound { plan: Plan::Values(exprs), columns })
    }

    /// Rows of VALUES, not yet of one type.
    pub(super) fn values_rows(
        &mut self,
        values: &ast::Values,
    ) -> Result<Vec<Vec<Typed>>, SqlError> {
        let width = values.rows.first().map_or(0, |row| row.len());
        self.forbidding("VALUES", |binder| {
            binder.in_scope(Scope::default(), |binder| {
                let mut rows = Vec::with_capacity(values.rows.len());
                for row in &values.rows {
                    if row.len() != width {
                        return Err(SqlError::new(
                            SqlState::SYNTAX_ERROR,
                            "VALUES lists must all be the same length",
                        ));
                    }
                    let mut typed = Vec::with_capacity(width);
                    for expr in row.iter() {
                        typed.push(binder.expression(expr)?);
                    }
                    rows.push(typed);
                }
                Ok(rows)
            })
        })
    }

    /// ORDER BY of a query that is no SELECT: over its output.
    fn order_output(
        &mut self,
        bound: Bound,
        order: &[ast::OrderByExpr],
    ) -> Result<Bound, SqlError> {
        if order.is_empty() {
            return Ok(bound);
        }
        let scope = Scope::of(None, &bound.columns);
        let keys = self.forbidding("ORDER BY", |binder| {
            binder.in_scope(scope, |binder| {
                let mut keys = Vec::new();
                for key in order {
                    let expr = match ordinal(&key.expr, bound.columns.len())? {
                        Some(slot) => Expr::Slot(slot),
                        None => binder.value(&key.expr)?.expr,
                    };
                    keys.push(sort_key_of(expr, key)?);
                }
                Ok(keys)
            })
        })?;
        Ok(Bound { plan: Plan::Sort { input: Box::new(bound.plan), keys }, columns: bound.columns })
    }

    fn select_query(
        &mut self,
        select: &ast::Select,
        order: &[ast::OrderByExpr],
    ) -> Result<Bound, SqlError> {
        super::clauses::refuse_in_select(select)?;
        let (plan, scope) = self.bind_from(&select.from)?;
        self.scopes.push(scope);
        self.levels.push(Level::default());
        let result = self.select_over(select, order, plan);
        self.levels.pop();
        self.scopes.pop();
        result
    }

    fn select_over(
        &mut self,
        select: &ast::Select,
        order: &[ast::OrderByExpr],
        mut plan: Plan,
    ) -> Result<Bound, SqlError> {
        if let Some(selection) = &select.selection {
            let predicate = self.without_aggregates("WHERE", |binder| {
                let typed = binder.expression(selection)?;
                binder.condition(typed, "WHERE")
            })?;
            plan = Plan::Filter { input: Box::new(plan), predicate };
        }
        let mut items = self.items(&select.projection)?;
        let keys = self.group_keys(&select.group_by, &items)?;
        let mut having = match &select.having {
            Some(having) => {
                let typed = self.expression(having)?;
                Some(self.condition(typed, "HAVING")?)
            }
            None => None,
        };
        let mut sort = self.sort_keys(order, &items)?;
        let mut distinct_on = match &select.distinct {
            Some(ast::Distinct::On(exprs)) => {
                let mut on = Vec::new();
                for expr in exprs {
                    on.push(self.item_or_expression(expr, &items)?);
                }
                Some(on)
            }
            _ => None,
        };
        let level = std::mem::take(self.levels.last_mut().expect("pushed by the caller"));
        let mut stage = super::group::Stage {
            level,
            exprs: items.iter_mut().map(|item| &mut item.typed.expr).collect(),
            having: having.as_mut(),
        };
        stage.exprs.extend(sort.iter_mut().map(|key| &mut key.expr));
        stage.exprs.extend(distinct_on.iter_mut().flatten());
        plan = self.aggregate_stage(plan, stage, keys)?;
        self.output(
            plan,
            items,
            sort,
            distinct_on,
            matches!(select.distinct, Some(ast::Distinct::Distinct)),
        )
    }

    /// Project, Distinct, Sort, and away with what only the sort needed.
    fn output(
        &mut self,
        plan: Plan,
        items: Vec<Item>,
        sort: Vec<SortKey>,
        distinct_on: Option<Vec<Expr>>,
        distinct: bool,
    ) -> Result<Bound, SqlError> {
        if items.len() > TARGETS_MAX {
            return Err(SqlError::new(
                codes::TOO_MANY_COLUMNS,
                format!("target lists can have at most {TARGETS_MAX} entries"),
            ));
        }
        let width = items.len();
        let mut exprs: Vec<Expr> = items.iter().map(|item| item.typed.expr.clone()).collect();
        let mut slot_of = |expr: Expr| {
            exprs.iter().position(|known| *known == expr).unwrap_or_else(|| {
                exprs.push(expr);
                exprs.len() - 1
            })
        };
        let keys: Vec<SortKey> = sort
            .into_iter()
            .map(|key| SortKey { expr: Expr::Slot(slot_of(key.expr)), ..key })
            .collect();
        let on: Option<Vec<Expr>> =
            distinct_on.map(|on| on.into_iter().map(|expr| Expr::Slot(slot_of(expr))).collect());
        if distinct && exprs.len() > width {
            return Err(SqlError::new(
                codes::INVALID_COLUMN_REFERENCE,
                "for SELECT DISTINCT, ORDER BY expressions must appear in select list",
            ));
        }
        let extended = exprs.len() > width;
        let mut plan = Plan::Project { input: Box::new(plan), exprs };
        if distinct {
            plan = Plan::Distinct { input: Box::new(plan), keys: None };
        }
        if !keys.is_empty() {
            plan = Plan::Sort { input: Box::new(plan), keys };
        }
        if let Some(on) = on {
            plan = Plan::Distinct { input: Box::new(plan), keys: Some(on) };
        }
        if extended {
            plan = Plan::Project {
                input: Box::new(plan),
                exprs: (0..width).map(Expr::Slot).collect(),
            };
        }
        let columns = items.into_iter().map(|item| OutputColumn {
            name: item.name,
            ty: item.typed.ty,
            typmod: item.typed.typmod,
            origin: item.typed.origin,
        });
        Ok(Bound { plan, columns: columns.collect() })
    }

    /// Binds with aggregates refused, in the current level.
    pub(super) fn without_aggregates<T>(
        &mut self,
        place: &'static str,
        f: impl FnOnce(&mut Self) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let level = self.levels.last_mut().expect("inside of a query");
        let before = level.forbidden.replace(place);
        let result = f(self);
        self.levels.last_mut().expect("inside of a query").forbidden = before;
        result
    }

    /// The select list, `*` expanded.
    pub(super) fn items(&mut self, projection: &[SelectItem]) -> Result<Vec<Item>, SqlError> {
        let mut items = Vec::new();
        for item in projection {
            match item {
                SelectItem::UnnamedExpr(expr) => {
                    if let Some(expanded) = self.record_star(expr)? {
                        items.extend(expanded);
                        continue;
                    }
                    let typed = self.expression(expr)?;
                    items.push(Item { name: Arc::from(output_name(expr)), typed });
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    let typed = self.expression(expr)?;
                    items.push(Item { name: Arc::from(crate::parse::name(alias)), typed });
                }
                SelectItem::Wildcard(_) => {
                    let scope = self.scopes.last().expect("inside of a query");
                    if scope.columns.is_empty() {
                        return Err(SqlError::new(
                            SqlState::SYNTAX_ERROR,
                            "SELECT * with no tables specified is not valid",
                        ));
                    }
                    let slots = scope.star(None);
                    items.extend(slots.into_iter().map(|slot| self.star_item(slot)));
                }
                SelectItem::QualifiedWildcard(kind, _) => {
                    let ast::SelectItemQualifiedWildcardKind::ObjectName(name) = kind else {
                        return Err(SqlError::unsupported(format!("{item} is not supported")));
                    };
                    let parts = super::name_parts(name)?;
                    let relation = parts.last().expect("a name has a part");
                    let scope = self.scopes.last().expect("inside of a query");
                    if !scope.has_relation(relation) {
                        return Err(SqlError::new(
                            SqlState::UNDEFINED_TABLE,
                            format!("missing FROM-clause entry for table \"{relation}\""),
                        )
                        .at(self.position(super::name_span(name))));
                    }
                    let slots = scope.star(Some(relation));
                    items.extend(slots.into_iter().map(|slot| self.star_item(slot)));
                }
                other => return Err(SqlError::unsupported(format!("{other} is not supported"))),
            }
        }
        Ok(items)
    }

    fn star_item(&self, slot: usize) -> Item {
        let scope = self.scopes.last().expect("inside of a query");
        Item { name: scope.columns[slot].name.clone(), typed: scope.typed(slot) }
    }

    fn sort_keys(
        &mut self,
        order: &[ast::OrderByExpr],
        items: &[Item],
    ) -> Result<Vec<SortKey>, SqlError> {
        let mut keys = Vec::new();
        for key in order {
            let expr = self.item_or_expression(&key.expr, items)?;
            keys.push(sort_key_of(expr, key)?);
        }
        Ok(keys)
    }

    /// An ordinal, an output column's name, or an expression over the input.
    fn item_or_expression(&mut self, ast: &ast::Expr, items: &[Item]) -> Result<Expr, SqlError> {
        if let Some(place) = ordinal(ast, items.len())? {
            return Ok(items[place].typed.expr.clone());
        }
        if let ast::Expr::Identifier(ident) = ast {
            let name = crate::parse::name(ident);
            let mut found = items.iter().filter(|item| *item.name == *name);
            if let Some(first) = found.next() {
                if found.any(|other| other.typed.expr != first.typed.expr) {
                    return Err(SqlError::new(
                        codes::AMBIGUOUS_COLUMN,
                        format!("ORDER BY \"{name}\" is ambiguous"),
                    )
                    .at(self.position(ident.span)));
                }
                return Ok(first.typed.expr.clone());
            }
        }
        Ok(self.value(ast)?.expr)
    }

    fn group_keys(
        &mut self,
        group_by: &ast::GroupByExpr,
        items: &[Item],
    ) -> Result<Option<Vec<Expr>>, SqlError> {
        let exprs = match group_by {
            ast::GroupByExpr::Expressions(exprs, modifiers) if modifiers.is_empty() => exprs,
            _ => return Err(SqlError::unsupported("this form of GROUP BY is not supported")),
        };
        if exprs.is_empty() {
            return Ok(None);
        }
        let mut keys = Vec::new();
        for ast in exprs {
            if matches!(ast, ast::Expr::GroupingSets(_) | ast::Expr::Cube(_) | ast::Expr::Rollup(_))
            {
                return Err(SqlError::unsupported(
                    "GROUPING SETS, CUBE and ROLLUP are not supported",
                ));
            }
            let key = self.without_aggregates("GROUP BY", |binder| {
                if let Some(place) = ordinal(ast, items.len())? {
                    return Ok(items[place].typed.expr.clone());
                }
                // An input column wins over an output name.
                match binder.value(ast) {
                    Ok(typed) => Ok(typed.expr),
                    Err(error) => match ast {
                        ast::Expr::Identifier(ident) => {
                            let name = crate::parse::name(ident);
                            items
                                .iter()
                                .find(|item| *item.name == *name)
                                .map(|item| item.typed.expr.clone())
                                .ok_or(error)
                        }
                        _ => Err(error),
                    },
                }
            })?;
            if key.any(&|expr| matches!(expr, Expr::Placeholder(_))) {
                return Err(SqlError::new(
                    codes::GROUPING_ERROR,
                    "aggregate functions are not allowed in GROUP BY",
                ));
            }
            keys.push(key);
        }
        Ok(Some(keys))
    }
}

/// `ORDER BY 2`: the place, from 0.
fn ordinal(ast: &ast::Expr, count: usize) -> Result<Option<usize>, SqlError> {
    let ast::Expr::Value(ast::ValueWithSpan { value: ast::Value::Number(text, _), .. }) = ast
    else {
        return Ok(None);
    };
    match text.parse::<usize>() {
        Ok(place) if (1..=count).contains(&place) => Ok(Some(place - 1)),
        _ => Err(SqlError::new(
            codes::INVALID_COLUMN_REFERENCE,
            format!("position {text} is not in select list"),
        )),
    }
}

/// The name that PostgreSQL gives to an expression without an alias.
pub(super) fn output_name(ast: &ast::Expr) -> String {
    named(ast).0
}

/// Its name, and whether that is only a type's or a word's: a cast around it then gives its own.
fn named(ast: &ast::Expr) -> (String, bool) {
    let type_name = |ty: &ast::DataType| match super::data_type(ty) {
        Ok((ty, _)) => ty.internal_name().trim_start_matches('_').to_string(),
        Err(_) => "?column?".to_string(),
    };
    match ast {
        ast::Expr::Nested(inner) | ast::Expr::Collate { expr: inner, .. } => named(inner),
        ast::Expr::Cast { expr, data_type, .. } => match named(expr) {
            (name, false) if name != "?column?" => (name, false),
            _ => (type_name(data_type), true),
        },
        ast::Expr::TypedString(typed) => (type_name(&typed.data_type), true),
        ast::Expr::Interval(_) => ("interval".to_string(), true),
        ast::Expr::Value(value) if matches!(value.value, ast::Value::Boolean(_)) => {
            ("bool".to_string(), true)
        }
        ast::Expr::Case { else_result, .. } => match else_result.as_deref().map(named) {
            Some((name, false)) if name != "?column?" => (name, false),
            _ => ("case".to_string(), true),
        },
        other => (own_name(other), false),
    }
}

fn own_name(ast: &ast::Expr) -> String {
    match ast {
        ast::Expr::Identifier(ident) => crate::parse::name(ident),
        ast::Expr::CompoundIdentifier(parts) => {
            parts.last().map(crate::parse::name).unwrap_or_default()
        }
        ast::Expr::Function(function) => function
            .name
            .0
            .last()
            .and_then(|part| part.as_ident())
            .map(crate::parse::name)
            .unwrap_or_default(),
        ast::Expr::Exists { negated: false, .. } => "exists".to_string(),
        ast::Expr::Extract { .. } => "extract".to_string(),
        ast::Expr::Position { .. } => "position".to_string(),
        ast::Expr::Substring { .. } => "substring".to_string(),
        ast::Expr::Overlay { .. } => "overlay".to_string(),
        ast::Expr::Ceil { .. } => "ceil".to_string(),
        ast::Expr::Floor { .. } => "floor".to_string(),
        ast::Expr::AtTimeZone { .. } => "timezone".to_string(),
        ast::Expr::Trim { trim_where, .. } => match trim_where {
            Some(ast::TrimWhereField::Leading) => "ltrim".to_string(),
            Some(ast::TrimWhereField::Trailing) => "rtrim".to_string(),
            _ => "btrim".to_string(),
        },
        ast::Expr::Array(_) => "array".to_string(),
        ast::Expr::Tuple(_) => "row".to_string(),
        ast::Expr::Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => match select.projection.first() {
                Some(SelectItem::UnnamedExpr(expr)) => output_name(expr),
                Some(SelectItem::ExprWithAlias { alias, .. }) => crate::parse::name(alias),
                _ => "?column?".to_string(),
            },
            _ => "?column?".to_string(),
        },
        ast::Expr::CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|access| match access {
                ast::AccessExpr::Dot(ast::Expr::Identifier(ident)) => {
                    Some(crate::parse::name(ident))
                }
                _ => None,
            });
            field.unwrap_or_else(|| output_name(root))
        }
        _ => "?column?".to_string(),
    }
}

fn rename(columns: &mut [OutputColumn], aliases: &[String]) -> Result<(), SqlError> {
    if aliases.len() > columns.len() {
        return Err(SqlError::new(
            codes::INVALID_COLUMN_REFERENCE,
            format!(
                "WITH query has {} columns available but {} columns specified",
                columns.len(),
                aliases.len()
            ),
        ));
    }
    for (column, alias) in columns.iter_mut().zip(aliases) {
        column.name = Arc::from(alias.as_str());
    }
    Ok(())
}

/// FOR UPDATE: the tables of this query level lock what they read. Those of aggregates and set operations cannot.
fn lock_scans(plan: &mut Plan, lock: Lock, on_lock: OnLock) {
    match plan {
        Plan::Scan(scan) => {
            scan.lock = Some(lock);
            scan.on_lock = on_lock;
        }
        Plan::Filter { input, .. }
        | Plan::Project { input, .. }
        | Plan::ProjectSet { input, .. }
        | Plan::Sort { input, .. }
        | Plan::Limit { input, .. }
        | Plan::With { input, .. } => lock_scans(input, lock, on_lock),
        Plan::Join(join) => {
            lock_scans(&mut join.left, lock, on_lock);
            lock_scans(&mut join.right, lock, on_lock);
        }
        Plan::Values(_)
        | Plan::Virtual(_)
        | Plan::Function(_)
        | Plan::Aggregate { .. }
        | Plan::Window { .. }
        | Plan::Distinct { .. }
        | Plan::SetOperation { .. }
        | Plan::Common(_)
        | Plan::Insert(_)
        | Plan::Update(_)
        | Plan::Delete(_) => {}
    }
}
