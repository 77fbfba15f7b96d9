//! Value: statements from text.
//!
//! `sqlparser` knows most of PostgreSQL's grammar. What it misses, and what is ours alone, is recognised on the tokens before it
//! sees them: COPY and SHOW are read here, noise words (DEFERRABLE, NO KEY) are taken out, CHAOS and its kin are ours. A string of
//! several statements is cut at its semicolons and every piece is parsed before the first one runs, as PostgreSQL does.
//!
//! INVARIANT: no input makes this code, or the code that walks and drops its trees, run out of stack: nesting is bounded by the
//! parser's depth limit, chains of operators by [`OPERATORS_MAX`].

mod as_of;
mod beginning;
mod copy;
mod extension;
mod position;

pub(crate) use as_of::{AsOf, Moment};
pub(crate) use copy::{CopyDirection, CopyFormat, CopyOptions, CopySource, CopyStatement};
pub(crate) use extension::{BeginOptions, Extension, Show};
pub(crate) use position::Positions;

use self::beginning::Beginnings;
use crate::error::SqlError;
use crate::types::SqlState;
use sqlparser::ast;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use std::sync::Arc;

/// Bytes of one query string; PostgreSQL's own limit is its message size (1 GiB).
pub(crate) const STATEMENT_BYTES_MAX: usize = 64 << 20;
/// Parentheses and subqueries within each other.
const DEPTH_MAX: usize = 96;
/// Operators in one chain without a comma: each is one more level of the tree.
pub(crate) const OPERATORS_MAX: usize = 2000;
/// Bytes of an identifier; longer ones are cut, with a notice in PostgreSQL, silently here.
pub(crate) const IDENTIFIER_BYTES_MAX: usize = 63;

/// One statement of a query string.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    /// The statement.
    pub statement: Arc<Statement>,
    /// Character offsets of the whole query string, for error positions.
    pub positions: Arc<Positions>,
    /// AS OF SYSTEM TIME, of statements that may have it.
    pub as_of: Option<AsOf>,
    /// How it begins, on one line: for people.
    pub text: Arc<str>,
    /// How long it is, in characters.
    pub length: usize,
}

/// A statement.
#[derive(Clone, Debug)]
pub(crate) enum Statement {
    /// As sqlparser reads it.
    Sql(Box<ast::Statement>),
    /// COPY.
    Copy(Box<CopyStatement>),
    /// SHOW.
    Show(Show),
    /// BEGIN, START TRANSACTION, SET TRANSACTION.
    Begin(BeginOptions),
    /// What is ours alone, or does nothing here.
    Extension(Box<Extension>),
}

/// Parses a query string. Empty statements are left out: an empty answer means that there was none.
pub(crate) fn parse(sql: &str) -> Result<Vec<Parsed>, SqlError> {
    if sql.len() > STATEMENT_BYTES_MAX {
        return Err(SqlError::new(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!(
                "a query string of {} bytes is over the limit of {STATEMENT_BYTES_MAX}",
                sql.len()
            ),
        ));
    }
    let positions = Arc::new(Positions::new(sql));
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql)
        .tokenize_with_location()
        .map_err(|error| tokenizer_error(&positions, &error))?;
    check_operators(&tokens)?;
    let mut statements = Vec::new();
    let mut beginnings = Beginnings::new(sql);
    for piece in tokens.split(|token| token.token == Token::SemiColon) {
        let significant =
            |token: &&TokenWithSpan| !matches!(token.token, Token::Whitespace(_) | Token::EOF);
        if !piece.iter().any(|token| significant(&token)) {
            continue;
        }
        let (statement, as_of) = parse_one(piece.to_vec(), &positions, sql)?;
        let ends =
            |token: &TokenWithSpan| (positions.at(token.span.start), positions.at(token.span.end));
        let first = piece.iter().find(significant).map(ends);
        let last = piece.iter().rfind(significant).map(ends);
        let (text, length) = match (first, last) {
            (Some((Some(start), _)), Some((_, Some(end)))) => {
                (beginnings.of(start, end), end.saturating_sub(start))
            }
            _ => (Arc::from(""), 0),
        };
        let (statement, positions) = (Arc::new(statement), positions.clone());
        statements.push(Parsed { statement, positions, as_of, text, length });
    }
    Ok(statements)
}

fn parse_one(
    mut tokens: Vec<TokenWithSpan>,
    positions: &Positions,
    sql: &str,
) -> Result<(Statement, Option<AsOf>), SqlError> {
    let as_of = as_of::take(&mut tokens).map_err(|error| parser_error(positions, sql, error))?;
    let tokens = without_noise(tokens);
    let dialect = PostgreSqlDialect {};
    let mut parser =
        Parser::new(&dialect).with_recursion_limit(DEPTH_MAX).with_tokens_with_locations(tokens);
    let parsed = match extension::parse(&mut parser) {
        Ok(Some(statement)) => Ok(statement),
        Ok(None) => parser.parse_statement().map(|statement| Statement::Sql(Box::new(statement))),
        Err(error) => Err(error),
    };
    let parsed = parsed.and_then(|statement| match parser.peek_token().token {
        Token::EOF => Ok(statement),
        _ => parser.expected("end of statement", parser.peek_token()),
    });
    let statement = parsed.map_err(|error| parser_error(positions, sql, error))?;
    match as_of {
        Some(as_of) if !may_be_past(&statement) => Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            "AS OF SYSTEM TIME is for SELECT, EXPLAIN, DECLARE, PREPARE, BEGIN and SET TRANSACTION only",
        )
        .at(positions.at(as_of.location))),
        as_of => Ok((statement, as_of)),
    }
}

/// Whether a statement may say which moment it is about.
fn may_be_past(statement: &Statement) -> bool {
    match statement {
        Statement::Sql(statement) => matches!(
            statement.as_ref(),
            ast::Statement::Query(_)
                | ast::Statement::Explain { .. }
                | ast::Statement::Declare { .. }
                | ast::Statement::Prepare { .. }
        ),
        Statement::Begin(_) => true,
        Statement::Extension(extension) => {
            matches!(extension.as_ref(), Extension::SetTransaction { session: false, .. })
        }
        Statement::Copy(_) | Statement::Show(_) => false,
    }
}

/// Takes out words that change nothing here and that the parser does not know.
fn without_noise(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is = |token: &TokenWithSpan, text: &str| matches!(&token.token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(text));
    let mut words: Vec<usize> = Vec::new();
    let mut cut: Vec<usize> = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if matches!(token.token, Token::Whitespace(_)) {
            continue;
        }
        words.push(at);
        let back = |n: usize| words.len().checked_sub(n + 1).map(|i| words[i]);
        // FOR NO KEY UPDATE, FOR KEY SHARE: our locks are on rows, the weaker forms are the stronger ones.
        if is(token, "UPDATE")
            && let (Some(key), Some(no), Some(for_)) = (back(1), back(2), back(3))
            && is(&tokens[key], "KEY")
            && is(&tokens[no], "NO")
            && is(&tokens[for_], "FOR")
        {
            cut.extend([key, no]);
        }
        if is(token, "SHARE")
            && let (Some(key), Some(for_)) = (back(1), back(2))
            && is(&tokens[key], "KEY")
            && is(&tokens[for_], "FOR")
        {
            cut.push(key);
        }
    }
    cut.sort_unstable();
    for at in cut.into_iter().rev() {
        tokens.remove(at);
    }
    tokens
}

/// Refuses chains of operators that would make trees too deep to walk.
fn check_operators(tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
    let mut open: Vec<usize> = vec![0];
    let mut total = 0usize;
    // NOT NOT ..., - - ...: each is one more level, without parentheses that the parser would count.
    let mut prefixes = 0usize;
    for token in tokens {
        match &token.token {
            Token::Whitespace(_) => {}
            Token::Minus | Token::Plus | Token::Tilde => prefixes += 1,
            Token::Word(word) if word.keyword == Keyword::NOT => prefixes += 1,
            _ => prefixes = 0,
        }
        if prefixes > DEPTH_MAX {
            return Err(too_deep());
        }
        match &token.token {
            Token::Whitespace(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Placeholder(_)
            | Token::EOF => {}
            Token::Word(word) => {
                if word.keyword != Keyword::NoKeyword && is_chaining(word.keyword) {
                    *open.last_mut().expect("never empty") += 1;
                    total += 1;
                }
            }
            Token::LParen => open.push(0),
            Token::RParen => {
                if open.len() > 1 {
                    total -= open.pop().expect("more than one");
                }
            }
            Token::Comma | Token::SemiColon => {
                let count = open.last_mut().expect("never empty");
                total -= std::mem::take(count);
            }
            _ => {
                *open.last_mut().expect("never empty") += 1;
                total += 1;
            }
        }
        if total > OPERATORS_MAX {
            return Err(SqlError::new(
                SqlState::STATEMENT_TOO_COMPLEX,
                format!("an expression has more than {OPERATORS_MAX} operators"),
            )
            .with_hint("Use IN with a list, = ANY with an array, or several statements."));
        }
    }
    Ok(())
}

fn is_chaining(keyword: Keyword) -> bool {
    use Keyword::*;
    matches!(
        keyword,
        AND | OR
            | NOT
            | IS
            | IN
            | LIKE
            | ILIKE
            | BETWEEN
            | COLLATE
            | UNION
            | EXCEPT
            | INTERSECT
            | JOIN
            | AT
            | SIMILAR
            | XOR
            | NOTNULL
    )
}

fn tokenizer_error(
    positions: &Positions,
    error: &sqlparser::tokenizer::TokenizerError,
) -> SqlError {
    let position = positions.at(error.location);
    let lower = error.message.to_lowercase();
    let message = if lower.contains("unterminated string") || lower.contains("single quote") {
        "unterminated quoted string".to_string()
    } else if lower.contains("encoded string") {
        "unterminated quoted string, or an escape in it that is no character (such as \\000)"
            .to_string()
    } else if lower.contains("comment") {
        "unterminated /* comment".to_string()
    } else if lower.contains("delimiter") || lower.contains("double quote") {
        "unterminated quoted identifier".to_string()
    } else if lower.contains("dollar") {
        "unterminated dollar-quoted string".to_string()
    } else {
        format!("syntax error: {}", error.message)
    };
    SqlError::new(SqlState::SYNTAX_ERROR, message).at(position)
}

fn too_deep() -> SqlError {
    SqlError::new(SqlState::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded")
        .with_detail(format!("A statement may nest {DEPTH_MAX} levels deep."))
}

/// In PostgreSQL's words: `syntax error at or near "x"`.
fn parser_error(positions: &Positions, sql: &str, error: ParserError) -> SqlError {
    let text = match error {
        ParserError::RecursionLimitExceeded => {
            return too_deep();
        }
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => text,
    };
    match position::location_in(&text) {
        Some(location) => {
            let near = positions.token_at(sql, location);
            let message = if near.is_empty() {
                "syntax error at end of input".to_string()
            } else {
                format!("syntax error at or near \"{near}\"")
            };
            SqlError::new(SqlState::SYNTAX_ERROR, message).at(positions.at(location))
        }
        None if text.contains("found: EOF") => {
            SqlError::new(SqlState::SYNTAX_ERROR, "syntax error at end of input")
                .at(Some(positions.end()))
        }
        None => SqlError::new(SqlState::SYNTAX_ERROR, format!("syntax error: {text}")),
    }
}

/// An identifier as the catalog knows it: unquoted ones in lower case, cut to [`IDENTIFIER_BYTES_MAX`].
pub(crate) fn name(ident: &ast::Ident) -> String {
    let mut name =
        if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() };
    if name.len() > IDENTIFIER_BYTES_MAX {
        let mut end = IDENTIFIER_BYTES_MAX;
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        name.truncate(end);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(sql: &str) -> (String, String, Option<usize>) {
        let error = parse(sql).expect_err("must not parse");
        (error.code.to_string(), error.message, error.position)
    }

    #[test]
    fn syntax_errors_say_where() {
        assert_eq!(
            error("SELEC 1"),
            ("42601".into(), "syntax error at or near \"SELEC\"".into(), Some(1))
        );
        assert_eq!(
            error("SELECT 1 FRO t"),
            ("42601".into(), "syntax error at or near \"t\"".into(), Some(14))
        );
        assert_eq!(error("SELECT * FROM").1, "syntax error at end of input");
        assert_eq!(error("SELECT 'abc").1, "unterminated quoted string");
        assert_eq!(error("SELECT 1;\nSELECT ö) x").2, Some(19));
    }

    #[test]
    fn comments_and_semicolons_are_no_statements() {
        assert!(parse(" ; -- nothing\n /* here */ ;").expect("parses").is_empty());
        assert_eq!(parse("select 1; select 2;").expect("parses").len(), 2);
    }

    #[test]
    fn deep_and_long_statements_are_refused_or_parsed_but_never_crash() {
        let deep = format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000));
        assert_eq!(error(&deep).0, "54001");
        let long = format!("SELECT {}", vec!["1"; 100_000].join("+"));
        assert_eq!(error(&long).0, "54001");
        let list = format!("SELECT 1 IN ({})", vec!["1"; 20_000].join(","));
        assert_eq!(parse(&list).expect("a list is flat").len(), 1);
        let not = format!("SELECT {} true", "NOT ".repeat(1500));
        assert_eq!(error(&not).0, "54001");
    }

    #[test]
    fn a_statement_is_about_one_moment_as_a_whole() {
        let parsed = parse("SELECT 1; SELECT a FROM t AS OF SYSTEM TIME $3").expect("parses");
        assert!(parsed[0].as_of.is_none());
        assert_eq!(parsed[1].as_of.as_ref().expect("there").moment, Moment::Param(3));
        for (sql, at) in [
            ("SELECT a FROM t AS OF SYSTEM TIME now()", Some(35)),
            ("SELECT a FROM t AS OF SYSTEM TIME", Some(34)),
            ("SELECT a FROM t AS OF SYSTEM TIME '-1s' AS OF SYSTEM TIME '-1s'", Some(41)),
            ("SELECT a FROM (SELECT a FROM t AS OF SYSTEM TIME '-1s') t", Some(32)),
            ("INSERT INTO t SELECT a FROM t AS OF SYSTEM TIME '-1s'", Some(49)),
            ("UPDATE t SET a = 1 AS OF SYSTEM TIME '-1s'", Some(38)),
        ] {
            let (code, message, position) = error(sql);
            assert_eq!((code.as_str(), position), ("42601", at), "{sql}: {message}");
        }
    }

    #[test]
    fn what_clients_send_and_the_parser_does_not_know() {
        for sql in [
            "copy pgbench_accounts from stdin with (freeze on)",
            "vacuum analyze pgbench_branches",
            "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE",
            "begin isolation level strict serializable",
            "SELECT 1 FROM t FOR NO KEY UPDATE",
            "SHOW CHAOS",
            "SHOW CONFLICTS FROM TABLE t",
            "SHOW transaction isolation level",
            "CHAOS PARTITION 'eu-west' FROM 'us-east', 'ap-south' FOR '30s'",
            "CHAOS CLOCK 'n3' SKEW '-300ms' FOR '1m'",
            "CHAOS CLOCK 'n3' DRIFT '-200ppm' FOR '1m'",
            "CHAOS CUT 'n1', 'n2' TO 'eu-west' FOR '10s'",
            "CHAOS LATENCY 'n1' TO 'n2' ADD '300ms' JITTER '200ms' FOR '1m'",
            "CHAOS LATENCY 'us-east' TO 'n2' ADD '1s'",
            "CHAOS LOSS 'n1' TO 'n2' PERMILLE 50 FOR '1m'",
            "CHAOS HEAL",
            "CREATE TABLE t (a int PRIMARY KEY, n COUNTER) WITH (consistency = 'available')",
            "alter table pgbench_accounts add primary key (aid)",
            "create table x(aid int not null, filler char(84)) with (fillfactor=100)",
            "truncate table a,b,c",
            "SELECT * FROM t AS OF SYSTEM TIME '-10s' WHERE a = 1",
            "SELECT * FROM t AS OF SYSTEM TIME 1700000000000000000.0000000001",
            "EXPLAIN SELECT * FROM t as of system time $2 WHERE a = $1",
            "BEGIN READ ONLY AS OF SYSTEM TIME '2026-01-01 12:00:00+00'",
            "SET TRANSACTION AS OF SYSTEM TIME '-1h'",
        ] {
            parse(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }
}
