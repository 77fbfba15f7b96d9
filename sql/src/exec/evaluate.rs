//! Value: evaluation of expressions for one row. Three-valued logic: NULL is neither true nor false.

use super::{Exec, broken};
use crate::error::{SqlError, codes};
use crate::outcome::Row;
use crate::plan::{Callee, Code, Expr, Extreme, Test};
use crate::types::{ArrayValue, Datum, Dim, RecordValue, Type, cast};
use std::sync::Arc;

impl Exec<'_> {
    /// An expression's value. Its deferred parts have been prepared.
    pub(crate) fn evaluate(&self, expr: &Expr, row: &[Datum]) -> Result<Datum, SqlError> {
        match expr {
            Expr::Const(value) => Ok(value.clone()),
            Expr::Slot(slot) => row.get(*slot).cloned().ok_or_else(|| broken("slot")),
            Expr::Outer { level, slot } => {
                let outer = self.outer.len().checked_sub(*level).and_then(|at| self.outer.get(at));
                outer.and_then(|row| row.get(*slot)).cloned().ok_or_else(|| broken("outer slot"))
            }
            Expr::Param(index) => {
                // A simple query has none, whatever it names.
                self.params.get(*index).cloned().ok_or_else(|| {
                    SqlError::new(
                        codes::UNDEFINED_PARAMETER,
                        format!("there is no parameter ${}", index + 1),
                    )
                })
            }
            Expr::Placeholder(_) => Err(broken("placeholder")),
            Expr::Compare(comparison, left, right) => {
                let (left, right) = (self.evaluate(left, row)?, self.evaluate(right, row)?);
                if left.is_null() || right.is_null() {
                    return Ok(Datum::Null);
                }
                Ok(Datum::Bool(comparison.holds(left.compare(&right))))
            }
            Expr::Call(callee, args) => {
                let mut values = Vec::with_capacity(args.len());
                for arg in args {
                    values.push(self.evaluate(arg, row)?);
                }
                self.call(callee, &values)
            }
            Expr::And(list) => self.connective(list, row, false),
            Expr::Or(list) => self.connective(list, row, true),
            Expr::Not(inner) => Ok(match self.evaluate(inner, row)? {
                Datum::Bool(value) => Datum::Bool(!value),
                _ => Datum::Null,
            }),
            Expr::IsNull(inner) => {
                let value = self.evaluate(inner, row)?;
                // A row is null if all its fields are.
                Ok(Datum::Bool(match &value {
                    Datum::Record(record) => record.fields.iter().all(|(_, field)| field.is_null()),
                    other => other.is_null(),
                }))
            }
            Expr::NoneNull(inner) => {
                let value = self.evaluate(inner, row)?;
                Ok(Datum::Bool(match &value {
                    Datum::Record(record) => {
                        record.fields.iter().all(|(_, field)| !field.is_null())
                    }
                    other => !other.is_null(),
                }))
            }
            Expr::Is(inner, truth) => {
                Ok(Datum::Bool(self.evaluate(inner, row)?.as_bool() == Some(*truth)))
            }
            Expr::Distinct(left, right) => {
                let (left, right) = (self.evaluate(left, row)?, self.evaluate(right, row)?);
                Ok(Datum::Bool(left.compare(&right).is_ne()))
            }
            Expr::Case(arms, otherwise) => {
                for (condition, result) in arms {
                    if self.evaluate(condition, row)?.is_true() {
                        return self.evaluate(result, row);
                    }
                }
                self.evaluate(otherwise, row)
            }
            Expr::Coalesce(list) => {
                for expr in list {
                    let value = self.evaluate(expr, row)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                Ok(Datum::Null)
            }
            Expr::NullIf(equal, value) => {
                if self.evaluate(equal, row)?.is_true() {
                    Ok(Datum::Null)
                } else {
                    self.evaluate(value, row)
                }
            }
            Expr::Extreme(extreme, list) => {
                let mut best = Datum::Null;
                for expr in list {
                    let value = self.evaluate(expr, row)?;
                    let better = match extreme {
                        Extreme::Greatest => value.compare(&best).is_gt(),
                        Extreme::Least => value.compare(&best).is_lt(),
                    };
                    if !value.is_null() && (best.is_null() || better) {
                        best = value;
                    }
                }
                Ok(best)
            }
            Expr::Cast(inner) => {
                let value = self.evaluate(&inner.expr, row)?;
                Ok(cast(&value, inner.from, inner.to, inner.typmod, inner.context, self.facts)?)
            }
            Expr::Quantified(quantified) => {
                let left = self.evaluate(&quantified.left, row)?;
                // A list is compared item by item, without making an array of it.
                if let Expr::Array(_, items) = &quantified.array {
                    let mut seen_null = left.is_null() && !items.is_empty();
                    for item in items {
                        let item = self.evaluate(item, row)?;
                        match self.test(&quantified.test, &left, &item)? {
                            Some(truth) if truth != quantified.all => {
                                return Ok(Datum::Bool(truth));
                            }
                            Some(_) => {}
                            None => seen_null = true,
                        }
                    }
                    return Ok(if seen_null { Datum::Null } else { Datum::Bool(quantified.all) });
                }
                match self.evaluate(&quantified.array, row)? {
                    Datum::Array(array) => self.quantified_values(
                        &left,
                        &quantified.test,
                        quantified.all,
                        array.elements(),
                    ),
                    _ => Ok(Datum::Null),
                }
            }
            Expr::Array(element, items) => {
                let mut values = Vec::with_capacity(items.len());
                for item in items {
                    values.push(self.evaluate(item, row)?);
                }
                array_of(*element, values)
            }
            Expr::Row(fields, names) => {
                let mut values = Vec::with_capacity(fields.len());
                for (ty, field) in fields {
                    values.push((*ty, self.evaluate(field, row)?));
                }
                let names = names.clone();
                Ok(Datum::Record(Arc::new(RecordValue { fields: values, names })))
            }
            Expr::Deferred(deferred) => self.deferred[deferred.id].clone().ok_or_else(|| {
                let failed = self.failed.get(&deferred.id).cloned();
                failed.unwrap_or_else(|| broken("deferred value"))
            }),
        }
    }

    pub(super) fn call(&self, callee: &Callee, values: &[Datum]) -> Result<Datum, SqlError> {
        if callee.strict && values.iter().any(Datum::is_null) {
            return Ok(Datum::Null);
        }
        match &callee.code {
            Code::Value(code, _) => Ok(code(self.facts, values)?),
            Code::Session(code) => code(self.facts, values),
        }
    }

    /// AND stops at false, OR at true.
    fn connective(&self, list: &[Expr], row: &[Datum], decisive: bool) -> Result<Datum, SqlError> {
        let mut seen_null = false;
        for expr in list {
            match self.evaluate(expr, row)?.as_bool() {
                Some(value) if value == decisive => return Ok(Datum::Bool(decisive)),
                Some(_) => {}
                None => seen_null = true,
            }
        }
        Ok(if seen_null { Datum::Null } else { Datum::Bool(!decisive) })
    }

    fn test(&self, test: &Test, left: &Datum, right: &Datum) -> Result<Option<bool>, SqlError> {
        if left.is_null() || right.is_null() {
            return Ok(None);
        }
        match test {
            Test::Compare(comparison) => Ok(Some(comparison.holds(left.compare(right)))),
            Test::Call(callee) => Ok(self.call(callee, &[left.clone(), right.clone()])?.as_bool()),
        }
    }

    fn quantified_values(
        &self,
        left: &Datum,
        test: &Test,
        all: bool,
        values: &[Datum],
    ) -> Result<Datum, SqlError> {
        let mut seen_null = false;
        for value in values {
            match self.test(test, left, value)? {
                Some(truth) if truth != all => return Ok(Datum::Bool(truth)),
                Some(_) => {}
                None => seen_null = true,
            }
        }
        Ok(if seen_null { Datum::Null } else { Datum::Bool(all) })
    }

    /// `(a, b) = ANY (rows)`: rows are equal if all their fields are.
    pub(super) fn quantified_rows(
        &self,
        left: &[Datum],
        test: &Test,
        all: bool,
        rows: &[Row],
    ) -> Result<Datum, SqlError> {
        if let [only] = left {
            let values: Vec<Datum> = rows.iter().filter_map(|row| row.first().cloned()).collect();
            return self.quantified_values(only, test, all, &values);
        }
        let mut seen_null = false;
        for row in rows {
            // `<> ALL` is false as soon as one row is equal, so equality is what is looked for in both.
            let mut equal = Some(true);
            for (left, right) in left.iter().zip(row) {
                match (left.is_null() || right.is_null(), equal) {
                    (_, Some(false)) => {}
                    (true, _) => equal = None,
                    (false, _) if left.compare(right).is_ne() => equal = Some(false),
                    (false, _) => {}
                }
            }
            match equal {
                Some(true) => return Ok(Datum::Bool(!all)),
                Some(false) => {}
                None => seen_null = true,
            }
        }
        Ok(if seen_null { Datum::Null } else { Datum::Bool(all) })
    }
}

/// ARRAY[...]: of values, or of arrays of one shape.
fn array_of(element: Type, values: Vec<Datum>) -> Result<Datum, SqlError> {
    if !values.iter().any(|value| matches!(value, Datum::Array(_))) || element.element().is_some() {
        return Ok(Datum::Array(Arc::new(ArrayValue::new(element, values))));
    }
    let mut dims: Option<Vec<Dim>> = None;
    let mut elements = Vec::new();
    for value in &values {
        let inner = value.as_array().ok_or_else(|| broken("array"))?;
        if dims.as_ref().is_some_and(|dims| dims != inner.dims()) {
            return Err(SqlError::new(
                crate::types::SqlState::ARRAY_SUBSCRIPT_ERROR,
                "multidimensional arrays must have array expressions with matching dimensions",
            ));
        }
        dims = Some(inner.dims().to_vec());
        elements.extend_from_slice(inner.elements());
    }
    let mut all = vec![Dim { length: values.len(), lower: 1 }];
    all.extend(dims.unwrap_or_default());
    Ok(Datum::Array(Arc::new(ArrayValue::with_dims(element, all, elements))))
}
