//! Aggregates: accumulators that take values one by one and answer at the end: a value.
//!
//! [`resolve_aggregate`] gives the [`Aggregate`] that a name means for argument types, with what its arguments must be converted to
//! and what it answers; [`Aggregate::accumulator`] starts one. NULLs are skipped (but by `count(*)` and `array_agg`), no input
//! answers NULL (but `count`). DISTINCT, FILTER and ORDER BY inside the call are the executor's: it feeds what remains, in order.
//!
//! Results have PostgreSQL's types: `sum(int4)` is int8, `sum(int8)` and every `avg` of exact numbers are numeric. Variances of
//! exact numbers are exact before the last division; of floats they are Youngs and Cramer's, as PostgreSQL's.

use super::context::EvalContext;
use super::datum::Datum;
use super::error::{SqlState, TypeError};
use super::functions_json::{json_text_as, to_json_as};
use super::interval::Interval;
use super::json::Json;
use super::numeric::{Class, Numeric, division_scale};
use super::numeric_math;
use super::ty::Type;
use std::sync::Arc;

/// Most bytes that one `array_agg` or `string_agg` may gather.
pub const GATHERED_BYTES_MAX: usize = 256 << 20;

/// An aggregate function over settled types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// `count(*)`
    CountRows,
    /// `count(x)`
    Count,
    /// `sum`
    Sum(Type),
    /// `avg`
    Avg(Type),
    /// `min`
    Min,
    /// `max`
    Max,
    /// `bool_and`, `every`
    BoolAnd,
    /// `bool_or`
    BoolOr,
    /// `bit_and`
    BitAnd,
    /// `bit_or`
    BitOr,
    /// `string_agg(text, text)`
    StringAgg,
    /// `array_agg` over an element type
    ArrayAgg(Type),
    /// `jsonb_agg` over a type
    JsonbAgg(Type),
    /// `json_agg` over a type
    JsonAgg(Type),
    /// Standard deviations and variances
    Spread(Spread, Type),
}

/// Which measure of spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// `stddev`, `stddev_samp`
    SampleDeviation,
    /// `stddev_pop`
    PopulationDeviation,
    /// `variance`, `var_samp`
    SampleVariance,
    /// `var_pop`
    PopulationVariance,
}

/// What an aggregate call means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedAggregate {
    /// The function.
    pub aggregate: Aggregate,
    /// The types that its arguments must be converted to.
    pub args: Vec<Type>,
    /// The type of its answer.
    pub result: Type,
}

/// True for the names of aggregates.
pub fn is_aggregate(name: &str) -> bool {
    const NAMES: [&str; 20] = [
        "count",
        "sum",
        "avg",
        "min",
        "max",
        "bool_and",
        "every",
        "bool_or",
        "bit_and",
        "bit_or",
        "string_agg",
        "array_agg",
        "jsonb_agg",
        "json_agg",
        "stddev",
        "stddev_samp",
        "stddev_pop",
        "variance",
        "var_samp",
        "var_pop",
    ];
    NAMES.contains(&name)
}

/// The aggregate of that name over arguments of these types (`count(*)` has none); `None` if there is none: 42883.
pub fn resolve_aggregate(name: &str, args: &[Type]) -> Option<ResolvedAggregate> {
    use Aggregate::*;
    let args: Vec<Type> = args.iter().map(|ty| ty.base()).collect();
    let found = |aggregate, args: &[Type], result| {
        Some(ResolvedAggregate { aggregate, args: args.to_vec(), result })
    };
    let spread = |kind| {
        let ty = numeric_or_float(*args.first()?)?;
        let result = if ty == Type::Float8 { Type::Float8 } else { Type::Numeric };
        (args.len() == 1).then_some(())?;
        found(Spread(kind, result), &[ty], result)
    };
    match (name, args.as_slice()) {
        ("count", []) => found(CountRows, &[], Type::Int8),
        ("count", [ty]) => found(Count, &[known(*ty)], Type::Int8),
        ("sum", [ty]) => {
            let (ty, result) = match ty {
                Type::Int2 | Type::Int4 => (*ty, Type::Int8),
                Type::Int8 | Type::Numeric => (*ty, Type::Numeric),
                Type::Float4 | Type::Float8 | Type::Interval => (*ty, *ty),
                Type::Time => (Type::Interval, Type::Interval),
                _ => return None,
            };
            found(Sum(ty), &[ty], result)
        }
        ("avg", [ty]) => {
            let (ty, result) = match ty {
                Type::Int2 | Type::Int4 | Type::Int8 | Type::Numeric => (*ty, Type::Numeric),
                Type::Float4 | Type::Float8 => (Type::Float8, Type::Float8),
                Type::Interval | Type::Time => (Type::Interval, Type::Interval),
                _ => return None,
            };
            found(Avg(ty), &[ty], result)
        }
        ("min" | "max", [ty]) => {
            let ty = match ty {
                Type::Varchar | Type::Name | Type::Unknown => Type::Text,
                Type::Bool | Type::Uuid | Type::Json | Type::Jsonb | Type::Bytea | Type::Record => {
                    return None;
                }
                other => *other,
            };
            found(if name == "min" { Min } else { Max }, &[ty], ty)
        }
        ("bool_and" | "every", [Type::Bool | Type::Unknown]) => {
            found(BoolAnd, &[Type::Bool], Type::Bool)
        }
        ("bool_or", [Type::Bool | Type::Unknown]) => found(BoolOr, &[Type::Bool], Type::Bool),
        ("bit_and", [ty @ (Type::Int2 | Type::Int4 | Type::Int8)]) => found(BitAnd, &[*ty], *ty),
        ("bit_or", [ty @ (Type::Int2 | Type::Int4 | Type::Int8)]) => found(BitOr, &[*ty], *ty),
        ("string_agg", [ty, delimiter]) if is_text(*ty) && is_text(*delimiter) => {
            found(StringAgg, &[Type::Text, Type::Text], Type::Text)
        }
        ("array_agg", [ty]) => {
            let element = known(*ty);
            match element {
                // Arrays of one shape become an array of one dimension more.
                Type::Array(_) => found(ArrayAgg(element), &[element], element),
                element => found(ArrayAgg(element), &[element], element.array()?),
            }
        }
        ("jsonb_agg", [ty]) => found(JsonbAgg(known(*ty)), &[known(*ty)], Type::Jsonb),
        ("json_agg", [ty]) => found(JsonAgg(known(*ty)), &[known(*ty)], Type::Json),
        ("stddev" | "stddev_samp", _) => spread(self::Spread::SampleDeviation),
        ("stddev_pop", _) => spread(self::Spread::PopulationDeviation),
        ("variance" | "var_samp", _) => spread(self::Spread::SampleVariance),
        ("var_pop", _) => spread(self::Spread::PopulationVariance),
        _ => None,
    }
}

fn known(ty: Type) -> Type {
    if ty == Type::Unknown { Type::Text } else { ty }
}

fn is_text(ty: Type) -> bool {
    ty.is_string() || matches!(ty, Type::Unknown | Type::Char)
}

fn numeric_or_float(ty: Type) -> Option<Type> {
    match ty {
        Type::Int2 | Type::Int4 | Type::Int8 | Type::Numeric => Some(ty),
        Type::Float4 | Type::Float8 => Some(Type::Float8),
        _ => None,
    }
}

/// The state of one aggregate over one group.
#[derive(Clone, Debug)]
pub struct Accumulator {
    aggregate: Aggregate,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Count(i64),
    /// Integers, exactly: 2^63 of them cannot overflow it.
    Integers {
        sum: i128,
        count: i64,
    },
    Numerics {
        sum: Numeric,
        count: i64,
    },
    Floats {
        sum: f64,
        count: i64,
        squares: f64,
    },
    Float4s {
        sum: f32,
        count: i64,
    },
    Intervals {
        sum: Interval,
        count: i64,
    },
    /// Exact sums for variances.
    Exact {
        count: i64,
        sum: Numeric,
        squares: Numeric,
    },
    Best(Option<Datum>),
    Text {
        text: Option<String>,
    },
    Values {
        values: Vec<Datum>,
        bytes: usize,
    },
    Json(Option<Vec<Json>>),
    /// The text of an array that has not ended.
    JsonText(Option<String>),
}

impl Aggregate {
    /// An accumulator that has seen nothing.
    pub fn accumulator(self) -> Accumulator {
        let state = match self {
            Aggregate::CountRows | Aggregate::Count => State::Count(0),
            Aggregate::Sum(ty) | Aggregate::Avg(ty) => match ty {
                Type::Numeric => State::Numerics { sum: Numeric::ZERO, count: 0 },
                Type::Float4 => State::Float4s { sum: 0.0, count: 0 },
                Type::Float8 => State::Floats { sum: 0.0, count: 0, squares: 0.0 },
                Type::Interval => State::Intervals { sum: Interval::default(), count: 0 },
                _ => State::Integers { sum: 0, count: 0 },
            },
            Aggregate::Min | Aggregate::Max => State::Best(None),
            Aggregate::BoolAnd | Aggregate::BoolOr => State::Best(None),
            Aggregate::BitAnd | Aggregate::BitOr => State::Best(None),
            Aggregate::StringAgg => State::Text { text: None },
            Aggregate::ArrayAgg(_) => State::Values { values: Vec::new(), bytes: 0 },
            Aggregate::JsonbAgg(_) => State::Json(None),
            Aggregate::JsonAgg(_) => State::JsonText(None),
            Aggregate::Spread(_, Type::Float8) => {
                State::Floats { sum: 0.0, count: 0, squares: 0.0 }
            }
            Aggregate::Spread(..) => {
                State::Exact { count: 0, sum: Numeric::ZERO, squares: Numeric::ZERO }
            }
        };
        Accumulator { aggregate: self, state }
    }
}

fn mismatch() -> TypeError {
    super::registry::arg::mismatch()
}

impl Accumulator {
    /// Takes the arguments of one row. 22003 when a sum leaves its type, 54000 when too much is gathered.
    pub fn add(&mut self, args: &[Datum], context: &dyn EvalContext) -> Result<(), TypeError> {
        if self.aggregate == Aggregate::CountRows {
            if let State::Count(count) = &mut self.state {
                *count += 1;
            }
            return Ok(());
        }
        let value = args.first().ok_or_else(mismatch)?;
        let keeps_null = matches!(
            self.aggregate,
            Aggregate::ArrayAgg(_) | Aggregate::JsonAgg(_) | Aggregate::JsonbAgg(_)
        );
        if value.is_null() && !keeps_null {
            return Ok(());
        }
        match &mut self.state {
            State::Count(count) => *count += 1,
            State::Integers { sum, count } => {
                *sum += i128::from(value.as_i64().ok_or_else(mismatch)?);
                *count += 1;
            }
            State::Numerics { sum, count } => {
                *sum = sum.add(&value.as_numeric().ok_or_else(mismatch)?)?;
                *count += 1;
            }
            State::Float4s { sum, count } => {
                let Datum::Float4(value) = value else { return Err(mismatch()) };
                let before = *sum;
                *sum += value;
                if sum.is_infinite() && before.is_finite() && value.is_finite() {
                    return Err(super::operators::overflow());
                }
                *count += 1;
            }
            State::Floats { sum, count, squares } => {
                add_float(sum, count, squares, value.as_f64().ok_or_else(mismatch)?)?;
            }
            State::Intervals { sum, count } => {
                let Datum::Interval(value) = value else { return Err(mismatch()) };
                *sum = sum.add(value)?;
                *count += 1;
            }
            State::Exact { count, sum, squares } => {
                let value = value.as_numeric().ok_or_else(mismatch)?;
                *squares = squares.add(&value.mul(&value)?)?;
                *sum = sum.add(&value)?;
                *count += 1;
            }
            State::Best(best) => choose(self.aggregate, best, value),
            State::Text { text } => {
                let value = value.as_str().ok_or_else(mismatch)?;
                match text {
                    None => *text = Some(value.to_string()),
                    Some(text) => {
                        text.push_str(args.get(1).and_then(Datum::as_str).unwrap_or(""));
                        text.push_str(value);
                        limit(text.len())?;
                    }
                }
            }
            State::Values { values, bytes } => {
                *bytes += value.memory_bytes();
                limit(*bytes)?;
                values.push(value.clone());
            }
            State::Json(values) => {
                let Aggregate::JsonbAgg(ty) = self.aggregate else { return Err(mismatch()) };
                values.get_or_insert_default().push(to_json_as(value, ty, context)?);
            }
            State::JsonText(text) => {
                let Aggregate::JsonAgg(ty) = self.aggregate else { return Err(mismatch()) };
                // The line breaks between what is structured are PostgreSQL's.
                let structured = matches!(value, Datum::Record(_) | Datum::Array(_));
                let before = match (&text, structured) {
                    (None, _) => "[",
                    (Some(_), true) => ", \n ",
                    (Some(_), false) => ", ",
                };
                let text = text.get_or_insert_default();
                text.push_str(before);
                text.push_str(&json_text_as(value, ty, context)?);
                limit(text.len())?;
            }
        }
        Ok(())
    }

    /// Approximate bytes of memory beyond the accumulator itself.
    pub fn memory_bytes(&self) -> usize {
        match &self.state {
            State::Text { text } | State::JsonText(text) => text.as_ref().map_or(0, String::len),
            State::Values { bytes, .. } => *bytes,
            State::Json(values) => values.iter().flatten().map(Json::memory_bytes).sum(),
            State::Best(best) => best.as_ref().map_or(0, Datum::memory_bytes),
            _ => 0,
        }
    }

    /// The answer.
    pub fn finish(self) -> Result<Datum, TypeError> {
        let is_avg = matches!(self.aggregate, Aggregate::Avg(_));
        Ok(match self.state {
            State::Count(count) => Datum::Int8(count),
            State::Integers { count: 0, .. } | State::Numerics { count: 0, .. } => Datum::Null,
            State::Floats { count: 0, .. } | State::Float4s { count: 0, .. } => Datum::Null,
            State::Intervals { count: 0, .. } => Datum::Null,
            State::Integers { sum, count } if is_avg => {
                Datum::Numeric(Numeric::from_i128(sum).div(&Numeric::from_i64(count))?)
            }
            State::Integers { sum, .. } => match self.aggregate {
                Aggregate::Sum(Type::Int8) => Datum::Numeric(Numeric::from_i128(sum)),
                _ => {
                    Datum::Int8(i64::try_from(sum).map_err(|_| TypeError::out_of_range("bigint"))?)
                }
            },
            State::Numerics { sum, count } if is_avg => {
                Datum::Numeric(sum.div(&Numeric::from_i64(count))?)
            }
            State::Numerics { sum, .. } => Datum::Numeric(sum),
            State::Float4s { sum, .. } => Datum::Float4(sum),
            State::Intervals { sum, count } if is_avg => Datum::Interval(sum.div(count as f64)?),
            State::Intervals { sum, .. } => Datum::Interval(sum),
            State::Floats { sum, count, squares } => match self.aggregate {
                Aggregate::Spread(spread, _) => float_spread(spread, count, squares),
                Aggregate::Avg(_) => Datum::Float8(sum / count as f64),
                _ => Datum::Float8(sum),
            },
            State::Exact { count, sum, squares } => match self.aggregate {
                Aggregate::Spread(spread, _) => exact_spread(spread, count, &sum, &squares)?,
                _ => return Err(mismatch()),
            },
            State::Best(best) => best.unwrap_or(Datum::Null),
            State::Text { text } => text.map_or(Datum::Null, Datum::text),
            State::Values { values, .. } => gathered(self.aggregate, values)?,
            State::Json(None) => Datum::Null,
            State::Json(Some(values)) => Datum::Jsonb(Arc::new(Json::Array(values))),
            State::JsonText(text) => {
                text.map_or(Datum::Null, |text| Datum::text(format!("{text}]")))
            }
        })
    }
}

fn limit(bytes: usize) -> Result<(), TypeError> {
    if bytes > GATHERED_BYTES_MAX {
        return Err(TypeError::new(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!("an aggregate gathered more than {GATHERED_BYTES_MAX} bytes"),
        ));
    }
    Ok(())
}

fn choose(aggregate: Aggregate, best: &mut Option<Datum>, value: &Datum) {
    let Some(current) = best else {
        *best = Some(value.clone());
        return;
    };
    let next = match (aggregate, &*current, value) {
        (Aggregate::Min, current, value) => (value < current).then(|| value.clone()),
        (Aggregate::Max, current, value) => (value > current).then(|| value.clone()),
        (Aggregate::BoolAnd, Datum::Bool(a), Datum::Bool(b)) => Some(Datum::Bool(*a && *b)),
        (Aggregate::BoolOr, Datum::Bool(a), Datum::Bool(b)) => Some(Datum::Bool(*a || *b)),
        (Aggregate::BitAnd, Datum::Int2(a), Datum::Int2(b)) => Some(Datum::Int2(a & b)),
        (Aggregate::BitAnd, Datum::Int4(a), Datum::Int4(b)) => Some(Datum::Int4(a & b)),
        (Aggregate::BitAnd, Datum::Int8(a), Datum::Int8(b)) => Some(Datum::Int8(a & b)),
        (Aggregate::BitOr, Datum::Int2(a), Datum::Int2(b)) => Some(Datum::Int2(a | b)),
        (Aggregate::BitOr, Datum::Int4(a), Datum::Int4(b)) => Some(Datum::Int4(a | b)),
        (Aggregate::BitOr, Datum::Int8(a), Datum::Int8(b)) => Some(Datum::Int8(a | b)),
        _ => None,
    };
    if next.is_some() {
        *best = next;
    }
}

/// Youngs and Cramer: the sum of squared differences from the mean, without the cancellation of the schoolbook formula.
fn add_float(
    sum: &mut f64,
    count: &mut i64,
    squares: &mut f64,
    value: f64,
) -> Result<(), TypeError> {
    let before = *sum;
    *sum += value;
    *count += 1;
    if *count > 1 {
        let n = *count as f64;
        let distance = value * n - *sum;
        *squares += distance * distance / (n * (n - 1.0));
        if sum.is_infinite() && before.is_finite() && value.is_finite() {
            return Err(super::operators::overflow());
        }
    } else if !value.is_finite() {
        *squares = f64::NAN;
    }
    Ok(())
}

fn float_spread(spread: Spread, count: i64, squares: f64) -> Datum {
    let sample = matches!(spread, Spread::SampleDeviation | Spread::SampleVariance);
    if sample && count < 2 {
        return Datum::Null;
    }
    let variance = squares / (count - i64::from(sample)) as f64;
    let deviation = matches!(spread, Spread::SampleDeviation | Spread::PopulationDeviation);
    Datum::Float8(if deviation { variance.sqrt() } else { variance })
}

/// `(n * sum(x^2) - sum(x)^2) / (n * (n - 1))`, or `/ n^2`.
fn exact_spread(
    spread: Spread,
    count: i64,
    sum: &Numeric,
    squares: &Numeric,
) -> Result<Datum, TypeError> {
    let sample = matches!(spread, Spread::SampleDeviation | Spread::SampleVariance);
    if count == 0 || (sample && count < 2) {
        return Ok(Datum::Null);
    }
    if sum.class() != Class::Finite {
        return Ok(Datum::Numeric(Numeric::NAN));
    }
    let n = Numeric::from_i64(count);
    let numerator = n.mul(squares)?.sub(&sum.mul(sum)?)?;
    if numerator.signum() != Some(1) {
        return Ok(Datum::Numeric(Numeric::ZERO));
    }
    let divisor = n.mul(&Numeric::from_i64(count - i64::from(sample)))?;
    let (Some(a), Some(b)) = (numerator.to_finite(), divisor.to_finite()) else {
        return Err(mismatch());
    };
    let scale = division_scale(&a, &b);
    let deviation = matches!(spread, Spread::SampleDeviation | Spread::PopulationDeviation);
    let variance = a.div(&b, scale);
    let result = if deviation { numeric_math::sqrt(&variance, scale) } else { variance };
    result.into_numeric().map(Datum::Numeric)
}

fn gathered(aggregate: Aggregate, values: Vec<Datum>) -> Result<Datum, TypeError> {
    let Aggregate::ArrayAgg(element) = aggregate else { return Err(mismatch()) };
    if values.is_empty() {
        return Ok(Datum::Null);
    }
    let Type::Array(inner) = element else { return Ok(Datum::array(element, values)) };
    let arrays: Option<Vec<_>> = values.iter().map(Datum::as_array).collect();
    let arrays = arrays.ok_or_else(|| {
        TypeError::new(SqlState::NULL_VALUE_NOT_ALLOWED, "cannot accumulate null arrays")
    })?;
    let first = arrays[0].dims().to_vec();
    if first.is_empty() {
        return Err(TypeError::new(
            SqlState::ARRAY_SUBSCRIPT_ERROR,
            "cannot accumulate empty arrays",
        ));
    }
    if arrays.iter().any(|array| array.dims() != first.as_slice()) {
        return Err(TypeError::new(
            SqlState::ARRAY_SUBSCRIPT_ERROR,
            "cannot accumulate arrays of different dimensionality",
        ));
    }
    let mut dims = vec![super::Dim { length: arrays.len(), lower: 1 }];
    dims.extend(first);
    let elements = arrays.iter().flat_map(|array| array.elements().iter().cloned()).collect();
    Ok(Datum::Array(Arc::new(super::ArrayValue::with_dims(*inner, dims, elements))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{FixedContext, text};

    fn run(name: &str, ty: Type, values: &[&str]) -> String {
        let context = FixedContext::default();
        let found = resolve_aggregate(name, &[ty]).expect(name);
        let mut accumulator = found.aggregate.accumulator();
        for value in values {
            let value = match *value {
                "NULL" => Datum::Null,
                text => text::parse(text, found.args[0], -1, &context).expect(text),
            };
            accumulator.add(&[value], &context).expect("adds");
        }
        let answer = accumulator.finish().expect("answers");
        if answer.is_null() {
            "NULL".to_string()
        } else {
            text::to_string(&answer, found.result, &context)
        }
    }

    #[test]
    fn answers_are_those_of_postgres() {
        assert_eq!(run("sum", Type::Int4, &["2147483647", "1", "NULL"]), "2147483648");
        assert_eq!(run("sum", Type::Int8, &["9223372036854775807", "1"]), "9223372036854775808");
        assert_eq!(run("avg", Type::Int4, &["1", "2"]), "1.5000000000000000");
        assert_eq!(run("avg", Type::Int4, &["1", "1", "2"]), "1.3333333333333333");
        assert_eq!(run("avg", Type::Float8, &["1", "2"]), "1.5");
        assert_eq!(run("stddev", Type::Int4, &["1", "2", "3", "4"]), "1.2909944487358056");
        assert_eq!(run("variance", Type::Int4, &["1", "2", "3", "4"]), "1.6666666666666667");
        assert_eq!(run("var_pop", Type::Float8, &["1", "2", "3", "4"]), "1.25");
        assert_eq!(run("stddev", Type::Int4, &["1"]), "NULL");
        assert_eq!(run("count", Type::Text, &["a", "NULL"]), "1");
        assert_eq!(run("max", Type::Text, &["a", "b", "NULL"]), "b");
        assert_eq!(run("array_agg", Type::Int4, &["1", "NULL"]), "{1,NULL}");
        assert_eq!(
            run("array_agg", Type::Array(&Type::Int4), &["{1,2}", "{3,4}"]),
            "{{1,2},{3,4}}"
        );
        assert_eq!(run("bool_and", Type::Bool, &["t", "f"]), "f");
        assert_eq!(run("sum", Type::Int4, &[]), "NULL");
        assert_eq!(run("jsonb_agg", Type::Int4, &["1", "NULL"]), "[1, null]");
    }
}
