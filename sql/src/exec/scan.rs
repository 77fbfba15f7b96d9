//! Driver: reading a table by its access path.
//!
//! Whole unique keys are read together, by key; everything else is scanned, a page at a time. A secondary index gives pointers;
//! the rows behind one page of them are read together. Tombstones of available tables are left out here.

use super::Exec;
use crate::catalog::{IndexDescriptor, IndexKind, TableDescriptor};
use crate::error::SqlError;
use crate::outcome::Row;
use crate::plan::{Access, Expr, KeyPart, Scan};
use crate::rows::{decode, direction, index_span, pointed_key};
use crate::types::{Datum, key_encode};
use std::collections::VecDeque;
use storage::{Direction, Key, Span};
use txn::client::{GetOptions, OnLock, ScanOptions};

/// Rows of a page of an unlimited scan.
const PAGE_ROWS: u64 = 4096;
/// Bytes of a page.
const PAGE_BYTES: u64 = 1 << 20;
/// Keys read together.
const KEYS_PER_BATCH: usize = 1000;

/// A scan under way.
pub(super) struct TableScan<'p> {
    scan: &'p Scan,
    wanted: Option<usize>,
    /// Pages that gave nothing, in a row.
    barren_count: u32,
    state: State,
}

enum State {
    New,
    /// Keys of rows to read.
    Keys(VecDeque<Key>),
    /// Keys of unique entries to read.
    Entries(VecDeque<Key>),
    /// Spans to scan.
    Spans(VecDeque<Span>),
    Done,
}

impl<'p> TableScan<'p> {
    pub(super) fn new(scan: &'p Scan, wanted: Option<usize>) -> TableScan<'p> {
        TableScan { scan, wanted, barren_count: 0, state: State::New }
    }

    fn index(&self) -> &'p IndexDescriptor {
        &self.scan.table.indexes[self.scan.access.index]
    }

    fn is_primary(&self) -> bool {
        self.scan.access.index == 0
    }

    /// The next rows that pass the scan's filter; `None`: there are no more.
    pub(super) async fn next(&mut self, exec: &mut Exec<'_>) -> Result<Option<Vec<Row>>, SqlError> {
        if matches!(self.state, State::New) {
            exec.name_schema(&self.scan.table).await?;
            self.state = self.begin(exec)?;
            if let (None, Some(limit)) = (self.wanted, &self.scan.limit) {
                let limit = exec.value(limit, &[]).await?;
                self.wanted = limit.as_i64().and_then(|limit| usize::try_from(limit).ok());
            }
        }
        let rows = match &mut self.state {
            State::New | State::Done => return Ok(None),
            State::Keys(keys) => {
                if keys.is_empty() {
                    return Ok(None);
                }
                let batch: Vec<Key> = keys.drain(..keys.len().min(KEYS_PER_BATCH)).collect();
                self.read(exec, &batch).await?
            }
            State::Entries(entries) => {
                if entries.is_empty() {
                    return Ok(None);
                }
                let batch: Vec<Key> = entries.drain(..entries.len().min(KEYS_PER_BATCH)).collect();
                let options =
                    GetOptions { hold: exec.hold, own: exec.own, ..GetOptions::default() };
                let pointers = exec.txn.multi_get_with(&batch, options).await?;
                let table = &self.scan.table;
                let keys: Vec<Key> = pointers
                    .into_iter()
                    .flatten()
                    .map(|pointer| pointed_key(table, exec.place, &pointer))
                    .collect();
                self.read(exec, &keys).await?
            }
            State::Spans(spans) => {
                let Some(span) = spans.pop_front() else {
                    self.state = State::Done;
                    return Ok(None);
                };
                let (rows, rest) = self.page(exec, span).await?;
                if let (State::Spans(spans), Some(rest)) = (&mut self.state, rest) {
                    spans.push_front(rest);
                }
                rows
            }
        };
        match &self.scan.filter {
            None => Ok(Some(rows)),
            Some(filter) => {
                let rows = exec.filtered(rows, filter).await?;
                self.barren_count = if rows.is_empty() { self.barren_count + 1 } else { 0 };
                Ok(Some(rows))
            }
        }
    }

    /// Reads rows by key.
    async fn read(&self, exec: &mut Exec<'_>, keys: &[Key]) -> Result<Vec<Row>, SqlError> {
        let options = GetOptions {
            lock: self.scan.lock,
            wait: self.scan.on_lock,
            hold: exec.hold,
            own: exec.own,
        };
        let values = exec.txn.multi_get_with(keys, options).await?;
        let mut rows = Vec::with_capacity(values.len());
        for value in values.into_iter().flatten() {
            rows.extend(decode(&self.scan.table, &value)?);
        }
        Ok(rows)
    }

    async fn page(
        &self,
        exec: &mut Exec<'_>,
        span: Span,
    ) -> Result<(Vec<Row>, Option<Span>), SqlError> {
        let primary = self.is_primary();
        let limit = match self.wanted {
            // With a filter some rows fall out; a few more at once cost less than another round trip.
            Some(wanted) if self.scan.filter.is_none() => (wanted as u64).clamp(1, PAGE_ROWS),
            // Rows that are locked and not wanted would be left out of what others are given.
            Some(wanted) if self.scan.lock.is_some() && self.scan.on_lock == OnLock::Skip => {
                ((wanted as u64) << self.barren_count.min(12)).clamp(1, PAGE_ROWS)
            }
            Some(wanted) => (wanted as u64 * 2).clamp(16, PAGE_ROWS),
            None => PAGE_ROWS,
        };
        let options = ScanOptions {
            direction: if self.scan.backward { Direction::Reverse } else { Direction::Forward },
            limit,
            bytes_max: PAGE_BYTES,
            // The rows are locked, not the entries that lead to them.
            lock: if primary { self.scan.lock } else { None },
            wait: self.scan.on_lock,
            hold: exec.hold,
            own: exec.own,
        };
        let page = exec.txn.scan(span, options).await?;
        if primary {
            let mut rows = Vec::with_capacity(page.rows.len());
            for (_, value) in &page.rows {
                rows.extend(decode(&self.scan.table, value)?);
            }
            return Ok((rows, page.resume));
        }
        let table = &self.scan.table;
        let keys: Vec<Key> =
            page.rows.iter().map(|(_, pointer)| pointed_key(table, exec.place, pointer)).collect();
        Ok((self.read(exec, &keys).await?, page.resume))
    }

    /// The keys or spans of the access path.
    fn begin(&self, exec: &Exec<'_>) -> Result<State, SqlError> {
        let (table, access) = (&self.scan.table, &self.scan.access);
        let index = self.index();
        if access.is_full() {
            return Ok(State::Spans(VecDeque::from([index_span(table, exec.place, index)])));
        }
        let prefixes = prefixes(exec, table, index, access)?;
        if access.is_points(index) {
            let keys: VecDeque<Key> = prefixes.into_iter().map(Key::new).collect();
            return Ok(if index.kind == IndexKind::Primary {
                State::Keys(keys)
            } else {
                State::Entries(keys)
            });
        }
        let mut spans = VecDeque::new();
        for prefix in prefixes {
            spans.extend(bounded(exec, index, access, prefix)?);
        }
        if self.scan.backward {
            spans = spans.into_iter().rev().collect();
        }
        Ok(State::Spans(spans))
    }
}

/// Every combination of the fixed columns' values, encoded, in key order, each once.
fn prefixes(
    exec: &Exec<'_>,
    table: &TableDescriptor,
    index: &IndexDescriptor,
    access: &Access,
) -> Result<Vec<Vec<u8>>, SqlError> {
    let mut prefixes = vec![table.index_prefix(exec.place.region, index.id)];
    for (part, column) in access.prefix.iter().zip(&index.columns) {
        let values = match part {
            KeyPart::Null => vec![Datum::Null],
            KeyPart::One(expr) => known(exec, expr)?,
            KeyPart::List(list) => {
                let mut values = Vec::with_capacity(list.len());
                for expr in list {
                    values.extend(known(exec, expr)?);
                }
                values
            }
            KeyPart::Elements(expr) => match exec.evaluate(expr, &[])? {
                Datum::Array(array) => {
                    array.elements().iter().filter(|value| !value.is_null()).cloned().collect()
                }
                _ => Vec::new(),
            },
        };
        let mut longer = Vec::with_capacity(prefixes.len() * values.len());
        for prefix in &prefixes {
            for value in &values {
                let mut key = prefix.clone();
                key_encode(value, direction(column.descending), &mut key);
                longer.push(key);
            }
        }
        prefixes = longer;
    }
    prefixes.sort_unstable();
    prefixes.dedup();
    Ok(prefixes)
}

/// A value to look up: equality with NULL finds nothing.
fn known(exec: &Exec<'_>, expr: &Expr) -> Result<Vec<Datum>, SqlError> {
    let value = exec.evaluate(expr, &[])?;
    Ok(if value.is_null() { Vec::new() } else { vec![value] })
}

/// The span under a prefix within the bounds of the next column. NULLs are beyond every bound.
fn bounded(
    exec: &Exec<'_>,
    index: &IndexDescriptor,
    access: &Access,
    prefix: Vec<u8>,
) -> Result<Option<Span>, SqlError> {
    let all = Span::prefix(&Key::new(prefix.clone()));
    let Some(column) = index.columns.get(access.prefix.len()) else { return Ok(Some(all)) };
    let bounds = &access.bounds;
    if bounds.low.is_none() && bounds.high.is_none() {
        return Ok(Some(all));
    }
    let side = |limit: &Option<crate::plan::Edge>| -> Result<Option<(Key, bool)>, SqlError> {
        let Some(limit) = limit else { return Ok(None) };
        let value = exec.evaluate(&limit.value, &[])?;
        let mut key = prefix.clone();
        key_encode(&value, direction(column.descending), &mut key);
        Ok(Some((Key::new(key), limit.inclusive && !value.is_null())))
    };
    let mut null = prefix.clone();
    key_encode(&Datum::Null, direction(column.descending), &mut null);
    let null = Key::new(null);
    let (low, high) = (side(&bounds.low)?, side(&bounds.high)?);
    let (first, last) = if column.descending { (high, low) } else { (low, high) };
    let start = match first {
        Some((key, true)) => key,
        Some((key, false)) => key.prefix_end(),
        None if column.descending => null.prefix_end(),
        None => all.start,
    };
    let end = match last {
        Some((key, true)) => key.prefix_end(),
        Some((key, false)) => key,
        None if column.descending => all.end,
        None => null,
    };
    let span = Span::new(start, end);
    Ok((!span.is_empty()).then_some(span))
}
