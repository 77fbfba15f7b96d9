//! Functions over arrays: a value. Names and results as in PostgreSQL's manual 9.19.

use super::datum::{ArrayValue, Datum, Dim};
use super::error::{SqlState, TypeError};
use super::registry::{Function, arg, pure};
use super::text;
use super::ty::Type::{self, AnyArray, AnyElement, Int4, Text};
use std::sync::Arc;

type Answer = Result<Datum, TypeError>;
const TEXTS: Type = Type::Array(&Text);

pub(super) const TABLE: &[Function] = &[
    pure("array_length", &[AnyArray, Int4], Int4, |_, a| dimension(a, |dim| dim.length as i64)),
    pure("array_lower", &[AnyArray, Int4], Int4, |_, a| dimension(a, |dim| i64::from(dim.lower))),
    pure("array_upper", &[AnyArray, Int4], Int4, |_, a| {
        dimension(a, |dim| i64::from(dim.lower) + dim.length as i64 - 1)
    }),
    pure("array_ndims", &[AnyArray], Int4, |_, a| {
        let count = arg::array(a, 0)?.dims().len() as i32;
        Ok(if count == 0 { Datum::Null } else { Datum::Int4(count) })
    }),
    pure("cardinality", &[AnyArray], Int4, |_, a| Ok(Datum::Int4(arg::array(a, 0)?.len() as i32))),
    pure("array_append", &[AnyArray, AnyElement], AnyArray, |_, a| append(&a[0], &a[1]))
        .called_on_null(),
    pure("array_prepend", &[AnyElement, AnyArray], AnyArray, |_, a| prepend(&a[0], &a[1]))
        .called_on_null(),
    pure("array_cat", &[AnyArray, AnyArray], AnyArray, |_, a| concat(&a[0], &a[1]))
        .called_on_null(),
    pure("array_position", &[AnyArray, AnyElement], Int4, |_, a| position(a, i64::MIN))
        .called_on_null(),
    pure("array_position", &[AnyArray, AnyElement, Int4], Int4, |_, a| {
        position(a, arg::int(a, 2)?)
    })
    .called_on_null(),
    pure("array_positions", &[AnyArray, AnyElement], Type::Array(&Int4), |_, a| positions(a))
        .called_on_null(),
    pure("array_remove", &[AnyArray, AnyElement], AnyArray, |_, a| {
        rebuilt(a, |element| (element != &a[1]).then(|| element.clone()))
    })
    .called_on_null(),
    pure("array_replace", &[AnyArray, AnyElement, AnyElement], AnyArray, |_, a| {
        rebuilt(a, |element| Some(if element == &a[1] { a[2].clone() } else { element.clone() }))
    })
    .called_on_null(),
    pure("array_to_string", &[AnyArray, Text], Text, |c, a| join(c, a, None)),
    pure("array_to_string", &[AnyArray, Text, Text], Text, |c, a| {
        if a[0].is_null() || a[1].is_null() {
            return Ok(Datum::Null);
        }
        join(c, a, a[2].as_str())
    })
    .called_on_null(),
    pure("string_to_array", &[Text, Text], TEXTS, |_, a| split(a, None)).called_on_null(),
    pure("string_to_array", &[Text, Text, Text], TEXTS, |_, a| split(a, a[2].as_str()))
        .called_on_null(),
];

fn dimension(args: &[Datum], fact: impl Fn(&Dim) -> i64) -> Answer {
    let wanted = usize::try_from(arg::int(args, 1)? - 1).ok();
    let dims = arg::array(args, 0)?.dims();
    let found = wanted.and_then(|index| dims.get(index));
    Ok(found.map_or(Datum::Null, |dim| Datum::Int4(fact(dim) as i32)))
}

/// `array || element`; a NULL array is an empty one.
pub(super) fn append(array: &Datum, element: &Datum) -> Answer {
    extended(array, element, |elements, element| elements.push(element))
}

/// `element || array`
pub(super) fn prepend(element: &Datum, array: &Datum) -> Answer {
    extended(array, element, |elements, element| elements.insert(0, element))
}

fn extended(array: &Datum, element: &Datum, add: fn(&mut Vec<Datum>, Datum)) -> Answer {
    let (mut elements, ty, lower) = match array {
        Datum::Null => (Vec::new(), type_of(element), 1),
        other => {
            let array = other.as_array().ok_or_else(arg::mismatch)?;
            if array.dims().len() > 1 {
                return Err(TypeError::new(
                    SqlState::DATA_EXCEPTION,
                    "argument must be empty or one-dimensional array",
                ));
            }
            let lower = array.dims().first().map_or(1, |dim| dim.lower);
            (array.elements().to_vec(), array.element_type(), lower)
        }
    };
    add(&mut elements, element.clone());
    Ok(Datum::Array(Arc::new(ArrayValue::with_lower(ty, elements, lower))))
}

/// The type that a value's variant stands for, when an array is made of it and nothing else says.
pub fn type_of(value: &Datum) -> Type {
    match value {
        Datum::Bool(_) => Type::Bool,
        Datum::Int2(_) => Type::Int2,
        Datum::Int4(_) => Type::Int4,
        Datum::Int8(_) => Type::Int8,
        Datum::Float4(_) => Type::Float4,
        Datum::Float8(_) => Type::Float8,
        Datum::Numeric(_) => Type::Numeric,
        Datum::Text(_) | Datum::Null => Type::Text,
        Datum::BpChar(_) => Type::BpChar,
        Datum::Bytea(_) => Type::Bytea,
        Datum::Uuid(_) => Type::Uuid,
        Datum::Date(_) => Type::Date,
        Datum::Time(_) => Type::Time,
        Datum::Timestamp(_) => Type::Timestamp,
        Datum::TimestampTz(_) => Type::TimestampTz,
        Datum::Interval(_) => Type::Interval,
        Datum::Jsonb(_) => Type::Jsonb,
        Datum::Oid(_) => Type::Oid,
        Datum::Array(array) => array.element_type().array().unwrap_or(Type::Text),
        Datum::Record(_) => Type::Record,
    }
}

/// `array || array`: of one depth end to end, or an array and one of its rows.
pub(super) fn concat(a: &Datum, b: &Datum) -> Answer {
    let (left, right) = match (a.as_array(), b.as_array()) {
        (Some(left), Some(right)) if left.is_empty() => {
            return Ok(if right.is_empty() { a.clone() } else { b.clone() });
        }
        (Some(_), Some(right)) if right.is_empty() => return Ok(a.clone()),
        (Some(left), Some(right)) => (left, right),
        (Some(_), None) => return Ok(a.clone()),
        (None, _) => return Ok(b.clone()),
    };
    let (x, y) = (left.dims(), right.dims());
    let lengths = |dims: &[Dim]| dims.iter().map(|dim| dim.length).collect::<Vec<_>>();
    let dims = if x.len() == y.len() && lengths(&x[1..]) == lengths(&y[1..]) {
        let mut dims = x.to_vec();
        dims[0].length += y[0].length;
        dims
    } else if x.len() == y.len() + 1 && lengths(&x[1..]) == lengths(y) {
        let mut dims = x.to_vec();
        dims[0].length += 1;
        dims
    } else if y.len() == x.len() + 1 && lengths(&y[1..]) == lengths(x) {
        let mut dims = y.to_vec();
        dims[0].length += 1;
        dims
    } else {
        return Err(TypeError::new(
            SqlState::ARRAY_SUBSCRIPT_ERROR,
            "cannot concatenate incompatible arrays",
        ));
    };
    let elements = [left.elements(), right.elements()].concat();
    Ok(Datum::Array(Arc::new(ArrayValue::with_dims(left.element_type(), dims, elements))))
}

fn one_dimensional(array: &ArrayValue, what: &str) -> Result<i32, TypeError> {
    match array.dims() {
        [] => Ok(1),
        [dim] => Ok(dim.lower),
        _ => Err(TypeError::unsupported(what)),
    }
}

fn position(args: &[Datum], from: i64) -> Answer {
    if args[0].is_null() {
        return Ok(Datum::Null);
    }
    let array = arg::array(args, 0)?;
    let lower = one_dimensional(
        array,
        "searching for elements in multidimensional arrays is not supported",
    )?;
    let mut places = array.elements().iter().zip(i64::from(lower)..);
    let found = places.find(|(element, at)| *at >= from && *element == &args[1]);
    Ok(found.map_or(Datum::Null, |(_, at)| Datum::Int4(at as i32)))
}

fn positions(args: &[Datum]) -> Answer {
    if args[0].is_null() {
        return Ok(Datum::Null);
    }
    let array = arg::array(args, 0)?;
    let lower = one_dimensional(
        array,
        "searching for elements in multidimensional arrays is not supported",
    )?;
    let places = array.elements().iter().zip(lower..);
    let found = places.filter(|(element, _)| *element == &args[1]).map(|(_, at)| Datum::Int4(at));
    Ok(Datum::array(Type::Int4, found.collect()))
}

fn rebuilt(args: &[Datum], change: impl Fn(&Datum) -> Option<Datum>) -> Answer {
    if args[0].is_null() {
        return Ok(Datum::Null);
    }
    let array = arg::array(args, 0)?;
    let lower =
        one_dimensional(array, "removing elements from multidimensional arrays is not supported")?;
    let elements = array.elements().iter().filter_map(change).collect();
    Ok(Datum::Array(Arc::new(ArrayValue::with_lower(array.element_type(), elements, lower))))
}

fn join(context: &dyn super::EvalContext, args: &[Datum], null: Option<&str>) -> Answer {
    let array = arg::array(args, 0)?;
    let ty = array.element_type();
    let parts = array.elements().iter().filter_map(|element| match element {
        Datum::Null => null.map(str::to_string),
        element => Some(text::to_string(element, ty, context)),
    });
    Ok(Datum::text(parts.collect::<Vec<_>>().join(arg::text(args, 1)?)))
}

fn split(args: &[Datum], null: Option<&str>) -> Answer {
    if args[0].is_null() {
        return Ok(Datum::Null);
    }
    let text = arg::text(args, 0)?;
    let part = |part: &str| if Some(part) == null { Datum::Null } else { Datum::text(part) };
    let parts = match args[1].as_str() {
        _ if text.is_empty() => Vec::new(),
        // A NULL delimiter takes every character apart; an empty one keeps the text whole.
        None => text.chars().map(|c| part(&c.to_string())).collect(),
        Some("") => vec![part(text)],
        Some(delimiter) => text.split(delimiter).map(part).collect(),
    };
    Ok(Datum::array(Type::Text, parts))
}

/// `a[i]`, `a[i][j]`: NULL outside the bounds, or with fewer subscripts than dimensions.
pub fn subscript(array: &ArrayValue, subscripts: &[i64]) -> Datum {
    if subscripts.len() != array.dims().len() {
        return Datum::Null;
    }
    let mut index = 0;
    for (dim, subscript) in array.dims().iter().zip(subscripts) {
        match usize::try_from(subscript - i64::from(dim.lower)) {
            Ok(at) if at < dim.length => index = index * dim.length + at,
            _ => return Datum::Null,
        }
    }
    array.elements()[index].clone()
}

/// `a[low:high]` of a one-dimensional array, counted from 1 as PostgreSQL's slices are. `None` leaves a bound open.
/// 0A000 for more dimensions.
pub fn slice(array: &ArrayValue, low: Option<i64>, high: Option<i64>) -> Answer {
    let lower =
        i64::from(one_dimensional(array, "slices of multidimensional arrays are not supported")?);
    let places = array.elements().iter().zip(lower..);
    let inside = places
        .filter(|(_, at)| low.is_none_or(|low| *at >= low) && high.is_none_or(|high| *at <= high));
    let elements = inside.map(|(element, _)| element.clone()).collect();
    Ok(Datum::array(array.element_type(), elements))
}
