//! Value: the words of a script's line, each with its place, and what is read from them: numbers, durations, lists.

use std::time::Duration;

use super::parse::ScriptError;
use super::planned::Place;

/// A word and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'a> {
    line: usize,
    column: usize,
    pub(super) text: &'a str,
}

impl Word<'_> {
    pub(super) fn place(&self) -> Place {
        Place { line: self.line, column: self.column }
    }

    pub(super) fn wrong(&self, what: &str) -> ScriptError {
        ScriptError { line: self.line, column: self.column, what: what.to_string() }
    }
}

/// The words of a line, commas apart.
pub(super) struct Words<'a> {
    line: usize,
    text: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    pub(super) fn new(line: usize, text: &'a str) -> Words<'a> {
        let text = text.split_once('#').map_or(text, |(before, _)| before);
        Words { line, text, at: 0 }
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_blank(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    pub(super) fn is_at_end(&mut self) -> bool {
        self.skip_blank();
        self.rest().is_empty()
    }

    fn here(&self, length: usize) -> Word<'a> {
        let column = self.text[..self.at].chars().count() + 1;
        Word { line: self.line, column, text: &self.text[self.at..self.at + length] }
    }

    pub(super) fn peek(&mut self, what: &str) -> Result<Word<'a>, ScriptError> {
        self.skip_blank();
        let length =
            self.rest().find(|c: char| c.is_whitespace() || c == ',').unwrap_or(self.rest().len());
        let word = self.here(length);
        if length == 0 { Err(word.wrong(&format!("{what} is missing"))) } else { Ok(word) }
    }

    pub(super) fn word(&mut self, what: &str) -> Result<Word<'a>, ScriptError> {
        let word = self.peek(what)?;
        self.at += word.text.len();
        Ok(word)
    }

    pub(super) fn list(&mut self, what: &str) -> Result<Vec<Word<'a>>, ScriptError> {
        let mut words = vec![self.word(what)?];
        loop {
            self.skip_blank();
            if !self.rest().starts_with(',') {
                return Ok(words);
            }
            self.at += 1;
            words.push(self.word(what)?);
        }
    }

    /// Whether the next word is this one; it is read then.
    pub(super) fn takes(&mut self, text: &str) -> bool {
        let is_next = self.peek(text).is_ok_and(|word| word.text == text);
        if is_next {
            self.at += text.len();
        }
        is_next
    }

    pub(super) fn expect(&mut self, text: &str) -> Result<(), ScriptError> {
        let word = self.word(&format!("\"{text}\""))?;
        if word.text == text {
            Ok(())
        } else {
            Err(word.wrong(&format!("\"{text}\" is missing before \"{}\"", word.text)))
        }
    }

    pub(super) fn number(&mut self, what: &str) -> Result<(Word<'a>, u64), ScriptError> {
        let word = self.word(what)?;
        let number = word
            .text
            .parse()
            .map_err(|_| word.wrong(&format!("\"{}\" is not a number", word.text)))?;
        Ok((word, number))
    }

    pub(super) fn signed(&mut self, what: &str) -> Result<(Word<'a>, i64), ScriptError> {
        let word = self.word(what)?;
        let number: i64 = word
            .text
            .parse()
            .map_err(|_| word.wrong(&format!("\"{}\" is not a number", word.text)))?;
        if number.abs() > 500_000 {
            return Err(word.wrong("at most 500000 parts per million"));
        }
        Ok((word, number))
    }

    pub(super) fn duration(&mut self, what: &str) -> Result<Duration, ScriptError> {
        let word = self.word(what)?;
        read_duration(word.text).map_err(|why| word.wrong(&why))
    }

    pub(super) fn signed_us(&mut self, what: &str) -> Result<i64, ScriptError> {
        let word = self.word(what)?;
        let (sign, digits) = match word.text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, word.text.strip_prefix('+').unwrap_or(word.text)),
        };
        let duration = read_duration(digits).map_err(|why| word.wrong(&why))?;
        i64::try_from(duration.as_micros())
            .map(|micros| sign * micros)
            .map_err(|_| word.wrong("too far"))
    }

    pub(super) fn within(&mut self) -> Result<Duration, ScriptError> {
        self.expect("within")?;
        self.duration("how soon")
    }

    pub(super) fn end(&mut self) -> Result<(), ScriptError> {
        if self.is_at_end() {
            return Ok(());
        }
        let word = self.here(self.rest().len());
        Err(word.wrong(&format!("\"{}\" is too much", word.text.trim_end())))
    }
}

fn read_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits]
        .parse()
        .map_err(|_| format!("\"{text}\" is not a duration such as 300ms"))?;
    let micros: u64 = match &text[digits..] {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "" => return Err(format!("\"{text}\" has no unit: us, ms, s or m")),
        unit => return Err(format!("\"{unit}\" is not a unit: us, ms, s or m")),
    };
    number
        .checked_mul(micros)
        .map(Duration::from_micros)
        .ok_or_else(|| format!("\"{text}\" is too long"))
}
