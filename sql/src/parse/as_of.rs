//! Value: `AS OF SYSTEM TIME ..`, which no dialect of the parser knows: taken out of a statement's tokens before it sees them.
//!
//! One clause per statement, outside of all parentheses: a statement sees one moment.

use sqlparser::parser::ParserError;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan};

/// Parameters that a statement may have; PostgreSQL's own limit.
const PARAM_MAX: usize = 65_535;

/// Which moment, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// `'2026-01-01 12:00:00+00'`, `'-10s'`, or a number in quotes.
    Text(String),
    /// `$1`, from 1.
    Param(usize),
}

/// The clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AsOf {
    /// Which moment.
    pub moment: Moment,
    /// Where that stands.
    pub location: Location,
}

/// Takes the clause out of the tokens of one statement.
pub(super) fn take(tokens: &mut Vec<TokenWithSpan>) -> Result<Option<AsOf>, ParserError> {
    let Some(found) = find(tokens) else { return Ok(None) };
    let (words, end) = found?;
    let location = tokens[end].span.start;
    let moment = match &tokens[end].token {
        Token::SingleQuotedString(text) | Token::Number(text, _) => Moment::Text(text.clone()),
        Token::Placeholder(name) => {
            let number = name.strip_prefix('$').and_then(|number| number.parse().ok());
            match number.filter(|number| (1..=PARAM_MAX).contains(number)) {
                Some(number) => Moment::Param(number),
                None => return Err(unexpected(&tokens[end])),
            }
        }
        _ => return Err(unexpected(&tokens[end])),
    };
    tokens.drain(words..=end);
    match find(tokens) {
        None => Ok(Some(AsOf { moment, location })),
        Some(Err(error)) => Err(error),
        Some(Ok((second, _))) => Err(unexpected(&tokens[second])),
    }
}

/// Index of AS, and of the token behind TIME.
fn find(tokens: &[TokenWithSpan]) -> Option<Result<(usize, usize), ParserError>> {
    let mut depth = 0usize;
    let places: Vec<usize> = (0..tokens.len())
        .filter(|at| !matches!(tokens[*at].token, Token::Whitespace(_) | Token::EOF))
        .collect();
    for (n, at) in places.iter().enumerate() {
        match tokens[*at].token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        let words = ["AS", "OF", "SYSTEM", "TIME"];
        let here = words.iter().zip(&places[n..]);
        if places.len() - n < words.len() || !here.into_iter().all(|(w, at)| is(&tokens[*at], w)) {
            continue;
        }
        let behind = places.get(n + words.len());
        return Some(match behind {
            // Within parentheses it would be about a part of the statement.
            Some(_) if depth > 0 => Err(unexpected(&tokens[*at])),
            Some(behind) => Ok((*at, *behind)),
            None => Err(ParserError::ParserError("expected: a moment, found: EOF".into())),
        });
    }
    None
}

fn is(token: &TokenWithSpan, text: &str) -> bool {
    matches!(&token.token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(text))
}

/// In the parser's own words, which its caller reads the place from.
fn unexpected(token: &TokenWithSpan) -> ParserError {
    let Location { line, column } = token.span.start;
    let what = &token.token;
    ParserError::ParserError(format!(
        "Expected: a moment, found: {what} at Line: {line}, Column: {column}"
    ))
}
