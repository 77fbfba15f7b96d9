//! Value: keys and values of tables.
//!
//! ```text
//!   primary row     prefix | index id | key columns                        ->  all columns
//!   unique entry    prefix | index id | columns                            ->  encoded key columns of its row
//!                   prefix | index id | columns (one NULL) | row's key     ->  the same: NULLs are not equal
//!   plain entry     prefix | index id | columns | row's key                ->  the same
//! ```
//!
//! The prefix is the table's, or its copy's in one region. Columns are encoded in order (`types::key`), values by column id
//! (`types::value`), so that a row outlives changes of its table. Key columns are stored in the row as well: some keys do not give
//! their value back, and reading is simpler.
//!
//! INVARIANT: a row and its index entries are written by the same transaction.

use crate::catalog::{ColumnDescriptor, IndexDescriptor, IndexKind, TableDescriptor, TableMode};
use crate::copies::RowState;
use crate::error::SqlError;
use crate::types::{self, Datum, FixedContext, Type, key_encode, row_decode, row_encode};
use bytes::Bytes;
use std::borrow::Cow;
use storage::{Key, Span};

/// Where a session reads and writes a table: the region decides which copy of an available one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The session's region.
    pub region: u16,
}

/// Appends an index's key columns of a row; whether one of them is NULL.
fn key_columns(index: &IndexDescriptor, row: &[Datum], out: &mut Vec<u8>) -> bool {
    let mut null = false;
    for column in &index.columns {
        let value = &row[column.column];
        null |= value.is_null();
        key_encode(value, direction(column.descending), out);
    }
    null
}

/// As the key encoding wants it.
pub(crate) fn direction(descending: bool) -> types::Direction {
    if descending { types::Direction::Descending } else { types::Direction::Ascending }
}

/// The encoded key columns of a row, without any prefix: what index entries point with.
pub(crate) fn row_key(table: &TableDescriptor, row: &[Datum]) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    key_columns(table.primary(), row, &mut out);
    out
}

/// The key of a row.
pub(crate) fn primary_key(table: &TableDescriptor, place: Place, row: &[Datum]) -> Key {
    let mut out = table.index_prefix(place.region, table.primary().id);
    key_columns(table.primary(), row, &mut out);
    Key::new(out)
}

/// The key of the row that an entry points to.
pub(crate) fn pointed_key(table: &TableDescriptor, place: Place, pointer: &[u8]) -> Key {
    let mut out = table.index_prefix(place.region, table.primary().id);
    out.extend_from_slice(pointer);
    Key::new(out)
}

/// A row's entry in a secondary index, and whether its key must be new.
pub(crate) fn index_entry(
    table: &TableDescriptor,
    place: Place,
    index: &IndexDescriptor,
    row: &[Datum],
) -> (Key, Bytes, bool) {
    let mut out = table.index_prefix(place.region, index.id);
    let null = key_columns(index, row, &mut out);
    let pointer = row_key(table, row);
    let unique = index.kind == IndexKind::Unique && !null;
    if !unique {
        out.extend_from_slice(&pointer);
    }
    (Key::new(out), Bytes::from(pointer), unique)
}

/// All of an index.
pub(crate) fn index_span(table: &TableDescriptor, place: Place, index: &IndexDescriptor) -> Span {
    Span::prefix(&Key::new(table.index_prefix(place.region, index.id)))
}

/// The columns of a row and what is stored of them. NULLs are left out, but in columns whose absence means something else: there an
/// empty record, which no column can hold, stands for NULL.
pub(crate) fn stored<'t>(
    table: &'t TableDescriptor,
    row: &'t [Datum],
) -> impl Iterator<Item = (&'t ColumnDescriptor, Cow<'t, Datum>)> {
    let columns = table.columns.iter().zip(row).filter(|(column, _)| !column.dropped);
    columns.filter_map(|(column, value)| match (value.is_null(), &column.missing) {
        (false, _) => Some((column, Cow::Borrowed(value))),
        (true, Some(_)) => Some((column, Cow::Owned(Datum::record(Vec::new())))),
        (true, None) => None,
    })
}

/// The value of a strong table's row.
pub(crate) fn encode(table: &TableDescriptor, row: &[Datum]) -> Bytes {
    Bytes::from(row_encode(stored(table, row).map(|(column, value)| (column.id, value))))
}

/// The columns of a stored row, by place; `None`: it is a tombstone.
pub(crate) fn decode(
    table: &TableDescriptor,
    value: &[u8],
) -> Result<Option<Vec<Datum>>, SqlError> {
    match table.mode {
        TableMode::Strong => place_columns(table, row_decode(value)?).map(Some),
        TableMode::Available => RowState::decode(value)?.row(table),
    }
}

/// Values by column id to values by place; what was written before a column was added has its missing value.
pub(crate) fn place_columns(
    table: &TableDescriptor,
    stored: Vec<(u32, Datum)>,
) -> Result<Vec<Datum>, SqlError> {
    let mut stored = stored.into_iter().peekable();
    let mut row = Vec::with_capacity(table.columns.len());
    for column in &table.columns {
        while stored.next_if(|(id, _)| *id < column.id).is_some() {}
        let value = match stored.next_if(|(id, _)| *id == column.id) {
            Some((_, Datum::Record(_))) => Datum::Null,
            Some((_, value)) => value,
            None => missing(column)?,
        };
        row.push(if column.dropped { Datum::Null } else { value });
    }
    Ok(row)
}

/// The value of a column that a row does not have.
fn missing(column: &ColumnDescriptor) -> Result<Datum, SqlError> {
    match &column.missing {
        None => Ok(Datum::Null),
        Some(text) => {
            Ok(types::text::parse(text, column.ty, column.typmod, &FixedContext::default())?)
        }
    }
}

/// Whether any value of a type can be part of a key.
pub(crate) fn can_be_key(ty: Type) -> bool {
    !matches!(ty, Type::Json | Type::Jsonb | Type::Record | Type::Counter | Type::Void)
}
