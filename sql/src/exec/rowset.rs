//! Driver: rows that are not in tables: functions that give rows, and the system catalogs.

use super::{Exec, broken};
use crate::error::SqlError;
use crate::outcome::Row;
use crate::plan::{Expr, FunctionScan, SetCall, SetFunction, VirtualScan};
use crate::types::{Datum, RecordValue, SqlState, Type};
use std::sync::Arc;

/// Values of one `generate_series`.
const SERIES_MAX: usize = 5_000_000;

impl Exec<'_> {
    /// A function in FROM.
    pub(super) async fn function_rows(
        &mut self,
        scan: &FunctionScan,
    ) -> Result<Vec<Row>, SqlError> {
        let mut columns = Vec::new();
        for call in &scan.functions {
            columns.push((self.call_rows(call, &[]).await?, call.width));
        }
        let length = columns.iter().map(|(rows, _)| rows.len()).max().unwrap_or(0);
        let mut result = Vec::with_capacity(length);
        for at in 0..length {
            let mut row = Vec::new();
            for (rows, width) in &columns {
                match rows.get(at) {
                    Some(values) => row.extend_from_slice(values),
                    None => row.resize(row.len() + width, Datum::Null),
                }
            }
            if scan.ordinality {
                row.push(Datum::Int8(at as i64 + 1));
            }
            result.push(row);
        }
        Ok(result)
    }

    /// Functions in the select list: in lock-step, as many rows as the longest.
    pub(super) async fn project_set(
        &mut self,
        input: Vec<Row>,
        calls: &[(SetCall, Option<usize>)],
    ) -> Result<Vec<Row>, SqlError> {
        let mut result = Vec::new();
        for row in input {
            let mut columns = Vec::new();
            for (call, field) in calls {
                let rows = self.call_rows(call, &row).await?;
                let values: Vec<Datum> =
                    rows.into_iter().map(|row| one_value(row, *field)).collect();
                columns.push(values);
            }
            let length = columns.iter().map(Vec::len).max().unwrap_or(0);
            for at in 0..length {
                let mut out = row.clone();
                out.extend(
                    columns.iter().map(|values| values.get(at).cloned().unwrap_or(Datum::Null)),
                );
                self.keep(&mut result, out)?;
                self.breathe().await?;
            }
            self.check_canceled()?;
        }
        Ok(result)
    }

    async fn call_rows(&mut self, call: &SetCall, row: &[Datum]) -> Result<Vec<Row>, SqlError> {
        let all: Vec<&Expr> = call.args.iter().collect();
        self.prepare(&all, row).await?;
        let mut args = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            args.push(self.evaluate(arg, row)?);
        }
        if matches!(call.function, SetFunction::Scalar) {
            return Ok(vec![args]);
        }
        if args.iter().any(Datum::is_null) {
            return Ok(Vec::new());
        }
        match (&call.function, args.as_slice()) {
            (SetFunction::SeriesInt(ty), [from, to, step]) => {
                let whole = |value: &Datum| value.as_i64().ok_or_else(|| broken("series"));
                series(whole(from)?, whole(to)?, whole(step)?, *ty)
            }
            (SetFunction::SeriesStep(add), [from, to, step]) => {
                self.series_step(add, from, to, step)
            }
            (SetFunction::Unnest, [Datum::Array(array)]) => {
                Ok(array.elements().iter().map(|value| vec![value.clone()]).collect())
            }
            (SetFunction::Subscripts, [Datum::Array(array), dimension]) => {
                let dimension = dimension.as_i64().and_then(|n| usize::try_from(n - 1).ok());
                let Some(dim) = dimension.and_then(|n| array.dims().get(n)) else {
                    return Ok(Vec::new());
                };
                let subscript = |at: usize| {
                    Datum::Int4(dim.lower.saturating_add(i32::try_from(at).unwrap_or(i32::MAX)))
                };
                Ok((0..dim.length).map(|at| vec![subscript(at)]).collect())
            }
            (SetFunction::ExpandArray, [Datum::Array(array)]) => {
                let number = |at: usize| Datum::Int4(i32::try_from(at + 1).unwrap_or(i32::MAX));
                Ok(array
                    .elements()
                    .iter()
                    .enumerate()
                    .map(|(at, value)| vec![value.clone(), number(at)])
                    .collect())
            }
            _ => Err(broken("set function")),
        }
    }

    fn series_step(
        &self,
        add: &crate::plan::Callee,
        from: &Datum,
        to: &Datum,
        step: &Datum,
    ) -> Result<Vec<Row>, SqlError> {
        let mut rows = Vec::new();
        let mut value = from.clone();
        let next = self.call(add, &[value.clone(), step.clone()])?;
        let direction = next.compare(&value);
        if direction.is_eq() {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "step size cannot equal zero",
            ));
        }
        while value.compare(to) != direction {
            rows.push(vec![value.clone()]);
            if rows.len() > SERIES_MAX {
                return Err(too_long());
            }
            value = self.call(add, &[value, step.clone()])?;
        }
        Ok(rows)
    }

    /// A table of the system catalogs.
    pub(super) async fn virtual_rows(&mut self, scan: &VirtualScan) -> Result<Vec<Row>, SqlError> {
        let equals = match &scan.equals {
            Some((column, value)) => Some((*column, self.evaluate(value, &[])?)),
            None => None,
        };
        scan.table
            .rows_where(self.facts, equals.as_ref().map(|(column, value)| (*column, value)))
            .await
    }
}

fn too_long() -> SqlError {
    SqlError::new(
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        format!("generate_series would give more than {SERIES_MAX} values"),
    )
}

fn series(from: i64, to: i64, step: i64, ty: Type) -> Result<Vec<Row>, SqlError> {
    if step == 0 {
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            "step size cannot equal zero",
        ));
    }
    let mut rows = Vec::new();
    let mut value = Some(from);
    while let Some(current) =
        value.filter(|value| if step > 0 { *value <= to } else { *value >= to })
    {
        if rows.len() >= SERIES_MAX {
            return Err(too_long());
        }
        rows.push(vec![if ty == Type::Int8 {
            Datum::Int8(current)
        } else {
            Datum::Int4(i32::try_from(current).unwrap_or(i32::MAX))
        }]);
        value = current.checked_add(step);
    }
    Ok(rows)
}

fn one_value(mut row: Row, field: Option<usize>) -> Datum {
    match field {
        Some(field) => row.get(field).cloned().unwrap_or(Datum::Null),
        None if row.len() == 1 => row.remove(0),
        None => Datum::Record(Arc::new(RecordValue {
            fields: row.into_iter().map(|value| (Type::Text, value)).collect(),
            names: None,
        })),
    }
}
