//! Operators of jsonb and arrays: a value. Subscripts, containment, concatenation.
//!
//! `json` is read as jsonb for these: its duplicates and blanks do not survive `->`.

use crate::types::datum::Datum;
use crate::types::error::TypeError;
use crate::types::functions_array::{append, concat, prepend};
use crate::types::functions_json::{as_json, path};
use crate::types::json::Json;
use crate::types::registry::{Function, arg, pure};
use crate::types::ty::Type::{self, AnyArray, AnyElement, Bool, Int4, Jsonb, Text};
use std::sync::Arc;

const TEXTS: Type = Type::Array(&Text);
const J: Type = Type::Json;
type Answer = Result<Datum, TypeError>;

/// The operators of this room.
pub(in crate::types) const TABLE: &[Function] = &[
    pure("->", &[Jsonb, Text], Jsonb, |_, a| {
        Ok(as_jsonb(arg::json(a, 0)?.field(arg::text(a, 1)?)))
    }),
    pure("->", &[Jsonb, Int4], Jsonb, |_, a| {
        Ok(as_jsonb(arg::json(a, 0)?.element(arg::int(a, 1)?)))
    }),
    pure("->>", &[Jsonb, Text], Text, |_, a| Ok(as_text(arg::json(a, 0)?.field(arg::text(a, 1)?)))),
    pure("->>", &[Jsonb, Int4], Text, |_, a| {
        Ok(as_text(arg::json(a, 0)?.element(arg::int(a, 1)?)))
    }),
    pure("#>", &[Jsonb, TEXTS], Jsonb, |_, a| Ok(as_jsonb(path(&*arg::json(a, 0)?, &a[1..])?))),
    pure("#>>", &[Jsonb, TEXTS], Text, |_, a| Ok(as_text(path(&*arg::json(a, 0)?, &a[1..])?))),
    pure("->", &[J, Text], J, |_, a| Ok(as_json(arg::json(a, 0)?.field(arg::text(a, 1)?)))),
    pure("->", &[J, Int4], J, |_, a| Ok(as_json(arg::json(a, 0)?.element(arg::int(a, 1)?)))),
    pure("->>", &[J, Text], Text, |_, a| Ok(as_text(arg::json(a, 0)?.field(arg::text(a, 1)?)))),
    pure("->>", &[J, Int4], Text, |_, a| Ok(as_text(arg::json(a, 0)?.element(arg::int(a, 1)?)))),
    pure("#>", &[J, TEXTS], J, |_, a| Ok(as_json(path(&*arg::json(a, 0)?, &a[1..])?))),
    pure("#>>", &[J, TEXTS], Text, |_, a| Ok(as_text(path(&*arg::json(a, 0)?, &a[1..])?))),
    pure("@>", &[Jsonb, Jsonb], Bool, |_, a| {
        Ok(Datum::Bool(arg::json(a, 0)?.contains(&*arg::json(a, 1)?)))
    }),
    pure("<@", &[Jsonb, Jsonb], Bool, |_, a| {
        Ok(Datum::Bool(arg::json(a, 1)?.contains(&*arg::json(a, 0)?)))
    }),
    pure("?", &[Jsonb, Text], Bool, |_, a| {
        Ok(Datum::Bool(has_key(&*arg::json(a, 0)?, arg::text(a, 1)?)))
    }),
    pure("?|", &[Jsonb, TEXTS], Bool, |_, a| {
        let json = arg::json(a, 0)?;
        let mut keys = arg::array(a, 1)?.elements().iter().filter_map(Datum::as_str);
        Ok(Datum::Bool(keys.any(|key| has_key(&json, key))))
    }),
    pure("?&", &[Jsonb, TEXTS], Bool, |_, a| {
        let json = arg::json(a, 0)?;
        let mut keys = arg::array(a, 1)?.elements().iter().filter_map(Datum::as_str);
        Ok(Datum::Bool(keys.all(|key| has_key(&json, key))))
    }),
    pure("||", &[Jsonb, Jsonb], Jsonb, |_, a| Ok(joined(&*arg::json(a, 0)?, &*arg::json(a, 1)?))),
    pure("-", &[Jsonb, Text], Jsonb, |_, a| without_key(&*arg::json(a, 0)?, arg::text(a, 1)?)),
    pure("-", &[Jsonb, Int4], Jsonb, |_, a| without_index(&*arg::json(a, 0)?, arg::int(a, 1)?)),
    pure("||", &[AnyArray, AnyArray], AnyArray, |_, a| concat(&a[0], &a[1])).called_on_null(),
    pure("||", &[AnyArray, AnyElement], AnyArray, |_, a| append(&a[0], &a[1])).called_on_null(),
    pure("||", &[AnyElement, AnyArray], AnyArray, |_, a| prepend(&a[0], &a[1])).called_on_null(),
    pure("@>", &[AnyArray, AnyArray], Bool, |_, a| contains(a, 0, 1)),
    pure("<@", &[AnyArray, AnyArray], Bool, |_, a| contains(a, 1, 0)),
    pure("&&", &[AnyArray, AnyArray], Bool, |_, a| {
        let theirs = arg::array(a, 1)?.elements();
        let mut mine = arg::array(a, 0)?.elements().iter().filter(|d| !d.is_null());
        Ok(Datum::Bool(mine.any(|element| theirs.contains(element))))
    }),
];

fn as_jsonb(found: Option<&Json>) -> Datum {
    found.map_or(Datum::Null, |json| Datum::Jsonb(Arc::new(json.clone())))
}

fn as_text(found: Option<&Json>) -> Datum {
    found.and_then(Json::to_text).map_or(Datum::Null, Datum::text)
}

fn has_key(json: &Json, key: &str) -> bool {
    match json {
        Json::Object(object) => object.field(key).is_some(),
        Json::Array(elements) => elements.iter().any(|e| matches!(e, Json::String(s) if s == key)),
        Json::String(text) => text == key,
        Json::Null | Json::Bool(_) | Json::Number(_) => false,
    }
}

/// Objects merge, the right one wins; anything else becomes one array.
fn joined(a: &Json, b: &Json) -> Datum {
    let elements = |json: &Json| match json {
        Json::Array(elements) => elements.clone(),
        other => vec![other.clone()],
    };
    let json = match (a, b) {
        (Json::Object(a), Json::Object(b)) => Json::object([a.fields(), b.fields()].concat()),
        _ => Json::Array([elements(a), elements(b)].concat()),
    };
    Datum::Jsonb(Arc::new(json))
}

fn without_key(json: &Json, key: &str) -> Answer {
    let json = match json {
        Json::Object(object) => {
            Json::object(object.fields().iter().filter(|(k, _)| k != key).cloned().collect())
        }
        Json::Array(elements) => {
            let keep = |e: &&Json| !matches!(e, Json::String(s) if s == key);
            Json::Array(elements.iter().filter(keep).cloned().collect())
        }
        _ => return Err(TypeError::parameter("cannot delete from scalar")),
    };
    Ok(Datum::Jsonb(Arc::new(json)))
}

fn without_index(json: &Json, index: i64) -> Answer {
    match json {
        Json::Array(elements) => {
            let index = if index < 0 { index + elements.len() as i64 } else { index };
            let keep = |(at, _): &(usize, &Json)| *at as i64 != index;
            let kept = elements.iter().enumerate().filter(keep).map(|(_, e)| e.clone());
            Ok(Datum::Jsonb(Arc::new(Json::Array(kept.collect()))))
        }
        Json::Object(_) => {
            Err(TypeError::parameter("cannot delete from object using integer index"))
        }
        _ => Err(TypeError::parameter("cannot delete from scalar")),
    }
}

fn contains(args: &[Datum], outer: usize, inner: usize) -> Answer {
    let outer = arg::array(args, outer)?.elements();
    let mut inner = arg::array(args, inner)?.elements().iter();
    Ok(Datum::Bool(inner.all(|element| !element.is_null() && outer.contains(element))))
}
