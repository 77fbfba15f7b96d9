//! Value: what histories are written in: EDN, as Jepsen and its judges read it, or JSON. One tree for both; keywords, symbols and strings are all
//! words, sets and vectors all lists.
//!
//! The reader is strict about what it knows (an unclosed bracket, a missing comma or colon in JSON are errors with their line) and skips
//! tags and discarded forms of EDN.

use std::fmt::{self, Write as _};

/// How deep a value may nest.
const DEPTH_MAX: usize = 64;

/// A value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// `nil`, `null`.
    Nil,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction, as it was written.
    Fraction(String),
    /// A keyword, a symbol or a string.
    Word(String),
    /// A vector, a list or a set.
    List(Vec<Value>),
    /// A map, in the order in which it was written.
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// A word.
    pub fn word(text: &str) -> Value {
        Value::Word(text.to_string())
    }

    /// A number; those of histories fit.
    pub fn number(number: u64) -> Value {
        Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }

    /// The value under a word or string key of a map.
    pub fn field(&self, name: &str) -> Option<&Value> {
        let Value::Map(pairs) = self else { return None };
        pairs
            .iter()
            .find(|(key, _)| matches!(key, Value::Word(word) if word == name))
            .map(|(_, value)| value)
    }

    /// The number, if it is a whole one. A map's keys are strings in JSON: such a number counts too.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Value::Int(number) => Some(*number),
            Value::Word(word) => word.parse().ok(),
            Value::Nil | Value::Bool(_) | Value::Fraction(_) | Value::List(_) | Value::Map(_) => {
                None
            }
        }
    }

    /// Whether it is an answer to `asked`: the same, but for what was left open there (nil).
    pub fn completes(&self, asked: &Value) -> bool {
        match (asked, self) {
            (Value::Nil, _) => true,
            (Value::List(asked), Value::List(values)) => {
                asked.len() == values.len()
                    && asked.iter().zip(values).all(|(asked, value)| value.completes(asked))
            }
            (Value::Map(asked), Value::Map(pairs)) => {
                let answers = |(key, asked): &(Value, Value)| {
                    let mut same = pairs.iter().filter(|(other, _)| other == key);
                    same.next().is_some_and(|(_, value)| value.completes(asked))
                };
                asked.len() == pairs.len() && asked.iter().all(answers)
            }
            (asked, value) => asked == value,
        }
    }

    /// The elements, if it is a list.
    pub fn list(&self) -> Option<&[Value]> {
        match self {
            Value::List(values) => Some(values),
            Value::Nil
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Fraction(_)
            | Value::Word(_)
            | Value::Map(_) => None,
        }
    }
}

/// As EDN, for verdicts.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show(self, Format::Edn))
    }
}

/// How a file is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// One map per line.
    Edn,
    /// One array of objects.
    Json,
}

impl Format {
    /// As a file's text looks: the first key of JSON's first object is in quotes.
    pub fn of(text: &str) -> Format {
        let mut inside = text.chars().filter(|c| !c.is_whitespace() && *c != '[');
        match (inside.next(), inside.next()) {
            (Some('{'), Some('"')) | (Some(']'), None) => Format::Json,
            _ => Format::Edn,
        }
    }
}

/// Where and why a text is not what it should be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed at line {line}: {what}")]
pub struct Malformed {
    /// From 1.
    pub line: usize,
    /// In plain words.
    pub what: String,
}

/// Reads values one after another.
pub(super) struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    format: Format,
    line: usize,
}

impl<'a> Reader<'a> {
    /// Of this text.
    pub(super) fn new(text: &'a str, format: Format) -> Reader<'a> {
        Reader { rest: text.chars().peekable(), format, line: 1 }
    }

    /// The line of what comes next, from 1.
    pub(super) fn line(&mut self) -> usize {
        drop(self.skip());
        self.line
    }

    /// What is wrong here.
    pub(super) fn wrong(&self, what: impl Into<String>) -> Malformed {
        Malformed { line: self.line, what: what.into() }
    }

    /// Takes the character if it comes next.
    pub(super) fn take(&mut self, wanted: char) -> Result<bool, Malformed> {
        self.skip()?;
        let found = self.rest.peek() == Some(&wanted);
        if found {
            self.next();
        }
        Ok(found)
    }

    /// Whether nothing is left.
    pub(super) fn is_at_end(&mut self) -> Result<bool, Malformed> {
        self.skip()?;
        Ok(self.rest.peek().is_none())
    }

    /// The next value.
    pub(super) fn value(&mut self) -> Result<Value, Malformed> {
        self.nested(0)
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    fn skip(&mut self) -> Result<(), Malformed> {
        while let Some(next) = self.rest.peek().copied() {
            let edn = self.format == Format::Edn;
            if next.is_whitespace() || edn && next == ',' {
                self.next();
            } else if edn && next == ';' {
                while self.rest.peek().is_some_and(|c| *c != '\n') {
                    self.next();
                }
            } else {
                break;
            }
        }
        Ok(())
    }

    fn nested(&mut self, depth: usize) -> Result<Value, Malformed> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("nested too deep"));
        }
        self.skip()?;
        let Some(next) = self.rest.peek().copied() else {
            return Err(self.wrong("the text ends where a value should be"));
        };
        match (next, self.format) {
            ('[', _) => self.list(']', depth),
            ('(', Format::Edn) => self.list(')', depth),
            ('{', _) => self.map(depth),
            ('"', _) => self.string(),
            ('#', Format::Edn) => self.tagged(depth),
            (']' | ')' | '}', _) => Err(self.wrong(format!("'{next}' closes nothing"))),
            _ => self.atom(),
        }
    }

    /// Between two elements; whether the bracket was closed.
    fn closed(&mut self, close: char, first: bool) -> Result<bool, Malformed> {
        if self.take(close)? {
            return Ok(true);
        }
        if self.is_at_end()? {
            return Err(self.wrong(format!("the text ends before '{close}'")));
        }
        if self.format == Format::Json && !first && !self.take(',')? {
            return Err(self.wrong(format!("',' or '{close}' expected")));
        }
        Ok(false)
    }

    fn list(&mut self, close: char, depth: usize) -> Result<Value, Malformed> {
        self.next();
        let mut values = Vec::new();
        while !self.closed(close, values.is_empty())? {
            values.push(self.nested(depth + 1)?);
        }
        Ok(Value::List(values))
    }

    fn map(&mut self, depth: usize) -> Result<Value, Malformed> {
        self.next();
        let mut pairs = Vec::new();
        while !self.closed('}', pairs.is_empty())? {
            let key = self.nested(depth + 1)?;
            if self.format == Format::Json && !self.take(':')? {
                return Err(self.wrong("':' expected"));
            }
            if pairs.iter().any(|(known, _)| *known == key) {
                return Err(self.wrong(format!("{key:?} twice in one map")));
            }
            self.skip()?;
            if self.rest.peek() == Some(&'}') {
                return Err(self.wrong("a key without its value"));
            }
            pairs.push((key, self.nested(depth + 1)?));
        }
        Ok(Value::Map(pairs))
    }

    fn string(&mut self) -> Result<Value, Malformed> {
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                None => return Err(self.wrong("the text ends within a string")),
                Some('"') => return Ok(Value::Word(text)),
                Some('\\') => text.push(self.escaped()?),
                Some(other) => text.push(other),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, Malformed> {
        match self.next() {
            Some('n') => Ok('\n'),
            Some('t') => Ok('\t'),
            Some('r') => Ok('\r'),
            Some(same @ ('"' | '\\' | '/')) => Ok(same),
            Some('u') => {
                let digits: String = (0..4).filter_map(|_| self.next()).collect();
                let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                code.ok_or_else(|| self.wrong("\\u wants four digits of a character"))
            }
            _ => Err(self.wrong("unknown escape in a string")),
        }
    }

    /// `#{..}` is a set, `#_ x` is left out, `#tag x` is x.
    fn tagged(&mut self, depth: usize) -> Result<Value, Malformed> {
        self.next();
        match self.rest.peek() {
            Some('{') => self.list('}', depth),
            Some('_') => {
                self.next();
                self.nested(depth + 1)?;
                self.nested(depth + 1)
            }
            _ => {
                self.token();
                self.nested(depth + 1)
            }
        }
    }

    fn token(&mut self) -> String {
        let mut text = String::new();
        while let Some(next) = self.rest.peek().copied() {
            let ends = next.is_whitespace() || "()[]{}\",;".contains(next);
            if ends || self.format == Format::Json && next == ':' {
                break;
            }
            text.push(next);
            self.next();
        }
        text
    }

    fn atom(&mut self) -> Result<Value, Malformed> {
        let text = self.token();
        if text.is_empty() {
            let next = self.rest.peek().copied().unwrap_or(' ');
            return Err(self.wrong(format!("unexpected '{next}'")));
        }
        let number = text.strip_suffix('N').filter(|_| self.format == Format::Edn).unwrap_or(&text);
        if let Ok(number) = number.parse::<i64>() {
            return Ok(Value::Int(number));
        }
        match (text.as_str(), self.format) {
            ("nil", Format::Edn) | ("null", Format::Json) => return Ok(Value::Nil),
            ("true", _) => return Ok(Value::Bool(true)),
            ("false", _) => return Ok(Value::Bool(false)),
            _ => {}
        }
        if text.parse::<f64>().is_ok() {
            return Ok(Value::Fraction(text));
        }
        match self.format {
            Format::Edn => Ok(Value::Word(text.strip_prefix(':').unwrap_or(&text).to_string())),
            Format::Json => Err(self.wrong(format!("unexpected {text}"))),
        }
    }
}

/// The text of a value, on one line.
pub fn show(value: &Value, format: Format) -> String {
    let mut text = String::new();
    write(value, format, &mut text);
    text
}

fn write(value: &Value, format: Format, text: &mut String) {
    let nil = if format == Format::Edn { "nil" } else { "null" };
    match value {
        Value::Nil => text.push_str(nil),
        Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Value::Int(number) => write!(text, "{number}").expect("writing to a string cannot fail"),
        Value::Fraction(number) => text.push_str(number),
        Value::Word(word) => {
            let plain = word.chars().all(|c| c.is_alphanumeric() || "-_?.".contains(c));
            if format == Format::Edn && plain && !word.is_empty() {
                text.push(':');
                text.push_str(word);
            } else {
                quote(word, text);
            }
        }
        Value::List(values) => {
            text.push('[');
            for (place, value) in values.iter().enumerate() {
                separate(place, format, text);
                write(value, format, text);
            }
            text.push(']');
        }
        Value::Map(pairs) => {
            text.push('{');
            for (place, (key, value)) in pairs.iter().enumerate() {
                separate(place, format, text);
                match (key, format) {
                    (Value::Word(word), Format::Json) => quote(word, text),
                    (other, Format::Json) => quote(&show(other, format), text),
                    (_, Format::Edn) => write(key, format, text),
                }
                text.push_str(if format == Format::Json { ": " } else { " " });
                write(value, format, text);
            }
            text.push('}');
        }
    }
}

fn separate(place: usize, format: Format, text: &mut String) {
    if place > 0 {
        text.push_str(if format == Format::Json { ", " } else { " " });
    }
}

fn quote(word: &str, text: &mut String) {
    text.push('"');
    for c in word.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            control if control < ' ' => {
                write!(text, "\\u{:04x}", control as u32).expect("writing to a string cannot fail");
            }
            other => text.push(other),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, format: Format) -> Result<Value, Malformed> {
        let mut reader = Reader::new(text, format);
        let value = reader.value()?;
        if reader.is_at_end()? { Ok(value) } else { Err(reader.wrong("more")) }
    }

    #[test]
    fn both_formats_say_the_same_and_come_back() {
        let edn = "{:type :ok, :value [[:append 1 -2] [:r 1 nil]] \"a b\" #{true}} ; end";
        let json = r#"{"type": "ok", "value": [["append", 1, -2], ["r", 1, null]], "a b": [true]}"#;
        let value = read(edn, Format::Edn).expect("reads");
        assert_eq!(read(json, Format::Json), Ok(value.clone()));
        assert_eq!((Format::of(edn), Format::of(json)), (Format::Edn, Format::Json));
        for format in [Format::Edn, Format::Json] {
            assert_eq!(read(&show(&value, format), format), Ok(value.clone()));
        }
        assert_eq!(read("#jepsen.Op{:index 3}", Format::Edn), read("{:index 3}", Format::Edn));
    }

    #[test]
    fn an_answer_completes_what_was_left_open_and_changes_nothing_else() {
        let value = |text: &str| read(text, Format::Edn).expect("reads");
        for (asked, answered, completes) in [
            ("nil", "{0 7 1 13}", true),
            ("[1 5]", "[1 5]", true),
            ("[1 5]", "[1 7]", false),
            ("[1 5]", "[1 nil]", false),
            ("[1 5]", "nil", false),
            ("[1 nil]", "[1 [5 6]]", true),
            ("[1 nil]", "[2 [5 6]]", false),
            ("[[:append 1 2] [:r 1 nil]]", "[[:append 1 2] [:r 1 [2]]]", true),
            ("[[:append 1 2] [:r 1 nil]]", "[[:append 1 2]]", false),
            ("{:id 1 :amount 5}", "{:amount 5 :id 1}", true),
            ("{:id 1 :amount 5}", "{:id 1 :amount 6}", false),
            ("{:id 1 :amount 5}", "{:id 1}", false),
        ] {
            assert_eq!(value(answered).completes(&value(asked)), completes, "{asked} {answered}");
        }
    }

    #[test]
    fn every_prefix_of_a_value_is_malformed() {
        let edn = "{:type :ok\n :value [[:append 1 22]]}";
        let json = "{\"type\": \"ok\",\n \"value\": [[\"append\", 1, 22]]}";
        for (text, format) in [(edn, Format::Edn), (json, Format::Json)] {
            for end in 0..text.len() {
                assert!(read(&text[..end], format).is_err(), "{}", &text[..end]);
            }
        }
        assert_eq!(read(&edn[..20], Format::Edn).map_err(|wrong| wrong.line), Err(2));
    }

    #[test]
    fn json_is_taken_strictly() {
        for text in ["[1 2]", "{\"a\" 1}", "[1,]", "[nil]", "{\"a\": 1, \"a\": 2}", "]", "[1, :a]"]
        {
            assert!(read(text, Format::Json).is_err(), "{text}");
        }
        let deep = "[".repeat(100) + &"]".repeat(100);
        assert!(read(&deep, Format::Json).is_err());
    }
}
