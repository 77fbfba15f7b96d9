//! Value: where in a query string something is. The tokenizer counts lines and columns; the protocol counts characters from 1.

use sqlparser::tokenizer::Location;

/// Starts of the lines of a query string.
#[derive(Debug)]
pub(crate) struct Positions {
    /// Per line: (character offset, byte offset), both from 0.
    lines: Vec<(usize, usize)>,
    characters: usize,
}

impl Positions {
    /// Of this query string.
    pub(crate) fn new(sql: &str) -> Positions {
        let mut lines = vec![(0, 0)];
        let mut characters = 0;
        for (byte, character) in sql.char_indices() {
            characters += 1;
            if character == '\n' {
                lines.push((characters, byte + 1));
            }
        }
        Positions { lines, characters }
    }

    /// The character counted from 1; `None` for a location that is not in the text.
    pub(crate) fn at(&self, location: Location) -> Option<usize> {
        let line = usize::try_from(location.line).ok()?.checked_sub(1)?;
        let column = usize::try_from(location.column).ok()?;
        Some(self.lines.get(line)?.0 + column)
    }

    /// Just behind the last character, counted from 1.
    pub(crate) fn end(&self) -> usize {
        self.characters + 1
    }

    fn byte(&self, sql: &str, location: Location) -> Option<usize> {
        let line = usize::try_from(location.line).ok()?.checked_sub(1)?;
        let column = usize::try_from(location.column).ok()?.checked_sub(1)?;
        let (_, start) = *self.lines.get(line)?;
        let rest = sql.get(start..)?;
        Some(rest.char_indices().nth(column).map_or(sql.len(), |(at, _)| start + at))
    }

    /// The token that begins at a location, as PostgreSQL would quote it; empty at the end of the text.
    pub(crate) fn token_at<'a>(&self, sql: &'a str, location: Location) -> &'a str {
        let Some(rest) = self.byte(sql, location).and_then(|at| sql.get(at..)) else { return "" };
        let word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
        let end = match rest.chars().next() {
            None => 0,
            Some(first) if word(first) => rest.find(|c| !word(c)).unwrap_or(rest.len()),
            Some(quote @ ('\'' | '"')) => rest[1..].find(quote).map_or(rest.len(), |at| at + 2),
            Some(other) => other.len_utf8(),
        };
        &rest[..end]
    }
}

/// The location that a parser's message ends with (`... at Line: 1, Column: 5`).
pub(super) fn location_in(message: &str) -> Option<Location> {
    let rest = &message[message.rfind("Line: ")? + 6..];
    let (line, rest) = rest.split_once(", Column: ")?;
    let digits = rest.trim_end();
    Some(Location::new(line.trim().parse().ok()?, digits.parse().ok()?))
}
