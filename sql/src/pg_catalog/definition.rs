//! Value: SQL text of what the catalog has, word for word as PostgreSQL 15's `pg_get_*def` says it.

use super::names::{qualified_name, quote_ident, relation_name};
use super::relation::{self, Rel};
use crate::catalog::{
    CheckDescriptor, ForeignKeyAction, ForeignKeyDescriptor, IndexDescriptor, IndexKind,
    TableDescriptor,
};
use crate::exec::Facts;

/// Whether names are qualified always, or only where the search path does not do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Plain calls: the text can be replayed anywhere.
    Qualified,
    /// `pretty`.
    Pretty,
}

/// A constraint of a table.
#[derive(Clone, Copy)]
pub(super) enum Constraint<'a> {
    /// Primary key or unique.
    Key(&'a IndexDescriptor),
    /// CHECK.
    Check(&'a CheckDescriptor),
    /// FOREIGN KEY.
    Foreign(&'a ForeignKeyDescriptor),
}

impl<'a> Constraint<'a> {
    pub(super) fn oid(&self) -> u32 {
        match self {
            Constraint::Key(index) => index.constraint.unwrap_or(0),
            Constraint::Check(check) => check.oid,
            Constraint::Foreign(key) => key.oid,
        }
    }

    pub(super) fn name(&self) -> &'a str {
        match self {
            Constraint::Key(index) => &index.name,
            Constraint::Check(check) => &check.name,
            Constraint::Foreign(key) => &key.name,
        }
    }

    /// `contype`.
    pub(super) fn kind(&self) -> char {
        match self {
            Constraint::Key(index) if index.kind == IndexKind::Primary => 'p',
            Constraint::Key(_) => 'u',
            Constraint::Check(_) => 'c',
            Constraint::Foreign(_) => 'f',
        }
    }

    /// Places of the columns it is about. Of a check this is not recorded: those whose names are words of its text.
    pub(super) fn columns(&self, table: &TableDescriptor) -> Vec<usize> {
        match self {
            Constraint::Key(index) => index.columns.iter().map(|column| column.column).collect(),
            Constraint::Check(check) => {
                let words: Vec<&str> =
                    check.expression.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
                let quoted = |name: &str| {
                    name != quote_ident(name) && check.expression.contains(&quote_ident(name))
                };
                let named = |name: &str| words.contains(&name) || quoted(name);
                table
                    .visible()
                    .filter(|(_, column)| named(&column.name))
                    .map(|(place, _)| place)
                    .collect()
            }
            Constraint::Foreign(key) => key.columns.clone(),
        }
    }
}

/// The constraints of a table that are shown.
pub(super) fn constraints(table: &TableDescriptor) -> Vec<Constraint<'_>> {
    let keys =
        relation::indexes(table).filter(|index| index.constraint.is_some()).map(Constraint::Key);
    let checks = table.checks.iter().map(Constraint::Check);
    let foreign = table.foreign_keys.iter().map(Constraint::Foreign);
    keys.chain(checks).chain(foreign).collect()
}

/// All constraints of the session's database with their tables; `only`: those of the table with this OID.
pub(super) fn all_constraints(
    facts: &Facts,
    only: Option<u32>,
) -> Vec<(&TableDescriptor, Constraint<'_>)> {
    let tables = relation::tables(facts, only).into_iter();
    tables
        .flat_map(|table| constraints(table).into_iter().map(move |constraint| (table, constraint)))
        .collect()
}

/// `CREATE INDEX ...`; `None`: there is no such index.
pub(super) fn index(facts: &Facts, oid: u32, style: Style) -> Option<String> {
    let Rel::Index(table, index) = relation::one(facts, oid)? else { return None };
    let unique = if index.kind == IndexKind::Plain { "" } else { "UNIQUE " };
    let on = match style {
        Style::Qualified => qualified_name(facts, table.id)?,
        Style::Pretty => relation_name(facts, table.id)?,
    };
    let columns: Vec<String> = index
        .columns
        .iter()
        .map(|column| {
            let name = quote_ident(&table.columns[column.column].name);
            if column.descending { format!("{name} DESC") } else { name }
        })
        .collect();
    Some(format!(
        "CREATE {unique}INDEX {} ON {on} USING btree ({})",
        quote_ident(&index.name),
        columns.join(", ")
    ))
}

/// A column of an index, counted from 1; empty text beyond its columns.
pub(super) fn index_column(facts: &Facts, oid: u32, number: i64) -> Option<String> {
    let Rel::Index(table, index) = relation::one(facts, oid)? else { return None };
    let place = usize::try_from(number - 1).ok().and_then(|at| index.columns.get(at));
    Some(place.map_or_else(String::new, |column| quote_ident(&table.columns[column.column].name)))
}

/// `PRIMARY KEY (...)` and so on; `None`: there is no such constraint.
pub(super) fn constraint(facts: &Facts, oid: u32, style: Style) -> Option<String> {
    let (table, constraint) =
        all_constraints(facts, None).into_iter().find(|(_, constraint)| constraint.oid() == oid)?;
    Some(match constraint {
        Constraint::Key(index) => {
            let word = if index.kind == IndexKind::Primary { "PRIMARY KEY" } else { "UNIQUE" };
            format!("{word} ({})", list(table, &constraint.columns(table)))
        }
        Constraint::Check(check) => match style {
            Style::Qualified => format!("CHECK (({}))", bare(&check.expression)),
            Style::Pretty => format!("CHECK ({})", bare(&check.expression)),
        },
        Constraint::Foreign(key) => foreign_key(facts, table, key),
    })
}

fn foreign_key(facts: &Facts, table: &TableDescriptor, key: &ForeignKeyDescriptor) -> String {
    let (name, referenced) = match facts.catalog.table(key.table) {
        Some(parent) => {
            (relation_name(facts, key.table).unwrap_or_default(), list(parent, &key.referenced))
        }
        None => (key.table.to_string(), String::new()),
    };
    let mut text =
        format!("FOREIGN KEY ({}) REFERENCES {name}({referenced})", list(table, &key.columns));
    for (word, action) in [("UPDATE", key.on_update), ("DELETE", key.on_delete)] {
        if action != ForeignKeyAction::Restrict {
            text.push_str(&format!(" ON {word} {}", action_rule(action)));
        }
    }
    text
}

/// An action as `information_schema` and DDL name it. What is refused is refused at once or at the end alike, so the
/// default's name is given.
pub(super) fn action_rule(action: ForeignKeyAction) -> &'static str {
    match action {
        ForeignKeyAction::Restrict => "NO ACTION",
        ForeignKeyAction::Cascade => "CASCADE",
        ForeignKeyAction::SetNull => "SET NULL",
    }
}

fn list(table: &TableDescriptor, places: &[usize]) -> String {
    let names: Vec<String> =
        places.iter().map(|place| quote_ident(&table.columns[*place].name)).collect();
    names.join(", ")
}

/// An expression without parentheses around the whole of it.
fn bare(expression: &str) -> &str {
    let text = expression.trim();
    let Some(inner) = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')) else {
        return text;
    };
    let mut depth = 1i32;
    for c in inner.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            // Quotes may hide parentheses: leave such text as it is.
            '\'' | '"' => return text,
            _ => {}
        }
        if depth == 0 {
            return text;
        }
    }
    inner.trim()
}

#[cfg(test)]
mod tests {
    use super::bare;

    #[test]
    fn only_parentheses_around_everything_are_dropped() {
        assert_eq!(bare("(a > 0)"), "a > 0");
        assert_eq!(bare("(a) > (b)"), "(a) > (b)");
        assert_eq!(bare("(a = ')')"), "(a = ')')");
    }
}
