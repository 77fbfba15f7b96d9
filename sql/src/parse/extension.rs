//! Value: statements that are ours, or that only we must accept. CHAOS, SHOW, VACUUM, ANALYZE, BEGIN with all its words.

use super::{Statement, copy};
use crate::cluster::ChaosCommand;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;
use std::time::Duration;

/// Clocks that are injected to run faster or slower than this would be no clocks.
const DRIFT_PPM_MAX: i64 = 500_000;

/// Ours alone, or done by doing nothing.
#[derive(Clone, Debug)]
pub(crate) enum Extension {
    /// CHAOS ...
    Chaos(ChaosCommand),
    /// VACUUM: versions are collected by themselves.
    Vacuum,
    /// ANALYZE: there are no statistics yet.
    Analyze,
    /// LISTEN, CHECKPOINT and the like would need what is not there.
    Nothing {
        /// CommandComplete's tag.
        tag: &'static str,
    },
    /// SET TRANSACTION; SET SESSION CHARACTERISTICS AS TRANSACTION.
    SetTransaction {
        /// The modes.
        options: BeginOptions,
        /// For the session's later transactions.
        session: bool,
    },
}

/// SHOW ...
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// What waits for what.
    Contention,
    /// A setting.
    Setting(String),
    /// All settings.
    All,
    /// Faults.
    Chaos,
    /// Clocks.
    Clocks,
    /// Nodes.
    Nodes,
    /// Regions.
    Regions,
    /// Ranges, of one table or all.
    Ranges(Option<String>),
    /// How old the copies' knowledge of each other is.
    Staleness,
    /// Conflicts of a table.
    Conflicts(String),
    /// What became of a commit that was answered with 40003.
    TransactionStatus(String),
    /// Tables.
    Tables,
    /// Databases.
    Databases,
}

/// Modes of a transaction. `None`: the session's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BeginOptions {
    /// Level as it is shown: `serializable`, `strict serializable`, ...
    pub isolation: Option<&'static str>,
    /// READ ONLY or READ WRITE.
    pub read_only: Option<bool>,
    /// DEFERRABLE.
    pub deferrable: Option<bool>,
}

/// Reads a statement that sqlparser shall not see; `None`: it shall.
pub(super) fn parse(parser: &mut Parser) -> Result<Option<Statement>, ParserError> {
    if word(parser, "CHAOS") {
        return chaos(parser).map(|command| Some(extension(Extension::Chaos(command))));
    }
    if parser.parse_keyword(Keyword::SHOW) {
        return show(parser).map(|show| Some(Statement::Show(show)));
    }
    if parser.peek_keyword(Keyword::COPY) {
        return copy::parse(parser).map(|copy| Some(Statement::Copy(Box::new(copy))));
    }
    if word(parser, "VACUUM") {
        skip_all(parser);
        return Ok(Some(extension(Extension::Vacuum)));
    }
    if parser.parse_keyword(Keyword::ANALYZE) {
        skip_all(parser);
        return Ok(Some(extension(Extension::Analyze)));
    }
    if word(parser, "CHECKPOINT") {
        return Ok(Some(extension(Extension::Nothing { tag: "CHECKPOINT" })));
    }
    if parser.parse_keyword(Keyword::BEGIN) {
        let _ = parser.parse_one_of_keywords(&[Keyword::TRANSACTION, Keyword::WORK]);
        return Ok(Some(Statement::Begin(transaction_modes(parser)?)));
    }
    if parser.parse_keywords(&[Keyword::START, Keyword::TRANSACTION]) {
        return Ok(Some(Statement::Begin(transaction_modes(parser)?)));
    }
    if parser.parse_keywords(&[Keyword::SET, Keyword::TRANSACTION]) {
        let options = transaction_modes(parser)?;
        return Ok(Some(extension(Extension::SetTransaction { options, session: false })));
    }
    if parser.parse_keywords(&[Keyword::SET, Keyword::SESSION, Keyword::CHARACTERISTICS]) {
        parser.expect_keywords(&[Keyword::AS, Keyword::TRANSACTION])?;
        let options = transaction_modes(parser)?;
        return Ok(Some(extension(Extension::SetTransaction { options, session: true })));
    }
    Ok(None)
}

fn extension(extension: Extension) -> Statement {
    Statement::Extension(Box::new(extension))
}

fn skip_all(parser: &mut Parser) {
    while parser.peek_token().token != Token::EOF {
        parser.advance_token();
    }
}

/// Consumes a word that is no keyword to sqlparser, or may not be.
fn word(parser: &mut Parser, text: &str) -> bool {
    let found = matches!(
        &parser.peek_token().token,
        Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(text)
    );
    if found {
        parser.advance_token();
    }
    found
}

fn expect_word(parser: &mut Parser, text: &str) -> Result<(), ParserError> {
    if word(parser, text) { Ok(()) } else { parser.expected(text, parser.peek_token()) }
}

fn transaction_modes(parser: &mut Parser) -> Result<BeginOptions, ParserError> {
    let mut options = BeginOptions::default();
    loop {
        if parser.parse_keywords(&[Keyword::ISOLATION, Keyword::LEVEL]) {
            options.isolation = Some(isolation_level(parser)?);
        } else if parser.parse_keywords(&[Keyword::READ, Keyword::ONLY]) {
            options.read_only = Some(true);
        } else if parser.parse_keywords(&[Keyword::READ, Keyword::WRITE]) {
            options.read_only = Some(false);
        } else if word(parser, "DEFERRABLE") {
            options.deferrable = Some(true);
        } else if parser.parse_keyword(Keyword::NOT) {
            expect_word(parser, "DEFERRABLE")?;
            options.deferrable = Some(false);
        } else if !parser.consume_token(&Token::Comma) {
            return Ok(options);
        }
    }
}

fn isolation_level(parser: &mut Parser) -> Result<&'static str, ParserError> {
    if word(parser, "STRICT") {
        expect_word(parser, "SERIALIZABLE")?;
        return Ok("strict serializable");
    }
    if word(parser, "SERIALIZABLE") {
        return Ok("serializable");
    }
    if word(parser, "SNAPSHOT") {
        return Ok("snapshot");
    }
    if parser.parse_keywords(&[Keyword::REPEATABLE, Keyword::READ]) {
        return Ok("repeatable read");
    }
    if parser.parse_keywords(&[Keyword::READ, Keyword::COMMITTED]) {
        return Ok("read committed");
    }
    if parser.parse_keywords(&[Keyword::READ, Keyword::UNCOMMITTED]) {
        return Ok("read uncommitted");
    }
    parser.expected("an isolation level", parser.peek_token())
}

fn show(parser: &mut Parser) -> Result<Show, ParserError> {
    let simple: [(&str, Show); 9] = [
        ("ALL", Show::All),
        ("CHAOS", Show::Chaos),
        ("CLOCKS", Show::Clocks),
        ("CONTENTION", Show::Contention),
        ("NODES", Show::Nodes),
        ("REGIONS", Show::Regions),
        ("STALENESS", Show::Staleness),
        ("TABLES", Show::Tables),
        ("DATABASES", Show::Databases),
    ];
    for (text, show) in simple {
        if word(parser, text) {
            return Ok(show);
        }
    }
    if word(parser, "RANGES") {
        let table = parser.parse_keyword(Keyword::FROM).then(|| table_name(parser)).transpose()?;
        return Ok(Show::Ranges(table));
    }
    if word(parser, "CONFLICTS") {
        parser.expect_keyword(Keyword::FROM)?;
        return Ok(Show::Conflicts(table_name(parser)?));
    }
    if parser.parse_keywords(&[Keyword::TRANSACTION, Keyword::ISOLATION, Keyword::LEVEL]) {
        return Ok(Show::Setting("transaction_isolation".to_string()));
    }
    if parser.parse_keywords(&[Keyword::TRANSACTION, Keyword::STATUS]) {
        return Ok(Show::TransactionStatus(parser.parse_literal_string()?));
    }
    if parser.parse_keywords(&[Keyword::TIME, Keyword::ZONE]) {
        return Ok(Show::Setting("timezone".to_string()));
    }
    if parser.parse_keywords(&[Keyword::SESSION, Keyword::AUTHORIZATION]) {
        return Ok(Show::Setting("session_authorization".to_string()));
    }
    let name = parser.parse_object_name(false)?;
    let parts: Vec<String> =
        name.0.iter().filter_map(|part| part.as_ident()).map(super::name).collect();
    Ok(Show::Setting(parts.join(".")))
}

fn table_name(parser: &mut Parser) -> Result<String, ParserError> {
    let _ = parser.parse_keyword(Keyword::TABLE);
    let name = parser.parse_object_name(false)?;
    match name.0.last().and_then(|part| part.as_ident()) {
        Some(ident) => Ok(super::name(ident)),
        None => parser.expected("a table's name", parser.peek_token()),
    }
}

fn chaos(parser: &mut Parser) -> Result<ChaosCommand, ParserError> {
    if word(parser, "HEAL") {
        return Ok(ChaosCommand::Heal);
    }
    if word(parser, "CRASH") {
        return Ok(ChaosCommand::Crash { node: parser.parse_literal_string()? });
    }
    if word(parser, "CLOCK") {
        let node = parser.parse_literal_string()?;
        if word(parser, "DRIFT") {
            let ppm = parts_per_million(parser)?;
            return Ok(ChaosCommand::Drift { node, ppm, duration: for_duration(parser)? });
        }
        expect_word(parser, "SKEW")?;
        let (negative, size) = duration(parser)?;
        let size = i64::try_from(size.as_micros()).unwrap_or(i64::MAX);
        let skew_us = if negative { -size } else { size };
        return Ok(ChaosCommand::Clock { node, skew_us, duration: for_duration(parser)? });
    }
    if word(parser, "CUT") {
        let (from, to) = one_way(parser)?;
        return Ok(ChaosCommand::Cut { from, to, duration: for_duration(parser)? });
    }
    if word(parser, "LATENCY") {
        let (from, to) = one_way(parser)?;
        expect_word(parser, "ADD")?;
        let extra = positive_duration(parser)?;
        let jitter =
            if word(parser, "JITTER") { positive_duration(parser)? } else { Duration::ZERO };
        let duration = for_duration(parser)?;
        return Ok(ChaosCommand::Latency { from, to, extra, jitter, duration });
    }
    if word(parser, "LOSS") {
        let (from, to) = one_way(parser)?;
        expect_word(parser, "PERMILLE")?;
        let at = parser.peek_token();
        let permille = u32::try_from(parser.parse_literal_uint()?).ok();
        let Some(permille) = permille.filter(|permille| *permille <= 1000) else {
            return parser.expected("at most 1000 of 1000 messages", at);
        };
        return Ok(ChaosCommand::Loss { from, to, permille, duration: for_duration(parser)? });
    }
    expect_word(parser, "PARTITION")?;
    let from = parser.parse_comma_separated(Parser::parse_literal_string)?;
    parser.expect_keyword(Keyword::FROM)?;
    let to = parser.parse_comma_separated(Parser::parse_literal_string)?;
    Ok(ChaosCommand::Partition { from, to, duration: for_duration(parser)? })
}

/// `'a', 'b' TO 'c'`: who sends, who hears.
fn one_way(parser: &mut Parser) -> Result<(Vec<String>, Vec<String>), ParserError> {
    let from = parser.parse_comma_separated(Parser::parse_literal_string)?;
    parser.expect_keyword(Keyword::TO)?;
    Ok((from, parser.parse_comma_separated(Parser::parse_literal_string)?))
}

/// `'-200ppm'`.
fn parts_per_million(parser: &mut Parser) -> Result<i64, ParserError> {
    let at = parser.peek_token();
    let text = parser.parse_literal_string()?;
    let ppm = text.trim().strip_suffix("ppm").and_then(|number| number.trim().parse().ok());
    match ppm.filter(|ppm: &i64| ppm.abs() <= DRIFT_PPM_MAX) {
        Some(ppm) => Ok(ppm),
        None => parser.expected("a rate such as '-200ppm', at most 500000", at),
    }
}

fn positive_duration(parser: &mut Parser) -> Result<Duration, ParserError> {
    let at = parser.peek_token();
    match duration(parser)? {
        (false, duration) => Ok(duration),
        (true, _) => parser.expected("a positive duration", at),
    }
}

fn for_duration(parser: &mut Parser) -> Result<Option<Duration>, ParserError> {
    if !parser.parse_keyword(Keyword::FOR) {
        return Ok(None);
    }
    positive_duration(parser).map(Some)
}

/// `'300ms'`, `'-2s'`, `'1m'`, `'1h'`: sign and size.
fn duration(parser: &mut Parser) -> Result<(bool, Duration), ParserError> {
    let at = parser.peek_token();
    let text = parser.parse_literal_string()?;
    match parse_duration(&text) {
        Some(duration) => Ok(duration),
        None => parser.expected("a duration such as '300ms', '30s' or '1m'", at),
    }
}

fn parse_duration(text: &str) -> Option<(bool, Duration)> {
    let text = text.trim();
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let seconds = match unit.trim() {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        _ => return None,
    };
    Some((negative, Duration::try_from_secs_f64(seconds).ok()?))
}
