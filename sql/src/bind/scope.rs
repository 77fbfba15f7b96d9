//! Value: what names mean at one place of a query.

use super::{Binder, OutputColumn, Typed};
use crate::error::{SqlError, codes};
use crate::plan::Expr;
use crate::types::{Datum, SqlState, Type};
use std::sync::Arc;

/// The columns that can be named, in the order of the row's slots.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// One per slot.
    pub columns: Vec<ScopeColumn>,
    /// Slots that `*` begins with: those merged by USING, outermost join first. The others follow in their order.
    pub first: Vec<usize>,
}

/// A column of a scope.
#[derive(Clone, Debug)]
pub(crate) struct ScopeColumn {
    /// Its relation's alias.
    pub relation: Option<Arc<str>>,
    /// Its name.
    pub name: Arc<str>,
    /// Its type.
    pub ty: Type,
    /// Its type modifier.
    pub typmod: i32,
    /// (table OID, attnum).
    pub origin: Option<(u32, i16)>,
    /// How it can be seen.
    pub visibility: Visibility,
}

/// How a column can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visibility {
    /// By name, and by `*`.
    Full,
    /// Only with its relation's name (merged away by USING).
    Qualified,
    /// Not at all (row ids, dropped columns).
    None,
}

impl Scope {
    /// Columns of a relation under an alias.
    pub(crate) fn of(relation: Option<Arc<str>>, columns: &[OutputColumn]) -> Scope {
        let columns = columns.iter().map(|column| ScopeColumn {
            relation: relation.clone(),
            name: column.name.clone(),
            ty: column.ty,
            typmod: column.typmod,
            origin: column.origin,
            visibility: Visibility::Full,
        });
        Scope { columns: columns.collect(), first: Vec::new() }
    }

    /// All columns of a table, by place.
    pub(crate) fn table(table: &crate::catalog::TableDescriptor, alias: &str) -> Scope {
        let relation: Arc<str> = Arc::from(alias);
        let columns = table.columns.iter().map(|column| ScopeColumn {
            relation: Some(relation.clone()),
            name: Arc::from(column.name.as_str()),
            ty: column.ty.base(),
            typmod: column.typmod,
            origin: Some((table.id, i16::try_from(column.id).unwrap_or(0))),
            visibility: if column.dropped || column.hidden {
                Visibility::None
            } else {
                Visibility::Full
            },
        });
        Scope { columns: columns.collect(), first: Vec::new() }
    }

    /// Both, left first.
    pub(crate) fn join(mut self, right: Scope) -> Scope {
        // `*` over both is all of the left, then all of the right: an order of the right one alone would come before the left.
        let width = self.columns.len();
        if !right.first.is_empty() {
            let slots =
                [self.star(None), right.star(None).iter().map(|slot| slot + width).collect()];
            self.first = slots.concat();
        }
        self.columns.extend(right.columns);
        self
    }

    /// How many slots.
    pub(crate) fn width(&self) -> usize {
        self.columns.len()
    }

    pub(crate) fn typed(&self, slot: usize) -> Typed {
        let column = &self.columns[slot];
        Typed {
            expr: Expr::Slot(slot),
            ty: column.ty,
            typmod: column.typmod,
            origin: column.origin,
            position: None,
        }
    }

    /// Whether a relation is in it.
    pub(crate) fn has_relation(&self, relation: &str) -> bool {
        self.columns.iter().any(|column| column.relation.as_deref() == Some(relation))
    }

    /// Slots with this name; the error tells that there are several.
    pub(crate) fn find(
        &self,
        relation: Option<&str>,
        name: &str,
    ) -> Result<Option<usize>, SqlError> {
        let mut found = None;
        for (slot, column) in self.columns.iter().enumerate() {
            let visible = match (relation, column.visibility) {
                (_, Visibility::None) | (None, Visibility::Qualified) => false,
                (None, Visibility::Full) => true,
                (Some(relation), _) => column.relation.as_deref() == Some(relation),
            };
            if !visible || &*column.name != name {
                continue;
            }
            if found.is_some() {
                return Err(SqlError::new(
                    codes::AMBIGUOUS_COLUMN,
                    format!("column reference \"{name}\" is ambiguous"),
                ));
            }
            found = Some(slot);
        }
        Ok(found)
    }

    /// Slots that `*` or `relation.*` means.
    pub(crate) fn star(&self, relation: Option<&str>) -> Vec<usize> {
        let mut slots = Vec::new();
        let first = if relation.is_none() { self.first.as_slice() } else { &[] };
        let rest = (0..self.columns.len()).filter(|slot| !first.contains(slot));
        for slot in first.iter().copied().chain(rest) {
            let column = &self.columns[slot];
            let wanted = match relation {
                None => column.visibility == Visibility::Full,
                Some(relation) => {
                    column.visibility != Visibility::None
                        && column.relation.as_deref() == Some(relation)
                }
            };
            if wanted {
                slots.push(slot);
            }
        }
        slots
    }
}

impl Binder<'_> {
    /// A column by name: of the innermost query that has it.
    pub(super) fn column(&mut self, relation: Option<&str>, name: &str) -> Result<Typed, SqlError> {
        for (level, scope) in self.scopes.iter().rev().enumerate() {
            if let Some(slot) = scope.find(relation, name)? {
                let mut typed = scope.typed(slot);
                if level > 0 {
                    typed.expr = Expr::Outer { level, slot };
                }
                return Ok(typed);
            }
        }
        if name == "tableoid"
            && let Some(oid) = self.table_oid(relation)
        {
            return Ok(Typed::new(Expr::Const(Datum::Oid(oid)), Type::Oid));
        }
        if relation.is_none()
            && let Some(row) = self.whole_row(name)
        {
            return Ok(row);
        }
        Err(self.no_column(relation, name))
    }

    /// The OID of the table that a relation is, for the system column `tableoid`.
    fn table_oid(&self, relation: Option<&str>) -> Option<u32> {
        let scopes = self.scopes.iter().rev();
        let mut columns = scopes.flat_map(|scope| &scope.columns);
        let of =
            |column: &&ScopeColumn| relation.is_none() || column.relation.as_deref() == relation;
        columns.find(of)?.origin.map(|(table, _)| table)
    }

    /// `t` where a value is wanted: the whole row.
    pub(super) fn whole_row(&self, relation: &str) -> Option<Typed> {
        for (level, scope) in self.scopes.iter().rev().enumerate() {
            if !scope.has_relation(relation) {
                continue;
            }
            let slots = scope.star(Some(relation));
            let names = slots.iter().map(|slot| scope.columns[*slot].name.clone()).collect();
            // A function in FROM whose only column bears its name is that column.
            let fields = slots.into_iter().map(|slot| {
                let expr = if level == 0 { Expr::Slot(slot) } else { Expr::Outer { level, slot } };
                (scope.columns[slot].ty, expr)
            });
            return Some(Typed::new(Expr::Row(fields.collect(), Some(names)), Type::Record));
        }
        None
    }

    fn no_column(&self, relation: Option<&str>, name: &str) -> SqlError {
        match relation {
            Some(relation) if !self.scopes.iter().any(|scope| scope.has_relation(relation)) => {
                SqlError::new(
                    SqlState::UNDEFINED_TABLE,
                    format!("missing FROM-clause entry for table \"{relation}\""),
                )
            }
            Some(relation) => SqlError::new(
                codes::UNDEFINED_COLUMN,
                format!("column {relation}.{name} does not exist"),
            ),
            None => {
                SqlError::new(codes::UNDEFINED_COLUMN, format!("column \"{name}\" does not exist"))
            }
        }
    }
}
