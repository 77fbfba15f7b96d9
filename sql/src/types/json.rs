//! `jsonb`: a JSON value in PostgreSQL's canonical form: a value.
//!
//! Keys of an object are kept sorted, shorter first, then by bytes, and of duplicates the last wins: so equal objects print and
//! compare equal. Numbers are `numeric`, so `1.10` keeps its zero and no digit is lost. The `json` type keeps its text and uses
//! this file only to check its syntax.
//!
//! INVARIANT: `parse(to_string(v)) == v`; a property below. Limit: [`DEPTH_MAX`] nested containers, then 54001.
//! Order (PostgreSQL 15, `jsonb_util.c`): object > array > boolean > number > string > null; containers by size, then by elements;
//! an empty array at the top is below every scalar, a quirk that indexes depend on there and that we keep.

use super::error::{SqlState, TypeError};
use super::numeric::Numeric;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Containers inside containers that a JSON text may have.
pub const DEPTH_MAX: usize = 500;

/// A JSON value.
#[derive(Clone, Debug)]
pub enum Json {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number
    Number(Numeric),
    /// A string
    String(String),
    /// `[..]`
    Array(Vec<Json>),
    /// `{..}`, sorted; made by [`Json::object`]
    Object(Object),
}

/// The fields of a JSON object, sorted and without duplicates.
#[derive(Clone, Debug, Default)]
pub struct Object(Vec<(String, Json)>);

fn key_order(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.as_bytes().cmp(b.as_bytes()))
}

impl Object {
    /// The fields in order.
    pub fn fields(&self) -> &[(String, Json)] {
        &self.0
    }

    /// The value under a key.
    pub fn field(&self, key: &str) -> Option<&Json> {
        let at = self.0.binary_search_by(|(k, _)| key_order(k, key)).ok()?;
        Some(&self.0[at].1)
    }
}

impl Json {
    /// An object of these fields; of equal keys the last wins.
    pub fn object(mut fields: Vec<(String, Json)>) -> Json {
        // The sort is stable: reversed first, the last duplicate is the one that survives.
        fields.reverse();
        fields.sort_by(|a, b| key_order(&a.0, &b.0));
        fields.dedup_by(|later, earlier| later.0 == earlier.0);
        Json::Object(Object(fields))
    }

    /// Reads JSON text. 22P02 if it is none, 22P05 for `\u0000`, 54001 if nested too deep.
    pub fn parse(text: &str) -> Result<Json, TypeError> {
        Parser::new(text, Zero::Refused).document()
    }

    /// Checks the syntax of a `json` value, which keeps its text.
    pub fn check(text: &str) -> Result<(), TypeError> {
        Parser::new(text, Zero::Kept).document().map(|_| ())
    }

    /// `jsonb_typeof`
    pub fn type_name(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "boolean",
            Json::Number(_) => "number",
            Json::String(_) => "string",
            Json::Array(_) => "array",
            Json::Object(_) => "object",
        }
    }

    /// `->` by key.
    pub fn field(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(object) => object.field(key),
            _ => None,
        }
    }

    /// `->` by position; negative counts from the end.
    pub fn element(&self, index: i64) -> Option<&Json> {
        let Json::Array(elements) = self else { return None };
        let index = if index < 0 { index + elements.len() as i64 } else { index };
        elements.get(usize::try_from(index).ok()?)
    }

    /// One step of `#>`: a key of an object, or a position in an array.
    pub fn step(&self, step: &str) -> Option<&Json> {
        match self {
            Json::Object(object) => object.field(step),
            Json::Array(_) => self.element(step.trim().parse().ok()?),
            _ => None,
        }
    }

    /// The text that `->>` gives: strings without quotes, NULL (`None`) for null.
    pub fn to_text(&self) -> Option<String> {
        match self {
            Json::Null => None,
            Json::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// `@>`: everything in `other` is here too. At the top an array may contain a bare scalar.
    pub fn contains(&self, other: &Json) -> bool {
        match (self, other) {
            (Json::Array(elements), scalar) if scalar.is_scalar() => elements.contains(scalar),
            _ => self.contains_strictly(other),
        }
    }

    fn contains_strictly(&self, other: &Json) -> bool {
        match (self, other) {
            (Json::Object(mine), Json::Object(theirs)) => theirs.0.iter().all(|(key, value)| {
                mine.field(key).is_some_and(|found| found.contains_strictly(value))
            }),
            (Json::Array(mine), Json::Array(theirs)) => {
                theirs.iter().all(|value| mine.iter().any(|found| found.contains_strictly(value)))
            }
            (a, b) => a.is_scalar() && a == b,
        }
    }

    fn is_scalar(&self) -> bool {
        !matches!(self, Json::Array(_) | Json::Object(_))
    }

    /// Approximate bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        let inside = match self {
            Json::Null | Json::Bool(_) => 0,
            Json::Number(number) => number.memory_bytes(),
            Json::String(text) => text.len(),
            Json::Array(elements) => elements.iter().map(Json::memory_bytes).sum(),
            Json::Object(object) => {
                object.0.iter().map(|(key, value)| 24 + key.len() + value.memory_bytes()).sum()
            }
        };
        size_of::<Json>() + inside
    }

    /// The order of `jsonb`'s `btree` operators.
    pub fn compare(&self, other: &Json) -> Ordering {
        match (self, other) {
            (Json::Array(a), b) if a.is_empty() && b.is_scalar() => Ordering::Less,
            (a, Json::Array(b)) if b.is_empty() && a.is_scalar() => Ordering::Greater,
            _ => self.compare_nested(other),
        }
    }

    fn compare_nested(&self, other: &Json) -> Ordering {
        match (self, other) {
            (Json::Null, Json::Null) => Ordering::Equal,
            (Json::Bool(a), Json::Bool(b)) => a.cmp(b),
            (Json::Number(a), Json::Number(b)) => a.compare(b),
            (Json::String(a), Json::String(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Json::Array(a), Json::Array(b)) => {
                let pairs = || a.iter().zip(b).map(|(x, y)| x.compare_nested(y));
                a.len().cmp(&b.len()).then_with(|| first_difference(pairs()))
            }
            (Json::Object(a), Json::Object(b)) => {
                let pairs = || {
                    a.0.iter().zip(&b.0).map(|((k, v), (l, w))| {
                        k.as_bytes().cmp(l.as_bytes()).then_with(|| v.compare_nested(w))
                    })
                };
                a.0.len().cmp(&b.0.len()).then_with(|| first_difference(pairs()))
            }
            _ => self.rank().cmp(&other.rank()),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Json::Null => 0,
            Json::String(_) => 1,
            Json::Number(_) => 2,
            Json::Bool(_) => 3,
            Json::Array(_) => 4,
            Json::Object(_) => 5,
        }
    }

    pub(super) fn hash_value<H: Hasher>(&self, state: &mut H) {
        self.rank().hash(state);
        match self {
            Json::Null => {}
            Json::Bool(value) => value.hash(state),
            Json::Number(value) => value.hash_value(state),
            Json::String(value) => value.hash(state),
            Json::Array(elements) => {
                elements.len().hash(state);
                elements.iter().for_each(|element| element.hash_value(state));
            }
            Json::Object(object) => {
                object.0.len().hash(state);
                for (key, value) in &object.0 {
                    key.hash(state);
                    value.hash_value(state);
                }
            }
        }
    }
}

fn first_difference(mut orders: impl Iterator<Item = Ordering>) -> Ordering {
    orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

impl PartialEq for Json {
    fn eq(&self, other: &Json) -> bool {
        self.compare_nested(other).is_eq()
    }
}

impl Eq for Json {}

/// Appends the text as a JSON string, quoted as PostgreSQL quotes it.
pub fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| {
            let mut out = String::with_capacity(text.len() + 2);
            quote(&mut out, text);
            out
        };
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(value) => write!(f, "{value}"),
            Json::Number(value) => write!(f, "{value}"),
            Json::String(text) => f.write_str(&quoted(text)),
            Json::Array(elements) => {
                f.write_str("[")?;
                for (index, element) in elements.iter().enumerate() {
                    let comma = if index > 0 { ", " } else { "" };
                    write!(f, "{comma}{element}")?;
                }
                f.write_str("]")
            }
            Json::Object(object) => {
                f.write_str("{")?;
                for (index, (key, value)) in object.0.iter().enumerate() {
                    let comma = if index > 0 { ", " } else { "" };
                    write!(f, "{comma}{}: {value}", quoted(key))?;
                }
                f.write_str("}")
            }
        }
    }
}

/// What to do with `\u0000`, which PostgreSQL's text cannot hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Zero {
    Refused,
    Kept,
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    zero: Zero,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, zero: Zero) -> Parser<'a> {
        Parser { text, at: 0, zero }
    }

    fn document(mut self) -> Result<Json, TypeError> {
        let value = self.value(0)?;
        self.skip_space();
        if self.at < self.text.len() {
            return Err(self.wrong("end of input"));
        }
        Ok(value)
    }

    fn wrong(&self, expected: &str) -> TypeError {
        let rest = &self.text[self.at..];
        let error = TypeError::new(
            SqlState::INVALID_TEXT_REPRESENTATION,
            "invalid input syntax for type json",
        );
        if rest.is_empty() {
            return error.with_detail("The input string ended unexpectedly.");
        }
        let token_end = rest
            .char_indices()
            .find(|(at, c)| *at > 0 && !(c.is_alphanumeric() || *c == '_'))
            .map_or(rest.len(), |(at, _)| at);
        let token = &rest[..token_end];
        error.with_detail(match rest.as_bytes()[0] {
            b'{' | b'}' | b'[' | b']' | b',' | b':' | b'"' => {
                format!("Expected {expected}, but found \"{token}\".")
            }
            _ => format!("Token \"{token}\" is invalid."),
        })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self, depth: usize) -> Result<Json, TypeError> {
        if depth > DEPTH_MAX {
            return Err(TypeError::new(
                SqlState::STATEMENT_TOO_COMPLEX,
                format!("JSON is nested deeper than {DEPTH_MAX} levels"),
            ));
        }
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Json::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Result<Json, TypeError> {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let value = match &rest[..end] {
            "null" => Json::Null,
            "true" => Json::Bool(true),
            "false" => Json::Bool(false),
            _ => return Err(self.wrong("JSON value")),
        };
        self.at += end;
        Ok(value)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Result<Json, TypeError> {
        let start = self.at;
        let wrong = |parser: &mut Self| {
            parser.at = start;
            Err(parser.wrong("JSON value"))
        };
        self.at += usize::from(self.peek() == Some(b'-'));
        let leading_zero = self.peek() == Some(b'0');
        let whole = self.digits();
        if whole == 0 || (leading_zero && whole > 1) {
            return wrong(self);
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return wrong(self);
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            if self.digits() == 0 {
                return wrong(self);
            }
        }
        if matches!(self.peek(), Some(c) if c.is_ascii_alphanumeric() || c == b'_') {
            return wrong(self);
        }
        Numeric::parse(&self.text[start..self.at]).map(Json::Number)
    }

    fn array(&mut self, depth: usize) -> Result<Json, TypeError> {
        self.at += 1;
        let mut elements = Vec::new();
        if self.eat(b']') {
            return Ok(Json::Array(elements));
        }
        loop {
            elements.push(self.value(depth + 1)?);
            if self.eat(b']') {
                return Ok(Json::Array(elements));
            }
            if !self.eat(b',') {
                return Err(self.wrong("\",\" or \"]\""));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, TypeError> {
        self.at += 1;
        let mut fields = Vec::new();
        if self.eat(b'}') {
            return Ok(Json::object(fields));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.wrong("string"));
            }
            let key = self.string()?;
            if !self.eat(b':') {
                return Err(self.wrong("\":\""));
            }
            fields.push((key, self.value(depth + 1)?));
            if self.eat(b'}') {
                return Ok(Json::object(fields));
            }
            if !self.eat(b',') {
                return Err(self.wrong("\",\" or \"}\""));
            }
        }
    }

    fn string(&mut self) -> Result<String, TypeError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(stop) = rest.find(|c: char| c == '"' || c == '\\' || c < ' ') else {
                self.at = self.text.len();
                return Err(self.wrong("string"));
            };
            out.push_str(&rest[..stop]);
            self.at += stop + 1;
            match rest.as_bytes()[stop] {
                b'"' => return Ok(out),
                b'\\' => self.escape(&mut out)?,
                byte => {
                    return Err(TypeError::new(
                        SqlState::INVALID_TEXT_REPRESENTATION,
                        "invalid input syntax for type json",
                    )
                    .with_detail(format!("Character with value 0x{byte:02x} must be escaped.")));
                }
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), TypeError> {
        let Some(c) = self.text[self.at..].chars().next() else {
            return Err(self.wrong("escape"));
        };
        self.at += c.len_utf8();
        out.push(match c {
            '"' | '\\' | '/' => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => self.unicode()?,
            c => {
                return Err(TypeError::new(
                    SqlState::INVALID_TEXT_REPRESENTATION,
                    "invalid input syntax for type json",
                )
                .with_detail(format!("Escape sequence \"\\{c}\" is invalid.")));
            }
        });
        Ok(())
    }

    fn hex4(&mut self) -> Result<u32, TypeError> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let digits = digits.filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.ok_or_else(|| {
            TypeError::new(
                SqlState::INVALID_TEXT_REPRESENTATION,
                "invalid input syntax for type json",
            )
            .with_detail("\"\\u\" must be followed by four hexadecimal digits.")
        })?;
        let text = std::str::from_utf8(digits).expect("hexadecimal digits are ASCII");
        self.at += 4;
        Ok(u32::from_str_radix(text, 16).expect("hexadecimal digits were checked"))
    }

    fn unicode(&mut self) -> Result<char, TypeError> {
        let surrogate = |detail: &str| {
            Err(TypeError::new(
                SqlState::INVALID_TEXT_REPRESENTATION,
                "invalid input syntax for type json",
            )
            .with_detail(detail))
        };
        let high = self.hex4()?;
        let code = match high {
            0 if self.zero == Zero::Refused => {
                return Err(TypeError::new(
                    SqlState::UNTRANSLATABLE_CHARACTER,
                    "unsupported Unicode escape sequence",
                )
                .with_detail("\\u0000 cannot be converted to text."));
            }
            0xdc00..0xe000 => {
                return surrogate("Unicode low surrogate must follow a high surrogate.");
            }
            0xd800..0xdc00 => {
                let wrong = "Unicode high surrogate must not follow a high surrogate.";
                if !self.text[self.at..].starts_with("\\u") {
                    return surrogate("Unicode low surrogate must follow a high surrogate.");
                }
                self.at += 2;
                match self.hex4()? {
                    low @ 0xdc00..0xe000 => 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00),
                    0xd800..0xdc00 => return surrogate(wrong),
                    _ => return surrogate("Unicode low surrogate must follow a high surrogate."),
                }
            }
            code => code,
        };
        Ok(char::from_u32(code).expect("surrogates were paired"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(text: &str) -> String {
        Json::parse(text).expect("JSON").to_string()
    }

    #[test]
    fn prints_the_canonical_form() {
        assert_eq!(
            canonical(r#" {"bb":1.10, "a":[ ], "c":{"x":null}, "a":"é\n\u00e9\ud83d\ude00"} "#),
            "{\"a\": \"é\\né😀\", \"c\": {\"x\": null}, \"bb\": 1.10}"
        );
        assert_eq!(canonical("1e2"), "100");
        assert_eq!(canonical("[true,false,-0.5]"), "[true, false, -0.5]");
    }

    #[test]
    fn refuses_what_is_not_json() {
        for text in
            ["", "{", "[1,]", "{\"a\"}", "01", "1.", "tru", "\"\n\"", "\"\\x\"", "1 2", "'a'"]
        {
            assert_eq!(Json::parse(text).expect_err(text).code.to_string(), "22P02");
        }
        assert_eq!(Json::parse("\"\\u0000\"").expect_err("zero").code.to_string(), "22P05");
        assert!(Json::check("\"\\u0000\"").is_ok());
        let deep = "[".repeat(DEPTH_MAX + 2);
        assert_eq!(Json::parse(&deep).expect_err("deep").code.to_string(), "54001");
    }

    #[test]
    fn containment_follows_postgres() {
        let contains = |a: &str, b: &str| {
            Json::parse(a).expect("JSON").contains(&Json::parse(b).expect("JSON"))
        };
        assert!(contains("[1,2,[3]]", "[2]"));
        assert!(contains("[1,2]", "1"));
        assert!(!contains("1", "[1]"));
        assert!(contains(r#"{"a":1,"b":{"c":[1,2]}}"#, r#"{"b":{"c":[2]}}"#));
        assert!(!contains(r#"{"a":[1]}"#, r#"{"a":1}"#));
    }

    pub(crate) fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::Bool),
            (-99i128..99, 0u16..3).prop_map(|(c, s)| Json::Number(Numeric::from_scaled(c, s))),
            "[a-c\"\\\\\n]{0,3}".prop_map(Json::String),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
                proptest::collection::vec(("[a-c]{0,2}", inner), 0..4).prop_map(Json::object),
            ]
        })
    }

    proptest! {
        #[test]
        fn text_round_trips(value in any_json()) {
            prop_assert_eq!(Json::parse(&value.to_string()).unwrap(), value);
        }

        #[test]
        fn order_is_total(a in any_json(), b in any_json(), c in any_json()) {
            prop_assert_eq!(a.compare(&b), b.compare(&a).reverse());
            if a.compare(&b).is_le() && b.compare(&c).is_le() {
                prop_assert!(a.compare(&c).is_le());
            }
        }

        #[test]
        fn contains_itself(a in any_json()) {
            prop_assert!(a.contains(&a));
        }
    }
}
