//! Functions that build and take apart JSON: a value.

use super::context::EvalContext;
use super::datetime as dt;
use super::datum::{Datum, RecordValue};
use super::error::TypeError;
use super::functions_array::type_of;
use super::json::{self, Json};
use super::numeric::Numeric;
use super::registry::{Function, Volatility, arg, pure};
use super::text;
use super::ty::Type::{self, Any, Int4, Jsonb, Text};
use std::sync::Arc;

type Answer = Result<Datum, TypeError>;
const J: Type = Type::Json;

pub(super) const TABLE: &[Function] = &[
    pure("jsonb_typeof", &[Jsonb], Text, |_, a| Ok(Datum::text(arg::json(a, 0)?.type_name()))),
    pure("json_typeof", &[J], Text, |_, a| Ok(Datum::text(arg::json(a, 0)?.type_name()))),
    pure("jsonb_array_length", &[Jsonb], Int4, |_, a| length(a)),
    pure("json_array_length", &[J], Int4, |_, a| length(a)),
    stable(pure("to_jsonb", &[Any], Jsonb, |c, a| Ok(jsonb(to_json(&a[0], c)?)))),
    stable(pure("to_json", &[Any], J, |c, a| Ok(Datum::text(json_text(&a[0], c)?)))),
    build(pure("jsonb_build_object", &[], Jsonb, |c, a| Ok(jsonb(object(a, c)?)))),
    build(pure("jsonb_build_array", &[], Jsonb, |c, a| Ok(jsonb(Json::Array(all(a, c)?))))),
    build(pure("json_build_object", &[], J, build_json_object)),
    build(pure("json_build_array", &[], J, |c, a| {
        let parts: Result<Vec<String>, TypeError> = a.iter().map(|one| json_text(one, c)).collect();
        Ok(Datum::text(format!("[{}]", parts?.join(", "))))
    })),
    pure("jsonb_extract_path", &[Jsonb], Jsonb, |_, a| {
        Ok(path(&*arg::json(a, 0)?, &a[1..])?.map_or(Datum::Null, |json| jsonb(json.clone())))
    })
    .with_variadic(Text),
    pure("jsonb_extract_path_text", &[Jsonb], Text, |_, a| {
        Ok(path(&*arg::json(a, 0)?, &a[1..])?
            .and_then(Json::to_text)
            .map_or(Datum::Null, Datum::text))
    })
    .with_variadic(Text),
    pure("jsonb_strip_nulls", &[Jsonb], Jsonb, |_, a| Ok(jsonb(stripped(&*arg::json(a, 0)?)))),
    pure("jsonb_pretty", &[Jsonb], Text, |_, a| {
        let mut out = String::new();
        pretty(&mut out, &*arg::json(a, 0)?, 0);
        Ok(Datum::text(out))
    }),
];

const fn stable(function: Function) -> Function {
    function.with_volatility(Volatility::Stable)
}

const fn build(function: Function) -> Function {
    stable(function.called_on_null().with_variadic(Any))
}

fn jsonb(json: Json) -> Datum {
    Datum::Jsonb(Arc::new(json))
}

/// A `json` value of what was found.
pub(super) fn as_json(found: Option<&Json>) -> Datum {
    found.map_or(Datum::Null, |json| Datum::text(json.to_string()))
}

/// What a path of texts leads to. The path is one text array, or texts one by one.
pub(super) fn path<'a>(json: &'a Json, steps: &[Datum]) -> Result<Option<&'a Json>, TypeError> {
    let steps: Vec<&Datum> = match steps {
        [Datum::Array(array)] => array.elements().iter().collect(),
        steps => steps.iter().collect(),
    };
    let mut at = Some(json);
    for step in steps {
        at = at.and_then(|json| json.step(step.as_str()?));
    }
    Ok(at)
}

fn length(args: &[Datum]) -> Answer {
    match &*arg::json(args, 0)? {
        Json::Array(elements) => Ok(Datum::Int4(elements.len() as i32)),
        Json::Object(_) => Err(TypeError::parameter("cannot get array length of a non-array")),
        _ => Err(TypeError::parameter("cannot get array length of a scalar")),
    }
}

/// Functions that make JSON of whatever they are given: they must know which text is `json`.
pub fn makes_json(name: &str) -> bool {
    matches!(
        name,
        "json_build_object" | "jsonb_build_object" | "json_build_array" | "jsonb_build_array"
    )
}

/// A SQL value as JSON: numbers and booleans as such, arrays nested, everything else its text.
pub fn to_json(value: &Datum, context: &dyn EvalContext) -> Result<Json, TypeError> {
    to_json_as(value, type_of(value), context)
}

fn json_text(value: &Datum, context: &dyn EvalContext) -> Result<String, TypeError> {
    json_text_as(value, type_of(value), context)
}

/// A SQL value as the text of a `json` value: what is `json` stays as it was written, fields and keys in their order.
pub(super) fn json_text_as(
    value: &Datum,
    ty: Type,
    context: &dyn EvalContext,
) -> Result<String, TypeError> {
    Ok(match value {
        Datum::Text(text) if ty == Type::Json => text.to_string(),
        Datum::Jsonb(json) => json.to_string(),
        Datum::Array(array) => {
            let mut parts = Vec::new();
            for element in array.elements() {
                parts.push(json_text_as(element, array.element_type(), context)?);
            }
            for dim in array.dims().iter().skip(1).rev() {
                let rows = parts.chunks(dim.length).map(|row| format!("[{}]", row.join(",")));
                parts = rows.collect();
            }
            format!("[{}]", parts.join(","))
        }
        Datum::Record(record) => match record.lent() {
            Some((ty, value)) => json_text_as(value, *ty, context)?,
            None => {
                let mut parts = Vec::new();
                for (index, (ty, field)) in record.fields.iter().enumerate() {
                    let mut part = String::new();
                    json::quote(&mut part, &field_name(record, index));
                    part.push(':');
                    part.push_str(&json_text_as(field, *ty, context)?);
                    parts.push(part);
                }
                format!("{{{}}}", parts.join(","))
            }
        },
        other => compact(&to_json_as(other, ty, context)?),
    })
}

/// A table's row has names; those of ROW(...) are `f1`, `f2`, ...
fn field_name(record: &RecordValue, index: usize) -> String {
    let named = record.names.as_ref().and_then(|names| names.get(index));
    named.map_or_else(|| format!("f{}", index + 1), ToString::to_string)
}

pub(super) fn to_json_as(
    value: &Datum,
    ty: Type,
    context: &dyn EvalContext,
) -> Result<Json, TypeError> {
    let timestamp = |write: &dyn Fn(&mut String)| {
        let mut out = String::new();
        write(&mut out);
        Json::String(out)
    };
    Ok(match value {
        Datum::Null => Json::Null,
        Datum::Bool(value) => Json::Bool(*value),
        Datum::Jsonb(json) => (**json).clone(),
        Datum::Text(text) if ty == Type::Json => Json::parse(text)?,
        Datum::Int2(_) | Datum::Int4(_) | Datum::Int8(_) => {
            Json::Number(value.as_numeric().ok_or_else(arg::mismatch)?)
        }
        Datum::Numeric(number) if number.to_finite().is_some() => Json::Number(number.clone()),
        Datum::Float4(_) | Datum::Float8(_) if value.as_f64().is_some_and(f64::is_finite) => {
            Json::Number(Numeric::parse(&text::to_string(value, ty, context))?)
        }
        Datum::Timestamp(us) => timestamp(&|out| dt::write_timestamp_json(out, *us)),
        Datum::TimestampTz(us) => {
            timestamp(&|out| dt::write_timestamptz_json(out, *us, context.time_zone()))
        }
        Datum::Array(array) => {
            let elements: Result<Vec<Json>, TypeError> = array
                .elements()
                .iter()
                .map(|element| to_json_as(element, array.element_type(), context))
                .collect();
            nested(elements?, &array.dims().iter().map(|dim| dim.length).collect::<Vec<_>>())
        }
        Datum::Record(record) => {
            if let Some((ty, value)) = record.lent() {
                return to_json_as(value, *ty, context);
            }
            let fields: Result<Vec<(String, Json)>, TypeError> = record
                .fields
                .iter()
                .enumerate()
                .map(|(index, (ty, field))| {
                    Ok((field_name(record, index), to_json_as(field, *ty, context)?))
                })
                .collect();
            Json::object(fields?)
        }
        other => Json::String(text::to_string(other, ty, context)),
    })
}

/// Elements folded into arrays of arrays by the lengths of the dimensions.
fn nested(mut elements: Vec<Json>, lengths: &[usize]) -> Json {
    for length in lengths.iter().skip(1).rev() {
        elements = elements.chunks(*length).map(|row| Json::Array(row.to_vec())).collect();
    }
    Json::Array(elements)
}

/// JSON as `to_json` prints it: no blanks.
fn compact(value: &Json) -> String {
    let quoted = |text: &str| {
        let mut out = String::new();
        json::quote(&mut out, text);
        out
    };
    match value {
        Json::Array(elements) => {
            format!("[{}]", elements.iter().map(compact).collect::<Vec<_>>().join(","))
        }
        Json::Object(object) => {
            let fields =
                object.fields().iter().map(|(k, v)| format!("{}:{}", quoted(k), compact(v)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

fn all(args: &[Datum], context: &dyn EvalContext) -> Result<Vec<Json>, TypeError> {
    args.iter().map(|value| to_json(value, context)).collect()
}

fn keys_and_values<'a>(
    args: &'a [Datum],
    context: &dyn EvalContext,
) -> Result<Vec<(String, &'a Datum)>, TypeError> {
    if !args.len().is_multiple_of(2) {
        return Err(TypeError::parameter("argument list must have even number of elements")
            .with_hint("The arguments of jsonb_build_object() must consist of alternating keys and values."));
    }
    let pairs = args.chunks(2).enumerate().map(|(index, pair)| match &pair[0] {
        Datum::Null => {
            Err(TypeError::parameter(format!("argument {}: key must not be null", index * 2 + 1)))
        }
        Datum::Record(_) | Datum::Array(_) | Datum::Jsonb(_) => {
            Err(TypeError::parameter("key value must be scalar, not array, composite, or json"))
        }
        key => Ok((text::to_string(key, type_of(key), context), &pair[1])),
    });
    pairs.collect()
}

fn object(args: &[Datum], context: &dyn EvalContext) -> Result<Json, TypeError> {
    let pairs = keys_and_values(args, context)?.into_iter();
    let fields: Result<Vec<(String, Json)>, TypeError> =
        pairs.map(|(key, value)| Ok((key, to_json(value, context)?))).collect();
    Ok(Json::object(fields?))
}

/// `{"k" : v, ..}`: json keeps the written order, and these blanks are PostgreSQL's.
fn build_json_object(context: &dyn EvalContext, args: &[Datum]) -> Answer {
    let mut parts = Vec::new();
    for (key, value) in keys_and_values(args, context)? {
        let mut part = String::new();
        json::quote(&mut part, &key);
        part.push_str(" : ");
        part.push_str(&json_text(value, context)?);
        parts.push(part);
    }
    Ok(Datum::text(format!("{{{}}}", parts.join(", "))))
}

fn stripped(json: &Json) -> Json {
    match json {
        Json::Object(object) => {
            let kept = object.fields().iter().filter(|(_, value)| !matches!(value, Json::Null));
            Json::object(kept.map(|(key, value)| (key.clone(), stripped(value))).collect())
        }
        Json::Array(elements) => Json::Array(elements.iter().map(stripped).collect()),
        scalar => scalar.clone(),
    }
}

fn pretty(out: &mut String, json: &Json, depth: usize) {
    const INDENT: usize = 4;
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', depth * INDENT));
    };
    match json {
        Json::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                line(out, depth + 1);
                pretty(out, element, depth + 1);
            }
            line(out, depth);
            out.push(']');
        }
        Json::Object(object) => {
            out.push('{');
            for (index, (key, value)) in object.fields().iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                line(out, depth + 1);
                json::quote(out, key);
                out.push_str(": ");
                pretty(out, value, depth + 1);
            }
            line(out, depth);
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
