//! Value: binding of INSERT, UPDATE and DELETE.

use super::from::table_scan;
use super::{Binder, Bound, OutputColumn, Scope, Typed, coerce_assignment};
use crate::catalog::{ForeignKeyAction, Identity, IndexKind, TableDescriptor};
use crate::error::{SqlError, codes};
use crate::plan::{
    Conflict, Delete, Expr, Insert, Join, JoinKind, JoinMethod, Plan, Reach, Target, Update,
};
use crate::types::{Datum, SqlState, Type};
use sqlparser::ast::{self, AssignmentTarget, SetExpr};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use txn::api::Lock;

impl Binder<'_> {
    /// INSERT.
    pub(super) fn insert(&mut self, insert: &ast::Insert) -> Result<Bound, SqlError> {
        super::clauses::refuse_in_insert(insert)?;
        self.is_outermost = false;
        let ast::TableObject::TableName(name) = &insert.table else {
            return Err(SqlError::unsupported("INSERT into this is not supported"));
        };
        let table = self.writable_table(name)?;
        let columns = self.insert_columns(&table, &insert.columns)?;
        let alias = insert
            .table_alias
            .as_ref()
            .map_or_else(|| table.name.clone(), |alias| crate::parse::name(&alias.alias));
        let source = match &insert.source {
            None => self.default_rows(&table)?,
            Some(query) => {
                self.insert_source(&table, &columns, !insert.columns.is_empty(), query)?
            }
        };
        let conflict = match &insert.on {
            None => None,
            Some(ast::OnInsert::OnConflict(conflict)) => {
                Some(self.on_conflict(&table, &alias, conflict)?)
            }
            Some(other) => return Err(SqlError::unsupported(format!("{other} is not supported"))),
        };
        let target = target_for(self, &table)?;
        let conflict = match conflict {
            Some(conflict) if conflict.update.is_some() => {
                Some(Conflict { reach: reach_of(self, &target)?, ..conflict })
            }
            other => other,
        };
        let (returning, columns) =
            self.returning(insert.returning.as_deref(), Scope::table(&table, &alias))?;
        let plan = Plan::Insert(Box::new(Insert { target, source, conflict, returning }));
        Ok(Bound { plan, columns })
    }

    fn insert_columns(
        &self,
        table: &TableDescriptor,
        names: &[ast::ObjectName],
    ) -> Result<Vec<usize>, SqlError> {
        if names.is_empty() {
            return Ok(table.visible().map(|(place, _)| place).collect());
        }
        let mut places = Vec::new();
        for name in names {
            let parts = super::name_parts(name)?;
            let column = parts.last().expect("a name has a part");
            let position = self.position(super::name_span(name));
            let place = self.column_place(table, column).map_err(|error| error.at(position))?;
            if places.contains(&place) {
                return Err(SqlError::new(
                    codes::DUPLICATE_COLUMN,
                    format!("column \"{column}\" specified more than once"),
                )
                .at(position));
            }
            places.push(place);
        }
        Ok(places)
    }

    fn column_place(&self, table: &TableDescriptor, name: &str) -> Result<usize, SqlError> {
        table.find(name).filter(|place| !table.columns[*place].hidden).ok_or_else(|| {
            SqlError::new(
                codes::UNDEFINED_COLUMN,
                format!("column \"{name}\" of relation \"{}\" does not exist", table.name),
            )
        })
    }

    /// A column's default, converted; NULL without one.
    pub(crate) fn default_of(
        &mut self,
        table: &TableDescriptor,
        place: usize,
    ) -> Result<Expr, SqlError> {
        let column = &table.columns[place];
        match &column.default {
            None if column.ty == Type::Counter => Ok(Expr::Const(Datum::Int8(0))),
            None => Ok(Expr::Const(Datum::Null)),
            Some(text) => {
                let typed = self.stored_expression(text, Scope::default())?;
                coerce_assignment(self, typed, column)
            }
        }
    }

    fn default_rows(&mut self, table: &TableDescriptor) -> Result<Plan, SqlError> {
        let mut row = Vec::new();
        for place in 0..table.columns.len() {
            row.push(self.default_of(table, place)?);
        }
        Ok(Plan::Values(vec![row]))
    }

    fn refuse_identity(&self, table: &TableDescriptor, place: usize) -> Result<(), SqlError> {
        let column = &table.columns[place];
        if column.identity == Some(Identity::Always) {
            return Err(SqlError::new(
                SqlState::new("428C9"),
                format!("cannot insert a non-DEFAULT value into column \"{}\"", column.name),
            )
            .with_detail(format!(
                "Column \"{}\" is an identity column defined as GENERATED ALWAYS.",
                column.name
            )));
        }
        Ok(())
    }

    /// Whole rows for the table from a query of some of its columns.
    fn insert_source(
        &mut self,
        table: &TableDescriptor,
        columns: &[usize],
        listed: bool,
        query: &ast::Query,
    ) -> Result<Plan, SqlError> {
        let plain = query.with.is_none()
            && query.order_by.is_none()
            && query.limit_clause.is_none()
            && query.fetch.is_none();
        if plain && let SetExpr::Values(values) = query.body.as_ref() {
            return self.insert_values(table, columns, listed, values);
        }
        let bound = self.query(query)?;
        check_width(columns.len(), bound.columns.len(), listed)?;
        let mut exprs = Vec::new();
        for place in 0..table.columns.len() {
            exprs.push(
                match columns.iter().take(bound.columns.len()).position(|column| *column == place) {
                    None => self.default_of(table, place)?,
                    Some(slot) => {
                        self.refuse_identity(table, place)?;
                        let column = &bound.columns[slot];
                        let typed = Typed {
                            typmod: column.typmod,
                            ..Typed::new(Expr::Slot(slot), column.ty)
                        };
                        coerce_assignment(self, typed, &table.columns[place])?
                    }
                },
            );
        }
        Ok(Plan::Project { input: Box::new(bound.plan), exprs })
    }

    fn insert_values(
        &mut self,
        table: &TableDescriptor,
        columns: &[usize],
        listed: bool,
        values: &ast::Values,
    ) -> Result<Plan, SqlError> {
        let width = values.rows.first().map_or(0, |row| row.len());
        let mut defaults = Vec::new();
        for place in 0..table.columns.len() {
            defaults.push(self.default_of(table, place)?);
        }
        let mut rows = Vec::with_capacity(values.rows.len());
        for row in &values.rows {
            if row.len() != width {
                return Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    "VALUES lists must all be the same length",
                ));
            }
            check_width(columns.len(), row.len(), listed)?;
            let mut exprs = defaults.clone();
            for (place, ast) in columns.iter().zip(row.iter()) {
                if is_default(ast) {
                    continue;
                }
                self.refuse_identity(table, *place)?;
                let typed = self.forbidding("VALUES", |binder| {
                    binder.in_scope(Scope::default(), |binder| binder.expression(ast))
                })?;
                exprs[*place] = coerce_assignment(self, typed, &table.columns[*place])?;
            }
            rows.push(exprs);
        }
        Ok(Plan::Values(rows))
    }

    fn on_conflict(
        &mut self,
        table: &Arc<TableDescriptor>,
        alias: &str,
        conflict: &ast::OnConflict,
    ) -> Result<Conflict, SqlError> {
        let index = match &conflict.conflict_target {
            None => None,
            Some(ast::ConflictTarget::Columns(names)) => {
                let mut places = Vec::new();
                for name in names {
                    places.push(
                        self.column_place(table, &crate::parse::name(name))
                            .map_err(|error| error.at(self.position(name.span)))?,
                    );
                }
                places.sort_unstable();
                places.dedup();
                let found = table.indexes.iter().find(|index| {
                    let mut key: Vec<usize> =
                        index.columns.iter().map(|column| column.column).collect();
                    key.sort_unstable();
                    index.kind != IndexKind::Plain && key == places
                });
                Some(found.map(|index| index.id).ok_or_else(|| {
                    SqlError::new(
                        codes::INVALID_COLUMN_REFERENCE,
                        "there is no unique or exclusion constraint matching the ON CONFLICT specification",
                    )
                })?)
            }
            Some(ast::ConflictTarget::OnConstraint(name)) => {
                let parts = super::name_parts(name)?;
                let wanted = parts.last().expect("a name has a part");
                let found = table
                    .indexes
                    .iter()
                    .find(|index| index.name == *wanted && index.kind != IndexKind::Plain);
                Some(found.map(|index| index.id).ok_or_else(|| {
                    SqlError::new(
                        SqlState::UNDEFINED_OBJECT,
                        format!(
                            "constraint \"{wanted}\" for table \"{}\" does not exist",
                            table.name
                        ),
                    )
                })?)
            }
        };
        let (update, filter) = match &conflict.action {
            ast::OnConflictAction::DoNothing => (None, None),
            ast::OnConflictAction::DoUpdate(update) => {
                if index.is_none() {
                    return Err(SqlError::new(
                        SqlState::SYNTAX_ERROR,
                        "ON CONFLICT DO UPDATE requires inference specification or constraint name",
                    ));
                }
                // Bare names mean the row that is there; the proposed one has to be named.
                let mut excluded = Scope::table(table, "excluded");
                for column in &mut excluded.columns {
                    if column.visibility == super::scope::Visibility::Full {
                        column.visibility = super::scope::Visibility::Qualified;
                    }
                }
                let scope = Scope::table(table, alias).join(excluded);
                let assignments = self.assignments(table, &update.assignments, scope.clone())?;
                let filter = match &update.selection {
                    None => None,
                    Some(selection) => Some(self.forbidding("WHERE", |binder| {
                        binder.in_scope(scope, |binder| {
                            let typed = binder.expression(selection)?;
                            binder.condition(typed, "WHERE")
                        })
                    })?),
                };
                (Some(assignments), filter)
            }
        };
        Ok(Conflict { index, update, filter, reach: Reach::default() })
    }

    /// SET clauses over a scope.
    fn assignments(
        &mut self,
        table: &TableDescriptor,
        assignments: &[ast::Assignment],
        scope: Scope,
    ) -> Result<Vec<(usize, Expr)>, SqlError> {
        self.forbidding("UPDATE", |binder| {
            binder.in_scope(scope, |binder| {
                let mut result: Vec<(usize, Expr)> = Vec::new();
                for assignment in assignments {
                    match &assignment.target {
                        AssignmentTarget::ColumnName(name) => {
                            binder.assign(table, name, &assignment.value, &mut result)?
                        }
                        AssignmentTarget::Tuple(names) => {
                            let values: &[ast::Expr] = match &assignment.value {
                                ast::Expr::Tuple(values) => values,
                                other => std::slice::from_ref(other),
                            };
                            if values.len() != names.len() {
                                return Err(SqlError::unsupported(
                                    "this form of multi-column assignment is not supported",
                                ));
                            }
                            for (name, value) in names.iter().zip(values) {
                                binder.assign(table, name, value, &mut result)?;
                            }
                        }
                    }
                }
                Ok(result)
            })
        })
    }

    fn assign(
        &mut self,
        table: &TableDescriptor,
        name: &ast::ObjectName,
        value: &ast::Expr,
        result: &mut Vec<(usize, Expr)>,
    ) -> Result<(), SqlError> {
        let parts = super::name_parts(name)?;
        let position = self.position(super::name_span(name));
        let place = self
            .column_place(table, parts.last().expect("a name has a part"))
            .map_err(|error| error.at(position))?;
        let column = &table.columns[place];
        if result.iter().any(|(known, _)| *known == place) {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("multiple assignments to same column \"{}\"", column.name),
            )
            .at(position));
        }
        let expr = if is_default(value) {
            self.default_of(table, place)?
        } else {
            if column.identity == Some(Identity::Always) {
                return Err(SqlError::new(
                    SqlState::new("428C9"),
                    format!("column \"{}\" can only be updated to DEFAULT", column.name),
                ));
            }
            let typed = self.expression(value)?;
            coerce_assignment(self, typed, column)?
        };
        result.push((place, expr));
        Ok(())
    }

    /// UPDATE.
    pub(super) fn update(&mut self, update: &ast::Update) -> Result<Bound, SqlError> {
        super::clauses::refuse_in_update(update)?;
        self.is_outermost = false;
        if !update.table.joins.is_empty() || update.limit.is_some() || !update.order_by.is_empty() {
            return Err(SqlError::unsupported("this form of UPDATE is not supported"));
        }
        let from: &[ast::TableWithJoins] = match &update.from {
            None => &[],
            Some(ast::UpdateTableFromKind::AfterSet(from)) => from,
            Some(ast::UpdateTableFromKind::BeforeSet(_)) => {
                return Err(SqlError::unsupported("FROM before SET is not supported"));
            }
        };
        let (table, source, scope) =
            self.modified_rows(&update.table.relation, from, update.selection.as_ref())?;
        let assignments = self.assignments(&table, &update.assignments, scope.clone())?;
        let target = target_for(self, &table)?;
        let reach = reach_of(self, &target)?;
        let (returning, columns) = self.returning(update.returning.as_deref(), scope)?;
        Ok(Bound {
            plan: Plan::Update(Box::new(Update { target, reach, source, assignments, returning })),
            columns,
        })
    }

    /// DELETE.
    pub(super) fn delete(&mut self, delete: &ast::Delete) -> Result<Bound, SqlError> {
        self.is_outermost = false;
        if delete.limit.is_some() || !delete.order_by.is_empty() || !delete.tables.is_empty() {
            return Err(SqlError::unsupported("this form of DELETE is not supported"));
        }
        let (ast::FromTable::WithFromKeyword(from) | ast::FromTable::WithoutKeyword(from)) =
            &delete.from;
        let [only] = from.as_slice() else {
            return Err(SqlError::unsupported("DELETE from several tables is not supported"));
        };
        if !only.joins.is_empty() || delete.output.is_some() {
            return Err(SqlError::unsupported("this form of DELETE is not supported"));
        }
        let using = delete.using.as_deref().unwrap_or_default();
        let (table, source, scope) =
            self.modified_rows(&only.relation, using, delete.selection.as_ref())?;
        let target = target_for(self, &table)?;
        let reach = reach_of(self, &target)?;
        let (returning, columns) = self.returning(delete.returning.as_deref(), scope)?;
        let plan = Plan::Delete(Box::new(Delete { target, reach, source, returning }));
        Ok(Bound { plan, columns })
    }

    /// The rows that are changed, locked as they are read; the table's columns first.
    fn modified_rows(
        &mut self,
        relation: &ast::TableFactor,
        others: &[ast::TableWithJoins],
        selection: Option<&ast::Expr>,
    ) -> Result<(Arc<TableDescriptor>, Plan, Scope), SqlError> {
        super::clauses::refuse_in_factor(relation)?;
        let ast::TableFactor::Table { name, alias, args: None, .. } = relation else {
            return Err(SqlError::unsupported("this cannot be changed"));
        };
        let table = self.writable_table(name)?;
        let (mut plan, mut scope) = table_scan(table.clone(), alias.as_ref())?;
        if let Plan::Scan(scan) = &mut plan {
            scan.lock = Some(Lock::Exclusive);
        }
        if !others.is_empty() {
            let (right, right_scope) = self.bind_from(others)?;
            let join = Join {
                left_width: scope.width(),
                right_width: right_scope.width(),
                left: plan,
                right,
                kind: JoinKind::Inner,
                on: None,
                lateral: false,
                method: JoinMethod::Loop,
            };
            plan = Plan::Join(Box::new(join));
            scope = scope.join(right_scope);
        }
        if let Some(selection) = selection {
            let predicate = self.forbidding("WHERE", |binder| {
                binder.in_scope(scope.clone(), |binder| {
                    let typed = binder.expression(selection)?;
                    binder.condition(typed, "WHERE")
                })
            })?;
            plan = Plan::Filter { input: Box::new(plan), predicate };
        }
        Ok((table, plan, scope))
    }

    fn returning(
        &mut self,
        items: Option<&[ast::SelectItem]>,
        scope: Scope,
    ) -> Result<(Option<Vec<Expr>>, Vec<OutputColumn>), SqlError> {
        let Some(items) = items else { return Ok((None, Vec::new())) };
        let items = self.forbidding("RETURNING", |binder| {
            binder.in_scope(scope, |binder| binder.items(items))
        })?;
        let mut exprs = Vec::new();
        let mut columns = Vec::new();
        for item in items {
            let ty = if item.typed.ty == Type::Unknown { Type::Text } else { item.typed.ty };
            columns.push(OutputColumn {
                name: item.name,
                ty,
                typmod: item.typed.typmod,
                origin: item.typed.origin,
            });
            exprs.push(item.typed.expr);
        }
        Ok((Some(exprs), columns))
    }
}

/// A table with what must hold of its rows.
pub(crate) fn target_for(
    binder: &mut Binder<'_>,
    table: &Arc<TableDescriptor>,
) -> Result<Target, SqlError> {
    let mut checks = Vec::new();
    for check in &table.checks {
        let typed =
            binder.stored_expression(&check.expression, Scope::table(table, &table.name))?;
        checks.push((check.name.clone(), binder.condition(typed, "CHECK")?));
    }
    let mut parents = Vec::new();
    for key in &table.foreign_keys {
        let parent = binder
            .catalog()
            .table(key.table)
            .cloned()
            .ok_or_else(|| SqlError::internal("a referenced table is missing"))?;
        parents.push((key.clone(), parent));
    }
    let children = binder
        .catalog()
        .referencing(table.id)
        .map(|(child, key)| (key.clone(), child.clone()))
        .collect();
    Ok(Target { table: table.clone(), checks, parents, children })
}

/// What a change of the target's rows may change in turn. Each table is looked at once, also where they reference each other in a
/// circle: how far a cascade goes is a matter of the rows.
fn reach_of(binder: &mut Binder<'_>, target: &Target) -> Result<Reach, SqlError> {
    let mut reach = BTreeMap::new();
    let mut rest = cascading(target);
    while let Some(table) = rest.pop() {
        if let Entry::Vacant(place) = reach.entry(table.id) {
            rest.extend(cascading(place.insert(target_for(binder, &table)?)));
        }
    }
    Ok(Arc::new(reach))
}

fn cascading(target: &Target) -> Vec<Arc<TableDescriptor>> {
    let cascades = |action| match action {
        ForeignKeyAction::Restrict => false,
        ForeignKeyAction::Cascade | ForeignKeyAction::SetNull => true,
    };
    let children = target.children.iter();
    children
        .filter(|(key, _)| cascades(key.on_update) || cascades(key.on_delete))
        .map(|(_, child)| child.clone())
        .collect()
}

fn check_width(targets: usize, given: usize, listed: bool) -> Result<(), SqlError> {
    if given > targets {
        return Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            "INSERT has more expressions than target columns",
        ));
    }
    // Without a column list, columns at the end may be left out.
    if given < targets && listed {
        return Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            "INSERT has more target columns than expressions",
        ));
    }
    Ok(())
}

fn is_default(ast: &ast::Expr) -> bool {
    matches!(ast, ast::Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}
