//! Value: the COPY statement, in its new (`WITH (FORMAT csv, ...)`) and old (`WITH CSV DELIMITER ','`) spellings.

use sqlparser::ast;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

/// COPY.
#[derive(Clone, Debug)]
pub(crate) struct CopyStatement {
    /// From what, or into what.
    pub source: CopySource,
    /// Which way.
    pub direction: CopyDirection,
    /// How the data looks.
    pub options: CopyOptions,
}

/// What is copied.
#[derive(Clone, Debug)]
pub(crate) enum CopySource {
    /// A table, or some of its columns.
    Table {
        /// Which.
        name: ast::ObjectName,
        /// Empty: all.
        columns: Vec<String>,
    },
    /// A query's result.
    Query(Box<ast::Query>),
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CopyDirection {
    /// FROM STDIN.
    In,
    /// TO STDOUT.
    Out,
}

/// The data's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CopyFormat {
    /// Tabs and backslashes.
    Text,
    /// Commas and quotes.
    Csv,
    /// PostgreSQL's binary form.
    Binary,
}

/// How the data looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CopyOptions {
    /// Its form.
    pub format: CopyFormat,
    /// Between fields.
    pub delimiter: u8,
    /// How NULL is written.
    pub null: String,
    /// A first line with names (csv, text).
    pub header: bool,
    /// Around fields (csv).
    pub quote: u8,
    /// Before a quote within a field (csv).
    pub escape: u8,
}

/// Reads `COPY ...`.
pub(super) fn parse(parser: &mut Parser) -> Result<CopyStatement, ParserError> {
    parser.expect_keyword(Keyword::COPY)?;
    let source = if parser.consume_token(&Token::LParen) {
        let query = parser.parse_query()?;
        parser.expect_token(&Token::RParen)?;
        CopySource::Query(query)
    } else {
        let name = parser.parse_object_name(false)?;
        let mut columns = Vec::new();
        if parser.consume_token(&Token::LParen) {
            columns = parser
                .parse_comma_separated(Parser::parse_identifier)?
                .iter()
                .map(super::name)
                .collect();
            parser.expect_token(&Token::RParen)?;
        }
        CopySource::Table { name, columns }
    };
    let direction = match parser.expect_one_of_keywords(&[Keyword::FROM, Keyword::TO])? {
        Keyword::FROM => CopyDirection::In,
        _ => CopyDirection::Out,
    };
    let end = if direction == CopyDirection::In { Keyword::STDIN } else { Keyword::STDOUT };
    parser.expect_keyword(end)?;
    let _ = parser.parse_keyword(Keyword::WITH);
    let mut given = Given::default();
    if parser.consume_token(&Token::LParen) {
        loop {
            option(parser, &mut given)?;
            if !parser.consume_token(&Token::Comma) {
                break;
            }
        }
        parser.expect_token(&Token::RParen)?;
    } else {
        while parser.peek_token().token != Token::EOF {
            legacy_option(parser, &mut given)?;
        }
    }
    Ok(CopyStatement { source, direction, options: given.options() })
}

/// Options as given; defaults depend on the format.
#[derive(Default)]
struct Given {
    format: Option<CopyFormat>,
    delimiter: Option<u8>,
    null: Option<String>,
    header: bool,
    quote: Option<u8>,
    escape: Option<u8>,
}

impl Given {
    fn options(self) -> CopyOptions {
        let format = self.format.unwrap_or(CopyFormat::Text);
        let csv = format == CopyFormat::Csv;
        let quote = self.quote.unwrap_or(b'"');
        CopyOptions {
            format,
            delimiter: self.delimiter.unwrap_or(if csv { b',' } else { b'\t' }),
            null: self.null.unwrap_or_else(|| if csv { String::new() } else { "\\N".to_string() }),
            header: self.header,
            quote,
            escape: self.escape.unwrap_or(quote),
        }
    }
}

fn option(parser: &mut Parser, given: &mut Given) -> Result<(), ParserError> {
    let at = parser.peek_token();
    let name = parser.parse_identifier()?;
    match super::name(&name).as_str() {
        "format" => {
            let at = parser.peek_token();
            let format = match &at.token {
                Token::SingleQuotedString(text) => {
                    let text = text.to_lowercase();
                    parser.advance_token();
                    text
                }
                _ => super::name(&parser.parse_identifier()?),
            };
            given.format = Some(match format.as_str() {
                "text" => CopyFormat::Text,
                "csv" => CopyFormat::Csv,
                "binary" => CopyFormat::Binary,
                _ => return parser.expected("text, csv or binary", at),
            });
        }
        "freeze" => {
            flag(parser)?;
        }
        "header" => given.header = flag(parser)?,
        "delimiter" => given.delimiter = Some(one_byte(parser)?),
        "null" => given.null = Some(parser.parse_literal_string()?),
        "quote" => given.quote = Some(one_byte(parser)?),
        "escape" => given.escape = Some(one_byte(parser)?),
        "encoding" => {
            let at = parser.peek_token();
            let encoding = parser.parse_literal_string()?.to_lowercase();
            if !matches!(encoding.as_str(), "utf8" | "utf-8" | "unicode") {
                return parser.expected("encoding UTF8", at);
            }
        }
        _ => return parser.expected("a COPY option", at),
    }
    Ok(())
}

fn legacy_option(parser: &mut Parser, given: &mut Given) -> Result<(), ParserError> {
    let at = parser.peek_token();
    let name = parser.parse_identifier()?;
    match super::name(&name).as_str() {
        "csv" => given.format = Some(CopyFormat::Csv),
        "binary" => given.format = Some(CopyFormat::Binary),
        "freeze" => {}
        "header" => given.header = true,
        "delimiter" | "delimiters" => {
            let _ = parser.parse_keyword(Keyword::AS);
            given.delimiter = Some(one_byte(parser)?);
        }
        "null" => {
            let _ = parser.parse_keyword(Keyword::AS);
            given.null = Some(parser.parse_literal_string()?);
        }
        "quote" => {
            let _ = parser.parse_keyword(Keyword::AS);
            given.quote = Some(one_byte(parser)?);
        }
        "escape" => {
            let _ = parser.parse_keyword(Keyword::AS);
            given.escape = Some(one_byte(parser)?);
        }
        _ => return parser.expected("a COPY option", at),
    }
    Ok(())
}

/// `on`, `true`, `1`, or nothing: yes.
fn flag(parser: &mut Parser) -> Result<bool, ParserError> {
    let at = parser.peek_token();
    let text = match &at.token {
        Token::Comma | Token::RParen => return Ok(true),
        Token::Word(word) => word.value.to_lowercase(),
        Token::SingleQuotedString(text) => text.to_lowercase(),
        Token::Number(text, _) => text.clone(),
        _ => return parser.expected("a boolean", at),
    };
    parser.advance_token();
    match text.as_str() {
        "on" | "true" | "1" => Ok(true),
        "off" | "false" | "0" => Ok(false),
        _ => parser.expected("a boolean", at),
    }
}

fn one_byte(parser: &mut Parser) -> Result<u8, ParserError> {
    let at = parser.peek_token();
    let text = parser.parse_literal_string()?;
    match text.as_bytes() {
        [byte] if byte.is_ascii() => Ok(*byte),
        _ => parser.expected("a single one-byte character", at),
    }
}
