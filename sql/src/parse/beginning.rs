//! Value: how a statement begins, as people are shown it: on one line, and not too long.

use std::iter::Peekable;
use std::str::CharIndices;
use std::sync::Arc;

/// Characters that are shown.
const SHOWN_MAX: usize = 120;

/// Beginnings of the statements of a query string, asked for in order: the string is walked through once.
pub(super) struct Beginnings<'a> {
    sql: &'a str,
    rest: Peekable<CharIndices<'a>>,
    /// Characters before `rest`.
    passed: usize,
}

impl<'a> Beginnings<'a> {
    pub(super) fn new(sql: &'a str) -> Beginnings<'a> {
        Beginnings { sql, rest: sql.char_indices().peekable(), passed: 0 }
    }

    /// Of the statement between two characters, counted from 1, the second exclusive.
    pub(super) fn of(&mut self, start: usize, end: usize) -> Arc<str> {
        while self.passed + 1 < start && self.rest.next().is_some() {
            self.passed += 1;
        }
        let from = self.rest.peek().map_or(self.sql.len(), |(byte, _)| *byte);
        let text = self.sql[from..].chars().take(end.saturating_sub(start));
        let mut shown = String::new();
        let (mut count, mut space) = (0, false);
        for character in text {
            if character.is_whitespace() {
                space = true;
                continue;
            }
            if count + usize::from(space) >= SHOWN_MAX {
                shown.push_str("...");
                break;
            }
            if std::mem::take(&mut space) && count > 0 {
                shown.push(' ');
                count += 1;
            }
            shown.push(character);
            count += 1;
        }
        Arc::from(shown)
    }
}

#[cfg(test)]
mod tests {
    use crate::parse::parse;

    fn beginnings(sql: &str) -> Vec<String> {
        parse(sql).expect("parses").iter().map(|parsed| parsed.text.to_string()).collect()
    }

    #[test]
    fn a_statement_is_shown_on_one_line() {
        let sql = "  SELECT \n 1 ; ;\n-- noise\n  UPDATE \u{e4}  SET b\t= 'x  y'\n WHERE a = 1 ;";
        assert_eq!(beginnings(sql), ["SELECT 1", "UPDATE \u{e4} SET b = 'x y' WHERE a = 1"]);
    }

    #[test]
    fn a_long_one_is_cut() {
        let sql = format!("SELECT '{}'; SELECT 2", "\u{e4}".repeat(200));
        let shown = beginnings(&sql);
        assert_eq!(shown[0].chars().count(), 123);
        assert!(shown[0].ends_with("\u{e4}..."), "{}", shown[0]);
        assert_eq!(shown[1], "SELECT 2");
    }
}
