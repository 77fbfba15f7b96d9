//! Value: binding of FROM.
//!
//! Tables are joined left to right, as written. What may refer to its left neighbours (LATERAL, functions) is bound with their
//! scope as outer row number 1, and run for each of their rows.

use super::{Binder, FROM_ITEMS_MAX, OutputColumn, Scope, ScopeColumn, scope::Visibility};
use crate::catalog::{Relation, TableDescriptor};
use crate::error::{SqlError, codes};
use crate::plan::{
    Access, Comparison, Expr, FunctionScan, Join, JoinKind, JoinMethod, Plan, Scan, VirtualScan,
};
use crate::types::{SqlState, Type};
use sqlparser::ast::{self, JoinConstraint, JoinOperator, TableFactor};
use std::sync::Arc;
use txn::client::OnLock;

/// Views within views.
const VIEW_DEPTH_MAX: usize = 32;

impl Binder<'_> {
    /// A FROM clause: its rows and what can be named.
    pub(super) fn bind_from(
        &mut self,
        from: &[ast::TableWithJoins],
    ) -> Result<(Plan, Scope), SqlError> {
        let mut result: Option<(Plan, Scope)> = None;
        for item in from {
            result = Some(match result {
                None => self.joins(item)?,
                Some((left, scope)) => {
                    let (right, right_scope, lateral) =
                        self.right_side(&scope, |binder| binder.joins(item), is_lateral(item))?;
                    check_aliases(&scope, &right_scope)?;
                    cross(left, scope, right, right_scope, lateral)
                }
            });
        }
        Ok(result.unwrap_or_else(|| (Plan::unit(), Scope::default())))
    }

    /// Binds what stands right of others: lateral things see them as their outer row.
    fn right_side(
        &mut self,
        left: &Scope,
        f: impl FnOnce(&mut Self) -> Result<(Plan, Scope), SqlError>,
        lateral: bool,
    ) -> Result<(Plan, Scope, bool), SqlError> {
        if !lateral {
            let (plan, scope) = f(self)?;
            return Ok((plan, scope, false));
        }
        let (plan, scope) = self.in_scope(left.clone(), f)?;
        Ok((plan, scope, true))
    }

    fn joins(&mut self, item: &ast::TableWithJoins) -> Result<(Plan, Scope), SqlError> {
        let (mut plan, mut scope) = self.factor(&item.relation)?;
        for join in &item.joins {
            let lateral = is_lateral_factor(&join.relation);
            let (right, right_scope, lateral) =
                self.right_side(&scope, |binder| binder.factor(&join.relation), lateral)?;
            check_aliases(&scope, &right_scope)?;
            (plan, scope) = self.join(plan, scope, right, right_scope, lateral, join)?;
        }
        Ok((plan, scope))
    }

    fn join(
        &mut self,
        left: Plan,
        left_scope: Scope,
        right: Plan,
        right_scope: Scope,
        lateral: bool,
        join: &ast::Join,
    ) -> Result<(Plan, Scope), SqlError> {
        let (kind, constraint) = match &join.join_operator {
            JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => {
                (JoinKind::Inner, constraint)
            }
            JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => {
                (JoinKind::Left, constraint)
            }
            JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => {
                (JoinKind::Right, constraint)
            }
            JoinOperator::FullOuter(constraint) => (JoinKind::Full, constraint),
            JoinOperator::CrossJoin(_) => {
                return Ok(cross(left, left_scope, right, right_scope, lateral));
            }
            _ => {
                let join = join.to_string();
                return Err(SqlError::unsupported(format!("{} is not supported", join.trim())));
            }
        };
        if lateral && kind.keeps_right() {
            return Err(SqlError::new(
                codes::INVALID_COLUMN_REFERENCE,
                "invalid reference to FROM-clause entry",
            )
            .with_detail(
                "The combining JOIN type must be INNER or LEFT for a LATERAL reference.",
            ));
        }
        let (left_width, right_width) = (left_scope.width(), right_scope.width());
        let names = match constraint {
            JoinConstraint::Using(names) => {
                let parts = names.iter().map(|name| {
                    super::name_parts(name).map(|parts| parts.last().cloned().unwrap_or_default())
                });
                Some(parts.collect::<Result<Vec<String>, SqlError>>()?)
            }
            JoinConstraint::Natural => Some(common_names(&left_scope, &right_scope)),
            JoinConstraint::On(_) | JoinConstraint::None => None,
        };
        let mut scope = left_scope.join(right_scope);
        let mut merged = Vec::new();
        let on = match (constraint, names) {
            (JoinConstraint::On(condition), _) => self.on_condition(&scope, condition)?,
            (_, Some(names)) => {
                let mut conditions = Vec::new();
                for name in names {
                    let (a, b) = using_slots(&scope, left_width, &name)?;
                    conditions.push(self.in_scope(scope.clone(), |binder| {
                        let (a, b) = (binder.scopes_top(a), binder.scopes_top(b));
                        Ok(binder.compare(Comparison::Eq, a, b)?.expr)
                    })?);
                    merged.push((a, b));
                }
                Some(Expr::and(conditions))
            }
            (_, None) => None,
        };
        let order = scope.star(None);
        for (a, b) in &merged {
            let hidden = if kind == JoinKind::Right { *a } else { *b };
            scope.columns[hidden].visibility = Visibility::Qualified;
        }
        if !merged.is_empty() {
            let shown = |(a, b): &(usize, usize)| if kind == JoinKind::Right { *b } else { *a };
            let shared: Vec<usize> = merged.iter().map(shown).collect();
            scope.first = shared.iter().copied().chain(rest_of(&order, &merged)).collect();
        }
        let mut plan = Plan::Join(Box::new(Join {
            left,
            right,
            kind,
            on,
            left_width,
            right_width,
            lateral,
            method: JoinMethod::Loop,
        }));
        if kind == JoinKind::Full && !merged.is_empty() {
            (plan, scope) = merge_full(plan, scope, &merged);
        }
        Ok((plan, scope))
    }

    fn scopes_top(&self, slot: usize) -> super::Typed {
        self.scopes.last().expect("pushed by the caller").typed(slot)
    }

    fn on_condition(
        &mut self,
        scope: &Scope,
        condition: &ast::Expr,
    ) -> Result<Option<Expr>, SqlError> {
        self.forbidding("JOIN conditions", |binder| {
            binder.in_scope(scope.clone(), |binder| {
                let typed = binder.expression(condition)?;
                binder.condition(typed, "JOIN/ON").map(Some)
            })
        })
    }

    fn factor(&mut self, factor: &TableFactor) -> Result<(Plan, Scope), SqlError> {
        self.from_items += 1;
        if self.from_items > FROM_ITEMS_MAX {
            return Err(SqlError::new(
                SqlState::STATEMENT_TOO_COMPLEX,
                format!("a statement may name up to {FROM_ITEMS_MAX} tables, its views' included"),
            ));
        }
        super::clauses::refuse_in_factor(factor)?;
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => self.named(name, alias.as_ref()),
            TableFactor::Table { name, alias, args: Some(args), with_ordinality, .. } => {
                self.function_factor(name, &args.args, *with_ordinality, alias.as_ref())
            }
            TableFactor::Function { name, args, with_ordinality, alias, .. } => {
                self.function_factor(name, args, *with_ordinality, alias.as_ref())
            }
            TableFactor::UNNEST { alias, array_exprs, with_ordinality, .. } => {
                self.unnest_factor(array_exprs, *with_ordinality, alias.as_ref())
            }
            TableFactor::TableFunction { expr: ast::Expr::Function(function), alias } => {
                let ast::FunctionArguments::List(list) = &function.args else {
                    return Err(SqlError::unsupported("this function in FROM is not supported"));
                };
                self.function_factor(&function.name, &list.args, false, alias.as_ref())
            }
            TableFactor::Derived { subquery, alias, .. } => {
                let bound = self.query(subquery)?;
                let mut columns = bound.columns;
                for column in columns.iter_mut().filter(|column| column.ty == Type::Unknown) {
                    column.ty = Type::Text;
                }
                let scope = aliased(alias.as_ref(), None, columns)?;
                Ok((bound.plan, scope))
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                self.joins(table_with_joins)
            }
            other => Err(SqlError::unsupported(format!("{other} in FROM is not supported"))),
        }
    }

    fn named(
        &mut self,
        name: &ast::ObjectName,
        alias: Option<&ast::TableAlias>,
    ) -> Result<(Plan, Scope), SqlError> {
        let parts = super::name_parts(name)?;
        let own = parts.last().expect("a name has a part").clone();
        if let [only] = parts.as_slice()
            && let Some(common) =
                self.commons.iter().rev().find(|common| common.name == *only).cloned()
        {
            let scope = aliased(alias, Some(&own), common.columns)?;
            return Ok((Plan::Common(common.id), scope));
        }
        // The system catalogs come first on every search path.
        if let Some(table) = crate::pg_catalog::find(&parts) {
            let columns =
                table.columns.iter().enumerate().map(|(place, (name, ty))| OutputColumn {
                    name: Arc::from(*name),
                    ty: *ty,
                    typmod: -1,
                    origin: Some((table.oid, i16::try_from(place + 1).unwrap_or(0))),
                });
            let scope = aliased(alias, Some(&own), columns.collect())?;
            return Ok((Plan::Virtual(VirtualScan { table, equals: None }), scope));
        }
        if parts.len() == 1 && !self.foreign {
            self.unqualified.insert(super::name_span(name).start);
        }
        match self.relation(name)? {
            Relation::Table(table) => table_scan(table, alias),
            Relation::View(view) => {
                let (plan, columns) = self.view(&view.query, &view.columns)?;
                Ok((plan, aliased(alias, Some(&own), columns)?))
            }
            Relation::Sequence(sequence) => Err(SqlError::unsupported(format!(
                "reading sequence \"{}\" as a table is not supported",
                sequence.name
            ))),
            Relation::Index(..) => {
                Err(SqlError::new(codes::WRONG_OBJECT_TYPE, format!("\"{own}\" is an index")))
            }
        }
    }

    /// A view's query, bound as if it stood alone.
    fn view(
        &mut self,
        query: &str,
        names: &[(String, String)],
    ) -> Result<(Plan, Vec<OutputColumn>), SqlError> {
        let parsed = crate::parse::parse(query)?;
        let Some(crate::parse::Statement::Sql(statement)) =
            parsed.first().map(|parsed| parsed.statement.as_ref())
        else {
            return Err(SqlError::internal("a view's query cannot be read"));
        };
        let ast::Statement::Query(query) = statement.as_ref() else {
            return Err(SqlError::internal("a view's query is no query"));
        };
        if self.depth >= VIEW_DEPTH_MAX * 4 {
            return Err(SqlError::new(
                SqlState::STATEMENT_TOO_COMPLEX,
                "views are nested too deeply",
            ));
        }
        let scopes = std::mem::take(&mut self.scopes);
        let commons = std::mem::take(&mut self.commons);
        let foreign = std::mem::replace(&mut self.foreign, true);
        let bound = self.query(query);
        (self.scopes, self.commons, self.foreign) = (scopes, commons, foreign);
        let mut bound = bound?;
        for (column, (name, _)) in bound.columns.iter_mut().zip(names) {
            column.name = Arc::from(name.as_str());
            column.origin = None;
            if column.ty == Type::Unknown {
                column.ty = Type::Text;
            }
        }
        Ok((bound.plan, bound.columns))
    }

    fn function_factor(
        &mut self,
        name: &ast::ObjectName,
        args: &[ast::FunctionArg],
        ordinality: bool,
        alias: Option<&ast::TableAlias>,
    ) -> Result<(Plan, Scope), SqlError> {
        let parts = super::name_parts(name)?;
        let own = parts.last().expect("a name has a part").clone();
        let mut exprs = Vec::new();
        for arg in args {
            match arg {
                ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => exprs.push(expr),
                other => {
                    return Err(SqlError::unsupported(format!(
                        "argument {other} is not supported"
                    )));
                }
            }
        }
        let position = self.position(super::name_span(name));
        let (calls, mut columns) = self.forbidding("functions in FROM", |binder| {
            binder.in_scope(Scope::default(), |binder| {
                if own == "unnest" && exprs.len() > 1 {
                    return binder.unnest_calls(&exprs);
                }
                match binder.set_call(&own, &exprs)? {
                    Some((call, columns)) => Ok((vec![call], columns)),
                    None => binder.scalar_call(&own, &exprs, position),
                }
            })
        })?;
        // A function of one column gives its column the alias, unless columns are named.
        if let [only] = columns.as_mut_slice()
            && let Some(alias) = alias
        {
            only.name = Arc::from(crate::parse::name(&alias.name));
        }
        self.function_scan(calls, columns, ordinality, alias, &own)
    }

    fn unnest_factor(
        &mut self,
        arrays: &[ast::Expr],
        ordinality: bool,
        alias: Option<&ast::TableAlias>,
    ) -> Result<(Plan, Scope), SqlError> {
        let exprs: Vec<&ast::Expr> = arrays.iter().collect();
        let (calls, mut columns) = self.forbidding("functions in FROM", |binder| {
            binder.in_scope(Scope::default(), |binder| binder.unnest_calls(&exprs))
        })?;
        if let [only] = columns.as_mut_slice()
            && let Some(alias) = alias
        {
            only.name = Arc::from(crate::parse::name(&alias.name));
        }
        self.function_scan(calls, columns, ordinality, alias, "unnest")
    }

    fn function_scan(
        &mut self,
        functions: Vec<crate::plan::SetCall>,
        mut columns: Vec<OutputColumn>,
        ordinality: bool,
        alias: Option<&ast::TableAlias>,
        name: &str,
    ) -> Result<(Plan, Scope), SqlError> {
        if ordinality {
            columns.push(OutputColumn {
                name: Arc::from("ordinality"),
                ty: Type::Int8,
                typmod: -1,
                origin: None,
            });
        }
        let scope = aliased(alias, Some(name), columns)?;
        Ok((Plan::Function(FunctionScan { functions, ordinality }), scope))
    }
}

/// Reading a whole table under a name.
pub(super) fn table_scan(
    table: Arc<TableDescriptor>,
    alias: Option<&ast::TableAlias>,
) -> Result<(Plan, Scope), SqlError> {
    let name = alias.map_or_else(|| table.name.clone(), |alias| crate::parse::name(&alias.name));
    let mut scope = Scope::table(&table, &name);
    if let Some(alias) = alias {
        let visible: Vec<usize> = scope.star(None);
        if alias.columns.len() > visible.len() {
            return Err(too_many_aliases(&name, visible.len(), alias.columns.len()));
        }
        for (slot, column) in visible.into_iter().zip(&alias.columns) {
            scope.columns[slot].name = Arc::from(crate::parse::name(&column.name));
        }
    }
    Ok((scan_of(table), scope))
}

/// Reading a whole table.
pub(super) fn scan_of(table: Arc<TableDescriptor>) -> Plan {
    Plan::Scan(Box::new(Scan {
        table,
        access: Access::default(),
        filter: None,
        lock: None,
        on_lock: OnLock::Wait,
        backward: false,
        limit: None,
    }))
}

fn too_many_aliases(name: &str, available: usize, given: usize) -> SqlError {
    SqlError::new(
        codes::INVALID_COLUMN_REFERENCE,
        format!("table \"{name}\" has {available} columns available but {given} columns specified"),
    )
}

fn aliased(
    alias: Option<&ast::TableAlias>,
    own: Option<&str>,
    mut columns: Vec<OutputColumn>,
) -> Result<Scope, SqlError> {
    let name =
        alias.map(|alias| crate::parse::name(&alias.name)).or_else(|| own.map(str::to_string));
    if let Some(alias) = alias {
        if alias.columns.len() > columns.len() {
            return Err(too_many_aliases(
                &crate::parse::name(&alias.name),
                columns.len(),
                alias.columns.len(),
            ));
        }
        for (column, alias) in columns.iter_mut().zip(&alias.columns) {
            column.name = Arc::from(crate::parse::name(&alias.name));
        }
    }
    Ok(Scope::of(name.map(Arc::from), &columns))
}

fn cross(
    left: Plan,
    left_scope: Scope,
    right: Plan,
    right_scope: Scope,
    lateral: bool,
) -> (Plan, Scope) {
    let join = Join {
        left_width: left_scope.width(),
        right_width: right_scope.width(),
        left,
        right,
        kind: JoinKind::Inner,
        on: None,
        lateral,
        method: JoinMethod::Loop,
    };
    (Plan::Join(Box::new(join)), left_scope.join(right_scope))
}

fn check_aliases(left: &Scope, right: &Scope) -> Result<(), SqlError> {
    let twice = right
        .columns
        .iter()
        .filter_map(|column| column.relation.as_deref())
        .find(|relation| left.has_relation(relation));
    match twice {
        Some(relation) => Err(SqlError::new(
            codes::DUPLICATE_ALIAS,
            format!("table name \"{relation}\" specified more than once"),
        )),
        None => Ok(()),
    }
}

fn common_names(left: &Scope, right: &Scope) -> Vec<String> {
    let visible = |column: &&ScopeColumn| column.visibility == Visibility::Full;
    let names = left.star(None).into_iter().map(|slot| &left.columns[slot].name);
    names
        .filter(|name| right.columns.iter().filter(visible).any(|column| column.name == **name))
        .map(ToString::to_string)
        .collect()
}

/// Slots of a USING column on both sides.
fn using_slots(scope: &Scope, left_width: usize, name: &str) -> Result<(usize, usize), SqlError> {
    let in_side = |from: usize, to: usize, side: &str| {
        let mut found = None;
        for slot in from..to {
            let column = &scope.columns[slot];
            if column.visibility == Visibility::Full && *column.name == *name {
                if found.is_some() {
                    return Err(SqlError::new(
                        codes::AMBIGUOUS_COLUMN,
                        format!(
                            "common column name \"{name}\" appears more than once in {side} table"
                        ),
                    ));
                }
                found = Some(slot);
            }
        }
        found.ok_or_else(|| {
            SqlError::new(
                codes::UNDEFINED_COLUMN,
                format!(
                    "column \"{name}\" specified in USING clause does not exist in {side} table"
                ),
            )
        })
    };
    Ok((in_side(0, left_width, "left")?, in_side(left_width, scope.width(), "right")?))
}

/// What `*` shows after the merged columns.
fn rest_of<'a>(
    order: &'a [usize],
    merged: &'a [(usize, usize)],
) -> impl Iterator<Item = usize> + 'a {
    order.iter().copied().filter(|slot| !merged.iter().any(|(a, b)| a == slot || b == slot))
}

/// FULL JOIN USING: the merged column is whichever side is there.
fn merge_full(plan: Plan, mut scope: Scope, merged: &[(usize, usize)]) -> (Plan, Scope) {
    let mut exprs: Vec<Expr> = (0..scope.width()).map(Expr::Slot).collect();
    for (a, b) in merged {
        exprs.push(Expr::Coalesce(vec![Expr::Slot(*a), Expr::Slot(*b)]));
        let column = ScopeColumn {
            relation: None,
            visibility: Visibility::Full,
            origin: None,
            ..scope.columns[*a].clone()
        };
        scope.columns[*a].visibility = Visibility::Qualified;
        for first in scope.first.iter_mut().filter(|first| *first == a) {
            *first = scope.columns.len();
        }
        scope.columns.push(column);
    }
    (Plan::Project { input: Box::new(plan), exprs }, scope)
}

fn is_lateral(item: &ast::TableWithJoins) -> bool {
    is_lateral_factor(&item.relation)
}

fn is_lateral_factor(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Derived { lateral, .. } => *lateral,
        TableFactor::Table { args, .. } => args.is_some(),
        TableFactor::Function { .. }
        | TableFactor::UNNEST { .. }
        | TableFactor::TableFunction { .. } => true,
        _ => false,
    }
}
