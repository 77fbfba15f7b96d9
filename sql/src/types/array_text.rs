//! Arrays and rows as text: `{1,NULL,"a b"}`, `[0:1]={..}`, `(1,"a b",)`: a value.
//!
//! An element is quoted when it is empty, says NULL, or holds braces, the comma, quotes, backslashes or blanks.
//! Source: `arrayfuncs.c` and `rowtypes.c` of PostgreSQL 15.

use super::context::EvalContext;
use super::datum::{ArrayValue, Datum, Dim, RecordValue};
use super::error::{SqlState, TypeError};
use super::text;
use super::ty::Type;
use std::sync::Arc;

/// Most elements that an array may have.
pub(super) const ELEMENTS_MAX: usize = 134_217_727;

/// Appends an array.
pub(super) fn write(out: &mut String, array: &ArrayValue, context: &dyn EvalContext) {
    if array.is_empty() {
        return out.push_str("{}");
    }
    if array.dims().iter().any(|dim| dim.lower != 1) {
        for dim in array.dims() {
            let upper = i64::from(dim.lower) + dim.length as i64 - 1;
            out.push_str(&format!("[{}:{upper}]", dim.lower));
        }
        out.push('=');
    }
    let mut elements = array.elements().iter();
    write_dimension(out, array, 0, &mut elements, context);
}

fn write_dimension<'a>(
    out: &mut String,
    array: &ArrayValue,
    depth: usize,
    elements: &mut impl Iterator<Item = &'a Datum>,
    context: &dyn EvalContext,
) {
    let dim = array.dims()[depth];
    out.push('{');
    for index in 0..dim.length {
        if index > 0 {
            out.push(',');
        }
        if depth + 1 < array.dims().len() {
            write_dimension(out, array, depth + 1, elements, context);
            continue;
        }
        match elements.next().expect("dimensions multiply to the element count") {
            Datum::Null => out.push_str("NULL"),
            element => {
                let text = text::to_string(element, array.element_type(), context);
                write_element(out, &text);
            }
        }
    }
    out.push('}');
}

fn write_element(out: &mut String, text: &str) {
    let special = |c: char| matches!(c, '{' | '}' | ',' | '"' | '\\') || text::is_space(c);
    if !text.is_empty() && !text.eq_ignore_ascii_case("null") && !text.contains(special) {
        return out.push_str(text);
    }
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

/// Appends a row: NULL is nothing between the commas, quotes are doubled.
pub(super) fn write_record(out: &mut String, record: &RecordValue, context: &dyn EvalContext) {
    out.push('(');
    for (index, (ty, field)) in record.fields.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        if field.is_null() {
            continue;
        }
        let text = text::to_string(field, *ty, context);
        let special = |c: char| matches!(c, '(' | ')' | ',' | '"' | '\\') || text::is_space(c);
        if !text.is_empty() && !text.contains(special) {
            out.push_str(&text);
            continue;
        }
        out.push('"');
        for c in text.chars() {
            if matches!(c, '"' | '\\') {
                out.push(c);
            }
            out.push(c);
        }
        out.push('"');
    }
    out.push(')');
}

/// Reads an array of `element`s. 22P02 with the reason in DETAIL.
pub(super) fn parse(
    text: &str,
    element: Type,
    typmod: i32,
    context: &dyn EvalContext,
) -> Result<Datum, TypeError> {
    let mut reader =
        Reader { text, rest: text.trim_start_matches(text::is_space), element, typmod, context };
    let declared = reader.declared_dims()?;
    let mut lengths = Vec::new();
    let mut elements = Vec::new();
    reader.dimension(0, &mut lengths, &mut elements)?;
    if !reader.rest.trim_start_matches(text::is_space).is_empty() {
        return Err(reader.malformed("Junk after closing right brace."));
    }
    let dims = match declared {
        Some(dims) => {
            let same = dims.iter().map(|dim| dim.length).eq(lengths.iter().copied());
            if !same {
                return Err(
                    reader.malformed("Specified array dimensions do not match array contents.")
                );
            }
            dims
        }
        None => lengths.iter().map(|length| Dim { length: *length, lower: 1 }).collect(),
    };
    Ok(Datum::Array(Arc::new(ArrayValue::with_dims(element, dims, elements))))
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
    element: Type,
    typmod: i32,
    context: &'a dyn EvalContext,
}

enum Item {
    Quoted(String),
    Bare(String),
}

impl Reader<'_> {
    fn malformed(&self, detail: &str) -> TypeError {
        TypeError::new(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!("malformed array literal: \"{}\"", self.text),
        )
        .with_detail(detail)
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches(text::is_space);
    }

    fn eat(&mut self, c: char) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// `[lower:upper]..=` before the braces.
    fn declared_dims(&mut self) -> Result<Option<Vec<Dim>>, TypeError> {
        let mut dims = Vec::new();
        while self.eat('[') {
            let end = self
                .rest
                .find(']')
                .ok_or_else(|| self.malformed("Missing \"]\" after array dimensions."))?;
            let (bounds, rest) = (&self.rest[..end], &self.rest[end + 1..]);
            let (lower, upper) = bounds.split_once(':').unwrap_or(("1", bounds));
            let number = |text: &str| text.trim().parse::<i32>().ok();
            let (Some(lower), Some(upper)) = (number(lower), number(upper)) else {
                return Err(
                    self.malformed("\"[\" must introduce explicitly-specified array dimensions.")
                );
            };
            if upper < lower {
                return Err(TypeError::new(
                    SqlState::ARRAY_SUBSCRIPT_ERROR,
                    "upper bound cannot be less than lower bound",
                ));
            }
            dims.push(Dim { length: (i64::from(upper) - i64::from(lower) + 1) as usize, lower });
            self.rest = rest;
        }
        if dims.is_empty() {
            return Ok(None);
        }
        if !self.eat('=') {
            return Err(self.malformed("Missing \"=\" after array dimensions."));
        }
        Ok(Some(dims))
    }

    fn dimension(
        &mut self,
        depth: usize,
        lengths: &mut Vec<usize>,
        elements: &mut Vec<Datum>,
    ) -> Result<(), TypeError> {
        if !self.eat('{') {
            return Err(
                self.malformed("Array value must start with \"{\" or dimension information.")
            );
        }
        if depth >= ArrayValue::DIMENSIONS_MAX {
            return Err(TypeError::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                "number of array dimensions (7) exceeds the maximum allowed (6)",
            ));
        }
        if self.eat('}') {
            return if depth == 0 {
                Ok(())
            } else {
                Err(self.malformed("Unexpected \"}\" character."))
            };
        }
        let uneven = "Multidimensional arrays must have sub-arrays with matching dimensions.";
        let mut length = 0;
        loop {
            self.skip_space();
            let nested = self.rest.starts_with('{');
            // The first element decides how deep the array is.
            let is_leaf_level = lengths.len() == depth + 1 && !elements.is_empty();
            let is_inner_level = lengths.len() > depth + 1;
            if (nested && is_leaf_level) || (!nested && is_inner_level) {
                return Err(self.malformed(uneven));
            }
            if nested {
                if lengths.len() == depth {
                    lengths.push(0);
                }
                self.dimension(depth + 1, lengths, elements)?;
            } else {
                if lengths.len() == depth {
                    lengths.push(0);
                }
                let element = self.element()?;
                elements.push(element);
            }
            length += 1;
            if elements.len() > ELEMENTS_MAX {
                return Err(TypeError::new(
                    SqlState::PROGRAM_LIMIT_EXCEEDED,
                    "array size exceeds the maximum allowed",
                ));
            }
            if self.eat(',') {
                continue;
            }
            if !self.eat('}') {
                return Err(self.malformed("Unexpected end of input."));
            }
            break;
        }
        match lengths[depth] {
            0 => lengths[depth] = length,
            known if known != length => return Err(self.malformed(uneven)),
            _ => {}
        }
        Ok(())
    }

    fn element(&mut self) -> Result<Datum, TypeError> {
        match self.item()? {
            Item::Bare(word) if word.eq_ignore_ascii_case("null") => Ok(Datum::Null),
            Item::Bare(word) if word.is_empty() => {
                let c = self.rest.chars().next().unwrap_or('}');
                Err(self.malformed(&format!("Unexpected \"{c}\" character.")))
            }
            Item::Bare(text) | Item::Quoted(text) => {
                text::parse(&text, self.element, self.typmod, self.context)
            }
        }
    }

    fn item(&mut self) -> Result<Item, TypeError> {
        let quoted = self.eat('"');
        let mut out = String::new();
        // Characters up to here are kept even if they are blanks.
        let mut kept = 0;
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match (c, quoted) {
                ('\\', _) => {
                    let Some((_, escaped)) = chars.next() else { break };
                    out.push(escaped);
                    kept = out.len();
                }
                ('"', true) => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(Item::Quoted(out));
                }
                ('"' | '{', false) => {
                    return Err(self.malformed(if c == '"' {
                        "Unexpected array element."
                    } else {
                        "Unexpected \"{\" character."
                    }));
                }
                (',' | '}', false) => {
                    self.rest = &self.rest[at..];
                    let end = out[kept..].trim_end_matches(text::is_space).len() + kept;
                    out.truncate(end);
                    return Ok(Item::Bare(out));
                }
                (c, _) => out.push(c),
            }
        }
        Err(self.malformed("Unexpected end of input."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::context::FixedContext;
    use proptest::prelude::*;

    fn round(text: &str, element: Type) -> String {
        let context = FixedContext::default();
        let value = parse(text, element, -1, &context).expect(text);
        text::to_string(&value, element.array().expect("an array"), &context)
    }

    #[test]
    fn literals_print_as_postgres_prints_them() {
        assert_eq!(round("{}", Type::Int4), "{}");
        assert_eq!(round(" { 1 , NULL, 3 } ", Type::Int4), "{1,NULL,3}");
        assert_eq!(round("{{1,2},{3,4}}", Type::Int4), "{{1,2},{3,4}}");
        assert_eq!(round("[0:1]={1,2}", Type::Int4), "[0:1]={1,2}");
        assert_eq!(
            round(r#"{a b,"",null,"NULL","a\"b",a\\b}"#, Type::Text),
            r#"{"a b","",NULL,"NULL","a\"b","a\\b"}"#
        );
    }

    #[test]
    fn malformed_literals_are_refused() {
        let context = FixedContext::default();
        for text in [
            "",
            "1,2",
            "{1,2",
            "{1,,2}",
            "{{1},{2,3}}",
            "{1,{2}}",
            "{1}x",
            "[1:3]={1,2}",
            "{\"a}",
            "{{1},2}",
        ] {
            let error = parse(text, Type::Int4, -1, &context).expect_err(text);
            assert_eq!(error.code.to_string(), "22P02", "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_arrays_round_trip(items in proptest::collection::vec(proptest::option::of("[ a\"{},\\\\nulNUL]{0,4}"), 0..5)) {
            let context = FixedContext::default();
            let elements = items.iter().map(|i| i.as_ref().map_or(Datum::Null, Datum::text)).collect();
            let value = Datum::array(Type::Text, elements);
            let text = text::to_string(&value, Type::Array(&Type::Text), &context);
            prop_assert_eq!(parse(&text, Type::Text, -1, &context).unwrap(), value);
        }
    }
}
