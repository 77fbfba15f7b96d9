//! LIKE and ILIKE: a value. `%` is any text, `_` any character, a backslash takes the next character literally.
//! Runs in time pattern * text at worst: only the last `%` is ever tried again.

use super::error::{SqlState, TypeError};

/// Whether letters of different case differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// They differ.
    Sensitive,
    /// They do not.
    Ignored,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Any,
    One,
    Exactly(char),
}

/// True if the whole text matches. 22025 for a pattern that ends with its escape.
pub fn like(text: &str, pattern: &str, case: Case) -> Result<bool, TypeError> {
    let parts = parts(pattern, case)?;
    let text: Vec<char> = match case {
        Case::Sensitive => text.chars().collect(),
        Case::Ignored => text.chars().flat_map(char::to_lowercase).collect(),
    };
    Ok(matches(&text, &parts))
}

fn parts(pattern: &str, case: Case) -> Result<Vec<Part>, TypeError> {
    let mut out = Vec::with_capacity(pattern.len());
    let exactly = |out: &mut Vec<Part>, c: char| match case {
        Case::Sensitive => out.push(Part::Exactly(c)),
        Case::Ignored => out.extend(c.to_lowercase().map(Part::Exactly)),
    };
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '%' => out.push(Part::Any),
            '_' => out.push(Part::One),
            '\\' => {
                let escaped = chars.next().ok_or_else(|| {
                    TypeError::new(
                        SqlState::INVALID_ESCAPE_SEQUENCE,
                        "LIKE pattern must not end with escape character",
                    )
                })?;
                exactly(&mut out, escaped);
            }
            c => exactly(&mut out, c),
        }
    }
    Ok(out)
}

fn matches(text: &[char], parts: &[Part]) -> bool {
    let (mut at, mut part) = (0, 0);
    // Where to go on when the parts after the last `%` fail: behind it, one character later.
    let mut retry: Option<(usize, usize)> = None;
    while at < text.len() {
        match parts.get(part) {
            Some(Part::Any) => {
                retry = Some((at, part + 1));
                part += 1;
                continue;
            }
            Some(Part::One) => {
                (at, part) = (at + 1, part + 1);
                continue;
            }
            Some(Part::Exactly(c)) if *c == text[at] => {
                (at, part) = (at + 1, part + 1);
                continue;
            }
            Some(Part::Exactly(_)) | None => {}
        }
        match retry {
            Some((from, behind)) => {
                retry = Some((from + 1, behind));
                (at, part) = (from + 1, behind);
            }
            None => return false,
        }
    }
    parts[part..].iter().all(|part| *part == Part::Any)
}

/// The pattern with another escape character, in terms of the backslash: `LIKE p ESCAPE e`. An empty escape escapes nothing.
/// 22019 for an escape of more than one character.
pub fn with_escape(pattern: &str, escape: &str) -> Result<String, TypeError> {
    let mut escapes = escape.chars();
    let escape_char = escapes.next();
    if escapes.next().is_some() {
        return Err(TypeError::new(SqlState::INVALID_ESCAPE_SEQUENCE, "invalid escape string")
            .with_hint("Escape string must be empty or one character."));
    }
    if escape_char == Some('\\') {
        return Ok(pattern.to_string());
    }
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if Some(c) == escape_char {
            out.push('\\');
            out.extend(chars.next());
        } else {
            if c == '\\' {
                out.push('\\');
            }
            out.push(c);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, word for word.
    fn twin(text: &[char], pattern: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['%', rest @ ..] => (0..=text.len()).any(|skip| twin(&text[skip..], rest)),
            ['_', rest @ ..] => !text.is_empty() && twin(&text[1..], rest),
            [c, rest @ ..] => text.first() == Some(c) && twin(&text[1..], rest),
        }
    }

    #[test]
    fn escapes_are_literal() {
        let like = |t, p| like(t, p, Case::Sensitive).expect("a pattern");
        assert!(like("a%b", "a\\%b") && !like("axb", "a\\%b"));
        assert!(super::like("ÄB", "äb", Case::Ignored).expect("a pattern"));
        assert!(super::like("a", "a\\", Case::Sensitive).is_err());
        assert_eq!(with_escape("a!%b\\", "!").expect("one character"), "a\\%b\\\\");
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(text in "[ab]{0,8}", pattern in "[ab%_]{0,6}") {
            let (t, p): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
            prop_assert_eq!(like(&text, &pattern, Case::Sensitive).unwrap(), twin(&t, &p));
        }
    }
}
