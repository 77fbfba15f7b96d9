//! Value: what is asked of a constraint beyond what we keep. A constraint that is accepted is one that holds, so the rest is refused
//! (0A000), with the words that ask for it.

use crate::error::SqlError;
use sqlparser::ast::{
    ColumnOption, ConstraintCharacteristics, ConstraintReferenceMatchKind, DeferrableInitial,
    ForeignKeyConstraint, NullsDistinctOption, TableConstraint, UniqueConstraint,
};

/// Of a column's constraint.
pub(super) fn column(option: &ColumnOption) -> Result<(), SqlError> {
    match option {
        ColumnOption::PrimaryKey(key) => moment(key.characteristics.as_ref()),
        ColumnOption::Unique(key) => unique(key),
        ColumnOption::ForeignKey(key) => foreign_key(key),
        ColumnOption::Check(check) => enforced(check.enforced),
        _ => Ok(()),
    }
}

/// Of a table's constraint.
pub(super) fn table(constraint: &TableConstraint) -> Result<(), SqlError> {
    match constraint {
        TableConstraint::PrimaryKey(key) => moment(key.characteristics.as_ref()),
        TableConstraint::Unique(key) => unique(key),
        TableConstraint::ForeignKey(key) => foreign_key(key),
        TableConstraint::Check(check) => enforced(check.enforced),
        _ => Ok(()),
    }
}

/// Of a unique index or constraint: whether NULLs are told apart.
pub(super) fn nulls(distinct: bool) -> Result<(), SqlError> {
    if distinct {
        return Ok(());
    }
    Err(SqlError::unsupported("NULLS NOT DISTINCT is not supported")
        .with_detail("Two NULLs never count as equal.")
        .with_hint("Declare the columns NOT NULL, or give them a value that stands for none."))
}

/// Of a UNIQUE constraint.
pub(super) fn unique(key: &UniqueConstraint) -> Result<(), SqlError> {
    nulls(key.nulls_distinct != NullsDistinctOption::NotDistinct)?;
    moment(key.characteristics.as_ref())
}

fn foreign_key(key: &ForeignKeyConstraint) -> Result<(), SqlError> {
    let kind = match key.match_kind {
        None | Some(ConstraintReferenceMatchKind::Simple) => {
            return moment(key.characteristics.as_ref());
        }
        Some(ConstraintReferenceMatchKind::Full) => "MATCH FULL",
        Some(ConstraintReferenceMatchKind::Partial) => "MATCH PARTIAL",
    };
    Err(SqlError::unsupported(format!("{kind} is not supported"))
        .with_hint("With MATCH SIMPLE a row one of whose columns is NULL references nothing; CHECK ((a IS NULL) = (b IS NULL)) refuses it."))
}

/// When it is checked.
fn moment(asked: Option<&ConstraintCharacteristics>) -> Result<(), SqlError> {
    let Some(asked) = asked else { return Ok(()) };
    let what = match (asked.deferrable, asked.initially) {
        (Some(true), _) => "DEFERRABLE",
        (_, Some(DeferrableInitial::Deferred)) => "INITIALLY DEFERRED",
        _ => return enforced(asked.enforced),
    };
    Err(SqlError::unsupported(format!("{what} constraints are not supported"))
        .with_detail("Every constraint is checked by the statement that could violate it.")
        .with_hint("Leave it out, and write rows in the order of their references."))
}

fn enforced(asked: Option<bool>) -> Result<(), SqlError> {
    match asked {
        Some(false) => Err(SqlError::unsupported("NOT ENFORCED constraints are not supported")),
        Some(true) | None => Ok(()),
    }
}
