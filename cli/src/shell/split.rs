//! Value: where statements end. Knows quotes, dollar quotes, comments and parentheses, so that a `;` inside of them ends nothing.

/// The text of the first complete statement (without its `;`) and the rest; `None` while it is not complete.
pub(crate) fn first_statement(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b';' => return Some((&text[..at], &text[at + 1..])),
            b'\'' | b'"' => at = skip_quoted(bytes, at)?,
            b'-' if bytes.get(at + 1) == Some(&b'-') => {
                at += bytes[at..].iter().position(|byte| *byte == b'\n')?;
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => at = skip_comment(bytes, at)?,
            b'$' => at = skip_dollar(text, at)?,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Whether there is nothing but white space and comments.
pub(crate) fn is_blank(text: &str) -> bool {
    text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with("--"))
}

/// The place of the closing quote; doubled quotes stay inside.
fn skip_quoted(bytes: &[u8], start: usize) -> Option<usize> {
    let quote = bytes[start];
    let mut at = start + 1;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == quote)?;
        if bytes.get(at + 1) != Some(&quote) {
            return Some(at);
        }
        at += 2;
    }
}

fn skip_comment(bytes: &[u8], start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = start;
    while at + 1 < bytes.len() {
        match (bytes[at], bytes[at + 1]) {
            (b'/', b'*') => (depth, at) = (depth + 1, at + 2),
            (b'*', b'/') if depth == 1 => return Some(at + 1),
            (b'*', b'/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    None
}

/// The end of `$tag$ .. $tag$`; the same place if it is no dollar quote (`$1`).
fn skip_dollar(text: &str, start: usize) -> Option<usize> {
    let after = &text[start + 1..];
    let Some(length) = after.find('$') else { return Some(start) };
    let tag = &after[..length];
    let is_tag = tag.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !tag.starts_with(|c: char| c.is_ascii_digit());
    if !is_tag {
        return Some(start);
    }
    let quote = format!("${tag}$");
    let body = start + quote.len();
    text[body..].find(&quote).map(|end| body + end + quote.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_semicolon_inside_something_ends_nothing() {
        for text in [
            "SELECT ';'",
            "SELECT \";\"",
            "-- ;\n",
            "/* ; /* ; */ ; */",
            "$$ ; $$",
            "$a$ ; $$ ; $a$",
            "'it''s ;'",
        ] {
            let whole = format!("{text} ; rest");
            assert_eq!(
                first_statement(&whole),
                Some((format!("{text} ").as_str(), " rest")),
                "{text}"
            );
        }
    }

    #[test]
    fn an_open_quote_waits_for_more() {
        for text in ["SELECT 'a;", "SELECT $$ ; ", "/* ; ", "SELECT 1"] {
            assert_eq!(first_statement(text), None, "{text}");
        }
        assert_eq!(first_statement("SELECT $1; x"), Some(("SELECT $1", " x")));
    }
}
